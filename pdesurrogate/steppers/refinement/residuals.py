"""Residuals that a refinement makes small: one that sees the trajectory, one of the head alone, and a blind one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.norms import torch_cfd_sobolev
from pdesurrogate.physics.residuals import (
    March,
    estimate,
    one_interval_defect,
    self_started_residual,
    vorticity_residual,
)
from pdesurrogate.steppers.refinement.base import Method, Path, Residual, positive


class Defect(nn.Module):
    """`one_interval_defect` of the frames, the last given one included; zero for the march's own trajectory.

    Args:
        march: a solver of the equation on the grid of the fields, whose step is the frame interval.
        metadata: of the fields.
        order: of the Sobolev norm that measures it, see `pdesurrogate.physics.residuals.estimate`.
        frames_at_once: how many frames are stepped side by side; all of them by default. When gradients are taken
            each part is computed again for them, which bounds the memory.

    Raises:
        ValueError: if the march steps other fields or another interval, or an axis is not periodic.
    """

    needs_rate = False

    def __init__(
        self, march: March, metadata: Metadata, order: float = -1.0, frames_at_once: int | None = None
    ) -> None:
        super().__init__()
        require_fitting(march, metadata)
        self.march = march
        self.metadata = metadata
        self.interval = metadata.frame_interval
        self.periods = metadata.grid.periods
        self.order = order
        self.frames_at_once = None if frames_at_once is None else positive("frames_at_once", frames_at_once)

    def of(self, path: Path, context: Context) -> Tensor:
        """The defect of every frame."""
        frames = torch.cat([path.first, path.frames], dim=1)
        if self.frames_at_once is None or not (torch.is_grad_enabled() and frames.requires_grad):
            return one_interval_defect(frames, context, self.march, self.interval, self.frames_at_once)
        count = frames.shape[1] - 1
        starts = range(0, count, self.frames_at_once)
        parts = [frames[:, start : start + self.frames_at_once + 1] for start in starts]
        return torch.cat(
            [
                checkpoint(one_interval_defect, part, context, self.march, self.interval, use_reentrant=False)
                for part in parts
            ],
            dim=1,
        )

    def size(self, residual: Tensor) -> Tensor:
        """Root mean square over time of the norm in ``H^order``."""
        return estimate(residual, self.periods, self.order).total


class AnalyticResidual:
    """`vorticity_residual` with the exact time derivative of the head's trigonometric polynomial.

    It needs no march, but is zero only for a solution that the polynomial can hold: at the frames' own spacing a
    trajectory of the solver has some.

    Args:
        metadata: of the fields: plane vorticity, with the parameter ``viscosity`` and perhaps ``drag``.
        forcing: vorticity source ``(x, y)``; that of the context if it is not given.
        order: of the Sobolev norm that measures it.

    Raises:
        ValueError: if the fields are no vorticity or the data state no viscosity.
    """

    needs_rate = True

    def __init__(self, metadata: Metadata, forcing: Tensor | None = None, order: float = -1.0) -> None:
        _require_vorticity(metadata)
        self.metadata = metadata
        self.periods = metadata.grid.periods
        self.parameters = metadata.parameters
        self.forcing = forcing
        self.order = order

    def of(self, path: Path, context: Context) -> Tensor:
        """The residual of every frame."""
        assert path.rate is not None
        forcing = _forcing(self.forcing, context, path.frames)
        return vorticity_residual(
            path.frames,
            path.rate,
            self.periods,
            parameter("viscosity", self.parameters, context, path.frames),
            parameter("drag", self.parameters, context, path.frames, default=0.0),
            forcing,
        )

    def size(self, residual: Tensor) -> Tensor:
        """Root mean square over time of the norm in ``H^order``."""
        return estimate(residual, self.periods, self.order).total


class SelfStartedResidual:
    """What the released code makes small, to compare with it: blind, and of order -1/2 where -1 is written.

    See `self_started_residual` and `torch_cfd_sobolev`, whose constants are those of the released notebooks, where the
    advection of a box of side ``2 pi`` keeps all waves, as here. To it every prediction is good: only with tolerance 0
    does a refiner begin.
    """

    needs_rate = False
    order = -0.5

    def __init__(self, metadata: Metadata, forcing: Tensor | None = None, time_step: float = 1e-6) -> None:
        _require_vorticity(metadata)
        self.metadata = metadata
        self.periods = metadata.grid.periods
        self.parameters = metadata.parameters
        self.forcing = forcing
        self.time_step = time_step

    def of(self, path: Path, context: Context) -> Tensor:
        """The residual of every frame, each compared with itself."""
        values = parameter("viscosity", self.parameters, context, path.frames).flatten()
        if bool((values != values[0]).any()):
            raise ValueError("Expected one viscosity in a batch for the released recipe; use batch size 1.")
        forcing = _forcing(self.forcing, context, path.frames)
        waves = torch.ones(path.frames.shape[-2], path.frames.shape[-1] // 2 + 1).to(path.frames)
        return self_started_residual(path.frames, self.periods, float(values[0]), forcing, self.time_step, mask=waves)

    def size(self, residual: Tensor) -> Tensor:
        """The authors' absolute norm."""
        return torch_cfd_sobolev(residual[:, :, 0], order=-1.0, alpha=10**-1.5, diameter=self.periods[0])


def parameter(
    name: str, names: Sequence[str], context: Context, fields: Tensor, default: float | None = None
) -> Tensor:
    """A physical parameter of each sample, shaped to multiply ``fields (batch, ...)``, in their precision.

    Raises:
        ValueError: if the context lacks it and there is no default.
    """
    shape = (-1, *(1,) * (fields.ndim - 1))
    if name in names and context.parameters is not None:
        return context.parameters[:, list(names).index(name)].to(fields).reshape(shape)
    if default is None:
        raise ValueError(
            f"Expected the parameter {name!r} in the context of the data but it has "
            f"{(context.parameters is not None and tuple(names)) or 'none'}; generate the data with it, or use the "
            "defect of a solver that knows it."
        )
    return fields.new_full((len(fields), *(1,) * (fields.ndim - 1)), default)


def required_defect(residual: Residual, method: Method) -> Defect:
    """The residual, for a method that steps through time with its march.

    Raises:
        ValueError: if it is another one.
    """
    if not isinstance(residual, Defect):
        raise ValueError(
            f"Expected the defect of a march for {type(method).__name__} but got {type(residual).__name__}; "
            "use Adam or LBFGS with it."
        )
    return residual


def require_fitting(part: object, metadata: Metadata) -> None:
    """Refuse a march, and what else may say so, for other fields than the data's or another interval.

    Raises:
        ValueError: naming the difference.
    """
    theirs = getattr(part, "metadata", None)
    if isinstance(theirs, Metadata):
        theirs.require_same_fields(metadata, what="the prediction to refine")


def _require_vorticity(metadata: Metadata) -> None:
    periods = [axis.period for axis in metadata.grid.axes]
    if metadata.channel_names != ("vorticity",) or len(periods) != 2 or None in periods:
        raise ValueError(
            f"Expected vorticity on a periodic rectangle but got channels {metadata.channel_names} with periods "
            f"{periods}; use the defect of a solver."
        )
    if "viscosity" not in metadata.parameters:
        raise ValueError(
            f"Expected the parameter 'viscosity' in the data but they state {metadata.parameters or 'none'}; "
            "generate them with it, or use the defect of a solver that knows it."
        )


def _forcing(given: Tensor | None, context: Context, fields: Tensor) -> Tensor | None:
    forcing = given if given is not None else context.forcing
    if forcing is None:
        return None
    if forcing.shape[-2:] != fields.shape[-2:]:
        raise ValueError(
            f"Expected a forcing on the grid of the fields {tuple(fields.shape[-2:])} but got {tuple(forcing.shape)}; "
            "evaluate it there."
        )
    # (batch, channel, x, y) of a context gets an axis of time.
    return forcing.to(fields) if forcing.ndim == 2 else forcing.to(fields).unsqueeze(1)

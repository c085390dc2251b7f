"""Steppers of periodic flow whose velocity has no divergence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.conservation.covariance import Diagonal
from pdesurrogate.physics.conservation.solenoidal import solenoidal
from pdesurrogate.steppers.base import Stepper, require_outermost


class SpectralDivergenceFree(nn.Module):
    """Takes the spectral divergence out of the velocity of each frame, before the next step; a `Stepper`.

    The nearest velocity without divergence, where components count by how sure they are: `solenoidal`. Means over the
    box stay, so that it commutes with a `ProbConserv` of these; other channels are not touched. For channels between
    walls see `projection.DivergenceFree`.

    Args:
        stepper: of a flow in an evenly spaced periodic box, all components at the same points.
        variances: of the components, in the order of the axes; by default all alike, which is the Leray projection.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if there is no metadata, it is of no such flow, or ``variances`` are not positive, one for each
            component.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> from pdesurrogate.physics.operators import divergence
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
        >>> metadata = Metadata("example", grid, (Channel("velocity_x"), Channel("velocity_y")), frame_interval=0.1)
        >>> noise = torch.randn(1, 1, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> context = Context(tuple(points[None] for points in grid.uniform_coordinates((16, 16))))
        >>> frame = SpectralDivergenceFree(Persistence(), metadata=metadata).step(noise, context)
        >>> bool(divergence(frame, grid.periods).abs().max() < 1e-12)
        True
    """

    def __init__(
        self, stepper: Stepper, variances: Sequence[float] | None = None, metadata: Metadata | None = None
    ) -> None:
        super().__init__()
        known = getattr(stepper, "metadata", None) if metadata is None else metadata
        if not isinstance(known, Metadata):
            raise ValueError(
                f"Expected the metadata of a periodic flow for SpectralDivergenceFree but a {type(stepper).__name__} "
                "has none; give them."
            )
        require_outermost(stepper, "SpectralDivergenceFree")
        self.stepper = stepper
        self.metadata = known
        self.variances = None if variances is None else tuple(variances)
        self._velocity = _components(known)
        if self.variances is not None and (
            len(self.variances) != len(self._velocity) or not all(variance > 0 for variance in self.variances)
        ):
            raise ValueError(
                f"Expected a positive variance for each of {len(self._velocity)} components of the velocity but got "
                f"{self.variances}."
            )

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The wrapped stepper's next block, its velocity projected; frames that are not finite stay as they are."""
        block = self.stepper.step(history, context)
        velocity = block[:, :, self._velocity]
        finite = torch.isfinite(velocity)
        found, _ = solenoidal(
            torch.where(finite, velocity, 0.0), self._covariance(block.device), self.metadata.grid.periods
        )
        channels = list(block.unbind(2))
        for number, values in zip(self._velocity, torch.where(finite, found, velocity).unbind(2), strict=True):
            channels[number] = values
        return torch.stack(channels, 2)

    def _covariance(self, device: torch.device) -> Diagonal:
        dimension = self.metadata.grid.dimension
        variances = torch.tensor(self.variances or (1.0,) * dimension, dtype=torch.float64, device=device)
        return Diagonal(variances.reshape(dimension, *(1,) * dimension))

    def extra_repr(self) -> str:
        """The variances, shown by ``print``."""
        return f"variances={self.variances}"


def _components(metadata: Metadata) -> list[int]:
    """Numbers of the channels of the velocity, in the order of the axes."""
    axes, names = metadata.grid.axes, metadata.channel_names
    wanted = [f"velocity_{axis.name}" for axis in axes]
    together = len({metadata.channels[names.index(name)].location for name in wanted if name in names}) == 1
    if any(axis.period is None for axis in axes) or not all(name in names for name in wanted) or not together:
        raise ValueError(
            f"Expected a box that is periodic along all axes and channels {wanted} at the same points, for "
            f"SpectralDivergenceFree, but {metadata.name!r} has {list(names)} and axes "
            f"{list(metadata.grid.axis_names)}; use another projection, or leave it out."
        )
    return [names.index(name) for name in wanted]

"""One block of a rollout beside the truth, and what metrics share of it, computed once."""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from torch import Tensor

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.flow import Flow
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.operators import velocity_symbol
from pdesurrogate.physics.spectral import derivative_wavenumbers, squared_magnitude


class Fields:
    """Frames ``(batch, time, channel, *space)`` in single precision at least, and transforms made when asked for.

    Args:
        values: physical units, any floating type.
        plan: of the rollouts that they come from.
    """

    def __init__(self, values: Tensor, plan: RolloutPlan) -> None:
        self.values = at_least_float32(values)
        self.plan = plan

    @cached_property
    def spectrum(self) -> Tensor:
        """Half spectrum ``(batch, time, channel, *waves)``, amplitudes; needs ``plan.has_spectra``.

        Along an axis that is not periodic the field is continued by its mirror image, which makes the transform a
        cosine transform with waves ``pi j / extent`` (DCT-I of nodes, DCT-II of cells): no jump at the ends, and
        Parseval's identity holds with quadrature weights. The plan's ``wave_shape`` and ``wave_periods`` are those of
        the continued field.
        """
        values = self.values
        first_axis = values.ndim - len(self.plan.shape)
        # Nodes at the ends are not repeated.
        skipped = 0 if self.plan.cell_centered else 1
        for axis, periodic in enumerate(self.plan.periodic, start=first_axis):
            if not periodic:
                image = values.narrow(axis, skipped, values.shape[axis] - 2 * skipped).flip(axis)
                values = torch.cat([values, image], axis)
        return torch.fft.rfftn(values, dim=tuple(range(first_axis, values.ndim)), norm="forward")

    @cached_property
    def density(self) -> Tensor:
        """Squared magnitude of `spectrum`."""
        return squared_magnitude(self.spectrum)

    @cached_property
    def velocity(self) -> Tensor:
        """``(batch, time, component, *space)`` of the plan's flow: given, or solved for from a vorticity."""
        own = self._flow.select(self.values)
        if self._flow.given == "velocity":
            return own
        spectrum = self._flow.select(self.spectrum)
        symbol = _velocity_of_vorticity(self.plan.shape, self.plan.wave_periods, spectrum.dtype, spectrum.device)
        return torch.fft.irfft2(symbol * spectrum, s=self.plan.shape, norm="forward")

    @cached_property
    def energy_density(self) -> Tensor:
        """``|u_k|^2 / 2`` of the plan's flow ``(batch, time, *waves)``."""
        own = self._flow.select(self.density)
        if self._flow.given == "velocity":
            return own.sum(2) / 2
        return own[:, :, 0] * _energy_of_vorticity(self.plan.shape, self.plan.wave_periods, own.dtype, own.device)

    @cached_property
    def enstrophy_density(self) -> Tensor:
        """``|w_k|^2 / 2`` of the plan's fully periodic flow ``(batch, time, *waves)``, all components of the curl."""
        if self._flow.given == "vorticity":
            return self._flow.select(self.density)[:, :, 0] / 2
        waves = self.waves
        u = self._flow.select(self.spectrum).unbind(2)
        pairs = ((0, 1),) if len(u) == 2 else ((0, 1), (1, 2), (2, 0))
        curl = [squared_magnitude(waves[i] * u[j] - waves[j] * u[i]) for i, j in pairs]
        return torch.stack(curl).sum(0) / 2

    @property
    def waves(self) -> tuple[Tensor, ...]:
        """Wavenumbers of first derivatives along each axis of `spectrum`, as `derivative_wavenumbers` gives them."""
        plan = self.plan
        return derivative_wavenumbers(
            plan.wave_shape, plan.wave_periods, dtype=self.values.dtype, device=self.values.device
        )

    @property
    def _flow(self) -> Flow:
        assert self.plan.flow is not None, "a metric of flows was built for data without one"
        return self.plan.flow


class Block:
    """Consecutive frames of a batch of rollouts and the truth beside them.

    Args:
        plan: of the rollouts.
        prediction: ``(batch, time, channel, *space)``, physical units; NaN where a trajectory was stopped.
        target: the true frames, same shape.
        first_frame: number of the block's first frame, counted from zero at the first predicted frame.
        trajectories: ``(batch,)`` integers, number of each trajectory.
        context: batched.
        members: ``(member, batch, time, channel, *space)`` of an ensemble, of which ``prediction`` is the mean.
        variance: of ``prediction``, same shape, where the model states one.

    Raises:
        ValueError: if the shapes do not agree.
    """

    def __init__(
        self,
        plan: RolloutPlan,
        prediction: Tensor,
        target: Tensor,
        first_frame: int,
        trajectories: Tensor,
        context: Context,
        *,
        members: Tensor | None = None,
        variance: Tensor | None = None,
    ) -> None:
        expected = (len(plan.metadata.channels), *plan.shape)
        if prediction.shape != target.shape or prediction.ndim < 3 or tuple(prediction.shape[2:]) != expected:
            raise ValueError(
                f"Expected prediction and target (batch, time, *{expected}) but got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}; measure on the grid and the channels of the data."
            )
        self.plan = plan
        self.prediction = Fields(prediction, plan)
        self.target = Fields(target, plan)
        self.first_frame = first_frame
        self.trajectories = trajectories
        self.context = context
        self.members = members
        self.variance = variance

    @property
    def frames(self) -> int:
        """Frames in this block."""
        return self.target.values.shape[1]

    @property
    def sides(self) -> tuple[tuple[str, Fields], tuple[str, Fields]]:
        """Prediction and truth with their names, for metrics that measure both alike."""
        return ("prediction", self.prediction), ("truth", self.target)

    @cached_property
    def error(self) -> Fields:
        """Prediction less target, transformed on its own: a difference of spectra would drown a small error."""
        return Fields(self.prediction.values - self.target.values, self.plan)

    @cached_property
    def weights(self) -> Tensor | None:
        """Quadrature weights ``(batch, 1, 1, *space)``, zero outside the mask; ``None`` if all points count alike."""
        if self.plan.equal_weights:
            return None
        return space_weights(self.plan.metadata.grid, self.context, cells=self.plan.cell_centered)

    def mean(self, values: Tensor) -> Tensor:
        """`box_mean` of ``values (batch, time, channel, *space)`` over the box; ``(batch, time, channel)``, float64."""
        return box_mean(values, self.weights)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precisions become float32; others stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def box_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over space of ``values (batch, time, channel, *space)``; ``(batch, time, channel)`` in float64.

    Args:
        values: any floating type; summed in float32 at least, pairwise.
        weights: quadrature weights that broadcast to ``values``, of any scale; ``None`` where all points count alike.
    """
    values = at_least_float32(values)
    space = tuple(range(3, values.ndim))
    # A sum in float64 over values in float32 costs fifty times as much on a CPU and gains nothing: torch sums pairwise.
    if weights is None:
        return values.mean(space).to(torch.float64)
    # Points of weight zero lie in a body: whatever is stored there must not count, NaN included.
    weighted = torch.where(weights > 0, values * weights, 0.0)
    return weighted.sum(space).to(torch.float64) / weights.sum(space).to(torch.float64)


@lru_cache(maxsize=16)
def _energy_of_vorticity(
    shape: tuple[int, ...], periods: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Kinetic energy of one unit of squared vorticity at each wave."""
    return (squared_magnitude(velocity_symbol(shape, periods, device=device)).sum(0) / 2).to(dtype)


@lru_cache(maxsize=16)
def _velocity_of_vorticity(
    shape: tuple[int, ...], periods: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Both components of one unit of vorticity at each wave."""
    return velocity_symbol(shape, periods, device=device).to(dtype)

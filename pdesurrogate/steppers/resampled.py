"""Any stepper on another grid: how a coarse solver is compared with a surrogate that lives on a finer one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.residuals import march_tangent
from pdesurrogate.physics.spectral import resample
from pdesurrogate.steppers.base import Stepper


class Resampled(nn.Module):
    """Runs ``stepper`` on a grid of its own and gives its frames on the grid of the data; a `Stepper`.

    All axes must be periodic and evenly spaced. Each frame is brought down to the stepper's grid by Fourier truncation
    and up again by padding with zeros. The way down after the way up returns the same coarse field, so repeated steps
    lose nothing inside the coarse band and the rollout is the one that the stepper alone would give from the truncated
    state; what lies beyond the band is lost at the first step and counts as the coarse stepper's error.

    Args:
        stepper: for example a solver at low resolution.
        resolution: points along each side of the stepper's grid; one number serves all axes.

    Example:
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> stepper = Resampled(Persistence(), resolution=8)
        >>> x = torch.arange(16) / 16
        >>> waves = torch.cos(2 * torch.pi * torch.stack([3 * x, 6 * x]))[:, None, None]
        >>> later = stepper.step(waves, Context((x.expand(2, -1),)))
        >>> [round(frame.abs().max().item(), 5) for frame in later]  # the second wave is beyond the coarse band
        [1.0, 0.0]
    """

    def __init__(self, stepper: Stepper, resolution: int | tuple[int, ...]) -> None:
        super().__init__()
        sizes = (resolution,) if isinstance(resolution, int) else tuple(resolution)
        if not sizes or min(sizes) < 2:
            raise ValueError(f"Expected at least two points along each axis but got resolution {resolution}.")
        self.stepper = stepper
        self.resolution = resolution

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    @property
    def metadata(self) -> Metadata | None:
        """As the wrapped stepper has it: another grid holds the same fields."""
        return getattr(self.stepper, "metadata", None)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The wrapped stepper's next block on the grid of ``history (batch, time, channel, *space)``.

        Raises:
            ValueError: if the number of axes differs from ``resolution`` or the context holds a mask, which has no
                Fourier interpolation.
        """
        fine = tuple(history.shape[3:])
        coarse = self._shape(len(fine))
        history = resample(history[:, history.shape[1] - self.history_frames :], coarse)
        return resample(self.stepper.step(history, _resample_context(context, coarse)), fine)

    def step_tangent(self, history: Tensor, direction: Tensor, context: Context) -> Tensor:
        """Derivative of a solver's `step` at ``history (batch, 1, channel, *space)`` in a direction of the same shape.

        Raises:
            ValueError: as `step`.
        """
        fine = tuple(history.shape[3:])
        coarse = self._shape(len(fine))
        context = _resample_context(context, coarse)
        return resample(
            march_tangent(self.stepper, resample(history, coarse), resample(direction, coarse), context), fine
        )

    def _shape(self, dimension: int) -> tuple[int, ...]:
        shape = (self.resolution,) * dimension if isinstance(self.resolution, int) else tuple(self.resolution)
        if len(shape) != dimension:
            raise ValueError(f"Expected a resolution for each of {dimension} axes but got {shape}.")
        return shape

    def extra_repr(self) -> str:
        """The stepper's grid, shown by ``print``."""
        return f"resolution={self.resolution}"


def _resample_context(context: Context, shape: tuple[int, ...]) -> Context:
    if context.mask is not None:
        raise ValueError("Expected fields without a mask but got one; only fully periodic boxes can be resampled.")
    coordinates = tuple(_resample_line(points, size) for points, size in zip(context.coordinates, shape, strict=True))
    forcing = None if context.forcing is None else resample(context.forcing, shape)
    return context._replace(coordinates=coordinates, forcing=forcing)


def _resample_line(points: Tensor, size: int) -> Tensor:
    """``size`` even points of the same period and first point, from even ``points (batch, n)``."""
    count = points.shape[-1]
    period = (points[..., -1:] - points[..., :1]) * (count / (count - 1))
    return points[..., :1] + period * (torch.arange(size, dtype=points.dtype, device=points.device) / size)

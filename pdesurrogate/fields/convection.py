"""How far a mean flow carries what is in it from frame to frame, and fields carried so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Points between two of the grid at which a correlation is looked at, before a parabola finds the place in between.
_FINER = 64


class RunningConvection:
    """The displacement from a frame to the next of the fluctuation of each channel, gathered trajectory by trajectory.

    The separation along an axis at which the correlation of neighbouring frames is largest; over the time between them
    it is the convection velocity of Kim and Hussain (Phys. Fluids A 5 (1993) 695), in a channel the mean velocity but
    near the walls, where it does not fall below 10 friction velocities. Separations are those nearest to zero, up to
    half the period to each side.

    Args:
        axis: number of the space axis along the mean flow; periodic, its points evenly spaced.
        kept: space axes whose points have displacements of their own, such as the one between two walls.

    Example:
        >>> wave = torch.sin(2 * torch.pi * torch.arange(8) / 8)
        >>> frames = torch.stack([wave, wave.roll(3), wave.roll(6)])[:, None]
        >>> convection = RunningConvection(axis=0)
        >>> convection.update(frames)
        >>> round(convection.displacement(period=1.0).item(), 3)
        0.375
    """

    def __init__(self, axis: int, kept: Sequence[int] = ()) -> None:
        if axis in kept:
            raise ValueError(f"Expected an axis other than those that are kept, {tuple(kept)}, but got {axis}.")
        self.axis = axis
        self.kept = tuple(kept)
        self._points = 0
        self._cross: Tensor | None = None

    def update(self, frames: Tensor) -> None:
        """Add the frames ``(time, channel, *space)`` of a trajectory.

        Raises:
            ValueError: if the grid is another one than before.
        """
        order = (0, 1, *(2 + axis for axis in self.kept), 2 + self.axis)
        others = [axis for axis in range(2, frames.ndim) if axis not in order]
        lines = frames.detach().to("cpu", torch.float64).permute(*order, *others)
        spectrum = torch.fft.rfft(lines.flatten(len(order)) if others else lines[..., None], dim=-2)
        cross = (spectrum[1:] * spectrum[:-1].conj()).sum((0, -1))
        if self._cross is not None and (
            cross.shape != self._cross.shape or lines.shape[len(order) - 1] != self._points
        ):
            raise ValueError(
                f"Expected trajectories on one grid but found {tuple(frames.shape[2:])} points after others."
            )
        self._points = lines.shape[len(order) - 1]
        self._cross = cross if self._cross is None else self._cross + cross

    def displacement(self, period: float) -> Tensor:
        """``(channel, *points of the kept axes)``, in units of ``period``, the length of the axis.

        Zero where nothing fluctuates, as on walls.

        Raises:
            ValueError: if there were no two frames in a row.
        """
        if self._cross is None or not bool(self._cross.abs().sum() > 0):
            raise ValueError(
                "Expected at least two frames in a row that fluctuate along the axis, but there were none."
            )
        # The mean of a plane does not say where anything is; a wave of two points does not say which way it went.
        cross = self._cross.clone()
        cross[..., 0] = 0
        if self._points % 2 == 0:
            cross[..., -1] = 0
        fine = self._points * _FINER
        correlation = torch.fft.irfft(cross, n=fine)
        place = correlation.argmax(-1, keepdim=True)
        below, top, above = (correlation.gather(-1, (place + step) % fine) for step in (-1, 0, 1))
        curvature = below - 2 * top + above
        between = torch.where(curvature < 0, (below - above) / (2 * curvature), 0.0)
        shift = (place + between)[..., 0] / fine
        shift = shift - shift.round()
        return torch.where(cross.abs().sum(-1) > 0, shift, 0.0) * period


def convected(fields: Tensor, displacement: Tensor, axis: int, period: float) -> Tensor:
    """Fields ``(..., channel, *space)`` moved along a periodic axis, each point of the profile by its own distance.

    Exact for what the grid resolves, and undone there by the opposite displacement; waves of two points lose what no
    grid can move. Means along the axis stay.

    Args:
        fields: real, the axis evenly spaced.
        displacement: ``(channel, *space)`` with one point along ``axis``, and along others where it is the same there.
        axis: number of the space axis.
        period: its length.

    Raises:
        ValueError: if the displacement varies along the axis.

    Example:
        >>> wave = torch.sin(2 * torch.pi * torch.arange(8) / 8)
        >>> moved = convected(wave[None], torch.full((1, 1), 0.375), axis=0, period=1.0)
        >>> bool(torch.allclose(moved[0], wave.roll(3), atol=1e-6))
        True
    """
    if displacement.shape[1 + axis] != 1:
        raise ValueError(
            f"Expected one displacement along axis {axis} but got {displacement.shape[1 + axis]} along it."
        )
    place = axis - (displacement.ndim - 1)
    points = fields.shape[place]
    waves = torch.arange(points // 2 + 1, device=fields.device, dtype=displacement.dtype)
    line = waves.reshape(-1, *(1,) * (-place - 1))
    phase = torch.polar(torch.ones_like(displacement * line), -2 * torch.pi / period * displacement * line)
    spectrum = torch.fft.rfft(fields, dim=place)
    return torch.fft.irfft(spectrum * phase, n=points, dim=place)

"""Trigonometric polynomials in time and plane: from frames to few waves, and from these to frames at any times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Times(NamedTuple):
    """Where a trigonometric polynomial in time is evaluated.

    Attributes:
        positions: ``(time,)`` in float64, in latent frames from the beginning of the period.
        period: in latent frames.
    """

    positions: Tensor
    period: int


class LinearHead(NamedTuple):
    """What a head's weights act on, which makes its correction a linear function of them.

    Attributes:
        features: ``(batch, modes_t, 2 modes_x, 2 modes_y)`` Fourier coefficients of last frame and latent.
        times: where the correction is evaluated.
        space: points of the fields.
        bias_factor: of the bias.
        margin: points that are cut off at every side.
    """

    features: Tensor
    times: Times
    space: tuple[int, int]
    bias_factor: float = 1.0
    margin: int = 0

    def correction(self, weight: Tensor, bias: Tensor, order: int = 0) -> Tensor:
        """``(batch, time, x, y)`` of complex ``weight`` and ``bias``, ``(..., modes_t, 2 modes_x, 2 modes_y)``.

        ``order`` is that of the derivative in time, per latent frame.
        """
        corrected = evaluate_waves(weight * self.features + bias * self.bias_factor, self.times, self.space, order)
        cut = slice(self.margin, self.space[0] - self.margin), slice(self.margin, self.space[1] - self.margin)
        return corrected[..., cut[0], cut[1]]


def space_time_waves(frames: Tensor, start: int, period: int, modes: tuple[int, int, int]) -> Tensor:
    """Fourier coefficients in ``(time, x, y)`` of ``frames (batch, frame, x, y)`` that begin at ``start`` of a period.

    Zeros fill the rest of the period.

    Returns:
        Amplitudes ``(batch, modes_t, 2 modes_x, 2 modes_y)``, waves in time from 0, in space ascending from ``-modes``.

    Raises:
        ValueError: if the grid has fewer points than there are waves.
    """
    positions = torch.arange(start, start + frames.shape[1], dtype=torch.float64)
    angles = _angles(Times(positions, period), modes[2])
    table = torch.stack([torch.cos(angles), -torch.sin(angles)], dim=1) / period
    lines = torch.einsum("kpf,bfxy->bkpxy", table.to(frames), frames)
    spectrum = torch.fft.fft2(torch.complex(lines[:, :, 0].contiguous(), lines[:, :, 1].contiguous()), norm="forward")
    rows, columns = _kept(frames.shape[2:], modes)
    return spectrum[:, :, rows.to(frames.device)[:, None], columns.to(frames.device)]


def evaluate_waves(waves: Tensor, times: Times, shape: tuple[int, int], order: int = 0) -> Tensor:
    """Real fields ``(batch, time, x, y)`` with the coefficients that `space_time_waves` describes, at any times.

    Args:
        waves: ``(batch, modes_t, 2 modes_x, 2 modes_y)`` or the same without the batch.
        times: where.
        shape: points of the fields, at least as many as there are waves.
        order: of the derivative in time, per latent frame.

    Raises:
        ValueError: if there are fewer points than waves.
    """
    kept = waves.shape[-2] // 2, waves.shape[-1] // 2, waves.shape[-3]
    rows, columns = _kept(shape, kept)
    spectrum = waves.new_zeros(*waves.shape[:-2], *shape)
    spectrum[..., rows.to(waves.device)[:, None], columns.to(waves.device)] = waves
    lines = torch.fft.ifft2(spectrum, norm="forward")
    wave = torch.arange(kept[2], dtype=torch.float64)
    # Each wave in time stands for a conjugate pair, but for wave 0 and the Nyquist wave of the points in a period; a
    # transform of that many points has none above, which happens to the authors' head without padding in time.
    pairs = torch.where((wave == 0) | (2 * wave == times.period), 1.0, 2.0) * (2 * wave <= times.period)
    size = pairs * (2 * torch.pi * wave / times.period) ** order
    angles = _angles(times, kept[2]) + order * torch.pi / 2
    table = torch.stack([torch.cos(angles), -torch.sin(angles)], dim=1) * size[:, None, None]
    parts = torch.view_as_real(lines)
    return torch.einsum("kpt,...kxyp->...txy", table.to(parts), parts)


def _angles(times: Times, waves: int) -> Tensor:
    """``2 pi wave position / period``, ``(wave, time)``."""
    turns = torch.arange(waves, dtype=torch.float64)[:, None] * times.positions.to("cpu", torch.float64)
    return 2 * torch.pi * torch.remainder(turns / times.period, 1.0)


def _kept(shape: Sequence[int], modes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Places of the kept waves, ascending, along the two axes of a full spectrum."""
    if any(size < 2 * kept for size, kept in zip(shape, modes[:2], strict=True)):
        raise ValueError(
            f"Expected at least {tuple(2 * kept for kept in modes[:2])} points, one for each wave, but got a grid of "
            f"{tuple(shape)}; use a finer grid or fewer modes."
        )
    rows, columns = (torch.arange(-kept, kept) % size for size, kept in zip(shape, modes[:2], strict=True))
    return rows, columns

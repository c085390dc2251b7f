"""Fourier calculus on periodic boxes: wavenumbers, masks, resampling, shells.

Transforms are over the trailing space axes, real-to-complex on the last one. Spectra marked ``normalized`` are divided
by the number of points, so that a coefficient is the amplitude of its wave whatever the resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def integer_wavenumbers(
    shape: Sequence[int], *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> tuple[Tensor, ...]:
    """Waves per box along each axis in the order of ``rfftn``, shaped to broadcast over its output.

    Args:
        shape: points along each space axis.
        dtype: of the result.
        device: of the result.

    Returns:
        One tensor per axis; the last has ``shape[-1] // 2 + 1`` entries, all non-negative.

    Example:
        >>> kx, ky = integer_wavenumbers((4, 4))
        >>> kx.flatten().tolist(), ky.flatten().tolist()
        ([0.0, 1.0, -2.0, -1.0], [0.0, 1.0, 2.0])
    """
    dimension = len(shape)
    waves = []
    for axis, size in enumerate(shape):
        frequencies = torch.fft.rfftfreq if axis == dimension - 1 else torch.fft.fftfreq
        line = frequencies(size, d=1.0 / size, dtype=dtype, device=device)
        waves.append(line.reshape(*(-1 if i == axis else 1 for i in range(dimension))))
    return tuple(waves)


def angular_wavenumbers(
    shape: Sequence[int],
    periods: Sequence[float],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> tuple[Tensor, ...]:
    """``2 pi / period`` times `integer_wavenumbers`, in radians per unit length."""
    waves = integer_wavenumbers(shape, dtype=dtype, device=device)
    return tuple(wave * (2 * torch.pi / period) for wave, period in zip(waves, periods, strict=True))


def derivative_wavenumbers(
    shape: Sequence[int],
    periods: Sequence[float],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> tuple[Tensor, ...]:
    """`angular_wavenumbers` with the Nyquist wave of even axes set to zero.

    The first derivative of the Nyquist wave of a real field is not representable on the grid; leaving it in makes the
    derivative of a real field complex.
    """
    waves = integer_wavenumbers(shape, dtype=dtype, device=device)
    return tuple(
        torch.where(2 * wave.abs() < size, wave * (2 * torch.pi / period), 0.0)
        for wave, size, period in zip(waves, shape, periods, strict=True)
    )


def dealias_mask(shape: Sequence[int], *, dtype: torch.dtype = torch.float64) -> Tensor:
    """The symmetric 2/3 mask: one where ``|k_i| < n_i / 3`` on every axis, else zero.

    Products of two fields inside the mask alias only onto waves outside it (Orszag 1971).

    Example:
        >>> int(dealias_mask((32, 32)).sum(0)[0])  # kx = -10 ... 10
        21
    """
    mask = torch.ones((), dtype=dtype)
    for wave, size in zip(integer_wavenumbers(shape), shape, strict=True):
        mask = mask * (3 * wave.abs() < size).to(dtype)
    return mask


def half_spectrum_weights(shape: Sequence[int], *, device: torch.device | str | None = None) -> Tensor:
    """How often each stored wave of ``rfftn`` occurs in the full spectrum: 1 or 2, shape ``(shape[-1] // 2 + 1,)``."""
    size = shape[-1]
    weights = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64, device=device)
    weights[0] = 1.0
    if size % 2 == 0:
        weights[-1] = 1.0
    return weights


def resample(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Fourier interpolation or truncation of ``values (..., *space)`` onto ``shape`` points of the same box.

    Exact for fields without waves at or above half the smaller resolution; others are cut off there, the Nyquist wave
    of even sizes included, so that going up and down again returns a band-limited field unchanged.

    Example:
        >>> x = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> coarse = resample(torch.cos(3 * x), (8,))
        >>> bool(torch.allclose(coarse, torch.cos(3 * x[::2])))
        True
    """
    dimension = len(shape)
    old = tuple(values.shape[-dimension:])
    if old == tuple(shape):
        return values
    axes = tuple(range(-dimension, 0))
    spectrum = torch.fft.rfftn(values, dim=axes, norm="forward")
    for axis, before, after in zip(axes, old, shape, strict=True):
        highest = (min(before, after) - 1) // 2
        low = spectrum.narrow(axis, 0, highest + 1)
        half = axis == -1
        length = after // 2 + 1 if half else after
        kept = [low] if half else [low, spectrum.narrow(axis, before - highest, highest)]
        gap_shape = list(low.shape)
        gap_shape[axis] = length - sum(part.shape[axis] for part in kept)
        kept.insert(1, spectrum.new_zeros(gap_shape))
        spectrum = torch.cat(kept, dim=axis)
    return torch.fft.irfftn(spectrum, s=tuple(shape), dim=axes, norm="forward")


def squared_magnitude(spectrum: Tensor) -> Tensor:
    """``|z|^2`` of complex values; same shape, real.

    Example:
        >>> squared_magnitude(torch.tensor([3.0 + 4.0j])).tolist()
        [25.0]
    """
    # Several times as fast as the magnitude, which takes a root, or as a sum over the innermost axis of two.
    squares = torch.view_as_real(spectrum).square()
    return squares[..., 0] + squares[..., 1]


class WaveSums(nn.Module):
    """Weighted sums over all waves of a half spectrum, several at once; one matrix product.

    Args:
        tables: ``(sums, *rfftn space)`` weights of each wave in each sum; the half that `rfftn` leaves out is counted.
        shape: points along each space axis.

    Example:
        >>> ones = WaveSums(torch.ones(1, 6, 4), shape=(6, 6))
        >>> field = torch.randn(6, 6)
        >>> mean_square = ones(squared_magnitude(torch.fft.rfft2(field, norm="forward")))
        >>> bool(torch.isclose(mean_square[0], field.square().mean().double()))
        True
    """

    table: Tensor

    def __init__(self, tables: Tensor, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        expected = (*self.shape[:-1], self.shape[-1] // 2 + 1)
        if tuple(tables.shape[1:]) != expected:
            raise ValueError(f"Expected tables (sums, *{expected}) but got {tuple(tables.shape)}.")
        weighted = tables.double() * half_spectrum_weights(self.shape, device=tables.device)
        self.register_buffer("table", weighted.flatten(1).T.contiguous(), persistent=False)

    def forward(self, density: Tensor) -> Tensor:
        """Sums ``(..., sums)`` in float64 of a density ``(..., *rfftn space)``."""
        return (density.flatten(-len(self.shape)) @ self.table.to(density.dtype)).to(torch.float64)


# Beyond this many entries a dense table of shells is slower than adding waves one by one, and larger than the fields.
_LARGEST_TABLE = 1 << 22


class Shells(nn.Module):
    """Bins of wavenumber magnitude for fields on one grid.

    Shell ``j`` holds the waves with ``round(|k| / spacing) == j``, where ``spacing`` is ``2 pi / longest period``. All
    waves of the grid are binned, corners included: a full-shell sum satisfies Parseval's identity.

    Attributes:
        wavenumbers: ``(shells,)`` centre ``j * spacing`` of each shell, radians per unit length.
    """

    wavenumbers: Tensor
    members: Tensor
    weights: Tensor
    table: Tensor | None

    def __init__(self, shape: Sequence[int], periods: Sequence[float], *, device: torch.device | str | None = None):
        super().__init__()
        self.shape = tuple(shape)
        self.periods = tuple(periods)
        spacing = 2 * torch.pi / max(periods)
        squared = sum(wave.square() for wave in angular_wavenumbers(shape, periods))
        assert isinstance(squared, Tensor)
        magnitude = squared.sqrt() / spacing
        members = magnitude.round().long().flatten()
        count = int(members.max()) + 1
        weights = half_spectrum_weights(shape).expand(magnitude.shape).flatten()
        table = None
        if count * members.numel() <= _LARGEST_TABLE:
            table = torch.zeros(members.numel(), count)
            table[torch.arange(members.numel()), members] = weights.float()
        tables = {
            "wavenumbers": torch.arange(count, dtype=torch.float64) * spacing,
            "members": members,
            "weights": weights.float(),
            "table": table,
        }
        for name, values in tables.items():
            self.register_buffer(name, values if values is None else values.to(device), persistent=False)

    def sum(self, density: Tensor) -> Tensor:
        """Sum a half-spectrum density ``(..., *rfftn space)`` over each shell; ``(..., shells)`` in float64."""
        flat = density.flatten(-len(self.shape))
        if self.table is not None:
            return (flat @ self.table.to(flat.dtype)).to(torch.float64)
        # Waves first, so that whole rows are added at once.
        rows = (flat * self.weights.to(flat.dtype)).reshape(-1, flat.shape[-1]).T
        sums = rows.new_zeros(self.wavenumbers.numel(), rows.shape[1]).index_add_(0, self.members, rows)
        return sums.T.reshape(*flat.shape[:-1], -1).to(torch.float64)

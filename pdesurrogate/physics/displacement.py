"""By how much one field is displaced against another: phase correlation, of whole fields and in windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pdesurrogate.physics.spectral import resample

# Of a correlation's peak, from a quarter of a cell off; each squares the error.
_NEWTON_STEPS = 8
# A peak that is this much flatter along one direction than along others does not say where it lies.
_FLATTEST = 1e-9
# Of equally high peaks the nearest counts; by so little that no other pair of peaks is concerned.
_PREFERENCE = 1e-9
# A tapered window of fewer points holds no field to speak of.
FEWEST_POINTS = 8


class Displacement(NamedTuple):
    """What `phase_correlation` finds.

    Attributes:
        shift: ``(..., dimension)`` grid points along each axis, NaN where the fields do not tell.
        coherence: ``(...)``, 1 for a pure translation and near 0 for fields that have nothing to do with each other;
            negative where the second is the first with its sign changed.
    """

    shift: Tensor
    coherence: Tensor

    @property
    def distance(self) -> Tensor:
        """Length ``(...)`` of the shift in grid points."""
        return self.shift.norm(dim=-1)


def phase_correlation(
    first: Tensor,
    second: Tensor,
    dimension: int,
    *,
    tapered: Sequence[int] = (),
    sign: Literal["same", "either"] = "same",
) -> Displacement:
    """The translation that takes ``first (..., *space)`` to ``second``: ``second(x)`` is about ``first(x - shift)``.

    It is where the correlation of both has its highest peak, each wave weighing ``a^2 / (a^2 + m^2)``, with ``a`` the
    product of both amplitudes and ``m`` its mean over all waves: strong waves count alike, as in Kuglin and Hines's
    *phase correlation image alignment method* (1975), and those that are mostly noise hardly count. The peak is looked
    for at twice the resolution, then found by Newton's method on the trigonometric polynomial, so that translations of
    band-limited periodic fields are found to rounding, by whole and by parts of grid points. White noise on both fields
    costs a few times the least possible error. Means do not matter.

    A shift is known modulo the period only, and lies within half of it; of several equally good ones, for fields that
    repeat themselves within the box, the nearest is given. It is NaN where no single point is best: for a constant, for
    a field that varies along one direction only, for values that are not finite.

    Args:
        first: real, any axes in front of those of space.
        second: of the same shape.
        dimension: space axes.
        tapered: axes of space, counted from 0, that are not periodic: a Hann window goes over both fields. It stays
            where it is while the field moves, so that shifts come out too small: by about a tenth where it holds a few
            structures of the field, less where it holds many.
        sign: ``"either"`` also finds displaced fields with their sign changed.

    Raises:
        ValueError: if shapes or axes do not fit.

    Example:
        >>> field = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
        >>> phase_correlation(field, field.roll((3, -2), (0, 1)), dimension=2).shift.round(decimals=4).tolist()
        [3.0, -2.0]
    """
    if first.shape != second.shape or not 1 <= dimension <= first.ndim:
        raise ValueError(
            f"Expected two fields of one shape with {dimension} space axes but got {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    if not set(tapered) <= set(range(dimension)):
        raise ValueError(f"Expected tapered axes among 0 to {dimension - 1} but got {tuple(tapered)}.")
    front, space = first.shape[:-dimension], first.shape[-dimension:]
    pair = [values.reshape(-1, *space) for values in (first, second)]
    window = _taper(space, tapered, first.device)
    known = _varies(pair[0]) & _varies(pair[1])
    spectrum = _weighted(*(_spectrum(values, window, known) for values in pair))
    shift, turned = _highest(spectrum, sign)
    spectrum = spectrum * turned.reshape(-1, *(1,) * dimension)
    start = shift
    for _ in range(_NEWTON_STEPS):
        _, slope, curvature = _derivatives(spectrum, shift)
        bends, directions = torch.linalg.eigh(curvature)
        along = torch.einsum("nij,ni->nj", directions, slope) / bends.abs().clamp_min(torch.finfo(bends.dtype).tiny)
        step = torch.einsum("nij,nj->ni", directions, along)
        shift = (shift + step).clamp(start - 0.5, start + 0.5)
    height, _, curvature = _derivatives(spectrum, shift)
    bends = torch.linalg.eigvalsh(curvature)
    known &= bends[:, -1] < _FLATTEST * bends.sum(-1)
    total = spectrum.abs().flatten(1).sum(-1)
    coherence = torch.where(known, turned * height / total, math.nan)
    sizes = torch.tensor(space, dtype=shift.dtype, device=shift.device)
    shift = shift - sizes * (shift / sizes).round()
    shift = torch.where(known[:, None], shift, math.nan)
    return Displacement(shift.reshape(*front, dimension), coherence.reshape(front))


def local_displacement(
    first: Tensor,
    second: Tensor,
    windows: int,
    periodic: Sequence[bool],
    *,
    sign: Literal["same", "either"] = "same",
) -> Displacement:
    """`phase_correlation` in windows that overlap by half, as for fields that move differently from place to place.

    Each is two parts of an axis that is cut into ``windows``, so that a periodic axis has as many and another has one
    less; all are tapered. With one window, the whole field is taken as it is and only axes that are not periodic are.

    Args:
        first: ``(..., *space)``, each axis divisible by ``windows``.
        second: of the same shape.
        windows: parts of each axis.
        periodic: for each axis of space.
        sign: as for `phase_correlation`.

    Returns:
        With one more axis, of all windows, behind those in front; NaN where windows have fewer than 8 points.

    Raises:
        ValueError: if shapes or windows do not fit.

    Example:
        >>> field = torch.randn(5, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> local_displacement(field, field.roll(2, -1), windows=4, periodic=(True, True)).shift.shape
        torch.Size([5, 16, 2])
    """
    dimension = len(periodic)
    if windows == 1:
        open_axes = [axis for axis, closed in enumerate(periodic) if not closed]
        pair = [values.unsqueeze(-dimension - 1) for values in (first, second)]
        return phase_correlation(pair[0], pair[1], dimension, tapered=open_axes, sign=sign)
    space = first.shape[-dimension:]
    if windows < 1 or any(size % windows for size in space):
        raise ValueError(f"Expected windows that divide the axes {tuple(space)} but got {windows}.")
    first, second = (_windows(values, windows, periodic) for values in (first, second))
    if min(first.shape[-dimension:]) < FEWEST_POINTS:
        nothing = first.new_full((*first.shape[:-dimension], dimension), math.nan, dtype=torch.float64)
        return Displacement(nothing, nothing[..., 0])
    return phase_correlation(first, second, dimension, tapered=range(dimension), sign=sign)


def _windows(values: Tensor, count: int, periodic: Sequence[bool]) -> Tensor:
    """``(..., windows, *points)``."""
    dimension = len(periodic)
    for closed in periodic:
        part = values.shape[-dimension] // count
        if closed:
            values = torch.cat([values, values.narrow(-dimension, 0, part)], -dimension)
        # The points of a window become the last axis, so that the next axis to cut moves to the same place.
        values = values.unfold(-dimension, 2 * part, part)
    return values.flatten(-2 * dimension, -dimension - 1)


def _taper(space: Sequence[int], tapered: Sequence[int], device: torch.device) -> Tensor:
    window = torch.ones(tuple(space), dtype=torch.float64, device=device)
    for axis in tapered:
        points = torch.arange(space[axis], dtype=torch.float64, device=device) + 0.5
        line = (points * (math.pi / space[axis])).sin().square()
        window = window * line.reshape(-1, *(1,) * (len(space) - axis - 1))
    return window


def _varies(values: Tensor) -> Tensor:
    """Whether each field is finite and more than a constant and its rounding."""
    flat = values.flatten(1)
    rounding = 10 * torch.finfo(values.dtype).eps * flat.abs().amax(-1)
    return flat.isfinite().all(-1) & (flat.amax(-1) - flat.amin(-1) > rounding)


def _spectrum(values: Tensor, window: Tensor, known: Tensor) -> Tensor:
    axes = tuple(range(1, values.ndim))
    values = torch.where(known.reshape(-1, *(1,) * len(axes)), values.double(), 0.0)
    mean = (values * window).sum(axes, keepdim=True) / window.sum()
    return torch.fft.fftn((values - mean) * window, dim=axes)


def _weighted(first: Tensor, second: Tensor) -> Tensor:
    """Spectrum of the correlation; its waves have amplitudes below one, zero for the mean and Nyquist waves."""
    cross = first.conj() * second
    for axis, size in enumerate(cross.shape[1:], start=1):
        # The Nyquist wave has no phase on the grid, so it says nothing of a shift.
        if size % 2 == 0:
            cross.select(axis, size // 2).zero_()
    amplitude = cross.abs()
    mean = amplitude.flatten(1).mean(-1).reshape(-1, *(1,) * (cross.ndim - 1))
    mean = mean.clamp_min(torch.finfo(amplitude.dtype).tiny)
    relative = amplitude / mean
    weighted = cross / mean * (relative / (1 + relative.square()))
    weighted.flatten(1)[:, 0] = 0
    return weighted


def _highest(spectrum: Tensor, sign: str) -> tuple[Tensor, Tensor]:
    """The peak ``(fields, axes)`` on a grid twice as fine, in points of the given one, and its sign ``(fields,)``."""
    space = spectrum.shape[1:]
    axes = tuple(range(1, spectrum.ndim))
    fine = [2 * size for size in space]
    values = resample(torch.fft.ifftn(spectrum, dim=axes).real, fine)
    score = values.abs() if sign == "either" else values.clone()
    score = score / score.flatten(1).amax(-1).reshape(-1, *(1,) * len(space)).clamp_min(torch.finfo(score.dtype).tiny)
    for axis, size in enumerate(fine):
        line = torch.fft.fftfreq(size, dtype=score.dtype, device=score.device)
        score -= _PREFERENCE * line.square().reshape(-1, *(1,) * (len(space) - axis - 1))
    best = score.flatten(1).argmax(-1)
    peak = values.flatten(1).gather(1, best[:, None])[:, 0]
    shift = torch.stack(torch.unravel_index(best, fine), -1) / 2
    turned = peak.sign() if sign == "either" else torch.ones_like(peak)
    return shift.to(values.dtype), turned


def _derivatives(spectrum: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value ``(fields,)``, gradient and second derivatives of the correlation at ``shift (fields, axes)``."""
    fields, *space = spectrum.shape
    dimension = len(space)
    sums = spectrum.reshape(fields, 1, -1)
    for axis in reversed(range(dimension)):
        size = space[axis]
        waves = torch.fft.fftfreq(size, dtype=shift.dtype, device=shift.device) * (2 * torch.pi)
        turn = torch.polar(torch.ones_like(shift[:, axis, None]), shift[:, axis, None] * waves)
        orders = torch.stack([turn, 1j * waves * turn, -waves.square() * turn], -1)
        sums = torch.einsum("namk,nkj->njam", sums.reshape(fields, sums.shape[1], -1, size), orders)
        sums = sums.reshape(fields, -1, sums.shape[-1])
    # Orders of derivatives from 0 to 2, an axis for each axis of space.
    orders_of = sums.real.reshape(fields, *(3,) * dimension)

    def order(*axes: int) -> Tensor:
        place: list[int | slice] = [slice(None), *(axes.count(axis) for axis in range(dimension))]
        return orders_of[tuple(place)]

    slope = torch.stack([order(axis) for axis in range(dimension)], -1)
    curvature = [torch.stack([order(row, axis) for axis in range(dimension)], -1) for row in range(dimension)]
    return order(), slope, torch.stack(curvature, -2)

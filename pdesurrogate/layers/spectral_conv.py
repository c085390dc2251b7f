"""The spectral convolution of Fourier neural operators: a learned matrix for each of the lowest wavenumbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdesurrogate.layers.gradients import differentiable_gradients, without_autocast

# How many times faster a matrix product does its operations than an FFT does, on the last axis; see `prefers_product`.
# Measured in float32 on one x86-64 core with MKL at 64 to 256 points. The inverse FFT also pays for padding its input
# with zeros and for a separate addition of the skip, which the product does on the way.
ANALYSIS_ADVANTAGE = 3.5
SYNTHESIS_ADVANTAGE = 8.0


def kept_wavenumbers(modes: Sequence[int]) -> Tensor:
    """Wavenumbers that ``modes`` keeps, ``(count, dimension)``, in the order of `SpectralConv.weight`.

    ``modes[i] = m`` keeps the ``m`` waves ``-(m // 2) ... (m - 1) // 2`` of an axis; of the last axis, whose negative
    half follows from the field being real, ``0 ... m // 2``. The last axis varies slowest, the first axis fastest.

    Example:
        >>> kept_wavenumbers((3, 2)).tolist()
        [[-1, 0], [0, 0], [1, 0], [-1, 1], [0, 1], [1, 1]]
    """
    full = [torch.arange(-(m // 2), (m + 1) // 2) for m in modes[:-1]]
    axes = [torch.arange(modes[-1] // 2 + 1), *reversed(full)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).flip(-1)


def prefers_product(size: int, columns: int, advantage: float) -> bool:
    """Whether a real transform of ``size`` points with ``columns`` kept waves is cheaper as a matrix product.

    A line costs ``4 size columns`` operations as a product with the kept waves and ``2.5 size log2(size)`` as an FFT,
    which does them ``advantage`` times slower.

    Example:
        >>> prefers_product(64, 13, ANALYSIS_ADVANTAGE), prefers_product(64, 33, ANALYSIS_ADVANTAGE)
        (True, False)
    """
    return 4 * columns <= advantage * 2.5 * math.log2(max(size, 2))


class SpectralConv(nn.Module):
    """Convolution on a periodic box, given by its Fourier coefficients at the lowest wavenumbers.

    ``y = F^-1 (R(k) F x(k)) + bias`` with a complex matrix ``R(k)`` for each kept wavenumber and zero elsewhere (Li et
    al., arXiv:2010.08895, equation 4), on ``(batch, channel, *space)`` with one to three space axes. ``F`` divides by
    the number of points, so a coefficient is the amplitude of its wave and the layer means the same at every
    resolution. The result is real in the way of ``irfftn``: on the last axis, what would make wave 0 or the Nyquist
    wave complex is dropped.

    A grid needs as many points as modes along every axis. With exactly as many and an even number, the highest wave is
    the Nyquist wave, which this grid holds once and finer grids as a conjugate pair.

    The transform of the last axis is a product with a table of the kept waves or an FFT, whichever is cheaper by a
    count of operations (`prefers_product`); that of the others an FFT of the kept columns. Input in half precision is
    computed in the precision of the weight.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        modes: waves kept along each axis, see `kept_wavenumbers`; other libraries call it ``n_modes``.
        bias: whether to add a constant to each channel.

    Attributes:
        weight: ``(wavenumbers, channels_in, channels_out, 2)``, real and imaginary part last.
        bias: ``(channels_out,)`` or ``None``.

    Example:
        >>> layer = SpectralConv(1, 1, modes=(4, 4), bias=False)
        >>> layer(torch.ones(2, 1, 16, 15)).shape
        torch.Size([2, 1, 16, 15])
    """

    bias: Tensor | None

    def __init__(self, channels_in: int, channels_out: int, modes: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        if not 1 <= len(modes) <= 3 or min(modes) < 1:
            raise ValueError(f"Expected positive modes for one to three axes but got {tuple(modes)}.")
        if channels_in < 1 or channels_out < 1:
            raise ValueError(f"Expected at least one channel in and out but got {channels_in} and {channels_out}.")
        self.channels_in = channels_in
        self.channels_out = channels_out
        self.modes = tuple(modes)
        count = (modes[-1] // 2 + 1) * math.prod(modes[:-1])
        self.weight = nn.Parameter(torch.empty(count, channels_in, channels_out, 2))
        self.bias = nn.Parameter(torch.empty(channels_out)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw complex weights and bias with variance ``2 / (channels_in + channels_out)``."""
        deviation = math.sqrt(2 / (self.channels_in + self.channels_out))
        nn.init.normal_(self.weight, std=deviation / math.sqrt(2))
        if self.bias is not None:
            nn.init.normal_(self.bias, std=deviation)

    def forward(self, values: Tensor, skip: Tensor | None = None, last_size: int | None = None) -> Tensor:
        """Convolve ``values (batch, channels_in, *space)``; ``(batch, channels_out, *space)``.

        Args:
            values: the input.
            skip: a matrix ``(channels_out, channels_in)``; ``skip @ values`` is added at every point on the way.
            last_size: points of the result along the last axis, which keeps its length: the same waves with the same
                amplitudes, sampled anew; only the Nyquist wave of either number of points counts once there and as a
                pair elsewhere. As many as the input has if not given; not together with ``skip``.

        Raises:
            ValueError: if channels or axes do not fit, the grid is too coarse for the modes, or ``skip`` meets another
                ``last_size``.
        """
        self._check(values, last_size)
        if skip is not None and last_size not in (None, values.shape[-1]):
            raise ValueError("Expected no skip where the result is sampled anew; add it outside, resampled.")
        with torch.autocast(values.device.type, enabled=False):
            wide = values.to(self.weight.dtype).contiguous()
            # A compiler does its own fusing, and cannot look into the hand-written function.
            convolution = convolve if torch.compiler.is_compiling() else _SpectralConv.apply
            result: Tensor = convolution(wide, self.weight, self.bias, skip, self.modes, last_size)
        return result.to(values.dtype)

    def _check(self, values: Tensor, last_size: int | None) -> None:
        if values.ndim != 2 + len(self.modes) or values.shape[1] != self.channels_in:
            raise ValueError(
                f"Expected (batch, {self.channels_in}, *space) with {len(self.modes)} space axes "
                f"but got {tuple(values.shape)}."
            )
        for space in (tuple(values.shape[2:]), _output_space(values, last_size)):
            if any(size < m for size, m in zip(space, self.modes, strict=True)):
                raise ValueError(
                    f"Expected at least {self.modes} points, one for each mode, but got a grid of {space}; "
                    "use a finer grid or fewer modes."
                )

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"{self.channels_in}, {self.channels_out}, modes={self.modes}, bias={self.bias is not None}"


def _output_space(values: Tensor, last_size: int | None) -> tuple[int, ...]:
    space = tuple(values.shape[2:])
    return space if last_size is None else (*space[:-1], last_size)


def convolve(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    skip: Tensor | None,
    modes: tuple[int, ...],
    last_size: int | None = None,
) -> Tensor:
    """What `SpectralConv` computes, written as its formula: whole transforms, and no care for speed.

    It defines the function, for tests and for second derivatives.
    """
    space = _output_space(values, last_size)
    axes = tuple(range(2, values.ndim))
    waves = kept_wavenumbers(modes).to(values.device)
    where = tuple(waves[:, axis] % size for axis, size in enumerate(space))
    spectrum = torch.fft.rfftn(values, dim=axes, norm="forward")
    mixed = torch.einsum("bik,kio->bok", spectrum[:, :, *where], torch.view_as_complex(weight))
    whole = spectrum.new_zeros(values.shape[0], weight.shape[2], *space[:-1], space[-1] // 2 + 1)
    every = torch.arange(whole.shape[0], device=values.device)[:, None, None]
    channel = torch.arange(whole.shape[1], device=values.device)[None, :, None]
    whole = whole.index_put((every, channel, *where), mixed)
    result: Tensor = torch.fft.irfftn(whole, s=space, dim=axes, norm="forward")
    if skip is not None:
        result = result + torch.einsum("oi,bi...->bo...", skip, values)
    return result if bias is None else result + bias.reshape(-1, *(1,) * len(space))


class _SpectralConv(torch.autograd.Function):
    """`convolve` with only the kept waves computed, the matrices applied wave by wave, and its own derivative.

    Without the scale factors, analysis is ``A``, synthesis ``A^T D`` with ``D`` the number of waves that a column
    stands for: ``y = A^T D W A x / points``. The derivative uses the same two transforms with the factors moved.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        skip: Tensor | None,
        modes: tuple[int, ...],
        last_size: int | None,
    ) -> Tensor:
        """`convolve`."""
        space = _output_space(values, last_size)
        points = math.prod(values.shape[2:])
        waves = _analyze(values, modes, None)
        mixed = torch.bmm(waves.flatten(0, -3), torch.view_as_complex(weight)).unflatten(0, waves.shape[:-2])
        if bias is not None:
            _mean(mixed, modes).real.add_(bias, alpha=points)
        base = None if skip is None else torch.bmm(skip.expand(len(values), -1, -1), values.flatten(2))
        scale = values.new_full((), 1 / points)
        ctx.modes, ctx.last_size = modes, last_size
        ctx.save_for_backward(values, weight, bias, skip, waves)
        return _synthesize(mixed, space, modes, scale, base)

    @staticmethod
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, weight, bias and skip; differentiable again when a graph is asked for."""
        *inputs, waves = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = functools.partial(convolve, modes=ctx.modes, last_size=ctx.last_size)
            return *differentiable_gradients(formula, inputs, ctx.needs_input_grad[:4], gradient), None, None
        values, weight, _, skip = inputs
        needs_values, needs_weight, needs_bias, needs_skip, *_ = ctx.needs_input_grad
        gradient = gradient.contiguous()
        space = values.shape[2:]
        points = math.prod(space)
        pairs = _pairs(gradient.shape[-1], waves.shape[0], gradient.dtype, gradient.device)
        grad_waves = _analyze(gradient, ctx.modes, pairs / points)
        grad_bias = _mean(grad_waves, ctx.modes).real.sum(0) * points if needs_bias else None
        grad_waves = grad_waves.flatten(0, -3)
        grad_weight = grad_skip = grad_values = None
        if needs_weight:
            grad_weight = torch.view_as_real(torch.bmm(waves.flatten(0, -3).mH, grad_waves))
        if needs_skip:
            grad_skip = torch.bmm(gradient.flatten(2), values.flatten(2).mT).sum(0)
        if needs_values:
            # The conjugate is taken of the waves twice rather than of the weight once, which is much larger.
            spread = torch.bmm(grad_waves.conj(), torch.view_as_complex(weight).mT).conj()
            spread = spread.unflatten(0, waves.shape[:-2])
            base = None if skip is None else torch.bmm(skip.mT.expand(len(gradient), -1, -1), gradient.flatten(2))
            own_pairs = _pairs(space[-1], waves.shape[0], gradient.dtype, gradient.device)
            grad_values = _synthesize(spread, space, ctx.modes, 1 / own_pairs, base)
        return grad_values, grad_weight, grad_bias, grad_skip, None, None


def _mean(waves: Tensor, modes: tuple[int, ...]) -> Tensor:
    """The coefficients ``(batch, channel)`` of wavenumber zero, a view."""
    return waves[0, *(m // 2 for m in reversed(modes[:-1]))]


def _segments(size: int, m: int) -> tuple[tuple[int, int, int], ...]:
    """Start among ``m`` ascending waves, start in an FFT of ``size``, and length: the negative waves, then the rest."""
    negative = m // 2
    return (0, size - negative, negative), (negative, 0, m - negative)


def _analyze(values: Tensor, modes: tuple[int, ...], factor: Tensor | None) -> Tensor:
    """Unscaled coefficients ``(*reversed waves, batch, channel)`` of real fields, times a ``factor`` by column."""
    size, columns, dimension = values.shape[-1], modes[-1] // 2 + 1, len(modes)
    if prefers_product(size, columns, ANALYSIS_ADVANTAGE):
        lines = torch.mm(values.reshape(-1, size), _table(size, columns, values.dtype, values.device))
        spectrum = torch.view_as_complex(lines.view(*values.shape[:-1], columns, 2))
    else:
        spectrum = torch.fft.rfft(values)[..., :columns]
    for axis in range(dimension - 2, 0, -1):
        spectrum = torch.fft.fft(spectrum, dim=2 + axis)
        parts = [spectrum.narrow(2 + axis, start, n) for _, start, n in _segments(values.shape[2 + axis], modes[axis])]
        spectrum = torch.cat(parts, dim=2 + axis)
    if dimension > 1:
        spectrum = torch.fft.fft(spectrum, dim=2)
    by_wave = spectrum.permute(*range(dimension + 1, 1, -1), 0, 1)
    waves = spectrum.new_empty(columns, *reversed(modes[:-1]), *values.shape[:2])
    segments = _segments(values.shape[2], modes[0]) if dimension > 1 else ((0, 0, columns),)
    for target, source, length in segments:
        out = waves.narrow(dimension - 1, target, length)
        part = by_wave.narrow(dimension - 1, source, length)
        if factor is None:
            out.copy_(part)
        else:
            torch.mul(part, factor.reshape(-1, *(1,) * (dimension + 1)), out=out)
    return waves


def _synthesize(
    waves: Tensor, space: Sequence[int], modes: tuple[int, ...], factor: Tensor, base: Tensor | None
) -> Tensor:
    """``base`` plus the real fields of ``factor * waves (*reversed waves, batch, channel)``; overwrites ``base``.

    ``factor`` is one number or one for each column.
    """
    columns, dimension = waves.shape[0], len(modes)
    factor = factor.reshape(-1, *(1,) * (dimension - 1))
    spectrum = waves.permute(dimension, dimension + 1, *range(dimension))
    for axis, (size, m) in enumerate(zip(space[:-1], modes[:-1], strict=True)):
        padded = spectrum.new_zeros(*spectrum.shape[:-1], size)
        for source, target, length in _segments(size, m):
            out = padded.narrow(-1, target, length)
            part = spectrum.narrow(-1, source, length)
            if axis == 0:
                torch.mul(part, factor, out=out)
            else:
                out.copy_(part)
        spectrum = torch.fft.ifft(padded, norm="forward").movedim(-1, 2 + axis)
    if dimension == 1:
        spectrum = spectrum * factor
    size = space[-1]
    if not prefers_product(size, columns, SYNTHESIS_ADVANTAGE):
        fields: Tensor = torch.fft.irfft(spectrum, n=size, norm="forward")
        return fields if base is None else fields.add_(base.view(fields.shape))
    lines = torch.view_as_real(spectrum.contiguous()).view(-1, 2 * columns)
    table = _synthesis_table(size, columns, factor.dtype, factor.device)
    shape = (*spectrum.shape[:-1], size)
    return (torch.mm(lines, table) if base is None else base.view(-1, size).addmm_(lines, table)).view(shape)


def _cached(make: Callable[[int, int, torch.dtype, torch.device], Tensor]) -> Callable[..., Tensor]:
    """Keep the tables of recent sizes, made in a way that training can use them after inference mode did."""
    kept = functools.lru_cache(maxsize=64)(make)

    @functools.wraps(make)
    def table(size: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return kept(size, columns, dtype, device)

    return table


@_cached
def _table(size: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``exp(-2 pi i point wave / size)``, ``(size, 2 columns)``: real and imaginary parts alternate."""
    turns = torch.arange(size)[:, None] * torch.arange(columns) % size
    angle = turns.double() * (2 * math.pi / size)
    # At wave 0 and at Nyquist the sine is exactly zero: these waves of a real field are real.
    sine = torch.where(2 * turns % size == 0, 0.0, torch.sin(angle))
    return torch.stack([torch.cos(angle), -sine], dim=-1).flatten(1).to(device, dtype)


@_cached
def _pairs(size: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """2 for every wave of the last axis that stands for a conjugate pair, 1 for wave 0 and Nyquist; ``(columns,)``."""
    wave = torch.arange(columns)
    return torch.where((wave == 0) | (2 * wave == size), 1, 2).to(device, dtype)


@_cached
def _synthesis_table(size: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``_table`` transposed, each wave counted once for each sign; ``(2 columns, size)``."""
    pairs = _pairs(size, columns, dtype, device).repeat_interleave(2)
    return (_table(size, columns, dtype, device).T * pairs[:, None]).contiguous()

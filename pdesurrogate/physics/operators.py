"""Differential operators of periodic fields, exact for band-limited input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdesurrogate.physics.spectral import angular_wavenumbers, derivative_wavenumbers


def gradient(values: Tensor, periods: Sequence[float]) -> Tensor:
    """Spectral gradient of scalars ``(..., *space)``; components stacked before the space axes ``(..., d, *space)``."""
    shape = values.shape[-len(periods) :]
    axes = tuple(range(-len(periods), 0))
    spectrum = torch.fft.rfftn(values, dim=axes)
    waves = derivative_wavenumbers(shape, periods, dtype=values.dtype, device=values.device)
    derivatives = torch.stack([1j * wave * spectrum for wave in waves], dim=-len(periods) - 1)
    return torch.fft.irfftn(derivatives, s=tuple(shape), dim=axes)


def divergence(velocity: Tensor, periods: Sequence[float]) -> Tensor:
    """Spectral divergence of collocated vectors ``(..., d, *space)``; ``(..., *space)``, units velocity per length."""
    dimension = len(periods)
    shape = velocity.shape[-dimension:]
    axes = tuple(range(-dimension, 0))
    spectrum = torch.fft.rfftn(velocity, dim=axes)
    waves = derivative_wavenumbers(shape, periods, dtype=velocity.dtype, device=velocity.device)
    total = torch.zeros_like(spectrum.select(-dimension - 1, 0))
    for component, wave in enumerate(waves):
        total = total + 1j * wave * spectrum.select(-dimension - 1, component)
    return torch.fft.irfftn(total, s=tuple(shape), dim=axes)


def vorticity_from_velocity(velocity: Tensor, periods: Sequence[float]) -> Tensor:
    """``dv/dx - du/dy`` of plane vectors ``(..., 2, x, y)``; ``(..., x, y)``."""
    u, v = velocity.unbind(-3)
    return gradient(v, periods).select(-3, 0) - gradient(u, periods).select(-3, 1)


def velocity_symbol(
    shape: Sequence[int],
    periods: Sequence[float],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Fourier symbol ``(2, x, y // 2 + 1)`` that takes vorticity to velocity; complex, zero at the mean.

    With the stream function ``-laplacian psi = w`` and ``u = (d psi / dy, -d psi / dx)``.
    """
    kx, ky = derivative_wavenumbers(shape, periods, device=device)
    # The Laplacian of the Nyquist wave is well defined, its first derivative is not.
    full_kx, full_ky = angular_wavenumbers(shape, periods, device=device)
    squared = full_kx.square() + full_ky.square()
    inverse = torch.where(squared > 0, 1 / squared.clamp(min=torch.finfo(squared.dtype).tiny), 0.0)
    symbol = torch.stack([1j * ky * inverse, -1j * kx * inverse])
    return symbol.to(torch.complex64 if dtype == torch.float32 else torch.complex128)


def velocity_from_vorticity(vorticity: Tensor, periods: Sequence[float]) -> Tensor:
    """Mean-free, divergence-free velocity ``(..., 2, x, y)`` with the given ``vorticity (..., x, y)``.

    Example:
        >>> axis = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> x, y = torch.meshgrid(axis, axis, indexing="ij")
        >>> velocity = velocity_from_vorticity(2 * torch.cos(x) * torch.cos(y), (2 * torch.pi, 2 * torch.pi))
        >>> bool(torch.allclose(velocity[0], -torch.cos(x) * torch.sin(y)))
        True
    """
    shape = tuple(vorticity.shape[-2:])
    symbol = velocity_symbol(shape, periods, dtype=vorticity.dtype, device=vorticity.device)
    return torch.fft.irfft2(symbol * torch.fft.rfft2(vorticity).unsqueeze(-3), s=shape)

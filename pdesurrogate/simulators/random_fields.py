"""Random initial vorticity on periodic squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pdesurrogate.physics.spectral import angular_wavenumbers, half_spectrum_weights, integer_wavenumbers


class InitialCondition(Protocol):
    """Draws states to start simulations from."""

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """``count`` independent states ``(count, channel, *shape)`` in float64 on the generator's device."""
        ...


class McWilliams:
    """Isotropic decaying turbulence after McWilliams, J. Fluid Mech. 146 (1984) 21.

    White noise shaped in Fourier space into a stream function and scaled to mean kinetic energy
    ``<|u|^2> / 2 = 1 / 4``, that is ``<|u|^2> = 1 / 2``. The default shapes the *amplitude* by
    ``1 / (k (tau^2 + (k / k0)^4))``, as the published torch-cfd data do; ``spectrum="power"`` shapes ``|psi|^2`` by it,
    as the paper prescribes.

    Args:
        peak_wavenumber: ``k0``, radians per unit length.
        tau: flattens the spectrum below ``k0``.
        spectrum: ``"amplitude"`` or ``"power"``.
    """

    def __init__(self, peak_wavenumber: float = 4.0, tau: float = 1.0, spectrum: str = "amplitude") -> None:
        if spectrum not in ("amplitude", "power"):
            raise ValueError(f"Expected spectrum 'amplitude' or 'power' but got {spectrum!r}.")
        if not (peak_wavenumber > 0 and tau > 0):
            raise ValueError(f"Expected peak_wavenumber and tau > 0 but got {peak_wavenumber} and {tau}.")
        self.peak_wavenumber = peak_wavenumber
        self.tau = tau
        self.exponent = 1.0 if spectrum == "amplitude" else 0.5

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """Vorticity ``(count, 1, x, y)``."""
        nx, ny = shape
        kx, ky = angular_wavenumbers(shape, periods, device=generator.device)
        squared = kx.square() + ky.square()
        k = squared.sqrt().clamp(min=torch.finfo(squared.dtype).tiny)
        envelope = 1 / (k * (self.tau**2 + (k / self.peak_wavenumber) ** 4))
        envelope = torch.where(squared > 0, envelope**self.exponent, 0.0)
        noise = torch.randn(count, nx, ny, dtype=torch.float64, device=generator.device, generator=generator)
        stream = torch.fft.rfft2(noise, norm="forward") * envelope
        weights = half_spectrum_weights(shape, device=generator.device)
        mean_square_velocity = (squared * stream.abs().square() * weights).sum((-2, -1), keepdim=True)
        stream = stream * (0.5 / mean_square_velocity).sqrt()
        return torch.fft.irfft2(squared * stream, s=(nx, ny), norm="forward").unsqueeze(1)


class GaussianRandomField:
    """Gaussian field with covariance ``2 sigma^2 (-laplacian + tau^2)^(-alpha)``, mean-free.

    The initial vorticity of Li et al., arXiv:2010.08895, section 5.3, with ``sigma = tau^(alpha - 1)`` in two
    dimensions and wavenumbers counted on the unit torus: on a box of another size the field keeps its shape. The factor
    2 is that of the released generators.

    Args:
        alpha: smoothness.
        tau: inverse correlation length on the unit torus.
    """

    def __init__(self, alpha: float = 2.5, tau: float = 7.0) -> None:
        if not alpha > 1:
            raise ValueError(f"Expected alpha > 1 for a field of finite variance in two dimensions but got {alpha}.")
        self.alpha = alpha
        self.tau = tau

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """Vorticity ``(count, 1, x, y)``."""
        nx, ny = shape
        kx, ky = integer_wavenumbers(shape, device=generator.device)
        squared = (2 * torch.pi) ** 2 * (kx.square() + ky.square())
        amplitude = self.tau ** (self.alpha - 1) * (squared + self.tau**2) ** (-self.alpha / 2)
        amplitude = torch.where(squared > 0, amplitude, 0.0)
        # Real white noise has Hermitian coefficients of unit variance, so the real part need not be taken: the
        # authors draw complex noise and drop the imaginary part, which has the same law.
        noise = torch.randn(count, nx, ny, dtype=torch.float64, device=generator.device, generator=generator)
        spectrum = torch.fft.rfft2(noise, norm="ortho") * amplitude * 2**0.5
        return torch.fft.irfft2(spectrum, s=(nx, ny), norm="forward").unsqueeze(1)

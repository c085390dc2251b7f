"""Initial vorticity on periodic squares: random fields, and vortices whose later state is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pdesurrogate.physics.operators import velocity_from_vorticity
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


class FilteredVelocity:
    """Random divergence-free velocity in a log-normal band of wavenumbers, scaled to a maximum speed.

    The start of the Kolmogorov flows of Kochkov et al., PNAS 118 (2021) e2101784118, and of torch-cfd (Cao et al.,
    arXiv:2405.17211): white noise, whose waves are multiplied by the log-normal density of ``k`` with mode
    ``peak_wavenumber`` over ``k``, and projected. Amplitudes summed over a shell follow the density; the energy
    spectrum has its peak below, at ``peak_wavenumber exp(-variance / 2)``. Projected isotropic noise in two dimensions
    is one random number a wave, so the vorticity is drawn at once.

    Args:
        peak_wavenumber: mode of the density, radians per unit length.
        maximum_speed: largest ``|u|`` on the grid, length per time.
        variance: of the logarithm of the wavenumber.

    Example:
        >>> box = (2 * torch.pi, 2 * torch.pi)
        >>> vorticity = FilteredVelocity().sample(1, (32, 32), box, torch.Generator().manual_seed(0))
        >>> speed = velocity_from_vorticity(vorticity[:, 0], box).norm(dim=1)
        >>> round(float(speed.amax()), 9)
        5.0
    """

    def __init__(self, peak_wavenumber: float = 4.0, maximum_speed: float = 5.0, variance: float = 0.25) -> None:
        if not (peak_wavenumber > 0 and maximum_speed > 0 and variance > 0):
            raise ValueError(
                "Expected peak_wavenumber, maximum_speed and variance > 0 but got "
                f"{peak_wavenumber}, {maximum_speed} and {variance}."
            )
        self.peak_wavenumber = peak_wavenumber
        self.maximum_speed = maximum_speed
        self.variance = variance

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """Vorticity ``(count, 1, x, y)``."""
        nx, ny = shape
        kx, ky = angular_wavenumbers(shape, periods, device=generator.device)
        k = (kx.square() + ky.square()).sqrt()
        distance = torch.log(k / self.peak_wavenumber) - self.variance
        # The velocity's envelope falls with another 1 / k.
        envelope = torch.where(k > 0, torch.exp(-distance.square() / (2 * self.variance)) / k, 0.0)
        noise = torch.randn(count, nx, ny, dtype=torch.float64, device=generator.device, generator=generator)
        vorticity = torch.fft.irfft2(torch.fft.rfft2(noise, norm="forward") * envelope, s=(nx, ny), norm="forward")
        speed = velocity_from_vorticity(vorticity, periods).norm(dim=-3).amax((-2, -1), keepdim=True)
        return (vorticity * (self.maximum_speed / speed)).unsqueeze(1)


class TaylorGreen:
    """Square arrays of vortices, ``2 kappa cos(kappa x) cos(kappa y)`` moved at random; `taylor_green_vorticity` later.

    Each field has its own wavenumber, ``kappa = 2 pi n / L``, and its own place.

    Args:
        wavenumbers: waves per box, ``n``; the fields of a draw take them in random order, each equally often.
        largest_shift: fields are moved along each axis by a part of the box drawn between 0 and this one. With 0 there
            are only as many different fields as wavenumbers, and a network would be tested on what it was trained on.

    Example:
        >>> axis = torch.arange(16, dtype=torch.float64) * (torch.pi / 8)
        >>> start = TaylorGreen([3], largest_shift=0.0).sample(
        ...     1, (16, 16), (2 * torch.pi, 2 * torch.pi), torch.Generator().manual_seed(0)
        ... )
        >>> exact = taylor_green_vorticity(axis[:, None], axis, time=0.0, wavenumber=3, viscosity=1e-3)
        >>> bool(torch.allclose(start[0, 0], exact))
        True
    """

    def __init__(self, wavenumbers: Sequence[int] = (1, 2, 3, 4), largest_shift: float = 1.0) -> None:
        if not wavenumbers or min(wavenumbers) < 1:
            raise ValueError(f"Expected one or more wavenumbers >= 1 (waves per box) but got {list(wavenumbers)}.")
        if not 0 <= largest_shift <= 1:
            raise ValueError(f"Expected largest_shift, a part of the box, from 0 to 1 but got {largest_shift}.")
        self.wavenumbers = tuple(wavenumbers)
        self.largest_shift = largest_shift

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """Vorticity ``(count, 1, x, y)``.

        Raises:
            ValueError: if the box is not square, or the 2/3 mask of this grid cuts a wavenumber off.
        """
        if 3 * max(self.wavenumbers) >= min(shape):
            raise ValueError(
                f"Expected wavenumbers below a third of the {min(shape)} points, which the solver's mask keeps, "
                f"but got {max(self.wavenumbers)}; use a finer grid or smaller wavenumbers."
            )
        if periods[0] != periods[1]:
            raise ValueError(f"Expected a square box but got sides {tuple(periods)}.")
        device = generator.device
        kinds = len(self.wavenumbers)
        rounds = [torch.randperm(kinds, device=device, generator=generator) for _ in range(0, count, kinds)]
        waves = torch.tensor(self.wavenumbers, dtype=torch.float64, device=device)[torch.cat(rounds)[:count]]
        shift = torch.rand(count, 2, dtype=torch.float64, device=device, generator=generator) * self.largest_shift
        x, y = (
            (torch.arange(size, dtype=torch.float64, device=device) / size - shift[:, axis, None]) * periods[axis]
            for axis, size in enumerate(shape)
        )
        kappa = waves[:, None, None] * (2 * torch.pi / periods[0])
        return taylor_green_vorticity(x[:, :, None], y[:, None], 0.0, kappa, 0.0).unsqueeze(1)


def taylor_green_vorticity(
    x: Tensor, y: Tensor, time: float | Tensor, wavenumber: float | Tensor, viscosity: float
) -> Tensor:
    """``2 kappa cos(kappa x) cos(kappa y) exp(-2 viscosity kappa^2 time)``, an exact flow without forcing or drag.

    The advection of such a field vanishes, since its stream function is a multiple of its vorticity; so it does for the
    field moved anywhere. The largest speed is 1 at time 0, whatever the wavenumber.

    Args:
        x: coordinates, of a shape that broadcasts against ``y``.
        y: coordinates.
        time: since the largest speed was 1; a number or a shape that broadcasts against the coordinates.
        wavenumber: ``kappa``, radians per unit length; likewise.
        viscosity: kinematic, length^2 per time.

    Returns:
        Vorticity at the points, shapes broadcast, in the precision of ``x``.
    """
    wavenumber, time = (torch.as_tensor(value, dtype=x.dtype, device=x.device) for value in (wavenumber, time))
    decay = torch.exp(-2 * viscosity * wavenumber.square() * time)
    return 2 * wavenumber * torch.cos(wavenumber * x) * torch.cos(wavenumber * y) * decay

"""Steady vorticity sources."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Forcing(Protocol):
    """A steady source term of the vorticity equation."""

    def vorticity_source(self, x: Tensor, y: Tensor, periods: tuple[float, float]) -> Tensor:
        """The source ``(x, y)`` at mesh points, in vorticity per time."""
        ...


class KolmogorovForcing:
    """Curl of the body force ``amplitude * (sin(k y), 0)``, that is ``-amplitude k cos(k y)``, ``k = 2 pi n / L``.

    Args:
        wavenumber: ``n``, waves per box.
        amplitude: of the body force, velocity per time.
    """

    def __init__(self, wavenumber: int = 4, amplitude: float = 1.0) -> None:
        if wavenumber < 1:
            raise ValueError(f"Expected wavenumber >= 1 (waves per box) but got {wavenumber}.")
        self.wavenumber = wavenumber
        self.amplitude = amplitude

    def vorticity_source(self, x: Tensor, y: Tensor, periods: tuple[float, float]) -> Tensor:
        """``-amplitude k cos(k y)`` at the mesh points."""
        k = 2 * torch.pi * self.wavenumber / periods[1]
        return -self.amplitude * k * torch.cos(k * y)


class DiagonalForcing:
    """``amplitude (sin(2 pi (x + y) / L) + cos(2 pi (x + y) / L))``.

    Forcing of Li et al., *Fourier neural operator for parametric PDEs*, arXiv:2010.08895, section 5.3, with 0.1 on the
    unit torus.
    """

    def __init__(self, amplitude: float = 0.1) -> None:
        self.amplitude = amplitude

    def vorticity_source(self, x: Tensor, y: Tensor, periods: tuple[float, float]) -> Tensor:
        """The source at the mesh points."""
        phase = 2 * torch.pi * (x / periods[0] + y / periods[1])
        return self.amplitude * (torch.sin(phase) + torch.cos(phase))

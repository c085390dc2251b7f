"""A scalar carried by a flow within its bounds and without loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdesurrogate.simulators.enclosed.case import BuoyantScalar


class ScalarTransport(nn.Module):
    """Finite volumes with limited second-order upwind fluxes and walls that nothing passes.

    Values on faces are those of van Leer's harmonic limiter (J. Comput. Phys. 14 (1974) 361), so that they lie between
    the values on both sides; time is stepped by the strong-stability-preserving Runge-Kutta scheme of third order with
    four stages (Spiteri & Ruuth, SIAM J. Numer. Anal. 40 (2002) 469). In a flow free of divergence no value leaves the
    range of the initial ones while ``dt (|u| / dx + |v| / dy) + 2 dt D (1 / dx^2 + 1 / dy^2) <= 1``, and the sum over
    all cells stays.

    Args:
        scalars: one of each case.
        dx: ``(batch, 1, 1)`` width of cells along x; ``dy`` along y.
        dy: see ``dx``.
    """

    diffusivity: Tensor
    dx: Tensor
    dy: Tensor

    def __init__(self, scalars: Sequence[BuoyantScalar], dx: Tensor, dy: Tensor) -> None:
        super().__init__()
        values = torch.tensor([scalar.diffusivity for scalar in scalars], dtype=torch.float64)
        self.register_buffer("diffusivity", values.reshape(-1, 1, 1).to(dx.dtype), persistent=False)
        self.register_buffer("dx", dx, persistent=False)
        self.register_buffer("dy", dy, persistent=False)

    def forward(self, scalar: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Rate of change ``(batch, nx, ny)`` for velocities ``(batch, nx+1, ny)`` and ``(batch, nx, ny+1)``."""
        along_x = _flux(scalar, u[:, 1:-1], self.diffusivity / self.dx)
        along_y = _flux(scalar.mT, v[:, :, 1:-1].mT, self.diffusivity / self.dy).mT
        flux_x = nn.functional.pad(along_x, (0, 0, 1, 1))
        flux_y = nn.functional.pad(along_y, (1, 1))
        # What enters carries nothing; at walls the velocity is zero.
        flux_x[:, -1] = u[:, -1].clamp(min=0) * scalar[:, -1]
        return (flux_x[:, :-1] - flux_x[:, 1:]) / self.dx + (flux_y[:, :, :-1] - flux_y[:, :, 1:]) / self.dy

    def diffusion_number(self, time_step: float) -> Tensor:
        """``2 dt D (1 / dx^2 + 1 / dy^2)`` of each case ``(batch,)``."""
        return 2 * time_step * (self.diffusivity * (self.dx**-2 + self.dy**-2)).flatten()

    def advance(self, scalar: Tensor, u: Tensor, v: Tensor, time_step: float) -> Tensor:
        """The scalar a time step later, in a velocity that does not change during it."""
        half = time_step / 2
        first = scalar + half * self(scalar, u, v)
        second = first + half * self(first, u, v)
        third = 2 / 3 * scalar + (second + half * self(second, u, v)) / 3
        return third + half * self(third, u, v)


def _flux(scalar: Tensor, velocity: Tensor, conductance: Tensor) -> Tensor:
    """Through the faces ``(batch, n - 1, m)`` between cells along the second axis."""
    steps = scalar[:, 1:] - scalar[:, :-1]
    # A wall's neighbor has the same value: no step.
    before = nn.functional.pad(steps[:, :-1], (0, 0, 1, 0))
    after = nn.functional.pad(steps[:, 1:], (0, 0, 0, 1))
    from_low = scalar[:, :-1] + _harmonic(before, steps) / 2
    from_high = scalar[:, 1:] - _harmonic(after, steps) / 2
    carried = velocity.clamp(min=0) * from_low + velocity.clamp(max=0) * from_high
    return carried - conductance * steps


def _harmonic(one: Tensor, other: Tensor) -> Tensor:
    """Harmonic mean of two steps of the same sign, else zero."""
    product = (one * other).clamp(min=0)
    total = one + other
    return torch.where(product > 0, 2 * product / torch.where(total == 0, 1.0, total), 0.0)

"""Finite volumes for the compressible Navier–Stokes equations on even cells of a periodic square: one time step.

Tensors have their components first in memory, ``(4, batch, x, y)``: density, momentum and energy per volume, or
density, velocity and pressure. Within a step the square has two more cells on each side and is laid out as one line, on
which the neighbor along y is the next cell and the neighbor along x one row away: no copies are made to shift fields.
What is computed where a row or a square ends means nothing and is not read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdesurrogate.simulators.reconstruction import monotonized_central

# A step sees so many cells to each side: slopes of the neighbors, and the cells behind them.
_HALO = 2


def to_primitive(conserved: Tensor, gamma: float) -> Tensor:
    """Density, velocity and pressure ``(4, ...)`` of density, momentum and energy ``(4, ...)`` of an ideal gas."""
    density, momentum_x, momentum_y, energy = conserved.unbind(0)
    u, v = momentum_x / density, momentum_y / density
    kinetic = (momentum_x * u).addcmul_(momentum_y, v)
    return torch.stack([density, u, v, torch.sub(energy, kinetic, alpha=0.5).mul_(gamma - 1)])


def to_conserved(primitive: Tensor, gamma: float) -> Tensor:
    """Density, momentum and energy ``(4, ...)`` of density, velocity and pressure ``(4, ...)``."""
    density, u, v, pressure = primitive.unbind(0)
    energy = pressure / (gamma - 1) + density * (u.square() + v.square()) / 2
    return torch.stack([density, density * u, density * v, energy])


class HancockScheme:
    """Second order in space and time with one Riemann problem for each face and step, after S. Hancock.

    Limited linear profiles of density, velocity and pressure are moved on by half a step with the equations themselves,
    in all directions at once (B. van Leer, SIAM J. Sci. Stat. Comput. 5 (1984) 1); the fluxes between them follow from
    the HLLC solver (E. F. Toro, M. Spruce and W. Speares, Shock Waves 4 (1994) 25), exact for contacts at rest. Viscous
    fluxes are central, and half a step later too. Stable up to a `Compressible2d.cfl_number` of 1.

    Args:
        gamma: ratio of the heat capacities.
        shear_viscosity: dynamic, mass / (length time).
        bulk_viscosity: likewise.
    """

    def __init__(self, gamma: float, shear_viscosity: float, bulk_viscosity: float) -> None:
        self.gamma = gamma
        self.shear_viscosity = shear_viscosity
        self.bulk_viscosity = bulk_viscosity

    def advance(self, cells: Tensor, time_step: float, spacing: float) -> Tensor:
        """Conserved averages ``(4, batch, x, y)`` one time step later, from those of cells of this size."""
        ratio = time_step / spacing
        batch, nx, ny = cells.shape[1:]
        halo = (_HALO,) * 4
        line = nn.functional.pad(to_primitive(cells, self.gamma), halo, mode="circular").flatten(1)
        row = ny + 2 * _HALO

        # Half slopes and states half a step later, in all rows but the first and the last of the line.
        inner = line[:, row:-row]
        along_x = line[:, row:] - line[:, :-row]
        half_x = monotonized_central(along_x[:, :-row], along_x[:, row:])
        along_y = line[:, row : 1 - row] - line[:, row - 1 : -row]
        half_y = monotonized_central(along_y[:, :-1], along_y[:, 1:])
        middle = inner - self._half_step(inner, half_x, half_y).mul_(ratio)
        if self.viscous:
            middle = middle + self._viscous_half_step(line, row, time_step, spacing)

        sound = (middle[3] / middle[0]).mul_(self.gamma).sqrt_()
        flux_x = self._flux((middle + half_x)[:, :-row], (middle - half_x)[:, row:], sound, row, along=1)
        flux_y = self._flux((middle + half_y)[:, :-1], (middle - half_y)[:, 1:], sound, 1, along=2)
        if self.viscous:
            velocity = middle[1:3]
            flux_x = _sum(flux_x, self._viscous_flux(velocity, row, 1, 0, spacing))
            flux_y = _sum(flux_y, self._viscous_flux(velocity, 1, row, 1, spacing))

        def leaving(fluxes: Tensor, step: int) -> Tensor:
            """What leaves through the upper face, less what comes in through the lower, in the cells proper."""
            strides = (row * (nx + 2 * _HALO), row, 1)
            first = (_HALO - 1) * row + _HALO
            above = fluxes.as_strided((batch, nx, ny), strides, fluxes.storage_offset() + first)
            below = fluxes.as_strided((batch, nx, ny), strides, fluxes.storage_offset() + first - step)
            return above - below

        return torch.stack(
            [
                torch.sub(cell, leaving(x, row).add_(leaving(y, 1)), alpha=ratio)
                for cell, x, y in zip(cells, flux_x, flux_y, strict=True)
            ]
        )

    @property
    def viscous(self) -> bool:
        """Whether there is any viscosity."""
        return self.shear_viscosity > 0 or self.bulk_viscosity > 0

    def _half_step(self, state: Tensor, half_x: Tensor, half_y: Tensor) -> Tensor:
        """What ``time_step / spacing`` takes from primitive states ``(4, n)`` in half a step without viscosity."""
        density, u, v, pressure = state.unbind(0)
        change = torch.addcmul(u * half_x, v.expand_as(half_y), half_y)
        divergence = half_x[1] + half_y[2]
        return torch.stack(
            [
                torch.addcmul(change[0], density, divergence),
                torch.addcdiv(change[1], half_x[3], density),
                torch.addcdiv(change[2], half_y[3], density),
                torch.addcmul(change[3], pressure, divergence, value=self.gamma),
            ]
        )

    def _flux(self, below: Tensor, above: Tensor, sound: Tensor, step: int, along: int) -> list[Tensor]:
        """HLLC fluxes of mass, momentum along x and y, and energy through faces, from states on both sides ``(4, n)``.

        Written with the state of the side that the contact leaves: what the two fluxes of mass and all others have in
        common is then computed once, and nothing is chosen but that state.

        Args:
            below: primitive states below each face.
            above: those above.
            sound: speed of sound in the cells, of which the second one is ``step`` away.
            step: see ``sound``.
            along: number of the velocity across the faces.
        """
        across = 3 - along
        u_below, u_above = below[along], above[along]
        # That of the cells, not of the profiles at the face: half the roots, and NaN as soon as one has no real root.
        fastest = torch.maximum(sound[:-step], sound[step:])
        slow, fast = torch.minimum(u_below, u_above) - fastest, torch.maximum(u_below, u_above) + fastest
        mass_below, mass_above = (slow - u_below) * below[0], (fast - u_above) * above[0]
        contact = (above[3] - below[3]).addcmul_(u_below, mass_below).addcmul_(u_above, mass_above, value=-1)
        contact = contact.div_(mass_below - mass_above)

        forward = contact >= 0
        side = torch.where(forward, below, above)
        wave = torch.where(forward, slow, fast)
        mass = torch.where(forward, mass_below, mass_above)
        # Zero where all waves go one way.
        reached = torch.where(forward, slow.clamp(max=0), fast.clamp(min=0))

        density, u, v, pressure = side[0], side[along], side[across], side[3]
        shift = (contact - u).mul_(reached).div_(wave - contact)
        speed = u + shift
        push = shift * mass
        flow = density * speed
        momentum = torch.addcmul(pressure, flow, u).add_(push)
        kinetic = torch.addcmul(u * u, v, v)
        energy = (speed * pressure).mul_(self.gamma / (self.gamma - 1)).addcmul_(flow, kinetic, value=0.5)
        energy = energy.addcmul_(push, contact)
        if along == 1:
            return [flow, momentum, flow * v, energy]
        return [flow, flow * v, momentum, energy]

    def _viscous_flux(self, velocity: Tensor, step: int, aside: int, along: int, spacing: float) -> list[Tensor | None]:
        """Viscous fluxes through the faces above each cell of the line; none of mass.

        ``-sigma`` and ``-v . sigma`` with ``sigma = shear (grad v + grad v^T - 2/3 div v) + bulk div v``: the cells are
        those of a plane flow of a gas in three dimensions.

        Args:
            velocity: ``(2, n)`` on the line.
            step: cells on the line to the neighbor across the face.
            aside: cells on the line to the neighbor along the face.
            along: number of the velocity across the faces.
            spacing: size of the cells.
        """
        # Rolling wraps around only where the values mean nothing.
        neighbor = velocity.roll(-step, -1)
        across = (neighbor - velocity) / spacing
        total = neighbor + velocity
        tangential = (total.roll(-aside, -1) - total.roll(aside, -1)) / (4 * spacing)
        normal, other = along, 1 - along
        divergence = across[normal] + tangential[other]
        pressing = self.bulk_viscosity - 2 / 3 * self.shear_viscosity
        tension = 2 * self.shear_viscosity * across[normal] + pressing * divergence
        shear = self.shear_viscosity * (across[other] + tangential[normal])
        work = (total[normal] * tension + total[other] * shear) / 2
        momentum = [-tension, -shear] if along == 0 else [-shear, -tension]
        return [None, *momentum, -work]

    def _viscous_half_step(self, line: Tensor, row: int, time_step: float, spacing: float) -> Tensor:
        """Change of primitive states ``(4, n)`` by viscosity in half a step, in all rows but the first and the last."""
        velocity = line[1:3]
        flux_x = self._viscous_flux(velocity, row, 1, 0, spacing)
        flux_y = self._viscous_flux(velocity, 1, row, 1, spacing)
        force_x, force_y, power = (
            (x.roll(row, -1) - x + y.roll(1, -1) - y)[row:-row] / spacing
            for x, y in zip(flux_x[1:], flux_y[1:], strict=True)
            if x is not None and y is not None
        )
        density, u, v, _ = line[:, row:-row].unbind(0)
        heat = (self.gamma - 1) * (power - u * force_x - v * force_y)
        change = torch.stack([torch.zeros_like(u), force_x / density, force_y / density, heat])
        return change * (time_step / 2)


def _sum(fluxes: list[Tensor], others: list[Tensor | None]) -> list[Tensor]:
    """Of fluxes through the same faces; the others may go on beyond the last of them."""
    return [flux if other is None else flux + other[: len(flux)] for flux, other in zip(fluxes, others, strict=True)]

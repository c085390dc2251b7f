"""One time step of the channel flow: Wray's scheme, Crank–Nicolson across the channel, and the projection."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson
from pdesurrogate.simulators.channel.forcing import ChannelForcing
from pdesurrogate.simulators.channel.planes import MomentumFluxes

# Wray's three substeps (Spalart, Moser & Rogers, J. Comput. Phys. 96 (1991) 297): of the new and of the last rate.
NEW_RATE = (8 / 15, 5 / 12, 3 / 4)
LAST_RATE = (0.0, -17 / 60, -5 / 12)
# Lengths of the substeps in time steps.
SHARES = tuple(new + last for new, last in zip(NEW_RATE, LAST_RATE, strict=True))


class ChannelScheme(nn.Module):
    """Advances velocity and pressure by a time step; works on the planes of `planes`.

    Each of the three substeps predicts the velocity under the old pressure, with diffusion along y half implicit, adds
    the response to the force along x, and takes the divergence out; what it takes out updates the pressure. The
    implicit operators are the same for all columns: dense inverses, applied as matrix products.

    Args:
        grid: of the channel.
        viscosity: kinematic.
        time_step: size of a step.
        forcing: what drives the flow.
        precision: of the computation.
    """

    helmholtz: Tensor
    helmholtz_normal: Tensor
    responses: Tensor
    bulk_responses: Tensor
    bulk_weights: Tensor
    wall_factors: Tensor
    above: Tensor
    below: Tensor
    above_face: Tensor
    below_face: Tensor
    inverse_height: Tensor
    inverse_distance: Tensor

    def __init__(
        self,
        grid: ChannelGrid,
        viscosity: float,
        time_step: float,
        forcing: ChannelForcing,
        precision: Literal["float32", "float64"],
    ) -> None:
        super().__init__()
        self.grid = grid
        self.viscosity = viscosity
        self.time_step = time_step
        self.forcing = forcing
        self.dtype = torch.float32 if precision == "float32" else torch.float64
        self.poisson = ChannelPoisson(grid, precision)
        self.fluxes = MomentumFluxes(grid, viscosity, self.dtype)
        self._register_tables()

    def _register_tables(self) -> None:
        grid = self.grid
        heights, distances = grid.heights, grid.distances
        inner = distances[1:-1]
        # Second differences along y; rows of the fluxes below and above.
        above, below = 1 / (heights * distances[1:]), 1 / (heights * distances[:-1])
        tangential = torch.diag(-above - below) + torch.diag(above[:-1], 1) + torch.diag(below[1:], -1)
        above_face, below_face = 1 / (inner * heights[1:]), 1 / (inner * heights[:-1])
        normal = torch.diag(-above_face - below_face)
        normal += torch.diag(above_face[:-1], 1) + torch.diag(below_face[1:], -1)
        halves = [0.5 * self.viscosity * self.time_step * share for share in SHARES]
        inverses = torch.stack([torch.linalg.inv(_identity(tangential) - half * tangential) for half in halves])
        steps = torch.tensor(SHARES, dtype=torch.float64) * self.time_step
        weights = heights / heights.sum()
        responses = inverses.sum(-1) * steps[:, None]
        tables = {
            "helmholtz": inverses,
            "helmholtz_normal": torch.stack([torch.linalg.inv(_identity(normal) - half * normal) for half in halves]),
            "responses": responses,
            "bulk_responses": responses @ weights,
            "bulk_weights": weights,
            "wall_factors": torch.stack([below[0], above[-1]])[:, None, None],
            "above": above[:-1, None, None],
            "below": below[1:, None, None],
            "above_face": above_face[:, None],
            "below_face": below_face[:, None],
            "inverse_height": 1 / heights[:, None],
            "inverse_distance": 1 / inner[:, None],
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(self.dtype).contiguous(), persistent=False)

    def forward(
        self, tangential: Tensor, normal: Tensor, pressure: Tensor, subgrid_viscosity: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One time step.

        Args:
            tangential: ``(ny, 2, columns)``; overwritten, unless a derivative needs it.
            normal: ``(ny + 1, columns)``; likewise.
            pressure: ``(ny, columns)``.
            subgrid_viscosity: ``(ny, columns)``, held during the step.

        Returns:
            The new values of the three, and the mean force ``(batch,)`` along x.
        """
        total = tangential.new_zeros(())
        last = None
        for substep, share in enumerate(SHARES):
            rates = self.fluxes(tangential, normal)
            if subgrid_viscosity is not None:
                more = self.fluxes.subgrid(tangential, normal, subgrid_viscosity)
                rates = rates[0] + more[0], rates[1] + more[1]
            tangential, normal = self._predict(substep, tangential, normal, pressure, rates, last or rates)
            force = self._drive(substep, tangential)
            pressure = self._project(substep, tangential, normal, pressure)
            total = total + share * force
            last = rates
        return tangential, normal, pressure, total

    def _predict(
        self,
        substep: int,
        tangential: Tensor,
        normal: Tensor,
        pressure: Tensor,
        rates: tuple[Tensor, Tensor],
        last: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Velocity after a substep under the old pressure, ``u + H (right side)`` with the Helmholtz inverse ``H``.

        In place, unless a derivative is going to need the old velocity.
        """
        if tangential.requires_grad and torch.is_grad_enabled():
            tangential, normal = tangential.clone(), normal.clone()
        core, grid = self.fluxes.planes.core, self.grid
        share = SHARES[substep]
        side, side_normal = (
            torch.lerp(new, old, LAST_RATE[substep] / share) for new, old in zip(rates, last, strict=True)
        )
        middle = core(pressure)
        side[:, 0].sub_(middle - core(pressure, -self.fluxes.planes.along_x), alpha=1 / grid.spacing_x)
        side[:, 1].sub_(middle - core(pressure, -1), alpha=1 / grid.spacing_z)
        side_normal.addcmul_(middle.diff(dim=0), self.inverse_distance, value=-1)

        slope = core(tangential).diff(dim=0)
        side[:-1].addcmul_(slope, self.above, value=self.viscosity)
        side[1:].addcmul_(slope, self.below, value=-self.viscosity)
        side[0].addcmul_(core(tangential[0]), self.wall_factors[0], value=-self.viscosity)
        side[-1].addcmul_(core(tangential[-1]), self.wall_factors[1], value=-self.viscosity)
        slope = core(normal).diff(dim=0)
        side_normal.addcmul_(slope[1:], self.above_face, value=self.viscosity)
        side_normal.addcmul_(slope[:-1], self.below_face, value=-self.viscosity)

        step = self.time_step * share
        core(tangential).add_((self.helmholtz[substep] @ side.flatten(1)).view(side.shape), alpha=step)
        core(normal[1:-1]).add_(self.helmholtz_normal[substep] @ side_normal, alpha=step)
        return tangential, normal

    def _drive(self, substep: int, tangential: Tensor) -> Tensor:
        """Add the response to the force along x in place; the force ``(batch,)``."""
        extent = self.fluxes.planes.extent
        along = tangential[:, 0].unflatten(-1, (-1, *extent))
        bulk = self.bulk_weights @ along[..., 1:-1, 1:-1].mean((-2, -1))
        force = self.forcing.force(bulk, self.bulk_responses[substep])
        along.add_((self.responses[substep][:, None] * force)[..., None, None])
        return force

    def _project(self, substep: int, tangential: Tensor, normal: Tensor, pressure: Tensor) -> Tensor:
        """Take the divergence out, in place; the new pressure."""
        planes, grid = self.fluxes.planes, self.grid
        core = planes.core
        step = self.time_step * SHARES[substep]
        planes.wrap_above(tangential)
        u, w = tangential[:, 0], tangential[:, 1]
        source = core(normal).diff(dim=0).mul_(self.inverse_height)
        source.add_(core(u, planes.along_x) - core(u), alpha=1 / grid.spacing_x)
        source.add_(core(w, 1) - core(w), alpha=1 / grid.spacing_z)
        potential = planes.pad(self.poisson.solve_planes(planes.cells(source)))

        middle = core(potential)
        core(u).add_(middle - core(potential, -planes.along_x), alpha=-1 / grid.spacing_x)
        core(w).add_(middle - core(potential, -1), alpha=-1 / grid.spacing_z)
        slope = potential.diff(dim=0).mul_(self.inverse_distance)
        normal[1:-1].sub_(slope)
        planes.wrap(tangential)
        planes.wrap(normal[1:-1])
        # The potential stands for step * phi; the last term makes up for the diffusion of the correction.
        pressure = torch.add(pressure, potential, alpha=1 / step)
        half = 0.5 * self.viscosity
        pressure[:-1].addcmul_(slope, self.inverse_height[:-1], value=-half)
        pressure[1:].addcmul_(slope, self.inverse_height[1:], value=half)
        return pressure


def _identity(matrix: Tensor) -> Tensor:
    return torch.eye(len(matrix), dtype=matrix.dtype)

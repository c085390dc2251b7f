"""States to start a channel flow from."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson
from pdesurrogate.simulators.channel.coarsening import require_channel
from pdesurrogate.simulators.generation.protocols import Simulator


class ChannelStart(Protocol):
    """Draws states to start `ChannelFlow` from."""

    def sample(self, count: int, grid: ChannelGrid, generator: torch.Generator) -> Tensor:
        """``count`` independent states ``(count, 4, nx, ny, nz)`` in float64 on the generator's device.

        Velocity on faces, without divergence and zero on the walls, then pressure.
        """
        ...


class LaminarChannel:
    """The parabola ``3/2 U_b (1 - eta^2)``; scaled so that its mean over the cells is the bulk velocity.

    Args:
        bulk_velocity: ``U_b``.

    Example:
        >>> from pdesurrogate.physics.staggered_channel import stretched_faces
        >>> grid = ChannelGrid((4.0, 2.0), (4, 4), stretched_faces(8))
        >>> state = LaminarChannel().sample(2, grid, torch.Generator())
        >>> state.shape, round(float(state[0, 0, 0, :, 0] @ grid.heights / 2), 12)
        (torch.Size([2, 4, 4, 8, 4]), 1.0)
    """

    def __init__(self, bulk_velocity: float = 1.0) -> None:
        self.bulk_velocity = bulk_velocity

    def sample(self, count: int, grid: ChannelGrid, generator: torch.Generator) -> Tensor:
        """``(count, 4, nx, ny, nz)``, all the same; the generator gives the device alone."""
        state = torch.zeros(count, 4, *grid.shape, dtype=torch.float64, device=generator.device)
        profile = _scaled(1 - _height(grid).square(), grid, self.bulk_velocity)
        state[:, 0] = profile.to(state)[:, None]
        return state

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """`sample` on the grid of a solver of channel flow.

        Raises:
            ValueError: if it is none, or holds another bulk velocity.
        """
        return self.sample(count, _grid_of(simulator, self.bulk_velocity), generator)


class TrippedChannel:
    """A turbulent mean profile that rolls and noise make unstable, so that it becomes turbulent within some 40 h/U_b.

    The mean is ``(1 - |eta|)^(1/7)`` with ``eta = y / h`` from the middle. Pairs of rolls along x, ``v = a (1 -
    eta^2)^2 cos(b z)`` and the w that continuity asks for, swell along the box by ``1 + cos(2 pi x / L_x) / 2`` and
    lift streaks; noise, damped at the walls, breaks these up. Places of the rolls and of the swelling are random. Last
    the divergence is taken out, which leaves the flow rate.

    Args:
        bulk_velocity: ``U_b``, which every state has to round-off.
        rolls: ``a`` over the bulk velocity.
        noise: standard deviation in the middle, over the bulk velocity.
        pairs: of rolls across the box; by default as many as half heights fit in.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, bulk_velocity: float = 1.0, rolls: float = 0.15, noise: float = 0.1, pairs: int | None = None
    ) -> None:
        if not (rolls >= 0 and noise >= 0):
            raise ValueError(f"Expected rolls and noise >= 0 but got {rolls} and {noise}.")
        if pairs is not None and pairs < 1:
            raise ValueError(f"Expected at least one pair of rolls but got {pairs}.")
        self.bulk_velocity = bulk_velocity
        self.rolls = rolls
        self.noise = noise
        self.pairs = pairs

    def sample(self, count: int, grid: ChannelGrid, generator: torch.Generator) -> Tensor:
        """``(count, 4, nx, ny, nz)``; the pressure is zero."""
        nx, _, nz = grid.shape
        device, length_z = generator.device, grid.lengths[1]
        phase_x, phase_z = (
            2 * math.pi * torch.rand(2, count, 1, 1, 1, dtype=torch.float64, device=device, generator=generator)
        ).unbind()
        x, z = (torch.arange(size, dtype=torch.float64, device=device) / size for size in (nx, nz))
        x, z = x[:, None, None], z[None, None, :]
        height = _height(grid).to(device)[:, None]
        below = ((grid.faces[:-1] - grid.faces[0]) / grid.half_height - 1).to(device)[:, None]

        velocity = torch.randn(count, 3, *grid.shape, dtype=torch.float64, device=device, generator=generator)
        velocity = self.noise * velocity * (1 - height.square())
        velocity = velocity - velocity.mean((2, 4), keepdim=True)
        pairs = self.pairs or max(1, round(length_z / grid.half_height))
        turn = 2 * math.pi * pairs
        swelling = self.rolls * (1 + 0.5 * torch.cos(2 * math.pi * x + phase_x))
        upward = (1 - below.square()).square() * torch.cos(turn * (z + 0.5 / nz) + phase_z)
        slope = 4 * height * (1 - height.square()) * length_z / (grid.half_height * turn)
        velocity[:, 1] += swelling * upward
        velocity[:, 2] += swelling * slope * torch.sin(turn * z + phase_z)
        velocity[:, 1, :, 0] = 0.0
        velocity *= self.bulk_velocity
        poisson = ChannelPoisson(grid).to(device)
        velocity = poisson.project(velocity)
        velocity[:, 0] += _scaled((1 - _height(grid).abs()) ** (1 / 7), grid, self.bulk_velocity).to(device)[:, None]
        return torch.cat([velocity, torch.zeros_like(velocity[:, :1])], 1)

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """`sample` on the grid of a solver of channel flow.

        Raises:
            ValueError: if it is none, or holds another bulk velocity.
        """
        return self.sample(count, _grid_of(simulator, self.bulk_velocity), generator)


def _grid_of(simulator: Simulator, bulk_velocity: float) -> ChannelGrid:
    held = simulator.parameters_by_name.get("bulk_velocity", bulk_velocity)
    grid = require_channel(simulator).channel_grid
    if not math.isclose(held, bulk_velocity):
        raise ValueError(
            f"Expected a start with the bulk velocity {held:g} that the solver's forcing holds but got "
            f"{bulk_velocity:g}, which would jump in the first step; give the same to both."
        )
    return grid


def _height(grid: ChannelGrid) -> Tensor:
    """Centers of the cells from -1 to 1."""
    return (grid.centers - grid.faces[0]) / grid.half_height - 1


def _scaled(profile: Tensor, grid: ChannelGrid, bulk_velocity: float) -> Tensor:
    return profile * (bulk_velocity * 2 * grid.half_height / (profile @ grid.heights))

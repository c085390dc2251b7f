"""What archives hold of a channel flow: fields on a coarser grid, staggered or at common points, and its wall units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Channel
from pdesurrogate.physics.coarse_graining import (
    Coarsening,
    collocated,
    collocated_cells,
    collocated_coordinates,
    kept_faces,
)
from pdesurrogate.physics.staggered_channel import ChannelGrid
from pdesurrogate.simulators.generation.protocols import Simulator, StoredFrames

_FIELDS = ("velocity_x", "velocity_y", "velocity_z", "pressure")


class ChannelSimulator(Simulator, Protocol):
    """A solver of channel flow whose states are three velocities on faces and a pressure in cells."""

    channel_grid: ChannelGrid
    viscosity: float


class StaggeredFrames:
    """Coarse fields on the faces and in the cells of a coarse grid, without divergence where the fine ones have none.

    Args:
        simulator: whose states are stored.
        coarsening: from its grid.
        friction_reynolds_number: nominal, for `attributes`.
    """

    def __init__(
        self, simulator: ChannelSimulator, coarsening: Coarsening, friction_reynolds_number: float | None
    ) -> None:
        self.channels: tuple[Channel, ...] = simulator.channels
        self.coordinates: tuple[Tensor, ...] = coarsening.grid.coordinates
        self.attributes = wall_units(simulator, self.coordinates[1], friction_reynolds_number)
        self._coarsening = coarsening

    def apply(self, state: Tensor) -> Tensor:
        """``(batch, 4, *coarse)`` of a state ``(batch, 4, x, y, z)``."""
        velocity, pressure = self._coarsening.velocity(state[:, :3]), self._coarsening.cells(state[:, 3])
        return torch.cat([velocity, pressure.unsqueeze(1)], 1)


class CollocatedFrames:
    """Fields at the same points: mid-cell along x and z, on kept faces along y, both walls among them.

    The fine fields are brought to common points, then averaged over the extent of each coarse cell along x and z: all
    channels see the same filter, and none across the channel, so that the velocity on the walls is exactly zero.

    Args:
        simulator: whose states are stored.
        coarsening: from its grid.
        friction_reynolds_number: nominal, for `attributes`.
    """

    def __init__(
        self, simulator: ChannelSimulator, coarsening: Coarsening, friction_reynolds_number: float | None
    ) -> None:
        self.channels = tuple(
            Channel(channel.name, channel.units, channel.long_name, "node", channel.vector)
            for channel in simulator.channels
        )
        self.coordinates: tuple[Tensor, ...] = collocated_coordinates(coarsening.grid)
        self.attributes = wall_units(simulator, self.coordinates[1], friction_reynolds_number)
        self._coarsening = coarsening

    def apply(self, state: Tensor) -> Tensor:
        """``(batch, 4, x, planes, z)`` of a state ``(batch, 4, x, y, z)``."""
        fine = self._coarsening.fine
        velocity, pressure = collocated(state[:, :3], fine), collocated_cells(state[:, 3], fine)
        fields = torch.cat([velocity, pressure.unsqueeze(1)], 1)
        return self._coarsening.planes(fields.index_select(-2, kept_faces(self._coarsening, fields)))


class ChannelCoarsening:
    """A `Reduction` of channel flow to a coarser staggered grid that keeps discrete continuity (`Coarsening`).

    Args:
        shape: coarse cells along x, y and z.
        kept_faces: numbers of the fine faces across the channel that are coarse ones too, walls included; by default
            every so many.
        friction_reynolds_number: nominal, stored for wall units; see `wall_units` for the default.

    Example:
        >>> from pdesurrogate.simulators.channel.flow import ChannelFlow
        >>> solver = ChannelFlow((8, 12, 8), (4.0, 2.0), viscosity=0.01, frame_interval=0.1, steps_per_frame=10)
        >>> frames = ChannelCoarsening((4, 6, 2)).on(solver)
        >>> frames.apply(torch.zeros(1, 4, 8, 12, 8)).shape, [channel.location for channel in frames.channels]
        (torch.Size([1, 4, 4, 6, 2]), ['face_x', 'face_y', 'face_z', 'cell'])
    """

    _frames: type[StaggeredFrames | CollocatedFrames] = StaggeredFrames

    def __init__(
        self,
        shape: Sequence[int],
        kept_faces: Sequence[int] | None = None,
        friction_reynolds_number: float | None = None,
    ) -> None:
        self.shape = shape
        self.kept_faces = kept_faces
        self.friction_reynolds_number = friction_reynolds_number

    def on(self, simulator: Simulator) -> StoredFrames:
        """The reduction of states of this solver.

        Raises:
            ValueError: if it is no solver of channel flow or the cells do not fit its grid.
        """
        channel = require_channel(simulator)
        coarsening = Coarsening.onto(channel.channel_grid, self.shape, self.kept_faces)
        return self._frames(channel, coarsening, self.friction_reynolds_number)


class CollocatedCoarsening(ChannelCoarsening):
    """A `Reduction` of channel flow to points that all channels share, walls included (`CollocatedFrames`).

    As public sets of filtered channel flow have it: 33 planes of 32 x 16 points come from ``shape=(32, 32, 16)``.

    Args:
        shape: coarse cells along x, y and z; there is one plane more than cells along y.
        kept_faces: numbers of the fine faces across the channel on which fields are stored, walls included; by default
            every so many.
        friction_reynolds_number: nominal, stored for wall units; see `wall_units` for the default.

    Example:
        >>> from pdesurrogate.simulators.channel.flow import ChannelFlow
        >>> solver = ChannelFlow((8, 12, 8), (4.0, 2.0), viscosity=0.01, frame_interval=0.1, steps_per_frame=10)
        >>> CollocatedCoarsening((4, 6, 2)).on(solver).apply(torch.zeros(1, 4, 8, 12, 8)).shape
        torch.Size([1, 4, 4, 7, 2])
    """

    _frames = CollocatedFrames


def wall_units(
    simulator: ChannelSimulator, heights: Tensor, friction_reynolds_number: float | None = None
) -> dict[str, Any]:
    """Plain values that say where the walls are and how large wall units are, for an archive's attributes.

    The friction velocity is nominal: that of a constant pressure gradient is what it will be in the mean; that of a
    constant flow rate comes from Dean's correlation ``C_f = 0.073 (2 U_b h / nu)^(-1/4)`` (J. Fluids Eng. 100 (1978)
    215), good to a few percent, unless a friction Reynolds number is given.

    Args:
        simulator: of the channel.
        heights: ``(n,)`` at which fields are stored.
        friction_reynolds_number: ``u_tau h / nu``.

    Raises:
        ValueError: if it is not positive.

    Example:
        >>> from pdesurrogate.simulators.channel.flow import ChannelFlow
        >>> solver = ChannelFlow((8, 12, 8), (4.0, 2.0), viscosity=1 / 2800, frame_interval=0.1, steps_per_frame=10)
        >>> found = wall_units(solver, solver.channel_grid.centers)
        >>> found["walls"], round(found["friction_reynolds_number"])
        ([0.0, 2.0], 182)
    """
    grid, viscosity = simulator.channel_grid, simulator.viscosity
    if friction_reynolds_number is None:
        friction_velocity = _nominal_friction_velocity(simulator)
    elif friction_reynolds_number > 0:
        friction_velocity = friction_reynolds_number * viscosity / grid.half_height
    else:
        raise ValueError(f"Expected a positive friction Reynolds number but got {friction_reynolds_number}.")
    faces = grid.faces
    attributes = {
        "walls": [float(faces[0]), float(faces[-1])],
        "half_height": grid.half_height,
        "viscosity": viscosity,
        "simulated_cells": list(grid.shape),
    }
    if friction_velocity is None or viscosity == 0:
        return attributes
    distances = heights - faces[0]
    nearest = float(distances[distances > 0].min())
    return attributes | {
        "friction_velocity": friction_velocity,
        "friction_reynolds_number": friction_velocity * grid.half_height / viscosity,
        "first_point_in_wall_units": nearest * friction_velocity / viscosity,
    }


def _nominal_friction_velocity(simulator: ChannelSimulator) -> float | None:
    """By the forcing that the simulator records; ``None`` where it says nothing."""
    known, half_height = simulator.parameters_by_name, simulator.channel_grid.half_height
    if "pressure_gradient" in known:
        return math.sqrt(abs(known["pressure_gradient"]) * half_height)
    bulk = abs(known.get("bulk_velocity", 0.0))
    if not bulk or not simulator.viscosity:
        return None
    friction_coefficient = 0.073 * (2 * bulk * half_height / simulator.viscosity) ** -0.25
    return bulk * math.sqrt(friction_coefficient / 2)


def require_channel(simulator: Simulator) -> ChannelSimulator:
    """The simulator, known to be a solver of channel flow.

    Raises:
        ValueError: if it is none.
    """
    names = tuple(channel.name for channel in simulator.channels)
    if names != _FIELDS or not isinstance(getattr(simulator, "channel_grid", None), ChannelGrid):
        raise ValueError(
            f"Expected a solver of channel flow with the fields {_FIELDS} but {type(simulator).__name__} has {names}; "
            "leave out of the recipe what is made for a channel."
        )
    return cast(ChannelSimulator, simulator)

"""All nine derivatives of a staggered channel flow at the centers of its cells."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.physics.staggered_channel import ChannelGrid, cell_heights, center_distances, kept_by_device


def velocity_at_centers(velocity: Tensor, grid: ChannelGrid) -> Tensor:
    """Each component as the mean of the two faces of the cell that it crosses; both shapes ``(..., 3, nx, ny, nz)``.

    Args:
        velocity: staggered as `ChannelGrid` has it; nothing flows through the upper wall, which is not stored.
        grid: of the channel.

    Raises:
        ValueError: if the velocity does not fit the grid.
    """
    grid.require_velocity(velocity)
    u, v, w = velocity.unbind(-4)
    return torch.stack([(u + u.roll(-1, -3)) / 2, (v + _face_above(v)) / 2, (w + w.roll(-1, -1)) / 2], dim=-4)


def velocity_gradient(velocity: Tensor, grid: ChannelGrid) -> Tensor:
    """``d u_i / d x_j`` at the centers of the cells, ``(..., i, j, nx, ny, nz)``.

    A component's derivative along its own axis is the difference of two faces, so that the trace is the discrete
    divergence. Across it, values at the centers of neighboring cells are differentiated; next to a wall the wall
    itself, where all velocity is zero, takes the place of the neighbor. Along y the derivative is that of the parabola
    through three points, exact for Poiseuille's profile. Of second order on stretched grids.

    Args:
        velocity: staggered ``(..., 3, nx, ny, nz)``; value ``i`` on the face below cell ``i``.
        grid: of the channel.

    Returns:
        ``(..., 3, 3, nx, ny, nz)``, velocity per length.

    Raises:
        ValueError: if the velocity does not fit the grid.

    Example:
        >>> grid = ChannelGrid((1.0, 1.0), (4, 4), torch.tensor([0.0, 0.2, 1.0, 2.0], dtype=torch.float64))
        >>> profile = (grid.centers * (2 - grid.centers))[:, None].expand(4, 3, 4)
        >>> poiseuille = torch.stack([profile, 0 * profile, 0 * profile])
        >>> velocity_gradient(poiseuille, grid)[0, 1, 0, :, 0]  # 2 - 2 y at 0.1, 0.6 and 1.5
        tensor([ 1.8000,  0.8000, -1.0000], dtype=torch.float64)
    """
    grid.require_velocity(velocity)
    u, v, w = velocity.unbind(-4)
    centered = velocity_at_centers(velocity, grid)
    # Of two components each: the third is differentiated along its own axis.
    along_x = _central_difference(centered[..., 1:, :, :, :], -3) / (2 * grid.spacing_x)
    along_z = _central_difference(centered[..., :2, :, :, :], -1) / (2 * grid.spacing_z)
    along_y = _derivative_between_walls(centered[..., ::2, :, :, :], grid)
    heights = cell_heights(grid, velocity)[:, None]
    entries = [
        (u.roll(-1, -3) - u) / grid.spacing_x,
        along_y.select(-4, 0),
        along_z.select(-4, 0),
        along_x.select(-4, 0),
        (_face_above(v) - v) / heights,
        along_z.select(-4, 1),
        along_x.select(-4, 1),
        along_y.select(-4, 1),
        (w.roll(-1, -1) - w) / grid.spacing_z,
    ]
    return torch.stack(entries, dim=-4).unflatten(-4, (3, 3))


def _central_difference(values: Tensor, axis: int) -> Tensor:
    """Next value less the one before, around a period."""
    return values.roll(-1, axis) - values.roll(1, axis)


def _face_above(values: Tensor) -> Tensor:
    """Of values on the faces below cells, those on the faces above; zero on the upper wall."""
    return torch.cat([values[..., 1:, :], torch.zeros_like(values[..., :1, :])], dim=-2)


def _derivative_between_walls(values: Tensor, grid: ChannelGrid) -> Tensor:
    """Along y at cell centers, of values there that vanish on the walls."""
    walls = torch.nn.functional.pad(values, (0, 0, 1, 1))
    slopes = walls.diff(dim=-2) / center_distances(grid, values)[:, None]
    return torch.lerp(slopes[..., :-1, :], slopes[..., 1:, :], _weights_of_slopes_above(grid, values)[:, None])


@kept_by_device
def _weights_of_slopes_above(grid: ChannelGrid) -> Tensor:
    """``(ny,)`` of a parabola's slope at a center: that of each side counts by the other side's distance."""
    return grid.distances[:-1] / (grid.distances[:-1] + grid.distances[1:])

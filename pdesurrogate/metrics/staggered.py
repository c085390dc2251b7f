"""Velocity components on the faces that they cross, brought to common points where a statistic needs them there.

Along a periodic axis a field is moved by a phase of its Fourier series, which keeps the energy of every wave (but
Nyquist's, which has no place between its points): the mean of two neighbors would take half of the variance of waves
four cells long. Across a channel the component on wall-parallel faces is interpolated by cubics through four faces, the
walls among them: of fourth order inside, and near a wall, where it grows as the square of the distance, without the
factor of two that a straight line would leave in the first cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pdesurrogate.fields.grid import cell_faces
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.profiles import Walls


def is_staggered(plan: RolloutPlan) -> bool:
    """Whether the plan's flow has each velocity component on the faces that it crosses."""
    faces = tuple(f"face_{axis.name}" for axis in plan.metadata.grid.axes)
    return plan.flow is not None and plan.flow.given == "velocity" and plan.flow.locations == faces


def moved_along(values: Tensor, axis: int, cells: float) -> Tensor:
    """Values of the Fourier series of ``values`` at points ``cells`` spacings ahead along a periodic, even axis.

    Args:
        values: real.
        axis: counted from the end.
        cells: 0.5 takes values on the faces below cells to the centers of the cells.

    Example:
        >>> x = torch.arange(8, dtype=torch.float64) * (2 * torch.pi / 8)
        >>> bool(torch.allclose(moved_along(torch.sin(x), -1, 0.5), torch.sin(x + torch.pi / 8)))
        True
    """
    size = values.shape[axis]
    spectrum = torch.fft.rfft(values, dim=axis)
    waves = torch.arange(spectrum.shape[axis], device=values.device, dtype=values.dtype)
    phase = torch.polar(torch.ones_like(waves), waves * (2 * math.pi * cells / size))
    phase = phase.reshape(-1, *(1,) * (-axis - 1))
    return torch.fft.irfft(spectrum * phase, n=size, dim=axis)


def faces_to_centers(points: Tensor, walls: Walls) -> Tensor:
    """Matrix ``(n, n)`` from values on the faces below cells to their centers ``points (n,)``; float64.

    Each row is the cubic through the four nearest faces, fewer where there are not so many. On the upper wall, whose
    face is not stored, the values are zero.

    Example:
        >>> faces = torch.tensor([0.0, 0.5, 1.5, 3.5, 4.0], dtype=torch.float64)
        >>> matrix = faces_to_centers((faces[1:] + faces[:-1]) / 2, walls=(0.0, 4.0))
        >>> values = faces**2 * (4 - faces)
        >>> [round(value, 12) for value in (matrix @ values[:-1]).tolist()]  # y^2 (4 - y) at 0.25, 1, 2.5, 3.75
        [0.234375, 3.0, 9.375, 3.515625]
    """
    points = points.to(torch.float64)
    faces = cell_faces(points, walls)
    size, used = points.numel(), min(4, points.numel() + 1)
    matrix = torch.zeros(size, size + 1, dtype=torch.float64)
    for row in range(size):
        first = min(max(row - 1, 0), size + 1 - used)
        near = faces[first : first + used]
        for place in range(used):
            others = torch.cat([near[:place], near[place + 1 :]])
            matrix[row, first + place] = ((points[row] - others) / (near[place] - others)).prod()
    return matrix[:, :-1]


def apply_along(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """``matrix (m, n)`` times ``values`` along an axis of ``n`` points that is counted from the end."""
    matrix = matrix.to(values.dtype)
    if axis == -1:
        return values @ matrix.T
    rest = values.shape[axis + 1 :]
    return (matrix @ values.flatten(axis + 1)).unflatten(-1, rest)


def components_at_centers(velocity: Tensor, to_centers: Sequence[Tensor | None]) -> Tensor:
    """All components of a staggered velocity at the centers of cells; both shapes ``(..., d, *space)``.

    Args:
        velocity: each component on the faces below cells along its own axis.
        to_centers: for each axis `faces_to_centers`, or ``None`` where it is periodic and evenly spaced.
    """
    dimension = len(to_centers)
    components = []
    for axis, matrix in enumerate(to_centers, start=-dimension):
        component = velocity.select(-dimension - 1, axis)
        components.append(moved_along(component, axis, 0.5) if matrix is None else apply_along(matrix, component, axis))
    return torch.stack(components, -dimension - 1)

"""Faces of cells that fluid can pass, and how much passes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdesurrogate.metrics.block import at_least_float32


def open_faces(mask: Tensor, periodic: Sequence[bool]) -> Tensor:
    """Which faces are open: those between two cells of fluid, and those of the box's boundary below a cell of fluid.

    All others are closed: nothing passes them, and the velocity there is zero.

    Args:
        mask: ``(batch, *space)``, true where the center of a cell is in the fluid.
        periodic: which axes are periodic.

    Returns:
        ``(batch, d, *space)``, true where the face below a cell along axis ``i`` is open.

    Example:
        >>> mask = torch.tensor([[True], [True], [False], [True]])[None]  # four cells along x, the third of them solid
        >>> open_faces(mask, (False, True))[0, 0, :, 0].tolist()
        [True, True, False, False]
    """
    mask = mask.bool()
    faces = []
    for axis, wrapped in enumerate(periodic, start=1):
        below = mask.roll(1, axis)
        if not wrapped:
            below = torch.cat([mask.narrow(axis, 0, 1), mask.narrow(axis, 0, mask.shape[axis] - 1)], axis)
        faces.append(mask & below)
    return torch.stack(faces, 1)


def rates_through_sections(
    component: Tensor, lines: Sequence[Tensor], axis: int, fluid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Volume that passes each section across an axis, per time.

    Args:
        component: of the velocity along the axis ``(batch, time, *space)``.
        lines: quadrature weights ``(batch, n)`` of every axis.
        axis: number of the space axis; a section is the line or plane of all points at one place along it.
        fluid: ``(batch, *space)``; points where it is not true do not count.

    Returns:
        Integrals of ``u`` and of ``|u|`` over each section ``(batch, time, n)`` in float64.

    Example:
        >>> widths = (torch.ones(1, 2), torch.full((1, 3), 0.5))
        >>> rates, gross = rates_through_sections(torch.tensor([[[[1.0, -1.0, 1.0], [2.0, 2.0, 2.0]]]]), widths, axis=0)
        >>> rates.tolist(), gross.tolist()
        ([[[0.5, 3.0]]], [[[1.5, 3.0]]])
    """
    component = at_least_float32(component)
    areas = torch.ones_like(component[:, :1])
    for other, line in enumerate(lines):
        if other != axis:
            shape = [-1 if place == other else 1 for place in range(len(lines))]
            areas = areas * line.reshape(len(line), 1, *shape)
    if fluid is not None:
        areas = areas * fluid[:, None]
    passing = torch.where(areas > 0, component * areas, 0.0)
    space = tuple(place + 2 for place in range(len(lines)) if place != axis)
    return passing.sum(space).to(torch.float64), passing.abs().sum(space).to(torch.float64)

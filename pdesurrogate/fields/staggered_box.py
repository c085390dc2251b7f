"""Plane velocities on faces of even cells, in a box that nothing leaves but at the high end of x."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def cell_velocity(
    u: Tensor, v: Tensor, spacing: tuple[float | Tensor, float | Tensor], high_end: Literal["wall", "outlet"]
) -> tuple[Tensor, Tensor]:
    """Velocities at centers of cells ``(..., x, y)``: the means of those on the two faces of each cell.

    The upper faces of the last cells are not stored. Nothing passes walls; what passes an outlet, at the high end of x,
    is what continuity in the last cells asks for.

    Args:
        u: along x, on the lower faces across x, ``(..., x, y)``.
        v: along y, on the lower faces across y, of the same shape.
        spacing: sides of a cell along x and y: numbers, or tensors that fit ``(..., x, y)``.
        high_end: what is at the high end of x.

    Raises:
        ValueError: for another ``high_end``.

    Example:
        >>> u, v = torch.ones(1, 3), torch.tensor([[0.0, 0.5, 0.5]])
        >>> cell_velocity(u, v, (1.0, 1.0), "outlet")
        (tensor([[0.7500, 1.0000, 1.2500]]), tensor([[0.2500, 0.5000, 0.2500]]))
    """
    if high_end not in ("wall", "outlet"):
        raise ValueError(f"Expected a 'wall' or an 'outlet' at the high end of x but got {high_end!r}.")
    v = torch.cat([v, torch.zeros_like(v[..., :1])], -1)
    last = torch.zeros_like(u[..., -1:, :])
    if high_end == "outlet":
        last = u[..., -1:, :] - spacing[0] / spacing[1] * v[..., -1:, :].diff(dim=-1)
    u = torch.cat([u, last], -2)
    return (u[..., :-1, :] + u[..., 1:, :]) / 2, (v[..., :-1] + v[..., 1:]) / 2

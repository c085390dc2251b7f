"""Speed, vorticity and stream function of a plane staggered flow between walls, inlet and outlet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdesurrogate.physics.finite_difference import derivative


def velocity_on_faces(velocity: Tensor, coordinates: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Both components on all faces that they cross, those that are not stored included.

    Nothing passes the high end of y. What passes that of x follows from continuity in the last cells, as in
    `EnclosedFlow`: zero at a wall, whatever leaves at an outlet. A prediction with divergence has that error there.

    Args:
        velocity: ``(..., 2, x, y)``, value ``i`` on the face below cell ``i``.
        coordinates: centers of even cells along x and y.

    Returns:
        ``(..., nx + 1, ny)`` and ``(..., nx, ny + 1)``.

    Raises:
        ValueError: if the velocity does not fit the coordinates.

    Example:
        >>> centers = torch.tensor([0.5, 1.5])
        >>> u, v = velocity_on_faces(torch.tensor([1.0, 0.0]).reshape(2, 1, 1).expand(2, 2, 2), (centers, centers))
        >>> u[-1], v[:, -1]
        (tensor([1., 1.]), tensor([0., 0.]))
    """
    expected = (2, *(len(points) for points in coordinates))
    if tuple(velocity.shape[-3:]) != expected or min(expected) < 2:
        raise ValueError(
            f"Expected a plane velocity (..., {', '.join(map(str, expected))}), at least two cells along each axis, "
            f"but got shape {tuple(velocity.shape)}."
        )
    dx, dy = (float(points[-1] - points[0]) / (len(points) - 1) for points in coordinates)
    u, v = velocity.unbind(-3)
    v = torch.cat([v, torch.zeros_like(v[..., :1])], -1)
    leaving = u[..., -1:, :] - dx / dy * v[..., -1:, :].diff(dim=-1)
    return torch.cat([u, leaving], -2), v


def velocity_in_cells(velocity: Tensor, coordinates: Sequence[Tensor]) -> Tensor:
    """Means of the two faces of each cell ``(..., 2, x, y)``; arguments and errors as `velocity_on_faces`."""
    u, v = velocity_on_faces(velocity, coordinates)
    return torch.stack([(u[..., 1:, :] + u[..., :-1, :]) / 2, (v[..., 1:] + v[..., :-1]) / 2], -3)


def vorticity_in_cells(velocity: Tensor, coordinates: Sequence[Tensor]) -> Tensor:
    """``dv/dx - du/dy (..., x, y)`` from velocities in cells by differences of second order, one-sided at the ends.

    Wall and body are not looked at: of a body that is at rest inside, cells beside it see half of its shear. Arguments
    and errors as `velocity_on_faces`; at least three cells along each axis.
    """
    u, v = velocity_in_cells(velocity, coordinates).unbind(-3)
    x, y = (points.to(velocity.device) for points in coordinates)
    return derivative(v, x, axis=-2) - derivative(u, y, axis=-1)


def stream_function(velocity: Tensor, coordinates: Sequence[Tensor]) -> Tensor:
    """``psi`` with ``u = d psi / dy`` and ``v = -d psi / dx`` at corners of cells ``(..., nx + 1, ny + 1)``.

    It is zero along the low end of y. Of a flow free of divergence it is exact: the difference of two corners is what
    flows between them, so it is constant along walls and around a body. Arguments and errors as `velocity_on_faces`.
    """
    u, _ = velocity_on_faces(velocity, coordinates)
    y = coordinates[1]
    rates = u * (float(y[-1] - y[0]) / (len(y) - 1))
    return torch.cat([torch.zeros_like(rates[..., :1]), rates.cumsum(-1)], -1)

"""Differences of second order on points of any spacing, for axes that no Fourier series fits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.fields.grid import cell_faces


def derivative(values: Tensor, points: Tensor, axis: int, period: float | None = None) -> Tensor:
    """First derivative along one axis: that of the parabola through each point and its neighbors.

    Exact for quadratics, so of second order on stretched points too. At the ends of an axis that is not periodic the
    parabola is that of the three outermost points; a periodic axis wraps around.

    Args:
        values: ``(..., *space)``, or ``(batch, ..., *space)`` where ``points`` are batched; real or complex.
        points: ``(n,)`` or ``(batch, n)``, increasing; at least three.
        axis: of ``values``, counted from the end: ``-1`` is the last.
        period: length after which the axis repeats; ``None`` where it does not.

    Returns:
        Shape and type of ``values``, units of values per length.

    Raises:
        ValueError: if the axis is not counted from the end, or the points do not fit the values.

    Example:
        >>> points = torch.tensor([0.0, 1.0, 2.0, 5.0, 8.0])
        >>> derivative(points.square(), points, axis=-1).tolist()
        [0.0, 2.0, 4.0, 10.0, 16.0]
    """
    _check(values, points, axis, fewest=3)
    gaps = _gaps(points, period)
    slopes = _difference(values, axis, wrapped=period is not None) / _along(gaps, values, axis)
    # Slope i lies between points i and i + 1. The parabola's slope at a point weighs each side with the other's gap.
    share = _along(_ratio_of_gaps(gaps, period), values, axis)
    if period is not None:
        return torch.lerp(slopes.roll(1, axis), slopes, share)
    inner = slopes.shape[axis] - 1
    below, above = slopes.narrow(axis, 0, inner), slopes.narrow(axis, 1, inner)
    # Along a parabola the slope is linear: at the ends the same line is followed to the outer side of the gap.
    first = torch.lerp(below.narrow(axis, 0, 1), above.narrow(axis, 0, 1), -share.narrow(axis, 0, 1))
    last = torch.lerp(
        below.narrow(axis, inner - 1, 1), above.narrow(axis, inner - 1, 1), 2 - share.narrow(axis, inner - 1, 1)
    )
    return torch.cat([first, torch.lerp(below, above, share), last], axis)


def staggered_derivative(
    values: Tensor,
    points: Tensor,
    axis: int,
    period: float | None = None,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """First derivative at cell centers of values on faces: upper face less lower face over the width of the cell.

    Value ``i`` lies on the face below cell ``i``. With the bounds of the axis faces are those of
    `pdesurrogate.fields.grid.cell_faces`, so that stretched cells have their own width; without, they lie half way
    between centers, and the lowest as far below its center as the next one above. The last cell of an axis that is not
    periodic has no upper face stored and is left out.

    Args:
        values: ``(..., *space)``, or ``(batch, ..., *space)`` where ``points`` are batched.
        points: centers of the cells ``(n,)`` or ``(batch, n)``, increasing; at least two.
        axis: of ``values``, counted from the end: ``-1`` is the last.
        period: length after which the axis repeats; ``None`` where it does not.
        bounds: where an axis that is not periodic ends, if that is known.

    Returns:
        As ``values``, one shorter along an axis that is not periodic; units of values per length.

    Raises:
        ValueError: if the axis is not counted from the end, or the points do not fit the values.

    Example:
        >>> faces = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> staggered_derivative(faces.square(), faces + 0.5, axis=-1).tolist()  # 2 x at 0.5, 1.5, 2.5
        [1.0, 3.0, 5.0]
    """
    _check(values, points, axis, fewest=2)
    if bounds is not None:
        widths = cell_faces(points, bounds).diff(dim=-1)[..., :-1]
        return _difference(values, axis, wrapped=False) / _along(widths, values, axis)
    gaps = _gaps(points, period)
    below = gaps[..., :1] if period is None else gaps[..., -1:]
    widths = (torch.cat([below, gaps[..., :-1]], -1) + gaps) / 2
    return _difference(values, axis, wrapped=period is not None) / _along(widths, values, axis)


class VelocityGradient(NamedTuple):
    """What the stencils say about the gradient of a velocity.

    Attributes:
        divergence: ``(..., *space)``, sum of ``d u_i / d x_i``.
        squared_norm: ``(..., *space)``, sum of ``(d u_i / d x_j)^2`` over all pairs.
    """

    divergence: Tensor
    squared_norm: Tensor


def collocated_gradient(
    velocity: Tensor, coordinates: Sequence[Tensor], periods: Sequence[float | None]
) -> VelocityGradient:
    """Divergence and squared gradient of components that live at the same points; all by `derivative`.

    Args:
        velocity: ``(..., d, *space)``, or ``(batch, ..., d, *space)`` where coordinates are batched.
        coordinates: ``(n,)`` or ``(batch, n)`` points along each axis.
        periods: of each axis; ``None`` where it does not repeat.

    Raises:
        ValueError: if the number of components, coordinates and periods differ, or as `derivative`.

    Example:
        >>> x, y = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
        >>> shear_and_source = torch.stack([3 * y + x, x])
        >>> found = collocated_gradient(shear_and_source, [torch.arange(4.0), torch.arange(5.0)], [None, None])
        >>> found.divergence[0, 0].item(), found.squared_norm[0, 0].item()
        (1.0, 11.0)
    """
    return _velocity_gradient(velocity, coordinates, periods, [derivative] * len(coordinates))


def staggered_gradient(
    velocity: Tensor,
    coordinates: Sequence[Tensor],
    periods: Sequence[float | None],
    bounds: Sequence[tuple[float, float] | None] | None = None,
) -> VelocityGradient:
    """Divergence and squared gradient of components that live on the faces that they cross (Harlow and Welch, Phys.
    Fluids 8 (1965) 2182); `staggered_derivative` along their own axis, `derivative` across.

    A discrete curl of corner values has no divergence but round-off. Cells without an upper face stored, the last of
    each axis that is not periodic, are left out. Derivatives across lie on the face, not in the cell: the squared norm
    is a scale, not a field to plot.

    Args:
        velocity: ``(..., d, *space)``, or ``(batch, ..., d, *space)`` where coordinates are batched; value ``i`` of
            component ``j`` on the face below cell ``i`` along axis ``j``.
        coordinates: ``(n,)`` or ``(batch, n)`` centers of the cells along each axis.
        periods: of each axis; ``None`` where it does not repeat.
        bounds: of each axis, see `staggered_derivative`; none are known by default.

    Raises:
        ValueError: if the number of components, coordinates and periods differ, or as `derivative`.
    """
    ends = [None] * len(coordinates) if bounds is None else bounds
    return _velocity_gradient(
        velocity, coordinates, periods, [functools.partial(staggered_derivative, bounds=end) for end in ends]
    )


def _velocity_gradient(
    velocity: Tensor,
    coordinates: Sequence[Tensor],
    periods: Sequence[float | None],
    along: Sequence[Callable[[Tensor, Tensor, int, float | None], Tensor]],
) -> VelocityGradient:
    dimension = len(coordinates)
    if len(periods) != dimension or velocity.ndim <= dimension or velocity.shape[-dimension - 1] != dimension:
        raise ValueError(
            f"Expected one velocity component, one line of points and one period for each axis but got "
            f"{tuple(velocity.shape)}, {dimension} lines and {len(periods)} periods."
        )
    components = velocity.unbind(-dimension - 1)
    own = [along[axis](u, coordinates[axis], axis - dimension, periods[axis]) for axis, u in enumerate(components)]
    # All terms are kept where each of them is known.
    shape = [min(term.shape[axis - dimension] for term in own) for axis in range(dimension)]
    divergence = torch.zeros_like(_leading(own[0], shape))
    squared_norm = torch.zeros_like(divergence)
    for component, u in enumerate(components):
        for axis in range(dimension):
            if axis == component:
                term = _leading(own[component], shape)
                divergence = divergence + term
            else:
                term = _leading(derivative(u, coordinates[axis], axis - dimension, periods[axis]), shape)
            squared_norm = torch.addcmul(squared_norm, term, term)
    return VelocityGradient(divergence, squared_norm)


def _leading(values: Tensor, shape: Sequence[int]) -> Tensor:
    """The first ``shape`` values along the trailing axes."""
    for axis, size in enumerate(shape, start=-len(shape)):
        values = values.narrow(axis, 0, size)
    return values


def _check(values: Tensor, points: Tensor, axis: int, *, fewest: int) -> None:
    if not -values.ndim <= axis < 0:
        raise ValueError(f"Expected an axis from -{values.ndim} to -1, counted from the end, but got {axis}.")
    size = values.shape[axis]
    batched = points.ndim == 2 and -axis < values.ndim and len(points) in (1, len(values))
    if points.shape[-1] != size or not (points.ndim == 1 or batched):
        raise ValueError(
            f"Expected points ({size},) or ({len(values)}, {size}) for values {tuple(values.shape)} along axis {axis} "
            f"but got {tuple(points.shape)}."
        )
    if size < fewest:
        raise ValueError(f"Expected at least {fewest} points along axis {axis} but got {size}.")


def _gaps(points: Tensor, period: float | None) -> Tensor:
    """Distance from each point to the next; that of the last one of a periodic axis leads around to the first."""
    gaps = points.diff(dim=-1)
    return gaps if period is None else torch.cat([gaps, points[..., :1] + period - points[..., -1:]], -1)


def _ratio_of_gaps(gaps: Tensor, period: float | None) -> Tensor:
    """``below / (below + above)`` of each point, of inner points only where the axis is not periodic."""
    below, above = (gaps[..., :-1], gaps[..., 1:]) if period is None else (gaps.roll(1, -1), gaps)
    return below / (below + above)


def _difference(values: Tensor, axis: int, *, wrapped: bool) -> Tensor:
    """Next value less each."""
    return values.roll(-1, axis) - values if wrapped else values.diff(dim=axis)


def _along(line: Tensor, values: Tensor, axis: int) -> Tensor:
    """A line ``(n,)`` or ``(batch, n)`` shaped to broadcast along ``axis``, in the precision of ``values``."""
    shape = [1] * values.ndim
    shape[axis] = line.shape[-1]
    if line.ndim == 2:
        shape[0] = len(line)
    return line.to(values.dtype).reshape(shape)

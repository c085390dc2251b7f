"""Profiles across a channel and what follows from them: wall shear, stresses, wall units.

Profiles ``(..., n)`` lie on the points of the wall-normal axis. Viscosity is the kinematic one, stresses are over
density.

Where the walls are. Points of channels that live on nodes start and end on the walls. Points of channels that live in
cells lie inside; evenly spaced ones have the walls half a spacing away. For stretched ones the walls are given, or are
the bounds of the axis, or follow from an even number of cells: see `walls_around`. The velocity on a wall that
is not among the points is taken as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.fields.grid import cell_faces, faces_from
from pdesurrogate.metrics.block import at_least_float32
from pdesurrogate.physics.finite_difference import derivative
from pdesurrogate.physics.symmetry import fold as fold

# Places this close, in units of the half height, are one: coordinates in single precision carry round-off of 1e-7.
SAME_PLACE = 1e-5

Walls = tuple[float, float]


def height_weights(points: Tensor, walls: Walls | None = None) -> Tensor:
    """Share of the height that each of ``points (n,)`` stands for; adds up to one.

    The centers of cells stand for their cells (`cell_faces`), which is the midpoint rule. Other points stand for all
    that is nearer to them than to their neighbors; with points on both walls this is the trapezoid rule.

    Args:
        points: increasing.
        walls: where they stand; by default at the first and last point.

    Example:
        >>> height_weights(torch.tensor([0.0, 1.0, 4.0])).tolist()
        [0.125, 0.5, 0.375]
        >>> height_weights(torch.tensor([0.5, 1.5]), walls=(0.0, 2.0)).tolist()
        [0.5, 0.5]
    """
    low, high = _walls_of(points, walls)
    return cell_faces(points, (low, high)).diff() / (high - low)


def walls_around(centers: Tensor) -> Walls | None:
    """The walls of a symmetric channel from the ``centers (n,)`` of its cells, from wall to wall; ``None`` if unclear.

    Faces lie as far above a center as below it, so that one wall gives the other. The pair is clear where ``n`` is even
    or the cells are evenly spaced.

    Example:
        >>> walls_around(torch.tensor([0.5, 2.0, 4.0, 5.5]))
        (0.0, 6.0)
    """
    points = centers.to(torch.float64)
    gaps = points.diff()
    if bool((gaps - gaps.mean()).abs().max() <= 1e-3 * gaps.mean()):
        half = float(gaps.mean()) / 2
        return float(points[0]) - half, float(points[-1]) + half
    if points.numel() % 2:
        return None
    # The last face is the first one plus what it would be if the first were zero.
    low = float(points[0] + points[-1] - faces_from(points, 0.0)[-1]) / 2
    faces = faces_from(points, low)
    return (low, float(faces[-1])) if _enclose(faces, points) else None


def _enclose(faces: Tensor, points: Tensor) -> bool:
    return bool(((faces[:-1] < points) & (points < faces[1:])).all())


def bulk_velocity(profile: Tensor, points: Tensor, walls: Walls | None = None) -> Tensor:
    """Mean over the height, with `height_weights`, of ``profile (..., n)``; ``(...)``."""
    return profile @ height_weights(points, walls).to(profile)


def wall_gradient(profile: Tensor, points: Tensor, walls: Walls | None = None) -> Tensor:
    """Derivative of ``profile (..., n)`` at the low and the high wall, both into the fluid; ``(..., 2)``.

    One-sided and of second order, from the wall and the two points next to it.

    Args:
        profile: of a velocity; zero on walls that are not among the points.
        points: ``(n,)``, increasing, stretched or not; at least two off each wall.
        walls: where they stand; by default at the first and last point.

    Example:
        >>> y = torch.tensor([0.0, 0.1, 0.3, 1.7, 1.9, 2.0])
        >>> [round(slope, 4) for slope in wall_gradient(y * (2 - y), y).tolist()]  # exact for parabolas
        [2.0, 2.0]
    """
    low, high = _walls_of(points, walls)
    on_low, on_high = points_on_walls(points, walls)
    at_low = _end_gradient(profile, points - low, on_low)
    at_high = _end_gradient(profile.flip(-1), high - points.flip(-1), on_high)
    return torch.stack([at_low, at_high], -1)


def _end_gradient(profile: Tensor, distances: Tensor, on_wall: bool) -> Tensor:
    """At distance zero; the parabola through the wall and two points, differentiated."""
    first = int(on_wall)
    near, far = distances[first], distances[first + 1]
    one, other = profile[..., first], profile[..., first + 1]
    slope = (one * far / near - other * near / far) / (far - near)
    return slope - profile[..., 0] * (near + far) / (near * far) if on_wall else slope


def friction_velocity(wall_shear_stress: Tensor) -> Tensor:
    """``u_tau = sqrt(|tau_w|)`` of the shear stress at a wall per unit of density."""
    return wall_shear_stress.abs().sqrt()


def friction_coefficient(wall_shear_stress: Tensor, bulk_velocity: Tensor) -> Tensor:
    """``C_f = tau_w / (U_b^2 / 2)``.

    Example:
        >>> round(friction_coefficient(torch.tensor(1.0), torch.tensor(15.679)).item(), 6)  # in wall units
        0.008136
    """
    return 2 * wall_shear_stress / bulk_velocity.square()


def centerline_velocity(profile: Tensor) -> Tensor:
    """Middle value of ``profile (..., n)`` on symmetric points, the mean of two where ``n`` is even; ``(...)``."""
    return fold(profile)[..., -1]


def total_stress(
    mean: Tensor, shear_stress: Tensor, viscosity: Tensor | float, points: Tensor, walls: Walls | None = None
) -> Tensor:
    """``nu dU/dy - <u'v'>`` from profiles ``(..., n)``; ``(..., n)``. By second-order differences on stretched points.

    In a fully developed channel it falls linearly from ``tau_w`` to ``-tau_w`` (Pope, Turbulent Flows, 2000, eq. 7.16).

    Args:
        mean: velocity along the wall.
        shear_stress: ``-<u'v'>``.
        viscosity: ``(..., 1)`` or a number.
        points: ``(n,)``.
        walls: where they stand; by default at the first and last point.
    """
    # The velocity on walls that are not among the points is known all the same.
    places = zip(_walls_of(points, walls), points_on_walls(points, walls), strict=True)
    before, after = ([] if on_wall else [wall] for wall, on_wall in places)
    nodes = torch.cat([points.new_tensor(before), points, points.new_tensor(after)])
    extended = torch.nn.functional.pad(mean, (len(before), len(after)))
    gradient = derivative(extended, nodes.to(mean), -1).narrow(-1, len(before), points.numel())
    return viscosity * gradient + shear_stress


def total_stress_deviation(
    stress: Tensor, wall_shear_stress: Tensor, points: Tensor, walls: Walls | None = None
) -> Tensor:
    """Largest distance of a folded total stress from ``tau_w (1 - y / h)``, relative to ``tau_w``; ``(...)``.

    Zero once a channel is fully developed and its statistics have converged.

    Args:
        stress: ``(..., n)`` over the whole height, as `total_stress` gives it, on symmetric points.
        wall_shear_stress: ``(...)``, mean of both walls.
        points: ``(n,)``.
        walls: where they stand; by default at the first and last point.
    """
    share = _distance_from_center(points, walls).to(stress)
    tau = wall_shear_stress.unsqueeze(-1)
    return ((fold(stress, -1) - tau * share) / tau).abs().amax(-1)


def friction_velocity_of_stress(stress: Tensor, points: Tensor, walls: Walls | None = None) -> Tensor:
    """Friction velocity from the slope of the total stress: ``u_tau^2 (1 - y / h)`` fitted to it; ``(...)``.

    By least squares over the points farther than a quarter of the half height from a wall, where the stress is
    turbulent and needs no velocity gradient at the wall: for simulations on coarse grids. Of filtered fields it is too
    small, since the stress of what the filter took out is missing.

    Args:
        stress: ``(..., n)`` over the whole height, as `total_stress` gives it, on symmetric points.
        points: ``(n,)``.
        walls: where they stand; by default at the first and last point.
    """
    share = _distance_from_center(points, walls).to(stress)
    half = share.numel()
    weights = height_weights(points, walls)[:half].to(stress) * (share <= 0.75)
    return friction_velocity((fold(stress, -1) * share * weights).sum(-1) / (share.square() * weights).sum())


def _distance_from_center(points: Tensor, walls: Walls | None) -> Tensor:
    """``1 - y / h`` of the lower half: one at the wall, zero in the middle."""
    low, high = _walls_of(points, walls)
    return (low + high - 2 * points[: (points.numel() + 1) // 2]) / (high - low)


def _walls_of(points: Tensor, walls: Walls | None) -> Walls:
    return (float(points[0]), float(points[-1])) if walls is None else walls


def points_on_walls(points: Tensor, walls: Walls | None = None) -> tuple[bool, bool]:
    """Whether the first and the last of ``points (n,)`` lie on their wall."""
    low, high = _walls_of(points, walls)
    slack = SAME_PLACE * (high - low) / 2
    return float(points[0]) - low <= slack, high - float(points[-1]) <= slack


def plane_moments(velocity: Tensor, axes: Sequence[int], streamwise: int, wall_normal: int) -> Tensor:
    """Means over planes from which `profiles_of` makes profiles, once they are averaged over frames and trajectories.

    The mean of each component, of its square, cube and fourth power, and of ``u v``. Powers are taken of the deviation
    from the plane's mean and put together in double precision: as exact as two passes over the data in single
    precision, as long as fluctuations are above a thousandth of the mean.

    Args:
        velocity: ``(..., component, *space)``, evenly spaced along the axes that are averaged.
        axes: those of the planes, counted from the end; all space axes but the wall-normal one.
        streamwise: number of the component along the mean flow.
        wall_normal: number of the component across it.

    Returns:
        ``(..., 4 * components + 1, n)`` in float64.
    """
    velocity = at_least_float32(velocity)
    axes = tuple(axes)
    mean = velocity.mean(axes, keepdim=True)
    component = -len(axes) - 2
    deviation = velocity - mean
    square = deviation * deviation
    product = deviation.select(component, streamwise) * deviation.select(component, wall_normal)
    # Higher powers take the place of lower ones: on a CPU fresh memory costs more than the arithmetic.
    m, c2, cross, c3, c4 = (
        part.to(torch.float64)
        for part in (
            mean.squeeze(axes),
            square.mean(axes),
            product.mean(axes),
            deviation.mul_(square).mean(axes),
            square.mul_(square).mean(axes),
        )
    )
    cross = cross + m.select(-2, streamwise) * m.select(-2, wall_normal)
    cube = c3 + 3 * m * c2 + m**3
    fourth = c4 + 4 * m * c3 + 6 * m.square() * c2 + m**4
    return torch.cat([m, c2 + m.square(), cube, fourth, cross.unsqueeze(-2)], -2)


class Profiles(NamedTuple):
    """Statistics by distance along the wall-normal axis.

    Attributes:
        mean: of each component ``(..., component, n)``.
        rms: of its fluctuation ``(..., component, n)``.
        skewness: ``(..., component, n)``; NaN where there is no fluctuation, as on a wall.
        flatness: ``(..., component, n)``, 3 for a Gaussian; NaN where there is no fluctuation.
        shear_stress: ``-<u'v'>`` ``(..., n)``.
    """

    mean: Tensor
    rms: Tensor
    skewness: Tensor
    flatness: Tensor
    shear_stress: Tensor


def profiles_of(moments: Tensor, streamwise: int, wall_normal: int) -> Profiles:
    """Profiles from averages ``(..., 4 * components + 1, n)`` of `plane_moments`.

    Example:
        >>> velocity = torch.tensor([[-1.0, 1.0, 3.0, 5.0], [0.0, 2.0, 0.0, 2.0]]).reshape(2, 4, 1)  # 4 by 1 points
        >>> found = profiles_of(plane_moments(velocity, axes=[-2], streamwise=0, wall_normal=1), 0, 1)
        >>> found.mean.flatten().tolist(), found.flatness.flatten().tolist(), found.shear_stress.tolist()
        ([2.0, 1.0], [1.64, 1.0], [-1.0])
    """
    components = (moments.shape[-2] - 1) // 4
    m, square, cube, fourth = moments[..., :-1, :].unflatten(-2, (4, components)).unbind(-3)
    variance = square - m.square()
    third = cube - 3 * m * square + 2 * m**3
    last = fourth - 4 * m * cube + 6 * m.square() * square - 3 * m**4
    # A millionth of the mean is what single precision leaves where nothing fluctuates.
    variance = torch.where(variance > 1e-12 * square, variance, 0.0)
    divisor = torch.where(variance > 0, variance, torch.nan)
    shear = m.select(-2, streamwise) * m.select(-2, wall_normal) - moments[..., -1, :]
    return Profiles(m, variance.sqrt(), third / divisor**1.5, last / divisor.square(), shear)


def relative_l1(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``sum w |prediction - target| / sum w |target|`` over the last axis; zero where both vanish throughout.

    Example:
        >>> relative_l1(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])).item()
        0.25
    """
    difference = ((prediction - target).abs() * weights).sum(-1)
    return torch.where(difference == 0, 0.0, difference / (target.abs() * weights).sum(-1))


class WallUnitProfiles(NamedTuple):
    """What a channel looks like in wall units, both halves folded; ``m`` points from the wall to the middle.

    Velocities are in units of ``u_tau``, lengths in ``nu / u_tau``, stresses in ``u_tau^2``.

    Attributes:
        friction_velocity: from the velocity gradient at the walls, mean of both; ``(...)``.
        stress_friction_velocity: from the slope of the total stress, see `friction_velocity_of_stress`; ``(...)``.
        friction_reynolds_number: ``u_tau h / nu``; ``(...)``.
        friction_coefficient: ``(...)``.
        bulk_velocity_plus: ``(...)``.
        centerline_velocity_plus: ``(...)``.
        total_stress_deviation: see `total_stress_deviation`; ``(...)``.
        wall_distance_plus: ``(..., m)``.
        mean_velocity_plus: along the mean flow; ``(..., m)``.
        rms_velocity_plus: ``(..., component, m)``.
        shear_stress_plus: ``-<u'v'>``, the wall-normal direction pointing away from the wall; ``(..., m)``.
        total_stress_plus: ``(..., m)``.
    """

    friction_velocity: Tensor
    stress_friction_velocity: Tensor
    friction_reynolds_number: Tensor
    friction_coefficient: Tensor
    bulk_velocity_plus: Tensor
    centerline_velocity_plus: Tensor
    total_stress_deviation: Tensor
    wall_distance_plus: Tensor
    mean_velocity_plus: Tensor
    rms_velocity_plus: Tensor
    shear_stress_plus: Tensor
    total_stress_plus: Tensor


def in_wall_units(
    profiles: Profiles, viscosity: Tensor, streamwise: int, points: Tensor, walls: Walls | None = None
) -> WallUnitProfiles:
    """Profiles ``(..., n)`` of a channel in its own wall units.

    Args:
        profiles: over the whole height, on symmetric points.
        viscosity: kinematic; ``(...)`` or a single one.
        streamwise: number of the component along the mean flow.
        points: ``(n,)``.
        walls: where they stand; by default at the first and last point.
    """
    mean = profiles.mean.select(-2, streamwise)
    wall_stress = viscosity * wall_gradient(mean, points, walls).mean(-1)
    total = total_stress(mean, profiles.shear_stress, viscosity.unsqueeze(-1), points, walls)
    velocity = friction_velocity(wall_stress)
    bulk = bulk_velocity(mean, points, walls)
    low, high = _walls_of(points, walls)
    distance = (points - low)[: (points.numel() + 1) // 2].to(mean)
    unit = velocity.unsqueeze(-1)
    return WallUnitProfiles(
        friction_velocity=velocity,
        stress_friction_velocity=friction_velocity_of_stress(total, points, walls),
        friction_reynolds_number=velocity * ((high - low) / 2) / viscosity,
        friction_coefficient=friction_coefficient(velocity.square(), bulk),
        bulk_velocity_plus=bulk / velocity,
        centerline_velocity_plus=centerline_velocity(mean) / velocity,
        total_stress_deviation=total_stress_deviation(total, wall_stress, points, walls),
        wall_distance_plus=distance * unit / viscosity.unsqueeze(-1),
        mean_velocity_plus=fold(mean) / unit,
        rms_velocity_plus=fold(profiles.rms) / unit.unsqueeze(-1),
        shear_stress_plus=fold(profiles.shear_stress, -1) / unit.square(),
        total_stress_plus=fold(total, -1) / unit.square(),
    )

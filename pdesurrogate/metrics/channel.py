"""Turbulent channel flow, measured: profiles in physical and in wall units, and their history.

A channel here is a box with exactly one axis that is not periodic. Walls stand at its two ends; the mean flow runs
along one of the periodic axes. Statistics are averaged over these axes, over time and over trajectories.
Where its walls are: see `metrics.profiles`. Velocity components may be staggered, each on the faces that it crosses:
profiles are then at the heights of the centers of cells, see `metrics.staggered`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Axis
from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable
from pdesurrogate.metrics.block import Block, Fields
from pdesurrogate.metrics.flow import Flow, require_flow, squared
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.pooling import compared, distances_with_errors, leave_one_out, require_all_frames, with_errors
from pdesurrogate.metrics.profiles import (
    SAME_PLACE,
    Walls,
    bulk_velocity,
    friction_velocity,
    height_weights,
    in_wall_units,
    plane_moments,
    points_on_walls,
    profiles_of,
    relative_l1,
    wall_gradient,
    walls_around,
)
from pdesurrogate.metrics.staggered import apply_along, faces_to_centers, is_staggered, moved_along

# Viscosities that agree this well, in units of their mean, are one viscosity stored in single precision.
_SAME_VISCOSITY = 1e-5


@dataclass(frozen=True, eq=False)
class ChannelGeometry:
    """Two walls, the points between them, and the planes along them.

    Attributes:
        wall_axis: place of the wall-normal axis among the space axes.
        dimension: number of space axes.
        points: ``(n,)`` along the wall-normal axis, in float64.
        walls: where they stand.
    """

    wall_axis: int
    dimension: int
    points: Tensor
    walls: Walls

    @classmethod
    def of(
        cls, plan: RolloutPlan, what: str, channels: Sequence[int] | None = None, walls: Walls | None = None
    ) -> ChannelGeometry:
        """The channel that a plan describes.

        Args:
            plan: what is going to be measured.
            what: needs it, for messages.
            channels: numbers of those that are measured; by default all.
            walls: where they stand, for points in cells; see the module.

        Raises:
            ValueError: if there is not exactly one axis that is not periodic, a periodic axis is not evenly spaced,
                there is a mask, trajectories differ in their grid, the channels lie at different heights or on
                wall-parallel faces, there are fewer than four points across, or the walls do not enclose them.
        """
        axes = plan.metadata.grid.axes
        closed = [place for place, periodic in enumerate(plan.periodic) if not periodic]
        if len(closed) != 1 or len(axes) < 2:
            raise ValueError(
                f"Expected exactly one axis that is not periodic, beside periodic ones, for {what} but got "
                f"{[axis.name for axis in axes if axis.period is None]} of {[axis.name for axis in axes]}; "
                "leave this metric out of the suite."
            )
        wall_axis = closed[0]
        uneven = [axis.name for axis, even in zip(axes, plan.even, strict=True) if axis.period is not None and not even]
        if uneven or plan.masked or not plan.shared_grid:
            raise ValueError(
                f"Expected evenly spaced periodic axes, no mask and one grid for {what} but got uneven axes {uneven}, "
                f"mask: {plan.masked}, one grid: {plan.shared_grid}; leave this metric out of the suite."
            )
        points = plan.coordinates[wall_axis].to("cpu", torch.float64)
        if points.numel() < 4:
            raise ValueError(f"Expected at least four points between the walls for {what} but got {points.numel()}.")
        channels = range(len(plan.metadata.channels)) if channels is None else channels
        on_nodes = _on_nodes(plan, wall_axis, channels, what)
        if walls is None:
            ends = float(points[0]), float(points[-1])
            walls = ends if on_nodes else _walls_of_cells(axes[wall_axis], points, what)
        low, high = (float(wall) for wall in walls)
        slack = SAME_PLACE * (high - low) / 2
        if not (low < high and low - slack <= float(points[0]) and float(points[-1]) <= high + slack):
            raise ValueError(
                f"Expected walls (low, high) around the points {float(points[0]):g} to {float(points[-1]):g} but got "
                f"{(low, high)}."
            )
        return cls(wall_axis, len(axes), points, (low, high))

    @property
    def plane_axes(self) -> tuple[int, ...]:
        """The axes along the walls, counted from the end."""
        return tuple(place - self.dimension for place in range(self.dimension) if place != self.wall_axis)

    @property
    def half_height(self) -> float:
        """Half the distance between the walls."""
        return (self.walls[1] - self.walls[0]) / 2

    @property
    def on_walls(self) -> tuple[bool, bool]:
        """Whether the first and the last point lie on their wall."""
        return points_on_walls(self.points, self.walls)

    @cached_property
    def wall_distances(self) -> Tensor:
        """``(n,)`` from the nearer wall."""
        return torch.minimum(self.points - self.walls[0], self.walls[1] - self.points)

    def require_symmetry(self, what: str) -> None:
        """Refuse points that are not their own mirror image in the mid-plane.

        Raises:
            ValueError: naming ``what`` needs it.
        """
        skew = (self.points + self.points.flip(0) - sum(self.walls)).abs().max()
        # Single-precision coordinates, or ones printed with five digits.
        if float(skew) > 1e-3 * self.half_height:
            raise ValueError(
                f"Expected points that are symmetric between the walls at {self.walls} for {what} but they are up to "
                f"{float(skew):g} off; interpolate the data, or leave this metric out of the suite."
            )


def _on_nodes(plan: RolloutPlan, wall_axis: int, channels: Sequence[int], what: str) -> bool:
    """Whether the channels live on nodes across the channel rather than in the middle of cells."""
    name = plan.metadata.grid.axes[wall_axis].name
    # A face that is crossed along another axis is as high as the middle of its cell.
    heights = {
        "node" if location == "node" else "face" if location == f"face_{name}" else "cell"
        for location in (plan.metadata.channels[channel].location for channel in channels)
    }
    if len(heights) != 1 or "face" in heights:
        raise ValueError(
            f"Expected channels at the same height, on nodes or in cells, for {what} but got "
            f"{[plan.metadata.channels[channel].location for channel in channels]}; interpolate staggered components "
            "to common points first."
        )
    return heights == {"node"}


def _walls_of_cells(axis: Axis, points: Tensor, what: str) -> Walls:
    """The bounds of the axis, or what follows from the centers of the cells."""
    if axis.bounds is not None:
        return axis.bounds
    walls = walls_around(points)
    if walls is None:
        raise ValueError(
            f"Expected walls=(low, high) for {what} of cells on stretched points from {float(points[0]):g} to "
            f"{float(points[-1]):g}, whose walls cannot be told from their middles; or state them as the "
            "bounds of the axis."
        )
    return walls


@dataclass(frozen=True)
class ChannelVelocity:
    """Velocity components of a channel.

    Attributes:
        geometry: of the channel.
        flow: where the components are among the channels of the data.
        streamwise: number of the component, and of the axis, along the mean flow.
        staggered: whether each component is on the faces that it crosses.
    """

    geometry: ChannelGeometry
    flow: Flow
    streamwise: int
    staggered: bool = False

    @classmethod
    def of(cls, plan: RolloutPlan, what: str, streamwise: str | None, walls: Walls | None) -> ChannelVelocity:
        """The flow that a plan describes.

        Args:
            plan: what is going to be measured.
            what: needs it, for messages.
            streamwise: name of the axis along the mean flow; by default the first periodic one.
            walls: where they stand; see `ChannelGeometry.of`.

        Raises:
            ValueError: as `require_flow` and `ChannelGeometry.of`, or if the components live neither at the same points
                nor each on the faces that it crosses, or ``streamwise`` is not a periodic axis.
        """
        flow = require_flow(plan.metadata, what)
        staggered = is_staggered(plan)
        if not (flow.collocated or staggered):
            raise ValueError(
                f"Expected velocity components at the same points, or each on the faces that it crosses, for {what} "
                f"but got {flow.locations}; interpolate them first, or correct the location in the metadata."
            )
        channels = flow.channels
        if staggered:
            # The components along the walls are as high as the centers of cells.
            channels = tuple(channel for channel, along in zip(channels, plan.periodic, strict=True) if along)
        geometry = ChannelGeometry.of(plan, what, channels, walls)
        along = [name for name, periodic in zip(plan.metadata.grid.axis_names, plan.periodic, strict=True) if periodic]
        if streamwise is not None and streamwise not in along:
            raise ValueError(f"Expected streamwise to be one of the periodic axes {along} but got {streamwise!r}.")
        return cls(geometry, flow, plan.metadata.grid.axis_names.index(streamwise or along[0]), staggered)

    @property
    def wall_normal(self) -> int:
        """Number of the component across the channel."""
        return self.geometry.wall_axis

    def velocity(self, fields: Fields) -> Tensor:
        """``(batch, time, component, *space)`` in the order of the axes, where the data have them."""
        return self.flow.select(fields.values)

    def to_heights(self) -> Tensor:
        """Matrix ``(n, n)`` that takes the component across the channel to the heights of the others."""
        if self.staggered:
            return faces_to_centers(self.geometry.points, self.geometry.walls)
        return torch.eye(self.geometry.points.numel(), dtype=torch.float64)

    def plane_velocity(self, fields: Fields, to_heights: Tensor) -> Tensor:
        """`velocity` with all that statistics of planes need at the same points.

        Components along the walls stay where they are, since a mean over a plane does not mind; the one across goes to
        their heights by ``to_heights``, and to the streamwise one's faces for the shear stress.
        """
        velocity = self.velocity(fields)
        if not self.staggered:
            return velocity
        components = list(velocity.unbind(2))
        dimension = self.geometry.dimension
        across = apply_along(to_heights, components[self.wall_normal], self.wall_normal - dimension)
        components[self.wall_normal] = moved_along(across, self.streamwise - dimension, -0.5)
        return torch.stack(components, 2)


@dataclass(frozen=True)
class Viscosity:
    """Where the kinematic viscosity of a sample comes from.

    Attributes:
        value: one number for all samples.
        parameter: or else its place in ``Context.parameters``.
    """

    value: float | None
    parameter: int | None

    @classmethod
    def of(cls, plan: RolloutPlan, value: float | None = None) -> Viscosity | None:
        """A number if given, else the parameter of the data of the name ``viscosity``; ``None`` where there is neither.

        Raises:
            ValueError: if the number is not positive.
        """
        if value is not None:
            if not value > 0:
                raise ValueError(f"Expected a positive viscosity but got {value}.")
            return cls(value, None)
        names = plan.metadata.parameters
        return cls(None, names.index("viscosity")) if "viscosity" in names else None

    def of_samples(self, block: Block) -> Tensor:
        """``(batch, 1)`` in float64.

        Raises:
            ValueError: if the samples carry no parameters.
        """
        if self.parameter is None:
            return torch.full_like(block.trajectories, self.value or math.nan, dtype=torch.float64).unsqueeze(-1)
        parameters = block.context.parameters
        if parameters is None:
            raise ValueError("Expected the parameters that the metadata name but the context has none.")
        return parameters[:, self.parameter : self.parameter + 1].to(torch.float64)


class ChannelMetric(RolloutMetric):
    """Profiles of a channel, in physical units over the whole height and in wall units with both halves folded.

    Pooled over frames and trajectories, with standard errors from blocks of them (`jackknife_error`). Each side is
    scaled with its own friction velocity; distances between the two compare profiles in physical units at the same
    height, which is the same as scaling both with the truth's. Where a trajectory was stopped, profiles are those of
    the frames before and distances are NaN. Wall units take one viscosity: where it is unknown they are left out, where
    it differs between trajectories they are NaN; measure such cases one at a time.

    The friction velocity is that of the gradient at the wall. On coarse grids it is too large: by 1 to 2 percent with
    the first point at ``y+`` of 2 to 4, as the profiles of Moser, Kim and Mansour and our own runs say. The one of the
    momentum balance, ``stress_friction_velocity``, needs no gradient at the wall and suits a simulation on a coarse
    grid. Of filtered data it is the worse of the two, since the stress of what the filter took out is missing: in the
    small box at a friction Reynolds number of 180 too small by 4 percent with cells of 35 x 12 wall units along the
    walls, by 17 with 70 x 23.

    Args:
        plan: what is going to be measured.
        streamwise: name of the axis along the mean flow; by default the first periodic one.
        walls: where they stand, for points in cells; see the module.
        viscosity: kinematic; by default the parameter of that name.

    Raises:
        ValueError: if the data are not a channel with symmetric points, components live neither at the same points nor
            each on the faces that it crosses, or the viscosity is not positive.
    """

    points: Tensor
    weights: Tensor
    to_heights: Tensor
    moments_prediction_count: Tensor
    moments_truth_count: Tensor

    def __init__(
        self,
        plan: RolloutPlan,
        streamwise: str | None = None,
        walls: tuple[float, float] | None = None,
        viscosity: float | None = None,
    ) -> None:
        super().__init__(plan)
        self.channel = ChannelVelocity.of(plan, "channel profiles", streamwise, walls)
        self.channel.geometry.require_symmetry("channel profiles")
        self.viscosity = Viscosity.of(plan, viscosity)
        points = self.channel.geometry.points
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("weights", height_weights(points, self.channel.geometry.walls), persistent=False)
        self.register_buffer("to_heights", self.channel.to_heights(), persistent=False)
        rows = 4 * len(self.channel.flow.channels) + 1
        for side in ("prediction", "truth"):
            self.add_pooled(f"moments_{side}", rows, points.numel())
        if self.viscosity is not None:
            self.add_pooled("viscosity_moments", 2)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        velocity, component = self.channel.flow.velocity_units, "velocity_component"
        full, half = ("wall_normal",), ("wall_distance",)
        stress, folded = squared(velocity), "in wall units, both halves folded"
        quantities = {
            "mean_velocity_profile": Variable((component, *full), velocity, "mean velocity"),
            "rms_velocity_profile": Variable((component, *full), velocity, "rms of the velocity fluctuation"),
            "skewness_profile": Variable((component, *full), "1", "skewness of the velocity fluctuation"),
            "flatness_profile": Variable((component, *full), "1", "flatness of the velocity fluctuation"),
            "shear_stress_profile": Variable(full, stress, "Reynolds shear stress -<u'v'>"),
        }
        relative = "relative error, L1 norm over the height, of the"
        distances = {
            "mean_velocity_profile_l1": Variable((), "1", f"{relative} mean velocity along the flow"),
            "rms_velocity_profile_l1": Variable((component,), "1", f"{relative} rms of the velocity fluctuation"),
            "shear_stress_profile_l1": Variable((), "1", f"{relative} Reynolds shear stress"),
        }
        if self.viscosity is not None:
            quantities |= {
                "friction_velocity": Variable((), velocity, "friction velocity from the gradient at the walls"),
                "stress_friction_velocity": Variable((), velocity, "friction velocity from the slope of total stress"),
                "friction_reynolds_number": Variable((), "1", "friction Reynolds number"),
                "friction_coefficient": Variable((), "1", "friction coefficient"),
                "bulk_velocity_plus": Variable((), "1", "bulk velocity in wall units"),
                "centerline_velocity_plus": Variable((), "1", "velocity in the mid-plane in wall units"),
                "total_stress_deviation": Variable((), "1", "largest distance of total stress from a straight line"),
                "wall_distance_plus": Variable(half, "1", f"distance from the wall {folded}"),
                "mean_velocity_plus": Variable(half, "1", f"mean velocity {folded}"),
                "rms_velocity_plus": Variable((component, *half), "1", f"rms of the velocity fluctuation {folded}"),
                "shear_stress_plus": Variable(half, "1", f"Reynolds shear stress {folded}"),
                "total_stress_plus": Variable(half, "1", f"total shear stress {folded}"),
            }
            text = "relative error of the friction Reynolds number"
            distances["friction_reynolds_number_deviation"] = Variable((), "1", text)
        return with_errors(quantities) | distances_with_errors(distances)

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Heights, distances from the wall, and names of the components."""
        plan, geometry = self.plan, self.channel.geometry
        units = plan.metadata.grid.axes[geometry.wall_axis].units
        half = (geometry.points.numel() + 1) // 2
        names = [plan.metadata.channels[place].name for place in self.channel.flow.channels]
        return {
            "velocity_component": Coordinate(names, "1", "component of the velocity"),
            "wall_normal": Coordinate(geometry.points, units, "position between the walls"),
            "wall_distance": Coordinate(geometry.wall_distances[:half], units, "distance from the wall"),
        }

    @property
    def scores(self) -> dict[str, Score]:
        """Distances of profiles, and of the friction Reynolds number."""
        names = ["mean_velocity_profile_l1", "rms_velocity_profile_l1", "shear_stress_profile_l1"]
        if self.viscosity is not None:
            names.append("friction_reynolds_number_deviation")
        return {name: Score(name, self.variables[name].long_name) for name in names}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        channel = self.channel
        for side, fields in block.sides:
            velocity = channel.plane_velocity(fields, self.to_heights)
            moments = plane_moments(velocity, channel.geometry.plane_axes, channel.streamwise, channel.wall_normal)
            self.pool(f"moments_{side}", moments, block)
        if self.viscosity is not None:
            viscosity = self.viscosity.of_samples(block).expand(-1, block.frames)
            self.pool("viscosity_moments", torch.stack([viscosity, viscosity.square()], -1), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        require_all_frames(self, "moments_truth", self.plan.frames)
        viscosity = self._single_viscosity()
        found, left_out = {}, {}
        for side in ("prediction", "truth"):
            moments, blocks = self.pooled(f"moments_{side}")
            found[side] = self._statistics(moments, viscosity)
            left_out[side] = self._statistics(leave_one_out(blocks), viscosity)
        complete = bool(self.moments_prediction_count.sum() == self.moments_truth_count.sum())
        return compared(found, left_out, self._distances, complete)

    def _single_viscosity(self) -> Tensor | None:
        """The viscosity that all trajectories share; NaN where they do not, ``None`` where it is unknown."""
        if self.viscosity is None:
            return None
        mean, square = self.pooled("viscosity_moments")[0]
        return torch.where((square - mean.square()).abs() < (_SAME_VISCOSITY * mean).square(), mean, torch.nan)

    def _statistics(self, moments: Tensor, viscosity: Tensor | None) -> dict[str, Tensor]:
        """Everything but distances, from means ``(..., rows, n)`` of moments."""
        channel = self.channel
        profiles = profiles_of(moments, channel.streamwise, channel.wall_normal)
        found = {
            "mean_velocity_profile": profiles.mean,
            "rms_velocity_profile": profiles.rms,
            "skewness_profile": profiles.skewness,
            "flatness_profile": profiles.flatness,
            "shear_stress_profile": profiles.shear_stress,
        }
        if viscosity is None:
            return found
        units = in_wall_units(profiles, viscosity, channel.streamwise, self.points, channel.geometry.walls)
        return found | units._asdict()

    def _distances(self, prediction: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
        along = self.channel.streamwise
        mean, true_mean = (side["mean_velocity_profile"].select(-2, along) for side in (prediction, truth))
        found = {"mean_velocity_profile_l1": relative_l1(mean, true_mean, self.weights)}
        for name in ("rms_velocity_profile", "shear_stress_profile"):
            found[f"{name}_l1"] = relative_l1(prediction[name], truth[name], self.weights)
        if self.viscosity is not None:
            ratio = prediction["friction_reynolds_number"] / truth["friction_reynolds_number"]
            found["friction_reynolds_number_deviation"] = (ratio - 1).abs()
        return found


class ChannelHistoryMetric(RolloutMetric):
    """Bulk velocity, wall shear, friction Reynolds number and slip at the walls of a channel by lead time.

    Wall shear is the mean of both walls; without a viscosity it and the Reynolds number are left out. Slip is the root
    mean square velocity on the walls relative to the true bulk velocity; left out where no point lies on a wall. Drift
    is the difference of the bulk velocities relative to the true one. For channels with a mean flow: relative to a bulk
    velocity of zero they are infinite.

    Args:
        plan: what is going to be measured.
        streamwise: name of the axis along the mean flow; by default the first periodic one.
        walls: where they stand, for points in cells; see the module.
        viscosity: kinematic; by default the parameter of that name.

    Raises:
        ValueError: if the data are not a channel, components live neither at the same points nor each on the faces that
            it crosses, or the viscosity is not positive.
    """

    bulk_weights: Tensor
    shear_weights: Tensor

    def __init__(
        self,
        plan: RolloutPlan,
        streamwise: str | None = None,
        walls: tuple[float, float] | None = None,
        viscosity: float | None = None,
    ) -> None:
        super().__init__(plan)
        self.channel = ChannelVelocity.of(plan, "channel flow by lead time", streamwise, walls)
        self.viscosity = Viscosity.of(plan, viscosity)
        geometry = self.channel.geometry
        self._wall_points = [place for place, on_wall in zip((0, -1), geometry.on_walls, strict=True) if on_wall]
        # Both are linear in the profile, so their tables are what they make of unit profiles.
        units = torch.eye(geometry.points.numel(), dtype=torch.float64)
        shear = wall_gradient(units, geometry.points, geometry.walls).mean(-1)
        self.register_buffer("bulk_weights", bulk_velocity(units, geometry.points, geometry.walls), persistent=False)
        self.register_buffer("shear_weights", shear, persistent=False)
        for side in ("prediction", "truth"):
            self.add_curve(f"channel_bulk_velocity_{side}")
            if self.viscosity is not None:
                self.add_curve(f"wall_shear_stress_{side}")
                self.add_curve(f"instantaneous_friction_reynolds_number_{side}")
            if self._wall_points:
                self.add_curve(f"wall_slip_{side}")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        velocity = self.channel.flow.velocity_units
        texts = {"channel_bulk_velocity": (velocity, "bulk velocity")}
        if self.viscosity is not None:
            texts["wall_shear_stress"] = (squared(velocity), "shear stress at the walls over density, mean of both")
            texts["instantaneous_friction_reynolds_number"] = ("1", "friction Reynolds number of single frames")
        if self._wall_points:
            texts["wall_slip"] = ("1", "root mean square velocity on the walls relative to the true bulk velocity")
        curve = ("trajectory", "lead_time")
        variables = {
            f"{name}_{side}": Variable(curve, units, f"{text}, {side}")
            for name, (units, text) in texts.items()
            for side in ("prediction", "truth")
        }
        drift = "difference of the bulk velocity from the true one, relative to it"
        return variables | {"channel_bulk_velocity_drift": Variable(curve, "1", drift)}

    @property
    def scores(self) -> dict[str, Score]:
        """Drift at the end, slip on the mean."""
        drift = "relative difference of the bulk velocity from the true one at the last frame"
        scores = {"channel_bulk_velocity_drift": Score("channel_bulk_velocity_drift", drift, "last")}
        if self._wall_points:
            slip = "root mean square velocity on the walls relative to the true bulk velocity, mean over lead times"
            scores["wall_slip"] = Score("wall_slip_prediction", slip)
        return scores

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        channel, geometry = self.channel, self.channel.geometry
        for side, fields in block.sides:
            velocity = channel.velocity(fields)
            profile = velocity[:, :, channel.streamwise].mean(geometry.plane_axes).to(torch.float64)
            self.write(f"channel_bulk_velocity_{side}", profile @ self.bulk_weights, block)
            if self.viscosity is not None:
                viscosity = self.viscosity.of_samples(block)
                stress = viscosity * (profile @ self.shear_weights)
                reynolds = friction_velocity(stress) * geometry.half_height / viscosity
                self.write(f"wall_shear_stress_{side}", stress, block)
                self.write(f"instantaneous_friction_reynolds_number_{side}", reynolds, block)
            if self._wall_points:
                axis = geometry.wall_axis - geometry.dimension
                on_walls = torch.stack([velocity.select(axis, place) for place in self._wall_points], 2)
                self.write(f"wall_slip_{side}", on_walls.square().sum(3).flatten(2).mean(-1).sqrt(), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        found = {name: self.curve(name) for name in self.variables if not name.endswith("_drift")}
        own, true = (found[f"channel_bulk_velocity_{side}"] for side in ("prediction", "truth"))
        found["channel_bulk_velocity_drift"] = (own - true).abs() / true.abs()
        for side in ("prediction", "truth") if self._wall_points else ():
            found[f"wall_slip_{side}"] = found[f"wall_slip_{side}"] / true.abs()
        return found

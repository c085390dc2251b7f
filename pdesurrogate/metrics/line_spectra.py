"""One-dimensional spectra along periodic axes, in planes at chosen distances from a wall.

A line spectrum here is *energy per mode with both signs folded in*: entry ``j`` of ``n // 2 + 1`` is the mean square of
the waves ``+j`` and ``-j`` along one axis, averaged over the other axes along the wall. So the entries add up to the
mean square of what was transformed (Parseval), as in the tables of Moser, Kim and Mansour (Phys. Fluids 11 (1999) 943,
doi:10.1063/1.869966). It is no density; divide by the spacing of the wavenumbers, ``2 pi / period``, for one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable, shared_units
from pdesurrogate.metrics.block import Block, at_least_float32
from pdesurrogate.metrics.channel import ChannelGeometry
from pdesurrogate.metrics.flow import squared
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.pooling import (
    Statistics,
    compared,
    distances_with_errors,
    leave_one_out,
    require_all_frames,
    with_errors,
)
from pdesurrogate.metrics.profiles import SAME_PLACE, Walls
from pdesurrogate.metrics.spectra import log_spectral_distance
from pdesurrogate.metrics.staggered import apply_along, faces_to_centers
from pdesurrogate.physics.spectral import half_spectrum_weights, squared_magnitude

# Distances from the wall at which a turbulent channel is usually shown; its middle comes in addition.
WALL_UNIT_PLANES = (5.0, 15.0, 30.0, 100.0)
# Without wall units: nearest to the wall, a quarter and half of the half height, and the middle.
HALF_HEIGHT_PLANES = (0.0, 0.25, 0.5, 1.0)


def line_spectrum(values: Tensor, axis: int, average: Sequence[int] = ()) -> Tensor:
    """Energy of each mode along one periodic, evenly spaced axis of ``values``, mean over other axes.

    Mode ``j`` holds both signs of ``j`` waves per period; mode 0 is the squared mean along the axis. The sum over modes
    is the mean square (Parseval). Take a mean profile off first for the spectrum of a fluctuation.

    Args:
        values: real.
        axis: to transform, counted from the end.
        average: axes to average over, counted from the end.

    Returns:
        Float64; ``values`` without these axes, and ``n // 2 + 1`` modes as the last.

    Raises:
        ValueError: if the axes are not different, or not counted from the end.

    Example:
        >>> x = torch.arange(8) * (2 * torch.pi / 8)
        >>> wave = (3 + 2 * torch.cos(2 * x)).expand(4, 8)
        >>> [round(energy, 5) for energy in line_spectrum(wave, axis=-1, average=[-2]).tolist()]
        [9.0, 0.0, 2.0, 0.0, 0.0]
    """
    axes = (axis, *average)
    if len(set(axes)) != len(axes) or not all(-values.ndim <= each < 0 for each in axes):
        raise ValueError(f"Expected different axes from -{values.ndim} to -1 but got {axis} and {tuple(average)}.")
    density = squared_magnitude(torch.fft.rfft(at_least_float32(values), dim=axis, norm="forward"))
    if average:
        density = density.mean(tuple(average), keepdim=True)
    # Averaged axes that lay behind the transformed one have moved one place to the front.
    density = density.movedim(axis, -1).squeeze(tuple(each - 1 if each > axis else each for each in average))
    return density.to(torch.float64) * half_spectrum_weights((values.shape[axis],), device=values.device)


def nearest_planes(geometry: ChannelGeometry, distances: Sequence[float]) -> Tensor:
    """Numbers ``(planes, 2)`` of the points nearest to each distance from the low and from the high wall.

    Points on a wall, where nothing fluctuates, are not taken; of planes that are chosen twice one is kept.

    Args:
        geometry: of the channel.
        distances: from a wall, in the units of its axis; between 0 and half the height.

    Raises:
        ValueError: if there are none, one is not within the half height, or a half has no points.
    """
    limit = geometry.half_height
    if not distances or not all(0 <= distance <= 1.0001 * limit for distance in distances):
        raise ValueError(f"Expected distances from the wall within 0 to {limit:g} but got {tuple(distances)}.")
    low, high = geometry.walls
    from_high = [
        geometry.points.numel() - 1 - place for place in _nearest(high - geometry.points.flip(0), distances, limit)
    ]
    pairs = zip(_nearest(geometry.points - low, distances, limit), from_high, strict=True)
    return torch.tensor(list(dict.fromkeys(pairs)))


def _nearest(from_wall: Tensor, distances: Sequence[float], half_height: float) -> list[int]:
    """Numbers of the points in the half of one wall, but not on it, whose increasing distance from it fits best."""
    slack = SAME_PLACE * half_height
    inside = ((from_wall > slack) & (from_wall <= half_height + slack)).nonzero()[:, 0]
    if not len(inside):
        raise ValueError(
            "Expected points in both halves of the channel but one has none off its wall; give other walls."
        )
    return [int(inside[(from_wall[inside] - distance).abs().argmin()]) for distance in distances]


class LineSpectrumMetric(RolloutMetric):
    """Line spectra of channels along every periodic axis, in planes at chosen distances from the walls.

    Spectra of the fluctuation about the mean over each plane, all frames and trajectories, averaged over both walls:
    the modes add up to the variance in the plane, and mode 0 holds what varies only along the other axis or in time.
    Pooled over frames and trajectories, with standard errors from blocks of them. The distance is
    `log_spectral_distance` over the modes from 1 to below half the number of points, NaN where a trajectory was
    stopped.

    Components on wall-parallel faces are brought to the planes of the others (`metrics.staggered`); where channels are
    along the walls does not matter.

    Planes are those nearest to the distances that are asked for; the axis ``plane_distance`` says where they are. By
    default they lie at ``y+ = 5, 15, 30, 100`` and in the middle where the friction Reynolds number is known, else next
    to the wall, at a quarter and half of the half height, and in the middle.

    Args:
        plan: what is going to be measured; exactly one axis that is not periodic.
        wall_distances: at which spectra are taken, in ``unit``.
        unit: of ``wall_distances``: the half height, the unit of the axis, or the wall unit ``nu / u_tau``.
        friction_reynolds_number: for wall units, ``u_tau h / nu``; by default the data's attribute of that name.
        walls: where they stand, for points in cells; see `metrics.channel`.
        channels: names of those that are measured; by default all that lie as high as a velocity component, or all
            where there is none. Fewer than all are numbered along an axis of their own, ``line_spectrum_channel``.

    Raises:
        ValueError: if the data are not a channel, fields lie on nodes and in cells, distances are not within the half
            height, a periodic axis has fewer than four points, wall units lack the friction Reynolds number or it
            is no positive number, or channels are unknown, repeated or none.
    """

    planes: Tensor
    to_planes: Tensor
    mean_prediction_count: Tensor
    mean_truth_count: Tensor

    def __init__(
        self,
        plan: RolloutPlan,
        wall_distances: Sequence[float] | None = None,
        unit: Literal["half_height", "axis", "wall"] = "half_height",
        friction_reynolds_number: float | None = None,
        walls: Walls | None = None,
        channels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(plan)
        self.channels = _as_high_as_the_flow(plan) if channels is None else _numbers_of(plan, channels)
        across = _on_wall_parallel_faces(plan)
        self._across = [place for place, channel in enumerate(self.channels) if channel in across]
        self.geometry = ChannelGeometry.of(plan, "line spectra", _as_high_as_planes(plan, self.channels, across), walls)
        reynolds = _friction_reynolds_number(plan, friction_reynolds_number)
        distances = _distances(self.geometry.half_height, wall_distances, unit, reynolds)
        self.register_buffer("planes", nearest_planes(self.geometry, distances), persistent=False)
        if self._across:
            to_planes = faces_to_centers(self.geometry.points, self.geometry.walls)[self.planes.flatten()]
            self.register_buffer("to_planes", to_planes, persistent=False)
        axes = plan.metadata.grid.axes
        # Axes along the wall by name: their place, counted from the end, once the wall-normal axis has moved away.
        along = [place for place, axis in enumerate(axes) if axis.period is not None]
        self._along = {axes[place].name: rank - len(along) for rank, place in enumerate(along)}
        self._sizes = {axes[place].name: plan.shape[place] for place in along}
        if min(self._sizes.values()) < 4:
            raise ValueError(f"Expected at least four points along each periodic axis but got {self._sizes}.")
        # None for all, which need no copy.
        self._chosen = None if self.channels == tuple(range(len(plan.metadata.channels))) else list(self.channels)
        rows, planes = len(self.channels), len(self.planes)
        for side in ("prediction", "truth"):
            self.add_pooled(f"mean_{side}", rows, planes, 2)
            for name, size in self._sizes.items():
                self.add_pooled(f"spectrum_{name}_{side}", rows, planes, size // 2 + 1)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        units = shared_units([squared(self.plan.metadata.channels[channel].units) for channel in self.channels])
        place = ("channel" if self._chosen is None else "line_spectrum_channel", "plane_distance")
        spectra = {
            f"line_spectrum_{name}": Variable(
                (*place, f"line_wavenumber_{name}"), units, f"energy of each mode along {name}, both signs folded in"
            )
            for name in self._along
        }
        distances = {
            f"line_spectral_distance_{name}": Variable(
                place, "1", f"rms over modes along {name} of log10 (predicted energy / true energy)"
            )
            for name in self._along
        }
        return with_errors(spectra) | distances_with_errors(distances)

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Distances of the planes, wavenumbers of the modes, and names of the channels where they are not all."""
        axes = {axis.name: axis for axis in self.plan.metadata.grid.axes}
        units = self.plan.metadata.grid.axes[self.geometry.wall_axis].units
        # The buffer may have gone to the device.
        distances = self.geometry.wall_distances[self.planes.cpu()].mean(-1)
        coordinates = {"plane_distance": Coordinate(distances, units, "distance of the plane from the wall")}
        for name, size in self._sizes.items():
            spacing = 2 * torch.pi / (axes[name].period or 1.0)
            waves = torch.arange(size // 2 + 1, dtype=torch.float64) * spacing
            label = f"wavenumber along {name}"
            coordinates[f"line_wavenumber_{name}"] = Coordinate(waves, self.plan.wavenumber_units, label)
        if self._chosen is not None:
            names = [self.plan.metadata.channel_names[channel] for channel in self._chosen]
            coordinates["line_spectrum_channel"] = Coordinate(names, "1", "channel")
        return coordinates

    @property
    def scores(self) -> dict[str, Score]:
        """Distance along each axis, mean over channels and planes."""
        return {
            name: Score(name, f"{variable.long_name}, mean over channels and planes")
            for name, variable in self.variables.items()
            if name in {f"line_spectral_distance_{axis}" for axis in self._along}
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        wall_axis = self.geometry.wall_axis - self.geometry.dimension
        homogeneous = tuple(self._along.values())
        for side, fields in block.sides:
            values = fields.values if self._chosen is None else _select(fields.values, self._chosen)
            chosen = values.index_select(values.ndim + wall_axis, self.planes.flatten())
            for place in self._across:
                chosen[:, :, place] = apply_along(self.to_planes, values[:, :, place], wall_axis)
            # (batch, time, channel, 2 * planes, *axes along the wall)
            planes = chosen.movedim(wall_axis, 3)
            mean = planes.mean(homogeneous, keepdim=True)
            fluctuation = planes - mean
            means = mean.squeeze(homogeneous).to(torch.float64).unflatten(-1, (-1, 2))
            self.pool(f"mean_{side}", means, block)
            for name, axis in self._along.items():
                energy = line_spectrum(fluctuation, axis, [each for each in homogeneous if each != axis])
                energy = energy.unflatten(-2, (-1, 2)).mean(-2)
                # The mean of a frame was taken off for precision only. What it varies by in time belongs to mode 0;
                # the mean over all frames is known at the end.
                energy[..., 0] += means.square().mean(-1)
                self.pool(f"spectrum_{name}_{side}", energy, block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        require_all_frames(self, "mean_truth", self.plan.frames)
        found: dict[str, dict[str, Tensor]] = {}
        left_out: dict[str, dict[str, Tensor]] = {}
        for side in ("prediction", "truth"):
            found[side], left_out[side] = {}, {}
            mean, mean_blocks = self.pooled(f"mean_{side}")
            for name in self._along:
                energy, blocks = self.pooled(f"spectrum_{name}_{side}")
                found[side][f"line_spectrum_{name}"] = _without_mean(energy, mean)
                others = _without_mean(leave_one_out(blocks), leave_one_out(mean_blocks))
                left_out[side][f"line_spectrum_{name}"] = others
        complete = bool(self.mean_prediction_count.sum() == self.mean_truth_count.sum())
        return compared(found, left_out, self._distances, complete)

    def _distances(self, prediction: Statistics, truth: Statistics) -> dict[str, Tensor]:
        return {
            f"line_spectral_distance_{name}": log_spectral_distance(
                prediction[f"line_spectrum_{name}"], truth[f"line_spectrum_{name}"], (size - 1) // 2
            )
            for name, size in self._sizes.items()
        }


def _without_mean(energy: Tensor, mean: Tensor) -> Tensor:
    """Spectra ``(..., planes, modes)`` of the fluctuation: less the squares of the means ``(..., planes, 2)``."""
    zero = (energy[..., :1] - mean.square().mean(-1, keepdim=True)).clamp_min(0.0)
    return torch.cat([zero, energy[..., 1:]], -1)


def _select(values: Tensor, channels: Sequence[int]) -> Tensor:
    """Channels of ``values (batch, time, channel, ...)``; numbers on the host cost no transfer of an index."""
    return torch.stack([values[:, :, channel] for channel in channels], dim=2)


def _as_high_as_the_flow(plan: RolloutPlan) -> tuple[int, ...]:
    """Numbers of the channels that share the velocity's height across the channel; of all if there is no velocity."""
    channels = plan.metadata.channels
    if plan.flow is None:
        return tuple(range(len(channels)))
    across = {"node", *(f"face_{axis.name}" for axis in plan.metadata.grid.axes if axis.period is None)}
    # A face that is crossed along the wall is as high as the middle of its cell.
    heights = [channel.location if channel.location in across else "cell" for channel in channels]
    wanted = {heights[channel] for channel in plan.flow.channels}
    return tuple(number for number, height in enumerate(heights) if height in wanted)


def _on_wall_parallel_faces(plan: RolloutPlan) -> set[int]:
    """Numbers of the channels on faces across an axis that is not periodic."""
    faces = {f"face_{axis.name}" for axis in plan.metadata.grid.axes if axis.period is None}
    return {number for number, channel in enumerate(plan.metadata.channels) if channel.location in faces}


def _as_high_as_planes(plan: RolloutPlan, channels: Sequence[int], across: set[int]) -> Sequence[int]:
    """Numbers of the channels whose height is that of the planes: the measured ones but those on faces between cells.

    Of a component on such faces that is measured alone the other channels of the data tell where the cells are.
    """
    chosen = [number for number in channels if number not in across]
    others = [number for number in range(len(plan.metadata.channels)) if number not in across]
    candidates = chosen or others
    on_nodes = any(plan.metadata.channels[number].location == "node" for number in candidates)
    return channels if on_nodes or not candidates else candidates


def _numbers_of(plan: RolloutPlan, channels: Sequence[str]) -> tuple[int, ...]:
    known = plan.metadata.channel_names
    if isinstance(channels, str) or not channels or len({*channels}) < len(channels) or not {*channels} <= {*known}:
        raise ValueError(f"Expected different channels among {known} for line spectra but got {channels!r}.")
    return tuple(known.index(name) for name in channels)


def _friction_reynolds_number(plan: RolloutPlan, given: float | None) -> float | None:
    """The number given or else the data's attribute, which files may hold as text; ``None`` where there is neither."""
    found = plan.metadata.attributes.get("friction_reynolds_number") if given is None else given
    if found is None:
        return None
    try:
        number = float(found)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(
            f"Expected a positive friction Reynolds number but got {found!r}; correct the attribute "
            "friction_reynolds_number of the data, or give the number."
        )
    return number


def _distances(
    half_height: float, wall_distances: Sequence[float] | None, unit: str, friction_reynolds_number: float | None
) -> list[float]:
    """Distances from the wall in the unit of its axis."""
    if unit not in ("half_height", "axis", "wall"):
        raise ValueError(f"Expected the unit 'half_height', 'axis' or 'wall' but got {unit!r}.")
    if wall_distances is None:
        if friction_reynolds_number is None:
            return [distance * half_height for distance in HALF_HEIGHT_PLANES]
        near = [distance for distance in WALL_UNIT_PLANES if distance < friction_reynolds_number]
        return [distance * half_height / friction_reynolds_number for distance in near] + [half_height]
    if unit == "wall" and friction_reynolds_number is None:
        raise ValueError("Expected a friction_reynolds_number for distances in wall units; give it, or another unit.")
    scales = {"half_height": half_height, "axis": 1.0, "wall": half_height / (friction_reynolds_number or 1.0)}
    return [distance * scales[unit] for distance in wall_distances]

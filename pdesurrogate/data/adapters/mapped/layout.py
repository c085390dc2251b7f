"""One file against the mapping: where along its arrays lie trajectories, time, space and components."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import require_finite
from pdesurrogate.data.adapters.mapped.decoding import Packing, seconds
from pdesurrogate.data.adapters.mapped.mapping import AxisMapping, ChannelMapping, FileMapping, unknown_name
from pdesurrogate.data.adapters.mapped.sources import Source, Variable

# Coordinates, times and parameters are read at once; an array with more numbers is something else.
LARGEST_LINE = 10_000_000
# Coordinates of two files are one grid where they differ by less, in units of the spacing.
SAME_POINTS = 1e-3
# Points are even where their spacing varies by less than this share of it, as rounded ones do.
UNEVEN = 1e-2


class FileLayout:
    """A file and how it is read.

    Attributes:
        source: the file.
        count: trajectories in it.
        frames: of each.
        points: coordinates along each axis, increasing, in float64.
        time_coordinate: the array of times, if there is one.
        time_factor: makes times seconds, where their units are lengths of time.
        time_units: after that.

    Raises:
        ValueError: as `MappedFiles` says.
    """

    def __init__(self, source: Source, mapping: FileMapping) -> None:
        self.source = source
        self._mapping = mapping
        self._arrays = [_Placed(source, number, mapping) for number in range(len(mapping.channels))]
        self._groups = _read_together(self._arrays)
        sizes = self._sizes()
        self.count, self.frames = sizes.get("trajectory", 1), sizes.get("time", 1)
        lines = [self._line(axis, sizes[f"axis {place}"]) for place, axis in enumerate(mapping.axes)]
        self.points = tuple(points for points, _ in lines)
        self._flipped = tuple(1 + place for place, (_, flipped) in enumerate(lines) if flipped)
        self._require_unflipped_faces()
        self.time_coordinate = self._coordinate(mapping.time.coordinate, mapping.time.dimension)
        units = mapping.time.units
        if units is None and self.time_coordinate is not None:
            units = _text(source.attributes(self.time_coordinate).get("units"))
        self.time_factor, self.time_units = seconds(units, f"{self.time_coordinate or 'time'!r} of {source.path}")
        self._times = None if self.time_coordinate is None else self._numbers(self.time_coordinate)
        self._parameters = {parameter.name: self._parameter_values(parameter) for parameter in mapping.parameters}

    def units_along(self, place: int) -> str:
        """Of an axis, by the mapping or else the file."""
        axis = self._mapping.axes[place]
        coordinate = None if axis.even else self._coordinate(axis.coordinate, axis.dimension)
        stored = None if coordinate is None else _text(self.source.attributes(coordinate).get("units"))
        return axis.units or stored or "1"

    def described(self, channel: ChannelMapping) -> tuple[str, str]:
        """Units and long name of a channel, by the mapping or else the file."""
        attributes = self.source.attributes(channel.variable)
        units = channel.units or _text(attributes.get("units")) or "1"
        named = _text(attributes.get("long_name")) or _text(attributes.get("standard_name"))
        return units, channel.long_name or named or channel.name

    def require_same_as(self, other: FileLayout) -> None:
        """Refuse a file whose points or units are not those of another.

        Raises:
            ValueError: naming time, the axis or the channel.
        """
        pairs = [("time", self.time_units, other.time_units)]
        pairs += [
            (axis.name, self.units_along(place), other.units_along(place))
            for place, axis in enumerate(self._mapping.axes)
        ]
        pairs += [(each.name, self.described(each)[0], other.described(each)[0]) for each in self._mapping.channels]
        for name, unit, expected in pairs:
            if unit != expected:
                raise ValueError(
                    f"Expected {name!r} in {expected!r} as in {other.source.path} but {self.source.path} has it in "
                    f"{unit!r}; convert it, or state its units in the mapping if they are the same."
                )
        for axis, ours, theirs in zip(self._mapping.axes, self.points, other.points, strict=True):
            same = len(ours) == len(theirs)
            if not same or np.abs(ours - theirs).max() > SAME_POINTS * np.diff(theirs).min():
                raise ValueError(
                    f"Expected the {len(theirs)} points of {other.source.path} along {axis.name!r} but "
                    f"{self.source.path} has {len(ours)}, from {ours[0]:.6g} to {ours[-1]:.6g}; make it a data set of "
                    "its own."
                )

    def stored_times(self, number: int) -> Tensor | None:
        """Of one trajectory, float64; ``None`` where the mapping alone has them."""
        if self._times is None:
            return None
        values = self._times[number] if self._times.shape == (self.count, self.frames) else self._times.ravel()
        return torch.from_numpy(values * self.time_factor)

    def parameters(self, number: int) -> list[float]:
        """Of one trajectory, in the order of the mapping."""
        return [values[number % len(values)] for values in self._parameters.values()]

    def read_into(self, number: int, start: int, out: Tensor) -> None:
        """Fill ``out (time, channel, *space)`` with frames of a trajectory.

        Raises:
            ValueError: if a value is missing, NaN or infinite.
        """
        for group in self._groups:
            stored = self.source.read(
                group[0].variable.name, group[0].selection(number, start, start + len(out), group)
            )
            for array in group:
                values = np.flip(array.fields(stored, group), self._flipped)
                with np.errstate(over="ignore", invalid="ignore"):  # infinity is refused below
                    # Copied: what is memory-mapped is not to be written to.
                    fields = torch.from_numpy(np.array(values, np.float32))
                if not bool(torch.isfinite(fields).all()):
                    what = f"{array.variable.name!r} of {self.source.path}"
                    _refuse_missing(values, what, start)
                    require_finite(fields, what=what, start=start)
                out[:, array.number] = fields

    def _sizes(self) -> dict[str, int]:
        """Of all roles; the same in all arrays."""
        sizes: dict[str, int] = {}
        owners: dict[str, str] = {}
        for array in self._arrays:
            for role, size in array.sizes.items():
                if sizes.setdefault(role, size) != size:
                    raise ValueError(
                        f"Expected {sizes[role]} along {array.dimension_of(role)!r}, as {owners[role]!r} has, in "
                        f"{array.variable.name!r} of {self.source.path} but got {size}."
                    )
                owners.setdefault(role, array.variable.name)
        for array in self._arrays:
            for role in sizes.keys() - array.sizes.keys():
                named = self._mapping.trajectory if role == "trajectory" else self._mapping.time.dimension
                raise ValueError(
                    f"Expected the dimension {named!r} in {array.variable.name!r} of {self.source.path} as in "
                    f"{owners[role]!r} but it has none."
                )
        alone = ("trajectory",) if self._mapping.each_file == "trajectories" else ("trajectory", "time")
        empty = [role for role, size in sizes.items() if size < (1 if role in alone else 2)]
        if empty:
            raise ValueError(
                f"Expected trajectories, and at least two frames and points along each axis, but {self.source.path} "
                f"has {sizes[empty[0]]} along {self._arrays[0].dimension_of(empty[0])!r}."
            )
        return sizes

    def _coordinate(self, named: str | None, dimension: str) -> str | None:
        """The array of coordinates; ``none`` means that there is none to be taken."""
        if named == "none":
            return None
        if named is not None:
            return _require_variable(self.source, named).name
        group = self._arrays[0].variable.name.rpartition("/")[0]
        for name in (f"{group}/{dimension}", dimension):
            found = self.source.variables.get(name)
            if found is not None and len(found.shape) == 1:
                return name
        return None

    def _require_unflipped_faces(self) -> None:
        for channel in self._mapping.channels:
            axis = channel.location.removeprefix("face_")
            if axis in [self._mapping.axes[place - 1].name for place in self._flipped]:
                raise ValueError(
                    f"Expected increasing coordinates along {axis!r}, as {channel.name!r} lies on the faces below its "
                    f"cells, but those of {self.source.path} decrease; turn the arrays around first."
                )

    def _line(self, axis: AxisMapping, size: int) -> tuple[npt.NDArray[np.float64], bool]:
        """Increasing points of an axis, and whether the file has them the other way round."""
        coordinate = None if axis.even else self._coordinate(axis.coordinate, axis.dimension)
        points = self._even_points(axis, size) if coordinate is None else self._stored_points(axis, coordinate, size)
        flipped = bool(points[0] > points[-1])
        increasing = points[::-1].copy() if flipped else points
        where = "of the mapping" if coordinate is None else f"in {coordinate!r} of {self.source.path}"
        _require_extent(axis, increasing, where)
        return increasing, flipped

    def _even_points(self, axis: AxisMapping, size: int) -> npt.NDArray[np.float64]:
        spacing = axis.period / size if axis.spacing is None and axis.period is not None else axis.spacing
        if spacing is None or not spacing > 0:
            raise ValueError(
                f"Expected points along {axis.name!r}: {self.source.path} has no array {axis.dimension!r} of "
                "coordinates. Give coordinate: NAME, a period, or start and spacing > 0 in the mapping."
            )
        return np.asarray((axis.start or 0.0) + spacing * np.arange(size), np.float64)

    def _stored_points(self, axis: AxisMapping, coordinate: str, size: int) -> npt.NDArray[np.float64]:
        points = self._numbers(coordinate)
        if points.shape != (size,):
            raise ValueError(
                f"Expected {size} coordinates along {axis.name!r} in {coordinate!r} of {self.source.path} but got "
                f"{points.shape}."
            )
        gaps = np.diff(points)
        if not ((gaps > 0).all() or (gaps < 0).all()):
            raise ValueError(
                f"Expected increasing or decreasing coordinates along {axis.name!r} but {coordinate!r} of "
                f"{self.source.path} has {points[:4].tolist()} ... {points[-1]:.6g}."
            )
        return points

    def _numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A whole small array in float64, scaled."""
        variable = _require_variable(self.source, name)
        what = f"{name!r} of {self.source.path}"
        if math.prod(variable.shape) > LARGEST_LINE:
            raise ValueError(
                f"Expected coordinates, times or parameters in {what} but it has the shape {variable.shape}."
            )
        packing = Packing.of(self.source.attributes(name), variable.dtype, "convert", what)
        values = packing.values(np.asarray(self.source.read(name)))
        if not np.isfinite(values).all():
            raise ValueError(f"Expected finite numbers in {what} but some are missing, NaN or infinite.")
        return np.array(values, dtype=np.float64)

    def _parameter_values(self, parameter: Any) -> list[float]:
        """One for all trajectories of the file, or one for each."""
        if parameter.value is not None:
            return [parameter.value]
        if parameter.attribute is not None:
            attributes = self.source.attributes()
            if parameter.attribute not in attributes:
                message = unknown_name("global attribute", parameter.attribute, attributes)
                raise ValueError(f"{message} It is looked for in {self.source.path}.")
            try:
                return [float(attributes[parameter.attribute])]
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Expected a number as the attribute {parameter.attribute!r} of {self.source.path} but got "
                    f"{attributes[parameter.attribute]!r}."
                ) from error
        values = self._numbers(parameter.variable).ravel().tolist()
        if len(values) not in (1, self.count):
            raise ValueError(
                f"Expected one number, or one for each of the {self.count} trajectories, in {parameter.variable!r} of "
                f"{self.source.path} but got {len(values)}."
            )
        return values


class _Placed:
    """An array of a channel: what each of its dimensions is.

    Attributes:
        number: of the channel.
        variable: the array.
        sizes: by role: ``trajectory``, ``time``, ``axis 0``, ...
    """

    def __init__(self, source: Source, number: int, mapping: FileMapping) -> None:
        self.number = number
        channel = mapping.channels[number]
        self.variable = _require_variable(source, channel.variable)
        what = f"{channel.variable!r} of {source.path}"
        self._names = _dimensions(self.variable, channel.order, mapping.order, what)
        self._packing = Packing.of(source.attributes(channel.variable), self.variable.dtype, channel.integers, what)
        roles = {mapping.time.dimension: "time"}
        roles |= {axis.dimension: f"axis {place}" for place, axis in enumerate(mapping.axes)}
        if mapping.trajectory is not None:
            roles[mapping.trajectory] = "trajectory"
        if len(roles) < 1 + len(mapping.axes) + (mapping.trajectory is not None):
            raise ValueError(f"Expected different dimensions for trajectories, time and each axis but got {roles}.")
        known = dict(zip(self._names, self.variable.shape, strict=True))
        left = [name for name, size in known.items() if size > 1 and name not in roles and name not in channel.index]
        optional = ("trajectory",) if mapping.each_file == "trajectories" else ("trajectory", "time")
        for name in [*roles, *channel.index]:
            if name not in known and (roles.get(name) not in optional or left):
                raise ValueError(f"{unknown_name('dimension', name, self._names)} It is looked for in {what}.")
        self.index: dict[str, int] = {}
        self._roles: list[str] = []
        for name, size in zip(self._names, self.variable.shape, strict=True):
            if name in channel.index:
                if channel.index[name] >= size:
                    raise ValueError(
                        f"Expected an index below {size} along {name!r} of {what} but got {channel.index[name]}."
                    )
                self.index[name] = channel.index[name]
                self._roles.append(f"index {name}")
            elif name in roles:
                self._roles.append(roles[name])
            elif size == 1:
                self.index[name] = 0
                self._roles.append(f"index {name}")
            else:
                raise ValueError(
                    f"Expected the dimension {name!r} ({size}) of {what} to be time, an axis, trajectory or in the "
                    f"channel's index, but the mapping has {sorted(roles)}. Add index: {{{name}: NUMBER}}."
                )
        found = zip(self._roles, self.variable.shape, strict=True)
        self.sizes = {role: size for role, size in found if not role.startswith("index")}
        wanted = ["time", *(f"axis {place}" for place in range(len(mapping.axes)))]
        wanted = [role for role in wanted if role in self._roles]
        kept = [role for role in self._roles if role in wanted]
        self._turned = [kept.index(role) for role in wanted]

    def dimension_of(self, role: str) -> str:
        """The files' name of a role."""
        return self._names[self._roles.index(role)]

    def selection(self, number: int, start: int, stop: int, group: list[_Placed]) -> tuple[int | slice, ...]:
        """Frames of a trajectory, with all components that the group needs."""
        chosen: list[int | slice] = []
        for role in self._roles:
            if role == "trajectory":
                chosen.append(number)
            elif role == "time":
                chosen.append(slice(start, stop))
            elif role.startswith("axis"):
                chosen.append(slice(None))
            else:
                chosen.append(slice(*_range_of(role, group)))
        return tuple(chosen)

    def fields(self, stored: npt.NDArray[Any], group: list[_Placed]) -> npt.NDArray[Any]:
        """``(time, *space)`` out of what `selection` gave."""
        picked: list[int | slice] = [
            self.index[role.removeprefix("index ")] - _range_of(role, group)[0]
            if role.startswith("index")
            else slice(None)
            for role in self._roles
            if role != "trajectory"
        ]
        values = self._packing.values(stored[tuple(picked)]).transpose(self._turned)
        return values if "time" in self._roles else values[None]


def _range_of(role: str, group: list[_Placed]) -> tuple[int, int]:
    places = [array.index[role.removeprefix("index ")] for array in group]
    return min(places), max(places) + 1


class _Key(NamedTuple):
    name: str
    dimensions: tuple[str, ...]


def _read_together(arrays: list[_Placed]) -> list[list[_Placed]]:
    """Components that lie next to each other are read at once."""
    groups: dict[_Key, list[_Placed]] = {}
    for array in arrays:
        groups.setdefault(_Key(array.variable.name, array._names), []).append(array)
    return list(groups.values())


def _dimensions(
    variable: Variable, own: tuple[str, ...] | None, general: tuple[str, ...] | None, what: str
) -> tuple[str, ...]:
    """Names of all dimensions: those told for this array, else the file's, else those told for arrays without."""
    named = tuple(name for name in variable.dimensions if name is not None)
    complete = len(named) == len(variable.shape)
    if own is None and complete:
        return named
    order = general if own is None else own
    if order is None:
        raise ValueError(
            f"Expected names of the {len(variable.shape)} dimensions of {what}, of shape {variable.shape}, but the "
            "file has none; give order: [NAME, ...] in the mapping."
        )
    if len(order) != len(variable.shape):
        raise ValueError(
            f"Expected {len(variable.shape)} names in order, as {what} has the shape {variable.shape}, but got "
            f"{list(order)}. An array with other dimensions may have an order in its channel."
        )
    if complete and set(named) == set(order) and named != order:
        raise ValueError(
            f"Expected the dimensions of {what} in the order {list(named)}, as the file names them, but the mapping "
            f"says {list(order)}. Leave order out."
        )
    return order


def _require_variable(source: Source, name: str) -> Variable:
    if name in source.others:
        raise ValueError(f"Expected numbers in {name!r} of {source.path} but it {source.others[name]}.")
    if name not in source.variables:
        raise ValueError(f"{unknown_name('variable', name, source.variables)} It is looked for in {source.path}.")
    return source.variables[name]


def _refuse_missing(values: npt.NDArray[Any], what: str, start: int) -> None:
    """Name the first frame with NaN, which also stands for what an array marks as missing."""
    bad = np.isnan(values).reshape(len(values), -1)
    if bad.any():
        frame = int(bad.any(1).argmax())
        raise ValueError(
            f"Expected a number at every point but frame {start + frame} of {what} lacks {int(bad[frame].sum())} of "
            f"{bad.shape[1]}: they are NaN or the array's missing value. Fill them first, or leave that file out."
        )


def _require_extent(axis: AxisMapping, points: npt.NDArray[np.float64], where: str) -> None:
    """Points lie within bounds, and even ones go once around a period: else lengths are in two units."""
    gaps = np.diff(points)
    slack = SAME_POINTS * gaps.min()
    if axis.bounds is not None and (points[0] < axis.bounds[0] - slack or points[-1] > axis.bounds[1] + slack):
        raise ValueError(
            f"Expected coordinates along {axis.name!r} within the bounds {axis.bounds} but those {where} run from "
            f"{points[0]:.6g} to {points[-1]:.6g}."
        )
    around = gaps.mean() * len(points)
    even = np.ptp(gaps) <= UNEVEN * gaps.mean()
    if axis.period is not None and even and abs(axis.period - around) > UNEVEN * gaps.mean():
        raise ValueError(
            f"Expected a period {around:.6g} along {axis.name!r}, {len(points)} points times their spacing, as those "
            f"{where} are even, but got {axis.period:.6g}. They may be in other units, or part of a longer axis: then "
            "leave the period out."
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None

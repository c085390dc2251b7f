"""One file of The Well: its header at once, frames when asked for."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import frame_times, require_finite
from pdesurrogate.data.adapters.the_well.attributes import count, flag, flags, text, texts
from pdesurrogate.data.adapters.the_well.boundaries import read_conditions, sides, unmarked
from pdesurrogate.data.adapters.the_well.layout import (
    CHANNEL_ORDER,
    CHANNELS,
    FIELD_GROUPS,
    INTERVAL,
    Sides,
    component_names,
)
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Channel, Location
from pdesurrogate.fields.trajectory import Context

# More than any published file has; a list of them must fit into memory.
MOST_TRAJECTORIES = 100_000

# Files of one process whose memory is held: each costs a file descriptor.
MOST_MAPPED = 256
_mapped: deque[weakref.ref[WellFile]] = deque()

Array = npt.NDArray[Any]
Extra = Literal["channels", "leave out"]


class Options(NamedTuple):
    """How a file is read; see `TheWell`."""

    constant_fields: Extra = "channels"
    varying_scalars: Extra = "channels"
    periodic: tuple[str, ...] = ()
    location: Location = "node"


class WellField(NamedTuple):
    """A stored array whose components are channels.

    Attributes:
        name: of the array, with its group.
        sample_varying: whether its first axis is that of the trajectories.
        time_varying: whether its next axis is time.
        dim_varying: which space axes it has; along the others it is constant.
        components: indices of each component on the axes after those.
        channels: what the components are.
    """

    name: str
    sample_varying: bool
    time_varying: bool
    dim_varying: tuple[bool, ...]
    components: tuple[tuple[int, ...], ...]
    channels: tuple[Channel, ...]

    @property
    def stem(self) -> str:
        """Its name alone."""
        return self.name.rsplit("/", 1)[-1]


class _Sources(NamedTuple):
    """Where channels come from, found once in each process.

    Attributes:
        mapped: channel, view ``(trajectory, time, *space)`` of the file's memory, whether it varies in the two.
        stored: fields that have to be read, and the channels of their components.
    """

    mapped: list[tuple[int, Array, bool, bool]]
    stored: list[tuple[WellField, tuple[int, ...]]]


class WellAxis(NamedTuple):
    """An axis as the file states it.

    Attributes:
        points: ``(n,)``, or ``(trajectory, n)`` where every trajectory has its own; increasing, float64.
        flipped: whether they decrease in the file, and fields are turned round with them.
        attributes: of the array.
    """

    points: Array
    flipped: bool
    attributes: Mapping[str, Any]


class WellFile:
    """One HDF5 file in the layout of The Well.

    Attributes:
        path: the file.
        name: of the data set.
        grid_type: as stored: ``cartesian``, ``spherical``, ``equiangular`` ...
        axes: by name, in the order of the fields' axes.
        sides: what is at both ends of each axis; an axis is periodic or not in both.
        trajectories: how many.
        fields: those that are channels, in the order of the layout: scalar fields, vectors, tensors, scalars in time.
        parameters: ``(trajectory,)`` float64 each, by name.
        times: ``(frames,)``, or ``(trajectory, frames)`` where every trajectory has its own; float64.
        time_units: as the file states them.
        interval: between frames, where a file of ours states it: times are stored in single precision.
        left_out: arrays and attributes that are not read: why, by name.
        suspicious: what a user should be told of.

    Raises:
        ValueError: if the file is truncated or damaged, or not laid out as that layout says.
    """

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self._file = Hdf5File(path)
        self._sources: _Sources | None = None
        self.left_out: dict[str, str] = {}
        self.suspicious: list[str] = []
        root = self._file.attributes()
        what = f"the root of {path}"
        self.name = text(root, "dataset_name", what=what)
        self.grid_type = text(root, "grid_type", what=what)
        self.trajectories = count(root, "n_trajectories", what=what)
        if self.trajectories > MOST_TRAJECTORIES:
            raise ValueError(
                f"Expected at most {MOST_TRAJECTORIES} trajectories in {path} but got {self.trajectories}."
            )
        self._require_groups()
        self.axes = dict(self._read_axes(count(root, "n_spatial_dims", what=what)))
        self.sizes = {name: axis.points.shape[-1] for name, axis in self.axes.items()}
        self.times = self._read_times()
        stated = self._file.attributes("dimensions/time")
        self.time_units = str(stated.get("units", "1"))
        self.interval = stated[INTERVAL] if isinstance(stated.get(INTERVAL), float) else None
        self._common_times = self._even_times(self.times) if self.times.ndim == 1 else None
        self._common_lines = {
            name: torch.from_numpy(axis.points).to(torch.float32)
            for name, axis in self.axes.items()
            if axis.points.ndim == 1
        }
        self.sides = self._read_sides(options.periodic)
        fields = list(self._read_fields(options))
        self.parameters = dict(self._read_scalars(fields, options))
        self.parameters |= dict(self._root_parameters(root))
        self.fields = tuple(fields)
        self._require_trajectories()
        self._places = self._channel_places(root)

    @property
    def frames(self) -> int:
        """Of every trajectory."""
        return int(self.times.shape[-1])

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All channels in the order in which they are read."""
        stored = [channel for field in self.fields for channel in field.channels]
        placed = sorted(zip(self._places, stored, strict=True), key=lambda pair: pair[0])
        return tuple(channel for _, channel in placed)

    def context(self, sample: int) -> Context:
        """Coordinates and parameters of a trajectory, float32."""
        lines = tuple(
            self._common_lines[name] if name in self._common_lines else torch.from_numpy(axis.points[sample]).float()
            for name, axis in self.axes.items()
        )
        values = [values[sample] for values in self.parameters.values()]
        return Context(lines, parameters=torch.tensor(values, dtype=torch.float32) if values else None)

    def times_of(self, sample: int) -> Tensor:
        """Times of a trajectory's frames ``(frames,)``, float64, evenly spaced.

        Raises:
            ValueError: if they are not.
        """
        return self._even_times(self.times[sample]) if self._common_times is None else self._common_times

    def read_into(self, sample: int, start: int, out: Tensor) -> None:
        """Fill ``out (time, channel, *space)`` with frames of a trajectory from ``start`` on.

        Raises:
            ValueError: if the bytes are damaged, or values are NaN or infinite.
        """
        buffer = out.numpy()
        chosen = slice(start, start + len(out))
        if self._sources is None:
            self._sources = self._find_sources()
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is infinite below
            for channel, view, sample_varying, time_varying in self._sources.mapped:
                buffer[:, channel] = view[sample if sample_varying else 0, chosen if time_varying else slice(None)]
            for field, channels in self._sources.stored:
                block = self._read_block(field, sample, chosen)
                for channel, view in zip(channels, self._components(field, block), strict=True):
                    buffer[:, channel] = view[0]
        if not np.isfinite(buffer).all():
            require_finite(out, what=f"trajectory {sample} of {self.path}", start=start)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sources": None}

    def _by_field(self) -> Iterator[tuple[WellField, tuple[int, ...]]]:
        """Fields and the places of their components among the channels."""
        first = 0
        for field in self.fields:
            yield field, self._places[first : first + len(field.channels)]
            first += len(field.channels)

    def _find_sources(self) -> _Sources:
        found = _Sources([], [])
        for field, channels in self._by_field():
            if self._file.array(field.name).offset is None:
                found.stored.append((field, channels))
                continue
            for channel, view in zip(channels, self._components(field, self._file.read(field.name)), strict=True):
                found.mapped.append((channel, view, field.sample_varying, field.time_varying))
        _mapped.append(weakref.ref(self))
        while len(_mapped) > MOST_MAPPED:
            oldest = _mapped.popleft()()
            if oldest is not None:
                oldest._sources = None
        return found

    def _components(self, field: WellField, values: Array) -> Iterator[Array]:
        """Views ``(trajectory, time, *space)`` of one component each, axes that the array has not of length 1."""
        space = [
            None if not varies else slice(None, None, -1) if axis.flipped else slice(None)
            for varies, axis in zip(field.dim_varying, self.axes.values(), strict=True)
        ]
        lead = [slice(None) if varies else None for varies in (field.sample_varying, field.time_varying)]
        for component in field.components:
            yield values[(*lead, *space, *component)]

    def _read_block(self, field: WellField, sample: int, chosen: slice) -> Array:
        """Of one trajectory, whose axis stays where the array has one."""
        lead: tuple[int | slice, ...] = (slice(sample, sample + 1),) if field.sample_varying else ()
        return self._file.read(field.name, (*lead, chosen) if field.time_varying else lead)

    def _require_groups(self) -> None:
        for group in ("dimensions", "scalars", *FIELD_GROUPS):
            if group not in self._file.groups:
                raise ValueError(
                    f"{self._file.missing('group', group)} The layout asks for dimensions, boundary_conditions, "
                    f"scalars and {', '.join(FIELD_GROUPS)}, empty ones too."
                )

    def _read_axes(self, dimension: int) -> Iterator[tuple[str, WellAxis]]:
        names = texts(self._file.attributes("dimensions"), "spatial_dims", what=f"dimensions of {self.path}")
        if len(set(names)) < len(names):
            raise ValueError(f"Expected different names in spatial_dims of {self.path} but got {names}.")
        if len(names) != dimension or not 1 <= dimension <= 3:
            raise ValueError(
                f"Expected one to three names in spatial_dims of {self.path}, as many as n_spatial_dims says "
                f"({dimension}), but got {names}."
            )
        for name in names:
            path = f"dimensions/{name}"
            what = f"{path!r} of {self.path}"
            points, attributes = self._read_line(path, least=2)
            if flag(attributes, "time_varying", False, what=what):
                raise ValueError(f"Expected a grid that stays but {what} varies in time, which is not supported.")
            flipped = bool((np.diff(points) < 0).all())
            points = points[..., ::-1] if flipped else points
            if not np.isfinite(points).all() or not (np.diff(points) > 0).all():
                raise ValueError(f"Expected finite coordinates that increase or decrease in {what}.")
            yield name, WellAxis(np.ascontiguousarray(points), flipped, attributes)

    def _read_times(self) -> Array:
        times, _ = self._read_line("dimensions/time", least=1)
        if not np.isfinite(times).all():
            raise ValueError(f"Expected finite times in {self.path} but some are NaN or infinite.")
        return times

    def _even_times(self, stored: Array) -> Tensor:
        times = torch.from_numpy(stored)
        even = frame_times(times, len(times), self.interval, 0.0, what=f"dimensions/time of {self.path}")
        return even if self.interval is None else even[0] + self.interval * torch.arange(len(even), dtype=torch.float64)

    def _read_line(self, path: str, least: int) -> tuple[Array, dict[str, Any]]:
        """Times or points, with an axis of trajectories in front where they vary with them; float64."""
        stored, attributes = self._file.array(path), self._file.attributes(path)
        own = flag(attributes, "sample_varying", False, what=f"{path!r} of {self.path}")
        lead = (self.trajectories,) if own else ()
        if len(stored.shape) != 1 + own or stored.shape[:-1] != lead or stored.shape[-1] < least:
            raise ValueError(
                f"Expected {path!r} of {self.path} with axes {('trajectory', 'point') if own else ('point',)}, "
                f"{self.trajectories if own else 'no'} trajectories and {least} points at least, but got shape "
                f"{stored.shape}."
            )
        return self._file.read(path).astype(np.float64), attributes

    def _read_sides(self, periodic: tuple[str, ...]) -> dict[str, Sides]:
        """As the masks say, but for the axes that the user says are periodic."""
        conditions = read_conditions(self._file, self.sizes, self.trajectories)
        unknown = sorted(set(periodic) - set(self.axes))
        if unknown:
            raise ValueError(f"Expected names of axes, {tuple(self.axes)}, as periodic but got {unknown}.")
        for condition in conditions:
            ended = [axis for axis in periodic if any(condition.marked.get(axis, ()))]
            if ended and condition.kind != "PERIODIC":
                raise ValueError(
                    f"Expected periodic axes to have no other ends but {condition.name!r} of {self.path} marks ends of "
                    f"{ended} as {condition.kind}; leave them out of periodic."
                )
        told = [
            condition._replace(marked={axis: ends for axis, ends in condition.marked.items() if axis not in periodic})
            for condition in conditions
        ]
        for condition in unmarked(told):
            self.suspicious.append(
                f"the boundary condition {condition.name!r} is periodic but its mask marks no end of "
                f"{', '.join(condition.marked)}, so that both count as open; if they are periodic, say so: "
                "periodic=[...]"
            )
        found = sides(told, tuple(self.axes), what=str(self.path))
        return found | dict.fromkeys(periodic, ("PERIODIC", "PERIODIC"))

    def _read_fields(self, options: Options) -> Iterator[WellField]:
        for order, group in enumerate(FIELD_GROUPS):
            names = texts(self._file.attributes(group), "field_names", what=f"{group} of {self.path}")
            if len(set(names)) < len(names):
                raise ValueError(f"Expected different names in field_names of {group} of {self.path} but got {names}.")
            for name in names:
                field = self._read_field(f"{group}/{name}", order, options.location)
                if not field.time_varying and options.constant_fields == "leave out":
                    self.left_out[field.name] = "a field that is constant in time"
                else:
                    yield field

    def _read_field(self, path: str, order: int, location: Location) -> WellField:
        stored, attributes = self._file.array(path), self._file.attributes(path)
        what = f"{path!r} of {self.path}"
        sample_varying, time_varying = (flag(attributes, key, what=what) for key in ("sample_varying", "time_varying"))
        dim_varying = flags(attributes, "dim_varying", len(self.axes), what=what)
        lead = [(self.trajectories, "trajectory")] * sample_varying + [(self.frames, "time")] * time_varying
        space = [(size, axis) for (axis, size), varies in zip(self.sizes.items(), dim_varying, strict=True) if varies]
        expected = tuple(size for size, _ in (*lead, *space))
        dimension = len(self.axes)
        inner, components = _components_of(stored.shape[len(expected) :], dimension, order)
        if stored.shape[: len(expected)] != expected or not components:
            named = ", ".join(f"{name} {size}" for size, name in (*lead, *space))
            raise ValueError(
                f"Expected {what} with axes ({named}), then {order} of {dimension} components, but got shape "
                f"{stored.shape}."
            )
        if stored.dtype.kind != "f":
            raise ValueError(f"Expected floating-point numbers in {what} but got {stored.dtype}.")
        names = component_names(path.rsplit("/", 1)[-1], order, tuple(self.axes))
        channels = _channels(attributes, names, order, location, inner=inner, what=what)
        return WellField(path, sample_varying, time_varying, dim_varying, components, channels)

    def _read_scalars(self, fields: list[WellField], options: Options) -> Iterator[tuple[str, Array]]:
        """Those that are constant are parameters; the others are appended to the fields."""
        names = texts(self._file.attributes("scalars"), "field_names", what=f"scalars of {self.path}")
        for name in names:
            path = f"scalars/{name}"
            stored, attributes = self._file.array(path), self._file.attributes(path)
            what = f"{path!r} of {self.path}"
            by_sample, in_time = (flag(attributes, key, what=what) for key in ("sample_varying", "time_varying"))
            expected = (self.trajectories,) * by_sample + (self.frames,) * in_time
            if stored.shape != expected and not (stored.shape == (1,) and not expected):
                raise ValueError(f"Expected {what} with shape {expected} but got {stored.shape}.")
            if not in_time:
                values = self._file.read(path).astype(np.float64)
                if not np.isfinite(values).all():
                    raise ValueError(f"Expected finite values of the parameter {what} but some are NaN or infinite.")
                yield name, np.broadcast_to(values, (self.trajectories,))
            elif options.varying_scalars == "leave out":
                self.left_out[path] = "a scalar that varies in time"
            else:
                nowhere = (False,) * len(self.axes)
                channel = Channel(name, units=str(attributes.get("units", "1")), location=options.location)
                fields.append(WellField(path, by_sample, True, nowhere, ((),), (channel,)))

    def _root_parameters(self, root: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
        """Numbers of the root that no scalar states."""
        if "simulation_parameters" not in root:
            return
        for name in texts(root, "simulation_parameters", what=f"the root of {self.path}"):
            if name in self.parameters or f"scalars/{name}" in self.left_out:
                continue
            value = root.get(name)
            value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
            if isinstance(value, (int, float)) and np.isfinite(value):
                yield name, np.full(self.trajectories, float(value))
            else:
                self.left_out[name] = f"a parameter that is no number but {value!r}"[:200]

    def _require_trajectories(self) -> None:
        if not self.fields:
            raise ValueError(f"Expected at least one field in {self.path} but its field_names are empty or left out.")
        if self.trajectories > 1 and not any(field.sample_varying for field in self.fields):
            raise ValueError(
                f"Expected fields that vary from trajectory to trajectory in {self.path}, which says it has "
                f"{self.trajectories}, but none does."
            )
        names = [channel.name for channel in self.channels_as_stored]
        twice = sorted({name for name in names if names.count(name) > 1} | set(names) & set(self.parameters))
        if twice:
            raise ValueError(
                f"Expected different names of channels and parameters in {self.path} but {twice} occur twice. "
                "Leave constant fields or scalars that vary in time out, or rename them in the file."
            )

    @property
    def channels_as_stored(self) -> tuple[Channel, ...]:
        """All channels in the order of the fields."""
        return tuple(channel for field in self.fields for channel in field.channels)

    def _channel_places(self, root: Mapping[str, Any]) -> tuple[int, ...]:
        """Where each channel goes: in the order of the file, or that of the data which a file of ours was made of."""
        names = [channel.name for channel in self.channels_as_stored]
        if CHANNEL_ORDER not in root:
            return tuple(range(len(names)))
        order = texts(root, CHANNEL_ORDER, what=f"the root of {self.path}")
        if sorted(order) != sorted(names):
            raise ValueError(f"Expected an order of the channels {names} in {self.path} but got {order}.")
        return tuple(order.index(name) for name in names)


def _components_of(
    shape: tuple[int, ...], dimension: int, order: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Sizes of the axes of components, and an index for each; no indices where they do not fit.

    Tensors have two axes of components, as the layout's reader takes them, or one of all, as its page has it.
    """
    whole = (dimension,) * order
    if shape == whole or (order == 2 and shape == (dimension**2,)):
        return shape, tuple(np.ndindex(*shape))
    return shape, ()


def _channels(
    attributes: Mapping[str, Any],
    names: tuple[str, ...],
    order: int,
    location: Location,
    *,
    inner: tuple[int, ...],
    what: str,
) -> tuple[Channel, ...]:
    """As a file of ours states them, else by their names in the layout; a vector field is one vector."""
    if not any(key in attributes for key in CHANNELS.values()):
        units = str(attributes.get("units", "1"))
        vector = names[0].rsplit("_", 1)[0] if order == 1 else ""
        return tuple(Channel(name, units=units, location=location, vector=vector) for name in names)
    columns = {key: texts(attributes, stored, what=what) for key, stored in CHANNELS.items()}
    known = ("cell", "node", "face_x", "face_y", "face_z")
    if any(len(column) != len(names) for column in columns.values()) or set(columns["location"]) - set(known):
        raise ValueError(
            f"Expected {len(names)} entries in each of {tuple(CHANNELS.values())} of {what}, one a component."
        )
    rows = zip(*columns.values(), strict=True)
    return tuple(Channel(**dict(zip(columns, row, strict=True))) for row in rows)

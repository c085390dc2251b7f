"""Files of any layout as a data set, by a short mapping of their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from pdesurrogate.data.adapters.common import frame_times, splits_in_file_order
from pdesurrogate.data.adapters.mapped.layout import FileLayout
from pdesurrogate.data.adapters.mapped.mapping import FileMapping, SplitMapping, read_mapping
from pdesurrogate.data.adapters.mapped.sources import open_source
from pdesurrogate.data.adapters.time_blocks import time_blocks
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory


class MappedFiles:
    """netCDF, HDF5, Zarr, ``.npy``, ``.npz`` or MATLAB 7.3 files whose names a mapping explains; an `Adapter`.

    For example, of a folder of netCDF files with winds ``u`` and ``v`` over ``(time, lat, lon)``, packed or not::

        name: winds
        files: {train: "runs/19*.nc", val: "runs/2000.nc", test: "runs/2001.nc"}
        axes:
          x: {dimension: lon, period: 360}
          y: {dimension: lat, bounds: [-90, 90]}
        time: {dimension: time}
        channels:
          - {name: velocity_x, variable: u, vector: velocity}
          - {name: velocity_y, variable: v, vector: velocity}

    and of one HDF5 file with ``runs/velocity (run, time, y, x, component)``, whose dimensions have no names::

        name: my_flow
        files: everything.h5
        splits: {val: 10, test: 10}
        order: [run, time, y, x, component]
        trajectory: run
        axes: {x: {dimension: x, period: 6.283185}, y: {dimension: y, bounds: [0, 1], start: 0, spacing: 0.01}}
        time: {dimension: time, interval: 0.1}
        channels:
          - {name: velocity_x, variable: runs/velocity, index: {component: 0}, vector: velocity, units: m/s}
          - {name: velocity_y, variable: runs/velocity, index: {component: 1}, vector: velocity, units: m/s}
        parameters: {viscosity: 1e-3, forcing: {variable: runs/forcing}, seed: {attribute: seed}}

    `describe` looks into an unknown file and proposes such a mapping. Every word of it is in `FileMapping`.

    Files are found below the folder of the mapping, in natural order. All have the same grid; each is one trajectory,
    or as many as its dimension ``trajectory`` says. With ``each_file: times`` a trajectory goes on from one file to the
    next, as where there is a file for each time. Splits are those of ``files``, or sizes in the order of the files:
    of trajectories, or with ``by: time`` of contiguous blocks of frames with a ``gap`` between them.

    Values are ``scale_factor * stored + add_offset`` in double precision, then single. Decreasing coordinates are
    turned around with the fields. Times in minutes, hours, days or weeks, since a date or not, become seconds.

    Args:
        mapping: a YAML file, or its content as plain values.
        root: folder that names of files are relative to; by default that of the mapping, or the working directory.

    Raises:
        ValueError: if the mapping has an unknown word or lacks one, files are not there, damaged or of unknown format,
            a variable or dimension is not in them (with names that are close), dimensions have no names and no
            ``order`` or differ in size, integers have no scale, coordinates are not monotonic or do not fit period or
            bounds, times are not evenly spaced, or files differ in grid or interval. Values are checked when they are
            read: what is missing, NaN or infinite is refused, naming variable, file and frame. Objects are never
            unpickled.
    """

    def __init__(self, mapping: str | Path | dict[str, Any], root: str | Path | None = None) -> None:
        values, base = _loaded(mapping)
        self.mapping: FileMapping = read_mapping(values, base if root is None else Path(root))
        self._layouts: list[FileLayout] = []
        self._runs: list[_Run] = []
        members: dict[str, list[int]] = {}
        for split, files in self.mapping.files.items():
            before = len(self._runs), len(self._layouts)
            for file in files:
                layout = FileLayout(open_source(file), self.mapping)
                if self._layouts:
                    layout.require_same_as(self._layouts[0])
                self._layouts.append(layout)
            self._runs += self._joined(range(before[1], len(self._layouts)))
            members[split] = list(range(before[0], len(self._runs)))
        first = self._layouts[0]
        interval = float(self._runs[0].times[1] - self._runs[0].times[0])
        for run in self._runs:
            _require_interval(run, interval, self._layouts)
        self._splits = _divided(members, self.mapping.splits, self._runs)
        self._coordinates = tuple(torch.from_numpy(points).float() for points in first.points)
        grid = Grid(
            tuple(
                Axis(axis.name, axis.period, first.units_along(place), axis.bounds)
                for place, axis in enumerate(self.mapping.axes)
            )
        )
        grid.check_coordinates(self._coordinates)
        self._metadata = Metadata(
            name=self.mapping.name,
            grid=grid,
            channels=tuple(
                Channel(channel.name, *first.described(channel), channel.location, channel.vector)
                for channel in self.mapping.channels
            ),
            frame_interval=interval,
            parameters=tuple(parameter.name for parameter in self.mapping.parameters),
            time_units=first.time_units,
            attributes={**self.mapping.attributes, "mapping": json.dumps(values, sort_keys=True, default=str)},
        )

    @property
    def metadata(self) -> Metadata:
        """As the mapping and the first file say."""
        return self._metadata

    @property
    def files(self) -> list[Path]:
        """All of them, in the order of the splits."""
        return [layout.source.path for layout in self._layouts]

    def _joined(self, files: range) -> list[_Run]:
        """Trajectories of these files, each in one of them or going on from one to the next."""
        if self.mapping.each_file == "trajectories":
            parts = [[(file, number)] for file in files for number in range(self._layouts[file].count)]
        else:
            counts = {self._layouts[file].count for file in files}
            if len(counts) > 1:
                raise ValueError(
                    f"Expected as many trajectories in each file, as they go on, but got {sorted(counts)}."
                )
            parts = [[(file, number) for file in files] for number in range(counts.pop())]
        return [_Run(part, self._times_of(part)) for part in parts]

    def _times_of(self, parts: list[tuple[int, int]]) -> Tensor:
        """Of one trajectory."""
        time, first = self.mapping.time, self._layouts[parts[0][0]]
        rows = [self._layouts[file].stored_times(number) for file, number in parts]
        stored = [row for row in rows if row is not None]
        if 0 < len(stored) < len(rows):
            raise ValueError(f"Expected times in all files or in none but {len(rows) - len(stored)} lack them.")
        frames = sum(self._layouts[file].frames for file, _ in parts)
        if frames < 2:
            raise ValueError(f"Expected at least two times but {first.source.path} and what follows it have {frames}.")
        interval = None if time.interval is None else time.interval * first.time_factor
        what = f"{first.time_coordinate or 'time'!r} of {first.source.path}"
        joined = torch.cat(stored) if stored else None
        start = (time.start or 0.0) * first.time_factor
        times = frame_times(joined, frames, interval, start, what=what)
        if time.start is not None and abs(float(times[0]) - start) > 1e-3 * float(times[1] - times[0]):
            raise ValueError(
                f"Expected start {float(times[0]) / first.time_factor:.6g}, as stored in {what}, but the mapping says "
                f"{time.start:.6g}. Leave it out, or say coordinate: none."
            )
        return times

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one trajectory."""
        return tuple(self._splits)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in the order of the files.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._splits:
            raise ValueError(
                f"Expected one of the splits {self.splits} but got {split!r}; give it files or a size in the mapping."
            )
        return [self._trajectory(*member) for member in self._splits[split]]

    def _trajectory(self, number: int, frames: range) -> Trajectory:
        run = self._runs[number]
        file, place = run.parts[0]
        found = self._layouts[file].parameters(place)
        parameters = torch.tensor(found, dtype=torch.float32) if found else None
        shape = (len(frames), len(self._metadata.channels), *(len(points) for points in self._coordinates))
        return Trajectory(
            self._metadata,
            Context(self._coordinates, parameters=parameters),
            run.times[frames.start : frames.stop],
            partial(self._read_into, number, frames.start),
            shape,
        )

    def _read_into(self, number: int, offset: int, start: int, out: Tensor) -> None:
        place = offset + start
        for file, trajectory in self._runs[number].parts:
            layout = self._layouts[file]
            here = min(layout.frames - place, len(out))
            if here > 0:
                layout.read_into(trajectory, place, out[:here])
                out, place = out[here:], place + here
            place -= layout.frames
            if not len(out):
                return


class _Run(NamedTuple):
    """A trajectory: file and number in it, for each file that it goes on in; and its times."""

    parts: list[tuple[int, int]]
    times: Tensor


def _loaded(mapping: str | Path | dict[str, Any]) -> tuple[Mapping[str, Any], Path]:
    if isinstance(mapping, Mapping):
        return mapping, Path()
    path = Path(mapping)
    if not path.is_file():
        raise ValueError(f"Expected a mapping as a YAML file but {path} is not one.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected a mapping in YAML but {path} cannot be read: {error}. `pdesurrogate datasets describe` proposes "
            "one for a file of data."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"Expected words and values in {path} but got {type(values).__name__}.")
    return values, path.parent


def _require_interval(run: _Run, interval: float, layouts: list[FileLayout]) -> None:
    spacing = float(run.times[1] - run.times[0])
    if abs(spacing - interval) > 1e-3 * interval:
        raise ValueError(
            f"Expected frames {interval:.6g} apart as in the first file but {layouts[run.parts[0][0]].source.path} has "
            f"them {spacing:.6g} apart; make it a data set of its own, or resample it."
        )


def _divided(
    members: dict[str, list[int]], sizes: SplitMapping, runs: list[_Run]
) -> dict[str, list[tuple[int, range]]]:
    """Number of a trajectory and frames of it, by split."""

    def whole(chosen: Sequence[int]) -> list[tuple[int, range]]:
        return [(number, range(len(runs[number].times))) for number in chosen]

    if "" not in members:
        return {split: whole(chosen) for split, chosen in members.items()}
    together = members[""]
    if sizes.by == "trajectory":
        if sizes.gap:
            raise ValueError(f"Expected no gap between trajectories but got {sizes.gap}; it is for blocks of time.")
        given = sizes.train
        train = max(len(together) - sizes.test, 0) if given is None else given + sizes.val
        return {
            split: whole(numbers)
            for split, numbers in splits_in_file_order(len(together), train, sizes.val, sizes.test).items()
        }
    divided: dict[str, list[tuple[int, range]]] = {}
    for number in together:
        what = f"trajectory {number}"
        frames = len(runs[number].times)
        blocks = time_blocks(frames, sizes.train, sizes.val, sizes.test, sizes.gap, what=what)
        for split, block in blocks.items():
            divided.setdefault(split, []).append((number, block))
    return divided

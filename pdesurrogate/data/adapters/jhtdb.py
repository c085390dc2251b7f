"""Cutouts of the Johns Hopkins Turbulence Databases (JHTDB): HDF5 as pyJHTDB writes it, netCDF-4 as giverny does.

Li et al., *A public turbulence database cluster*, J. Turbulence 9 (2008) N31; Graham et al., *A web services accessible
database of turbulent channel flow*, J. Turbulence 17 (2016) 181. Both writers name variables by field and time index,
``Velocity_0001 (z, y, x, component)``; giverny begins them with a small letter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import require_finite, splits_in_file_order
from pdesurrogate.data.adapters.shards import in_natural_order
from pdesurrogate.data.adapters.time_blocks import time_blocks
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Axis, Channel, Grid, Location, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

# What giverny puts where the database has no value.
MISSING = np.float32(-999.9)
AXES = ("x", "y", "z")
_VARIABLE = re.compile(r"([A-Za-z]+)_(\d{4,})$")
_FIELD_NAMES = {"magneticfield": "magnetic", "vectorpotential": "vector_potential"}
_UNITS = {"velocity": "length/time", "pressure": "length^2/time^2"}
_BOX = ("x_start", "x_end", "x_step", "y_start", "y_end", "y_step", "z_start", "z_end", "z_step")


class KnownSet(NamedTuple):
    """What cutouts of a published set do not say.

    Attributes:
        periods: along x, y and z; ``None`` where it is not periodic, or not known.
        walls: along y.
        time_step: between time indices; ``None`` where it is not known. Index 1 is time 0.
    """

    periods: tuple[float | None, float | None, float | None]
    walls: tuple[float, float] | None = None
    time_step: float | None = None


_CUBE = (2 * math.pi, 2 * math.pi, 2 * math.pi)
_CHANNEL = (8 * math.pi, None, 3 * math.pi)
# Boxes are those that pyJHTDB spaces its points by. Time steps: giverny's configuration has the channel end at 25.9935
# after 4000 frames, pyJHTDB's dbinfo the isotropic set at 2.048 and the magnetic one at 2.56 after 1024.
KNOWN_SETS = {
    "channel": KnownSet(_CHANNEL, (-1.0, 1.0), 0.0065),
    "channel5200": KnownSet(_CHANNEL, (-1.0, 1.0)),
    "isotropic1024coarse": KnownSet(_CUBE, time_step=0.002),
    "isotropic1024fine": KnownSet(_CUBE),
    "isotropic4096": KnownSet(_CUBE),
    "mhd1024": KnownSet(_CUBE, time_step=0.0025),
    "mixing": KnownSet(_CUBE),
    "rotstrat4096": KnownSet(_CUBE),
}
_UNKNOWN_SET = KnownSet((None, None, None))


class JhtdbCutout:
    """Cutouts of one database, in one file or over several; an `Adapter`.

    Each time of each variable is an array of its own, of velocity, pressure or whatever was asked for. Files of one box
    belong together: a sibling file may have its pressure, others its other times. Times without a hole between them
    make a trajectory. Arrays ``(z, y, x, component)`` come out as ``(channel, x, y, z)``. Channels are named as those
    of our channel flows: ``velocity_x``, ``velocity_y``, ``velocity_z``, ``pressure``.

    An axis is periodic only where the cutout goes all around it, and has walls only where both are in the cutout. The
    heights of a channel are those that the file states, from -1 to 1 in half heights.

    In the atmospheric sets (``sabl...``) the vertical velocity lies on faces half a cell above the other components
    (``zcoor_uv`` and ``zcoor_w``). Faces are counted from below here, so the lowest cell of the others is left out.

    Args:
        path: a file, a folder of ``.h5`` files, or several files.
        time_step: between neighboring time indices. Known for ``channel`` (0.0065), ``isotropic1024coarse`` (0.002)
            and ``mhd1024`` (0.0025); not stored.
        periods: along x, y and z, ``None`` where it is not periodic; known for the sets in `KNOWN_SETS`.
        viscosity: kinematic; not stored, so tell it to have it as a parameter.
        variables: the fields to take, as they are named in the files; by default all, velocity and pressure first.
        split_by: ``time`` cuts each trajectory into blocks, ``file`` keeps what is in one file together, and does not
            join the times of several.
        train: frames or files to train with, of ``file`` with those for validation; by default what is left.
        val: frames or files after those, of ``file`` cut from their end.
        test: frames or files at the end.
        gap: frames left out between two blocks of time.

    Raises:
        ValueError: if a file is no cutout or another one than its attributes say, cutouts are of different databases,
            a variable is missing at some time, time indices are not evenly spaced, the time step is not known, or
            splits do not fit. Values are checked when they are read: NaN, infinity, giverny's mark for missing values
            and frames of nothing but zeros are refused.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        time_step: float | None = None,
        periods: tuple[float | None, float | None, float | None] | None = None,
        viscosity: float | None = None,
        variables: Sequence[str] | None = None,
        split_by: Literal["time", "file"] = "time",
        train: int | None = None,
        val: int = 0,
        test: int = 0,
        gap: int = 0,
    ) -> None:
        if split_by not in ("time", "file"):
            raise ValueError(f"Expected split_by 'time' or 'file' but got {split_by!r}.")
        if split_by == "file" and gap:
            raise ValueError(f"Expected no gap between files but got {gap}; it is for blocks of time.")
        for name, value in (("time_step", time_step), ("viscosity", viscosity)):
            if value is not None and not value > 0:
                raise ValueError(f"Expected a positive {name} but got {value}.")
        files = [_CutoutFile(file) for file in _files_of(path)]
        title = _single({file.title for file in files}, "database", files)
        known = KNOWN_SETS.get(title, _UNKNOWN_SET)
        time_step = known.time_step if time_step is None else time_step
        if time_step is None:
            raise ValueError(
                f"Expected the time_step between time indices of {title!r}: the files do not say; give it."
            )
        chosen = _variables(files, variables)
        self._runs = _runs(files, chosen, join=split_by == "time")
        steps = {run.step for run in self._runs if run.step}
        self._step = _single(steps, "distance between time indices", files) if steps else 1
        above = {"velocity" in chosen and any(file.staggered for file in run.files) for run in self._runs}
        self._staggered = bool(_single(above, "place of the vertical velocity", files))
        components = {
            variable: int(_single({run.components(variable) for run in self._runs}, f"size of {variable!r}", files))
            for variable in chosen
        }
        channels, self._parts = _channels(components, self._staggered)
        grid = Grid(tuple(self._axis(number, periods, known) for number in range(3)))
        self._time_step = time_step
        self._viscosity = viscosity
        self._metadata = Metadata(
            name=title,
            grid=grid,
            channels=channels,
            frame_interval=self._step * time_step,
            parameters=() if viscosity is None else ("viscosity",),
            attributes={
                "source_files": [file.path.name for file in files],
                "database": title,
                "filter_width": _single({file.filter_width for file in files}, "width of a filter", files),
            },
        )
        self._splits = self._divided(split_by, train, val, test, gap)

    @property
    def metadata(self) -> Metadata:
        """Fields at the points of a box."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one frame."""
        return tuple(self._splits)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, cutouts in natural order of their files.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._splits:
            raise ValueError(f"Expected one of the splits {self.splits} but got {split!r}; give that split a size.")
        return [self._trajectory(number, frames) for number, frames in self._splits[split]]

    def _divided(
        self, split_by: str, train: int | None, val: int, test: int, gap: int
    ) -> dict[str, list[tuple[int, range]]]:
        """Number of a run and frames in it, by split."""
        divided: dict[str, list[tuple[int, range]]] = {}
        if split_by == "file":
            total = len(self._runs)
            numbers = splits_in_file_order(total, max(total - test, 0) if train is None else train, val, test)
            for split, chosen in numbers.items():
                divided[split] = [(number, range(len(self._runs[number].times))) for number in chosen]
            return divided
        for number, run in enumerate(self._runs):
            what = f"{run.files[0].path} from time index {run.times[0]} on"
            for split, frames in time_blocks(len(run.times), train, val, test, gap, what=what).items():
                divided.setdefault(split, []).append((number, frames))
        return divided

    def _trajectory(self, number: int, frames: range) -> Trajectory:
        run = self._runs[number]
        times = torch.tensor([run.times[frame] - 1 for frame in frames], dtype=torch.float64) * self._time_step
        coordinates = tuple(torch.from_numpy(points).float() for points in self._points(run.files[0]))
        parameters = None if self._viscosity is None else torch.tensor([self._viscosity], dtype=torch.float32)
        shape = (len(frames), len(self._metadata.channels), *(len(points) for points in coordinates))
        self._metadata.grid.check_coordinates(coordinates)
        read = partial(self._read_into, number, frames.start)
        return Trajectory(self._metadata, Context(coordinates, parameters=parameters), times, read, shape)

    def _points(self, file: _CutoutFile) -> tuple[npt.NDArray[np.float64], ...]:
        x, y, z = file.coordinates
        return x, y, z[1:] if self._staggered else z

    def _axis(
        self, number: int, periods: tuple[float | None, float | None, float | None] | None, known: KnownSet
    ) -> Axis:
        """Periodic, walled or open: as all cutouts have it."""
        name = AXES[number]
        period = known.periods[number] if periods is None else periods[number]
        cutouts = {file.box: file for run in self._runs for file in run.files}.values()
        lines = [self._points(file)[number] for file in cutouts]
        if period is not None:
            around = {_goes_around(points, period) for points in lines}
            if _single(around, f"extent along {name} (all around or in part)", list(cutouts)):
                return Axis(name, period=period)
        if name == "y" and known.walls is not None:
            # Heights in single precision, and walls at 0.9999999999999999.
            ends = {bool(np.allclose(points[[0, -1]], known.walls, rtol=0, atol=1e-6)) for points in lines}
            if _single(ends, "extent along y (from wall to wall or in part)", list(cutouts)):
                return Axis(name, bounds=known.walls)
        return Axis(name)

    def _read_into(self, number: int, offset: int, start: int, out: Tensor) -> None:
        run = self._runs[number]
        for row in range(len(out)):
            time = run.times[offset + start + row]
            for variable, first, count in self._parts:
                place, name = run.variables[variable][time]
                values = run.files[place].read(name)
                what = f"{name!r} of {run.files[place].path}"
                if not values.any():
                    raise ValueError(f"Expected a field but {what} holds nothing but zeros; get that cutout again.")
                if (values == MISSING).any():
                    raise ValueError(
                        f"Expected a value at every point but {what} has {MISSING}, which the database gives where it "
                        "has none; get that cutout again."
                    )
                fields = torch.from_numpy(values).permute(3, 2, 1, 0)
                target = out[row, first : first + count]
                if not self._staggered:
                    target.copy_(fields)
                elif count == 1:
                    target.copy_(fields[..., 1:])
                else:
                    target[:2] = fields[:2, ..., 1:]
                    target[2] = fields[2, ..., :-1]  # what lies above a cell lies below the next
                require_finite(target[None], what=f"{variable} in {run.files[place].path}", start=time)


class _CutoutFile:
    """One file: its header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = Hdf5File(path)
        attributes = {name: _plain(value) for name, value in self._file.attributes().items()}
        missing = [name for name in ("dataset", "t_start", "t_end", "t_step", *_BOX) if name not in attributes]
        if missing:
            raise ValueError(
                f"Expected the attributes of a cutout but {path} lacks {', '.join(missing)}. Is it a file of pyJHTDB's "
                "getbigCutout or giverny's getCutout?"
            )
        self.title = str(attributes["dataset"])
        self.box = tuple(_whole(attributes[name], name, path) for name in _BOX)
        self.filter_width = _whole(attributes.get("filterWidth", 1), "filterWidth", path)
        first, last, step = (_whole(attributes[name], name, path) for name in ("t_start", "t_end", "t_step"))
        arrays = self._file.arrays
        self.staggered = "zcoor_uv" in arrays and "zcoor_w" in arrays
        names = ("xcoor", "ycoor", "zcoor_uv" if self.staggered else "zcoor")
        self.coordinates: tuple[npt.NDArray[np.float64], ...] = tuple(
            np.array(self._file.read(name), dtype=np.float64) for name in names
        )
        self._check_box()
        self.variables: dict[str, dict[int, str]] = {}
        for name, array in arrays.items():
            found = _VARIABLE.match(name)
            if found is None or len(array.shape) != 4:
                continue
            self._check_shape(name, array.shape, array.dtype)
            times = self.variables.setdefault(found[1].lower(), {})
            if int(found[2]) in times:
                raise ValueError(f"Expected one array for each time but {path} has {times[int(found[2])]} and {name}.")
            times[int(found[2])] = name
        if not self.variables:
            raise ValueError(self._file.missing("array", "Velocity_0001"))
        stated = range(first, last + 1, max(step, 1))
        for variable, times in self.variables.items():
            if sorted(times) != list(stated[: len(times) + 1]):
                raise ValueError(
                    f"Expected {variable!r} at the time indices {_shortened(stated)} that {path} states but it is "
                    f"there at {_shortened(sorted(times))}; get that cutout again."
                )

    def components(self, name: str) -> int:
        """1 or 3."""
        return self._file.array(name).shape[3]

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """``(z, y, x, component)``, a copy in the byte order of this machine."""
        return np.array(self._file.read(name), dtype=np.float32)

    def _check_box(self) -> None:
        for number, (axis, points) in enumerate(zip(AXES, self.coordinates, strict=True)):
            start, end, step = self.box[3 * number : 3 * number + 3]
            count = (end - start) // step + 1 if step > 0 else 0
            if points.ndim != 1 or len(points) != count or count < 2 or not bool((np.diff(points) > 0).all()):
                raise ValueError(
                    f"Expected {count} (at least two) increasing coordinates along {axis} of {self.path}, from "
                    f"{axis}_start {start} to {axis}_end {end} in steps of {step}, but got {points.shape} of them."
                )

    def _check_shape(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        points = tuple(len(points) for points in reversed(self.coordinates))
        if shape[:3] != points or shape[3] not in (1, 3) or dtype.kind != "f":
            raise ValueError(
                f"Expected real {name!r} (z, y, x, component) of shape {points} with 1 or 3 components in {self.path} "
                f"but got {dtype} of shape {shape}."
            )


class _Run(NamedTuple):
    """One box at evenly spaced times.

    Attributes:
        files: that hold it.
        variables: by name and time index, the number of the file in ``files`` and the name of the array.
        times: time indices.
    """

    files: list[_CutoutFile]
    variables: dict[str, dict[int, tuple[int, str]]]
    times: list[int]

    @property
    def step(self) -> int:
        """Between time indices; 0 for a single time."""
        return self.times[1] - self.times[0] if len(self.times) > 1 else 0

    def components(self, variable: str) -> int:
        """Of a variable at all times; 0 where they differ."""
        counts = {self.files[place].components(name) for place, name in self.variables[variable].values()}
        return counts.pop() if len(counts) == 1 else 0


def _files_of(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, (str, Path)):
        files = [Path(each) for each in path]
        if not files or len(set(files)) != len(files):
            raise ValueError(f"Expected files, each of them once, but got {[str(file) for file in files]}.")
        return files
    root = Path(path)
    if not root.is_dir():
        return [root]
    found = in_natural_order(file for file in root.iterdir() if file.suffix in (".h5", ".hdf5") and file.is_file())
    if not found:
        raise ValueError(f"Expected cutouts *.h5 in {root} but found none.")
    return found


def _variables(files: list[_CutoutFile], wanted: Sequence[str] | None) -> list[str]:
    there = sorted({name for file in files for name in file.variables})
    if wanted is None:
        first = [name for name in ("velocity", "pressure") if name in there]
        return first + [name for name in there if name not in first]
    chosen = [name.lower() for name in ([wanted] if isinstance(wanted, str) else wanted)]
    unknown = [name for name in chosen if name not in there]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"Expected different variables among {', '.join(there)} but got {list(wanted)}.")
    return chosen


def _runs(files: list[_CutoutFile], variables: list[str], *, join: bool) -> list[_Run]:
    """Files of one box together; unless ``join``, of one box and the same times."""
    groups: dict[Any, list[_CutoutFile]] = {}
    for file in files:
        own = tuple(sorted({time for named in file.variables.values() for time in named}))
        groups.setdefault((file.box, () if join else own), []).append(file)
    runs = []
    for group in groups.values():
        held = _arrays_of(group, variables)
        times = sorted({time for named in held.values() for time in named})
        for variable, named in held.items():
            missing = [time for time in times if time not in named]
            if missing:
                raise ValueError(
                    f"Expected {variable!r} at the time indices of the other variables but {group[0].path} and its "
                    f"siblings lack it at {_shortened(missing)}. Get those, or choose other variables."
                )
        runs += [_Run(group, held, stretch) for stretch in _without_holes(times, group[0].path)]
    return runs


def _arrays_of(group: list[_CutoutFile], variables: list[str]) -> dict[str, dict[int, tuple[int, str]]]:
    held: dict[str, dict[int, tuple[int, str]]] = {}
    reference = group[0]
    for place, file in enumerate(group):
        pairs = zip(file.coordinates, reference.coordinates, strict=True)
        if not all(np.allclose(one, other, rtol=0, atol=1e-5) for one, other in pairs):
            raise ValueError(f"Expected the coordinates of {reference.path} in {file.path}, which has its box.")
        for variable in variables:
            for time, name in file.variables.get(variable, {}).items():
                if time in held.setdefault(variable, {}):
                    other = group[held[variable][time][0]].path
                    raise ValueError(f"Expected {name!r} of this box in one file but {other} and {file.path} have it.")
                held[variable][time] = (place, name)
    lacking = [variable for variable in variables if variable not in held]
    if lacking:
        raise ValueError(
            f"Expected {', '.join(lacking)} of the box of {reference.path} as of the others but no file has it. "
            "Get it, or choose other variables."
        )
    return held


def _without_holes(times: list[int], path: Path) -> list[list[int]]:
    """Stretches at the smallest distance that occurs."""
    distances = [after - before for before, after in pairwise(times)]
    step = min(distances, default=1)
    stretches = [[times[0]]]
    for distance, time in zip(distances, times[1:], strict=True):
        if distance == step:
            stretches[-1].append(time)
        else:
            stretches.append([time])
    if len(stretches) > 1 and min(map(len, stretches)) == 1:
        raise ValueError(
            f"Expected evenly spaced time indices, or stretches of them, in {path} and its siblings but got "
            f"{_shortened(times)}. Get the cutouts between them, or give files that belong together alone."
        )
    return stretches


def _channels(components: dict[str, int], staggered: bool) -> tuple[tuple[Channel, ...], list[tuple[str, int, int]]]:
    """The channels, and for each variable its first one and how many there are."""
    channels: list[Channel] = []
    parts = []
    for variable, count in components.items():
        if count not in (1, 3) or (staggered and count == 3 and variable != "velocity"):
            raise ValueError(
                f"Expected 1 or 3 components of {variable!r} at one place but it has others; leave it out."
            )
        name, units = _FIELD_NAMES.get(variable, variable), _UNITS.get(variable, "1")
        inside: Location = "cell" if staggered else "node"
        parts.append((variable, len(channels), count))
        if count == 1:
            channels.append(Channel(name, units, name.replace("_", " "), inside))
            continue
        for axis in AXES:
            location: Location = "face_z" if staggered and axis == "z" else inside
            channels.append(Channel(f"{name}_{axis}", units, f"{name.replace('_', ' ')} along {axis}", location, name))
    return tuple(channels), parts


def _goes_around(points: npt.NDArray[np.float64], period: float) -> bool:
    """Whether the distance from the last point to the first, one period on, is that between points."""
    spacing = float(points[-1] - points[0]) / (len(points) - 1)
    even = bool((np.abs(np.diff(points) - spacing) <= 1e-3 * spacing).all())
    if float(points[-1] - points[0]) > period:
        raise ValueError(f"Expected points within one period {period:.6g} but they span {points[-1] - points[0]:.6g}.")
    return even and abs(spacing * len(points) - period) <= 1e-3 * spacing


def _single(found: set[Any], what: str, files: Sequence[_CutoutFile]) -> Any:
    if len(found) != 1:
        names = ", ".join(file.path.name for file in files[:4])
        raise ValueError(f"Expected one {what} but {names} have {sorted(map(str, found))}; read them one by one.")
    return next(iter(found))


def _shortened(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:6])) + (f", ... ({len(numbers)} in all)" if len(numbers) > 6 else "")


def _plain(value: Any) -> Any:
    """netCDF-4 keeps numbers as arrays of one."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _whole(value: Any, name: str, path: Path) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"Expected a whole number as the attribute {name!r} of {path} but got {value!r}.")
    return value

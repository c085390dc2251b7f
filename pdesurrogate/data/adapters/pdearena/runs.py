"""One file of shallow-water runs: where its variables lie, on which grid and at which times."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.pdearena.stored import chosen_frames, group_of_split, put, read_numbers
from pdesurrogate.data.hdf5_file import Hdf5File

Layout = Literal["netcdf", "converted"]
HOUR = "h"

_HOURS = {"second": 1 / 3600, "minute": 1 / 60, "hour": 1.0, "day": 24.0}
_SINCE = re.compile(r"\s*(second|minute|hour|day)s?\s+since\s", re.IGNORECASE)
# By number of axes: what the conversion makes of variables with a level and without.
_CONVERTED_AXES = {5: ("trajectory", "time", "lev", "lat", "lon"), 4: ("trajectory", "time", "lat", "lon")}
# In degrees, and in hours: grids are stored in single precision.
_SAME_PLACE, _SAME_TIME = 1e-3, 1e-3
# Of the spacing of points or frames: coordinates in single precision leave less.
_EVEN = 1e-3


# Attributes of packed variables, and what is meant without them.
_PACKING = {"scale_factor": 1.0, "add_offset": 0.0}
# What netCDF leaves in real numbers that were never written, in both precisions, where no _FillValue says otherwise.
_UNWRITTEN = float(np.float32(9.9692099683868690e36))


class SphereGrid(NamedTuple):
    """Points of a grid on the sphere.

    Attributes:
        longitudes: ``(n,)`` degrees, even, over the whole circle.
        latitudes: ``(m,)`` degrees, from south to north.
        flipped: whether files have them from north to south.
    """

    longitudes: Tensor
    latitudes: Tensor
    flipped: bool

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Latitudes and longitudes, as files have them."""
        return len(self.latitudes), len(self.longitudes)


class _Stored(NamedTuple):
    """One variable of a file."""

    name: str
    axes: tuple[str, ...]
    missing: tuple[float, ...]
    scale: float
    offset: float


class RunFile:
    """Runs of one split in one file.

    Args:
        layout: ``netcdf`` as SpeedyWeather writes one run, or ``converted``.
        path: of the file.
        split: that it is of.
        variables: names in the file.
        interval: hours between stored frames where the file does not say.

    Raises:
        ValueError: if the file is none of that layout, naming what is wrong.
    """

    def __init__(
        self, layout: Layout, path: Path, split: str, variables: Sequence[str], interval: float | None
    ) -> None:
        self.file = Hdf5File(path)
        self.variables = tuple(variables)
        group = "" if layout == "netcdf" else f"{group_of_split(self.file, split)}/"
        self._stored = [self._variable(group, name, layout) for name in variables]
        sizes = self._sizes()
        self.trajectories = sizes.get("trajectory", 1)
        if min(sizes["lat"], sizes["lon"]) < 2 or sizes["time"] < 2:
            raise ValueError(f"Expected at least two frames, latitudes and longitudes in {path} but got {sizes}.")
        if layout == "netcdf":
            if interval is not None:
                raise ValueError(f"Expected no frame_interval, as {path} has times of its own, but got {interval:g}.")
            self.grid = self._stated_grid(sizes["lat"], sizes["lon"])
            self.times = self._stated_times(sizes["time"])
        else:
            if interval is None or not interval > 0:
                raise ValueError(
                    f"Expected a positive frame_interval in hours, as converted files like {path} hold no times, but "
                    f"got {interval}. The variable 'time' of an original output.nc tells it."
                )
            self.grid = gaussian_grid(sizes["lat"], sizes["lon"])
            self.times = interval * torch.arange(sizes["time"], dtype=torch.float64)

    @property
    def interval(self) -> float:
        """Hours between stored frames."""
        return float(self.times[1] - self.times[0])

    def require_like(self, first: RunFile) -> None:
        """Refuse a file with another grid or other times than the first; numbers of trajectories may differ.

        Raises:
            ValueError: naming both and what differs.
        """
        for what, ours, theirs, near in (
            ("longitudes", self.grid.longitudes, first.grid.longitudes, _SAME_PLACE),
            ("latitudes", self.grid.latitudes, first.grid.latitudes, _SAME_PLACE),
            ("frames", self.times, first.times, _SAME_TIME),
        ):
            if len(ours) != len(theirs) or not torch.allclose(ours, theirs, rtol=0.0, atol=near):
                raise ValueError(
                    f"Expected {len(theirs)} {what}, {theirs[0]:g} to {theirs[-1]:g} as in {first.file.path}, but "
                    f"{self.file.path} has {len(ours)}, {ours[0]:g} to {ours[-1]:g}. Give each set a folder of its own."
                )
        if self.grid.flipped != first.grid.flipped:
            raise ValueError(
                f"Expected latitudes in the order of {first.file.path} in {self.file.path} but they run the other way. "
                "Give each set a folder of its own."
            )

    def read_into(self, number: int, frames: range, out: Tensor) -> None:
        """Stored ``frames`` of a trajectory: ``out (time, channel, longitude, latitude)``."""
        for channel, stored in enumerate(self._stored):
            put(self._read(stored, number, frames), out[:, channel])

    def _read(self, stored: _Stored, number: int, frames: range) -> npt.NDArray[Any]:
        """``(time, longitude, latitude)`` from south to north, whatever the order of the file's axes."""
        indices: dict[str, int | slice] = {"trajectory": number, "time": chosen_frames(frames), "lev": 0}
        values = self.file.read(stored.name, tuple(indices.get(axis, slice(None)) for axis in stored.axes))
        if stored.missing and bool(np.isin(values, stored.missing).any()):
            raise ValueError(
                f"Expected values everywhere but {stored.name!r} of {self.file.path} has missing ones "
                f"({', '.join(f'{value:g}' for value in stored.missing)}) in frames {frames[0]} to {frames[-1]}."
            )
        kept = [axis for axis in stored.axes if axis in ("time", "lon", "lat")]
        values = values.transpose([kept.index(axis) for axis in ("time", "lon", "lat")])
        if stored.scale != 1.0 or stored.offset != 0.0:
            values = values * stored.scale + stored.offset
        return values[..., ::-1] if self.grid.flipped else values

    def _variable(self, group: str, variable: str, layout: Layout) -> _Stored:
        array = self.file.array(f"{group}{variable}")
        if layout == "converted":
            axes = _CONVERTED_AXES.get(len(array.shape), ())
            wanted = " or ".join(f"({', '.join(names)})" for names in _CONVERTED_AXES.values())
        else:
            axes = tuple(str(name) for name in self.file.dimensions(array.name))
            wanted = "time, lat and lon, in any order, and lev perhaps"
        if {"time", "lat", "lon"} - set(axes) or set(axes) - set(_CONVERTED_AXES[5]) or len(set(axes)) != len(axes):
            raise ValueError(
                f"Expected axes {wanted} of {array.name!r} in {self.file.path} but got {axes or array.shape}. "
                "Only output on full grids is read."
            )
        stated = {name: self.file.number(name, array.name) for name in _PACKING}
        scale, offset = (plain if (value := stated[name]) is None else value for name, plain in _PACKING.items())
        if not (math.isfinite(offset) and math.isfinite(scale) and scale != 0):
            raise ValueError(
                f"Expected finite scale_factor and add_offset of {array.name!r} in {self.file.path}, the first not 0, "
                f"but got {scale:g} and {offset:g}."
            )
        if array.dtype.kind != "f" and scale == 1.0:
            raise ValueError(f"Expected real numbers in {array.name!r} of {self.file.path} but got {array.dtype}.")
        missing = {self.file.number(name, array.name) for name in ("_FillValue", "missing_value")}
        if array.dtype.kind == "f":
            missing.add(_UNWRITTEN)
        # NaN is refused wherever it is found.
        named = tuple(sorted(value for value in missing if value is not None and not math.isnan(value)))
        return _Stored(array.name, axes, named, scale, offset)

    def _sizes(self) -> dict[str, int]:
        """Points along each axis; all variables have the same, and one level."""
        sizes: dict[str, int] = {}
        for stored in self._stored:
            shape = self.file.array(stored.name).shape
            for axis, size in zip(stored.axes, shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(
                        f"Expected {sizes[axis]} points along {axis!r} in all variables of {self.file.path} but "
                        f"{stored.name!r} has {shape}."
                    )
        if sizes.get("lev", 1) != 1:
            raise ValueError(
                f"Expected one level, as shallow water has, in {self.file.path} but got {sizes['lev']}; this is the "
                "output of another model."
            )
        return sizes

    def _line(self, name: str, size: int) -> npt.NDArray[np.float64]:
        return read_numbers(self.file, name, [(size,)], "one for each point of the variables")

    def _stated_grid(self, rows: int, columns: int) -> SphereGrid:
        longitudes, latitudes = self._line("lon", columns), self._line("lat", rows)
        gaps = np.diff(longitudes)
        if not bool((np.abs(gaps - 360 / columns) <= _EVEN * 360 / columns).all()):
            raise ValueError(
                f"Expected {columns} longitudes {360 / columns:g} degrees apart, once around, in 'lon' of "
                f"{self.file.path} but got {longitudes[:3].tolist()} ... {longitudes[-1]:g}."
            )
        flipped = bool(latitudes[0] > latitudes[-1])
        ordered = latitudes[::-1] if flipped else latitudes
        if not (bool((np.diff(ordered) > 0).all()) and bool((np.abs(ordered) < 90).all())):
            raise ValueError(
                f"Expected latitudes between the poles, in degrees and in order, in 'lat' of {self.file.path} but got "
                f"{latitudes[:3].tolist()} ... {latitudes[-1]:g}."
            )
        return SphereGrid(torch.from_numpy(longitudes), torch.from_numpy(ordered.copy()), flipped)

    def _stated_times(self, frames: int) -> Tensor:
        stored = self._line("time", frames)
        units = str(self.file.attributes("time").get("units", ""))
        found = _SINCE.match(units)
        if found is None:
            raise ValueError(
                f"Expected units such as 'hours since 2000-01-01' of 'time' in {self.file.path} but got {units!r}."
            )
        whole = self.file.array("time").dtype.kind in "iu"
        times = even_times(stored, rounded=whole, what=f"'time' of {self.file.path}")
        return torch.from_numpy(times * _HOURS[found[1].lower()])


def gaussian_grid(rows: int, columns: int) -> SphereGrid:
    """Latitudes whose sines are the nodes of Gauss and Legendre, longitudes from 0 on; stored from north to south.

    Example:
        >>> grid = gaussian_grid(2, 4)
        >>> [round(value, 4) for value in grid.latitudes.tolist()], grid.longitudes.tolist()
        ([-35.2644, 35.2644], [0.0, 90.0, 180.0, 270.0])
    """
    sines, _ = np.polynomial.legendre.leggauss(rows)
    latitudes = torch.from_numpy(np.rad2deg(np.arcsin(sines)))
    return SphereGrid(torch.arange(columns, dtype=torch.float64) * (360 / columns), latitudes, True)


def even_times(stored: npt.NDArray[np.float64], *, rounded: bool, what: str) -> npt.NDArray[np.float64]:
    """Evenly spaced times that fit the stored ones.

    Args:
        stored: as in the file.
        rounded: whether they were rounded to whole numbers, so that each may be off by a half.
        what: the file and variable, for messages.

    Raises:
        ValueError: if they are further from even than their rounding explains.

    Example:
        >>> even_times(np.array([0.0, 5.0, 11.0, 16.0, 22.0]), rounded=True, what="time").tolist()
        [-0.2, 5.3, 10.8, 16.3, 21.8]
    """
    steps = np.arange(len(stored)) - (len(stored) - 1) / 2
    spacing = float(steps @ stored / (steps @ steps))
    even = stored.mean() + spacing * steps
    # Where numbers are rounded the best line may leave a little more than a half.
    allowed = 0.75 if rounded else _EVEN * abs(spacing)
    if not (spacing > 0 and bool((np.abs(even - stored) <= allowed).all())):
        raise ValueError(
            f"Expected increasing, evenly spaced times in {what} but got {stored[:4].tolist()} ... {stored[-1]:g}."
        )
    return np.round(even, 9)

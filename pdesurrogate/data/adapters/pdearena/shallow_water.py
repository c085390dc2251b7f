"""PDEArena's shallow water on a sphere: netCDF-4 files of SpeedyWeather.jl, or HDF5 shards converted from them.

Gupta & Brandstetter, *Towards Multi-spatiotemporal-scale Generalized PDE Modeling*, TMLR 2023, arXiv:2209.15616. The
card ``datasets/pdearena_shallow_water`` says what the files are and what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from pdesurrogate.data.adapters.base import PublishedStatistics
from pdesurrogate.data.adapters.pdearena.grid_statistics import read_grid_statistics
from pdesurrogate.data.adapters.pdearena.runs import HOUR, Layout, RunFile
from pdesurrogate.data.adapters.pdearena.stored import FrameChoice, Sample, SampledSet, Starts
from pdesurrogate.data.adapters.shards import shards_of_splits
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context

Variable = Literal["pres", "u", "v", "vor", "div"]
Latitude = Literal["sine", "degrees"]
STATISTICS = "normstats.pt"

_CHANNELS = {
    "pres": Channel("displacement", "m", "displacement of the surface", "node"),
    "u": Channel("velocity_east", "m/s", "velocity towards the east", "node", "velocity"),
    "v": Channel("velocity_north", "m/s", "velocity towards the north", "node", "velocity"),
    "vor": Channel("vorticity", "1/s", "relative vorticity", "node"),
    "div": Channel("divergence", "1/s", "divergence of the velocity", "node"),
}
_LATITUDES = {
    "sine": Axis("sine_of_latitude", bounds=(-1.0, 1.0)),
    "degrees": Axis("latitude", units="degrees", bounds=(-90.0, 90.0)),
}


class PdeArenaShallowWater(SampledSet):
    """Shallow water on a rotating sphere; an `Adapter`.

    Longitude is the first axis, periodic, in degrees. Latitude is the second, from south to north whichever way a file
    has it, and not periodic: the poles are its ends. By default its coordinate is the sine of the latitude, in which
    equal lengths are equal areas, so that means, norms and totals weigh every part of the sphere as it should be; the
    weights of degrees, which are those of published figures, make the poles count as much as the equator. Channels have
    names by which no metric takes them for a flow in a plane.

    Two layouts are read: ``{train,valid,test}/seed=NNNNNN/runNNNN/output.nc`` as published, and ``MODE_i.h5`` with a
    group named as the mode, as SineNet's ``h5_conv.py`` writes them. Of netCDF files the first of each split is opened
    now, the others when they are first read. Converted files hold neither times nor places: the points are then those
    of a Gaussian grid, from north to south as SpeedyWeather has them.

    Times are in hours. SpeedyWeather stores them rounded to whole hours; the even times that fit them best are given.

    Args:
        path: the folder of the splits, or a converted file.
        variables: to read, of ``pres``, ``u``, ``v``, ``vor`` and ``div``, in the order of the channels.
        latitude: coordinate of the second axis.
        first_frame: number of the first stored frame.
        stride: stored frames between frames. PDEArena's frames two days apart are ``first_frame=4, stride=8``, those
            one day apart ``first_frame=4, stride=4``.
        starts: where training trajectories begin, see `FrameChoice`.
        frame_interval: hours between stored frames, of converted files alone, where it is needed.
        skip_bad_trajectories: go on without trajectories that cannot be read, see `left_out`; the last frame of each is
            looked at now.

    Raises:
        ValueError: if there are no files, no word says their split, a file is truncated, lacks a variable or the group
            of its split, has several levels, or places, times or shapes are no such grid's or disagree. Values are
            checked when they are read: NaN, infinity, missing values and frames of zeros are refused.
    """

    def __init__(
        self,
        path: str | Path,
        variables: Sequence[Variable] = ("pres", "u", "v"),
        latitude: Latitude = "sine",
        first_frame: int = 0,
        stride: int = 1,
        starts: Starts = "first",
        frame_interval: float | None = None,
        skip_bad_trajectories: bool = False,
    ) -> None:
        variables = tuple(variables)
        if not variables or set(variables) - set(_CHANNELS) or len(set(variables)) != len(variables):
            raise ValueError(f"Expected different variables among {tuple(_CHANNELS)} but got {variables}.")
        if latitude not in _LATITUDES:
            raise ValueError(f"Expected latitude 'sine' or 'degrees' but got {latitude!r}.")
        self.path = Path(path)
        self.variables = variables
        choice = FrameChoice(first_frame, stride, starts)
        layout, files = _find(self.path)
        first = _first_file(layout, files, variables, frame_interval, skip_bad_trajectories)
        self._grid = first.grid
        sines = first.grid.latitudes.deg2rad().sin()
        coordinates = (
            first.grid.longitudes.float(),
            (sines if latitude == "sine" else first.grid.latitudes).float(),
        )
        context = Context(coordinates)
        gather = _samples_of_runs if layout == "netcdf" else _samples_of_shards
        samples = {split: gather(paths, split, first, context) for split, paths in files.items()}
        if layout == "netcdf" and not skip_bad_trajectories:
            for split, paths in files.items():
                RunFile(layout, paths[0], split, variables, None).require_like(first)
        metadata = Metadata(
            "pdearena_shallow_water",
            Grid((Axis("longitude", period=360.0, units="degrees"), _LATITUDES[latitude])),
            tuple(_CHANNELS[name] for name in variables),
            first.interval * stride,
            time_units=HOUR,
            attributes={"first_frame": first_frame, "stride": stride, "stored_interval": first.interval},
        )
        space = (len(first.grid.longitudes), len(first.grid.latitudes))
        super().__init__(
            samples, metadata, first.times, space, choice, skip_bad_trajectories=skip_bad_trajectories, path=self.path
        )

    def published_statistics(self) -> PublishedStatistics:
        """From ``normstats.pt`` beside the splits, which has mean and deviation at each point of the grid.

        The mean of a channel is that of its points' means, the variance that of its points' variances plus that of
        their means; points count alike, as they do where statistics are gathered from data.

        Raises:
            ValueError: if the file is not there, holds other things than tensors, lacks a variable, or is of another
                grid.
        """
        folder = self.path.parent if self.path.is_file() else self.path
        found = [place / STATISTICS for place in (folder, folder.parent) if (place / STATISTICS).is_file()]
        if not found:
            raise ValueError(
                f"Expected the published statistics in {folder / STATISTICS} but there is no such file. Download it, "
                "or gather statistics from the data."
            )
        return read_grid_statistics(found[0], self.variables, self._grid.stored_shape)


def _find(path: Path) -> tuple[Layout, dict[str, list[Path]]]:
    """The layout of the files below a folder, and those of each split."""
    own = {path.suffix} if path.is_file() else {suffix for suffix in (".nc", ".h5") if any(path.rglob(f"*{suffix}"))}
    if len(own) > 1:
        raise ValueError(
            f"Expected netCDF files or converted HDF5 files in {path} but it holds both, of the same data perhaps. "
            "Give the folder of one kind."
        )
    layout: Layout = "netcdf" if own == {".nc"} else "converted"
    return layout, shards_of_splits(path, ("*.nc",) if layout == "netcdf" else ("*.h5",))


def _first_file(
    layout: Layout, files: dict[str, list[Path]], variables: Sequence[str], interval: float | None, skip_bad: bool
) -> RunFile:
    """The file that the others are held against: the first, where bad ones are skipped the first that can be read."""
    every = [(split, path) for split, paths in files.items() for path in paths]
    if (interval is None) != (layout == "netcdf"):
        skip_bad = False  # the option is wrong, and no file is to blame
    for split, path in every:
        try:
            return RunFile(layout, path, split, variables, interval)
        except ValueError:
            if not skip_bad or path == every[-1][1]:
                raise
    raise AssertionError("every split has a file")


def _samples_of_runs(paths: Sequence[Path], split: str, first: RunFile, context: Context) -> list[Sample]:
    """One trajectory in each file."""
    return [Sample(str(path), context, _LazyRun(path, split, first)) for path in paths]


def _samples_of_shards(paths: Sequence[Path], split: str, first: RunFile, context: Context) -> list[Sample]:
    """Several trajectories in each file."""
    samples = []
    for path in paths:
        file = RunFile("converted", path, split, first.variables, first.interval)
        file.require_like(first)
        samples += [
            Sample(f"trajectory {number} of {path}", context, partial(file.read_into, number))
            for number in range(file.trajectories)
        ]
    return samples


class _LazyRun:
    """Opens its file at the first read, and then holds it against the first of the set."""

    def __init__(self, path: Path, split: str, first: RunFile) -> None:
        self._path, self._split, self._first = path, split, first
        self._file: RunFile | None = None

    def __call__(self, frames: range, out: Tensor) -> None:
        if self._file is None:
            file = RunFile("netcdf", self._path, self._split, self._first.variables, None)
            file.require_like(self._first)
            self._file = file
        self._file.read_into(0, frames, out)

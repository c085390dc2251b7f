"""Data sets in the layout of The Well: folders of HDF5 files, a folder for each split.

R. Ohana, M. McCabe et al., *The Well: a large-scale collection of diverse physics simulations for machine learning*,
NeurIPS 2024 Datasets and Benchmarks, arXiv:2412.00568.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pdesurrogate.data.adapters.base import LeftOut, PublishedStatistics
from pdesurrogate.data.adapters.shards import SPLIT_WORDS, in_natural_order, shards_of_splits, split_of
from pdesurrogate.data.adapters.the_well.file import Extra, Options, WellFile
from pdesurrogate.data.adapters.the_well.layout import STATISTICS
from pdesurrogate.fields.grid import Axis, Grid, Metadata
from pdesurrogate.fields.trajectory import Trajectory

_PATTERNS = ("*.hdf5", "*.h5")


class TheWell:
    """A data set in the layout of The Well; an `Adapter` with published statistics.

    Files are shards: each may hold another number of trajectories of another length. Channels are the scalar fields,
    then the components of vectors (``velocity_x``, one ``vector``) and of tensors (``D_xx``), as the layout's own
    reader numbers them. What is constant along an axis is stored without it and repeated when it is read. Frames are
    read straight into the memory of the batch, from memory maps where the file allows.

    Scalars that are constant in time are parameters, with the numbers among ``simulation_parameters`` that no scalar
    states. Fields that are constant in time and scalars that vary in time are channels like any other, unless they are
    left out; ``metadata.attributes["left_out"]`` says what was.

    An axis is periodic where the boundary conditions mark both of its ends so; its period is the number of points times
    their spacing. What is at the ends of the others is in ``metadata.attributes["boundary_conditions"]``. Coordinates
    that decrease are turned round, and the fields with them. Grids that are not Cartesian are read on their
    coordinates, with a warning, as nothing here weighs points by their area on a sphere.

    Args:
        path: the folder of a data set (``NAME``, ``NAME/data`` or ``NAME/data/train``), or a single file.
        files: pattern of the names of the files to take, where a folder holds several problems.
        split: of a single file of which neither name nor folder tells.
        constant_fields: fields that are constant in time become channels, or are left out.
        varying_scalars: scalars that vary in time become channels that are constant in space, or are left out.
        periodic: names of axes that are periodic though the files' masks do not mark them; others are as marked.
        location: where values are, which the layout does not say: on nodes or in cells.
        skip_bad_trajectories: go on without trajectories whose last frame is not finite, or zero in all channels;
            they are in `left_out`.

    Attributes:
        left_out: trajectories that were skipped.

    Raises:
        ValueError: if an option is unknown, there are no files of a split, one is damaged or not laid out as it should
            be, or files differ in fields, parameters, axes, boundary conditions or the time between frames.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        files: str = "*",
        split: str = "train",
        constant_fields: Extra = "channels",
        varying_scalars: Extra = "channels",
        periodic: Sequence[str] = (),
        location: Literal["node", "cell"] = "node",
        skip_bad_trajectories: bool = False,
    ) -> None:
        self.path = Path(path)
        for name, chosen, known in (
            ("constant_fields", constant_fields, ("channels", "leave out")),
            ("varying_scalars", varying_scalars, ("channels", "leave out")),
            ("location", location, ("node", "cell")),
        ):
            if chosen not in known:
                raise ValueError(f"Expected one of {known} as {name} but got {chosen!r}.")
        options = Options(constant_fields, varying_scalars, tuple(periodic), location)
        found = _files_of_splits(self.path, files, split)
        self._files = {split: [WellFile(file, options) for file in chosen] for split, chosen in found.items()}
        every = [file for files in self._files.values() for file in files]
        grids = [_grid_of(file) for file in every]
        intervals = [_interval_of(file) for file in every]
        first = every[0]
        for file, grid, interval in zip(every, grids, intervals, strict=True):
            _require_same(file, first, grid, grids[0], interval, intervals[0])
        self._metadata = Metadata(
            name=first.name,
            grid=grids[0],
            channels=first.channels,
            frame_interval=intervals[0],
            parameters=tuple(first.parameters),
            time_units=first.time_units,
            attributes=_attributes_of(first),
        )
        _warn_of(every)
        self.left_out: list[LeftOut] = []
        self._kept = {
            split: [(file, sample) for file in files for sample in range(file.trajectories)]
            for split, files in self._files.items()
        }
        if skip_bad_trajectories:
            self._skip()

    @property
    def metadata(self) -> Metadata:
        """What all trajectories share."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits found on disk; their ``valid`` is our ``val``."""
        return tuple(self._kept)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in the natural order of the files' names.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._kept:
            raise ValueError(f"Expected one of the splits {self.splits} of {self.path} but got {split!r}.")
        return [self._trajectory(file, sample) for file, sample in self._kept[split]]

    def published_statistics(self) -> PublishedStatistics:
        """Those of ``stats.yaml``, in the order of the channels; fields that are constant in time do not change.

        Raises:
            ValueError: if there is no such file, or it lacks a channel.
        """
        path = _statistics_path(self.path)
        stated = _load_statistics(path)
        first = next(iter(self._files.values()))[0]
        columns = {key: _statistic(stated, key, first, path) for key in ("mean", "std")}
        changes = _statistic(stated, "rms_delta", first, path) if "rms_delta" in stated else None
        return PublishedStatistics(columns["mean"], columns["std"], changes)

    def _trajectory(self, file: WellFile, sample: int) -> Trajectory:
        shape = (file.frames, len(self._metadata.channels), *file.sizes.values())
        return Trajectory(
            self._metadata, file.context(sample), file.times_of(sample), partial(file.read_into, sample), shape
        )

    def _skip(self) -> None:
        for split, members in self._kept.items():
            good = []
            for file, sample in members:
                reason = _fault(self._trajectory(file, sample))
                if reason:
                    self.left_out.append(LeftOut(f"{file.path.name}, trajectory {sample}", reason))
                else:
                    good.append((file, sample))
            self._kept[split] = good
        if self.left_out:
            listed = "; ".join(f"{name}: {reason}" for name, reason in self.left_out[:5])
            warnings.warn(
                f"{len(self.left_out)} trajectories of {self.path} are left out: {listed}", UserWarning, stacklevel=3
            )
        empty = [split for split, members in self._kept.items() if not members]
        if empty:
            raise ValueError(f"Expected a trajectory to be left in {empty[0]!r} of {self.path} but all are bad.")


def _files_of_splits(path: Path, pattern: str, split: str) -> dict[str, list[Path]]:
    if path.is_file():
        if split not in ("train", "val", "test"):
            raise ValueError(f"Expected 'train', 'val' or 'test' as split of {path} but got {split!r}.")
        absolute = path.absolute()
        return {split_of(absolute, absolute.parent.parent) or split: [path]}
    if path.is_dir() and path.name.lower() in SPLIT_WORDS:
        files = in_natural_order(file for suffix in _PATTERNS for file in path.glob(suffix) if file.is_file())
        found = {SPLIT_WORDS[path.name.lower()]: files}
    else:
        found = shards_of_splits(path, _PATTERNS)
    chosen = {split: [file for file in files if fnmatch(file.name, pattern)] for split, files in found.items()}
    chosen = {split: files for split, files in chosen.items() if files}
    if not chosen:
        named = [file.name for files in found.values() for file in files]
        raise ValueError(f"Expected files {pattern!r} in {path} but found {', '.join(named[:5]) or 'none'}.")
    return chosen


def _grid_of(file: WellFile) -> Grid:
    axes = []
    for name, axis in file.axes.items():
        units = str(axis.attributes.get("units", "1"))
        if file.sides[name] == ("PERIODIC", "PERIODIC"):
            axes.append(Axis(name, period=_period(file, name), units=units))
            continue
        axes.append(Axis(name, units=units, bounds=_bounds(axis.attributes.get("bounds"))))
    return Grid(tuple(axes))


def _bounds(stated: object) -> tuple[float, float] | None:
    """Ends of an axis, which only files of ours state."""
    if not isinstance(stated, np.ndarray) or stated.shape != (2,) or stated.dtype.kind != "f":
        return None
    return float(stated[0]), float(stated[1])


def _period(file: WellFile, name: str) -> float:
    """Points times spacing, which must be even and that of all trajectories; or what the file says, if that agrees."""
    points = file.axes[name].points
    spacings = np.diff(points)
    # Coordinates are in single precision.
    if not np.allclose(spacings, spacings.flat[0], rtol=1e-3, atol=0):
        raise ValueError(
            f"Expected even spacing along the periodic axis {name!r} of {file.path}, the same for all trajectories, "
            f"but it goes from {spacings.min():g} to {spacings.max():g}."
        )
    lines = np.atleast_2d(points)
    period = float((lines[:, -1] - lines[:, 0]).mean()) * points.shape[-1] / (points.shape[-1] - 1)
    stated = file.axes[name].attributes.get("period")
    exact = isinstance(stated, float) and abs(stated - period) <= 1e-3 * period
    return float(stated) if exact and stated is not None else period


def _interval_of(file: WellFile) -> float:
    """Between frames, the same for all trajectories."""
    intervals = []
    for sample in range(file.trajectories if file.times.ndim == 2 else 1):
        times = file.times_of(sample)
        intervals.append(float(times[1] - times[0]))
    if max(intervals) - min(intervals) > 1e-3 * intervals[0]:
        raise ValueError(
            f"Expected frames equally far apart in all trajectories of {file.path} but got from {min(intervals):g} to "
            f"{max(intervals):g}. Resample them in time first."
        )
    return intervals[0] if file.interval is None else file.interval


def _require_same(
    file: WellFile, first: WellFile, grid: Grid, first_grid: Grid, interval: float, first_interval: float
) -> None:
    """Files of one data set agree in everything that `Metadata` holds."""
    cure = "They are other problems; choose files of one: files='PATTERN'."
    periods, first_periods = ([axis.period or 0.0 for axis in each.axes] for each in (grid, first_grid))
    for what, ours, theirs in (
        ("dataset_name", first.name, file.name),
        ("points along the axes", first.sizes, file.sizes),
        ("channels", [channel.name for channel in first.channels], [channel.name for channel in file.channels]),
        ("parameters", list(first.parameters), list(file.parameters)),
        ("boundary conditions", first.sides, file.sides),
    ):
        if ours != theirs:
            raise ValueError(f"Expected {what} {ours}, as {first.path} has, but {file.path} has {theirs}. {cure}")
    if not np.allclose(periods, first_periods, rtol=1e-3, atol=0):
        raise ValueError(
            f"Expected periods {first_periods}, as {first.path} has, but {file.path} has {periods}. {cure}"
        )
    if abs(interval - first_interval) > 1e-3 * first_interval:
        raise ValueError(
            f"Expected frames {first_interval:g} apart, as in {first.path}, but those of {file.path} are {interval:g}. "
            f"{cure}"
        )


def _attributes_of(file: WellFile) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "grid_type": file.grid_type,
        "boundary_conditions": {axis: list(ends) for axis, ends in file.sides.items()},
    }
    return attributes | ({"left_out": dict(file.left_out)} if file.left_out else {})


def _warn_of(files: Sequence[WellFile]) -> None:
    first = files[0]
    for suspicion in first.suspicious:
        warnings.warn(f"{first.path}: {suspicion}.", UserWarning, stacklevel=3)
    if first.grid_type.lower() != "cartesian":
        warnings.warn(
            f"{first.path} has a grid of the type {first.grid_type!r}. It is read on its coordinates "
            f"{tuple(first.axes)}: means, norms and spectra take these for lengths.",
            UserWarning,
            stacklevel=3,
        )


def _fault(trajectory: Trajectory) -> str:
    """Why the last frame is no good, if so."""
    try:
        last = trajectory.read(len(trajectory) - 1)
    except ValueError as error:
        return str(error)
    return "" if bool((last != 0).any()) else "the last frame is zero in all channels"


def _statistics_path(path: Path) -> Path:
    for folder in (path, *path.absolute().parents[:3]):
        if (folder / STATISTICS).is_file():
            return folder / STATISTICS
    raise ValueError(
        f"Expected {STATISTICS} in {path}, beside the folder data, but it is not there. Leave the published statistics "
        "out; those of the training split are taken then."
    )


def _load_statistics(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected YAML in {path} but it cannot be read ({error}).") from error
    if not isinstance(stated, dict):
        raise ValueError(f"Expected statistics by name in {path} but got {type(stated).__name__}.")
    return stated


def _statistic(stated: Mapping[str, Any], key: str, file: WellFile, path: Path) -> Tensor:
    """One number for each channel, in their order; changes of what is constant are zero."""
    by_field = stated.get(key)
    if not isinstance(by_field, dict):
        raise ValueError(f"Expected {key!r} of each field in {path} but it has {', '.join(map(str, stated))}.")
    values: dict[str, float] = {}
    for field in file.fields:
        names = [channel.name for channel in field.channels]
        if key.endswith("_delta") and not field.time_varying:
            values |= dict.fromkeys(names, 0.0)
            continue
        try:
            numbers = np.asarray(by_field[field.stem], dtype=np.float64).ravel()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected numbers as {key!r} of {field.stem!r} in {path} but got {by_field.get(field.stem)!r}. Leave "
                "that field out, or do without the published statistics."
            ) from error
        if len(numbers) != len(names) or not np.isfinite(numbers).all():
            raise ValueError(
                f"Expected {len(names)} finite numbers as {key!r} of {field.stem!r} in {path} but got "
                f"{numbers.tolist()}."
            )
        values |= dict(zip(names, numbers.tolist(), strict=True))
    return torch.tensor([values[channel.name] for channel in file.channels], dtype=torch.float32)

"""Data sets of ours as HDF5 files in the layout of The Well, which its reader opens.

R. Ohana, M. McCabe et al., *The Well: a large-scale collection of diverse physics simulations for machine learning*,
NeurIPS 2024 Datasets and Benchmarks, arXiv:2412.00568. What is written so is data of ours in their layout, not
The Well.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.common import require_finite
from pdesurrogate.data.adapters.the_well.layout import (
    BOUNDARIES,
    CHANNEL_ORDER,
    CHANNELS,
    FIELD_GROUPS,
    INTERVAL,
    SPLIT_FOLDERS,
    STATISTICS,
    Boundary,
    Sides,
    component_names,
)
from pdesurrogate.data.archive_header import write_error
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Axis, Channel, Metadata
from pdesurrogate.fields.trajectory import Trajectory

End = Literal["wall", "open"]
_BLOCK_BYTES = 64 << 20
_WRITTEN_BY = ("written_by", "pdesurrogate")
_OF_ROOT = {"dataset_name", "grid_type", "n_spatial_dims", "n_trajectories", "simulation_parameters", CHANNEL_ORDER}


class _Field(NamedTuple):
    """One array of a file.

    Attributes:
        order: of the tensor: 0, or 1 for a vector.
        name: of the array.
        channels: numbers of the channels that are its components.
    """

    order: int
    name: str
    channels: tuple[int, ...]


def write_well(
    source: Adapter,
    directory: str | Path,
    *,
    name: str | None = None,
    boundaries: Mapping[str, End | tuple[End, End]] | None = None,
    staggered: Literal["refuse", "centers"] = "refuse",
    storage: Literal["contiguous", "frames"] = "contiguous",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write every split as ``directory/data/{train,valid,test}/NAME.hdf5``, and ``directory/stats.yaml``.

    Values are stored in float32. Channels that are one vector with a component for each axis become a vector field, all
    others scalar fields. Parameters become scalars; those that are the same in a whole file are numbers of its root
    too, listed in ``simulation_parameters``. Coordinates that differ between trajectories are stored for each. Names,
    units and places of our channels, periods and bounds of our axes travel in further attributes, so that `TheWell`
    gives back what was written.

    Statistics are those of the training split, over all its points with equal weight: mean, standard deviation and root
    mean square of each field, and of its changes from frame to frame. Where there is no training split, they are those
    of the first one.

    A file is called ``.part`` until it is whole. Files that this function wrote before are written again.

    Args:
        source: an `Archive`, or any other adapter.
        directory: of the data set; made where needed.
        name: of the data set, by default that of the source.
        boundaries: what is at the ends of axes that are not periodic, at both or at (low, high); not needed where the
            source tells (``metadata.attributes["boundary_conditions"]``).
        staggered: values on faces are refused, or taken to the centers of cells as the mean of two faces, which needs
            axes that are periodic.
        storage: ``contiguous`` arrays can be memory-mapped; in ``frames``, each is a chunk.
        progress: called with (trajectories done, trajectories in all).

    Returns:
        The files, in the order of the splits; the statistics last.

    Raises:
        ValueError: if trajectories have masks or forcings, differ in shape within a split, or are single frames, which
            the layout does not hold; an end of an axis is not stated; names cannot be stored; values are not finite;
            the directory holds other files, or a split that the source has not; or the disk is full.
    """
    metadata, directory = source.metadata, Path(directory)
    title = metadata.name if name is None else name
    layout = _Layout(metadata, title, boundaries or {}, staggered, storage)
    members = {split: source.trajectories(split) for split in source.splits}
    files = {split: directory / "data" / SPLIT_FOLDERS[split] / f"{_file_name(title)}.hdf5" for split in members}
    for split, trajectories in members.items():
        _require_uniform(trajectories, split)
    for split, folder in SPLIT_FOLDERS.items():
        _require_ours(directory / "data" / folder, files.get(split))
    counted = "train" if "train" in members else next(iter(members))
    moments = _Statistics(len(metadata.channels))
    done, total = 0, sum(map(len, members.values()))
    for split, trajectories in members.items():
        watched = moments if split == counted else None
        write = partial(layout.write, trajectories=trajectories, moments=watched)
        for _ in _write_whole(files[split], write):
            done += 1
            if progress is not None:
                progress(done, total)
    statistics = directory / STATISTICS
    _write_text(statistics, layout.statistics(moments))
    return [*files.values(), statistics]


class _Layout:
    """How the data of one source lie in a file."""

    def __init__(
        self,
        metadata: Metadata,
        name: str,
        boundaries: Mapping[str, End | tuple[End, End]],
        staggered: Literal["refuse", "centers"],
        storage: Literal["contiguous", "frames"],
    ) -> None:
        if staggered not in ("refuse", "centers") or storage not in ("contiguous", "frames"):
            raise ValueError(
                f"Expected staggered 'refuse' or 'centers' and storage 'contiguous' or 'frames' but got {staggered!r} "
                f"and {storage!r}."
            )
        self.metadata = metadata
        self.name = name
        self.storage = storage
        self.sides = _sides(metadata, boundaries)
        self.fields = _fields(metadata)
        self.faces = _faces(metadata, staggered)
        _require_names(metadata, self.fields)

    def write(self, file: h5py.File, trajectories: Sequence[Trajectory], moments: _Statistics | None) -> Iterator[None]:
        """Everything of one split; yields after each trajectory."""
        first = trajectories[0]
        self._write_root(file, len(trajectories))
        self._write_dimensions(file.create_group("dimensions"), trajectories)
        self._write_boundaries(file.create_group("boundary_conditions"), first.shape[2:])
        self._write_scalars(file, trajectories)
        arrays = self._create_fields(file, len(trajectories), first)
        block = max(1, _BLOCK_BYTES // (4 * math.prod(first.shape[1:])))
        for number, trajectory in enumerate(trajectories):
            before = None
            for start in range(0, len(trajectory), block):
                values = trajectory.read(start, min(start + block, len(trajectory)))
                require_finite(values, what=f"trajectory {number} of {self.name}", start=start)
                values = self._centered(values)
                for field, array in zip(self.fields, arrays, strict=True):
                    part = values[:, list(field.channels)].movedim(1, -1).contiguous().numpy()
                    array[number, start : start + len(values)] = part if field.order else part[..., 0]
                if moments is not None:
                    moments.add(values, before)
                before = values[-1:]
            yield

    def statistics(self, moments: _Statistics) -> str:
        """As YAML: statistics, then fields; vectors have lists."""
        import yaml

        found = {
            statistic: {
                field.name: [values[channel] for channel in field.channels]
                if field.order
                else values[field.channels[0]]
                for field in self.fields
            }
            for statistic, values in moments.values().items()
        }
        return str(yaml.safe_dump(found))

    def _centered(self, values: Tensor) -> Tensor:
        """Means of the two faces of each cell, of channels that lie on faces."""
        if not self.faces:
            return values
        values = values.clone()
        for channel, axis in self.faces.items():
            faces = values[:, channel]
            values[:, channel] = (faces + faces.roll(-1, axis + 1)) / 2
        return values

    def _write_root(self, file: h5py.File, trajectories: int) -> None:
        file.attrs["dataset_name"] = self.name
        file.attrs["grid_type"] = str(self.metadata.attributes.get("grid_type", "cartesian"))
        file.attrs["n_spatial_dims"] = self.metadata.grid.dimension
        file.attrs["n_trajectories"] = trajectories
        file.attrs[CHANNEL_ORDER] = _texts(self.metadata.channel_names)
        key, value = _WRITTEN_BY
        file.attrs[key] = value
        origin = self.metadata.attributes.get("content_hash")
        if isinstance(origin, str):
            file.attrs["source_content_hash"] = origin

    def _write_dimensions(self, group: h5py.Group, trajectories: Sequence[Trajectory]) -> None:
        axes = self.metadata.grid.axes
        group.attrs["spatial_dims"] = _texts([axis.name for axis in axes])
        times = np.stack([trajectory.times.numpy() for trajectory in trajectories]).astype(np.float64)
        exact = np.abs(times.astype(np.float32) - times).max() < 1e-3 * self.metadata.frame_interval
        array = _varying(group, "time", times.astype(np.float32 if exact else np.float64))
        array.attrs["units"] = self.metadata.time_units
        array.attrs[INTERVAL] = float(self.metadata.frame_interval)
        for number, axis in enumerate(axes):
            lines = [trajectory.context.coordinates[number].numpy() for trajectory in trajectories]
            array = _varying(group, axis.name, np.stack(lines).astype(np.float32))
            array.attrs["time_varying"] = False
            _describe(array, axis)

    def _write_boundaries(self, group: h5py.Group, sizes: tuple[int, ...]) -> None:
        for (axis, ends), size in zip(self.sides.items(), sizes, strict=True):
            if ends[0] == ends[1]:
                _condition(group, f"{axis}_{ends[0].lower()}", axis, ends[0], size, (0, -1))
                continue
            for kind, place, side in zip(ends, (0, -1), ("low", "high"), strict=True):
                _condition(group, f"{axis}_{side}_{kind.lower()}", axis, kind, size, (place,))

    def _write_scalars(self, file: h5py.File, trajectories: Sequence[Trajectory]) -> None:
        """Parameters; as numbers of the root too where the whole file has one value."""
        group = file.create_group("scalars")
        names = self.metadata.parameters
        group.attrs["field_names"] = _texts(names)
        rows = [trajectory.context.parameters for trajectory in trajectories]
        values = torch.stack([row for row in rows if row is not None]).numpy() if names else None
        common = []
        for column, name in enumerate(names):
            assert values is not None
            array = _varying(group, name, values[:, column].astype(np.float32))
            array.attrs["time_varying"] = False
            if not array.shape:
                common.append(name)
                file.attrs[name] = float(array[()])
        file.attrs["simulation_parameters"] = _texts(common)

    def _create_fields(self, file: h5py.File, trajectories: int, first: Trajectory) -> list[h5py.Dataset]:
        groups = [file.create_group(name) for name in FIELD_GROUPS]
        for order, group in enumerate(groups):
            group.attrs["field_names"] = _texts([field.name for field in self.fields if field.order == order])
        space = first.shape[2:]
        arrays = []
        for field in self.fields:
            shape = (trajectories, len(first), *space, *(len(space),) * field.order)
            chunks = (1, 1, *shape[2:]) if self.storage == "frames" else None
            array = groups[field.order].create_dataset(field.name, shape, "<f4", chunks=chunks)
            array.attrs["sample_varying"] = True
            array.attrs["time_varying"] = True
            array.attrs["dim_varying"] = np.ones(len(space), dtype=bool)
            channels = [self._described(number) for number in field.channels]
            array.attrs["units"] = channels[0].units
            for key, stored in CHANNELS.items():
                array.attrs[stored] = _texts([getattr(channel, key) for channel in channels])
            arrays.append(array)
        return arrays

    def _described(self, number: int) -> Channel:
        channel = self.metadata.channels[number]
        if number not in self.faces:
            return channel
        return Channel(channel.name, channel.units, channel.long_name, "cell", channel.vector)


class _Statistics:
    """Moments of channels and of their changes from frame to frame, in float64, from any number of blocks."""

    def __init__(self, channels: int) -> None:
        self._fields, self._changes = _Moments(channels), _Moments(channels)

    def add(self, values: Tensor, before: Tensor | None) -> None:
        """Frames ``(time, channel, *space)``; ``before`` is the one in front of them, if there is one."""
        frames = values.double()
        self._fields.add(frames)
        every = frames if before is None else torch.cat([before.double(), frames])
        if len(every) > 1:
            self._changes.add(every.diff(dim=0))

    def values(self) -> dict[str, list[float]]:
        """All that the layout asks for, one number for each channel."""
        found = {}
        for suffix, moments in (("", self._fields), ("_delta", self._changes)):
            found[f"mean{suffix}"] = moments.mean.tolist()
            found[f"std{suffix}"] = moments.variance.sqrt().tolist()
            found[f"rms{suffix}"] = (moments.mean.square() + moments.variance).sqrt().tolist()
        return found


class _Moments:
    """Mean and variance of each channel, joined block by block (Chan, Golub & LeVeque 1979)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.variance = torch.zeros(channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """``(time, channel, *space)``."""
        columns = values.movedim(1, 0).flatten(1)
        variance, mean = torch.var_mean(columns, dim=1, correction=0)
        total = self.count + columns.shape[1]
        share = columns.shape[1] / total
        step = mean - self.mean
        self.variance += share * (variance - self.variance) + share * (1 - share) * step.square()
        self.mean += share * step
        self.count = total


def _fields(metadata: Metadata) -> tuple[_Field, ...]:
    """Scalars and vectors, in the order of their first channels."""
    axes = metadata.grid.axis_names
    vectors: dict[str, list[int]] = {}
    for number, channel in enumerate(metadata.channels):
        if channel.vector:
            vectors.setdefault(channel.vector, []).append(number)
    scalars = {channel.name for channel in metadata.channels}
    whole = {}
    for vector, numbers in vectors.items():
        others = scalars - {metadata.channels[number].name for number in numbers}
        # What a reader makes of the vector must not be the name of something else.
        if len(numbers) == len(axes) and not others & {vector, *component_names(vector, 1, axes)}:
            whole[vector] = tuple(numbers)
    fields: list[_Field] = []
    for number, channel in enumerate(metadata.channels):
        if channel.vector not in whole:
            fields.append(_Field(0, channel.name, (number,)))
        elif number == whole[channel.vector][0]:
            fields.append(_Field(1, channel.vector, whole[channel.vector]))
    return tuple(fields)


def _sides(metadata: Metadata, boundaries: Mapping[str, End | tuple[End, End]]) -> dict[str, Sides]:
    unknown = sorted(set(boundaries) - {axis.name for axis in metadata.grid.axes if axis.period is None})
    if unknown:
        raise ValueError(
            f"Expected boundaries of axes that are not periodic but {metadata.name!r} has none called {unknown}."
        )
    stated = metadata.attributes.get("boundary_conditions")
    known = {**(stated if isinstance(stated, dict) else {}), **boundaries}
    return {
        axis.name: ("PERIODIC", "PERIODIC") if axis.period is not None else _ends(axis.name, known.get(axis.name))
        for axis in metadata.grid.axes
    }


def _ends(axis: str, stated: Any) -> Sides:
    words = (stated, stated) if isinstance(stated, str) else stated
    kinds: dict[str, Boundary] = {kind: kind for kind in BOUNDARIES if kind != "PERIODIC"}
    if isinstance(words, Sequence) and len(words) == 2 and all(str(word).upper() in kinds for word in words):
        return kinds[str(words[0]).upper()], kinds[str(words[1]).upper()]
    raise ValueError(
        f"Expected to be told what is at the ends of the axis {axis!r}, which is not periodic: "
        f"'wall', 'open', or one for the low and one for the high end (boundaries={{{axis!r}: 'wall'}}, --boundary "
        f"{axis}=wall); got {stated!r}."
    )


def _faces(metadata: Metadata, staggered: Literal["refuse", "centers"]) -> dict[int, int]:
    """Axis across which each channel that lies on faces is staggered."""
    names = metadata.grid.axis_names
    faces = {
        number: names.index(channel.location.removeprefix("face_"))
        for number, channel in enumerate(metadata.channels)
        if channel.location.startswith("face_")
    }
    if faces and staggered == "refuse":
        listed = [metadata.channels[number].name for number in faces]
        raise ValueError(
            f"Expected values on nodes or in cells, as the layout knows no faces, but {listed} are on faces. Have them "
            "taken to the centers of cells: staggered='centers', --staggered centers."
        )
    walled = [names[axis] for axis in faces.values() if metadata.grid.axes[axis].period is None]
    if walled:
        raise ValueError(
            f"Expected periodic axes, on which every cell has two stored faces, but {walled[0]!r} is not periodic. "
            "Interpolate the velocity to the centers of cells before it is archived."
        )
    return faces


def _require_names(metadata: Metadata, fields: Sequence[_Field]) -> None:
    names = [*(field.name for field in fields), *metadata.parameters, *metadata.grid.axis_names]
    odd = [name for name in names if not name or "/" in name or name in (".", "..")]
    taken = sorted(
        set(metadata.parameters) & {*_OF_ROOT, _WRITTEN_BY[0], "source_content_hash", *metadata.channel_names}
    )
    reserved = sorted(set(metadata.grid.axis_names) & {"time"})
    if odd or taken or reserved:
        raise ValueError(
            f"Expected names that the layout can store, without '/', other ones than those it uses itself, and other "
            f"ones for parameters than for channels, but got {[*odd, *taken, *reserved]}."
        )


def _require_uniform(trajectories: Sequence[Trajectory], split: str) -> None:
    if not trajectories:
        raise ValueError(f"Expected at least one trajectory in split {split!r} but got none.")
    first = trajectories[0]
    if len(first) < 2:
        raise ValueError(f"Expected at least two frames, as readers of the layout do, but split {split!r} has one.")
    for number, trajectory in enumerate(trajectories):
        if trajectory.shape != first.shape:
            raise ValueError(
                f"Expected trajectories of one shape in split {split!r}, as a file holds, but number {number} has "
                f"{trajectory.shape} and number 0 {first.shape}."
            )
        held = [name for name in ("mask", "forcing") if getattr(trajectory.context, name) is not None]
        if held:
            raise ValueError(
                f"Expected trajectories without {held[0]}, for which the layout has no place, but number {number} of "
                f"split {split!r} has one."
            )
        parameters = trajectory.context.parameters
        if parameters is not None and not bool(torch.isfinite(parameters).all()):
            raise ValueError(f"Expected finite parameters but trajectory {number} of split {split!r} has others.")


def _require_ours(folder: Path, path: Path | None) -> None:
    """Nothing but what this module wrote is ever written over, and no two data sets are mixed.

    ``path`` is the file that is to be written into this folder of a split, if one is.
    """
    if not folder.is_dir():
        return
    others = sorted(file.name for file in folder.iterdir() if file.suffix in (".hdf5", ".h5") and file != path)
    if others:
        raise ValueError(
            f"Expected no other data in {folder} but found {', '.join(others[:3])}. Choose another directory."
        )
    if path is None or not path.exists():
        return
    try:
        ours = Hdf5File(path).attributes().get(_WRITTEN_BY[0]) == _WRITTEN_BY[1]
    except ValueError:
        ours = False
    if not ours:
        raise ValueError(
            f"Expected a file that was written here before but {path} is another. Choose another directory."
        )


def _write_whole(path: Path, write: Callable[[h5py.File], Iterator[None]]) -> Iterator[None]:
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Aligned arrays make aligned memory maps.
        with h5py.File(part, "w", alignment_threshold=4096, alignment_interval=4096) as file:
            yield from write(file)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise write_error(error, path) from error
    except ValueError:
        part.unlink(missing_ok=True)
        raise


def _write_text(path: Path, content: str) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise write_error(error, path) from error


def _varying(group: h5py.Group, name: str, rows: npt.NDArray[Any]) -> h5py.Dataset:
    """An array that has an axis of trajectories only where they differ."""
    same = bool((rows == rows[0]).all())
    array = group.create_dataset(name, data=rows[0] if same else rows)
    array.attrs["sample_varying"] = not same
    return array


def _describe(array: h5py.Dataset, axis: Axis) -> None:
    array.attrs["units"] = axis.units
    if axis.period is not None:
        array.attrs["period"] = float(axis.period)
    if axis.bounds is not None:
        array.attrs["bounds"] = np.asarray(axis.bounds, dtype=np.float64)


def _condition(group: h5py.Group, name: str, axis: str, kind: Boundary, size: int, places: Sequence[int]) -> None:
    """One boundary condition; its mask is true at the ends where it holds, or readers take the axis as open."""
    condition = group.create_group(name)
    condition.attrs["associated_dims"] = _texts([axis])
    condition.attrs["associated_fields"] = _texts([])
    condition.attrs["bc_type"] = kind
    condition.attrs["sample_varying"] = False
    condition.attrs["time_varying"] = False
    mask = np.zeros(size, dtype=bool)
    mask[list(places)] = True
    condition.create_dataset("mask", data=mask)


def _texts(words: Sequence[str]) -> npt.NDArray[Any]:
    return np.asarray(list(words), dtype=h5py.string_dtype())


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name) or "data"

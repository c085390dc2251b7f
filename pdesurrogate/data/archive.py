"""Our own file layout: netCDF-4 that xarray opens and that training memory-maps.

One file per split (or several shards of it), dimensions ``(trajectory, time, x, y[, z])``, one contiguous variable for
each field with units and long name, CF-style globals, the recipe and the data set's metadata inside. A file under
construction is called ``*.part`` and carries a ``complete`` flag for every trajectory; it is renamed when all are set,
so nothing half-written is ever taken for whole, and an interrupted job continues where it stopped.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

SPLITS = ("train", "val", "test")
_METADATA = "pdesurrogate_metadata"
# Names the global attributes that are no text but JSON.
_JSON = "pdesurrogate_json"
_OF_FORMAT = {_METADATA, _JSON, "Conventions", "title", "_NCProperties"}
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has fsync alone
_SHARD = re.compile(r"(?P<split>[a-z]+)(\.(?P<shard>\d+)-of-(?P<shards>\d+))?\.nc")


def archive_path(directory: Path, split: str, shard: int = 0, shards: int = 1) -> Path:
    """File of one split or of one of its shards, counted from 0.

    Example:
        >>> archive_path(Path("runs"), "train").name, archive_path(Path("runs"), "train", 1, 4).name
        ('train.nc', 'train.1-of-4.nc')
    """
    return directory / (f"{split}.nc" if shards == 1 else f"{split}.{shard}-of-{shards}.nc")


class ArchiveWriter:
    """Writes trajectories into one archive file, in any order and over several runs.

    Args:
        path: final name, ending in ``.nc``; until `finish` the file is ``path`` with ``.part`` appended.
        metadata: of the data set.
        coordinates: one tensor ``(n,)`` per space axis.
        times: ``(frames,)`` physical time of each frame.
        trajectories: how many this file holds.
        numbers: ``(trajectories,)`` their numbers within the split (shards); default 0, 1, 2, ...
        parameters: ``(trajectories, parameters)`` in the order of ``metadata.parameters``.
        attributes: further global attributes; what is no text is stored as JSON. No dates: equal input, equal bytes.

    Raises:
        ValueError: if a ``.part`` file of another data set lies there, or the disk is too small.
    """

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        coordinates: Sequence[Tensor],
        times: Tensor,
        trajectories: int,
        *,
        numbers: Sequence[int] | None = None,
        parameters: Tensor | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.metadata = metadata
        space = tuple(len(points) for points in coordinates)
        self._item = (len(times), *space)
        self._channels = metadata.channel_names
        _check_header(metadata, tuple(coordinates), trajectories, parameters)
        header = _Header(metadata, tuple(coordinates), times, trajectories, numbers, parameters, attributes or {})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _require_space(self.path.parent, header.size_bytes, already=_allocated(self.part))
        if self.part.exists():
            header.require_same(self.part)
        else:
            header.write(self.part)
        with h5py.File(self.part, "r") as file:
            self._offsets = {name: file[name].id.get_offset() for name in (*self._channels, "complete")}
            self.complete = file["complete"][:].astype(bool)
        self._descriptor = os.open(self.part, os.O_RDWR)
        try:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(self._descriptor, 0, os.fstat(self._descriptor).st_size)
        except OSError as error:
            os.close(self._descriptor)
            raise _space_error(error, self.part) from error

    def write(self, first: int, values: Tensor) -> None:
        """Store trajectories ``first, first + 1, ...``: ``values (n, time, channel, *space)``, physical units.

        Raises:
            ValueError: if shapes do not fit or the disk is full. Finished trajectories stay.
        """
        expected = (self._item[0], len(self._channels), *self._item[1:])
        if tuple(values.shape[1:]) != expected or first < 0 or first + len(values) > len(self.complete):
            raise ValueError(
                f"Expected trajectories {expected} with numbers in 0..{len(self.complete) - 1} "
                f"but got {tuple(values.shape[1:])} for {first}..{first + len(values) - 1}."
            )
        item_bytes = 4 * int(np.prod(self._item))
        try:
            for channel, name in enumerate(self._channels):
                data = np.ascontiguousarray(values[:, :, channel].detach().cpu().numpy(), dtype="<f4")
                _pwrite_all(self._descriptor, data, self._offsets[name] + first * item_bytes)
            _sync(self._descriptor)
            flags = np.ones(len(values), dtype=np.int8)
            _pwrite_all(self._descriptor, flags, self._offsets["complete"] + first)
            _sync(self._descriptor)
        except OSError as error:
            raise _space_error(error, self.part) from error
        self.complete[first : first + len(values)] = True

    def finish(self) -> Path:
        """Rename the file to its final name once every trajectory is there.

        Raises:
            ValueError: if some trajectories were not written.
        """
        if not self.complete.all():
            missing = np.flatnonzero(~self.complete).tolist()
            raise ValueError(f"Expected all trajectories to be written, but {missing} are missing in {self.part}.")
        self.close()
        try:
            os.replace(self.part, self.path)
        except FileNotFoundError:
            if not self.path.exists():  # else another process finished the same file
                raise
        return self.path

    def close(self) -> None:
        """Close the file; an unfinished one can be continued by a new writer."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Archive:
    """Reads a directory of archive files, or one file; an `Adapter`.

    A split is ``SPLIT.nc`` or all of its shards ``SPLIT.0-of-4.nc`` ... together, in the order of the trajectories'
    numbers. Contiguous variables are memory-mapped; chunked or compressed ones (written by other tools) are read
    through h5py. Handles are opened at the first read in each process.

    Args:
        path: the directory, or a single ``.nc`` file, whose name gives the split.

    Raises:
        ValueError: if there is no archive, a file is truncated, incomplete or not laid out as this page says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files = {split: tuple(_File(file) for file in files) for split, files in _find(self.path).items()}
        first = next(iter(self._files.values()))[0]
        self._metadata = first.metadata
        for files in self._files.values():
            for file in files:
                file.require_same_data(first)
            numbers = [number for file in files for number in file.numbers]
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"Expected every trajectory once in {self.path} but some numbers occur in two files.")

    @property
    def metadata(self) -> Metadata:
        """What all trajectories share; ``attributes`` hold the recipe and the content hash."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits found on disk."""
        return tuple(self._files)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in the order of their numbers.

        Raises:
            ValueError: if the split is not there.
        """
        if split not in self._files:
            raise ValueError(f"Expected one of the splits {self.splits} of {self.path} but got {split!r}.")
        numbered = [pair for file in self._files[split] for pair in zip(file.numbers, file.trajectories(), strict=True)]
        return [trajectory for _, trajectory in sorted(numbered, key=lambda pair: pair[0])]


class _File:
    """One archive file: header read at once, frames when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, Any] = {}
        self._owner = -1
        try:
            with h5py.File(path, "r") as file:
                self._read_header(file)
        except OSError as error:
            raise ValueError(
                f"Expected a netCDF-4 archive but {path} cannot be opened ({error}). It may be truncated; "
                "generate, convert or copy it again."
            ) from error

    def _read_header(self, file: h5py.File) -> None:
        if _METADATA not in file.attrs:
            raise ValueError(
                f"Expected an archive with the attribute {_METADATA!r} but {self.path} has none. "
                "Convert foreign files with `pdesurrogate datasets convert`."
            )
        self.metadata = Metadata.from_dict(json.loads(_text(file.attrs[_METADATA])))
        coded = _text(file.attrs.get(_JSON, "")).split()
        for name in sorted(set(file.attrs) - _OF_FORMAT):
            text = _text(file.attrs[name])
            self.metadata.attributes[name] = json.loads(text) if name in coded else text
        _require_variables(file, self.metadata, self.path)
        dims = ("trajectory", "time", *self.metadata.grid.axis_names)
        for name in self.metadata.channel_names:
            found = tuple(Path(dim[0].name).name if len(dim) else "?" for dim in file[name].dims)
            if found != dims:
                raise ValueError(
                    f"Expected axes {dims} for {name!r} in {self.path} but got {found}. "
                    f"Transpose it, for example xarray.Dataset.transpose{dims}, and save again."
                )
        self._shape = file[self.metadata.channel_names[0]].shape
        complete = file["complete"][:] if "complete" in file else np.ones(self._shape[0])
        if not complete.all():
            raise ValueError(f"Expected a finished archive but {self.path} lacks {int((complete == 0).sum())} of them.")
        self.numbers = file["trajectory"][:].tolist() if "trajectory" in file else list(range(self._shape[0]))
        self._times = torch.from_numpy(np.asarray(file["time"][:], dtype=np.float64))
        if not bool((self._times.diff() > 0).all()):
            raise ValueError(f"Expected increasing times in {self.path} but got {self._times.tolist()[:4]} ...")
        axes = self.metadata.grid.axis_names
        self._coordinates = tuple(torch.from_numpy(np.asarray(file[axis][:], dtype=np.float32)) for axis in axes)
        self.metadata.grid.check_coordinates(self._coordinates)
        parameters = [np.asarray(file[name][:], dtype=np.float32) for name in self.metadata.parameters]
        self._parameters = torch.from_numpy(np.stack(parameters, -1)) if parameters else None

    def require_same_data(self, other: _File) -> None:
        """Refuse a file of another data set, grid or length, which a split or a directory must not mix.

        Raises:
            ValueError: naming what differs.
        """
        other.metadata.require_same_fields(self.metadata, what=str(self.path))
        hashes = [file.metadata.attributes.get("content_hash") for file in (self, other)]
        if hashes[0] != hashes[1]:
            raise ValueError(
                f"Expected one data set in a directory but {self.path.name} and {other.path.name} come from different "
                "recipes or sources; generate or convert them anew, each into a directory of its own."
            )
        same = self._shape[2:] == other._shape[2:] and all(
            torch.equal(ours, theirs) for ours, theirs in zip(self._coordinates, other._coordinates, strict=True)
        )
        if not same:
            raise ValueError(
                f"Expected one grid in a directory but {self.path.name} has {self._shape[2:]} points and "
                f"{other.path.name} {other._shape[2:]}, or other coordinates."
            )

    def trajectories(self) -> list[Trajectory]:
        shape = (self._shape[1], len(self.metadata.channels), *self._shape[2:])
        return [
            Trajectory(
                metadata=self.metadata,
                context=Context(
                    self._coordinates, parameters=None if self._parameters is None else self._parameters[index]
                ),
                times=self._times,
                read_into=partial(self._read_into, index),
                shape=shape,
            )
            for index in range(self._shape[0])
        ]

    def _read_into(self, index: int, start: int, out: Tensor) -> None:
        if self._owner != os.getpid():  # a forked worker must not share its parent's HDF5 handle and lock
            self._open()
        stop = start + out.shape[0]
        buffer = out.numpy()
        for channel, name in enumerate(self.metadata.channel_names):
            buffer[:, channel] = self._arrays[name][index, start:stop]

    def _open(self) -> None:
        handle = h5py.File(self.path, "r")
        size = self.path.stat().st_size
        self._arrays = {}
        mapped = True
        for name in self.metadata.channel_names:
            variable = handle[name]
            offset = variable.id.get_offset()
            if offset is None:
                self._arrays[name] = variable
                mapped = False
                continue
            if offset + variable.id.get_storage_size() > size:
                raise ValueError(
                    f"Expected {offset + variable.id.get_storage_size()} bytes but {self.path} has {size}."
                )
            self._arrays[name] = np.memmap(self.path, variable.dtype, mode="r", offset=offset, shape=variable.shape)
        if mapped:
            handle.close()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}, "_owner": -1}


class _Header:
    """Everything of a file but its frames."""

    def __init__(
        self,
        metadata: Metadata,
        coordinates: tuple[Tensor, ...],
        times: Tensor,
        trajectories: int,
        numbers: Sequence[int] | None,
        parameters: Tensor | None,
        attributes: dict[str, Any],
    ) -> None:
        self.metadata = metadata
        self.coordinates = coordinates
        self.times = times
        self.trajectories = trajectories
        self.numbers = list(range(trajectories)) if numbers is None else list(numbers)
        self.parameters = parameters
        self.attributes = {
            "Conventions": "CF-1.11",
            "title": metadata.name,
            _METADATA: json.dumps({**metadata.to_dict(), "attributes": {}}, sort_keys=True),
        } | {key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()}
        coded = " ".join(sorted(key for key, value in attributes.items() if not isinstance(value, str)))
        if coded:
            self.attributes[_JSON] = coded

    @property
    def size_bytes(self) -> int:
        points = int(np.prod([len(c) for c in self.coordinates]))
        return 4 * self.trajectories * len(self.times) * len(self.metadata.channels) * points

    def require_same(self, part: Path) -> None:
        try:
            with h5py.File(part, "r") as file:
                same = all(_text(file.attrs.get(key, "")) == value for key, value in self.attributes.items())
                same = same and all(self._matches(file, name, values) for name, values in self.variables())
                sizes = (self.trajectories, len(self.times), *(len(points) for points in self.coordinates))
                same = same and all(file[channel].shape == sizes for channel in self.metadata.channel_names)
        except (OSError, KeyError):
            same = False
        if not same:
            raise ValueError(
                f"Expected to continue the same data set, but {part} was begun with other settings. "
                "Delete it, or choose another output directory."
            )

    def variables(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Names and values of everything but fields and flags."""
        yield "trajectory", np.asarray(self.numbers)
        yield "time", np.asarray(self.times)
        for axis, points in zip(self.metadata.grid.axes, self.coordinates, strict=True):
            yield axis.name, np.asarray(points)
        for column, name in enumerate(self.metadata.parameters):
            assert self.parameters is not None
            yield name, np.asarray(self.parameters[:, column])

    @staticmethod
    def _matches(file: h5py.File, name: str, values: npt.NDArray[Any]) -> bool:
        return bool(np.array_equal(file[name][:], values.astype(file[name].dtype)))

    def write(self, part: Path) -> None:
        import netCDF4

        # Aligned variables make aligned memory maps; nothing is laid out on disk until a first write.
        netCDF4.set_alignment(4096, 4096)
        temporary = part.with_name(f"{part.name}.{os.getpid()}.header")
        axes = self.metadata.grid.axis_names
        try:
            with netCDF4.Dataset(temporary, "w", format="NETCDF4") as file:
                file.setncatts(self.attributes)
                sizes = [self.trajectories, len(self.times), *(len(points) for points in self.coordinates)]
                for name, size in zip(("trajectory", "time", *axes), sizes, strict=True):
                    file.createDimension(name, size)
                _variable(file, "trajectory", "i4", ("trajectory",), self.numbers, long_name="trajectory number")
                _variable(
                    file, "time", "f8", ("time",), self.times, axis="T", units=self.metadata.time_units,
                    long_name="time",
                )  # fmt: skip
                for axis, points in zip(self.metadata.grid.axes, self.coordinates, strict=True):
                    _variable(
                        file, axis.name, "f8", (axis.name,), points, axis=axis.name.upper(), units=axis.units,
                        long_name=f"{axis.name} coordinate",
                    )  # fmt: skip
                for column, name in enumerate(self.metadata.parameters):
                    assert self.parameters is not None
                    _variable(file, name, "f8", ("trajectory",), self.parameters[:, column], units="1", long_name=name)
                _variable(
                    file, "complete", "i1", ("trajectory",), np.zeros(self.trajectories, np.int8),
                    long_name="1 where the trajectory is whole",
                )  # fmt: skip
                blank = np.zeros((len(self.times), *sizes[2:]), np.float32)
                for channel in self.metadata.channels:
                    variable = file.createVariable(
                        channel.name, "f4", ("trajectory", "time", *axes), contiguous=True, fill_value=False
                    )
                    variable.setncatts({"units": channel.units, "long_name": channel.long_name or channel.name})
                    variable.location = channel.location
                    variable[-1] = blank
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _space_error(error, part) from error
        os.replace(temporary, part)


def _require_variables(file: h5py.File, metadata: Metadata, path: Path) -> None:
    """All that the metadata name must be there, and fields must be plain floating-point numbers."""
    names = ("time", *metadata.grid.axis_names, *metadata.parameters, *metadata.channel_names)
    # A dimension without a variable is stored as a blank scale whose NAME says so.
    blank = "This is a netCDF dimension but not a netCDF variable"
    missing = [name for name in names if name not in file or _text(file[name].attrs.get("NAME", "")).startswith(blank)]
    if missing:
        raise ValueError(
            f"Expected the variables {names} in {path} but {missing} are missing; found {sorted(file)}. "
            "Generate or convert the data again."
        )
    for name in metadata.channel_names:
        if file[name].dtype.kind != "f" or {"scale_factor", "add_offset"} & set(file[name].attrs):
            raise ValueError(
                f"Expected {name!r} in {path} as plain floating-point numbers but it is packed ({file[name].dtype}); "
                "save it without scale_factor and add_offset."
            )


def _text(attribute: Any) -> str:
    """netCDF stores ASCII as bytes and the rest as text."""
    return attribute.decode() if isinstance(attribute, bytes) else str(attribute)


def _variable(file: Any, name: str, kind: str, dims: tuple[str, ...], values: Any, **attributes: str) -> None:
    variable = file.createVariable(name, kind, dims, contiguous=True, fill_value=False)
    variable.setncatts(attributes)
    variable[:] = values.numpy() if isinstance(values, Tensor) else values


def _check_header(
    metadata: Metadata, coordinates: tuple[Tensor, ...], trajectories: int, parameters: Tensor | None
) -> None:
    if trajectories < 1:
        raise ValueError(f"Expected at least one trajectory but got {trajectories}.")
    metadata.grid.check_coordinates(coordinates)
    expected = (trajectories, len(metadata.parameters))
    if (parameters is None) != (not metadata.parameters) or (
        parameters is not None and tuple(parameters.shape) != expected
    ):
        got = None if parameters is None else tuple(parameters.shape)
        raise ValueError(f"Expected parameters {expected}, in the order {metadata.parameters}, but got {got}.")


def _find(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        match = _SHARD.fullmatch(path.name)
        return {match["split"] if match else path.stem: [path]}
    if not path.is_dir():
        raise ValueError(f"Expected an archive file or directory but {path} does not exist.")
    found: dict[str, dict[tuple[int, int], Path]] = {}
    for file in sorted(path.glob("*.nc")):
        match = _SHARD.fullmatch(file.name)
        if match and match["split"] in SPLITS:
            shard = (int(match["shard"] or 0), int(match["shards"] or 1))
            found.setdefault(match["split"], {})[shard] = file
    if not found:
        unfinished = [file.name for file in path.glob("*.part")]
        hint = f" Unfinished: {unfinished}; run `generate` again to complete them." if unfinished else ""
        raise ValueError(f"Expected train.nc, val.nc or test.nc in {path} but found none.{hint}")
    for split, shards in found.items():
        counts = {count for _, count in shards}
        if len(counts) > 1:
            raise ValueError(f"Expected one set of shards for {split!r} in {path} but found {sorted(counts)} mixed.")
        missing = sorted(set(range(counts.pop())) - {number for number, _ in shards})
        if missing:
            raise ValueError(f"Expected all shards of {split!r} in {path} but {missing} are missing.")
    ordered = [split for split in SPLITS if split in found]
    return {split: [found[split][key] for key in sorted(found[split])] for split in ordered}


def _pwrite_all(descriptor: int, data: npt.NDArray[Any], offset: int) -> None:
    view = data.data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


def _require_space(directory: Path, needed: int, already: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed - already > free:
        raise ValueError(
            f"Expected {needed / 1e6:.0f} MB of free space for {directory} but there are {free / 1e6:.0f} MB. "
            "Free some, or choose another output directory."
        )


def _space_error(error: OSError, part: Path) -> ValueError:
    cause = "no space left on the device" if error.errno == errno.ENOSPC else str(error)
    return ValueError(
        f"Could not write {part}: {cause}. What is finished is kept; free some space and run the same command again."
    )

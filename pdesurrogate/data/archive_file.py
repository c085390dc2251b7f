"""One archive file, read: its header at once, frames when asked for."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.archive_header import (
    DROPPED,
    JSON,
    LEFT_OUT,
    MASK,
    METADATA,
    WHOLE,
    case_axis,
    require_increasing,
    text,
)
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

_OF_FORMAT = {METADATA, JSON, DROPPED, "Conventions", "title", "_NCProperties"}


class ArchiveFile:
    """One file of an archive.

    Attributes:
        metadata: with the file's further global attributes.
        numbers: of all trajectories within the split, dropped ones too, in the order of the file.
        dropped: why trajectories were left out, by number.

    Raises:
        ValueError: if it is truncated, incomplete or not laid out as `archive` says.
    """

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
        if METADATA not in file.attrs:
            raise ValueError(
                f"Expected an archive with the attribute {METADATA!r} but {self.path} has none. "
                "Convert foreign files with `pdesurrogate datasets convert`."
            )
        self.metadata = Metadata.from_dict(json.loads(text(file.attrs[METADATA])))
        coded = text(file.attrs.get(JSON, "")).split()
        for name in sorted(set(file.attrs) - _OF_FORMAT):
            found = text(file.attrs[name])
            self.metadata.attributes[name] = json.loads(found) if name in coded else found
        _require_variables(file, self.metadata, self.path)
        axes = self.metadata.grid.axis_names
        for name in self.metadata.channel_names:
            self._require_dims(file, name, ("trajectory", "time", *axes))
        self._shape = file[self.metadata.channel_names[0]].shape
        self._read_flags(file)
        self._times = torch.from_numpy(np.asarray(file["time"][:], dtype=np.float64))
        if not bool((self._times.diff() > 0).all()):
            raise ValueError(f"Expected increasing times in {self.path} but got {self._times.tolist()[:4]} ...")
        self._coordinates = tuple(torch.from_numpy(np.asarray(file[axis][:], dtype=np.float32)) for axis in axes)
        self.metadata.grid.check_coordinates(self._coordinates)
        parameters = [np.asarray(file[name][:], dtype=np.float32) for name in self.metadata.parameters]
        self._parameters = torch.from_numpy(np.stack(parameters, -1)) if parameters else None
        own = {*self.metadata.channel_names, *self.metadata.parameters}
        self._masks = self._read_masks(file) if MASK in file and MASK not in own else None
        varying = {case_axis(axis) for axis in axes} - own
        self._case_coordinates = self._read_case_coordinates(file) if varying & set(file) else None

    def _read_flags(self, file: h5py.File) -> None:
        flags = file["complete"][:] if "complete" in file else np.full(self._shape[0], WHOLE)
        known = (flags == WHOLE) | (flags == LEFT_OUT)
        if not known.all():
            raise ValueError(f"Expected a finished archive but {self.path} lacks {int((~known).sum())} of them.")
        self._kept = np.flatnonzero(flags == WHOLE).tolist()
        self.numbers = file["trajectory"][:].tolist() if "trajectory" in file else list(range(self._shape[0]))
        reasons = json.loads(text(file.attrs.get(DROPPED, "{}")))
        dropped = [self.numbers[index] for index in np.flatnonzero(flags == LEFT_OUT)]
        missing = [number for number in dropped if str(number) not in reasons]
        if missing:
            raise ValueError(f"Expected a reason for each dropped trajectory in {self.path} but {missing} have none.")
        self.dropped = {number: str(reasons[str(number)]) for number in dropped}

    def _read_masks(self, file: h5py.File) -> Tensor:
        """``(trajectory, *space)``, true where there is fluid."""
        self._require_dims(file, MASK, ("trajectory", *self.metadata.grid.axis_names))
        values = self._of_trajectories(file, MASK, self._shape[2:])
        if not ((values == 0) | (values == 1)).all():
            raise ValueError(
                f"Expected a mask of 0 and 1 in {self.path} but it holds {np.unique(values)[:5].tolist()}."
            )
        return torch.from_numpy(values.astype(bool))

    def _read_case_coordinates(self, file: h5py.File) -> tuple[Tensor, ...]:
        """One tensor ``(trajectory, n)`` for each axis."""
        lines = []
        for axis, points in zip(self.metadata.grid.axis_names, self._shape[2:], strict=True):
            if case_axis(axis) not in file:
                raise ValueError(f"Expected {case_axis(axis)!r} beside those of the other axes in {self.path}.")
            self._require_dims(file, case_axis(axis), ("trajectory", axis))
            values = self._of_trajectories(file, case_axis(axis), (points,))
            lines.append(torch.from_numpy(np.asarray(values, dtype=np.float32)))
        try:
            require_increasing(self.metadata.grid, lines)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        return tuple(lines)

    def _of_trajectories(self, file: h5py.File, name: str, space: tuple[int, ...]) -> npt.NDArray[Any]:
        if file[name].shape != (self._shape[0], *space):
            raise ValueError(
                f"Expected {name!r} with shape {(self._shape[0], *space)} in {self.path} but got {file[name].shape}."
            )
        values: npt.NDArray[Any] = file[name][:]
        return values

    def _require_dims(self, file: h5py.File, name: str, dims: tuple[str, ...]) -> None:
        found = tuple(Path(dim[0].name).name if len(dim) else "?" for dim in file[name].dims)
        if found != dims:
            raise ValueError(
                f"Expected axes {dims} for {name!r} in {self.path} but got {found}. "
                f"Transpose it, for example xarray.Dataset.transpose{dims}, and save again."
            )

    def require_same_data(self, other: ArchiveFile) -> None:
        """Refuse a file of another data set, grid or length, which a split or a directory must not mix.

        Files of cases may differ in their coordinates.

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
        if (self._masks is None) != (other._masks is None):
            raise ValueError(
                f"Expected a mask in all files of a directory or in none, but of {self.path.name} and "
                f"{other.path.name} only one has it; generate or convert them anew."
            )
        differ = self._case_coordinates is not None or other._case_coordinates is not None
        same = self._shape[2:] == other._shape[2:] and (
            differ
            or all(
                torch.equal(ours, theirs) for ours, theirs in zip(self._coordinates, other._coordinates, strict=True)
            )
        )
        if not same:
            raise ValueError(
                f"Expected one grid in a directory but {self.path.name} has {self._shape[2:]} points and "
                f"{other.path.name} {other._shape[2:]}, or other coordinates."
            )

    def trajectories(self) -> dict[int, Trajectory]:
        """Those that were not dropped, lazy, by number."""
        shape = (self._shape[1], len(self.metadata.channels), *self._shape[2:])
        return {
            self.numbers[index]: Trajectory(
                metadata=self.metadata,
                context=self._context(index),
                times=self._times,
                read_into=partial(self._read_into, index),
                shape=shape,
            )
            for index in self._kept
        }

    def _context(self, index: int) -> Context:
        lines = self._case_coordinates
        return Context(
            self._coordinates if lines is None else tuple(line[index] for line in lines),
            parameters=None if self._parameters is None else self._parameters[index],
            mask=None if self._masks is None else self._masks[index],
        )

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


def _require_variables(file: h5py.File, metadata: Metadata, path: Path) -> None:
    """All that the metadata name must be there, and fields must be plain floating-point numbers."""
    names = ("time", *metadata.grid.axis_names, *metadata.parameters, *metadata.channel_names)
    # A dimension without a variable is stored as a blank scale whose NAME says so.
    blank = "This is a netCDF dimension but not a netCDF variable"
    missing = [name for name in names if name not in file or text(file[name].attrs.get("NAME", "")).startswith(blank)]
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

"""Everything of an archive file but its frames: names, how it is written, and whether a begun file agrees."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.fields.grid import Grid, Metadata

METADATA = "pdesurrogate_metadata"
# Names the global attributes that are no text but JSON.
JSON = "pdesurrogate_json"
# Why trajectories were dropped, by number; JSON.
DROPPED = "pdesurrogate_dropped"
MASK = "mask"

# What the flag of a trajectory says.
UNWRITTEN, WHOLE, LEFT_OUT = 0, 1, 2


def case_axis(name: str) -> str:
    """Variable that holds every trajectory's own coordinates along an axis.

    Example:
        >>> case_axis("x")
        'x_of_trajectory'
    """
    return f"{name}_of_trajectory"


def text(attribute: Any) -> str:
    """An attribute as text: netCDF stores ASCII as bytes and the rest as text."""
    return attribute.decode() if isinstance(attribute, bytes) else str(attribute)


def write_error(error: OSError, path: Path) -> ValueError:
    """What to tell when a file cannot be written."""
    cause = "no space left on the device" if error.errno == errno.ENOSPC else str(error)
    return ValueError(
        f"Could not write {path}: {cause}. What is finished is kept; free some space and run the same command again."
    )


def require_increasing(grid: Grid, lines: Sequence[Tensor]) -> None:
    """Refuse coordinates of cases, one tensor ``(trajectories, n)`` for each axis, that are those of no grid.

    Raises:
        ValueError: naming the first trajectory of which a coordinate is not finite, does not increase, or lies outside
            one period.
    """
    for index in range(len(lines[0])):
        own = tuple(line[index] for line in lines)
        try:
            if not all(bool(torch.isfinite(line).all()) for line in own):
                raise ValueError("Expected finite coordinates.")
            grid.check_coordinates(own)
        except ValueError as error:
            raise ValueError(f"Coordinates of trajectory {index}: {error}") from error


@dataclass
class Header:
    """What a file states; arguments as those of `ArchiveWriter`.

    Raises:
        ValueError: if something does not fit the metadata or the number of trajectories.
    """

    metadata: Metadata
    coordinates: tuple[Tensor, ...]
    times: Tensor
    trajectories: int
    numbers: list[int]
    parameters: Tensor | None
    masks: Tensor | None
    case_coordinates: tuple[Tensor, ...] | None
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._require_valid()
        self._attributes = {
            "Conventions": "CF-1.11",
            "title": self.metadata.name,
            METADATA: json.dumps({**self.metadata.to_dict(), "attributes": {}}, sort_keys=True),
        } | {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.attributes.items()}
        coded = " ".join(sorted(key for key, value in self.attributes.items() if not isinstance(value, str)))
        if coded:
            self._attributes[JSON] = coded

    @property
    def space(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(points) for points in self.coordinates)

    @property
    def size_bytes(self) -> int:
        """Of the frames."""
        frames = self.trajectories * len(self.times) * len(self.metadata.channels)
        return 4 * frames * int(np.prod(self.space))

    def require_same(self, part: Path) -> None:
        """Refuse to go on with a file that was begun for something else.

        Raises:
            ValueError: if it was.
        """
        try:
            with h5py.File(part, "r") as file:
                same = all(text(file.attrs.get(key, "")) == value for key, value in self._attributes.items())
                variables = dict(self._variables())
                same = same and all(self._matches(file, name, values) for name, values in variables.items())
                sizes = (self.trajectories, len(self.times), *self.space)
                same = same and all(file[channel].shape == sizes for channel in self.metadata.channel_names)
                theirs = set(file) - set(self.metadata.channel_names)
                same = same and not (theirs & set(self._names_of_cases())) - set(variables)
        except (OSError, KeyError):
            same = False
        if not same:
            raise ValueError(
                f"Expected to continue the same data set, but {part} was begun with other settings. "
                "Delete it, or choose another output directory."
            )

    def write(self, part: Path) -> None:
        """Make the file, with room for all frames.

        Raises:
            ValueError: if the disk is full.
        """
        import netCDF4

        # Aligned variables make aligned memory maps; nothing is laid out on disk until a first write.
        netCDF4.set_alignment(4096, 4096)
        temporary = part.with_name(f"{part.name}.{os.getpid()}.header")
        try:
            with netCDF4.Dataset(temporary, "w", format="NETCDF4") as file:
                file.setncatts(self._attributes)
                names = ("trajectory", "time", *self.metadata.grid.axis_names)
                for name, size in zip(names, (self.trajectories, len(self.times), *self.space), strict=True):
                    file.createDimension(name, size)
                self._write_lines(file)
                self._write_cases(file)
                _variable(
                    file, "complete", "i1", ("trajectory",), np.zeros(self.trajectories, np.int8),
                    long_name="1 where the trajectory is whole",
                )  # fmt: skip
                self._write_fields(file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_error(error, part) from error
        os.replace(temporary, part)

    def _write_lines(self, file: Any) -> None:
        """What has one value for each trajectory, frame or point of an axis."""
        _variable(file, "trajectory", "i4", ("trajectory",), self.numbers, long_name="trajectory number")
        _variable(file, "time", "f8", ("time",), self.times, axis="T", units=self.metadata.time_units, long_name="time")
        for axis, points in zip(self.metadata.grid.axes, self.coordinates, strict=True):
            _variable(
                file, axis.name, "f8", (axis.name,), points, axis=axis.name.upper(), units=axis.units,
                long_name=f"{axis.name} coordinate",
            )  # fmt: skip
        for column, name in enumerate(self.metadata.parameters):
            assert self.parameters is not None
            _variable(file, name, "f8", ("trajectory",), self.parameters[:, column], units="1", long_name=name)

    def _write_cases(self, file: Any) -> None:
        """What trajectories have of their own: coordinates and masks."""
        if self.case_coordinates is not None:
            for axis, points in zip(self.metadata.grid.axes, self.case_coordinates, strict=True):
                _variable(
                    file, case_axis(axis.name), "f8", ("trajectory", axis.name), points, units=axis.units,
                    long_name=f"{axis.name} coordinate of each trajectory",
                )  # fmt: skip
        if self.masks is not None:
            _variable(
                file, MASK, "i1", ("trajectory", *self.metadata.grid.axis_names), self.masks.to(torch.int8),
                long_name="1 where there is fluid", flag_values=np.array([0, 1], np.int8), flag_meanings="solid fluid",
            )  # fmt: skip

    def _write_fields(self, file: Any) -> None:
        dims = ("trajectory", "time", *self.metadata.grid.axis_names)
        blank = np.zeros((len(self.times), *self.space), np.float32)
        for channel in self.metadata.channels:
            variable = file.createVariable(channel.name, "f4", dims, contiguous=True, fill_value=False)
            variable.setncatts({"units": channel.units, "long_name": channel.long_name or channel.name})
            variable.location = channel.location
            if self.case_coordinates is not None:  # as CF names auxiliary coordinates
                variable.coordinates = " ".join(map(case_axis, self.metadata.grid.axis_names))
            variable[-1] = blank

    def _variables(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Names and values of everything but fields and flags."""
        yield "trajectory", np.asarray(self.numbers)
        yield "time", np.asarray(self.times)
        for axis, points in zip(self.metadata.grid.axes, self.coordinates, strict=True):
            yield axis.name, np.asarray(points)
        for column, name in enumerate(self.metadata.parameters):
            assert self.parameters is not None
            yield name, np.asarray(self.parameters[:, column])
        if self.case_coordinates is not None:
            for axis, points in zip(self.metadata.grid.axes, self.case_coordinates, strict=True):
                yield case_axis(axis.name), np.asarray(points)
        if self.masks is not None:
            yield MASK, np.asarray(self.masks)

    def _names_of_cases(self) -> tuple[str, ...]:
        return (MASK, *map(case_axis, self.metadata.grid.axis_names))

    @staticmethod
    def _matches(file: h5py.File, name: str, values: npt.NDArray[Any]) -> bool:
        return bool(np.array_equal(file[name][:], values.astype(file[name].dtype)))

    def _require_valid(self) -> None:
        metadata, trajectories = self.metadata, self.trajectories
        if trajectories < 1:
            raise ValueError(f"Expected at least one trajectory but got {trajectories}.")
        metadata.grid.check_coordinates(self.coordinates)
        expected = (trajectories, len(metadata.parameters))
        if (self.parameters is None) != (not metadata.parameters) or (
            self.parameters is not None and tuple(self.parameters.shape) != expected
        ):
            got = None if self.parameters is None else tuple(self.parameters.shape)
            raise ValueError(f"Expected parameters {expected}, in the order {metadata.parameters}, but got {got}.")
        if self.masks is not None:
            if self.masks.dtype != torch.bool or tuple(self.masks.shape) != (trajectories, *self.space):
                raise ValueError(
                    f"Expected boolean masks {(trajectories, *self.space)} but got {tuple(self.masks.shape)} of "
                    f"{self.masks.dtype}."
                )
            self._require_free((MASK,))
        if self.case_coordinates is not None:
            wanted = [(trajectories, points) for points in self.space]
            found = [tuple(points.shape) for points in self.case_coordinates]
            if found != wanted:
                raise ValueError(
                    f"Expected coordinates of cases {wanted}, for {metadata.grid.axis_names}, but got {found}."
                )
            require_increasing(metadata.grid, self.case_coordinates)
            self._require_free(tuple(map(case_axis, metadata.grid.axis_names)))

    def _require_free(self, names: tuple[str, ...]) -> None:
        taken = sorted(set(names) & {*self.metadata.channel_names, *self.metadata.parameters})
        if taken:
            raise ValueError(f"Expected channels and parameters with other names than {taken}; rename them.")


def _variable(file: Any, name: str, kind: str, dims: tuple[str, ...], values: Any, **attributes: Any) -> None:
    variable = file.createVariable(name, kind, dims, contiguous=True, fill_value=False)
    variable.setncatts(attributes)
    variable[:] = values.numpy() if isinstance(values, Tensor) else values

"""Vorticity files of the Fourier neural operator paper: MATLAB ``.mat``, version 5 or 7.3.

Li et al., *Fourier neural operator for parametric partial differential equations*, arXiv:2010.08895, section 5.3.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import (
    frame_times,
    lazy_trajectories,
    require_file,
    require_finite,
    require_split,
    splits_in_file_order,
    square_box,
    vorticity_metadata,
)
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory

Array = npt.NDArray[Any]


class FnoMat:
    """One ``.mat`` file with ``a (sample, x, y)``, ``u (sample, x, y, time)`` and ``t (1, time)``; an `Adapter`.

    ``a`` is the vorticity at time 0, and ``u`` the frames after it at the times ``t``. The frames of a trajectory are
    those of ``u``, so that numbers of frames mean what they mean in the papers; with ``initial_frame`` the field ``a``
    is put before them, which is possible only where ``t`` starts one frame interval after 0.

    Version 7.3 files are HDF5 and are read lazily, a sample and its neighbours on disk at a time; version 5 files are
    read whole at the first frame. Neither is quick at random access: convert them once with ``pdesurrogate datasets
    convert``.

    Args:
        path: the file.
        viscosity: of the file's runs; not stored inside, so tell it to have it as a parameter.
        length: side of the box.
        frame_interval: time between frames; only for a file without ``t``.
        train: trajectories at the start of the file, 1000 as in the paper.
        val: trajectories cut from the end of those.
        test: trajectories at the end of the file, 200 as in the paper.
        initial_frame: whether ``a`` is the first frame.

    Raises:
        ValueError: if the file is truncated, lacks a variable, or its axes or times are not as above. Values are
            checked when they are read: NaN and infinity are refused.
    """

    def __init__(
        self,
        path: str | Path,
        viscosity: float | None = None,
        length: float = 1.0,
        frame_interval: float | None = None,
        train: int = 1000,
        val: int = 0,
        test: int = 200,
        initial_frame: bool = False,
    ) -> None:
        self.path = Path(path)
        require_file(self.path)
        self._file: _MatFile = _Version73(self.path) if h5py.is_hdf5(self.path) else _Version5(self.path)
        shapes = self._file.shapes
        _check_layout(shapes, self.path, needs_times=frame_interval is None)
        samples, nx, ny, frames = shapes["u"]
        stored = torch.from_numpy(self._file.read_times()) if "t" in shapes else None
        times = frame_times(stored, frames, frame_interval, frame_interval or 0.0, what=f"variable t of {self.path}")
        interval = float(times[1] - times[0]) if frame_interval is None else frame_interval
        self.initial_frame = initial_frame
        if initial_frame:
            if abs(float(times[0]) - interval) > 1e-3 * interval:
                raise ValueError(
                    f"Expected t to start one frame interval ({interval:.6g}) after the initial condition at 0 but it "
                    f"starts at {float(times[0]):.6g} in {self.path}. Use initial_frame=False."
                )
            times = torch.cat([times.new_zeros(1), times])
        self._times = times
        grid, self._coordinates = square_box((nx, ny), length, what=f"variable u of {self.path}")
        self._splits = splits_in_file_order(samples, train, val, test)
        self._viscosity = viscosity
        self._metadata = vorticity_metadata(
            self.path, grid, "vorticity", interval, viscosity, {"initial_frame": str(initial_frame).lower()}
        )

    @property
    def metadata(self) -> Metadata:
        """One vorticity channel on a periodic square."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one trajectory."""
        return tuple(self._splits)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in file order.

        Raises:
            ValueError: if there is no such split.
        """
        samples = require_split(self._splits, split, path=self.path)
        return lazy_trajectories(
            samples, self._metadata, self._coordinates, self._times, self._viscosity, self._read_into
        )

    def _read_into(self, sample: int, start: int, out: Tensor) -> None:
        target, first = out, start
        if self.initial_frame:
            if start == 0:
                out[0, 0] = torch.from_numpy(self._file.read_initial(sample))
                target = out[1:]
            first = max(start - 1, 0)
        if len(target):
            target[:, 0] = torch.from_numpy(self._file.read_frames(sample, first, first + len(target)))
        require_finite(out, what=f"sample {sample} of {self.path}", start=start)


def _check_layout(shapes: dict[str, tuple[int, ...]], path: Path, needs_times: bool) -> None:
    missing = [name for name in ("a", "u", "t") if name not in shapes and (name != "t" or needs_times)]
    if missing:
        raise ValueError(
            f"Expected the variables a, u and t in {path} but {missing} are missing; found {sorted(shapes)}. "
            "Is it another file of the collection? Only the Navier-Stokes files have this layout."
        )
    initial, frames = shapes["a"], shapes["u"]
    if len(initial) != 3 or len(frames) != 4:
        raise ValueError(f"Expected a (sample, x, y) and u (sample, x, y, time) in {path} but got {initial}, {frames}.")
    if initial != frames[:3]:
        raise ValueError(
            f"Expected u (sample, x, y, time) to begin with the shape of a, {initial}, in {path} but got {frames}. "
            "Its axes are in another order; transpose u and save it again."
        )


def _require_real(dtype: np.dtype[Any], name: str, path: Path) -> None:
    if dtype.kind not in ("fiu" if name == "t" else "f"):
        raise ValueError(f"Expected real numbers in variable {name} of {path} but got {dtype}.")


class _MatFile(Protocol):
    """Arrays in the order that MATLAB shows, whatever lies on disk."""

    shapes: dict[str, tuple[int, ...]]

    def read_times(self) -> Array:
        """Variable ``t``."""
        ...

    def read_initial(self, sample: int) -> Array:
        """Field ``a (x, y)`` of a sample."""
        ...

    def read_frames(self, sample: int, start: int, stop: int) -> Array:
        """Fields ``u (time, x, y)`` of a sample."""
        ...


class _Version5:
    """Read through scipy, whole, at the first use."""

    def __init__(self, path: Path) -> None:
        from scipy.io import whosmat

        self.path = path
        _require_whole_version_5(path)
        self.shapes: dict[str, tuple[int, ...]] = {
            name: tuple(shape) for name, shape, _ in self._guard(partial(whosmat, path))
        }
        self._arrays: dict[str, Array] = {}

    def read_times(self) -> Array:
        return self._load("t")

    def read_initial(self, sample: int) -> Array:
        field: Array = self._load("a")[sample]
        return field

    def read_frames(self, sample: int, start: int, stop: int) -> Array:
        fields: Array = self._load("u")[sample, start:stop]
        return fields

    def _load(self, name: str) -> Array:
        from scipy.io import loadmat

        if name not in self._arrays:
            values = self._guard(partial(loadmat, self.path, variable_names=[name]))[name]
            _require_real(values.dtype, name, self.path)
            # MATLAB stores the sample index fastest; a trajectory should lie in one piece.
            values = np.moveaxis(values, -1, 1) if name == "u" else values
            self._arrays[name] = np.ascontiguousarray(values, dtype=np.float64 if name == "t" else np.float32)
        return self._arrays[name]

    def _guard(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:  # damaged bytes make the parser raise errors of any kind
            raise ValueError(
                f"Expected a MATLAB file of version 5 or 7.3 but {self.path} cannot be read "
                f"({type(error).__name__}: {error}). It may be damaged; download it again."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}


def _require_whole_version_5(path: Path) -> None:
    """Walk over the top-level elements, 8 bytes of type and size each, without reading them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if order is None:
            raise ValueError(
                f"Expected a MATLAB file of version 5 or 7.3 but {path} has neither signature. "
                "It may be truncated or an error page; download it again."
            )
        position = 128
        while position < size:
            file.seek(position)
            tag = file.read(8)
            position += 8 + (struct.unpack(f"{order}II", tag)[1] if len(tag) == 8 else 0)
            if position > size or len(tag) < 8:
                raise ValueError(
                    f"Expected at least {position} bytes but {path} has {size}; it is truncated. Get it again."
                )


class _Version73:
    """Read through h5py, which shows the axes reversed: ``u (time, y, x, sample)``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: h5py.File | None = None
        self._owner = -1
        self._held: Array = np.empty(0, np.float32)
        self._held_range = (-1, -1, -1)
        try:
            with h5py.File(path, "r") as file:
                arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
                self.shapes: dict[str, tuple[int, ...]] = {name: item.shape[::-1] for name, item in arrays.items()}
                for name in {"a", "u", "t"} & arrays.keys():
                    _require_real(arrays[name].dtype, name, path)
                self._block = _samples_at_once(arrays["u"]) if len(self.shapes.get("u", ())) == 4 else 1
        except OSError as error:
            raise self._damaged(error) from error

    def read_times(self) -> Array:
        return np.asarray(self._read("t", ()), dtype=np.float64)

    def read_initial(self, sample: int) -> Array:
        return np.ascontiguousarray(self._read("a", (slice(None), slice(None), sample)).T, dtype=np.float32)

    def read_frames(self, sample: int, start: int, stop: int) -> Array:
        # Samples lie next to each other on disk: one alone is read number by number, a block in runs.
        first = sample - sample % self._block
        if self._held_range != (first, start, stop):
            where = (slice(start, stop), slice(None), slice(None), slice(first, first + self._block))
            self._held = np.ascontiguousarray(self._read("u", where).transpose(3, 0, 2, 1), dtype=np.float32)
            self._held_range = (first, start, stop)
        fields: Array = self._held[sample - first]
        return fields

    def _read(self, name: str, where: tuple[Any, ...]) -> Array:
        if self._handle is None or self._owner != os.getpid():  # a forked worker must not share its parent's handle
            self._handle = h5py.File(self.path, "r")
            self._owner = os.getpid()
        try:
            values: Array = self._handle[name][where]
        except OSError as error:
            raise self._damaged(error) from error
        return values

    def _damaged(self, error: OSError) -> ValueError:
        return ValueError(
            f"Expected a whole MATLAB 7.3 (HDF5) file but {self.path} cannot be read ({error}). "
            "It may be truncated; download it again."
        )

    def __getstate__(self) -> dict[str, Any]:
        empty = np.empty(0, np.float32)
        return {**self.__dict__, "_handle": None, "_owner": -1, "_held": empty, "_held_range": (-1, -1, -1)}


def _samples_at_once(frames: h5py.Dataset) -> int:
    """Neighbours to read with a sample: those of its chunk, which HDF5 unpacks anyway; at most 256 MB of them."""
    *rest, samples = frames.shape
    wanted: int = 64 if frames.chunks is None else frames.chunks[-1]
    affordable: int = (1 << 28) // (4 * max(1, math.prod(rest)))
    return max(1, min(wanted, int(samples), affordable))

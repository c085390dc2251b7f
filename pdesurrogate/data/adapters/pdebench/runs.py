"""Runs within HDF5 files: arrays whose axes are some indices, time, space and perhaps components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.bad_trajectories import first_fault, listed, require_sound, warn_of_left_out
from pdesurrogate.data.adapters.base import LeftOut
from pdesurrogate.data.adapters.pdebench.sampling import Sampling
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

# What is unpacked at a time where frames are stored in chunks.
_BLOCK_BYTES = 64 << 20


class Variable(NamedTuple):
    """Where a run's values of one or several channels lie.

    Attributes:
        array: its name in the file.
        before: indices in front of the time axis, such as the number of the run.
        components: length of the axis behind those of space; 0 where there is none.
    """

    array: str
    before: tuple[int, ...] = ()
    components: int = 0

    @property
    def channels(self) -> int:
        """How many it holds."""
        return max(self.components, 1)


class Run(NamedTuple):
    """One trajectory in a file.

    Attributes:
        number: within the set, in the order of the files.
        label: which one of its file it is, for messages.
        file: that it is in.
        variables: its channels, in order.
        parameters: in the order of the metadata's.
        forcing: of the first channels, an array without a time axis; zero for the rest.
        fault: why it cannot be used, where the header says so.
    """

    number: int
    label: str
    file: Hdf5File
    variables: tuple[Variable, ...]
    parameters: tuple[float, ...] = ()
    forcing: Variable | None = None
    fault: str = ""

    @property
    def name(self) -> str:
        """Label and path."""
        return f"{self.label} of {self.file.path}"


class RunSet:
    """Runs of one shape on one grid, in splits; an `Adapter`. Frames are read when they are asked for, and no others.

    Args:
        path: of the file or folder, for messages.
        metadata: of all runs.
        coordinates: ``(n,)`` for each axis, of the points kept.
        sampling: which stored frames and points are kept.
        splits: runs of each split.
        skip_bad_trajectories: go on without runs that are faulty, or whose last frame holds zeros only, or a value that
            is not finite, or cannot be read. One frame of each run is looked at for that. Otherwise such frames are
            refused when they are read. The other runs stay in their splits.

    Attributes:
        left_out: runs that were skipped, and why.

    Raises:
        ValueError: if a run is faulty by what the file says of it, or none is left.
    """

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        coordinates: tuple[Tensor, ...],
        sampling: Sampling,
        splits: Mapping[str, Sequence[Run]],
        *,
        skip_bad_trajectories: bool,
    ) -> None:
        self.path = path
        self._metadata = metadata
        self._coordinates = coordinates
        self._sampling = sampling
        self.left_out: list[LeftOut] = []
        every = sorted((run for runs in splits.values() for run in runs), key=lambda run: run.number)
        usable = {run.number for run in every if self._usable(run, skip_bad_trajectories)}
        good = {split: [run for run in runs if run.number in usable] for split, runs in splits.items()}
        self._runs = {split: good[split] for split in ("train", "val", "test") if good.get(split)}
        if not self._runs:
            raise ValueError(
                f"Expected at least one good trajectory in {path} but all are bad: {listed(self.left_out)}."
            )
        warn_of_left_out(path, self.left_out, stacklevel=3)

    @property
    def metadata(self) -> Metadata:
        """What all trajectories share."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one trajectory."""
        return tuple(self._runs)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in the order of the file.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._runs:
            raise ValueError(
                f"Expected one of the splits {self.splits} of {self.path} but got {split!r}. "
                "Give that split a size when the set is opened."
            )
        shape = (self._sampling.frames, len(self._metadata.channels), *(len(points) for points in self._coordinates))
        times = self._sampling.times
        return [
            Trajectory(self._metadata, self._context(run), times, partial(self._read_into, run), shape)
            for run in self._runs[split]
        ]

    def _context(self, run: Run) -> Context:
        parameters = torch.tensor(run.parameters, dtype=torch.float32) if run.parameters else None
        if run.forcing is None:
            return Context(self._coordinates, parameters)
        forcing = torch.zeros(len(self._metadata.channels), *(len(points) for points in self._coordinates))
        values = run.file.read(run.forcing.array, run.forcing.before)[None]
        self._place(values, run.forcing, forcing[None, : run.forcing.channels].numpy())
        if not bool(forcing.isfinite().all()):
            raise ValueError(
                f"Expected a finite forcing but {run.forcing.array!r} of {run.name} holds NaN or infinity."
            )
        return Context(self._coordinates, parameters, forcing=forcing)

    def _usable(self, run: Run, skip: bool) -> bool:
        fault = run.fault
        if fault and not skip:
            raise ValueError(
                f"Expected whole trajectories, each once, but {run.name} {fault}. skip_bad_trajectories=True goes on "
                "without such ones."
            )
        if skip and not fault:
            last = torch.empty(1, len(self._metadata.channels), *(len(points) for points in self._coordinates))
            try:
                self._read_unchecked(run, self._sampling.frames - 1, last)
                found = first_fault(last)
                fault = f"holds {found[1]} in its last frame" if found else ""
            except ValueError as error:
                fault = f"cannot be read ({error})"
        if fault:
            self.left_out.append(LeftOut(f"{run.label} of {run.file.path.name}", fault))
        return not fault

    def _read_into(self, run: Run, start: int, out: Tensor) -> None:
        self._read_unchecked(run, start, out)
        require_sound(out, what=run.name, start=start)

    def _read_unchecked(self, run: Run, start: int, out: Tensor) -> None:
        first = 0
        for variable in run.variables:
            self._fill(run.file, variable, start, out[:, first : first + variable.channels].numpy())
            first += variable.channels

    def _fill(self, file: Hdf5File, variable: Variable, start: int, target: npt.NDArray[Any]) -> None:
        """Kept frames from ``start`` on into ``target (time, component, *space)``, in blocks if they are unpacked."""
        array = file.array(variable.array)
        step, count = self._sampling.step, len(target)
        bytes_of_frame = math.prod(array.shape[len(variable.before) + 1 :]) * array.dtype.itemsize
        block = count if array.offset is not None else max(1, _BLOCK_BYTES // bytes_of_frame)
        for begun in range(0, count, block):
            frames = min(block, count - begun)
            stored = (start + begun) * step
            chosen = slice(stored, stored + (frames - 1) * step + 1, step)
            values = file.read(variable.array, (*variable.before, chosen))
            self._place(values, variable, target[begun : begun + frames])

    def _place(self, values: npt.NDArray[Any], variable: Variable, target: npt.NDArray[Any]) -> None:
        """Stored ``(time, *space[, component])``, every n-th point, into ``(time, component, *space)``."""
        kept = values[(slice(None), *(slice(None, None, self._sampling.every),) * len(self._coordinates))]
        # What is too large for float32 becomes infinite, and is refused.
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = np.moveaxis(kept, -1, 1) if variable.components else kept[:, None]

"""What the authors' loaders make of a tree, as an adapter: their tasks in our training and evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pdesurrogate.data.adapters.base import PublishedStatistics
from pdesurrogate.data.adapters.cfdbench.published import PUBLISHED
from pdesurrogate.data.adapters.cfdbench.reference import (
    FRAME_PARAMETERS,
    NO_PARAMETERS,
    ReferenceCase,
    Version,
    moving_pairs,
    normalized_parameters,
    reference_folders,
    reference_frames,
    reference_stride,
    require_numbers,
    require_published,
    steady_limit,
)
from pdesurrogate.data.adapters.cfdbench.splits import CaseFolder
from pdesurrogate.data.adapters.cfdbench.tree import Case, MappedCases, open_arrays, read_json
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

Task = Literal["pairs", "frames"]
SubsetName = Literal["bc", "prop", "geo"]

_FIELDS = (
    Channel("velocity_x", "m/s", "velocity along x", "cell", "velocity"),
    Channel("velocity_y", "m/s", "velocity along y", "cell", "velocity"),
)


class _Told(NamedTuple):
    """A case, what its file says, and what a network is told of it: numbers under the authors' names."""

    case: Case
    said: dict[str, Any]
    names: tuple[str, ...]
    context: Context


class ReferenceCfdBench:
    """A published tree as the authors' loaders give it (`reference`), fault for fault; an `Adapter`, read lazily.

    Frames have x in front of y, as all of ours, and theirs else: rows of boundary values, masks, splits, parameters in
    their order with their constants. Coordinates are numbers of columns and rows.

    With the task ``pairs`` neighboring frames of a trajectory are an input and its label: a case of ``n`` pairs that
    are ``s`` stored frames apart is ``s`` trajectories, which begin at its first ``s`` frames, or ``n`` if that is
    fewer. So windows of two frames are the items of `ReferencePairs`, those of a case in another order. With the task
    ``frames`` a trajectory is a whole case and time is the number of the frame, as in `ReferenceFrames`; masks, which
    the authors do not use there, are left out.

    Args:
        path: the folder above the problems, or the problem's own.
        problem: one of the four that are published.
        task: ``pairs`` for the autoregressive one, ``frames`` for the other.
        subsets: any of bc, prop and geo.
        version: of their code.
        norm_props: density and viscosity of the parameters with their constants.
        norm_bc: the driving velocity with theirs.
        delta_time: between the frames of a pair in seconds, by their idea of the time between stored frames.

    Raises:
        ValueError: as their data sets here, or if cases differ in their grid or in what they say, naming the case.
    """

    def __init__(
        self,
        path: str | Path,
        problem: Literal["cavity", "tube", "dam", "cylinder"],
        task: Task = "pairs",
        subsets: Sequence[SubsetName] = ("prop", "bc", "geo"),
        version: Version = "old",
        norm_props: bool = True,
        norm_bc: bool = True,
        delta_time: float = 0.1,
    ) -> None:
        require_published(problem, version)
        if task not in ("pairs", "frames"):
            raise ValueError(f"Expected the task 'pairs' or 'frames' but got {task!r}.")
        self.path = Path(path)
        self.problem, self.task, self.version = problem, task, version
        self.stride = reference_stride(problem, delta_time) if task == "pairs" else 1
        self._constants = norm_props, norm_bc
        self._maps = MappedCases()
        self._pairs: dict[CaseFolder, int] = {}
        folders = reference_folders(self.path, problem, task, subsets)
        self._cases = {split: [self._told(each) for each in own] for split, own in folders.items() if own}
        self._metadata = self._describe()

    @property
    def metadata(self) -> Metadata:
        """Velocities; parameters under the authors' names."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one case."""
        return tuple(self._cases)

    @property
    def cells(self) -> tuple[int, int]:
        """Along x and y, rows of boundary values included."""
        return _size(next(iter(self._cases.values()))[0])

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories; with ``pairs`` the frames of all cases are looked at once, for where they are steady.

        Raises:
            ValueError: if there is no such split, a frame holds NaN, or no pair is left.
        """
        if self.task == "frames":
            return self.stored(split)
        found = []
        for told in self._of(split):
            pairs = self._pairs_of(told)
            for start in range(min(self.stride, pairs)):
                found.append(self._trajectory(told, start, self.stride, 1 + len(range(start, pairs, self.stride))))
        if not found:
            raise ValueError(
                f"Expected a pair of frames {self.stride} apart that differ but the cases of {split!r} have none: they "
                "are too short, or steady from the start. Choose another delta_time, or use CfdBench."
            )
        return found

    def stored(self, split: str) -> list[Trajectory]:
        """Every case of a split as a whole, all its stored frames, steady ones too.

        Raises:
            ValueError: if there is no such split.
        """
        return [self._trajectory(told, 0, 1, told.case.frames) for told in self._of(split)]

    def published_statistics(self) -> PublishedStatistics:
        """Mean zero and deviation one: the authors' networks see velocities as they are."""
        return PublishedStatistics(torch.zeros(2), torch.ones(2), None)

    def _of(self, split: str) -> list[_Told]:
        if split not in self._cases:
            raise ValueError(f"Expected one of the splits {self.splits} of {self.path} but got {split!r}.")
        return self._cases[split]

    def _told(self, folder: Path) -> _Told:
        said = read_json(folder / "case.json")
        velocity = open_arrays(folder)
        frames, rows, columns = velocity[0].shape
        name = CaseFolder(folder.parent.name, folder.name)
        case = Case(name, folder, self.problem, {}, (), frames, (columns, rows))
        features, parameters = reference_frames(
            (velocity[0][:1], velocity[1][:1]), said, folder, self.problem, self.version
        )
        values = self._values(parameters, folder)
        numbers = torch.tensor(list(values.values()), dtype=torch.float32)
        mask = None if self.task == "frames" else torch.from_numpy(features[0, 2].T > 0)
        places = tuple(torch.arange(size, dtype=torch.float32) for size in features.shape[:1:-1])
        return _Told(case, said, tuple(values), Context(places, numbers, mask))

    def _values(self, parameters: dict[str, Any], folder: Path) -> dict[str, float]:
        """In the authors' order: for frames a list of theirs, for pairs that of the file."""
        names = FRAME_PARAMETERS[self.problem]
        if self.task == "pairs":
            require_numbers(parameters, folder)
            names = tuple(name for name in parameters if name not in NO_PARAMETERS)
        values = normalized_parameters(parameters, self.problem, *self._constants, folder)
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(f"Expected the keys {', '.join(missing)} in {folder / 'case.json'} but found {[*values]}.")
        return {name: float(values[name]) for name in names}

    def _pairs_of(self, told: _Told) -> int:
        case = told.case
        if case.name not in self._pairs:

            def frame_at(number: int) -> Tensor:
                return torch.from_numpy(self._features(told, slice(number, number + 1)).features[0]).float()

            pairs = moving_pairs(frame_at, case.frames, self.stride, steady_limit(self.problem), case.folder)
            self._pairs[case.name] = sum(1 for _ in pairs)
        return self._pairs[case.name]

    def _features(self, told: _Told, frames: slice) -> ReferenceCase:
        u, v = self._maps.of(told.case)
        return reference_frames((u[frames], v[frames]), told.said, told.case.folder, self.problem, self.version)

    def _trajectory(self, told: _Told, first: int, stride: int, frames: int) -> Trajectory:
        interval = 1.0 if self.task == "frames" else PUBLISHED[self.problem].loader_interval
        times = interval * (first + stride * torch.arange(frames, dtype=torch.float64))
        shape = (frames, len(_FIELDS), *_size(told))
        return Trajectory(self._metadata, told.context, times, partial(self._read_into, told, first, stride), shape)

    def _read_into(self, told: _Told, first: int, stride: int, start: int, out: Tensor) -> None:
        begin = first + stride * start
        read = self._features(told, slice(begin, begin + stride * (len(out) - 1) + 1, stride))
        out[:] = torch.from_numpy(read.features[:, :2]).transpose(-1, -2)

    def _describe(self) -> Metadata:
        every = [told for cases in self._cases.values() for told in cases]
        names, size = every[0].names, _size(every[0])
        for told in every:
            if told.names != names:
                raise ValueError(
                    f"Expected the numbers {', '.join(names)} in case.json of every case, in one order, but "
                    f"{told.case.name} has {', '.join(told.names)}: the authors' vector of parameters would "
                    "change from batch to batch. Mend the files."
                )
            if _size(told) != size:
                raise ValueError(
                    f"Expected one grid but case {every[0].case.name} has {size} points and {told.case.name} "
                    f"{_size(told)}; read them apart."
                )
        interval = self.stride * PUBLISHED[self.problem].loader_interval if self.task == "pairs" else 1.0
        options = {
            "problem": self.problem,
            "task": self.task,
            "version": self.version,
            "stored_frames_per_frame": self.stride,
            "norm_props": self._constants[0],
            "norm_bc": self._constants[1],
            "cases": {split: [str(told.case.name) for told in cases] for split, cases in self._cases.items()},
        }
        content = [[str(told.case.name), told.said, told.case.frames, told.case.cells] for told in every]
        digest = hashlib.sha256(json.dumps([content, options], sort_keys=True).encode())
        return Metadata(
            name=f"cfdbench_{self.problem}",
            grid=Grid((Axis("x"), Axis("y"))),
            channels=_FIELDS,
            frame_interval=interval,
            parameters=names,
            time_units="s" if self.task == "pairs" else "1",
            attributes={**options, "content_hash": digest.hexdigest()},
        )


def _size(told: _Told) -> tuple[int, int]:
    x, y = told.context.coordinates
    return len(x), len(y)

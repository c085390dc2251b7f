"""CFDBench: flows in a cavity, a tube, over a dam and past a cylinder; a folder for each case.

Luo, Chen & Zhang, *CFDBench: A Large-Scale Benchmark for Machine Learning Methods in Fluid Dynamics*, arXiv:2310.05963.
The card ``datasets/cfdbench`` says what the files are and what is wrong with them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.cfdbench.checks import look_at
from pdesurrogate.data.adapters.cfdbench.problems import PROBLEMS, Box
from pdesurrogate.data.adapters.cfdbench.published import PUBLISHED_CELLS, SUBSETS, reynolds_number
from pdesurrogate.data.adapters.cfdbench.reference import reference_obstacle
from pdesurrogate.data.adapters.cfdbench.splits import CaseFolder, ListedSplit, ShuffledSplit, SplitRule
from pdesurrogate.data.adapters.cfdbench.tree import (
    Case,
    LeftOut,
    MappedCases,
    find_cases,
    listed,
    read_case,
    recipe_of_tree,
)
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

ProblemName = Literal["cavity", "tube", "dam", "step", "cylinder"]
SubsetName = Literal["bc", "prop", "geo"]
Mask = Literal["physical", "reference", "none"]
BoundaryRows = Literal["none", "reference"]
Starts = Literal["first", "all"]

# Cases whose last frame is looked at when a tree is opened.
PROBED_CASES = 16
# In frames: how far an interval may be from a multiple.
_INTERVAL_TOLERANCE = 1e-6
# Frames that are searched for NaN at a time.
_SEARCHED_FRAMES = 64
_CURE = "Mend the case or remove it, or pass skip_bad_cases=True to go on without it."
_FIELDS = (
    Channel("velocity_x", "m/s", "velocity along x", "cell", "velocity"),
    Channel("velocity_y", "m/s", "velocity along y", "cell", "velocity"),
)


class _Margins(NamedTuple):
    """Rows of cells around the stored ones: at the left, below, above."""

    left: int
    below: int
    above: int


class CfdBench:
    """All cases of one problem in a tree ``PROBLEM/SUBSET/caseNNNN``; an `Adapter`.

    Frames are velocities ``(time, 2, x, y)`` at the centers of even cells, read through memory maps when they are asked
    for. Each trajectory has the coordinates of its own case, its parameters and its mask; frames differ in number from
    case to case. Where all boxes are the same the axes have bounds. Trajectories come in the order of their split, and
    `cases` names them. Parameters, the same for both tasks:

    ========  ====================================================================================================
    cavity    lid_velocity, density, dynamic_viscosity, width, height
    tube      inlet_velocity, density, dynamic_viscosity, length, height
    dam       inlet_velocity, density, dynamic_viscosity, barrier_height, barrier_width, length, height
    step      inlet_velocity, density, dynamic_viscosity, step_height, step_width, step_position, length, height
    cylinder  inlet_velocity, density, dynamic_viscosity, radius, x_min, x_max, y_min, y_max
    ========  ====================================================================================================

    ``step`` is not of the published set: one fluid over a barrier, written with the keys of the dam.

    When a tree is opened the last frames of some cases are looked at: `findings` says where the lid, the stream, the
    speed or the spacing are not what the files say, and a warning repeats it. Values are checked when they are read;
    with ``skip_bad_cases`` all of them are read once at the start.

    Args:
        path: the folder above the problems, or the problem's own.
        problem: which.
        subsets: boundary conditions, fluid properties, geometries, in any combination.
        split: which cases are for what; by default that of the archive which a tree of our own was written from, else a
            tenth of each subset to validate and a tenth to test.
        interval: between frames of a trajectory in seconds, a multiple of that of the stored frames; by default that.
        stored_interval: between stored frames; by default what the files say, else what the paper says.
        starts: with ``all``, training trajectories of an interval of n stored frames begin at each of the first n, so
            that every pair of frames that far apart is there; otherwise, and for other splits, at the first.
        mask: ``physical`` is false in barrier and cylinder, by the centers of cells, and absent where there is neither;
            ``reference`` is what the authors' loader has, in which no obstacle was ever masked; or ``none``.
        boundary_rows: the rows that the authors' loader puts around the frames of tube, dam and cylinder: one column at
            the left with the driving velocity at the inlet, and rows of zeros below and above. Masks are false there.
            The dam's inlet is 0.1 m high, as the paper says, whereas theirs is as high as the barrier: the two are the
            same where the barrier is 0.1 m high, which those of the geometries are not.
        cells: along x and y; another number in a file is refused.
        frames: that many of each trajectory, its first ones, so that all are of one length, as those of an archive are;
            shorter cases are refused by name. By default all.
        skip_bad_cases: go on without cases that cannot be read, or are too short for ``frames``, and list them in
            `left_out`.

    Raises:
        ValueError: if the tree, a subset or a key is missing, an array cannot be mapped or has another shape, numbers
            are impossible, the interval is no multiple, a case is shorter than ``frames``, or no case is left; the case
            is named.
    """

    def __init__(
        self,
        path: str | Path,
        problem: ProblemName,
        subsets: Sequence[SubsetName] = ("prop", "bc", "geo"),
        split: SplitRule | None = None,
        interval: float | None = None,
        stored_interval: float | None = None,
        starts: Starts = "first",
        mask: Mask = "physical",
        boundary_rows: BoundaryRows = "none",
        cells: tuple[int, int] = PUBLISHED_CELLS,
        frames: int | None = None,
        skip_bad_cases: bool = False,
    ) -> None:
        _require_choices(problem, subsets, starts, mask, boundary_rows)
        self.path = Path(path)
        self.problem = problem
        if frames is not None and frames < 2:
            raise ValueError(f"Expected at least two frames of a trajectory but got frames={frames}.")
        self._mask, self._starts, self._wanted = mask, starts, frames
        padded = boundary_rows == "reference" and PROBLEMS[problem].inlet_height is not None
        self._margins = _Margins(1, 1, 1) if padded else _Margins(0, 0, 0)
        self._maps = MappedCases()
        found, unnumbered = find_cases(self.path, problem, subsets)
        _warn(unnumbered, "Folders of cases without a number were skipped:")
        self._left_out: list[LeftOut] = []
        cases = self._readable(found, (int(cells[0]), int(cells[1])), skip_bad_cases)
        self._require_some(cases)
        unknown = sorted({key for case in cases for key in case.unknown})
        _warn(unknown, "Keys of case.json that are not known were ignored:")
        stored = _stored_interval(cases, problem, stored_interval)
        self._stride = exact_stride(stored if interval is None else interval, stored)
        cases = self._long_enough(cases)
        if frames is not None:
            cases = self._of_length(cases, frames, skip_bad_cases)
        if skip_bad_cases:
            cases = self._finite(cases)
        self._require_some(cases)
        _warn(self._left_out, "Cases were left out:", most=len(self._left_out))
        # By all folders, so that a case that is left out moves no other one to another split.
        stored_split = _stored_split(cases) if split is None else None
        rule = split or stored_split or ShuffledSplit()
        assigned = rule.assign([name for name, _ in found])
        kept = {case.name: case for case in cases}
        self._splits = {
            split: chosen for split, names in assigned.items() if (chosen := [kept[n] for n in names if n in kept])
        }
        self._metadata = self._describe(cases, stored, rule)
        self._findings = look_at(self._last_frames(cases), self._solid)
        _warn(self._findings, "What the data look like does not fit:", most=len(self._findings))

    @property
    def metadata(self) -> Metadata:
        """Velocity at the centers of cells; its attributes say which cases, intervals and splits these are.

        A tree that was written from an archive has that one's ``recipe``, so that its solver is known.
        """
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one case."""
        return tuple(self._splits)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Cases that are not in the set, with the reason: too short for the interval, or bad ones that were skipped."""
        return tuple(self._left_out)

    @property
    def findings(self) -> tuple[str, ...]:
        """What does not fit between frames and ``case.json``, a sentence each; empty where all is well."""
        return self._findings

    def cases(self, split: str) -> tuple[Case, ...]:
        """The case of each trajectory of a split.

        Raises:
            ValueError: if there is no such split.
        """
        return tuple(case for case, _ in self._runs(split))

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split.

        Raises:
            ValueError: if there is no such split.
        """
        return [self._trajectory(case, start) for case, start in self._runs(split)]

    def of_subset(self, subset: SubsetName) -> CfdBench:
        """The same data with the cases of one subset alone, in the splits that they have here; files stay shared.

        See `data.subsets.Subset` for data sets of any kind; here the cases can be asked for too.

        Raises:
            ValueError: if there are none.
        """
        part = copy.copy(self)
        own = {split: [case for case in cases if case.name.subset == subset] for split, cases in self._splits.items()}
        part._splits = {split: cases for split, cases in own.items() if cases}
        if not part._splits:
            raise ValueError(f"Expected a subset among those that were read but there is no case of {subset!r}.")
        return part

    def summary(self) -> str:
        """Cases and frames by split and subset, the range of Reynolds numbers, and what was found; ``print`` it."""
        lines = [f"{self.problem}: a frame each {self._metadata.frame_interval:g} s, {self._stride} stored frames"]
        for split, cases in self._splits.items():
            for subset in SUBSETS:
                own = [case for case in cases if case.name.subset == subset]
                if own:
                    numbers = [reynolds_number(self.problem, case.parameters) for case in own]
                    frames = [self._frames(case, 0) for case in own]
                    lines.append(
                        f"{split:6}{subset:5}{len(own):4} cases of {min(frames)} to {max(frames)} frames, "
                        f"Re {min(numbers):.3g} to {max(numbers):.3g}"
                    )
        return "\n".join([*lines, *self.findings, *(f"left out: {case}" for case in self.left_out)])

    def _runs(self, split: str) -> list[tuple[Case, int]]:
        """Cases of a split and the stored frame that each trajectory begins with."""
        if split not in self._splits:
            raise ValueError(
                f"Expected one of the splits {self.splits} of {self.path} but got {split!r}. Read more subsets, or "
                "give a split rule with a larger share."
            )
        starts = range(self._stride if split == "train" and self._starts == "all" else 1)
        fewest = self._wanted or 2
        return [
            (case, start) for case in self._splits[split] for start in starts if self._frames(case, start) >= fewest
        ]

    def _frames(self, case: Case, start: int) -> int:
        there = len(range(start, case.frames, self._stride))
        return there if self._wanted is None else min(there, self._wanted)

    def _trajectory(self, case: Case, start: int) -> Trajectory:
        frames = self._frames(case, start)
        stored = self._metadata.frame_interval / self._stride
        steps = start + self._stride * torch.arange(frames, dtype=torch.float64)
        x, y = self._coordinates(case)
        context = Context(
            (x.float(), y.float()),
            parameters=torch.tensor(list(case.parameters.values()), dtype=torch.float32),
            mask=self._fluid(case),
        )
        times = case.values.get("t0", 0.0) + stored * steps
        shape = (frames, len(_FIELDS), len(x), len(y))
        return Trajectory(self._metadata, context, times, partial(self._read_into, case, start), shape)

    def _coordinates(self, case: Case) -> tuple[Tensor, Tensor]:
        """Centers of all cells, the rows around the stored ones included, in float64."""
        box, left, below, above = self._grid_box(case), *self._margins
        return box.centers((case.cells[0] + left, case.cells[1] + below + above))

    def _grid_box(self, case: Case) -> Box:
        (left, below), (right, above) = case.box
        across, up = (length / cells for length, cells in zip(case.box.lengths, case.cells, strict=True))
        margins = self._margins
        return Box((left - margins.left * across, below - margins.below * up), (right, above + margins.above * up))

    def _solid(self, case: Case) -> Tensor | None:
        """Which of the stored cells are inside a body, ``(x, y)``; none is no body."""
        return None if case.body is None else case.body.covers(*case.box.centers(case.cells))

    def _fluid(self, case: Case) -> Tensor | None:
        """The mask ``(x, y)``, that of the rows around the stored cells included."""
        if self._mask == "none":
            return None
        solid = self._solid(case) if self._mask == "physical" else reference_obstacle(case).T
        if solid is None and not any(self._margins):
            return None
        left, below, above = self._margins
        mask = torch.zeros(left + case.cells[0], below + case.cells[1] + above, dtype=torch.bool)
        mask[self._inner(case)] = True if solid is None else ~solid
        return mask

    def _inner(self, case: Case) -> tuple[slice, slice]:
        left, below, _ = self._margins
        return slice(left, left + case.cells[0]), slice(below, below + case.cells[1])

    def _read_into(self, case: Case, first: int, start: int, out: Tensor) -> None:
        begin = first + self._stride * start
        numbers = range(begin, begin + self._stride * len(out), self._stride)
        x, y = self._inner(case)
        stored = _as_float32(self._maps.of(case), slice(begin, numbers.stop, self._stride))
        finite = np.isfinite(stored).all((0, 2, 3))
        if not finite.all():
            frame = numbers[int(np.argmin(finite))]
            raise ValueError(
                f"Case {case.name}: Expected finite values but frame {frame} holds NaN or infinity. {_CURE}"
            )
        out[..., x, y] = torch.from_numpy(stored).permute(1, 0, 3, 2)
        if any(self._margins):
            self._fill_margins(case, out)

    def _fill_margins(self, case: Case, out: Tensor) -> None:
        """No slip below and above, the inlet at the left. Corners are zero.

        As the authors' loader has it, but for the dam: by its mistake the inlet is as high as the barrier.
        """
        assert case.kind.inlet_height is not None
        x, y = self._inner(case)
        for margin in (
            (slice(0, x.start), slice(None)),
            (slice(None), slice(0, y.start)),
            (slice(None), slice(y.stop, None)),
        ):
            out[..., *margin] = 0
        _, heights = case.box.centers(case.cells)
        inlet = heights < case.kind.inlet_height(case.values)
        out[:, 0, 0, y] = inlet * case.values[case.kind.velocity]

    def _readable(self, found: Iterable[tuple[CaseFolder, Path]], cells: tuple[int, int], skip: bool) -> list[Case]:
        cases = []
        for name, folder in found:
            try:
                case = read_case(name, folder, self.problem)
                if case.cells != cells:
                    raise ValueError(
                        f"Case {name}: Expected {cells[0]} x {cells[1]} cells along x and y but its arrays have "
                        f"{case.cells[0]} x {case.cells[1]}; if all cases do, give cells={case.cells}."
                    )
            except ValueError as error:
                if not skip:
                    raise ValueError(f"{error} {_CURE}") from error
                # Messages of errors begin with the case, which is said beside the reason.
                self._left_out.append(LeftOut(str(name), str(error).removeprefix(f"Case {name}: ")))
            else:
                cases.append(case)
        return cases

    def _require_some(self, cases: Sequence[Case]) -> None:
        if not cases:
            raise ValueError(f"Expected a case to read in {self.path} but all were left out: {self._left_out[0]}")

    def _long_enough(self, cases: Sequence[Case]) -> list[Case]:
        """A single frame is no trajectory: nothing can be learned from it and it has no increments."""
        for case in cases:
            if self._frames(case, 0) < 2:
                reason = f"{case.frames} stored frames make one at every {self._stride}; a trajectory has two at least"
                self._left_out.append(LeftOut(str(case.name), reason))
        return [case for case in cases if self._frames(case, 0) > 1]

    def _of_length(self, cases: Sequence[Case], frames: int, skip: bool) -> list[Case]:
        """Those of so many frames at least; the others are named."""
        short = [case for case in cases if self._frames(case, 0) < frames]
        if short and not skip:
            fewest = min(self._frames(case, 0) for case in short)
            lengths = [f"{case.name} ({self._frames(case, 0)})" for case in short]
            raise ValueError(
                f"Expected {frames} frames of each case but {len(short)} of {len(cases)} are shorter: "
                f"{listed(lengths, len(lengths))}. Ask for frames={fewest}, which all have, or pass "
                "skip_bad_cases=True to go on without them."
            )
        self._left_out += [
            LeftOut(str(case.name), f"{self._frames(case, 0)} of the {frames} frames asked for") for case in short
        ]
        return [case for case in cases if case not in short]

    def _finite(self, cases: Sequence[Case]) -> list[Case]:
        """Those without NaN and infinity in any frame that can be asked for."""
        step = 1 if self._starts == "all" else self._stride
        kept = []
        for case in cases:
            numbers = range(0, case.frames, step)
            if self._wanted is not None:
                numbers = range(0, min(case.frames, self._stride * self._wanted), step)
            blocks = (numbers[at : at + _SEARCHED_FRAMES] for at in range(0, len(numbers), _SEARCHED_FRAMES))
            bad = next((n for block in blocks if (n := self._first_bad(case, block)) is not None), None)
            if bad is None:
                kept.append(case)
            else:
                self._left_out.append(LeftOut(str(case.name), f"frame {bad} holds NaN or infinity"))
        return kept

    def _first_bad(self, case: Case, numbers: range) -> int | None:
        values = _as_float32(self._maps.of(case), slice(numbers.start, numbers.stop, numbers.step))
        finite = np.isfinite(values).all((0, 2, 3))
        return None if finite.all() else numbers[int(np.argmin(finite))]

    def _last_frames(self, cases: Sequence[Case]) -> list[tuple[Case, Tensor]]:
        """The last frame ``(2, x, y)`` of cases spread over all; what is not finite is told when it is read."""
        places = np.unique(np.linspace(0, len(cases) - 1, PROBED_CASES).astype(int)).tolist()
        frames = []
        for case in (cases[place] for place in places):
            stored = _as_float32(self._maps.of(case), slice(case.frames - 1, case.frames, 1))
            if np.isfinite(stored).all():
                frames.append((case, torch.from_numpy(stored[:, 0]).transpose(1, 2)))
        return frames

    def _describe(self, cases: Sequence[Case], stored: float, rule: SplitRule) -> Metadata:
        boxes = {self._grid_box(case) for case in cases}
        box = boxes.pop() if len(boxes) == 1 else None
        axes = (
            Axis(name, units="m", bounds=None if box is None else (box.low[place], box.high[place]))
            for place, name in enumerate(("x", "y"))
        )
        content = [[str(case.name), dict(case.values), case.frames, case.cells] for case in cases]
        options = {
            "problem": self.problem,
            "cases": {split: [str(case.name) for case in chosen] for split, chosen in self._splits.items()},
            "split_rule": type(rule).__name__ if isinstance(rule, ListedSplit) else repr(rule),
            "stored_interval": stored,
            "stored_frames_per_frame": self._stride,
            "starts": self._starts,
            "mask": self._mask,
            "boundary_rows": "reference" if any(self._margins) else "none",
            **({} if self._wanted is None else {"frames": self._wanted}),
        }
        digest = hashlib.sha256(json.dumps([content, options], sort_keys=True).encode())
        recipe = recipe_of_tree(self.path, self.problem)
        return Metadata(
            name=f"cfdbench_{self.problem}",
            grid=Grid(tuple(axes)),
            channels=_FIELDS,
            frame_interval=stored * self._stride,
            parameters=tuple(PROBLEMS[self.problem].parameters),
            time_units="s",
            # Of all that case.json and the shapes say; the values themselves are too many to be read each time.
            attributes={**options, "content_hash": digest.hexdigest(), **({"recipe": recipe} if recipe else {})},
        )


def exact_stride(interval: float, stored_interval: float) -> int:
    """Stored frames in an interval.

    Raises:
        ValueError: if it is not a multiple within a millionth of a frame.

    Example:
        >>> exact_stride(0.3, 0.1), exact_stride(0.1, 0.001)
        (3, 100)
    """
    frames = interval / stored_interval if stored_interval > 0 else 0.0
    stride = round(frames) if np.isfinite(frames) else 0
    if stride < 1 or abs(frames - stride) > _INTERVAL_TOLERANCE:
        near = f"; {max(int(frames), 1) * stored_interval:g} is one" if np.isfinite(frames) and frames > 0 else ""
        raise ValueError(
            f"Expected an interval that is a multiple of the {stored_interval:g} s between stored frames but got "
            f"{interval:g}{near}. Choose another, or give stored_interval if the files are further apart."
        )
    return stride


def _stored_interval(cases: Sequence[Case], problem: str, given: float | None) -> float:
    """Given, or said by the files, or by the paper."""
    if given is not None:
        if not given > 0:
            raise ValueError(f"Expected a positive stored_interval but got {given}.")
        return float(given)
    said = {case.values.get("dt_frame") for case in cases}
    if said and said != {None}:
        first = next(iter(cases)).values.get("dt_frame")
        other = next((c for c in cases if not _same(c.values.get("dt_frame"), first)), None)
        if other is not None or first is None or not first > 0:
            odd = cases[0] if other is None else other
            raise ValueError(
                f"Expected one positive dt_frame in all case.json but got {first} in {cases[0].name} and "
                f"{odd.values.get('dt_frame')} in {odd.name}; read such cases apart, or give stored_interval."
            )
        return first
    published = PROBLEMS[problem].frame_interval
    if published is None:
        raise ValueError(
            f"Expected dt_frame, the time between frames, in case.json of {problem}, which is not published; give "
            "stored_interval."
        )
    return published


def _stored_split(cases: Sequence[Case]) -> SplitRule | None:
    """That of the archive that a tree of our own was written from, if every case says so."""
    if any(case.split not in ("train", "val", "test") for case in cases):
        return None
    named = {split: [str(case.name) for case in cases if case.split == split] for split in ("train", "val", "test")}
    return ListedSplit(**named)


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= 1e-6 * abs(other)


def _as_float32(arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]], frames: slice) -> npt.NDArray[np.float32]:
    """``(2, time, rows, columns)`` in the byte order of this machine; what is too large becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([array[frames].astype(np.float32) for array in arrays])


def _require_choices(problem: str, subsets: Sequence[str], starts: str, mask: str, boundary_rows: str) -> None:
    if problem not in PROBLEMS:
        raise ValueError(f"Expected a problem among {', '.join(PROBLEMS)} but got {problem!r}.")
    if isinstance(subsets, str) or not subsets or not set(subsets) <= set(SUBSETS):
        raise ValueError(f"Expected a list of subsets among bc, prop and geo but got {subsets!r}.")
    for name, value, choices in (
        ("starts", starts, ("first", "all")),
        ("mask", mask, ("physical", "reference", "none")),
        ("boundary_rows", boundary_rows, ("none", "reference")),
    ):
        if value not in choices:
            raise ValueError(f"Expected {name} among {', '.join(choices)} but got {value!r}.")


def _warn(what: Sequence[object], sentence: str, most: int = 4) -> None:
    if what:
        warnings.warn(f"{sentence} {listed(what, most)}", stacklevel=3)

"""Folders and files of a tree ``PROBLEM/SUBSET/caseNNNN``: finding cases, reading ``case.json``, mapping arrays."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pdesurrogate.data.adapters.cfdbench.problems import PROBLEMS, Body, Box, Problem
from pdesurrogate.data.adapters.cfdbench.published import NUMBERED_SUBSETS, PUBLISHED, SUBSETS
from pdesurrogate.data.adapters.cfdbench.splits import CaseFolder

Array = npt.NDArray[np.floating[Any]]
# What files may say beside what is required; none of it is a parameter.
KNOWN_EXTRAS = ("dx", "dy", "rotated", "case_no", "generator", "dt_frame", "t0", "re", "name", "subset", "split")
# Beside case.json, and in the problem's folder, of trees that `write_cfdbench_tree` made; nothing published has it.
OWN_FILE = "pdesurrogate.json"
_READ_EXTRAS = ("dx", "dy", "dt_frame", "t0")
_CASE = re.compile(r"case(\d+)$")
_ARRAYS = ("u.npy", "v.npy")
# Two for each case; mapped files count against the number of files that a process may have open, often 1024.
_MAPS_KEPT = 512


class Case(NamedTuple):
    """One case, all of it but its frames.

    Attributes:
        name: subset and folder.
        folder: path.
        problem: that it belongs to.
        values: numbers of ``case.json`` under its keys, those that the problem knows and what else we look at.
        unknown: further keys.
        split: that our own file says, else empty.
        frames: stored.
        cells: along x and y.
    """

    name: CaseFolder
    folder: Path
    problem: str
    values: Mapping[str, float]
    unknown: tuple[str, ...]
    frames: int
    cells: tuple[int, int]
    split: str = ""

    @property
    def kind(self) -> Problem:
        """How its problem is read; not an attribute, as functions do not travel to other processes."""
        return PROBLEMS[self.problem]

    @property
    def number(self) -> int:
        """That its folder is named after."""
        return case_number(self.name.folder)

    @property
    def parameters(self) -> dict[str, float]:
        """By our names, in our order."""
        return {name: value(self.values) for name, value in self.kind.parameters.items()}

    @property
    def box(self) -> Box:
        """That the cells fill."""
        return self.kind.box(self.values)

    @property
    def body(self) -> Body | None:
        """In the flow."""
        return self.kind.body(self.values)


def case_number(folder: str) -> int:
    """Number in the name of a folder.

    Example:
        >>> sorted(["case10", "case2"], key=case_number)
        ['case2', 'case10']
    """
    found = _CASE.match(folder)
    if found is None:
        raise ValueError(f"Expected a folder named case and a number but got {folder!r}.")
    return int(found[1])


def find_cases(root: Path, problem: str, subsets: Iterable[str]) -> tuple[list[tuple[CaseFolder, Path]], list[str]]:
    """Folders of cases in the order prop, bc, geo and by number, and names of those that have no number.

    Args:
        root: the folder above the problems, or the problem's own.
        problem: its name.
        subsets: those wanted.

    Raises:
        ValueError: if the folder, a subset or its cases are not there.
    """
    folder = _problem_folder(root, problem)
    found: list[tuple[CaseFolder, Path]] = []
    unnumbered: list[str] = []
    for subset in (name for name in SUBSETS if name in set(subsets)):
        if not (folder / subset).is_dir():
            raise ValueError(_no_subset(folder, problem, subset))
        cases = [entry for entry in (folder / subset).glob("case*") if entry.is_dir()]
        unnumbered += sorted(f"{subset}/{entry.name}" for entry in cases if not _CASE.match(entry.name))
        numbered = [entry for entry in cases if _CASE.match(entry.name)]
        if not numbered:
            raise ValueError(
                f"Expected folders case0000, case0001 and so on in {folder / subset} but there are none; unpack the "
                f"archive of {problem} again, or leave {subset!r} out of the subsets."
            )
        numbered.sort(key=lambda entry: (case_number(entry.name), entry.name))
        found += [(CaseFolder(subset, entry.name), entry) for entry in numbered]
    return found, unnumbered


def _problem_folder(root: Path, problem: str) -> Path:
    if not root.is_dir():
        raise ValueError(
            f"Expected a folder of CFDBench data but {root} is not one; see `pdesurrogate datasets show cfdbench`."
        )
    if (root / problem).is_dir():
        return root / problem
    if root.name in PROBLEMS and root.name != problem:
        raise ValueError(
            f"Expected a folder of {problem!r} but {root} is named after another problem, {root.name!r}, whose keys "
            "may be the same; give the folder above the problems, or that problem."
        )
    if root.name == problem or any((root / subset).is_dir() for subset in SUBSETS):
        return root
    inside = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    raise ValueError(
        f"Expected a folder {problem!r} in {root} but found {inside[:8] or 'no folders'}; give the folder above the "
        "problems, as it is after unpacking."
    )


def recipe_of_tree(root: Path, problem: str) -> dict[str, Any] | None:
    """Of the archive that a tree of ours was written from, by the problem's own file; ``None`` where there is none.

    Raises:
        ValueError: if the file cannot be read.
    """
    path = _problem_folder(root, problem) / OWN_FILE
    recipe = read_json(path).get("recipe") if path.exists() else None
    return recipe if isinstance(recipe, dict) else None


def _no_subset(folder: Path, problem: str, subset: str) -> str:
    flat = [entry for entry in folder.glob("case*") if _CASE.match(entry.name)]
    if flat:
        counts = PUBLISHED[problem].cases if problem in PUBLISHED else {}
        first, ranges = 0, []
        for name, count in ((name, counts[name]) for name in NUMBERED_SUBSETS if name in counts):
            ranges.append(f"{name} case{first:04d} to case{first + count - 1:04d}")
            first += count
        return (
            f"Expected the subsets bc, prop and geo in {folder} but it has {len(flat)} cases without one, as an early "
            f"archive had. Make a folder for each subset and move the cases: {'; '.join(ranges) or 'see its author'}."
        )
    inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    return (
        f"Expected a folder {subset!r} in {folder} but found {inside[:8] or 'no folders'}; unpack it there, or leave "
        f"{subset!r} out of the subsets."
    )


def read_case(name: CaseFolder, folder: Path, problem: str) -> Case:
    """Of one folder; arrays are mapped to see their shape, and nothing of them is read.

    Raises:
        ValueError: naming the case, what is wrong and the cure.
    """
    kind = PROBLEMS[problem]
    try:
        content = read_json(folder / "case.json")
        own = read_json(folder / OWN_FILE) if (folder / OWN_FILE).exists() else {}
        values = _numbers({**_said_by_us(own, kind), **content}, kind)
        kind.require_possible(values)
        frames, rows, columns = open_arrays(folder)[0].shape
    except ValueError as error:
        raise ValueError(f"Case {name}: {error}") from error
    known = {*kind.required, *kind.optional, *KNOWN_EXTRAS}
    unknown = tuple(key for key in content if key not in known)
    return Case(name, folder, problem, values, unknown, frames, (columns, rows), str(own.get("split", "")))


def _said_by_us(own: Mapping[str, Any], problem: Problem) -> dict[str, Any]:
    """What our own file says beyond ``case.json``."""
    parameters = own.get("parameters", {})
    named = {key: parameters[key] for key in problem.optional if isinstance(parameters, dict) and key in parameters}
    return {key: own[key] for key in ("dt_frame", "t0") if key in own} | named


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: if there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected a JSON file {path} but it cannot be read ({error}). Get it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a JSON object in {path} but got a {type(content).__name__}. Get it again.")
    return content


def _numbers(content: Mapping[str, Any], problem: Problem) -> dict[str, float]:
    missing = [key for key in problem.required if key not in content]
    if missing:
        spare = [key for key in content if key not in problem.required]
        close = [match for key in missing for match in difflib.get_close_matches(key, spare, 1)]
        hint = f" Is {close[0]!r} a slip of the pen? Then mend it." if close else ""
        raise ValueError(
            f"Expected the keys {', '.join(problem.required)} of {problem.name} in case.json but "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; found "
            f"{', '.join(content) or 'none'}.{hint}"
        )
    read = (*problem.required, *problem.optional, *_READ_EXTRAS)
    return {key: finite_number(key, content[key]) for key in read if key in content} | {
        "rotated": float(content.get("rotated") is True)
    }


def finite_number(key: str, value: Any) -> float:
    """A value of ``case.json``.

    Raises:
        ValueError: if it is none, naming the key.
    """
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"Expected a finite number for {key!r} in case.json but got {value!r}; mend the file.")
    return number


def open_array(path: Path) -> Array:
    """Real numbers ``(time, rows, columns)``, mapped; nothing is ever unpickled.

    Raises:
        ValueError: if the file is damaged or holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged bytes make the parser raise errors of any kind
        raise ValueError(
            f"Expected an array of numpy but {path} cannot be mapped ({error}). It may be truncated or hold pickled "
            "objects, which are not loaded; download it again."
        ) from error
    if not isinstance(array, np.memmap) or array.dtype.kind != "f" or array.itemsize > 8:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"Expected real numbers of at most 64 bits in {path} but got {kind}; save it as float64.")
    if array.ndim != 3 or min(array.shape) < 1:
        raise ValueError(
            f"Expected an array (time, rows, columns) with a frame at least in {path} but its shape is {array.shape}."
        )
    return array


def open_arrays(folder: Path) -> tuple[Array, Array]:
    """``u`` and ``v`` of a case, mapped.

    Raises:
        ValueError: if one cannot be read or their shapes differ.
    """
    u, v = (open_array(folder / name) for name in _ARRAYS)
    if u.shape != v.shape:
        raise ValueError(
            f"Expected u.npy and v.npy of one shape in {folder} but got {u.shape} and {v.shape}; one of them may be "
            "cut short. Download both again."
        )
    return u, v


class MappedCases:
    """Arrays of cases, mapped at first use; the latest few stay mapped. Maps do not travel to other processes."""

    def __init__(self) -> None:
        self._maps: OrderedDict[Path, tuple[Array, Array]] = OrderedDict()

    def of(self, case: Case) -> tuple[Array, Array]:
        """``u`` and ``v``.

        Raises:
            ValueError: if the files are not what they were.
        """
        if case.folder not in self._maps:
            arrays = open_arrays(case.folder)
            if arrays[0].shape != (case.frames, *case.cells[::-1]):
                raise ValueError(f"Expected the arrays of case {case.name} as they were, but they have changed.")
            self._maps[case.folder] = arrays
            while 2 * len(self._maps) > _MAPS_KEPT:
                self._maps.popitem(last=False)
        self._maps.move_to_end(case.folder)
        return self._maps[case.folder]

    def __getstate__(self) -> dict[str, Any]:
        return {"_maps": OrderedDict()}


@dataclass(frozen=True)
class LeftOut:
    """A case that is not in the data set.

    Attributes:
        case: subset and folder.
        reason: in a sentence.
    """

    case: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case}: {self.reason}"


def listed(names: Sequence[object], most: int = 4) -> str:
    """A few names, and how many more.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

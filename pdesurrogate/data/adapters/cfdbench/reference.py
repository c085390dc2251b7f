"""What the authors' loaders make of a tree, fault for fault, so that published numbers can be compared.

``old`` is their code of December 2024 (commit c721f67), the last of the paper's authors; ``head`` that of October 2025,
in which the cylinder alone is read in another way. Written from descriptions of both; nothing is cached on disk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pdesurrogate.data.adapters.cfdbench.problems import PROBLEMS
from pdesurrogate.data.adapters.cfdbench.published import (
    PUBLISHED,
    normalized_density,
    normalized_velocity,
    normalized_viscosity,
)
from pdesurrogate.data.adapters.cfdbench.splits import ReferenceSplit, reference_rounding
from pdesurrogate.data.adapters.cfdbench.tree import Case, find_cases, finite_number, open_arrays, read_json

Version = Literal["old", "head"]
Array = npt.NDArray[Any]
# Keys of frames' parameters, in the order of the authors' classes.
FRAME_PARAMETERS = {
    "cavity": ("vel_top", "density", "viscosity", "height", "width"),
    "tube": ("vel_in", "density", "viscosity", "height", "width"),
    "dam": ("velocity", "density", "viscosity", "height", "width"),
    "cylinder": ("vel_in", "density", "viscosity", "height", "width", "center_x", "center_y", "radius"),
}
_SPACINGS = ("dx", "dy")
# What they leave out where they make a vector of a dictionary.
NO_PARAMETERS = ("rotated", *_SPACINGS)
_LIMITS = ("x_min", "x_max", "y_min", "y_max")
# Mean change of the speed below which a case ends for them.
STEADY = 1e-3
# The point that they take for the center of every cylinder, in meters; no published box reaches it.
_SUPPOSED_CENTER = (0.5, 0.5)


class ReferenceCase(NamedTuple):
    """One case as they hold it.

    Attributes:
        features: ``u``, ``v`` and mask ``(time, 3, rows, columns)`` in the precision of the files.
        parameters: in the order of the file, changed as they change it.
    """

    features: Array
    parameters: dict[str, Any]


def reference_case(folder: str | Path, problem: str, version: Version = "old") -> ReferenceCase:
    """Read a case as they do, rows of boundary values included.

    Args:
        folder: of the case.
        problem: one of the four that are published.
        version: of their code.

    Raises:
        ValueError: if a file cannot be read, or a key is missing or no finite number, naming the folder; for a barrier
            lower than a cell, which they cannot read.
    """
    require_published(problem, version)
    folder = Path(folder)
    return reference_frames(open_arrays(folder), read_json(folder / "case.json"), folder, problem, version)


def reference_frames(
    velocity: tuple[Array, Array], said: dict[str, Any], folder: Path, problem: str, version: Version
) -> ReferenceCase:
    """What they make of some frames of a case.

    Args:
        velocity: ``u`` and ``v``, ``(time, rows, columns)`` each, as stored.
        said: by its ``case.json``.
        folder: of the case, for messages.
        problem: see `reference_case`.
        version: see `reference_case`.

    Raises:
        ValueError: see `reference_case`.
    """
    u, v = (np.array(array, array.dtype.newbyteorder("=")) for array in velocity)
    kind = PROBLEMS[problem]
    try:
        for key in (*kind.required, *kind.optional, *(_SPACINGS if problem == "dam" else ())):
            if key in said:
                finite_number(key, said[key])
        return _READERS[problem](u, v, said, version)
    except KeyError as error:
        raise _missing(error, said, folder) from error
    except ValueError as error:
        raise ValueError(f"Case {folder}: {error}") from error


def _missing(error: KeyError, parameters: dict[str, Any], folder: Path) -> ValueError:
    return ValueError(f"Expected the key {error} in {folder / 'case.json'} but found {list(parameters)}.")


def _cavity(u: Array, v: Array, parameters: dict[str, Any], version: Version) -> ReferenceCase:
    return ReferenceCase(np.stack([u, v, np.ones_like(u)], axis=1), parameters)


def _tube(u: Array, v: Array, parameters: dict[str, Any], version: Version) -> ReferenceCase:
    return ReferenceCase(_surrounded(u, v, np.ones_like(u), parameters["vel_in"]), parameters)


def _dam(u: Array, v: Array, parameters: dict[str, Any], version: Version) -> ReferenceCase:
    # The width and dx, too, are read for a mask that comes to nothing, see below.
    for key in (*_SPACINGS, "barrier_width"):
        if not parameters[key] > 0:
            raise ValueError(f"Expected a positive {key!r} but got {parameters[key]:g}; mend case.json.")
    inlet = np.zeros(u.shape[1], u.dtype)
    # The water's inlet is as high as the barrier for them.
    rows = int(parameters["barrier_height"] / parameters["dy"])
    inlet[:rows] = parameters["velocity"]
    if rows == 0:
        raise ValueError(
            f"Expected a barrier of a cell's height, {parameters['dy']:g}, or more but got "
            f"{parameters['barrier_height']:g}: the authors' loader stops with 'slice step cannot be zero'. Read such "
            "cases with CfdBench."
        )
    kept = {key: parameters[key] for key in FRAME_PARAMETERS["dam"]}
    # They mask the barrier at no time: the slice that was meant for rows is one of the time axis and is empty.
    return ReferenceCase(_surrounded(u, v, np.ones_like(u), inlet), kept)


def _cylinder(u: Array, v: Array, parameters: dict[str, Any], version: Version) -> ReferenceCase:
    limits = [parameters[key] for key in _LIMITS]
    mask = np.ones_like(u)
    if version == "old":
        mask *= ~_supposed_disc(limits, parameters["radius"], u.shape[1:])
        x, y = -limits[0], -limits[2]
    else:
        stated = "center_x" in parameters and "center_y" in parameters
        x, y = (parameters["center_x"], parameters["center_y"]) if stated else (0.0, 0.0)
        mask *= ~_disc(limits, (x, y), parameters["radius"], u.shape[1:], offset=0.5)
        mask[:, [0, -1], :] = 0
        mask[:, :, 0] = 0
    added = {"center_x": x, "center_y": y, "height": limits[3] - limits[2], "width": limits[1] - limits[0]}
    changed = {key: value for key, value in (parameters | added).items() if key not in _LIMITS}
    if version == "old":
        return ReferenceCase(_surrounded(u, v, mask, parameters["vel_in"]), changed)
    return ReferenceCase(np.stack([u, v, mask], axis=1), changed)


_READERS: dict[str, Callable[[Array, Array, dict[str, Any], Version], ReferenceCase]] = {
    "cavity": _cavity,
    "tube": _tube,
    "dam": _dam,
    "cylinder": _cylinder,
}


def reference_obstacle(case: Case) -> Tensor:
    """Which stored cells their old code masks inside the frame, ``(rows, columns)``: for published cases none."""
    rows, columns = case.cells[::-1]
    if case.problem != "cylinder":
        return torch.zeros(rows, columns, dtype=torch.bool)
    limits = [case.values[key] for key in _LIMITS]
    return torch.from_numpy(_supposed_disc(limits, case.values["radius"], (rows, columns)))


def _supposed_disc(limits: Sequence[float], radius: float, shape: tuple[int, ...]) -> Array:
    return _disc(limits, _SUPPOSED_CENTER, radius, shape, offset=0.0)


def _disc(
    limits: Sequence[float], center: tuple[float, float], radius: float, shape: tuple[int, ...], offset: float
) -> Array:
    """Cells ``(rows, columns)`` whose points, ``offset`` cells from the low edge, lie in a disc."""
    x_min, x_max, y_min, y_max = limits
    rows, columns = shape
    x = x_min + (np.arange(columns) + offset) * ((x_max - x_min) / columns)
    y = y_min + (np.arange(rows) + offset) * ((y_max - y_min) / rows)
    inside: Array = (x - center[0]) ** 2 + ((y - center[1]) ** 2)[:, None] <= radius**2
    return inside


def _surrounded(u: Array, v: Array, mask: Array, inlet: Array | float) -> Array:
    """A column for the inlet at the left, then rows for the walls: ``(time, 3, rows + 2, columns + 1)``."""
    times, rows, columns = u.shape
    features = np.zeros((times, 3, rows + 2, columns + 1), u.dtype)
    features[:, :, 1:-1, 1:] = np.stack([u, v, mask], axis=1)
    features[:, 0, 1:-1, 0] = inlet
    return features


def reference_stride(problem: str, delta_time: float) -> int:
    """Stored frames between input and label, by their idea of the time between stored frames.

    Raises:
        ValueError: if there is none.

    Example:
        >>> reference_stride("cavity", 0.3), reference_stride("cylinder", 0.1)
        (2, 100)
    """
    # Cut off, not rounded: 0.3 s at 0.1 s are two frames.
    stride = int(delta_time / PUBLISHED[problem].loader_interval)
    if stride < 1:
        raise ValueError(
            f"Expected delta_time of a stored frame, {PUBLISHED[problem].loader_interval:g} s, or more but got "
            f"{delta_time:g}."
        )
    return stride


def steady_limit(problem: str, steady_below: float = STEADY) -> float:
    """Mean change of the speed at which a case ends; none does for the dam."""
    return 0.0 if problem == "dam" else steady_below


def moving_pairs(
    frame_at: Callable[[int], Tensor], frames: int, stride: int, limit: float, folder: Path
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames ``i`` and ``i + stride`` of a case for each ``i`` until the speed changes by less than ``limit``.

    Args:
        frame_at: gives a frame ``(channel, rows, columns)`` by its number, velocities in front, in float32.
        frames: in the case.
        stride: between the two of a pair.
        limit: of the mean over all cells, rows of boundary values included.
        folder: of the case, for messages.

    Raises:
        ValueError: if a pair holds NaN.
    """
    for number in range(frames - stride):
        before, after = frame_at(number), frame_at(number + stride)
        speeds = [torch.sqrt(each[0] ** 2 + each[1] ** 2) for each in (before, after)]
        if torch.abs(speeds[0] - speeds[1]).mean() < limit:
            return
        if bool(torch.isnan(before).any() or torch.isnan(after).any()):
            raise ValueError(
                f"Expected frames without NaN but frame {number} or {number + stride} of {folder} holds one; leave "
                "the case out."
            )
        yield before, after


def _frame_of(features: Array, number: int) -> Tensor:
    return torch.tensor(features[number], dtype=torch.float32)


class ReferencePairs(Dataset[tuple[Tensor, Tensor, dict[str, Tensor]]]):
    """Pairs of frames for the autoregressive task, all in memory as they hold them.

    A case ends at the first pair whose speeds differ by less than 0.001 in the mean over all cells, rows of boundary
    values included, though not for the dam. Item ``i`` is ``(input, label, parameters)``, frames ``(3, rows, columns)``
    in float32; see `collate`.

    Args:
        folders: of cases, in the order of the split.
        problem: one of the four that are published.
        version: of their code.
        norm_props: density and viscosity of the parameters with their constants.
        norm_bc: the driving velocity with theirs.
        delta_time: between the frames of a pair in seconds, by their idea of the time between stored frames.
        steady_below: mean change of the speed at which a case ends.

    Attributes:
        inputs: ``(pairs, 3, rows, columns)``.
        labels: the same, ``time_step_size`` frames later.
        case_ids: the case of each pair.
        case_params: of each case, a dictionary in the order of its file.
        all_features: of each case, every frame.
        time_step_size: frames between input and label.

    Raises:
        ValueError: if a case cannot be read, a pair holds NaN, the frames are further apart than asked for, or no pair
            is left.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        problem: str,
        version: Version = "old",
        *,
        norm_props: bool = True,
        norm_bc: bool = True,
        delta_time: float = 0.1,
        steady_below: float = STEADY,
    ) -> None:
        require_published(problem, version)
        self.time_step_size = reference_stride(problem, delta_time)
        self.case_params: list[dict[str, Any]] = []
        self.all_features: list[Array] = []
        self.case_ids: list[int] = []
        limit = steady_limit(problem, steady_below)
        inputs: list[Tensor] = []
        labels: list[Tensor] = []
        for number, folder in enumerate(folders):
            features, parameters = reference_case(folder, problem, version)
            require_numbers(parameters, Path(folder))
            self.all_features.append(features)
            self.case_params.append(normalized_parameters(parameters, problem, norm_props, norm_bc, Path(folder)))
            frame_at = partial(_frame_of, features)
            for before, after in moving_pairs(frame_at, len(features), self.time_step_size, limit, Path(folder)):
                inputs.append(before)
                labels.append(after)
                self.case_ids.append(number)
        if not inputs:
            raise ValueError(
                f"Expected a pair of frames {self.time_step_size} apart that differ but the {len(folders)} cases have "
                "none: they are too short, or steady from the start. Choose another delta_time, or use CfdBench."
            )
        self.inputs = torch.stack(inputs)
        self.labels = torch.stack(labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        parameters = self.case_params[self.case_ids[index]]
        return (
            self.inputs[index],
            self.labels[index],
            {key: torch.tensor(v, dtype=torch.float32) for key, v in parameters.items()},
        )

    def __len__(self) -> int:
        return len(self.inputs)

    @staticmethod
    def collate(samples: Sequence[tuple[Tensor, Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
        """``inputs`` and ``label (batch, 2, rows, columns)``, ``mask (batch, 1, ...)``, ``case_params (batch, p)``.

        Parameters are in the order of the first sample's file, without rotated, dx and dy; further keys in a file make
        the vector longer.
        """
        inputs, labels, parameters = zip(*samples, strict=True)
        keys = [key for key in parameters[0] if key not in NO_PARAMETERS]
        return {
            "inputs": torch.stack(inputs)[:, :-1],
            "label": torch.stack(labels)[:, :-1],
            "mask": torch.stack(inputs)[:, -1:],
            "case_params": torch.stack([torch.stack([each[key] for key in keys]) for each in parameters]),
        }


class ReferenceFrames(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Frames for the task without time steps, all in memory as they hold them; no case ends early.

    Item ``i`` is ``(parameters (p,), number of the frame (1,), frame (3, rows, columns))`` in float32; time is counted
    in frames, not in seconds, and NaN is taken as it comes.

    Args:
        folders: of cases, in the order of the split.
        problem: one of the four that are published.
        version: of their code.
        norm_props: density and viscosity of the parameters with their constants.
        norm_bc: the driving velocity with theirs.

    Attributes:
        case_params: of each case, ``(p,)`` in the order of `FRAME_PARAMETERS`.
        features: of each case, ``(time, 3, rows, columns)``.
        num_frames: of each case.
        ends: frames up to and with each case.

    Raises:
        ValueError: if a case cannot be read or there is none.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        problem: str,
        version: Version = "old",
        *,
        norm_props: bool = True,
        norm_bc: bool = True,
    ) -> None:
        if not folders:
            raise ValueError("Expected at least one case.")
        self.case_params: list[Tensor] = []
        self.features: list[Tensor] = []
        for folder in folders:
            features, parameters = reference_case(folder, problem, version)
            values = normalized_parameters(parameters, problem, norm_props, norm_bc, Path(folder))
            try:
                chosen = [values[key] for key in FRAME_PARAMETERS[problem]]
            except KeyError as error:
                raise _missing(error, parameters, Path(folder)) from error
            self.case_params.append(torch.tensor(chosen, dtype=torch.float32))
            self.features.append(torch.tensor(features, dtype=torch.float32))
        self.num_frames = [len(features) for features in self.features]
        self.ends = list(accumulate(self.num_frames))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        case = bisect_right(self.ends, index)
        frame = index - (self.ends[case - 1] if case else 0)
        return self.case_params[case], torch.tensor([float(frame)]), self.features[case][frame]

    def __len__(self) -> int:
        return self.ends[-1]


def reference_folders(
    root: str | Path, problem: str, task: Literal["pairs", "frames"], subsets: Sequence[str] = ("prop", "bc", "geo")
) -> dict[str, list[Path]]:
    """Folders of the cases of ``train``, ``val`` (their dev) and ``test``, in their order.

    Raises:
        ValueError: if a subset is not there.
    """
    found, _ = find_cases(Path(root), problem, subsets)
    folders = dict(found)
    splits = ReferenceSplit(reference_rounding(problem, task)).assign(list(folders))
    return {split: [folders[name] for name in names] for split, names in splits.items()}


def reference_datasets(
    root: str | Path,
    problem: str,
    task: Literal["pairs", "frames"] = "pairs",
    subsets: Sequence[str] = ("prop", "bc", "geo"),
    version: Version = "old",
    **options: Any,
) -> dict[str, ReferencePairs] | dict[str, ReferenceFrames]:
    """Their data sets by split; those without a case are left out.

    Args:
        root: the folder above the problems, or the problem's own.
        problem: one of the four that are published.
        task: ``pairs`` for the autoregressive one, ``frames`` for the other.
        subsets: any of bc, prop and geo.
        version: of their code.
        options: of `ReferencePairs` or `ReferenceFrames`.

    Raises:
        ValueError: as these do.
    """
    folders = {split: cases for split, cases in reference_folders(root, problem, task, subsets).items() if cases}
    if task == "pairs":
        return {split: ReferencePairs(cases, problem, version, **options) for split, cases in folders.items()}
    return {split: ReferenceFrames(cases, problem, version, **options) for split, cases in folders.items()}


def normalized_parameters(
    parameters: dict[str, Any], problem: str, norm_props: bool, norm_bc: bool, folder: Path
) -> dict[str, Any]:
    """Density and viscosity, and the driving velocity, with their constants.

    Raises:
        ValueError: if one of them is missing, naming the folder.
    """
    changed = dict(parameters)
    try:
        if norm_props:
            changed["density"] = normalized_density(changed["density"])
            changed["viscosity"] = normalized_viscosity(changed["viscosity"])
        if norm_bc:
            key = PROBLEMS[problem].velocity
            changed[key] = normalized_velocity(changed[key])
    except KeyError as error:
        raise _missing(error, parameters, folder) from error
    return changed


def require_numbers(parameters: dict[str, Any], folder: Path) -> None:
    """Refuse words: they make a tensor of every entry, also of those that are no parameters in the end.

    Raises:
        ValueError: naming the entries and the folder.
    """
    words = [key for key, value in parameters.items() if not isinstance(value, (int, float))]
    if words:
        raise ValueError(
            f"Expected numbers only in case.json of {folder}, of which the authors' loader makes tensors, but "
            f"{', '.join(words)} are none; read such trees with CfdBench."
        )


def require_published(problem: str, version: str) -> None:
    """Refuse what they have no loader for.

    Raises:
        ValueError: naming both.
    """
    if problem not in _READERS or version not in ("old", "head"):
        raise ValueError(
            f"Expected a problem among {', '.join(_READERS)} and the version old or head but got {problem!r} and "
            f"{version!r}."
        )

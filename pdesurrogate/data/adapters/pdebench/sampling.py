"""What PDEBench's layouts share: splits, times, coordinates, and what names and attributes state."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import frame_times, splits_in_file_order
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Axis

Boundary = Literal["periodic", "bounded"]
# The field's share of test trajectories where no sizes are given.
TEST_SHARE = 0.1
# Single precision leaves this of a length or a time.
_ROUND_OFF = 1e-6


class Sampling(NamedTuple):
    """Which stored frames and points are kept.

    Attributes:
        times: ``(frames,)`` of those kept, float64.
        step: stored frames from one to the next.
        every: stored points from one to the next, along each axis.
        stored_interval: time between stored frames.
        entries: times that the file states, which may be one more than there are frames.
    """

    times: Tensor
    step: int
    every: int
    stored_interval: float
    entries: int

    @property
    def frames(self) -> int:
        """How many are kept of each trajectory."""
        return len(self.times)

    @property
    def interval(self) -> float:
        """Time between frames that are kept."""
        return rounded(self.stored_interval * self.step)

    @property
    def attributes(self) -> dict[str, Any]:
        """For the metadata."""
        return {
            "stored_interval": self.stored_interval,
            "stored_time_entries": self.entries,
            "frame_stride": self.step,
            "point_stride": self.every,
        }


def sample(stored: npt.NDArray[Any], frames: int, interval: float | None, every: int, *, what: str) -> Sampling:
    """Every n-th frame and point; the times are those stored.

    The generators number one time more than they save frames (the last, after the end), so ``frames + 1`` times are
    accepted, and the first of them are those of the frames.

    Args:
        stored: times ``(entries,)``.
        frames: that are stored.
        interval: time between frames kept, a multiple of that of the stored ones; by default all are.
        every: see `Sampling`.
        what: the times, for messages.

    Raises:
        ValueError: if the times are not even, the interval is no multiple or leaves fewer than two frames, or ``every``
            is below 1.

    Example:
        >>> found = sample(0.05 * np.arange(6), 5, 0.1, 1, what="t")
        >>> found.times.tolist(), found.entries
        ([0.0, 0.1, 0.2], 6)
    """
    entries = int(np.size(stored))
    if every < 1:
        raise ValueError(f"Expected every >= 1 but got {every}.")
    values = torch.from_numpy(np.array(stored, np.float64))
    all_times = frame_times(values, entries, None, 0.0, what=what)
    spacing = rounded(float(all_times[1] - all_times[0]))
    step = 1 if interval is None else _stride(interval, spacing, what)
    numbers = torch.arange(0, frames, step, dtype=torch.float64)
    if len(numbers) < 2:
        raise ValueError(
            f"Expected at least two frames at the times in {what} but there are {len(numbers)}, {step * spacing:g} "
            "apart. Choose a shorter interval."
        )
    start = rounded(float(all_times[0]), scale=float(all_times[-1] - all_times[0]))
    times = torch.tensor([rounded(start + spacing * number) for number in numbers.tolist()], dtype=torch.float64)
    return Sampling(times, step, every, spacing, entries)


def _stride(interval: float, stored: float, what: str) -> int:
    frames = interval / stored
    step = round(frames) if math.isfinite(frames) else 0
    if step < 1 or abs(frames - step) > 1e-4:
        raise ValueError(
            f"Expected an interval that is a multiple of the {stored:g} between stored frames in {what} but got "
            f"{interval:g}; {max(step, 1) * stored:g} is one."
        )
    return step


def rounded(value: float, scale: float = 0.0) -> float:
    """The short number that single precision may have had in mind, else the value itself.

    Args:
        value: read from single precision.
        scale: of the numbers that it is one of; what is small beside it is zero.

    Example:
        >>> rounded(0.99999994), rounded(6.2831855), rounded(-3e-8, scale=1.0)
        (1.0, 6.2831855, 0.0)
    """
    near = float(f"{value:.5g}")
    if abs(value) <= _ROUND_OFF * scale:
        return 0.0
    return near if abs(near - value) <= _ROUND_OFF * max(abs(value), scale) else value


def read_line(file: Hdf5File, array: str, *sizes: int) -> npt.NDArray[np.float64]:
    """Coordinates or times ``(n,)``, where ``n`` is one of the sizes that the fields allow.

    Raises:
        ValueError: if there is no such array, or it has another size.
    """
    if array not in file.arrays and array not in file.others:
        raise ValueError(
            f"{file.missing('array', array)} Nothing else says where or when the values are; download the file again."
        )
    shape = file.array(array).shape
    if math.prod(shape) not in sizes:
        raise ValueError(
            f"Expected {' or '.join(map(str, sizes))} entries in {array!r} of {file.path}, as the fields have, but "
            f"found {math.prod(shape)}. The fields were subsampled without them, or their axes are in another order."
        )
    return finite_numbers(file, array).ravel()


def finite_numbers(file: Hdf5File, array: str) -> npt.NDArray[np.float64]:
    """All of a small array.

    Raises:
        ValueError: if a number is not finite, or too large for single precision.
    """
    values = file.read(array)
    if not (np.isfinite(values).all() and np.abs(values).max(initial=0) <= np.finfo(np.float32).max):
        raise ValueError(
            f"Expected finite numbers in {array!r} of {file.path} but got {values.ravel()[:4].tolist()} ..."
        )
    return np.asarray(values, np.float64)


def axis_and_points(
    file: Hdf5File, array: str, name: str, size: int, boundary: Boundary, every: int
) -> tuple[Axis, Tensor]:
    """An axis of even cells and the kept ones of their stored centers, float32 ``(n,)``.

    Args:
        file: that states them.
        array: the centers.
        name: of the axis.
        size: of the fields along it.
        boundary: a periodic axis has the length of its cells as period, another one their outer faces as bounds.
        every: stored points from one kept to the next.

    Raises:
        ValueError: if there is no such array, it has another size, is not even, or ``every`` does not divide it.
    """
    centers = read_line(file, array, size)
    return axis_of_centers(centers, name, size, boundary, every, what=f"{array!r} of {file.path}")


def axis_of_centers(
    centers: npt.NDArray[Any], name: str, size: int, boundary: Boundary, every: int, *, what: str
) -> tuple[Axis, Tensor]:
    """As `axis_and_points`, of centers ``(size,)`` that are at hand."""
    if size < 2:
        raise ValueError(f"Expected at least two cell centers in {what} but found {size}.")
    spacing = float(centers[-1] - centers[0]) / (size - 1)
    even = centers[0] + spacing * np.arange(size)
    if not (spacing > 0 and bool((np.abs(centers - even) <= 1e-2 * spacing).all())):
        raise ValueError(f"Expected increasing, evenly spaced centers in {what} but got {centers[:4].tolist()} ...")
    if every < 1 or size % every or size // every < 2:
        raise ValueError(
            f"Expected every to divide the {size} points along {name} and to leave two of them but got {every}: "
            "what is left would be spaced unevenly where the axis closes or ends."
        )
    length = spacing * size
    points = torch.from_numpy(centers[::every].astype(np.float32))
    if boundary == "periodic":
        return Axis(name, period=rounded(length)), points
    low, high = (rounded(float(end), scale=length) for end in (centers[0] - spacing / 2, centers[-1] + spacing / 2))
    return Axis(name, bounds=(low, high)), points


def split_numbers(
    total: int, train: int | None, val: int, test: int | None, published: Literal["test first", "test last"]
) -> dict[str, range]:
    """Numbers of each split; by default a tenth is for tests and the rest for training, as the authors' loaders do.

    Args:
        total: trajectories in the file.
        train: how many are for training and validation; by default all but the tests.
        val: cut from the end of those; the authors have none.
        test: how many are for tests; by default a tenth.
        published: where the authors' loader of this layout takes the tests from.

    Raises:
        ValueError: if splits overlap, are negative, or nothing is chosen.

    Example:
        >>> split_numbers(20, None, 3, None, "test first")
        {'train': range(2, 17), 'val': range(17, 20), 'test': range(0, 2)}
    """
    if test is None:
        # As they round: down for tests that come first, down for training where those come last.
        share = int(total * TEST_SHARE) if published == "test first" else total - int(total * (1 - TEST_SHARE))
        test = max(min(share, total - (train or 0)), 0)
    elif test > total:
        raise ValueError(f"Expected test <= {total}, the number of trajectories in the file, but got {test}.")
    numbers = splits_in_file_order(total, total - max(test, 0) if train is None else train, val, test)
    if published == "test last":
        return numbers
    shift = len(numbers.get("test", ()))
    return {
        split: range(shift) if split == "test" else range(chosen.start + shift, chosen.stop + shift)
        for split, chosen in numbers.items()
    }


def require_reals(file: Hdf5File, name: str) -> tuple[int, ...]:
    """Shape of an array of real numbers.

    Raises:
        ValueError: if there is none of this name, it holds something else, or nothing.
    """
    array = file.array(name)
    if array.dtype.kind != "f" or 0 in array.shape:
        raise ValueError(f"Expected real numbers in {name!r} of {file.path} but found {array.shape} of {array.dtype}.")
    return array.shape


def number_in_name(path: Path, prefix: str) -> float | None:
    """The number that follows a prefix in a word of a file's name.

    ``M01`` is no number here: in PDEBench's names it means 0.1.

    Example:
        >>> path = Path("2D_CFD_Rand_M0.1_Eta1.e-8_Zeta1e-08_periodic_512_Train.hdf5")
        >>> number_in_name(path, "M"), number_in_name(path, "Eta"), number_in_name(path, "Nu")
        (0.1, 1e-08, None)
    """
    form = re.compile(rf"{prefix}((?:0|[1-9]\d*)(?:\.\d*)?(?:e[+-]?\d+)?)")
    found = [form.fullmatch(word) for word in path.stem.split("_")]
    return next((float(match[1]) for match in found if match), None)


def stated_number(file: Hdf5File, attribute: str, prefix: str, given: float | None = None) -> float | None:
    """A parameter: as given, else the file's attribute, else the number in its name; ``None`` if nothing states it.

    Raises:
        ValueError: if attribute and name disagree, or it is no finite number.
    """
    named = number_in_name(file.path, prefix)
    inside = file.number(attribute) if given is None else None
    if inside is not None:
        if named is not None and not abs(inside - named) <= 1e-3 * abs(inside):
            raise ValueError(
                f"Expected one {attribute} but the attribute of {file.path} says {inside:g} and its name {named:g}. "
                "Give the file the name under which it was published, or state the parameter."
            )
        given = inside
    value = named if given is None else given
    if value is not None and not math.isfinite(value):
        raise ValueError(f"Expected a finite {attribute} for {file.path} but got {value}.")
    return value


def source_attributes(path: Path, sampling: Sampling) -> dict[str, Any]:
    """Attributes of metadata that say what was read."""
    source: dict[str, Any] = {"source_file": path.name}
    if path.is_file():
        source["source_bytes"] = path.stat().st_size
    return {**source, **sampling.attributes}

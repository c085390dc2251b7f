"""What readers of PDEArena's layouts share: a group named as the split, stored trajectories, frames cut from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.bad_trajectories import first_fault, require_sound, warn_of_left_out
from pdesurrogate.data.adapters.base import LeftOut
from pdesurrogate.data.adapters.shards import SPLIT_WORDS
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

Starts = Literal["first", "all"]


@dataclass(frozen=True)
class FrameChoice:
    """Every ``stride``-th stored frame from ``first_frame`` on.

    Attributes:
        first_frame: number of the first stored frame.
        stride: stored frames between frames.
        starts: with ``all``, training trajectories begin at each of ``stride`` stored frames from the first on, so that
            every pair of frames that far apart is there; otherwise, and for other splits, at the first alone.

    Raises:
        ValueError: if a number is out of range or ``starts`` is another word.

    Example:
        >>> FrameChoice(first_frame=4, stride=8).of(88, "train")
        [range(4, 88, 8)]
    """

    first_frame: int = 0
    stride: int = 1
    starts: Starts = "first"

    def __post_init__(self) -> None:
        if self.first_frame < 0 or self.stride < 1:
            raise ValueError(f"Expected first_frame >= 0 and stride >= 1 but got {self.first_frame} and {self.stride}.")
        if self.starts not in ("first", "all"):
            raise ValueError(f"Expected starts 'first' or 'all' but got {self.starts!r}.")

    def of(self, stored: int, split: str) -> list[range]:
        """Stored frames of each trajectory that is cut from one of ``stored`` frames; at least two in each.

        Raises:
            ValueError: if fewer than two are left.
        """
        starts = range(self.stride if split == "train" and self.starts == "all" else 1)
        cuts = [range(self.first_frame + start, stored, self.stride) for start in starts]
        if len(cuts[0]) < 2:
            raise ValueError(
                f"Expected at least two of {stored} stored frames but first_frame {self.first_frame} and stride "
                f"{self.stride} leave {len(cuts[0])}; choose smaller numbers."
            )
        return [frames for frames in cuts if len(frames) > 1]


@dataclass(frozen=True)
class Sample:
    """One stored trajectory.

    Attributes:
        name: file and number, for messages.
        context: unbatched.
        read_into: ``read_into(frames, out)`` fills ``out (time, channel, *space)`` with the stored ``frames``.
    """

    name: str
    context: Context
    read_into: Callable[[range, Tensor], None]


class SampledSet:
    """Stored trajectories by split, all with the same frames, and what is cut from them.

    Frames that hold NaN or infinity, or nothing but zeros in every channel, are refused when they are read.

    Args:
        samples: of each split, in order.
        metadata: of what is cut from them.
        times: ``(stored,)`` of the stored frames, float64.
        space: points along each axis.
        choice: which of the stored frames.
        skip_bad_trajectories: look at the last of the stored frames of every sample now and leave out those that cannot
            be read.
        path: of the set, for messages.
        probed_frames: how many of the last ones are looked at.

    Raises:
        ValueError: if too few frames are chosen or no trajectory is left.
    """

    def __init__(
        self,
        samples: Mapping[str, Sequence[Sample]],
        metadata: Metadata,
        times: Tensor,
        space: tuple[int, ...],
        choice: FrameChoice,
        *,
        skip_bad_trajectories: bool,
        path: Path,
        probed_frames: int = 1,
    ) -> None:
        self.metadata = metadata
        self.left_out: list[LeftOut] = []
        self._times, self._space, self._path = times, space, path
        self._probed = range(max(len(times) - probed_frames, 0), len(times))
        self._samples = {split: list(found) for split, found in samples.items()}
        if skip_bad_trajectories:
            self._samples = {split: [s for s in found if self._is_sound(s)] for split, found in self._samples.items()}
            warn_of_left_out(path, self.left_out, stacklevel=4)
        self._samples = {split: found for split, found in self._samples.items() if found}
        if not self._samples:
            raise ValueError(f"Expected at least one whole trajectory in {path} but there is none.")
        self._cuts = {split: choice.of(len(times), split) for split in self._samples}

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one trajectory."""
        return tuple(self._samples)

    def trajectories(self, split: str) -> list[Trajectory]:
        """Lazy trajectories of a split.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._samples:
            raise ValueError(f"Expected one of the splits {self.splits} of {self._path} but got {split!r}.")
        return [
            Trajectory(
                self.metadata,
                sample.context,
                self._times[frames.start :: frames.step],
                partial(_read_into, sample, frames),
                (len(frames), len(self.metadata.channels), *self._space),
            )
            for sample in self._samples[split]
            for frames in self._cuts[split]
        ]

    def _is_sound(self, sample: Sample) -> bool:
        out = torch.empty(len(self._probed), len(self.metadata.channels), *self._space)
        try:
            sample.read_into(self._probed, out)
            found = first_fault(out)
            fault = f"holds {found[1]} in stored frame {self._probed[found[0]]}" if found else ""
        except ValueError as error:
            fault = f"cannot be read ({error})"
        if fault:
            self.left_out.append(LeftOut(sample.name, fault))
        return not fault


def _read_into(sample: Sample, frames: range, start: int, out: Tensor) -> None:
    chosen = frames[start : start + len(out)]
    sample.read_into(chosen, out)
    require_sound(out, what=sample.name, start=start)


def chosen_frames(frames: range) -> slice:
    """The selection of stored frames along an axis of time.

    Example:
        >>> chosen_frames(range(4, 88, 8)[1:3])
        slice(12, 21, 8)
    """
    return slice(frames[0], frames[-1] + 1, frames.step)


def put(values: npt.NDArray[Any], out: Tensor) -> None:
    """Round what a file holds to single precision in place; what is too large for that becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out.numpy(), values, casting="same_kind")


def group_of_split(file: Hdf5File, split: str) -> str:
    """The group of a file that is named as its split is: ``valid`` for ``val``.

    Raises:
        ValueError: if there is none, or another one beside it.

    Example:
        >>> import tempfile, h5py
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(f"{folder}/set_valid.h5", "w") as file:
        ...         _ = file.create_group("valid")
        ...     group_of_split(Hdf5File(f"{folder}/set_valid.h5"), "val")
        'valid'
    """
    found = [name for name in file.members() if SPLIT_WORDS.get(name) == split]
    if len(found) != 1:
        words = [word for word, meant in SPLIT_WORDS.items() if meant == split]
        raise ValueError(
            f"Expected one group named {' or '.join(words)} in {file.path}, as the names of its file and folder say, "
            f"but it holds {file.members() or 'nothing'}. Put the file where its data belong."
        )
    return found[0]


def read_numbers(file: Hdf5File, name: str, shapes: Sequence[tuple[int, ...]], what: str) -> npt.NDArray[np.float64]:
    """A small array in double precision, whose shape is looked at before it is read.

    Args:
        file: that it is in.
        name: of the array.
        shapes: that it may have.
        what: it has an entry for each of, for messages.

    Raises:
        ValueError: if it is missing or has another shape.
    """
    found = file.array(name).shape
    if found not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"Expected numbers {wanted} in {name!r} of {file.path}, {what}, but got {found}.")
    return np.array(file.read(name), dtype=np.float64)


def require_one_shape(file: Hdf5File, names: Sequence[str], axes: Sequence[str]) -> tuple[int, ...]:
    """The shape that arrays of real numbers have in common.

    Args:
        file: that they are in.
        names: of the arrays.
        axes: what their axes are, for messages.

    Raises:
        ValueError: if one is missing, holds other numbers, or shapes differ or have another number of axes.
    """
    arrays = [file.array(name) for name in names]
    for array in arrays:
        if array.dtype.kind != "f":
            raise ValueError(f"Expected real numbers in {array.name!r} of {file.path} but got {array.dtype}.")
        if array.shape != arrays[0].shape or len(array.shape) != len(axes):
            shapes = ", ".join(f"{each.name} {each.shape}" for each in arrays)
            raise ValueError(f"Expected arrays ({', '.join(axes)}) of one shape in {file.path} but got {shapes}.")
    return arrays[0].shape

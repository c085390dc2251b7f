"""The compressible flows of the SineNet paper: one HDF5 file ``2D_rand_MODE_Eta1e-08_Zeta1e-08_M0.1_D.h5`` each split.

Zhang, Helwig, Lin, Xie, Fu, Wojtowytsch & Ji, *SineNet: Learning Temporal Dynamics in Time-Dependent Partial
Differential Equations*, ICLR 2024, arXiv:2403.19507. The card ``datasets/sinenet_compressible`` says what the files are
and what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.base import PublishedStatistics
from pdesurrogate.data.adapters.common import frame_times
from pdesurrogate.data.adapters.pdearena.published import sinenet_statistics
from pdesurrogate.data.adapters.pdearena.stored import (
    FrameChoice,
    Sample,
    SampledSet,
    Starts,
    chosen_frames,
    group_of_split,
    put,
    read_numbers,
    require_one_shape,
)
from pdesurrogate.data.adapters.pdebench.sampling import rounded
from pdesurrogate.data.adapters.shards import in_natural_order, shards_of_splits
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context

# Of every fourth cell of a finer grid the mean is stored, which is taken for the value at its center.
_CHANNELS = (
    Channel("density", "mass/length^3", "density", "node"),
    Channel("pressure", "mass/(length time^2)", "pressure", "node"),
    Channel("velocity_x", "length/time", "velocity along x", "node", "velocity"),
    Channel("velocity_y", "length/time", "velocity along y", "node", "velocity"),
)
_ARRAYS = ("D", "P", "Vx", "Vy")
_NAMED = ("shear_viscosity", "bulk_viscosity", "mach")
_PARAMETERS = (*_NAMED, "gamma")
_NAME = re.compile(r"_Eta([^_]+)_Zeta([^_]+)_M([^_]+)_")
_PUBLISHED = (1e-8, 1e-8, 0.1)
# Of the spacing of points.
_EVEN = 1e-3
# Cells for each stored point along an axis, at most.
_FINEST = 64


class SineNetCompressible(SampledSet):
    """Compressible flow in a periodic square; an `Adapter`.

    Frames are density, pressure and velocity, in that order, which is SineNet's; x is the first axis. Points are where
    they were taken from the finer grid: every fourth center of its cells, so that the first is half a fine cell from
    the corner. Of its times the last is left out where there is one more than frames. Parameters are shear_viscosity
    (``Eta`` of the file's name) and bulk_viscosity (``Zeta``), by which the solver multiplies the density, mach (``M``)
    of the first frame, and gamma, the ratio of heat capacities.

    Trajectories come in the natural order of the groups; groups may have different numbers of them. Where the solver
    gave up it left frames of zeros: these are refused when they are read. The authors left out a whole group for one
    of them, so ``skip_bad_trajectories`` keeps more than their 5400, 1300 and 1300.

    Args:
        path: the folder of the files, or one of them.
        gamma: not in the files; by default that of the authors' configuration.
        first_frame: number of the first stored frame.
        stride: stored frames between frames.
        starts: where training trajectories begin, see `FrameChoice`.
        skip_bad_trajectories: go on without trajectories that cannot be read, see `left_out`; their last two frames are
            looked at now.

    Raises:
        ValueError: if there are no files or two for one split, a name has no split's word or no parameters, a file is
            truncated, lacks an array or the group of its split, or shapes, points or times disagree. Values are checked
            when they are read: NaN, infinity and frames of zeros are refused.
    """

    def __init__(
        self,
        path: str | Path,
        gamma: float = 5 / 3,
        first_frame: int = 0,
        stride: int = 1,
        starts: Starts = "first",
        skip_bad_trajectories: bool = False,
    ) -> None:
        if not gamma > 1:
            raise ValueError(f"Expected gamma > 1 but got {gamma}.")
        self.path = Path(path)
        choice = FrameChoice(first_frame, stride, starts)
        files = {split: found[0] for split, found in shards_of_splits(self.path, one_file=True).items()}
        self._named = _common_parameters(list(files.values()))
        batches = {split: _batches(file, split) for split, file in files.items()}
        every = [batch for found in batches.values() for batch in found]
        first = every[0]
        for batch in every:
            batch.require_like(first)
        context = Context(
            (torch.from_numpy(first.x).float(), torch.from_numpy(first.y).float()),
            torch.tensor([*self._named, gamma], dtype=torch.float32),
        )
        samples = {
            split: [sample for batch in found for sample in batch.samples(context)] for split, found in batches.items()
        }
        interval = rounded(float(first.times[1] - first.times[0]))
        periods = [_period(points) for points in (first.x, first.y)]
        metadata = Metadata(
            "sinenet_compressible",
            Grid((Axis("x", periods[0], "length"), Axis("y", periods[1], "length"))),
            _CHANNELS,
            interval * stride,
            _PARAMETERS,
            "time",
            {"first_frame": first_frame, "stride": stride},
        )
        # A run that gave up has zeros up to its last frame, where the solver puts what it had.
        super().__init__(
            samples,
            metadata,
            first.times,
            (len(first.x), len(first.y)),
            choice,
            skip_bad_trajectories=skip_bad_trajectories,
            path=self.path,
            probed_frames=2,
        )

    def published_statistics(self) -> PublishedStatistics:
        """Those that SineNet's networks were trained with.

        Raises:
            ValueError: if the parameters are not those of the published set.
        """
        if self._named != _PUBLISHED:
            raise ValueError(
                f"Expected {_NAMED} of {_PUBLISHED}, for which statistics were published, but {self.path} has "
                f"{self._named}. Gather statistics of its own."
            )
        return sinenet_statistics("CFD")


@dataclass(frozen=True)
class _Batch:
    """Trajectories that the generator made at a time: one group of a file."""

    file: Hdf5File
    group: str
    trajectories: int
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    times: Tensor

    @property
    def name(self) -> str:
        return f"group {self.group} of {self.file.path}"

    def require_like(self, first: _Batch) -> None:
        """Refuse a batch with other points or times than the first; numbers of trajectories may differ.

        Raises:
            ValueError: naming both and what differs.
        """
        for what, ours, theirs in (
            ("points along x", self.x, first.x),
            ("points along y", self.y, first.y),
            ("times", self.times.numpy(), first.times.numpy()),
        ):
            if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-6, atol=1e-9):
                raise ValueError(
                    f"Expected {len(theirs)} {what}, {theirs[0]:g} to {theirs[-1]:g} as in {first.name}, but "
                    f"{self.name} has {len(ours)}, {ours[0]:g} to {ours[-1]:g}. They are of different sets."
                )

    def samples(self, context: Context) -> list[Sample]:
        """All trajectories of the batch."""
        return [
            Sample(f"trajectory {number} of {self.name}", context, partial(self._read_into, number))
            for number in range(self.trajectories)
        ]

    def _read_into(self, number: int, frames: range, out: Tensor) -> None:
        every = slice(None)
        for channel, name in enumerate(_ARRAYS):
            values = self.file.read(f"{self.group}/{name}", (number, chosen_frames(frames), every, every, 0))
            put(values, out[:, channel])


def _batches(path: Path, split: str) -> list[_Batch]:
    """All groups of a file, in natural order."""
    file = Hdf5File(path)
    split_group = group_of_split(file, split)
    keys = [name.as_posix() for name in in_natural_order(Path(key) for key in file.members(split_group))]
    if not keys:
        raise ValueError(
            f"Expected a group for each batch of trajectories in {split_group!r} of {path} but it is empty."
        )
    return [_batch(file, f"{split_group}/{key}") for key in keys]


def _batch(file: Hdf5File, group: str) -> _Batch:
    names = [f"{group}/{name}" for name in _ARRAYS]
    shape = require_one_shape(file, names, ("trajectory", "time", "x", "y", "z"))
    count, frames, nx, ny, nz = shape
    if nz != 1 or min(frames, nx, ny) < 2:
        raise ValueError(
            f"Expected at least two frames and points along x and y, and one along z, in group {group!r} of "
            f"{file.path} but got {shape}."
        )
    return _Batch(file, group, count, *_points(file, group, (nx, ny)), _times(file, group, frames))


def _points(
    file: Hdf5File, group: str, sizes: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where the fields were taken from: the files hold the places of all cells of the finer grid."""
    lines = []
    for axis, size in zip("xy", sizes, strict=True):
        name = f"{group}/{axis}"
        shape = file.array(name).shape
        if len(shape) != 1 or not 0 < shape[0] <= _FINEST * size or shape[0] % size:
            raise ValueError(
                f"Expected a multiple of {size} places in {name!r} of {file.path}, from which the {size} points of "
                f"the fields were taken at even steps, but got {shape}."
            )
        fine = read_numbers(file, name, [shape], "one for each cell")
        line = fine[:: len(fine) // size]
        gaps = np.diff(line)
        if not (gaps[0] > 0 and bool((np.abs(gaps - gaps[0]) <= _EVEN * gaps[0]).all())):
            raise ValueError(
                f"Expected increasing, evenly spaced places in {name!r} of {file.path} but got {fine[:3].tolist()} "
                f"... {fine[-1]:g}."
            )
        lines.append(line)
    return lines[0], lines[1]


def _times(file: Hdf5File, group: str, frames: int) -> Tensor:
    """Of the frames: the generator stores one time more than it has frames."""
    name = f"{group}/t"
    each = "one for each frame, and one more perhaps"
    stored = torch.from_numpy(read_numbers(file, name, [(frames,), (frames + 1,)], each))
    even = frame_times(stored[:frames], frames, None, 0.0, what=f"{name!r} of {file.path}")
    # They were made in single precision.
    spacing, start = rounded(float(even[1] - even[0])), rounded(float(even[0]), scale=float(even[-1] - even[0]))
    return start + spacing * torch.arange(frames, dtype=torch.float64)


def _period(points: npt.NDArray[np.float64]) -> float:
    """Of evenly spaced points: one spacing further than the last. Places were made in single precision."""
    return rounded(float(points[-1] - points[0]) * len(points) / (len(points) - 1))


def _common_parameters(paths: Sequence[Path]) -> tuple[float, float, float]:
    """What the names of all files say."""
    said = {path: _named_parameters(path) for path in paths}
    (one, ours), *others = said.items()
    for other, theirs in others:
        if theirs != ours:
            raise ValueError(
                f"Expected files of one set but the names of {one} and {other} say {_NAMED} of {ours} and "
                f"{theirs}; give each set a folder of its own."
            )
    return ours


def _named_parameters(path: Path) -> tuple[float, float, float]:
    found = _NAME.search(path.name)
    try:
        eta, zeta, mach = map(float, found.groups() if found else ("", "", ""))
    except ValueError as error:
        raise ValueError(
            f"Expected viscosities and Mach number in a name such as 2D_rand_train_Eta1e-08_Zeta1e-08_M0.1_D.h5 but "
            f"got {path.name}. The file itself does not hold them; give it back its name."
        ) from error
    return eta, zeta, mach

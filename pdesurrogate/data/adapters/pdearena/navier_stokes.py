"""PDEArena's smoke in a closed box, standard and conditioned: HDF5 shards ``NavierStokes2D_MODE_SEED_BUOYANCY[_N].h5``.

Gupta & Brandstetter, *Towards Multi-spatiotemporal-scale Generalized PDE Modeling*, TMLR 2023, arXiv:2209.15616. The
cards ``datasets/pdearena_navier_stokes`` and ``datasets/pdearena_navier_stokes_conditioned`` say what the files are and
what is wrong with them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.base import PublishedStatistics
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
from pdesurrogate.data.adapters.shards import shards_of_splits
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context

Velocity = Literal["faces", "centers"]

# PhiFlow keeps velocity on faces; the generator stores all of them but the last along each axis, which is a wall.
_CHANNELS = (
    Channel("smoke", "1", "what rises", "cell"),
    Channel("velocity_x", "length/time", "velocity along x", "face_x", "velocity"),
    Channel("velocity_y", "length/time", "velocity along y", "face_y", "velocity"),
)
_ARRAYS = ("u", "vx", "vy")
# Those of `simulators.enclosed.problems.SmokePlume`; the fluid's density is 1 and smoke does not diffuse.
_PARAMETERS = ("buoyancy", "density", "dynamic_viscosity", "diffusivity", "size")
_NAME = re.compile(r"_(\d+)_(\d+\.\d{5})(?:_\d+)?$")
# Of stored numbers that ought to be the same: they are in double precision, and in a name with five decimals.
_RELATIVE, _IN_A_NAME = 1e-6, 5.1e-6
# Interval of stored frames of each published set, and the task of `published.SINENET`.
_TASKS = {6.0: "NavierStokes2D", 1.5: "Cond-NavierStokes2D"}


class _Times(NamedTuple):
    start: float
    interval: float
    frames: int

    def all(self) -> Tensor:
        return self.start + self.interval * torch.arange(self.frames, dtype=torch.float64)


class PdeArenaNavierStokes(SampledSet):
    """Smoke that rises in a closed box, and the velocity that carries it; an `Adapter`.

    Frames are ``smoke`` in cells, ``velocity_x`` and ``velocity_y`` on the faces below cells, in that order, which is
    SineNet's; x is the first axis, buoyancy acts along y. Velocity's forward difference is its divergence. Parameters
    are those of `simulators.enclosed.problems.SmokePlume`: buoyancy of each trajectory, density 1, dynamic_viscosity,
    diffusivity 0 and size. Trajectories come in the natural order of the files' names.

    Cells are ``length / n`` wide and frames ``dt`` apart. The generator stores ``dx = length / (n - 1)``, and in ``x``
    and ``t`` points that run from end to end, which is wrong; they are only compared with what it is known to write.

    Args:
        path: the folder of the files, or one of them.
        length: side of the box.
        viscosity: kinematic; not in the files.
        first_frame: number of the first stored frame.
        stride: stored frames between frames: 4 of the conditioned set are one of the standard set.
        starts: where training trajectories begin, see `FrameChoice`. Archives need ``first``, as their trajectories
            have the same times.
        velocity: ``faces`` as stored, or ``centers`` of cells: the mean of the two faces of each cell, the last of
            which is a wall. It is smoother, and its divergence is not zero; but The Well's layout knows no faces.
        skip_bad_trajectories: go on without trajectories that cannot be read, see `left_out`; their last frame is
            looked at now.

    Raises:
        ValueError: if there are no files, a name has no split's word, a file is truncated, lacks an array or the group
            of its split, or shapes, times or buoyancy disagree. Values are checked when they are read: NaN, infinity
            and frames of zeros are refused.
    """

    def __init__(
        self,
        path: str | Path,
        length: float = 32.0,
        viscosity: float = 0.01,
        first_frame: int = 0,
        stride: int = 1,
        starts: Starts = "first",
        velocity: Velocity = "faces",
        skip_bad_trajectories: bool = False,
    ) -> None:
        if not (length > 0 and viscosity >= 0):
            raise ValueError(f"Expected length > 0 and viscosity >= 0 but got {length} and {viscosity}.")
        if velocity not in ("faces", "centers"):
            raise ValueError(f"Expected velocity 'faces' or 'centers' but got {velocity!r}.")
        self.path = Path(path)
        self._velocity: Velocity = velocity
        choice = FrameChoice(first_frame, stride, starts)
        shards = {
            split: [_Shard(file, split) for file in files] for split, files in shards_of_splits(self.path).items()
        }
        every = [shard for found in shards.values() for shard in found]
        for shard in every:
            shard.require_like(every[0])
        self._warn_of_spacing(every, length)
        self._buoyancies = {value for shard in every for value in shard.buoyancies}
        times, space = every[0].times, every[0].space
        self._stored_interval = times.interval
        lines = [torch.arange(points, dtype=torch.float64) + 0.5 for points in space]
        x, y = ((line * (length / points)).float() for line, points in zip(lines, space, strict=True))
        samples = {
            split: [sample for shard in found for sample in shard.samples((x, y), viscosity, length, velocity)]
            for split, found in shards.items()
        }
        metadata = Metadata(
            "pdearena_navier_stokes" + ("_conditioned" if self._is_conditioned else ""),
            Grid((Axis("x", bounds=(0.0, length), units="length"), Axis("y", bounds=(0.0, length), units="length"))),
            _CHANNELS if velocity == "faces" else tuple(replace(channel, location="cell") for channel in _CHANNELS),
            times.interval * stride,
            _PARAMETERS,
            "time",
            {
                "first_frame": first_frame,
                "stride": stride,
                "velocity": velocity,
                "note": "cells are length / n wide and frames dt apart; dx, x and t of the files are wrong",
            },
        )
        super().__init__(
            samples, metadata, times.all(), space, choice, skip_bad_trajectories=skip_bad_trajectories, path=self.path
        )

    def published_statistics(self) -> PublishedStatistics:
        """Those that SineNet's networks were trained with; PDEArena has none.

        Raises:
            ValueError: if this is neither the standard set (buoyancy 0.5, stored frames 6 apart) nor the conditioned
                one (buoyancy that varies, 1.5 apart), or velocity is not on faces, as it was for them.
        """
        if self._velocity != "faces":
            raise ValueError(
                "Expected velocity on faces, of which statistics were published, but it is taken to centers. Gather "
                "statistics from the data."
            )
        task = _TASKS.get(round(self._stored_interval, 6))
        if task != ("Cond-NavierStokes2D" if self._is_conditioned else "NavierStokes2D"):
            raise ValueError(
                f"Expected one of the published sets, of buoyancy 0.5 with stored frames 6 apart or of several with "
                f"frames 1.5 apart, but {self.path} has buoyancy {min(self._buoyancies):g} to "
                f"{max(self._buoyancies):g} and frames {self._stored_interval:g} apart. Gather statistics of its own."
            )
        return sinenet_statistics(task)

    @property
    def _is_conditioned(self) -> bool:
        return any(abs(value - 0.5) > _IN_A_NAME for value in self._buoyancies)

    def _warn_of_spacing(self, shards: Sequence[_Shard], length: float) -> None:
        """Warn once where a spacing is neither that of cells nor what the generator is known to write."""
        for shard in shards:
            for axis, (points, spacing) in enumerate(zip(shard.space, shard.spacings, strict=True)):
                if not any(abs(spacing - length / n) <= _RELATIVE * spacing for n in (points, points - 1)):
                    warnings.warn(
                        f"Expected d{'xy'[axis]} = {length / points:g}, the width of {points} cells in a box of side "
                        f"{length:g}, or {length / (points - 1):g}, which PDEArena's generator writes in its place, "
                        f"but {shard.file.path} says {spacing:g}. Cells are taken to be {length / points:g} wide; "
                        "give the length of the box if it is another.",
                        stacklevel=3,
                    )
                    return


class _Shard:
    """One file: trajectories of one split."""

    def __init__(self, path: Path, split: str) -> None:
        self.file = Hdf5File(path)
        self.group = group_of_split(self.file, split)
        self._arrays = [f"{self.group}/{name}" for name in _ARRAYS]
        shape = require_one_shape(self.file, self._arrays, ("trajectory", "time", "x", "y"))
        self._count, frames, *space = shape
        self.space = tuple(space)
        if min(shape[1:]) < 2:
            raise ValueError(f"Expected at least two frames and two cells along x and y in {path} but got {shape}.")
        self.times = self._read_times(frames)
        self.spacings = (self._one_value("dx"), self._one_value("dy"))
        self.buoyancies = self._read_buoyancies()

    def require_like(self, first: _Shard) -> None:
        """Refuse a file whose frames, cells or times are not those of the first; numbers of trajectories may differ.

        Raises:
            ValueError: naming both.
        """
        ours, theirs = (self.times.frames, *self.space), (first.times.frames, *first.space)
        if ours != theirs:
            raise ValueError(
                f"Expected {theirs} frames and cells, as in {first.file.path}, but {self.file.path} has {ours}. They "
                "are parts of different sets; give each a folder of its own."
            )
        if any(abs(a - b) > _RELATIVE * first.times.interval for a, b in zip(self.times, first.times, strict=True)):
            raise ValueError(
                f"Expected frames {first.times.interval:g} apart from {first.times.start:g} on, as in "
                f"{first.file.path}, but in {self.file.path} they are {self.times.interval:g} apart from "
                f"{self.times.start:g} on. They are parts of different sets; give each a folder of its own."
            )

    def samples(
        self, coordinates: tuple[Tensor, ...], viscosity: float, length: float, velocity: Velocity
    ) -> list[Sample]:
        """All trajectories of the file."""
        return [
            Sample(
                f"trajectory {number} of {self.file.path}",
                Context(coordinates, torch.tensor([buoyancy, 1.0, viscosity, 0.0, length], dtype=torch.float32)),
                partial(self._read_into, number, velocity),
            )
            for number, buoyancy in enumerate(self.buoyancies)
        ]

    def _read_into(self, number: int, velocity: Velocity, frames: range, out: Tensor) -> None:
        for channel, name in enumerate(self._arrays):
            values = self.file.read(name, (number, chosen_frames(frames)))
            put(values if channel == 0 or velocity == "faces" else _centered(values, channel), out[:, channel])

    def _one_value(self, name: str) -> float:
        """What an array with an entry for each trajectory says of all of them."""
        values = self._per_trajectory(name)
        if not len(values):
            raise ValueError(f"Expected at least one trajectory in {self.file.path} but there is none; remove it.")
        if not (0 < values[0] < np.inf and bool((np.abs(values - values[0]) <= _RELATIVE * values[0]).all())):
            raise ValueError(
                f"Expected one positive number in all entries of {name!r} of {self.file.path} but got "
                f"{values.min():g} to {values.max():g}."
            )
        return float(values[0])

    def _per_trajectory(self, name: str) -> npt.NDArray[np.float64]:
        return read_numbers(self.file, f"{self.group}/{name}", [(self._count,)], "one for each trajectory")

    def _read_times(self, frames: int) -> _Times:
        """From the first entry of ``t`` and from ``dt``; the rest of ``t`` runs to the end of the last interval."""
        interval = self._one_value("dt")
        each = "one for each trajectory and frame"
        stored = read_numbers(self.file, f"{self.group}/t", [(self._count, frames)], each)
        steps = np.arange(frames)
        known = [stored[0, 0] + spacing * steps for spacing in (interval, interval * frames / (frames - 1))]
        if not any(bool((np.abs(stored - times) <= _RELATIVE * interval).all()) for times in known):
            raise ValueError(
                f"Expected times in 't' of {self.file.path} that are dt = {interval:g} apart, or {frames}/{frames - 1} "
                f"of that as PDEArena's generator writes them, but got {stored[0, :3].tolist()} ... "
                f"{stored[0, -1]:g}. Correct t or dt in the file."
            )
        return _Times(float(stored[0, 0]), interval, frames)

    def _read_buoyancies(self) -> list[float]:
        """Of each trajectory, from the file, which older ones do not say, and the name."""
        named = _NAME.search(self.file.path.stem)
        if f"{self.group}/buo_y" not in self.file.arrays:
            if named is None:
                raise ValueError(
                    f"Expected the buoyancy in 'buo_y' of {self.file.path} or in its name, as in "
                    "NavierStokes2D_train_197910_0.50000_100.h5, but it is in neither; rename the file."
                )
            return [float(named[2])] * self._count
        values = self._per_trajectory("buo_y")
        if not bool(np.isfinite(values).all()):
            raise ValueError(f"Expected finite numbers in 'buo_y' of {self.file.path} but got {values.tolist()}.")
        if named is not None and bool((np.abs(values - float(named[2])) > _IN_A_NAME).any()):
            raise ValueError(
                f"Expected the buoyancy {named[2]} that the name of {self.file.path} says but it holds "
                f"{values.min():g} to {values.max():g}. Rename the file."
            )
        return [float(value) for value in values]


def _centered(faces: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Mean of the two faces of each cell along an axis of ``(time, x, y)``; the last one is a wall, at rest."""
    faces = np.moveaxis(faces, axis, -1)
    behind = np.concatenate([faces[..., 1:], np.zeros_like(faces[..., :1])], axis=-1)
    return np.moveaxis((faces + behind) / 2, -1, axis)

"""PDEBench's incompressible flow with particles: ``ns_incom_inhom_2d_512-*.h5``.

Takamoto et al., *PDEBench: An extensive benchmark for scientific machine learning*, NeurIPS 2022, arXiv:2210.07182.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from pdesurrogate.data.adapters.common import splits_in_file_order
from pdesurrogate.data.adapters.pdebench.configuration import configuration, number_of
from pdesurrogate.data.adapters.pdebench.runs import Run, RunSet, Variable
from pdesurrogate.data.adapters.pdebench.sampling import (
    Sampling,
    axis_of_centers,
    finite_numbers,
    require_reals,
    sample,
    source_attributes,
)
from pdesurrogate.data.adapters.shards import in_natural_order
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata

_CHANNELS = (
    Channel("velocity_x", "length/time", "velocity along x", location="cell", vector="velocity"),
    Channel("velocity_y", "length/time", "velocity along y", location="cell", vector="velocity"),
    Channel("particles", "1", "density of the particles that the force acts on", location="cell"),
)


class PdeBenchIncompressible(RunSet):
    """A folder of files, or one of them, of flow between walls; an `Adapter`.

    ``velocity (run, time, x, y, 2)`` and ``particles (run, time, x, y, 1)`` become three channels at the centers of
    cells. The velocity was interpolated there from the faces on which it had no divergence, so its divergence at the
    centers is not zero. A few runs lie in each file, not always as many. Frames are packed one by one, so that single
    ones are quick to read.

    ``force (run, x, y, 2)`` is the acceleration of fluid full of particles: the momentum equation has its product with
    ``particles``. It goes into the forcing of contexts, zero for the particles, as soon as trajectories are asked for.

    Args:
        path: the folder of ``*.h5`` files, taken in natural order, or one file.
        train: files for training and validation, from the first.
        val: files cut from the end of those.
        test: files at the end.
        length: side of the box; by default as many as there are cells, on which the authors solved whatever their
            configuration says of a domain size.
        viscosity: kinematic; by default ``NU`` of the configuration in the attribute ``config``.
        interval: time between frames, a multiple of the stored interval.
        every: 2 keeps every second cell along each axis, and so on; no filter.
        forcing: ``context``, or ``none`` to leave it out: archives do not store it.
        skip_bad_trajectories: go on without files that were not finished or are copies of others under another name,
            and without runs whose last frame is not finite or nothing but zeros. Otherwise such files are refused, and
            such frames when read.

    Raises:
        ValueError: if a file is truncated, lacks an array, was not finished, is a copy of another, or has another grid
            or other times than the first.
    """

    def __init__(
        self,
        path: str | Path,
        train: int,
        val: int = 0,
        test: int = 0,
        length: float | None = None,
        viscosity: float | None = None,
        interval: float | None = None,
        every: int = 1,
        forcing: Literal["context", "none"] = "context",
        skip_bad_trajectories: bool = False,
    ) -> None:
        path = Path(path)
        if forcing not in ("context", "none"):
            raise ValueError(f"Expected forcing 'context' or 'none' but got {forcing!r}.")
        shards = [_Shard(each) for each in _files(path)]
        _mark_copies(shards)
        splits = _splits(path, len(shards), train, val, test)
        first = next((shard for shard in shards if not shard.fault), shards[0])
        sampling = _common_times(shards, first, interval, every)
        lines = [_line(name, size, length, every) for name, size in zip("xy", first.space, strict=True)]
        viscosities = [_viscosity(shard, viscosity) for shard in shards]
        if (None in viscosities) and set(viscosities) != {None}:
            raise ValueError(f"Expected NU in the configuration of all files of {path} or of none. Give viscosity=.")
        before = [0, *itertools.accumulate(shard.runs for shard in shards)]
        metadata = Metadata(
            name=path.absolute().stem,
            grid=Grid(tuple(axis for axis, _ in lines)),
            channels=_CHANNELS,
            frame_interval=sampling.interval,
            parameters=() if None in viscosities else ("viscosity",),
            attributes={**source_attributes(path, sampling), "source_files": [shard.path.name for shard in shards]},
        )
        runs = {
            split: [
                run for number in numbers for run in _runs(shards[number], before[number], viscosities[number], forcing)
            ]
            for split, numbers in splits.items()
        }
        super().__init__(
            path, metadata, tuple(points for _, points in lines), sampling, runs,
            skip_bad_trajectories=skip_bad_trajectories,
        )  # fmt: skip


class _Shard:
    """One file: how many runs and frames on which cells, its configuration, and why it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = Hdf5File(path)
        self.text = str(self.file.attributes().get("config", ""))
        self.configuration = configuration(self.text, what=str(path))
        shape = require_reals(self.file, "velocity")
        if len(shape) != 5 or shape[-1] != 2:
            raise ValueError(f"Expected velocity (run, time, x, y, 2) in {path} but found {shape}.")
        self.runs, self.frames, self.space = shape[0], shape[1], shape[2:4]
        for name, wanted in (("particles", (*shape[:-1], 1)), ("force", (shape[0], *self.space, 2))):
            found = require_reals(self.file, name)
            if found != wanted:
                raise ValueError(f"Expected {name} {wanted} in {path}, to go with velocity, but found {found}.")
        times = require_reals(self.file, "t")
        if times not in ((self.runs, self.frames), (self.runs, self.frames + 1)):
            raise ValueError(f"Expected t ({self.runs}, {self.frames}) in {path} but found {times}.")
        written = self.file.number("latestIndex")
        self.fault = ""
        if written is not None and written != self.frames - 1:
            self.fault = f"was not finished: {written + 1:g} of {self.frames} frames were written"

    def is_copy_of(self, other: _Shard) -> bool:
        """Whether both hold one simulation: equal in size, configuration, and the forces of the first run."""
        if self.path.stat().st_size != other.path.stat().st_size or self.text != other.text:
            return False
        return np.array_equal(self.file.read("force", (0,)), other.file.read("force", (0,)))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = in_natural_order(each for pattern in ("*.h5", "*.hdf5") for each in path.glob(pattern))
    if not found:
        raise ValueError(f"Expected files ns_incom_inhom_2d_512-*.h5 in {path} but found none.")
    return found


def _mark_copies(shards: list[_Shard]) -> None:
    """Several published files are the same simulation under two numbers, which would be in two splits."""
    seen: dict[tuple[int, str], list[_Shard]] = {}
    for shard in shards:
        alike = seen.setdefault((shard.path.stat().st_size, shard.text), [])
        original = next((other for other in alike if shard.is_copy_of(other)), None)
        if original is None:
            alike.append(shard)
        elif not shard.fault:
            shard.fault = f"is a copy of {original.path.name}"


def _splits(path: Path, files: int, train: int, val: int, test: int) -> dict[str, range]:
    if train + test > files:
        raise ValueError(
            f"Expected train + test <= {files}, the number of files in {path}, but got {train} + {test}; splits are "
            "made of whole files. Choose smaller ones."
        )
    return splits_in_file_order(files, train, val, test)


def _common_times(shards: list[_Shard], first: _Shard, interval: float | None, every: int) -> Sampling:
    """Those of the first whole file, which all runs of the other whole ones must have."""
    whole = [shard for shard in shards if not shard.fault]
    if not whole:
        raise ValueError(f"Expected at least one whole file but {first.path} {first.fault}. Download it again.")
    wanted = finite_numbers(first.file, "t")[0]
    sampling = sample(wanted, first.frames, interval, every, what=f"'t' of {first.path}")
    for shard in whole:
        times = finite_numbers(shard.file, "t")
        fits = (shard.frames, shard.space) == (first.frames, first.space) and times.shape[1:] == wanted.shape
        if not (fits and np.allclose(times, wanted, rtol=0, atol=1e-3 * sampling.stored_interval)):
            raise ValueError(
                f"Expected all runs on {first.space} cells at the times of the first of {first.path} but those of "
                f"{shard.path} differ ({shard.frames} frames on {shard.space}). Read such files apart."
            )
    return sampling


def _line(name: str, cells: int, length: float | None, every: int) -> tuple[Axis, Tensor]:
    if length is not None and not length > 0:
        raise ValueError(f"Expected a positive length but got {length}.")
    spacing = 1.0 if length is None else length / cells
    centers = spacing * (np.arange(cells) + 0.5)
    return axis_of_centers(centers, name, cells, "bounded", every, what=f"the cells along {name}")


def _viscosity(shard: _Shard, given: float | None) -> float | None:
    value = number_of(shard.configuration, "NU", what=str(shard.path)) if given is None else given
    if value is not None and value < 0:
        raise ValueError(f"Expected viscosity >= 0 but got {value} for {shard.path}.")
    return value


def _runs(shard: _Shard, before: int, viscosity: float | None, forcing: Literal["context", "none"]) -> list[Run]:
    """Those of a file, numbered on from those ``before`` it."""
    return [
        Run(
            before + number,
            f"run {number}",
            shard.file,
            (Variable("velocity", (number,), 2), Variable("particles", (number,), 1)),
            () if viscosity is None else (viscosity,),
            Variable("force", (number,), 2) if forcing == "context" else None,
            shard.fault,
        )
        for number in range(shard.runs)
    ]

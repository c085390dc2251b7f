"""Training windows from files in the layout of The Well: our adapter, The Well's own reader, and h5py kept open.

    THE_WELL_PYTHON=ENVIRONMENT/bin/python python benchmarks/speed/well_windows.py [--quick] [--rounds N]

The Well's reader runs in a child process of the environment that ``THE_WELL_PYTHON`` names, with the_well 1.2.0 as
released (``pip install torch==2.13.0 the-well==1.2.0 --no-deps``, then fsspec, h5py, numpy, PyYAML, einops, xarray).
Without it, those columns say "not run". All read the same windows of the same files in the same random order, and the
values are compared before anything is timed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from timing import print_section, ratio
from torch import Tensor

from pdesurrogate.data.adapters.the_well.adapter import TheWell
from pdesurrogate.data.archive import Archive, ArchiveWriter
from pdesurrogate.data.well_writer import write_well
from pdesurrogate.data.windows import Windows
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata

PEER = Path(__file__).parent / "peers" / "well_reader.py"
TRAJECTORIES, FRAMES, BATCH = 16, 20, 16


class Case(NamedTuple):
    """Windows of ``history + target`` frames on a square grid: scalar fields and a velocity."""

    points: int
    scalars: tuple[str, ...]
    history: int
    target: int
    storage: str


CASES = (
    Case(64, ("density",), 1, 1, "contiguous"),
    Case(64, ("density",), 1, 1, "frames"),
    Case(128, ("density", "pressure"), 4, 4, "contiguous"),
    Case(128, ("density", "pressure"), 4, 4, "frames"),
)


def compare_well_windows(quick: bool, rounds: int | None = None) -> list[str]:
    """Ratios of CPU time, and what each reader makes of the other's files."""
    lines = [
        "## Windows of The Well's layout",
        "",
        "CPU time over ours: of The Well's reader (the_well 1.2.0, `WellDataset[i]`, in a process of its own), of the",
        "same without coordinates and boundary conditions, which it gives by default (bare), and of h5py with the file",
        f"kept open. Ours is `Windows[i]` of the adapter `TheWell`, and in batches of {BATCH} `Windows.__getitems__`",
        f"against theirs with PyTorch's `default_collate`. {TRAJECTORIES} trajectories of {FRAMES} frames in one file,",
        "warm page cache, windows in random order, float32, fields a scalar or two and a velocity. Frames: each is a",
        "chunk. Ours puts channels first, gives the context and checks that all is finite; by hand only the first is",
        "done. In the two last rows a batch has 34 MB, and fresh memory dominates: PyTorch gets it in small pages,",
        "NumPy, into which h5py reads by hand, in large ones. Medians and ranges over the rounds; microseconds for a",
        "window, the shortest. Values are equal bit for bit.",
        "",
        "| grid, frames, storage | a window, kB | theirs | theirs, bare | h5py | theirs, in batches | h5py, in batches "
        "| theirs, us | ours, us | theirs in batches, us | ours in batches, us |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES[:1] if quick else CASES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(_compare(case, Path(folder), rounds or (3 if quick else 15)))
    return [*lines, "", *_agreement(), ""]


def _compare(case: Case, folder: Path, rounds: int) -> str:
    _write(case, folder)
    windows = Windows(TheWell(folder / "well").trajectories("train"), case.history, case.target)
    length, count = case.history + case.target, 4 * BATCH
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(1))[:count].tolist()
    places = [divmod(index, FRAMES - length + 1) for index in order]
    with h5py.File(folder / "well/data/train/noise.hdf5", "r") as file, _readers(case, folder) as theirs:
        read = _h5py_reader(file, case)
        for index, place in zip(order[:4], places, strict=False):
            batch = windows[index]
            ours = torch.cat([batch.history, batch.target])
            assert torch.equal(ours, read([place])[0])
            for reader in theirs.values():
                assert torch.equal(ours, reader.frames(index))
        batches = [order[first : first + BATCH] for first in range(0, count, BATCH)]
        places_of_batches = [places[first : first + BATCH] for first in range(0, count, BATCH)]
        contestants: dict[str, Callable[[], float]] = {
            "ours": lambda: _cpu(windows.__getitem__, order),
            "ours in batches": lambda: _cpu(windows.__getitems__, batches),
            "h5py": lambda: _cpu(read, [[place] for place in places]),
            "h5py in batches": lambda: _cpu(read, places_of_batches),
        }
        contestants |= {name: partial(reader.seconds, order, 1) for name, reader in theirs.items()}
        if theirs:
            contestants["theirs in batches"] = partial(theirs["theirs"].seconds, order, BATCH)
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds + 1):
            for name, timed in contestants.items():
                found = timed() / count
                if number:
                    seconds[name].append(found)
    kilobytes = length * (len(case.scalars) + 2) * 4 * case.points**2 / 1e3
    pairs = [(name, "ours") for name in ("theirs", "bare", "h5py")]
    pairs += [(f"{name} in batches", "ours in batches") for name in ("theirs", "h5py")]
    cells = [ratio(seconds[slow], seconds[fast]) if slow in seconds else "not run" for slow, fast in pairs]
    timed_alone = ("theirs", "ours", "theirs in batches", "ours in batches")
    cells += [f"{1e6 * min(seconds[name]):.0f}" if name in seconds else "" for name in timed_alone]
    title = f"{case.points}x{case.points}x{len(case.scalars) + 2}, {length}, {case.storage}"
    return f"| {title} | {kilobytes:.0f} | " + " | ".join(cells) + " |"


def _write(case: Case, folder: Path) -> Archive:
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    scalars = [Channel(name) for name in case.scalars]
    velocity = [Channel(f"velocity_{axis}", vector="velocity") for axis in "xy"]
    metadata = Metadata("noise", grid, (*scalars, *velocity), frame_interval=1.0)
    points = grid.uniform_coordinates((case.points, case.points))
    shape = (TRAJECTORIES, FRAMES, len(metadata.channels), case.points, case.points)
    with ArchiveWriter(folder / "ours/train.nc", metadata, points, torch.arange(float(FRAMES)), TRAJECTORIES) as writer:
        writer.write(0, torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        writer.finish()
    archive = Archive(folder / "ours")
    write_well(archive, folder / "well", storage="frames" if case.storage == "frames" else "contiguous")
    return archive


def _h5py_reader(file: h5py.File, case: Case) -> Callable[[list[tuple[int, int]]], Tensor]:
    """What one writes by hand: every field of every window read and put where it belongs in the batch."""
    scalars = [file["t0_fields"][name] for name in case.scalars]
    velocity = file["t1_fields/velocity"]
    length = case.history + case.target

    def read(places: list[tuple[int, int]]) -> Tensor:
        out = np.empty((len(places), length, len(scalars) + 2, case.points, case.points), np.float32)
        for row, (trajectory, start) in enumerate(places):
            for channel, field in enumerate(scalars):
                out[row, :, channel] = field[trajectory, start : start + length]
            components = velocity[trajectory, start : start + length]
            for component in range(2):
                out[row, :, len(scalars) + component] = components[..., component]
        return torch.from_numpy(out)

    return read


class _Reader:
    """The Well's reader in its process."""

    def __init__(self, python: str, case: Case, folder: Path, *words: str) -> None:
        arguments = [python, str(PEER), "windows", str(folder / "well"), str(case.history), str(case.target), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._saved = folder / "window.npy"
        self._line()

    def frames(self, index: int) -> Tensor:
        """A window ``(time, channel, *space)``."""
        self._ask(f"read {index} {self._saved}")
        return torch.from_numpy(np.load(self._saved)).movedim(-1, 1)

    def seconds(self, indices: list[int], batch: int) -> float:
        """CPU time of these windows, collated in batches where these are larger than one."""
        return float(self._ask(f"time {batch} {' '.join(map(str, indices))}"))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("Expected an answer from The Well's reader but its process ended.")
        return line


@contextmanager
def _readers(case: Case, folder: Path) -> Iterator[dict[str, _Reader]]:
    python = os.environ.get("THE_WELL_PYTHON")
    found = {} if python is None else {"theirs": _Reader(python, case, folder)}
    if python is not None:
        found["bare"] = _Reader(python, case, folder, "bare")
    try:
        yield found
    finally:
        for reader in found.values():
            reader.close()


def _agreement() -> list[str]:
    """Each reader on a file of the other."""
    python = os.environ.get("THE_WELL_PYTHON")
    if python is None:
        return ["The Well's reader was not run; set THE_WELL_PYTHON."]
    with tempfile.TemporaryDirectory() as folder:
        described, archive = _described(python, Path(folder))
        digest = hashlib.sha256()
        for trajectory in archive.trajectories("train"):
            frames = trajectory.read()[:, [1, 0, 2]].movedim(1, -1).contiguous().numpy()
            for start in range(len(trajectory) - 1):
                digest.update(frames[start : start + 2].tobytes())
        assert described["digest"] == digest.hexdigest()
        assert described["boundary_conditions"] == [[2, 2], [0, 1]]
        example = Path(folder) / "example/data/train/example.hdf5"
        example.parent.mkdir(parents=True)
        subprocess.run([python, str(PEER), "example", str(example)], check=True)
        ours = TheWell(folder + "/example", periodic=["x", "y"])
        with h5py.File(example, "r") as file:
            values = np.moveaxis(file["t1_fields/field"][1], -1, 1)
            assert np.array_equal(ours.trajectories("train")[1].read()[:, 1:3].numpy(), values)
    z, rms = (described["normalized"][name] for name in ("ZScoreNormalization", "RMSNormalization"))
    return [
        "Their reader, unmodified, on a file of ours (8x5 points, x periodic, y from a wall to an open end, a",
        "velocity, a pressure, a parameter): shapes",
        f"{described['shapes']},",
        f"fields {described['fields']}, boundary conditions {described['boundary_conditions']} (0 wall, 1 open, 2",
        f"periodic), parameter {described['constant_scalars']}, all {described['windows']} windows equal bit for bit;",
        f"normalized by our statistics: mean {z[0]:.0e} and deviation {z[1]:.4f}, mean square {rms[2]:.4f};",
        f"`to_xarray`: velocity {described['xarray']['velocity']}. Ours on the file that their `write_dummy_data`",
        f"writes: channels {', '.join(ours.metadata.channel_names)}, parameters",
        f"{', '.join(ours.metadata.parameters)}, values equal; its masks mark no end of its periodic axes, of which",
        "both readers make open ones, ours with a warning.",
    ]


def _described(python: str, folder: Path) -> tuple[dict[str, Any], Archive]:
    """What their reader says of a small file of ours."""
    grid = Grid((Axis("x", period=1.0), Axis("y", bounds=(0.0, 1.0))))
    velocity = [Channel(name, vector="velocity", location="cell") for name in ("u", "v")]
    channels = (velocity[0], Channel("pressure", location="cell"), velocity[1])
    metadata = Metadata("small", grid, channels, 0.1, ("viscosity",))
    points = ((torch.arange(8) + 0.5) / 8, (torch.arange(5) + 0.5) / 5)
    times, viscosity = 0.1 * torch.arange(6, dtype=torch.float64), torch.full((4, 1), 0.01)
    path = folder / "archive/train.nc"
    with ArchiveWriter(path, metadata, points, times, 4, parameters=viscosity) as writer:
        writer.write(0, torch.randn(4, 6, 3, 8, 5, generator=torch.Generator().manual_seed(0)))
        writer.finish()
    archive = Archive(folder / "archive")
    write_well(archive, folder / "well", boundaries={"y": ("wall", "open")})
    run = subprocess.run(
        [python, str(PEER), "describe", str(folder / "well"), "train"], check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout), archive


def _cpu(read: Callable[[Any], object], wanted: Sequence[Any]) -> float:
    """CPU seconds of reading everything that is wanted; nothing is kept, so that memory is used again."""
    start = time.process_time()
    for each in wanted:
        read(each)
    return time.process_time() - start


if __name__ == "__main__":
    print_section(compare_well_windows, __doc__)

"""From a recipe to a data set: which simulator, started how, stored how, and how often.

Trajectories are computed in fixed blocks that are always computed whole, each with its own random generator, because
results depend on the batch size in the last bits and chaos amplifies them. Shards own whole blocks. Long blocks leave
restarts. So a set that was interrupted and continued, or made in shards, is bit-equal to one made in one go on the same
machine.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from pdesurrogate.data.archive import SPLITS, Archive, ArchiveWriter, archive_path
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.simulators.generation.block_run import RESTART_INTERVAL, BlockRun, Schedule
from pdesurrogate.simulators.generation.protocols import (
    Block,
    Monitored,
    Reduction,
    Simulator,
    Start,
    StoredFrames,
    StreamingStatistics,
)
from pdesurrogate.simulators.generation.restart import (
    FROM_RESTART,
    FromRestart,
    RestartFiles,
    first_difference,
    save_whole,
)
from pdesurrogate.simulators.generation.run_log import RunLog
from pdesurrogate.simulators.generation.stored_frames import AsSimulated, SpectralCut
from pdesurrogate.simulators.random_fields import InitialCondition

# Raise it when the same recipe gives other fields than before: content hashes cover it.
GENERATOR_VERSION = 1

Progress = Callable[[int, int], None]
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Trajectories:
    """How many trajectories each split has."""

    train: int
    val: int
    test: int

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.test) < 0 or self.train + self.val + self.test < 1:
            raise ValueError(f"Expected counts >= 0, at least one of them positive, but got {self}.")


@dataclass(frozen=True)
class Recipe:
    """All that determines a generated data set.

    Attributes:
        name: of the data set.
        simulator: the solver, with its resolution and time step.
        initial_condition: where trajectories start.
        frames: stored frames of each trajectory.
        trajectories: of each split.
        seed: of the whole set.
        warm_up: physical time simulated before the first stored frame; a multiple of the time step.
        resolution: stored points along each axis, cut spectrally; as simulated if not given.
        block: trajectories computed together.
        reduction: what is stored of a state, where it is not a spectral cut.
        statistics: gathered between frames, on the simulator's own grid.
    """

    name: str
    simulator: Simulator
    initial_condition: InitialCondition | Start
    frames: int
    trajectories: Trajectories
    seed: int
    warm_up: float = 0.0
    resolution: int | None = None
    block: int = 16
    reduction: Reduction | None = None
    statistics: StreamingStatistics | None = None

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"Expected at least two frames but got {self.frames}.")
        if self.block < 1:
            raise ValueError(f"Expected block >= 1 but got {self.block}.")
        steps = self.warm_up / self.simulator.time_step
        if steps < 0 or abs(steps - round(steps)) > 1e-6 * max(steps, 1):
            raise ValueError(
                f"Expected warm_up to be a multiple of the time step {self.simulator.time_step:g} but got "
                f"{self.warm_up:g}."
            )
        if self.resolution is not None and not 8 <= self.resolution <= self.simulator.shape[0]:
            raise ValueError(
                f"Expected a stored resolution from 8 to the simulated {self.simulator.shape[0]} "
                f"but got {self.resolution}."
            )
        if self.resolution is not None and self.reduction is not None:
            raise ValueError("Expected a resolution or a reduction but got both; leave one of them out.")
        blocks = sum(math.ceil(getattr(self.trajectories, split) / self.block) for split in SPLITS)
        if isinstance(self.initial_condition, FromRestart) and blocks > 1:
            raise ValueError(
                f"Expected one block of trajectories from a restart but got {blocks}, which would all be the same; "
                "make each block a data set of its own."
            )
        self._check_statistics()

    def _check_statistics(self) -> None:
        if self.statistics is None:
            return
        if not isinstance(self.simulator, Monitored):
            raise ValueError(
                f"Expected a simulator that can be stopped between frames for statistics but "
                f"{type(self.simulator).__name__} cannot; leave the statistics out."
            )
        every, steps = self.statistics.every, self.simulator.steps_per_frame
        if every < 1 or steps % every:
            raise ValueError(f"Expected statistics at a divisor of the {steps} steps per frame but got every {every}.")

    @property
    def warm_up_steps(self) -> int:
        """Time steps before the first stored frame."""
        return round(self.warm_up / self.simulator.time_step)

    @property
    def schedule(self) -> Schedule:
        """When a run is looked at and its frames are stored."""
        every = 0 if self.statistics is None else self.statistics.every
        return Schedule(self.warm_up_steps, self.frames, self.simulator.steps_per_frame, every)

    @property
    def stored_frames(self) -> StoredFrames:
        """What archives hold of a state."""
        if self.reduction is not None:
            return self.reduction.on(self.simulator)
        return AsSimulated(self.simulator) if self.resolution is None else SpectralCut(self.simulator, self.resolution)

    @property
    def metadata(self) -> Metadata:
        """Of the data set that this recipe makes."""
        stored = self.stored_frames
        return Metadata(
            self.name,
            self.simulator.grid,
            stored.channels,
            self.simulator.frame_interval,
            parameters=tuple(self.simulator.parameters_by_name),
            attributes=dict(stored.attributes),
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Initial states ``(count, channel, *space)``, on the generator's device."""
        if isinstance(self.initial_condition, Start):
            return self.initial_condition.start(self.simulator, count, generator)
        return self.initial_condition.sample(count, self.simulator.shape, self.simulator.grid.periods, generator)


def load_recipe(path: str | Path) -> tuple[Recipe, dict[str, Any]]:
    """Read a recipe file; gives the recipe and its resolved plain form, defaults filled in.

    Raises:
        ValueError: if a key is missing, misspelt or of the wrong type, naming it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"Expected a recipe file but {path} does not exist; `pdesurrogate datasets list` names ours.")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"Expected YAML in {path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"Expected keys and values in {path} but got {type(values).__name__}.")
    return parse_recipe(values, origin=str(path))


def parse_recipe(values: dict[str, Any], origin: str = "recipe") -> tuple[Recipe, dict[str, Any]]:
    """Check and instantiate the plain form of a recipe; ``origin`` names it in messages.

    Raises:
        ValueError: as `load_recipe`.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    try:
        config = parser.parse_object(values)
        recipe = parser.instantiate(config)
        plain: dict[str, Any] = yaml.safe_load(parser.dump(config))
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{origin} is not a valid recipe: {error}") from error
    return Recipe(**recipe.as_dict()), plain


def build_simulator(plain: dict[str, Any], **changes: Any) -> Any:
    """The simulator of a recipe's plain form with some of its arguments changed, for example ``resolution=32``."""
    simulator = plain["simulator"]
    altered = {**plain, "simulator": {**simulator, "init_args": {**simulator["init_args"], **changes}}}
    # Only the solver is wanted: a warm-up that is no multiple of the new time step must not matter.
    altered.update(warm_up=0.0, resolution=None, reduction=None, statistics=None)
    return parse_recipe(altered)[0].simulator


def content_hash(plain: dict[str, Any]) -> str:
    """Identifies the data that a recipe makes: SHA-256 over its plain form and the generator's version."""
    text = json.dumps({"recipe": plain, "generator": GENERATOR_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def generate(
    recipe: Recipe,
    plain: dict[str, Any],
    out: str | Path,
    *,
    shards: int = 1,
    shard: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    watch: Watch | None = None,
    restart_interval: float = RESTART_INTERVAL,
) -> list[Path]:
    """Make the data set, or one shard of it, below the directory ``out``; continues what an earlier run left.

    Beside the archive lie, while blocks are unfinished, their restarts; of simulators that are looked at a log of each
    file; and the statistics, if the recipe wants some, once all blocks are there. `merge_statistics` joins those of
    shards.

    Args:
        recipe: what to make.
        plain: its plain form, stored beside and inside the files.
        out: directory for ``train.nc``, ``val.nc``, ``test.nc`` and the resolved ``recipe.yaml``.
        shards: number of shards in all.
        shard: which one to make, counted from 0.
        device: where to compute.
        progress: called with (frames done, frames in all).
        watch: called with the latest of a simulator that is looked at, in words.
        restart_interval: seconds between restarts, besides the one after the warm-up; see `BlockRun`.

    Returns:
        The files, whether made now or before.

    Raises:
        ValueError: for a shard that is out of range, other data in ``out``, an unstable simulation or a full disk.
    """
    if shards < 1:
        raise ValueError(f"Expected --shards of at least 1 but got {shards}.")
    if not 0 <= shard < shards:
        raise ValueError(f"Expected --shard from 0 to {shards - 1} with --shards {shards} but got {shard}.")
    out = Path(out)
    _write_recipe(plain, out)
    jobs = list(_jobs(recipe, out, shards, shard))
    if isinstance(recipe.simulator, nn.Module):
        recipe.simulator.to(device)
    making = _Making(recipe, plain, out, device, restart_interval, watch or (lambda seen: None))
    frames_in_all = sum(len(block.trajectories) for _, blocks in jobs for block in blocks) * recipe.frames
    done = 0

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        if progress is not None:
            progress(done, frames_in_all)

    for path, blocks in jobs:
        numbers = [number for block in blocks for number in block.trajectories]
        if path.exists():
            _require_same_content(path, plain)
            advance(len(numbers) * recipe.frames)
            continue
        with _writer(recipe, plain, path, numbers) as writer:
            first = 0
            for block in blocks:
                count = len(block.trajectories)
                if writer.complete[first : first + count].all():
                    advance(count * recipe.frames)
                else:
                    writer.write(first, making.frames(block, path, advance))
                making.clean(block)
                first += count
            writer.finish()
    making.finish([block for _, blocks in jobs for block in blocks], shards, shard)
    return [path for path, _ in jobs]


def merge_statistics(out: str | Path) -> Path:
    """Bring the statistics that all shards left in the directory ``out`` together as ``statistics.nc``; theirs stay.

    Raises:
        ValueError: if there are none, or not of all shards, naming what is missing.
    """
    out = Path(out)
    recipe, _ = load_recipe(out / "recipe.yaml")
    counts = sorted({int(path.stem.rsplit("-of-", 1)[1]) for path in out.glob("statistics.*-of-*.nc")})
    if recipe.statistics is None or len(counts) != 1:
        raise ValueError(f"Expected statistics in {out} of one number of shards but got those of {counts} shards.")
    files = [
        archive_path(out, "statistics", shard, counts[0])
        for shard in range(counts[0])
        if any(_jobs(recipe, out, counts[0], shard))
    ]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise ValueError(
            f"Expected the statistics of all shards in {out} but {missing} are missing; make these shards."
        )
    gathered = [recipe.statistics.load(recipe.simulator, str(file)) for file in files]
    merged = archive_path(out, "statistics")
    recipe.statistics.save(recipe.simulator, gathered, str(merged))
    return merged


@dataclass(frozen=True)
class _Making:
    """What all blocks of one call of `generate` share."""

    recipe: Recipe
    plain: dict[str, Any]
    out: Path
    device: str
    restart_interval: float
    watch: Watch

    def frames(self, block: Block, archive: Path, progress: Callable[[int], None]) -> Tensor:
        """Run a block."""
        recipe, simulator = self.recipe, self.recipe.simulator
        generator = block_generator(recipe.seed, block.split, block.number)
        gathering = None if recipe.statistics is None else recipe.statistics.on(simulator)
        log = None
        if isinstance(simulator, Monitored):
            log = RunLog(archive.with_name(f"{archive.stem}.log.csv"))
        run = BlockRun(
            block,
            simulator,
            recipe.schedule,
            recipe.stored_frames,
            # Drawn on the CPU whatever the device, so that a seed means the same flow everywhere.
            start=lambda: recipe.draw(len(block.trajectories), generator),
            restarts=self._restarts(block),
            device=self.device,
            log=log,
            statistics=gathering,
            restart_interval=self.restart_interval,
            progress=progress,
            watch=self.watch,
        )
        try:
            with self._named_errors("a restart or the log"):
                frames = run.frames()
                if gathering is not None:
                    save_whole(gathering.state_dict(), self._statistics_of(block))
        finally:
            if log is not None:
                log.close()
        return frames

    def clean(self, block: Block) -> None:
        """Delete the restarts of a block that is written."""
        self._restarts(block).remove()

    def finish(self, blocks: Sequence[Block], shards: int, shard: int) -> None:
        """Bring together the statistics of all blocks; a shard may own none."""
        files = [self._statistics_of(block) for block in blocks]
        if self.recipe.statistics is None or not files or not all(file.exists() for file in files):
            return
        path = archive_path(self.out, "statistics", shard, shards)
        gathered = [torch.load(file, weights_only=True) for file in files]
        with self._named_errors("the statistics"):
            self.recipe.statistics.save(self.recipe.simulator, gathered, str(path))
        for file in files:
            file.unlink()

    @contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cause = "no space left on the device" if error.errno == errno.ENOSPC else str(error)
            raise ValueError(
                f"Could not write {what} below {self.out}: {cause}. What is finished is kept, and so is the last "
                "restart; free some space and run the same command again."
            ) from error

    def _restarts(self, block: Block) -> RestartFiles:
        recipe = self.recipe
        identity = {
            "grid": list(recipe.simulator.shape),
            "recipe": self.plain,
            "generator": GENERATOR_VERSION,
            "block": [block.split, block.trajectories.start, block.trajectories.stop],
        }
        return RestartFiles(self.out / f"{block.split}.block-{block.number}", identity)

    def _statistics_of(self, block: Block) -> Path:
        return self.out / f"{block.split}.block-{block.number}.statistics"


def block_generator(seed: int, split: str, block: int) -> torch.Generator:
    """The generator of one block; independent streams for all (seed, split, block)."""
    state = np.random.SeedSequence([seed, SPLITS.index(split), block]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def _jobs(recipe: Recipe, out: Path, shards: int, shard: int) -> Iterator[tuple[Path, list[Block]]]:
    """File and blocks of one shard. A split of fewer blocks than shards is cut into as many files as blocks."""
    for split in SPLITS:
        blocks = list(_blocks(split, getattr(recipe.trajectories, split), recipe.block))
        files = min(shards, len(blocks))
        if shard < files:
            yield archive_path(out, split, shard, files), blocks[shard::files]


def _blocks(split: str, count: int, size: int) -> Iterator[Block]:
    for number, start in enumerate(range(0, count, size)):
        yield Block(split, number, range(start, min(start + size, count)))


def _writer(recipe: Recipe, plain: dict[str, Any], path: Path, numbers: list[int]) -> ArchiveWriter:
    values = torch.tensor(list(recipe.simulator.parameters_by_name.values()), dtype=torch.float64)
    times = recipe.warm_up + recipe.simulator.frame_interval * torch.arange(recipe.frames, dtype=torch.float64)
    return ArchiveWriter(
        path,
        recipe.metadata,
        recipe.stored_frames.coordinates,
        times,
        len(numbers),
        numbers=numbers,
        parameters=values.expand(len(numbers), -1),
        attributes={
            "source": "pdesurrogate simulators",
            "recipe": json.dumps(plain, sort_keys=True),
            "content_hash": content_hash(plain),
            **recipe.stored_frames.attributes,
        },
    )


def _write_recipe(plain: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    target = out / "recipe.yaml"
    text = yaml.safe_dump(plain, sort_keys=False)
    if target.exists():
        difference = first_difference(plain, yaml.safe_load(target.read_text()))
        if difference is not None:
            name, ours, theirs = difference
            raise ValueError(
                f"Expected an empty directory or the same recipe in {out}, but its recipe.yaml differs: {name} is "
                f"{theirs} there and {ours} here. Choose another --out, or delete the old data. A changed recipe goes "
                f"on from a restart with the initial_condition {FROM_RESTART}."
            )
        return
    temporary = target.with_name(f"recipe.yaml.{os.getpid()}.part")
    temporary.write_text(text)
    os.replace(temporary, target)


def _require_same_content(path: Path, plain: dict[str, Any]) -> None:
    found = Archive(path).metadata.attributes.get("content_hash")
    if found != content_hash(plain):
        raise ValueError(f"Expected {path} to hold this recipe's data but it holds other data. Choose another --out.")

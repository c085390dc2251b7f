"""From a recipe to a data set: which simulator, started how, stored how, and how often.

Trajectories are computed in fixed blocks that are always computed whole, each with its own random generator, because
results depend on the batch size in the last bits and chaos amplifies them. Shards own whole blocks. Long blocks leave
restarts. So a set that was interrupted and continued, or made in shards, is bit-equal to one made in one go on the same
machine.

Trajectories may be cases, each with its own parameters, extents and geometry. One that blows up is dropped; its block
still computes all others as if it had not been.
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
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from pdesurrogate.data.archive import SPLITS, Archive, ArchiveWriter, archive_path
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.simulators.generation.block_run import RESTART_INTERVAL, BlockRun, Schedule
from pdesurrogate.simulators.generation.members import CaseTable, GatheredByCase, Members, NoneLeftError
from pdesurrogate.simulators.generation.protocols import (
    Block,
    Cases,
    CaseSimulator,
    Gathering,
    Monitored,
    Reduction,
    Simulator,
    Start,
    StoredFrames,
    StreamingStatistics,
    Varied,
)
from pdesurrogate.simulators.generation.restart import (
    FROM_RESTART,
    FromRestart,
    RestartFiles,
    first_difference,
    save_whole,
)
from pdesurrogate.simulators.generation.run_log import RunLog
from pdesurrogate.simulators.generation.stored_frames import AsSimulated, CasesAsSimulated, SpectralCut
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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that determines a generated data set.

    Attributes:
        name: of the data set.
        simulator: the solver, with its resolution and time step; the base case of a set of cases.
        initial_condition: where trajectories start.
        frames: stored frames of each trajectory.
        trajectories: of each split; or else
        cases: of each split, one trajectory each, where the simulator is `Varied`.
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
    trajectories: Trajectories | None = None
    cases: Cases | None = None
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
        self._check_cases()
        blocks = sum(math.ceil(count / self.block) for count in self.counts.values())
        if isinstance(self.initial_condition, FromRestart) and blocks > 1:
            raise ValueError(
                f"Expected one block of trajectories from a restart but got {blocks}, which would all be the same; "
                "make each block a data set of its own."
            )
        self._check_statistics()

    def _check_cases(self) -> None:
        if (self.trajectories is None) == (self.cases is None):
            raise ValueError(f"Expected either trajectories or cases but got {'both' if self.cases else 'none'}.")
        if self.cases is None:
            return
        if not isinstance(self.simulator, Varied):
            raise ValueError(
                f"Expected a simulator whose parameters may differ from case to case but "
                f"{type(self.simulator).__name__} has no of_cases; use trajectories in place of cases."
            )
        if self.resolution is not None:
            raise ValueError("Expected no resolution with cases, whose boxes may differ; use a reduction.")
        every = [case for split in SPLITS for case in self.cases.of(split)]
        names = [case.name for case in every]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if not every or doubled:
            raise ValueError(f"Expected at least one case, each name once, but got {len(every)}; again: {doubled}.")
        known = self.simulator.parameter_names
        for case in every:
            unknown = [name for name in case.parameters if name not in known]
            if unknown:
                raise ValueError(
                    f"Expected parameters among {known} but {case.name} of the subset {case.subset!r} names {unknown}."
                )

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
    def counts(self) -> dict[str, int]:
        """Trajectories of each split."""
        if self.cases is not None:
            return {split: len(self.cases.of(split)) for split in SPLITS}
        return {split: getattr(self.trajectories, split) for split in SPLITS}

    @cached_property
    def case_table(self) -> CaseTable | None:
        """All cases, each built once when it is asked for; ``None`` for a set of plain trajectories.

        Raises:
            ValueError: if what the simulator makes of them does not fit into one data set.
        """
        if self.cases is None:
            return None
        by_split = {split: self.cases.of(split) for split in SPLITS}
        return CaseTable.build(self.simulator, by_split, self.stored_frames_of, self.stored_frames.coordinates)

    def stored_frames_of(self, simulator: CaseSimulator) -> StoredFrames:
        """What archives hold of a state of cases."""
        return CasesAsSimulated(simulator) if self.reduction is None else self.reduction.on(simulator)

    @property
    def stored_frames(self) -> StoredFrames:
        """What archives hold of a state; of the base case, if there are cases."""
        if self.reduction is not None:
            return self.reduction.on(self.simulator)
        return AsSimulated(self.simulator) if self.resolution is None else SpectralCut(self.simulator, self.resolution)

    @property
    def metadata(self) -> Metadata:
        """Of the data set that this recipe makes."""
        stored = self.stored_frames
        metadata = Metadata(
            self.name,
            self.simulator.grid,
            stored.channels,
            self.simulator.frame_interval,
            parameters=tuple(self.simulator.parameters_by_name),
            attributes=dict(stored.attributes),
        )
        return metadata if self.case_table is None else self.case_table.placed(metadata)

    def draw(self, count: int, generator: torch.Generator, simulator: Simulator | None = None) -> Tensor:
        """Initial states ``(count, channel, *space)``, on the generator's device; ``simulator`` is that of cases."""
        simulator = simulator or self.simulator
        if isinstance(self.initial_condition, Start):
            return self.initial_condition.start(simulator, count, generator)
        return self.initial_condition.sample(count, simulator.shape, simulator.grid.periods, generator)


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
    refused_cases: Literal["raise", "drop"] = "raise",
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
        refused_cases: what to do with cases that the simulator refuses when they are built. One that fails later is
            always dropped, with a warning; `Archive.dropped` names all that were.

    Returns:
        The files, whether made now or before.

    Raises:
        ValueError: for a shard that is out of range, other data in ``out``, cases that are refused, an unstable
            simulation that is no case, a split of which no case is left, or a full disk.
    """
    if shards < 1:
        raise ValueError(f"Expected --shards of at least 1 but got {shards}.")
    if not 0 <= shard < shards:
        raise ValueError(f"Expected --shard from 0 to {shards - 1} with --shards {shards} but got {shard}.")
    out = Path(out)
    if recipe.case_table is not None and refused_cases == "raise":
        recipe.case_table.require_none_refused()
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
        split = blocks[0].split
        with _writer(recipe, plain, path, split, numbers) as writer:
            first = 0
            for block in blocks:
                count = len(block.trajectories)
                if writer.complete[first : first + count].all():
                    advance(count * recipe.frames)
                else:
                    making.fill(writer, first, block, advance)
                making.clean(block)
                first += count
            if len(writer.dropped) == len(numbers):
                _require_cases_elsewhere(path, split, _files_of(recipe, out, split, shards))
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

    def fill(self, writer: ArchiveWriter, first: int, block: Block, progress: Callable[[int], None]) -> None:
        """Run a block and store it at the places from ``first`` on."""
        if self.recipe.case_table is None:
            frames = self._run(block, self.recipe.simulator, self.recipe.stored_frames, None, writer.path, progress)
            writer.write(first, frames)
            return
        dropped = {
            number - block.trajectories.start: reason
            for number, reason in self.recipe.case_table.refused[block.split].items()
            if number in block.trajectories
        }
        members = self._members(self.recipe.case_table, block, dropped)
        if members is None:
            progress(len(dropped) * self.recipe.frames)
            self._save_statistics(block, {"cases": []})
        else:
            dropped = members.dropped
            frames = self._run(block, members.simulator, members.stored, members, writer.path, progress)
        for member in range(len(block.trajectories)):
            if member in dropped:
                writer.drop(first + member, dropped[member])
            else:
                writer.write(first + member, frames[member : member + 1])

    def _members(self, table: CaseTable, block: Block, refused: dict[int, str]) -> Members | None:
        """The cases of a block; ``None`` if all are refused."""
        own = slice(block.trajectories.start, block.trajectories.stop)
        simulator = self.recipe.simulator
        assert isinstance(simulator, Varied)
        try:
            return Members(
                simulator,
                table.cases[block.split][own],
                table.parameters[block.split][own],
                self.recipe.stored_frames_of,
                self.device,
                refused,
            )
        except NoneLeftError:
            return None

    def _run(
        self,
        block: Block,
        simulator: Simulator,
        stored: StoredFrames,
        members: Members | None,
        archive: Path,
        progress: Callable[[int], None],
    ) -> Tensor:
        recipe = self.recipe
        generator = block_generator(recipe.seed, block.split, block.number)
        gathering = self._gathering(simulator, members)
        log = None
        if isinstance(simulator, Monitored):
            log = RunLog(archive.with_name(f"{archive.stem}.log.csv"))
        run = BlockRun(
            block,
            simulator,
            recipe.schedule,
            stored,
            # Drawn on the CPU whatever the device, so that a seed means the same flow everywhere.
            start=lambda: recipe.draw(len(block.trajectories), generator, simulator),
            restarts=self._restarts(block),
            device=self.device,
            log=log,
            statistics=gathering,
            restart_interval=self.restart_interval,
            progress=progress,
            watch=self.watch,
            members=members,
        )
        try:
            with self._named_errors("a restart or the log"):
                frames = run.frames()
        finally:
            if log is not None:
                log.close()
        if isinstance(gathering, GatheredByCase) and members is not None:
            kept = [gathering.gatherings[member].state_dict() for member in members.kept]
            self._save_statistics(block, {"cases": kept})
        elif gathering is not None:
            self._save_statistics(block, gathering.state_dict())
        return frames

    def _gathering(self, simulator: Simulator, members: Members | None) -> Gathering | None:
        statistics = self.recipe.statistics
        if statistics is None:
            return None
        if members is None:
            return statistics.on(simulator)
        return GatheredByCase([statistics.on(members.alone(place)) for place in range(len(members.cases))])

    def _save_statistics(self, block: Block, gathered: dict[str, Any]) -> None:
        if self.recipe.statistics is not None:
            with self._named_errors("the statistics"):
                save_whole(gathered, self._statistics_of(block))

    def clean(self, block: Block) -> None:
        """Delete the restarts of a block that is written."""
        self._restarts(block).remove()

    def finish(self, blocks: Sequence[Block], shards: int, shard: int) -> None:
        """Bring together the statistics of all blocks; a shard may own none."""
        files = [self._statistics_of(block) for block in blocks]
        if self.recipe.statistics is None or not files or not all(file.exists() for file in files):
            return
        path = archive_path(self.out, "statistics", shard, shards)
        found = [torch.load(file, weights_only=True) for file in files]
        by_case = self.recipe.cases is not None
        gathered = [each for block in found for each in block["cases"]] if by_case else found
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
        blocks = list(_blocks(split, recipe.counts[split], recipe.block))
        files = min(shards, len(blocks))
        if shard < files:
            yield archive_path(out, split, shard, files), blocks[shard::files]


def _files_of(recipe: Recipe, out: Path, split: str, shards: int) -> list[Path]:
    """All files of a split, whichever shard makes them."""
    every = (job for shard in range(shards) for job in _jobs(recipe, out, shards, shard))
    return [path for path, blocks in every if blocks[0].split == split]


def _require_cases_elsewhere(path: Path, split: str, files: Sequence[Path]) -> None:
    """Refuse a split without any case, whose last file this would be; other shards may have some, or be unfinished."""
    others = [file for file in files if file != path]
    if all(file.exists() and not Archive(file).numbers(split) for file in others):
        raise ValueError(
            f"Expected at least one case of {split} but every one was dropped; see the warnings, and change the cases "
            "or the time step."
        )


def _blocks(split: str, count: int, size: int) -> Iterator[Block]:
    for number, start in enumerate(range(0, count, size)):
        yield Block(split, number, range(start, min(start + size, count)))


def _writer(recipe: Recipe, plain: dict[str, Any], path: Path, split: str, numbers: list[int]) -> ArchiveWriter:
    base = torch.tensor(list(recipe.simulator.parameters_by_name.values()), dtype=torch.float64)
    values, masks, coordinates, cases = base.expand(len(numbers), -1), None, None, {}
    if recipe.case_table is not None:
        table = recipe.case_table
        values, masks = table.values(split, numbers), table.masks(split, numbers)
        coordinates, cases = table.coordinates(split, numbers), {"cases": table.listed(split, numbers)}
    times = recipe.warm_up + recipe.simulator.frame_interval * torch.arange(recipe.frames, dtype=torch.float64)
    return ArchiveWriter(
        path,
        recipe.metadata,
        recipe.stored_frames.coordinates,
        times,
        len(numbers),
        numbers=numbers,
        parameters=values,
        masks=masks,
        case_coordinates=coordinates,
        attributes={
            "source": "pdesurrogate simulators",
            "recipe": json.dumps(plain, sort_keys=True),
            "content_hash": content_hash(plain),
            **cases,
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

"""From a recipe to a data set: which simulator, started how, stored how, and how often.

Trajectories are computed in fixed blocks that are always computed whole, each with its own random generator, because
results depend on the batch size in the last bits and chaos amplifies them. Shards own whole blocks. So a set that was
interrupted and continued, or made in shards, is bit-equal to one made in one go on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from pdesurrogate.data.archive import SPLITS, Archive, ArchiveWriter, archive_path
from pdesurrogate.fields.grid import Channel, Grid, Metadata
from pdesurrogate.physics.spectral import resample
from pdesurrogate.simulators.random_fields import InitialCondition

# Raise it when the same recipe gives other fields than before: content hashes cover it.
GENERATOR_VERSION = 1

Progress = Callable[[int, int], None]


class Simulator(Protocol):
    """A solver that can fill an archive."""

    grid: Grid
    channels: tuple[Channel, ...]
    frame_interval: float
    steps_per_frame: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        ...

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        ...

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Physical parameters to record."""
        ...

    def advance(self, state: Tensor, steps: int) -> Tensor:
        """``steps`` time steps from ``state (batch, channel, *space)``."""
        ...


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
    """

    name: str
    simulator: Simulator
    initial_condition: InitialCondition
    frames: int
    trajectories: Trajectories
    seed: int
    warm_up: float = 0.0
    resolution: int | None = None
    block: int = 16

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

    @property
    def warm_up_steps(self) -> int:
        """Time steps before the first stored frame."""
        return round(self.warm_up / self.simulator.time_step)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Points of a stored frame."""
        shape = self.simulator.shape
        return shape if self.resolution is None else (self.resolution,) * len(shape)

    @property
    def metadata(self) -> Metadata:
        """Of the data set that this recipe makes."""
        return Metadata(
            self.name,
            self.simulator.grid,
            self.simulator.channels,
            self.simulator.frame_interval,
            parameters=tuple(self.simulator.parameters_by_name),
        )


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
    altered.update(warm_up=0.0, resolution=None)
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
) -> list[Path]:
    """Make the data set, or one shard of it, below the directory ``out``; continues what an earlier run left.

    Args:
        recipe: what to make.
        plain: its plain form, stored beside and inside the files.
        out: directory for ``train.nc``, ``val.nc``, ``test.nc`` and the resolved ``recipe.yaml``.
        shards: number of shards in all.
        shard: which one to make, counted from 0.
        device: where to compute.
        progress: called with (frames done, frames in all).

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
    simulator = recipe.simulator
    if isinstance(simulator, nn.Module):
        simulator.to(device)
    frames_in_all = sum(len(block) for _, _, blocks in jobs for block in blocks) * recipe.frames
    done = 0

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        if progress is not None:
            progress(done, frames_in_all)

    for split, path, blocks in jobs:
        numbers = [number for block in blocks for number in block]
        if path.exists():
            _require_same_content(path, plain)
            advance(len(numbers) * recipe.frames)
            continue
        with _writer(recipe, plain, path, numbers) as writer:
            first = 0
            for block in blocks:
                if writer.complete[first : first + len(block)].all():
                    advance(len(block) * recipe.frames)
                else:
                    generator = block_generator(recipe.seed, split, block.start // recipe.block)
                    frames = _simulate(recipe, simulator, len(block), generator, device, advance)
                    _require_finite(frames, split, block)
                    writer.write(first, frames)
                first += len(block)
            writer.finish()
    return [path for _, path, _ in jobs]


def block_generator(seed: int, split: str, block: int) -> torch.Generator:
    """The generator of one block; independent streams for all (seed, split, block)."""
    state = np.random.SeedSequence([seed, SPLITS.index(split), block]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def _jobs(recipe: Recipe, out: Path, shards: int, shard: int) -> Iterator[tuple[str, Path, list[range]]]:
    """(split, file, blocks) of one shard. A split of fewer blocks than shards is cut into as many files as blocks."""
    for split in SPLITS:
        blocks = list(_blocks(getattr(recipe.trajectories, split), recipe.block))
        files = min(shards, len(blocks))
        if shard < files:
            yield split, archive_path(out, split, shard, files), blocks[shard::files]


def _blocks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


@torch.no_grad()
def _simulate(
    recipe: Recipe,
    simulator: Simulator,
    count: int,
    generator: torch.Generator,
    device: str,
    advance: Callable[[int], None],
) -> Tensor:
    # Drawn on the CPU whatever the device, so that a seed means the same flow everywhere.
    state = recipe.initial_condition.sample(count, simulator.shape, simulator.grid.periods, generator).to(device)
    state = simulator.advance(state, recipe.warm_up_steps)
    frames = torch.empty(count, recipe.frames, len(simulator.channels), *recipe.stored_shape)
    for frame in range(recipe.frames):
        if frame:
            state = simulator.advance(state, simulator.steps_per_frame)
        frames[:, frame] = resample(state, recipe.stored_shape).to("cpu", torch.float32)
        advance(count)
    return frames


def _require_finite(frames: Tensor, split: str, numbers: range) -> None:
    bad = ~torch.isfinite(frames).flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(
            f"Expected finite values but {split} trajectory {numbers[int(bad.nonzero()[0])]} became NaN or infinite. "
            "Most often the simulation is unstable: use a smaller time step. What was finished before is kept."
        )


def _writer(recipe: Recipe, plain: dict[str, Any], path: Path, numbers: list[int]) -> ArchiveWriter:
    values = torch.tensor(list(recipe.simulator.parameters_by_name.values()), dtype=torch.float64)
    times = recipe.warm_up + recipe.simulator.frame_interval * torch.arange(recipe.frames, dtype=torch.float64)
    return ArchiveWriter(
        path,
        recipe.metadata,
        recipe.simulator.grid.uniform_coordinates(recipe.stored_shape),
        times,
        len(numbers),
        numbers=numbers,
        parameters=values.expand(len(numbers), -1),
        attributes={
            "source": "pdesurrogate simulators",
            "recipe": json.dumps(plain, sort_keys=True),
            "content_hash": content_hash(plain),
        },
    )


def _write_recipe(plain: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    target = out / "recipe.yaml"
    text = yaml.safe_dump(plain, sort_keys=False)
    if target.exists():
        if yaml.safe_load(target.read_text()) != plain:
            raise ValueError(
                f"Expected an empty directory or the same recipe in {out}, but its recipe.yaml differs. "
                "Choose another --out, or delete the old data."
            )
        return
    temporary = target.with_name(f"recipe.yaml.{os.getpid()}.part")
    temporary.write_text(text)
    os.replace(temporary, target)


def _require_same_content(path: Path, plain: dict[str, Any]) -> None:
    found = Archive(path).metadata.attributes.get("content_hash")
    if found != content_hash(plain):
        raise ValueError(f"Expected {path} to hold this recipe's data but it holds other data. Choose another --out.")

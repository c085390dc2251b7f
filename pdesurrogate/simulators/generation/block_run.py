"""One block of trajectories from its start to its last frame, watched, logged, and continued where it was stopped."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.simulators.generation.protocols import (
    Block,
    Bounded,
    Doubting,
    Gathering,
    Monitored,
    Simulator,
    StoredFrames,
)
from pdesurrogate.simulators.generation.restart import RestartFiles
from pdesurrogate.simulators.generation.run_log import RunLog, columns_of
from pdesurrogate.simulators.generation.stored_frames import AsSimulated

# Seconds of work that an interruption may cost, besides those to the next look.
RESTART_INTERVAL = 60.0
# Work between two restarts over the time to write one: at most a twentieth more.
_WORK_PER_SAVE = 20


@dataclass(frozen=True)
class Schedule:
    """When a run stops to be looked at, in time steps since its start.

    Attributes:
        warm_up: steps before the first frame.
        frames: that are stored.
        steps_per_frame: between them.
        every: steps between states that statistics count; a divisor of ``steps_per_frame``.

    Example:
        >>> list(Schedule(warm_up=5, frames=3, steps_per_frame=2).stops)
        [5, 7, 9]
        >>> list(Schedule(warm_up=5, frames=2, steps_per_frame=4, every=2).watched_stops)
        [0, 4, 5, 7, 9]
    """

    warm_up: int
    frames: int
    steps_per_frame: int
    every: int = 0

    @property
    def stops(self) -> Iterator[int]:
        """The steps of the frames."""
        return iter(range(self.warm_up, self.last + 1, self.steps_per_frame))

    @property
    def watched_stops(self) -> Iterator[int]:
        """Those of a simulator that may be stopped at any step: the start, the warm-up, and where statistics count."""
        yield from range(0, self.warm_up, self.steps_per_frame)
        yield from range(self.warm_up, self.last + 1, self.every or self.steps_per_frame)

    @property
    def last(self) -> int:
        """Step of the last frame."""
        return self.warm_up + (self.frames - 1) * self.steps_per_frame

    def is_frame(self, step: int) -> bool:
        """Whether a frame is stored there."""
        return step >= self.warm_up and (step - self.warm_up) % self.steps_per_frame == 0

    def is_looked_at(self, step: int) -> bool:
        """Whether diagnostics are taken there: at frames and as often before."""
        return self.is_frame(step) or step < self.warm_up


@dataclass
class BlockRun:
    """How one block is run; `frames` does it.

    Attributes:
        block: which trajectories.
        simulator: the solver, on its device.
        schedule: when to stop.
        stored: what a frame holds.
        start: draws the initial state on the CPU.
        restarts: where to write what is needed to go on.
        log: of diagnostics, for a simulator that has them.
        statistics: gathered on the way, empty.
        restart_interval: seconds between restarts, more where they are slow to write; 0 for one at every look.
        progress: called with the number of frames that were just made.
        watch: called with what the simulator says of the first trajectory.
    """

    block: Block
    simulator: Simulator
    schedule: Schedule
    stored: StoredFrames
    start: Callable[[], Tensor]
    restarts: RestartFiles
    device: str = "cpu"
    log: RunLog | None = None
    statistics: Gathering | None = None
    restart_interval: float = RESTART_INTERVAL
    progress: Callable[[int], None] = lambda frames: None
    watch: Callable[[str], None] = lambda seen: None
    _seen: str = field(default="", init=False)
    _doubted: set[int] = field(default_factory=set, init=False)
    _warned: set[int] = field(default_factory=set, init=False)

    @torch.no_grad()
    def frames(self) -> Tensor:
        """All frames ``(trajectory, time, channel, *stored)`` in float32; warns of doubts about the run.

        Raises:
            ValueError: if the simulation became unstable, saying when and why, or the restart is of something else.
            OSError: if a restart cannot be written.
        """
        shape = tuple(len(points) for points in self.stored.coordinates)
        frames = torch.empty(len(self.block.trajectories), self.schedule.frames, len(self.stored.channels), *shape)
        state, step, made = self._begin(frames)
        saved, pause = time.monotonic(), self.restart_interval
        for stop in self.schedule.watched_stops if self._watched else self.schedule.stops:
            if stop <= step:
                continue
            # The first stop may be the start itself: a solver sees that state too, and may bring it into its space.
            state = self._advance(state, max(step, 0), stop)
            step = stop
            if self.schedule.is_looked_at(step):
                self._look_at(state, step)
            if self.statistics is not None and step >= self.schedule.warm_up:
                self.statistics.update(state)
            if self.schedule.is_frame(step):
                frames[:, made] = self._frame(state, step)
                made += 1
                self.progress(len(frames))
            began = time.monotonic()
            due = began - saved >= pause or step == self.schedule.warm_up > 0
            # Only what was looked at is known to be good.
            if due and self.schedule.is_looked_at(step) and step < self.schedule.last:
                self._save(state, step, frames[:, :made])
                saved = time.monotonic()
                pause = self.restart_interval and max(self.restart_interval, _WORK_PER_SAVE * (saved - began))
        return frames

    @property
    def _watched(self) -> bool:
        return isinstance(self.simulator, Monitored)

    def _begin(self, frames: Tensor) -> tuple[Tensor, int, int]:
        """State, steps done and frames made: of a restart, or of the start, which lies before step 0."""
        found = self.restarts.load(frames)
        if found is None:
            state, step, made = self.start(), -1, 0
        else:
            contents, made = found
            state, step = contents["state"], contents["step"]
            if self.statistics is not None:
                self.statistics.load_state_dict(contents["statistics"])
            self.progress(made * len(frames))
            self.watch(f"continued from t = {self._time(step):g}")
        if self.log is not None:
            self.log.rewind(self.block.trajectories, step)
        return state.to(self.device), step, made

    def _save(self, state: Tensor, step: int, frames: Tensor) -> None:
        if isinstance(self.simulator, Bounded):
            with self._stopped_at(step):
                self.simulator.require_stable(state)
        if self.log is not None:
            self.log.sync()
        contents = {
            "state": state.cpu(),
            "step": step,
            "statistics": {} if self.statistics is None else self.statistics.state_dict(),
            "coordinates": list(AsSimulated(self.simulator).coordinates),
        }
        self.restarts.save(contents, frames)

    def _advance(self, state: Tensor, step: int, stop: int) -> Tensor:
        with self._stopped_at(step):
            return self.simulator.advance(state, stop - step)

    @contextmanager
    def _stopped_at(self, step: int) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ValueError(
                f"Block {self.block.number} of {self.block.split} stopped at t = {self._time(step):g}. {error} "
                f"{self._kept}"
            ) from error

    @property
    def _kept(self) -> str:
        return f"What was finished before is kept. {self.restarts.cure}".strip()

    def _look_at(self, state: Tensor, step: int) -> None:
        """Log and show what the simulator says of its state."""
        if not isinstance(self.simulator, Monitored):
            return
        diagnostics = self.simulator.diagnostics(state)
        values = columns_of(diagnostics)
        if self.log is not None:
            self.log.write(self.block.trajectories, step, self._time(step), values)
        self._require_finite(state, step)
        self._seen = ", ".join(
            [f"t = {self._time(step):.4g}", *(f"{name} {value[0]:.4g}" for name, value in values.items())]
        )
        self.watch(self._seen)
        if step >= self.schedule.warm_up:
            self._warn_of_doubts(diagnostics, step)

    def _warn_of_doubts(self, diagnostics: Any, step: int) -> None:
        """Once of each trajectory: when it is doubtful for the second time running, or in the end."""
        if not isinstance(self.simulator, Doubting):
            return
        doubts = {}
        for member, number in enumerate(self.block.trajectories):
            alone = type(diagnostics)(*(values[member : member + 1] for values in diagnostics))
            doubts[number] = self.simulator.doubts(alone)
        doubted = {number for number, doubt in doubts.items() if doubt}
        lasting = doubted if step == self.schedule.last else doubted & self._doubted
        fresh = sorted(lasting - self._warned)
        self._doubted, self._warned = doubted, self._warned | lasting
        if fresh:
            warnings.warn(
                f"{self.block.split} trajectories {', '.join(map(str, fresh))} at t = {self._time(step):g}: "
                f"{doubts[fresh[0]]}",
                stacklevel=2,
            )

    def _frame(self, state: Tensor, step: int) -> Tensor:
        frame = self.stored.apply(state).to("cpu", torch.float32)
        self._require_finite(frame, step)
        return frame

    def _require_finite(self, values: Tensor, step: int) -> None:
        bad = ~torch.isfinite(values).flatten(1).all(1)
        if bool(bad.any()):
            number = self.block.trajectories[int(bad.nonzero()[0])]
            raise ValueError(
                f"Expected finite values but {self.block.split} trajectory {number} became NaN or infinite by "
                f"t = {self._time(step):g}. Most often the simulation is unstable: use a smaller time step than "
                f"{self.simulator.time_step:g}. {self._seen and 'Last seen well: ' + self._seen + '. '}{self._kept}"
            )

    def _time(self, step: int) -> float:
        return max(step, 0) * self.simulator.time_step

"""One block of trajectories from its start to its last frame, watched, logged, and continued where it was stopped."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.simulators.generation.members import Members, NoneLeftError, described
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
from pdesurrogate.simulators.generation.stored_frames import places

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

    Trajectories that are cases do not end the run of the others: one that becomes NaN or infinite, or that the
    simulator refuses, drops out with a warning. All else is an error of the whole block.

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
        members: where trajectories are cases; with their simulator and stored frames.
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
    members: Members | None = None
    _made: int = field(default=0, init=False)
    _seen: dict[int, str] = field(default_factory=dict, init=False)
    _doubted: set[int] = field(default_factory=set, init=False)
    _warned: set[int] = field(default_factory=set, init=False)

    @torch.no_grad()
    def frames(self) -> Tensor:
        """All frames ``(trajectory, time, channel, *stored)`` in float32; warns of doubts about the run.

        Frames of cases that dropped out, which `members` names, mean nothing.

        Raises:
            ValueError: if the simulation became unstable, saying when and why, or the restart is of something else.
            OSError: if a restart cannot be written.
        """
        shape = tuple(len(points) for points in self.stored.coordinates)
        frames = torch.empty(len(self.block.trajectories), self.schedule.frames, len(self.stored.channels), *shape)
        try:
            self._run(frames)
        except NoneLeftError:
            self.progress((self.schedule.frames - self._made) * len(frames))
        return frames

    def _run(self, frames: Tensor) -> None:
        state, step = self._begin(frames)
        saved, pause = time.monotonic(), self.restart_interval
        for stop in self.schedule.watched_stops if self._watched else self.schedule.stops:
            if stop <= step:
                continue
            # The first stop may be the start itself: a solver sees that state too, and may bring it into its space.
            state = self._advance(state, max(step, 0), stop)
            step = stop
            if self.members is not None:
                state = self._sound(state, state, step)
            if self.schedule.is_looked_at(step):
                self._look_at(state, step)
            if self.statistics is not None and step >= self.schedule.warm_up:
                self.statistics.update(state)
            if self.schedule.is_frame(step):
                frame = self.stored.apply(state).to("cpu", torch.float32)
                state = self._sound(frame, state, step)
                frames[:, self._made] = frame
                self._made += 1
                self.progress(len(frames))
            began = time.monotonic()
            due = began - saved >= pause or step == self.schedule.warm_up > 0
            # Only what was looked at is known to be good.
            if due and self.schedule.is_looked_at(step) and step < self.schedule.last and self._can_go_on(state, step):
                self._save(state, step, frames[:, : self._made])
                saved = time.monotonic()
                pause = self.restart_interval and max(self.restart_interval, _WORK_PER_SAVE * (saved - began))

    @property
    def _running(self) -> list[int]:
        return list(range(len(self.block.trajectories))) if self.members is None else self.members.kept

    @property
    def _watched(self) -> bool:
        return isinstance(self.simulator, Monitored)

    def _begin(self, frames: Tensor) -> tuple[Tensor, int]:
        """State and steps done: of a restart, or of the start, which lies before step 0."""
        found = self.restarts.load(frames)
        if found is None:
            state, step = self.start(), -1
        else:
            contents, self._made = found
            state, step, self._seen = contents["state"], contents["step"], contents["seen"]
            if self.members is not None:
                self._take_out(contents["dropped"])
            if self.statistics is not None:
                self.statistics.load_state_dict(contents["statistics"])
            self.progress(self._made * len(frames))
            self.watch(f"continued from t = {self._time(step):g}")
        if self.log is not None:
            self.log.rewind(self.block.trajectories, step)
        return state.to(self.device), step

    def _can_go_on(self, state: Tensor, step: int) -> bool:
        """Whether a restart may hold this state. No case drops out here: when restarts are due is a matter of speed."""
        if isinstance(self.simulator, Bounded):
            try:
                self.simulator.require_stable(state)
            except ValueError as error:
                if self.members is None:
                    raise self._stopped(error, step) from error
                return False
        return True

    def _save(self, state: Tensor, step: int, frames: Tensor) -> None:
        if self.log is not None:
            self.log.sync()
        contents = {
            "state": state.cpu(),
            "step": step,
            "statistics": {} if self.statistics is None else self.statistics.state_dict(),
            "coordinates": [points.cpu() for points in places(self.simulator)],
            "dropped": {} if self.members is None else self.members.dropped,
            "seen": self._seen,
        }
        self.restarts.save(contents, frames)

    def _advance(self, state: Tensor, step: int, stop: int) -> Tensor:
        try:
            return self.simulator.advance(state, stop - step)
        except ValueError as error:
            refusals = self._refusals(state, stop - step)
            if not refusals:
                raise self._stopped(error, step) from error
        reasons = {member: f"refused at t = {self._time(step):g}: {why}" for member, why in refusals.items()}
        return self._advance(self._drop(reasons, state), step, stop)

    def _refusals(self, state: Tensor, steps: int) -> dict[int, str]:
        """Which cases the simulator does not advance, each on its own, and why."""
        found: dict[int, str] = {}
        if self.members is None:
            return found
        for member in self.members.kept:
            try:
                self.members.alone(member).advance(state[member : member + 1], steps)
            except ValueError as error:
                found[member] = str(error)
        return found

    def _stopped(self, error: ValueError, step: int) -> ValueError:
        return ValueError(
            f"Block {self.block.number} of {self.block.split} stopped at t = {self._time(step):g}. {error} {self._kept}"
        )

    def _drop(self, reasons: Mapping[int, str], state: Tensor) -> Tensor:
        """The state without these cases, whose places are taken by others."""
        reasons = {member: f"{why.rstrip('.')}. {self._last_seen(member)}".strip() for member, why in reasons.items()}
        for member, why in reasons.items():
            warnings.warn(f"{self.block.split} {self._called(member)} is dropped: {why}", stacklevel=2)
        return state[self._take_out(reasons).to(state.device)]

    def _take_out(self, reasons: Mapping[int, str]) -> Tensor:
        assert self.members is not None
        source = self.members.drop(reasons)
        self.simulator, self.stored = self.members.simulator, self.members.stored
        return source

    def _called(self, member: int) -> str:
        number = self.block.trajectories[member]
        return str(number) if self.members is None else described(self.members.cases[member], number)

    def _last_seen(self, member: int) -> str:
        return f"Last seen well: {self._seen[member]}." if member in self._seen else ""

    @property
    def _kept(self) -> str:
        return f"What was finished before is kept. {self.restarts.cure}".strip()

    def _look_at(self, state: Tensor, step: int) -> None:
        """Log and show what the simulator says of its state."""
        if not isinstance(self.simulator, Monitored):
            return
        diagnostics = self.simulator.diagnostics(state)
        running = self._running
        values = {name: [column[m] for m in running] for name, column in columns_of(diagnostics).items()}
        if self.log is not None:
            self.log.write([self.block.trajectories[m] for m in running], step, self._time(step), values)
        self._sound(state, state, step)
        self._seen = {
            member: ", ".join(
                [f"t = {self._time(step):.4g}", *(f"{name} {value[place]:.4g}" for name, value in values.items())]
            )
            for place, member in enumerate(running)
        }
        self.watch(self._seen[running[0]])
        if step >= self.schedule.warm_up:
            self._warn_of_doubts(diagnostics, step)

    def _warn_of_doubts(self, diagnostics: Any, step: int) -> None:
        """Once of each trajectory: when it is doubtful for the second time running, or in the end."""
        if not isinstance(self.simulator, Doubting):
            return
        doubts = {}
        for member in self._running:
            alone = type(diagnostics)(*(values[member : member + 1] for values in diagnostics))
            doubts[member] = self.simulator.doubts(alone)
        doubted = {member for member, doubt in doubts.items() if doubt}
        lasting = doubted if step == self.schedule.last else doubted & self._doubted
        fresh = sorted(lasting - self._warned)
        self._doubted, self._warned = doubted, self._warned | lasting
        if fresh:
            warnings.warn(
                f"{self.block.split} trajectories {', '.join(map(self._called, fresh))} at t = {self._time(step):g}: "
                f"{doubts[fresh[0]]}",
                stacklevel=2,
            )

    def _sound(self, values: Tensor, state: Tensor, step: int) -> Tensor:
        """The state, if what it gave is finite; cases that are not drop out, anything else that is not ends the run."""
        bad = (~torch.isfinite(values).flatten(1).all(1)).nonzero().flatten().tolist()
        if not bad:
            return state
        if self.members is not None:
            now = f"t = {self._time(step):g}"
            reasons = {
                member: f"over the range of single precision at {now}"
                if bool(torch.isfinite(state[member]).all())
                else f"NaN or infinite by {now}"
                for member in bad
                if member not in self.members.dropped
            }
            return self._drop(reasons, state)
        raise ValueError(
            f"Expected finite values but {self.block.split} trajectory {self._called(bad[0])} became NaN or infinite "
            f"by t = {self._time(step):g}. Most often the simulation is unstable: use a smaller time step than "
            f"{self.simulator.time_step:g}. {self._last_seen(bad[0])} {self._kept}".replace("  ", " ")
        )

    def _time(self, step: int) -> float:
        return max(step, 0) * self.simulator.time_step

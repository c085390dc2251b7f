"""What each iteration of a refiner is worth: its error, its residual, its time, and the solver's time to that error.

A refiner makes a prediction obey the equation. So does the plain solver, from the last given frame and without any
network: its error is what a refiner with the same march comes to, and its time is what has to be beaten.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pdesurrogate.evaluation.cost import Conditions, Performance
from pdesurrogate.evaluation.same_equation import require_same_equation
from pdesurrogate.fields.batch import collate, map_context
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.errors import relative_l2
from pdesurrogate.physics.residuals import March
from pdesurrogate.physics.spectral import resample
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.refinement.base import Path
from pdesurrogate.steppers.refinement.residuals import Defect
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.spectral_refiner import OUTCOMES, SpectralRefiner

Table = NDArray[np.float64]

# Seconds of a measurement after which its time needs no repetition: plans and caches are a small part of it.
_LONG = 5.0
# How often the surrogate and the solver are run for the time of one run.
_SHORT_CALLS = 3
# Of the norm of the defect where a method makes another residual small.
DEFECT_ORDER = -1.0


@dataclass(frozen=True)
class Refinement:
    """What the iterations of a refiner made of one block of frames of every trajectory.

    Iteration 0 is the surrogate alone, or what a method that sets up a head of its own, as the released recipe does,
    makes of it before the first step. Where a trajectory was done earlier, its last values stand for all further
    iterations. The frames of least residual are kept, so residuals never grow; errors may.

    Attributes:
        frames: of the block.
        relative_l2: ``(trajectory, iteration)`` mean over lead times and channels, as in a report.
        residual: ``(trajectory, iteration)`` the estimator that the method makes small.
        defect: ``(trajectory, iteration)`` that of the march's one-interval defect; equal to ``residual`` where the
            method makes it small.
        outcome: ``(trajectory, iteration)`` places in `OUTCOMES`.
        performances: one an iteration. Its time is up to and including the iteration, the check of the residual too;
            that of iteration 0 is the surrogate's alone.
        solver: the march itself from the last given frame.
        solver_description: in words.
    """

    frames: int
    relative_l2: Table
    residual: Table
    defect: Table
    outcome: NDArray[np.int8]
    performances: tuple[Performance, ...]
    solver: Performance
    solver_description: str

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """How each trajectory ended, and at which iteration."""
        ended = (self.outcome == self.outcome[:, -1:]).argmax(1)
        return [
            {"trajectory": number, "outcome": OUTCOMES[codes[-1]], "iteration": int(iteration)}
            for number, (codes, iteration) in enumerate(zip(self.outcome, ended, strict=True))
        ]


class RefinementTrial:
    """Measures a refiner after every iteration, on the first block after one frame of every trajectory.

    Times are taken as `StepClock` takes them: the median over the batches of a repetition, of those as large as the
    first, and the shortest over repetitions, since what else the machine does only adds. The very first batch also pays
    for plans and caches; it is counted only where there is no other.

    Args:
        refiner: to be measured; it is moved to the device and stays.
        trajectories: of one data set; read lazily.
        resolution: points along each side of the refiner's grid, where that is not the grid of the data.
        start_frame: number of the first predicted frame; by default the first that has enough history.
        batch_size: trajectories refined side by side.
        device: where.

    Raises:
        ValueError: if there is no trajectory, they are too short, or not of the march's equation (see
            `require_same_equation`).
    """

    def __init__(
        self,
        refiner: SpectralRefiner,
        trajectories: Sequence[Trajectory],
        *,
        resolution: int | None = None,
        start_frame: int | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"Expected a batch size of at least one but got {batch_size}.")
        require_same_equation(refiner.march, trajectories)
        self.refiner = refiner.to(device).eval()
        self.trajectories = trajectories
        self.resolution = resolution
        self.start_frame = refiner.history_frames if start_frame is None else start_frame
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.frames = self._block()
        self._passes: list[_Pass] = []
        self._made: deque[_Made] = deque()

    @property
    def stepper(self) -> Stepper:
        """The refiner on the grid of the data."""
        return self._on_data_grid(self.refiner)

    @property
    def surrogate(self) -> Stepper:
        """What it refines, on the grid of the data."""
        return self._on_data_grid(self.refiner.surrogate)

    @property
    def replayed(self) -> Stepper:
        """`stepper`, which takes each block that the first repetition made from there instead of making it again.

        For an evaluation of the same trajectories at the same batch size, once; anything else is made anew. The
        seconds that an evaluation finds are those of nothing; `add_refinement` puts in the trial's own.
        """
        return _Replayed(self.stepper, self._made)

    @property
    def seconds(self) -> float:
        """That the first repetition took, measuring included."""
        return self._passes[0].elapsed

    @property
    def takes_long(self) -> bool:
        """Whether a repetition takes so long that one is enough."""
        return self._passes[-1].elapsed > _LONG

    def measure(self, timed: int = 2, progress: Callable[[int, int], None] | None = None) -> None:
        """Refine every trajectory, again and again until enough batches were timed; what takes long is not repeated.

        Args:
            timed: batches to be timed after the very first.
            progress: told (iterations done, iterations in all).

        Raises:
            ValueError: if no batch is to be timed, or what the refiner raises.
        """
        if timed < 1:
            raise ValueError(f"Expected at least one batch to be timed but got {timed}.")
        count = len(self.trajectories)
        repetitions = -(-(timed + 1) // max(count // self.batch_size, 1))
        parts = repetitions * self.refiner.method.iterations * -(-count // self.batch_size)
        done = 0

        def advance(iterations: int) -> None:
            nonlocal done
            done += iterations
            if progress is not None:
                progress(done, parts)

        for _ in range(repetitions):
            self.again(advance)
            if self.takes_long:
                break
        if progress is not None:
            progress(parts, parts)

    def again(self, advance: Callable[[int], None] | None = None) -> None:
        """One more repetition; ``advance`` is told how many iterations were done since it was last told."""
        begun = self._now()
        batches: list[_Batch] = []
        for first in range(0, len(self.trajectories), self.batch_size):
            numbers = range(first, min(first + self.batch_size, len(self.trajectories)))
            batches.append(self._refined(numbers, advance or _ignore))
        size = len(batches[0].solver_errors)
        seconds = [batch.seconds for batch in batches if len(batch.solver_errors) == size]
        cold = not self._passes and len(seconds) == 1
        if not self._passes:
            seconds = seconds[1:] or seconds
        self._passes.append(
            _Pass(
                np.concatenate([batch.values for batch in batches]),
                np.concatenate([batch.solver_errors for batch in batches]),
                np.median(seconds, axis=0) / (size * self.frames),
                self._now() - begun,
                cold,
            )
        )

    def measured(self, conditions: Conditions | None = None) -> Refinement:
        """Everything so far; the performances state the conditions."""
        first = self._passes[0]
        seconds = np.stack([one.seconds for one in self._passes if not one.cold] or [first.seconds])

        def performance(errors: Table, times: Table) -> Performance:
            scatter = float(times.max() / times.min()) if len(times) > 1 else None
            return Performance(tuple(errors.tolist()), float(times.min()), conditions, scatter)

        errors, residual, defect, outcome = np.moveaxis(first.values, -1, 0)
        return Refinement(
            self.frames,
            errors,
            residual,
            defect,
            outcome.astype(np.int8),
            tuple(performance(*column) for column in zip(errors.T, seconds.T[:-1], strict=True)),
            performance(first.solver_errors, seconds[:, -1]),
            described(self.refiner.march),
        )

    def _on_data_grid(self, stepper: Stepper) -> Stepper:
        return stepper if self.resolution is None else Resampled(stepper, self.resolution)

    def _block(self) -> int:
        """Frames that are refined together; refuses trajectories without them."""
        start, needed = self.start_frame, self.refiner.history_frames
        if start < needed:
            raise ValueError(
                f"Expected start_frame of at least {needed}, the frames of history that the model needs, but got "
                f"{start}."
            )
        shortest = min(len(trajectory) for trajectory in self.trajectories)
        frames = self.refiner.window
        if frames is None and start < shortest:
            history, context, _ = self._given(range(1), 1)
            with torch.no_grad():
                frames = self.surrogate.step(history, context).shape[1]
        if start + (frames or 1) > shortest:
            raise ValueError(
                f"Expected {frames or 'some'} frames to refine from frame {start} on but a trajectory has {shortest} "
                "frames in all; start earlier, or refine a shorter window."
            )
        assert frames is not None
        return frames

    def _given(self, numbers: Sequence[int], frames: int) -> tuple[Tensor, Context, Tensor]:
        """History, context and the ``frames`` that follow, on the device."""
        start = self.start_frame
        chosen = [self.trajectories[number] for number in numbers]
        history = torch.stack([one.read(start - self.refiner.history_frames, start) for one in chosen])
        truth = torch.stack([one.read(start, start + frames) for one in chosen])
        context = map_context(lambda leaf: leaf.to(self.device), collate([one.context for one in chosen]))
        return history.to(self.device), context, truth.to(self.device)

    def _refined(self, numbers: range, advance: Callable[[int], None]) -> _Batch:
        history, context, truth = self._given(numbers, self.frames)
        watched = _Watched(self.refiner, truth, self._now, advance)
        with torch.no_grad():
            alone, _ = self._timed(lambda: torch.cat(list(rollout(self.surrogate, history, context, self.frames)), 1))
            # The way to the refiner's grid is part of its time.
            watched.begun = self._now()
            block = self._on_data_grid(watched).step(history, context)
            if not self._passes:
                self._made.append(_Made(history[:, -1:].cpu(), block.cpu()))
            march = self._on_data_grid(Marched(self.refiner.march, self.frames))
            solver, marched = self._timed(lambda: march.step(history[:, -1:].double(), context))
        missing = self.refiner.method.iterations + 1 - len(watched.seconds)
        advance(missing)
        values = [*watched.values, *watched.values[-1:] * missing]
        seconds = [alone, *watched.seconds[1:]]
        seconds += seconds[-1:] * missing
        return _Batch(np.stack(values, axis=1), _errors(marched, truth), np.array([*seconds, solver]))

    def _timed(self, work: Callable[[], Tensor]) -> tuple[float, Tensor]:
        """Seconds and result of what is short beside a refinement: the shortest time of some counts."""
        seconds: list[float] = []
        for _ in range(_SHORT_CALLS):
            begun = self._now()
            result = work()
            seconds.append(self._now() - begun)
        return min(seconds), result

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


class _Batch(NamedTuple):
    """A batch, refined once.

    Attributes:
        values: ``(batch, iteration, 4)`` error, residual, defect and outcome.
        solver_errors: ``(batch,)``.
        seconds: ``(iteration + 1,)`` up to and including each iteration, and those of the solver.
    """

    values: Table
    solver_errors: Table
    seconds: Table


class _Pass(NamedTuple):
    """All batches: as `_Batch`, but that ``seconds`` are for a frame of a trajectory.

    Attributes:
        elapsed: seconds of everything.
        cold: whether its times are those of the very first batch.
    """

    values: Table
    solver_errors: Table
    seconds: Table
    elapsed: float
    cold: bool


class _Made(NamedTuple):
    """A block of a batch and the last given frame before it, on the CPU."""

    last: Tensor
    block: Tensor


class _Replayed(nn.Module):
    """A stepper that takes blocks from a queue, where the next one there follows the frame that is given.

    Each is given twice: an evaluator that measures the memory of a step, on its second run, need not wait for the
    first.
    """

    def __init__(self, stepper: Stepper, made: deque[_Made]) -> None:
        super().__init__()
        self.stepper = stepper
        self._made = made
        self._given: _Made | None = None

    @property
    def history_frames(self) -> int:
        """As the stepper has it."""
        return self.stepper.history_frames

    @property
    def metadata(self) -> Metadata | None:
        """As the stepper has it."""
        return getattr(self.stepper, "metadata", None)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The block that follows."""
        last, again = history[:, -1:].cpu(), self._given
        if self._made and torch.equal(self._made[0].last, last):
            self._given = self._made.popleft()
            return self._given.block.to(history.device)
        self._given = None
        if again is not None and torch.equal(again.last, last):
            return again.block.to(history.device)
        return self.stepper.step(history, context)


class _Watched:
    """A refiner whose iterates are measured as they come; the measuring is not in their seconds."""

    def __init__(
        self,
        refiner: SpectralRefiner,
        truth: Tensor,
        now: Callable[[], float],
        advance: Callable[[int], None],
    ) -> None:
        self.values: list[Table] = []
        self.seconds: list[float] = []
        self.begun = 0.0
        self._refiner = refiner
        self._truth = truth
        self._now = now
        self._advance = advance

    @property
    def history_frames(self) -> int:
        """As the refiner has it."""
        return self._refiner.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """As the refiner's."""
        paused = 0.0
        for iterate in self._refiner.iterates(history, context):
            came = self._now()
            frames = resample(iterate.frames, self._truth.shape[3:])
            self.seconds.append(self._now() - self.begun - paused)
            defect = self._defect(history, iterate.frames, context, iterate.size)
            columns = (_errors(frames, self._truth), *map(_numbers, (iterate.size, defect, iterate.outcome)))
            self.values.append(np.stack(columns, axis=-1))
            self._advance(min(iterate.number, 1))
            paused += self._now() - came
        return iterate.frames.to(history.dtype)

    def _defect(self, history: Tensor, frames: Tensor, context: Context, size: Tensor) -> Tensor:
        """The size of the march's defect, whatever it is that the method makes small."""
        refiner = self._refiner
        if isinstance(refiner.residual, Defect):
            return size
        defect = Defect(refiner.march, refiner.metadata, DEFECT_ORDER)
        return defect.size(defect.of(Path(history[:, -1:].double(), frames), context))


class Marched:
    """A march as a stepper of many frames, which stay on its grid until the last."""

    history_frames = 1

    def __init__(self, march: March | Stepper, frames: int) -> None:
        self._march = march
        self._frames = frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The frames that follow."""
        frames = [history]
        for _ in range(self._frames):
            frames.append(self._march.step(frames[-1], context)[:, :1])
        return torch.cat(frames[1:], dim=1)


def _ignore(iterations: int) -> None:
    """Nobody wants to know of progress."""


def _errors(frames: Tensor, truth: Tensor) -> Table:
    """Relative L2 of each trajectory, mean over lead times and channels, in the precision that a stepper gives."""
    return _numbers(relative_l2(frames.to(truth.dtype), truth).mean((1, 2)))


def _numbers(values: Tensor) -> Table:
    return values.double().cpu().numpy()


def described(march: March) -> str:
    """A solver in words."""
    solver = march.stepper if isinstance(march, Resampled) else march
    details = solver.extra_repr() if isinstance(solver, nn.Module) else ""
    return f"{type(solver).__name__}({details})"

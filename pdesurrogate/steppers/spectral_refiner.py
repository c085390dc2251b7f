"""Refines what a surrogate predicts with the equation itself, at test time and without targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pdesurrogate.fields.batch import map_context
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.residuals import March
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.refinement.base import Method, Problem, Residual, State, select_samples
from pdesurrogate.steppers.refinement.newton import Newton
from pdesurrogate.steppers.refinement.residuals import Defect, require_fitting
from pdesurrogate.steppers.rollout import rollout

Outcome = Literal["refining", "converged", "stalled", "diverged", "exhausted"]
OUTCOMES: tuple[Outcome, ...] = ("refining", "converged", "stalled", "diverged", "exhausted")

# A residual that grew to this many times that of the prediction will not come back.
_DIVERGED = 10.0

# Relative round-off of what is stepped; a residual of its size says nothing.
_ROUND_OFF = 8 * torch.finfo(torch.float64).eps


class Iterate(NamedTuple):
    """A batch after some iterations.

    Attributes:
        number: of the iteration; 0 is the surrogate's own prediction.
        frames: ``(batch, time, channel, *space)`` in double precision: for each sample the ones of least residual so
            far, which is what a refiner that stopped here would give.
        size: ``(batch,)`` estimator of these frames.
        outcome: ``(batch,)`` place in `OUTCOMES`.
    """

    number: int
    frames: Tensor
    size: Tensor
    outcome: Tensor


class SpectralRefiner(nn.Module):
    """A `Stepper` that makes each prediction of a surrogate obey the equation, without knowing the truth.

    After S. Cao, F. Brarda, R. Li and Y. Xi, *Spectral-Refiner*, ICLR 2025, arXiv:2405.17211: the trained network is
    left as it is and its prediction, or the last spectral layer that makes it, is changed until the residual of the
    equation is small in a Sobolev norm of negative order. The residual here can see a wrong trajectory, which that of
    the released code cannot (`pdesurrogate.steppers.refinement.residuals.SelfStartedResidual`). It says how well each
    frame follows from the one before, so the last given frame decides which trajectory is found.

    Samples of a batch are refined on their own: one is left alone when its residual is small enough, no longer falls,
    or grows; the frames of least residual are kept. Gradients are taken inside where a method needs them, whatever the
    caller's mode is; none passes through.

    Args:
        surrogate: what predicts. Methods that change the head, and `Newton` with ``modes``, need a
            `pdesurrogate.steppers.surrogate.Surrogate` of an `SFNO`; `Newton` without and `Parareal` take any stepper.
        march: solver of the equation on the grid of the fields, whose step is the frame interval.
        method: `Newton`, `Parareal`, `Adam` or `LBFGS` of `pdesurrogate.steppers.refinement`; three Newton iterations
            by default.
        residual: what is made small; the `Defect` of the march by default.
        tolerance: residual at which a sample is done, in units of the prediction's own time derivative, which is
            measured as the residual is, or of the prediction's residual where that is larger. Round-off of the frames
            is always enough.
        window: frames that are predicted and refined together; as many as the surrogate gives at once by default.
            Methods that change the head take no other number.
        metadata: of the fields; the surrogate's by default.

    Raises:
        ValueError: if no metadata are known, or surrogate, march and residual do not fit each other.
    """

    def __init__(
        self,
        surrogate: Stepper,
        march: March,
        method: Method | None = None,
        residual: Residual | None = None,
        tolerance: float = 1e-9,
        window: int | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__()
        known = getattr(surrogate, "metadata", None) if metadata is None else metadata
        if not isinstance(known, Metadata):
            raise ValueError("Expected a surrogate that knows its metadata; give them to the refiner.")
        if not tolerance >= 0 or (window is not None and window < 1):
            raise ValueError(f"Expected tolerance >= 0 and window >= 1 but got {tolerance} and {window}.")
        for part in (surrogate, march, residual):
            require_fitting(part, known)
        if isinstance(residual, Defect) and residual.march is not march:
            raise ValueError(
                "Expected the defect of the refiner's own march but got that of another; give it that march."
            )
        self.metadata = known
        self.surrogate = surrogate
        self.march = march
        self.method: Method = Newton() if method is None else method
        self.residual: Residual = Defect(march, known) if residual is None else residual
        self.tolerance = tolerance
        self.window = window

    @property
    def history_frames(self) -> int:
        """As the surrogate has it."""
        return self.surrogate.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The refined block that follows ``history (batch, time, channel, *space)``, in the history's precision.

        The surrogate is given the history in its own.

        Raises:
            ValueError: as the surrogate and the method have it.
        """
        for iterate in self.iterates(history, context):
            last = iterate
        return last.frames.to(history.dtype)

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def iterates(self, history: Tensor, context: Context) -> Iterator[Iterate]:
        """The surrogate's prediction, and what each iteration makes of it, until no sample is left to refine."""
        problem = self._problem(history, context)
        state: State = self.method.begin(problem)
        frames, size = state.frames, self.residual.size(state.residual)
        first, waited = size.clone(), torch.zeros_like(size, dtype=torch.long)
        goal = self._goal(problem, size)
        # What overflows is no smaller than a goal that does.
        outcome = torch.where(
            ~torch.isfinite(size),
            OUTCOMES.index("diverged"),
            torch.where(size <= goal, OUTCOMES.index("converged"), OUTCOMES.index("refining")),
        )
        yield Iterate(0, frames, size, outcome)
        running = torch.arange(len(size), device=size.device)
        for number in range(1, self.method.iterations + 1):
            going = (outcome[running] == OUTCOMES.index("refining")).nonzero()[:, 0]
            if len(going) == 0:
                return
            if len(going) < len(running):
                running, problem, state = running[going], problem.select(going), select_samples(state, going)
            state = self.method.advance(problem, state)
            found = self.residual.size(state.residual)
            better = found < size[running]
            improved = better.reshape(-1, *(1,) * (frames.ndim - 1))
            frames = frames.index_copy(0, running, torch.where(improved, state.frames, frames[running]))
            size = size.index_copy(0, running, torch.where(better, found, size[running]))
            waited[running] = torch.where(better, 0, waited[running] + 1)
            lost = ~torch.isfinite(found) | (found > _DIVERGED * first[running])
            outcome = outcome.clone()
            outcome[running] = torch.where(
                lost,
                OUTCOMES.index("diverged"),
                torch.where(
                    found <= goal[running],
                    OUTCOMES.index("converged"),
                    torch.where(
                        waited[running] >= self.method.patience,
                        OUTCOMES.index("stalled"),
                        OUTCOMES.index("exhausted" if number == self.method.iterations else "refining"),
                    ),
                ),
            )
            yield Iterate(number, frames, size, outcome)

    def _problem(self, history: Tensor, context: Context) -> Problem:
        history, context = _outside_inference(history), map_context(_outside_inference, context)
        given = history.to(_precision(self.surrogate, history))
        if self.window is None:
            prediction = self.surrogate.step(given, context)
        else:
            prediction = torch.cat(list(rollout(self.surrogate, given, context, self.window)), dim=1)
        return Problem(self.surrogate, history, prediction, context, self.residual, self.metadata.grid.periods)

    def _goal(self, problem: Problem, size: Tensor) -> Tensor:
        """Size of a residual at which nothing is left to do, where that of the prediction is ``size``; ``(batch,)``."""
        frames = torch.cat([problem.first, problem.prediction.double()], dim=1)
        rate = frames.diff(dim=1) / self.metadata.frame_interval
        round_off = frames[:, 1:] * (_ROUND_OFF / self.metadata.frame_interval)
        # The rate of frames that stand still is nothing, their residual what it should be.
        unit = torch.maximum(self.residual.size(rate), size)
        return torch.maximum(self.tolerance * unit, self.residual.size(round_off))


def _precision(surrogate: Stepper, history: Tensor) -> torch.dtype:
    """That of a network's weights, and of the history for what has none."""
    weights = surrogate.parameters() if isinstance(surrogate, nn.Module) else iter(())
    return next((weight.dtype for weight in weights), history.dtype)


def _outside_inference(values: Tensor) -> Tensor:
    """A copy of what inference mode made, which can take part in a derivative."""
    return values.clone() if values.is_inference() else values

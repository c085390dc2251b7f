"""The one verb: whatever advances a field in time is a `Stepper`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from pdesurrogate.fields.trajectory import Context


@runtime_checkable
class Stepper(Protocol):
    """Simulators, surrogates, persistence and wrappers alike.

    ``history_frames`` says how many frames a step needs at least; ``step`` maps the latest frames
    ``(batch, time, channel, *space)`` to the next block ``(batch, time, channel, *space)``, one or more frames, in
    physical units and at the data set's frame interval.
    """

    @property
    def history_frames(self) -> int:
        """Number of past frames that `step` needs."""
        ...

    def step(self, history: Tensor, context: Context) -> Tensor:
        """Advance by one block of frames."""
        ...


@runtime_checkable
class ProbabilisticStepper(Stepper, Protocol):
    """A `Stepper` that also states how sure it is; ``step`` gives the mean alone."""

    def predict(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Mean and variance of the next block, of the same shape; the variance in squared physical units."""
        ...


@runtime_checkable
class OutputCorrector(Stepper, Protocol):
    """A `Stepper` whose frames a rollout corrects as it yields them, while it goes on from them as they are."""

    def correction(self, history: Tensor, context: Context) -> Callable[[Tensor], Tensor]:
        """What corrects block after block of the rollout that starts from ``history``."""
        ...


def require_outermost(stepper: Stepper, around: str) -> None:
    """Refuse to wrap an `OutputCorrector`: inside another stepper nothing would correct its frames.

    Raises:
        ValueError: naming both.
    """
    if isinstance(stepper, OutputCorrector):
        raise ValueError(
            f"Expected a {type(stepper).__name__}, which corrects what a rollout yields, as the outermost wrapper but "
            f"{around} is around it; put it last."
        )

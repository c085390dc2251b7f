"""What refining a prediction means: a problem, a residual to make small, and a method that does it step by step.

Everything works on a batch of samples that know nothing of each other, in double precision, and in physical units.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from pdesurrogate.fields.batch import map_context
from pdesurrogate.fields.trajectory import Context

Tree = TypeVar("Tree")


class Path(NamedTuple):
    """A predicted trajectory.

    Attributes:
        first: ``(batch, 1, channel, *space)``, the last given frame.
        frames: ``(batch, time, channel, *space)`` that follow it.
        rate: time derivative of ``frames``, where it is known.
    """

    first: Tensor
    frames: Tensor
    rate: Tensor | None = None


@runtime_checkable
class Residual(Protocol):
    """What a trajectory leaves of the equation, and how large that is."""

    @property
    def order(self) -> float:
        """Of the Sobolev norm that measures it."""
        ...

    @property
    def needs_rate(self) -> bool:
        """Whether the time derivative of the frames must be given."""
        ...

    def of(self, path: Path, context: Context) -> Tensor:
        """``(batch, time, channel, *space)``, units of the fields per time."""
        ...

    def size(self, residual: Tensor) -> Tensor:
        """The estimator that is made small, ``(batch,)``."""
        ...


class Problem(NamedTuple):
    """A batch of predictions to refine.

    Attributes:
        surrogate: that made them.
        history: that they were made from, ``(batch, time, channel, *space)``.
        prediction: ``(batch, time, channel, *space)``.
        context: batched.
        residual: that is made small.
        periods: of the box.
    """

    surrogate: Any
    history: Tensor
    prediction: Tensor
    context: Context
    residual: Residual
    periods: tuple[float, ...]

    @property
    def first(self) -> Tensor:
        """The last given frame, ``(batch, 1, channel, *space)``, in double precision."""
        return self.history[:, -1:].double()

    def select(self, kept: Tensor) -> Problem:
        """Those samples alone."""
        return self._replace(
            history=self.history[kept],
            prediction=self.prediction[kept],
            context=map_context(lambda leaf: leaf[kept], self.context),
        )


@runtime_checkable
class State(Protocol):
    """Where a method stands; a named tuple of tensors with the batch in front, and of tuples of such."""

    @property
    def frames(self) -> Tensor:
        """``(batch, time, channel, *space)``, the prediction so far."""
        ...

    @property
    def residual(self) -> Tensor:
        """Of these frames."""
        ...


@runtime_checkable
class Method(Protocol):
    """Changes a prediction step by step so that its residual shrinks.

    ``iterations`` is how many steps are taken at most, ``patience`` how many may pass without a smaller residual. What
    is handed from step to step is a `State` of the method's own.
    """

    iterations: int
    patience: int

    def begin(self, problem: Problem) -> Any:
        """The prediction itself."""
        ...

    def advance(self, problem: Problem, state: Any) -> Any:
        """One step further."""
        ...


@runtime_checkable
class Selectable(Protocol):
    """Part of a state that knows which of its tensors have a batch axis."""

    def select(self, kept: Tensor) -> Any:
        """Those samples alone."""
        ...


def select_samples(tree: Tree, kept: Tensor) -> Tree:
    """Samples of a state: every tensor of a nested tuple indexed along the batch; what selects itself does so."""
    if isinstance(tree, Tensor):
        return tree[kept]  # type: ignore[return-value]
    if isinstance(tree, Selectable):
        return tree.select(kept)
    if isinstance(tree, tuple):
        parts = [select_samples(part, kept) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)  # type: ignore[return-value]
    return tree


def positive(name: str, count: int) -> int:
    """The count, if it is one.

    Raises:
        ValueError: if it is not positive.
    """
    if count < 1:
        raise ValueError(f"Expected {name} of at least 1 but got {count}.")
    return count

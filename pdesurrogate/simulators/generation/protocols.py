"""What generation asks of a simulator, and of the objects around it that a recipe names by class path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Channel, Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.cases import CaseOf


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


class CaseSimulator(Simulator, Protocol):
    """A solver for a batch of exactly these cases: its states have one member for each of them."""

    @property
    def context(self) -> Context:
        """Batched: coordinates ``(batch, n)`` of each axis in float64, parameters ``(batch, P)``, mask if there is one.

        Parameters are in the order of `Simulator.parameters_by_name`, and the mask is ``(batch, *shape)``.
        """
        ...


@runtime_checkable
class Varied(Protocol):
    """A simulator whose trajectories may differ in parameters, extents and geometry; by itself it is the base case."""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What a case is given by; the base case's values are among `Simulator.parameters_by_name`."""
        ...

    def of_cases(self, parameters: Tensor) -> CaseSimulator:
        """The solver for a batch of cases, on a grid of the same shape, at the same time step and frame interval.

        Args:
            parameters: ``(batch, n)`` in float64, in the order of `parameter_names`.

        Raises:
            ValueError: naming a case that cannot be simulated, counted from 0 within the batch.
        """
        ...


@runtime_checkable
class Placed(Protocol):
    """A simulator that says where its points are; one that does not has them evenly spaced on periodic axes."""

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        """``(n,)`` of each axis in float64."""
        ...


@runtime_checkable
class Monitored(Protocol):
    """A simulator whose runs are long: it can be looked at, and stopped after any step without changing the result."""

    def diagnostics(self, state: Tensor) -> Any:
        """A NamedTuple of tensors ``(batch,)`` or ``(batch, n)`` for the run log, such as the CFL number."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A simulator that knows from which states it can go on."""

    def require_stable(self, state: Tensor) -> None:
        """Refuse a state ``(batch, channel, *space)`` from which `advance` would be refused or become unstable.

        Raises:
            ValueError: naming the limit.
        """
        ...


@runtime_checkable
class Doubting(Protocol):
    """A simulator that can tell from its diagnostics that a run, though stable, is not what was wanted."""

    def doubts(self, diagnostics: Any) -> str:
        """What the user must know of a run that stays like this; empty if nothing. Any part of a batch may be given."""
        ...


@runtime_checkable
class Start(Protocol):
    """Draws states on a simulator's own grid, where a periodic box does not describe it: walls, stretched axes."""

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """``count`` independent states ``(count, channel, *shape)`` in float64 on the generator's device."""
        ...


class StoredFrames(Protocol):
    """What archives hold of a state."""

    @property
    def attributes(self) -> dict[str, Any]:
        """Plain values for the head of the file, such as where walls are."""
        ...

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Of a stored frame."""
        ...

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        """``(n,)`` of each axis in float64."""
        ...

    def apply(self, state: Tensor) -> Tensor:
        """``(batch, channel, *stored)`` of a state ``(batch, channel, *space)``, on its device and in its precision."""
        ...


@runtime_checkable
class Varying(StoredFrames, Protocol):
    """Stored frames of a `CaseSimulator`: where they lie differs from member to member."""

    @property
    def context(self) -> Context:
        """Batched, of a stored frame; see `CaseSimulator.context`. ``coordinates`` without a batch are nominal."""
        ...


class Cases(Protocol):
    """Which cases a data set has: fixed lists, the same on every machine."""

    def of(self, split: str) -> Sequence[CaseOf]:
        """Cases of a split, in the order of its trajectories."""
        ...


class Reduction(Protocol):
    """Chooses what archives hold of a simulator's states, such as fields on a coarser grid."""

    def on(self, simulator: Simulator) -> StoredFrames:
        """The reduction of states on this simulator's grid.

        Raises:
            ValueError: if it does not fit the grid.
        """
        ...


class Gathering(Protocol):
    """Statistics of one block of trajectories as they grow; plain state, so that a restart can hold it."""

    def update(self, state: Tensor) -> None:
        """Count a state ``(batch, channel, *space)``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        ...


class StreamingStatistics(Protocol):
    """Chooses statistics that are gathered while a simulator runs, on its full grid and between frames.

    Besides, it states ``every``, the time steps between two states that are counted; a divisor of the steps per frame.
    """

    every: int

    def on(self, simulator: Simulator) -> Gathering:
        """Empty statistics of states on this simulator's grid.

        Raises:
            ValueError: if they do not fit the grid.
        """
        ...

    def save(self, simulator: Simulator, gathered: list[dict[str, Any]], path: str) -> None:
        """Write what several blocks gathered, each as its ``state_dict``, into one netCDF file."""
        ...

    def load(self, simulator: Simulator, path: str) -> dict[str, Any]:
        """What a file of `save` was made of, as one ``state_dict``, so that the files of shards can be saved as one.

        Raises:
            ValueError: if it is of something else.
        """
        ...


class Block(NamedTuple):
    """Trajectories that are computed together.

    Attributes:
        split: that they belong to.
        number: of the block within the split.
        trajectories: their numbers within the split.
    """

    split: str
    number: int
    trajectories: range

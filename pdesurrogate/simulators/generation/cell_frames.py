"""What archives hold of states that are averages over even cells: averages over blocks of cells, or every so many."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Channel
from pdesurrogate.simulators.generation.protocols import Simulator, StoredFrames
from pdesurrogate.simulators.generation.stored_frames import places


@runtime_checkable
class Convertible(Protocol):
    """A simulator of conserved variables that knows the primitive ones, such as velocity and pressure."""

    @property
    def primitive_channels(self) -> tuple[Channel, ...]:
        """Of what `to_primitive` gives."""
        ...

    def to_primitive(self, state: Tensor) -> Tensor:
        """Primitive fields of ``state (batch, channel, *space)``, on a grid of any size, in its precision."""
        ...


class CellAverages:
    """A `Reduction` to averages over blocks of ``factor`` cells along each axis.

    The sum of a conserved variable over all cells stays what it is, to round-off. Primitive fields are formed of the
    averages of the conserved ones, so that these can be had back.

    Args:
        factor: cells that are joined along each axis; 1 keeps all.
        fields: what is stored: the variables that the simulator steps, or its primitive ones.

    Raises:
        ValueError: if the factor is below 1 or ``fields`` is neither of the two.

    Example:
        >>> from pdesurrogate.simulators.compressible.flow import Compressible2d
        >>> solver = Compressible2d(16, frame_interval=0.1, steps_per_frame=10)
        >>> frames = CellAverages(4).on(solver)
        >>> [points.tolist() for points in frames.coordinates]
        [[0.125, 0.375, 0.625, 0.875], [0.125, 0.375, 0.625, 0.875]]
        >>> frames.apply(torch.ones(2, 4, 16, 16)).shape
        torch.Size([2, 4, 4, 4])
    """

    def __init__(self, factor: int, fields: Literal["conserved", "primitive"] = "conserved") -> None:
        _check(factor, fields)
        self.factor = factor
        self.fields = fields

    def on(self, simulator: Simulator) -> StoredFrames:
        """The averages of states of this solver.

        Raises:
            ValueError: if its fields are no averages over cells, the factor does not divide their number, or it has no
                primitive fields and these are asked for.
        """
        return _Averages(simulator, self.factor, self.fields)


class EveryCell:
    """A `Reduction` to every ``factor``-th cell along each axis, from the first one on.

    Nothing is filtered: what the coarse grid cannot hold is aliased, and the sum over the stored cells is not
    conserved. Sets after PDEBench's generator are stored like this. The coordinates are those of the cells that are
    kept; the first of them lies half a cell of the simulation from 0, whatever the factor.

    Args:
        factor: cells from one stored cell to the next along each axis; 1 keeps all.
        fields: what is stored: the variables that the simulator steps, or its primitive ones.

    Raises:
        ValueError: if the factor is below 1 or ``fields`` is neither of the two.

    Example:
        >>> from pdesurrogate.simulators.compressible.flow import Compressible2d
        >>> solver = Compressible2d(16, frame_interval=0.1, steps_per_frame=10)
        >>> EveryCell(4).on(solver).coordinates[0].tolist()
        [0.03125, 0.28125, 0.53125, 0.78125]
    """

    def __init__(self, factor: int, fields: Literal["conserved", "primitive"] = "conserved") -> None:
        _check(factor, fields)
        self.factor = factor
        self.fields = fields

    def on(self, simulator: Simulator) -> StoredFrames:
        """Every so many cells of states of this solver.

        Raises:
            ValueError: as `CellAverages.on`.
        """
        return _Kept(simulator, self.factor, self.fields)


class _CoarseCells:
    """What both have in common: where the fields go, and which they are."""

    def __init__(self, simulator: Simulator, factor: int, fields: str) -> None:
        name = type(simulator).__name__
        if any(channel.location != "cell" for channel in simulator.channels):
            raise ValueError(
                f"Expected a solver whose fields are all averages over cells but those of {name} are at "
                f"{sorted({channel.location for channel in simulator.channels})}; use another reduction."
            )
        if any(size % factor for size in simulator.shape):
            raise ValueError(
                f"Expected a factor that divides the {' x '.join(map(str, simulator.shape))} cells of {name} but got "
                f"{factor}."
            )
        if fields == "primitive" and not isinstance(simulator, Convertible):
            raise ValueError(f"Expected a solver with primitive fields but {name} has none; store the conserved ones.")
        self.factor = factor
        self.coordinates: tuple[Tensor, ...] = tuple(self.thinned(points, -1).cpu() for points in places(simulator))
        self.attributes: dict[str, Any] = {"simulated_cells": list(simulator.shape)}
        self._convertible = simulator if fields == "primitive" and isinstance(simulator, Convertible) else None
        self.channels: tuple[Channel, ...] = (
            simulator.channels if self._convertible is None else self._convertible.primitive_channels
        )
        self._dimension = len(simulator.shape)

    def thinned(self, values: Tensor, axis: int) -> Tensor:
        """Of ``values`` along one axis, counted from the last."""
        raise NotImplementedError

    def apply(self, state: Tensor) -> Tensor:
        """``(batch, channel, *coarse)`` of a state ``(batch, channel, *space)``."""
        for axis in range(-self._dimension, 0):
            state = self.thinned(state, axis)
        return state if self._convertible is None else self._convertible.to_primitive(state)


class _Averages(_CoarseCells):
    """Of blocks."""

    def thinned(self, values: Tensor, axis: int) -> Tensor:
        """Means of so many neighbors along one axis."""
        return values.unflatten(axis, (-1, self.factor)).mean(axis)


class _Kept(_CoarseCells):
    """Single cells."""

    def thinned(self, values: Tensor, axis: int) -> Tensor:
        """Every so many along one axis."""
        kept = torch.arange(0, values.shape[axis], self.factor, device=values.device)
        return values.index_select(axis, kept)


def _check(factor: int, fields: str) -> None:
    if factor < 1:
        raise ValueError(f"Expected a factor of at least 1 but got {factor}.")
    if fields not in ("conserved", "primitive"):
        raise ValueError(f"Expected fields 'conserved' or 'primitive' but got {fields!r}.")

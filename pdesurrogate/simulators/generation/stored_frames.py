"""What archives hold of a simulator's states, unless a recipe chooses a `Reduction` of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pdesurrogate.fields.grid import Channel
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.spectral import resample
from pdesurrogate.simulators.generation.protocols import CaseSimulator, Placed, Simulator


class AsSimulated:
    """States as they are."""

    def __init__(self, simulator: Simulator) -> None:
        self.attributes: dict[str, Any] = {}
        self.channels: tuple[Channel, ...] = simulator.channels
        self.coordinates: tuple[Tensor, ...] = (
            simulator.coordinates
            if isinstance(simulator, Placed)
            else simulator.grid.uniform_coordinates(simulator.shape)
        )

    def apply(self, state: Tensor) -> Tensor:
        """The state itself."""
        return state


class CasesAsSimulated(AsSimulated):
    """States of cases as they are."""

    def __init__(self, simulator: CaseSimulator) -> None:
        self.attributes = {}
        self.channels = simulator.channels
        self.context: Context = simulator.context
        self.coordinates = tuple(points[0] for points in self.context.coordinates)


class SpectralCut:
    """States on fewer points of a periodic box: the waves that these can hold.

    Args:
        simulator: whose states.
        resolution: points along each axis.

    Raises:
        ValueError: if an axis is not periodic.
    """

    def __init__(self, simulator: Simulator, resolution: int) -> None:
        self.attributes: dict[str, Any] = {}
        self.channels: tuple[Channel, ...] = simulator.channels
        self.coordinates: tuple[Tensor, ...] = simulator.grid.uniform_coordinates((resolution,) * len(simulator.shape))
        self._shape = (resolution,) * len(simulator.shape)

    def apply(self, state: Tensor) -> Tensor:
        """``(batch, channel, *space)`` cut to the resolution."""
        return resample(state, self._shape)


def places(simulator: Simulator) -> tuple[Tensor, ...]:
    """Where a simulator's points are: ``(n,)`` of each axis, ``(batch, n)`` of a `CaseSimulator`."""
    context = getattr(simulator, "context", None)  # others have a method of that name
    return context.coordinates if isinstance(context, Context) else AsSimulated(simulator).coordinates

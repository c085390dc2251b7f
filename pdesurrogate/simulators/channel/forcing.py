"""What drives a channel flow: a uniform force along x, given or found from the flow rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class ChannelForcing(Protocol):
    """A uniform force along x; over density, so that it is an acceleration."""

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """What an archive records of it."""
        ...

    def force(self, bulk_velocity: Tensor, response: Tensor) -> Tensor:
        """The force ``(batch,)`` of a substep.

        Args:
            bulk_velocity: ``(batch,)`` at the end of the substep if there were no force.
            response: ``()``, what a unit force adds to it.
        """
        ...

    def balance(self, wall_stress: Tensor, half_height: float) -> Tensor:
        """The force ``(batch,)`` that acts at an instant with ``wall_stress (batch, 2)`` on both walls."""
        ...


@dataclass(frozen=True)
class MassFlux:
    """Holds the bulk velocity: each substep applies the uniform force that ends it at this value.

    Attributes:
        bulk_velocity: mean of the velocity along x over the channel.

    Raises:
        ValueError: if it is not finite.
    """

    bulk_velocity: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.bulk_velocity):
            raise ValueError(f"Expected a finite bulk_velocity but got {self.bulk_velocity}.")

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """The bulk velocity."""
        return {"bulk_velocity": self.bulk_velocity}

    def force(self, bulk_velocity: Tensor, response: Tensor) -> Tensor:
        """What is missing, over the response."""
        return (self.bulk_velocity - bulk_velocity) / response

    def balance(self, wall_stress: Tensor, half_height: float) -> Tensor:
        """What the walls take away."""
        return wall_stress.mean(-1) / half_height


@dataclass(frozen=True)
class PressureGradient:
    """A constant force; in the mean the walls then bear the stress ``value * half_height``.

    Attributes:
        value: ``-dp/dx`` over density, velocity per time.

    Raises:
        ValueError: if it is not finite.
    """

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"Expected a finite pressure gradient but got {self.value}.")

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """The gradient."""
        return {"pressure_gradient": self.value}

    def force(self, bulk_velocity: Tensor, response: Tensor) -> Tensor:
        """The value, whatever the flow does."""
        return bulk_velocity.new_full(bulk_velocity.shape, self.value)

    def balance(self, wall_stress: Tensor, half_height: float) -> Tensor:
        """The value."""
        return wall_stress.new_full(wall_stress.shape[:-1], self.value)

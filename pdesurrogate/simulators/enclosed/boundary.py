"""What happens at the four sides of a box."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Wall:
    """No slip; ``velocity`` is that of the wall along itself, towards larger coordinates.

    Raises:
        ValueError: if the velocity is not finite.
    """

    velocity: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.velocity):
            raise ValueError(f"Expected a finite wall velocity but got {self.velocity}.")


@dataclass(frozen=True)
class FreeSlip:
    """Nothing passes and nothing rubs: a plane of symmetry."""


@dataclass(frozen=True)
class Inlet:
    """Fluid enters at right angles, with one velocity everywhere, or a profile of a given peak.

    Raises:
        ValueError: if the velocity is not positive and finite.
    """

    velocity: float

    def __post_init__(self) -> None:
        if not 0 < self.velocity < math.inf:
            raise ValueError(f"Expected a finite inlet velocity > 0, into the box, but got {self.velocity}.")

    def profile(self, places: Tensor) -> Tensor:
        """Velocity at ``places`` of the side, counted from 0 to 1."""
        return torch.full_like(places, self.velocity)

    @property
    def peak(self) -> float:
        """Largest velocity."""
        return self.velocity


@dataclass(frozen=True)
class ParabolicInlet(Inlet):
    """That of developed flow between plates: ``4 velocity s (1 - s)``; ``velocity`` is the peak.

    Example:
        >>> ParabolicInlet(1.5).profile(torch.tensor([0.0, 0.5])).tolist()
        [0.0, 1.5]
    """

    def profile(self, places: Tensor) -> Tensor:
        """Velocity at ``places`` of the side, counted from 0 to 1."""
        return 4 * self.velocity * places * (1 - places)


@dataclass(frozen=True)
class Outlet:
    """Fluid leaves as it comes: no gradient across, zero pressure; what flows back in carries no momentum."""


@dataclass(frozen=True)
class Boundary:
    """The four sides. Fluid enters at the left and leaves at the right, if it does.

    Raises:
        ValueError: if there is an inlet without an outlet or the other way round.

    Example:
        >>> Boundary(top=Wall(velocity=1.0)).is_open
        False
        >>> Boundary(left=Inlet(1.0))
        Traceback (most recent call last):
        ...
        ValueError: Expected an outlet on the right with the inlet on the left, but the right side is Wall(velocity=0.0); what enters must leave.
    """  # noqa: E501

    left: Wall | FreeSlip | Inlet = field(default_factory=Wall)
    right: Wall | FreeSlip | Outlet = field(default_factory=Wall)
    bottom: Wall | FreeSlip = field(default_factory=Wall)
    top: Wall | FreeSlip = field(default_factory=Wall)

    def __post_init__(self) -> None:
        enters, leaves = isinstance(self.left, Inlet), isinstance(self.right, Outlet)
        if enters and not leaves:
            raise ValueError(
                f"Expected an outlet on the right with the inlet on the left, but the right side is {self.right}; what "
                "enters must leave."
            )
        if leaves and not enters:
            raise ValueError(
                f"Expected an inlet on the left with the outlet on the right, but the left side is {self.left}; what "
                "leaves must enter."
            )

    @property
    def is_open(self) -> bool:
        """Whether fluid passes through."""
        return isinstance(self.right, Outlet)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the four sides' kinds; the same for all inlets."""
        sides = (self.left, self.right, self.bottom, self.top)
        return tuple("Inlet" if isinstance(side, Inlet) else type(side).__name__ for side in sides)

    @property
    def largest_velocity(self) -> float:
        """Of walls and inlets."""
        sides = (self.left, self.right, self.bottom, self.top)
        moving = [abs(side.velocity) for side in sides if isinstance(side, Wall)]
        entering = [side.peak for side in sides if isinstance(side, Inlet)]
        return max(moving + entering, default=0.0)

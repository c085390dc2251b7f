"""Boxes and the bodies inside them, by their distance functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A plane rectangle, from ``low`` to ``high``, each ``(x, y)``.

    Raises:
        ValueError: if ``high`` is not above ``low`` along both axes, or a corner is not finite.

    Example:
        >>> Box((0.0, 0.0), (2.2, 0.41)).lengths
        (2.2, 0.41)
    """

    low: tuple[float, float]
    high: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(low < high and math.isfinite(high - low) for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(
                f"Expected a finite box with its high corner above its low one but got {self.low}, {self.high}."
            )

    @property
    def lengths(self) -> tuple[float, float]:
        """Extent along x and y."""
        return self.high[0] - self.low[0], self.high[1] - self.low[1]

    def centers(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Centers of even cells along x and y ``(nx,)``, ``(ny,)`` in float64."""
        x, y = (
            low + length * (torch.arange(size, dtype=torch.float64) + 0.5) / size
            for low, length, size in zip(self.low, self.lengths, shape, strict=True)
        )
        return x, y

    def faces(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Faces of even cells along x and y ``(nx + 1,)``, ``(ny + 1,)`` in float64."""
        x, y = (
            low + length * torch.arange(size + 1, dtype=torch.float64) / size
            for low, length, size in zip(self.low, self.lengths, shape, strict=True)
        )
        return x, y


class Body(Protocol):
    """A solid body at rest."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Signed distance from the surface, positive outside; ``x`` and ``y`` broadcast."""
        ...

    def nearest(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest point of the surface."""
        ...

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Low and high corner of the rectangle around it."""
        ...


@dataclass(frozen=True)
class Disc:
    """The section of a circular cylinder.

    Raises:
        ValueError: if the radius is not positive.

    Example:
        >>> Disc((0.0, 0.0), 1.0).distance(torch.tensor(2.0), torch.tensor(0.0)).item()
        1.0
    """

    center: tuple[float, float]
    radius: float

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"Expected a positive radius but got {self.radius}.")

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Signed distance from the circle."""
        return torch.hypot(x - self.center[0], y - self.center[1]) - self.radius

    def nearest(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The point of the circle on the same ray; of the center itself, the one along x."""
        across, along = x - self.center[0], y - self.center[1]
        length = torch.hypot(across, along)
        central = length == 0
        scale = self.radius / torch.where(central, 1.0, length)
        across = torch.where(central, torch.ones_like(length), across)
        return self.center[0] + scale * across, self.center[1] + scale * along

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of the square around the circle."""
        (x, y), r = self.center, self.radius
        return (x - r, y - r), (x + r, y + r)


@dataclass(frozen=True)
class Rectangle:
    """A rectangular bar along the axes; it may reach through a side of the box, as a step on the floor does.

    Raises:
        ValueError: if ``high`` is not above ``low``.

    Example:
        >>> bar = Rectangle((0.0, 0.0), (2.0, 1.0))
        >>> bar.distance(torch.tensor([1.0, 3.0]), torch.tensor([0.75, 0.5])).tolist()
        [-0.25, 1.0]
    """

    low: tuple[float, float]
    high: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"Expected a rectangle of positive width and height but got {self.low}, {self.high}.")

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Signed distance from the four sides."""
        beyond_x = torch.maximum(self.low[0] - x, x - self.high[0])
        beyond_y = torch.maximum(self.low[1] - y, y - self.high[1])
        outside = torch.hypot(beyond_x.clamp(min=0), beyond_y.clamp(min=0))
        return outside + torch.maximum(beyond_x, beyond_y).clamp(max=0)

    def nearest(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest point of the four sides."""
        x, y = torch.broadcast_tensors(x, y)
        inside = self.distance(x, y) < 0
        near_x = x.clamp(self.low[0], self.high[0])
        near_y = y.clamp(self.low[1], self.high[1])
        sides = torch.stack([x - self.low[0], self.high[0] - x, y - self.low[1], self.high[1] - y])
        side = sides.argmin(0)
        # As tensors: of two Python numbers `torch.where` makes one in single precision.
        (low_x, low_y), (high_x, high_y) = x.new_tensor(self.low), x.new_tensor(self.high)
        ends_x = torch.where(side == 0, low_x, high_x)
        ends_y = torch.where(side == 2, low_y, high_y)
        return (
            torch.where(inside & (side < 2), ends_x, near_x),
            torch.where(inside & (side >= 2), ends_y, near_y),
        )

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Its corners."""
        return self.low, self.high

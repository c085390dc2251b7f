"""What a network is told of places: codes of coordinates, and rotations of features by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

AxisKind = Literal["open", "periodic"]

# Standard deviation of the random frequencies in `RandomCode`, in turns a unit of length.
RANDOM_FREQUENCY = 8.0

# The fastest pair of `RotaryCode` turns by so many radians a unit of length along an open axis.
FASTEST_TURN = 64.0

# From the fastest pair along an open axis to the slowest, the rate falls by nearly this factor.
ROTARY_RANGE = 10000.0

# Lengths that `WallCode` decays over, and the shortest of them in units of half the distance between the walls.
WALL_LENGTHS = 8
SHORTEST_WALL_LENGTH = 0.01


class Rotation(NamedTuple):
    """Cosines and sines ``(..., points, features)`` of the angles by which `rotate` turns pairs of features."""

    cosines: Tensor
    sines: Tensor


class RandomCode(nn.Module):
    """Features of a place: ``mix([sin 2 pi x B, cos 2 pi x B])`` with frequencies ``B`` that stay as they were drawn.

    With coordinates that span many periods of them it is in effect a code of each grid point alone.

    Attributes:
        frequencies: ``B``, ``(axes, width / 2)``; a parameter without gradient.

    Example:
        >>> code = RandomCode(3, 8)
        >>> code(code.features(torch.zeros(4, 5, 3))).shape
        torch.Size([4, 5, 8])
    """

    def __init__(self, axes: int, width: int) -> None:
        super().__init__()
        frequencies = torch.empty(axes, width // 2)
        if not frequencies.is_meta:  # where torch would import much of itself to draw nothing
            frequencies.normal_(std=RANDOM_FREQUENCY)
        self.frequencies = nn.Parameter(frequencies, requires_grad=False)
        self.mix = nn.Linear(width, width)

    def features(self, places: Tensor) -> Tensor:
        """Those of ``places (..., axes)`` before they are mixed, ``(..., width)``."""
        angles = 2 * math.pi * (places @ self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Mix the ``features``."""
        mixed: Tensor = self.mix(features)
        return mixed


class WallCode(nn.Module):
    """Features of the distances to the ends of axes, ``mix(exp(-distance / length))`` with lengths spaced by factors.

    They resolve a thin layer at each wall and vary slowly in between, so that grids of any resolution share them.

    Example:
        >>> code = WallCode([2.0], 8)
        >>> code(code.features(torch.rand(4, 5, 1))).shape
        torch.Size([4, 5, 8])
    """

    rates: Tensor

    def __init__(self, lengths: Sequence[float], width: int) -> None:
        super().__init__()
        self.lengths = tuple(lengths)
        halves = torch.tensor(self.lengths)[:, None] / 2
        shortest = math.log(SHORTEST_WALL_LENGTH)
        self.register_buffer("rates", torch.linspace(-shortest, 0, WALL_LENGTHS).exp() / halves, persistent=False)
        self.mix = nn.Linear(2 * len(self.lengths) * WALL_LENGTHS, width)

    def features(self, places: Tensor) -> Tensor:
        """Those of ``places (..., axes)``, from 0 to the length of each axis, before they are mixed."""
        ends = places.new_tensor(self.lengths)
        distances = torch.stack([places, ends - places], dim=-1)[..., None]
        return torch.exp(-distances * self.rates[:, None]).flatten(-3)

    def forward(self, features: Tensor) -> Tensor:
        """Mix the ``features``."""
        mixed: Tensor = self.mix(features)
        return mixed


class RotaryCode(nn.Module):
    """Angles that grow with the coordinate, so that products of turned features depend on differences of places.

    Features ``i`` and ``i + features / 2`` are a pair (Su et al., arXiv:2104.09864). Along an open axis pair ``i``
    turns by ``64 * 10000**(-2 i / features)`` radians a unit of length. Along a periodic one it turns by ``i modulo
    (harmonics + 1)`` whole turns a period: differences of places are then those on a circle.

    Attributes:
        rates: ``(features / 2,)``; times 64, or in turns a period.

    Example:
        >>> code = RotaryCode(8, "periodic", length=2.0, harmonics=2)
        >>> code.rates.tolist()
        [0.0, 1.0, 2.0, 0.0]
        >>> values = torch.ones(5, 8)
        >>> turned = rotate(values, code(torch.linspace(0, 2, 5)))
        >>> bool(torch.isclose(turned[0], turned[4], atol=1e-5).all())
        True
    """

    rates: Tensor

    def __init__(self, features: int, kind: AxisKind, length: float, harmonics: int) -> None:
        super().__init__()
        pairs = range(features // 2)
        falling = [ROTARY_RANGE ** (-2 * pair / features) for pair in pairs]
        turns = [float(pair % (harmonics + 1)) for pair in pairs]
        self.register_buffer("rates", torch.tensor(falling if kind == "open" else turns))
        self.turn = FASTEST_TURN if kind == "open" else 2 * math.pi / length

    def forward(self, points: Tensor) -> Rotation:
        """The rotations at ``points (..., n)``, each table ``(..., n, features)``."""
        angles = (points * self.turn)[..., None] * self.rates
        angles = torch.cat([angles, angles], dim=-1)
        return Rotation(angles.cos(), angles.sin())


def rotate(values: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs of features of ``values (..., points, features)``."""
    first, second = values.chunk(2, dim=-1)
    return values * rotation.cosines + torch.cat([-second, first], dim=-1) * rotation.sines

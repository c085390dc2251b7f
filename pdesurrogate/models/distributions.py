"""Distributions that a network predicts, whatever form it gives them: all have a mean, a variance and moments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean and covariance of a prediction: ``diag(variance) + sum_k modes_k modes_k^T``.

    Attributes:
        mean: ``(batch, time, channel, *space)``.
        variance: of what is independent from point to point, of the same shape.
        modes: ``(batch, modes, time, channel, *space)`` of what points share; none where all of it is independent.
    """

    mean: Tensor
    variance: Tensor
    modes: Tensor | None = None

    @property
    def marginal_variance(self) -> Tensor:
        """Of each point, ``(batch, time, channel, *space)``."""
        return self.variance if self.modes is None else self.variance + self.modes.square().sum(1)


class Distribution(Protocol):
    """A predicted distribution of frames ``(batch, time, channel, *space)``."""

    @property
    def mean(self) -> Tensor:
        """The one forecast to go on with."""
        ...

    @property
    def variance(self) -> Tensor:
        """Of each point, in squared units."""
        ...

    def moments(self) -> Moments:
        """Mean and covariance."""
        ...

    def rescaled(self, scale: Tensor, origin: Tensor | float = 0.0) -> Distribution:
        """Of ``origin + scale * x``; the scale is positive and broadcasts to frames."""
        ...

    def first(self, frames: int) -> Distribution:
        """Of the first frames alone."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions.

    Attributes:
        mean: ``(batch, time, channel, *space)``.
        variance: of the same shape.
    """

    mean: Tensor
    variance: Tensor

    def moments(self) -> Moments:
        """Mean and variance."""
        return Moments(self.mean, self.variance)

    def rescaled(self, scale: Tensor, origin: Tensor | float = 0.0) -> Gaussian:
        """See `Distribution`."""
        return Gaussian(self.mean * scale + origin, self.variance * scale.square())

    def first(self, frames: int) -> Gaussian:
        """See `Distribution`."""
        return Gaussian(self.mean[:, :frames], self.variance[:, :frames])


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of independent distributions.

    The mean is the median, and the deviation that of the normal distribution with the same distance between the two
    quantiles that stand nearest to one deviation from it: half of that between the levels 0.1587 and 0.8413.

    Attributes:
        values: ``(level, batch, time, channel, *space)``, increasing with the level.
        levels: of them; increasing, symmetric about 0.5, which is one of them.
    """

    values: Tensor
    levels: tuple[float, ...]

    @property
    def mean(self) -> Tensor:
        """The median."""
        return self.values[len(self.levels) // 2]

    @property
    def variance(self) -> Tensor:
        """Of the normal distribution with the distance between two of the quantiles."""
        scores = [NormalDist().inv_cdf(level) for level in self.levels[len(self.levels) // 2 + 1 :]]
        place = min(range(len(scores)), key=lambda number: abs(scores[number] - 1))
        upper = len(self.levels) // 2 + 1 + place
        spread = self.values[upper] - self.values[len(self.levels) - 1 - upper]
        return (spread / (2 * scores[place])).square()

    def moments(self) -> Moments:
        """Median and variance."""
        return Moments(self.mean, self.variance)

    def rescaled(self, scale: Tensor, origin: Tensor | float = 0.0) -> Quantiles:
        """See `Distribution`."""
        return Quantiles(self.values * scale + origin, self.levels)

    def first(self, frames: int) -> Quantiles:
        """See `Distribution`."""
        return Quantiles(self.values[:, :, :frames], self.levels)


@dataclass(frozen=True)
class Members:
    """Several forecasts that stand for a distribution: its mean and unbiased covariance are theirs.

    Attributes:
        values: ``(member, batch, time, channel, *space)``, at least two.
    """

    values: Tensor

    @property
    def mean(self) -> Tensor:
        """Of all members."""
        return self.values.mean(0)

    @property
    def variance(self) -> Tensor:
        """Unbiased."""
        return self.moments().marginal_variance

    def moments(self) -> Moments:
        """Mean and anomalies: nothing is independent from point to point."""
        mean = self.mean
        return Moments(mean, torch.zeros_like(mean), anomalies(self.values))

    def rescaled(self, scale: Tensor, origin: Tensor | float = 0.0) -> Members:
        """See `Distribution`."""
        return Members(self.values * scale + origin)

    def first(self, frames: int) -> Members:
        """See `Distribution`."""
        return Members(self.values[:, :, :frames])


def anomalies(members: Tensor) -> Tensor:
    """``(x_k - mean) / sqrt(K - 1)`` of ``members (member, batch, ...)``, as modes ``(batch, member, ...)``.

    The sum of their outer products is the unbiased covariance.

    Example:
        >>> anomalies(torch.tensor([[1.0], [2.0], [6.0]])).square().sum().item()  # (4 + 1 + 9) / 2
        7.0
    """
    # Relative to one member: where all agree the anomalies are exactly zero, as a mean of equal numbers is rounded.
    shifted = members - members[:1]
    return ((shifted - shifted.mean(0)) / math.sqrt(len(members) - 1)).movedim(0, 1)

"""Losses of predicted distributions, and what drives the heads of one network apart.

Fields arrive in units of each channel's deviation, their mean kept, as they do in `training.losses`.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.uncertainty import crps_gaussian, log_likelihood_gaussian
from pdesurrogate.models.distributions import Distribution, Members, Quantiles
from pdesurrogate.models.heads import DiverseHeads
from pdesurrogate.physics.norms import weighted_mean
from pdesurrogate.training.losses import Loss


@runtime_checkable
class ProbabilisticLoss(Protocol):
    """Scalar score of a predicted distribution; smaller is better."""

    def score(self, forecast: Distribution, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """Scalar; the target ``(batch, time, channel, *space)``."""
        ...


class Regularization(Protocol):
    """What is added to a loss and depends on the network alone."""

    def penalty(self, network: nn.Module, epoch: int) -> Tensor:
        """Scalar, in an epoch counted from zero."""
        ...


class GaussianLikelihood:
    """``-mean log N(target; mean, variance)`` over points, frames and channels, constants included.

    It is the logarithmic score of Gneiting & Raftery (2007, doi:10.1198/016214506000001437), which punishes a small
    variance at a large error without bound. So its first gradients are steep, an adaptive optimizer remembers them, and
    means are learned slowly where the variance is large; `GaussianCRPS` has neither trouble.
    """

    def score(self, forecast: Distribution, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean."""
        return -_mean(log_likelihood_gaussian(forecast.mean, forecast.variance, target), context, grid)


class GaussianCRPS:
    """Mean continuous ranked probability score of normal distributions, in units of deviations.

    It is linear in a large error where `GaussianLikelihood` is quadratic; see `metrics.uncertainty.crps_gaussian`.
    """

    def score(self, forecast: Distribution, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean."""
        return _mean(crps_gaussian(forecast.mean, forecast.variance, target), context, grid)


class Pinball:
    """``mean max(level e, (level - 1) e)`` of the error ``e = target - quantile``, over levels and everything else.

    Its minimum is at the quantiles (Koenker & Bassett 1978, doi:10.2307/1913643).

    Raises:
        ValueError: in use, if the network predicts no quantiles.
    """

    def score(self, forecast: Distribution, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean."""
        if not isinstance(forecast, Quantiles):
            raise _unfit("quantiles", "QuantileHead", forecast)
        losses = [
            torch.maximum(level * (target - quantile), (level - 1) * (target - quantile))
            for level, quantile in zip(forecast.levels, forecast.values, strict=True)
        ]
        return _mean(torch.stack(losses).mean(0), context, grid)


class MeanOverMembers:
    """The mean of a loss of each member by itself.

    Args:
        loss: of one member.

    Raises:
        ValueError: in use, if the network has no members.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def score(self, forecast: Distribution, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean over members."""
        if not isinstance(forecast, Members):
            raise _unfit("members", "DiverseHeads", forecast)
        losses = [self.loss.distance(member, target, context, grid) for member in forecast.values]
        return torch.stack(losses).mean()


class HeadDiversity:
    """``-weight * mean over pairs of |w_i - w_j|^2`` of the heads' weights, after some epochs without.

    It drives the heads of a `DiverseHeads` apart, so that they agree where there were data and differ elsewhere (Mouli
    et al. 2024, arXiv:2403.10642). It has no lower bound: along weights that the data do not determine heads part as
    long as training goes on, and the loss of a head is what holds them along the others. With a ``reach`` it ends
    there, which is ours.

    Args:
        weight: of the distance beside the loss.
        warmup_epochs: that begin without it.
        reach: root mean square distance of two heads beyond which nothing is gained; without bound if not given.

    Raises:
        ValueError: for a weight or reach that is not positive, or a negative number of epochs; in use, for another
            network.
    """

    def __init__(self, weight: float = 1.0, warmup_epochs: int = 10, reach: float | None = None) -> None:
        if not 0 < weight < math.inf or warmup_epochs < 0 or (reach is not None and not reach > 0):
            raise ValueError(
                "Expected weight > 0, warmup_epochs >= 0 and a reach > 0 or none but got "
                f"{weight}, {warmup_epochs} and {reach}."
            )
        self.weight = weight
        self.warmup_epochs = warmup_epochs
        self.reach = reach

    def penalty(self, network: nn.Module, epoch: int) -> Tensor:
        """The distance, weighted and negative; zero at first."""
        if not isinstance(network, DiverseHeads):
            raise ValueError(
                f"Expected a DiverseHeads network for HeadDiversity but got a {type(network).__name__}; leave it out, "
                "or put pdesurrogate.models.heads.DiverseHeads around the network."
            )
        weights = network.weights
        if epoch < self.warmup_epochs:
            return weights.new_zeros(())
        distance = head_distance(weights)
        return -self.weight * (distance if self.reach is None else distance.clamp(max=self.reach**2))


def head_distance(weights: Tensor) -> Tensor:
    """Mean over pairs of ``|w_i - w_j|^2`` of ``weights (head, weights)``.

    It is ``2 / (K - 1)`` times the sum of squared distances from the mean head.

    Example:
        >>> head_distance(torch.tensor([[0.0], [1.0], [2.0]])).item()  # (1 + 4 + 1) / 3
        2.0
    """
    return 2 / (len(weights) - 1) * (weights - weights.mean(0)).square().sum()


def _mean(values: Tensor, context: Context, grid: Grid) -> Tensor:
    """Over samples, frames, channels and space, by its weights."""
    return weighted_mean(values, grid.quadrature_weights(context.coordinates), context.mask).mean()


def _unfit(wanted: str, head: str, forecast: Distribution) -> ValueError:
    return ValueError(
        f"Expected a network that predicts {wanted} but it predicts a {type(forecast).__name__}; put "
        f"pdesurrogate.models.heads.{head} around it, or use the loss of its own head."
    )

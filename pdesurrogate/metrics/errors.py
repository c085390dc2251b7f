"""Pointwise errors and correlation of each channel, and how long the correlation lasts.

Fields are ``(batch, time, channel, *space)``, weights are quadrature weights that broadcast to them (of any scale;
``None`` where all points count alike), results are ``(batch, time, channel)`` in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import (
    RolloutMetric,
    Variable,
    at_least_float32,
    box_mean,
    shared_units,
    space_weights,
)


def relative_l2(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """``||prediction - target|| / ||target||`` in the L2 norm over space.

    Where the target is zero throughout, it is zero for an exact prediction and infinite for any other.

    Example:
        >>> target = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2)
        >>> relative_l2(target + torch.tensor([0.0, 1.0]), target).item()
        0.2
    """
    error = box_mean(_difference(prediction, target).square(), weights)
    scale = box_mean(at_least_float32(target).square(), weights)
    return torch.where(error == 0, 0.0, error / scale).sqrt()


def rmse(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Root of the mean squared difference over space, in the units of the fields."""
    return box_mean(_difference(prediction, target).square(), weights).sqrt()


def correlation(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Pearson correlation over space, between -1 and 1; zero where either field is constant.

    Example:
        >>> target = torch.randn(1, 1, 1, 64)
        >>> round(correlation(5 - 2 * target, target).item(), 6)
        -1.0
    """
    one = _fluctuation(prediction, weights)
    other = _fluctuation(target, weights)
    covariance = box_mean(one * other, weights)
    scale = (box_mean(one.square(), weights) * box_mean(other.square(), weights)).sqrt()
    return torch.where(scale == 0, 0.0, covariance / scale).clamp(-1, 1)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    return at_least_float32(prediction) - at_least_float32(target)


def _fluctuation(values: Tensor, weights: Tensor | None) -> Tensor:
    values = at_least_float32(values)
    mean = box_mean(values, weights).to(values.dtype)
    return values - mean.reshape(*mean.shape, *(1,) * (values.ndim - mean.ndim))


class CorrelationTime(NamedTuple):
    """How long a correlation stayed above a threshold.

    Attributes:
        time: ``(...)``, units of the given times.
        censored: ``(...)``, true where it never fell below: the true time is longer than ``time``.
    """

    time: Tensor
    censored: Tensor


def correlation_time(correlation: Tensor, times: Tensor, threshold: float = 0.8) -> CorrelationTime:
    """First time at which ``correlation (..., time)`` falls below a threshold, by linear interpolation.

    The correlation is taken as one at time zero. Where it never falls below the threshold the answer is the last of
    ``times (time,)``, right-censored. A value that is NaN (the trajectory was stopped) counts as a fall just after the
    time before it.

    Raises:
        ValueError: if the threshold is not below one or the numbers of times differ.

    Example:
        >>> correlation_time(torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([1.0, 2.0, 3.0]), 0.75).time.tolist()
        [1.5]
    """
    if not -1 < threshold < 1:
        raise ValueError(f"Expected a threshold between -1 and 1 but got {threshold}.")
    if times.shape != correlation.shape[-1:]:
        raise ValueError(f"Expected {correlation.shape[-1]} times, one a frame, but got {tuple(times.shape)}.")
    values = correlation.to(torch.float64)
    moments = times.to(torch.float64).expand_as(values)
    below = ~(values >= threshold)
    first = below.to(torch.uint8).argmax(-1, keepdim=True)
    values_before = torch.cat([torch.ones_like(values[..., :1]), values[..., :-1]], -1).gather(-1, first)
    moments_before = torch.cat([torch.zeros_like(moments[..., :1]), moments[..., :-1]], -1).gather(-1, first)
    share = (values_before - threshold) / (values_before - values.gather(-1, first))
    crossing = moments_before + share.nan_to_num(nan=0.0) * (moments.gather(-1, first) - moments_before)
    censored = ~below.any(-1)
    return CorrelationTime(torch.where(censored, moments[..., -1], crossing[..., 0]), censored)


class ErrorMetric(RolloutMetric):
    """`relative_l2`, `rmse`, `correlation` and `correlation_time` of every trajectory and channel.

    Args:
        metadata: of the data set.
        trajectories: number of trajectories in all.
        frames: number of predicted frames.
        threshold: of the correlation time.
    """

    def __init__(self, metadata: Metadata, trajectories: int, frames: int, threshold: float = 0.8) -> None:
        super().__init__(metadata, trajectories, frames)
        self.threshold = threshold
        for name in ("relative_l2", "rmse", "correlation"):
            self.add_curve(name, len(metadata.channels))

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        curve, single = ("trajectory", "lead_time", "channel"), ("trajectory", "channel")
        units = shared_units([channel.units for channel in self.metadata.channels])
        threshold = f"correlation with the truth falls below {self.threshold:g}"
        return {
            "relative_l2": Variable(curve, "1", "L2 norm of the error relative to the truth's"),
            "rmse": Variable(curve, units, "root mean squared error"),
            "correlation": Variable(curve, "1", "correlation with the truth over space"),
            "correlation_time": Variable(single, self.metadata.time_units, f"time at which the {threshold}"),
            "correlation_time_censored": Variable(single, "1", f"1 where it never happens that the {threshold}"),
        }

    def update(
        self, prediction: Tensor, target: Tensor, first_frame: int, trajectories: Tensor, context: Context
    ) -> None:
        """Measure one block; see `RolloutMetric`."""
        weights = space_weights(self.metadata.grid, context)
        self.write("relative_l2", relative_l2(prediction, target, weights), first_frame, trajectories)
        self.write("rmse", rmse(prediction, target, weights), first_frame, trajectories)
        self.write("correlation", correlation(prediction, target, weights), first_frame, trajectories)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        curves = {name: self.curve(name) for name in ("relative_l2", "rmse", "correlation")}
        values = curves["correlation"].transpose(1, 2)
        times = torch.arange(1, self.frames + 1, dtype=values.dtype, device=values.device)
        lasting = correlation_time(values, times * self.metadata.frame_interval, self.threshold)
        return curves | {
            "correlation_time": lasting.time,
            "correlation_time_censored": lasting.censored.to(torch.int8),
        }

"""Errors over space of each channel by lead time, and how long a rollout stays correlated with the truth.

Fields are ``(batch, time, channel, *space)``, weights are quadrature weights that broadcast to them (of any scale;
``None`` where all points count alike), results are ``(batch, time, channel)`` in float64 unless said.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable, scores_by_channel, shared_units
from pdesurrogate.metrics.block import Block, at_least_float32, box_mean
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.norms import sobolev_symbol
from pdesurrogate.physics.spectral import Shells, WaveSums


def relative_l2(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """``||prediction - target|| / ||target||`` in the L2 norm over space.

    Where the target is zero throughout, it is zero for an exact prediction and infinite for any other.

    Example:
        >>> target = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2)
        >>> relative_l2(target + torch.tensor([0.0, 1.0]), target).item()
        0.2
    """
    error = box_mean(_difference(prediction, target).square(), weights)
    return _ratio(error, box_mean(at_least_float32(target).square(), weights)).sqrt()


def rmse(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Root of the mean squared difference over space, in the units of the fields."""
    return box_mean(_difference(prediction, target).square(), weights).sqrt()


def relative_l2_joint(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """`relative_l2` of all channels as one vector; ``(batch, time)``. Only for channels of the same units.

    Large channels drown small ones here; the mean of `relative_l2` over channels treats them alike. The two can differ
    by an order of magnitude on the same fields.

    Example:
        >>> target = torch.tensor([10.0, 1.0]).reshape(1, 1, 2, 1)
        >>> prediction = torch.tensor([10.0, 2.0]).reshape(1, 1, 2, 1)
        >>> round(relative_l2_joint(prediction, target).item(), 4), relative_l2(prediction, target).mean().item()
        (0.0995, 0.5)
    """
    error = box_mean(_difference(prediction, target).square(), weights).sum(-1)
    return _ratio(error, box_mean(at_least_float32(target).square(), weights).sum(-1)).sqrt()


def vrmse(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Root of the mean squared difference over the target's variance over space (Ohana et al., The Well, 2024, App. E).

    One means no better than the target's own mean. Without the small constant that The Well adds to the variance: where
    the target is constant, it is zero for an exact prediction and infinite for any other.
    """
    error = box_mean(_difference(prediction, target).square(), weights)
    return _ratio(error, box_mean(_fluctuation(target, weights).square(), weights)).sqrt()


def maximum_error(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Largest magnitude of the difference, in the units of the fields; points of weight zero do not count."""
    difference = _difference(prediction, target).abs()
    if weights is not None:
        difference = torch.where(weights > 0, difference, 0.0)
    return difference.amax(tuple(range(3, difference.ndim))).to(torch.float64)


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


def _ratio(error: Tensor, scale: Tensor) -> Tensor:
    return torch.where(error == 0, 0.0, error / scale)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    return at_least_float32(prediction) - at_least_float32(target)


def _fluctuation(values: Tensor, weights: Tensor | None) -> Tensor:
    values = at_least_float32(values)
    mean = box_mean(values, weights).to(values.dtype)
    mean = mean.reshape(*mean.shape, *(1,) * (values.ndim - mean.ndim))
    difference = values - mean
    # A constant field differs from its mean by the round-off of the mean, which must not pass for a fluctuation.
    return torch.where(difference.abs() <= 8 * torch.finfo(values.dtype).eps * mean.abs(), 0.0, difference)


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
    """`relative_l2`, `relative_l2_joint`, `rmse`, `vrmse`, `maximum_error`, `correlation` and `correlation_time`.

    The joint error is left out where channels differ in units. Relative errors of a channel whose truth is zero
    throughout are infinite, and scores that average them have no value; a warning names the channel.

    Args:
        plan: what is going to be measured.
        thresholds: of the correlation times.
    """

    def __init__(self, plan: RolloutPlan, thresholds: Sequence[float] = (0.8, 0.5)) -> None:
        super().__init__(plan)
        self.thresholds = tuple(thresholds)
        channels = len(plan.metadata.channels)
        self._units = shared_units([channel.units for channel in plan.metadata.channels])
        self._has_joint = "," not in self._units
        for name in ("error_square", "target_square", "target_variance", "covariance", "variance", "maximum"):
            self.add_curve(name, channels)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        curve = ("trajectory", "lead_time", "channel")
        single = ("trajectory", "channel", "threshold")
        falls = "the correlation with the truth falls below the threshold"
        variables = {
            "relative_l2": Variable(curve, "1", "L2 norm of the error relative to the truth's"),
            "rmse": Variable(curve, self._units, "root mean squared error"),
            "vrmse": Variable(curve, "1", "root mean squared error relative to the truth's deviation over space"),
            "maximum_error": Variable(curve, self._units, "largest error"),
            "correlation": Variable(curve, "1", "correlation with the truth over space"),
            "correlation_time": Variable(single, self.plan.metadata.time_units, f"time at which {falls}"),
            "correlation_time_censored": Variable(single, "1", f"1 where it never happens that {falls}"),
        }
        if self._has_joint:
            name = "L2 norm of the error of all channels as one vector, relative to the truth's"
            variables["relative_l2_joint"] = Variable(("trajectory", "lead_time"), "1", name)
        return variables

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Thresholds of the correlation times."""
        values = torch.tensor(self.thresholds, dtype=torch.float64)
        return {"threshold": Coordinate(values, "1", "threshold of the correlation")}

    @property
    def scores(self) -> dict[str, Score]:
        """Means over lead times and channels, ends of the error curve, correlation times."""
        relative = "relative L2 error"
        scores = {
            "relative_l2": Score("relative_l2", f"{relative}, mean over lead times and channels"),
            "relative_l2_first": Score("relative_l2", f"{relative} of the first frame", "first"),
            "relative_l2_last": Score("relative_l2", f"{relative} of the last frame", "last"),
            "vrmse": Score("vrmse", "error relative to the truth's deviation, mean over lead times and channels"),
        }
        if self._has_joint:
            scores["relative_l2_joint"] = Score(
                "relative_l2_joint", f"{relative} of all channels as one vector, mean over lead times"
            )
        scores |= scores_by_channel(self.plan, "rmse", "root mean squared error, mean over lead times")
        scores |= scores_by_channel(self.plan, "maximum_error", "largest error over space, mean over lead times")
        for place, threshold in enumerate(self.thresholds):
            suffix = "" if place == 0 else f"_{threshold:g}"
            select = {"threshold": threshold}
            scores[f"correlation_time{suffix}"] = Score(
                "correlation_time",
                f"time at which the correlation with the truth falls below {threshold:g}, mean over channels; "
                "the horizon where it never does",
                select=select,
                higher_is_better=True,
            )
            scores[f"correlation_time{suffix}_censored"] = Score(
                "correlation_time_censored",
                f"share of correlation times (threshold {threshold:g}) that reach the horizon",
                select=select,
                higher_is_better=True,
            )
        return scores

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        weights = block.weights
        error, target, prediction = block.error.values, block.target.values, block.prediction.values
        own, other = _fluctuation(prediction, weights), _fluctuation(target, weights)
        self.write("error_square", box_mean(error.square(), weights), block)
        self.write("target_square", box_mean(target.square(), weights), block)
        self.write("target_variance", box_mean(other.square(), weights), block)
        self.write("variance", box_mean(own.square(), weights), block)
        self.write("covariance", box_mean(own * other, weights), block)
        self.write("maximum", maximum_error(prediction, target, weights), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        error, target = self.curve("error_square"), self.curve("target_square")
        self._warn_of_zero_truth(error, target)
        variance = self.curve("target_variance")
        scale = (variance * self.curve("variance")).sqrt()
        values = torch.where(scale == 0, 0.0, self.curve("covariance") / scale).clamp(-1, 1)
        times = torch.arange(1, self.plan.frames + 1, dtype=values.dtype, device=values.device)
        times = times * self.plan.metadata.frame_interval
        lasting = [correlation_time(values.transpose(1, 2), times, threshold) for threshold in self.thresholds]
        outputs = {
            "relative_l2": _ratio(error, target).sqrt(),
            "rmse": error.sqrt(),
            "vrmse": _ratio(error, variance).sqrt(),
            "maximum_error": self.curve("maximum"),
            "correlation": values,
            "correlation_time": torch.stack([each.time for each in lasting], -1),
            "correlation_time_censored": torch.stack([each.censored for each in lasting], -1).to(torch.int8),
        }
        if self._has_joint:
            outputs["relative_l2_joint"] = _ratio(error.sum(-1), target.sum(-1)).sqrt()
        return outputs

    def _warn_of_zero_truth(self, error: Tensor, target: Tensor) -> None:
        # What a stopped rollout did not reach is NaN and tells nothing.
        undefined = (target == 0).flatten(0, 1).any(0) & ~(target > 0).flatten(0, 1).any(0)
        undefined &= (error > 0).flatten(0, 1).any(0)
        pairs = zip(self.plan.metadata.channel_names, undefined.tolist(), strict=True)
        names = ", ".join(name for name, found in pairs if found)
        if names:
            warnings.warn(
                f"Expected truth that is not zero throughout but that of {names} is: errors relative to it are "
                "infinite, and scores that average them have no value. Judge it by rmse, or leave the channel out.",
                stacklevel=3,
            )


class SurvivalMetric(RolloutMetric):
    """Whether a rollout is still finite and within its bounds, and when it was stopped.

    Args:
        plan: what is going to be measured.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        self.add_curve("finite")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        time = self.plan.metadata.time_units
        return {
            "finite": Variable(("trajectory", "lead_time"), "1", "1 while the rollout is finite and within its bounds"),
            "blow_up_time": Variable(("trajectory",), time, "lead time at which the rollout was stopped"),
        }

    @property
    def scores(self) -> dict[str, Score]:
        """Share of survivors."""
        text = "share of trajectories still finite and within bounds at the last frame"
        return {"finite_fraction": Score("finite", text, "last", higher_is_better=True)}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        alive = torch.isfinite(block.prediction.values).flatten(2).all(-1)
        self.write("finite", alive.to(torch.float64), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        alive = self.curve("finite") > 0
        first_bad = (~alive).to(torch.uint8).argmax(1)
        lead_time = (first_bad + 1).to(torch.float64) * self.plan.metadata.frame_interval
        return {
            "finite": alive.to(torch.int8),
            "blow_up_time": torch.where(alive.all(1), torch.nan, lead_time),
        }


class SobolevErrorMetric(RolloutMetric):
    """Errors relative to the truth in the norms of H^s: positive orders weigh small scales most, negative ones large.

    Both norms are those of `physics.norms.sobolev_norm` with ``alpha`` the square of the smallest wavenumber (``2 pi``
    over the longest period), so that the mean counts as the longest wave does. Order 0 would be `relative_l2`. On axes
    that are not periodic the waves are those of the cosine transform (`Fields.spectrum`).

    Args:
        plan: what is going to be measured; evenly spaced, without a mask.
        orders: real numbers other than zero.

    Raises:
        ValueError: if the points are not evenly spaced or there is a mask.
    """

    def __init__(self, plan: RolloutPlan, orders: Sequence[float] = (1.0, -1.0)) -> None:
        super().__init__(plan)
        require_spectra(plan, "Sobolev errors")
        self.orders = tuple(orders)
        self._names = [sobolev_name(order) for order in self.orders]
        alpha = (2 * torch.pi / max(plan.wave_periods)) ** 2
        symbols = [sobolev_symbol(plan.wave_shape, plan.wave_periods, order, alpha) for order in self.orders]
        self.sums = WaveSums(torch.stack(symbols), plan.wave_shape)
        for name in ("error", "target"):
            self.add_curve(name, len(plan.metadata.channels), len(self.orders))

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        curve = ("trajectory", "lead_time", "channel")
        return {
            name: Variable(curve, "1", f"error in the norm of H^{order:g} relative to the truth's")
            for name, order in zip(self._names, self.orders, strict=True)
        }

    @property
    def scores(self) -> dict[str, Score]:
        """Means over lead times and channels."""
        return {
            name: Score(name, f"{variable.long_name}, mean over lead times and channels")
            for name, variable in self.variables.items()
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        self.write("error", self.sums(block.error.density), block)
        self.write("target", self.sums(block.target.density), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        ratio = _ratio(self.curve("error"), self.curve("target")).sqrt()
        return dict(zip(self._names, ratio.unbind(-1), strict=True))


class BandErrorMetric(RolloutMetric):
    """Root mean squared error in bands of wavenumbers, absolute and relative to the truth in the same band.

    The squares of the bands add up to the squared `rmse` (Parseval). Bands are counted in shells, as PDEBench's fRMSE
    counts them (Takamoto et al., 2022: low below 5, middle up to 12, high above).

    Args:
        plan: what is going to be measured; evenly spaced, without a mask.
        edges: first shell of every band but the lowest; the lowest starts with the mean.

    Raises:
        ValueError: if the points are not evenly spaced, there is a mask, or the edges do not increase.
    """

    def __init__(self, plan: RolloutPlan, edges: Sequence[int] = (5, 13)) -> None:
        super().__init__(plan)
        require_spectra(plan, "band errors")
        if not edges or sorted({0, *edges}) != [0, *edges]:
            raise ValueError(f"Expected edges that increase, all positive, but got {tuple(edges)}.")
        shells = Shells(plan.wave_shape, plan.wave_periods)
        # Bands beyond the grid's last shell hold no waves.
        edges = [edge for edge in edges if edge < shells.wavenumbers.numel()]
        bounds = [0, *edges, shells.wavenumbers.numel()]
        inside = [(low <= shells.members) & (shells.members < high) for low, high in pairwise(bounds)]
        half = (*plan.wave_shape[:-1], plan.wave_shape[-1] // 2 + 1)
        self.sums = WaveSums(torch.stack(inside).reshape(len(inside), *half), plan.wave_shape)
        self.bands = _band_names(edges)
        self._units = shared_units([channel.units for channel in plan.metadata.channels])
        for name in ("error", "target"):
            self.add_curve(name, len(plan.metadata.channels), len(self.bands))

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        curve = ("trajectory", "lead_time", "channel", "band")
        return {
            "band_rmse": Variable(curve, self._units, "root mean squared error in a band of wavenumbers"),
            "band_relative_l2": Variable(curve, "1", "L2 norm of the error in a band relative to the truth's in it"),
        }

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Names of the bands."""
        return {"band": Coordinate(self.bands, "1", "band of shells of wavenumbers")}

    @property
    def scores(self) -> dict[str, Score]:
        """Relative error of each band."""
        return {
            f"band_relative_l2_{band.split()[0]}": Score(
                "band_relative_l2",
                f"relative L2 error of wavenumbers in the band {band}, mean over lead times and channels",
                select={"band": band},
            )
            for band in self.bands
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        self.write("error", self.sums(block.error.density), block)
        self.write("target", self.sums(block.target.density), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        error = self.curve("error")
        return {"band_rmse": error.sqrt(), "band_relative_l2": _ratio(error, self.curve("target")).sqrt()}


class BoundaryErrorMetric(RolloutMetric):
    """Root mean squared error on the first and last planes of every axis that is not periodic.

    Args:
        plan: what is going to be measured.

    Raises:
        ValueError: if all axes are periodic: such a box has no boundary.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        if all(plan.periodic):
            raise ValueError("Expected an axis that is not periodic for boundary errors; leave this metric out.")
        on_boundary = torch.zeros(plan.shape)
        for axis, periodic in enumerate(plan.periodic):
            if not periodic:
                for end in (0, -1):
                    on_boundary.select(axis, end).fill_(1.0)
        self.register_buffer("on_boundary", on_boundary[None, None, None], persistent=False)
        self._units = shared_units([channel.units for channel in plan.metadata.channels])
        self.add_curve("error", len(plan.metadata.channels))

    on_boundary: Tensor

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        curve = ("trajectory", "lead_time", "channel")
        return {"boundary_rmse": Variable(curve, self._units, "root mean squared error on the boundary of the box")}

    @property
    def scores(self) -> dict[str, Score]:
        """Means over lead times."""
        return scores_by_channel(
            self.plan, "boundary_rmse", "root mean squared error on the boundary, mean over lead times"
        )

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        weights = self.on_boundary
        if block.context.mask is not None:
            weights = weights * block.context.mask[:, None, None]
        self.write("error", box_mean(block.error.values.square(), weights), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        return {"boundary_rmse": self.curve("error").sqrt()}


def sobolev_name(order: float) -> str:
    """Name of the relative error in H^order: letters and digits alone.

    Example:
        >>> sobolev_name(1.0), sobolev_name(-1.0), sobolev_name(-0.5)
        ('relative_h1', 'relative_h_minus_1', 'relative_h_minus_0_5')
    """
    digits = f"{abs(order):g}".replace(".", "_")
    return f"relative_h_minus_{digits}" if order < 0 else f"relative_h{digits}"


def require_spectra(plan: RolloutPlan, what: str) -> None:
    """Refuse fields that have no transform over all axes.

    Raises:
        ValueError: naming ``what`` needs it.
    """
    if not plan.has_spectra:
        raise ValueError(
            f"Expected one grid of evenly spaced points, at least four along each axis, and no mask for {what} but got "
            f"{plan.shape} points, even: {plan.even}, one grid: {plan.shared_grid}, mask: {plan.masked}; "
            "leave this metric out of the suite."
        )


def _band_names(edges: Sequence[int]) -> list[str]:
    if not edges:
        return ["low (from 0)"]
    names = ["low", *(["middle"] if len(edges) == 2 else [f"middle{n}" for n in range(1, len(edges))]), "high"]
    bounds = [0, *edges]
    texts = [f"({low} to {high - 1})" for low, high in pairwise(bounds)] + [f"(from {edges[-1]})"]
    return [f"{name} {text}" for name, text in zip(names, texts, strict=True)]

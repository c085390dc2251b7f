"""One-point statistics of prediction and truth: moments, probability densities and the distance between two of them.

Statistics are over all of space (quadrature weights count, bodies do not), all predicted frames and all trajectories;
every frame counts alike. Frames after a trajectory was stopped are missing in the prediction's statistics and present
in the truth's; distances between the two are NaN then. Error bars, named ``*_standard_error``, are standard errors over
blocks of samples (`RolloutMetric.sample_blocks`), by the jackknife where the quantity is no mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable, block_error, shared_units
from pdesurrogate.metrics.block import Block, at_least_float32, box_mean
from pdesurrogate.metrics.flow import joint_units
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.pooling import Statistics, compared, distances_with_errors, leave_one_out, with_errors

# Fewer points of a frame than this would miss parts of the box.
_FEWEST_POINTS = 256


class MomentStatistics(NamedTuple):
    """What the first four moments say of a quantity; all of one shape.

    Attributes:
        mean: in the units of the quantity.
        rms: root mean square of the fluctuation about the mean, same units.
        skewness: third central moment over ``rms^3``; zero for a symmetric density.
        flatness: fourth central moment over ``rms^4``; three for a Gaussian density.
    """

    mean: Tensor
    rms: Tensor
    skewness: Tensor
    flatness: Tensor


def central_moments(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean and second to fourth central moment over space, frame by frame.

    The mean is taken off before powers are formed: raw moments of a field far from zero are lost in round-off. A
    fluctuation within the round-off of the mean counts as none.

    Args:
        values: ``(batch, time, channel, *space)``.
        weights: quadrature weights that broadcast to them, of any scale; ``None`` where all points count alike.

    Returns:
        ``(batch, time, channel, 4)`` in float64.

    Example:
        >>> values = 1e6 + torch.tensor([-1.0, 1.0, -1.0, 1.0]).reshape(1, 1, 1, 4)
        >>> central_moments(values).flatten().tolist()
        [1000000.0, 1.0, 0.0, 1.0]
    """
    values = at_least_float32(values)
    origin = box_mean(values, weights).to(values.dtype)
    fluctuation = values - origin.reshape(*origin.shape, *(1,) * (values.ndim - 3))
    square = fluctuation.square()
    powers = (fluctuation, square, fluctuation * square, square.square())
    # The origin is the mean but for its round-off, which the first power finds.
    moments = _central(torch.stack([box_mean(power, weights) for power in powers], -1), origin.to(torch.float64))
    return _without_noise(moments, torch.finfo(values.dtype).eps)


def moment_statistics(moments: Tensor) -> MomentStatistics:
    """Mean, rms, skewness and flatness from ``moments (..., 4)`` as `central_moments` gives them; each ``(...)``.

    Skewness and flatness of what never varies are NaN.

    Example:
        >>> moment_statistics(torch.tensor([5.0, 4.0, 8.0, 48.0])).flatness.item()
        3.0
    """
    mean, second, third, fourth = _without_noise(moments, torch.finfo(torch.float64).eps).unbind(-1)
    rms = second.sqrt()
    return MomentStatistics(mean, rms, third / rms**3, fourth / second.square())


def merge_moments(moments: Tensor) -> Tensor:
    """Moments of several samples as one (Pébay, 2008, Sandia report SAND2008-6212), without loss of digits.

    Args:
        moments: ``(samples, ..., 4)`` as `central_moments` gives them; samples count alike, NaN is left out.

    Returns:
        ``(..., 4)``.

    Example:
        >>> two_constants = torch.tensor([[1.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]])
        >>> merge_moments(two_constants).tolist()
        [2.0, 1.0, 0.0, 1.0]
    """
    origin = moments[..., 0].nanmean(0)
    return _central(_about(moments, origin).nanmean(0), origin)


def relative_difference(prediction: Tensor, truth: Tensor, scale: Tensor | None = None) -> Tensor:
    """``|prediction - truth| / |scale|``, by default relative to the truth; zero where both are equal.

    Example:
        >>> relative_difference(torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0])).tolist()
        [0.5, 0.0]
    """
    difference = (prediction - truth).abs()
    return torch.where(difference == 0, 0.0, difference / (truth if scale is None else scale).abs())


class Transport(NamedTuple):
    """The cheapest way to move one distribution onto another along a line.

    Attributes:
        distance: ``(...)``, mean distance moved.
        first_potential: ``(..., n)``, Kantorovich's potential at the first samples.
        second_potential: ``(..., m)``, the same function at the second samples. The difference of its means over the
            two distributions is the distance.
    """

    distance: Tensor
    first_potential: Tensor
    second_potential: Tensor


def optimal_transport(
    first: Tensor, second: Tensor, first_weights: Tensor | None = None, second_weights: Tensor | None = None
) -> Transport:
    """Wasserstein-1 transport between two sets of samples, exact: the area between their cumulative distributions.

    Args:
        first: ``(..., n)`` samples.
        second: ``(..., m)`` samples.
        first_weights: of any scale, shaped as the samples; a sample of weight zero may be anything, NaN included.
        second_weights: likewise.

    Raises:
        ValueError: if weights do not have the shape of their samples.

    Example:
        >>> moved = optimal_transport(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.5]))
        >>> moved.distance.item(), (moved.first_potential.mean() - moved.second_potential.mean()).item()
        (0.5, 0.5)
    """
    (first, shares), (second, other_shares) = _shares(first, first_weights), _shares(second, second_weights)
    values, order = torch.cat([first, second], -1).sort(-1)
    excess = torch.cat([shares, -other_shares], -1).gather(-1, order).cumsum(-1)[..., :-1]
    gaps = values.diff(dim=-1)
    distance = (excess.abs() * gaps).sum(-1)
    # Slope -sign(F - G): mass moves down the potential.
    slope = torch.nn.functional.pad(excess.sign() * gaps, (0, 1))
    sorted_potential = slope.sum(-1, keepdim=True) - slope.cumsum(-1) + slope
    potential = torch.empty_like(values).scatter_(-1, order, sorted_potential)
    return Transport(distance, *potential.split([first.shape[-1], second.shape[-1]], -1))


def wasserstein_distance(
    first: Tensor, second: Tensor, first_weights: Tensor | None = None, second_weights: Tensor | None = None
) -> Tensor:
    """Wasserstein-1 distance ``(...)`` between samples ``(..., n)`` and ``(..., m)``, in their units.

    Arguments are those of `optimal_transport`.

    Example:
        >>> samples = torch.randn(1000)
        >>> round(wasserstein_distance(samples, samples + 2).item(), 6)
        2.0
    """
    return optimal_transport(first, second, first_weights, second_weights).distance


def probability_density(values: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
    """Share of the samples in each bin over the bin's width; bins hold their lower edge, the last one both.

    Shares are of all samples: what lies outside is missing from the integral, which falls short of one by its share.

    Args:
        values: ``(..., n)`` samples.
        edges: ``(bins + 1,)``, increasing.
        weights: of any scale, shaped as the samples; a sample of weight zero may be anything, NaN included.

    Returns:
        ``(..., bins)`` in one over the units of the samples; NaN where a sample that counts is not finite.

    Raises:
        ValueError: if the edges do not increase or the weights do not have the shape of the samples.

    Example:
        >>> probability_density(torch.tensor([0.1, 0.2, 0.6, 7.0]), torch.tensor([0.0, 0.5, 1.0])).tolist()
        [1.0, 0.5]
    """
    widths = edges.to(torch.float64).diff()
    if edges.ndim != 1 or edges.numel() < 2 or not bool((widths > 0).all()):
        raise ValueError(f"Expected at least two edges that increase but got {edges.tolist()}.")
    values, shares = _shares(values, weights)
    edges = edges.to(values)
    places = torch.searchsorted(edges, values.contiguous(), right=True)
    places = torch.where(values == edges[-1], edges.numel() - 1, places)
    mass = shares.new_zeros(*values.shape[:-1], edges.numel() + 1).scatter_add_(-1, places, shares)
    whole = torch.isfinite(values).all(-1, keepdim=True)
    return torch.where(whole, mass[..., 1:-1] / widths.to(mass), torch.nan)


def spread_points(shape: Sequence[int], count: int) -> Tensor:
    """At most ``count`` points of a grid, evenly spread: numbers ``(points,)`` in the order of the flattened grid.

    The additive sequence of the generalized golden ratio (Roberts, 2018), rounded to the grid: unlike a lattice it does
    not fall in step with a periodic pattern. All points where ``count`` is no smaller than their number; fewer than
    ``count`` where it comes close to that and some fall on one.

    Raises:
        ValueError: if ``count`` is not positive.

    Example:
        >>> spread_points((4, 4), 16).numel(), spread_points((64, 64), 5).tolist()
        (16, [40, 1028, 2080, 2161, 3085])
    """
    if count < 1:
        raise ValueError(f"Expected at least one point but got {count}.")
    total = torch.Size(shape).numel()
    if count >= total:
        return torch.arange(total)
    ratio = 1.5
    for _ in range(64):  # The root of x^(d + 1) = x + 1, a fixed point that attracts.
        ratio = (1 + ratio) ** (1 / (len(shape) + 1))
    steps = torch.arange(count, dtype=torch.float64)
    flat = torch.zeros(count, dtype=torch.long)
    for axis, size in enumerate(shape):
        flat = flat * size + ((0.5 + steps / ratio ** (axis + 1)) % 1 * size).long()
    return flat.unique()


def block_numbers(metric: RolloutMetric, every: int = 1) -> Tensor:
    """Number of the block of samples that each ``every``-th frame belongs to; ``(trajectories, frames)``."""
    plan, (groups, stretches) = metric.plan, metric.sample_blocks
    stretch = torch.arange(0, plan.frames, every) * stretches // plan.frames
    return torch.arange(plan.trajectories)[:, None] % groups * stretches + stretch


def pool_frames(values: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over all finite frames, and over those of each block that has any, as `RolloutMetric.pooled` gives them.

    Args:
        values: ``(trajectories, frames, ...)``.
        numbers: ``(trajectories, frames)``, of blocks, as `block_numbers` gives them.

    Returns:
        ``(...)`` and ``(blocks, ...)`` in float64.

    Example:
        >>> values = torch.tensor([[1.0, 3.0], [5.0, torch.nan]])
        >>> mean, blocks = pool_frames(values, torch.tensor([[0, 0], [1, 1]]))
        >>> mean.item(), blocks.tolist()
        (3.0, [2.0, 5.0])
    """
    values, numbers = values.to(torch.float64).flatten(0, 1), numbers.flatten().to(values.device)
    kept = torch.isfinite(values).reshape(len(values), -1).all(-1)
    values, numbers = values[kept], numbers[kept]
    counts = torch.bincount(numbers)
    sums = values.new_zeros(len(counts), *values.shape[1:]).index_add_(0, numbers, values)
    column = counts[counts > 0].reshape(-1, *(1,) * (sums.ndim - 1))
    return sums.sum(0) / counts.sum(), sums[counts > 0] / column


class MomentsMetric(RolloutMetric):
    """Mean, rms, skewness and flatness of each channel, of prediction and truth; see `MomentStatistics`.

    Fluctuations are about the mean over space, frames and trajectories. Moments of every frame are kept (curves) and
    merged in the end, so that a mean that is far from zero costs no digits and the order of blocks does not matter.

    Args:
        plan: what is going to be measured.
    """

    moments_prediction: Tensor

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        self._units = shared_units([channel.units for channel in plan.metadata.channels])
        for side in ("prediction", "truth"):
            self.add_curve(f"moments_{side}", len(plan.metadata.channels), 4)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims = ("channel",)
        quantities = {
            "mean": Variable(dims, self._units, "mean over space, lead times and trajectories"),
            "rms": Variable(dims, self._units, "root mean square of the fluctuation about the mean"),
            "skewness": Variable(dims, "1", "skewness of the fluctuation, zero if symmetric"),
            "flatness": Variable(dims, "1", "flatness of the fluctuation, three if Gaussian"),
        }
        differences = {
            "mean_relative_difference": Variable(dims, "1", "difference of the means relative to the truth's rms"),
            "rms_relative_difference": Variable(dims, "1", "difference of the rms relative to the truth's"),
            "skewness_difference": Variable(dims, "1", "absolute difference of the skewness"),
            "flatness_difference": Variable(dims, "1", "absolute difference of the flatness"),
        }
        return with_errors(quantities) | distances_with_errors(differences)

    @property
    def scores(self) -> dict[str, Score]:
        """Differences from the truth, means over channels."""
        return {
            name: Score(name, f"mean over channels of the {self.variables[name].long_name}")
            for name in ("rms_relative_difference", "skewness_difference", "flatness_difference")
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        for side, fields in block.sides:
            self.write(f"moments_{side}", central_moments(fields.values, block.weights), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        found, left_out = {}, {}
        for side in ("prediction", "truth"):
            moments = self.curve(f"moments_{side}")
            merged = merge_moments(moments.flatten(0, 1))
            origin = merged[..., 0]
            _, blocks = pool_frames(_about(moments, origin), block_numbers(self))
            found[side] = moment_statistics(merged)._asdict()
            left_out[side] = moment_statistics(_central(leave_one_out(blocks), origin))._asdict()
        complete = bool(torch.isfinite(self.moments_prediction).all())
        return compared(found, left_out, _differences, complete)


def _differences(prediction: Statistics, truth: Statistics) -> dict[str, Tensor]:
    return {
        "mean_relative_difference": relative_difference(prediction["mean"], truth["mean"], truth["rms"]),
        "rms_relative_difference": relative_difference(prediction["rms"], truth["rms"]),
        "skewness_difference": (prediction["skewness"] - truth["skewness"]).abs(),
        "flatness_difference": (prediction["flatness"] - truth["flatness"]).abs(),
    }


class PointSampleMetric(RolloutMetric):
    """Keeps prediction and truth at fixed points of some frames, for statistics that need the samples themselves.

    The states ``(trajectories, kept frames, channels, points)`` are written in place and joined by the maximum, as
    curves are.

    Args:
        plan: what is going to be measured.
        points: of each frame at most, as `spread_points` gives them.
        every: of how many frames one is kept; the first predicted frame is.

    Raises:
        ValueError: if ``points`` or ``every`` is not positive.
    """

    points: Tensor
    point_weights: Tensor

    def __init__(self, plan: RolloutPlan, points: int, every: int = 1) -> None:
        super().__init__(plan)
        if every < 1:
            raise ValueError(f"Expected one of at least one frame to be kept but got one of {every}.")
        self.every = every
        self.register_buffer("points", spread_points(plan.shape, points), persistent=False)
        trajectories, count, frames = plan.trajectories, self.points.numel(), -(-plan.frames // every)
        for side in ("prediction", "truth"):
            self._add_written(f"samples_{side}", trajectories, frames, len(plan.metadata.channels), count)
        if not plan.equal_weights:
            self._add_written("point_weights", trajectories, count)

    def _add_written(self, name: str, *shape: int) -> None:
        empty = torch.full(shape, -torch.inf, dtype=torch.float64)
        self.add_state(name, default=empty, dist_reduce_fx="max")

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        frames = self.frame_range(block)
        skipped = -block.first_frame % self.every
        if block.weights is not None:
            weights = block.weights.flatten(3)[:, 0, 0, self.points]
            self.point_weights[block.trajectories] = weights.to(torch.float64)
        if skipped >= block.frames:
            return
        kept = slice((frames.start + skipped) // self.every, -(-frames.stop // self.every))
        for side, fields in block.sides:
            values = fields.values[:, skipped :: self.every].flatten(3)[..., self.points].to(torch.float64)
            state: Tensor = getattr(self, f"samples_{side}")
            state[block.trajectories, kept] = torch.where(torch.isfinite(values), values, torch.nan)

    def samples(self, side: str) -> Tensor:
        """Values of one side ``(trajectories, kept frames, channels, points)``; NaN where a trajectory was stopped.

        Raises:
            ValueError: if a trajectory or frame was never measured.
        """
        values: Tensor = getattr(self, f"samples_{side}")
        missing = (values == -torch.inf).flatten(2).any(-1)
        if bool(missing.any()):
            raise ValueError(
                f"Expected samples of all {self.plan.trajectories} trajectories and {values.shape[1]} frames but "
                f"{int(missing.sum())} of these were never measured; update with every block of every rollout first."
            )
        # A point in a body may hold anything.
        return torch.where(self.weights[:, None, None] > 0, values, 0.0)

    @property
    def weights(self) -> Tensor:
        """Share of each point in the mean over its frame ``(trajectories, points)``; zero if all lie in a body."""
        if self.plan.equal_weights:
            share = torch.full((), 1 / self.points.numel(), dtype=torch.float64, device=self.points.device)
            return share.expand(self.plan.trajectories, self.points.numel())
        return (self.point_weights / self.point_weights.sum(-1, keepdim=True)).nan_to_num()


class DensityMetric(PointSampleMetric):
    """Probability density of each channel, of prediction and truth, and the `wasserstein_distance` between them.

    Samples are kept rather than counts in bins: bins would have to be chosen before the first value is seen, or would
    depend on which block or process comes first. So the distance is exact for the samples, whatever the mean, the
    outliers and the range of the field, and its error bar follows from Kantorovich's duality: it is the difference of
    the means of one function. Samples are at most ``samples`` for each channel and side, at the same places in
    prediction and truth: all points of all frames where these are not more, else evenly spread points of each frame, at
    least 256, and where that is still too much, of every n-th frame.

    The bins of the densities divide the truth's range, widened by a quarter of itself on both sides, evenly. The share
    of samples outside is ``density_outside_*``.

    Args:
        plan: what is going to be measured.
        bins: of the densities.
        samples: to keep, about; the memory is 16 bytes for each and each channel.
        limits: lowest and highest edge by name of a channel, in its units, in place of those from the truth.

    Raises:
        ValueError: if ``bins`` or ``samples`` is not positive, or limits do not increase or are of an unknown channel.
    """

    def __init__(
        self,
        plan: RolloutPlan,
        bins: int = 80,
        samples: int = 2**19,
        limits: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        if bins < 1 or samples < 1:
            raise ValueError(f"Expected at least one bin and sample but got {bins} and {samples}.")
        super().__init__(plan, *_sampling(plan, samples))
        self.bins = bins
        self.limits = {name: tuple(pair) for name, pair in (limits or {}).items()}
        unknown = set(self.limits) - set(plan.metadata.channel_names)
        if unknown:
            raise ValueError(f"Expected limits of channels {plan.metadata.channel_names} but got {sorted(unknown)}.")
        for name, pair in self.limits.items():
            if len(pair) != 2 or not pair[0] < pair[1]:
                raise ValueError(f"Expected a lowest and a highest edge for {name!r} but got {pair}.")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        units = [channel.units for channel in self.plan.metadata.channels]
        joint = shared_units(units)
        inverse = shared_units([joint_units("1", each, "/") for each in units])
        dims = ("channel", "density_bin")
        distance = "Wasserstein-1 distance between the distributions of prediction and truth"
        distances = {
            "wasserstein_distance": Variable(("channel",), joint, distance),
            "wasserstein_relative": Variable(("channel",), "1", f"{distance} relative to the truth's rms"),
        }
        return {
            **with_errors({"density": Variable(dims, inverse, "probability density")}),
            "density_value": Variable(dims, joint, "value at the center of the bin"),
            "density_outside_prediction": Variable(("channel",), "1", "share outside all bins, prediction"),
            "density_outside_truth": Variable(("channel",), "1", "share outside all bins, truth"),
            **distances_with_errors(distances),
        }

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Numbers of the bins; their values differ by channel."""
        numbers = torch.arange(self.bins, dtype=torch.float64)
        return {"density_bin": Coordinate(numbers, "1", "number of the bin of the probability density")}

    @property
    def scores(self) -> dict[str, Score]:
        """The relative distance."""
        name = "wasserstein_relative"
        return {name: Score(name, f"mean over channels of the {self.variables[name].long_name}")}

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        weights = self.weights[:, None]
        prediction, truth = (self.samples(side).unbind(2) for side in ("prediction", "truth"))
        outputs = [
            self._measured(name, own, other, weights.expand_as(own))
            for name, own, other in zip(self.plan.metadata.channel_names, prediction, truth, strict=True)
        ]
        return {name: torch.stack([channel[name] for channel in outputs]) for name in outputs[0]}

    def _measured(self, channel: str, prediction: Tensor, truth: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Outputs of one channel from ``(trajectories, frames, points)``."""
        numbers = block_numbers(self, self.every)
        edges = self._edges(channel, truth, weights)
        outputs = {"density_value": (edges[1:] + edges[:-1]) / 2}
        for side, values in (("prediction", prediction), ("truth", truth)):
            density, blocks = pool_frames(probability_density(values, edges, weights), numbers)
            outputs[f"density_{side}"] = density
            outputs[f"density_{side}_standard_error"] = block_error(blocks)
            outputs[f"density_outside_{side}"] = (1 - (density * edges.diff()).sum()).clamp_min(0)
        # A prediction with missing frames is not the truth's distribution moved: NaN comes through.
        moved = optimal_transport(*(each.flatten() for each in (prediction, truth, weights, weights)))
        first, second = (each.reshape(weights.shape) for each in moved[1:])
        _, blocks = pool_frames(((first - second) * weights).sum(-1), numbers)
        total = weights.sum()
        fluctuation = truth - (truth * weights).sum() / total
        rms = ((fluctuation.square() * weights).sum() / total).sqrt()
        error, nothing = block_error(blocks), torch.zeros_like(rms)
        return outputs | {
            "wasserstein_distance": moved.distance,
            "wasserstein_distance_standard_error": error,
            "wasserstein_relative": relative_difference(moved.distance, nothing, rms),
            "wasserstein_relative_standard_error": relative_difference(error, nothing, rms),
        }

    def _edges(self, channel: str, truth: Tensor, weights: Tensor) -> Tensor:
        if channel in self.limits:
            low, high = self.limits[channel]
        else:
            counted = truth[torch.isfinite(truth) & (weights > 0)]
            lowest, highest = counted.aminmax() if counted.numel() else (truth.new_zeros(()), truth.new_zeros(()))
            # A truth that never varies gets a bin range of unit width around it.
            margin = float(highest - lowest) / 4 or 0.5
            low, high = float(lowest) - margin, float(highest) + margin
        return torch.linspace(low, high, self.bins + 1, dtype=torch.float64, device=truth.device)


def _sampling(plan: RolloutPlan, samples: int) -> tuple[int, int]:
    """How many points of a frame to keep, and of how many frames one."""
    frames = plan.trajectories * plan.frames
    points = min(torch.Size(plan.shape).numel(), max(_FEWEST_POINTS, samples // frames))
    return points, min(max(-(-frames * points // samples), 1), plan.frames)


def _shares(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Samples in float64, zero where they have no weight, and weights that sum to one along the last axis."""
    values = values.to(torch.float64)
    if weights is None:
        return values, torch.full_like(values, 1 / values.shape[-1])
    if weights.shape != values.shape:
        raise ValueError(
            f"Expected one weight for each of the samples {tuple(values.shape)} but got {tuple(weights.shape)}."
        )
    weights = weights.to(torch.float64)
    return torch.where(weights > 0, values, 0.0), weights / weights.sum(-1, keepdim=True)


def _about(moments: Tensor, origin: Tensor) -> Tensor:
    """Raw moments about ``origin (...)`` from mean and central moments ``(..., 4)``."""
    mean, second, third, fourth = moments.unbind(-1)
    shift = mean - origin
    raw = (
        shift,
        second + shift**2,
        third + 3 * shift * second + shift**3,
        fourth + 4 * shift * third + 6 * shift**2 * second + shift**4,
    )
    return torch.stack(raw, -1)


def _central(raw: Tensor, origin: Tensor) -> Tensor:
    """Mean and central moments from raw moments ``(..., 4)`` about ``origin (...)``; inverse of `_about`."""
    shift, second, third, fourth = raw.unbind(-1)
    central = (
        origin + shift,
        (second - shift**2).clamp_min(0),
        third - 3 * shift * second + 2 * shift**3,
        fourth - 4 * shift * third + 6 * shift**2 * second - 3 * shift**4,
    )
    return torch.stack(central, -1)


def _without_noise(moments: Tensor, epsilon: float) -> Tensor:
    """Zero in place of central moments of a fluctuation that is round-off of the mean."""
    mean, second = moments[..., 0], moments[..., 1]
    noise = second.sqrt() <= 2 * epsilon * mean.abs()
    central = torch.where(noise.unsqueeze(-1), 0.0, moments[..., 1:])
    return torch.cat([moments[..., :1], central], -1)

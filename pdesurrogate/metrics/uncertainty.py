"""How good a stated uncertainty is: of ensembles, and of predictions with a mean and a variance.

Ensembles are ``(member, ...)``: members in the first axis, all the rest as the truth ``(...)`` has it. Pointwise
functions take any shape and return ``(...)``; those that average over space take ``(batch, time, channel, *space)`` and
quadrature weights that broadcast to it, as in `metrics.errors`. Whatever depends on a NaN is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from scipy.special import digamma
from torch import Tensor

from pdesurrogate.metrics.base import (
    Coordinate,
    RolloutMetric,
    Score,
    Variable,
    block_error,
    scores_by_channel,
    shared_units,
)
from pdesurrogate.metrics.block import Block, at_least_float32, box_mean
from pdesurrogate.metrics.plan import RolloutPlan

# A network of this size has 543 exchanges; far larger ones take longer to walk through than a plain sort.
_MOST_FOR_NETWORK = 64

# Fewer members have no finite expectation of the inverse variance, which a fair log-likelihood needs.
_FEWEST_FOR_LIKELIHOOD = 4


def crps_ensemble(members: Tensor, target: Tensor) -> Tensor:
    """Fair continuous ranked probability score ``(...)``, in the units of the field; smaller is better.

    ``mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 m (m - 1))``: its expectation is the score of the distribution that the
    members are drawn from, whatever their number, so ensembles of different sizes can be compared (Ferro 2014,
    doi:10.1002/qj.2270; Zamo & Naveau 2018, doi:10.1007/s11004-017-9709-7). It can be negative at a single
    point. Where all members agree it is the absolute error. Differentiable.

    Args:
        members: ``(member, ...)``, at least two.
        target: ``(...)``.

    Raises:
        ValueError: if there are fewer than two members or shapes do not fit.

    Example:
        >>> crps_ensemble(torch.tensor([1.0, 2.0, 6.0]), torch.tensor(2.0)).item()  # 5/3 - (1 + 4 + 5) / (3 * 2)
        0.0
    """
    members, target = _checked(members, target)
    count = len(members)
    # Member by member: its work stays in the cache. Differences from the truth: nothing large is left to cancel.
    ordered = _sorted([member - target for member in members])
    distance, pairs = torch.zeros_like(target), torch.zeros_like(target)
    for difference in ordered:
        distance = distance + difference.abs()
    # sum_{i<j} (x_j - x_i) of sorted members, in pairs from both ends: no term is negative, and ties give exactly zero.
    for i in range(count // 2):
        pairs = torch.add(pairs, ordered[count - 1 - i] - ordered[i], alpha=count - 1 - 2 * i)
    return distance / count - pairs / (count * (count - 1))


def crps_gaussian(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score of a normal distribution ``(...)``; NaN where the variance is not positive.

    ``sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))`` with ``z = (y - mean) / sigma`` (Gneiting & Raftery 2007,
    doi:10.1198/016214506000001437, section 4.2).

    Example:
        >>> round(crps_gaussian(torch.zeros(1), torch.ones(1), torch.zeros(1)).item(), 4)  # (sqrt(2) - 1) / sqrt(pi)
        0.2337
    """
    return _crps(*_standardized(mean, variance, target))


def log_likelihood_gaussian(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Log of the normal density at the truth ``(...)``; larger is better. NaN where the variance is not positive.

    Example:
        >>> round(log_likelihood_gaussian(torch.zeros(1), torch.ones(1), torch.zeros(1)).item(), 4)  # -log(2 pi) / 2
        -0.9189
    """
    return _log_likelihood(*_standardized(mean, variance, target))


def log_likelihood_ensemble(members: Tensor, target: Tensor) -> Tensor:
    """Fair log of the normal density at the truth ``(...)``, from the mean and variance of at least four members.

    Its expectation over normal members is the `log_likelihood_gaussian` of the distribution that they are drawn from;
    the plug-in value would punish small ensembles for the noise in their variance (Siegert et al. 2019,
    doi:10.1002/qj.3447). NaN where all members agree: they state no density there.

    Raises:
        ValueError: if there are fewer than four members or shapes do not fit.

    Example:
        >>> members = torch.randn(5, 100_000, generator=torch.Generator().manual_seed(0))
        >>> round(log_likelihood_ensemble(members, torch.zeros(100_000)).mean().item(), 2)  # -log(2 pi) / 2
        -0.92
    """
    members, target = _checked(members, target, fewest=_FEWEST_FOR_LIKELIHOOD)
    return _fair_log_likelihood(*_mean_and_variance(members), target, len(members))


def _fair_log_likelihood(mean: Tensor, variance: Tensor, target: Tensor, members: int) -> Tensor:
    deviation, z = _standardized(mean, variance, target)
    freedom = members - 1
    # For normal members E[log s^2] = log sigma^2 + digamma(f/2) - log(f/2), and 1/s^2 has mean f / ((f - 2) sigma^2).
    log_bias = float(digamma(freedom / 2)) - math.log(freedom / 2)
    square = (freedom - 2) / freedom * z.square() - 1 / members
    return -(math.log(2 * math.pi) + square - log_bias) / 2 - deviation.log()


def spread_skill_ratio(variance: Tensor, squared_error: Tensor, members: float = math.inf) -> Tensor:
    """Spread over skill ``(...)``: one for a reliable forecast, below one for an overconfident one.

    ``sqrt((m + 1) / m * variance / squared_error)``: the mean of finitely many members has an error of its own
    (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1). Averages go inside the root, so both are averaged over
    space and trajectories before they come here. NaN where both are zero.

    Args:
        variance: mean of the unbiased variance of the members, or of the stated one.
        squared_error: mean squared error of the ensemble mean.
        members: their number; infinite for a stated variance.

    Example:
        >>> spread_skill_ratio(torch.tensor(2.0), torch.tensor(3.0), members=2).item()
        1.0
    """
    return ((1 + 1 / members) * variance / squared_error).sqrt()


class Ranks(NamedTuple):
    """Ranks ``0 ... members`` of the truth among the members; NaN where one of them is.

    Attributes:
        lowest: ``(...)``, members below the truth.
        highest: ``(...)``, members below it or equal to it; the truth is equally likely to have any rank between.
    """

    lowest: Tensor
    highest: Tensor


def ranks(members: Tensor, target: Tensor) -> Ranks:
    """Where the truth stands among the members. Ties leave a range of ranks, and nothing is drawn at random.

    Raises:
        ValueError: if there are fewer than two members or shapes do not fit.

    Example:
        >>> found = ranks(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0.5, 0.0]))
        >>> found.lowest.tolist(), found.highest.tolist()  # the second point is a wall: all are equal
        ([1.0, 0.0], [1.0, 2.0])
    """
    members, target = _checked(members, target)
    unknown = (members.sum(0) + target).isnan()
    counts = [flags.sum(0, dtype=torch.int16) for flags in (members < target, members <= target)]
    return Ranks(*(torch.where(unknown, torch.nan, count.to(target.dtype)) for count in counts))


def rank_histogram(members: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Share of space at each rank of the truth ``(batch, time, channel, rank)``, float64; flat if truth and members are
    exchangeable (Hamill 2001, doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2).

    Where the truth ties with members, its share is spread evenly over the tied ranks: what drawing one of them at
    random gives on average. So a wall at which all are zero adds a flat histogram.

    Args:
        members: ``(member, batch, time, channel, *space)``.
        target: ``(batch, time, channel, *space)``.
        weights: quadrature weights; ``None`` where all points count alike.

    Example:
        >>> members = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1, 1).expand(-1, -1, -1, -1, 4)
        >>> target = torch.tensor([0.0, 1.5, 3.0, 2.0]).reshape(1, 1, 1, 4)  # the last ties with the upper member
        >>> rank_histogram(members, target).flatten().tolist()
        [0.25, 0.375, 0.375]
    """
    lowest, highest = ranks(members, target)
    above = highest + 1
    share = 1 / (above - lowest)
    # Share of space with a rank of at least k. No scatter: its atomic sums would differ from run to run on a GPU.
    reached = [box_mean(((above - k) * share).clamp(0, 1), weights) for k in range(1, len(members) + 1)]
    reached = [torch.ones_like(reached[0]), *reached, torch.zeros_like(reached[0])]
    return -torch.stack(reached, -1).diff(dim=-1)


def reliability_index(frequencies: Tensor) -> Tensor:
    """``sum_k |f_k - 1 / (m + 1)|`` of a rank histogram ``(..., rank)``: zero if flat, at most ``2 m / (m + 1)``.

    Delle Monache et al. 2006, doi:10.1029/2005JD006917, as a fraction.

    Example:
        >>> reliability_index(torch.tensor([0.5, 0.0, 0.0, 0.5])).item()
        1.0
    """
    return (frequencies - 1 / frequencies.shape[-1]).abs().sum(-1)


def ensemble_levels(members: int) -> tuple[float, ...]:
    """Levels of the central intervals between members of equal depth, ``(m + 1 - 2j) / (m + 1)``, increasing.

    The truth lies between the j-th lowest and the j-th highest of ``m`` exchangeable members with this probability,
    because it has each of ``m + 1`` ranks equally often.

    Example:
        >>> ensemble_levels(4)
        (0.2, 0.6)
    """
    return tuple((members + 1 - 2 * j) / (members + 1) for j in range(members // 2, 0, -1))


def coverage_ensemble(members: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    """Whether the truth lies in the central interval of each level ``(level, ...)``: one, zero, or a share of one.

    At the `ensemble_levels` the interval is that between members of equal depth. Between them coverage is
    interpolated linearly, and ties count by the share of their ranks that lie inside; so the mean over exchangeable
    members is the level itself, exactly, for any level and number of members.

    Raises:
        ValueError: if a level is not positive or wider than the range of the members, ``(m - 1) / (m + 1)``.

    Example:
        >>> members = torch.arange(4.0)[:, None].expand(-1, 3)
        >>> coverage_ensemble(members, torch.tensor([1.5, 0.5, -1.0]), levels=(0.2, 0.4)).tolist()
        [[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]]
    """
    lowest, highest = ranks(members, target)
    levels = _checked_levels(levels, len(members))
    return torch.stack([_central_share(lowest, highest + 1, level, len(members)) for level in levels])


def coverage_of_ranks(frequencies: Tensor, levels: Sequence[float]) -> Tensor:
    """Mean of `coverage_ensemble` ``(..., level)`` from a rank histogram ``(..., rank)``.

    Raises:
        ValueError: as `coverage_ensemble`.

    Example:
        >>> coverage_of_ranks(torch.tensor([0.375, 0.125, 0.125, 0.375]), levels=(0.5,)).tolist()  # overconfident
        [0.25]
    """
    bins = frequencies.shape[-1]
    lowest = torch.arange(bins, dtype=frequencies.dtype, device=frequencies.device)
    levels = _checked_levels(levels, bins - 1)
    shares = torch.stack([_central_share(lowest, lowest + 1, level, bins - 1) for level in levels], -1)
    return frequencies @ shares


def coverage_gaussian(mean: Tensor, variance: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    """Whether the truth lies in the central interval of each level ``(level, ...)``: one or zero.

    NaN where the variance is not positive.

    Raises:
        ValueError: if a level is not between zero and one.

    Example:
        >>> truth = torch.tensor([0.5, 1.5])
        >>> coverage_gaussian(torch.zeros(2), torch.ones(2), truth, levels=(0.6827, 0.9545)).tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    z = _standardized(mean, variance, target)[1]
    inside = torch.stack([_inside(z, level) for level in _checked_levels(levels)])
    return torch.where(z.isnan(), torch.nan, inside)


def calibration_error(coverage: Tensor, levels: Sequence[float]) -> Tensor:
    """Mean over levels of ``|coverage - level|``, ``(...)`` from ``(..., level)``; coverage averaged over samples.

    With evenly spaced levels this is the area between the reliability curve and the diagonal.

    Example:
        >>> round(calibration_error(torch.tensor([0.4, 0.7]), levels=(0.5, 0.9)).item(), 6)
        0.15
    """
    nominal = torch.stack([torch.full_like(coverage[..., 0], level) for level in levels], -1)
    return (coverage - nominal).abs().mean(-1)


def _checked(members: Tensor, target: Tensor, fewest: int = 2) -> tuple[Tensor, Tensor]:
    if members.ndim != target.ndim + 1 or members.shape[1:] != target.shape or len(members) < fewest:
        raise ValueError(
            f"Expected members (member, *{tuple(target.shape)}), at least {fewest}, for a target of that shape but got "
            f"{tuple(members.shape)}; put the members in the first axis."
        )
    return at_least_float32(members), at_least_float32(target)


def _checked_levels(levels: Sequence[float], members: float = math.inf) -> tuple[float, ...]:
    widest = 1.0 if math.isinf(members) else (members - 1) / (members + 1)
    # Levels of an ensemble are ratios of small integers; round-off must not refuse the widest.
    fits = [0 < level < 1 and level <= widest + 1e-9 for level in levels]
    if not fits or not all(fits):
        range_of = "" if math.isinf(members) else f", the range of {members} members,"
        raise ValueError(f"Expected levels above 0 and up to {widest:.4g}{range_of} but got {tuple(levels)}.")
    return tuple(levels)


def _standardized(mean: Tensor, variance: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation, and distance of the truth from the mean in units of it; NaN where it is not positive."""
    mean, variance, target = at_least_float32(mean), at_least_float32(variance), at_least_float32(target)
    deviation = torch.where(variance > 0, variance, torch.nan).sqrt()
    return deviation, (target - mean) / deviation


def _crps(deviation: Tensor, z: Tensor) -> Tensor:
    density = math.sqrt(2 / math.pi) * torch.exp(-z.square() / 2)
    return deviation * (z * torch.erf(z / math.sqrt(2)) + density - 1 / math.sqrt(math.pi))


def _log_likelihood(deviation: Tensor, z: Tensor) -> Tensor:
    return -(math.log(2 * math.pi) + z.square()) / 2 - deviation.log()


def _inside(z: Tensor, level: float) -> Tensor:
    return (z.abs() <= NormalDist().inv_cdf((1 + level) / 2)).to(z.dtype)


def _mean_and_variance(members: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance over members; in two passes, which are ten times as fast as ``torch.var`` here."""
    # Relative to one member, so that the variance is exactly zero where all agree: a mean of equal numbers is rounded.
    first, *others = members.unbind(0)
    shift = torch.zeros_like(first)
    for member in others:
        shift = shift + (member - first)
    shift = shift / len(members)
    squares = shift.square()
    for member in others:
        squares = squares + (member - first - shift).square()
    return first + shift, squares / (len(members) - 1)


def _central_share(low: Tensor, high: Tensor, level: float, members: int) -> Tensor:
    """Share of the range ``[low, high]`` of ranks, out of ``[0, members + 1]``, that lies in the central interval."""
    middle = (members + 1) / 2
    inside = high.clamp(max=middle * (1 + level)) - low.clamp(min=middle * (1 - level))
    return inside.clamp(min=0) / (high - low)


def _sorted(slabs: Sequence[Tensor]) -> list[Tensor]:
    """Slabs ``(...)`` in increasing order, point by point.

    A sorting network exchanges whole slabs, contiguous work without branches: for 8 to 32 members of a field it is
    twenty times as fast as ``torch.sort`` along the first axis on a CPU.
    """
    if len(slabs) > _MOST_FOR_NETWORK:
        return list(torch.stack(list(slabs)).sort(0).values.unbind(0))
    ordered = list(slabs)
    for low, high in _exchanges(len(ordered)):
        pair = ordered[low], ordered[high]
        ordered[low], ordered[high] = torch.minimum(*pair), torch.maximum(*pair)
    return ordered


@lru_cache(maxsize=64)
def _exchanges(count: int) -> tuple[tuple[int, int], ...]:
    """Batcher's merge exchange: ``O(m log^2 m)`` pairs (Knuth, The Art of Computer Programming 3, algorithm 5.2.2M)."""
    largest = 1 << max((count - 1).bit_length() - 1, 0)
    pairs: list[tuple[int, int]] = []
    stride = largest
    while stride:
        step, residue, distance = largest, 0, stride
        while True:
            pairs += [(i, i + distance) for i in range(count - distance) if i & stride == residue]
            if step == stride:
                break
            distance, step, residue = step - stride, step // 2, stride
        stride //= 2
    return tuple(pairs)


class _UncertaintyMetric(RolloutMetric):
    """What both kinds of forecast share: curves of CRPS, spread and skill, and coverage in stages of the rollout.

    Args:
        plan: what is going to be measured.
        kind: begins the name of every output.
        levels: of the central intervals.
        samples: numbers a frame and channel from which coverage is made.
        members: of an ensemble; infinite for a stated variance.
    """

    def __init__(
        self, plan: RolloutPlan, kind: str, levels: tuple[float, ...], samples: int, members: float = math.inf
    ) -> None:
        super().__init__(plan)
        self.levels = levels
        self._kind = kind
        self._size = members
        self._units = shared_units([channel.units for channel in plan.metadata.channels])
        self._stages = {1: ("all",), 2: ("early", "late")}.get(plan.frames, ("early", "middle", "late"))
        self._has_likelihood = members >= _FEWEST_FOR_LIKELIHOOD
        channels = len(plan.metadata.channels)
        for name in ("crps", "variance", "squared_error", *(["log_likelihood"] if self._has_likelihood else [])):
            self.add_curve(name, channels)
        for stage in self._stages:
            self.add_pooled(f"samples_{stage}", channels, samples)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        kind = self._kind
        curve, ratio = ("trajectory", "lead_time", "channel"), ("lead_time", "channel")
        staged = ("stage", "channel", f"{kind}_level")
        fair = "fair " if math.isfinite(self._size) else ""
        finite = f", times sqrt({self._size + 1}/{self._size})" if math.isfinite(self._size) else ""
        variables = {
            "crps": Variable(curve, self._units, f"{fair}continuous ranked probability score"),
            "spread": Variable(curve, self._units, f"root of the mean variance{finite}: the skill if it were reliable"),
            "skill": Variable(curve, self._units, "root mean squared error of the mean"),
            "spread_skill_ratio": Variable(ratio, "1", "spread over skill, both over all trajectories not stopped"),
            "spread_skill_mismatch": Variable(ratio, "1", "distance of the spread-skill ratio from one"),
            "coverage": Variable(staged, "1", "share of the truth inside the central interval of each level"),
            "coverage_standard_error": Variable(staged, "1", "standard error of the coverage"),
            "calibration_error": Variable(staged[:2], "1", "calibration error: mean over levels of |coverage - level|"),
        }
        if self._has_likelihood:
            text = f"{fair}log of the Gaussian density at the truth"
            variables["log_likelihood"] = Variable(curve, "1", text)
        return {f"{kind}_{name}": variable for name, variable in variables.items()}

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Levels of the central intervals, and names of the stages."""
        levels = torch.tensor(self.levels, dtype=torch.float64)
        return {
            f"{self._kind}_level": Coordinate(levels, "1", "nominal level of the central interval"),
            "stage": Coordinate(self._stages, "1", "part of the rollout, equal in length"),
        }

    @property
    def scores(self) -> dict[str, Score]:
        """CRPS, distance of the spread-skill ratio from one, calibration error."""
        kind, variables = self._kind, self.variables
        text = f"{variables[f'{kind}_crps'].long_name}, mean over lead times"
        scores = scores_by_channel(self.plan, f"{kind}_crps", text)
        for name, over in (("spread_skill_mismatch", "lead times"), ("calibration_error", "stages")):
            text = f"{variables[f'{kind}_{name}'].long_name}, mean over {over} and channels"
            scores[f"{kind}_{name}"] = Score(f"{kind}_{name}", text)
        return scores

    def _record(
        self,
        block: Block,
        crps: Tensor,
        variance: Tensor,
        squared_error: Tensor,
        log_likelihood: Tensor | None,
        samples: Tensor,
    ) -> None:
        """Keep means over space ``(batch, time, channel)`` and ``samples (batch, time, channel, samples)``.

        A frame in which any number of any channel is not finite is NaN as a whole.
        """
        good = torch.isfinite(crps).all(-1)[..., None]
        for name, values in (("crps", crps), ("variance", variance), ("squared_error", squared_error)):
            self.write(name, torch.where(good, values, torch.nan), block)
        if log_likelihood is not None:
            self.write("log_likelihood", torch.where(good, log_likelihood, torch.nan), block)
        frames = torch.arange(block.first_frame, block.first_frame + block.frames, device=crps.device)
        stages = frames * len(self._stages) // self.plan.frames
        for number, stage in enumerate(self._stages):
            kept = good & (stages == number)[:, None]
            # What is NaN is left out of a pooled mean.
            self.pool(f"samples_{stage}", torch.where(kept[..., None], samples, torch.nan), block)

    def _by_stage(self, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """A linear function of the pooled samples ``(..., channel, samples)``: values by stage and standard errors."""
        pooled = [self.pooled(f"samples_{stage}") for stage in self._stages]
        values = torch.stack([function(mean) for mean, _ in pooled])
        return values, torch.stack([block_error(function(blocks)) for _, blocks in pooled])

    def _outputs(self, coverage: Tensor, coverage_error: Tensor) -> dict[str, Tensor]:
        """Shared outputs; a number that compares with a perfect forecast is NaN where trajectories were stopped."""
        crps, variance, squared_error = self.curve("crps"), self.curve("variance"), self.curve("squared_error")
        ratio = spread_skill_ratio(variance.nanmean(0), squared_error.nanmean(0), self._size)
        outputs = {
            "crps": crps,
            "spread": ((1 + 1 / self._size) * variance).sqrt(),
            "skill": squared_error.sqrt(),
            "spread_skill_ratio": ratio,
            "spread_skill_mismatch": torch.where(self._complete[:, None], (ratio - 1).abs(), torch.nan),
            "coverage": coverage,
            "coverage_standard_error": coverage_error,
            "calibration_error": self._if_complete(calibration_error(coverage, self.levels)),
        }
        if self._has_likelihood:
            outputs["log_likelihood"] = self.curve("log_likelihood")
        return {f"{self._kind}_{name}": values for name, values in outputs.items()}

    @property
    def _complete(self) -> Tensor:
        """Frames ``(frames,)`` at which none was stopped: survivors alone would flatter a model that blows up."""
        return torch.isfinite(self.curve("crps")).flatten(2).all(-1).all(0)

    def _if_complete(self, values: Tensor) -> Tensor:
        """``values (stage, channel)``, NaN in stages with stopped trajectories."""
        complete = self._complete
        stages = torch.arange(self.plan.frames, device=complete.device) * len(self._stages) // self.plan.frames
        whole = torch.stack([complete[stages == number].all() for number in range(len(self._stages))])
        return torch.where(whole[:, None], values, torch.nan)


class EnsembleMetric(_UncertaintyMetric):
    """`crps_ensemble`, spread and skill of the mean, `rank_histogram`, `coverage_ensemble`, `log_likelihood_ensemble`.

    A frame in which any member of a trajectory was stopped is NaN as a whole. Histogram and coverage are pooled over
    space and over the trajectories that were not stopped, in three stages of the rollout, each with a block-averaged
    error. Numbers that judge pooled values (calibration error, reliability index, distance of the spread-skill ratio
    from one) are NaN where any trajectory was stopped. The log-likelihood is given for four members or more; points
    where all agree, as on a wall, state no density and are left out of it.

    Args:
        plan: what is going to be measured; at least two members.
        levels: of the central intervals, at most ``(m - 1) / (m + 1)``; by default the `ensemble_levels`.

    Raises:
        ValueError: if the plan has one member only, or a level is wider than the range of the members.
    """

    def __init__(self, plan: RolloutPlan, levels: Sequence[float] | None = None) -> None:
        if plan.members < 2:
            raise ValueError(
                f"Expected a plan with at least two members but got {plan.members}; roll out an ensemble, "
                "or leave this metric out of the suite."
            )
        chosen = ensemble_levels(plan.members) if levels is None else _checked_levels(levels, plan.members)
        super().__init__(plan, "ensemble", chosen, samples=plan.members + 1, members=plan.members)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims = ("stage", "channel", "rank")
        return super().variables | {
            "rank_histogram": Variable(dims, "1", "share of the truth at each rank among the members"),
            "rank_histogram_standard_error": Variable(dims, "1", "standard error of the rank histogram"),
            "reliability_index": Variable(dims[:2], "1", "sum of the rank histogram's distances from a flat one"),
        }

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Levels, stages and ranks."""
        numbers = torch.arange(self.plan.members + 1)
        return super().coordinates | {"rank": Coordinate(numbers, "1", "members below the truth")}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`.

        Raises:
            ValueError: if the block holds no members, or another number of them than the plan.
        """
        members, target, weights = self._members(block), block.target.values, block.weights
        mean, variance = _mean_and_variance(members)
        log_likelihood = None
        if self._has_likelihood:
            spread = (variance > 0).to(variance.dtype)
            log_likelihood = box_mean(
                _fair_log_likelihood(mean, variance, target, len(members)),
                spread if weights is None else spread * weights,
            )
        self._record(
            block,
            crps=box_mean(crps_ensemble(members, target), weights),
            variance=box_mean(variance, weights),
            squared_error=box_mean((mean - target).square(), weights),
            log_likelihood=log_likelihood,
            samples=rank_histogram(members, target, weights),
        )

    def _members(self, block: Block) -> Tensor:
        expected = (self.plan.members, *block.target.values.shape)
        if block.members is None or tuple(block.members.shape) != expected:
            found = None if block.members is None else tuple(block.members.shape)
            raise ValueError(
                f"Expected a block with members {expected} but got {found}; roll out an ensemble of "
                f"{self.plan.members}, or leave this metric out of the suite."
            )
        return at_least_float32(block.members)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        histogram, histogram_error = self._by_stage(lambda frequencies: frequencies)
        return self._outputs(*self._by_stage(lambda frequencies: coverage_of_ranks(frequencies, self.levels))) | {
            "rank_histogram": histogram,
            "rank_histogram_standard_error": histogram_error,
            "reliability_index": self._if_complete(reliability_index(histogram)),
        }


class GaussianMetric(_UncertaintyMetric):
    """`crps_gaussian`, spread and skill, `coverage_gaussian` and `log_likelihood_gaussian` of a stated variance.

    A frame in which the variance is not positive at a point that counts is NaN as a whole, like that of a trajectory
    that was stopped. Coverage is pooled as `EnsembleMetric` pools it.

    Args:
        plan: what is going to be measured.
        levels: of the central intervals.

    Raises:
        ValueError: if a level is not between zero and one.
    """

    def __init__(
        self, plan: RolloutPlan, levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ) -> None:
        super().__init__(plan, "gaussian", _checked_levels(levels), samples=len(levels))

    @property
    def scores(self) -> dict[str, Score]:
        """Those of every uncertainty, and the log-likelihood."""
        text = "log of the Gaussian density at the truth, mean over lead times and channels"
        score = Score("gaussian_log_likelihood", text, higher_is_better=True)
        return super().scores | {"gaussian_log_likelihood": score}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`.

        Raises:
            ValueError: if the block holds no variance, or one of another shape than the prediction.
        """
        mean, target, weights = block.prediction.values, block.target.values, block.weights
        variance = block.variance
        if variance is None or variance.shape != mean.shape:
            found = None if variance is None else tuple(variance.shape)
            raise ValueError(
                f"Expected a block with a variance {tuple(mean.shape)} but got {found}; "
                "measure a model that states one, or leave this metric out of the suite."
            )
        deviation, z = _standardized(mean, variance, target)
        self._record(
            block,
            crps=box_mean(_crps(deviation, z), weights),
            variance=box_mean(variance, weights),
            squared_error=box_mean((mean - target).square(), weights),
            log_likelihood=box_mean(_log_likelihood(deviation, z), weights),
            samples=torch.stack([box_mean(_inside(z, level), weights) for level in self.levels], -1),
        )

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        return self._outputs(*self._by_stage(lambda covered: covered))

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.block import Block, box_mean
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.uncertainty import (
    EnsembleMetric,
    GaussianMetric,
    _exchanges,
    _sorted,
    calibration_error,
    coverage_ensemble,
    coverage_gaussian,
    coverage_of_ranks,
    crps_ensemble,
    crps_gaussian,
    ensemble_levels,
    log_likelihood_ensemble,
    log_likelihood_gaussian,
    rank_histogram,
    ranks,
    reliability_index,
    spread_skill_ratio,
)

PERIODIC = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
WALLS = Grid((Axis("x", period=1.0), Axis("y")))
CHANNELS = (Channel("u", "m/s"), Channel("p", "Pa"))

finite = st.floats(-100, 100)
ensembles = st.integers(2, 9).flatmap(lambda m: st.tuples(st.lists(finite, min_size=m, max_size=m), finite))


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_ties(*shape, seed=0, values=4):
    """Whole numbers, of which many are equal."""
    return torch.randint(values, shape, generator=torch.Generator().manual_seed(seed)).double()


def roles(samples):
    """Every sample ``(m + 1, ...)`` in turn as the truth among the others: ``(m, role, ...)`` and ``(role, ...)``."""
    members = torch.stack([torch.cat([samples[:k], samples[k + 1 :]]) for k in range(len(samples))], 1)
    return members, samples


# --- CRPS ---


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 13, 33, 65])
@pytest.mark.parametrize("sample", [noise, with_ties])
def test_the_fair_crps_is_its_double_sum(count, sample):
    members, target = sample(count, 6, 7), sample(6, 7, seed=1)
    x, y = members.numpy(), target.numpy()
    pairs = sum(np.abs(x[i] - x[j]) for i in range(count) for j in range(count))
    expected = np.abs(x - y).mean(0) - pairs / (2 * count * (count - 1))
    np.testing.assert_allclose(crps_ensemble(members, target).numpy(), expected, atol=1e-13)


def test_the_fair_crps_does_not_depend_on_the_number_of_members():
    # A U-statistic: the mean over all subsets is the value of the whole, exactly. The plain estimator fails this.
    members, target = noise(6, 20), noise(20, seed=1)
    for size in (2, 3, 5):
        subsets = [crps_ensemble(members[list(c)], target) for c in itertools.combinations(range(6), size)]
        torch.testing.assert_close(torch.stack(subsets).mean(0), crps_ensemble(members, target), rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 10, 11, 12])
def test_the_network_sorts_all_zeros_and_ones_and_so_everything(count):
    # The 0-1 principle: a network of exchanges that sorts every sequence of zeros and ones sorts every sequence.
    columns = torch.tensor(list(itertools.product([0.0, 1.0], repeat=count))).T
    assert torch.equal(torch.stack(_sorted(list(columns))), columns.sort(0)[0])


def test_the_network_is_as_large_as_batchers():
    assert [len(_exchanges(count)) for count in (2, 4, 8, 16, 32)] == [1, 5, 19, 63, 191]


@given(ensembles)
@settings(max_examples=60, deadline=None)
def test_properties_of_the_fair_crps(case):
    members, target = (torch.tensor(values, dtype=torch.float64) for values in case)
    value = crps_ensemble(members, target)
    # Differences of numbers up to a thousand carry round-off of 1e-13.
    close = {"rtol": 1e-12, "atol": 1e-11}
    torch.testing.assert_close(crps_ensemble(members.flip(0), target), value, **close)
    torch.testing.assert_close(crps_ensemble(members + 7, target + 7), value, **close)
    torch.testing.assert_close(crps_ensemble(-3 * members, -3 * target), 3 * value, **close)
    agreeing = members[:1].expand(len(members))
    torch.testing.assert_close(crps_ensemble(agreeing, target), (members[0] - target).abs(), **close)


def test_a_large_mean_costs_no_accuracy():
    # Single precision resolves a thousandth at ten thousand: differences of such numbers are exact, sums are not.
    members, target = with_ties(8, 100).float() / 1024, with_ties(100, seed=1).float() / 1024
    assert torch.equal(crps_ensemble(members + 8192, target + 8192), crps_ensemble(members, target))


def test_the_crps_has_gradients():
    members, target = noise(5, 4).requires_grad_(), noise(4, seed=1)
    assert torch.autograd.gradcheck(lambda x: crps_ensemble(x, target), members)


def test_the_gaussian_crps_is_the_integral_of_the_squared_distance_of_distributions():
    for mean, variance, truth in ((0.0, 1.0, 0.0), (1.0, 4.0, -2.0), (-0.5, 0.01, 0.1), (3.0, 0.25, 9.0)):
        cdf = stats.norm(mean, math.sqrt(variance)).cdf
        below, _ = integrate.quad(lambda x: cdf(x) ** 2, -60, truth, points=[mean], epsabs=1e-10, limit=200)  # noqa: B023
        above, _ = integrate.quad(lambda x: (1 - cdf(x)) ** 2, truth, 60, points=[mean], epsabs=1e-10, limit=200)  # noqa: B023
        found = crps_gaussian(*(torch.tensor(value, dtype=torch.float64) for value in (mean, variance, truth)))
        assert found.item() == pytest.approx(below + above, abs=1e-7)


def test_the_two_crps_agree_for_normal_members():
    truth = noise(1, seed=1)
    # Members at the quantiles: the scores differ by the midpoint rule and the fair estimator's share, of order 1/m.
    quantiles = stats.norm(2, 3).ppf((np.arange(2000) + 0.5) / 2000)
    found = crps_ensemble(torch.from_numpy(quantiles)[:, None], truth)
    expected = crps_gaussian(torch.full((1,), 2.0), torch.full((1,), 9.0), truth)
    torch.testing.assert_close(found, expected, rtol=0, atol=3 / 2000)


# --- log-likelihood ---


def test_the_gaussian_log_likelihood_is_scipys():
    mean, target, variance = noise(50), noise(50, seed=1), noise(50, seed=2).exp()
    expected = stats.norm.logpdf(target.numpy(), mean.numpy(), variance.sqrt().numpy())
    np.testing.assert_allclose(log_likelihood_gaussian(mean, variance, target).numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("count", [4, 5, 8, 20])
def test_the_ensemble_log_likelihood_is_fair(count):
    # Members with a given mean and variance; the two are independent for normal members, with known distributions.
    mean, deviation, truth = 1.0, 2.0, 3.5
    pattern = torch.linspace(-1, 1, count, dtype=torch.float64)
    pattern = pattern / pattern.std()
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    means = torch.from_numpy(mean + deviation / math.sqrt(count) * nodes)

    def value(root):
        # The integral over the root of the chi-squared variable has a smooth integrand at zero.
        members = means + deviation * root / math.sqrt(count - 1) * pattern[:, None]
        scores = log_likelihood_ensemble(members, torch.full((3,), truth, dtype=torch.float64)).numpy()
        return float(scores @ weights / weights.sum()) * stats.chi.pdf(root, count - 1)

    expected, _ = integrate.quad(value, 0, 12, epsabs=1e-9)
    assert expected == pytest.approx(stats.norm.logpdf(truth, mean, deviation), abs=1e-6)


def test_non_positive_variance_gives_nan_there_and_nowhere_else():
    variance = torch.tensor([1.0, 0.0, -1.0, math.nan, 2.0])
    zeros = torch.zeros(5)
    for found in (
        crps_gaussian(zeros, variance, zeros),
        log_likelihood_gaussian(zeros, variance, zeros),
        coverage_gaussian(zeros, variance, zeros, (0.5,))[0],
    ):
        assert found.isnan().tolist() == [False, True, True, True, False]
    assert log_likelihood_ensemble(torch.ones(4, 1), torch.ones(1)).isnan().all()


# --- spread and skill ---


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_reliable_ensemble_has_as_much_spread_as_skill(count):
    samples = 40_000
    centre, members, truth = noise(samples), noise(count, samples, seed=1), noise(samples, seed=2)
    members, truth = centre + members, centre + truth
    variance, error = members.var(0).mean(), (members.mean(0) - truth).square().mean()
    # Relative variance of a mean of chi-squared numbers: 2 / n; that of the ratio's square is the sum of two.
    deviation = math.sqrt(2 / samples + 2 / (samples * (count - 1))) / 2
    assert spread_skill_ratio(variance, error, count).item() == pytest.approx(1, abs=4 * deviation)
    assert spread_skill_ratio(variance / 4, error, count).item() == pytest.approx(0.5, abs=2 * deviation)


def test_a_collapsed_ensemble_has_no_spread_and_a_stated_variance_no_correction():
    assert spread_skill_ratio(torch.zeros(()), torch.ones(()), 5).item() == 0
    assert spread_skill_ratio(torch.tensor(9.0), torch.tensor(4.0)).item() == 1.5


# --- ranks ---


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("sample", [noise, with_ties])
def test_exchangeable_members_have_a_flat_histogram_and_the_nominal_coverage_exactly(count, sample):
    # Each sample is the truth once, so every rank occurs equally often, whatever the values are.
    members, truth = roles(sample(count + 1, 1, 1, 5, 5))
    histogram = rank_histogram(members, truth).mean(0).flatten()
    torch.testing.assert_close(histogram, torch.full_like(histogram, 1 / (count + 1)), rtol=0, atol=1e-14)
    assert reliability_index(histogram).item() == pytest.approx(0, abs=1e-13)
    levels = [*ensemble_levels(count), *np.linspace(0.01, (count - 1) / (count + 1), 7)]
    for found in (coverage_of_ranks(histogram, levels), coverage_ensemble(members, truth, levels).flatten(1).mean(1)):
        torch.testing.assert_close(found, torch.tensor(levels, dtype=torch.float64), rtol=0, atol=1e-13)
        assert calibration_error(found, levels).item() == pytest.approx(0, abs=1e-13)


def test_ranks_count_members_below():
    members, truth = noise(9, 200), noise(200, seed=1)
    found = ranks(members, truth)
    expected = [np.searchsorted(np.sort(x), y) for x, y in zip(members.numpy().T, truth.numpy(), strict=True)]
    assert found.lowest.tolist() == found.highest.tolist() == expected


def test_ties_are_spread_evenly():
    members = torch.tensor([0.0, 1.0, 1.0, 2.0]).reshape(4, 1, 1, 1, 1)
    assert ranks(members, torch.ones(1, 1, 1, 1)).lowest.item() == 1
    assert ranks(members, torch.ones(1, 1, 1, 1)).highest.item() == 3
    histogram = rank_histogram(members, torch.ones(1, 1, 1, 1)).flatten()
    torch.testing.assert_close(histogram, torch.tensor([0, 1, 1, 1, 0], dtype=torch.float64) / 3, rtol=0, atol=1e-7)
    everywhere = rank_histogram(torch.zeros(4, 1, 1, 1, 9).double(), torch.zeros(1, 1, 1, 9).double()).flatten()
    torch.testing.assert_close(everywhere, torch.full_like(everywhere, 0.2), rtol=0, atol=1e-15)


def test_a_nan_has_no_rank():
    members = torch.tensor([[0.0, math.nan, 0.0], [1.0, 1.0, 1.0]])
    found = ranks(members, torch.tensor([0.5, 0.5, math.nan]))
    assert found.lowest.isnan().tolist() == found.highest.isnan().tolist() == [False, True, True]


def test_an_overconfident_ensemble_has_the_largest_reliability_index():
    members, truth = 1e-6 * noise(4, 1, 1, 1, 1000), noise(1, 1, 1, 1000, seed=1)
    histogram = rank_histogram(members, truth)
    assert histogram[..., 1:-1].abs().max().item() == 0
    # Half the points above and half below would be 2 * 3/10 + 3 * 2/10.
    assert reliability_index(histogram).item() == pytest.approx(1.2, abs=1e-12)
    assert reliability_index(torch.tensor([0.0, 0, 0, 0, 1])).item() == pytest.approx(2 * 4 / 5)


# --- coverage ---


@pytest.mark.parametrize("count", [2, 3, 6, 9])
def test_coverage_at_native_levels_is_that_of_order_statistics(count):
    members, truth = noise(count, 300), 1.5 * noise(300, seed=1)
    ordered = np.sort(members.numpy(), axis=0)
    levels = ensemble_levels(count)
    depths = range(count // 2, 0, -1)
    inside = [(ordered[j - 1] < truth.numpy()) & (truth.numpy() < ordered[count - j]) for j in depths]
    found = coverage_ensemble(members, truth, levels)
    torch.testing.assert_close(found, torch.from_numpy(np.array(inside, float)), rtol=0, atol=1e-12)
    assert [round(level * (count + 1)) for level in levels] == [count + 1 - 2 * j for j in depths]


def test_coverage_from_a_histogram_is_that_of_the_points_ties_and_weights_included():
    members, truth = with_ties(5, 2, 1, 1, 8, 8, values=7), with_ties(2, 1, 1, 8, 8, seed=1, values=7)
    weights = noise(2, 1, 1, 8, 8, seed=2).abs()
    levels = (0.2, 1 / 3, 0.5, 2 / 3)
    pointwise = torch.stack([box_mean(each, weights) for each in coverage_ensemble(members, truth, levels)], -1)
    torch.testing.assert_close(
        coverage_of_ranks(rank_histogram(members, truth, weights), levels), pointwise, rtol=0, atol=1e-14
    )


def test_gaussian_coverage_is_scipys_interval():
    mean, variance, truth = noise(500), noise(500, seed=1).exp(), 2 * noise(500, seed=2)
    levels = (0.1, 0.5, 0.9, 0.99)
    for level, inside in zip(levels, coverage_gaussian(mean, variance, truth, levels), strict=True):
        low, high = stats.norm.interval(level, mean.numpy(), variance.sqrt().numpy())
        assert inside.bool().tolist() == ((low <= truth.numpy()) & (truth.numpy() <= high)).tolist()


def test_calibration_error_is_the_mean_distance_over_levels():
    found = calibration_error(torch.tensor([[0.1, 0.5], [0.3, 1.0]], dtype=torch.float64), (0.2, 0.6))
    torch.testing.assert_close(found, torch.tensor([0.1, 0.25], dtype=torch.float64))


def test_half_precision_is_promoted():
    members, truth = noise(4, 1, 1, 1, 50).half(), noise(1, 1, 1, 50, seed=1).half()
    assert torch.equal(crps_ensemble(members, truth), crps_ensemble(members.float(), truth.float()))
    assert rank_histogram(members, truth).dtype == torch.float64
    variance = torch.ones_like(truth)
    assert crps_gaussian(truth, variance, truth).dtype == torch.float32


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"Expected members \(member, \*\(3,\)\), at least 2.*got \(1, 3\)"):
        crps_ensemble(torch.zeros(1, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="members in the first axis"):
        ranks(torch.zeros(3, 4), torch.zeros(3))
    with pytest.raises(ValueError, match="at least 4"):
        log_likelihood_ensemble(torch.zeros(3, 4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"up to 0\.5, the range of 3 members"):
        coverage_ensemble(torch.zeros(3, 4), torch.zeros(4), (0.6,))
    for levels in ((), (0.0,), (1.0,), (0.5, math.nan)):
        with pytest.raises(ValueError, match="levels above 0"):
            coverage_gaussian(torch.zeros(4), torch.ones(4), torch.zeros(4), levels)


# --- metrics ---


def plan_of(grid=PERIODIC, members=5, trajectories=4, frames=6, shape=(8, 8), masked=False):
    y = torch.cos(torch.linspace(math.pi, 0, shape[1], dtype=torch.float64)) if grid is WALLS else None
    uniform = PERIODIC.uniform_coordinates(shape)
    metadata = Metadata("example", grid, CHANNELS, frame_interval=0.5, time_units="s")
    coordinates = (uniform[0], uniform[1] if y is None else y)
    return RolloutPlan(metadata, trajectories, frames, coordinates, masked=masked, members=members)


def context_of(plan, batch, mask=None):
    mask = None if mask is None else mask.expand(batch, *plan.shape)
    return Context(tuple(points.expand(batch, -1) for points in plan.coordinates), mask=mask)


def fields(plan, seed=0, dtype=torch.float64):
    """Members and truth of all trajectories and frames."""
    shape = (plan.trajectories, plan.frames, 2, *plan.shape)
    return noise(plan.members, *shape, seed=seed, dtype=dtype), noise(*shape, seed=seed + 1, dtype=dtype)


def ensemble_block(plan, members, truth, first=0, numbers=None, mask=None):
    numbers = torch.arange(truth.shape[0]) if numbers is None else numbers
    context = context_of(plan, len(numbers), mask)
    return Block(plan, members.mean(0), truth, first, numbers, context, members=members)


def gaussian_block(plan, mean, variance, truth, first=0, mask=None):
    return Block(
        plan, mean, truth, first, torch.arange(len(truth)), context_of(plan, len(truth), mask), variance=variance
    )


def measured(metric, *blocks):
    for block in blocks:
        metric.update(block)
    return metric.compute()


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], equal_nan=True, **tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("grid", [PERIODIC, WALLS])
def test_the_ensemble_metric_gives_what_its_functions_give(grid):
    plan = plan_of(grid)
    members, truth = fields(plan)
    outputs = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    weights = space_weights(grid, context_of(plan, plan.trajectories))
    error, variance = (members.mean(0) - truth).square(), members.var(0)
    histogram = rank_histogram(members, truth, weights).unflatten(1, (3, 2)).mean((0, 2))
    coverage = coverage_of_ranks(histogram, ensemble_levels(5))
    expected = {
        "ensemble_crps": box_mean(crps_ensemble(members, truth), weights),
        "ensemble_spread": (6 / 5 * box_mean(variance, weights)).sqrt(),
        "ensemble_skill": box_mean(error, weights).sqrt(),
        "ensemble_log_likelihood": box_mean(log_likelihood_ensemble(members, truth), weights),
        "rank_histogram": histogram,
        "ensemble_coverage": coverage,
        "ensemble_calibration_error": calibration_error(coverage, ensemble_levels(5)),
        "reliability_index": reliability_index(histogram),
    }
    ratio = (6 / 5 * box_mean(variance, weights).mean(0) / box_mean(error, weights).mean(0)).sqrt()
    expected |= {"ensemble_spread_skill_ratio": ratio, "ensemble_spread_skill_mismatch": (ratio - 1).abs()}
    assert_same({name: outputs[name] for name in expected}, expected, rtol=1e-12, atol=1e-13)


def test_the_gaussian_metric_gives_what_its_functions_give():
    plan = plan_of(WALLS, members=1)
    mean, truth = noise(4, 6, 2, 8, 8), noise(4, 6, 2, 8, 8, seed=1)
    variance = noise(4, 6, 2, 8, 8, seed=2).exp()
    metric = GaussianMetric(plan, levels=(0.5, 0.9))
    outputs = measured(metric, gaussian_block(plan, mean, variance, truth))
    weights = space_weights(WALLS, context_of(plan, 4))
    inside = [box_mean(each, weights) for each in coverage_gaussian(mean, variance, truth, (0.5, 0.9))]
    coverage = torch.stack(inside, -1).unflatten(1, (3, 2)).mean((0, 2))
    error = box_mean((mean - truth).square(), weights)
    ratio = (box_mean(variance, weights).mean(0) / error.mean(0)).sqrt()
    expected = {
        "gaussian_crps": box_mean(crps_gaussian(mean, variance, truth), weights),
        "gaussian_log_likelihood": box_mean(log_likelihood_gaussian(mean, variance, truth), weights),
        "gaussian_spread": box_mean(variance, weights).sqrt(),
        "gaussian_skill": error.sqrt(),
        "gaussian_spread_skill_ratio": ratio,
        "gaussian_coverage": coverage,
        "gaussian_calibration_error": calibration_error(coverage, (0.5, 0.9)),
    }
    assert_same({name: outputs[name] for name in expected}, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("metric", "members"), [(EnsembleMetric, 5), (EnsembleMetric, 2), (GaussianMetric, 1)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_every_output_is_labelled_and_every_score_exists(metric, members, frames):
    plan = plan_of(members=members, frames=frames)
    ensemble, truth = noise(4, 4, frames, 2, 8, 8), noise(4, frames, 2, 8, 8, seed=1)
    block = Block(
        plan, truth, truth, 0, torch.arange(4), context_of(plan, 4),
        members=ensemble[:members] if members == 2 else noise(5, 4, frames, 2, 8, 8), variance=truth.exp(),
    )  # fmt: skip
    built = metric(plan)
    outputs = measured(built, block)
    sizes = {"trajectory": 4, "lead_time": frames, "channel": 2}
    sizes |= {name: len(axis.values) for name, axis in built.coordinates.items()}
    assert outputs.keys() == built.variables.keys()
    for name, variable in built.variables.items():
        assert tuple(outputs[name].shape) == tuple(sizes[dim] for dim in variable.dims), name
    for score in built.scores.values():
        assert score.variable in outputs
    units = {score.units for name, score in built.scores.items() if "crps" in name}
    assert units == {"m/s", "Pa"}
    assert sizes["stage"] == min(frames, 3)
    assert ("ensemble_log_likelihood" in outputs) == (members == 5)


def test_results_do_not_depend_on_how_rollouts_are_cut():
    plan = plan_of(trajectories=5)
    members, truth = fields(plan)
    whole = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    order = torch.tensor([3, 0, 4, 1, 2])
    blocks = [
        ensemble_block(plan, members[:, n][:, :, first:last], truth[n][:, first:last], first, n)
        for n in order.split([2, 3])
        for first, last in ((4, 6), (0, 1), (1, 4))
    ]
    assert_same(measured(EnsembleMetric(plan), *blocks), whole, rtol=0, atol=1e-13)


def test_metrics_merge_reset_and_pickle():
    plan = plan_of()
    members, truth = fields(plan)
    whole = EnsembleMetric(plan)
    expected = measured(whole, ensemble_block(plan, members, truth))
    one, other, empty = EnsembleMetric(plan), EnsembleMetric(plan), EnsembleMetric(plan)
    one.update(ensemble_block(plan, members[:, :1], truth[:1], numbers=torch.tensor([0])))
    other.update(ensemble_block(plan, members[:, 1:], truth[1:], numbers=torch.tensor([1, 2, 3])))
    for name, reduction in one._reductions.items():  # what torchmetrics does with the states of all processes
        states = torch.stack([getattr(metric, name) for metric in (one, other, empty)])
        setattr(one, name, reduction(states))
    assert_same(one.compute(), expected, rtol=0, atol=1e-13)
    assert_same(pickle.loads(pickle.dumps(whole)).compute(), expected, rtol=0, atol=0)
    whole.reset()
    with pytest.raises(ValueError, match="12 were never measured, the first is frame 0 of trajectory 1"):
        measured(whole, ensemble_block(plan, members[:, ::3], truth[::3], numbers=torch.tensor([0, 3])))
    whole.reset()
    assert_same(measured(whole, ensemble_block(plan, members, truth)), expected, rtol=0, atol=0)


def test_a_stopped_member_makes_its_own_frames_nan_and_no_others():
    plan = plan_of()
    members, truth = fields(plan)
    expected = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    members[3, 2, 3:, 1] = math.nan
    metric = EnsembleMetric(plan)
    outputs = measured(metric, ensemble_block(plan, members, truth))
    stopped = torch.zeros(4, 6, dtype=torch.bool)
    stopped[2, 3:] = True
    for name in ("crps", "spread", "skill", "log_likelihood"):
        values = outputs[f"ensemble_{name}"]
        assert torch.equal(values.isnan(), stopped[..., None].expand(-1, -1, 2))
        assert torch.equal(values[~stopped], expected[f"ensemble_{name}"][~stopped])
    # Pooled over the others.
    survivors = [0, 1, 3]
    histogram = rank_histogram(members, truth)[survivors, 4:].mean((0, 1))
    torch.testing.assert_close(outputs["rank_histogram"][2], histogram, rtol=0, atol=1e-13)
    assert torch.isfinite(outputs["ensemble_spread_skill_ratio"]).all()
    # What judges them is not given where one was stopped: survivors alone would flatter.
    assert outputs["ensemble_calibration_error"].isnan().tolist() == [[False] * 2, [True] * 2, [True] * 2]
    assert outputs["reliability_index"].isnan().any(1).tolist() == [False, True, True]
    assert outputs["ensemble_spread_skill_mismatch"].isnan().any(1).tolist() == [False] * 3 + [True] * 3


def test_all_stopped_is_no_error():
    plan = plan_of()
    members, truth = fields(plan)
    outputs = measured(EnsembleMetric(plan), ensemble_block(plan, members * math.nan, truth))
    assert all(values.isnan().all() for values in outputs.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_outside_the_mask_counts(bad):
    plan = plan_of(masked=True)
    mask = noise(8, 8, seed=5) > 0
    members, truth = fields(plan)
    expected = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth, mask=mask))
    other = torch.where(mask, members, bad)
    assert_same(measured(EnsembleMetric(plan), ensemble_block(plan, other, truth, mask=mask)), expected, rtol=0, atol=0)
    variance = truth.exp()
    expected = measured(GaussianMetric(plan), gaussian_block(plan, members[0], variance, truth, mask=mask))
    variance = torch.where(mask, variance, -1.0)
    found = measured(GaussianMetric(plan), gaussian_block(plan, members[0], variance, truth, mask=mask))
    assert_same(found, expected, rtol=0, atol=0)


def test_weights_count():
    plan = plan_of(WALLS)
    members, truth = fields(plan)
    near = torch.zeros(8, dtype=torch.bool)
    near[:2] = True  # close to a wall, where points are dense and weigh little
    members = torch.where(near, truth + 1, truth + 3 + 0 * members)
    outputs = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    line = WALLS.quadrature_weights(plan.coordinates)[1]
    share = line[:2].sum() / line.sum()
    torch.testing.assert_close(outputs["ensemble_crps"], torch.full((4, 6, 2), float(3 - 2 * share)).double())
    assert share < 0.15


def test_a_collapsed_ensemble_is_a_single_forecast():
    plan = plan_of()
    members, truth = fields(plan)
    members = members[:1].expand_as(members)
    outputs = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    torch.testing.assert_close(outputs["ensemble_crps"], (members[0] - truth).abs().mean((-1, -2)))
    assert outputs["ensemble_spread"].abs().max() == 0
    assert (outputs["ensemble_spread_skill_mismatch"] == 1).all()
    assert outputs["ensemble_coverage"].abs().max() == 0
    assert outputs["rank_histogram"][..., 1:-1].abs().max() == 0


def test_points_where_all_agree_state_no_density_and_are_left_out():
    plan = plan_of()
    members, truth = fields(plan)
    wall = torch.arange(8) == 0
    members, truth = torch.where(wall, 0.0, members), torch.where(wall, 0.0, truth)
    outputs = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    inside = log_likelihood_ensemble(members, truth)[..., 1:].mean((-1, -2))
    torch.testing.assert_close(outputs["ensemble_log_likelihood"], inside)
    agreeing = members[:1].repeat(5, 1, 1, 1, 1, 1)
    outputs = measured(EnsembleMetric(plan), ensemble_block(plan, agreeing, truth))
    assert outputs["ensemble_log_likelihood"].isnan().all()


def test_non_positive_variance_stops_its_frame_only():
    plan = plan_of(members=1)
    mean, truth, variance = noise(4, 6, 2, 8, 8), noise(4, 6, 2, 8, 8, seed=1), torch.ones(4, 6, 2, 8, 8)
    variance[1, 4, 0, 3, 3] = 0
    outputs = measured(GaussianMetric(plan), gaussian_block(plan, mean, variance, truth))
    bad = torch.zeros(4, 6, 2, dtype=torch.bool)
    bad[1, 4] = True
    for name in ("crps", "spread", "skill", "log_likelihood"):
        assert torch.equal(outputs[f"gaussian_{name}"].isnan(), bad)
    assert outputs["gaussian_calibration_error"].isnan().any(1).tolist() == [False, False, True]
    assert torch.isfinite(outputs["gaussian_coverage"]).all()


def test_calibrated_forecasts_are_found_calibrated_and_errors_are_their_size():
    plan = plan_of(members=8, trajectories=32, frames=3, shape=(16, 16))
    members, truth = fields(plan, dtype=torch.float32)
    outputs = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    samples = 32 * 16 * 16
    levels = torch.tensor(ensemble_levels(8), dtype=torch.float64)
    deviation = (levels * (1 - levels) / samples).sqrt()
    assert ((outputs["ensemble_coverage"] - levels).abs() < 4 * deviation).all()
    # Points are independent here, so the error of block means is the binomial one; 32 blocks give it to 13 percent.
    ratio = outputs["ensemble_coverage_standard_error"] / deviation
    assert ratio.mean().item() == pytest.approx(1, abs=0.15)
    assert (outputs["ensemble_calibration_error"] < 4 * 0.5 / math.sqrt(samples)).all()
    assert (outputs["ensemble_spread_skill_mismatch"] < 4 * math.sqrt((2 + 2 / 7) / samples) / 2).all()
    flat = (outputs["rank_histogram"] - 1 / 9).abs() / math.sqrt(1 / 9 * 8 / 9 / samples)
    assert flat.max() < 4.5
    torch.testing.assert_close(outputs["rank_histogram"].sum(-1), torch.ones(3, 2).double())

    gaussian = plan_of(members=1, trajectories=32, frames=3, shape=(16, 16))
    outputs = measured(
        GaussianMetric(gaussian), gaussian_block(gaussian, torch.zeros_like(truth), torch.ones_like(truth), truth)
    )
    levels = torch.arange(1, 10, dtype=torch.float64) / 10
    assert ((outputs["gaussian_coverage"] - levels).abs() < 4.5 * (levels * (1 - levels) / samples).sqrt()).all()
    overconfident = gaussian_block(gaussian, torch.zeros_like(truth), torch.full_like(truth, 0.25), truth)
    outputs = measured(GaussianMetric(gaussian, levels=(0.6827,)), overconfident)
    expected = 2 * stats.norm.cdf(0.5) - 1
    torch.testing.assert_close(
        outputs["gaussian_coverage"], torch.full((3, 2, 1), expected).double(), rtol=0, atol=0.025
    )
    assert outputs["gaussian_spread_skill_ratio"].mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_members_are_promoted(dtype):
    plan = plan_of()
    members, truth = (values.to(dtype) for values in fields(plan, dtype=torch.float32))
    low = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    high = measured(EnsembleMetric(plan), ensemble_block(plan, members.float(), truth.float()))
    assert_same(low, high, rtol=0, atol=0)


@pytest.mark.parametrize("metric", [EnsembleMetric, GaussianMetric])
@pytest.mark.parametrize("grid", [PERIODIC, WALLS])
def test_an_update_brings_no_value_to_the_host(metric, grid):
    # A meta tensor has no values, so whatever asks for one raises.
    plan = plan_of(grid)
    members, truth = (values.to("meta") for values in fields(plan))
    context = Context(tuple(points.to("meta").expand(4, -1) for points in plan.coordinates))
    numbers = torch.empty(4, dtype=torch.long, device="meta")
    block = Block(plan, members[0], truth, 0, numbers, context, members=members, variance=truth)
    built = metric(plan).to("meta")
    built.update(block)
    assert built.crps.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_numbers():
    plan = plan_of(WALLS)
    members, truth = fields(plan)
    expected = measured(EnsembleMetric(plan), ensemble_block(plan, members, truth))
    context = Context(tuple(points.cuda().expand(4, -1) for points in plan.coordinates))
    members, truth = members.cuda(), truth.cuda()
    block = Block(plan, members.mean(0), truth, 0, torch.arange(4, device="cuda"), context, members=members)
    metric = EnsembleMetric(plan).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(block)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same({name: values.cpu() for name, values in metric.compute().items()}, expected, rtol=0, atol=1e-12)


def test_what_cannot_be_measured_is_refused():
    single, plan = plan_of(members=1), plan_of()
    members, truth = fields(plan)
    with pytest.raises(ValueError, match="at least two members but got 1"):
        EnsembleMetric(single)
    with pytest.raises(ValueError, match="range of 5 members"):
        EnsembleMetric(plan, levels=(0.9,))
    with pytest.raises(ValueError, match="levels above 0"):
        GaussianMetric(single, levels=(0.0,))
    bare = Block(plan, truth, truth, 0, torch.arange(4), context_of(plan, 4))
    with pytest.raises(ValueError, match=r"members \(5, 4, 6, 2, 8, 8\) but got None; roll out an ensemble of 5"):
        EnsembleMetric(plan).update(bare)
    with pytest.raises(ValueError, match=r"but got \(4, 4, 6, 2, 8, 8\)"):
        EnsembleMetric(plan).update(ensemble_block(plan, members[:4], truth))
    with pytest.raises(ValueError, match=r"a variance .* but got None"):
        GaussianMetric(plan).update(bare)
    with pytest.raises(ValueError, match=r"a variance .* but got \(4, 6, 1, 8, 8\)"):
        GaussianMetric(plan).update(gaussian_block(plan, truth, truth[:, :, :1], truth))

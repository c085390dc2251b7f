import math
import pickle

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import block_of, context_of, measure, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.evaluation.scores import curves_of, scores_of
from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.correlations import AutocorrelationMetric, StructureFunctionMetric, TwoPointMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.statistics import (
    DensityMetric,
    MomentsMetric,
    central_moments,
    merge_moments,
    moment_statistics,
    optimal_transport,
    pool_frames,
    probability_density,
    relative_difference,
    spread_points,
    wasserstein_distance,
)

SQUARE = Grid((Axis("x", period=2 * math.pi), Axis("y", period=2 * math.pi)))
FIELD = Metadata("field", SQUARE, (Channel("height", "m"), Channel("depth", "m")), frame_interval=0.5, time_units="s")
FLOW = Metadata("flow", SQUARE, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")), frame_interval=0.5)
VORTICES = Metadata("vortices", SQUARE, (Channel("vorticity", "1/s"),), frame_interval=0.5)
WALLS = Metadata("walls", Grid((Axis("x", period=2.0), Axis("y"))), (Channel("u"), Channel("p", "Pa")), 0.5)
METRICS = (MomentsMetric, DensityMetric, TwoPointMetric, StructureFunctionMetric, AutocorrelationMetric)


def random_pair(plan, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, plan.trajectories, plan.frames, len(plan.metadata.channels), *plan.shape)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def wall_plan(trajectories, frames, masked=False, ny=9):
    y = -torch.cos(torch.linspace(0, math.pi, ny, dtype=torch.float64))
    return RolloutPlan(WALLS, trajectories, frames, (torch.arange(8.0) / 4, y), masked=masked)


def assert_same(outputs, expected, rtol=1e-6, atol=1e-12):
    assert outputs.keys() == expected.keys()
    for name, values in outputs.items():
        assert torch.allclose(values.double(), expected[name].double(), rtol=rtol, atol=atol, equal_nan=True), name


# --- moments ----------------------------------------------------------------------------------------------------------


def test_moments_are_those_of_scipy():
    values = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=(2, 3, 2, 16, 9)))
    found = moment_statistics(central_moments(values))
    flat = values.flatten(3).numpy()
    assert np.allclose(found.mean, flat.mean(-1), rtol=1e-12)
    assert np.allclose(found.rms, flat.std(-1), rtol=1e-12)
    assert np.allclose(found.skewness, scipy.stats.skew(flat, axis=-1), rtol=1e-10)
    assert np.allclose(found.flatness, scipy.stats.kurtosis(flat, axis=-1, fisher=False), rtol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_a_mean_far_from_zero_costs_no_digits(dtype, tolerance):
    # In single precision the field itself is coarse: the reference is the field as it was rounded.
    fluctuation = torch.from_numpy(np.random.default_rng(1).exponential(size=(4, 6, 1, 32, 33))) * 1e-2
    values = (1e3 + fluctuation).to(dtype)
    plan = plan_of(Metadata("far", SQUARE, (Channel("temperature"),), 0.1), 4, 6, (32, 33))
    outputs = measure(MomentsMetric(plan), values, values, length=1)
    flat = (values.double() - 1e3).flatten().numpy()
    expected = {
        "mean_truth": 1e3 + flat.mean(),
        "rms_truth": flat.std(),
        "skewness_truth": scipy.stats.skew(flat),
        "flatness_truth": scipy.stats.kurtosis(flat, fisher=False),
    }
    for name, value in expected.items():
        assert outputs[name].item() == pytest.approx(value, rel=tolerance), name
    assert outputs["mean_truth"].item() - 1e3 == pytest.approx(flat.mean(), rel=tolerance)


@given(seed=st.integers(0, 1000), offset=st.floats(-1e4, 1e4), samples=st.integers(1, 6))
@settings(max_examples=25)
def test_merged_moments_are_those_of_all_values_together(seed, offset, samples):
    values = torch.randn(samples, 1, 2, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = offset + values * torch.arange(1.0, samples + 1).reshape(-1, 1, 1, 1)
    together = central_moments(values.permute(1, 2, 0, 3)[None].flatten(3))[0]
    assert torch.allclose(merge_moments(central_moments(values)), together, rtol=1e-9, atol=1e-9)


def test_quadrature_weights_count_and_bodies_do_not():
    plan = wall_plan(1, 1, ny=801)
    context = context_of(plan, 1)
    y = context.coordinates[1][0]
    values = y.expand(1, 1, 1, 8, -1).clone()
    # y on (-1, 1): variance 1/3, fourth moment 1/5. The trapezoid rule leaves 1e-5.
    found = moment_statistics(central_moments(values, space_weights(WALLS.grid, context)))
    assert [each.item() for each in found] == pytest.approx([0.0, math.sqrt(1 / 3), 0.0, 9 / 5], abs=1e-4)
    mask = (y < 0.5).expand(1, 8, -1)
    values[:, :, :, ~mask[0]] = math.nan
    masked = moment_statistics(central_moments(values, space_weights(WALLS.grid, context._replace(mask=mask))))
    assert masked.mean.item() == pytest.approx(-0.25, abs=5e-3)  # the edge of the body lies between points


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_never_varies_has_no_skewness(dtype):
    plan = plan_of(FIELD, 2, 3, (5, 7))
    values = torch.full((2, 3, 2, 5, 7), 0.1, dtype=dtype)
    outputs = measure(MomentsMetric(plan), values, values, length=1)
    assert outputs["rms_truth"].tolist() == [0.0, 0.0]
    assert outputs["skewness_truth"].isnan().all()
    assert outputs["rms_relative_difference"].tolist() == [0.0, 0.0]


def test_error_bars_of_moments_cover_the_known_moments_of_a_normal_density():
    plan = plan_of(FIELD, 40, 2, (16, 16))
    prediction, target = random_pair(plan, 3)
    outputs = measure(MomentsMetric(plan), 2 * prediction + 1, target, batch=8)
    for name, expected in (("mean", 1.0), ("rms", 2.0), ("skewness", 0.0), ("flatness", 3.0)):
        error = outputs[f"{name}_prediction_standard_error"]
        assert ((outputs[f"{name}_prediction"] - expected).abs() < 4 * error).all(), name
    samples = 40 * 2 * 256
    # Standard errors of the moments of independent normal samples; 40 blocks know them to within 11 %.
    for name, expected in (("mean", 2.0), ("rms", 2 / math.sqrt(2)), ("skewness", math.sqrt(6)), ("flatness", 24**0.5)):
        found = outputs[f"{name}_prediction_standard_error"] * math.sqrt(samples)
        assert found.tolist() == pytest.approx([expected] * 2, rel=0.45), name
    assert outputs["rms_relative_difference"].tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    assert outputs["mean_relative_difference"].tolist() == pytest.approx([1.0, 1.0], abs=0.05)


def test_relative_differences_are_zero_where_equal_and_infinite_where_the_truth_is_zero():
    found = relative_difference(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 0.0, -2.0]))
    assert found.tolist() == [0.0, math.inf, 2.5]


# --- densities and distances ------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), sizes=st.tuples(st.integers(1, 30), st.integers(1, 30)), weighted=st.booleans())
@settings(max_examples=40)
def test_the_wasserstein_distance_is_that_of_scipy(seed, sizes, weighted):
    random = np.random.default_rng(seed)
    # Rounded values meet: ties must not matter.
    first, second = (random.normal(size=size).round(1) for size in sizes)
    weights = [random.uniform(0.1, 2.0, size=size) if weighted else None for size in sizes]
    found = wasserstein_distance(
        torch.from_numpy(first),
        torch.from_numpy(second),
        *(None if w is None else torch.from_numpy(w) for w in weights),
    )
    assert found.item() == pytest.approx(scipy.stats.wasserstein_distance(first, second, *weights), rel=1e-9, abs=1e-12)


def test_the_wasserstein_distance_of_normal_densities():
    grid = torch.from_numpy(scipy.stats.norm.ppf((np.arange(20000) + 0.5) / 20000))
    # |s - 1| E|z| for a stretch by s, from quantiles; the tails beyond the last quantile are 1e-4 of it.
    assert wasserstein_distance(3 * grid, grid).item() == pytest.approx(2 * math.sqrt(2 / math.pi), rel=1e-3)
    assert wasserstein_distance(grid - 1, grid).item() == pytest.approx(1.0, rel=1e-12)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_potentials_prove_the_distance(seed):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 3, 50, generator=generator, dtype=torch.float64)
    weights = torch.rand(3, 50, generator=generator, dtype=torch.float64)
    moved = optimal_transport(first, second + 0.3, weights)
    shares = weights / weights.sum(-1, keepdim=True)
    gained = (shares * moved.first_potential).sum(-1) - moved.second_potential.mean(-1)
    assert torch.allclose(gained, moved.distance, rtol=1e-10)
    # Kantorovich and Rubinstein: the best function of slope one at most.
    points, order = torch.cat([first, second + 0.3], -1).sort(-1)
    potential = torch.cat([moved.first_potential, moved.second_potential], -1).gather(-1, order)
    assert (potential.diff(dim=-1).abs() <= points.diff(dim=-1) + 1e-12).all()


def test_samples_without_weight_may_be_anything():
    values, other = torch.tensor([1.0, math.nan, 3.0]), torch.tensor([2.0, 4.0])
    weights = torch.tensor([1.0, 0.0, 1.0])
    assert wasserstein_distance(values, other, weights).item() == pytest.approx(1.0)
    edges = torch.tensor([0.0, 2.0, 4.0])
    assert probability_density(values, edges, weights).tolist() == [0.25, 0.25]
    assert probability_density(values, edges).isnan().all()
    for bad in (lambda: wasserstein_distance(values, other, other), lambda: probability_density(values, edges, other)):
        with pytest.raises(ValueError, match="one weight for each of the samples"):
            bad()


@given(seed=st.integers(0, 1000), weighted=st.booleans())
@settings(max_examples=25)
def test_densities_are_those_of_numpy(seed, weighted):
    random = np.random.default_rng(seed)
    values, edges = random.normal(size=(3, 40)).round(1), np.linspace(-2.0, 1.0, 7)
    weights = random.uniform(0.0, 1.0, size=(3, 40)) if weighted else np.ones((3, 40))
    found = probability_density(torch.from_numpy(values), torch.from_numpy(edges), torch.from_numpy(weights))
    for row in range(3):
        counts, _ = np.histogram(values[row], edges, weights=weights[row])
        assert np.allclose(found[row], counts / weights[row].sum() / np.diff(edges), rtol=1e-12)


@pytest.mark.parametrize("edges", [[0.0], [0.0, 0.0], [1.0, 0.0], [0.0, math.nan]])
def test_edges_must_increase(edges):
    with pytest.raises(ValueError, match="two edges that increase"):
        probability_density(torch.zeros(3), torch.tensor(edges))


def test_the_density_of_normal_samples_is_normal_within_its_error_bars():
    plan = plan_of(VORTICES, 20, 4, (32, 32))
    prediction, target = random_pair(plan, 5)
    outputs = measure(
        DensityMetric(plan, bins=20, limits={"vorticity": (-3, 3)}), prediction, target, batch=5, length=2
    )
    edges = np.linspace(-3, 3, 21)
    assert outputs["density_value"].flatten().tolist() == pytest.approx(((edges[1:] + edges[:-1]) / 2).tolist())
    expected = torch.from_numpy(np.diff(scipy.stats.norm.cdf(edges)) / np.diff(edges))
    error = outputs["density_truth_standard_error"].flatten()
    assert ((outputs["density_truth"].flatten() - expected).abs() < 5 * error).all()
    # Binomial errors of 81920 independent samples; 20 blocks know them to within 16 %.
    binomial = (expected / 0.3 / (20 * 4 * 1024)).sqrt() * (1 - 0.3 * expected).sqrt()
    assert (error / binomial).mean().item() == pytest.approx(1.0, rel=0.2)
    outside = 2 * scipy.stats.norm.sf(3)
    assert outputs["density_outside_truth"].item() == pytest.approx(outside, rel=0.3)


def test_the_metric_keeps_all_points_where_they_are_few_and_the_distance_is_exact():
    plan = plan_of(FIELD, 3, 4, (6, 5))
    prediction, target = random_pair(plan, 7)
    prediction = 1e3 + 1.5 * prediction
    metric = DensityMetric(plan)
    outputs = measure(metric, prediction, 1e3 + target, length=3)
    assert (metric.points.numel(), metric.every) == (30, 1)
    for channel in range(2):
        one, other = prediction[:, :, channel].flatten(), 1e3 + target[:, :, channel].flatten()
        expected = scipy.stats.wasserstein_distance(one, other)
        assert outputs["wasserstein_distance"][channel].item() == pytest.approx(expected, rel=1e-9)
        relative = expected / other.std(correction=0).item()
        assert outputs["wasserstein_relative"][channel].item() == pytest.approx(relative, rel=1e-9)
        centers = outputs["density_value"][channel]
        width = (centers[1] - centers[0]).item()
        low, high = other.min().item(), other.max().item()
        assert 80 * width == pytest.approx(1.5 * (high - low), rel=1e-9)
        edges = torch.cat([centers - width / 2, centers[-1:] + width / 2])
        counts = torch.from_numpy(np.histogram(one.numpy(), edges.numpy())[0])
        assert torch.allclose(outputs["density_prediction"][channel] * width * one.numel(), counts.double(), atol=1e-6)
        inside = counts.sum().item() / one.numel()
        assert outputs["density_outside_prediction"][channel].item() == pytest.approx(1 - inside, abs=1e-9)
        assert outputs["density_outside_truth"][channel].item() == pytest.approx(0.0, abs=1e-9)


def test_the_error_bar_of_a_distance_is_that_of_the_mean_shift():
    # Every trajectory of the prediction is shifted by its own positive amount: the distance is the mean shift.
    plan = plan_of(VORTICES, 12, 2, (8, 8))
    target = torch.rand(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = target.expand(12, 2, -1, -1, -1)
    shifts = torch.linspace(0.5, 3.0, 12, dtype=torch.float64)
    outputs = measure(DensityMetric(plan), target + shifts.reshape(-1, 1, 1, 1, 1), target)
    assert outputs["wasserstein_distance"].item() == pytest.approx(shifts.mean().item(), rel=1e-9)
    expected = shifts.std().item() / math.sqrt(12)
    assert outputs["wasserstein_distance_standard_error"].item() == pytest.approx(expected, rel=1e-9)


def test_an_outlier_spoils_neither_bins_nor_distance():
    plan = plan_of(VORTICES, 2, 2, (8, 8))
    prediction, target = random_pair(plan, 2)
    calm = measure(DensityMetric(plan), prediction, target)
    prediction[0, 1, 0, 3, 3] += 1e6
    wild = measure(DensityMetric(plan), prediction, target)
    assert torch.equal(calm["density_value"], wild["density_value"])
    assert wild["density_outside_prediction"].item() >= 1 / 256
    assert wild["wasserstein_distance"].item() == pytest.approx(1e6 / 256, rel=1e-3)


def test_large_rollouts_are_sampled_at_the_same_places_in_prediction_and_truth():
    plan = plan_of(VORTICES, 4, 12, (32, 32))
    metric = DensityMetric(plan, samples=4096)
    assert (metric.points.numel(), metric.every) == (256, 3)
    prediction, target = random_pair(plan, 9)
    outputs = measure(metric, prediction, target, batch=3, length=5)
    one, other = (values[:, ::3].flatten(2)[..., metric.points].flatten().numpy() for values in (prediction, target))
    expected = scipy.stats.wasserstein_distance(one, other)
    assert outputs["wasserstein_distance"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("frames", [1, 2, 7, 100, 1000])
def test_the_memory_of_samples_is_bounded_whatever_the_number_of_frames(frames):
    metric = DensityMetric(plan_of(VORTICES, 4, frames, (32, 32)), samples=8192)
    count = metric.samples_truth.numel()
    # As many as are asked for, but for the rounding to whole frames.
    assert min(4096 * frames, 8192) * 0.8 <= count <= 8192 + 4 * metric.points.numel()


def test_weights_of_a_stretched_axis_count_in_the_density():
    plan = wall_plan(2, 2, masked=True)
    context = context_of(plan, 2, mask=torch.ones(2, 8, 9, dtype=torch.bool))
    context.mask[:, 2:4, :3] = False
    prediction, target = random_pair(plan, 4)
    prediction[:, :, :, 2:4, :3] = math.nan
    outputs = measure(DensityMetric(plan), prediction, target, length=1, context=context)
    weights = space_weights(WALLS.grid, context).expand(2, 2, 1, 8, 9).flatten().numpy()
    kept = weights > 0
    for channel in range(2):
        one, other = (values[:, :, channel].flatten().numpy()[kept] for values in (prediction, target))
        expected = scipy.stats.wasserstein_distance(one, other, weights[kept], weights[kept])
        assert outputs["wasserstein_distance"][channel].item() == pytest.approx(expected, rel=1e-9)


def test_a_constant_truth_has_bins():
    plan = plan_of(VORTICES, 1, 1, (4, 4))
    outputs = measure(DensityMetric(plan, bins=2), torch.full((1, 1, 1, 4, 4), 5.25), torch.full((1, 1, 1, 4, 4), 5.0))
    assert outputs["density_value"].flatten().tolist() == [4.75, 5.25]
    assert outputs["density_prediction"].flatten().tolist() == [0.0, 2.0]
    assert outputs["wasserstein_distance"].item() == pytest.approx(0.25)
    assert outputs["wasserstein_relative"].item() == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 0}, "at least one bin and sample"),
        ({"samples": 0}, "at least one bin and sample"),
        ({"limits": {"pressure": (0, 1)}}, "limits of channels"),
        ({"limits": {"vorticity": (1, 0)}}, "a lowest and a highest edge"),
        ({"limits": {"vorticity": (0, 1, 2)}}, "a lowest and a highest edge"),
    ],
)
def test_bad_arguments_of_a_density(options, message):
    with pytest.raises(ValueError, match=message):
        DensityMetric(plan_of(VORTICES, 1, 1, (4, 4)), **options)


@pytest.mark.parametrize(("shape", "count"), [((64,), 16), ((64, 48), 60), ((128, 128), 1000), ((16, 16, 32), 200)])
def test_spread_points_are_evenly_spread_and_all_different(shape, count):
    points = spread_points(shape, count)
    assert points.numel() == points.unique().numel() == count
    for axis, index in enumerate(np.unravel_index(points.numpy(), shape)):
        # A random set would leave quarters of an axis with deviations of sqrt(count / 4).
        quarters = np.bincount(4 * index // shape[axis], minlength=4)
        assert np.abs(quarters - count / 4).max() <= 0.06 * count + 1
    with pytest.raises(ValueError, match="at least one point"):
        spread_points(shape, 0)


def test_pooled_frames_leave_out_what_is_not_finite():
    values = torch.tensor([[1.0, 3.0], [math.nan, math.nan], [5.0, math.inf]])
    mean, blocks = pool_frames(values, torch.tensor([[0, 0], [1, 1], [2, 2]]))
    assert (mean.item(), blocks.tolist()) == (3.0, [2.0, 5.0])
    nothing, none = pool_frames(values[1:2], torch.tensor([[0, 1]]))
    assert nothing.isnan()
    assert len(none) == 0


# --- what all metrics of statistics promise ---------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("metadata", [FIELD, FLOW, VORTICES], ids=lambda metadata: metadata.name)
def test_results_do_not_depend_on_batches_blocks_or_processes(metric, metadata):
    plan = plan_of(metadata, 5, 6, (8, 9))
    prediction, target = random_pair(plan, 11)
    whole = metric(plan)
    expected = measure(whole, prediction, target)
    assert_same(measure(metric(plan), prediction, target, batch=2, length=4), expected)
    # Three processes, one of which has nothing to do; a metric comes back from another process pickled.
    parts = [metric(plan) for _ in range(3)]
    for part, numbers in zip(parts, ([0, 3], [1, 2, 4], []), strict=True):
        if numbers:
            part.update(
                block_of(plan, prediction[numbers], target[numbers], 0, numbers, context_of(plan, len(numbers)))
            )
    joined = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        joined.merge_state(part)
    assert_same(joined.compute(), expected)
    whole.reset()
    assert_same(measure(whole, prediction, target, length=1), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_a_stopped_trajectory_leaves_the_rest_finite_and_the_differences_open(metric):
    plan = plan_of(FIELD, 9, 8, (8, 8))
    prediction, target = random_pair(plan, 13)
    expected = measure(metric(plan), prediction, target)
    prediction[2, 1:] = math.nan
    outputs = measure(metric(plan), prediction, target, batch=4, length=3)
    for name, values in outputs.items():
        if "truth" in name:
            assert torch.equal(values, expected[name].to(values)) or torch.allclose(values, expected[name]), name
        elif "difference" in name or "distance" in name or "relative" in name:
            assert values.isnan().all(), name
        elif "error" not in name:
            assert torch.isfinite(values).all(), name


@pytest.mark.parametrize("metric", METRICS)
def test_a_prediction_that_is_stopped_everywhere_is_nan_and_no_failure(metric):
    plan = plan_of(FIELD, 3, 4, (8, 8))
    prediction, target = random_pair(plan, 13)
    outputs = measure(metric(plan), torch.full_like(prediction, math.nan), target)
    for name, values in outputs.items():
        if name.endswith(("prediction", "difference", "distance")) and not {"censored", "outside"} & set(
            name.split("_")
        ):
            assert values.isnan().all(), name


@pytest.mark.parametrize("metric", METRICS)
def test_what_was_never_measured_is_missed(metric):
    plan = plan_of(FIELD, 3, 8, (8, 8))
    prediction, target = random_pair(plan)
    partial = metric(plan)
    partial.update(block_of(plan, prediction[:2], target[:2]))
    with pytest.raises(ValueError, match=r"Expected .* first\."):
        partial.compute()


@pytest.mark.parametrize("metric", METRICS)
def test_an_update_needs_no_values(metric):
    # Tensors on the meta device have shapes but no values: whatever looks at one fails.
    for plan in (plan_of(FIELD, 3, 8, (8, 8)), plan_of(FLOW, 3, 8, (8, 8)), wall_plan(3, 8)):
        measured = metric(plan).to("meta")
        values = torch.empty(2, 4, len(plan.metadata.channels), *plan.shape, device="meta")
        context = Context(tuple(points.to("meta") for points in context_of(plan, 2).coordinates))
        measured.update(block_of(plan, values, values, 2, torch.empty(2, dtype=torch.long, device="meta"), context))


@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_is_measured_in_single(metric):
    plan = plan_of(FIELD, 4, 4, (8, 8))
    # Cubes and squares of these overflow in float16.
    prediction, target = (100 * random_pair(plan, 1)).half()
    assert_same(
        measure(metric(plan), prediction, target), measure(metric(plan), prediction.float(), target.float()), rtol=1e-9
    )


def test_labels_fit_into_one_report():
    for plan in (
        plan_of(FIELD, 4, 8, (8, 6)),
        plan_of(FLOW, 4, 8, (8, 6)),
        plan_of(VORTICES, 4, 8, (8, 8)),
        wall_plan(2, 3),
    ):
        prediction, target = random_pair(plan)
        metrics = {metric.__name__: metric(plan) for metric in METRICS}
        for metric in metrics.values():
            assert measure(metric, prediction, target).keys() == metric.variables.keys()
        curves = curves_of(metrics, plan)
        scores = scores_of(metrics, curves)
        assert set(scores) == {
            "rms_relative_difference", "skewness_difference", "flatness_difference", "wasserstein_relative",
            "integral_length_relative_difference", "structure_function_distance", "integral_time_relative_difference",
        }  # fmt: skip
        assert all(score["value"] is not None and score["spread"] is not None for score in scores.values())
    assert DensityMetric(plan_of(FIELD, 1, 1, (4, 4))).variables["density_truth"].units == "1/m"

import math

import numpy as np
import pytest
import torch
from helpers import block_of, context_of, measure, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.correlations import (
    AutocorrelationMetric,
    StructureFunctionMetric,
    TwoPointMetric,
    correlation_of_pairs,
    increment_spectra,
    integral_scale,
    lagged_moments,
    line_covariance,
    line_spectra,
    structure_function_distance,
    structure_functions,
)
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.spectral import squared_magnitude

LENGTH = 2 * math.pi
LINE = Metadata("line", Grid((Axis("x", period=LENGTH, units="m"),)), (Channel("height"),), 0.25)
SQUARE = Grid((Axis("x", period=LENGTH), Axis("y", period=LENGTH)))
FIELD = Metadata("field", SQUARE, (Channel("height", "K"), Channel("depth", "K")), 0.25, time_units="s")
FLOW = Metadata("flow", SQUARE, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s"), Channel("dye")), 0.25)
VORTICES = Metadata("vortices", SQUARE, (Channel("vorticity"),), 0.25)
WALLS = Grid((Axis("x", period=LENGTH), Axis("y"), Axis("z", period=1.0)))
PIPE = Metadata("pipe", WALLS, tuple(Channel(f"velocity_{axis}") for axis in "xyz"), 0.25)


def waves(plan, function):
    """``function(*points)`` for one trajectory and frame of one channel ``(1, 1, 1, *space)``."""
    return function(*torch.meshgrid(*plan.coordinates, indexing="ij"))[None, None, None]


def pipe_plan(trajectories=2, frames=3, shape=(8, 9, 6)):
    grid = Grid((Axis("x", period=LENGTH), Axis("z", period=1.0)))
    x, z = grid.uniform_coordinates((shape[0], shape[2]))
    y = -torch.cos(torch.linspace(0, math.pi, shape[1], dtype=torch.float64))
    return RolloutPlan(PIPE, trajectories, frames, (x, y, z))


def random_rollouts(plan, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, plan.trajectories, plan.frames, len(plan.metadata.channels), *plan.shape)
    # A mean and a skewed density: neither may leak into the statistics.
    return 3 + torch.rand(*shape, generator=generator, dtype=torch.float64).square()


def wall_weights(plan):
    """Shares of the points along y, trapezoid rule, for ``(..., x, y, z)``."""
    y = plan.coordinates[1].numpy()
    weights = np.zeros_like(y)
    weights[1:] += np.diff(y) / 2
    weights[:-1] += np.diff(y) / 2
    return (weights / weights.sum())[:, None]


# --- two-point correlations -------------------------------------------------------------------------------------------


@given(shape=st.lists(st.integers(2, 9), min_size=1, max_size=3), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_covariances_are_those_of_direct_sums(shape, seed):
    field = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = tuple(range(len(shape)))
    lines = line_spectra(squared_magnitude(torch.fft.rfftn(field, dim=axes, norm="forward")), shape)
    fluctuation = field - field.mean()
    for axis, (size, line) in enumerate(zip(shape, lines, strict=True)):
        direct = [(fluctuation * fluctuation.roll(-lag, axis)).mean().item() for lag in range(size // 2 + 1)]
        assert line_covariance(line, size).tolist() == pytest.approx(direct, abs=1e-12)
        assert line.sum().item() == pytest.approx(fluctuation.square().mean().item(), abs=1e-12)


def test_the_mean_does_not_drown_the_fluctuation():
    x = torch.arange(16, dtype=torch.float64) * (LENGTH / 16)
    field = 1e6 + 1e-3 * torch.cos(2 * x)
    (line,) = line_spectra(squared_magnitude(torch.fft.rfft(field, norm="forward")), (16,))
    assert line_covariance(line, 16)[0].item() == pytest.approx(0.5e-6, rel=1e-6)


@pytest.mark.parametrize("wave", [(1, 0), (0, 3), (2, 1), (3, -2), (5, 5)])
def test_a_single_wave_at_any_angle(wave):
    plan = plan_of(VORTICES, 1, 2, (33, 64))
    value = waves(plan, lambda x, y: 7 + torch.cos(wave[0] * x + wave[1] * y + 0.3)).expand(1, 2, -1, -1, -1)
    outputs = measure(TwoPointMetric(plan), 2 * value, value)
    for place, (name, number) in enumerate(zip("xy", wave, strict=True)):
        separations = TwoPointMetric(plan).coordinates[f"separation_{name}"].values
        expected = torch.cos(number * separations)
        for side in ("prediction", "truth"):
            found = outputs[f"two_point_correlation_{name}_{side}"].flatten()
            assert torch.allclose(found, expected, atol=1e-10)
            length = outputs[f"integral_length_{side}"].flatten()[place].item()
            censored = outputs[f"integral_length_censored_{side}"].flatten()[place].item()
            # Constant along the axis: the correlation stays one to half a period. Else the integral of a cosine to its
            # first zero, 1 / k, by the trapezoid rule.
            expected_length = separations[-1].item() if number == 0 else 1 / abs(number)
            assert length == pytest.approx(expected_length, rel=0.1 if abs(number) > 2 else 0.02)
            assert censored == (number == 0)
    assert outputs["integral_length_relative_difference"].flatten().tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


def test_random_phases_give_the_cosine_sum_of_the_spectrum():
    plan = plan_of(LINE, 1, 1, (128,))
    generator = torch.Generator().manual_seed(3)
    numbers = torch.arange(1, 30, dtype=torch.float64)
    amplitudes, phases = numbers ** (-5 / 6), LENGTH * torch.rand(29, generator=generator, dtype=torch.float64)
    (x,) = plan.coordinates
    field = (amplitudes * torch.cos(numbers * x[:, None] + phases)).sum(-1)[None, None, None]
    found = measure(TwoPointMetric(plan), field, field)["two_point_correlation_x_truth"].flatten()
    covariance = (amplitudes.square() * torch.cos(numbers * x[:65, None])).sum(-1)
    assert torch.allclose(found, covariance / covariance[0], atol=1e-10)


def test_in_a_channel_the_profile_is_taken_off_and_the_weights_of_the_walls_count():
    plan = pipe_plan()
    prediction, target = random_rollouts(plan)
    prediction += torch.linspace(0, 50, 9, dtype=torch.float64)[:, None]
    outputs = measure(TwoPointMetric(plan), prediction, target, batch=1, length=2)
    weights = wall_weights(plan)
    for side, values in (("prediction", prediction.numpy()), ("truth", target.numpy())):
        fluctuation = values - values.mean((-3, -1), keepdims=True)
        for axis, name, size in ((-3, "x", 8), (-1, "z", 6)):
            products = [fluctuation * np.roll(fluctuation, -lag, axis) for lag in range(size // 2 + 1)]
            direct = np.array([(each * weights).sum(-2).mean((0, 1, -2, -1)) for each in products])
            found = outputs[f"two_point_correlation_{name}_{side}"]
            assert np.allclose(found, (direct / direct[0]).T, atol=1e-10)
    assert "two_point_correlation_y_truth" not in outputs
    assert outputs["integral_length_truth"].shape == (3, 2)


def test_error_bars_of_the_correlation_cover_the_truth():
    # White noise is correlated with itself alone; 32 trajectories give 32 independent blocks.
    plan = plan_of(FIELD, 32, 1, (16, 16))
    prediction, target = torch.randn(
        2, 32, 1, 2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    outputs = measure(TwoPointMetric(plan), prediction, target)
    found, error = outputs["two_point_correlation_x_truth"], outputs["two_point_correlation_x_truth_standard_error"]
    # Taking off the mean of 256 points leaves a correlation of -1/255.
    assert ((found[:, 1:] + 1 / 255).abs() < 4.5 * error[:, 1:]).all()
    # Below half a period each pair of points counts once.
    expected = 1 / math.sqrt(32 * 256)
    assert error[:, 1:8].mean().item() == pytest.approx(expected, rel=0.15)
    assert (error[:, 0] < 1e-12).all()


# --- integral scales --------------------------------------------------------------------------------------------------


def test_integral_scales_of_known_correlations():
    separations = torch.linspace(0, 8, 801, dtype=torch.float64)
    curves = torch.stack([torch.exp(-separations), torch.cos(separations), (1 - separations / 3).clamp(-1)])
    found = integral_scale(curves, separations)
    assert found.value.tolist() == pytest.approx([1 - math.exp(-8), 1.0, 1.5], rel=1e-4)
    assert found.censored.tolist() == [True, False, False]


def test_integral_scales_end_where_nothing_was_measured():
    nan = math.nan
    curves = torch.tensor([[1.0, 0.5, nan, 0.5], [1.0, nan, nan, nan], [nan, nan, nan, nan], [1.0, 0.0, 5.0, 5.0]])
    found = integral_scale(curves, torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert found.value.tolist() == pytest.approx([0.75, 0.0, nan, 0.5], nan_ok=True)
    assert found.censored.tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="4 separations"):
        integral_scale(curves, torch.ones(3))


@given(number=st.integers(1, 40), scale=st.floats(0.01, 100.0))
@settings(max_examples=25)
def test_integral_scales_follow_the_units(number, scale):
    separations = torch.linspace(0, 1, 101, dtype=torch.float64)
    curve = torch.cos(number * separations)
    plain, scaled = integral_scale(curve, separations), integral_scale(curve, scale * separations)
    assert scaled.value.item() == pytest.approx(scale * plain.value.item(), rel=1e-9)
    assert bool(plain.censored) == bool(scaled.censored) == (number < math.pi / 2)


# --- structure functions ----------------------------------------------------------------------------------------------


@given(size=st.integers(2, 24), lines=st.integers(1, 4), seed=st.integers(0, 1000), weighted=st.booleans())
@settings(max_examples=40)
def test_structure_functions_are_those_of_direct_sums(size, lines, seed, weighted):
    generator = torch.Generator().manual_seed(seed)
    values = 10 + torch.rand(lines, size, generator=generator, dtype=torch.float64).square()
    weights = torch.rand(lines, generator=generator, dtype=torch.float64) + 0.1
    weights = weights if weighted else torch.ones_like(weights)
    weights = weights / weights.sum()
    found = structure_functions(increment_spectra(values, weights if weighted else None), size)
    for order, row in ((2, found[0]), (3, found[1])):
        increments = [values.roll(-lag, -1) - values for lag in range(size // 2 + 1)]
        direct = [(weights * (each**order).mean(-1)).sum().item() for each in increments]
        assert row.tolist() == pytest.approx(direct, abs=1e-12)


@pytest.mark.parametrize("make_plan", [lambda: plan_of(FLOW, 2, 3, (8, 9)), pipe_plan], ids=["flow", "pipe"])
def test_flows_are_measured_by_their_longitudinal_increments(make_plan):
    plan = make_plan()
    prediction, target = random_rollouts(plan)
    outputs = measure(StructureFunctionMetric(plan, every=1), prediction, target, batch=1, length=2)
    weights = wall_weights(plan) if plan.metadata is PIPE else np.ones((1, 1))
    for axis, name in enumerate(plan.metadata.grid.axis_names):
        if not plan.periodic[axis]:
            assert f"second_order_structure_function_{name}_truth" not in outputs
            continue
        component = target[:, :, axis].numpy()
        place = component.ndim - len(plan.shape) + axis
        for order, word in ((2, "second"), (3, "third")):
            powers = [
                (np.roll(component, -lag, place) - component) ** order for lag in range(plan.shape[axis] // 2 + 1)
            ]
            direct = [(each * weights).mean() * weights.size / weights.sum() for each in powers]
            found = outputs[f"{word}_order_structure_function_{name}_truth"]
            assert found.tolist() == pytest.approx(direct, abs=1e-12)


def test_other_data_are_measured_channel_by_channel_and_agree_with_the_correlation():
    plan = plan_of(FIELD, 2, 2, (12, 8))
    prediction, target = random_rollouts(plan)
    increments = StructureFunctionMetric(plan, every=1)
    outputs = measure(increments, prediction, target)
    correlations = measure(TwoPointMetric(plan), prediction, target)
    variance = (target - target.mean((-2, -1), keepdim=True)).square().mean((0, 1, -2, -1))
    for name in "xy":
        found = outputs[f"second_order_structure_function_{name}_truth"]
        expected = 2 * variance[:, None] * (1 - correlations[f"two_point_correlation_{name}_truth"])
        assert torch.allclose(found, expected, atol=1e-12)
    assert outputs["structure_function_distance"].shape == (2, 2)
    assert increments.variables["second_order_structure_function_x_truth"].units == "(K)^2"
    assert increments.variables["third_order_structure_function_x_truth"].units == "(K)^3"


def test_the_velocity_of_vortices_is_found_from_their_vorticity():
    plan = plan_of(VORTICES, 1, 1, (32, 24))
    vorticity = waves(plan, lambda x, y: 2 * torch.cos(x) * torch.cos(y))
    outputs = measure(StructureFunctionMetric(plan), 2 * vorticity, vorticity)
    # The velocity is (-cos x sin y, sin x cos y): half of 1 - cos r along both axes.
    for name, size in (("x", 32), ("y", 24)):
        separations = torch.arange(size // 2 + 1, dtype=torch.float64) * (LENGTH / size)
        expected = (1 - torch.cos(separations)) / 2
        assert torch.allclose(outputs[f"second_order_structure_function_{name}_truth"], expected, atol=1e-10)
        assert torch.allclose(outputs[f"second_order_structure_function_{name}_prediction"], 4 * expected, atol=1e-10)
        assert outputs[f"third_order_structure_function_{name}_truth"].abs().max() < 1e-10
    assert outputs["structure_function_distance"].tolist() == pytest.approx([math.log10(4)] * 2, rel=1e-9)


def test_small_increments_of_a_smooth_field_keep_their_digits():
    plan = plan_of(LINE, 1, 1, (1024,))
    (x,) = plan.coordinates
    wave = torch.sin(x)[None, None, None].float()
    found = measure(StructureFunctionMetric(plan), wave, wave)["second_order_structure_function_x_truth"].flatten()
    # One spacing: 2e-5 of the variance. Round-off of a field in single precision is 1e-7 of it.
    expected = 2 * math.sin(LENGTH / 1024 / 2) ** 2
    assert found[1].item() == pytest.approx(expected, rel=1e-5)


def test_some_frames_are_measured_whatever_the_blocks():
    plan = plan_of(LINE, 3, 10, (8,))
    prediction, target = random_rollouts(plan)
    expected = measure(StructureFunctionMetric(plan_of(LINE, 3, 4, (8,)), every=1), prediction[:, ::3], target[:, ::3])
    for length in (1, 2, 4, 10):
        outputs = measure(StructureFunctionMetric(plan, every=3), prediction, target, length=length)
        for side in ("prediction", "truth"):
            name = f"third_order_structure_function_x_{side}"
            assert torch.allclose(outputs[name], expected[name], rtol=1e-9, atol=1e-14)


def test_the_distance_of_structure_functions_counts_octaves_alike():
    truth = torch.arange(1.0, 34.0)
    prediction = truth.clone()
    prediction[[3, 5, 6, 7, 9, 31]] = 1e6  # between the octaves
    prediction[4] *= 10
    assert structure_function_distance(prediction, truth).item() == pytest.approx(1 / math.sqrt(6), rel=1e-6)


# --- correlations in time ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), frames=st.integers(2, 12), missing=st.floats(0.0, 0.8))
@settings(max_examples=40)
def test_lagged_moments_are_those_of_direct_sums(seed, frames, missing):
    random = np.random.default_rng(seed)
    series = random.normal(size=(2, frames))
    series[random.uniform(size=series.shape) < missing] = np.nan
    starts = (random.uniform(size=frames) < 0.7).astype(float)
    found = lagged_moments(torch.from_numpy(series), torch.from_numpy(starts))
    for lag in range(frames):
        first, second = series[:, : frames - lag], series[:, lag:]
        there = np.where(np.isfinite(first) & np.isfinite(second), starts[: frames - lag], 0.0)
        a, b = np.nan_to_num(first), np.nan_to_num(second)
        direct = np.stack([(there * each).sum(-1) for each in (a * b, a * a, b * b, np.ones_like(a))], -1)
        assert np.allclose(found[..., lag], direct, atol=1e-10)
    correlation = correlation_of_pairs(found)
    assert (correlation.nan_to_num().abs() <= 1).all()
    assert torch.equal(correlation.isnan(), found[..., 3, :] < 0.5)


def travelling(plan, frequency, amplitude=1.0):
    """Waves of eight phases that cancel in the mean over trajectories."""
    (x,) = plan.coordinates
    time = torch.arange(plan.frames, dtype=torch.float64)[:, None] * plan.metadata.frame_interval
    phases = torch.arange(plan.trajectories, dtype=torch.float64)[:, None, None] * (LENGTH / plan.trajectories)
    return (5 + amplitude * torch.cos(x - frequency * time + phases))[:, :, None]


def test_a_travelling_wave_is_a_cosine_in_time():
    plan = plan_of(LINE, 8, 40, (16,))
    metric = AutocorrelationMetric(plan)
    outputs = measure(metric, travelling(plan, 0.5, 3.0), travelling(plan, 1.0), batch=3, length=7)
    lags = metric.coordinates["time_lag"].values
    assert lags.tolist() == pytest.approx([0.25 * frame for frame in range(40)])
    assert torch.allclose(outputs["autocorrelation_prediction"].flatten(), torch.cos(0.5 * lags), atol=1e-9)
    assert torch.allclose(outputs["autocorrelation_truth"].flatten(), torch.cos(lags), atol=1e-9)
    # The integral of a cosine to its first zero, by the trapezoid rule.
    assert outputs["integral_time_truth"].item() == pytest.approx(1.0, rel=0.01)
    assert outputs["integral_time_relative_difference"].item() == pytest.approx(1.0, rel=0.02)
    assert outputs["integral_time_censored_truth"].item() == 0


def test_persistence_is_correlated_for_ever():
    plan = plan_of(LINE, 8, 12, (16,))
    target = travelling(plan, 2.0)
    outputs = measure(AutocorrelationMetric(plan), target[:, :1].expand_as(target), target)
    assert torch.allclose(outputs["autocorrelation_prediction"], torch.ones(1, 12, dtype=torch.float64))
    assert outputs["integral_time_prediction"].item() == pytest.approx(11 * 0.25)
    assert outputs["integral_time_censored_prediction"].item() == 1


@pytest.mark.parametrize("trajectories", [2, 64])
def test_a_markov_process_decays_exponentially_within_its_error_bars(trajectories):
    # With two trajectories the blocks are cut in time.
    frames = 4096 // trajectories
    plan = plan_of(LINE, trajectories, frames, (64,))
    generator = torch.Generator().manual_seed(1)
    memory = math.exp(-0.25 / 1.0)
    noise = torch.randn(2, trajectories, frames, 1, 64, generator=generator, dtype=torch.float64)
    series = noise.clone()
    for frame in range(1, frames):
        series[:, :, frame] = memory * series[:, :, frame - 1] + math.sqrt(1 - memory**2) * noise[:, :, frame]
    outputs = measure(AutocorrelationMetric(plan, every=1), *series)
    for side in ("prediction", "truth"):
        found, error = (outputs[f"autocorrelation_{side}{end}"].flatten()[1:16] for end in ("", "_standard_error"))
        expected = memory ** torch.arange(1, 16, dtype=torch.float64)
        # The mean at each point is found from the data and takes 2 T / (time in all) with it.
        bias = 2.2 / (4096 * 0.25)
        assert ((found - expected).abs() < 5 * error + bias).all()
        assert (error < 0.03).all()
        assert outputs[f"integral_time_{side}"].item() == pytest.approx(1.0, rel=0.1)
        assert outputs[f"integral_time_{side}_standard_error"].item() < 0.1


def test_a_stopped_trajectory_counts_as_long_as_it_lasts():
    plan = plan_of(FIELD, 3, 6, (8, 8))
    prediction, target = random_rollouts(plan)
    prediction[1, 4:] = math.nan
    metric = AutocorrelationMetric(plan)
    outputs = measure(metric, prediction, target)
    series = prediction.flatten(3)[..., metric.points].numpy()
    fluctuation = series - np.nanmean(series, axis=(0, 1))
    for lag in range(6):
        first, second = fluctuation[:, : 6 - lag], fluctuation[:, lag:]
        both = np.isfinite(first) & np.isfinite(second)
        a, b = np.where(both, first, 0), np.where(both, second, 0)
        direct = (a * b).sum((0, 1, 3)) / np.sqrt((a * a).sum((0, 1, 3)) * (b * b).sum((0, 1, 3)))
        assert outputs["autocorrelation_prediction"][:, lag].tolist() == pytest.approx(direct.tolist(), abs=1e-10)


def test_points_in_a_body_do_not_count():
    plan = plan_of(FIELD, 3, 6, (8, 8), masked=True)
    prediction, target = random_rollouts(plan)
    mask = torch.ones(3, 8, 8, dtype=torch.bool)
    mask[:, 2:5, 3:7] = False
    metric = AutocorrelationMetric(plan, points=16)
    mask[2].view(-1)[metric.points] = False  # a body wherever the third trajectory is sampled
    inside = metric.points[mask[0].flatten()[metric.points]]
    assert 0 < len(inside) < len(metric.points)
    prediction.masked_fill_(~mask[:, None, None], math.nan)
    outputs = measure(metric, prediction, target, context=context_of(plan, 3, mask=mask))
    series = target[:2].flatten(3)[..., inside]
    moments = lagged_moments((series - series.mean((0, 1))).movedim(1, -1)).sum((0, 2))
    assert torch.allclose(outputs["autocorrelation_truth"], correlation_of_pairs(moments), atol=1e-10)
    assert torch.isfinite(outputs["autocorrelation_prediction"]).all()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_boxes_without_homogeneous_axes_are_refused():
    closed = Metadata("closed", Grid((Axis("x"), Axis("y"))), (Channel("u"),), 0.1)
    plan = RolloutPlan(closed, 1, 2, (torch.arange(4.0), torch.arange(5.0)))
    masked = plan_of(FIELD, 1, 2, (8, 8), masked=True)
    for metric, what in ((TwoPointMetric, "two-point correlations"), (StructureFunctionMetric, "structure functions")):
        for bad in (plan, masked):
            with pytest.raises(ValueError, match=f"periodic axis of evenly spaced points and no mask for {what}"):
                metric(bad)


def test_bad_numbers_of_frames_and_points_are_refused():
    with pytest.raises(ValueError, match="at least two frames"):
        AutocorrelationMetric(plan_of(LINE, 2, 1, (8,)))
    with pytest.raises(ValueError, match="at least one point"):
        AutocorrelationMetric(plan_of(LINE, 2, 4, (8,)), points=0)
    with pytest.raises(ValueError, match="one of at least one frame"):
        StructureFunctionMetric(plan_of(LINE, 2, 4, (8,)), every=0)
    metric = AutocorrelationMetric(plan_of(LINE, 1, 4, (8,)))
    values = torch.zeros(1, 2, 1, 8)
    with pytest.raises(ValueError, match=r"frames within 0\.\.4 but got 3\.\.5"):
        metric.update(block_of(metric.plan, values, values, first_frame=3))


def test_long_rollouts_keep_every_so_many_frames():
    plan = plan_of(LINE, 1, 600, (16,))
    time = 0.25 * torch.arange(600, dtype=torch.float64)
    phases = 2 * math.pi * torch.arange(16, dtype=torch.float64) / 16
    series = torch.sin(0.4 * time[:, None] + phases).reshape(1, 600, 1, 16)
    metric = AutocorrelationMetric(plan)
    outputs = measure(metric, series, series, length=7)
    lags = metric.coordinates["time_lag"].values
    assert metric.every == 3
    assert lags[:3].tolist() == pytest.approx([0.0, 0.75, 1.5])
    # Sixteen phases make every pair of frames an average over the whole wave.
    assert torch.allclose(outputs["autocorrelation_truth"][0, :100], torch.cos(0.4 * lags[:100]), atol=0.02)
    with pytest.raises(ValueError, match="at least two of 4 frames to be kept"):
        AutocorrelationMetric(plan_of(LINE, 1, 4, (16,)), every=4)

import math

import pytest
import torch
from helpers import block_of, context_of, measure, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.block import box_mean
from pdesurrogate.metrics.errors import (
    BandErrorMetric,
    BoundaryErrorMetric,
    ErrorMetric,
    SobolevErrorMetric,
    SurvivalMetric,
    correlation,
    correlation_time,
    maximum_error,
    relative_l2,
    relative_l2_joint,
    rmse,
    vrmse,
)
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.norms import sobolev_norm

CHANNEL_AXIS = Grid((Axis("x", period=2.0), Axis("y")))


def stretched_context(batch=1, nx=16, ny=201):
    """Even points of a period 2 in x, points from -1 to 1 crowded at the walls in y."""
    x = torch.arange(nx, dtype=torch.float64) * (2.0 / nx)
    y = -torch.cos(torch.linspace(0, math.pi, ny, dtype=torch.float64))
    return Context((x.expand(batch, -1), y.expand(batch, -1)))


def meshed(context):
    x, y = (points[0] for points in context.coordinates)
    return torch.meshgrid(x, y, indexing="ij")


def test_weights_integrate_a_stretched_axis():
    context = stretched_context()
    x, y = meshed(context)
    weights = space_weights(CHANNEL_AXIS, context)
    assert weights.shape == (1, 1, 1, 16, 201)
    assert weights.sum().item() == pytest.approx(4.0, rel=1e-12)  # the box is 2 by 2
    values = (y.square() + torch.sin(math.pi * x))[None, None, None]
    # Trapezoid rule with 200 cosine-spaced intervals: second order, so 1e-4.
    assert box_mean(values, weights).item() == pytest.approx(1 / 3, abs=1e-4)


def test_points_outside_the_mask_do_not_count():
    context = stretched_context()
    mask = torch.zeros(1, 16, 201, dtype=torch.bool)
    mask[:, :, :100] = True
    weights = space_weights(CHANNEL_AXIS, context._replace(mask=mask))
    values = torch.where(mask, 3.0, 1e6)[:, None, None]
    assert box_mean(values, weights).item() == pytest.approx(3.0, rel=1e-12)


def test_relative_l2_and_rmse_of_known_fields_for_each_channel():
    context = stretched_context(ny=801)
    x, y = meshed(context)
    one, wave = torch.ones_like(x), torch.sin(math.pi * x)
    target = torch.stack([y, wave])[None, None]
    prediction = torch.stack([y + 0.5 * wave, 3 * wave + one])[None, None]
    weights = space_weights(CHANNEL_AXIS, context)
    # Means over the box: y^2 is 1/3, sin^2 is 1/2. The trapezoid rule leaves 1e-5.
    assert relative_l2(prediction, target, weights).flatten().tolist() == pytest.approx(
        [math.sqrt(0.125 * 3), math.sqrt((2.0 + 1.0) / 0.5)], rel=1e-5
    )
    assert rmse(prediction, target, weights).flatten().tolist() == pytest.approx(
        [math.sqrt(0.125), math.sqrt(3.0)], rel=1e-5
    )


def test_correlation_of_known_fields():
    x = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    target = torch.sin(x).reshape(1, 1, 1, -1)
    for angle in (0.0, 0.3, 1.0, 2.5):
        shifted = 7.0 + 2.0 * torch.sin(x + angle).reshape(1, 1, 1, -1)
        assert correlation(shifted, target).item() == pytest.approx(math.cos(angle), abs=1e-12)
    assert correlation(torch.full_like(target, 3.3), target).item() == pytest.approx(0.0, abs=1e-12)


def test_zero_truth_gives_zero_or_infinity_and_never_a_hidden_nan():
    zero = torch.zeros(1, 1, 1, 8)
    assert relative_l2(zero, zero).item() == 0.0
    assert relative_l2(zero + 1, zero).item() == math.inf


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0))
@settings(max_examples=20, deadline=None)
def test_errors_do_not_depend_on_the_scale_of_the_weights_and_follow_that_of_the_fields(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, 3, 2, 2, 6, 5, generator=generator, dtype=torch.float64)
    weights = torch.rand(3, 1, 1, 6, 5, generator=generator, dtype=torch.float64) + 0.1
    for error, power in ((relative_l2, 0), (vrmse, 0), (correlation, 0), (rmse, 1), (maximum_error, 1)):
        plain = error(prediction, target, weights)
        assert torch.allclose(error(prediction, target, scale * weights), plain, rtol=1e-10)
        assert torch.allclose(error(scale * prediction, scale * target, weights), scale**power * plain, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_single(dtype):
    # Squares of 300 overflow in float16.
    target = torch.full((1, 1, 1, 64), 300.0, dtype=dtype)
    prediction = torch.full((1, 1, 1, 64), 330.0, dtype=dtype)
    expected = prediction[0, 0, 0, 0].item() / 300.0 - 1
    assert relative_l2(prediction, target).item() == pytest.approx(expected, rel=1e-6)
    assert rmse(prediction, target).item() == pytest.approx(300 * expected, rel=1e-6)


def test_correlation_time_of_a_decaying_correlation():
    times = torch.arange(1, 41, dtype=torch.float64) * 0.25
    decay = torch.exp(-times / 5.0)
    found, censored = correlation_time(decay, times)
    # Linear interpolation between frames is off by less than interval^2 / (8 * 5^2) times 5.
    assert found.item() == pytest.approx(-5 * math.log(0.8), abs=0.25**2 / 40)
    assert not censored.item()


@given(rate=st.floats(0.01, 3.0), threshold=st.floats(0.05, 0.95), interval=st.floats(0.1, 2.0))
@settings(max_examples=40, deadline=None)
def test_correlation_time_is_exact_for_a_straight_line(rate, threshold, interval):
    times = torch.arange(1, 21, dtype=torch.float64) * interval
    found = correlation_time(1 - rate * times, times, threshold)
    crossing, horizon = (1 - threshold) / rate, 20 * interval
    assert found.time.item() == pytest.approx(min(crossing, horizon), rel=1e-9)
    if abs(crossing - horizon) > 1e-9:
        assert bool(found.censored) == (crossing > horizon)


def test_correlation_time_cases():
    nan = math.nan
    curves = torch.tensor([[0.9, 0.9, 0.9], [0.6, 0.9, 0.9], [0.9, nan, nan], [nan, nan, nan], [0.9, 0.7, 0.9]])
    found = correlation_time(curves, torch.tensor([1.0, 2.0, 3.0]), 0.8)
    assert found.time.tolist() == pytest.approx([3.0, 0.5, 1.0, 0.0, 1.5])
    assert found.censored.tolist() == [True, False, False, False, False]
    with pytest.raises(ValueError, match="between -1 and 1"):
        correlation_time(curves, torch.ones(3), 1.0)
    with pytest.raises(ValueError, match="3 times, one a frame"):
        correlation_time(curves, torch.ones(4))


def test_vrmse_counts_what_varies_and_the_maximum_what_is_worst():
    x = torch.arange(64, dtype=torch.float64) * (2 * math.pi / 64)
    target = (5 + torch.sin(x)).reshape(1, 1, 1, -1)
    prediction = target + 0.1
    assert vrmse(prediction, target).item() == pytest.approx(0.1 * math.sqrt(2), rel=1e-12)
    assert vrmse(torch.full_like(target, 5.0), target).item() == pytest.approx(1.0, rel=1e-12)
    prediction[..., 7] -= 3.0
    assert maximum_error(prediction, target).item() == pytest.approx(2.9, rel=1e-12)
    weights = torch.ones(64)
    weights[7] = 0.0
    assert maximum_error(prediction, target, weights).item() == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("constant", [0.1, 0.5, 1e3, -7.3])
def test_a_constant_truth_has_no_fluctuation_in_single_precision(constant):
    target = torch.full((1, 1, 1, 63, 65), constant)
    assert vrmse(target, target).item() == 0.0
    assert vrmse(1.1 * target, target).item() == math.inf
    assert correlation(torch.randn(target.shape), target).item() == 0.0


def test_joint_and_per_channel_errors_are_different_numbers():
    # A velocity of ten and a scalar of one tenth: the scalar's error vanishes in the joint norm.
    target = torch.tensor([10.0, 0.1]).reshape(1, 1, 2, 1).expand(1, 1, 2, 8)
    prediction = torch.tensor([10.0, 0.2]).reshape(1, 1, 2, 1).expand(1, 1, 2, 8)
    assert relative_l2(prediction, target).flatten().tolist() == pytest.approx([0.0, 1.0], rel=1e-6)
    assert relative_l2_joint(prediction, target).item() == pytest.approx(0.1 / math.hypot(10, 0.1), rel=1e-6)


def channel_plan(trajectories, frames, channels, ny=9):
    metadata = Metadata("walls", CHANNEL_AXIS, channels, 0.5, time_units="s")
    coordinates = tuple(points[0] for points in stretched_context(ny=ny).coordinates)
    return RolloutPlan(metadata, trajectories, frames, coordinates)


def test_the_metric_gives_what_its_functions_give():
    plan = channel_plan(3, 5, (Channel("u", "m/s"), Channel("p", "Pa")))
    generator = torch.Generator().manual_seed(1)
    prediction, target = torch.randn(2, 3, 5, 2, 16, 9, generator=generator)
    context = stretched_context(3, ny=9)
    metric = ErrorMetric(plan)
    numbers = torch.tensor([2, 0, 1])
    metric.update(block_of(plan, prediction[:, :2], target[:, :2], 0, numbers, context))
    metric.update(block_of(plan, prediction[:, 2:], target[:, 2:], 2, numbers, context))
    outputs = metric.compute()
    weights = space_weights(CHANNEL_AXIS, context)
    functions = {
        "relative_l2": relative_l2,
        "rmse": rmse,
        "vrmse": vrmse,
        "correlation": correlation,
        "maximum_error": maximum_error,
    }
    for name, function in functions.items():
        assert torch.allclose(outputs[name][[2, 0, 1]], function(prediction, target, weights), rtol=1e-6), name
    assert outputs["correlation_time"].shape == (3, 2, 2)
    assert (outputs["correlation_time"][..., 0] <= outputs["correlation_time"][..., 1]).all()
    assert outputs["correlation_time_censored"].sum() == 0
    assert set(outputs) == set(metric.variables)
    assert metric.variables["rmse"].units == "m/s, Pa"
    assert metric.variables["correlation_time"].units == "s"
    # Channels of different units have no joint error and a score each.
    assert "relative_l2_joint" not in outputs
    assert {"rmse_u", "rmse_p"} <= set(metric.scores)
    same = ErrorMetric(channel_plan(3, 5, (Channel("u"), Channel("v"))))
    joint = measure(same, prediction, target, context=context)["relative_l2_joint"]
    assert torch.allclose(joint, relative_l2_joint(prediction, target, weights), rtol=1e-6)


def test_what_lies_in_a_body_does_not_count_even_if_it_is_not_a_number():
    plan = channel_plan(1, 1, (Channel("u"),))
    target = torch.ones(1, 1, 1, 16, 9)
    prediction = 1.5 * target
    mask = torch.ones(1, 16, 9, dtype=torch.bool)
    mask[:, 4:8, :3] = False
    prediction[:, :, :, 4:8, :3] = math.nan
    context = stretched_context(1, ny=9)._replace(mask=mask)
    masked = RolloutPlan(plan.metadata, 1, 1, plan.coordinates, masked=True)
    outputs = measure(ErrorMetric(masked), prediction, target, context=context)
    assert outputs["relative_l2"].item() == pytest.approx(0.5)
    assert outputs["maximum_error"].item() == pytest.approx(0.5)


def test_a_channel_of_zeros_is_named_once_and_only_if_it_was_missed():
    plan = channel_plan(3, 5, (Channel("u"), Channel("w")))
    target = torch.randn(3, 5, 2, 16, 9, generator=torch.Generator().manual_seed(0))
    target[:, :, 1] = 0.0
    prediction, context = 1.1 * target, stretched_context(3, ny=9)
    exact = measure(ErrorMetric(plan), prediction, target, context=context)
    assert (exact["relative_l2"][..., 1] == 0).all()
    prediction[:, :, 1] = 0.1
    with pytest.warns(UserWarning, match="that of w is: errors relative to it are infinite"):
        missed = measure(ErrorMetric(plan), prediction, target, context=context)
    assert (missed["relative_l2"][..., 1] == math.inf).all()
    assert missed["rmse"][..., 1].numpy() == pytest.approx(0.1, rel=1e-6)
    # One frame of zeros among others is a matter of that frame alone.
    target[:, 1:, 1] = 1.0
    measure(ErrorMetric(plan), prediction, target, context=context)


def test_survival_is_the_frame_before_the_first_bad_one():
    plan = channel_plan(2, 4, (Channel("u"),))
    prediction = torch.zeros(2, 4, 1, 16, 9)
    prediction[1, 2:] = math.nan
    outputs = measure(SurvivalMetric(plan), prediction, torch.zeros_like(prediction), length=3)
    assert outputs["finite"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert outputs["blow_up_time"][0].isnan()
    assert outputs["blow_up_time"][1].item() == pytest.approx(3 * 0.5)


SQUARE = Grid((Axis("x", period=2 * math.pi), Axis("y", period=2 * math.pi)))
FIELD = Metadata("field", SQUARE, (Channel("height", "m"), Channel("depth", "m")), frame_interval=0.5)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sobolev_errors_weigh_a_single_wave_by_its_wavenumber():
    plan = plan_of(FIELD, 1, 1, (16, 12))
    x, y = torch.meshgrid(*plan.coordinates, indexing="ij")
    target = torch.stack([torch.cos(x), torch.cos(2 * x + y)]).expand(1, 1, 2, 16, 12)
    prediction = target + 0.1 * torch.cos(4 * y - 3 * x)
    outputs = measure(SobolevErrorMetric(plan, orders=(1.0, -1.0, -2.5)), prediction, target)
    for order, name in ((1.0, "relative_h1"), (-1.0, "relative_h_minus_1"), (-2.5, "relative_h_minus_2_5")):
        # alpha is one in a box of 2 pi; tables are kept in single precision.
        expected = [0.1 * ((1 + 25) / (1 + k2)) ** (order / 2) for k2 in (1, 5)]
        assert outputs[name].flatten().tolist() == pytest.approx(expected, rel=1e-6), name


@given(nx=st.integers(4, 17), ny=st.integers(4, 17), order=st.floats(-3, 3).filter(lambda s: abs(s) > 0.01))
@settings(max_examples=20, deadline=None)
def test_sobolev_errors_are_ratios_of_the_norms_that_everyone_else_uses(nx, ny, order):
    plan = plan_of(FIELD, 2, 1, (nx, ny))
    prediction, target = noise(2, 2, 1, 2, nx, ny)
    outputs = measure(SobolevErrorMetric(plan, orders=(order,)), prediction, target)
    periods = FIELD.grid.periods
    expected = sobolev_norm(prediction - target, periods, order) / sobolev_norm(target, periods, order)
    assert torch.allclose(next(iter(outputs.values())), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (15, 18), (9, 40)])
def test_bands_add_up_to_the_whole_error(shape):
    plan = plan_of(FIELD, 2, 3, shape)
    prediction, target = noise(2, 2, 3, 2, *shape)
    outputs = measure(BandErrorMetric(plan, edges=(2, 4)), prediction, target)
    whole = rmse(prediction, target)
    assert torch.allclose(outputs["band_rmse"].square().sum(-1), whole.square(), rtol=1e-6)
    smooth = target.mean((-2, -1), keepdim=True).expand_as(target)
    low = measure(BandErrorMetric(plan, edges=(2, 4)), smooth + 1, smooth)["band_rmse"]
    assert torch.allclose(low[..., 0], torch.ones_like(low[..., 0]))
    assert low[..., 1:].abs().max() < 1e-6


def test_names_of_the_bands():
    assert BandErrorMetric(plan_of(FIELD, 1, 1, (12, 12))).bands == ["low (0 to 4)", "high (from 5)"]
    assert BandErrorMetric(plan_of(FIELD, 1, 1, (4, 4))).bands == ["low (from 0)"]
    plan = plan_of(FIELD, 1, 1, (32, 32))
    assert BandErrorMetric(plan).bands == ["low (0 to 4)", "middle (5 to 12)", "high (from 13)"]
    assert BandErrorMetric(plan, edges=(3,)).bands == ["low (0 to 2)", "high (from 3)"]
    assert set(BandErrorMetric(plan).scores) == {f"band_relative_l2_{b}" for b in ("low", "middle", "high")}
    for edges in ((), (0, 3), (5, 5), (7, 2)):
        with pytest.raises(ValueError, match="edges that increase"):
            BandErrorMetric(plan, edges=edges)


def test_the_boundary_is_the_ends_of_open_axes():
    plan = channel_plan(1, 2, (Channel("u"),))
    target = torch.zeros(1, 2, 1, 16, 9)
    prediction = target.clone()
    prediction[..., 4] = 100.0  # the middle
    prediction[:, 1, ..., 0] = 3.0  # one of the two walls
    outputs = measure(BoundaryErrorMetric(plan), prediction, target, context=stretched_context(1, ny=9))
    assert outputs["boundary_rmse"].flatten().tolist() == pytest.approx([0.0, math.sqrt(9 / 2)])
    with pytest.raises(ValueError, match="an axis that is not periodic"):
        BoundaryErrorMetric(plan_of(FIELD, 1, 1, (8, 8)))


def test_transforms_need_even_points_without_a_mask():
    for kind in (SobolevErrorMetric, BandErrorMetric):
        with pytest.raises(ValueError, match="one grid of evenly spaced points"):
            kind(channel_plan(1, 1, (Channel("u"),)))
        with pytest.raises(ValueError, match="mask: True"):
            kind(plan_of(FIELD, 1, 1, (8, 8), masked=True))
        with pytest.raises(ValueError, match="one grid: False"):
            kind(plan_of(FIELD, 1, 1, (8, 8), shared_grid=False))


def test_a_block_of_other_fields_is_refused():
    plan = plan_of(FIELD, 1, 1, (8, 8))
    good = torch.zeros(1, 1, 2, 8, 8)
    for bad in (torch.zeros(1, 1, 1, 8, 8), torch.zeros(1, 1, 2, 8, 9), torch.zeros(1, 2, 8, 8)):
        with pytest.raises(ValueError, match="measure on the grid and the channels of the data"):
            block_of(plan, bad, bad, context=context_of(plan, 1))
    with pytest.raises(ValueError, match="prediction and target"):
        block_of(plan, good, good[:, :, :, :4])

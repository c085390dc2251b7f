import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import box_mean, space_weights
from pdesurrogate.metrics.errors import ErrorMetric, correlation, correlation_time, relative_l2, rmse

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
    for measure, power in ((relative_l2, 0), (correlation, 0), (rmse, 1)):
        plain = measure(prediction, target, weights)
        assert torch.allclose(measure(prediction, target, scale * weights), plain, rtol=1e-10)
        assert torch.allclose(measure(scale * prediction, scale * target, weights), scale**power * plain, rtol=1e-10)


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


def test_the_metric_gives_what_its_functions_give():
    metadata = Metadata("walls", CHANNEL_AXIS, (Channel("u", "m/s"), Channel("p", "Pa")), 0.5, time_units="s")
    generator = torch.Generator().manual_seed(1)
    prediction, target = torch.randn(2, 3, 5, 2, 16, 9, generator=generator)
    context = stretched_context(3, ny=9)
    metric = ErrorMetric(metadata, trajectories=3, frames=5)
    metric.update(prediction[:, :2], target[:, :2], 0, torch.tensor([2, 0, 1]), context)
    metric.update(prediction[:, 2:], target[:, 2:], 2, torch.tensor([2, 0, 1]), context)
    outputs = metric.compute()
    weights = space_weights(CHANNEL_AXIS, context)
    for name, function in (("relative_l2", relative_l2), ("rmse", rmse), ("correlation", correlation)):
        assert torch.equal(outputs[name][[2, 0, 1]], function(prediction, target, weights))
    assert outputs["correlation_time"].shape == (3, 2)
    assert outputs["correlation_time_censored"].sum() == 0
    assert set(outputs) == set(metric.variables)
    assert metric.variables["rmse"].units == "m/s, Pa"
    assert metric.variables["correlation_time"].units == "s"

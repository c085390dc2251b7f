"""Against the tables of Moser, Kim and Mansour (1999), laminar flow, manufactured gradients, and SciPy."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import block_of, context_of, measure
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.base import block_error
from pdesurrogate.metrics.channel import ChannelGeometry, ChannelHistoryMetric, ChannelMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.pooling import jackknife_error, leave_one_out
from pdesurrogate.metrics.profiles import (
    bulk_velocity,
    centerline_velocity,
    fold,
    friction_coefficient,
    friction_velocity,
    friction_velocity_of_stress,
    height_weights,
    in_wall_units,
    plane_moments,
    profiles_of,
    relative_l1,
    total_stress,
    total_stress_deviation,
    wall_gradient,
)
from pdesurrogate.metrics.vortices import VortexMetric, difference_matrix, q_criterion, spectral_derivative_matrix

TABLE = json.loads((Path(__file__).parents[1] / "golden" / "mkm_chan180.json").read_text())
RE_TAU = TABLE["friction_reynolds_number"]
NU = 1 / RE_TAU  # of the tables, which are in units of u_tau and h


def mirrored(name, parity=1):
    """A column of the tables over the whole height."""
    half = torch.tensor(TABLE["profiles"][name], dtype=torch.float64)
    return torch.cat([half, parity * half[:-1].flip(0)])


def table_points():
    half = torch.tensor(TABLE["profiles"]["y"], dtype=torch.float64)
    return torch.cat([half, 2 - half[:-1].flip(0)])


def channel_plan(points, nx=12, nz=8, trajectories=2, frames=2, parameters=("viscosity",), location="node", **options):
    grid = Grid((Axis("x", period=4 * math.pi), Axis("y"), Axis("z", period=4 * math.pi / 3)))
    channels = tuple(Channel(f"velocity_{name}", "m/s", location=location) for name in "xyz")
    metadata = Metadata("channel", grid, channels, frame_interval=0.1, parameters=parameters)
    x, z = (torch.arange(n, dtype=torch.float64) * (grid.axes[i].period / n) for i, n in ((0, nx), (2, nz)))
    return RolloutPlan(metadata, trajectories, frames, (x, points, z), **options)


def plane_plan(points, nx=16, trajectories=2, frames=2, parameters=(), location="node"):
    grid = Grid((Axis("x", period=2 * math.pi), Axis("y")))
    channels = tuple(Channel(f"velocity_{name}", location=location) for name in "xy")
    metadata = Metadata("plane", grid, channels, frame_interval=0.1, parameters=parameters)
    return RolloutPlan(
        metadata, trajectories, frames, (torch.arange(nx, dtype=torch.float64) * (2 * math.pi / nx), points)
    )


def with_viscosity(plan, viscosity, batch=None):
    batch = plan.trajectories if batch is None else batch
    return context_of(plan, batch, parameters=torch.full((batch, 1), viscosity))


def measured(metric, prediction, target, viscosity=NU, **options):
    return measure(metric, prediction, target, context=with_viscosity(metric.plan, viscosity, len(target)), **options)


def patterns(count, frames, nx, nz, seed):
    """Planes ``(frames, count, nx, nz)`` of zero mean and unit variance that are orthogonal to each other."""
    noise = torch.randn(frames, nx * nz, count + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise[..., 0] = 1.0
    basis = torch.linalg.qr(noise).Q[..., 1:] * math.sqrt(nx * nz)
    return basis.transpose(1, 2).reshape(frames, count, nx, nz)


def flow_of_the_tables(plan, seed=0):
    """Rollouts ``(trajectories, frames, 3, nx, ny, nz)`` whose plane means are exactly those of the tables."""
    nx, _, nz = plan.shape
    count = plan.trajectories * plan.frames
    one, two, three = patterns(3, count, nx, nz, seed).unsqueeze(3).unbind(1)
    uu, vv, ww = (mirrored(name)[:, None] for name in ("R_uu", "R_vv", "R_ww"))
    uv = mirrored("R_uv", -1)[:, None]
    u = mirrored("mean_u")[:, None] + uu.sqrt() * one
    v = uv / uu.sqrt() * one + (vv - uv.square() / uu).clamp_min(0).sqrt() * two
    velocity = torch.stack([u, v, ww.sqrt() * three], 1)
    return velocity.unflatten(0, (plan.trajectories, plan.frames))


# Pure functions against the tables.


def test_wall_shear_and_bulk_quantities_of_the_tables():
    y, mean = table_points(), mirrored("mean_u")
    wall_stress = NU * wall_gradient(mean, y)
    u_tau = friction_velocity(wall_stress)
    # The tables have five digits, which the difference over the first two points keeps three or four of.
    assert (u_tau / NU).tolist() == pytest.approx([178.12, 178.12], rel=3e-4)
    assert wall_gradient(mean, y).tolist() == pytest.approx([TABLE["profiles"]["mean_u_gradient"][0]] * 2, rel=5e-4)
    bulk = bulk_velocity(mean, y)
    assert bulk.item() == pytest.approx(15.68, abs=5e-3)
    assert centerline_velocity(mean).item() == pytest.approx(18.30, abs=2e-3)
    assert friction_coefficient(torch.tensor(1.0), bulk).item() == pytest.approx(0.008136, abs=2e-6)
    assert bulk.item() / NU == pytest.approx(2793, abs=1.0)


def test_total_stress_of_the_tables_is_a_straight_line():
    y, mean, stress = table_points(), mirrored("mean_u"), -mirrored("R_uv", -1)
    # With the tables' own gradient: the converged statistics leave 0.003 of the wall stress.
    exact = NU * mirrored("mean_u_gradient", -1) + stress
    assert total_stress_deviation(exact, torch.tensor(1.0), y).item() == pytest.approx(0.003, abs=1e-4)
    # Second-order differences on the tables' points add what their spacing leaves.
    found = total_stress(mean, stress, NU, y)
    assert total_stress_deviation(found, torch.tensor(1.0), y).item() < 0.006
    assert (found - exact).abs().max().item() < 0.005
    assert friction_velocity_of_stress(found, y).item() == pytest.approx(1.0, abs=3e-3)


def test_wall_units_of_the_tables_are_the_tables():
    y = table_points()
    names = (("R_uu", 1), ("R_vv", 1), ("R_ww", 1))
    variance = torch.stack([mirrored(*name) for name in names])
    mean = torch.stack([mirrored("mean_u"), torch.zeros_like(y), torch.zeros_like(y)])
    raw = torch.cat([mean, variance + mean.square(), 0 * mean, 0 * mean, mirrored("R_uv", -1)[None]])
    # In other units of length and velocity.
    scale = torch.tensor(0.05, dtype=torch.float64)
    profiles = profiles_of(raw, 0, 1)
    profiles = profiles._replace(
        mean=profiles.mean * scale, rms=profiles.rms * scale, shear_stress=profiles.shear_stress * scale.square()
    )
    found = in_wall_units(profiles, NU * scale * 3, 0, 3 * y + 7)
    half = len(TABLE["profiles"]["y"])
    assert found.friction_velocity.item() == pytest.approx(0.05, rel=3e-4)
    assert found.friction_reynolds_number.item() == pytest.approx(RE_TAU, rel=3e-4)
    assert found.centerline_velocity_plus.item() == pytest.approx(18.30, rel=3e-4)
    assert found.bulk_velocity_plus.item() == pytest.approx(15.68, rel=5e-4)
    assert found.friction_coefficient.item() == pytest.approx(0.008136, rel=1e-3)
    for values, name in (
        (found.mean_velocity_plus, "mean_u"),
        (found.rms_velocity_plus[0].square(), "R_uu"),
        (found.rms_velocity_plus[2].square(), "R_ww"),
        (-found.shear_stress_plus, "R_uv"),
    ):
        assert torch.allclose(values, mirrored(name)[:half], rtol=1e-3, atol=1e-9), name
    assert torch.allclose(found.wall_distance_plus, RE_TAU * y[:half], rtol=3e-4)


# Pure functions in closed form.


def stretched(n=33, factor=1.75):
    """Points from 0 to 2, crowded at both walls."""
    s = torch.linspace(-1, 1, n, dtype=torch.float64)
    return 1 + torch.tanh(factor * s) / math.tanh(factor)


@pytest.mark.parametrize("n", [8, 33])
def test_laminar_flow_has_its_exact_friction(n):
    y, nu, speed = stretched(n), 0.03, 1.7
    mean = speed * y * (2 - y)
    shear = nu * wall_gradient(mean, y)
    assert shear.tolist() == pytest.approx([2 * nu * speed] * 2, rel=1e-12)
    total = total_stress(mean, torch.zeros(n, dtype=torch.float64), nu, y)
    assert total_stress_deviation(total, shear.mean(), y).item() < 1e-12
    assert friction_velocity_of_stress(total, y).item() == pytest.approx(math.sqrt(2 * nu * speed), rel=1e-12)


def test_cells_inside_the_walls_see_the_no_slip_condition():
    y = (torch.arange(16, dtype=torch.float64) + 0.5) / 8
    mean = y * (2 - y)
    assert wall_gradient(mean, y, (0.0, 2.0)).tolist() == pytest.approx([2.0, 2.0], rel=1e-12)
    total = total_stress(mean, torch.zeros(16, dtype=torch.float64), 1.0, y, (0.0, 2.0))
    assert torch.allclose(total, 2 - 2 * y)
    # The midpoint rule of a parabola is a third of half a spacing squared too large.
    assert bulk_velocity(mean, y, (0.0, 2.0)).item() == pytest.approx(2 / 3 + (1 / 16) ** 2 / 3, rel=1e-12)


def test_one_sided_gradient_is_of_second_order():
    errors = []
    for n in (33, 65, 129):
        y = stretched(n)
        errors.append((wall_gradient(torch.sin(math.pi * y / 2), y)[0] - math.pi / 2).abs().item())
    assert errors[0] / errors[1] > 3.5
    assert errors[1] / errors[2] > 3.5


@given(n=st.integers(2, 20), seed=st.integers(0, 1000))
def test_height_weights_integrate_lines_between_nodes_exactly(n, seed):
    gaps = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    points = gaps.cumsum(0)
    weights = height_weights(points)
    assert weights.sum().item() == pytest.approx(1.0)
    assert (weights @ (3 * points - 1)).item() == pytest.approx((3 * (points[0] + points[-1]) / 2 - 1).item())


@given(n=st.integers(1, 12), parity=st.sampled_from([-1, 1]), seed=st.integers(0, 1000))
def test_folding_keeps_one_symmetry_and_removes_the_other(n, parity, seed):
    values = torch.randn(3, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    symmetric = (values + parity * values.flip(-1)) / 2
    assert torch.allclose(fold(symmetric, parity), symmetric[:, : (n + 1) // 2])
    assert torch.allclose(fold(symmetric, -parity), torch.zeros(1, dtype=torch.float64))
    assert torch.allclose(fold(values, parity), fold(symmetric, parity))


def test_relative_l1_is_zero_infinite_or_a_share():
    weights = torch.tensor([1.0, 3.0])
    zero, one = torch.zeros(2), torch.ones(2)
    assert relative_l1(zero, zero, weights).item() == 0.0
    assert relative_l1(one, zero, weights).item() == math.inf
    assert relative_l1(1.25 * one, one, weights).item() == 0.25


@given(blocks=st.integers(2, 12), seed=st.integers(0, 1000))
def test_jackknife_of_a_mean_is_the_error_of_block_means(blocks, seed):
    values = torch.randn(blocks, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.allclose(jackknife_error(leave_one_out(values)), block_error(values))


def test_jackknife_error_is_the_spread_that_repetition_shows():
    # 4000 repetitions of ten blocks of the mean square of five normal numbers; a root of it, as an rms is.
    noise = torch.randn(10, 5, 4000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    blocks = noise.square().mean(1)
    spread = blocks.mean(0).sqrt().std().item()
    estimated = jackknife_error(leave_one_out(blocks).sqrt()).square().mean().sqrt().item()
    # An estimate from ten blocks is good to a few percent on the mean of many.
    assert estimated == pytest.approx(spread, rel=0.08)


def test_too_few_blocks_have_no_error():
    for count in (0, 1):
        error = jackknife_error(leave_one_out(torch.ones(count, 3)))
        assert error.shape == (3,)
        assert error.isnan().all()


def test_profiles_agree_with_scipy():
    generator = torch.Generator().manual_seed(11)
    # Skewed, far from zero, and correlated; axes x, y, z with the wall-normal one in the middle.
    noise = torch.randn(5, 3, 10, 7, 6, generator=generator, dtype=torch.float64).exp()
    velocity = noise + torch.tensor([20.0, -3.0, 0.5], dtype=torch.float64).reshape(3, 1, 1, 1)
    velocity[:, 1] += 0.5 * velocity[:, 0]
    found = profiles_of(plane_moments(velocity, (-3, -1), 0, 1).mean(0), 0, 1)
    flat = velocity.permute(1, 3, 0, 2, 4).flatten(2).numpy()
    assert np.allclose(found.mean, flat.mean(-1))
    assert np.allclose(found.rms, flat.std(-1))
    assert np.allclose(found.skewness, scipy.stats.skew(flat, axis=-1))
    assert np.allclose(found.flatness, scipy.stats.kurtosis(flat, axis=-1, fisher=False))
    covariance = [-np.cov(flat[0, j], flat[1, j], bias=True)[0, 1] for j in range(7)]
    assert np.allclose(found.shear_stress, covariance)


def test_single_precision_keeps_small_fluctuations_of_a_fast_flow():
    noise = torch.randn(4, 2, 64, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    velocity = (100 + 0.1 * noise).float()
    found = profiles_of(plane_moments(velocity, (-2,), 0, 1).mean(0), 0, 1)
    exact = velocity.double().permute(1, 3, 0, 2).flatten(2).numpy()
    # Raw moments in single precision would be off by several percent, the fourth altogether.
    assert np.allclose(found.rms, exact.std(-1), rtol=1e-4)
    assert np.allclose(found.flatness, scipy.stats.kurtosis(exact, axis=-1, fisher=False), rtol=1e-2)


def test_nothing_fluctuates_on_a_wall():
    velocity = torch.full((2, 8, 3), 0.1)
    found = profiles_of(plane_moments(velocity, (-2,), 0, 1), 0, 1)
    assert (found.rms == 0).all()
    assert found.skewness.isnan().all()
    assert found.flatness.isnan().all()


# Rollouts.


def test_metric_finds_the_tables_in_a_rollout_and_the_size_of_its_faults():
    plan = channel_plan(table_points(), trajectories=3, frames=4)
    target = flow_of_the_tables(plan)
    mean = mirrored("mean_u")[:, None]
    prediction = 1.1 * target
    prediction[:, :, 0] = 1.05 * mean + 1.1 * (target[:, :, 0] - mean)
    found = measured(ChannelMetric(plan), prediction, target)
    half = len(TABLE["profiles"]["y"])
    u_tau = friction_velocity(NU * wall_gradient(mirrored("mean_u"), table_points())).mean()
    assert found["friction_velocity_truth"].item() == pytest.approx(u_tau.item(), rel=1e-6)
    # Viscosity travels in single precision.
    assert torch.allclose(found["mean_velocity_plus_truth"] * u_tau, mirrored("mean_u")[:half], rtol=1e-6)
    for row, name in enumerate(("R_uu", "R_vv", "R_ww")):
        square = (found["rms_velocity_plus_truth"][row] * u_tau).square()
        assert torch.allclose(square, mirrored(name)[:half], rtol=1e-6, atol=1e-8), name
    shear = found["shear_stress_plus_truth"] * u_tau.square()
    assert torch.allclose(shear, -mirrored("R_uv", -1)[:half], rtol=1e-6, atol=1e-8)
    assert torch.allclose(found["shear_stress_profile_truth"], -mirrored("R_uv", -1), atol=1e-10)
    assert found["total_stress_deviation_truth"].item() < 0.006
    assert found["friction_reynolds_number_truth"].item() == pytest.approx(RE_TAU, rel=3e-4)
    assert found["friction_coefficient_truth"].item() == pytest.approx(0.008136, rel=1e-3)
    assert found["mean_velocity_profile_l1"].item() == pytest.approx(0.05)
    assert found["rms_velocity_profile_l1"].tolist() == pytest.approx([0.1] * 3)
    assert found["shear_stress_profile_l1"].item() == pytest.approx(0.21)
    assert found["friction_reynolds_number_deviation"].item() == pytest.approx(math.sqrt(1.05) - 1)
    # Every plane of every frame has the same statistics, so there is nothing to be uncertain about.
    assert found["rms_velocity_profile_truth_standard_error"].max().item() < 1e-10
    assert found["friction_reynolds_number_deviation_standard_error"].item() < 1e-8


def turbulent(plan, seed=0):
    """Noise that vanishes on the walls on top of a parabola."""
    generator = torch.Generator().manual_seed(seed)
    shape = (plan.trajectories, plan.frames, len(plan.metadata.channels), *plan.shape)
    y = plan.coordinates[1]
    envelope = (y * (2 - y)).reshape(-1, *(1,) * (len(plan.shape) - 2))
    values = 0.2 * envelope * torch.randn(shape, generator=generator, dtype=torch.float64)
    values[:, :, 0] += 1.5 * envelope
    return values


METRICS = [ChannelMetric, ChannelHistoryMetric, VortexMetric]


@pytest.fixture
def small():
    return channel_plan(stretched(9), nx=6, nz=4, trajectories=3, frames=4)


@pytest.mark.parametrize("build", METRICS)
def test_results_do_not_depend_on_batches_or_blocks(small, build):
    prediction, target = turbulent(small), turbulent(small, 1)
    whole = measured(build(small), prediction, target)
    metric = build(small)
    for numbers in ([2], [0, 1]):
        context = with_viscosity(small, NU, len(numbers))
        for first, last in ((0, 1), (1, 4)):
            parts = (values[numbers, first:last] for values in (prediction, target))
            metric.update(block_of(small, *parts, first, numbers, context))
    parted = metric.compute()
    assert whole.keys() == metric.variables.keys()
    for name, values in whole.items():
        assert torch.allclose(values, parted[name], rtol=1e-9, atol=1e-12, equal_nan=True), name


@pytest.mark.parametrize("build", METRICS)
def test_outputs_have_the_shapes_of_their_labels_and_scores_refer_to_them(small, build):
    metric = build(small)
    found = measured(metric, turbulent(small), turbulent(small, 1))
    sizes = {"trajectory": 3, "lead_time": 4, **{name: len(axis.values) for name, axis in metric.coordinates.items()}}
    for name, variable in metric.variables.items():
        assert tuple(found[name].shape) == tuple(sizes[dim] for dim in variable.dims), name
    assert metric.scores
    assert {score.variable for score in metric.scores.values()} <= metric.variables.keys()


@pytest.mark.parametrize("build", METRICS)
def test_a_stopped_trajectory_does_not_touch_the_others(small, build):
    prediction, target = turbulent(small), turbulent(small, 1)
    prediction[2, 2:] = torch.nan
    found = measured(build(small), prediction, target)
    truth = measured(build(small), target, target)
    for name, values in found.items():
        if name.endswith(("_truth", "_truth_standard_error")):
            assert torch.allclose(values, truth[name], equal_nan=True), name
        elif build is ChannelHistoryMetric:
            assert values[:2].isfinite().all(), name
            assert values[2, :2].isfinite().all(), name
            assert values[2, 2:].isnan().all(), name
        elif "prediction" not in name:
            assert values.isnan().all(), name
    if build is ChannelMetric:
        kept = torch.cat([prediction[:2].flatten(0, 1), prediction[2, :2]])
        mean = kept.mean((0, 2, 4))
        assert torch.allclose(found["mean_velocity_profile_prediction"], mean)
        assert torch.allclose(
            found["rms_velocity_profile_prediction"], (kept.square().mean((0, 2, 4)) - mean**2).sqrt()
        )


@pytest.mark.parametrize("build", METRICS)
def test_processes_are_joined_and_metrics_travel(small, build):
    prediction, target = turbulent(small), turbulent(small, 1)
    whole = measured(build(small), prediction, target)
    parts = []
    for numbers in ([0, 1], [2], []):  # shards of different size, one of them empty
        metric = pickle.loads(pickle.dumps(build(small)))
        if numbers:
            context = with_viscosity(small, NU, len(numbers))
            metric.update(block_of(small, prediction[numbers], target[numbers], 0, numbers, context))
        parts.append(metric)
    joined = build(small)
    for name, reduce in joined._reductions.items():
        setattr(joined, name, reduce(torch.stack([getattr(part, name) for part in parts])))
    joined._update_count = 1
    for name, values in joined.compute().items():
        assert torch.allclose(values, whole[name], rtol=1e-9, atol=1e-12, equal_nan=True), name
    joined.reset()
    again = measured(joined, prediction, target)
    assert all(torch.equal(again[name].nan_to_num(), whole[name].nan_to_num()) for name in whole)


@pytest.mark.parametrize("build", METRICS)
def test_updates_need_no_values_on_the_host(small, build):
    metric = build(small).to("meta")
    fields = torch.zeros(3, 4, 3, *small.shape, device="meta")
    context = context_of(small, 3, parameters=torch.zeros(3, 1))
    context = context._replace(
        coordinates=tuple(points.to("meta") for points in context.coordinates),
        parameters=context.parameters.to("meta"),
    )
    metric.update(block_of(small, fields, fields, 0, torch.arange(3, device="meta"), context))
    assert metric.device.type == "meta"


@pytest.mark.parametrize("build", METRICS)
def test_missing_frames_are_refused(small, build):
    metric = build(small)
    fields = turbulent(small)[:2]
    metric.update(block_of(small, fields, fields, 0, [0, 1], with_viscosity(small, NU, 2)))
    with pytest.raises(ValueError, match="update with every block"):
        metric.compute()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("build", METRICS)
def test_half_precision_is_measured_in_single(small, build, precision):
    fields = turbulent(small).to(precision)
    low = measured(build(small), fields, fields)
    single = measured(build(small), fields.float(), fields.float())
    assert all(torch.equal(low[name].nan_to_num(), single[name].nan_to_num()) for name in single)


def test_error_bars_are_those_of_trajectories():
    plan = channel_plan(stretched(9), nx=6, nz=4, trajectories=10, frames=2)
    target = turbulent(plan)
    found = measured(ChannelMetric(plan), 2 * target, target)
    means = target.mean((1, 3, 5))
    expected = means.std(0) / math.sqrt(10)
    assert torch.allclose(found["mean_velocity_profile_truth_standard_error"], expected, atol=1e-12)
    assert torch.allclose(found["mean_velocity_profile_prediction_standard_error"], 2 * expected, atol=1e-12)
    # Prediction and truth err together: their ratio is always two.
    assert found["mean_velocity_profile_l1"].item() == pytest.approx(1.0)
    assert found["mean_velocity_profile_l1_standard_error"].item() < 1e-12


def test_wall_units_are_left_out_without_a_viscosity_and_nan_with_several():
    plan = channel_plan(stretched(9), nx=6, nz=4, parameters=())
    fields = turbulent(plan)
    blind = measure(ChannelMetric(plan), fields, fields)
    assert not any("plus" in name or "friction" in name for name in blind)
    assert list(ChannelMetric(plan).scores) == [
        "mean_velocity_profile_l1",
        "rms_velocity_profile_l1",
        "shear_stress_profile_l1",
    ]
    given_by_hand = measure(ChannelMetric(plan, viscosity=0.02), fields, fields)
    plan = channel_plan(stretched(9), nx=6, nz=4)
    from_data = measured(ChannelMetric(plan), fields, fields, viscosity=0.02)
    for name, values in from_data.items():
        assert torch.allclose(values, given_by_hand[name], rtol=1e-6, atol=1e-9, equal_nan=True), name
    context = context_of(plan, 2, parameters=torch.tensor([[0.02], [0.03]]))
    mixed = measure(ChannelMetric(plan), fields, fields, context=context)
    assert mixed["friction_velocity_truth"].isnan().all()
    assert mixed["mean_velocity_plus_truth"].isnan().all()
    assert torch.equal(mixed["mean_velocity_profile_truth"], blind["mean_velocity_profile_truth"])


def test_history_follows_every_trajectory_with_its_own_viscosity():
    y = stretched(17)
    plan = channel_plan(y, nx=6, nz=4, trajectories=2, frames=3)
    speed = torch.tensor([[1.0, 1.1, 1.2], [2.0, 2.0, 2.0]], dtype=torch.float64)
    parabola = (y * (2 - y))[:, None]
    fields = torch.zeros(2, 3, 3, *plan.shape, dtype=torch.float64)
    fields[:, :, 0] = speed[..., None, None, None] * parabola
    drifting = 1.5 * fields
    drifting[:, :, 2] += 0.3  # slides along both walls
    viscosity = torch.tensor([[0.5], [0.25]])
    context = context_of(plan, 2, parameters=viscosity)
    found = measure(ChannelHistoryMetric(plan), drifting, fields, context=context)
    bulk = bulk_velocity(parabola[:, 0], y) * speed
    assert torch.allclose(found["channel_bulk_velocity_truth"], bulk)
    assert torch.allclose(found["channel_bulk_velocity_drift"], torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(found["wall_shear_stress_truth"], 2 * viscosity.double() * speed)
    reynolds = (2 * viscosity.double() * speed).sqrt() / viscosity.double()
    assert torch.allclose(found["instantaneous_friction_reynolds_number_truth"], reynolds)
    assert torch.allclose(found["instantaneous_friction_reynolds_number_prediction"], math.sqrt(1.5) * reynolds)
    assert torch.allclose(found["wall_slip_prediction"], 0.3 / bulk)
    assert torch.equal(found["wall_slip_truth"], torch.zeros(2, 3, dtype=torch.float64))


def test_cells_have_their_walls_half_a_spacing_away_and_no_slip_to_measure():
    y = (torch.arange(12, dtype=torch.float64) + 0.5) / 6
    plan = plane_plan(y, location="cell")
    geometry = ChannelGeometry.of(plan, "a test")
    assert geometry.walls == pytest.approx((0.0, 2.0))
    assert geometry.on_walls == (False, False)
    metric = ChannelHistoryMetric(plan, viscosity=0.1)
    assert not any("slip" in name for name in metric.variables)
    fields = torch.zeros(2, 2, 2, *plan.shape, dtype=torch.float64)
    fields[:, :, 0] = y * (2 - y)
    found = measure(metric, fields, fields)
    assert torch.allclose(found["wall_shear_stress_truth"], torch.tensor(0.2, dtype=torch.float64))
    profiles = measure(ChannelMetric(plan, viscosity=0.1), fields, fields)
    assert profiles["total_stress_deviation_truth"].item() < 1e-12
    assert profiles["friction_reynolds_number_truth"].item() == pytest.approx(math.sqrt(0.2) / 0.1)


def test_the_mean_flow_may_run_along_any_periodic_axis():
    plan = channel_plan(stretched(9), nx=6, nz=4, parameters=())
    fields = turbulent(plan)
    turned = fields.flip(2)  # w, v, u
    along_x = measure(ChannelMetric(plan, viscosity=0.1), fields, fields)
    along_z = measure(ChannelMetric(plan, viscosity=0.1, streamwise="z"), turned, turned)
    assert torch.allclose(along_x["shear_stress_plus_truth"], along_z["shear_stress_plus_truth"])
    assert torch.allclose(along_x["mean_velocity_plus_truth"], along_z["mean_velocity_plus_truth"])


def changed(plan, **changes):
    return RolloutPlan(**{**{name: getattr(plan, name) for name in plan.__dataclass_fields__}, **changes})


def test_data_that_are_no_channel_are_refused(small, square):
    periodic = Metadata("box", square, (Channel("velocity_x"), Channel("velocity_y")), frame_interval=0.1)
    box = RolloutPlan(periodic, 1, 1, square.uniform_coordinates((8, 8)))
    scalar = Metadata("scalar", small.metadata.grid, (Channel("temperature"),), frame_interval=0.1)
    uneven = (small.coordinates[0] ** 1.05, *small.coordinates[1:])
    staggered = plane_plan(stretched(9)).metadata
    staggered = Metadata(
        "staggered",
        staggered.grid,
        (Channel("velocity_x", location="face_x"), Channel("velocity_y", location="face_y")),
        0.1,
    )
    crossed = Metadata(
        "crossed",
        staggered.grid,
        (Channel("velocity_x", location="face_y"), Channel("velocity_y", location="face_x")),
        0.1,
    )
    faces = Metadata(
        "faces",
        staggered.grid,
        tuple(Channel(f"velocity_{name}", location="face_y") for name in "xy"),
        frame_interval=0.1,
    )
    plane = plane_plan(stretched(9))
    for plan, message in (
        (box, "exactly one axis that is not periodic"),
        (changed(small, metadata=scalar), "channels .*velocity_x"),
        (changed(small, coordinates=uneven), "evenly spaced periodic axes"),
        (changed(small, masked=True), "no mask"),
        (changed(small, shared_grid=False), "one grid"),
        (changed(plane, metadata=staggered), "walls="),
        (changed(plane, metadata=crossed), "same points, or each on the faces"),
        (changed(plane, metadata=faces), "same height"),
        (plane_plan(torch.tensor([0.0, 0.5, 2.0])), "at least four points"),
        (plane_plan(stretched(9), location="cell"), "walls="),
    ):
        for build in (ChannelMetric, ChannelHistoryMetric):
            with pytest.raises(ValueError, match=message):
                build(plan)


def test_arguments_that_do_not_fit_are_refused(small):
    for build in (ChannelMetric, ChannelHistoryMetric):
        with pytest.raises(ValueError, match="streamwise"):
            build(small, streamwise="y")
        with pytest.raises(ValueError, match="positive viscosity"):
            build(small, viscosity=0.0)
        with pytest.raises(ValueError, match="around the points"):
            build(small, walls=(0.5, 2.0))
    skew = plane_plan(torch.tensor([0.0, 0.1, 0.5, 1.4, 2.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="symmetric"):
        ChannelMetric(skew)
    ChannelHistoryMetric(skew)  # needs no symmetry
    fields = turbulent(small)
    with pytest.raises(ValueError, match="the context has none"):
        ChannelMetric(small).update(block_of(small, fields, fields))


# Vortices.


def square_points(n):
    return torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)


@pytest.mark.parametrize("spin", [-2.0, 0.7])
@pytest.mark.parametrize("dimension", [2, 3])
def test_q_of_rotation_strain_and_shear(dimension, spin):
    lines = [stretched(5 + axis) for axis in range(dimension)]
    matrices = [difference_matrix(line) for line in lines]
    x, y, *rest = torch.meshgrid(*lines, indexing="ij")
    still = [torch.zeros_like(x) for _ in rest]
    for components, expected in (
        ((-spin * y, spin * x), spin**2),
        ((spin * x, -spin * y), -(spin**2)),
        ((spin * y, 0 * x), 0.0),
        ((spin * (y + x), -spin * (x + y)), 0.0),
    ):
        found = q_criterion(torch.stack([*components, *still]), matrices)
        assert torch.allclose(found, torch.full_like(x, expected), atol=1e-10)


def test_q_is_half_of_rotation_less_strain_and_of_zero_mean():
    # A random solenoidal field in three dimensions from a vector potential; spectral derivatives all along.
    n = 8
    matrix = spectral_derivative_matrix(square_points(n), 2 * math.pi)
    potential = torch.randn(3, n, n, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def d(values, axis):
        return torch.tensordot(matrix, values, dims=([1], [axis])).movedim(0, axis)

    velocity = torch.stack(
        [d(potential[(i + 2) % 3], (i + 1) % 3) - d(potential[(i + 1) % 3], (i + 2) % 3) for i in range(3)]
    )
    gradient = torch.stack([torch.stack([d(velocity[j], i) for j in range(3)]) for i in range(3)])
    strain, spin = (gradient + gradient.transpose(0, 1)) / 2, (gradient - gradient.transpose(0, 1)) / 2
    expected = (spin.square().sum((0, 1)) - strain.square().sum((0, 1))) / 2
    found = q_criterion(velocity, [matrix] * 3)
    assert torch.allclose(found, expected)
    assert abs(found.mean().item()) < 1e-12 * found.abs().max().item() * n**3


def test_q_between_walls_is_of_second_order():
    errors = []
    for n in (17, 33, 65):
        x, y = square_points(8), stretched(n)
        xs, ys = torch.meshgrid(x, y, indexing="ij")
        velocity = torch.stack([torch.cos(xs) * torch.sin(2 * ys), 0.5 * torch.sin(xs) * torch.cos(2 * ys)])
        ux, uy = -torch.sin(xs) * torch.sin(2 * ys), 2 * torch.cos(xs) * torch.cos(2 * ys)
        vx, vy = 0.5 * torch.cos(xs) * torch.cos(2 * ys), -torch.sin(xs) * torch.sin(2 * ys)
        exact = -(ux**2 + vy**2 + 2 * uy * vx) / 2
        found = q_criterion(velocity, [spectral_derivative_matrix(x, 2 * math.pi), difference_matrix(y)])
        errors.append((found - exact).abs().max().item())
    assert errors[0] / errors[1] > 3
    assert errors[1] / errors[2] > 3


@pytest.mark.parametrize("n", [7, 8, 12])
def test_spectral_matrix_is_exact_below_nyquist_and_blind_at_it(n):
    x = square_points(n)
    matrix = spectral_derivative_matrix(x, 2 * math.pi)
    for wave in range((n + 1) // 2):
        assert torch.allclose(matrix @ torch.sin(wave * x), wave * torch.cos(wave * x), atol=1e-12)
    if n % 2 == 0:
        assert (matrix @ torch.cos(n // 2 * x)).abs().max().item() < 1e-12


def test_q_refuses_components_that_do_not_fit():
    with pytest.raises(ValueError, match=r"Expected velocity \(\.\.\., 2"):
        q_criterion(torch.zeros(3, 4, 4), [torch.eye(4)] * 2)


def taylor_green(plan, amplitudes):
    """Rollouts of ``(sin x cos y, -cos x sin y)``, whose Q is ``-(cos 2x + cos 2y) / 2`` and has rms 1/2."""
    x, y = torch.meshgrid(*plan.coordinates, indexing="ij")
    velocity = torch.stack([torch.sin(x) * torch.cos(y), -torch.cos(x) * torch.sin(y)])
    return amplitudes[..., None, None, None] * velocity


def periodic_plan(n=32, trajectories=2, frames=3, **options):
    grid = Grid((Axis("x", period=2 * math.pi, units="m"), Axis("y", period=2 * math.pi, units="m")))
    metadata = Metadata("vortices", grid, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")), 0.1)
    return RolloutPlan(metadata, trajectories, frames, grid.uniform_coordinates((n, n)), **options)


def test_vortices_of_a_taylor_green_flow():
    plan = periodic_plan()
    amplitudes = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]], dtype=torch.float64)
    target = taylor_green(plan, amplitudes)
    metric = VortexMetric(plan)
    found = measure(metric, math.sqrt(3) * target, target)
    rms = 0.5 * amplitudes.pow(4).mean().sqrt().item()
    assert found["q_criterion_rms_truth"].item() == pytest.approx(rms)
    assert found["q_criterion_rms_prediction"].item() == pytest.approx(3 * rms)
    assert found["q_criterion_rms_deviation"].item() == pytest.approx(2.0)
    assert metric.variables["q_criterion_rms_truth"].units == "((m/s)/m)^2"
    # Q is antisymmetric under a shift of a quarter of the box in both directions; it vanishes on lines of points.
    x, y = torch.meshgrid(*plan.coordinates, indexing="ij")
    exact = -(torch.cos(2 * x) + torch.cos(2 * y)) / 2
    on_line = (exact.abs() < 1e-12).double().mean().item()
    assert abs(found["vortex_fraction_truth"].item() - 0.5) <= on_line
    widths = metric.edges.diff()
    for side in ("prediction", "truth"):
        assert (found[f"q_criterion_density_{side}"] * widths).sum().item() == pytest.approx(1.0)
    standardized = (exact / 0.5).flatten().numpy()
    shares = np.histogram(standardized[np.abs(standardized) > 1e-9], metric.edges)[0] / standardized.size
    shares[metric.bins // 2] += (np.abs(standardized) <= 1e-9).mean()
    assert np.allclose(found["q_criterion_density_truth"] * widths, shares, atol=on_line)
    assert 0.1 < found["q_criterion_density_distance"].item() <= 1.0
    same = measure(VortexMetric(plan), target, target)
    assert same["q_criterion_density_distance"].item() == 0.0
    assert same["q_criterion_rms_deviation"].item() == 0.0


def test_vortices_are_weighted_by_the_height_that_points_stand_for():
    plan = plane_plan(stretched(33), nx=8, frames=1)
    target = turbulent(plan)
    metric = VortexMetric(plan)
    found = measure(metric, target, target)
    matrices = [spectral_derivative_matrix(plan.coordinates[0], 2 * math.pi), difference_matrix(plan.coordinates[1])]
    q = q_criterion(target[:, 0], matrices)
    weights = height_weights(plan.coordinates[1]) / 8
    rms = (q.square() * weights).sum((1, 2)).mean().sqrt()
    assert found["q_criterion_rms_truth"].item() == pytest.approx(rms.item())
    assert found["vortex_fraction_truth"].item() == pytest.approx(((q > 0) * weights).sum((1, 2)).mean().item())
    scale = (q.square() * weights).sum((1, 2), keepdim=True).sqrt()
    shares = [
        np.histogram(frame.flatten(), metric.edges, weights=weights.expand(8, -1).flatten())[0] for frame in q / scale
    ]
    assert np.allclose(found["q_criterion_density_truth"] * metric.edges.diff(), np.mean(shares, 0))


def test_every_other_frame_is_enough_where_one_says_so():
    plan = periodic_plan(n=8, frames=5)
    amplitudes = torch.tensor([[1.0, 9.0, 2.0, 9.0, 3.0], [2.0, 9.0, 1.0, 9.0, 0.5]], dtype=torch.float64)
    target = taylor_green(plan, amplitudes)
    rms = 0.5 * amplitudes[:, ::2].pow(4).mean().sqrt().item()
    for length in (1, 2, 5):
        found = measure(VortexMetric(plan, every=2), target, target, length=length)
        assert found["q_criterion_rms_truth"].item() == pytest.approx(rms)


def test_long_rollouts_are_not_measured_at_every_frame():
    assert [VortexMetric(periodic_plan(n=8, frames=frames)).every for frames in (1, 32, 33, 320)] == [1, 1, 2, 10]


def test_a_flow_without_vortices_has_no_density():
    plan = periodic_plan(n=8)
    target = torch.zeros(2, 3, 2, 8, 8)
    found = measure(VortexMetric(plan), target, target)
    assert found["q_criterion_rms_truth"].item() == 0.0
    assert found["q_criterion_density_truth"].isnan().all()
    assert found["q_criterion_density_distance"].isnan()


def test_vorticity_alone_is_solved_for_the_velocity():
    plan = periodic_plan(n=16)
    single = Metadata("vorticity", plan.metadata.grid, (Channel("vorticity", "1/s"),), frame_interval=0.1)
    single_plan = RolloutPlan(single, 2, 3, plan.coordinates)
    x, y = torch.meshgrid(*plan.coordinates, indexing="ij")
    vorticity = (2 * torch.sin(x) * torch.sin(y)).expand(2, 3, 1, 16, 16)
    found = measure(VortexMetric(single_plan), vorticity, vorticity)
    assert found["q_criterion_rms_truth"].item() == pytest.approx(0.5)


def test_vortex_metric_refuses_what_does_not_fit(small):
    with pytest.raises(ValueError, match="odd number of bins"):
        VortexMetric(small, bins=40)
    with pytest.raises(ValueError, match="odd number of bins"):
        VortexMetric(small, every=0)
    with pytest.raises(ValueError, match="no mask"):
        VortexMetric(changed(small, masked=True))
    with pytest.raises(ValueError, match="one grid"):
        VortexMetric(changed(small, shared_grid=False))
    scalar = Metadata("scalar", small.metadata.grid, (Channel("temperature"),), frame_interval=0.1)
    with pytest.raises(ValueError, match="leave this metric out"):
        VortexMetric(changed(small, metadata=scalar))

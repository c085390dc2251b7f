import math
import pickle

import numpy as np
import pytest
import torch

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.conservation import (
    BudgetMetric,
    DivergenceMetric,
    EnergyDriftMetric,
    FluxBalanceMetric,
    IntegralMetric,
    NoSlipMetric,
    boundary_flow_rates,
    cumulative_integral,
    solid_points,
)
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.operators import divergence, gradient, velocity_from_vorticity
from pdesurrogate.simulators.forcing import KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d

LENGTH = 2 * math.pi
SQUARE = Grid((Axis("x", period=LENGTH, units="m"), Axis("y", period=LENGTH, units="m")))
OPEN = Grid((Axis("x", units="m"), Axis("y", units="m")))
SHAPE = (16, 16)
X, Y = torch.meshgrid(*SQUARE.uniform_coordinates(SHAPE), indexing="ij")


def velocity_channels(*locations):
    return tuple(
        Channel(f"velocity_{axis}", "m/s", location=place) for axis, place in zip("xyz", locations, strict=False)
    )


def metadata_of(grid, channels, parameters=(), interval=0.1):
    return Metadata("example", grid, channels, interval, parameters=parameters, time_units="s")


VORTICITY = metadata_of(SQUARE, (Channel("vorticity", "1/s"),), ("viscosity", "drag"))
VELOCITY = metadata_of(SQUARE, velocity_channels("node", "node"), ("viscosity", "drag"))
BOX = metadata_of(OPEN, velocity_channels("node", "node"))


def plan_of(metadata, frames, coordinates=None, trajectories=1, masked=False):
    coordinates = metadata.grid.uniform_coordinates(SHAPE) if coordinates is None else coordinates
    return RolloutPlan(metadata, trajectories, frames, tuple(coordinates), masked)


def context_of(plan, batch=1, **more):
    return Context(tuple(points.expand(batch, -1) for points in plan.coordinates), **more)


def measured(metric, prediction, truth, *, block=None, batch=None, **more):
    """Outputs for rollouts ``(trajectory, time, channel, *space)``, given in blocks and batches of any size."""
    count, frames = truth.shape[:2]
    for numbers in torch.arange(count).split(batch or count):
        context = context_of(metric.plan, len(numbers), **{name: part[numbers] for name, part in more.items()})
        for first in range(0, frames, block or frames):
            now = slice(first, first + (block or frames))
            metric.update(Block(metric.plan, prediction[numbers, now], truth[numbers, now], first, numbers, context))
    outputs = metric.compute()
    assert set(outputs) == set(metric.variables)
    assert all(score.variable in outputs for score in metric.scores.values())
    return outputs


def listed(outputs, name):
    return outputs[name].flatten().tolist()


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def vortices(amplitude=1.0, mean=0.0):
    """Vorticity (1, 1, 1, x, y) of the Taylor-Green vortices with kinetic energy amplitude^2 / 4."""
    return (2 * amplitude * torch.cos(X) * torch.cos(Y) + mean)[None, None, None]


def taylor_green(amplitude=1.0, mean=(0.0, 0.0)):
    """The velocity (1, 1, 2, x, y) of `vortices`, carried along by a mean flow."""
    u = -amplitude * torch.cos(X) * torch.sin(Y) + mean[0]
    v = amplitude * torch.sin(X) * torch.cos(Y) + mean[1]
    return torch.stack([u, v])[None, None]


# Integrals in time


def test_cubics_are_integrated_exactly_and_short_series_by_trapezoids():
    times = torch.arange(7, dtype=torch.float64) / 2
    rates = torch.stack([4 * times**3, 3 * times**2 - 1])
    assert torch.allclose(cumulative_integral(rates, 0.5), torch.stack([times**4, times**3 - times]), atol=1e-13)
    expected = [0.0, *np.cumsum([1.5, 3.5]).tolist()]
    assert cumulative_integral(torch.tensor([1.0, 2.0, 5.0]), 1.0).tolist() == expected
    assert cumulative_integral(torch.tensor([3.0]), 1.0).tolist() == [0.0]


def test_the_integral_is_of_order_four():
    errors = []
    for frames in (21, 41, 81):
        times = torch.linspace(0, 2, frames, dtype=torch.float64)
        wrong = cumulative_integral(torch.exp(-times), 2 / (frames - 1)) - (1 - torch.exp(-times))
        errors.append(wrong.abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(16, rel=0.1)


def test_the_integral_goes_on_until_a_trajectory_stops():
    rates = torch.tensor([1.0, 1.0, 1.0, 1.0, math.nan, math.nan], dtype=torch.float64)
    assert cumulative_integral(rates, 1.0)[:4].tolist() == pytest.approx([0, 1, 2, 3])
    assert cumulative_integral(rates, 1.0)[4:].isnan().all()
    with pytest.raises(ValueError, match=r"positive interval but got 0\.0"):
        cumulative_integral(rates, 0.0)


# Divergence


@pytest.mark.parametrize("shape", [(16, 16), (9, 12), (8, 7)])
def test_the_spectral_divergence_is_that_of_the_operator(shape):
    plan = plan_of(VELOCITY, 2, SQUARE.uniform_coordinates(shape), trajectories=3)
    prediction, truth = noise(2, 3, 2, 2, *shape)
    outputs = measured(DivergenceMetric(plan), prediction, truth)
    for side, values in (("prediction", prediction), ("truth", truth)):
        expected = divergence(values, SQUARE.periods).square().mean((-2, -1)).sqrt()
        assert torch.allclose(outputs[f"divergence_{side}"], expected, rtol=1e-6)  # single-precision tables
    assert DivergenceMetric(plan).variables["divergence_truth"].units == "(m/s)/m"


def test_relative_divergence_of_a_source_of_a_curl_and_of_noise():
    source = torch.stack([torch.sin(2 * X), torch.zeros_like(X)])[None, None]
    prediction = torch.cat([source, taylor_green(), noise(1, 1, 2, *SHAPE)], 1)
    outputs = measured(DivergenceMetric(plan_of(VELOCITY, 3)), prediction, torch.zeros_like(prediction))
    assert listed(outputs, "divergence_prediction")[:2] == pytest.approx([math.sqrt(2), 0], abs=1e-12)
    # One axis of two: white noise has half of its gradient in the divergence.
    expected = [1, 0, math.sqrt(0.5)]
    assert listed(outputs, "relative_divergence_prediction") == pytest.approx(expected, abs=0.05)
    assert listed(outputs, "relative_divergence_truth") == [0, 0, 0]


def stretched_box(sizes=(9, 12)):
    return tuple(torch.linspace(0, 1, size, dtype=torch.float64) ** 1.5 for size in sizes)


def trapezoid_mean(values, coordinates):
    for points in reversed(coordinates):
        values = np.trapezoid(values, points.numpy(), axis=-1) / float(points[-1] - points[0])
    return values


def test_walls_get_second_order_stencils_on_the_coordinates():
    points = stretched_box()
    plan = plan_of(BOX, 2, points)
    fields = noise(1, 2, 2, 9, 12)
    outputs = measured(DivergenceMetric(plan), fields, fields)
    (u_x, u_y), (v_x, v_y) = (
        np.gradient(fields[:, :, i].numpy(), *(p.numpy() for p in points), axis=(-2, -1), edge_order=2)
        for i in range(2)
    )
    expected = np.sqrt(trapezoid_mean((u_x + v_y) ** 2, points))
    scale = np.sqrt(trapezoid_mean(u_x**2 + u_y**2 + v_x**2 + v_y**2, points))
    assert np.allclose(outputs["divergence_truth"], expected)
    assert np.allclose(outputs["relative_divergence_prediction"], expected / scale)


def test_one_uneven_or_open_axis_is_enough_for_differences():
    uneven = SQUARE.uniform_coordinates(SHAPE)[0] + 0.3 * torch.sin(SQUARE.uniform_coordinates(SHAPE)[0])
    plan = plan_of(VELOCITY, 1, (uneven, SQUARE.uniform_coordinates(SHAPE)[1]))
    assert not DivergenceMetric(plan).spectral
    constant = torch.ones(1, 1, 2, *SHAPE, dtype=torch.float64)
    assert measured(DivergenceMetric(plan), constant, constant)["divergence_truth"].item() < 1e-14


def test_a_discrete_curl_is_free_of_divergence_only_with_the_stencil_of_its_staggering():
    psi = noise(*SHAPE)
    # On square cells differences of corner values are velocities on faces.
    faces = torch.stack([psi.roll(-1, 1) - psi, psi - psi.roll(-1, 0)])[None, None]
    declared = metadata_of(SQUARE, velocity_channels("face_x", "face_y"))
    right = measured(DivergenceMetric(plan_of(declared, 1)), faces, faces)
    wrong = measured(DivergenceMetric(plan_of(VELOCITY, 1)), faces, faces)
    assert right["relative_divergence_truth"].item() < 1e-14
    assert wrong["relative_divergence_truth"].item() > 0.1


def test_faces_of_a_box_with_walls_leave_out_the_last_cells():
    size = 8
    points = (torch.arange(size, dtype=torch.float64) + 0.5,) * 2
    declared = metadata_of(OPEN, velocity_channels("face_x", "face_y"))
    psi = noise(size + 1, size + 1)
    faces = torch.stack([psi.diff(dim=1)[:-1], -psi.diff(dim=0)[:, :-1]])[None, None]
    # Faces of the last cells have a partner that is not stored: whatever they hold does not count along their axis.
    spoiled = faces.clone()
    spoiled[..., 0, :, -1] += 1.0
    spoiled[..., 1, -1, :] += 1.0
    outputs = measured(DivergenceMetric(plan_of(declared, 1, points)), spoiled, faces)
    assert outputs["relative_divergence_truth"].item() < 1e-14
    assert outputs["divergence_prediction"].item() < 1e-14


def test_what_is_stored_in_a_body_does_not_count():
    points = stretched_box()
    x, y = torch.meshgrid(*points, indexing="ij")
    fields = torch.stack([2 * x + y, y - 3 * x])[None, None]
    mask = torch.ones(1, 9, 12, dtype=torch.bool)
    mask[:, 3:5, 5:8] = False
    fields = torch.where(mask, fields, math.nan)
    outputs = measured(DivergenceMetric(plan_of(BOX, 1, points, masked=True)), fields, fields, mask=mask)
    assert outputs["divergence_truth"].item() == pytest.approx(3.0)
    assert outputs["relative_divergence_truth"].item() == pytest.approx(3 / math.sqrt(4 + 1 + 1 + 9))


def test_divergence_in_three_dimensions():
    cube = Grid(tuple(Axis(name, period=LENGTH) for name in "xyz"))
    points = cube.uniform_coordinates((6, 8, 5))
    plan = plan_of(metadata_of(cube, velocity_channels("cell", "cell", "cell")), 1, points)
    x, y, z = torch.meshgrid(*points, indexing="ij")
    source = torch.stack([torch.sin(x), torch.sin(y), torch.sin(z)])[None, None]
    outputs = measured(DivergenceMetric(plan), source, source)
    assert outputs["divergence_truth"].item() == pytest.approx(math.sqrt(1.5))


@pytest.mark.parametrize(
    "locations", [("node", "cell"), ("face_x", "node"), ("face_x", "face_x"), ("face_y", "face_x")]
)
def test_locations_that_do_not_go_together_are_refused(locations):
    with pytest.raises(ValueError, match=r"all at nodes, all in cells, or on .*'face_x', 'face_y'.* but they are"):
        DivergenceMetric(plan_of(metadata_of(SQUARE, velocity_channels(*locations)), 1))


# Drifts


def test_drift_of_the_means_of_any_channels():
    line = metadata_of(Grid((Axis("x"),)), (Channel("density", "kg/m^3"), Channel("charge", "C")))
    points = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    truth = torch.tensor([[3.0, 3.0, 3.0], [3.0, -1.0, 1.0]]).double().expand(1, 2, 2, 3).clone()
    prediction = truth.clone()
    prediction[:, 1, 0] += torch.tensor([0.0, 2.0, 0.0])  # weights 0.5, 1.5, 1 of 3
    outputs = measured(IntegralMetric(plan_of(line, 2, (points,))), prediction, truth)
    assert listed(outputs, "drift_integral_prediction") == pytest.approx([0, 0, 1 / 3, 0], abs=1e-7)
    assert listed(outputs, "drift_integral_truth") == pytest.approx([0, 0, 0, 0], abs=1e-7)
    assert listed(outputs, "drift_integral_error") == pytest.approx([0, 0, 1 / 3, 0], abs=1e-7)


def test_drifts_of_prediction_and_truth_start_at_the_truth():
    truth = torch.cat([vortices(1.0, mean=2.0), vortices(1.0, mean=3.0)], 1)
    outputs = measured(IntegralMetric(plan_of(VORTICITY, 2)), truth + 0.5, truth)
    scale = math.sqrt(1 + (4 + 9) / 2)
    assert listed(outputs, "drift_integral_truth") == pytest.approx([0, 1 / scale])
    assert listed(outputs, "drift_integral_prediction") == pytest.approx([0.5 / scale, 1.5 / scale])
    assert listed(outputs, "drift_integral_error") == pytest.approx([0.5 / scale] * 2)


def test_a_body_does_not_count_in_an_integral():
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    mask[:, 4:8, 4:8] = False
    truth = torch.where(mask, 2.0, math.nan)[:, None, None]
    outputs = measured(IntegralMetric(plan_of(VORTICITY, 1, masked=True)), 1.5 * truth, truth, mask=mask)
    assert outputs["drift_integral_prediction"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("given", ["vorticity", "velocity"])
def test_drifts_of_energy_and_enstrophy_go_with_the_square_of_the_amplitude(given):
    flow, metadata = (vortices, VORTICITY) if given == "vorticity" else (taylor_green, VELOCITY)
    truth = torch.cat([flow(2.0), flow(1.0)], 1)
    prediction = torch.cat([flow(1.0), flow(3.0)], 1)
    outputs = measured(EnergyDriftMetric(plan_of(metadata, 2)), prediction, truth)
    for name in ("energy", "enstrophy"):
        assert listed(outputs, f"drift_{name}_truth") == pytest.approx([0, -0.75])
        assert listed(outputs, f"drift_{name}_prediction") == pytest.approx([-0.75, 1.25])
        assert listed(outputs, f"drift_{name}_error") == pytest.approx([0.75, 2.0])


def test_energy_of_a_three_dimensional_flow():
    cube = Grid(tuple(Axis(name, period=LENGTH) for name in "xyz"))
    points = cube.uniform_coordinates((8, 6, 8))
    x, y, z = torch.meshgrid(*points, indexing="ij")
    # Arnold-Beltrami-Childress flow: its curl is itself, so enstrophy is energy.
    flow = torch.stack([torch.sin(z) + torch.cos(y), torch.sin(x) + torch.cos(z), torch.sin(y) + torch.cos(x)])
    plan = plan_of(metadata_of(cube, velocity_channels("node", "node", "node")), 1, points)
    metric = EnergyDriftMetric(plan)
    outputs = measured(metric, 2 * flow[None, None], flow[None, None])
    assert metric.curve("truth").flatten().tolist() == pytest.approx([1.5, 1.5])
    assert listed(outputs, "drift_enstrophy_error") == pytest.approx([3.0])


def test_energy_between_walls_is_taken_by_quadrature_and_on_faces_without_enstrophy():
    points = stretched_box()
    fields = noise(1, 1, 2, 9, 12)
    metric = EnergyDriftMetric(plan_of(BOX, 1, points))
    assert metric.quantities == ("energy",)
    measured(metric, fields, fields)
    expected = trapezoid_mean(fields.square().sum(2).numpy() / 2, points)
    assert metric.curve("truth")[..., 0].numpy() == pytest.approx(expected)
    faces = EnergyDriftMetric(plan_of(metadata_of(SQUARE, velocity_channels("face_x", "face_y")), 1))
    assert list(faces.scores) == ["energy_drift"]


# Budgets


def decaying_vortices(flow, frames, interval, viscosity, drag, wrong=1.0):
    """Taylor-Green vortices: the amplitude falls as exp(-(2 nu + a) t); ``wrong`` times as fast if asked."""
    times = interval * torch.arange(frames, dtype=torch.float64)
    amplitudes = torch.exp(-wrong * (2 * viscosity + drag) * times)
    return amplitudes[None, :, None, None, None] * flow(1.0)


@pytest.mark.parametrize("given", ["vorticity", "velocity"])
def test_the_budget_of_taylor_green_closes_with_the_order_of_the_quadrature(given):
    flow, channels = (vortices, VORTICITY.channels) if given == "vorticity" else (taylor_green, VELOCITY.channels)
    viscosity, drag = 0.3, 0.2
    errors = []
    for frames in (33, 65, 129):
        metadata = metadata_of(SQUARE, channels, ("drag", "viscosity"), interval=1.6 / (frames - 1))
        truth = decaying_vortices(flow, frames, metadata.frame_interval, viscosity, drag)
        parameters = torch.tensor([[drag, viscosity]], dtype=torch.float64)
        outputs = measured(BudgetMetric(plan_of(metadata, frames)), truth, truth, parameters=parameters)
        errors.append([outputs[f"budget_{name}_truth"].abs().max().item() for name in ("energy", "enstrophy")])
    first, second, third = np.array(errors)
    assert (first < 1e-6).all()
    assert np.allclose(first / second, 16, rtol=0.2)
    assert np.allclose(second / third, 16, rtol=0.1)


def test_a_wrong_decay_is_seen_along_the_own_trajectory():
    # Energy exp(-2 g t), but twice the viscosity is lost: residual e(t) - 1 + (1 - e(t)) / 2 with g twice as large.
    frames, viscosity = 21, 0.1
    plan = plan_of(VORTICITY, frames)
    truth = decaying_vortices(vortices, frames, 0.1, viscosity, 0.0)
    prediction = decaying_vortices(vortices, frames, 0.1, viscosity, 0.0, wrong=2.0)
    parameters = torch.tensor([[viscosity, 0.0]], dtype=torch.float64)
    outputs = measured(BudgetMetric(plan), prediction, truth, parameters=parameters, block=4)
    energy = torch.exp(-8 * viscosity * 0.1 * torch.arange(frames).double())
    assert torch.allclose(outputs["budget_energy_prediction"][0], (energy - 1) / 2, atol=1e-5)
    assert torch.allclose(outputs["budget_energy_error"], outputs["budget_energy_prediction"].abs(), atol=1e-5)
    assert outputs["budget_energy_truth"].abs().max() < 1e-6


@pytest.mark.parametrize("drag", [0.0, 0.4])
def test_momentum_and_circulation_fall_with_drag_alone(drag):
    frames, steps = 6, torch.arange(6, dtype=torch.float64)[None, :, None, None, None]
    parameters = torch.tensor([[0.05, drag]], dtype=torch.float64)
    decay = torch.exp(-0.4 * 0.1 * steps)
    for flow, metadata, names in (
        (lambda mean: vortices(0.0, mean=mean), VORTICITY, ["circulation"]),
        (lambda mean: taylor_green(0.0, mean=(mean, mean)), VELOCITY, ["momentum_x", "momentum_y"]),
    ):
        truth = flow(1.0) * decay
        outputs = measured(BudgetMetric(plan_of(metadata, frames)), truth, truth, parameters=parameters)
        for name in names:
            residual = outputs[f"budget_{name}_truth"].abs().max().item()
            scale = 1.0 if name == "circulation" else math.sqrt(0.5)
            assert residual == pytest.approx(0.0 if drag else (1 - math.exp(-0.2)) * scale, abs=1e-7)


FORCING = KolmogorovForcing(wavenumber=2, amplitude=0.5)
VISCOSITY, DRAG = 0.02, 0.1


def solver_run(forcing=None, frames=9, mean=0.0):
    """Vorticity (1, time, 1, x, y) of a turbulent start, well resolved, in double precision."""
    solver = NavierStokes2d(
        32, VISCOSITY, frame_interval=0.05, steps_per_frame=5, drag=DRAG, forcing=forcing, precision="float64"
    )
    points = SQUARE.uniform_coordinates((32, 32))
    x, y = torch.meshgrid(*points, indexing="ij")
    state = (2 * torch.cos(x) * torch.cos(2 * y) + torch.sin(3 * x + y) + torch.cos(2 * x - y) + mean)[None, None]
    states = [state]
    for _ in range(frames - 1):
        states.append(solver.advance(states[-1], 5))
    source = FORCING.vorticity_source(x, y, SQUARE.periods)
    return torch.stack(states, 1), source, points


@pytest.mark.parametrize("given", ["vorticity", "velocity"])
@pytest.mark.parametrize("forced", [False, True])
def test_budgets_of_solver_trajectories_close(given, forced):
    truth, source, points = solver_run(FORCING if forced else None)
    forcing = source[None, None]
    channels = VORTICITY.channels
    if given == "velocity":
        truth, channels = velocity_from_vorticity(truth[:, :, 0], SQUARE.periods), VELOCITY.channels
        # Pressure takes up a gradient; the flow does not feel it.
        x, y = torch.meshgrid(*points, indexing="ij")
        forcing = velocity_from_vorticity(source, SQUARE.periods) + gradient(3 * torch.sin(x + 2 * y), SQUARE.periods)
        forcing = forcing[None]
    metadata = metadata_of(SQUARE, channels, ("viscosity", "drag"), interval=0.05)
    plan = plan_of(metadata, truth.shape[1], points)
    more = {"parameters": torch.tensor([[VISCOSITY, DRAG]], dtype=torch.float64)}
    if forced:
        more["forcing"] = forcing
    frozen = truth[:, :1].expand_as(truth)
    outputs = measured(BudgetMetric(plan), frozen, truth, **more)
    change = EnergyDriftMetric(plan)
    drifts = measured(change, frozen, truth)
    for name in ("energy", "enstrophy"):
        # Left is the fourth-order error of the integral.
        assert outputs[f"budget_{name}_truth"].abs().max() < 2e-6
        assert drifts[f"drift_{name}_truth"].abs().max() > 1e-2
        assert outputs[f"budget_{name}_prediction"].abs().max() > 1e-2
    if forced:
        del more["forcing"]
        unknown = measured(BudgetMetric(plan), frozen, truth, **more)
        assert unknown["budget_energy_truth"].abs().max() > 1e-3


@pytest.mark.parametrize("mean", [1.0, 5.0])
def test_a_mean_vorticity_dissipates_no_energy(mean):
    truth, source, points = solver_run(FORCING, mean=mean)
    assert truth[0, -1].mean().item() == pytest.approx(mean * math.exp(-DRAG * 8 * 0.05), rel=1e-6)
    plan = plan_of(metadata_of(SQUARE, VORTICITY.channels, VORTICITY.parameters, 0.05), truth.shape[1], points)
    more = {"parameters": torch.tensor([[VISCOSITY, DRAG]], dtype=torch.float64), "forcing": source[None, None]}
    outputs = measured(BudgetMetric(plan), truth, truth, **more)
    for name in ("energy", "enstrophy", "circulation"):
        assert outputs[f"budget_{name}_truth"].abs().max() < 2e-6, name  # the fourth-order error of the integral


def test_a_mean_force_pushes_the_mean():
    frames = 5
    times = 0.1 * torch.arange(frames, dtype=torch.float64)
    truth = taylor_green(0.0, mean=(1.0, 0.0)) + 0.5 * times[None, :, None, None, None]
    forcing = torch.full((1, 2, *SHAPE), 0.5, dtype=torch.float64)
    more = {"parameters": torch.zeros(1, 2, dtype=torch.float64), "forcing": forcing}
    outputs = measured(BudgetMetric(plan_of(VELOCITY, frames)), truth, truth, **more)
    for name in ("energy", "momentum_x", "momentum_y"):
        assert outputs[f"budget_{name}_truth"].abs().max() < 1e-7, name


def test_budgets_claim_nothing_without_what_they_need():
    with pytest.raises(ValueError, match=r"parameter 'viscosity' for budgets but the data have \('nu',\)"):
        BudgetMetric(plan_of(metadata_of(SQUARE, VORTICITY.channels, ("nu",)), 4))
    BudgetMetric(plan_of(metadata_of(SQUARE, VORTICITY.channels, ("nu",)), 4), viscosity="nu")
    with pytest.raises(ValueError, match="at least two frames for budgets but got 1"):
        BudgetMetric(plan_of(VORTICITY, 1))
    for plan in (
        plan_of(BOX, 4, stretched_box()),
        plan_of(VELOCITY, 4, masked=True),
        plan_of(metadata_of(SQUARE, velocity_channels("face_x", "face_y"), ("viscosity",)), 4),
    ):
        with pytest.raises(ValueError, match="plane periodic flow at evenly spaced points"):
            BudgetMetric(plan)
    truth = torch.cat([vortices()] * 4, 1)
    with pytest.raises(ValueError, match=r"parameters .* in the context but it has none"):
        measured(BudgetMetric(plan_of(VORTICITY, 4)), truth, truth)
    with pytest.raises(ValueError, match=r"forcing \(1, 1, 16, 16\), one source for each channel"):
        measured(
            BudgetMetric(plan_of(VORTICITY, 4)),
            truth,
            truth,
            parameters=torch.zeros(1, 2),
            forcing=torch.zeros(1, 1, 8, 8),
        )


# Boundaries


def channel_flow(speed=1.0, leak=0.0):
    """Parabolic inflow (1, 1, 2, x, y) on uneven points that gains ``leak`` of its flow rate on the way."""
    points = torch.linspace(0, 3, 7, dtype=torch.float64), 2 * torch.sin(torch.linspace(0, math.pi / 2, 41).double())
    x, y = torch.meshgrid(*points, indexing="ij")
    profile = speed * y * (2 - y) * (1 + leak * x / 3)
    return torch.stack([profile, torch.zeros_like(profile)])[None, None], points


def test_what_flows_in_must_flow_out():
    truth, points = channel_flow()
    prediction, _ = channel_flow(leak=0.2)
    metric = FluxBalanceMetric(plan_of(BOX, 1, points))
    outputs = measured(metric, prediction, truth)
    assert metric.coordinates["boundary"].values == ["x_low", "x_high", "y_low", "y_high"]
    assert metric.variables["flow_rate_truth"].units == "(m/s) m"
    rate = np.trapezoid((points[1] * (2 - points[1])).numpy(), points[1].numpy())
    assert rate == pytest.approx(4 / 3, rel=2e-3)
    assert listed(outputs, "flow_rate_truth") == pytest.approx([rate, rate, 0, 0])
    assert listed(outputs, "flow_rate_prediction") == pytest.approx([rate, 1.2 * rate, 0, 0])
    assert listed(outputs, "flow_rate_error") == pytest.approx([0, 0.2, 0, 0], abs=1e-12)
    assert outputs["flux_imbalance_truth"].item() < 1e-14
    assert outputs["flux_imbalance_prediction"].item() == pytest.approx(0.2)


def test_a_leak_of_a_closed_box_is_measured_by_the_speed_inside():
    points = tuple(torch.linspace(0, 1, 9, dtype=torch.float64) for _ in range(2))
    truth = torch.zeros(1, 2, 2, 9, 9, dtype=torch.float64)
    truth[:, :, 0, 1:-1, 1:-1] = 1.0
    prediction = truth.clone()
    prediction[:, :, 0, -1] = 0.1
    outputs = measured(FluxBalanceMetric(plan_of(BOX, 2, points)), prediction, truth, block=1)
    speed = math.sqrt((7 / 8) ** 2)
    assert listed(outputs, "flux_imbalance_prediction") == pytest.approx([0.1 / (speed * 4 / 2)] * 2)
    assert listed(outputs, "flux_imbalance_truth") == [0, 0]


def test_only_open_ends_and_their_fluid_count_in_three_dimensions():
    grid = Grid((Axis("x", units="m"), Axis("y", period=2.0, units="m"), Axis("z", units="m")))
    points = torch.linspace(0, 1, 4).double(), torch.arange(4).double() / 2, torch.linspace(0, 3, 5).double()
    metadata = metadata_of(grid, velocity_channels("node", "node", "node"))
    mask = torch.ones(2, 4, 4, 5, dtype=torch.bool)
    mask[1, :, :2] = False  # half of the second case is solid
    flow = torch.full((2, 1, 3, 4, 4, 5), 2.0, dtype=torch.float64)
    flow = torch.where(mask[:, None, None], flow, math.nan)
    plan = plan_of(metadata, 1, points, trajectories=2, masked=True)
    metric = FluxBalanceMetric(plan)
    outputs = measured(metric, flow, flow, mask=mask)
    assert metric.variables["flow_rate_truth"].units == "(m/s) m^2"
    assert metric.coordinates["boundary"].values == ["x_low", "x_high", "z_low", "z_high"]
    assert outputs["flow_rate_truth"][:, 0].tolist() == [[12.0, 12.0, 4.0, 4.0], [6.0, 6.0, 2.0, 2.0]]
    with pytest.raises(ValueError, match="such a box has no boundary"):
        boundary_flow_rates(taylor_green(), SQUARE, context_of(plan_of(VELOCITY, 1)))


def cavity(lid=1.0):
    """A box at rest on its walls but for a moving lid at the top; something turns inside. (1, 1, 2, x, y)."""
    flow = torch.zeros(1, 1, 2, 9, 9, dtype=torch.float64)
    flow[:, :, :, 1:-1, 1:-1] = 0.3
    flow[:, :, 0, :, -1] = lid
    return flow


def test_a_moving_lid_is_no_violation_but_a_sliding_wall_is():
    points = tuple(torch.linspace(0, 1, 9, dtype=torch.float64) for _ in range(2))
    truth = cavity()
    solid = solid_points(truth, OPEN)
    assert solid.shape == (1, 1, 1, 9, 9)
    assert int(solid.sum()) == 8 + 8 + 9 - 2  # two sides and the bottom; the lid with its corners moves
    sliding = truth.clone()
    sliding[:, :, 1, :, 0] = 0.5
    sliding[:, :, 0, :, -1] = 7.0  # a wrong lid is an error, not a violation
    prediction = torch.cat([truth, sliding], 1)
    outputs = measured(NoSlipMetric(plan_of(BOX, 2, points)), prediction, torch.cat([truth] * 2, 1))
    speed = math.sqrt(trapezoid_mean(truth[0, 0].square().sum(0).numpy(), points))
    expected = 0.5 * math.sqrt(9 / 23) / speed
    assert listed(outputs, "no_slip_violation_prediction") == pytest.approx([0, expected])
    assert listed(outputs, "no_slip_violation_truth") == [0, 0]


def test_a_body_is_at_rest_in_a_periodic_box_too():
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    mask[:, :4, :4] = False
    truth = torch.where(mask[:, None, None], taylor_green(), 0.0)
    prediction = torch.where(mask[:, None, None], truth, 0.25)
    outputs = measured(NoSlipMetric(plan_of(VELOCITY, 1, masked=True)), prediction, truth, mask=mask)
    speed = truth.square().sum().item() / mask.sum().item()
    assert outputs["no_slip_violation_prediction"].item() == pytest.approx(math.sqrt(2 * 0.25**2 / speed))


def test_a_wall_with_interpolation_noise_is_still_a_wall():
    points = tuple(torch.linspace(0, 1, 9, dtype=torch.float64) for _ in range(2))
    truth = cavity()
    truth[..., :-1] += 1e-5 * noise(1, 1, 2, 9, 8)
    assert torch.equal(solid_points(truth, OPEN), solid_points(cavity(), OPEN))
    assert not solid_points(truth, OPEN, at_rest=1e-6).any()
    sliding = truth.clone()
    sliding[:, :, 1, :, 0] = 0.5
    outputs = measured(NoSlipMetric(plan_of(BOX, 1, points)), sliding, truth)
    assert outputs["no_slip_violation_prediction"].item() > 0.5
    assert 0 < outputs["no_slip_violation_truth"].item() < 1e-4
    strict = measured(NoSlipMetric(plan_of(BOX, 1, points), at_rest=1e-6), sliding, truth)
    assert strict["no_slip_violation_prediction"].isnan().all()


def test_a_flow_rate_through_noisy_walls_is_not_a_throughput():
    points = tuple(torch.linspace(0, 1, 9, dtype=torch.float64) for _ in range(2))
    truth = torch.zeros(1, 1, 2, 9, 9, dtype=torch.float64)
    truth[:, :, 0, 1:-1, 1:-1] = 1.0
    still = measured(FluxBalanceMetric(plan_of(BOX, 1, points)), truth + 0.1, truth)["flow_rate_error"]
    noisy = truth + 1e-5 * noise(1, 1, 2, 9, 9)
    outputs = measured(FluxBalanceMetric(plan_of(BOX, 1, points)), noisy + 0.1, noisy)
    assert torch.allclose(outputs["flow_rate_error"], still, rtol=1e-3)


def test_cells_lie_on_no_wall():
    cells = metadata_of(OPEN, velocity_channels("cell", "cell"))
    points = ((torch.arange(9, dtype=torch.float64) + 0.5) / 9,) * 2
    with pytest.raises(ValueError, match=r"at nodes, or a mask, .*'cell', 'cell'.* no point lies on a wall"):
        NoSlipMetric(plan_of(cells, 1, points))
    mask = torch.ones(1, 9, 9, dtype=torch.bool)
    mask[:, 3:5, 3:5] = False
    truth = torch.where(mask[:, None, None], cavity(), 0.0)
    assert torch.equal(solid_points(truth, OPEN, mask, cells=True)[:, 0, 0], ~mask)
    prediction = truth.clone()
    prediction[..., 0] = 3.0  # an error beside the wall, not on it
    outputs = measured(NoSlipMetric(plan_of(cells, 1, points, masked=True)), prediction, truth, mask=mask)
    assert outputs["no_slip_violation_prediction"].item() == 0


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_of_the_speed_lies_between_zero_and_one(share):
    with pytest.raises(ValueError, match="at_rest from zero up to one"):
        NoSlipMetric(plan_of(BOX, 1, stretched_box()), at_rest=share)
    with pytest.raises(ValueError, match="at_rest from zero up to one"):
        solid_points(cavity(), OPEN, at_rest=share)


def test_nothing_was_measured_where_nothing_is_solid():
    points = tuple(torch.linspace(0, 1, 9, dtype=torch.float64) for _ in range(2))
    truth = torch.ones(1, 2, 2, 9, 9, dtype=torch.float64)
    truth[:, 1, :, 0] = 0.0  # a wall in the second frame only
    outputs = measured(NoSlipMetric(plan_of(BOX, 2, points)), truth, truth)
    for side in ("prediction", "truth"):
        assert listed(outputs, f"no_slip_violation_{side}") == pytest.approx([math.nan, 0], nan_ok=True)


# What all of them share

FLOWS = {"vorticity": VORTICITY, "velocity": VELOCITY, "box": BOX}


def suite_of(name, frames, trajectories):
    metadata = FLOWS[name]
    coordinates = stretched_box(SHAPE) if name == "box" else None
    plan = plan_of(metadata, frames, coordinates, trajectories)
    kinds = {
        "vorticity": (IntegralMetric, EnergyDriftMetric, BudgetMetric),
        "velocity": (IntegralMetric, EnergyDriftMetric, BudgetMetric, DivergenceMetric),
        "box": (IntegralMetric, EnergyDriftMetric, DivergenceMetric, FluxBalanceMetric, NoSlipMetric),
    }
    return [kind(plan) for kind in kinds[name]]


def rollouts_of(name, trajectories, frames):
    channels = len(FLOWS[name].channels)
    prediction, truth = noise(2, trajectories, frames, channels, *SHAPE, seed=5)
    truth[..., 0] = 0.0  # walls at rest
    prediction[-1, frames - 2 :] = math.nan  # stopped
    return prediction, truth


def parameters_of(name, trajectories):
    if name == "box":
        return {}
    return {
        "parameters": torch.rand(trajectories, 2, generator=torch.Generator().manual_seed(6)),
        "forcing": noise(trajectories, len(FLOWS[name].channels), *SHAPE, seed=8),
    }


@pytest.mark.parametrize("name", FLOWS)
def test_blocks_and_batches_do_not_matter_and_the_stopped_harm_nobody(name):
    prediction, truth = rollouts_of(name, 3, 6)
    more = parameters_of(name, 3)
    for whole, pieces, alone in zip(suite_of(name, 6, 3), suite_of(name, 6, 3), suite_of(name, 6, 2), strict=True):
        expected = measured(whole, prediction, truth, **more)
        found = measured(pickle.loads(pickle.dumps(pieces)), prediction, truth, block=4, batch=2, **more)
        survivors = measured(alone, prediction[:2], truth[:2], **{key: part[:2] for key, part in more.items()})
        for key, values in expected.items():
            assert torch.allclose(values, found[key], rtol=1e-10, atol=1e-12, equal_nan=True), key
            assert torch.allclose(values[:2], survivors[key], rtol=1e-10, atol=1e-12), key
            assert values.isfinite()[:2].all(), key
            stopped = values[2].reshape(6, -1).isnan().any(1).tolist()
            assert stopped == ([False] * 6 if key.endswith("_truth") else [False] * 4 + [True] * 2), key


@pytest.mark.parametrize("name", FLOWS)
def test_single_and_half_precision(name):
    prediction, truth = rollouts_of(name, 2, 4)
    prediction[-1, 2:] = 0.0
    more = parameters_of(name, 2)
    for exact, single, half in zip(*(suite_of(name, 4, 2) for _ in range(3)), strict=True):
        expected = measured(exact, prediction, truth, **more)
        found = measured(single, prediction.float(), truth.float(), **more)
        rounded = measured(half, prediction.bfloat16(), truth.bfloat16(), **more)
        for key, values in expected.items():
            assert torch.allclose(values, found[key], rtol=1e-4, atol=1e-5), key
            # Eight bits of input; a divergence or a balance is what is left of a sum of large numbers.
            assert torch.allclose(values, rounded[key], rtol=0.1, atol=0.1 * values.abs().max().item() + 1e-2), key


@pytest.mark.parametrize(("name", "masked"), [*((name, False) for name in FLOWS), ("box", True)])
def test_updates_need_no_values(name, masked):
    for metric in suite_of(name, 2, 3):
        metric = metric.to("meta")
        fields = torch.empty(3, 2, len(metric.plan.metadata.channels), *SHAPE, device="meta")
        context = Context(
            tuple(torch.empty(3, size, device="meta") for size in SHAPE),
            parameters=torch.empty(3, 2, device="meta"),
            mask=torch.empty(3, *SHAPE, device="meta", dtype=torch.bool) if masked else None,
            forcing=fields[:, 0],
        )
        metric.update(Block(metric.plan, fields, fields, 0, torch.empty(3, dtype=torch.long, device="meta"), context))


def test_labels_are_whole_and_unique():
    for name in FLOWS:
        suite = suite_of(name, 3, 2)
        names = [key for metric in suite for key in metric.variables]
        scores = [key for metric in suite for key in metric.scores]
        assert len(names) == len(set(names))
        assert len(scores) == len(set(scores))
        for metric in suite:
            known = {"trajectory", "lead_time", "channel", *metric.coordinates}
            for variable in metric.variables.values():
                assert set(variable.dims) <= known
                assert variable.units
                assert variable.long_name


def test_data_that_a_metric_does_not_fit_are_refused():
    dye = metadata_of(SQUARE, (Channel("concentration"),))
    for kind in (DivergenceMetric, EnergyDriftMetric, BudgetMetric, FluxBalanceMetric, NoSlipMetric):
        with pytest.raises(ValueError, match="leave this metric out"):
            kind(plan_of(dye, 4))
    for kind in (DivergenceMetric, FluxBalanceMetric, NoSlipMetric):
        with pytest.raises(ValueError, match="Expected velocity data"):
            kind(plan_of(VORTICITY, 4))
    for kind in (FluxBalanceMetric, NoSlipMetric):
        with pytest.raises(ValueError, match="an axis that is not periodic"):
            kind(plan_of(VELOCITY, 4))
    with pytest.raises(ValueError, match="evenly spaced points and no mask for the energy of a vorticity"):
        EnergyDriftMetric(plan_of(VORTICITY, 4, masked=True))
    with pytest.raises(ValueError, match="at least three points along each axis for the divergence"):
        DivergenceMetric(plan_of(BOX, 4, [torch.arange(2.0), torch.arange(5.0)]))
    with pytest.raises(ValueError, match="each on the faces that it crosses, for the no-slip condition"):
        NoSlipMetric(plan_of(metadata_of(OPEN, velocity_channels("face_y", "face_x")), 4, stretched_box()))
    for locations in (("face_x", "face_y"), ("cell", "cell")):
        with pytest.raises(ValueError, match=r"at nodes for the flux balance .* SectionBalanceMetric measures them"):
            FluxBalanceMetric(plan_of(metadata_of(OPEN, velocity_channels(*locations)), 4, stretched_box()))

"""Forces on bodies against exact flows, and the frequency of the lift."""

import math
import pickle

import pytest
import torch
from helpers import block_of, measure

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.faces import open_faces
from pdesurrogate.metrics.forces import ForceMetric, control_volume, dominant_frequency
from pdesurrogate.metrics.plan import RolloutPlan

FACES, CELLS, NODES = ("face_x", "face_y", "cell"), ("cell",) * 3, ("node",) * 3
LAYOUTS = [FACES, CELLS, NODES]
FLUID = ("density", "dynamic_viscosity")
DENSITY, VISCOSITY = 3.0, 0.7
SHAPE = (24, 20)
EXTENT = (3.0, 2.0)


def plan_of(locations=FACES, shape=SHAPE, frames=3, parameters=FLUID, interval=0.1, extent=EXTENT, **options):
    """A plane box of cells around the origin."""
    grid = Grid((Axis("x", units="m"), Axis("y", units="m")))
    names, units = ("velocity_x", "velocity_y", "pressure"), ("m/s", "m/s", "Pa")
    channels = tuple(Channel(*both, location=at) for *both, at in zip(names, units, locations, strict=True))
    metadata = Metadata("flow", grid, channels, interval, parameters=parameters, time_units="s")
    lines = tuple(
        ((torch.arange(n) + 0.5).double() / n - 0.5) * length for n, length in zip(shape, extent, strict=True)
    )
    return RolloutPlan(metadata, 1, frames, lines, **{"masked": True, **options})


def points_of(plan):
    """Where each channel lives: ``(x, y)`` of each."""
    steps = [points[1] - points[0] for points in plan.coordinates]
    found = []
    for channel in plan.metadata.channels:
        low = [step / 2 if channel.location == f"face_{name}" else 0.0 for name, step in zip("xy", steps, strict=True)]
        found.append(torch.meshgrid(*(p - by for p, by in zip(plan.coordinates, low, strict=True)), indexing="ij"))
    return found


def flow_of(plan, u, v, p):
    """Frames ``(1, time, 3, x, y)`` of functions of ``x, y``; the same in all frames."""
    fields = torch.stack([function(*at) + 0.0 * at[0] for function, at in zip((u, v, p), points_of(plan), strict=True)])
    return fields.expand(1, plan.frames, -1, -1, -1).clone()


def disc(plan, radius, shift=(0.0, 0.0)):
    x, y = torch.meshgrid(*plan.coordinates, indexing="ij")
    return ((x - shift[0]) ** 2 + (y - shift[1]) ** 2 > radius**2)[None]


def context_of(plan, mask, parameters=(DENSITY, VISCOSITY)):
    values = torch.tensor([parameters], dtype=torch.float64).expand(len(mask), -1)
    return Context(tuple(p.expand(len(mask), -1) for p in plan.coordinates), parameters=values, mask=mask)


def forces_on(plan, frames, mask, **options):
    return measure(ForceMetric(plan, **options), frames, frames, context=context_of(plan, mask))


# Exact flows


@pytest.mark.parametrize("locations", LAYOUTS)
def test_a_rigid_stream_exerts_no_force(locations):
    plan = plan_of(locations)
    found = forces_on(plan, flow_of(plan, lambda x, y: 2.0, lambda x, y: -1.0, lambda x, y: 5.0), disc(plan, 0.3))
    for name in ("drag_truth", "lift_truth"):
        assert found[name].abs().max() < 1e-12


@pytest.mark.parametrize("locations", LAYOUTS)
def test_the_momentum_of_plane_poiseuille_flow_balances(locations):
    """The flow goes on through the body as if it were not there: pressure drop and shear are in balance."""
    plan = plan_of(locations)
    frames = flow_of(plan, lambda x, y: 1 - y**2, lambda x, y: 0.0, lambda x, y: 4.0 - 2 * VISCOSITY * x)
    found = forces_on(plan, frames, disc(plan, 0.3))
    assert found["drag_truth"].abs().max() < 1e-12
    assert found["lift_truth"].abs().max() < 1e-12


@pytest.mark.parametrize("locations", LAYOUTS)
def test_pressure_and_shear_act_on_the_sides_of_the_control_volume(locations):
    """Fields that obey no equation, each with an integral that is known."""
    plan = plan_of(locations)
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    mask[0, 10:14, 8:11] = False
    width, height = (10 * EXTENT[0] / SHAPE[0], 9 * EXTENT[1] / SHAPE[1])  # bodies and three cells on either side
    pressed = forces_on(plan, flow_of(plan, lambda x, y: 0.0, lambda x, y: 0.0, lambda x, y: 3 * x - 2 * y), mask)
    assert pressed["drag_truth"].tolist() == [pytest.approx([-3 * width * height] * 3)]
    assert pressed["lift_truth"].tolist() == [pytest.approx([2 * width * height] * 3)]
    sheared = forces_on(plan, flow_of(plan, lambda x, y: y**2, lambda x, y: 0.0, lambda x, y: 0.0), mask)
    assert sheared["drag_truth"].tolist() == [pytest.approx([2 * VISCOSITY * width * height] * 3)]
    stretched = forces_on(plan, flow_of(plan, lambda x, y: x**2, lambda x, y: 0.0, lambda x, y: 0.0), mask)
    assert stretched["drag_truth"].tolist() == [pytest.approx([4 * VISCOSITY * width * height] * 3)]
    turned = forces_on(plan, flow_of(plan, lambda x, y: 0.0, lambda x, y: x**2, lambda x, y: 0.0), mask)
    assert turned["lift_truth"].tolist() == [pytest.approx([2 * VISCOSITY * width * height] * 3)]
    carried = forces_on(plan, flow_of(plan, lambda x, y: 2.0, lambda x, y: 3 * x, lambda x, y: 0.0), mask)
    assert carried["lift_truth"].tolist() == [pytest.approx([-6 * DENSITY * width * height] * 3)]
    assert carried["drag_truth"].abs().max() < 1e-12


@pytest.mark.parametrize("locations", LAYOUTS)
def test_a_body_in_an_accelerating_stream_feels_its_buoyancy(locations):
    """u = a t, p = -rho a x: the pressure gradient pulls at the body as it does at the fluid."""
    plan = plan_of(locations, frames=6)
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    mask[0, 10:14, 8:11] = False
    acceleration = 0.8
    frames = flow_of(plan, lambda x, y: 1.0, lambda x, y: 0.0, lambda x, y: -DENSITY * acceleration * x)
    times = 0.1 * torch.arange(6, dtype=torch.float64)
    frames[:, :, 0] *= acceleration * times[:, None, None]
    found = forces_on(plan, frames, mask)
    # In staggered cells the body takes the closed faces on both of its sides: one more than it has cells.
    columns = 5 if locations == FACES else 4
    area = columns * 3 * (EXTENT[0] / SHAPE[0]) * (EXTENT[1] / SHAPE[1])
    assert found["drag_truth"].tolist() == [pytest.approx([DENSITY * acceleration * area] * 6)]
    assert found["lift_truth"].abs().max() < 1e-12


def potential_flow(plan, radius, speed, circulation):
    """Around a cylinder, counterclockwise circulation; zero in the cylinder (Batchelor, 1967, section 6.6)."""

    def velocity(x, y):
        z = torch.complex(x, y)
        inside = z.abs() < radius
        z = torch.where(inside, torch.ones_like(z), z)
        w = speed * (1 - radius**2 / z**2) - 1j * circulation / (2 * math.pi * z)
        return torch.where(inside, torch.zeros_like(w), w)

    def pressure(x, y):
        return 1.5 * DENSITY - DENSITY * velocity(x, y).abs().square() / 2

    return flow_of(plan, lambda x, y: velocity(x, y).real, lambda x, y: -velocity(x, y).imag, pressure)


@pytest.mark.parametrize("locations", LAYOUTS)
def test_potential_flow_has_no_drag_and_the_lift_of_its_circulation(locations):
    """d'Alembert and Kutta-Joukowski, up to differences of second order."""
    speed, circulation, radius = 1.3, 0.9, 0.3
    lift = -DENSITY * speed * circulation
    errors = []
    for refined in (1, 2, 4):
        plan = plan_of(locations, shape=(32 * refined, 32 * refined), extent=(2.0, 2.0))
        frames = potential_flow(plan, radius, speed, circulation)
        found = forces_on(plan, frames, disc(plan, radius), distance=6 * refined)
        drag_error, lift_error = found["drag_truth"].abs().max(), (found["lift_truth"] - lift).abs().max()
        errors.append((drag_error.item() / abs(lift), lift_error.item() / abs(lift)))
    assert errors[-1][0] < 2e-3
    assert errors[-1][1] < 2e-3
    assert errors[0][1] / errors[1][1] == pytest.approx(4, rel=0.4)
    assert errors[1][1] / errors[2][1] == pytest.approx(4, rel=0.4)


# Control volume


def test_the_control_volume_keeps_its_distance_as_far_as_there_is_room():
    mask = torch.ones(4, 14, 11, dtype=torch.bool)
    mask[0, 6:8, 5] = False
    mask[1, 3, 3] = False
    mask[2, 2, 5] = False  # two cells of fluid beside it
    volume = control_volume(mask, 3)
    assert volume.fits.tolist() == [True, True, False, False]
    assert volume.inside[0][:2].sum(1).tolist() == [8, 6]
    assert volume.outward[0][0].nonzero().flatten().tolist() == [3, 11]
    assert volume.outward[0][1].nonzero().flatten().tolist() == [1, 7]
    assert volume.outward[1][1].nonzero().flatten().tolist() == [1, 7]
    near = torch.ones(1, 14, 11, dtype=torch.bool)
    near[0, 10, 5] = False
    assert control_volume(near, 3).fits.tolist() == [True]
    assert control_volume(near, 3, unknown=(1, 1)).fits.tolist() == [False]


def test_bodies_on_walls_and_boxes_without_bodies_have_no_force():
    plan = plan_of()
    stream = flow_of(plan, lambda x, y: 1.0, lambda x, y: 0.0, lambda x, y: 0.0)
    empty = torch.ones(1, *SHAPE, dtype=torch.bool)
    step = empty.clone()
    step[0, 8:12, :5] = False
    for mask in (empty, step):
        assert forces_on(plan, stream, mask)["drag_truth"].isnan().all()


def test_what_is_stored_in_the_body_and_far_away_does_not_count():
    plan = plan_of()
    mask = disc(plan, 0.3)
    frames = potential_flow(plan, 0.3, 1.0, 0.5)
    expected = forces_on(plan, frames, mask)
    spoiled = frames.clone()
    spoiled[:, :, :2] = torch.where(open_faces(mask, (False, False))[:, None], frames[:, :, :2], math.nan)
    spoiled[:, :, 2] = torch.where(mask[:, None], frames[:, :, 2], math.nan)
    spoiled[..., :2, :] = math.nan
    frames[:, :, :2] = torch.where(open_faces(mask, (False, False))[:, None], frames[:, :, :2], 0.0)
    found = measure(ForceMetric(plan), spoiled, frames, context=context_of(plan, mask))
    assert torch.allclose(found["drag_prediction"], expected["drag_truth"])
    assert torch.allclose(found["lift_prediction"], found["lift_truth"])


# Statistics


@pytest.mark.parametrize(("periods", "tolerance"), [(3.3, 1e-2), (10.4, 1e-4), (25.0, 1e-5)])
@pytest.mark.parametrize("phase", [0.0, 0.7, 2.0])
def test_the_frequency_of_a_sine(periods, tolerance, phase):
    frames = 240
    angle = 2 * math.pi * periods / frames * torch.arange(frames, dtype=torch.float64) + phase
    signal = torch.stack([5.0 + torch.sin(angle), 3.0 - 0.2 * torch.sin(angle) + 0.05 * torch.sin(2 * angle)])
    found = dominant_frequency(signal, 0.01)
    assert found.tolist() == pytest.approx([periods / (frames * 0.01)] * 2, rel=tolerance)


def test_constants_have_no_frequency_and_neither_have_short_or_broken_records():
    assert dominant_frequency(torch.full((2, 9), 3.3), 0.1).tolist() == [0, 0]
    broken = torch.sin(torch.arange(20.0))
    broken[15:] = math.nan
    assert dominant_frequency(broken, 0.1).isnan()
    with pytest.raises(ValueError, match="at least 8 frames for a spectrum but got 7"):
        dominant_frequency(torch.zeros(7), 0.1)


def oscillating(plan, frequency, lift=1.0, drag=2.0):
    """Fluid at rest whose pressure pushes at a body: exact forces by time, no unsteady part."""
    times = plan.metadata.frame_interval * torch.arange(plan.frames, dtype=torch.float64)
    frames = flow_of(plan, lambda x, y: 0.0, lambda x, y: 0.0, lambda x, y: 0.0)
    *_, (x, y) = points_of(plan)
    force = torch.sin(2 * math.pi * frequency * times)[:, None, None]
    frames[0, :, 2] = -drag * x - lift * force * y
    return frames


SCALED = (*FLUID, "inlet_velocity", "radius")


def test_mean_drag_lift_and_strouhal_number():
    plan = plan_of(frames=100, parameters=SCALED, interval=0.02)
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    mask[0, 10:14, 8:11] = False
    area = 10 * EXTENT[0] / SHAPE[0] * 9 * EXTENT[1] / SHAPE[1]
    truth, prediction = oscillating(plan, 4.0), oscillating(plan, 5.0, lift=0.5, drag=2.5)
    metric = ForceMetric(plan)
    speed, radius = 1.5, 0.2
    found = measure(
        metric, prediction, truth, context=context_of(plan, mask, (DENSITY, VISCOSITY, speed, radius)), length=33
    )
    assert found.keys() == metric.variables.keys()
    unit = DENSITY * speed**2 * radius
    rms = area * math.sqrt(2**2 + 0.5)
    expected = {
        "mean_drag_truth": 2 * area,
        "mean_drag_prediction": 2.5 * area,
        "rms_lift_truth": area * math.sqrt(0.5),
        "drag_coefficient_truth": 2 * area / unit,
        "lift_coefficient_rms_prediction": 0.5 * area * math.sqrt(0.5) / unit,
        "mean_drag_error": 0.5 * area / rms,
        "rms_lift_error": 0.5 * math.sqrt(0.5) * area / rms,
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-10), name
    assert found["lift_frequency_truth"].item() == pytest.approx(4.0, rel=1e-3)
    assert found["strouhal_number_prediction"].item() == pytest.approx(5.0 * 2 * radius / speed, rel=1e-3)
    assert found["lift_frequency_error"].item() == pytest.approx(0.2, rel=1e-2)
    assert found["drag_error"].tolist() == [pytest.approx([0.5 * area / rms] * 100)]
    units = {name: variable.units for name, variable in metric.variables.items()}
    assert units["drag_truth"] == "Pa m"
    assert units["lift_frequency_truth"] == "1/s"
    assert units["strouhal_number_truth"] == units["drag_coefficient_truth"] == units["lift_error"] == "1"


def test_without_scales_a_frequency_stays_one_and_few_frames_have_none():
    plan = plan_of(frames=9)
    metric = ForceMetric(plan)
    assert "lift_frequency_truth" in metric.variables
    assert not {"strouhal_number_truth", "drag_coefficient_truth"} & metric.variables.keys()
    short = ForceMetric(plan_of(frames=7, parameters=SCALED))
    assert "drag_coefficient_truth" in short.variables
    assert not any("frequency" in name or "strouhal" in name for name in {**short.variables, **short.scores})


def test_a_steady_lift_has_no_frequency():
    plan = plan_of(frames=20)
    mask = disc(plan, 0.3)
    steady, moving = oscillating(plan, 1.0, lift=1e-4), oscillating(plan, 1.0)
    for prediction, truth, error in (
        (steady, steady, 0),
        (steady, moving, 1),
        (moving, steady, 1),
        (moving, moving, 0),
    ):
        found = measure(ForceMetric(plan), prediction, truth, context=context_of(plan, mask))
        assert found["lift_frequency_error"].item() == error
    assert found["lift_frequency_truth"].item() > 0


def test_central_differences_miss_what_the_documentation_says():
    """A stream that swings: the buoyancy of its acceleration, short by (2 pi / m)^2 / 6 of the unsteady part."""
    per_period = 20
    plan = plan_of(CELLS, frames=4 * per_period, interval=1.0 / per_period)
    mask = disc(plan, 0.3)
    times = torch.arange(plan.frames, dtype=torch.float64) / per_period
    frames = flow_of(plan, lambda x, y: 1.0, lambda x, y: 0.0, lambda x, y: 0.0)
    frames *= torch.sin(2 * math.pi * times)[:, None, None, None]
    drag = forces_on(plan, frames, mask)["drag_truth"][0]
    inside = control_volume(mask, 3).inside
    cells = (inside[0][:, :, None] * inside[1][:, None, :] * mask).sum().item()
    unsteady = (
        -DENSITY * cells * EXTENT[0] * EXTENT[1] / math.prod(SHAPE) * 2 * math.pi * torch.cos(2 * math.pi * times)
    )
    share = 1 - (drag[1:-1] @ unsteady[1:-1]) / unsteady[1:-1].square().sum()
    assert share.item() == pytest.approx((2 * math.pi / per_period) ** 2 / 6, rel=0.02)


# What all metrics share


def test_blocks_do_not_matter_and_the_stopped_harm_nobody():
    plan = plan_of(frames=10, parameters=SCALED)
    plan = RolloutPlan(plan.metadata, 2, 10, plan.coordinates, masked=True, shared_grid=False)
    mask = torch.cat([disc(plan, 0.3), disc(plan, 0.2, (0.2, -0.1))])
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(2, 10, 3, *SHAPE, dtype=torch.float64, generator=generator)
    prediction = truth + 0.1
    prediction[1, 6:] = math.nan
    parameters = torch.tensor([[1.0, 0.1, 1.0, 0.3], [2.0, 0.01, 0.5, 0.2]], dtype=torch.float64)
    scales = torch.tensor([[1.0], [0.2]], dtype=torch.float64)
    context = Context(tuple(scales * p for p in plan.coordinates), parameters=parameters, mask=mask)
    whole = measure(ForceMetric(plan), prediction, truth, context=context)
    found = measure(pickle.loads(pickle.dumps(ForceMetric(plan))), prediction, truth, length=4, context=context)
    single = measure(ForceMetric(plan), prediction.float(), truth.float(), context=context)
    for name, values in whole.items():
        assert torch.allclose(values, found[name], rtol=1e-10, atol=1e-12, equal_nan=True), name
        assert torch.allclose(values, single[name], rtol=1e-4, atol=1e-4, equal_nan=True), name
        assert values[0].isfinite().all(), name
        assert values[1].isnan().any() == (not name.endswith("_truth")), name
    alone = RolloutPlan(plan.metadata, 1, 10, tuple(0.2 * p for p in plan.coordinates), masked=True)
    second = Context(tuple(p[1:] for p in context.coordinates), parameters=parameters[1:], mask=mask[1:])
    own = measure(ForceMetric(alone), truth[1:], truth[1:], context=second)
    assert torch.allclose(own["drag_truth"][0], whole["drag_truth"][1], rtol=1e-10)
    assert torch.allclose(own["strouhal_number_truth"], whole["strouhal_number_truth"][1])


def test_updates_need_no_values():
    plan = plan_of(parameters=SCALED)
    fields = torch.empty(1, 3, 3, *SHAPE, device="meta")
    context = Context(
        tuple(torch.empty(1, size, device="meta") for size in SHAPE),
        parameters=torch.empty(1, 4, device="meta"),
        mask=torch.empty(1, *SHAPE, device="meta", dtype=torch.bool),
    )
    numbers = torch.empty(1, dtype=torch.long, device="meta")
    ForceMetric(plan).to("meta").update(block_of(plan, fields, fields, trajectories=numbers, context=context))


def stretched():
    plan = plan_of()
    return RolloutPlan(plan.metadata, 1, 3, (plan.coordinates[0] ** 3, plan.coordinates[1]), masked=True)


def in_three_dimensions():
    grid = Grid(tuple(Axis(name) for name in "xyz"))
    channels = tuple(Channel(name) for name in ("velocity_x", "velocity_y", "velocity_z", "pressure"))
    metadata = Metadata("flow", grid, channels, 0.1, parameters=FLUID)
    return RolloutPlan(metadata, 1, 3, (torch.arange(5.0),) * 3, masked=True)


REFUSED = {
    "no mask": (lambda: plan_of(masked=False), {}, "Expected a mask for forces"),
    "no pressure": (plan_of, {"pressure": "p"}, r"Expected a channel 'p' for forces but got \('velocity_x', "),
    "no density": (lambda: plan_of(parameters=("viscosity",)), {}, r"but \['density', 'dynamic_viscosity'\] are not"),
    "no viscosity": (plan_of, {"viscosity": "mu"}, r"parameters 'density' and 'mu' .* \['mu'\] are not among"),
    "pressure on nodes": (lambda: plan_of(("face_x", "face_y", "node")), {}, "'pressure' at 'cell' beside .*'node'"),
    "pressure in cells": (lambda: plan_of(("node", "node", "cell")), {}, "'pressure' at 'node' beside .*'cell'"),
    "components apart": (lambda: plan_of(("face_x", "node", "cell")), {}, "or each on the faces .* for forces"),
    "uneven": (stretched, {}, r"evenly spaced points for forces but got even: \(False, True\)"),
    "two frames": (lambda: plan_of(frames=2), {}, "at least three frames for forces"),
    "three dimensions": (in_three_dimensions, {}, "a plane flow for forces but got 3 axes"),
    "no distance": (plan_of, {"distance": 1}, "a distance of at least 2 cells but got 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_without_forces_are_refused(case):
    plan, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        ForceMetric(plan(), **options)


@pytest.mark.parametrize("lost", ["mask", "parameters"])
def test_samples_without_what_the_plan_promises_are_refused(lost):
    plan = plan_of()
    frames = flow_of(plan, lambda x, y: 1.0, lambda x, y: 0.0, lambda x, y: 0.0)
    context = context_of(plan, disc(plan, 0.3))._replace(**{lost: None})
    with pytest.raises(ValueError, match="and a mask, but the context lacks them"):
        measure(ForceMetric(plan), frames, frames, context=context)

"""Profiles along the centerlines of a box, on faces, in cells and at nodes."""

import math
import pickle

import pytest
import torch
from helpers import block_of, measure

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.centerlines import CenterlineMetric, bounds_of, interpolation_weights
from pdesurrogate.metrics.plan import RolloutPlan

FACES, CELLS, NODES = ("face_x", "face_y"), ("cell", "cell"), ("node", "node")
EXTENT = (3.0, 2.0)


def plan_of(locations=FACES, shape=(8, 6), trajectories=1, frames=2, periods=(None, None), **options):
    """A box from the origin on."""
    grid = Grid(tuple(Axis(name, period, "m") for name, period in zip("xy", periods, strict=True)))
    channels = tuple(Channel(f"velocity_{name}", "m/s", location=at) for name, at in zip("xy", locations, strict=True))
    lines = tuple(
        torch.linspace(0, length, n, dtype=torch.float64)
        if locations == NODES
        else (torch.arange(n) + 0.5).double() * (length / n)
        for n, length in zip(shape, EXTENT, strict=True)
    )
    return RolloutPlan(Metadata("flow", grid, channels, 0.1), trajectories, frames, lines, **options)


def fields_of(plan, u, v):
    """Frames ``(1, time, 2, x, y)`` of functions of x and y, where the components live."""
    found = []
    for component, function in enumerate((u, v)):
        lines = list(plan.coordinates)
        if plan.flow.locations == FACES:
            lines[component] = lines[component] - (lines[component][1] - lines[component][0]) / 2
        found.append(function(*torch.meshgrid(*lines, indexing="ij")))
    return torch.stack(found).expand(1, plan.frames, -1, -1, -1).clone()


def context_of(plan, mask=None, scales=(1.0,)):
    factors = torch.tensor(scales, dtype=torch.float64)[:, None]
    return Context(tuple(factors * points for points in plan.coordinates), mask=mask)


@pytest.mark.parametrize("locations", [FACES, CELLS, NODES])
@pytest.mark.parametrize("shape", [(8, 6), (7, 9)])
def test_fields_linear_across_a_line_are_exact_on_it(locations, shape):
    plan = plan_of(locations, shape)
    frames = fields_of(plan, lambda x, y: (2 * x - 1) * torch.sin(y), lambda x, y: (y + 3) * torch.cos(x))
    frames[:, 1] *= 3.0  # the mean over both frames is twice the first
    metric = CenterlineMetric(plan)
    found = measure(metric, 1.1 * frames, frames)
    assert found.keys() == metric.variables.keys()
    x, y = plan.coordinates
    assert torch.allclose(found["centerline_velocity_x_truth"][0], 2 * (EXTENT[0] - 1) * torch.sin(y))
    assert torch.allclose(found["centerline_velocity_y_truth"][0], 2 * (EXTENT[1] / 2 + 3) * torch.cos(x))
    assert torch.allclose(found["centerline_velocity_x_prediction"], 1.1 * found["centerline_velocity_x_truth"])
    places = metric.coordinates
    assert torch.allclose(places["vertical_position"].values, y / EXTENT[1])
    assert torch.allclose(places["horizontal_position"].values, x / EXTENT[0])


def test_errors_are_relative_to_both_profiles():
    plan = plan_of(CELLS)
    truth = fields_of(plan, lambda x, y: 0 * x + 3.0, lambda x, y: 0 * x)
    prediction = fields_of(plan, lambda x, y: 0 * x + 3.3, lambda x, y: 0 * x + 0.6)
    found = measure(CenterlineMetric(plan), prediction, truth)
    assert found["centerline_velocity_x_error"].item() == pytest.approx(0.1)
    assert found["centerline_velocity_y_error"].item() == pytest.approx(0.2)
    still = torch.zeros_like(truth)
    assert measure(CenterlineMetric(plan), still, still)["centerline_velocity_x_error"].item() == 0


def test_nodes_on_walls_count_half():
    plan = plan_of(NODES, (5, 5))
    truth = fields_of(plan, lambda x, y: 0 * x + 1.0, lambda x, y: 0 * x)
    prediction = truth.clone()
    prediction[..., 0, :, 0] = 2.0
    found = measure(CenterlineMetric(plan), prediction, truth)
    assert found["centerline_velocity_x_error"].item() == pytest.approx(math.sqrt(0.5 / 4))


@pytest.mark.parametrize("locations", [FACES, CELLS])
def test_solid_points_are_left_out(locations):
    plan = plan_of(locations, trajectories=2, masked=True)
    truth = fields_of(plan, lambda x, y: 1.0 + y, lambda x, y: 0 * x).expand(2, -1, -1, -1, -1).clone()
    mask = torch.ones(2, 8, 6, dtype=torch.bool)
    mask[0, 3, :2] = False  # a step left of the middle, in the first box
    mask[0, 0, 4] = False  # far from both lines
    prediction = 1.5 * truth
    prediction[0, :, :, 3:5, :2] = 77.0
    found = measure(CenterlineMetric(plan), prediction, truth, context=context_of(plan, mask, (1.0, 1.0)))
    profile = found["centerline_velocity_x_truth"]
    assert profile[0].isnan().tolist() == [True] * 2 + [False] * 4
    assert torch.allclose(profile[0, 2:], 1 + plan.coordinates[1][2:])
    assert profile[1].isfinite().all()
    assert found["centerline_velocity_x_error"][0].item() == pytest.approx(0.5)


def test_round_off_of_coordinates_takes_no_further_point():
    for size in range(4, 40, 2):
        faces = torch.arange(size, dtype=torch.float64) * (0.1 / size)
        weights = interpolation_weights(faces, 0.05)
        assert weights.nonzero().flatten().tolist() == [size // 2]
    single = ((torch.arange(64) + 0.5) * (0.22 / 64)).double()
    low, high = bounds_of(single, Axis("x"), cells=True)
    assert (low, high) == (pytest.approx(0, abs=1e-8), pytest.approx(0.22))
    assert bounds_of(single, Axis("x", bounds=(0.0, 0.22)), cells=True) == (0.0, 0.22)
    assert bounds_of(single, Axis("x"), cells=False) == (single[0].item(), single[-1].item())


def test_blocks_and_duplicates_do_not_matter_and_the_stopped_have_no_error():
    plan = plan_of(trajectories=2, frames=5, masked=True, shared_grid=False)
    truth = torch.randn(2, 5, 2, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prediction = truth + 0.5
    prediction[1, 3:] = math.nan
    mask = torch.ones(2, 8, 6, dtype=torch.bool)
    mask[1, 3:5, 3] = False
    context = context_of(plan, mask, (1.0, 0.3))
    whole = measure(CenterlineMetric(plan), prediction, truth, context=context)
    metric = pickle.loads(pickle.dumps(CenterlineMetric(plan)))
    twice = block_of(plan, prediction[:1], truth[:1], context=Context(*([part[:1] for part in context.coordinates],),
                     mask=mask[:1]))  # fmt: skip
    metric.update(twice)
    pieces = measure(metric, prediction, truth, length=2, context=context)
    single = measure(CenterlineMetric(plan), prediction.float(), truth.float(), context=context)
    for name, values in whole.items():
        assert torch.allclose(values, pieces[name], equal_nan=True), name
        assert torch.allclose(values, single[name], rtol=1e-5, atol=1e-6, equal_nan=True), name
    assert torch.allclose(whole["centerline_velocity_x_prediction"][0], truth[0, :, 0, 4].mean(0) + 0.5)
    before = truth[1, :3, 0, 4].mean(0) + 0.5
    before[3] = math.nan
    assert torch.allclose(whole["centerline_velocity_x_prediction"][1], before, equal_nan=True)
    assert whole["centerline_velocity_x_error"].isnan().tolist() == [False, True]


def test_the_state_does_not_grow_with_the_rollout():
    sizes = {
        sum(getattr(metric, name).numel() for name in metric._defaults)
        for metric in (CenterlineMetric(plan_of(frames=frames)) for frames in (2, 200))
    }
    assert len(sizes) == 1


def test_a_missing_frame_is_told():
    plan = plan_of(frames=3)
    metric = CenterlineMetric(plan)
    part = torch.zeros(1, 2, 2, 8, 6)
    metric.update(block_of(plan, part, part))
    with pytest.raises(ValueError, match=r"Expected 3 frames of each of 1 trajectories but got \[2\]"):
        metric.compute()
    with pytest.raises(ValueError, match=r"frames within 0\.\.3 but got 2\.\.4"):
        metric.update(block_of(plan, part, part, first_frame=2))


def test_updates_need_no_values():
    plan = plan_of(masked=True)
    fields = torch.empty(1, 2, 2, 8, 6, device="meta")
    mask = torch.empty(1, 8, 6, device="meta", dtype=torch.bool)
    context = Context(tuple(torch.empty(1, size, device="meta") for size in (8, 6)), mask=mask)
    numbers = torch.empty(1, dtype=torch.long, device="meta")
    CenterlineMetric(plan).to("meta").update(block_of(plan, fields, fields, trajectories=numbers, context=context))


def uneven():
    plan = plan_of()
    points = plan.coordinates[0] ** 2, plan.coordinates[1]
    return RolloutPlan(plan.metadata, 1, 2, points, shared_grid=False)


def dye():
    plan = plan_of()
    return RolloutPlan(Metadata("dye", plan.metadata.grid, (Channel("dye"),), 0.1), 1, 2, plan.coordinates)


def deep():
    grid = Grid(tuple(Axis(name) for name in "xyz"))
    channels = tuple(Channel(f"velocity_{name}") for name in "xyz")
    return RolloutPlan(Metadata("deep", grid, channels, 0.1), 1, 2, (torch.arange(4.0),) * 3)


REFUSED = {
    "a periodic axis": (lambda: plan_of(periods=(3.0, None)), r"two axes that are not periodic .* \(True, False\)"),
    "three axes": (deep, "two axes that are not periodic for centerline profiles"),
    "components apart": (lambda: plan_of(("cell", "node")), "or each on the faces that it crosses, for centerline"),
    "no velocity": (dye, "for centerline profiles but got"),
    "uneven points of different boxes": (uneven, r"one grid, or boxes of even points, .* \(False, True\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_without_centerlines_are_refused(case):
    plan, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        CenterlineMetric(plan())

"""Flows with walls and bodies on staggered faces and in cells: divergence, walls, and what passes each section."""

import math
import pickle

import pytest
import torch
from helpers import block_of, measure

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.conservation import DivergenceMetric, NoSlipMetric, solid_faces
from pdesurrogate.metrics.faces import open_faces
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.sections import SectionBalanceMetric, section_flow_rates

FACES = ("face_x", "face_y")
SHAPE = (14, 10)
SPACING = (0.5, 0.25)


def plan_of(locations=FACES, periods=(None, None), trajectories=1, frames=1, shape=SHAPE, **options):
    """A plane box of cells whose low corner is the origin."""
    grid = Grid(tuple(Axis(name, period, "m") for name, period in zip("xy", periods, strict=True)))
    channels = tuple(Channel(f"velocity_{name}", "m/s", location=at) for name, at in zip("xy", locations, strict=True))
    lines = tuple((torch.arange(size) + 0.5).double() * h for size, h in zip(shape, SPACING, strict=True))
    return RolloutPlan(Metadata("flow", grid, channels, 0.1), trajectories, frames, lines, **options)


def context_of(plan, mask=None, scales=(1.0,)):
    """Boxes of different extent, if asked for."""
    factors = torch.tensor(scales, dtype=torch.float64)[:, None]
    return Context(tuple(factors * points for points in plan.coordinates), mask=mask)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bodies(trajectories=1):
    """A ragged body in the middle, and one on the lower wall."""
    mask = torch.ones(trajectories, *SHAPE, dtype=torch.bool)
    mask[:, 5:8, 4:6] = False
    mask[:, 6, 6] = False
    mask[:, 10:12, :2] = False
    return mask


def around_bodies(mask, inlet=1.0, seed=0):
    """A discrete curl (1, 1, 2, x, y) of corner values that are constant on each body and along each wall.

    All of `inlet` times the height enters at the left and leaves at the right; nothing passes a closed face.
    """
    sizes = mask.shape[1] + 1, mask.shape[2] + 1
    psi = noise(*sizes, seed=seed)
    psi[:, 0] = 0.0
    psi[:, -1] = inlet * SPACING[1] * mask.shape[2]
    for x, y in (~mask[0]).nonzero().tolist():
        psi[x : x + 2, y : y + 2] = 0.3 if x < 9 else 0.0  # the second body sits on the lower wall
    u = psi.diff(dim=1)[:-1] / SPACING[1]
    v = -psi.diff(dim=0)[:, :-1] / SPACING[0]
    return torch.stack([u, v])[None, None]


# Faces


def test_a_face_is_open_where_both_of_its_cells_are_fluid():
    mask = bodies()
    closed = ~open_faces(mask, (False, False))[0]
    for axis in range(2):
        for x in range(SHAPE[0]):
            for y in range(SHAPE[1]):
                below = (x - 1, y) if axis == 0 else (x, y - 1)
                known = [mask[0, x, y], mask[0, below[0], below[1]] if min(below) >= 0 else mask[0, x, y]]
                assert closed[axis, x, y] == (not all(known))


def test_a_periodic_axis_closes_the_first_face_by_the_last_cell():
    mask = torch.ones(1, 4, 3, dtype=torch.bool)
    mask[0, -1, 1] = False
    assert open_faces(mask, (True, False))[0, 0, 0].tolist() == [True, False, True]
    assert open_faces(mask, (False, True))[0, 0, 0].tolist() == [True, True, True]
    assert open_faces(mask, (True, True))[0, 1, -1].tolist() == [True, False, False]


# Divergence


@pytest.mark.parametrize("scales", [(1.0,), (0.01,)])
def test_the_truth_of_a_staggered_solver_has_no_divergence_around_bodies(scales):
    mask = bodies()
    truth = around_bodies(mask)
    metric = DivergenceMetric(plan_of(masked=True, shared_grid=len(set(scales)) == 1))
    found = measure(metric, truth, truth, context=context_of(metric.plan, mask, scales))
    assert found["relative_divergence_truth"].item() < 1e-14
    assert found["divergence_truth"].item() * scales[0] < 1e-14


def test_what_is_stored_on_closed_faces_is_no_divergence():
    mask = bodies()
    truth = around_bodies(mask)
    is_open = open_faces(mask, (False, False))[:, None]
    spoiled = torch.where(is_open, truth, math.nan)
    metric = DivergenceMetric(plan_of(masked=True))
    found = measure(metric, spoiled, truth, context=context_of(metric.plan, mask))
    assert found["relative_divergence_prediction"].item() < 1e-14


def test_divergence_next_to_a_body_counts():
    mask = bodies()
    truth = around_bodies(mask)
    leak = truth.clone()
    leak[0, 0, 0, 5, 7] += 1.0  # between two cells of fluid, one of them above the body
    metric = DivergenceMetric(plan_of(masked=True))
    found = measure(metric, leak, truth, context=context_of(metric.plan, mask))
    cells = mask[0, :-1, :-1].sum().item()  # the last ones lack a face
    assert found["divergence_prediction"].item() == pytest.approx(math.sqrt(2 / cells) / SPACING[0])


def test_bodies_in_a_periodic_box_leave_out_no_cell():
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    mask[0, 5:8, 4:6] = False
    psi = noise(*SHAPE)
    psi[5:9, 4:7] = 0.5
    faces = torch.stack([(psi.roll(-1, 1) - psi) / SPACING[1], (psi - psi.roll(-1, 0)) / SPACING[0]])[None, None]
    periods = tuple(size * h for size, h in zip(SHAPE, SPACING, strict=True))
    metric = DivergenceMetric(plan_of(periods=periods, masked=True))
    leak = faces.clone()
    leak[0, 0, 1, 0, 0] += 1.0
    found = measure(metric, leak, faces, context=context_of(metric.plan, mask))
    assert found["relative_divergence_truth"].item() < 1e-14
    assert found["divergence_prediction"].item() == pytest.approx(math.sqrt(2 / mask.sum().item()) / SPACING[1])


# Walls


def test_velocity_through_closed_faces_and_low_walls_is_a_violation():
    mask = bodies()
    truth = around_bodies(mask)
    closed = ~open_faces(mask, (False, False))
    solid = solid_faces(truth, Grid((Axis("x"), Axis("y"))), mask)[0, 0]
    bottom = torch.zeros_like(solid)
    bottom[1, :, 0] = True  # nothing passes the wall; the inlet at the left is open
    assert torch.equal(solid, closed[0] | bottom)
    through = torch.where(solid, 0.2, truth)
    metric = NoSlipMetric(plan_of(masked=True))
    found = measure(metric, through, torch.where(closed, math.nan, truth), context=context_of(metric.plan, mask))
    speed = math.sqrt(truth.square().sum().item() / mask.sum().item())
    assert found["no_slip_violation_prediction"].item() == pytest.approx(0.2 / speed)
    assert "through closed faces" in metric.variables["no_slip_violation_truth"].long_name


def test_the_truth_tells_walls_from_inlets_without_a_mask():
    truth = torch.zeros(1, 1, 2, *SHAPE, dtype=torch.float64)
    truth[0, 0, 0, 1:] = 1.0  # a lid drives it; the left is a wall
    truth[0, 0, 1, :, 1:] = 0.5
    prediction = truth.clone()
    prediction[0, 0, 0, 0] = 0.3
    metric = NoSlipMetric(plan_of())
    found = measure(metric, prediction, truth)
    speed = math.sqrt(truth.square().sum(2).mean().item())
    walls = sum(SHAPE)
    assert found["no_slip_violation_prediction"].item() == pytest.approx(0.3 * math.sqrt(SHAPE[1] / walls) / speed)
    assert found["no_slip_violation_truth"].item() == 0
    inlet = truth.clone()
    inlet[0, 0, 0, 0] = 0.3
    assert measure(NoSlipMetric(plan_of()), inlet, inlet)["no_slip_violation_prediction"].item() == 0


def test_nothing_was_measured_where_no_face_is_closed():
    uniform = torch.ones(1, 1, 2, *SHAPE)
    assert measure(NoSlipMetric(plan_of()), uniform, uniform)["no_slip_violation_prediction"].isnan().all()
    with pytest.raises(ValueError, match="at_rest from zero up to one"):
        solid_faces(uniform, Grid((Axis("x"), Axis("y"))), at_rest=1.0)


# Sections


def test_as_much_passes_every_section_as_enters():
    mask = bodies()
    truth = around_bodies(mask, inlet=2.0)
    metric = SectionBalanceMetric(plan_of(masked=True))
    context = context_of(metric.plan, mask)
    closed = ~open_faces(mask, (False, False))
    prediction = torch.where(closed, math.nan, truth)  # nobody's business here
    prediction[0, 0, 0, 9] *= 1.25
    found = measure(metric, prediction, truth, context=context)
    entering = 2.0 * SPACING[1] * SHAPE[1]
    assert found["entering_flow_rate_truth"].item() == pytest.approx(entering)
    assert found["section_imbalance_truth"].item() < 1e-14
    assert found["section_imbalance_prediction"].item() == pytest.approx(0.25)
    assert found["section_flow_rate_error"].item() == pytest.approx(0.25)
    assert metric.variables["entering_flow_rate_truth"].units == "(m/s) m"
    rates, gross = section_flow_rates(truth, metric.plan, context, 0)
    assert rates[0, 0].tolist() == pytest.approx([entering] * SHAPE[0])
    assert (gross >= rates.abs() * (1 - 1e-14)).all()


@pytest.mark.parametrize("locations", [("cell", "cell"), ("node", "node")])
def test_columns_of_cells_and_of_nodes_are_sections_too(locations):
    mask = bodies()
    plan = plan_of(locations, masked=True)
    lines = plan.quadrature_weights(plan.coordinates)
    free = (mask[0] * lines[1]).sum(1)
    flow = torch.zeros(1, 1, 2, *SHAPE, dtype=torch.float64)
    flow[0, 0, 0] = 3.0 / free[:, None]
    flow = torch.where(mask, flow, math.nan)
    found = measure(SectionBalanceMetric(plan), 1.1 * flow, flow, context=context_of(plan, mask))
    assert found["entering_flow_rate_truth"].item() == pytest.approx(3.0)
    assert found["section_imbalance_truth"].item() < 1e-14
    assert found["section_imbalance_prediction"].item() < 1e-14
    assert found["section_flow_rate_error"].item() == pytest.approx(0.1)


def test_boxes_have_areas_and_masks_of_their_own():
    masks = torch.cat([bodies(), torch.ones(1, *SHAPE, dtype=torch.bool)])
    truth = torch.cat([around_bodies(masks[:1]), torch.ones(1, 1, 2, *SHAPE, dtype=torch.float64)])
    plan = plan_of(trajectories=2, masked=True, shared_grid=False)
    found = measure(SectionBalanceMetric(plan), truth, truth, context=context_of(plan, masks, (1.0, 0.1)))
    height = SPACING[1] * SHAPE[1]
    assert found["entering_flow_rate_truth"].flatten().tolist() == pytest.approx([height, 0.1 * height])
    assert (found["section_imbalance_truth"] < 1e-14).all()


def test_a_closed_box_is_measured_by_its_gross_rate():
    psi = torch.zeros(SHAPE[0] + 1, SHAPE[1] + 1, dtype=torch.float64)
    psi[1:-1, 1:-1] = noise(SHAPE[0] - 1, SHAPE[1] - 1)
    truth = torch.stack([psi.diff(dim=1)[:-1] / SPACING[1], -psi.diff(dim=0)[:, :-1] / SPACING[0]])[None, None]
    leak = truth.clone()
    leak[0, 0, 0, 4] += 0.1
    metric = SectionBalanceMetric(plan_of())
    found = measure(metric, leak, truth)
    gross = truth[0, 0, 0].abs().sum(1).mean().item() * SPACING[1]
    assert found["section_imbalance_truth"].item() < 1e-14
    assert found["section_imbalance_prediction"].item() == pytest.approx(0.1 * SPACING[1] * SHAPE[1] / gross)
    still = torch.zeros_like(truth)
    assert measure(SectionBalanceMetric(plan_of()), still, still)["section_imbalance_prediction"].item() == 0


def test_another_axis_may_be_that_of_the_flow():
    truth = torch.zeros(1, 1, 2, *SHAPE, dtype=torch.float64)
    truth[0, 0, 1] = 0.5
    found = measure(SectionBalanceMetric(plan_of(), along="y"), truth, truth)
    assert found["entering_flow_rate_truth"].item() == pytest.approx(0.5 * SPACING[0] * SHAPE[0])
    with pytest.raises(ValueError, match=r"along to be one of the axes that are not periodic, \['y'\], but got 'x'"):
        SectionBalanceMetric(plan_of(periods=(7.0, None)), along="x")


def test_data_without_sections_are_refused():
    with pytest.raises(ValueError, match=r"same points, or each on the faces that it crosses, .*\('cell', 'node'\)"):
        SectionBalanceMetric(plan_of(("cell", "node")))
    with pytest.raises(ValueError, match="an axis that is not periodic for the balance of sections"):
        SectionBalanceMetric(plan_of(periods=(7.0, 2.5)))
    grid = Grid((Axis("x"), Axis("y")))
    dye = RolloutPlan(Metadata("dye", grid, (Channel("dye"),), 0.1), 1, 1, plan_of().coordinates)
    with pytest.raises(ValueError, match="for the balance of sections but got"):
        SectionBalanceMetric(dye)


# What they share


@pytest.mark.parametrize("kind", [DivergenceMetric, NoSlipMetric, SectionBalanceMetric])
def test_blocks_do_not_matter_and_the_stopped_harm_nobody(kind):
    mask = bodies(2)
    truth = torch.cat([torch.cat([around_bodies(mask[:1], seed=seed) for seed in range(4)], 1)] * 2)
    prediction = truth + 0.1 * noise(*truth.shape, seed=9)
    prediction[1, 2:] = math.nan
    plan = plan_of(trajectories=2, frames=4, masked=True)
    context = context_of(plan, mask, (1.0, 1.0))
    whole = measure(kind(plan), prediction, truth, context=context)
    pieces = measure(pickle.loads(pickle.dumps(kind(plan))), prediction, truth, length=3, context=context)
    single = measure(kind(plan), prediction.float(), truth.float(), context=context)
    for name, values in whole.items():
        assert torch.allclose(values, pieces[name], rtol=1e-12, atol=0, equal_nan=True), name
        assert torch.allclose(values, single[name], rtol=1e-4, atol=1e-5, equal_nan=True), name
        stopped = [False] * 4 if name.endswith("_truth") else [False] * 2 + [True] * 2
        assert values.isnan().tolist() == [[False] * 4, stopped], name


@pytest.mark.parametrize("kind", [DivergenceMetric, NoSlipMetric, SectionBalanceMetric])
def test_updates_need_no_values(kind):
    plan = plan_of(masked=True)
    fields = torch.empty(1, 1, 2, *SHAPE, device="meta")
    context = Context(
        tuple(torch.empty(1, size, device="meta") for size in SHAPE),
        mask=torch.empty(1, *SHAPE, device="meta", dtype=torch.bool),
    )
    numbers = torch.empty(1, dtype=torch.long, device="meta")
    metric = kind(plan).to("meta")
    metric.update(block_of(plan, fields, fields, trajectories=numbers, context=context))

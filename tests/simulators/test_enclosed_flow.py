"""The solver of enclosed flows as a stepper: batches of cases, contexts, restarts, precision, gradients, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from enclosed_cases import flows_of, random_state

from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.enclosed.boundary import Boundary, FreeSlip, Inlet, Outlet, Wall
from pdesurrogate.simulators.enclosed.case import BuoyantScalar, Case, Fluid
from pdesurrogate.simulators.enclosed.flow import EnclosedCases, EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Box, Disc, Rectangle
from pdesurrogate.simulators.enclosed.problems import Cavity, CylinderWake, Problem, SmokePlume, StepFlow, Tube
from pdesurrogate.simulators.generation.protocols import Bounded, Monitored, Placed, Varied
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.rollout import rollout

# A solver of each problem, and parameters of three cases: other speeds, fluids, extents and bodies.
FAMILIES: list[tuple[EnclosedFlow, list[list[float]]]] = [
    (
        EnclosedFlow(Cavity(), (12, 16), 0.1, 5),
        [[1.0, 1.0, 0.01, 1.0, 1.0], [-0.5, 2.0, 0.1, 2.0, 1.0], [2.0, 4.0, 0.2, 1.5, 3.0]],
    ),
    (
        EnclosedFlow(Tube(dynamic_viscosity=0.02), (24, 10), 0.1, 2),
        [[1.0, 1.0, 0.02, 4.0, 1.0], [0.5, 3.0, 0.2, 3.0, 1.0], [1.5, 0.5, 0.05, 6.0, 2.0]],
    ),
    (
        EnclosedFlow(StepFlow(dynamic_viscosity=0.05), (48, 16), 0.1, 5),
        [
            [1.0, 1.0, 0.05, 0.3, 0.3, 1.0, 4.0, 1.0],
            [1.0, 2.0, 0.1, 0.25, 0.5, 1.5, 4.0, 1.0],
            [0.5, 1.0, 0.05, 0.4, 0.6, 0.75, 3.0, 1.0],
        ],
    ),
    (
        EnclosedFlow(CylinderWake(dynamic_viscosity=0.05), (44, 24), 0.1, 2),
        [
            [1.0, 1.0, 0.05, 0.5, -3.0, 8.0, -3.0, 3.0],
            [0.5, 2.0, 0.1, 0.75, -3.0, 8.0, -2.5, 3.5],
            [1.0, 1.0, 0.1, 1.0, -4.0, 10.0, -4.0, 4.0],
        ],
    ),
    (
        EnclosedFlow(SmokePlume(dynamic_viscosity=0.5), (16, 16), 1.0, 10),
        [[0.5, 1.0, 0.5, 0.0, 32.0], [-0.25, 2.0, 1.0, 0.1, 32.0], [0.5, 1.0, 0.5, 0.05, 24.0]],
    ),
]


def name_of(value: object) -> str | None:
    return type(value.problem).__name__ if isinstance(value, EnclosedFlow) else ""


each_family = pytest.mark.parametrize(("flow", "rows"), FAMILIES, ids=name_of)


def table(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Batches.


@each_family
def test_each_case_of_a_batch_is_that_case_alone(flow, rows):
    solver = flow.of_cases(table(rows))
    start = random_state(solver, size=0.1)
    end, seen = solver.advance(start, 10), solver.diagnostics(start)
    for number, row in enumerate(rows):
        alone = flow.of_cases(table([row]))
        torch.testing.assert_close(solver.at_rest()[number], alone.at_rest()[0], rtol=0, atol=1e-12)
        expected = alone.advance(start[number : number + 1], 10)[0]
        torch.testing.assert_close(end[number], expected, rtol=1e-11, atol=1e-11)
        for ours, found in zip(seen, alone.diagnostics(start[number : number + 1]), strict=True):
            torch.testing.assert_close(ours[number], found[0], rtol=1e-10, atol=1e-10)


def test_a_case_without_bodies_may_stand_beside_one_with_several():
    box, sides, fluid = Box((0.0, 0.0), (2.0, 1.0)), Boundary(left=Inlet(1.0), right=Outlet()), Fluid(1.0, 0.05)
    cases = [
        Case(box, sides, fluid, bodies=bodies)
        for bodies in (
            (Disc((0.5, 0.3), 0.1), Disc((1.0, 0.7), 0.1)),
            (),
            (Rectangle((0.5, -1.0), (0.9, 0.4)),),
        )
    ]
    solver = flows_of(cases, (32, 16), 0.01)
    start = random_state(solver)
    end = solver.advance(start, 10)
    for number, case in enumerate(cases):
        alone = flows_of([case], (32, 16), 0.01).advance(start[number : number + 1], 10)[0]
        torch.testing.assert_close(end[number], alone, rtol=1e-11, atol=1e-11)
    assert solver.context.mask[1].all()
    assert not solver.context.mask[0].all()


@each_family
def test_a_case_that_blows_up_leaves_the_others_as_they_were(flow, rows):
    solver = flow.of_cases(table(rows))
    start = random_state(solver, size=0.1)
    expected = solver.advance(start, 5)
    for bad in (math.nan, math.inf, 1e200):
        spoiled = start.clone()
        spoiled[1, 0, 3, 4] = bad
        end = solver.advance(spoiled, 5)
        assert torch.equal(end[[0, 2]], expected[[0, 2]])
        assert not bool(end[1].isfinite().all())
        for values in solver.diagnostics(end):
            assert bool(values[[0, 2]].isfinite().all())


# Contexts.


@each_family
def test_a_context_tells_where_each_case_lies(flow, rows):
    solver = flow.of_cases(table(rows))
    context = solver.context
    assert torch.equal(context.parameters, table(rows))
    assert [tuple(points.shape) for points in context.coordinates] == [(3, flow.shape[0]), (3, flow.shape[1])]
    for number, case in enumerate(solver.cases):
        for ours, points in zip(context.coordinates, case.box.centers(flow.shape), strict=True):
            assert torch.equal(ours[number], points)
    if solver.cases[0].bodies:
        assert context.mask.shape == (3, *flow.shape)
        for mask, case in zip(context.mask, solver.cases, strict=True):
            x, y = case.box.centers(flow.shape)
            depth = case.distance(x[:, None], y) / max(case.spacings(flow.shape))
            assert bool(mask[depth > 0.5].all())
            assert not bool(mask[depth < -0.5].any())
    else:
        assert context.mask is None


def test_axes_have_bounds_where_all_cases_share_their_extent():
    flow, rows = FAMILIES[0]
    assert flow.of_cases(table(rows[:1] * 2)).grid.axes[0].bounds == (0.0, 1.0)
    assert flow.of_cases(table(rows)).grid.axes[0].bounds is None
    assert flow.grid.axes[1].bounds == (0.0, 1.0)
    assert not any(axis.period for axis in flow.grid.axes)


@each_family
def test_steps_follow_the_parameters_of_the_context(flow, rows):
    assert isinstance(flow, Stepper)
    for protocol in (Varied, Placed, Monitored, Bounded):
        assert isinstance(flow, protocol)
    solver = flow.of_cases(table(rows))
    start = random_state(solver, size=0.1)
    block = flow.step(start.unsqueeze(1), solver.context)
    assert torch.equal(block[:, 0], solver.advance(start, flow.steps_per_frame))
    # As loaders give it: all in single precision.
    context = solver.context
    coordinates = tuple(points.float() for points in context.coordinates)
    rounded = Context(coordinates, context.parameters.float(), context.mask)
    single = flow.step(start.float().unsqueeze(1), rounded)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), block, rtol=1e-4, atol=1e-4)


@each_family
def test_rounding_of_parameters_opens_and_closes_no_faces(flow, rows):
    exact, rounded = flow.of_cases(table(rows)), flow.of_cases(table(rows).float().double())
    for case, other in zip(exact.cases, rounded.cases, strict=True):
        for faces, faces_too in zip(case.closed_faces(flow.shape), other.closed_faces(flow.shape), strict=True):
            assert torch.equal(faces, faces_too)


def test_limits_hold_for_rounded_parameters_too():
    # A step of three cells each way, three cells from the side, at the longest time step.
    row = table([[0.7, 1.0, 0.1, 0.3, 0.3, 0.3, 3.0, 1.0]])
    shape = (30, 10)
    limit = EnclosedFlow(StepFlow(*row[0].tolist()), shape, 1e-3, 1).largest_time_step()
    flow = EnclosedFlow(StepFlow(*row[0].tolist()), shape, limit, 1)
    for low in (row.float().double(), row * (1 - 1e-7), row * (1 + 1e-7)):
        for case, expected in zip(flow.of_cases(low).cases, flow.of_cases(row).cases, strict=True):
            for faces, faces_too in zip(case.closed_faces(shape), expected.closed_faces(shape), strict=True):
                assert torch.equal(faces, faces_too)


def test_without_parameters_the_case_is_the_own_one():
    flow, rows = FAMILIES[1]
    solver = flow.of_base(2)
    start = random_state(solver)
    x, y = (points.expand(2, -1) for points in flow.coordinates)
    block = flow.step(start.unsqueeze(1), Context((x, y)))
    assert torch.equal(block[:, 0], flow.advance(start, flow.steps_per_frame))
    assert torch.equal(flow.of_cases(table(rows[:1] * 2)).advance(start, 2), flow.advance(start, 2))


def test_rollouts_run_and_stop_what_blows_up():
    flow, rows = FAMILIES[3]
    solver = flow.of_cases(table(rows))
    start = random_state(solver, size=0.1)
    start[2, 0] *= 1e150
    run = rollout(flow, start.unsqueeze(1), solver.context, frames=3)
    frames = torch.cat(list(run), 1)
    assert frames.shape == (3, 3, 3, *flow.shape)
    assert run.first_bad_frame[:2].tolist() == [3, 3]
    assert int(run.first_bad_frame[2]) < 3
    expected = solver.advance(start, 3 * flow.steps_per_frame)
    assert torch.equal(frames[:2, -1], expected[:2])


def test_metadata_name_the_problem_its_fields_and_parameters():
    flow, _ = FAMILIES[4]
    metadata = flow.metadata
    assert metadata.name == "SmokePlume"
    assert [channel.name for channel in metadata.channels] == ["velocity_x", "velocity_y", "pressure", "smoke"]
    assert [channel.location for channel in metadata.channels] == ["face_x", "face_y", "cell", "cell"]
    assert metadata.parameters == flow.parameter_names == tuple(flow.parameters_by_name)
    assert metadata.frame_interval == 1.0
    assert flow.parameters_by_name["dynamic_viscosity"] == 0.5


# Restarts and precision.


@each_family
def test_going_on_from_a_state_is_as_if_it_had_not_stopped(flow, rows):
    solver = flow.of_cases(table(rows))
    start = random_state(solver, size=0.1)
    whole = solver.advance(start, 7)
    assert torch.equal(solver.advance(solver.advance(start, 3), 4), whole)
    assert torch.equal(flow.of_cases(table(rows)).advance(start, 7), whole)
    assert torch.equal(solver.advance(start, 0)[:, :2], start[:, :2])


@each_family
def test_single_precision_stays_close_to_double(flow, rows):
    single = EnclosedFlow(flow.problem, flow.shape, flow.frame_interval, flow.steps_per_frame, precision="float32")
    start = random_state(flow.of_cases(table(rows)), size=0.1)
    end, rough = (solver.of_cases(table(rows)).advance(start, 20) for solver in (flow, single))
    assert rough.dtype == torch.float64
    for channel in range(end.shape[1]):
        scale = float(end[:, channel].abs().max())
        torch.testing.assert_close(rough[:, channel], end[:, channel], rtol=0, atol=2e-4 * scale)
    seen = single.of_cases(table(rows)).diagnostics(rough)
    assert float(seen.divergence.max()) < 1e-4


def test_buffers_move_but_do_not_fill_checkpoints():
    flow, _ = FAMILIES[3]
    assert not flow.state_dict()
    assert not flow.of_base(1).state_dict()


# Gradients.


@each_family
def test_gradients_through_steps_are_those_of_differences(flow, rows):
    solver = flow.of_cases(table(rows))
    start = random_state(solver, size=0.1)
    weights = random_state(solver, seed=5)
    toward = torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    state = start.clone().requires_grad_()
    (solver.advance(state, 3) * weights).sum().backward()
    assert state.grad is not None
    slope = float((state.grad * toward).sum())
    ahead, back = (float((solver.advance(start + eps * toward, 3) * weights).sum()) for eps in (1e-6, -1e-6))
    assert slope == pytest.approx((ahead - back) / 2e-6, rel=1e-5)


# Bad input.


@each_family
def test_states_of_another_shape_are_refused(flow, rows):
    solver = flow.of_cases(table(rows))
    channels = len(flow.channels)
    good = solver.at_rest()
    message = rf"Expected fields \(3, {channels}, {flow.shape[0]}, {flow.shape[1]}\), \(case, channel, x, y\)"
    for state in (good[:, :2], good[:, :, 1:], good[:2], good[0]):
        with pytest.raises(ValueError, match=message):
            solver.advance(state, 1)
        with pytest.raises(ValueError, match=message):
            solver.diagnostics(state)
    with pytest.raises(ValueError, match="Expected a number of steps >= 0 but got -1"):
        solver.advance(good, -1)
    with pytest.raises(ValueError, match="but got"):
        flow.step(good[:, None, :, 1:], solver.context)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0, 1.0, 1e-5, 1.0, 1.0], r"Case 1 \(lid_velocity 1, .*dynamic_viscosity 1e-05.*\): .*cell Reynolds number"),
        ([100.0, 1.0, 1.0, 1.0, 1.0], "Case 1 .*: Expected a time step of at most .* use at least .* steps per frame"),
        ([1.0, -1.0, 0.01, 1.0, 1.0], "Case 1 .*: Expected a positive density but got -1"),
        ([1.0, 1.0, 0.01, 0.0, 1.0], "Case 1 .*: Expected a finite box"),
        ([math.nan, 1.0, 0.01, 1.0, 1.0], "Case 1 .*: Expected a finite wall velocity but got nan"),
        ([1.0, 1.0, math.nan, 1.0, 1.0], "Case 1 .*: Expected a positive dynamic_viscosity but got nan"),
    ],
)
def test_a_case_that_cannot_be_computed_is_named(row, message):
    flow, rows = FAMILIES[0]
    with pytest.raises(ValueError, match=message):
        flow.of_cases(table([rows[0], row]))


@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 6), (1, 2, 5)])
def test_parameters_of_another_shape_are_refused(shape):
    flow, _ = FAMILIES[0]
    with pytest.raises(ValueError, match=r"Expected parameters \(batch, 5\), \('lid_velocity', .* but got"):
        flow.of_cases(torch.ones(shape, dtype=torch.float64))


def test_a_batch_needs_cases():
    flow, _ = FAMILIES[0]
    with pytest.raises(ValueError, match="Expected at least one case but got none"):
        flow.of_cases(torch.ones(0, 5))


def test_a_state_too_fast_for_the_time_step_is_refused_with_one_that_will_do():
    flow, rows = FAMILIES[0]
    solver = flow.of_cases(table(rows))
    state = random_state(solver, size=0.1)
    solver.require_stable(state)
    state[1] *= 100
    with pytest.raises(ValueError, match=r"Courant number of at most 1.73.* case 1 has") as caught:
        solver.require_stable(state)
    step = float(str(caught.value).split("time step of at most ")[1].split()[0])
    number = solver.diagnostics(state).cfl_number[1] * step / flow.time_step
    assert float(number) == pytest.approx(math.sqrt(3), rel=5e-3)
    state[1] = math.nan
    with pytest.raises(ValueError, match="case 1 has nan"):
        solver.require_stable(state)


def test_cases_of_one_batch_must_be_alike():
    box, fluid = Box((0.0, 0.0), (1.0, 1.0)), Fluid(1.0, 0.1)
    plain = Case(box, Boundary(), fluid)
    with pytest.raises(ValueError, match="Expected the same kinds of sides in all cases of a batch but case 1 has"):
        flows_of([plain, Case(box, Boundary(top=FreeSlip()), fluid)], (8, 8), 0.001)
    with pytest.raises(ValueError, match="Expected a scalar in all cases of a batch or in none but case 1 differs"):
        flows_of([plain, Case(box, Boundary(), fluid, scalar=BuoyantScalar())], (8, 8), 0.001)
    assert isinstance(flows_of([plain, Case(box, Boundary(top=Wall(1.0)), fluid)], (8, 8), 0.001), EnclosedCases)


def test_a_problem_is_anything_with_parameters_and_a_case():
    problem: Problem = FAMILIES[2][0].problem
    assert problem.case().bodies


def test_a_run_that_is_too_fast_is_doubted():
    plume = EnclosedFlow(SmokePlume(dynamic_viscosity=0.5), (16, 16), 1.0, 4)
    cases = plume.of_base(2)
    state = cases.at_rest()
    assert cases.doubts(cases.diagnostics(state)) == ""
    state[1, 0, 8, 8] = 10.0
    found = cases.doubts(cases.diagnostics(state))
    assert "the Courant number is 1.25; up to 1 the scheme is sure to keep within its first bounds" in found

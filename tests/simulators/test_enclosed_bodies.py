"""Bodies in enclosed flows: no slip to second order on curved surfaces, exact on flat ones, and nothing inside."""

from __future__ import annotations

import math

import pytest
import torch
from enclosed_cases import SteadyForce, flows_of, order, random_state, smooth_stream, state_of, velocity_of

from pdesurrogate.simulators.enclosed.boundary import Boundary, FreeSlip, Inlet, Outlet, Wall
from pdesurrogate.simulators.enclosed.case import Case, Fluid
from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Box, Disc, Rectangle
from pdesurrogate.simulators.enclosed.problems import CylinderWake, StepFlow

UNIT = Box((0.0, 0.0), (1.0, 1.0))
DISC = Disc((0.52, 0.47), 0.21)


def around_the_disc(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Vanishes with its gradient on the walls and on the circle."""
    walls = (torch.sin(torch.pi * x) * torch.sin(torch.pi * y)).square()
    square = (x - 0.52).square() + (y - 0.47).square()
    return 20 * walls * (square - DISC.radius**2) * (1 + x)


def and_its_slope(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    square = (x - 0.52).square() + (y - 0.47).square()
    return 10 * around_the_disc(x, y) * (square - DISC.radius**2)


def test_velocity_around_a_disc_is_of_second_order():
    viscosity = 0.05
    case = Case(UNIT, Boundary(), Fluid(1.0, viscosity), bodies=(DISC,), force=SteadyForce(and_its_slope, viscosity))
    largest, typical = [], []
    for cells in (24, 48):
        solver = flows_of([case], (cells, cells), 0.5 / (cells * cells // 11))
        velocity = velocity_of(and_its_slope, UNIT, solver.shape)
        state = solver.advance(solver.without_divergence(state_of(velocity)), cells * cells // 11)
        closed_x, closed_y = case.closed_faces(solver.shape)
        closed = torch.stack([closed_x[:-1], closed_y[:, :-1]])
        wrong = (state[0, :2] - velocity).masked_fill(closed, 0)
        largest.append(float(wrong.abs().max()))
        typical.append(float(wrong.square().mean().sqrt()))
    assert order(typical) > 1.9
    assert order(largest) > 1.7


@pytest.mark.parametrize("height", [0.25, 0.3, 0.3137, 0.36])
def test_shear_over_a_flat_surface_between_grid_lines_is_steady(height):
    floor = Rectangle((-5.0, -5.0), (5.0, height))
    sides = Boundary(FreeSlip(), FreeSlip(), Wall(), Wall(1.0 - height))
    solver = flows_of([Case(UNIT, sides, Fluid(1.0, 0.1), bodies=(floor,))], (8, 16), 0.001)
    _, y = UNIT.centers(solver.shape)
    u = ((y - height).clamp(min=0) * solver.scheme.open_x[0, 4]).expand(1, 9, 16).contiguous()
    v = torch.zeros(1, 8, 17, dtype=torch.float64)
    rates = solver.scheme.tendency(u, v)
    rates = solver.scheme.moved(torch.zeros_like(u), v, *rates)
    for rate in rates:
        torch.testing.assert_close(rate, torch.zeros_like(rate), rtol=0, atol=1e-12)
    force = solver.scheme.forces_on_bodies(u, v, torch.zeros(1, 8, 16, dtype=torch.float64), None)
    # Shear stress by the length of the surface between the first and last faces that move.
    assert float(force[0, 0]) == pytest.approx(0.1 * 7 / 8, abs=1e-12)


@pytest.mark.parametrize(
    ("bar", "box", "part"),
    [
        (Rectangle((-1.0, -1.0), (2.0, 0.25)), Box((0.0, 0.25), (1.0, 1.0)), (slice(None), slice(4, None))),
        (Rectangle((-1.0, 0.5), (2.0, 2.0)), Box((0.0, 0.0), (1.0, 0.5)), (slice(None), slice(8))),
        (Rectangle((-1.0, -1.0), (0.25, 2.0)), Box((0.25, 0.0), (1.0, 1.0)), (slice(4, None), slice(None))),
        (Rectangle((0.75, -1.0), (2.0, 2.0)), Box((0.0, 0.0), (0.75, 1.0)), (slice(12), slice(None))),
    ],
    ids=["bottom", "top", "left", "right"],
)
def test_a_body_that_fills_one_end_of_a_box_is_a_wall(bar, box, part):
    with_body = Case(UNIT, Boundary(Wall(0.3), Wall(-0.4), Wall(0.5), Wall(-0.2)), Fluid(2.0, 0.05), bodies=(bar,))
    moving = with_body.boundary
    ends = Boundary(
        moving.left if box.low[0] == 0 else Wall(),
        moving.right if box.high[0] == 1 else Wall(),
        moving.bottom if box.low[1] == 0 else Wall(),
        moving.top if box.high[1] == 1 else Wall(),
    )
    small = Case(box, ends, with_body.fluid)
    rows, columns = (len(range(16)[piece]) for piece in part)
    solver, other = flows_of([with_body], (16, 16), 0.01), flows_of([small], (rows, columns), 0.01)
    start = state_of(velocity_of(smooth_stream(box), box, (rows, columns)))
    padded = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    padded[:, :, part[0], part[1]] = start
    end, expected = solver.advance(padded, 20)[:, :, part[0], part[1]], other.advance(start, 20)
    torch.testing.assert_close(end[:, :2], expected[:, :2], rtol=0, atol=1e-12)
    torch.testing.assert_close(end[:, 2] - end[:, 2].mean(), expected[:, 2] - expected[:, 2].mean(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("problem", "shape"), [(CylinderWake(), (44, 24)), (StepFlow(), (64, 16))], ids=["cylinder", "step"]
)
def test_nothing_flows_inside_a_body(problem, shape):
    flow = EnclosedFlow(problem, shape, 0.05, 2, math.inf)
    solver = flow.of_base(1)
    state = solver.advance(random_state(solver), 10)
    closed_x, closed_y = solver.cases[0].closed_faces(shape)
    assert bool((state[0, 0][closed_x[:-1]] == 0).all())
    assert bool((state[0, 1][closed_y[:, :-1]] == 0).all())
    assert bool((state[0, 2][~solver.context.mask[0]] == 0).all())
    assert bool((state[0, 0][~closed_x[:-1]] != 0).any())


def test_all_that_enters_passes_over_the_step():
    problem = StepFlow(step_height=0.375, step_width=0.5, dynamic_viscosity=0.05)
    flow = EnclosedFlow(problem, (64, 16), 0.1, 8)
    state = flow.advance(flow.at_rest(1), 400)
    through = state[0, 0].sum(1) / 16
    torch.testing.assert_close(through, torch.ones_like(through), rtol=0, atol=1e-12)
    over = state[0, 0, 16:25]
    assert bool((over[:, :6] == 0).all())
    assert float(over.max()) > 1 / (1 - 0.375)
    seen = flow.diagnostics(state)
    assert float(seen.drag) > 0
    # The fluid turns back behind the step.
    assert float(state[0, 0, 25:32, 0].min()) < 0


def test_solid_cells_are_those_without_an_open_face():
    solver = flows_of(
        [Case(UNIT, Boundary(), Fluid(1.0, 0.1), bodies=(Rectangle((0.25, 0.25), (0.75, 0.5)),))], (16, 16), 0.001
    )
    expected = torch.ones(16, 16, dtype=torch.bool)
    expected[4:12, 4:8] = False
    assert torch.equal(solver.context.mask[0], expected)


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        (Rectangle((0.4, -1.0), (0.6, 2.0)), r"reaches from side to side along y and cuts the box Box\(.*\) in two"),
        (Rectangle((-1.0, -1.0), (2.0, 2.0)), "Expected fluid cells in every box but all faces of box 1 are closed"),
    ],
)
def test_bodies_that_shut_fluid_in_are_refused(bar, message):
    cases = [Case(UNIT, Boundary(), Fluid(1.0, 0.1), bodies=bodies) for bodies in ((), (bar,))]
    with pytest.raises(ValueError, match=message):
        flows_of(cases, (16, 16), 0.001)


def test_a_body_that_dams_a_channel_is_refused():
    dam = Rectangle((0.4, -1.0), (0.6, 2.0))
    through = Case(UNIT, Boundary(left=Inlet(1.0), right=Outlet()), Fluid(1.0, 0.1), bodies=(dam,))
    with pytest.raises(ValueError, match=r"leave a way past them .* along y and cuts the box"):
        flows_of([through], (16, 16), 0.001)

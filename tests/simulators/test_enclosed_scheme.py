"""The scheme of enclosed flows against exact solutions, its orders in space and time, invariants and symmetries."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from enclosed_cases import (
    SteadyForce,
    exchanged,
    flows_of,
    mirrored,
    order,
    random_state,
    smooth_stream,
    state_of,
    velocity_of,
)

from pdesurrogate.simulators.enclosed.boundary import Boundary, FreeSlip, Inlet, Outlet, ParabolicInlet, Wall
from pdesurrogate.simulators.enclosed.case import BuoyantScalar, Case, Fluid
from pdesurrogate.simulators.enclosed.flow import EnclosedCases, EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Box, Disc, Rectangle
from pdesurrogate.simulators.enclosed.problems import (
    Cavity,
    CylinderWake,
    Problem,
    SchaeferTurek,
    SmokePlume,
    StepFlow,
    Tube,
)

UNIT = Box((0.0, 0.0), (1.0, 1.0))
OBLONG = Box((-1.0, 0.5), (1.0, 1.5))
SLIPPERY = Boundary(FreeSlip(), FreeSlip(), FreeSlip(), FreeSlip())
THROUGH = Boundary(left=Inlet(1.0), right=Outlet())
ALL_PROBLEMS: list[tuple[Problem, tuple[int, int]]] = [
    (Cavity(width=2.0), (20, 12)),
    (Tube(), (24, 10)),
    (StepFlow(), (40, 16)),
    (CylinderWake(), (33, 24)),
    (SchaeferTurek(), (88, 16)),
    (SmokePlume(dynamic_viscosity=1.0), (16, 16)),
]


def name_of(value: object) -> str | None:
    return type(value).__name__ if hasattr(value, "case") else None


def solver_of(problem: Problem, shape: tuple[int, int], time_step: float | None = None) -> EnclosedCases:
    step = time_step or EnclosedFlow(problem, shape, 1e-6, 1, math.inf).largest_time_step() / 2
    return EnclosedFlow(problem, shape, step, 1, math.inf).of_base(1)


# Exact solutions.


def test_taylor_green_vortices_between_slippery_sides_are_of_second_order():
    box = Box((0.0, 0.0), (math.pi, math.pi))
    case = Case(box, SLIPPERY, Fluid(2.0, 0.2), speed=1.0)
    errors, pressure_errors = [], []
    for cells in (8, 16, 32):
        solver = flows_of([case], (cells, cells), 1 / (2 * cells))
        velocity = velocity_of(lambda x, y: torch.sin(x) * torch.sin(y), box, solver.shape)
        state = solver.advance(state_of(velocity), 2 * cells)
        errors.append(float((state[0, :2] - velocity * math.exp(-0.2)).abs().max()))
        x, y = box.centers(solver.shape)
        # The pressure of a step is that of 5/6 of the step.
        time = 1 - 1 / 6 / (2 * cells)
        pressure = 2 * (torch.cos(2 * x)[:, None] + torch.cos(2 * y)) / 4 * math.exp(-0.4 * time)
        pressure_errors.append(float((state[0, 2] - pressure).abs().max()))
        # Advection of these vortices is a gradient on the grid as well: only the rate of decay is off.
        wave = 2 * math.sin(math.pi / cells / 2) / (math.pi / cells)
        on_grid = velocity * math.exp(-0.2 * wave**2)
        torch.testing.assert_close(state[0, :2], on_grid, rtol=0, atol=1e-6 * (8 / cells) ** 3)
    assert order(errors) == pytest.approx(2, abs=0.05)
    assert order(pressure_errors) == pytest.approx(2, abs=0.05)


def between_walls(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (torch.sin(torch.pi * x) * torch.sin(torch.pi * y)).square() / 3


def test_a_manufactured_flow_between_walls_is_of_second_order():
    case = Case(UNIT, Boundary(), Fluid(1.0, 0.05), force=SteadyForce(between_walls, 0.05))
    errors = []
    for cells in (8, 16, 32):
        solver = flows_of([case], (cells, cells), 0.5 / (cells * cells // 10))
        velocity = velocity_of(between_walls, UNIT, solver.shape)
        state = solver.advance(state_of(velocity), cells * cells // 10)
        errors.append(float((state[0, :2] - velocity).abs().max()))
    assert order(errors) == pytest.approx(2, abs=0.05)


def test_couette_flow_is_exact():
    # Both plates slide, the open sides slip: between them the velocity is linear in y, the pressure constant.
    sides = Boundary(FreeSlip(), FreeSlip(), Wall(-1.0), Wall(2.0))
    solver = flows_of([Case(OBLONG, sides, Fluid(1.0, 0.1))], (4, 10), 0.01)
    scheme = solver.scheme
    _, y = OBLONG.centers(solver.shape)
    u = (-1 + 3 * (y - 0.5)).expand(1, 5, 10).contiguous()
    rate_x, rate_y = scheme.tendency(u, torch.zeros(1, 4, 11, dtype=torch.float64))
    torch.testing.assert_close(rate_x, torch.zeros_like(rate_x), rtol=0, atol=1e-12)
    torch.testing.assert_close(rate_y, torch.zeros_like(rate_y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("speed", [1.0, -1.0])
def test_momentum_leaves_with_the_fluid_and_none_comes_back(speed):
    sides = Boundary(Inlet(1.0), Outlet(), FreeSlip(), FreeSlip())
    solver = flows_of([Case(OBLONG, sides, Fluid(1.0, 0.1))], (6, 8), 0.01)
    u = torch.full((1, 7, 8), speed, dtype=torch.float64)
    v = torch.sin(torch.arange(9, dtype=torch.float64)).expand(1, 6, 9)
    _, rate = solver.scheme.tendency(u, v)
    # In the middle as much comes as goes; what flows back in brings nothing with it.
    missing = min(speed, 0.0) * v[:, -1, 1:-1] / (2.0 / 6)
    torch.testing.assert_close(rate[:, -1] - rate[:, -2], missing, rtol=0, atol=1e-12)


def test_layers_of_a_buoyant_scalar_stay_at_rest_under_hydrostatic_pressure():
    case = Case(UNIT, Boundary(), Fluid(3.0, 0.3), scalar=BuoyantScalar(0.0, (0.0, 0.5)))
    solver = flows_of([case], (6, 10), 0.01)
    layers = torch.rand(10, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).expand(6, 10)
    state = solver.advance(state_of(torch.zeros(2, 6, 10, dtype=torch.float64), layers), 20)
    torch.testing.assert_close(state[0, :2], torch.zeros_like(state[0, :2]), rtol=0, atol=1e-14)
    rise = 3.0 * 0.5 * (layers[:, 1:] + layers[:, :-1]) / 2 * 0.1
    torch.testing.assert_close(state[0, 2].diff(dim=1), rise, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("buoyancy", "axis", "sign"), [((0.0, 0.5), 1, 1), ((0.0, -0.5), 1, -1), ((0.5, 0.0), 0, 1)])
def test_smoke_goes_where_its_buoyancy_points(buoyancy, axis, sign):
    case = Case(UNIT, Boundary(), Fluid(1.0, 0.02), scalar=BuoyantScalar(0.0, buoyancy))
    solver = flows_of([case], (16, 16), 0.02)
    x, y = UNIT.centers((16, 16))
    smoke = torch.exp(-((x[:, None] - 0.5).square() + (y - 0.5).square()) / 0.02)
    later = solver.advance(state_of(torch.zeros(2, 16, 16, dtype=torch.float64), smoke), 20)[0, 3]
    moved = [float((later * places).sum() / later.sum()) - 0.5 for places in (x[:, None], y)]
    assert sign * moved[axis] > 0.005
    assert abs(moved[1 - axis]) < 1e-12


# Order in time.


@pytest.mark.parametrize(
    ("problem", "shape", "longest"),
    [(Cavity(), (12, 12), 0.04), (Tube(), (24, 8), 0.04), (StepFlow(length=3.0), (36, 12), 0.03)],
    ids=name_of,
)
def test_velocity_is_of_third_order_in_time(problem, shape, longest):
    solvers = [solver_of(problem, shape, longest / parts) for parts in (1, 2, 16)]
    start = random_state(solvers[0], size=0.1)
    ends = [solver.advance(start, 8 * parts)[:, :2] for solver, parts in zip(solvers, (1, 2, 16), strict=True)]
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:2]]
    assert order(errors) > 2.8


def test_buoyant_flow_is_of_second_order_in_time():
    case = Case(UNIT, Boundary(), Fluid(1.0, 0.01), scalar=BuoyantScalar(0.01, (0.0, 1.0)))
    x, y = UNIT.centers((12, 12))
    smoke = torch.sin(torch.pi * x)[:, None].square() * (1 - y).square()
    ends = []
    for parts in (1, 2, 16):
        solver = flows_of([case], (12, 12), 0.08 / parts)
        start = state_of(0.3 * velocity_of(between_walls, UNIT, solver.shape), smoke)
        ends.append(solver.advance(start, 8 * parts)[:, [0, 1, 3]])
    assert order([float((end - ends[-1]).abs().max()) for end in ends[:2]]) > 1.9


# Invariants.


@pytest.mark.parametrize("sides", [SLIPPERY, Boundary()], ids=["slippery", "walls"])
def test_advection_keeps_the_kinetic_energy_to_the_error_in_time(sides):
    case = Case(OBLONG, sides, Fluid(2.0, 1e-13), speed=2.0)
    lost = []
    for parts in (1, 2):
        solver = flows_of([case], (24, 12), 0.02 / parts)
        start = state_of(velocity_of(smooth_stream(OBLONG), OBLONG, solver.shape))
        energies = [
            float(solver.diagnostics(state).kinetic_energy) for state in (start, solver.advance(start, 50 * parts))
        ]
        lost.append(abs(1 - energies[1] / energies[0]))
    assert lost[1] < 1e-4
    assert order(lost) > 2.8


def test_kinetic_energy_is_half_the_mass_times_the_mean_square():
    case = Case(OBLONG, SLIPPERY, Fluid(3.0, 0.1))
    solver = flows_of([case], (64, 32), 0.001)
    start = state_of(
        velocity_of(lambda x, y: torch.sin(torch.pi * (x + 1)) * torch.sin(torch.pi * (y - 0.5)), OBLONG, (64, 32))
    )
    assert float(solver.diagnostics(start).kinetic_energy) == pytest.approx(3 / 2 * 2 * math.pi**2 / 2, rel=2e-3)


@pytest.mark.parametrize(("problem", "shape"), ALL_PROBLEMS, ids=name_of)
def test_continuity_holds_to_round_off_in_every_cell_at_every_time(problem, shape):
    solver = solver_of(problem, shape)
    state = random_state(solver, size=0.1 * solver.cases[0].expected_speed)
    rate = float(state[:, :2].abs().max()) / min(solver.cases[0].spacings(shape))
    for steps in (0, 1, 3, 10):
        state = solver.advance(state, steps)
        seen = solver.diagnostics(state)
        assert float(seen.divergence) < 1e-12 * rate
        assert float(seen.inflow - seen.outflow) == pytest.approx(0, abs=1e-13 * max(1.0, float(seen.inflow)))
    expected = float(solver.scheme.inflow.sum() * solver.scheme.dy)
    assert float(seen.inflow) == pytest.approx(expected, abs=1e-14)


def test_a_parabolic_inlet_brings_in_two_thirds_of_its_peak():
    solver = solver_of(SchaeferTurek(peak_velocity=1.5), (88, 16))
    assert float(solver.diagnostics(solver.at_rest()).inflow) == pytest.approx(0.41, abs=1e-14)


def test_force_on_a_body_is_what_the_momentum_around_it_loses():
    density, viscosity, shape = 2.0, 0.1, (32, 16)
    bodies = Disc((-0.3, 1.05), 0.2), Rectangle((-0.5, 0.9), (-0.1, 1.15)), Rectangle((-0.5, -1.0), (-0.1, 0.8))
    cases = [Case(OBLONG, THROUGH, Fluid(density, density * viscosity), bodies=(body,)) for body in bodies]
    solver = flows_of(cases, shape, 0.012)
    state = solver.advance(solver.at_rest(), 1500)
    seen = solver.diagnostics(state)
    u, _, pressure, _ = solver._split(state)
    # What flows inside a step makes the flow stick to its front; at its foot the floor rubs on it.
    u = solver.scheme.mirrored(u, "x")[:, :-1]
    (dx, dy), pressure = cases[0].spacings(shape), density * pressure
    # Through the centers of the first and the last but one cells along x, and along the walls between them.
    middle = (u[:, 1:] + u[:, :-1]) / 2
    through = density * (middle.square() - viscosity * u.diff(dim=1) / dx) + pressure[:, :-1]
    along_walls = density * viscosity * (u[:, 1:-1, 0] + u[:, 1:-1, -1]).sum(1) * dx / (dy / 2)
    drag = (through[:, 0] - through[:, -1]).sum(1) * dy - along_walls
    torch.testing.assert_close(seen.drag, drag, rtol=1e-8, atol=0)
    assert float(seen.drag.min()) > 0.1


def test_lift_is_the_force_along_y():
    # The same flow, x and y exchanged, cannot be had with an outlet: a closed box with a sliding wall.
    disc = Disc((-0.3, 1.05), 0.2)
    case = Case(OBLONG, Boundary(top=Wall(1.0)), Fluid(1.0, 0.1), bodies=(disc,))
    turned = Case(
        Box((0.5, -1.0), (1.5, 1.0)), Boundary(right=Wall(1.0)), Fluid(1.0, 0.1), bodies=(Disc((1.05, -0.3), 0.2),)
    )
    solver, other = flows_of([case], (32, 16), 0.01), flows_of([turned], (16, 32), 0.01)
    state = solver.advance(solver.at_rest(), 30)
    seen, seen_turned = solver.diagnostics(state), other.diagnostics(exchanged(state))
    assert abs(float(seen.drag)) > 1e-3
    torch.testing.assert_close(seen.drag, seen_turned.lift, rtol=0, atol=1e-12)
    torch.testing.assert_close(seen.lift, seen_turned.drag, rtol=0, atol=1e-12)


# Symmetries.

SLIDING = Case(
    OBLONG,
    Boundary(Wall(0.3), Wall(-0.7), Wall(1.1), Wall(0.2)),
    Fluid(1.5, 0.03),
    bodies=(Disc((0.2, 0.9), 0.15),),
    scalar=BuoyantScalar(0.01, (0.2, 0.3)),
)


def test_a_mirror_image_moves_as_the_mirror_image_of_the_flow():
    image = replace(
        SLIDING,
        boundary=Boundary(Wall(-0.3), Wall(0.7), Wall(0.2), Wall(1.1)),
        bodies=(Disc((0.2, 1.1), 0.15),),
        scalar=BuoyantScalar(0.01, (0.2, -0.3)),
    )
    solver, other = flows_of([SLIDING], (32, 16), 0.01), flows_of([image], (32, 16), 0.01)
    start = random_state(solver)
    expected = mirrored(solver.advance(start, 10))
    torch.testing.assert_close(other.advance(mirrored(start), 10), expected, rtol=0, atol=1e-12)


def test_axes_are_alike():
    turned = Case(
        Box((0.5, -1.0), (1.5, 1.0)),
        Boundary(Wall(1.1), Wall(0.2), Wall(0.3), Wall(-0.7)),
        SLIDING.fluid,
        bodies=(Disc((0.9, 0.2), 0.15),),
        scalar=BuoyantScalar(0.01, (0.3, 0.2)),
    )
    solver, other = flows_of([SLIDING], (32, 16), 0.01), flows_of([turned], (16, 32), 0.01)
    start = random_state(solver)
    assert torch.equal(exchanged(exchanged(start)), start)
    torch.testing.assert_close(
        other.advance(exchanged(start), 10), exchanged(solver.advance(start, 10)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("problem", "shape"), [(Tube(), (24, 10)), (CylinderWake(), (33, 24))], ids=name_of)
def test_a_symmetric_case_starts_and_stays_symmetric(problem, shape):
    solver = solver_of(problem, shape)
    state = solver.advance(solver.at_rest(), 20)
    torch.testing.assert_close(mirrored(state), state, rtol=0, atol=1e-11)
    assert float(solver.diagnostics(state).lift) == pytest.approx(0, abs=1e-11)


def test_twice_the_density_and_viscosity_is_the_same_flow_under_twice_the_pressure():
    heavy = replace(SLIDING, fluid=Fluid(3.0, 0.06))
    solver, other = flows_of([SLIDING], (32, 16), 0.01), flows_of([heavy], (32, 16), 0.01)
    start = random_state(solver)
    end, heavy_end = solver.advance(start, 5), other.advance(start, 5)
    assert torch.equal(heavy_end[:, [0, 1, 3]], end[:, [0, 1, 3]])
    assert torch.equal(heavy_end[:, 2], 2 * end[:, 2])


def test_a_scaled_case_has_the_scaled_flow():
    # Lengths by 4, velocities by 2, density by 8: at the same Reynolds number; powers of two leave no rounding.
    small = CylinderWake(dynamic_viscosity=0.05)
    large = CylinderWake(2.0, 8.0, 0.05 * 8 * 2 * 4, 2.0, -12.0, 32.0, -12.0, 12.0)
    solver, other = solver_of(small, (33, 24), 0.05), solver_of(large, (33, 24), 0.1)
    start = solver.at_rest()
    end = solver.advance(start, 10)
    units = torch.tensor([2.0, 2.0, 32.0], dtype=torch.float64).reshape(-1, 1, 1)
    torch.testing.assert_close(other.advance(units * start, 10), units * end, rtol=1e-11, atol=1e-11)
    seen, seen_large = solver.diagnostics(end), other.diagnostics(units * end)
    assert float(seen_large.drag) == pytest.approx(float(seen.drag) * 8 * 2**2 * 4, rel=1e-12)
    assert float(seen_large.cfl_number) == pytest.approx(float(seen.cfl_number), rel=1e-12)
    assert float(seen_large.kinetic_energy) == pytest.approx(float(seen.kinetic_energy) * 8 * 2**2 * 4**2, rel=1e-12)


def test_cavities_that_differ_in_a_constant_force_differ_in_pressure_alone():
    class Weight:
        def at(self, x, y):
            return torch.full_like(x + y, 0.5), torch.full_like(x + y, -9.81)

    plain = Cavity(density=2.0).case()
    solver, other = (flows_of([case], (10, 12), 0.02) for case in (plain, replace(plain, force=Weight())))
    start = random_state(solver)
    end, heavy = solver.advance(start, 5), other.advance(start, 5)
    torch.testing.assert_close(heavy[:, :2], end[:, :2], rtol=0, atol=1e-13)
    added = heavy[0, 2] - end[0, 2]
    torch.testing.assert_close(added.diff(dim=0) * 10, torch.ones(9, 12, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        added.diff(dim=1) * 12, torch.full((10, 11), -19.62, dtype=torch.float64), rtol=0, atol=1e-10
    )


def test_an_inlet_profile_does_not_change_the_kinds_of_sides():
    plain, parabolic = (
        Case(OBLONG, Boundary(left=inlet, right=Outlet()), Fluid(1.0, 0.1))
        for inlet in (Inlet(1.0), ParabolicInlet(1.5))
    )
    solver = flows_of([plain, parabolic], (16, 8), 0.01)
    inflow = solver.diagnostics(solver.at_rest()).inflow
    torch.testing.assert_close(inflow, torch.ones_like(inflow), rtol=0, atol=1e-14)

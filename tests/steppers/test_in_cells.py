"""The solver of boxes on velocities in cells: what it goes on from, and what it gives back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pdesurrogate.fields.staggered_box import cell_velocity
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
from pdesurrogate.simulators.enclosed.problems import Cavity, Tube
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.in_cells import InCells
from pdesurrogate.steppers.regridded import Regridded
from pdesurrogate.steppers.rollout import rollout

CELLS = (16, 12)
CASES = [Cavity(lid_velocity=1.0, dynamic_viscosity=0.02), Cavity(lid_velocity=0.5, dynamic_viscosity=0.02, width=1.5)]
NAMES = ("lid_velocity", "density", "dynamic_viscosity", "width", "height")


def flow(problem, shape=CELLS, steps=40):
    return EnclosedFlow(problem, shape, 0.2, steps, largest_cell_reynolds_number=math.inf)


def in_cells(states, context, high_end):
    """Frames ``(batch, 2, x, y)`` of states on faces."""
    frames = []
    for number, state in enumerate(states):
        sides = tuple(float(line[number, 1] - line[number, 0]) for line in context.coordinates)
        frames.append(torch.stack(cell_velocity(state[0], state[1], sides, high_end)))
    return torch.stack(frames)


def of_parameters(solver, problems):
    values = [[getattr(problem, name) for name in solver.parameter_names] for problem in problems]
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def cavities():
    """Solver, context and some frames of two cavities, on faces."""
    solver = flow(CASES[0])
    cases = solver.of_cases(of_parameters(solver, CASES))
    states = [cases.advance(cases.at_rest(), 80)]
    for _ in range(4):
        states.append(cases.advance(states[-1], 40))
    return solver, cases.context, torch.stack(states, 1)


def told(context, names, solver):
    """The context with these parameters alone."""
    places = [solver.parameter_names.index(name) for name in names]
    return context._replace(parameters=context.parameters[:, places])


def test_on_its_own_grid_it_gives_back_the_flow(cavities):
    solver, context, states = cavities
    stepper = InCells(Regridded(flow(CASES[0])), solver, NAMES, "wall")
    assert isinstance(stepper, Stepper)
    frames = torch.stack([in_cells(states[:, number], context, "wall") for number in range(5)], 1)
    run = torch.cat(list(rollout(stepper, frames[:, :1], told(context, NAMES, solver), 4)), 1)
    error = (run - frames[:, 1:]).square().mean((0, 2, 3, 4)).sqrt() / frames[:, 1:].square().mean((0, 2, 3, 4)).sqrt()
    # What the means of faces have lost dies away.
    assert error[0] < 0.05
    assert error[-1] < error[0]


def test_a_rollout_goes_on_from_the_solver_s_own_faces(cavities):
    solver, context, states = cavities
    stepper = InCells(Regridded(flow(CASES[0], (8, 6), 20)), solver, NAMES, "wall")
    given = in_cells(states[:, 0], context, "wall")[:, None]
    about = told(context, NAMES, solver)
    run = torch.cat(list(rollout(stepper, given, about, 3)), 1)
    # By hand: to the faces once, then the solver alone.
    regridded = Regridded(flow(CASES[0], (8, 6), 20))
    faces = InCells(regridded, solver, NAMES, "wall")._faces(given[:, 0], about)
    expected = []
    for block in rollout(regridded, faces[:, None], about, 3):
        expected.append(in_cells(block[:, -1], context, "wall"))
    torch.testing.assert_close(run, torch.stack(expected, 1), rtol=1e-12, atol=1e-12)


def test_cases_of_a_batch_do_not_know_of_each_other(cavities):
    solver, context, states = cavities
    given, about = in_cells(states[:, 0], context, "wall")[:, None], told(context, NAMES, solver)

    def run(stepper, rows):
        part = Context(tuple(line[rows] for line in about.coordinates), about.parameters[rows])
        return torch.cat(list(rollout(stepper, given[rows], part, 2)), 1)

    def stepper():
        return InCells(Regridded(flow(CASES[0], (8, 6), 20)), solver, NAMES, "wall")

    both = run(stepper(), slice(None))
    for number in range(2):
        torch.testing.assert_close(run(stepper(), slice(number, number + 1)), both[number : number + 1])
    # One frame of its own and one that is new.
    mixed = stepper()
    first = mixed.step(given, about)
    history = torch.stack([first[0], given[1]])
    found = mixed.step(history, about)
    torch.testing.assert_close(found[1], first[1])
    torch.testing.assert_close(found[0], both[0, 1:2])


def test_what_enters_leaves(cavities):
    solver = flow(Tube(length=2.0, dynamic_viscosity=0.05), (16, 8))
    names = ("inlet_velocity", "density", "dynamic_viscosity", "length", "height")
    cases = solver.of_cases(of_parameters(solver, [solver.problem]))
    given = in_cells(cases.advance(cases.at_rest(), 40), cases.context, "outlet")
    stepper = InCells(Regridded(solver), solver, names, "outlet")
    about = told(cases.context, names, solver)
    faces = stepper._faces(given, about)
    flow_rates = faces[0, 0].sum(-1)
    torch.testing.assert_close(flow_rates, flow_rates[:1].expand(16), rtol=1e-10, atol=1e-10)
    made = stepper.step(given[:, None], about)
    expected = in_cells(cases.advance(cases.advance(cases.at_rest(), 40), 40), cases.context, "outlet")
    assert float((made[:, 0] - expected).norm() / expected.norm()) < 0.01


def test_parameters_are_known_by_name_and_others_are_the_solver_s(cavities):
    solver, context, states = cavities
    given = in_cells(states[:, 0], context, "wall")[:, None]
    one, other = (
        InCells(Regridded(flow(CASES[0])), solver, names, "wall").step(given, told(context, names, solver))
        for names in (NAMES, NAMES[::-1])
    )
    assert torch.equal(one, other)
    same = replace(CASES[0])
    first = Context(tuple(line[:1] for line in context.coordinates))
    alone = InCells(Regridded(flow(same)), solver, (), "wall").step(given[:1], first)
    torch.testing.assert_close(alone, one[:1])


def test_fields_are_velocities_in_cells(cavities):
    solver, context, states = cavities
    stepper = InCells(Regridded(solver), solver, NAMES, "wall")
    channels = stepper.metadata.channels
    assert [(channel.name, channel.location) for channel in channels] == [
        ("velocity_x", "cell"),
        ("velocity_y", "cell"),
    ]
    with pytest.raises(ValueError, match="two velocities"):
        stepper.step(states, context)
    given = in_cells(states[:, 0], context, "wall")[:, None]
    with pytest.raises(ValueError, match=r"Expected the parameters .* but got 0 numbers"):
        stepper.step(given, context._replace(parameters=None))

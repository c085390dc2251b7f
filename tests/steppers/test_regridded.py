"""Solvers of boxes on cells of their own: fluxes, continuity, and rollouts that are the solver's."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from enclosed_cases import smooth_stream, velocity_of

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.enclosed.coarsening import FaceCoarsening
from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Box
from pdesurrogate.simulators.enclosed.problems import Cavity, CylinderWake, SmokePlume, Tube
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.regridded import BoxSolver, Regridded, regrid

WAKE = CylinderWake(x_min=-1.5, x_max=4.5, y_min=-1.5, y_max=1.5, dynamic_viscosity=0.02)
PROBLEMS = {
    "cavity": (Cavity(width=1.5), (24, 16), (12, 8)),
    "tube": (Tube(), (32, 16), (16, 8)),
    "wake": (WAKE, (48, 24), (24, 12)),
}


def sides(box, shape):
    cell = [length / size for length, size in zip(box.lengths, shape, strict=True)]
    return torch.tensor([cell], dtype=torch.float64)


def divergence(state, of_cell):
    """In all cells but the last along x, whose upper face is not stored."""
    u, v = state[:, 0], torch.nn.functional.pad(state[:, 1], (0, 1))
    dx, dy = of_cell[0]
    return u.diff(dim=1) / dx + v[:, :-1].diff(dim=2) / dy


def flow_of(name, shape, **options):
    problem = PROBLEMS[name][0]
    return EnclosedFlow(problem, shape, 0.2, 20, largest_cell_reynolds_number=torch.inf, **options)


@cache
def developed(name):
    """A state with something in it, and its context in single precision as data sets have it."""
    flow = flow_of(name, PROBLEMS[name][1])
    batched = flow.of_base(1).context
    context = Context(tuple(points.float() for points in batched.coordinates), batched.parameters.float(), batched.mask)
    return flow, flow.advance(flow.at_rest(1), 40), context


class Still(Persistence):
    """A solver that does nothing, on cells of its own."""

    def __init__(self, shape, channels=("face_x", "face_y", "cell")):
        super().__init__()
        grid = Grid((Axis("x"), Axis("y")))
        self.shape = shape
        self.metadata = Metadata(
            "still", grid, tuple(Channel(f"c{n}", location=place) for n, place in enumerate(channels)), 0.1
        )


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 2.0])
def test_any_other_cells_have_no_divergence(name, scale):
    flow, state, _ = developed(name)
    box = flow.problem.case().box
    shape = (int(scale * flow.shape[0]), int(scale * flow.shape[1]))
    found = regrid(state, shape, sides(box, flow.shape))
    size = found[:, :2].abs().max() / sides(box, shape).min()
    assert divergence(found, sides(box, shape)).abs().max() <= 1e-12 * size


@pytest.mark.parametrize("name", PROBLEMS)
def test_coarse_faces_pass_what_their_parts_pass(name):
    flow, state, _ = developed(name)
    coarse = PROBLEMS[name][2]
    found = regrid(state, coarse, sides(flow.problem.case().box, flow.shape))
    means = FaceCoarsening(coarse).on(flow).apply(state)
    torch.testing.assert_close(found[:, :2], means[:, :2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_down_after_up_by_a_whole_factor_changes_no_velocity(name):
    flow, state, _ = developed(name)
    box, shape = flow.problem.case().box, flow.shape
    finer = (3 * shape[0], 2 * shape[1])
    back = regrid(regrid(state, finer, sides(box, shape)), shape, sides(box, finer))
    torch.testing.assert_close(back[:, :2], state[:, :2], rtol=0, atol=1e-12)


def test_a_cubic_stream_function_and_a_linear_pressure_are_exact():
    box = Box((0.0, 0.0), (2.0, 1.0))

    def stream(x, y):
        return x**2 * (2 - x) * y * (1 - y) + y**3 / 3

    def fields(shape):
        x, y = box.centers(shape)
        return torch.stack([*velocity_of(stream, box, shape), x[:, None] + 2 * y]).unsqueeze(0)

    found, exact = regrid(fields((8, 6)), (24, 30), sides(box, (8, 6))), fields((24, 30))
    torch.testing.assert_close(found[:, :2], exact[:, :2], rtol=0, atol=1e-12)
    between = (..., slice(2, -2), slice(3, -3))  # the outermost centers
    torch.testing.assert_close(found[:, 2][between], exact[:, 2][between], rtol=0, atol=1e-12)


def test_smooth_velocities_converge_to_third_order():
    box = Box((0.0, 0.0), (1.0, 1.0))
    stream = smooth_stream(box)
    exact = velocity_of(stream, box, (96, 96))
    errors = []
    for size in (16, 32):
        state = torch.cat([velocity_of(stream, box, (size, size)), torch.zeros(1, size, size)]).unsqueeze(0)
        errors.append((regrid(state, (96, 96), sides(box, (size, size)))[0, :2] - exact).abs().max())
    assert errors[0] / errors[1] > 6


def test_pressure_comes_from_cells_with_fluid_alone():
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[:, 2:5, 2:5] = False
    pressure = torch.where(mask, 3.0, 1e6).double()
    state = torch.stack([torch.zeros_like(pressure), torch.zeros_like(pressure), pressure], 1)
    found = regrid(state, (16, 16), torch.ones(1, 2), mask)[:, 2]
    assert set(found.unique().round(decimals=9).tolist()) == {0.0, 3.0}
    assert (found == 0).sum() < 4 * 9


@pytest.mark.parametrize("name", PROBLEMS)
def test_on_the_cells_of_the_data_it_is_the_solver(name):
    flow, state, context = developed(name)
    expected = flow.step(state.unsqueeze(1), context)
    found = Regridded(flow).step(state.unsqueeze(1), context)
    torch.testing.assert_close(found[:, :, :2], expected[:, :, :2], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_rollout_is_that_of_the_solver_alone(name):
    flow, state, context = developed(name)
    solver = flow_of(name, tuple(3 * size // 4 for size in flow.shape))
    stepper = Regridded(solver)
    assert isinstance(solver, BoxSolver)
    assert isinstance(stepper, Stepper)
    box, frame = flow.problem.case().box, state.float().unsqueeze(1)
    alone = regrid(frame[:, 0].double(), solver.shape, sides(box, flow.shape), context.mask)
    for _ in range(3):
        frame = stepper.step(frame, context)
        alone = solver.step(alone.unsqueeze(1), context)[:, 0]
    expected = regrid(alone, flow.shape, sides(box, solver.shape))
    assert frame.dtype == torch.float32
    torch.testing.assert_close(frame[0, 0, :2].double(), expected[0, :2], rtol=0, atol=1e-5)


def test_a_frame_that_was_changed_is_brought_down_again():
    _, state, context = developed("cavity")
    stepper = Regridded(flow_of("cavity", (18, 12)))
    first = stepper.step(state.unsqueeze(1), context)
    changed = 0.5 * first
    fresh = Regridded(flow_of("cavity", (18, 12))).step(changed, context)
    torch.testing.assert_close(stepper.step(changed, context), fresh, rtol=0, atol=0)


def test_each_case_of_a_batch_goes_its_own_way():
    flow = flow_of("cavity", (16, 16))
    parameters = torch.tensor([[1.0, 1.0, 0.02, 1.0, 1.0], [0.5, 2.0, 0.02, 2.0, 1.5]], dtype=torch.float64)
    cases = flow.of_cases(parameters)
    state, context = cases.advance(cases.at_rest(), 20), cases.context
    together = Regridded(flow_of("cavity", (8, 8))).step(state.unsqueeze(1), context)
    for number in range(2):
        one = slice(number, number + 1)
        own = Context(tuple(points[one] for points in context.coordinates), context.parameters[one])
        alone = Regridded(flow_of("cavity", (8, 8))).step(state[one].unsqueeze(1), own)
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-12)


def test_smoke_in_cells_stays_within_its_bounds():
    flow = EnclosedFlow(SmokePlume(size=4.0, dynamic_viscosity=0.2), (16, 16), 0.2, 20)
    state = flow.at_rest(1)
    state[:, 3, 6:10, 2:6] = 1.0
    solver = EnclosedFlow(SmokePlume(size=4.0, dynamic_viscosity=0.2), (12, 12), 0.2, 20)
    later = Regridded(solver).step(state.unsqueeze(1), flow.of_base(1).context)
    assert later[:, :, 3].min() >= -1e-12
    assert later[:, :, 3].max() <= 1


def test_solids_hold_nothing_in_cells():
    _, state, context = developed("wake")
    later = Regridded(flow_of("wake", (24, 12))).step(state.unsqueeze(1), context)
    assert (later[0, 0, 2][~context.mask[0]] == 0).all()


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="velocities on"):
        Regridded(Still((4, 4), ("face_y", "face_x", "cell")))
    with pytest.raises(ValueError, match="velocities on"):
        Regridded(Still((4, 4), ("face_x", "face_y", "node")))
    lines = (torch.arange(8.0)[None], torch.arange(8.0)[None])
    with pytest.raises(ValueError, match=r"batch, time, 3, x, y"):
        Regridded(Still((4, 4))).step(torch.zeros(1, 1, 2, 8, 8), Context(lines))

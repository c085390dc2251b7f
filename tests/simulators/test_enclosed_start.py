"""Starts of enclosed flows, and what archives hold of them."""

from __future__ import annotations

import pytest
import torch
from enclosed_cases import flows_of, random_state

from pdesurrogate.simulators.enclosed.boundary import Boundary, Wall
from pdesurrogate.simulators.enclosed.case import Case, Fluid
from pdesurrogate.simulators.enclosed.coarsening import FaceCoarsening
from pdesurrogate.simulators.enclosed.flow import EnclosedCases, EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Box, Disc
from pdesurrogate.simulators.enclosed.problems import Cavity, CylinderWake, SmokePlume, StepFlow, Tube
from pdesurrogate.simulators.enclosed.start import AtRest, SmokeAtRest
from pdesurrogate.simulators.generation.protocols import Start, Varying
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import GaussianRandomField

WAKE = EnclosedFlow(CylinderWake(dynamic_viscosity=0.05), (44, 24), 0.1, 2)
WAKES = torch.tensor(
    [[1.0, 1.0, 0.05, 0.5, -3.0, 8.0, -3.0, 3.0], [0.5, 2.0, 0.1, 0.9, -4.0, 10.0, -2.5, 3.5]], dtype=torch.float64
)
STEP = EnclosedFlow(StepFlow(dynamic_viscosity=0.05, step_width=0.6), (48, 16), 0.1, 5)
PLUME = EnclosedFlow(SmokePlume(dynamic_viscosity=0.5), (16, 16), 1.0, 10)
PERIODIC = NavierStokes2d(16, 0.01, 0.1, 1)
CAVITY = EnclosedFlow(Cavity(), (16, 12), 0.1, 5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Starts.


@pytest.mark.parametrize(
    "solver",
    [CAVITY.of_base(2), EnclosedFlow(Tube(), (24, 10), 0.1, 5).of_base(2), STEP.of_base(2), WAKE.of_cases(WAKES)],
    ids=["cavity", "tube", "step", "wake"],
)
def test_a_flow_that_continuity_allows_is_its_own_nearest_one(solver):
    rest = solver.at_rest()
    torch.testing.assert_close(solver.without_divergence(rest), rest, rtol=0, atol=1e-12)
    state = random_state(solver)
    torch.testing.assert_close(solver.without_divergence(state), state, rtol=0, atol=1e-11)
    later = solver.advance(state, 3)
    torch.testing.assert_close(solver.without_divergence(later), later, rtol=0, atol=1e-11)
    torch.testing.assert_close(AtRest().start(solver, 2, generator()), rest, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [CAVITY.of_base(2), STEP.of_base(2), WAKE.of_cases(WAKES)], ids=str)
def test_noise_is_drawn_from_the_generator_and_free_of_divergence(solver):
    assert isinstance(AtRest(0.1), Start)
    state = AtRest(0.1).start(solver, 2, generator(3))
    assert state.dtype == torch.float64
    assert torch.equal(AtRest(0.1).start(solver, 2, generator(3)), state)
    other = AtRest(0.1).start(solver, 2, generator(4))
    assert not torch.equal(other, state)
    assert not torch.equal(state[0], state[1])
    seen = solver.diagnostics(state)
    assert float(seen.divergence.max()) < 1e-11
    torch.testing.assert_close(seen.inflow, solver.diagnostics(solver.at_rest()).inflow, rtol=0, atol=1e-13)
    # Of every two numbers drawn the projection keeps about one.
    size = (state - solver.at_rest())[:, :2].square().mean((1, 2, 3)).sqrt()
    speeds = torch.tensor([case.expected_speed for case in solver.cases], dtype=torch.float64)
    assert bool((size < 0.1 * speeds).all())
    assert bool((size > 0.04 * speeds).all())


def test_potential_flow_has_no_rotation_and_passes_the_cylinder():
    state = WAKE.at_rest(1)
    u, v = state[0, 0], state[0, 1]
    dx, dy = WAKE.problem.case().spacings(WAKE.shape)
    vorticity = v.diff(dim=0)[:, 1:] / dx - u.diff(dim=1)[1:] / dy
    closed_x, closed_y = WAKE.problem.case().closed_faces(WAKE.shape)
    near = closed_x[1:-1, 1:] | closed_x[1:-1, :-1] | closed_y[1:, 1:-1] | closed_y[:-1, 1:-1]
    torch.testing.assert_close(vorticity[~near], torch.zeros_like(vorticity[~near]), rtol=0, atol=1e-12)
    assert float(u.max()) > 1.1


def test_smoke_starts_at_rest_and_is_never_negative():
    start = SmokeAtRest(GaussianRandomField())
    assert isinstance(start, Start)
    state = start.start(PLUME, 3, generator(1))
    assert state.shape == (3, 4, 16, 16)
    assert state.dtype == torch.float64
    assert bool((state[:, :3] == 0).all())
    assert float(state[:, 3].min()) >= 0
    assert torch.equal(start.start(PLUME, 3, generator(1)), state)
    assert not torch.equal(start.start(PLUME, 3, generator(2)), state)
    # The magnitude of what has unit deviation about a mean of zero.
    torch.testing.assert_close(state[:, 3].square().mean((1, 2)), torch.ones(3).double(), rtol=0.05, atol=0)


def test_bad_starts_are_refused():
    with pytest.raises(ValueError, match=r"Expected noise >= 0 but got -0\.1"):
        AtRest(-0.1)
    with pytest.raises(ValueError, match="Expected noise >= 0 but got nan"):
        AtRest(float("nan"))
    with pytest.raises(ValueError, match="Expected a start of all 2 cases but got 3"):
        AtRest().start(WAKE.of_cases(WAKES), 3, generator())
    with pytest.raises(ValueError, match=r"Expected a flow with smoke but its channels are \['velocity_x', "):
        SmokeAtRest(GaussianRandomField()).start(CAVITY, 1, generator())
    with pytest.raises(ValueError, match="Expected an enclosed flow to start but got NavierStokes2d"):
        AtRest().start(PERIODIC, 1, generator())


# Coarser frames.


def coarse_divergence(solver: EnclosedCases, frames: torch.Tensor, factors: tuple[int, int]) -> torch.Tensor:
    """In coarse cells but the last along x of an open box; the other high faces are walls."""
    found = []
    for case, frame in zip(solver.cases, frames, strict=True):
        dx, dy = (width * factor for width, factor in zip(case.spacings(solver.shape), factors, strict=True))
        u = torch.nn.functional.pad(frame[0], (0, 0, 0, 1))
        v = torch.nn.functional.pad(frame[1], (0, 1))
        whole = u.diff(dim=0) / dx + v.diff(dim=1) / dy
        found.append(whole[:-1] if case.boundary.is_open else whole)
    return torch.stack(found)


@pytest.mark.parametrize(
    ("solver", "coarse"),
    [
        (CAVITY.of_base(2), (4, 6)),
        (STEP.of_base(2), (12, 8)),
        (WAKE.of_cases(WAKES), (22, 12)),
        (PLUME.of_base(2), (8, 4)),
    ],
    ids=["cavity", "step", "wake", "plume"],
)
def test_coarse_cells_have_no_divergence(solver, coarse):
    frames = FaceCoarsening(coarse).on(solver)
    assert isinstance(frames, Varying)
    state = solver.advance(random_state(solver, size=0.1), 3)
    stored = frames.apply(state)
    assert stored.shape == (2, state.shape[1], *coarse)
    factors = (solver.shape[0] // coarse[0], solver.shape[1] // coarse[1])
    divergence = coarse_divergence(solver, stored, factors)
    torch.testing.assert_close(divergence, torch.zeros_like(divergence), rtol=0, atol=1e-12)
    assert frames.channels == solver.channels
    assert frames.attributes == {}


@pytest.mark.parametrize(
    ("solver", "coarse"), [(STEP.of_base(2), (12, 8)), (WAKE.of_cases(WAKES), (22, 12))], ids=["step", "wake"]
)
def test_nothing_passes_between_a_fluid_and_a_solid_coarse_cell(solver, coarse):
    frames = FaceCoarsening(coarse).on(solver)
    state = solver.advance(random_state(solver, size=0.1), 3)
    stored = frames.apply(state)
    mask = frames.context.mask
    assert mask.shape == (2, *coarse)
    assert mask.dtype == torch.bool
    assert 0 < int((~mask).sum()) < mask.numel() / 4
    across, along = mask[:, 1:] & mask[:, :-1], mask[:, :, 1:] & mask[:, :, :-1]
    assert bool((stored[:, 0, 1:][~across] == 0).all())
    assert bool((stored[:, 1, :, 1:][~along] == 0).all())
    # Solid coarse cells hold solid cells alone; what is in cells is the mean over the fluid in them.
    fine = solver.context.mask.unflatten(2, (coarse[1], -1)).unflatten(1, (coarse[0], -1)).any(-1).any(2)
    assert not bool((mask & ~fine).any())


def test_pressure_and_smoke_are_means_over_the_fluid():
    case = Case(Box((0.0, 0.0), (1.0, 1.0)), Boundary(top=Wall(1.0)), Fluid(1.0, 0.1), bodies=(Disc((0.5, 0.5), 0.22),))
    solver = flows_of([case], (24, 24), 0.001)
    frames = FaceCoarsening((8, 8)).on(solver)
    state = random_state(solver)
    state[:, 2] = torch.where(solver.context.mask, 3.25, 1e6)
    stored, mask = frames.apply(state), frames.context.mask
    torch.testing.assert_close(stored[:, 2][mask], torch.full((int(mask.sum()),), 3.25).double(), rtol=1e-14, atol=0)
    assert bool((stored[:, 2][~mask] == 0).all())


def test_coarse_fields_are_the_means_of_what_they_cover():
    solver = CAVITY.of_base(1)
    state = torch.arange(3 * 16 * 12, dtype=torch.float64).reshape(1, 3, 16, 12)
    stored = FaceCoarsening((4, 6)).on(solver).apply(state)
    torch.testing.assert_close(stored[0, 0, 1, 2], state[0, 0, 4, 4:6].mean())
    torch.testing.assert_close(stored[0, 1, 1, 2], state[0, 1, 4:8, 4].mean())
    torch.testing.assert_close(stored[0, 2, 1, 2], state[0, 2, 4:8, 4:6].mean())


def test_as_many_cells_are_the_fields_themselves():
    solver = WAKE.of_cases(WAKES)
    state = solver.advance(random_state(solver), 1)
    frames = FaceCoarsening(WAKE.shape).on(solver)
    torch.testing.assert_close(frames.apply(state), state, rtol=1e-15, atol=0)
    assert torch.equal(frames.context.mask, solver.context.mask)


def test_coarse_frames_lie_at_the_centers_of_coarse_cells():
    solver = WAKE.of_cases(WAKES)
    frames = FaceCoarsening((11, 6)).on(solver)
    fine, context = solver.context, frames.context
    assert torch.equal(context.parameters, fine.parameters)
    for points, coarse in zip(fine.coordinates, context.coordinates, strict=True):
        torch.testing.assert_close(coarse, points.unflatten(1, (-1, 4)).mean(2), rtol=0, atol=1e-13)
        assert coarse.dtype == torch.float64
    for points, first in zip(frames.coordinates, context.coordinates, strict=True):
        assert torch.equal(points, first[0])
    assert FaceCoarsening((4, 6)).on(CAVITY).context.mask is None


def test_coarsening_keeps_precision_and_is_refused_where_it_does_not_fit():
    assert FaceCoarsening((8, 6)).on(CAVITY).apply(CAVITY.at_rest(1).float()).dtype == torch.float32
    for shape in ((5, 6), (8,), (0, 6), (32, 12), (8, 6, 1)):
        with pytest.raises(ValueError, match=r"Expected coarse cells that divide the fine \(16, 12\) but got"):
            FaceCoarsening(shape).on(CAVITY)
    with pytest.raises(ValueError, match="Expected an enclosed flow to coarsen but got NavierStokes2d"):
        FaceCoarsening((8, 8)).on(PERIODIC)

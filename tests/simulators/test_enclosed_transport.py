"""The scalar of enclosed flows: kept in sum, within its bounds, of second order."""

from __future__ import annotations

import math

import pytest
import torch
from enclosed_cases import flows_of, order, random_state
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdesurrogate.simulators.enclosed.boundary import Boundary, Inlet, Outlet, Wall
from pdesurrogate.simulators.enclosed.case import BuoyantScalar, Case, Fluid
from pdesurrogate.simulators.enclosed.flow import LARGEST_SCALAR_CFL, EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Box, Disc
from pdesurrogate.simulators.enclosed.problems import SmokePlume
from pdesurrogate.simulators.enclosed.transport import ScalarTransport

DX, DY = 0.5, 0.25


def transport_of(*diffusivities: float, dx: float = DX, dy: float = DY) -> ScalarTransport:
    widths = (torch.full((len(diffusivities), 1, 1), width, dtype=torch.float64) for width in (dx, dy))
    return ScalarTransport([BuoyantScalar(value) for value in diffusivities], *widths)


def random_velocity(seed: int, nx: int, ny: int, rough: bool) -> tuple[Tensor, Tensor]:
    """Differences of a stream function drawn at each node, zero on the walls: free of divergence; rough: of +-1."""
    generator = torch.Generator().manual_seed(seed)
    stream = torch.zeros(1, nx + 1, ny + 1, dtype=torch.float64)
    drawn = torch.randn(nx - 1, ny - 1, dtype=torch.float64, generator=generator)
    stream[:, 1:-1, 1:-1] = drawn.sign() if rough else drawn
    return stream.diff(dim=2) / DY, -stream.diff(dim=1) / DX


def courant_number(u: Tensor, v: Tensor) -> float:
    """For a time step of one, as `EnclosedScheme.cfl_number` has it."""
    along_x = torch.maximum(u[:, 1:].abs(), u[:, :-1].abs()) / DX
    along_y = torch.maximum(v[:, :, 1:].abs(), v[:, :, :-1].abs()) / DY
    return float((along_x + along_y).max())


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    rough=st.booleans(),
    sharp=st.booleans(),
    diffusive=st.floats(0.0, 0.9),
)
def test_no_value_leaves_the_range_and_none_is_lost(seed, shape, rough, sharp, diffusive):
    u, v = random_velocity(seed, *shape, rough)
    time_step = (1 - diffusive) / courant_number(u, v)
    transport = transport_of(diffusive / (2 * time_step * (DX**-2 + DY**-2)))
    scalar = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scalar = scalar.round() if sharp else scalar
    low, high, total = float(scalar.min()), float(scalar.max()), float(scalar.sum())
    for _ in range(5):
        scalar = transport.advance(scalar, u, v, time_step)
    assert float(scalar.min()) >= low - 1e-14
    assert float(scalar.max()) <= high + 1e-14
    assert float(scalar.sum()) == pytest.approx(total, rel=1e-13, abs=1e-13)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10)
def test_a_constant_stays_constant(seed):
    u, v = random_velocity(seed, 6, 7, False)
    rate = transport_of(0.3)(torch.full((1, 6, 7), 0.75, dtype=torch.float64), u, v)
    torch.testing.assert_close(rate, torch.zeros_like(rate), rtol=0, atol=1e-13)


@pytest.mark.parametrize("speed", [1.0, -0.75])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_bump_is_carried_at_second_order(axis, speed):
    # In the mean: the limiter clips what is highest, in a share of the cells that falls with their size.
    errors = []
    for cells in (64, 128, 256):
        transport = transport_of(0.0, dx=1 / cells, dy=1 / cells)
        u = torch.full((1, cells + 1, 2), speed, dtype=torch.float64)
        v = torch.zeros(1, cells, 3, dtype=torch.float64)
        places = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        before, after = (
            torch.exp(-(places - 0.5 - speed * time).square() / 0.02)[None, :, None].expand(1, -1, 2)
            for time in (-0.1, 0.1)
        )
        scalar, steps = before, cells // 2
        for _ in range(steps):
            if axis == "x":
                scalar = transport.advance(scalar, u, v, 0.2 / steps)
            else:
                scalar = transport.advance(scalar.mT, v.mT, u.mT, 0.2 / steps).mT
        # The bump does not vanish at the ends, where nothing enters.
        middle = slice(cells // 4, 3 * cells // 4)
        errors.append(float((scalar - after)[:, middle].abs().mean()))
    assert order(errors) > 1.95


def test_diffusion_of_a_wave_between_walls_is_of_second_order_in_space():
    errors = []
    for cells in (8, 16, 32):
        transport = transport_of(0.1, dx=1 / cells, dy=0.5 / cells)
        x, y = ((torch.arange(cells, dtype=torch.float64) + 0.5) / cells for _ in range(2))
        wave = (torch.cos(torch.pi * x)[:, None] * torch.cos(torch.pi * y)).unsqueeze(0)
        u, v = torch.zeros(1, cells + 1, cells).double(), torch.zeros(1, cells, cells + 1).double()
        steps, scalar = 2 * cells * cells // 8, wave
        for _ in range(steps):
            scalar = transport.advance(scalar, u, v, 0.2 / steps)
        errors.append(float((scalar - wave * math.exp(-0.1 * 5 * math.pi**2 * 0.2)).abs().max()))
    assert order(errors) == pytest.approx(2, abs=0.1)


def test_each_case_has_its_own_diffusivity():
    scalar = torch.rand(1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, v = random_velocity(1, 5, 6, False)
    both = transport_of(0.1, 0.4)(scalar.expand(2, -1, -1), u.expand(2, -1, -1), v.expand(2, -1, -1))
    for one, value in zip(both, (0.1, 0.4), strict=True):
        torch.testing.assert_close(one, transport_of(value)(scalar, u, v)[0], rtol=0, atol=1e-14)


def test_smoke_of_a_plume_is_kept_over_many_steps():
    flow = EnclosedFlow(SmokePlume(dynamic_viscosity=0.5), (24, 24), 0.25, 1, math.inf)
    solver = flow.of_base(2)
    state = random_state(solver, size=0.5)
    low, high = float(state[:, 3].min()), float(state[:, 3].max())
    total = solver.diagnostics(state).scalar
    torch.testing.assert_close(total, state[:, 3].mean((1, 2)) * 32**2)
    for _ in range(10):
        state = solver.advance(state, 20)
        solver.require_stable(state)
        assert low - 1e-13 <= float(state[:, 3].min()) <= float(state[:, 3].max()) <= high + 1e-13
        torch.testing.assert_close(solver.diagnostics(state).scalar, total, rtol=1e-13, atol=0)
    assert float(state[:, :2].abs().max()) > 0.1


def test_smoke_flows_around_a_body_and_not_into_it():
    case = Case(
        Box((0.0, 0.0), (1.0, 1.0)), Boundary(top=Wall(1.0)), Fluid(1.0, 0.05), bodies=(Disc((0.5, 0.5), 0.2),),
        scalar=BuoyantScalar(0.0, (0.0, 1.0)),
    )  # fmt: skip
    solver = flows_of([case], (20, 20), 0.01)
    state = random_state(solver)
    fluid = solver.context.mask[0]
    state[0, 3] *= fluid
    later = solver.advance(state, 50)[0, 3]
    assert bool((later[~fluid] == 0).all())
    assert float(later.sum()) == pytest.approx(float(state[0, 3].sum()), rel=1e-13)


def test_smoke_leaves_through_the_outlet_and_nothing_comes_in():
    case = Case(
        Box((0.0, 0.0), (2.0, 1.0)), Boundary(left=Inlet(1.0), right=Outlet()), Fluid(1.0, 0.05),
        scalar=BuoyantScalar(),
    )  # fmt: skip
    solver = flows_of([case], (16, 8), 0.02)
    state = solver.at_rest()
    state[:, 3] = 1.0
    sums = []
    for _ in range(4):
        state = solver.advance(state, 50)
        sums.append(float(solver.diagnostics(state).scalar))
        assert -1e-14 <= float(state[:, 3].min()) <= float(state[:, 3].max()) <= 1 + 1e-13
    assert 2.0 > sums[0] > sums[1] > sums[2] > sums[3]
    assert sums[0] == pytest.approx(1.0, abs=0.01)


def test_a_step_too_long_for_the_bounds_of_a_scalar_is_refused():
    box = Box((0.0, 0.0), (1.0, 1.0))
    plain, diffusive = (
        flows_of([Case(box, Boundary(), Fluid(1.0, 0.01), scalar=BuoyantScalar(value))], (8, 8), 0.1)
        for value in (0.0, 0.019)
    )
    state = random_state(plain)
    state[:, :2] *= 0.8 * LARGEST_SCALAR_CFL / float(plain.diagnostics(state).cfl_number)
    plain.require_stable(state)
    # Advection and diffusion share what is allowed: 0.8 + 2 dt D (1 / dx^2 + 1 / dy^2) is over one.
    with pytest.raises(ValueError, match=r"Expected a Courant number of at most 1 but case 0 has 1\.29"):
        diffusive.require_stable(state)

"""Dam breaks whose later state is known exactly: J. J. Stoker's on a wet bed, A. Ritter's on a dry one."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq

from pdesurrogate.simulators.shallow_water import ShallowWater2d

GRAVITY = 2.0
TIME = 0.06


def middle_state(high, low):
    """Depth and velocity between the rarefaction and the bore (J. J. Stoker, *Water Waves*, 1957, section 10.8)."""

    def of_rarefaction(depth):
        return 2 * (math.sqrt(GRAVITY * high) - math.sqrt(GRAVITY * depth))

    def of_bore(depth):
        return (depth - low) * math.sqrt(GRAVITY * (depth + low) / (2 * depth * low))

    depth = brentq(lambda depth: of_rarefaction(depth) - of_bore(depth), low, high, xtol=1e-14)
    return depth, of_bore(depth)


def dam_break(rays, high, low):
    """Depth and velocity on rays ``x / t`` from a dam at 0, with the deep water on the left."""
    celerity = math.sqrt(GRAVITY * high)
    depth = torch.where(rays < -celerity, high, (2 * celerity - rays).square() / (9 * GRAVITY))
    velocity = torch.where(rays < -celerity, 0.0, 2 / 3 * (rays + celerity))
    if low == 0:
        beyond = rays > 2 * celerity
        return torch.where(beyond, 0.0, depth), torch.where(beyond, 0.0, velocity)
    between, speed = middle_state(high, low)
    bore = between * speed / (between - low)
    flat, ahead = rays > speed - math.sqrt(GRAVITY * between), rays > bore
    depth = torch.where(ahead, low, torch.where(flat, between, depth))
    return depth, torch.where(ahead, 0.0, torch.where(flat, speed, velocity))


def exact(solver, high, low):
    """Depth and discharge ``(cells,)`` at `TIME` of a block of water between 1/4 and 3/4 that falls to both sides."""
    x = solver.coordinates[0]
    depth, velocity = dam_break(((x - 0.5).abs() - 0.25) / TIME, high, low)
    return depth, depth * velocity * (x - 0.5).sign()


def start(solver, high, low):
    x = solver.coordinates[0]
    depth = (low + (high - low) * ((x - 0.5).abs() < 0.25).double())[:, None].expand(solver.shape)
    return torch.stack([depth, 0 * depth, 0 * depth])[None]


def solver_of(cells, precision="float64"):
    return ShallowWater2d(cells, TIME, steps_per_frame=cells // 2, gravity=GRAVITY, precision=precision)


def test_the_exact_bore_satisfies_the_jump_conditions():
    high, low = 2.0, 0.5
    depth, speed = middle_state(high, low)
    bore = depth * speed / (depth - low)
    momentum = depth * speed**2 + GRAVITY * (depth**2 - low**2) / 2
    assert momentum == pytest.approx(bore * depth * speed, rel=1e-12)
    assert speed + 2 * math.sqrt(GRAVITY * depth) == pytest.approx(2 * math.sqrt(GRAVITY * high), rel=1e-12)


@pytest.mark.parametrize("low", [1.0, 0.2, 1e-3, 0.0])
def test_it_converges_to_the_exact_solution_in_the_mean(low):
    errors = []
    for cells in (32, 64, 128):
        solver = solver_of(cells)
        later = solver.advance(start(solver, 2.0, low), solver.steps_per_frame)
        assert float(later[:, 0].min()) >= 0
        found = later[0, :2, :, 0]
        errors.append((found - torch.stack(exact(solver, 2.0, low))).abs().mean(1))
    orders = torch.log2(errors[0] / errors[-1]) / 2
    # Of first order at best, since there is a bore, or a front where all derivatives of the velocity jump.
    assert float(orders.min()) > 0.8, (orders, errors)
    assert float((errors[-1] / torch.stack(exact(solver, 2.0, low)).abs().mean(1)).max()) < 0.05, errors


def test_the_middle_state_and_the_bore_are_where_they_should_be():
    solver = solver_of(128)
    later = solver.advance(start(solver, 2.0, 0.5), solver.steps_per_frame)[0, :, :, 0]
    depth, speed = middle_state(2.0, 0.5)
    x, bore = solver.coordinates[0], depth * speed / (depth - 0.5)
    tail = speed - math.sqrt(GRAVITY * depth)
    margin = 4 * solver.spacing
    inside = (x > 0.75 + TIME * tail + margin) & (x < 0.75 + TIME * bore - margin)
    assert int(inside.sum()) > 5
    torch.testing.assert_close(later[0, inside], torch.full_like(later[0, inside], depth), rtol=3e-3, atol=0)
    torch.testing.assert_close(later[1, inside] / later[0, inside], later[0, inside] * 0 + speed, rtol=5e-3, atol=0)
    # The place where the depth is half way tells the bore's to within a cell.
    right = x > 0.75
    half_way = x[right][later[0, right] > (depth + 0.5) / 2].max() + solver.spacing / 2
    assert float((half_way - 0.75 - TIME * bore).abs()) < solver.spacing


def test_along_y_it_is_the_same():
    solver = solver_of(32)
    state = start(solver, 2.0, 0.5)
    later = solver.advance(state, 16)
    turned = solver.advance(state.mT[:, [0, 2, 1]], 16)
    torch.testing.assert_close(turned, later.mT[:, [0, 2, 1]], rtol=0, atol=1e-13)
    assert float(later[:, 2].abs().max()) == 0


def test_a_transverse_velocity_stays_on_its_side_of_the_contact():
    solver = solver_of(128)
    state = start(solver, 2.0, 0.5)
    state[:, 2] = 0.6 * (state[:, 0] > 1).double()  # only the deep water moves along y
    later = solver.advance(state, solver.steps_per_frame)[0, :, :, 0]
    along = later[2] / later[0]
    x = solver.coordinates[0]
    contact = 0.75 + TIME * middle_state(2.0, 0.5)[1]
    right = x > 0.5
    assert float(along.min()) >= 0
    assert float(along.max()) <= 0.3 + 1e-12
    half_way = x[right][along[right] > 0.15].max() + solver.spacing / 2
    assert float((half_way - contact).abs()) < 1.5 * solver.spacing


def test_single_precision_gives_the_same_water():
    single, double = (solver_of(64, precision) for precision in ("float32", "float64"))
    state = start(double, 2.0, 0.0)
    torch.testing.assert_close(single.advance(state, 32), double.advance(state, 32), rtol=0, atol=1e-4)

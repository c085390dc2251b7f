"""A scalar carried by plane flow: against the vorticity, which is carried alike, and against what is conserved."""

from __future__ import annotations

import math

import pytest
import torch

from pdesurrogate.physics.operators import divergence, velocity_from_vorticity, vorticity_from_velocity
from pdesurrogate.simulators.forcing import KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.passive_scalar import PassiveScalar2d, VelocityAndScalar
from pdesurrogate.simulators.random_fields import GaussianRandomField, McWilliams
from pdesurrogate.simulators.time_schemes import ETDRK4, RK4CrankNicolson

SIZE = 32
BOX = (2 * math.pi, 2 * math.pi)


def solver(**changes):
    options = {"viscosity": 1e-2, "diffusivity": 1e-2, "frame_interval": 0.2, "steps_per_frame": 8}
    return PassiveScalar2d(SIZE, **{**options, "precision": "float64", **changes})


def start(batch=2, seed=0):
    """Inside the mask."""
    condition = VelocityAndScalar(McWilliams(2.0), GaussianRandomField())
    state = condition.sample(batch, (SIZE, SIZE), BOX, torch.Generator().manual_seed(seed))
    return solver().advance(state, 0)


def vorticity_of(state):
    return vorticity_from_velocity(state[..., :2, :, :], BOX)


@pytest.mark.parametrize("scheme", [ETDRK4(), RK4CrankNicolson()])
def test_a_scalar_that_begins_as_the_vorticity_remains_it(scheme):
    state = start()
    state[:, 2] = vorticity_of(state)
    later = solver(scheme=scheme).advance(state, 40)
    torch.testing.assert_close(later[:, 2], vorticity_of(later), rtol=0, atol=1e-12)
    assert float((later - state).abs().max()) > 0.1


def test_the_velocity_is_that_of_the_vorticity_equation():
    options = {"drag": 0.1, "forcing": KolmogorovForcing(2)}
    flow = NavierStokes2d(SIZE, 1e-2, 0.2, 8, precision="float64", **options)
    state = start()
    expected = velocity_from_vorticity(flow.advance(vorticity_of(state)[:, None], 20)[:, 0], BOX)
    later = solver(**options).advance(state, 20)
    torch.testing.assert_close(later[:, :2], expected, rtol=0, atol=1e-12)
    assert float(divergence(later[:, :2], BOX).abs().max()) < 1e-12


def test_without_diffusion_mean_and_variance_of_the_scalar_stay():
    state = start()
    later = solver(viscosity=0.0, diffusivity=0.0, steps_per_frame=80).advance(state, 80)
    for power in (1, 2):
        before, after = (field[:, 2].pow(power).mean((-2, -1)) for field in (state, later))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    assert float((later - state)[:, 2].abs().max()) > 0.1


def test_the_scalar_does_not_act_on_the_flow_and_is_carried_linearly():
    one, other = start(seed=0), start(seed=1)
    other[:, :2] = one[:, :2]
    march = solver()
    sum_of_both = torch.cat([one[:, :2], one[:, 2:] + 3 * other[:, 2:]], 1)
    first, second, together = (march.advance(state, 16) for state in (one, other, sum_of_both))
    torch.testing.assert_close(together[:, :2], first[:, :2], rtol=0, atol=1e-13)
    torch.testing.assert_close(together[:, 2], first[:, 2] + 3 * second[:, 2], rtol=0, atol=1e-12)


def test_it_converges_in_fourth_order():
    state, ends = start(), []
    for steps in (4, 8, 16, 128):
        ends.append(solver(steps_per_frame=steps, frame_interval=0.4).advance(state, steps)[:, 2])
    errors = torch.stack([(end - ends[-1]).norm() for end in ends[:-1]])
    orders = torch.log2(errors[:-1] / errors[1:])
    assert float(orders.min()) > 3.7, orders


def test_it_commutes_with_translations_and_with_batches():
    state, march = start(), solver()
    rolled = march.advance(state.roll((3, 5), (-2, -1)), 8)
    torch.testing.assert_close(rolled, march.advance(state, 8).roll((3, 5), (-2, -1)), rtol=0, atol=1e-12)
    torch.testing.assert_close(march.advance(state[1:], 8), march.advance(state, 8)[1:], rtol=0, atol=1e-13)


def test_a_start_has_the_deviation_that_was_asked_for():
    condition = VelocityAndScalar(McWilliams(), GaussianRandomField(), deviation=0.5)
    state = condition.sample(3, (SIZE, SIZE), BOX, torch.Generator().manual_seed(0))
    scalar = state[:, 2]
    torch.testing.assert_close(scalar.mean((-2, -1)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(scalar.std((-2, -1), correction=0), torch.full((3,), 0.5, dtype=torch.float64))
    # The energy is what the vorticity alone would be given, but for the Nyquist waves, which have no velocity.
    energy = state[:, :2].square().sum(1).mean((-2, -1)) / 2
    torch.testing.assert_close(energy, torch.full((3,), 0.25, dtype=torch.float64), rtol=1e-4, atol=0)


def test_as_a_stepper_it_keeps_precision_and_says_what_it_steps():
    march = solver(precision="float32")
    later = march.step(start()[:, None].float(), march.context(2))
    assert (later.shape, later.dtype) == ((2, 1, 3, SIZE, SIZE), torch.float32)
    assert march.metadata.channel_names == ("velocity_x", "velocity_y", "scalar")
    assert march.parameters_by_name == {"viscosity": 1e-2, "drag": 0.0, "diffusivity": 1e-2}


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="Expected diffusivity >= 0 but got -1"):
        solver(diffusivity=-1)
    with pytest.raises(ValueError, match=r"Expected two velocities and a scalar at \(32, 32\) but got \(1, 32, 32\)"):
        solver().advance(start()[:, :1], 1)
    with pytest.raises(ValueError, match="positive deviation but got 0"):
        VelocityAndScalar(McWilliams(), GaussianRandomField(), deviation=0)

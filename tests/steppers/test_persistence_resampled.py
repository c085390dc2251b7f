import math

import pytest
import torch
from jsonargparse import ArgumentParser

from pdesurrogate.fields.grid import Axis, Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.spectral import resample
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import rollout

GRID = Grid((Axis("x", period=2 * math.pi), Axis("y", period=2 * math.pi)))


class Spy:
    """Repeats the latest frame and remembers what it was given."""

    history_frames = 2

    def step(self, history, context):
        self.history, self.context = history, context
        return history[:, -1:]


def context_of(batch, shape, **entries):
    return Context(tuple(c.expand(batch, -1) for c in GRID.uniform_coordinates(shape)), **entries)


def smooth_fields(batch, frames, size, highest, seed=0):
    """Random fields without waves above ``highest`` along either axis, float64."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, frames, 1, 2 * highest + 1, 2 * highest + 1, generator=generator, dtype=torch.float64)
    return resample(coarse, (size, size))


def test_persistence_repeats_the_latest_frame_for_ever():
    history = torch.randn(2, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    frames = torch.cat(list(rollout(Persistence(), history, Context((torch.arange(8.0).expand(2, -1),)), 4)), dim=1)
    assert torch.equal(frames, history[:, -1:].expand(-1, 4, -1, -1))


@pytest.mark.parametrize("coarse", [15, 16])
def test_nothing_inside_the_coarse_band_is_lost_however_often_it_goes_down_and_up(coarse):
    stepper = Resampled(Persistence(), coarse)
    history = smooth_fields(2, 1, 32, highest=7)
    *_, last = rollout(stepper, history, context_of(2, (32, 32)), 10)
    assert torch.allclose(last, history, rtol=0, atol=1e-13)


def test_the_wrapped_stepper_sees_its_own_grid():
    spy = Spy()
    forcing = smooth_fields(3, 1, 24, highest=3)[:, 0]
    context = context_of(3, (24, 24), parameters=torch.ones(3, 1), forcing=forcing)
    history = smooth_fields(3, 3, 24, highest=3)
    block = Resampled(spy, (12, 8)).step(history, context)
    assert block.shape == (3, 1, 1, 24, 24)
    assert spy.history.shape == (3, 2, 1, 12, 8)
    # Band-limited fields at every second and third point of the fine grid.
    assert torch.allclose(spy.history, history[:, 1:, :, ::2, ::3], atol=1e-13)
    assert torch.allclose(spy.context.forcing, forcing[..., ::2, ::3], atol=1e-13)
    for own, expected in zip(spy.context.coordinates, GRID.uniform_coordinates((12, 8)), strict=True):
        assert own.shape == (3, len(expected))
        assert torch.allclose(own[1], expected, atol=1e-14)
    assert torch.equal(spy.context.parameters, context.parameters)


def test_the_rollout_is_that_of_the_coarse_solver_alone():
    solver = NavierStokes2d(16, viscosity=1e-2, frame_interval=0.1, steps_per_frame=5, precision="float64")
    start = smooth_fields(2, 1, 32, highest=10)
    seen = torch.cat(list(rollout(Resampled(solver, 16), start, context_of(2, (32, 32)), 5)), dim=1)
    own = torch.cat(list(rollout(solver, resample(start, (16, 16)), solver.context(2), 5)), dim=1)
    assert torch.allclose(resample(seen, (16, 16)), own, atol=1e-12)


def test_a_yaml_class_path_builds_it():
    parser = ArgumentParser()
    parser.add_argument("--stepper", type=Stepper)
    path = "pdesurrogate.steppers."
    wrapped = {"class_path": f"{path}persistence.Persistence"}
    arguments = {"class_path": f"{path}resampled.Resampled", "init_args": {"stepper": wrapped, "resolution": 8}}
    built = parser.instantiate_classes(parser.parse_object({"stepper": arguments})).stepper
    assert isinstance(built, Resampled)
    assert (built.resolution, built.history_frames) == (8, 1)


def test_what_has_no_fourier_interpolation_is_refused():
    history = smooth_fields(1, 1, 16, highest=3)
    with pytest.raises(ValueError, match="without a mask"):
        Resampled(Persistence(), 8).step(history, context_of(1, (16, 16), mask=torch.ones(1, 16, 16, dtype=torch.bool)))
    with pytest.raises(ValueError, match="each of 2 axes"):
        Resampled(Persistence(), (8, 8, 8)).step(history, context_of(1, (16, 16)))
    with pytest.raises(ValueError, match="at least two points"):
        Resampled(Persistence(), 1)

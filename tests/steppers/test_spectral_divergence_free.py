"""Rollouts of periodic flow without divergence."""

from __future__ import annotations

import pytest
import torch

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.conservation.laws import KeptMeans
from pdesurrogate.physics.operators import divergence
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.probconserv import ProbConserv
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.solenoidal import SpectralDivergenceFree
from pdesurrogate.steppers.wrappers import wrappers_from, wrappers_of

GRID = Grid((Axis("x", period=1.0), Axis("y", period=2.0)))
FLOW = Metadata("flow", GRID, (Channel("scalar"), Channel("velocity_y"), Channel("velocity_x")), frame_interval=0.1)
CONTEXT = Context(tuple(points.expand(2, -1) for points in GRID.uniform_coordinates((8, 12))))


class Noisy(Persistence):
    """Adds noise to every frame."""

    def __init__(self):
        self.metadata = FLOW
        self.generator = torch.Generator().manual_seed(0)

    def step(self, history, context):
        latest = history[:, -1:]
        return latest + torch.randn(latest.shape, generator=self.generator, dtype=latest.dtype)


def velocity(frames):
    return frames[:, :, [2, 1]]


def start():
    return torch.randn(2, 1, 3, 8, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_no_frame_has_divergence_and_means_and_scalars_stay():
    raw = torch.cat(list(rollout(Noisy(), start(), CONTEXT, 1)), 1)
    frames = torch.cat(list(rollout(SpectralDivergenceFree(Noisy()), start(), CONTEXT, 5)), 1)
    assert divergence(velocity(raw), GRID.periods).abs().max() > 1
    assert divergence(velocity(frames), GRID.periods).abs().max() < 1e-11
    torch.testing.assert_close(frames[:, :1].mean((-2, -1)), raw.mean((-2, -1)))
    torch.testing.assert_close(frames[:, :1, 0], raw[:, :, 0], rtol=0, atol=0)


def test_a_component_that_is_surer_moves_less():
    raw = Noisy().step(start(), CONTEXT)
    found = SpectralDivergenceFree(Noisy(), [1.0, 1e-8]).step(start(), CONTEXT)
    moved = (velocity(found) - velocity(raw)).square().mean((0, 1, 3, 4))
    # Waves along y alone have no other component to move.
    assert moved[0] > 2 * moved[1]
    assert divergence(velocity(found), GRID.periods).abs().max() < 1e-11


def test_it_commutes_with_kept_momentum():
    law = KeptMeans(of=["velocity_x", "velocity_y"])
    one = ProbConserv(SpectralDivergenceFree(Noisy()), law).step(start(), CONTEXT)
    other = SpectralDivergenceFree(ProbConserv(Noisy(), law)).step(start(), CONTEXT)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_trajectory_that_broke_does_not_break_the_others():
    broken = start()
    broken[0] = torch.nan
    found = SpectralDivergenceFree(Noisy()).step(broken, CONTEXT)
    assert torch.isnan(found[0]).all()
    assert divergence(velocity(found)[1:], GRID.periods).abs().max() < 1e-11


def test_a_checkpoint_can_hold_it():
    around = SpectralDivergenceFree(Noisy(), [1.0, 2.0])
    assert wrappers_of(around)[0]["init_args"] == {"variances": [1.0, 2.0]}
    again = wrappers_from(wrappers_of(around))[0](Noisy())
    torch.testing.assert_close(
        again.step(start(), CONTEXT), around.__class__(Noisy(), [1.0, 2.0]).step(start(), CONTEXT)
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpectralDivergenceFree(Persistence()), "a Persistence has none; give them"),
        (lambda: SpectralDivergenceFree(Noisy(), [1.0]), "positive variance for each of 2 components"),
        (lambda: SpectralDivergenceFree(Noisy(), [1.0, 0.0]), "positive variance"),
        (
            lambda: SpectralDivergenceFree(
                Persistence(), metadata=Metadata("scalar", GRID, (Channel("scalar"),), frame_interval=0.1)
            ),
            r"channels \['velocity_x', 'velocity_y'\] at the same points.*'scalar'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

"""States to start a channel flow from: what every draw promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.staggered_channel import ChannelGrid, divergence, stretched_faces
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.forcing import MassFlux, PressureGradient
from pdesurrogate.simulators.channel.start import LaminarChannel, TrippedChannel


def grid_of(half_height: float = 1.0, points: tuple[int, int] = (8, 6)) -> ChannelGrid:
    return ChannelGrid((3.0, 1.1), points, stretched_faces(16, 1.75, half_height))


def draw(start, grid: ChannelGrid, count: int = 2, seed: int = 0) -> torch.Tensor:
    return start.sample(count, grid, torch.Generator().manual_seed(seed))


@settings(max_examples=20)
@given(
    bulk=st.floats(-2, 2),
    rolls=st.floats(0, 0.5),
    noise=st.floats(0, 0.5),
    half_height=st.floats(0.5, 2),
    points=st.tuples(st.integers(1, 8), st.integers(1, 6)),
)
def test_every_start_has_its_bulk_velocity_no_divergence_and_no_flow_through_walls(
    bulk, rolls, noise, half_height, points
):
    grid = grid_of(half_height, points)
    for start in (TrippedChannel(bulk, rolls, noise), LaminarChannel(bulk)):
        state = draw(start, grid)
        assert state.shape == (2, 4, *grid.shape)
        assert state.dtype == torch.float64
        means = state.mean((2, 4)) @ (grid.heights / grid.heights.sum())
        torch.testing.assert_close(means[:, 0], torch.full((2,), bulk, dtype=torch.float64), rtol=0, atol=1e-12)
        assert float(means[:, 2].abs().max()) < 1e-12
        assert float(divergence(state[:, :3], grid).abs().max()) < 1e-11
        assert float(state[:, 1, :, 0].abs().max()) == 0


def test_a_seed_means_the_same_states_and_members_differ():
    start, grid = TrippedChannel(), grid_of()
    torch.testing.assert_close(draw(start, grid, seed=3), draw(start, grid, seed=3), rtol=0, atol=0)
    first, second = draw(start, grid)
    assert float((first - second).abs().max()) > 0.1
    assert float((draw(start, grid, seed=4)[0] - first).abs().max()) > 0.1


def test_rolls_fill_the_box_and_have_their_strength():
    grid = ChannelGrid((3.0, 2.0), (16, 32), stretched_faces(32))
    for start, pairs in ((TrippedChannel(2.0, noise=0.0), 2), (TrippedChannel(2.0, noise=0.0, pairs=3), 3)):
        upward = draw(start, grid)[0, 1, :, 16]
        spectrum = torch.fft.rfft2(upward, norm="forward").abs()[0]
        # As many pairs as half heights fit in, if nothing else is said; 0.15 U_b cos has two modes of half of that.
        assert int(spectrum.argmax()) == pairs
        assert float(spectrum[pairs]) == pytest.approx(0.15, rel=0.05)


def test_noise_is_damped_at_the_walls():
    grid = ChannelGrid((3.0, 1.1), (16, 16), stretched_faces(24))
    state = draw(TrippedChannel(rolls=0.0, noise=0.1), grid)
    across = state[:, 2].std((0, 1, 3))
    assert float(across[0]) < 0.3 * float(across[12])
    assert 0.04 < float(across[12]) < 0.12  # the projection takes a part


def test_the_laminar_profile_is_the_parabola():
    grid = ChannelGrid((3.0, 1.1), (2, 2), stretched_faces(200, 1.0))
    profile = draw(LaminarChannel(2.0), grid, 1)[0, 0, 0, :, 0]
    torch.testing.assert_close(profile, 3 * (1 - (grid.centers - 1).square()), rtol=0, atol=1e-3)


@pytest.mark.parametrize("start", [TrippedChannel(1.5), LaminarChannel(1.5)])
def test_a_start_that_the_forcing_would_make_jump_is_refused(start):
    def solver(forcing):
        return ChannelFlow((4, 8, 4), (3.0, 1.1), 1e-2, frame_interval=0.1, steps_per_frame=10, forcing=forcing)

    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"bulk velocity 1 that the solver's forcing holds but got 1\.5"):
        start.start(solver(MassFlux(1.0)), 1, generator)
    for forcing in (MassFlux(1.5), PressureGradient(1.0)):
        assert start.start(solver(forcing), 1, generator).shape == (1, 4, 4, 8, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rolls": -0.1}, "rolls and noise"), ({"noise": -0.1}, "rolls and noise"), ({"pairs": 0}, "one pair")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrippedChannel(**arguments)

"""Convection of fluctuations: known displacements are found, and fields are moved exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.fields.convection import RunningConvection, convected


def smooth(*shape, axis=2, seed=0):
    """Random fields with the lower half of the waves along an axis."""
    noise = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft(noise, dim=axis)
    spectrum.narrow(axis, shape[axis] // 4 + 1, spectrum.shape[axis] - shape[axis] // 4 - 1).zero_()
    return torch.fft.irfft(spectrum, n=shape[axis], dim=axis)


def carried_frames(displacement, frames=5, shape=(16, 5, 6), period=2.0):
    """A frozen field ``(time, channel, *shape)`` that moves by ``displacement (channel, 1, n, 1)`` a frame."""
    start = smooth(1, len(displacement), *shape)
    steps = [convected(start[0], number * displacement, 0, period) for number in range(frames)]
    return torch.stack(steps)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.95, 0.95), min_size=5, max_size=5), st.integers(9, 17))
def test_a_frozen_field_tells_its_displacement_at_every_height(distances, points):
    displacement = torch.tensor(distances, dtype=torch.float64).reshape(1, 1, 5, 1)
    found = RunningConvection(axis=0, kept=(1,))
    found.update(carried_frames(displacement, shape=(points, 5, 6)))
    assert torch.allclose(found.displacement(2.0)[0], displacement[0, 0, :, 0], atol=2e-3)


def test_trajectories_count_together():
    displacement = torch.tensor([0.3, -0.2, 0.1, 0.0, 0.7], dtype=torch.float64).reshape(1, 1, 5, 1)
    whole, parts = RunningConvection(0, (1,)), RunningConvection(0, (1,))
    frames = carried_frames(displacement, frames=9) + 0.3 * smooth(9, 1, 16, 5, 6, seed=1)
    whole.update(frames)
    parts.update(frames[:5])
    parts.update(frames[4:])
    assert torch.allclose(whole.displacement(2.0), parts.displacement(2.0), atol=1e-12)


def test_noise_and_a_mean_profile_do_not_hide_it():
    displacement = torch.full((1, 1, 5, 1), 0.4, dtype=torch.float64)
    frames = carried_frames(displacement, frames=40, shape=(16, 5, 30))
    noise = torch.randn(frames.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = RunningConvection(0, (1,))
    found.update(frames + 10 * torch.arange(5).reshape(5, 1) + 0.5 * frames.std() * noise)
    assert torch.allclose(found.displacement(2.0)[0], displacement[0, 0, :, 0], atol=0.02)


def test_what_does_not_fluctuate_is_not_moved():
    frames = carried_frames(torch.full((1, 1, 5, 1), 0.4, dtype=torch.float64))
    frames[:, :, :, 0] = 7.0
    found = RunningConvection(0, (1,))
    found.update(frames)
    assert found.displacement(2.0)[0, 0] == 0
    assert found.displacement(2.0)[0, 1] != 0


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.integers(5, 12), st.integers(0, 2))
def test_moving_is_undone_and_keeps_means_and_energy(distance, points, axis):
    shape = [4, 3, 5]
    shape[axis] = points
    fields = smooth(2, 1, 2, *shape, axis=3 + axis)
    sizes = [1 if place == axis else size for place, size in enumerate(shape)]
    displacement = distance * torch.rand(2, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    moved = convected(fields, displacement, axis, 2.0)
    assert torch.allclose(convected(moved, -displacement, axis, 2.0), fields, atol=1e-12)
    assert torch.allclose(moved.mean(3 + axis), fields.mean(3 + axis), atol=1e-12)
    assert torch.allclose(moved.square().sum(3 + axis), fields.square().sum(3 + axis), atol=1e-12)


def test_whole_points_are_a_roll():
    fields = torch.randn(2, 1, 3, 8, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = convected(fields, torch.full((3, 1, 1, 1), 3 / 8 * 2.0, dtype=torch.float64), 0, 2.0)
    assert torch.allclose(moved, fields.roll(3, 3), atol=1e-12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="other than those that are kept"):
        RunningConvection(1, (1,))
    with pytest.raises(ValueError, match="two frames in a row"):
        RunningConvection(0).displacement(1.0)
    alone = RunningConvection(0)
    alone.update(smooth(1, 1, 8))
    with pytest.raises(ValueError, match="two frames in a row"):
        alone.displacement(1.0)
    alone = RunningConvection(0)
    alone.update(smooth(3, 1, 8))
    with pytest.raises(ValueError, match="on one grid"):
        alone.update(smooth(3, 1, 9))
    with pytest.raises(ValueError, match="one displacement along axis 0"):
        convected(smooth(3, 1, 8), torch.zeros(1, 8), 0, 1.0)

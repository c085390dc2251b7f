from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.data.adapters.base import PublishedStatistics
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.loading import EpochSampler, ResumableLoader
from pdesurrogate.data.windows import Windows
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory


def test_windows_are_successive_frames_of_one_trajectory(waves):
    trajectories = waves.trajectories("train")
    windows = Windows(trajectories, history_frames=2, target_frames=3)
    assert len(windows) == 6 * 4
    sample = windows[5]  # second window of the second trajectory
    assert torch.equal(torch.cat([sample.history, sample.target]), trajectories[1].read(1, 6))
    assert sample.context.coordinates[0].shape == (16,)


def test_a_batch_equals_its_samples(waves):
    windows = Windows(waves.trajectories("train"), 1, 2)
    batch = windows.__getitems__([7, 0, 3])
    for row, index in enumerate([7, 0, 3]):
        sample = windows[index]
        assert torch.equal(batch.history[row], sample.history)
        assert torch.equal(batch.target[row], sample.target)
    assert batch.context.coordinates[1].shape == (3, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, 1), ">= 1"), ((1, 1, 0), ">= 1"), ((5, 4, 1), "the longest has 8")],
)
def test_windows_that_cannot_be_cut_are_refused(waves, arguments, message):
    with pytest.raises(ValueError, match=message):
        Windows(waves.trajectories("train"), *arguments)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Windows([], 1, 1)


@given(length=st.integers(8, 60), batch_size=st.integers(1, 4), world_size=st.integers(1, 2), epoch=st.integers(0, 3))
def test_ranks_share_an_epoch_without_overlap(length, batch_size, world_size, epoch):
    ranks = []
    for rank in range(world_size):
        sampler = EpochSampler(length, batch_size, shuffle=True, seed=1, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        ranks.append(batches)
    seen = [index for batches in ranks for batch in batches for index in batch]
    assert len(seen) == len(set(seen)) == batch_size * world_size * (length // (batch_size * world_size))


@given(length=st.integers(3, 30), batch_size=st.integers(1, 7), world_size=st.integers(1, 3))
def test_without_shuffling_every_window_comes_once(length, batch_size, world_size):
    samplers = [
        EpochSampler(length, batch_size, shuffle=False, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    seen = [index for sampler in samplers for batch in sampler for index in batch]
    assert sorted(seen) == list(range(length))
    assert all(len(list(sampler)) == len(sampler) > 0 for sampler in samplers)


def test_a_device_without_a_window_is_refused():
    with pytest.raises(ValueError, match="use fewer devices"):
        EpochSampler(2, 1, shuffle=False, world_size=3)


def test_epochs_differ_and_repeat(waves):
    sampler = EpochSampler(40, 4, shuffle=True, seed=5)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first != second


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_where_it_stopped(waves, workers):
    def loader():
        windows = Windows(waves.trajectories("train"), 1, 1)
        return ResumableLoader(windows, EpochSampler(len(windows), 8, shuffle=True, seed=2), num_workers=workers)

    whole = [batch.history for batch in loader()]
    cut, rest = loader(), loader()
    given_out = iter(cut)
    for _ in range(2):
        next(given_out)
    rest.load_state_dict(cut.state_dict())
    resumed = [batch.history for batch in rest]
    assert len(resumed) == len(whole) - 2
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole[2:], strict=True))


def test_too_few_windows_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="smaller batch_size"):
        EpochSampler(3, 4, shuffle=True)


def test_statistics_are_those_of_the_training_split(waves):
    data = ForecastData(waves)
    frames = torch.stack([trajectory.read() for trajectory in waves.trajectories("train")])
    assert float(data.statistics.mean) == pytest.approx(float(frames.mean()), abs=1e-6)
    assert float(data.statistics.std) == pytest.approx(float(frames.std(unbiased=False)), rel=1e-5)
    increments = frames.diff(dim=1)
    assert float(data.statistics.increment_rms) == pytest.approx(float(increments.square().mean().sqrt()), rel=1e-5)


def test_published_statistics_are_taken_as_they_are(waves):
    class Published:
        metadata, splits, trajectories = waves.metadata, waves.splits, waves.trajectories

        def __init__(self, increment_rms):
            self.published = PublishedStatistics(torch.tensor([3.0]), torch.tensor([2.0]), increment_rms)

        def published_statistics(self):
            return self.published

    own = ForecastData(waves).statistics
    given = ForecastData(Published(None), normalization="published").statistics
    assert (float(given.mean), float(given.std)) == (3.0, 2.0)
    assert torch.equal(given.increment_rms, own.increment_rms)
    given = ForecastData(Published(torch.tensor([0.5])), normalization="published").statistics
    assert float(given.increment_rms) == 0.5
    assert torch.equal(ForecastData(Published(None)).statistics.mean, own.mean)
    with pytest.raises(ValueError, match="profile"):
        _ = ForecastData(Published(None), normalization="published").profile_statistics


def test_a_set_without_published_statistics_says_so(waves):
    with pytest.raises(ValueError, match="comes with statistics but Archive reads none; use normalization: training"):
        ForecastData(waves, normalization="published")


def test_components_of_a_vector_share_their_deviation():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(4, 6, 3, 8, 8, generator=generator) * torch.tensor([1.0, 3.0, 10.0])[:, None, None]
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    channels = (Channel("u", vector="velocity"), Channel("v", vector="velocity"), Channel("scalar"))
    metadata = Metadata("vector", grid, channels, frame_interval=1.0)
    times = torch.arange(6.0)

    class Given:
        def __init__(self):
            self.metadata = metadata
            self.splits = ("train",)

        def trajectories(self, split):
            context = Context((torch.arange(8.0) / 8,) * 2)
            return [
                Trajectory(
                    metadata, context, times, lambda first, out, own=own: out.copy_(own[first:][: len(out)]), own.shape
                )
                for own in frames
            ]

    statistics = ForecastData(Given()).statistics
    parts = frames.unbind(2)
    own = torch.stack([part.var(unbiased=False) for part in parts])
    expected = torch.stack([own[:2].mean(), own[:2].mean(), own[2]]).sqrt()
    torch.testing.assert_close(statistics.std, expected, rtol=1e-5, atol=0)
    assert statistics.increment_rms[0] == statistics.increment_rms[1] != statistics.increment_rms[2]
    torch.testing.assert_close(statistics.mean, torch.stack([part.mean() for part in parts]), rtol=1e-4, atol=1e-6)


def test_predict_gives_one_window_for_each_test_trajectory(waves):
    batches = list(ForecastData(waves, history_frames=3, batch_size=1).predict_dataloader())
    assert [tuple(batch.target.shape) for batch in batches] == [(1, 5, 1, 16, 16)] * 2


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": -1}])
def test_bad_arguments_are_refused(waves, options):
    with pytest.raises(ValueError, match="batch_size >= 1 and workers >= 0"):
        ForecastData(waves, **options)

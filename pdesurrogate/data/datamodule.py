"""From an adapter to batches: splits, windows, loaders, and the statistics of the training split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pdesurrogate.data.adapters.base import Adapter, WithStatistics
from pdesurrogate.data.loading import EpochSampler, ResumableLoader
from pdesurrogate.data.windows import Windows, as_batch
from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.convection import RunningConvection, convected
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.normalizer import RunningMoments
from pdesurrogate.fields.trajectory import Trajectory


class Statistics(NamedTuple):
    """Of the training split, each ``(channel,)``; increments are root mean squares of one-frame differences.

    About a mean profile the mean is ``(channel, *profile)``, with one point along periodic axes, and the deviation is
    that of the fluctuation.
    """

    mean: Tensor
    std: Tensor
    increment_rms: Tensor


class Convection(NamedTuple):
    """How far the mean flow of the training split carries each channel in a frame.

    Attributes:
        displacement: along the first periodic axis, ``(channel, *profile)`` with one point along periodic axes.
        increment_rms: ``(channel,)``, of the difference of a frame from the one before it, carried along.
    """

    displacement: Tensor
    increment_rms: Tensor


class ForecastData(lightning.LightningDataModule):
    """Windows of trajectories for field-to-field training.

    Args:
        adapter: the data set.
        history_frames: input frames of a sample.
        target_frames: frames to predict in training; more than the network gives at once means unrolling.
        rollout_frames: frames to predict in validation and testing.
        batch_size: windows in a batch, on each device.
        seed: of the order of the training windows.
        stride: frames between neighbouring training windows.
        workers: loader processes; reading a memory map is faster without.
        normalization: from the training split, or the statistics that the data set's authors published, where its
            adapter has them.

    Raises:
        ValueError: for numbers below their least, or published statistics of a set that has none.

    ``predict`` rolls every test trajectory out from its first frames to its end.
    """

    def __init__(
        self,
        adapter: Adapter,
        history_frames: int = 1,
        target_frames: int = 1,
        rollout_frames: int = 1,
        batch_size: int = 16,
        seed: int = 0,
        stride: int = 1,
        workers: int = 0,
        normalization: Literal["training", "published"] = "training",
    ) -> None:
        super().__init__()
        if normalization == "published" and not isinstance(adapter, WithStatistics):
            raise ValueError(
                f"Expected a data set that comes with statistics but {type(adapter).__name__} reads none; "
                "use normalization: training."
            )
        if batch_size < 1 or workers < 0:
            raise ValueError(f"Expected batch_size >= 1 and workers >= 0 but got {batch_size} and {workers}.")
        self.adapter = adapter
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.rollout_frames = rollout_frames
        self.batch_size = batch_size
        self.seed = seed
        self.stride = stride
        self.workers = workers
        self.normalization = normalization
        self._statistics: dict[tuple[int, ...], Statistics] = {}
        self._found_finite: set[str] = set()

    @property
    def metadata(self) -> Metadata:
        """Of the data set."""
        return self.adapter.metadata

    @property
    def channels(self) -> int:
        """Number of channels; linked to the network's argument of that name."""
        return len(self.metadata.channels)

    @property
    def space(self) -> tuple[int, ...]:
        """Points along each axis, of the first trajectory at hand."""
        return self.adapter.trajectories(self.adapter.splits[0])[0].shape[2:]

    @property
    def statistics(self) -> Statistics:
        """Channel statistics of the training split, over the fluid, gathered in one streaming pass at first use.

        Components of one vector share their standard deviation, and so the size of their increments; published
        statistics are taken as they are, and increments gathered where they are not among them.

        Raises:
            ValueError: if a value is not finite, naming the trajectory, or published statistics do not fit.
        """
        if self.normalization == "training" or not isinstance(self.adapter, WithStatistics):
            return self._gathered(())
        published = self.adapter.published_statistics()
        increments = published.increment_rms
        return Statistics(
            published.mean.float(),
            published.std.float(),
            self._gathered(()).increment_rms if increments is None else increments.float(),
        )

    @property
    def profile_statistics(self) -> Statistics:
        """As `statistics`, about the mean along all periodic axes: a profile along the others, whose mean flow it is.

        Raises:
            ValueError: if a value is not finite, or a trajectory is not on the grid of the first, naming it; or if
                published statistics are asked for, which have no profile.
        """
        if self.normalization == "published":
            raise ValueError("Expected statistics of the training split for a profile but got published ones.")
        gathered = self._gathered(self._kept)
        return gathered._replace(mean=self._as_profile(gathered.mean))

    @cached_property
    def convection(self) -> Convection:
        """Gathered in two passes over the training split at first use.

        Raises:
            ValueError: if no axis is periodic, points along the first that is are not evenly spaced, or trajectories
                are not on one grid.
        """
        axes = self.metadata.grid.axes
        streamwise, period = next(
            ((place, axis.period) for place, axis in enumerate(axes) if axis.period is not None), (0, None)
        )
        if period is None:
            raise ValueError(
                f"Expected a periodic axis that a mean flow runs along but {self.metadata.name!r} has none."
            )
        trajectories = self.adapter.trajectories("train")
        points = trajectories[0].context.coordinates[streamwise].double()
        if not bool(((points.diff() - period / len(points)).abs() <= 1e-3 * period / len(points)).all()):
            raise ValueError(
                f"Expected evenly spaced points along {axes[streamwise].name!r}, which the mean flow runs along."
            )
        running, increments = RunningConvection(streamwise, self._kept), RunningMoments(self.channels)
        for trajectory in trajectories:
            running.update(trajectory.read())
        displacement = self._as_profile(running.displacement(period)).float()
        for trajectory in trajectories:
            frames = trajectory.read()
            increments.update(frames[1:] - convected(frames[:-1], displacement, streamwise, period))
        return Convection(displacement, self._within_vectors(increments.std**2 + increments.mean**2).sqrt().float())

    @property
    def _kept(self) -> tuple[int, ...]:
        """Axes that are not periodic: what is averaged over the others is a profile along them."""
        return tuple(number for number, axis in enumerate(self.metadata.grid.axes) if axis.period is None)

    def _as_profile(self, values: Tensor) -> Tensor:
        """``(channel, *kept)`` with one point along periodic axes: ``(channel, *profile)``."""
        sizes = iter(values.shape[1:])
        return values.reshape(self.channels, *(next(sizes) if a.period is None else 1 for a in self.metadata.grid.axes))

    def _gathered(self, kept: tuple[int, ...]) -> Statistics:
        """In one pass; about the mean of each point of the ``kept`` axes, ``(channel, *kept)``."""
        if kept not in self._statistics:
            values, increments = RunningMoments(self.channels, kept), RunningMoments(self.channels)
            for number, trajectory in enumerate(self.adapter.trajectories("train")):
                frames = trajectory.read()
                try:
                    values.update(frames, trajectory.context.mask)
                except ValueError as error:
                    raise ValueError(f"Training trajectory {number}: {error}") from error
                increments.update(frames.diff(dim=0), trajectory.context.mask)
            fluctuation = (values.std**2).reshape(self.channels, -1).mean(1)
            variances = (fluctuation, increments.std**2 + increments.mean**2)
            std, increment_rms = (self._within_vectors(each).sqrt().float() for each in variances)
            self._statistics[kept] = Statistics(values.mean.float(), std, increment_rms)
        return self._statistics[kept]

    def _within_vectors(self, variances: Tensor) -> Tensor:
        """Of each channel; components of a vector share their mean, or a network could tell one axis from another."""
        vectors = [channel.vector for channel in self.metadata.channels]
        shared = [
            [place for place, other in enumerate(vectors) if other == vector] if vector else [own]
            for own, vector in enumerate(vectors)
        ]
        return torch.stack([variances[places].mean() for places in shared])

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled windows; resumes in the middle of an epoch."""
        windows = Windows(self.adapter.trajectories("train"), self.history_frames, self.target_frames, self.stride)
        return self._loader(windows, shuffle=True)

    def val_dataloader(self) -> ResumableLoader:
        """Neighbouring rollout windows of the validation split."""
        return self._loader(self._rollout_windows("val"), shuffle=False)

    def test_dataloader(self) -> ResumableLoader:
        """Neighbouring rollout windows of the test split."""
        return self._loader(self._rollout_windows("test"), shuffle=False)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """One window for each test trajectory: its first frames, and all that follow; in order, on one device.

        Raises:
            ValueError: if trajectories differ in length, as windows of a batch cannot.
        """
        trajectories = self._checked("test")
        frames = len(trajectories[0]) - self.history_frames
        lengths = {len(trajectory) for trajectory in trajectories}
        if len(lengths) > 1:
            raise ValueError(
                f"Expected test trajectories of one length but they have {min(lengths)} to {max(lengths)} frames; "
                "predict those of one length at a time, or evaluate the shortest number of frames."
            )
        windows = Windows(trajectories, self.history_frames, frames, stride=frames + 1)
        # Lightning rebuilds the loader of this verb with a sampler of its own, which only a plain loader survives.
        return DataLoader(windows, batch_size=self.batch_size, collate_fn=as_batch)

    def _rollout_windows(self, split: str) -> Windows:
        trajectories = self._checked(split)
        return Windows(trajectories, self.history_frames, self.rollout_frames, stride=self.rollout_frames)

    def _checked(self, split: str) -> Sequence[Trajectory]:
        """Trajectories of a split that is measured on, read through once: a NaN would make every figure NaN.

        Raises:
            ValueError: if a value is not finite, naming the trajectory.
        """
        trajectories = self.adapter.trajectories(split)
        if split not in self._found_finite:
            for number, trajectory in enumerate(trajectories):
                if not bool(torch.isfinite(trajectory.read()).all()):
                    raise ValueError(
                        f"Expected finite values but {split} trajectory {number} holds NaN or infinity; "
                        "remove or regenerate it."
                    )
            self._found_finite.add(split)
        return trajectories

    def _loader(self, windows: Windows, *, shuffle: bool) -> ResumableLoader:
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        sampler = EpochSampler(
            len(windows), self.batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world_size=world_size
        )
        return ResumableLoader(
            windows,
            sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

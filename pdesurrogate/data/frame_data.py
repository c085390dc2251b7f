"""Single frames of trajectories with their times: what networks of parameters, time and place are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.loading import EpochSampler, ResumableLoader
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory


class TimedFrame(NamedTuple):
    """A frame ``(channel, *space)`` in physical units, its time ``()`` and its context; batched, one more axis each."""

    time: Tensor
    frame: Tensor
    context: Context


class Frames(Dataset[TimedFrame]):
    """Every frame of the trajectories given, or every so many-th.

    Args:
        trajectories: of one split, all of one shape but for their lengths.
        stride: frames from one to the next.

    Raises:
        ValueError: if there is no trajectory, shapes differ, or the stride is below 1.
    """

    def __init__(self, trajectories: Sequence[Trajectory], stride: int = 1) -> None:
        if stride < 1:
            raise ValueError(f"Expected a stride of at least 1 but got {stride}.")
        if not trajectories:
            raise ValueError("Expected at least one trajectory but the split is empty; choose another split.")
        shapes = {trajectory.shape[1:] for trajectory in trajectories}
        if len(shapes) > 1:
            raise ValueError(f"Expected trajectories of one shape but got {sorted(shapes)}; split them by shape.")
        self.trajectories = trajectories
        self._places = [
            (number, frame)
            for number, trajectory in enumerate(trajectories)
            for frame in range(0, len(trajectory), stride)
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> TimedFrame:
        number, frame = self._places[index]
        trajectory = self.trajectories[number]
        values = trajectory.read(frame, frame + 1)[0]
        return TimedFrame(trajectory.times[frame].to(values.dtype), values, trajectory.context)

    def __getitems__(self, indices: Sequence[int]) -> list[TimedFrame]:
        """The frames of these numbers."""
        return [self[index] for index in indices]


class FrameData(lightning.LightningDataModule):
    """Batches of single frames, each a `TimedFrame`.

    The order of training batches is a function of ``(seed, epoch)`` and resumes in the middle of an epoch; frames that
    do not fill a batch are left out of that epoch. Those of validation and testing all come, in order.

    Args:
        adapter: the data set.
        batch_size: frames in a batch, on each device.
        seed: of the order of the training frames.
        stride: frames of a trajectory from one that is trained on to the next.

    Raises:
        ValueError: for a batch size or a seed out of range.
    """

    def __init__(self, adapter: Adapter, batch_size: int = 128, seed: int = 0, stride: int = 1) -> None:
        super().__init__()
        if batch_size < 1 or seed < 0:
            raise ValueError(f"Expected batch_size >= 1 and seed >= 0 but got {batch_size} and {seed}.")
        self.adapter = adapter
        self.batch_size = batch_size
        self.seed = seed
        self.stride = stride

    @property
    def metadata(self) -> Metadata:
        """Of the data set."""
        return self.adapter.metadata

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled frames; resumes in the middle of an epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> ResumableLoader:
        """All frames of the validation split, in order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> ResumableLoader:
        """All frames of the test split, in order."""
        return self._loader("test", shuffle=False)

    def _loader(self, split: str, *, shuffle: bool) -> ResumableLoader:
        frames = Frames(self.adapter.trajectories(split), self.stride if shuffle else 1)
        rank, devices = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        sampler = EpochSampler(
            len(frames), self.batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world_size=devices
        )
        # What the loader asks of windows, a list of samples for a list of numbers, frames give as well.
        return ResumableLoader(frames, sampler, pin_memory=torch.cuda.is_available())  # type: ignore[arg-type]

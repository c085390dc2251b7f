"""Windows in time: which (history, target) pairs a split holds, read straight into one batch buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pdesurrogate.fields.batch import Batch, collate
from pdesurrogate.fields.trajectory import Context, Trajectory


class Windows(Dataset[Batch]):
    """Every window of ``history_frames + target_frames`` successive frames of the trajectories given.

    Args:
        trajectories: of one split, all of one shape.
        history_frames: input frames.
        target_frames: frames to predict.
        stride: frames between the starts of neighbouring windows.

    Raises:
        ValueError: if there is no trajectory, shapes differ, or none is long enough.

    Indexing gives one unbatched sample; a list of indices through ``__getitems__``, as a data loader asks for, gives a
    whole `Batch` without a copy per sample.
    """

    def __init__(
        self, trajectories: Sequence[Trajectory], history_frames: int, target_frames: int, stride: int = 1
    ) -> None:
        if history_frames < 1 or target_frames < 1 or stride < 1:
            raise ValueError(
                f"Expected history_frames, target_frames and stride >= 1 but got "
                f"{history_frames}, {target_frames} and {stride}."
            )
        if not trajectories:
            raise ValueError("Expected at least one trajectory but the split is empty; choose another split.")
        shapes = {trajectory.shape[1:] for trajectory in trajectories}
        if len(shapes) > 1:
            raise ValueError(f"Expected trajectories of one shape but got {sorted(shapes)}; split them by shape.")
        self.trajectories = trajectories
        self.history_frames = history_frames
        self.target_frames = target_frames
        length = history_frames + target_frames
        starts = [
            (number, start)
            for number, trajectory in enumerate(trajectories)
            for start in range(0, len(trajectory) - length + 1, stride)
        ]
        if not starts:
            longest = max(len(trajectory) for trajectory in trajectories)
            raise ValueError(
                f"Expected trajectories of at least {length} frames ({history_frames} in, {target_frames} out) "
                f"but the longest has {longest}; ask for fewer frames."
            )
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Batch:
        number, start = self._starts[index]
        trajectory = self.trajectories[number]
        frames = self._room()
        trajectory.read_into(start, frames)
        return Batch(frames[: self.history_frames], frames[self.history_frames :], trajectory.context)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these windows: frames are read into its memory directly."""
        frames = self._room(len(indices))
        contexts: list[Context] = []
        for row, index in enumerate(indices):
            number, start = self._starts[index]
            trajectory = self.trajectories[number]
            trajectory.read_into(start, frames[row])
            contexts.append(trajectory.context)
        history, target = frames.split([self.history_frames, self.target_frames], dim=1)
        return Batch(history, target, collate(contexts))

    def _room(self, *windows: int) -> Tensor:
        """Unwritten frames of so many windows, ``(*windows, time, channel, *space)``."""
        length = self.history_frames + self.target_frames
        # NumPy asks for huge pages: where a batch has tens of megabytes its first touch costs a quarter.
        return torch.from_numpy(np.empty((*windows, length, *self.trajectories[0].shape[1:]), np.float32))


def as_batch(samples: Batch | Sequence[Batch]) -> Batch:
    """Collate for a data loader over `Windows`, which deliver whole batches already."""
    if isinstance(samples, Batch):
        return samples
    batch: Batch = collate(samples)
    return batch

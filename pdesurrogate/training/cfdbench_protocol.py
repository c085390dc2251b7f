"""CFDBench's training and scores as its authors have them, on what their loaders give (`ReferenceCfdBench`).

Luo, Chen & Zhang, arXiv:2310.05963, and their code of December 2024. For comparison with published figures; our own
training leaves out their faults. What differs all the same: frames that do not fill a batch are left out of an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pdesurrogate.data.adapters.base import PublishedStatistics
from pdesurrogate.data.adapters.cfdbench.reference_adapter import ReferenceCfdBench
from pdesurrogate.data.datamodule import ForecastData, Statistics
from pdesurrogate.data.frame_data import FrameData, Frames, TimedFrame
from pdesurrogate.data.windows import as_batch
from pdesurrogate.fields.batch import Batch, collate
from pdesurrogate.fields.grid import Grid
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.cfdbench import Alignment, Scores, frame_scores, multi_step_scores
from pdesurrogate.models.deeponet import PointNetwork
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.training.case_regression import predict_frames
from pdesurrogate.training.forecast import ForecastModule
from pdesurrogate.training.losses import Loss

# What the authors score: both velocities in the fluid, or the first one everywhere, rows of boundary values included.
Scored = Literal["both", "first"]
# In a batch of validation.
_VALIDATION_PAIRS, _VALIDATION_FRAMES = 16, 64
# Of a multi-step test.
STEPS = 20


class WholeFrame:
    """A loss over all points, whatever the mask says: the authors' where they predict the first velocity alone.

    Args:
        loss: that is taken.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """See `Loss`."""
        return self.loss.distance(prediction, target, context._replace(mask=None), grid)


class ReferencePairData(ForecastData):
    """Pairs for the autoregressive task; velocities go to the network as they are, and 16 pairs are validated on.

    Args:
        adapter: with the task ``pairs``.
        batch_size: pairs in a batch.
        seed: of the order of the training pairs.

    Raises:
        ValueError: for the other task, and as `ForecastData`.
    """

    def __init__(self, adapter: ReferenceCfdBench, batch_size: int = 128, seed: int = 0) -> None:
        _require_task(adapter, "pairs")
        super().__init__(adapter, batch_size=batch_size, seed=seed)
        self._published = adapter.published_statistics()

    @cached_property
    def statistics(self) -> Statistics:
        """Mean zero and deviation one."""
        found: PublishedStatistics = self._published
        return Statistics(found.mean, found.std, torch.ones_like(found.std))

    def val_dataloader(self) -> DataLoader[Batch]:  # type: ignore[override]
        """All pairs of their dev split, in order."""
        return DataLoader(self._rollout_windows("val"), batch_size=_VALIDATION_PAIRS, collate_fn=as_batch)


class ReferenceFrameData(FrameData):
    """Frames for the task without time steps; 64 of them are validated on at a time.

    Args:
        adapter: with the task ``frames``.
        batch_size: frames in a batch.
        seed: of the order of the training frames.

    Raises:
        ValueError: for the other task, and as `FrameData`.
    """

    def __init__(self, adapter: ReferenceCfdBench, batch_size: int = 128, seed: int = 0) -> None:
        _require_task(adapter, "frames")
        super().__init__(adapter, batch_size=batch_size, seed=seed)

    def val_dataloader(self) -> DataLoader[TimedFrame]:  # type: ignore[override]
        """All frames of their dev split, in order."""
        frames = Frames(self.adapter.trajectories("val"))
        return DataLoader(frames, batch_size=_VALIDATION_FRAMES, collate_fn=collate)


class ReferenceForecastModule(ForecastModule):
    """As `ForecastModule`; logs ``val/loss`` too, the mean over batches of what is trained on, by which they choose."""

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Their score of a batch, beside ours."""
        super().validation_step(batch, batch_index)
        # Every batch counts alike, the last one as well.
        self.log("val/loss", self._loss(batch), prog_bar=True, batch_size=1, sync_dist=True)


@torch.no_grad()
def pair_scores(stepper: Stepper, trajectories: Sequence[Trajectory], scored: Scored, batch_size: int = 1) -> Scores:
    """Single steps: means over all pairs of the scores of each, which are the authors' at their batch size of one.

    Args:
        stepper: on the CPU, of one frame; persistence with ``"first"`` is their identity.
        trajectories: of `ReferenceCfdBench` with the task ``pairs``.
        scored: both velocities, zero outside the mask, or the first one everywhere.
        batch_size: steps at a time; one for `AutoFFN` with ``compat="reference"``, which mixes up what is in a batch.

    Raises:
        ValueError: if there is no pair.
    """
    found: list[Scores] = []
    for trajectory in trajectories:
        frames = trajectory.read()
        for start in range(0, len(frames) - 1, batch_size):
            before = frames[start : min(start + batch_size, len(frames) - 1)]
            context: Context = collate([trajectory.context] * len(before))
            predicted = stepper.step(before[:, None], context)[:, 0]
            found.append(_scores_of(predicted, frames[start + 1 : start + 1 + len(before)], context.mask, scored))
    return _mean_of(found)


@torch.no_grad()
def single_frame_scores(network: PointNetwork, trajectories: Sequence[Trajectory]) -> Scores:
    """Frames without time steps: means over all frames of the scores of each, of the first velocity everywhere.

    Args:
        network: on the CPU, of parameters, number of the frame, column and row.
        trajectories: of `ReferenceCfdBench` with the task ``frames``.

    Raises:
        ValueError: if there is no frame.
    """
    found: list[Scores] = []
    for trajectory in trajectories:
        context: Context = collate([trajectory.context])
        for number, time in enumerate(trajectory.times.float()):
            predicted = predict_frames(network, time[None], context)[0]
            found.append(_scores_of(predicted, trajectory.read(number, number + 1), None, "first"))
    return _mean_of(found)


@torch.no_grad()
def multi_step(
    model: Stepper | PointNetwork,
    trajectories: Sequence[Trajectory],
    stride: int = 1,
    steps: int = STEPS,
    alignment: Alignment = "frames",
    starts_with_input: bool = False,
) -> Scores:
    """Scores ``(step,)`` of the first velocity in rollouts from the first frame of each case; see `multi_step_scores`.

    A network without time steps is asked for the frames that its steps are compared with.

    Args:
        model: on the CPU.
        trajectories: `ReferenceCfdBench.stored` ones.
        stride: stored frames in a step.
        steps: of a rollout.
        alignment: ``"reference"`` compares a step with the frame before the one that it predicts, as they do.
        starts_with_input: with the alignment of the reference a rollout begins with the frame that was given, as that
            of their ResNet does.

    Raises:
        ValueError: as `multi_step_scores`.
    """
    predicted, truth, masks = [], [], []
    apart = 1 if alignment == "reference" else stride
    for trajectory in trajectories:
        frames = trajectory.read(0, min(len(trajectory), apart * steps + 1))[::apart]
        context: Context = collate([trajectory.context])
        if isinstance(model, PointNetwork):
            first = 0 if alignment == "reference" else 1
            times = (trajectory.times[0] + apart * torch.arange(first, first + steps)).float()
            made = predict_frames(model, times, context)[0, :, :1]
        else:
            made = torch.cat(list(rollout(model, frames[None, :1], context, steps)), dim=1)[0, :, :1]
            if starts_with_input and alignment == "reference":
                made = torch.cat([frames[:1, :1], made])[:steps]
        predicted.append(made)
        truth.append(frames[:, :1])
        masks.append(torch.ones_like(frames[0, 0], dtype=torch.bool) if context.mask is None else context.mask[0])
    if not predicted:
        raise ValueError("Expected at least one case but the split is empty; choose other subsets.")
    return multi_step_scores(torch.stack(predicted), truth, torch.stack(masks), alignment=alignment)


def _scores_of(predicted: Tensor, target: Tensor, mask: Tensor | None, scored: Scored) -> Scores:
    """Of each frame ``(frame, channel, x, y)``."""
    if scored == "first":
        return frame_scores(predicted[:, :1], target[:, :1], None, "reference")
    return frame_scores(predicted, target, mask, "reference")


def _mean_of(found: Sequence[Scores]) -> Scores:
    if not found:
        raise ValueError("Expected at least one frame to score but there is none; choose other subsets.")
    return Scores(*(torch.cat(parts).mean() for parts in zip(*found, strict=True)))


def _require_task(adapter: ReferenceCfdBench, task: str) -> None:
    if not isinstance(adapter, ReferenceCfdBench) or adapter.task != task:
        raise ValueError(f"Expected a ReferenceCfdBench with the task {task!r} but got {adapter!r}.")

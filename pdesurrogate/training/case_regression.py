"""Training of networks that know of a case its parameters alone, and give its fields at any time and place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pdesurrogate.data.frame_data import FrameData, TimedFrame
from pdesurrogate.evaluation.card import ModelCard
from pdesurrogate.evaluation.provenance import checkpoint_record
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.cfdbench import at_rest, frame_scores
from pdesurrogate.models.deeponet import PointNetwork
from pdesurrogate.models.neural_process import AttentiveNeuralProcess
from pdesurrogate.models.specification import build, specification_of
from pdesurrogate.steppers.surrogate import CHECKPOINT_KEY, load_checkpoint, load_weights, write_checkpoint
from pdesurrogate.training.regression import RegressionModule
from pdesurrogate.training.schedules import Schedule

CaseLoss = Literal["nmse", "mse"]

_PREFIX = "network."
_SCORES = ("nmse", "mse", "mae")


class CaseRegressionModule(RegressionModule):
    """Trains a network from parameters, time and place to fields: CFDBench's task that is not autoregressive.

    Each training step asks for the fields at some points of the grid, drawn anew and the same for all frames of the
    batch, as the authors do (Luo, Chen and Zhang, arXiv:2310.05963, who draw 1000 and train for the NMSE of the first
    velocity). Validation and testing ask for all points. Solid cells do not count.

    Logged: ``train/loss``; ``val/loss``, and as means over all frames and fields ``val/nmse`` (of the ratios of single
    frames, without those whose truth is zero throughout), ``val/mse`` and ``val/mae``; ``test/...`` likewise.

    Args:
        network: what is trained.
        channels: names of the channels that are its fields, in this order.
        points: of each frame in a training step, drawn with replacement.
        loss: ``"nmse"``, the mean squared error of a field in the batch over the mean square of its truth; or
            ``"mse"``, the mean squared error.
        learning_rate: of Adam, without decay of weights.
        schedule: of the learning rate over all steps of the fit; constant if not given.

    Raises:
        ValueError: for arguments out of range; in use, for data with other channels, axes or parameters.
    """

    def __init__(
        self,
        network: PointNetwork,
        channels: Sequence[str],
        points: int = 1000,
        loss: CaseLoss = "nmse",
        learning_rate: float = 1e-3,
        schedule: Schedule | None = None,
    ) -> None:
        # What the base does with its network, recording and saving it, any network allows.
        super().__init__(cast(AttentiveNeuralProcess, network), learning_rate, schedule)
        if points < 1 or loss not in ("nmse", "mse"):
            raise ValueError(f"Expected at least 1 point and loss 'nmse' or 'mse' but got {points} and {loss!r}.")
        if len(channels) != network.fields:
            raise ValueError(f"Expected a channel for each of {network.fields} field(s) but got {tuple(channels)}.")
        self.channels = tuple(channels)
        self.points = points
        self.loss = loss

    @property
    def _data(self) -> FrameData:  # type: ignore[override]
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, FrameData):
            raise ValueError(f"Expected a FrameData as the trainer's datamodule but got {type(data).__name__}.")
        return data

    @property
    def _cases(self) -> PointNetwork:
        return cast(PointNetwork, self.network)

    def setup(self, stage: str) -> None:
        """Refuse data of other channels, axes or parameters.

        Raises:
            ValueError: naming both.
        """
        metadata = self._data.metadata
        missing = sorted(set(self.channels) - set(metadata.channel_names))
        if missing:
            raise ValueError(f"Expected data with the channels {missing} but got {metadata.channel_names}.")
        wanted = self._cases.dimension - 1, len(self._cases.parameter_ranges)
        if wanted != (metadata.grid.dimension, len(metadata.parameters)):
            raise ValueError(
                f"Expected data of {wanted[0]} axes and {wanted[1]} parameters, as the network has ranges for, but got "
                f"{metadata.grid.axis_names} and {metadata.parameters}."
            )
        if stage == "fit":
            self._trained = True

    def training_step(self, batch: TimedFrame, batch_index: int) -> Tensor:  # type: ignore[override]
        """Loss at some points of one batch."""
        generator = self._generator(self._data.seed, self.trainer.fit_loop.total_batch_idx, self.global_rank)
        count = batch.frame[0, 0].numel()
        chosen = torch.randint(count, (self.points,), generator=generator, device=batch.frame.device)
        loss = self._loss_of(*self._asked(batch, chosen))
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch.time))
        return loss

    def validation_step(self, batch: TimedFrame, batch_index: int) -> None:  # type: ignore[override]
        """Loss and scores of all points."""
        self._measure("val", batch)

    def test_step(self, batch: TimedFrame, batch_index: int) -> None:  # type: ignore[override]
        """Loss and scores of all points."""
        self._measure("test", batch)

    def _measure(self, stage: str, batch: TimedFrame) -> None:
        predicted, truth, fluid = self._asked(batch, slice(None))
        loss = self._loss_of(predicted, truth, fluid)
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(batch.time), sync_dist=True)
        # As frames (frame, field, channel, x, y), each field with its own scores.
        target, mask = truth.mT[:, :, None, None], None if fluid is None else fluid[:, None, None]
        found = frame_scores(predicted.mT[:, :, None, None], target, mask)
        moving = ~at_rest(target, mask)
        for name in _SCORES:
            # A frame without truth has no ratio: it is left out of the mean, as its weight is.
            values = found.nmse[moving] if name == "nmse" else getattr(found, name).flatten()
            mean = values.sum() / max(len(values), 1)
            self.log(f"{stage}/{name}", mean.float(), batch_size=len(values), sync_dist=True)

    def _asked(self, batch: TimedFrame, chosen: Tensor | slice) -> tuple[Tensor, Tensor, Tensor | None]:
        """Prediction and truth ``(frame, point, field)`` at chosen points of the grid, and which are fluid."""
        places = points_of(batch.time, batch.context)[:, chosen]
        numbers = [self._data.metadata.channel_names.index(name) for name in self.channels]
        truth = batch.frame[:, numbers].flatten(2).mT[:, chosen]
        mask = batch.context.mask
        predicted: Tensor = self._cases(batch.context.parameters, places)
        return predicted, truth, None if mask is None else mask.flatten(1)[:, chosen]

    def _loss_of(self, predicted: Tensor, truth: Tensor, fluid: Tensor | None) -> Tensor:
        if fluid is not None:
            # Before anything is computed: what is stored in solid may be NaN, which gradients would carry on.
            predicted, truth = (torch.where(fluid[..., None], each, 0.0) for each in (predicted, truth))
        error, square = (predicted - truth).square(), truth.square()
        if self.loss == "mse":
            counted = error.shape[0] * error.shape[1] if fluid is None else fluid.sum().clamp_min(1)
            return (error.sum((0, 1)) / counted).mean()
        # A batch of frames at rest has no scale; then it teaches nothing rather than infinitely much.
        scale = square.sum((0, 1))
        return torch.where(scale > 0, error.sum((0, 1)) / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0.0).mean()

    @property
    def settings(self) -> dict[str, Any]:
        """See `RegressionModule.settings`."""
        own = {"channels": list(self.channels), "points": self.points, "loss": self.loss, "stride": self._data.stride}
        return {**super().settings, **own}


def points_of(times: Tensor, context: Context) -> Tensor:
    """Time and place of all points of the grid, ``(frame, point, 1 + axes)``, x in front.

    Args:
        times: of the frames, ``(frame,)``.
        context: with coordinates ``(frame, n)`` for each axis.
    """
    space = [line.shape[1] for line in context.coordinates]
    columns = [times[:, None].expand(-1, math.prod(space))]
    for axis, line in enumerate(context.coordinates):
        shape = [len(line), *(size if other == axis else 1 for other, size in enumerate(space))]
        columns.append(line.reshape(shape).expand(-1, *space).flatten(1).to(times.dtype))
    return torch.stack(columns, dim=-1)


@torch.no_grad()
def predict_frames(network: PointNetwork, times: Tensor, context: Context) -> Tensor:
    """The fields of cases at some times and all points, ``(case, time, field, *space)``; as a rollout gives them.

    Args:
        network: a trained one.
        times: ``(time,)``, in the unit that it was trained in, from where the data count.
        context: of the cases, batched.

    Example:
        >>> from pdesurrogate.models.deeponet import FFN
        >>> network = FFN(parameter_ranges=[(0.1, 10.0)], point_ranges=[(0.0, 5.0), (0.0, 1.0), (0.0, 0.5)])
        >>> context = Context((torch.rand(2, 8), torch.rand(2, 6)), parameters=torch.ones(2, 1))
        >>> predict_frames(network, torch.tensor([0.1, 0.2, 0.3]), context).shape
        torch.Size([2, 3, 1, 8, 6])
    """
    space = [line.shape[1] for line in context.coordinates]
    frames = [
        network(context.parameters, points_of(time.expand(len(context.coordinates[0])), context)).mT for time in times
    ]
    return torch.stack(frames, 1).unflatten(-1, space)


def load_case_network(path: str | Path, device: str = "cpu") -> PointNetwork:
    """The network of a checkpoint that training wrote; nothing is unpickled.

    Raises:
        ValueError: if the file is missing, damaged, not ours, of another kind of model, or holds anything but tensors
            and plain values.
    """
    stored = load_checkpoint(path)
    network = _built(stored)
    if not isinstance(network, PointNetwork):
        raise ValueError(
            f"Expected a network of parameters, time and place in {path} but got {type(network).__name__}."
        )
    load_weights(network, stored, _PREFIX, path)
    return network.eval().to(device)


def holds_case_network(path: str | Path) -> bool:
    """Whether a checkpoint is one of `CaseRegressionModule`.

    Raises:
        ValueError: if the file is missing, damaged or not ours.
    """
    return isinstance(_built(load_checkpoint(path)), PointNetwork)


def _built(stored: dict[str, Any]) -> nn.Module | None:
    """The network that a checkpoint specifies, as it begins; ``None`` if it specifies none."""
    specification = stored.get(CHECKPOINT_KEY)
    return build(specification["network"]) if isinstance(specification, dict) and "network" in specification else None


def save_case_network(checkpoint: str | Path, path: str | Path) -> Path:
    """Write weights, specification and training record of a checkpoint alone, without the optimizer's state.

    Raises:
        ValueError: as `load_case_network`.
    """
    network = load_case_network(checkpoint)
    training = load_checkpoint(checkpoint).get("training")
    return write_checkpoint(path, {"network": specification_of(network)}, network, _PREFIX, training)


class CaseForecast(nn.Module):
    """A network of parameters, time and place as a `Stepper`: one step gives all frames of a rollout.

    It reads nothing of the frames that it follows, which a rollout needs all the same, and takes no further step: it
    would not know of which times.

    Args:
        network: a trained one.
        metadata: of the data set, whose channels are all among ``channels``.
        channels: names of the network's fields, in their order.
        times: of the frames to predict, ``(time,)``, in the unit that the network was trained in.

    Raises:
        ValueError: if a channel of the data is none of the fields, or there is no time.
    """

    history_frames = 1

    def __init__(self, network: PointNetwork, metadata: Metadata, channels: Sequence[str], times: Tensor) -> None:
        super().__init__()
        missing = [name for name in metadata.channel_names if name not in channels]
        if missing or len(times) == 0:
            raise ValueError(
                f"Expected a network of all channels {metadata.channel_names} and at least one time but got fields "
                f"{tuple(channels)} and {len(times)} times; train one with these channels."
            )
        self.network = network
        self.metadata = metadata
        self._places = [list(channels).index(name) for name in metadata.channel_names]
        self._times = times
        self._last: Tensor | None = None

    def step(self, history: Tensor, context: Context) -> Tensor:
        """All frames ``(case, time, channel, *space)``.

        Raises:
            ValueError: if the frames that it gave are what it is to go on from.
        """
        if self._last is not None and torch.equal(history[:, -1], self._last):
            raise ValueError(f"Expected a rollout of at most {len(self._times)} frames, whose times were given.")
        times = self._times.to(history)
        frames = predict_frames(self.network, times, context)[:, :, self._places]
        self._last = frames[:, -1].clone()
        return frames


def case_forecast(
    checkpoint: str | Path, trajectories: Sequence[Trajectory], start_frame: int, frames: int
) -> tuple[CaseForecast, ModelCard]:
    """What a checkpoint of `CaseRegressionModule` says of frames of some trajectories, to be evaluated as a rollout.

    Args:
        checkpoint: that training wrote.
        trajectories: of one data set, all with the same times.
        start_frame: number of the first frame.
        frames: to predict.

    Returns:
        The stepper, and what a report says about it.

    Raises:
        ValueError: as `load_case_network` and `CaseForecast`, or if trajectories are too short or differ in their
            times.
    """
    network = load_case_network(checkpoint)
    training = dict(load_checkpoint(checkpoint).get("training") or {})
    if not trajectories:
        raise ValueError("Expected at least one trajectory but the split is empty; choose another split.")
    times = trajectories[0].times[start_frame : start_frame + frames]
    for number, trajectory in enumerate(trajectories):
        own = trajectory.times[start_frame : start_frame + frames]
        if len(own) < frames or not torch.equal(own, times):
            raise ValueError(
                f"Expected {frames} frames from frame {start_frame} on at the times of trajectory 0 but trajectory "
                f"{number} has {len(trajectory)} frames from time {float(trajectory.times[0]):g} on; evaluate those "
                "with the same times together."
            )
    settings = training.get("settings") or {}
    stepper = CaseForecast(network, trajectories[0].metadata, settings.get("channels", ()), times)
    specification = specification_of(network)
    card = ModelCard.of(
        stepper,
        type(network).__name__,
        "surrogate",
        class_path=specification["class_path"],
        config={"network": specification, "channels": list(settings.get("channels", ()))},
        parameters_without_gradient=tuple(training.pop("parameters_without_gradient", ())),
        checkpoint=checkpoint_record(checkpoint),
        checkpoint_path=checkpoint,
        training=training or None,
    )
    return stepper, card

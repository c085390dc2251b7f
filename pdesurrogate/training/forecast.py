"""One Lightning module for every field-to-field network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import lightning
import torch
from torch import Tensor, nn

from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.distributions import Distribution, Gaussian
from pdesurrogate.models.heads import ProbabilisticNetwork
from pdesurrogate.models.specification import specification_of, with_defaults
from pdesurrogate.steppers.base import ProbabilisticStepper, Stepper
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import (
    CHECKPOINT_KEY,
    Normalization,
    ProbabilisticSurrogate,
    Surrogate,
    Target,
    load_checkpoint,
    require_fields,
    surrogate_of,
)
from pdesurrogate.steppers.wrappers import wrapped, wrappers_of
from pdesurrogate.training.augmentation import Augmentation
from pdesurrogate.training.losses import Loss, RelativeL2PerChannel, require_nonzero_channels
from pdesurrogate.training.own_rollouts import OwnRollouts
from pdesurrogate.training.probabilistic_losses import ProbabilisticLoss, Regularization
from pdesurrogate.training.record import described, differences, epochs_begun, never_stepped, optimizer_steps
from pdesurrogate.training.schedules import Schedule, WarmupCosine

Unroll = Literal["backpropagate", "push_forward"]


class ForecastModule(lightning.LightningModule):
    """Trains a network to step fields forward; validates and tests it by rolling it out.

    Args:
        network: ``(batch, history_frames, channels, *space)`` to ``(batch, frames, channels, *space)``, decorated with
            ``@recorded``.
        metadata: `Metadata` of the data (any type in the signature, as jsonargparse cannot link a dataclass).
        history_frames: input frames.
        loss: between predicted and true frames, in units of each channel's deviation; where the network predicts a
            distribution (`models.heads`), one of `training.probabilistic_losses`.
        learning_rate: highest of the schedule.
        weight_decay: of AdamW.
        schedule: of the learning rate over all steps of the fit.
        target: see `Surrogate`.
        normalization: see `Surrogate`; with ``"profile"`` the deviations in units of which losses and noise are given
            are those of the fluctuation.
        unroll: when the data give more target frames than the network at once, it is applied to its own output;
            ``"backpropagate"`` differentiates through the whole chain, ``"push_forward"`` through the last application
            only and counts that one alone (Brandstetter et al., arXiv:2202.03376, section 3.1).
        input_noise: deviation of Gaussian noise on the history while training, in units of each channel's deviation.
        augmentation: symmetries of the equation, applied to training batches.
        wrappers: steppers that are put around the surrogate, the innermost first, such as those of
            `steppers.projection`: what is trained, validated and rolled out is the surrogate with them. A checkpoint
            says which they were, and an evaluation puts them back.
        start_from: a checkpoint of the same surrogate, trained in another way, whose weights and statistics training
            starts from; its settings and its training time travel on in the new checkpoint.
        own_rollouts: also trains on the surrogate's own rollouts, by their statistics.
        regularization: added to the loss, such as the `HeadDiversity` of a network with several heads.

    Raises:
        ValueError: for numbers out of range, and for a loss that is not one of what the stepper predicts.

    Statistics of the training split are fitted when a fit starts and travel in the checkpoint. Logged:
    ``train/loss``, and with own rollouts ``train/statistics`` and ``train/rollout_age``; ``val/relative_l2`` and
    ``test/relative_l2``, mean over the rollout, and ``.../relative_l2_last`` of its last frame.
    """

    def __init__(
        self,
        network: nn.Module,
        metadata: Any,
        history_frames: int = 1,
        loss: Loss | ProbabilisticLoss | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule | None = None,
        target: Target = "state",
        normalization: Normalization = "channel",
        unroll: Unroll = "backpropagate",
        input_noise: float = 0.0,
        augmentation: Augmentation | None = None,
        wrappers: list[Callable[[Stepper], nn.Module]] | None = None,
        start_from: str | None = None,
        own_rollouts: OwnRollouts | None = None,
        regularization: Regularization | None = None,
    ) -> None:
        super().__init__()
        if not learning_rate > 0 or weight_decay < 0 or input_noise < 0:
            raise ValueError(
                "Expected learning_rate > 0, weight_decay >= 0 and input_noise >= 0 but got "
                f"{learning_rate}, {weight_decay} and {input_noise}."
            )
        specification_of(network)  # refuse now what could not be saved after training
        self.surrogate = surrogate_of(network, metadata, history_frames, target, normalization)
        self.loss: Loss | ProbabilisticLoss = RelativeL2PerChannel() if loss is None else loss
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule: Schedule = WarmupCosine() if schedule is None else schedule
        self.unroll: Unroll = unroll
        self.input_noise = input_noise
        self.augmentation = augmentation
        stepper = wrapped(self.surrogate, wrappers or ())
        _require_plain(stepper, self.surrogate)
        # In a tuple no wrapper is a module of this one: their parameters are the surrogate's, under its own names.
        self._stepper = (stepper,)
        self.start_from = start_from
        self.own_rollouts = own_rollouts
        self.regularization = regularization
        self._require_fitting_loss()
        self._started_with: dict[str, Any] = {}
        self.training_seconds = 0.0
        self._trained = False
        self._fit_started: float | None = None

    def _require_fitting_loss(self) -> None:
        """A distribution needs a loss of one, or what it says beside its mean would never be trained."""
        if not isinstance(self.loss, ProbabilisticLoss):
            if isinstance(self.surrogate.network, ProbabilisticNetwork):
                raise ValueError(
                    f"Expected a loss of training.probabilistic_losses for a {type(self.surrogate.network).__name__}, "
                    f"which predicts a distribution, but got {type(self.loss).__name__}."
                )
            return
        if not isinstance(self.stepper, ProbabilisticStepper):
            raise ValueError(
                f"Expected a stepper that predicts a distribution for {type(self.loss).__name__} but a "
                f"{type(self.stepper).__name__} does not; put one of models.heads around the network, and no wrapper "
                "that gives frames alone."
            )
        if self.unroll != "backpropagate":
            raise ValueError(f"Expected unroll='backpropagate' with a probabilistic loss but got {self.unroll!r}.")

    @property
    def stepper(self) -> Stepper:
        """The surrogate with its wrappers."""
        return self._stepper[0]

    @property
    def _data(self) -> ForecastData:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ForecastData):
            raise ValueError(f"Expected a ForecastData as the trainer's datamodule but got {type(data).__name__}.")
        return data

    def configure_callbacks(self) -> list[lightning.Callback]:
        """None; but a mean profile gets its points here, before a callback that averages weights copies the module."""
        # Profiles of a trained surrogate stay: another grid is refused when it is stepped.
        if self.surrogate.profiled and not self._trained:
            self.surrogate.fit_profile_to(self._data.space)
        return []

    def setup(self, stage: str) -> None:
        """Fit the normalizer; a checkpoint that is restored afterwards brings its own statistics."""
        self.surrogate.metadata.require_same_fields(self._data.metadata, what="the data")
        if stage == "fit":
            self._trained = True
            if self.augmentation is not None:
                self.augmentation.check(self.surrogate.metadata)
            profiled = self.surrogate.normalization == "profile"
            statistics = self._data.profile_statistics if profiled else self._data.statistics
            largest_means = statistics.mean.reshape(len(statistics.std), -1).abs().amax(1)
            require_nonzero_channels(self.surrogate.metadata.channel_names, largest_means, statistics.std)
            self.surrogate.normalizer.set_statistics(statistics.mean, statistics.std)
            self.surrogate.increment_rms.copy_(statistics.increment_rms)
            if self.surrogate.target == "convected_increment":
                self.surrogate.convection.copy_(self._data.convection.displacement)
                self.surrogate.increment_rms.copy_(self._data.convection.increment_rms)
            if self.start_from is not None:
                self._start_from(self.start_from)

    def _start_from(self, path: str) -> None:
        self._require_same(load_checkpoint(path)[CHECKPOINT_KEY])
        self.surrogate.load_state_dict(Surrogate.from_checkpoint(path).state_dict())
        self._started_with = load_checkpoint(path).get("training") or {}
        self.training_seconds = float(self._started_with.get("wall_time_s", 0.0))

    def forward(self, batch: Batch) -> Tensor:
        """As many frames as the batch has target frames, physical units, by repeated application."""
        run = rollout(self.stepper, batch.history, batch.context, batch.target.shape[1])
        return torch.cat(list(run), dim=1)

    def on_validation_start(self) -> None:
        """Refuse weights that were never trained: their figures would look like a model's."""
        self._require_trained()

    def on_test_start(self) -> None:
        """As `on_validation_start`."""
        self._require_trained()

    def on_predict_start(self) -> None:
        """As `on_validation_start`."""
        self._require_trained()

    def _require_trained(self) -> None:
        if not self._trained:
            raise ValueError("Expected trained weights but there are none; give a checkpoint with --ckpt_path.")

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch."""
        if self.augmentation is not None:
            batch = self.augmentation.transform(batch)
        history = batch.history
        if self.input_noise:
            history = history + self.input_noise * self._deviation * torch.randn_like(history)
        noisy = batch._replace(history=history)
        loss = self._score(self.loss, noisy) if isinstance(self.loss, ProbabilisticLoss) else self._loss(noisy)
        if self.regularization is not None:
            loss = loss + self.regularization.penalty(self.surrogate.network, self.current_epoch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(history))
        return loss if self.own_rollouts is None else loss + self._loss_of_own_rollouts(self.own_rollouts, batch)

    def _loss_of_own_rollouts(self, own: OwnRollouts, batch: Batch) -> Tensor:
        def forecast(history: Tensor, context: Context, frames: int) -> Tensor:
            return self._chain(history, Batch(history, history[:, :0], context), frames)

        loss = own.loss(forecast, batch, self._deviation, self.surrogate.metadata.grid)
        self.log_dict({"train/statistics": loss, "train/rollout_age": own.mean_age}, batch_size=len(batch.history))
        return loss

    def _unrolled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predicted frames and their targets, with the gradient path that `unroll` asks for."""
        if self.unroll == "backpropagate":
            return self._chain(batch.history, batch, batch.target.shape[1]), batch.target
        frames = batch.target.shape[1]
        with torch.no_grad():
            pushed = [self.stepper.step(batch.history, batch.context)]
            # What lies before the last block is pushed forward; the first block tells how long blocks are.
            length = pushed[0].shape[1]
            ahead = (frames - 1) // length * length
            if ahead > length:
                history = self._latest(batch.history, pushed[0])
                pushed.append(self._chain(history, batch, ahead - length))
        history = batch.history if ahead == 0 else self._latest(batch.history, *pushed)
        return self._chain(history, batch, frames - ahead), batch.target[:, ahead:]

    def _chain(self, history: Tensor, batch: Batch, frames: int) -> Tensor:
        blocks: list[Tensor] = []
        done = 0
        while done < frames:
            block = self.stepper.step(history, batch.context)[:, : frames - done]
            blocks.append(block)
            done += block.shape[1]
            history = self._latest(history, block)
        return torch.cat(blocks, dim=1)

    @staticmethod
    def _latest(history: Tensor, *blocks: Tensor) -> Tensor:
        """The newest frames, as many as ``history`` has."""
        return torch.cat([history, *blocks], dim=1)[:, -history.shape[1] :]

    def _loss(self, batch: Batch) -> Tensor:
        assert not isinstance(self.loss, ProbabilisticLoss)
        prediction, target = self._unrolled(batch)
        grid = self.surrogate.metadata.grid
        return self.loss.distance(prediction / self._deviation, target / self._deviation, batch.context, grid)

    def _score(self, loss: ProbabilisticLoss, batch: Batch) -> Tensor:
        """The mean over target frames of the score of each block, predicted from the means before it."""
        history, frames, done = batch.history, batch.target.shape[1], 0
        scores: list[Tensor] = []
        while done < frames:
            block = self._distribution(history, batch.context)
            target = batch.target[:, done : done + block.mean.shape[1]]
            forecast = block.first(target.shape[1]).rescaled(1 / self._deviation)
            score = loss.score(forecast, target / self._deviation, batch.context, self.surrogate.metadata.grid)
            scores.append(score * target.shape[1] / frames)
            done += target.shape[1]
            history = self._latest(history, block.mean)
        return torch.stack(scores).sum()

    def _distribution(self, history: Tensor, context: Context) -> Distribution:
        if isinstance(self.stepper, ProbabilisticSurrogate):
            return self.stepper.distribution(history, context)
        assert isinstance(self.stepper, ProbabilisticStepper)
        return Gaussian(*self.stepper.predict(history, context))

    @property
    def _deviation(self) -> Tensor:
        """Of each channel, or of its fluctuation about the mean profile; shaped to divide fields."""
        return self.surrogate.normalizer.std.reshape(-1, *(1,) * self.surrogate.metadata.grid.dimension)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Rollout error."""
        self._log_rollout("val", batch)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Rollout error."""
        self._log_rollout("test", batch)

    def _log_rollout(self, stage: str, batch: Batch) -> None:
        prediction = self(batch)
        grid = self.surrogate.metadata.grid
        relative = RelativeL2PerChannel()
        whole = relative.distance(prediction, batch.target, batch.context, grid)
        last = relative.distance(prediction[:, -1:], batch.target[:, -1:], batch.context, grid)
        size = len(batch.history)
        self.log(f"{stage}/relative_l2", whole, prog_bar=True, batch_size=size, sync_dist=True)
        self.log(f"{stage}/relative_l2_last", last, batch_size=size, sync_dist=True)

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Predicted frames ``(batch, time, channel, *space)``, physical units."""
        prediction: Tensor = self(batch)
        return prediction

    def configure_optimizers(self) -> Any:
        """AdamW, fused where all parameters are real, and the schedule."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        # Complex parameters (neuraloperator's) are refused by the fused kernel.
        fused = not any(p.is_complex() for p in parameters)
        optimizer = torch.optim.AdamW(
            parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=fused or None
        )
        scheduler = self.schedule.build(optimizer, optimizer_steps(self.trainer, len(self._data.train_dataloader())))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Start the clock that a report's training time comes from."""
        self._fit_started = time.perf_counter()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the surrogate without a pickle, and how it was trained."""
        seconds = self.training_seconds
        if self._fit_started is not None:
            seconds += time.perf_counter() - self._fit_started
        checkpoint[CHECKPOINT_KEY] = self.surrogate.specification()
        if self.own_rollouts is not None:
            checkpoint["own_rollouts"] = self.own_rollouts.state_dict()
        checkpoint["training"] = {
            "seed": self._data.seed,
            "settings": self.settings,
            "steps": int(self.trainer.global_step),
            "epochs": epochs_begun(self.trainer),
            "wall_time_s": seconds,
            "device": str(self.device),
            "parameters_without_gradient": never_stepped(self.trainer, self.surrogate),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """How the network is trained, in plain values: what must agree for two runs to differ in the seed alone."""
        data, trainer = self._data, self.trainer
        wrappers = wrappers_of(self.stepper)
        return {
            "loss": described(self.loss),
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "schedule": described(self.schedule),
            "unroll": self.unroll,
            "input_noise": self.input_noise,
            "augmentation": described(self.augmentation),
            "target_frames": data.target_frames,
            "batch_size": data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
            "stride": data.stride,
            "max_epochs": trainer.max_epochs,
            "max_steps": trainer.max_steps,
            "precision": str(trainer.precision),
            **({"wrappers": wrappers} if wrappers else {}),
            **({"regularization": described(self.regularization)} if self.regularization else {}),
            **({"own_rollouts": described(self.own_rollouts)} if self.own_rollouts else {}),
            **({"start_from": self._started_with.get("settings")} if self.start_from else {}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another network or data set instead of silently changing either.

        Raises:
            ValueError: listing what differs between configuration and checkpoint.
        """
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(f"Expected a checkpoint of pdesurrogate but it has no {CHECKPOINT_KEY!r} entry.")
        self._require_same(checkpoint[CHECKPOINT_KEY])
        if self.own_rollouts is not None:
            self.own_rollouts.load_state_dict(checkpoint.get("own_rollouts", {}))
        self._trained = True
        self.training_seconds = float((checkpoint.get("training") or {}).get("wall_time_s", 0.0))

    def _require_same(self, specification: dict[str, Any]) -> None:
        require_fields(specification, "the checkpoint")
        # What was saved before an argument had come is of its default, network and metadata alike.
        network = with_defaults(specification["network"])
        metadata = Metadata.from_dict(specification["metadata"]).to_dict()
        theirs = {**specification, "network": network, "metadata": metadata}
        # The name of a data set and where it came from may differ; its fields may not.
        found = differences(self.surrogate.specification(), theirs, ("metadata.attributes", "metadata.name"))
        if found:
            raise ValueError(
                f"Expected a checkpoint of the configured network and data set, but they differ in {'; '.join(found)}. "
                "Use the configuration that the checkpoint was trained with."
            )


def _require_plain(stepper: Stepper, surrogate: Surrogate) -> None:
    """Refuse wrappers that a checkpoint could not hold: it has the surrogate's weights and the wrappers' arguments.

    Raises:
        ValueError: for arguments that are no plain values, and for parameters of a wrapper's own.
    """
    wrappers_of(stepper)
    modules = stepper.parameters() if isinstance(stepper, nn.Module) else ()
    if set(modules) - set(surrogate.parameters()):
        raise ValueError("Expected wrappers without parameters of their own; what is trained belongs into the network.")

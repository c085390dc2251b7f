"""Training of models that are asked for a function at any points, having seen it at some."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Protocol

import lightning
import numpy as np
import torch
from torch import Tensor

from pdesurrogate.data.point_data import PointData
from pdesurrogate.fields.point_set import PointSet
from pdesurrogate.layers.point_attention import DropoutMasks
from pdesurrogate.models.neural_process import AttentiveNeuralProcess
from pdesurrogate.models.specification import build, specification_of, with_defaults
from pdesurrogate.steppers.surrogate import CHECKPOINT_KEY, load_checkpoint, load_weights, write_checkpoint
from pdesurrogate.training.record import described, differences, epochs_begun, never_stepped, optimizer_steps
from pdesurrogate.training.schedules import Constant, Schedule

_PREFIX = "network."

# Of the noise in validation, the same in every epoch and for every run.
_VALIDATION_SEED = 20_230_703

# Below this a power with an exponent under 2 has no second derivative that could be trusted.
_EMPTY = 1e-6


class Penalty(Protocol):
    """What is added to the loss of a batch."""

    def penalty(self, mean: Tensor, points: Tensor, parameters: Tensor) -> Tensor:
        """Scalar, from the ``mean (function, target, field)`` predicted at ``points``, by which it has derivatives."""
        ...


class Flux(Protocol):
    """``F`` of the conservation law ``u_t + F_x = 0``."""

    def flux(self, u: Tensor, u_x: Tensor, parameter: Tensor) -> Tensor:
        """Elementwise; ``parameter (function, 1)`` is the equation's."""
        ...


class DiffusionFlux:
    """``F = -k u_x``; the parameter is the diffusivity ``k``."""

    def flux(self, u: Tensor, u_x: Tensor, parameter: Tensor) -> Tensor:
        """Elementwise."""
        return -parameter * u_x


class PorousMediumFlux:
    """``F = -max(u, 0)^m u_x``; the parameter is the degree ``m``."""

    def flux(self, u: Tensor, u_x: Tensor, parameter: Tensor) -> Tensor:
        """Elementwise."""
        # The untaken branch must have finite derivatives too.
        return -torch.where(u > _EMPTY, u.clamp_min(_EMPTY) ** parameter, 0.0) * u_x


class StefanFlux:
    """``F = -k u_x`` with ``k = 1`` where ``u`` reaches the parameter, the threshold, and 0 elsewhere.

    A step has no derivative: what a change of ``u`` does to ``k`` is lost, so that the front itself is not penalized.
    """

    def flux(self, u: Tensor, u_x: Tensor, parameter: Tensor) -> Tensor:
        """Elementwise."""
        return -(u >= parameter).to(u.dtype) * u_x


class AdvectionFlux:
    """``F = a u``; the parameter is the speed ``a``."""

    def flux(self, u: Tensor, u_x: Tensor, parameter: Tensor) -> Tensor:
        """Elementwise."""
        return parameter * u


class BurgersFlux:
    """``F = u^2 / 2``, whatever the parameter is."""

    def flux(self, u: Tensor, u_x: Tensor, parameter: Tensor) -> Tensor:
        """Elementwise."""
        return u.square() / 2


class EquationResidual:
    """``weight`` times the mean of ``(u_t + F_x)^2`` over functions and targets, by differentiation of the mean.

    SoftC of Hansen et al., arXiv:2302.11002, who have ``weight`` 1. Mind what stands beside it: the likelihood is a sum
    over all functions and targets of a batch, 25,000 values in their training, and this is a mean, so that with a
    weight of 1 it is next to nothing; they try 0.01 to a million. For the Stefan problem see `StefanFlux`, too: the
    step of ``k`` has no derivative, and what happens at the front is not penalized.

    Args:
        flux: of the equation that the functions solve.
        weight: of the mean square.

    Raises:
        ValueError: for a negative weight; in use, for others than one field at points ``(t, x)`` with one parameter.
    """

    def __init__(self, flux: Flux, weight: float = 1.0) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"Expected a finite weight of at least 0 but got {weight}.")
        self.flux = flux
        self.weight = weight

    def penalty(self, mean: Tensor, points: Tensor, parameters: Tensor) -> Tensor:
        """See `Penalty`."""
        return self.weight * self.residual(mean, points, parameters).square().mean()

    def residual(self, mean: Tensor, points: Tensor, parameters: Tensor) -> Tensor:
        """``u_t + F_x`` at each target, ``(function, target)``.

        Args:
            mean: ``(function, target, 1)``, that of each target a function of this target alone.
            points: ``(function, target, 2)``, columns t and x, with a gradient.
            parameters: ``(function, 1)``.
        """
        if (mean.shape[-1], points.shape[-1], parameters.shape[-1]) != (1, 2, 1):
            raise ValueError(
                "Expected one field at points (t, x) and one parameter for the residual of the equation but got "
                f"{mean.shape[-1]}, {points.shape[-1]} and {parameters.shape[-1]}."
            )
        u = mean.squeeze(-1)
        u_t, u_x = _gradient(u, points).unbind(-1)
        return u_t + _gradient(self.flux.flux(u, u_x, parameters), points)[..., 1]


def _gradient(values: Tensor, points: Tensor) -> Tensor:
    """Of each value by its own point: those of a sum, since no other point matters to it."""
    (gradient,) = torch.autograd.grad(values.sum(), points, create_graph=True, allow_unused=True)
    return torch.zeros_like(points) if gradient is None else gradient


def negative_log_likelihood(mean: Tensor, variance: Tensor, values: Tensor) -> Tensor:
    """Of values under independent normal distributions, of the same shape.

    Example:
        >>> float(negative_log_likelihood(torch.zeros(()), torch.ones(()), torch.zeros(())))
        0.9189385175704956
    """
    return 0.5 * ((values - mean).square() / variance + torch.log(2 * math.pi * variance))


class RegressionModule(lightning.LightningModule):
    """Trains an attentive neural process on functions known at scattered points.

    The loss of a batch is the sum over its functions of the negative log likelihood at their targets, summed over
    targets and fields, and of ``KL(q(z | targets) || q(z | contexts))``, with ``z`` drawn from ``q(z | targets)``: the
    evidence bound of Kim et al., arXiv:1901.05761, as Hansen et al., arXiv:2302.11002, train it. Dropout is on in
    training and off elsewhere. Because it is a sum, its gradient grows with the batch, which Adam does not mind but a
    clip of the gradient's norm does, as does a penalty that is a mean (`EquationResidual`).

    Logged, each for one function: ``train/loss``, and ``val/loss`` with noise that is the same every time. What the
    model says of targets that it has not seen, with ``z`` at the mean of ``q(z | contexts)``: ``val/nll``, mean
    negative log likelihood of a value, and ``val/mse``, mean squared error; ``test/...`` likewise. The penalty counts
    in training alone and is logged as ``train/penalty``.

    Args:
        network: what is trained.
        learning_rate: of Adam, without decay of weights.
        schedule: of the learning rate over all steps of the fit; constant if not given.
        penalty: is added to the loss of a batch.

    Raises:
        ValueError: for a learning rate that is not positive.
    """

    def __init__(
        self,
        network: AttentiveNeuralProcess,
        learning_rate: float = 1e-4,
        schedule: Schedule | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        super().__init__()
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"Expected a finite learning_rate > 0 but got {learning_rate}.")
        specification_of(network)  # refuse now what could not be saved after training
        self.network = network
        self.learning_rate = learning_rate
        self.schedule: Schedule = Constant() if schedule is None else schedule
        self.penalty = penalty
        self.training_seconds = 0.0
        self._trained = False
        self._fit_started: float | None = None

    @property
    def _data(self) -> PointData:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, PointData):
            raise ValueError(f"Expected a PointData as the trainer's datamodule but got {type(data).__name__}.")
        return data

    def setup(self, stage: str) -> None:
        """Refuse data of other points or fields.

        Raises:
            ValueError: naming both.
        """
        network, data = self.network, self._data
        if (network.dimension, network.fields) != (data.dimension, data.fields):
            raise ValueError(
                f"Expected data of {network.dimension} coordinates and {network.fields} field(s), as the network has, "
                f"but got {data.dimension} and {data.fields}."
            )
        if stage == "fit":
            self._trained = True

    def training_step(self, batch: PointSet, batch_index: int) -> Tensor:
        """Loss of one batch, a sum over functions."""
        # Noise and masks do not depend on when a run was resumed.
        generator = self._generator(self._data.seed, self.trainer.fit_loop.total_batch_idx, self.global_rank)
        targets = batch.target_points
        if self.penalty is not None:
            targets = targets.detach().requires_grad_()
        loss, mean = self._loss(batch._replace(target_points=targets), generator, DropoutMasks(generator))
        functions = len(targets)
        self.log("train/loss", loss.detach() / functions, prog_bar=True, batch_size=functions)
        if self.penalty is None:
            return loss
        added = self.penalty.penalty(mean, targets, batch.parameters)
        self.log("train/penalty", added.detach(), batch_size=functions)
        return loss + added

    def _loss(
        self, batch: PointSet, generator: torch.Generator, masks: DropoutMasks | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed over functions; and the predicted mean."""
        noise = torch.randn(
            (len(batch.target_points), self.network.width), generator=generator, device=batch.target_points.device
        )
        mean, variance, divergence = self.network(*batch[:4], noise, masks)
        return negative_log_likelihood(mean, variance, batch.target_values).sum() + divergence.sum(), mean

    def validation_step(self, batch: PointSet, batch_index: int) -> None:
        """Loss, and errors at unseen targets."""
        self._log_errors("val", batch, batch_index)

    def test_step(self, batch: PointSet, batch_index: int) -> None:
        """Loss, and errors at unseen targets."""
        self._log_errors("test", batch, batch_index)

    def _log_errors(self, stage: str, batch: PointSet, batch_index: int) -> None:
        network, contexts = self.network, batch[:2]
        loss, _ = self._loss(batch, self._generator(_VALIDATION_SEED, batch_index, self.global_rank))
        seen = network.attend(network.encode(*contexts), batch.target_points)
        mean, variance = network.decode(seen, network.latent(*contexts).mean)
        errors = {
            "loss": loss / len(mean),
            "nll": negative_log_likelihood(mean, variance, batch.target_values).mean(),
            "mse": (mean - batch.target_values).square().mean(),
        }
        for name, value in errors.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "nll", batch_size=len(mean), sync_dist=True)

    def _generator(self, *numbers: int) -> torch.Generator:
        state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(state) % 2**63)

    def on_validation_start(self) -> None:
        """Refuse weights that were never trained: their figures would look like a model's."""
        self._require_trained()

    def on_test_start(self) -> None:
        """As `on_validation_start`."""
        self._require_trained()

    def _require_trained(self) -> None:
        if not self._trained:
            raise ValueError("Expected trained weights but there are none; give a checkpoint with --ckpt_path.")

    def configure_optimizers(self) -> Any:
        """Adam, fused, and the schedule."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self.learning_rate, fused=True)
        scheduler = self.schedule.build(optimizer, optimizer_steps(self.trainer, len(self._data.train_dataloader())))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Start the clock that a report's training time comes from."""
        self._fit_started = time.perf_counter()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the network without a pickle, and how it was trained."""
        seconds = self.training_seconds
        if self._fit_started is not None:
            seconds += time.perf_counter() - self._fit_started
        checkpoint[CHECKPOINT_KEY] = {"network": specification_of(self.network)}
        checkpoint["training"] = {
            "seed": self._data.seed,
            "settings": self.settings,
            "steps": int(self.trainer.global_step),
            "epochs": epochs_begun(self.trainer),
            "wall_time_s": seconds,
            "device": str(self.device),
            "parameters_without_gradient": never_stepped(self.trainer, self.network),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """How the network is trained, in plain values: what must agree for two runs to differ in the seed alone."""
        trainer = self.trainer
        return {
            "learning_rate": self.learning_rate,
            "schedule": described(self.schedule),
            "penalty": described(self.penalty),
            "gradient_clip": trainer.gradient_clip_val,
            "batch_size": self._data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
            "max_epochs": trainer.max_epochs,
            "max_steps": trainer.max_steps,
            "precision": str(trainer.precision),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another network instead of silently changing it.

        Raises:
            ValueError: listing what differs between configuration and checkpoint.
        """
        theirs = with_defaults(_specification(checkpoint, "the checkpoint"))
        found = differences(specification_of(self.network), theirs)
        if found:
            raise ValueError(
                f"Expected a checkpoint of the configured network, but they differ in {'; '.join(found)}. "
                "Use the configuration that the checkpoint was trained with."
            )
        self._trained = True
        self.training_seconds = float((checkpoint.get("training") or {}).get("wall_time_s", 0.0))


def load_neural_process(path: str | Path, device: str = "cpu") -> AttentiveNeuralProcess:
    """The network of a checkpoint that training or `save_neural_process` wrote; nothing is unpickled.

    Raises:
        ValueError: if the file is missing, damaged, not ours, of another kind of model, or holds anything but tensors
            and plain values.
    """
    stored = load_checkpoint(path)
    network = build(_specification(stored, str(path)))
    if not isinstance(network, AttentiveNeuralProcess):
        raise ValueError(f"Expected an AttentiveNeuralProcess in {path} but got {type(network).__name__}.")
    load_weights(network, stored, _PREFIX, path)
    return network.eval().to(device)


def save_neural_process(
    network: AttentiveNeuralProcess, path: str | Path, training: dict[str, Any] | None = None
) -> Path:
    """Write the weights and the specification alone, without optimizer states; the verbs take it as a checkpoint.

    ``training`` is the record of that name in a training checkpoint, kept for reports.
    """
    return write_checkpoint(path, {"network": specification_of(network)}, network, _PREFIX, training)


def _specification(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    """Of the network in a checkpoint of points."""
    stored = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(stored, dict) or set(stored) != {"network"}:
        raise ValueError(
            f"Expected a model of points in {name} but it holds "
            f"{'a model of fields; load it as a Surrogate' if stored else 'none of ours'}."
        )
    return dict(stored["network"])

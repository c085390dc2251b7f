"""A trained network as a stepper: physical units in, physical units out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.convection import convected
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.normalizer import Normalizer
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.distributions import Distribution, Moments
from pdesurrogate.models.heads import ProbabilisticNetwork
from pdesurrogate.models.specification import build, context_inputs_of, specification_of

Target = Literal["state", "increment", "convected_increment"]
Normalization = Literal["channel", "profile"]

# The entry of a checkpoint file that makes it ours; Lightning's own entries stand beside it.
CHECKPOINT_KEY = "pdesurrogate"
_PREFIX = "surrogate."


class Question(NamedTuple):
    """A step as it is put to the network.

    Attributes:
        frames: ``(batch, history_frames, channel, *space)``, normalized.
        about: what the network takes of the context, as keywords.
        latest: the latest frame ``(batch, 1, channel, *space)``, physical units.
        carried: that frame, carried along to the next one's time where the target is a convected increment.
    """

    frames: Tensor
    about: dict[str, Tensor | tuple[Tensor, ...] | None]
    latest: Tensor
    carried: Tensor


class Surrogate(nn.Module):
    """Normalizer, network and what its output means, behind the `Stepper` interface.

    Args:
        network: ``(batch, history_frames, channels, *space)`` to ``(batch, frames, channels, *space)``, both
            normalized; its class is decorated with ``@recorded``. Where it has the attribute ``context_inputs``, it is
            given these parts of the context as keywords: ``"parameters"`` in physical units, ``"volumes"`` of the fluid
            in each cell, ``"coordinates"`` of each axis.
        metadata: of the data set that it is trained on.
        history_frames: input frames.
        target: the network gives the next normalized ``"state"``, or the ``"increment"`` from the latest frame in
            units of the root mean square of one-frame increments. Where a mean flow carries turbulence over several
            cells a frame, most of an increment is that, and ``"convected_increment"`` leaves it out: each given frame
            is first carried along the first periodic axis to the time of the predicted one, by the displacement at its
            height (`RunningConvection`, of the training data), and the increment is the one from the carried frame.
        normalization: what a normalized state is: a ``"channel"`` less its mean, over its deviation; or its fluctuation
            about the mean ``"profile"``, over the deviation of that. The profile is the mean over time and all periodic
            axes, a function of the others. Where walls make most of a velocity its mean profile, the network sees, and
            with target ``"state"`` gives, the turbulence alone: ``u = profile(y) + deviation * network``.

    Raises:
        ValueError: for other words; if the network takes parameters and the data have none; for a profile or a
            convection of data without a periodic axis.

    Example:
        >>> from pdesurrogate.fields import Axis, Channel, Grid
        >>> from pdesurrogate.models.fno import FNO
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
        >>> metadata = Metadata("example", grid, (Channel("vorticity"),), frame_interval=0.1)
        >>> surrogate = Surrogate(FNO(channels=1, modes=(4, 4), width=4, layers=1), metadata)
        >>> context = Context(tuple(c.expand(2, -1) for c in grid.uniform_coordinates((16, 16))))
        >>> surrogate.step(torch.zeros(2, 1, 1, 16, 16), context).shape
        torch.Size([2, 1, 1, 16, 16])
    """

    increment_rms: Tensor
    convection: Tensor

    def __init__(
        self,
        network: nn.Module,
        metadata: Metadata,
        history_frames: int = 1,
        target: Target = "state",
        normalization: Normalization = "channel",
    ) -> None:
        super().__init__()
        if target not in get_args(Target):
            raise ValueError(f"Expected target among {get_args(Target)} but got {target!r}.")
        if normalization not in ("channel", "profile"):
            raise ValueError(f"Expected normalization 'channel' or 'profile' but got {normalization!r}.")
        wanted = "normalization='profile'" if normalization == "profile" else f"target={target!r}"
        self.profiled = normalization == "profile" or target == "convected_increment"
        if self.profiled and all(axis.period is None for axis in metadata.grid.axes):
            raise ValueError(
                f"Expected data with a mean flow, the same along a periodic axis, for {wanted} but none of the axes "
                f"{metadata.grid.axis_names} of {metadata.name!r} is periodic; leave it out."
            )
        self.network = network
        self.metadata = metadata
        self.history_frames = history_frames
        self.target = target
        self.normalization = normalization
        self._context_inputs = context_inputs_of(network)
        if "parameters" in self._context_inputs and not metadata.parameters:
            raise ValueError(
                f"Expected data with parameters for a {type(network).__name__} that takes them but those of "
                f"{metadata.name!r} have none; build it without."
            )
        channels = len(metadata.channels)
        self.normalizer = Normalizer(channels)
        self.register_buffer("increment_rms", torch.ones(channels))
        self.fit_profile_to((1,) * metadata.grid.dimension)

    def fit_profile_to(self, space: Sequence[int]) -> None:
        """Give profiles, of the mean and of the convection, the points of fields ``(..., *space)``.

        To be done before their values are set or loaded. Does nothing where there is no profile, or if it has these
        points already.
        """
        if not self.profiled:
            return
        axes, channels = self.metadata.grid.axes, len(self.metadata.channels)
        profile = tuple(size if axis.period is None else 1 for size, axis in zip(space, axes, strict=True))
        if self.normalization == "profile" and profile != self.normalizer.profile:
            self.normalizer = Normalizer(channels, profile).to(self.increment_rms.device)
        if self.target == "convected_increment" and (self.profile != profile or not hasattr(self, "convection")):
            self.register_buffer("convection", torch.zeros(channels, *profile, device=self.increment_rms.device))

    @property
    def profile(self) -> tuple[int, ...]:
        """Points of the profiles along each axis, one along periodic ones; empty where there is none."""
        return tuple(self.convection.shape[1:]) if hasattr(self, "convection") else self.normalizer.profile

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The block of frames that the network gives after ``history``; physical units.

        Raises:
            ValueError: if channels, the number of frames, points of the profile, or what the network takes of the
                context do not fit.
        """
        question = self.question(history, context)
        output: Tensor = self.network(question.frames, **question.about)
        scale, origin = self.units(question, output.shape[1])
        return output * scale + origin

    def question(self, history: Tensor, context: Context) -> Question:
        """What the network is given after ``history``.

        Raises:
            ValueError: as `step`.
        """
        channels = len(self.metadata.channels)
        if history.ndim != 3 + self.metadata.grid.dimension or history.shape[2] != channels:
            raise ValueError(
                f"Expected history (batch, time, {channels}, {', '.join(self.metadata.grid.axis_names)}) with channels "
                f"{self.metadata.channel_names} but got {tuple(history.shape)}."
            )
        if history.shape[1] < self.history_frames:
            raise ValueError(f"Expected at least {self.history_frames} history frames but got {history.shape[1]}.")
        self._check_profile(history.shape[3:])
        history = history[:, history.shape[1] - self.history_frames :]
        latest = history[:, -1:]
        if self.target == "convected_increment":
            history = self._carried(history, range(self.history_frames, 0, -1))
        return Question(self.normalizer.normalize(history), self._about(context), latest, history[:, -1:])

    def units(self, question: Question, frames: int) -> tuple[Tensor, Tensor]:
        """Scale and origin of the network's output of so many frames: ``output * scale + origin`` is physical."""
        around = (1,) * self.metadata.grid.dimension
        if self.target == "state":
            mean = self.normalizer.mean
            origin = mean if mean.ndim > 1 else mean.reshape(-1, *around)
            return self.normalizer.std.reshape(-1, *around), origin
        origin = question.carried
        # The network gives increments from the latest given frame, also where it gives several frames at once.
        if self.target == "convected_increment" and frames > 1:
            # The network has seen the frame of the first one; others lie further along.
            further = question.latest.expand(-1, frames, *question.latest.shape[2:])
            origin = self._carried(further, range(1, frames + 1))
        return self.increment_rms.reshape(-1, *around), origin

    def _carried(self, frames: Tensor, times: Sequence[int]) -> Tensor:
        """Each of ``(batch, time, channel, *space)`` carried along by the mean flow for as many frame intervals."""
        axes = self.metadata.grid.axes
        streamwise, period = next((place, axis.period) for place, axis in enumerate(axes) if axis.period is not None)
        moved = [
            convected(frame, time * self.convection, streamwise, period)
            for frame, time in zip(frames.unbind(1), times, strict=True)
        ]
        return torch.stack(moved, 1)

    def _check_profile(self, space: Sequence[int]) -> None:
        names = self.metadata.grid.axis_names
        for name, points, size in zip(names, self.profile, space, strict=False):
            if points not in (1, size):
                raise ValueError(
                    f"Expected {points} points along {name}, as the mean profile has, but got {size}; use data on the "
                    "grid that the surrogate was trained on, or one that was trained without profiles."
                )

    def _about(self, context: Context) -> dict[str, Tensor | tuple[Tensor, ...] | None]:
        """What the network takes of the context."""
        given: dict[str, Tensor | tuple[Tensor, ...] | None] = {}
        if "coordinates" in self._context_inputs:
            given["coordinates"] = context.coordinates
        if "parameters" in self._context_inputs:
            given["parameters"] = context.parameters
        if "volumes" in self._context_inputs:
            volumes = space_weights(self.metadata.grid, context, cells=self.metadata.cell_centered)
            given["volumes"] = volumes[:, 0, 0]
        return given

    def specification(self) -> dict[str, Any]:
        """Everything but the weights, in plain values: what a checkpoint stores beside them."""
        specification = {
            "format": 1,
            "network": specification_of(self.network),
            "metadata": self.metadata.to_dict(),
            "history_frames": self.history_frames,
            "target": self.target,
        }
        # Without, the specification is what it was before there was a choice.
        if self.normalization == "profile":
            specification["normalization"] = self.normalization
        if self.profiled:
            specification["profile"] = list(self.profile)
        return specification

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "cpu") -> Surrogate:
        """Load a checkpoint that training or `save` wrote; in evaluation mode, in physical units, nothing unpickled.

        Raises:
            ValueError: if the file is missing, damaged, not ours, or holds anything but tensors and plain values.
        """
        stored = load_checkpoint(path)
        specification = stored[CHECKPOINT_KEY]
        require_fields(specification, str(path))
        surrogate = surrogate_of(
            build(specification["network"]),
            Metadata.from_dict(specification["metadata"]),
            history_frames=specification["history_frames"],
            target=specification["target"],
            normalization=specification.get("normalization", "channel"),
        )
        surrogate.fit_profile_to(specification.get("profile", ()))
        load_weights(surrogate, stored, _PREFIX, path)
        return surrogate.eval().to(device)

    def save(self, path: str | Path, training: dict[str, Any] | None = None) -> Path:
        """Write the weights and the specification alone, without optimizer states; the verbs take it as a checkpoint.

        ``training`` is the record of that name in a training checkpoint, kept for reports.
        """
        return write_checkpoint(path, self.specification(), self, _PREFIX, training)


class ProbabilisticSurrogate(Surrogate):
    """A surrogate whose network predicts a distribution (`models.heads`); a `ProbabilisticStepper`.

    The distribution is that of the next block, the history being known: in a rollout, which goes on with the mean, it
    does not grow by what is not known of the frames before. An ensemble of rollouts does.

    Args:
        network: as a `Surrogate` has it, and a `ProbabilisticNetwork`.
        metadata: see `Surrogate`.
        history_frames: see `Surrogate`.
        target: see `Surrogate`.
        normalization: see `Surrogate`.

    Raises:
        ValueError: as a `Surrogate`, and for a network that predicts no distribution.

    Example:
        >>> from pdesurrogate.fields import Axis, Channel, Grid
        >>> from pdesurrogate.models.heads import GaussianHead
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
        >>> metadata = Metadata("example", grid, (Channel("vorticity"),), frame_interval=0.1)
        >>> fno = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 4}}
        >>> surrogate = ProbabilisticSurrogate(GaussianHead(fno, channels=1), metadata)
        >>> context = Context(tuple(c.expand(2, -1) for c in grid.uniform_coordinates((16, 16))))
        >>> mean, variance = surrogate.predict(torch.zeros(2, 1, 1, 16, 16), context)
        >>> mean.shape, variance.shape
        (torch.Size([2, 1, 1, 16, 16]), torch.Size([2, 1, 1, 16, 16]))
    """

    def __init__(
        self,
        network: nn.Module,
        metadata: Metadata,
        history_frames: int = 1,
        target: Target = "state",
        normalization: Normalization = "channel",
    ) -> None:
        super().__init__(network, metadata, history_frames, target, normalization)
        if not isinstance(network, ProbabilisticNetwork):
            raise ValueError(
                f"Expected a network that predicts a distribution but a {type(network).__name__} does not; put one of "
                "pdesurrogate.models.heads around it."
            )

    def distribution(self, history: Tensor, context: Context) -> Distribution:
        """Of the block of frames that follows ``history``; physical units.

        Raises:
            ValueError: as `step`.
        """
        assert isinstance(self.network, ProbabilisticNetwork)
        question = self.question(history, context)
        predicted = self.network.distribution(question.frames, **question.about)
        scale, origin = self.units(question, predicted.mean.shape[1])
        return predicted.rescaled(scale, origin)

    def predict(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Mean and variance of that block, the variance in squared physical units."""
        predicted = self.distribution(history, context)
        return predicted.mean, predicted.variance

    def moments(self, history: Tensor, context: Context) -> Moments:
        """Mean and covariance of that block."""
        return self.distribution(history, context).moments()


def surrogate_of(
    network: nn.Module,
    metadata: Metadata,
    history_frames: int = 1,
    target: Target = "state",
    normalization: Normalization = "channel",
) -> Surrogate:
    """A `Surrogate`, and a `ProbabilisticSurrogate` where the network predicts a distribution."""
    kind = ProbabilisticSurrogate if isinstance(network, ProbabilisticNetwork) else Surrogate
    return kind(network, metadata, history_frames, target, normalization)


def require_fields(specification: dict[str, Any], name: str) -> None:
    """Refuse the specification of a model of points, which has no metadata.

    Raises:
        ValueError: naming what it was read from.
    """
    if "metadata" not in specification:
        raise ValueError(
            f"Expected a model of fields in {name} but it holds one of points; load it with load_neural_process."
        )


def write_checkpoint(
    path: str | Path, specification: dict[str, Any], module: nn.Module, prefix: str, training: dict[str, Any] | None
) -> Path:
    """Write the weights of a module, its specification and how it was trained; whole or not at all.

    Args:
        path: of the file; folders are made.
        specification: of whatever rebuilds the module, plain values.
        module: whose weights these are.
        prefix: of their names, as a training checkpoint has it.
        training: the record of that name in a training checkpoint.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The last entries are what Lightning looks for before it loads weights.
    stored = {
        CHECKPOINT_KEY: specification,
        "state_dict": {prefix + name: value.detach().cpu() for name, value in module.state_dict().items()},
        "training": training,
        "pytorch-lightning_version": version("lightning"),
        "epoch": 0,
        "global_step": 0,
    }
    temporary = path.with_name(path.name + ".part")
    torch.save(stored, temporary)
    os.replace(temporary, path)
    return path


def load_weights(module: nn.Module, stored: dict[str, Any], prefix: str, path: str | Path) -> None:
    """Give a module its weights from the content of a checkpoint, where they have a prefix.

    Raises:
        ValueError: if they are not those of the module; ``path`` is for the message.
    """
    own = {name.removeprefix(prefix): value for name, value in stored["state_dict"].items() if name.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"Expected the weights of its own network in {path}: {error}") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The plain content of one of our checkpoints, loaded with ``weights_only=True``.

    Raises:
        ValueError: if the file is missing, damaged, not ours, or holds a pickle.
    """
    from pickle import UnpicklingError

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"Expected a checkpoint file but {path} does not exist.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"Refused {path}: it holds Python objects, which could run code when loaded. "
            "Expected a checkpoint of tensors and plain values, as `pdesurrogate fit` writes it."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"Expected a whole checkpoint but {path} cannot be read ({error}); copy it again.") from error
    if not isinstance(stored, dict) or CHECKPOINT_KEY not in stored or "state_dict" not in stored:
        raise ValueError(f"Expected a checkpoint of pdesurrogate but {path} has no {CHECKPOINT_KEY!r} entry.")
    return stored

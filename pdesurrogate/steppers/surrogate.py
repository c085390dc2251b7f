"""A trained network as a stepper: physical units in, physical units out."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.normalizer import Normalizer
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.specification import build, context_inputs_of, specification_of

Target = Literal["state", "increment"]

# The entry of a checkpoint file that makes it ours; Lightning's own entries stand beside it.
CHECKPOINT_KEY = "pdesurrogate"
_PREFIX = "surrogate."


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
            units of the root mean square of one-frame increments.

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

    def __init__(
        self, network: nn.Module, metadata: Metadata, history_frames: int = 1, target: Target = "state"
    ) -> None:
        super().__init__()
        if target not in ("state", "increment"):
            raise ValueError(f"Expected target 'state' or 'increment' but got {target!r}.")
        self.network = network
        self.metadata = metadata
        self.history_frames = history_frames
        self.target = target
        self._context_inputs = context_inputs_of(network)
        if "parameters" in self._context_inputs and not metadata.parameters:
            raise ValueError(
                f"Expected data with parameters for a {type(network).__name__} that takes them but those of "
                f"{metadata.name!r} have none; build it without."
            )
        channels = len(metadata.channels)
        self.normalizer = Normalizer(channels)
        self.register_buffer("increment_rms", torch.ones(channels))

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The block of frames that the network gives after ``history``; physical units.

        Raises:
            ValueError: if channels, the number of frames, or what the network takes of the context do not fit.
        """
        channels = len(self.metadata.channels)
        if history.ndim != 3 + self.metadata.grid.dimension or history.shape[2] != channels:
            raise ValueError(
                f"Expected history (batch, time, {channels}, {', '.join(self.metadata.grid.axis_names)}) with channels "
                f"{self.metadata.channel_names} but got {tuple(history.shape)}."
            )
        if history.shape[1] < self.history_frames:
            raise ValueError(f"Expected at least {self.history_frames} history frames but got {history.shape[1]}.")
        history = history[:, history.shape[1] - self.history_frames :]
        output: Tensor = self.network(self.normalizer.normalize(history), **self._about(context))
        if self.target == "state":
            return self.normalizer.denormalize(output)
        scale = self.increment_rms.reshape(-1, *(1,) * self.metadata.grid.dimension)
        # The network gives increments from the latest given frame, also where it gives several frames at once.
        return history[:, -1:] + output * scale

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
        return {
            "format": 1,
            "network": specification_of(self.network),
            "metadata": self.metadata.to_dict(),
            "history_frames": self.history_frames,
            "target": self.target,
        }

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "cpu") -> Surrogate:
        """Load a checkpoint that training or `save` wrote; in evaluation mode, in physical units, nothing unpickled.

        Raises:
            ValueError: if the file is missing, damaged, not ours, or holds anything but tensors and plain values.
        """
        stored = load_checkpoint(path)
        specification = stored[CHECKPOINT_KEY]
        surrogate = cls(
            build(specification["network"]),
            Metadata.from_dict(specification["metadata"]),
            history_frames=specification["history_frames"],
            target=specification["target"],
        )
        weights = {
            name.removeprefix(_PREFIX): value
            for name, value in stored["state_dict"].items()
            if name.startswith(_PREFIX)
        }
        try:
            surrogate.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"Expected the weights of its own network in {path}: {error}") from error
        return surrogate.eval().to(device)

    def save(self, path: str | Path, training: dict[str, Any] | None = None) -> Path:
        """Write the weights and the specification alone, without optimizer states; the verbs take it as a checkpoint.

        ``training`` is the record of that name in a training checkpoint, kept for reports.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {_PREFIX + name: value.detach().cpu() for name, value in self.state_dict().items()}
        # The last entries are what Lightning looks for before it loads weights.
        stored = {
            CHECKPOINT_KEY: self.specification(),
            "state_dict": state,
            "training": training,
            "pytorch-lightning_version": version("lightning"),
            "epoch": 0,
            "global_step": 0,
        }
        temporary = path.with_name(path.name + ".part")
        torch.save(stored, temporary)
        os.replace(temporary, path)
        return path


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

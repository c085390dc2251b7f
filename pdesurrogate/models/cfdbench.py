"""What the networks of CFDBench share: how a case is told to them, what they give, and how their weights are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdesurrogate.layers.frames import check_kinds
from pdesurrogate.models.reference_weights import Translation, unchanged
from pdesurrogate.models.specification import ContextInput

# "state": the next frame. "increment": what it adds to the latest one, for a surrogate with that target.
Gives = Literal["state", "increment"]
# "reference": what the authors' code computes where we depart from it.
Compat = Literal["none", "reference"]

_KINDS = {"gives": ("state", "increment"), "compat": ("none", "reference")}


class UnitRanges(nn.Module):
    """Numbers ``(..., count)``, each brought from its range to -1 ... 1; those outside go beyond.

    Args:
        ranges: lowest and highest value of each number; ``(-1, 1)`` leaves it as it is.

    Raises:
        ValueError: for a range that is no pair or has no length.

    Example:
        >>> UnitRanges([(0.0, 10.0), (-1.0, 1.0)])(torch.tensor([[0.0, 0.5], [5.0, 2.0]])).tolist()
        [[-1.0, 0.5], [0.0, 2.0]]
    """

    centers: Tensor
    halves: Tensor

    def __init__(self, ranges: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        for ends in ranges:
            if len(ends) != 2 or not ends[0] < ends[1]:
                raise ValueError(f"Expected ranges as pairs (lowest, highest) but got {tuple(ends)}.")
        pairs = torch.tensor([tuple(ends) for ends in ranges], dtype=torch.float32).reshape(-1, 2)
        self.register_buffer("centers", (pairs[:, 0] + pairs[:, 1]) / 2, persistent=False)
        self.register_buffer("halves", (pairs[:, 1] - pairs[:, 0]) / 2, persistent=False)

    def __len__(self) -> int:
        return len(self.centers)

    def forward(self, numbers: Tensor) -> Tensor:
        """Scale ``numbers``."""
        return (numbers.to(self.centers.dtype) - self.centers) / self.halves

    def back(self, scaled: Tensor) -> Tensor:
        """The inverse."""
        return scaled * self.halves + self.centers


class CaseNetwork(nn.Module):
    """A network from one frame, or some, to the next, that is told the parameters of the case and where its fluid is.

    Solid cells keep what the latest frame has there, and so do cells that only hold values of a boundary. With
    ``compat="reference"`` they come out zero, as in the authors' code, which a rollout then goes on from. That
    is zero in the units that the network sees: the mean of the training set where fields are normalized by it.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        parameter_ranges: lowest and highest value of each parameter of the case, which are brought to -1 ... 1; a range
            ``(-1, 1)`` leaves one as it is.
        gives: the ``"state"``, as published, or the ``"increment"`` from the latest frame.
        compat: ``"reference"`` for what the authors' code computes.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(
        self,
        channels: int,
        history_frames: int,
        target_frames: int,
        parameter_ranges: Sequence[tuple[float, float]],
        gives: Gives,
        compat: Compat,
    ) -> None:
        super().__init__()
        check_kinds(_KINDS, gives=gives, compat=compat)
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.gives = gives
        self.compat = compat
        self.ranges = UnitRanges(parameter_ranges)

    @property
    def context_inputs(self) -> tuple[ContextInput, ...]:
        """What `pdesurrogate.steppers.surrogate.Surrogate` gives it beside the frames."""
        return ("parameters", "volumes") if len(self.ranges) else ("volumes",)

    def scaled_parameters(self, history: Tensor, parameters: Tensor | None) -> Tensor:
        """Parameters ``(batch, count)`` of the case, each brought to its range.

        Raises:
            ValueError: if their number is not that of the ranges.
        """
        return scaled_parameters(self.ranges, len(history), parameters).to(history.dtype)

    def fluid(self, history: Tensor, volumes: Tensor | None) -> Tensor:
        """``(batch, 1, *space)``, true where there is fluid; everywhere if no ``volumes`` are given.

        Raises:
            ValueError: if their shape is not that of the cells.
        """
        batch, space = len(history), tuple(history.shape[3:])
        if volumes is None:
            return torch.ones(batch, 1, *space, dtype=torch.bool, device=history.device)
        if tuple(volumes.shape) not in (space, (batch, *space)):
            raise ValueError(f"Expected volumes {space} or {(batch, *space)} but got {tuple(volumes.shape)}.")
        return (volumes > 0).reshape(-1, 1, *space).expand(batch, -1, *space)

    def finished(self, frames: Tensor, history: Tensor, fluid: Tensor) -> Tensor:
        """``frames (batch, time, channel, *space)`` in the fluid, and what stands for them elsewhere."""
        held = history[:, -1:] if self.gives == "state" and self.compat == "none" else frames.new_zeros(())
        return torch.where(fluid[:, None], frames, held)


def case_channels(folded: Tensor, fluid: Tensor, *more: Tensor, numbers: Tensor | None = None) -> Tensor:
    """Channels of the frames, of the fluid, any ``more``, and a constant one for each of ``numbers (batch, count)``."""
    parts = [folded, fluid.to(folded.dtype), *more]
    if numbers is not None:
        parts.append(numbers[:, :, None, None].expand(-1, -1, *folded.shape[2:]))
    return torch.cat(parts, dim=1)


def scaled_parameters(ranges: UnitRanges, batch: int, parameters: Tensor | None) -> Tensor:
    """Parameters ``(batch, count)``, each brought to its range; none are ``(batch, 0)``.

    Raises:
        ValueError: if their number is not that of the ranges.
    """
    if parameters is None:
        parameters = ranges.centers.new_empty(batch, 0)
    if tuple(parameters.shape) != (batch, len(ranges)):
        raise ValueError(
            f"Expected parameters ({batch}, {len(ranges)}), one for each of the parameter_ranges, but got "
            f"{tuple(parameters.shape)}."
        )
    numbers: Tensor = ranges(parameters)
    return numbers


# From the authors' names and shapes to ours. Their arrays have y in front of x.


def axes_exchanged(values: Tensor) -> Tensor:
    """A kernel ``(..., y, x)`` as ``(..., x, y)``."""
    return values.transpose(-1, -2)


def linear_translations(ours: str, theirs: str, layer: nn.Linear, columns: Sequence[int] = ()) -> list[Translation]:
    """Of a linear layer; ``columns`` are those of the authors' weight in our order, all in theirs if not given."""

    def reordered(weight: Tensor) -> Tensor:
        return weight[:, list(columns)] if columns else weight

    return [
        Translation(f"{ours}.weight", {f"{theirs}.weight": tuple(layer.weight.shape)}, reordered),
        Translation(f"{ours}.bias", {f"{theirs}.bias": tuple(layer.bias.shape)}, unchanged),
    ]


def module_translations(ours: str, theirs: str, module: nn.Module) -> list[Translation]:
    """Of a module whose own parameters and buffers have the authors' names; kernels lose or exchange their axes."""
    return [
        Translation(
            f"{ours}.{name}",
            {f"{theirs}.{name}": tuple(axes_exchanged(values).shape) if values.ndim == 4 else tuple(values.shape)},
            axes_exchanged if values.ndim == 4 else unchanged,
        )
        for name, values in module.state_dict().items()
    ]


def reference_values(config: Mapping[str, Any], defaults: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Keywords of the authors' constructor, with their defaults for those that are missing.

    Args:
        config: what their constructor was given.
        defaults: its own; ``None`` stands for what follows from the weights.
        kind: of network, for the message.

    Raises:
        ValueError: for an unknown keyword.
    """
    unknown = sorted(set(config) - set(defaults))
    if unknown:
        raise ValueError(f"Expected keywords of the authors' {kind} but got {', '.join(unknown)}.")
    return {**defaults, **config}


def require_alone(values: Mapping[str, Any], only: Mapping[str, Iterable[Any]], kind: str) -> None:
    """Refuse keywords whose values we have no network for.

    Raises:
        ValueError: naming the keyword.
    """
    for name, known in only.items():
        if values[name] not in known:
            raise ValueError(f"Expected {name} among {tuple(known)} for the authors' {kind} but got {values[name]!r}.")


def reference_entry(state_dict: Mapping[str, Tensor], name: str, kind: str) -> Tensor:
    """An entry that sizes are read from.

    Raises:
        ValueError: if it is missing.
    """
    if name not in state_dict:
        raise ValueError(f"Expected the entries of the authors' {kind} but {name} is missing.")
    return state_dict[name]


def identity_ranges(count: int) -> list[tuple[float, float]]:
    """Ranges that leave numbers as they are; the authors' come normalized.

    Raises:
        ValueError: for a negative number of them.
    """
    if count < 0:
        raise ValueError(f"Expected weights for at least 0 parameters of a case but their shape leaves {count}.")
    return [(-1.0, 1.0)] * count

"""Heads that make a network state how sure it is.

A head works with any network whose target frames are channels of its last layer: the network is built to give several
times as many frames, and the head reads them as parts of a distribution. In a configuration it stands around the
network::

    network:
      class_path: pdesurrogate.models.heads.GaussianHead
      init_args:
        network: {class_path: pdesurrogate.models.fno.FNO, init_args: {modes: [24, 24], width: 24}}
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.models.distributions import Distribution, Gaussian, Members, Quantiles
from pdesurrogate.models.last_layer import LastLayer, last_layer
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.models.specification import build, context_inputs_of, imported_module, recorded

# What a head gives to the network that it is around.
_GIVEN = ("channels", "history_frames", "target_frames")


@runtime_checkable
class ProbabilisticNetwork(Protocol):
    """A network that predicts a distribution; ``forward`` gives its mean."""

    def distribution(self, history: Tensor, **context: Any) -> Distribution:
        """Of the frames that follow ``history (batch, history_frames, channels, *space)``, both normalized."""
        ...


class _Head(nn.Module):
    """What all heads share: the network inside, and its frames as parts.

    Args:
        network: ``class_path`` and ``init_args`` of the network inside, without channels and frames.
        parts: of a distribution, each of as many frames as the head gives.
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
    """

    def __init__(
        self, network: dict[str, Any], parts: int, channels: int, history_frames: int, target_frames: int
    ) -> None:
        super().__init__()
        self.network = inner_network(network, parts, channels, history_frames, target_frames)
        self.parts = parts
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.context_inputs = context_inputs_of(self.network)

    def outputs(self, history: Tensor, **context: Any) -> Tensor:
        """Parts ``(part, batch, time, channel, *space)`` of the network's frames."""
        frames: Tensor = self.network(history, **context)
        return frames.unflatten(1, (self.parts, self.target_frames)).movedim(1, 0)


@recorded
class GaussianHead(_Head):
    """Mean and standard deviation of every point and channel (Nix & Weigend 1994, doi:10.1109/ICNN.1994.374138).

    The deviation is ``softplus(raw) + floor``, in units of the normalized target. Train it with
    `training.probabilistic_losses.GaussianLikelihood` or `GaussianCRPS`.

    Args:
        network: ``class_path`` and ``init_args`` of the network inside, without channels and frames.
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        floor: smallest deviation.

    Raises:
        ValueError: for a floor that is not positive, or a network that can give no further frames.

    Example:
        >>> fno = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 8}}
        >>> head = GaussianHead(fno, channels=1)
        >>> predicted = head.distribution(torch.zeros(2, 1, 1, 16, 16))
        >>> predicted.mean.shape, bool((predicted.variance > 0).all())
        (torch.Size([2, 1, 1, 16, 16]), True)
    """

    def __init__(
        self,
        network: dict[str, Any],
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        floor: float = 1e-3,
    ) -> None:
        if not 0 < floor < math.inf:
            raise ValueError(f"Expected a positive floor of the deviation but got {floor}.")
        super().__init__(network, 2, channels, history_frames, target_frames)
        self.floor = floor

    def forward(self, history: Tensor, **context: Any) -> Tensor:
        """The mean of the frames that follow ``history (batch, history_frames, channels, *space)``."""
        return self.outputs(history, **context)[0]

    def distribution(self, history: Tensor, **context: Any) -> Gaussian:
        """Of these frames."""
        mean, raw = self.outputs(history, **context)
        return Gaussian(mean, (functional.softplus(raw) + self.floor).square())


@recorded
class QuantileHead(_Head):
    """Quantiles of every point and channel, which cannot cross: the median, and positive steps away from it.

    Train it with `training.probabilistic_losses.Pinball` (Koenker & Bassett 1978, doi:10.2307/1913643).

    Args:
        network: ``class_path`` and ``init_args`` of the network inside, without channels and frames.
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        levels: of the quantiles; increasing, symmetric about 0.5, which is one of them.

    Raises:
        ValueError: for other levels, or a network that can give no further frames.

    Example:
        >>> fno = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 8}}
        >>> head = QuantileHead(fno, channels=1, levels=(0.05, 0.25, 0.5, 0.75, 0.95))
        >>> bool((head.distribution(torch.zeros(2, 1, 1, 16, 16)).values.diff(dim=0) > 0).all())
        True
    """

    def __init__(
        self,
        network: dict[str, Any],
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        levels: Sequence[float] = (0.16, 0.5, 0.84),
    ) -> None:
        found = tuple(float(level) for level in levels)
        increasing = all(low < high for low, high in zip((0.0, *found), (*found, 1.0), strict=True))
        mirrored = all(abs(low + high - 1) < 1e-9 for low, high in zip(found, reversed(found), strict=True))
        if len(found) < 3 or len(found) % 2 == 0 or not increasing or not mirrored:
            raise ValueError(
                "Expected three levels or more within (0, 1), increasing and symmetric about 0.5, which is one of "
                f"them, such as (0.16, 0.5, 0.84), but got {found}."
            )
        super().__init__(network, len(found), channels, history_frames, target_frames)
        self.levels = found

    def forward(self, history: Tensor, **context: Any) -> Tensor:
        """The median of the frames that follow ``history (batch, history_frames, channels, *space)``."""
        return self.outputs(history, **context)[len(self.levels) // 2]

    def distribution(self, history: Tensor, **context: Any) -> Quantiles:
        """Of these frames."""
        parts = self.outputs(history, **context)
        middle = len(self.levels) // 2
        median, steps = parts[middle], functional.softplus(parts)
        below = median - steps[:middle].flip(0).cumsum(0).flip(0)
        above = median + steps[middle + 1 :].cumsum(0)
        return Quantiles(torch.cat([below, median[None], above]), self.levels)


@recorded
class DiverseHeads(_Head):
    """Several linear heads without bias on one trunk: DiverseNO (Mouli et al. 2024, arXiv:2403.10642).

    The heads are blocks of rows of the network's last layer, so that all are one matrix product. Train them with
    `training.probabilistic_losses.MeanOverMembers`, and driven apart by `HeadDiversity`.

    Args:
        network: ``class_path`` and ``init_args`` of the network inside, without channels and frames.
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        heads: at least two.
        last_layer: name of the network's last layer, if it is not the last one in it; see `models.last_layer`.

    Raises:
        ValueError: for fewer heads, or a network that can give no further frames or does not end in a linear layer.

    Example:
        >>> fno = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 8}}
        >>> head = DiverseHeads(fno, channels=1, heads=5)
        >>> head.distribution(torch.zeros(2, 1, 1, 16, 16)).values.shape, head.weights.shape
        (torch.Size([5, 2, 1, 1, 16, 16]), torch.Size([5, 16]))
    """

    def __init__(
        self,
        network: dict[str, Any],
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        heads: int = 10,
        last_layer: str | None = None,
    ) -> None:
        if heads < 2:
            raise ValueError(f"Expected at least two heads, which can differ, but got {heads}.")
        super().__init__(network, heads, channels, history_frames, target_frames)
        self._last = _rows_of(self.network, last_layer, heads * target_frames * channels)
        if self._last.bias is not None:
            # Shifts alone would let heads differ where the trunk is the same.
            nn.init.zeros_(self._last.bias)
            self._last.bias.requires_grad_(False)

    def forward(self, history: Tensor, **context: Any) -> Tensor:
        """The mean over heads of the frames that follow ``history (batch, history_frames, channels, *space)``."""
        return self.outputs(history, **context).mean(0)

    def distribution(self, history: Tensor, **context: Any) -> Members:
        """The heads' frames."""
        return Members(self.outputs(history, **context))

    @property
    def weights(self) -> Tensor:
        """Of each head, ``(head, weights)``."""
        return self._last.weight.reshape(self.parts, -1)


@recorded
class WithDropout(_Head):
    """A network in whose training channels are dropped at random, so that it can be one of many in evaluation.

    Whole channels after each of the named modules are zero with some probability, and the others are scaled up to keep
    the mean (Gal & Ghahramani 2016, arXiv:1506.02142). In evaluation nothing is dropped, but by
    `steppers.uncertain.MonteCarloDropout`.

    Args:
        network: ``class_path`` and ``init_args`` of the network inside, without channels and frames.
        channels: of a frame, in and out.
        after: names of modules in the network, such as ``"blocks.0"`` of an `FNO`; each gives one tensor.
        history_frames: frames that go in.
        target_frames: frames that come out.
        probability: that a channel is dropped.
        channel_axis: of what the modules give.

    Raises:
        ValueError: for a probability outside (0, 1), or modules that the network does not have.

    Example:
        >>> fno = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 8}}
        >>> WithDropout(fno, channels=1, after=["blocks.0", "blocks.2"])(torch.zeros(2, 1, 1, 16, 16)).shape
        torch.Size([2, 1, 1, 16, 16])
    """

    def __init__(
        self,
        network: dict[str, Any],
        channels: int,
        after: Sequence[str],
        history_frames: int = 1,
        target_frames: int = 1,
        probability: float = 0.1,
        channel_axis: int = 1,
    ) -> None:
        if not 0 < probability < 1:
            raise ValueError(f"Expected a probability within (0, 1) but got {probability}.")
        super().__init__(network, 1, channels, history_frames, target_frames)
        known = dict(self.network.named_modules())
        unknown = [name for name in after if not name or name not in known]
        if unknown or not after:
            children = ", ".join(name for name in known if name.count(".") < 2 and name)
            raise ValueError(
                f"Expected modules of a {type(self.network).__name__}, after which channels are dropped, but got "
                f"{unknown or 'none'}; among its modules are {children}."
            )
        self.dropouts = nn.ModuleList()
        for name in after:
            dropout = ChannelDropout(probability, channel_axis)
            self.dropouts.append(dropout)
            # A bound method is copied with its object: the copy that averages weights has its own.
            known[name].register_forward_hook(dropout.after)

    def forward(self, history: Tensor, **context: Any) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``."""
        frames: Tensor = self.network(history, **context)
        return frames


class ChannelDropout(nn.Dropout1d):
    """Drops whole channels of what another module gives; a forward hook.

    Args:
        probability: that a channel is dropped.
        channel_axis: of what the module gives; the batch is the first axis.
    """

    def __init__(self, probability: float, channel_axis: int = 1) -> None:
        super().__init__(probability)
        self.channel_axis = channel_axis

    def after(self, module: nn.Module, given: Any, made: Tensor) -> Tensor:
        """What the module made, without the dropped channels."""
        kept: Tensor = self(made.movedim(self.channel_axis, 1).flatten(2))
        shape = made.movedim(self.channel_axis, 1).shape
        return kept.reshape(shape).movedim(1, self.channel_axis)


def inner_network(
    network: dict[str, Any], parts: int, channels: int, history_frames: int, target_frames: int
) -> nn.Module:
    """The network inside another one, built for as many parts."""
    if set(network) - {"class_path", "init_args"} or "class_path" not in network:
        raise ValueError(f"Expected class_path and init_args of the network inside but got {network!r}.")
    arguments = dict(network.get("init_args") or {})
    twice = sorted(set(arguments) & set(_GIVEN))
    if twice:
        raise ValueError(
            f"Expected {', '.join(twice)} as arguments of the network around it alone; leave them out inside."
        )
    cls = imported_module(str(network["class_path"]))
    missing = sorted(set(_GIVEN) - set(inspect.signature(cls).parameters))
    if missing or (parts > 1 and issubclass(cls, SFNO)):
        # Frames of an SFNO are values of one polynomial in time.
        reason = f"it has no argument {', '.join(missing)}" if missing else "its frames are no channels of their own"
        raise ValueError(
            f"Expected a network that can give {parts} times as many frames for a head but {cls.__name__} cannot: "
            f"{reason}. Use an ensemble or dropout instead."
        )
    given = {"channels": channels, "history_frames": history_frames, "target_frames": parts * target_frames}
    return build({"class_path": network["class_path"], "init_args": {**arguments, **given}})


def _rows_of(network: nn.Module, name: str | None, rows: int) -> LastLayer:
    """The last layer, which must have so many rows, and not all alike."""
    found = last_layer(network, name)
    if len(found.weight) != rows:
        raise ValueError(
            f"Expected a last layer with {rows} rows, the channels of all heads' frames, but {found.name!r} of the "
            f"{type(network).__name__} has {len(found.weight)}; name the one that gives the frames."
        )
    if not bool(found.weight.any()):
        # Heads that start alike, at zero, would stay alike.
        found.linear.reset_parameters()  # type: ignore[operator]  # all kinds have it
    return found

"""The last layer of a network where it is linear: which one it is, and what goes into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.conv_blocks import JointConvolution
from pdesurrogate.layers.normalized_pointwise import NormalizedPointwise
from pdesurrogate.layers.padding import pad
from pdesurrogate.layers.pointwise import Pointwise, PointwiseMLP

_Kernels = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_Known = (Pointwise, NormalizedPointwise, PointwiseMLP, JointConvolution, nn.Linear, *_Kernels)


class LastLayer(NamedTuple):
    """A layer ``weight @ features + bias`` whose rows, frame by frame, are the channels of what a network predicts.

    Attributes:
        name: of the module, in the network.
        module: the layer, or the `PointwiseMLP` that it is the second half of.
    """

    name: str
    module: nn.Module

    @property
    def weight(self) -> Tensor:
        """``(rows, features)``."""
        weight: Tensor = self.linear.weight  # type: ignore[assignment]  # all kinds have one
        return weight.flatten(1)

    @property
    def linear(self) -> nn.Module:
        """The layer itself."""
        return self.module.second if isinstance(self.module, PointwiseMLP) else self.module

    @property
    def bias(self) -> Tensor | None:
        """``(rows,)``."""
        bias: Tensor | None = self.linear.bias  # type: ignore[assignment]
        return bias

    def features(self, values: Tensor) -> Tensor:
        """``(batch, features, *space)`` from what the module is given."""
        if isinstance(self.module, PointwiseMLP):
            hidden: Tensor = self.module.first(values)
            return functional.gelu(hidden)
        if isinstance(self.module, JointConvolution):
            return _neighborhoods(pad(values, self.module.padding), self.module.zeros)
        return values.movedim(-1, 1) if isinstance(self.module, nn.Linear) else values


def last_layer(network: nn.Module, name: str | None = None) -> LastLayer:
    """The linear layer that ends a network: the last one in it, or the one named.

    Kinds are `Pointwise`, `NormalizedPointwise`, the second half of a `PointwiseMLP`, `JointConvolution`,
    ``torch.nn.Linear`` over channels that come last, and torch's convolutions of one point.

    Raises:
        ValueError: if there is none, or the name is not that of one.

    Example:
        >>> from pdesurrogate.models.fno import FNO
        >>> found = last_layer(FNO(channels=1, modes=(4, 4), width=8, layers=2))
        >>> found.name, found.weight.shape
        ('projection', torch.Size([1, 16]))
    """
    halves = {
        f"{outer}.{half}"
        for outer, module in network.named_modules()
        if isinstance(module, PointwiseMLP)
        for half in ("first", "second")
    }
    found = {
        inner: LastLayer(inner, module)
        for inner, module in network.named_modules()
        if inner not in halves and _is_linear(module)
    }
    if name is None and found:
        return list(found.values())[-1]
    if name not in found:
        asked = "a network that ends in a linear layer" if name is None else f"a linear layer named {name!r}"
        raise ValueError(
            f"Expected {asked} but a {type(network).__name__} has {', '.join(found) or 'none'}; name its last layer."
        )
    return found[name]


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, _Kernels):
        return set(module.kernel_size) == set(module.stride) == {1} and module.groups == 1
    return isinstance(module, _Known)


def _neighborhoods(padded: Tensor, zeros: Sequence[int]) -> Tensor:
    """The points that a convolution of three sees, as channels ``(batch, channels * 3^d, *space)``."""
    padded = functional.pad(padded, [count for count in reversed(list(zeros)) for _ in range(2)])
    dimension = padded.ndim - 2
    for axis in range(dimension):
        padded = padded.unfold(2 + axis, 3, 1)
    return torch.movedim(padded, tuple(range(-dimension, 0)), tuple(range(2, 2 + dimension))).flatten(1, 1 + dimension)

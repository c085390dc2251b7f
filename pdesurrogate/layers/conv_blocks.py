"""Blocks of convolutions on grids whose axes are padded one by one, with channels last in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.padding import Padding, pad

BlockActivation = Literal["gelu", "relu", "silu", "tanh", "sigmoid"]
Normalization = Literal["sample", "none"]
Conditioning = Literal["none", "add", "adagn"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def activation_function(kind: BlockActivation) -> Callable[[Tensor], Tensor]:
    """The activation of a name.

    Example:
        >>> activation_function("relu")(torch.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    return _ACTIVATIONS[kind]


class JointConvolution(nn.Module):
    """Three points wide along every axis, of several tensors at once; ``(batch, channels_out, *space)``.

    It is the convolution of their concatenation. On large grids they are convolved one by one and the results added, so
    that nobody has to make the concatenation and to keep it for the backward pass; fewer channels at once also suit a
    processor's caches. Parameters are drawn as torch draws those of its convolutions, and lie in memory as the input.

    Args:
        channels_in: of the input, all its parts together.
        channels_out: of the output.
        padding: of each of two or three axes.

    Example:
        >>> layer = JointConvolution(3, 4, ("circular", "zeros"))
        >>> layer(torch.ones(2, 1, 8, 8), torch.ones(2, 2, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(self, channels_in: int, channels_out: int, padding: Sequence[Padding]) -> None:
        super().__init__()
        self.padding = tuple(padding)
        self.zeros = [int(kind == "zeros") for kind in padding]
        self.convolve = {2: functional.conv2d, 3: functional.conv3d}[len(self.padding)]
        kernel = torch.empty(channels_out, *(3,) * len(self.padding), channels_in)
        self.weight = nn.Parameter(kernel.movedim(-1, 1))
        self.bias = nn.Parameter(torch.empty(channels_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly within ``1 / sqrt(inputs)`` of each output."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, *parts: Tensor) -> Tensor:
        """Convolve tensors whose channels are together the input's, in that order."""
        # An exported program serves batches of any size, so there one sample decides.
        batch = 1 if torch.compiler.is_exporting() else parts[0].shape[0]
        if len(parts) > 1 and batch * sum(part.shape[1:].numel() for part in parts) < self.weight.numel():
            parts = (torch.cat([part.movedim(1, -1) for part in parts], dim=-1).movedim(-1, 1),)
        if len(parts) == 1:
            return self.convolve(pad(parts[0], self.padding), self.weight, self.bias, padding=self.zeros)
        weights = self.weight.split([part.shape[1] for part in parts], dim=1)
        result = self.convolve(pad(parts[0], self.padding), weights[0], self.bias, padding=self.zeros)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            # In place, since fresh memory costs more than the addition.
            result = result.add_(self.convolve(pad(part, self.padding), weight, padding=self.zeros))
        return result

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, padding={self.padding}"


class ConvBlock(nn.Module):
    """Twice: `JointConvolution`, normalization, activation; ``(batch, channels_in, *space)`` to ``channels_out``.

    The normalization is that of a sample as a whole, all channels and points together, with a factor and a shift for
    each channel. A condition acts before the second convolution: a shift for each channel (``"add"``), or also a
    factor (``"adagn"``: ``h (1 + factor) + shift``).

    Args:
        channels_in: of the input, all its parts together.
        channels_out: of the output.
        padding: of each axis.
        normalization: ``"sample"`` or ``"none"``.
        activation: after each convolution.
        conditioning: what a condition does.
        features: of a condition.

    Example:
        >>> block = ConvBlock(3, 4, ("circular", "circular"), conditioning="add", features=5)
        >>> block(torch.ones(2, 3, 8, 8), condition=torch.ones(2, 5)).shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        padding: Sequence[Padding],
        normalization: Normalization = "sample",
        activation: BlockActivation = "gelu",
        conditioning: Conditioning = "none",
        features: int = 0,
    ) -> None:
        super().__init__()
        self.first = JointConvolution(channels_in, channels_out, padding)
        self.second = JointConvolution(channels_out, channels_out, padding)
        self.first_norm, self.second_norm = (
            nn.GroupNorm(1, channels_out) if normalization == "sample" else nn.Identity() for _ in range(2)
        )
        self.activate = activation_function(activation)
        acts = {"none": 0, "add": 1, "adagn": 2}[conditioning]
        self.condition = nn.Linear(features, acts * channels_out) if acts else None

    def forward(self, *parts: Tensor, condition: Tensor | None = None) -> Tensor:
        """Apply the block to tensors whose channels are together the input's; ``condition (batch, features)``."""
        hidden = self.activate(self.first_norm(self.first(*parts)))
        if self.condition is not None:
            acts = self.condition(condition)
            acts = acts.reshape(*acts.shape, *(1,) * (hidden.ndim - 2))
            *factor, shift = acts.split(hidden.shape[1], dim=1)
            hidden = hidden + shift if not factor else hidden * (1 + factor[0]) + shift
        return self.activate(self.second_norm(self.second(hidden)))

"""An activation of standardized values, undone after it, and fully connected networks with it or a plain one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from pdesurrogate.layers.conv_blocks import BlockActivation, activation_function

Statistics = Literal["features", "sample"]


class Activation(nn.Module):
    """A plain activation, elementwise."""

    def __init__(self, activation: BlockActivation) -> None:
        super().__init__()
        self.activation = activation
        self.activate = activation_function(activation)

    def forward(self, values: Tensor) -> Tensor:
        """Apply it."""
        return self.activate(values)

    def extra_repr(self) -> str:
        """Kind, shown by ``print``."""
        return f"{self.activation!r}"


class StandardizedActivation(nn.Module):
    """``std * act((values - mean) / std) + mean``: an activation that does not mind the scale of its input.

    With a ReLU the deviation cancels and what is left is the larger one of value and mean. The deviation is over
    ``n - 1``; where all values are alike, they stay as they are.

    Args:
        activation: of the standardized values.
        over: what mean and deviation are taken over: the ``"features"`` on the last axis, or the whole ``"sample"``,
            all axes but the first. The latter is that of CFDBench's code (arXiv:2310.05963): where queries lie on an
            axis between, a result depends on what else is asked.

    Example:
        >>> StandardizedActivation("relu")(torch.tensor([[0.0, 1.0, 5.0]])).tolist()
        [[2.0, 2.0, 5.0]]
    """

    def __init__(self, activation: BlockActivation, over: Statistics = "features") -> None:
        super().__init__()
        self.activation = activation
        self.over = over
        self.activate = activation_function(activation)

    def forward(self, values: Tensor) -> Tensor:
        """Apply it to ``values (sample, ..., feature)``."""
        axes = -1 if self.over == "features" else tuple(range(1, values.ndim))
        if self.activation == "relu":
            return torch.maximum(values, values.mean(axes, keepdim=True))
        variance, mean = torch.var_mean(values, axes, keepdim=True)
        # A deviation of zero has no derivative.
        deviation = variance.clamp_min(torch.finfo(values.dtype).tiny).sqrt()
        return deviation * self.activate((values - mean) / deviation) + mean

    def extra_repr(self) -> str:
        """Kind, shown by ``print``."""
        return f"{self.activation!r}, over={self.over!r}"


class Perceptron(nn.Module):
    """Linear layers with an activation between them; ``(..., sizes[0]) -> (..., sizes[-1])``.

    Args:
        sizes: of the input, of each hidden layer, and of the output.
        activation: between layers.

    Example:
        >>> Perceptron((3, 16, 16, 2), Activation("relu"))(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, sizes: Sequence[int], activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.activation = activation

    def forward(self, values: Tensor) -> Tensor:
        """Apply the layers."""
        return self.after_first(self.layers[0](values))

    def after_first(self, hidden: Tensor) -> Tensor:
        """What follows the first layer, given what that one gave."""
        for layer in self.layers[1:]:
            hidden = layer(self.activation(hidden))
        return hidden

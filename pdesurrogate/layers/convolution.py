"""Convolutions whose points lie several apart, transposed ones, and margins; each axis with a rule for its ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.padding import Padding

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def padding_of_axes(padding: Padding | Sequence[Padding], dimension: int) -> tuple[Padding, ...]:
    """One rule for each of ``dimension`` axes; a single one goes for all.

    Raises:
        ValueError: if a rule is not known, or their number is not that of the axes.

    Example:
        >>> padding_of_axes("zeros", 2), padding_of_axes(["circular", "zeros"], 2)
        (('zeros', 'zeros'), ('circular', 'zeros'))
    """
    rules = (padding,) * dimension if isinstance(padding, str) else tuple(padding)
    known = get_args(Padding)
    if len(rules) != dimension or not set(rules) <= set(known):
        raise ValueError(f"Expected padding among {known}, one for each of {dimension} axes, but got {padding!r}.")
    return rules


def extend(values: Tensor, padding: Sequence[Padding], reach: int) -> Tensor:
    """``reach`` points more at both ends of every axis of ``values (batch, channel, *space)`` but those with zeros.

    Raises:
        ValueError: if an axis has too few points.

    Example:
        >>> extend(torch.arange(4.0).reshape(1, 1, 4), ("circular",), 2).flatten().tolist()
        [2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0]
    """
    if reach == 0:
        return values
    for rule in sorted(set(padding) - {"zeros"}):
        ahead = [reach if each == rule else 0 for each in padding]
        needed = reach + 1 if rule == "reflect" else reach if rule == "circular" else 1
        space = tuple(values.shape[2:])
        if any(points and size < needed for size, points in zip(space, ahead, strict=True)):
            raise ValueError(
                f"Expected at least {needed} points on an axis with padding {rule!r}, as far as a convolution reaches, "
                f"but got a grid of {space}; use a finer grid, or fewer levels or dilations."
            )
        values = functional.pad(values, [points for points in reversed(ahead) for _ in range(2)], mode=rule)
    return values


class SpacedConvolution(nn.Module):
    """Three points along every axis, several apart: ``(batch, channels_in, *space) -> (batch, channels_out, *space)``.

    Parameters are drawn as torch draws those of its convolutions.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        padding: of each axis.
        stride: points from one result to the next; 2 halves even sizes.
        dilation: points from one of the three to the next.

    Example:
        >>> layer = SpacedConvolution(2, 5, ("circular", "zeros"), stride=2)
        >>> layer(torch.ones(4, 2, 16, 8)).shape
        torch.Size([4, 5, 8, 4])
    """

    def __init__(
        self, channels_in: int, channels_out: int, padding: Sequence[Padding], stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.padding = tuple(padding)
        self.zeros = [dilation if rule == "zeros" else 0 for rule in padding]
        self.stride = stride
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, *(3,) * len(self.padding)))
        self.bias = nn.Parameter(torch.empty(channels_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly within ``1 / sqrt(inputs)`` of each output."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, values: Tensor) -> Tensor:
        """Convolve ``values``.

        Raises:
            ValueError: if an axis has fewer points than the convolution reaches.
        """
        extended = extend(values, self.padding, self.dilation)
        convolve = _CONVOLUTIONS[len(self.padding)]
        return convolve(extended, self.weight, self.bias, self.stride, self.zeros, self.dilation)

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        channels_out, channels_in = self.weight.shape[:2]
        return f"{channels_in}, {channels_out}, {self.padding}, stride={self.stride}, dilation={self.dilation}"


class TransposedConvolution(nn.Module):
    """Twice the points along every axis: ``(batch, channels_in, *space) -> (batch, channels_out, *twice)``.

    The transpose of a convolution with stride 2. With a kernel of 2 every point makes its own two along each axis, with
    one of 4 neighbors overlap and add up. Parameters are drawn as torch draws those of its transposed convolutions.

    Args:
        channels_in: of the input.
        channels_out: of the output.
        padding: of each axis.
        kernel_size: points that one point reaches along each axis.

    Example:
        >>> layer = TransposedConvolution(2, 5, ("circular", "zeros"))
        >>> layer(torch.ones(4, 2, 8, 4)).shape
        torch.Size([4, 5, 16, 8])
    """

    def __init__(
        self, channels_in: int, channels_out: int, padding: Sequence[Padding], kernel_size: Literal[2, 4] = 4
    ) -> None:
        super().__init__()
        self.padding = tuple(padding)
        self.reach = kernel_size // 2 - 1
        # Each point that the axis was extended by makes two of those that are cut off again.
        self.cut = [self.reach if rule == "zeros" else 3 * self.reach for rule in padding]
        self.weight = nn.Parameter(torch.empty(channels_in, channels_out, *(kernel_size,) * len(self.padding)))
        self.bias = nn.Parameter(torch.empty(channels_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly within ``1 / sqrt(outputs)`` of each input."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, values: Tensor) -> Tensor:
        """Spread ``values``.

        Raises:
            ValueError: if an axis has fewer points than the kernel reaches.
        """
        extended = extend(values, self.padding, self.reach)
        return _TRANSPOSED[len(self.padding)](extended, self.weight, self.bias, stride=2, padding=self.cut)

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        channels_in, channels_out, kernel_size = self.weight.shape[:3]
        return f"{channels_in}, {channels_out}, {self.padding}, kernel_size={kernel_size}"


def with_margin(values: Tensor, padding: Sequence[Padding], points: int) -> Tensor:
    """``points`` zeros after the end of each axis of ``values (batch, channel, *space)`` whose rule is ``"zeros"``."""
    behind = [points if rule == "zeros" else 0 for rule in padding]
    return functional.pad(values, [n for after in reversed(behind) for n in (0, after)]) if any(behind) else values


def without_margin(values: Tensor, space: Sequence[int]) -> Tensor:
    """The first points of ``values (batch, channel, *larger space)``, as many as ``space`` has."""
    return values[:, :, *(slice(size) for size in space)]

"""Tensors padded for a convolution, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Padding = Literal["circular", "zeros", "replicate", "reflect"]

# Points of a padded axis that its two ends are copies of; negative ones count from the back.
_SOURCES: dict[str, tuple[int, int]] = {"circular": (-2, 1), "replicate": (1, -2), "reflect": (2, -3)}

Ends = tuple[tuple[int, int, int], ...]


def channels_last(values: Tensor) -> Tensor:
    """``values (batch, channel, *space)`` with the channels of a point side by side in memory, copied if need be."""
    return values.movedim(1, -1).contiguous().movedim(-1, 1)


def pad(values: Tensor, padding: Sequence[Padding]) -> Tensor:
    """``values (batch, channel, *space)`` with one point more at both ends of every axis.

    An axis is continued periodically (``"circular"``), by its end points (``"replicate"``) or by its mirror image about
    them (``"reflect"``). One that ends in ``"zeros"`` is left as it is: a convolution adds those on its own. The result
    has its channels last in memory, and values are read fastest in that order.

    Example:
        >>> lines = torch.arange(6.0).reshape(1, 1, 2, 3)
        >>> pad(lines, ("zeros", "circular"))[0, 0].tolist()
        [[2.0, 0.0, 1.0, 2.0, 0.0], [5.0, 3.0, 4.0, 5.0, 3.0]]
    """
    ends: Ends = tuple((2 + axis, *_SOURCES[kind]) for axis, kind in enumerate(padding) if kind != "zeros")
    if not ends:
        return values
    if torch.compiler.is_compiling():
        return padded(values, ends)
    result: Tensor = _Padded.apply(values, ends)  # type: ignore[no-untyped-call]
    return result


def padded(values: Tensor, ends: Ends) -> Tensor:
    """What `pad` computes, in differentiable operations, for compilers.

    ``ends`` are the padded axes, each with the points of the padded axis that both ends are copies of.
    """
    for dim, front, back in ends:
        size = values.shape[dim] + 2
        first, last = (values.narrow(dim, source % size - 1, 1) for source in (front, back))
        values = torch.cat([first, values, last], dim)
    return values


class _Padded(torch.autograd.Function):
    """`padded`, written once: the values go to their place, then the ends are copied."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ends: Ends) -> Tensor:
        """`padded`."""
        ctx.ends = ends
        sizes = list(values.shape)
        for dim, *_ in ends:
            sizes[dim] += 2
        batch, channels, *space = sizes
        result = values.new_empty((batch, *space, channels)).movedim(-1, 1)
        _inside(result, ends).copy_(values)
        for number, (dim, front, back) in enumerate(ends):
            # The ends of earlier axes are there already, so that corners come out right.
            lines = _inside(result, ends[number + 1 :])
            lines.select(dim, 0).copy_(lines.select(dim, front))
            lines.select(dim, -1).copy_(lines.select(dim, back))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradient of the values."""
        return _Folded.apply(gradient, ctx.ends), None  # type: ignore[no-untyped-call]


class _Folded(torch.autograd.Function):
    """The transpose of `padded`: what was copied to the ends is added where it came from."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, ends: Ends) -> Tensor:
        """Gradient of the values, a part of the padded ones' in memory."""
        ctx.ends = ends
        folded = gradient.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)
        for dim, front, back in reversed(ends):
            folded.select(dim, front).add_(folded.select(dim, 0))
            folded.select(dim, back).add_(folded.select(dim, -1))
            folded = folded.narrow(dim, 1, folded.shape[dim] - 2)
        return folded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradient of the padded values' gradient."""
        return _Padded.apply(gradient, ctx.ends), None  # type: ignore[no-untyped-call]


def _inside(values: Tensor, ends: Ends) -> Tensor:
    for dim, *_ in ends:
        values = values.narrow(dim, 1, values.shape[dim] - 2)
    return values

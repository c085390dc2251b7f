"""A training sample or batch, what keeps nested named tuples whole (collating, mapping, repeating), and its volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Grid
from pdesurrogate.fields.trajectory import Context


class Batch(NamedTuple):
    """``history (batch, time_in, channel, *space)`` and the ``target`` frames that follow, physical units."""

    history: Tensor
    target: Tensor
    context: Context


def collate(samples: Sequence[Any]) -> Any:
    """Stack samples leaf by leaf; ``None`` stays ``None``, tuples and named tuples keep their type.

    Raises:
        ValueError: if a leaf is ``None`` in some samples only, or shapes differ.

    Example:
        >>> first = Context((torch.zeros(4),), parameters=torch.ones(1))
        >>> collate([first, first]).coordinates[0].shape
        torch.Size([2, 4])
    """
    head = samples[0]
    absent = [sample is None for sample in samples]
    if any(absent):
        if not all(absent):
            raise ValueError("Expected an entry in all samples of a batch or in none; some have it and some lack it.")
        return None
    if isinstance(head, Tensor):
        shapes = {tuple(sample.shape) for sample in samples}
        if len(shapes) > 1:
            raise ValueError(f"Expected samples of one shape in a batch but got {sorted(shapes)}; use batch size 1.")
        return torch.stack(list(samples))
    parts = [collate(column) for column in zip(*samples, strict=True)]
    return type(head)(*parts) if hasattr(head, "_fields") else tuple(parts)


def map_context(function: Callable[[Tensor], Tensor], context: Context) -> Context:
    """A context with ``function`` applied to every tensor; ``None`` stays ``None``."""
    coordinates = tuple(function(points) for points in context.coordinates)
    return Context(coordinates, *(None if leaf is None else function(leaf) for leaf in context[1:]))


def repeat_context(context: Context, times: int) -> Context:
    """A batched context ``times`` over: ``(batch, ...)`` to ``(times * batch, ...)``, one whole batch after the other.

    Example:
        >>> twice = repeat_context(Context((torch.zeros(2, 4),), parameters=torch.tensor([[1.0], [2.0]])), times=2)
        >>> twice.coordinates[0].shape, twice.parameters.flatten().tolist()
        (torch.Size([4, 4]), [1.0, 2.0, 1.0, 2.0])
    """
    if times == 1:
        return context
    return map_context(lambda leaf: leaf.repeat(times, *(1,) * (leaf.ndim - 1)), context)


def space_weights(grid: Grid, context: Context, *, cells: bool = False) -> Tensor:
    """Quadrature weights of batched coordinates; ``(batch, 1, 1, *space)``, zero outside the mask."""
    lines = grid.quadrature_weights(context.coordinates, cells=cells)
    weights = lines[0][:, None, None]
    for line in lines[1:]:
        weights = weights.unsqueeze(-1) * line.reshape(line.shape[0], *(1,) * (weights.ndim - 1), -1)
    return weights if context.mask is None else weights * context.mask[:, None, None]

"""Second derivatives for layers whose first derivative is written by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def differentiable_gradients(
    formula: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    """Gradients of ``formula(*inputs)`` that can be differentiated again; ``None`` where not ``needed``.

    A ``torch.autograd.Function`` with fast in-place arithmetic calls this in its ``backward`` when gradients are
    enabled there, that is when a graph of the backward pass is asked for. ``formula`` is the same function in plain
    differentiable operations.
    """
    sources = {i: x for i, (x, wanted) in enumerate(zip(inputs, needed, strict=True)) if wanted and x is not None}
    found = torch.autograd.grad(formula(*inputs), tuple(sources.values()), gradient, create_graph=True)
    by_input = dict(zip(sources, found, strict=True))
    return [by_input.get(index) for index in range(len(inputs))]


def without_autocast(backward: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor], Any]:
    """Decorator for the ``backward`` of such a function: stay in the precision of the tensors it was given."""

    @functools.wraps(backward)
    def plain(ctx: Any, gradient: Tensor) -> Any:
        with torch.autocast(gradient.device.type, enabled=False):
            return backward(ctx, gradient)

    return plain

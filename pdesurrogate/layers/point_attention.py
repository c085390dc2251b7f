"""Attention between scattered points, and the random masks that it may be given."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropoutMasks:
    """Where zeros fall, drawn from a generator that is given: dropout never depends on ``train()`` and ``eval()``.

    Args:
        generator: of the masks, on the device of what they are applied to; torch's own if not given.

    Example:
        >>> masks = DropoutMasks(torch.Generator().manual_seed(0))
        >>> sorted({round(value, 6) for value in masks.applied(torch.ones(1000), rate=0.2).tolist()})
        [0.0, 1.25]
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def applied(self, values: Tensor, rate: float) -> Tensor:
        """``values``, each zero with probability ``rate`` and otherwise over ``1 - rate``, so that the mean is kept."""
        if rate == 0:
            return values
        # Uniform numbers are drawn several times faster than Bernoulli ones. In float32 at least: with fewer digits
        # the share of zeros would not be the rate.
        kind = torch.promote_types(values.dtype, torch.float32)
        uniform = torch.rand(values.shape, generator=self.generator, device=values.device, dtype=kind)
        return values * uniform.ge_(rate).div_(1 - rate).to(values.dtype)


class PointAttention(nn.Module):
    """One block: queries attend to keys, and what they gather is added to them, ``(..., point, width)``.

    ``norm(queries + dropout(linear([queries, heads])))``, each head ``dropout(softmax(q k^T / sqrt(width / heads))) v``
    with linear maps of queries, keys and values that have no bias; of the attentive neural process of Kim et al.,
    *Attentive neural processes*, ICLR 2019, arXiv:1901.05761, as Hansen et al., arXiv:2302.11002, use it. No point has
    a place in an order: the result is the same for any order of the keys, and moves with the queries.

    Args:
        width: of queries, keys and values.
        heads: that share it.
        attention_dropout: rate of zeros among the weights of the keys.
        output_dropout: rate of zeros in what is added to the queries.

    Raises:
        ValueError: if ``heads`` does not divide ``width``, or a rate is not within [0, 1).
    """

    def __init__(self, width: int, heads: int, attention_dropout: float = 0.1, output_dropout: float = 0.1) -> None:
        super().__init__()
        if min(width, heads) < 1 or width % heads:
            raise ValueError(f"Expected heads that divide the width but got {heads} and {width}.")
        if not (0 <= attention_dropout < 1 and 0 <= output_dropout < 1):
            raise ValueError(f"Expected dropout rates within [0, 1) but got {attention_dropout} and {output_dropout}.")
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.output_dropout = output_dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, masks: DropoutMasks | None = None) -> Tensor:
        """Queries ``(..., query, width)`` after a look at keys ``(..., key, width)``; no dropout without ``masks``."""
        q, k, v = map(self._in_heads, (self.query(queries), self.key(keys), self.value(values)))
        if masks is None and not torch.is_grad_enabled():
            gathered = functional.scaled_dot_product_attention(q, k, v)
        else:
            # The fused kernel takes no masks of ours, and its derivative has none, which residuals of PDEs ask for.
            weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)
            gathered = (weights if masks is None else masks.applied(weights, self.attention_dropout)) @ v
        of_queries, of_heads = self.output.weight.tensor_split(2, dim=1)
        # The two halves of a linear map of [queries, heads]: nothing is copied together.
        gathered = functional.linear(gathered.transpose(-2, -3).flatten(-2), of_heads, self.output.bias)
        change = functional.linear(queries, of_queries) + gathered
        return self.norm(queries + (change if masks is None else masks.applied(change, self.output_dropout)))

    def _in_heads(self, values: Tensor) -> Tensor:
        """``(..., head, point, width / heads)``."""
        return values.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def extra_repr(self) -> str:
        """What the parameters do not show."""
        return f"heads={self.heads}, attention_dropout={self.attention_dropout}, output_dropout={self.output_dropout}"

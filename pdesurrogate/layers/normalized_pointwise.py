"""Channel mixing whose rows have a learned length of their own: weight normalization."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pdesurrogate.layers.pointwise import mix


class NormalizedPointwise(nn.Module):
    """``weight @ x + bias`` at every point, ``weight = gain * direction / |direction|`` row by row.

    ``(batch, channels_in, *space) -> (batch, channels_out, *space)``; Salimans and Kingma, arXiv:1602.07868. It begins
    as the `pdesurrogate.layers.pointwise.Pointwise` whose weight is ``direction``.

    Example:
        >>> layer = NormalizedPointwise(2, 3)
        >>> layer(torch.ones(4, 2, 8, 8)).shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(channels_out, channels_in))
        self.gain = nn.Parameter(torch.empty(channels_out))
        self.bias = nn.Parameter(torch.empty(channels_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw direction and bias uniformly within ``1 / sqrt(channels_in)``; the gain makes the weight that."""
        bound = 1 / math.sqrt(self.direction.shape[1])
        nn.init.uniform_(self.direction, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        with torch.no_grad():
            self.gain.copy_(self.direction.norm(dim=1))

    @property
    def weight(self) -> Tensor:
        """``(channels_out, channels_in)``."""
        return self.direction * (self.gain / self.direction.norm(dim=1))[:, None]

    def forward(self, values: Tensor) -> Tensor:
        """Mix the channels of ``values``."""
        return mix(values, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        channels_out, channels_in = self.direction.shape
        return f"{channels_in}, {channels_out}"

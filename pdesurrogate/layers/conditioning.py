"""Numbers that go with a sample, such as a lead time, as waves that a network can tell apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# Units that the slowest wave takes for a radian, or nearly; the fastest takes one.
LONGEST_PERIOD = 10_000


def sinusoids(numbers: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of ``numbers (batch,)`` at ``width // 2`` rates from 1 down; ``(batch, width)``.

    The rates fall geometrically towards one over `LONGEST_PERIOD`. An odd width ends in a zero.

    Example:
        >>> sinusoids(torch.tensor([0.0]), 5).tolist()
        [[1.0, 1.0, 0.0, 0.0, 0.0]]
    """
    half = width // 2
    steps = torch.arange(half, dtype=numbers.dtype, device=numbers.device) / half
    angles = numbers[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * steps)
    waves = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    return functional.pad(waves, (0, width % 2))

"""Twice as many points along every axis: the interpolation of image libraries in its polyphase form.

Points stand for cells: point ``i`` of ``n`` lies at ``(i + 1/2) / n``, and each of its two successors a quarter of a
cell to its side. Their values are fixed combinations of two or four neighbors, so an axis is one matrix product: exact,
deterministic in both directions on every device, and for periodic axes, for which such libraries have no interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pdesurrogate.layers.padding import Padding

Upsampling = Literal["bicubic", "bilinear", "nearest"]

# Offset of the first neighbor and weights of all, for the left one of the two points that each point becomes; the right
# one is its mirror image. Bicubic: the convolution kernel with parameter -3/4, at distances 7/4, 3/4, 1/4 and 5/4.
_TAPS: dict[str, tuple[int, tuple[float, ...]]] = {
    "bicubic": (-2, (-0.03515625, 0.26171875, 0.87890625, -0.10546875)),
    "bilinear": (-1, (0.25, 0.75)),
    "nearest": (0, (1.0,)),
}


def doubling_matrix(
    size: int,
    padding: Padding,
    kind: Upsampling = "bicubic",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """The matrix ``(2 size, size)`` that interpolates an axis at twice as many points.

    Neighbors beyond the end are those of the other end (``"circular"``) or the end point itself (all others, as
    ``torch.nn.functional.interpolate`` has it).

    Example:
        >>> doubling_matrix(3, "circular", "bilinear").tolist()[:2]
        [[0.75, 0.0, 0.25], [0.75, 0.25, 0.0]]
    """
    first, weights = _TAPS[kind]
    points = torch.arange(size, device=device)
    left = points[:, None] + torch.arange(first, first + len(weights), device=device)
    right = 2 * points[:, None] - left
    neighbors = torch.stack([left, right], dim=1).reshape(2 * size, len(weights))
    neighbors = neighbors % size if padding == "circular" else neighbors.clamp(0, size - 1)
    hits = (neighbors[:, :, None] == points).to(dtype)
    return torch.einsum("otn,t->on", hits, torch.tensor(weights, dtype=dtype, device=device))


def upsample(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """``values (batch, channel, *space)`` at more points: a matrix ``(points, size)`` for every axis.

    Channels are last in memory. Under autocast the precision of ``values`` is kept.

    Example:
        >>> fields = torch.ones(2, 3, 4, 5)
        >>> matrices = [doubling_matrix(size, "zeros", dtype=fields.dtype) for size in (4, 5)]
        >>> upsample(fields, matrices).shape
        torch.Size([2, 3, 8, 10])
    """
    result = values.movedim(1, -1)
    with torch.autocast(values.device.type, enabled=False):
        for axis, matrix in enumerate(matrices):
            shape = result.shape
            lines = result.reshape(-1, shape[1 + axis], shape[2 + axis :].numel())
            product = torch.bmm(matrix.to(values.dtype).expand(len(lines), -1, -1), lines)
            result = product.reshape(*shape[: 1 + axis], len(matrix), *shape[2 + axis :])
    return result.movedim(-1, 1)

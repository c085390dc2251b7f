"""From averages over cells to values on their faces along periodic axes: limited linear reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

LimiterName = Literal["minmod", "monotonized_central", "van_leer"]
Limiter = Callable[[Tensor, Tensor], Tensor]


def minmod(below: Tensor, above: Tensor) -> Tensor:
    """The smaller one of two differences where they have one sign, else zero; halved.

    All limiters here give *half* a slope, the change from the center of a cell to its upper face, because that is what
    face values need. Arguments are the differences to the cell below and to the one above.

    Example:
        >>> minmod(torch.tensor([2.0, -2.0, 2.0]), torch.tensor([8.0, -1.0, -1.0])).tolist()
        [1.0, -0.5, 0.0]
    """
    return 0.5 * (torch.minimum(below, above).clamp(min=0) + torch.maximum(below, above).clamp(max=0))


def monotonized_central(below: Tensor, above: Tensor) -> Tensor:
    """Half the central slope, as far as face values stay between the averages of neighbors; zero at extrema.

    B. van Leer, J. Comput. Phys. 23 (1977) 276. The sharpest of the three, and the only one that leaves a slope that
    varies by less than a factor of three from face to face as it is.

    Example:
        >>> monotonized_central(torch.tensor([2.0, 1.0, 2.0]), torch.tensor([4.0, 9.0, -1.0])).tolist()
        [1.5, 1.0, 0.0]
    """
    # A clamp between two bounds, of which one is zero, costs less than signs and magnitudes.
    lowest = torch.maximum(below, above).clamp_(max=0)
    highest = torch.minimum(below, above).clamp_(min=0)
    return (below + above).mul_(0.25).clamp_(lowest, highest)


def van_leer(below: Tensor, above: Tensor) -> Tensor:
    """Half the harmonic mean of two differences of one sign, else zero; smooth in between.

    B. van Leer, J. Comput. Phys. 14 (1974) 361.

    Example:
        >>> van_leer(torch.tensor([2.0, 0.0, 2.0]), torch.tensor([6.0, 0.0, -1.0])).tolist()
        [1.5, 0.0, 0.0]
    """
    product = (below * above).clamp(min=0)
    total = below + above
    return product / torch.where(product > 0, total, 1.0)


LIMITERS: dict[LimiterName, Limiter] = {
    "minmod": minmod,
    "monotonized_central": monotonized_central,
    "van_leer": van_leer,
}


def wrapped(values: Tensor, axis: int, cells: int) -> Tensor:
    """Values with so many cells of the other end before and after them along a periodic axis.

    Example:
        >>> wrapped(torch.arange(4), axis=0, cells=1).tolist()
        [3, 0, 1, 2, 3, 0]
    """
    size = values.shape[axis]
    return torch.cat([values.narrow(axis, size - cells, cells), values, values.narrow(axis, 0, cells)], dim=axis)


def face_values(averages: Tensor, axis: int, limiter: Limiter = monotonized_central) -> tuple[Tensor, Tensor]:
    """Values on both sides of all faces across a periodic axis, from averages over even cells.

    Args:
        averages: of ``n`` cells along the axis, any shape; components may be stacked along another axis.
        axis: which one.
        limiter: gives half slopes.

    Returns:
        Values below and above each face, ``n + 1`` along the axis: face ``i`` lies below cell ``i``, the last is the
        first again. So ``fluxes.diff(dim=axis)`` is what leaves each cell.

    Example:
        >>> below, above = face_values(torch.tensor([0.0, 1.0, 2.0, 3.0]), axis=0)
        >>> below.tolist()  # of the four cells, 0 and 3 are extrema
        [3.0, 0.0, 1.5, 2.5, 3.0]
        >>> above.tolist()
        [0.0, 0.5, 1.5, 3.0, 0.0]
    """
    cells = wrapped(averages, axis, 2)
    size = cells.shape[axis]
    differences = cells.narrow(axis, 1, size - 1) - cells.narrow(axis, 0, size - 1)
    half_slopes = limiter(differences.narrow(axis, 0, size - 2), differences.narrow(axis, 1, size - 2))
    # Half slopes are there for the cells -1 to n.
    faces = size - 3
    below = cells.narrow(axis, 1, faces) + half_slopes.narrow(axis, 0, faces)
    above = cells.narrow(axis, 2, faces) - half_slopes.narrow(axis, 1, faces)
    return below, above

"""Filters along the walls of a channel, for what is to be seen at twice the grid's width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class PlaneFilter(Protocol):
    """A filter along the walls, wider than the grid's: the same along x and along z, one after the other."""

    @property
    def width_ratio(self) -> float:
        """Its width over the spacing of the grid."""
        ...

    def factors(self, size: int) -> tuple[float, ...]:
        """What it leaves of the waves ``0 .. size // 2`` of a periodic axis of ``size`` points."""
        ...


@dataclass(frozen=True)
class ThreePointFilter:
    """A weighted mean of each point and its two neighbors.

    Args:
        side_weight: of each neighbor; 1/4 is the trapezoid rule over two cells, 1/6 Simpson's.
        width_ratio: that the filter passes for. Two is the extent of both rules; by the second moment Simpson's has it
            and the trapezoid's is the square root of six.

    Raises:
        ValueError: if the weight is not above 0 and at most 1/4 (beyond, short waves change their sign), or the ratio
            is not above 1.

    Example:
        >>> filtered(torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None, None], ThreePointFilter()).flatten()
        tensor([0.2500, 0.5000, 0.2500, 0.0000])
    """

    side_weight: float = 1 / 4
    width_ratio: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.side_weight <= 1 / 4:
            raise ValueError(f"Expected a side weight above 0 and up to 1/4 but got {self.side_weight}.")
        _require_wider(self.width_ratio)

    def factors(self, size: int) -> tuple[float, ...]:
        """What is left of the waves ``0 .. size // 2``."""
        turn = 2 * math.pi / size
        return tuple(1 - 2 * self.side_weight * (1 - math.cos(turn * wave)) for wave in range(size // 2 + 1))


@dataclass(frozen=True)
class CutoffFilter:
    """Keeps the waves that a grid of fewer points has, without its shortest, and nothing else.

    Args:
        width_ratio: spacing of that grid over this one's.

    Raises:
        ValueError: if the ratio is not above 1.
    """

    width_ratio: float = 2.0

    def __post_init__(self) -> None:
        _require_wider(self.width_ratio)

    def factors(self, size: int) -> tuple[float, ...]:
        """What is left of the waves ``0 .. size // 2``."""
        return tuple(float(wave < size / 2 / self.width_ratio) for wave in range(size // 2 + 1))


def filtered(fields: Tensor, plane_filter: PlaneFilter) -> Tensor:
    """Fields ``(..., nx, ny, nz)`` filtered along x and z; same shape."""
    # Made in a way that training can use them after inference mode did.
    with torch.inference_mode(False):
        along_x, along_z = (
            _matrix(plane_filter.factors(size), size, fields.dtype, fields.device)
            for size in (fields.shape[-3], fields.shape[-1])
        )
    return (along_x @ (fields @ along_z).flatten(-2)).unflatten(-1, fields.shape[-2:])


@lru_cache(maxsize=32)
def _matrix(factors: tuple[float, ...], size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(size, size)``, symmetric; products with it are faster than shifts or transforms up to some hundred points."""
    waves = torch.fft.rfft(torch.eye(size, dtype=torch.float64))
    return torch.fft.irfft(torch.tensor(factors, dtype=torch.float64) * waves, n=size).to(device, dtype)


def _require_wider(ratio: float) -> None:
    if not ratio > 1:
        raise ValueError(f"Expected a test filter wider than the grid's, a ratio above 1, but got {ratio}.")

"""Features of place and time for a network that works on frames of a box."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

Positional = Literal["time", "periodic", "linear", "products"]

# Frames that one unit of the time coordinate spans.
TIME_UNIT = 100


class PositionalFeatures(nn.Module):
    """Fixed features of place and time ``(count, x, y, time)`` that the vorticity is added to.

    The first are those of the place. Time ``t`` counts frames from the beginning of the history in hundreds; after it
    come ``exp(damping t) sin(pi t)``, ``exp(damping t) cos(2 pi t)``, ``exp(damping t) sin(3 pi t)`` and so on.
    """

    def __init__(
        self, kind: Positional, width: int, modes: tuple[int, int, int], damping: float, end_point: bool
    ) -> None:
        super().__init__()
        products = (modes[0] // 2) * (modes[1] // 2) * (modes[2] // 2)
        self.kind = kind
        self.count = 3 + products if kind == "products" else width
        self.modes = modes
        self.damping = damping
        self.end_point = end_point

    def forward(self, vorticity: Tensor) -> Tensor:
        """The features at the points of ``vorticity (batch, 1, x, y, time)``, in its precision."""
        # The authors compute in single precision whatever the weights are.
        precision = torch.float32 if self.end_point else vorticity.dtype
        shape = vorticity.shape[2:]
        device = vorticity.device
        x, y = (_places(size, self.end_point, precision, device) for size in shape[:2])
        t = torch.linspace(0, 1, TIME_UNIT + 1, dtype=precision, device=device)[1 : shape[2] + 1]
        if shape[2] > TIME_UNIT:
            t = torch.arange(1, shape[2] + 1, dtype=precision, device=device) / TIME_UNIT
        x, y, t = x[:, None, None], y[:, None], t
        features = [feature.expand(shape) for feature in (*self._of_place(x, y), t)]
        decay = torch.exp(self.damping * t)
        if self.kind == "products":
            counts = (range(1, kept // 2 + 1) for kept in self.modes)
            features += [
                decay * _wave(i, x) * _wave(j, y) * _wave(k, t) / (i * j * k) for i, j, k in itertools.product(*counts)
            ]
        else:
            rest = range(self.count - len(features))
            waves = (torch.cos if number % 2 else torch.sin for number in rest)
            features += [
                (decay * wave(torch.pi * (number + 1) * t)).expand(shape)
                for number, wave in zip(rest, waves, strict=True)
            ]
        return torch.stack(features).to(vorticity.dtype)

    def _of_place(self, x: Tensor, y: Tensor) -> list[Tensor]:
        if self.kind == "time":
            return []
        if self.kind == "periodic":
            return [wave(2 * torch.pi * place) for place in (x, y) for wave in (torch.cos, torch.sin)]
        return [x, y]


def _places(size: int, end_point: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    if end_point:
        return torch.linspace(0, 1, size, dtype=dtype, device=device)
    return torch.arange(size, dtype=dtype, device=device) / size


def _wave(number: int, place: Tensor) -> Tensor:
    return (torch.cos if number % 2 else torch.sin)(torch.pi * number * place)

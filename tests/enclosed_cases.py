"""Flows in boxes that are made for tests: any case as a problem, and flows with a known steady state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pdesurrogate.simulators.enclosed.case import Case
from pdesurrogate.simulators.enclosed.flow import EnclosedCases, EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Box

Precision = Literal["float32", "float64"]
StreamFunction = Callable[[Tensor, Tensor], Tensor]


def flows_of(
    cases: Sequence[Case], shape: tuple[int, int], time_step: float, precision: Precision = "float64"
) -> EnclosedCases:
    """The solver of cases that no problem describes, on any grid that the time step allows."""

    @dataclass(frozen=True)
    class Given:
        number: float = 0.0

        def case(self) -> Case:
            return cases[int(self.number)]

    flow = EnclosedFlow(Given(), shape, time_step, 1, torch.inf, precision)
    return flow.of_cases(torch.arange(len(cases), dtype=torch.float64)[:, None])


class SteadyForce:
    """The force under which the flow of a stream function is steady, at zero pressure: ``(u . grad) u - nu lap u``."""

    def __init__(self, stream: StreamFunction, viscosity: float) -> None:
        self.stream = stream
        self.viscosity = viscosity

    def at(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Acceleration along x and y."""
        x, y = (points.detach().clone().requires_grad_() for points in torch.broadcast_tensors(x, y))
        along_x, along_y = _gradient(self.stream(x, y), x, y)
        u, v = along_y, -along_x
        found = []
        for component in (u, v):
            by_x, by_y = _gradient(component, x, y)
            bend = _gradient(by_x, x, y)[0] + _gradient(by_y, x, y)[1]
            found.append((u * by_x + v * by_y - self.viscosity * bend).detach())
        return found[0], found[1]


def _gradient(values: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    found = torch.autograd.grad(values.sum(), (x, y), create_graph=True, materialize_grads=True)
    return found[0], found[1]


def velocity_of(stream: StreamFunction, box: Box, shape: tuple[int, int]) -> Tensor:
    """``(2, nx, ny)``: means over the faces of the velocity of a stream function; free of divergence."""
    face_x, face_y = box.faces(shape)
    nodes = stream(face_x[:, None], face_y)
    u = nodes.diff(dim=1) / face_y.diff()
    v = -nodes.diff(dim=0) / face_x.diff()[:, None]
    return torch.stack([u[:-1], v[:, :-1]])


def state_of(velocity: Tensor, scalar: Tensor | None = None) -> Tensor:
    """A state ``(1, channel, nx, ny)`` at zero pressure."""
    fields = [*velocity, torch.zeros_like(velocity[0])]
    return torch.stack(fields if scalar is None else [*fields, scalar]).unsqueeze(0)


def smooth_stream(box: Box, seed: int = 0, waves: int = 3) -> StreamFunction:
    """A random sum of products of sines, zero on all sides, with velocities around one."""
    weights = torch.randn(waves, waves, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    (low_x, low_y), (length_x, length_y) = box.low, box.lengths

    def stream(x: Tensor, y: Tensor) -> Tensor:
        found = torch.zeros_like(x + y)
        for i, j in torch.cartesian_prod(torch.arange(waves), torch.arange(waves)).tolist():
            along_x = torch.sin((i + 1) * torch.pi * (x - low_x) / length_x)
            along_y = torch.sin((j + 1) * torch.pi * (y - low_y) / length_y)
            found = found + weights[i, j] * along_x * along_y / (i + j + 2)
        return found * min(length_x, length_y) / torch.pi

    return stream


def random_state(solver: EnclosedCases, seed: int = 0, size: float = 0.3) -> Tensor:
    """Random velocities without divergence on top of what the sides bring in, random pressure, scalar in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    state = solver.at_rest().double()
    drawn = torch.randn(state.shape, dtype=torch.float64, generator=generator)
    state[:, :3] += size * drawn[:, :3]
    state[:, 3:] = torch.rand(state[:, 3:].shape, dtype=torch.float64, generator=generator)
    return solver.without_divergence(state)


def mirrored(state: Tensor) -> Tensor:
    """The reflection that turns y around. Face ``j`` goes to face ``ny - j``; the low face, on a wall, stays."""
    image = state.flip(-1)
    image[:, 1, :, 0] = 0
    image[:, 1, :, 1:] = -state[:, 1, :, 1:].flip(-1)
    return image


def exchanged(state: Tensor) -> Tensor:
    """x and y change places, and with them the components along them."""
    return torch.cat([state[:, [1, 0]], state[:, 2:]], 1).mT


def order(errors: Sequence[float]) -> float:
    """Of convergence between the last two of a series whose grid halves."""
    return math.log2(errors[-2] / errors[-1])

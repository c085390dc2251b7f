"""Where enclosed flows start: without motion but what the sides bring in."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.simulators.enclosed.flow import EnclosedCases, EnclosedFlow
from pdesurrogate.simulators.generation.protocols import Simulator
from pdesurrogate.simulators.random_fields import InitialCondition


class AtRest:
    """Potential flow from inlet to outlet, or no motion at all; a `Start`.

    Args:
        noise: root mean square of random velocities on all faces before the projection, relative to the expected speed:
            what makes a symmetric wake shed vortices soon and each trajectory its own.

    Raises:
        ValueError: if the noise is negative.
    """

    def __init__(self, noise: float = 0.0) -> None:
        if not noise >= 0:
            raise ValueError(f"Expected noise >= 0 but got {noise}.")
        self.noise = noise

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """States ``(count, channel, x, y)`` in float64 on the generator's device.

        Raises:
            ValueError: if the simulator is none of enclosed flows, or one of another number of cases.
        """
        solver = _solver(simulator, count)
        state = solver.at_rest().double()
        if self.noise > 0:
            speeds = torch.tensor([case.expected_speed for case in solver.cases], dtype=torch.float64)
            shape = (count, 2, *solver.shape)
            drawn = torch.randn(shape, dtype=torch.float64, device=generator.device, generator=generator)
            disturbance = self.noise * speeds.to(drawn).reshape(-1, 1, 1, 1) * drawn
            state[:, :2] += disturbance.to(state.device)
        return solver.without_divergence(state).to(generator.device)


class SmokeAtRest:
    """Smoke in a fluid at rest: the magnitude of a random field of unit standard deviation; a `Start`.

    Args:
        field: drawn in the periodic box of the same size, one channel.
    """

    def __init__(self, field: InitialCondition) -> None:
        self.field = field

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """States ``(count, channel, x, y)`` in float64 on the generator's device.

        Raises:
            ValueError: if the simulator carries no scalar.
        """
        solver = _solver(simulator, count)
        if solver.scheme.transport is None:
            raise ValueError(f"Expected a flow with smoke but its channels are {[c.name for c in solver.channels]}.")
        state = solver.at_rest().double()
        drawn = self.field.sample(count, solver.shape, solver.cases[0].box.lengths, generator)[:, 0]
        state[:, -1] = (drawn / drawn.std((1, 2), keepdim=True)).abs().to(state.device)
        return state.to(generator.device)


def _solver(simulator: Simulator, count: int) -> EnclosedCases:
    if isinstance(simulator, EnclosedFlow):
        return simulator.of_base(count)
    if not isinstance(simulator, EnclosedCases):
        raise ValueError(f"Expected an enclosed flow to start but got {type(simulator).__name__}.")
    if len(simulator.cases) != count:
        raise ValueError(f"Expected a start of all {len(simulator.cases)} cases but got {count}.")
    return simulator

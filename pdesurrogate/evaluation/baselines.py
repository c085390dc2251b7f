"""Baselines that belong into every table: persistence, and the equation's own solver on coarser grids."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdesurrogate.evaluation.evaluator import ModelCard
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.physics.spectral import resample
from pdesurrogate.simulators.recipe import Simulator, build_simulator
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.resampled import Resampled

# A run and its twin at half the time step must agree this well in mean square at every frame to count as stable.
STABILITY_TOLERANCE = 0.01
# Other trajectories may be faster than those that the step was found on.
STABILITY_MARGIN = 1.1
_MOST_STEPS = 4096
# As the networks compute; a solver timed in double precision would be a handicapped rival.
_PRECISION = "float32"


def persistence() -> tuple[Persistence, ModelCard]:
    """The last frame repeated: what a model must beat to be worth anything."""
    stepper = Persistence()
    return stepper, ModelCard.of(stepper, "persistence", "baseline")


def coarse_solver(
    trajectories: Sequence[Trajectory], resolution: int, device: str = "cpu"
) -> tuple[Resampled, ModelCard]:
    """The solver that made the data, on ``resolution`` points a side, at its largest stable time step.

    The step is found on trajectories other than those that are measured, and a tenth more steps are taken: what is just
    stable on some trajectories blows up on faster ones.

    Args:
        trajectories: to find that step on, over their whole length; not those of the test split.
        resolution: of the solver's own grid.
        device: to find the step on.

    Raises:
        ValueError: if the data do not carry the recipe of one of our simulators, or no step is stable.
    """
    metadata = trajectories[0].metadata
    text = metadata.attributes.get("recipe")
    if not text:
        raise ValueError(
            f"Expected data that one of our simulators made but {metadata.name!r} carries no recipe; "
            "give a solver of your own with --stepper instead of --coarse-solver."
        )
    recipe: dict[str, Any] = json.loads(text)

    def build(steps: int) -> Simulator:
        simulator: Simulator = build_simulator(
            recipe, resolution=resolution, steps_per_frame=steps, precision=_PRECISION
        )
        if isinstance(simulator, nn.Module):
            simulator.to(device)
        return simulator

    shape = (resolution,) * metadata.grid.dimension
    start = torch.stack([trajectory.read(0, 1)[0] for trajectory in trajectories])
    found = largest_stable_step(build, resample(start, shape).to(device), len(trajectories[0]) - 1)
    steps = math.ceil(STABILITY_MARGIN * found)
    solver = build(steps)
    stepper = Resampled(solver, resolution)  # type: ignore[arg-type]  # every simulator of ours is a stepper
    config = {
        "resolution": resolution,
        "steps_per_frame": steps,
        "time_step": solver.time_step,
        "precision": _PRECISION,
        "scheme": recipe["simulator"]["init_args"].get("scheme"),
        "largest_stable_steps": found,
        "stable": f"mean square within {STABILITY_TOLERANCE:g} of half the step on {len(trajectories)} other "
        f"trajectories; {STABILITY_MARGIN:g} times as many steps taken",
    }
    sizes = " x ".join(str(size) for size in shape)
    return stepper, ModelCard.of(stepper, f"solver {sizes}", "solver", config=config)


def largest_stable_step(build: Callable[[int], Simulator], start: Tensor, frames: int) -> int:
    """The smallest number of steps per frame interval at which a solver is stable.

    Stable means that the mean square of every trajectory is finite and, at every frame, within `STABILITY_TOLERANCE`
    of what half the time step gives.

    Args:
        build: gives the solver for a number of steps per frame.
        start: states ``(batch, channel, *space)`` to start from.
        frames: number of frames that are run.

    Raises:
        ValueError: if there is none up to 4096.
    """
    sizes: dict[int, Tensor] = {}

    def run(steps: int) -> Tensor:
        if steps not in sizes:
            solver, state, squares = build(steps), start, []
            with torch.no_grad():
                for _ in range(frames):
                    state = solver.advance(state, steps)
                    squares.append(state.square().flatten(1).mean(1))
            sizes[steps] = torch.stack(squares)
        return sizes[steps]

    steps = 1
    while steps <= _MOST_STEPS:
        coarse, fine = run(steps), run(2 * steps)
        # A comparison with NaN is false, so a run that blew up is not stable.
        if bool(((coarse - fine).abs() <= STABILITY_TOLERANCE * fine).all()):
            return steps
        steps = max(steps + 1, round(1.25 * steps))
    raise ValueError(f"Expected a stable time step with at most {_MOST_STEPS} steps a frame; the states may be unfit.")

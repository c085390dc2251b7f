"""The coarse solver of enclosed flows: a baseline for surrogates of cavities, channels and wakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pdesurrogate.evaluation.card import ModelCard
from pdesurrogate.evaluation.recipes import recipe_of
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
from pdesurrogate.simulators.enclosed.problems import Problem
from pdesurrogate.simulators.recipe import build_simulator
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.in_cells import InCells
from pdesurrogate.steppers.regridded import Regridded

# As the networks compute; a solver timed in double precision would be a handicapped rival.
_PRECISION: Literal["float32"] = "float32"
# Time steps that no check refuses; the limit is asked for before any is made.
_ANY_STEPS = 10**12


def enclosed_flow_of(metadata: Metadata) -> EnclosedFlow | None:
    """The solver that made a data set of enclosed flows by its recipe; ``None`` for other data."""
    recipe = recipe_of(metadata)
    if recipe is None or not isinstance(recipe.get("simulator"), dict):
        return None
    solver = build_simulator(recipe)
    return solver if isinstance(solver, EnclosedFlow) else None


def coarse_flow(trajectories: Sequence[Trajectory], cells: int) -> tuple[Stepper, ModelCard]:
    """The solver that made a data set of enclosed flows, on few cells and at the largest time step that it accepts.

    That step is known from the parameters of the cases, those that are measured: no frame of theirs is read. The limit
    of the cell Reynolds number is lifted, since how wrong a grid is that cannot resolve the flow is what is asked.

    Args:
        trajectories: the cases.
        cells: along the shorter side of the grid that made the data, the other in proportion.

    Raises:
        ValueError: if the data are none of an `EnclosedFlow`, or a case does not fit on so few cells.
    """
    if len(trajectories) == 0:
        raise ValueError("Expected at least one trajectory but the split is empty; choose another split.")
    metadata = trajectories[0].metadata
    original, recipe = enclosed_flow_of(metadata), recipe_of(metadata)
    if original is None or recipe is None:
        raise ValueError(
            f"Expected data that our solver of enclosed flows made but {metadata.name!r} carries no recipe of one; "
            "give a solver of your own with --stepper instead of --coarse-solver."
        )
    if cells < 4:
        raise ValueError(f"Expected at least four cells along the shorter side for --coarse-solver but got {cells}.")
    x, y = (round(cells * size / min(original.shape)) for size in original.shape)
    changes: dict[str, Any] = {"shape": [x, y], "largest_cell_reynolds_number": math.inf, "precision": _PRECISION}
    # The problem's own case counts too: the solver is built for it.
    problems = [original.problem, *(_problem_of(trajectory, original) for trajectory in trajectories)]
    steps = max(_fewest_steps(original, problem, (x, y)) for problem in problems)
    solver: EnclosedFlow = build_simulator(recipe, steps_per_frame=steps, **changes)
    stepper: Stepper = Regridded(solver)
    if all(channel.location == "cell" for channel in metadata.channels[:2]):
        space = (trajectories[0].shape[2], trajectories[0].shape[3])
        own = max(_fewest_steps(original, problem, space) for problem in problems)
        changes["shape"] = list(space)
        flows: EnclosedFlow = build_simulator(recipe, **{**changes, "steps_per_frame": own})
        high_end: Literal["wall", "outlet"] = "outlet" if original.of_base(1).scheme.is_open else "wall"
        stepper = InCells(Regridded(solver), flows, metadata.parameters, high_end)
    config = {
        "shape": [x, y],
        "steps_per_frame": steps,
        "time_step": solver.time_step,
        "precision": _PRECISION,
        "stable": "the largest time step that the solver accepts for all cases by their parameters",
    }
    return stepper, ModelCard.of(stepper, f"solver {x} x {y}", "solver", config=config)


def _problem_of(trajectory: Trajectory, flow: EnclosedFlow) -> Problem:
    """With the parameters of a trajectory; those that it does not name are the solver's own."""
    given = trajectory.context.parameters
    values = {} if given is None else dict(zip(trajectory.metadata.parameters, given.tolist(), strict=True))
    own = {name: values[name] for name in flow.parameter_names if name in values}
    return replace(flow.problem, **own)  # type: ignore[type-var]


def _fewest_steps(flow: EnclosedFlow, problem: Problem, shape: tuple[int, int]) -> int:
    """In a frame interval, that are not refused."""
    case = EnclosedFlow(problem, shape, flow.frame_interval, _ANY_STEPS, math.inf, _PRECISION)
    return math.ceil(flow.frame_interval / case.largest_time_step() * (1 - 1e-9))

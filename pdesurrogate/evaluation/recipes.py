"""What the recipe inside a data set tells an evaluation: how many trajectories, which equation, which forcing."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.recipe import build_simulator


def recipe_of(metadata: Metadata) -> dict[str, Any] | None:
    """The plain form of the recipe; archives hold it as JSON text. ``None`` where the data carry none."""
    recipe = metadata.attributes.get("recipe")
    if isinstance(recipe, str):
        recipe = json.loads(recipe) if recipe else None
    return recipe if isinstance(recipe, dict) else None


def declared_trajectories(metadata: Metadata, split: str, default: int) -> int:
    """Trajectories of a split by the recipe, or ``default`` without one."""
    counts = (recipe_of(metadata) or {}).get("trajectories")
    return int(counts.get(split, default)) if isinstance(counts, dict) else default


def equation_solver(metadata: Metadata, shape: tuple[int, ...], **changes: Any) -> NavierStokes2d | None:
    """The solver that made the data, on a grid of ``shape`` and in double precision; ``None`` if it is not known.

    Where the data were computed on a finer grid, its residual on the truth is what the coarser grid cannot resolve.

    Args:
        metadata: of the data.
        shape: points along each axis.
        changes: further arguments of the solver that are other than in the recipe, ``steps_per_frame`` for example.

    Raises:
        ValueError: if the solver refuses an argument.
    """
    recipe = recipe_of(metadata)
    if recipe is None or not isinstance(recipe.get("simulator"), dict) or len(set(shape)) != 1:
        return None
    solver = build_simulator(recipe, **{"resolution": shape[0], "precision": "float64", **changes})
    return solver if isinstance(solver, NavierStokes2d) else None


def forcing_of(metadata: Metadata, shape: tuple[int, ...]) -> Tensor | None:
    """The steady source of each channel ``(channel, *space)`` by the recipe; ``None`` where none is known."""
    try:
        solver = equation_solver(metadata, shape)
    except (ValueError, TypeError, ImportError):
        # A recipe of someone else's tells us no forcing, and must not stop an evaluation.
        return None
    return None if solver is None else solver.forcing_field

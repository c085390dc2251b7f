"""Whether a solver could have made some data: before its residual blames a model for what is not its fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdesurrogate.evaluation.recipes import equation_solver
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.physics.residuals import March
from pdesurrogate.physics.spectral import resample
from pdesurrogate.steppers.resampled import Resampled

# Share of the frame interval by which a time may be off: archives may hold times in single precision.
_EVEN = 1e-3
# Parameters are stored in single precision.
_SAME_PARAMETER = 1e-5


def require_same_equation(march: March, trajectories: Sequence[Trajectory]) -> None:
    """Refuse trajectories that the march cannot have made: a residual would blame the model for what is not its fault.

    Fields and frame interval, even spacing in time, and, where march and data state them, parameters and forcing.

    Args:
        march: a solver, perhaps in `Resampled`.
        trajectories: of one data set.

    Raises:
        ValueError: naming what does not fit, or if there is no trajectory.
    """
    if len(trajectories) == 0:
        raise ValueError("Expected at least one trajectory but the split is empty; choose another split.")
    solver = march.stepper if isinstance(march, Resampled) else march
    theirs = getattr(solver, "metadata", None)
    if isinstance(theirs, Metadata):
        theirs.require_same_fields(trajectories[0].metadata, what=f"data set {trajectories[0].metadata.name!r}")
    parameters: Mapping[str, float] = getattr(solver, "parameters_by_name", {})
    forcing, of_recipe = getattr(solver, "forcing_field", None), _forcing_of_recipe(trajectories[0])
    for number, trajectory in enumerate(trajectories):
        interval = trajectory.metadata.frame_interval
        uneven = ((trajectory.times.diff() / interval - 1).abs() > _EVEN).nonzero()
        if len(uneven):
            frame = int(uneven[0])
            raise ValueError(
                f"Expected frames {interval:g} apart but frames {frame} and {frame + 1} of trajectory {number} are "
                f"{float(trajectory.times.diff()[frame]):g} apart; resample the data in time, evenly."
            )
        given = trajectory.context.parameters
        stated = {} if given is None else dict(zip(trajectory.metadata.parameters, given.tolist(), strict=True))
        for name, value in parameters.items():
            if name in stated and abs(stated[name] - value) > _SAME_PARAMETER * max(abs(value), abs(stated[name])):
                raise ValueError(
                    f"Expected the {name} {value:g} of the solver but trajectory {number} states {stated[name]:g}; "
                    "give a solver of that value, and refine trajectories of several values apart."
                )
        own = trajectory.context.forcing
        _require_forcing(forcing, of_recipe if own is None else own, number)


def _forcing_of_recipe(trajectory: Trajectory) -> Tensor | None:
    """By the recipe of the data, zero where it has none; ``None`` where it is not known."""
    try:
        solver = equation_solver(trajectory.metadata, trajectory.shape[2:])
    except (ValueError, TypeError, ImportError):
        return None
    if solver is None:
        return None
    return torch.zeros(1, *solver.shape) if solver.forcing_field is None else solver.forcing_field


def _require_forcing(ours: Tensor | None, given: Tensor | None, number: int) -> None:
    if given is None:
        return
    cure = "give a solver with the forcing of the data."
    if ours is None:
        if bool(given.any()):
            raise ValueError(f"Expected no forcing, as the solver has none, but trajectory {number} has one; {cure}")
        return
    if given.shape[0] != ours.shape[0] or given.ndim != ours.ndim:
        raise ValueError(
            f"Expected a forcing {tuple(ours.shape)} but that of trajectory {number} is {tuple(given.shape)}; {cure}"
        )
    coarse = min(given.shape[1:], ours.shape[1:])
    one, other = (resample(field.double().cpu(), coarse) for field in (given, ours))
    # The solver's lacks the waves beyond its mask.
    if bool((one - other).norm() > 0.01 * other.norm()):
        raise ValueError(f"Expected the forcing of the solver but that of trajectory {number} is another; {cure}")

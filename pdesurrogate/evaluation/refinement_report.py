"""What a report says of a refinement: error, residual, time by iteration, and the plain solver's time to each error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from pdesurrogate.evaluation.baselines import solver_sweep
from pdesurrogate.evaluation.cost import Performance, SolverPoint, SolverSweep, SpeedUp, cost_of, speed_up
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.recipes import equation_solver
from pdesurrogate.evaluation.refinement import DEFECT_ORDER, Marched, Refinement, RefinementTrial, Table, described
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.metrics.flow import joint_units
from pdesurrogate.physics.residuals import March
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.refinement.residuals import Defect
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.spectral_refiner import OUTCOMES

# Errors of a refinement and of its own solver that are as close differ by what the last iteration left.
_ROUND_OFF = 1e-3


def add_refinement(report: Report, trial: RefinementTrial, settings: Mapping[str, Any]) -> Report:
    """A report with what each iteration made of the first block, as curves and as the entry ``refinement``.

    Where the report is of that one block, its times are those of the trial, and what an evaluation of
    `RefinementTrial.replayed` did not do is in its wall time.

    Args:
        report: of the refined stepper, perhaps replayed, on the trajectories of the trial.
        trial: that was made.
        settings: entries ``method``, ``residual`` and ``march``, in plain values.
    """
    found = trial.measured()
    entry = {"method": {}, "residual": {}, "march": {}, **settings, **_entry(found)}
    both = ("trajectory", "iteration")
    metadata, residual = trial.refiner.metadata, trial.refiner.residual
    defect_order = residual.order if isinstance(residual, Defect) else DEFECT_ORDER
    units, defect_units = _residual_units(metadata, residual.order), _residual_units(metadata, defect_order)
    flags = {"flag_values": np.arange(len(OUTCOMES), dtype=np.int8), "flag_meanings": " ".join(OUTCOMES)}
    seconds = np.array([each.seconds_per_frame for each in found.performances])
    curves = {
        "refined_relative_l2": (both, found.relative_l2, _about("relative L2 error of the first block")),
        "refined_residual": (both, found.residual, _about("estimator that is made small", units)),
        "refined_defect": (both, found.defect, _about("estimator of the march's defect", defect_units)),
        "refined_outcome": (both, found.outcome, {**_about("how the refinement stands"), **flags}),
        "refined_seconds_per_frame": (("iteration",), seconds, _about("time up to and including the iteration", "s")),
    }
    iterations = ("iteration", np.arange(len(seconds)), _about("iterations of the refinement"))
    together = report.curves.assign(curves).assign_coords(iteration=iterations)
    attributes = {**report.attributes, "refinement": entry}
    if report.attributes["data"]["frames"] == trial.frames:
        run, last = report.attributes["run"], found.performances[-1]
        wall_time = run["wall_time_s"] + trial.seconds
        attributes["run"] = {**run, "seconds_per_frame": last.seconds_per_frame, "wall_time_s": wall_time}
        attributes["cost"] = cost_of(report, last, None, **_memory(report)).to_dict()
    return Report(attributes, together)


def add_solver(
    report: Report,
    trial: RefinementTrial,
    validation: Sequence[Trajectory],
    resolutions: Sequence[int] | None = None,
    *,
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """The report of `add_refinement` with the time that the plain solver takes to the error of each iteration.

    The solver that made the data is swept over resolution and time step on the same frames and under the same
    conditions, taking turns with the refiner; the residual's own solver, which may be more precise, is compared with as
    well. Where the report is of that one block, its cost is stated too.

    Args:
        report: of `add_refinement`, from an evaluation with the trial's batch size and device.
        trial: the same.
        validation: trajectories to find stable time steps on.
        resolutions: of the solver's grid; see `solver_sweep`.
        rounds: of the measurement.
        progress: told (parts done, parts in all).

    Raises:
        ValueError: as `solver_sweep` and `speed_up`.
    """
    device, data, run = str(trial.device), report.attributes["data"], report.attributes["run"]
    evaluator = Evaluator(lambda plan: {"errors": ErrorMetric(plan)}, batch_size=trial.batch_size, device=device)
    refined, turns = trial.stepper, 0

    def evaluate(candidate: Stepper) -> Report:
        nonlocal turns
        if candidate is not refined:
            # A finer grid keeps its waves until the last frame, as that of the refiner does.
            if isinstance(candidate, Resampled):
                candidate = Resampled(Marched(candidate.stepper, trial.frames), candidate.resolution)
            return evaluator(
                candidate, trial.trajectories, trial.frames, split=data["split"], start_frame=trial.start_frame
            )
        # It took its first turn when the trial was made.
        if turns and not trial.takes_long:
            trial.again()
        turns += 1
        seconds = trial.measured().performances[-1].seconds_per_frame
        return Report({**report.attributes, "run": {**run, "seconds_per_frame": seconds}}, report.curves)

    sweep, (whole,) = solver_sweep(
        validation, evaluate, resolutions, models=(refined,), device=device, rounds=rounds, progress=progress
    )
    assert whole.conditions is not None
    found = trial.measured(replace(whole.conditions, frames=trial.frames))
    performances = [_no_better(performance, found.solver) for performance in found.performances]
    rivals = _with_own_solver(sweep, trial.refiner.march, trial.trajectories[0].metadata, found.solver)
    gains = [speed_up(performance, rivals) for performance in performances]
    attributes = {
        **report.attributes,
        "refinement": {**report.attributes["refinement"], **_entry(found, gains, sweep)},
    }
    if data["frames"] == trial.frames:
        attributes["cost"] = cost_of(report, performances[-1], rivals, **_memory(report)).to_dict()
    seconds = ("iteration", [each.seconds_per_frame for each in found.performances])
    labels = report.curves["refined_seconds_per_frame"].attrs
    return Report(attributes, report.curves.assign(refined_seconds_per_frame=(*seconds, labels)))


def _no_better(performance: Performance, solver: Performance) -> Performance:
    """The performance with errors that are those of the residual's own solver, but for round-off, set equal to them."""
    errors = zip(performance.errors, solver.errors, strict=True)
    return replace(
        performance,
        errors=tuple(theirs if math.isclose(ours, theirs, rel_tol=_ROUND_OFF) else ours for ours, theirs in errors),
    )


def _with_own_solver(sweep: SolverSweep, march: March, metadata: Metadata, performance: Performance) -> SolverSweep:
    """The sweep with the residual's own solver as one more setting, where its numbers are known."""
    solver = march.stepper if isinstance(march, Resampled) else march
    if not isinstance(solver, _Setting):
        return sweep
    precision = str(solver.dtype).removeprefix("torch.")
    numbers = solver.resolution, solver.steps_per_frame, precision
    original = sweep.data_solver
    maker = equation_solver(metadata, (solver.resolution,) * metadata.grid.dimension)
    made = (
        original is not None
        and numbers == (original.resolution, original.steps_per_frame, original.precision)
        and maker is not None
        and described(maker) == described(march)
    )
    if made and original is not None:
        # One solver, timed twice.
        shortest = min(performance.seconds_per_frame, original.performance.seconds_per_frame)
        performance = replace(performance, seconds_per_frame=shortest)
    own = SolverPoint(solver.resolution, solver.steps_per_frame, solver.time_step, precision, performance, made)
    return replace(sweep, points=(*sweep.points, own))


def _entry(
    found: Refinement, gains: Sequence[SpeedUp] | None = None, sweep: SolverSweep | None = None
) -> dict[str, Any]:
    """What a report says of the iterations, in plain values."""
    unknown = SpeedUp(None, "There is no speed-up: no setting of a solver was measured.")
    gains = [unknown] * len(found.performances) if gains is None else gains
    rows = zip(found.performances, found.residual.T, found.defect.T, gains, strict=True)
    return {
        "frames": found.frames,
        "iterations": [
            {
                "iteration": number,
                "relative_l2": performance.relative_l2,
                "spread": performance.relative_l2_spread,
                "residual": _mean(residual),
                "defect": _mean(defect),
                "seconds_per_frame": performance.seconds_per_frame,
                "solver_seconds_per_frame": gain.solver_seconds_per_frame,
                "speed_up": gain.value,
                "at_most": gain.at_most,
                "reason": gain.reason,
            }
            for number, (performance, residual, defect, gain) in enumerate(rows)
        ],
        "outcomes": found.outcomes,
        "solver": {
            "relative_l2": found.solver.relative_l2,
            "spread": found.solver.relative_l2_spread,
            "seconds_per_frame": found.solver.seconds_per_frame,
            "description": found.solver_description,
        },
        "sweep": None if sweep is None else sweep.to_dict(),
    }


def _memory(report: Report) -> dict[str, Any]:
    return {key: report.attributes["cost"][key] for key in ("peak_memory_bytes", "module_bytes")}


@runtime_checkable
class _Setting(Protocol):
    """A solver whose setting can stand in a sweep."""

    resolution: int
    steps_per_frame: int
    time_step: float
    dtype: torch.dtype


def _mean(values: Table) -> float | None:
    mean = float(values.mean())
    return mean if math.isfinite(mean) else None


def _residual_units(metadata: Metadata, order: float) -> str:
    """Of a norm in ``H^order`` of the first channel's residual."""
    rate, length = joint_units(metadata.channels[0].units, metadata.time_units, "/"), metadata.grid.axes[0].units
    if order == 0 or length == "1":
        return rate
    return joint_units(rate, length if order == -1 else f"{length}^{-order:g}", " ")


def _about(long_name: str, units: str = "1") -> dict[str, str]:
    return {"long_name": long_name, "units": units}

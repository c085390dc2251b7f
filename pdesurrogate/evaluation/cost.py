"""What accuracy costs: speed-up at equal error, and how many rollouts pay a model back.

A surrogate that is faster than the solver which made the data, and less accurate, has shown nothing: a coarser solver
is faster and less accurate too. So the model is compared with the setting of the solver (resolution and time step) that
is just as accurate on the same trajectories. Here is the arithmetic alone; `baselines.solver_sweep` measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from pdesurrogate.evaluation.report import Report

# A bootstrap over fewer trajectories says little.
_FEWEST_TRAJECTORIES = 5
_RESAMPLES = 1000
# Times of one stepper that differ by a larger factor are worth a word.
_QUIET = 1.5
_SEED = 20260101


@dataclass(frozen=True)
class Conditions:
    """What two steppers' times and errors must share to be compared; all as a report states it."""

    data: str
    split: str
    trajectories: int
    start_frame: int
    frames: int
    batch_size: int
    device: str
    threads: int
    processes: int = 1


@dataclass(frozen=True)
class Performance:
    """How accurate a stepper is and how long it takes.

    Attributes:
        errors: relative L2 error of each trajectory, mean over lead times and channels; NaN where it was stopped.
        seconds_per_frame: wall time in the stepper for one frame of one trajectory.
        conditions: of the measurement, where they are known.
        time_scatter: longest over shortest time of several evaluations; far above one if the machine was busy.
    """

    errors: tuple[float, ...]
    seconds_per_frame: float
    conditions: Conditions | None = None
    time_scatter: float | None = None

    def __post_init__(self) -> None:
        if not self.errors or any(error < 0 for error in self.errors):
            raise ValueError(f"Expected errors >= 0 of at least one trajectory but got {list(self.errors)}.")
        if not 0 < self.seconds_per_frame < math.inf:
            raise ValueError(f"Expected a positive time for a frame but got {self.seconds_per_frame}.")

    @classmethod
    def of_reports(cls, reports: Sequence[Report]) -> Performance:
        """From evaluations of one stepper under the same conditions: errors of the first, shortest of the times.

        Whatever else the machine does only adds to a time.

        Raises:
            ValueError: if there is no report or their conditions differ.
        """
        if not reports:
            raise ValueError("Expected at least one report but got none.")
        first, *others = map(_conditions, reports)
        for other in others:
            _require_same(first, other)
        curve = reports[0].curves["relative_l2"]
        errors = curve.mean([dim for dim in curve.dims if dim != "trajectory"], skipna=False)
        seconds = [report.attributes["run"]["seconds_per_frame"] for report in reports]
        scatter = max(seconds) / min(seconds) if min(seconds) > 0 and len(seconds) > 1 else None
        return cls(tuple(map(float, errors.values)), float(min(seconds)), first, scatter)

    @property
    def relative_l2(self) -> float | None:
        """Mean over trajectories; ``None`` if any of them was stopped."""
        mean = sum(self.errors) / len(self.errors)
        return mean if math.isfinite(mean) else None

    @property
    def relative_l2_spread(self) -> float | None:
        """Standard error of the mean over trajectories; ``None`` for a single one or if any was stopped."""
        if self.relative_l2 is None or len(self.errors) < 2:
            return None
        return float(np.std(self.errors, ddof=1)) / math.sqrt(len(self.errors))


def _conditions(report: Report) -> Conditions:
    data, run = report.attributes["data"], report.attributes["run"]
    return Conditions(
        data["content_hash"] or data["name"],
        data["split"],
        data["trajectories"],
        data["start_frame"],
        data["frames"],
        run["batch_size"],
        run["device"],
        run["threads"],
        run["processes"],
    )


def _require_same(one: Conditions | None, other: Conditions | None) -> None:
    if one == other:
        return
    ours, theirs = (asdict(each) if each else {} for each in (one, other))
    differing = {key: (ours.get(key), theirs.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}
    raise ValueError(f"Expected measurements under the same conditions but these differ: {differing}; measure again.")


@dataclass(frozen=True)
class SolverPoint:
    """One setting of the solver, measured.

    Attributes:
        resolution: points along each side of its grid.
        steps_per_frame: time steps in a frame interval.
        time_step: physical time.
        precision: ``"float32"`` or ``"float64"``.
        performance: on the data's own grid.
        makes_data: whether the data were made with this very setting. It is compared with itself, so its error is no
            error of its solution.
    """

    resolution: int
    steps_per_frame: int
    time_step: float
    precision: str
    performance: Performance
    makes_data: bool = False

    @property
    def stable(self) -> bool:
        """Whether no trajectory was stopped."""
        return self.performance.relative_l2 is not None

    @property
    def label(self) -> str:
        """The setting and its error in words."""
        error = self.performance.relative_l2
        steps = "1 step" if self.steps_per_frame == 1 else f"{self.steps_per_frame} steps"
        found = "unstable" if error is None else f"error {error:.3g}"
        return f"{self.resolution} points a side, {steps} a frame ({found})"

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it."""
        return {
            "resolution": self.resolution,
            "steps_per_frame": self.steps_per_frame,
            "time_step": self.time_step,
            "precision": self.precision,
            "makes_data": self.makes_data,
            "relative_l2": self.performance.relative_l2,
            "relative_l2_spread": self.performance.relative_l2_spread,
            "seconds_per_frame": self.performance.seconds_per_frame,
            "stable": self.stable,
        }


@dataclass(frozen=True)
class SolverSweep:
    """All settings of the solver that were measured.

    Attributes:
        points: in any order.
        skipped: resolution and reason of those at which no setting was usable.
        method: how the settings were chosen, in words.
    """

    points: tuple[SolverPoint, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    method: str = ""

    @property
    def data_solver(self) -> SolverPoint | None:
        """The setting that made the data."""
        return next((point for point in self.points if point.makes_data), None)

    @property
    def front(self) -> tuple[SolverPoint, ...]:
        """The cheapest setting at each error: cheapest first, every further one more accurate than all before it."""
        stable = [point for point in self.points if point.stable]
        return tuple(stable[place] for place in _front(stable, _mean_errors(stable)))

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it; the points cheapest first."""
        return {
            "points": [point.to_dict() for point in sorted(self.points, key=_seconds)],
            "skipped": [{"resolution": resolution, "reason": reason} for resolution, reason in self.skipped],
            "method": self.method,
        }


def _seconds(point: SolverPoint) -> float:
    return point.performance.seconds_per_frame


def _mean_errors(points: Iterable[SolverPoint]) -> list[float]:
    return [sum(point.performance.errors) / len(point.performance.errors) for point in points]


def _front(points: Sequence[SolverPoint], errors: Sequence[float]) -> list[int]:
    """Places of the points on the Pareto front, cheapest first."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (_seconds(points[place]), errors[place])):
        if not front or errors[place] < errors[front[-1]]:
            front.append(place)
    return front


class _EqualError(NamedTuple):
    """Seconds that a solver needs for an error, and the places of the points that say so.

    ``relation`` is "interpolated" between two points, "coarsest" if even the cheapest is more accurate and so bounds
    the seconds from above, "data" if only the setting that made the data is as accurate, which bounds them too.
    """

    seconds: float
    relation: Literal["interpolated", "coarsest", "data"]
    between: tuple[int, ...]


def _at_equal_error(points: Sequence[SolverPoint], errors: Sequence[float], error: float) -> _EqualError | None:
    """``None`` if no point is as accurate as ``error``."""
    front = _front(points, errors)
    rank = next((rank for rank, place in enumerate(front) if errors[place] <= error), None)
    if rank is None:
        return None
    finer = front[rank]
    seconds = _seconds(points[finer])
    if points[finer].makes_data or errors[finer] == 0:
        return _EqualError(seconds, "data", (finer,))
    if errors[finer] == error:
        return _EqualError(seconds, "interpolated", (finer,))
    if rank == 0:
        return _EqualError(seconds, "coarsest", (finer,))
    coarser = front[rank - 1]
    share = math.log(errors[coarser] / error) / math.log(errors[coarser] / errors[finer])
    cheaper = _seconds(points[coarser])
    return _EqualError(cheaper * (seconds / cheaper) ** share, "interpolated", (coarser, finer))


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster a model is than a solver of the same error; made by `speed_up`.

    Attributes:
        value: solver seconds over model seconds; ``None`` where no solver is known to be as accurate.
        at_most: whether ``value`` is an upper bound.
        interval: 95 % over trajectories, where ``value`` is no bound; an end beyond the sweep is ``None``.
        relative_l2: error at which the two are compared.
        solver_seconds_per_frame: of the solver at that error, or its upper bound.
        model_seconds_per_frame: of the model.
        between: settings that the solver's seconds come from.
        reason: all of it in words.
    """

    value: float | None
    reason: str
    at_most: bool = False
    interval: tuple[float | None, float | None] | None = None
    relative_l2: float | None = None
    solver_seconds_per_frame: float | None = None
    model_seconds_per_frame: float | None = None
    between: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it."""
        return _plain(self)


def speed_up(model: Performance, sweep: SolverSweep) -> SpeedUp:
    """Speed-up of a model over the solver at the model's own error.

    The solver's seconds at that error follow from the front of the sweep: between the two settings whose errors enclose
    it, log seconds are linear in log error. They are always at least those of the less accurate one and at most those
    of the more accurate one. Where the model is less accurate than every setting, the cheapest one bounds them from
    above. Where only the setting that made the data is as accurate, that one does, for it is compared with itself and
    nothing can be read off between. Where no setting is as accurate, there is no number.

    The interval is a percentile bootstrap over trajectories, the same ones drawn for model and solver, so that a
    trajectory which is hard for both is no uncertainty of their ratio. Scatter of the times is not in it.

    Args:
        model: measured under the conditions of the sweep.
        sweep: of the solver.

    Raises:
        ValueError: if the conditions or the numbers of trajectories differ.

    Example:
        >>> def setting(resolution: int, error: float, seconds: float) -> SolverPoint:
        ...     return SolverPoint(resolution, 4, 0.1, "float32", Performance((error,), seconds))
        >>> sweep = SolverSweep((setting(16, 0.4, 1.0), setting(32, 0.1, 4.0)))
        >>> found = speed_up(Performance((0.2,), 0.5), sweep)  # at half the error of the first: 2 s
        >>> round(found.value, 6), found.solver_seconds_per_frame
        (4.0, 2.0)
    """
    for point in sweep.points:
        _require_same(model.conditions, point.performance.conditions)
        if len(point.performance.errors) != len(model.errors):
            raise ValueError(
                f"Expected a sweep over the model's {len(model.errors)} trajectories but a setting was measured on "
                f"{len(point.performance.errors)}; measure both on the same."
            )
    error = model.relative_l2
    if error is None:
        endless = any(math.isinf(each) for each in model.errors)
        why = (
            "the truth of a channel vanishes, so its relative error has no scale"
            if endless
            else ("a rollout of the model was stopped, so it has no mean error")
        )
        return SpeedUp(None, f"There is no speed-up: {why}.")
    points = [point for point in sweep.points if point.stable]
    found = _at_equal_error(points, _mean_errors(points), error)
    if found is None:
        reason = f"There is no speed-up: the model's relative L2 error is {error:.3g} and"
        if not points:
            return SpeedUp(None, f"{reason} no setting of the solver was stable.")
        best = min(points, key=lambda point: (point.performance.relative_l2, _seconds(point)))
        return SpeedUp(None, f"{reason} no setting of the solver is as accurate; the best is {best.label}.")
    return SpeedUp(
        found.seconds / model.seconds_per_frame,
        _in_words(found, points, error, model),
        at_most=found.relation != "interpolated",
        interval=_interval(model, points) if found.relation == "interpolated" else None,
        relative_l2=error,
        solver_seconds_per_frame=found.seconds,
        model_seconds_per_frame=model.seconds_per_frame,
        between=tuple(points[place].label for place in found.between),
    )


def _in_words(found: _EqualError, points: Sequence[SolverPoint], error: float, performance: Performance) -> str:
    labels = " and ".join(points[place].label for place in found.between)
    timed = [performance, *(points[place].performance for place in found.between)]
    scatter = max(each.time_scatter or 1.0 for each in timed)
    busy = f" Times scattered by up to a factor {scatter:.2g}; measure on a quiet machine." if scatter > _QUIET else ""
    model = f"the model takes {_duration(performance.seconds_per_frame)}.{busy}"
    seconds = _duration(found.seconds)
    if found.relation == "coarsest":
        return (
            f"The model's relative L2 error of {error:.3g} is larger than that of every setting of the solver, so a "
            f"solver that is no better takes at most the {seconds} a frame of the cheapest, {labels}; {model}"
        )
    if found.relation == "data":
        return (
            f"At the model's relative L2 error of {error:.3g} a solver takes at most the {seconds} a frame of the "
            f"setting that made the data, {labels}, for no other is as accurate; {model}"
        )
    where = "measured at" if len(found.between) == 1 else "interpolated between"
    at = f"At the model's relative L2 error of {error:.3g}"
    return f"{at} a solver takes {seconds} a frame, {where} {labels}; {model}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _interval(
    model: Performance, points: Sequence[SolverPoint], level: float = 0.95
) -> tuple[float | None, float | None] | None:
    """Of the speed-up; ``None`` for an end beyond the sweep, or altogether where trajectories are few."""
    count = len(model.errors)
    if count < _FEWEST_TRAJECTORIES:
        return None
    # How often each trajectory is drawn, as weights.
    weights = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES) / count
    means = weights @ np.array([point.performance.errors for point in points]).T
    values = []
    for own, solvers in zip(weights @ np.array(model.errors), means.tolist(), strict=True):
        found = _at_equal_error(points, solvers, own)
        if found is None:
            values.append(math.inf)
        else:
            values.append(0.0 if found.relation == "coarsest" else found.seconds / model.seconds_per_frame)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low) if low > 0 else None, float(high) if math.isfinite(high) else None


@dataclass(frozen=True)
class BreakEven:
    """After how many rollouts training and data are paid back; made by `break_even`.

    Attributes:
        rollouts: of one trajectory and ``frames`` frames each; ``None`` where that is never or not known.
        at_least: whether ``rollouts`` is a lower bound.
        interval: fewest and most, from that of the speed-up; an end that is never or not known is ``None``.
        frames: of a rollout.
        training_seconds: spent on training.
        data_seconds: spent on making the training and validation data.
        reason: all of it in words.
    """

    rollouts: int | None
    reason: str
    frames: int
    at_least: bool = False
    interval: tuple[int | None, int | None] | None = None
    training_seconds: float | None = None
    data_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it."""
        return _plain(self)


def break_even(
    gained: SpeedUp, frames: int, training_seconds: float | None, data_seconds: float | None, note: str = ""
) -> BreakEven:
    """``(training + data) / (frames (solver seconds - model seconds))``, at equal error.

    Args:
        gained: by `speed_up`.
        frames: of a rollout.
        training_seconds: wall time of the training; ``None`` where nothing was trained or it is not known.
        data_seconds: as `data_generation_seconds` gives it; ``None`` where it is not known.
        note: sentence to add to the reason.

    Raises:
        ValueError: if there are no frames or a time is negative.

    Example:
        >>> gained = SpeedUp(4.0, "", solver_seconds_per_frame=0.4, model_seconds_per_frame=0.1)
        >>> break_even(gained, frames=10, training_seconds=100.0, data_seconds=50.0).rollouts
        50
    """
    if frames < 1 or any(seconds is not None and seconds < 0 for seconds in (training_seconds, data_seconds)):
        raise ValueError(
            f"Expected at least one frame and times >= 0 but got {frames}, {training_seconds} and {data_seconds}."
        )

    def result(rollouts: int | None, reason: str, **details: Any) -> BreakEven:
        details |= {"training_seconds": training_seconds, "data_seconds": data_seconds}
        return BreakEven(rollouts, f"{reason} {note}".strip(), frames, **details)

    solver, model = gained.solver_seconds_per_frame, gained.model_seconds_per_frame
    if solver is None or model is None:
        return result(None, "Not known, for there is no speed-up at equal error.")
    if solver <= model:
        return result(None, "Never: the solver is faster at equal error.")
    if training_seconds is None:
        return result(None, "Not known: no training time is stated.")
    if data_seconds is None:
        return result(None, "Not known: what making the data cost was not measured.")
    spent = training_seconds + data_seconds
    interval = None
    if gained.interval is not None:
        slow, fast = ((None if end is None else (end - 1) * model) for end in gained.interval)
        interval = _paid_back(spent, frames, fast), _paid_back(spent, frames, slow)
    rollouts = _paid_back(spent, frames, solver - model)
    bound = "at least " if gained.at_most else ""
    reason = (
        f"Training took {_duration(training_seconds)} and the data {_duration(data_seconds)}; a rollout of {frames} "
        f"{'frame' if frames == 1 else 'frames'} saves {'at most ' if gained.at_most else ''}"
        f"{_duration(frames * (solver - model))}, so that {bound}{rollouts} rollouts pay them back."
    )
    return result(rollouts, reason, at_least=gained.at_most, interval=interval)


def _paid_back(spent: float, frames: int, saved_per_frame: float | None) -> int | None:
    """Rollouts, rounded up; ``None`` if nothing is saved or it is not known what."""
    if saved_per_frame is None or saved_per_frame <= 0:
        return None
    # Round-off must not make one rollout more of a whole number of them.
    return math.ceil(spent / (frames * saved_per_frame) * (1 - 1e-12))


def data_generation_seconds(recipe: Mapping[str, Any], seconds_per_frame: float) -> float:
    """Time to make the training and validation trajectories of a recipe's plain form, warm-up included.

    The first frame of a trajectory needs the warm-up alone. The time is that of one process at the batch size at which
    ``seconds_per_frame`` was measured.

    Example:
        >>> recipe = {"frames": 11, "warm_up": 2.0, "trajectories": {"train": 8, "val": 2, "test": 5}}
        >>> recipe["simulator"] = {"init_args": {"frame_interval": 0.5}}
        >>> data_generation_seconds(recipe, 0.1)  # 10 trajectories of 4 + 10 frame intervals
        14.0
    """
    intervals = recipe["warm_up"] / recipe["simulator"]["init_args"]["frame_interval"] + recipe["frames"] - 1
    return float((recipe["trajectories"]["train"] + recipe["trajectories"]["val"]) * intervals * seconds_per_frame)


@dataclass(frozen=True)
class Cost:
    """Everything that a report says about cost; made by `cost_of`.

    Attributes:
        seconds_per_frame: of the model, beside the sweep.
        time_scatter: of the model, see `Performance`.
        peak_memory_bytes: of one step, see `peak_memory`; ``None`` where it is not known.
        module_bytes: of parameters and buffers.
        sweep: of the solver; ``None`` where there is none.
        speed_up: at equal error.
        break_even: in rollouts.
    """

    seconds_per_frame: float
    time_scatter: float | None
    peak_memory_bytes: int | None
    module_bytes: int
    sweep: SolverSweep | None
    speed_up: SpeedUp
    break_even: BreakEven

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it."""
        return {
            "seconds_per_frame": self.seconds_per_frame,
            "time_scatter": self.time_scatter,
            "peak_memory_bytes": self.peak_memory_bytes,
            "module_bytes": self.module_bytes,
            "sweep": None if self.sweep is None else self.sweep.to_dict(),
            "speed_up": self.speed_up.to_dict(),
            "break_even": self.break_even.to_dict(),
        }


def cost_of(
    report: Report,
    performance: Performance,
    sweep: SolverSweep | None,
    *,
    peak_memory_bytes: int | None = None,
    module_bytes: int = 0,
    without_sweep: str = "no setting of a solver was measured",
) -> Cost:
    """The cost of a model, put together.

    Args:
        report: of the model: its training, the recipe of the data and the frames of a rollout are read from it.
        performance: of the model, measured beside the sweep.
        sweep: of the solver, under the same conditions.
        peak_memory_bytes: from `peak_memory`.
        module_bytes: from `module_bytes`.
        without_sweep: why there is no sweep.

    Raises:
        ValueError: if report, performance and sweep were measured under different conditions.
    """
    if performance.conditions is not None:
        _require_same(_conditions(report), performance.conditions)
    model, data, run = (report.attributes[key] for key in ("model", "data", "run"))
    gained = SpeedUp(None, f"There is no speed-up: {without_sweep}.") if sweep is None else speed_up(performance, sweep)
    training = model["training"] or {}
    solver = None if sweep is None else sweep.data_solver
    data_seconds = None
    if solver is not None and data["recipe"] is not None:
        data_seconds = data_generation_seconds(data["recipe"], solver.performance.seconds_per_frame)
    back = BreakEven(None, "Nothing was trained, so there is nothing to pay back.", data["frames"])
    if model["kind"] == "surrogate":
        note = _note(str(training.get("device", "")), run)
        back = break_even(gained, data["frames"], training.get("wall_time_s"), data_seconds, note)
    seconds, scatter = performance.seconds_per_frame, performance.time_scatter
    return Cost(seconds, scatter, peak_memory_bytes, module_bytes, sweep, gained, back)


def _note(training_device: str, run: Mapping[str, Any]) -> str:
    note = f"Times at batch size {run['batch_size']} on {run['device']}"
    elsewhere = training_device.partition(" ")[0] not in ("", str(run["device"]).partition(" ")[0])
    return f"{note}, but the training on {training_device}." if elsewhere else f"{note}."


def _plain(result: SpeedUp | BreakEven) -> dict[str, Any]:
    """Fields by name, tuples as lists: what JSON gives back."""
    values: Iterable[tuple[str, Any]] = asdict(result).items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

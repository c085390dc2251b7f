"""A channel left to itself: rolled out beyond the end of the truth and compared by its statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray

from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.channel import ChannelHistoryMetric, ChannelMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.ensemble import EnsembleStepper
from pdesurrogate.steppers.persistence import Persistence

PREFIX = "free_run_"
# Numbers this many standard errors of their difference apart are told apart; of equal ones, 5 to 9 percent are, by the
# number of blocks that the errors come from.
_BAND = 2.0
_HISTORIES = ("channel_bulk_velocity", "instantaneous_friction_reynolds_number")

Weights = np.ndarray[Any, np.dtype[np.float64]]


class _Numbers(NamedTuple):
    """Statistics of a run beside those of the data, each with its standard error; all of one shape ``(..., n)``."""

    run: np.ndarray[Any, np.dtype[np.float64]]
    run_error: np.ndarray[Any, np.dtype[np.float64]]
    truth: np.ndarray[Any, np.dtype[np.float64]]
    truth_error: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def in_band(self) -> float:
        """Share of the numbers that are within two standard errors of the difference; NaN where nothing is known."""
        error = np.hypot(self.run_error, self.truth_error)
        known = np.isfinite(self.run) & np.isfinite(error) & (error > 0)
        if not known.any():
            return math.nan
        return float((np.abs(self.run - self.truth) <= _BAND * error)[known].mean())

    def relative_l1(self, weights: Weights) -> float:
        """``sum |run - truth| / sum |truth|``, weighted with the heights ``(n,)`` that points stand for."""
        return float((np.abs(self.run - self.truth) * weights).sum() / (np.abs(self.truth) * weights).sum())

    def chance(self, weights: Weights) -> float:
        """What `relative_l1` would typically be if there were sampling errors alone: a normal deviate's mean size."""
        error = np.sqrt(2 / np.pi) * np.hypot(self.run_error, self.truth_error)
        return float((error * weights).sum() / (np.abs(self.truth) * weights).sum())

    @property
    def decades(self) -> float:
        """Root mean square of ``log10`` of the ratio over numbers of which neither is zero."""
        both = (self.run > 0) & (self.truth > 0)
        return float(np.sqrt(np.mean(np.log10(self.run[both] / self.truth[both]) ** 2))) if both.any() else math.nan


def add_free_run(
    report: Report,
    evaluator: Evaluator,
    stepper: Stepper,
    trajectories: Sequence[Trajectory],
    frames: int,
    truth: Sequence[Trajectory],
    *,
    on_batch: Callable[[int, int], None] | None = None,
) -> Report:
    """The report with the statistics of a rollout of any length beside those of all the truth there is.

    A turbulent flow forgets its start, so a long rollout has no true frames beside it; what it shares with the truth
    are statistics. Those of the run are pooled over trajectories and ``frames``, those of ``truth`` over all its
    frames but the first, both with standard errors from blocks of samples. Profiles, and line spectra without their
    highest mode, are compared in physical units point by point. Adds scores ``free_run_*``: how many trajectories
    lasted, the friction Reynolds number, relative L1 distances of profiles over the height, distances of spectra in
    decades, shares of numbers that are within two standard errors of the difference (91 to 95 % by chance, by the
    number of blocks), and the time that a turnover ``h / u_tau`` takes; and curves ``free_run_*``, see
    `free_run_curves`. The spread of an L1 distance is the one that sampling errors alone would typically make. Where a
    trajectory was stopped, distances are null: those of the frames before are no statistics.

    Args:
        report: of ``stepper``.
        evaluator: whose batch size, device and bounds hold here too.
        stepper: to be rolled out.
        trajectories: whose first frames it starts from.
        frames: to predict, more than the trajectories have or fewer.
        truth: of one length and of the same flow; best all that the data have.
        on_batch: told (trajectories done, trajectories in all) after every batch of the rollout.

    Raises:
        ValueError: if the data are no channel of one viscosity with a mean flow along its first periodic axis, truth
            differs in length, the stepper is an ensemble, whose mean is no flow, or as an evaluation.
    """
    if isinstance(stepper, EnsembleStepper):
        raise ValueError(
            "Expected one model for a free run but got an ensemble, whose mean is no flow; run them apart."
        )
    _require_one_flow(trajectories, truth)
    past = stepper.history_frames
    measure = Evaluator(
        _statistics, batch_size=evaluator.batch_size, device=str(evaluator.device), bounds=evaluator.bounds
    )
    known = Evaluator(_statistics, batch_size=evaluator.batch_size, device=str(evaluator.device))
    of_truth = known(Persistence(), truth, len(truth[0]) - 1, trajectories_declared=len(truth)).curves
    if "friction_reynolds_number_truth" not in of_truth:
        raise ValueError(
            "Expected data that state a viscosity for a free run, whose statistics are compared in wall units, but "
            f"{truth[0].metadata.name!r} names none; add it to the parameters."
        )
    _require_mean_flow(of_truth, truth[0].metadata)
    held = [_held(trajectory, past + frames) for trajectory in trajectories]
    run = measure(stepper, held, frames, start_frame=past, trajectories_declared=len(held), on_batch=on_batch)
    together = _beside(run.curves, of_truth)
    weights = ChannelMetric(RolloutPlan.of(truth, 1)).weights.numpy()
    per_second = truth[0].metadata.frame_interval / run.attributes["run"]["seconds_per_frame"]
    scores = {**report.attributes["scores"], **_scores(together, weights, per_second, frames)}
    return Report({**report.attributes, "scores": scores}, _joined(report.curves, _prefixed(together)))


def free_run_curves(report: Report) -> xarray.Dataset:
    """Curves of `add_free_run` under the names that they have in an evaluation, run as prediction.

    So that whatever takes ``Report.curves`` of a channel takes these, `WallUnitStatistics.of_report` for example.

    Raises:
        ValueError: if the report has no free run.
    """
    names = {str(name): str(name).removeprefix(PREFIX) for name in report.curves if str(name).startswith(PREFIX)}
    if not names:
        raise ValueError("Expected a report with a free run; evaluate with --free-run FRAMES.")
    return report.curves[list(names)].rename(
        names | {f"{PREFIX}time": "lead_time", f"{PREFIX}trajectory": "trajectory"}
    )


def free_run_lines(report: Report) -> list[str]:
    """The scores of a free run as lines of text; none where there was none."""
    scores = report.attributes["scores"]
    found = {name.removeprefix(PREFIX): score for name, score in scores.items() if name.startswith(PREFIX)}
    if not found:
        return []
    frames = report.curves.sizes[f"{PREFIX}time"]
    lines = [f"free run of {frames} frames, beside the statistics of all data:"]
    for name, score in found.items():
        error = "" if score["spread"] is None else f" +- {score['spread']:.2g}"
        unknown = "unknown" if found["survival"]["value"] == 1 else "stopped before its end"
        value = unknown if score["value"] is None else f"{score['value']:.4g}{error}"
        units = "" if score["units"] == "1" else f" {score['units']}"
        lines.append(f"  {name.replace('_', ' '):44}{value}{units}")
    return lines


def _statistics(plan: RolloutPlan) -> dict[str, RolloutMetric]:
    return {
        "channel": ChannelMetric(plan),
        "history": ChannelHistoryMetric(plan),
        "line_spectra": LineSpectrumMetric(plan),
    }


def _held(trajectory: Trajectory, frames: int) -> Trajectory:
    """The trajectory with its last frame repeated: an evaluation wants frames beside a rollout, compared or not."""
    last = len(trajectory) - 1
    times = trajectory.times[0] + trajectory.metadata.frame_interval * torch.arange(frames)

    def read_into(start: int, out: torch.Tensor) -> None:
        whole = min(max(len(trajectory) - start, 0), len(out))
        if whole:
            trajectory.read_into(start, out[:whole])
        if whole < len(out):
            trajectory.read_into(last, out[whole : whole + 1])
            out[whole + 1 :] = out[whole]

    return replace(
        trajectory, times=times.to(trajectory.times), read_into=read_into, shape=(frames, *trajectory.shape[1:])
    )


def _require_one_flow(trajectories: Sequence[Trajectory], truth: Sequence[Trajectory]) -> None:
    """Refuse trajectories whose statistics are not to be pooled.

    Raises:
        ValueError: if the truth is empty or differs in length, or parameters differ.
    """
    lengths = sorted({len(trajectory) for trajectory in truth})
    if len(lengths) != 1 or lengths[0] < 2:
        raise ValueError(
            f"Expected truth of one length, two frames or more, for a free run but got {lengths} frames; give those of "
            "one length."
        )
    parameters = [each.context.parameters for each in (*truth, *trajectories) if each.context.parameters is not None]
    if not all(torch.equal(each, parameters[0]) for each in parameters):
        raise ValueError("Expected one flow for a free run but the trajectories' parameters differ; run cases apart.")


def _require_mean_flow(truth: xarray.Dataset, metadata: Metadata) -> None:
    """Refuse a channel at rest, and one whose mean flow is not where wall units take it from.

    Raises:
        ValueError: if the mean velocity is nowhere as large as the fluctuation, or largest along another axis than the
            first periodic one.
    """
    means, rms = (np.abs(truth[f"{name}_velocity_profile_truth"].values) for name in ("mean", "rms"))
    if not means.max() > rms.max():
        raise ValueError(
            f"Expected a mean flow through the channel but the mean velocity is {means.max():.3g} at most, beside "
            f"fluctuations of {rms.max():.3g}; leave the free run out."
        )
    names = metadata.grid.axis_names
    along = names[int(means.max(1).argmax())]
    first = next(axis.name for axis in metadata.grid.axes if axis.period is not None)
    if along != first:
        raise ValueError(f"Expected the mean flow along {first!r}, the first periodic axis, but it is along {along!r}.")


def _joined(curves: xarray.Dataset, others: xarray.Dataset) -> xarray.Dataset:
    """Both, on the same axes.

    Raises:
        ValueError: if an axis that they share has other points.
    """
    try:
        return xarray.merge([curves, others], join="exact")
    except ValueError as error:
        raise ValueError(
            f"Expected the report's axes to be those of the free run but they are not ({error}); evaluate with the "
            "default suite."
        ) from error


def _beside(run: xarray.Dataset, truth: xarray.Dataset) -> xarray.Dataset:
    """Pooled variables of the run's prediction and of the truth, and histories of the prediction."""
    keep = [name for name in run if "_prediction" in str(name) and "lead_time" not in run[name].dims]
    keep += [f"{name}_prediction" for name in _HISTORIES] + ["finite", "blow_up_time"]
    other = [name for name in truth if "_truth" in str(name) and "lead_time" not in truth[name].dims]
    return _joined(run[keep], truth[other].drop_vars(["lead_time", "trajectory"], errors="ignore"))


def _prefixed(curves: xarray.Dataset) -> xarray.Dataset:
    own = {"lead_time": f"{PREFIX}time", "trajectory": f"{PREFIX}trajectory"}
    renamed = {str(name): f"{PREFIX}{name}" for name in curves.data_vars}
    return curves.rename(renamed | {name: new for name, new in own.items() if name in curves.dims})


def _scores(curves: xarray.Dataset, weights: Weights, per_second: float, frames: int) -> dict[str, dict[str, Any]]:
    """By name; ``per_second`` is the time of the flow that a second of computing makes."""
    finite = curves["finite"].values.astype(bool)
    lasted = bool(finite.all())
    reynolds = _numbers(curves, "friction_reynolds_number")
    found: dict[str, tuple[float, float, str, str, bool]] = {
        "survival": (float(finite.all(1).mean()), math.nan, "1", f"share of trajectories that lasted {frames}", True),
        "frames": (float(finite.sum(1).mean()), math.nan, "1", "frames until a trajectory was stopped, mean", True),
        "friction_reynolds_number": (
            float(reynolds.run),
            float(reynolds.run_error),
            "1",
            f"friction Reynolds number of the run; that of the data is {float(reynolds.truth):.4g} "
            f"+- {float(reynolds.truth_error):.2g}",
            False,
        ),
        "friction_reynolds_number_deviation": (
            abs(float(reynolds.run / reynolds.truth) - 1),
            float(np.hypot(reynolds.run_error, reynolds.truth_error * reynolds.run / reynolds.truth) / reynolds.truth),
            "1",
            "relative error of the friction Reynolds number",
            False,
        ),
    }
    for name, numbers in _profiles(curves):
        text = f"relative L1 distance of the profile of the {name.replace('_', ' ')}"
        found[f"{name}_l1"] = (numbers.relative_l1(weights), numbers.chance(weights), "1", text, False)
    spectra = dict(_spectra(curves))
    for axis, each in spectra.items():
        text = f"distance of line spectra along {axis}, root mean square over modes, planes and components"
        found[f"spectrum_{axis}_distance"] = (each.decades, math.nan, "decade", text, False)
    rms = [numbers for name, numbers in _profiles(curves) if name.startswith("rms_")]
    for name, group in (("friction_reynolds_number", [reynolds]), ("rms", rms), ("spectra", list(spectra.values()))):
        joined = _Numbers(*(np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*group, strict=True)))
        text = f"share of the {name.replace('_', ' ')} within two standard errors of the difference"
        found[f"{name}_in_band"] = (joined.in_band, math.nan, "1", text, True)
    seconds = float(_half_height(curves) / curves["friction_velocity_truth"]) / per_second
    text = "computing time of a turnover h / u_tau of one trajectory, at the report's batch size"
    found["seconds_per_turnover"] = (seconds, math.nan, "s", text, False)
    always = ("survival", "frames", "seconds_per_turnover")
    return {
        f"{PREFIX}{name}": {
            "value": value if (lasted or name in always) and math.isfinite(value) else None,
            "spread": error if lasted and math.isfinite(error) and math.isfinite(value) else None,
            "interval": None,
            "units": units,
            "higher_is_better": higher,
            "description": f"free run of {frames} frames: {text}",
        }
        for name, (value, error, units, text, higher) in found.items()
    }


def _half_height(curves: xarray.Dataset) -> float:
    distance, plus = curves["wall_distance"].values, curves["wall_distance_plus_truth"].values
    return float(curves["friction_reynolds_number_truth"]) * float(distance[-1] / plus[-1])


def _profiles(curves: xarray.Dataset) -> Iterator[tuple[str, _Numbers]]:
    mean = _numbers(curves, "mean_velocity_profile")
    along = int(np.abs(mean.truth).sum(1).argmax())
    yield "mean_velocity", _Numbers(*(part[along] for part in mean))
    rms = _numbers(curves, "rms_velocity_profile")
    for row, name in enumerate(curves["velocity_component"].values.tolist()):
        yield f"rms_{name}", _Numbers(*(part[row] for part in rms))
    yield "shear_stress", _numbers(curves, "shear_stress_profile")


def _spectra(curves: xarray.Dataset) -> Iterator[tuple[str, _Numbers]]:
    """Modes above zero without the highest, which an even grid holds in part, by axis."""
    for name in curves:
        axis = str(name).removeprefix("line_spectrum_").removesuffix("_truth")
        if str(name) == f"line_spectrum_{axis}_truth":
            yield axis, _Numbers(*(part[..., 1:-1] for part in _numbers(curves, f"line_spectrum_{axis}")))


def _numbers(curves: xarray.Dataset, name: str) -> _Numbers:
    """A variable of both sides with its errors."""
    sides = [f"{name}_{side}{ending}" for side in ("prediction", "truth") for ending in ("", "_standard_error")]
    return _Numbers(*(curves[each].values.astype(np.float64) for each in sides))

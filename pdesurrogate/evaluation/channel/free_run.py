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
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.channel import ChannelHistoryMetric, ChannelMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence

PREFIX = "free_run_"
# Numbers this many standard errors of their difference apart are told apart; by chance one in twenty is.
_BAND = 2.0
_PROFILES = {"mean_velocity": "mean velocity", "shear_stress": "Reynolds shear stress"}
_HISTORIES = ("channel_bulk_velocity", "instantaneous_friction_reynolds_number")


class _Numbers(NamedTuple):
    """Statistics of a run beside those of the data, each with its standard error; all of one shape."""

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

    @property
    def relative_l1(self) -> float:
        """``sum |run - truth| / sum |truth|``."""
        return float(np.abs(self.run - self.truth).sum() / np.abs(self.truth).sum())

    @property
    def chance(self) -> float:
        """What `relative_l1` would typically be if there were sampling errors alone: a normal deviate's mean size."""
        error = np.sqrt(2 / np.pi) * np.hypot(self.run_error, self.truth_error)
        return float(error.sum() / np.abs(self.truth).sum())

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
    frames, both with standard errors from blocks of samples. Profiles and line spectra are compared in physical units
    point by point. Adds scores ``free_run_*``: how many trajectories lasted, the friction Reynolds number, relative L1
    distances of profiles, distances of spectra in decades, shares of numbers that are within two standard errors of
    the difference (by chance 95 %), and the time that a turnover ``h / u_tau`` takes; and curves ``free_run_*``, see
    `free_run_curves`. The spread of an L1 distance is the one that sampling errors alone would typically make. Where a
    trajectory was stopped, distances are null: those of the frames before are no statistics.

    Args:
        report: of ``stepper``.
        evaluator: whose batch size, device and bounds hold here too.
        stepper: to be rolled out.
        trajectories: whose first frames it starts from.
        frames: to predict, more than the trajectories have or fewer.
        truth: of one length; best all that the data have.
        on_batch: told (trajectories done, trajectories in all) after every batch of the rollout.

    Raises:
        ValueError: if the data are no channel with a viscosity and a mean flow, or as an evaluation.
    """
    past = stepper.history_frames
    measure = Evaluator(
        _statistics, batch_size=evaluator.batch_size, device=str(evaluator.device), bounds=evaluator.bounds
    )
    known = Evaluator(_statistics, batch_size=evaluator.batch_size, device=str(evaluator.device))
    shortest = min((len(trajectory) for trajectory in truth), default=0)
    of_truth = known(Persistence(), truth, shortest - 1, trajectories_declared=len(truth)).curves
    if "friction_reynolds_number_truth" not in of_truth:
        raise ValueError(
            "Expected data that state a viscosity for a free run, whose statistics are compared in wall units, but "
            f"{truth[0].metadata.name!r} names none; add it to the parameters."
        )
    _require_mean_flow(of_truth)
    held = [_held(trajectory, past + frames) for trajectory in trajectories]
    run = measure(stepper, held, frames, start_frame=past, trajectories_declared=len(held), on_batch=on_batch)
    together = _beside(run.curves, of_truth)
    scores = {**report.attributes["scores"], **_scores(together, run, frames)}
    return Report({**report.attributes, "scores": scores}, report.curves.merge(_prefixed(together)))


def free_run_curves(report: Report) -> xarray.Dataset:
    """Curves of `add_free_run` under the names that they have in an evaluation, run as prediction.

    So that whatever takes ``Report.curves`` of a channel takes these, `WallUnitStatistics.of_report` for example.

    Raises:
        ValueError: if the report has no free run.
    """
    names = {str(name): str(name).removeprefix(PREFIX) for name in report.curves if str(name).startswith(PREFIX)}
    if not names:
        raise ValueError("Expected a report with a free run; evaluate with --free-run FRAMES.")
    found = report.curves[list(names)]
    if "lead_time" in found.dims:
        found = found.drop_dims("lead_time")
    return found.rename(names | {f"{PREFIX}time": "lead_time", f"{PREFIX}trajectory": "trajectory"})


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
        value = "stopped before its end" if score["value"] is None else f"{score['value']:.4g}{error}"
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


def _require_mean_flow(truth: xarray.Dataset) -> None:
    """Refuse a channel at rest: its friction velocity means nothing.

    Raises:
        ValueError: if the mean velocity is nowhere as large as the fluctuation.
    """
    mean, rms = (float(np.abs(truth[f"{name}_velocity_profile_truth"]).max()) for name in ("mean", "rms"))
    if not mean > rms:
        raise ValueError(
            f"Expected a mean flow through the channel but the mean velocity is {mean:.3g} at most, beside "
            f"fluctuations of {rms:.3g}; leave the free run out."
        )


def _beside(run: xarray.Dataset, truth: xarray.Dataset) -> xarray.Dataset:
    """Pooled variables of the run's prediction and of the truth, and histories of the prediction."""
    keep = [name for name in run if "_prediction" in str(name) and "lead_time" not in run[name].dims]
    keep += [f"{name}_prediction" for name in _HISTORIES] + ["finite", "blow_up_time"]
    other = [name for name in truth if "_truth" in str(name) and "lead_time" not in truth[name].dims]
    return run[keep].merge(truth[other].drop_vars(["lead_time", "trajectory"], errors="ignore"))


def _prefixed(curves: xarray.Dataset) -> xarray.Dataset:
    own = {"lead_time": f"{PREFIX}time", "trajectory": f"{PREFIX}trajectory"}
    renamed = {str(name): f"{PREFIX}{name}" for name in curves.data_vars}
    return curves.rename(renamed | {name: new for name, new in own.items() if name in curves.dims})


def _scores(curves: xarray.Dataset, run: Report, frames: int) -> dict[str, dict[str, Any]]:
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
            float(np.hypot(reynolds.run_error, reynolds.truth_error) / reynolds.truth),
            "1",
            "relative error of the friction Reynolds number",
            False,
        ),
    }
    for name, numbers in _profiles(curves):
        text = f"relative L1 distance of the profile of the {name.replace('_', ' ')}"
        found[f"{name}_l1"] = (numbers.relative_l1, numbers.chance, "1", text, False)
    spectra = dict(_spectra(curves))
    for axis, each in spectra.items():
        text = f"distance of line spectra along {axis}, root mean square over modes, planes and components"
        found[f"spectrum_{axis}_distance"] = (each.decades, math.nan, "decade", text, False)
    rms = [numbers for name, numbers in _profiles(curves) if name.startswith("rms_")]
    for name, group in (("friction_reynolds_number", [reynolds]), ("rms", rms), ("spectra", list(spectra.values()))):
        joined = _Numbers(*(np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*group, strict=True)))
        text = f"share of the {name.replace('_', ' ')} within two standard errors of the difference"
        found[f"{name}_in_band"] = (joined.in_band, math.nan, "1", text, True)
    interval = float(run.attributes["data"]["frame_interval"])
    turnover = float(_half_height(curves) / curves["friction_velocity_truth"])
    seconds = run.attributes["run"]["seconds_per_frame"] * turnover / interval
    found["seconds_per_turnover"] = (seconds, math.nan, "s", "computing time of a turnover h / u_tau", False)
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
    """Modes above zero, by axis."""
    for name in curves:
        axis = str(name).removeprefix("line_spectrum_").removesuffix("_truth")
        if str(name) == f"line_spectrum_{axis}_truth":
            yield axis, _Numbers(*(part[..., 1:] for part in _numbers(curves, f"line_spectrum_{axis}")))


def _numbers(curves: xarray.Dataset, name: str) -> _Numbers:
    """A variable of both sides with its errors."""
    sides = [f"{name}_{side}{ending}" for side in ("prediction", "truth") for ending in ("", "_standard_error")]
    return _Numbers(*(curves[each].values.astype(np.float64) for each in sides))

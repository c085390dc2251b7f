"""What is measured against lead time: errors, drifts, residuals; one line a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from pdesurrogate.evaluation.intervals import bootstrap_interval
from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import (
    Select,
    group_seeds,
    kind_of,
    require_same_data,
    seeds_label,
    select_labels,
    selection_text,
)
from pdesurrogate.viz.style import (
    BAND_OPACITY,
    GUIDE,
    MUTED,
    TRUTH,
    Band,
    draw_band,
    labelled,
    legend_beside,
    line_look,
    one_panel,
    set_scale,
    style,
)

_NAMES = {
    "relative_l2": "relative L2 error",
    "relative_l2_joint": "relative L2 error of all channels",
    "rmse": "root mean squared error",
    "vrmse": "error relative to the deviation",
    "relative_h1": "relative H$^1$ error",
    "relative_h_minus_1": "relative H$^{-1}$ error",
    "correlation": "correlation with the truth",
    "band_rmse": "root mean squared error",
    "band_relative_l2": "relative L2 error",
}
# Errors relative to the truth: one is what predicting zero gives.
_RELATIVE = ("relative_l2", "relative_h", "band_relative_l2")
# A relative error far above one says no more than that all is lost; on a linear axis it would press the rest flat.
_LOST = 2.5
# Letters that fit along the error axis.
_LABEL_WIDTH = 40

Line = NDArray[np.float64]


def plot_error_curves(
    reports: Sequence[Report],
    variable: str = "relative_l2",
    *,
    select: Select | None = None,
    scale: Literal["linear", "log"] = "linear",
    axes: Axes | None = None,
) -> Axes:
    """Mean over trajectories against lead time; reports of one model and configuration (its seeds) share a line.

    For errors and for any other curve over lead time: correlation, drift, residual, error in a band. The shade is the
    95 % bootstrap interval of the mean over trajectories or, with several seeds, one standard deviation over seeds to
    both sides (`mean_curve`). A line ends with a cross where the mean is no longer finite. Where the reports hold the
    curve of the truth too (``<name>_truth`` beside ``<name>`` or ``<name>_prediction``), it is drawn. Curves around
    zero have a line there.

    Args:
        reports: on the same data.
        variable: of the reports, over ``lead_time``; the ending ``_prediction`` may be left out.
        select: labels along further dimensions, such as ``{"channel": "pressure", "band": "low (0 to 4)"}``; the mean
            over channels unless one is selected.
        scale: of the error axis.
        axes: to draw into; those of a new figure by default.

    Returns:
        The axes; their ``axes.figure`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data, lack the variable, or more than one curve is left.
    """
    require_same_data(reports)
    predicted, true = _sides(reports, variable)
    groups = group_seeds(reports)
    curves = {label: mean_curve(seeds, predicted, select) for label, seeds in groups.items()}
    truth = None if true is None else mean_curve(reports[:1], true, select)
    labels = _one_curve(reports[0], predicted, select)
    with style():
        axes = one_panel(axes, 6.6, 4.0)
        set_scale(axes.yaxis, scale)
        if truth is not None:
            draw_band(axes, *truth, "truth", **TRUTH)
        for index, (label, (time, band)) in enumerate(curves.items()):
            look = line_look(index, kind_of(groups[label]))
            never = "" if np.isfinite(band.mean).any() else ", not finite"
            draw_band(axes, time, band, seeds_label(label, groups[label]) + never, **look)
            _mark_end(axes, time, band.mean, look["color"])
        means = [band.mean for _, band in (*curves.values(), *([truth] if truth else []))]
        _dress(axes, means, predicted, scale)
        axes.set_xlabel(labelled("lead time", labels["lead_time"].attrs.get("units", "1")))
        described = str(labels.attrs.get("long_name", predicted)).removesuffix(", of the prediction")
        described = described.replace("the prediction's ", "the ")
        axes.set_ylabel(labelled(_NAMES.get(predicted, fill(described, _LABEL_WIDTH)), labels.attrs["units"]))
        if select:
            axes.set_title(selection_text(select))
        handles, _ = axes.get_legend_handles_labels()
        legend_beside(axes, handles=[*handles, *_band_note(groups, curves)])
    return axes


def _sides(reports: Sequence[Report], variable: str) -> tuple[str, str | None]:
    """Names of the prediction's curve and, where there is one, of the truth's."""
    known = reports[0].curves
    predicted = variable if variable in known else f"{variable}_prediction"
    truth = f"{predicted.removesuffix('_prediction')}_truth"
    return (predicted, truth if truth in known else None) if predicted in known else (variable, None)


def _mark_end(axes: Axes, time: Line, mean: Line, color: str) -> None:
    finite = np.isfinite(mean)
    last = int(np.argmin(finite)) - 1
    if last >= 0 and not finite[last + 1 :].any():
        axes.plot(time[last], mean[last], "x", color=color, markersize=8, markeredgewidth=2)


def _dress(axes: Axes, means: Sequence[Line], variable: str, scale: str) -> None:
    """Limits, and lines at the values that mean something."""
    axes.set_xlim(left=0.0)
    relative = variable.startswith(_RELATIVE)
    if relative:
        axes.axhline(1.0, **GUIDE, label="predicting zero")
    if variable.endswith("spread_skill_ratio"):
        axes.axhline(1.0, **GUIDE, label="reliable")
    finite = [mean for mean in (mean[np.isfinite(mean)] for mean in means) if mean.size]
    if scale == "log" or not finite:
        return
    bottom, top = axes.get_ylim()
    if min(mean.min() for mean in finite) < 0:
        # Not where it would press curves flat that are far below.
        if bottom < 0 < top:
            axes.axhline(0.0, color=MUTED, linewidth=0.9, zorder=1)
    elif variable != "correlation":
        axes.set_ylim(bottom=0.0)
    if variable == "correlation":
        axes.set_ylim(top=1.03)
    if relative and min(mean.max() for mean in finite) < _LOST < top:
        axes.set_ylim(top=_LOST)


def _band_note(groups: Mapping[str, Sequence[Report]], curves: Mapping[str, tuple[Line, Band]]) -> list[Patch]:
    """A legend entry that says what the bands are, if there are any."""
    kinds = {len(seeds) > 1 for label, seeds in groups.items() if np.isfinite(curves[label][1].low).any()}
    names = {False: "95 % interval of the mean", True: "one deviation over seeds"}
    text = ",\nor ".join(names[several] for several in sorted(kinds))
    return [Patch(color=MUTED, alpha=BAND_OPACITY, linewidth=0, label=text)] if text else []


def mean_curve(seeds: Sequence[Report], variable: str, select: Select | None = None) -> tuple[Line, Band]:
    """Lead times, and the mean over trajectories and seeds in a band; all ``(lead_time,)``.

    Several seeds: one standard deviation over them to both sides. One seed: the 95 % bootstrap interval of the mean
    over its trajectories (`bootstrap_interval`); no band where there is only one, or where the variable is a mean over
    them already. A lead time at which any trajectory is not finite has no finite mean.

    Args:
        seeds: reports of one model.
        variable: over ``lead_time`` and, as a rule, ``trajectory``.
        select: labels along further dimensions; the mean over channels unless one is selected.

    Raises:
        ValueError: if a report lacks the variable, more than one curve is left, or lead times differ.
    """
    curves = [_one_curve(seed, variable, select) for seed in seeds]
    time = np.asarray(curves[0]["lead_time"].values, dtype=np.float64)
    if not all(np.array_equal(curve["lead_time"].values, time) for curve in curves):
        raise ValueError("Expected seeds of one model with equal lead times; evaluate them on the same frames.")
    values = [np.asarray(curve.values, dtype=np.float64) for curve in curves]
    means = np.stack([_finite_mean(each) for each in values])
    mean = _finite_mean(means)
    if len(seeds) == 1:
        return time, Band(mean, *bootstrap_interval(values[0]))
    deviation = np.where(np.isfinite(mean), np.nan_to_num(means).std(0, ddof=1), np.nan)
    return time, Band(mean, mean - deviation, mean + deviation)


def _one_curve(report: Report, variable: str, select: Select | None) -> xr.DataArray:
    """The values ``(trajectory, lead_time)``; a single row where the variable is not by trajectory."""
    if variable not in report.curves or "lead_time" not in report.curves[variable].dims:
        known = sorted(str(name) for name in report.curves if "lead_time" in report.curves[name].dims)
        raise ValueError(f"Expected a curve over lead time among {known} but got {variable!r}.")
    values = report.curves[variable]
    if "trajectory" not in values.dims:
        values = values.expand_dims("trajectory")
    return select_labels(values, select, ("trajectory", "lead_time"))


def _finite_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis, NaN where a value is not finite; infinities are kept out of arithmetic, which warns."""
    finite = np.isfinite(values).all(0)
    return np.where(finite, np.where(finite, values, 0.0).mean(0), np.nan)

"""Error against lead time, one line a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.style import LINE_STYLES, MUTED, color, labelled, new_figure, style

_SAME = ("name", "split", "content_hash", "shape", "start_frame", "frames")
_NAMES = {"relative_l2": "relative L2 error", "rmse": "root mean squared error"}


def plot_error_curves(
    reports: Sequence[Report],
    variable: str = "relative_l2",
    *,
    channel: str | None = None,
    scale: Literal["linear", "log"] = "linear",
    axes: Axes | None = None,
) -> Figure:
    """Mean over trajectories against lead time; reports of one model and configuration (its seeds) share a line.

    The band is the standard error over trajectories or, with several seeds, the standard deviation over seeds. A line
    ends with a cross where the mean is no longer finite.

    Args:
        reports: on the same data.
        variable: a variable of the reports with ``trajectory`` and ``lead_time``, such as ``correlation``.
        channel: which channel; the mean over channels by default.
        scale: of the error axis.
        axes: to draw into; a new figure by default.

    Raises:
        ValueError: if the reports are not about the same data or lack the variable.
    """
    require_same_data(reports)
    with style():
        if axes is None:
            figure = new_figure(6.4, 4.0)
            axes = figure.add_subplot()
        else:
            figure = axes.figure.figure
        for index, (label, seeds) in enumerate(group_seeds(reports).items()):
            time, mean, spread = mean_curve(seeds, variable, channel)
            kind = seeds[0].attributes["model"]["kind"]
            line_style = LINE_STYLES.get(kind, "-")
            axes.plot(time, mean, color=color(index), linestyle=line_style, label=seeds_label(label, seeds))
            axes.fill_between(time, mean - spread, mean + spread, color=color(index), alpha=0.18, linewidth=0)
            finite = np.isfinite(mean)
            if finite.any() and not finite.all():
                last = int(np.argmin(finite)) - 1
                axes.plot(time[last], mean[last], "x", color=color(index), markersize=8, markeredgewidth=2)
        _dress(axes, reports[0].curves[variable], variable, scale)
    return figure


def _dress(axes: Axes, values: xr.DataArray, variable: str, scale: Literal["linear", "log"]) -> None:
    axes.set_yscale(scale)
    if scale == "linear" and variable != "correlation":
        axes.set_ylim(bottom=0.0)
    if variable == "correlation":
        axes.set_ylim(top=1.03)
    axes.set_xlim(left=0.0)
    if variable == "relative_l2":
        axes.axhline(1.0, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1, label="predicting zero")
    time = values["lead_time"]
    axes.set_xlabel(labelled("lead time", time.attrs.get("units", "1")))
    axes.set_ylabel(labelled(_NAMES.get(variable, variable.replace("_", " ")), values.attrs.get("units", "1")))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def mean_curve(
    seeds: Sequence[Report], variable: str, channel: str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lead times, mean over trajectories and seeds, and its spread; each ``(lead_time,)``.

    The spread is the standard deviation over several seeds, or the standard error over the trajectories of one; it is
    zero where there is only one of both. A lead time at which any trajectory is not finite has no finite mean.

    Raises:
        ValueError: if a report lacks the variable or the channel, or lead times differ.
    """
    curves = [_per_trajectory(seed, variable, channel) for seed in seeds]
    time = np.asarray(curves[0]["lead_time"].values, dtype=np.float64)
    for curve in curves[1:]:
        if not np.array_equal(curve["lead_time"].values, time):
            raise ValueError("Expected seeds of one model with equal lead times; evaluate them on the same frames.")
    if len(curves) == 1:
        values = np.asarray(curves[0].transpose("trajectory", "lead_time").values, dtype=np.float64)
        count = len(values)
        divisor = np.sqrt(count)
    else:
        values = np.stack([np.asarray(curve.mean("trajectory", skipna=False).values) for curve in curves])
        count = len(values)
        divisor = 1.0
    # Infinite errors are left out of the arithmetic, which would warn, and put back as not-a-number.
    finite = np.isfinite(values).all(0)
    mean = np.where(finite, np.where(finite, values, 0.0).mean(0), np.nan)
    spread = np.zeros_like(mean)
    if count > 1:
        spread = np.where(finite, np.where(finite, values, 0.0).std(0, ddof=1) / divisor, np.nan)
    return time, mean, spread


def _per_trajectory(report: Report, variable: str, channel: str | None) -> xr.DataArray:
    found = [str(name) for name, values in report.curves.items() if {"trajectory", "lead_time"} <= {*values.dims}]
    if variable not in found:
        raise ValueError(f"Expected a curve among {sorted(found)} but got {variable!r}.")
    values = report.curves[variable]
    if "channel" not in values.dims:
        return values
    if channel is None:
        return values.mean("channel", skipna=False)
    names = [str(name) for name in values["channel"].values]
    if channel not in names:
        raise ValueError(f"Expected a channel among {names} but got {channel!r}.")
    return values.sel(channel=channel)


def seeds_label(label: str, seeds: Sequence[Report]) -> str:
    """The label of a line, with the number of seeds where there are several."""
    return label if len(seeds) == 1 else f"{label} ({len(seeds)} seeds)"


def require_same_data(reports: Sequence[Report]) -> None:
    """Refuse to draw different data into one picture.

    Raises:
        ValueError: if there is no report, or data name, split, content hash, shape or frames differ.
    """
    if not reports:
        raise ValueError("Expected at least one report but got none.")
    first = reports[0].attributes["data"]
    for report in reports[1:]:
        data = report.attributes["data"]
        for key in _SAME:
            if data[key] != first[key]:
                raise ValueError(
                    f"Expected reports on the same data but {key} is {first[key]!r} in one and {data[key]!r} in "
                    "another; draw them apart."
                )


def group_seeds(reports: Sequence[Report]) -> dict[str, list[Report]]:
    """Reports of one model (`Report.identity`) together, in order of first appearance, by a label.

    The label is the model's name; models of one name and different configurations get the entries that differ.
    """
    groups: dict[str, list[Report]] = {}
    for report in reports:
        groups.setdefault(report.identity, []).append(report)
    labels: dict[str, list[Report]] = {}
    for seeds in groups.values():
        name = seeds[0].attributes["model"]["name"]
        namesakes = [group[0] for group in groups.values() if group[0].attributes["model"]["name"] == name]
        label = name if len(namesakes) == 1 else f"{name} ({_what_differs(seeds[0], namesakes)})"
        labels[label] = seeds
    return labels


def _what_differs(report: Report, namesakes: Sequence[Report]) -> str:
    leaves = dict(_leaves(report.attributes["model"]["config"]))
    others = [dict(_leaves(other.attributes["model"]["config"])) for other in namesakes]
    differing = [key for key, value in leaves.items() if any(other.get(key) != value for other in others)]
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {leaves[key]}" for key in differing) or "other settings"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key], f"{path}.{key}")
    else:
        yield path, value

"""What a refinement gains with every iteration, and what the plain solver does in the same time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.cost import CostPoint, pareto_front, plot_cost_accuracy
from pdesurrogate.viz.style import (
    BAND_OPACITY,
    GUIDE,
    HALO,
    MUTED,
    Band,
    Panels,
    color,
    draw_band,
    evenly_spread,
    row_of_panels,
    set_scale,
    style,
)

# Iterations that are named along the line of the right panel.
_NAMED = 5
# Settings of the solver whose times differ by a smaller factor share a name.
_CLOSE = 1.6


def plot_refinement(report: Report, *, axes: Sequence[Axes] | Panels | None = None) -> Panels:
    """Left: error and residual by iteration. Right: error against time for a frame, with the plain solver beside.

    Lines are means over trajectories, bands reach from the lowest to the highest. The residual is in units of that of
    iteration 0; where the method makes another one small, the defect of the solver is drawn too. The horizontal line is
    the error of the residual's own solver from the last given frame, which a refinement with it comes to; right, a
    diamond marks its time. Squares there are the solver at many resolutions and time steps: a refinement gains where it
    lies left of their line.

    Args:
        report: with the entry ``refinement``, of ``pdesurrogate refine``.
        axes: two to draw into; those of a new figure by default.

    Returns:
        The two axes.

    Raises:
        ValueError: if the report is of no refinement, or nothing in it is finite.
    """
    entry = report.attributes.get("refinement")
    if entry is None:
        raise ValueError(
            f"Expected a report of a refinement but that of {report.attributes['model']['name']!r} is none; make one "
            "with `pdesurrogate refine`."
        )
    with style():
        panels = row_of_panels(axes, 2, 12.4, 4.4, share=False)
        _draw_iterations(panels[0], report, entry)
        _draw_times(panels[1], report, entry)
    return panels


def _draw_iterations(axes: Axes, report: Report, entry: dict[str, Any]) -> None:
    set_scale(axes.yaxis, "log")
    lines = {"relative L2 error": (report.curves["refined_relative_l2"].values, False)}
    sees = _sees(entry)
    lines["residual" if sees else "minimized residual"] = report.curves["refined_residual"].values, True
    if not sees:
        lines["defect of the solver"] = report.curves["refined_defect"].values, True
    number = np.asarray(report.curves["iteration"].values, dtype=np.float64)
    for place, (label, (values, relative)) in enumerate(lines.items()):
        scale = _first_mean(values) if relative else 1.0
        note = " over that of iteration 0" if relative else ""
        look = {"color": color(place), "marker": "o" if len(number) <= 12 else None, "markersize": 5}
        draw_band(axes, number, _range(values / scale), label + note, **look)
    _draw_floor(axes, entry, f"error of the {_solver_name(entry)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("iteration")
    axes.set_ylabel("error, residual")
    handles, _ = axes.get_legend_handles_labels()
    if len(report.curves["trajectory"]) > 1:
        handles.append(Patch(color=MUTED, alpha=BAND_OPACITY, linewidth=0, label="lowest to highest trajectory"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)


def _draw_times(axes: Axes, report: Report, entry: dict[str, Any]) -> None:
    name = report.attributes["model"]["name"]
    solver = entry["solver"]
    points = [CostPoint(_solver_name(entry), "baseline", solver["seconds_per_frame"], _number(solver))]
    plot_cost_accuracy([*points, *_settings(entry["sweep"])], axes=axes)
    axes.margins(x=0.08, y=0.15)
    for line in axes.get_lines():
        if line.get_marker() == "D":
            line.set_color(MUTED)
    rows = entry["iterations"]
    seconds, errors = [row["seconds_per_frame"] for row in rows], [_number(row) for row in rows]
    marked = evenly_spread(len(rows), _NAMED)
    axes.plot(
        seconds,
        errors,
        color=color(0),
        marker="o",
        markevery=marked,
        markersize=7,
        label=f"{name}, by iteration",
        zorder=3,
    )
    for place in marked:
        if math.isfinite(errors[place]):
            axes.annotate(
                str(rows[place]["iteration"]),
                (seconds[place], errors[place]),
                (6, 6),
                textcoords="offset points",
                color=color(0),
                path_effects=HALO,
                zorder=4,
            )
    _draw_floor(axes, entry, None)
    axes.set_xlabel("seconds for a frame of one trajectory")
    handles, names = axes.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    axes.legend(handles=unique.values(), loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)


def _draw_floor(axes: Axes, entry: dict[str, Any], label: str | None) -> None:
    error = entry["solver"]["relative_l2"]
    if error:
        axes.axhline(error, **GUIDE, label=label)


def _sees(entry: dict[str, Any]) -> bool:
    """Whether the solver's own defect is what is made small."""
    return bool(entry["residual"].get("name") == "defect")


def _solver_name(entry: dict[str, Any]) -> str:
    return "residual's own solver" if _sees(entry) else "equation's solver"


def _settings(sweep: dict[str, Any] | None) -> list[CostPoint]:
    """The solver's settings; of those on the front, ones that lie close to each other in time share a name."""
    if sweep is None:
        return []
    points = [
        CostPoint(
            f"{point['resolution']}, {point['steps_per_frame']} steps",
            "solver",
            point["seconds_per_frame"],
            _number(point),
        )
        for point in sweep["points"]
    ]
    named = 0.0
    for point in pareto_front([point for point in points if math.isfinite(point.error)]):
        if point.seconds > _CLOSE * named:
            named = point.seconds
        else:
            points[points.index(point)] = point._replace(label="")
    return points


def _range(values: NDArray[np.float64]) -> Band:
    """Mean over trajectories, from the lowest to the highest of them; NaN where one is not finite."""
    finite = np.isfinite(values).all(0)
    shown = np.where(finite, values, 1.0)
    parts = (np.where(finite, each, np.nan) for each in (shown.mean(0), shown.min(0), shown.max(0)))
    return Band(*parts)


def _first_mean(values: NDArray[np.float64]) -> float:
    mean = float(values[:, 0].mean())
    return mean if math.isfinite(mean) and mean > 0 else 1.0


def _number(row: dict[str, Any]) -> float:
    return math.nan if row["relative_l2"] is None else float(row["relative_l2"])

"""Error against time, where a surrogate has to beat the solver on a coarser grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from pdesurrogate.viz.style import INK, MUTED, color, labelled, legend_beside, one_panel, set_scale, style

_SHAPES = {"surrogate": "o", "baseline": "D"}


class CostPoint(NamedTuple):
    """What a model costs and how wrong it is.

    Attributes:
        label: its name; of a solver, its resolution and time step.
        kind: ``"surrogate"``, ``"solver"`` or ``"baseline"``.
        seconds: for a frame of a trajectory.
        error: the same kind of error for all.
        low: lower end of the error's interval; NaN where there is none.
        high: its upper end.
    """

    label: str
    kind: str
    seconds: float
    error: float
    low: float = math.nan
    high: float = math.nan


def plot_cost_accuracy(
    points: Sequence[CostPoint | tuple[Any, ...]],
    *,
    error_label: str = "relative L2 error",
    error_units: str = "1",
    axes: Axes | None = None,
) -> Axes:
    """Error against time for a frame, both logarithmic: lower left is better.

    Solver runs are squares; those that no other run beats in both time and error are joined, and named. A surrogate
    gains where it lies left of this line: the distance to it along its own height is the speed-up at equal error. Bars
    are the errors' intervals. Points without a positive finite time and error are named in the title.

    Args:
        points: one a model or solver run; plain tuples will do.
        error_label: what the error is.
        error_units: of the error.
        axes: to draw into; those of a new figure by default.

    Returns:
        The axes; their ``axes.figure`` is what a notebook shows.

    Raises:
        ValueError: if no point can be shown.

    Example:
        >>> axes = plot_cost_accuracy([("FNO", "surrogate", 1e-3, 0.02), CostPoint("64 x 64", "solver", 1e-2, 0.01)])
        >>> axes.get_xscale(), axes.get_yscale()
        ('log', 'log')
    """
    given = [CostPoint(*point) for point in points]
    shown = [point for point in given if _positive(point.seconds) and _positive(point.error)]
    if not shown:
        raise ValueError(
            f"Expected a point with a positive finite time and error but got none among {[p.label for p in given]}."
        )
    with style():
        axes = one_panel(axes, 6.8, 4.3)
        for axis in (axes.xaxis, axes.yaxis):
            set_scale(axis, "log")
        _draw_solvers(axes, [point for point in shown if point.kind == "solver"])
        models = [point for point in shown if point.kind != "solver"]
        labels = list(dict.fromkeys(point.label for point in models))
        for point in models:
            place = labels.index(point.label)
            _draw_point(axes, point, color=color(place), marker=_SHAPES.get(point.kind, "^"), label=point.label)
        axes.margins(0.12)
        axes.set_xlabel("seconds for a frame")
        axes.set_ylabel(labelled(error_label, error_units))
        hidden = [point.label for point in given if point not in shown]
        if hidden:
            axes.set_title(f"not finite: {', '.join(hidden)}", fontsize=9, color=MUTED, loc="left")
        handles, names = axes.get_legend_handles_labels()
        legend_beside(axes, handles=dict(zip(names, handles, strict=True)).values())
    return axes


def pareto_front(points: Sequence[CostPoint]) -> list[CostPoint]:
    """Points that no other beats in both time and error, the fastest first.

    Example:
        >>> runs = [CostPoint(name, "solver", *cost) for name, cost in {"a": (1, 3), "b": (2, 4), "c": (3, 1)}.items()]
        >>> [run.label for run in pareto_front(runs)]
        ['a', 'c']
    """
    front: list[CostPoint] = []
    for point in sorted(points, key=lambda point: (point.seconds, point.error)):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def _draw_solvers(axes: Axes, runs: Sequence[CostPoint]) -> None:
    front = pareto_front(runs)
    for run in runs:
        if run not in front:
            _draw_point(axes, run, color=INK, marker="s", alpha=0.3, markersize=5)
    for run in front:
        _draw_point(axes, run, color=INK, marker="s", markersize=6)
        axes.annotate(
            run.label,
            (run.seconds, run.error),
            (5, 5),
            textcoords="offset points",
            rotation=35,
            rotation_mode="anchor",
            fontsize=9,
            color=MUTED,
            zorder=1.5,
        )
    if front:
        places = [run.seconds for run in front], [run.error for run in front]
        axes.plot(*places, color=INK, linewidth=1.2, marker="s", markersize=6, label="solver")


def _draw_point(axes: Axes, point: CostPoint, **look: Any) -> None:
    ends = None
    if math.isfinite(point.low) and math.isfinite(point.high):
        ends = [[point.error - point.low], [point.high - point.error]]
    look = {"markersize": 8, "elinewidth": 1.4, "linestyle": "none", **look}
    axes.errorbar([point.seconds], [point.error], ends, **look)


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0

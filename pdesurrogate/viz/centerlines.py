"""Velocity along the centerlines of a box: solvers beside published values, models beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pdesurrogate.evaluation.enclosed.centerlines import Centerlines, Line
from pdesurrogate.evaluation.enclosed.reference import CavityReference
from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import group_seeds, kind_of, require_same_data, require_variables, seeds_label
from pdesurrogate.viz.style import GUIDE, INK, TRUTH, Panels, labelled, legend_beside, line_look, row_of_panels, style

_MARKERS = ("o", "s", "^")
# Of `CenterlineMetric`: variable without its side, and the dimension that it lies along.
_PROFILES = (("centerline_velocity_x", "vertical_position"), ("centerline_velocity_y", "horizontal_position"))


def plot_centerlines(
    flows: Mapping[str, Centerlines],
    *,
    references: Sequence[CavityReference] = (),
    axes: Sequence[Axes] | Panels | None = None,
) -> Panels:
    """Velocity along x on the vertical centerline, drawn upwards, and along y on the horizontal one.

    Args:
        flows: label to profiles, such as `cavity_centerlines` gives.
        references: published values, drawn as open symbols.
        axes: two to draw into; those of a new figure by default.

    Returns:
        The two panels; ``figure_of(panels)`` is what a notebook shows.

    Raises:
        ValueError: if there is nothing to draw.

    Example:
        >>> from pdesurrogate.evaluation.enclosed.reference import cavity_reference
        >>> panels = plot_centerlines({}, references=[cavity_reference(100)])
        >>> panels[0].get_ylabel()
        'y / height'
    """
    if not flows and not references:
        raise ValueError("Expected at least one flow or reference but got none.")
    with style():
        panels = row_of_panels(axes, 2, 10.6, 4.2, share=False)
        for index, (label, lines) in enumerate(flows.items()):
            _draw(panels, lines, label=label, **line_look(index, "surrogate"))
        for index, reference in enumerate(references):
            symbol: dict[str, Any] = {
                "marker": _MARKERS[index % len(_MARKERS)], "markersize": 5.5, "markerfacecolor": "white",
                "color": INK, "linestyle": "none", "zorder": 3 - 0.1 * index,
            }  # fmt: skip
            _draw(panels, reference.centerlines, label=reference.name, **symbol)
        _dress(panels, "velocity of the lid")
    return panels


def plot_rollout_centerlines(
    reports: Sequence[Report], *, trajectory: int = 0, axes: Sequence[Axes] | Panels | None = None
) -> Panels:
    """`plot_centerlines` of truth and models, means over the frames of one trajectory.

    Args:
        reports: on the same data, with `CenterlineMetric`. Of several seeds each has its line.
        trajectory: which one.
        axes: two to draw into; those of a new figure by default.

    Returns:
        The two panels; ``figure_of(panels)`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data, lack the profiles or the trajectory.
    """
    require_same_data(reports)
    require_variables(reports, *(f"{name}_{side}" for name, _ in _PROFILES for side in ("truth", "prediction")))
    count = reports[0].curves.sizes["trajectory"]
    if not 0 <= trajectory < count:
        raise ValueError(f"Expected a trajectory from 0 to {count - 1} but got {trajectory}.")
    with style():
        panels = row_of_panels(axes, 2, 10.6, 4.2, share=False)
        _draw(panels, _of_report(reports[0], "truth", trajectory), label="truth", **TRUTH)
        for index, (label, seeds) in enumerate(group_seeds(reports).items()):
            look = line_look(index, kind_of(seeds))
            for number, seed in enumerate(seeds):
                name = "_" if number else seeds_label(label, seeds)
                _draw(panels, _of_report(seed, "prediction", trajectory), label=name, **look)
        _dress(panels, str(reports[0].curves["centerline_velocity_x_truth"].attrs["units"]))
    return panels


def _of_report(report: Report, side: str, trajectory: int) -> Centerlines:
    first, second = (
        Line(
            np.asarray(report.curves[along].values, dtype=np.float64),
            np.asarray(report.curves[f"{name}_{side}"].values[trajectory], dtype=np.float64),
        )
        for name, along in _PROFILES
    )
    return Centerlines(first, second)


def _draw(panels: Panels, lines: Centerlines, **look: Any) -> None:
    vertical, horizontal = panels
    vertical.plot(lines.velocity_x.values, lines.velocity_x.positions, **look)
    horizontal.plot(lines.velocity_y.positions, lines.velocity_y.values, **look)


def _dress(panels: Panels, units: str) -> None:
    vertical, horizontal = panels
    vertical.axvline(0.0, **GUIDE)
    horizontal.axhline(0.0, **GUIDE)
    vertical.set(xlabel=labelled("velocity along x", units), ylabel="y / height", ylim=(0.0, 1.0))
    horizontal.set(ylabel=labelled("velocity along y", units), xlabel="x / width", xlim=(0.0, 1.0))
    vertical.set_title("on the vertical centerline")
    horizontal.set_title("on the horizontal centerline")
    legend_beside(horizontal)

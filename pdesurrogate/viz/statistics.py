"""Statistics over an axis of their own: correlations over distance or time lag, structure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import (
    STANDARD_ERROR,
    Select,
    group_seeds,
    kind_of,
    require_same_data,
    require_variables,
    seeds_label,
    select_labels,
    selection_text,
)
from pdesurrogate.viz.style import (
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


def plot_statistic(
    reports: Sequence[Report],
    variable: str,
    *,
    select: Select | None = None,
    scale: Literal["linear", "log"] = "linear",
    axes: Axes | None = None,
) -> Axes:
    """A statistic of truth and models over its own axis, such as a two-point correlation over distance.

    The shade is one standard error to both sides where the report states it. Several seeds share a line (their mean)
    in a band from the lowest to the highest.

    Args:
        reports: on the same data.
        variable: reports hold ``<variable>_prediction`` and ``<variable>_truth`` over one axis beside ``channel``;
            their standard errors, where there are any, are named the same with ``_standard_error`` behind.
        select: labels along further dimensions; the mean over channels unless one is selected.
        scale: of both axes; logarithmic for structure functions.
        axes: to draw into; those of a new figure by default.

    Returns:
        The axes; their ``axes.figure`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data or lack the variables, or more than one curve is left.
    """
    require_same_data(reports)
    prediction, truth = f"{variable}_prediction", f"{variable}_truth"
    require_variables(reports, prediction, truth)
    values = _curve(reports[0], truth, select)
    with style():
        axes = one_panel(axes, 6.6, 4.0)
        for axis in (axes.xaxis, axes.yaxis):
            set_scale(axis, scale)
        place = np.asarray(values[values.dims[0]].values, dtype=np.float64)
        draw_band(axes, place, _band(reports[:1], truth, select), "truth", **TRUTH)
        for index, (label, seeds) in enumerate(group_seeds(reports).items()):
            look = line_look(index, kind_of(seeds))
            draw_band(axes, place, _band(seeds, prediction, select), seeds_label(label, seeds), **look)
        if scale == "linear" and float(values.min()) < 0:
            axes.axhline(0.0, color=MUTED, linewidth=0.9, zorder=1)
        along = values[values.dims[0]].attrs
        axes.set_xlabel(labelled(along.get("long_name", str(values.dims[0])), along.get("units", "1")))
        axes.set_ylabel(labelled(variable.replace("_", " "), values.attrs["units"]))
        if select:
            axes.set_title(selection_text(select))
        legend_beside(axes)
    return axes


def _curve(report: Report, variable: str, select: Select | None) -> xr.DataArray:
    """The values over the one axis that is neither channel nor selected."""
    values = report.curves[variable]
    own = [str(dim) for dim in values.dims if dim != "channel" and dim not in (select or {})]
    if len(own) != 1:
        raise ValueError(f"Expected one axis of {variable!r} to draw over but got {own}; select along the others.")
    return select_labels(values, select, own)


def _band(seeds: Sequence[Report], variable: str, select: Select | None) -> Band:
    lines = [np.asarray(_curve(seed, variable, select).values, dtype=np.float64) for seed in seeds]
    stated = f"{variable}{STANDARD_ERROR}"
    # The error of a mean over channels is at most the mean of their errors.
    error = _curve(seeds[0], stated, select) if stated in seeds[0].curves else None
    return Band.of_lines(lines, None if error is None else np.asarray(error.values, dtype=np.float64))

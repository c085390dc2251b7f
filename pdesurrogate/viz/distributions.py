"""Distributions of values: probability densities of prediction and truth, rank histograms of ensembles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

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
    GUIDE,
    TRUTH,
    Band,
    Panels,
    color,
    draw_band,
    labelled,
    legend_beside,
    line_look,
    one_panel,
    row_of_panels,
    set_scale,
    style,
)

# How far below its peak a density is shown.
_DECADES = 6


def plot_density(
    reports: Sequence[Report],
    *,
    variable: str = "density",
    value: str = "density_value",
    channels: Sequence[str] | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> Panels:
    """Probability densities of prediction and truth, one panel a channel; on a logarithmic axis, for the tails' sake.

    The shade is one standard error to both sides where the report states it. Several seeds share a line (their mean)
    in a band from the lowest to the highest.

    Args:
        reports: on the same data.
        variable: reports hold ``<variable>_prediction`` and ``<variable>_truth`` over ``channel`` and bins; their
            standard errors, where there are any, are named the same with ``_standard_error`` behind.
        value: variable over the same: the value at the center of each bin.
        channels: which; all by default.
        axes: to draw into, one a channel; those of a new figure by default.

    Returns:
        The panels; ``panels[0].figure`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data or lack the variables, or a channel is not there.
    """
    require_same_data(reports)
    prediction, truth = f"{variable}_prediction", f"{variable}_truth"
    require_variables(reports, prediction, truth, value)
    labels = reports[0].curves[truth]["channel"].values
    shown = [str(label) for label in labels] if channels is None else list(channels)
    with style():
        panels = row_of_panels(axes, len(shown), 1.9 + 3.9 * len(shown), 4.0, share=False)
        for panel, channel in zip(panels, shown, strict=True):
            set_scale(panel.yaxis, "log")
            position, units = _bins(reports[0], value, channel)
            density, density_units = _bins(reports[0], truth, channel)
            draw_band(panel, position, _band(reports[:1], truth, channel), "truth", **TRUTH)
            for index, (label, seeds) in enumerate(group_seeds(reports).items()):
                places, _ = _bins(seeds[0], value, channel)
                look = line_look(index, kind_of(seeds))
                draw_band(panel, places, _band(seeds, prediction, channel), seeds_label(label, seeds), **look)
            peak = float(np.nanmax(density))
            panel.set_ylim(peak * 10.0**-_DECADES, 3 * peak)
            panel.set_xlabel(labelled(channel, units))
            panel.set_ylabel(labelled("probability density", density_units))
        legend_beside(panels[-1])
    return panels


def _band(seeds: Sequence[Report], variable: str, channel: str) -> Band:
    """Densities of the seeds, empty bins left out."""
    lines = [_bins(seed, variable, channel)[0] for seed in seeds]
    stated = f"{variable}{STANDARD_ERROR}"
    error = _bins(seeds[0], stated, channel)[0] if stated in seeds[0].curves else None
    return Band.of_lines([np.where(line > 0, line, np.nan) for line in lines], error)


def _bins(report: Report, variable: str, channel: str) -> tuple[NDArray[np.float64], str]:
    """The values of one channel ``(bins,)`` and their units."""
    values = report.curves[variable]
    bins = [str(dim) for dim in values.dims if dim != "channel"]
    found = select_labels(values, {"channel": channel}, bins)
    return np.asarray(found.values, dtype=np.float64), str(found.attrs["units"])


def plot_rank_histogram(
    report: Report, *, variable: str = "rank_histogram", select: Select | None = None, axes: Axes | None = None
) -> Axes:
    """How often the truth falls on each rank among the members of an ensemble, one line a stage of the rollout.

    Flat, at the dashed line, if members and truth are drawn alike; a bowl if the members lie too close together, a hill
    if too far apart, a slope if they are biased. Bars are one standard error to both sides where the report states it.

    Args:
        report: of an ensemble.
        variable: over ``rank`` and, as a rule, ``stage``; its standard error, where there is one, is named the
            same with ``_standard_error`` behind.
        select: labels along further dimensions; the mean over channels unless one is selected.
        axes: to draw into; those of a new figure by default.

    Returns:
        The axes; their ``axes.figure`` is what a notebook shows.

    Raises:
        ValueError: if the report lacks the variable or more than one histogram a stage is left.
    """
    require_variables([report], variable)
    values = report.curves[variable]
    shares = _by_stage(values, select)
    error = report.curves.get(f"{variable}{STANDARD_ERROR}")
    # The error of a mean over channels is at most the mean of their errors.
    errors = {} if error is None else _by_stage(error, select)
    ranks = np.arange(values.sizes["rank"])
    with style():
        axes = one_panel(axes, 6.4, 3.8)
        for index, (stage, share) in enumerate(shares.items()):
            label = stage or str(report.attributes["model"]["name"])
            edges = np.arange(len(ranks) + 1) - 0.5
            axes.stairs(share, edges, baseline=None, color=color(index), linewidth=2.0, label=label)
            if stage in errors:
                # Bars side by side, not on top of each other.
                places = ranks + (index - (len(shares) - 1) / 2) * 0.5 / len(shares)
                axes.errorbar(places, share, errors[stage], fmt="none", ecolor=color(index), elinewidth=1.2)
        axes.axhline(1 / len(ranks), **GUIDE, label="reliable")
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("number of members below the truth")
        axes.set_ylabel("share of the truth")
        if select:
            axes.set_title(selection_text(select))
        legend_beside(axes)
    return axes


def _by_stage(values: xr.DataArray, select: Select | None) -> dict[str, NDArray[np.float64]]:
    """A histogram ``(rank,)`` for each stage, or a single one without a name."""
    staged = values if "stage" in values.dims else values.expand_dims(stage=[""])
    rows = select_labels(staged, select, ("stage", "rank"))
    return {str(stage): row for stage, row in zip(rows["stage"].values, np.asarray(rows.values), strict=True)}

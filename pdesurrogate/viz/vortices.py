"""How the Q-criterion is distributed: vortices to the right, strain to the left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import (
    STANDARD_ERROR,
    group_seeds,
    kind_of,
    require_same_data,
    require_variables,
    seeds_label,
)
from pdesurrogate.viz.style import (
    GUIDE,
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

_DENSITY = "q_criterion_density"
_AXIS = "standardized_q"
# How far below its peak a density is shown.
_DECADES = 7


def plot_q_criterion(reports: Sequence[Report], *, axes: Axes | None = None) -> Axes:
    """Probability density of the Q-criterion of truth and models, over the true root mean square of Q.

    Both axes are logarithmic, that of Q on both sides of zero and even around it, as its bins are: rare strong vortices
    are what models lose first. Shades are one standard error to both sides or, with several seeds of a model, from the
    lowest to the highest.

    Args:
        reports: on the same data, with `VortexMetric`.
        axes: to draw into; those of a new figure by default.

    Raises:
        ValueError: if the reports are not about the same data or lack the density.
    """
    require_same_data(reports)
    prediction, truth = f"{_DENSITY}_prediction", f"{_DENSITY}_truth"
    require_variables(reports, prediction, truth)
    with style():
        panel = one_panel(axes, 6.4, 4.2)
        set_scale(panel.yaxis, "log")
        panel.set_xscale("symlog", linthresh=1.0, linscale=0.6)
        places = reports[0].curves[_AXIS].values
        true = _band(reports[:1], truth)
        draw_band(panel, places, true, "truth", **TRUTH)
        for index, (label, seeds) in enumerate(group_seeds(reports).items()):
            look = line_look(index, kind_of(seeds))
            draw_band(panel, places, _band(seeds, prediction), seeds_label(label, seeds), **look)
        panel.axvline(0.0, **GUIDE)
        peak = float(np.nanmax(true.mean))
        lowest = float(np.nanmin(true.mean))
        panel.set_ylim(max(0.3 * lowest, peak * 10.0**-_DECADES), 3 * peak)
        panel.set_xlabel("$Q$ / rms of the true $Q$")
        panel.set_ylabel(labelled("probability density", str(reports[0].curves[truth].attrs["units"])))
        legend_beside(panel)
    return panel


def _band(seeds: Sequence[Report], variable: str) -> Band:
    """Densities of the seeds, empty bins left out."""
    lines = [np.asarray(seed.curves[variable].values, dtype=np.float64) for seed in seeds]
    error = seeds[0].curves.get(f"{variable}{STANDARD_ERROR}")
    return Band.of_lines(
        [np.where(line > 0, line, np.nan) for line in lines], None if error is None else np.asarray(error.values)
    )

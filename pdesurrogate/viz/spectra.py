"""Spectra of truth and models, log-log, and the coherence between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import (
    STANDARD_ERROR,
    Select,
    group_seeds,
    kind_of,
    nearest_lead_times,
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
    Panels,
    draw_band,
    labelled,
    legend_beside,
    line_look,
    row_of_panels,
    set_scale,
    shade_beyond,
    style,
)

# Exponents by name and number of space axes. Two dimensions: the direct enstrophy cascade (Kraichnan, Phys. Fluids 10
# (1967) 1417); three: the energy cascade (Kolmogorov, Dokl. Akad. Nauk SSSR 30 (1941) 301).
_SLOPES = {
    ("energy_spectrum", 2): -3.0,
    ("enstrophy_spectrum", 2): -1.0,
    ("energy_spectrum", 3): -5 / 3,
    ("enstrophy_spectrum", 3): 1 / 3,
}

# What lies further below the peak is round-off in single precision.
_ROUND_OFF = 1e-13

Line = NDArray[np.float64]


def plot_spectra(
    reports: Sequence[Report],
    lead_time: float | Sequence[float] | None = None,
    *,
    variable: str = "energy_spectrum",
    select: Select | None = None,
    slope: float | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> Panels:
    """Spectra of truth and models, one panel a lead time, with a reference slope and the resolved range.

    Several seeds of one model share a line (their mean) in a band from the lowest to the highest; for a single one the
    band is the standard error, where reports state it. On periodic grids the shells above the 2/3 dealiasing cut are
    shaded: a dealiased solver on this grid holds none of them. Where trajectories were stopped before a lead time, the
    legend tells how many are left in the mean of the last panel.

    Args:
        reports: on the same data.
        lead_time: one or several, each within half a frame of one in the reports; first and last by default. Spectra
            without lead time, such as ``line_spectrum_x``, have one panel.
        variable: reports hold ``<variable>_prediction`` and ``<variable>_truth`` over a wavenumber.
        select: labels along further dimensions, such as ``{"scalar": "temperature"}``.
        slope: exponent of the reference line; by default that of the turbulent cascade for energy and enstrophy in two
            and three dimensions, and no line for other spectra.
        axes: to draw into, one a panel; those of a new figure by default.

    Returns:
        The panels; ``panels[0].figure`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data, lack these spectra or lead times, or more than one
            spectrum is left.
    """
    require_same_data(reports)
    require_variables(reports, f"{variable}_truth", f"{variable}_prediction")
    truth = _spectra(reports[0], f"{variable}_truth", select)
    times = nearest_lead_times(truth, lead_time)
    slope = _SLOPES.get((variable, len(reports[0].attributes["data"]["shape"]))) if slope is None else slope
    cut = _dealias_cut(reports[0], truth)
    with style():
        panels = row_of_panels(axes, len(times), 1.9 + 3.9 * len(times), 4.3)
        for panel, time in zip(panels, times, strict=True):
            for axis in (panel.xaxis, panel.yaxis):
                set_scale(axis, "log")
            wavenumber, values = _positive(truth, time)
            band = Band.of_lines([values], _error(reports[0], f"{variable}_truth", select, time))
            draw_band(panel, wavenumber, band, "truth", **TRUTH)
            _draw_models(panel, reports, f"{variable}_prediction", select, time)
        _set_limits(panels, *_positive(truth, times[0]), cut)
        for panel, time in zip(panels, times, strict=True):
            if slope is not None:
                _draw_slope(panel, *_positive(truth, time), slope, cut)
        _dress(panels, truth, times, labelled(variable.replace("_", " "), truth.attrs["units"]), select, cut)
    return panels


def plot_coherence(
    reports: Sequence[Report],
    lead_time: float | Sequence[float] | None = None,
    *,
    variable: str = "coherence",
    select: Select | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> Panels:
    """Correlation of prediction and truth wavenumber by wavenumber, one panel a lead time.

    One where the waves agree up to a factor, zero where their phases have nothing to do with each other: it shows down
    to which scale a forecast still is one. Seeds and resolved range are drawn as in `plot_spectra`.

    Args:
        reports: on the same data.
        lead_time: one or several, each within half a frame of one in the reports; first and last by default.
        variable: of the reports, over ``wavenumber``.
        select: labels along further dimensions; the mean over channels unless one is selected.
        axes: to draw into, one a panel; those of a new figure by default.

    Returns:
        The panels; ``panels[0].figure`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data, lack the variable or a lead time, or more than one curve
            is left.
    """
    require_same_data(reports)
    require_variables(reports, variable)
    values = _spectra(reports[0], variable, select)
    times = nearest_lead_times(values, lead_time)
    with style():
        panels = row_of_panels(axes, len(times), 1.9 + 3.9 * len(times), 3.9)
        lowest = 0.0
        for panel, time in zip(panels, times, strict=True):
            set_scale(panel.xaxis, "log")
            panel.axhline(0.0, color=MUTED, linewidth=0.9, zorder=1)
            lowest = min(lowest, _draw_models(panel, reports, variable, select, time))
        wavenumber, _ = _line(values, times[0])
        for panel in panels:
            panel.set_ylim(lowest - 0.03, 1.03)
            panel.set_xlim(wavenumber[0] * 0.9, wavenumber[-1] * 1.05)
        _dress(panels, values, times, variable.replace("_", " "), select, _dealias_cut(reports[0], values))
    return panels


def _spectra(report: Report, variable: str, select: Select | None) -> xr.DataArray:
    """The values ``(lead_time, wavenumber)``; a variable without lead time gets one that is NaN."""
    values = report.curves[variable]
    waves = next((str(dim) for dim in values.dims if "wavenumber" in str(dim)), None)
    if waves is None:
        raise ValueError(f"Expected {variable!r} over a wavenumber but it is over {values.dims}; name a spectrum.")
    if "lead_time" not in values.dims:
        values = values.expand_dims(lead_time=[math.nan])
    return select_labels(values, select, ("lead_time", waves))


def _line(values: xr.DataArray, time: float) -> tuple[Line, Line]:
    """Wavenumbers and values at one lead time, without the mean over the box, which a logarithm has no place for."""
    row = 0 if math.isnan(time) else int(np.argmax(values["lead_time"].values == time))
    wavenumber = np.asarray(values[values.dims[-1]].values, dtype=np.float64)
    kept = wavenumber > 0
    return wavenumber[kept], np.asarray(values.values[row], dtype=np.float64)[kept]


def _positive(values: xr.DataArray, time: float) -> tuple[Line, Line]:
    """The same without empty shells."""
    wavenumber, line = _line(values, time)
    return wavenumber, np.where(line > 0, line, np.nan)


def _error(report: Report, variable: str, select: Select | None, time: float) -> Line | None:
    """Standard error of a line, where the report states one; of a mean over channels, at most as large as this."""
    name = f"{variable}{STANDARD_ERROR}"
    return _line(_spectra(report, name, select), time)[1] if name in report.curves else None


def _draw_models(panel: Axes, reports: Sequence[Report], variable: str, select: Select | None, time: float) -> float:
    """One line a model in the band of its seeds; the lowest finite value."""
    lowest = math.inf
    for index, (label, seeds) in enumerate(group_seeds(reports).items()):
        lines = [_line(_spectra(seed, variable, select), time) for seed in seeds]
        values = np.stack([line for _, line in lines])
        if panel.get_yscale() == "log":  # empty shells
            values = np.where(values > 0, values, np.nan)
        text = seeds_label(label, seeds) + _survivors(seeds, time)
        band = Band.of_lines([*values], _error(seeds[0], variable, select, time))
        draw_band(panel, lines[0][0], band, text, **line_look(index, kind_of(seeds)))
        lowest = min([lowest, *values[np.isfinite(values)]])
    return float(lowest)


def _survivors(seeds: Sequence[Report], time: float) -> str:
    """Words for spectra that are over part of the trajectories, because the rest had blown up by then."""
    counts = []
    for seed in seeds:
        evaluated = int(seed.attributes["data"]["trajectories"])
        alive = evaluated
        if "spectrum_trajectories" in seed.curves and not math.isnan(time):
            alive = int(seed.curves["spectrum_trajectories"].sel(lead_time=time))
        counts.append((alive, evaluated))
    alive, evaluated = (sum(column) for column in zip(*counts, strict=True))
    return "" if alive == evaluated else f",\n{alive} of {evaluated} trajectories left"


def _dealias_cut(report: Report, spectrum: xr.DataArray) -> float | None:
    """Wavenumber ``(2 pi / period) n / 3`` of the coarsest axis; None for a line spectrum or where there are walls."""
    data = report.attributes["data"]
    if spectrum.dims[-1] != "wavenumber" or any(period is None for period in data["periods"]):
        return None
    sides = zip(data["shape"], data["periods"], strict=True)
    return min(float(2 * np.pi / period * size / 3) for size, period in sides)


def _dress(
    panels: Panels, values: xr.DataArray, times: Sequence[float], name: str, select: Select | None, cut: float | None
) -> None:
    """Titles, labels, the unresolved range and the legend."""
    chosen = selection_text(select)
    for panel, time in zip(panels, times, strict=True):
        when = "" if math.isnan(time) else f"lead time {time:.4g}"
        panel.set_title(", ".join(text for text in (chosen, when) if text))
        panel.set_xlabel(labelled("wavenumber", values[values.dims[-1]].attrs.get("units", "1")))
        if cut is not None:
            shade_beyond(panel, cut, "beyond the 2/3 cut")
    panels[0].set_ylabel(name)
    legend_beside(panels[-1])


def _set_limits(panels: Panels, wavenumber: Line, truth: Line, cut: float | None) -> None:
    """Room for one and a half decades below the truth's resolved range, but not for round-off."""
    resolved = truth[(wavenumber <= cut) if cut is not None else slice(None)]
    peak = np.nanmax(truth)
    for panel in panels:
        panel.set_ylim(max(np.nanmin(resolved) / 30, _ROUND_OFF * peak), 6 * peak)
        panel.set_xlim(wavenumber[0] * 0.9, wavenumber[-1] * 1.05)


def _draw_slope(panel: Axes, wavenumber: Line, truth: Line, slope: float, cut: float | None) -> None:
    """A reference line a factor three above the truth over the upper half (in logs) of the resolved range."""
    highest = float(wavenumber[-1]) if cut is None else 0.8 * cut
    lowest = float(np.sqrt(wavenumber[0] * highest))
    inside = (wavenumber >= 0.7 * lowest) & (wavenumber <= highest) & np.isfinite(truth)
    if not inside.any():
        return
    ends = np.asarray([lowest, highest])
    height = 3.0 * float(np.max(truth[inside] * wavenumber[inside] ** -slope))
    panel.plot(ends, height * ends**slope, color=MUTED, linewidth=1.2)
    middle = float(np.sqrt(lowest * highest))
    panel.annotate(
        f"$k^{{{Fraction(slope).limit_denominator(9)}}}$",
        xy=(middle, height * middle**slope),
        xytext=(5, 4),
        textcoords="offset points",
        color=MUTED,
        fontsize=11,
    )

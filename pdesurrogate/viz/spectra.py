"""Energy and enstrophy spectra of truth and models, log-log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.curves import group_seeds, require_same_data, seeds_label
from pdesurrogate.viz.style import INK, LINE_STYLES, MUTED, color, labelled, new_figure, shade_beyond, style

# The direct enstrophy cascade of two-dimensional turbulence: Kraichnan, Phys. Fluids 10 (1967) 1417.
_SLOPES = {"energy": -3, "enstrophy": -1}


def plot_spectra(
    reports: Sequence[Report],
    lead_time: float | Sequence[float] | None = None,
    *,
    quantity: Literal["energy", "enstrophy"] = "energy",
    slope: int | None = None,
) -> Figure:
    """Spectra of truth and models, one panel a lead time, with a reference slope and the resolved range.

    Several seeds of one model share a line (their mean) in a band from the lowest to the highest. On periodic grids
    the waves above the 2/3 dealiasing cut are shaded: there the truth itself holds nothing to learn. Where trajectories
    were stopped before a lead time, the legend tells how many are left in the mean of the last panel.

    Args:
        reports: on the same data.
        lead_time: one or several, each within half a frame of one in the reports; first and last by default.
        quantity: ``"energy"`` or ``"enstrophy"``.
        slope: exponent of the reference line; that of the enstrophy cascade by default.

    Raises:
        ValueError: if the reports are not about the same data, or lack these spectra or lead times.
    """
    require_same_data(reports)
    name = f"{quantity}_spectrum"
    for report in reports:
        if not {f"{name}_truth", f"{name}_prediction"} <= {*report.curves}:
            raise ValueError(f"Expected {name}_truth and {name}_prediction in every report but one lacks them.")
    truth = reports[0].curves[f"{name}_truth"]
    times = _chosen_lead_times(truth, lead_time)
    exponent = _SLOPES[quantity] if slope is None else slope
    cut = _dealias_cut(reports[0])
    with style():
        figure = new_figure(1.9 + 3.9 * len(times), 4.3)
        panels = figure.subplots(1, len(times), sharex=True, sharey=True, squeeze=False)[0]
        for axes, time in zip(panels, times, strict=True):
            _draw_panel(axes, reports, name, time)
            axes.set_title(f"lead time {time:.4g}")
            axes.set_xlabel(labelled("wavenumber", truth["wavenumber"].attrs.get("units", "1")))
        wavenumber, first_truth = _line(truth, times[0])
        _set_limits(panels[0], wavenumber, first_truth, cut)
        for axes, time in zip(panels, times, strict=True):
            _draw_slope(axes, *_line(truth, time), exponent, cut)
            if cut is not None:
                shade_beyond(axes, cut, "beyond the 2/3 cut")
        panels[0].set_ylabel(labelled(f"{quantity} spectrum", truth.attrs.get("units", "1")))
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _chosen_lead_times(values: xr.DataArray, chosen: float | Sequence[float] | None) -> list[float]:
    available = np.asarray(values["lead_time"].values, dtype=np.float64)
    if chosen is None:
        return sorted({float(available[0]), float(available[-1])})
    wanted = [chosen] if isinstance(chosen, int | float) else list(chosen)
    interval = float(available[0])
    found = []
    for time in wanted:
        nearest = float(available[np.abs(available - time).argmin()])
        if abs(nearest - time) > 0.5 * interval:
            raise ValueError(f"Expected lead times from {available[0]:g} to {available[-1]:g} but got {time:g}.")
        found.append(nearest)
    return found


def _line(spectrum: xr.DataArray, time: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wavenumbers and values at one lead time, without the mean and without empty shells (log-log)."""
    values = np.asarray(spectrum.sel(lead_time=time).values, dtype=np.float64)
    wavenumber = np.asarray(spectrum["wavenumber"].values, dtype=np.float64)
    kept = wavenumber > 0
    return wavenumber[kept], np.where(values[kept] > 0, values[kept], np.nan)


def _draw_panel(axes: Axes, reports: Sequence[Report], name: str, time: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(*_line(reports[0].curves[f"{name}_truth"], time), color=INK, linewidth=3.2, alpha=0.85, label="truth")
    for index, (label, seeds) in enumerate(group_seeds(reports).items()):
        lines = [_line(seed.curves[f"{name}_prediction"], time) for seed in seeds]
        wavenumber = lines[0][0]
        values = np.stack([line[1] for line in lines])
        axes.plot(
            wavenumber,
            values.mean(0),
            color=color(index),
            linestyle=LINE_STYLES.get(seeds[0].attributes["model"]["kind"], "-"),
            label=seeds_label(label, seeds) + _survivors(seeds, time),
        )
        if len(seeds) > 1:
            axes.fill_between(wavenumber, values.min(0), values.max(0), color=color(index), alpha=0.18, linewidth=0)


def _survivors(seeds: Sequence[Report], time: float) -> str:
    """Words for spectra that are over part of the trajectories, because the rest had blown up by then."""
    counts = []
    for seed in seeds:
        evaluated = int(seed.attributes["data"]["trajectories"])
        alive = evaluated
        if "spectrum_trajectories" in seed.curves:
            alive = int(seed.curves["spectrum_trajectories"].sel(lead_time=time))
        counts.append((alive, evaluated))
    alive, evaluated = (sum(column) for column in zip(*counts, strict=True))
    return "" if alive == evaluated else f",\n{alive} of {evaluated} trajectories left"


def _dealias_cut(report: Report) -> float | None:
    """Wavenumber ``(2 pi / period) n / 3`` of the coarsest axis; None where an axis is not periodic."""
    data = report.attributes["data"]
    if any(period is None for period in data["periods"]):
        return None
    sides = zip(data["shape"], data["periods"], strict=True)
    return min(float(2 * np.pi / period * size / 3) for size, period in sides)


def _set_limits(axes: Axes, wavenumber: NDArray[np.float64], truth: NDArray[np.float64], cut: float | None) -> None:
    """Room for one and a half decades below the truth's resolved range, not for round-off at the corners."""
    resolved = truth[(wavenumber <= cut) if cut is not None else slice(None)]
    axes.set_ylim(np.nanmin(resolved) / 30, np.nanmax(truth) * 6)
    axes.set_xlim(wavenumber[0] * 0.9, wavenumber[-1] * 1.05)


def _draw_slope(
    axes: Axes,
    wavenumber: NDArray[np.float64],
    truth: NDArray[np.float64],
    exponent: int,
    cut: float | None,
) -> None:
    """A reference line a factor three above the truth over the upper half (in logs) of the resolved range."""
    highest = float(wavenumber[-1]) if cut is None else 0.8 * cut
    lowest = float(np.sqrt(wavenumber[0] * highest))
    inside = (wavenumber >= lowest) & (wavenumber <= highest) & np.isfinite(truth)
    if not inside.any():
        return
    ends = np.asarray([lowest, highest])
    height = 3.0 * float(np.max(truth[inside] * wavenumber[inside] ** -float(exponent)))
    axes.plot(ends, height * ends ** float(exponent), color=MUTED, linewidth=1.2)
    middle = float(np.sqrt(lowest * highest))
    axes.annotate(
        f"$k^{{{exponent}}}$",
        xy=(middle, height * middle**exponent),
        xytext=(5, 4),
        textcoords="offset points",
        color=MUTED,
        fontsize=11,
    )

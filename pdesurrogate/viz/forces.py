"""Drag and lift over time, and the spectrum of the lift, from which the Strouhal number is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pdesurrogate.evaluation.enclosed.forces import ForceCoefficients
from pdesurrogate.evaluation.enclosed.reference import CylinderReference, Interval
from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import group_seeds, kind_of, require_same_data, require_variables, seeds_label
from pdesurrogate.viz.style import (
    GRID,
    GUIDE,
    MUTED,
    TRUTH,
    Panels,
    labelled,
    legend_beside,
    line_look,
    row_of_panels,
    style,
)

# The spectrum is drawn for so many times the lift's own frequency, and sampled so much finer than it resolves.
_FARTHEST, _FINER = 3.0, 8
_FORCES = ("drag", "lift")


def plot_forces(
    flows: Mapping[str, ForceCoefficients],
    *,
    since: float,
    reference: CylinderReference | None = None,
    time_units: str = "1",
    axes: Sequence[Axes] | Panels | None = None,
) -> Panels:
    """Coefficients of drag and lift over time, and the amplitude spectrum of the lift over the Strouhal number.

    The dashed line in the last panel, and the number in the legend, is what `ForceCoefficients.strouhal_number` reads
    off. Published intervals are shaded: of the largest drag and lift, and of the Strouhal number.

    Args:
        flows: label to coefficients.
        since: when the start is forgotten; the spectrum and the Strouhal number are of what follows.
        reference: published intervals.
        time_units: of the times.
        axes: three to draw into; those of a new figure by default.

    Returns:
        The three panels; ``figure_of(panels)`` is what a notebook shows.

    Raises:
        ValueError: if there is no flow, or fewer than eight times follow.
    """
    if not flows:
        raise ValueError("Expected at least one flow but got none.")
    with style():
        panels = row_of_panels(axes, 3, 14.0, 3.6, share=False)
        drag, lift, spectrum = panels
        numbers = []
        for index, (label, history) in enumerate(flows.items()):
            look = line_look(index, "surrogate")
            drag.plot(history.times, history.drag, **look)
            lift.plot(history.times, history.lift, **look)
            settled = history.after(since)
            numbers.append(settled.strouhal_number)
            spectrum.plot(*_amplitudes(settled), label=f"{label}: {numbers[-1]:.4f}", **look)
            spectrum.axvline(numbers[-1], **{**GUIDE, "color": look["color"]})
        if reference is not None:
            _shade(drag, reference.largest_drag_coefficient, upright=False)
            _shade(lift, reference.largest_lift_coefficient, upright=False)
            _shade(spectrum, reference.strouhal_number, upright=True)
            spectrum.fill_between([], [], [], color=MUTED, alpha=0.45, linewidth=0, label=reference.name)
        for panel, name in ((drag, "drag coefficient"), (lift, "lift coefficient")):
            panel.set(xlabel=labelled("time", time_units), ylabel=name)
        # What follows the start, in which drag is many times as large.
        after = np.concatenate([history.after(since).drag for history in flows.values()])
        drag.set_ylim(_room(after, None if reference is None else reference.largest_drag_coefficient))
        spectrum.set(xlabel="Strouhal number", ylabel="amplitude of the lift", ylim=(0.0, None))
        spectrum.set_xlim(0.0, _FARTHEST * max(numbers) or None)
        first, last = (float(history.times[end]) for history in list(flows.values())[:1] for end in (0, -1))
        for panel in (drag, lift):
            panel.set_xlim(first, last)
        _shade_start(drag, since)
        _shade_start(lift, since)
        legend_beside(spectrum)
    return panels


def plot_rollout_forces(
    reports: Sequence[Report], *, trajectory: int = 0, axes: Sequence[Axes] | Panels | None = None
) -> Panels:
    """Drag and lift of truth and models over lead time, of one trajectory.

    Args:
        reports: on the same data, with `ForceMetric`. Of several seeds each has its line.
        trajectory: which one.
        axes: two to draw into; those of a new figure by default.

    Returns:
        The two panels; ``figure_of(panels)`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data, lack the forces or the trajectory.
    """
    require_same_data(reports)
    require_variables(reports, *(f"{name}_{side}" for name in _FORCES for side in ("truth", "prediction")))
    curves = reports[0].curves
    if not 0 <= trajectory < curves.sizes["trajectory"]:
        raise ValueError(f"Expected a trajectory from 0 to {curves.sizes['trajectory'] - 1} but got {trajectory}.")
    times = curves["lead_time"]
    with style():
        panels = row_of_panels(axes, 2, 10.6, 3.6, share=False)
        for panel, name in zip(panels, _FORCES, strict=True):
            truth = curves[f"{name}_truth"]
            panel.plot(times.values, truth.values[trajectory], label="truth", **TRUTH)
            for index, (label, seeds) in enumerate(group_seeds(reports).items()):
                look = line_look(index, kind_of(seeds))
                for number, seed in enumerate(seeds):
                    shown = "_" if number else seeds_label(label, seeds)
                    panel.plot(times.values, seed.curves[f"{name}_prediction"].values[trajectory], label=shown, **look)
            panel.set_xlabel(labelled("lead time", str(times.attrs["units"])))
            panel.set_ylabel(labelled(name, str(truth.attrs["units"])))
        legend_beside(panels[1])
    return panels


def _amplitudes(history: ForceCoefficients) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Amplitude spectrum of the lift over the Strouhal number, tapered as `dominant_frequency` does."""
    count = len(history.lift)
    window = np.hanning(count + 2)[1:-1]
    deviation = history.lift - np.average(history.lift, weights=window)
    amplitude = 2 * np.abs(np.fft.rfft(deviation * window, n=_FINER * count)) / window.sum()
    frequency = np.fft.rfftfreq(_FINER * count, history.times[1] - history.times[0])
    return frequency * history.convective_time, amplitude


def _shade(panel: Axes, interval: Interval, *, upright: bool) -> None:
    span = panel.axvspan if upright else panel.axhspan
    span(interval.low, interval.high, color=MUTED, alpha=0.45, linewidth=0, zorder=0.5)


def _shade_start(panel: Axes, since: float) -> None:
    left, right = panel.get_xlim()
    if since > left:
        panel.axvspan(left, since, color=GRID, alpha=0.45, linewidth=0, zorder=0)
    panel.set_xlim(left, right)


def _room(values: NDArray[np.float64], interval: Interval | None) -> tuple[float, float]:
    """Limits around finite values and the interval, a quarter more to both sides."""
    finite = values[np.isfinite(values)]
    ends = np.concatenate([finite, [] if interval is None else interval])
    if ends.size == 0:
        return 0.0, 1.0
    low, high = float(ends.min()), float(ends.max())
    margin = 0.25 * (high - low) or 0.1 * abs(high) or 0.1
    return low - margin, high + margin

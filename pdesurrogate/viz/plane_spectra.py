"""Line spectra of channels in planes at several distances from the wall, beside published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from pdesurrogate.evaluation.channel.comparison import nearest_plane
from pdesurrogate.evaluation.channel.reference import COMPONENTS, ChannelReference
from pdesurrogate.evaluation.channel.wall_units import LineSpectrum, WallUnitStatistics
from pdesurrogate.viz.style import (
    INK,
    MUTED,
    Band,
    Panels,
    draw_band,
    legend_beside,
    line_look,
    new_figure,
    set_scale,
    style,
)

# How far below its peak a spectrum is shown.
_DECADES = 7
_REFERENCE: dict[str, Any] = {
    "color": INK, "linestyle": "none", "marker": "o", "markersize": 3.6, "markerfacecolor": "white",
    "markeredgewidth": 0.8, "markevery": 0.07, "zorder": 3,
}  # fmt: skip


def plot_plane_spectra(
    channels: Mapping[str, WallUnitStatistics],
    *,
    axis: Literal["x", "z"] = "z",
    reference: ChannelReference | None = None,
    axes: Panels | None = None,
) -> Panels:
    """Energy per wavenumber along one axis, in wall units: a row for each component, a column for each plane.

    Planes are those of the first channel, where a component that lives elsewhere is marked; of the others, and of the
    reference, each panel shows the plane at nearly the same ``y+``. Shades are one standard error to both sides.

    Args:
        channels: label to statistics.
        axis: along which: ``x``, the mean flow, or ``z``, the span.
        reference: published spectra, drawn as open circles.
        axes: ``(3, planes)`` to draw into; those of a new figure by default.

    Returns:
        The panels ``(3, planes)``; ``panels[0, 0].figure`` is what a notebook shows.

    Raises:
        ValueError: if there is no channel, or the first has no spectra of all three components along the axis.

    Example:
        >>> from pdesurrogate.evaluation.channel.reference import channel_reference
        >>> table = WallUnitStatistics.of_reference(channel_reference(180))
        >>> plot_plane_spectra({"published": table}).shape
        (3, 5)
    """
    first = next(iter(channels.values()), None)
    if first is None or any((axis, component) not in first.spectra for component in COMPONENTS):
        found = None if first is None else sorted({component for along, component in first.spectra if along == axis})
        raise ValueError(f"Expected a channel with spectra of {COMPONENTS} along {axis} but got {found}.")
    published = None if reference is None else WallUnitStatistics.of_reference(reference)
    planes = len(first.spectra[axis, COMPONENTS[0]])
    with style():
        if axes is None:
            size = 2.1 + 2.35 * planes, 6.6
            axes = new_figure(*size).subplots(3, planes, sharex=True, sharey="row", squeeze=False)
        elif axes.shape != (3, planes):
            raise ValueError(f"Expected axes of shape {(3, planes)} but got {axes.shape}; leave them out.")
        for row, component in enumerate(COMPONENTS):
            for column, wanted in enumerate(first.spectra[axis, component]):
                panel = axes[row, column]
                titled = first.spectra[axis, COMPONENTS[0]][column].distance
                if abs(wanted.distance - titled) > 0.02 * titled:
                    place = f"$y^+ = {wanted.distance:.3g}$"
                    panel.annotate(place, (0.05, 0.07), xycoords="axes fraction", fontsize=9, color=MUTED)
                set_scale(panel.xaxis, "log")
                set_scale(panel.yaxis, "log")
                for index, (label, statistics) in enumerate(channels.items()):
                    _draw(
                        panel,
                        statistics.spectra.get((axis, component), ()),
                        wanted,
                        label,
                        line_look(index, "surrogate"),
                    )
                if published is not None and reference is not None:
                    _draw(panel, published.spectra[axis, component], wanted, reference.name, _REFERENCE)
            _limit(axes[row])
            axes[row, 0].set_ylabel(f"$E_{{{'uvw'[row] * 2}}}^+ / h$")
        for column, spectrum in enumerate(first.spectra[axis, COMPONENTS[0]]):
            axes[0, column].set_title(f"$y^+ = {spectrum.distance:.3g}$")
            axes[-1, column].set_xlabel(f"$k_{axis} h$")
        legend_beside(axes[1, -1])
    return axes


def _draw(
    panel: Axes, planes: Sequence[LineSpectrum], wanted: LineSpectrum, label: str, look: Mapping[str, Any]
) -> None:
    spectrum = nearest_plane(planes, wanted.distance)
    if spectrum is None:
        return
    waves, density = spectrum.density
    # The last mode of an even number of points holds half a wave.
    shown = (density > 0) & (waves < waves[-1])
    error = spectrum.error[1:][shown] / waves[0]
    draw_band(panel, waves[shown], Band.of_lines([density[shown]], error), label, **look)


def _limit(row: Panels) -> None:
    """Peaks with all that is not too far below them."""
    heights = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for panel in row for line in panel.lines])
    peak = float(heights.max())
    row[0].set_ylim(max(0.5 * float(heights.min()), peak * 10.0**-_DECADES), 3 * peak)

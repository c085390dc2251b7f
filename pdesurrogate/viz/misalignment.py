"""How far features move in a SineNet: over its waves, and between what its skips join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, SymmetricalLogLocator

from pdesurrogate.evaluation.misalignment import Misalignment, Shift
from pdesurrogate.viz.style import GUIDE, INK, MUTED, Panels, line_look, row_of_panels, style

_GUIDES: tuple[Any, ...] = (
    {**GUIDE, "color": INK, "linewidth": 1.3, "linestyle": (0, (6, 2))},
    {**GUIDE, "color": INK, "linewidth": 1.3, "linestyle": (0, (1, 1.5))},
    {**GUIDE, "linewidth": 1.3, "linestyle": (0, (6, 2, 1, 2))},
    {**GUIDE, "linewidth": 1.3, "linestyle": "-"},
)
# How far apart bars of neighboring waves stand within a level.
_SPREAD = 0.6


def plot_misalignment(misalignment: Misalignment, *, axes: Sequence[Axes] | Panels | None = None) -> Panels:
    """Left: how far features move over each wave. Right: skip against upsampled features at each level.

    Points are medians over samples, bars reach from the lower to the upper quartile, all in points of the finest grid,
    linear up to one of them and logarithmic beyond. Crosses are what features of different samples give; points are
    open where those fit together as well, so that the shift means nothing. Horizontal lines are the equal share of a
    wave in the displacement over all of them, the shift that the same measure finds between frames of the data, and
    what points of the flow cover in a step.

    Args:
        misalignment: of `measure_misalignment`.
        axes: two to draw into; those of a new figure by default.

    Returns:
        The two axes.

    Raises:
        ValueError: if another number of axes is given.
    """
    with style():
        panels = row_of_panels(axes, 2, 12.4, 4.6, share=False)
        _draw_waves(panels[0], misalignment)
        _draw_levels(panels[1], misalignment)
        for panel in panels:
            # Chance gives many points where waves move features by parts of one.
            panel.set_yscale("symlog", linthresh=1.0)
            panel.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1.0, subs=[1.0, 2.0, 5.0]))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_locator(FixedLocator([0.25, 0.5, 0.75]))
            panel.set_ylim(0, 1.3 * panel.get_ylim()[1])
            panel.set_ylabel("displacement [grid points]")
        panels[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        panels[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, columnspacing=1.2)
    return panels


def _draw_waves(axes: Axes, misalignment: Misalignment) -> None:
    count = len(misalignment.waves)
    number = np.arange(1.0, count + 1)
    _draw_shifts(axes, number, misalignment.waves, label="over a wave", **line_look(0, "surrogate"))
    _draw_chance(axes, number, misalignment.waves, label="of different samples")
    lines = [
        (misalignment.total.median / count, f"over all waves, by {count}"),
        (misalignment.data.median, "frames of the data, same measure"),
        (None if misalignment.typical is None else misalignment.typical.median, "root mean square of |u| dt / dx"),
        (None if misalignment.fastest is None else misalignment.fastest.median, "max |u| dt / dx"),
    ]
    for (height, label), look in zip(lines, _GUIDES, strict=True):
        if height is not None and np.isfinite(height):
            axes.axhline(height, label=label, **look)
    axes.set_xlim(0.5, count + 0.5)
    # A locator of whole numbers falls back to others where there is only one of them.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10) if count > 1 else FixedLocator([1]))
    axes.set_xlabel("wave")
    axes.set_title("input against output of a wave")


def _draw_levels(axes: Axes, misalignment: Misalignment) -> None:
    waves = misalignment.levels
    place = np.arange(float(len(waves[0])))
    offsets = (np.arange(len(waves)) - (len(waves) - 1) / 2) * (_SPREAD / max(len(waves), 2))
    for wave, (offset, shifts) in enumerate(zip(offsets, waves, strict=True)):
        look = {**line_look(wave, "surrogate"), "linestyle": "none"}
        _draw_shifts(axes, place + offset, shifts, label=f"wave {wave + 1}", **look)
        _draw_chance(axes, place + offset, shifts, label=None if wave else "of different samples")
    axes.set_xlim(-0.5, len(place) - 0.5)
    axes.set_xticks(place, ["1" if level == 0 else f"1/{2**level}" for level in range(len(place))])
    axes.set_xlabel("resolution of the level")
    axes.set_title("skip against upsampled features")


def _draw_shifts(axes: Axes, place: Any, shifts: Sequence[Shift], **look: Any) -> None:
    lower, median, upper = (np.array([getattr(each, name) for each in shifts]) for name in ("lower", "median", "upper"))
    bars = np.stack([median - lower, upper - median])
    look = {"linewidth": 1.2, "elinewidth": 1.6, "capsize": 2.5, "marker": "o", "markersize": 5, **look}
    axes.errorbar(place, median, yerr=bars, **{**look, "markevery": None})
    accidental = np.array([each.accidental for each in shifts])
    if accidental.any():
        opened = {"linestyle": "none", "marker": look["marker"], "markersize": 4, "color": "white", "zorder": 4}
        axes.plot(place[accidental], median[accidental], **opened)


def _draw_chance(axes: Axes, place: Any, shifts: Sequence[Shift], label: str | None) -> None:
    chance = np.array([each.chance for each in shifts])
    if np.isfinite(chance).any():
        axes.plot(place, chance, linestyle="none", marker="x", markersize=5, color=MUTED, label=label, zorder=1)

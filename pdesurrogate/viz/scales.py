"""Colour scales of fields: shared by all pictures of one, symmetric where the field has both signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from pdesurrogate.viz.style import INK, MUTED, Panels

Field = NDArray[np.float64]

_NOT_FINITE = "#b5b9c0"


@dataclass(frozen=True)
class ColorScale:
    """From which value to which the colours go, and which they are.

    Attributes:
        low: value of the first colour.
        high: value of the last.
        name: of matplotlib's colour map.
    """

    low: float
    high: float
    name: str

    @classmethod
    def of_field(cls, values: Field, limit: float | None = None) -> ColorScale:
        """Blue to red, symmetric about zero, for a field of both signs; viridis from end to end for one of one sign.

        With a ``limit`` it is symmetric, from ``-limit`` to ``limit``. Values that are not finite do not count.

        Example:
            >>> ColorScale.of_field(np.asarray([-1.0, 3.0]))
            ColorScale(low=-3.0, high=3.0, name='RdBu_r')
            >>> ColorScale.of_field(np.asarray([1.0, 3.0]))
            ColorScale(low=1.0, high=3.0, name='viridis')
        """
        finite = values[np.isfinite(values)]
        one_signed = finite.size > 0 and (finite.min() >= 0 or finite.max() <= 0)
        if limit is None and one_signed and finite.min() < finite.max():
            return cls(float(finite.min()), float(finite.max()), "viridis")
        limit = _magnitude(finite) if limit is None else limit
        return cls(-limit, limit, "RdBu_r")

    @classmethod
    def of_error(cls, values: Field, limit: float | None = None) -> ColorScale:
        """Purple to orange, symmetric about zero: not to be taken for a field.

        Example:
            >>> ColorScale.of_error(np.asarray([-1.0, np.nan, 0.5]))
            ColorScale(low=-1.0, high=1.0, name='PuOr_r')
        """
        limit = _magnitude(values[np.isfinite(values)]) if limit is None else limit
        return cls(-limit, limit, "PuOr_r")

    def options(self, colors: int = 256) -> dict[str, Any]:
        """Arguments of matplotlib's ``imshow`` and ``pcolormesh``; values that are not finite are grey."""
        color_map: Colormap = matplotlib.colormaps[self.name].resampled(colors)
        return {"vmin": self.low, "vmax": self.high, "cmap": color_map.with_extremes(bad=_NOT_FINITE)}

    def clipped_ends(self, values: Field) -> str:
        """Which ends of the scale the finite values go beyond, as matplotlib's ``extend`` calls them."""
        finite = values[np.isfinite(values)]
        below, above = bool((finite < self.low).any()), bool((finite > self.high).any())
        return (("neither", "max"), ("min", "both"))[below][above]


def _magnitude(finite: Field) -> float:
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    return largest if largest > 0 else 1.0


def color_bar(picture: ScalarMappable, panels: Panels, label: str, extend: str, *, aspect: float = 22) -> None:
    """One bar for all ``panels``, right of them."""
    shown = panels.ravel().tolist()
    bar = shown[0].figure.colorbar(picture, ax=shown, label=label, extend=extend, aspect=aspect, pad=0.015, shrink=0.97)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=MUTED)


def say_not_finite(axes: Axes, x: Field, y: Field, values: Field) -> None:
    """Write into a picture of ``values (y, x)`` that some are not finite, in the middle of them."""
    rows, columns = np.nonzero(~np.isfinite(values))
    if rows.size:
        place = float(x[columns].mean()), float(y[rows].mean())
        axes.text(*place, "not finite", ha="center", va="center", color=INK, fontsize=9)

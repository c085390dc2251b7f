"""One look for all figures: palette, line styles, and a context manager that leaves matplotlib's settings alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation
from numpy.typing import NDArray

# An array of `Axes`, for which NumPy has no type.
Panels: TypeAlias = NDArray[Any]

INK = "#1b1f24"
MUTED = "#6b7280"
GRID = "#d9dce1"

# Okabe & Ito, "Color universal design" (2008), without its yellow, which vanishes on white, and its black, which is
# kept for the truth; then an indigo and a brown that no colour-blind eye takes for one of the six.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#332288", "#8B4513")

# A second cue beside colour: what kind of model a line belongs to.
LINE_STYLES: dict[str, Any] = {"surrogate": "-", "solver": (0, (5, 2)), "baseline": (0, (1, 1.4))}
# A third where the colours start again.
_MARKERS = ("o", "s", "^", "D")

# The look of the truth, and of lines that only guide the eye.
TRUTH: dict[str, Any] = {"color": INK, "linewidth": 3.2, "alpha": 0.85}
GUIDE: dict[str, Any] = {"color": MUTED, "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 1}
BAND_OPACITY = 0.18
# For text that lies over lines.
HALO = (withStroke(linewidth=2.5, foreground="white"),)

_SETTINGS: Any = {
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.labelsize": 11,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "white",
    "figure.dpi": 110,
    "svg.hashsalt": "pdesurrogate",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the package's look inside the ``with`` block; matplotlib's settings are as before after it.

    Example:
        >>> before = matplotlib.rcParams["axes.spines.top"]
        >>> with style():
        ...     inside = matplotlib.rcParams["axes.spines.top"]
        >>> inside, matplotlib.rcParams["axes.spines.top"] == before
        (False, True)
    """
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width x height`` inches, constrained layout, not registered with pyplot (nothing leaks)."""
    return Figure(figsize=(width, height), layout="constrained")


def one_panel(axes: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or those of a new figure of ``width x height`` inches."""
    return new_figure(width, height).add_subplot() if axes is None else axes


def row_of_panels(
    axes: Axes | Sequence[Axes] | Panels | None, count: int, width: float, height: float, *, share: bool = True
) -> Panels:
    """The ``count`` axes given, or those of a new figure, side by side, as a rule on shared scales.

    Raises:
        ValueError: if another number of axes is given.
    """
    if axes is None:
        return new_figure(width, height).subplots(1, count, sharex=share, sharey=share, squeeze=False)[0]
    given = np.asarray(axes, dtype=object).ravel()
    if len(given) != count:
        raise ValueError(f"Expected {count} axes, one a panel, but got {len(given)}; leave them out for a new figure.")
    return given


def figure_of(drawn: Figure | Axes | Panels) -> Figure:
    """The whole figure that axes, or an array of them, belong to."""
    one: Figure | Axes = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
    figure = one.get_figure(root=True)
    assert figure is not None, "the axes were removed from their figure"
    return figure


def save_figure(drawn: Figure | Axes | Panels, path: str | Path, *, dpi: int = 200) -> Path:
    """Write the figure in the format of the file's ending; the same figure gives the same bytes (no dates inside).

    Args:
        drawn: a figure, or the axes that a plot function gave back: their whole figure is written.
        path: of the file.
        dpi: dots per inch where the format has dots.

    Returns:
        The path as written.

    Raises:
        ValueError: if matplotlib does not know the ending.
    """
    figure = figure_of(drawn)
    path = Path(path)
    suffix = path.suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise ValueError(f"Expected a file ending among {sorted(known)} but got {path.name!r}; use .png or .pdf.")
    dates = {"svg": "Date", "pdf": "CreationDate"}
    metadata = {dates[suffix]: None} if suffix in dates else None
    with style(), whole_file(path) as part:
        figure.savefig(part, dpi=dpi, metadata=metadata, format=suffix)
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to ``path`` if all goes well: a file appears whole or not at all."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def color(index: int) -> str:
    """Colour of the ``index``-th line; the palette starts again after its end."""
    return PALETTE[index % len(PALETTE)]


def line_look(index: int, kind: str) -> dict[str, Any]:
    """Colour of the ``index``-th line, dashes of its kind of model, and marks where the colours start again.

    Example:
        >>> line_look(1, "surrogate")
        {'color': '#D55E00', 'linestyle': '-'}
        >>> line_look(9, "surrogate")["marker"]
        'o'
    """
    look = {"color": color(index), "linestyle": LINE_STYLES.get(kind, "-")}
    rounds = index // len(PALETTE)
    if rounds:
        look |= {"marker": _MARKERS[(rounds - 1) % len(_MARKERS)], "markevery": 0.12, "markersize": 5}
    return look


class Band(NamedTuple):
    """A line and how far it may be off: arrays of one shape, NaN where there is none."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of_lines(cls, lines: Sequence[NDArray[np.float64]], error: NDArray[np.float64] | None = None) -> Band:
        """Mean of several lines, from the lowest to the highest; of a single one, its error to both sides."""
        values = np.stack(lines)
        if len(lines) > 1:
            return cls(values.mean(0), values.min(0), values.max(0))
        error = np.full_like(lines[0], np.nan) if error is None else error
        return cls(lines[0], lines[0] - error, lines[0] + error)


def draw_band(axes: Axes, x: NDArray[np.float64], band: Band, label: str, **look: Any) -> None:
    """A line in a light band of its colour; the band is open where it has no ends, or none on a logarithmic axis."""
    axes.plot(x, band.mean, label=label, **look)
    low = np.where(band.low > 0, band.low, np.nan) if axes.get_yscale() == "log" else band.low
    axes.fill_between(x, low, band.high, color=look["color"], alpha=BAND_OPACITY, linewidth=0)


def legend_beside(axes: Axes, **options: Any) -> None:
    """A legend to the right of the axes, where it hides nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **options)


def labelled(name: str, units: str) -> str:
    """``name [units]`` with powers raised, or the name alone for dimensionless values.

    Example:
        >>> labelled("vorticity", "1/time"), labelled("relative L2 error", "1")
        ('vorticity [1/time]', 'relative L2 error')
    """
    if units in ("", "1"):
        return name
    raised = re.sub(r"\^(-?\d+)", r"$^{\1}$", units)
    return f"{name} [{raised}]"


def set_scale(axis: XAxis | YAxis, scale: str) -> None:
    """Make an axis ``"linear"`` or ``"log"``; where numbers between the powers of ten are marked, they are short."""
    axis.axes.set(**{f"{axis.axis_name}scale": scale})
    if scale == "log":
        axis.set_minor_formatter(_Between())


class _Between(LogFormatterSciNotation):
    """Marks the same places as matplotlib does, by 0.3 or 20 rather than powers of ten."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        text = super().__call__(x, pos)
        return f"{x:g}" if text and 1e-3 <= x < 1e4 else text


def set_length_ticks(axis: Axis, length: float) -> None:
    """Ticks at the start, middle and end of a side, in multiples of pi where the side is one."""
    halves = 2 * length / math.pi
    in_pi = halves >= 1 and math.isclose(halves, round(halves), rel_tol=1e-3)
    axis.set_ticks([0.0, length / 2, length])
    axis.set_major_formatter(FuncFormatter(_format_pi if in_pi else _format_plain))


def _format_plain(value: float, _: int | None = None) -> str:
    return f"{value:g}"


def _format_pi(value: float, _: int | None = None) -> str:
    quarters = round(4 * value / math.pi)
    if quarters == 0:
        return "0"
    divisor = math.gcd(quarters, 4)
    top, bottom = quarters // divisor, 4 // divisor
    return f"{'' if top == 1 else top}π{'' if bottom == 1 else f'/{bottom}'}"


def shade_beyond(axes: Axes, start: float, text: str) -> None:
    """Grey out what lies right of ``start`` on the x axis and say why."""
    left, right = axes.get_xlim()
    axes.axvline(start, **GUIDE)
    if start < right:
        axes.axvspan(start, right, color=GRID, alpha=0.45, linewidth=0, zorder=0)
    axes.set_xlim(left, right)
    axes.annotate(
        text,
        xy=(start, 0.97),
        xycoords=axes.get_xaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        ha="left",
        va="top",
        rotation=90,
        fontsize=9,
        color=MUTED,
        path_effects=HALO,
    )


def evenly_spread(count: int, shown: int) -> list[int]:
    """Indices of ``shown`` out of ``count`` frames, first and last among them.

    Example:
        >>> evenly_spread(20, 5), evenly_spread(3, 5)
        ([0, 5, 10, 14, 19], [0, 1, 2])
    """
    if count <= shown:
        return list(range(count))
    if shown == 1:
        return [count - 1]
    indices = [round(i * (count - 1) / (shown - 1)) for i in range(shown)]
    assert all(a < b for a, b in pairwise(indices))
    return indices

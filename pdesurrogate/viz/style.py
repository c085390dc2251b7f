"""One look for all figures: palette, line styles, and a context manager that leaves matplotlib's settings alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

INK = "#1b1f24"
MUTED = "#6b7280"
GRID = "#d9dce1"

# Okabe & Ito, "Color universal design" (2008), without its yellow, which vanishes on white, and its black, which is
# kept for the truth.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#7F7F7F")

# A second cue beside colour: what kind of model a line belongs to.
LINE_STYLES: dict[str, Any] = {"surrogate": "-", "solver": (0, (5, 2)), "baseline": (0, (1, 1.4))}

FIELD_COLORMAP = "RdBu_r"
ERROR_COLORMAP = "PuOr_r"
NOT_FINITE = "#b5b9c0"

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


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 200) -> Path:
    """Write a figure in the format of the file's ending; the same figure gives the same bytes (no dates inside).

    Returns:
        The path as written.

    Raises:
        ValueError: if matplotlib does not know the ending.
    """
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
    axes.axvline(start, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
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

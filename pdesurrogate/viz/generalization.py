"""Errors over the parameters of cases: what a network does between and beyond the cases that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from textwrap import fill
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from pdesurrogate.viz.scales import ColorScale, color_bar
from pdesurrogate.viz.style import INK, MUTED, Panels, labelled, new_figure, set_scale, style

Values = NDArray[np.float64]

# Darker is worse. No field has these colours.
_COLORS = "Blues"
# In inches: side of a cell, and what stands around the cells of a panel.
_CELL = 0.5
_MARGIN_X, _MARGIN_Y = 1.1, 1.2
_SMALLEST_X, _SMALLEST_Y, _NARROWEST = 1.3, 1.3, 5.5
# Letters that fit along a panel, and the narrowest range of a logarithmic scale: what is alike shall look so.
_LABEL_WIDTH = 20
_RANGE = 4.0
# Values that differ by less than this share of the larger one are one: contexts hold them in single precision.
_SAME = 1e-5


# A heavy frame, with a white one around it where cells are dark.
_TESTED: dict[str, Any] = {
    "edgecolor": INK,
    "linewidth": 2.2,
    "path_effects": [withStroke(linewidth=4.4, foreground="white")],
}


class CaseErrors(NamedTuple):
    """Errors of some cases and where these lie in two parameters.

    Attributes:
        names: of the two parameters, along x and along y, with their units if they have any.
        tested: ``(case, 2)``, parameters of the test cases.
        errors: ``(case,)`` of them.
        trained: ``(case, 2)``, parameters of the training cases.
        trained_errors: ``(case,)`` of them; none where they were not measured.
    """

    names: tuple[str, str]
    tested: Values
    errors: Values
    trained: Values
    trained_errors: Values | None = None


class _Cell(NamedTuple):
    """What one pair of values is drawn with; a value of ``None`` was not measured."""

    value: float | None
    tested: bool


def plot_error_maps(
    maps: Mapping[str, Mapping[str, CaseErrors]],
    label: str = "error",
    *,
    units: str = "1",
    scale: Literal["linear", "log"] = "log",
) -> Panels:
    """Errors of models, a row each, on subsets of cases, a column each; darker is worse, and all have one scale.

    The axes of a panel are the values that occur, evenly spaced whatever they are, and each case is a cell. Cells in a
    heavy frame are test cases; those without are training cases, and a point stands where their error was not measured.
    A cell of several cases shows their mean; that of test cases alone, where it has both. A cross is an error that is
    not finite, white is no case. Numbers that are not positive have no logarithm and get the lightest colour. A
    logarithmic scale covers a factor of four at least.

    Args:
        maps: by model, then by subset.
        label: of the errors.
        units: of the errors.
        scale: of the colours.

    Returns:
        The axes ``(model, subset)``; ``figure_of(panels)`` is what a notebook shows.

    Raises:
        ValueError: if there is nothing to draw, models have other subsets, arrays do not fit together, or ``scale`` is
            another.

    Example:
        >>> tested, trained = np.asarray([[2.0, 1.0]]), np.asarray([[1.0, 1.0], [3.0, 1.0]])
        >>> errors = CaseErrors(("speed [m/s]", "height [m]"), tested, np.asarray([0.3]), trained)
        >>> panels = plot_error_maps({"FNO": {"bc": errors}}, "relative L2 error")
        >>> [text.get_text() for text in panels[0, 0].get_xticklabels()]
        ['1', '2', '3']
    """
    if scale not in ("linear", "log"):
        raise ValueError(f"Expected the scale 'linear' or 'log' but got {scale!r}.")
    subsets = _require_alike(maps)
    lines = {name: _axes_of([models[name] for models in maps.values()]) for name in subsets}
    tables = {
        (model, name): _cells(cases, lines[name])
        for model, of_model in maps.items()
        for name, cases in of_model.items()
    }
    values = np.asarray([cell.value for table in tables.values() for cell in table.values() if cell.value is not None])
    norm = _norm(values, scale)
    widths = [max(_CELL * len(x), _SMALLEST_X) + _MARGIN_X for x, _ in lines.values()]
    height = max(_SMALLEST_Y, *(_CELL * len(y) for _, y in lines.values())) + _MARGIN_Y
    with style():
        figure = new_figure(max(sum(widths) + 1.2, _NARROWEST), len(maps) * height + 0.4)
        panels: Panels = figure.subplots(len(maps), len(subsets), squeeze=False, width_ratios=widths)
        for row, (model, of_model) in zip(panels, maps.items(), strict=True):
            for axes, name in zip(row, subsets, strict=True):
                _draw(axes, tables[model, name], lines[name], norm)
                axes.set_title(name)
                axes.set_xlabel(fill(of_model[name].names[0], _LABEL_WIDTH))
                axes.set_ylabel(fill(of_model[name].names[1], _LABEL_WIDTH))
            if len(maps) > 1:
                row[0].annotate(
                    fill(model, _LABEL_WIDTH),
                    xy=(0, 0.5),
                    xycoords=(row[0].yaxis.label, "axes fraction"),
                    xytext=(-12, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    rotation=90,
                    fontsize=11.5,
                )
        picture = panels[0, 0].collections[0]
        color_bar(picture, panels, labelled(label, units), "neither", aspect=min(9 * len(maps) * height, 40))
        if scale == "log":
            set_scale(picture.colorbar.ax.yaxis, scale)
        figure.legend(handles=_key(tables), loc="outside lower center", ncols=4)
    return panels


def _require_alike(maps: Mapping[str, Mapping[str, CaseErrors]]) -> list[str]:
    """Names of the subsets, the same of all models."""
    names = {model: list(of_model) for model, of_model in maps.items()}
    first = next(iter(names.values()), [])
    if not first or any(sorted(each) != sorted(first) for each in names.values()):
        raise ValueError(f"Expected the same subsets, one at least, of every model but got {names}.")
    for model, of_model in maps.items():
        for name, cases in of_model.items():
            _require_fitting(cases, f"of {model!r} on {name!r}")
    return first


def _require_fitting(cases: CaseErrors, what: str) -> None:
    tested, trained = len(cases.tested), len(cases.trained)
    arrays = {"tested": (cases.tested, (tested, 2)), "errors": (cases.errors, (tested,))}
    arrays["trained"] = cases.trained, (trained, 2)
    if cases.trained_errors is not None:
        arrays["trained_errors"] = cases.trained_errors, (trained,)
    if tested + trained == 0 or any(np.shape(array) != shape for array, shape in arrays.values()):
        got = ", ".join(f"{name} {np.shape(array)}" for name, (array, _) in arrays.items())
        raise ValueError(f"Expected parameters (case, 2) and errors (case,) {what}, of a case at least, but got {got}.")


def _axes_of(models: list[CaseErrors]) -> tuple[Values, Values]:
    """Distinct values of either parameter, rising, those of all models."""
    points = np.concatenate([part for cases in models for part in (cases.tested, cases.trained)]).astype(np.float64)
    return _distinct(points[:, 0]), _distinct(points[:, 1])


def _distinct(values: Values) -> Values:
    ordered = np.sort(values)
    apart = np.diff(ordered) > _SAME * np.maximum(np.abs(ordered[1:]), np.abs(ordered[:-1]))
    return ordered[np.concatenate([[True], apart])]


def _cells(cases: CaseErrors, lines: tuple[Values, Values]) -> dict[tuple[int, int], _Cell]:
    """By place along x and y."""
    cells: dict[tuple[int, int], _Cell] = {}
    for points, errors, tested in ((cases.trained, cases.trained_errors, False), (cases.tested, cases.errors, True)):
        found: dict[tuple[int, int], list[float]] = {}
        for number, point in enumerate(points):
            x, y = (int(np.abs(line - value).argmin()) for line, value in zip(lines, point, strict=True))
            found.setdefault((x, y), []).extend([] if errors is None else [float(errors[number])])
        for place, values in found.items():
            cells[place] = _Cell(float(np.mean(values)) if values else None, tested)
    return cells


def _norm(values: Values, scale: str) -> Normalize:
    shown = values[np.isfinite(values) & ((values > 0) | (scale == "linear"))]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.1, 1.0)
    if scale == "log":
        room = max(1.01, math.sqrt(_RANGE * low / high))
        return LogNorm(low / room, high * room, clip=True)
    return Normalize(min(low, 0.0), high if high > min(low, 0.0) else 1.0, clip=True)


def _draw(axes: Axes, cells: Mapping[tuple[int, int], _Cell], lines: tuple[Values, Values], norm: Normalize) -> None:
    table = np.full([len(line) for line in lines], np.nan)
    for place, cell in cells.items():
        table[place] = np.nan if cell.value is None or not np.isfinite(cell.value) else cell.value
    options = ColorScale(float(norm.vmin or 0.0), float(norm.vmax or 1.0), _COLORS).options()
    color_map = options["cmap"].with_extremes(bad="none")
    edges = [np.arange(len(line) + 1) - 0.5 for line in lines]
    axes.pcolormesh(*edges, np.ma.masked_invalid(table).T, norm=norm, cmap=color_map)
    for (x, y), cell in cells.items():
        # A light frame keeps equal neighbours apart; a test case's lies above those of its neighbours.
        look: dict[str, Any] = _TESTED if cell.tested else {"edgecolor": MUTED}
        inset = 0.08 if cell.tested else 0.0
        corner, side = (x - 0.5 + inset, y - 0.5 + inset), 1 - 2 * inset
        axes.add_patch(Rectangle(corner, side, side, fill=False, clip_on=False, zorder=3 if cell.tested else 2, **look))
        if cell.value is None:
            axes.plot(x, y, "o", color=MUTED, markersize=3)
        elif not np.isfinite(cell.value):
            axes.plot(x, y, "x", color=INK, markersize=8, markeredgewidth=2)
        else:
            color = "white" if float(norm(cell.value)) > 0.55 else INK
            axes.text(x, y, f"{cell.value:.2g}", ha="center", va="center", fontsize=7.5, color=color)
    for axis, line in zip((axes.xaxis, axes.yaxis), lines, strict=True):
        axis.set_ticks(range(len(line)), [f"{value:.4g}" for value in line])
        axis.set_tick_params(length=0)
    if len(lines[0]) > 4:
        axes.tick_params(axis="x", labelsize=8.5)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _key(tables: Mapping[tuple[str, str], Mapping[tuple[int, int], _Cell]]) -> list[Patch | Line2D]:
    """Legend entries of what occurs."""
    cells = [cell for table in tables.values() for cell in table.values()]
    entries: list[Patch | Line2D] = [Patch(facecolor="none", edgecolor=INK, linewidth=2.2, label="test case")]
    point: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3, "color": MUTED}
    cross: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 8, "markeredgewidth": 2, "color": INK}
    if any(not cell.tested and cell.value is not None for cell in cells):
        entries.append(Patch(facecolor="none", edgecolor=MUTED, label="training case"))
    if any(cell.value is None for cell in cells):
        entries.append(Line2D([], [], label="training case, not measured", **point))
    if any(cell.value is not None and not np.isfinite(cell.value) for cell in cells):
        entries.append(Line2D([], [], label="not finite", **cross))
    return entries

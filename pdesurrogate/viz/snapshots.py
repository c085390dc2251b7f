"""Fields side by side: truth, models and errors at several lead times, and films of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from pdesurrogate.viz.style import (
    ERROR_COLORMAP,
    FIELD_COLORMAP,
    INK,
    MUTED,
    NOT_FINITE,
    PALETTE,
    evenly_spread,
    labelled,
    new_figure,
    set_length_ticks,
    style,
    whole_file,
)

Frames = NDArray[np.float64]


def plot_snapshots(
    truth: Tensor,
    predictions: Mapping[str, Tensor],
    lead_times: Sequence[float] | Tensor,
    *,
    extent: tuple[float, float],
    frames: Sequence[int] | None = None,
    label: str = "vorticity",
    units: str = "1/time",
    length_units: str = "1",
    time_units: str = "1",
    limit: float | None = None,
    error_limit: float | None = None,
) -> Figure:
    """Rows: truth, every model, every model's error; columns: lead times.

    Truth and models share one colour scale, symmetric about zero. Errors (prediction minus truth) have a scale and a
    colour map of their own, and their relative L2 norm is written into each panel. Values that are not finite are grey.

    Args:
        truth: ``(time, x, y)`` one channel in physical units.
        predictions: label to field of the same shape.
        lead_times: ``(time,)`` lead time of every frame.
        extent: lengths of the sides ``(x, y)``.
        frames: which frames to show; at most five, evenly spread, by default.
        label: name of the field.
        units: of the field.
        length_units: of the sides.
        time_units: of the lead times.
        limit: colour scale from ``-limit`` to ``limit``; the truth's largest magnitude in the frames by default.
        error_limit: the same for the errors; by default their largest finite magnitude.

    Raises:
        ValueError: if shapes disagree, a frame is not there or no model is given.
    """
    truth_frames, fields = _checked(truth, predictions, lead_times)
    times = [float(time) for time in lead_times]
    shown = evenly_spread(len(times), 5) if frames is None else list(frames)
    if not shown or not all(0 <= frame < len(times) for frame in shown):
        raise ValueError(f"Expected frames within 0..{len(times) - 1} but got {shown}.")
    truth_frames = truth_frames[shown]
    fields = {name: values[shown] for name, values in fields.items()}
    errors = {name: values - truth_frames for name, values in fields.items()}
    limit = _magnitude([truth_frames]) if limit is None else limit
    error_limit = _magnitude(list(errors.values())) if error_limit is None else error_limit

    rows = 1 + 2 * len(fields)
    panel_height = 1.75 * min(max(extent[1] / extent[0], 0.5), 2.0)
    with style():
        figure = new_figure(1.6 + 1.85 * len(shown), 0.9 + panel_height * rows)
        grid = figure.subplots(rows, len(shown), sharex=True, sharey=True, squeeze=False)
        color_map, error_map = matplotlib.colormaps[FIELD_COLORMAP], matplotlib.colormaps[ERROR_COLORMAP]
        pictures = []
        for row, (name, values) in enumerate({"truth": truth_frames, **fields}.items()):
            pictures = [
                _draw(axes, frame, extent, limit, color_map) for axes, frame in zip(grid[row], values, strict=True)
            ]
            _name_row(grid[row, 0], name, labelled("y", length_units))
        error_pictures = []
        for row, (name, values) in enumerate(errors.items(), start=1 + len(fields)):
            for axes, frame, reference in zip(grid[row], values, truth_frames, strict=True):
                error_pictures.append(_draw(axes, frame, extent, error_limit, error_map))
                _write_relative_error(axes, frame, reference)
            _name_row(grid[row, 0], "error" if len(errors) == 1 else f"error of\n{name}", labelled("y", length_units))
        for axes, frame_index in zip(grid[0], shown, strict=True):
            axes.set_title(_lead_time_text(times[frame_index], time_units))
        for axes in grid[-1]:
            axes.set_xlabel(labelled("x", length_units))
        upper, lower = grid[: 1 + len(fields)], grid[1 + len(fields) :]
        _color_bar(
            figure, pictures[0], upper, labelled(label, units), _exceeds([truth_frames, *fields.values()], limit)
        )
        _color_bar(
            figure,
            error_pictures[0],
            lower,
            labelled("prediction − truth", units) + "\n(own scale)",
            _exceeds(list(errors.values()), error_limit),
        )
    return figure


def save_film(
    truth: Tensor,
    prediction: Tensor,
    lead_times: Sequence[float] | Tensor,
    path: str | Path,
    *,
    extent: tuple[float, float],
    prediction_label: str = "prediction",
    label: str = "vorticity",
    units: str = "1/time",
    length_units: str = "1",
    time_units: str = "1",
    limit: float | None = None,
    frames_per_second: int = 6,
    dpi: int = 90,
) -> Path:
    """Write a GIF: truth and prediction on one colour scale, and the correlation between them as it is lost.

    Args:
        truth: ``(time, x, y)`` one channel in physical units.
        prediction: of the same shape.
        lead_times: ``(time,)`` lead time of every frame.
        path: of the GIF.
        extent: lengths of the sides ``(x, y)``.
        prediction_label: title of the right panel.
        label: name of the field.
        units: of the field.
        length_units: of the sides.
        time_units: of the lead times.
        limit: colour scale from ``-limit`` to ``limit``; the truth's largest magnitude by default.
        frames_per_second: of the film.
        dpi: dots per inch; the film is 7.4 inches wide.

    Returns:
        The path as written.

    Raises:
        ValueError: if shapes disagree or the path does not end in ``.gif``.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"Expected a path that ends in .gif but got {path.name!r}.")
    truth_frames, fields = _checked(truth, {prediction_label: prediction}, lead_times)
    times = np.asarray([float(time) for time in lead_times])
    predicted = fields[prediction_label]
    limit = _magnitude([truth_frames]) if limit is None else limit
    correlations = np.asarray([_correlation(a, b) for a, b in zip(predicted, truth_frames, strict=True)])

    with style():
        ratio = min(max(extent[1] / extent[0], 0.4), 2.0)
        figure = new_figure(7.4, 1.9 + 3.0 * ratio)
        grid = figure.add_gridspec(2, 2, height_ratios=[3.0 * ratio, 1.0])
        panels = [figure.add_subplot(grid[0, column]) for column in range(2)]
        strip = figure.add_subplot(grid[1, :])
        # Together with the shades of text and lines fewer than the 256 colours of a GIF frame, so that none is merged.
        color_map = matplotlib.colormaps[FIELD_COLORMAP].resampled(97)
        pictures = [
            _draw(axes, frames[0], extent, limit, color_map)
            for axes, frames in zip(panels, (truth_frames, predicted), strict=True)
        ]
        for axes, name in zip(panels, ("truth", prediction_label), strict=True):
            axes.set_title(name, weight="bold")
            axes.set_xlabel(labelled("x", length_units))
        panels[0].set_ylabel(labelled("y", length_units))
        panels[1].tick_params(labelleft=False)
        clipped = _exceeds([truth_frames, predicted], limit)
        _color_bar(figure, pictures[0], np.asarray(panels), labelled(label, units), clipped)
        line, point = _draw_correlation(strip, times, correlations, labelled("lead time", time_units))
        # The widest title first, so that the frozen layout has room for all of them.
        title = figure.suptitle(max((_lead_time_text(time, time_units) for time in times), key=len), color=INK)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        writer = PillowWriter(fps=frames_per_second)
        with whole_file(path) as part, writer.saving(figure, part, dpi):
            for frame, time in enumerate(times):
                for picture, frames in zip(pictures, (truth_frames, predicted), strict=True):
                    picture.set_data(np.ma.masked_invalid(frames[frame]).T)
                line.set_data(times[: frame + 1], correlations[: frame + 1])
                point.set_data(times[frame : frame + 1], correlations[frame : frame + 1])
                title.set_text(_lead_time_text(time, time_units))
                writer.grab_frame()
    return path


def _checked(
    truth: Tensor, predictions: Mapping[str, Tensor], lead_times: Sequence[float] | Tensor
) -> tuple[Frames, dict[str, Frames]]:
    if truth.ndim != 3 or len(truth) == 0:
        raise ValueError(f"Expected truth (time, x, y) but got shape {tuple(truth.shape)}; select one channel.")
    if len(lead_times) != len(truth):
        raise ValueError(f"Expected {len(truth)} lead times, one a frame, but got {len(lead_times)}.")
    if not predictions:
        raise ValueError("Expected at least one prediction but got none.")
    for name, values in predictions.items():
        if values.shape != truth.shape:
            raise ValueError(
                f"Expected prediction {name!r} of the truth's shape {tuple(truth.shape)} but got {tuple(values.shape)}."
            )
    return _to_numpy(truth), {name: _to_numpy(values) for name, values in predictions.items()}


def _to_numpy(values: Tensor) -> Frames:
    return values.detach().double().cpu().numpy()


def _magnitude(fields: Sequence[Frames]) -> float:
    finite = [np.abs(values[np.isfinite(values)]) for values in fields]
    largest = max((float(values.max()) for values in finite if values.size), default=0.0)
    return largest if largest > 0 else 1.0


def _exceeds(fields: Sequence[Frames], limit: float) -> bool:
    return any(bool((np.abs(values[np.isfinite(values)]) > limit).any()) for values in fields)


def _correlation(first: Frames, second: Frames) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if np.isfinite(norm) and norm > 0 else float("nan")


def _lead_time_text(time: float, units: str) -> str:
    return f"lead time {time:.4g}" + ("" if units in ("", "1") else f" {units}")


def _draw(axes: Axes, frame: Frames, extent: tuple[float, float], limit: float, color_map: Colormap) -> AxesImage:
    """One field ``(x, y)`` with x to the right and y upwards."""
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.tick_params(length=3)
    picture = axes.imshow(
        np.ma.masked_invalid(frame).T,
        origin="lower",
        extent=(0.0, extent[0], 0.0, extent[1]),
        vmin=-limit,
        vmax=limit,
        cmap=color_map.with_extremes(bad=NOT_FINITE),
        interpolation="nearest",
    )
    set_length_ticks(axes.xaxis, extent[0])
    set_length_ticks(axes.yaxis, extent[1])
    if not np.isfinite(frame).all():
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, ha="center", va="center", color=INK, fontsize=9)
    return picture


def _name_row(axes: Axes, name: str, y_label: str) -> None:
    axes.set_ylabel(y_label)
    axes.annotate(
        name,
        xy=(0.0, 0.5),
        xycoords=axes.yaxis.label,
        xytext=(-8, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="center",
        multialignment="center",
        weight="bold",
    )


def _write_relative_error(axes: Axes, error: Frames, reference: Frames) -> None:
    size = float(np.linalg.norm(reference))
    if size > 0 and np.isfinite(error).all():
        axes.text(
            0.035,
            0.955,
            f"rel. L2 {float(np.linalg.norm(error)) / size:.2g}",
            transform=axes.transAxes,
            ha="left",
            va="top",
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )


def _color_bar(figure: Figure, picture: AxesImage, axes: NDArray[np.object_], label: str, clipped: bool) -> None:
    bar = figure.colorbar(
        picture,
        ax=axes.ravel().tolist(),
        label=label,
        extend="both" if clipped else "neither",
        aspect=14 * max(1, len(axes)) if axes.ndim > 1 else 22,
        pad=0.015,
        shrink=0.97,
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=MUTED)


def _draw_correlation(axes: Axes, times: Frames, values: Frames, x_label: str) -> tuple[Line2D, Line2D]:
    """The curve so far (drawn frame by frame) over its faint whole, and a dot at the present frame."""
    axes.plot(times, values, color="#c3c7ce", linewidth=1.2)
    (line,) = axes.plot(times[:1], values[:1], color=PALETTE[0])
    (point,) = axes.plot(times[:1], values[:1], "o", color=PALETTE[0], markersize=6)
    lowest = float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
    axes.set_ylim(min(0.0, 1.1 * lowest), 1.05)
    axes.set_xlabel(x_label)
    axes.set_ylabel("correlation")
    return line, point

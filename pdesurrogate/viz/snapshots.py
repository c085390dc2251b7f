"""Fields side by side: truth, models and errors at several lead times, and films of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from pdesurrogate.viz.films import FILM_COLORS, require_gif, time_text, write_film
from pdesurrogate.viz.planes import Box, draw_plane, solid_cells
from pdesurrogate.viz.scales import ColorScale, Field, color_bar, say_not_finite
from pdesurrogate.viz.style import (
    INK,
    PALETTE,
    Panels,
    evenly_spread,
    labelled,
    new_figure,
    style,
)


def plot_snapshots(
    truth: Tensor,
    predictions: Mapping[str, Tensor],
    lead_times: Sequence[float] | Tensor,
    *,
    extent: tuple[float, float],
    origin: tuple[float, float] = (0.0, 0.0),
    mask: Tensor | None = None,
    frames: Sequence[int] | None = None,
    label: str = "vorticity",
    units: str = "1/time",
    length_units: str = "1",
    time_units: str = "1",
    limit: float | None = None,
    error_limit: float | None = None,
) -> Panels:
    """Rows: truth, every model, every model's error; columns: lead times.

    Truth and models share one colour scale, that of the truth: symmetric about zero where it has both signs. Errors
    (prediction minus truth) have a scale and a colour map of their own, and their relative L2 norm is written into each
    panel. Values that are not finite are grey.

    Args:
        truth: ``(time, x, y)`` one channel in physical units.
        predictions: label to field of the same shape.
        lead_times: ``(time,)`` lead time of every frame.
        extent: lengths of the sides ``(x, y)``.
        origin: their lower left corner.
        mask: ``(x, y)``, true where there is fluid; the other cells are dark grey and count nowhere.
        frames: which frames to show; at most five (three of a long box), evenly spread, by default.
        label: name of the field.
        units: of the field.
        length_units: of the sides.
        time_units: of the lead times.
        limit: colour scale from ``-limit`` to ``limit``; by default as wide as the truth in the frames.
        error_limit: the same for the errors; by default their largest finite magnitude.

    Returns:
        The panels ``(1 + 2 models, frames)``.

    Raises:
        ValueError: if shapes disagree, a frame is not there, no model is given or there is no fluid.
    """
    truth_frames, fields, solid = _checked(truth, predictions, lead_times, mask)
    box = Box.of_sides(extent, origin)
    times = [float(time) for time in lead_times]
    long = extent[1] < 0.5 * extent[0]
    shown = evenly_spread(len(times), 3 if long else 5) if frames is None else list(frames)
    if not shown or not all(0 <= frame < len(times) for frame in shown):
        raise ValueError(f"Expected frames within 0..{len(times) - 1} but got {shown}.")
    truth_frames = truth_frames[shown]
    fields = {name: values[shown] for name, values in fields.items()}
    errors = {name: values - truth_frames for name, values in fields.items()}
    scale = ColorScale.of_field(_fluid(truth_frames, solid), limit)
    error_scale = ColorScale.of_error(np.stack(list(errors.values())), error_limit)

    rows = 1 + 2 * len(fields)
    # Three pictures of a long box have the room of five.
    stretch = 5 / 3 if long else 1.0
    panel_width = 1.85 * stretch
    panel_height = max(1.75 * stretch * min(extent[1] / extent[0], 2.0), 1.0 if long else 0.0)
    with style():
        figure = new_figure(1.6 + panel_width * len(shown), 0.9 + panel_height * rows)
        panels = figure.subplots(rows, len(shown), sharex=True, sharey=True, squeeze=False)
        for row, (name, values) in enumerate({"truth": truth_frames, **fields}.items()):
            for axes, frame in zip(panels[row], values, strict=True):
                picture = draw_plane(axes, frame, box, scale, solid=solid)
                say_not_finite(axes, *box.centers(frame.shape), frame.T)
            _name_row(panels[row, 0], name, labelled("y", length_units))
        for row, (name, values) in enumerate(errors.items(), start=1 + len(fields)):
            for axes, frame, reference in zip(panels[row], values, truth_frames, strict=True):
                error_picture = draw_plane(axes, frame, box, error_scale, solid=solid)
                say_not_finite(axes, *box.centers(frame.shape), frame.T)
                _write_relative_error(axes, frame, reference)
            title = "error" if len(errors) == 1 else f"error of\n{name}"
            _name_row(panels[row, 0], title, labelled("y", length_units))
        for axes, frame_index in zip(panels[0], shown, strict=True):
            axes.set_title(time_text("lead time", times[frame_index], time_units))
        for axes in panels[-1]:
            axes.set_xlabel(labelled("x", length_units))
        upper, lower = panels[: 1 + len(fields)], panels[1 + len(fields) :]
        clipped = scale.clipped_ends(np.stack([truth_frames, *fields.values()]))
        color_bar(picture, upper, labelled(label, units), clipped, aspect=14 * len(upper))
        clipped = error_scale.clipped_ends(np.stack(list(errors.values())))
        text = "prediction\n− truth" if long and len(errors) == 1 else "prediction − truth"
        error_label = labelled(text, units) + "\n(own scale)"
        color_bar(error_picture, lower, error_label, clipped, aspect=14 * len(lower))
    return panels


def save_film(
    truth: Tensor,
    prediction: Tensor,
    lead_times: Sequence[float] | Tensor,
    path: str | Path,
    *,
    extent: tuple[float, float],
    origin: tuple[float, float] = (0.0, 0.0),
    mask: Tensor | None = None,
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
        origin: their lower left corner.
        mask: ``(x, y)``, true where there is fluid; the other cells are dark grey and count nowhere.
        prediction_label: title of the right panel.
        label: name of the field.
        units: of the field.
        length_units: of the sides.
        time_units: of the lead times.
        limit: colour scale from ``-limit`` to ``limit``; by default as wide as the truth.
        frames_per_second: of the film.
        dpi: dots per inch; the film is 7.4 inches wide.

    Returns:
        The path as written.

    Raises:
        ValueError: if shapes disagree or the path does not end in ``.gif``.
    """
    path = require_gif(path)
    truth_frames, fields, solid = _checked(truth, {prediction_label: prediction}, lead_times, mask)
    box = Box.of_sides(extent, origin)
    times = np.asarray([float(time) for time in lead_times])
    predicted = fields[prediction_label]
    scale = ColorScale.of_field(_fluid(truth_frames, solid), limit)
    pairs = zip(_fluid(predicted, solid), _fluid(truth_frames, solid), strict=True)
    correlations = np.asarray([_correlation(first, second) for first, second in pairs])

    with style():
        ratio = min(max(extent[1] / extent[0], 0.4), 2.0)
        figure = new_figure(7.4, 1.9 + 3.0 * ratio)
        grid = figure.add_gridspec(2, 2, height_ratios=[3.0 * ratio, 1.0])
        panels = [figure.add_subplot(grid[0, column]) for column in range(2)]
        strip = figure.add_subplot(grid[1, :])
        pictures = [
            draw_plane(axes, frames[0], box, scale, solid=solid, colors=FILM_COLORS)
            for axes, frames in zip(panels, (truth_frames, predicted), strict=True)
        ]
        for axes, name in zip(panels, ("truth", prediction_label), strict=True):
            axes.set_title(name, weight="bold")
            axes.set_xlabel(labelled("x", length_units))
        panels[0].set_ylabel(labelled("y", length_units))
        panels[1].tick_params(labelleft=False)
        clipped = scale.clipped_ends(np.stack([truth_frames, predicted]))
        color_bar(pictures[0], np.asarray(panels), labelled(label, units), clipped)
        notes = [
            axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, ha="center", va="center", color=INK)
            for axes in panels
        ]
        line, point = _draw_correlation(strip, times, correlations, labelled("lead time", time_units))
        # The widest title first, so that the frozen layout has room for all of them.
        titles = [time_text("lead time", float(time), time_units) for time in times]
        title = figure.suptitle(max(titles, key=len), color=INK)

        def show(frame: int) -> None:
            for picture, note, frames in zip(pictures, notes, (truth_frames, predicted), strict=True):
                picture.set_data(np.ma.masked_invalid(frames[frame]).T)
                note.set_visible(not np.isfinite(frames[frame]).all())
            line.set_data(times[: frame + 1], correlations[: frame + 1])
            point.set_data(times[frame : frame + 1], correlations[frame : frame + 1])
            title.set_text(titles[frame])

        write_film(figure, path, len(times), show, frames_per_second=frames_per_second, dpi=dpi)
    return path


def _checked(
    truth: Tensor, predictions: Mapping[str, Tensor], lead_times: Sequence[float] | Tensor, mask: Tensor | None
) -> tuple[Field, dict[str, Field], NDArray[np.bool_] | None]:
    """Fields, zero in solid cells, and these cells."""
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
    solid = solid_cells(mask, tuple(truth.shape[1:]))
    fields = {name: _to_numpy(values) for name, values in predictions.items()}
    truth_frames = _to_numpy(truth)
    if solid is not None:
        truth_frames = np.where(solid, 0.0, truth_frames)
        fields = {name: np.where(solid, 0.0, values) for name, values in fields.items()}
    return truth_frames, fields, solid


def _fluid(frames: Field, solid: NDArray[np.bool_] | None) -> Field:
    """Values of the fluid in each frame ``(time, ...)``."""
    return frames if solid is None else frames[:, ~solid]


def _to_numpy(values: Tensor) -> Field:
    return values.detach().double().cpu().numpy()


def _correlation(first: Field, second: Field) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if np.isfinite(norm) and norm > 0 else float("nan")


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


def _write_relative_error(axes: Axes, error: Field, reference: Field) -> None:
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


def _draw_correlation(axes: Axes, times: Field, values: Field, x_label: str) -> tuple[Line2D, Line2D]:
    """The curve so far (drawn frame by frame) over its faint whole, and a dot at the present frame."""
    axes.plot(times, values, color="#c3c7ce", linewidth=1.2)
    (line,) = axes.plot(times[:1], values[:1], color=PALETTE[0])
    (point,) = axes.plot(times[:1], values[:1], "o", color=PALETTE[0], markersize=6)
    lowest = float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
    axes.set_xlim(0.0, 1.015 * float(times[-1]))
    axes.set_ylim(min(0.0, 1.1 * lowest), 1.05)
    axes.set_xlabel(x_label)
    axes.set_ylabel("correlation")
    return line, point

"""Space-time diagrams: a line through the field, time upwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from torch import Tensor

from pdesurrogate.viz.scales import ColorScale, Field, color_bar, say_not_finite
from pdesurrogate.viz.style import Panels, labelled, row_of_panels, set_length_ticks, style


def plot_spacetime(
    truth: Tensor,
    prediction: Tensor,
    lead_times: Sequence[float] | Tensor,
    positions: Sequence[float] | Tensor,
    *,
    period: float | None = None,
    prediction_label: str = "prediction",
    label: str = "vorticity",
    units: str = "1/time",
    position_label: str = "x",
    length_units: str = "1",
    time_units: str = "1",
    limit: float | None = None,
    error_limit: float | None = None,
    axes: Sequence[Axes] | Panels | None = None,
) -> Panels:
    """Truth, prediction and error along a line against time: how fast structures drift, and where an error comes from.

    Truth and prediction share one colour scale, that of the truth: symmetric about zero where it has both signs. The
    error (prediction minus truth) has a scale and a colour map of its own. Values that are not finite are grey.

    Args:
        truth: ``(time, x)``, a line through one channel in physical units, such as ``field[:, :, 32]``.
        prediction: of the same shape.
        lead_times: ``(time,)``, increasing.
        positions: ``(x,)`` along the line, increasing, evenly spaced or not.
        period: length of a periodic line, for its marks.
        prediction_label: title of the middle panel.
        label: name of the field.
        units: of the field.
        position_label: name of the axis that the line lies along.
        length_units: of the positions.
        time_units: of the lead times.
        limit: colour scale from ``-limit`` to ``limit``; by default as wide as the truth.
        error_limit: the same for the error; by default its largest finite magnitude.
        axes: three to draw into; those of a new figure by default.

    Returns:
        The three panels; ``panels[0].figure`` is what a notebook shows.

    Raises:
        ValueError: if shapes disagree, or there are fewer than two lead times or positions.
    """
    if truth.ndim != 2 or min(truth.shape) < 2:
        raise ValueError(
            f"Expected truth (time, x) with two lead times and positions at least but got shape {tuple(truth.shape)}; "
            "take one channel and one line."
        )
    if prediction.shape != truth.shape:
        raise ValueError(
            f"Expected a prediction of the truth's shape {tuple(truth.shape)} but got {tuple(prediction.shape)}."
        )
    if (len(lead_times), len(positions)) != truth.shape:
        raise ValueError(
            f"Expected {truth.shape[0]} lead times and {truth.shape[1]} positions but got {len(lead_times)} and "
            f"{len(positions)}."
        )
    times, places = (np.asarray([float(value) for value in values]) for values in (lead_times, positions))
    fields = [values.detach().double().cpu().numpy() for values in (truth, prediction)]
    error = fields[1] - fields[0]
    scale, error_scale = ColorScale.of_field(fields[0], limit), ColorScale.of_error(error, error_limit)
    with style():
        panels = row_of_panels(axes, 3, 10.0, 3.9)
        if period is not None:
            # The first points again after the last, so that no half cell is missing at the ends.
            places = np.append(places, places[0] + period)
            fields, error = [np.hstack([values, values[:, :1]]) for values in fields], np.hstack([error, error[:, :1]])
        pictures = [_draw(panel, times, places, values, scale) for panel, values in zip(panels, fields, strict=False)]
        error_picture = _draw(panels[2], times, places, error, error_scale)
        for panel, title in zip(panels, ("truth", prediction_label, "error"), strict=True):
            panel.set_title(title, weight="bold")
            panel.set_xlabel(labelled(position_label, length_units))
            if period is not None:
                set_length_ticks(panel.xaxis, period)
                panel.set_xlim(places[0], places[-1])
        panels[0].set_ylabel(labelled("lead time", time_units))
        color_bar(pictures[0], panels[:2], labelled(label, units), scale.clipped_ends(np.stack(fields)))
        text = labelled("prediction − truth", units) + "\n(own scale)"
        color_bar(error_picture, panels[2:], text, error_scale.clipped_ends(error))
    return panels


def _draw(axes: Axes, times: Field, places: Field, values: Field, scale: ColorScale) -> QuadMesh:
    axes.grid(False)
    axes.spines[:].set_visible(True)
    say_not_finite(axes, places, times, values)
    # As an image even in a PDF: a path for every cell would be megabytes.
    return axes.pcolormesh(
        places, times, np.ma.masked_invalid(values), shading="nearest", rasterized=True, **scale.options()
    )

"""Films of one field, and how films are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure
from torch import Tensor

from pdesurrogate.viz.planes import Box, Outlined, draw_plane, solid_cells, without_round_off
from pdesurrogate.viz.scales import ColorScale, color_bar
from pdesurrogate.viz.style import INK, labelled, new_figure, style, whole_file

# Few enough to fit beside the shades of text and lines into a GIF frame of 256 colours; odd for a white zero.
FILM_COLORS = 65


def require_gif(path: str | Path) -> Path:
    """The path of a film.

    Raises:
        ValueError: if it does not end in ``.gif``.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"Expected a path that ends in .gif but got {path.name!r}.")
    return path


def write_film(
    figure: Figure, path: Path, count: int, show: Callable[[int], None], *, frames_per_second: int, dpi: int
) -> None:
    """Write a GIF of ``count`` frames, each of which ``show`` sets up; the figure's layout is that at the first call.

    Within `style`.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    writer = PillowWriter(fps=frames_per_second)
    with whole_file(path) as part, writer.saving(figure, part, dpi):
        for frame in range(count):
            show(frame)
            writer.grab_frame()


def time_text(name: str, time: float, units: str) -> str:
    """A title such as ``time 0.25 s``."""
    return f"{name} {time:.4g}" + ("" if units in ("", "1") else f" {units}")


def save_field_film(
    frames: Tensor,
    times: Sequence[float] | Tensor,
    path: str | Path,
    coordinates: Sequence[Tensor],
    *,
    mask: Tensor | None = None,
    bodies: Sequence[Outlined] = (),
    label: str = "vorticity",
    units: str = "1/time",
    length_units: str = "1",
    time_units: str = "1",
    limit: float | None = None,
    frames_per_second: int = 8,
    dpi: int = 80,
) -> Path:
    """Write a GIF of one field on one colour scale, the box with its true ratio of sides.

    Args:
        frames: ``(time, x, y)`` one channel in cells, in physical units.
        times: ``(time,)`` of every frame.
        path: of the GIF.
        coordinates: centers of even cells along x and y.
        mask: true where there is fluid; the other cells are dark grey.
        bodies: drawn over the cells with their true outline.
        label: name of the field.
        units: of the field.
        length_units: of the coordinates.
        time_units: of the times.
        limit: colour scale from ``-limit`` to ``limit``; by default as wide as the fluid in all frames.
        frames_per_second: of the film.
        dpi: dots per inch; the film is at most 8 inches wide.

    Returns:
        The path as written.

    Raises:
        ValueError: if shapes disagree or the path does not end in ``.gif``.
    """
    path = require_gif(path)
    box = Box.around(coordinates)
    expected = (len(times), *(len(points) for points in coordinates))
    if tuple(frames.shape) != expected or expected[0] == 0:
        raise ValueError(f"Expected frames (time, x, y) {expected} but got {tuple(frames.shape)}; take one channel.")
    values = frames.detach().double().cpu().numpy()
    solid = solid_cells(mask, expected[1:])
    seen = without_round_off(values if solid is None else values[:, ~solid])
    scale = ColorScale.of_field(seen, limit)
    finite = [bool(np.isfinite(frame).all()) for frame in seen]
    titles = [time_text("time", float(time), time_units) for time in times]
    ratio = box.lengths[1] / box.lengths[0]
    height = min(6.4 * ratio, 4.2)
    with style():
        figure = new_figure(height / ratio + 1.6, height + 1.1)
        axes = figure.add_subplot()
        picture = draw_plane(axes, values[0], box, scale, solid=solid, bodies=bodies, colors=FILM_COLORS)
        axes.set(xlabel=labelled("x", length_units), ylabel=labelled("y", length_units))
        label = labelled(label, units)
        color_bar(picture, np.asarray([axes]), label, scale.clipped_ends(seen), aspect=max(4 * height, 6))
        note = axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, ha="center", va="center", color=INK)
        # The widest title first, so that the frozen layout has room for all of them.
        title = figure.suptitle(max(titles, key=len), color=INK)

        def show(frame: int) -> None:
            picture.set_data(np.ma.masked_invalid(values[frame]).T)
            note.set_visible(not finite[frame])
            title.set_text(titles[frame])

        write_film(figure, path, len(values), show, frames_per_second=frames_per_second, dpi=dpi)
    return path

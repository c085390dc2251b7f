"""Fields of one plane box, cell by cell, with the bodies in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

from pdesurrogate.viz.scales import ColorScale, Field, color_bar, say_not_finite
from pdesurrogate.viz.style import INK, Panels, labelled, new_figure, set_length_ticks, style

SOLID = "#6b7280"
# Points across a body's outline, more than a picture has.
_OUTLINE = 201
# Boxes with sides of this ratio are too low for three marks.
_LOW = 0.3
# Widest picture of one field, and the highest, in inches.
_WIDTH, _HEIGHT = 9.0, 4.2


class Outlined(Protocol):
    """A body, as `simulators.enclosed.geometry` has them."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Signed distance from the surface, positive outside; ``x`` and ``y`` broadcast."""
        ...

    @property
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Low and high corner of the rectangle around it."""
        ...


class Box(NamedTuple):
    """Where a picture lies, as matplotlib orders it."""

    left: float
    right: float
    bottom: float
    top: float

    @classmethod
    def of_sides(cls, lengths: tuple[float, float], origin: tuple[float, float] = (0.0, 0.0)) -> Box:
        """From the lengths of the sides and the lower left corner."""
        return cls(origin[0], origin[0] + lengths[0], origin[1], origin[1] + lengths[1])

    @classmethod
    def around(cls, coordinates: Sequence[Tensor]) -> Box:
        """Half a cell beyond the outermost centers of even cells along x and y.

        Raises:
            ValueError: if there are not two axes of at least two cells, or these are not even.

        Example:
            >>> Box.around((torch.tensor([0.5, 1.5]), torch.tensor([-1.0, 1.0])))
            Box(left=0.0, right=2.0, bottom=-2.0, top=2.0)
        """
        shapes = [tuple(points.shape) for points in coordinates]
        if len(coordinates) != 2 or any(points.ndim != 1 or len(points) < 2 for points in coordinates):
            raise ValueError(f"Expected centers of cells (x,), (y,), at least two each, but got shapes {shapes}.")
        ends = []
        for points in coordinates:
            gaps = points.double().diff()
            if not bool(torch.allclose(gaps, gaps[:1], rtol=1e-3)):
                raise ValueError(f"Expected even cells but their widths are from {gaps.min():g} to {gaps.max():g}.")
            gap = float(gaps.mean())
            # Round-off of coordinates shows in marks.
            ends += [round(end / gap, 4) * gap for end in (float(points[0]) - gap / 2, float(points[-1]) + gap / 2)]
        return cls(*ends)

    @property
    def lengths(self) -> tuple[float, float]:
        """Of the sides."""
        return self.right - self.left, self.top - self.bottom

    def centers(self, shape: Sequence[int]) -> tuple[Field, Field]:
        """Of so many cells along x and y."""
        x, y = (
            low + (np.arange(size, dtype=np.float64) + 0.5) * (side / size)
            for low, size, side in zip((self.left, self.bottom), shape, self.lengths, strict=True)
        )
        return x, y


def draw_plane(
    axes: Axes,
    values: Field,
    box: Box,
    scale: ColorScale,
    *,
    solid: NDArray[np.bool_] | None = None,
    bodies: Sequence[Outlined] = (),
    colors: int = 256,
) -> AxesImage:
    """One field ``(x, y)`` with x to the right and y upwards, every cell as it is.

    Args:
        axes: to draw into.
        values: of the field; those that are not finite are light grey.
        box: its extent.
        scale: of the colours.
        solid: cells ``(x, y)`` drawn in dark grey, whatever is stored there.
        bodies: drawn over the cells with their true outline, in dark grey too.
        colors: how many there are.
    """
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.tick_params(length=3)
    picture = axes.imshow(
        np.ma.masked_invalid(values).T, origin="lower", extent=box, interpolation="nearest", **scale.options(colors)
    )
    if solid is not None:
        cells = np.ma.masked_where(~solid, np.ones(solid.shape)).T
        axes.imshow(cells, origin="lower", extent=box, interpolation="nearest", cmap=ListedColormap([SOLID]))
    for body in bodies:
        _draw_body(axes, body, box)
    _mark(axes.xaxis, box.left, box.right, low=False)
    _mark(axes.yaxis, box.bottom, box.top, low=box.lengths[1] < _LOW * box.lengths[0])
    return picture


def draw_streamlines(axes: Axes, stream_function: Tensor, box: Box, *, lines: int = 14) -> None:
    """Lines along the flow, evenly spread over the values of a stream function ``(nx + 1, ny + 1)`` at corners.

    Where it has both signs, as in a cavity with eddies in its corners, a few faint lines of the weaker sign are added,
    which are too close to zero for the others.

    Raises:
        ValueError: if there are fewer than two lines.
    """
    if lines < 2:
        raise ValueError(f"Expected at least two lines but got {lines}.")
    values = stream_function.detach().double().cpu().numpy()
    x, y = (np.linspace(low, high, n) for low, high, n in zip(box[::2], box[1::2], values.shape, strict=True))
    low, high = float(values.min()), float(values.max())
    look: dict[str, Any] = {"colors": INK, "linewidths": 0.7, "linestyles": "solid", "alpha": 0.8}
    axes.contour(x, y, values.T, levels=np.linspace(low, high, lines + 2)[1:-1], **look)
    weaker = min(-low, high)
    # Round-off along walls is no eddy.
    if 1e-9 * (high - low) < weaker < (high - low) / (lines + 1):
        few = weaker * np.asarray([0.1, 0.4, 0.7])
        levels = few if high < -low else -few[::-1]
        axes.contour(x, y, values.T, levels=levels, **{**look, "linewidths": 0.5})


def plot_planes(
    fields: Mapping[str, Tensor],
    coordinates: Sequence[Tensor],
    *,
    mask: Tensor | None = None,
    bodies: Sequence[Outlined] = (),
    units: Mapping[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    length_units: str = "1",
) -> Panels:
    """Pictures of several fields of one flow, such as speed and vorticity, each on a scale of its own.

    The box is drawn with its true ratio of sides, a long one above the next, a square one beside it. Scales are those
    of the fluid.

    Args:
        fields: name to values ``(x, y)`` in cells.
        coordinates: centers of even cells along x and y.
        mask: true where there is fluid; the other cells are dark grey.
        bodies: drawn over the cells with their true outline.
        units: of fields, by name.
        limits: by name, for colours from ``-limit`` to ``limit``; by default as wide as the field.
        length_units: of the coordinates.

    Returns:
        The panels ``(fields,)``; ``figure_of(panels)`` is what a notebook shows.

    Raises:
        ValueError: if there is no field, or a shape does not fit the coordinates.

    Example:
        >>> centers = torch.arange(4) + 0.5
        >>> panels = plot_planes({"speed": torch.ones(4, 4)}, (centers, centers), units={"speed": "m/s"})
        >>> panels[0].images[0].get_extent()
        [0.0, 4.0, 0.0, 4.0]
    """
    box = Box.around(coordinates)
    shape = tuple(len(points) for points in coordinates)
    if not fields:
        raise ValueError("Expected at least one field but got none.")
    solid = solid_cells(mask, shape)
    arrays = {}
    for name, field in fields.items():
        if tuple(field.shape) != shape:
            raise ValueError(f"Expected {name!r} (x, y) of the shape {shape} but got {tuple(field.shape)}.")
        arrays[name] = field.detach().double().cpu().numpy()
    ratio = box.lengths[1] / box.lengths[0]
    beside = ratio > 0.6
    height = min(_WIDTH * ratio, _HEIGHT)
    rows, columns = (1, len(arrays)) if beside else (len(arrays), 1)
    with style():
        width = height / ratio + 1.6
        figure = new_figure(columns * width + 0.3, rows * (height + 0.3) + 0.5)
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (name, values) in zip(panels, arrays.items(), strict=True):
            seen = without_round_off(values if solid is None else values[~solid])
            scale = ColorScale.of_field(seen, (limits or {}).get(name))
            picture = draw_plane(axes, values, box, scale, solid=solid, bodies=bodies)
            say_not_finite(axes, *box.centers(shape), np.where(False if solid is None else solid, 0.0, values).T)
            label = labelled(name, (units or {}).get(name, "1"))
            color_bar(picture, np.asarray([axes]), label, scale.clipped_ends(seen), aspect=max(4 * height, 6))
        for axes in panels if beside else panels[-1:]:
            axes.set_xlabel(labelled("x", length_units))
        for axes in panels[:1] if beside else panels:
            axes.set_ylabel(labelled("y", length_units))
    return panels


def without_round_off(values: Field) -> Field:
    """Values with zero for what is next to nothing beside the largest, so that it gives smoke or speed no second sign.

    Example:
        >>> without_round_off(np.asarray([-1e-17, 1.0])).tolist()
        [0.0, 1.0]
    """
    size = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    return np.where(np.abs(values) <= 1e-12 * size, 0.0, values)


def solid_cells(mask: Tensor | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Cells that are no fluid; ``None`` where all are.

    Raises:
        ValueError: if the mask has another shape, or there is no fluid.
    """
    if mask is None:
        return None
    solid = ~mask.detach().bool().cpu().numpy()
    if solid.shape != shape or bool(solid.all()):
        raise ValueError(f"Expected a mask of the shape {shape} with some fluid but got {solid.shape}.")
    return solid if bool(solid.any()) else None


def _draw_body(axes: Axes, body: Outlined, box: Box) -> None:
    (left, bottom), (right, top) = body.bounds
    # A step reaches far out of its box; a little beyond each side, so that the outline is closed.
    margins = [length / _OUTLINE for length in box.lengths]
    x = np.linspace(max(left, box.left) - margins[0], min(right, box.right) + margins[0], _OUTLINE)
    y = np.linspace(max(bottom, box.bottom) - margins[1], min(top, box.top) + margins[1], _OUTLINE)
    distance = body.distance(torch.from_numpy(x)[:, None], torch.from_numpy(y)).numpy()
    axes.contourf(x, y, distance.T, levels=[-np.inf, 0.0], colors=[SOLID])
    axes.set(xlim=(box.left, box.right), ylim=(box.bottom, box.top))


def _mark(axis: Axis, start: float, end: float, *, low: bool) -> None:
    if low or start != 0:
        axis.set_ticks([start, 0.0, end] if start < 0 < end and not low else [start, end])
        axis.set_major_formatter("{x:g}")
    else:
        set_length_ticks(axis, end)

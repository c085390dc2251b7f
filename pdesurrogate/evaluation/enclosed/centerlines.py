"""Velocity along the centerlines of a cavity, wall to wall, to set beside published values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pdesurrogate.fields.grid import Axis
from pdesurrogate.metrics.centerlines import bounds_of, interpolation_weights


class Line(NamedTuple):
    """Values along a line: arrays of one shape ``(n,)``.

    Attributes:
        positions: shares of the box's extent, increasing.
        values: there, in velocities of the lid.
    """

    positions: NDArray[np.float64]
    values: NDArray[np.float64]

    def at(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cubic through the four nearest points, so that reading off costs less than the scheme's second order.

        Raises:
            ValueError: if there are fewer than four points, or positions lie beyond them.

        Example:
            >>> x = np.linspace(0.0, 1.0, 5)
            >>> Line(x, x**3).at(np.asarray([0.1, 0.9])).round(12).tolist()
            [0.001, 0.729]
        """
        points = self.positions
        if len(points) < 4 or positions.min() < points[0] or positions.max() > points[-1]:
            raise ValueError(
                f"Expected positions within {points[0]:g} to {points[-1]:g}, where at least four points lie, but got "
                f"{positions.min():g} to {positions.max():g} and {len(points)} points."
            )
        first = np.clip(np.searchsorted(points, positions) - 2, 0, len(points) - 4)
        taken = first[:, None] + np.arange(4)
        near, values = points[taken], self.values[taken]
        read = np.zeros_like(positions)
        for this in range(4):
            others = np.delete(near, this, axis=1)
            weights = (positions[:, None] - others) / (near[:, this : this + 1] - others)
            read += values[:, this] * weights.prod(1)
        return read


class Centerlines(NamedTuple):
    """Two profiles of a plane velocity.

    Attributes:
        velocity_x: along the vertical centerline, over y.
        velocity_y: along the horizontal centerline, over x.
    """

    velocity_x: Line
    velocity_y: Line


def cavity_centerlines(velocity: Tensor, coordinates: Sequence[Tensor], *, lid_velocity: float = 1.0) -> Centerlines:
    """Centerlines of a closed box whose lid slides along x, what sticks to the walls included.

    Args:
        velocity: ``(2, x, y)`` on the faces below each cell, as `Cavity` has it.
        coordinates: centers of even cells along x and y.
        lid_velocity: of the top.

    Raises:
        ValueError: if shapes do not fit, or the lid does not move.
    """
    expected = (2, *(len(points) for points in coordinates))
    if tuple(velocity.shape) != expected:
        raise ValueError(f"Expected a velocity {expected} but got shape {tuple(velocity.shape)}; select one frame.")
    if lid_velocity == 0:
        raise ValueError("Expected a lid that moves but its velocity is zero.")
    lines = []
    for axis, top in ((0, 1.0), (1, 0.0)):
        across, along = coordinates[axis].double().cpu(), coordinates[1 - axis].double().cpu()
        low, high = bounds_of(across, Axis("xy"[axis]), cells=True)
        faces = across - (high - low) / (2 * len(across))
        weights = interpolation_weights(faces, (low + high) / 2)
        middle = (velocity[axis].detach().double().cpu().movedim(axis, -1) * weights).sum(-1).numpy() / lid_velocity
        low, high = bounds_of(along, Axis("yx"[axis]), cells=True)
        places = ((along - low) / (high - low)).numpy()
        lines.append(Line(np.concatenate([[0.0], places, [1.0]]), np.concatenate([[0.0], middle, [top]])))
    return Centerlines(*lines)


def largest_differences(lines: Centerlines, reference: Centerlines) -> tuple[float, float]:
    """Largest ``|difference|`` of ``velocity_x`` and of ``velocity_y`` at the published points.

    Raises:
        ValueError: if a published point lies beyond the line.

    Example:
        >>> x = np.linspace(0.0, 1.0, 5)
        >>> line, above = Line(x, x), Line(x[1:3], x[1:3] + 0.5)
        >>> largest_differences(Centerlines(line, line), Centerlines(above, line))
        (0.5, 0.0)
    """
    first, second = (
        float(np.abs(line.at(known.positions) - known.values).max())
        for line, known in zip(lines, reference, strict=True)
    )
    return first, second

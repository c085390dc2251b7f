"""The problems: keys of ``case.json``, our parameters and their order, boxes, bodies, what enters at the left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.data.adapters.cfdbench.published import DAM_BARRIER_LEFT, DAM_INLET_HEIGHT, PUBLISHED

Values = Mapping[str, float]
# Centers this much of a cell's size from a surface count as inside: round-off must not decide.
_ON_SURFACE = 1e-9


class Box(NamedTuple):
    """Of a case, from its ``low`` to its ``high`` corner, each ``(x, y)``."""

    low: tuple[float, float]
    high: tuple[float, float]

    @property
    def lengths(self) -> tuple[float, float]:
        """Along x and y."""
        return self.high[0] - self.low[0], self.high[1] - self.low[1]

    def centers(self, cells: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Of even cells along x and y in float64.

        Example:
            >>> Box((0.0, -1.0), (1.0, 1.0)).centers((4, 2))[0].tolist()
            [0.125, 0.375, 0.625, 0.875]
        """
        x, y = (
            low + (torch.arange(size, dtype=torch.float64) + 0.5) * (length / size)
            for low, length, size in zip(self.low, self.lengths, cells, strict=True)
        )
        return x, y


class Rectangle(NamedTuple):
    """A barrier on the floor, from ``left`` to ``left + width``, up to ``height``."""

    left: float
    width: float
    height: float

    def covers(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether points are inside or on the surface; ``(len(x), len(y))``."""
        slack = _ON_SURFACE * max(self.width, self.height)
        across = (x >= self.left - slack) & (x <= self.left + self.width + slack)
        return across[:, None] & (y <= self.height + slack)

    def fits(self, box: Box) -> bool:
        """Whether it is inside a box that stands on the floor and leaves a way over it."""
        slack = _ON_SURFACE * self.width
        return box.low[0] <= self.left and self.left + self.width <= box.high[0] + slack and self.height < box.high[1]


class Disc(NamedTuple):
    """A cylinder across the flow."""

    x: float
    y: float
    radius: float

    def covers(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether points are inside or on the surface; ``(len(x), len(y))``."""
        return (x[:, None] - self.x) ** 2 + (y - self.y) ** 2 <= self.radius**2 * (1 + _ON_SURFACE)

    def fits(self, box: Box) -> bool:
        """Whether it is inside a box and leaves a way around it."""
        (left, bottom), (right, top) = box
        return self.radius < min(self.x - left, self.y - bottom, right - self.x, top - self.y)


Body = Rectangle | Disc


@dataclass(frozen=True)
class Problem:
    """How the files of a problem are read.

    Coordinates have their origin in the lower left corner of the box or, as in the files, in the cylinder's center.

    Attributes:
        name: of its folder.
        velocity: key of the driving velocity.
        required: keys of numbers that a file must have, the velocity and ``density``, ``viscosity`` among them.
        positive: those of ``required`` that must be positive.
        optional: keys of numbers that are read where they are.
        parameters: our names and what they are, in our order.
        box: of a case.
        body: in the flow, if there is one.
        inlet_height: up to which y the driving velocity enters at the left; ``None`` where the authors add no rows.
        frame_interval: between stored frames in seconds, by the paper.
    """

    name: str
    velocity: str
    required: tuple[str, ...]
    positive: tuple[str, ...]
    optional: tuple[str, ...]
    parameters: Mapping[str, Callable[[Values], float]]
    box: Callable[[Values], Box]
    body: Callable[[Values], Body | None]
    inlet_height: Callable[[Values], float] | None
    frame_interval: float | None

    def require_possible(self, values: Values) -> None:
        """Refuse a case that cannot be.

        Raises:
            ValueError: naming the key, or the body that does not fit.
        """
        wrong = [f"{key} {values[key]:g}" for key in self.positive if not values[key] > 0]
        if wrong:
            raise ValueError(f"Expected positive numbers but got {', '.join(wrong)}.")
        box = self.box(values)
        width, height = box.lengths
        if not (width > 0 and height > 0):
            raise ValueError(
                f"Expected a box of positive lengths but it is {width:g} wide and {height:g} high; are x_min and "
                "x_max, or y_min and y_max, the wrong way round?"
            )
        body = self.body(values)
        if body is not None and not body.fits(box):
            raise ValueError(f"Expected the body inside the box, with a way past it, but got {body} in {box}.")


def _key(name: str) -> Callable[[Values], float]:
    return lambda values: values[name]


def _box(values: Values) -> Box:
    return Box((0.0, 0.0), (values["width"], values["height"]))


def _cylinder_box(values: Values) -> Box:
    return Box((values["x_min"], values["y_min"]), (values["x_max"], values["y_max"]))


def _disc(values: Values) -> Disc:
    return Disc(values.get("center_x", 0.0), values.get("center_y", 0.0), values["radius"])


def _barrier_left(values: Values) -> float:
    return values.get("step_position", DAM_BARRIER_LEFT)


def _barrier(values: Values) -> Rectangle:
    return Rectangle(_barrier_left(values), values["barrier_width"], values["barrier_height"])


_FLUID = ("density", "viscosity")
_BOX = ("height", "width")
_BARRIER = ("barrier_height", "barrier_width")
_LIMITS = ("x_min", "x_max", "y_min", "y_max")


def _fluid(driving: str, velocity: str) -> dict[str, Callable[[Values], float]]:
    return {driving: _key(velocity), "density": _key("density"), "dynamic_viscosity": _key("viscosity")}


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem(
            "cavity",
            velocity="vel_top",
            required=("vel_top", *_FLUID, *_BOX),
            positive=(*_FLUID, *_BOX),
            optional=(),
            parameters=_fluid("lid_velocity", "vel_top") | {"width": _key("width"), "height": _key("height")},
            box=_box,
            body=lambda values: None,
            inlet_height=None,
            frame_interval=PUBLISHED["cavity"].frame_interval,
        ),
        Problem(
            "tube",
            velocity="vel_in",
            required=("vel_in", *_FLUID, *_BOX),
            positive=(*_FLUID, *_BOX),
            optional=(),
            parameters=_fluid("inlet_velocity", "vel_in") | {"length": _key("width"), "height": _key("height")},
            box=_box,
            body=lambda values: None,
            inlet_height=_key("height"),
            frame_interval=PUBLISHED["tube"].frame_interval,
        ),
        Problem(
            "dam",
            velocity="velocity",
            required=("velocity", *_FLUID, *_BARRIER, *_BOX),
            positive=(*_FLUID, *_BARRIER, *_BOX),
            optional=(),
            parameters=_fluid("inlet_velocity", "velocity")
            | {key: _key(key) for key in _BARRIER}
            | {"length": _key("width"), "height": _key("height")},
            box=_box,
            body=_barrier,
            inlet_height=lambda values: DAM_INLET_HEIGHT,
            frame_interval=PUBLISHED["dam"].frame_interval,
        ),
        # Not published: one fluid over a barrier, with the keys of the dam; water enters over the whole height.
        Problem(
            "step",
            velocity="velocity",
            required=("velocity", *_FLUID, *_BARRIER, *_BOX),
            positive=(*_FLUID, *_BARRIER, *_BOX),
            optional=("step_position",),
            parameters=_fluid("inlet_velocity", "velocity")
            | {"step_height": _key("barrier_height"), "step_width": _key("barrier_width")}
            | {"step_position": _barrier_left, "length": _key("width"), "height": _key("height")},
            box=_box,
            body=_barrier,
            inlet_height=_key("height"),
            frame_interval=None,
        ),
        Problem(
            "cylinder",
            velocity="vel_in",
            required=("vel_in", *_FLUID, *_LIMITS, "radius"),
            positive=(*_FLUID, "radius"),
            optional=("center_x", "center_y"),
            parameters=_fluid("inlet_velocity", "vel_in") | {key: _key(key) for key in ("radius", *_LIMITS)},
            box=_cylinder_box,
            body=_disc,
            inlet_height=lambda values: values["y_max"],
            frame_interval=PUBLISHED["cylinder"].frame_interval,
        ),
    )
}

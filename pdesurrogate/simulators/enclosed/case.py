"""One flow: a box, its sides, a fluid, and what else there is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pdesurrogate.simulators.enclosed.boundary import Boundary
from pdesurrogate.simulators.enclosed.geometry import Body, Box

# Cells that a body and the gaps beside it must have.
_LEAST_CELLS = 3
# A grid line at this share of a cell from a surface lies on it: parameters that contexts hold in single precision must
# not open or close other faces than those that archives were made with.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Fluid:
    """A Newtonian fluid of constant density.

    Raises:
        ValueError: if a value is not positive and finite.

    Example:
        >>> Fluid(density=2.0, dynamic_viscosity=0.02).viscosity
        0.01
    """

    density: float
    dynamic_viscosity: float

    def __post_init__(self) -> None:
        for name in ("density", "dynamic_viscosity"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Expected a positive {name} but got {value}.")

    @property
    def viscosity(self) -> float:
        """Kinematic, length^2 per time."""
        return self.dynamic_viscosity / self.density


@dataclass(frozen=True)
class BuoyantScalar:
    """A scalar that the flow carries along, kept by walls, and that drives the flow.

    Attributes:
        diffusivity: length^2 per time.
        buoyancy: acceleration along x and y for one unit of the scalar.

    Raises:
        ValueError: if the diffusivity is negative, or a value is not finite.
    """

    diffusivity: float = 0.0
    buoyancy: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0 <= self.diffusivity < math.inf:
            raise ValueError(f"Expected a finite diffusivity >= 0 but got {self.diffusivity}.")
        if not all(math.isfinite(value) for value in self.buoyancy):
            raise ValueError(f"Expected a finite buoyancy but got {self.buoyancy}.")


class BodyForce(Protocol):
    """A steady force on every mass of fluid."""

    def at(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Acceleration along x and along y at points that broadcast."""
        ...


@dataclass(frozen=True)
class Case:
    """One flow in a box.

    Attributes:
        box: its extent.
        boundary: its sides.
        fluid: in it.
        speed: largest velocity that is expected; from the sides if zero. Checks of time step and grid rely on it.
        bodies: at rest in the flow.
        scalar: carried along, if there is one.
        force: on the fluid, if there is one.

    Raises:
        ValueError: if the speed is negative or not finite.
    """

    box: Box
    boundary: Boundary
    fluid: Fluid
    speed: float = 0.0
    bodies: tuple[Body, ...] = ()
    scalar: BuoyantScalar | None = None
    force: BodyForce | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.speed < math.inf:
            raise ValueError(f"Expected a finite speed >= 0 but got {self.speed}.")

    @property
    def expected_speed(self) -> float:
        """``speed``, or the largest velocity of walls and inlets."""
        return self.speed or self.boundary.largest_velocity

    def spacings(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Widths of cells along x and y."""
        (length_x, length_y), (nx, ny) = self.box.lengths, shape
        return length_x / nx, length_y / ny

    def cell_reynolds_number(self, shape: tuple[int, int]) -> float:
        """Expected speed times the width of a cell over the viscosity, the larger of both axes."""
        return self.expected_speed * max(self.spacings(shape)) / self.fluid.viscosity

    def require_resolved(self, shape: tuple[int, int], largest_cell_reynolds_number: float) -> None:
        """Refuse a grid on which this flow cannot be computed.

        Raises:
            ValueError: if a body lies outside the box, cuts it in two, is thinner than three cells inside it, or leaves
                less than three cells to a side that it does not reach through or to another body; or the cell Reynolds
                number is over the limit.
        """
        # Geometry first: no finer grid cures a body that does not fit.
        for body in self.bodies:
            self._require_fits(body, shape)
        for number, body in enumerate(self.bodies):
            for other in self.bodies[:number]:
                self._require_apart(body, other, shape)
        found = self.cell_reynolds_number(shape)
        if found > largest_cell_reynolds_number * (1 + _ROUNDING):
            need = math.ceil(max(shape) * found / largest_cell_reynolds_number)
            raise ValueError(
                f"Expected a cell Reynolds number U h / nu of at most {largest_cell_reynolds_number:g} but got "
                f"{found:.3g} on {shape[0]} x {shape[1]} cells; use about {need} cells along the longer side of the "
                "grid, a more viscous fluid, or raise the limit, knowing that such a grid leaves wiggles."
            )

    def _require_fits(self, body: Body, shape: tuple[int, int]) -> None:
        low, high = body.bounds
        reaches_x = (low[0] < self.box.low[0] < high[0]) or (low[0] < self.box.high[0] < high[0])
        if reaches_x and self.boundary.is_open:
            raise ValueError(f"Expected bodies clear of inlet and outlet but {body} reaches through a side along x.")
        for axis, (name, width) in enumerate(zip("xy", self.spacings(shape), strict=True)):
            if not (low[axis] < self.box.high[axis] and high[axis] > self.box.low[axis]):
                raise ValueError(f"Expected bodies inside the box {self.box} but {body} lies outside along {name}.")
            across = low[axis] <= self.box.low[axis] and high[axis] >= self.box.high[axis]
            if across and self.box.low[1 - axis] < low[1 - axis] and high[1 - axis] < self.box.high[1 - axis]:
                raise ValueError(
                    f"Expected bodies that leave a way past them but {body} reaches from side to side along {name} and "
                    f"cuts the box {self.box} in two."
                )
            # What reaches through a side is as thick as what is inside.
            inside = min(high[axis], self.box.high[axis]) - max(low[axis], self.box.low[axis])
            if inside < _LEAST_CELLS * width * (1 - _ROUNDING):
                raise ValueError(
                    f"Expected bodies of at least {_LEAST_CELLS} cells along each axis but {body} has "
                    f"{inside / width:.2g} inside the box along {name}; use more cells or a larger body."
                )
            for gap in (low[axis] - self.box.low[axis], self.box.high[axis] - high[axis]):
                if 0 <= gap < _LEAST_CELLS * width * (1 - _ROUNDING):
                    raise ValueError(
                        f"Expected a gap of at least {_LEAST_CELLS} cells between a body and the sides of the box but "
                        f"{body} leaves {gap / width:.2g} along {name}; use more cells, or let it reach through the "
                        "side."
                    )

    def _require_apart(self, body: Body, other: Body, shape: tuple[int, int]) -> None:
        x, y = self.box.faces(shape)
        near = body.distance(x[:, None], y) + other.distance(x[:, None], y)
        need = _LEAST_CELLS * max(self.spacings(shape))
        if float(near.min()) < need * (1 - _ROUNDING):
            raise ValueError(
                f"Expected a gap of at least {_LEAST_CELLS} cells between bodies but {body} and {other} are closer "
                "or overlap; use more cells or move them apart."
            )

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Signed distance from the nearest body at points that broadcast; infinite where there is none."""
        x, y = torch.broadcast_tensors(x, y)
        found = torch.full_like(x, torch.inf)
        for body in self.bodies:
            found = torch.minimum(found, body.distance(x, y))
        return found

    def closed_faces(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Faces ``(nx + 1, ny)`` and ``(nx, ny + 1)`` that bodies close: their middle lies in one or on its surface."""
        (x, y), (face_x, face_y) = self.box.centers(shape), self.box.faces(shape)
        tolerance = _ROUNDING * min(self.spacings(shape))
        return (
            self.distance(face_x[:, None], y) <= tolerance,
            self.distance(x[:, None], face_y) <= tolerance,
        )

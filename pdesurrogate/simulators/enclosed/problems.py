"""Families of flows by their parameters: each object is one member, and says of which case it speaks.

The parameters of the four flows of CFDBench are those of its files (arXiv 2310.05963), under names that say what they
are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

from pdesurrogate.simulators.enclosed.boundary import Boundary, Inlet, Outlet, ParabolicInlet, Wall
from pdesurrogate.simulators.enclosed.case import BuoyantScalar, Case, Fluid
from pdesurrogate.simulators.enclosed.geometry import Box, Disc, Rectangle

# How far a step reaches below the floor, in box heights: any distance that makes its top the nearest side.
_BELOW = 10.0


class Problem(Protocol):
    """A dataclass whose fields, all numbers, are the parameters of a family of flows."""

    def case(self) -> Case:
        """The flow of these parameters.

        Raises:
            ValueError: if there is none.
        """
        ...


def parameter_names(problem: Problem) -> tuple[str, ...]:
    """Names of the parameters, in the order in which contexts hold them.

    Example:
        >>> parameter_names(Cavity())
        ('lid_velocity', 'density', 'dynamic_viscosity', 'width', 'height')
    """
    return tuple(field.name for field in fields(problem))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cavity:
    """A closed box whose lid, the top, slides to the right; Re = density lid_velocity width / dynamic_viscosity."""

    lid_velocity: float = 1.0
    density: float = 1.0
    dynamic_viscosity: float = 0.01
    width: float = 1.0
    height: float = 1.0

    def case(self) -> Case:
        """The flow of these parameters."""
        return Case(
            Box((0.0, 0.0), (self.width, self.height)),
            Boundary(top=Wall(self.lid_velocity)),
            Fluid(self.density, self.dynamic_viscosity),
        )


@dataclass(frozen=True)
class Tube:
    """Between two plates, entered with one velocity everywhere: the profile develops to ``6 U s (1 - s)``."""

    inlet_velocity: float = 1.0
    density: float = 1.0
    dynamic_viscosity: float = 0.01
    length: float = 4.0
    height: float = 1.0

    def case(self) -> Case:
        """The flow of these parameters."""
        return Case(
            Box((0.0, 0.0), (self.length, self.height)),
            Boundary(left=Inlet(self.inlet_velocity), right=Outlet()),
            Fluid(self.density, self.dynamic_viscosity),
            speed=1.5 * self.inlet_velocity,
        )


@dataclass(frozen=True)
class StepFlow:
    """Over a bar on the floor of a channel, its front at ``step_position``; one fluid, which fills the channel.

    Raises:
        ValueError: if the bar is as high as the channel.
    """

    inlet_velocity: float = 1.0
    density: float = 1.0
    dynamic_viscosity: float = 0.01
    step_height: float = 0.3
    step_width: float = 0.3
    step_position: float = 1.0
    length: float = 4.0
    height: float = 1.0

    def __post_init__(self) -> None:
        if not self.step_height < self.height:
            raise ValueError(f"Expected a step lower than the channel, {self.height}, but got {self.step_height}.")

    def case(self) -> Case:
        """The flow of these parameters."""
        bar = Rectangle(
            (self.step_position, -_BELOW * self.height), (self.step_position + self.step_width, self.step_height)
        )
        return Case(
            Box((0.0, 0.0), (self.length, self.height)),
            Boundary(left=Inlet(self.inlet_velocity), right=Outlet()),
            Fluid(self.density, self.dynamic_viscosity),
            # Continuity over the bar, and the profile.
            speed=1.5 * self.inlet_velocity * self.height / (self.height - self.step_height),
            bodies=(bar,),
        )


@dataclass(frozen=True)
class CylinderWake:
    """Past a circular cylinder at the origin, between plates, entered with one velocity everywhere."""

    inlet_velocity: float = 1.0
    density: float = 1.0
    dynamic_viscosity: float = 0.01
    radius: float = 0.5
    x_min: float = -3.0
    x_max: float = 8.0
    y_min: float = -3.0
    y_max: float = 3.0

    def case(self) -> Case:
        """The flow of these parameters."""
        box = Box((self.x_min, self.y_min), (self.x_max, self.y_max))
        blockage = 2 * self.radius / box.lengths[1]
        return Case(
            box,
            Boundary(left=Inlet(self.inlet_velocity), right=Outlet()),
            Fluid(self.density, self.dynamic_viscosity),
            speed=1.5 * self.inlet_velocity / max(1 - blockage, 0.1),
            bodies=(Disc((0.0, 0.0), self.radius),),
        )


@dataclass(frozen=True)
class SchaeferTurek:
    """The benchmark 2D-2: a cylinder a little off the middle of a channel with parabolic inflow, Re = 100.

    Schaefer & Turek, Notes on Numerical Fluid Mechanics 52 (1996) 547: box 2.2 x 0.41, diameter 0.1, center (0.2, 0.2),
    ``peak_velocity`` 1.5, its mean over the inlet and the diameter make the Reynolds number.
    """

    peak_velocity: float = 1.5
    density: float = 1.0
    dynamic_viscosity: float = 1e-3

    def case(self) -> Case:
        """The flow of these parameters."""
        return Case(
            Box((0.0, 0.0), (2.2, 0.41)),
            Boundary(left=ParabolicInlet(self.peak_velocity), right=Outlet()),
            Fluid(self.density, self.dynamic_viscosity),
            speed=1.4 * self.peak_velocity,
            bodies=(Disc((0.2, 0.2), 0.05),),
        )


@dataclass(frozen=True)
class SmokePlume:
    """Smoke that rises in a closed box of air, which sticks to the walls: the set-up of PDEArena.

    Gupta & Brandstetter, arXiv 2209.15616: box 32 x 32, kinematic viscosity 0.01, buoyancy 0.5 along y for one unit of
    smoke. Its solver is semi-Lagrangian with time steps of 1.5, which smooths; this one is not, and needs a grid or a
    viscosity for it.
    """

    buoyancy: float = 0.5
    density: float = 1.0
    dynamic_viscosity: float = 0.01
    diffusivity: float = 0.0
    size: float = 32.0

    def case(self) -> Case:
        """The flow of these parameters."""
        return Case(
            Box((0.0, 0.0), (self.size, self.size)),
            Boundary(),
            Fluid(self.density, self.dynamic_viscosity),
            # Seen in the first rise of one unit of smoke.
            speed=(abs(self.buoyancy) * self.size) ** 0.5,
            scalar=BuoyantScalar(self.diffusivity, (0.0, self.buoyancy)),
        )

"""One time step of incompressible flow in boxes of even cells, velocity on faces and pressure in cells.

Central second-order fluxes, which keep the kinetic energy of a flow free of divergence, in Wray's Runge-Kutta scheme
of third order; each of its stages ends with a projection (Harlow & Welch, Phys. Fluids 8 (1965) 2182; Le & Moin, J.
Comput. Phys. 92 (1991) 369), so that the scheme is stable up to its own Courant number of 1.7. With one projection a
step and the pressure of the step before, steps cost half and were stable up to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pdesurrogate.physics.box_poisson import BoxPoisson, ClosedFaces
from pdesurrogate.simulators.enclosed.boundary import FreeSlip, Inlet, Wall
from pdesurrogate.simulators.enclosed.case import Case
from pdesurrogate.simulators.enclosed.immersed import MirroredVelocity
from pdesurrogate.simulators.enclosed.transport import ScalarTransport

# Wray's coefficients: of the present and of the last tendency, and their sum.
_STAGES = ((8 / 15, 0.0), (5 / 12, -17 / 60), (3 / 4, -5 / 12))


class FlowState(NamedTuple):
    """All that a step needs.

    Attributes:
        u: ``(batch, nx + 1, ny)`` velocity along x on the faces that it crosses.
        v: ``(batch, nx, ny + 1)`` velocity along y.
        pressure: ``(batch, nx, ny)`` over density.
        scalar: ``(batch, nx, ny)``, or ``None``.
    """

    u: Tensor
    v: Tensor
    pressure: Tensor
    scalar: Tensor | None


class EnclosedScheme(nn.Module):
    """Steps a batch of cases that share the shape of the grid and the kinds of their sides.

    Args:
        cases: of the batch; boxes, bodies, velocities and fluids may differ.
        shape: cells along x and y.
        time_step: of every case.
        dtype: of the computation.

    Raises:
        ValueError: if the kinds of sides differ, some cases alone have a scalar, or bodies shut fluid in.
    """

    def __init__(self, cases: Sequence[Case], shape: tuple[int, int], time_step: float, dtype: torch.dtype) -> None:
        super().__init__()
        _require_alike(cases)
        first = cases[0]
        self.shape = shape
        self.time_step = time_step
        self.boundary = first.boundary
        self.is_open = first.boundary.is_open
        spacings = torch.tensor([case.spacings(shape) for case in cases], dtype=torch.float64)
        self._keep("dx", spacings[:, :1, None].to(dtype))
        self._keep("dy", spacings[:, 1:, None].to(dtype))
        self._keep("viscosity", _each(cases, lambda case: case.fluid.viscosity, dtype))
        self._keep("per_dx", 1 / self.dx)
        self._keep("per_dy", 1 / self.dy)
        # Velocity of diffusion across a cell.
        self._keep("rub_x", self.viscosity / self.dx)
        self._keep("rub_y", self.viscosity / self.dy)
        self._keep("density", _each(cases, lambda case: case.fluid.density, dtype))
        self._keep("bottom", _each(cases, lambda case: _speed(case.boundary.bottom), dtype))
        self._keep("top", _each(cases, lambda case: _speed(case.boundary.top), dtype))
        self._keep("left", _each(cases, lambda case: _speed(case.boundary.left), dtype))
        self._keep("right", _each(cases, lambda case: _speed(case.boundary.right), dtype))
        self._keep("inflow", torch.stack([_inflow(case, shape[1]) for case in cases]).to(dtype))
        closed = [case.closed_faces(shape) for case in cases]
        closed_x, closed_y = (torch.stack(faces) for faces in zip(*closed, strict=True))
        self.has_bodies = bool(closed_x.any() or closed_y.any())
        inside = ClosedFaces(closed_x, closed_y) if self.has_bodies else None
        self.poisson = BoxPoisson(shape, spacings, self.is_open, inside, dtype)
        self.mirrored: MirroredVelocity | None = None
        if self.has_bodies:
            self.mirrored = MirroredVelocity(cases, shape, dtype)
            self._keep("open_x", (~closed_x).to(dtype))
            self._keep("open_y", (~closed_y).to(dtype))
        forces = [_force(case, shape) for case in cases]
        self.has_force = any(case.force is not None for case in cases)
        if self.has_force:
            for name, values in zip(("force_x", "force_y"), zip(*forces, strict=True), strict=True):
                self._keep(name, torch.stack(values).to(dtype))
        self.transport: ScalarTransport | None = None
        if first.scalar is not None:
            self.transport = ScalarTransport([case.scalar for case in cases if case.scalar], self.dx, self.dy)
            self._keep("buoyancy_x", _each(cases, lambda case: case.scalar.buoyancy[0] if case.scalar else 0.0, dtype))
            self._keep("buoyancy_y", _each(cases, lambda case: case.scalar.buoyancy[1] if case.scalar else 0.0, dtype))

    dx: Tensor
    dy: Tensor
    viscosity: Tensor
    per_dx: Tensor
    per_dy: Tensor
    rub_x: Tensor
    rub_y: Tensor
    density: Tensor
    bottom: Tensor
    top: Tensor
    left: Tensor
    right: Tensor
    inflow: Tensor
    open_x: Tensor
    open_y: Tensor
    force_x: Tensor
    force_y: Tensor
    buoyancy_x: Tensor
    buoyancy_y: Tensor

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)

    def forward(self, state: FlowState) -> FlowState:
        """The state one time step later."""
        dt = self.time_step
        u, v = self.outflow_from_continuity(state.u, state.v), state.v
        start, scalar, ahead = (u, v), state.scalar, state.scalar
        if self.transport is not None and scalar is not None:
            ahead = scalar + dt * self.transport(scalar, u, v)
        passed = 0.0
        last: tuple[Tensor, Tensor] | None = None
        for present, past in _STAGES:
            at = scalar if scalar is None or ahead is None else torch.lerp(scalar, ahead, passed)
            rates = self.tendency(u, v, at)
            steps = [dt * present * rate for rate in rates]
            if last is not None:
                steps = [step.add_(rate, alpha=dt * past) for step, rate in zip(steps, last, strict=True)]
            u, v, potential = self.projected(*self.moved(u, v, *steps))
            last = rates
            passed += present + past
        # That of the last stage, which belongs to its middle, at 5/6 of the step.
        pressure = potential / (dt * sum(_STAGES[-1]))
        if self.transport is not None and scalar is not None:
            # Both velocities are free of divergence, so their mean carries the scalar within its bounds.
            scalar = self.transport.advance(scalar, (start[0] + u) / 2, (start[1] + v) / 2, dt)
        return FlowState(u, v, pressure, scalar)

    def tendency(self, u: Tensor, v: Tensor, scalar: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rates of change but for the pressure, on all faces between cells and at the outlet.

        Returns:
            ``(batch, nx, ny)`` at faces 1 to nx along x (to ``nx - 1`` in a closed box: ``(batch, nx - 1, ny)``), and
            ``(batch, nx, ny - 1)`` between cells along y.
        """
        if self.mirrored is not None:
            u, v = self.mirrored(u, "x"), self.mirrored(v, "y")
        wide_u = torch.cat([self._beyond_bottom(u), u, self._beyond_top(u)], 2)
        wide_v = torch.cat([self._beyond_left(v), v, self._beyond_right(v)], 1)
        # Momentum that passes the centers of cells, and the nodes between them.
        normal_x, normal_y = self._normal(u, 1, self.rub_x), self._normal(v, 2, self.rub_y)
        u_node, v_node = _doubled_mean(wide_u, 2), _doubled_mean(wide_v, 1)
        product = (u_node * v_node).mul_(0.25)
        if self.is_open:
            # Nothing but what leaves carries momentum through the outlet.
            product[:, -1] = u_node[:, -1].clamp(min=0) * v_node[:, -1] / 4
            leaving = u[:, -1:].clamp(min=0) * u[:, -1:]
            normal_x = torch.cat([normal_x, leaving], 1)
        inner = slice(1, None) if self.is_open else slice(1, -1)
        shear_x = product[:, inner] - _difference(wide_u[:, inner], 2).mul_(self.rub_y)
        shear_y = product[:, :, 1:-1] - _difference(wide_v[:, :, 1:-1], 1).mul_(self.rub_x)
        # What flows in less what flows out.
        rate_x = _difference(normal_x, 1).mul_(self.per_dx).add_(_difference(shear_x, 2).mul_(self.per_dy)).neg_()
        rate_y = _difference(normal_y, 2).mul_(self.per_dy).add_(_difference(shear_y, 1).mul_(self.per_dx)).neg_()
        if self.has_force:
            rate_x, rate_y = rate_x + self.force_x[:, inner], rate_y + self.force_y[:, :, 1:-1]
        if scalar is not None:
            at_x = (scalar[:, 1:] + scalar[:, :-1]) / 2
            if self.is_open:
                at_x = torch.cat([at_x, scalar[:, -1:]], 1)
            rate_x = rate_x + self.buoyancy_x * at_x
            rate_y = rate_y + self.buoyancy_y * (scalar[:, :, 1:] + scalar[:, :, :-1]) / 2
        return rate_x, rate_y

    def pressure_gradient(self, pressure: Tensor) -> tuple[Tensor, Tensor]:
        """On the faces of `tendency`; zero pressure on the outlet."""
        along_x = _difference(pressure, 1).mul_(self.per_dx)
        if self.is_open:
            along_x = torch.cat([along_x, -2 * self.per_dx * pressure[:, -1:]], 1)
        return along_x, _difference(pressure, 2).mul_(self.per_dy)

    def moved(self, u: Tensor, v: Tensor, by_x: Tensor, by_y: Tensor) -> tuple[Tensor, Tensor]:
        """Velocities with changes added on the faces of `tendency`; those of closed faces are zero."""
        u, v = u.clone(), v.clone()
        (u[:, 1:] if self.is_open else u[:, 1:-1]).add_(by_x)
        v[:, :, 1:-1].add_(by_y)
        if self.has_bodies:
            u, v = u * self.open_x, v * self.open_y
        return u, v

    def projected(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Velocities without divergence, and the potential whose gradient was taken off."""
        potential = self.poisson(self.divergence(u, v))
        gradient_x, gradient_y = self.pressure_gradient(potential)
        u, v = self.moved(u, v, -gradient_x, -gradient_y)
        return u, v, potential

    def divergence(self, u: Tensor, v: Tensor) -> Tensor:
        """``(batch, nx, ny)``, per time."""
        return _difference(u, 1).mul_(self.per_dx).add_(_difference(v, 2).mul_(self.per_dy))

    def forces_on_bodies(self, u: Tensor, v: Tensor, pressure: Tensor, scalar: Tensor | None) -> Tensor:
        """Force of the fluid on all bodies along x and y ``(batch, 2)``, per depth.

        All momentum that the scheme moves onto closed faces, where it vanishes: the momentum balance of any region
        around the bodies, whatever lies between.
        """
        if not self.has_bodies:
            return u.new_zeros(len(u), 2)
        rates = self.tendency(u, v, scalar)
        gradients = self.pressure_gradient(pressure)
        inner = slice(1, None) if self.is_open else slice(1, -1)
        closed = (1 - self.open_x[:, inner], 1 - self.open_y[:, :, 1:-1])
        volume = (self.density * self.dx * self.dy).flatten()
        parts = [
            volume * ((rate - gradient) * solid).sum((1, 2))
            for rate, gradient, solid in zip(rates, gradients, closed, strict=True)
        ]
        return torch.stack(parts, 1)

    def cfl_number(self, u: Tensor, v: Tensor) -> Tensor:
        """Largest ``dt (|u| / dx + |v| / dy)`` over cells ``(batch,)``."""
        along_x = torch.maximum(u[:, 1:].abs(), u[:, :-1].abs()) / self.dx
        along_y = torch.maximum(v[:, :, 1:].abs(), v[:, :, :-1].abs()) / self.dy
        return self.time_step * (along_x + along_y).amax((1, 2))

    def outflow_from_continuity(self, u: Tensor, v: Tensor) -> Tensor:
        """``u`` with the outlet's faces, which frames do not hold, from the balance of the last cells."""
        if not self.is_open:
            return u
        rising = (v[:, -1:, 1:] - v[:, -1:, :-1]) * (self.dx / self.dy)
        return torch.cat([u[:, :-1], u[:, -2:-1] - rising], 1)

    def _normal(self, velocity: Tensor, axis: int, rub: Tensor) -> Tensor:
        """Momentum along ``axis`` that passes the centers of cells along it."""
        doubled = _doubled_mean(velocity, axis)
        return (doubled * doubled).mul_(0.25) - _difference(velocity, axis).mul_(rub)

    def _beyond_bottom(self, u: Tensor) -> Tensor:
        return _mirrored(self.boundary.bottom, u[:, :, :1], self.bottom)

    def _beyond_top(self, u: Tensor) -> Tensor:
        return _mirrored(self.boundary.top, u[:, :, -1:], self.top)

    def _beyond_left(self, v: Tensor) -> Tensor:
        return _mirrored(self.boundary.left, v[:, :1], self.left)

    def _beyond_right(self, v: Tensor) -> Tensor:
        return v[:, -1:] if self.is_open else _mirrored(self.boundary.right, v[:, -1:], self.right)


def _difference(values: Tensor, axis: int) -> Tensor:
    size = values.shape[axis] - 1
    return values.narrow(axis, 1, size) - values.narrow(axis, 0, size)


def _doubled_mean(values: Tensor, axis: int) -> Tensor:
    size = values.shape[axis] - 1
    return values.narrow(axis, 1, size) + values.narrow(axis, 0, size)


def _mirrored(side: object, near: Tensor, speed: Tensor) -> Tensor:
    """Velocity along a side, half a cell beyond it."""
    return near if isinstance(side, FreeSlip) else 2 * speed - near


def _speed(side: object) -> float:
    return side.velocity if isinstance(side, Wall) else 0.0


def _inflow(case: Case, rows: int) -> Tensor:
    """``(ny,)`` velocity through the left side; on average over each face."""
    side = case.boundary.left
    if not isinstance(side, Inlet):
        return torch.zeros(rows, dtype=torch.float64)
    places = torch.linspace(0, 1, 2 * rows + 1, dtype=torch.float64)
    values = side.profile(places)
    # Simpson's rule, exact for a parabola.
    return (values[:-2:2] + 4 * values[1::2] + values[2::2]) / 6


def _force(case: Case, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    (x, y), (face_x, face_y) = case.box.centers(shape), case.box.faces(shape)
    on_x, on_y = torch.zeros(shape[0] + 1, shape[1]).double(), torch.zeros(shape[0], shape[1] + 1).double()
    if case.force is None:
        return on_x, on_y
    return on_x + case.force.at(face_x[:, None], y)[0], on_y + case.force.at(x[:, None], face_y)[1]


def _each(cases: Sequence[Case], value: Callable[[Case], float], dtype: torch.dtype) -> Tensor:
    """``(batch, 1, 1)`` of a number of every case."""
    return torch.tensor([value(case) for case in cases], dtype=torch.float64).reshape(-1, 1, 1).to(dtype)


def _require_alike(cases: Sequence[Case]) -> None:
    if not cases:
        raise ValueError("Expected at least one case but got none.")
    for number, case in enumerate(cases):
        if case.boundary.kinds != cases[0].boundary.kinds:
            raise ValueError(
                f"Expected the same kinds of sides in all cases of a batch but case {number} has {case.boundary.kinds} "
                f"and the first {cases[0].boundary.kinds}; run them apart."
            )
        if (case.scalar is None) != (cases[0].scalar is None):
            raise ValueError(f"Expected a scalar in all cases of a batch or in none but case {number} differs.")

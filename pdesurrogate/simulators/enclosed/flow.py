"""Flow in boxes with walls, inlets, outlets and bodies, many cases at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.enclosed.case import Case
from pdesurrogate.simulators.enclosed.problems import Problem, parameter_names
from pdesurrogate.simulators.enclosed.scheme import EnclosedScheme, FlowState

# Courant number sum_i |u_i| dt / dx_i up to which flows are stable, and up to which, with the diffusion number added, a
# scalar stays within its bounds.
LARGEST_CFL = math.sqrt(3)
LARGEST_SCALAR_CFL = 1.0
# That of the expected speed along one axis, in time steps that are accepted beforehand: flow around bodies is faster.
_EXPECTED_CFL = 1.0
# Where Wray's scheme ends along the negative real axis.
_LARGEST_DIFFUSION = 2.5

_VELOCITY_X = Channel("velocity_x", "length/time", "velocity along x", "face_x", "velocity")
_VELOCITY_Y = Channel("velocity_y", "length/time", "velocity along y", "face_y", "velocity")
_PRESSURE = Channel("pressure", "mass/(length time^2)", "pressure", "cell")
_SMOKE = Channel("smoke", "1", "smoke", "cell")


class EnclosedDiagnostics(NamedTuple):
    """What a run log shows, for every case of a batch.

    Attributes:
        cfl_number: largest ``time_step sum_i |u_i| / dx_i``; see `LARGEST_CFL`.
        divergence: largest absolute value, per time.
        kinetic_energy: of the box, per depth.
        inflow: volume per time and depth that enters; ``outflow`` that leaves.
        outflow: see ``inflow``.
        drag: force of the fluid on all bodies along x, per depth; ``lift`` along y.
        lift: see ``drag``.
        scalar: its integral over the box; zero where there is none.
    """

    cfl_number: Tensor
    divergence: Tensor
    kinetic_energy: Tensor
    inflow: Tensor
    outflow: Tensor
    drag: Tensor
    lift: Tensor
    scalar: Tensor


class EnclosedFlow(nn.Module):
    """Incompressible flow in plane boxes; a `Stepper` for cases that differ in parameters, extents and bodies.

    Second-order finite volumes on a staggered grid of even cells (Harlow & Welch, Phys. Fluids 8 (1965) 2182) with a
    direct Poisson solver, so that the velocity is free of divergence to round-off; see `scheme`. Bodies are cut out
    sharply: nothing passes faces whose middle they cover, and the flow sticks to their true surface to second order;
    see `immersed`.

    A state is ``(batch, channel, x, y)``: velocity on faces (see `fields.grid.Channel`), pressure in cells, and a
    scalar in cells where the problem has one; all that a restart needs: running on from a state in the solver's
    precision is bit-equal to not having stopped. What leaves through the outlet, whose faces are not stored, follows
    from continuity.

    Args:
        problem: the family of flows and its parameters, which contexts may override sample by sample.
        shape: cells along x and y.
        frame_interval: time between the frames that `step` returns.
        steps_per_frame: time steps in a frame interval.
        largest_cell_reynolds_number: over which a case is refused; see `Case.require_resolved`.
        precision: of the computation; input of another precision is converted and the result converted back.

    Raises:
        ValueError: if an argument is out of range, bodies do not fit, the grid cannot resolve the flow, or the time
            step is over the limit, each with the number that would do.

    Example:
        >>> from pdesurrogate.simulators.enclosed.problems import Tube
        >>> tube = EnclosedFlow(Tube(length=2.0), (32, 16), frame_interval=1.0, steps_per_frame=40)
        >>> later = tube.advance(tube.at_rest(1), 400)
        >>> seen = tube.diagnostics(later)
        >>> round(seen.inflow.item(), 12), round(seen.outflow.item(), 12)
        (1.0, 1.0)
    """

    history_frames = 1

    def __init__(
        self,
        problem: Problem,
        shape: Sequence[int],
        frame_interval: float,
        steps_per_frame: int,
        largest_cell_reynolds_number: float = 25.0,
        precision: Literal["float32", "float64"] = "float64",
    ) -> None:
        super().__init__()
        if len(shape) != 2 or min(shape) < 4:
            raise ValueError(f"Expected a shape of two axes with at least four cells each but got {tuple(shape)}.")
        if not 0 < frame_interval < math.inf or steps_per_frame < 1 or steps_per_frame != int(steps_per_frame):
            raise ValueError(
                "Expected a positive, finite frame_interval and a whole number of steps_per_frame but got "
                f"{frame_interval}, {steps_per_frame}."
            )
        if not largest_cell_reynolds_number > 0:
            raise ValueError(f"Expected largest_cell_reynolds_number > 0 but got {largest_cell_reynolds_number}.")
        if precision not in ("float32", "float64"):
            raise ValueError(f"Expected precision 'float32' or 'float64' but got {precision!r}.")
        self.problem = problem
        self.shape = (int(shape[0]), int(shape[1]))
        self.frame_interval = frame_interval
        self.steps_per_frame = steps_per_frame
        self.largest_cell_reynolds_number = largest_cell_reynolds_number
        self.dtype = torch.float32 if precision == "float32" else torch.float64
        base = problem.case()
        self.channels = (_VELOCITY_X, _VELOCITY_Y, _PRESSURE) + ((_SMOKE,) if base.scalar is not None else ())
        self._check(base, "the problem")
        (low_x, low_y), (high_x, high_y) = base.box.low, base.box.high
        self.grid = Grid((Axis("x", bounds=(low_x, high_x)), Axis("y", bounds=(low_y, high_y))))
        self.register_buffer("_device", torch.empty(0), persistent=False)
        self._latest: EnclosedCases | None = None

    _device: Tensor

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        return self.frame_interval / self.steps_per_frame

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Of the problem, in the order of ``Context.parameters``."""
        return parameter_names(self.problem)

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """The problem's own parameters."""
        return dict(zip(self.parameter_names, self._base_values, strict=True))

    @property
    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Centers of the cells along each axis, in float64, of the problem's own box."""
        return self.problem.case().box.centers(self.shape)

    @property
    def metadata(self) -> Metadata:
        """Fields and frame interval that the solver steps, so that an evaluation can refuse other data."""
        return Metadata(
            type(self.problem).__name__, self.grid, self.channels, self.frame_interval, parameters=self.parameter_names
        )

    def largest_time_step(self) -> float:
        """That the checks allow for the problem's own case."""
        return _largest_time_step(self.problem.case(), self.shape)

    def of_cases(self, parameters: Tensor) -> EnclosedCases:
        """The solver of a batch of cases with ``parameters (batch, n)`` in the order of `parameter_names`.

        Raises:
            ValueError: naming the case, if one cannot be computed on this grid with this time step.
        """
        names = self.parameter_names
        if parameters.ndim != 2 or parameters.shape[1] != len(names):
            raise ValueError(f"Expected parameters (batch, {len(names)}), {names}, but got {tuple(parameters.shape)}.")
        cases = []
        for number, values in enumerate(parameters.tolist()):
            try:
                case = replace(self.problem, **dict(zip(names, values, strict=True))).case()  # type: ignore[type-var]
                self._check(case, "its parameters")
            except ValueError as error:
                given = ", ".join(f"{name} {value:g}" for name, value in zip(names, values, strict=True))
                label = f"Case {number}" if len(parameters) > 1 else "The case"
                raise ValueError(f"{label} ({given}): {error}") from error
            cases.append(case)
        return EnclosedCases(self, tuple(cases), parameters.to(torch.float64).cpu()).to(self._device.device)

    def at_rest(self, batch: int) -> Tensor:
        """A start without motion but what the sides bring in; ``(batch, channel, x, y)``."""
        return self.of_base(batch).at_rest()

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The frame that follows ``history (batch, time, channel, x, y)``; ``(batch, 1, channel, x, y)``.

        Parameters in the context tell each sample's case; without, all are the problem's own.

        Raises:
            ValueError: if the fields do not fit this solver's grid, or as `of_cases`.
        """
        state = history[:, -1]
        solver = self.of_base(len(state)) if context.parameters is None else self._of(context.parameters)
        return solver.advance(state, self.steps_per_frame).unsqueeze(1)

    def advance(self, state: Tensor, steps: int) -> Tensor:
        """``steps`` time steps of the problem's own case from ``state (batch, channel, x, y)``, in its precision.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        return self.of_base(len(state)).advance(state, steps)

    def diagnostics(self, state: Tensor) -> EnclosedDiagnostics:
        """Of ``state (batch, channel, x, y)`` of the problem's own case."""
        return self.of_base(len(state)).diagnostics(state)

    def require_stable(self, state: Tensor) -> None:
        """Refuse a state that is too fast for the time step.

        Raises:
            ValueError: naming the Courant number and a step that would do.
        """
        self.of_base(len(state)).require_stable(state)

    @property
    def _base_values(self) -> tuple[float, ...]:
        return tuple(float(value) for value in astuple(self.problem))  # type: ignore[call-overload]

    def of_base(self, batch: int) -> EnclosedCases:
        """`of_cases` of the problem's own case, so many times."""
        return self._of(torch.tensor(self._base_values, dtype=torch.float64).expand(batch, -1))

    def _of(self, parameters: Tensor) -> EnclosedCases:
        """`of_cases`, kept for the next call with the same parameters."""
        wanted = parameters.detach().to("cpu", torch.float64)
        if self._latest is None or not torch.equal(self._latest.parameters_of_cases, wanted):
            self._latest = self.of_cases(wanted)
        return self._latest.to(self._device.device)

    def _check(self, case: Case, what: str) -> None:
        case.require_resolved(self.shape, self.largest_cell_reynolds_number)
        limit = _largest_time_step(case, self.shape)
        # Parameters may have been rounded to single precision.
        if self.time_step > limit * (1 + 1e-6):
            need = math.ceil(self.frame_interval / limit)
            raise ValueError(
                f"Expected a time step of at most {limit:.4g} for {what} (advection at the speed "
                f"{case.expected_speed:.3g}, and diffusion) but got {self.time_step:.4g}; use at least {need} steps "
                "per frame."
            )


class EnclosedCases(nn.Module):
    """A batch of cases of an `EnclosedFlow`; made by `EnclosedFlow.of_cases`.

    Args:
        flow: the solver.
        cases: of the batch.
        parameters: ``(batch, n)`` that they came from, float64.
    """

    def __init__(self, flow: EnclosedFlow, cases: tuple[Case, ...], parameters: Tensor) -> None:
        super().__init__()
        self.cases = cases
        self.parameters_of_cases = parameters
        self.shape = flow.shape
        self.channels = flow.channels
        self.grid = flow.grid if len({case.box for case in cases}) == 1 else Grid((Axis("x"), Axis("y")))
        self.frame_interval = flow.frame_interval
        self.steps_per_frame = flow.steps_per_frame
        self.parameter_names = flow.parameter_names
        self.dtype = flow.dtype
        self.scheme = EnclosedScheme(cases, flow.shape, flow.time_step, flow.dtype)

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        return self.scheme.time_step

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Of the first case."""
        return dict(zip(self.parameter_names, self.parameters_of_cases[0].tolist(), strict=True))

    @property
    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Centers of the cells along each axis, in float64, of the first case."""
        return self.cases[0].box.centers(self.shape)

    @property
    def context(self) -> Context:
        """Coordinates, parameters and mask of every case, batched, in float64; no mask where no case has a body."""
        x, y = (torch.stack(points) for points in zip(*(c.box.centers(self.shape) for c in self.cases), strict=True))
        mask = torch.stack([fluid_cells(case, self.shape) for case in self.cases])
        device = self.scheme.dx.device
        return Context(
            (x.to(device), y.to(device)),
            parameters=self.parameters_of_cases.to(device),
            mask=mask.to(device) if self.scheme.has_bodies else None,
        )

    def at_rest(self) -> Tensor:
        """A start without motion but what the sides bring in: potential flow from inlet to outlet."""
        scheme = self.scheme
        batch, (nx, ny) = len(self.cases), self.shape
        u, v = scheme.dx.new_zeros(batch, nx + 1, ny), scheme.dx.new_zeros(batch, nx, ny + 1)
        u[:, 0] = scheme.inflow
        u, v, _ = scheme.projected(u, v)
        pressure = scheme.dx.new_zeros(batch, nx, ny)
        scalar = None if scheme.transport is None else torch.zeros_like(pressure)
        return self._joined(FlowState(u, v, pressure, scalar))

    def without_divergence(self, state: Tensor) -> Tensor:
        """The nearest velocity that sides, bodies and continuity allow; pressure and scalar stay.

        Raises:
            ValueError: if the fields do not fit.
        """
        scheme = self.scheme
        parts = self._split(state)
        # On walls and inlets the sides decide.
        u, v = parts.u.clone(), parts.v.clone()
        u[:, 0], v[:, :, 0] = scheme.inflow, 0.0
        u, v = scheme.moved(u, v, torch.zeros_like(u[:, 1:] if scheme.is_open else u[:, 1:-1]), v[:, :, 1:-1] * 0)
        # With what the last cells let out, so that a flow that continuity allows is its own nearest one.
        u, v, _ = scheme.projected(scheme.outflow_from_continuity(u, v), v)
        return self._joined(parts._replace(u=u, v=v)).to(state.dtype)

    def advance(self, state: Tensor, steps: int) -> Tensor:
        """``steps`` time steps from ``state (batch, channel, x, y)``, in the state's own precision.

        A case that is too fast for the time step goes its way to infinity; the others are not touched by it.

        Raises:
            ValueError: if the fields do not fit, or ``steps`` is negative.
        """
        if steps < 0:
            raise ValueError(f"Expected a number of steps >= 0 but got {steps}.")
        parts = self._split(state)
        for _ in range(steps):
            parts = self.scheme(parts)
        return self._joined(parts).to(state.dtype)

    def diagnostics(self, state: Tensor) -> EnclosedDiagnostics:
        """Of ``state (batch, channel, x, y)``, computed in the solver's precision."""
        scheme = self.scheme
        parts = self._split(state)
        u, v = scheme.outflow_from_continuity(parts.u, parts.v), parts.v
        area = (scheme.dx * scheme.dy).flatten()
        square_u, square_v = u.square(), v.square()
        energy = (square_u[:, 1:] + square_u[:, :-1] + square_v[:, :, 1:] + square_v[:, :, :-1]).sum((1, 2))
        force = scheme.forces_on_bodies(u, v, parts.pressure, parts.scalar)
        cells = torch.zeros_like(area) if parts.scalar is None else parts.scalar.sum((1, 2)) * area
        found = EnclosedDiagnostics(
            cfl_number=scheme.cfl_number(u, v),
            divergence=scheme.divergence(u, v).abs().amax((1, 2)),
            kinetic_energy=scheme.density.flatten() * energy / 4 * area,
            inflow=(u[:, 0] * scheme.dy[:, 0]).sum(1),
            outflow=(u[:, -1] * scheme.dy[:, 0]).sum(1),
            drag=force[:, 0],
            lift=force[:, 1],
            scalar=cells,
        )
        return EnclosedDiagnostics(*(values.to(state.dtype) for values in found))

    def require_stable(self, state: Tensor) -> None:
        """Refuse a state that is too fast for the time step.

        Raises:
            ValueError: naming the case, the Courant number and a step that would do.
        """
        parts = self._split(state)
        found = self.scheme.cfl_number(self.scheme.outflow_from_continuity(parts.u, parts.v), parts.v)
        limit = LARGEST_CFL
        if self.scheme.transport is not None:
            # Advection and diffusion share what keeps a scalar within its bounds.
            found, limit = found + self.scheme.transport.diffusion_number(self.time_step), LARGEST_SCALAR_CFL
        worst = int(found.argmax())
        if not float(found[worst]) <= limit:
            raise ValueError(
                f"Expected a Courant number of at most {limit:g} but case {worst} has {float(found[worst]):.3g}; use a "
                f"time step of at most {self.time_step * limit / float(found[worst]):.3g} in place of "
                f"{self.time_step:.3g}."
            )

    def doubts(self, diagnostics: EnclosedDiagnostics) -> str:
        """What the user must know of cases with these diagnostics; empty if nothing."""
        limit = LARGEST_CFL if self.scheme.transport is None else LARGEST_SCALAR_CFL
        found = float(diagnostics.cfl_number.max())
        if not found > limit:
            return ""
        promise = "stable" if self.scheme.transport is None else "within its first bounds what it carries"
        return (
            f"the Courant number is {found:.3g}; up to {limit:.3g} the scheme is sure to keep {promise}. Use "
            f"smaller time steps than {self.time_step:.3g}."
        )

    def _split(self, state: Tensor) -> FlowState:
        expected = (len(self.cases), len(self.channels), *self.shape)
        if tuple(state.shape) != expected:
            raise ValueError(
                f"Expected fields {expected}, (case, channel, x, y) with the channels "
                f"{[channel.name for channel in self.channels]}, but got {tuple(state.shape)}."
            )
        state = state.to(self.dtype)
        # The high faces are walls, or follow from continuity at each step.
        u, v = nn.functional.pad(state[:, 0], (0, 0, 0, 1)), nn.functional.pad(state[:, 1], (0, 1))
        pressure = state[:, 2] / self.scheme.density
        return FlowState(u, v, pressure, state[:, 3] if self.scheme.transport is not None else None)

    def _joined(self, parts: FlowState) -> Tensor:
        fields = [parts.u[:, :-1], parts.v[:, :, :-1], parts.pressure * self.scheme.density]
        return torch.stack(fields if parts.scalar is None else [*fields, parts.scalar], 1)


def fluid_cells(case: Case, shape: tuple[int, int]) -> Tensor:
    """``(nx, ny)``, true for cells with an open face: those that flow can reach."""
    closed_x, closed_y = case.closed_faces(shape)
    return ~(closed_x[1:] & closed_x[:-1] & closed_y[:, 1:] & closed_y[:, :-1])


def _largest_time_step(case: Case, shape: tuple[int, int]) -> float:
    dx, dy = case.spacings(shape)
    viscosity = case.fluid.viscosity
    diffusion = _LARGEST_DIFFUSION / (4 * viscosity * (dx**-2 + dy**-2))
    if case.scalar is not None and case.scalar.diffusivity > 0:
        diffusion = min(diffusion, 0.25 / (case.scalar.diffusivity * (dx**-2 + dy**-2)))
    speed = case.expected_speed
    return diffusion if speed == 0 else min(diffusion, _EXPECTED_CFL * min(dx, dy) / speed)

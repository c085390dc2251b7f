"""Compressible flow of an ideal gas in a periodic square, by finite volumes."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.compressible.scheme import HancockScheme, to_conserved, to_primitive
from pdesurrogate.simulators.finite_volumes import advance_in_parts, require_cfl_number


class CompressibleDiagnostics(NamedTuple):
    """What a run log shows of each trajectory; totals are integrals over the box.

    Attributes:
        cfl_number: see `Compressible2d.cfl_number`.
        mass: total.
        momentum_x: total; ``momentum_y`` alike.
        momentum_y: see ``momentum_x``.
        energy: total, internal and kinetic.
        kinetic_energy: total.
        least_density: of all cells.
        least_pressure: of all cells.
        mach_number: largest ``|v| / c`` of all cells.
    """

    cfl_number: Tensor
    mass: Tensor
    momentum_x: Tensor
    momentum_y: Tensor
    energy: Tensor
    kinetic_energy: Tensor
    least_density: Tensor
    least_pressure: Tensor
    mach_number: Tensor


class Compressible2d(nn.Module):
    """The compressible Navier–Stokes equations in a periodic square; a `Stepper` of frames of cell averages.

    ``d rho/dt + div(rho v) = 0``, ``d(rho v)/dt + div(rho v v + p - sigma) = 0`` and
    ``dE/dt + div((E + p) v - v . sigma) = 0`` for an ideal gas, ``E = p / (gamma - 1) + rho |v|^2 / 2``, with the
    viscous stress ``sigma = shear (grad v + grad v^T - 2/3 div v) + bulk div v``: the equations of PDEBench
    (M. Takamoto et al., arXiv:2210.07182), which have no conduction of heat.

    By `HancockScheme`: second order where the flow is smooth, shocks within a few cells; mass, momentum and energy are
    conserved to round-off. Two stages of Shu and Osher between the same profiles take twice the time and have 1.3 times
    the error (128 x 128 cells, Mach 0.3, both at a CFL number of 0.8).

    Density and pressure stay positive through strong blasts at any stable time step. Should they not, or should the
    flow outrun the time step, that trajectory becomes NaN, and no other does; nothing waits for the device to find out.
    `require_stable` tells beforehand.

    Args:
        resolution: cells along each side; even and at least 8.
        frame_interval: time between the frames that `step` returns.
        steps_per_frame: time steps in a frame interval.
        length: side of the box.
        gamma: ratio of the heat capacities, above 1.
        shear_viscosity: dynamic, mass / (length time).
        bulk_viscosity: likewise.
        precision: of the computation; input of another precision is converted and the result converted back.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> solver = Compressible2d(16, frame_interval=0.5, steps_per_frame=40)
        >>> x, y = torch.meshgrid(*solver.coordinates, indexing="ij")
        >>> density = 1 + 0.5 * torch.sin(2 * torch.pi * x)  # at rest, and at one pressure
        >>> layers = solver.to_conserved(torch.stack([density, 0 * x, 0 * x, 1 + 0 * x]))[None, None].float()
        >>> bool(torch.equal(solver.step(layers, solver.context(batch=1)), layers))
        True
    """

    history_frames = 1

    centers: Tensor

    def __init__(
        self,
        resolution: int,
        frame_interval: float,
        steps_per_frame: int,
        length: float = 1.0,
        gamma: float = 5 / 3,
        shear_viscosity: float = 0.0,
        bulk_viscosity: float = 0.0,
        precision: Literal["float32", "float64"] = "float32",
    ) -> None:
        super().__init__()
        if resolution < 8 or resolution % 2:
            raise ValueError(f"Expected an even resolution of at least 8 but got {resolution}.")
        if not (0 < frame_interval < math.inf and 0 < length < math.inf):
            raise ValueError(
                f"Expected finite positive frame_interval and length but got {frame_interval} and {length}."
            )
        if steps_per_frame < 1:
            raise ValueError(f"Expected at least one step per frame but got {steps_per_frame}.")
        if not 1 < gamma < math.inf:
            raise ValueError(f"Expected a finite gamma, the ratio of the heat capacities, above 1 but got {gamma}.")
        if not (0 <= shear_viscosity < math.inf and 0 <= bulk_viscosity < math.inf):
            raise ValueError(f"Expected finite viscosities >= 0 but got {shear_viscosity} and {bulk_viscosity}.")
        self.resolution = resolution
        self.frame_interval = frame_interval
        self.steps_per_frame = steps_per_frame
        self.gamma = gamma
        self.shear_viscosity = shear_viscosity
        self.bulk_viscosity = bulk_viscosity
        self.spacing = length / resolution
        self.dtype = torch.float32 if precision == "float32" else torch.float64
        self.grid = Grid((Axis("x", period=length), Axis("y", period=length)))
        self.channels: tuple[Channel, ...] = (
            Channel("density", "mass/length^3", "mass density", "cell"),
            Channel("momentum_x", "mass/(length^2 time)", "density of momentum along x", "cell", "momentum"),
            Channel("momentum_y", "mass/(length^2 time)", "density of momentum along y", "cell", "momentum"),
            Channel("energy", "mass/(length time^2)", "density of internal and kinetic energy", "cell"),
        )
        self.scheme = HancockScheme(gamma, shear_viscosity, bulk_viscosity)
        centers = (torch.arange(resolution, dtype=torch.float64) + 0.5) * self.spacing
        self.register_buffer("centers", centers, persistent=False)

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        return self.frame_interval / self.steps_per_frame

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along each axis."""
        return self.resolution, self.resolution

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Centers of cells, ``(n,)`` of each axis in float64."""
        return self.centers, self.centers

    @property
    def metadata(self) -> Metadata:
        """Fields and frame interval that the solver steps, so that an evaluation can refuse other data."""
        return Metadata(type(self).__name__, self.grid, self.channels, self.frame_interval)

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Physical parameters that an archive records with every trajectory."""
        return {
            "gamma": self.gamma,
            "shear_viscosity": self.shear_viscosity,
            "bulk_viscosity": self.bulk_viscosity,
        }

    @property
    def primitive_channels(self) -> tuple[Channel, ...]:
        """Of what `to_primitive` gives."""
        return (
            self.channels[0],
            Channel("velocity_x", "length/time", "velocity along x", "cell", "velocity"),
            Channel("velocity_y", "length/time", "velocity along y", "cell", "velocity"),
            Channel("pressure", "mass/(length time^2)", "pressure", "cell"),
        )

    def to_primitive(self, state: Tensor) -> Tensor:
        """Density, velocity and pressure of states ``(..., 4, x, y)`` on any number of cells."""
        return to_primitive(state.movedim(-3, 0), self.gamma).movedim(0, -3)

    def to_conserved(self, primitive: Tensor) -> Tensor:
        """States of density, velocity and pressure ``(..., 4, x, y)``; the inverse of `to_primitive`."""
        return to_conserved(primitive.movedim(-3, 0), self.gamma).movedim(0, -3)

    def context(self, batch: int) -> Context:
        """The context of a batch on this solver's own grid."""
        return Context(tuple(c.to(torch.float32).expand(batch, -1) for c in self.coordinates))

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The frame that follows ``history (batch, time, 4, x, y)``; ``(batch, 1, 4, x, y)``.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        return self.advance(history[:, -1], self.steps_per_frame).unsqueeze(1)

    def advance(self, state: Tensor, steps: int) -> Tensor:
        """``steps`` time steps from ``state (batch, 4, x, y)``, in the state's own precision.

        Trajectories that end with a density or pressure that is not positive are NaN. Differentiable.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        self._check(state)
        return advance_in_parts(partial(self._advance, steps=steps), state)

    def _advance(self, state: Tensor, steps: int) -> Tensor:
        cells = state.to(self.dtype).transpose(0, 1).contiguous()
        for _ in range(steps):
            cells = self.scheme.advance(cells, self.time_step, self.spacing)
        density, _, _, pressure = to_primitive(cells, self.gamma)
        sound = torch.minimum(density, pressure).amin((-2, -1), keepdim=True) > 0
        return torch.where(sound, cells, torch.nan).transpose(0, 1).contiguous().to(state.dtype)

    def cfl_number(self, state: Tensor) -> Tensor:
        """``(batch,)`` of ``state (batch, 4, x, y)``: cells that waves and viscosity cross in a time step.

        The largest ``time_step ((|u| + |v| + 2 c) / h + 4 (4/3 shear + bulk) / (rho h^2))``: the scheme is stable up to
        ``finite_volumes.LARGEST_CFL``. NaN for a state whose pressure is not positive everywhere.
        """
        self._check(state)
        density, u, v, pressure = self.to_primitive(state).unbind(1)
        waves = u.abs() + v.abs() + 2 * (self.gamma * pressure / density).sqrt()
        spread = 4 * (4 / 3 * self.shear_viscosity + self.bulk_viscosity) / (density * self.spacing)
        return (waves + spread).amax((-2, -1)) * (self.time_step / self.spacing)

    def diagnostics(self, state: Tensor) -> CompressibleDiagnostics:
        """Of ``state (batch, 4, x, y)``, computed in float64.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        self._check(state)
        state = state.double()
        density, u, v, pressure = self.to_primitive(state).unbind(1)
        speed = u.square() + v.square()
        area = self.spacing**2
        mass, momentum_x, momentum_y, energy = (area * state.sum((-2, -1))).unbind(1)
        return CompressibleDiagnostics(
            cfl_number=self.cfl_number(state),
            mass=mass,
            momentum_x=momentum_x,
            momentum_y=momentum_y,
            energy=energy,
            kinetic_energy=area / 2 * (density * speed).sum((-2, -1)),
            least_density=density.amin((-2, -1)),
            least_pressure=pressure.amin((-2, -1)),
            mach_number=(speed * density / (self.gamma * pressure)).amax((-2, -1)).sqrt(),
        )

    def require_stable(self, state: Tensor) -> None:
        """Refuse a state whose density or pressure is not positive, or that is too fast for the time step.

        Waits for the device.

        Raises:
            ValueError: naming the trajectory within the batch, what was found, and what would do.
        """
        found = self.diagnostics(state.detach())
        for name, least in (("density", found.least_density), ("pressure", found.least_pressure)):
            worst = int(least.argmin())
            if not float(least[worst]) > 0:
                raise ValueError(
                    f"Expected a positive {name} but that of trajectory {worst} of the batch falls to "
                    f"{float(least[worst]):.3g}; start from other fields, or take smaller time steps than "
                    f"{self.time_step:.3g} on the way here."
                )
        require_cfl_number(found.cfl_number, self.time_step)

    def _check(self, state: Tensor) -> None:
        if state.shape[1:] != (4, *self.shape):
            raise ValueError(
                f"Expected density, two momenta and energy at {self.shape} but got {tuple(state.shape[1:])}; "
                "wrap the solver in Resampled to run it on another grid."
            )

    def extra_repr(self) -> str:
        """What matters, shown by ``print``."""
        return (
            f"resolution={self.resolution}, gamma={self.gamma:g}, shear_viscosity={self.shear_viscosity:g}, "
            f"bulk_viscosity={self.bulk_viscosity:g}, time_step={self.time_step:g}"
        )

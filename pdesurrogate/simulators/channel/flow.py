"""Direct and large-eddy simulation of the flow between two plane walls, by staggered finite volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.staggered_channel import (
    ChannelGrid,
    cell_heights,
    center_distances,
    divergence,
    stretched_faces,
)
from pdesurrogate.simulators.channel.forcing import ChannelForcing, MassFlux
from pdesurrogate.simulators.channel.scheme import ChannelScheme

# Where the scheme ends to be stable: along the imaginary and along the negative real axis.
LARGEST_CFL = math.sqrt(3)
LARGEST_DIFFUSION = 2.5
# Wall stress over that of a laminar flow of the same rate, below which a flow counts as laminar; 3.9 at Re_tau = 180.
NEARLY_LAMINAR = 1.5


class SubgridModel(Protocol):
    """A closure of large-eddy simulation by an eddy viscosity."""

    def viscosity(self, velocity: Tensor, grid: ChannelGrid) -> Tensor:
        """Eddy viscosity ``(batch, nx, ny, nz)`` in cells, of ``velocity (batch, 3, nx, ny, nz)`` on faces.

        With the molecular viscosity added it must not be negative.
        """
        ...


@runtime_checkable
class BoundToFluid(Protocol):
    """A closure that is right for some molecular viscosities alone."""

    def require_viscosity(self, molecular: float) -> None:
        """Refuse a fluid that it is not right for.

        Raises:
            ValueError: naming both viscosities.
        """
        ...


class ChannelDiagnostics(NamedTuple):
    """What a run log shows, for every member of a batch.

    Attributes:
        cfl_number: largest ``time_step sum_i |u_i| / dx_i``; the scheme is stable up to ``LARGEST_CFL``.
        divergence: largest absolute value, per time.
        bulk_velocity: mean of the velocity along x.
        wall_stress: ``(batch, 2)`` stress that the fluid exerts on the low and the high wall, over density.
        friction_reynolds_number: ``sqrt(mean wall stress) h / viscosity``, at this instant; NaN without viscosity.
        kinetic_energy: mean of ``|u|^2 / 2``, as the scheme conserves it.
        pressure_gradient: the uniform force along x, ``-dp/dx`` over density.
    """

    cfl_number: Tensor
    divergence: Tensor
    bulk_velocity: Tensor
    wall_stress: Tensor
    friction_reynolds_number: Tensor
    kinetic_energy: Tensor
    pressure_gradient: Tensor


class ChannelFlow(nn.Module):
    """Incompressible flow between walls at ``faces[0]`` and ``faces[-1]``, periodic along x and z; a `Stepper`.

    Second-order finite volumes on a staggered grid, stretched along y at will; Wray's third-order Runge–Kutta scheme
    for advection and for diffusion along x and z, Crank–Nicolson for diffusion along y; the pressure in incremental
    form (Kim & Moin, J. Comput. Phys. 59 (1985) 308; Verzicco & Orlandi, ibid. 123 (1996) 402). Velocity stays free of
    divergence to round-off and advection keeps the kinetic energy. The implicit operators along y are dense inverses,
    the same for all columns, so that a substep is a few matrix products, two real transforms and sums.

    A state is ``(batch, 4, x, y, z)``: the velocity on faces (see `fields.grid.Channel`) and the pressure in cells, all
    that a restart needs: running on from a state in the solver's precision is bit-equal to not having stopped.

    Args:
        shape: cells along x, y and z.
        lengths: periods along x and z.
        viscosity: kinematic, length^2 per time.
        frame_interval: time between the frames that `step` returns.
        steps_per_frame: time steps in a frame interval.
        forcing: what drives the flow; by default a bulk velocity of one is held.
        stretching: of the default faces, see `stretched_faces`; the walls are at 0 and ``2 half_height``.
        half_height: of the default faces.
        faces: ``(ny + 1,)`` along y, wall to wall, in place of the default ones.
        subgrid: eddy viscosity; evaluated at the start of every time step, its stress is explicit in time.
        precision: of the computation; input of another precision is converted and the result converted back.

    Raises:
        ValueError: if an argument is out of range, faces do not fit, the closure is for another viscosity, or the time
            step is over the limit of explicit diffusion.

    Example:
        >>> solver = ChannelFlow((4, 16, 4), (4.0, 2.0), viscosity=0.1, frame_interval=1.0, steps_per_frame=10)
        >>> start = torch.zeros(1, 4, 4, 16, 4, dtype=torch.float64)
        >>> start[:, 0] = 1.0
        >>> later = solver.diagnostics(solver.advance(start, 60))
        >>> round(later.bulk_velocity.item(), 12), round(later.wall_stress[0, 0].item(), 2)  # 3 U nu / h
        (1.0, 0.3)
    """

    history_frames = 1

    def __init__(
        self,
        shape: Sequence[int],
        lengths: Sequence[float],
        viscosity: float,
        frame_interval: float,
        steps_per_frame: int,
        forcing: ChannelForcing | None = None,
        stretching: float = 1.75,
        half_height: float = 1.0,
        faces: Tensor | Sequence[float] | None = None,
        subgrid: SubgridModel | None = None,
        precision: Literal["float32", "float64"] = "float64",
    ) -> None:
        super().__init__()
        if len(shape) != 3 or len(lengths) != 2:
            raise ValueError(
                f"Expected a shape of three axes, x, y and z, and lengths of two, x and z, but got {tuple(shape)} and "
                f"{tuple(lengths)}."
            )
        (nx, ny, nz), (length_x, length_z) = shape, lengths
        if faces is None:
            faces = stretched_faces(ny, stretching, half_height)
        places = torch.as_tensor(faces, dtype=torch.float64)
        if places.shape != (ny + 1,):
            raise ValueError(
                f"Expected {ny + 1} faces around {ny} cells along y but got shape {tuple(places.shape)}; give as many, "
                "or leave them out for stretched ones."
            )
        self.channel_grid = ChannelGrid((length_x, length_z), (nx, nz), places)
        self.viscosity = viscosity
        self.frame_interval = frame_interval
        self.steps_per_frame = steps_per_frame
        self.forcing: ChannelForcing = MassFlux() if forcing is None else forcing
        self.subgrid = subgrid
        self._check_time_step()
        closure: object = subgrid
        if isinstance(closure, BoundToFluid):
            closure.require_viscosity(viscosity)
        walls = Axis("y", bounds=(float(places[0]), float(places[-1])))
        self.grid = Grid((Axis("x", period=float(length_x)), walls, Axis("z", period=float(length_z))))
        self.channels = (
            Channel("velocity_x", "length/time", "velocity along the flow", "face_x", "velocity"),
            Channel("velocity_y", "length/time", "velocity off the low wall", "face_y", "velocity"),
            Channel("velocity_z", "length/time", "velocity across the flow", "face_z", "velocity"),
            Channel("pressure", "length^2/time^2", "pressure over density", "cell"),
        )
        self.dtype = torch.float32 if precision == "float32" else torch.float64
        self.scheme = ChannelScheme(self.channel_grid, viscosity, self.time_step, self.forcing, precision)

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        return self.frame_interval / self.steps_per_frame

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along each axis."""
        return self.channel_grid.shape

    @property
    def coordinates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Centers of the cells along each axis, in float64."""
        return self.channel_grid.coordinates

    @property
    def metadata(self) -> Metadata:
        """Fields and frame interval that the solver steps, so that an evaluation can refuse other data."""
        return Metadata(type(self).__name__, self.grid, self.channels, self.frame_interval)

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Physical parameters that an archive records with every trajectory."""
        return {"viscosity": self.viscosity, **self.forcing.parameters_by_name}

    def context(self, batch: int) -> Context:
        """The context of a batch on this solver's own grid."""
        device = self.scheme.helmholtz.device
        return Context(tuple(c.to(device, torch.float32).expand(batch, -1) for c in self.coordinates))

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The frame that follows ``history (batch, time, 4, x, y, z)``; ``(batch, 1, 4, x, y, z)``.

        A member that is too fast for the time step goes its way to infinity, where a rollout stops it and goes on with
        the others.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        return self.march(history[:, -1], self.steps_per_frame)[0].unsqueeze(1)

    def advance(self, state: Tensor, steps: int) -> Tensor:
        """``steps`` time steps from ``state (batch, 4, x, y, z)``, in the state's own precision.

        Raises:
            ValueError: if the fields do not fit this solver's grid, or as `require_stable`.
        """
        self.require_stable(state)
        return self.march(state, steps)[0]

    def march(self, state: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """`advance` for a state that is known to be slow enough, and the force ``(batch,)`` that drove it in the mean.

        Raises:
            ValueError: if the fields do not fit this solver's grid or ``steps`` is negative.
        """
        self._check(state)
        if steps < 0:
            raise ValueError(f"Expected a number of steps >= 0 but got {steps}.")
        planes = self.scheme.fluxes.planes
        fields = planes.from_fields(state.to(self.dtype))
        # Contiguous, so that all columns of a plane are those of one matrix.
        tangential, pressure = fields[:, 0:3:2].flatten(2).contiguous(), fields[:, 3].contiguous()
        normal = nn.functional.pad(fields[1:, 1], (0, 0, 1, 1))
        total = tangential.new_zeros(len(state))
        for _ in range(steps):
            closure = self._subgrid_viscosity(tangential, normal)
            tangential, normal, pressure, force = self.scheme(tangential, normal, pressure, closure)
            total = total + force
        ordered = torch.stack([tangential[:, 0], normal[:-1], tangential[:, 1], pressure], 1)
        result = planes.to_fields(ordered).to(state.dtype).contiguous()
        return result, (total / max(steps, 1)).to(state.dtype)

    def _subgrid_viscosity(self, tangential: Tensor, normal: Tensor) -> Tensor | None:
        """``(ny, columns)`` at the start of a time step."""
        if self.subgrid is None:
            return None
        planes = self.scheme.fluxes.planes
        ordered = torch.stack([tangential[:, 0], normal[:-1], tangential[:, 1]], 1)
        viscosity = self.subgrid.viscosity(planes.to_fields(ordered).contiguous(), self.channel_grid)
        return planes.from_fields(viscosity.to(self.dtype).unsqueeze(1))[:, 0]

    def diagnostics(self, state: Tensor, pressure_gradient: Tensor | None = None) -> ChannelDiagnostics:
        """Of ``state (batch, 4, x, y, z)``; computed in its precision, on its device.

        Args:
            state: as the solver steps it.
            pressure_gradient: ``(batch,)`` as `march` returns it; by default that of this instant.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        self._check(state)
        grid = self.channel_grid
        heights, distances = cell_heights(grid, state), center_distances(grid, state)
        velocity = state[:, :3]
        weights = heights / heights.sum()
        profile = state[:, 0].mean((1, 3))
        wall_stress = self.viscosity * profile[:, (0, -1)] / distances[[0, -1]]
        squares = velocity.square().mean((2, 4)) / 2
        energy = (squares[:, 0] + squares[:, 2]) @ weights + squares[:, 1] @ (distances[:-1] / heights.sum())
        if pressure_gradient is None:
            pressure_gradient = self.forcing.balance(wall_stress, grid.half_height)
        return ChannelDiagnostics(
            cfl_number=self.cfl_number(state),
            divergence=divergence(velocity, grid).abs().amax((1, 2, 3)),
            bulk_velocity=profile @ weights,
            wall_stress=wall_stress,
            friction_reynolds_number=wall_stress.mean(-1).clamp(min=0).sqrt() * grid.half_height / self.viscosity,
            kinetic_energy=energy,
            pressure_gradient=pressure_gradient,
        )

    def doubts(self, diagnostics: ChannelDiagnostics) -> str:
        """Says so where the flow is laminar, or nearly: where its walls bear little more than those of a parabola."""
        grid, bulk = self.channel_grid, diagnostics.bulk_velocity
        laminar = 3 * self.viscosity * bulk.abs() / grid.half_height
        share, member = (diagnostics.wall_stress.mean(-1) / laminar).min(0)
        if not float(share) < NEARLY_LAMINAR:
            return ""
        length, width = (each / grid.half_height for each in grid.lengths)
        reynolds_number = float(bulk[member]) * grid.half_height / self.viscosity
        return (
            f"the flow is laminar, or nearly: the stress on its walls is {float(share):.3g} times that of a parabola. "
            f"A box of {length:.3g} x 2 x {width:.3g} half heights at U_b h / viscosity = {reynolds_number:.4g} may be "
            "too small to hold turbulence, or the start too weak to begin it; 600 x 200 wall units along x and z are "
            "about the least."
        )

    def cfl_number(self, state: Tensor) -> Tensor:
        """``(batch,)`` largest sum over the directions of ``time_step |u| / dx`` in ``state (batch, 4, x, y, z)``."""
        self._check(state)
        grid = self.channel_grid
        u, v, w = state[:, :3].abs().unbind(1)
        rate = (u + u.roll(-1, -3)) / (2 * grid.spacing_x) + (w + w.roll(-1, -1)) / (2 * grid.spacing_z)
        through = v + nn.functional.pad(v[..., 1:, :], (0, 0, 0, 1))
        rate = rate + through / (2 * cell_heights(grid, state).unsqueeze(-1))
        return rate.amax((1, 2, 3)) * self.time_step

    def diffusion_number(self, state: Tensor) -> Tensor:
        """``(batch,)`` largest ``time_step`` times rate of the explicit diffusion in ``state (batch, 4, x, y, z)``.

        That is molecular diffusion along x and z, and by eddies in all directions; a wave of the shortest length
        decays at this rate. Evaluates the closure.
        """
        self._check(state)
        if self.subgrid is None:
            return state.new_full((len(state),), self._molecular_rate * self.time_step)
        grid = self.channel_grid
        eddies = self.subgrid.viscosity(state[:, :3], grid)
        along = self._molecular_rate + 4 * (grid.spacing_x**-2 + grid.spacing_z**-2) * eddies
        # Walls have no eddy viscosity; on other faces it is the mean of both cells.
        sums = (eddies[..., 1:, :] + eddies[..., :-1, :]) / center_distances(grid, state)[1:-1].unsqueeze(-1)
        sums = nn.functional.pad(sums, (0, 0, 1, 1))
        across = (sums[..., 1:, :] + sums[..., :-1, :]) / cell_heights(grid, state).unsqueeze(-1)
        return (along + across).amax((1, 2, 3)) * self.time_step

    def require_stable(self, state: Tensor) -> None:
        """Refuse a state that moves, or whose eddies diffuse, too fast for the time step. Waits for the device.

        Raises:
            ValueError: naming the limit.
        """
        state = state.detach()
        fastest = float(self.cfl_number(state).nan_to_num(nan=0.0).max())
        if fastest > LARGEST_CFL:
            raise ValueError(
                f"Expected a CFL number of at most {LARGEST_CFL:.3f} but the state has {fastest:.3g} with the time "
                f"step {self.time_step:g}; use one of at most {self.time_step * LARGEST_CFL / fastest:.3g} (more "
                "steps_per_frame)."
            )
        if self.subgrid is None:
            return
        strongest = float(self.diffusion_number(state).nan_to_num(nan=0.0).max())
        if strongest > LARGEST_DIFFUSION:
            raise ValueError(
                f"Expected a diffusion number of at most {LARGEST_DIFFUSION} but the eddy viscosity of "
                f"{type(self.subgrid).__name__} makes it {strongest:.3g} with the time step {self.time_step:g}; use "
                f"one of at most {self.time_step * LARGEST_DIFFUSION / strongest:.3g} (more steps_per_frame), or a "
                "smaller constant of the model."
            )

    @property
    def _molecular_rate(self) -> float:
        """Of the explicit diffusion, that along x and z."""
        return 4 * self.viscosity * (self.channel_grid.spacing_x**-2 + self.channel_grid.spacing_z**-2)

    def _check(self, state: Tensor) -> None:
        if state.shape[1:] != (4, *self.shape):
            raise ValueError(
                f"Expected three velocities and a pressure at {self.shape} but got {tuple(state.shape[1:])}; "
                "the solver runs on its own grid alone."
            )

    def _check_time_step(self) -> None:
        if not 0 <= self.viscosity < math.inf:
            raise ValueError(f"Expected viscosity >= 0 but got {self.viscosity}.")
        if not 0 < self.frame_interval < math.inf:
            raise ValueError(f"Expected a positive frame_interval but got {self.frame_interval}.")
        if self.steps_per_frame < 1:
            raise ValueError(f"Expected at least one step per frame but got {self.steps_per_frame}.")
        rate = self._molecular_rate
        if rate * self.time_step > LARGEST_DIFFUSION:
            raise ValueError(
                f"Expected a time step of at most {LARGEST_DIFFUSION / rate:.3g} but got {self.time_step:.3g}: the "
                "explicit diffusion along x and z is unstable beyond; use more steps_per_frame."
            )

    def extra_repr(self) -> str:
        """What matters, shown by ``print``."""
        return f"shape={self.shape}, viscosity={self.viscosity:g}, time_step={self.time_step:g}, forcing={self.forcing}"

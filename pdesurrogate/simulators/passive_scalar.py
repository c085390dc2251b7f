"""Plane flow as velocity, with a scalar that it carries along; on the solver of the vorticity equation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Channel, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.operators import velocity_from_vorticity, vorticity_from_velocity
from pdesurrogate.physics.spectral import derivative_wavenumbers
from pdesurrogate.simulators.forcing import Forcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import InitialCondition
from pdesurrogate.simulators.time_schemes import TimeScheme


class PassiveScalar2d(nn.Module):
    """The velocity of `NavierStokes2d` and a scalar ``ds/dt + (u . grad) s = diffusivity laplacian s``.

    A `Stepper` of frames ``(batch, time, 3, x, y)``. The velocity has no mean and no divergence: that part of a state
    is left out. Both equations take the same time steps and share the transforms of the velocity.

    Args:
        resolution: points along each side; even and at least 8.
        viscosity: kinematic, length^2 per time.
        diffusivity: of the scalar, length^2 per time.
        frame_interval: time between the frames that `step` returns.
        steps_per_frame: time steps in a frame interval.
        length: side of the box.
        drag: linear friction, per time.
        forcing: steady vorticity source.
        scheme: time scheme, see `NavierStokes2d`.
        precision: of the computation; input of another precision is converted and the result converted back.

    Raises:
        ValueError: if the diffusivity is negative, and as `NavierStokes2d`.

    Example:
        >>> solver = PassiveScalar2d(16, viscosity=0.1, diffusivity=0.2, frame_interval=0.5, steps_per_frame=5)
        >>> x, _ = torch.meshgrid(*solver.grid.uniform_coordinates((16, 16)), indexing="ij")
        >>> shear = torch.stack([0 * x, torch.sin(x), torch.cos(2 * x)])[None, None]  # is parallel to its lines
        >>> later = solver.step(shear, solver.context(batch=1))
        >>> decay = torch.tensor([1.0, math.exp(-0.1 * 0.5), math.exp(-0.2 * 4 * 0.5)]).double()[:, None, None]
        >>> bool(torch.allclose(later, shear * decay, atol=1e-6))
        True
    """

    history_frames = 1

    tables: Tensor
    scalar_factors: Tensor

    def __init__(
        self,
        resolution: int,
        viscosity: float,
        diffusivity: float,
        frame_interval: float,
        steps_per_frame: int,
        length: float = 2 * math.pi,
        drag: float = 0.0,
        forcing: Forcing | None = None,
        scheme: TimeScheme | None = None,
        precision: Literal["float32", "float64"] = "float32",
    ) -> None:
        super().__init__()
        if not diffusivity >= 0:
            raise ValueError(f"Expected diffusivity >= 0 but got {diffusivity}.")
        self.flow = NavierStokes2d(
            resolution, viscosity, frame_interval, steps_per_frame, length, drag, forcing, scheme, precision
        )
        self.diffusivity = diffusivity
        self.frame_interval = frame_interval
        self.steps_per_frame = steps_per_frame
        self.grid = self.flow.grid
        self.channels = (
            Channel("velocity_x", units="length/time", long_name="velocity along x", vector="velocity"),
            Channel("velocity_y", units="length/time", long_name="velocity along y", vector="velocity"),
            Channel("scalar", long_name="passive scalar"),
        )
        kx, ky = (wave[:, : self.flow.columns] for wave in derivative_wavenumbers(self.shape, self.grid.periods))
        # The Nyquist wave, which has no derivative, is outside the mask.
        spread = self.flow.scheme.tables(-diffusivity * (kx.square() + ky.square()), self.time_step)
        spread = spread.mT.unsqueeze(-1).expand(*spread.mT.shape, 2)
        self.register_buffer("tables", torch.stack([self.flow.tables, spread.to(self.flow.dtype)], 1), persistent=False)
        factors = -1j * torch.stack([kx.expand(self.flow.mask.mT.shape), ky.expand(self.flow.mask.mT.shape)]).mT
        complex_type = self.flow.dtype.to_complex()
        self.register_buffer("scalar_factors", (factors * self.flow.mask).to(complex_type), persistent=False)

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        return self.flow.time_step

    @property
    def shape(self) -> tuple[int, int]:
        """Points along each axis."""
        return self.flow.shape

    @property
    def metadata(self) -> Metadata:
        """Fields and frame interval that the solver steps, so that an evaluation can refuse other data."""
        return Metadata(type(self).__name__, self.grid, self.channels, self.frame_interval)

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Physical parameters that an archive records with every trajectory."""
        return {**self.flow.parameters_by_name, "diffusivity": self.diffusivity}

    def context(self, batch: int) -> Context:
        """The context of a batch on this solver's own grid."""
        return self.flow.context(batch)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The frame that follows ``history (batch, time, 3, x, y)``; ``(batch, 1, 3, x, y)``.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        return self.advance(history[:, -1], self.steps_per_frame).unsqueeze(1)

    def advance(self, state: Tensor, steps: int) -> Tensor:
        """``steps`` time steps from ``state (batch, 3, x, y)``, in the state's own precision.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        if state.shape[1:] != (3, *self.shape):
            raise ValueError(
                f"Expected two velocities and a scalar at {self.shape} but got {tuple(state.shape[1:])}; "
                "wrap the solver in Resampled to run it on another grid."
            )
        vorticity = vorticity_from_velocity(state[:, :2].to(self.flow.dtype), self.grid.periods)
        spectra = self.flow.to_spectrum(torch.stack([vorticity, state[:, 2].to(self.flow.dtype)], dim=1))
        for _ in range(steps):
            spectra = self.flow.scheme.advance(spectra, self.tendency, self.tables)
        velocity = self.flow.velocity(spectra[:, 0])
        return torch.cat([velocity, self.flow.to_field(spectra[:, 1:])], dim=1).to(state.dtype)

    def tendency(self, spectra: Tensor) -> Tensor:
        """Of vorticity and scalar in Fourier space, masked; shapes ``(batch, 2, columns, x, 2)``."""
        velocity = self.flow.velocity(spectra[:, 0])
        flux = self.flow.columns_of(velocity * self.flow.to_field(spectra[:, 1]).unsqueeze(1))
        carried = torch.view_as_real((flux * self.scalar_factors).sum(1))
        return torch.stack([self.flow.tendency_of(velocity), carried], dim=1)

    def extra_repr(self) -> str:
        """What matters, shown by ``print``."""
        return f"diffusivity={self.diffusivity:g}"


class VelocityAndScalar:
    """Starts `PassiveScalar2d`: the velocity of one random vorticity, and another random field as the scalar.

    Args:
        vorticity: draws the flow.
        scalar: draws the scalar.
        deviation: that the scalar of each trajectory is scaled to; its mean is removed.
    """

    def __init__(self, vorticity: InitialCondition, scalar: InitialCondition, deviation: float = 1.0) -> None:
        if not deviation > 0:
            raise ValueError(f"Expected a positive deviation but got {deviation}.")
        self.vorticity = vorticity
        self.scalar = scalar
        self.deviation = deviation

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """``(count, 3, x, y)`` of both velocities and the scalar."""
        vorticity = self.vorticity.sample(count, shape, periods, generator)
        scalar = self.scalar.sample(count, shape, periods, generator)
        scalar = scalar - scalar.mean((-2, -1), keepdim=True)
        scalar = scalar * (self.deviation / scalar.std((-2, -1), correction=0, keepdim=True))
        return torch.cat([velocity_from_vorticity(vorticity[:, 0], periods), scalar], dim=1)

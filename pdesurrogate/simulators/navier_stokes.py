"""Incompressible flow on a periodic rectangle in vorticity form, pseudo-spectral."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.operators import velocity_symbol
from pdesurrogate.physics.spectral import angular_wavenumbers, dealias_mask
from pdesurrogate.simulators.forcing import Forcing
from pdesurrogate.simulators.time_schemes import ETDRK4, TimeScheme


class NavierStokes2d(nn.Module):
    """``dw/dt + (u . grad) w = viscosity laplacian w - drag w + f`` on a periodic square; a `Stepper`.

    The advection is evaluated as ``dxdy (v^2 - u^2) + (dxx - dyy) (u v)`` (Basdevant, J. Comput. Phys. 50 (1983) 209):
    two inverse and two forward real transforms a tendency, against five for the usual ``u dx w + v dy w``, and the same
    function for fields inside the 2/3 mask. Everything runs on the columns that the mask keeps, with real factors
    computed once. Spectra are stored ``(batch, columns, x, 2)``, so that complex transforms run along contiguous lines.

    Args:
        resolution: points along each side; even and at least 8.
        viscosity: kinematic, length^2 per time.
        frame_interval: time between the frames that `step` returns.
        steps_per_frame: time steps in a frame interval.
        length: side of the box.
        drag: linear friction, per time.
        forcing: steady vorticity source.
        scheme: time scheme, `ETDRK4` by default: as accurate as RK4–Crank–Nicolson at equal work where viscosity is
            small, and more so where it matters (``benchmarks/speed/results.md``).
        precision: of the computation; input of another precision is converted and the result converted back.
        mask: Fourier mask, shape ``(resolution, resolution // 2 + 1)``, in place of the symmetric 2/3 mask.

    Example:
        >>> solver = NavierStokes2d(32, viscosity=1e-3, frame_interval=0.1, steps_per_frame=10)
        >>> x, y = torch.meshgrid(*solver.grid.uniform_coordinates((32, 32)), indexing="ij")
        >>> vortices = (2 * torch.cos(x) * torch.cos(y))[None, None, None].float()
        >>> later = solver.step(vortices, solver.context(batch=1))
        >>> bool(torch.allclose(later, vortices * math.exp(-2e-3 * 0.1), atol=1e-5))
        True
    """

    history_frames = 1

    tables: Tensor
    velocity_symbol: Tensor
    product_factors: Tensor
    source: Tensor | None
    mask: Tensor

    def __init__(
        self,
        resolution: int,
        viscosity: float,
        frame_interval: float,
        steps_per_frame: int,
        length: float = 2 * math.pi,
        drag: float = 0.0,
        forcing: Forcing | None = None,
        scheme: TimeScheme | None = None,
        precision: Literal["float32", "float64"] = "float32",
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(resolution, viscosity, frame_interval, steps_per_frame, length, drag)
        self.resolution = resolution
        self.viscosity = viscosity
        self.drag = drag
        self.frame_interval = frame_interval
        self.steps_per_frame = steps_per_frame
        self.grid = Grid((Axis("x", period=length), Axis("y", period=length)))
        self.channels = (Channel("vorticity", units="1/time", long_name="vorticity"),)
        self.dtype = torch.float32 if precision == "float32" else torch.float64
        self.scheme: TimeScheme = ETDRK4() if scheme is None else scheme

        shape, periods = (resolution, resolution), (length, length)
        mask = dealias_mask(shape) if mask is None else mask.to(torch.float64)
        if mask.shape != (resolution, resolution // 2 + 1):
            raise ValueError(f"Expected a mask {(resolution, resolution // 2 + 1)} but got {tuple(mask.shape)}.")
        self.columns = int(mask.amax(0).nonzero().max()) + 1
        mask = mask[:, : self.columns]
        kx, ky = angular_wavenumbers(shape, periods)
        kx, ky = kx, ky[:, : self.columns]
        symbol = -viscosity * (kx.square() + ky.square()) - drag
        factors = torch.stack([(kx.square() - ky.square()) * mask, kx * ky * mask])
        tables = self.scheme.tables(symbol, self.time_step)
        self._register("mask", mask.mT)
        # Written out for real and imaginary part: a broadcast innermost axis of two defeats vectorization.
        self._register("tables", tables.mT.unsqueeze(-1).expand(*tables.mT.shape, 2))
        self._register("product_factors", factors.mT.unsqueeze(-1).expand(*factors.mT.shape, 2))
        self._register("velocity_symbol", velocity_symbol(shape, periods)[..., : self.columns].mT)
        source = None
        if forcing is not None:
            x, y = torch.meshgrid(*self.grid.uniform_coordinates(shape), indexing="ij")
            source_hat = torch.fft.rfft2(forcing.vorticity_source(x, y, periods))[:, : self.columns] * mask
            source = torch.view_as_real(source_hat.mT.contiguous())
        self._register("source", source)

    def _register(self, name: str, table: Tensor | None) -> None:
        if table is not None:
            table = table.to(self.dtype.to_complex() if table.is_complex() else self.dtype).contiguous()
        self.register_buffer(name, table, persistent=False)

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        return self.frame_interval / self.steps_per_frame

    @property
    def shape(self) -> tuple[int, int]:
        """Points along each axis."""
        return self.resolution, self.resolution

    @property
    def metadata(self) -> Metadata:
        """Fields and frame interval that the solver steps, so that an evaluation can refuse other data."""
        return Metadata(type(self).__name__, self.grid, self.channels, self.frame_interval)

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Physical parameters that an archive records with every trajectory."""
        return {"viscosity": self.viscosity, "drag": self.drag}

    @property
    def forcing_field(self) -> Tensor | None:
        """The steady vorticity source ``(1, x, y)`` inside the solver's mask; ``None`` without forcing."""
        return None if self.source is None else self.to_field(self.source.unsqueeze(0))

    def context(self, batch: int) -> Context:
        """The context of a batch on this solver's own grid."""
        coordinates = self.grid.uniform_coordinates(self.shape, dtype=torch.float32)
        return Context(tuple(c.to(self.mask.device).expand(batch, -1) for c in coordinates))

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The frame that follows ``history (batch, time, 1, x, y)``; ``(batch, 1, 1, x, y)``.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        return self.advance(history[:, -1], self.steps_per_frame).unsqueeze(1)

    def advance(self, state: Tensor, steps: int) -> Tensor:
        """``steps`` time steps from ``state (batch, 1, x, y)``, in the state's own precision.

        Raises:
            ValueError: if the fields do not fit this solver's grid.
        """
        self._check(state)
        spectrum = self.to_spectrum(state[:, 0])
        for _ in range(steps):
            spectrum = self.scheme.advance(spectrum, self.tendency, self.tables)
        return self.to_field(spectrum).unsqueeze(1).to(state.dtype)

    def step_tangent(self, history: Tensor, direction: Tensor, context: Context) -> Tensor:
        """Derivative of `step` at ``history (batch, 1, 1, x, y)`` in a direction of the same shape.

        State and direction go through the scheme side by side, for twice the cost of a step: the scheme is linear in
        the state and its tendencies, and the derivative of the quadratic advection is explicit.
        """
        self._check(history[:, -1])
        pair = self.to_spectrum(torch.stack([history[:, -1, 0], direction[:, -1, 0]]))
        for _ in range(self.steps_per_frame):
            pair = self.scheme.advance(pair, self._tendency_pair, self.tables)
        return self.to_field(pair[1])[:, None, None].to(history.dtype)

    def to_spectrum(self, vorticity: Tensor) -> Tensor:
        """Masked spectrum ``(batch, columns, x, 2)`` of fields ``(batch, x, y)``."""
        return torch.view_as_real((self.columns_of(vorticity.to(self.dtype)) * self.mask).contiguous())

    def to_field(self, spectrum: Tensor) -> Tensor:
        """Fields ``(batch, x, y)`` of a spectrum; inverse of `to_spectrum` inside the mask."""
        return self._inverse(torch.view_as_complex(spectrum))

    def tendency(self, spectrum: Tensor) -> Tensor:
        """``f - (u . grad) w`` in Fourier space, masked; shapes ``(batch, columns, x, 2)``."""
        return self.tendency_of(self.velocity(spectrum))

    def tendency_of(self, velocity: Tensor) -> Tensor:
        """`tendency` where the velocity ``(batch, 2, x, y)`` is known."""
        u, v = velocity.unbind(-3)
        products = torch.stack((u * v, (v - u) * (v + u)), dim=-3)
        advection = self._advection(products)
        return advection if self.source is None else advection + self.source

    def velocity(self, spectrum: Tensor) -> Tensor:
        """``(batch, 2, x, y)`` of the spectrum of a vorticity."""
        return self._inverse(self.velocity_symbol * torch.view_as_complex(spectrum).unsqueeze(-3))

    def _tendency_pair(self, pair: Tensor) -> Tensor:
        """`tendency` of ``pair[0]``, and its derivative there in the direction ``pair[1]``."""
        (u, v), (du, dv) = (
            fields.unbind(-3)
            for fields in self._inverse(self.velocity_symbol * torch.view_as_complex(pair)[..., None, :, :])
        )
        products = torch.stack((u * v, (v - u) * (v + u)), dim=-3)
        changes = torch.stack((u * dv + du * v, 2 * (v * dv - u * du)), dim=-3)
        advection = self._advection(torch.stack([products, changes]))
        return advection if self.source is None else torch.stack([advection[0] + self.source, advection[1]])

    def _advection(self, products: Tensor) -> Tensor:
        """Masked spectrum of ``-(u . grad) w`` from fields ``(..., 2, x, y)`` of ``u v`` and ``v^2 - u^2``."""
        uv, difference = torch.view_as_real(self.columns_of(products)).unbind(-4)
        return torch.addcmul(uv * self.product_factors[0], difference, self.product_factors[1])

    def _check(self, state: Tensor) -> None:
        if state.shape[1:] != (1, *self.shape):
            raise ValueError(
                f"Expected one vorticity channel at {self.shape} but got {tuple(state.shape[1:])}; "
                "wrap the solver in Resampled to run it on another grid."
            )

    def columns_of(self, fields: Tensor) -> Tensor:
        """Kept columns ``(..., columns, x)`` of the spectra of ``fields (..., x, y)``."""
        return torch.fft.fft(torch.fft.rfft(fields)[..., : self.columns].mT)

    def _inverse(self, columns: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.ifft(columns).mT, n=self.resolution)

    def extra_repr(self) -> str:
        """What matters, shown by ``print``."""
        return (
            f"resolution={self.resolution}, viscosity={self.viscosity:g}, drag={self.drag:g}, "
            f"time_step={self.time_step:g}, scheme={type(self.scheme).__name__}"
        )


def _check_arguments(
    resolution: int, viscosity: float, frame_interval: float, steps_per_frame: int, length: float, drag: float
) -> None:
    if resolution < 8 or resolution % 2:
        raise ValueError(f"Expected an even resolution of at least 8 but got {resolution}.")
    if not (viscosity >= 0 and drag >= 0):
        raise ValueError(f"Expected viscosity and drag >= 0 but got {viscosity} and {drag}.")
    if not (frame_interval > 0 and length > 0):
        raise ValueError(f"Expected positive frame_interval and length but got {frame_interval} and {length}.")
    if steps_per_frame < 1:
        raise ValueError(f"Expected at least one step per frame but got {steps_per_frame}.")

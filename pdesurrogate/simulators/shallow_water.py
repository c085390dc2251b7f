"""Shallow water in a periodic box, by finite volumes: waves, bores and dam breaks over any bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.finite_volumes import advance_in_parts, require_cfl_number
from pdesurrogate.simulators.generation.protocols import Simulator
from pdesurrogate.simulators.random_fields import GaussianRandomField, InitialCondition
from pdesurrogate.simulators.reconstruction import face_values


class Bathymetry(Protocol):
    """The bottom of a periodic box."""

    def cell_averages(self, shape: Sequence[int], periods: Sequence[float]) -> Tensor:
        """Height of the bottom above a level, ``shape``, averaged over even cells, float64; the first begins at 0."""
        ...


class GaussianHill:
    """``height exp(-r^2 / (2 width^2))`` with its periodic images; a trough where the height is negative.

    Args:
        height: of the top, length.
        width: standard deviation, length.
        center: of the hill, as parts of the box.

    Example:
        >>> hill = GaussianHill(height=0.5, width=0.1)
        >>> fine, coarse = (hill.cell_averages((cells, cells), (1.0, 1.0)) for cells in (32, 16))
        >>> bool(torch.allclose(fine.unfold(0, 2, 2).unfold(1, 2, 2).mean((-2, -1)), coarse))  # averages are exact
        True
    """

    def __init__(self, height: float, width: float, center: tuple[float, float] = (0.5, 0.5)) -> None:
        if not width > 0:
            raise ValueError(f"Expected a positive width but got {width}.")
        self.height = height
        self.width = width
        self.center = (center[0], center[1])

    def cell_averages(self, shape: Sequence[int], periods: Sequence[float]) -> Tensor:
        """``(x, y)`` in float64."""
        x, y = (self._profile(*axis) for axis in zip(shape, periods, self.center, strict=True))
        return self.height * x[:, None] * y

    def _profile(self, cells: int, period: float, center: float) -> Tensor:
        """Averages ``(cells,)`` of the hill of height 1 in one dimension, and of as many images as count."""
        images = 1 + math.ceil(9 * self.width / period)
        faces = torch.arange(cells + 1, dtype=torch.float64) / cells - center
        distances = (faces + torch.arange(-images, images + 1, dtype=torch.float64)[:, None]) * period
        primitive = math.sqrt(math.pi / 2) * self.width * torch.erf(distances / (math.sqrt(2) * self.width))
        return primitive.sum(0).diff() * (cells / period)


class ShallowWaterDiagnostics(NamedTuple):
    """What a run log shows of each trajectory; totals are integrals over the box, per density.

    Attributes:
        cfl_number: largest ``time_step sum_i (|u_i| + c) / dx_i``; stable up to
            ``finite_volumes.LARGEST_CFL``.
        volume: of the water.
        discharge_x: total, volume length per time; ``discharge_y`` alike.
        discharge_y: see ``discharge_x``.
        energy: kinetic and potential; the latter from the level of the bathymetry.
        least_depth: of all cells.
        froude_number: largest ``|u| / c``.
    """

    cfl_number: Tensor
    volume: Tensor
    discharge_x: Tensor
    discharge_y: Tensor
    energy: Tensor
    least_depth: Tensor
    froude_number: Tensor


class ShallowWater2d(nn.Module):
    """Depth ``h`` and discharge ``h u`` of shallow water in a periodic box; a `Stepper` of frames of cell averages.

    ``dh/dt + div(h u) = 0`` and ``d(h u)/dt + div(h u u) + grad(g h^2 / 2) = -g h grad b - f z x (h u) - drag h u``,
    by finite volumes: the solver of Harten, Lax and van Leer with the contact wave restored, HLLC (E. F. Toro,
    *Shock-Capturing Methods for Free-Surface Shallow Flows*, 2001), between linear reconstructions of surface, depth
    and velocity, and two-stage time steps that preserve strong stability (C.-W. Shu and S. Osher, J. Comput. Phys. 77
    (1988) 439). Second order where the flow is smooth. Volume is conserved to round-off, and so is momentum over a flat
    bottom without rotation and drag.

    Over a bottom the reconstruction is hydrostatic (E. Audusse et al., SIAM J. Sci. Comput. 25 (2004) 2050): a lake at
    rest stays there, islands included. Depths stay positive, dry cells included, while the CFL number is at most 1/2
    (half a cell of water cannot leave through a face); see `diagnostics`.

    Args:
        resolution: cells along each side; even and at least 8.
        frame_interval: time between the frames that `step` returns.
        steps_per_frame: time steps in a frame interval.
        length: side of the box.
        gravity: length per time^2.
        coriolis: Coriolis parameter ``f``, twice the rate of rotation, per time.
        drag: linear friction, per time.
        bathymetry: the bottom; flat at height 0 if not given.
        dry_depth: velocities of thinner water fade to zero with its depth; length.
        precision: of the computation; input of another precision is converted and the result converted back.

    Raises:
        ValueError: for arguments outside these ranges, time steps longer than rotation or friction takes, or a bottom
            that is not finite or of another shape.

    Example:
        >>> lake = ShallowWater2d(16, 0.1, 5, length=1.0, bathymetry=GaussianHill(height=0.5, width=0.2))
        >>> rest = torch.stack([1.0 - lake.bottom, 0 * lake.bottom, 0 * lake.bottom])[None, None]
        >>> bool(torch.allclose(lake.step(rest, lake.context(batch=1)), rest, atol=1e-6))
        True
    """

    history_frames = 1

    bottom: Tensor

    def __init__(
        self,
        resolution: int,
        frame_interval: float,
        steps_per_frame: int,
        length: float = 1.0,
        gravity: float = 1.0,
        coriolis: float = 0.0,
        drag: float = 0.0,
        bathymetry: Bathymetry | None = None,
        dry_depth: float = 1e-6,
        precision: Literal["float32", "float64"] = "float32",
    ) -> None:
        super().__init__()
        if resolution < 8 or resolution % 2:
            raise ValueError(f"Expected an even resolution of at least 8 but got {resolution}.")
        positive = {"frame_interval": frame_interval, "length": length, "gravity": gravity, "dry_depth": dry_depth}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"Expected a finite positive {name} but got {value}.")
        if steps_per_frame < 1:
            raise ValueError(f"Expected at least one step per frame but got {steps_per_frame}.")
        if not drag >= 0:
            raise ValueError(f"Expected drag >= 0 but got {drag}.")
        if not math.isfinite(coriolis):
            raise ValueError(f"Expected a finite coriolis but got {coriolis}.")
        for name, rate in (("drag", drag), ("coriolis", abs(coriolis))):
            if rate * frame_interval / steps_per_frame > 1:
                raise ValueError(
                    f"Expected time steps of at most 1 / {name}, {1 / rate:.3g}, but got "
                    f"{frame_interval / steps_per_frame:.3g}; use more steps_per_frame."
                )
        self.resolution = resolution
        self.frame_interval = frame_interval
        self.steps_per_frame = steps_per_frame
        self.gravity = gravity
        self.coriolis = coriolis
        self.drag = drag
        self.dry_depth = dry_depth
        self.grid = Grid((Axis("x", period=length), Axis("y", period=length)))
        self.channels: tuple[Channel, ...] = (
            Channel("depth", units="length", long_name="depth of the water", location="cell"),
            Channel(
                "discharge_x", "length^2/time", "depth times velocity along x", location="cell", vector="discharge"
            ),
            Channel(
                "discharge_y", "length^2/time", "depth times velocity along y", location="cell", vector="discharge"
            ),
        )
        self.primitive_channels: tuple[Channel, ...] = (
            self.channels[0],
            Channel("velocity_x", "length/time", "velocity along x", location="cell", vector="velocity"),
            Channel("velocity_y", "length/time", "velocity along y", location="cell", vector="velocity"),
        )
        self.dtype = torch.float32 if precision == "float32" else torch.float64
        self.flat = bathymetry is None
        bottom = torch.zeros(self.shape) if bathymetry is None else self._checked_bottom(bathymetry)
        self.register_buffer("bottom", bottom.to(self.dtype), persistent=False)

    def _checked_bottom(self, bathymetry: Bathymetry) -> Tensor:
        bottom = bathymetry.cell_averages(self.shape, self.grid.periods)
        if bottom.shape != self.shape or not bool(bottom.isfinite().all()):
            raise ValueError(f"Expected a finite bottom {self.shape} but got {tuple(bottom.shape)} of {bathymetry}.")
        return bottom

    @property
    def time_step(self) -> float:
        """Size of one time step."""
        return self.frame_interval / self.steps_per_frame

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along each axis."""
        return self.resolution, self.resolution

    @property
    def spacing(self) -> float:
        """Side of a cell."""
        return self.grid.periods[0] / self.resolution

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Centers of cells, ``(n,)`` of each axis in float64."""
        return tuple(faces + self.spacing / 2 for faces in self.grid.uniform_coordinates(self.shape))

    @property
    def metadata(self) -> Metadata:
        """Fields and frame interval that the solver steps, so that an evaluation can refuse other data."""
        return Metadata(type(self).__name__, self.grid, self.channels, self.frame_interval)

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Physical parameters that an archive records with every trajectory."""
        return {"gravity": self.gravity, "coriolis": self.coriolis, "drag": self.drag}

    def context(self, batch: int) -> Context:
        """The context of a batch on this solver's own grid."""
        device = self.bottom.device
        return Context(tuple(c.to(device, torch.float32).expand(batch, -1) for c in self.coordinates))

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
        self._check(state)
        return advance_in_parts(partial(self._advance, steps=steps), state)

    def _advance(self, state: Tensor, steps: int) -> Tensor:
        # Inside, the batch comes last: shifts along either axis then move long contiguous pieces.
        cells = state.to(self.dtype).permute(1, 2, 3, 0).contiguous()
        for _ in range(steps):
            twice = self._forward(self._forward(cells))
            cells = twice.lerp_(cells, 0.5)
        return cells.permute(3, 0, 1, 2).contiguous().to(state.dtype)

    def to_primitive(self, state: Tensor) -> Tensor:
        """Depth and velocity, `primitive_channels`, of states ``(..., 3, x, y)`` on any number of cells."""
        depth, discharge = state[..., :1, :, :], state[..., 1:, :, :]
        return torch.cat([depth, discharge / depth.clamp(min=self.dry_depth)], dim=-3)

    def diagnostics(self, state: Tensor) -> ShallowWaterDiagnostics:
        """Of ``state (batch, 3, x, y)``, computed in float64."""
        self._check(state)
        depth, u, v = self.to_primitive(state.double()).unbind(1)
        celerity = (self.gravity * depth.clamp(min=0)).sqrt()
        area = self.spacing**2
        # A cell's own level is its bottom; its water has its center of mass half the depth above.
        energy = depth * ((u.square() + v.square()) / 2 + self.gravity * (depth / 2 + self.bottom))
        volume, discharge_x, discharge_y = (area * state.double().sum((-2, -1))).unbind(1)
        wet = depth > self.dry_depth
        froude = torch.where(wet, torch.hypot(u, v) / torch.where(wet, celerity, 1.0), 0.0)
        return ShallowWaterDiagnostics(
            cfl_number=self.time_step / self.spacing * (u.abs() + v.abs() + 2 * celerity).amax((-2, -1)),
            volume=volume,
            discharge_x=discharge_x,
            discharge_y=discharge_y,
            energy=area * energy.sum((-2, -1)),
            least_depth=depth.amin((-2, -1)),
            froude_number=froude.amax((-2, -1)),
        )

    def require_stable(self, state: Tensor) -> None:
        """Refuse a state that is too fast for the time step, or has cells of negative depth.

        Raises:
            ValueError: naming the trajectory within the batch, what was found, and a time step that would do.
        """
        found = self.diagnostics(state)
        driest = int(found.least_depth.argmin())
        if float(found.least_depth[driest]) < -self.dry_depth:
            raise ValueError(
                f"Expected depths >= 0 but trajectory {driest} of the batch has {float(found.least_depth[driest]):.3g};"
                f" use a time step at which the CFL number, {float(found.cfl_number[driest]):.3g}, stays below 1/2."
            )
        require_cfl_number(found.cfl_number, self.time_step)

    def _forward(self, cells: Tensor) -> Tensor:
        """One explicit Euler step of ``(3, x, y, batch)``."""
        depth, *discharge = cells.unbind(0)
        wet = depth.clamp(min=0)  # round-off may leave a dry cell just below zero
        reciprocal = wet.clamp(min=self.dry_depth).reciprocal_()
        velocity = [component * reciprocal for component in discharge]
        if self.flat:
            columns = torch.stack([wet, *velocity])
        else:
            columns = torch.stack([wet, *velocity, wet + self.bottom.unsqueeze(-1)])
        share = self.time_step / self.spacing
        later = [depth, *discharge]
        for axis in (0, 1):
            for channel, leaving in enumerate(self._leaving(columns, axis)):
                later[channel] = later[channel].sub(leaving, alpha=share)
        for channel, other, turn in ((1, 2, self.coriolis), (2, 1, -self.coriolis)):
            if turn != 0:
                later[channel] = later[channel].add(cells[other], alpha=self.time_step * turn)
            if self.drag != 0:
                later[channel] = later[channel].sub(cells[channel], alpha=self.time_step * self.drag)
        return torch.stack(later)

    def _leaving(self, columns: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """What leaves cells across their faces along an axis, less what the bottom does; each ``(x, y, batch)``."""
        normal, along = 1 + axis, 2 - axis
        below, above = face_values(columns, 1 + axis)
        if self.flat:
            fluxes = self._fluxes((below[0], below[normal], below[along]), (above[0], above[normal], above[along]))
            volume, momentum, shear = (flux.diff(dim=axis) for flux in fluxes)
        else:
            # The higher one of both bottoms is the face's: water that lies below it is not open to the neighbor.
            sill = torch.maximum(below[3] - below[0], above[3] - above[0])
            lower = (below[3] - sill).clamp(min=0)
            upper = (above[3] - sill).clamp(min=0)
            fluxes = self._fluxes((lower, below[normal], below[along]), (upper, above[normal], above[along]))
            volume, momentum, shear = (flux.diff(dim=axis) for flux in fluxes)
            size = self.resolution
            at_end, at_start = lower.narrow(axis, 1, size), upper.narrow(axis, 0, size)
            rise = below[3].narrow(axis, 1, size) - above[3].narrow(axis, 0, size)
            # The bottom's push and the pressures on the faces, of which those of a lake at rest cancel term by term.
            pressures = (at_end - at_start) * (at_end + at_start)
            momentum = momentum.sub(pressures, alpha=self.gravity / 2).addcmul(columns[0], rise, value=self.gravity)
        return (volume, momentum, shear) if axis == 0 else (volume, shear, momentum)

    def _fluxes(
        self, below: tuple[Tensor, Tensor, Tensor], above: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of volume, normal and transverse momentum through faces, from depth, normal and transverse velocity."""
        depth_below, speed_below, along_below = below
        depth_above, speed_above, along_above = above
        celerity_below = (depth_below * self.gravity).sqrt_()
        celerity_above = (depth_above * self.gravity).sqrt_()
        # Fastest waves by L. Fraccarollo and E. F. Toro, J. Hydraul. Res. 33 (1995) 843: of the states on both sides,
        # and between two rarefactions, from the invariants that these carry.
        carried_up = speed_below.add(celerity_below, alpha=2)
        carried_down = speed_above.sub(celerity_above, alpha=2)
        slowest = torch.minimum(speed_below - celerity_below, torch.lerp(carried_down, carried_up, 0.25)).clamp_(max=0)
        fastest = torch.maximum(speed_above + celerity_above, torch.lerp(carried_up, carried_down, 0.25)).clamp_(min=0)
        part = fastest / (fastest - slowest).clamp_(min=torch.finfo(fastest.dtype).tiny)
        relative_below = (speed_below - slowest).mul_(depth_below)
        relative_above = (speed_above - fastest).mul_(depth_above)
        volume = torch.lerp(relative_above, relative_below, part)
        momentum = torch.lerp(
            (relative_above * speed_above).addcmul_(depth_above, depth_above, value=self.gravity / 2),
            (relative_below * speed_below).addcmul_(depth_below, depth_below, value=self.gravity / 2),
            part,
        )
        # The contact wave moves with the sign of the volume flux, and across it the transverse velocity jumps.
        shear = (volume.clamp(min=0) * along_below).addcmul_(volume.clamp(max=0), along_above)
        return volume, momentum, shear

    def _check(self, state: Tensor) -> None:
        if state.shape[1:] != (3, *self.shape):
            raise ValueError(
                f"Expected a depth and two discharges at {self.shape} but got {tuple(state.shape[1:])}; "
                "wrap the solver in Resampled to run it on another grid."
            )

    def extra_repr(self) -> str:
        """What matters, shown by ``print``."""
        return (
            f"resolution={self.resolution}, gravity={self.gravity:g}, coriolis={self.coriolis:g}, drag={self.drag:g}, "
            f"time_step={self.time_step:g}"
        )


class DisturbedLake:
    """Starts `ShallowWater2d` from water at rest whose surface is disturbed; dry where the bottom is higher.

    Args:
        level: of the calm surface, on the scale of the bathymetry.
        disturbances: what is added to it, each ``(count, 1, x, y)``; may be empty.
    """

    def __init__(self, level: float = 1.0, disturbances: list[InitialCondition] | None = None) -> None:
        if not math.isfinite(level):
            raise ValueError(f"Expected a finite level but got {level}.")
        self.level = level
        self.disturbances = list(disturbances or ())

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """``(count, 3, x, y)``: depth, and no discharge.

        Raises:
            ValueError: if the simulator is another one, or a trajectory has no water.
        """
        if not isinstance(simulator, ShallowWater2d):
            raise ValueError(f"Expected ShallowWater2d but got {type(simulator).__name__}, which has no surface.")
        bottom = simulator.bottom.to(generator.device, torch.float64)
        depth = (self.level - bottom).expand(count, 1, *simulator.shape)
        for disturbance in self.disturbances:
            depth = depth + disturbance.sample(count, simulator.shape, simulator.grid.periods, generator)
        depth = depth.clamp(min=0)
        if not bool((depth.amax((-3, -2, -1)) > 0).all()):
            raise ValueError(f"Expected water above the bottom but the surface at {self.level:g} lies below all of it.")
        return torch.cat([depth, torch.zeros_like(depth).expand(-1, 2, -1, -1)], dim=1)


class WaterColumns:
    """Round columns that stand on the surface and collapse: radial dam breaks.

    That of PDEBench (M. Takamoto et al., arXiv:2210.07182) is one in the middle, of height 1 on a depth of 1, with a
    radius between 0.3 and 0.7 in a box of side 5. Cells that an edge crosses are filled by part.

    Args:
        number: of columns, smallest and largest; where they overlap, heights add up.
        radius: smallest and largest, length.
        height: smallest and largest, length.
        place: anywhere in the box, or in its middle.

    Example:
        >>> draw = WaterColumns(radius=(0.5, 0.5)).sample(1, (64, 64), (5.0, 5.0), torch.Generator().manual_seed(0))
        >>> volume = draw.sum() * (5 / 64) ** 2
        >>> bool((volume - math.pi / 4).abs() < 2e-3)
        True
    """

    def __init__(
        self,
        number: tuple[int, int] = (1, 1),
        radius: tuple[float, float] = (0.3, 0.7),
        height: tuple[float, float] = (1.0, 1.0),
        place: Literal["anywhere", "middle"] = "anywhere",
    ) -> None:
        if not 1 <= number[0] <= number[1]:
            raise ValueError(f"Expected numbers of columns >= 1 that increase but got {tuple(number)}.")
        for name, (low, high) in {"radius": radius, "height": height}.items():
            if not 0 < low <= high:
                raise ValueError(f"Expected a positive {name} from smallest to largest but got {(low, high)}.")
        if place not in ("anywhere", "middle"):
            raise ValueError(f"Expected place 'anywhere' or 'middle' but got {place!r}.")
        self.number = number
        self.radius = radius
        self.height = height
        self.place = place

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """Height above the surface, ``(count, 1, x, y)``."""
        fewest, most = self.number

        def uniform(low: float, high: float) -> Tensor:
            drawn = torch.rand(count, most, 1, 1, dtype=torch.float64, device=generator.device, generator=generator)
            return low + (high - low) * drawn

        middles = [uniform(0.0, period) for period in periods]
        if self.place == "middle":
            middles = [torch.full_like(middle, period / 2) for middle, period in zip(middles, periods, strict=True)]
        radius, height = uniform(*self.radius), uniform(*self.height)
        numbers = torch.randint(fewest, most + 1, (count, 1, 1, 1), device=generator.device, generator=generator)
        present = torch.arange(most, device=generator.device)[:, None, None] < numbers
        along_x, along_y = (
            _distances(middle[..., 0], cells, period)
            for middle, cells, period in zip(middles, shape, periods, strict=True)
        )
        spacing = min(period / cells for cells, period in zip(shape, periods, strict=True))
        filled = (radius - torch.hypot(along_x.unsqueeze(-1), along_y.unsqueeze(-2))) / spacing + 0.5
        return (height * present * filled.clamp(0, 1)).sum(1, keepdim=True)


def _distances(middle: Tensor, cells: int, period: float) -> Tensor:
    """From the nearest image of ``middle (..., 1)`` to the centers of even cells, ``(..., cells)``."""
    centers = (torch.arange(cells, dtype=middle.dtype, device=middle.device) + 0.5) * (period / cells)
    distances = centers - middle
    return distances - period * torch.round(distances / period)


class SmoothWaves:
    """A random surface of a given deviation and mean zero.

    Args:
        deviation: root mean square of each trajectory's surface, length.
        field: draws the surface, of any size; a `GaussianRandomField` of few waves if not given.

    Example:
        >>> surface = SmoothWaves(0.1).sample(2, (32, 32), (5.0, 5.0), torch.Generator().manual_seed(0))
        >>> [round(deviation, 9) for deviation in surface.std((-2, -1), correction=0).flatten().tolist()]
        [0.1, 0.1]
    """

    def __init__(self, deviation: float, field: InitialCondition | None = None) -> None:
        if not deviation > 0:
            raise ValueError(f"Expected a positive deviation but got {deviation}.")
        self.deviation = deviation
        self.field = GaussianRandomField(alpha=4.0, tau=7.0) if field is None else field

    def sample(self, count: int, shape: Sequence[int], periods: Sequence[float], generator: torch.Generator) -> Tensor:
        """Height above the mean surface, ``(count, 1, x, y)``."""
        surface = self.field.sample(count, shape, periods, generator)
        surface = surface - surface.mean((-2, -1), keepdim=True)
        return surface * (self.deviation / surface.std((-2, -1), correction=0, keepdim=True))

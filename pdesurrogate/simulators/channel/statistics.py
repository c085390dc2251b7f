"""Statistics of a channel flow, gathered while it runs: profiles, stresses and spectra with error bars, in wall units.

Means over planes and time are kept in blocks of time that are much longer than the flow's memory. Each block of each
trajectory is one sample; what follows from the means, wall units included, gets its standard error by the jackknife
over these samples. Both halves of the channel are averaged, quantities that are odd in the mid-plane with their sign.

Everything is taken where the solver has it: velocity along the walls and pressure at the heights of cells, the
wall-normal velocity on faces, and ``<u'v'>`` on faces as the very flux of momentum that the solver computes. So the
total stress of a steady flow falls linearly from wall to wall as exactly as its statistics have converged. With a
closure the stress of its eddy viscosity is gathered there too; shear stress and rms are those of the resolved flow.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdesurrogate.physics.spectral import half_spectrum_weights, squared_magnitude
from pdesurrogate.physics.staggered_channel import ChannelGrid
from pdesurrogate.physics.symmetry import fold
from pdesurrogate.simulators.channel.coarsening import ChannelSimulator, require_channel, wall_units
from pdesurrogate.simulators.channel.flow import SubgridModel
from pdesurrogate.simulators.generation.protocols import Gathering, Simulator

# Distances from the wall, in wall units, at which spectra are usually shown; the middle of the channel comes last.
PLANES = (5.0, 15.0, 30.0, 100.0)


class ChannelStatistics:
    """Asks a recipe's run of `ChannelFlow` for statistics beside its frames; they come as ``statistics.nc``.

    Args:
        every: time steps between the states that are counted; a divisor of the steps per frame.
        block: length of the blocks in time, at least two turnovers ``h / u_tau`` for honest error bars. What is left
            after the last whole block of a trajectory is not used, unless it has none.
        planes: distances from the walls in nominal wall units (`wall_units`) at which spectra are taken, in the planes
            that are nearest; that in the middle comes in addition.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, every: int, block: float, planes: Sequence[float] = PLANES) -> None:
        if every < 1 or not 0 < block < math.inf:
            raise ValueError(f"Expected every >= 1 time steps and a positive block but got {every} and {block}.")
        if not all(0 < plane < math.inf for plane in planes):
            raise ValueError(f"Expected planes at positive distances from the wall but got {tuple(planes)}.")
        self.every = every
        self.block = block
        self.planes = tuple(planes)

    def on(self, simulator: Simulator) -> Gathering:
        """Empty statistics of this solver's states.

        Raises:
            ValueError: if it is no solver of channel flow, or planes lie beyond its middle.
        """
        channel = require_channel(simulator)
        samples = max(1, round(self.block / (self.every * channel.time_step)))
        return PlaneStatistics(self._layout(channel), samples)

    def save(self, simulator: Simulator, gathered: list[dict[str, Any]], path: str) -> None:
        """Write what the ``state_dict`` of several runs of this solver hold as one labelled netCDF file."""
        channel = require_channel(simulator)
        layout = self._layout(channel)
        samples = torch.cat([whole_blocks(state) for state in gathered])
        save_statistics(layout, samples, channel.viscosity, path)

    def load(self, simulator: Simulator, path: str) -> dict[str, Any]:
        """What a file of `save` was made of, as the ``state_dict`` of one run.

        Raises:
            ValueError: if it is of another solver or other planes, or holds no samples.
        """
        import xarray

        channel = require_channel(simulator)
        with xarray.open_dataset(path, engine="netcdf4") as file:
            for name, value in _head(self._layout(channel), channel.viscosity).items():
                found = np.atleast_1d(file.attrs.get(name, ()))
                if found.shape != np.atleast_1d(value).shape or not np.allclose(found, value):
                    raise ValueError(f"Expected statistics of the same flow but {path} has other {name}, or none.")
            return {"blocks": [torch.from_numpy(file["samples"].values)], "sum": None, "count": 0}

    def _layout(self, channel: ChannelSimulator) -> Layout:
        grid = channel.channel_grid
        units = wall_units(channel, grid.centers)
        if "friction_velocity" not in units:
            raise ValueError("Expected a flow that is driven, for planes in wall units, but it is not.")
        length = channel.viscosity / units["friction_velocity"]
        subgrid = getattr(channel, "subgrid", None)
        return Layout.of(grid, [plane * length for plane in self.planes], subgrid)


@dataclass(frozen=True)
class Layout:
    """What is gathered of a state and where it stands in a row of numbers.

    Attributes:
        grid: of the solver.
        cells: numbers of the planes of cells in which spectra are taken, counted from either wall.
        faces: the same for the wall-normal velocity, of faces.
        subgrid: closure of the solver, whose stress is gathered too.
    """

    grid: ChannelGrid
    cells: tuple[int, ...]
    faces: tuple[int, ...]
    subgrid: SubgridModel | None = None

    @classmethod
    def of(cls, grid: ChannelGrid, distances: Sequence[float], subgrid: SubgridModel | None = None) -> Layout:
        """Spectra in the planes nearest to these distances from the wall, and in the middle.

        Raises:
            ValueError: if one lies beyond the middle.
        """
        if not all(0 <= distance <= grid.half_height for distance in distances):
            raise ValueError(
                f"Expected planes within the half height {grid.half_height:g} of a wall but got {list(distances)}."
            )
        ny = grid.shape[1]
        centers = (grid.centers - grid.faces[0])[: (ny + 1) // 2]
        inner = (grid.faces - grid.faces[0])[1 : ny // 2 + 1]
        wanted = [*distances, grid.half_height]
        cells = [int((centers - distance).abs().argmin()) for distance in wanted]
        faces = [int((inner - distance).abs().argmin()) + 1 for distance in wanted]
        # Of planes that are chosen twice one is kept.
        chosen = list(dict.fromkeys(zip(cells, faces, strict=True)))
        return cls(grid, tuple(cell for cell, _ in chosen), tuple(face for _, face in chosen), subgrid)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each quantity of a member of a batch, in order."""
        nx, ny, nz = self.grid.shape
        planes = len(self.cells)
        on_cells = ("u", "w", "p", "uu", "ww", "pp")
        on_faces = ("v", "vv", "uv") if self.subgrid is None else ("v", "vv", "uv", "subgrid")
        return {
            **dict.fromkeys(on_cells, (ny,)),
            **dict.fromkeys(on_faces, (ny + 1,)),
            "spectra_x": (3, planes, nx // 2 + 1),
            "spectra_z": (3, planes, nz // 2 + 1),
        }

    def row(self, state: Tensor) -> Tensor:
        """``(batch, quantities)`` in float64: means over planes of a state ``(batch, 4, x, y, z)``."""
        state = state.to(torch.float64)
        u, v, w, p = state.unbind(1)
        v = torch.cat([v, torch.zeros_like(v[:, :, :1])], 2)
        # At the edge where faces along x and y meet, as the solver carries momentum.
        padded = torch.nn.functional.pad(u, (0, 0, 1, 1))
        uv = (padded[:, :, 1:] + padded[:, :, :-1]) * (v + v.roll(1, 1)) / 4
        plain = {"u": u, "w": w, "p": p, "uu": u * u, "ww": w * w, "pp": p * p, "v": v, "vv": v * v, "uv": uv}
        if self.subgrid is not None:
            plain["subgrid"] = _subgrid_stress(u, v, self.subgrid.viscosity(state[:, :3], self.grid), self.grid)
        found = {name: values.mean((1, 3)) for name, values in plain.items()}
        planes = torch.stack([self._planes(u, self.cells), self._planes(v, self.faces), self._planes(w, self.cells)], 1)
        found["spectra_x"] = _line_spectra(planes, -2)
        found["spectra_z"] = _line_spectra(planes, -1)
        return torch.cat([found[name].flatten(1) for name in self.shapes], 1)

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Quantities ``(..., *shape)`` of rows ``(..., quantities)``."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = rows.split(sizes, -1)
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.unflatten(-1, shape) for (name, shape), part in named}

    @staticmethod
    def _planes(field: Tensor, numbers: tuple[int, ...]) -> Tensor:
        """``(batch, plane, wall, x, z)`` of a field ``(batch, x, n, z)``; the same planes counted from both walls."""
        count = field.shape[2]
        places = torch.tensor([[number, count - 1 - number] for number in numbers], device=field.device)
        return field.movedim(2, 1)[:, places]


class PlaneStatistics:
    """Sums of one batch of trajectories, in blocks of time.

    Args:
        layout: what is gathered.
        samples_per_block: states in a block.

    Example:
        >>> grid = ChannelGrid((4.0, 2.0), (8, 4), torch.linspace(0, 2, 7))
        >>> statistics = PlaneStatistics(Layout.of(grid, [0.2]), samples_per_block=2)
        >>> for _ in range(5):
        ...     statistics.update(torch.rand(3, 4, 8, 6, 4, dtype=torch.float64))
        >>> whole_blocks(statistics.state_dict()).shape[0]  # two of each member; the fifth state is in none
        6
    """

    def __init__(self, layout: Layout, samples_per_block: int) -> None:
        self.layout = layout
        self.samples_per_block = samples_per_block
        self._blocks: list[Tensor] = []
        self._sum: Tensor | None = None
        self._count = 0

    def update(self, state: Tensor) -> None:
        """Count a state ``(batch, 4, x, y, z)``."""
        row = self.layout.row(state)
        self._sum = row if self._sum is None else self._sum.to(row.device) + row
        self._count += 1
        if self._count == self.samples_per_block:
            self._blocks.append((self._sum / self._count).cpu())
            self._sum, self._count = None, 0

    def state_dict(self) -> dict[str, Any]:
        """Means of whole blocks ``(batch, quantities)``, and the sum and number of states of the one under way."""
        begun = None if self._sum is None else self._sum.cpu()
        return {"blocks": list(self._blocks), "sum": begun, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self._blocks, self._sum, self._count = list(state["blocks"]), state["sum"], state["count"]


def whole_blocks(state: Mapping[str, Any]) -> Tensor:
    """Samples ``(blocks, quantities)`` of a ``state_dict`` of `PlaneStatistics`; a begun block only if it is all."""
    if state["blocks"]:
        return torch.cat(state["blocks"])
    if state["sum"] is None:
        raise ValueError("Expected statistics of at least one state but none was counted.")
    return state["sum"] / state["count"]


def evaluate(layout: Layout, rows: Tensor, viscosity: float) -> dict[str, Tensor]:
    """Statistics in wall units of averaged rows ``(..., quantities)``; profiles run from the wall to the middle.

    Returns:
        By name: scalars ``(...)``; profiles at the heights of cells ``(..., m)`` and of faces ``(..., f)``; spectra
        ``(..., component, plane, mode)``, energy of each mode with both signs folded in, whose sum is the variance.
    """
    grid = layout.grid
    mean = layout.split(rows)
    u, v = mean["u"], mean["v"]
    distances, half_height = grid.distances.to(rows), grid.half_height
    slopes = torch.nn.functional.pad(u, (1, 1)).diff(dim=-1) / distances
    stress_on_wall = viscosity * (slopes[..., 0] - slopes[..., -1]) / 2
    tau = stress_on_wall.clamp(min=0)
    friction = tau.sqrt()
    between = torch.nn.functional.pad(u, (1, 1)).unfold(-1, 2, 1).mean(-1)
    shear = between * v - mean["uv"]
    folded = {name: fold(mean[name]) for name in ("u", "w", "p", "uu", "ww", "pp", "vv")}
    folded["v"] = fold(v, -1)
    variance = {name: folded[2 * name] - folded[name].square() for name in ("u", "v", "w", "p")}
    weights = grid.heights.to(rows) / (2 * half_height)
    wall_fluctuation = (variance["u"][..., 0].clamp(min=0)).sqrt() * viscosity / distances[0]
    line, square = friction[..., None], tau[..., None]
    at_planes = torch.stack(
        [folded["u"][..., layout.cells], folded["v"][..., layout.faces], folded["w"][..., layout.cells]], -2
    )
    spectra = {}
    for axis in ("x", "z"):
        raw = mean[f"spectra_{axis}"].clone()
        # Spectra are those of the fluctuation about the mean over time and both halves.
        raw[..., 0] -= at_planes.square()
        spectra[f"spectrum_{axis}"] = raw / square[..., None, None]
    bulk = u @ weights
    total = shear + viscosity * slopes
    modeled = {}
    if "subgrid" in mean:
        total = total + mean["subgrid"]
        modeled["subgrid_stress_plus"] = fold(mean["subgrid"], -1) / square
    return {
        "friction_velocity": friction,
        "friction_reynolds_number": friction * half_height / viscosity,
        "bulk_velocity": bulk,
        "friction_coefficient": 2 * stress_on_wall / bulk.square(),
        "centerline_velocity_plus": folded["u"][..., -1] / friction,
        "wall_stress_intensity": wall_fluctuation / stress_on_wall,
        "mean_velocity_plus": folded["u"] / line,
        "rms_velocity_x_plus": variance["u"].clamp(min=0).sqrt() / line,
        "rms_velocity_z_plus": variance["w"].clamp(min=0).sqrt() / line,
        "rms_pressure_plus": variance["p"].clamp(min=0).sqrt() / square,
        "rms_velocity_y_plus": variance["v"].clamp(min=0).sqrt() / line,
        "shear_stress_plus": fold(shear, -1) / square,
        "total_stress_plus": fold(total, -1) / square,
        **modeled,
        **spectra,
    }


def jackknife(layout: Layout, samples: Tensor, viscosity: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Value and standard error of each statistic from independent ``samples (n, quantities)``; NaN errors of one."""
    count = len(samples)
    values = evaluate(layout, samples.mean(0), viscosity)
    if count < 2:
        return {name: (value, torch.full_like(value, torch.nan)) for name, value in values.items()}
    others = (samples.sum(0) - samples) / (count - 1)
    left_out = evaluate(layout, others, viscosity)
    return {
        name: (value, ((left_out[name] - left_out[name].mean(0)).square().sum(0) * (count - 1) / count).sqrt())
        for name, value in values.items()
    }


def save_statistics(layout: Layout, samples: Tensor, viscosity: float, path: str) -> None:
    """Write statistics and errors of ``samples (n, quantities)`` with their labels; the file appears whole.

    Raises:
        OSError: if it cannot be written.
    """
    import xarray

    found = jackknife(layout, samples, viscosity)
    length = viscosity / float(found["friction_velocity"][0])
    half = (layout.grid.shape[1] + 1) // 2
    centers = (layout.grid.centers - layout.grid.faces[0])[:half]
    faces = (layout.grid.faces - layout.grid.faces[0])[: layout.grid.shape[1] // 2 + 1]
    variables: dict[str, Any] = {}
    for name, (value, error) in found.items():
        dims = _DIMENSIONS.get(name, ("wall_distance",) if value.ndim else ())
        units, long_name = _LABELS[name]
        variables[name] = (dims, value.numpy(), {"units": units, "long_name": long_name})
        variables[f"{name}_error"] = (
            dims,
            error.numpy(),
            {"units": units, "long_name": f"standard error: {long_name}"},
        )
    for name, places in (("wall_distance", centers), ("wall_distance_face", faces)):
        attributes = {"units": "viscous length", "long_name": "distance from the wall in wall units"}
        variables[f"{name}_plus"] = ((name,), (places / length).numpy(), attributes)
    nx, _, nz = layout.grid.shape
    distance = {"units": "length", "long_name": "distance from the wall"}
    wavenumbers = {"units": "1/length", "long_name": "angular wavenumber"}
    coordinates = {
        "wall_distance": ("wall_distance", centers.numpy(), distance),
        "wall_distance_face": ("wall_distance_face", faces.numpy(), distance),
        "component": ("component", ["x", "y", "z"]),
        "plane_distance": ("plane", centers[list(layout.cells)].numpy(), distance),
        "plane_distance_face": ("plane", faces[list(layout.faces)].numpy(), distance),
        "wavenumber_x": ("wavenumber_x", _wavenumbers(nx, layout.grid.lengths[0]), wavenumbers),
        "wavenumber_z": ("wavenumber_z", _wavenumbers(nz, layout.grid.lengths[1]), wavenumbers),
    }
    means = {"units": "powers of length/time", "long_name": "means over planes and time that the rest follows from"}
    variables["samples"] = (("block", "quantity"), samples.numpy(), means)
    head: dict[str, Any] = {
        "title": "statistics of a plane channel flow",
        "blocks": len(samples),
        **_head(layout, viscosity),
        "errors": "standard errors by the jackknife over blocks of time of all trajectories",
    }
    part = f"{path}.part"
    try:
        xarray.Dataset(variables, coordinates, head).to_netcdf(part, engine="netcdf4", format="NETCDF4")
    except RuntimeError as error:  # of the HDF5 library, on a full disk for example
        raise OSError(f"cannot write {part}: {error}") from error
    os.replace(part, path)


def _head(layout: Layout, viscosity: float) -> dict[str, Any]:
    """Plain values that samples must agree in to be brought together."""
    return {
        "viscosity": viscosity,
        "half_height": layout.grid.half_height,
        "lengths": list(layout.grid.lengths),
        "cells": list(layout.grid.shape),
        "faces": layout.grid.faces.tolist(),
        "plane_cells": list(layout.cells),
        "plane_faces": list(layout.faces),
        "quantities": sum(math.prod(shape) for shape in layout.shapes.values()),
    }


_FACES = ("wall_distance_face",)
_DIMENSIONS = {
    "rms_velocity_y_plus": _FACES,
    "shear_stress_plus": _FACES,
    "subgrid_stress_plus": _FACES,
    "total_stress_plus": _FACES,
    "spectrum_x": ("component", "plane", "wavenumber_x"),
    "spectrum_z": ("component", "plane", "wavenumber_z"),
}
_LABELS = {
    "friction_velocity": ("length/time", "friction velocity u_tau, from the mean stress on both walls"),
    "friction_reynolds_number": ("1", "u_tau h / viscosity"),
    "bulk_velocity": ("length/time", "mean velocity over the channel"),
    "friction_coefficient": ("1", "2 u_tau^2 / U_b^2"),
    "centerline_velocity_plus": ("u_tau", "mean velocity in the middle"),
    "wall_stress_intensity": ("1", "deviation of the stress on the wall along x over its mean"),
    "mean_velocity_plus": ("u_tau", "mean velocity along x"),
    "rms_velocity_x_plus": ("u_tau", "deviation of the velocity along x"),
    "rms_velocity_y_plus": ("u_tau", "deviation of the velocity along y"),
    "rms_velocity_z_plus": ("u_tau", "deviation of the velocity along z"),
    "rms_pressure_plus": ("u_tau^2", "deviation of the pressure over density"),
    "shear_stress_plus": ("u_tau^2", "Reynolds shear stress -<u'v'>"),
    "subgrid_stress_plus": ("u_tau^2", "shear stress of the closure"),
    "total_stress_plus": ("u_tau^2", "all shear stress: viscous, Reynolds, and of the closure if there is one"),
    "spectrum_x": ("u_tau^2", "energy of each mode along x, both signs, of the velocity's fluctuation"),
    "spectrum_z": ("u_tau^2", "energy of each mode along z, both signs, of the velocity's fluctuation"),
}


def _wavenumbers(points: int, length: float) -> Any:
    return (torch.arange(points // 2 + 1, dtype=torch.float64) * (2 * math.pi / length)).numpy()


def _line_spectra(planes: Tensor, axis: int) -> Tensor:
    """``(batch, component, plane, mode)`` of ``(batch, component, plane, wall, x, z)``: means over the rest."""
    energy = squared_magnitude(torch.fft.rfft(planes, dim=axis, norm="forward"))
    energy = energy.mean((-3, -1 if axis == -2 else -2))
    return energy * half_spectrum_weights((planes.shape[axis],), device=planes.device)


def _subgrid_stress(u: Tensor, v: Tensor, viscosity: Tensor, grid: ChannelGrid) -> Tensor:
    """``(batch, x, ny + 1, z)`` on the edges of ``uv``: the flux that the solver computes; none through walls.

    Of ``u`` and ``viscosity (batch, x, ny, z)``, and of ``v`` with both walls.
    """
    over_y = viscosity[:, :, 1:] + viscosity[:, :, :-1]
    shear = u.diff(dim=2) / grid.distances[1:-1, None].to(u) + (v - v.roll(1, 1))[:, :, 1:-1] / grid.spacing_x
    return torch.nn.functional.pad((over_y + over_y.roll(1, 1)) / 4 * shear, (0, 0, 1, 1))

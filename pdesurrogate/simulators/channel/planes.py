"""How the channel solver stores its fields, and their momentum fluxes on the staggered grid.

A field is ``(ny, batch, nx + 2, nz + 2)``: planes of equal height, each with one more cell around it that repeats the
periodic side across. Seen flat, ``(ny, columns)``, a neighbor along x or z is a shift of the columns and one along y a
shift of the rows: every sum and difference runs along long contiguous lines, and a matrix along y is a plain product.
The *core* of the columns is all that lies between the first and the last cell of the domain; what a core array holds at
the repeated cells in between has no meaning.

Velocity is kept as ``tangential (ny, 2, columns)``, the components along x and z, and ``normal (ny + 1, columns)``,
the one along y, with zeros on both walls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdesurrogate.physics.staggered_channel import ChannelGrid


class Planes:
    """Columns of the planes of a grid: where cells and their neighbors are.

    Args:
        grid: of the channel.
    """

    def __init__(self, grid: ChannelGrid) -> None:
        nx, _, nz = grid.shape
        self.extent = (nx + 2, nz + 2)
        self.along_x = nz + 2
        self.margin = self.along_x + 1

    def from_fields(self, fields: Tensor) -> Tensor:
        """``(ny, n, columns)`` of ``fields (batch, n, nx, ny, nz)``."""
        batch, count, nx, ny, nz = fields.shape
        planes = fields.new_empty(ny, count, batch, nx + 2, nz + 2)
        planes[..., 1:-1, 1:-1] = fields.permute(3, 1, 0, 2, 4)
        return wrap(planes).flatten(2)

    def to_fields(self, planes: Tensor) -> Tensor:
        """Inverse of `from_fields`; a view."""
        cells = planes.unflatten(-1, (-1, *self.extent))[..., 1:-1, 1:-1]
        return cells.permute(2, 1, 3, 0, 4)

    def wrap(self, planes: Tensor) -> Tensor:
        """``planes (..., columns)`` with the repeated cells set anew, in place."""
        wrap(planes.unflatten(-1, (-1, *self.extent)))
        return planes

    def wrap_above(self, tangential: Tensor) -> None:
        """What `divergence` needs of `wrap`: u after the last cell along x, w after the last one along z."""
        cells = tangential.unflatten(-1, (-1, *self.extent))
        cells[:, 0, :, -1] = cells[:, 0, :, 1]
        cells[:, 1, :, :, -1] = cells[:, 1, :, :, 1]

    def pad(self, cells: Tensor) -> Tensor:
        """``(ny, columns)`` of ``cells (ny, batch, nx, nz)``."""
        planes = cells.new_empty(*cells.shape[:2], *self.extent)
        planes[..., 1:-1, 1:-1] = cells
        return wrap(planes).flatten(1)

    def core(self, planes: Tensor, shift: int = 0, more: int = 0) -> Tensor:
        """Core columns of full ones ``(..., columns)``, seen ``shift`` columns ahead, and ``more`` after the last."""
        size = planes.shape[-1] - 2 * self.margin
        return planes.narrow(-1, self.margin + shift, size + more)

    def cells(self, core: Tensor) -> Tensor:
        """``(rows, batch, nx, nz)`` of core columns ``(rows, core)``; a view."""
        high, wide = self.extent
        batch = (core.shape[-1] + 2 * self.margin) // (high * wide)
        strides = (core.stride(0), high * wide, wide, 1)
        return core.as_strided((core.shape[0], batch, high - 2, wide - 2), strides)


def wrap(planes: Tensor) -> Tensor:
    """``(..., nx + 2, nz + 2)`` with the repeated cells set anew, in place."""
    planes[..., 0] = planes[..., -2]
    planes[..., -1] = planes[..., 1]
    planes[..., 0, :] = planes[..., -2, :]
    planes[..., -1, :] = planes[..., 1, :]
    return planes


class MomentumFluxes(nn.Module):
    """Rates of change of the velocity by the explicit terms: advection, and diffusion along x and z.

    Advection in divergence form. The advected velocity is carried to a face by the plain mean of its neighbors; the
    advecting one is the mean flow rate through the face of the control volume, weighted with the heights of the cells
    where they differ. Both together keep the kinetic energy but for the error in time (Morinishi et al., J. Comput.
    Phys. 143 (1998) 90; Verstappen & Veldman, J. Comput. Phys. 187 (2003) 343).

    Args:
        grid: of the channel.
        viscosity: kinematic.
        dtype: of the computation.
    """

    share_above: Tensor
    quarter_height: Tensor
    quarter_distance: Tensor
    height: Tensor
    distance: Tensor

    def __init__(self, grid: ChannelGrid, viscosity: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.planes = Planes(grid)
        self.viscosity = viscosity
        self.spacing_x, self.spacing_z = grid.spacing_x, grid.spacing_z
        heights, distances = grid.heights.unsqueeze(-1), grid.distances[1:-1].unsqueeze(-1)
        tables = {
            "share_above": heights[1:] / (heights[1:] + heights[:-1]),
            "quarter_height": 0.25 / heights,
            "quarter_distance": 0.25 / distances,
            "height": heights,
            "distance": distances,
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(dtype), persistent=False)

    def forward(self, tangential: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Rates ``(ny, 2, core)`` and, on inner faces, ``(ny - 1, core)``."""
        core, along_x = self.planes.core, self.planes.along_x
        u, w, v = tangential[:, 0], tangential[:, 1], normal[1:-1]
        size = u.shape[-1] - 2 * self.planes.margin
        by_x, by_z = 0.25 / self.spacing_x, 0.25 / self.spacing_z
        rates, rates_normal = self._diffusion(tangential), self._diffusion(v)

        # Sums stand for means: products of two sums carry a factor of four, those with one a factor of two. What the
        # x-component adds up from a cell and the next one, the z-component does from the last one and the cell.
        over_x = core(tangential, -along_x, along_x) + core(tangential, 0, along_x)
        over_z = core(tangential, -1, along_x) + core(tangential, 0, along_x)
        uw = over_z[:, 0] * over_x[:, 1]
        uu, ww = over_x[:, 0].square(), over_z[:, 1].square()
        rates[:, 0].add_(uu[:, :size] - uu[:, along_x:], alpha=by_x)
        rates[:, 0].add_(uw[:, :size] - uw[:, 1 : size + 1], alpha=by_z)
        rates[:, 1].add_(uw[:, :size] - uw[:, along_x:], alpha=by_x)
        rates[:, 1].add_(ww[:, :size] - ww[:, 1 : size + 1], alpha=by_z)

        v_over_x = core(v, -along_x, along_x) + core(v, 0, along_x)
        v_over_z = core(v, -1, 1) + core(v, 0, 1)
        through = core(tangential[:-1]) + core(tangential[1:])
        through[:, 0].mul_(v_over_x[:, :size])
        through[:, 1].mul_(v_over_z[:, :size])
        by_height = self.quarter_height.unsqueeze(-1)
        rates[:-1].addcmul_(through, by_height[:-1], value=-1)
        rates[1:].addcmul_(through, by_height[1:])

        vu = torch.lerp(core(u[:-1], 0, along_x), core(u[1:], 0, along_x), self.share_above).mul_(v_over_x)
        rates_normal.add_(vu[:, :size] - vu[:, along_x:], alpha=2 * by_x)
        vw = torch.lerp(core(w[:-1], 0, 1), core(w[1:], 0, 1), self.share_above).mul_(v_over_z)
        rates_normal.add_(vw[:, :size] - vw[:, 1:], alpha=2 * by_z)
        vv = (core(normal[:-1]) + core(normal[1:])).square_()
        rates_normal.addcmul_(vv[:-1] - vv[1:], self.quarter_distance)
        return rates, rates_normal

    def _diffusion(self, planes: Tensor) -> Tensor:
        core = self.planes.core
        by_x, by_z = self.viscosity / self.spacing_x**2, self.viscosity / self.spacing_z**2
        rates = core(planes) * (-2 * (by_x + by_z))
        rates.add_(core(planes, self.planes.along_x) + core(planes, -self.planes.along_x), alpha=by_x)
        rates.add_(core(planes, 1) + core(planes, -1), alpha=by_z)
        return rates

    def subgrid(self, tangential: Tensor, normal: Tensor, viscosity: Tensor) -> tuple[Tensor, Tensor]:
        """Rates, shaped as those of `forward`, by the stress ``2 viscosity S`` of ``viscosity (ny, columns)``.

        On edges the viscosity is the mean of the four cells around; on the walls it is zero.
        """
        core, along_x = self.planes.core, self.planes.along_x
        dx, dz = self.spacing_x, self.spacing_z
        u, w, v = tangential[:, 0], tangential[:, 1], normal[1:-1]
        size = u.shape[-1] - 2 * self.planes.margin
        above = core(viscosity[1:], -along_x, 2 * along_x) + core(viscosity[:-1], -along_x, 2 * along_x)
        # Twice the strain on the edges; a list of edges along x has along_x + size columns.
        xx = (core(u, 0, along_x) - core(u, -along_x, along_x)) * core(viscosity, -along_x, along_x) * (2 / dx)
        zz = (core(w, 0, 1) - core(w, -1, 1)) * core(viscosity, -1, 1) * (2 / dz)
        yy = (core(normal[1:]) - core(normal[:-1])) * core(viscosity) * (2 / self.height)
        xz = (core(u, 0, along_x) - core(u, -1, along_x)) / dz
        xz = xz + (core(w, 0, along_x) - core(w, -along_x, along_x)) / dx
        around = core(viscosity, 0, along_x) + core(viscosity, -along_x, along_x)
        xz = xz * (around + core(viscosity, -1, along_x) + core(viscosity, -along_x - 1, along_x)) / 4
        xy = (core(u[1:], 0, along_x) - core(u[:-1], 0, along_x)) / self.distance
        xy = xy + (core(v, 0, along_x) - core(v, -along_x, along_x)) / dx
        xy = xy * (above[:, along_x:] + above[:, : size + along_x]) / 4
        zy = (core(w[1:], 0, 1) - core(w[:-1], 0, 1)) / self.distance
        zy = zy + (core(v, 0, 1) - core(v, -1, 1)) / dz
        zy = zy * (above[:, along_x : along_x + size + 1] + above[:, along_x - 1 : along_x + size]) / 4

        through = nn.functional.pad(torch.stack([xy[:, :size], zy[:, :size]], 1), (0, 0, 0, 0, 1, 1))
        rates = through.diff(dim=0) / self.height.unsqueeze(-1)
        rates[:, 0] += (xx[:, along_x:] - xx[:, :size]) / dx + (xz[:, 1 : size + 1] - xz[:, :size]) / dz
        rates[:, 1] += (xz[:, along_x:] - xz[:, :size]) / dx + (zz[:, 1:] - zz[:, :size]) / dz
        rates_normal = yy.diff(dim=0) / self.distance
        rates_normal += (xy[:, along_x:] - xy[:, :size]) / dx + (zy[:, 1:] - zy[:, :size]) / dz
        return rates, rates_normal

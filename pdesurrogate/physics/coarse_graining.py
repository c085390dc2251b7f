"""From a fine staggered channel to a coarse one that keeps continuity, and to points that all components share.

A coarse cell is a box of whole fine cells. Its face velocities are the means of the fine ones over each of its faces,
so what flows through them is the sum of the fine fluxes and the divergence of a coarse cell is the mean of that of its
fine cells: zero if theirs is, to round-off, on stretched heights too. Each component is thereby filtered over the two
directions of its face and sampled along the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from pdesurrogate.physics.staggered_channel import ChannelGrid, kept_by_device


@dataclass(frozen=True, eq=False)
class Coarsening:
    """Which cells of a fine channel make up each cell of a coarse one.

    Attributes:
        fine: the grid that fields come on.
        factors: fine cells in a coarse one along x and z.
        kept_faces: numbers of the fine faces across the channel that are coarse ones too; increasing, both walls among
            them.

    Raises:
        ValueError: if the factors do not divide the cells, or the faces do not increase from wall to wall.

    Example:
        >>> faces = torch.linspace(0, 2, 9, dtype=torch.float64)
        >>> fine = ChannelGrid(lengths=(2.0, 1.0), points=(12, 8), faces=faces)
        >>> coarse = Coarsening(fine, factors=(3, 2), kept_faces=(0, 1, 4, 7, 8)).grid
        >>> coarse.shape, coarse.faces.tolist()
        ((4, 4, 4), [0.0, 0.25, 1.0, 1.75, 2.0])
    """

    fine: ChannelGrid
    factors: tuple[int, int]
    kept_faces: tuple[int, ...]

    def __post_init__(self) -> None:
        fine, kept = self.fine, self.kept_faces
        if min(self.factors) < 1 or any(size % each for size, each in zip(fine.points, self.factors, strict=True)):
            raise ValueError(
                f"Expected whole factors of the {fine.points} cells along x and z but got {self.factors}; choose "
                "divisors."
            )
        last = fine.faces.numel() - 1
        increasing = all(one < other for one, other in pairwise(kept))
        if len(kept) < 3 or kept[0] != 0 or kept[-1] != last or not increasing:
            raise ValueError(
                f"Expected at least three increasing numbers of faces, from 0 to {last} at the walls, but got {kept}."
            )

    @classmethod
    def onto(cls, fine: ChannelGrid, shape: Sequence[int], kept_faces: Sequence[int] | None = None) -> Coarsening:
        """The coarsening onto a number of cells along x, y and z.

        Args:
            fine: the grid that fields come on.
            shape: cells of the coarse grid; each divides those of the fine one, but for y where faces are given.
            kept_faces: fine faces that are coarse ones too; by default every so many.

        Raises:
            ValueError: if the cells do not divide, or the faces are not as many as the cells along y and one.
        """
        shape = tuple(shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"Expected positive numbers of cells along x, y and z but got {shape}.")
        divided = [fine_cells % cells == 0 for fine_cells, cells in zip(fine.shape, shape, strict=True)]
        if not (divided[0] and divided[2] and (divided[1] or kept_faces is not None)):
            raise ValueError(
                f"Expected coarse cells that divide the fine {fine.shape} but got {shape}; choose divisors, or name "
                "the faces to keep across the channel."
            )
        x, y, z = (fine_cells // cells for fine_cells, cells in zip(fine.shape, shape, strict=True))
        kept = tuple(range(0, fine.shape[1] + 1, y) if kept_faces is None else kept_faces)
        if len(kept) != shape[1] + 1:
            raise ValueError(f"Expected {shape[1] + 1} faces to keep for {shape[1]} cells but got {len(kept)}.")
        return cls(fine, (x, z), kept)

    @cached_property
    def grid(self) -> ChannelGrid:
        """The coarse grid."""
        x, z = (size // factor for size, factor in zip(self.fine.points, self.factors, strict=True))
        return ChannelGrid(self.fine.lengths, (x, z), self.fine.faces[list(self.kept_faces)])

    @cached_property
    def heights(self) -> Tensor:
        """``(coarse cells, fine cells)``: share of each coarse cell's height that a fine one takes up."""
        lower, upper = (self.grid.faces[part, None] for part in (slice(None, -1), slice(1, None)))
        inside = (self.fine.centers > lower) & (self.fine.centers < upper)
        return torch.where(inside, self.fine.heights / (upper - lower), 0.0)

    def velocity(self, velocity: Tensor) -> Tensor:
        """Mean over each coarse face of a staggered velocity ``(..., 3, nx, ny, nz)``; ``(..., 3, *coarse)``.

        Fluxes through coarse faces are sums of the fine ones, so continuity is kept; see the module.

        Raises:
            ValueError: if the velocity does not fit the fine grid.
        """
        self.fine.require_velocity(velocity)
        u, v, w = velocity.unbind(-4)
        x, z = self.factors
        v = v.index_select(-2, kept_faces(self, v)[:-1])
        return torch.stack(
            [
                self._mean_over_heights(_block_mean(u[..., ::x, :, :], -1, z)),
                _block_mean(_block_mean(v, -3, x), -1, z),
                self._mean_over_heights(_block_mean(w[..., ::z], -3, x)),
            ],
            -4,
        )

    def cells(self, values: Tensor) -> Tensor:
        """Mean over the volume of each coarse cell of ``values (..., nx, ny, nz)``, a pressure for example.

        Raises:
            ValueError: if the values do not fit the fine grid.
        """
        self.fine.require_shape(values, "values (..., nx, ny, nz)")
        return self._mean_over_heights(self.planes(values))

    def planes(self, values: Tensor) -> Tensor:
        """Mean over the coarse cells' extent along x and z of ``values (..., nx, n, nz)``; heights stay."""
        x, z = self.factors
        return _block_mean(_block_mean(values, -3, x), -1, z)

    def _mean_over_heights(self, values: Tensor) -> Tensor:
        return _shares_of_heights(self, values) @ values


@kept_by_device
def kept_faces(coarsening: Coarsening) -> Tensor:
    """Numbers of the fine faces across the channel that are coarse ones too, where ``like`` is."""
    return torch.tensor(coarsening.kept_faces)


def collocated(velocity: Tensor, grid: ChannelGrid) -> Tensor:
    """Components of a staggered velocity at the same points: mid-cell along x and z, on faces along y, walls included.

    The mean of both neighbors along x and z, the line between them along y: second order on stretched heights. The
    velocity on the walls is exactly zero. Means of neighbors damp short waves; collocate a fine field before its planes
    are coarsened, not after.

    Args:
        velocity: ``(..., 3, nx, ny, nz)`` on faces.
        grid: of its cells.

    Returns:
        ``(..., 3, nx, ny + 1, nz)`` at `collocated_coordinates`.

    Raises:
        ValueError: if the velocity does not fit the grid.

    Example:
        >>> grid = ChannelGrid(lengths=(2.0, 1.0), points=(4, 4), faces=torch.linspace(0, 2, 5, dtype=torch.float64))
        >>> velocity = torch.zeros(3, *grid.shape, dtype=torch.float64)
        >>> velocity[0] = grid.centers[:, None]
        >>> collocated(velocity, grid)[0, 0, :, 0].tolist()
        [0.0, 0.5, 1.0, 1.5, 0.0]
    """
    grid.require_velocity(velocity)
    u, v, w = velocity.unbind(-4)
    wall = torch.zeros_like(v[..., :1, :])
    # What is stored on the lower wall is zero for a solver, but a surrogate may have left something there.
    v = torch.cat([wall, v[..., 1:, :], wall], -2)
    along = (_upward_mean(u, -3), _upward_mean(w, -1))
    u, w = (torch.cat([wall, _on_inner_faces(each, grid), wall], -2) for each in along)
    return torch.stack([u, v, w], -4)


def collocated_cells(values: Tensor, grid: ChannelGrid) -> Tensor:
    """Values of cells ``(..., nx, ny, nz)`` at the points of `collocated`; ``(..., nx, ny + 1, nz)``.

    Of second order; on the walls the line through the two nearest centers is followed.

    Raises:
        ValueError: if the values do not fit the grid.
    """
    grid.require_shape(values, "values (..., nx, ny, nz)")
    inner = _on_inner_faces(values, grid)
    centers, faces = grid.centers, grid.faces
    low = float((faces[0] - centers[0]) / (centers[1] - centers[0]))
    high = float((faces[-1] - centers[-2]) / (centers[-1] - centers[-2]))
    first = torch.lerp(values[..., :1, :], values[..., 1:2, :], low)
    last = torch.lerp(values[..., -2:-1, :], values[..., -1:, :], high)
    return torch.cat([first, inner, last], -2)


def collocated_coordinates(grid: ChannelGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Points of `collocated` along x, y and z in float64."""
    x, _, z = grid.coordinates
    return x, grid.faces, z


def _block_mean(values: Tensor, axis: int, size: int) -> Tensor:
    """Mean over groups of ``size`` neighbors along an axis that is counted from the end."""
    return values if size == 1 else values.unflatten(axis, (-1, size)).mean(axis)


def _upward_mean(values: Tensor, axis: int) -> Tensor:
    """Mid-cell values along a periodic axis from those on the faces below."""
    return (values + values.roll(-1, axis)) / 2


def _on_inner_faces(values: Tensor, grid: ChannelGrid) -> Tensor:
    return torch.lerp(values[..., :-1, :], values[..., 1:, :], _places_of_faces(grid, values).unsqueeze(-1))


@kept_by_device
def _shares_of_heights(coarsening: Coarsening) -> Tensor:
    return coarsening.heights


@kept_by_device
def _places_of_faces(grid: ChannelGrid) -> Tensor:
    """Of inner faces, on the way from the center below, 0, to that above, 1."""
    return (grid.faces[1:-1] - grid.centers[:-1]) / grid.centers.diff()

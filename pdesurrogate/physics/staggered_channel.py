"""Plane channel on a staggered grid: geometry, divergence, pressure gradient and the Poisson equation.

The axes are x (along the flow), y (from wall to wall) and z. The grid is periodic and uniform along x and z and may be
stretched along y. Velocity components live on the faces that they cross, pressure in cells. As everywhere in this
package, value ``i`` of a component lies on the face *below* cell ``i``: ``velocity[..., 1, :, 0, :]`` is the velocity
through the wall at the low end, which is zero, and that through the other wall is zero and not stored.

The discrete operators fit each other: `divergence` of `pressure_gradient` is what `ChannelPoisson` inverts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# Two faces nearer to each other than this, in heights of the channel, are one: the matrices along y would be singular.
SMALLEST_HEIGHT = 1e-9

_Owner = TypeVar("_Owner")


def kept_by_device(make: Callable[[_Owner], Tensor]) -> Callable[[_Owner, Tensor], Tensor]:
    """Let a table of a grid be made once for each device and precision: ``table(grid, like)``.

    Without it every call of an operator would wait for a copy to the device. Tables live as long as their grid; those
    of whole numbers keep their type, others have that of ``like``.
    """
    kept: WeakKeyDictionary[_Owner, dict[tuple[torch.device, torch.dtype], Tensor]] = WeakKeyDictionary()

    @functools.wraps(make)
    def table(owner: _Owner, like: Tensor) -> Tensor:
        tables, key = kept.setdefault(owner, {}), (like.device, like.dtype)
        if key not in tables:
            # Made in a way that training can use it after inference mode did.
            with torch.inference_mode(False), torch.no_grad():
                values = make(owner)
                tables[key] = values.to(like.device, like.dtype if values.is_floating_point() else None, copy=True)
        return tables[key]

    return table


@dataclass(frozen=True, eq=False)
class ChannelGrid:
    """Cells of a plane channel between walls at ``faces[0]`` and ``faces[-1]``.

    Attributes:
        lengths: periods along x and z.
        points: cells along x and z.
        faces: ``(ny + 1,)`` places of the faces along y, wall to wall; kept in float64 on the CPU.

    Raises:
        ValueError: for lengths or points that are not positive and faces that do not increase.

    Example:
        >>> grid = ChannelGrid((4.0, 2.0), (8, 4), torch.tensor([0.0, 0.25, 1.0, 2.0]))
        >>> grid.shape, grid.spacing_x, grid.half_height
        ((8, 3, 4), 0.5, 1.0)
        >>> grid.centers.tolist()
        [0.125, 0.625, 1.5]
        >>> grid.distances.tolist()  # from wall to center at the ends
        [0.125, 0.5, 0.875, 0.5]
    """

    lengths: tuple[float, float]
    points: tuple[int, int]
    faces: Tensor

    def __post_init__(self) -> None:
        faces = torch.as_tensor(self.faces, dtype=torch.float64, device="cpu").detach()
        if len(self.lengths) != 2 or not all(0 < length < math.inf for length in self.lengths):
            raise ValueError(f"Expected two positive lengths, along x and z, but got {self.lengths}.")
        if len(self.points) != 2 or min(self.points) < 1:
            raise ValueError(f"Expected two positive numbers of cells, along x and z, but got {self.points}.")
        if faces.ndim != 1 or len(faces) < 3:
            raise ValueError(f"Expected faces (ny + 1,) of at least two cells but got shape {tuple(faces.shape)}.")
        if not bool((faces.diff() > SMALLEST_HEIGHT * (faces[-1] - faces[0]).abs()).all()):
            raise ValueError(
                f"Expected faces that increase from wall to wall but got {faces.tolist()}; sort them and leave out "
                "those that stand twice."
            )
        object.__setattr__(self, "faces", faces)
        object.__setattr__(self, "lengths", tuple(float(length) for length in self.lengths))
        object.__setattr__(self, "points", tuple(int(count) for count in self.points))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along x, y and z."""
        return self.points[0], len(self.faces) - 1, self.points[1]

    @property
    def spacing_x(self) -> float:
        """Length of a cell along x."""
        return self.lengths[0] / self.points[0]

    @property
    def spacing_z(self) -> float:
        """Length of a cell along z."""
        return self.lengths[1] / self.points[1]

    @property
    def half_height(self) -> float:
        """Half the distance between the walls."""
        return float(self.faces[-1] - self.faces[0]) / 2

    @property
    def centers(self) -> Tensor:
        """``(ny,)`` centers of the cells along y, midway between faces."""
        return (self.faces[1:] + self.faces[:-1]) / 2

    @property
    def heights(self) -> Tensor:
        """``(ny,)`` heights of the cells."""
        return self.faces.diff()

    @property
    def distances(self) -> Tensor:
        """``(ny + 1,)`` distances of the centers on both sides of each face; at a wall, from it to the center."""
        return torch.cat([self.faces[:1], self.centers, self.faces[-1:]]).diff()

    @property
    def coordinates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Centers of the cells along x, y and z, in float64."""
        nx, _, nz = self.shape
        x = (torch.arange(nx, dtype=torch.float64) + 0.5) * self.spacing_x
        z = (torch.arange(nz, dtype=torch.float64) + 0.5) * self.spacing_z
        return x, self.centers, z

    def require_shape(self, field: Tensor, what: str) -> None:
        """Refuse a field whose last three axes are not those of this grid.

        Raises:
            ValueError: naming the field.
        """
        if field.shape[-3:] != self.shape:
            raise ValueError(
                f"Expected {what} on {self.shape} cells along x, y and z but got {tuple(field.shape)}; the wall-normal "
                "axis stands in the middle and the face on the far wall is not stored."
            )

    def require_velocity(self, velocity: Tensor) -> None:
        """Refuse what is not a velocity ``(..., 3, nx, ny, nz)`` of this grid.

        Raises:
            ValueError: naming both shapes.
        """
        self.require_shape(velocity, "a velocity (..., 3, nx, ny, nz)")
        if velocity.ndim < 4 or velocity.shape[-4] != 3:
            raise ValueError(
                f"Expected a velocity (..., 3, nx, ny, nz) but got {tuple(velocity.shape)}; leave the pressure out."
            )


@kept_by_device
def cell_heights(grid: ChannelGrid) -> Tensor:
    """`ChannelGrid.heights` where and as precise as ``like``."""
    return grid.heights


@kept_by_device
def center_distances(grid: ChannelGrid) -> Tensor:
    """`ChannelGrid.distances` where and as precise as ``like``."""
    return grid.distances


def stretched_faces(cells: int, stretching: float = 1.75, half_height: float = 1.0) -> Tensor:
    """``h (1 + tanh(a (2 j / n - 1)) / tanh(a))``, ``j = 0 .. n``: faces ``(cells + 1,)`` that cluster at both walls.

    Args:
        cells: ``n``, from wall to wall.
        stretching: ``a``; 0 is uniform.
        half_height: ``h``; the walls stand at 0 and ``2 h``.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> [round(place, 3) for place in stretched_faces(4).tolist()]
        [0.0, 0.252, 1.0, 1.748, 2.0]
    """
    if cells < 2:
        raise ValueError(f"Expected at least two cells from wall to wall but got {cells}.")
    if not 0 <= stretching <= 10:
        raise ValueError(f"Expected a stretching from 0 (uniform) to 10 but got {stretching}.")
    if not 0 < half_height < math.inf:
        raise ValueError(f"Expected a positive half_height but got {half_height}.")
    place = torch.linspace(-1, 1, cells + 1, dtype=torch.float64)
    if stretching > 1e-6:  # where it differs from uniform by 1e-13
        place = torch.tanh(stretching * place) / math.tanh(stretching)
    # The walls, and both halves from one: exactly where they belong.
    place[0], place[-1] = -1, 1
    place = (place - place.flip(0)) / 2
    return half_height * (1 + place)


def divergence(velocity: Tensor, grid: ChannelGrid) -> Tensor:
    """Of ``velocity (..., 3, nx, ny, nz)`` on faces, in cells: ``(..., nx, ny, nz)``.

    Raises:
        ValueError: if the velocity does not fit the grid.
    """
    grid.require_velocity(velocity)
    u, v, w = velocity.unbind(-4)
    heights = cell_heights(grid, velocity).unsqueeze(-1)
    through = torch.nn.functional.pad(v, (0, 0, 0, 1)).diff(dim=-2)
    along_x = (u.roll(-1, -3) - u) / grid.spacing_x
    along_z = (w.roll(-1, -1) - w) / grid.spacing_z
    return along_x + through / heights + along_z


def pressure_gradient(pressure: Tensor, grid: ChannelGrid) -> Tensor:
    """Of ``pressure (..., nx, ny, nz)`` in cells, on faces: ``(..., 3, nx, ny, nz)``; zero on the walls.

    Raises:
        ValueError: if the pressure does not fit the grid.
    """
    grid.require_shape(pressure, "a pressure (..., nx, ny, nz)")
    distances = center_distances(grid, pressure)[1:-1].unsqueeze(-1)
    along_x = (pressure - pressure.roll(1, -3)) / grid.spacing_x
    through = torch.nn.functional.pad(pressure.diff(dim=-2) / distances, (0, 0, 1, 0))
    along_z = (pressure - pressure.roll(1, -1)) / grid.spacing_z
    return torch.stack([along_x, through, along_z], -4)


class ChannelPoisson(nn.Module):
    """Solves ``divergence(pressure_gradient(solution)) = right_side`` to round-off.

    Fourier along x and z, with the symbol of the second difference; eigenvectors of the second difference along y,
    which are computed once, symmetrized with the square roots of the heights (Schumann & Sweet, J. Comput. Phys. 20
    (1976) 171, for the uniform case). A solve is a real transform, a matrix product, a division and the way back.

    Args:
        grid: of the channel.
        precision: of the computation; input of another precision is converted and the result converted back.

    Example:
        >>> grid = ChannelGrid((2.0, 1.0), (4, 4), stretched_faces(6))
        >>> velocity = torch.randn(3, 4, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> velocity[1, :, 0] = 0
        >>> free = ChannelPoisson(grid).project(velocity)
        >>> bool(divergence(free, grid).abs().max() < 1e-12)
        True
    """

    to_modes: Tensor
    from_modes: Tensor
    inverse_symbol: Tensor

    def __init__(self, grid: ChannelGrid, precision: Literal["float32", "float64"] = "float64") -> None:
        super().__init__()
        self.grid = grid
        dtype = {"float32": torch.float32, "float64": torch.float64}[precision]
        nx, ny, nz = grid.shape
        root = grid.heights.sqrt()
        # K = -G^T diag(1 / distance) G with differences G of neighbors: symmetric, the constant is its null space.
        differences = torch.eye(ny, dtype=torch.float64).diff(dim=0)
        stiffness = -differences.T @ (differences / grid.distances[1:-1, None])
        values, vectors = torch.linalg.eigh(stiffness / (root[:, None] * root))
        values[-1] = 0.0
        kx, kz = (
            2 * torch.sin(math.pi * torch.arange(size, dtype=torch.float64)[: size if full else size // 2 + 1] / size)
            / spacing
            for size, spacing, full in ((nx, grid.spacing_x, True), (nz, grid.spacing_z, False))
        )  # fmt: skip
        symbol = values[:, None, None] - kx.square()[:, None] - kz.square()
        symbol[-1, 0, 0] = -math.inf  # leaves out the mean
        # Written out for real and imaginary part: a broadcast innermost axis of two defeats vectorization.
        inverse = (1 / symbol).unsqueeze(-1).expand(*symbol.shape, 2).contiguous()
        self.register_buffer("to_modes", (vectors.T * root).to(dtype), persistent=False)
        self.register_buffer("from_modes", (vectors / root[:, None]).to(dtype), persistent=False)
        self.register_buffer("inverse_symbol", inverse.to(dtype), persistent=False)

    def forward(self, right_side: Tensor) -> Tensor:
        """The solution of zero mean, ``(..., nx, ny, nz)`` like the right side, whose own mean is left out.

        Raises:
            ValueError: if the right side does not fit the grid.
        """
        self.grid.require_shape(right_side, "a right side (..., nx, ny, nz)")
        nx, ny, nz = self.grid.shape
        planes = right_side.to(self.to_modes.dtype).reshape(-1, nx, ny, nz).permute(2, 0, 1, 3)
        return self.solve_planes(planes).permute(1, 2, 0, 3).reshape(right_side.shape).to(right_side.dtype)

    def solve_planes(self, planes: Tensor) -> Tensor:
        """`forward` for fields ``(ny, batch, nx, nz)``, where products along y are those of plain matrices."""
        spectrum = torch.view_as_real(torch.fft.rfft2(planes))
        modes = (self.to_modes @ spectrum.flatten(1)).view(spectrum.shape)
        modes = modes.mul_(self.inverse_symbol.unsqueeze(1))
        spectrum = (self.from_modes @ modes.flatten(1)).view(spectrum.shape)
        return torch.fft.irfft2(torch.view_as_complex(spectrum), s=planes.shape[-2:])

    def project(self, velocity: Tensor) -> Tensor:
        """The nearest velocity ``(..., 3, nx, ny, nz)`` without divergence, and with the same flow rates.

        Raises:
            ValueError: if the velocity does not fit the grid.
        """
        return velocity - pressure_gradient(self(divergence(velocity, self.grid)), self.grid)

"""A solver of flows in boxes on cells of its own: what `Resampled` is to periodic boxes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.own_state import OwnState

# Nodes that a stream function is interpolated from: cubic between them.
_NODES = 4
_VELOCITY = ("face_x", "face_y")


@runtime_checkable
class BoxSolver(Stepper, Protocol):
    """A `Stepper` of staggered plane flows on even cells, for any extents, which its parameters say."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along x and y."""
        ...

    @property
    def metadata(self) -> Metadata:
        """With the locations of its channels."""
        ...


class Regridded(nn.Module):
    """Runs a solver on a grid of its own and gives its frames on the grid of the data; a `Stepper`.

    Cells are even and fill the same box on both grids. Velocities on faces pass by their stream function, which is
    summed up from the fluxes through faces, interpolated between nodes by cubic polynomials, and differenced: they stay
    free of divergence, and where the solver's cells are made of whole cells of the data, what flows through a face is
    the sum of what flows through its parts. What lives in cells is interpolated linearly between those with fluid.
    Nothing passes the sides but the low and the high end of x; what passes the latter follows from continuity.

    A frame that this stepper gave itself is not brought back: the solver goes on from the state that it was made from.
    So a rollout is the one that the solver alone would give, and interpolation errors do not add up.

    Around bodies the solver has its own sharp surface. Within about one of its cells from it, fields of the finer grid
    are smeared over the surface.

    Args:
        stepper: for example an enclosed flow with few cells.

    Raises:
        ValueError: if the solver's channels are not one velocity on each kind of face, and others in cells; in use, for
            other channels.
    """

    history_frames = 1

    def __init__(self, stepper: BoxSolver) -> None:
        super().__init__()
        locations = tuple(channel.location for channel in stepper.metadata.channels)
        if locations[:2] != _VELOCITY or set(locations[2:]) - {"cell"}:
            raise ValueError(
                f"Expected a solver with velocities on {_VELOCITY} and then fields in cells but its channels are on "
                f"{locations}."
            )
        self.stepper = stepper
        self._own = OwnState()

    @property
    def metadata(self) -> Metadata:
        """As the solver has it: another grid holds the same fields."""
        return self.stepper.metadata

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The solver's next frame on the grid of ``history (batch, time, channel, x, y)``.

        Raises:
            ValueError: if the channels are not the solver's.
        """
        channels = len(self.metadata.channels)
        if history.ndim != 5 or history.shape[2] != channels:
            raise ValueError(f"Expected fields (batch, time, {channels}, x, y) but got {tuple(history.shape)}.")
        given = history[:, -1]
        sides = _sides(context)
        own = _context_on(context, self.stepper.shape)
        state = self._own.behind(given, lambda: regrid(given.double(), self.stepper.shape, sides, context.mask))
        state = self.stepper.step(state.unsqueeze(1), own)[:, -1]
        sizes = (history.shape[3], history.shape[4])
        made = regrid(state, sizes, _sides(own), own.mask).to(history.dtype)
        if context.mask is not None:
            made[:, 2:] *= context.mask.unsqueeze(1)
        self._own.keep(made, state)
        return made.unsqueeze(1)


def regrid(state: Tensor, shape: tuple[int, int], sides: Tensor, mask: Tensor | None = None) -> Tensor:
    """Staggered fields of a box on other cells that fill it; see `Regridded`.

    Args:
        state: ``(batch, channel, x, y)``: velocity on faces across x, on those across y, and fields in cells. Where it
            has divergence, the velocity along y is lost for one that has none.
        shape: cells along x and y that are wanted.
        sides: of a cell of ``state`` along x and y, ``(batch, 2)``.
        mask: ``(batch, x, y)``, true in cells with fluid; by default everywhere.

    Example:
        >>> u, v = torch.ones(1, 4, 4, dtype=torch.float64), torch.zeros(1, 4, 4, dtype=torch.float64)
        >>> finer = regrid(torch.stack([u, v, torch.full_like(u, 3.0)], 1), (8, 12), torch.ones(1, 2))
        >>> finer.shape, [round(mean, 6) for mean in finer.abs().mean((0, 2, 3)).tolist()]
        (torch.Size([1, 3, 8, 12]), [1.0, 0.0, 3.0])
    """
    old = (state.shape[2], state.shape[3])
    sides = sides.to(state)
    psi = _stream_function(state[:, 0], state[:, 1], sides)
    x, y = (_node_matrix(before, after).to(state) for before, after in zip(old, shape, strict=True))
    psi = x @ psi @ y.T
    dx, dy = (side[:, None, None] * before / after for side, before, after in zip(sides.T, old, shape, strict=True))
    u, v = psi.diff(dim=2)[:, :-1] / dy, -psi.diff(dim=1)[:, :, :-1] / dx
    return torch.cat([torch.stack([u, v], 1), _in_cells(state[:, 2:], shape, mask)], 1)


def _stream_function(u: Tensor, v: Tensor, sides: Tensor) -> Tensor:
    """At nodes ``(batch, nx + 1, ny + 1)``, zero at the lowest of both axes: ``u = d psi/dy``, ``v = -d psi/dx``."""
    dx, dy = (side[:, None] for side in sides.T)
    beyond = nn.functional.pad(v[:, -1], (0, 1)).diff(dim=1)
    u = torch.cat([u, (u[:, -1] - dx / dy * beyond).unsqueeze(1)], 1)
    lowest = nn.functional.pad(-(v[:, :, 0] * dx).cumsum(1), (1, 0))
    return lowest.unsqueeze(2) + nn.functional.pad((u * dy.unsqueeze(2)).cumsum(2), (1, 0))


def _in_cells(fields: Tensor, shape: tuple[int, int], mask: Tensor | None) -> Tensor:
    """Linearly between centers of cells with fluid; zero where none is near."""
    x, y = (_center_matrix(before, after).to(fields) for before, after in zip(fields.shape[2:], shape, strict=True))
    if mask is None:
        return x @ fields @ y.T
    fluid = mask.to(fields).unsqueeze(1)
    share = x @ fluid @ y.T
    return torch.where(share > 0, x @ (fields * fluid) @ y.T / share.clamp_min(torch.finfo(fields.dtype).tiny), 0.0)


def _node_matrix(before: int, after: int) -> Tensor:
    """``(after + 1, before + 1)``: values at nodes from those at other nodes of the same interval."""
    places = torch.arange(after + 1, dtype=torch.float64) * (before / after)
    count = min(_NODES, before + 1)
    first = (places.floor().long() - 1).clamp(0, before + 1 - count)
    matrix = torch.zeros(after + 1, before + 1, dtype=torch.float64)
    for one in range(count):
        weight = torch.ones_like(places)
        for other in range(count):
            if other != one:
                weight *= (places - (first + other)) / (one - other)
        matrix[torch.arange(after + 1), first + one] = weight
    return matrix


def _center_matrix(before: int, after: int) -> Tensor:
    """``(after, before)``: values at centers of cells from those of others; constant beyond the outermost."""
    places = ((torch.arange(after, dtype=torch.float64) + 0.5) * (before / after) - 0.5).clamp(0, before - 1)
    centers = torch.arange(before, dtype=torch.float64)
    return (1 - (places[:, None] - centers).abs()).clamp(min=0)


def _sides(context: Context) -> Tensor:
    """Of the cells along x and y, ``(batch, 2)`` in float64."""
    lines = [points.double() for points in context.coordinates]
    return torch.stack([(points[:, -1] - points[:, 0]) / (points.shape[1] - 1) for points in lines], 1)


def _context_on(context: Context, shape: tuple[int, int]) -> Context:
    """The context of even cells of another number in the same boxes."""
    lines = []
    for points, side, size in zip(context.coordinates, _sides(context).T, shape, strict=True):
        low = points[:, :1].double() - side[:, None] / 2
        length = side[:, None] * points.shape[1]
        places = (torch.arange(size, dtype=torch.float64, device=points.device) + 0.5) / size
        lines.append((low + length * places).to(points.dtype))
    mask = context.mask
    if mask is not None:
        x, y = (
            _center_matrix(before, after).to(points)
            for before, after, points in zip(mask.shape[1:], shape, lines, strict=True)
        )
        # Cells that surely are whole: the solver's own surface is sharp, and what it has inside is no fluid's.
        mask = x @ mask.to(x) @ y.T > 1 - 1e-6
    return context._replace(coordinates=tuple(lines), mask=mask, forcing=None)

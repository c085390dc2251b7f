"""No slip on bodies that lie across the cells: velocities inside them that make it so.

A face whose middle lies in a body is closed. Where an open face's stencil reaches a closed one, that one is given the
value that mirrors the flow at the surface: minus the velocity at its image beyond the nearest point of the surface,
found between the four faces around it (Tseng & Ferziger, J. Comput. Phys. 192 (2003) 593). Images close to the surface
lie between closed faces too, so all values are found together; the system is solved once, and a step is one product of
a small matrix with the velocities around the bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pdesurrogate.simulators.enclosed.case import Case

Component = Literal["x", "y"]


class _Mirror(NamedTuple):
    """Ghost faces of one component in one case, numbered through ``(nx, ny)`` of that component's faces."""

    ghosts: Tensor  # (ghosts,)
    sources: Tensor  # (sources,)
    matrix: Tensor  # (ghosts, sources)


class MirroredVelocity(nn.Module):
    """Fills the closed faces of a batch with what makes the flow stick to the surfaces.

    Args:
        cases: of the batch, one shape of grid for all.
        shape: cells along x and y.
        dtype: of the velocities.
    """

    def __init__(self, cases: Sequence[Case], shape: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.are_as_many = True
        for component in ("x", "y"):
            mirrors = [_mirror(case, shape, component) for case in cases]
            ghosts = max(len(mirror.ghosts) for mirror in mirrors)
            sources = max(len(mirror.sources) for mirror in mirrors)
            # Filled up with a ghost beyond the last face, which is cut off again, and sources of weight zero.
            beyond = _faces_of(shape, component)
            ghost = torch.stack([_filled(mirror.ghosts, ghosts, beyond) for mirror in mirrors])
            source = torch.stack([_filled(mirror.sources, sources, 0) for mirror in mirrors])
            matrix = torch.stack([_filled_matrix(mirror.matrix, ghosts, sources) for mirror in mirrors])
            self.are_as_many &= all(len(mirror.ghosts) == ghosts for mirror in mirrors)
            self.register_buffer(f"ghosts_{component}", ghost, persistent=False)
            self.register_buffer(f"sources_{component}", source, persistent=False)
            self.register_buffer(f"matrix_{component}", matrix.to(dtype), persistent=False)

    def forward(self, velocity: Tensor, component: Component) -> Tensor:
        """``velocity (batch, faces along x, faces along y)`` of one component with the ghosts set."""
        ghosts: Tensor = getattr(self, f"ghosts_{component}")
        sources: Tensor = getattr(self, f"sources_{component}")
        matrix: Tensor = getattr(self, f"matrix_{component}")
        flat = velocity.flatten(1)
        values = torch.bmm(matrix, flat.gather(1, sources).unsqueeze(-1)).squeeze(-1)
        if self.are_as_many:
            return flat.scatter(1, ghosts, values).view_as(velocity)
        filled = nn.functional.pad(flat, (0, 1)).scatter_(1, ghosts, values)
        return filled[:, :-1].unflatten(1, velocity.shape[1:])


def _mirror(case: Case, shape: tuple[int, int], component: Component) -> _Mirror:
    closed_x, closed_y = case.closed_faces(shape)
    (x, y), (face_x, face_y) = case.box.centers(shape), case.box.faces(shape)
    if component == "x":
        closed, wanted, lines = closed_x, _reached(closed_x, closed_y), (face_x, y)
    else:
        turned = _reached(closed_y.T, closed_x.T).T
        closed, wanted, lines = closed_y, turned, (x, face_y)
    ghosts = [tuple(place) for place in wanted.nonzero().tolist()]
    rows: dict[tuple[int, int], list[tuple[tuple[int, int], float]]] = {}
    while ghosts:
        place = ghosts.pop()
        if place in rows:
            continue
        rows[place] = _image(case, lines, place)
        ghosts += [near for near, weight in rows[place] if weight > 0 and bool(closed[near])]
    return _solved(rows, (closed.shape[0], closed.shape[1]))


def _reached(own: Tensor, other: Tensor) -> Tensor:
    """Closed x faces ``(nx+1, ny)`` within the stencil of an open x or y face."""
    open_own, open_other = ~own, ~other
    near = torch.zeros_like(own)
    near[1:] |= open_own[:-1]
    near[:-1] |= open_own[1:]
    near[:, 1:] |= open_own[:, :-1]
    near[:, :-1] |= open_own[:, 1:]
    # The y faces at the four corners of the two cells beside an x face.
    ends = open_other[:, 1:] | open_other[:, :-1]
    near[1:] |= ends
    near[:-1] |= ends
    return near & own


def _image(case: Case, lines: tuple[Tensor, Tensor], place: tuple[int, int]) -> list[tuple[tuple[int, int], float]]:
    """Faces around the mirror image of a closed face, with their bilinear weights."""
    point = [line[index] for line, index in zip(lines, place, strict=True)]
    distances = torch.stack([body.distance(*point) for body in case.bodies])
    wall = case.bodies[int(distances.argmin())].nearest(*point)
    sides = []
    for line, here, there in zip(lines, point, wall, strict=True):
        step = float(line[1] - line[0])
        # Beyond the outermost faces, which are half a cell off a wall, the nearest ones stand for the flow.
        position = min(max(float(2 * there - here - line[0]) / step, 0.0), len(line) - 1.0)
        nearest = round(position)
        if abs(position - nearest) < 1e-9:
            sides.append([(nearest, 1.0)])
        else:
            low = int(position)
            sides.append([(low, 1 - (position - low)), (low + 1, position - low)])
    return [((i, j), weight_x * weight_y) for i, weight_x in sides[0] for j, weight_y in sides[1]]


def _solved(rows: dict[tuple[int, int], list[tuple[tuple[int, int], float]]], faces: tuple[int, int]) -> _Mirror:
    number = {place: index for index, place in enumerate(sorted(rows))}
    outside = sorted({near for row in rows.values() for near, _ in row if near not in number})
    column = {place: index for index, place in enumerate(outside)}
    among = torch.eye(len(number), dtype=torch.float64)
    beyond = torch.zeros(len(number), len(outside), dtype=torch.float64)
    for place, row in rows.items():
        for near, weight in row:
            if near in number:
                among[number[place], number[near]] += weight
            else:
                beyond[number[place], column[near]] += weight
    matrix = -torch.linalg.solve(among, beyond)
    return _Mirror(_numbers(sorted(rows), faces), _numbers(outside, faces), matrix)


def _numbers(places: list[tuple[int, int]], faces: tuple[int, int]) -> Tensor:
    return torch.tensor([i * faces[1] + j for i, j in places], dtype=torch.int64)


def _faces_of(shape: tuple[int, int], component: Component) -> int:
    nx, ny = shape
    return (nx + 1) * ny if component == "x" else nx * (ny + 1)


def _filled(numbers: Tensor, size: int, number: int) -> Tensor:
    return nn.functional.pad(numbers, (0, size - len(numbers)), value=number)


def _filled_matrix(matrix: Tensor, rows: int, columns: int) -> Tensor:
    filled = matrix.new_zeros(rows, columns)
    filled[: matrix.shape[0], : matrix.shape[1]] = matrix
    return filled

"""Poisson equation of cell-centered fields in plane boxes with bodies inside, solved directly, several boxes at once.

The cells of a box are even. No flux crosses the faces on the box's boundary nor those that bodies close; at an outlet,
always the high end of x, the field is zero on the boundary's faces. As elsewhere in this package value ``i`` at a face
lies on the face *below* cell ``i``; here the face above the last cell is written too, so that an axis of ``n`` cells
has ``n + 1`` faces.

`laplacian` is the operator that `BoxPoisson` inverts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# Cells along x from which fast transforms beat products on a CPU.
_LONG_AXIS = 256
# Numbers held at once while the matrix of the closed faces is summed: 64 MB.
_NUMBERS_AT_ONCE = 2**23


@dataclass(frozen=True, eq=False)
class ClosedFaces:
    """Faces inside boxes that no flux crosses. What they say of the box's boundary counts at an outlet only.

    Attributes:
        x: ``(batch, nx + 1, ny)`` bool, true where a face across x is closed.
        y: ``(batch, nx, ny + 1)`` bool, the same for faces across y.

    Raises:
        ValueError: if they are not of bool or do not fit each other.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.x.dtype != torch.bool or self.y.dtype != torch.bool:
            raise ValueError(f"Expected closed faces of bool but got {self.x.dtype} and {self.y.dtype}.")
        x, y = tuple(self.x.shape), tuple(self.y.shape)
        if len(x) != 3 or len(y) != 3 or y != (x[0], x[1] - 1, x[2] + 1):
            raise ValueError(
                f"Expected closed faces x (batch, nx + 1, ny) and y (batch, nx, ny + 1) but got {x} and {y}."
            )

    @classmethod
    def around(cls, mask: Tensor) -> ClosedFaces:
        """The faces that have a cell outside the fluid beside them.

        Args:
            mask: ``(batch, nx, ny)`` bool, true where a cell is fluid.

        Raises:
            ValueError: if the mask is not of bool or has no three axes.

        Example:
            >>> faces = ClosedFaces.around(torch.tensor([[[True, True], [True, False]]]))
            >>> faces.x.int().tolist()
            [[[0, 0], [0, 1], [0, 1]]]
            >>> faces.y.int().tolist()
            [[[0, 0, 0], [0, 1, 1]]]
        """
        if mask.dtype != torch.bool or mask.ndim != 3:
            raise ValueError(f"Expected a mask (batch, nx, ny) of bool but got {tuple(mask.shape)} of {mask.dtype}.")
        solid = ~mask
        return cls(
            pad(solid, (0, 0, 1, 0)) | pad(solid, (0, 0, 0, 1)),
            pad(solid, (1, 0)) | pad(solid, (0, 1)),
        )


def laplacian(field: Tensor, spacings: Tensor, outlet: bool, closed: ClosedFaces | None) -> Tensor:
    """The five-point Laplacian over open faces: differences of the gradients on faces, which are zero on closed ones.

    Args:
        field: ``(batch, nx, ny)`` in cells.
        spacings: ``(batch, 2)`` lengths of a cell along x and y.
        outlet: whether the field is zero on the faces at the high end of x, half a cell from the last centers;
            elsewhere on the boundary, and there without it, its gradient is zero.
        closed: faces that bodies close; None for none.

    Returns:
        ``(batch, nx, ny)``, in the field's unit by that of the spacings squared; zero in cells without open faces.

    Example:
        >>> field = torch.tensor([[[1.0], [2.0], [4.0]]])
        >>> laplacian(field, torch.ones(1, 2), False, None).flatten().tolist()
        [1.0, 1.0, -2.0]
        >>> laplacian(field, torch.ones(1, 2), True, None).flatten().tolist()
        [1.0, 1.0, -10.0]
    """
    dx, dy = spacings.to(field)[..., None, None].unbind(-3)
    gradient_x = pad(field.diff(dim=-2) / dx, (0, 0, 1, 1))
    if outlet:
        gradient_x = torch.cat([gradient_x[..., :-1, :], -2 * field[..., -1:, :] / dx], -2)
    gradient_y = pad(field.diff(dim=-1) / dy, (1, 1))
    if closed is not None:
        gradient_x = gradient_x.masked_fill(closed.x.to(field.device), 0)
        gradient_y = gradient_y.masked_fill(closed.y.to(field.device), 0)
    return gradient_x.diff(dim=-2) / dx + gradient_y.diff(dim=-1) / dy


class BoxPoisson(nn.Module):
    """Solves ``laplacian(solution) = source`` in plane boxes of even cells to round-off, a batch of boxes at once.

    Without bodies by eigenvectors of the second differences along x and y, cosines that all boxes share (Lynch, Rice
    & Thomas, Numer. Math. 6 (1964) 185): two products there, a division, two products back; along a long axis x fast
    cosine transforms instead. Closed faces are taken out of that operator by a capacitance matrix (Buzbee, Dorr, George
    & Golub, SIAM J. Numer. Anal. 8 (1971) 722). With one column ``(delta_a - delta_b) / spacing`` of ``E`` for each
    closed face, between cells ``a`` and ``b``,

        L = L0 + E E^T,    L^-1 f = L0^-1 (f - E S^-1 E^T L0^-1 f),    S = I + E^T L0^-1 E.

    ``S`` is inverted once. ``L0^-1 f`` is needed in the smallest rectangle that holds the cells beside closed faces of
    all boxes, and the sum is taken among modes, so there is still one way back.

    A cell without open faces is solid. The source counts as zero there and so does the solution. Faces between two
    solid cells stay in ``L0``, and so does one face of every group of solid cells: the group then takes the value of
    the fluid there, no flux crosses that face, and ``S`` stays regular.

    Without an outlet a solution exists only if the source has zero mean over the fluid cells, and it is known up to a
    constant: the mean of the source is left out (``laplacian(solution) = source - mean``: in an enclosed flow, what
    enters the box without leaving it), and the solution's mean over the fluid cells is zero.

    Args:
        shape: cells along x and y, of all boxes.
        spacings: ``(batch, 2)`` lengths of a cell along x and y, of each box.
        outlet: as for `laplacian`.
        closed: faces that bodies close, of each box; None for none.
        dtype: of the computation, ``torch.float32`` or ``torch.float64``; a source of another one is converted and the
            solution converted back. Tables are made in float64.

    Raises:
        ValueError: if arguments are out of range or do not fit each other, for a box without fluid cells, and for one
            in which closed faces cut fluid cells off from the others (with an outlet: from the outlet), whose level
            nothing would fix.

    Example:
        >>> mask = torch.ones(1, 6, 5, dtype=torch.bool)
        >>> mask[:, 2:4, 2:4] = False
        >>> spacings, closed = torch.tensor([[0.5, 0.25]]), ClosedFaces.around(mask)
        >>> solver = BoxPoisson((6, 5), spacings, True, closed, torch.float64)
        >>> source = torch.randn(1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * mask
        >>> bool((laplacian(solver(source), spacings, True, closed) - source).abs().max() < 1e-12)
        True
    """

    modes_y: Tensor
    inverse_symbol: Tensor
    bodies: _Bodies | None

    def __init__(
        self, shape: tuple[int, int], spacings: Tensor, outlet: bool, closed: ClosedFaces | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        _require_boxes(shape, spacings, closed, dtype)
        self.shape = shape
        self.batch = len(spacings)
        spacings = spacings.detach().to("cpu", torch.float64)
        modes_x, values_x = _cosines(shape[0], outlet)
        modes_y, values_y = _cosines(shape[1], False)
        dx, dy = spacings[:, :, None].unbind(1)
        symbol = (values_y / dy**2).unsqueeze(2) + (values_x / dx**2).unsqueeze(1)
        if not outlet:
            symbol[:, 0, 0] = -math.inf  # leaves out the mean
        self.x = _AlongX(modes_x, outlet, dtype)
        self.register_buffer("modes_y", modes_y.to(dtype), persistent=False)
        self.register_buffer("inverse_symbol", (1 / symbol).to(dtype), persistent=False)
        self.bodies = None
        if closed is not None:
            faces = _Faces.of_box(shape, outlet)
            are_closed = faces.closed(closed)
            removed = [faces.removed(of_box, box) for box, of_box in enumerate(are_closed)]
            if any(len(numbers) for numbers in removed):
                fluid = torch.stack([faces.fluid(of_box) for of_box in are_closed]).view(-1, *shape)
                self.bodies = _Bodies(faces, removed, fluid, spacings, modes_x, modes_y, 1 / symbol, dtype)

    def forward(self, source: Tensor) -> Tensor:
        """The solution ``(batch, nx, ny)`` for a source of the same shape, in the boxes' order.

        Raises:
            ValueError: if the source has another shape.
        """
        if source.shape != (self.batch, *self.shape):
            raise ValueError(f"Expected a source {(self.batch, *self.shape)} but got {tuple(source.shape)}.")
        field = source.to(self.modes_y.dtype)
        if self.bodies is not None:
            field = self.bodies.level(field)
        # Modes stand with y in front: transforms along x run through memory in order.
        spectrum = self.x.to_modes((field @ self.modes_y).mT) * self.inverse_symbol
        if self.bodies is not None:
            spectrum = spectrum + self.bodies.closing(spectrum) * self.inverse_symbol
        solution = self.x.to_cells(spectrum).mT @ self.modes_y.T
        if self.bodies is not None:
            solution = self.bodies.level(solution)
        return solution.to(source.dtype)


class _Bodies(nn.Module):
    """What closed faces add to a solve.

    Args:
        faces: of the boxes.
        removed: numbers of the faces that L0 has to lose, of each box; of at least one box some.
        fluid: ``(batch, nx, ny)`` bool, true in cells with open faces.
        spacings: ``(batch, 2)``.
        modes_x: ``(nx, nx)``, one a column.
        modes_y: ``(ny, ny)``.
        inverse_symbol: ``(batch, ny, nx)``.
        dtype: of the fields.
    """

    fluid: Tensor
    mean_weights: Tensor
    rows_x: Tensor
    rows_y: Tensor
    cells: Tensor
    entries: Tensor
    inverse: Tensor

    def __init__(
        self,
        faces: _Faces,
        removed: list[Tensor],
        fluid: Tensor,
        spacings: Tensor,
        modes_x: Tensor,
        modes_y: Tensor,
        inverse_symbol: Tensor,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.outlet = faces.outlet
        batch, ny, most = len(removed), faces.shape[1], max(len(numbers) for numbers in removed)
        # Boxes that lose fewer faces than others get some between no cells, with entries zero.
        cells = torch.zeros(batch, 2, most, dtype=torch.long)
        entries = torch.zeros(batch, 2, most, dtype=torch.float64)
        inverse = torch.eye(most, dtype=torch.float64).repeat(batch, 1, 1)
        for box, numbers in enumerate(removed):
            count = len(numbers)
            cells[box, :, :count], entries[box, :, :count] = faces.columns(numbers, spacings[box])
            inverse[box, :count, :count] = _inverse_of_capacitance(
                cells[box, :, :count], entries[box, :, :count], modes_x, modes_y, inverse_symbol[box]
            )
        x, y, used = cells // ny, cells % ny, entries != 0
        rows_x = slice(int(x[used].min()), int(x[used].max()) + 1)
        rows_y = slice(int(y[used].min()), int(y[used].max()) + 1)
        width, height = rows_x.stop - rows_x.start, rows_y.stop - rows_y.start
        cells = torch.where(used, (x - rows_x.start) * height + y - rows_y.start, 0)
        cells = cells + width * height * torch.arange(batch)[:, None, None]
        self.register_buffer("cells", cells.flatten(), persistent=False)
        weights = fluid.double()
        tables = {
            "fluid": weights.to(dtype),
            "mean_weights": (weights / weights.sum((1, 2), keepdim=True)).to(dtype),
            "rows_x": modes_x[rows_x],
            "rows_y": modes_y[rows_y],
            "entries": entries,
            "inverse": inverse,
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def level(self, field: Tensor) -> Tensor:
        """Zero in solid cells and, without an outlet, of zero mean over the fluid cells."""
        if not self.outlet:
            field = field - (field * self.mean_weights).sum((1, 2), keepdim=True)
        return field * self.fluid

    def closing(self, spectrum: Tensor) -> Tensor:
        """Modes of the sources beside closed faces that stop the flux of the field given by its modes.

        In float64 whatever the fields are, which costs little: a rounding error of the field in the cells beside a body
        would come back as sources of the size of that error by the spacing squared.
        """
        field = _between(self.rows_y, spectrum.to(self.rows_x.dtype), self.rows_x.T).mT
        beside = field.flatten().index_select(0, self.cells).view(self.entries.shape)
        fluxes = self.inverse @ (beside * self.entries).sum(1).unsqueeze(2)
        pairs = -self.entries * fluxes.mT
        sources = torch.zeros_like(field).flatten().scatter_add(0, self.cells, pairs.flatten()).view(field.shape)
        return _between(self.rows_y.T, sources.mT, self.rows_x).to(spectrum.dtype)


class _AlongX(nn.Module):
    """Cells to modes and back along x, the last axis: products, or fast cosine transforms where they are faster.

    Without an outlet they are of type 2, by a real Fourier transform (Makhoul, IEEE Trans. Acoust. Speech Signal
    Process. 28 (1980) 27); with one of type 4, by a complex one of half as many numbers.
    """

    modes: Tensor
    turns: Tensor

    def __init__(self, modes: Tensor, outlet: bool, dtype: torch.dtype) -> None:
        super().__init__()
        cells = len(modes)
        self.outlet = outlet
        self.is_long = cells >= _LONG_AXIS and cells % 2 == 0
        self.register_buffer("modes", modes.to(dtype), persistent=False)
        number = torch.arange(cells // 2 + (0 if outlet else 1), dtype=torch.float64)
        angle = -math.pi / cells * (number + 1 / 8 if outlet else number / 2)
        turns = torch.polar(torch.full_like(angle, (2 / cells) ** (1 / 4 if outlet else 1 / 2)), angle)
        if not outlet:
            turns[0] *= math.sqrt(1 / 2)
        # Kept as pairs of real numbers: converting a module to another precision would cut off imaginary parts.
        self.register_buffer("turns", torch.view_as_real(turns).to(dtype), persistent=False)

    def to_modes(self, field: Tensor) -> Tensor:
        """``field @ modes``."""
        if not self._by_transform(field):
            return field @ self.modes
        if self.outlet:
            return self._type_4(field)
        folded = torch.cat([field[..., ::2], field[..., 1::2].flip(-1)], -1)
        turned = torch.fft.rfft(folded) * torch.view_as_complex(self.turns)
        return torch.cat([turned.real, -turned.imag[..., 1:-1].flip(-1)], -1)

    def to_cells(self, spectrum: Tensor) -> Tensor:
        """``spectrum @ modes.T``."""
        if not self._by_transform(spectrum):
            return spectrum @ self.modes.T
        if self.outlet:
            return self._type_4(spectrum)  # its own inverse
        half = spectrum.shape[-1] // 2
        turned = torch.complex(spectrum[..., : half + 1], -pad(spectrum[..., half:].flip(-1), (1, 0)))
        folded = torch.fft.irfft(turned / torch.view_as_complex(self.turns), n=2 * half)
        return torch.stack([folded[..., :half], folded[..., half:].flip(-1)], -1).flatten(-2)

    def _by_transform(self, values: Tensor) -> bool:
        # On a GPU every launch costs more than these products.
        return self.is_long and values.device.type == "cpu"

    def _type_4(self, values: Tensor) -> Tensor:
        pairs = torch.complex(values[..., ::2], values[..., 1::2].flip(-1))
        turns = torch.view_as_complex(self.turns)
        turned = torch.fft.fft(pairs * turns) * turns
        return torch.stack([turned.real, -turned.imag.flip(-1)], -1).flatten(-2)


def _require_boxes(shape: tuple[int, int], spacings: Tensor, closed: ClosedFaces | None, dtype: torch.dtype) -> None:
    if len(shape) != 2 or min(shape) < 2:
        raise ValueError(f"Expected at least two cells along x and along y but got {shape}.")
    if spacings.ndim != 2 or spacings.shape[1] != 2 or len(spacings) == 0:
        raise ValueError(f"Expected spacings (batch, 2) of at least one box but got {tuple(spacings.shape)}.")
    if not bool(((spacings > 0) & spacings.isfinite()).all()):
        raise ValueError(f"Expected positive spacings but got {spacings.tolist()}.")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"Expected torch.float32 or torch.float64 but got {dtype}.")
    if closed is not None and closed.x.shape != (len(spacings), shape[0] + 1, shape[1]):
        raise ValueError(
            f"Expected closed faces of {len(spacings)} boxes of {tuple(shape)} cells but got those of {len(closed.x)} "
            f"boxes of {(closed.x.shape[1] - 1, closed.x.shape[2])}."
        )


def _cosines(cells: int, outlet: bool) -> tuple[Tensor, Tensor]:
    """Orthonormal eigenvectors, one a column, and eigenvalues of the second difference for a spacing of one."""
    wavenumber = math.pi / cells * (torch.arange(cells, dtype=torch.float64) + (0.5 if outlet else 0.0))
    center = torch.arange(cells, dtype=torch.float64) + 0.5
    modes = math.sqrt(2 / cells) * torch.cos(center[:, None] * wavenumber)
    if not outlet:
        modes[:, 0] = math.sqrt(1 / cells)
    return modes, -4 * torch.sin(wavenumber / 2).square()


def _between(left: Tensor, fields: Tensor, right: Tensor) -> Tensor:
    """``left @ fields @ right``, the cheaper product first."""
    (rows, nx), (ny, columns) = left.shape, right.shape
    if rows * ny * (nx + columns) <= nx * columns * (ny + rows):
        return (left @ fields) @ right
    return left @ (fields @ right)


@dataclass(frozen=True)
class _Faces:
    """Faces of a box through which L0 has flux: inner ones across x, across y, then those of the outlet.

    Cells count along y first. What lies beyond an outlet is the node ``nx ny``, where the field is zero.

    Attributes:
        shape: cells along x and y.
        outlet: whether the box has one.
        low: ``(faces,)`` cell below each face.
        high: ``(faces,)`` cell or node above it.
        scale: ``(faces, 2)``: its column of E has the entries plus and minus ``(scale / spacings).sum()``.
    """

    shape: tuple[int, int]
    outlet: bool
    low: Tensor
    high: Tensor
    scale: Tensor

    @classmethod
    def of_box(cls, shape: tuple[int, int], outlet: bool) -> _Faces:
        nx, ny = shape
        cell = torch.arange(nx * ny).view(nx, ny)
        parts = [(cell[:-1], cell[1:], (1.0, 0.0)), (cell[:, :-1], cell[:, 1:], (0.0, 1.0))]
        if outlet:
            # Half the distance, so twice the flux.
            parts.append((cell[-1], torch.full((ny,), nx * ny), (math.sqrt(2), 0.0)))
        return cls(
            shape,
            outlet,
            torch.cat([low.flatten() for low, _, _ in parts]),
            torch.cat([high.flatten() for _, high, _ in parts]),
            torch.cat([torch.tensor(scale, dtype=torch.float64).expand(low.numel(), 2) for low, _, scale in parts]),
        )

    def closed(self, closed: ClosedFaces) -> Tensor:
        """``(batch, faces)``, true where closed."""
        x, y = closed.x.cpu(), closed.y.cpu()
        parts = [x[:, 1:-1].flatten(1), y[:, :, 1:-1].flatten(1)]
        if self.outlet:
            parts.append(x[:, -1])
        return torch.cat(parts, 1)

    def fluid(self, closed: Tensor) -> Tensor:
        """``(nx ny,)``, true for cells that have an open face; ``closed (faces,)``."""
        nodes = torch.zeros(math.prod(self.shape) + 1, dtype=torch.bool)
        nodes[self.low[~closed]] = True
        nodes[self.high[~closed]] = True
        return nodes[:-1]

    def removed(self, closed: Tensor, box: int) -> Tensor:
        """Numbers of the closed faces that L0 has to lose.

        Raises:
            ValueError: if fluid cells are cut off, with the number of the box.
        """
        fluid = self.fluid(closed)
        if not bool(fluid.any()):
            raise ValueError(f"Expected fluid cells in every box but all faces of box {box} are closed.")
        # What lies beyond an outlet counts as solid, so that solid cells at an outlet hang on it.
        fluid = pad(fluid, (0, 1))
        fluid_low, fluid_high = fluid[self.low], fluid[self.high]
        group = self._groups(~closed | ~(fluid_low | fluid_high))
        main = int(group[-1]) if self.outlet else int(group[fluid].mode().values)
        lost = int((fluid & (group != main)).sum())
        if lost:
            raise ValueError(
                f"Expected fluid cells that hang together but in box {box} closed faces cut {lost} off from the "
                f"{'outlet' if self.outlet else 'others'}; close all their faces, which makes them solid, or open one."
            )
        numbers = (closed & (fluid_low | fluid_high)).nonzero().squeeze(1)
        inner = torch.where(fluid_low, group[self.high], group[self.low])[numbers]
        # Of each group of solid cells the first face stays. Faces with fluid on both sides count for the fluid's group.
        first = torch.full((int(group.max()) + 1,), -1).scatter_reduce(
            0, inner, torch.arange(len(numbers)), "amin", include_self=False
        )
        first[main] = -1
        stays = torch.zeros(len(numbers), dtype=torch.bool)
        stays[first[first >= 0]] = True
        return numbers[~stays]

    def _groups(self, joins: Tensor) -> Tensor:
        """``(nx ny + 1,)`` number of the group of each cell and of the node, connected by faces that join."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        nodes = math.prod(self.shape) + 1
        pairs = (self.low[joins].numpy(), self.high[joins].numpy())
        graph = coo_array((joins[joins].numpy(), pairs), shape=(nodes, nodes))
        return torch.from_numpy(connected_components(graph, directed=False)[1]).long()

    def columns(self, numbers: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
        """Of E for numbered faces: the two cells ``(2, faces)`` of each, and its entries there.

        Beyond an outlet there is no cell: the entry is zero, the cell the first.
        """
        cells = torch.stack([self.low[numbers], self.high[numbers]])
        entries = (self.scale[numbers] / spacing).sum(1) * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        outside = cells == math.prod(self.shape)
        return cells.masked_fill(outside, 0), entries.masked_fill(outside, 0)


def _inverse_of_capacitance(
    cells: Tensor, entries: Tensor, modes_x: Tensor, modes_y: Tensor, inverse_symbol: Tensor
) -> Tensor:
    """``S^-1`` of one box, from the columns of E: ``cells`` and ``entries (2, faces)``; the symbol has y in front."""
    (nx, ny), count = (len(modes_x), len(modes_y)), cells.shape[1]
    along_x = modes_x[cells // ny]
    along_y = modes_y[cells % ny] * entries.unsqueeze(2)
    capacitance = torch.eye(count, dtype=torch.float64)
    step = max(1, _NUMBERS_AT_ONCE // (nx * max(1, count)))
    for start in range(0, ny, step):
        some = slice(start, start + step)
        columns = torch.einsum("efk,efl->flk", along_x, along_y[..., some]).flatten(1)
        capacitance += (columns * inverse_symbol[some].flatten()) @ columns.T
    return torch.cholesky_inverse(torch.linalg.cholesky(capacitance))

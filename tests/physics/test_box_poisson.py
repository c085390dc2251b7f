"""Boxes with bodies: the Laplacian over open faces, and the solver that inverts it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.box_poisson import BoxPoisson, ClosedFaces, laplacian


def open_box(batch: int = 1, nx: int = 8, ny: int = 6) -> torch.Tensor:
    return torch.ones(batch, nx, ny, dtype=torch.bool)


def discs(shape: tuple[int, int], *places: tuple[float, float, float]) -> torch.Tensor:
    """A mask for each place ``(x, y, diameter)``, in cells."""
    x, y = (torch.arange(size, dtype=torch.float64) + 0.5 for size in shape)
    return torch.stack([(x[:, None] - a).square() + (y - b).square() > (d / 2) ** 2 for a, b, d in places])


def spacings_of(batch: int, shape: tuple[int, int]) -> torch.Tensor:
    """Different in each box and along each axis."""
    steps = torch.arange(1, batch + 1, dtype=torch.float64)
    return torch.stack([2.0 / shape[0] * steps, 0.7 / shape[1] * steps.sqrt()], 1)


def random_source(mask: torch.Tensor, outlet: bool, seed: int = 0) -> torch.Tensor:
    """Zero in solid cells; without an outlet of zero mean over the others."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(mask.shape, dtype=torch.float64, generator=generator) * mask
    if outlet:
        return source
    return (source - source.sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True)) * mask


def matrix_of(closed: ClosedFaces, box: int, spacing: tuple[float, float], outlet: bool) -> scipy.sparse.csr_array:
    """The operator, written face by face."""
    nx, ny = closed.y.shape[1], closed.x.shape[2]
    matrix = scipy.sparse.lil_array((nx * ny, nx * ny))

    def flux(cell: int, other: int, weight: float) -> None:
        matrix[cell, cell] -= weight
        matrix[cell, other] += weight

    for i in range(nx):
        for j in range(ny):
            cell = i * ny + j
            if i + 1 < nx and not closed.x[box, i + 1, j]:
                flux(cell, cell + ny, spacing[0] ** -2)
                flux(cell + ny, cell, spacing[0] ** -2)
            if j + 1 < ny and not closed.y[box, i, j + 1]:
                flux(cell, cell + 1, spacing[1] ** -2)
                flux(cell + 1, cell, spacing[1] ** -2)
            if i + 1 == nx and outlet and not closed.x[box, nx, j]:
                matrix[cell, cell] -= 2 * spacing[0] ** -2
    return matrix.tocsr()


def assert_solves(
    solver: BoxPoisson, source: torch.Tensor, spacings: torch.Tensor, outlet: bool, closed: ClosedFaces | None
) -> None:
    """To a few units in the last place of what the operator sums, in the precision of the source."""
    solution = solver(source).double()
    residual = laplacian(solution, spacings, outlet, closed) - source.double()
    terms = solution.abs().amax((1, 2)) * 8 * spacings.square().reciprocal().sum(1)
    assert bool(solution.isfinite().all())
    assert bool((residual.abs().amax((1, 2)) <= 16 * torch.finfo(source.dtype).eps * terms).all())


@st.composite
def boxes(draw):
    """Masks of one to three boxes with discs and rectangles, pockets filled; and whether there is an outlet."""
    shape = draw(st.tuples(st.integers(2, 16), st.integers(2, 13)))
    outlet = draw(st.booleans())
    masks = []
    for _ in range(draw(st.integers(1, 3))):
        mask = np.ones(shape, dtype=bool)
        for _ in range(draw(st.integers(0, 3))):
            x, y = (draw(st.floats(-1, size + 1)) for size in shape)
            if draw(st.booleans()):
                mask &= discs(shape, (x, y, draw(st.floats(0.5, 8))))[0].numpy()
            else:
                width, height = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
                low_x, low_y = max(int(x), 0), max(int(y), 0)
                mask[low_x : low_x + width, low_y : low_y + height] = False
        assume(mask.any())
        regions, _ = scipy.ndimage.label(mask)
        kept = regions[-1].max() if outlet else np.bincount(regions[mask]).argmax()
        mask = (regions == kept) & mask
        assume(mask.sum() > 1)
        masks.append(torch.from_numpy(mask))
    return torch.stack(masks), outlet


@settings(max_examples=60, deadline=None)
@given(boxes(), st.integers(0, 100))
def test_the_solution_is_that_of_a_sparse_direct_solve(box, seed):
    mask, outlet = box
    shape = tuple(mask.shape[1:])
    spacings, closed = spacings_of(len(mask), shape), ClosedFaces.around(mask)
    source = random_source(mask, outlet, seed)
    solution = BoxPoisson(shape, spacings, outlet, closed, torch.float64)(source)
    for number, fluid in enumerate(mask.flatten(1).numpy()):
        matrix = matrix_of(closed, number, tuple(spacings[number].tolist()), outlet)[fluid][:, fluid]
        right = source[number].flatten().numpy()[fluid]
        if not outlet:
            ones = np.ones((len(right), 1))
            matrix = scipy.sparse.block_array([[matrix, ones], [ones.T, None]])
            right = np.append(right, 0)
        expected = np.zeros(fluid.shape)
        expected[fluid] = np.atleast_1d(scipy.sparse.linalg.spsolve(matrix.tocsc(), right))[: fluid.sum()]
        actual = solution[number].flatten().numpy()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11 * (1e-3 + np.abs(expected).max()))


@pytest.mark.parametrize("outlet", [False, True])
def test_the_operator_is_the_matrix_written_face_by_face(outlet):
    generator = torch.Generator().manual_seed(1)
    closed = ClosedFaces(torch.rand(2, 6, 4, generator=generator) < 0.4, torch.rand(2, 5, 5, generator=generator) < 0.4)
    spacings = spacings_of(2, (5, 4))
    field = torch.randn(2, 5, 4, dtype=torch.float64, generator=generator)
    image = laplacian(field, spacings, outlet, closed)
    for box in range(2):
        expected = matrix_of(closed, box, tuple(spacings[box].tolist()), outlet) @ field[box].flatten().numpy()
        np.testing.assert_allclose(image[box].flatten().numpy(), expected, rtol=1e-12, atol=1e-12)
    nothing = ClosedFaces.around(open_box(2, 5, 4))
    torch.testing.assert_close(laplacian(field, spacings, outlet, None), laplacian(field, spacings, outlet, nothing))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("outlet", [False, True])
@pytest.mark.parametrize("shape", [(2, 2), (7, 12), (40, 24), (257, 20), (260, 20)])
def test_the_residual_is_round_off_without_bodies(shape, outlet, dtype):
    spacings = spacings_of(3, shape)
    source = random_source(open_box(3, *shape), outlet).to(dtype)
    assert_solves(BoxPoisson(shape, spacings, outlet, None, dtype), source, spacings, outlet, None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("outlet", [False, True])
@pytest.mark.parametrize("shape", [(40, 24), (260, 24)])
def test_the_residual_is_round_off_with_bodies(shape, outlet, dtype):
    # The second lies against a wall, the third against the outlet.
    mask = discs(shape, (14.3, 11.8, 12), (20, 1, 7), (shape[0] - 1, 12, 9))
    spacings, closed = spacings_of(3, shape), ClosedFaces.around(mask)
    source = random_source(mask, outlet).to(dtype)
    assert_solves(BoxPoisson(shape, spacings, outlet, closed, dtype), source, spacings, outlet, closed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("outlet", [False, True])
def test_the_solution_is_as_accurate_with_bodies_as_without(outlet, dtype):
    # In float32 the rounding errors of the field beside the body must not come back as sources.
    shape = (128, 96)
    mask = discs(shape, (40, 50, 20))
    spacings, source = spacings_of(1, shape), random_source(mask, outlet)
    for closed in (None, ClosedFaces.around(mask)):
        exact = BoxPoisson(shape, spacings, outlet, closed, torch.float64)(source)
        solution = BoxPoisson(shape, spacings, outlet, closed, dtype)(source)
        assert float((solution - exact).abs().max() / exact.abs().max()) <= 32 * torch.finfo(dtype).eps


@pytest.mark.parametrize("outlet", [False, True])
def test_each_box_of_a_batch_is_as_if_alone(outlet):
    shape = (30, 20)
    mask = torch.cat([discs(shape, (8, 9, 8), (20, 14, 3)), open_box(1, *shape), discs(shape, (28, 5, 9))])
    spacings, closed = spacings_of(4, shape), ClosedFaces.around(mask)
    source = random_source(mask, outlet)
    together = BoxPoisson(shape, spacings, outlet, closed, torch.float64)(source)
    for box in range(4):
        one = slice(box, box + 1)
        alone = BoxPoisson(shape, spacings[one], outlet, ClosedFaces(closed.x[one], closed.y[one]), torch.float64)
        torch.testing.assert_close(together[one], alone(source[one]), rtol=1e-11, atol=1e-13)
    without = BoxPoisson(shape, spacings[2:3], outlet, None, torch.float64)
    torch.testing.assert_close(together[2:3], without(source[2:3]), rtol=1e-11, atol=1e-13)


def test_a_box_that_is_not_finite_leaves_the_others_alone():
    mask = discs((12, 10), (5, 5, 4), (6, 5, 3))
    solver = BoxPoisson((12, 10), spacings_of(2, (12, 10)), True, ClosedFaces.around(mask), torch.float64)
    source = random_source(mask, True)
    expected = solver(source)[1]
    source[0, 0, 0] = math.nan
    torch.testing.assert_close(solver(source)[1], expected)


@pytest.mark.parametrize("outlet", [False, True])
def test_the_error_is_of_second_order_beside_a_body(outlet):
    # The gradient of p = (exp(cos 4 pi x) - e) exp(cos(4 pi y) / 2) is zero across x or y = 0, 1/4, ... 1, so that a
    # rectangle between such lines changes nothing; and p is zero at the outlet, x = 1.
    errors = []
    for cells in (32, 64):
        center = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        c, s = torch.cos(4 * math.pi * center), torch.sin(4 * math.pi * center)
        along_x, along_y = c.exp() - math.e, (c / 2).exp()
        second_x = 16 * math.pi**2 * (s.square() - c) * c.exp()
        second_y = 16 * math.pi**2 * (s.square() / 4 - c / 2) * along_y
        exact = along_x[:, None] * along_y
        source = (second_x[:, None] * along_y + along_x[:, None] * second_y).unsqueeze(0)
        mask = open_box(1, cells, cells)
        mask[:, cells // 4 : cells // 2, cells // 4 : 3 * cells // 4] = False
        spacings = torch.full((1, 2), 1 / cells, dtype=torch.float64)
        solver = BoxPoisson((cells, cells), spacings, outlet, ClosedFaces.around(mask), torch.float64)
        error = (solver(source)[0] - exact)[mask[0]]
        if not outlet:
            error = error - error.mean()
        errors.append(float(error.square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("shape", [(12, 10), (256, 3)])
@pytest.mark.parametrize("outlet", [False, True])
def test_the_gradient_is_the_solution_for_what_comes_back(outlet, shape):
    # The operator is symmetric.
    mask = open_box(2, *shape)
    mask[0, 4:7, 1:3] = False
    closed = ClosedFaces.around(mask)
    solver = BoxPoisson(shape, spacings_of(2, shape), outlet, closed, torch.float64)
    source = random_source(mask, outlet).requires_grad_()
    back = random_source(mask, outlet, seed=1)
    (gradient,) = torch.autograd.grad((solver(source) * back).sum(), source)
    torch.testing.assert_close(gradient, solver(back), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("outlet", [False, True])
def test_gradients_agree_with_differences(outlet):
    mask = discs((6, 5), (3, 3, 2.5))
    closed, spacings = ClosedFaces.around(mask), spacings_of(1, (6, 5))
    solver = BoxPoisson((6, 5), spacings, outlet, closed, torch.float64)
    source = random_source(mask, outlet).requires_grad_()
    assert torch.autograd.gradcheck(solver, (source,))
    assert torch.autograd.gradcheck(lambda field: laplacian(field, spacings, outlet, closed), (source,))


def test_solid_cells_are_zero_and_their_source_is_not_read():
    mask = discs((14, 12), (6, 6, 5))
    solver = BoxPoisson((14, 12), spacings_of(1, (14, 12)), False, ClosedFaces.around(mask), torch.float64)
    source = random_source(mask, False)
    solution = solver(source)
    assert bool((solution[~mask] == 0).all())
    assert float(solution.sum()) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(solver(source + 7.0 * ~mask), solution)


@pytest.mark.parametrize("with_body", [False, True])
def test_the_mean_of_the_source_is_left_out_of_an_enclosed_box(with_body):
    mask = discs((14, 12), (6, 6, 5 if with_body else 0))
    spacings, closed = spacings_of(1, (14, 12)), ClosedFaces.around(mask)
    solver = BoxPoisson((14, 12), spacings, False, closed, torch.float64)
    source = random_source(mask, False)
    image = laplacian(solver(source + 3.0 * mask), spacings, False, closed)
    torch.testing.assert_close(image, source, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("outlet", [False, True])
def test_faces_between_fluid_cells_may_be_closed(outlet):
    # A plate across the channel with a gap, and another that ends on a body; part of the outlet is closed, too.
    mask = open_box(1, 12, 9)
    mask[:, 7:9, 3:6] = False
    closed = ClosedFaces.around(mask)
    closed.x[:, 4, :7] = True
    closed.y[:, 9:11, 4] = True
    closed.x[:, -1, 2:5] = True
    spacings = spacings_of(1, (12, 9))
    source = random_source(mask, outlet)
    assert_solves(BoxPoisson((12, 9), spacings, outlet, closed, torch.float64), source, spacings, outlet, closed)


def test_closed_faces_on_walls_change_nothing():
    closed = ClosedFaces.around(open_box())
    closed.x[:, 0], closed.y[..., 0], closed.y[..., -1] = True, True, True
    spacings, source = spacings_of(1, (8, 6)), random_source(open_box(), True)
    expected = BoxPoisson((8, 6), spacings, True, None, torch.float64)(source)
    torch.testing.assert_close(BoxPoisson((8, 6), spacings, True, closed, torch.float64)(source), expected)


@pytest.mark.parametrize("cells", [256, 258, 300])
@pytest.mark.parametrize("outlet", [False, True])
def test_fast_transforms_are_products_with_the_modes(outlet, cells):
    along = BoxPoisson((cells, 2), spacings_of(1, (cells, 2)), outlet, None, torch.float64).x
    field = torch.randn(2, 3, cells, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert along.is_long
    torch.testing.assert_close(along.modes.T @ along.modes, torch.eye(cells, dtype=torch.float64))
    torch.testing.assert_close(along.to_modes(field), field @ along.modes)
    torch.testing.assert_close(along.to_cells(field), field @ along.modes.T)


def test_the_precision_is_that_of_the_solver_and_the_type_that_of_the_source():
    mask = discs((14, 12), (6, 6, 5))
    closed, spacings = ClosedFaces.around(mask), spacings_of(1, (14, 12)).float()
    source = random_source(mask, True).float()
    precise = BoxPoisson((14, 12), spacings, True, closed, torch.float64)
    assert precise(source).dtype == torch.float32
    torch.testing.assert_close(precise(source), precise(source.double()).float(), rtol=0, atol=0)
    assert BoxPoisson((14, 12), spacings, True, closed, torch.float32)(source.double()).dtype == torch.float64


@pytest.mark.parametrize("outlet", [False, True])
def test_a_solver_can_be_converted(outlet):
    shape = (256, 12)
    mask = discs(shape, (6, 6, 5))
    source, closed = random_source(mask, outlet), ClosedFaces.around(mask)
    solver = BoxPoisson(shape, spacings_of(1, shape), outlet, closed, torch.float64)
    expected = solver(source).float()
    solution = solver.to(torch.float32)(source.float())
    assert solver.x.modes.dtype == torch.float32
    torch.testing.assert_close(solution, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_tables_are_not_saved():
    mask = discs((14, 12), (6, 6, 5))
    solver = BoxPoisson((14, 12), spacings_of(1, (14, 12)), True, ClosedFaces.around(mask), torch.float64)
    assert solver.state_dict() == {}
    assert {name.split(".")[0] for name, _ in solver.named_buffers()} == {"modes_y", "inverse_symbol", "x", "bodies"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", [(40, 24), (260, 24)])
@pytest.mark.parametrize("outlet", [False, True])
def test_a_gpu_gives_the_same(outlet, shape):
    mask = discs(shape, (14.3, 11.8, 12), (20, 1, 7))
    spacings, closed = spacings_of(2, shape), ClosedFaces.around(mask)
    solver = BoxPoisson(shape, spacings, outlet, closed, torch.float64)
    source = random_source(mask, outlet)
    expected = solver(source)
    solution = solver.to("cuda")(source.cuda())
    torch.testing.assert_close(solution.cpu(), expected, rtol=1e-10, atol=1e-12)
    image = laplacian(solution, spacings, outlet, closed)
    torch.testing.assert_close(image.cpu(), laplacian(expected, spacings, outlet, closed), rtol=1e-9, atol=1e-9)


def ring() -> torch.Tensor:
    """Two boxes; in the second a wall around four cells."""
    mask = open_box(2, 10, 9)
    mask[1, 2:6, 2:6] = False
    mask[1, 3:5, 3:5] = True
    return mask


def barrier() -> torch.Tensor:
    """A wall from side to side: no way from 24 cells to the outlet, and the smaller part of the box."""
    mask = open_box(1, 10, 8)
    mask[:, 3:5] = False
    return mask


@pytest.mark.parametrize(
    ("mask", "outlet", "message"),
    [
        pytest.param(ring(), False, "in box 1 closed faces cut 4 off from the others", id="pocket"),
        pytest.param(ring(), True, "in box 1 closed faces cut 4 off from the outlet", id="pocket, outlet"),
        pytest.param(barrier(), False, "in box 0 closed faces cut 24 off from the others", id="barrier"),
        pytest.param(barrier(), True, "in box 0 closed faces cut 24 off from the outlet", id="barrier, outlet"),
        pytest.param(
            torch.cat([open_box(), ~open_box()]), False, "fluid cells in every box but all faces of box 1", id="solid"
        ),
    ],
)
def test_cells_that_are_cut_off_are_refused(mask, outlet, message):
    shape = tuple(mask.shape[1:])
    with pytest.raises(ValueError, match=message):
        BoxPoisson(shape, spacings_of(len(mask), shape), outlet, ClosedFaces.around(mask), torch.float64)


def test_a_pocket_behind_plates_and_a_closed_outlet_are_refused():
    closed = ClosedFaces.around(open_box())
    closed.x[:, 3] = True
    with pytest.raises(ValueError, match="in box 0 closed faces cut 18 off from the others"):
        BoxPoisson((8, 6), spacings_of(1, (8, 6)), False, closed, torch.float64)
    closed = ClosedFaces.around(open_box())
    closed.x[:, -1] = True
    with pytest.raises(ValueError, match="in box 0 closed faces cut 48 off from the outlet"):
        BoxPoisson((8, 6), spacings_of(1, (8, 6)), True, closed, torch.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"shape": (1, 6)}, "at least two cells along x and along y", id="one cell"),
        pytest.param({"shape": (8, 6, 4)}, "at least two cells along x and along y", id="three axes"),
        pytest.param({"spacings": torch.ones(2)}, "spacings \\(batch, 2\\)", id="spacings of no batch"),
        pytest.param({"spacings": torch.ones(0, 2)}, "of at least one box", id="no box"),
        pytest.param({"spacings": torch.tensor([[1.0, 0.0]])}, "positive spacings", id="spacing zero"),
        pytest.param({"spacings": torch.tensor([[1.0, math.nan]])}, "positive spacings", id="spacing not a number"),
        pytest.param({"dtype": torch.float16}, "torch.float32 or torch.float64", id="half precision"),
        pytest.param({"shape": (6, 8)}, "of 1 boxes of \\(6, 8\\) cells but got those of 1", id="other shape"),
        pytest.param({"spacings": torch.ones(2, 2)}, "of 2 boxes of \\(8, 6\\) cells but got those of 1", id="batch"),
    ],
)
def test_impossible_boxes_are_refused(change, message):
    arguments = {
        "shape": (8, 6),
        "spacings": torch.ones(1, 2),
        "outlet": True,
        "closed": ClosedFaces.around(open_box()),
        "dtype": torch.float64,
    }
    BoxPoisson(**arguments)
    with pytest.raises(ValueError, match=message):
        BoxPoisson(**arguments | change)


def test_closed_faces_that_do_not_fit_are_refused():
    faces = ClosedFaces.around(open_box())
    with pytest.raises(ValueError, match=r"closed faces of bool but got torch\.int64 and torch\.bool"):
        ClosedFaces(faces.x.long(), faces.y)
    with pytest.raises(ValueError, match="\\(batch, nx \\+ 1, ny\\) and y \\(batch, nx, ny \\+ 1\\)"):
        ClosedFaces(faces.x, faces.y[:, 1:])
    with pytest.raises(ValueError, match="a mask \\(batch, nx, ny\\) of bool but got \\(8, 6\\)"):
        ClosedFaces.around(open_box()[0])


def test_a_source_of_another_shape_is_refused():
    solver = BoxPoisson((8, 6), torch.ones(2, 2), True, None, torch.float64)
    with pytest.raises(ValueError, match="Expected a source \\(2, 8, 6\\) but got \\(8, 6\\)"):
        solver(torch.ones(8, 6))

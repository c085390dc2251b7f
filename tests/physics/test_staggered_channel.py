"""The staggered channel: geometry, operators that fit each other, and the Poisson solver that inverts them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.staggered_channel import (
    ChannelGrid,
    ChannelPoisson,
    divergence,
    pressure_gradient,
    stretched_faces,
)


def grid_of(nx: int = 6, ny: int = 10, nz: int = 5, stretching: float = 1.75, half_height: float = 1.0) -> ChannelGrid:
    return ChannelGrid((4.0, 1.5), (nx, nz), stretched_faces(ny, stretching, half_height))


def random_velocity(grid: ChannelGrid, count: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    velocity = torch.randn(count, 3, *grid.shape, dtype=torch.float64, generator=generator)
    velocity[:, 1, :, 0] = 0
    return velocity


def inner_product(a: torch.Tensor, b: torch.Tensor, grid: ChannelGrid) -> torch.Tensor:
    """Of velocities, each component weighted with the height of its control volume."""
    heights, distances = grid.heights[:, None], grid.distances[:-1, None]
    weights = torch.stack([heights, distances, heights]).unsqueeze(1)
    return (a * b * weights).sum((-4, -3, -2, -1))


grids = st.builds(
    grid_of,
    nx=st.integers(1, 8),
    ny=st.integers(2, 14),
    nz=st.integers(1, 7),
    stretching=st.floats(0, 3),
    half_height=st.floats(0.1, 10),
)


@given(grids)
def test_heights_and_distances_fill_the_channel(grid):
    whole = 2 * grid.half_height
    assert float(grid.heights.sum()) == pytest.approx(whole)
    assert float(grid.distances.sum()) == pytest.approx(whole)
    assert bool((grid.distances > 0).all())
    assert [len(points) for points in grid.coordinates] == list(grid.shape)


@given(cells=st.integers(2, 60), stretching=st.floats(0, 4), half_height=st.floats(0.1, 10))
def test_stretched_faces_are_their_own_mirror_image_and_cluster_at_the_walls(cells, stretching, half_height):
    faces = stretched_faces(cells, stretching, half_height)
    heights = faces.diff()
    assert faces[0] == 0
    assert faces[-1] == 2 * half_height
    torch.testing.assert_close(heights, heights.flip(0), rtol=1e-12, atol=1e-13 * half_height)
    assert bool((heights[: cells // 2].diff() >= -1e-12 * half_height).all())


def test_stretched_faces_give_the_wall_units_of_the_specification():
    # Section 6.6, Re_tau 180, a = 1.75, 48 cells: first center at 0.85, first height 1.70, 13.9 in the middle.
    grid = ChannelGrid((1.0, 1.0), (4, 4), stretched_faces(48))
    assert 180 * float(grid.centers[0]) == pytest.approx(0.85, abs=0.01)
    assert 180 * float(grid.heights[0]) == pytest.approx(1.70, abs=0.01)
    assert 180 * float(grid.heights[24]) == pytest.approx(13.9, abs=0.1)


@settings(max_examples=40)
@given(grids, st.integers(0, 100))
def test_gradient_is_minus_the_adjoint_of_divergence(grid, seed):
    velocity = random_velocity(grid, 1, seed)
    pressure = random_velocity(grid, 1, seed + 1)[:, 0]
    left = (divergence(velocity, grid) * pressure * grid.heights[:, None]).sum((-3, -2, -1))
    right = -inner_product(velocity, pressure_gradient(pressure, grid), grid)
    torch.testing.assert_close(
        left, right, rtol=1e-10, atol=1e-9 * float(pressure_gradient(pressure, grid).abs().sum())
    )


def test_operators_are_exact_for_linear_fields():
    grid = grid_of(stretching=2.0)
    y = grid.centers[:, None].expand(grid.shape)
    gradient = pressure_gradient(3 * y, grid)
    torch.testing.assert_close(gradient[1, :, 1:], torch.full_like(gradient[1, :, 1:], 3.0))
    assert gradient[[0, 2]].abs().max() == 0
    velocity = torch.zeros(3, *grid.shape, dtype=torch.float64)
    velocity[1] = grid.faces[:-1, None]
    # The face on the far wall is zero, not 2 h.
    torch.testing.assert_close(divergence(velocity, grid)[:, :-1], torch.ones(6, 9, 5, dtype=torch.float64))


@settings(max_examples=40)
@given(grids, st.integers(0, 100))
def test_poisson_inverts_divergence_of_gradient(grid, seed):
    poisson = ChannelPoisson(grid)
    weights = grid.heights[:, None]
    pressure = random_velocity(grid, 2, seed)[:, 0]
    pressure = pressure - (pressure * weights).mean((-3, -2, -1), keepdim=True) / weights.mean()
    solved = poisson(divergence(pressure_gradient(pressure, grid), grid))
    # The condition of the problem times round-off.
    condition = float(1 / poisson.inverse_symbol[poisson.inverse_symbol != 0].abs().min())
    condition *= float(poisson.inverse_symbol.abs().max())
    torch.testing.assert_close(solved, pressure, rtol=0, atol=1e-14 * max(condition, 10))
    assert float((solved * weights).sum((-3, -2, -1)).abs().max()) < 1e-12 * solved.numel() * max(condition, 10)


@settings(max_examples=40)
@given(grids, st.integers(0, 100))
def test_projection_is_orthogonal_and_keeps_flow_rates(grid, seed):
    poisson = ChannelPoisson(grid)
    velocity = random_velocity(grid, 2, seed)
    free = poisson.project(velocity)
    scale = float(divergence(velocity, grid).abs().max()) + 1
    assert float(divergence(free, grid).abs().max()) < 1e-11 * scale
    torch.testing.assert_close(poisson.project(free), free, rtol=0, atol=1e-11)
    change = velocity - free
    assert float(inner_product(free, change, grid).abs().max()) < 1e-9 * float(inner_product(free, free, grid).max())
    assert float((change[:, [0, 2]].mean((2, 4))).abs().max()) < 1e-11
    assert float(change[:, 1, :, 0].abs().max()) == 0


def test_poisson_is_of_second_order_on_a_stretched_grid():
    errors = []
    for cells in (16, 32, 64):
        grid = ChannelGrid((2.0, 3.0), (cells, cells), stretched_faces(cells, 1.5))
        x, y, z = torch.meshgrid(*grid.coordinates, indexing="ij")
        wave = torch.cos(math.pi * x) * torch.cos(math.pi * y) * torch.sin(2 * math.pi / 3 * z)
        found = ChannelPoisson(grid)(-(2 * math.pi**2 + (2 * math.pi / 3) ** 2) * wave)
        errors.append(float((found - wave).abs().max()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


def test_poisson_keeps_precision_and_leading_axes():
    grid = grid_of()
    right_side = random_velocity(grid)  # three fields of two members
    exact = ChannelPoisson(grid)(right_side)
    single = ChannelPoisson(grid, "float32")
    assert exact.shape == right_side.shape
    assert single(right_side.float()).dtype == torch.float32
    assert single(right_side).dtype == torch.float64
    torch.testing.assert_close(single(right_side), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    torch.testing.assert_close(ChannelPoisson(grid)(right_side[0, 1]), exact[0, 1], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"faces": torch.tensor([0.0, 1.0, 0.5, 2.0])}, r"increase from wall to wall but got \[0.0, 1.0, 0.5, 2.0\]"),
        ({"faces": torch.tensor([0.0, 1.0, 1.0, 2.0])}, "twice"),
        ({"faces": torch.tensor([0.0, math.nan, 2.0])}, "increase"),
        ({"faces": torch.tensor([0.0, 2.0])}, "at least two cells"),
        ({"faces": torch.zeros(3, 3)}, "shape"),
        ({"lengths": (1.0, 0.0)}, "two positive lengths"),
        ({"points": (0, 4)}, "two positive numbers of cells"),
    ],
)
def test_bad_geometry_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChannelGrid(**{"lengths": (1.0, 1.0), "points": (4, 4), "faces": stretched_faces(4), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1,), "at least two cells"), ((4, -1.0), "stretching"), ((4, 1.0, 0.0), "positive half_height")],
)
def test_bad_faces_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        stretched_faces(*arguments)


def test_fields_of_another_grid_are_refused():
    grid = grid_of()
    with pytest.raises(ValueError, match=r"velocity .* on \(6, 10, 5\) cells .* but got \(3, 6, 11, 5\)"):
        divergence(torch.zeros(3, 6, 11, 5), grid)
    with pytest.raises(ValueError, match=r"velocity \(..., 3, nx, ny, nz\) but got \(2, 6, 10, 5\)"):
        divergence(torch.zeros(2, 6, 10, 5), grid)
    with pytest.raises(ValueError, match="pressure"):
        pressure_gradient(torch.zeros(6, 10), grid)
    with pytest.raises(ValueError, match="right side"):
        ChannelPoisson(grid)(torch.zeros(6, 10, 4))

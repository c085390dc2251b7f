"""The gradient of a staggered channel flow: exact where it can be, of second order elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.staggered_channel import ChannelGrid, divergence, stretched_faces
from pdesurrogate.physics.velocity_gradient import velocity_at_centers, velocity_gradient

LENGTHS = (math.pi, 2.0)


def channel(points=(6, 4), cells=7, faces=None):
    return ChannelGrid(LENGTHS, points, stretched_faces(cells) if faces is None else faces)


def uneven_faces(cells, seed):
    """From 0 to 2, neighbors up to six times as high."""
    heights = 0.2 + torch.rand(cells, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([heights.new_zeros(1), heights.cumsum(0)]) * (2 / heights.sum())


def positions(grid):
    """Of x-faces, y-faces and z-faces: three (x, y, z), each to broadcast to (nx, ny, nz)."""
    (nx, _, nz), (x, y, z) = grid.shape, (None, grid.centers, None)
    x = (torch.arange(nx, dtype=torch.float64) + 0.5) * grid.spacing_x
    z = (torch.arange(nz, dtype=torch.float64) + 0.5) * grid.spacing_z
    centers = x[:, None, None], y[:, None], z
    below = (x - grid.spacing_x / 2)[:, None, None], grid.faces[:-1, None], z - grid.spacing_z / 2
    return [tuple(below[b] if b == a else centers[b] for b in range(3)) for a in range(3)], centers


def sampled(functions, grid):
    """Staggered ``(3, nx, ny, nz)`` of three functions of (x, y, z)."""
    staggered, _ = positions(grid)
    return torch.stack(
        [
            torch.as_tensor(f(*p), dtype=torch.float64).expand(grid.shape)
            for f, p in zip(functions, staggered, strict=True)
        ]
    )


def random_velocity(grid, batch=2, seed=0):
    velocity = torch.randn(batch, 3, *grid.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    velocity[:, 1, :, 0] = 0
    return velocity


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(-3, 3), min_size=12, max_size=12))
def test_linear_fields_are_exact_on_any_grid_away_from_walls_and_seams(seed, numbers):
    grid = channel(faces=uneven_faces(8, seed))
    slopes = torch.tensor(numbers[:9], dtype=torch.float64).reshape(3, 3)
    velocity = sampled(
        [lambda *p, a=a: numbers[9 + a] + sum(slopes[a, b] * p[b] for b in range(3)) for a in range(3)], grid
    )
    found = velocity_gradient(velocity, grid)[..., 1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(found, slopes[..., None, None, None].expand(found.shape), rtol=0, atol=1e-11)
    middle = velocity_at_centers(velocity, grid)[..., :-1, :-1, :-1]
    _, centers = positions(grid)
    expected = [numbers[9 + a] + sum(slopes[a, b] * centers[b] for b in range(3)) for a in range(3)]
    expected = torch.stack([each.expand(grid.shape)[:-1, :-1, :-1] for each in expected])
    torch.testing.assert_close(middle, expected, rtol=0, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(-3, 3))
def test_parabolas_that_stand_on_the_walls_are_exact_up_to_them(seed, along, across):
    grid = channel(faces=uneven_faces(6, seed))
    velocity = sampled(
        [lambda x, y, z: along * y * (2 - y), lambda *p: 0.0, lambda x, y, z: across * y * (2 - y)], grid
    )
    found = velocity_gradient(velocity, grid)
    slope = (2 - 2 * grid.centers)[:, None].expand(grid.shape)
    expected = torch.zeros_like(found)
    expected[0, 1], expected[2, 1] = along * slope, across * slope
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_second_order_on_a_stretched_grid_walls_included():
    kx, kz = (2 * math.pi / length for length in LENGTHS)
    functions = [
        lambda x, y, z: torch.sin(kx * x) * torch.sin(math.pi * y) * torch.cos(kz * z),
        lambda x, y, z: torch.cos(kx * x) * torch.sin(math.pi * y / 2) ** 2 * torch.sin(kz * z),
        lambda x, y, z: torch.sin(kx * x + 1) * torch.sin(math.pi * y / 2) * torch.sin(kz * z),
    ]
    errors = []
    for size in (16, 32, 64):
        grid = channel((size, size), size)
        _, centers = positions(grid)
        points = torch.stack([each.expand(grid.shape) for each in centers]).requires_grad_()
        expected = torch.stack(
            [torch.autograd.grad(f(*points).sum(), points, materialize_grads=True)[0] for f in functions]
        )
        wrong = (velocity_gradient(sampled(functions, grid), grid) - expected).abs()
        errors.append(wrong.amax((-3, -2, -1)))
    orders = torch.log2(errors[1] / errors[2])
    assert bool((orders > 1.9).all()), orders
    assert bool((torch.log2(errors[0] / errors[1]) > 1.7).all())


def test_the_trace_is_the_discrete_divergence():
    grid = channel()
    velocity = random_velocity(grid)
    trace = velocity_gradient(velocity, grid).diagonal(dim1=1, dim2=2).sum(-1)
    torch.testing.assert_close(trace, divergence(velocity, grid), rtol=0, atol=1e-12)


def test_a_frame_that_moves_along_the_walls_changes_only_the_cells_next_to_them():
    grid = channel()
    velocity = random_velocity(grid)
    moving = velocity + torch.tensor([3.0, 0.0, -2.0], dtype=torch.float64)[:, None, None, None]
    change = velocity_gradient(moving, grid) - velocity_gradient(velocity, grid)
    assert float(change[..., 1:-1, :].abs().max()) < 1e-12
    assert float(change[..., [0, -1], :].abs().max()) > 1


def test_the_mirror_image_has_the_mirrored_gradient():
    grid = channel()
    velocity = random_velocity(grid)
    mirrored = velocity.flip(-2)
    mirrored[:, 1] = -torch.cat([0 * velocity[:, 1, :, :1], velocity[:, 1, :, 1:].flip(-2)], -2)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    signs = (sign[:, None] * sign)[..., None, None, None]
    expected = signs * velocity_gradient(velocity, grid).flip(-2)
    torch.testing.assert_close(velocity_gradient(mirrored, grid), expected, rtol=0, atol=1e-12)


def test_single_precision_stays_single():
    grid = channel()
    velocity = random_velocity(grid)
    found = velocity_gradient(velocity.float(), grid)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), velocity_gradient(velocity, grid), rtol=0, atol=1e-4)


def test_a_velocity_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"velocity \(\.\.\., 3, nx, ny, nz\) but got \(2, 4, 6, 7, 4\); leave"):
        velocity_gradient(torch.zeros(2, 4, 6, 7, 4), channel())
    with pytest.raises(ValueError, match=r"velocity .* on \(6, 7, 4\) cells .* but got \(3, 6, 7, 5\)"):
        velocity_at_centers(torch.zeros(3, 6, 7, 5), channel())

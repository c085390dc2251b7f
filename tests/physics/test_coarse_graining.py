"""Coarse fields of a staggered channel: continuity to round-off, conserved means, second order, walls at rest."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.coarse_graining import Coarsening, collocated, collocated_cells, collocated_coordinates
from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson, divergence, stretched_faces


def channel(nx=8, ny=12, nz=6, lengths=(2 * math.pi, math.pi)):
    return ChannelGrid(lengths, (nx, nz), stretched_faces(ny))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def staggered(grid, seed=0, batch=()):
    """Noise that does not flow through the lower wall."""
    velocity = noise(*batch, 3, *grid.shape, seed=seed)
    velocity[..., 1, :, 0, :] = 0
    return velocity


@st.composite
def coarsenings(draw):
    factors = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((1, 2, 3)))
    ny = draw(st.integers(3, 10))
    inner = draw(st.sets(st.integers(1, ny - 1), min_size=1))
    fine = channel(2 * factors[0], ny, 2 * factors[1])
    return Coarsening(fine, factors, (0, *sorted(inner), ny))


@given(coarsening=coarsenings(), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_the_divergence_of_a_coarse_cell_is_the_mean_of_its_fine_cells(coarsening, seed):
    velocity = staggered(coarsening.fine, seed)
    found = divergence(coarsening.velocity(velocity), coarsening.grid)
    expected = coarsening.cells(divergence(velocity, coarsening.fine))
    # Velocities of order one through faces some hundredths apart.
    assert torch.allclose(found, expected, atol=1e-11)


def test_a_flow_free_of_divergence_stays_so_to_round_off():
    grid = channel(12, 16, 8)
    velocity = ChannelPoisson(grid).project(staggered(grid, batch=(2,)))
    for coarsening in (Coarsening.onto(grid, (4, 8, 2)), Coarsening(grid, (2, 4), (0, 1, 3, 8, 15, 16))):
        coarse = coarsening.velocity(velocity)
        assert coarse.shape == (2, 3, *coarsening.grid.shape)
        assert divergence(coarse, coarsening.grid).abs().max() < 1e-12
        assert not coarse[:, 1, :, 0].any()
    # In single precision too, as far as it goes: heights down to 0.01 of velocities of order one.
    single = Coarsening.onto(grid, (4, 8, 2))
    assert divergence(single.velocity(velocity.float()), single.grid).abs().max() < 1e-4


@given(coarsening=coarsenings(), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_flow_rates_and_means_over_the_box_are_kept(coarsening, seed):
    fine, coarse = coarsening.fine, coarsening.grid
    velocity = staggered(fine, seed)
    found = coarsening.velocity(velocity)
    # Through every coarse face across x or z, and over the whole box for cells.
    rate = (velocity[0] * fine.heights[:, None]).sum((1, 2)) * fine.spacing_z
    coarse_rate = (found[0] * coarse.heights[:, None]).sum((1, 2)) * coarse.spacing_z
    assert torch.allclose(coarse_rate, rate[:: coarsening.factors[0]])
    mean = (velocity[2] * fine.heights[:, None]).mean((0, 2)).sum()
    coarse_mean = (coarsening.cells(velocity[2]) * coarse.heights[:, None]).mean((0, 2)).sum()
    assert torch.allclose(coarse_mean, mean)
    assert torch.allclose(coarsening.heights.sum(1), torch.ones(coarse.shape[1], dtype=torch.float64))


def test_the_finest_coarsening_changes_nothing_and_two_are_one():
    grid = channel(8, 12, 4)
    velocity, pressure = staggered(grid), noise(*grid.shape, seed=1)
    same = Coarsening.onto(grid, grid.shape)
    assert torch.equal(same.velocity(velocity), velocity)
    assert torch.equal(same.cells(pressure), pressure)
    first = Coarsening.onto(grid, (4, 6, 4))
    second = Coarsening.onto(first.grid, (2, 3, 2))
    once = Coarsening.onto(grid, (2, 3, 2))
    assert torch.allclose(second.velocity(first.velocity(velocity)), once.velocity(velocity))
    assert torch.allclose(second.cells(first.cells(pressure)), once.cells(pressure))
    assert torch.equal(second.grid.faces, once.grid.faces)


def test_a_uniform_stream_is_the_same_on_every_grid():
    coarsening = Coarsening(channel(), (2, 3), (0, 2, 7, 12))
    velocity = torch.zeros(3, *coarsening.fine.shape, dtype=torch.float64)
    velocity[0], velocity[2] = 1.5, -0.5
    coarse = coarsening.velocity(velocity)
    assert torch.allclose(coarse[0], torch.tensor(1.5, dtype=torch.float64))
    assert torch.allclose(coarse[2], torch.tensor(-0.5, dtype=torch.float64))


def smooth(x, y, z):
    """A velocity that vanishes on walls at 0 and 2; each component a function of all coordinates."""
    rest = y * (2 - y) * torch.exp(y / 2)
    waves = torch.sin(x) * torch.cos(2 * z), torch.cos(x) * torch.sin(2 * z), torch.sin(x + 1) * torch.sin(2 * z)
    return torch.stack([rest * wave for wave in waves])


def on_faces(grid):
    x, y, z = grid.coordinates
    below = x - grid.spacing_x / 2, grid.faces[:-1], z - grid.spacing_z / 2
    meshes = ((below[0], y, z), (x, below[1], z), (x, y, below[2]))
    return torch.stack([smooth(*torch.meshgrid(*mesh, indexing="ij"))[i] for i, mesh in enumerate(meshes)])


def test_collocation_is_of_second_order_on_stretched_heights():
    errors = []
    for n in (16, 32, 64):
        grid = channel(n, n, n // 2)
        exact = smooth(*torch.meshgrid(*collocated_coordinates(grid), indexing="ij"))
        errors.append((collocated(on_faces(grid), grid) - exact).abs().amax((1, 2, 3)))
    for coarse, fine in pairwise(errors):
        # The component across the channel is where it is wanted already.
        assert (coarse[[0, 2]] / fine[[0, 2]] > 3.5).all()
    assert errors[-1][1] < 1e-15


def test_cells_are_brought_to_the_same_points_in_second_order_and_lines_exactly():
    errors = []
    for n in (16, 32, 64):
        grid = channel(4, n, 4)
        _, y, _ = grid.coordinates
        lines = torch.stack([3 * y - 1, torch.exp(y)])[..., None].expand(2, n, 4).unsqueeze(1).expand(2, 4, n, 4)
        found = collocated_cells(lines, grid)[:, 0, :, 0]
        assert torch.allclose(found[0], 3 * grid.faces - 1)
        errors.append((found[1] - torch.exp(grid.faces)).abs().max())
    assert errors[0] / errors[1] > 3.5
    assert errors[1] / errors[2] > 3.5


def test_walls_are_exactly_at_rest_whatever_is_stored_there():
    grid = channel()
    velocity = noise(3, *grid.shape)
    found = collocated(velocity, grid)
    assert found.shape == (3, 8, 13, 6)
    assert not found[:, :, [0, -1]].any()
    assert [len(points) for points in collocated_coordinates(grid)] == [8, 13, 6]


def test_what_does_not_fit_is_refused():
    grid = channel(8, 12, 6)
    for shape in ((3, 12, 6), (8, 12, 4), (8, 5, 6)):
        with pytest.raises(ValueError, match="divide the fine"):
            Coarsening.onto(grid, shape)
    with pytest.raises(ValueError, match="positive numbers of cells"):
        Coarsening.onto(grid, (8, 0, 6))
    with pytest.raises(ValueError, match="4 faces to keep for 3 cells but got 3"):
        Coarsening.onto(grid, (8, 3, 6), (0, 4, 12))
    for kept in ((0, 12), (1, 5, 12), (0, 5, 11), (0, 5, 5, 12), (0, 7, 5, 12)):
        with pytest.raises(ValueError, match="increasing numbers of faces, from 0 to 12"):
            Coarsening(grid, (1, 1), kept)
    for factors in ((3, 1), (0, 1), (1, 4)):
        with pytest.raises(ValueError, match="whole factors"):
            Coarsening(grid, factors, (0, 6, 12))
    coarsening = Coarsening.onto(grid, (4, 6, 3))
    with pytest.raises(ValueError, match="8, 12, 6"):
        coarsening.velocity(noise(3, 8, 12, 5))
    with pytest.raises(ValueError, match="velocity"):
        coarsening.velocity(noise(2, 8, 12, 6))
    with pytest.raises(ValueError, match="velocity"):
        collocated(noise(8, 12, 6), grid)
    for refused in (coarsening.cells, lambda values: collocated_cells(values, grid)):
        with pytest.raises(ValueError, match="8, 12, 6"):
            refused(noise(8, 13, 6))

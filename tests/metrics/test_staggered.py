"""A staggered channel has the statistics of the same flow on common points; walls are told or follow from the cells."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import block_of, context_of, measure
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata, cell_faces
from pdesurrogate.metrics.channel import ChannelGeometry, ChannelHistoryMetric, ChannelMetric
from pdesurrogate.metrics.conservation import DivergenceMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.profiles import height_weights, walls_around
from pdesurrogate.metrics.staggered import apply_along, faces_to_centers, is_staggered, moved_along
from pdesurrogate.metrics.vortices import VortexMetric, difference_matrix, q_criterion, spectral_derivative_matrix
from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson, stretched_faces

FACES = ("face_x", "face_y", "face_z")
LENGTHS = (2 * math.pi, math.pi)
VISCOSITY = 0.01


def channel_grid(nx=8, ny=12, nz=6):
    return ChannelGrid(LENGTHS, (nx, nz), stretched_faces(ny))


def plan_of_channel(grid, locations=FACES, trajectories=2, frames=3, attributes=None, bounds=None):
    axes = Grid((Axis("x", period=LENGTHS[0]), Axis("y", bounds=bounds), Axis("z", period=LENGTHS[1])))
    channels = tuple(Channel(f"velocity_{a}", location=each) for a, each in zip("xyz", locations, strict=True))
    metadata = Metadata("channel", axes, channels, 0.1, parameters=("viscosity",), attributes=attributes or {})
    return RolloutPlan(metadata, trajectories, frames, grid.coordinates)


def flow(plan, places, seed=0):
    """Rollouts of random waves times cubics that vanish on the walls, at the places ``(x, y, z)`` of each component."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.empty(plan.trajectories, plan.frames, 3, *plan.shape, dtype=torch.float64)
    for trajectory in frames:
        for frame in trajectory:
            random = torch.randn(3, 8, generator=generator, dtype=torch.float64)
            for number, ((x, y, z), r) in enumerate(zip(places, random, strict=True)):
                x, y, z = torch.meshgrid(x, y, z, indexing="ij")
                # The component across the channel grows as the square of the distance from the lower wall.
                near = y.square() if number == 1 else y * (1 + 0.2 * y)
                wave = r[0] * torch.sin(x + 2 * z + r[1]) + r[2] * torch.cos(2 * x - 2 * z + r[3]) + r[4] * torch.sin(x)
                frame[number] = near * (2 - y) * (wave + (2.0 if number == 0 else 0.0))
    return frames


def on_faces(plan, grid, seed=0):
    x, y, z = grid.coordinates
    below_x, below_z = x - grid.spacing_x / 2, z - grid.spacing_z / 2
    return flow(plan, ((below_x, y, z), (x, grid.faces[:-1], z), (x, y, below_z)), seed)


def in_cells(plan, grid, seed=0):
    return flow(plan, (grid.coordinates,) * 3, seed)


def measured(metric, prediction, target):
    context = context_of(metric.plan, len(target), parameters=torch.full((len(target), 1), VISCOSITY))
    return measure(metric, prediction, target, context=context)


@pytest.fixture
def grid():
    return channel_grid()


@pytest.mark.parametrize("build", [ChannelMetric, ChannelHistoryMetric, LineSpectrumMetric])
def test_a_staggered_flow_has_the_statistics_of_the_same_flow_in_cells(grid, build):
    staggered, collocated = plan_of_channel(grid), plan_of_channel(grid, ("cell",) * 3)
    found = measured(build(staggered), on_faces(staggered, grid, 1), on_faces(staggered, grid))
    expected = measured(build(collocated), in_cells(collocated, grid, 1), in_cells(collocated, grid))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # Fourth moments of few points depend on where these are; means, squares and products do not.
        if "flatness" in name or "skewness" in name:
            continue
        # Interpolation is exact for cubics and resolved waves; roots of variances of 1e-16 are 1e-8.
        assert torch.allclose(found[name], values, rtol=1e-7, atol=1e-7, equal_nan=True), name


def test_q_of_a_staggered_flow_is_that_of_its_centers_with_walls_at_rest(grid):
    plan = plan_of_channel(grid)
    found = measured(VortexMetric(plan), on_faces(plan, grid), on_faces(plan, grid))
    x, y, z = grid.coordinates
    nodes = torch.cat([grid.faces[:1], y, grid.faces[-1:]])
    across = difference_matrix(nodes)[1:-1, 1:-1]
    along = spectral_derivative_matrix(x, LENGTHS[0]), spectral_derivative_matrix(z, LENGTHS[1])
    q = q_criterion(in_cells(plan, grid), (along[0], across, along[1]))
    weights = (grid.heights / 2)[:, None]
    rms = (q.square() * weights).sum(3).mean((2, 3)).mean().sqrt()
    assert found["q_criterion_rms_truth"].item() == pytest.approx(rms.item())
    assert found["vortex_fraction_truth"].item() == pytest.approx(((q > 0) * weights).sum(3).mean().item())


def test_q_of_a_staggered_periodic_flow_is_the_exact_one():
    axes = Grid((Axis("x", period=2 * math.pi), Axis("y", period=2 * math.pi)))
    channels = (Channel("velocity_x", location="face_x"), Channel("velocity_y", location="face_y"))
    plan = RolloutPlan(Metadata("box", axes, channels, 0.1), 1, 1, axes.uniform_coordinates((12, 10)))
    x, y = torch.meshgrid(*plan.coordinates, indexing="ij")
    u = torch.sin(x - math.pi / 12) * torch.cos(y)
    v = -torch.cos(x) * torch.sin(y - math.pi / 10)
    target = torch.stack([u, v]).expand(1, 1, 2, 12, 10)
    # Taylor-Green vortices: Q is -(cos 2x + cos 2y) / 2.
    assert measure(VortexMetric(plan), target, target)["q_criterion_rms_truth"].item() == pytest.approx(0.5)
    uneven = replace(plan, coordinates=(plan.coordinates[0] ** 1.02, plan.coordinates[1]))
    with pytest.raises(ValueError, match="evenly spaced axes"):
        VortexMetric(uneven)


def test_bulk_velocity_of_cells_is_the_mean_flow_rate(grid):
    plan = plan_of_channel(grid, trajectories=1, frames=1)
    target = torch.zeros(1, 1, 3, *grid.shape, dtype=torch.float64)
    target[:, :, 0] = torch.randn(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = measured(ChannelHistoryMetric(plan), target, target)["channel_bulk_velocity_truth"]
    assert found.item() == pytest.approx((target[0, 0, 0].mean((0, 2)) @ grid.heights / 2).item(), rel=1e-12)


@pytest.mark.parametrize("build", [ChannelMetric, ChannelHistoryMetric, LineSpectrumMetric, VortexMetric])
def test_updates_need_no_values_on_the_host(grid, build):
    plan = plan_of_channel(grid)
    metric = build(plan).to("meta")
    fields = torch.zeros(2, 3, 3, *plan.shape, device="meta")
    context = context_of(plan, 2, parameters=torch.zeros(2, 1, device="meta"))
    context = context._replace(coordinates=tuple(points.to("meta") for points in context.coordinates))
    metric.update(block_of(plan, fields, fields, 0, torch.arange(2, device="meta"), context))
    assert metric.device.type == "meta"


# Interpolation.


@given(size=st.integers(4, 9), wave=st.integers(0, 4), cells=st.floats(-2, 2), axis=st.sampled_from([-1, -2, -3]))
def test_resolved_waves_are_moved_exactly(size, wave, cells, axis):
    wave = min(wave, (size - 1) // 2)
    x = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    values = torch.cos(wave * x + 1).reshape(-1, *(1,) * (-axis - 1)).expand(2, *(size,) * 3)
    moved = moved_along(values, axis, cells).movedim(axis, -1)
    assert torch.allclose(moved, torch.cos(wave * (x + cells * 2 * math.pi / size) + 1), atol=1e-12)


@given(n=st.integers(3, 12), stretching=st.floats(0, 2.5), power=st.integers(0, 2))
def test_cubics_that_vanish_on_the_upper_wall_are_interpolated_exactly(n, stretching, power):
    faces = stretched_faces(n, stretching)
    centers = (faces[1:] + faces[:-1]) / 2
    matrix = faces_to_centers(centers, (0.0, 2.0))
    assert torch.allclose(matrix @ (faces[:-1] ** power * (2 - faces[:-1])), centers**power * (2 - centers))


def test_interpolation_across_the_channel_is_of_fourth_order():
    errors = []
    for n in (16, 32, 64):
        grid = channel_grid(ny=n)
        matrix = faces_to_centers(grid.centers, (0.0, 2.0))
        exact = torch.sin(math.pi * grid.centers / 2) ** 2
        errors.append((matrix @ torch.sin(math.pi * grid.faces[:-1] / 2) ** 2 - exact).abs().max())
    assert errors[0] / errors[1] > 12
    assert errors[1] / errors[2] > 12


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_a_matrix_acts_along_any_axis(axis):
    values = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    matrix = torch.randn(6, values.shape[axis], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.einsum("mn,...n->...m", matrix.float(), values.movedim(axis, -1)).movedim(-1, axis)
    assert torch.allclose(apply_along(matrix, values, axis), expected, atol=1e-6)


def test_only_components_on_the_faces_that_they_cross_count_as_staggered(grid):
    assert is_staggered(plan_of_channel(grid))
    assert not is_staggered(plan_of_channel(grid, ("face_y", "face_x", "face_z")))
    assert not is_staggered(plan_of_channel(grid, ("cell",) * 3))


# Walls.


@given(n=st.integers(4, 40), stretching=st.floats(0.1, 2.0), low=st.floats(-3, 3), scale=st.floats(0.1, 10))
def test_faces_and_walls_follow_from_the_centers(n, stretching, low, scale):
    faces = low + scale * stretched_faces(n, stretching)
    centers, walls = (faces[1:] + faces[:-1]) / 2, (float(faces[0]), float(faces[-1]))
    assert torch.allclose(cell_faces(centers, walls), faces, atol=1e-12 * max(scale, 1) * 10)
    assert torch.allclose(height_weights(centers, walls), faces.diff() / (2 * scale))
    if n % 2 == 0:
        assert walls_around(centers) == pytest.approx(walls, abs=1e-11 * max(scale, 1))


def test_faces_follow_from_single_precision_too():
    for n in (48, 256):
        faces = stretched_faces(n, 2.0)
        centers = ((faces[1:] + faces[:-1]) / 2).float().double()
        # A few hundred roundings of 1e-7 against cells of 1e-3 and more.
        assert (cell_faces(centers, (0.0, 2.0)) - faces).abs().max() < 1e-6
        assert walls_around(centers) == pytest.approx((0.0, 2.0), abs=1e-6)


def test_nodes_and_other_points_have_faces_half_way():
    nodes = stretched_faces(6)
    expected = torch.cat([nodes[:1], (nodes[1:] + nodes[:-1]) / 2, nodes[-1:]])
    assert torch.equal(cell_faces(nodes, (0.0, 2.0)), expected)


def test_walls_may_be_the_bounds_of_the_axis():
    odd = channel_grid(ny=13)
    assert walls_around(odd.centers) is None
    plan = plan_of_channel(odd, bounds=(0.0, 2.0))
    assert ChannelMetric(plan).channel.geometry.walls == (0.0, 2.0)
    assert LineSpectrumMetric(plan).geometry.walls == (0.0, 2.0)


def test_bounds_make_the_divergence_of_stretched_cells_that_of_the_solver():
    grid = channel_grid(ny=13)
    generator = torch.Generator().manual_seed(0)
    velocity = torch.randn(2, 3, 3, *grid.shape, dtype=torch.float64, generator=generator)
    velocity[:, :, 1, :, 0] = 0
    free = ChannelPoisson(grid).project(velocity)
    known, unknown = (
        measured(DivergenceMetric(plan_of_channel(grid, bounds=bounds)), free, free) for bounds in ((0.0, 2.0), None)
    )
    assert known["relative_divergence_truth"].max() < 1e-13
    assert unknown["relative_divergence_truth"].min() > 1e-3


def test_walls_of_an_odd_number_of_stretched_cells_must_be_given():
    plan = plan_of_channel(channel_grid(ny=13))
    for build in (ChannelMetric, ChannelHistoryMetric, LineSpectrumMetric, VortexMetric):
        with pytest.raises(ValueError, match="bounds of the axis"):
            build(plan)
    assert ChannelMetric(plan, walls=(0.0, 2.0)).channel.geometry.half_height == 1.0


def test_one_staggered_component_finds_the_heights_of_the_others(grid):
    plan = plan_of_channel(grid)
    metric = LineSpectrumMetric(plan, [0.5, 1.0], channels=["velocity_y"])
    target = on_faces(plan, grid)
    alone = measured(metric, target, target)["line_spectrum_x_truth"]
    together = measured(LineSpectrumMetric(plan, [0.5, 1.0]), target, target)["line_spectrum_x_truth"]
    assert torch.allclose(alone[0], together[1])


def test_geometry_of_staggered_cells_is_that_of_the_solver(grid):
    geometry = ChannelGeometry.of(plan_of_channel(grid), "a test", [0])
    assert geometry.walls == pytest.approx((0.0, 2.0), abs=1e-12)
    assert torch.allclose(cell_faces(geometry.points, geometry.walls), grid.faces)

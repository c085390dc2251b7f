"""What archives hold of a channel flow: continuity, walls at rest, channels and coordinates that fit, wall units."""

import pytest
import torch
from jsonargparse import ArgumentParser

from pdesurrogate.fields.grid import Axis, Grid, Metadata
from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson, divergence
from pdesurrogate.simulators.channel.coarsening import ChannelCoarsening, CollocatedCoarsening, wall_units
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.forcing import MassFlux, PressureGradient
from pdesurrogate.simulators.generation.protocols import Reduction
from pdesurrogate.simulators.navier_stokes import NavierStokes2d


def solver(shape=(8, 12, 6), **options):
    return ChannelFlow(shape, (4.0, 2.0), frame_interval=0.1, steps_per_frame=10, **{"viscosity": 0.01, **options})


def state_of(simulator, batch=2):
    """Noise without divergence and any pressure, in float64."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(batch, 4, *simulator.shape, generator=generator, dtype=torch.float64)
    state[:, 1, :, 0] = 0
    state[:, :3] = ChannelPoisson(simulator.channel_grid).project(state[:, :3])
    return state


@pytest.mark.parametrize("kept", [None, (0, 1, 6, 12)])
def test_stored_staggered_frames_are_free_of_divergence(kept):
    simulator = solver()
    frames = ChannelCoarsening((4, 6 if kept is None else 3, 3), kept).on(simulator)
    found = frames.apply(state_of(simulator))
    faces = simulator.channel_grid.faces[::2] if kept is None else simulator.channel_grid.faces[list(kept)]
    coarse = ChannelGrid((4.0, 2.0), (4, 3), faces)
    assert divergence(found[:, :3], coarse).abs().max() < 1e-12
    assert found.shape[2:] == tuple(len(points) for points in frames.coordinates) == coarse.shape
    assert all(torch.equal(*pair) for pair in zip(frames.coordinates, coarse.coordinates, strict=True))


def test_stored_fields_are_those_of_the_state_where_nothing_is_coarsened():
    simulator = solver()
    state = state_of(simulator)
    assert torch.equal(ChannelCoarsening(simulator.shape).on(simulator).apply(state), state)


def test_collocated_frames_rest_on_the_walls_and_are_declared_on_nodes():
    simulator = solver()
    frames = CollocatedCoarsening((4, 6, 3)).on(simulator)
    found = frames.apply(state_of(simulator))
    assert found.shape == (2, 4, 4, 7, 3)
    assert not found[:, :3, :, [0, -1]].any()
    assert {channel.location for channel in frames.channels} == {"node"}
    assert [channel.name for channel in frames.channels] == [channel.name for channel in simulator.channels]
    x, y, z = frames.coordinates
    assert torch.equal(y, simulator.channel_grid.faces[::2])
    assert x.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert z.tolist() == pytest.approx([1 / 3, 1.0, 5 / 3])


def test_collocated_frames_keep_a_profile_and_a_linear_pressure():
    simulator = solver()
    y = simulator.channel_grid.centers[:, None]
    state = torch.zeros(1, 4, *simulator.shape, dtype=torch.float64)
    state[:, 0], state[:, 3] = 2 + y, 3 - 2 * y
    frames = CollocatedCoarsening((2, 4, 2), (0, 1, 3, 9, 12)).on(simulator)
    found, heights = frames.apply(state), frames.coordinates[1]
    assert torch.allclose(found[0, 0, 0, 1:-1, 0], 2 + heights[1:-1])
    assert torch.allclose(found[0, 3, 1, :, 1], 3 - 2 * heights)


@pytest.mark.parametrize("build", [ChannelCoarsening, CollocatedCoarsening])
def test_frames_fit_a_data_set_and_keep_precision(build):
    simulator = solver()
    frames = build((4, 6, 3)).on(simulator)
    grid = Grid((Axis("x", period=4.0), Axis("y"), Axis("z", period=2.0)))
    Metadata("channel", grid, frames.channels, 0.1).grid.check_coordinates(frames.coordinates)
    assert frames.apply(state_of(simulator).float()).dtype == torch.float32


def test_wall_units_follow_from_what_drives_the_flow():
    heights = solver().channel_grid.centers
    driven = wall_units(solver(viscosity=1 / 180, forcing=PressureGradient(1.0)), heights)
    assert driven["friction_reynolds_number"] == pytest.approx(180)
    assert driven["friction_velocity"] == 1.0
    assert driven["first_point_in_wall_units"] == pytest.approx(180 * heights[0].item())
    # Dean's correlation is good to a few percent: 2.3 % at 178, 3.6 % at 587 (tables of Moser, Kim and Mansour).
    for bulk, friction in ((2792.7, 178.12), (6881.8, 392.24), (10953.4, 587.19)):
        held = wall_units(solver(viscosity=1 / bulk), heights)
        assert held["friction_reynolds_number"] == pytest.approx(friction, rel=0.04)
    # Half the height at twice the speed is the same flow in other units.
    other = wall_units(
        solver(viscosity=1 / 2800, half_height=0.5, forcing=MassFlux(2.0)), solver(half_height=0.5).channel_grid.centers
    )
    same = wall_units(solver(viscosity=1 / 2800), heights)
    for name in ("friction_reynolds_number", "first_point_in_wall_units"):
        assert other[name] == pytest.approx(same[name])
    assert other["walls"] == [0.0, 1.0]
    given = wall_units(solver(viscosity=1 / 2800), heights, 178.0)
    assert given["friction_velocity"] == pytest.approx(178 / 2800)


def test_wall_units_of_planes_on_the_walls_are_those_of_the_next_plane():
    simulator = solver()
    attributes = CollocatedCoarsening((4, 6, 3), friction_reynolds_number=180.0).on(simulator).attributes
    assert attributes["first_point_in_wall_units"] == pytest.approx(180 * simulator.channel_grid.faces[2].item())


def test_without_viscosity_or_flow_there_are_no_wall_units():
    assert "friction_velocity" not in wall_units(solver(viscosity=0.0), torch.ones(1))
    assert "friction_velocity" not in wall_units(solver(forcing=MassFlux(0.0)), torch.ones(1))


@pytest.mark.parametrize("build", [ChannelCoarsening, CollocatedCoarsening])
def test_what_does_not_fit_is_refused(build):
    with pytest.raises(ValueError, match="divide the fine"):
        build((3, 6, 3)).on(solver())
    with pytest.raises(ValueError, match="positive friction"):
        build((4, 6, 3), friction_reynolds_number=-1.0).on(solver())
    plane = NavierStokes2d(resolution=16, viscosity=1e-3, frame_interval=0.1, steps_per_frame=4)
    with pytest.raises(ValueError, match="solver of channel flow"):
        build((4, 6, 3)).on(plane)


@pytest.mark.parametrize("build", [ChannelCoarsening, CollocatedCoarsening])
def test_recipes_name_a_reduction_by_its_class_path(build):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--reduction", type=Reduction)
    values = {"class_path": f"{build.__module__}.{build.__name__}", "init_args": {"shape": [4, 6, 3]}}
    reduction = parser.instantiate(parser.parse_object({"reduction": values})).reduction
    assert isinstance(reduction, build)
    assert reduction.on(solver()).apply(state_of(solver())).shape[2] == 4

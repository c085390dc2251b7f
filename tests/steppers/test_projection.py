"""Conditions hold to round-off, are met by the smallest change, and stay when steppers are wrapped in each other."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import nn

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.staggered_channel import ChannelGrid, divergence, pressure_gradient, stretched_faces
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.start import TrippedChannel
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.projection import DivergenceFree, FlowRate, NoSlip
from pdesurrogate.steppers.rollout import rollout

LENGTHS = (4.0, 1.5)


class Drift(nn.Module):
    """The latest frame times a trainable gain plus fixed noise, ``block`` frames at once."""

    def __init__(self, metadata, shape, block=1, history_frames=2, dtype=torch.float64):
        super().__init__()
        self.metadata = metadata
        self.history_frames = history_frames
        self.gain = nn.Parameter(torch.ones(block, 1, 1, 1, 1, dtype=dtype))
        self.noise = noise(block, *shape, seed=7, dtype=dtype)

    def step(self, history, context):
        return history[:, -1:] * self.gain + self.noise


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def grid_of(nx=6, ny=8, nz=4, stretching=1.75):
    return ChannelGrid(LENGTHS, (nx, nz), stretched_faces(ny, stretching))


def metadata_of(locations=("face_x", "face_y", "face_z", "cell"), bounds=(0.0, 2.0), names="xyz", pressure=True):
    axes = (Axis("x", period=LENGTHS[0]), Axis("y", bounds=bounds), Axis("z", period=LENGTHS[1]))
    channels = [
        Channel(f"velocity_{name}", location=location) for name, location in zip(names, locations, strict=False)
    ]
    if pressure:
        channels.append(Channel("pressure", location=locations[-1]))
    return Metadata("example", Grid(axes), tuple(channels), frame_interval=0.1)


STAGGERED = metadata_of()
NODES = metadata_of(("node",) * 4)


def staggered_case(grid=None, batch=2, frames=3, dtype=torch.float64):
    """History and context of noise on faces."""
    grid = grid_of() if grid is None else grid
    context = Context(tuple(points.expand(batch, -1) for points in grid.coordinates))
    return noise(batch, frames, 4, *grid.shape, dtype=dtype), context


def node_case(grid=None, batch=2, frames=3, dtype=torch.float64):
    """History and context of noise on planes from wall to wall."""
    grid = grid_of() if grid is None else grid
    x, _, z = grid.coordinates
    context = Context(tuple(points.to(dtype).expand(batch, -1) for points in (x, grid.faces, z)))
    nx, ny, nz = grid.shape
    return noise(batch, frames, 4, nx, ny + 1, nz, dtype=dtype), context


def bulk(values, context, metadata, component=0):
    """``(batch, time)`` by the quadrature of the data's grid."""
    weights = space_weights(metadata.grid, context, cells=metadata.cell_centered)
    weighted = values[:, :, component] * weights[:, 0]
    return weighted.flatten(2).sum(2) / weights.flatten(1).sum(1, keepdim=True)


grids = st.builds(
    grid_of, nx=st.integers(2, 7), ny=st.integers(3, 10), nz=st.integers(2, 6), stretching=st.floats(0, 2.5)
)


@given(grid=grids)
@settings(max_examples=15)
def test_divergence_is_at_round_off_and_other_channels_are_not_touched(grid):
    history, context = staggered_case(grid)
    stepper = DivergenceFree(Drift(STAGGERED, (4, *grid.shape), block=2))
    block = stepper.step(history, context)
    assert isinstance(stepper, Stepper)
    assert stepper.history_frames == 2
    assert block.shape == (2, 2, 4, *grid.shape)
    scale = history.abs().max() / min(grid.spacing_x, grid.spacing_z, float(grid.heights.min()))
    assert divergence(block[:, :, :3], grid).abs().max() < 1e-13 * scale
    assert not block[:, :, 1, :, 0].any()
    assert torch.equal(block[:, :, 3], stepper.stepper.step(history, context)[:, :, 3])


def test_projection_is_idempotent_and_leaves_flows_without_divergence():
    history, context = staggered_case()
    once = DivergenceFree(Persistence(), metadata=STAGGERED).step(history, context)
    twice = DivergenceFree(Persistence(), metadata=STAGGERED).step(once, context)
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-13)


def test_projection_takes_away_a_gradient_and_nothing_else():
    """Gradients are orthogonal to what is left, in the inner product of the control volumes: the change is smallest."""
    grid = grid_of()
    history, context = staggered_case(grid)
    history[:, :, 1, :, 0] = 0
    left = DivergenceFree(Persistence(), metadata=STAGGERED).step(history, context)
    taken = history[:, -1:] - left
    weights = torch.stack([grid.heights, grid.distances[:-1], grid.heights])[:, None, :, None]
    assert abs(float((taken[:, :, :3] * left[:, :, :3] * weights).sum())) < 1e-11
    gradient = torch.zeros_like(history)
    gradient[:, :, :3] = pressure_gradient(noise(2, 3, *grid.shape, seed=3), grid)
    again = DivergenceFree(Persistence(), metadata=STAGGERED).step(history + gradient, context)
    torch.testing.assert_close(again, left, rtol=0, atol=1e-12)


def test_frames_of_the_solver_pass_unchanged():
    solver = ChannelFlow((8, 10, 6), LENGTHS, viscosity=1 / 500, frame_interval=0.1, steps_per_frame=2)
    start = TrippedChannel().sample(1, solver.channel_grid, torch.Generator().manual_seed(0)).unsqueeze(1)
    context = Context(tuple(points[None] for points in solver.channel_grid.coordinates))
    own = solver.step(start, context)
    for wrap in (DivergenceFree, FlowRate, NoSlip):
        torch.testing.assert_close(wrap(solver).step(start, context), own, rtol=0, atol=1e-12)


def test_single_precision_frames_are_projected_to_their_own_round_off():
    grid = grid_of()
    history, context = staggered_case(grid, dtype=torch.float32)
    for precision in ("float32", "float64"):
        block = DivergenceFree(Persistence(), precision, metadata=STAGGERED).step(history, context)
        assert block.dtype == torch.float32
        # One unit in the last place of a velocity of 5, over the smallest cell.
        assert divergence(block[:, :, :3].double(), grid).abs().max() < 4 * 5 * 2**-23 / float(grid.heights.min())


def test_coordinates_in_single_precision_serve_as_well():
    grid = grid_of(ny=24)
    history, context = staggered_case(grid)
    rounded = Context(tuple(points.float() for points in context.coordinates))
    block = DivergenceFree(Persistence(), metadata=STAGGERED).step(history, rounded)
    # Round-off of 1e-7 adds up along 24 faces; the smallest cell has a height of 0.02.
    assert divergence(block[:, :, :3], grid).abs().max() < 1e-3 * divergence(history[:, :, :3], grid).abs().max()


def test_another_grid_gets_another_operator_and_the_same_one_is_kept():
    stepper = DivergenceFree(Persistence(), metadata=STAGGERED)
    kept = []
    for grid in (grid_of(), grid_of(), grid_of(ny=5), grid_of(ny=5, stretching=0.5)):
        history, context = staggered_case(grid)
        assert divergence(stepper.step(history, context)[:, :, :3], grid).abs().max() < 1e-11
        kept.append(stepper._poisson)
    assert [a is b for a, b in itertools.pairwise(kept)] == [True, False, False]


def test_an_operator_made_in_inference_mode_serves_training():
    history, context = staggered_case()
    stepper = DivergenceFree(Drift(STAGGERED, history.shape[2:]))
    with torch.inference_mode():
        stepper.step(history, context)
    stepper.step(history, context).square().sum().backward()
    assert stepper.stepper.gain.grad.isfinite().all()


def test_walls_stand_still_and_nothing_else_changes():
    history, context = node_case()
    stepper = NoSlip(Drift(NODES, history.shape[2:], block=2))
    own, block = stepper.stepper.step(history, context), stepper.step(history, context)
    assert stepper.history_frames == 2
    assert not block[:, :, :3, :, [0, -1]].any()
    assert torch.equal(block[:, :, :, :, 1:-1], own[:, :, :, :, 1:-1])
    assert torch.equal(block[:, :, 3], own[:, :, 3])
    assert torch.equal(NoSlip(Persistence(), NODES).step(block, context), block[:, -1:])


def test_of_staggered_velocities_the_one_through_the_wall_is_stopped():
    history, context = staggered_case()
    block = NoSlip(Persistence(), STAGGERED).step(history, context)
    assert not block[:, :, 1, :, 0].any()
    block[:, :, 1, :, 0] = history[:, -1:, 1, :, 0]
    assert torch.equal(block, history[:, -1:])


def test_walls_are_where_the_data_have_them():
    """No bounds: first and last node. Trajectories of one batch may have different heights."""
    history, context = node_case()
    stretched = torch.stack([context.coordinates[1][0], 3 * context.coordinates[1][1]])
    context = context._replace(coordinates=(context.coordinates[0], stretched, context.coordinates[2]))
    metadata = metadata_of(("node",) * 4, bounds=None)
    assert not NoSlip(Persistence(), metadata).step(history, context)[:, :, :3, :, [0, -1]].any()
    with pytest.raises(ValueError, match=r"nodes along 'y' from wall to wall, \(0\.0, 2\.0\)"):
        NoSlip(Persistence(), NODES).step(history, context)


@pytest.mark.parametrize("case", [node_case, staggered_case])
@pytest.mark.parametrize("target", [None, 0.7])
@given(grid=grids)
@settings(max_examples=8)
def test_the_flow_rate_is_exact_by_the_quadrature_of_the_data(case, target, grid):
    metadata = NODES if case is node_case else STAGGERED
    history, context = case(grid)
    stepper = FlowRate(Drift(metadata, history.shape[2:], block=3), target)
    block = stepper.step(history, context)
    expected = torch.full((2, 3), 0.7, dtype=torch.float64)
    if target is None:
        expected = bulk(history[:, -1:], context, metadata).expand(-1, 3)
    torch.testing.assert_close(bulk(block, context, metadata), expected, rtol=0, atol=1e-14)
    change = block - stepper.stepper.step(history, context)
    assert not change[:, :, 1:].any()
    moved = change[:, :, 0, :, 1:-1] if case is node_case else change[:, :, 0]
    spread = moved.flatten(2).amax(2) - moved.flatten(2).amin(2)
    assert spread.max() < 1e-14 * 10
    if case is node_case:
        assert not change[:, :, 0, :, [0, -1]].any()


def test_the_mean_flow_may_run_along_another_axis():
    history, context = staggered_case()
    stepper = FlowRate(Persistence(), bulk_velocity=-0.5, streamwise="z", metadata=STAGGERED)
    block = stepper.step(history, context)
    torch.testing.assert_close(
        bulk(block, context, STAGGERED, 2), torch.full((2, 1), -0.5, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert torch.equal(block[:, :, [0, 1, 3]], history[:, -1:, [0, 1, 3]])


def test_the_flow_rate_of_a_long_rollout_does_not_drift():
    history, context = node_case(frames=1, dtype=torch.float32)
    drifting = Drift(NODES, history.shape[2:], history_frames=1, dtype=torch.float32)
    drifting.noise = drifting.noise * 0.1 + 0.05
    with torch.no_grad():
        *_, last = rollout(FlowRate(drifting), history, context, 300)
        *_, free = rollout(drifting, history, context, 300)
    begin = bulk(history.double(), context, NODES)
    # A walk of 300 roundings of numbers up to 30; without the reset it gains 0.05 a frame.
    assert (bulk(last.double(), context, NODES) - begin).abs().max() < 1e-4
    assert (bulk(free.double(), context, NODES) - begin).abs().min() > 5


def test_all_conditions_hold_together():
    grid = grid_of()
    history, context = staggered_case(grid)
    drift = Drift(STAGGERED, history.shape[2:])
    block = FlowRate(DivergenceFree(drift), bulk_velocity=1.0).step(history, context)
    assert divergence(block[:, :, :3], grid).abs().max() < 1e-12
    assert not block[:, :, 1, :, 0].any()
    torch.testing.assert_close(bulk(block, context, STAGGERED), torch.ones(2, 1, dtype=torch.float64))
    # The projection keeps the flow rate, so the order of these two does not matter.
    other = DivergenceFree(FlowRate(drift, bulk_velocity=1.0)).step(history, context)
    torch.testing.assert_close(other, block, rtol=0, atol=1e-12)
    history, context = node_case(grid)
    block = FlowRate(NoSlip(Drift(NODES, history.shape[2:])), bulk_velocity=1.0).step(history, context)
    assert not block[:, :, :3, :, [0, -1]].any()
    torch.testing.assert_close(bulk(block, context, NODES), torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("wrap", [DivergenceFree, FlowRate, NoSlip])
def test_a_batch_is_its_members(wrap):
    history, context = staggered_case(batch=3)
    stepper = wrap(Persistence(), metadata=STAGGERED)
    whole = stepper.step(history, context)
    for number in range(3):
        one = slice(number, number + 1)
        own = stepper.step(history[one], Context(tuple(points[one] for points in context.coordinates)))
        torch.testing.assert_close(own, whole[one], rtol=0, atol=1e-14)


@pytest.mark.parametrize("wrap", [DivergenceFree, FlowRate, NoSlip])
def test_gradients(wrap):
    grid = grid_of(nx=2, ny=3, nz=1)
    history, context = staggered_case(grid, batch=1, frames=1)
    stepper = wrap(Persistence(), metadata=STAGGERED)
    history.requires_grad_()
    assert torch.autograd.gradcheck(lambda frames: stepper.step(frames, context), history)
    assert torch.autograd.gradgradcheck(lambda frames: stepper.step(frames, context).square(), history)


@pytest.mark.parametrize("wrap", [DivergenceFree, FlowRate, NoSlip])
def test_wrappers_hold_their_steppers_weights_and_nothing_more(wrap):
    history, context = staggered_case()
    stepper = wrap(Drift(STAGGERED, history.shape[2:]))
    expected = stepper.step(history, context)
    assert set(stepper.state_dict()) == {"stepper.gain"}
    assert stepper.metadata is STAGGERED
    for twin in (copy.deepcopy(stepper), pickle.loads(pickle.dumps(stepper))):
        assert torch.equal(twin.step(history, context), expected)


@pytest.mark.parametrize("wrap", [DivergenceFree, FlowRate, NoSlip])
def test_data_of_no_channel_are_refused(wrap):
    with pytest.raises(ValueError, match=f"metadata of a channel flow for {wrap.__name__} but a Persistence has none"):
        wrap(Persistence())
    box = Metadata(
        "box", Grid((Axis("x", period=1.0), Axis("y", period=1.0))), (Channel("velocity_x"),), frame_interval=0.1
    )
    with pytest.raises(ValueError, match=r"periodic along all axes but one.*not periodic along \[\]"):
        wrap(Persistence(), metadata=box)
    with pytest.raises(ValueError, match=r"Expected channels \['velocity_x', 'velocity_y', 'velocity_z'\]"):
        wrap(Persistence(), metadata=metadata_of(names="xy", locations=("face_x", "face_y")))


@pytest.mark.parametrize("wrap", [DivergenceFree, FlowRate, NoSlip])
def test_frames_of_other_data_are_refused(wrap):
    history, context = staggered_case()
    stepper = wrap(Persistence(), metadata=STAGGERED)
    with pytest.raises(ValueError, match=r"\(batch, time, 4, \*\(6, 8, 4\)\) of channel flow but got \(2, [13], 3, "):
        stepper.step(history[:, :, :3], context)
    with pytest.raises(ValueError, match="must be of the same data"):
        stepper.step(history[..., :-1, :], context)
    with pytest.raises(ValueError, match="without a mask"):
        stepper.step(history, context._replace(mask=torch.ones(2, 6, 8, 4, dtype=torch.bool)))


def test_only_staggered_data_with_known_walls_can_be_projected():
    for metadata in (NODES, metadata_of(("cell",) * 4), metadata_of(("face_x", "face_z", "face_y", "cell"))):
        with pytest.raises(ValueError, match=r"faces that it crosses.*ChannelCoarsening"):
            DivergenceFree(Persistence(), metadata=metadata)
    with pytest.raises(ValueError, match="bounds of axis 'y'"):
        DivergenceFree(Persistence(), metadata=metadata_of(bounds=None))
    with pytest.raises(ValueError, match="precision"):
        DivergenceFree(Persistence(), "half", metadata=STAGGERED)


def test_coordinates_that_do_not_fit_are_refused():
    history, context = staggered_case()
    x, y, z = context.coordinates
    stepper = DivergenceFree(Persistence(), metadata=STAGGERED)
    for coordinates, message in (
        ((x, y * torch.tensor([[1.0], [0.9]]), z), "one grid for all trajectories"),
        ((x, 0.5 * y, z), r"centers of cells from 0 to 2"),
        ((2 * x, y, z), r"evenly spaced points of one period along 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            stepper.step(history, Context(coordinates))
    assert stepper.step(history, context).isfinite().all()


def test_other_options_are_refused():
    with pytest.raises(ValueError, match="middle of cells"):
        NoSlip(Persistence(), metadata_of(("cell",) * 4))
    with pytest.raises(ValueError, match=r"periodic axes \['x', 'z'\] but got 'y'"):
        FlowRate(Persistence(), streamwise="y", metadata=NODES)


def test_yaml_composes_them():
    parser = ArgumentParser()
    parser.add_argument("--stepper", type=Stepper)
    given = {
        "class_path": "pdesurrogate.simulators.channel.flow.ChannelFlow",
        "init_args": {
            "shape": [4, 6, 4],
            "lengths": [4.0, 2.0],
            "viscosity": 0.01,
            "frame_interval": 0.1,
            "steps_per_frame": 1,
        },
    }
    for name in ("NoSlip", "DivergenceFree", "FlowRate"):
        given = {"class_path": f"pdesurrogate.steppers.projection.{name}", "init_args": {"stepper": given}}
    built = parser.instantiate_classes(parser.parse_object({"stepper": given})).stepper
    assert isinstance(built, FlowRate)
    assert isinstance(built.stepper, DivergenceFree)
    assert "bulk_velocity=None" in repr(built)
    assert "precision='float64'" in repr(built)

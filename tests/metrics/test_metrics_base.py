import math
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import flow_of, shared_units, squared
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.metrics.suites import default_suite
from pdesurrogate.models.fno import FNO
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate

LENGTH = 2 * math.pi
SQUARE = Grid((Axis("x", period=LENGTH), Axis("y", period=LENGTH)))
VORTICITY = Metadata("vortices", SQUARE, (Channel("vorticity"),), frame_interval=0.1)
VELOCITY = Metadata("flow", SQUARE, (Channel("velocity_x"), Channel("velocity_y")), frame_interval=0.1)
SIZE = 12


def context_of(batch, device="cpu"):
    return Context(tuple(c.to(device).expand(batch, -1) for c in SQUARE.uniform_coordinates((SIZE, SIZE))))


def random_rollouts(trajectories, frames, channels=1):
    generator = torch.Generator().manual_seed(7)
    shape = (2, trajectories, frames, channels, SIZE, SIZE)
    prediction, target = torch.randn(*shape, generator=generator)
    # The last trajectory is stopped half way.
    prediction[-1, frames // 2 :] = math.nan
    return prediction, target


def feed(suite, prediction, target, numbers, block=2):
    for first in range(0, prediction.shape[1], block):
        frames = slice(first, first + block)
        for metric in suite.values():
            metric.update(
                prediction[numbers, frames], target[numbers, frames], first, numbers, context_of(len(numbers))
            )


def computed(suite):
    return {name: values for metric in suite.values() for name, values in metric.compute().items()}


class Doubling:
    """Doubles the latest frame, two frames at once."""

    history_frames = 1

    def step(self, history, context):
        return torch.cat([2 * history[:, -1:], 4 * history[:, -1:]], dim=1)


def rolled_and_measured(metadata, device, bounds=(-100.0, 100.0), stepper=None):
    """A rollout in which trajectories are stopped, measured by the whole suite; nothing is computed from the states."""
    suite = default_suite(metadata, 3, 6, (SIZE, SIZE))
    suite = {name: metric.to(device) for name, metric in suite.items()}
    start = torch.ones(3, 1, len(metadata.channels), SIZE, SIZE).cumsum(0).to(device)
    context, numbers = context_of(3, device), torch.arange(3).to(device)
    target = torch.ones(3, 2, len(metadata.channels), SIZE, SIZE).to(device)
    run = rollout(stepper or Doubling(), start, context, 6, bounds=bounds)

    def work():
        done = 0
        for block in run:
            for metric in suite.values():
                metric.update(block, target[:, : block.shape[1]], done, numbers, context)
            done += block.shape[1]
        return run.first_bad_frame

    return work, suite


READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__", "nonzero")


def surrogate():
    return Surrogate(FNO(channels=1, modes=(4, 4), width=4, layers=1), VORTICITY, target="increment").eval()


def coarse_solver():
    return Resampled(NavierStokes2d(8, 1e-2, VORTICITY.frame_interval, 2), 8)


@pytest.mark.parametrize(
    ("metadata", "build"),
    [(VORTICITY, Doubling), (VELOCITY, Doubling), (VORTICITY, surrogate), (VORTICITY, coarse_solver)],
    ids=["vorticity", "velocity", "fno", "solver"],
)
@torch.no_grad()
def test_rollout_and_updates_bring_no_value_to_the_host(metadata, build):
    work, _ = rolled_and_measured(metadata, "cpu", stepper=build())
    found = []

    def spying(name, original):
        def read(self, *args, **kwargs):
            found.append(name)
            return original(self, *args, **kwargs)

        return read

    patches = [patch.object(Tensor, name, spying(name, getattr(Tensor, name))) for name in READS]
    for each in patches:
        each.start()
    try:
        bool(torch.ones(()))  # the spies are at work
        stopped = work()
    finally:
        for each in patches:
            each.stop()
    assert found == ["__bool__"]
    if build is Doubling:  # 1, 2 and 3 doubled: 128, 128 and 192 are beyond the bounds
        assert stopped.tolist() == [6, 5, 5]


@pytest.mark.parametrize("metadata", [VORTICITY, VELOCITY], ids=["vorticity", "velocity"])
def test_rollout_and_updates_need_no_values_at_all(metadata):
    # Tensors on the meta device have shapes but no values: whatever looks at one, below Python too, fails.
    work, _ = rolled_and_measured(metadata, "cpu")
    work()  # the tables of the grid are built once, on the real device
    with patch("pdesurrogate.metrics.spectra._cached_shells", meta_shells):
        work, suite = rolled_and_measured(metadata, "meta")
        assert work().device.type == "meta"
    assert all(metric.device.type == "meta" for metric in suite.values())


def meta_shells(shape, periods, device):
    from pdesurrogate.physics.spectral import Shells

    shells = Shells(shape, periods)
    for name, value in vars(shells).items():
        if isinstance(value, Tensor):
            setattr(shells, name, value.to(device))
    return shells


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metadata", [VORTICITY, VELOCITY], ids=["vorticity", "velocity"])
def test_rollout_and_updates_never_wait_for_the_gpu(metadata):
    rolled_and_measured(metadata, "cuda")[0]()  # tables and plans
    work, suite = rolled_and_measured(metadata, "cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(metric.device.type == "cuda" for metric in suite.values())


def state_bytes(metric):
    states = [getattr(metric, name) for name in metric._defaults]
    assert all(isinstance(state, Tensor) for state in states)
    return sum(state.numel() * state.element_size() for state in states)


def test_memory_is_fixed_when_a_metric_is_built():
    prediction, target = random_rollouts(4, 6)
    suite = default_suite(VORTICITY, 4, 6, (SIZE, SIZE))
    before = {name: state_bytes(metric) for name, metric in suite.items()}
    feed(suite, prediction, target, torch.arange(4))
    feed(suite, prediction, target, torch.arange(2))
    assert {name: state_bytes(metric) for name, metric in suite.items()} == before


def test_blocks_order_and_duplicates_do_not_change_curves():
    prediction, target = random_rollouts(5, 6)
    whole, pieces = (ErrorMetric(VORTICITY, 5, 6) for _ in range(2))
    whole.update(prediction, target, 0, torch.arange(5), context_of(5))
    for numbers in ([3, 0], [4], [2, 1], [0, 4]):
        feed({"errors": pieces}, prediction, target, torch.tensor(numbers), block=4)
    for name, values in whole.compute().items():
        # Means over another number of rows may be summed in another order.
        assert torch.allclose(values, pieces.compute()[name], rtol=1e-6, equal_nan=True), name


def test_a_stopped_trajectory_is_nan_and_a_missing_one_is_refused():
    prediction, target = random_rollouts(3, 4)
    metric = ErrorMetric(VORTICITY, 3, 4)
    feed({"errors": metric}, prediction, target, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="4 were never measured, the first is frame 0 of trajectory 1"):
        metric.compute()
    feed({"errors": metric}, prediction, target, torch.tensor([1]))
    values = metric.compute()["relative_l2"][..., 0]
    assert values.isnan().tolist() == [[False] * 4, [False] * 4, [False, False, True, True]]


def test_a_block_beyond_the_declared_frames_is_refused():
    prediction, target = random_rollouts(2, 4)
    metric = ErrorMetric(VORTICITY, 2, 3)
    with pytest.raises(ValueError, match=r"frames within 0\.\.3 but got 2\.\.4"):
        metric.update(prediction[:, 2:], target[:, 2:], 2, torch.arange(2), context_of(2))
    with pytest.raises(ValueError, match="at least one trajectory and frame"):
        ErrorMetric(VORTICITY, 0, 3)


def test_reset_forgets():
    prediction, target = random_rollouts(2, 2)
    metric = ErrorMetric(VORTICITY, 2, 2)
    feed({"errors": metric}, prediction, target, torch.arange(2))
    metric.reset()
    feed({"errors": metric}, prediction, target, torch.tensor([0]))
    with pytest.raises(ValueError, match="trajectory 1"):
        metric.compute()


def test_units_and_channels_of_a_flow():
    metres = Grid((Axis("x", period=1.0, units="m"), Axis("y", period=2.0, units="m")))
    flow = flow_of(Metadata("a", metres, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")), 0.1))
    assert (flow.given, flow.channels, flow.periods) == ("velocity", (0, 1), (1.0, 2.0))
    assert (flow.velocity_units, flow.vorticity_units, flow.wavenumber_units) == ("m/s", "(m/s)/m", "rad/m")
    plain = flow_of(VORTICITY)
    assert (plain.velocity_units, plain.vorticity_units, plain.wavenumber_units) == ("1", "1", "rad")
    assert squared(plain.velocity_units) == "1"
    assert shared_units(["m", "m"]) == "m"
    assert flow_of(Metadata("b", SQUARE, (Channel("velocity_x"),), 0.1)) is None


SHARDS = ([0, 1, 2, 3, 4], [])


def measure_a_shard(rank, folder):
    """One of two processes; the second has nothing to measure."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    prediction, target = random_rollouts(5, 4, channels=2)
    outputs = []
    for shards in (SHARDS, ([0, 3, 4], [2, 1])):
        suite = default_suite(VELOCITY, 5, 4, (SIZE, SIZE))
        if shards[rank]:
            feed(suite, prediction, target, torch.tensor(shards[rank]))
        outputs.append(computed(suite))
    # Curves may meet a trajectory on both processes, as samplers that pad do it.
    padded = ErrorMetric(VELOCITY, 5, 4)
    feed({"errors": padded}, prediction, target, torch.tensor([[0, 3, 4], [2, 1, 4]][rank]))
    outputs.append(padded.compute())
    torch.save(outputs, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_uneven_shards_give_what_one_gives(tmp_path):
    torch.multiprocessing.spawn(measure_a_shard, args=(str(tmp_path),), nprocs=2)
    prediction, target = random_rollouts(5, 4, channels=2)
    suite = default_suite(VELOCITY, 5, 4, (SIZE, SIZE))
    feed(suite, prediction, target, torch.arange(5))
    expected = computed(suite)
    for rank in range(2):
        for outputs in torch.load(tmp_path / f"rank{rank}.pt", weights_only=True):
            for name, values in outputs.items():
                # Sums of spectra are formed in another order.
                assert torch.allclose(values, expected[name], rtol=1e-6, atol=1e-12, equal_nan=True), (rank, name)
    assert expected["relative_l2"][4, 2:].isnan().all()
    assert torch.isfinite(expected["relative_l2"][:4]).all()

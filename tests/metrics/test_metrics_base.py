"""What every metric of every suite keeps to, whatever it measures; the numbers themselves are tested beside each."""

import copy
import math
import pickle
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import pytest
import torch
from helpers import block_of, context_of, plan_of
from torch import Tensor

from pdesurrogate.evaluation.scores import curves_of, scores_of
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import RolloutMetric, Variable, block_error, shared_units
from pdesurrogate.metrics.errors import ErrorMetric, SurvivalMetric
from pdesurrogate.metrics.flow import flow_of, require_flow, squared
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.residual import ResidualMetric
from pdesurrogate.metrics.suites import SUITES, channel, default_suite, suite_for
from pdesurrogate.metrics.uncertainty import GaussianMetric
from pdesurrogate.models.fno import FNO
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate

LENGTH = 2 * math.pi
SQUARE = Grid((Axis("x", period=LENGTH), Axis("y", period=LENGTH)))
VORTICITY = Metadata("vortices", SQUARE, (Channel("vorticity"),), 0.1, parameters=("viscosity",))
VELOCITY = Metadata("flow", SQUARE, (Channel("velocity_x"), Channel("velocity_y")), 0.1, parameters=("viscosity",))
TRAJECTORIES, FRAMES, MEMBERS = 5, 6, 4


def velocities(axes):
    return tuple(Channel(f"velocity_{name}", "m/s") for name in axes)


def problem(name):
    """(plan, further metrics): one problem of every kind, on a grid as small as its metrics allow."""
    even = partial(torch.linspace, dtype=torch.float64)
    if name == "vorticity":
        plan = plan_of(VORTICITY, TRAJECTORIES, FRAMES, (12, 12))
        march = NavierStokes2d(12, 1e-2, VORTICITY.frame_interval, 2)
        return plan, {"residual": ResidualMetric(plan, march=march), "gaussian": GaussianMetric(plan)}
    if name == "velocity":
        return plan_of(VELOCITY, TRAJECTORIES, FRAMES, (12, 11)), {}
    if name == "ensemble":
        return plan_of(VORTICITY, TRAJECTORIES, FRAMES, (12, 12), members=MEMBERS), {}
    if name == "box":
        grid = Grid(tuple(Axis(axis, period=1.0) for axis in "xyz"))
        channels = (*velocities("xyz"), Channel("pressure", "Pa"))
        return plan_of(Metadata("box", grid, channels, 0.1), TRAJECTORIES, FRAMES, (6, 8, 7)), {}
    if name == "channel":
        grid = Grid((Axis("x", period=4.0), Axis("y"), Axis("z", period=2.0)))
        metadata = Metadata("channel", grid, velocities("xyz"), 0.1, parameters=("viscosity",))
        points = (even(0, 4.0, 9)[:-1], -torch.cos(even(0, math.pi, 9)), even(0, 2.0, 7)[:-1])
        return RolloutPlan(metadata, TRAJECTORIES, FRAMES, points), {}
    if name == "enclosed":
        grid = Grid((Axis("x"), Axis("y")))
        metadata = Metadata("cylinder", grid, velocities("xy"), 0.1)
        return RolloutPlan(metadata, TRAJECTORIES, FRAMES, (even(0, 2.0, 13), even(0, 1.0, 9)), masked=True), {}
    if name == "smoke":
        grid = Grid((Axis("x"), Axis("y")))
        metadata = Metadata("smoke", grid, (Channel("smoke"),), 0.1)
        return RolloutPlan(metadata, TRAJECTORIES, FRAMES, (even(0, 1.0, 9), even(0, 1.0, 8))), {}
    if name == "line":
        grid = Grid((Axis("x", period=1.0),))
        return plan_of(Metadata("line", grid, (Channel("u"),), 0.1), TRAJECTORIES, FRAMES, (16,)), {}
    raise AssertionError(name)


PROBLEMS = ("vorticity", "velocity", "ensemble", "box", "channel", "enclosed", "smoke", "line")
SUITE_OF = {
    "vorticity": "periodic_2d", "velocity": "periodic_2d", "ensemble": "periodic_2d", "box": "periodic_3d",
    "channel": "channel", "enclosed": "enclosed_2d", "smoke": "enclosed_2d", "line": "scalar_1d",
}  # fmt: skip


def metrics_of(name):
    plan, further = problem(name)
    return plan, {"survival": SurvivalMetric(plan), **default_suite(plan), **further}


class Fields:
    """Random rollouts of a problem, one of them stopped half way, and the rest of a block's arguments."""

    def __init__(self, plan, dtype=torch.float32, stopped=True):
        generator = torch.Generator().manual_seed(7)
        shape = (plan.trajectories, plan.frames, len(plan.metadata.channels), *plan.shape)
        draw = partial(torch.randn, generator=generator)
        self.target = draw(*shape).to(dtype)
        self.members = draw(plan.members, *shape).to(dtype)
        self.variance = draw(*shape).square().to(dtype)
        self.mask = None
        if plan.masked:
            self.mask = torch.ones(plan.trajectories, *plan.shape, dtype=torch.bool)
            self.mask[:, 4:6, 3:6] = False
        if stopped:
            self.members[-1, -1, plan.frames // 2 :] = math.nan
        self.plan = plan

    def block(self, numbers, frames, device="cpu"):
        numbers, plan = torch.as_tensor(numbers), self.plan
        context = Context(
            tuple(points.float().expand(len(numbers), -1).to(device) for points in plan.coordinates),
            parameters=torch.full((len(numbers), len(plan.metadata.parameters)), 0.01, device=device),
            mask=None if self.mask is None else self.mask[numbers].to(device),
        )
        members = self.members[:, numbers, frames].to(device)
        return block_of(
            plan,
            members.mean(0),
            self.target[numbers, frames].to(device),
            frames.start,
            numbers.to(device),
            context,
            members=members if plan.members > 1 else None,
            variance=self.variance[numbers, frames].to(device),
        )


def feed(metrics, fields, batches=None, length=FRAMES, device="cpu"):
    for numbers in [range(fields.plan.trajectories)] if batches is None else batches:
        for first in range(0, fields.plan.frames, length):
            block = fields.block(numbers, slice(first, min(first + length, fields.plan.frames)), device)
            for metric in metrics.values():
                metric.update(block)


def computed(metrics):
    return {name: values for metric in metrics.values() for name, values in metric.compute().items()}


def assert_same(found, expected, rtol=2e-5, atol=2e-5):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert torch.allclose(found[name].double(), values.double(), rtol=rtol, atol=atol, equal_nan=True), name


def test_the_suite_is_chosen_by_axes_and_channels():
    names = {suite.__name__ for suite in SUITES}
    for name, suite in SUITE_OF.items():
        plan, _ = problem(name)
        assert suite_for(plan).__name__ == suite
        assert suite in names
    plan, _ = problem("channel")
    # Without a velocity, or with cases of different extent, there are no profiles of a channel.
    assert suite_for(replace(plan, shared_grid=False)) is not channel
    pressure = replace(plan.metadata, channels=(Channel("pressure"),))
    assert suite_for(replace(plan, metadata=pressure)).__name__ == "enclosed_2d"


@pytest.mark.parametrize("name", PROBLEMS)
def test_outputs_are_labelled_and_scores_refer_to_them(name):
    plan, metrics = metrics_of(name)
    feed(metrics, Fields(plan))
    for metric in metrics.values():
        outputs = metric.compute()
        assert set(outputs) == set(metric.variables), type(metric).__name__
        assert all(isinstance(variable, Variable) and variable.long_name for variable in metric.variables.values())
    curves = curves_of(metrics, plan)
    scores = scores_of(metrics, curves)
    assert len(scores) == sum(len(metric.scores) for metric in metrics.values()), "two scores of one name"
    assert {"relative_l2", "correlation_time", "finite_fraction"} <= set(scores)
    # One trajectory was stopped half way, and no score but these can be told from the others.
    known = {score for score, found in scores.items() if found["value"] is not None}
    assert {"relative_l2_first", "finite_fraction"} <= known
    assert "relative_l2" not in known
    whole = Fields(plan, stopped=False)
    _, metrics = metrics_of(name)
    feed(metrics, whole)
    scores = scores_of(metrics, curves_of(metrics, plan))
    unknown = [score for score, found in scores.items() if found["value"] is None]
    assert unknown == [], "noise has all of them"
    for score, found in scores.items():
        if found["interval"] is not None:
            low, high = found["interval"]
            assert low <= found["value"] <= high, score


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_depend_neither_on_batches_nor_on_blocks(name):
    plan, metrics = metrics_of(name)
    fields = Fields(plan)
    feed(metrics, fields)
    _, pieces = metrics_of(name)
    feed(pieces, fields, batches=([3, 0], [4], [2, 1]), length=4)
    # Sums in single precision are formed in another order.
    assert_same(computed(pieces), computed(metrics))


@pytest.mark.parametrize("name", PROBLEMS)
def test_states_are_fixed_pickled_reset_and_moved(name):
    plan, metrics = metrics_of(name)
    fields = Fields(plan)
    sizes = {key: state_bytes(metric) for key, metric in metrics.items()}
    feed(metrics, fields, batches=([0, 1, 2],))
    copies = pickle.loads(pickle.dumps(metrics))
    for both in (metrics, copies):
        feed(both, fields, batches=([3, 4],))
    expected = computed(metrics)
    assert_same(computed(copies), expected, rtol=0, atol=0)
    assert {key: state_bytes(metric) for key, metric in metrics.items()} == sizes
    for metric in metrics.values():
        metric.reset()
    feed(metrics, fields)
    assert_same(computed(metrics), expected)


def state_bytes(metric):
    states = [getattr(metric, name) for name in metric._defaults]
    assert all(isinstance(state, Tensor) for state in states)
    return sum(state.numel() * state.element_size() for state in states)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["vorticity", "ensemble", "channel", "enclosed"])
def test_half_precision_is_measured_in_single(name, dtype):
    plan, metrics = metrics_of(name)
    half = Fields(plan, dtype, stopped=False)
    feed(metrics, half)
    _, others = metrics_of(name)
    single = copy.copy(half)
    single.target, single.variance = half.target.float(), half.variance.float()
    single.members = half.members.float()
    if plan.members == 1:  # the mean of an ensemble in half precision is itself rounded
        feed(others, single)
        assert_same(computed(metrics), computed(others))
    assert all(values.dtype != dtype for values in computed(metrics).values())


READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__", "nonzero")


@pytest.mark.parametrize("name", PROBLEMS)
def test_updates_bring_no_value_to_the_host(name):
    plan, metrics = metrics_of(name)
    fields = Fields(plan)
    blocks = [fields.block(range(5), slice(0, 3)), fields.block(range(5), slice(3, 6))]
    found = []

    def spying(read, original):
        def spy(self, *args, **kwargs):
            found.append(read)
            return original(self, *args, **kwargs)

        return spy

    patches = [patch.object(Tensor, read, spying(read, getattr(Tensor, read))) for read in READS]
    for each in patches:
        each.start()
    try:
        bool(torch.ones(()))  # the spies are at work
        for block in blocks:
            for key, metric in metrics.items():
                metric.update(block)
                assert found == ["__bool__"], key
    finally:
        for each in patches:
            each.stop()


@pytest.mark.parametrize("name", PROBLEMS)
def test_updates_need_no_values_at_all(name):
    # Tensors on the meta device have shapes but no values: whatever looks at one, below Python too, fails.
    plan, metrics = metrics_of(name)
    fields = Fields(plan)
    metrics = {key: metric.to("meta") for key, metric in metrics.items()}
    feed(metrics, fields, length=3, device="meta")
    assert all(metric.device.type == "meta" for metric in metrics.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", PROBLEMS)
def test_updates_never_wait_for_the_gpu(name):
    plan, metrics = metrics_of(name)
    fields = Fields(plan)
    metrics = {key: metric.to("cuda") for key, metric in metrics.items()}
    blocks = [fields.block(range(5), slice(0, 3), "cuda"), fields.block(range(5), slice(3, 6), "cuda")]
    feed({key: copy.deepcopy(metric) for key, metric in metrics.items()}, fields, length=3, device="cuda")  # plans
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for block in blocks:
            for metric in metrics.values():
                metric.update(block)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    _, others = metrics_of(name)
    feed(others, fields, length=3)
    assert_same({key: values.cpu() for key, values in computed(metrics).items()}, computed(others), 1e-3, 1e-3)


class Doubling:
    """Doubles the latest frame, two frames at once."""

    history_frames = 1

    def step(self, history, context):
        return torch.cat([2 * history[:, -1:], 4 * history[:, -1:]], dim=1)


def surrogate():
    return Surrogate(FNO(channels=1, modes=(4, 4), width=4, layers=1), VORTICITY, target="increment").eval()


def coarse_solver():
    return Resampled(NavierStokes2d(8, 1e-2, VORTICITY.frame_interval, 2), 8)


@pytest.mark.parametrize("build", [Doubling, surrogate, coarse_solver], ids=["bounds", "fno", "solver"])
@torch.no_grad()
def test_a_rollout_brings_no_value_to_the_host(build):
    plan = plan_of(VORTICITY, 3, 6, (12, 12))
    start = torch.ones(3, 1, 1, 12, 12).cumsum(0)
    run = rollout(build(), start, context_of(plan, 3), 6, bounds=(-100.0, 100.0))
    found = []
    patches = [patch.object(Tensor, read, lambda *_, read=read: found.append(read)) for read in READS]
    for each in patches:
        each.start()
    try:
        for _ in run:
            pass
    finally:
        for each in patches:
            each.stop()
    assert found == []
    if build is Doubling:  # 1, 2 and 3 doubled: 128, 128 and 192 are beyond the bounds
        assert run.first_bad_frame.tolist() == [6, 5, 5]


def test_order_and_duplicates_do_not_change_curves():
    plan = plan_of(VORTICITY, 5, FRAMES, (12, 12))
    fields, whole, pieces = Fields(plan), ErrorMetric(plan), ErrorMetric(plan)
    feed({"": whole}, fields)
    feed({"": pieces}, fields, batches=([3, 0], [4], [2, 1], [0, 4]), length=4)
    assert_same(pieces.compute(), whole.compute())


def test_a_stopped_trajectory_is_nan_and_a_missing_one_is_refused():
    plan = plan_of(VORTICITY, 5, FRAMES, (12, 12))
    metric, fields = ErrorMetric(plan), Fields(plan)
    feed({"": metric}, fields, batches=([0, 2, 3, 4],))
    with pytest.raises(ValueError, match="6 were never measured, the first is frame 0 of trajectory 1"):
        metric.compute()
    feed({"": metric}, fields, batches=([1],))
    values = metric.compute()["relative_l2"][..., 0]
    assert values[:4].isfinite().all()
    assert values[4].isnan().tolist() == [False] * 3 + [True] * 3
    metric.reset()
    feed({"": metric}, fields, batches=([0, 2, 3, 4],))
    with pytest.raises(ValueError, match="trajectory 1"):
        metric.compute()


def test_a_block_beyond_the_declared_frames_is_refused():
    plan = plan_of(VORTICITY, 2, 3, (12, 12))
    values = torch.zeros(2, 2, 1, 12, 12)
    with pytest.raises(ValueError, match=r"frames within 0\.\.3 but got 2\.\.4"):
        ErrorMetric(plan).update(block_of(plan, values, values, 2))
    with pytest.raises(ValueError, match="at least one trajectory and frame"):
        plan_of(VORTICITY, 0, 3, (12, 12))


class Pooled(RolloutMetric):
    """The mean of the first channel over everything, as simple as a pooled statistic can be."""

    def __init__(self, plan):
        super().__init__(plan)
        self.add_pooled("mean")

    @property
    def variables(self):
        return {"mean": Variable((), "1", "mean"), "mean_standard_error": Variable((), "1", "its standard error")}

    def update(self, block):
        self.pool("mean", block.mean(block.prediction.values)[..., 0], block)

    def compute(self):
        mean, blocks = self.pooled("mean")
        return {"mean": mean, "mean_standard_error": block_error(blocks)}


@pytest.mark.parametrize(("trajectories", "frames", "blocks"), [(1, 40, (1, 8)), (3, 40, (3, 3)), (9, 2, (9, 1)),
                                                                (1, 3, (1, 3)), (500, 4, (64, 1))])  # fmt: skip
def test_pooled_samples_are_cut_into_at_least_eight_blocks(trajectories, frames, blocks):
    assert Pooled(plan_of(VORTICITY, trajectories, frames, (4, 4))).sample_blocks == blocks


def test_block_averages_give_the_error_of_a_correlated_series():
    # A trajectory of frames that stay the same for 50 frames: 8 blocks of independent values, not 400 samples.
    plan = plan_of(VORTICITY, 1, 400, (4, 4))
    steps = torch.randn(8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values = steps.repeat_interleave(50).reshape(1, 400, 1, 1, 1).expand(1, 400, 1, 4, 4)
    metric = Pooled(plan)
    for first in range(0, 400, 7):
        part = values[:, first : first + 7]
        metric.update(block_of(plan, part, part, first))
    outputs = metric.compute()
    assert outputs["mean"].item() == pytest.approx(steps.mean().item())
    assert outputs["mean_standard_error"].item() == pytest.approx(steps.std().item() / math.sqrt(8))
    naive = values[0, :, 0, 0, 0].std().item() / math.sqrt(400)
    assert outputs["mean_standard_error"].item() > 5 * naive
    assert block_error(steps[:1]).isnan()


def test_units_and_channels_of_a_flow():
    metres = Grid((Axis("x", period=1.0, units="m"), Axis("y", period=2.0, units="m")))
    flow = flow_of(Metadata("a", metres, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")), 0.1))
    assert (flow.given, flow.channels) == ("velocity", (0, 1))
    assert (flow.velocity_units, flow.vorticity_units) == ("m/s", "(m/s)/m")
    plain = flow_of(VORTICITY)
    assert (plain.velocity_units, plain.vorticity_units) == ("1", "1")
    assert squared(plain.velocity_units) == "1"
    assert shared_units(["m", "m"]) == "m"
    assert flow_of(Metadata("b", SQUARE, (Channel("velocity_x"),), 0.1)) is None
    walls = Metadata("walls", Grid((Axis("x", period=1.0), Axis("y"))), (Channel("vorticity"),), 0.1)
    with pytest.raises(ValueError, match="plane periodic data with 'vorticity'"):
        require_flow(walls, "this test")
    faces = (Channel("velocity_x", location="face_x"), Channel("velocity_y", location="face_y"))
    assert not flow_of(Metadata("c", SQUARE, faces, 0.1)).collocated


SHARDS = ([0, 1, 2, 3, 4], []), ([0, 3, 4], [2, 1])


def measure_a_shard(rank, folder):
    """One of two processes; in the first division the second has nothing to measure."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    outputs = []
    for shards in SHARDS:
        for name in PROBLEMS:
            plan, metrics = metrics_of(name)
            feed(metrics, Fields(plan), batches=[shards[rank]] if shards[rank] else [])
            outputs.append(computed(metrics))
    # Curves may meet a trajectory on both processes, as samplers that pad do it.
    plan = plan_of(VORTICITY, TRAJECTORIES, FRAMES, (12, 12))
    padded = {"": ErrorMetric(plan)}
    feed(padded, Fields(plan), batches=[[[0, 3, 4], [2, 1, 4]][rank]])
    outputs.append(computed(padded))
    torch.save(outputs, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_uneven_shards_give_what_one_gives(tmp_path):
    torch.multiprocessing.spawn(measure_a_shard, args=(str(tmp_path),), nprocs=2)
    expected = []
    for name in PROBLEMS:
        plan, metrics = metrics_of(name)
        feed(metrics, Fields(plan))
        expected.append(computed(metrics))
    plan = plan_of(VORTICITY, TRAJECTORIES, FRAMES, (12, 12))
    padded = {"": ErrorMetric(plan)}
    feed(padded, Fields(plan))
    expected += [*expected, computed(padded)]
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for outputs, values in zip(found, expected, strict=True):
            # The same fields in other batches: sums in single precision are formed in another order.
            assert_same(outputs, values)

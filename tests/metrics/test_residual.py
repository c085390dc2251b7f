import math
import pickle

import pytest
import torch
from torch import nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.residual import ResidualMetric
from pdesurrogate.physics.norms import sobolev_norm
from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.physics.residuals import one_interval_defect
from pdesurrogate.simulators.forcing import KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d

LENGTH = 2 * math.pi
INTERVAL = 0.1
SIZE = 32
STEPS = 4  # of the solver in a frame interval
SQUARE = Grid((Axis("x", period=LENGTH, units="m"), Axis("y", period=LENGTH, units="m")))
VORTICITY = Metadata("vortices", SQUARE, (Channel("vorticity", "1/s"),), INTERVAL, time_units="s")
POINTS = SQUARE.uniform_coordinates((SIZE, SIZE))
X, Y = torch.meshgrid(*POINTS, indexing="ij")


def solver(viscosity=1e-3, forcing=None):
    return NavierStokes2d(SIZE, viscosity, INTERVAL, STEPS, forcing=forcing, precision="float64")


def plan_of(frames, trajectories=1, metadata=VORTICITY):
    return RolloutPlan(metadata, trajectories, frames, POINTS)


def context_of(batch):
    return Context(tuple(points.expand(batch, -1) for points in POINTS))


def random_states(batch, seed=0):
    """Smooth vorticities (batch, 1, x, y) of unit rms."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfft2(torch.randn(batch, 1, SIZE, SIZE, dtype=torch.float64, generator=generator))
    kx, ky = torch.fft.fftfreq(SIZE, 1 / SIZE).double()[:, None], torch.arange(SIZE // 2 + 1)
    kept = (kx.square() + ky.square() < 36) & (kx.square() + ky.square() > 0)
    fields = torch.fft.irfft2(spectrum * kept, s=(SIZE, SIZE))
    return fields / fields.square().mean((-2, -1), keepdim=True).sqrt()


def trajectories_of(march, batch=2, frames=8):
    """Frames (batch, time, 1, x, y) of the march."""
    states = [march.advance(random_states(batch), STEPS)]
    for _ in range(frames - 1):
        states.append(march.advance(states[-1], STEPS))
    return torch.stack(states, 1)


def measured(metric, prediction, truth, *, block=None, batch=None):
    count, frames = truth.shape[:2]
    for numbers in torch.arange(count).split(batch or count):
        for first in range(0, frames, block or frames):
            now = slice(first, first + (block or frames))
            metric.update(
                Block(
                    metric.plan, prediction[numbers, now], truth[numbers, now], first, numbers, context_of(len(numbers))
                )
            )
    outputs = metric.compute()
    assert set(outputs) == set(metric.variables)
    assert all(score.variable in outputs for score in metric.scores.values())
    return outputs


def wrong_trajectories(truth):
    """What a residual must not take for the truth."""
    generator = torch.Generator().manual_seed(3)
    amplitude = truth.square().mean((-2, -1), keepdim=True).sqrt()
    return {
        "reversed": truth.flip(1),
        "frozen": truth[:, :1].expand_as(truth),
        "noise": amplitude * torch.randn(truth.shape, dtype=truth.dtype, generator=generator),
    }


@pytest.mark.parametrize("order", [-1.0, 0.0])
@pytest.mark.parametrize("forcing", [None, KolmogorovForcing(2)], ids=["decaying", "forced"])
def test_the_residual_is_not_blind(order, forcing):
    # A residual with a time derivative that starts at each frame anew ranks these alike, or noise first.
    march = solver(forcing=forcing)
    truth = trajectories_of(march)
    plan = plan_of(8, trajectories=2)
    exact = measured(ResidualMetric(plan, march, order), truth, truth)
    assert exact["relative_residual_truth"].max() < 1e-10
    assert torch.equal(exact["residual_truth"], exact["residual_prediction"])
    for name, values in wrong_trajectories(truth).items():
        outputs = measured(ResidualMetric(plan, march, order), values, truth)
        for key in ("residual", "relative_residual"):
            ratio = outputs[f"{key}_prediction"].mean() / exact[f"{key}_truth"].mean()
            assert ratio > 1e3, (name, key)
        assert (outputs["relative_residual_prediction"] > 0.1).all(), name
        assert torch.equal(outputs["residual_truth"], exact["residual_truth"])


@pytest.mark.parametrize("given", [torch.float64, torch.float32])
def test_frames_stored_in_single_precision_still_rank_the_truth_first(given):
    march = solver()
    truth = trajectories_of(march).to(given)
    plan = plan_of(8, trajectories=2)
    exact = measured(ResidualMetric(plan, march), truth, truth)["relative_residual_truth"].mean()
    for name, values in wrong_trajectories(truth).items():
        found = measured(ResidualMetric(plan, march), values, truth)["relative_residual_prediction"].mean()
        assert found / exact > 1e3, name


def test_the_exact_solution_has_no_residual_and_a_wrong_decay_has_its_own():
    # Taylor-Green vortices: w = cos x cos y exp(-2 nu t).
    viscosity = 0.1
    times = INTERVAL * torch.arange(1, 7, dtype=torch.float64)
    decay = torch.exp(-2 * viscosity * times)
    vortices = torch.cos(X) * torch.cos(Y)
    truth = decay[None, :, None, None, None] * vortices
    prediction = decay.square()[None, :, None, None, None] * vortices
    outputs = measured(ResidualMetric(plan_of(6), solver(viscosity)), prediction, truth)
    assert outputs["relative_residual_truth"].max() < 1e-10
    # Residual: (a(t + h) - a(t) e^(-2 nu h)) / h, with a falling twice as fast.
    factor = math.exp(-2 * viscosity * INTERVAL)
    amplitudes = decay.square()[:-1] * abs(factor**2 - factor) / INTERVAL
    norm = 0.5 / math.sqrt(2 + 1)  # rms of the vortices, wavenumber squared 2, alpha 1
    assert torch.allclose(outputs["residual_prediction"].flatten(), norm * amplitudes, rtol=1e-6)
    relative = decay[:-1] * factor  # over e^(-2 nu t) (1 - e^(-2 nu h))
    assert torch.allclose(outputs["relative_residual_prediction"].flatten(), relative, rtol=1e-6)


def test_a_frozen_rollout_of_a_truth_that_starts_there_has_a_relative_residual_of_one():
    march = solver()
    truth = trajectories_of(march, frames=2)
    frozen = truth[:, :1].expand_as(truth)
    outputs = measured(ResidualMetric(plan_of(2, 2), march), frozen, truth)
    assert torch.allclose(outputs["relative_residual_prediction"], torch.ones(2, 1, 1).double(), rtol=1e-6)


def test_norms_are_those_of_sobolev_and_order_minus_one_that_of_the_velocity():
    march = solver()
    truth = trajectories_of(march)
    prediction = truth + random_states(2, seed=4)[:, None] * torch.linspace(0, 1, 8).reshape(1, 8, 1, 1, 1)
    defect = one_interval_defect(prediction, context_of(2), march, INTERVAL)
    for order in (-1.0, 0.5):
        found = measured(ResidualMetric(plan_of(8, 2), march, order), prediction, truth)["residual_prediction"]
        # Tables of the sums are in single precision.
        assert torch.allclose(found, sobolev_norm(defect, SQUARE.periods, order, alpha=1.0), rtol=1e-6), order
    velocity = velocity_from_vorticity(defect[:, :, 0], SQUARE.periods)
    energy = velocity.square().sum(2).mean((-2, -1)).sqrt()
    homogeneous = sobolev_norm(defect, SQUARE.periods, -1.0, alpha=0.0)[..., 0]
    assert torch.allclose(energy, homogeneous)
    assert (found[..., 0] > energy).all()


def test_labels():
    metric = ResidualMetric(plan_of(3), solver())
    assert metric.variables["residual_truth"].units == "((1/s)/s) m"
    assert metric.variables["residual_truth"].dims == ("trajectory", "interval", "channel")
    assert metric.coordinates["interval"].values.tolist() == pytest.approx([0.2, 0.3])
    assert ResidualMetric(plan_of(3), solver(), order=0.0).variables["residual_truth"].units == "(1/s)/s"
    assert ResidualMetric(plan_of(3), solver(), order=1.5).variables["residual_truth"].units == "((1/s)/s) m^-1.5"


@pytest.mark.parametrize("block", [1, 2, 3, 8])
def test_blocks_and_batches_do_not_matter_and_the_stopped_harm_nobody(block):
    march = solver()
    truth = trajectories_of(march, batch=3)
    prediction = truth.flip(1).clone()
    prediction[1, 5:] = math.nan
    expected = measured(ResidualMetric(plan_of(8, 3), march), prediction, truth)
    metric = pickle.loads(pickle.dumps(ResidualMetric(plan_of(8, 3), march)))
    found = measured(metric, prediction, truth, block=block, batch=2)
    for name, values in expected.items():
        assert torch.allclose(values, found[name], rtol=1e-9, atol=1e-14, equal_nan=True), name
    stopped = expected["residual_prediction"].isnan()[..., 0].tolist()
    assert stopped == [[False] * 7, [False] * 4 + [True] * 3, [False] * 7]
    assert expected["residual_truth"].isfinite().all()


def update(metric, frames, first, numbers):
    frames = frames[numbers, first : first + 2]
    metric.update(Block(metric.plan, frames, frames, first, torch.tensor(numbers), context_of(len(numbers))))


def test_blocks_out_of_order_and_interleaved_batches_are_refused():
    march = solver()
    truth = trajectories_of(march, batch=4, frames=6)
    metric = ResidualMetric(plan_of(6, 4), march)
    with pytest.raises(ValueError, match="a block from frame 0 but got one from frame 2"):
        update(metric, truth, 2, [0, 1])
    update(metric, truth, 0, [0, 1])
    with pytest.raises(ValueError, match="from frame 0 or frame 2 of the batch before but got one from frame 4"):
        update(metric, truth, 4, [0, 1])
    with pytest.raises(ValueError, match="one batch after the other"):
        update(metric, truth, 2, [0, 1, 2])
    metric.reset()
    with pytest.raises(ValueError, match="a block from frame 0 but"):
        update(metric, truth, 2, [0, 1])
    # Which trajectories a block holds is known on the device only: that another batch came between, `compute` tells.
    for first, numbers in ((0, [0, 1]), (0, [2, 3]), (2, [0, 1]), (4, [0, 1])):
        update(metric, truth, first, numbers)
    with pytest.raises(ValueError, match="one batch after those of another but 1 followed"):
        metric.compute()
    metric.reset()
    assert measured(metric, truth, truth, block=2, batch=2)["residual_truth"].max() < 1e-10
    assert metric._before is None


class Still(nn.Module):
    """A march that changes nothing; it gives two frames at once."""

    def step(self, history, context):
        return history[:, -1:].expand(-1, 2, *[-1] * (history.ndim - 2))


def test_updates_need_no_values():
    metric = ResidualMetric(plan_of(4, 2), Still()).to("meta")
    context = Context(tuple(points.to("meta") for points in context_of(2).coordinates))
    for first in (0, 1, 3):
        frames = torch.empty(2, 1 if first != 1 else 2, 1, SIZE, SIZE, device="meta")
        block = Block(metric.plan, frames, frames, first, torch.empty(2, dtype=torch.long, device="meta"), context)
        metric.update(block)


def test_several_channels_between_walls():
    # Cosine waves between walls; both channels steady under a march that changes nothing.
    grid = Grid((Axis("x"), Axis("y", period=1.0)))
    metadata = Metadata("walls", grid, (Channel("heat", "K"), Channel("dye")), 0.5)
    points = torch.linspace(0, 1, 9, dtype=torch.float64), torch.arange(8, dtype=torch.float64) / 8
    wave = torch.cos(2 * torch.pi * points[0])[:, None].expand(9, 8)
    plan = RolloutPlan(metadata, 1, 2, points)
    truth = torch.stack([torch.stack([wave, 3 * wave]), torch.stack([2 * wave, 3 * wave])])[None]
    prediction = torch.stack([torch.stack([wave, 3 * wave]), torch.stack([0 * wave, 4 * wave])])[None]
    metric = ResidualMetric(plan, Still(), order=0.0)
    context = Context(tuple(p[None] for p in points))
    metric.update(Block(plan, prediction, truth, 0, torch.tensor([0]), context))
    outputs = metric.compute()
    rms = math.sqrt(0.5)
    assert outputs["residual_truth"].flatten().tolist() == pytest.approx([2 * rms, 0])
    assert outputs["residual_prediction"].flatten().tolist() == pytest.approx([2 * rms, 2 * rms])
    # The dye of the truth stands still: any change is infinitely larger.
    assert outputs["relative_residual_prediction"].flatten().tolist() == [pytest.approx(1), math.inf]
    assert outputs["relative_residual_truth"].flatten().tolist() == [pytest.approx(1), 0]
    assert metric.variables["residual_truth"].units == "K, 1"


def test_bad_input_is_refused():
    march = solver()
    with pytest.raises(ValueError, match="at least two frames for a residual but got 1"):
        ResidualMetric(plan_of(1), march)
    masked = RolloutPlan(VORTICITY, 1, 4, POINTS, masked=True)
    with pytest.raises(ValueError, match="no mask for residual norms"):
        ResidualMetric(masked, march)

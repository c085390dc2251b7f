import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pdesurrogate.evaluation.card import ModelCard
from pdesurrogate.evaluation.checks import failed_checks
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.provenance import checkpoint_record
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.conservation import BudgetMetric, EnergyDriftMetric, IntegralMetric
from pdesurrogate.metrics.correlations import StructureFunctionMetric, TwoPointMetric
from pdesurrogate.metrics.errors import BandErrorMetric, ErrorMetric, SobolevErrorMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.spectra import SpectrumMetric
from pdesurrogate.metrics.statistics import MomentsMetric
from pdesurrogate.metrics.suites import default_suite
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.steppers.ensemble import Ensemble
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.resampled import Resampled

LENGTH = 2 * math.pi
SQUARE = Grid((Axis("x", period=LENGTH), Axis("y", period=LENGTH)))
VORTICITY = Metadata(
    "decay",
    SQUARE,
    (Channel("vorticity", "1/s"),),
    frame_interval=0.25,
    parameters=("viscosity",),
    time_units="s",
    attributes={"content_hash": "abc", "recipe": '{"seed": 3}'},
)
VELOCITY = Metadata("flow", SQUARE, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")), frame_interval=0.25)
RATE = 0.1


def trajectory_of(frames, metadata=VORTICITY, reads=None):
    """A trajectory that reads from ``frames (time, channel, *space)`` and notes (start, stop) of every reading."""

    def read_into(start, out):
        if reads is not None:
            reads.append((start, start + len(out)))
        out.copy_(frames[start : start + len(out)])

    coordinates = metadata.grid.uniform_coordinates(tuple(frames.shape[2:]), dtype=torch.float32)
    parameters = torch.ones(len(metadata.parameters))
    times = torch.arange(len(frames), dtype=torch.float64) * metadata.frame_interval
    return Trajectory(metadata, Context(coordinates, parameters), times, read_into, tuple(frames.shape))


def decaying(count, frames, size=12, channels=1, metadata=VORTICITY, reads=None):
    """Noise that decays by exp(-RATE) a frame, another one in every trajectory."""
    start = torch.randn(count, 1, channels, size, size, generator=torch.Generator().manual_seed(5))
    decay = torch.exp(-RATE * torch.arange(frames)).reshape(-1, 1, 1, 1)
    return [trajectory_of(values * decay, metadata, reads) for values in start]


class Decaying(nn.Module):
    """The exact answer, times ``1 + error`` at each frame; ``block`` frames at once."""

    def __init__(self, error=0.0, block=1, history_frames=1):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(math.exp(-RATE) * (1 + error)))
        self.block = block
        self.history_frames = history_frames

    def step(self, history, context):
        assert not self.training
        assert history.shape[1] == self.history_frames
        powers = torch.arange(1, self.block + 1).reshape(1, -1, 1, 1, 1)
        return history[:, -1:] * self.factor**powers


def evaluate(stepper, trajectories, frames, kind="surrogate", **options):
    keys = ("suite", "metrics", "batch_size", "bounds")
    evaluator = Evaluator(**{key: options.pop(key) for key in keys if key in options})
    card = ModelCard.of(stepper, "model", kind, **options.pop("card", {}))
    return evaluator(stepper, trajectories, frames, model=card, **options)


def value(report, score):
    return report.attributes["scores"][score]["value"]


@pytest.mark.parametrize("block", [1, 2, 5])
def test_errors_of_a_model_with_a_known_error(block):
    report = evaluate(Decaying(error=0.05, block=block), decaying(5, 8), frames=7, batch_size=2)
    leads = np.arange(1, 8)
    expected = 1.05**leads - 1
    curves = report.curves
    assert curves["lead_time"].values == pytest.approx(0.25 * leads)
    # Fields are single precision.
    assert curves["relative_l2"].values[..., 0] == pytest.approx(np.broadcast_to(expected, (5, 7)), rel=1e-5)
    assert curves["correlation"].values == pytest.approx(np.ones((5, 7, 1)))
    assert value(report, "relative_l2") == pytest.approx(expected.mean(), rel=1e-5)
    assert value(report, "relative_l2_first") == pytest.approx(0.05, rel=1e-5)
    assert value(report, "relative_l2_last") == pytest.approx(expected[-1], rel=1e-5)
    assert value(report, "correlation_time") == pytest.approx(7 * 0.25)
    assert value(report, "correlation_time_censored") == 1.0
    assert value(report, "log_spectral_distance") == pytest.approx(np.mean(2 * np.log10(1.05) * leads), rel=1e-4)
    drift = (1.05**14 - 1) * math.exp(-2 * RATE * 6)
    assert value(report, "energy_drift") == pytest.approx(drift, rel=1e-4)
    assert value(report, "enstrophy_drift") == pytest.approx(drift, rel=1e-4)
    assert value(report, "finite_fraction") == 1.0
    assert report.attributes["scores"]["relative_l2"]["spread"] == pytest.approx(0.0, abs=1e-6)
    assert report.attributes["scores"]["correlation_time"]["units"] == "s"
    assert failed_checks(report) == []


def test_what_the_report_says_about_data_model_and_run():
    trajectories = decaying(3, 9)
    report = evaluate(
        Decaying(history_frames=2),
        trajectories,
        frames=4,
        start_frame=5,
        split="val",
        command="evaluate --frames 4",
        seed=11,
        card={"config": {"layers": 4}},
    )
    attributes = report.attributes
    assert attributes["data"] == {
        "name": "decay",
        "split": "val",
        "content_hash": "abc",
        "channels": ["vorticity"],
        "shape": [12, 12],
        "periods": [LENGTH, LENGTH],
        "frame_interval": 0.25,
        "trajectories": 3,
        "trajectories_declared": 3,
        "start_frame": 5,
        "frames": 4,
        "recipe": {"seed": 3},
    }
    assert attributes["model"]["parameters"] == 1
    assert attributes["model"]["class_path"].endswith("test_evaluator.Decaying")
    assert attributes["model"]["config"] == {"layers": 4}
    run = attributes["run"]
    assert (run["command"], run["seed"], run["precision"], run["batch_size"]) == (
        "evaluate --frames 4",
        11,
        "float32",
        16,
    )
    assert 0 < run["seconds_per_frame"] * 12 < run["wall_time_s"]


def test_a_report_of_either_kind_of_flow_can_be_saved_and_loaded(tmp_path):
    for metadata, channels in ((VORTICITY, 1), (VELOCITY, 2)):
        trajectories = decaying(3, 6, channels=channels, metadata=metadata)
        report = evaluate(Decaying(error=0.1), trajectories, frames=5)
        loaded = Report.load(report.save(tmp_path / metadata.name))
        assert loaded.attributes == report.attributes
        assert loaded.curves.identical(report.curves)
    assert value(loaded, "relative_divergence") > 0
    assert value(loaded, "integral_drift") is not None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_the_result_does_not_depend_on_the_batch_size(size):
    trajectories = decaying(7, 6, channels=2, metadata=VELOCITY)
    whole, parts = (
        evaluate(Decaying(error=0.3, block=2), trajectories, 5, batch_size=batch, bounds=(-6.0, 6.0)).curves
        for batch in (7, size)
    )
    assert set(whole) == set(parts)
    for name in whole:
        # Up to the order of sums in single precision.
        np.testing.assert_allclose(parts[name].values, whole[name].values, rtol=2e-6, atol=1e-7, err_msg=name)


def test_one_trajectory_one_frame_and_one_dimension():
    line = Metadata("line", Grid((Axis("x", period=1.0),)), (Channel("u"),), frame_interval=1.0)
    frames = torch.ones(2, 1, 8).cumsum(-1)
    report = evaluate(Persistence(), [trajectory_of(frames, line)], 1, kind="baseline")
    assert report.curves["relative_l2"].shape == (1, 1, 1)
    assert value(report, "relative_l2") == 0.0
    assert report.attributes["scores"]["relative_l2"]["spread"] is None
    assert "energy_spectrum_truth" not in report.curves


def test_frames_are_read_block_by_block_and_only_those_needed():
    reads = []
    trajectories = decaying(4, 20, reads=reads)
    evaluate(Decaying(block=3, history_frames=2), trajectories, frames=8, start_frame=6, batch_size=2)
    assert sorted(reads) == sorted(4 * [(4, 6), (6, 9), (9, 12), (12, 14)])


def test_a_stopped_trajectory_is_recorded_and_is_not_averaged_away():
    trajectories = decaying(4, 8)
    trajectories[2] = trajectory_of(200 * torch.stack([trajectories[2].read(0, 1)[0]] * 8))
    report = evaluate(Decaying(error=0.5), trajectories, 7, bounds=(-2000.0, 2000.0))
    growth = 1.5 * math.exp(-RATE)
    peak = trajectories[2].read(0, 1).abs().max().item()
    stop = math.ceil(math.log(2000.0 / peak) / math.log(growth))
    assert 1 < stop < 7
    finite = report.curves["finite"].values
    assert finite.tolist() == [[1] * 7, [1] * 7, [1] * (stop - 1) + [0] * (8 - stop), [1] * 7]
    assert report.curves["blow_up_time"].values[2] == pytest.approx(stop * 0.25)
    assert np.isnan(report.curves["blow_up_time"].values[[0, 1, 3]]).all()
    assert np.isnan(report.curves["relative_l2"].values[2, stop - 1 :]).all()
    assert value(report, "finite_fraction") == 0.75
    for score in ("relative_l2", "relative_l2_last", "rmse", "energy_drift", "log_spectral_distance"):
        assert value(report, score) is None
        assert report.attributes["scores"][score]["spread"] is None
    assert value(report, "relative_l2_first") is not None
    assert value(report, "correlation_time") is not None


def test_every_trajectory_may_blow_up():
    report = evaluate(Decaying(error=1e30), decaying(2, 5), 4)
    assert value(report, "finite_fraction") == 0.0
    assert value(report, "correlation_time") < 4 * 0.25
    assert report.curves["spectrum_trajectories"].values[-1] == 0
    assert np.isnan(report.curves["energy_spectrum_prediction"].values[-1]).all()
    assert np.isfinite(report.curves["energy_spectrum_truth"].values).all()


def test_a_coarse_solver_is_compared_on_the_grid_of_the_data():
    fine = NavierStokes2d(32, viscosity=0.02, frame_interval=0.25, steps_per_frame=10)
    x, y = torch.meshgrid(*SQUARE.uniform_coordinates((32, 32), dtype=torch.float32), indexing="ij")
    frames = [(torch.cos(x) * torch.cos(2 * y) + torch.sin(x + y))[None, None, None]]
    for _ in range(4):
        frames.append(fine.step(frames[-1], fine.context(1)))
    trajectories = [trajectory_of(torch.cat(frames)[:, 0])]
    coarse = Resampled(NavierStokes2d(16, viscosity=0.02, frame_interval=0.25, steps_per_frame=10), 16)
    report = evaluate(coarse, trajectories, 4, kind="solver")
    persistence = evaluate(Persistence(), trajectories, 4, kind="baseline")
    # The field's few waves are resolved at 16 points; what differs is the 2/3 mask.
    assert value(report, "relative_l2_last") < 1e-2 < value(persistence, "relative_l2_last")
    assert report.attributes["model"]["parameters"] == 0


def test_channels_of_different_units_are_not_averaged():
    mixed = Metadata("mixed", SQUARE, (Channel("a", "m"), Channel("b", "Pa")), frame_interval=0.25)
    report = evaluate(Decaying(error=0.1), decaying(2, 4, channels=2, metadata=mixed), 3)
    assert "rmse" not in report.attributes["scores"]
    assert report.attributes["scores"]["rmse_b"]["units"] == "Pa"
    assert value(report, "rmse_a") == pytest.approx(float(report.curves["rmse"].sel(channel="a").mean()))


def test_time_outside_the_stepper_and_the_first_block_are_not_counted():
    clock = iter(range(1000))

    def ticking():
        return float(next(clock))

    with patch("pdesurrogate.evaluation.evaluator.time.perf_counter", ticking):
        report = evaluate(Decaying(block=2), decaying(4, 7), 6, batch_size=4)
    # Every step takes one tick for a block of two frames of four trajectories.
    assert report.attributes["run"]["seconds_per_frame"] == pytest.approx(1 / 8)


def test_an_own_suite_and_progress():
    told = []
    report = evaluate(
        Decaying(),
        decaying(5, 4),
        3,
        batch_size=2,
        suite=lambda plan: {"only": ErrorMetric(plan, thresholds=(0.6,))},
        metrics={"bands": BandErrorMetric},
        on_batch=lambda done, total: told.append((done, total)),
    )
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert report.curves["threshold"].values.tolist() == [0.6]
    assert "energy_spectrum_truth" not in report.curves
    assert {"finite", "band_rmse"} <= set(report.curves)  # survival is always measured
    assert "finite_fraction" in report.attributes["scores"]
    with pytest.raises(ValueError, match=r"new names but \['errors'\] are in the suite"):
        evaluate(Decaying(), decaying(1, 3), 2, metrics={"errors": ErrorMetric})


def test_the_mode_of_a_module_is_put_back_even_where_it_was_mixed():
    inner = Decaying()
    stepper = Resampled(inner, 12)
    stepper.train()
    inner.eval()
    evaluate(stepper, decaying(1, 3), 2)
    assert (stepper.training, inner.training) == (True, False)


def test_an_input_frame_counted_as_prediction_is_found():
    class Echoing(Decaying):
        def step(self, history, context):
            return torch.cat([history[:, -1:], super().step(history, context)], dim=1)

    trajectories = decaying(3, 6)
    report = evaluate(Echoing(), trajectories, 4)
    assert failed_checks(report) == [
        "input_not_counted: the last given frame is repeated bit for bit in 3 trajectories, first in 0: "
        "an input frame is counted as a prediction"
    ]
    assert failed_checks(evaluate(Persistence(), trajectories, 4, kind="baseline")) == []
    # Where nothing moves in truth, a repeated frame is right.
    still = [trajectory_of(torch.stack([trajectories[0].read(0, 1)[0]] * 6))]
    assert failed_checks(evaluate(Persistence(), still, 4, kind="solver")) == []


def test_other_checks_reach_the_report(tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    card = {
        "checkpoint": checkpoint_record(checkpoint),
        "checkpoint_path": checkpoint,
        "parameters_without_gradient": ("factor",),
    }
    report = evaluate(Decaying(), decaying(2, 4), 2, trajectories_declared=16, card=card)
    assert [text.split(":")[0] for text in failed_checks(report)] == ["parameters_trained", "all_trajectories"]
    checkpoint.write_bytes(b"other weights")
    report = evaluate(Decaying(), decaying(2, 4), 2, card=card)
    assert [text.split(":")[0] for text in failed_checks(report)] == ["parameters_trained", "checkpoint_hash"]


def test_samples_for_pictures():
    trajectories = decaying(5, 8)
    evaluator = Evaluator(batch_size=2)
    prediction, truth = evaluator.sample_rollout(Decaying(block=2), trajectories, 5, [4, 0, 2], start_frame=3)
    assert prediction.shape == truth.shape == (3, 5, 1, 12, 12)
    assert torch.equal(truth[1], trajectories[0].read(3, 8))
    assert torch.allclose(prediction, truth, rtol=1e-5)
    with pytest.raises(ValueError, match=r"indices within 0\.\.4"):
        evaluator.sample_rollout(Decaying(), trajectories, 5, [5])


def test_what_cannot_be_measured_is_refused_with_the_cure():
    trajectories = decaying(2, 8)
    with pytest.raises(ValueError, match="trajectory 0 has 8 frames in all; ask for at most 7"):
        evaluate(Decaying(), trajectories, 8)
    with pytest.raises(ValueError, match="start_frame of at least 3"):
        evaluate(Decaying(history_frames=3), trajectories, 2, start_frame=2)
    with pytest.raises(ValueError, match="split is empty"):
        evaluate(Decaying(), [], 2)
    with pytest.raises(ValueError, match="at least one frame"):
        evaluate(Decaying(), trajectories, 0)
    with pytest.raises(ValueError, match="trajectory 1 has"):
        evaluate(Decaying(), [trajectories[0], decaying(1, 8, size=10)[0]], 2)
    with pytest.raises(ValueError, match="batch size"):
        Evaluator(batch_size=0)
    stepper = Decaying()
    stepper.metadata = VELOCITY
    with pytest.raises(ValueError, match="Expected channels"):
        evaluate(stepper, trajectories, 2)


@pytest.mark.parametrize("frame", [0, 5])
def test_data_that_are_not_finite_are_named(frame):
    trajectories = decaying(4, 8)
    broken = torch.cat([trajectories[3].read(number, number + 1) for number in range(8)])
    broken[frame, 0, 1, 1] = math.inf
    trajectories[3] = trajectory_of(broken)
    with pytest.raises(ValueError, match=f"frame {frame} of trajectory 3 holds NaN or infinity"):
        evaluate(Decaying(), trajectories, 7, batch_size=2)


def test_a_mask_that_covers_everything_is_refused_and_one_that_leaves_something_counts():
    trajectories = decaying(2, 4)
    for covered in (True, False):
        masks = [torch.ones(12, 12, dtype=torch.bool) for _ in trajectories]
        masks[1][:, 1:] = False
        masks[1][:, 0] = not covered
        masked = [
            replace(t, context=t.context._replace(mask=mask)) for t, mask in zip(trajectories, masks, strict=True)
        ]
        if covered:
            with pytest.raises(ValueError, match="that of trajectory 1 covers everything"):
                evaluate(Decaying(), masked, 2)
        else:
            assert value(evaluate(Decaying(error=0.1), masked, 2), "relative_l2_first") == pytest.approx(0.1, rel=1e-5)


def test_calling_needs_no_card():
    report = Evaluator()(Persistence(), decaying(2, 3), 2)
    assert report.attributes["model"]["name"] == "persistence"
    assert report.attributes["model"]["kind"] == "baseline"
    cost = report.attributes["cost"]
    assert cost["peak_memory_bytes"] == cost["module_bytes"] == 0
    assert cost["speed_up"]["value"] is None
    assert "no setting of a solver was measured" in cost["speed_up"]["reason"]


def test_an_ensemble_is_measured_by_its_mean_and_its_members():
    members = [Decaying(error=error) for error in (-0.1, 0.1, 0.3)]
    report = evaluate(Ensemble(members), decaying(4, 4), 3, batch_size=3)
    mean = np.mean([(1 + error) ** np.arange(1, 4) for error in (-0.1, 0.1, 0.3)], axis=0)
    assert report.curves["relative_l2"].values[0, :, 0] == pytest.approx(np.abs(mean - 1), rel=1e-4)
    assert value(report, "ensemble_crps") > 0
    assert report.curves["rank_histogram"].sizes["rank"] == 4


def test_sums_over_cells_between_walls_are_conserved():
    line = Metadata("heat", Grid((Axis("x"),)), (Channel("temperature", location="cell"),), frame_interval=1.0)
    frames = [torch.rand(16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)]
    for _ in range(5):
        flux = torch.nn.functional.pad(frames[-1].diff(), (1, 1))
        frames.append(frames[-1] + 0.2 * flux.diff())
    values = torch.stack(frames)[:, None].float()
    context = Context(((torch.arange(16) + 0.5) / 16,))
    heat = Trajectory(line, context, torch.arange(6.0), lambda start, out: out.copy_(values[start : start + len(out)]),
                      (6, 1, 16))  # fmt: skip
    report = Evaluator()(Persistence(), [heat], 5)
    # Single precision; with trapezoid weights, as for nodes, it would be several percent.
    assert report.curves["drift_integral_truth"].values == pytest.approx(0.0, abs=1e-6)


def test_recipes_of_others_and_suites_without_errors_do_no_harm():
    for recipe in ('{"simulator": {"class_path": "mylab.sims.KS", "init_args": {}}}', '{"simulator": "ks"}', "[]"):
        metadata = replace(VORTICITY, attributes={"recipe": recipe})
        report = Evaluator()(Persistence(), decaying(2, 3, metadata=metadata), 2)
        assert report.attributes["scores"]["relative_l2"]["value"] > 0
    report = Evaluator(lambda plan: {"spectra": SpectrumMetric(plan)})(Persistence(), decaying(2, 3), 2)
    assert report.attributes["cost"] is None
    assert "log_spectral_distance" in report.attributes["scores"]


def test_some_with_a_mask_and_some_without_are_refused():
    trajectories = decaying(2, 3)
    mask = torch.ones(12, 12, dtype=torch.bool)
    trajectories[1] = replace(trajectories[1], context=trajectories[1].context._replace(mask=mask))
    with pytest.raises(ValueError, match="a mask in all trajectories or in none"):
        evaluate(Decaying(), trajectories, 2, batch_size=1)


class Doubting(Decaying):
    """States a variance of its own, the same everywhere, larger at each frame of a block."""

    def predict(self, history, context):
        mean = self.step(history, context)
        growth = torch.arange(1, self.block + 1).reshape(1, -1, 1, 1, 1)
        return mean, 0.25 * growth.expand_as(mean)


def test_a_stepper_that_states_its_variance_is_held_to_it():
    stepper = Doubting(error=0.2, block=2)
    report = evaluate(stepper, decaying(3, 6), 5)
    # Blocks of two frames: the variance of the fifth frame is that of the first frame of the third block.
    expected = np.sqrt([0.25, 0.5, 0.25, 0.5, 0.25])
    assert report.curves["gaussian_spread"].values[0, :, 0] == pytest.approx(expected)
    assert value(report, "gaussian_crps") > 0
    assert "gaussian_crps" not in evaluate(Decaying(), decaying(2, 4), 3).attributes["scores"]


class Allocations(TorchDispatchMode):
    """Most bytes of tensors alive at one time, those that were there before left out."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


def test_memory_does_not_grow_with_the_number_of_steps():
    size, count = 48, 4
    field = torch.randn(1, size, size)

    def peak(frames):
        def read_into(start, out):
            out.copy_(field.expand_as(out))

        context = Context(SQUARE.uniform_coordinates((size, size), dtype=torch.float32), torch.ones(1))
        times = torch.arange(frames + 1, dtype=torch.float64)
        shape = (frames + 1, 1, size, size)
        trajectories = [Trajectory(VORTICITY, context, times, read_into, shape) for _ in range(count)]

        def suite(plan):
            # The default suite but for the two metrics that keep samples, up to a number which these rollouts are too
            # short to reach.
            kinds = (ErrorMetric, SobolevErrorMetric, BandErrorMetric, SpectrumMetric, EnergyDriftMetric, BudgetMetric)
            kinds += (IntegralMetric, MomentsMetric, TwoPointMetric, StructureFunctionMetric)
            return {kind.__name__: kind(plan) for kind in kinds}

        with Allocations() as followed:
            evaluate(Decaying(), trajectories, frames, suite=suite, batch_size=count)
        return followed.peak

    few, many = peak(3), peak(23)
    whole_rollouts = 2 * count * 20 * size * size * 4
    assert many - few < 0.1 * whole_rollouts, (few, many, whole_rollouts)


def test_samples_that_are_kept_are_bounded():
    def state_bytes(frames):
        metrics = default_suite(RolloutPlan.of(decaying(3, 2), frames))
        states = [
            getattr(metrics[name], state) for name in ("density", "autocorrelation") for state in ("samples_truth",)
        ]
        return sum(state.numel() * state.element_size() for state in states)

    # A whole number of frames is kept, so the bound is not met exactly.
    assert state_bytes(10_240) <= 1.25 * state_bytes(2048) <= 1.25**2 * state_bytes(1024)


def evaluate_a_shard(rank, folder):
    """One of two processes that share five trajectories, then a single one, which leaves nothing for the second."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for count in (5, 1):
        report = evaluate(Decaying(error=0.2, block=2), decaying(count, 6), 5, batch_size=2)
        report.save(f"{folder}/{count}_{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_report_of_one(tmp_path):
    torch.multiprocessing.spawn(evaluate_a_shard, args=(str(tmp_path),), nprocs=2)
    for count in (5, 1):
        expected = evaluate(Decaying(error=0.2, block=2), decaying(count, 6), 5, batch_size=2)
        for rank in range(2):
            found = Report.load(tmp_path / f"{count}_{rank}")
            assert found.attributes["run"]["processes"] == 2
            assert found.attributes["checks"] == expected.attributes["checks"]
            assert found.attributes["run"]["seconds_per_frame"] > 0
            for name, values in expected.curves.items():
                # The same fields in other batches: sums in single precision are formed in another order.
                np.testing.assert_allclose(found.curves[name].values, values.values, rtol=1e-5, atol=1e-6, err_msg=name)

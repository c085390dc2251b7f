"""Networks of parameters, time and place evaluated as rollouts: all frames at once, at the times of the data."""

from __future__ import annotations

from dataclasses import replace

import lightning
import pytest
import torch
from cfdbench_cases import write_tree

from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench
from pdesurrogate.data.frame_data import FrameData
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.fields.batch import collate
from pdesurrogate.metrics.cfdbench import CFDBenchErrorMetric, mean_scores
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.models.deeponet import FFN
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import load_checkpoint
from pdesurrogate.training.case_regression import (
    CaseForecast,
    CaseRegressionModule,
    case_forecast,
    holds_case_network,
    load_case_network,
    predict_frames,
    save_case_network,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*GPU available but not used.*"
)
RANGES = [(0.0, 20.0), (0.0, 2.0), (0.0, 1.0), (0.0, 0.1), (0.0, 0.1)]
BOTH = ["velocity_x", "velocity_y"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Cavities of 6 frames."""
    tree = write_tree(tmp_path_factory.mktemp("tree"), "cavity", bc=6, prop=3, geo=3, frames=6, rows=16, columns=16)
    return CfdBench(tree, "cavity", cells=(16, 16))


def trained(folder, data, channels):
    torch.manual_seed(0)
    network = FFN(RANGES, [(0.0, 1.0), (0.0, 0.01), (0.0, 0.01)], [(-10.0, 10.0)] * len(channels), width=8, depth=2)
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(CaseRegressionModule(network, channels, points=20), FrameData(data, batch_size=4))
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """Of a network of both velocities, in the other order."""
    return trained(tmp_path_factory.mktemp("fit"), data, BOTH[::-1])


def test_a_rollout_is_what_the_network_says_of_these_times(data, checkpoint):
    trajectories = data.trajectories("test")
    stepper, _ = case_forecast(checkpoint, trajectories, start_frame=2, frames=3)
    assert isinstance(stepper, Stepper)
    context = collate([trajectory.context for trajectory in trajectories])
    history = torch.stack([trajectory.read(1, 2) for trajectory in trajectories])
    with torch.no_grad():
        (block,) = rollout(stepper, history, context, 3)
        network = load_case_network(checkpoint)
        expected = predict_frames(network, trajectories[0].times[2:5].float(), context)
        # The history is not looked at.
        (other,) = rollout(stepper, history + 1, context, 3)
    torch.testing.assert_close(block, expected.flip(2), rtol=0, atol=0)
    assert torch.equal(block, other)


def test_a_report_has_the_scores_of_the_frames(data, checkpoint):
    trajectories = data.trajectories("test")
    stepper, card = case_forecast(checkpoint, trajectories, start_frame=1, frames=5)
    evaluator = Evaluator(lambda plan: {"errors": ErrorMetric(plan)}, metrics={"cfdbench": CFDBenchErrorMetric})
    report = evaluator(stepper, trajectories, 5, model=card, start_frame=1)
    with torch.no_grad():
        predicted = predict_frames(
            load_case_network(checkpoint),
            trajectories[0].times[1:].float(),
            collate([trajectory.context for trajectory in trajectories]),
        ).flip(2)
    truth = torch.stack([trajectory.read(1) for trajectory in trajectories])
    scores = mean_scores(predicted.flatten(0, 1), truth.flatten(0, 1))
    assert report.attributes["scores"]["nmse"]["value"] == pytest.approx(float(scores.nmse), rel=1e-5)
    model = report.attributes["model"]
    assert (model["name"], model["kind"]) == ("FFN", "surrogate")
    assert model["class_path"] == "pdesurrogate.models.deeponet.FFN"
    assert model["parameters"] == sum(each.numel() for each in stepper.parameters())
    assert model["training"]["steps"] == 2
    assert all(check["passed"] for check in report.attributes["checks"])


def test_a_slim_checkpoint_says_the_same(data, checkpoint, tmp_path):
    slim = save_case_network(checkpoint, tmp_path / "slim.ckpt")
    assert slim.stat().st_size < checkpoint.stat().st_size
    assert load_checkpoint(slim)["training"] == load_checkpoint(checkpoint)["training"]
    trajectories = data.trajectories("test")
    history = torch.stack([trajectory.read(0, 1) for trajectory in trajectories])
    context = collate([trajectory.context for trajectory in trajectories])
    with torch.no_grad():
        one, other = (case_forecast(path, trajectories, 1, 2)[0].step(history, context) for path in (checkpoint, slim))
    assert torch.equal(one, other)


def test_checkpoints_of_cases_are_told_from_others(checkpoint, tmp_path):
    assert holds_case_network(checkpoint)
    stored = load_checkpoint(checkpoint)
    stored["pdesurrogate"] = {
        "network": {"class_path": "pdesurrogate.models.cfdbench_unet.CFDBenchUNet", "init_args": {"channels": 2}}
    }
    torch.save(stored, tmp_path / "other.ckpt")
    assert not holds_case_network(tmp_path / "other.ckpt")


def test_more_frames_than_times_are_refused(data, checkpoint):
    trajectories = data.trajectories("test")
    stepper, _ = case_forecast(checkpoint, trajectories, 1, 2)
    history = torch.stack([trajectory.read(0, 1) for trajectory in trajectories])
    context = collate([trajectory.context for trajectory in trajectories])
    with torch.no_grad(), pytest.raises(ValueError, match="at most 2 frames"):
        list(rollout(stepper, history, context, 3))


def test_what_does_not_fit_is_named(data, checkpoint, tmp_path):
    trajectories = data.trajectories("test")
    with pytest.raises(ValueError, match=r"Expected 6 frames from frame 1 on .* trajectory 0 has 6 frames"):
        case_forecast(checkpoint, trajectories, 1, 6)
    late = [trajectories[0], replace(trajectories[1], times=trajectories[1].times + 0.1)]
    with pytest.raises(ValueError, match=r"at the times of trajectory 0 but trajectory 1 has 6 frames from time 0\.1"):
        case_forecast(checkpoint, late, 1, 2)
    with pytest.raises(ValueError, match="split is empty"):
        case_forecast(checkpoint, [], 1, 2)
    alone = trained(tmp_path, data, ["velocity_x"])
    with pytest.raises(ValueError, match=r"network of all channels .* but got fields"):
        case_forecast(alone, trajectories, 1, 2)
    with pytest.raises(ValueError, match="0 times"):
        CaseForecast(load_case_network(checkpoint), data.metadata, BOTH, torch.empty(0))

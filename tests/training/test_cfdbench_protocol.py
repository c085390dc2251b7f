"""The authors' training and scores on what their loaders give, against plain formulas."""

from __future__ import annotations

import math

import lightning
import pytest
import torch
from cfdbench_cases import write_tree
from torch import nn

from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench
from pdesurrogate.data.adapters.cfdbench.reference import reference_datasets
from pdesurrogate.data.adapters.cfdbench.reference_adapter import ReferenceCfdBench
from pdesurrogate.fields.batch import collate
from pdesurrogate.models.auto_deeponet import AutoFFN
from pdesurrogate.models.cfdbench import identity_ranges
from pdesurrogate.models.cfdbench_fno import CFDBenchFNO
from pdesurrogate.models.deeponet import FFN
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.surrogate import Surrogate
from pdesurrogate.training.cfdbench_protocol import (
    ReferenceForecastModule,
    ReferenceFrameData,
    ReferencePairData,
    WholeFrame,
    multi_step,
    pair_scores,
    single_frame_scores,
)
from pdesurrogate.training.losses import NormalizedMSE

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Tubes of 4 to 7 frames on 8 x 10 cells."""
    return write_tree(tmp_path_factory.mktemp("tree"), "tube", bc=6, prop=3, geo=3, rows=10, columns=8)


@pytest.fixture(scope="module")
def pairs(tree):
    return ReferenceCfdBench(tree, "tube")


def of_numpy(predicted, label, mask=None):
    """Mean over pairs of the authors' NMSE, MSE, RMSE and MAE of each."""
    rows = []
    for number in range(len(label)):
        own, truth = predicted[number].double(), label[number].double()
        if mask is not None:
            own, truth = own * mask[number], truth * mask[number]
        mse = ((own - truth) ** 2).mean().item()
        rows.append((mse / (truth**2).mean().item(), mse, math.sqrt(mse), (own - truth).abs().mean().item()))
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("scored", ["both", "first"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_single_steps_are_scored_as_the_authors_do_with_batches_of_one(tree, pairs, scored, batch_size):
    batch = batch_of(tree)
    found = pair_scores(Persistence(), pairs.trajectories("test"), scored, batch_size)
    if scored == "both":
        expected = of_numpy(batch["inputs"], batch["label"], batch["mask"].double())
    else:
        expected = of_numpy(batch["inputs"][:, :1], batch["label"][:, :1])
    assert [float(value) for value in found] == pytest.approx(expected, rel=1e-6)


def batch_of(tree):
    data = reference_datasets(tree, "tube")["test"]
    return data.collate([data[number] for number in range(len(data))])


def test_a_network_is_asked_what_the_authors_ask_theirs(tree, pairs):
    torch.manual_seed(0)
    network = CFDBenchFNO(2, parameter_ranges=identity_ranges(5), modes=(3, 3), width=4, compat="reference").eval()
    batch = batch_of(tree)
    with torch.no_grad():
        asked = network(batch["inputs"].mT[:, None], batch["case_params"], volumes=(batch["mask"][:, 0].mT > 0).float())
    expected = of_numpy(asked[:, 0].mT, batch["label"], batch["mask"].double())
    found = pair_scores(Surrogate(network, pairs.metadata), pairs.trajectories("test"), "both", 4)
    assert [float(value) for value in found] == pytest.approx(expected, rel=1e-5)


def test_frames_are_scored_over_all_points_of_the_first_velocity(tree):
    torch.manual_seed(0)
    network = FFN(identity_ranges(5), identity_ranges(3), identity_ranges(1), width=8, depth=2).eval()
    data = reference_datasets(tree, "tube", "frames")["test"]
    predicted, labels = [], []
    for parameters, time, frame in (data[number] for number in range(len(data))):
        rows, columns = torch.meshgrid(*(torch.arange(float(size)) for size in frame.shape[1:]), indexing="ij")
        points = torch.stack([torch.full_like(rows, float(time)), columns, rows], -1).flatten(0, 1)
        with torch.no_grad():
            predicted.append(network(parameters[None], points[None])[0, :, 0].reshape(1, *frame.shape[1:]))
        labels.append(frame[:1])
    found = single_frame_scores(network, ReferenceCfdBench(tree, "tube", "frames").trajectories("test"))
    assert [float(value) for value in found] == pytest.approx(of_numpy(predicted, labels), rel=1e-5)


class Exact(nn.Module):
    """Gives what comes next in the case that begins as its history does."""

    history_frames = 1

    def __init__(self, cases, stride=1):
        super().__init__()
        self.cases, self.stride = [trajectory.read() for trajectory in cases], stride

    def step(self, history, context):
        for frames in self.cases:
            for number, frame in enumerate(frames):
                if torch.equal(frame, history[0, -1]):
                    return frames[min(number + self.stride, len(frames) - 1)][None, None]
        raise AssertionError("no such frame")


def test_an_exact_rollout_has_no_error_by_frames_and_one_by_the_reference(pairs):
    cases = pairs.stored("test")
    right = multi_step(Exact(cases), cases, steps=6)
    known = max(len(trajectory) for trajectory in cases) - 1
    assert right.mse[:known].tolist() == [0.0] * known
    assert right.mse[known:].isnan().all()
    theirs = multi_step(Exact(cases), cases, steps=6, alignment="reference")
    assert theirs.mse[0] > 0
    # The list of their ResNet begins with its input, which puts every step beside its own frame.
    shifted = multi_step(Exact(cases), cases, steps=6, alignment="reference", starts_with_input=True)
    assert shifted.mse.tolist() == [0.0] * 6
    assert multi_step(Persistence(), cases, alignment="reference").mse[0] == 0
    assert len(multi_step(Persistence(), cases).mse) == 20


def test_strides_count_in_the_truth(pairs):
    cases = pairs.stored("test")
    found = multi_step(Exact(cases, stride=2), cases, stride=2, steps=2)
    assert found.mse[0] == 0


def test_a_network_without_steps_is_asked_for_the_frames_that_it_is_compared_with(tree):
    cases = ReferenceCfdBench(tree, "tube", "frames").stored("test")
    network = FFN(identity_ranges(5), identity_ranges(3), identity_ranges(1), width=8, depth=2).eval()
    by_frames, by_reference = (
        multi_step(network, cases, steps=3, alignment=alignment) for alignment in ("frames", "reference")
    )
    # Step k is frame k + 1 of the first and frame k of the second.
    torch.testing.assert_close(by_frames.mse[:2], by_reference.mse[1:], rtol=1e-6, atol=0)


def test_velocities_go_in_as_they_are_and_are_chosen_by_their_own_loss(pairs, tmp_path):
    data = ReferencePairData(pairs, batch_size=4)
    network = CFDBenchFNO(2, parameter_ranges=identity_ranges(5), modes=(2, 2), width=2, compat="reference")
    module = ReferenceForecastModule(network, pairs.metadata, loss=NormalizedMSE(), weight_decay=0.0)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, data)
    assert module.surrogate.normalizer.mean.tolist() == [0.0, 0.0]
    assert module.surrogate.normalizer.std.tolist() == [1.0, 1.0]
    losses = []
    with torch.no_grad():
        for batch in data.val_dataloader():
            assert len(batch.history) <= 16
            fluid = batch.context.mask[:, None]
            predicted = module.surrogate.eval().step(batch.history, batch.context)[:, 0] * fluid
            truth = batch.target[:, 0] * fluid
            losses.append(float((predicted - truth).square().mean() / truth.square().mean()))
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_whole_frame_counts_in_what_predicts_the_first_velocity(pairs):
    trajectory = pairs.trajectories("train")[0]
    frames, context = trajectory.read(0, 2)[None], collate([trajectory.context])
    assert not bool(context.mask.all())
    moved = frames[:, 1:].clone()
    moved[..., 0] += 1.0  # in the row below, which is masked
    masked, whole = (
        loss.distance(moved, frames[:, 1:], context, pairs.metadata.grid)
        for loss in (NormalizedMSE([1.0, 0.0]), WholeFrame(NormalizedMSE([1.0, 0.0])))
    )
    assert float(masked) == 0
    truth = frames[:, 1:, 0]
    expected = (moved[:, :, 0] - truth).square().mean() / truth.square().mean()
    assert float(whole) == pytest.approx(float(expected), rel=1e-6)


def test_a_network_that_mixes_up_its_batch_is_right_alone(pairs):
    torch.manual_seed(0)
    network = AutoFFN(
        2, grid=pairs.cells, parameter_ranges=identity_ranges(5), predicted="first", width=6, depth=2,
        compat="reference",
    ).eval()  # fmt: skip
    stepper = Surrogate(network, pairs.metadata)
    alone, together = (pair_scores(stepper, pairs.trajectories("test"), "first", size) for size in (1, 8))
    assert float(alone.nmse) != float(together.nmse)


def test_frames_of_validation_come_by_64(tree):
    data = ReferenceFrameData(ReferenceCfdBench(tree, "tube", "frames"))
    assert data.val_dataloader().batch_size == 64
    assert sum(len(batch.time) for batch in data.val_dataloader()) == len(
        reference_datasets(tree, "tube", "frames")["val"]
    )


def test_data_of_another_task_or_adapter_are_refused(tree, pairs):
    with pytest.raises(ValueError, match="ReferenceCfdBench with the task 'frames'"):
        ReferenceFrameData(pairs)
    with pytest.raises(ValueError, match="ReferenceCfdBench with the task 'pairs'"):
        ReferencePairData(ReferenceCfdBench(tree, "tube", "frames"))
    with pytest.raises(ValueError, match="with the task 'pairs' but got <"):
        ReferencePairData(CfdBench(tree, "tube", cells=(8, 10), mask="none"))
    with pytest.raises(ValueError, match="at least one frame"):
        pair_scores(Persistence(), [], "both")
    with pytest.raises(ValueError, match="at least one case"):
        multi_step(Persistence(), [])

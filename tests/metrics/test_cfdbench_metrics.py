"""The scores of CFDBench: their averaging, their masks, and which frame a step is compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import measure
from torch import Tensor
from torch.nn import functional

from pdesurrogate.evaluation.scores import curves_of, scores_of
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.cfdbench import CFDBenchErrorMetric, at_rest, frame_scores, mean_scores, multi_step_scores
from pdesurrogate.metrics.errors import relative_l2
from pdesurrogate.metrics.plan import RolloutPlan


def fields(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_of_a_batch_is_the_formula() -> None:
    prediction, target = fields(4, 2, 5, 6), fields(4, 2, 5, 6, seed=1)
    found = mean_scores(prediction, target, averaging="batch")
    mse = functional.mse_loss(prediction.double(), target.double())
    assert float(found.mse) == pytest.approx(float(mse), rel=1e-6)
    assert float(found.rmse) == pytest.approx(math.sqrt(float(mse)), rel=1e-6)
    assert float(found.mae) == pytest.approx(float(functional.l1_loss(prediction, target)), rel=1e-6)
    assert float(found.nmse) == pytest.approx(float(mse / target.square().mean()), rel=1e-6)


def test_of_frames_is_the_mean_of_each_alone() -> None:
    prediction, target = fields(4, 2, 5, 6), fields(4, 2, 5, 6, seed=1)
    found = mean_scores(prediction, target)
    alone = [mean_scores(prediction[n : n + 1], target[n : n + 1], averaging="batch") for n in range(4)]
    for name in found._fields:
        values = [float(getattr(each, name)) for each in alone]
        assert float(getattr(found, name)) == pytest.approx(sum(values) / 4)


def test_a_small_frame_rules_the_mean_of_ratios_alone() -> None:
    target = fields(3, 2, 4, 4)
    target[0] *= 1e-3
    prediction = target + 0.1
    ratios, together = (float(mean_scores(prediction, target, averaging=each).nmse) for each in ("frames", "batch"))
    assert ratios > 1000 * together


def test_nmse_is_the_square_of_the_relative_error() -> None:
    prediction, target = fields(3, 1, 5, 6), fields(3, 1, 5, 6, seed=1)
    expected = relative_l2(prediction[:, None], target[:, None]).square()[:, 0, 0]
    torch.testing.assert_close(frame_scores(prediction, target).nmse, expected)


@pytest.mark.parametrize("averaging", ["frames", "batch"])
def test_solid_cells_do_not_count(averaging: Any) -> None:
    prediction, target = fields(3, 2, 8, 4), fields(3, 2, 8, 4, seed=1)
    mask = torch.zeros(8, 4, dtype=torch.bool)
    mask[:6] = True
    target[:, :, 6:] = torch.nan
    whole = mean_scores(prediction[:, :, :6], target[:, :, :6], averaging=averaging)
    for given in (mask, mask.expand(3, -1, -1)):
        torch.testing.assert_close(mean_scores(prediction, target, given, averaging), whole)
    # The authors multiply by the mask and take means over all cells.
    reference = mean_scores(prediction, target, mask, averaging, compat="reference")
    torch.testing.assert_close(reference.mse, 0.75 * whole.mse)
    torch.testing.assert_close(reference.mae, 0.75 * whole.mae)
    torch.testing.assert_close(reference.nmse, whole.nmse)


def test_each_frame_has_its_own_mask() -> None:
    prediction, target = fields(2, 1, 4, 4), fields(2, 1, 4, 4, seed=1)
    masks = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(3)) > 0.4
    found = frame_scores(prediction, target, masks)
    for number in range(2):
        error = (prediction - target)[number, 0][masks[number]].double()
        torch.testing.assert_close(found.mse[number], error.square().mean())


def test_frames_without_truth_are_left_out_of_the_mean_ratio() -> None:
    prediction, target = fields(3, 1, 4, 4), fields(3, 1, 4, 4, seed=1)
    target[1] = 0
    found = mean_scores(prediction, target)
    torch.testing.assert_close(found.nmse, frame_scores(prediction, target).nmse[[0, 2]].mean())
    assert bool(torch.isfinite(torch.stack(found)).all())
    assert bool(mean_scores(prediction[1:2], target[1:2]).nmse.isnan())
    # The authors divide by zero.
    assert float(mean_scores(prediction, target, compat="reference").nmse) == math.inf
    assert bool(mean_scores(target, target, compat="reference").nmse.isnan())


def test_a_prediction_that_blows_up_has_no_score() -> None:
    prediction, target = fields(3, 1, 4, 4), fields(3, 1, 4, 4, seed=1)
    prediction[2, 0, 1, 1] = torch.nan
    for averaging in ("frames", "batch"):
        assert bool(torch.stack(mean_scores(prediction, target, averaging=averaging)).isnan().all())
    # In solid cells it does not matter.
    fluid = torch.ones(4, 4, dtype=torch.bool)
    fluid[1, 1] = False
    assert bool(torch.stack(mean_scores(prediction, target, fluid)).isfinite().all())


def test_rest_is_a_matter_of_the_truth_in_the_fluid() -> None:
    target = torch.zeros(3, 2, 4, 4)
    target[1, 1, 0, 0], target[2, 0, 3, 3] = 1e-30, torch.nan
    assert at_rest(target).tolist() == [True, False, False]
    fluid = torch.ones(4, 4, dtype=torch.bool)
    fluid[0, 0] = False
    assert at_rest(target, fluid).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="Expected fluid in every mask"):
        at_rest(target, torch.zeros(4, 4, dtype=torch.bool))


def test_an_exact_prediction_has_no_error() -> None:
    target = fields(3, 1, 4, 4)
    assert torch.stack(mean_scores(target, target)).tolist() == [0, 0, 0, 0]


# Rollouts.


def series(frames: int, seed: int = 0) -> Tensor:
    return fields(frames, 1, 3, 4, seed=seed)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_an_exact_rollout_has_no_error(stride: int) -> None:
    truth = [series(10), series(10, seed=1)]
    prediction = torch.stack([each[stride::stride] for each in truth])
    assert torch.stack(multi_step_scores(prediction, truth, stride=stride)).abs().max() == 0


def test_persistence_gives_the_identity_error() -> None:
    truth = [series(6), series(6, seed=1)]
    prediction = torch.stack([each[:1].expand(5, -1, -1, -1) for each in truth])
    found = multi_step_scores(prediction, truth)
    each = [frame_scores(case[:1].expand(5, -1, -1, -1), case[1:]) for case in truth]
    torch.testing.assert_close(found.nmse, torch.stack([case.nmse for case in each]).mean(0))
    reference = multi_step_scores(prediction, truth, alignment="reference")
    assert (float(reference.mse[0]), bool(reference.mse[1:].min() > 0)) == (0.0, True)


def test_the_reference_compares_with_the_frame_before_and_lengthens_short_cases() -> None:
    long, short = series(8), series(3, seed=1)
    prediction = fields(2, 6, 1, 3, 4, seed=2)
    mask = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(3)) > 0.3
    found = multi_step_scores(prediction, [long, short], mask, stride=5, alignment="reference")
    for step in range(6):
        errors = []
        for case, truth in enumerate((long, short)):
            frame = truth[min(step, len(truth) - 1)] * mask[case]
            errors.append((prediction[case, step] * mask[case] - frame).double().square().mean())
        torch.testing.assert_close(found.mse[step], torch.stack(errors).mean())


def test_a_case_counts_as_long_as_it_lasts() -> None:
    long, short = series(5), series(3, seed=1)
    prediction = fields(2, 6, 1, 3, 4, seed=2)
    found = multi_step_scores(prediction, [long, short])
    both, alone = (multi_step_scores(prediction[:n], [long, short][:n]) for n in (2, 1))
    torch.testing.assert_close(found.mse[2:4], alone.mse[2:4])
    assert not torch.allclose(both.mse[:2], alone.mse[:2])
    assert bool(found.mse[4:].isnan().all())


def test_a_rollout_that_blows_up_has_no_scores_from_there_on() -> None:
    truth = [series(6), series(6, seed=1)]
    prediction = fields(2, 5, 1, 3, 4, seed=2)
    prediction[1, 3:] = torch.nan
    for score in multi_step_scores(prediction, truth):
        assert score.isnan().tolist() == [False, False, False, True, True]


def test_steps_at_rest_are_left_out_of_the_mean_ratio_alone() -> None:
    truth = [series(4), series(4, seed=1)]
    truth[1][2] = 0
    prediction = fields(2, 3, 1, 3, 4, seed=2)
    found = multi_step_scores(prediction, truth)
    each = [frame_scores(prediction[case], truth[case][1:]) for case in range(2)]
    torch.testing.assert_close(found.nmse[1], each[0].nmse[1])
    torch.testing.assert_close(found.nmse[2], (each[0].nmse[2] + each[1].nmse[2]) / 2)
    torch.testing.assert_close(found.mae, (each[0].mae + each[1].mae) / 2)
    assert float(multi_step_scores(prediction, truth, alignment="reference").nmse[2]) == math.inf


# As a metric of rollouts.


def metadata(units: tuple[str, ...] = ("m/s", "m/s")) -> Metadata:
    names = ("velocity_x", "velocity_y", "pressure")
    channels = tuple(Channel(name, unit, location="cell") for name, unit in zip(names, units, strict=False))
    return Metadata("tube", Grid((Axis("x"), Axis("y"))), channels, frame_interval=0.5)


def test_metric_is_the_scores_of_each_frame() -> None:
    plan = plan_of_lines(metadata(), 3, 4, masked=True)
    prediction, target = fields(3, 4, 2, 6, 5), fields(3, 4, 2, 6, 5, seed=1)
    mask = torch.ones(3, 6, 5, dtype=torch.bool)
    mask[:, 2:4, :2] = False
    context = Context(tuple(each.expand(3, -1) for each in plan.coordinates), mask=mask)
    found = measure(CFDBenchErrorMetric(plan), prediction, target, length=3, context=context)
    expected = frame_scores(prediction, target, mask[:, None])
    for name in ("nmse", "mse", "mae"):
        torch.testing.assert_close(found[name], getattr(expected, name), rtol=1e-6, atol=1e-7)


def plan_of_lines(data: Metadata, trajectories: int, frames: int, **options: Any) -> RolloutPlan:
    """On cells of a box, whose volumes are alike."""
    lines = tuple(torch.arange(n, dtype=torch.float64) + 0.5 for n in (6, 5))
    return RolloutPlan(data, trajectories, frames, lines, **options)


def test_metric_takes_the_channels_that_are_named() -> None:
    plan = plan_of_lines(metadata(("m/s", "m/s", "Pa")), 2, 3)
    prediction, target = fields(2, 3, 3, 6, 5), fields(2, 3, 3, 6, 5, seed=1)
    metric = CFDBenchErrorMetric(plan, channels=["velocity_x"])
    found = measure(metric, prediction, target)
    assert metric.variables["mse"].units == "(m/s)2"
    assert set(metric.scores) == {"nmse", "mse", "mae"}
    expected = measure(CFDBenchErrorMetric(plan, ["velocity_x", "velocity_y"]), prediction, target)
    assert not torch.allclose(found["mse"], expected["mse"])
    with pytest.raises(ValueError, match="Expected channels of the same units"):
        CFDBenchErrorMetric(plan)
    with pytest.raises(ValueError, match="Expected channels among"):
        CFDBenchErrorMetric(plan, channels=["smoke"])
    with pytest.raises(ValueError, match="Expected channels among"):
        CFDBenchErrorMetric(plan, channels=[])


def test_metric_has_no_ratio_where_the_truth_is_zero() -> None:
    target = fields(1, 2, 2, 6, 5)
    target[:, 0] = 0
    found = measure(CFDBenchErrorMetric(plan_of_lines(metadata(), 1, 2)), target + 1, target)
    assert found["nmse"].isnan().tolist() == [[True, False]]


def test_a_frame_at_rest_does_not_spoil_the_score_and_a_stopped_trajectory_does() -> None:
    target = fields(4, 3, 2, 6, 5)
    target[0, 0], target[2] = 0, 0
    prediction = target + 1
    prediction[1, 1:] = torch.nan
    metric = CFDBenchErrorMetric(plan_of_lines(metadata(), 4, 3))
    found = measure(metric, prediction, target)
    torch.testing.assert_close(
        found["mean_nmse"][[0, 3]], torch.stack([found["nmse"][0, 1:].mean(), found["nmse"][3].mean()])
    )
    # One was stopped, the other is at rest throughout.
    assert found["mean_nmse"].isnan().tolist() == [False, True, True, False]
    assert metric.scores["nmse"].variable == "mean_nmse"
    assert metric.variables["mean_nmse"].dims == ("trajectory",)


def test_a_report_of_flows_from_rest_has_a_score() -> None:
    target = fields(2, 3, 2, 6, 5)
    target[:, 0] = 0
    plan = plan_of_lines(metadata(), 2, 3)
    metric = CFDBenchErrorMetric(plan)
    found = measure(metric, target + 1, target)
    scores = scores_of({"cfdbench": metric}, curves_of({"cfdbench": metric}, plan))
    assert scores["nmse"]["value"] == pytest.approx(float(found["nmse"][:, 1:].mean()))
    assert scores["mse"]["value"] == pytest.approx(1.0)


# What they refuse.


def test_what_does_not_fit_is_refused() -> None:
    values = fields(2, 1, 3, 4)
    with pytest.raises(ValueError, match="Expected prediction and target"):
        frame_scores(values, values[:1])
    with pytest.raises(ValueError, match="Expected prediction and target"):
        frame_scores(values[0, 0], values[0, 0])
    with pytest.raises(ValueError, match="Expected fluid in every mask"):
        frame_scores(values, values, torch.zeros(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="Expected averaging"):
        mean_scores(values, values, averaging="median")  # type: ignore[arg-type]
    rollout = fields(2, 5, 1, 3, 4)
    with pytest.raises(ValueError, match="truth for 1 and 1"):
        multi_step_scores(rollout, [series(6)])
    with pytest.raises(ValueError, match="a stride of at least 1"):
        multi_step_scores(rollout, [series(6), series(6)], stride=0)
    with pytest.raises(ValueError, match="case 1 has no frame"):
        multi_step_scores(rollout, [series(6), series(6)[:0]], alignment="reference")
    with pytest.raises(ValueError, match="Expected alignment"):
        multi_step_scores(rollout, [series(6), series(6)], alignment="late")  # type: ignore[arg-type]

"""What every metric keeps: known values, weights, blocks that add up, and rollouts that were stopped."""

import pytest
import torch

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.plan import RolloutPlan

from .metric import TemplateMetric, template_metric

GRID = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
METADATA = Metadata("example", GRID, (Channel("height"), Channel("speed", units="1/time")), frame_interval=0.1)


def plan_of(trajectories: int, frames: int) -> RolloutPlan:
    """Of rollouts on 8 x 8 points."""
    return RolloutPlan(METADATA, trajectories, frames, GRID.uniform_coordinates((8, 8)))


def measured(prediction: torch.Tensor, target: torch.Tensor, block_length: int) -> torch.Tensor:
    """The curve of whole rollouts that come in blocks of frames."""
    metric = TemplateMetric(plan_of(*target.shape[:2]))
    numbers = torch.arange(len(target))
    context = Context(tuple(points.expand(len(target), -1) for points in metric.plan.coordinates))
    for start in range(0, target.shape[1], block_length):
        part = slice(start, start + block_length)
        metric.update(Block(metric.plan, prediction[:, part], target[:, part], start, numbers, context))
    return metric.compute()["template_metric"]


def test_known_values() -> None:
    """None for the truth itself, and all where everything is far off; units do not matter."""
    target = torch.randn(2, 3, 2, 8, 8)
    assert bool((template_metric(target, target) == 0).all())
    assert bool((template_metric(target + 10, target) == 1).all())
    prediction = target + torch.randn_like(target)
    torch.testing.assert_close(template_metric(4 * prediction, 4 * target), template_metric(prediction, target))


def test_points_without_weight_do_not_count() -> None:
    """The share is that of the others, whatever is stored in a body."""
    target = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 1, 4)
    prediction = torch.tensor([1.0, 1.0, 1.0, torch.nan]).reshape(1, 1, 1, 4)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
    assert template_metric(prediction, target, weights=weights).item() == pytest.approx(1 / 3)


def test_blocks_of_frames_make_the_curve_of_the_whole() -> None:
    """Whatever their length."""
    target = torch.randn(2, 6, 2, 8, 8)
    prediction = target + 0.5 * torch.randn_like(target)
    whole = template_metric(prediction, target)
    for block_length in (1, 4, 6):
        assert torch.equal(measured(prediction, target, block_length), whole)


def test_a_stopped_rollout_is_not_exact() -> None:
    """Its frames are NaN and so is the measure, that of the others is not."""
    target = torch.randn(2, 4, 2, 8, 8)
    prediction = target.clone()
    prediction[1, 2:] = torch.nan
    curve = measured(prediction, target, block_length=4)
    assert bool(curve[1, 2:].isnan().all())
    assert bool((curve[0] == 0).all())


def test_names_of_outputs_and_scores_agree() -> None:
    """Every output has a label, and scores are of outputs."""
    metric = TemplateMetric(plan_of(1, 1))
    assert {score.variable for score in metric.scores.values()} <= set(metric.variables)


def test_a_negative_tolerance_is_refused() -> None:
    """With what was expected and what was found."""
    with pytest.raises(ValueError, match="tolerance >= 0 but got -1"):
        TemplateMetric(plan_of(1, 1), tolerance=-1.0)

"""CFDBench's training loss: one ratio for a batch."""

from __future__ import annotations

import pytest
import torch

from pdesurrogate.fields.grid import Axis, Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.cfdbench import mean_scores
from pdesurrogate.training.losses import MeanSquaredError, NormalizedMSE

GRID = Grid((Axis("x"), Axis("y")))


def case(batch: int = 3, space: tuple[int, int] = (6, 5), masked: bool = True):
    """Prediction, target and context: boxes of different extents, one with more solid cells than the next."""
    generator = torch.Generator().manual_seed(0)
    target, error = torch.randn(2, batch, 2, 2, *space, generator=generator, dtype=torch.float64)
    lengths = torch.arange(1.0, batch + 1, dtype=torch.float64)[:, None]
    lines = tuple(lengths * (torch.arange(size, dtype=torch.float64) + 0.5) / size for size in space)
    mask = torch.ones(batch, *space, dtype=torch.bool)
    for number in range(batch):
        mask[number, :number, :3] = False
    return target + 0.1 * error, target, Context(lines, mask=mask if masked else None)


@pytest.mark.parametrize("masked", [True, False])
def test_is_the_score_of_the_whole_batch(masked):
    prediction, target, context = case(masked=masked)
    mask = None if context.mask is None else context.mask.repeat_interleave(2, dim=0)
    frames = (each.flatten(0, 1) for each in (prediction, target))
    expected = mean_scores(*frames, mask, averaging="batch", compat="reference").nmse
    torch.testing.assert_close(NormalizedMSE().distance(prediction, target, context, GRID), expected)


def test_is_without_units_and_one_for_no_flow_at_all():
    prediction, target, context = case()
    loss = NormalizedMSE()
    found = loss.distance(prediction, target, context, GRID)
    torch.testing.assert_close(loss.distance(7 * prediction, 7 * target, context, GRID), found)
    assert float(loss.distance(0 * target, target, context, GRID)) == pytest.approx(1.0)
    assert float(loss.distance(target, target, context, GRID)) == 0.0


def test_a_slow_case_and_what_is_solid_count_little():
    prediction, target, context = case()
    slow = torch.tensor([1.0, 1.0, 1e-3], dtype=torch.float64).reshape(3, 1, 1, 1, 1)
    found, faster = (
        NormalizedMSE().distance(slow * each, slow * target, context, GRID) for each in (prediction, target)
    )
    assert float(faster) == 0.0
    wrong = torch.where(slow < 1, 2 * prediction, prediction)
    assert float(NormalizedMSE().distance(slow * wrong, slow * target, context, GRID)) == pytest.approx(
        float(found), rel=1e-3
    )
    solid = prediction + 9 * ~context.mask[:, None, None]
    assert torch.equal(
        NormalizedMSE().distance(solid, target, context, GRID),
        NormalizedMSE().distance(prediction, target, context, GRID),
    )


def test_weights_choose_channels():
    prediction, target, context = case(masked=False)
    alone = (each[:, :, :1] for each in (prediction, target))
    expected = NormalizedMSE().distance(*alone, context, GRID)
    torch.testing.assert_close(NormalizedMSE([2.0, 0.0]).distance(prediction, target, context, GRID), expected)
    with pytest.raises(ValueError, match="weight for each of 2 channels"):
        NormalizedMSE([1.0]).distance(prediction, target, context, GRID)
    with pytest.raises(ValueError, match="not negative"):
        NormalizedMSE([-1.0, 1.0])


def test_a_target_at_rest_gives_a_number_and_a_gradient():
    prediction, target, context = case()
    given = prediction.clone().requires_grad_()
    NormalizedMSE().distance(given, 0 * target, context, GRID).backward()
    assert bool(given.grad.isfinite().all())
    ratio = NormalizedMSE().distance(prediction, target, context, GRID)
    mean = MeanSquaredError().distance(0 * target, target, context._replace(mask=None), GRID)
    assert float(ratio) < float(mean)

"""Losses of statistics over a batch: they know no phases, and what they are equal to by hand."""

from __future__ import annotations

import pytest
import torch
from test_losses import ALONG, CHANNEL, GRID, IN_CHANNEL, mean_over_heights, turbulent

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.conservation.laws import KeptMeans
from pdesurrogate.training.losses import (
    FirstFrames,
    FluctuationL2,
    LogLineSpectrum,
    MeanDrift,
    MeanSquaredError,
    PlaneMoments,
)
from pdesurrogate.training.record import described


def test_spectra_of_a_batch_scatter_less_than_those_of_frames():
    prediction, target = turbulent(1, 0.0), turbulent(0, 0.0)
    alone = LogLineSpectrum().distance(prediction, target, IN_CHANNEL, CHANNEL)
    together = LogLineSpectrum(averaged_over="batch").distance(prediction, target, IN_CHANNEL, CHANNEL)
    assert together < 0.6 * alone


def test_spectra_of_a_batch_do_not_mind_the_order_of_its_frames():
    target = turbulent(0, 0.0)
    shuffled = target.flip(0, 1)
    loss = LogLineSpectrum(averaged_over="batch")
    assert loss.distance(shuffled, target, IN_CHANNEL, CHANNEL) < 1e-10
    assert LogLineSpectrum().distance(shuffled, target, IN_CHANNEL, CHANNEL) > 0.1
    # Twice the amplitude is 0.6 decades, however it is averaged; walls have no energy to compare.
    twice = LogLineSpectrum(floor=1e-30, averaged_over="batch").distance(2 * target, target, IN_CHANNEL, CHANNEL)
    inside = torch.tensor([0, 1, 1, 1, 1, 1, 0], dtype=torch.float64)
    assert twice == pytest.approx(0.60206 * float(mean_over_heights(inside)) ** 0.5, rel=1e-4)


def test_a_loss_of_frames_is_recorded_as_before_there_was_a_choice():
    assert LogLineSpectrum().averaged_over is None
    with pytest.raises(ValueError, match="'frame' or 'batch' but got 'time'"):
        LogLineSpectrum(averaged_over="time")


def test_moments_equal_the_plain_formula():
    weak = torch.tensor([1.0, 0.1], dtype=torch.float64).reshape(2, 1, 1, 1)
    prediction, target = turbulent(1, 9.0) * weak, turbulent(0) * weak
    means = [field.mean((0, 1, 3, 5)) for field in (prediction, target)]
    fluctuations = [field - field.mean((3, 5), keepdim=True) for field in (prediction, target)]
    rms = mean_over_heights(fluctuations[1].square().mean((0, 1, 3, 5))).sqrt()
    stresses = []
    for field in fluctuations:
        units = field / rms.reshape(2, 1, 1, 1)
        stresses.append(torch.einsum("btixyz,btjxyz->ijy", units, units) / (2 * 3 * 12 * 8))
    drift = (mean_over_heights((means[0] - means[1]).square()).sqrt() / rms).mean()
    error, size = (mean_over_heights(each.square()).sum().sqrt() for each in (stresses[0] - stresses[1], stresses[1]))
    found = PlaneMoments().distance(prediction, target, IN_CHANNEL, CHANNEL)
    torch.testing.assert_close(found, drift + error / size, rtol=1e-4, atol=0)  # but for the floor


def test_moments_of_weak_channels_count_as_those_of_strong_ones():
    target = turbulent(mean=0.0)
    factors = target.new_tensor([1.0, 1.2]).reshape(2, 1, 1, 1)
    loud = PlaneMoments().distance(target * factors, target, IN_CHANNEL, CHANNEL)
    scale = target.new_tensor([1.0, 1e-2]).reshape(2, 1, 1, 1)
    quiet = PlaneMoments().distance(target * factors * scale, target * scale, IN_CHANNEL, CHANNEL)
    torch.testing.assert_close(loud, quiet, rtol=1e-2, atol=0)


def test_moments_know_neither_place_nor_time():
    target = turbulent()
    elsewhere = target.roll((5, 3), (-3, -1)).flip(0, 1)
    assert PlaneMoments().distance(elsewhere, target, IN_CHANNEL, CHANNEL) < 1e-6
    flipped = target * target.new_tensor([1.0, -1.0]).reshape(2, 1, 1, 1)  # the sign of the shear stress
    assert PlaneMoments().distance(flipped, target, IN_CHANNEL, CHANNEL) > 1e-3


def test_an_amplitude_that_is_off_costs_what_it_does_to_the_stresses():
    target = turbulent(mean=0.0)
    target = target - target.mean((3, 5), keepdim=True)
    found = PlaneMoments().distance(1.1 * target, target, IN_CHANNEL, CHANNEL)
    assert float(found) == pytest.approx(0.21, rel=1e-3)


def test_gradients_are_finite_also_where_nothing_differs():
    target = turbulent().float()
    for loss in (PlaneMoments(), LogLineSpectrum(averaged_over="batch")):
        prediction = target.clone().requires_grad_()
        loss.distance(prediction, target, IN_CHANNEL, CHANNEL).backward()
        assert torch.isfinite(prediction.grad).all()


def test_first_frames_are_those_of_the_loss_on_them_alone():
    prediction, target = turbulent(1), turbulent(0)
    inner = FluctuationL2()
    for frames in (1, 2, 5):
        expected = inner.distance(prediction[:, :frames], target[:, :frames], IN_CHANNEL, CHANNEL)
        assert FirstFrames(inner, frames).distance(prediction, target, IN_CHANNEL, CHANNEL) == expected
    with pytest.raises(ValueError, match="at least one frame but got 0"):
        FirstFrames(MeanSquaredError(), 0)


def test_moments_need_a_periodic_axis():
    closed = Grid((Axis("x"), Axis("y"), Axis("z")))
    with pytest.raises(ValueError, match="to take means along"):
        PlaneMoments().distance(turbulent(), turbulent(), Context(tuple(line[None] for line in ALONG)), closed)
    square = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    context = Context(tuple(points.expand(2, -1) for points in GRID.uniform_coordinates((16, 16))))
    assert PlaneMoments().distance(square, square, context, GRID) < 1e-6


def test_drift_of_the_mean_is_in_units_of_the_field_and_blind_to_all_else():
    target = turbulent(0, 0.0)
    # Heights of the cells are the weights: a shift of one height counts by its share.
    shifted = target.clone()
    shifted[..., 2, :] += 3.0
    share = mean_over_heights(torch.tensor([0, 0, 1, 0, 0, 0, 0], dtype=torch.float64))
    found = MeanDrift().distance(shifted, target, IN_CHANNEL, CHANNEL)
    assert float(found) == pytest.approx(3.0 * float(share), rel=1e-6)
    waves = turbulent(1, 0.0)
    assert MeanDrift().distance(target, target, IN_CHANNEL, CHANNEL) < 1e-12
    fluctuation = waves - waves.mean((3, 5), keepdim=True)
    assert MeanDrift().distance(target + fluctuation, target, IN_CHANNEL, CHANNEL) < 1e-10
    # Of two channels, one alone can be held to it.
    one = shifted.clone()
    one[:, :, 0] = target[:, :, 0]
    assert MeanDrift([1.0, 0.0]).distance(one, target, IN_CHANNEL, CHANNEL) < 1e-12


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("location", ["node", "cell"])
@pytest.mark.parametrize("axis", [Axis("y"), Axis("y", bounds=(-0.2, 1.3)), Axis("y", period=1.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drift_is_of_the_mean_that_the_law_keeps(axis, location, masked, dtype):
    grid = Grid((Axis("x", period=1.0), axis))
    channels = (Channel("u", location=location), Channel("v", location=location))
    metadata = Metadata("example", grid, channels, frame_interval=0.1)
    generator = torch.Generator().manual_seed(0)
    # Stretched, and by more in the second sample.
    heights = torch.linspace(0, 1, 9, dtype=torch.float64) ** torch.tensor([[1.3], [1.8]])
    mask = torch.rand(2, 6, 9, generator=generator) < 0.7 if masked else None
    context = Context((torch.arange(6, dtype=dtype).expand(2, -1) / 6, heights.to(dtype)), mask=mask)
    prediction, target = torch.randn(2, 2, 3, 2, 6, 9, generator=generator).to(dtype)
    law = KeptMeans()
    rows = law.rows(metadata, context)
    drift = rows.apply(prediction.double()) - rows.apply(target.double())
    points = "cells" if metadata.cell_centered else "nodes"
    found = MeanDrift(points=points).distance(prediction, target, context, grid)
    torch.testing.assert_close(found, drift.square().mean().sqrt().to(dtype))
    alone = MeanDrift([0.0, 1.0], points).distance(prediction, target, context, grid)
    torch.testing.assert_close(alone, drift[..., 1].square().mean().sqrt().to(dtype))


def test_drift_at_nodes_is_recorded_as_before_there_was_a_choice():
    assert set(described(MeanDrift())) == {"class_path"}
    assert described(MeanDrift(points="cells"))["points"] == "cells"
    with pytest.raises(ValueError, match="points 'nodes' or 'cells' but got 'faces'"):
        MeanDrift(points="faces")

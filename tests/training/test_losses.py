from __future__ import annotations

import math

import pytest
import torch

from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.training.augmentation import SquareSymmetries
from pdesurrogate.training.losses import (
    MeanSquaredError,
    RelativeBochner,
    RelativeL2Joint,
    RelativeL2PerChannel,
    RelativeSobolev,
    TorchCFDSobolev,
    require_nonzero_channels,
)

LENGTH = 2 * math.pi
GRID = Grid((Axis("x", period=LENGTH), Axis("y", period=LENGTH)))
CONTEXT = Context(tuple(points.expand(2, -1) for points in GRID.uniform_coordinates((16, 16))))


def waves(*amplitudes: float, wave: int = 1) -> torch.Tensor:
    """``(2, 1, channels, 16, 16)``: a sine of each amplitude."""
    x = GRID.uniform_coordinates((16, 16))[0]
    line = torch.sin(wave * x)[:, None].expand(16, 16)
    return torch.stack([amplitude * line for amplitude in amplitudes]).expand(2, 1, -1, -1, -1)


def test_per_channel_and_joint_losses_are_what_they_are_called():
    target, prediction = waves(1.0, 10.0), waves(1.5, 10.0)
    per_channel = RelativeL2PerChannel().distance(prediction, target, CONTEXT, GRID)
    joint = RelativeL2Joint().distance(prediction, target, CONTEXT, GRID)
    assert float(per_channel) == pytest.approx((0.5 + 0.0) / 2, rel=1e-5)
    assert float(joint) == pytest.approx(0.5 / math.sqrt(101), rel=1e-5)


def noisy(scales=(1.0, 10.0, 0.1), noise=0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and target ``(2, 3, channels, 16, 16)``: white noise, brought to exactly the sizes asked for."""
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(2, 2, 3, len(scales), 16, 16, generator=generator, dtype=torch.float64)
    both = both / both.square().mean((-2, -1), keepdim=True).sqrt()
    target = both[0] * torch.tensor(scales, dtype=torch.float64)[:, None, None]
    return target + noise * both[1], target


def test_two_losses_of_one_name_in_the_literature_differ_twentyfold():
    # 0.3775 and 0.0172 were measured on one draw; fields of exactly these sizes give what is expected of a large one.
    prediction, target = noisy()
    per_channel = RelativeL2PerChannel().distance(prediction, target, CONTEXT, GRID)
    assert float(per_channel) == pytest.approx((0.1 + 0.01 + 1.0) / 3, rel=1e-4)
    assert float(per_channel) == pytest.approx(0.3775, rel=0.03)  # of the draw, whose size is not recorded
    for frames in ("apart", "together"):
        joint = RelativeL2Joint(frames).distance(prediction, target, CONTEXT, GRID)
        assert float(joint) == pytest.approx(0.1 * math.sqrt(3 / 101.01), rel=1e-5)
        assert round(float(joint), 4) == 0.0172


def test_only_the_loss_for_each_channel_knows_no_scale():
    prediction, target = noisy(scales=(1.0, 2.0, 0.5))
    scale = torch.tensor([100.0, 1.0, 3.0], dtype=torch.float64)[:, None, None]
    for loss, same in (
        (RelativeL2PerChannel(), True),
        (RelativeL2Joint(), False),
        (RelativeL2Joint("together"), False),
    ):
        plain = float(loss.distance(prediction, target, CONTEXT, GRID))
        scaled = float(loss.distance(scale * prediction, scale * target, CONTEXT, GRID))
        assert (scaled == pytest.approx(plain, rel=1e-5)) is same


def test_frames_together_are_one_ratio_a_sample():
    target, prediction = steps_in_time(1.0, 7.0), steps_in_time(1.5, 7.0)
    together = RelativeL2Joint("together").distance(prediction, target, CONTEXT, GRID)
    assert float(together) == pytest.approx(0.5 / math.sqrt(50), rel=1e-5)
    apart = RelativeL2Joint("apart").distance(prediction, target, CONTEXT, GRID)
    assert float(apart) == pytest.approx((0.5 + 0.0) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="'apart' or 'together' but got 'both'"):
        RelativeL2Joint("both")


def test_relative_to_a_channel_of_zeros_is_a_million_deviations_and_refused_beforehand():
    target, prediction = waves(1.0, 0.0), waves(1.0, 0.5)
    found = RelativeL2PerChannel().distance(prediction, target, CONTEXT, GRID)
    assert float(found) == pytest.approx(1e6 * 0.5 * math.sqrt(0.5) / 2, rel=1e-4)
    require_nonzero_channels(["u", "v"], torch.tensor([0.0, 3.0]), torch.tensor([1.0, 0.0]))
    with pytest.raises(
        ValueError, match="training split's v is, and no error is relative to zero; leave such channels"
    ):
        require_nonzero_channels(["u", "v"], torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))


def test_sobolev_loss_weighs_wavenumbers():
    target = waves(1.0, wave=1)
    prediction = target + waves(0.1, wave=5)
    found = RelativeSobolev(order=1.0, alpha=0.0).distance(prediction, target, CONTEXT, GRID)
    assert float(found) == pytest.approx(0.1 * 5, rel=1e-5)
    zero = RelativeSobolev(order=0.0).distance(prediction, target, CONTEXT, GRID)
    assert float(zero) == pytest.approx(
        float(RelativeL2PerChannel().distance(prediction, target, CONTEXT, GRID)), rel=1e-5
    )


def steps_in_time(*amplitudes: float, wave: int = 1) -> torch.Tensor:
    """``(2, time, 1, 16, 16)``: a sine of each amplitude, one after the other."""
    return waves(*amplitudes, wave=wave).transpose(1, 2)


def test_bochner_loss_is_one_ratio_for_all_frames():
    target = steps_in_time(1.0, 7.0)
    prediction = target + steps_in_time(0.5, 0.5, wave=3)
    found = RelativeBochner(order=1.0, alpha=0.0).distance(prediction, target, CONTEXT, GRID)
    assert float(found) == pytest.approx(0.5 * 3 / 5, rel=1e-5)
    each = RelativeSobolev(order=1.0, alpha=0.0).distance(prediction, target, CONTEXT, GRID)
    assert float(each) == pytest.approx(0.5 * 3 * (1 + 1 / 7) / 2, rel=1e-5)
    one_frame = prediction[:, :1], target[:, :1]
    for order in (-1.0, 0.0, 0.5):
        bochner = RelativeBochner(order).distance(*one_frame, CONTEXT, GRID)
        torch.testing.assert_close(bochner, RelativeSobolev(order).distance(*one_frame, CONTEXT, GRID))


def test_bochner_loss_keeps_samples_and_channels_apart():
    target = torch.stack([waves(1.0, 10.0)[0], waves(2.0, 5.0)[0]])
    error = torch.stack([waves(0.1, 0.0)[0], waves(0.4, 2.0)[0]])
    found = RelativeBochner().distance(target + error, target, CONTEXT, GRID)
    assert float(found) == pytest.approx((0.1 + 0.0 + 0.2 + 0.4) / 4, rel=1e-5)


@pytest.mark.parametrize(("named", "order"), [(0.0, 1.0), (-1.0, -0.5), (2.0, 1.0)])
def test_torch_cfd_loss_is_another_order_of_the_unit_box_and_too_small_by_the_root_of_the_frames(named, order):
    target, prediction = steps_in_time(1.0, 7.0, 3.0, 2.0), steps_in_time(1.1, 6.0, 2.0, 2.0)
    prediction = prediction + steps_in_time(0.3, 0.1, 0.2, 0.5, wave=4)
    unit_box = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    expected = RelativeBochner(order, alpha=0.1).distance(prediction, target, CONTEXT, unit_box) / math.sqrt(4)
    for grid in (GRID, unit_box):
        found = TorchCFDSobolev(named).distance(prediction, target, CONTEXT, grid)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    scaled = TorchCFDSobolev(named).distance(5 * prediction, 5 * target, CONTEXT, GRID)
    torch.testing.assert_close(scaled, found, rtol=1e-5, atol=0)


def test_torch_cfd_loss_honors_the_diameter():
    target, prediction = steps_in_time(1.0, 2.0), steps_in_time(1.5, 2.0) + steps_in_time(0.3, 0.1, wave=4)
    found = TorchCFDSobolev(diameter=LENGTH).distance(prediction, target, CONTEXT, GRID)
    expected = RelativeBochner(1.0, alpha=0.1).distance(prediction, target, CONTEXT, GRID) / math.sqrt(2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_mean_squared_error():
    assert float(MeanSquaredError().distance(waves(1.0), waves(0.0), CONTEXT, GRID)) == pytest.approx(0.5, rel=1e-6)


RELATIVE = [RelativeL2PerChannel(), RelativeL2Joint(), RelativeSobolev(), RelativeBochner(), TorchCFDSobolev()]


@pytest.mark.parametrize("loss", RELATIVE)
def test_a_vanishing_target_gives_a_finite_loss_and_gradient(loss):
    prediction = waves(1.0).clone().requires_grad_()
    value = loss.distance(prediction, waves(0.0), CONTEXT, GRID)
    value.backward()
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(prediction.grad).all())


@pytest.mark.parametrize("loss", [*RELATIVE, MeanSquaredError()])
def test_an_error_of_exactly_zero_has_a_finite_gradient(loss):
    # A channel that is constant in time is predicted exactly by an increment of scale zero.
    prediction = waves(1.0).clone().requires_grad_()
    loss.distance(prediction, waves(1.0), CONTEXT, GRID).backward()
    assert bool(torch.isfinite(prediction.grad).all())


def metadata(**changes) -> Metadata:
    return Metadata(
        **{"name": "set", "grid": GRID, "channels": (Channel("vorticity"),), "frame_interval": 0.1, **changes}
    )


def test_symmetries_keep_vorticity_the_curl_of_a_velocity_of_equal_energy():
    field = torch.randn(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(field[:, :1], field[:, 1:], CONTEXT)
    energy = velocity_from_vorticity(batch.history[:, 0, 0], GRID.periods).square().sum((-3, -2, -1))
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        turned = SquareSymmetries().transform(batch)
        velocity = velocity_from_vorticity(turned.history[:, 0, 0], GRID.periods)
        torch.testing.assert_close(velocity.square().sum((-3, -2, -1)), energy)
        seen.add(tuple(round(float(value), 6) for value in turned.history[0, 0, 0, 0, :3]))
    assert len(seen) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": (Channel("velocity_x"), Channel("velocity_y"))},
        {"grid": Grid((Axis("x", period=1.0), Axis("y", period=2.0)))},
        {"grid": Grid((Axis("x", period=1.0), Axis("y")))},
        {"attributes": {"recipe": '{"simulator": {"init_args": {"forcing": {"class_path": "any"}}}}'}},
    ],
)
def test_data_without_the_symmetry_are_refused(changes):
    SquareSymmetries().check(metadata())
    SquareSymmetries().check(metadata(attributes={"recipe": '{"simulator": {"init_args": {"forcing": null}}}'}))
    with pytest.raises(ValueError, match="leave the augmentation out"):
        SquareSymmetries().check(metadata(**changes))

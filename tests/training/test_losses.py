from __future__ import annotations

import math

import pytest
import torch
from jsonargparse import ArgumentParser

from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.training.augmentation import SquareSymmetries
from pdesurrogate.training.losses import (
    FluctuationL2,
    LogLineSpectrum,
    Loss,
    MeanSquaredError,
    RelativeBochner,
    RelativeL2Joint,
    RelativeL2PerChannel,
    RelativeSobolev,
    TorchCFDSobolev,
    WeightedSum,
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


RELATIVE = [
    RelativeL2PerChannel(), RelativeL2Joint(), RelativeSobolev(), RelativeBochner(), TorchCFDSobolev(),
    FluctuationL2(), FluctuationL2("height"), LogLineSpectrum(), WeightedSum([FluctuationL2(), LogLineSpectrum()]),
]  # fmt: skip


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


WEIGHTED = [RelativeL2PerChannel, RelativeSobolev, RelativeBochner, MeanSquaredError, FluctuationL2, LogLineSpectrum]


@pytest.mark.parametrize("kind", WEIGHTED)
def test_weights_of_channels_are_their_shares_of_the_mean(kind):
    prediction, target = noisy()
    parts = [
        kind().distance(prediction[:, :, [channel]], target[:, :, [channel]], CONTEXT, GRID) for channel in range(3)
    ]
    found = kind(weights=[1, 2, 0.5]).distance(prediction, target, CONTEXT, GRID)
    torch.testing.assert_close(found, (parts[0] + 2 * parts[1] + 0.5 * parts[2]) / 3.5)
    plain = kind().distance(prediction, target, CONTEXT, GRID)
    torch.testing.assert_close(kind(weights=[7, 7, 7]).distance(prediction, target, CONTEXT, GRID), plain)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_weights_that_do_not_fit_are_refused(kind):
    prediction, target = noisy()
    with pytest.raises(ValueError, match=r"a weight for each of 3 channels but the loss has 2: \(1\.0, 2\.0\)"):
        kind(weights=[1, 2]).distance(prediction, target, CONTEXT, GRID)
    for weights in ([1.0, -1.0], [0.0, 0.0], [math.nan, 1.0], []):
        with pytest.raises(ValueError, match="finite weights that are not negative"):
            kind(weights=weights)


HEIGHTS = torch.tensor([0.0, 0.1, 0.4, 1.0, 1.6, 1.9, 2.0], dtype=torch.float64)
CHANNEL = Grid((Axis("x", period=4.0), Axis("y", bounds=(0.0, 2.0)), Axis("z", period=2.0)))
ALONG = (torch.arange(12, dtype=torch.float64) * (4 / 12), HEIGHTS, torch.arange(8, dtype=torch.float64) * (2 / 8))
IN_CHANNEL = Context(tuple(line.expand(2, -1) for line in ALONG))


def turbulent(seed: int = 0, mean: float = 10.0) -> torch.Tensor:
    """``(2, 3, 2, 12, 7, 8)``: noise that vanishes on the walls, about a mean profile of the first channel."""
    generator = torch.Generator().manual_seed(seed)
    shape = (HEIGHTS * (2 - HEIGHTS))[:, None]
    profile = mean * shape * torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    return shape * torch.randn(2, 3, 2, 12, 7, 8, generator=generator, dtype=torch.float64) + profile


def mean_over_heights(values: torch.Tensor) -> torch.Tensor:
    """By the widths between the middles of the points, ``(..., 7)``."""
    faces = torch.cat([HEIGHTS[:1], (HEIGHTS[1:] + HEIGHTS[:-1]) / 2, HEIGHTS[-1:]])
    return (values * faces.diff()).sum(-1) / 2


def test_fluctuation_loss_is_relative_to_the_fluctuation():
    prediction, target = turbulent(1), turbulent(0)
    error = mean_over_heights((prediction - target).square().mean((-3, -1)))
    fluctuation = target - target.mean((-3, -1), keepdim=True)
    size = mean_over_heights(fluctuation.square().mean((-3, -1)))
    found = FluctuationL2().distance(prediction, target, IN_CHANNEL, CHANNEL)
    torch.testing.assert_close(found, (error / size).sqrt().mean(), rtol=1e-5, atol=0)
    # A mean flow of any size changes nothing; the plain relative error it drowns.
    faster = [field + 100 * (target.new_tensor([1.0, 0.0]).reshape(2, 1, 1, 1)) for field in (prediction, target)]
    torch.testing.assert_close(FluctuationL2().distance(*faster, IN_CHANNEL, CHANNEL), found)
    assert RelativeL2PerChannel(weights=[1, 0]).distance(*faster, IN_CHANNEL, CHANNEL) < 0.05 * found


def test_by_height_every_height_counts_the_same():
    target = turbulent()
    loss = FluctuationL2("height", floor=1e-6)
    rms = (target - target.mean((-3, -1), keepdim=True)).square().mean((-3, -1), keepdim=True).sqrt()
    # An error of a tenth of the fluctuation at each height; walls, where nothing moves, have none.
    found = loss.distance(target + 0.1 * rms, target, IN_CHANNEL, CHANNEL)
    within = mean_over_heights((HEIGHTS * (2 - HEIGHTS) > 0).double())
    torch.testing.assert_close(found, 0.1 * within.sqrt(), rtol=1e-5, atol=0)
    one = torch.zeros(7, dtype=torch.float64)
    one[1] = 0.1
    near_wall = loss.distance(target + one[:, None] * rms, target, IN_CHANNEL, CHANNEL)
    expected = (mean_over_heights(one.square())).sqrt()
    torch.testing.assert_close(near_wall, expected, rtol=1e-5, atol=0)
    assert FluctuationL2().distance(target + one[:, None] * rms, target, IN_CHANNEL, CHANNEL) < 0.5 * near_wall


def test_walls_where_nothing_moves_count_as_a_share_of_the_channel():
    target = turbulent()
    slip = torch.zeros(7, dtype=torch.float64)
    slip[0] = 0.3
    prediction = target + slip[:, None]
    fluctuation = target - target.mean((-3, -1), keepdim=True)
    whole = mean_over_heights(fluctuation.square().mean((-3, -1)))
    found = FluctuationL2("height", floor=0.1).distance(prediction, target, IN_CHANNEL, CHANNEL)
    expected = (mean_over_heights(slip.square()) / (0.01 * whole)).sqrt().mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    periodic = [loss.distance(*noisy(), CONTEXT, GRID) for loss in (FluctuationL2(), FluctuationL2("height"))]
    torch.testing.assert_close(*periodic, rtol=1e-5, atol=0)  # without walls there is one height


def test_line_spectra_are_compared_by_their_logarithms_at_every_height():
    target = turbulent(mean=0.0)
    spectra = LogLineSpectrum(floor=1e-30)
    factors = torch.tensor([1.0, 2.0, 3.0, 1.0, 0.5, 1.0, 1.0], dtype=torch.float64)
    found = spectra.distance(factors[:, None] * target, target, IN_CHANNEL, CHANNEL)
    expected = mean_over_heights((2 * factors.log10()).square()).sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    # Ten times the amplitude is a hundred times the energy, at all heights but the walls.
    within = mean_over_heights((HEIGHTS * (2 - HEIGHTS) > 0).double())
    tenfold = spectra.distance(10 * target, target, IN_CHANNEL, CHANNEL)
    torch.testing.assert_close(tenfold, 2 * within.sqrt(), rtol=1e-5, atol=0)


def test_line_spectra_know_neither_phase_nor_mean():
    target = turbulent(mean=0.0)
    moved = target.roll((5, 3), (-3, -1)).flip(-1) + 4.0
    assert float(LogLineSpectrum().distance(moved, target, IN_CHANNEL, CHANNEL)) < 1e-10
    assert float(LogLineSpectrum().distance(turbulent(1), target, IN_CHANNEL, CHANNEL)) > 0.1


def test_line_spectra_equal_the_plain_formula_and_leave_the_highest_modes_out():
    prediction, target = turbulent(1), turbulent()
    for kept, counts in ((1.0, (5, 3)), (0.5, (3, 2))):
        expected = []
        for axis, other, count in ((-3, -1, counts[0]), (-1, -3, counts[1])):
            energies = [
                2 * torch.fft.rfft(field, dim=axis, norm="forward").abs().square().mean(other, keepdim=True)
                for field in (prediction, target)
            ]
            ratio = ((energies[0] + 1e-8).log10() - (energies[1] + 1e-8).log10()).narrow(axis, 1, count)
            expected.append(mean_over_heights(ratio.square().mean((-3, -1))).sqrt().mean())
        found = LogLineSpectrum(kept).distance(prediction, target, IN_CHANNEL, CHANNEL)
        torch.testing.assert_close(found, sum(expected) / 2)
    high = target + 0.1 * torch.cos(2 * torch.pi * 5 * ALONG[0] / 4)[:, None, None]
    assert float(LogLineSpectrum(0.5).distance(high, target, IN_CHANNEL, CHANNEL)) < 1e-10
    assert float(LogLineSpectrum().distance(high, target, IN_CHANNEL, CHANNEL)) > 1e-2


def test_line_spectra_are_differentiable_and_safe_in_single_and_half_precision():
    prediction, target = turbulent(1)[:1, :1, :, :5, :4, :3], turbulent()[:1, :1, :, :5, :4, :3]
    context = Context((ALONG[0][None, :5] * 12 / 5, HEIGHTS[None, :4], ALONG[2][None, :3] * 8 / 3))
    assert torch.autograd.gradcheck(
        lambda field: LogLineSpectrum(floor=1e-2).distance(field, target, context, CHANNEL),
        prediction.clone().requires_grad_(),
    )
    whole = LogLineSpectrum().distance(turbulent(1), turbulent(), IN_CHANNEL, CHANNEL)
    single = LogLineSpectrum().distance(turbulent(1).float(), turbulent().float(), IN_CHANNEL, CHANNEL)
    torch.testing.assert_close(single.double(), whole, rtol=1e-4, atol=0)
    half = LogLineSpectrum().distance(turbulent(1).bfloat16(), turbulent().float(), IN_CHANNEL, CHANNEL)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), whole, rtol=0.1, atol=0)
    still = torch.zeros(2, 3, 2, 12, 7, 8, requires_grad=True)
    LogLineSpectrum().distance(still, turbulent().float(), IN_CHANNEL, CHANNEL).backward()
    assert bool(torch.isfinite(still.grad).all())


def test_what_has_no_fluctuation_or_spectrum_is_refused():
    walled = Grid((Axis("x", bounds=(0.0, 4.0)), Axis("y", bounds=(0.0, 2.0)), Axis("z", bounds=(0.0, 2.0))))
    fields = turbulent(1), turbulent()
    with pytest.raises(ValueError, match=r"a periodic axis.*none of \('x', 'y', 'z'\) is; use RelativeL2PerChannel"):
        FluctuationL2().distance(*fields, IN_CHANNEL, walled)
    with pytest.raises(ValueError, match=r"evenly spaced points, three or more.*leave LogLineSpectrum out"):
        LogLineSpectrum().distance(*fields, IN_CHANNEL, walled)
    uneven = ALONG[0].clone()
    uneven[3] += 0.05
    context = Context(tuple(line.expand(2, -1) for line in (uneven, *ALONG[1:])))
    # Along z alone.
    thin = Grid((Axis("x", bounds=(-1.0, 5.0)), *CHANNEL.axes[1:]))
    assert torch.isfinite(LogLineSpectrum().distance(*fields, context, thin))
    assert torch.isfinite(LogLineSpectrum().distance(*fields, context, CHANNEL))
    line = Grid((CHANNEL.axes[0],))
    with pytest.raises(ValueError, match=r"none of \('x',\) is one"):
        LogLineSpectrum().distance(fields[0][..., 0, 0], fields[1][..., 0, 0], Context((uneven[None],)), line)
    for options, message in (
        ({"kept": 0.0}, "share of modes within"),
        ({"kept": 1.5}, "share of modes within"),
        ({"floor": 0.0}, "positive floor"),
    ):
        with pytest.raises(ValueError, match=message):
            LogLineSpectrum(**options)
    with pytest.raises(ValueError, match="'channel' or 'height' but got 'plane'"):
        FluctuationL2("plane")
    with pytest.raises(ValueError, match=r"a floor within \(0, 1\] but got 0"):
        FluctuationL2("height", floor=0)


def test_a_weighted_sum_adds_up():
    fields = turbulent(1), turbulent()
    parts = FluctuationL2("height"), LogLineSpectrum()
    first, second = (loss.distance(*fields, IN_CHANNEL, CHANNEL) for loss in parts)
    found = WeightedSum(list(parts), [1.0, 0.1]).distance(*fields, IN_CHANNEL, CHANNEL)
    torch.testing.assert_close(found, first + 0.1 * second)
    torch.testing.assert_close(WeightedSum(list(parts)).distance(*fields, IN_CHANNEL, CHANNEL), first + second)
    with pytest.raises(ValueError, match="2 losses and 1 weights"):
        WeightedSum(list(parts), [1.0])
    with pytest.raises(ValueError, match="0 losses and 0 weights"):
        WeightedSum([])
    with pytest.raises(ValueError, match="not negative"):
        WeightedSum(list(parts), [1.0, -0.1])


def test_a_weighted_sum_is_configured_by_class_paths():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=Loss)
    module = "pdesurrogate.training.losses"
    parts = [
        {"class_path": f"{module}.FluctuationL2", "init_args": {"relative_to": "height", "weights": [1, 2, 2]}},
        {"class_path": f"{module}.LogLineSpectrum", "init_args": {"kept": 0.5}},
    ]
    given = {"class_path": f"{module}.WeightedSum", "init_args": {"losses": parts, "weights": [1.0, 0.1]}}
    loss = parser.instantiate_classes(parser.parse_object({"loss": given})).loss
    assert isinstance(loss, WeightedSum)
    assert [type(part) for part in loss.losses] == [FluctuationL2, LogLineSpectrum]
    assert (loss.weights, loss.losses[0].weights, loss.losses[1].kept) == ((1.0, 0.1), (1.0, 2.0, 2.0), 0.5)


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

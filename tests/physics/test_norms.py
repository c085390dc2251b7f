from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.physics.norms import (
    bochner_norm,
    relative_bochner_error,
    sobolev_norm,
    torch_cfd_relative_sobolev,
    torch_cfd_sobolev,
)
from pdesurrogate.physics.operators import gradient, velocity_from_vorticity
from pdesurrogate.physics.spectral import angular_wavenumbers

BOX = (2 * math.pi, 3.0)
SQUARE = (2 * math.pi, 2 * math.pi)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(wave, size=16, length=2 * math.pi):
    """``cos(wave 2 pi x / length)`` on a square grid."""
    x = torch.arange(size, dtype=torch.float64) * (length / size)
    return torch.cos(wave * 2 * math.pi / length * x)[:, None].expand(size, size)


def riesz(field, periods, order, alpha):
    """The field that pairs with others as the inner product of ``H^order`` with ``field`` does."""
    kx, ky = angular_wavenumbers(field.shape, periods)
    symbol = alpha + kx.square() + ky.square()
    multiplier = torch.where(symbol > 0, symbol**order, 0.0)
    return torch.fft.irfft2(torch.fft.rfft2(field) * multiplier, s=field.shape)


@pytest.mark.parametrize("shape", [(16, 16), (15, 16), (16, 15), (9, 13)])
def test_order_zero_is_the_root_mean_square_to_round_off(shape):
    field = noise(4, *shape)
    found = sobolev_norm(field, BOX, order=0.0)
    torch.testing.assert_close(found, field.square().mean((-2, -1)).sqrt(), rtol=1e-12, atol=0)


@given(
    order=st.floats(-3, 3), alpha=st.floats(0.05, 3), seed=st.integers(0, 99), shape=st.sampled_from([(9, 8), (8, 11)])
)
def test_negative_orders_are_the_dual_norms(order, alpha, seed, shape):
    residual, other = noise(*shape, seed=seed), noise(*shape, seed=seed + 100)
    dual = sobolev_norm(residual, BOX, -order, alpha)
    assert float((residual * other).mean().abs()) <= float(dual * sobolev_norm(other, BOX, order, alpha)) * (1 + 1e-12)
    # The supremum over all fields is attained.
    best = riesz(residual, BOX, -order, alpha)
    torch.testing.assert_close(
        (residual * best).mean() / sobolev_norm(best, BOX, order, alpha), dual, rtol=1e-10, atol=0
    )


def test_order_minus_one_is_the_gradient_of_the_solution_of_poissons_equation():
    vorticity = noise(15, 17)
    vorticity = vorticity - vorticity.mean()
    found = sobolev_norm(vorticity, BOX, -1.0, alpha=0.0)
    stream = riesz(vorticity, BOX, -1.0, alpha=0.0)
    torch.testing.assert_close(found, gradient(stream, BOX).square().sum(0).mean().sqrt(), rtol=1e-12, atol=0)
    velocity = velocity_from_vorticity(vorticity, BOX)
    torch.testing.assert_close(found, velocity.square().sum(0).mean().sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("length", [1.0, 2 * math.pi])
@pytest.mark.parametrize("order", [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("wave", [1, 3, 7])
def test_a_cosine_has_the_norm_of_its_wavenumber(wave, order, length):
    found = sobolev_norm(cosine(wave, length=length), (length, length), order, alpha=0.1)
    wavenumber = 2 * math.pi * wave / length
    assert float(found**2) == pytest.approx((0.1 + wavenumber**2) ** order / 2, rel=1e-12)


def test_norms_are_means_so_neither_tiling_nor_refining_changes_them():
    field = noise(9, 9)
    fine = torch.fft.irfft2(torch.nn.functional.pad(torch.fft.rfft2(field, norm="forward"), (0, 4)), s=(9, 17),
                            norm="forward")  # fmt: skip
    expected = sobolev_norm(field, BOX, 1.3)
    torch.testing.assert_close(sobolev_norm(fine, BOX, 1.3), expected)
    torch.testing.assert_close(sobolev_norm(field.repeat(2, 1), (2 * BOX[0], BOX[1]), 1.3), expected)


@given(times=st.integers(2, 8))
def test_quadrature_in_time_is_exact_for_what_the_rule_integrates(times):
    # A norm that grows as the square root of time has a square that is linear: the trapezoid rule is exact, uneven too.
    points = torch.rand(times, dtype=torch.float64, generator=torch.Generator().manual_seed(times)).sort().values
    points = (points - points[0]) / (points[-1] - points[0])
    gaps = points.diff()
    zero = torch.zeros(1, dtype=torch.float64)
    weights = (torch.cat([zero, gaps]) + torch.cat([gaps, zero])) / 2
    found = bochner_norm(points.sqrt()[None], weights)
    assert float(found**2) == pytest.approx(0.5, rel=1e-12)


def test_weights_of_each_sample_and_of_any_scale():
    norms = noise(3, 5, 2).abs()
    weights = noise(3, 5, seed=1).abs()
    found = bochner_norm(norms, weights)
    assert found.shape == (3, 2)
    for sample in range(3):
        torch.testing.assert_close(found[sample], bochner_norm(norms[sample : sample + 1], 7 * weights[sample])[0])
    torch.testing.assert_close(bochner_norm(norms), bochner_norm(norms, torch.full((5,), 0.3)))


@pytest.mark.parametrize("weights", [torch.ones(4), torch.ones(2, 5), torch.ones(3, 5, 1)])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match=r"weights \(5,\) or \(3, 5\), one for each frame"):
        bochner_norm(torch.ones(3, 5, 2), weights)


def test_relative_error_is_a_mean_of_ratios_and_each_ratio_one_over_time():
    target = torch.stack([1.0 * cosine(1), 7.0 * cosine(1)]).expand(2, 2, 16, 16)
    error = torch.stack([0.5 * cosine(3), 0.1 * cosine(3)])[:, None].expand(2, 2, 16, 16)
    found = relative_bochner_error(target + error, target, SQUARE, order=-1.0, alpha=0.0)
    assert float(found) == pytest.approx((0.5 / 3 / 5 + 0.1 / 3 / 5) / 2, rel=1e-12)
    late = relative_bochner_error(target + error, target, SQUARE, -1.0, 0.0, weights=torch.tensor([0.0, 1.0]))
    assert float(late) == pytest.approx((0.5 / 3 / 7 + 0.1 / 3 / 7) / 2, rel=1e-12)


def test_a_field_of_zeros_has_a_finite_gradient():
    field = torch.zeros(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    bochner_norm(sobolev_norm(field, BOX, -1.0)).sum().backward()
    assert torch.equal(field.grad, torch.zeros_like(field))


def authors_multiplier(size, order, alpha, diameter):
    """Their weight of each wave of the full spectrum: a root of the symbol, to half the order."""
    kx, ky = torch.meshgrid(*[torch.fft.fftfreq(size, diameter / size, dtype=torch.float64)] * 2, indexing="ij")
    weight = torch.sqrt(alpha + 4 * math.pi**2 * (kx**2 + ky**2))
    return weight if order == 0 else weight ** (order / 2)


@pytest.mark.parametrize("diameter", [1.0, 2 * math.pi])
@pytest.mark.parametrize("alpha", [0.1, 10**-1.5])
@pytest.mark.parametrize("order", [-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])
def test_values_of_torch_cfd_from_full_transforms(order, alpha, diameter):
    size, frames = 12, 5
    prediction, target = noise(3, frames, size, size), noise(3, frames, size, size, seed=1)
    multiplier = authors_multiplier(size, order, alpha, diameter)
    error = torch.fft.fft2(prediction - target).mul(multiplier).abs().square().sum((-3, -2, -1)).sqrt()
    whole = torch.fft.fft2(target).mul(multiplier).abs().square().sum((-3, -2, -1)).sqrt()
    options = {"order": order, "alpha": alpha, "diameter": diameter}
    close = {"rtol": 1e-12, "atol": 0}
    found = torch_cfd_sobolev(prediction - target, **options)
    torch.testing.assert_close(found, error / math.sqrt(frames), **close)
    torch.testing.assert_close(torch_cfd_sobolev(prediction - target, **options, time="sum"), error, **close)
    relative = torch_cfd_relative_sobolev(prediction, target, **options)
    torch.testing.assert_close(relative, error / whole / math.sqrt(frames), **close)
    relative = torch_cfd_relative_sobolev(prediction, target, **options, time="sum")
    torch.testing.assert_close(relative, error / whole, **close)


@pytest.mark.parametrize(("theirs", "ours"), [(-2.0, -1.0), (-1.0, -0.5), (0.0, 1.0), (1.0, 0.5), (2.0, 1.0)])
@pytest.mark.parametrize("frames", [10, 40])
def test_what_torch_cfd_prints_is_read_as_another_order_and_factor(theirs, ours, frames):
    prediction, target = noise(2, frames, 8, 8), noise(2, frames, 8, 8, seed=1)
    printed = torch_cfd_relative_sobolev(prediction, target, theirs).mean() * math.sqrt(frames)
    expected = relative_bochner_error(prediction, target, (1.0, 1.0), ours, alpha=0.1)
    torch.testing.assert_close(printed, expected, rtol=1e-12, atol=0)
    absolute = torch_cfd_sobolev(target, theirs)
    norm = bochner_norm(sobolev_norm(target, (1.0, 1.0), ours, alpha=0.1))
    torch.testing.assert_close(absolute, 64 * norm, rtol=1e-12, atol=0)


def test_channels_stay_apart_and_bad_input_is_refused():
    fields = noise(2, 3, 2, 8, 8)
    found = torch_cfd_sobolev(fields)
    assert found.shape == (2, 2)
    torch.testing.assert_close(found[:, 1], torch_cfd_sobolev(fields[:, :, 1]))
    with pytest.raises(ValueError, match=r"n, n\) on a square grid but got \(2, 3, 8, 6\)"):
        torch_cfd_sobolev(torch.zeros(2, 3, 8, 6))
    with pytest.raises(ValueError, match="on a square grid"):
        torch_cfd_sobolev(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="'mean' or 'sum' over time but got 'average'"):
        torch_cfd_relative_sobolev(fields, fields, time="average")

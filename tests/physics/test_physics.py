from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.physics import norms, operators, spectral

BOX = (2 * math.pi, 3.0)


def mesh(shape, periods=BOX):
    lines = [torch.arange(n, dtype=torch.float64) * (p / n) for n, p in zip(shape, periods, strict=True)]
    return torch.meshgrid(*lines, indexing="ij")


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def band_limited(shape, highest, seed=0):
    """A random field without waves above ``highest``."""
    return spectral.resample(noise(*(2 * highest + 1,) * len(shape), seed=seed), shape)


@given(size=st.integers(9, 24), other=st.integers(9, 24), seed=st.integers(0, 50))
def test_resampling_there_and_back_returns_band_limited_fields(size, other, seed):
    field = band_limited((size, size), highest=3, seed=seed)
    there = spectral.resample(field, (other, other))
    torch.testing.assert_close(spectral.resample(there, (size, size)), field)


def test_resampling_commutes_with_reading_at_points():
    shape = (32, 30)
    x, y = mesh(shape)
    field = torch.cos(3 * x + 0.2) * torch.sin(2 * math.pi * 4 * y / BOX[1])
    torch.testing.assert_close(spectral.resample(field, (16, 10)), field[::2, ::3])


def test_truncation_cuts_what_the_coarse_grid_cannot_hold():
    x, _ = mesh((32, 32))
    low, high, nyquist = torch.cos(3 * x), torch.cos(9 * x), torch.cos(8 * x)
    torch.testing.assert_close(spectral.resample(low + high + nyquist, (16, 16)), low[::2, ::2])


@pytest.mark.parametrize("shape", [(16, 16), (15, 16), (16, 15), (15, 13)])
def test_shell_sums_satisfy_parseval(shape):
    field = noise(3, *shape)
    density = torch.fft.rfft2(field, norm="forward").abs().square()
    total = spectral.Shells(shape, BOX).sum(density).sum(-1)
    torch.testing.assert_close(total, field.square().mean((-2, -1)), rtol=1e-12, atol=0)


@given(n=st.integers(4, 40))
def test_products_inside_the_mask_do_not_alias_into_it(n):
    mask = spectral.dealias_mask((n, n))
    highest = int(mask[:, 0].nonzero().numel() - 1) // 2
    assert 3 * highest < n
    assert 3 * (highest + 1) >= n
    # The sum of two kept waves folds back to at most n - 2 highest in magnitude, which lies outside.
    assert n - 2 * highest > highest


def test_gradient_divergence_and_curl_of_waves_are_exact():
    x, y = mesh((24, 20))
    ky = 2 * math.pi / BOX[1]
    field = torch.sin(2 * x) * torch.cos(3 * ky * y)
    gradient = operators.gradient(field, BOX)
    torch.testing.assert_close(gradient[0], 2 * torch.cos(2 * x) * torch.cos(3 * ky * y))
    torch.testing.assert_close(gradient[1], -3 * ky * torch.sin(2 * x) * torch.sin(3 * ky * y))
    laplacian = operators.divergence(gradient, BOX)
    torch.testing.assert_close(laplacian, -(4 + (3 * ky) ** 2) * field)


@pytest.mark.parametrize("shape", [(16, 16), (15, 18)])
def test_velocity_of_vorticity_is_solenoidal_and_gives_it_back(shape):
    vorticity = band_limited(shape, highest=5)
    vorticity = vorticity - vorticity.mean()
    velocity = operators.velocity_from_vorticity(vorticity, BOX)
    torch.testing.assert_close(operators.vorticity_from_velocity(velocity, BOX), vorticity)
    assert float(operators.divergence(velocity, BOX).abs().max()) < 1e-12
    assert float(velocity.mean((-2, -1)).abs().max()) < 1e-14


def test_velocity_of_rough_fields_stays_bounded():
    # The Nyquist wave has no first derivative on the grid, but it must not be divided by a smaller wavenumber either.
    velocity = operators.velocity_from_vorticity(noise(32, 32), (2 * math.pi, 2 * math.pi))
    assert float(velocity.square().mean().sqrt()) < 1.0


@given(order=st.floats(-2, 2), wave=st.integers(1, 7), alpha=st.just(0.0) | st.floats(0.01, 3))
def test_sobolev_norm_of_one_wave(order, wave, alpha):
    x, _ = mesh((32, 8))
    found = norms.sobolev_norm(torch.cos(wave * x), BOX, order, alpha)
    assert float(found**2) == pytest.approx((alpha + wave**2) ** order / 2, rel=1e-10)


def test_order_zero_is_the_root_mean_square_and_negative_orders_are_dual():
    one, other = noise(17, 16), noise(17, 16, seed=1)
    assert float(norms.sobolev_norm(one, BOX, 0.0)) == pytest.approx(float(one.square().mean().sqrt()), rel=1e-12)
    pairing = float((one * other).mean().abs())
    assert pairing <= float(norms.sobolev_norm(one, BOX, -1.0) * norms.sobolev_norm(other, BOX, 1.0))


def test_homogeneous_norm_leaves_the_mean_out():
    field = noise(8, 8)
    shifted = norms.sobolev_norm(field + 5, BOX, -1.0, alpha=0.0)
    torch.testing.assert_close(shifted, norms.sobolev_norm(field, BOX, -1.0, alpha=0.0))
    with pytest.raises(ValueError, match="alpha >= 0"):
        norms.sobolev_norm(field, BOX, 1.0, alpha=-1.0)


def test_minus_one_norm_of_vorticity_is_the_velocity_norm():
    vorticity = band_limited((16, 16), highest=5)
    vorticity = vorticity - vorticity.mean()
    velocity = operators.velocity_from_vorticity(vorticity, BOX)
    expected = velocity.square().sum(0).mean().sqrt()
    torch.testing.assert_close(norms.sobolev_norm(vorticity, BOX, -1.0, alpha=0.0), expected)


def test_weighted_mean_with_shared_and_batched_weights():
    values = noise(2, 3, 4, 5)
    weights = (torch.rand(2, 4, dtype=torch.float64), torch.rand(5, dtype=torch.float64))
    found = norms.weighted_mean(values, weights)
    outer = weights[0][:, None, :, None] * weights[1]
    expected = (values * outer).sum((-2, -1)) / outer.sum((-2, -1))
    torch.testing.assert_close(found, expected)

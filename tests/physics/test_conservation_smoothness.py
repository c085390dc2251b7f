"""The second-difference step: what it leaves alone, its noise, the authors' figures, and conservation after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Dense, Diagonal
from pdesurrogate.physics.conservation.rows import DenseRows
from pdesurrogate.physics.conservation.smoothness import second_differences, smoothed

GOLDEN = Path(__file__).parents[1] / "golden"

seeds = st.integers(0, 2**31)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_points(count: int, seed: int) -> torch.Tensor:
    return (0.2 + random(count, seed=seed).abs()).cumsum(0)


@pytest.mark.parametrize("case", ["stefan_u06", "pme_m3"])
def test_equals_the_reference(case):
    with np.load(GOLDEN / f"probconserv_smoothness_{case}.npz") as arrays:
        golden = {name: torch.as_tensor(arrays[name]) for name in arrays.files}
    variance = golden["prior_std"].square()

    torch.testing.assert_close(second_differences(variance).variance, golden["diff_R"], rtol=1e-9, atol=0)
    mean, spread = smoothed(golden["prior_mean"], Diagonal(variance))
    torch.testing.assert_close(mean, golden["diff_mean"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(spread.diagonal((201,)), golden["diff_var"], rtol=1e-9, atol=0)

    mass = LinearConstraint(DenseRows(golden["G"], event_ndim=1), golden["b"])
    found = condition(mean, spread, mass)
    torch.testing.assert_close(found.mean, golden["diff_post_mean"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.variance, golden["diff_post_var"], rtol=1e-9, atol=0)


@settings(max_examples=20)
@given(count=st.integers(3, 12), correlation=st.floats(-1, 1), spaced=st.booleans(), seed=seeds)
def test_equals_the_formula_with_inverses(count, correlation, spaced, seed):
    variance = 0.1 + random(count, seed=seed).square()
    points = None if spaced else random_points(count, seed + 1)
    mean = random(count, seed=seed + 2)
    constraint = second_differences(variance, correlation, points)
    noise = constraint.variance + 1e-3
    rows = constraint.rows.dense()
    precision = variance.reciprocal().diag() + rows.T @ noise.reciprocal().diag() @ rows
    found = condition(mean, Diagonal(variance), constraint.with_target(constraint.target, noise))

    expected = torch.linalg.solve(precision, mean / variance)
    torch.testing.assert_close(found.mean, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.covariance(), torch.linalg.inv(precision), rtol=1e-7, atol=1e-9)


@settings(max_examples=20)
@given(count=st.integers(3, 20), correlation=st.floats(-1, 1), spaced=st.booleans(), seed=seeds)
def test_straight_lines_stay(count, correlation, spaced, seed):
    points = None if spaced else random_points(count, seed)
    x = torch.arange(count, dtype=torch.float64) if points is None else points
    line = random(3, 1, seed=seed + 1) + random(3, 1, seed=seed + 2) * x
    variance = random(count, seed=seed + 3).square() + 0.01
    mean, _ = smoothed(line, Diagonal(variance), correlation, points)
    torch.testing.assert_close(mean, line, rtol=1e-10, atol=1e-10)


@settings(max_examples=20)
@given(count=st.integers(3, 15), seed=seeds)
def test_noise_at_the_ends_of_the_correlation(count, seed):
    variance = random(count, seed=seed).square()
    s = variance.sqrt()
    independent = variance[:-2] + 4 * variance[1:-1] + variance[2:]
    torch.testing.assert_close(second_differences(variance, 0.0).variance, independent)
    alike = (s[:-2] - 2 * s[1:-1] + s[2:]).square()
    torch.testing.assert_close(second_differences(variance, 1.0).variance, alike, rtol=1e-8, atol=1e-10)


@settings(max_examples=20)
@given(count=st.integers(3, 15), correlation=st.floats(-1, 1), spaced=st.booleans(), seed=seeds)
def test_noise_is_the_variance_of_a_correlated_difference(count, correlation, spaced, seed):
    variance = random(count, seed=seed).square()
    constraint = second_differences(variance, correlation, None if spaced else random_points(count, seed))
    rows, s = constraint.rows.dense(), variance.sqrt()
    steps = (torch.arange(count)[:, None] - torch.arange(count)).abs()
    # Beyond next neighbors the rows have no weights.
    covariance = s[:, None] * s * torch.as_tensor(correlation, dtype=torch.float64) ** steps
    torch.testing.assert_close(
        constraint.variance, (rows @ covariance @ rows.T).diagonal().clamp_min(0), rtol=1e-9, atol=1e-12
    )


def test_equal_deviations_fully_correlated_leave_no_noise_and_a_straight_line():
    kinked = random(9)
    mean, _ = smoothed(kinked, Diagonal(0.3), correlation=1.0)
    assert float(mean.diff(n=2).abs().max()) < 1e-12
    # The line of least squares.
    x = torch.stack([torch.ones(9, dtype=torch.float64), torch.arange(9, dtype=torch.float64)], 1)
    torch.testing.assert_close(mean, x @ torch.linalg.lstsq(x, kinked.unsqueeze(1)).solution[:, 0])


@settings(max_examples=20)
@given(count=st.integers(4, 20), seed=seeds)
def test_covariance_shrinks_and_conservation_after_it_is_exact(count, seed):
    variance = random(2, count, seed=seed).square() + 1e-3
    mean, spread = smoothed(random(2, count, seed=seed + 1), Diagonal(variance))
    less = torch.diag_embed(variance) - spread.dense((count,))
    assert float(torch.linalg.eigvalsh(less).min()) > -1e-12 * float(variance.sum())

    mass = LinearConstraint.integral(torch.linspace(0, 1, count, dtype=torch.float64), torch.tensor([0.3, -1.0]))
    found = condition(mean, spread, mass)
    assert float(mass.residual(found.mean).abs().max()) < 1e-12


def test_what_is_sure_beside_a_front_stays():
    x = torch.linspace(0, 1, 41, dtype=torch.float64)
    front = (x < 0.5).to(torch.float64)
    deviation = 1e-4 + 0.1 * (-((x - 0.5) / 0.02).square()).exp()
    adaptive, _ = smoothed(front, Diagonal(deviation.square()))
    uniform, _ = smoothed(front, Diagonal(deviation.square().mean()))
    sure = deviation < 2e-4
    assert float((adaptive - front)[sure].abs().max()) < 1e-3
    assert float((uniform - front)[sure].abs().max()) > 0.01


def test_known_points_stay_where_they_are():
    mean = random(9)
    variance = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1.0])
    found, spread = smoothed(mean, Diagonal(variance))
    torch.testing.assert_close(found[:4], mean[:4])
    assert float(spread.dense((9,))[:4].abs().max()) == 0


def test_every_line_of_a_batch_as_alone_and_precision_kept():
    mean, variance = random(3, 8), random(3, 8, seed=1).square()
    together, spread = smoothed(mean, Diagonal(variance))
    for number in range(3):
        alone, own = smoothed(mean[number], Diagonal(variance[number]))
        torch.testing.assert_close(together[number], alone)
        torch.testing.assert_close(spread.matrix[number], own.matrix)
    assert smoothed(mean.float(), Diagonal(variance))[0].dtype == torch.float32
    assert isinstance(spread, Dense)


@settings(max_examples=10)
@given(seed=seeds)
def test_derivatives(seed):
    mean = random(5, seed=seed).requires_grad_()
    variance = (0.1 + random(5, seed=seed + 1).square()).requires_grad_()

    def through(mean, variance):
        found, spread = smoothed(mean, Diagonal(variance))
        return found, spread.diagonal((5,))

    assert torch.autograd.gradcheck(through, (mean, variance))


def test_derivatives_are_finite_where_nothing_varies():
    variance = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    mean, _ = smoothed(random(5), Diagonal(variance))
    (slope,) = torch.autograd.grad(mean.square().sum(), variance)
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: second_differences(torch.ones(5), 1.5), "from -1 to 1 but got 1.5"),
        (lambda: second_differences(torch.ones(5), float("nan")), "from -1 to 1 but got nan"),
        (lambda: second_differences(torch.ones(2)), "at least three unknowns"),
        (lambda: second_differences(-torch.ones(5)), "variances that are finite and at least zero"),
        (lambda: second_differences(torch.ones(5), points=torch.arange(4.0)), "5 points that increase"),
        (lambda: second_differences(torch.ones(3), points=torch.tensor([0.0, 2.0, 1.0])), "3 points that increase"),
        (lambda: smoothed(torch.full((5,), torch.nan), Diagonal(1.0)), "finite mean but that in 'second difference at"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Conservation within bounds: both hold, nothing does better, and it is the plain update where no bound is met."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.bounds import condition_within
from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Diagonal
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows

seeds = st.integers(0, 2**31)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_row(weights: torch.Tensor, target: torch.Tensor | float, variance: float | None = None) -> LinearConstraint:
    target = torch.as_tensor(target, dtype=torch.float64).unsqueeze(-1)
    spread = None if variance is None else torch.full_like(target, variance)
    return LinearConstraint(DisjointRows(weights, event_ndim=1), target, spread, names=("mass",))


def attainable(weights: torch.Tensor, lower: float, upper: float, share: float) -> torch.Tensor:
    """Between the least and the largest sum within bounds."""
    ends = torch.stack([weights * lower, weights * upper])
    return torch.lerp(ends.amin(0).sum(), ends.amax(0).sum(), share)


def by_enumeration(mean, variance, weights, target, lower, upper, noise=0.0):
    """The best over every choice of what is at which bound; the plain formula for the rest."""
    best, cost = mean, math.inf
    for choice in itertools.product((-1, 0, 1), repeat=len(mean)):
        place = torch.tensor(choice)
        free = place == 0
        y = torch.where(place < 0, lower, torch.where(place > 0, upper, mean)).to(torch.float64)
        slope = (weights.square() * variance)[free].sum() + noise
        excess = weights.dot(y) - target
        if slope > 0:
            y = torch.where(free, y - excess / slope * weights * variance, y)
        if (weights.dot(y) - target).abs() > 1e-9 and noise == 0:
            continue
        if bool(((y < lower - 1e-12) | (y > upper + 1e-12)).any()):
            continue
        total = ((y - mean).square() / variance).sum()
        total = total + ((weights.dot(y) - target).square() / noise if noise else 0.0)
        if total < cost:
            best, cost = y, float(total)
    return best


@settings(max_examples=25)
@given(count=st.integers(1, 5), share=st.floats(0, 1), noisy=st.booleans(), signed=st.booleans(), seed=seeds)
def test_nothing_within_the_bounds_is_more_probable(count, share, noisy, signed, seed):
    mean, variance = 2 * random(count, seed=seed), random(count, seed=seed + 1).exp()
    weights = random(count, seed=seed + 2)
    weights = weights if signed else weights.abs()
    target = attainable(weights, -0.5, 1.0, share) * (2.0 if noisy else 1.0)
    noise = 0.3 if noisy else None
    found = condition_within(mean, Diagonal(variance), one_row(weights, target, noise), -0.5, 1.0)
    expected = by_enumeration(mean, variance, weights, target, -0.5, 1.0, noise or 0.0)
    torch.testing.assert_close(found.mode, expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=20)
@given(
    count=st.integers(1, 60),
    share=st.floats(0, 1),
    scale=st.sampled_from([1e-12, 1.0, 1e9]),
    contrast=st.floats(0, 12),
    seed=seeds,
)
def test_bounds_and_target_hold(count, share, scale, contrast, seed):
    mean = 3 * scale * random(count, seed=seed)
    variance = (contrast * random(count, seed=seed + 1)).exp()
    weights = random(count, seed=seed + 2)
    lower, upper = -scale, 2 * scale
    mass = one_row(weights, attainable(weights, lower, upper, share))
    found = condition_within(mean, Diagonal(variance), mass, lower, upper)
    again = condition_within(found.mode, Diagonal(variance), mass, lower, upper)

    assert float(found.mode.min()) >= lower
    assert float(found.mode.max()) <= upper
    assert float(mass.residual(found.mode).abs()) < 1e-12 * scale * count
    torch.testing.assert_close(again.mode, found.mode, rtol=1e-9, atol=1e-9 * scale)


@settings(max_examples=20)
@given(count=st.integers(1, 40), noisy=st.booleans(), seed=seeds)
def test_is_the_plain_update_where_no_bound_is_met(count, noisy, seed):
    mean, variance = random(2, 3, count, seed=seed), random(3, count, seed=seed + 1).square()
    mass = one_row(random(count, seed=seed + 2), random(2, 1, seed=seed + 3), 0.5 if noisy else None)
    expected = condition(mean, Diagonal(variance), mass)
    for lower, upper in ((-math.inf, math.inf), (-1e6, 1e6), (-1e6, math.inf)):
        found = condition_within(mean, Diagonal(variance), mass, lower, upper)
        torch.testing.assert_close(found.mode, expected.mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.variance, expected.variance.expand(2, 3, count), rtol=1e-9, atol=1e-10)
        assert not bool(found.at_bound.any())


@settings(max_examples=5)
@given(lower_share=st.floats(0, 1), seed=seeds)
def test_every_row_and_every_element_of_a_batch_as_alone(lower_share, seed):
    event = (5, 4)
    labels = torch.tensor([0, 1, -1, 2, 0])[:, None].expand(event)
    mean, variance = 2 * random(3, *event, seed=seed), random(3, *event, seed=seed + 1).square()
    weights = random(*event, seed=seed + 2)
    target = torch.stack([attainable(weights[labels == row], -1.0, 1.0, lower_share) for row in range(3)])
    together = condition_within(
        mean, Diagonal(variance), LinearConstraint(DisjointRows(weights, 2, labels), target), -1.0, 1.0
    )
    for number in range(3):
        for row in range(3):
            chosen = labels == row
            alone = condition_within(
                mean[number][chosen],
                Diagonal(variance[number][chosen]),
                one_row(weights[chosen], target[row]),
                -1.0,
                1.0,
            )
            torch.testing.assert_close(together.mode[number][chosen], alone.mode, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(together.variance[number][chosen], alone.variance, rtol=1e-9, atol=1e-9)
        untouched = labels < 0
        torch.testing.assert_close(together.mode[number][untouched], mean[number][untouched].clamp(-1, 1))


def test_bounds_of_their_own_and_a_dense_row():
    mean, weights = random(2, 6), torch.ones(1, 6)
    lower, upper = -random(6, seed=1).abs(), random(2, 6, seed=2).abs()
    mass = LinearConstraint(DenseRows(weights, event_ndim=1), torch.tensor([[0.1], [-0.2]]))
    found = condition_within(mean, Diagonal(1.0), mass, lower, upper)
    assert bool(((found.mode >= lower) & (found.mode <= upper)).all())
    assert float(mass.residual(found.mode).abs().max()) < 1e-12


def test_a_density_stays_positive_and_keeps_its_mass_where_clipping_loses_it():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    density = torch.exp(-((x - 0.5) / 0.1).square()) - 0.05
    mass = LinearConstraint.integral(x, torch.tensor(0.12, dtype=torch.float64))
    plain = condition(density, Diagonal(0.01), mass).mean
    found = condition_within(density, Diagonal(0.01), mass, lower=0.0)
    assert float(plain.min()) < 0
    assert float(mass.residual(plain.clamp_min(0))) > 1e-3
    assert float(found.mode.min()) == 0
    assert float(mass.residual(found.mode).abs()) < 1e-14


def test_unknowns_without_variance_are_only_clipped_and_what_is_at_a_bound_has_none():
    mean = torch.tensor([2.0, 0.5, 0.2, -3.0])
    found = condition_within(mean, Diagonal(torch.tensor([0.0, 0.0, 1.0, 1.0])), one_row(torch.ones(4), 2.0), 0.0, 1.0)
    assert found.mode.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert found.at_bound.tolist() == [True, False, False, True]
    assert found.variance.tolist() == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_targets_at_the_ends_of_what_is_attainable(end):
    weights = random(7).abs()
    found = condition_within(random(7, seed=1), Diagonal(1.0), one_row(weights, end * weights.sum()), 0.0, 1.0)
    torch.testing.assert_close(found.mode, torch.full((7,), end, dtype=torch.float64))


def test_precision_is_kept_within_the_bounds():
    mean = random(50).float()
    found = condition_within(mean, Diagonal(1.0), one_row(torch.ones(50), 30.0), 0.1, 0.7)
    assert found.mode.dtype == torch.float32
    assert bool(((found.mode >= 0.1) & (found.mode <= 0.7)).all())
    assert found.variance.dtype == torch.float64


@settings(max_examples=5)
@given(noisy=st.booleans(), seed=seeds)
def test_derivatives(noisy, seed):
    mean, variance = 2 * random(2, 6, seed=seed), random(6, seed=seed + 1).exp()
    weights = random(6, seed=seed + 2)
    target = attainable(weights, -1.0, 0.8, 0.6).reshape(1)
    inputs = [value.requires_grad_() for value in (mean, variance, target)]

    def mode_of(mean, variance, target, lower, upper):
        mass = LinearConstraint(DisjointRows(weights, event_ndim=1), target, torch.tensor([0.2]) if noisy else None)
        return condition_within(mean, Diagonal(variance), mass, lower, upper)[:2]

    bounds = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (-1.0, 0.8)]
    assert torch.autograd.gradcheck(mode_of, (*inputs, *bounds), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: condition_within(random(4), Diagonal(1.0), one_row(torch.ones(4), 5.0), 0.0, 1.0),
            "target of 'mass' that fields within the bounds can have, from 0 to 4, but got 5; widen the bounds",
        ),
        (
            lambda: condition_within(torch.ones(4), Diagonal(0.0), one_row(torch.ones(4), 3.0), 0.0, 1.0),
            "from 4 to 4, but got 3.*variance to more",
        ),
        (lambda: condition_within(random(4), Diagonal(1.0), one_row(torch.ones(4), 1.0), 1.0, 0.0), "exchange them"),
        (lambda: condition_within(random(4), Diagonal(1.0), one_row(torch.ones(4), 1.0), math.nan), "exchange them"),
        (
            lambda: condition_within(random(4) / 0, Diagonal(1.0), one_row(torch.ones(4), 1.0)),
            "finite mean but that in 'ma",
        ),
        (lambda: condition_within(random(5), Diagonal(1.0), one_row(torch.ones(4), 1.0)), "Expected values"),
        (
            lambda: condition_within(random(4), Diagonal(torch.ones(3)), one_row(torch.ones(4), 1.0)),
            r"variances that broadcast to unknowns \(4,\) but got \(3,\)",
        ),
        (
            lambda: condition_within(
                random(4), Diagonal(1.0), LinearConstraint(DenseRows(torch.ones(2, 4), 1), torch.zeros(2))
            ),
            "rows that share no unknown",
        ),
        (
            lambda: condition_within(
                random(4),
                Diagonal(1.0),
                LinearConstraint(DisjointRows(torch.ones(4), 1), torch.zeros(1), covariance=torch.ones(1, 1)),
            ),
            "they have a covariance",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()

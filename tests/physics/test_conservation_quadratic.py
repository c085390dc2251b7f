"""Quadratic invariants: met exactly, by the most probable field, in few iterations, alone and with others."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Dense, Diagonal, FourierDiagonal, LowRank
from pdesurrogate.physics.conservation.quadratic import QuadraticConstraint, condition_quadratic
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows
from pdesurrogate.physics.operators import velocity_from_vorticity

seeds = st.integers(0, 2**31)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def energy_of(mean: torch.Tensor, weights: torch.Tensor, factor: float, **more) -> QuadraticConstraint:
    """A target that is so many times what the mean has."""
    target = factor * (weights * mean.square()).sum(-1, keepdim=True)
    return QuadraticConstraint([Diagonal(weights)], target, event_ndim=1, names=("energy",), **more)


def by_bisection(mean, variance, weights, target):
    """``mean / (1 + l weights variance)``, the closest field of this energy, with ``l`` between its poles."""
    product = weights * variance
    low, high = -1 / float(product.max()) * (1 - 1e-12), 1e9
    for _ in range(300):
        middle = (low + high) / 2
        too_much = (weights * (mean / (1 + middle * product)).square()).sum() > target
        low, high = (middle, high) if too_much else (low, middle)
    return mean / (1 + low * product)


@settings(max_examples=20)
@given(count=st.integers(1, 30), factor=st.floats(0.75, 1.3), seed=seeds)
def test_the_closest_field_of_this_energy(count, factor, seed):
    mean = random(count, seed=seed)
    mean = mean + 0.5 * mean.sign()
    variance, weights = random(count, seed=seed + 1).mul(0.5).exp(), random(count, seed=seed + 2).mul(0.5).exp()
    energy = energy_of(mean, weights, factor)
    found = condition_quadratic(mean, Diagonal(variance), energy)
    expected = by_bisection(mean, variance, weights, energy.target)
    torch.testing.assert_close(found.mean, expected, rtol=1e-8, atol=1e-8)
    assert float(energy.residual(found.mean).abs()) < 1e-13 * float(energy.target)
    torch.testing.assert_close(found.linearized.mean, found.mean, rtol=1e-9, atol=1e-10)


@settings(max_examples=20)
@given(count=st.integers(2, 40), factor=st.floats(0.9, 1.1), seed=seeds)
def test_what_is_left_falls_quadratically(count, factor, seed):
    mean = random(count, seed=seed)
    mean = mean + 0.5 * mean.sign()
    variance = random(count, seed=seed + 1).mul(0.5).exp()
    energy = energy_of(mean, torch.ones(count, dtype=torch.float64), factor)
    residuals = condition_quadratic(mean, Diagonal(variance), energy).residuals[:, 0] / energy.target
    assert len(residuals) <= 8
    for before, after in zip(residuals[:-1].abs().tolist(), residuals[1:].abs().tolist(), strict=True):
        assert after <= 20 * before**2 + 1e-13


@settings(max_examples=20)
@given(factor=st.floats(0.01, 100), seed=seeds)
def test_equal_variances_scale_the_field(factor, seed):
    mean = random(3, 8, seed=seed)
    found = condition_quadratic(mean, Diagonal(2.5), energy_of(mean, torch.ones(8, dtype=torch.float64), factor))
    torch.testing.assert_close(found.mean, math.sqrt(factor) * mean, rtol=1e-10, atol=1e-12)


@settings(max_examples=20)
@given(seed=seeds)
def test_a_met_target_changes_nothing(seed):
    mean = random(12, seed=seed)
    variance = random(12, seed=seed + 1).square() + 0.01
    once = condition_quadratic(mean, Diagonal(variance), energy_of(mean, torch.ones(12, dtype=torch.float64), 1.0))
    torch.testing.assert_close(once.mean, mean, rtol=1e-12, atol=1e-13)


@settings(max_examples=25)
@given(kind=st.sampled_from(["diagonal", "low rank", "dense"]), factor=st.floats(0.95, 1.05), seed=seeds)
def test_with_a_linear_constraint_and_several_forms_no_move_along_the_surface_helps(kind, factor, seed):
    count = 10
    mean, variance = random(count, seed=seed), 0.5 + random(count, seed=seed + 1).square()
    modes = random(2, count, seed=seed + 2)
    prior = {
        "diagonal": Diagonal(variance),
        "low rank": LowRank(variance, modes),
        "dense": Dense(variance.diag() + modes.T @ modes),
    }[kind]
    weights = torch.stack([torch.ones(count), torch.linspace(0.5, 2.0, count)]).to(torch.float64)
    target = (weights * mean.square()).sum(-1) * torch.tensor([factor, 2 - factor])
    both = QuadraticConstraint([Diagonal(weight) for weight in weights], target, 1, names=("energy", "enstrophy"))
    rows = random(1, count, seed=seed + 3)
    total = LinearConstraint(DenseRows(rows, 1), rows @ mean + 0.01)
    found = condition_quadratic(mean, prior, both, total).mean

    assert float((both.residual(found) / target).abs().max()) < 1e-12
    assert float(total.residual(found).abs().max()) < 1e-12
    # The way from the mean is made of the rows' slopes alone.
    slopes = torch.cat([2 * weights * found, rows])
    away = torch.linalg.solve(prior.dense((count,)), found - mean)
    multipliers = torch.linalg.lstsq(slopes.T, away.unsqueeze(-1)).solution
    torch.testing.assert_close(slopes.T @ multipliers, away.unsqueeze(-1), rtol=1e-7, atol=1e-8)


@settings(max_examples=10)
@given(factor=st.floats(0.7, 1.4), seed=seeds)
def test_energy_and_enstrophy_of_a_vorticity_with_its_mean(factor, seed):
    # Without Nyquist waves, of which there is no velocity.
    space, box = (15, 11), (2 * math.pi, 2 * math.pi)
    vorticity = random(*space, seed=seed)
    vorticity = vorticity - vorticity.mean()
    velocity = velocity_from_vorticity(vorticity, box)
    target = torch.stack([velocity.square().sum(0).mean() / 2, vorticity.square().mean() / 2])

    waves = [torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) for size in space]
    squared = waves[0][:, None].square() + waves[1].square()
    squared[0, 0] = torch.inf
    mean_square = torch.tensor(0.5 / math.prod(space), dtype=torch.float64)
    forms = [FourierDiagonal(mean_square / squared), Diagonal(mean_square)]
    invariants = QuadraticConstraint(forms, target, event_ndim=2, names=("energy", "enstrophy"))
    assert float(invariants.residual(vorticity).abs().max()) < 1e-14

    circulation = LinearConstraint(DisjointRows(torch.full(space, 1 / math.prod(space)), 2), torch.zeros(1))
    drifted = math.sqrt(factor) * vorticity + 0.01 * random(*space, seed=seed + 1) + 0.1
    found = condition_quadratic(drifted, Diagonal(1.0), invariants, circulation).mean
    assert float((invariants.residual(found) / target).abs().max()) < 1e-12
    assert float(circulation.residual(found).abs()) < 1e-14
    expected = velocity_from_vorticity(found, box).square().sum(0).mean() / 2
    torch.testing.assert_close(expected, target[0], rtol=1e-11, atol=0)


@settings(max_examples=20)
@given(noise=st.floats(1e-3, 1e3), factor=st.floats(0.8, 1.25), seed=seeds)
def test_noisy_targets_are_met_as_far_as_their_noise_says(noise, factor, seed):
    mean, variance = random(9, seed=seed), random(9, seed=seed + 1).square() + 0.1
    weights = torch.ones(9, dtype=torch.float64)
    exact = energy_of(mean, weights, factor)
    noisy = energy_of(mean, weights, factor, variance=torch.tensor([noise], dtype=torch.float64))
    found = condition_quadratic(mean, Diagonal(variance), noisy)
    left = noisy.residual(found.mean)
    # (y - mean) / variance + 2 y h / noise = 0 at the most probable field.
    slope = (found.mean - mean) / variance + 2 * found.mean * left / noise
    assert float(slope.abs().max()) < 1e-8 * (1 + 1 / noise)
    assert float(left.abs()) <= float(exact.residual(mean).abs()) + 1e-12


@pytest.mark.parametrize("kind", ["diagonal", "low rank", "dense", "shared"])
def test_every_element_of_a_batch_as_alone(kind):
    # As many elements as unknowns, so that neither can be taken for the other.
    mean, variance, modes = random(4, 4), random(4, 4, seed=1).square() + 0.1, random(4, 2, 4, seed=3)
    weights, factors = random(4, seed=2).exp(), torch.tensor([0.7, 0.95, 1.1, 2.0])
    target = (weights * mean.square()).sum(-1, keepdim=True) * factors[:, None]

    def prior(element):
        return {
            "diagonal": Diagonal(variance[element]),
            "low rank": LowRank(variance[element], modes[element]),
            "dense": Dense(torch.diag_embed(variance[element]) + modes[element].mT @ modes[element]),
            "shared": Dense(variance[0].diag() + modes[0].mT @ modes[0]),
        }[kind]

    form = [Diagonal(weights)]
    together = condition_quadratic(mean, prior(slice(None)), QuadraticConstraint(form, target, 1))
    for number in range(4):
        alone = condition_quadratic(mean[number], prior(number), QuadraticConstraint(form, target[number], 1))
        torch.testing.assert_close(together.mean[number], alone.mean, rtol=1e-9, atol=1e-10)


def test_precision_is_kept():
    found = condition_quadratic(random(10).float(), Diagonal(1.0), energy_of(random(10), torch.ones(10), 1.1))
    assert found.mean.dtype == torch.float32
    assert found.residuals.dtype == torch.float64


def test_known_unknowns_stay_and_variance_falls():
    mean, variance = random(8), torch.tensor([0.0, 0, 1, 1, 1, 1, 1, 1])
    found = condition_quadratic(mean, Diagonal(variance), energy_of(mean, torch.ones(8, dtype=torch.float64), 1.2))
    torch.testing.assert_close(found.mean[:2], mean[:2], rtol=0, atol=0)
    assert bool((found.linearized.variance <= variance).all())
    assert float(found.linearized.variance.sum()) == pytest.approx(5)


@pytest.mark.parametrize("kind", ["diagonal", "low rank", "dense"])
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_derivatives(kind, factor):
    mean, variance = random(5).requires_grad_(), (0.5 + random(5, seed=1).square()).requires_grad_()
    weights = torch.linspace(0.7, 1.5, 5, dtype=torch.float64)
    target = (factor * (weights * mean.detach().square()).sum()).reshape(1).requires_grad_()

    def mean_of(mean, variance, target):
        modes = torch.stack([variance, mean])
        prior = {
            "diagonal": Diagonal(variance),
            "low rank": LowRank(variance, modes),
            "dense": Dense(variance.diag() + modes.T @ modes),
        }
        return condition_quadratic(mean, prior[kind], QuadraticConstraint([Diagonal(weights)], target, 1)).mean

    assert torch.autograd.gradcheck(mean_of, (mean, variance, target))


def test_linearized_as_by_hand():
    mean = random(6)
    energy = energy_of(mean, torch.ones(6, dtype=torch.float64), 1.1)
    tangent = energy.linearized(mean)
    torch.testing.assert_close(tangent.rows.dense(), 2 * mean.unsqueeze(0))
    torch.testing.assert_close(tangent.residual(mean), energy.residual(mean))
    first = condition(mean, Diagonal(1.0), tangent).mean
    torch.testing.assert_close(energy.residual(first), (first - mean).square().sum().reshape(1))


ONE = Diagonal(1.0)


def energy(target: float) -> QuadraticConstraint:
    return QuadraticConstraint([ONE], torch.tensor([target], dtype=torch.float64), event_ndim=1, names=("energy",))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: energy(-1.0), ValueError, "that of 'energy' is -1"),
        (lambda: energy(0.0), ValueError, "that of 'energy' is 0; a field of zero energy is zero"),
        (lambda: energy(math.nan), ValueError, "that of 'energy' is nan"),
        (lambda: QuadraticConstraint([], torch.ones(0), 1), ValueError, "but got 0 forms"),
        (lambda: QuadraticConstraint([ONE], torch.ones(2), 1), ValueError, r"target \(..., 1\)"),
        (lambda: QuadraticConstraint([ONE], torch.ones(1), 1, torch.ones(2)), ValueError, r"variance \(..., 1\)"),
        (lambda: QuadraticConstraint([ONE], torch.ones(1), 1, -torch.ones(1)), ValueError, "at least zero, but some"),
        (
            lambda: QuadraticConstraint([ONE], torch.ones(1), 2).residual(torch.ones(3)),
            ValueError,
            "2 axes of unknowns",
        ),
        (
            lambda: condition_quadratic(torch.zeros(3), ONE, energy(1.0)),
            ValueError,
            "start from a field that is not zero",
        ),
        (
            lambda: condition_quadratic(torch.ones(3), Diagonal(0.0), energy(1.0)),
            ValueError,
            "'energy' has a slope but it is zero wherever there is variance",
        ),
        (lambda: condition_quadratic(random(3) / 0, ONE, energy(1.0)), ValueError, "finite mean"),
        (
            lambda: condition_quadratic(torch.ones(3), ONE, energy(300.0), iterations=2),
            RuntimeError,
            "still changes after 2 iterations: 'energy' is a share of",
        ),
        (
            lambda: condition_quadratic(
                torch.ones(3), ONE, QuadraticConstraint([ONE, ONE], torch.tensor([3.0, 4.0]), 1, names=("one", "other"))
            ),
            ValueError,
            "'other' follows from the rows before",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_form_of_each_of_a_batch_beside_one_for_all_as_alone():
    mean, weights = random(6), random(3, 6, seed=1).mul(0.3).exp()
    target = torch.stack([1.1 * (weights * mean.square()).sum(-1), 0.9 * mean[:3].square().sum().expand(3)], -1)
    part = Diagonal(torch.tensor([1.0, 1, 1, 0, 0, 0]))
    both = QuadraticConstraint([Diagonal(weights), part], target, event_ndim=1)
    found = condition_quadratic(mean, Diagonal(1.0), both)
    assert float(both.residual(found.mean).abs().max()) < 1e-12
    for number in range(3):
        alone = QuadraticConstraint([Diagonal(weights[number]), part], target[number], event_ndim=1)
        expected = condition_quadratic(mean, Diagonal(1.0), alone).mean
        torch.testing.assert_close(found.mean[number], expected, rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="axes of a batch that broadcast"):
        QuadraticConstraint([Diagonal(weights), Diagonal(weights[:2])], target, event_ndim=1).residual(mean)

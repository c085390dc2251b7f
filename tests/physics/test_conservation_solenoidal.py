"""The divergence-free projection: what it removes and keeps, the dense formula, and what goes together with it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint, joined
from pdesurrogate.physics.conservation.covariance import Covariance, Diagonal
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows
from pdesurrogate.physics.conservation.solenoidal import Solenoidal, solenoidal
from pdesurrogate.physics.operators import divergence, gradient, velocity_from_vorticity

GOLDEN = Path(__file__).parents[1] / "golden" / "probconserv_exact_and_synthetic.npz"
BOX = (2 * math.pi, 3.0, 1.5)

seeds = st.integers(0, 2**31)
spaces = st.lists(st.integers(2, 9), min_size=2, max_size=3).map(tuple)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def component_variances(dimension: int, seed: int) -> Diagonal:
    return Diagonal(random(dimension, *(1,) * dimension, seed=seed).exp())


def varying(*shape: int, seed: int = 0) -> Diagonal:
    return Diagonal((0.7 * random(*shape, seed=seed)).exp())


def divergence_rows(event: tuple[int, ...], periods: tuple[float, ...]) -> LinearConstraint:
    """Every point's spectral divergence written out as a row."""
    each = torch.eye(math.prod(event), dtype=torch.float64).unflatten(-1, event)
    weights = divergence(each, periods).flatten(1).T.unflatten(-1, event)
    return LinearConstraint(DenseRows(weights, len(event)), weights.new_zeros(len(weights)))


def momentum(event: tuple[int, ...], target: torch.Tensor) -> LinearConstraint:
    """The mean of every component."""
    labels = torch.arange(event[0]).reshape(-1, *(1,) * (len(event) - 1)).expand(event)
    weights = torch.full(event, 1 / math.prod(event[1:]))
    return LinearConstraint(DisjointRows(weights, len(event), labels), target)


@pytest.mark.parametrize("name", ["iso", "aniso"])
def test_equals_the_reference(name):
    with np.load(GOLDEN) as arrays:
        velocity, expected, variance = (
            torch.as_tensor(arrays[key]) for key in ("leray_u", f"leray_{name}", f"leray_var_{name}")
        )
    mean, _ = solenoidal(velocity, Diagonal(variance[:, None, None]), (1.0, 1.0))
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=20)
@given(space=spaces, seed=seeds)
def test_nothing_diverges_the_mean_stays_and_twice_is_once(space, seed):
    periods = BOX[: len(space)]
    velocity = random(3, len(space), *space, seed=seed)
    variance = component_variances(len(space), seed + 1)
    once, _ = solenoidal(velocity, variance, periods)
    twice, _ = solenoidal(once, variance, periods)
    axes = tuple(range(-len(space), 0))

    assert once.dtype == torch.float64
    assert float(divergence(once, periods).abs().max()) < 1e-13 * max(
        1, float(divergence(velocity, periods).abs().max())
    )
    torch.testing.assert_close(once.mean(axes), velocity.mean(axes))
    torch.testing.assert_close(twice, once, rtol=1e-12, atol=1e-13)


@settings(max_examples=20)
@given(space=spaces, seed=seeds)
def test_what_it_adds_is_a_gradient_times_the_variance_and_solenoidal_flow_stays(space, seed):
    periods, d = BOX[: len(space)], len(space)
    variance = component_variances(d, seed)
    potential = random(*space, seed=seed + 1)
    flow, _ = solenoidal(random(d, *space, seed=seed + 2), variance, periods)
    found, _ = solenoidal(flow + variance.variance * gradient(potential, periods), variance, periods)
    torch.testing.assert_close(found, flow, rtol=1e-11, atol=1e-11)


def test_flow_of_a_stream_function_stays_and_surer_components_move_less():
    vorticity = random(16, 16)
    flow = velocity_from_vorticity(vorticity - vorticity.mean(), (1.0, 1.0))
    torch.testing.assert_close(solenoidal(flow, Diagonal(1.0), (1.0, 1.0))[0], flow, rtol=1e-11, atol=1e-12)

    velocity = random(2, 16, 16, seed=1)
    evenly = solenoidal(velocity, Diagonal(1.0), (1.0, 1.0))[0] - velocity
    surer = solenoidal(velocity, Diagonal(torch.tensor([1.0, 1e-2])[:, None, None]), (1.0, 1.0))[0] - velocity
    assert float(surer[1].norm()) < 0.5 * float(evenly[1].norm())
    assert float(surer[0].norm()) > float(evenly[0].norm())


@settings(max_examples=5)
@given(space=st.sampled_from([(8, 8), (5, 7), (6, 5), (2, 4, 3)]), in_space=st.booleans(), seed=seeds)
def test_equals_conditioning_on_every_row(space, in_space, seed):
    periods, d = BOX[: len(space)], len(space)
    event = (d, *space)
    prior = varying(*event, seed=seed) if in_space else component_variances(d, seed)
    velocity = random(*event, seed=seed + 1)
    mean, spread = solenoidal(velocity, prior, periods)
    expected = condition(velocity, prior, divergence_rows(event, periods))

    torch.testing.assert_close(mean, expected.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(spread.dense(event), expected.covariance(), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(spread.diagonal(event).expand(event), expected.variance, rtol=1e-8, atol=1e-9)


@settings(max_examples=20)
@given(space=st.sampled_from([(8, 8), (9, 6), (4, 5, 6)]), seed=seeds)
def test_variance_in_space_as_a_variance_of_components_where_it_is_one(space, seed):
    periods, d = BOX[: len(space)], len(space)
    velocity, constant = random(2, d, *space, seed=seed), component_variances(d, seed + 1)
    written_out = Diagonal(constant.variance.expand(d, *space).contiguous())
    expected, _ = solenoidal(velocity, constant, periods)
    torch.testing.assert_close(solenoidal(velocity, written_out, periods)[0], expected, rtol=1e-10, atol=1e-11)


@settings(max_examples=5)
@given(seed=seeds)
def test_variance_in_space_leaves_no_divergence(seed):
    velocity, prior = random(3, 2, 16, 11, seed=seed), varying(3, 2, 16, 11, seed=seed + 1)
    mean, _ = solenoidal(velocity, prior, BOX[:2])
    assert float(divergence(mean, BOX[:2]).abs().max()) < 1e-11 * float(divergence(velocity, BOX[:2]).abs().max())
    alone, _ = solenoidal(velocity[1], Diagonal(prior.variance[1]), BOX[:2])
    torch.testing.assert_close(mean[1], alone, rtol=1e-9, atol=1e-10)


@settings(max_examples=10)
@given(in_space=st.booleans(), seed=seeds)
def test_together_with_momentum_nothing_diverges_and_all_equals_one_update(in_space, seed):
    event, periods = (2, 6, 5), BOX[:2]
    prior = varying(*event, seed=seed) if in_space else component_variances(2, seed)
    velocity = random(*event, seed=seed + 1)
    means = momentum(event, torch.tensor([0.3, -0.2], dtype=torch.float64))
    found = condition(*solenoidal(velocity, prior, periods), means)
    expected = condition(velocity, prior, joined([divergence_rows(event, periods), means]))

    assert float(divergence(found.mean, periods).abs().max()) < 1e-10
    assert float(means.residual(found.mean).abs().max()) < 1e-12
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-7, atol=1e-8)


def test_samples_have_no_divergence_and_the_stated_covariance():
    event = (2, 4, 3)
    spread = Solenoidal(varying(*event), BOX[:2])
    assert isinstance(spread, Covariance)
    samples = spread.sample((20_000,), event, torch.Generator().manual_seed(0))
    assert float(divergence(samples, BOX[:2]).abs().max()) < 1e-10
    flat = samples.flatten(1)
    # Errors of 20,000 draws.
    torch.testing.assert_close(flat.T @ flat / len(flat), spread.dense(event), rtol=0, atol=0.15)


def test_batch_of_variances_and_precision():
    velocity = random(4, 2, 8, 8)
    variance = random(4, 2, 1, 1, seed=1).exp()
    together, spread = solenoidal(velocity, Diagonal(variance), (1.0, 1.0))
    vectors = spread.times(velocity.unsqueeze(1).expand(4, 3, 2, 8, 8), (2, 8, 8))
    for number in range(4):
        alone, own = solenoidal(velocity[number], Diagonal(variance[number]), (1.0, 1.0))
        torch.testing.assert_close(together[number], alone)
        torch.testing.assert_close(vectors[number, 0], own.times(velocity[number].unsqueeze(0), (2, 8, 8))[0])
    assert solenoidal(velocity.float(), Diagonal(1.0), (1.0, 1.0))[0].dtype == torch.float32


@pytest.mark.parametrize(("space", "in_space"), [((4, 3), False), ((4, 3), True), ((2, 3, 2), False)])
def test_derivatives(space, in_space):
    event, periods = (len(space), *space), BOX[: len(space)]
    prior = varying(*event) if in_space else component_variances(len(space), 0)
    variance = prior.variance.requires_grad_()
    velocity = random(*event, seed=1).requires_grad_()

    def mean_of(velocity, variance):
        return solenoidal(velocity, Diagonal(variance), periods)[0]

    assert torch.autograd.gradcheck(mean_of, (velocity, variance), fast_mode=True)
    assert torch.autograd.gradgradcheck(mean_of, (velocity, variance), fast_mode=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: solenoidal(random(3, 8, 8), Diagonal(1.0), (1.0, 1.0)),
            ValueError,
            "select the channels of the velocity",
        ),
        (lambda: solenoidal(random(8, 8), Diagonal(1.0), (1.0, 1.0)), ValueError, r"velocity \(..., 2, \*space\)"),
        (lambda: solenoidal(random(2, 8, 8), Diagonal(1.0), (1.0, 0.0)), ValueError, "positive periods"),
        (lambda: solenoidal(random(2, 8, 8), Diagonal(torch.zeros(2, 1, 1)), (1.0, 1.0)), ValueError, "add a floor"),
        (
            lambda: solenoidal(random(2, 8, 8), Diagonal(torch.ones(2)), (1.0, 1.0)),
            ValueError,
            "variances that broadcast",
        ),
        (lambda: solenoidal(random(2, 8, 8) / 0, Diagonal(1.0), (1.0, 1.0)), ValueError, "finite mean"),
        (
            lambda: solenoidal(random(2, 8, 8), varying(2, 8, 8), (1.0, 1.0), iterations=3),
            RuntimeError,
            "in 3 iterations, where variances differ by a factor",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("variance", [1.0, torch.tensor([1.0, 2.0], dtype=torch.float64).reshape(2, 1, 1)])
def test_waves_are_where_the_velocity_is(variance):
    spread = Solenoidal(Diagonal(variance), (1.0, 1.0))
    assert spread.projected(torch.empty(2, 8, 8, device="meta")).device.type == "meta"
    vectors = torch.empty(3, 2, 8, 8, dtype=torch.float64, device="meta")
    assert spread.times(vectors, (2, 8, 8)).device.type == "meta"


def test_the_mean_needs_no_variances_which_cost_a_solution_for_every_unknown(monkeypatch):
    event, periods = (2, 6, 5), BOX[:2]
    velocity, means = random(*event), momentum(event, torch.tensor([0.3, -0.2], dtype=torch.float64))
    mean, spread = solenoidal(velocity, varying(*event, seed=1), periods)
    expected = spread.diagonal(event)

    def refused(*_):
        raise AssertionError("A covariance was written out.")

    with monkeypatch.context() as patched:
        patched.setattr(Solenoidal, "dense", refused)
        patched.setattr(Solenoidal, "diagonal", refused)
        found = condition(mean, spread, means)
        found.sample(2, torch.Generator().manual_seed(0))
    assert bool((found.variance <= expected + 1e-12).all())
    assert bool((expected <= spread.bound(event) + 1e-12).all())
    with pytest.raises(ValueError, match="variances that broadcast"):
        condition(random(2, 5, 5), spread, momentum((2, 5, 5), torch.zeros(2)))

"""Covariances: every form equal to its dense matrix, in products, diagonals and samples; no matrix that is none."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.covariance import Covariance, Dense, Diagonal, FourierDiagonal, LowRank

KINDS = ["diagonal", "number", "low_rank", "dense", "fourier"]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance_of(kind, event, batch=(), seed=0, dtype=torch.float64):
    size = math.prod(event)
    root = noise(*batch, size, size, seed=seed)
    return {
        "diagonal": lambda: Diagonal(noise(*batch, *event, seed=seed).square().to(dtype)),
        "number": lambda: Diagonal(0.7),
        "low_rank": lambda: LowRank(
            noise(*batch, *event, seed=seed).square().to(dtype), noise(*batch, 2, *event, seed=seed + 1).to(dtype)
        ),
        "dense": lambda: Dense((root @ root.mT).to(dtype)),
        "fourier": lambda: FourierDiagonal(noise(*batch, *event, seed=seed).square().to(dtype)),
    }[kind]()


@given(
    kind=st.sampled_from(KINDS),
    event=st.sampled_from([(1,), (4,), (5,), (2, 3), (3, 4), (2, 3, 2)]),
    batch=st.sampled_from([(), (1,), (3,), (2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_every_form_equals_its_dense_matrix(kind, event, batch, dtype, seed):
    covariance = covariance_of(kind, event, batch, seed, dtype)
    size = math.prod(event)
    matrix = covariance.dense(event)
    batch = () if kind == "number" else batch
    assert isinstance(covariance, Covariance)
    assert matrix.shape == (*batch, size, size)
    assert matrix.dtype == torch.float64
    assert torch.allclose(matrix, matrix.mT)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-5 * matrix.diagonal(dim1=-2, dim2=-1).sum(-1).max()
    diagonal = covariance.diagonal(event).expand(*batch, *event)
    assert torch.allclose(diagonal.flatten(-len(event)), matrix.diagonal(dim1=-2, dim2=-1))
    bound = covariance.bound(event)
    assert bound.shape == covariance.diagonal(event).shape
    assert bool((bound >= diagonal).all())
    vectors = noise(*batch, 3, *event, seed=seed + 2)
    expected = (vectors.flatten(-len(event)) @ matrix).unflatten(-1, event)
    assert torch.allclose(covariance.times(vectors, event), expected)
    # The same vectors for all of a batch.
    shared = noise(2, *event, seed=seed + 3)
    expected = (shared.flatten(-len(event)) @ matrix).unflatten(-1, event)
    assert torch.allclose(covariance.times(shared, event), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_samples_have_the_covariance_and_no_mean(kind, batch):
    event, draws = (2, 3), 40_000
    covariance = covariance_of(kind, event, batch)
    found = covariance.sample((draws, *batch), event, torch.Generator().manual_seed(1))
    assert found.dtype == torch.float64
    flat = found.flatten(-2).movedim(0, -1)
    matrix = covariance.dense(event)
    scale = matrix.diagonal(dim1=-2, dim2=-1).amax(-1)
    # Five standard errors.
    assert bool((flat.mean(-1).abs() <= 5 * (scale[..., None] / draws).sqrt()).all())
    assert bool(((flat @ flat.mT / draws - matrix).abs() <= 5 * math.sqrt(2 / draws) * scale[..., None, None]).all())
    again = covariance.sample((draws, *batch), event, torch.Generator().manual_seed(1))
    assert torch.equal(found, again)


def test_members_have_their_unbiased_covariance_and_a_floor():
    members = noise(5, 3, 2, 2)
    covariance = LowRank.of_members(members, event_ndim=2, floor=0.1)
    for number in range(3):
        expected = torch.cov(members[:, number].flatten(1).T) + 0.1 * torch.eye(4, dtype=torch.float64)
        assert torch.allclose(covariance.dense((2, 2))[number], expected)


def test_only_the_even_part_of_the_power_counts():
    power = noise(6).square()
    mirrored = power.flip(0).roll(1)
    found = FourierDiagonal(power).dense((6,))
    assert torch.allclose(found, FourierDiagonal((power + mirrored) / 2).dense((6,)))
    # The covariance of two points depends on their distance alone.
    assert torch.allclose(found, found.roll((1, 1), (0, 1)))


def test_rounding_is_no_asymmetry_and_no_negative_eigenvalue():
    direction = noise(50, 3).float()
    matrix = direction @ direction.T
    assert torch.equal(Dense(matrix).matrix, Dense(matrix).matrix.mT)
    skewed = matrix.double() * (1 + 1e-8 * noise(50, 50, seed=1))
    assert torch.equal(Dense(skewed.float()).matrix, Dense(skewed.float()).matrix.mT)
    assert not Dense(torch.zeros(3, 3)).matrix.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Diagonal(torch.tensor([1.0, -0.5])), "at least zero but they lie from -0.5 to 1"),
        (lambda: Diagonal(torch.tensor([1.0, math.nan])), r"from nan to nan.*number 1 of \(2,\) flattened, nan"),
        (
            lambda: Diagonal(torch.tensor([[1.0, 2.0, 3.0], [4.0, -0.5, -7.0]])),
            r"from -7 to 4; the first to blame is number 4 of \(2, 3\) flattened, -0.5: a model's deviation",
        ),
        (
            lambda: LowRank(torch.tensor([0.0, math.nan, -1.0]), torch.ones(1, 3)),
            r"number 1 of \(3,\) flattened, nan",
        ),
        (lambda: Diagonal(torch.tensor([1.0, math.inf])), "from 1 to inf"),
        (lambda: Diagonal(-1.0), "from -1 to -1"),
        (lambda: LowRank(-1.0, torch.ones(2, 3)), "at least zero"),
        (lambda: LowRank(1.0, torch.tensor([[1.0, math.nan]])), "finite modes"),
        (lambda: LowRank.of_members(torch.ones(1, 3), 1, 0.0), "at least two members.*got 1"),
        (lambda: FourierDiagonal(torch.tensor([1.0, -1.0])), "at least zero"),
        (lambda: Dense(torch.ones(3)), r"square matrix as a covariance but got \(3,\)"),
        (lambda: Dense(torch.ones(2, 3)), r"got \(2, 3\)"),
        (lambda: Dense(torch.tensor([[1.0, 0.0], [math.nan, 1.0]])), "finite covariance but that of unknown 0"),
        (lambda: Dense(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "symmetric covariance.*mean with the transpose"),
        (lambda: Dense(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "eigenvalue -1,.*clip its negative eigenvalues"),
        (lambda: Dense(torch.diag(torch.tensor([1.0, -1e-3, 1.0]))), "eigenvalue -0.001.*mostly of unknown 1"),
        (lambda: Dense(torch.stack([torch.eye(2), -torch.eye(2)])), "positive semi-definite"),
    ],
)
def test_what_is_no_covariance_is_refused_with_a_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (Diagonal(torch.ones(4)), r"variances \(..., 2, 3\), or what broadcasts to them, but got \(4,\)"),
        (LowRank(torch.ones(4), torch.ones(1, 2, 3)), "or what broadcasts"),
        (LowRank(1.0, torch.ones(1, 3, 2)), r"modes.*of unknowns \(2, 3\) but got \(1, 3, 2\)"),
        (LowRank(1.0, torch.ones(2, 3)), "modes"),
        (Dense(torch.eye(5)), r"a covariance of 6 unknowns \(2, 3\) but got \(5, 5\)"),
        (FourierDiagonal(torch.ones(6)), r"power of every wave.*but got \(6,\)"),
    ],
)
def test_covariances_of_other_unknowns_are_refused(covariance, message):
    with pytest.raises(ValueError, match=message):
        covariance.diagonal((2, 3))

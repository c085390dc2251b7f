"""The update of ProbConserv: the authors' arrays, the properties of a projection, and what has no answer."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint, joined
from pdesurrogate.physics.conservation.covariance import Dense, Diagonal, FourierDiagonal, LowRank
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows, control_volumes

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ["pme_m3", "stefan_u06"]
KINDS = ["diagonal", "number", "low_rank", "dense", "fourier"]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def golden(name):
    with np.load(GOLDEN / f"probconserv_{name}.npz") as arrays:
        return {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}


def same(found, expected, scale=None):
    """To 1e-9, relative to the largest value unless a scale is given."""
    scale = expected.abs().max() if scale is None else scale
    assert found.shape == expected.shape
    assert float(((found - expected).abs() / scale).max()) < 1e-9


@pytest.fixture(params=CASES)
def published(request):
    return golden(request.param)


def covariance_of(kind, event, batch=(), seed=0):
    size = math.prod(event)
    root = noise(*batch, size, size, seed=seed)
    variance = noise(*batch, *event, seed=seed).square() + 0.1
    return {
        "diagonal": lambda: Diagonal(variance),
        "number": lambda: Diagonal(0.7),
        "low_rank": lambda: LowRank(variance, noise(*batch, 2, *event, seed=seed + 1)),
        "dense": lambda: Dense(root @ root.mT + 0.1 * torch.eye(size, dtype=torch.float64)),
        "fourier": lambda: FourierDiagonal(variance),
    }[kind]()


def textbook(mean, covariance, matrix, target, noise_covariance):
    """Mean and covariance as they are written, with the inverse."""
    total = matrix @ covariance @ matrix.mT + noise_covariance
    gain = covariance @ matrix.mT @ torch.linalg.inv(total)
    return mean - gain @ (matrix @ mean - target), covariance - gain @ matrix @ covariance


# The authors' arrays.


@pytest.mark.parametrize("form", ["disjoint", "dense rows"])
def test_golden_updates_for_every_noise(published, form):
    constraint = LinearConstraint.integral(published["x"], published["b"].squeeze(0))
    same(constraint.rows.weights, published["G"][0])
    same(constraint.residual(published["prior_mean"]), published["Gmu_minus_b"])
    same(constraint.residual(published["true_u"]), published["Gtrue_minus_b"], scale=published["b"])
    if form == "dense rows":
        constraint = LinearConstraint(DenseRows(constraint.rows.dense(), 1), constraint.target)
    prior = Diagonal(published["prior_std"].square())
    for number, variance in enumerate(published["sigma_G2"]):
        known = constraint.with_target(constraint.target, variance.expand(1))
        found = condition(published["prior_mean"], prior, known)
        same(found.mean, published["post_mean"][number])
        same(found.variance, published["post_var"][number], scale=published["post_var"][number])
        key = f"post_cov_sG2_{float(variance):g}"
        if key in published:
            same(found.covariance(), published[key])
    assert {"post_cov_sG2_0", "post_cov_sG2_0.0001"} <= set(published)


def test_golden_orthogonal_projection(published):
    constraint = LinearConstraint.integral(published["x"], published["b"].squeeze(0))
    for variance in (1.0, 1e-6, torch.full((201,), 3.0)):
        same(condition(published["prior_mean"], Diagonal(variance), constraint).mean, published["hardc_mean"])


@pytest.mark.parametrize("form", ["low rank", "dense"])
def test_golden_low_rank_and_dense_priors(published, form):
    diagonal, modes = published["dense_prior_diag"], published["dense_prior_lowrank_A"]
    prior = LowRank(diagonal, modes.mT) if form == "low rank" else Dense(diagonal.diag() + modes @ modes.mT)
    constraint = LinearConstraint.integral(published["x"], published["b"].squeeze(0))
    found = condition(published["prior_mean"], prior, constraint)
    same(found.mean, published["dense_post_mean"])
    same(found.variance, published["dense_post_var"])


def test_golden_ensemble_is_the_low_rank_prior(published):
    draws = published["prior_sample_loc"]
    floor = published["dense_prior_diag"]
    constraint = LinearConstraint.integral(published["x"], published["b"].squeeze(0))
    found = condition(published["prior_mean"], LowRank.of_members(draws, 1, floor), constraint)
    same(found.mean, published["dense_post_mean"])


@pytest.mark.parametrize("form", ["diagonal", "dense"])
def test_golden_several_rows_with_correlated_noise(published, form):
    variance = published["prior_std"].square()
    prior = Diagonal(variance) if form == "diagonal" else Dense(variance.diag())
    constraint = LinearConstraint(
        DenseRows(published["multi_G"], 1), published["multi_b"], covariance=published["multi_R"]
    )
    found = condition(published["prior_mean"], prior, constraint)
    same(found.mean, published["multi_post_mean"])
    same(found.variance, published["multi_post_var"])


def mixture_of_updates(arrays):
    """Every draw updated, then their mixture: as one batch."""
    constraint = LinearConstraint.integral(arrays["x"], arrays["b"].squeeze(0))
    found = condition(arrays["prior_sample_loc"], Diagonal(arrays["prior_sample_scale"].square()), constraint)
    assert found.mean.shape == found.variance.shape == (100, 201)
    return found.mean.mean(0), found.variance.clamp_min(1e-8).mean(0) + found.mean.var(0, correction=1)


def test_golden_mixture_of_updated_draws(published):
    mean, variance = mixture_of_updates(published)
    same(mean, published["persample_mean"])
    same(variance, published["persample_var"])


def test_golden_scores(published):
    prior_mean, prior_variance = published["prior_mean"], published["prior_std"].square()
    constraint = LinearConstraint.integral(published["x"], published["b"].squeeze(0))
    predictions = [(prior_mean, prior_variance)]
    for variance in published["sigma_G2"]:
        known = constraint.with_target(constraint.target, variance.expand(1))
        found = condition(prior_mean, Diagonal(prior_variance), known)
        predictions.append((found.mean, found.variance))
    predictions.append((condition(prior_mean, Diagonal(1.0), constraint).mean, prior_variance))
    predictions.append(mixture_of_updates(published))
    # Row 7 is the update after smoothing, which is tested with the smoothing.
    expected = published["scores_MSE_LL_CE"][[0, 1, 2, 3, 4, 5, 6, 8]]
    for (mean, variance), row in zip(predictions, expected, strict=True):
        error = (mean - published["true_u"]).square()
        likelihood = -0.5 * (error / variance + (2 * math.pi * variance).log())
        found = torch.stack([error.mean(), likelihood.mean(), constraint.residual(mean).squeeze()])
        assert torch.allclose(found, row, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["diagonal", "dense", "low rank"])
def test_golden_fields_with_exact_and_noisy_rows(form):
    arrays = golden("exact_and_synthetic")
    variance = arrays["field2d_std"].square()
    prior = {
        "diagonal": lambda: Diagonal(variance),
        "dense": lambda: Dense(variance.flatten().diag()),
        "low rank": lambda: LowRank(variance, torch.zeros(1, 3, 8, 6)),
    }[form]()
    rows = DenseRows(arrays["field2d_G"].unflatten(-1, (3, 8, 6)), event_ndim=3)
    constraint = LinearConstraint(rows, arrays["field2d_b"], covariance=arrays["field2d_R"])
    found = condition(arrays["field2d_mean"], prior, constraint)
    same(found.mean, arrays["field2d_post_mean"])
    same(found.variance, arrays["field2d_post_var"])
    same(found.covariance(), arrays["field2d_post_cov"])
    # Rows 0, 1 and 3 are exact, also in each sample.
    draws = found.sample(5, torch.Generator().manual_seed(0))
    left = constraint.residual(draws).abs().amax(0)
    assert left[[0, 1, 3]].max() < 1e-12 < 1e-4 < left[2]


# The properties of the update.

shapes = st.sampled_from([((6,), ()), ((5,), (3,)), ((3, 4), ()), ((2, 3, 2), (2,)), ((3, 3), (2, 2))])


def rows_of(form, event, batch, seed=0):
    if form == "one":
        return DisjointRows(noise(*batch, *event, seed=seed), len(event))
    if form == "volumes":
        cuts = (2, *(1 for _ in event[1:]))
        return DisjointRows(noise(*event, seed=seed), len(event), control_volumes(event, cuts))
    if form == "channels":
        return DisjointRows(noise(*event, seed=seed), len(event), summed=max(1, len(event) - 1))
    return DenseRows(noise(*batch, 3, *event, seed=seed), len(event))


@given(
    kind=st.sampled_from(KINDS),
    form=st.sampled_from(["one", "volumes", "channels", "dense"]),
    shape=shapes,
    target_noise=st.sampled_from(["none", "variance", "covariance", "relative"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_every_path_equals_the_textbook(kind, form, shape, target_noise, dtype, seed):
    event, batch = shape
    if form == "channels" and len(event) == 1:
        form = "one"
    covariance = covariance_of(kind, event, batch, seed)
    rows = rows_of(form, event, batch, seed + 5)
    mean = noise(*batch, *event, seed=seed + 6).to(dtype)
    count = rows.count
    root = noise(count, count, seed=seed + 7)
    known = {
        "variance": {"variance": noise(*batch, count, seed=seed + 7).square()},
        "covariance": {"covariance": root @ root.mT},
    }.get(target_noise, {})
    relative = 0.3 if target_noise == "relative" else 0.0
    constraint = LinearConstraint(rows, noise(*batch, count, seed=seed + 8), **known)
    found = condition(mean, covariance, constraint, relative)
    assert found.dropped is None

    flat = len(event)
    matrix, prior = rows.dense().flatten(-flat), covariance.dense(event)
    own = relative**2 * torch.diag_embed((matrix @ prior @ matrix.mT).diagonal(dim1=-2, dim2=-1))
    expected_mean, expected = textbook(
        mean.double().flatten(-flat).unsqueeze(-1), prior, matrix, constraint.target.unsqueeze(-1),
        constraint.target_covariance() + own,
    )  # fmt: skip
    expected_mean = expected_mean.squeeze(-1).unflatten(-1, event)
    assert found.mean.dtype == dtype
    assert found.mean.shape == mean.shape
    assert found.variance.dtype == found.residual.dtype == torch.float64
    assert torch.allclose(found.mean.double(), expected_mean, rtol=1e-6 if dtype == torch.float32 else 1e-7, atol=1e-6)
    assert torch.allclose(found.covariance(), expected.expand_as(found.covariance()), atol=1e-8)
    variance = found.variance.flatten(-flat)
    assert torch.allclose(variance, expected.diagonal(dim1=-2, dim2=-1).expand_as(variance), atol=1e-8)


@given(
    kind=st.sampled_from(KINDS),
    form=st.sampled_from(["one", "volumes", "dense"]),
    shape=shapes,
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_an_exact_target_is_met_and_certain_and_a_second_update_changes_nothing(kind, form, shape, dtype, seed):
    event, batch = shape
    covariance = covariance_of(kind, event, batch, seed)
    rows = rows_of(form, event, batch, seed + 5)
    mean = noise(*batch, *event, seed=seed + 6).to(dtype)
    constraint = LinearConstraint(rows, noise(*batch, rows.count, seed=seed + 8).to(dtype))
    found = condition(mean, covariance, constraint)
    precision = 1e-9 if dtype == torch.float64 else 1e-5
    scale = rows.magnitude(found.mean).max() + 1
    assert constraint.residual(found.mean).abs().max() < precision * scale

    matrix, after = rows.dense().flatten(-len(event)), found.covariance()
    of_prior = matrix @ covariance.dense(event) @ matrix.mT
    assert (matrix @ after @ matrix.mT).abs().max() < 1e-9 * of_prior.abs().max()
    assert torch.allclose(condition(found.mean, covariance, constraint).mean, found.mean, atol=float(precision * scale))

    # The conditioned covariance cannot move along the rows any more, but for round-off of the size of the prior: rows
    # are dropped or follow it, and nothing changes by more than what the first update left.
    second = condition(found.mean, Dense(after), constraint)
    assert torch.allclose(second.mean, found.mean, atol=float(precision * scale))
    assert torch.allclose(second.covariance(), after, atol=1e-9 * float(of_prior.abs().max() + 1))


@pytest.mark.parametrize("form", ["one", "volumes", "dense"])
def test_rows_that_were_met_exactly_are_dropped_the_second_time(form):
    rows = rows_of(form, (4, 3), (), 5)
    constraint = LinearConstraint(rows, noise(rows.count, seed=8))
    found = condition(noise(4, 3, seed=6), covariance_of("diagonal", (4, 3), (), 0), constraint)
    second = condition(found.mean, Dense(found.covariance()), constraint)
    assert second.dropped is not None
    assert bool(second.dropped.all())
    assert torch.equal(second.mean, found.mean)


@given(kind=st.sampled_from(KINDS), shape=shapes, seed=st.integers(0, 999), relative=st.sampled_from([0.0, 0.5]))
def test_the_residual_shrinks_by_a_known_factor_and_no_variance_grows(kind, shape, seed, relative):
    event, batch = shape
    covariance = covariance_of(kind, event, batch, seed)
    rows = rows_of("dense", event, batch, seed)
    root = noise(3, 3, seed=seed + 1)
    constraint = LinearConstraint(rows, noise(*batch, 3, seed=seed + 2), covariance=root @ root.mT)
    mean = noise(*batch, *event, seed=seed + 3)
    found = condition(mean, covariance, constraint, relative)
    matrix, prior = rows.dense().flatten(-len(event)), covariance.dense(event)
    of_prior = matrix @ prior @ matrix.mT
    noisy = constraint.target_covariance() + relative**2 * torch.diag_embed(of_prior.diagonal(dim1=-2, dim2=-1))
    factor = noisy @ torch.linalg.inv(of_prior + noisy)
    expected = (factor @ found.residual.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(constraint.residual(found.mean), expected, atol=1e-8)

    after = found.covariance()
    assert torch.allclose(after, after.mT, atol=1e-12)
    trace = prior.diagonal(dim1=-2, dim2=-1).sum(-1)
    for less, more in ((torch.zeros_like(after), after), (after, prior)):
        assert bool((torch.linalg.eigvalsh(more - less)[..., 0] > -1e-10 * trace).all())
    assert bool((found.variance <= covariance.diagonal(event) + 1e-12).all())
    assert bool((found.variance.flatten(-len(event)).sum(-1) <= trace).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["one", "volumes", "dense"])
def test_much_noise_leaves_the_prior(kind, form):
    covariance, rows, mean = covariance_of(kind, (6,)), rows_of(form, (6,), ()), noise(6, seed=1)
    constraint = LinearConstraint(rows, noise(rows.count, seed=2))
    absolute = constraint.with_target(constraint.target, torch.full((rows.count,), 1e14))
    for found in (condition(mean, covariance, constraint, noise=1e7), condition(mean, covariance, absolute)):
        assert torch.allclose(found.mean, mean, atol=1e-12)
        assert torch.allclose(found.covariance(), covariance.dense((6,)), atol=1e-11)


@given(order=st.permutations(range(3)), seed=st.integers(0, 999), exact=st.sampled_from(["none", "first", "all"]))
def test_one_row_after_another_in_any_order_is_all_at_once(order, seed, exact):
    mean, prior = noise(6, seed=seed), covariance_of("low_rank", (6,), seed=seed)
    variance = noise(3, seed=seed + 1).square() + 0.01
    variance[: {"none": 0, "first": 1, "all": 3}[exact]] = 0
    weights, target = noise(3, 6, seed=seed + 2), noise(3, seed=seed + 3)
    single = [
        LinearConstraint(DenseRows(weights[row : row + 1], 1), target[row : row + 1], variance[row : row + 1])
        for row in range(3)
    ]
    whole = condition(mean, prior, joined(single))
    after, covariance = mean, prior
    for row in order:
        found = condition(after, covariance, single[row])
        after, covariance = found.mean, Dense(found.covariance())
    assert torch.allclose(after, whole.mean, atol=1e-7)
    assert torch.allclose(covariance.matrix, whole.covariance(), atol=1e-7)


@given(order=st.permutations(range(3)), factors=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
def test_neither_order_nor_units_of_rows_matter(order, factors):
    mean, prior = noise(6), covariance_of("dense", (6,))
    root = noise(3, 3, seed=1)
    weights, target, spread = noise(3, 6, seed=2), noise(3, seed=3), root @ root.mT
    found = condition(mean, prior, LinearConstraint(DenseRows(weights, 1), target, covariance=spread), noise=0.1)
    scale = 10 ** torch.tensor(factors, dtype=torch.float64)
    rows = DenseRows((scale[:, None] * weights)[list(order)], 1)
    changed = (scale[:, None] * spread * scale)[list(order)][:, list(order)]
    again = condition(mean, prior, LinearConstraint(rows, (scale * target)[list(order)], covariance=changed), noise=0.1)
    assert torch.allclose(again.mean, found.mean, atol=1e-9)
    assert torch.allclose(again.covariance(), found.covariance(), atol=1e-9)


@given(
    log_unit=st.floats(-8, 8), form=st.sampled_from(["one", "volumes", "dense"]), relative=st.sampled_from([0.0, 0.2])
)
def test_relative_noise_knows_no_units(log_unit, form, relative):
    """A field in other units, with its variance and targets, has the same update in these units."""
    unit = 10**log_unit
    rows, mean, variance = rows_of(form, (6,), ()), noise(6), noise(6, seed=1).square()
    target = noise(rows.count, seed=2)
    found = condition(mean, Diagonal(variance), LinearConstraint(rows, target), relative)
    other = condition(unit * mean, Diagonal(unit**2 * variance), LinearConstraint(rows, unit * target), relative)
    assert torch.allclose(other.mean / unit, found.mean, atol=1e-10)
    assert torch.allclose(other.variance / unit**2, found.variance, atol=1e-10)
    if relative:
        left = LinearConstraint(rows, target).residual(found.mean)
        if form != "dense":
            assert torch.allclose(left, found.residual * relative**2 / (1 + relative**2))


@given(shape=shapes, seed=st.integers(0, 999), variance=st.floats(1e-3, 1e3))
def test_equal_variances_give_the_orthogonal_projection(shape, seed, variance):
    event, batch = shape
    rows = rows_of("dense", event, batch, seed)
    mean, target = noise(*batch, *event, seed=seed + 1), noise(*batch, 3, seed=seed + 2)
    found = condition(mean, Diagonal(variance), LinearConstraint(rows, target))
    matrix = rows.dense().flatten(-len(event))
    residual = (matrix @ mean.flatten(-len(event)).unsqueeze(-1)).squeeze(-1) - target
    shift = torch.linalg.pinv(matrix) @ residual.unsqueeze(-1)
    assert torch.allclose(found.mean, mean - shift.squeeze(-1).unflatten(-1, event), atol=1e-8)


@given(seed=st.integers(0, 999))
def test_pythagoras_in_the_norm_of_the_inverse_covariance(seed):
    prior, rows = covariance_of("dense", (6,), seed=seed), rows_of("dense", (6,), (), seed)
    mean, truth = noise(6, seed=seed + 1), noise(6, seed=seed + 2)
    found = condition(mean, prior, LinearConstraint(rows, rows.apply(truth)))

    def norm(vector):
        return vector @ torch.linalg.solve(prior.matrix, vector)

    whole, parts = norm(mean - truth), norm(found.mean - truth) + norm(found.mean - mean)
    assert torch.allclose(whole, parts, rtol=1e-6)


def test_what_is_uncertain_moves_and_what_is_certain_does_not():
    weights, variance = torch.tensor([1.0, 2.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 2.0, 0.0])
    constraint = LinearConstraint(DisjointRows(weights, 1), torch.tensor([5.0]))
    found = condition(torch.zeros(4), Diagonal(variance), constraint)
    assert found.mean.tolist() == pytest.approx([0, 10 / 6, 10 / 6, 0])
    assert found.variance.tolist() == pytest.approx([0, 1 - 4 / 6, 2 - 4 / 6, 0])


def test_every_control_volume_of_a_batch_has_its_own_integral_and_all_have_their_sum():
    labels = control_volumes((6, 8), (3, 2))
    weights = noise(6, 8).square()
    rows = DisjointRows(weights, 2, labels)
    mean, target = noise(4, 6, 8, seed=1), noise(4, 6, seed=2)
    prior = Diagonal(noise(4, 6, 8, seed=3).square())
    found = condition(mean, prior, LinearConstraint(rows, target))
    for volume in range(6):
        integral = (weights * found.mean * (labels == volume)).sum((-2, -1))
        assert torch.allclose(integral, target[:, volume], atol=1e-12)
    assert torch.allclose((weights * found.mean).sum((-2, -1)), target.sum(-1), atol=1e-12)


def test_points_off_the_mask_stay_as_they_are():
    mask = noise(5, 6, seed=1) > 0
    mean, prior = noise(5, 6), Diagonal(noise(5, 6, seed=2).square())
    labels = torch.where(mask, 0, -1)
    constraint = LinearConstraint(DisjointRows(torch.ones(5, 6), 2, labels), torch.ones(1))
    weighted = LinearConstraint(DisjointRows(mask.double(), 2), torch.ones(1))
    for known in (constraint, weighted):
        found = condition(mean, prior, known)
        assert torch.equal(found.mean[~mask], mean[~mask])
        assert torch.equal(found.variance[~mask], prior.variance[~mask])
        assert float(found.mean[mask].sum()) == pytest.approx(1.0)
    # Labels hide what is not known there; weights of zero do not.
    unknown = torch.where(mask, mean, torch.nan)
    assert float(condition(unknown, prior, constraint).mean[mask].sum()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="a weight of zero does not hide it"):
        condition(unknown, prior, weighted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["one", "volumes", "dense"])
@pytest.mark.parametrize("relative", [0.0, 0.5])
def test_samples_by_matherons_rule_have_the_posterior_moments_and_conserve(kind, form, relative):
    draws, event, batch = 40_000, (2, 3), (2,)
    covariance, rows = covariance_of(kind, event, batch), rows_of(form, event, batch)
    mean = noise(*batch, *event, seed=1)
    constraint = LinearConstraint(rows, noise(*batch, rows.count, seed=2))
    found = condition(mean, covariance, constraint, relative)
    samples = found.sample(draws, torch.Generator().manual_seed(0))
    assert samples.shape == (draws, *batch, *event)
    if not relative:
        assert constraint.residual(samples).abs().max() < 1e-8
    anomalies = (samples - found.mean).flatten(-2).movedim(0, -1)
    expected = found.covariance()
    scale = covariance.dense(event).diagonal(dim1=-2, dim2=-1).max()
    # Five standard errors of the prior, which are at least those of the posterior.
    assert anomalies.mean(-1).abs().max() < 5 * (scale / draws).sqrt()
    assert (anomalies @ anomalies.mT / draws - expected).abs().max() < 5 * math.sqrt(2 / draws) * scale


def test_members_are_moved_by_the_common_gain():
    members = noise(20, 6)
    prior = LowRank.of_members(members, 1, 0.1)
    exact = LinearConstraint(rows_of("dense", (6,), ()), noise(3, seed=1))
    found = condition(members.mean(0), prior, exact)
    assert exact.residual(found.shifted(members)).abs().max() < 1e-10
    assert torch.equal(found.shifted(members), found.moved(members))
    assert torch.allclose(found.shifted(members).mean(0), found.mean)
    noisy = condition(members.mean(0), prior, exact, noise=1.0)
    assert torch.allclose(noisy.shifted(members).mean(0), noisy.mean)
    with pytest.raises(ValueError, match="generator for the noise of the target"):
        noisy.moved(members)
    assert found.shifted(members.float()).dtype == torch.float32


def test_noise_of_exact_targets_in_a_singular_covariance_is_none():
    direction = noise(3, seed=1)
    constraint = LinearConstraint(
        DenseRows(noise(3, 6), 1), torch.zeros(3, dtype=torch.float64), covariance=direction[:, None] * direction
    )
    found = condition(noise(6, seed=2), Diagonal(1.0), constraint)
    left = constraint.residual(found.sample(50, torch.Generator().manual_seed(0)))
    # Only along one direction may samples miss their targets.
    across = left - (left @ direction)[:, None] * direction / direction.square().sum()
    assert across.abs().max() < 1e-12 < left.abs().max()


@pytest.mark.parametrize("form", ["one", "volumes", "dense"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_gradients_of_mean_variance_and_covariance(form, batch):
    rows = rows_of(form, (4,), ())

    def update(mean, variance, modes, target, spread):
        found = []
        for covariance in (Diagonal(variance), LowRank(variance, modes)):
            for known in (LinearConstraint(rows, target), LinearConstraint(rows, target, variance=spread)):
                result = condition(mean, covariance, known, noise=0.1)
                found += [result.mean, result.variance, result.covariance()]
        return tuple(found)

    inputs = [
        noise(*batch, 4, seed=1), noise(*batch, 4, seed=2).square() + 0.1, noise(*batch, 1, 4, seed=3),
        noise(*batch, rows.count, seed=4), noise(*batch, rows.count, seed=5).square() + 0.1,
    ]  # fmt: skip
    assert torch.autograd.gradcheck(update, [each.requires_grad_() for each in inputs])


def test_gradients_of_a_dense_and_a_fourier_covariance_and_of_weights():
    mean = noise(4).requires_grad_()
    root = noise(4, 4, seed=1).requires_grad_()
    power = (noise(4, seed=2).square() + 0.1).requires_grad_()
    weights = noise(2, 4, seed=3).requires_grad_()

    def update(mean, root, power, weights):
        constraint = LinearConstraint(DenseRows(weights, 1), torch.ones(2, dtype=torch.float64))
        single = LinearConstraint(DisjointRows(weights[0], 1), torch.ones(1, dtype=torch.float64))
        found = [condition(mean, prior, constraint) for prior in (Dense(root @ root.mT), FourierDiagonal(power))]
        found.append(condition(mean, Diagonal(power), single))
        return tuple(value for each in found for value in (each.mean, each.variance))

    assert torch.autograd.gradcheck(update, (mean, root, power, weights))


def test_with_and_without_gradients_the_update_is_the_same():
    constraint = LinearConstraint.integral(torch.linspace(0, 1, 50), torch.tensor(1.0))
    mean, prior = noise(50), Diagonal(noise(50, seed=1).square())
    tracked = condition(mean.clone().requires_grad_(), prior, constraint)
    assert tracked.mean.requires_grad
    assert torch.allclose(condition(mean, prior, constraint).mean, tracked.mean, rtol=1e-14, atol=1e-15)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["one", "volumes", "dense"])
def test_results_are_on_the_device_of_the_mean(kind, form):
    covariance = covariance_of(kind, (6,))
    for name, value in vars(covariance).items():
        setattr(covariance, name, value.cuda())
    rows = rows_of(form, (6,), ())
    target, mean = noise(rows.count, seed=1), noise(6, seed=2)
    expected = condition(mean, covariance_of(kind, (6,)), LinearConstraint(rows, target), 0.1)
    found = condition(mean.cuda(), covariance, LinearConstraint(rows.to("cuda"), target.cuda()), 0.1)
    assert found.mean.device.type == "cuda"
    assert torch.allclose(found.mean.cpu(), expected.mean)
    assert torch.allclose(found.variance.cpu(), expected.variance)
    assert found.sample(3, torch.Generator().manual_seed(0)).device.type == "cuda"


# What has no answer, or no single one.


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("kind", KINDS)
def test_dependent_rows_that_agree_are_dropped_and_reported(kind, batch):
    weights = noise(4, 6)
    weights[2] = 2 * weights[0] - weights[1]
    target = noise(*batch, 4, seed=1)
    target[..., 2] = 2 * target[..., 0] - target[..., 1]
    mean, covariance = noise(*batch, 6, seed=2), covariance_of(kind, (6,), batch)
    found = condition(mean, covariance, LinearConstraint(DenseRows(weights, 1), target))
    kept = torch.tensor([0, 1, 3])
    expected = condition(mean, covariance, LinearConstraint(DenseRows(weights[kept], 1), target[..., kept]))
    assert found.dropped is not None
    assert found.dropped.reshape(-1, 4).any(0).tolist() == found.dropped.reshape(-1, 4).all(0).tolist()
    assert found.dropped.reshape(-1, 4)[0].tolist() == [False, False, True, False]
    assert expected.dropped is None
    assert torch.allclose(found.mean, expected.mean, atol=1e-9)
    assert torch.allclose(found.covariance(), expected.covariance(), atol=1e-9)
    assert torch.allclose(found.variance, expected.variance, atol=1e-9)
    # A target in single precision is as consistent as it can be.
    rounded = LinearConstraint(DenseRows(weights, 1), (1e3 * target).float())
    assert condition(1e3 * mean, covariance, rounded).dropped is not None


def test_all_volumes_and_their_sum_are_one_row_too_many():
    volumes = LinearConstraint(
        DisjointRows(torch.ones(6), 1, control_volumes((6,), (3,))),
        torch.tensor([1.0, 2.0, 3.0]),
        names=("a", "b", "c"),
    )
    rows = DisjointRows(torch.ones(6), 1)
    found = condition(noise(6), Diagonal(1.0), joined([volumes, LinearConstraint(rows, torch.tensor([6.0]))]))
    assert found.dropped is not None
    assert found.dropped.tolist() == [False, False, False, True]
    with pytest.raises(
        ValueError, match=r"'all' follows from the rows before it.*0.5 away from theirs; correct a target"
    ):
        condition(
            noise(6), Diagonal(1.0), joined([volumes, LinearConstraint(rows, torch.tensor([6.5]), names=("all",))])
        )
    # With a variance nothing contradicts.
    noisy = LinearConstraint(rows, torch.tensor([6.5]), torch.tensor([0.1]))
    assert condition(noise(6), Diagonal(1.0), joined([volumes, noisy])).dropped is None


@given(log_unit=st.floats(-9, 9))
def test_contradictions_are_found_in_any_units(log_unit):
    unit = 10**log_unit
    weights = noise(3, 6)
    weights[2] = weights[1]
    weights[0] *= 1 / unit
    target = torch.tensor([5 / unit, 1.0, 1.001], dtype=torch.float64)
    constraint = LinearConstraint(DenseRows(weights, 1), target, names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"'c' follows from the rows before it and its target is 0.001 away"):
        condition(noise(6, seed=1), Diagonal(1.0), constraint)


@pytest.mark.parametrize("form", ["disjoint", "dense"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_rows_without_any_variance_are_refused_unless_they_are_met(form, batch):
    variance = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64).expand(*batch, 4)
    rows = DisjointRows(torch.ones(4), 1, torch.tensor([0, 0, 1, 1]))
    rows = rows if form == "disjoint" else DenseRows(rows.dense(), 1)
    mean = torch.tensor([1.0, 1.0, 0.1, 0.2]).expand(*batch, 4)
    with pytest.raises(
        ValueError, match=r"'outlet' is 0.7 away.*no variance where it has its weights; give the variance"
    ):
        condition(mean, Diagonal(variance), LinearConstraint(rows, torch.tensor([1.0, 1.0]), names=("inlet", "outlet")))
    met = LinearConstraint(rows, torch.tensor([1.0, 0.3]))
    found = condition(mean, Diagonal(variance), met)
    assert found.dropped is not None
    assert found.dropped.expand(*batch, 2).reshape(-1, 2)[0].tolist() == [False, True]
    assert torch.equal(found.mean, torch.tensor([0.5, 0.5, 0.1, 0.2]).expand(*batch, 4))
    assert torch.allclose(found.variance, torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64))
    assert not found.covariance()[..., 2:, :].any()
    # Relative noise is none of nothing; a variance of the target is some.
    with pytest.raises(ValueError, match="no variance where it has its weights"):
        condition(mean, Diagonal(variance), LinearConstraint(rows, torch.ones(2)), noise=0.1)
    noisy = LinearConstraint(rows, torch.ones(2), torch.ones(2))
    assert torch.allclose(condition(mean, Diagonal(variance), noisy).mean[..., 2:], mean[..., 2:])


def test_a_row_across_which_waves_have_no_power_cannot_move():
    power = torch.ones(8)
    power[0] = 0
    constraint = LinearConstraint(DisjointRows(torch.ones(8), 1), torch.ones(1), names=("mean",))
    with pytest.raises(ValueError, match=r"'mean' is .* no variance where it has its weights"):
        condition(noise(8), FourierDiagonal(power), constraint)


def test_every_bad_input_has_its_message():
    mean, prior = noise(3, 6), Diagonal(1.0)
    rows = DenseRows(noise(2, 6), 1)
    constraint = LinearConstraint(rows, torch.zeros(2), names=("mass", "energy"))
    broken = mean.clone()
    broken[1, 2] = math.nan
    cases = [
        (broken, prior, constraint, 0.0, "finite mean but that in 'mass' holds NaN or infinity; stop the rollout"),
        (mean, prior, constraint, -0.1, "noise of at least zero.*got -0.1"),
        (mean, prior, constraint, math.nan, "finite noise"),
        (mean, prior, constraint, math.inf, "finite noise"),
        (noise(3, 5), prior, constraint, 0.0, r"values \(..., 6\).*got \(3, 5\)"),
        (mean, Diagonal(torch.ones(5)), constraint, 0.0, r"variances \(..., 6\)"),
        (mean, Dense(torch.eye(5)), constraint, 0.0, "covariance of 6 unknowns"),
        (mean, Diagonal(torch.ones(4, 6)), constraint, 0.0, r"\(3,\) of the mean and target.*\(4,\) of the covariance"),
        (
            mean,
            prior,
            constraint.with_target(torch.zeros(4, 2)),
            0.0,
            r"\(4,\) of the constraint, \(3,\) of the values",
        ),
    ]
    for values, covariance, known, amount, message in cases:
        with pytest.raises(ValueError, match=message):
            condition(values, covariance, known, amount)
    # Only the volume that holds it is named.
    volumes = DisjointRows(torch.ones(6), 1, control_volumes((6,), (3,)))
    with pytest.raises(ValueError, match="'b' holds NaN"):
        condition(broken, prior, LinearConstraint(volumes, torch.zeros(3), names=("a", "b", "c")))


def test_one_mean_may_have_a_batch_of_covariances_and_targets():
    rows = rows_of("dense", (6,), ())
    for kind in KINDS:
        covariance = covariance_of(kind, (6,), (4,))
        found = condition(noise(6), covariance, LinearConstraint(rows, noise(4, 3)))
        assert found.mean.shape == (4, 6)
    single = DisjointRows(noise(6), 1)
    prior = Diagonal(noise(6, seed=1).square())
    assert condition(noise(6), prior, LinearConstraint(single, noise(1, 1))).mean.shape == (1, 6)
    assert condition(noise(6), prior, LinearConstraint(single, noise(4, 1))).mean.shape == (4, 6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex128])
def test_values_that_are_no_floating_point_are_refused(dtype):
    constraint = LinearConstraint(DisjointRows(torch.ones(3), 1), torch.ones(1))
    values = torch.ones(2, 3).to(dtype)
    with pytest.raises(ValueError, match="Expected mean in floating point but got torch"):
        condition(values, Diagonal(1.0), constraint)
    found = condition(noise(3), Diagonal(1.0), constraint)
    with pytest.raises(ValueError, match="samples in floating point"):
        found.moved(values)
    with pytest.raises(ValueError, match="members in floating point"):
        found.shifted(values)


@pytest.mark.parametrize("form", ["disjoint", "dense"])
@pytest.mark.parametrize("least", [1e-320, 1e-305])
def test_variances_that_overflow_when_inverted_are_none(form, least):
    variance = torch.tensor([1.0, 1.0, least, least], dtype=torch.float64)
    rows = DisjointRows(torch.ones(4), 1, torch.tensor([0, 0, 1, 1]))
    rows = rows if form == "disjoint" else DenseRows(rows.dense(), 1)
    mean = torch.tensor([1.0, 1.0, 0.25, 0.5], dtype=torch.float64)
    found = condition(mean, Diagonal(variance), LinearConstraint(rows, torch.tensor([1.0, 0.75])))
    assert found.dropped is not None
    assert found.dropped.tolist() == [False, True]
    assert torch.allclose(found.mean[:2], torch.tensor(0.5).double(), rtol=1e-15)
    assert torch.equal(found.mean[2:], mean[2:])
    assert torch.isfinite(found.variance).all()
    with pytest.raises(ValueError, match=r"'wall' is 1e\+06 away.*no variance where it has its weights"):
        condition(mean, Diagonal(variance), LinearConstraint(rows, torch.tensor([1.0, 1e6]), names=("in", "wall")))

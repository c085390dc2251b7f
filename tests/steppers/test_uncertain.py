"""Sources of mean and variance: each says what theory says it should, in physical units, behind one interface."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.suites import default_suite
from pdesurrogate.metrics.uncertainty import coverage_gaussian
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.heads import DiverseHeads, GaussianHead, QuantileHead, WithDropout
from pdesurrogate.models.specification import recorded
from pdesurrogate.physics.conservation.laws import KeptMeans
from pdesurrogate.steppers.base import ProbabilisticStepper
from pdesurrogate.steppers.ensemble import Ensemble, EnsembleStepper, PerturbedStarts, ProbabilisticEnsemble
from pdesurrogate.steppers.laplace import LastLayerLaplace
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.probconserv import ProbConservEnsemble, ProbConservPredicted
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import ProbabilisticSurrogate, Surrogate, surrogate_of
from pdesurrogate.steppers.uncertain import CorrelatedStepper, EnsembleMoments, MonteCarloDropout
from pdesurrogate.steppers.wrappers import wrapped, wrappers_from, wrappers_of

SQUARE = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
METADATA = Metadata("example", SQUARE, (Channel("height"), Channel("tracer")), frame_interval=0.1)
INSIDE = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 6, "layers": 2}}
CALIBRATED = (0.5, 0.8, 0.95)


def context(batch=2, size=8, **rest) -> Context:
    return Context(tuple(line.expand(batch, -1) for line in SQUARE.uniform_coordinates((size, size))), **rest)


def start(batch=2, frames=1, size=8):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, frames, 2, size, size, generator=generator), context(batch, size)


def with_units(surrogate):
    """Units of its own for every channel, so that a forgotten scale shows."""
    surrogate.normalizer.set_statistics(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5]))
    surrogate.increment_rms.copy_(torch.tensor([0.3, 0.1]))
    return surrogate.eval()


def headed(head=GaussianHead, target="state", seed=0, **options):
    torch.manual_seed(seed)
    return with_units(surrogate_of(head(INSIDE, channels=2, **options), METADATA, target=target))


def plain(seed=0, target="state"):
    torch.manual_seed(seed)
    return with_units(Surrogate(FNO(channels=2, modes=(4, 4), width=6, layers=2), METADATA, target=target))


def dropping(members=4, seed=0, probability=None, network=WithDropout, after=("blocks.0", "blocks.1")):
    torch.manual_seed(0)
    surrogate = Surrogate(network(INSIDE, channels=2, after=after, probability=0.3), METADATA)
    return MonteCarloDropout(with_units(surrogate), members, seed, probability)


# Heads behind a surrogate.


@pytest.mark.parametrize("head", [GaussianHead, QuantileHead, DiverseHeads])
@pytest.mark.parametrize("target", ["state", "increment", "convected_increment"])
def test_a_head_predicts_in_physical_units(head, target):
    surrogate = headed(head, target, target_frames=2)
    if target == "convected_increment":
        surrogate.fit_profile_to((8, 8))
        surrogate.convection.copy_(torch.tensor([0.3, -0.2]).reshape(2, 1, 1))
    history, given = start()
    with torch.no_grad():
        mean, variance = surrogate.predict(history, given)
        moments = surrogate.moments(history, given)
        question = surrogate.question(history, given)
        raw = surrogate.network.distribution(question.frames)
    scale = torch.tensor([2.0, 0.5] if target == "state" else [0.3, 0.1]).reshape(2, 1, 1)
    torch.testing.assert_close(variance, raw.variance * scale.square())
    torch.testing.assert_close(mean, surrogate.step(history, given).detach())
    torch.testing.assert_close(moments.marginal_variance, variance)
    assert mean.shape == variance.shape == (2, 2, 2, 8, 8)


def test_only_what_states_a_variance_is_probabilistic():
    gaussian = headed()
    ensemble = Ensemble([plain(0), plain(1)])
    assert isinstance(gaussian, ProbabilisticSurrogate)
    assert not isinstance(plain(), ProbabilisticStepper)
    for stepper in (gaussian, EnsembleMoments(ensemble), LastLayerLaplace(plain())):
        assert isinstance(stepper, ProbabilisticStepper)
        assert isinstance(stepper, CorrelatedStepper)
    # An ensemble has members times trajectories in its batch: it is no source of one variance each.
    for stepper in (ensemble, dropping(), PerturbedStarts(gaussian, 3, 0.1)):
        assert isinstance(stepper, ProbabilisticEnsemble)
        assert isinstance(stepper, EnsembleStepper)
        assert not isinstance(stepper, ProbabilisticStepper)


@pytest.mark.parametrize("head", [GaussianHead, QuantileHead, DiverseHeads])
def test_a_checkpoint_gives_the_head_back(head, tmp_path):
    surrogate = headed(head, "increment")
    found = Surrogate.from_checkpoint(surrogate.save(tmp_path / "model.pt"))
    assert isinstance(found, ProbabilisticSurrogate)
    for one, other in zip(found.predict(*start()), surrogate.predict(*start()), strict=True):
        assert torch.equal(one, other)


def test_a_network_without_a_head_predicts_no_distribution():
    with pytest.raises(
        ValueError, match=r"predicts a distribution but a FNO does not; put one of pdesurrogate\.models"
    ):
        ProbabilisticSurrogate(FNO(channels=2, modes=(4, 4), width=4, layers=1), METADATA)


def test_an_evaluation_measures_the_variance(waves):
    torch.manual_seed(0)
    metadata = waves.metadata
    gaussian = surrogate_of(GaussianHead(INSIDE, channels=1), metadata)
    plain_one = Surrogate(FNO(channels=1, modes=(4, 4), width=4, layers=1), metadata)
    for stepper in (gaussian, EnsembleMoments(Ensemble([gaussian, plain_one])), LastLayerLaplace(plain_one)):
        if isinstance(stepper, LastLayerLaplace):
            frames = torch.stack([one.read(0, 8) for one in waves.trajectories("train")])
            lines = waves.trajectories("train")[0].context.coordinates
            given = Context(tuple(line.expand(6, -1) for line in lines))
            stepper.fit([Batch(frames[:, 3:4], frames[:, 4:5], given)])
        report = Evaluator(default_suite)(stepper, waves.trajectories("test"), frames=3)
        assert math.isfinite(report.attributes["scores"]["gaussian_crps"]["value"])
    network = WithDropout(INSIDE, channels=1, after=["blocks.0"])
    members = MonteCarloDropout(Surrogate(network, metadata), members=4)
    reports = [Evaluator(default_suite)(members, waves.trajectories("test"), frames=3) for _ in range(2)]
    found = [report.attributes["scores"]["ensemble_crps"]["value"] for report in reports]
    assert math.isfinite(found[0])
    assert found[0] == found[1]


# Ensembles.


def test_the_law_of_total_variance():
    members = [headed(seed=seed) for seed in range(4)]
    history, given = start()
    with torch.no_grad():
        predicted = [member.predict(history, given) for member in members]
        means, variances = (torch.stack(part) for part in zip(*predicted, strict=True))
        mixed = EnsembleMoments(Ensemble(members))
        mean, variance = mixed.predict(history, given)
        assert torch.equal(mixed.step(history, given), mean)
    torch.testing.assert_close(mean, means.mean(0))
    torch.testing.assert_close(variance, variances.mean(0) + means.var(0))


def test_members_that_state_no_variance_add_none():
    members = [headed(seed=0), plain(1), plain(2)]
    history, given = start()
    with torch.no_grad():
        found = EnsembleMoments(Ensemble(members)).moments(history, given)
        own = members[0].predict(history, given)[1]
    torch.testing.assert_close(found.variance, own / 3)


@pytest.mark.parametrize("kind", ["networks", "starts", "dropout"])
def test_modes_are_the_unbiased_covariance_of_the_members(kind):
    ensemble = {
        "networks": lambda: Ensemble([plain(seed) for seed in range(5)]),
        "starts": lambda: PerturbedStarts(plain(), 5, 0.1),
        "dropout": lambda: dropping(5),
    }[kind]().double()
    history, given = start(size=8)
    history = history.double()
    with torch.no_grad():
        members = ensemble.fold(ensemble.step(*ensemble.spread(history, given)))
        found = EnsembleMoments(ensemble).moments(history, given)
    assert found.modes.shape == (2, 5, 1, 2, 8, 8)
    for sample in range(2):
        modes = found.modes[sample].flatten(1)
        torch.testing.assert_close(modes.T @ modes, torch.cov(members[:, sample].flatten(1).T))
    assert not found.variance.any()


def test_a_floor_gives_variance_where_all_members_agree():
    history, given = start()
    agreeing = Ensemble([Persistence(), Persistence()])
    assert not EnsembleMoments(agreeing).predict(history, given)[1].any()
    ensemble = Ensemble([plain(seed) for seed in range(3)])
    with torch.no_grad():
        without = EnsembleMoments(ensemble).moments(history, given)
        found = EnsembleMoments(ensemble, floor=0.1).moments(history, given)
    size = without.marginal_variance.mean((3, 4), keepdim=True)
    torch.testing.assert_close(found.variance, (0.01 * size).expand_as(found.variance))
    assert torch.equal(found.modes, without.modes)
    with pytest.raises(ValueError, match=r"floor that is not negative but got -1\.0"):
        EnsembleMoments(ensemble, floor=-1.0)


def test_a_rollout_of_moments_goes_on_from_the_mean():
    mixed = EnsembleMoments(Ensemble([plain(seed) for seed in range(3)]))
    history, given = start()
    assert mixed.history_frames == 1
    assert mixed.metadata == METADATA
    with torch.no_grad():
        first, second = rollout(mixed, history, given, frames=2)
        assert torch.equal(first, mixed.step(history, given))
        assert torch.equal(second, mixed.step(first, given))


class Stated:
    """A stepper that predicts what it is told."""

    history_frames = 1

    def __init__(self, mean, variance) -> None:
        self.mean, self.variance = mean, variance

    def step(self, history, given):
        return self.mean

    def predict(self, history, given):
        return self.mean, self.variance


def test_coverage_of_an_ensemble_that_is_right_is_its_level():
    generator = torch.Generator().manual_seed(0)
    count, between, within = 20, 1.5, 0.8
    # The truth is one more member, with the noise that all of them state.
    drawn = between * torch.randn(count + 1, 1, 1, 2, 150, 150, generator=generator)
    truth = drawn[0] + within * torch.randn(drawn[0].shape, generator=generator)
    variance = torch.full_like(truth, within**2)
    mixed = EnsembleMoments(Ensemble([Stated(mean, variance) for mean in drawn[1:]]))
    mean, found = mixed.predict(truth, context(1, 150))
    assert found.mean().item() == pytest.approx(between**2 + within**2, rel=0.01)
    inside = coverage_gaussian(mean, found, truth, CALIBRATED).flatten(1).mean(1)
    # The mean of the members has an error too: that narrows intervals by 1.9 % here, and their variance is scattered.
    torch.testing.assert_close(inside, torch.tensor(CALIBRATED), rtol=0, atol=0.02)
    # What members state by themselves is not enough, nor is how far they are apart.
    for part in (torch.full_like(found, within**2), found - within**2):
        alone = coverage_gaussian(mean, part, truth, CALIBRATED).flatten(1).mean(1)
        assert (alone < torch.tensor(CALIBRATED) - 0.02).all()


# Dropout.


def test_dropout_is_the_same_in_every_rerun_and_touches_no_other_random_numbers():
    history, given = start()
    ensemble = dropping()
    assert isinstance(ensemble, EnsembleStepper)
    with torch.no_grad():
        torch.manual_seed(1)
        once = ensemble.step(*ensemble.spread(history, given))
        state = torch.get_rng_state()
        torch.manual_seed(2)
        again = dropping().step(*ensemble.spread(history, given))
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)
        other = dropping(seed=1).step(*ensemble.spread(history, given))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    members = ensemble.fold(once)
    assert all(not torch.equal(members[0], member) for member in members[1:])


def test_a_member_is_one_network_in_every_batch_and_at_every_step():
    history, given = start(batch=3)
    ensemble = dropping(members=3)
    with torch.no_grad():
        together = ensemble.fold(ensemble.step(*ensemble.spread(history, given)))
        alone = ensemble.fold(ensemble.step(*ensemble.spread(history[1:2], context(1))))
        torch.testing.assert_close(alone[:, 0], together[:, 1])
        twice = ensemble.fold(ensemble.step(*ensemble.spread(history, given)))
    assert torch.equal(twice, together)


def test_members_lack_whole_channels_and_the_rest_makes_up_for_them():
    seen = []
    ensemble = dropping(members=50, probability=0.25, after=["blocks.0"]).double()
    inner = ensemble.stepper.network.network
    inner.blocks[1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    history, given = start(batch=1)
    with torch.no_grad():
        ensemble.step(*ensemble.spread(history.double(), given))
        ensemble.stepper.step(history.double(), given)
    dropped, kept = seen
    lacking = (dropped == 0).flatten(2).all(2)
    expected = torch.where(lacking[..., None, None], 0, kept / 0.75)
    torch.testing.assert_close(dropped, expected)
    assert lacking.double().mean().item() == pytest.approx(0.25, abs=0.1)  # 300 channels, four deviations


@recorded
class Thinned(nn.Module):
    """The sum of many equal channels, some of which are dropped: a variance that is known."""

    def __init__(self, kind="Dropout", width=40, probability=0.2, called=True) -> None:
        super().__init__()
        self.width, self.called = width, called
        self.dropout = getattr(nn, kind)(probability)

    def forward(self, history):
        frame = history[:, -1:].expand(-1, self.width, -1, -1, -1).movedim(2, 0)
        channels = [self.dropout(part).sum(1, keepdim=True) if self.called else part[:, :1] for part in frame]
        return torch.stack(channels, 2)


@pytest.mark.parametrize("kind", ["Dropout", "Dropout2d"])
def test_variance_of_dropout_is_that_of_the_binomial_distribution(kind):
    ensemble = MonteCarloDropout(Surrogate(Thinned(kind), METADATA), members=2000)
    history, given = start(batch=1, size=2)
    mean, variance = EnsembleMoments(ensemble).predict(history, given)
    # width * x^2 * p / (1 - p), with a standard error of sqrt(2 / 2000).
    torch.testing.assert_close(variance, 40 * history.square() * 0.25, rtol=0.15, atol=0)
    deviation = (40 * history.square() * 0.25 / 2000).sqrt()
    assert ((mean - 40 * history).abs() < 5 * deviation).all()


def test_gradients_go_through_members_that_were_drawn_in_inference_mode():
    history, given = start()
    ensemble = dropping()
    with torch.inference_mode():
        inferred = ensemble.step(*ensemble.spread(history, given))
    history.requires_grad_()
    members = ensemble.step(*ensemble.spread(history, given))
    members.square().sum().backward()
    torch.testing.assert_close(members.detach(), inferred.clone())
    assert bool(history.grad.any())
    assert bool(torch.isfinite(history.grad).all())


def test_layers_of_dropout_do_what_they_did_once_a_step_is_over():
    ensemble = dropping()
    history, given = start()
    with torch.no_grad():
        before = ensemble.stepper.step(history, given)
        ensemble.step(*ensemble.spread(history, given))
        assert torch.equal(ensemble.stepper.step(history, given), before)
        with pytest.raises(ValueError, match="channels"):
            ensemble.step(history[:, :, :1].repeat(4, 1, 1, 1, 1), given)
        assert torch.equal(ensemble.stepper.step(history, given), before)


def test_dropout_of_a_network_with_a_head_has_both_variances():
    torch.manual_seed(0)
    inside = {
        "class_path": "pdesurrogate.models.heads.WithDropout",
        "init_args": {"network": INSIDE, "after": ["blocks.0"], "probability": 0.3},
    }
    surrogate = with_units(surrogate_of(GaussianHead(inside, channels=2), METADATA))
    ensemble = MonteCarloDropout(surrogate, members=6)
    history, given = start()
    with torch.no_grad():
        means, variances = (ensemble.fold(each) for each in ensemble.predict_members(*ensemble.spread(history, given)))
        found = EnsembleMoments(ensemble).predict(history, given)[1]
    assert bool((variances > 0).all())
    torch.testing.assert_close(found, variances.mean(0) + means.var(0))


def test_dropout_and_its_moments_are_wrappers_in_plain_values():
    history, given = start()
    mixed = EnsembleMoments(dropping(members=3, seed=7), floor=0.1)
    described = wrappers_of(mixed)
    assert [each["init_args"] for each in described] == [
        {"members": 3, "seed": 7, "probability": None},
        {"floor": 0.1},
    ]
    again = wrapped(mixed.stepper.stepper, wrappers_from(described))
    with torch.no_grad():
        assert torch.equal(again.step(history, given), mixed.step(history, given))
    with pytest.raises(ValueError, match="Expected an ensemble but a Surrogate is none; use Ensemble"):
        EnsembleMoments(plain())


def test_dropout_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"with dropout but the Surrogate has none that .*heads\.WithDropout"):
        MonteCarloDropout(plain(), members=4)
    with pytest.raises(ValueError, match="network with dropout but the Persistence has none"):
        MonteCarloDropout(Persistence(), members=4)
    with pytest.raises(ValueError, match="has none that drops anything"):
        MonteCarloDropout(Surrogate(Thinned(probability=0.0), METADATA), members=4)
    with pytest.raises(ValueError, match="at least two members but got 1"):
        dropping(members=1)
    with pytest.raises(ValueError, match=r"within \(0, 1\) but got 1\.5"):
        dropping(probability=1.5)
    ensemble = dropping(members=4)
    with pytest.raises(ValueError, match="batch of 4 members times trajectories but got 2"):
        ensemble.step(*start())
    aside = MonteCarloDropout(Surrogate(Thinned(called=False), METADATA), members=2)
    with pytest.raises(ValueError, match="no such layer was called: all members agree"):
        aside.step(*start())


# The last layer.


@recorded
class Polynomial(nn.Module):
    """``theta . (1, x, x^2, x^3)`` of each channel: linear in its weights, with features that are known."""

    def __init__(self, frames: int = 1) -> None:
        super().__init__()
        self.frames = frames
        self.last = nn.Conv2d(6, 2 * frames, 1)

    def forward(self, history):
        values = history[:, -1]
        frames = self.last(torch.cat([values, values**2, values**3], 1))
        return frames.unflatten(1, (self.frames, 2))


def features_of(history):
    values = history[:, -1].double()
    columns = torch.cat([values, values**2, values**3, torch.ones_like(values[:, :1])], 1)
    return columns.movedim(1, -1).flatten(0, -2)


def ridge(noise=0.3, precision=2.0, batch=30, size=4, seed=0):
    """A linear surrogate at its exact posterior mean, and the windows that it comes from."""
    generator = torch.Generator().manual_seed(seed)
    history = torch.randn(batch, 1, 2, size, size, generator=generator)
    phi = features_of(history)
    theta = torch.randn(2, 7, generator=generator, dtype=torch.float64) / math.sqrt(precision)
    target = phi @ theta.T + noise * torch.randn(len(phi), 2, generator=generator, dtype=torch.float64)
    posterior = phi.T @ phi / noise**2 + precision * torch.eye(7, dtype=torch.float64)
    mean = torch.linalg.solve(posterior, phi.T @ target / noise**2).T
    network = Polynomial()
    with torch.no_grad():
        network.last.weight.copy_(mean[:, :6, None, None])
        network.last.bias.copy_(mean[:, 6])
    frames = target.T.reshape(2, batch, size, size).movedim(0, 1).float()
    return network, Batch(history, frames[:, None], context(batch, size)), phi, target, theta


def test_the_posterior_of_a_linear_model_is_the_exact_one():
    network, batch, phi, *_ = ridge()
    laplace = LastLayerLaplace(Surrogate(network, METADATA).double()).fit([batch])
    history, given = start(size=4)
    history = history.double()
    _, variance = laplace.predict(history, given)
    moments = laplace.moments(history, given)
    new = features_of(history)
    for channel in range(2):
        noise, precision = float(laplace.noise_variance[channel]), float(laplace.prior_precision[channel])
        covariance = torch.linalg.inv(phi.T @ phi / noise + precision * torch.eye(7, dtype=torch.float64))
        expected = new @ covariance @ new.T
        found = variance[:, 0, channel].flatten().double()
        torch.testing.assert_close(found, expected.diagonal() + noise)
        modes = moments.modes[:, :, 0, channel].movedim(1, -1).flatten(0, -2)
        # Points of one sample share their modes, and so do those of two samples.
        torch.testing.assert_close(modes @ modes.T, expected)
        torch.testing.assert_close(moments.variance[:, 0, channel], torch.full_like(moments.variance[:, 0, 0], noise))
    between = moments.modes[:, :, 0, 0].flatten(2).mT @ moments.modes[:, :, 0, 1].flatten(2)
    assert not between.any()  # channels have weights of their own
    torch.testing.assert_close(moments.marginal_variance, variance)


def test_evidence_at_the_posterior_mean_is_the_exact_marginal_likelihood():
    network, batch, phi, target, _ = ridge(noise=0.3, precision=2.0)
    laplace = LastLayerLaplace(Surrogate(network, METADATA).double()).fit([batch])
    laplace.noise_variance.fill_(0.3**2)
    laplace.prior_precision.fill_(2.0)
    covariance = phi @ phi.T / 2.0 + 0.3**2 * torch.eye(len(phi), dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(len(phi), dtype=torch.float64), covariance)
    torch.testing.assert_close(laplace.log_evidence(), exact.log_prob(target.T), rtol=1e-6, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_noise_and_precision_maximize_the_evidence(temperature):
    network, batch, *_ = ridge()
    laplace = LastLayerLaplace(Surrogate(network, METADATA).double(), temperature).fit([batch])
    best = laplace.log_evidence()
    for hyper in (laplace.noise_variance, laplace.prior_precision):
        for factor in (0.98, 1.02):
            hyper *= factor
            assert (laplace.log_evidence() < best).all()
            hyper /= factor
    torch.testing.assert_close(laplace.noise_variance.sqrt(), torch.full((2,), 0.3).double(), rtol=0.1, atol=0)


def test_coverage_of_the_last_layer_is_its_level():
    inside = []
    for seed in range(40):
        # So few points that the weights matter as much as the noise.
        network, batch, *_, theta = ridge(noise=0.5, precision=1.0, batch=4, size=2, seed=seed)
        laplace = LastLayerLaplace(Surrogate(network, METADATA).double()).fit([batch])
        generator = torch.Generator().manual_seed(1000 + seed)
        history = torch.randn(50, 1, 2, 4, 4, generator=generator, dtype=torch.float64)
        laplace.noise_variance.fill_(0.25)
        laplace.prior_precision.fill_(1.0)
        mean, variance = laplace.predict(history, context(50, 4))
        truth = (features_of(history) @ theta.T).T.reshape(2, 50, 4, 4).movedim(0, 1)[:, None]
        truth = truth + 0.5 * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
        inside.append(coverage_gaussian(mean, variance, truth, CALIBRATED).flatten(1).mean(1))
        noise_alone = coverage_gaussian(mean, torch.full_like(mean, 0.25), truth, CALIBRATED).flatten(1).mean(1)
        inside[-1] = torch.stack([inside[-1], noise_alone])
    found, without = torch.stack(inside).mean(0)
    torch.testing.assert_close(found, torch.tensor(CALIBRATED).double(), rtol=0, atol=0.02)
    assert (without < found - 0.05).all()


def test_temperature_undoes_points_that_are_counted_several_times():
    network, batch, *_ = ridge()
    once = LastLayerLaplace(Surrogate(network, METADATA)).fit([batch])
    four = LastLayerLaplace(Surrogate(network, METADATA), temperature=4.0).fit([batch] * 4)
    for name in ("noise_variance", "prior_precision"):
        torch.testing.assert_close(getattr(four, name), getattr(once, name))
    torch.testing.assert_close(four.log_evidence(), once.log_evidence())
    torch.testing.assert_close(four.predict(*start(size=4)), once.predict(*start(size=4)))


NETWORKS = {
    "fno": lambda frames: FNO(channels=2, target_frames=frames, modes=(4, 4), width=6, layers=2),
    "polynomial": Polynomial,
}


@pytest.mark.parametrize("target", ["state", "increment"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_posterior_changes_no_forecast_and_scales_with_the_units(name, target):
    torch.manual_seed(0)
    network = NETWORKS[name](2)
    surrogate = with_units(Surrogate(network, METADATA, target=target))
    generator = torch.Generator().manual_seed(3)
    history = torch.randn(40, 1, 2, 8, 8, generator=generator)
    batch = Batch(history, torch.randn(40, 3, 2, 8, 8, generator=generator), context(40))
    laplace = LastLayerLaplace(surrogate).fit([batch._replace(history=history[:10], target=batch.target[:10],
                                                              context=context(10)),
                                               batch._replace(history=history[10:], target=batch.target[10:],
                                                              context=context(30))])  # fmt: skip
    mean, variance = laplace.predict(*start())
    assert torch.equal(mean, surrogate.step(*start()))
    assert torch.equal(laplace.step(*start()), mean)
    torch.testing.assert_close(laplace.moments(*start()).marginal_variance, variance)
    # All of the noise is what the network misses.
    with torch.no_grad():
        missed = (batch.target[:, :2] - surrogate.step(history, context(40))).square().mean((0, 3, 4)).flatten()
    scale = torch.tensor([2.0, 0.5] if target == "state" else [0.3, 0.1]).repeat(2)
    torch.testing.assert_close(laplace.noise_variance.float() * scale.square(), missed, rtol=0.02, atol=0)
    again = LastLayerLaplace(surrogate)
    again.load_state_dict(laplace.state_dict())
    torch.testing.assert_close(again.predict(*start())[1], variance, rtol=0, atol=0)


def test_points_outside_a_mask_do_not_count():
    network, batch, *_ = ridge()
    mask = torch.ones(30, 4, 4, dtype=torch.bool)
    mask[:, 1] = False
    spoiled = batch.target.clone()
    spoiled[:, :, :, 1] = 100.0
    found = LastLayerLaplace(Surrogate(network, METADATA)).fit(
        [batch._replace(target=spoiled, context=batch.context._replace(mask=mask))]
    )
    assert float(found.observations) == 30 * 12
    assert (found.noise_variance < 0.2).all()


@recorded
class Squashed(nn.Module):
    """A network that does something after its last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 2, 1)

    def forward(self, history):
        return self.last(history[:, -1]).tanh()[:, None]


def test_what_has_no_posterior_is_refused():
    network, batch, *_ = ridge()
    with pytest.raises(ValueError, match=r"positive temperature but got 0\.0"):
        LastLayerLaplace(plain(), temperature=0.0)
    with pytest.raises(ValueError, match="ends in a linear layer but a Thinned has none"):
        LastLayerLaplace(Surrogate(Thinned(), METADATA))
    with pytest.raises(ValueError, match="Expected a posterior but there is none yet; fit it"):
        LastLayerLaplace(plain()).predict(*start())
    with pytest.raises(ValueError, match="layer 'last' gives but that gives something else; name its last layer"):
        LastLayerLaplace(Surrogate(Squashed(), METADATA)).fit([batch])
    with pytest.raises(ValueError, match="layer 'lifting' gives but that gives something else"):
        LastLayerLaplace(plain(), last_layer="lifting").fit([batch])
    with pytest.raises(ValueError, match="more than 7 points, one for each feature times the temperature, but got 4"):
        LastLayerLaplace(Surrogate(network, METADATA)).fit(
            [Batch(batch.history[:1, ..., :2, :2], batch.target[:1, ..., :2, :2], context(1, 2))]
        )
    with pytest.raises(ValueError, match="windows with 2 target frames, as the network gives, but got 1"):
        LastLayerLaplace(Surrogate(Polynomial(frames=2), METADATA)).fit([batch])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["history", "target"])
def test_windows_that_are_not_finite_leave_no_posterior_and_are_named(part, value):
    network, batch, *_ = ridge()
    laplace = LastLayerLaplace(Surrogate(network, METADATA)).fit([batch])
    before = {name: buffer.clone() for name, buffer in laplace.named_buffers()}
    frames = getattr(batch, part).clone()
    frames[[3, 7], 0, 1, 2, 0] = value
    broken = batch._replace(**{part: frames})
    with pytest.raises(ValueError, match=r"batch 1, counted from zero, are not in its windows \[3, 7\]; leave"):
        laplace.fit([batch, broken])
    assert all(torch.equal(buffer, before[name]) for name, buffer in laplace.named_buffers())
    # What lies outside the mask has no say, whatever it holds.
    mask = torch.ones(30, 4, 4, dtype=torch.bool)
    mask[:, 2, 0] = False
    masked = batch._replace(context=batch.context._replace(mask=mask))
    whole = LastLayerLaplace(Surrogate(network, METADATA)).fit([masked])
    found = laplace.fit([masked._replace(**{part: frames})])
    torch.testing.assert_close(found.noise_variance, whole.noise_variance)
    torch.testing.assert_close(found.prior_precision, whole.prior_precision)


# All of them, before a conservation law.


def fitted_laplace():
    history, given = start(batch=20)
    return LastLayerLaplace(plain()).fit([Batch(history, noise_like(history), given)])


def noise_like(frames):
    return torch.randn(frames.shape, generator=torch.Generator().manual_seed(8))


SOURCES = {
    "gaussian head": headed,
    "quantile head": lambda: headed(QuantileHead),
    "diverse heads": lambda: headed(DiverseHeads),
    "deep ensemble": lambda: EnsembleMoments(Ensemble([headed(seed=0), plain(1), plain(2)])),
    "perturbed starts": lambda: EnsembleMoments(PerturbedStarts(plain(), 4, 0.1)),
    "dropout": lambda: EnsembleMoments(dropping()),
    "last layer": fitted_laplace,
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_can_be_conditioned_on_a_law(name):
    source = SOURCES[name]()
    law = KeptMeans(of=["height"])
    history, given = start()
    with torch.no_grad():
        mean, variance = source.predict(history, given)
        kept, narrowed = ProbConservPredicted(source, law, floor=0.0, metadata=METADATA).predict(history, given)
        moments = source.moments(history, given)
    torch.testing.assert_close(kept.mean((3, 4))[..., 0], history.mean((3, 4))[..., 0], rtol=0, atol=1e-5)
    assert torch.equal(kept[:, :, 1], mean[:, :, 1])  # of which nothing is known
    # The first row of the formula: a point moves as much as it is uncertain, alone and with the others.
    with_mean = moments.variance[:, :, 0]
    if moments.modes is not None:
        modes = moments.modes[:, :, :, 0]
        with_mean = with_mean + (modes * modes.sum((3, 4), keepdim=True)).sum(1)
    share = with_mean / with_mean.mean((2, 3), keepdim=True)
    missing = (history - mean).mean((3, 4))[..., 0]
    moved = kept[:, :, 0] - mean[:, :, 0]
    torch.testing.assert_close(moved, share * missing[..., None, None], rtol=1e-3, atol=1e-5)
    assert (narrowed <= variance * (1 + 1e-5)).all()
    torch.testing.assert_close(moments.mean, mean)
    torch.testing.assert_close(moments.marginal_variance, variance)


@pytest.mark.parametrize("kind", ["networks", "dropout"])
def test_members_are_conditioned_by_the_covariance_of_all(kind):
    ensemble = dropping() if kind == "dropout" else Ensemble([plain(seed) for seed in range(3)])
    conserving = ProbConservEnsemble(ensemble, KeptMeans(of=["height"]), metadata=METADATA)
    history, given = start()
    with torch.no_grad():
        members = conserving.fold(conserving.step(*conserving.spread(history, given)))
        mixed = EnsembleMoments(conserving).predict(history, given)[0]
    expected = history.mean((3, 4))[..., 0]
    torch.testing.assert_close(members.mean((4, 5))[..., 0], expected.expand(len(members), -1, -1), rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed.mean((3, 4))[..., 0], expected, rtol=0, atol=1e-5)

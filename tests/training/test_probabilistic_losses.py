"""Losses of distributions: plain formulas, minima where the truth is, and heads that learn a noise that is known."""

from __future__ import annotations

import functools
import itertools
import math
import warnings

import lightning
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn
from torch.nn import functional

from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.uncertainty import coverage_gaussian, crps_gaussian
from pdesurrogate.models.distributions import Gaussian, Members, Quantiles
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.heads import DiverseHeads, GaussianHead, QuantileHead
from pdesurrogate.models.specification import recorded
from pdesurrogate.physics.conservation.laws import KeptMeans
from pdesurrogate.steppers.probconserv import ProbConservPredicted
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.surrogate import ProbabilisticSurrogate, Surrogate
from pdesurrogate.training.forecast import ForecastModule
from pdesurrogate.training.losses import MeanSquaredError, RelativeL2PerChannel
from pdesurrogate.training.probabilistic_losses import (
    GaussianCRPS,
    GaussianLikelihood,
    HeadDiversity,
    MeanOverMembers,
    Pinball,
    ProbabilisticLoss,
    head_distance,
)

SQUARE = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
WALLED = Grid((Axis("x", period=1.0), Axis("y", bounds=(0.0, 1.0))))
METADATA = Metadata("waves", SQUARE, (Channel("vorticity", units="1/time"),), frame_interval=0.1)
FNO_INSIDE = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [6, 6], "width": 6, "layers": 2}}


def context(batch=2, size=8) -> Context:
    return Context(tuple(line.expand(batch, -1) for line in SQUARE.uniform_coordinates((size, size))))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scores_are_their_plain_formulas():
    mean, target = noise(2, 3, 2, 8, 8), noise(2, 3, 2, 8, 8, seed=1)
    variance = noise(2, 3, 2, 8, 8, seed=2).square() + 0.1
    normal = torch.distributions.Normal(mean, variance.sqrt())
    found = GaussianLikelihood().score(Gaussian(mean, variance), target, context(), SQUARE)
    torch.testing.assert_close(found, -normal.log_prob(target).mean())
    levels = (0.1, 0.5, 0.9)
    values = noise(3, 2, 3, 2, 8, 8, seed=3).sort(0).values
    errors = target - values
    shares = torch.tensor(levels).reshape(3, 1, 1, 1, 1, 1)
    expected = torch.where(errors > 0, shares * errors, (shares - 1) * errors).mean()
    torch.testing.assert_close(Pinball().score(Quantiles(values, levels), target, context(), SQUARE), expected)
    members = noise(4, 2, 3, 2, 8, 8, seed=4)
    apart = [RelativeL2PerChannel().distance(member, target, context(), SQUARE) for member in members]
    found = MeanOverMembers(RelativeL2PerChannel()).score(Members(members), target, context(), SQUARE)
    torch.testing.assert_close(found, torch.stack(apart).mean())


def test_points_weigh_by_the_space_that_they_stand_for():
    y = torch.linspace(0, 1, 9, dtype=torch.float64) ** 2
    given = Context((SQUARE.uniform_coordinates((4, 4))[0][None], y[None]))
    weights = WALLED.quadrature_weights(given.coordinates)[1][0]
    target = torch.arange(9.0).expand(1, 1, 1, 4, 9)
    forecast = Gaussian(torch.zeros_like(target), torch.ones_like(target))
    expected = 0.5 * math.log(2 * math.pi) + (weights / weights.sum() * torch.arange(9.0).square()).sum() / 2
    found = GaussianLikelihood().score(forecast, target, given, WALLED)
    assert found.item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", [GaussianLikelihood(), GaussianCRPS()])
def test_no_other_mean_and_variance_score_better_than_the_true_ones(loss):
    target = 0.5 + 2.0 * noise(1, 1, 1, 200, 200)
    score = {
        (mean, deviation): float(
            loss.score(
                Gaussian(torch.full_like(target, mean), torch.full_like(target, deviation**2)),
                target, context(1, 200), SQUARE,
            )
        )
        for mean, deviation in itertools.product((0.3, 0.5, 0.7), (1.8, 2.0, 2.2))
    }  # fmt: skip
    assert min(score, key=score.get) == (0.5, 2.0)


def test_diversity_is_minus_the_mean_over_pairs_after_a_warm_up():
    torch.manual_seed(0)
    network = DiverseHeads(FNO_INSIDE, channels=1, heads=5)
    pairs = [(one - other).square().sum() for one, other in itertools.combinations(network.weights, 2)]
    torch.testing.assert_close(head_distance(network.weights), torch.stack(pairs).mean())
    diversity = HeadDiversity(weight=0.3, warmup_epochs=4)
    assert float(diversity.penalty(network, epoch=3)) == 0.0
    torch.testing.assert_close(diversity.penalty(network, epoch=4), -0.3 * torch.stack(pairs).mean())
    near = HeadDiversity(weight=0.3, warmup_epochs=0, reach=0.01).penalty(network, epoch=0)
    torch.testing.assert_close(near, torch.tensor(-0.3 * 0.01**2))
    near.backward()
    assert not network._last.linear.weight.grad.any()  # beyond the reach nothing is gained


# Heads learn a noise that is known: at every point the next value is three times the last one, with a deviation that
# grows with it as a head can say it.


@recorded
class Mixing(nn.Module):
    """Channels of every point, mixed; linear."""

    def __init__(self, channels: int = 1, history_frames: int = 1, target_frames: int = 1) -> None:
        super().__init__()
        self.frames = target_frames
        self.last = nn.Conv2d(channels, target_frames * channels, 1)

    def forward(self, history):
        return self.last(history[:, -1]).unflatten(1, (self.frames, -1))


MIXING = {"class_path": f"{__name__}.Mixing"}
SIZE = 64


def noisy_windows(seed):
    history = noise(1, 1, 1, SIZE, SIZE, seed=seed)
    deviation = functional.softplus(0.5 + history)
    return history, deviation, 3 * history + deviation * noise(1, 1, 1, SIZE, SIZE, seed=seed + 1)


def trained(network, loss):
    # The likelihood's first gradients are steep, and Adam is to forget them.
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=300)
    for step in range(300):
        history, _, target = noisy_windows(2 * step)
        optimizer.zero_grad()
        loss.score(network.distribution(history), target, context(1, SIZE), SQUARE).backward()
        optimizer.step()
        schedule.step()
    return network


@pytest.mark.parametrize("loss", [GaussianLikelihood(), GaussianCRPS()], ids=["likelihood", "crps"])
def test_a_gaussian_head_learns_a_noise_that_depends_on_the_place(loss):
    torch.manual_seed(0)
    network = trained(GaussianHead(MIXING, channels=1), loss)
    history, deviation, target = noisy_windows(100_000)
    with torch.no_grad():
        found = network.distribution(history)
    assert ((found.variance.sqrt() / deviation).log().square().mean().sqrt()) < 0.05
    assert ((found.mean - 3 * history).square().mean() / deviation.square().mean()).sqrt() < 0.05
    levels = (0.5, 0.8, 0.95)
    inside = coverage_gaussian(found.mean, found.variance, target, levels).flatten(1).mean(1)
    # 4096 points: two standard errors are 0.016 at the first level.
    torch.testing.assert_close(inside, torch.tensor(levels), rtol=0, atol=0.025)


def test_a_quantile_head_learns_the_shares_below_its_quantiles():
    torch.manual_seed(0)
    network = trained(QuantileHead(MIXING, channels=1, levels=(0.1587, 0.5, 0.8413)), Pinball())
    history, deviation, target = noisy_windows(100_000)
    with torch.no_grad():
        found = network.distribution(history)
    below = (target < found.values).flatten(1).float().mean(1)
    torch.testing.assert_close(below, torch.tensor(found.levels), rtol=0, atol=0.025)
    assert (found.variance.sqrt() / deviation).log().square().mean().sqrt() < 0.1


def test_heads_part_where_the_data_say_nothing_and_agree_where_they_do():
    def fitted(diversity):
        torch.manual_seed(0)
        network = DiverseHeads(MIXING, channels=2, heads=5)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=300)
        loss = MeanOverMembers(MeanSquaredError())
        for step in range(300):
            wave = noise(1, 1, 1, 16, 16, seed=step)
            history = torch.cat([wave, torch.zeros_like(wave)], 2)  # there is nothing in the second channel
            optimizer.zero_grad()
            value = loss.score(network.distribution(history), 3 * history, context(1, 16), SQUARE)
            (value if diversity is None else value + diversity.penalty(network, step // 30)).backward()
            optimizer.step()
            schedule.step()
        unit = torch.eye(2).reshape(2, 1, 2, 1, 1)
        with torch.no_grad():
            return network.distribution(unit).variance.mean((1, 2, 3, 4)).tolist()

    plain, driven = fitted(None), fitted(HeadDiversity(weight=0.01, warmup_epochs=2))
    assert max(plain[0], driven[0]) < 1e-3
    assert driven[1] > 4 * plain[1]


# In the Lightning module.


@pytest.fixture(autouse=True)
def _lightning_notices():
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def fit(waves, folder, network, loss, epochs=1, **options):
    data = ForecastData(waves, batch_size=8, target_frames=options.pop("target_frames", 1), rollout_frames=2)
    module = ForecastModule(network, data.metadata, loss=loss, learning_rate=1e-2, **options)
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=folder, accelerator="cpu", enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return module, data, folder / "model.ckpt"


HEADS = {
    "gaussian": (lambda: GaussianHead(FNO_INSIDE, channels=1), lambda: GaussianCRPS(), None),
    "likelihood": (lambda: GaussianHead(FNO_INSIDE, channels=1), lambda: GaussianLikelihood(), None),
    "quantiles": (lambda: QuantileHead(FNO_INSIDE, channels=1), lambda: Pinball(), None),
    "diverse": (
        lambda: DiverseHeads(FNO_INSIDE, channels=1, heads=3),
        lambda: MeanOverMembers(RelativeL2PerChannel()),
        HeadDiversity(weight=0.01, warmup_epochs=1),
    ),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("target", ["state", "increment"])
def test_every_head_is_trained_and_read_back(waves, tmp_path, name, target):
    torch.manual_seed(0)
    network, loss, regularization = HEADS[name]
    module, data, path = fit(
        waves, tmp_path, network(), loss(), epochs=2, target=target, regularization=regularization, target_frames=2
    )
    stored = torch.load(path, weights_only=True)["training"]
    assert stored["settings"]["loss"]["class_path"].startswith("pdesurrogate.training.probabilistic_losses.")
    assert stored["parameters_without_gradient"] == []
    if regularization is None:
        assert "regularization" not in stored["settings"]
    else:
        assert stored["settings"]["regularization"]["warmup_epochs"] == 1
    batch: Batch = next(iter(data.test_dataloader()))
    found = Surrogate.from_checkpoint(path)
    assert isinstance(found, ProbabilisticSurrogate)
    with torch.no_grad():
        expected = module.surrogate.predict(batch.history, batch.context)
        for one, other in zip(found.predict(batch.history, batch.context), expected, strict=True):
            assert torch.equal(one, other)


def test_a_chain_of_blocks_scores_each_from_the_means_before_it(waves):
    torch.manual_seed(0)
    data = ForecastData(waves, batch_size=4, target_frames=5)
    network = GaussianHead(FNO_INSIDE, channels=1, target_frames=2)
    module = ForecastModule(network, data.metadata, loss=GaussianLikelihood())
    module.surrogate.normalizer.set_statistics(torch.tensor([0.2]), torch.tensor([0.7]))
    batch = next(iter(data.train_dataloader()))
    history, parts = batch.history, []
    with torch.no_grad():
        for _ in range(3):
            parts.append(module.surrogate.predict(history, batch.context))
            history = parts[-1][0][:, -1:]
        mean, variance = (torch.cat(part, 1)[:, :5] for part in zip(*parts, strict=True))
        normal = torch.distributions.Normal(mean / 0.7, variance.sqrt() / 0.7)
        found = module._score(module.loss, batch)
    torch.testing.assert_close(found, -normal.log_prob(batch.target / 0.7).mean())


def test_a_loss_of_another_kind_is_refused():
    gaussian = GaussianHead(FNO_INSIDE, channels=1)
    plain = FNO(channels=1, modes=(4, 4), width=4, layers=1)
    assert isinstance(GaussianCRPS(), ProbabilisticLoss)
    assert not isinstance(RelativeL2PerChannel(), ProbabilisticLoss)
    with pytest.raises(ValueError, match=r"probabilistic_losses for a GaussianHead, .* but got RelativeL2PerChannel"):
        ForecastModule(gaussian, METADATA)
    with pytest.raises(ValueError, match="predicts a distribution for GaussianCRPS but a Surrogate does not"):
        ForecastModule(plain, METADATA, loss=GaussianCRPS())
    with pytest.raises(ValueError, match=r"for GaussianCRPS but a Resampled does not; .* no wrapper that gives frames"):
        ForecastModule(gaussian, METADATA, loss=GaussianCRPS(), wrappers=[lambda inner: Resampled(inner, 8)])
    with pytest.raises(ValueError, match="unroll='backpropagate' with a probabilistic loss but got 'push_forward'"):
        ForecastModule(gaussian, METADATA, loss=GaussianCRPS(), unroll="push_forward")
    forecast, target = Gaussian(torch.zeros(1, 1, 1, 8, 8), torch.ones(1, 1, 1, 8, 8)), torch.zeros(1, 1, 1, 8, 8)
    with pytest.raises(
        ValueError, match=r"predicts quantiles but it predicts a Gaussian; put .*QuantileHead around it"
    ):
        Pinball().score(forecast, target, context(1), SQUARE)
    with pytest.raises(ValueError, match=r"predicts members but it predicts a Gaussian; put .*DiverseHeads around it"):
        MeanOverMembers(MeanSquaredError()).score(forecast, target, context(1), SQUARE)
    with pytest.raises(ValueError, match="DiverseHeads network for HeadDiversity but got a GaussianHead"):
        HeadDiversity().penalty(gaussian, 0)
    for wrong in ({"weight": 0.0}, {"warmup_epochs": -1}, {"reach": 0.0}):
        with pytest.raises(ValueError, match="weight > 0, warmup_epochs >= 0 and a reach > 0 or none"):
            HeadDiversity(**wrong)


class Widened(nn.Module):
    """A wrapper that doubles the deviation."""

    def __init__(self, stepper) -> None:
        super().__init__()
        self.stepper = stepper

    @property
    def history_frames(self):
        return self.stepper.history_frames

    def step(self, history, given):
        return self.stepper.step(history, given)

    def predict(self, history, given):
        mean, variance = self.stepper.predict(history, given)
        return mean, 4 * variance


def test_a_wrapper_that_states_a_variance_is_trained_through(waves):
    torch.manual_seed(0)
    data = ForecastData(waves, batch_size=4)
    module = ForecastModule(
        GaussianHead(FNO_INSIDE, channels=1), data.metadata, loss=GaussianLikelihood(), wrappers=[Widened]
    )
    batch = next(iter(data.train_dataloader()))
    mean, variance = module.surrogate.predict(batch.history, batch.context)
    normal = torch.distributions.Normal(mean, 2 * variance.sqrt())
    torch.testing.assert_close(module._score(module.loss, batch), -normal.log_prob(batch.target).mean())


def test_configurations_name_losses_and_regularization_by_class_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ForecastModule, "model")
    module = "pdesurrogate.training.probabilistic_losses"
    head = {"class_path": "pdesurrogate.models.heads.DiverseHeads", "init_args": {"network": FNO_INSIDE, "channels": 1}}
    chosen = {
        "network": head,
        "metadata": METADATA,
        "loss": {
            "class_path": f"{module}.MeanOverMembers",
            "init_args": {"loss": "pdesurrogate.training.losses.RelativeL2PerChannel"},
        },
        "regularization": {"class_path": f"{module}.HeadDiversity", "init_args": {"weight": 0.5, "warmup_epochs": 3}},
    }
    built = parser.instantiate_classes(parser.parse_object({"model": chosen})).model
    assert isinstance(built.loss, MeanOverMembers)
    assert isinstance(built.loss.loss, RelativeL2PerChannel)
    assert isinstance(built.regularization, HeadDiversity)
    assert built.regularization.weight == 0.5
    assert isinstance(built.surrogate, ProbabilisticSurrogate)
    with pytest.raises(ArgumentError, match="nosuch"):
        parser.parse_object({"model": {**chosen, "loss": f"{module}.nosuch"}})


def test_a_head_is_trained_through_the_law_that_it_keeps(waves):
    torch.manual_seed(0)
    law = functools.partial(ProbConservPredicted, law=KeptMeans(of=["vorticity"]), floor=0.0)
    data = ForecastData(waves, batch_size=4)
    network = GaussianHead(FNO_INSIDE, channels=1)
    module = ForecastModule(network, data.metadata, loss=GaussianCRPS(), wrappers=[law])
    batch = next(iter(data.train_dataloader()))
    found = module._score(module.loss, batch)
    mean, variance = module.surrogate.predict(batch.history, batch.context)
    whole = variance.sum((3, 4), keepdim=True)
    missing = (batch.history - mean).mean((3, 4), keepdim=True)
    kept = mean + variance / variance.mean((3, 4), keepdim=True) * missing
    narrowed = variance - variance.square() / whole
    expected = crps_gaussian(kept, narrowed, batch.target).mean()
    torch.testing.assert_close(found, expected)
    parameters = list(network.parameters())
    for one, other in zip(*(torch.autograd.grad(score, parameters) for score in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)

"""Rollouts that keep to a law: inside the loop, on the output, by stated variances and by ensembles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.fno import FNO
from pdesurrogate.physics.conservation.laws import BalancedMeans, KeptMeans
from pdesurrogate.steppers.base import OutputCorrector, ProbabilisticStepper
from pdesurrogate.steppers.ensemble import Ensemble, EnsembleStepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.probconserv import (
    ProbConserv,
    ProbConservEnsemble,
    ProbConservOutput,
    ProbConservPredicted,
)
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate
from pdesurrogate.steppers.uncertain import EnsembleMoments
from pdesurrogate.steppers.wrappers import innermost, wrapped, wrappers_from, wrappers_of

BOX = Metadata(
    "box",
    Grid((Axis("x", period=1.0), Axis("y", period=1.0))),
    (Channel("density", units="kg/m3"), Channel("scalar")),
    frame_interval=0.5,
)
CHANNEL = Metadata(
    "channel",
    Grid((Axis("x", period=1.0), Axis("y", bounds=(0.0, 2.0)))),
    (Channel("velocity_x", location="cell"), Channel("pressure", location="cell")),
    frame_interval=0.5,
)
LAW = KeptMeans(of=["density"])


def context_of(metadata, shape, batch):
    points = [
        torch.arange(size) / size if axis.period else 2 * (torch.arange(size) + 0.5) / size
        for axis, size in zip(metadata.grid.axes, shape, strict=True)
    ]
    return Context(tuple(line.expand(batch, -1) for line in points))


class Perturbed(nn.Module):
    """Moves every frame by noise of its own and adds mass; states its variance where asked."""

    def __init__(self, metadata, seed=0, scale=0.1):
        super().__init__()
        self.metadata, self.history_frames = metadata, 1
        self.generator = torch.Generator().manual_seed(seed)
        self.scale = scale

    def step(self, history, context):
        latest = history[:, -1:]
        noise = torch.randn(latest.shape, generator=self.generator, dtype=latest.dtype)
        return latest + self.scale * noise + 0.05


class Unsure(Perturbed):
    def predict(self, history, context):
        mean = self.step(history, context)
        ramp = torch.linspace(0.0, 1.0, mean.shape[-1], dtype=mean.dtype)
        return mean, ramp.expand_as(mean)


def start(batch=2, dtype=torch.float64, shape=(6, 8)):
    return torch.rand(batch, 1, 2, *shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


def means(run):
    return torch.cat([block.mean((-2, -1)) for block in run], 1)


def test_nothing_drifts_over_a_hundred_steps():
    history, context = start(), context_of(BOX, (6, 8), 2)
    raw = means(rollout(Perturbed(BOX), history, context, 100))
    kept = means(rollout(ProbConserv(Perturbed(BOX), LAW), history, context, 100))
    begun = history.mean((-2, -1))
    assert (raw[..., 0] - begun[..., 0]).abs().max() > 1
    assert ((kept[..., 0] - begun[..., 0]) / begun[..., 0]).abs().max() < 1e-13
    # The other channel is not touched: the same noise, the same frames.
    torch.testing.assert_close(kept[..., 1], raw[..., 1], rtol=0, atol=0)


def test_in_single_precision_drift_is_that_of_rounding():
    history, context = start(dtype=torch.float32), context_of(BOX, (6, 8), 2)
    run = rollout(ProbConserv(Perturbed(BOX), LAW), history, context, 100)
    kept = torch.cat([block.double().mean((-2, -1)) for block in run], 1)
    assert (kept[..., 0] - history.double().mean((-2, -1))[..., 0]).abs().max() < 1e-6


def test_equal_variances_move_all_points_alike():
    history, context = start(), context_of(BOX, (6, 8), 2)
    raw = Perturbed(BOX).step(history, context)
    found = ProbConserv(Perturbed(BOX), LAW).step(history, context)
    shift = found - raw
    assert shift[:, :, 0].flatten(1).std(1).max() < 1e-14
    torch.testing.assert_close(found[:, :, 0].mean((-2, -1)), history[:, :, 0].mean((-2, -1)))


def test_the_output_alone_is_corrected_and_the_rollout_goes_on_as_it_was():
    history, context = start(), context_of(BOX, (6, 8), 2)
    raw = torch.cat(list(rollout(Perturbed(BOX), history, context, 10)), 1)
    around = ProbConservOutput(Perturbed(BOX), LAW)
    assert isinstance(around, OutputCorrector)
    shown = torch.cat(list(rollout(around, history, context, 10)), 1)
    begun = history.mean((-2, -1), keepdim=True)
    wanted = raw.clone()
    wanted[:, :, 0] += (begun - raw.mean((-2, -1), keepdim=True))[:, :, 0]
    torch.testing.assert_close(shown, wanted)


def test_a_second_rollout_starts_to_count_anew():
    law = BalancedMeans(["density"], sources=[2.0])
    stepper = ProbConservOutput(Persistence(), law, metadata=BOX)
    history, context = torch.zeros(1, 1, 2, 4, 4), context_of(BOX, (4, 4), 1)
    run = rollout(stepper, history, context, 3)
    for _ in range(2):
        assert means(run)[0, :, 0].tolist() == [1.0, 2.0, 3.0]


def test_budgets_count_from_frame_to_frame():
    stepper = ProbConserv(Perturbed(BOX), BalancedMeans(["density", "scalar"], [2.0, -1.0]))
    history, context = start(), context_of(BOX, (6, 8), 2)
    kept = means(rollout(stepper, history, context, 4))
    times = 0.5 * torch.arange(1, 5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(kept, history.mean((-2, -1)) + times * torch.tensor([2.0, -1.0]))


def test_uncertain_budgets_are_met_by_their_share_of_the_variance():
    law = BalancedMeans(["density"], [0.0], deviations=[0.3])
    history, context = start(), context_of(BOX, (6, 8), 2)
    raw = Perturbed(BOX).step(history, context)
    found = ProbConserv(Perturbed(BOX), law, [[1.0], [1.0]]).step(history, context)
    residual = (raw - history)[:, :, 0].mean((-2, -1))
    noise, own = 0.3**2 * 0.5, 1 / 48  # unit variance at each of 48 points
    left = (found - history)[:, :, 0].mean((-2, -1))
    torch.testing.assert_close(left, residual * noise / (noise + own))


def test_an_uncertain_law_needs_something_to_be_weighed_against():
    law = BalancedMeans(["density"], [0.0], deviations=[0.3])
    with pytest.raises(ValueError, match=r"uncertain BalancedMeans.*give them, or use ProbConservPredicted"):
        ProbConserv(Perturbed(BOX), law).step(start(), context_of(BOX, (6, 8), 2))


def test_variances_along_the_channel_say_where_it_moves():
    law = KeptMeans(of=["velocity_x"])
    history, context = start(shape=(4, 3)), context_of(CHANNEL, (4, 3), 2)
    raw = Perturbed(CHANNEL).step(history, context)
    found = ProbConserv(Perturbed(CHANNEL), law, [[0.0, 1.0, 3.0], [1.0, 1.0, 1.0]]).step(history, context)
    shift = (found - raw)[:, 0, 0]
    assert shift[..., 0].abs().max() < 1e-14
    torch.testing.assert_close(shift[..., 2], 3 * shift[..., 1])
    torch.testing.assert_close(found[:, :, 0].mean((-2, -1)), history[:, :, 0].mean((-2, -1)))


def test_stated_variances_say_where_it_moves_and_shrink():
    history, context = start(), context_of(BOX, (6, 8), 2)
    raw, before = Unsure(BOX).predict(history, context)
    around = ProbConservPredicted(Unsure(BOX), LAW, floor=0.0)
    assert isinstance(around, ProbabilisticStepper)
    mean, variance = around.predict(history, context)
    shift = (mean - raw)[:, :, 0]
    torch.testing.assert_close(shift / shift[..., -1:], before[:, :, 0])
    assert (variance <= before).all()
    assert (variance[:, :, 0] < before[:, :, 0])[..., 1:].all()
    torch.testing.assert_close(variance[:, :, 1], before[:, :, 1], rtol=0, atol=0)
    torch.testing.assert_close(mean[:, :, 0].mean((-2, -1)), history[:, :, 0].mean((-2, -1)))


def test_what_points_share_counts_where_it_is_stated():
    history, context = start(), context_of(BOX, (6, 8), 2)
    ensemble = Ensemble([Perturbed(BOX, seed) for seed in range(4)])
    moments = EnsembleMoments(ensemble, floor=0.1).moments(history, context)
    ensemble = Ensemble([Perturbed(BOX, seed) for seed in range(4)])
    around = ProbConservPredicted(EnsembleMoments(ensemble, floor=0.1), LAW, floor=0.0)
    mean, variance = around.predict(history, context)
    for batch in range(2):
        modes = moments.modes[batch, :, 0, 0].flatten(1)
        covariance = modes.T @ modes + torch.diag(moments.variance[batch, 0, 0].flatten())
        weights = torch.full((48,), 1 / 48, dtype=torch.float64)
        gain = covariance @ weights / (weights @ covariance @ weights)
        residual = moments.mean[batch, 0, 0].mean() - history[batch, 0, 0].mean()
        wanted = moments.mean[batch, 0, 0].flatten() - residual * gain
        torch.testing.assert_close(mean[batch, 0, 0].flatten(), wanted)
        left = covariance - gain[:, None] * (covariance @ weights)
        torch.testing.assert_close(variance[batch, 0, 0].flatten(), left.diagonal())


def test_members_keep_the_law_one_by_one():
    members = Ensemble([Perturbed(BOX, seed) for seed in range(5)])
    around = ProbConservEnsemble(members, LAW)
    assert isinstance(around, EnsembleStepper)
    history, context = start(), context_of(BOX, (6, 8), 2)
    kept = means(rollout(around, *around.spread(history, context), 20))
    torch.testing.assert_close(kept[..., 0], history.mean((-2, -1))[..., 0].repeat(5, 1).expand(-1, 20))


@pytest.mark.parametrize("correlations", ["none", "members"])
def test_members_move_by_their_covariance(correlations):
    ensemble = Ensemble([Perturbed(BOX, seed) for seed in range(4)])
    history, context = start(batch=1), context_of(BOX, (6, 8), 1)
    given = ensemble.spread(history, context)
    raw = Ensemble([Perturbed(BOX, seed) for seed in range(4)]).step(*given)[:, 0, 0].flatten(1)
    found = ProbConservEnsemble(ensemble, LAW, correlations, floor=0.1).step(*given)[:, 0, 0].flatten(1)
    covariance = torch.cov(raw.T) if correlations == "members" else torch.diag(raw.var(0))
    covariance = covariance + 0.1 * raw.var(0).mean() * torch.eye(48, dtype=torch.float64)
    weights = torch.full((48,), 1 / 48, dtype=torch.float64)
    gain = covariance @ weights / (weights @ covariance @ weights)
    wanted = raw - (raw @ weights - history[0, 0, 0].mean())[:, None] * gain
    torch.testing.assert_close(found, wanted)


class Breaking(Perturbed):
    """Gives no number from a step on."""

    def __init__(self, metadata, seed, last):
        super().__init__(metadata, seed)
        self.last, self.steps = last, 0

    def step(self, history, context):
        self.steps += 1
        block = super().step(history, context)
        return block if self.steps < self.last else torch.full_like(block, torch.nan)


def test_a_member_that_was_stopped_has_no_say():
    history, context = start(), context_of(BOX, (6, 8), 2)

    def run(*members):
        around = ProbConservEnsemble(Ensemble(members), LAW)
        return torch.cat([around.fold(each) for each in rollout(around, *around.spread(history, context), 8)], 2)

    living = [Perturbed(BOX, seed) for seed in range(3)]
    alone = run(*living)
    with_dead = run(*[Perturbed(BOX, seed) for seed in range(3)], Breaking(BOX, 7, last=1))
    assert torch.isnan(with_dead[3]).all()
    torch.testing.assert_close(with_dead[:3], alone)
    later = run(*[Perturbed(BOX, seed) for seed in range(3)], Breaking(BOX, 7, last=4))
    begun = history.mean((-2, -1))[:, :, 0]
    torch.testing.assert_close(later[:3].mean((-2, -1))[..., 0], begun.expand(3, 2, 8))


def test_members_of_other_grids_keep_their_own_means():
    stretched = Context((torch.arange(4).expand(2, -1) / 4, torch.tensor([[0.3, 1.0, 1.7], [0.2, 1.0, 1.8]])))
    history = torch.rand(2, 1, 2, 4, 3, dtype=torch.float64)
    around = ProbConservEnsemble(Ensemble([Perturbed(CHANNEL, 0), Perturbed(CHANNEL, 1)]), KeptMeans(["velocity_x"]))
    block = around.fold(around.step(*around.spread(history, stretched)))
    rows = KeptMeans(["velocity_x"]).rows(CHANNEL, stretched)
    given = rows.apply(history[:, :, :1])
    for member in block:
        torch.testing.assert_close(rows.apply(member[:, :, :1]), given)


def test_what_members_state_themselves_is_passed_on():
    around = ProbConservEnsemble(Ensemble([Unsure(BOX, 0), Unsure(BOX, 1)]), LAW)
    history, context = start(), context_of(BOX, (6, 8), 2)
    given = around.spread(history, context)
    means, variances = around.predict_members(*given)
    torch.testing.assert_close(variances, torch.linspace(0.0, 1.0, 8, dtype=torch.float64).expand_as(variances))
    torch.testing.assert_close(means[:, :, 0].mean((-2, -1)), given[0][:, :, 0].mean((-2, -1)))


def test_a_broken_frame_does_not_end_the_prediction_of_others():
    class BreaksFirst(Unsure):
        def predict(self, history, context):
            mean, variance = super().predict(history, context)
            mean[0], variance[0, 0, 0, 0, 0] = torch.nan, torch.inf
            return mean, variance

    history, context = start(), context_of(BOX, (6, 8), 2)
    mean, _ = ProbConservPredicted(BreaksFirst(BOX), LAW).predict(history, context)
    assert torch.isnan(mean[0]).all()
    torch.testing.assert_close(mean[1, :, 0].mean((-2, -1)), history[1, :, 0].mean((-2, -1)))


def test_a_shock_tube_keeps_its_budgets():
    # Two gases at rest: until waves reach the ends, mass and energy stay, and momentum grows by the pressures there.
    tube = Metadata(
        "tube", Grid((Axis("x", bounds=(0.0, 2.0)),)),
        tuple(Channel(name, location="cell") for name in ("density", "momentum", "energy")), frame_interval=0.01,
    )  # fmt: skip
    left, right = torch.tensor([1.0, 0.0, 2.5]), torch.tensor([0.125, 0.0, 0.25])
    law = BalancedMeans(["density", "momentum", "energy"], sources=[0.0, (1.0 - 0.1) / 2.0, 0.0])
    states = torch.cat([left[:, None].expand(3, 20), right[:, None].expand(3, 20)], 1).double().expand(1, 1, 3, 40)
    context = Context((2 * (torch.arange(40)[None] + 0.5) / 40,))
    kept = torch.cat(list(rollout(ProbConserv(Perturbed(tube), law), states, context, 20)), 1).mean(-1)
    times = 0.01 * torch.arange(1, 21, dtype=torch.float64)
    torch.testing.assert_close(kept[0, :, 0], torch.full_like(times, 0.5625))
    torch.testing.assert_close(kept[0, :, 1], 0.45 * times)
    torch.testing.assert_close(kept[0, :, 2], torch.full_like(times, 1.375))


def test_what_broke_is_left_for_the_rollout_to_see():
    class Breaks(Perturbed):
        def step(self, history, context):
            block = super().step(history, context)
            block[0] = torch.nan
            return block

    history, context = start(), context_of(BOX, (6, 8), 2)
    run = rollout(ProbConserv(Breaks(BOX), LAW), history, context, 3)
    frames = torch.cat(list(run), 1)
    assert run.first_bad_frame.tolist() == [0, 3]
    assert torch.isfinite(frames[1]).all()


def test_training_goes_through_it():
    surrogate = Surrogate(FNO(channels=2, modes=(2, 2), width=4, layers=1), BOX)
    history, context = start(dtype=torch.float32), context_of(BOX, (6, 8), 2)
    with torch.inference_mode():
        ProbConserv(surrogate, LAW).step(history, context)
    around = ProbConserv(surrogate, LAW)
    loss = around.step(history, context).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in surrogate.parameters())
    # The mean is fixed: no gradient can change it.
    surrogate.zero_grad()
    around.step(history, context)[:, :, 0].mean().backward()
    fixed = max(p.grad.abs().max() for p in surrogate.parameters())
    surrogate.zero_grad()
    surrogate.step(history, context)[:, :, 0].mean().backward()
    assert fixed < 1e-6 * max(p.grad.abs().max() for p in surrogate.parameters())


def test_masks_keep_solid_points_where_they_are():
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    mask[:, 2:4, 2:4] = False
    history = start()
    context = context_of(BOX, (6, 8), 2)._replace(mask=mask)
    raw = Perturbed(BOX).step(history, context)
    found = ProbConserv(Perturbed(BOX), LAW).step(history, context)
    solid = ~mask[:, None, None].expand_as(raw)
    torch.testing.assert_close(found[solid], raw[solid], rtol=0, atol=0)
    fluid = mask[:, None]
    kept, begun = ((values[:, :, 0] * fluid).sum((-2, -1)) / fluid.sum((-2, -1)) for values in (found, history))
    torch.testing.assert_close(kept, begun)


def test_a_checkpoint_can_hold_it():
    around = ProbConserv(Persistence(), KeptMeans(["density"], [1.0], "kg/m3"), [[1.0, 2.0], [3.0, 4.0]], 0.1, BOX)
    (found,) = wrappers_of(around)
    assert found["init_args"] == {
        "law": {
            "class_path": "pdesurrogate.physics.conservation.laws.KeptMeans",
            "init_args": {"of": ["density"], "values": [1.0], "unit": "kg/m3"},
        },
        "variances": [[1.0, 2.0], [3.0, 4.0]],
        "noise": 0.1,
    }
    surrogate = Surrogate(FNO(channels=2, modes=(2, 2), width=4, layers=1), BOX)
    again = wrapped(surrogate, wrappers_from([found]))
    assert wrappers_of(again) == [found]
    assert innermost(again) is surrogate


def test_wrong_arguments_of_a_law_in_a_checkpoint_are_named():
    law = {"class_path": "pdesurrogate.physics.conservation.laws.KeptMeans", "init_args": {"off": ["density"]}}
    wrapper = {"class_path": "pdesurrogate.steppers.probconserv.ProbConserv", "init_args": {"law": law}}
    with pytest.raises(ValueError, match=r"arguments of a KeptMeans but .*off"):
        wrappers_from([wrapper])


def test_a_checkpoint_names_no_other_class_as_a_law():
    law = {"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}}
    wrapper = {"class_path": "pdesurrogate.steppers.probconserv.ProbConserv", "init_args": {"law": law}}
    with pytest.raises(ValueError, match=r"class of a ConservationLaw but 'subprocess\.Popen' is none"):
        wrappers_from([wrapper])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ProbConserv(Persistence(), LAW), "metadata of the data for a conservation law but a Persistence"),
        (lambda: ProbConserv(Perturbed(BOX), KeptMeans(of=["salt"])), "'salt'"),
        (lambda: ProbConserv(Perturbed(BOX), LAW, noise=-1.0), "noise of at least zero"),
        (lambda: ProbConserv(Perturbed(BOX), LAW, [[1.0]]), "variances of each of 2 channels but got 1"),
        (lambda: ProbConserv(Perturbed(BOX), LAW, [[1.0], [-1.0]]), "variances of at least zero"),
        (lambda: ProbConserv(Ensemble([Perturbed(BOX), Perturbed(BOX)]), LAW), "use ProbConservEnsemble"),
        (
            lambda: ProbConserv(ProbConservOutput(Perturbed(BOX), LAW), LAW),
            "ProbConservOutput.*as the outermost wrapper but a conservation law is around it",
        ),
        (
            lambda: Ensemble([ProbConservOutput(Perturbed(BOX), LAW)] * 2),
            "ProbConservOutput.*as the outermost wrapper but an ensemble is around it",
        ),
        (
            lambda: ProbConservEnsemble(Ensemble([Perturbed(BOX), Perturbed(BOX)]), LAW, "all"),
            "correlations 'none' or 'members' but got 'all'",
        ),
        (lambda: ProbConservPredicted(Perturbed(BOX), LAW), "Perturbed states none; use ProbConserv"),
        (lambda: ProbConservEnsemble(Perturbed(BOX), LAW), "a Perturbed is none; use ProbConserv"),
        (
            lambda: ProbConservEnsemble(Ensemble([Perturbed(BOX), Perturbed(BOX)]), LAW, floor=0.0),
            "positive floor",
        ),
        (
            lambda: wrapped(
                Perturbed(BOX), [lambda stepper: ProbConservOutput(stepper, LAW), lambda s: ProbConserv(s, LAW)]
            ),
            "ProbConservOutput.*as the outermost wrapper.*put it last",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_variances_without_an_axis_for_them_are_refused():
    stepper = ProbConserv(Perturbed(BOX), LAW, [[1.0] * 8, [1.0] * 8])
    with pytest.raises(ValueError, match="variances along one axis that is not periodic"):
        stepper.step(start(), context_of(BOX, (6, 8), 2))

"""Training on points: the loss, the residual of the equation, and checkpoints that say what is in them."""

from __future__ import annotations

import warnings

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from pdesurrogate.data.point_data import PointData
from pdesurrogate.fields.point_set import PointSet
from pdesurrogate.layers.point_attention import DropoutMasks
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.neural_process import AttentiveNeuralProcess
from pdesurrogate.physics.gpme import Burgers, Diffusion, LinearAdvection, PorousMedium, Stefan
from pdesurrogate.steppers.surrogate import CHECKPOINT_KEY, Surrogate, load_checkpoint
from pdesurrogate.training.record import described, differences
from pdesurrogate.training.regression import (
    AdvectionFlux,
    BurgersFlux,
    DiffusionFlux,
    EquationResidual,
    PorousMediumFlux,
    RegressionModule,
    StefanFlux,
    load_neural_process,
    negative_log_likelihood,
    save_neural_process,
)
from pdesurrogate.training.schedules import WarmupCosine


class Waves:
    """Sines of random wavelength and height on (t, x), which do not change in time."""

    def __init__(self, functions: int, seed: int = 0, fields: int = 1) -> None:
        self.functions, self.seed, self.fields = functions, seed, fields

    def points(self) -> PointSet:
        generator = torch.Generator().manual_seed(self.seed)
        numbers = torch.rand(self.functions, 1, 2, generator=generator)
        places = [torch.rand(self.functions, 12, 2, generator=generator) for _ in range(2)]
        values = [
            (numbers[..., :1] * torch.sin(4 * (1 + numbers[..., 1:]) * each[..., 1:])).repeat(1, 1, self.fields)
            for each in places
        ]
        return PointSet(places[0], values[0], places[1], values[1], numbers[:, 0, :1])


def network(**options):
    torch.manual_seed(0)
    return AttentiveNeuralProcess(**{"width": 8, "heads": 2, **options})


def data(functions=16, batch_size=8, **options):
    return PointData(Waves(functions), Waves(6, seed=1), Waves(6, seed=2), batch_size=batch_size, **options)


def trainer(folder, epochs=1, **options):
    return lightning.Trainer(
        **{
            "max_epochs": epochs, "accelerator": "cpu", "logger": False, "default_root_dir": folder,
            "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
            "use_distributed_sampler": False, **options,
        }
    )  # fmt: skip


def quietly(verb, *arguments, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        return verb(*arguments, **options)


def fitted(folder, epochs=1, points=None, module=None, ckpt_path=None, **options):
    module = RegressionModule(network(), learning_rate=1e-2) if module is None else module
    run = trainer(folder, epochs, **options)
    quietly(run.fit, module, data() if points is None else points, ckpt_path=ckpt_path, weights_only=True)
    run.save_checkpoint(folder / "run.ckpt")
    return module


# The loss.


def test_likelihood_is_that_of_normal_distributions():
    torch.manual_seed(0)
    mean, variance, values = torch.randn(3, 5), torch.rand(3, 5) + 0.1, torch.randn(3, 5)
    expected = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(values)
    torch.testing.assert_close(negative_log_likelihood(mean, variance, values), expected)


def test_the_loss_is_the_plain_formula(tmp_path):
    """One step of training, by hand from the same noise and masks."""
    seen: dict[str, float] = {}

    class Watched(RegressionModule):
        def _generator(self, *numbers):
            return torch.Generator().manual_seed(5)

        def training_step(self, batch, batch_index):
            loss = super().training_step(batch, batch_index)
            generator = torch.Generator().manual_seed(5)
            noise = torch.randn(8, 8, generator=generator)
            masks = DropoutMasks(generator)
            prior = self.network.latent(batch.context_points, batch.context_values, masks)
            posterior = self.network.latent(batch.target_points, batch.target_values, masks)
            encoding = self.network.encode(batch.context_points, batch.context_values, masks)
            at_targets = self.network.attend(encoding, batch.target_points, masks)
            mean, variance = self.network.decode(at_targets, posterior.drawn(noise))
            p, q = (torch.distributions.Normal(each.mean, (each.log_variance / 2).exp()) for each in (posterior, prior))
            likelihood = torch.distributions.Normal(mean, variance.sqrt()).log_prob(batch.target_values)
            expected = torch.distributions.kl_divergence(p, q).sum() - likelihood.sum()
            seen.update(
                loss=loss.item(), expected=expected.item(), logged=float(self.trainer.callback_metrics["train/loss"])
            )
            return loss

    fitted(tmp_path, module=Watched(network()), points=data(functions=8))
    assert seen["loss"] == pytest.approx(seen["expected"], rel=1e-5)
    assert seen["logged"] == pytest.approx(seen["loss"] / 8, rel=1e-5)


def test_a_short_fit_lowers_the_loss(tmp_path):
    points = data(functions=32)
    module = RegressionModule(network(attention_dropout=0.0, output_dropout=0.0), learning_rate=1e-2)
    module._trained = True
    before = quietly(trainer(tmp_path).validate, module, points, verbose=False)[0]
    fitted(tmp_path, epochs=15, module=module, points=points, gradient_clip_val=10.0)
    after = quietly(trainer(tmp_path).validate, module, points, verbose=False)[0]
    assert set(after) == {"val/loss", "val/nll", "val/mse"}
    assert after["val/loss"] < before["val/loss"] - 5
    assert after["val/nll"] < before["val/nll"] - 0.3


def test_validation_is_the_same_every_time_and_without_dropout(tmp_path):
    module, points = fitted(tmp_path), data()
    figures = []
    for seed in range(2):
        torch.manual_seed(seed)
        figures.append(quietly(trainer(tmp_path).validate, module.train(), points, verbose=False)[0])
    assert figures[0] == figures[1]
    assert set(quietly(trainer(tmp_path).test, module, points, verbose=False)[0]) == {
        "test/loss",
        "test/nll",
        "test/mse",
    }
    # What is said of targets is said without having seen them.
    whole = points.points("val")
    contexts, trained = (whole.context_points, whole.context_values), module.network
    with torch.inference_mode():
        seen = trained.attend(trained.encode(*contexts), whole.target_points)
        mean, variance = trained.decode(seen, trained.latent(*contexts).mean)
    nll = negative_log_likelihood(mean, variance, whole.target_values).mean()
    assert figures[0]["val/nll"] == pytest.approx(float(nll), rel=1e-5)
    assert figures[0]["val/mse"] == pytest.approx(float((mean - whole.target_values).square().mean()), rel=1e-5)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_resuming_anywhere_is_bit_equal(tmp_path, cut):
    """Two steps an epoch, so that cuts fall within and at the end of one."""

    def fit(folder, **resume):
        module = RegressionModule(network(), learning_rate=1e-2, schedule=WarmupCosine())
        keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=cut, save_top_k=-1)
        run = trainer(tmp_path, 2, callbacks=[keep], enable_checkpointing=True)
        run.fit(module, data(seed=3), weights_only=True, **resume)
        return module.network.state_dict()

    whole = fit(tmp_path / "whole")
    torch.manual_seed(99)
    resumed = fit(tmp_path / "resumed", ckpt_path=tmp_path / "whole" / f"step={cut}.ckpt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


# Residuals.

SOLVED = [
    (Diffusion(), DiffusionFlux(), 2.0, (0.1, 0.9), (0.5, 5.0)),
    (PorousMedium(), PorousMediumFlux(), 1.0, (0.6, 0.9), (0.1, 0.5)),
    (PorousMedium(), PorousMediumFlux(), 3.0, (0.6, 0.9), (0.1, 0.5)),
    (Stefan(), StefanFlux(), 0.6, (0.06, 0.09), (0.01, 0.2)),
    (Stefan(), StefanFlux(), 0.6, (0.06, 0.09), (0.5, 0.9)),
    (LinearAdvection(), AdvectionFlux(), 2.0, (0.1, 0.2), (0.0, 0.5)),
    (Burgers(), BurgersFlux(), 1.0, (0.1, 0.5), (-0.4, -0.1)),
]


@pytest.mark.parametrize(("equation", "flux", "parameter", "times", "places"), SOLVED)
def test_exact_solutions_have_no_residual(equation, flux, parameter, times, places):
    torch.manual_seed(0)
    t, x = (low + (high - low) * torch.rand(3, 20, dtype=torch.float64) for low, high in (times, places))
    points = torch.stack([t, x], dim=-1).requires_grad_()
    parameters = torch.full((3, 1), parameter, dtype=torch.float64)
    # A solution that is constant here must depend on its points all the same.
    exact = equation.solution(points[..., 0], points[..., 1], parameters).unsqueeze(-1) + 0 * points[..., :1]
    penalty = EquationResidual(flux, weight=2.0)
    assert penalty.residual(exact, points, parameters).abs().max().item() < 1e-9
    # Another one does: what grows in time and has no flux of its own.
    growing = exact + points[..., :1].square()
    residual = penalty.residual(growing, points, parameters).detach()
    assert float(residual.abs().max()) > 0.01
    assert penalty.penalty(growing, points, parameters).item() == pytest.approx(2 * float(residual.square().mean()))


def test_residuals_by_hand():
    points = torch.rand(2, 7, 2, dtype=torch.float64, requires_grad=True)
    t, x = points.unbind(-1)
    u = (1 + t * x.square()).unsqueeze(-1)
    m = torch.tensor([[2.0], [3.0]], dtype=torch.float64)
    u_t, u_x, u_xx, u_ = x.square(), 2 * t * x, 2 * t, u.squeeze(-1)
    expected = {
        DiffusionFlux(): u_t - m * u_xx,
        PorousMediumFlux(): u_t - u_**m * u_xx - m * u_ ** (m - 1) * u_x.square(),
        StefanFlux(): u_t - (u_ >= m) * u_xx,
        AdvectionFlux(): u_t + m * u_x,
        BurgersFlux(): u_t + u_ * u_x,
    }
    for flux, residual in expected.items():
        torch.testing.assert_close(EquationResidual(flux).residual(u, points, m), residual)


def test_the_residual_of_an_empty_medium_can_be_trained():
    """Powers with an exponent near one have no second derivative at zero; what is not positive has no flux."""
    points = torch.rand(1, 9, 2, requires_grad=True)
    height = torch.linspace(-1, 1, 9)[None, :, None].requires_grad_()
    residual = EquationResidual(PorousMediumFlux()).residual(height * points[..., :1], points, torch.tensor([[1.1]]))
    torch.testing.assert_close(residual[0, :4], height[0, :4, 0])
    (gradient,) = torch.autograd.grad(residual.square().mean(), height)
    assert bool(gradient.isfinite().all())


# Without dropout, too, where attention has a fused kernel that has no second derivative.
@pytest.mark.parametrize(("flux", "rate"), [(PorousMediumFlux(), 0.0), (StefanFlux(), 0.1), (AdvectionFlux(), 0.1)])
def test_a_penalty_reaches_the_weights_and_its_weight_counts(tmp_path, flux, rate):
    def trained(penalty):
        module = RegressionModule(network(attention_dropout=rate, output_dropout=rate), penalty=penalty)
        return fitted(tmp_path, module=module, points=data(functions=8)).network.head.weight

    without, none, heavy = (trained(each) for each in (None, EquationResidual(flux, 0.0), EquationResidual(flux, 1e6)))
    torch.testing.assert_close(none, without)
    assert not torch.allclose(heavy, without, atol=1e-6)


def test_a_penalty_does_not_see_what_the_latent_saw(tmp_path):
    """A derivative by a target is that of the prediction there, not of the observation that it is in training."""

    class Same(EquationResidual):
        def penalty(self, mean, points, parameters):
            (gradient,) = torch.autograd.grad(mean[0, 0].sum(), points, retain_graph=True)
            assert gradient[0, 0].any()
            assert not gradient[0, 1:].any()
            return super().penalty(mean, points, parameters)

    fitted(tmp_path, module=RegressionModule(network(), penalty=Same(DiffusionFlux())), points=data(functions=8))


def test_residuals_of_other_points_are_refused():
    residual = EquationResidual(DiffusionFlux())
    points = torch.zeros(1, 2, 2, requires_grad=True)
    with pytest.raises(ValueError, match=r"one field at points .* but got 2, 2 and 1"):
        residual.residual(points, points, torch.ones(1, 1))
    with pytest.raises(ValueError, match="but got 1, 2 and 3"):
        residual.residual(points[..., :1], points, torch.ones(1, 3))
    with pytest.raises(ValueError, match="finite weight of at least 0 but got -1"):
        EquationResidual(DiffusionFlux(), weight=-1)


# Checkpoints.


def test_a_checkpoint_gives_the_network_back_without_a_pickle(tmp_path):
    module = fitted(tmp_path, module=RegressionModule(network(), penalty=EquationResidual(BurgersFlux())))
    loaded = load_neural_process(tmp_path / "run.ckpt")
    saved = load_neural_process(save_neural_process(loaded, tmp_path / "slim" / "weights.ckpt", {"seed": 3}))
    assert load_checkpoint(tmp_path / "slim" / "weights.ckpt")["training"] == {"seed": 3}
    assert (tmp_path / "slim" / "weights.ckpt").stat().st_size < (tmp_path / "run.ckpt").stat().st_size
    contexts = Waves(2).points()[:3]
    draws = [
        each.predict(*contexts, 3, torch.Generator().manual_seed(0)).mean for each in (module.network, loaded, saved)
    ]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])
    record = load_checkpoint(tmp_path / "run.ckpt")["training"]
    assert record["settings"]["penalty"]["class_path"].endswith(".EquationResidual")
    assert record["settings"]["penalty"]["flux"]["class_path"].endswith(".BurgersFlux")
    assert (record["steps"], record["epochs"], record["settings"]["batch_size"]) == (2, 1, 8)
    assert record["wall_time_s"] > 0
    assert record["parameters_without_gradient"] == []


def test_weights_alone_can_be_validated_and_trained_further(tmp_path):
    module = fitted(tmp_path)
    save_neural_process(module.network, tmp_path / "slim.ckpt")
    again = RegressionModule(network())
    figures = [
        quietly(trainer(tmp_path).validate, each, data(), ckpt_path=path, verbose=False, weights_only=True)[0]
        for each, path in ((module, None), (again, tmp_path / "slim.ckpt"))
    ]
    assert figures[0] == figures[1]


def test_other_checkpoints_are_refused(tmp_path, waves):
    fitted(tmp_path)
    with pytest.raises(ValueError, match=r"differ in init_args.width: 12 in the configuration, 8 in the checkpoint"):
        fitted(tmp_path, module=RegressionModule(network(width=12)), ckpt_path=tmp_path / "run.ckpt", epochs=2)
    fno = FNO(channels=1, modes=(2, 2), width=2, layers=1)
    Surrogate(fno, waves.metadata).save(tmp_path / "fields.ckpt")
    with pytest.raises(ValueError, match=r"a model of points in .*fields.ckpt but .* a model of fields"):
        load_neural_process(tmp_path / "fields.ckpt")
    stored = torch.load(tmp_path / "run.ckpt", weights_only=True)
    for changes, message in (
        ({CHECKPOINT_KEY: {"network": {"class_path": "builtins.dict", "init_args": {}}}}, "is none"),
        ({CHECKPOINT_KEY: {"network": {"class_path": "pdesurrogate.models.fno.FNO",
                                       "init_args": {"channels": 1, "modes": [2, 2], "width": 2, "layers": 1}}}},
         "Expected an AttentiveNeuralProcess"),
        ({"state_dict": {"network.head.bias": torch.zeros(2)}}, "weights of its own network"),
    ):  # fmt: skip
        torch.save({**stored, **changes}, tmp_path / "changed.ckpt")
        with pytest.raises(ValueError, match=message):
            load_neural_process(tmp_path / "changed.ckpt")
    with pytest.raises(ValueError, match="does not exist"):
        load_neural_process(tmp_path / "nowhere.ckpt")


def test_bad_settings_and_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match="learning_rate > 0 but got 0"):
        RegressionModule(network(), learning_rate=0)
    with pytest.raises(ValueError, match="data of 2 coordinates and 2 field"):
        fitted(tmp_path, module=RegressionModule(network(fields=2)))
    with pytest.raises(ValueError, match="trained weights but there are none"):
        quietly(trainer(tmp_path).validate, RegressionModule(network()), data())
    with pytest.raises(ValueError, match="a PointData as the trainer's datamodule but got NoneType"):
        quietly(trainer(tmp_path).fit, RegressionModule(network()), data().train_dataloader(), data().val_dataloader())


def test_records_are_plain_values():
    class Inner:
        def __init__(self):
            self.values = torch.arange(2)
            self.names = {"a": (1, None)}
            self._hidden = object()

    class Outer:
        def __init__(self):
            self.inner, self.rate, self.nothing = Inner(), 0.5, None

    record = described(Outer())
    assert record["rate"] == 0.5
    assert "nothing" not in record
    assert {key: record["inner"][key] for key in ("values", "names")} == {"values": [0, 1], "names": {"a": [1, None]}}
    assert "_hidden" not in record["inner"]
    assert described(None) is None


def test_differences_are_told_with_their_keys():
    ours, theirs = {"a": {"b": [1, 2]}, "c": 3, "name": "x"}, {"a": {"b": [1, 5]}, "name": "y"}
    assert differences(ours, theirs, ignored=("name",)) == [
        "a.b.1: 2 in the configuration, 5 in the checkpoint",
        "c: 3 in the configuration, None in the checkpoint",
    ]
    assert differences(ours, ours) == []

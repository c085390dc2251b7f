"""Training: it learns, resumes bit-equal, and its checkpoints stand alone."""

from __future__ import annotations

import warnings

import lightning
import pytest
import torch
from helpers import write_archive
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

import pdesurrogate
from pdesurrogate.data.archive import Archive, ArchiveWriter
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.specification import recorded
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate
from pdesurrogate.training.augmentation import SquareSymmetries
from pdesurrogate.training.callbacks import PredictionArchive, ReproducibleSteps
from pdesurrogate.training.forecast import ForecastModule
from pdesurrogate.training.losses import FluctuationL2, LogLineSpectrum, RelativeL2PerChannel, WeightedSum
from pdesurrogate.training.schedules import Constant, OneCycle, WarmupCosine


def network(**changes) -> FNO:
    torch.manual_seed(0)
    return FNO(**{"channels": 1, "modes": (6, 6), "width": 6, "layers": 2, **changes})


@recorded
class WithDropout(nn.Module):
    """A network that draws random numbers in training."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.dropout = nn.Dropout(0.2)

    def forward(self, history):
        return self.inner(self.dropout(history))


def trainer(folder, **options) -> lightning.Trainer:
    return lightning.Trainer(
        **{
            "max_epochs": 2, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
            "use_distributed_sampler": False, "default_root_dir": folder, "accelerator": "cpu",
            "enable_checkpointing": False, **options,
        }
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _lightning_notices():
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def weights(module: ForecastModule) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.surrogate.state_dict().items()}


def test_training_beats_persistence(waves, tmp_path):
    data = ForecastData(waves, batch_size=4, rollout_frames=3)
    module = ForecastModule(network(), data.metadata, learning_rate=1e-2)
    fitted = trainer(tmp_path, max_epochs=8)
    fitted.fit(module, data)
    error = fitted.test(module, data, verbose=False)[0]["test/relative_l2"]
    batch = next(iter(data.test_dataloader()))
    persistence = float((batch.history - batch.target).norm() / batch.target.norm())
    assert error < 0.3 * persistence


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("cut", [1, 3, 10, 11])
def test_resuming_anywhere_is_bit_equal(waves, tmp_path, cut):
    # 6 trajectories x 7 windows in batches of 4: 10 steps an epoch, so cuts fall within, at and after an epoch's end.
    def pieces():
        data = ForecastData(waves, batch_size=4, seed=3)
        torch.manual_seed(0)
        module = ForecastModule(
            WithDropout(), data.metadata, schedule=OneCycle(), input_noise=0.1, augmentation=SquareSymmetries()
        )
        return module, data, [ReproducibleSteps(), EMAWeightAveraging(decay=0.9)]

    def fit(folder, **resume):
        module, data, callbacks = pieces()
        keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=cut, save_top_k=-1)
        trainer(tmp_path, callbacks=[*callbacks, keep], enable_checkpointing=True).fit(module, data, **resume)
        return weights(module)

    whole = fit(tmp_path / "whole")
    resumed = fit(tmp_path / "resumed", ckpt_path=tmp_path / "whole" / f"step={cut}.ckpt", weights_only=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def fitted_checkpoint(waves, folder, **options):
    data = ForecastData(waves, batch_size=8, history_frames=options.pop("history_frames", 1))
    module = ForecastModule(network(history_frames=data.history_frames), data.metadata, data.history_frames, **options)
    fit = trainer(folder, max_epochs=1)
    fit.fit(module, data)
    fit.save_checkpoint(folder / "model.ckpt")
    return module, data, folder / "model.ckpt"


@pytest.mark.parametrize("target", ["state", "increment"])
def test_a_checkpoint_outside_a_trainer_predicts_in_physical_units(waves, tmp_path, target):
    module, data, path = fitted_checkpoint(waves, tmp_path, target=target, history_frames=2)
    batch: Batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        expected = module.surrogate.step(batch.history, batch.context)
        found = Surrogate.from_checkpoint(path)
        torch.testing.assert_close(found.step(batch.history, batch.context), expected, rtol=0, atol=0)
        small = Surrogate.from_checkpoint(found.save(tmp_path / "small.pt"))
        torch.testing.assert_close(small.step(batch.history, batch.context), expected, rtol=0, atol=0)
    assert found.metadata == waves.metadata
    torch.testing.assert_close(found.normalizer.std, data.statistics.std)


def test_three_lines_from_a_file_to_a_forecast(waves, tmp_path):
    _, data, path = fitted_checkpoint(waves, tmp_path)
    surrogate = pdesurrogate.Surrogate.from_checkpoint(path)
    trajectory = pdesurrogate.Archive(waves.path).trajectories("test")[0]
    found = pdesurrogate.forecast(surrogate, trajectory, frames=5)
    batch = next(iter(data.predict_dataloader()))
    with torch.no_grad():
        expected = torch.cat(list(rollout(surrogate, batch.history, batch.context, frames=5)), dim=1)
    torch.testing.assert_close(found, expected[0])
    with pytest.raises(ValueError, match=r"within 0\.\.8"):
        pdesurrogate.forecast(surrogate, trajectory, frames=1, start_frame=0)


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(waves, tmp_path):
    _, data, path = fitted_checkpoint(waves, tmp_path)
    other = ForecastModule(network(width=8), data.metadata)
    with pytest.raises(ValueError, match=r"width: 8 in the configuration, 6 in the checkpoint"):
        trainer(tmp_path).fit(other, data, ckpt_path=path, weights_only=True)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"pdesurrogate": Bomb(), "state_dict": {}}, tmp_path / "bomb.ckpt")
    with pytest.raises(ValueError, match="could run code"):
        Surrogate.from_checkpoint(tmp_path / "bomb.ckpt")
    assert not (tmp_path / "exploded").exists()


def test_a_slim_checkpoint_serves_the_trainer_too(waves, tmp_path):
    module, data, path = fitted_checkpoint(waves, tmp_path)
    expected = trainer(tmp_path).test(module, data, verbose=False)
    slim = Surrogate.from_checkpoint(path).save(tmp_path / "slim.ckpt")
    fresh = ForecastModule(network(), data.metadata)
    found = trainer(tmp_path).test(fresh, data, ckpt_path=slim, weights_only=True, verbose=False)
    assert found == expected


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_weights_that_were_never_trained_are_not_measured(waves, tmp_path, verb):
    data = ForecastData(waves)
    with pytest.raises(ValueError, match="give a checkpoint with --ckpt_path"):
        getattr(trainer(tmp_path), verb)(ForecastModule(network(), data.metadata), data)


def test_what_a_run_was_is_in_its_checkpoint(waves, tmp_path):
    _, data, path = fitted_checkpoint(waves, tmp_path, augmentation=SquareSymmetries(), learning_rate=3e-3)
    training = torch.load(path, weights_only=True)["training"]
    assert training["settings"]["learning_rate"] == 3e-3
    assert training["settings"]["augmentation"]["class_path"].endswith("SquareSymmetries")
    assert training["settings"]["batch_size"] == data.batch_size
    assert (training["steps"], training["epochs"]) == (5, 1)
    assert training["parameters_without_gradient"] == []


def test_parameters_that_training_never_reached_are_named(waves, tmp_path):
    class Idle(FNO):
        pass

    Idle = recorded(Idle)
    idle = Idle(channels=1, modes=(4, 4), width=4, layers=1)
    idle.unused = nn.Parameter(torch.zeros(3))
    data = ForecastData(waves, batch_size=8)
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(ForecastModule(idle, data.metadata), data)
    fit.save_checkpoint(tmp_path / "model.ckpt")
    training = torch.load(tmp_path / "model.ckpt", weights_only=True)["training"]
    assert training["parameters_without_gradient"] == ["network.unused"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut short"), "cannot be read"),
        (lambda path: torch.save({"state_dict": {}}, path), "no 'pdesurrogate' entry"),
    ],
    ids=["missing", "truncated", "foreign"],
)
def test_damaged_checkpoints_are_refused(tmp_path, write, message):
    write(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=message):
        Surrogate.from_checkpoint(tmp_path / "x.ckpt")


def test_unrolling_differentiates_as_asked(waves, tmp_path):
    data = ForecastData(waves, batch_size=4, target_frames=3)
    gradients = {}
    for unroll in ("backpropagate", "push_forward"):
        module = ForecastModule(network(), data.metadata, unroll=unroll)
        fit = trainer(tmp_path, max_steps=1)
        fit.fit(module, data)
        batch = next(iter(data.val_dataloader()))
        prediction, target = module._unrolled(batch)
        frames = 3 if unroll == "backpropagate" else 1
        # One validation frame is given; the training target has three.
        assert prediction.shape[1] == target.shape[1] == 1
        batch = next(iter(data.train_dataloader()))
        prediction, target = module._unrolled(batch)
        assert prediction.shape[1] == target.shape[1] == frames
        assert torch.equal(target, batch.target[:, 3 - frames :])
        gradients[unroll] = torch.autograd.grad(prediction.sum(), module.surrogate.network.lifting.parameters())[0]
    assert not torch.allclose(gradients["backpropagate"], gradients["push_forward"])


def test_pushing_forward_applies_the_network_without_gradient_to_all_but_the_last_block(waves, tmp_path):
    data = ForecastData(waves, batch_size=4, target_frames=5, history_frames=2)
    module = ForecastModule(network(history_frames=2, target_frames=2), data.metadata, 2, unroll="push_forward")
    trainer(tmp_path, max_steps=1).fit(module, data)
    batch = next(iter(data.train_dataloader()))
    prediction, target = module._unrolled(batch)
    # Blocks of two: frames 0 to 3 are pushed, frame 4 counts.
    assert torch.equal(target, batch.target[:, 4:])
    with torch.no_grad():
        whole = torch.cat(list(rollout(module.surrogate, batch.history, batch.context, 5)), dim=1)
    torch.testing.assert_close(prediction.detach(), whole[:, 4:])


def test_predictions_go_into_an_archive_without_the_given_frames(waves, tmp_path):
    module, data, _ = fitted_checkpoint(waves, tmp_path, history_frames=2)
    trainer(tmp_path, callbacks=[PredictionArchive(str(tmp_path / "out"))]).predict(
        module, data, return_predictions=False
    )
    found = Archive(tmp_path / "out").trajectories("test")
    assert [len(t) for t in found] == [6, 6]
    assert found[0].times[0] == pytest.approx(0.2)
    with torch.no_grad():
        batch = next(iter(data.predict_dataloader()))
        torch.testing.assert_close(torch.stack([t.read() for t in found]), module(batch))
    with pytest.raises(ValueError, match="choose another place"):
        trainer(tmp_path, callbacks=[PredictionArchive(str(tmp_path / "out"))]).predict(module, data)


@recorded
class BlowsUp(nn.Module):
    """Gives NaN where the mean of the field is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, history):
        bad = history.mean((1, 2, 3, 4), keepdim=True) < 0
        return torch.where(bad, torch.nan, self.scale * history[:, -1:])


def test_a_prediction_that_blows_up_is_stored_beside_the_others(square, tmp_path, capsys):
    values = torch.ones(3, 4, 1, 8, 8)
    values[1] = -2.0
    metadata = Metadata("signs", square, (Channel("height"),), frame_interval=0.5)
    data = ForecastData(write_archive(tmp_path, metadata, {"train": values, "test": values}), batch_size=2)
    module = ForecastModule(BlowsUp(), metadata)
    module._trained = True
    run = trainer(tmp_path, callbacks=[PredictionArchive(str(tmp_path / "out"))])
    run.predict(module, data, return_predictions=False)
    found = torch.stack([t.read() for t in Archive(tmp_path / "out").trajectories("test")])
    assert bool(torch.isnan(found[1]).all())
    assert bool((found[[0, 2]] == 1).all())
    assert "trajectory 1 stopped at time 0.5" in capsys.readouterr().out
    hashes = Archive(tmp_path / "out").metadata.attributes["content_hash"], data.metadata.attributes.get("content_hash")
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"learning_rate": 0.0}, "learning_rate > 0"), ({"input_noise": -1.0}, "input_noise >= 0")],
)
def test_bad_arguments_are_refused(waves, options, message):
    with pytest.raises(ValueError, match=message):
        ForecastModule(network(), waves.metadata, **options)


def test_a_network_that_could_not_be_saved_is_refused_before_training(waves):
    with pytest.raises(ValueError, match="@recorded"):
        ForecastModule(nn.Conv2d(1, 1, 1), waves.metadata)


@pytest.mark.parametrize("schedule", [WarmupCosine(0.1, 0.1), OneCycle(), Constant()], ids=lambda s: type(s).__name__)
def test_schedules_never_exceed_the_learning_rate(schedule):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    scheduler = schedule.build(optimizer, 50)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.5, rel=1e-2)
    assert rates[-1] <= 0.5


def shear_flow(folder, points: int = 9, trajectories: int = 4) -> Archive:
    """Waves of size 0.1 that travel on a mean flow of up to 10 between walls, which they do not reach."""
    grid = Grid((Axis("x", period=1.0), Axis("y", bounds=(0.0, 1.0))))
    metadata = Metadata("shear", grid, (Channel("velocity_x"),), frame_interval=0.1)
    x, y = torch.arange(16, dtype=torch.float64) / 16, torch.linspace(0, 1, points, dtype=torch.float64)
    times = 0.1 * torch.arange(8, dtype=torch.float64)
    phases = torch.arange(float(trajectories))[:, None, None, None, None]
    wave = torch.sin(2 * torch.pi * (x[:, None] - 2 * times[:, None, None, None]) + phases) * y * (1 - y)
    for split in ("train", "val", "test"):
        with ArchiveWriter(folder / f"{split}.nc", metadata, (x, y), times, trajectories) as writer:
            writer.write(0, (40 * y * (1 - y) + 0.4 * wave).float())
            writer.finish()
    return Archive(folder)


def on_fluctuations(data: ForecastData, **options) -> ForecastModule:
    options = {"loss": FluctuationL2(), "learning_rate": 1e-2, "normalization": "profile", **options}
    return ForecastModule(network(modes=(4, 4)), data.metadata, **options)


@pytest.mark.parametrize("target", ["state", "increment"])
def test_a_surrogate_of_fluctuations_learns_and_stands_alone(tmp_path, target):
    data = ForecastData(shear_flow(tmp_path), batch_size=4)
    module = on_fluctuations(data, target=target)
    # Averaging weights copies the module before the statistics are gathered.
    fit = trainer(tmp_path, max_epochs=8, callbacks=[EMAWeightAveraging(decay=0.5)])
    fit.fit(module, data)
    statistics = data.profile_statistics
    assert torch.equal(module.surrogate.normalizer.mean, statistics.mean)
    y = torch.linspace(0, 1, 9)
    torch.testing.assert_close(statistics.mean[0, 0], 40 * y * (1 - y), rtol=0, atol=1e-3)
    deviation = 0.4 * (y * (1 - y)).square().mean().div(2).sqrt()
    torch.testing.assert_close(statistics.std, deviation[None], rtol=1e-2, atol=0)
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        predicted, persistent = (
            float(FluctuationL2().distance(each, batch.target, batch.context, data.metadata.grid))
            for each in (module(batch), batch.history)
        )
    assert predicted < 0.3 * persistent
    fit.save_checkpoint(tmp_path / "model.ckpt")
    alone = Surrogate.from_checkpoint(tmp_path / "model.ckpt")
    with torch.no_grad():
        found, expected = (each.step(batch.history, batch.context) for each in (alone, module.surrogate))
    assert torch.equal(found, expected)


def test_a_checkpoint_with_a_profile_is_tested_on_its_own_grid_and_terms(tmp_path):
    data = ForecastData(shear_flow(tmp_path), batch_size=4)
    module = on_fluctuations(data)
    trainer(tmp_path, max_epochs=1).fit(module, data)
    path = module.surrogate.save(tmp_path / "model.ckpt")
    again = {"ckpt_path": path, "weights_only": True, "verbose": False}
    found = trainer(tmp_path).test(on_fluctuations(data), data, **again)
    assert found == trainer(tmp_path).test(module, data, verbose=False)
    with pytest.raises(ValueError, match="normalization: None in the configuration, 'profile' in the"):
        trainer(tmp_path).test(on_fluctuations(data, normalization="channel"), data, **again)
    (tmp_path / "fine").mkdir()
    fine = ForecastData(shear_flow(tmp_path / "fine", points=12))
    with pytest.raises(ValueError, match=r"profile\.1: 12 in the configuration, 9 in the checkpoint"):
        trainer(tmp_path).test(on_fluctuations(fine), fine, **again)


def test_a_profile_of_a_periodic_box_is_the_mean_of_the_channel(waves, tmp_path):
    data = ForecastData(waves)
    profile, channel = data.profile_statistics, data.statistics
    assert profile.mean.shape == (1, 1, 1)
    torch.testing.assert_close(profile.mean.flatten(), channel.mean)
    assert torch.equal(profile.std, channel.std)
    assert torch.equal(profile.increment_rms, channel.increment_rms)


def test_losses_with_other_parts_or_weights_are_other_settings(waves, tmp_path):
    losses = [
        RelativeL2PerChannel(),
        RelativeL2PerChannel(weights=[2.0]),
        WeightedSum([FluctuationL2(), LogLineSpectrum()], [1.0, 0.1]),
        WeightedSum([FluctuationL2(), LogLineSpectrum()], [1.0, 0.2]),
        WeightedSum([FluctuationL2(weights=[1.0]), LogLineSpectrum()], [1.0, 0.1]),
        WeightedSum([FluctuationL2(), LogLineSpectrum(kept=0.5)], [1.0, 0.1]),
    ]
    described = []
    for loss in losses:
        _, _, path = fitted_checkpoint(waves, tmp_path, loss=loss)
        described.append(torch.load(path, weights_only=True)["training"]["settings"]["loss"])
    assert all(one != other for place, one in enumerate(described) for other in described[:place])
    module = "pdesurrogate.training.losses"
    # Without weights, what it was before there were any.
    assert described[0] == {"class_path": f"{module}.RelativeL2PerChannel"}
    assert described[2] == {
        "class_path": f"{module}.WeightedSum",
        "losses": [
            {"class_path": f"{module}.FluctuationL2", "relative_to": "channel", "floor": 0.05},
            {"class_path": f"{module}.LogLineSpectrum", "kept": 1.0, "floor": 1e-8},
        ],
        "weights": [1.0, 0.1],
    }

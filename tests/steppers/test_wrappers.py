"""Steppers around steppers: put on, read off, put on again; trained with, and found in the checkpoint."""

from __future__ import annotations

import warnings
from functools import partial

import lightning
import pytest
import torch
from helpers import write_archive
from torch import nn

from pdesurrogate.cli.evaluate import surrogate_from
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.models.fno import FNO
from pdesurrogate.steppers.ensemble import Ensemble
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.projection import DivergenceFree, FlowRate, NoSlip
from pdesurrogate.steppers.surrogate import Surrogate
from pdesurrogate.steppers.wrappers import innermost, wrapped, wrappers_from, wrappers_of
from pdesurrogate.training.forecast import ForecastModule

NODES = Metadata(
    "channel",
    Grid((Axis("x", period=1.0), Axis("y"))),
    (Channel("velocity_x"), Channel("velocity_y")),
    frame_interval=0.1,
)
CONDITIONS = [NoSlip, partial(FlowRate, bulk_velocity=0.75)]


def surrogate():
    return Surrogate(FNO(channels=2, modes=(2, 2), width=4, layers=1), NODES)


def test_they_are_read_off_and_put_on_again():
    around = wrapped(surrogate(), CONDITIONS)
    found = wrappers_of(around)
    assert [each["class_path"].rpartition(".")[2] for each in found] == ["NoSlip", "FlowRate"]
    assert found[1]["init_args"] == {"bulk_velocity": 0.75, "streamwise": "x"}
    again = wrapped(innermost(around), wrappers_from(found))
    assert wrappers_of(again) == found
    assert innermost(again) is innermost(around)


def test_what_is_not_wrapped_has_no_wrappers():
    alone = surrogate()
    assert wrappers_of(alone) == []
    assert innermost(alone) is alone
    assert wrapped(alone, ()) is alone


def test_what_cannot_be_a_wrapper_is_refused():
    class Loud(nn.Module):
        def __init__(self, stepper, volume):
            super().__init__()
            self.stepper, self.history_frames, self._volume = stepper, 1, volume

        def step(self, history, context):
            return self.stepper.step(history, context)

    with pytest.raises(ValueError, match="gives a stepper but got a Identity"):
        wrapped(Persistence(), [lambda stepper: nn.Identity()])
    with pytest.raises(ValueError, match="argument 'volume' of a Loud as an attribute"):
        wrappers_of(Loud(Persistence(), 11))
    with pytest.raises(ValueError, match="cannot be imported"):
        wrappers_from([{"class_path": "nowhere.Wrapper", "init_args": {}}])
    with pytest.raises(ValueError, match="is none"):
        wrappers_from([{"class_path": "pdesurrogate.steppers.wrappers.wrapped"}])
    with pytest.raises(ValueError, match="staggered"):
        wrapped(surrogate(), [DivergenceFree])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    noise = torch.randn(3, 5, 2, 8, 6, generator=torch.Generator().manual_seed(0))
    coordinates = (torch.arange(8) / 8, torch.linspace(0, 2, 6))
    return write_archive(
        tmp_path_factory.mktemp("nodes"), NODES, {"train": noise[:1], "val": noise[1:2], "test": noise[2:]}, coordinates
    )


def fitted(archive, folder, wrappers):
    module = ForecastModule(surrogate().network, archive.metadata, wrappers=wrappers)
    data = ForecastData(archive, batch_size=2, rollout_frames=2)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, data)
    path = folder / "last.ckpt"
    trainer.save_checkpoint(path)
    return module, path


def test_training_and_evaluation_have_the_same_around_the_surrogate(archive, tmp_path):
    module, path = fitted(archive, tmp_path, CONDITIONS)
    stepper, card = surrogate_from(path)
    assert wrappers_of(stepper) == wrappers_of(module.stepper) == card.config["wrappers"]
    assert card.kind == "surrogate"
    assert card.parameters == sum(p.numel() * (2 if p.is_complex() else 1) for p in module.parameters())
    frames = archive.trajectories("test")[0]
    context = frames.context._replace(coordinates=tuple(points[None] for points in frames.context.coordinates))
    with torch.no_grad():
        made = stepper.step(frames.read(0, 1)[None], context)
    assert made[..., 0].abs().max() == 0
    weights = torch.tensor([0.5, 1, 1, 1, 1, 0.5])
    assert (made[0, 0, 0] * weights).sum() / 8 / 5 == pytest.approx(0.75, abs=1e-5)


def test_without_wrappers_nothing_is_recorded(archive, tmp_path):
    module, path = fitted(archive, tmp_path, None)
    assert "wrappers" not in module.settings
    stepper, card = surrogate_from(path)
    assert isinstance(stepper, Surrogate)
    assert "wrappers" not in card.config


def test_their_parameters_are_the_surrogates_alone(archive):
    bare = ForecastModule(surrogate().network, archive.metadata)
    around = ForecastModule(surrogate().network, archive.metadata, wrappers=CONDITIONS)
    assert list(bare.state_dict()) == list(around.state_dict())


def test_others_may_be_put_around_each_checkpoint(archive, tmp_path):
    _, path = fitted(archive, tmp_path, CONDITIONS)
    other = tmp_path / "wrap.yaml"
    other.write_text("- class_path: pdesurrogate.steppers.projection.FlowRate\n  init_args: {bulk_velocity: 2.0}\n")
    none = tmp_path / "none.yaml"
    none.write_text("[]\n")
    stepper, card = surrogate_from(path, wrap=other)
    assert [each["init_args"]["bulk_velocity"] for each in wrappers_of(stepper)] == [2.0]
    assert card.config["wrappers"] == wrappers_of(stepper)
    alone, card = surrogate_from(path, wrap=none)
    assert isinstance(alone, Surrogate)
    assert "wrappers" not in card.config
    ensemble, _ = surrogate_from(path, path, wrap=other)
    assert isinstance(ensemble, Ensemble)
    context = archive.trajectories("test")[0].context
    batched = context._replace(coordinates=tuple(points.expand(2, -1) for points in context.coordinates))
    with torch.no_grad():
        made = ensemble.fold(ensemble.step(*ensemble.spread(torch.ones(2, 1, 2, 8, 6), batched)))
    weights = torch.tensor([0.5, 1, 1, 1, 1, 0.5]) / 5
    assert torch.allclose((made[:, :, 0, 0] * weights).sum(-1).mean(-1), torch.full((2, 2), 2.0), atol=1e-5)


def test_a_wrapper_with_parameters_or_hidden_arguments_is_refused_at_once(archive):
    class Tuned(nn.Module):
        def __init__(self, stepper):
            super().__init__()
            self.stepper, self.history_frames = stepper, 1
            self.gain = nn.Parameter(torch.ones(()))

        def step(self, history, context):
            return self.gain * self.stepper.step(history, context)

    with pytest.raises(ValueError, match="without parameters of their own"):
        ForecastModule(surrogate().network, archive.metadata, wrappers=[Tuned])

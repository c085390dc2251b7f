"""Increments from frames that the mean flow has carried along."""

from __future__ import annotations

import copy
import warnings

import lightning
import pytest
import torch
from helpers import write_archive
from torch import nn

from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.convection import convected
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.specification import recorded
from pdesurrogate.steppers.surrogate import Surrogate
from pdesurrogate.training.forecast import ForecastModule

LINES = (torch.arange(16) / 16, torch.linspace(0, 1, 4))
WALLED = Metadata(
    "sheared", Grid((Axis("x", period=1.0), Axis("y"))), (Channel("height"), Channel("tracer")), frame_interval=0.1
)


def sheared(count=2, frames=6, seed=0):
    """Frozen noise ``(count, frames, channel, x, y)`` that a flow carries with a speed of its own at every height."""
    displacement = torch.tensor([[0.0, 0.1, 0.25, -0.15], [0.3, 0.2, 0.1, 0.0]])[:, None]
    noise = torch.randn(count, 2, 16, 4, generator=torch.Generator().manual_seed(seed))
    start = torch.fft.irfft(torch.fft.rfft(noise, dim=2)[:, :, :5], n=16, dim=2)
    moved = [convected(start, time * displacement, 0, 1.0) for time in range(frames)]
    return displacement, torch.stack(moved, 1)


def convecting(network, **options):
    surrogate = Surrogate(network, WALLED, target="convected_increment", **options)
    surrogate.fit_profile_to((16, 4))
    return surrogate


def of_height(batch=2):
    return Context(tuple(line.expand(batch, -1) for line in LINES))


@recorded
class Still(nn.Module):
    """No increment; as many frames as asked for."""

    def __init__(self, frames=1) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, history):
        self.given = history
        return torch.zeros_like(history[:, -1:]).expand(-1, self.frames, *history.shape[2:])


@pytest.mark.parametrize("frames", [1, 3])
def test_a_frozen_flow_is_carried_along_by_a_convected_increment_of_nothing(frames):
    displacement, values = sheared()
    surrogate = convecting(Still(frames))
    surrogate.convection.copy_(displacement)
    made = surrogate.step(values[:, 1:2], of_height())
    assert torch.allclose(made, values[:, 2 : 2 + frames], atol=1e-5)


def test_every_given_frame_is_carried_to_the_time_of_the_predicted_one():
    displacement, values = sheared()
    network = Still()
    surrogate = convecting(network, history_frames=3)
    surrogate.convection.copy_(displacement)
    surrogate.step(values[:, :3], of_height())
    assert torch.allclose(network.given, values[:, 3:4].expand(-1, 3, -1, -1, -1), atol=1e-5)


def test_convection_and_the_size_of_its_increments_come_from_the_training_data(tmp_path):
    displacement, values = sheared(count=3, frames=8)
    values = values + 0.01 * torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    archive = write_archive(tmp_path, WALLED, dict.fromkeys(("train", "val", "test"), values), LINES)
    network = FNO(channels=2, modes=(2, 2), width=4, layers=1)
    module = ForecastModule(network, WALLED, target="convected_increment", normalization="profile")
    trainer = lightning.Trainer(
        max_steps=2, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        enable_checkpointing=False, use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, ForecastData(archive, batch_size=4))
    surrogate = module.surrogate
    assert torch.allclose(surrogate.convection, displacement, atol=0.01)
    # What is left of the increments is the noise of two frames, a part of which waves of two points lose.
    assert torch.allclose(surrogate.increment_rms, torch.full((2,), 0.01 * 2**0.5), rtol=0.1)
    path = surrogate.save(tmp_path / "carried.ckpt")
    again = Surrogate.from_checkpoint(path)
    assert again.target == "convected_increment"
    assert again.profile == (1, 4)
    history = values[:2, :1]
    assert torch.equal(again.step(history, of_height()), surrogate.eval().step(history, of_height()))
    with pytest.raises(ValueError, match="Expected 4 points along y, as the mean profile has, but got 5"):
        again.step(torch.zeros(2, 1, 2, 16, 5), of_height())


def test_convection_needs_a_periodic_axis():
    closed = Metadata("box", Grid((Axis("x"), Axis("y"))), (Channel("height"),), frame_interval=0.1)
    with pytest.raises(ValueError, match="target='convected_increment' but none of the axes"):
        Surrogate(Still(), closed, target="convected_increment")
    with pytest.raises(ValueError, match="Expected target among"):
        Surrogate(Still(), WALLED, target="convected")


def test_another_grid_in_testing_does_not_erase_what_was_learned(tmp_path):
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    _, values = sheared(count=3, frames=8)
    archive = write_archive(tmp_path / "a", WALLED, dict.fromkeys(("train", "val", "test"), values), LINES)
    taller = (LINES[0], torch.linspace(0, 1, 5))
    more = torch.cat([values, values[..., :1]], -1)
    other = write_archive(tmp_path / "b", WALLED, dict.fromkeys(("train", "val", "test"), more), taller)
    module = ForecastModule(
        FNO(channels=2, modes=(2, 2), width=4, layers=1), WALLED, target="convected_increment", normalization="profile"
    )

    def trainer():
        return lightning.Trainer(
            max_steps=2, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            enable_checkpointing=False, use_distributed_sampler=False, default_root_dir=tmp_path,
        )  # fmt: skip

    trainer().fit(module, ForecastData(archive, batch_size=4))
    convection = module.surrogate.convection.clone()
    with pytest.raises(ValueError, match="Expected 4 points along y, as the mean profile has, but got 5"):
        trainer().test(module, ForecastData(other, batch_size=4), verbose=False)
    assert torch.equal(module.surrogate.convection, convection)


def test_a_checkpoint_from_before_an_argument_had_come_goes_on(tmp_path):
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    module = ForecastModule(FNO(channels=2, modes=(2, 2), width=4, layers=1), WALLED)
    stored = copy.deepcopy({"pdesurrogate": module.surrogate.specification(), "training": {}})
    del stored["pdesurrogate"]["network"]["init_args"]["positional"]
    module.on_load_checkpoint(stored)
    stored["pdesurrogate"]["network"]["init_args"]["positional"] = "grid"
    with pytest.raises(ValueError, match="positional: 'none' in the configuration, 'grid' in the checkpoint"):
        module.on_load_checkpoint(stored)

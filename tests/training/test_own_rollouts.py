"""Training on a surrogate's own rollouts: which states are kept, which begin anew, and what is learned from them."""

from __future__ import annotations

import warnings

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Axis, Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.specification import recorded
from pdesurrogate.steppers.surrogate import load_checkpoint
from pdesurrogate.training.callbacks import ReproducibleSteps
from pdesurrogate.training.forecast import ForecastModule
from pdesurrogate.training.losses import LogLineSpectrum, MeanSquaredError, PlaneMoments
from pdesurrogate.training.own_rollouts import OwnRollouts
from pdesurrogate.training.schedules import Constant

GRID = Grid((Axis("x", period=1.0),))
ONE = torch.ones(1, 1)


def batch(size=4, value=1.0, parameter=7.0):
    history = torch.full((size, 1, 1, 8), value)
    context = Context((torch.arange(8).expand(size, -1) / 8,), parameters=torch.full((size, 1), parameter))
    return Batch(history, torch.zeros(size, 1, 1, 8), context)


def growing(factor):
    def forecast(history, context, frames):
        return torch.cat([history[:, -1:] * factor ** (number + 1) for number in range(frames)], 1)

    return forecast


def test_states_go_on_from_step_to_step():
    own = OwnRollouts(MeanSquaredError(), weight=2.0, states=4, frames=3, renewal=0.0)
    losses = [own.loss(growing(2.0), batch(), ONE, GRID).item() for _ in range(2)]
    # Every state is taken in every step: 2, 4, 8, then 16, 32, 64.
    assert losses == [2 * (4 + 16 + 64) / 3, 2 * (256 + 1024 + 4096) / 3]
    assert own.mean_age == 6
    assert own.state_dict()["history"].unique().tolist() == [64.0]


def test_more_states_than_samples_take_turns():
    torch.manual_seed(0)
    own = OwnRollouts(MeanSquaredError(), states=12, frames=1, renewal=0.0)
    for _ in range(60):
        own.loss(growing(1.0), batch(), ONE, GRID)
    assert own.mean_age == 60 * 4 / 12


def test_states_beyond_the_bounds_begin_anew_from_the_batch():
    own = OwnRollouts(MeanSquaredError(), states=4, frames=1, renewal=0.0, bounds=(-3.0, 3.0))
    own.loss(growing(5.0), batch(), ONE, GRID)
    assert own.state_dict()["history"].unique().tolist() == [5.0]
    own.loss(growing(1.0), batch(value=2.0), ONE, GRID)
    assert own.state_dict()["history"].unique().tolist() == [2.0]
    assert own.mean_age == 1


def test_what_overflows_costs_nothing_and_begins_anew():
    own = OwnRollouts(MeanSquaredError(), states=4, frames=2, renewal=0.0)
    weight = torch.ones((), requires_grad=True)
    loss = own.loss(lambda history, context, frames: history * weight * torch.inf, batch(), ONE, GRID)
    assert loss.item() == 0
    assert own.loss(growing(1.0), batch(), ONE, GRID).item() == 0.5


def test_renewal_is_now_and_then():
    torch.manual_seed(0)
    own = OwnRollouts(MeanSquaredError(), states=8, frames=1, renewal=0.25)
    for _ in range(400):
        own.loss(growing(1.0), batch(8), ONE, GRID)
    # A state is renewed in one step of four: its age is geometric, 4 steps on the mean; here of 8 states at one time.
    assert 2 < own.mean_age < 8


def test_numbers_out_of_range_are_refused():
    for wrong in ({"states": 0}, {"frames": 0}, {"weight": 0.0}, {"renewal": 1.5}):
        with pytest.raises(ValueError, match="states >= 1, frames >= 1, weight > 0"):
            OwnRollouts(MeanSquaredError(), **wrong)
    with pytest.raises(ValueError, match="low < high"):
        OwnRollouts(MeanSquaredError(), bounds=(1.0, 1.0))


def test_what_is_not_one_flow_is_refused():
    own = OwnRollouts(MeanSquaredError(), states=4, frames=1)
    with pytest.raises(ValueError, match="at most 4 samples, as many as there are states, but got 5"):
        own.loss(growing(1.0), batch(5), ONE, GRID)
    own.loss(growing(1.0), batch(), ONE, GRID)
    with pytest.raises(ValueError, match="the same parameters in all samples"):
        own.loss(growing(1.0), batch(parameter=8.0), ONE, GRID)
    mixed = batch()
    mixed.context.parameters[1] = 3.0
    with pytest.raises(ValueError, match="one flow at a time"):
        OwnRollouts(MeanSquaredError(), states=4).loss(growing(1.0), mixed, ONE, GRID)
    with pytest.raises(ValueError, match="Expected 6 states, as configured, but the checkpoint has 4"):
        OwnRollouts(MeanSquaredError(), states=6).load_state_dict(own.state_dict())


@recorded
class Gain(nn.Module):
    """The latest frame times one number, which starts too large."""

    def __init__(self, start: float = 1.1, channels: int = 1, history_frames: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(start))

    def forward(self, history):
        return self.gain * history[:, -1:]


def trainer_for(folder, **options):
    return lightning.Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0,
        **{"callbacks": [ReproducibleSteps()], "enable_checkpointing": "callbacks" in options, **options},
    )  # fmt: skip


def module_for(waves, network=None, **options):
    own = OwnRollouts(LogLineSpectrum(averaged_over="batch"), **{"states": 8, "frames": 2, **options})
    return ForecastModule(
        network or FNO(channels=1, modes=(3, 3), width=4, layers=1),
        waves.metadata,
        own_rollouts=own,
        schedule=Constant(),
    )


def test_what_the_mean_error_damps_own_rollouts_keep_alive(waves, tmp_path):
    def gain(own):
        module = ForecastModule(
            Gain(1.0), waves.metadata, own_rollouts=own, learning_rate=5e-3, weight_decay=0.0, loss=MeanSquaredError()
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            trainer_for(tmp_path, max_steps=80).fit(module, ForecastData(waves, batch_size=4))
        return module.surrogate.network.gain.item()

    # Waves travel, which a gain cannot do: the least error is that of a smaller wave, which dies out in a rollout.
    damped = gain(None)
    alive = gain(OwnRollouts(PlaneMoments(), weight=10.0, states=8, bounds=(-20.0, 20.0)))
    assert damped < 0.9
    assert alive == pytest.approx(1.0, abs=0.03)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_run_that_was_cut_goes_on_bit_for_bit(waves, tmp_path):
    def fit(folder, **resume):
        torch.manual_seed(0)
        module = module_for(waves)
        keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=5, save_top_k=-1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            trainer = trainer_for(tmp_path, max_steps=9, callbacks=[ReproducibleSteps(), keep])
            trainer.fit(module, ForecastData(waves, batch_size=4), **resume)
        return module

    whole = fit(tmp_path / "whole")
    resumed = fit(tmp_path / "resumed", ckpt_path=tmp_path / "whole" / "step=5.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    ours, theirs = (module.own_rollouts.state_dict() for module in (resumed, whole))
    assert torch.equal(ours["history"], theirs["history"])
    assert torch.equal(ours["ages"], theirs["ages"])
    settings = load_checkpoint(tmp_path / "whole" / "step=5.ckpt")["training"]["settings"]["own_rollouts"]
    assert settings["statistics"]["averaged_over"] == "batch"
    assert settings["states"] == 8
    assert not any(name.startswith("_") for name in settings)

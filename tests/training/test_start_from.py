"""Training that goes on from another training's weights, in another way."""

from __future__ import annotations

import warnings

import lightning
import pytest
import torch

from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.models.fno import FNO
from pdesurrogate.steppers.surrogate import Surrogate, load_checkpoint
from pdesurrogate.training.forecast import ForecastModule
from pdesurrogate.training.losses import MeanSquaredError


def fitted(waves, path, width=4, steps=3, **options):
    torch.manual_seed(0)
    module = ForecastModule(FNO(channels=1, modes=(3, 3), width=width, layers=1), waves.metadata, **options)
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, default_root_dir=path.parent, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(module, ForecastData(waves, batch_size=4))
    trainer.save_checkpoint(path)
    return module


def test_it_starts_from_the_weights_and_remembers_how_they_came_about(waves, tmp_path):
    first = fitted(waves, tmp_path / "first.ckpt")
    still = fitted(
        waves, tmp_path / "second.ckpt", steps=1, start_from=str(tmp_path / "first.ckpt"), learning_rate=1e-12,
        weight_decay=0.0, loss=MeanSquaredError(),
    )  # fmt: skip
    for name, weights in first.surrogate.state_dict().items():
        assert torch.allclose(still.surrogate.state_dict()[name], weights, atol=1e-9), name
    record = load_checkpoint(tmp_path / "second.ckpt")["training"]
    before = load_checkpoint(tmp_path / "first.ckpt")["training"]
    assert record["settings"]["start_from"] == before["settings"]
    assert record["settings"]["loss"]["class_path"].endswith("MeanSquaredError")
    assert record["wall_time_s"] > before["wall_time_s"]
    assert "start_from" not in before["settings"]


def test_weights_alone_are_enough(waves, tmp_path):
    module = fitted(waves, tmp_path / "first.ckpt")
    module.surrogate.save(tmp_path / "slim.ckpt")
    again = fitted(waves, tmp_path / "second.ckpt", steps=1, start_from=str(tmp_path / "slim.ckpt"))
    assert again.settings["start_from"] is None
    Surrogate.from_checkpoint(tmp_path / "second.ckpt")


def test_another_surrogate_is_refused(waves, tmp_path):
    fitted(waves, tmp_path / "first.ckpt")
    with pytest.raises(ValueError, match=r"differ in .*width"):
        fitted(waves, tmp_path / "second.ckpt", width=6, start_from=str(tmp_path / "first.ckpt"))
    with pytest.raises(ValueError, match="does not exist"):
        fitted(waves, tmp_path / "second.ckpt", start_from=str(tmp_path / "nowhere.ckpt"))


def test_metadata_saved_before_channels_could_be_of_a_vector_are_the_same(waves, tmp_path):
    fitted(waves, tmp_path / "first.ckpt")
    stored = torch.load(tmp_path / "first.ckpt", weights_only=True)
    for channel in stored["pdesurrogate"]["metadata"]["channels"]:
        del channel["vector"]
    torch.save(stored, tmp_path / "old.ckpt")
    fitted(waves, tmp_path / "second.ckpt", steps=1, start_from=str(tmp_path / "old.ckpt"))
    assert (tmp_path / "second.ckpt").exists()

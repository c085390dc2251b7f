"""What a training leaves: its last epoch, whatever the validation says, and its best one."""

from __future__ import annotations

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pdesurrogate.cli.train import kept_checkpoints


class Worsening(lightning.LightningModule):
    """Counts its steps, and its validation error grows from the second epoch on."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_index):
        return self.weight

    def validation_step(self, batch, batch_index):
        self.log("val/relative_l2", abs(self.current_epoch - 1.0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_the_last_epoch_is_kept_beside_the_best(tmp_path):
    callbacks = kept_checkpoints()
    trainer = lightning.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks,
    )  # fmt: skip
    data = DataLoader(torch.zeros(3, 1), batch_size=1)
    trainer.fit(Worsening(), data, data)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    steps = {name: torch.load(folder / f"{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")}
    assert steps == {"best": 6, "last": 15}
    # A run goes on after the last epoch and not after the best.
    again = lightning.Trainer(
        max_epochs=6, accelerator="cpu", logger=False, default_root_dir=tmp_path / "again", enable_progress_bar=False,
        enable_model_summary=False, callbacks=kept_checkpoints(),
    )  # fmt: skip
    again.fit(Worsening(), data, data, ckpt_path=folder / "last.ckpt", weights_only=True)
    assert again.global_step == 18

"""What happens beside training: reproducible steps, predictions into an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from torch import Tensor

from pdesurrogate.data.archive import ArchiveWriter, archive_path
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.point_data import PointData
from pdesurrogate.evaluation.provenance import file_sha256
from pdesurrogate.fields.batch import Batch


class ReproducibleSteps(Callback):
    """Seeds every training step, so that noise and dropout do not depend on when a run was resumed.

    The seed is a function of the data's seed, the step and the rank: runs and devices draw different numbers.
    """

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the generators of all devices."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ForecastData | PointData)
        step = [data.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank]
        state = np.random.SeedSequence(step).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(state) % 2**63)


class PredictionArchive(BasePredictionWriter):
    """Writes predicted test trajectories into an archive of ours, ``test.nc`` below ``directory``.

    Without a directory it is ``predictions`` below the trainer's ``default_root_dir``. The first stored frame is the
    first *predicted* one: given history is never stored as prediction. A trajectory that was stopped holds NaN from
    there on, and its time is printed; the others are whole. The content hash covers the true data and the checkpoint.
    """

    def __init__(self, directory: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.directory = directory
        self._writer: ArchiveWriter | None = None
        self._written = 0
        self._stopped: list[str] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse what would be written twice.

        Raises:
            ValueError: on several devices, or if predictions lie there already.
        """
        if stage != "predict":
            return
        if trainer.world_size > 1:
            raise ValueError(f"Expected one device to write predictions but got {trainer.world_size}; use devices=1.")
        target = self._target(trainer)
        if target.exists():
            raise ValueError(
                f"Expected an empty place for predictions but {target} exists; "
                "choose another place with --trainer.default_root_dir."
            )

    def write_on_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the batch's trajectories."""
        assert isinstance(prediction, Tensor)
        if self._writer is None:
            self._writer = self._open(trainer)
        self._writer.write(self._written, prediction)
        times = _data_of(trainer).adapter.trajectories("test")[0].times[_data_of(trainer).history_frames :]
        finite = torch.isfinite(prediction).flatten(2).all(-1).cpu()
        for row in (~finite.all(1)).nonzero().flatten().tolist():
            time = float(times[int(finite[row].long().argmin())])
            self._stopped.append(f"trajectory {self._written + row} stopped at time {time:g}")
        self._written += len(prediction)

    def on_predict_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give the file its final name."""
        if self._writer is not None:
            print("\n".join([str(self._writer.finish()), *self._stopped]))

    def _target(self, trainer: lightning.Trainer) -> Path:
        directory = Path(trainer.default_root_dir) / "predictions" if self.directory is None else Path(self.directory)
        return archive_path(directory, "test")

    def _open(self, trainer: lightning.Trainer) -> ArchiveWriter:
        data = _data_of(trainer)
        trajectories = data.adapter.trajectories("test")
        first = trajectories[0]
        parameters = None
        if first.context.parameters is not None:
            parameters = torch.stack([t.context.parameters for t in trajectories if t.context.parameters is not None])
        truth = str(data.metadata.attributes.get("content_hash", ""))
        path = trainer.ckpt_path
        checkpoint = "" if path is None else file_sha256(path)
        attributes = {
            "source": "pdesurrogate predict",
            "truth_content_hash": truth,
            "checkpoint_sha256": checkpoint,
            "content_hash": hashlib.sha256(f"{truth} {checkpoint}".encode()).hexdigest(),
        }
        return ArchiveWriter(
            self._target(trainer),
            data.metadata,
            first.context.coordinates,
            first.times[data.history_frames :],
            len(trajectories),
            parameters=parameters,
            attributes=attributes,
        )


def _data_of(trainer: lightning.Trainer) -> ForecastData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ForecastData)
    return data

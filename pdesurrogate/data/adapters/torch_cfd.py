"""Vorticity files of torch-cfd: ``.pt``, a dictionary of tensors ``(sample, time, x, y)``.

Cao, Brarda, Li & Xi, *Spectral-Refiner: Accurate fine-tuning of spatiotemporal Fourier neural operator for turbulent
flows*, arXiv:2405.17211, appendix on data.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import (
    frame_times,
    lazy_trajectories,
    require_file,
    require_finite,
    require_split,
    splits_in_file_order,
    square_box,
    vorticity_metadata,
)
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory


class TorchCfd:
    """One field of a torch-cfd ``.pt`` file; an `Adapter`.

    The file is memory-mapped (old, unzipped torch files are read whole). It is loaded with ``weights_only=True`` and in
    no other way: files that hold anything but tensors in dictionaries are refused, because unpickling them could run
    any program that their author put inside.

    Args:
        path: the file.
        length: side of the box: 1 for the ``fnodata`` files, 2 pi for the ``McWilliams2d`` files.
        field: ``vorticity``, or another field that was saved: ``stream``, ``vort_t``, ``residual``.
        frame_interval: time between frames; needed unless the file has ``t_steps``.
        start_time: time of the first frame where the file has no ``t_steps``.
        viscosity: of the file's runs; not stored inside, so tell it to have it as a parameter.
        train: trajectories at the start of the file; by default all that are not for testing.
        val: trajectories cut from the end of those.
        test: trajectories at the end of the file.

    Raises:
        ValueError: if the file is truncated, holds other things than tensors, lacks the field, or its axes or times
            are not as above. Values are checked when they are read: NaN and infinity are refused.
    """

    def __init__(
        self,
        path: str | Path,
        length: float,
        field: str = "vorticity",
        frame_interval: float | None = None,
        start_time: float = 0.0,
        viscosity: float | None = None,
        train: int | None = None,
        val: int = 0,
        test: int = 0,
    ) -> None:
        self.path = Path(path)
        self.field = field
        require_file(self.path)
        tensors = _load(self.path)
        self._values: Tensor | None = _require_field(tensors, field, self.path)
        samples, frames, nx, ny = self._values.shape
        stored = tensors.get("t_steps")
        self._times = frame_times(stored, frames, frame_interval, start_time, what=f"entry t_steps of {self.path}")
        interval = float(self._times[1] - self._times[0]) if frame_interval is None else frame_interval
        grid, self._coordinates = square_box((nx, ny), length, what=f"field {field} of {self.path}")
        self._splits = splits_in_file_order(samples, max(samples - test, 0) if train is None else train, val, test)
        self._viscosity = viscosity
        self._metadata = vorticity_metadata(self.path, grid, field, interval, viscosity, {})

    @property
    def metadata(self) -> Metadata:
        """One channel on a periodic square."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one trajectory."""
        return tuple(self._splits)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in file order.

        Raises:
            ValueError: if there is no such split.
        """
        samples = require_split(self._splits, split, path=self.path)
        return lazy_trajectories(
            samples, self._metadata, self._coordinates, self._times, self._viscosity, self._read_into
        )

    def _read_into(self, sample: int, start: int, out: Tensor) -> None:
        if self._values is None:
            self._values = _require_field(_load(self.path), self.field, self.path)
        out[:, 0] = self._values[sample, start : start + len(out)]
        require_finite(out, what=f"sample {sample} of {self.path}", start=start)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}


def _load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped where possible; nothing but tensors is ever built from it."""
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        truncated = not zipped and file.read(4) == b"PK\x03\x04"
    if truncated:
        raise ValueError(f"Expected a whole torch file but {path} has lost its end. Download it again.")
    try:
        # torch-cfd saves a defaultdict(list), which the safe loader does not know; it is read as a plain dictionary.
        stand_ins: list[Any] = [
            (_plain_dictionary, "collections.defaultdict"),
            (list, "builtins.list"),
            (list, "__builtin__.list"),
        ]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            # Of other pickle protocols the safe loader either reads all or raises; its warning says nothing more.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Expected a dictionary of tensors but {path} holds other things, or is no torch file. Pickled objects can "
            "run any program when they are loaded, so they are refused. If you trust their author, load them in a "
            "throw-away environment and save the tensors alone: torch.save({name: tensor, ...}, path)."
        ) from error
    except Exception as error:  # damaged bytes make the parser raise errors of any kind
        raise ValueError(
            f"Expected a torch file but {path} cannot be read ({type(error).__name__}: {error}). "
            "It may be damaged; download it again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a dictionary of tensors in {path} but got {type(content).__name__}.")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _plain_dictionary(*factory: Any) -> dict[Any, Any]:
    return {}


def _require_field(tensors: dict[str, Tensor], field: str, path: Path) -> Tensor:
    saved = {name: tuple(value.shape) for name, value in tensors.items() if value.numel()}
    if field not in saved:
        raise ValueError(f"Expected the field {field!r} in {path} but it is missing or empty; found {saved}.")
    values = tensors[field]
    if values.ndim != 4 or values.shape[2] != values.shape[3] or not values.is_floating_point():
        raise ValueError(
            f"Expected real {field} (sample, time, x, y) with as many points in x as in y in {path} but got "
            f"{tuple(values.shape)}, {values.dtype}. If time is the last axis, save it again with permute(0, 3, 1, 2)."
        )
    return values

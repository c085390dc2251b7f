"""The reader: what is in the files, and frames of them when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import require_finite
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

SPLITS = ("train", "val", "test")


class TemplateDataset:
    """A folder with ``train.npy``, ``val.npy`` and ``test.npy``, ``(trajectory, time, channel, *space)``; an `Adapter`.

    The arrays lie on even points of a periodic box, x first, the first point at zero. They are memory-mapped: opening
    reads headers, and only frames that are asked for are read. For another format replace `_open` and `_read_into`;
    for walls give the `Axis` its bounds in place of a period.

    Args:
        path: the folder; a split whose file is not there is left out.
        fields: units of each channel, by name, in the order of the files.
        lengths: of the box along each axis.
        frame_interval: time between frames.

    Raises:
        ValueError: if no file is there, files differ in shape from each other or from what the arguments say, or hold
            no real numbers. Values are checked when they are read: NaN and infinity are refused.
    """

    def __init__(
        self, path: str | Path, fields: Mapping[str, str], lengths: Sequence[float], frame_interval: float
    ) -> None:
        self.path = Path(path)
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        found = [split for split in SPLITS if self._file(split).is_file()]
        if not found:
            raise ValueError(
                f"Expected {', '.join(f'{split}.npy' for split in SPLITS)}, or one of them, in {self.path} but none is "
                "there; check the path, which counts from the current folder."
            )
        self._shapes = {split: tuple(self._open(split).shape) for split in found}
        frame = self._shapes[found[0]][2:]
        for split, shape in self._shapes.items():
            if len(shape) != 3 + len(lengths) or shape[2:] != frame or shape[2] != len(fields) or 0 in shape:
                raise ValueError(
                    f"Expected (trajectory, time, {len(fields)}, *space) with {len(lengths)} space axes, as fields and "
                    f"lengths say, and one grid in all files but {self._file(split)} has {shape}."
                )
        grid = Grid(tuple(Axis(name, period=length) for name, length in zip("xyz", lengths, strict=False)))
        self._coordinates = grid.uniform_coordinates(frame[1:], dtype=torch.float32)
        self._metadata = Metadata(
            name="template_dataset",
            grid=grid,
            # Components of a vector say so: Channel("velocity_x", "m/s", vector="velocity").
            channels=tuple(Channel(name, units) for name, units in fields.items()),
            frame_interval=frame_interval,
        )

    @property
    def metadata(self) -> Metadata:
        """What all trajectories share."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits whose files are there."""
        return tuple(self._shapes)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in the order of the file.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._shapes:
            raise ValueError(f"Expected a split among {self.splits} but got {split!r}; there is no {split}.npy.")
        count, *shape = self._shapes[split]
        times = self._metadata.frame_interval * torch.arange(shape[0], dtype=torch.float64)
        # Parameters, masks and forcing of each trajectory belong into its context.
        context = Context(self._coordinates)
        return [
            Trajectory(self._metadata, context, times, partial(self._read_into, split, number), tuple(shape))
            for number in range(count)
        ]

    def _read_into(self, split: str, number: int, start: int, out: Tensor) -> None:
        frames = self._open(split)[number, start : start + len(out)]
        # Copied out of the map, in this machine's order of bytes.
        out.copy_(torch.from_numpy(frames.astype(frames.dtype.newbyteorder("="))))
        require_finite(out, what=f"trajectory {number} of {self._file(split)}", start=start)

    def _open(self, split: str) -> npt.NDArray[Any]:
        if split not in self._arrays:
            try:
                # Nothing is unpickled: a file of objects is refused.
                array = np.lib.format.open_memmap(self._file(split), mode="r")
            except ValueError as error:
                raise ValueError(f"Expected an array of real numbers in {self._file(split)} but {error}.") from error
            if array.dtype.kind not in "fiu":
                raise ValueError(f"Expected an array of real numbers in {self._file(split)} but got {array.dtype}.")
            self._arrays[split] = array
        return self._arrays[split]

    def _file(self, split: str) -> Path:
        return self.path / f"{split}.npy"

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes open the files for themselves.
        return {**self.__dict__, "_arrays": {}}

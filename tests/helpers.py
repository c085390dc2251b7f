"""Shared by several tests."""

from __future__ import annotations

from pathlib import Path

import torch

from pdesurrogate.data.archive import Archive, ArchiveWriter
from pdesurrogate.fields.grid import Metadata


def write_archive(directory: Path, metadata: Metadata, splits: dict[str, torch.Tensor]) -> Archive:
    """An archive whose splits hold the given ``(trajectory, time, channel, x, y)`` values."""
    for split, values in splits.items():
        times = metadata.frame_interval * torch.arange(values.shape[1], dtype=torch.float64)
        coordinates = metadata.grid.uniform_coordinates(tuple(values.shape[3:]))
        parameters = torch.zeros(len(values), len(metadata.parameters)) if metadata.parameters else None
        path = directory / f"{split}.nc"
        with ArchiveWriter(path, metadata, coordinates, times, len(values), parameters=parameters) as writer:
            writer.write(0, values)
            writer.finish()
    return Archive(directory)

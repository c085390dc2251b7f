"""Small data sets and trainers shared by the tests; everything is made here, nothing downloaded."""

from __future__ import annotations

import pytest
import torch
from helpers import write_archive
from hypothesis import settings

from pdesurrogate.data.archive import Archive
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata

# A busy machine is no failure: nothing in a unit test is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors gain nothing from threads, and results stay repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def square() -> Grid:
    return Grid((Axis("x", period=1.0), Axis("y", period=1.0)))


@pytest.fixture(scope="session")
def waves(tmp_path_factory, square) -> Archive:
    """Travelling waves on 16 x 16: 6/2/2 trajectories of 8 frames, one channel."""
    metadata = Metadata("waves", square, (Channel("vorticity", units="1/time"),), frame_interval=0.1)
    axis = torch.arange(16) / 16
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    time = 0.1 * torch.arange(8)[:, None, None]

    def trajectories(count: int, seed: int) -> torch.Tensor:
        phases = torch.rand(count, generator=torch.Generator().manual_seed(seed))
        fields = [torch.sin(2 * torch.pi * (x + 2 * y - time + phase)) + 0.5 * torch.cos(2 * torch.pi * (x + phase))
                  for phase in phases]  # fmt: skip
        return torch.stack(fields).unsqueeze(2)

    directory = tmp_path_factory.mktemp("waves")
    splits = {
        split: trajectories(count, seed)
        for seed, (split, count) in enumerate(zip(("train", "val", "test"), (6, 2, 2), strict=True))
    }
    return write_archive(directory, metadata, splits)

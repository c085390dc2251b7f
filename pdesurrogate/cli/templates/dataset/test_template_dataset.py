"""What every adapter keeps: frames as they are stored, read lazily, and every wrong file refused by name."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pdesurrogate.data.adapters.base import Adapter

from .adapter import TemplateDataset
from .example import write_example

ARGUMENTS: dict[str, Any] = {"fields": {"height": "1"}, "lengths": [1.0, 1.0], "frame_interval": 0.1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tiny files of all splits."""
    write_example(tmp_path, {"train": 3, "val": 1, "test": 1})
    return tmp_path


def test_frames_come_out_as_they_are_stored(folder: Path) -> None:
    """Any range of frames of any trajectory, with its time and place."""
    data = TemplateDataset(folder, **ARGUMENTS)
    assert isinstance(data, Adapter)
    assert data.splits == ("train", "val", "test")
    assert [len(data.trajectories(split)) for split in data.splits] == [3, 1, 1]
    trajectory = data.trajectories("train")[2]
    stored = torch.from_numpy(np.load(folder / "train.npy"))
    assert torch.equal(trajectory.read(4, 9), stored[2, 4:9])
    assert trajectory.shape == stored.shape[1:]
    assert trajectory.times[3] == pytest.approx(0.3)
    assert trajectory.context.coordinates[0][-1] == pytest.approx(31 / 32)


def test_opening_reads_no_frame_and_workers_open_for_themselves(folder: Path) -> None:
    """A bad value is found when its frame is read, not before; the adapter travels without its files."""
    values = np.load(folder / "test.npy")
    values[0, 5] = np.nan
    np.save(folder / "test.npy", values)
    data: TemplateDataset = pickle.loads(pickle.dumps(TemplateDataset(folder, **ARGUMENTS)))
    (trajectory,) = data.trajectories("test")
    assert trajectory.read(0, 5).isfinite().all()
    with pytest.raises(ValueError, match=r"frame 5 of trajectory 0 of .*test\.npy"):
        trajectory.read()


def test_a_split_without_a_file_is_left_out(folder: Path) -> None:
    """And refused when it is asked for."""
    (folder / "val.npy").unlink()
    data = TemplateDataset(folder, **ARGUMENTS)
    assert data.splits == ("train", "test")
    with pytest.raises(ValueError, match=r"among \('train', 'test'\) but got 'val'"):
        data.trajectories("val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": {"height": "1", "speed": "1"}}, r"train\.npy has \(3, 12, 1, 32, 32\)"),
        ({"lengths": [1.0]}, "with 1 space axes"),
        ({"lengths": [1.0, -1.0]}, "positive period"),
        ({"path": "nowhere"}, "none is there"),
    ],
)
def test_what_does_not_fit_the_files_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    """With what was expected and what was found."""
    with pytest.raises(ValueError, match=message):
        TemplateDataset(**{"path": folder, **ARGUMENTS, **change})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 12, 1, 16, 32)), r"val\.npy has \(1, 12, 1, 16, 32\)"),
        (np.zeros((1, 12, 1, 32, 32), complex), r"real numbers in .*val\.npy"),
        (np.array([{}]), r"real numbers in .*val\.npy but .*objects"),
    ],
)
def test_wrong_files_are_refused(folder: Path, values: Any, message: str) -> None:
    """By name; objects are never unpickled."""
    np.save(folder / "val.npy", values)
    with pytest.raises(ValueError, match=message):
        TemplateDataset(folder, **ARGUMENTS)


def test_a_file_that_was_cut_off_is_refused(folder: Path) -> None:
    """When it is opened."""
    whole = (folder / "val.npy").read_bytes()
    for length in (0, 50, len(whole) // 2):
        (folder / "val.npy").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"real numbers in .*val\.npy"):
            TemplateDataset(folder, **ARGUMENTS)

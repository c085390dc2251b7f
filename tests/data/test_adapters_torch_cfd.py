"""Files are written here exactly as torch-cfd writes them (``torch.save`` of a ``defaultdict(list)``) and read back."""

import collections
import math
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.torch_cfd import TorchCfd

LENGTH = 2 * math.pi


def wave(sample, time, x, y):
    """Different in x and y, in every sample and at every time."""
    return torch.sin(x) + 0.5 * torch.cos(2 * y) + 10.0 * sample + 0.25 * time


def published_tensors(samples=6, frames=5, points=8, dtype=torch.float32, times=False):
    axis = torch.arange(points, dtype=torch.float64) * (LENGTH / points)
    sample, time, x, y = torch.meshgrid(
        torch.arange(samples, dtype=torch.float64), torch.arange(frames, dtype=torch.float64), axis, axis, indexing="ij"
    )
    tensors = collections.defaultdict(list)
    tensors["vorticity"] = wave(sample, 0.055 * time, x, y).to(dtype)
    tensors["stream"] = -tensors["vorticity"]
    tensors["residual"] = torch.empty(0)
    tensors["random_states"] = torch.arange(1127825, 1127825 + samples, dtype=torch.int32)
    if times:
        tensors["t_steps"] = 0.2 * torch.arange(1, frames + 1, dtype=torch.float32)
    return tensors


def write(path, tensors, zipped=True):
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "McWilliams2d.pt", published_tensors())


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def test_values_are_those_of_the_field_at_the_coordinates_and_times(path):
    adapter = TorchCfd(path, LENGTH, frame_interval=0.055, test=2)
    assert isinstance(adapter, Adapter)
    for sample, trajectory in zip((4, 5), adapter.trajectories("test"), strict=True):
        x, y = trajectory.context.coordinates
        expected = wave(sample, trajectory.times[:, None, None].float(), x[:, None], y)
        # Coordinates are stored in single precision, so the argument of the sine is off by 4e-7 at most.
        assert torch.allclose(trajectory.read()[:, 0], expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("container", [dict, lambda tensors: tensors, collections.OrderedDict])
def test_every_container_of_tensors_is_read(tmp_path, zipped, container):
    tensors = published_tensors()
    adapter = TorchCfd(write(tmp_path / "set.pt", container(tensors), zipped), LENGTH, frame_interval=0.055)
    assert adapter.splits == ("train",)
    assert torch.equal(adapter.trajectories("train")[3].read()[:, 0], tensors["vorticity"][3])


@given(
    samples=st.integers(1, 5),
    frames=st.integers(2, 6),
    points=st.integers(2, 9),
    start=st.integers(0, 5),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_every_size_round_trips(samples, frames, points, start, data):
    test = data.draw(st.integers(0, samples))
    val = data.draw(st.integers(0, samples - test))
    generator = torch.Generator().manual_seed(samples + 10 * frames + 100 * points)
    values = torch.randn(samples, frames, points, points, generator=generator)
    start = min(start, frames - 1)
    with tempfile.TemporaryDirectory() as folder:
        saved = write(Path(folder) / "set.pt", {"vorticity": values})
        adapter = TorchCfd(saved, 1.0, frame_interval=0.5, val=val, test=test)
        trajectories = [trajectory for split in adapter.splits for trajectory in adapter.trajectories(split)]
        read = torch.stack([trajectory.read(start) for trajectory in trajectories])
    assert torch.equal(read[:, :, 0], values[:, start:])


def test_splits_follow_the_file(path):
    adapter = TorchCfd(path, LENGTH, frame_interval=0.055, train=4, val=1, test=1)
    found = {
        split: [round(float(trajectory.read(0, 1).mean()) / 10) for trajectory in adapter.trajectories(split)]
        for split in adapter.splits
    }
    assert found == {"train": [0, 1, 2], "val": [3], "test": [5]}


def test_times_come_from_the_file_or_from_the_arguments(tmp_path, path):
    saved = write(tmp_path / "fnodata.pt", published_tensors(times=True))
    adapter = TorchCfd(saved, 1.0)
    assert adapter.metadata.frame_interval == pytest.approx(0.2, rel=1e-6)
    assert adapter.trajectories("train")[0].times.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=1e-6)
    told = TorchCfd(path, LENGTH, frame_interval=0.055, start_time=4.501).trajectories("train")[0]
    assert told.times.tolist() == pytest.approx([4.501, 4.556, 4.611, 4.666, 4.721], rel=1e-12)
    with pytest.raises(ValueError, match="give frame_interval"):
        TorchCfd(path, LENGTH)
    with pytest.raises(ValueError, match=r"Expected frame_interval 0\.2"):
        TorchCfd(saved, 1.0, frame_interval=0.3)


def test_another_field_and_the_viscosity(path):
    adapter = TorchCfd(path, LENGTH, field="stream", frame_interval=0.055, viscosity=1e-3)
    assert adapter.metadata.channel_names == ("stream",)
    assert adapter.metadata.channels[0].units == "length^2/time"
    assert adapter.metadata.grid.periods == (LENGTH, LENGTH)
    (first, *_) = adapter.trajectories("train")
    assert torch.equal(first.read()[:, 0], published_tensors()["stream"][0])
    assert first.context.parameters.tolist() == pytest.approx([1e-3])


def test_double_precision_is_rounded_once(tmp_path):
    tensors = published_tensors(dtype=torch.float64)
    (first, *_) = TorchCfd(write(tmp_path / "fp64.pt", tensors), LENGTH, frame_interval=0.055).trajectories("train")
    assert torch.equal(first.read()[:, 0], tensors["vorticity"][0].float())


def test_a_pickled_adapter_reads_on(path):
    adapter = TorchCfd(path, LENGTH, frame_interval=0.055)
    copy = pickle.loads(pickle.dumps(adapter))
    assert torch.equal(copy.trajectories("train")[1].read(), adapter.trajectories("train")[1].read())


@pytest.mark.parametrize("form", ["pickle", "torch", "torch_legacy", "inside_default_dictionary"])
def test_pickled_programs_are_refused_and_not_run(tmp_path, form):
    mark, saved = tmp_path / "touched", tmp_path / "bomb.pt"
    content = {"vorticity": Bomb(mark)}
    if form == "pickle":
        saved.write_bytes(pickle.dumps(content))
    elif form == "inside_default_dictionary":
        tensors = published_tensors()
        tensors["bomb"] = Bomb(mark)
        write(saved, tensors)
    else:
        write(saved, content, zipped=form == "torch")
    with pytest.raises(ValueError, match=r"can run any program.*save the tensors alone"):
        TorchCfd(saved, LENGTH, frame_interval=0.055)
    assert not mark.exists()


def test_the_safe_loader_is_left_as_it_was(path):
    before = set(map(str, torch.serialization.get_safe_globals()))
    TorchCfd(path, LENGTH, frame_interval=0.055)
    assert set(map(str, torch.serialization.get_safe_globals())) == before


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, zipped, kept):
    saved = write(tmp_path / "set.pt", published_tensors(), zipped)
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"lost its end|cannot be read|holds pickled objects"):
        TorchCfd(saved, LENGTH, frame_interval=0.055)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"u": torch.zeros(2, 3, 4, 4)}, "'vorticity'.*missing or empty; found", id="missing"),
        pytest.param({"vorticity": torch.empty(0)}, "missing or empty", id="not_saved"),
        pytest.param(torch.zeros(2, 3, 4, 4), "dictionary of tensors", id="bare_tensor"),
        pytest.param({"vorticity": torch.zeros(2, 4, 4, 3)}, r"permute\(0, 3, 1, 2\)", id="time_last"),
        pytest.param({"vorticity": torch.zeros(2, 3, 4)}, r"\(sample, time, x, y\)", id="rank"),
        pytest.param({"vorticity": torch.zeros(2, 3, 4, 4).long()}, "Expected real", id="integers"),
        pytest.param(
            {"vorticity": torch.zeros(2, 3, 4, 4), "t_steps": torch.tensor([0.0, 1.0, 3.0])}, "evenly", id="uneven"
        ),
        pytest.param(
            {"vorticity": torch.zeros(2, 3, 4, 4), "t_steps": torch.tensor([0.0, 1.0])}, "each frame", id="short"
        ),
    ],
)
def test_wrong_layouts_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        TorchCfd(write(tmp_path / "set.pt", content), LENGTH, frame_interval=1.0)


def test_bad_values_are_refused_with_their_place(tmp_path):
    tensors = published_tensors()
    tensors["vorticity"][1, 2, 0, 0] = math.nan
    trajectories = TorchCfd(write(tmp_path / "set.pt", tensors), LENGTH, frame_interval=1.0).trajectories("train")
    assert trajectories[1].read(3).isfinite().all()
    with pytest.raises(ValueError, match="frame 2 of sample 1"):
        trajectories[1].read(1)


@pytest.mark.parametrize("sizes", [{"train": 5, "test": 2}, {"test": 7}, {"train": 2, "val": 3}, {"train": 0}])
def test_impossible_splits_are_refused(path, sizes):
    with pytest.raises(ValueError, match="Expected"):
        TorchCfd(path, LENGTH, frame_interval=1.0, **sizes)

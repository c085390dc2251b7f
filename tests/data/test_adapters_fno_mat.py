"""Files are written here exactly as published (version 5 by scipy, 7.3 by h5py with reversed axes) and read back."""

import math
import pickle
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.fno_mat import FnoMat


def wave(sample, time, x, y):
    """Different in x and y, in every sample and at every time."""
    return np.sin(2 * math.pi * x) + 0.5 * np.cos(4 * math.pi * y) + 10.0 * sample + 0.25 * time


def published_arrays(samples=6, points=8, frames=5, dtype=np.float32):
    axis = np.arange(points) / points
    sample, x, y, time = np.meshgrid(np.arange(samples), axis, axis, np.arange(1, frames + 1), indexing="ij")
    u = wave(sample, time, x, y).astype(dtype)
    a = wave(sample[..., 0], 0.0, x[..., 0], y[..., 0]).astype(dtype)
    return {"a": a, "u": u, "t": np.arange(1, frames + 1, dtype=np.float64)[None]}


def write_version_5(path, arrays, compress=False):
    savemat(path, arrays, do_compression=compress)
    return path


def write_version_73(path, arrays, chunks=None):
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            stored = np.ascontiguousarray(values.T)
            options = {}
            if name == "u" and chunks:
                fitting = tuple(min(size, chunk) for size, chunk in zip(stored.shape, chunks, strict=False))
                options = {"chunks": fitting, "compression": "gzip"}
            file.create_dataset(name, data=stored, **options)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


WRITERS = {
    "v5": write_version_5,
    "v5_compressed": lambda path, arrays: write_version_5(path, arrays, compress=True),
    "v73": write_version_73,
    "v73_chunked": lambda path, arrays: write_version_73(path, arrays, chunks=(2, 4, 8, 3)),
}
SIZES = {"train": 4, "val": 1, "test": 2}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    return lambda arrays: WRITERS[request.param](tmp_path / "ns_V1e-3.mat", arrays)


def test_values_are_those_of_the_field_at_the_coordinates_and_times(write):
    adapter = FnoMat(write(published_arrays()), **SIZES)
    assert isinstance(adapter, Adapter)
    for sample, trajectory in zip((4, 5), adapter.trajectories("test"), strict=True):
        x, y = (axis.numpy().astype(np.float64) for axis in trajectory.context.coordinates)
        expected = wave(sample, trajectory.times.numpy()[:, None, None], x[:, None], y)
        assert np.array_equal(trajectory.read()[:, 0].numpy(), expected.astype(np.float32))


def test_splits_follow_the_file_and_do_not_overlap(write):
    arrays = published_arrays()
    adapter = FnoMat(write(arrays), **SIZES)
    assert adapter.splits == ("train", "val", "test")
    found = {
        split: [float(trajectory.read(0, 1)[0, 0, 0, 0]) for trajectory in adapter.trajectories(split)]
        for split in adapter.splits
    }
    first_values = arrays["u"][:, 0, 0, 0].tolist()
    assert found == {"train": first_values[:3], "val": first_values[3:4], "test": first_values[4:]}


@given(samples=st.integers(2, 5), half=st.integers(1, 5), frames=st.integers(2, 6), version=st.sampled_from([*WRITERS]))
@settings(max_examples=20, deadline=None)
def test_every_size_round_trips(samples, half, frames, version):
    generator = np.random.default_rng(samples * 100 + half * 10 + frames)
    points = 2 * half
    arrays = published_arrays(samples, points, frames)
    arrays["u"] = generator.standard_normal(arrays["u"].shape, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        adapter = FnoMat(WRITERS[version](Path(folder) / "set.mat", arrays), train=samples - 1, test=1)
        trajectories = [*adapter.trajectories("train"), *adapter.trajectories("test")]
        read = torch.stack([trajectory.read() for trajectory in trajectories])
    assert read.shape == (samples, frames, 1, points, points)
    assert np.array_equal(read[:, :, 0].numpy(), arrays["u"].transpose(0, 3, 1, 2))


def test_any_range_of_frames_is_the_slice_of_the_whole(write):
    path = write(published_arrays())
    for initial_frame in (False, True):
        (trajectory,) = FnoMat(path, train=1, test=0, initial_frame=initial_frame).trajectories("train")
        whole = trajectory.read()
        for start in range(len(trajectory)):
            for stop in range(start + 1, len(trajectory) + 1):
                assert torch.equal(trajectory.read(start, stop), whole[start:stop])


def test_initial_condition_comes_first_when_asked_for(write):
    arrays = published_arrays()
    path = write(arrays)
    (without,) = FnoMat(path, train=1, test=0).trajectories("train")
    (trajectory,) = FnoMat(path, train=1, test=0, initial_frame=True).trajectories("train")
    assert trajectory.times.tolist() == [0.0, *without.times.tolist()]
    assert np.array_equal(trajectory.read(0, 1)[0, 0].numpy(), arrays["a"][0])
    assert torch.equal(trajectory.read(1), without.read())


def test_initial_condition_is_refused_where_times_do_not_begin_one_interval_after_it(write):
    arrays = published_arrays()
    arrays["t"] = arrays["t"] + 30.0
    with pytest.raises(ValueError, match="initial_frame=False"):
        FnoMat(write(arrays), **SIZES, initial_frame=True)


def test_metadata_state_the_box_and_the_viscosity(write):
    adapter = FnoMat(write(published_arrays()), viscosity=1e-3, **SIZES)
    metadata = adapter.metadata
    assert metadata.name == "ns_V1e-3"
    assert metadata.channel_names == ("vorticity",)
    assert metadata.grid.periods == (1.0, 1.0)
    assert metadata.frame_interval == 1.0
    assert metadata.parameters == ("viscosity",)
    assert adapter.trajectories("train")[0].context.parameters.tolist() == pytest.approx([1e-3])


def test_double_precision_is_rounded_once(write):
    arrays = published_arrays(dtype=np.float64)
    (trajectory,) = FnoMat(write(arrays), train=1, test=0).trajectories("train")
    assert np.array_equal(trajectory.read()[:, 0].numpy(), arrays["u"][0].transpose(2, 0, 1).astype(np.float32))


def test_a_pickled_adapter_reads_on(write):
    adapter = FnoMat(write(published_arrays()), **SIZES)
    before = adapter.trajectories("train")[2].read()
    copy = pickle.loads(pickle.dumps(adapter))
    assert torch.equal(copy.trajectories("train")[2].read(), before)


@pytest.mark.parametrize("name", ["a", "u", "t"])
def test_missing_variables_are_named(write, name):
    arrays = published_arrays()
    del arrays[name]
    with pytest.raises(ValueError, match=rf"\['{name}'\] are missing"):
        FnoMat(write(arrays), **SIZES)


def test_a_file_without_times_needs_the_interval(write):
    arrays = published_arrays()
    del arrays["t"]
    adapter = FnoMat(write(arrays), frame_interval=0.5, **SIZES)
    assert adapter.trajectories("train")[0].times.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5]


def test_an_interval_against_the_times_is_refused(write):
    with pytest.raises(ValueError, match="Expected frame_interval 1"):
        FnoMat(write(published_arrays()), frame_interval=0.5, **SIZES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"u": lambda u: u.transpose(0, 3, 1, 2)}, "axes are in another order", id="time_second"),
        pytest.param({"u": lambda u: u.transpose(3, 2, 1, 0)}, "axes are in another order", id="reversed"),
        pytest.param({"u": lambda u: u[..., 0]}, r"u \(sample, x, y, time\)", id="rank"),
        pytest.param({"u": lambda u: u[:1, 0, 0, 0].reshape(())}, r"u \(sample, x, y, time\)|axes", id="scalar"),
        pytest.param({"u": lambda u: u[:, :4], "a": lambda a: a[:, :4]}, "as many points in x as in y", id="oblong"),
        pytest.param({"t": lambda t: t[:, :-1]}, "one for each frame", id="short_times"),
        pytest.param({"t": lambda t: t**2}, "evenly spaced", id="uneven_times"),
        pytest.param({"t": lambda t: t[:, ::-1].copy()}, "increasing", id="falling_times"),
        pytest.param({"u": lambda u: u.astype(np.int32)}, "real numbers", id="integers"),
    ],
)
def test_wrong_layouts_are_refused(write, change, message):
    arrays = published_arrays()
    for name, edit in change.items():
        arrays[name] = edit(arrays[name])
    with pytest.raises(ValueError, match=message):
        FnoMat(write(arrays), **SIZES).trajectories("train")[0].read()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_values_are_refused_with_their_place(write, value):
    arrays = published_arrays()
    arrays["u"][1, 2, 3, 4] = value
    trajectories = FnoMat(write(arrays), **SIZES).trajectories("train")
    assert trajectories[0].read().isfinite().all()
    with pytest.raises(ValueError, match="frame 4 of sample 1"):
        trajectories[1].read(3)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files_are_refused_on_opening(write, kept):
    path = write(published_arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="truncated"):
        FnoMat(path, **SIZES)


def test_damage_inside_a_compressed_file_is_refused(tmp_path):
    path = write_version_5(tmp_path / "set.mat", published_arrays(), compress=True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        FnoMat(path, **SIZES).trajectories("train")[0].read()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 5, "test": 2}, "overlap"),
        ({}, "overlap"),
        ({"train": 2, "val": 3, "test": 2}, "val <= train"),
        ({"train": -1, "test": 2}, "split sizes >= 0"),
        ({"train": 0, "test": 0}, "not all of them 0"),
    ],
)
def test_impossible_splits_are_refused(write, sizes, message):
    with pytest.raises(ValueError, match=message):
        FnoMat(write(published_arrays()), **sizes)


def test_unknown_splits_and_bad_arguments_are_refused(write, tmp_path):
    path = write(published_arrays())
    with pytest.raises(ValueError, match="one of the splits"):
        FnoMat(path, train=4, test=0).trajectories("test")
    with pytest.raises(ValueError, match="positive length"):
        FnoMat(path, length=0.0, **SIZES)
    with pytest.raises(ValueError, match="viscosity >= 0"):
        FnoMat(path, viscosity=-1.0, **SIZES)
    with pytest.raises(ValueError, match="Expected a file"):
        FnoMat(tmp_path / "nowhere.mat")

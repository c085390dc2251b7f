"""PDEBench's incompressible flow with particles."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from layouts_pdebench import flow_arrays, write_flow
from torch.utils.data import DataLoader

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.pdebench import PdeBenchIncompressible
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.data.windows import Windows, as_batch


def stored(arrays, run):
    """``(time, channel, x, y)``."""
    return np.moveaxis(np.concatenate([arrays["velocity"][run], arrays["particles"][run]], -1), -1, 1)


@pytest.fixture
def folder(tmp_path):
    """Shards of two, three and one runs whose names sort otherwise as text."""
    for seed, runs in ((2, 2), (9, 3), (10, 1)):
        write_flow(tmp_path, seed, runs=runs)
    return tmp_path


def test_files_are_shards_in_natural_order_and_splits_are_of_files(folder):
    adapter = PdeBenchIncompressible(folder, train=2, val=1, test=1)
    assert isinstance(adapter, Adapter)
    for split, seed, runs in (("train", 2, 2), ("val", 9, 3), ("test", 10, 1)):
        arrays = flow_arrays(seed, runs)
        trajectories = adapter.trajectories(split)
        assert len(trajectories) == runs
        for run, trajectory in enumerate(trajectories):
            assert np.array_equal(trajectory.read().numpy(), stored(arrays, run))
            assert np.array_equal(trajectory.read(1, 3).numpy(), stored(arrays, run)[1:3])
    assert adapter.metadata.channel_names == ("velocity_x", "velocity_y", "particles")
    assert {channel.location for channel in adapter.metadata.channels} == {"cell"}


def test_times_grid_and_viscosity(folder):
    adapter = PdeBenchIncompressible(folder, train=3)
    trajectory = adapter.trajectories("train")[0]
    assert adapter.metadata.frame_interval == 0.005
    assert trajectory.times.tolist() == [0.0, 0.005, 0.01, 0.015, 0.02, 0.025]
    assert adapter.metadata.parameters == ("viscosity",)
    assert trajectory.context.parameters.tolist() == pytest.approx([0.01])
    # The authors' boxes are as long as they have cells.
    assert [axis.bounds for axis in adapter.metadata.grid.axes] == [(0.0, 8.0), (0.0, 12.0)]
    assert trajectory.context.coordinates[0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]
    unit = PdeBenchIncompressible(folder, train=3, length=1.0, viscosity=0.1)
    assert [axis.bounds for axis in unit.metadata.grid.axes] == [(0.0, 1.0), (0.0, 1.0)]
    assert unit.trajectories("train")[0].context.parameters.tolist() == pytest.approx([0.1])


def test_the_force_is_in_the_context_and_zero_for_the_particles(folder):
    adapter = PdeBenchIncompressible(folder, train=3, every=2)
    forcing = adapter.trajectories("train")[1].context.forcing
    force = flow_arrays(2, 2)["force"][1, ::2, ::2]
    assert np.array_equal(forcing[:2].numpy(), np.moveaxis(force, -1, 0))
    assert torch.equal(forcing[2], torch.zeros(4, 6))
    assert PdeBenchIncompressible(folder, train=3, forcing="none").trajectories("train")[0].context.forcing is None


def test_intervals_and_cells(folder):
    trajectory = PdeBenchIncompressible(folder, train=3, interval=0.01, every=4).trajectories("train")[2]
    assert np.array_equal(trajectory.read().numpy(), stored(flow_arrays(9, 3), 0)[::2, :, ::4, ::4])
    assert trajectory.read(1, 2).shape == (1, 3, 2, 3)


def test_only_the_frames_asked_for_are_read(folder, monkeypatch):
    read = []
    plain = Hdf5File.read

    def counted(file, name, selection=()):
        read.append((name, selection))
        return plain(file, name, selection)

    monkeypatch.setattr(Hdf5File, "read", counted)
    adapter = PdeBenchIncompressible(folder, train=3, forcing="none")
    trajectory = adapter.trajectories("train")[1]
    assert {name for name, _ in read} == {"t"}
    read.clear()
    trajectory.read(2, 4)
    assert read == [("velocity", (1, slice(2, 4, 1))), ("particles", (1, slice(2, 4, 1)))]


def test_workers_of_a_loader_read_the_same(folder):
    windows = Windows(PdeBenchIncompressible(folder, train=3).trajectories("train"), 2, 1)
    plain = windows.__getitems__(range(len(windows)))
    loader = DataLoader(windows, 5, num_workers=2, collate_fn=as_batch, multiprocessing_context="fork")
    batches = [*loader]
    assert torch.equal(torch.cat([batch.history for batch in batches]), plain.history)
    assert torch.equal(torch.cat([batch.context.forcing for batch in batches]), plain.context.forcing)


def test_archives_take_it_without_the_force(folder):
    with pytest.raises(ValueError, match="no forcing"):
        convert(PdeBenchIncompressible(folder, train=2, test=1), folder / "with")
    adapter = PdeBenchIncompressible(folder, train=2, test=1, forcing="none")
    convert(adapter, folder / "archive")
    archive = Archive(folder / "archive")
    assert archive.metadata.grid == adapter.metadata.grid
    for split in adapter.splits:
        for ours, theirs in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())


def test_one_file_is_a_set(tmp_path):
    path = write_flow(tmp_path)
    assert len(PdeBenchIncompressible(path, train=1).trajectories("train")) == 2
    with pytest.raises(ValueError, match=r"train \+ test <= 1, the number of files"):
        PdeBenchIncompressible(path, train=1, test=1)


def test_copies_under_another_name_are_refused_or_left_out(folder):
    shutil.copy(folder / "ns_incom_inhom_2d_512-2.h5", folder / "ns_incom_inhom_2d_512-250.h5")
    with pytest.raises(ValueError, match=r"run 0 of .*-250\.h5 is a copy of ns_incom_inhom_2d_512-2\.h5"):
        PdeBenchIncompressible(folder, train=3, test=1)
    with pytest.warns(UserWarning, match=r"is a copy of ns_incom_inhom_2d_512-2\.h5"):
        adapter = PdeBenchIncompressible(folder, train=3, test=1, skip_bad_trajectories=True)
    assert adapter.splits == ("train",)
    assert [left.name for left in adapter.left_out] == [f"run {run} of ns_incom_inhom_2d_512-250.h5" for run in (0, 1)]


def test_files_that_only_look_alike_are_none(tmp_path):
    for seed in (1, 2):
        arrays = flow_arrays(seed)
        write_flow(tmp_path, seed, arrays=arrays, config=False)
    assert len(PdeBenchIncompressible(tmp_path, train=2).trajectories("train")) == 4


def test_unfinished_files_are_refused_or_left_out(folder):
    arrays = flow_arrays(11)
    for name in ("velocity", "particles", "t"):
        arrays[name] = arrays[name].copy()
        arrays[name][:, 4:] = 0
    write_flow(folder, 11, arrays=arrays, latest=3)
    with pytest.raises(ValueError, match=r"-11\.h5 was not finished: 4 of 6 frames were written"):
        PdeBenchIncompressible(folder, train=4)
    with pytest.warns(UserWarning, match="was not finished"):
        adapter = PdeBenchIncompressible(folder, train=4, skip_bad_trajectories=True)
    assert len(adapter.trajectories("train")) == 6


def test_an_unfinished_file_alone_is_refused(tmp_path):
    arrays = flow_arrays(0)
    arrays["t"] = arrays["t"] * (np.arange(6) < 4)
    write_flow(tmp_path, arrays=arrays, latest=3)
    for skip in (False, True):
        with pytest.raises(ValueError, match=r"at least one whole file but .* was not finished"):
            PdeBenchIncompressible(tmp_path, train=1, skip_bad_trajectories=skip)


def test_without_configurations_nothing_is_known_of_the_fluid(tmp_path):
    write_flow(tmp_path, config=False)
    assert PdeBenchIncompressible(tmp_path, train=1).metadata.parameters == ()
    write_flow(tmp_path, seed=1)
    with pytest.raises(ValueError, match="NU in the configuration of all files"):
        PdeBenchIncompressible(tmp_path, train=2)
    assert PdeBenchIncompressible(tmp_path, train=2, viscosity=0.01).metadata.parameters == ("viscosity",)


@pytest.mark.parametrize("name", ["velocity", "particles", "force", "t"])
def test_missing_arrays_are_named(tmp_path, name):
    arrays = flow_arrays(0)
    if name == "velocity":
        arrays["speed"] = arrays.pop(name)
        write_flow(tmp_path, arrays=arrays | {"velocity": arrays["speed"][..., 0]})
        with pytest.raises(ValueError, match=r"velocity \(run, time, x, y, 2\)"):
            PdeBenchIncompressible(tmp_path, train=1)
        return
    del arrays[name]
    write_flow(tmp_path, arrays=arrays)
    with pytest.raises(ValueError, match=f"Expected the array '{name}'"):
        PdeBenchIncompressible(tmp_path, train=1)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("particles", lambda v: v[:, :-1], "particles .* to go with velocity"),
        ("force", lambda v: v[:1], "force .* to go with velocity"),
        ("velocity", lambda v: v.astype(np.int16), "real numbers in 'velocity'"),
        ("t", lambda v: v[:1], r"t \(2, 6\) in .* but found \(1, 6\)"),
        ("t", lambda v: v[:, :3], r"but found \(2, 3\)"),
        ("t", lambda v: v**2, "evenly spaced times"),
        ("t", lambda v: v * np.array([[1], [2]], np.float32), "all runs on"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, name, edit, message):
    arrays = flow_arrays(0)
    arrays[name] = edit(arrays[name])
    write_flow(tmp_path, arrays=arrays)
    with pytest.raises(ValueError, match=message):
        PdeBenchIncompressible(tmp_path, train=1)


def test_files_that_do_not_go_together_are_refused(folder):
    write_flow(folder, 11, points=(8, 8))
    with pytest.raises(ValueError, match=r"those of .*-11\.h5 differ"):
        PdeBenchIncompressible(folder, train=4)


def test_bad_values_are_refused_or_left_out(folder):
    arrays = flow_arrays(12)
    arrays["velocity"][1, -1, 0, 0, 0] = np.nan
    arrays["velocity"][0, 2:] = 0
    arrays["particles"][0, 2:] = 0
    write_flow(folder, 12, arrays=arrays)
    trajectories = PdeBenchIncompressible(folder, train=4).trajectories("train")
    with pytest.raises(ValueError, match=r"frame 2 of run 0 of .*-12\.h5 holds nothing but zeros"):
        trajectories[6].read()
    with pytest.raises(ValueError, match=r"frame 5 of run 1 of .*-12\.h5 holds NaN"):
        trajectories[7].read()
    with pytest.warns(UserWarning, match=r"run 0 .*; run 1"):
        adapter = PdeBenchIncompressible(folder, train=4, skip_bad_trajectories=True)
    assert len(adapter.trajectories("train")) == 6


def test_a_force_that_is_no_number_is_refused(tmp_path):
    arrays = flow_arrays(0)
    arrays["force"][1, 0, 0, 0] = np.nan
    write_flow(tmp_path, arrays=arrays)
    with pytest.raises(ValueError, match=r"'force' of run 1 of .* NaN"):
        PdeBenchIncompressible(tmp_path, train=1).trajectories("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 2, "test": 2}, "splits are made of whole files"),
        ({"train": 1, "val": 2}, "val <= train"),
        ({"train": 3, "length": 0.0}, "a positive length"),
        ({"train": 3, "viscosity": -1.0}, "viscosity >= 0"),
        ({"train": 3, "every": 5}, "every to divide"),
        ({"train": 3, "interval": 0.007}, r"multiple of the 0\.005"),
        ({"train": 3, "forcing": "file"}, "'context' or 'none'"),
    ],
)
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        PdeBenchIncompressible(folder, **options)


def test_folders_without_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"ns_incom_inhom_2d_512-\*\.h5 in .* but found none"):
            PdeBenchIncompressible(path, train=1)


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_truncated_files_are_refused(tmp_path, share):
    path = write_flow(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="truncated"):
        PdeBenchIncompressible(tmp_path, train=1)

"""The archive: round trips, resuming, shards, other people's tools, and everything that may be wrong with a file."""

from __future__ import annotations

import os
import pickle
import shutil

import h5py
import numpy as np
import pytest
import torch
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdesurrogate.data import archive as module
from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.archive import Archive, ArchiveWriter, archive_path
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata

GRID = Grid((Axis("x", period=1.0, units="m"), Axis("y", period=2.0, units="m")))
METADATA = Metadata(
    "set", GRID, (Channel("u", "m/s", "velocity"), Channel("p", "Pa")), 0.5, parameters=("viscosity",), time_units="s"
)
SHAPE = (3, 2, 8, 6)  # time, channel, x, y


def values(count=5, shape=SHAPE, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def writer(path, count=5, shape=SHAPE, **options):
    times = 0.5 * torch.arange(shape[0], dtype=torch.float64)
    parameters = torch.arange(count, dtype=torch.float64)[:, None]
    coordinates = GRID.uniform_coordinates(shape[2:])
    return ArchiveWriter(path, METADATA, coordinates, times, count, parameters=parameters, **options)


def write(folder, count=5, split="train"):
    with writer(folder / f"{split}.nc", count) as file:
        file.write(0, values(count))
        return file.finish()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 4),
    frames=st.integers(2, 5),
    nx=st.integers(2, 9),
    ny=st.integers(2, 9),
    seed=st.integers(0, 9),
)
def test_round_trip_is_bit_equal(tmp_path_factory, count, frames, nx, ny, seed):
    folder = tmp_path_factory.mktemp("archive")
    data = values(count, (frames, 2, nx, ny), seed)
    with writer(folder / "test.nc", count, (frames, 2, nx, ny)) as file:
        file.write(0, data)
        file.finish()
    found = Archive(folder).trajectories("test")
    assert torch.equal(torch.stack([trajectory.read() for trajectory in found]), data)
    assert [float(trajectory.context.parameters) for trajectory in found] == list(range(count))


def test_it_is_an_adapter_with_its_metadata(tmp_path):
    write(tmp_path)
    archive = Archive(tmp_path)
    assert isinstance(archive, Adapter)
    assert archive.metadata == METADATA
    assert archive.splits == ("train",)
    with pytest.raises(ValueError, match="Expected one of the splits"):
        archive.trajectories("test")


def test_xarray_sees_units_and_coordinates(tmp_path):
    with xarray.open_dataset(write(tmp_path), engine="netcdf4") as data:
        assert data["u"].dims == ("trajectory", "time", "x", "y")
        assert data["u"].attrs["units"] == "m/s"
        assert data["x"].attrs == {"axis": "X", "units": "m", "long_name": "x coordinate"}
        np.testing.assert_array_equal(data["u"].values, values()[:, :, 0].numpy())


def test_what_xarray_compressed_is_read_all_the_same(tmp_path):
    path = write(tmp_path)
    with xarray.open_dataset(path, engine="netcdf4") as data:
        data.to_netcdf(
            tmp_path / "val.nc", engine="netcdf4", encoding={"u": {"zlib": True, "chunksizes": (1, 1, 8, 6)}}
        )
    again = Archive(tmp_path).trajectories("val")
    assert torch.equal(torch.stack([trajectory.read() for trajectory in again]), values())


def test_contiguous_variables_are_memory_mapped(tmp_path):
    write(tmp_path)
    archive = Archive(tmp_path)
    archive.trajectories("train")[0].read()
    (file,) = archive._files["train"]
    assert all(isinstance(array, np.memmap) for array in file._arrays.values())


def test_an_interrupted_file_is_continued_and_its_bytes_are_equal(tmp_path):
    data = values()
    whole = write(tmp_path)
    (tmp_path / "part").mkdir()
    path = tmp_path / "part" / "train.nc"
    with writer(path) as file:
        file.write(2, data[2:4])
    assert not path.exists()
    with writer(path) as file:
        assert file.complete.tolist() == [False, False, True, True, False]
        with pytest.raises(ValueError, match=r"\[0, 1, 4\] are missing"):
            file.finish()
        file.write(0, data[:2])
        file.write(4, data[4:])
        file.finish()
    assert path.read_bytes() == whole.read_bytes()


def test_an_unfinished_file_is_never_taken_for_whole(tmp_path):
    with writer(tmp_path / "train.nc") as file:
        file.write(0, values(2))
    with pytest.raises(ValueError, match=r"Unfinished: \['train.nc.part'\]"):
        Archive(tmp_path)
    shutil.copy(tmp_path / "train.nc.part", tmp_path / "train.nc")
    with pytest.raises(ValueError, match="lacks 3"):
        Archive(tmp_path)


def test_another_data_set_is_not_continued(tmp_path):
    writer(tmp_path / "train.nc").close()
    with pytest.raises(ValueError, match="begun with other settings"):
        writer(tmp_path / "train.nc", attributes={"recipe": "another"})


def test_shards_are_read_as_one_in_the_order_of_their_numbers(tmp_path):
    data = values(6)
    for shard in range(2):
        numbers = list(range(shard, 6, 2))
        with writer(archive_path(tmp_path, "train", shard, 2), 3, numbers=numbers) as file:
            file.write(0, data[numbers])
            file.finish()
    found = Archive(tmp_path).trajectories("train")
    assert torch.equal(torch.stack([trajectory.read() for trajectory in found]), data)
    archive_path(tmp_path, "train", 0, 2).unlink()
    with pytest.raises(ValueError, match=r"all shards.*\[0\] are missing"):
        Archive(tmp_path)


def test_reading_works_in_a_forked_worker_and_after_pickling(tmp_path):
    write(tmp_path)
    archive = Archive(tmp_path)
    archive.trajectories("train")[0].read()
    copy = pickle.loads(pickle.dumps(archive))
    assert torch.equal(copy.trajectories("train")[3].read(), values()[3])
    data = ForecastData(archive, batch_size=4, workers=1)
    batches = list(data._loader(data_windows(archive), shuffle=False))
    assert torch.equal(torch.cat([batch.history for batch in batches])[0, 0], values()[0, 0])


def data_windows(archive):
    from pdesurrogate.data.windows import Windows

    return Windows(archive.trajectories("train"), 1, 1)


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match="truncated"):
        Archive(tmp_path)


def test_values_that_are_not_finite_are_refused_before_training_and_measuring(tmp_path):
    for split in ("train", "val"):
        with h5py.File(write(tmp_path, split=split), "r+") as file:
            file["p"][2, 1] = np.inf
    data = ForecastData(Archive(tmp_path))
    with pytest.raises(ValueError, match=r"Training trajectory 2: .*frame 1, channel 1"):
        data.statistics  # noqa: B018
    with pytest.raises(ValueError, match="val trajectory 2 holds NaN"):
        data.val_dataloader()


def test_wrong_axis_order_and_channel_names_are_named(tmp_path):
    path = write(tmp_path)
    with xarray.open_dataset(path, engine="netcdf4") as data:
        turned = data.load().transpose("trajectory", "time", "y", "x")
        renamed = data.rename(u="velocity")
    (tmp_path / "a").mkdir()
    turned.to_netcdf(tmp_path / "a" / "test.nc", engine="netcdf4")
    with pytest.raises(ValueError, match=r"Expected axes .*'x', 'y'.* but got .*'y', 'x'"):
        Archive(tmp_path / "a")
    (tmp_path / "b").mkdir()
    renamed.to_netcdf(tmp_path / "b" / "test.nc", engine="netcdf4")
    with pytest.raises(ValueError, match=r"\['u'\] are missing; found .*velocity"):
        Archive(tmp_path / "b")


def test_packed_fields_are_refused_rather_than_read_raw(tmp_path):
    with xarray.open_dataset(write(tmp_path), engine="netcdf4") as data:
        packing = {"u": {"dtype": "int16", "scale_factor": 1e-3, "_FillValue": -1}}
        (tmp_path / "packed").mkdir()
        data.to_netcdf(tmp_path / "packed" / "test.nc", engine="netcdf4", encoding=packing)
    with pytest.raises(ValueError, match="it is packed"):
        Archive(tmp_path / "packed")


@pytest.mark.parametrize("name", ["time", "x", "viscosity"])
def test_missing_coordinates_and_parameters_are_named(tmp_path, name):
    with xarray.open_dataset(write(tmp_path), engine="netcdf4") as data:
        (tmp_path / "less").mkdir()
        data.drop_vars(name).to_netcdf(tmp_path / "less" / "test.nc", engine="netcdf4")
    with pytest.raises(ValueError, match=rf"\['{name}'\] are missing"):
        Archive(tmp_path / "less")


@pytest.mark.parametrize("frames", [2, 4])
def test_a_part_of_another_length_is_not_continued(tmp_path, frames):
    writer(tmp_path / "train.nc").close()
    with pytest.raises(ValueError, match="begun with other settings"):
        writer(tmp_path / "train.nc", shape=(frames, *SHAPE[1:]))


def test_files_of_different_data_sets_are_not_joined(tmp_path):
    for shard, (shape, source) in enumerate([(SHAPE, "one"), (SHAPE, "two")]):
        with writer(archive_path(tmp_path, "train", shard, 2), 1, shape, attributes={"content_hash": source}) as file:
            file.write(0, values(1, shape))
            file.finish()
    with pytest.raises(ValueError, match="different recipes or sources"):
        Archive(tmp_path)


def test_shards_of_another_grid_or_with_the_same_numbers_are_not_joined(tmp_path):
    for folder, shapes in (("grid", [SHAPE, (3, 2, 10, 6)]), ("numbers", [SHAPE, SHAPE])):
        for shard, shape in enumerate(shapes):
            with writer(archive_path(tmp_path / folder, "train", shard, 2), 1, shape) as file:
                file.write(0, values(1, shape))
                file.finish()
    with pytest.raises(ValueError, match="one grid"):
        Archive(tmp_path / "grid")
    with pytest.raises(ValueError, match="every trajectory once"):
        Archive(tmp_path / "numbers")


def test_two_writers_of_one_file_do_not_hinder_each_other(tmp_path):
    first, second = (writer(tmp_path / "train.nc") for _ in range(2))
    for file in (first, second):
        file.write(0, values())
    assert first.finish() == second.finish()
    assert torch.equal(Archive(tmp_path).trajectories("train")[4].read(), values()[4])


def test_foreign_files_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        Archive(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found none"):
        Archive(tmp_path)
    with h5py.File(tmp_path / "test.nc", "w") as file:
        file["u"] = np.zeros(3)
    with pytest.raises(ValueError, match="datasets convert"):
        Archive(tmp_path)
    (tmp_path / "test.nc").write_text("no HDF5 at all")
    with pytest.raises(ValueError, match="cannot be opened"):
        Archive(tmp_path)


def test_splits_must_hold_the_same_fields(tmp_path):
    write(tmp_path)
    other = Metadata("other", GRID, (Channel("u"),), 0.5)
    with ArchiveWriter(tmp_path / "val.nc", other, GRID.uniform_coordinates((8, 6)), torch.zeros(1), 1) as file:
        file.write(0, torch.zeros(1, 1, 1, 8, 6))
        file.finish()
    with pytest.raises(ValueError, match=r"channels .* but .*val.nc"):
        Archive(tmp_path)


def test_no_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(ValueError, match="Free some"):
        writer(tmp_path / "train.nc")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    data = values()
    with writer(tmp_path / "train.nc") as file:
        file.write(0, data[:2])

        def full(*arguments):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module.os, "pwrite", full)
            with pytest.raises(ValueError, match=r"no space left.*run the same command again"):
                file.write(2, data[2:])
    with writer(tmp_path / "train.nc") as file:
        assert file.complete.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("bad", [values(5, (2, 2, 8, 6)), values(5, (3, 1, 8, 6)), values(6)])
def test_shapes_that_do_not_fit_are_refused(tmp_path, bad):
    with writer(tmp_path / "train.nc") as file, pytest.raises(ValueError, match="Expected trajectories"):
        file.write(0, bad)


def test_missing_parameters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected parameters"):
        ArchiveWriter(tmp_path / "a.nc", METADATA, GRID.uniform_coordinates((8, 6)), torch.arange(3.0), 5)


def test_attributes_come_back_as_they_were_given(tmp_path):
    given = {
        "recipe": '{"seed": 3}',
        "walls": [0.0, 2.0],
        "friction_reynolds_number": 180.5,
        "version": "1.10",
        "day": "20240101",
    }
    with writer(tmp_path / "train.nc", attributes=given) as file:
        file.write(0, values())
        file.finish()
    assert Archive(tmp_path).metadata.attributes == given

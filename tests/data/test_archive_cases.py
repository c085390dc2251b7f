"""Archives whose trajectories are cases: masks, coordinates of their own, and trajectories that were dropped."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import h5py
import numpy as np
import pytest
import torch
import xarray
from archive_cases import COUNT, GRID, METADATA, lines, masks, values, write, writer

from pdesurrogate.data import archive as module
from pdesurrogate.data.archive import Archive, CaseName, archive_path
from pdesurrogate.data.convert import convert
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Axis, Channel, Grid


def test_every_trajectory_has_its_own_context(tmp_path):
    write(tmp_path / "train.nc")
    for found in (Archive(tmp_path), pickle.loads(pickle.dumps(Archive(tmp_path)))):
        for case, trajectory in enumerate(found.trajectories("train")):
            assert torch.equal(trajectory.read(), values()[case])
            assert torch.equal(trajectory.context.mask, masks()[case])
            assert trajectory.context.mask.dtype == torch.bool
            assert trajectory.context.parameters.tolist() == [case + 1]
            for points, wanted in zip(trajectory.context.coordinates, lines(), strict=True):
                assert torch.equal(points, wanted[case].float())


@pytest.mark.parametrize("absent", ["masks", "case_coordinates"])
def test_masks_and_coordinates_come_alone_too(tmp_path, absent):
    write(tmp_path / "train.nc", **{absent: None})
    contexts = [trajectory.context for trajectory in Archive(tmp_path).trajectories("train")]
    if absent == "masks":
        assert all(context.mask is None for context in contexts)
        assert torch.equal(contexts[3].coordinates[1], lines()[1][3].float())
    else:
        assert torch.equal(contexts[3].mask, masks()[3])
        assert all(torch.equal(context.coordinates[0], lines()[0][0].float()) for context in contexts)


def test_xarray_opens_it_with_nominal_and_auxiliary_coordinates(tmp_path):
    path = write(tmp_path / "train.nc", dropped=[1])
    with xarray.open_dataset(path, engine="netcdf4") as data:
        assert {"x", "y", "x_of_trajectory", "y_of_trajectory"} <= set(data["u"].coords)
        assert data["x_of_trajectory"].dims == ("trajectory", "x")
        assert data["x_of_trajectory"].attrs == {"units": "m", "long_name": "x coordinate of each trajectory"}
        np.testing.assert_array_equal(data["x"], lines()[0][0])
        np.testing.assert_array_equal(data["y_of_trajectory"], lines()[1])
        assert data["mask"].dims == ("trajectory", "x", "y")
        assert data["mask"].attrs["long_name"] == "1 where there is fluid"
        assert data["mask"].attrs["flag_meanings"] == "solid fluid"
        np.testing.assert_array_equal(data["mask"], masks())
        assert data["complete"].values.tolist() == [1, 2, 1, 1, 1]
        assert json.loads(data.attrs["pdesurrogate_dropped"]) == {"1": "case 1 blew up"}
        (tmp_path / "again").mkdir()
        data.to_netcdf(tmp_path / "again" / "train.nc", engine="netcdf4")
    first, again = (Archive(folder) for folder in (tmp_path, tmp_path / "again"))
    assert again.dropped("train") == first.dropped("train")
    for ours, theirs in zip(first.trajectories("train"), again.trajectories("train"), strict=True):
        assert torch.equal(ours.read(), theirs.read())
        assert torch.equal(ours.context.mask, theirs.context.mask)
        assert all(map(torch.equal, ours.context.coordinates, theirs.context.coordinates))


def test_a_file_without_cases_says_nothing_of_them(tmp_path):
    path = write(tmp_path / "train.nc", masks=None, case_coordinates=None)
    with h5py.File(path) as file:
        assert set(file) == {"trajectory", "time", "x", "y", "density", "complete", "u", "p"}
        assert set(file.attrs) == {"Conventions", "title", "pdesurrogate_metadata", "_NCProperties"}
        assert file["complete"].attrs["long_name"] == b"1 where the trajectory is whole"
        assert "coordinates" not in file["u"].attrs
    assert Archive(path).dropped("train") == {}


def test_dropped_trajectories_are_left_out_and_named(tmp_path):
    path = write(tmp_path / "train.nc", dropped=[0, 3])
    assert [file.name for file in tmp_path.iterdir()] == ["train.nc"]
    archive = Archive(path)
    assert archive.dropped("train") == {0: "case 0 blew up", 3: "case 3 blew up"}
    assert archive.numbers("train") == [1, 2, 4]
    for number, trajectory in zip([1, 2, 4], archive.trajectories("train"), strict=True):
        assert torch.equal(trajectory.read(), values()[number])
        assert torch.equal(trajectory.context.mask, masks()[number])
    assert archive.metadata.attributes == {}


def test_a_file_of_which_all_was_dropped_is_finished(tmp_path):
    archive = Archive(write(tmp_path / "train.nc", dropped=range(COUNT)))
    assert archive.trajectories("train") == []
    assert list(archive.dropped("train")) == list(range(COUNT))


@pytest.mark.parametrize("extra", [{}, {"masks": None, "case_coordinates": None}])
def test_an_interrupted_file_is_continued_and_its_bytes_are_equal(tmp_path, extra):
    whole = write(tmp_path / "whole" / "train.nc", dropped=[1, 4], **extra)
    path = tmp_path / "part" / "train.nc"
    with writer(path, **extra) as file:
        file.write(0, values()[:1])
        file.drop(4, "case 4 blew up")
    with writer(path, **extra) as file:
        assert file.complete.tolist() == [True, False, False, False, True]
        assert file.dropped == {4: "case 4 blew up"}
        with pytest.raises(ValueError, match=r"\[1, 2, 3\] are missing"):
            file.finish()
        file.drop(1, "case 1 blew up")
        file.drop(4, "another reason")  # as a job does that computes a block again
        file.write(2, values()[2:4])
        file.finish()
    assert path.read_bytes() == whole.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["train.nc"]


def test_a_reason_that_was_cut_off_and_a_flag_without_one_do_not_stop_a_job(tmp_path):
    path = tmp_path / "train.nc"
    with writer(path) as file:
        file.drop(0, "first")
        file.drop(1, "second")
    notes = tmp_path / "train.nc.part.dropped"
    notes.write_bytes(notes.read_bytes()[:-5])
    with writer(path) as file:
        assert file.dropped == {0: "first", 1: "the reason was lost"}
        file.drop(2, "third")
    with writer(path) as file:
        assert file.dropped == {0: "first", 1: "the reason was lost", 2: "third"}
        file.write(3, values()[3:])
        file.finish()
    assert Archive(path).dropped("train")[2] == "third"


def test_reasons_of_a_file_that_was_deleted_are_not_taken_over(tmp_path):
    path = tmp_path / "train.nc"
    with writer(path) as file:
        file.drop(0, "of old")
    file.part.unlink()
    with writer(path) as file:
        file.drop(0, "new")
        assert not file.complete[1:].any()
    with writer(path) as file:
        assert file.dropped == {0: "new"}


def test_finishing_that_is_cut_off_loses_nothing(tmp_path, monkeypatch):
    whole = write(tmp_path / "whole" / "train.nc", dropped=[2])
    path = tmp_path / "train.nc"
    with writer(path) as file:
        file.drop(2, "case 2 blew up")
        for case in (0, 1, 3, 4):
            file.write(case, values()[case : case + 1])

        def full(source, target):
            target.write_bytes(b"a part of it")
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module.shutil, "copyfile", full)
            with pytest.raises(ValueError, match="no space left on the device"):
                file.finish()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["train.nc.part", "train.nc.part.dropped", "whole"]
    with writer(path) as file:
        assert file.complete.all()
        file.finish()
    assert path.read_bytes() == whole.read_bytes()


def test_a_full_disk_drops_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with writer(tmp_path / "train.nc") as file:
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "write", full)
            with pytest.raises(ValueError, match=r"no space left.*run the same command again"):
                file.drop(1, "blew up")
        assert file.dropped == {}
    with writer(tmp_path / "train.nc") as file:
        assert not file.complete.any()


def test_two_writers_of_one_file_may_both_drop(tmp_path):
    first, second = (writer(tmp_path / "train.nc") for _ in range(2))
    first.drop(0, "one")
    for file in (first, second):
        file.drop(1, "other")
        if file is second:
            file.drop(0, "one")
        file.write(2, values()[2:])
    assert first.finish() == second.finish()
    assert Archive(tmp_path).dropped("train") == {0: "one", 1: "other"}


@pytest.mark.parametrize(
    ("index", "reason", "message"),
    [
        (-1, "why", r"within 0\.\.4 that is not written but got -1"),
        (5, "why", r"within 0\.\.4"),
        (0, "why", "not written but got 0"),
        (1, "", "Expected a reason"),
    ],
)
def test_what_cannot_be_dropped_is_refused(tmp_path, index, reason, message):
    with writer(tmp_path / "train.nc") as file:
        file.write(0, values()[:1])
        with pytest.raises(ValueError, match=message):
            file.drop(index, reason)


def test_what_was_dropped_is_not_written(tmp_path):
    with writer(tmp_path / "train.nc") as file:
        file.drop(3, "blew up")
        with pytest.raises(ValueError, match=r"\[3\] were; leave them out"):
            file.write(2, values()[2:])
        assert not file.complete[2]


def changed(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = ~tensor.view(-1)[-1] if tensor.dtype == torch.bool else tensor.view(-1)[-1] + 0.25
    return tensor


@pytest.mark.parametrize(
    ("begun", "continued"),
    [
        ({}, {"masks": changed(masks())}),
        ({}, {"case_coordinates": [lines()[0], changed(lines()[1])]}),
        ({}, {"masks": None}),
        ({}, {"case_coordinates": None}),
        ({"masks": None}, {}),
        ({"case_coordinates": None}, {}),
    ],
)
def test_other_cases_are_not_continued(tmp_path, begun, continued):
    writer(tmp_path / "train.nc", **begun).close()
    with pytest.raises(ValueError, match="begun with other settings"):
        writer(tmp_path / "train.nc", **continued)
    writer(tmp_path / "train.nc", **begun).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": masks()[:, :, :3]}, r"boolean masks \(5, 8, 4\) but got \(5, 8, 3\)"),
        ({"masks": masks()[0]}, r"boolean masks \(5, 8, 4\) but got \(8, 4\)"),
        ({"masks": masks().float()}, r"but got .* of torch.float32"),
        ({"case_coordinates": lines()[:1]}, r"\[\(5, 8\), \(5, 4\)\], for \('x', 'y'\), but got \[\(5, 8\)\]"),
        ({"case_coordinates": [line[1:] for line in lines()]}, r"but got \[\(4, 8\), \(4, 4\)\]"),
        ({"case_coordinates": [lines()[0].flip(1), lines()[1]]}, "trajectory 0: .*increasing coordinates.*'x'"),
        ({"case_coordinates": [lines()[0], lines()[1] * torch.nan]}, "trajectory 0: .*finite"),
    ],
)
def test_what_no_case_can_be_is_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        writer(tmp_path / "new" / "train.nc", **change)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["mask", "x_of_trajectory"])
def test_channels_and_parameters_leave_the_names_free(tmp_path, name):
    for renamed in (
        dataclasses.replace(METADATA, channels=(Channel(name), Channel("p"))),
        dataclasses.replace(METADATA, parameters=(name,)),
    ):
        with pytest.raises(ValueError, match=rf"other names than \['{name}'\]"):
            writer(tmp_path / "train.nc", metadata=renamed)


def test_a_channel_called_mask_is_read_as_one(tmp_path):
    renamed = dataclasses.replace(METADATA, channels=(Channel("mask"), Channel("p")))
    write(tmp_path / "train.nc", metadata=renamed, masks=None)
    (first, *_) = Archive(tmp_path).trajectories("train")
    assert first.context.mask is None
    assert torch.equal(first.read(), values()[0])


def replaced(path, name, array, dims):
    with xarray.open_dataset(path, engine="netcdf4") as data:
        data = data.load()
    data = data.drop_vars(name)
    for channel in ("u", "p"):
        data[channel].encoding.pop("coordinates", None)
    if array is not None:
        data[name] = (dims, np.asarray(array))
    data.to_netcdf(path, engine="netcdf4")


@pytest.mark.parametrize(
    ("name", "array", "dims", "message"),
    [
        ("mask", 2 * masks().to(torch.int8), ("trajectory", "x", "y"), r"mask of 0 and 1 in .* but it holds \[0, 2\]"),
        ("mask", 0.5 * masks(), ("trajectory", "x", "y"), r"it holds \[0\.0, 0\.5\]"),
        ("mask", masks().transpose(1, 2).to(torch.int8), ("trajectory", "y", "x"), r"but got .*'y', 'x'"),
        ("mask", masks()[0].to(torch.int8), ("x", "y"), r"Expected axes \('trajectory', 'x', 'y'\) for 'mask'"),
        ("x_of_trajectory", lines()[0].flip(1), ("trajectory", "x"), "train.nc: .*trajectory 0: .*increasing"),
        ("x_of_trajectory", lines()[0].T, ("x", "trajectory"), r"Expected axes \('trajectory', 'x'\)"),
        ("x_of_trajectory", None, (), "'x_of_trajectory' beside those of the other axes"),
    ],
)
def test_hostile_files_are_refused(tmp_path, name, array, dims, message):
    path = write(tmp_path / "train.nc")
    replaced(path, name, array, dims)
    with pytest.raises(ValueError, match=message):
        Archive(path)


def test_a_variable_of_another_shape_under_the_same_dimensions_is_refused(tmp_path):
    with h5py.File(write(tmp_path / "train.nc"), "r+") as file:
        scales = [file["mask"].dims[axis][0] for axis in range(3)]
        del file["mask"]
        file["mask"] = np.ones((COUNT, 8, 3), np.int8)
        for axis, scale in enumerate(scales):
            file["mask"].dims[axis].attach_scale(scale)
    with pytest.raises(ValueError, match=r"'mask' with shape \(5, 8, 4\) in .* but got \(5, 8, 3\)"):
        Archive(tmp_path)


def test_flags_and_reasons_must_agree(tmp_path):
    path = write(tmp_path / "train.nc", dropped=[1])
    with h5py.File(path, "r+") as file:
        file["complete"][3] = 2
    with pytest.raises(ValueError, match=r"a reason for each dropped trajectory in .* but \[3\] have none"):
        Archive(path)
    with h5py.File(path, "r+") as file:
        file["complete"][3] = 7
    with pytest.raises(ValueError, match="lacks 1"):
        Archive(path)


def test_shards_are_one_set_with_what_was_dropped_by_number(tmp_path):
    for shard in range(2):
        rows = list(range(shard, 6, 2))
        with writer(archive_path(tmp_path, "train", shard, 2), 6, rows=rows, numbers=rows) as file:
            file.drop(1, f"case {rows[1]} blew up")
            for place in (0, 2):
                file.write(place, values(6)[rows[place]][None])
            file.finish()
    archive = Archive(tmp_path)
    assert archive.dropped("train") == {2: "case 2 blew up", 3: "case 3 blew up"}
    assert archive.numbers("train") == [0, 1, 4, 5]
    for number, trajectory in zip([0, 1, 4, 5], archive.trajectories("train"), strict=True):
        assert torch.equal(trajectory.read(), values(6)[number])
        assert torch.equal(trajectory.context.mask, masks(6)[number])
        assert torch.equal(trajectory.context.coordinates[0], lines(6)[0][number].float())
    with pytest.raises(ValueError, match="Expected one of the splits"):
        archive.dropped("val")


def test_splits_may_differ_in_coordinates_but_not_in_having_a_mask(tmp_path):
    write(tmp_path / "train.nc")
    write(tmp_path / "val.nc", case_coordinates=[2 * line for line in lines()])
    assert Archive(tmp_path).splits == ("train", "val")
    write(tmp_path / "test.nc", masks=None)
    with pytest.raises(ValueError, match="a mask in all files of a directory or in none"):
        Archive(tmp_path)


def test_names_and_subsets_of_cases_are_by_number(tmp_path):
    cases = [{"number": case, "name": f"case{case:04d}", "subset": "geo"} for case in range(COUNT)]
    path = write(tmp_path / "train.nc", dropped=[2], attributes={"cases": cases})
    archive = Archive(path)
    assert archive.cases("train") == {case: CaseName(f"case{case:04d}", "geo") for case in range(COUNT)}
    write(tmp_path / "val.nc")
    assert Archive(tmp_path / "val.nc").cases("val") == {}


@pytest.mark.parametrize("cases", ["all of them", [{"number": 0, "name": "one"}], [3], {"name": "one"}])
def test_cases_that_are_no_such_list_are_refused(tmp_path, cases):
    archive = Archive(write(tmp_path / "train.nc", attributes={"cases": cases}))
    with pytest.raises(ValueError, match="each with number, name and subset"):
        archive.cases("train")


def test_many_cases_and_long_reasons_fit(tmp_path):
    cases = [{"number": case, "name": f"case{case:04d}", "subset": "prop"} for case in range(3000)]
    with writer(tmp_path / "train.nc", attributes={"cases": cases}) as file:
        for case in range(COUNT):
            file.drop(case, "because " * 5000 + "ü")
        file.finish()
    archive = Archive(tmp_path)
    assert len(archive.cases("train")) == 3000
    assert archive.dropped("train")[4] == "because " * 5000 + "ü"


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_carry_coordinates_and_masks_of_their_samples(tmp_path, workers):
    for split in ("train", "val", "test"):
        write(tmp_path / f"{split}.nc", dropped=[1])
    data = ForecastData(Archive(tmp_path), 2, 2, 2, batch_size=4, workers=workers)
    for batch in data.train_dataloader():
        assert batch.context.coordinates[0].shape == (4, 8)
        for sample in range(4):
            case = round(batch.context.parameters[sample].item()) - 1
            assert case != 1
            assert torch.equal(batch.context.mask[sample], masks()[case])
            assert torch.equal(batch.context.coordinates[1][sample], lines()[1][case].float())
            start = int((values()[case, :, 0, 0, 0] == batch.history[sample, 0, 0, 0, 0]).nonzero())
            frames = torch.cat([batch.history[sample], batch.target[sample]])
            assert torch.equal(frames, values()[case, start : start + 4])
    (batch,) = data.predict_dataloader()
    assert torch.equal(batch.context.mask, masks()[[0, 2, 3, 4]])


def test_volumes_of_a_batch_are_those_of_the_fluid_in_each_box(tmp_path):
    write(tmp_path / "train.nc")
    data = ForecastData(Archive(tmp_path), batch_size=3)
    for batch in data.train_dataloader():
        case = batch.context.parameters[:, 0] - 1
        volume = space_weights(GRID, batch.context, cells=True).flatten(1).sum(1)
        box = 0.5 * (case + 1) ** 2
        torch.testing.assert_close(volume, box * (32 - case - 1) / 32)


def test_a_conversion_carries_masks_and_coordinates_over(tmp_path):
    write(tmp_path / "source" / "train.nc")
    (path,) = convert(Archive(tmp_path / "source"), tmp_path / "out")
    assert path.read_bytes() == (tmp_path / "source" / "train.nc").read_bytes()


def test_a_conversion_wants_one_grid_where_extents_are_fixed_and_masks_for_all_or_none(tmp_path):
    bounded = dataclasses.replace(METADATA, grid=Grid((Axis("x"), Axis("y", bounds=(0.0, 5.0)))))
    write(tmp_path / "source" / "train.nc", metadata=bounded)
    source = Archive(tmp_path / "source")
    with pytest.raises(ValueError, match=r"on one grid .* but number 1 differs"):
        convert(source, tmp_path / "out")

    class Half:
        metadata, splits = METADATA, ("train",)

        def trajectories(self, split):
            write(tmp_path / "plain" / "train.nc")
            members = Archive(tmp_path / "plain").trajectories(split)
            bare = members[3].context._replace(mask=None)
            return [*members[:3], dataclasses.replace(members[3], context=bare)]

    with pytest.raises(ValueError, match=r"a mask in all trajectories or in none.*trajectory 3"):
        convert(Half(), tmp_path / "out")


def test_the_header_of_an_interrupted_start_is_not_in_the_way(tmp_path):
    (tmp_path / f"train.nc.part.{os.getpid()}.copy").write_bytes(b"left by a job that was killed")
    assert Archive(write(tmp_path / "train.nc", dropped=[0])).numbers("train") == [1, 2, 3, 4]

"""Cutouts are written as pyJHTDB and giverny write them; see `layouts_jhtdb`."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_jhtdb import (
    box_attributes,
    channel_box,
    channel_points,
    fields_of,
    write_giverny,
    write_pyjhtdb,
)

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.jhtdb import JhtdbCutout
from pdesurrogate.data.adapters.time_blocks import time_blocks
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.suites import suite_for

BOX = channel_box()
POINTS = channel_points(BOX)
TIMES = range(1, 11)
VELOCITY = fields_of(POINTS, TIMES)
PRESSURE = fields_of(POINTS, TIMES, components=1, seed=1)


def expected(frames, times):
    return torch.stack([torch.from_numpy(frames[time]).permute(3, 2, 1, 0) for time in times])


def some(frames, times):
    return {time: frames[time] for time in times}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("pyjhtdb") / "channel.h5"
    return write_pyjhtdb(path, BOX, POINTS, {"Velocity": VELOCITY, "Pressure": PRESSURE})


@pytest.mark.parametrize("writer", [write_pyjhtdb, write_giverny])
def test_fields_are_those_that_were_written_x_first(tmp_path, writer):
    if writer is write_pyjhtdb:
        path = writer(tmp_path / "channel.h5", BOX, POINTS, {"Velocity": VELOCITY, "Pressure": PRESSURE})
    else:  # one variable in each file, as their numbers of components differ
        writer(tmp_path / "channel_u.h5", BOX, POINTS, {"velocity": VELOCITY})
        writer(tmp_path / "channel_p.h5", BOX, POINTS, {"pressure": PRESSURE})
        path = tmp_path
    adapter = JhtdbCutout(path)
    assert isinstance(adapter, Adapter)
    assert adapter.metadata.channel_names == ("velocity_x", "velocity_y", "velocity_z", "pressure")
    assert [channel.vector for channel in adapter.metadata.channels] == ["velocity"] * 3 + [""]
    (trajectory,) = adapter.trajectories("train")
    together = torch.cat([expected(VELOCITY, TIMES), expected(PRESSURE, TIMES)], 1)
    assert torch.equal(trajectory.read(), together)
    assert torch.equal(trajectory.read(3, 5), together[3:5])
    for axis, points in zip("xyz", trajectory.context.coordinates, strict=True):
        np.testing.assert_allclose(points, POINTS[axis], atol=1e-6)


def test_siblings_and_times_over_several_files_are_one_trajectory(tmp_path, whole):
    for first in (1, 6):
        times = range(first, first + 5)
        write_giverny(tmp_path / f"u_t{first}.h5", BOX, POINTS, {"velocity": some(VELOCITY, times)})
        write_giverny(tmp_path / f"p_t{first}.h5", BOX, POINTS, {"pressure": some(PRESSURE, times)})
    one, other = JhtdbCutout(tmp_path), JhtdbCutout(whole)
    assert torch.equal(one.trajectories("train")[0].read(), other.trajectories("train")[0].read())
    given_files = JhtdbCutout(sorted(tmp_path.glob("*.h5"), reverse=True), variables=["Pressure"])
    assert torch.equal(given_files.trajectories("train")[0].read(), expected(PRESSURE, TIMES))


def test_times_count_from_the_first_index_and_known_steps_are_taken(tmp_path, whole):
    assert JhtdbCutout(whole).metadata.frame_interval == 0.0065
    times = range(5, 26, 5)
    path = write_pyjhtdb(tmp_path / "a.h5", BOX, POINTS, {"Velocity": fields_of(POINTS, times)})
    adapter = JhtdbCutout(path)
    assert adapter.metadata.frame_interval == pytest.approx(5 * 0.0065)
    assert adapter.trajectories("train")[0].times.tolist() == pytest.approx([0.0065 * (time - 1) for time in times])
    assert JhtdbCutout(path, time_step=2.0).metadata.frame_interval == 10.0


def test_axes_are_periodic_only_where_the_cutout_goes_around(tmp_path, whole):
    x, y, z = JhtdbCutout(whole).metadata.grid.axes
    assert (x.period, z.period, y.bounds) == (pytest.approx(8 * math.pi), pytest.approx(3 * math.pi), (-1.0, 1.0))
    part = channel_box({"x": 1024, "y": 439})
    points = channel_points(part)
    path = write_giverny(tmp_path / "part.h5", part, points, {"velocity": fields_of(points, [1, 2])})
    x, y, z = JhtdbCutout(path).metadata.grid.axes
    assert (x.period, y.period, y.bounds) == (None, None, None)
    assert z.period is not None
    # A stride that does not divide the number of points leaves a gap of another size at the end.
    uneven = channel_box(x=300)
    points = channel_points(uneven)
    path = write_giverny(tmp_path / "uneven.h5", uneven, points, {"velocity": fields_of(points, [1, 2])})
    assert JhtdbCutout(path).metadata.grid.axes[0].period is None


def test_the_channel_suite_applies(whole):
    adapter = JhtdbCutout(whole, viscosity=5e-5)
    (trajectory,) = adapter.trajectories("train")
    plan = RolloutPlan(adapter.metadata, 1, 4, trajectory.context.coordinates)
    assert suite_for(plan).__name__ == "channel"
    assert trajectory.context.parameters.tolist() == pytest.approx([5e-5])


def test_blocks_of_time_are_contiguous_and_apart(whole):
    adapter = JhtdbCutout(whole, val=2, test=2, gap=1)
    times = {split: [round(time / 0.0065) + 1 for time in adapter.trajectories(split)[0].times.tolist()]
             for split in adapter.splits}  # fmt: skip
    assert times == {"train": [1, 2, 3, 4], "val": [6, 7], "test": [9, 10]}
    assert torch.equal(adapter.trajectories("test")[0].read()[:, :3], expected(VELOCITY, [9, 10]))
    with pytest.raises(ValueError, match="one of the splits"):
        adapter.trajectories("valid")


@given(
    frames=st.integers(1, 60),
    val=st.integers(0, 20),
    test=st.integers(0, 20),
    gap=st.integers(0, 5),
    train=st.none() | st.integers(1, 40),
)
@settings(max_examples=40)
def test_blocks_never_overlap_and_keep_their_distance(frames, val, test, gap, train):
    try:
        blocks = time_blocks(frames, train, val, test, gap, what="a run")
    except ValueError:
        needed = (train or 1) + val + test + gap * ((val > 0) + (test > 0))
        assert needed > frames
        return
    assert [len(blocks.get(split, ())) for split in ("val", "test")] == [val, test]
    ordered = list(blocks.values())
    assert ordered[0].start == 0
    assert ordered[-1].stop <= frames
    for before, after in pairwise(ordered):
        assert after.start - before.stop >= gap


def test_files_may_be_kept_apart(tmp_path):
    for number, first in enumerate((1, 4, 7)):
        times = range(first, first + 3)
        write_pyjhtdb(tmp_path / f"t{number}.h5", BOX, POINTS, {"Velocity": some(VELOCITY, times)})
        write_pyjhtdb(tmp_path / f"t{number}_p.h5", BOX, POINTS, {"Pressure": some(PRESSURE, times)})
    adapter = JhtdbCutout(tmp_path, split_by="file", test=1)
    assert [len(adapter.trajectories(split)) for split in adapter.splits] == [2, 1]
    assert torch.equal(adapter.trajectories("test")[0].read()[:, :3], expected(VELOCITY, [7, 8, 9]))
    assert len(JhtdbCutout(tmp_path).trajectories("train")[0]) == 9


def test_boxes_and_stretches_of_time_are_trajectories(tmp_path):
    boxes = [{**BOX, "x": (1, 512, 256)}, {**BOX, "x": (1025, 1536, 256)}]
    for number, box in enumerate(boxes):
        points = channel_points(box)
        write_pyjhtdb(tmp_path / f"box{number}.h5", box, points, {"Velocity": fields_of(points, (1, 2), seed=number)})
    adapter = JhtdbCutout(tmp_path)
    one, other = adapter.trajectories("train")
    assert float(other.context.coordinates[0][0]) == pytest.approx(1024 * 8 * math.pi / 2048)
    assert float(one.context.coordinates[0][0]) == 0
    assert len(Archive(convert(adapter, tmp_path / "out")[0]).trajectories("train")) == 2
    for name, times in (("a.h5", (1, 2)), ("b.h5", (8, 9, 10))):
        write_pyjhtdb(tmp_path / name, BOX, POINTS, {"Velocity": some(VELOCITY, times)})
    stretches = JhtdbCutout([tmp_path / "a.h5", tmp_path / "b.h5"]).trajectories("train")
    assert [len(each) for each in stretches] == [2, 3]
    assert torch.equal(stretches[1].read(), expected(VELOCITY, (8, 9, 10)))


def test_the_vertical_velocity_of_the_atmospheric_sets_lies_on_faces(tmp_path):
    box = dict.fromkeys("xyz", (1, 4, 1))
    points = {"x": np.arange(4.0), "y": np.arange(4.0), "z": 0.5 + np.arange(4.0)}
    frames = fields_of(points, (1, 2))
    path = write_giverny(tmp_path / "sabl.h5", box, points, {"velocity": frames}, "sabl2048low", staggered=0.5)
    write_giverny(tmp_path / "p.h5", box, points, {"pressure": fields_of(points, (1, 2), 1)}, "sabl2048low")
    adapter = JhtdbCutout([tmp_path / "p.h5", path], time_step=0.1)
    assert [channel.location for channel in adapter.metadata.channels] == ["cell", "cell", "face_z", "cell"]
    (trajectory,) = adapter.trajectories("train")
    assert trajectory.context.coordinates[2].tolist() == [1.5, 2.5, 3.5]
    stored = expected(frames, (1, 2))
    read = trajectory.read()
    assert torch.equal(read[:, :2], stored[:, :2, ..., 1:])
    assert torch.equal(read[:, 2], stored[:, 2, ..., :-1])  # zcoor_w 1, 2, 3: below the cells at 1.5, 2.5, 3.5
    assert JhtdbCutout(tmp_path / "p.h5", time_step=0.1).metadata.channels[0].location == "node"


def test_other_fields_and_boxes_are_taken_as_they_are(tmp_path):
    box = dict.fromkeys("xyz", (1, 4, 1))
    points = {axis: 0.25 * np.arange(4.0) for axis in "xyz"}
    path = write_pyjhtdb(
        tmp_path / "a.h5", box, points,
        {"MagneticField": fields_of(points, (1, 2)), "Density": fields_of(points, (1, 2), 1)}, "unheard_of",
    )  # fmt: skip
    with pytest.raises(ValueError, match="time_step between time indices of 'unheard_of'"):
        JhtdbCutout(path)
    adapter = JhtdbCutout(path, time_step=1.0, periods=(1.0, None, 2.0))
    assert adapter.metadata.channel_names == ("density", "magnetic_x", "magnetic_y", "magnetic_z")
    assert [axis.period for axis in adapter.metadata.grid.axes] == [1.0, None, None]
    with pytest.raises(ValueError, match="within one period"):
        JhtdbCutout(path, time_step=1.0, periods=(0.5, None, None))


def test_only_frames_that_are_asked_for_are_read(tmp_path):
    frames = dict(VELOCITY)
    frames[7] = np.full_like(frames[7], np.nan)
    adapter = JhtdbCutout(write_pyjhtdb(tmp_path / "a.h5", BOX, POINTS, {"Velocity": frames}))
    (trajectory,) = adapter.trajectories("train")
    assert torch.equal(trajectory.read(0, 6), expected(VELOCITY, range(1, 7)))
    with pytest.raises(ValueError, match=r"frame 7 of velocity in .*a\.h5"):
        trajectory.read(5, 8)


def test_workers_read_the_same_and_pickles_are_small(whole):
    adapter = JhtdbCutout(whole, val=3)
    assert len(pickle.dumps(adapter)) < 20_000
    copied = pickle.loads(pickle.dumps(adapter)).trajectories("val")[0]
    assert torch.equal(copied.read(), adapter.trajectories("val")[0].read())
    batches = [
        [batch.history for batch in ForecastData(adapter, batch_size=4, workers=workers).val_dataloader()]
        for workers in (0, 2)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_conversion_keeps_every_value(tmp_path, whole):
    adapter = JhtdbCutout(whole, viscosity=5e-5, val=2, test=2)
    convert(adapter, tmp_path / "out")
    archive = Archive(tmp_path / "out")
    for split in adapter.splits:
        assert torch.equal(archive.trajectories(split)[0].read(), adapter.trajectories(split)[0].read())
    assert archive.metadata.grid == adapter.metadata.grid


@pytest.mark.parametrize(
    ("value", "message"),
    [(-999.9, "has -999.9"), (0.0, "nothing but zeros"), (math.inf, "NaN or infinity")],
)
def test_frames_without_values_are_refused(tmp_path, value, message):
    frames = {1: VELOCITY[1], 2: VELOCITY[2].copy()}
    frames[2][... if value == 0 else (0, 1, 0)] = value
    path = write_giverny(tmp_path / "a.h5", BOX, POINTS, {"velocity": frames})
    with pytest.raises(ValueError, match=message):
        JhtdbCutout(path).trajectories("train")[0].read()


def changed(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def renamed(old, new):
    def change(file):
        file[new] = file[old][...]
        del file[old]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.__delitem__("dataset"), "lacks dataset.*getbigCutout"),
        (lambda file: file.attrs.__setitem__("x_end", 4000), "along x"),
        (lambda file: file.attrs.__setitem__("t_end", 2**40), "whole number as the attribute 't_end'"),
        (lambda file: file.attrs.__setitem__("t_end", 12), "get that cutout again"),
        (lambda file: file.attrs.__setitem__("y_step", "two"), "whole number"),
        (lambda file: file.__delitem__("ycoor"), "array 'ycoor'"),
        (lambda file: file.__delitem__("Velocity_0003"), "time indices 1, 2, 3"),
        (renamed("Velocity_0001", "u00001"), "time indices"),
        (lambda file: [file.__delitem__(name) for name in list(file) if "_" in name], "'Velocity_0001'"),
        (lambda file: file["xcoor"].__setitem__(2, 0.0), "increasing coordinates along x"),
        (lambda file: file.__setitem__("velocity_0001", file["Velocity_0001"][...]), "one array for each time"),
        (lambda file: file.__setitem__("Density_0001", np.zeros((2, 2, 2, 1), "f4")), r"\(z, y, x, component\)"),
        (lambda file: file.__setitem__("Density_0001", np.zeros((4, 8, 8, 6), "f4")), "1 or 3 components"),
        (lambda file: file.__setitem__("Density_0001", np.zeros((4, 8, 8, 1), "i4")), "Expected real"),
    ],
)
def test_files_that_are_no_cutouts_say_why(tmp_path, change, message):
    path = write_pyjhtdb(tmp_path / "a.h5", BOX, POINTS, {"Velocity": some(VELOCITY, (1, 2, 3))})
    with pytest.raises(ValueError, match=message):
        JhtdbCutout(changed(path, change))


def test_cutouts_that_do_not_belong_together_say_why(tmp_path):
    def write(name, times, variable="Velocity", box=BOX, **options):
        points = channel_points(box)
        frames = fields_of(points, times, 1 if variable == "Pressure" else 3)
        return write_pyjhtdb(tmp_path / name, box, points, {variable: frames}, **options)

    base = write("a.h5", (1, 2, 3))
    for other, message in (
        (write("iso.h5", (1, 2, 3), title="isotropic1024coarse"), "one database"),
        (write("again.h5", (3, 4)), "in one file"),
        (write("p.h5", (1, 2), "Pressure"), "lack it at 3"),
        (write("late.h5", (9,)), "evenly spaced time indices"),
        (write("strided.h5", (11, 13, 15), box={**BOX, "x": (1, 2048, 512)}), "distance between time indices"),
        (write("part.h5", (1, 2, 3), box={**BOX, "x": (1, 1024, 256)}), "extent along x"),
        (write("other.h5", (1, 2, 3), "Pressure", box={**BOX, "x": (1, 2048, 512)}), "of the box of"),
    ):
        with pytest.raises(ValueError, match=message):
            JhtdbCutout([base, other])
    moved = changed(write("moved.h5", (4, 5)), lambda file: file["ycoor"].__setitem__(1, -0.95))
    with pytest.raises(ValueError, match="coordinates of"):
        JhtdbCutout([base, moved])


def test_arguments_out_of_range_say_why(tmp_path, whole):
    for options, message in (
        ({"split_by": "box"}, "split_by"),
        ({"split_by": "file", "gap": 2}, "no gap between files"),
        ({"time_step": 0.0}, "positive time_step"),
        ({"viscosity": -1.0}, "positive viscosity"),
        ({"variables": ["vorticity"]}, "among pressure, velocity"),
        ({"variables": []}, "among pressure, velocity"),
        ({"val": 6, "test": 6}, "fit into the 10 frames"),
        ({"val": -1}, ">= 0"),
        ({"train": 0}, "do not; ask for fewer"),
        ({"split_by": "file", "test": 2}, "they would overlap"),
    ):
        with pytest.raises(ValueError, match=message):
            JhtdbCutout(whole, **options)
    with pytest.raises(ValueError, match=r"cutouts \*\.h5"):
        JhtdbCutout(tmp_path)
    with pytest.raises(ValueError, match="each of them once"):
        JhtdbCutout([whole, whole])
    with pytest.raises(ValueError, match="is not one"):
        JhtdbCutout(tmp_path / "nothing.h5")


def test_attributes_are_those_of_the_published_names():
    names = {f"{axis}_{word}" for axis in "txyz" for word in ("start", "end", "step")}
    assert set(box_attributes(BOX, TIMES)) == names

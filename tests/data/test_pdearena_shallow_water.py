"""PDEArena's shallow water: axes, places and times of both layouts, area weights, and what is refused."""

from __future__ import annotations

import dataclasses
import pickle
import shutil

import h5py
import netCDF4
import numpy as np
import pytest
import torch
from layouts_pdearena import (
    RUN_HOURS,
    gaussian_latitudes,
    rewrite,
    speedy_fields,
    write_converted,
    write_normstats,
    write_speedy_run,
    write_speedy_tree,
)

from pdesurrogate.data.adapters.base import Adapter, WithStatistics
from pdesurrogate.data.adapters.pdearena import PdeArenaShallowWater
from pdesurrogate.data.adapters.pdearena.runs import even_times
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.data.loading import EpochSampler, ResumableLoader
from pdesurrogate.data.windows import Windows

FRAMES, ROWS, COLUMNS = 6, 6, 8
RUNS = {"train": 4, "valid": 1, "test": 2}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Written once: netCDF takes its time."""
    root = tmp_path_factory.mktemp("published")
    return root, write_speedy_tree(root, RUNS, FRAMES, ROWS, COLUMNS)


@pytest.fixture
def written(tmp_path, published):
    root, runs = published
    shutil.copytree(root, tmp_path / "tree")
    return {tmp_path / "tree" / folder.relative_to(root): fields for folder, fields in runs.items()}


@pytest.fixture
def tree(tmp_path, written):
    return tmp_path / "tree"


@pytest.fixture
def shards(tmp_path, written):
    """Of the same runs, in the order in which the conversion finds them; the last shard is shorter."""
    root = tmp_path / "converted"
    runs = {mode: [fields for folder, fields in sorted(written.items()) if mode in folder.parts] for mode in RUNS}
    write_converted(root / "train", "train", [runs["train"][:3], runs["train"][3:]])
    write_converted(root / "valid", "valid", [runs["valid"]])
    write_converted(root / "test", "test", [runs["test"]])
    return root


def expected(fields, names=("pres", "u", "v")):
    """``(time, variable, longitude, latitude from south to north)``."""
    planes = [fields[name].reshape(FRAMES, ROWS, COLUMNS)[:, ::-1].transpose(0, 2, 1) for name in names]
    return torch.from_numpy(np.stack(planes, 1))


def change_run(path, change):
    """Change a copy of a netCDF file and put it in its place."""
    shutil.copy(path, path.with_name("copy.tmp"))
    with netCDF4.Dataset(path.with_name("copy.tmp"), "r+") as file:
        change(file)
    path.with_name("copy.tmp").replace(path)


def test_values_and_places_of_the_published_tree(tree, written):
    adapter = PdeArenaShallowWater(tree)
    assert isinstance(adapter, Adapter)
    assert isinstance(adapter, WithStatistics)
    assert {split: len(adapter.trajectories(split)) for split in adapter.splits} == {"train": 4, "val": 1, "test": 2}
    assert adapter.metadata.channel_names == ("displacement", "velocity_east", "velocity_north")
    assert [channel.vector for channel in adapter.metadata.channels] == ["", "velocity", "velocity"]
    # Natural order: seed=97373 comes before seed=197910.
    train = [folder for folder in written if "train" in folder.parts]
    order = sorted(train, key=lambda folder: (int(folder.parts[-2].split("=")[1]), folder.name))
    for folder, trajectory in zip(order, adapter.trajectories("train"), strict=True):
        assert torch.equal(trajectory.read(), expected(written[folder]))
    longitude, sine = trajectory.context.coordinates
    assert longitude.tolist() == [45.0 * k for k in range(COLUMNS)]
    assert torch.allclose(sine, torch.from_numpy(np.polynomial.legendre.leggauss(ROWS)[0]).float())


def test_longitude_is_periodic_and_latitude_ends_at_the_poles(tree):
    for latitude, ends, name in (("sine", (-1.0, 1.0), "sine_of_latitude"), ("degrees", (-90.0, 90.0), "latitude")):
        adapter = PdeArenaShallowWater(tree, latitude=latitude)
        first, second = adapter.metadata.grid.axes
        assert (first.name, first.period, first.units) == ("longitude", 360.0, "degrees")
        assert (second.name, second.period, second.bounds) == (name, None, ends)
    degrees = adapter.trajectories("val")[0].context.coordinates[1]
    assert torch.allclose(degrees, torch.from_numpy(gaussian_latitudes(ROWS)[::-1].copy()).float())


def test_weights_of_the_sine_are_areas(tmp_path):
    """They are within a percent of Gauss's, which are exact, and those of degrees are not."""
    rows = 96
    fields = speedy_fields(0, 2, rows, 4)
    write_speedy_run(tmp_path / "train" / "seed=1" / "run0001", fields)
    exact = torch.from_numpy(np.polynomial.legendre.leggauss(rows)[1]) / 2
    shares = {}
    for latitude in ("sine", "degrees"):
        adapter = PdeArenaShallowWater(tmp_path, latitude=latitude)
        coordinates = adapter.trajectories("train")[0].context.coordinates
        weights = adapter.metadata.grid.quadrature_weights(tuple(line.double() for line in coordinates))[1]
        shares[latitude] = weights / weights.sum()
    away = (shares["sine"] / exact - 1).abs()
    assert away[1:-1].max() < 0.01
    assert (shares["degrees"] / exact - 1).abs().max() > 10
    # A quarter of the sphere lies north of 30 degrees.
    assert shares["sine"][rows * 2 // 3 :].sum() == pytest.approx(0.25, abs=2e-3)


def test_converted_shards_hold_the_same(tree, shards, written):
    runs, adapter = PdeArenaShallowWater(tree), PdeArenaShallowWater(shards, frame_interval=RUN_HOURS)
    assert adapter.splits == runs.splits
    ordered = [fields for folder, fields in sorted(written.items()) if "train" in folder.parts]
    for fields, trajectory in zip(ordered, adapter.trajectories("train"), strict=True):
        assert torch.equal(trajectory.read(), expected(fields))
    for ours, theirs in zip(
        trajectory.context.coordinates, runs.trajectories("train")[0].context.coordinates, strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert adapter.metadata.frame_interval == pytest.approx(RUN_HOURS)
    assert PdeArenaShallowWater(shards / "valid" / "valid_0.h5", frame_interval=6.0).splits == ("val",)


def test_other_variables(tree, written):
    adapter = PdeArenaShallowWater(tree, variables=("pres", "vor", "div"))
    assert adapter.metadata.channel_names == ("displacement", "vorticity", "divergence")
    folder = next(folder for folder in written if "valid" in folder.parts)
    assert torch.equal(adapter.trajectories("val")[0].read(), expected(written[folder], ("pres", "vor", "div")))


@pytest.mark.parametrize("order", [("lat", "lon", "time"), ("lon", "time", "lat"), ("time", "lon", "lat")])
def test_axes_are_found_by_their_names(tmp_path, order):
    """And files that run from south to north are not turned over."""
    fields = speedy_fields(0, FRAMES, ROWS, COLUMNS)
    path = write_speedy_run(tmp_path / "train" / "seed=1" / "run0001", fields, southward=False)

    def transpose(file):
        file.renameVariable("pres", "old")
        file.createVariable("pres", "f4", order)[:] = fields["pres"].transpose(
            [("time", "lat", "lon").index(axis) for axis in order]
        )

    change_run(path, transpose)
    read = PdeArenaShallowWater(tmp_path).trajectories("train")[0].read()
    assert torch.equal(read.flip(-1), expected(fields))


def test_times_that_were_rounded_to_hours_become_even(tree):
    adapter = PdeArenaShallowWater(tree)
    times = adapter.trajectories("train")[0].times
    stored = np.round(RUN_HOURS * np.arange(FRAMES))
    assert np.abs(times.numpy() - stored).max() <= 0.75
    assert torch.allclose(times.diff(), times.diff()[0])
    assert adapter.metadata.time_units == "h"
    assert adapter.metadata.frame_interval == pytest.approx(RUN_HOURS, rel=0.02)


@pytest.mark.parametrize("hours", [5.46, 6.0, 5.5])
def test_the_fitted_interval_of_a_whole_run(hours):
    """Of 88 frames it is right to a thousandth, where the first two times alone are off by a tenth."""
    stored = np.round(hours * np.arange(88))
    times = even_times(stored, rounded=True, what="time")
    assert times[1] - times[0] == pytest.approx(hours, rel=1e-3)
    with pytest.raises(ValueError, match="evenly spaced times in time"):
        even_times(np.concatenate([stored, [stored[-1] + 20]]), rounded=True, what="time")
    with pytest.raises(ValueError, match="evenly spaced"):
        even_times(stored[::-1], rounded=True, what="time")
    if hours != 6.0:
        with pytest.raises(ValueError, match="evenly spaced"):
            even_times(stored, rounded=False, what="time")


@pytest.mark.parametrize(("unit", "hours"), [("seconds", 1 / 3600), ("minutes", 1 / 60), ("days", 24.0)])
def test_other_units_of_time(tree, unit, hours):
    for path in tree.rglob("*.nc"):
        change_run(path, lambda file: file["time"].setncattr("units", f"{unit} since 2000-01-01"))
    adapter = PdeArenaShallowWater(tree)
    assert adapter.metadata.frame_interval == pytest.approx(RUN_HOURS * hours, rel=0.02)


def test_frames_of_two_days(tmp_path):
    """``x[4::8]`` of 88 stored frames, as PDEArena takes them, gives 11."""
    fields = speedy_fields(0, 88, 4, 6)
    write_speedy_run(tmp_path / "train" / "seed=1" / "run0001", fields)
    every, few = PdeArenaShallowWater(tmp_path), PdeArenaShallowWater(tmp_path, first_frame=4, stride=8)
    all_of_it, cut = every.trajectories("train")[0], few.trajectories("train")[0]
    assert len(cut) == 11
    assert torch.equal(cut.read(), all_of_it.read()[4::8])
    assert torch.equal(cut.read(3, 5), all_of_it.read()[[28, 36]])
    assert torch.equal(cut.times, all_of_it.times[4::8])
    assert few.metadata.frame_interval == pytest.approx(8 * RUN_HOURS, rel=1e-3)


def test_only_the_first_run_of_each_split_is_opened_before_it_is_read(tree, monkeypatch):
    opened = []
    plain = Hdf5File.__init__

    def counted(self, path):
        opened.append(str(path.relative_to(tree)))
        plain(self, path)

    monkeypatch.setattr(Hdf5File, "__init__", counted)
    adapter = PdeArenaShallowWater(tree)
    assert len({*opened}) == 3
    opened.clear()
    trajectories = adapter.trajectories("train")
    for _ in range(2):
        trajectories[2].read(1, 2)
    assert opened == ["train/seed=197910/run0001/output.nc"]


def test_only_the_frames_that_are_asked_for_are_read(shards, monkeypatch):
    adapter = PdeArenaShallowWater(shards, frame_interval=6.0, variables=("u", "v"))
    read = []
    plain = Hdf5File.read

    def counted(self, name, selection=()):
        values = plain(self, name, selection)
        read.append((self.path.name, name, values.nbytes))
        return values

    monkeypatch.setattr(Hdf5File, "read", counted)
    adapter.trajectories("train")[3].read(2, 4)
    assert read == [("train_1.h5", f"train/{name}", 2 * ROWS * COLUMNS * 4) for name in ("u", "v")]


def test_reads_on_after_pickling_and_in_forked_workers(tree):
    adapter = PdeArenaShallowWater(tree)
    windows = Windows(adapter.trajectories("train"), 2, 1)
    sampler = EpochSampler(len(windows), 3, shuffle=False)
    alone = [batch.history for batch in ResumableLoader(windows, sampler)]
    forked = [batch.history for batch in ResumableLoader(windows, sampler, num_workers=2)]
    assert all(torch.equal(*pair) for pair in zip(alone, forked, strict=True))
    copy = pickle.loads(pickle.dumps(adapter))
    assert torch.equal(copy.trajectories("test")[1].read(), adapter.trajectories("test")[1].read())


def test_an_archive_holds_the_same(tree, tmp_path):
    adapter = PdeArenaShallowWater(tree, stride=2)
    convert(adapter, tmp_path / "out")
    archive = Archive(tmp_path / "out")
    assert dataclasses.replace(archive.metadata, attributes={}) == adapter.metadata
    for split in adapter.splits:
        for ours, theirs in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.equal(ours.times, theirs.times)
            assert all(map(torch.equal, ours.context.coordinates, theirs.context.coordinates))


def test_published_statistics_are_those_of_the_whole_set(tree, written):
    runs = [fields for folder, fields in written.items() if "train" in folder.parts]
    write_normstats(tree / "normstats.pt", runs)
    found = PdeArenaShallowWater(tree).published_statistics()
    values = torch.stack([expected(fields) for fields in runs]).double()
    assert torch.allclose(found.mean.double(), values.mean((0, 1, 3, 4)), atol=1e-6)
    # Variance within points and of their means: the deviation of all values together.
    assert torch.allclose(found.std.double(), values.std((0, 1, 3, 4), correction=0), atol=1e-6)
    assert found.increment_rms is None


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def of_shape(*shape, std=1.0):
    return {name: {"mean": torch.zeros(shape), "std": torch.full(shape, std)} for name in ("pres", "u", "v")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "no such file", id="none"),
        pytest.param({"pres": Trap()}, "cannot be read safely", id="pickle"),
        pytest.param([1.0], "mean and std of 'pres'.*list", id="list"),
        pytest.param({"u": {}, "v": {}}, r"mean and std of 'pres'.*\['u', 'v'\]", id="missing"),
        pytest.param(of_shape(COLUMNS, ROWS), r"at each of 6 x 8 points.*\(8, 6\)", id="grid"),
        pytest.param(of_shape(ROWS, COLUMNS, std=float("nan")), "finite std", id="nan"),
        pytest.param(of_shape(ROWS, COLUMNS, std=-1.0), "negative std", id="negative"),
    ],
)
def test_other_statistics_are_refused(tree, content, message):
    if content is not None:
        torch.save(content, tree / "normstats.pt")
    with pytest.raises(ValueError, match=message):
        PdeArenaShallowWater(tree).published_statistics()


def test_packed_values_are_unpacked(tree):
    (path,) = (tree / "valid").rglob("*.nc")

    def pack(file):
        file.renameVariable("pres", "old")
        packed = file.createVariable("pres", "i2", ("time", "lat", "lon"), fill_value=-32768)
        packed.setncatts({"scale_factor": 0.5, "add_offset": 10.0, "units": "m"})
        packed[:] = np.full((FRAMES, ROWS, COLUMNS), 12.5)

    change_run(path, pack)
    assert bool((PdeArenaShallowWater(tree).trajectories("val")[0].read()[:, 0] == 12.5).all())


def test_values_that_were_never_written_are_refused(tree):
    """netCDF leaves 9.97e36 there, and need not say so."""
    (path,) = (tree / "valid").rglob("*.nc")

    def rewrite_without_last(file):
        old, new = file["v"], file.createVariable("new", "f4", file["v"].dimensions, zlib=True)
        new[:-1] = old[:-1]
        new[FRAMES - 1, 0, 0, 0] = 1.0
        file.renameVariable("v", "old")
        file.renameVariable("new", "v")

    change_run(path, rewrite_without_last)
    trajectory = PdeArenaShallowWater(tree).trajectories("val")[0]
    assert trajectory.read(0, FRAMES - 1).isfinite().all()
    with pytest.raises(ValueError, match=r"'v' of .* has missing ones \(.*9\.96921e\+36\) in frames 5 to 5"):
        trajectory.read(FRAMES - 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale_factor", "half", "a number in the attribute 'scale_factor' of 'u' .*found 'half'"),
        ("scale_factor", np.zeros(0), "a number in the attribute 'scale_factor'"),
        ("scale_factor", 0.0, "finite scale_factor and add_offset of 'u' .*not 0, but got 0 and 0"),
        ("add_offset", np.nan, "finite scale_factor and add_offset of 'u' .*but got 1 and nan"),
        ("missing_value", "none", "a number in the attribute 'missing_value'"),
    ],
)
def test_packing_that_says_nothing_is_refused(tmp_path, name, value, message):
    path = write_speedy_run(tmp_path / "train" / "run0001", speedy_fields(0, 3, 4, 6))
    rewrite(path, lambda file: file["u"].attrs.__setitem__(name, value))
    with pytest.raises(ValueError, match=message):
        PdeArenaShallowWater(tmp_path)


def test_a_wrong_option_is_told_whether_or_not_bad_runs_are_skipped(tree, shards):
    with pytest.raises(ValueError, match=r"no frame_interval, as .*run0001"):
        PdeArenaShallowWater(tree, frame_interval=6.0, skip_bad_trajectories=True)
    with pytest.raises(ValueError, match=r"positive frame_interval in hours, as converted files like .*train_0"):
        PdeArenaShallowWater(shards, skip_bad_trajectories=True)


def test_bad_runs_are_named_or_skipped(tree):
    paths = sorted((tree / "train").rglob("*.nc"))
    change_run(paths[0], lambda file: file["u"].__setitem__((FRAMES - 1, 0, 2, 3), -999999.0))
    change_run(paths[1], lambda file: [file[name].__setitem__(..., 0.0) for name in ("u", "v", "pres")])
    paths[2].write_bytes(paths[2].read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"97373/run0001.*truncated"):
        PdeArenaShallowWater(tree)  # the first file is opened at once
    truncated = paths[2].read_bytes()
    write_speedy_run(paths[2].parent, speedy_fields(0, FRAMES, ROWS, COLUMNS))
    adapter = PdeArenaShallowWater(tree)
    paths[2].write_bytes(truncated)
    bad = {str(paths[0]): "missing ones", str(paths[1]): "nothing but zeros", str(paths[2]): "truncated|cannot be read"}
    for trajectory in adapter.trajectories("train"):
        name = trajectory.read_into.args[0].name
        if name in bad:
            with pytest.raises(ValueError, match=rf"(?s){name}.*({bad[name]})|({bad[name]}).*{name}"):
                trajectory.read()
    with pytest.warns(UserWarning, match=r"(?s)Went on without .*cannot be read.*zeros in stored frame 5"):
        skipping = PdeArenaShallowWater(tree, skip_bad_trajectories=True)
    assert {left.name for left in skipping.left_out} == set(bad)
    assert len(skipping.trajectories("train")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda f: f.renameVariable("v", "w"), "array 'v' in .*but it holds", id="no_v"),
        pytest.param(lambda f: f.renameDimension("lat", "j"), r"time, lat and lon.*\('time', 'j', 'lon'\)", id="dim"),
        pytest.param(lambda f: f["time"].setncattr("units", "parsecs"), "units such as .*'parsecs'", id="units"),
        pytest.param(lambda f: f["time"].__setitem__(3, 99), "evenly spaced times in 'time'", id="time"),
        pytest.param(lambda f: f["lon"].__setitem__(..., np.arange(8.0)), "8 longitudes 45 degrees apart", id="lon"),
        pytest.param(lambda f: f["lat"].__setitem__(..., [3, 2, 1, 4, 0, -1]), "latitudes between the poles", id="lat"),
        pytest.param(lambda f: f["lat"].__setitem__(..., [95, 9, 8, 4, 0, -1]), "between the poles", id="pole"),
    ],
)  # fmt: skip
def test_runs_of_another_layout_are_refused(tree, change, message):
    path = tree / "train" / "seed=97373" / "run0001" / "output.nc"
    change_run(path, change)
    with pytest.raises(ValueError, match=message):
        PdeArenaShallowWater(tree)


def test_runs_of_another_grid_are_refused_when_they_are_read(tree):
    last = tree / "train" / "seed=197910" / "run0002"
    write_speedy_run(last, speedy_fields(0, FRAMES, ROWS, 2 * COLUMNS))
    adapter = PdeArenaShallowWater(tree)
    with pytest.raises(ValueError, match=r"8 longitudes, 0 to 315 as in .*, but .*run0002.* has 16"):
        adapter.trajectories("train")[3].read()
    write_speedy_run(last, speedy_fields(0, FRAMES, ROWS, COLUMNS), hours=12.0)
    with pytest.raises(ValueError, match=r"6 frames.*run0002.* has 6"):
        adapter.trajectories("train")[3].read()
    write_speedy_run(last, speedy_fields(0, FRAMES, ROWS, COLUMNS), southward=False)
    with pytest.raises(ValueError, match="run the other way"):
        adapter.trajectories("train")[3].read()


def test_several_levels_are_refused(tmp_path):
    runs = [speedy_fields(0, FRAMES, ROWS, COLUMNS) | dict.fromkeys("uv", np.ones((FRAMES, 2, ROWS, COLUMNS), "f4"))]
    write_converted(tmp_path / "train", "train", [runs])
    with pytest.raises(ValueError, match=r"one level.*but got 2"):
        PdeArenaShallowWater(tmp_path, frame_interval=6.0)


def drop(name):
    return lambda file: file["train"].__delitem__(name)


def put_in_place(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(drop("pres"), "array 'train/pres'", id="no_pres"),
        pytest.param(lambda f: f.move("train", "test"), r"one group named train in .*train_1.h5", id="group"),
        pytest.param(put_in_place("train/u", np.zeros((1, FRAMES, ROWS))), r"Expected axes \(trajectory", id="rank"),
        pytest.param(put_in_place("train/pres", np.zeros((1, FRAMES, ROWS, 7))), r"points along 'lon'", id="shape"),
        pytest.param(put_in_place("train/pres", np.zeros((1, FRAMES, ROWS, 8), int)), "real numbers", id="integers"),
    ],
)
def test_shards_of_another_layout_are_refused(shards, change, message):
    rewrite(shards / "train" / "train_1.h5", change)
    with pytest.raises(ValueError, match=message):
        PdeArenaShallowWater(shards, frame_interval=6.0)


def test_shards_in_another_place_are_refused(shards):
    (shards / "train" / "train_1.h5").rename(shards / "test" / "train_1.h5")
    with pytest.raises(ValueError, match=r"group named test in .*train_1.h5"):
        PdeArenaShallowWater(shards, frame_interval=6.0)


def test_impossible_options_are_refused(tree, shards, tmp_path):
    for options, message in (
        ({"variables": ("pres", "temp")}, "variables among"),
        ({"variables": ("u", "u")}, "different variables"),
        ({"latitude": "radians"}, "'sine' or 'degrees'"),
        ({"stride": 6}, "at least two of 6 stored frames"),
        ({"frame_interval": 6.0}, "no frame_interval"),
    ):
        with pytest.raises(ValueError, match=message):
            PdeArenaShallowWater(tree, **options)
    with pytest.raises(ValueError, match="frame_interval in hours"):
        PdeArenaShallowWater(shards)
    with pytest.raises(ValueError, match="it holds both"):
        PdeArenaShallowWater(tmp_path, frame_interval=6.0)
    with pytest.raises(ValueError, match="does not exist"):
        PdeArenaShallowWater(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="one of the words"):
        PdeArenaShallowWater(tree / "train")
    with h5py.File(tmp_path / "train_empty.h5", "w") as file:
        file.create_group("train")
    with pytest.raises(ValueError, match="array 'train/pres'"):
        PdeArenaShallowWater(tmp_path / "train_empty.h5", frame_interval=6.0)

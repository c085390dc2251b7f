"""PDEArena's smoke: what lies where, of which time, and what is refused."""

from __future__ import annotations

import dataclasses
import pickle

import h5py
import numpy as np
import pytest
import torch
from helpers import measure
from layouts_pdearena import NS_INTERVAL, SIDE, START, random_fields, rewrite, staggered_flow, write_navier_stokes

from pdesurrogate.data.adapters.base import Adapter, WithStatistics
from pdesurrogate.data.adapters.pdearena import PdeArenaNavierStokes
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.data.loading import EpochSampler, ResumableLoader
from pdesurrogate.data.windows import Windows
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.conservation import DivergenceMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.finite_difference import staggered_gradient
from pdesurrogate.simulators.enclosed.problems import SmokePlume

FRAMES, NX, NY = 7, 12, 10


@pytest.fixture
def fields():
    """By split and seed, with a different number of trajectories in each; seeds in another order than names sort."""
    sizes = {("train", 97373): 2, ("train", 197910): 3, ("valid", 415574): 1, ("test", 61649): 2}
    return {key: staggered_flow(key[1], count, FRAMES, NX, NY) for key, count in sizes.items()}


@pytest.fixture
def folder(tmp_path, fields):
    for (mode, seed), values in reversed(fields.items()):
        write_navier_stokes(tmp_path / "set", mode, seed, values)
    return tmp_path / "set"


def edit(folder, change, pattern="*train_97373*"):
    """Change the one file that fits."""
    (path,) = folder.glob(pattern)
    return rewrite(path, lambda file: change(next(iter(file.values()))))


def replaced(name, values):
    def change(group):
        del group[name]
        group[name] = values

    return change


def stacked(fields):
    return torch.from_numpy(np.stack([fields[name] for name in ("u", "vx", "vy")], 2)).float()


def test_values_places_times_and_parameters_are_those_of_the_files(folder, fields):
    adapter = PdeArenaNavierStokes(folder)
    assert isinstance(adapter, Adapter)
    assert isinstance(adapter, WithStatistics)
    assert adapter.splits == ("train", "val", "test")
    assert [len(adapter.trajectories(split)) for split in adapter.splits] == [5, 1, 2]
    read = torch.stack([trajectory.read() for trajectory in adapter.trajectories("train")])
    # Uneven shards, in the natural order of their names: 97373 comes before 197910.
    assert torch.equal(read, torch.cat([stacked(fields["train", 97373]), stacked(fields["train", 197910])]))
    first = adapter.trajectories("train")[0]
    x, y = first.context.coordinates
    assert torch.allclose(x, (torch.arange(NX) + 0.5) * SIDE / NX)
    assert torch.allclose(y, (torch.arange(NY) + 0.5) * SIDE / NY)
    assert first.times.tolist() == [START + NS_INTERVAL * k for k in range(FRAMES)]
    assert adapter.metadata.frame_interval == NS_INTERVAL
    assert adapter.metadata.channel_names == ("smoke", "velocity_x", "velocity_y")
    assert [channel.location for channel in adapter.metadata.channels] == ["cell", "face_x", "face_y"]
    assert [axis.bounds for axis in adapter.metadata.grid.axes] == [(0.0, SIDE)] * 2
    assert [axis.period for axis in adapter.metadata.grid.axes] == [None, None]


def test_parameters_are_those_of_the_plume_that_simulates_it(folder):
    adapter = PdeArenaNavierStokes(folder)
    values = adapter.trajectories("train")[0].context.parameters.tolist()
    plume = SmokePlume(**dict(zip(adapter.metadata.parameters, values, strict=True)))
    assert dataclasses.astuple(plume) == pytest.approx(dataclasses.astuple(SmokePlume()), rel=1e-6)
    assert adapter.metadata.parameters == tuple(field.name for field in dataclasses.fields(SmokePlume))


def test_value_i_lies_on_the_face_below_cell_i(folder):
    """So the staggered divergence of a flow that has none to its solver is round-off; taken as centered it is not."""
    adapter = PdeArenaNavierStokes(folder)
    trajectory = adapter.trajectories("test")[0]
    x, y = trajectory.context.coordinates
    frames = trajectory.read()[None]
    plan = RolloutPlan(adapter.metadata, 1, FRAMES, (x, y), masked=False)
    context = Context((x[None], y[None]), trajectory.context.parameters[None])
    found = measure(DivergenceMetric(plan), frames, frames, context=context)
    assert found["relative_divergence_truth"].max() < 1e-6
    # Only differences towards the next face give that.
    bounds = [axis.bounds for axis in adapter.metadata.grid.axes]
    velocity, lines = frames[0, :, 1:].double(), (x.double(), y.double())
    gradient = staggered_gradient(velocity, lines, (None, None), bounds=bounds)
    scale = gradient.squared_norm.sqrt().max()
    assert gradient.divergence.abs().max() < 1e-6 * scale
    backward = (velocity - velocity.roll(1, -2))[:, 0] * NX + (velocity - velocity.roll(1, -1))[:, 1] * NY
    assert backward[:, 1:, 1:].abs().max() / SIDE > 0.1 * scale


def test_spacing_of_the_files_is_compared_and_not_used(tmp_path, folder, fields, recwarn):
    PdeArenaNavierStokes(folder)  # L / (n - 1), as published
    for name in ("*97373*", "*197910*", "*valid*", "*test*"):
        edit(folder, lambda group: group["dx"].write_direct(np.full(len(group["dx"]), SIDE / NX)), name)
        edit(folder, lambda group: group["dy"].write_direct(np.full(len(group["dy"]), SIDE / NY)), name)
    PdeArenaNavierStokes(folder)  # L / n, as it should be
    assert not recwarn.list
    edit(folder, lambda group: group["dy"].write_direct(np.full(2, 0.7)))
    with pytest.warns(UserWarning, match=r"Expected dy = 3.2.*or 3.55556.*train_97373.*says 0.7") as seen:
        adapter = PdeArenaNavierStokes(folder)
    assert len(seen) == 1
    assert adapter.trajectories("train")[0].context.coordinates[0][0] == pytest.approx(SIDE / NX / 2)
    small = tmp_path / "small"
    write_navier_stokes(small, "train", 1, fields["test", 61649], side=2.0)
    assert PdeArenaNavierStokes(small, length=2.0).metadata.grid.axes[0].bounds == (0.0, 2.0)


def test_stored_times_may_be_right(folder):
    """Whoever corrects ``t`` gets the same."""
    for name in ("*97373*", "*197910*", "*valid*", "*test*"):
        edit(folder, lambda group: group["t"].__setitem__(..., START + NS_INTERVAL * np.arange(FRAMES)), name)
    assert PdeArenaNavierStokes(folder).trajectories("val")[0].times[-1] == START + NS_INTERVAL * (FRAMES - 1)


@pytest.fixture
def conditioned(tmp_path):
    """Frames 1.5 apart at several buoyancies."""
    root = tmp_path / "conditioned"
    for seed, (mode, buoyancy) in enumerate([("train", 0.40963), ("train", 0.2), ("valid", 0.31), ("test", 0.5)]):
        write_navier_stokes(root, mode, seed, staggered_flow(seed, 2, 14, 8, 8), buoyancy, 1.5)
    return root


def test_buoyancy_of_each_trajectory(conditioned):
    adapter = PdeArenaNavierStokes(conditioned)
    assert adapter.metadata.name == "pdearena_navier_stokes_conditioned"
    found = [trajectory.context.parameters[0].item() for trajectory in adapter.trajectories("train")]
    assert found == pytest.approx([0.40963, 0.40963, 0.2, 0.2])
    edit(conditioned, lambda group: group.__delitem__("buo_y"), "*valid*")  # the name says it
    again = PdeArenaNavierStokes(conditioned).trajectories("val")[0].context.parameters
    assert again.tolist() == pytest.approx([0.31, 1.0, 0.01, 0.0, 32.0])


def test_every_fourth_frame_of_the_conditioned_set(conditioned):
    every, fourth = PdeArenaNavierStokes(conditioned), PdeArenaNavierStokes(conditioned, first_frame=1, stride=4)
    assert fourth.metadata.frame_interval == 6.0
    for split in fourth.splits:
        for fine, coarse in zip(every.trajectories(split), fourth.trajectories(split), strict=True):
            assert torch.equal(coarse.read(), fine.read()[1::4])
            assert torch.equal(coarse.times, fine.times[1::4])
            assert torch.equal(coarse.read(1, 3), fine.read()[[5, 9]])


def test_training_trajectories_of_all_starts_hold_every_pair(conditioned):
    fine = PdeArenaNavierStokes(conditioned)
    cut = PdeArenaNavierStokes(conditioned, stride=4, starts="all")
    assert [len(cut.trajectories(split)) for split in cut.splits] == [16, 2, 2]
    pairs = {
        (round(float(run.times[k]), 6), round(float(run.times[k + 1]), 6))
        for run in cut.trajectories("train")[:4]
        for k in range(len(run) - 1)
    }
    times = [round(float(time), 6) for time in fine.trajectories("train")[0].times]
    assert pairs == set(zip(times, times[4:], strict=False))


def test_published_statistics(conditioned, folder, tmp_path):
    standard, other = (PdeArenaNavierStokes(root).published_statistics() for root in (folder, conditioned))
    assert standard.mean[0].item() == pytest.approx(0.7171192)
    assert standard.std.tolist() == pytest.approx([0.4428091, 0.4393103, 0.5087933], rel=1e-6)
    assert other.std.tolist() == pytest.approx([0.4460426, 0.3972564, 0.4512339], rel=1e-6)
    write_navier_stokes(tmp_path / "own", "train", 1, staggered_flow(1, 1, 4, 8, 8), 0.3, 2.0)
    with pytest.raises(ValueError, match=r"published sets.*buoyancy 0.3 to 0.3 and frames 2 apart.*of its own"):
        PdeArenaNavierStokes(tmp_path / "own").published_statistics()


def test_velocity_at_centers_is_the_mean_of_both_faces_and_the_last_is_a_wall(folder, fields):
    adapter = PdeArenaNavierStokes(folder, velocity="centers")
    assert {channel.location for channel in adapter.metadata.channels} == {"cell"}
    read = adapter.trajectories("val")[0].read(1, 4).numpy()
    stored = {name: values[0, 1:4] for name, values in fields["valid", 415574].items()}
    assert np.array_equal(read[:, 0], stored["u"].astype(np.float32))
    for i in range(NX):
        behind = stored["vx"][:, i + 1] if i + 1 < NX else 0.0
        assert read[:, 1, i] == pytest.approx((stored["vx"][:, i] + behind) / 2, abs=1e-6)
    for j in range(NY):
        behind = stored["vy"][:, :, j + 1] if j + 1 < NY else 0.0
        assert read[:, 2, :, j] == pytest.approx((stored["vy"][:, :, j] + behind) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="velocity on faces, of which statistics were published"):
        adapter.published_statistics()


def test_files_that_do_not_say_their_split_are_named(folder):
    (path,) = folder.glob("*_valid_*")
    (folder / f"._{path.name}").write_bytes(b"left behind by a copy")
    path.rename(folder / "NavierStokes2D_vaild_415574_0.50000.h5")
    with pytest.warns(UserWarning, match=r"Left out 1 files .*no word says the split: NavierStokes2D_vaild_") as seen:
        adapter = PdeArenaNavierStokes(folder)
    assert len(seen) == 1
    assert adapter.splits == ("train", "test")


def test_only_the_frames_that_are_asked_for_are_read(folder, monkeypatch):
    adapter = PdeArenaNavierStokes(folder, stride=2)
    read = []
    plain = Hdf5File.read

    def counted(self, name, selection=()):
        values = plain(self, name, selection)
        read.append((name, values.nbytes))
        return values

    monkeypatch.setattr(Hdf5File, "read", counted)
    trajectory = adapter.trajectories("train")[4]
    assert not read
    trajectory.read(1, 3)
    assert read == [(f"train/{name}", 2 * NX * NY * 8) for name in ("u", "vx", "vy")]


def test_reads_on_after_pickling_and_in_forked_workers(folder):
    adapter = PdeArenaNavierStokes(folder)
    expected = torch.cat([trajectory.read()[None] for trajectory in adapter.trajectories("train")])
    copy = pickle.loads(pickle.dumps(adapter))
    assert torch.equal(torch.stack([trajectory.read() for trajectory in copy.trajectories("train")]), expected)
    windows = Windows(adapter.trajectories("train"), 2, 1)
    sampler = EpochSampler(len(windows), 3, shuffle=False)
    alone = [batch.history for batch in ResumableLoader(windows, sampler)]
    forked = [batch.history for batch in ResumableLoader(windows, sampler, num_workers=2)]
    assert all(torch.equal(*pair) for pair in zip(alone, forked, strict=True))


def test_each_file_is_opened_once(folder, monkeypatch):
    opened = []
    plain = h5py.File

    def counted(path, *arguments, **options):
        opened.append(path)
        return plain(path, *arguments, **options)

    monkeypatch.setattr("pdesurrogate.data.hdf5_file.h5py.File", counted)
    adapter = PdeArenaNavierStokes(folder)
    for _ in range(3):
        for trajectory in adapter.trajectories("train"):
            trajectory.read(0, 1)
    assert sorted(opened) == sorted(folder.glob("*.h5"))


def test_an_archive_holds_the_same(folder, tmp_path):
    adapter = PdeArenaNavierStokes(folder)
    convert(adapter, tmp_path / "out")
    archive = Archive(tmp_path / "out")
    assert dataclasses.replace(archive.metadata, attributes={}) == adapter.metadata
    for split in adapter.splits:
        for ours, theirs in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.equal(ours.times, theirs.times)
            assert all(map(torch.equal, ours.context.coordinates, theirs.context.coordinates))
            assert torch.allclose(ours.context.parameters, theirs.context.parameters)


def test_bad_trajectories_are_named_or_skipped(folder):
    def spoil(group):
        group["u"][0] = group["vx"][0] = group["vy"][0] = 0.0

    def spoil_again(group):
        group["vy"][1, -1, 2, 3] = np.nan

    path = edit(folder, spoil)
    edit(folder, spoil_again, "*train_197910*")
    adapter = PdeArenaNavierStokes(folder)
    assert adapter.left_out == []
    with pytest.raises(ValueError, match=rf"trajectory 0 of .*{path.name} holds nothing but zeros.*skip_bad_traj"):
        adapter.trajectories("train")[0].read(2, 4)
    with pytest.raises(ValueError, match=r"frame 6 of trajectory 1 of .*train_197910.* holds NaN"):
        adapter.trajectories("train")[3].read(5)
    with pytest.warns(UserWarning, match=r"Went on without .*97373.*zeros in stored frame 6; .*197910.*NaN") as seen:
        skipping = PdeArenaNavierStokes(folder, skip_bad_trajectories=True)
    assert len(seen) == 1
    assert [left.name.rsplit("/")[-1] for left in skipping.left_out] == [
        path.name,
        path.name.replace("97373_0.50000_2", "197910_0.50000_3"),
    ]
    assert len(skipping.trajectories("train")) == 3
    assert torch.equal(skipping.trajectories("train")[0].read(), adapter.trajectories("train")[1].read())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda g: g.__delitem__("vx"), r"array 'train/vx' in .*97373.* but it holds", id="no_vx"),
        pytest.param(lambda g: g.__delitem__("dt"), r"array 'train/dt'", id="no_dt"),
        pytest.param(replaced("u", np.zeros((2, FRAMES, NX))), r"\(trajectory, time, x, y\) of one shape", id="rank"),
        pytest.param(replaced("vx", np.zeros((2, FRAMES, NX, NY - 1))), r"one shape in .*vx \(2, 7, 12, 9\)", id="vx"),
        pytest.param(replaced("u", np.zeros((2, FRAMES, NX, NY), int)), r"real numbers in 'train/u'", id="integers"),
        pytest.param(lambda g: g["dt"].write_direct(np.array([6.0, 7.0])), r"positive number.*'dt'.*6 to 7", id="dt"),
        pytest.param(lambda g: g["dt"].write_direct(np.full(2, -6.0)), r"one positive number", id="negative"),
        pytest.param(lambda g: g["t"].write_direct(np.ones((2, FRAMES))), r"times in 't'.*Correct t or dt", id="t"),
        pytest.param(replaced("t", np.ones((2, FRAMES + 1))), r"\(2, 7\) in .train/t.*\(2, 8\)", id="long_t"),
        pytest.param(replaced("dx", np.ones(3)), r"\(2,\) in 'train/dx'.*\(3,\)", id="dx"),
        pytest.param(replaced("buo_y", np.full(2, 0.25)), r"buoyancy 0.50000 that the name.*0.25", id="buoyancy"),
        pytest.param(replaced("buo_y", np.full(2, np.nan)), r"finite numbers in 'buo_y'", id="nan_buoyancy"),
        pytest.param(lambda g: g.parent.move("train", "test"), r"group named train in .*97373.*\['test'\]", id="group"),
        pytest.param(lambda g: g.parent.move("train", "data"), r"group named train in .*\['data'\]", id="no_group"),
    ],
)  # fmt: skip
def test_files_of_another_layout_are_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        PdeArenaNavierStokes(folder)


@pytest.mark.parametrize(
    ("mode", "shape", "interval", "message"),
    [
        (
            "train",
            (1, FRAMES, NX, NX),
            6.0,
            r"\(7, 12, 12\) frames and cells, as in .*_5_.* but .*97373.* has \(7, 12, 10\)",
        ),
        ("test", (1, FRAMES - 1, NX, NY), 6.0, r"has \(6, 12, 10\)"),
        ("valid", (1, FRAMES, NX, NY), 1.5, r"frames 6 apart.*1.5 apart"),
    ],
)
def test_shards_of_different_sets_are_refused(folder, mode, shape, interval, message):
    write_navier_stokes(folder, mode, 5, {n: random_fields(0, *shape) for n in ("u", "vx", "vy")}, interval=interval)
    with pytest.raises(ValueError, match=message):
        PdeArenaNavierStokes(folder)


def test_names_that_do_not_say_what_they_should_are_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="does not exist"):
        PdeArenaNavierStokes(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found none"):
        PdeArenaNavierStokes(tmp_path / "empty")
    (path,) = folder.glob("*valid*")
    with pytest.raises(ValueError, match="one of the words"):
        PdeArenaNavierStokes(path.rename(tmp_path / "renamed.h5"))
    edit(tmp_path, lambda group: group.__delitem__("buo_y"), "renamed.h5")
    with pytest.raises(ValueError, match=r"buoyancy in 'buo_y' of .* or in its name"):
        PdeArenaNavierStokes((tmp_path / "renamed.h5").rename(tmp_path / "valid.h5"))
    with pytest.raises(ValueError, match=r"splits \('train', 'test'\).*'val'"):
        PdeArenaNavierStokes(folder).trajectories("val")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(folder, kept):
    (path,) = folder.glob("*train_197910*")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"197910.*(begins otherwise|truncated|cannot be read)"):
        PdeArenaNavierStokes(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride >= 1"),
        ({"first_frame": -1}, "first_frame >= 0"),
        ({"first_frame": 4, "stride": 4}, "at least two of 7 stored frames"),
        ({"starts": "some"}, "'first' or 'all'"),
        ({"length": 0.0}, "length > 0"),
        ({"viscosity": -1.0}, "viscosity >= 0"),
    ],
)
def test_impossible_options_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        PdeArenaNavierStokes(folder, **options)

"""SineNet's compressible flows: places and times of frames, uneven batches, frames of zeros, a training step."""

from __future__ import annotations

import dataclasses
import pickle

import h5py
import lightning
import numpy as np
import pytest
import torch
from layouts_pdearena import compressible_fields, rewrite, write_compressible

from pdesurrogate.data.adapters.base import Adapter, WithStatistics
from pdesurrogate.data.adapters.sinenet_compressible import SineNetCompressible
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.data.loading import EpochSampler, ResumableLoader
from pdesurrogate.data.windows import Windows

FRAMES, NX, NY = 6, 8, 4
NAMES = ("D", "P", "Vx", "Vy")


@pytest.fixture
def batches():
    """Of each split, with different numbers of trajectories, and keys that sort otherwise as text."""
    counts = {"train": {"9999": 2, "10001": 3}, "valid": {"20001": 1}, "test": {"30001": 2}}
    return {
        mode: {key: compressible_fields(int(key), count, FRAMES, NX, NY) for key, count in keys.items()}
        for mode, keys in counts.items()
    }


@pytest.fixture
def folder(tmp_path, batches):
    for mode, groups in batches.items():
        write_compressible(tmp_path / "set", mode, groups)
    return tmp_path / "set"


def file_of(folder, mode):
    (path,) = folder.glob(f"*_{mode}_*")
    return path


def stacked(fields):
    return torch.from_numpy(np.stack([fields[name][..., 0] for name in NAMES], 2)).float()


def test_values_places_and_times(folder, batches):
    adapter = SineNetCompressible(folder)
    assert isinstance(adapter, Adapter)
    assert isinstance(adapter, WithStatistics)
    assert {split: len(adapter.trajectories(split)) for split in adapter.splits} == {"train": 5, "val": 1, "test": 2}
    read = torch.stack([trajectory.read() for trajectory in adapter.trajectories("train")])
    assert torch.equal(read, torch.cat([stacked(batches["train"][key]) for key in ("9999", "10001")]))
    first = adapter.trajectories("train")[0]
    x, y = first.context.coordinates
    # Every fourth center of a grid that is four times as fine: half a fine cell from the corner.
    assert torch.allclose(x, (torch.arange(NX) + 0.125) / NX)
    assert torch.allclose(y, (torch.arange(NY) + 0.125) / NY)
    # Without the round-off of single precision.
    assert first.times.tolist() == [0.05 * k for k in range(FRAMES)]
    assert adapter.metadata.frame_interval == 0.05
    assert adapter.metadata.channel_names == ("density", "pressure", "velocity_x", "velocity_y")
    assert [axis.period for axis in adapter.metadata.grid.axes] == [1.0, 1.0]
    assert adapter.metadata.parameters == ("shear_viscosity", "bulk_viscosity", "mach", "gamma")
    assert first.context.parameters.tolist() == pytest.approx([1e-8, 1e-8, 0.1, 5 / 3])


def test_values_are_those_of_the_fine_field_at_the_places(tmp_path):
    """A wave on the fine grid, thinned as the generator does."""
    centers = [(np.arange(4 * n) + 0.5) / (4 * n) for n in (NX, NY)]
    x, y = np.meshgrid(*centers, indexing="ij")
    wave = np.sin(2 * np.pi * (x + y))[None, None, ::4, ::4, None] * np.ones((1, FRAMES, 1, 1, 1))
    write_compressible(tmp_path, "train", {"10001": dict.fromkeys(NAMES, wave)})
    trajectory = SineNetCompressible(tmp_path).trajectories("train")[0]
    x, y = trajectory.context.coordinates
    assert torch.allclose(trajectory.read()[2, 1], torch.sin(2 * torch.pi * (x[:, None] + y)), atol=1e-6)


def test_sets_that_were_not_thinned(tmp_path, batches):
    path = write_compressible(tmp_path, "train", batches["train"], down_rate=1)
    for key in batches["train"]:
        rewrite(path, lambda file, key=key: replace(f"train/{key}/t", 0.05 * np.arange(FRAMES))(file))
    trajectory = SineNetCompressible(tmp_path).trajectories("train")[0]
    assert torch.allclose(trajectory.context.coordinates[0], (torch.arange(NX) + 0.5) / NX)
    assert len(trajectory) == FRAMES


def replace(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


def test_every_second_frame(folder):
    every, second = SineNetCompressible(folder), SineNetCompressible(folder, first_frame=1, stride=2, starts="all")
    full = every.trajectories("train")[1]
    one, other = second.trajectories("train")[2:4]
    assert torch.equal(one.read(), full.read()[1::2])
    assert torch.equal(other.read(), full.read()[2::2])
    assert torch.equal(other.times, full.times[2::2])
    assert second.metadata.frame_interval == pytest.approx(0.1)


def test_published_statistics(folder, tmp_path, batches):
    found = SineNetCompressible(folder).published_statistics()
    assert found.mean.tolist() == pytest.approx([5.0413976, 25.0861053, -3.7562102e-05, 1.1378323e-05], rel=1e-6)
    assert found.std.tolist() == pytest.approx([2.9829259, 21.711235, 0.1635209, 0.1634909], rel=1e-6)
    other = "2D_rand_{mode}_Eta0.01_Zeta0.01_M1.0_D.h5"
    write_compressible(tmp_path / "other", "train", batches["train"], name=other)
    adapter = SineNetCompressible(tmp_path / "other", gamma=1.4)
    assert adapter.trajectories("train")[0].context.parameters.tolist() == pytest.approx([0.01, 0.01, 1.0, 1.4])
    with pytest.raises(ValueError, match=r"\(1e-08, 1e-08, 0.1\).*\(0.01, 0.01, 1.0\).*of its own"):
        adapter.published_statistics()


def test_only_the_frames_that_are_asked_for_are_read(folder, monkeypatch):
    adapter = SineNetCompressible(folder, stride=2)
    read = []
    plain = Hdf5File.read

    def counted(self, name, selection=()):
        values = plain(self, name, selection)
        read.append((name, values.nbytes))
        return values

    monkeypatch.setattr(Hdf5File, "read", counted)
    adapter.trajectories("train")[3].read(1, 3)
    assert read == [(f"train/10001/{name}", 2 * NX * NY * 8) for name in NAMES]


def test_reads_on_after_pickling_and_in_forked_workers(folder):
    adapter = SineNetCompressible(folder)
    windows = Windows(adapter.trajectories("train"), 2, 1)
    sampler = EpochSampler(len(windows), 3, shuffle=False)
    alone = [batch.history for batch in ResumableLoader(windows, sampler)]
    forked = [batch.history for batch in ResumableLoader(windows, sampler, num_workers=2)]
    assert all(torch.equal(*pair) for pair in zip(alone, forked, strict=True))
    copy = pickle.loads(pickle.dumps(adapter))
    assert torch.equal(copy.trajectories("test")[1].read(), adapter.trajectories("test")[1].read())


def test_an_archive_holds_the_same(folder, tmp_path):
    adapter = SineNetCompressible(folder)
    convert(adapter, tmp_path / "out")
    archive = Archive(tmp_path / "out")
    assert dataclasses.replace(archive.metadata, attributes={}) == adapter.metadata
    for split in adapter.splits:
        for ours, theirs in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.equal(ours.times, theirs.times)
            assert all(map(torch.equal, ours.context.coordinates, theirs.context.coordinates))
            assert torch.allclose(ours.context.parameters, theirs.context.parameters)


def test_trajectories_that_the_solver_gave_up_are_named_or_skipped(folder):
    """It leaves the first frame, then zeros, and in the last what it had; or nothing but zeros."""

    def give_up(file):
        for name in NAMES:
            file[f"train/9999/{name}"][0] = 0.0
            file[f"train/10001/{name}"][2, 1:-1] = 0.0

    rewrite(file_of(folder, "train"), give_up)
    rewrite(file_of(folder, "test"), lambda file: file["test/30001/P"].__setitem__((1, FRAMES - 1, 3), np.nan))
    adapter = SineNetCompressible(folder)
    with pytest.raises(ValueError, match=r"trajectory 0 of group train/9999 of .*train.* holds nothing but zeros"):
        adapter.trajectories("train")[0].read(0, 1)
    assert adapter.trajectories("train")[4].read(0, 1).isfinite().all()
    with pytest.raises(ValueError, match=r"trajectory 2 of group train/10001 .*zeros.*skip_bad_trajectories"):
        adapter.trajectories("train")[4].read()
    with pytest.raises(ValueError, match=r"frame 5 of trajectory 1 of group test/30001 .*NaN"):
        adapter.trajectories("test")[1].read()
    with pytest.warns(UserWarning, match=r"Went on without .*10001.*zeros in stored frame 4; .*30001.*NaN") as seen:
        skipping = SineNetCompressible(folder, skip_bad_trajectories=True)
    assert len(seen) == 1
    assert [left.name.split(" of ")[:2] for left in skipping.left_out] == [
        ["trajectory 0", "group train/9999"],
        ["trajectory 2", "group train/10001"],
        ["trajectory 1", "group test/30001"],
    ]
    assert {split: len(skipping.trajectories(split)) for split in skipping.splits} == {"train": 3, "val": 1, "test": 1}
    for trajectory in skipping.trajectories("train"):
        trajectory.read()


def test_sets_of_nothing_but_bad_trajectories_are_refused(tmp_path, batches):
    zeros = dict.fromkeys(NAMES, np.zeros((2, FRAMES, NX, NY, 1)))
    write_compressible(tmp_path, "train", {"10001": zeros})
    with (
        pytest.warns(UserWarning, match="Went on without"),
        pytest.raises(ValueError, match="at least one whole trajectory"),
    ):
        SineNetCompressible(tmp_path, skip_bad_trajectories=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda f: f["train/10001"].__delitem__("P"), r"array 'train/10001/P'", id="no_pressure"),
        pytest.param(lambda f: f["train/10001"].__delitem__("t"), r"array 'train/10001/t'", id="no_times"),
        pytest.param(lambda f: f.move("train", "valid"), r"one group named train in .*\['valid'\]", id="group"),
        pytest.param(lambda f: f["train"].clear(), r"each batch of trajectories in 'train'.*empty", id="empty"),
        pytest.param(
            replace("train/10001/D", np.ones((3, FRAMES, NX, NY))), r"\(trajectory, time, x, y, z\)", id="rank"
        ),
        pytest.param(
            replace("train/10001/Vy", np.ones((3, FRAMES, NX, NX, 1))),
            r"of one shape in .*Vy \(3, 6, 8, 8, 1\)",
            id="Vy",
        ),
        pytest.param(
            replace("train/10001/P", np.ones((3, FRAMES, NX, NY, 1), int)), r"real numbers in 'train/10001/P'", id="int"
        ),
        pytest.param(replace("train/10001/x", np.arange(30.0)), "multiple of 8 places in 'train/10001/x'", id="x"),
        pytest.param(replace("train/10001/y", np.arange(16.0) ** 2), "evenly spaced places", id="uneven"),
        pytest.param(replace("train/10001/t", np.arange(9.0)), r"\(6,\) or \(7,\) in 'train/10001/t'.*\(9,\)", id="t"),
        pytest.param(replace("train/10001/t", np.arange(7.0) ** 2), "evenly spaced times", id="times"),
        pytest.param(
            replace("train/10001/t", np.arange(7.0)), r"6 times.*as in group train/9999 .*10001", id="other_t"
        ),
        pytest.param(replace("train/10001/x", np.arange(32.0)), r"8 points along x.*10001.* has 8, 0 to 28", id="box"),
    ],
)
def test_files_of_another_layout_are_refused(folder, change, message):
    rewrite(file_of(folder, "train"), change)
    with pytest.raises(ValueError, match=message):
        SineNetCompressible(folder)


def test_three_dimensional_flow_is_refused(tmp_path):
    flow = {name: np.ones((1, FRAMES, NX, NY, 2)) for name in NAMES}
    write_compressible(tmp_path, "train", {"10001": flow})
    with pytest.raises(ValueError, match="one along z"):
        SineNetCompressible(tmp_path)


def test_names_that_do_not_say_what_they_should_are_refused(folder, batches, tmp_path):
    other = "2D_rand_{mode}_Eta0.01_Zeta0.01_M0.1_D.h5"
    path = write_compressible(folder, "train", batches["train"], name=other)
    with pytest.raises(
        ValueError, match=r"one file for the split 'train' in .* but found 2: .*Eta0.01.* and .*Eta1e-08"
    ):
        SineNetCompressible(folder)
    file_of_split = folder / "2D_rand_train_Eta1e-08_Zeta1e-08_M0.1_D.h5"
    file_of_split.unlink()
    with pytest.raises(ValueError, match="files of one set"):
        SineNetCompressible(folder)
    with pytest.raises(ValueError, match=r"such as 2D_rand_train_Eta1e-08.*but got train.h5.*back its name"):
        SineNetCompressible(path.rename(tmp_path / "train.h5"))
    with pytest.raises(ValueError, match="one of the words"):
        SineNetCompressible((tmp_path / "train.h5").rename(tmp_path / "2D_rand_Eta1_Zeta1_M1_D.h5"))
    with pytest.raises(ValueError, match=r"splits \('val', 'test'\)"):
        SineNetCompressible(folder).trajectories("train")
    with pytest.raises(ValueError, match="gamma > 1"):
        SineNetCompressible(folder, gamma=1.0)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.95])
def test_truncated_files_are_refused(folder, kept):
    path = file_of(folder, "train")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"2D_rand_train.*(truncated|begins otherwise)"):
        SineNetCompressible(folder)


def test_a_network_learns_from_it(folder):
    """From files to a step of training, and whole rollouts in validation."""
    from pdesurrogate.models.fno import FNO
    from pdesurrogate.training.forecast import ForecastModule

    data = ForecastData(SineNetCompressible(folder), history_frames=2, rollout_frames=2, batch_size=2)
    network = FNO(channels=data.channels, history_frames=2, modes=(2, 2), width=4, layers=1)
    module = ForecastModule(network, data.metadata, data.history_frames)
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    before = [parameter.clone() for parameter in network.parameters()]
    trainer.fit(module, data)
    assert any(not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_the_layout_is_that_of_the_generator(folder):
    """What these tests write: names, groups, kinds of numbers, one time too many, places of the finer grid."""
    with h5py.File(file_of(folder, "train")) as file:
        group = file["train/10001"]
        assert group["D"].shape == (3, FRAMES, NX, NY, 1)
        assert {array.dtype for array in group.values()} == {np.dtype("float64")}
        assert (group["x"].shape, group["t"].shape) == ((4 * NX,), (FRAMES + 1,))

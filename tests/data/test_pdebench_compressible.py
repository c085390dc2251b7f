"""PDEBench's compressible flow, and what its layouts share: times, coordinates, splits, laziness, bad files."""

from __future__ import annotations

import pickle
import re
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_pdebench import AXES, compressible_arrays, write_compressible, write_flat
from torch.utils.data import DataLoader

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.pdebench import PdeBenchCompressible
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.data.windows import Windows, as_batch

CHUNKED = {"chunks": True, "compression": "gzip"}


def expected(arrays, number, every=1, step=1):
    """``(time, channel, *space)`` as a plain formula."""
    names = ["density", *(f"V{axis}" for axis in AXES if f"V{axis}" in arrays), "pressure"]
    stacked = np.stack([arrays[name][number, ::step] for name in names], 1)
    return stacked[(slice(None), slice(None), *(slice(None, None, every),) * (stacked.ndim - 2))]


@pytest.mark.parametrize("storage", [{}, CHUNKED], ids=["in one piece", "packed"])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_channels_are_those_of_the_file_in_our_order(tmp_path, dimension, storage):
    arrays = compressible_arrays(dimension)
    adapter = PdeBenchCompressible(write_compressible(tmp_path, arrays=arrays, storage=storage))
    assert isinstance(adapter, Adapter)
    velocity = tuple(f"velocity_{axis}" for axis in AXES[:dimension])
    assert adapter.metadata.channel_names == ("density", *velocity, "pressure")
    assert [channel.vector for channel in adapter.metadata.channels] == ["", *["velocity"] * dimension, ""]
    assert {channel.location for channel in adapter.metadata.channels} == {"cell"}
    assert adapter.splits == ("train", "test")
    for number, trajectory in enumerate([*adapter.trajectories("test"), *adapter.trajectories("train")]):
        assert np.array_equal(trajectory.read().numpy(), expected(arrays, number))
        assert np.array_equal(trajectory.read(2, 4).numpy(), expected(arrays, number)[2:4])


def test_grid_and_parameters(tmp_path):
    adapter = PdeBenchCompressible(write_compressible(tmp_path))
    assert adapter.metadata.grid.periods == (1.0, 1.0)
    assert adapter.metadata.parameters == ("shear_viscosity", "bulk_viscosity", "mach", "gamma")
    context = adapter.trajectories("train")[0].context
    assert context.parameters.tolist() == pytest.approx([0.01, 0.01, 0.1, 5 / 3])
    assert np.array_equal(context.coordinates[1].numpy(), compressible_arrays()["y-coordinate"])
    adapter.metadata.grid.check_coordinates(context.coordinates)


@pytest.mark.parametrize("extra", [0, 1])
def test_the_extra_time_is_the_last_one(tmp_path, extra):
    adapter = PdeBenchCompressible(write_compressible(tmp_path, extra=extra))
    assert adapter.trajectories("train")[0].times.tolist() == [0.0, 0.05, 0.1, 0.15, 0.2]
    assert adapter.metadata.frame_interval == 0.05
    assert adapter.metadata.attributes["stored_time_entries"] == 5 + extra


def test_waves_leave_through_an_outgoing_boundary(tmp_path):
    path = write_compressible(
        tmp_path, "1D_CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5", dimension=1, low=-1.0, attributes={}
    )
    adapter = PdeBenchCompressible(path)
    (axis,) = adapter.metadata.grid.axes
    assert (axis.period, axis.bounds) == (None, (-1.0, 1.0))
    assert adapter.metadata.parameters == ("shear_viscosity", "bulk_viscosity", "gamma")
    assert adapter.trajectories("test")[0].context.parameters.tolist() == pytest.approx([1e-8, 1e-8, 5 / 3])
    weights = adapter.metadata.grid.quadrature_weights(adapter.trajectories("test")[0].context.coordinates)
    assert float(weights[0].sum()) == pytest.approx(2.0, rel=1e-6)
    assert PdeBenchCompressible(path, boundary="periodic").metadata.grid.periods == (2.0,)


def test_a_name_that_says_nothing_of_the_boundary_is_refused(tmp_path):
    path = write_compressible(tmp_path, "flow.hdf5")
    with pytest.raises(ValueError, match=re.escape("Give boundary='periodic' or boundary='outgoing'")):
        PdeBenchCompressible(path)
    assert PdeBenchCompressible(path, boundary="outgoing").metadata.grid.axes[1].bounds == (0.0, 1.0)
    with pytest.raises(ValueError, match="'periodic' or 'outgoing' but got 'trans'"):
        PdeBenchCompressible(path, boundary="trans")


def test_viscosities_are_stated_or_asked_for(tmp_path):
    path = write_compressible(tmp_path, "KH_M01_dk10_periodic.hdf5", attributes={})
    with pytest.raises(ValueError, match="Give shear_viscosity= and bulk_viscosity="):
        PdeBenchCompressible(path)
    adapter = PdeBenchCompressible(path, shear_viscosity=1e-3, bulk_viscosity=0.0, gamma=1.4)
    # M01 means 0.1 in these names: rather none than 1.
    assert adapter.metadata.parameters == ("shear_viscosity", "bulk_viscosity", "gamma")
    with pytest.raises(ValueError, match="gamma > 1"):
        PdeBenchCompressible(path, shear_viscosity=1e-3, bulk_viscosity=0.0, gamma=1.0)
    with pytest.raises(ValueError, match="a finite eta"):
        PdeBenchCompressible(path, shear_viscosity=float("nan"), bulk_viscosity=0.0)


def test_attributes_may_be_arrays_of_one_number_as_netcdf_libraries_write_them(tmp_path):
    stated = {"eta": np.array([0.02]), "zeta": np.array([0.03]), "M": np.array([0.4])}
    adapter = PdeBenchCompressible(write_compressible(tmp_path, "2D_CFD_periodic.hdf5", attributes=stated))
    assert adapter.trajectories("train")[0].context.parameters[:3].tolist() == pytest.approx([0.02, 0.03, 0.4])
    two = write_compressible(tmp_path, "2D_periodic.hdf5", attributes={"eta": np.zeros(2), "zeta": 0.01})
    with pytest.raises(ValueError, match=r"attribute 'eta' of the root of .* but found '\[0. 0.\]'"):
        PdeBenchCompressible(two)


def test_attribute_and_name_must_agree(tmp_path):
    path = write_compressible(tmp_path, attributes={"eta": 0.1, "zeta": 0.01, "M": 0.1})
    with pytest.raises(ValueError, match=r"attribute of .* says 0\.1 and its name 0\.01"):
        PdeBenchCompressible(path)
    assert PdeBenchCompressible(path, shear_viscosity=0.1).metadata.parameters[0] == "shear_viscosity"
    other = write_compressible(tmp_path, "2D_CFD_periodic.hdf5", attributes={"eta": "high", "zeta": 0.01})
    with pytest.raises(ValueError, match="a number in the attribute 'eta'"):
        PdeBenchCompressible(other)


def test_splits_are_those_of_the_authors_unless_sizes_are_given(tmp_path):
    arrays = compressible_arrays(1, trajectories=20)
    path = write_compressible(tmp_path, arrays=arrays)

    def numbers(**sizes):
        adapter = PdeBenchCompressible(path, **sizes)
        first = arrays["density"][:, 0, 0].tolist()
        return {
            split: [first.index(float(each.read(0, 1)[0, 0, 0])) for each in adapter.trajectories(split)]
            for split in adapter.splits
        }

    assert numbers() == {"train": [*range(2, 20)], "test": [0, 1]}
    assert numbers(val=3) == {"train": [*range(2, 17)], "val": [17, 18, 19], "test": [0, 1]}
    assert numbers(train=6, val=2, test=3) == {"train": [3, 4, 5, 6], "val": [7, 8], "test": [0, 1, 2]}
    assert numbers(train=20) == {"train": [*range(20)]}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 9, "test": 2}, "overlap"),
        ({"train": 11}, "overlap"),
        ({"train": 3, "val": 4}, "val <= train"),
        ({"test": -1}, "sizes >= 0"),
        ({"train": 0, "test": 0}, "not all of them 0"),
    ],
)
def test_impossible_splits_are_refused(tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        PdeBenchCompressible(write_compressible(tmp_path), **sizes)


def test_unknown_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one of the splits \('train', 'test'\) .* but got 'val'"):
        PdeBenchCompressible(write_compressible(tmp_path)).trajectories("val")


@pytest.mark.parametrize("storage", [{}, CHUNKED], ids=["in one piece", "packed"])
def test_frames_and_cells_are_taken_as_the_authors_take_them(tmp_path, storage):
    arrays = compressible_arrays(2, frames=7)
    path = write_compressible(tmp_path, arrays=arrays, storage=storage)
    adapter = PdeBenchCompressible(path, interval=0.15, every=2)
    (trajectory,) = adapter.trajectories("test")
    assert trajectory.shape == (3, 4, 4, 5)
    assert trajectory.times.tolist() == [0.0, 0.15, 0.3]
    assert adapter.metadata.frame_interval == 0.15
    assert np.array_equal(trajectory.read().numpy(), expected(arrays, 0, every=2, step=3))
    assert np.array_equal(trajectory.context.coordinates[0].numpy(), arrays["x-coordinate"][::2])
    assert adapter.metadata.grid.periods == (1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0.12}, r"multiple of the 0\.05 .* 0\.1 is one"),
        ({"interval": 0.01}, r"0\.05 is one"),
        ({"interval": -0.05}, "multiple"),
        ({"interval": float("nan")}, "multiple"),
        ({"interval": 0.25}, "at least two frames"),
        ({"every": 3}, "every to divide the 8 points along x"),
        ({"every": 8}, "leave two of them"),
        ({"every": 0}, "every >= 1"),
    ],
)
def test_other_intervals_and_strides_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        PdeBenchCompressible(write_compressible(tmp_path), **options)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_single_frame_is_no_trajectory(tmp_path, extra):
    with pytest.raises(ValueError, match="at least two"):
        PdeBenchCompressible(write_compressible(tmp_path, frames=1, extra=extra))


@pytest.mark.parametrize("storage", [{}, CHUNKED], ids=["in one piece", "packed"])
def test_only_the_frames_asked_for_are_read(tmp_path, storage, monkeypatch):
    path = write_compressible(tmp_path, storage=storage)
    read = []
    plain = Hdf5File.read

    def counted(file, name, selection=()):
        read.append((name, selection))
        return plain(file, name, selection)

    monkeypatch.setattr(Hdf5File, "read", counted)
    adapter = PdeBenchCompressible(path)
    trajectory = adapter.trajectories("train")[1]
    assert {name for name, _ in read} == {"t-coordinate", "x-coordinate", "y-coordinate"}
    read.clear()
    trajectory.read(1, 3)
    assert read == [(name, (2, slice(1, 3, 1))) for name in ("density", "Vx", "Vy", "pressure")]


def test_large_packed_frames_are_read_block_by_block(tmp_path, monkeypatch):
    arrays = compressible_arrays(2, trajectories=2)
    path = write_compressible(tmp_path, arrays=arrays, storage=CHUNKED)
    monkeypatch.setattr("pdesurrogate.data.adapters.pdebench.runs._BLOCK_BYTES", 2 * 4 * 8 * 10)
    adapter = PdeBenchCompressible(path, train=2)
    assert np.array_equal(adapter.trajectories("train")[1].read().numpy(), expected(arrays, 1))


def test_fields_in_one_piece_are_mapped(tmp_path):
    path = write_compressible(tmp_path)
    assert Hdf5File(path).arrays["density"].offset is not None


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_read_the_same(tmp_path, context):
    adapter = PdeBenchCompressible(write_compressible(tmp_path, storage=CHUNKED))
    windows = Windows(adapter.trajectories("train"), 2, 1)
    plain = [windows[index].history for index in range(len(windows))]
    loader = DataLoader(windows, 4, num_workers=1, collate_fn=as_batch, multiprocessing_context=context)
    assert torch.equal(torch.cat([batch.history for batch in loader]), torch.stack(plain))


def test_a_pickled_adapter_reads_on(tmp_path):
    adapter = PdeBenchCompressible(write_compressible(tmp_path))
    copy = pickle.loads(pickle.dumps(adapter))
    assert torch.equal(copy.trajectories("train")[2].read(), adapter.trajectories("train")[2].read())


def test_archives_hold_the_same(tmp_path):
    adapter = PdeBenchCompressible(write_compressible(tmp_path), val=2)
    convert(adapter, tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    assert archive.splits == adapter.splits == ("train", "val", "test")
    assert archive.metadata.channels == adapter.metadata.channels
    assert archive.metadata.grid == adapter.metadata.grid
    for split in archive.splits:
        for ours, theirs in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.equal(ours.times, theirs.times)
            assert torch.equal(ours.context.parameters.float(), theirs.context.parameters)


@given(
    dimension=st.integers(1, 3), trajectories=st.integers(1, 3), frames=st.integers(2, 5), points=st.integers(2, 5),
    packed=st.booleans(), extra=st.integers(0, 1), dtype=st.sampled_from(["<f4", ">f4", "<f8", "<f2"]),
)  # fmt: skip
@settings(max_examples=25)
def test_every_size_round_trips(dimension, trajectories, frames, points, packed, extra, dtype):
    arrays = compressible_arrays(dimension, trajectories, frames, points, extra=extra)
    arrays = {name: values.astype(dtype) if values.ndim > 1 else values for name, values in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = write_compressible(Path(folder), arrays=arrays, storage=CHUNKED if packed else {})
        read = [each.read().numpy() for each in PdeBenchCompressible(path, train=trajectories).trajectories("train")]
    assert np.array_equal(read, [expected(arrays, number).astype(np.float32) for number in range(trajectories)])


# Bad files.


@pytest.mark.parametrize("name", ["density", "pressure", "Vx", "Vy", "x-coordinate", "y-coordinate", "t-coordinate"])
def test_missing_arrays_are_named(tmp_path, name):
    arrays = compressible_arrays()
    del arrays[name]
    path = write_flat(tmp_path / "2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_8_Train.hdf5", arrays, {})
    with pytest.raises(ValueError, match=f"Expected the array '{name}' in .* but it holds"):
        PdeBenchCompressible(path)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("Vy", lambda v: v[:, :, :, :-1], "'Vy' of .* the shape of density"),
        ("pressure", lambda v: v[:-1], "'pressure' of .* the shape of density"),
        ("density", lambda v: v[0, 0], r"density \(trajectory, time, x\[, y\[, z\]\]\)"),
        ("Vx", lambda v: v.astype(np.int32), "real numbers in 'Vx' .* of int32"),
        ("Vx", lambda v: v.astype("S4"), "Expected numbers in 'Vx'"),
        ("x-coordinate", lambda v: v[::2], "8 entries in 'x-coordinate' .* but found 4.*subsampled"),
        ("x-coordinate", lambda v: v**2, "evenly spaced centers"),
        ("x-coordinate", lambda v: v[::-1], "increasing"),
        ("x-coordinate", lambda v: v * np.nan, "finite numbers in 'x-coordinate'"),
        ("t-coordinate", lambda v: v[:-2], "5 or 6 entries in 't-coordinate' .* but found 4"),
        ("t-coordinate", lambda v: np.append(v, v[-1] + 0.05), "5 or 6 entries in 't-coordinate' .* but found 7"),
        ("t-coordinate", lambda v: v**2, "evenly spaced times"),
        ("t-coordinate", lambda v: v + np.inf, "finite numbers in 't-coordinate'"),
        ("t-coordinate", lambda v: v.astype(np.float64) + 1e300, "finite numbers"),
        # One that is no time of the series: spreading the ends over the frames would scale dt.
        ("t-coordinate", lambda v: np.append(v[:-1], v[-1] + 1), "evenly spaced times"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, name, edit, message):
    arrays = compressible_arrays()
    arrays[name] = edit(arrays[name])
    path = write_flat(tmp_path / "2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_8_Train.hdf5", arrays, {})
    with pytest.raises(ValueError, match=message):
        PdeBenchCompressible(path)


def test_objects_are_not_read(tmp_path):
    path = write_compressible(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["Vx"]
        file.create_dataset("Vx", data=["a"], dtype=h5py.string_dtype())
    with pytest.raises(ValueError, match="Expected numbers in 'Vx'"):
        PdeBenchCompressible(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused_when_opened(tmp_path, share):
    path = write_compressible(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"truncated|error page"):
        PdeBenchCompressible(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected a file"):
        PdeBenchCompressible(tmp_path / "nowhere.hdf5")
    page = tmp_path / "2D_CFD_periodic.hdf5"
    page.write_text("<html>Service unavailable</html>")
    with pytest.raises(ValueError, match="error page"):
        PdeBenchCompressible(page)


def failed_arrays():
    """Trajectory 3 was never computed; 5 died after its second frame, as the authors' loop leaves it."""
    arrays = compressible_arrays()
    for name in ("density", "Vx", "Vy", "pressure"):
        arrays[name][3] = 0
        arrays[name][5, 2:] = 0
        arrays[name][5, -1] = np.nan
    return arrays


def test_trajectories_that_failed_are_refused_when_read(tmp_path):
    adapter = PdeBenchCompressible(write_compressible(tmp_path, arrays=failed_arrays()), train=10)
    trajectories = adapter.trajectories("train")
    assert trajectories[2].read().isfinite().all()
    with pytest.raises(ValueError, match=r"frame 0 of trajectory 3 of .*periodic.* holds nothing but zeros"):
        trajectories[3].read()
    assert trajectories[5].read(0, 2).isfinite().all()
    with pytest.raises(ValueError, match=r"frame 2 of trajectory 5 .* nothing but zeros.*skip_bad_trajectories=True"):
        trajectories[5].read(1)
    with pytest.raises(ValueError, match=r"frame 4 of trajectory 5 .* NaN or infinity"):
        trajectories[5].read(4)


def test_trajectories_that_failed_are_left_out_on_request(tmp_path):
    path = write_compressible(tmp_path, arrays=failed_arrays())
    with pytest.warns(
        UserWarning, match="Went on without trajectories of .*: trajectory 3 .* zeros.*; trajectory 5"
    ) as told:
        adapter = PdeBenchCompressible(path, train=6, val=2, test=4, skip_bad_trajectories=True)
    assert len(told) == 1
    assert [left.name.split(" of ")[0] for left in adapter.left_out] == ["trajectory 3", "trajectory 5"]
    assert [left.reason for left in adapter.left_out] == [
        "holds nothing but zeros in its last frame", "holds NaN or infinity in its last frame",
    ]  # fmt: skip
    # The others stay in the splits that they would be in.
    assert [len(adapter.trajectories(split)) for split in ("train", "val", "test")] == [3, 2, 3]
    convert(adapter, tmp_path / "archive")


def test_sound_files_are_opened_without_a_warning(tmp_path):
    adapter = PdeBenchCompressible(write_compressible(tmp_path), skip_bad_trajectories=True)
    assert adapter.left_out == []


def test_a_file_of_nothing_but_failures_is_refused(tmp_path):
    arrays = compressible_arrays()
    for name in ("density", "Vx", "Vy", "pressure"):
        arrays[name][:] = 0
    path = write_compressible(tmp_path, arrays=arrays)
    with pytest.raises(ValueError, match=r"at least one good trajectory .*; and 7 more, see left_out"):
        PdeBenchCompressible(path, skip_bad_trajectories=True)


def test_damaged_chunks_are_refused_or_left_out(tmp_path):
    path = write_compressible(
        tmp_path,
        storage={"chunks": (1, 5, 8, 10), "compression": "gzip"},
        attributes={"eta": 0.01, "zeta": 0.01, "M": 0.1},
    )
    with h5py.File(path, "r") as file:
        where = file["Vx"].id.get_chunk_info(4)
    content = bytearray(path.read_bytes())
    content[where.byte_offset : where.byte_offset + where.size] = bytes(where.size)
    path.write_bytes(content)
    adapter = PdeBenchCompressible(path, train=10)
    with pytest.raises(ValueError, match="'Vx' could not be read"):
        adapter.trajectories("train")[4].read()
    with pytest.warns(UserWarning, match="trajectory 4 .* cannot be read"):
        adapter = PdeBenchCompressible(path, train=10, skip_bad_trajectories=True)
    assert len(adapter.trajectories("train")) == 9


@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=60)
def test_flipped_bytes_give_a_message_or_other_numbers(flipped, places):
    content, folder = bytearray(flipped.read_bytes()), flipped.parent
    for place, value in places:
        content[int(place * len(content))] = value
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / flipped.name
        path.write_bytes(content)
        message = "Expected nothing."
        try:
            adapter = PdeBenchCompressible(path)
            for split in adapter.splits:
                for trajectory in adapter.trajectories(split):
                    trajectory.read()
        except ValueError as error:
            message = str(error)
        assert message.startswith("Expected")


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    return write_compressible(tmp_path_factory.mktemp("flipped"), dimension=1, frames=3, storage=CHUNKED)


def test_values_too_large_for_single_precision_are_refused(tmp_path):
    arrays = {name: values.astype(np.float64) for name, values in compressible_arrays().items()}
    arrays["Vx"][0] = 1e200
    adapter = PdeBenchCompressible(write_compressible(tmp_path, arrays=arrays))
    with pytest.raises(ValueError, match="NaN or infinity"):
        adapter.trajectories("test")[0].read()

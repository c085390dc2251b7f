"""Foreign HDF5 files: what is read is what was written, and hostile files end in a clear message."""

import multiprocessing
import pickle
import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pdesurrogate.data import hdf5_file
from pdesurrogate.data.hdf5_file import Hdf5File

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(path: Path, **datasets: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.h5"
    with h5py.File(path, "w") as file:
        file["flat"] = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
        group = file.create_group("train")
        group.attrs["mode"] = np.bytes_(b"train")
        group.create_dataset("packed", data=np.arange(600).reshape(20, 30), chunks=(5, 30), compression="gzip")
        group["text"] = "words"
        group.attrs["said"] = "text of varying length, as netCDF-4 writes it"
        file["big"] = np.arange(6, dtype=">f4")
    return path


@QUICK
@given(
    values=arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.dtype(">f8"), np.bool_]),
        arrays.array_shapes(max_dims=4, max_side=6),
    ),
    packed=st.booleans(),
    data=st.data(),
)
def test_any_part_of_any_array_is_read_as_it_was_written(tmp_path, values, packed, data):
    path = tmp_path / "any.h5"
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("a/b", data=values, compression="gzip" if packed else None)
    selection = tuple(
        data.draw(
            st.integers(0, size - 1)
            | st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted).map(lambda ends: slice(*ends))
        )
        for size in values.shape
    )
    file = Hdf5File(path)
    assert np.array_equal(file.read("a/b", selection), values[selection], equal_nan=values.dtype.kind == "f")
    assert file.array("a/b").shape == values.shape
    assert file.array("a/b").dtype == values.dtype


def test_contents_are_listed_without_being_read(example):
    file = Hdf5File(example)
    assert set(file.arrays) == {"flat", "train/packed", "big"}
    assert file.groups == ("", "train")
    assert file.members("train") == ["packed", "text"]
    assert file.attributes("train") == {"mode": "train", "said": "text of varying length, as netCDF-4 writes it"}
    assert "train/text" in file.others
    assert file.arrays["flat"].offset is not None
    assert file.arrays["train/packed"].offset is None
    assert file.arrays["big"].offset is None


def test_stored_in_one_piece_is_mapped_and_read_only(example):
    values = Hdf5File(example).read("flat", (slice(0, 2), 1))
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_the_same_handle_serves_all_reads_and_few_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_file, "OPEN_FILES", 3)
    opened = []
    real = h5py.File
    files = []
    for number in range(5):
        path = tmp_path / f"{number}.h5"
        with real(path, "w") as file:
            file.create_dataset("u", data=np.full((4, 4), number), chunks=(2, 2))
        files.append(Hdf5File(path))
    monkeypatch.setattr(
        hdf5_file.h5py, "File", lambda path, *args, **kwargs: opened.append(path) or real(path, *args, **kwargs)
    )
    for _ in range(3):
        assert [int(files[4].read("u", (0, 0))), int(files[3].read("u", (0, 0)))] == [4, 3]
    assert opened == []
    assert [int(file.read("u", (1, 1))) for file in files] == [0, 1, 2, 3, 4]
    assert len(hdf5_file._handles._open) <= 3


def test_others_may_open_what_is_kept_open(example):
    file = Hdf5File(example)
    file.read("train/packed", (0, 0))
    with h5py.File(example, "r") as again:
        assert again["flat"][1, 2, 3] == file.read("flat", (1, 2, 3))


def test_many_files_with_many_arrays_take_few_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_file, "OPEN_FILES", 4)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else None
    if before is None:
        pytest.skip("descriptors are counted on Linux")
    files = [Hdf5File(written(tmp_path / f"{n}.h5", **{f"u{k}": np.ones(9) for k in range(5)})) for n in range(12)]
    assert sum(float(file.read(name).sum()) for file in files for name in file.arrays) == 12 * 5 * 9
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 2 * 4


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "u.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("u", data=np.zeros(4), chunks=(2,))
    assert Hdf5File(path).read("u").sum() == 0
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("u", data=np.ones(4), chunks=(2,))
    assert Hdf5File(path).read("u").sum() == 4


def _sum(file: Hdf5File) -> float:
    return float(file.read("train/packed").sum() + file.read("flat").sum())


def test_other_processes_read_with_handles_of_their_own(example):
    file = Hdf5File(example)
    expected = _sum(file)
    assert _sum(pickle.loads(pickle.dumps(file))) == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_sum, [file] * 4) == [expected] * 4


def test_netcdf_dimensions_are_named(tmp_path):
    xarray = pytest.importorskip("xarray")
    path = tmp_path / "data.nc"
    xarray.Dataset({"u": (("time", "lat"), np.zeros((2, 3))), "lat": ("lat", [0.0, 1.0, 2.0])}).to_netcdf(path)
    file = Hdf5File(path)
    assert file.dimensions("u") == ("time", "lat")


@pytest.mark.parametrize(
    ("name", "selection", "message"),
    [
        ("nothing", (), "Expected the array 'nothing' in .* but it holds big, flat, train/packed"),
        ("train/text", (), "Expected numbers in 'train/text' of .* but it holds object"),
        ("flat", (0, 0, 0, 0), "at most 3 indices of 'flat'"),
        ("flat", (2,), "within 0..2 along axis 0"),
        ("flat", (slice(0, 3),), "within 0..2 along axis 0"),
        ("train/packed", (slice(0, 2), slice(-1, 3)), "within 0..30 along axis 1"),
    ],
)
def test_wrong_requests_say_what_is_there(example, name, selection, message):
    with pytest.raises(ValueError, match=message):
        Hdf5File(example).read(name, selection)


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2.0), (0.5, 0.5), ("1e-3", 1e-3), (np.array([7], np.int16), 7.0), (np.bytes_(b"0.25"), 0.25)],
)
def test_attributes_are_numbers_in_whatever_form(tmp_path, value, number):
    with h5py.File(written(tmp_path / "a.h5", u=np.zeros(2)), "r+") as file:
        file["u"].attrs["nu"] = value
    file = Hdf5File(tmp_path / "a.h5")
    assert file.number("nu", "u") == number
    assert file.number("nu") is None


@pytest.mark.parametrize("value", ["high", np.zeros(2), np.zeros(0)])
def test_attributes_that_are_no_number_are_named(tmp_path, value):
    with h5py.File(written(tmp_path / "a.h5", u=np.zeros(2)), "r+") as file:
        file["u"].attrs["nu"] = value
    with pytest.raises(ValueError, match=r"a number in the attribute 'nu' of 'u' of .*a\.h5"):
        Hdf5File(tmp_path / "a.h5").number("nu", "u")


def test_numbers_of_more_than_double_precision_are_not_read(tmp_path):
    """A damaged type may become one, and what it holds then has no rounding to single precision."""
    path = written(tmp_path / "long.h5", u=np.ones(3, np.longdouble))
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(ValueError, match=r"Expected numbers in 'u' of .* but it holds float128"):
            Hdf5File(path).read("u")


def test_names_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "names.h5"
    with h5py.File(path, "w") as file:
        file["abcd"] = np.zeros(3)
        file.attrs["efgh"] = 1
    path.write_bytes(path.read_bytes().replace(b"abcd", b"ab\xffd").replace(b"efgh", b"ef\xffh"))
    file = Hdf5File(path)
    assert file.attributes() == {"ef\ufffdh": 1}
    with pytest.raises(ValueError, match="it has a name that is no text"):
        file.read("ab\ufffdd")


def test_wrong_groups_say_what_is_there(example):
    file = Hdf5File(example)
    with pytest.raises(ValueError, match="the group 'valid'"):
        file.members("valid")
    with pytest.raises(ValueError, match="the group or array 'valid'"):
        file.attributes("valid")


def test_no_hdf5_file_is_told_apart_from_a_damaged_one(tmp_path):
    page = tmp_path / "page.h5"
    page.write_text("<!doctype html><html>not found</html>")
    with pytest.raises(ValueError, match=r"begins otherwise\. It may be an error page"):
        Hdf5File(page)
    (tmp_path / "empty.h5").touch()
    with pytest.raises(ValueError, match=r"\(0 bytes\) begins otherwise"):
        Hdf5File(tmp_path / "empty.h5")
    with pytest.raises(ValueError, match="is not one"):
        Hdf5File(tmp_path / "absent.h5")
    with pytest.raises(ValueError, match="is not one"):
        Hdf5File(tmp_path)


def test_links_out_of_the_file_are_not_followed(tmp_path, example):
    path = tmp_path / "links.h5"
    with h5py.File(path, "w") as file:
        file["own"] = np.zeros(3)
        file["soft"] = h5py.SoftLink("/own")
        file["outside"] = h5py.ExternalLink(example.name, "/flat")
        file["itself"] = h5py.ExternalLink("links.h5", "/itself")
        file["again"] = h5py.SoftLink("/again")
    file = Hdf5File(path)
    assert list(file.arrays) == ["own"]
    for name, kind in (("soft", "SoftLink"), ("outside", "ExternalLink"), ("itself", "ExternalLink")):
        with pytest.raises(ValueError, match=f"is a link \\({kind}\\), which is not followed"):
            file.read(name)


def test_groups_in_circles_are_refused(tmp_path):
    path = tmp_path / "circle.h5"
    with h5py.File(path, "w") as file:
        file.create_group("a/b")
        file["a/b/c"] = file["a"]
    with pytest.raises(ValueError, match="do not contain themselves but 'a/b/c'"):
        Hdf5File(path)


def test_data_in_other_files_are_not_read(tmp_path, example):
    raw = tmp_path / "secret.bin"
    raw.write_bytes(bytes(32))
    path = tmp_path / "outside.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", (4,), "f8", external=[(str(raw), 0, 32)])
        layout = h5py.VirtualLayout((2, 3, 4), "f4")
        layout[:] = h5py.VirtualSource(str(example), "flat", (2, 3, 4))
        file.create_virtual_dataset("virtual", layout)
    file = Hdf5File(path)
    for name in ("raw", "virtual"):
        with pytest.raises(ValueError, match="lies in other files, which are not followed"):
            file.read(name)


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 64, 64)}, {"chunks": (1, 64, 64), "compression": "gzip"}])
def test_what_a_file_declares_but_cannot_hold_is_refused(tmp_path, options):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("u", (1_000_000, 512, 512), "f4", **options)
    started = time.monotonic()
    with pytest.raises(ValueError, match="bytes"):
        Hdf5File(path)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_file_names_itself(tmp_path, packed):
    path = tmp_path / "cut.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "u", data=np.random.default_rng(0).normal(size=(50, 40)), chunks=(5, 40) if packed else None
        )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.h5 cannot be read .*truncated"):
        Hdf5File(path)


@pytest.mark.parametrize(
    ("place", "bytes_there"),
    [(16, bytes(16)), (24, (1 << 30).to_bytes(8, "little")), (8, (1 << 30).to_bytes(8, "little"))],
    ids=["free space of no size", "an object larger than its heap", "a heap larger than the file"],
)
def test_text_without_an_end_is_refused(example, place, bytes_there):
    bytes_ = bytearray(example.read_bytes())
    heap = bytes_.index(b"GCOL")
    bytes_[heap + place : heap + place + len(bytes_there)] = bytes_there
    example.write_bytes(bytes_)
    file = Hdf5File(example)
    assert file.read("flat", (1, 2, 3)) == 23
    with pytest.raises(ValueError, match=rf"text at byte {heap} of .* has no end"):
        file.attributes("train")
    with pytest.raises(ValueError, match="has no end"):
        file.dimensions("flat")


def _survives(path: Path) -> None:
    """Read all of a damaged file: whatever is wrong ends in a ``ValueError`` that names it."""
    try:
        file = Hdf5File(path)
        for name in file.groups:
            file.attributes(name)
        for name in file.arrays:
            file.attributes(name)
            file.dimensions(name)
            file.read(name)
    except ValueError as error:
        if path.name not in str(error):
            raise AssertionError(f"unexplained: {error}") from error


def _survives_apart(path: Path) -> None:
    """In a process of its own: the C library could end it."""
    process = multiprocessing.get_context("fork").Process(target=_limited, args=(path,))
    process.start()
    process.join(20)
    alive = process.is_alive()
    if alive:
        process.kill()
    assert not alive, "it hangs"
    assert process.exitcode == 0


def _limited(path: Path) -> None:
    tracemalloc.start()
    started = time.monotonic()
    _survives(path)
    assert time.monotonic() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 64 << 20


@QUICK
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=20))
def test_flipped_bits_end_in_a_message_or_in_other_numbers(tmp_path, example, places):
    bytes_ = bytearray(example.read_bytes())
    for place, bit in places:
        bytes_[int(place * len(bytes_))] ^= 1 << bit
    path = tmp_path / "flipped.h5"
    path.write_bytes(bytes_)
    _survives_apart(path)


@QUICK
@given(place=st.floats(0, 1), tail=st.binary(max_size=64))
def test_cut_and_overwritten_ends_end_in_a_message(tmp_path, example, place, tail):
    whole = example.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(whole[: int(place * len(whole))] + tail)
    _survives_apart(path)

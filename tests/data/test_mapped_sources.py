"""Files of every format, whole, damaged and made to do harm; see `layouts_mapped`."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zipfile

import h5py
import netCDF4
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_mapped import NAMED, UNNAMED, coordinates, flow, write

from pdesurrogate.data.adapters.mapped.classic import end_of_data
from pdesurrogate.data.adapters.mapped.decoding import Packing
from pdesurrogate.data.adapters.mapped.sources import open_source

FIELDS = flow()
KINDS = {
    "netCDF-4": "netCDF-4", "netCDF-3": "netCDF-3", "zarr2": "Zarr 2", "zarr3": "Zarr 3", "hdf5": "HDF5",
    "npz": "NumPy archive", "npz compressed": "NumPy archive", "npy": "NumPy", "mat": "MATLAB 7.3",
}  # fmt: skip


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def stored(folder, form):
    if form.startswith("zarr"):
        pytest.importorskip("zarr")
    return write(folder, form, FIELDS)


@pytest.mark.parametrize("form", [*NAMED, *UNNAMED])
def test_formats_are_told_by_their_bytes(tmp_path, form):
    path = stored(tmp_path, form)
    if path.is_file():
        path = path.rename(path.with_suffix(".data"))
    source = open_source(path)
    assert source.kind == KINDS[form]
    assert set(source.variables) == {"u", "p", "x", "y", "time"}
    assert source.variables["u"].shape == (3, 5, 6, 4)
    assert source.variables["u"].dimensions == (("run", "time", "x", "y") if form in NAMED else (None,) * 4)
    assert source.variables["x"].dimensions == (("x",) if form in NAMED else (None,))
    assert np.array_equal(source.read("u", (1, slice(2, 4))), FIELDS["u"][1, 2:4])
    assert np.array_equal(source.read("y"), coordinates()["y"])


@pytest.mark.parametrize("form", ["hdf5", "netCDF-4", "npz", "npy"])
def test_what_is_whole_is_memory_mapped(tmp_path, form):
    values = open_source(stored(tmp_path, form)).read("u", (0,))
    while values.base is not None and not isinstance(values, np.memmap):
        values = values.base
    assert isinstance(values, np.memmap)
    assert not values.flags.writeable


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|b1"])
def test_members_of_zip_files_are_read_in_place(tmp_path, order, dtype):
    values = np.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)) * 10, dtype=dtype, order=order)
    np.savez(tmp_path / "a.npz", first=np.arange(7), **{"group/second": values})
    source = open_source(tmp_path / "a.npz")
    assert np.array_equal(source.read("group/second", (slice(1, 3), 2)), values[1:3, 2])
    assert source.read("first").tolist() == list(range(7))


def test_zarr_arrays_may_stand_alone_or_in_groups(tmp_path):
    zarr = pytest.importorskip("zarr")
    values = np.random.default_rng(0).normal(size=(4, 6)).astype("f4")
    for version in (2, 3):
        path = tmp_path / f"alone{version}.zarr"
        zarr.create_array(path, data=values, chunks=(1, 6), zarr_format=version)
        assert np.array_equal(open_source(path).read("array", (slice(1, 3),)), values[1:3])
        group = zarr.open_group(tmp_path / f"group{version}", mode="w", zarr_format=version)
        group.create_array("run/u", data=values)
        group["run/u"].attrs["units"] = "m/s"
        group.attrs["nu"] = 0.5
        source = open_source(tmp_path / f"group{version}")
        assert source.attributes("run/u") == {"units": "m/s"}
        assert source.attributes() == {"nu": 0.5}


def test_objects_are_never_unpickled(tmp_path):
    target = tmp_path / "made"
    bombs = np.array([Bomb(target), 1], dtype=object)
    np.save(tmp_path / "a.npy", bombs)
    with pytest.raises(ValueError, match="Pickled objects are not loaded"):
        open_source(tmp_path / "a.npy")
    for name, save in (("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        save(tmp_path / name, u=bombs, v=np.zeros(2))
        source = open_source(tmp_path / name)
        assert list(source.variables) == ["v"]
        assert "pickled objects are not loaded" in source.others["u"]
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(ValueError, match="is a pickle, which could run any program"):
        open_source(tmp_path / "c.npy")
    assert not target.exists()


def test_zarr_codecs_that_unpickle_are_never_run(tmp_path):
    pytest.importorskip("zarr")
    target = tmp_path / "made"
    path = tmp_path / "a.zarr"
    path.mkdir()
    header = {
        "zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<f8", "fill_value": 0, "order": "C",
        "compressor": None, "filters": [{"id": "pickle", "protocol": 5}],
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(header))
    (path / "0").write_bytes(pickle.dumps(Bomb(target)))
    try:
        source = open_source(path)
    except ValueError:
        pass
    else:
        assert not source.variables
        assert "pickled" in source.others["array"]
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.nc", b"", "is empty"),
        ("a.nc", b"<html>404</html>", "error page"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "begins with|HDF5"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'", "cannot be mapped"),
        ("a.npz", b"PK\x03\x04 and more", "cannot be read"),
        ("a.nc", b"CDF\x01", "cannot be read"),
        ("a.mat", b"MATLAB 5.0 MAT-file", "-v7.3"),
    ],
)
def test_what_is_no_file_of_arrays_says_so(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / name)


def test_folders_and_archives_of_other_things_say_so(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        open_source(tmp_path / "none")
    with pytest.raises(ValueError, match="another folder"):
        open_source(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "text")
    with pytest.raises(ValueError, match="unpack other archives"):
        open_source(tmp_path / "a.zip")
    scipy.io.savemat(tmp_path / "a.mat", {"u": np.zeros(3)})
    with pytest.raises(ValueError, match="scipy"):
        open_source(tmp_path / "a.mat")


@pytest.mark.parametrize("form", ["netCDF-4", "netCDF-3", "hdf5", "npz", "npz compressed"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.6, 0.95, 1.0])
def test_truncated_files_are_refused(tmp_path, form, share):
    path = stored(tmp_path, form)
    content = path.read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(share * (len(content) - 1))])
    with pytest.raises(ValueError, match="cut"):
        open_source(tmp_path / "cut").read("u")


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("records", [0, 1, 3])
@pytest.mark.parametrize("alone", [True, False])
def test_the_end_of_classic_files_is_found(tmp_path, form, records, alone):
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=form) as file:
        file.title = "odd"
        file.createDimension("time", None)
        file.createDimension("x", 3)
        if not alone:
            file.createVariable("time", "f8", ("time",))[:] = np.arange(records)
            file.createVariable("x", "f4", ("x",))[:] = 1.0
        file.createVariable("u", "i2", ("time", "x")).units = "m/s"
        file["u"][:records] = np.ones((records, 3))
    size = (tmp_path / "a.nc").stat().st_size
    assert 0 <= size - end_of_data(tmp_path / "a.nc") < 4  # padding


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA"])
def test_classic_files_that_grow_are_read(tmp_path, form):
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=form) as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.createVariable("u", "f4", ("time", "x"))[:4] = np.arange(12).reshape(4, 3)
    source = open_source(tmp_path / "a.nc")
    assert source.read("u", (slice(1, 3),)).tolist() == [[3, 4, 5], [6, 7, 8]]


def test_truncated_arrays_are_refused(tmp_path):
    path = stored(tmp_path, "npy") / "u.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cannot be mapped"):
        open_source(path.parent)


@given(data=st.data(), form=st.sampled_from(["netCDF-3", "npz", "npz compressed", "npy", "hdf5"]))
@settings(max_examples=40)
def test_flipped_bits_end_in_a_value_error_or_in_values(tmp_path_factory, data, form):
    folder = tmp_path_factory.mktemp("flipped")
    path = stored(folder, form)
    path = path / "u.npy" if path.is_dir() else path
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, min(len(content), 2000) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    changed = folder / "changed"
    changed.write_bytes(content)
    try:
        source = open_source(changed)
        for name in source.variables:
            source.attributes(name)
            source.read(name)
    except ValueError:
        pass


def test_declared_sizes_are_held_against_what_is_stored(tmp_path):
    huge = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(
        118
    )
    (tmp_path / "a.npy").write_bytes(huge)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("u.npy", huge)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("u", (10**12,), "f8", chunks=(10**6,))
    tracemalloc.start()
    for name in ("a.npy", "a.npz", "a.h5"):
        with pytest.raises(ValueError, match="Expected"):
            open_source(tmp_path / name).read("u")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


def test_many_files_do_not_stay_open(tmp_path):
    from pdesurrogate.data.adapters.mapped import sources

    stored(tmp_path, "netCDF-3")
    content = (tmp_path / "flow.nc").read_bytes()
    opened = []
    for number in range(sources.OPEN_FILES + 10):
        (tmp_path / f"{number}.nc").write_bytes(content)
        opened.append(open_source(tmp_path / f"{number}.nc"))
    assert len(sources._opened_netcdf) == sources.OPEN_FILES
    assert all(np.array_equal(source.read("u", (0,)), FIELDS["u"][0]) for source in opened)


def test_unsigned_integers_are_read_as_such():
    packing = Packing.of({"scale_factor": 2.0, "_Unsigned": "true"}, np.dtype("<i2"), "refuse", "u")
    assert packing.values(np.array([-1, 1], "<i2")).tolist() == [2 * 65535, 2]


@pytest.mark.parametrize("value", ["two", np.inf, np.array([1.0, 2.0]), True])
def test_scales_that_are_no_numbers_are_refused(value):
    with pytest.raises(ValueError, match="finite number as the attribute 'scale_factor'"):
        Packing.of({"scale_factor": value}, np.dtype("f4"), "refuse", "u")

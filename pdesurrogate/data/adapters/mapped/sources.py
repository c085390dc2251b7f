"""Arrays by name out of netCDF, HDF5, Zarr, NumPy and MATLAB files, read in parts; nothing is ever unpickled."""

from __future__ import annotations

import importlib
import math
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from pdesurrogate.data.adapters.mapped.classic import end_of_data
from pdesurrogate.data.adapters.shards import in_natural_order
from pdesurrogate.data.hdf5_file import LARGEST_COMPRESSION, OPEN_FILES, Hdf5File

Array = npt.NDArray[Any]
Selection = tuple[int | slice, ...]

# What netCDF-4 writes into a dimension that has no coordinates.
_NO_COORDINATE = "This is a netCDF dimension but not a netCDF variable"
_ZARR_SIGNS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_SLACK = 1 << 20


class Variable(NamedTuple):
    """What a file says of one array.

    Attributes:
        name: with its groups: ``"run/u"``.
        dimensions: their names, ``None`` where the format or the file has none.
        shape: as stored.
        dtype: as stored.
    """

    name: str
    dimensions: tuple[str | None, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Source(Protocol):
    """One file, or a folder that is one data set: its header at once, arrays in parts. Safe to pickle and to fork."""

    path: Path
    kind: str
    variables: dict[str, Variable]
    others: dict[str, str]
    """Why further arrays are not read, by name."""

    def attributes(self, name: str = "") -> dict[str, Any]:
        """Of an array, or of the whole, as plain values."""
        ...

    def read(self, name: str, selection: Selection = ()) -> Array:
        """A part of an array, as stored.

        Raises:
            ValueError: if its bytes are damaged.
        """
        ...


def open_source(path: str | Path) -> Source:
    """The source for a file, by its first bytes, or for a folder: a Zarr store, or one of ``.npy`` files.

    Raises:
        ValueError: if there is no such file, it is damaged, or of no known format.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/u.npy", np.zeros((4, 8)))
        ...     source = open_source(f"{folder}/u.npy")
        ...     source.kind, source.variables["array"].shape
        ('NumPy', (4, 8))
    """
    path = Path(path)
    if path.is_dir():
        if any((path / sign).exists() for sign in _ZARR_SIGNS):
            return _Zarr(path)
        arrays = in_natural_order(path.glob("*.npy"))
        if arrays:
            return _Npy(path, {array.stem: array for array in arrays})
        raise ValueError(f"Expected a Zarr store or a folder of .npy files but {path} is another folder.")
    if not path.is_file():
        raise ValueError(f"Expected a file but {path} does not exist.")
    with path.open("rb") as file:
        start = file.read(128)
    if not start:
        raise ValueError(f"Expected a file of arrays but {path} is empty.")
    if h5py.is_hdf5(path):
        return _Hdf5(path, start)
    if start[:3] == b"CDF" and start[3] in (1, 2, 5):
        return _NetCdf3(path)
    if start.startswith(b"\x93NUMPY"):
        return _Npy(path, {"array": path})
    if start.startswith(b"PK\x03\x04"):
        return _Npz(path)
    if start.startswith(b"MATLAB 5.0"):
        raise ValueError(
            f"Expected a MATLAB file of version 7.3 but {path} is of version 5; in MATLAB save(..., '-v7.3'), or load "
            "it with scipy.io.loadmat and save the arrays with numpy.savez."
        )
    if start.startswith(b"\x80"):
        raise ValueError(
            f"Expected a file of arrays but {path} is a pickle, which could run any program; save the arrays as HDF5, "
            "netCDF or .npz."
        )
    raise ValueError(
        f"Expected netCDF, HDF5, Zarr, .npy, .npz or MATLAB 7.3 but {path} begins with {start[:8]!r}. It may be "
        "truncated or an error page of a server."
    )


class _Hdf5:
    """HDF5, netCDF-4 and MATLAB 7.3."""

    def __init__(self, path: Path, start: bytes) -> None:
        self.path = path
        self._file = Hdf5File(path)
        self.others = dict(self._file.others)
        self.variables: dict[str, Variable] = {}
        netcdf = "_NCProperties" in self._file.attributes()
        for name, array in self._file.arrays.items():
            dimensions = self._file.dimensions(name)
            if len(array.shape) == 1:
                attributes = self._file.attributes(name)
                if str(attributes.get("NAME", "")).startswith(_NO_COORDINATE):
                    netcdf = True
                    continue
                if attributes.get("CLASS") == "DIMENSION_SCALE":
                    dimensions = (name.rsplit("/", 1)[-1],)
            self.variables[name] = Variable(name, dimensions, array.shape, array.dtype)
        self.kind = "MATLAB 7.3" if start.startswith(b"MATLAB 7.3") else "netCDF-4" if netcdf else "HDF5"

    def attributes(self, name: str = "") -> dict[str, Any]:
        found = self._file.attributes(name)
        hidden = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS")
        return {
            key: _plain(value)
            for key, value in found.items()
            if key not in hidden and not key.startswith(("_Netcdf4", "_NC", "_nc3"))
        }

    def read(self, name: str, selection: Selection = ()) -> Array:
        return self._file.read(name, selection)


class _NetCdf3:
    """Classic netCDF through its library, one handle in each process."""

    kind = "netCDF-3"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.variables: dict[str, Variable] = {}
        self.others: dict[str, str] = {}
        with _Explained(path):
            declared = end_of_data(path)
            if declared > path.stat().st_size:
                raise ValueError(f"{declared} bytes are declared but it has {path.stat().st_size}")
            for name, item in _netcdf(path).variables.items():
                dtype = np.dtype(item.dtype)
                if dtype.kind in "biuf":
                    self.variables[name] = Variable(name, tuple(item.dimensions), tuple(item.shape), dtype)
                else:
                    self.others[name] = f"holds {dtype}"

    def attributes(self, name: str = "") -> dict[str, Any]:
        item = _netcdf(self.path).variables[name] if name else _netcdf(self.path)
        return {key: _plain(item.getncattr(key)) for key in item.ncattrs()}

    def read(self, name: str, selection: Selection = ()) -> Array:
        with _Explained(self.path):
            return np.asarray(_netcdf(self.path).variables[name][selection or ...])


_opened_netcdf: OrderedDict[tuple[int, Path, int], Any] = OrderedDict()


def _netcdf(path: Path) -> Any:
    """The open file of this process; the longest unread one is closed where there are many."""
    import netCDF4

    key = os.getpid(), path, path.stat().st_mtime_ns
    file = _opened_netcdf.pop(key, None)
    if file is None:
        file = netCDF4.Dataset(str(path), "r")
        file.set_auto_maskandscale(False)
        file.set_always_mask(False)
    _opened_netcdf[key] = file
    while len(_opened_netcdf) > OPEN_FILES:
        (owner, *_), oldest = _opened_netcdf.popitem(last=False)
        if owner == os.getpid():
            oldest.close()
    return file


class _Zarr:
    """Zarr stores of version 2 or 3 in a folder; needs the package zarr."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root: Any = None
        self.variables: dict[str, Variable] = {}
        self.others: dict[str, str] = {}
        with _Explained(path):
            root = self._opened()
            arrays = {"array": root} if hasattr(root, "shape") else dict(root.members(max_depth=None))
            self.kind = f"Zarr {root.metadata.zarr_format}"
            for name, item in arrays.items():
                if hasattr(item, "shape"):
                    self._note(name, item)

    def _note(self, name: str, item: Any) -> None:
        described = item.metadata.to_dict()
        codecs = [described.get(key) for key in ("codecs", "filters", "compressor", "compressors", "serializer")]
        if any("pickle" in identity.lower() for identity in _identities(codecs)):
            self.others[name] = "is stored as pickled objects, which could run any program"
            return
        dtype = np.dtype(item.dtype)
        if dtype.kind not in "biuf":
            self.others[name] = f"holds {dtype}"
            return
        named = getattr(item.metadata, "dimension_names", None) or item.attrs.get("_ARRAY_DIMENSIONS")
        dimensions = tuple(named) if named and len(named) == item.ndim else (None,) * item.ndim
        self.variables[name] = Variable(name, dimensions, tuple(item.shape), dtype)

    def attributes(self, name: str = "") -> dict[str, Any]:
        item = self._item(name) if name else self._opened()
        return {key: _plain(value) for key, value in dict(item.attrs).items() if key != "_ARRAY_DIMENSIONS"}

    def read(self, name: str, selection: Selection = ()) -> Array:
        with _Explained(self.path):
            return np.asarray(self._item(name)[selection or ...])

    def _item(self, name: str) -> Any:
        root = self._opened()
        return root if hasattr(root, "shape") else root[name]

    def _opened(self) -> Any:
        if self._root is None:
            try:
                zarr: Any = importlib.import_module("zarr")
            except ImportError as error:
                raise ValueError(
                    f"Expected the package zarr to read {self.path}; install it: pip install zarr."
                ) from error
            self._root = zarr.open(str(self.path), mode="r")
        return self._root

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_root": None}


class _Npy:
    """One or several ``.npy`` files, memory-mapped."""

    kind = "NumPy"

    def __init__(self, path: Path, arrays: dict[str, Path]) -> None:
        self.path = path
        self._paths = arrays
        self.others: dict[str, str] = {}
        self.variables: dict[str, Variable] = {}
        for name in arrays:
            values = self._mapped(name)
            if values.dtype.kind in "biuf":
                self.variables[name] = _unnamed(name, values.shape, values.dtype)
            else:
                self.others[name] = f"holds {values.dtype}"

    def attributes(self, name: str = "") -> dict[str, Any]:
        return {}

    def read(self, name: str, selection: Selection = ()) -> Array:
        return self._mapped(name)[selection]

    def _mapped(self, name: str) -> Array:
        """Mapped for this moment only: a map keeps its file open, and a set may have thousands."""
        try:
            values: Array = np.load(self._paths[name], mmap_mode="r", allow_pickle=False)
        except Exception as error:  # damaged headers make the parser raise errors of any kind
            raise ValueError(
                f"Expected a whole .npy file of numbers but {self._paths[name]} cannot be mapped ({error}). Pickled "
                "objects are not loaded, as they can run any program."
            ) from error
        return values


class _Npz:
    """Members of an ``.npz`` file: mapped where they are not compressed, else read whole and the last one kept."""

    kind = "NumPy archive"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.variables: dict[str, Variable] = {}
        self.others: dict[str, str] = {}
        self._places: dict[str, tuple[int, str] | None] = {}
        self._held: tuple[str, Array] | None = None
        size = path.stat().st_size
        with _Explained(path), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    self._note(archive, info, size)
        if not self.variables and not self.others:
            raise ValueError(f"Expected arrays (.npy) in the zip file {path} but it holds none; unpack other archives.")

    def _note(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> None:
        name = info.filename.removesuffix(".npy")
        with archive.open(info) as member:
            shape, by_column, dtype = _npy_header(member)
            length = member.tell()
        if dtype.kind not in "biuf":
            self.others[name] = f"holds {dtype}; pickled objects are not loaded"
            return
        declared = math.prod(shape) * dtype.itemsize
        if length + declared != info.file_size or info.file_size > LARGEST_COMPRESSION * info.compress_size + _SLACK:
            raise ValueError(f"Expected {shape} of {dtype} in {name!r} but {info.file_size} bytes are stored")
        self.variables[name] = _unnamed(name, shape, dtype)
        self._places[name] = None
        if info.compress_type == zipfile.ZIP_STORED and declared:
            with self.path.open("rb") as file:
                file.seek(info.header_offset + 26)
                names = file.read(4)
            start = info.header_offset + 30 + int.from_bytes(names[:2], "little") + int.from_bytes(names[2:], "little")
            if start + length + declared > size:
                raise ValueError(f"Expected {declared} bytes of {name!r} but the file ends before")
            self._places[name] = (start + length, "F" if by_column else "C")

    def attributes(self, name: str = "") -> dict[str, Any]:
        return {}

    def read(self, name: str, selection: Selection = ()) -> Array:
        place, variable = self._places[name], self.variables[name]
        if place is not None:
            order: Any = place[1]
            whole: Array = np.memmap(self.path, variable.dtype, "r", place[0], variable.shape, order)
            return whole[selection]
        if self._held is None or self._held[0] != name:
            with _Explained(self.path), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
                self._held = name, np.lib.format.read_array(member, allow_pickle=False)
        return self._held[1][selection]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}


class _Explained:
    """Whatever a library raises becomes a ``ValueError`` that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not (isinstance(error, ValueError) and str(self._path) in str(error)):
            raise ValueError(
                f"Expected a whole file but {self._path} cannot be read ({error}). It may be truncated or damaged; get "
                "it again."
            ) from error


def _npy_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    readers: dict[tuple[int, int], Callable[[Any], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"Expected .npy of version 1 or 2 but got {version}")
    shape, by_column, dtype = readers[version](member)
    return shape, by_column, dtype


def _unnamed(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Variable:
    return Variable(name, (None,) * len(shape), shape, dtype)


def _identities(codecs: Iterable[Any]) -> list[str]:
    """Names of codecs, however deep."""
    found = []
    for codec in codecs:
        if isinstance(codec, dict):
            found += [str(codec[key]) for key in ("id", "name") if key in codec]
            found += _identities(codec.values())
        elif isinstance(codec, (list, tuple)):
            found += _identities(codec)
    return found


def _plain(value: Any) -> Any:
    """Arrays of one number as that number."""
    if isinstance(value, np.ndarray) and value.size == 1:
        return value.item()
    return value.item() if isinstance(value, np.generic) else value

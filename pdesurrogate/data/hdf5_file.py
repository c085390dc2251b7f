"""Foreign HDF5 and netCDF-4 files, read lazily and with suspicion.

Such files come from anywhere. One that is truncated, damaged or made to do harm must end in a clear message, soon, and
without more memory than its own size accounts for. So links are never followed out of a file or in circles, what is
declared is held against what is stored, and no object is unpickled.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

# Deflate shrinks to 1/1032 at most, other filters by less; what declares more than that holds nothing.
LARGEST_COMPRESSION = 1100
# Handles that one process keeps open: a set may have thousands of shards, and systems allow about a thousand files.
OPEN_FILES = 64
# Arrays of a file that are kept found.
OPEN_DATASETS = 1024
# Objects of a file that are looked at; the largest published files have some ten thousand.
MOST_OBJECTS = 1_000_000
_SLACK = 1 << 20
# Heaps of text lie near the start of a file or, written last, near its end.
_SEARCHED = 128 << 20
# Damaged types of other kinds make HDF5 2.0 crash; nobody states a viscosity as a reference.
_PLAIN_KINDS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)
_HEAP = b"GCOL\x01\0\0\0"
_DAMAGE = "It may be truncated or damaged; download or copy it again."


class StoredArray(NamedTuple):
    """What a file says of one array.

    Attributes:
        name: with the groups that it is in: ``"train/u"``.
        shape: as stored.
        dtype: as stored; numbers or truth values.
        offset: of its first byte in the file where it can be mapped, else ``None``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None


class Hdf5File:
    """Arrays and attributes of one HDF5 file by name; safe to pickle and to fork.

    The file is opened at the first read of each process and stays open, unless many others are read after it. Arrays
    that are stored in one piece, uncompressed and in the machine's byte order, are memory-mapped.

    Args:
        path: the file.

    Attributes:
        path: the file.
        groups: names of all groups, the root's is ``""``.
        arrays: all arrays of numbers by name. Others (text, compound, of varying length) are in `others`.
        others: arrays that cannot be read as numbers: why, by name.

    Raises:
        ValueError: if it is no HDF5 file, is truncated or damaged, holds links to other files, or declares more than it
            can hold.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(f"{folder}/data.h5", "w") as file:
        ...         file["train/u"] = np.arange(6.0).reshape(2, 3)
        ...     file = Hdf5File(f"{folder}/data.h5")
        ...     file.arrays["train/u"].shape, file.read("train/u", (1, slice(0, 2))).tolist()
        ((2, 3), [3.0, 4.0])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"Expected a file but {self.path} is not one.")
        self._size = self.path.stat().st_size
        if not self._size or not h5py.is_hdf5(self.path):
            raise ValueError(
                f"Expected an HDF5 file but {self.path} ({self._size} bytes) begins otherwise. It may be an error page "
                "of a server, or a file of another format."
            )
        self._heaps_checked = False
        self.groups: tuple[str, ...] = ()
        self._known_groups: frozenset[str] = frozenset()
        self.arrays: dict[str, StoredArray] = {}
        self.others: dict[str, str] = {}
        with _explained(self.path):
            self._look(_handles.of(self.path).hdf5)

    def attributes(self, name: str = "") -> dict[str, Any]:
        """Attributes of a group or an array as plain values: text, numbers, arrays of them; others are left out.

        Raises:
            ValueError: if there is no such object or an attribute is damaged.
        """
        if name not in self._known_groups and name not in self.arrays and name not in self.others:
            raise ValueError(self.missing("group or array", name))
        self._check_heaps()
        with _explained(self.path, f" Attributes of {name or 'the root'!r} could not be read."):
            attributes = self._object(name).attrs
            kinds = {key: attributes.get_id(key).get_type().get_class() for key in attributes}
            return {str(_plain(key)): _plain(attributes[key]) for key, kind in kinds.items() if kind in _PLAIN_KINDS}

    def number(self, attribute: str, name: str = "") -> float | None:
        """An attribute of a group or an array as one number, which it may be as text too; ``None`` if it is not there.

        Raises:
            ValueError: as `attributes`, and if it is something else.
        """
        value = self.attributes(name).get(attribute)
        if value is None:
            return None
        try:
            return float(value.item() if isinstance(value, np.ndarray) else value)
        except (TypeError, ValueError, OverflowError) as error:
            place = f"{name!r} of {self.path}" if name else f"the root of {self.path}"
            raise ValueError(
                f"Expected a number in the attribute {attribute!r} of {place} but found {str(value)[:80]!r}."
            ) from error

    def dimensions(self, name: str) -> tuple[str | None, ...]:
        """Names of the axes of an array where dimension scales are attached, as netCDF-4 does; else ``None`` each.

        Raises:
            ValueError: if there is no such array.
        """
        self.array(name)
        self._check_heaps()
        with _explained(self.path):
            scales = [axis[0].name if len(axis) else None for axis in self._object(name).dims]
        return tuple(None if scale is None else str(scale).rsplit("/", 1)[-1] for scale in scales)

    def array(self, name: str) -> StoredArray:
        """What the file says of an array.

        Raises:
            ValueError: if there is none of this name, or it holds no numbers.
        """
        if name in self.others:
            raise ValueError(f"Expected numbers in {name!r} of {self.path} but it {self.others[name]}.")
        if name not in self.arrays:
            raise ValueError(self.missing("array", name))
        return self.arrays[name]

    def read(self, name: str, selection: tuple[int | slice, ...] = ()) -> npt.NDArray[Any]:
        """A part of an array, for example ``(3, slice(0, 5))``; all of it by default.

        Returns:
            As stored; what is memory-mapped is a view, read-only.

        Raises:
            ValueError: if there is no such array, the selection is not inside it, or its bytes are damaged.
        """
        array = self.array(name)
        selection = _checked(selection, array, self.path)
        if array.offset is not None:
            size = math.prod(array.shape) * array.dtype.itemsize
            whole = _handles.of(self.path).bytes[array.offset : array.offset + size]
            if len(whole) < size:
                raise ValueError(f"Expected {name!r} as long as when {self.path} was opened but it was cut. {_DAMAGE}")
            return np.asarray(whole.view(array.dtype).reshape(array.shape)[selection])
        with _explained(self.path, f" {name!r} could not be read."):
            return np.asarray(_handles.of(self.path).dataset(name)[selection])

    def missing(self, what: str, name: str) -> str:
        """A message that names what is there in place of ``name``."""
        there = sorted(self.arrays) or sorted(self.groups)
        listed = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
        return f"Expected the {what} {name!r} in {self.path} but it holds {listed or 'nothing'}."

    def members(self, group: str = "") -> list[str]:
        """Names of the groups and arrays directly within a group, in the order of the file.

        Raises:
            ValueError: if there is no such group.
        """
        if group not in self._known_groups:
            raise ValueError(self.missing("group", group))
        start = f"{group}/" if group else ""
        inside = [name[len(start) :] for name in (*self.groups, *self.arrays, *self.others) if name.startswith(start)]
        return [name for name in inside if name and "/" not in name]

    def _check_heaps(self) -> None:
        """Once, before the first value of varying length is read."""
        if not self._heaps_checked:
            _require_sound_heaps(self.path, self._size)
            self._heaps_checked = True

    def _object(self, name: str) -> Any:
        file = _handles.of(self.path).hdf5
        return file[name] if name else file

    def _look(self, file: h5py.File) -> None:
        """Walk through hard links, every object once, however often it is linked."""
        groups, seen = [""], {_address(file)}
        ahead: list[tuple[str, Any]] = [("", file)]
        declared = 0
        while ahead:
            prefix, group = ahead.pop()
            for key in group:
                name = f"{prefix}/{_plain(key)}" if prefix else str(_plain(key))
                if not isinstance(key, str):  # as h5py gives what is no UTF-8
                    self.others[name] = "has a name that is no text"
                    continue
                link = group.get(key, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    self.others[name] = f"is a link ({type(link).__name__}), which is not followed"
                    continue
                item = group[key]
                address = _address(item)
                if isinstance(item, h5py.Group):
                    if address in seen:
                        raise ValueError(
                            f"Expected groups that do not contain themselves but {name!r} of {self.path} does."
                        )
                    seen.add(address)
                    groups.append(name)
                    ahead.append((name, item))
                elif isinstance(item, h5py.Dataset):
                    declared += self._note(name, item)
                if len(groups) + len(self.arrays) > MOST_OBJECTS:
                    raise ValueError(f"Expected at most {MOST_OBJECTS} objects in {self.path} but there are more.")
        self.groups = tuple(groups)
        self._known_groups = frozenset(groups)
        if declared > LARGEST_COMPRESSION * self._size + _SLACK:
            raise ValueError(
                f"Expected what fits into {self._size} bytes, however compressed, but the arrays of {self.path} claim "
                f"{declared} bytes. {_DAMAGE}"
            )

    def _note(self, name: str, item: h5py.Dataset) -> int:
        """Remember one array; the bytes that it declares."""
        shape = item.shape
        numbers = (
            item.dtype.kind in "biuf" and item.dtype.itemsize <= 8
        )  # of more bytes: some machines have no such type
        if not numbers or item.dtype.subdtype is not None or shape is None:
            self.others[name] = f"holds {item.dtype}" if shape is not None else "is empty"
            return 0
        if item.is_virtual or item.external:
            self.others[name] = "lies in other files, which are not followed; copy it into one file"
            return 0
        size = math.prod(shape) * item.dtype.itemsize
        stored = item.id.get_storage_size()
        offset = item.id.get_offset()
        whole = item.chunks is None and offset is not None
        if whole and offset + size > self._size:
            raise ValueError(
                f"Expected {size} bytes of {name!r} from byte {offset} on but {self.path} has {self._size}. {_DAMAGE}"
            )
        if not item.id.get_create_plist().get_nfilters() and size > max(stored, 1) * LARGEST_COMPRESSION + _SLACK:
            raise ValueError(
                f"Expected {name!r} of {self.path}, {shape}, as large as it says ({size} bytes) but {stored} bytes are "
                f"stored. {_DAMAGE}"
            )
        mapped = whole and size > 0 and item.dtype.isnative
        self.arrays[name] = StoredArray(name, tuple(shape), item.dtype, offset if mapped else None)
        return size


class _Opened:
    """One file as HDF5 and as bytes, each opened when it is first asked for."""

    def __init__(self, path: Path, stamp: tuple[int, int]) -> None:
        self.path = path
        self.stamp = stamp
        self._datasets: dict[str, h5py.Dataset] = {}

    @cached_property
    def hdf5(self) -> h5py.File:
        """For everything but what is mapped."""
        return h5py.File(self.path, "r")

    @cached_property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """All of the file; one mapping serves all arrays, as each costs a file descriptor."""
        # A plain view: indexing a memmap costs more than reading a small frame.
        return np.asarray(np.memmap(self.path, np.uint8, "r"))

    def dataset(self, name: str) -> h5py.Dataset:
        """An array of it; to find it anew takes longer than to read a small frame."""
        if name not in self._datasets:
            if len(self._datasets) >= OPEN_DATASETS:
                self._datasets.clear()
            self._datasets[name] = self.hdf5[name]
        return self._datasets[name]

    def close(self) -> None:
        """Views of bytes that others hold stay good."""
        self.__dict__.pop("bytes", None)
        self._datasets.clear()
        file = self.__dict__.pop("hdf5", None)
        if file is not None and file.id.valid:
            file.close()


class _Handles:
    """Open files of this process, the latest last."""

    def __init__(self) -> None:
        self._owner = -1
        self._open: OrderedDict[Path, _Opened] = OrderedDict()

    def of(self, path: Path) -> _Opened:
        """The open file; a forked process opens its own, as two cannot share HDF5's place in a file."""
        if self._owner != os.getpid():
            self._owner, self._open = os.getpid(), OrderedDict()
        status = path.stat()
        stamp = status.st_mtime_ns, status.st_ino
        opened = self._open.pop(path, None)
        if opened is None or opened.stamp != stamp:
            if opened is not None:
                opened.close()  # another file lies there now
            opened = _Opened(path, stamp)
        self._open[path] = opened
        while len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return opened

    def close(self, path: Path) -> None:
        """Forget a file that this process has open."""
        opened = self._open.pop(path, None)
        if opened is not None and self._owner == os.getpid():
            opened.close()


_handles = _Handles()


@contextmanager
def _explained(path: Path, more: str = "") -> Iterator[None]:
    """Whatever HDF5 raises becomes a ``ValueError`` that names the file, which is closed: damage may spread."""
    try:
        yield
    except Exception as error:
        _handles.close(path)
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"Expected a whole HDF5 file but {path} cannot be read ({error}).{more} {_DAMAGE}") from error


def _require_sound_heaps(path: Path, size: int) -> None:
    """Refuse global heaps in which HDF5 (1.14 and 2.0) would search for ever, or allocate gigabytes.

    Text of varying length and references lie in such heaps: HDF5 file format specification 3.0, III.E. The first has
    free space of no size, the second an object that is larger than its heap.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as bytes_:
        for start, stop in ((0, min(size, _SEARCHED)), (max(_SEARCHED, size - _SEARCHED), size)):
            place = bytes_.find(_HEAP, start, stop)
            while place >= 0:
                if not _is_sound(bytes_, place, size):
                    raise ValueError(
                        f"Expected a whole HDF5 file but the text at byte {place} of {path} has no end. {_DAMAGE}"
                    )
                place = bytes_.find(_HEAP, place + len(_HEAP), stop)


def _is_sound(bytes_: mmap.mmap, heap: int, size: int) -> bool:
    """Whether objects follow each other to the end of the heap at that byte."""
    if heap + 16 > size:
        return False
    (length,) = struct.unpack_from("<Q", bytes_, heap + len(_HEAP))
    place, end = heap + 16, heap + length
    if end > size:
        return False
    while place + 16 <= end:
        number, extent = struct.unpack_from("<H6xQ", bytes_, place)
        if (number == 0 and extent == 0) or place + extent > end:
            return False
        place += extent if number == 0 else 16 + -(-extent // 8) * 8
    return place <= end


def _checked(selection: tuple[int | slice, ...], array: StoredArray, path: Path) -> tuple[int | slice, ...]:
    """Refuse what reaches beyond the array: HDF5 and NumPy would cut a slice silently."""
    if len(selection) > len(array.shape):
        raise ValueError(f"Expected at most {len(array.shape)} indices of {array.name!r} but got {len(selection)}.")
    for axis, (chosen, size) in enumerate(zip(selection, array.shape, strict=False)):
        last = chosen.stop if isinstance(chosen, slice) else chosen + 1
        first = chosen.start if isinstance(chosen, slice) else chosen
        if (first is not None and first < 0) or (last is not None and not 0 <= last <= size):
            raise ValueError(
                f"Expected indices within 0..{size} along axis {axis} of {array.name!r} in {path} but got {chosen}."
            )
    return selection


def _address(item: Any) -> bytes:
    return bytes(h5py.h5o.get_info(item.id).addr.to_bytes(16, "little"))


def _plain(value: Any) -> Any:
    """Text as ``str``, arrays without axes as their element, arrays of text as lists."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OS":
            texts = [_plain(entry) for entry in value.ravel().tolist()]
            return texts[0] if value.shape == () else texts
        return value.item() if value.ndim == 0 else value
    return value.item() if isinstance(value, np.generic) else value

"""The header of classic netCDF files, to tell those that are truncated: their library reads zeros past the end.

Formats CDF-1, CDF-2 and CDF-5 of the NetCDF Users' Guide, appendix "File Format Specifications".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

# Bytes of one value by number of type.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_STREAMING = (2**32 - 1, 2**64 - 1)


def end_of_data(path: Path) -> int:
    """Bytes that a whole file has at least.

    Raises:
        ValueError: if the header is no such header, or ends early.
    """
    with path.open("rb") as file:
        return _Header(file).end


class _Header:
    """Read from front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        version = self._bytes(4)[3]
        self._count_bytes = 8 if version == 5 else 4
        self._offset_bytes = 4 if version == 1 else 8
        records = self._count()
        sizes = [self._dimension() for _ in range(self._list())]
        self._attributes()
        variables = [self._variable(sizes) for _ in range(self._list())]
        slabs = [slab for _, slab, of_records in variables if of_records]
        # Slabs are padded to four bytes, unless there is one record variable alone.
        record = slabs[0] if len(slabs) == 1 else sum(-(-slab // 4) * 4 for slab in slabs)
        self.end = file.tell()
        for begin, slab, of_records in variables:
            if not of_records:
                self.end = max(self.end, begin + slab)
            elif records > 0 and records not in _STREAMING:
                self.end = max(self.end, begin + (records - 1) * record + slab)

    def _bytes(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise ValueError("its header ends early")
        return found

    def _number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "big")

    def _count(self) -> int:
        return self._number(self._count_bytes)

    def _list(self) -> int:
        """Entries of a list, after its tag."""
        self._number(4)
        return self._count()

    def _skip(self, size: int) -> None:
        """Over bytes and their padding to four."""
        self._file.seek(-(-size // 4) * 4, 1)

    def _dimension(self) -> int:
        self._skip(self._count())
        return self._count()

    def _attributes(self) -> None:
        for _ in range(self._list()):
            self._skip(self._count())
            size = self._type()
            self._skip(size * self._count())

    def _type(self) -> int:
        number = self._number(4)
        if number not in _BYTES:
            raise ValueError(f"its header has the unknown type {number}")
        return _BYTES[number]

    def _variable(self, sizes: list[int]) -> tuple[int, int, bool]:
        """Where it begins, its bytes (of one record), and whether it grows with the records."""
        self._skip(self._count())
        numbers = [self._count() for _ in range(self._count())]
        if any(number >= len(sizes) for number in numbers):
            raise ValueError("its header has a variable of dimensions that are not there")
        self._attributes()
        size = self._type()
        self._count()  # stated bytes, too few where they do not fit into four bytes
        begin = self._number(self._offset_bytes)
        shape = [sizes[number] for number in numbers]
        of_records = bool(shape) and shape[0] == 0
        return begin, size * math.prod(shape[1:] if of_records else shape), of_records

"""Our own file layout: netCDF-4 that xarray opens and that training memory-maps.

One file per split (or several shards of it), dimensions ``(trajectory, time, x, y[, z])``, one contiguous variable for
each field with units and long name, CF-style globals, the recipe and the data set's metadata inside. A file under
construction is called ``*.part`` and carries a ``complete`` flag for every trajectory; it is renamed when all are set,
so nothing half-written is ever taken for whole, and an interrupted job continues where it stopped.

Trajectories may be cases of their own. Then ``mask (trajectory, x, y[, z])`` is 1 where there is fluid, and
``x_of_trajectory (trajectory, x)`` and its like are coordinates, auxiliary ones in the words of CF, while ``x`` itself
is nominal. A trajectory that was dropped has the flag 2; the global attribute ``pdesurrogate_dropped`` says why.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
from torch import Tensor

from pdesurrogate.data.archive_file import ArchiveFile
from pdesurrogate.data.archive_header import DROPPED, LEFT_OUT, UNWRITTEN, WHOLE, Header, write_error
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory

SPLITS = ("train", "val", "test")
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has fsync alone
_SHARD = re.compile(r"(?P<split>[a-z]+)(\.(?P<shard>\d+)-of-(?P<shards>\d+))?\.nc")


def archive_path(directory: Path, split: str, shard: int = 0, shards: int = 1) -> Path:
    """File of one split or of one of its shards, counted from 0.

    Example:
        >>> archive_path(Path("runs"), "train").name, archive_path(Path("runs"), "train", 1, 4).name
        ('train.nc', 'train.1-of-4.nc')
    """
    return directory / (f"{split}.nc" if shards == 1 else f"{split}.{shard}-of-{shards}.nc")


class ArchiveWriter:
    """Writes trajectories into one archive file, in any order and over several runs.

    Args:
        path: final name, ending in ``.nc``; until `finish` the file is ``path`` with ``.part`` appended.
        metadata: of the data set.
        coordinates: one tensor ``(n,)`` per space axis.
        times: ``(frames,)`` physical time of each frame.
        trajectories: how many this file holds.
        numbers: ``(trajectories,)`` their numbers within the split (shards); default 0, 1, 2, ...
        parameters: ``(trajectories, parameters)`` in the order of ``metadata.parameters``.
        masks: ``(trajectories, *space)`` bool, true where there is fluid.
        case_coordinates: one tensor ``(trajectories, n)`` per space axis, where trajectories lie on grids of their own;
            ``coordinates`` are nominal then.
        attributes: further global attributes; what is no text is stored as JSON. No dates: equal input, equal bytes.

    Attributes:
        complete: ``(trajectories,)`` bool, which ones need nothing more: written, or dropped.
        dropped: why trajectories were left out, by place in the file.

    Raises:
        ValueError: if an argument does not fit, a ``.part`` file of another data set lies there, or the disk is too
            small.
    """

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        coordinates: Sequence[Tensor],
        times: Tensor,
        trajectories: int,
        *,
        numbers: Sequence[int] | None = None,
        parameters: Tensor | None = None,
        masks: Tensor | None = None,
        case_coordinates: Sequence[Tensor] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self._notes = _Notes(self.part.with_name(self.part.name + ".dropped"))
        self.metadata = metadata
        self.numbers = list(range(trajectories)) if numbers is None else list(numbers)
        header = Header(
            metadata,
            tuple(coordinates),
            times,
            trajectories,
            self.numbers,
            parameters,
            masks,
            None if case_coordinates is None else tuple(case_coordinates),
            attributes or {},
        )
        self._item = (len(times), *header.space)
        self._channels = metadata.channel_names
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _require_space(self.path.parent, header.size_bytes, already=_allocated(self.part))
        if self.part.exists():
            header.require_same(self.part)
        else:
            self._notes.remove()  # of a file that was deleted
            header.write(self.part)
        with h5py.File(self.part, "r") as file:
            self._offsets = {name: file[name].id.get_offset() for name in (*self._channels, "complete")}
            flags = file["complete"][:]
        self.complete = flags != UNWRITTEN
        self.dropped = self._notes.reasons(np.flatnonzero(flags == LEFT_OUT).tolist())
        self._descriptor = os.open(self.part, os.O_RDWR)
        try:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(self._descriptor, 0, os.fstat(self._descriptor).st_size)
        except OSError as error:
            os.close(self._descriptor)
            raise write_error(error, self.part) from error

    def write(self, first: int, values: Tensor) -> None:
        """Store trajectories ``first, first + 1, ...``: ``values (n, time, channel, *space)``, physical units.

        Raises:
            ValueError: if shapes do not fit, one of them was dropped, or the disk is full. Finished trajectories stay.
        """
        expected = (self._item[0], len(self._channels), *self._item[1:])
        if tuple(values.shape[1:]) != expected or first < 0 or first + len(values) > len(self.complete):
            raise ValueError(
                f"Expected trajectories {expected} with numbers in 0..{len(self.complete) - 1} "
                f"but got {tuple(values.shape[1:])} for {first}..{first + len(values) - 1}."
            )
        dropped = sorted(set(range(first, first + len(values))) & set(self.dropped))
        if dropped:
            raise ValueError(f"Expected trajectories that were not dropped but {dropped} were; leave them out.")
        item_bytes = 4 * int(np.prod(self._item))
        try:
            for channel, name in enumerate(self._channels):
                data = np.ascontiguousarray(values[:, :, channel].detach().cpu().numpy(), dtype="<f4")
                _pwrite_all(self._descriptor, data, self._offsets[name] + first * item_bytes)
            _sync(self._descriptor)
            self._flag(first, len(values), WHOLE)
        except OSError as error:
            raise write_error(error, self.part) from error

    def drop(self, index: int, reason: str) -> None:
        """Leave the trajectory at a place of the file out for good; the file can be finished without it.

        One that was dropped before stays so, for its first reason.

        Raises:
            ValueError: if there is no such trajectory or it is written, no reason is given, or the disk is full.
        """
        if index in self.dropped:
            return
        if not 0 <= index < len(self.complete) or self.complete[index]:
            raise ValueError(
                f"Expected a trajectory within 0..{len(self.complete) - 1} that is not written but got {index}."
            )
        if not reason:
            raise ValueError(f"Expected a reason to drop trajectory {index} but got none.")
        try:
            self._notes.add(index, reason)  # before the flag, so that no flag is without a reason
            self._flag(index, 1, LEFT_OUT)
        except OSError as error:
            raise write_error(error, self.part) from error
        self.dropped[index] = reason

    def finish(self) -> Path:
        """Rename the file to its final name once every trajectory is there or dropped.

        Reasons of dropped ones go into a copy, so that nothing is lost if it is cut off; it takes as much space again.

        Raises:
            ValueError: if some trajectories were not written, or the disk is too small for the copy.
        """
        if not self.complete.all():
            missing = np.flatnonzero(~self.complete).tolist()
            raise ValueError(f"Expected all trajectories to be written, but {missing} are missing in {self.part}.")
        self.close()
        try:
            os.replace(self._with_reasons() if self.dropped else self.part, self.path)
        except FileNotFoundError:
            if not self.path.exists():  # else another process finished the same file
                raise
        if self.dropped:
            self.part.unlink(missing_ok=True)
            self._notes.remove()
        return self.path

    def _with_reasons(self) -> Path:
        """A copy of the file that tells why trajectories were dropped."""
        import netCDF4

        copy = self.part.with_name(f"{self.part.name}.{os.getpid()}.copy")
        reasons = {str(self.numbers[index]): self.dropped[index] for index in sorted(self.dropped)}
        try:
            shutil.copyfile(self.part, copy)
            with netCDF4.Dataset(copy, "a") as file:
                file.setncattr(DROPPED, json.dumps(reasons))
                file["complete"].long_name = "1 where the trajectory is whole, 2 where it was dropped"
            with copy.open("rb") as file:
                _sync(file.fileno())
        except FileNotFoundError:
            raise
        except OSError as error:
            copy.unlink(missing_ok=True)
            raise write_error(error, copy) from error
        return copy

    def _flag(self, first: int, count: int, flag: int) -> None:
        _pwrite_all(self._descriptor, np.full(count, flag, dtype=np.int8), self._offsets["complete"] + first)
        _sync(self._descriptor)
        self.complete[first : first + count] = True

    def close(self) -> None:
        """Close the file; an unfinished one can be continued by a new writer."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Notes:
    """Why trajectories of a file under construction were dropped: a line of JSON each, beside it.

    Lines are only ever appended, so that several processes may; one that was cut off counts as none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, index: int, reason: str) -> None:
        line = f"\n{json.dumps([index, reason])}\n".encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while line:
                line = line[os.write(descriptor, line) :]
            _sync(descriptor)
        finally:
            os.close(descriptor)

    def reasons(self, indices: Sequence[int]) -> dict[int, str]:
        """Of these trajectories; first ones count."""
        found: dict[int, str] = {}
        for line in self.path.read_text().splitlines() if indices and self.path.exists() else ():
            try:
                index, reason = json.loads(line)
            except ValueError:
                continue
            found.setdefault(index, reason)
        return {index: found.get(index, "the reason was lost") for index in indices}

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class CaseName(NamedTuple):
    """What a case is called, and the subset of the data set that it belongs to."""

    name: str
    subset: str


class Archive:
    """Reads a directory of archive files, or one file; an `Adapter`.

    A split is ``SPLIT.nc`` or all of its shards ``SPLIT.0-of-4.nc`` ... together, in the order of the trajectories'
    numbers. Contiguous variables are memory-mapped; chunked or compressed ones (written by other tools) are read
    through h5py. Handles are opened at the first read in each process.

    Args:
        path: the directory, or a single ``.nc`` file, whose name gives the split.

    Raises:
        ValueError: if there is no archive, a file is truncated, incomplete or not laid out as this page says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files = {split: tuple(ArchiveFile(file) for file in files) for split, files in _find(self.path).items()}
        first = next(iter(self._files.values()))[0]
        self._metadata = first.metadata
        for files in self._files.values():
            for file in files:
                file.require_same_data(first)
            numbers = [number for file in files for number in file.numbers]
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"Expected every trajectory once in {self.path} but some numbers occur in two files.")

    @property
    def metadata(self) -> Metadata:
        """What all trajectories share; ``attributes`` hold the recipe and the content hash."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits found on disk."""
        return tuple(self._files)

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in the order of their numbers, without those that were dropped.

        Raises:
            ValueError: if the split is not there.
        """
        return list(self._by_number(split).values())

    def numbers(self, split: str) -> list[int]:
        """Numbers within the split of `trajectories`.

        Raises:
            ValueError: if the split is not there.
        """
        return list(self._by_number(split))

    def dropped(self, split: str) -> dict[int, str]:
        """Why trajectories of a split were left out, by number.

        Raises:
            ValueError: if the split is not there.
        """
        return dict(sorted(pair for file in self._of(split) for pair in file.dropped.items()))

    def cases(self, split: str) -> dict[int, CaseName]:
        """Names and subsets of a split's trajectories by number, dropped ones too; empty where none are stated.

        They are the global attribute ``cases``, a list of ``{"number": ..., "name": ..., "subset": ...}`` as JSON.

        Raises:
            ValueError: if the split is not there, or the attribute is no such list.
        """
        found: dict[int, CaseName] = {}
        for file in self._of(split):
            try:
                for case in file.metadata.attributes.get("cases", []):
                    found[int(case["number"])] = CaseName(str(case["name"]), str(case["subset"]))
            except (TypeError, KeyError, ValueError) as error:
                raise ValueError(
                    f"Expected a list of cases, each with number, name and subset, in the attribute 'cases' of "
                    f"{file.path} but got {str(file.metadata.attributes['cases'])[:80]!r}."
                ) from error
        return dict(sorted(found.items()))

    def _by_number(self, split: str) -> dict[int, Trajectory]:
        numbered = [pair for file in self._of(split) for pair in file.trajectories().items()]
        return dict(sorted(numbered, key=lambda pair: pair[0]))

    def _of(self, split: str) -> tuple[ArchiveFile, ...]:
        if split not in self._files:
            raise ValueError(f"Expected one of the splits {self.splits} of {self.path} but got {split!r}.")
        return self._files[split]


def _find(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        match = _SHARD.fullmatch(path.name)
        return {match["split"] if match else path.stem: [path]}
    if not path.is_dir():
        raise ValueError(f"Expected an archive file or directory but {path} does not exist.")
    found: dict[str, dict[tuple[int, int], Path]] = {}
    for file in sorted(path.glob("*.nc")):
        match = _SHARD.fullmatch(file.name)
        if match and match["split"] in SPLITS:
            shard = (int(match["shard"] or 0), int(match["shards"] or 1))
            found.setdefault(match["split"], {})[shard] = file
    if not found:
        unfinished = [file.name for file in path.glob("*.part")]
        hint = f" Unfinished: {unfinished}; run `generate` again to complete them." if unfinished else ""
        raise ValueError(f"Expected train.nc, val.nc or test.nc in {path} but found none.{hint}")
    for split, shards in found.items():
        counts = {count for _, count in shards}
        if len(counts) > 1:
            raise ValueError(f"Expected one set of shards for {split!r} in {path} but found {sorted(counts)} mixed.")
        missing = sorted(set(range(counts.pop())) - {number for number, _ in shards})
        if missing:
            raise ValueError(f"Expected all shards of {split!r} in {path} but {missing} are missing.")
    ordered = [split for split in SPLITS if split in found]
    return {split: [found[split][key] for key in sorted(found[split])] for split in ordered}


def _pwrite_all(descriptor: int, data: npt.NDArray[Any], offset: int) -> None:
    view = data.data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


def _require_space(directory: Path, needed: int, already: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed - already > free:
        raise ValueError(
            f"Expected {needed / 1e6:.0f} MB of free space for {directory} but there are {free / 1e6:.0f} MB. "
            "Free some, or choose another output directory."
        )

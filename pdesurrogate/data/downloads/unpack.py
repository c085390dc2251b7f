"""Archives from elsewhere, unpacked so that nothing lands outside their folder and nothing there is overwritten.

Everything is looked at before anything is written: names, kinds, numbers and declared sizes. Members go to a temporary
folder beside the place, and from there to it when all of them are whole. Links are refused altogether: data sets need
none, and most ways out of a folder begin with one.
"""

from __future__ import annotations

import errno
import filecmp
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pdesurrogate.data.downloads.checks import in_words, require_space
from pdesurrogate.data.downloads.registry import DownloadError, is_inside

Kind = Literal["file", "folder", "other"]

_CHUNK = 1 << 20
# What archivers of Apple's put beside the files.
_LITTER = "__MACOSX"
# Of a tar: text that belongs to the next member; names are shorter than this.
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LONGEST_HEADER = 1 << 16
# What the standard library's readers end with when fields contradict each other.
_PARSING = (struct.error, EOFError, OverflowError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Bounds:
    """What is no data set any more.

    Attributes:
        members: files and folders of one archive.
        bytes: unpacked.
        ratio: of bytes unpacked to bytes packed; from ``ratio_from`` bytes on, as small files of zeros shrink a lot.
        ratio_from: in bytes, unpacked.
    """

    members: int = 2_000_000
    bytes: int = 10**13
    ratio: float = 200.0
    ratio_from: int = 10**9


def unpack(
    archive: Path, folder: Path, form: Literal["zip", "tar"], *, into: str = ".", bounds: Bounds | None = None
) -> list[Path]:
    """Unpack an archive into ``folder / into``.

    Where all members begin with the last parts of ``into``, these are not repeated: ``cylinder/bc/case0000`` and
    ``bc/case0000`` both come to lie in ``cylinder/bc`` if that is ``into``.

    Args:
        archive: the file.
        folder: of the set.
        form: ``tar`` may be compressed in any way that `tarfile` knows.
        into: folder in it; may have other files in it, and such as are equal to the members.
        bounds: on numbers and sizes.

    Returns:
        All files of the archive where they lie now, in its order.

    Raises:
        DownloadError: if a member leaves the folder, is a link or a device, comes twice or is damaged, if the bounds or
            the free space do not suffice, or if a different file is there already; nothing is added to the folder then.
    """
    bounds = Bounds() if bounds is None else bounds
    temporary = archive.with_name(f".{archive.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    with _damage_explained(archive):
        reader = _unpack_zip if form == "zip" else _unpack_tar
        try:
            names = list(reader(archive, temporary, bounds))
            return _move(names, temporary, folder / into, _repeated(names, PurePosixPath(into)))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class _Checked:
    """Members so far, held against each other and the bounds."""

    def __init__(self, archive: Path, bounds: Bounds) -> None:
        self.archive, self.bounds = archive, bounds
        self._packed = archive.stat().st_size
        self._unpacked = 0
        self._count = 0
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = set()

    def add(self, name: str, size: int, *, kind: Kind) -> PurePosixPath:
        """Path of one member, which is taken note of."""
        place = PurePosixPath(name)
        if not is_inside(name) or not place.parts:
            raise self._refusal(f"a member that leaves the folder: {name!r}")
        if kind == "other":
            raise self._refusal(f"{name!r}, which is a link or a device")
        self._count += 1
        self._unpacked += size
        if self._count > self.bounds.members:
            raise self._refusal(f"more than {self.bounds.members} members")
        if size < 0 or self._unpacked > self.bounds.bytes:
            raise self._refusal(f"more than {in_words(self.bounds.bytes)}")
        if self._unpacked > max(self.bounds.ratio * self._packed, self.bounds.ratio_from):
            raise self._refusal(f"more than {self.bounds.ratio:.0f} times its own size; it may be made to fill disks")
        if kind == "file" and place in self._files:
            raise self._refusal(f"{name!r} twice")
        known_folder = kind == "file" and place in self._folders
        if known_folder or not self._files.isdisjoint((place, *place.parents)):
            raise self._refusal(f"{name!r} both as a file and as a folder")
        (self._files if kind == "file" else self._folders).add(place)
        self._folders.update(place.parents)
        return place

    def require_space(self) -> None:
        """Refuse more than fits."""
        require_space(self.archive.parent, self._unpacked)

    def _refusal(self, what: str) -> DownloadError:
        return DownloadError(
            f"Expected an archive of data files but {self.archive} holds {what}; nothing was unpacked."
        )


def _unpack_zip(archive: Path, temporary: Path, bounds: Bounds) -> Iterator[PurePosixPath]:
    with zipfile.ZipFile(archive) as packed:
        checked = _Checked(archive, bounds)
        files = []
        for member in packed.infolist():
            # Names are taken as they were written: `filename` is cut at a zero byte.
            name = member.orig_filename
            kind = _kind_in_zip(member)
            if PurePosixPath(name).parts[:1] == (_LITTER,) or (kind == "folder" and _is_root(name)):
                continue
            place = checked.add(name, member.file_size, kind=kind)
            if member.flag_bits & 1:
                raise DownloadError(f"Expected files that anyone can read but {archive} is encrypted.")
            if kind == "file":
                files.append((place, member))
        checked.require_space()
        for place, member in files:
            target = temporary / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as source, target.open("xb") as stream:
                shutil.copyfileobj(source, stream, _CHUNK)
            yield place


def _kind_in_zip(member: zipfile.ZipInfo) -> Kind:
    if member.orig_filename.endswith("/"):
        return "folder"
    return "file" if stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG) else "other"


class _PlainTarInfo(tarfile.TarInfo):
    """Header of a member, without those extensions that are read into memory however long they are."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG_HEADERS and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10


def _unpack_tar(archive: Path, temporary: Path, bounds: Bounds) -> Iterator[PurePosixPath]:
    with tarfile.open(archive, "r:*", tarinfo=_PlainTarInfo) as packed:
        checked = _Checked(archive, bounds)
        members = []
        for member in packed:
            if member.isdir() and _is_root(member.name):
                continue
            place = checked.add(member.name, member.size, kind=_kind_in_tar(member))
            if member.isreg():
                members.append((place, member))
        checked.require_space()
        temporary.mkdir(parents=True)
        for place, member in members:
            # Under the name that was looked at, which `place` is.
            packed.extract(member.replace(name=str(place), deep=False), temporary, filter="data")
            yield place


def _kind_in_tar(member: tarfile.TarInfo) -> Kind:
    if member.isdir():
        return "folder"
    return "file" if member.isreg() else "other"


def _move(names: list[PurePosixPath], temporary: Path, folder: Path, repeated: PurePosixPath) -> list[Path]:
    moves = [(temporary / name, folder / name.relative_to(repeated)) for name in names]
    for source, target in moves:
        # Of the path to the member, what is there already has to be folders.
        stop = next(each for each in (target, *target.parents) if os.path.lexists(each))
        equal = stop == target and target.is_file() and filecmp.cmp(source, target, shallow=False)
        if not equal and (stop == target or not stop.is_dir()):
            raise DownloadError(
                f"Expected nothing else at {stop} but there is a file that differs from the one in the archive; "
                "move it away, or choose another folder with --out."
            )
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    return [target for _, target in moves]


def _repeated(names: list[PurePosixPath], into: PurePosixPath) -> PurePosixPath:
    """The last parts of the folder's path that every name begins with."""
    for start in range(len(into.parts)):
        tail = into.parts[start:]
        if names and all(name.parts[: len(tail)] == tail for name in names):
            return PurePosixPath(*tail)
    return PurePosixPath()


def _is_root(name: str) -> bool:
    return PurePosixPath(name) == PurePosixPath()


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except DownloadError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, *_PARSING, OSError) as error:
        # Those of decoders have no number; names that no disk takes are the archive's fault.
        if isinstance(error, OSError) and error.errno not in (None, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        raise DownloadError(
            f"Expected an archive but {archive} cannot be unpacked ({type(error).__name__}: {error}); it may be "
            "damaged. Remove it, then run the same command again."
        ) from error

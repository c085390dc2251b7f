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
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pdesurrogate.data.downloads.checks import in_words, require_space
from pdesurrogate.data.downloads.registry import DownloadError, is_inside

_CHUNK = 1 << 20
# What archivers of Apple's put beside the files.
_LITTER = "__MACOSX"
# What the standard library's reader ends with when fields contradict each other.
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


def unpack(archive: Path, folder: Path, *, into: str = ".", bounds: Bounds | None = None) -> list[Path]:
    """Unpack a zip archive into ``folder / into``.

    Where all members begin with the last parts of ``into``, these are not repeated: ``cylinder/bc/case0000`` and
    ``bc/case0000`` both come to lie in ``cylinder/bc`` if that is ``into``.

    Args:
        archive: the file.
        folder: of the set.
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
    with _damage_explained(archive), zipfile.ZipFile(archive) as packed:
        members = _checked(packed, archive, bounds)
        require_space(archive.parent, sum(member.file_size for member in members.values()))
        try:
            for place, member in members.items():
                target = temporary / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as source, target.open("xb") as stream:
                    shutil.copyfileobj(source, stream, _CHUNK)
            return _move(list(members), temporary, folder / into, _repeated(list(members), PurePosixPath(into)))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _checked(packed: zipfile.ZipFile, archive: Path, bounds: Bounds) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Files by path, all members held against each other and the bounds."""

    def refusal(what: str) -> DownloadError:
        return DownloadError(f"Expected an archive of data files but {archive} holds {what}; nothing was unpacked.")

    packed_bytes, unpacked_bytes, count = archive.stat().st_size, 0, 0
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    folders: set[PurePosixPath] = set()
    for member in packed.infolist():
        # Names are taken as they were written: `filename` is cut at a zero byte.
        name = member.orig_filename
        place, is_folder = PurePosixPath(name), name.endswith("/")
        if place.parts[:1] == (_LITTER,) or (is_folder and place == PurePosixPath()):
            continue
        if not is_inside(name) or not place.parts:
            raise refusal(f"a member that leaves the folder: {name!r}")
        if not is_folder and stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise refusal(f"{name!r}, which is a link or a device")
        if member.flag_bits & 1:
            raise DownloadError(f"Expected files that anyone can read but {archive} is encrypted.")
        count += 1
        unpacked_bytes += member.file_size
        if count > bounds.members:
            raise refusal(f"more than {bounds.members} members")
        if unpacked_bytes > bounds.bytes:
            raise refusal(f"more than {in_words(bounds.bytes)}")
        if unpacked_bytes > max(bounds.ratio * packed_bytes, bounds.ratio_from):
            raise refusal(f"more than {bounds.ratio:.0f} times its own size; it may be made to fill disks")
        if not is_folder and place in files:
            raise refusal(f"{name!r} twice")
        if (not is_folder and place in folders) or not files.keys().isdisjoint((place, *place.parents)):
            raise refusal(f"{name!r} both as a file and as a folder")
        if is_folder:
            folders.add(place)
        else:
            files[place] = member
        folders.update(place.parents)
    return files


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


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except DownloadError:
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, *_PARSING, OSError) as error:
        # Those of decoders have no number; names that no disk takes are the archive's fault.
        if isinstance(error, OSError) and error.errno not in (None, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        raise DownloadError(
            f"Expected an archive but {archive} cannot be unpacked ({type(error).__name__}: {error}); it may be "
            "damaged. Remove it, then run the same command again."
        ) from error

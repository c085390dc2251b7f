"""Files of a published set into a folder: what is there, what is to come, and getting it.

Every digest that is known of a file is checked: the registry's, the host's where it is the Hugging Face Hub, the
user's, and that of an earlier download into the folder. Where there is none, the user has to say that they take the
file as it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pooch

from pdesurrogate.data.downloads.checks import require_digests
from pdesurrogate.data.downloads.fetch import Patience, Progress, fetch, part_bytes, stated_size
from pdesurrogate.data.downloads.hub import ask_hub
from pdesurrogate.data.downloads.ledger import LEDGER, Entry, Ledger
from pdesurrogate.data.downloads.registry import Digest, DownloadError, OutOfReachError, PublishedFile
from pdesurrogate.data.downloads.unpack import unpack

State = Literal["missing", "partial", "there", "unpacked", "incomplete"]


@dataclass(frozen=True)
class Terms:
    """On what terms files are taken.

    Attributes:
        unverified: ``refuse`` files of which no digest is known, or ``record`` theirs for the next time.
        given: SHA-256 by path, from the user.
        patience: attempts and waits.
    """

    unverified: Literal["refuse", "record"] = "refuse"
    given: Mapping[str, str] = field(default_factory=dict)
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Planned:
    """One file, and what is to be done about it.

    Attributes:
        file: as the registry has it.
        target: where it goes.
        state: ``missing``; ``partial``, begun by an earlier call; ``there``; ``unpacked``, an archive all of whose
            files are there; ``incomplete``, one of which some were removed since.
        have: bytes of it that an earlier call got.
        digests: all that are known.
        url: where from; ``None`` where the host was not heard, or need not be.
        bytes: exact, where known.
        about_bytes: what the registry has rounded, or the host says.
        trouble: why the host was not heard, or does not have the file.
    """

    file: PublishedFile
    target: Path
    state: State
    have: int = 0
    digests: tuple[Digest, ...] = ()
    url: str | None = None
    bytes: int | None = None
    about_bytes: int | None = None
    trouble: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing is to be downloaded."""
        return self.state in ("there", "unpacked")

    @property
    def left(self) -> int | None:
        """Bytes to download, perhaps rounded; ``None`` where not known."""
        size = self.about_bytes if self.bytes is None else self.bytes
        if self.done:
            return 0
        return None if size is None else max(size - self.have, 0)


def plan(files: Sequence[PublishedFile], folder: Path, terms: Terms) -> list[Planned]:
    """What is there, and what the hosts say of the rest; downloads nothing.

    Each host is asked once about each file; one that does not answer is not asked again.

    Raises:
        DownloadError: if the record of earlier downloads cannot be read.
    """
    ledger, silent = Ledger(folder), dict[str, str]()
    return [_planned(file, folder, ledger, terms, silent) for file in files]


def require_ready(planned: Planned, terms: Terms) -> None:
    """Refuse what cannot begin: a file whose host was not heard, or one of which nobody knows the digest.

    Raises:
        DownloadError: saying how to go on.
    """
    if not planned.done and planned.url is None:
        raise DownloadError(planned.trouble)
    if not planned.digests and terms.unverified == "refuse":
        raise DownloadError(
            f"Expected a digest to check {planned.file.path} with but none is known. Pass --sha256 "
            f"{planned.file.path}=DIGEST if its publishers state one, or --accept-unverified to take the file as it "
            f"is; its digest is then kept in {LEDGER} beside it, and later downloads are checked against that."
        )


def download(planned: Planned, folder: Path, terms: Terms, progress: Progress | None = None) -> list[Path]:
    """Get one file and unpack it, or check what is there.

    Returns:
        What it became: the file, or those that an archive held.

    Raises:
        DownloadError: as `require_ready`, `fetch` and `unpack` do, if something that is there is not what it was,
            and if another process is downloading into the folder.
    """
    require_ready(planned, terms)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        ledger = Ledger(folder)
        if planned.state == "unpacked":
            return _checked_members(planned, ledger, folder)
        if planned.state == "there":
            _require_unchanged(planned.target, planned.digests)
        else:
            assert planned.url is not None  # as `require_ready` saw to
            fetch(
                planned.url,
                planned.target,
                size=planned.bytes,
                digests=planned.digests,
                patience=terms.patience,
                progress=progress,
            )
        entry = ledger.entries.get(planned.file.path) if planned.state == "there" else None
        if entry is None:
            entry = _entry(planned)
            ledger.add(planned.file.path, entry)
        if planned.file.unpack is None:
            return [planned.target]
        unpacked = unpack(planned.target, folder, into=planned.file.into)
        digests = {path.relative_to(folder).as_posix(): pooch.file_hash(str(path), alg="sha256") for path in unpacked}
        ledger.add(planned.file.path, replace(entry, members=digests))
        # Only now: a call that is cut off before finds the archive, and unpacks it again.
        planned.target.unlink()
        return unpacked


def _planned(file: PublishedFile, folder: Path, ledger: Ledger, terms: Terms, silent: dict[str, str]) -> Planned:
    target, entry = folder / file.path, ledger.entries.get(file.path)
    digests = list(file.digests)
    if file.path in terms.given:
        digests.append(Digest("sha256", terms.given[file.path], "the user"))
    if entry is not None:
        record = f"the record of an earlier download in {ledger.path} (remove its entry there to take another version)"
        digests.append(Digest("sha256", entry.sha256, record))
    state = _state(target, entry, folder)
    found = Planned(file, target, state, part_bytes(target), tuple(digests), file.url, file.bytes, file.about_bytes)
    if found.done:
        worth_asking = state == "there" and file.hub is not None and not digests
    else:
        worth_asking = file.hub is not None or file.bytes is None
    if not worth_asking:
        return found
    host = "the Hub" if file.url is None else urlsplit(file.url).netloc
    if host in silent:
        return replace(found, trouble=silent[host])
    try:
        if file.url is not None:
            stated = stated_size(file.url)
            return replace(found, about_bytes=file.about_bytes if stated is None else stated)
        assert file.hub is not None
        answer = ask_hub(file.hub)
    except DownloadError as error:
        if isinstance(error, OutOfReachError):
            silent[host] = str(error)
        return replace(found, trouble=str(error))
    if answer.digest is not None:
        digests.append(answer.digest)
    size = answer.bytes if file.bytes is None else file.bytes
    return replace(found, url=answer.url, bytes=size, digests=tuple(digests))


def _state(target: Path, entry: Entry | None, folder: Path) -> State:
    if target.exists():
        return "there"
    if entry is not None and entry.members and all((folder / member).is_file() for member in entry.members):
        return "unpacked"
    if part_bytes(target):
        return "partial"
    return "incomplete" if entry is not None and entry.members else "missing"


def _entry(planned: Planned) -> Entry:
    # It was held against that digest a moment ago.
    known = next((digest.value for digest in planned.digests if digest.algorithm == "sha256"), None)
    return Entry(
        url=planned.url or "",
        bytes=planned.target.stat().st_size,
        sha256=pooch.file_hash(str(planned.target), alg="sha256") if known is None else known,
        checked_by=[digest.stated_by for digest in planned.digests],
    )


def _require_unchanged(path: Path, digests: Sequence[Digest]) -> None:
    try:
        require_digests(path, digests, str(path))
    except DownloadError as error:
        raise DownloadError(f"{error} Move it away and run the same command again, which gets it anew.") from None


def _checked_members(planned: Planned, ledger: Ledger, folder: Path) -> list[Path]:
    entry = ledger.entries[planned.file.path]
    for digest in planned.digests:
        if digest.algorithm == "sha256" and digest.value != entry.sha256:
            raise DownloadError(
                f"Expected sha256 {digest.value} of {planned.file.path}, by {digest.stated_by}, but what was unpacked "
                f"in {folder} came from {entry.sha256}. Choose another folder with --out."
            )
    for member, sha256 in entry.members.items():
        _require_unchanged(folder / member, [Digest("sha256", sha256, f"the record in {ledger.path}")])
    return [folder / member for member in entry.members]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder, so that no other process appends to the same files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some network file systems lock no folders; there, two processes are the user's affair.
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise DownloadError(
                    f"Expected {folder} for ourselves but another process is downloading into it; wait for it."
                ) from error
        yield
    finally:
        os.close(handle)

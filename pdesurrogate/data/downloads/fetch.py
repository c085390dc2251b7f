"""One file over http(s), streamed beside its place and put there once it is whole and its digest is right.

The transport is ``requests``. ``pooch.HTTPDownloader`` is not used: it begins every attempt at the first byte, takes an
HTML page for the file, and does not hold the number of bytes against what was announced. Its ``file_hash`` serves in
`checks`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from pdesurrogate.data.downloads.checks import SPARE_BYTES, free_bytes, in_words, require_digests, require_space
from pdesurrogate.data.downloads.registry import Digest, DownloadError, OutOfReachError, require_scheme

Progress = Callable[[int, "int | None"], None]

MOST_REDIRECTS = 10
# What is lost of a connection that breaks, at most.
_CHUNK = 1 << 18
_GAIN = 1 << 20
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_NO_HEAD = (403, 405, 501)
_CAUSES = {
    401: "The host asks for an account; get the file by hand, as the card says.",
    403: "The host does not give it to everyone; get the file by hand, as the card says.",
    404: "It is no longer there; the card says where the set comes from.",
    410: "It is no longer there; the card says where the set comes from.",
}


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        attempts: without a megabyte gained, after which it is given up.
        first_wait: before the second attempt, in seconds; doubled before each further one.
        longest_wait: in seconds; also for what a host asks for.
        timeout: of a connection, and of a silence on it, in seconds.
        sleep: waits for a number of seconds.
        tell: told before each wait why, in words.

    Example:
        >>> [wait for wait in Patience(attempts=5, longest_wait=5.0).waits()]
        [1.0, 2.0, 4.0, 5.0]
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    timeout: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    tell: Callable[[str], None] | None = None

    def waits(self) -> Iterator[float]:
        """Seconds before each further attempt."""
        for number in range(self.attempts - 1):
            yield min(self.first_wait * 2**number, self.longest_wait)


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    digests: Sequence[Digest] = (),
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> None:
    """Download ``url`` to ``target``, which appears only when it is whole and every digest is right.

    Until then the bytes are in ``target.part``, and ``target.part.json`` says which version of the file they are of. A
    later call goes on from there if the host confirms that version (ETag or date), and starts afresh otherwise.

    Args:
        url: http or https; may redirect, but not from https to http.
        target: a path at which there is nothing.
        size: in bytes, where known.
        digests: all are checked.
        patience: attempts and waits.
        progress: told bytes so far and in all, the latter ``None`` where the host does not say.

    Raises:
        DownloadError: if the host refuses, sends a web page, another size or another file, or is out of reach for all
            attempts; if there is no space; or if ``target`` exists.
    """
    if target.exists():
        raise DownloadError(
            f"Expected nothing at {target} but there is something; remove it, or choose another folder."
        )
    require_scheme(url)
    patience = Patience() if patience is None else patience
    part = _Part(target)
    with _session() as session:
        download = _Download(session, url, part, size, patience, progress)
        # Whole already, if the last call ended while the digests were made: they tell whether it is.
        whole = bool(digests) and part.path.is_file() and part.bytes == size
        while not whole:
            whole = download.once()
    part.require(digests, url)
    part.expose()


def stated_size(url: str, *, timeout: float = 10.0) -> int | None:
    """Bytes of the file at ``url`` as its host states them, without downloading it; ``None`` where it does not.

    Raises:
        DownloadError: for a scheme other than http(s); `OutOfReachError` if the host does not answer.
    """
    require_scheme(url)
    # Addresses that are signed for GET refuse HEAD; they are asked for one byte.
    for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        try:
            with (
                _session() as session,
                closing(
                    session.request(method, url, headers=headers, allow_redirects=True, stream=True, timeout=timeout)
                ) as answer,
            ):
                pass
        except requests.RequestException as error:
            raise OutOfReachError(
                f"Expected {urlsplit(url).hostname} to answer but no sizes could be asked for ({type(error).__name__})."
            ) from error
        if answer.status_code not in _NO_HEAD:
            break
    if not answer.ok or _is_page(answer.headers):
        return None
    if answer.status_code == requests.codes.partial_content:
        return _integer(answer.headers.get("Content-Range", "").rpartition("/")[2])
    return _integer(answer.headers.get("Content-Length"))


def part_bytes(target: Path) -> int:
    """Bytes of an earlier attempt at ``target``."""
    part = target.with_name(f"{target.name}.part")
    return part.stat().st_size if part.is_file() else 0


class _TransientError(Exception):
    """Worth another attempt, after ``wait`` seconds where the host says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Part:
    """The bytes so far, and what version of the file they are of."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def bytes(self) -> int:
        return part_bytes(self.target)

    def validator(self, url: str) -> str | None:
        """What a host can confirm the version of our bytes by; ``None`` if there are none, or nothing to tell by."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = self.bytes > 0 and isinstance(note, dict) and note.get("url") == url
        validator = note.get("validator") if same else None
        return validator if isinstance(validator, str) else None

    def begin(self, url: str, headers: Any) -> None:
        """Forget what there was; note the version that comes now."""
        self.path.unlink(missing_ok=True)
        etag = headers.get("ETag")
        # A weak tag promises the same meaning, not the same bytes.
        validator = headers.get("Last-Modified") if etag is None or etag.startswith("W/") else etag
        self.note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def require(self, digests: Sequence[Digest], url: str) -> None:
        try:
            require_digests(self.path, digests, f"what {url} gives")
        except DownloadError as error:
            # Going on from wrong bytes would give wrong bytes again.
            self.remove()
            raise DownloadError(
                f"{error} Nothing was kept. If a second attempt ends alike, the file was changed by its host."
            ) from None

    def expose(self) -> None:
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)


class _Download:
    """Attempts at one file."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        part: _Part,
        size: int | None,
        patience: Patience,
        progress: Progress | None,
    ) -> None:
        self.session, self.url, self.part, self.size = session, url, part, size
        self.patience, self.progress = patience, progress
        self._waits = patience.waits()

    def once(self) -> bool:
        """One attempt; whether the file is whole. Waits after one that failed for a while."""
        before = self.part.bytes
        try:
            self._receive()
            return True
        except _TransientError as error:
            reason = error
        except requests.TooManyRedirects:
            raise DownloadError(f"Expected a file at {self.url} but the host redirects in circles.") from None
        except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
            raise DownloadError(f"Expected {self.url} to lead to http(s) but it leads elsewhere: {error}.") from error
        except requests.exceptions.SSLError as error:
            raise DownloadError(
                f"Expected a certificate that proves who the host of {self.url} is: {error}."
            ) from error
        except requests.RequestException as error:
            reason = _TransientError(f"{type(error).__name__}: {error}")
        if self.part.bytes > before + _GAIN:
            self._waits = self.patience.waits()
        wait = next(self._waits, None)
        if wait is None:
            raise DownloadError(
                f"Expected the file at {self.url} but the last of {self.patience.attempts} attempts ended with: "
                f"{reason}. The same command continues after {in_words(self.part.bytes)}."
            )
        wait = wait if reason.wait is None else min(reason.wait, self.patience.longest_wait)
        if self.patience.tell is not None:
            self.patience.tell(f"{reason}; next attempt in {wait:.0f} s")
        self.patience.sleep(wait)
        return False

    def _receive(self) -> None:
        validator = self.part.validator(self.url)
        start = 0 if validator is None else self.part.bytes
        headers = {} if validator is None else {"Range": f"bytes={start}-", "If-Range": validator}
        with closing(self.session.get(self.url, headers=headers, stream=True, timeout=self.patience.timeout)) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable and validator is not None:
                # We have as many bytes as the file, or more: of another version, then.
                self.part.remove()
                raise _TransientError("the host has no more bytes than there are already")
            self._require_fine(answer)
            if answer.status_code != requests.codes.partial_content:
                start = 0
            elif answer.headers.get("ETag", validator) != validator and '"' in (validator or ""):
                # Some hosts heed Range and not If-Range.
                self.part.remove()
                raise _TransientError("the host has another version of the file by now")
            total = self._total(answer, start)
            if start == 0:
                self.part.begin(self.url, answer.headers)
            require_space(self.part.target.parent, 0 if total is None else total - start)
            self._write(answer, start, total)

    def _require_fine(self, answer: requests.Response) -> None:
        chain = [urlsplit(hop.url).scheme for hop in (*answer.history, answer)]
        if "https" in chain and "http" in chain[chain.index("https") :]:
            raise DownloadError(f"Expected {self.url} to stay with https but it leads to {answer.url}.")
        status = answer.status_code
        if status in _TRANSIENT:
            raise _TransientError(f"status {status} {answer.reason}", _seconds(answer.headers.get("Retry-After")))
        if not answer.ok:
            cause = _CAUSES.get(status, "Try again later, or get the file by hand, as the card says.")
            raise DownloadError(f"Expected the file at {answer.url} but got status {status} {answer.reason}. {cause}")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(
                f"Expected the bytes of {answer.url} as they are but the host packs them "
                f"({answer.headers['Content-Encoding']})."
            )
        if _is_page(answer.headers):
            raise self._page()

    def _total(self, answer: requests.Response, start: int) -> int | None:
        """Bytes of the whole file, as the host says."""
        if answer.status_code == requests.codes.partial_content:
            place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if start == 0 or place is None or int(place[1]) != start:
                self.part.remove()
                raise _TransientError("the host sent another range than was asked for")
            total = _integer(place[2])
        else:
            total = _integer(answer.headers.get("Content-Length"))
        if self.size is not None and total is not None and total != self.size:
            raise DownloadError(
                f"Expected {self.size} bytes at {self.url} but the host has {total}: it is another file. "
                "See the card for where the set comes from."
            )
        return self.size if total is None else total

    def _write(self, answer: requests.Response, start: int, total: int | None) -> None:
        done = start
        # Where nobody says how long the file is, the disk does.
        most = total if total is not None else start + free_bytes(self.part.target.parent) - SPARE_BYTES
        with self.part.path.open("ab" if start else "wb") as stream:
            for chunk in answer.iter_content(_CHUNK):
                if done == 0 and _looks_like_page(chunk):
                    raise self._page()
                done += len(chunk)
                if done > most:
                    raise self._too_long(most)
                stream.write(chunk)
                if self.progress is not None:
                    self.progress(done, total)
        if total is not None and done < total:
            raise _TransientError(f"the connection ended after {done} of {total} bytes")

    def _page(self) -> DownloadError:
        self.part.remove()
        return DownloadError(
            f"Expected a file at {self.url} but got a web page: the host may want a login or a click. "
            "Open the address in a browser, and get the file by hand, as the card says."
        )

    def _too_long(self, most: int) -> DownloadError:
        self.part.remove()
        return DownloadError(
            f"Expected at most {most} bytes from {self.url} but the host sends more; nothing was kept."
        )


def _session() -> requests.Session:
    session = requests.Session()
    session.max_redirects = MOST_REDIRECTS
    # Lengths and ranges count the bytes of the file, not those of a compressed stream.
    session.headers["Accept-Encoding"] = "identity"
    return session


def _is_page(headers: Any) -> bool:
    kind = str(headers.get("Content-Type", "")).partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml")


def _looks_like_page(first: bytes) -> bool:
    beginning = first[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return beginning.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None


def _seconds(text: str | None) -> float | None:
    """Of a Retry-After header; its other form, a date, is left to our own waits."""
    return None if _integer(text) is None else float(text or 0)

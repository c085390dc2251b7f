"""Digests, and room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pooch

from pdesurrogate.data.downloads.registry import Digest, DownloadError

# Left free on the disk whatever is downloaded.
SPARE_BYTES = 1 << 26


def require_digests(path: Path, digests: Sequence[Digest], name: str) -> None:
    """Hold a file against all that is known of it.

    Raises:
        DownloadError: at the first digest that differs, saying who states it.
    """
    found = {algorithm: pooch.file_hash(str(path), alg=algorithm) for algorithm in {d.algorithm for d in digests}}
    for digest in digests:
        if found[digest.algorithm] != digest.value:
            raise DownloadError(
                f"Expected {digest.algorithm} {digest.value} of {name}, by {digest.stated_by}, "
                f"but got {found[digest.algorithm]}."
            )


def require_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot end.

    Raises:
        DownloadError: if fewer than ``needed`` bytes, and some to spare, are free where ``folder`` is or will be.
    """
    free = free_bytes(folder)
    if free < needed + SPARE_BYTES:
        raise DownloadError(
            f"Expected {in_words(needed + SPARE_BYTES)} of free space for {folder} but there are {in_words(free)}; "
            "make room, or choose another folder with --out."
        )


def free_bytes(folder: Path) -> int:
    """Of the disk that ``folder`` is on, or will be."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def in_words(count: int) -> str:
    """Bytes for people.

    Example:
        >>> in_words(786_000_000), in_words(14_369_000_000), in_words(12)
        ('786 MB', '14.4 GB', '12 bytes')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{count} bytes"

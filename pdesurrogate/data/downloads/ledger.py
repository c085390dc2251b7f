"""What was downloaded into a folder: digests to hold later downloads against, and what became of archives."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pdesurrogate.data.downloads.registry import DownloadError

LEDGER = ".pdesurrogate-downloads.json"
_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One file that was downloaded.

    Attributes:
        url: where from.
        bytes: of the file.
        sha256: of the file.
        checked_by: who stated the digests that it was held against; empty where nobody did.
        members: digests of what an archive held by place, below the folder of the set.
    """

    url: str
    bytes: int
    sha256: str
    checked_by: list[str]
    members: dict[str, str] = field(default_factory=dict)


class Ledger:
    """Entries by path, kept in ``FOLDER/.pdesurrogate-downloads.json``.

    Args:
        folder: of the set.

    Raises:
        DownloadError: if the file cannot be read as one.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Ledger(folder).add("flow.mat", Entry("https://host.org/flow.mat", 5, 64 * "0", ["the registry"]))
        >>> Ledger(folder).entries["flow.mat"].bytes
        5
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        self.entries: dict[str, Entry] = {}
        if not self.path.is_file():
            return
        try:
            stored: Any = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["version"] != _VERSION:
                raise ValueError(f"version {stored['version']}")
            self.entries = {path: Entry(**entry) for path, entry in stored["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DownloadError(
                f"Expected the digests of earlier downloads in {self.path} but it cannot be read ({error}). "
                "Remove it to forget them."
            ) from error

    def add(self, path: str, entry: Entry) -> None:
        """Put in or replace an entry; the file is whole at any time."""
        self.entries[path] = entry
        part = self.path.with_name(f"{self.path.name}.part")
        contents = {"version": _VERSION, "files": {name: asdict(each) for name, each in sorted(self.entries.items())}}
        part.write_text(json.dumps(contents, indent=1), encoding="utf-8")
        os.replace(part, self.path)

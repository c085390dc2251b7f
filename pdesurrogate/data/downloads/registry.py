"""Which files a published set has and where they are hosted: ``files.yaml`` beside its card.

The file is a list; each entry is one file:

.. code-block:: yaml

    - path: cavity.zip          # where it goes, below the folder of the set
      part: cavity              # NAME-cavity asks for this part alone; words are joined by "-", "a-b" is within "a"
      hub: {repo: chen-yingfa/CFDBench, file: cavity.zip, revision: main}   # or  url: https://...
      bytes: null               # exact, null where not known
      about_bytes: 786_000_000  # what others state, rounded; shown, never checked
      sha256: null              # or md5; null where not known
      unpack: zip               # zip or null; an archive is removed once it is unpacked
      into: cavity              # folder of what it holds

``path`` and one of ``url`` and ``hub`` are needed, the rest may be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pdesurrogate.data.catalog import Card, cards, datasets_directory, unknown_name

REGISTRY = "files.yaml"
SCHEMES = ("http", "https")
DIGITS = {"sha256": 64, "md5": 32}


class DownloadError(ValueError):
    """Something that was asked for cannot be had, or is not what it should be; the message says what to do."""


class OutOfReachError(DownloadError):
    """A host did not answer."""


class Digest(NamedTuple):
    """Digest of a file's bytes, and who states it.

    Attributes:
        algorithm: ``sha256`` or ``md5``.
        value: hexadecimal, lower case.
        stated_by: in words, for messages.
    """

    algorithm: str
    value: str
    stated_by: str


@dataclass(frozen=True)
class HubFile:
    """A file of a data set at the Hugging Face Hub.

    Attributes:
        repo: ``OWNER/NAME`` of the data set.
        file: path in it.
        revision: branch, tag or commit.
    """

    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published set; the attributes are the keys of ``files.yaml``.

    Raises:
        ValueError: if a path leaves the folder, there is not one source, a scheme is not http(s), or a size or a
            digest is none.

    Example:
        >>> file = PublishedFile("cylinder/bc.zip", url="https://host.org/bc.zip", part="cylinder-bc", unpack="zip")
        >>> file.belongs_to("cylinder"), file.belongs_to("cyl")
        (True, False)
    """

    path: str
    url: str | None = None
    hub: HubFile | None = None
    part: str | None = None
    bytes: int | None = None
    about_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: Literal["zip"] | None = None
    into: str = "."

    def __post_init__(self) -> None:
        for place in (self.path, self.into):
            if not is_inside(place):
                raise ValueError(f"Expected a path within the folder of the set but got {place!r}.")
        if (self.url is None) == (self.hub is None):
            raise ValueError(f"Expected either `url` or `hub` for {self.path} but got {self.url} and {self.hub}.")
        if self.url is not None:
            require_scheme(self.url)
        for size in (self.bytes, self.about_bytes):
            if size is not None and (type(size) is not int or size < 0):
                raise ValueError(f"Expected a number of bytes for {self.path} but got {size!r}.")
        for algorithm in DIGITS:
            value = getattr(self, algorithm)
            if value is not None:
                require_digest(algorithm, value)
        if self.unpack not in (None, "zip"):
            raise ValueError(f"Expected `unpack: zip`, or none, for {self.path} but got {self.unpack!r}.")

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Those that the registry states."""
        stated = [(algorithm, getattr(self, algorithm)) for algorithm in DIGITS]
        return tuple(Digest(algorithm, value, "the registry") for algorithm, value in stated if value is not None)

    def belongs_to(self, part: str) -> bool:
        """Whether the file is of ``part``, or of a part within it."""
        return self.part is not None and f"{self.part}-".startswith(f"{part}-")


class Selection(NamedTuple):
    """What a name asks for.

    Attributes:
        card: of the set.
        part: ``None`` for the whole set.
        files: empty where no address of the set is known.
        namesake: a set of ours of that name, generated from a recipe.
    """

    card: Card
    part: str | None
    files: tuple[PublishedFile, ...]
    namesake: str | None = None


def read_registry(path: Path) -> tuple[PublishedFile, ...]:
    """Parse one ``files.yaml``.

    Raises:
        ValueError: if it is no list of files, a key is unknown or a value wrong, or two files go to one place.
    """
    import yaml

    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"Expected a list of files, each with `path` and `url` or `hub`, in {path} but got {entries}.")
    try:
        files = tuple(_file(entry) for entry in entries)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    paths = [file.path for file in files]
    twice = sorted({place for place in paths if paths.count(place) > 1})
    if twice:
        raise ValueError(f"Expected each path once in {path} but got {', '.join(twice)} more than once.")
    return files


def find(name: str, directory: Path | None = None) -> Selection:
    """The published set, or the part of one, called ``name``; ``-`` and ``_`` are the same.

    Args:
        name: ``SET`` or ``SET-PART``.
        directory: of the cards; by default those of the package.

    Raises:
        ValueError: if there is none, listing names that are close, or saying how to generate a set of ours.
    """
    directory = datasets_directory() if directory is None else directory
    asked, everything = _joined(name), cards(directory)
    known: dict[str, Selection] = {}
    for card in everything:
        if card.kind == "published":
            listing = card.path.with_name(REGISTRY)
            files = read_registry(listing) if listing.is_file() else ()
            known[_joined(card.name)] = Selection(card, None, files)
            for part in _parts(files):
                chosen = tuple(file for file in files if file.belongs_to(part))
                known[f"{_joined(card.name)}-{part}"] = Selection(card, part, chosen)
    generated = next(
        (card.name for card in everything if card.kind != "published" and _joined(card.name) == asked), None
    )
    if asked in known:
        return known[asked]._replace(namesake=generated)
    if generated is not None:
        raise ValueError(
            f"Expected a set that others published but {generated!r} is generated from a recipe: "
            f"`pdesurrogate generate {generated} --out DIR`."
        )
    sets = [key for key, selection in known.items() if selection.part is None]
    raise ValueError(unknown_name("published set, or SET-PART,", name, known, listed=sets))


def is_inside(path: str) -> bool:
    """Whether a relative path with ``/`` between its parts stays in the folder that it starts from, on any system.

    Example:
        >>> is_inside("train/seed=1.h5"), is_inside("../secret"), is_inside("/etc/passwd"), is_inside("C:/x")
        (True, False, False, False)
    """
    if not path or "\\" in path or "\0" in path or re.match(r"[A-Za-z]:", path):
        return False
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def require_scheme(url: str) -> None:
    """Refuse an address that is not one of the web.

    Raises:
        DownloadError: for any scheme but http and https, and for an address without a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise DownloadError(f"Expected an address that starts with http:// or https:// but got {url!r}.")


def require_digest(algorithm: str, value: object) -> None:
    """Refuse what is no digest.

    Raises:
        ValueError: if ``value`` is not the hexadecimal, lower-case text of ``algorithm``'s length.
    """
    digits = DIGITS[algorithm]
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
        raise ValueError(f"Expected a {algorithm} of {digits} hexadecimal digits, lower case, but got {value!r}.")


def _file(entry: dict[str, Any]) -> PublishedFile:
    known = [field.name for field in fields(PublishedFile)]
    foreign = [key for key in entry if key not in known]
    if foreign or "path" not in entry:
        raise ValueError(
            f"Expected `path` and other keys among {', '.join(known)} but got {', '.join(map(str, entry))}."
        )
    words = [entry[key] for key in ("path", "url", "part", "into") if entry.get(key) is not None]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"Expected text for `path`, `url`, `part` and `into` but got {words}.")
    values = dict(entry)
    if values.get("hub") is not None:
        values["hub"] = HubFile(**values["hub"])
    if values.get("part") is not None:
        values["part"] = _joined(values["part"])
    return PublishedFile(**values)


def _parts(files: tuple[PublishedFile, ...]) -> list[str]:
    words = [file.part.split("-") for file in files if file.part is not None]
    return list(dict.fromkeys("-".join(each[: count + 1]) for each in words for count in range(len(each))))


def _joined(name: str) -> str:
    return name.strip().lower().replace("_", "-")

"""``pdesurrogate datasets download``: sizes first, then the files of a published set, checked and unpacked."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pdesurrogate.data.catalog import Card
    from pdesurrogate.data.downloads.registry import PublishedFile
    from pdesurrogate.data.downloads.sets import Planned, Terms

# Above this the user is asked.
UNASKED_BYTES = 10**9
_STATES = {
    "missing": "to download",
    "partial": "to go on with",
    "there": "there, to check",
    "unpacked": "unpacked, to check",
    "incomplete": "to download again: some of its files are gone",
}


def add_download(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Hang the verb into those of ``pdesurrogate datasets``."""
    parser = verbs.add_parser(
        "download",
        help="get a published set, or a part of it",
        description="Download the files of a published set, check them and unpack archives. A file appears under its "
        "name when it is whole and its digest is right. Run again, it continues, and checks what is there.",
    )
    parser.add_argument("name", metavar="NAME", help="of a published set, or SET-PART; `-` and `_` are the same")
    parser.add_argument("--out", metavar="DIR", help="folder of the set; by default its name, here")
    parser.add_argument("--dry-run", action="store_true", help="show files and sizes, download nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before more than 1 GB")
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="[PATH=]DIGEST",
        help="what a file must have, beside what is known; PATH as --dry-run shows it, needed where there are several",
    )
    parser.add_argument(
        "--accept-unverified",
        action="store_true",
        help="take files of which no digest is known; theirs are kept, and later downloads checked against them",
    )
    parser.set_defaults(verb=_download)


def _download(arguments: argparse.Namespace) -> int:
    from pdesurrogate.data.downloads.checks import require_space
    from pdesurrogate.data.downloads.fetch import Patience
    from pdesurrogate.data.downloads.registry import find
    from pdesurrogate.data.downloads.sets import Terms, plan, require_ready

    card, part, files, namesake = find(arguments.name)
    if not files:
        print(_how_to_get(card))
        raise ValueError(
            f"Expected a set with known addresses but there are none of {card.name}; it comes as written above."
        )
    if namesake is not None:
        print(
            f"This is part {part} of {card.name}, by others; `pdesurrogate generate {namesake}` makes one of ours.",
            file=sys.stderr,
        )
    folder = Path(card.name if arguments.out is None else arguments.out)
    terms = Terms(
        unverified="record" if arguments.accept_unverified else "refuse",
        given=_given(arguments.sha256, files),
        patience=Patience(tell=lambda why: print(f"pdesurrogate datasets download: {why}", file=sys.stderr)),
    )
    plans = plan(files, folder, terms)
    _show(plans, card)
    sizes = [planned.left for planned in plans]
    known = sum(size for size in sizes if size is not None)
    amount = _amount(known, sizes.count(None))
    print(f"{amount} to download into {folder}")
    if arguments.dry_run:
        return 0
    for planned in plans:
        require_ready(planned, terms)
    require_space(folder, known)
    if (known > UNASKED_BYTES or None in sizes) and not arguments.yes and not _agreed(amount):
        print("Nothing was downloaded.")
        return 1
    try:
        count = sum(_get(planned, folder, terms) for planned in plans)
    except KeyboardInterrupt:
        print(
            "\npdesurrogate datasets download: interrupted; what came so far is kept, the same command continues.",
            file=sys.stderr,
        )
        return 130
    taken = [planned.file.path for planned in plans if not planned.digests]
    if taken:
        print(f"Taken as they came, since no digest is known: {', '.join(taken)}. They are recorded for the next time.")
    print(f"{_files(count)} in {folder}; `pdesurrogate datasets show {card.name}` says how to read them")
    return 0


def _get(planned: Planned, folder: Path, terms: Terms) -> int:
    """Download or check one file, under a bar; how many files it became."""
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.data.downloads.checks import in_words
    from pdesurrogate.data.downloads.sets import download

    with progress_bar(planned.file.path, unit="MB") as bar:

        def progress(done: int, total: int | None) -> None:
            if total is None:
                bar.say(in_words(done))
            else:
                bar(done // 10**6, total // 10**6)
                bar.say("checking" if done == total else "")

        if planned.done:
            bar.say("checking")
        return len(download(planned, folder, terms, progress))


def _show(plans: list[Planned], card: Card) -> None:
    from pdesurrogate.cli.tables import print_columns
    from pdesurrogate.data.downloads.checks import in_words

    rows = [("NAME", "FILE", "SIZE", "DIGEST", "STATE")]
    for planned in plans:
        if planned.bytes is not None:
            size = in_words(planned.bytes)
        else:
            size = "not known" if planned.about_bytes is None else f"about {in_words(planned.about_bytes)}"
        digest = " and ".join(dict.fromkeys(digest.algorithm for digest in planned.digests))
        if not digest:
            digest = "not asked for" if planned.trouble and planned.file.hub is not None else "not known"
        state = _STATES[planned.state]
        if planned.state == "partial":
            state += f" ({in_words(planned.have)} there)"
        name = card.name if planned.file.part is None else f"{card.name}-{planned.file.part}"
        rows.append((name, planned.file.path, size, digest, state))
    print_columns(rows)
    if any(planned.left is None for planned in plans):
        print(f"Not all sizes are known; the card of {card.name} says: {card.size}.")
    for trouble in dict.fromkeys(planned.trouble for planned in plans if planned.trouble):
        print(trouble, file=sys.stderr)


def _amount(known: int, unknown: int) -> str:
    from pdesurrogate.data.downloads.checks import in_words

    if not unknown:
        return in_words(known)
    rest = f"{_files(unknown)} of unknown size"
    return f"{in_words(known)} and {rest}" if known else rest


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _given(texts: list[str], files: tuple[PublishedFile, ...]) -> dict[str, str]:
    from pdesurrogate.data.downloads.registry import require_digest

    paths, given = [file.path for file in files], {}
    for text in texts:
        path, _, digest = text.rpartition("=")
        if not path and len(paths) == 1:
            (path,) = paths
        if path not in paths:
            raise ValueError(f"Expected --sha256 PATH=DIGEST with a path among {', '.join(paths)} but got {text!r}.")
        require_digest("sha256", digest.lower())
        given[path] = digest.lower()
    return given


def _agreed(how_much: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValueError(f"Expected --yes without a terminal: {how_much} are to be downloaded.")
    print(f"Download {how_much}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _how_to_get(card: Card) -> str:
    found = re.search(r"^## How to get it\n.*?(?=^## |\Z)", card.text, flags=re.MULTILINE | re.DOTALL)
    return card.text if found is None else found[0].strip()

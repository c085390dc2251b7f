"""``pdesurrogate datasets``: list the data sets, show a card, fetch files, and turn them into archives and back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdesurrogate.cli.conversion import add_convert, add_export
from pdesurrogate.cli.download import add_download
from pdesurrogate.cli.tables import print_columns


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; the exit status.

    Raises:
        ValueError: for an unknown name, a wrong option or a file that cannot be read.
    """
    arguments = _parser().parse_args(argv)
    verb: Any = arguments.verb
    return int(verb(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pdesurrogate datasets", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    listing = verbs.add_parser("list", help="names, titles and sizes", description="List the data sets.")
    listing.set_defaults(verb=_list)

    showing = verbs.add_parser("show", help="one data set's card", description="Print one data set's card.")
    showing.add_argument("name", metavar="NAME", help="as in `pdesurrogate datasets list`")
    showing.set_defaults(verb=_show)

    describing = verbs.add_parser(
        "describe",
        help="what is in a file of unknown layout",
        description="List the arrays of a netCDF, HDF5, Zarr, NumPy or MATLAB file and propose a mapping, with which "
        "`convert --format mapped` reads it.",
    )
    describing.add_argument("path", metavar="FILE", help="a file, or a Zarr store")
    describing.add_argument(
        "--out", metavar="MAPPING", help="write the mapping to this new YAML file, all else as comments"
    )
    describing.set_defaults(verb=_describe)

    add_download(verbs)
    add_convert(verbs)
    add_export(verbs)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from pdesurrogate.data.catalog import cards

    rows = [("NAME", "KIND", "SIZE", "TITLE")]
    rows += [(card.name, card.kind, card.size, card.title) for card in cards()]
    print_columns(rows)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from pdesurrogate.data.catalog import card

    found = card(arguments.name)
    print(found.text, end="")
    if found.recipe is not None:
        print(f"\nRecipe: {found.recipe}")
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from pdesurrogate.data.adapters.mapped.describe import as_mapping, describe

    description = describe(arguments.path)
    print(description)
    if arguments.out is None:
        return 0
    mapping = as_mapping(description)
    try:
        with Path(arguments.out).open("x", encoding="utf-8") as file:
            file.write(mapping)
    except FileExistsError as error:
        raise ValueError(f"Expected a new file for --out but {arguments.out} exists; choose another name.") from error
    print(arguments.out)
    return 0

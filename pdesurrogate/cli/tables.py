"""Columns of text."""

from __future__ import annotations

from collections.abc import Sequence


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of equally many cells, each column as wide as its widest cell.

    Example:
        >>> print_columns([("NAME", "SIZE"), ("cfdbench", "14.4 GB")])
        NAME      SIZE
        cfdbench  14.4 GB
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

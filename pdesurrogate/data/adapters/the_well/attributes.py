"""Attributes of foreign files, checked as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def text(attributes: Mapping[str, Any], key: str, *, what: str) -> str:
    """A word.

    Raises:
        ValueError: if it is missing or no text.
    """
    value = _required(attributes, key, what)
    if not isinstance(value, str):
        raise ValueError(f"Expected text as the attribute {key!r} of {what} but got {value!r}.")
    return value


def texts(attributes: Mapping[str, Any], key: str, *, what: str) -> tuple[str, ...]:
    """A list of words; a single one counts as such.

    Raises:
        ValueError: if it is missing or no list of text.
    """
    value = _required(attributes, key, what)
    if isinstance(value, str):
        return (value,)
    if isinstance(value, np.ndarray) and not value.size:  # an empty list has no type in HDF5
        return ()
    if not isinstance(value, list):
        raise ValueError(f"Expected a list of names as the attribute {key!r} of {what} but got {value!r}.")
    return tuple(map(str, value))


def flag(attributes: Mapping[str, Any], key: str, default: bool | None = None, *, what: str) -> bool:
    """Yes or no; ``default`` where the attribute is missing, unless it has to be there.

    Raises:
        ValueError: if it is missing and has no default, or is neither.
    """
    if key not in attributes and default is not None:
        return default
    value = _required(attributes, key, what)
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f"Expected true or false as the attribute {key!r} of {what} but got {value!r}.")
    return bool(value)


def flags(attributes: Mapping[str, Any], key: str, count: int, *, what: str) -> tuple[bool, ...]:
    """As many of them.

    Raises:
        ValueError: if it is missing, has another length, or holds other things.
    """
    value = np.atleast_1d(_required(attributes, key, what))
    if value.shape != (count,) or value.dtype.kind not in "biu" or not np.isin(value, (0, 1)).all():
        raise ValueError(
            f"Expected {count} times true or false as the attribute {key!r} of {what} but got {value.tolist()}."
        )
    return tuple(value.astype(bool).tolist())


def count(attributes: Mapping[str, Any], key: str, *, what: str) -> int:
    """A positive whole number.

    Raises:
        ValueError: if it is missing or something else.
    """
    value = _required(attributes, key, what)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Expected a positive number as the attribute {key!r} of {what} but got {value!r}.")
    return value


def _required(attributes: Mapping[str, Any], key: str, what: str) -> Any:
    if key not in attributes:
        raise ValueError(
            f"Expected the attribute {key!r} of {what} but it has {', '.join(sorted(attributes)) or 'none'}."
        )
    value = attributes[key]
    return (
        value.item() if isinstance(value, np.ndarray) and value.shape == (1,) and value.dtype.kind in "biuf" else value
    )

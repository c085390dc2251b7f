"""Steppers around steppers: put around one, read off one, and built again from plain values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from pdesurrogate.models.specification import imported_module
from pdesurrogate.steppers.base import Stepper

Wrapper = Callable[[Stepper], nn.Module]

# What a wrapper is given by its place rather than by its configuration.
_BY_PLACE = ("self", "stepper", "metadata")


def wrapped(stepper: Stepper, wrappers: Iterable[Wrapper]) -> Stepper:
    """The stepper with others around it, the innermost first.

    Raises:
        ValueError: if one gives no stepper, or whatever a wrapper refuses.

    Example:
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> from pdesurrogate.steppers.resampled import Resampled
        >>> stepper = wrapped(Persistence(), [functools.partial(Resampled, resolution=(8,))])
        >>> type(stepper).__name__, wrappers_of(stepper)[0]["init_args"]
        ('Resampled', {'resolution': [8]})
    """
    for wrapper in wrappers:
        around = wrapper(stepper)
        if not isinstance(around, Stepper):
            raise ValueError(f"Expected a wrapper that gives a stepper but got a {type(around).__name__}.")
        stepper = around
    return stepper


def innermost(stepper: Stepper) -> Stepper:
    """What all others are around."""
    while isinstance(inner := getattr(stepper, "stepper", None), Stepper):
        stepper = inner
    return stepper


def wrappers_of(stepper: Stepper) -> list[dict[str, Any]]:
    """``class_path`` and ``init_args`` of what is around a stepper, the innermost first, in plain values.

    A wrapper has what it wraps as ``stepper``, and its other arguments as attributes of their names.

    Raises:
        ValueError: if an argument is not there, or no plain value.
    """
    found: list[dict[str, Any]] = []
    while isinstance(inner := getattr(stepper, "stepper", None), Stepper):
        cls = type(stepper)
        names = [name for name in inspect.signature(cls.__init__).parameters if name not in _BY_PLACE]
        arguments = {name: _plain(stepper, name) for name in names}
        found.insert(0, {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments})
        stepper = inner
    return found


def wrappers_from(specifications: Sequence[Mapping[str, Any]]) -> list[Wrapper]:
    """What `wrappers_of` read off, for `wrapped`.

    Raises:
        ValueError: if a class cannot be imported or is no module.
    """
    return [
        functools.partial(imported_module(str(each["class_path"])), **each.get("init_args", {}))
        for each in specifications
    ]


def _plain(stepper: Stepper, name: str) -> Any:
    value = getattr(stepper, name, inspect.Parameter.empty)
    if isinstance(value, tuple):
        value = list(value)
    items = value if isinstance(value, list) else [value]
    if not all(item is None or isinstance(item, bool | int | float | str) for item in items):
        raise ValueError(
            f"Expected the argument {name!r} of a {type(stepper).__name__} as an attribute in plain values, so that a "
            f"checkpoint can hold it, but got {value!r}."
        )
    return value

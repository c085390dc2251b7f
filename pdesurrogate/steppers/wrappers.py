"""Steppers around steppers: put around one, read off one, and built again from plain values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from pdesurrogate.models.specification import imported_class, imported_module
from pdesurrogate.physics.conservation.laws import ConservationLaw
from pdesurrogate.steppers.base import Stepper, require_outermost

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
        require_outermost(stepper, "another")
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

    A wrapper has what it wraps as ``stepper``, and its other arguments as attributes of their names; so has a
    conservation law its own.

    Raises:
        ValueError: if an argument is not there, or no plain value.
    """
    found: list[dict[str, Any]] = []
    while isinstance(inner := getattr(stepper, "stepper", None), Stepper):
        found.insert(0, _specification(stepper))
        stepper = inner
    return found


def wrappers_from(specifications: Sequence[Mapping[str, Any]]) -> list[Wrapper]:
    """What `wrappers_of` read off, for `wrapped`.

    Raises:
        ValueError: if a class cannot be imported or is no module.
    """
    return [
        functools.partial(imported_module(str(each["class_path"])), **_built(each.get("init_args", {})))
        for each in specifications
    ]


def _built(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a wrapper, conservation laws made from what is said of them."""
    return {
        name: _law(value) if isinstance(value, Mapping) and "class_path" in value else value
        for name, value in arguments.items()
    }


def _law(specification: Mapping[str, Any]) -> ConservationLaw:
    cls = imported_class(str(specification["class_path"]), ConservationLaw)
    try:
        law: ConservationLaw = cls(**specification.get("init_args", {}))
    except TypeError as error:
        raise ValueError(f"Expected arguments of a {cls.__name__} but {error}.") from error
    return law


def _specification(described: object) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of a wrapper or a law."""
    cls = type(described)
    names = [name for name in inspect.signature(cls.__init__).parameters if name not in _BY_PLACE]
    arguments = {name: _plain(described, name) for name in names}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def _plain(described: object, name: str) -> Any:
    value = getattr(described, name, inspect.Parameter.empty)
    if isinstance(value, ConservationLaw):
        return _specification(value)
    if (plain := _as_lists(value)) is not inspect.Parameter.empty:
        return plain
    raise ValueError(
        f"Expected the argument {name!r} of a {type(described).__name__} as an attribute in plain values, so that a "
        f"checkpoint can hold it, but got {value!r}."
    )


def _as_lists(value: Any) -> Any:
    """A plain value, or nested lists of such; else no value."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, tuple | list):
        return inspect.Parameter.empty
    items = [_as_lists(item) for item in value]
    return inspect.Parameter.empty if inspect.Parameter.empty in items else items

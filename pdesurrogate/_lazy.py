"""Faces that import a name when it is first used (PEP 562), so that light verbs stay light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_face(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its name.
        homes: the module below the package that each public name comes from.

    Example:
        >>> getattribute, names = lazy_face("pdesurrogate", {"Grid": "fields.grid"})
        >>> names(), getattribute("Grid").__module__
        (['Grid'], 'pdesurrogate.fields.grid')
    """

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return getattribute, lambda: sorted(homes)

"""The YAML text that PDEBench's generators leave in attributes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

# Levels of the text; the authors' have five.
_DEEPEST = 32
_NESTED = "[...]"
_NOTHING = ("", "~", "null", "Null", "NULL")


def configuration(text: Any, section: str = "", *, what: str) -> Mapping[str, str]:
    """Names and values of a configuration, or of one section of it, as text; nothing else of the text is parsed.

    Values that are lists or the like are ``[...]``: the text is gone through and nothing is built from it. Aliases and
    merged mappings may stand for more than memory holds, and PyYAML builds nested values by a recursion that ends the
    process where there are too many.

    Raises:
        ValueError: if it is no YAML, or no mapping, or nested more deeply than any configuration.

    Example:
        >>> configuration("name: 2d_rdb\\nsim:\\n  gravity: 1.0\\nplot:\\n  dim: 2\\n", "sim", what="0000")
        {'gravity': '1.0'}
    """
    import yaml

    if section:
        block = re.search(rf"^{section}:[^\n]*\n((?:[ \t]+[^\n]*\n?|[ \t]*\n)*)", str(text), flags=re.MULTILINE)
        text = block[1] if block else ""
    entries: list[str] = []
    depth = 0
    try:
        for event in yaml.parse(str(text), getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if not isinstance(event, yaml.NodeEvent):
                continue
            value = event.value if isinstance(event, yaml.ScalarEvent) else _NESTED
            if depth == 0 and value not in _NOTHING and not isinstance(event, yaml.MappingStartEvent):
                got = str(text)[:80]
                raise ValueError(f"Expected names and values in the configuration of {what} but got {got!r}.")
            if depth == 1:
                entries.append(value)
            depth += isinstance(event, yaml.CollectionStartEvent)
            if depth > _DEEPEST:
                raise ValueError(
                    f"Expected at most {_DEEPEST} levels in the configuration of {what} but there are more."
                )
    except yaml.YAMLError as error:
        raise ValueError(f"Expected YAML in the configuration of {what} but it cannot be parsed ({error}).") from error
    return dict(zip(entries[::2], entries[1::2], strict=True))


def number_of(values: Mapping[str, str], key: str, *, what: str) -> float | None:
    """One of them as a number; ``None`` where it is not there.

    Raises:
        ValueError: if it is no finite number.

    Example:
        >>> number_of({"Du": "1E-3"}, "Du", what="0000")  # which YAML 1.1 takes for text
        0.001
    """
    text = values.get(key, "")
    if text in _NOTHING:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"Expected a number for {key!r} in the configuration of {what} but got {text[:80]!r}.")
    return number

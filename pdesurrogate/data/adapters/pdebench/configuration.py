"""The YAML text that PDEBench's generators leave in attributes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any


def configuration(text: Any, section: str = "", *, what: str) -> Mapping[str, Any]:
    """Values of a configuration, or those of one section of it; nothing else of the text is parsed.

    Raises:
        ValueError: if it is no YAML, or no mapping.

    Example:
        >>> configuration("name: 2d_rdb\\nsim:\\n  gravity: 1.0\\nplot:\\n  dim: 2\\n", "sim", what="0000")
        {'gravity': 1.0}
    """
    import yaml

    if section:
        block = re.search(rf"^{section}:[^\n]*\n((?:[ \t]+[^\n]*\n?|[ \t]*\n)*)", str(text), flags=re.MULTILINE)
        text = block[1] if block else ""
    try:
        values = yaml.load(str(text), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected YAML in the configuration of {what} but it cannot be parsed ({error}).") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"Expected names and values in the configuration of {what} but got {str(values)[:80]!r}.")
    return values


def number_of(values: Mapping[str, Any], key: str, *, what: str) -> float | None:
    """One of them as a number; ``None`` where it is not there.

    Raises:
        ValueError: if it is no finite number.

    Example:
        >>> number_of({"Du": "1E-3"}, "Du", what="0000")  # which YAML 1.1 takes for text
        0.001
    """
    if values.get(key) is None:
        return None
    try:
        number = float(values[key])
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"Expected a number for {key!r} in the configuration of {what} but got {values[key]!r}.")
    return number

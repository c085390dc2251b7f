"""What attributes of an array say of its numbers: scale, offset, missing values, units of time (CF conventions)."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("week", "weeks"), 604800.0),
}
_SINCE = re.compile(r"\s*(\w+)\s+since\s+\S", re.IGNORECASE)


class Packing(NamedTuple):
    """How stored numbers become values: ``scale * stored + offset``, unless they stand for nothing.

    Attributes:
        scale: ``scale_factor``; ``None`` where there is neither this nor an offset.
        offset: ``add_offset``.
        missing: stored numbers that stand for nothing.
        unsigned: whether signed integers are to be read as unsigned.
    """

    scale: float | None
    offset: float
    missing: tuple[float, ...]
    unsigned: bool

    @classmethod
    def of(
        cls, attributes: dict[str, Any], dtype: np.dtype[Any], integers: Literal["refuse", "convert"], what: str
    ) -> Packing:
        """Of an array with these attributes.

        Raises:
            ValueError: if integers or truth values have no scale and are not permitted, or an attribute is no number.
        """
        scale, offset = (_number(attributes, name, what) for name in ("scale_factor", "add_offset"))
        packed = scale is not None or offset is not None
        if dtype.kind != "f" and not packed and integers == "refuse":
            raise ValueError(
                f"Expected real numbers, or integers with scale_factor or add_offset, in {what} but got {dtype}. If "
                "they are values as they stand, say `integers: convert` in their channel."
            )
        missing = [
            value
            for name in ("_FillValue", "missing_value")
            for value in np.ravel(np.asarray(attributes.get(name, ()))).tolist()
            if isinstance(value, (int, float)) and value == value  # NaN is refused wherever it is
        ]
        unsigned = dtype.kind == "i" and str(attributes.get("_Unsigned", "")).lower() == "true"
        scale = (1.0 if scale is None else scale) if packed else None
        return cls(scale, offset or 0.0, tuple(missing), unsigned)

    def values(self, stored: Array) -> Array:
        """In float64 where they are scaled, else as stored; what is missing is NaN."""
        raw = stored.view(stored.dtype.str.replace("i", "u")) if self.unsigned else stored
        values = raw if self.scale is None else raw.astype(np.float64) * self.scale + self.offset
        if not self.missing:
            return values
        with np.errstate(over="ignore", invalid="ignore"):
            # As they are stored: a fill of 1e20 in double precision is another number in single.
            marks = np.asarray(self.missing).astype(stored.dtype)
        absent = np.isin(stored, marks)
        return np.where(absent, np.nan, values) if absent.any() else values


def seconds(units: str | None, what: str) -> tuple[float, str]:
    """Factor that makes times of these units seconds, and the units that they then have.

    Words for lengths of time, alone or with "since" a date, become seconds; others are left as they are.

    Raises:
        ValueError: for "since" with months or years, which have no fixed length, or with an unknown word.

    Example:
        >>> seconds("hours since 1900-01-01 00:00", what="time"), seconds("D/U", what="time")
        ((3600.0, 's'), (1.0, 'D/U'))
    """
    found = _SINCE.match(units or "")
    word = (found[1] if found else (units or "")).strip().lower()
    if word in _SECONDS:
        return _SECONDS[word], "s"
    if found:
        raise ValueError(
            f"Expected seconds, minutes, hours, days or weeks since a date in {what} but got {units!r}, which have no "
            "fixed length. Give time an interval in the mapping, and coordinate: none."
        )
    return 1.0, units or "1"


def _number(attributes: dict[str, Any], name: str, what: str) -> float | None:
    found = attributes.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not np.isfinite(found):
        raise ValueError(f"Expected a finite number as the attribute {name!r} of {what} but got {found!r}.")
    return float(found)

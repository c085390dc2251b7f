"""The mapping from names of files to fields: what may stand in it, checked word by word."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pdesurrogate.data.adapters.shards import SPLIT_WORDS, in_natural_order
from pdesurrogate.fields.grid import Location

Bounds = tuple[float, float]


@dataclass(frozen=True)
class AxisMapping:
    """A space axis: the files' dimension, and where its points are.

    Attributes:
        name: ours.
        dimension: the files'.
        coordinate: array of its points; by default the one with the name of the dimension, where there is one.
        start: first point of even ones, which take the place of those of an array; by default 0.
        spacing: between these; by default the period over their number.
        period: length after which fields repeat.
        bounds: where an axis that is not periodic ends.
        units: of lengths along it; by default those of the array.
    """

    name: str
    dimension: str
    coordinate: str | None = None
    start: float | None = None
    spacing: float | None = None
    period: float | None = None
    bounds: Bounds | None = None
    units: str | None = None

    @property
    def even(self) -> bool:
        """Whether the mapping alone says where the points are."""
        return self.coordinate == "none" or self.start is not None or self.spacing is not None


@dataclass(frozen=True)
class ChannelMapping:
    """A scalar field and where it is stored.

    Attributes:
        name: ours.
        variable: the files'.
        units: by default what the file says of the array.
        long_name: the same.
        location: on the grid.
        vector: whose component it is.
        index: places along dimensions that are neither time nor space: ``{component: 0}``.
        order: dimensions of the array where the file does not name them.
        integers: whether integers without a scale are numbers.
    """

    name: str
    variable: str
    units: str | None = None
    long_name: str | None = None
    location: Location = "node"
    vector: str = ""
    index: dict[str, int] = field(default_factory=dict)
    order: tuple[str, ...] | None = None
    integers: Literal["refuse", "convert"] = "refuse"


@dataclass(frozen=True)
class TimeMapping:
    """The dimension of time, and times: an array, or a first one and an interval.

    Attributes:
        dimension: the files'.
        coordinate: array of times; by default the one with the name of the dimension, where there is one.
        interval: between frames, where no array has the times; else it has to agree.
        start: of the first frame, in the same way; by default 0.
        units: of time; by default those of the array.
    """

    dimension: str
    coordinate: str | None = None
    interval: float | None = None
    start: float | None = None
    units: str | None = None


@dataclass(frozen=True)
class ParameterMapping:
    """A number that belongs to each trajectory: stated here, in an array or in a global attribute of the files."""

    name: str
    value: float | None = None
    variable: str | None = None
    attribute: str | None = None


@dataclass(frozen=True)
class SplitMapping:
    """Sizes of splits, in the order of the files.

    Attributes:
        by: what is counted: whole trajectories, or frames of each trajectory.
        train: by default what is left.
        val: after those.
        test: at the end.
        gap: frames left out between blocks of frames.
    """

    by: Literal["trajectory", "time"] = "trajectory"
    train: int | None = None
    val: int = 0
    test: int = 0
    gap: int = 0


@dataclass(frozen=True)
class FileMapping:
    """All of a mapping; see `MappedFiles` for an example.

    Attributes:
        name: of the data set.
        files: of each split; under the name ``""`` where `splits` divides them.
        axes: space, x first.
        time: see `TimeMapping`.
        channels: at least one.
        each_file: holds one or more trajectories, or some times of one, which goes on in the next file; such a file may
            hold a single time, and its arrays then need no dimension of time.
        trajectory: the dimension of trajectories, where a file has several.
        order: dimensions of arrays that name none.
        parameters: see `ParameterMapping`.
        splits: see `SplitMapping`.
        attributes: of the data set, kept as they are.
    """

    name: str
    files: dict[str, list[Path]]
    axes: tuple[AxisMapping, ...]
    time: TimeMapping
    channels: tuple[ChannelMapping, ...]
    each_file: Literal["trajectories", "times"] = "trajectories"
    trajectory: str | None = None
    order: tuple[str, ...] | None = None
    parameters: tuple[ParameterMapping, ...] = ()
    splits: SplitMapping = SplitMapping()
    attributes: dict[str, Any] = field(default_factory=dict)


def read_mapping(values: Mapping[str, Any], root: Path) -> FileMapping:
    """Check the plain values of a mapping and find its files below ``root``.

    Raises:
        ValueError: naming a word that is unknown (with those that are close), missing, or no value of its kind, and
            patterns that no file fits.
    """
    top = _Section(values, "the mapping", FileMapping)
    axes = top.section("axes", required=True)
    channels = values.get("channels")
    if not isinstance(channels, list) or not channels:
        raise ValueError(f"Expected a list of channels in the mapping but got {channels!r}.")
    sections = [_Section(each, f"channel {number}", ChannelMapping) for number, each in enumerate(channels)]
    time = _Section(top.section("time", required=True), "time", TimeMapping)
    if not axes:
        raise ValueError("Expected at least one axis under axes but got none.")
    files = _files(values.get("files"), root)
    splits = _Section(top.section("splits"), "splits", SplitMapping)
    if splits.values and "" not in files:
        raise ValueError(
            "Expected splits for one set of files but files has some of each split; leave one of them out."
        )
    return FileMapping(
        name=top.text("name", required=True),
        files=files,
        axes=tuple(_axis(name, given) for name, given in axes.items()),
        time=TimeMapping(
            dimension=time.text("dimension", required=True),
            coordinate=time.optional_text("coordinate"),
            interval=time.number("interval"),
            start=time.number("start"),
            units=time.optional_text("units"),
        ),
        channels=tuple(_channel(section) for section in sections),
        each_file=top.choice("each_file", ("trajectories", "times"), "trajectories"),
        trajectory=top.optional_text("trajectory"),
        order=top.names("order"),
        parameters=tuple(_parameter(name, given) for name, given in top.section("parameters").items()),
        splits=SplitMapping(
            by=splits.choice("by", ("trajectory", "time"), "trajectory"),
            train=splits.count("train"),
            val=splits.count("val") or 0,
            test=splits.count("test") or 0,
            gap=splits.count("gap") or 0,
        ),
        attributes=dict(top.section("attributes")),
    )


def unknown_name(what: str, name: Any, known: Collection[str]) -> str:
    """A message that names those that are close, or some of those that there are.

    Example:
        >>> unknown_name("variable", "velocty", ["velocity", "p"])
        "Expected a variable that is there but got 'velocty'. Did you mean velocity?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)
    listed = sorted(known)[:12]
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(listed) or 'none'}{more}."
    return f"Expected a {what} that is there but got {name!r}. {hint}"


def _axis(name: str, given: Any) -> AxisMapping:
    section = _Section(given, f"axis {name!r}", AxisMapping, apart=("name",))
    even = {"start", "spacing"} & section.values.keys()
    if even and section.optional_text("coordinate") not in (None, "none"):
        raise ValueError(f"Expected coordinate, or start and spacing, in {section.where} but got both; leave one out.")
    bounds = section.values.get("bounds")
    ends = [_number(each) for each in bounds] if isinstance(bounds, list) else []
    if bounds is not None and (len(ends) != 2 or None in ends):
        raise ValueError(f"Expected bounds [low, high] of {section.where} but got {bounds!r}.")
    return AxisMapping(
        name=str(name),
        dimension=section.text("dimension", required=True),
        coordinate=section.optional_text("coordinate"),
        start=section.number("start"),
        spacing=section.number("spacing"),
        period=section.number("period"),
        bounds=None if bounds is None else (ends[0] or 0.0, ends[1] or 0.0),
        units=section.optional_text("units"),
    )


def _channel(section: _Section) -> ChannelMapping:
    index = section.section("index")
    for dimension, place in index.items():
        if isinstance(place, bool) or not isinstance(place, int) or place < 0:
            raise ValueError(f"Expected a number from 0 on for {dimension!r} in {section.where} but got {place!r}.")
    return ChannelMapping(
        name=section.text("name", required=True),
        variable=section.text("variable", required=True),
        units=section.optional_text("units"),
        long_name=section.optional_text("long_name"),
        location=section.choice("location", get_args(Location), "node"),
        vector=section.optional_text("vector") or "",
        index={str(dimension): place for dimension, place in index.items()},
        order=section.names("order"),
        integers=section.choice("integers", ("refuse", "convert"), "refuse"),
    )


def _parameter(name: str, given: Any) -> ParameterMapping:
    if not isinstance(given, Mapping):
        value = _number(given)
        if value is None:
            raise ValueError(
                f"Expected a number, {{variable: NAME}} or {{attribute: NAME}} for the parameter {name!r} but got "
                f"{given!r}."
            )
        return ParameterMapping(str(name), value=value)
    section = _Section(given, f"parameter {name!r}", ParameterMapping, apart=("name", "value"))
    variable, attribute = section.optional_text("variable"), section.optional_text("attribute")
    if (variable is None) == (attribute is None):
        raise ValueError(f"Expected either a variable or an attribute for {section.where} but got {dict(given)}.")
    return ParameterMapping(str(name), variable=variable, attribute=attribute)


def _files(given: Any, root: Path) -> dict[str, list[Path]]:
    if not isinstance(given, dict):
        return {"": _found(given, root)}
    known = ("train", "val", "test")
    splits: dict[str, list[Path]] = {}
    owners: dict[Path, str] = {}
    for word, patterns in given.items():
        split = SPLIT_WORDS.get(str(word))
        if split is None or split in splits:
            raise ValueError(unknown_name("split", word, known) + " Each once, under files.")
        splits[split] = _found(patterns, root)
        for path in splits[split]:
            if path.resolve() in owners:
                raise ValueError(
                    f"Expected each file in one split but {path} is in {owners[path.resolve()]} and {split}."
                )
            owners[path.resolve()] = split
    if not splits:
        raise ValueError("Expected files, a pattern of names or {train: ..., val: ..., test: ...}, but got none.")
    return {split: splits[split] for split in known if split in splits}


def _found(patterns: Any, root: Path) -> list[Path]:
    """Files of one or more patterns, in natural order within each."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list) or not listed or not all(isinstance(each, str) and each for each in listed):
        raise ValueError(f"Expected names or patterns of files but got {patterns!r}.")
    files: list[Path] = []
    for pattern in listed:
        path = root / pattern
        fitting = [path] if path.exists() else _matching(pattern, root)
        if not fitting:
            raise ValueError(f"Expected files like {pattern!r} in {root} but found none.")
        files += [each for each in fitting if each not in files]
    return files


def _matching(pattern: str, root: Path) -> list[Path]:
    base = Path(Path(pattern).anchor) if Path(pattern).is_absolute() else root
    return in_natural_order(base.glob(str(Path(pattern).relative_to(base) if base != root else pattern)))


def _number(value: Any) -> float | None:
    """A finite number, also where YAML takes it for text, as it does with 1e-3; else ``None``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class _Section:
    """One level of the mapping: known words only."""

    def __init__(self, values: Any, where: str, form: Any, apart: Sequence[str] = ()) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise ValueError(f"Expected words and values in {where} but got {values!r}.")
        known = [name for name in form.__dataclass_fields__ if name not in apart]
        for word in values:
            if word not in known:
                raise ValueError(f"{unknown_name('word', word, known)} It stands in {where}.")
        self.values = values

    def section(self, name: str, *, required: bool = False) -> Mapping[str, Any]:
        found = self.values.get(name)
        if found is None and not required:
            return {}
        if not isinstance(found, Mapping):
            raise ValueError(f"Expected words and values under {name!r} in {self.where} but got {found!r}.")
        return found

    def text(self, name: str, *, required: bool = False) -> str:
        found = self.optional_text(name)
        if found is None and required:
            raise ValueError(f"Expected {name!r} in {self.where} but it is missing.")
        return found or ""

    def optional_text(self, name: str) -> str | None:
        found = self.values.get(name)
        if found is not None and (not isinstance(found, (str, int)) or isinstance(found, bool) or found == ""):
            raise ValueError(f"Expected a name or text as {name!r} in {self.where} but got {found!r}.")
        return None if found is None else str(found)

    def number(self, name: str) -> float | None:
        found = self.values.get(name)
        number = _number(found)
        if found is not None and number is None:
            raise ValueError(f"Expected a number as {name!r} in {self.where} but got {found!r}.")
        return number

    def count(self, name: str) -> int | None:
        found = self.values.get(name)
        if found is not None and (isinstance(found, bool) or not isinstance(found, int) or found < 0):
            raise ValueError(f"Expected a number from 0 on as {name!r} in {self.where} but got {found!r}.")
        return found

    def names(self, name: str) -> tuple[str, ...] | None:
        found = self.values.get(name)
        if found is None:
            return None
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found) or not found:
            raise ValueError(f"Expected a list of names as {name!r} in {self.where} but got {found!r}.")
        if len(set(found)) < len(found):
            raise ValueError(f"Expected different names as {name!r} in {self.where} but got {found!r}.")
        return tuple(found)

    def choice(self, name: str, known: tuple[str, ...], default: str) -> Any:
        found = self.values.get(name, default)
        if found not in known:
            raise ValueError(f"{unknown_name(name, found, known)} It stands in {self.where}.")
        return found

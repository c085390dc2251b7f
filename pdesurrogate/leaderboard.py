"""Ranks reports: one table a data set, seeds of one model merged, what fails a check listed apart.

Every figure comes from a report. Two reports meet in a table only if they measured the same frames of the same data.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pdesurrogate.evaluation.checks import check_coverage, failed_checks, verify_checkpoint
from pdesurrogate.evaluation.provenance import file_sha256
from pdesurrogate.evaluation.report import ATTRIBUTES_FILE, Report

RANKED_BY = "relative_l2"


@dataclass(frozen=True)
class Source:
    """A report and where it was found; ``name`` is its folder relative to the folder that was searched."""

    name: str
    directory: Path
    report: Report


@dataclass(frozen=True)
class Value:
    """A mean over seeds and its sample standard deviation; ``spread`` is None for a single seed.

    ``mean`` is None where any seed has no finite value: a model that blew up once has no mean error. ``at_least`` marks
    a lower bound: a correlation time over trajectories of which some were still correlated at the end.
    """

    mean: float | None
    spread: float | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Entry:
    """One model and configuration in a table.

    Attributes:
        rank: from 1; None where the score that ranks is missing or not finite.
        sources: one report a seed.
        values: column key to value.
        notes: what could not be verified.
    """

    rank: int | None
    model: str
    kind: str
    sources: tuple[Source, ...]
    values: dict[str, Value]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Excluded:
    """A report that is not ranked, and why."""

    source: Source
    reason: str


@dataclass(frozen=True)
class Column:
    """A numeric column: its key in `Entry.values`, heading, meaning, and how ``digits`` of a number are written.

    ``higher_is_better`` is None where neither is.
    """

    key: str
    title: str
    description: str
    format: Callable[[float, int], str]
    higher_is_better: bool | None = None
    units: str = "1"


@dataclass(frozen=True)
class Table:
    """All models on the same frames of one split.

    Attributes:
        data: the ``data`` attributes that its reports share (name, split, shape, ...).
        ranked_by: score that ranks.
        columns: numeric ones, in order.
        entries: best first.
        excluded: sorted by name.
    """

    data: dict[str, Any]
    ranked_by: str
    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]
    excluded: tuple[Excluded, ...]

    @property
    def title(self) -> str:
        """Data set, split, shape and frames in words."""
        shape = "×".join(str(size) for size in self.data["shape"])
        frames = self.data["frames"]
        return (
            f"{self.data['name']}, {self.data['split']}: {shape}, "
            f"{frames} {'frame' if frames == 1 else 'frames'} from frame {self.data['start_frame']}"
        )

    @property
    def content(self) -> str:
        """The content hash in words, or that there is none."""
        stated = self.data["content_hash"]
        return f"content hash {stated}" if stated else "no content hash, so nothing proves that all rows saw the same"

    @property
    def ranking_column(self) -> Column:
        """The column of the score that ranks."""
        return next(column for column in self.columns if column.key == self.ranked_by)

    def is_best(self, entry: Entry, column: Column) -> bool:
        """Whether the entry has the best value of a column in which better is defined and not all are equal."""
        mean = entry.values[column.key].mean
        if column.higher_is_better is None or mean is None:
            return False
        means = [other.values[column.key].mean for other in self.entries]
        found = [value for value in means if value is not None]
        if min(found) == max(found):
            return False
        return mean == (max(found) if column.higher_is_better else min(found))


def find_reports(paths: Iterable[str | Path]) -> list[Source]:
    """Load every report in these folders and below, sorted by name; a folder met twice counts once.

    Raises:
        ValueError: if a path is not a folder, holds no report, or a report is broken.
    """
    sources: dict[Path, Source] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"Expected a folder with reports but got {path}; evaluate a model first.")
        found = sorted(file.parent for file in path.rglob(ATTRIBUTES_FILE))
        if not found:
            raise ValueError(f"Expected a {ATTRIBUTES_FILE} in {path} or below but found none; evaluate a model first.")
        for directory in found:
            name = (Path(path.resolve().name) / directory.relative_to(path)).as_posix()
            sources.setdefault(directory.resolve(), Source(name, directory, Report.load(directory)))
    return sorted(sources.values(), key=lambda source: source.name)


def build_tables(
    sources: Sequence[Source], *, ranked_by: str = RANKED_BY, checkpoint_root: str | Path | None = None
) -> tuple[Table, ...]:
    """Group reports by data, merge seeds, rank; tables and rows come in a fixed order.

    A report is listed apart, with the reason, if one of its own checks failed, it covers only part of its split, its
    checkpoint file is at hand with another hash, or it repeats a seed of the same model and configuration.

    Args:
        sources: from `find_reports`.
        ranked_by: name of the score that ranks.
        checkpoint_root: where checkpoint files may lie too, besides the folder of the report.

    Raises:
        ValueError: if no report of a table has the score that ranks.
    """
    groups: dict[str, list[Source]] = {}
    for source in sources:
        groups.setdefault(_data_key(source.report.attributes["data"]), []).append(source)
    root = None if checkpoint_root is None else Path(checkpoint_root)
    return tuple(_build_table(groups[key], ranked_by, root) for key in sorted(groups))


def _data_key(data: dict[str, Any]) -> str:
    keys = ("name", "split", "shape", "start_frame", "frames", "content_hash")
    return json.dumps([data[key] for key in keys])


def _build_table(sources: Sequence[Source], ranked_by: str, checkpoint_root: Path | None) -> Table:
    scores = _scores_of(sources)
    if ranked_by not in scores:
        raise ValueError(f"Expected a score among {sorted(scores)} to rank by but got {ranked_by!r}.")
    excluded: list[Excluded] = []
    models: dict[str, dict[int | None, Source]] = {}
    notes: dict[str, list[str]] = {}
    for source in sources:
        reasons = _reasons_against(source.report)
        checkpoint = source.report.attributes["model"]["checkpoint"]
        file = None if checkpoint is None else _find_checkpoint(source, checkpoint_root)
        if file is not None and not (check := verify_checkpoint(source.report, file)).passed:
            reasons.append(f"{check.name}: {check.reason}")
        key, seed = source.report.identity, _seed(source.report)
        twin = models.get(key, {}).get(seed)
        if not reasons and twin is not None:
            reasons = [f"repeats {twin.name}: same model, configuration and seed"]
        if reasons:
            excluded.append(Excluded(source, "; ".join(reasons)))
            continue
        models.setdefault(key, {})[seed] = source
        if checkpoint is not None and file is None:
            name = Path(checkpoint["file"]).name
            notes.setdefault(key, []).append(f"{source.name}: {name} is not here, its hash was not verified")
    columns = _columns(scores, ranked_by)
    entries = [_entry(tuple(seeds.values()), columns, tuple(notes.get(key, ()))) for key, seeds in models.items()]
    sign = -1.0 if scores[ranked_by]["higher_is_better"] else 1.0

    def order(entry: Entry) -> tuple[bool, float, str, str]:
        mean = entry.values[ranked_by].mean
        return mean is None, 0.0 if mean is None else sign * mean, entry.model, entry.sources[0].name

    ranked = [
        replace(entry, rank=None if entry.values[ranked_by].mean is None else place)
        for place, entry in enumerate(sorted(entries, key=order), start=1)
    ]
    return Table(dict(sources[0].report.attributes["data"]), ranked_by, columns, tuple(ranked), tuple(excluded))


def _scores_of(sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """Every score that any report has, with its units and direction."""
    scores: dict[str, dict[str, Any]] = {}
    for source in sources:
        for name, score in source.report.attributes["scores"].items():
            scores.setdefault(name, score)
    return scores


def _seed(report: Report) -> int | None:
    training = report.attributes["model"]["training"]
    seed = report.attributes["run"]["seed"] if training is None else training["seed"]
    return None if seed is None else int(seed)


def _reasons_against(report: Report) -> list[str]:
    data = report.attributes["data"]
    coverage = check_coverage(data["trajectories"], data["trajectories_declared"])
    reasons = failed_checks(report)
    own = f"{coverage.name}: {coverage.reason}"
    return reasons if coverage.passed or own in reasons else [*reasons, own]


def _find_checkpoint(source: Source, root: Path | None) -> Path | None:
    """The checkpoint at hand: the file that the report names, beside it, or one of that name and hash below ``root``.

    Below ``root`` files of one name may belong to several problems, so another hash there means another file.
    """
    record = source.report.attributes["model"]["checkpoint"]
    own = source.directory / record["file"]
    if own.is_file():
        return own
    others = [] if root is None else sorted(root.rglob(Path(record["file"]).name))
    return next((other for other in others if file_sha256(other) == record["sha256"]), None)


def _columns(scores: dict[str, dict[str, Any]], ranked_by: str) -> tuple[Column, ...]:
    def score(key: str, title: str) -> list[Column]:
        if key not in scores:
            return []
        found = scores[key]
        units, better = str(found["units"]), bool(found["higher_is_better"])
        return [Column(key, title, str(found["description"]), _digits, better, units)]

    columns = [
        Column("parameters", "parameters", "trained real numbers; 0 for solvers", _count),
        Column("seeds", "seeds", "how many seeds the mean and the ± are over", _count),
        *score("relative_l2", "relative L2"),
        *score("relative_l2_first", "at first lead"),
        *score("relative_l2_last", "at last lead"),
        *score("correlation_time", "correlation time"),
        *score("log_spectral_distance", "log-spectral distance"),
        *score("energy_drift", "energy drift"),
        *score("finite_fraction", "finite"),
        Column("seconds_per_frame", "time per frame", "of a trajectory, at the report's batch size", _duration),
        Column("training_time", "training time", "wall time on the report's device", _duration),
    ]
    if all(column.key != ranked_by for column in columns):
        columns[2:2] = score(ranked_by, ranked_by.replace("_", " "))
    return tuple(columns)


def _entry(sources: tuple[Source, ...], columns: Sequence[Column], notes: tuple[str, ...]) -> Entry:
    reports = [source.report.attributes for source in sources]
    values = {
        column.key: _merge([_measured(report, column.key) for report in reports])
        for column in columns
        if column.key != "seeds"
    }
    values["seeds"] = Value(float(len(sources)))
    if "correlation_time" in values:
        censored = (report["scores"].get("correlation_time_censored", {}).get("value") for report in reports)
        values["correlation_time"] = replace(values["correlation_time"], at_least=any(censored))
    # The same for all seeds; a spread of zero says nothing.
    values["parameters"] = Value(values["parameters"].mean)
    model = reports[0]["model"]
    return Entry(None, model["name"], model["kind"], sources, values, notes)


def _measured(report: dict[str, Any], key: str) -> float | None:
    found: float | None
    if key == "parameters":
        found = report["model"]["parameters"]
    elif key == "seconds_per_frame":
        found = report["run"]["seconds_per_frame"]
    elif key == "training_time":
        found = (report["model"]["training"] or {}).get("wall_time_s")
    else:
        found = report["scores"].get(key, {}).get("value")
    return found


def _merge(values: Sequence[float | None]) -> Value:
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    if len(finite) < len(values):
        return Value(None)
    return Value(statistics.fmean(finite), statistics.stdev(finite) if len(finite) > 1 else None)


def format_value(value: Value, column: Column) -> str:
    """``mean ± spread`` in the column's way of writing, or a dash where there is no value.

    Example:
        >>> column = Column("error", "error", "", _digits)
        >>> format_value(Value(0.12345, 0.00678), column), format_value(Value(None), column)
        ('0.123 ± 0.0068', '–')
    """
    text, spread = format_parts(value, column)
    return f"{text} ± {spread}" if spread else text


def format_parts(value: Value, column: Column) -> tuple[str, str]:
    """Mean and spread written apart; the spread is empty where there is none."""
    if value.mean is None:
        return "–", ""
    bound = "≥ " if value.at_least else ""
    return bound + column.format(value.mean, 3), column.format(value.spread, 2) if value.spread else ""


def _digits(value: float, digits: int) -> str:
    """``digits`` significant digits, trailing zeros kept so that a column reads evenly.

    Example:
        >>> _digits(0.35, 3), _digits(11.04, 3), _digits(240.0, 2), _digits(1.5e-7, 3), _digits(0.0, 3)
        ('0.350', '11.0', '240', '1.50e-7', '0')
    """
    if value == 0 or 10**digits <= abs(value) < 1e5:
        return f"{value:.0f}"
    mantissa, _, exponent = f"{value:#.{digits}g}".partition("e")
    mantissa = mantissa.removesuffix(".")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _count(value: float, digits: int) -> str:
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return _digits(value / size, digits) + suffix
    return f"{value:.0f}"


def _duration(seconds: float, digits: int) -> str:
    for size, unit, start in ((3600, "h", 7200), (60, "min", 120), (1, "s", 1), (1e-3, "ms", 1e-3), (1e-6, "µs", 0)):
        if seconds >= start:
            return f"{_digits(seconds / size, digits)} {unit}"
    raise AssertionError("durations are not negative")


def to_markdown(tables: Sequence[Table]) -> str:
    """All tables as GitHub-flavoured Markdown; the best value of each score is bold."""
    parts = ["# Leaderboard", "", *_EXPLANATION.splitlines(), ""]
    for table in tables:
        parts += [f"## {_escape(table.title)}", "", f"Data: {table.content}.", ""]
        if table.entries:
            headings = ["rank", "model", "kind", *(_heading(column) for column in table.columns)]
            parts += [_line(headings), _line(["---:", "---", "---", *["---:"] * len(table.columns)])]
            for entry in table.entries:
                cells = [_place(entry), _escape(entry.model), _escape(entry.kind)]
                for column in table.columns:
                    text = format_value(entry.values[column.key], column)
                    cells.append(f"**{text}**" if table.is_best(entry, column) else text)
                parts.append(_line(cells))
            parts.append("")
        if table.excluded:
            parts += ["Not ranked:", ""]
            for left_out in table.excluded:
                name, model = left_out.source.name, left_out.source.report.attributes["model"]["name"]
                parts.append(f"- {_escape(model)} (`{name}`): {_escape(left_out.reason)}")
            parts.append("")
    return "\n".join(parts)


_EXPLANATION = """\
Made from reports. Where a model has several seeds, figures are the mean ± the standard deviation over them.
Costs are as measured on each report's own device; compare them only between reports of one machine."""


def _heading(column: Column) -> str:
    return _escape(column.title if column.units in ("", "1") else f"{column.title} [{column.units}]")


def _place(entry: Entry) -> str:
    return "–" if entry.rank is None else str(entry.rank)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    """Plain text in a Markdown table: no cell border, line break, markup or HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|":
        text = text.replace(character, "\\" + character)
    return text


def to_csv(tables: Sequence[Table]) -> str:
    """All rows of all tables, one line each, figures in full precision; what is not ranked has a reason and no figure.

    The columns are those of the fields `Table.data`, `Entry` and the union of the tables' columns, every measured one
    followed by its ``_spread``; ``lower_bounds`` names those of which the figure is only a lower bound.
    """
    data_keys = ["name", "split", "shape", "start_frame", "frames", "content_hash"]
    keys = list(dict.fromkeys(column.key for table in tables for column in table.columns))
    value_keys = [name for key in keys for name in ((key,) if key in _EXACT else (key, f"{key}_spread"))]
    header = [
        "data",
        *data_keys[1:],
        "status",
        "rank",
        "model",
        "kind",
        *value_keys,
        "lower_bounds",
        "reports",
        "reason",
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        data = {"data": table.data["name"], **{key: table.data[key] for key in data_keys[1:]}}
        data["shape"] = "x".join(str(size) for size in table.data["shape"])
        for entry in table.entries:
            row = {**data, "status": "ranked", "model": entry.model, "kind": entry.kind}
            row["rank"] = "" if entry.rank is None else entry.rank
            for key, value in entry.values.items():
                if key in _EXACT:
                    row[key] = "" if value.mean is None else int(value.mean)
                else:
                    row[key] = "" if value.mean is None else repr(value.mean)
                    row[f"{key}_spread"] = "" if value.spread is None else repr(value.spread)
            row["lower_bounds"] = " ".join(key for key, value in entry.values.items() if value.at_least)
            row["reports"] = " ".join(source.name for source in entry.sources)
            writer.writerow(row)
        for left_out in table.excluded:
            model = left_out.source.report.attributes["model"]
            row = {**data, "status": "excluded", "model": model["name"], "kind": model["kind"]}
            writer.writerow({**row, "reports": left_out.source.name, "reason": left_out.reason})
    return text.getvalue()


_EXACT = ("parameters", "seeds")

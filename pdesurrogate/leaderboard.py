"""Ranks reports: one table a data set, seeds of one model merged, what fails a check listed apart.

Every figure comes from a report. Two reports meet in a table only if they measured the same frames of the same data.
Times of two rows are never divided by each other: a speed-up is what a report states, at equal error.
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
from typing import Any, TypeAlias

from pdesurrogate.evaluation.checks import check_coverage, failed_checks, verify_checkpoint
from pdesurrogate.evaluation.cost import Performance, SolverPoint, SolverSweep
from pdesurrogate.evaluation.provenance import file_sha256
from pdesurrogate.evaluation.report import ATTRIBUTES_FILE, Report

RANKED_BY = "relative_l2"

# Low and high end of an interval; None for an end that is not known.
Interval: TypeAlias = tuple[float | None, float | None]
Attributes: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A report and where it was found; ``name`` is its folder relative to the folder that was searched."""

    name: str
    directory: Path
    report: Report


@dataclass(frozen=True)
class Value:
    """A mean over seeds and its sample standard deviation, or a bound.

    Attributes:
        mean: None where any seed has no finite value: a model that blew up once has no mean error. Infinite where a
            model is never paid back, whatever the seed.
        spread: None for a single seed and for bounds of a cost.
        at_least: whether ``mean`` is a lower bound: a correlation time over trajectories of which some were still
            correlated at the end; the least of several break-evens of which some are bounds.
        at_most: whether ``mean`` is an upper bound: the greatest of several speed-ups of which some are bounds.
        interval: of a single seed, over its trajectories.
        reason: of a single seed, why its value is what it is; empty where that needs no words.
    """

    mean: float | None
    spread: float | None = None
    at_least: bool = False
    at_most: bool = False
    interval: Interval | None = None
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """One model and configuration in a table.

    Attributes:
        rank: from 1; None where the score that ranks is missing or not finite.
        sources: one report a seed.
        values: those of the table's columns by key, and all other scores by name.
        notes: what could not be verified, and why there is no speed-up or break-even.
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
    """A numeric column.

    Attributes:
        key: in `Entry.values`.
        title: heading.
        description: meaning.
        format: how ``digits`` of a number are written.
        higher_is_better: None where neither is.
        units: of the numbers, where ``format`` does not write them.
        read: takes the value of one seed out of its report's attributes; by default it is the score of that key.
    """

    key: str
    title: str
    description: str
    format: Callable[[float, int], str]
    higher_is_better: bool | None = None
    units: str = "1"
    read: Callable[[Attributes], Value] | None = None

    def measured(self, report: Report) -> Value:
        """The value of one seed."""
        return _score(report.attributes, self.key) if self.read is None else self.read(report.attributes)


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
        shape = " x ".join(str(size) for size in self.data["shape"])
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
        """Whether the entry has the best value of a column in which better is defined and not all are equal.

        A bound is never the best, and next to a bound that may hide something better nothing is.
        """
        value, better = entry.values[column.key], column.higher_is_better
        if better is None or value.mean is None or value.at_least or value.at_most:
            return False
        others = [other.values[column.key] for other in self.entries]
        sign = 1.0 if better else -1.0
        own, found = sign * value.mean, [(other, sign * other.mean) for other in others if other.mean is not None]
        if all(rank == own for _, rank in found):
            return False
        return not any(rank > own or (other.at_least if better else other.at_most) for other, rank in found)

    @property
    def reference(self) -> Reference | None:
        """The first sweep over a solver's settings that a ranked report has."""
        for source in (source for entry in self.entries for source in entry.sources):
            sweep = sweep_of(source.report)
            if sweep is not None:
                return Reference(source, sweep)
        return None


@dataclass(frozen=True)
class Reference:
    """A solver that models are compared with, at many settings, and the report that measured it."""

    source: Source
    sweep: SolverSweep

    def beside(self, entry: Entry) -> bool:
        """Whether all seeds were timed together with such a sweep, under the conditions of this one."""
        conditions = _conditions(self.source.report.attributes)
        return all(
            (source.report.attributes["cost"] or {}).get("sweep") is not None
            and _conditions(source.report.attributes) == conditions
            for source in entry.sources
        )


def sweep_of(report: Report) -> SolverSweep | None:
    """The solver's settings that a report states, each with its mean error over trajectories; None if it has none."""
    sweep = (report.attributes["cost"] or {}).get("sweep")
    if sweep is None:
        return None
    points = tuple(
        SolverPoint(
            point["resolution"],
            point["steps_per_frame"],
            point["time_step"],
            point["precision"],
            Performance(
                (math.nan if point["relative_l2"] is None else point["relative_l2"],), point["seconds_per_frame"]
            ),
            point["makes_data"],
        )
        for point in sweep["points"]
    )
    skipped = tuple((setting["resolution"], setting["reason"]) for setting in sweep["skipped"])
    return SolverSweep(points, skipped, sweep["method"])


def _conditions(report: Attributes) -> tuple[Any, ...]:
    """What times must share to be compared."""
    return tuple(report["run"][key] for key in ("device", "threads", "batch_size"))


def _alike(sources: Sequence[Source]) -> bool:
    """Whether all surrogates were measured under the same conditions."""
    reports = (source.report.attributes for source in sources)
    return len({_conditions(report) for report in reports if report["model"]["kind"] == "surrogate"}) < 2


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
    columns = _columns(scores, ranked_by, _alike([source for seeds in models.values() for source in seeds.values()]))
    further = sorted(scores.keys() - {column.key for column in columns})
    measures = (*columns, *(_score_column(scores, key, key) for key in further))
    entries = [_entry(tuple(seeds.values()), measures, tuple(notes.get(key, ()))) for key, seeds in models.items()]
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


def _columns(scores: dict[str, dict[str, Any]], ranked_by: str, alike: bool) -> tuple[Column, ...]:
    """Columns of the table; ``alike`` says whether the costs of all rows were measured under the same conditions."""

    def score(key: str, title: str) -> list[Column]:
        return [_score_column(scores, key, title)] if key in scores else []

    columns = [
        Column("parameters", "parameters", "trained real numbers; 0 for solvers", _count, read=_parameters),
        Column("seeds", "seeds", "how many seeds the mean and the ± are over", _count, read=lambda _: Value(1.0)),
        *score("relative_l2", "relative L2"),
        *score("one_step_relative_l2", "one step, all windows"),
        *score("relative_l2_first", "at first lead"),
        *score("relative_l2_last", "at last lead"),
        *score("correlation_time", "correlation time"),
        *score("log_spectral_distance", "log-spectral distance"),
        *score("friction_reynolds_number_deviation", "Re_tau, off by"),
        *score("mean_velocity_profile_l1", "mean profile"),
        *score("rms_velocity_profile_l1", "rms profiles"),
        *score("free_run_frames", "free run lasts"),
        *score("free_run_friction_reynolds_number_deviation", "Re_tau, free run off by"),
        *score("free_run_spectra_in_band", "spectra, free run in band"),
        *score("energy_drift", "energy drift"),
        *score("finite_fraction", "finite"),
        Column(
            "speed_up_at_equal_error",
            "speed-up at equal error",
            "how many times faster than the solver that made the data, coarsened in space and time until it errs as "
            "much on the same trajectories; ≤ marks an upper bound",
            _factor,
            True if alike else None,
            read=_speed_up,
        ),
        Column(
            "break_even_rollouts",
            "break-even rollouts",
            "how many rollouts, each of one trajectory over all frames, pay training and data back by what they save "
            "against the solver of equal error; never where that solver is faster, ≥ marks a lower bound",
            _rollouts,
            False if alike else None,
            read=_break_even,
        ),
        Column(
            "seconds_per_frame",
            "time per frame at own error",
            "for one trajectory, at the report's batch size and at the model's own error: two of these times make no "
            "speed-up, for their errors differ",
            _duration,
            read=_seconds_per_frame,
        ),
        Column(
            "peak_memory_bytes",
            "memory of a step",
            "most that the tensors made by one step take at one time, at the report's batch size, without inputs and "
            "parameters",
            _memory,
            read=_peak_memory,
        ),
        Column("training_time", "training time", "wall time on the report's device", _duration, read=_training_time),
    ]
    if all(column.key != ranked_by for column in columns):
        columns[2:2] = score(ranked_by, ranked_by.replace("_", " "))
    return tuple(columns)


def _score_column(scores: dict[str, dict[str, Any]], key: str, title: str) -> Column:
    found = scores[key]
    return Column(
        key, title, str(found["description"]), _digits, bool(found["higher_is_better"]), units=str(found["units"])
    )


def _entry(sources: tuple[Source, ...], measures: Sequence[Column], notes: tuple[str, ...]) -> Entry:
    seeds = {column.key: [column.measured(source.report) for source in sources] for column in measures}
    values = {key: _merge(found) for key, found in seeds.items()}
    for key in seeds:
        if any(seed.mean for seed in seeds.get(f"{key}_censored", [])):
            values[key] = replace(values[key], at_least=True)
    # The same for all seeds; a spread of zero says nothing.
    values["parameters"] = Value(values["parameters"].mean)
    values["seeds"] = Value(float(len(sources)))
    model = sources[0].report.attributes["model"]
    if model["kind"] == "surrogate":
        notes = (*notes, *_missing_cost(sources, values, seeds))
    return Entry(None, model["name"], model["kind"], sources, values, notes)


def _missing_cost(
    sources: Sequence[Source], values: dict[str, Value], seeds: dict[str, list[Value]]
) -> tuple[str, ...]:
    """Why there is no speed-up or else no break-even, once for all seeds of which the same is true."""
    for key, title in (("speed_up_at_equal_error", ""), ("break_even_rollouts", "break-even: ")):
        if values[key].mean is None:
            reasons = [seed.reason for seed in seeds[key]]
            if len(set(reasons)) == 1:
                return (title + reasons[0],)
            return tuple(f"{source.name}: {title}{why}" for source, why in zip(sources, reasons, strict=True))
    return ()


def _score(report: Attributes, key: str) -> Value:
    found = report["scores"].get(key, {"value": None, "interval": None})
    finite = found["value"] is not None and math.isfinite(found["value"])
    return Value(found["value"] if finite else None, interval=_interval(found))


def _interval(found: Attributes) -> Interval | None:
    if found["interval"] is None:
        return None
    low, high = found["interval"]
    return low, high


def _parameters(report: Attributes) -> Value:
    return Value(report["model"]["parameters"])


def _training_time(report: Attributes) -> Value:
    return Value((report["model"]["training"] or {}).get("wall_time_s"))


def _seconds_per_frame(report: Attributes) -> Value:
    """The shortest of several evaluations where the model was timed beside a solver."""
    return Value((report["cost"] or report["run"])["seconds_per_frame"])


def _peak_memory(report: Attributes) -> Value:
    return Value((report["cost"] or {}).get("peak_memory_bytes"))


def _speed_up(report: Attributes) -> Value:
    missing = _not_compared(report)
    if missing is not None:
        return missing
    found = report["cost"]["speed_up"]
    return Value(found["value"], at_most=found["at_most"], interval=_interval(found), reason=str(found["reason"]))


def _break_even(report: Attributes) -> Value:
    missing = _not_compared(report)
    if missing is not None:
        return missing
    found, speed_up = (report["cost"][key] for key in ("break_even", "speed_up"))
    never = found["rollouts"] is None and speed_up["value"] is not None and speed_up["value"] <= 1
    return Value(
        math.inf if never else found["rollouts"],
        at_least=found["at_least"],
        interval=_interval(found),
        reason=str(found["reason"]),
    )


def _not_compared(report: Attributes) -> Value | None:
    """No value, where the row is no surrogate or nothing was measured."""
    reason = {
        "solver": "The solver is what surrogates are compared with.",
        "baseline": "Only surrogates are compared with the solver.",
    }.get(report["model"]["kind"])
    if reason is None and report["cost"] is None:
        reason = "Cost was not measured."
    return None if reason is None else Value(None, reason=reason)


def _merge(seeds: Sequence[Value]) -> Value:
    """Mean and deviation over seeds; of bounds the one that holds for all of them."""
    if len(seeds) == 1:
        return seeds[0]
    means = [float(seed.mean) for seed in seeds if seed.mean is not None]
    never = [mean == math.inf for mean in means]
    if len(means) < len(seeds) or any(never):
        return Value(math.inf if len(means) == len(seeds) and all(never) else None)
    if any(seed.at_most for seed in seeds):
        return Value(max(means), at_most=True)
    if any(seed.at_least for seed in seeds):
        return Value(min(means), at_least=True)
    return Value(statistics.fmean(means), statistics.stdev(means))


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
    """Mean and spread written apart; the spread is empty where there is none.

    Example:
        >>> column = Column("speed_up", "speed-up", "", _factor)
        >>> format_parts(Value(0.0613, 0.004), column), format_parts(Value(6.6, at_most=True), column)
        (('0.061×', '0.0040×'), ('≤ 6.6×', ''))
        >>> format_parts(Value(math.inf), column)
        ('never', '')
    """
    if value.mean is None:
        return "–", ""
    if value.mean == math.inf:
        return "never", ""
    bound = "≥ " if value.at_least else "≤ " if value.at_most else ""
    return bound + column.format(value.mean, 3), column.format(value.spread, 2) if value.spread else ""


def format_interval(interval: Interval, column: Column) -> str:
    """Both ends in the column's way of writing.

    Example:
        >>> column = Column("error", "error", "", _digits)
        >>> format_interval((0.1, 0.25), column), format_interval((None, 0.25), column)
        ('0.100 to 0.250', 'up to 0.250, low end not known')
    """
    low, high = (None if end is None else column.format(end, 3) for end in interval)
    if low is None:
        return "not known" if high is None else f"up to {high}, low end not known"
    return f"{low} to {high}" if high is not None else f"from {low}, high end not known"


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


def _factor(value: float, digits: int) -> str:
    """Two digits: times are not known better."""
    return f"{_digits(value, min(digits, 2))}×"


def _rollouts(value: float, digits: int) -> str:
    return _count(value, min(digits, 2))


def _memory(size: float, digits: int) -> str:
    """Decimal units.

    Example:
        >>> _memory(29_392_324, 3), _memory(512, 3), _memory(2.5e9, 3)
        ('29 MB', '512 B', '2.5 GB')
    """
    for unit, suffix in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{_digits(size / unit, min(digits, 2))} {suffix}"
    return f"{size:.0f} B"


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
        noted = [(entry, note) for entry in table.entries for note in entry.notes]
        if noted:
            parts += ["Notes:", "", *(f"- {_escape(entry.model)}: {_escape(note)}" for entry, note in noted), ""]
        if table.excluded:
            parts += ["Not ranked:", ""]
            for left_out in table.excluded:
                name, model = left_out.source.name, left_out.source.report.attributes["model"]["name"]
                parts.append(f"- {_escape(model)} (`{name}`): {_escape(left_out.reason)}")
            parts.append("")
    return "\n".join(parts)


_EXPLANATION = """\
Made from reports. Where a model has several seeds, figures are the mean ± the standard deviation over them.
The speed-up at equal error is over the solver that made the data, coarsened in space and time until it errs as much on
the same trajectories; ≤ marks an upper bound. Break-even rollouts are how many pay training and data back by what they
save against that solver. A time per frame is at the model's own error: two of these times make no speed-up.
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

    The columns are those of the fields `Table.data`, `Entry`, the union of the tables' columns and all scores that any
    report has, every measured one followed by its ``_spread``. ``lower_bounds`` and ``upper_bounds`` name those whose
    figure is only a bound. A break-even that never comes is ``inf``.
    """
    data_keys = ["name", "split", "shape", "start_frame", "frames", "content_hash"]
    shown = dict.fromkeys(column.key for table in tables for column in table.columns)
    further = sorted({key for table in tables for entry in table.entries for key in entry.values} - shown.keys())
    keys = [*shown, *further]
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
        "upper_bounds",
        "reports",
        "notes",
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
            row["upper_bounds"] = " ".join(key for key, value in entry.values.items() if value.at_most)
            row["notes"] = "; ".join(entry.notes)
            row["reports"] = " ".join(source.name for source in entry.sources)
            writer.writerow(row)
        for left_out in table.excluded:
            model = left_out.source.report.attributes["model"]
            row = {**data, "status": "excluded", "model": model["name"], "kind": model["kind"]}
            writer.writerow({**row, "reports": left_out.source.name, "reason": left_out.reason})
    return text.getvalue()


_EXACT = ("parameters", "seeds")

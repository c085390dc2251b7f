"""``pdesurrogate leaderboard``: tables and a page from reports."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdesurrogate.evaluation.cost import SolverPoint
    from pdesurrogate.evaluation.report import Report
    from pdesurrogate.leaderboard import Column, Entry, Reference, Table, Value
    from pdesurrogate.viz.page import Chart, Dot, Front, Provenance, Row, Scatter, Section, Setting


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    parser = argparse.ArgumentParser(
        prog="pdesurrogate leaderboard", description="Rank evaluated models by their reports."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    page = actions.add_parser("page", help="write leaderboard.html, leaderboard.md and leaderboard.csv")
    page.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the three files")
    page.add_argument("--title", default="Leaderboard", help="heading of the page (default: %(default)s)")
    table = actions.add_parser("table", help="print the tables as Markdown")
    for action in (page, table):
        action.add_argument(
            "reports", nargs="+", type=Path, metavar="REPORT_DIR", help="folders with reports, searched through"
        )
        action.add_argument(
            "--rank-by", default="relative_l2", metavar="SCORE", help="score that ranks (default: %(default)s)"
        )
        action.add_argument(
            "--checkpoints", type=Path, metavar="DIR", help="where checkpoint files lie, to verify their hashes"
        )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the verb; 0 if all went well, 2 if the reports are missing or broken."""
    arguments = build_parser().parse_args(argv)
    from pdesurrogate.leaderboard import build_tables, find_reports, to_csv, to_markdown

    try:
        sources = find_reports(arguments.reports)
        tables = build_tables(sources, ranked_by=arguments.rank_by, checkpoint_root=arguments.checkpoints)
        if arguments.action == "table":
            print(to_markdown(tables))
            return 0
        files = {
            "leaderboard.md": to_markdown(tables),
            "leaderboard.csv": to_csv(tables),
            "leaderboard.html": to_page(arguments.title, tables),
        }
        _write_all(arguments.out, files)
    except (ValueError, OSError) as error:
        print(f"pdesurrogate leaderboard: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for name in files:
        print(arguments.out / name)
    return 0


def _write_all(folder: Path, files: dict[str, str]) -> None:
    """Write all files under temporary names, then rename: a failure leaves the old ones whole."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.part" for name in files}
    try:
        for name, text in files.items():
            temporary[name].write_text(text, encoding="utf-8", newline="\n")
        for name, file in temporary.items():
            os.replace(file, folder / name)
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)


def to_page(title: str, tables: Sequence[Table]) -> str:
    """The HTML page of ranked tables."""
    from pdesurrogate.viz.page import render_page

    introduction = (
        "Made from evaluation reports. Where a model has several seeds, figures are the mean ± the standard deviation "
        "over them; the best of each score stands out. A speed-up is stated at equal error alone: over the solver that "
        "made the data, coarsened in space and time until it errs as much as the model. Click a heading to sort, a "
        "model to see where its figures come from; point at a figure for its interval or its reason."
    )
    return render_page(title, introduction, [_section(table) for table in tables])


def _section(table: Table) -> Section:
    from pdesurrogate.viz.page import Heading, Section

    data = table.data
    facts = (
        ("channels", ", ".join(data["channels"])),
        ("trajectories", str(data["trajectories_declared"])),
        ("frame interval", f"{data['frame_interval']:g}"),
        ("ranked by", table.ranking_column.title),
        ("data", table.content),
    )
    headings = (
        Heading("rank"),
        Heading("model", numeric=False),
        Heading("kind", numeric=False),
        *(Heading(c.title, "" if c.units in ("", "1") else c.units, c.description) for c in table.columns),
    )
    return Section(
        title=table.title,
        facts=facts,
        headings=headings,
        rows=tuple(_row(table, entry) for entry in table.entries),
        lines=_error_chart(table),
        scatter=_cost_chart(table),
        excluded=tuple(
            (f"{left_out.source.report.attributes['model']['name']} ({left_out.source.name})", left_out.reason)
            for left_out in table.excluded
        ),
    )


def _row(table: Table, entry: Entry) -> Row:
    from pdesurrogate.leaderboard import format_parts
    from pdesurrogate.viz.page import Cell, Row

    def cell(column: Column) -> Cell:
        value, seeds = entry.values[column.key], _seeds(entry, column)
        text, spread = format_parts(value, column)
        words = "\n".join(_told_apart(entry, column, seeds))
        hint, reason = ("", words) if any(seed.reason for seed in seeds) else (words, "")
        return Cell(text, value.mean, spread, table.is_best(entry, column), hint, reason)

    explained = [column for column in table.columns if any(seed.reason for seed in _seeds(entry, column))]
    return Row(
        cells=(
            Cell(_mark(entry), entry.rank),
            Cell(entry.model, entry.model),
            Cell(entry.kind, entry.kind),
            *(cell(column) for column in table.columns),
        ),
        provenance=tuple(_provenance(source.name, source.report, explained) for source in entry.sources),
        notes=entry.notes,
    )


def _seeds(entry: Entry, column: Column) -> list[Value]:
    return [column.measured(source.report) for source in entry.sources]


def _words(value: Value, column: Column) -> str:
    """What is to be said of the value of one seed: its reason and its interval."""
    from pdesurrogate.leaderboard import format_interval

    interval = ""
    if value.interval is not None:
        interval = f"95 % interval over trajectories: {format_interval(value.interval, column)}."
    return f"{value.reason} {interval}".strip()


def _told_apart(entry: Entry, column: Column, seeds: Sequence[Value]) -> list[str]:
    """The words on each seed after its report and value, or once if they are the same for all."""
    from pdesurrogate.leaderboard import format_value

    words = [_words(seed, column) for seed in seeds]
    if len(set(words)) < 2:
        return words[:1]
    return [
        f"{source.name}: {format_value(seed, column)}. {text}"
        for source, seed, text in zip(entry.sources, seeds, words, strict=True)
    ]


def _mark(entry: Entry) -> str:
    return "–" if entry.rank is None else str(entry.rank)


def _provenance(name: str, report: Report, explained: Sequence[Column]) -> Provenance:
    import json

    from pdesurrogate.leaderboard import format_value
    from pdesurrogate.viz.page import Provenance

    model, data, run = (report.attributes[key] for key in ("model", "data", "run"))
    costs = [(column.title, column.measured(report), column) for column in explained]
    checkpoint, training = model["checkpoint"], model["training"]
    facts = [
        *((title, f"{format_value(value, column)}\n{_words(value, column)}") for title, value, column in costs),
        ("class", model["class_path"]),
        ("configuration", json.dumps(model["config"], indent=1, sort_keys=True)),
        ("checkpoint", "none" if checkpoint is None else f"{checkpoint['file']}\nsha256 {checkpoint['sha256']}"),
        ("training", "none" if training is None else ", ".join(f"{key} {training[key]}" for key in sorted(training))),
        ("data", f"{data['name']} {data['split']}\ncontent {data['content_hash']}"),
        ("scores", "\n".join(_score_line(key, score) for key, score in report.attributes["scores"].items())),
        ("solver settings", _sweep_text(report.attributes["cost"])),
        ("command", run["command"]),
        ("seed", str(run["seed"])),
        (
            "device",
            f"{run['device']}, {run['precision']}, threads {run['threads']}, batch size {run['batch_size']}, "
            f"processes {run['processes']}",
        ),
        ("wall time", f"{run['wall_time_s']:.3g} s, metrics {run['metric_seconds_per_frame']:.3g} s a frame"),
        ("versions", ", ".join(f"{key} {run['versions'][key]}" for key in sorted(run["versions"]))),
        ("git commit", str(run["git_commit"])),
        ("evaluated", run["created"]),
    ]
    return Provenance(name, tuple(facts))


def _score_line(key: str, score: dict[str, Any]) -> str:
    spread = "" if score["spread"] is None else f" ± {_number(score['spread'])} (standard error)"
    interval = "" if score["interval"] is None else ", 95 % interval {:.4g} to {:.4g}".format(*score["interval"])
    return f"{key} = {_number(score['value'])}{spread}{interval}"


def _sweep_text(cost: dict[str, Any] | None) -> str:
    """How the settings were chosen, and those that could not be used."""
    sweep = (cost or {}).get("sweep")
    if sweep is None:
        return "none measured"
    skipped = [f"{setting['resolution']} points a side left out: {setting['reason']}" for setting in sweep["skipped"]]
    return "\n".join([f"{len(sweep['points'])} measured: {sweep['method']}", *skipped])


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _error_chart(table: Table) -> Chart:
    from pdesurrogate.viz.curves import mean_curve
    from pdesurrogate.viz.page import Chart, Series

    series: list[Series] = []
    units = ""
    for entry in table.entries:
        reports = [source.report for source in entry.sources]
        time, band = mean_curve(reports, "relative_l2")
        units = str(reports[0].curves["lead_time"].attrs.get("units", ""))
        lines = (tuple(float(value) for value in line) for line in (time, *band))
        series.append(Series(_mark(entry), entry.model, *lines))
    return Chart(
        "Error as the rollout goes on",
        "lead time" if units in ("", "1") else f"lead time [{units}]",
        "relative L2 error",
        tuple(series),
        "Mean over trajectories. Band: 95 % bootstrap interval over the trajectories of a single seed, or standard "
        "deviation over several.",
    )


def _cost_chart(table: Table) -> Scatter:
    from pdesurrogate.viz.page import Scatter

    reference = table.reference
    machines = {
        f"{run['device']} (threads {run['threads']}, batch size {run['batch_size']})"
        for entry in table.entries
        for run in (source.report.attributes["run"] for source in entry.sources)
    }
    dots = tuple(_dot(table, entry, reference) for entry in table.entries)
    if reference is None:
        words = [
            "No report here measured the solver at several settings, so there is nothing to read a speed-up off: "
            "distances between dots of different error say nothing of it."
        ]
    else:
        words = [
            "The line joins the solver's cheapest settings at each error. The horizontal distance from a dot to it is "
            "the speed-up at equal error: right of the line the solver is faster.",
            f"The line was measured in {reference.source.name}; the table's speed-ups each come from the model's own "
            "report.",
        ]
        solver = reference.sweep.data_solver
        if solver is not None and solver.performance.relative_l2 == 0:
            words.append("The setting that made the data has no place here: compared with itself, its error is zero.")
        elif solver is not None and solver in reference.sweep.front[1:]:
            words.append("Dashed, it is a bound: the setting that made the data is compared with itself.")
    if missing := [dot.label for dot in dots if not math.isfinite(dot.y)]:
        words.append(f"Without a finite error: {', '.join(missing)}.")
    words.append(f"Measured on {', '.join(sorted(machines))}. Arrow keys move between the points.")
    return Scatter(
        "Error and cost",
        "seconds per frame and trajectory",
        "relative L2 error",
        dots,
        " ".join(words),
        None if reference is None else _front(reference.sweep.points, reference.sweep.front),
    )


def _dot(table: Table, entry: Entry, reference: Reference | None) -> Dot:
    from pdesurrogate.leaderboard import format_value
    from pdesurrogate.viz.page import Dot

    keys = ("relative_l2", "seconds_per_frame", "speed_up_at_equal_error", "break_even_rollouts")
    lines = [
        f"{column.title}: {format_value(entry.values[column.key], column)}"
        for column in table.columns
        if column.key in keys
    ]
    error, seconds = (None if key not in entry.values else entry.values[key].mean for key in keys[:2])
    return Dot(
        _mark(entry),
        entry.model,
        math.nan if seconds is None else seconds,
        math.nan if error is None else error,
        "\n".join([entry.model, *lines]),
        comparable=reference is not None and reference.beside(entry),
    )


def _front(points: Sequence[SolverPoint], best: Sequence[SolverPoint]) -> Front:
    from pdesurrogate.viz.page import Front, Setting

    def setting(point: SolverPoint) -> Setting:
        error, seconds = point.performance.relative_l2, point.performance.seconds_per_frame
        made = "\nmade the data" if point.makes_data else ""
        hint = f"solver, {point.label}\n{seconds:.3g} s per frame, {point.precision}{made}"
        return Setting(str(point.resolution), seconds, math.nan if error is None else error, hint)

    return Front(
        "solver, by points a side",
        tuple(setting(point) for point in best),
        tuple(setting(point) for point in points if point not in best),
        next((setting(point) for point in points if point.makes_data), None),
        "made the data",
    )

"""``pdesurrogate leaderboard``: tables and a page from reports."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdesurrogate.leaderboard import Column, Entry, Table
    from pdesurrogate.viz.page import Chart, Provenance, Row, Section, Series


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
        "over them; the best of each score stands out. Click a heading to sort, a model to see where its figures "
        "come from."
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
        value = entry.values[column.key]
        text, spread = format_parts(value, column)
        return Cell(text, value.mean, spread, table.is_best(entry, column))

    return Row(
        cells=(
            Cell(_mark(entry), entry.rank),
            Cell(entry.model, entry.model),
            Cell(entry.kind, entry.kind),
            *(cell(column) for column in table.columns),
        ),
        provenance=tuple(_provenance(source.name, source.report.attributes) for source in entry.sources),
        notes=entry.notes,
    )


def _mark(entry: Entry) -> str:
    return "–" if entry.rank is None else str(entry.rank)


def _provenance(name: str, report: dict[str, Any]) -> Provenance:
    import json

    from pdesurrogate.viz.page import Provenance

    model, data, run = report["model"], report["data"], report["run"]
    checkpoint, training = model["checkpoint"], model["training"]
    scores = [
        f"{key} = {_number(score['value'])}"
        + ("" if score["spread"] is None else f" ± {_number(score['spread'])} (standard error over trajectories)")
        for key, score in report["scores"].items()
    ]
    facts = [
        ("class", model["class_path"]),
        ("configuration", json.dumps(model["config"], indent=1, sort_keys=True)),
        ("checkpoint", "none" if checkpoint is None else f"{checkpoint['file']}\nsha256 {checkpoint['sha256']}"),
        ("training", "none" if training is None else ", ".join(f"{key} {training[key]}" for key in sorted(training))),
        ("data", f"{data['name']} {data['split']}\ncontent {data['content_hash']}"),
        ("scores", "\n".join(scores)),
        ("command", run["command"]),
        ("seed", str(run["seed"])),
        ("device", f"{run['device']}, {run['precision']}, threads {run['threads']}, batch size {run['batch_size']}"),
        ("wall time", f"{run['wall_time_s']:.3g} s"),
        ("versions", ", ".join(f"{key} {run['versions'][key]}" for key in sorted(run["versions"]))),
        ("git commit", str(run["git_commit"])),
        ("evaluated", run["created"]),
    ]
    return Provenance(name, tuple(facts))


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _error_chart(table: Table) -> Chart:
    from pdesurrogate.viz.curves import mean_curve
    from pdesurrogate.viz.page import Chart, Series

    series: list[Series] = []
    units = ""
    for entry in table.entries:
        reports = [source.report for source in entry.sources]
        time, mean, spread = mean_curve(reports, "relative_l2")
        units = str(reports[0].curves["lead_time"].attrs.get("units", ""))
        series.append(Series(_mark(entry), entry.model, tuple(time), tuple(mean), tuple(spread)))
    return Chart(
        "Error as the rollout goes on",
        "lead time" if units in ("", "1") else f"lead time [{units}]",
        "relative L2 error",
        tuple(series),
        "Mean over trajectories. Band: standard deviation over seeds, or standard error over the trajectories of one.",
    )


def _cost_chart(table: Table) -> Chart:
    from pdesurrogate.viz.page import Chart, Series

    series, machines = [], set()
    nowhere = float("nan")
    for entry in table.entries:
        cost, error = entry.values["seconds_per_frame"].mean, entry.values[table.ranked_by].mean
        point = (nowhere if cost is None else cost,), (nowhere if error is None else error,)
        series.append(Series(_mark(entry), entry.model, *point))
        for source in entry.sources:
            run = source.report.attributes["run"]
            machines.add(f"{run['device']} ({run['threads']} threads)")
    return Chart(
        "Error and cost",
        "seconds per frame and trajectory",
        table.ranking_column.title,
        tuple(series),
        "Lower left is better. Measured on " + ", ".join(sorted(machines)) + ".",
    )

"""Generalization over boundary conditions, fluids and geometries: tables from the reports of ``benchmarks/small.py``.

    python benchmarks/cfdbench.py  # benchmarks/cfdbench.md and .png

One network of each kind for each problem, trained on all subsets and measured on each apart; means over seeds.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.style import save_figure

HERE = Path(__file__).parent
PROBLEMS = {"cavity": "Cavity", "tube": "Tube", "step": "Flow over a step", "cylinder": "Wake of a cylinder"}
SUBSETS = {"bc": "boundary conditions", "prop": "fluid properties", "geo": "geometries"}
MEAN = "mean"
# Names of scores and what they are called; the first three as the paper's tables have them.
COLUMNS = {
    "nmse": "NMSE",
    "mse": "MSE",
    "mae": "MAE",
    "relative_l2_last": "error, last",
    "section_imbalance": "section imbalance",
    "relative_divergence": "divergence",
    "no_slip_violation": "no-slip",
}
DRAWN = "nmse"


class Row(NamedTuple):
    """Scores of a network on a subset, each of all seeds; none where a report lacks it."""

    model: str
    seeds: int
    values: dict[str, list[float | None]]

    def mean(self, score: str) -> float | None:
        """Over the seeds that have a value."""
        known = [value for value in self.values[score] if value is not None]
        return statistics.fmean(known) if known else None


# By subset, then by the name of the network.
Rows = dict[str, dict[str, Row]]


def rows_of(folder: Path) -> dict[str, Row]:
    """A row for each network whose reports are below a folder, in the order of their files."""
    found: dict[str, list[Report]] = {}
    for path in sorted(folder.glob("*/report.json")):
        report = Report.load(path.parent)
        found.setdefault(report.attributes["model"]["name"], []).append(report)
    return {
        name: Row(
            name,
            len(reports),
            {score: [each.attributes["scores"].get(score, {}).get("value") for each in reports] for score in COLUMNS},
        )
        for name, reports in found.items()
    }


def rows_of_problem(reports: Path, problem: str) -> Rows:
    """Rows of all subsets, and ``"mean"``: that of each network over the subsets, if it was measured on all."""
    subsets = {subset: rows_of(reports / f"cfdbench_{problem}_{subset}") for subset in SUBSETS}
    subsets = {subset: rows for subset, rows in subsets.items() if rows}
    if not subsets:
        return {}
    everywhere = [name for name in next(iter(subsets.values())) if all(name in rows for rows in subsets.values())]
    means = {}
    for name in everywhere:
        parts = [rows[name] for rows in subsets.values()]
        values = {score: [_mean_or_none([part.mean(score) for part in parts])] for score in COLUMNS}
        means[name] = Row(name, parts[0].seeds, values)
    return subsets | {MEAN: means}


def table(rows: Rows) -> list[str]:
    """A Markdown table of one problem; networks of a subset by their error, persistence among them."""
    lines = ["| subset | model | seeds | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " --- |" * 9]
    for subset, models in rows.items():
        for row in sorted(models.values(), key=lambda row: _or_last(row.mean(DRAWN))):
            cells = [SUBSETS.get(subset, "mean of subsets"), row.model, str(row.seeds)]
            lines.append("| " + " | ".join([*cells, *(_cell(row.values[score]) for score in COLUMNS)]) + " |")
    return lines


def draw(problems: dict[str, Rows], target: Path) -> None:
    """NMSE of each network on each subset, a map for each problem; darker is worse, and all maps have one scale."""
    values = [
        value for rows in problems.values() for models in rows.values() for row in models.values()
        if (value := row.mean(DRAWN)) is not None and value > 0
    ]  # fmt: skip
    norm = LogNorm(min(values, default=0.1) / 1.01, max(values, default=1.0) * 1.01)
    figure, axes = plt.subplots(
        1, len(problems), figsize=(4.2 * len(problems), 4.2), squeeze=False, layout="constrained"
    )
    image = None
    for axis, (problem, rows) in zip(axes[0], problems.items(), strict=True):
        names = list(dict.fromkeys(name for models in rows.values() for name in models))
        names.sort(key=lambda name: _or_last(rows[MEAN][name].mean(DRAWN) if name in rows[MEAN] else None))
        cells = np.full((len(names), len(rows)), np.nan)
        for column, models in enumerate(rows.values()):
            for place, name in enumerate(names):
                value = models[name].mean(DRAWN) if name in models else None
                if value is not None:
                    cells[place, column] = value
                    light = norm(value) > 0.5
                    axis.text(
                        column, place, f"{value:.2g}", ha="center", va="center", fontsize=8,
                        color="white" if light else "black",
                    )  # fmt: skip
        image = axis.imshow(cells, norm=norm, cmap="Blues", aspect="auto")
        axis.set(title=PROBLEMS[problem], xticks=range(len(rows)), xticklabels=list(rows), yticks=range(len(names)))
        axis.set_yticklabels(names, fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=axes[0].tolist(), label="NMSE, mean of frames")
    save_figure(figure, target)


def page(problems: dict[str, Rows]) -> str:
    """The Markdown page."""
    lines = [
        "# Generalization over boundary conditions, fluids and geometries",
        "",
        "Made by `python benchmarks/cfdbench.py` from `benchmarks/reports`. Data are our own simulations in the layout "
        "of CFDBench (`datasets/cfdbench_*`), not CFDBench. One network of each kind for each problem, trained on all "
        "subsets and rolled out on the test cases of each, from the second frame to the end. Mean ± sample standard "
        "deviation over seeds, where there are several.",
        "",
        "FFN and DeepONet take no steps: they are asked for the same frames by the parameters of a case, time and "
        "place, and see none of its frames. Errors do not add up over a rollout there.",
        "",
        "NMSE, MSE and MAE are the paper's, of both velocities: means over the frames of rollouts, NMSE being that of "
        "each frame's ratio. `error, last` is the relative L2 error of the last frame. What remains are balances of "
        "the prediction, means over lead times: how far the flow rate of a section is from that of the first, the "
        "divergence, and the velocity in solid cells, all relative. Nothing enters a cavity: its imbalance is relative "
        "to what passes its sections either way. Where there is no body there is no solid cell.",
        "",
        "![NMSE by problem, network and subset](cfdbench.png)",
        "",
    ]
    for problem, rows in problems.items():
        lines += [f"## {PROBLEMS[problem]}", "", *table(rows), ""]
    return "\n".join(lines)


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) and known else None


def _or_last(value: float | None) -> float:
    return math.inf if value is None else value


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{statistics.fmean(known):.3g}"
    if len(known) > 1:
        text += f" ± {statistics.stdev(known):.2g}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def main(reports: Path = HERE / "reports", out: Path = HERE) -> int:
    """Write page and picture; the exit status."""
    problems = {problem: rows for problem in PROBLEMS if (rows := rows_of_problem(reports, problem))}
    if not problems:
        print("Expected reports of enclosed flows but there are none; run benchmarks/small.py first.", file=sys.stderr)
        return 2
    draw(problems, out / "cfdbench.png")
    text = page(problems)
    (out / "cfdbench.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

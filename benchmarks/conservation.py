"""What keeping a conservation law gives beyond conservation: tables from the reports of ``benchmarks/small.py``.

    python benchmarks/conservation.py  # benchmarks/conservation.md and .png

Networks as they were trained, conditioned inside the loop, conditioned in what is measured alone, and trained on with
the law as a penalty or inside the loop; three seeds where they exist.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.style import save_figure

HERE = Path(__file__).parent
TURBULENCE = {
    "relative_l2_first": "error, first",
    "relative_l2": "error, mean",
    "relative_l2_last": "error, last",
    "correlation_time": "correlation time",
    "log_spectral_distance": "spectrum, decades",
    "energy_drift": "energy drift",
}
FINITE_VOLUMES = {
    "relative_l2_first": "error, first",
    "relative_l2": "error, mean",
    "relative_l2_last": "error, last",
    "vrmse": "VRMSE",
    "correlation_time": "correlation time",
    "log_spectral_distance": "spectrum, decades",
    "integral_drift": "drift of integrals",
}
# Folder: title and columns, beside the violation of the law.
TASKS = {
    "ns2d_decaying_conserved": ("Decaying turbulence, vorticity", TURBULENCE),
    "ns2d_velocity_conserved": (
        "Decaying turbulence, velocity and scalar",
        TURBULENCE | {"relative_divergence": "relative divergence"},
    ),
    "compressible_2d": ("Compressible flow: mass, momentum, energy", FINITE_VOLUMES),
    "shallow_water_2d": ("Shallow water: volume, momentum", FINITE_VOLUMES),
    "channel_minimal_180_conserved": (
        "Turbulent channel",
        {
            "relative_l2_first": "error, first",
            "relative_l2": "error, mean",
            "correlation_time": "correlation time",
            "relative_divergence": "relative divergence",
            "free_run_frames": "lasts, frames of 1,000",
            "free_run_friction_reynolds_number": "Re_tau",
            "free_run_mean_velocity_l1": "mean velocity, L1",
            "free_run_rms_velocity_x_l1": "rms u, L1",
            "free_run_spectra_in_band": "spectra in band",
        },
    ),
}


def models(folder: Path) -> list[list[Report]]:
    """Reports of a folder by the name of their model, seeds together."""
    found = [Report.load(path.parent) for path in sorted(folder.glob("*/report.json"))]
    named = sorted(found, key=lambda report: report.attributes["model"]["name"])
    return [list(group) for _, group in groupby(named, key=lambda report: report.attributes["model"]["name"])]


def spread(values: Sequence[float | None]) -> str:
    """Mean and sample standard deviation over seeds; how many have a value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{statistics.fmean(known):.3g}"
    if len(known) > 1:
        text += f" ± {statistics.stdev(known):.2g}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def violations(report: Report) -> list[float | None]:
    """Of each row at the last frame, absolute; none where the law was not measured."""
    scores = report.attributes["scores"]
    return [score["value"] for name, score in scores.items() if name.startswith("law_violation_")]


def table(found: Sequence[Sequence[Report]], columns: dict[str, str]) -> list[str]:
    """A Markdown table, one row for each model."""
    titles = ["model", "seeds", "largest violation at the end", *columns.values()]
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " --- |" * (len(titles) - 1)]
    for group in found:
        worst = [max((value for value in violations(report) if value is not None), default=None) for report in group]
        cells = [group[0].attributes["model"]["name"], str(len(group)), spread(worst)]
        for name in columns:
            cells.append(spread([report.attributes["scores"].get(name, {}).get("value") for report in group]))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(tasks: dict[str, list[list[Report]]], target: Path) -> None:
    """Violation and error over lead time, means over seeds and trajectories."""
    figure, axes = plt.subplots(len(tasks), 2, figsize=(11, 3.4 * len(tasks)), squeeze=False, layout="constrained")
    for row, (folder, found) in zip(axes, tasks.items(), strict=True):
        for group in found:
            name = group[0].attributes["model"]["name"]
            if "law_violation_prediction" not in group[0].curves:
                continue
            times = group[0].curves["lead_time"].values
            broken = np.mean(
                [r.curves["law_violation_prediction"].mean(("trajectory", "row")).values for r in group], 0
            )
            error = np.mean([_error(report) for report in group], 0)
            row[0].semilogy(times, np.maximum(broken, 1e-12), label=name)
            row[1].plot(times, error, label=name)
        row[0].set(title=TASKS[folder][0], xlabel="lead time", ylabel="violation of the law, mean of rows")
        row[1].set(xlabel="lead time", ylabel="relative error")
        row[1].legend(fontsize=7)
    save_figure(figure, target)


def _error(report: Report) -> np.ndarray:
    curve = report.curves["relative_l2"]
    return curve.mean([dim for dim in curve.dims if dim != "lead_time"]).values


def main() -> int:
    """Write page and picture; the exit status."""
    tasks = {folder: models(HERE / "reports" / folder) for folder in TASKS}
    tasks = {folder: found for folder, found in tasks.items() if found}
    if not tasks:
        print(
            "Expected reports of conserving models but there are none; run benchmarks/small.py first.", file=sys.stderr
        )
        return 2
    draw(tasks, HERE / "conservation.png")
    lines = [
        "# What conservation gives beyond conservation",
        "",
        "Made by `python benchmarks/conservation.py` from `benchmarks/reports`. Mean ± sample standard deviation over "
        "seeds. The law: the mean vorticity, the means of momentum and scalar, mass, momentum and energy, volume and "
        "momentum, the flow rate of a channel stay what they are; its violation is that of the worst row at the last "
        "frame, absolute, in units of "
        "the data. `+ ProbConserv` is inside the loop.",
        "",
        "![violation and error](conservation.png)",
        "",
    ]
    for folder, found in tasks.items():
        lines += [f"## {TASKS[folder][0]}", "", *table(found, TASKS[folder][1]), ""]
    text = "\n".join(lines)
    (HERE / "conservation.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

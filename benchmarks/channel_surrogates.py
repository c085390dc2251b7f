"""Surrogates of the minimal channel beside large-eddy simulations: draws the reports of ``benchmarks/small.py``.

    python benchmarks/channel_surrogates.py  # benchmarks/channel_surrogates.md and .png

One step: the frame after every true one of the test split, relative to the fluctuation of each component. Free run: as
many frames as the reports say from the first of each test trajectory, stopped where a value leaves three bulk
velocities; its statistics stand beside those of all frames of the data, in physical units. The last row has what the
sampling errors of the data and of the steadiest model would make of equal flows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from pdesurrogate.evaluation.channel.free_run import PREFIX, free_run_curves
from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import cell_faces
from pdesurrogate.viz.profiles import plot_wall_units
from pdesurrogate.viz.style import save_figure

REPORTS = Path("benchmarks/reports/channel_minimal_180")
DRAWN = 5
ONE_STEP = ("u", "v", "w", "p")
FREE_RUN = {
    "frames": "lasts, frames",
    "friction_reynolds_number": "Re_tau",
    "mean_velocity_l1": "U, %",
    "rms_velocity_x_l1": "rms u, %",
    "rms_velocity_y_l1": "rms v, %",
    "rms_velocity_z_l1": "rms w, %",
    "shear_stress_l1": "-u'v', %",
    "spectrum_x_distance": "spectra x, decades",
    "spectrum_z_distance": "spectra z, decades",
    "rms_in_band": "rms in band, %",
    "spectra_in_band": "spectra in band, %",
    "seconds_per_turnover": "s per h/u_tau",
}
WHOLE = ("frames", "friction_reynolds_number")
PERCENT = {name for name in FREE_RUN if name.endswith(("_l1", "_in_band"))}


def models(folder: Path) -> list[list[Report]]:
    """Reports of a folder by model, its seeds together, the best at one step first.

    Raises:
        ValueError: if there are none with a free run.
    """
    found = [Report.load(path.parent) for path in sorted(folder.glob("*/report.json"))]
    found = [report for report in found if f"{PREFIX}frames" in report.attributes["scores"]]
    if not found:
        raise ValueError(f"Expected reports with free runs in {folder} but found none; run benchmarks/small.py first.")
    seeds = [list(group) for _, group in groupby(sorted(found, key=lambda r: r.identity), key=lambda r: r.identity)]
    return sorted(seeds, key=lambda group: float(np.mean(one_step(group[0]))))


def one_step(report: Report) -> list[float]:
    """Of each component of the velocity, relative to its fluctuation about the mean profile, and of the pressure."""
    curves = free_run_curves(report)
    errors = report.curves["one_step_relative_l2"].mean(("trajectory", "window")).values
    mean, rms = (curves[f"{name}_velocity_profile_truth"].values for name in ("mean", "rms"))
    # The walls of a half-height of one stand at 0 and 2.
    weights = np.diff(cell_faces(torch.tensor(curves["wall_normal"].values), (0.0, 2.0)).numpy())
    squares = [(part**2 * weights).sum(1) for part in (mean, rms)]
    whole = np.sqrt((squares[0] + squares[1]) / squares[1])
    return [float(error * ratio) for error, ratio in zip(errors, [*whole, 1.0], strict=True)]


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean and sample standard deviation; how many have no value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{statistics.fmean(known):.{digits}g}"
    if len(known) > 1:
        text += f" ± {statistics.stdev(known):.2g}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def score(reports: Iterable[Report], name: str) -> list[float | None]:
    """A score of the free run, in percent where the table has it so."""
    values = [report.attributes["scores"][f"{PREFIX}{name}"]["value"] for report in reports]
    return [None if value is None else value * (100 if name in PERCENT else 1) for value in values]


def table(found: Sequence[Sequence[Report]]) -> list[str]:
    """Two Markdown tables: one step, and the free run."""
    titles = ["model", "seeds", "parameters", "training, min", *(f"one step, {name}" for name in ONE_STEP)]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for group in found:
        model = group[0].attributes["model"]
        errors = zip(*(one_step(report) for report in group), strict=True)
        minutes = [(r.attributes["model"]["training"] or {}).get("wall_time_s") for r in group]
        times = spread([None if value is None else value / 60 for value in minutes], 2)
        cells = [model["name"], len(group), f"{model['parameters']:,}", times, *(spread(column) for column in errors)]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", "| model | " + " | ".join(FREE_RUN.values()) + " |", "|---" * (len(FREE_RUN) + 1) + "|"]
    for group in found:
        cells = [group[0].attributes["model"]["name"]]
        cells += [spread(score(group, name), 4 if name in WHOLE else 3) for name in FREE_RUN]
        lines.append("| " + " | ".join(cells) + " |")
    lasted = [group[0].attributes["scores"] for group in found if score(group[:1], "survival") == [1]]
    if lasted:
        # Of the runs that lasted the one whose sampling errors are least: others drift.
        least = min(lasted, key=lambda scores: scores[f"{PREFIX}rms_velocity_x_l1"]["spread"])
        spreads = [least[f"{PREFIX}{name}"]["spread"] if name.endswith("_l1") else None for name in FREE_RUN]
        cells = [spread([each and 100 * each]) for each in spreads]
        cells = ["91 to 95" if name.endswith("_in_band") else cell for name, cell in zip(FREE_RUN, cells, strict=True)]
        lines.append("| " + " | ".join(["by chance", *cells]) + " |")
    return lines


def of_data(report: Report) -> str:
    """The friction Reynolds number of the data with its standard error."""
    curves = free_run_curves(report)
    name = "friction_reynolds_number_truth"
    return f"{float(curves[name]):.1f} ± {float(curves[f'{name}_standard_error']):.1f}"


def draw(found: Sequence[Sequence[Report]], target: Path) -> None:
    """Profiles in wall units of the first seeds that lasted and have the best rms velocity."""
    chosen = [group[0] for group in found if group[0].attributes["scores"][f"{PREFIX}survival"]["value"] == 1]
    chosen = [report for report in chosen if report.attributes["model"]["kind"] != "baseline"]
    chosen = sorted(chosen, key=lambda r: r.attributes["scores"][f"{PREFIX}rms_velocity_x_l1"]["value"])[:DRAWN]
    curves = {report.attributes["model"]["name"]: free_run_curves(report) for report in chosen}
    if not curves:
        return
    channels = {"truth": WallUnitStatistics.of_report(next(iter(curves.values())), "truth")}
    channels |= {name: WallUnitStatistics.of_report(each, "prediction") for name, each in curves.items()}
    save_figure(plot_wall_units(channels), target)


def main() -> int:
    """Write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, default=REPORTS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/channel_surrogates.md"), metavar="FILE")
    arguments = parser.parse_args()
    found = models(arguments.reports)
    draw(found, arguments.out.with_suffix(".png"))
    about = found[0][0].attributes["data"]
    frames = found[0][0].curves.sizes[f"{PREFIX}time"]
    lines = [
        "# Surrogates of a turbulent channel",
        "",
        f"Data {about['name']}, {about['trajectories']} test trajectories. One step: relative to the fluctuation of "
        f"each component (of p: to itself), mean over all windows. Free run: {frames} frames. Re_tau of the data "
        f"{of_data(found[0][0])}; "
        "distances relative to the data's statistics, L1 norm over the height; spectra: root mean square of the "
        "logarithm over all modes, planes and components; in band: share of the numbers that are within two standard "
        "errors of the difference. Mean ± sample standard deviation over seeds; in brackets how many of them lasted. "
        "What is compared, and how, stands at the top of `benchmarks/channel_surrogates.py`.",
        "",
        f"![mean velocity, rms and shear stress of free runs]({arguments.out.with_suffix('.png').name})",
        "",
        *table(found),
    ]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

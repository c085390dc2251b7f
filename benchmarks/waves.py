"""Does a SineNet err less with more waves? Draws the reports of ``benchmarks/small.py`` and writes a table.

    python benchmarks/waves.py  # benchmarks/waves.md and benchmarks/waves.png

The paper compares numbers of waves at one number of parameters (arXiv:2403.19507, figure 3). More waves then do more
work at full resolution, so beside it stand wider networks of fewer waves that have as many parameters and do as many
operations as the one of most waves. Operations are multiplications and additions of matrix products and convolutions
in one forward pass of one sample, counted by torch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch.utils.flop_counter import FlopCounterMode

from pdesurrogate.evaluation.misalignment import Misalignment
from pdesurrogate.evaluation.report import Report
from pdesurrogate.models.specification import build
from pdesurrogate.viz.style import color, new_figure, save_figure, style

REPORTS = Path("benchmarks/reports/ns2d_velocity")
SAME_PARAMETERS = ("sinenet_small_k1", "sinenet_small_k2", "sinenet_small_k4")
SAME_WORK = ("sinenet_small_k1_wide", "sinenet_small_k2_wide", "sinenet_small_k4")
SCORES = {"relative_l2": "rollout", "one_step_relative_l2": "one step"}


class Model(NamedTuple):
    """All seeds of one configuration.

    Attributes:
        config: its name.
        waves: how many.
        parameters: trained real numbers.
        operations: of a forward pass of one sample.
        errors: score by name, one value a seed.
        misalignments: one a seed.
    """

    config: str
    waves: int
    parameters: int
    operations: int
    errors: dict[str, list[float]]
    misalignments: list[Misalignment]


def read(config: str, reports: Path) -> Model:
    """The reports of one configuration.

    Raises:
        ValueError: if there are none, or a seed has no finite error.
    """
    found = [Report.load(path.parent) for path in sorted(reports.glob(f"{config}_seed*/report.json"))]
    if not found:
        raise ValueError(f"Expected reports of {config} in {reports} but found none; run benchmarks/small.py first.")
    attributes = found[0].attributes
    network = attributes["model"]["config"]["network"]
    errors = {name: [report.attributes["scores"][name]["value"] for report in found] for name in SCORES}
    if any(value is None for values in errors.values() for value in values):
        raise ValueError(f"Expected finite errors of {config} but a seed has none.")
    shape = (1, network["init_args"]["history_frames"], network["init_args"]["channels"], *attributes["data"]["shape"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(network).eval()(torch.zeros(shape))
    return Model(
        config,
        network["init_args"]["waves"],
        attributes["model"]["parameters"],
        counter.get_total_flops(),
        errors,
        [Misalignment.from_dict(report.attributes["misalignment"]) for report in found],
    )


def draw(axes: Axes, models: Sequence[Model], title: str) -> None:
    """Error of every seed and their mean against the number of waves."""
    places = range(len(models))
    for line, (score, label) in enumerate(SCORES.items()):
        means = [statistics.fmean(model.errors[score]) for model in models]
        axes.plot(places, means, color=color(line), label=f"{label}, mean of seeds", marker="o", markersize=6)
        for place, model in zip(places, models, strict=True):
            values = model.errors[score]
            axes.plot([place] * len(values), values, "_", color=color(line), markersize=12, markeredgewidth=1.4)
    names = [f"{model.waves}\n{model.operations / 1e6:.0f} MFLOP" for model in models]
    axes.set_xticks(list(places), names)
    axes.set_xlim(-0.4, len(models) - 0.6)
    axes.set_ylim(0, None)
    axes.set_xlabel("waves")
    axes.set_title(title)


def table(models: Sequence[Model]) -> list[str]:
    """Markdown rows."""
    lines = [
        "| configuration | waves | parameters | MFLOP | seeds | one step | rollout | over each wave | over all | "
        "skip against upsampled, finest level |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in models:
        one, rollout = (with_spread(model.errors[name]) for name in ("one_step_relative_l2", "relative_l2"))
        waves = ", ".join(
            median([found.waves[wave].median for found in model.misalignments]) for wave in range(model.waves)
        )
        finest = ", ".join(
            median(
                [found.levels[wave][0].median for found in model.misalignments],
                any(found.levels[wave][0].accidental for found in model.misalignments),
            )
            for wave in range(model.waves)
        )
        total = median([found.total.median for found in model.misalignments])
        lines.append(
            f"| {model.config} | {model.waves} | {model.parameters:,} | {model.operations / 1e6:.0f} | "
            f"{len(model.misalignments)} | {one} | {rollout} | {waves} | {total} | {finest} |"
        )
    return lines


def with_spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def median(values: Sequence[float], accidental: bool = False) -> str:
    """Median over seeds, in brackets where chance gives as much."""
    text = f"{statistics.median(values):.2f}"
    return f"({text})" if accidental else text


def differences(models: Sequence[Model]) -> list[str]:
    """How the network of most waves compares with the others, seed by seed."""
    *others, most = models
    lines = []
    for score, label in SCORES.items():
        for other in others:
            pairs = [b / a - 1 for a, b in zip(other.errors[score], most.errors[score], strict=False)]
            each = ", ".join(f"{100 * pair:+.1f}" for pair in pairs)
            lines.append(f"- {label}, {most.config} against {other.config}, percent by seed: {each}")
    return lines


def main() -> int:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, default=REPORTS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/waves.md"), metavar="FILE")
    arguments = parser.parse_args()
    same_parameters = [read(config, arguments.reports) for config in SAME_PARAMETERS]
    same_work = [read(config, arguments.reports) for config in SAME_WORK]
    with style():
        figure = new_figure(10.0, 4.4)
        left, right = figure.subplots(1, 2, sharey=True)
        draw(left, same_parameters, "as many parameters")
        draw(right, same_work, "as many parameters and operations")
        left.set_ylabel("relative L2 error")
        right.legend(loc="lower left")
    save_figure(figure, arguments.out.with_suffix(".png"))
    first = same_parameters[0].misalignments[0]
    about = Report.load(arguments.reports / f"{SAME_WORK[-1]}_seed0").attributes["data"]
    lines = [
        "# Error against the number of waves",
        "",
        f"Data {about['name']}, {about['trajectories']} test trajectories, {about['frames']} frames from frame "
        f"{about['start_frame']}; one step: all windows. Mean ± sample standard deviation over seeds. Displacements in "
        f"grid points, medians over {first.samples} windows and then over seeds; in brackets where features of "
        "different samples fit together as well. By the same measure frames of the data move "
        f"{first.data.median:.2f} points. What is compared, and how, stands at the top of `benchmarks/waves.py`.",
        "",
        "![error against the number of waves](waves.png)",
        "",
        *table([*same_parameters, *same_work[:-1]]),
        "",
        *differences(same_parameters),
        *differences(same_work),
    ]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

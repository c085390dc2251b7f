"""``pdesurrogate evaluate``: roll out and measure anything that steps; report and figures."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.evaluation.evaluator import Evaluator, ModelCard
    from pdesurrogate.evaluation.report import Report
    from pdesurrogate.fields.trajectory import Trajectory
    from pdesurrogate.steppers.base import Stepper


def build_parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    parser = argparse.ArgumentParser(
        prog="pdesurrogate evaluate",
        description="Roll out a model over a split, measure it, and write report.json, report.nc and figures.",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, metavar="CKPT", help="a trained surrogate")
    model.add_argument(
        "--stepper",
        metavar="CLASS|YAML",
        help="a stepper by import path, or a YAML file with class_path and init_args, "
        "for example pdesurrogate.steppers.persistence.Persistence",
    )
    model.add_argument(
        "--coarse-solver",
        type=int,
        metavar="N",
        help="the solver that made the data, on N points a side at its largest stable time step "
        "(found on the validation split)",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="an archive")
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument("--frames", type=int, metavar="N", help="frames to predict; default: all there are")
    parser.add_argument(
        "--start-frame", type=int, metavar="N", help="number of the first predicted frame; default: first possible"
    )
    parser.add_argument(
        "--bounds",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="stop a trajectory whose values leave these; default: only when not finite",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report and figures")
    parser.add_argument("--name", help="label in tables")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    parser.add_argument("--no-figures", action="store_true", help="write the report alone")
    return parser


def main(argv: list[str]) -> int:
    """Run the verb; the exit status, 1 if a self-check failed."""
    arguments = build_parser().parse_args(argv)

    from pdesurrogate.cli.terminal import choose_device, progress_bar
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.evaluation.checks import failed_checks
    from pdesurrogate.evaluation.evaluator import Evaluator

    device = choose_device(arguments.device)
    archive = Archive(arguments.data)
    trajectories = archive.trajectories(arguments.split)
    stepper, card = _model(arguments, archive, device)
    start = stepper.history_frames if arguments.start_frame is None else arguments.start_frame
    frames = max(len(trajectories[0]) - start, 1) if arguments.frames is None else arguments.frames
    bounds = None if arguments.bounds is None else tuple(arguments.bounds)
    evaluator = Evaluator(batch_size=arguments.batch_size, device=device, bounds=bounds)
    arguments.out.mkdir(parents=True, exist_ok=True)  # refuse a bad place before the work
    with progress_bar(f"rolling out {card.name}", unit="trajectories") as progress:
        report = evaluator.evaluate(
            stepper,
            trajectories,
            frames,
            model=card,
            split=arguments.split,
            start_frame=start,
            command=shlex.join(["pdesurrogate", "evaluate", *argv]),
            on_batch=progress,
        )
    report.save(arguments.out)
    if not arguments.no_figures:
        draw(report, evaluator, {card.name: stepper}, trajectories, arguments.out)
    print(score_lines([report]))
    for trajectory, lead_time in stopped(report):
        print(f"trajectory {trajectory} stopped at lead time {lead_time:g}: not finite or out of bounds")
    print(arguments.out / "report.json")
    failures = failed_checks(report)
    for failure in failures:
        print(f"self-check failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _model(arguments: argparse.Namespace, archive: Archive, device: str) -> tuple[Stepper, ModelCard]:
    from dataclasses import replace

    if arguments.checkpoint is not None:
        stepper, card = surrogate_from(arguments.checkpoint)
    elif arguments.coarse_solver is not None:
        from pdesurrogate.evaluation.baselines import coarse_solver

        stepper, card = coarse_solver(archive.trajectories("val"), arguments.coarse_solver, device)
    else:
        stepper, card = _stepper_from(arguments.stepper)
    return stepper, card if arguments.name is None else replace(card, name=arguments.name)


def surrogate_from(checkpoint: Path, name: str | None = None) -> tuple[Stepper, ModelCard]:
    """A trained surrogate and its card, everything read from the checkpoint."""
    from pdesurrogate.evaluation.evaluator import ModelCard
    from pdesurrogate.evaluation.provenance import checkpoint_record
    from pdesurrogate.steppers.surrogate import Surrogate, load_checkpoint

    stepper = Surrogate.from_checkpoint(checkpoint)
    training = load_checkpoint(checkpoint).get("training") or {}
    network = stepper.specification()["network"]
    architecture = network["init_args"].get("architecture")
    label = network["class_path"].rpartition(".")[2] + (f" {architecture}" if architecture else "")
    card = ModelCard.of(
        stepper,
        name or label,
        "surrogate",
        class_path=network["class_path"],
        config={"network": network, "target": stepper.target, "history_frames": stepper.history_frames},
        parameters_without_gradient=tuple(training.pop("parameters_without_gradient", ())),
        checkpoint=checkpoint_record(checkpoint),
        checkpoint_path=checkpoint,
        training=training or None,
    )
    return stepper, card


def _stepper_from(given: str) -> tuple[Stepper, ModelCard]:
    """A stepper from an import path or a YAML file."""
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    from pdesurrogate.evaluation.evaluator import ModelCard
    from pdesurrogate.steppers.base import Stepper
    from pdesurrogate.steppers.persistence import Persistence

    value: Any = given
    if given.endswith((".yaml", ".yml")):
        if not Path(given).is_file():
            raise ValueError(f"Expected a YAML file but {given} does not exist.")
        try:
            value = yaml.safe_load(Path(given).read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"Expected YAML in {given}: {error}") from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--stepper", type=Stepper)
    try:
        config = parser.parse_object({"stepper": value})
        stepper = parser.instantiate(config).stepper
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{given} is no stepper: {error}") from error
    plain = yaml.safe_load(parser.dump(config))["stepper"]
    name = type(stepper).__name__
    kind: Any = "baseline" if isinstance(stepper, Persistence) else "solver"
    return stepper, ModelCard.of(stepper, name.lower() if kind == "baseline" else name, kind, config=plain)


def draw(
    report: Report,
    evaluator: Evaluator,
    steppers: dict[str, Stepper],
    trajectories: Sequence[Trajectory],
    out: Path,
    others: Sequence[Report] = (),
) -> list[Path]:
    """Snapshots and film of the first trajectory, spectra and error curves; the files.

    The first of ``steppers`` is the one that ``report`` measures and the film shows.
    """
    import torch

    from pdesurrogate.viz.curves import plot_error_curves
    from pdesurrogate.viz.snapshots import plot_snapshots, save_film
    from pdesurrogate.viz.spectra import plot_spectra
    from pdesurrogate.viz.style import save_figure

    data = report.attributes["data"]
    metadata = trajectories[0].metadata
    files = [save_figure(plot_error_curves([report, *others]), out / "errors.png")]
    if "energy_spectrum_prediction" in report.curves:
        files.append(save_figure(plot_spectra([report, *others]), out / "spectra.png"))
    extent = tuple(axis.period for axis in metadata.grid.axes)
    if len(extent) != 2 or None in extent:
        return files
    start = data["start_frame"]
    predictions: dict[str, torch.Tensor] = {}
    for name, stepper in steppers.items():
        sample, truth = evaluator.sample_rollout(stepper, trajectories, data["frames"], start_frame=start)
        predictions[name] = sample[0, :, 0]
    channel = metadata.channels[0]
    lead_times = report.curves["lead_time"].values.tolist()
    options: dict[str, Any] = {
        "extent": extent,
        "label": channel.long_name or channel.name,
        "units": channel.units,
        "length_units": metadata.grid.axes[0].units,
        "time_units": metadata.time_units,
    }
    files.append(save_figure(plot_snapshots(truth[0, :, 0], predictions, lead_times, **options), out / "snapshots.png"))
    first = next(iter(predictions))
    film = out / "rollout.gif"
    save_film(truth[0, :, 0], predictions[first], lead_times, film, prediction_label=first, **options)
    return [*files, film]


def stopped(report: Report) -> list[tuple[int, float]]:
    """Number and lead time of every trajectory that was stopped."""
    times = report.curves["blow_up_time"].dropna("trajectory")
    return [(int(number), float(time)) for number, time in zip(times["trajectory"], times, strict=True)]


def score_lines(reports: Sequence[Report]) -> str:
    """A short table for the terminal: one line for each report."""
    rows = [("model", "relative L2: first", "mean", "last", "correlation time", "ms per frame")]
    for report in reports:
        scores = report.attributes["scores"]
        cells = [
            f"{scores[key]['value']:.3f}" if scores[key]["value"] is not None else "-"
            for key in ("relative_l2_first", "relative_l2", "relative_l2_last")
        ]
        correlation = scores["correlation_time"]["value"]
        time = "-" if correlation is None else f"{correlation:.2f}"
        milliseconds = f"{1e3 * report.attributes['run']['seconds_per_frame']:.2f}"
        rows.append((report.attributes["model"]["name"], *cells, time, milliseconds))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

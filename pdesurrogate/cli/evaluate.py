"""``pdesurrogate evaluate``: roll out and measure anything that steps; report and figures."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdesurrogate.cli.described import YAML_SUFFIXES, instance_of, read_yaml

if TYPE_CHECKING:
    from pdesurrogate.data.adapters.base import Adapter
    from pdesurrogate.evaluation.card import ModelCard
    from pdesurrogate.evaluation.channel.reference import ChannelReference
    from pdesurrogate.evaluation.evaluator import Evaluator, Suite
    from pdesurrogate.evaluation.misalignment import Misalignment
    from pdesurrogate.evaluation.report import Report
    from pdesurrogate.fields.grid import Metadata
    from pdesurrogate.fields.trajectory import Trajectory
    from pdesurrogate.metrics.base import RolloutMetric
    from pdesurrogate.metrics.plan import RolloutPlan
    from pdesurrogate.physics.conservation.laws import ConservationLaw
    from pdesurrogate.steppers.base import Stepper


def build_parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    parser = argparse.ArgumentParser(
        prog="pdesurrogate evaluate",
        description="Roll out a model over a split, measure it, and write report.json, report.nc and figures.",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        metavar="CKPT",
        help="a trained surrogate; several (seeds of one network, for example) are rolled out as an ensemble",
    )
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
        help="the solver that made the data, on N points a side at its largest stable time step (found on the "
        "validation split); of enclosed flows, on N cells along the shorter side at the largest step that it accepts",
    )
    parser.add_argument(
        "--wrap",
        type=Path,
        metavar="YAML",
        help="steppers to put around the model, a list of class_path and init_args, the innermost first; "
        "default: those that a checkpoint was trained with",
    )
    parser.add_argument(
        "--conserve",
        type=Path,
        metavar="YAML",
        help="condition each frame on a conservation law, given by class_path and init_args, for example "
        "pdesurrogate.physics.conservation.KeptMeans, and measure how far the law is broken",
    )
    parser.add_argument(
        "--conserve-where",
        choices=("loop", "output", "nowhere"),
        default="loop",
        help="condition before the next step, only what is measured, or measure the law alone; default: %(default)s",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR|YAML",
        help="an archive, or a YAML file with class_path and init_args of an adapter, for example "
        "pdesurrogate.data.adapters.cfdbench.adapter.CfdBench",
    )
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--subset", metavar="NAME", help="measure the cases of one subset alone, such as bc, prop or geo; default: all"
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="frames to predict; default: as many as all trajectories have"
    )
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
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="which metrics: periodic_2d, periodic_3d, channel, enclosed_2d, scalar_1d, or the import path of a "
        "function of a RolloutPlan; default: by the data",
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        metavar="YAML",
        help="further metrics: a name, then class_path and init_args, for each",
    )
    parser.add_argument(
        "--residual",
        action="store_true",
        help="also measure the PDE residual, with the solver that made the data (takes a solver step a frame)",
    )
    parser.add_argument(
        "--solver-sweep",
        type=int,
        nargs="*",
        metavar="N",
        help="also run the solver that made the data, on N points a side (default: from an eighth of the data's to its "
        "own) at several time steps, and state the speed-up at equal error and the break-even number of rollouts",
    )
    parser.add_argument(
        "--one-step",
        action="store_true",
        help="also measure the frame after every window of true frames, as papers average their one-step error",
    )
    parser.add_argument(
        "--free-run",
        type=_frames,
        metavar="N",
        help="of a channel: also roll out N frames, beyond the end of the truth, and compare their statistics with "
        "those of all frames of the data",
    )
    parser.add_argument(
        "--misalignment",
        action="store_true",
        help="of a SineNet: also measure how far features move over each wave, and skips against upsampled features",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report and figures")
    parser.add_argument("--name", help="label in tables")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    parser.add_argument("--no-figures", action="store_true", help="write the report alone")
    return parser


def _frames(text: str) -> int:
    """A number of frames, as argparse takes a type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"Expected a number of frames of at least 1 but got {text!r}.")
    return int(text)


def main(argv: list[str]) -> int:
    """Run the verb; the exit status, 1 if a self-check failed."""
    arguments = build_parser().parse_args(argv)

    from pdesurrogate.cli.terminal import choose_device, joined_processes

    with joined_processes() as (rank, device_number):
        device = choose_device(arguments.device, device_number)
        return _evaluate(arguments, argv, device, writes=rank == 0)


def _evaluate(arguments: argparse.Namespace, argv: list[str], device: str, *, writes: bool) -> int:
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.data.subsets import Subset
    from pdesurrogate.evaluation.channel.free_run import add_free_run, free_run_lines
    from pdesurrogate.evaluation.checks import failed_checks
    from pdesurrogate.evaluation.evaluator import Evaluator
    from pdesurrogate.evaluation.misalignment import add_misalignment
    from pdesurrogate.evaluation.one_step import add_one_step

    data, described = data_from(arguments.data)
    measured = data if arguments.subset is None else Subset(data, arguments.subset)
    trajectories = measured.trajectories(arguments.split)
    _require_periodic_where_spectral(arguments, data.metadata)
    stepper, card = _model(arguments, data, trajectories, device)
    law = None if arguments.conserve is None else _law_from(arguments.conserve)
    if law is not None and arguments.conserve_where != "nowhere":
        stepper, card = _conserving(stepper, card, law, arguments.conserve_where, trajectories[0].metadata)
    if arguments.name is not None:
        card = replace(card, name=arguments.name)
    start = stepper.history_frames if arguments.start_frame is None else arguments.start_frame
    frames = _frames_of_all(trajectories, start) if arguments.frames is None else arguments.frames
    bounds = None if arguments.bounds is None else tuple(arguments.bounds)
    evaluator = Evaluator(
        _suite(arguments.suite),
        metrics=_further_metrics(arguments, trajectories[0], law),
        batch_size=arguments.batch_size,
        device=device,
        bounds=bounds,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)  # refuse a bad place before the work
    misalignment = _misalignment(stepper, trajectories, device) if arguments.misalignment else None
    with progress_bar(f"rolling out {card.name}", unit="trajectories") as progress:
        report = evaluator(
            stepper,
            trajectories,
            frames,
            model=card,
            # Tables are told apart by the split, so that those of a subset never meet others.
            split=arguments.split if arguments.subset is None else f"{arguments.split}/{arguments.subset}",
            start_frame=start,
            command=shlex.join(["pdesurrogate", "evaluate", *argv]),
            on_batch=progress,
        )
    if described is not None and not isinstance(data, Archive):
        report = _with_recipe(report, {**(report.attributes["data"]["recipe"] or {}), "adapter": described})
    if writes:
        report.save(arguments.out)  # what follows may refuse the data or take long
    if arguments.one_step:
        with progress_bar("single steps", unit="windows") as progress:
            report = add_one_step(report, evaluator, stepper, trajectories, on_batch=progress)
    if arguments.free_run is not None:
        everything = [trajectory for split in measured.splits for trajectory in measured.trajectories(split)]
        with progress_bar(f"free run of {arguments.free_run} frames", unit="trajectories") as progress:
            report = add_free_run(
                report, evaluator, stepper, trajectories, arguments.free_run, everything, on_batch=progress
            )
    if misalignment is not None:
        report = add_misalignment(report, misalignment)
    if writes:
        report.save(arguments.out)
    if arguments.solver_sweep is not None:
        validation = data.trajectories("val")
        report = with_solver_sweep(report, evaluator, stepper, trajectories, validation, arguments.solver_sweep or None)
    failures = failed_checks(report)
    if writes:
        report.save(arguments.out)
        if not arguments.no_figures:
            draw(report, evaluator, {card.name: stepper}, trajectories, arguments.out)
        print(score_lines([report]))
        print("\n".join(channel_lines(report, trajectories[0].metadata, arguments.data)), end="")
        if arguments.free_run is not None:
            print("\n".join(free_run_lines(report)))
        for trajectory, lead_time in stopped(report):
            print(f"trajectory {trajectory} stopped at lead time {lead_time:g}: not finite or out of bounds")
        if arguments.solver_sweep is not None:
            print("\n".join(cost_lines(report)))
        print(arguments.out / "report.json")
        for failure in failures:
            print(f"self-check failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def data_from(path: Path) -> tuple[Adapter, dict[str, Any] | None]:
    """A data set: an archive, or what a YAML file says, then with that in plain values."""
    from pdesurrogate.data.adapters.base import Adapter
    from pdesurrogate.data.archive import Archive

    if path.suffix not in YAML_SUFFIXES:
        return Archive(path), None
    adapter, plain = instance_of(Adapter, read_yaml(path), f"{path} is no data set")
    return adapter, plain


def _frames_of_all(trajectories: Sequence[Trajectory], start: int) -> int:
    """As many frames from ``start`` on as all trajectories have; words on standard error where some have more."""
    lengths = [len(trajectory) for trajectory in trajectories]
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    if shortest < longest:
        print(
            f"trajectories have {shortest} to {longest} frames; measuring up to frame {shortest - 1}, which all have. "
            "--frames measures fewer.",
            file=sys.stderr,
        )
    return max(shortest - start, 1)


def _require_periodic_where_spectral(arguments: argparse.Namespace, metadata: Metadata) -> None:
    """Refuse what needs a solver that is resampled by Fourier series, before any work."""
    from pdesurrogate.evaluation.coarse_flow import enclosed_flow_of

    if all(axis.period is not None for axis in metadata.grid.axes):
        return
    asked = {
        "--residual": arguments.residual,
        "--solver-sweep": arguments.solver_sweep is not None,
        # That of enclosed flows is not spectral.
        "--coarse-solver": arguments.coarse_solver is not None and enclosed_flow_of(metadata) is None,
    }
    cures = {
        "--residual": "add a ResidualMetric with a solver of your own by --metrics",
        "--solver-sweep": "measure single settings of the solver with --coarse-solver or --stepper",
        "--coarse-solver": "give a solver of your own with --stepper",
    }
    for option in (option for option, wanted in asked.items() if wanted):
        raise ValueError(
            f"Expected data in a periodic box for {option}, which takes Fourier series, but {metadata.name!r} is not "
            f"periodic along all axes; {cures[option]}."
        )


def _with_recipe(report: Report, recipe: dict[str, Any]) -> Report:
    return replace(report, attributes={**report.attributes, "data": {**report.attributes["data"], "recipe": recipe}})


def _misalignment(stepper: Stepper, trajectories: Sequence[Trajectory], device: str) -> Misalignment:
    from pdesurrogate.evaluation.misalignment import measure_misalignment, shuffled_windows
    from pdesurrogate.steppers.surrogate import Surrogate

    if not isinstance(stepper, Surrogate):
        raise ValueError("Expected the checkpoint of one SineNet for --misalignment; leave the option out.")
    return measure_misalignment(stepper.to(device), shuffled_windows(trajectories, stepper))


def with_solver_sweep(
    report: Report,
    evaluator: Evaluator,
    stepper: Stepper,
    trajectories: Sequence[Trajectory],
    validation: Sequence[Trajectory],
    resolutions: Sequence[int] | None,
) -> Report:
    """The ``report`` that an evaluator made of ``stepper``, with the cost beside the solver at many settings."""
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.evaluation.baselines import solver_sweep
    from pdesurrogate.evaluation.cost import cost_of
    from pdesurrogate.evaluation.evaluator import Evaluator
    from pdesurrogate.metrics.errors import ErrorMetric

    data, device = report.attributes["data"], str(evaluator.device)
    errors_alone = Evaluator(
        lambda plan: {"errors": ErrorMetric(plan)},
        batch_size=evaluator.batch_size,
        device=device,
        bounds=evaluator.bounds,
    )

    def evaluate(candidate: Stepper) -> Report:
        return errors_alone(
            candidate, trajectories, data["frames"], split=data["split"], start_frame=data["start_frame"]
        )

    with progress_bar("measuring the solver beside it", unit="parts") as progress:
        sweep, (performance,) = solver_sweep(
            validation, evaluate, resolutions, models=(stepper,), device=device, progress=progress
        )
    before = report.attributes["cost"]
    memory = {key: before[key] for key in ("peak_memory_bytes", "module_bytes")}
    return replace(
        report, attributes={**report.attributes, "cost": cost_of(report, performance, sweep, **memory).to_dict()}
    )


def _suite(name: str | None) -> Suite | None:
    """A function of a plan: one of ours by its name, or any by its import path."""
    from jsonargparse import ArgumentError, ArgumentParser

    from pdesurrogate.metrics.suites import SUITES

    if name is None:
        return None
    ours = {suite.__name__: suite for suite in SUITES}
    if name in ours:
        return ours[name]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--suite", type=Callable)
    try:
        found: Suite = parser.parse_object({"suite": name}).suite
    except (ArgumentError, ValueError) as error:
        raise ValueError(f"Expected a suite among {[*ours]} or the import path of one but got {name!r}.") from error
    return found


def _further_metrics(
    arguments: argparse.Namespace, trajectory: Trajectory, law: ConservationLaw | None
) -> dict[str, Callable[[RolloutPlan], RolloutMetric]]:
    """Metrics by class path from a YAML file, and those of residual and law where they are asked for."""
    from functools import partial

    from jsonargparse import ArgumentError, ArgumentParser

    from pdesurrogate.metrics.base import RolloutMetric
    from pdesurrogate.metrics.plan import RolloutPlan

    metrics: dict[str, Callable[[RolloutPlan], RolloutMetric]] = {}
    if arguments.metrics is not None:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--metrics", type=dict[str, Callable[[RolloutPlan], RolloutMetric]])
        try:
            config = parser.parse_object({"metrics": read_yaml(arguments.metrics)})
            metrics = dict(parser.instantiate(config).metrics)
        except (ArgumentError, ValueError, TypeError) as error:
            raise ValueError(f"{arguments.metrics} names no metrics: {error}") from error
    if arguments.residual:
        from pdesurrogate.evaluation.recipes import equation_solver
        from pdesurrogate.metrics.residual import ResidualMetric

        solver = equation_solver(trajectory.metadata, trajectory.shape[2:])
        if solver is None:
            raise ValueError(
                f"Expected data that one of our solvers made for --residual but {trajectory.metadata.name!r} names "
                "none; add a ResidualMetric with a solver of your own by --metrics."
            )
        metrics["residual"] = partial(ResidualMetric, march=solver)
    if law is not None:
        from pdesurrogate.metrics.law import LawMetric

        metrics["law"] = partial(LawMetric, law=law)
    return metrics


def _model(
    arguments: argparse.Namespace, data: Adapter, trajectories: Sequence[Trajectory], device: str
) -> tuple[Stepper, ModelCard]:
    stepper: Stepper
    if arguments.checkpoint is not None:
        from pdesurrogate.training.case_regression import case_forecast, holds_case_network

        if len(arguments.checkpoint) == 1 and holds_case_network(arguments.checkpoint[0]):
            if arguments.wrap is not None:
                raise ValueError(
                    "Expected no --wrap around a network of parameters, time and place: it takes no steps."
                )
            start = 1 if arguments.start_frame is None else arguments.start_frame
            frames = arguments.frames or _frames_of_all(trajectories, start)
            return case_forecast(arguments.checkpoint[0], trajectories, start, frames)
        stepper, card = surrogate_from(*arguments.checkpoint, wrap=arguments.wrap)
    elif arguments.coarse_solver is not None:
        from pdesurrogate.evaluation.baselines import coarse_solver
        from pdesurrogate.evaluation.coarse_flow import coarse_flow, enclosed_flow_of

        if enclosed_flow_of(data.metadata) is not None:
            stepper, card = coarse_flow(trajectories, arguments.coarse_solver)
        else:
            stepper, card = coarse_solver(data.trajectories("val"), arguments.coarse_solver, device)
    else:
        stepper, card = stepper_from(arguments.stepper)
    if arguments.wrap is not None and arguments.checkpoint is None:
        from pdesurrogate.steppers.wrappers import wrappers_of

        stepper = _wrapped_by(arguments.wrap, stepper)
        card = replace(card, config={**card.config, "wrappers": wrappers_of(stepper)})
    return stepper, card


def _wrapped_by(path: Path, stepper: Stepper) -> Stepper:
    """The stepper with what a YAML file says around it."""
    from jsonargparse import ArgumentError, ArgumentParser
    from torch import nn

    from pdesurrogate.steppers.base import Stepper
    from pdesurrogate.steppers.wrappers import wrapped

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--wrap", type=list[Callable[[Stepper], nn.Module]])
    try:
        config = parser.parse_object({"wrap": read_yaml(path)})
        return wrapped(stepper, parser.instantiate(config).wrap)
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{path} names no steppers to put around a {type(stepper).__name__}: {error}") from error


def _law_from(path: Path) -> ConservationLaw:
    from pdesurrogate.physics.conservation.laws import ConservationLaw

    law: ConservationLaw = instance_of(ConservationLaw, read_yaml(path), f"{path} names no conservation law")[0]
    return law


def _conserving(
    stepper: Stepper, card: ModelCard, law: ConservationLaw, where: str, metadata: Metadata
) -> tuple[Stepper, ModelCard]:
    """The stepper conditioned on a law, by whatever it knows of its own uncertainty."""
    from pdesurrogate.steppers.base import ProbabilisticStepper
    from pdesurrogate.steppers.ensemble import EnsembleStepper
    from pdesurrogate.steppers.probconserv import (
        ProbConserv,
        ProbConservEnsemble,
        ProbConservOutput,
        ProbConservPredicted,
    )
    from pdesurrogate.steppers.wrappers import wrappers_of

    if where == "output":
        if isinstance(stepper, ProbabilisticStepper | EnsembleStepper):
            raise ValueError(
                "Expected a single prediction for --conserve-where output but the model states a variance or is an "
                "ensemble, which are conditioned inside the loop; leave the option out."
            )
        around: Stepper = ProbConservOutput(stepper, law, metadata=metadata)
    elif isinstance(stepper, EnsembleStepper):
        around = ProbConservEnsemble(stepper, law, metadata=metadata)
    elif isinstance(stepper, ProbabilisticStepper):
        around = ProbConservPredicted(stepper, law, metadata=metadata)
    else:
        around = ProbConserv(stepper, law, metadata=metadata)
    place = "" if where == "loop" else " of the output"
    config = {**card.config, "wrappers": wrappers_of(around)}
    return around, replace(card, name=f"{card.name} + ProbConserv{place}", config=config)


def surrogate_from(*checkpoints: Path, wrap: Path | None = None) -> tuple[Stepper, ModelCard]:
    """A trained surrogate and its card, everything read from the checkpoint; an ensemble if there are several.

    Around each is what it was trained with, or else what the YAML file ``wrap`` says.
    """
    from pdesurrogate.evaluation.card import ModelCard
    from pdesurrogate.steppers.ensemble import Ensemble

    members = [_surrogate_from(checkpoint, wrap) for checkpoint in checkpoints]
    if len(members) == 1:
        return members[0]
    stepper = Ensemble([surrogate for surrogate, _ in members])
    cards = [card for _, card in members]
    records = [card.training for card in cards if card.training is not None]
    together = None
    if len(records) == len(cards):
        added = {key: sum(record[key] for record in records) for key in ("steps", "epochs", "wall_time_s")}
        together = {**records[0], **added}
    card = ModelCard.of(
        stepper,
        f"{cards[0].name} ensemble of {len(cards)}",
        "surrogate",
        config={"members": [{**card.config, "checkpoint": card.checkpoint} for card in cards]},
        parameters_without_gradient=tuple(
            f"member {number}: {name}" for number, card in enumerate(cards) for name in card.parameters_without_gradient
        ),
        training=together,
    )
    return stepper, card


def _surrogate_from(checkpoint: Path, wrap: Path | None) -> tuple[Stepper, ModelCard]:
    from pdesurrogate.evaluation.card import ModelCard
    from pdesurrogate.evaluation.provenance import checkpoint_record
    from pdesurrogate.steppers.surrogate import Surrogate, load_checkpoint
    from pdesurrogate.steppers.wrappers import wrapped, wrappers_from, wrappers_of

    surrogate = Surrogate.from_checkpoint(checkpoint)
    training = load_checkpoint(checkpoint).get("training") or {}
    specification = surrogate.specification()
    network = specification["network"]
    architecture = network["init_args"].get("architecture")
    config = {key: value for key, value in specification.items() if key not in ("format", "metadata")}
    trained_with = (training.get("settings") or {}).get("wrappers", ())
    stepper = wrapped(surrogate, wrappers_from(trained_with)) if wrap is None else _wrapped_by(wrap, surrogate)
    if wrappers := wrappers_of(stepper):
        config["wrappers"] = wrappers
    card = ModelCard.of(
        stepper,
        network["class_path"].rpartition(".")[2] + (f" {architecture}" if architecture else ""),
        "surrogate",
        class_path=network["class_path"],
        config=config,
        parameters_without_gradient=tuple(training.pop("parameters_without_gradient", ())),
        checkpoint=checkpoint_record(checkpoint),
        checkpoint_path=checkpoint,
        training=training or None,
    )
    return stepper, card


def stepper_from(given: str) -> tuple[Stepper, ModelCard]:
    """A stepper from an import path or a YAML file."""
    from pdesurrogate.evaluation.card import ModelCard
    from pdesurrogate.steppers.base import Stepper

    value: Any = read_yaml(Path(given)) if given.endswith(YAML_SUFFIXES) else given
    stepper, plain = instance_of(Stepper, value, f"{given} is no stepper")
    return stepper, ModelCard.of(stepper, config=plain)


def draw(
    report: Report,
    evaluator: Evaluator,
    steppers: dict[str, Stepper],
    trajectories: Sequence[Trajectory],
    out: Path,
    others: Sequence[Report] = (),
) -> list[Path]:
    """Error curves, spectra, densities, profiles, forces; snapshots and film of the first trajectory.

    Channels are in wall units by the gradient at their walls, on coarse grids too: stored fields are filtered, which
    the momentum balance does not bear (`ChannelMetric`). The profiles' figure says so and how far apart both are.
    The first of ``steppers`` is the one that ``report`` measures and the film shows. The files that were written.
    """
    from functools import partial

    from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics
    from pdesurrogate.evaluation.misalignment import Misalignment
    from pdesurrogate.viz.centerlines import plot_rollout_centerlines
    from pdesurrogate.viz.curves import plot_error_curves
    from pdesurrogate.viz.distributions import plot_density
    from pdesurrogate.viz.forces import plot_rollout_forces
    from pdesurrogate.viz.misalignment import plot_misalignment
    from pdesurrogate.viz.plane_spectra import plot_plane_spectra
    from pdesurrogate.viz.profiles import plot_channel_profiles
    from pdesurrogate.viz.spectra import plot_coherence, plot_spectra
    from pdesurrogate.viz.style import save_figure
    from pdesurrogate.viz.vortices import plot_q_criterion

    metadata = trajectories[0].metadata
    reports = [report, *others]
    files = [save_figure(plot_error_curves(reports), out / "errors.png")]
    published = _published(metadata)
    for variable, name, plot in (
        ("energy_spectrum_prediction", "spectra", plot_spectra),
        ("coherence", "coherence", plot_coherence),
        ("density_prediction", "density", plot_density),
        ("mean_velocity_plus_prediction", "profiles", partial(plot_channel_profiles, reference=published)),
        ("q_criterion_density_prediction", "q_criterion", plot_q_criterion),
        ("centerline_velocity_x_truth", "centerlines", plot_rollout_centerlines),
        ("drag_truth", "forces", plot_rollout_forces),
    ):
        # Bodies on a wall have no forces: all are NaN.
        if variable in report.curves and bool(report.curves[variable].notnull().any()):
            files.append(save_figure(plot(reports), out / f"{name}.png"))
    if {"mean_velocity_plus_prediction", "line_spectrum_x_prediction"} <= set(report.curves):
        channels = {"truth": WallUnitStatistics.of_report(report.curves, "truth")}
        for each in reports:
            label = each.attributes["model"]["name"]
            channels[label] = WallUnitStatistics.of_report(each.curves, "prediction")
        for axis in ("x", "z"):
            picture = plot_plane_spectra(channels, axis=axis, reference=published)
            files.append(save_figure(picture, out / f"plane_spectra_{axis}.png"))
    if "misalignment" in report.attributes:
        found = Misalignment.from_dict(report.attributes["misalignment"])
        files.append(save_figure(plot_misalignment(found), out / "misalignment.png"))
    if len(metadata.grid.axes) != 2:
        return files
    return files + _draw_fields(report, evaluator, steppers, trajectories, out)


def _draw_fields(
    report: Report,
    evaluator: Evaluator,
    steppers: dict[str, Stepper],
    trajectories: Sequence[Trajectory],
    out: Path,
) -> list[Path]:
    """Snapshots, film and, where the first axis is periodic, space-time picture of the first trajectory in a plane."""
    import torch

    from pdesurrogate.metrics.centerlines import bounds_of
    from pdesurrogate.viz.snapshots import plot_snapshots, save_film
    from pdesurrogate.viz.spacetime import plot_spacetime
    from pdesurrogate.viz.style import save_figure

    data, metadata, context = report.attributes["data"], trajectories[0].metadata, trajectories[0].context
    ends = [
        (0.0, axis.period) if axis.period is not None else bounds_of(points, axis, cells=metadata.cell_centered)
        for points, axis in zip(context.coordinates, metadata.grid.axes, strict=True)
    ]
    # Bounds told from coordinates in single precision are zero to a millionth of the extent.
    (low_x, high_x), (low_y, high_y) = ((0.0 if abs(low) < 1e-6 * (high - low) else low, high) for low, high in ends)
    place: dict[str, Any] = {
        "extent": (high_x - low_x, high_y - low_y),
        "origin": (low_x, low_y),
        "mask": context.mask,
    }
    predictions: dict[str, torch.Tensor] = {}
    for name, stepper in steppers.items():
        sample, truth = evaluator.sample_rollout(stepper, trajectories, data["frames"], start_frame=data["start_frame"])
        predictions[name] = sample[0, :, 0]
    truth = truth[0, :, 0]
    channel = metadata.channels[0]
    lead_times = report.curves["lead_time"].values.tolist()
    units: dict[str, Any] = {
        "label": channel.long_name or channel.name,
        "units": channel.units,
        "length_units": metadata.grid.axes[0].units,
        "time_units": metadata.time_units,
    }
    first = next(iter(predictions))
    files = [save_figure(plot_snapshots(truth, predictions, lead_times, **place, **units), out / "snapshots.png")]
    if metadata.grid.axes[0].period is not None:
        middle = truth.shape[-1] // 2
        picture = plot_spacetime(
            truth[..., middle],
            predictions[first][..., middle],
            lead_times,
            context.coordinates[0].tolist(),
            period=metadata.grid.axes[0].period,
            prediction_label=first,
            **units,
        )
        files.append(save_figure(picture, out / "spacetime.png"))
    film = save_film(
        truth, predictions[first], lead_times, out / "rollout.gif", prediction_label=first, **place, **units
    )
    return [*files, film]


def _published(metadata: Metadata) -> ChannelReference | None:
    """The published channel whose friction Reynolds number is near that of the data, if they state one."""
    from pdesurrogate.evaluation.channel.reference import channel_reference

    stated = metadata.attributes.get("friction_reynolds_number")
    try:
        return None if stated is None else channel_reference(float(stated))
    except (TypeError, ValueError):  # none is near
        return None


def stopped(report: Report) -> list[tuple[int, float]]:
    """Number and lead time of every trajectory that was stopped."""
    times = report.curves["blow_up_time"].dropna("trajectory")
    return [(int(number), float(time)) for number, time in zip(times["trajectory"], times, strict=True)]


def channel_lines(report: Report, metadata: Metadata, data: Path) -> list[str]:
    """A channel beside the statistics of the run that made the data, or else beside published ones; else nothing."""
    import xarray

    from pdesurrogate.evaluation.channel.comparison import compare_with_reference
    from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics

    gathered, published = data / "statistics.nc", _published(metadata)
    if "mean_velocity_plus_prediction" not in report.curves or not (gathered.exists() or published):
        return []
    if gathered.exists():
        name = "what was gathered while the data were made, on the grid that was simulated"
        reference: Any = WallUnitStatistics.of_run(xarray.load_dataset(gathered))
    else:
        assert published is not None
        name, reference = published.name, published
    comparison = compare_with_reference(report, reference, side="prediction")
    return [f"in wall units, beside {name}:", comparison.table(), ""]


def cost_lines(report: Report) -> list[str]:
    """Speed-up at equal error and break-even in words; a number never comes without its reason."""
    speed_up, back = (report.attributes["cost"][key] for key in ("speed_up", "break_even"))
    lines = [speed_up["reason"]]
    if speed_up["value"] is not None:
        bound = "at most " if speed_up["at_most"] else ""
        lines.append(f"speed-up at equal error: {bound}{speed_up['value']:.2g}")
    return [*lines, f"break-even: {back['reason']}"]


def score_lines(reports: Sequence[Report]) -> str:
    """A short table for the terminal: one line for each report."""
    rows = [("model", "relative L2: first", "mean", "last", "correlation time", "ms per frame")]
    for report in reports:
        scores = report.attributes["scores"]
        found = {key: score["value"] for key, score in scores.items() if score["value"] is not None}
        keys = ("relative_l2_first", "relative_l2", "relative_l2_last")
        cells = [f"{found[key]:.3f}" if key in found else "-" for key in keys]
        time = f"{found['correlation_time']:.2f}" if "correlation_time" in found else "-"
        # Where a solver was measured beside the model, times were taken several times.
        timed = report.attributes["cost"] or report.attributes["run"]
        milliseconds = f"{1e3 * timed['seconds_per_frame']:.2f}"
        rows.append((report.attributes["model"]["name"], *cells, time, milliseconds))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

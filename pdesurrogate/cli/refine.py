"""``pdesurrogate refine``: make predictions obey the equation, iteration by iteration, beside the plain solver."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from pdesurrogate.data.archive import Archive
    from pdesurrogate.evaluation.card import ModelCard
    from pdesurrogate.evaluation.evaluator import Evaluator
    from pdesurrogate.evaluation.refinement import RefinementTrial
    from pdesurrogate.evaluation.report import Report
    from pdesurrogate.fields.grid import Metadata
    from pdesurrogate.fields.trajectory import Trajectory
    from pdesurrogate.physics.residuals import March
    from pdesurrogate.simulators.navier_stokes import NavierStokes2d
    from pdesurrogate.steppers.base import Stepper
    from pdesurrogate.steppers.refinement.base import Method, Residual
    from pdesurrogate.steppers.spectral_refiner import SpectralRefiner
    from pdesurrogate.steppers.surrogate import Surrogate

METHODS = {"newton": "Newton", "parareal": "parareal", "lbfgs": "L-BFGS", "adam": "Adam", "released": "released recipe"}
# Of the released notebooks, without and with a forcing; in the units of their last layer.
_RELEASED = {"iterations": 100, "bias_rate": 1e-2, "weight_rate": 1e-4}
_RELEASED_FORCED = {"iterations": 50, "bias_rate": 2e-1, "weight_rate": 1e-4}
_RELEASED_MODES_T = 6
# Rows of the printed table.
_ROWS = 9


def build_parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    parser = argparse.ArgumentParser(
        prog="pdesurrogate refine",
        description="Refine the predictions of a trained network with the equation itself, without knowing the truth; "
        "measure error, residual and time after every iteration, and the plain solver's time to the same error.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="CKPT", help="a trained surrogate")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="an archive")
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="newton",
        help="newton, parareal: all frames at once, for any network; lbfgs, adam: the last layer of an SFNO, enlarged; "
        "released: as the authors' notebooks have it, with their blind residual; default: %(default)s",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        metavar="N",
        help="at most; default: newton 3, parareal 5, lbfgs 40, adam 100, released 100 or, with a forcing, 50",
    )
    parser.add_argument(
        "--modes",
        type=int,
        nargs=3,
        metavar=("X", "Y", "T"),
        help="waves of the enlarged last layer, default: all that the solver keeps, released: a quarter of the points "
        "and 6 in time; with newton, what the update is projected on, default: nothing",
    )
    parser.add_argument(
        "--residual",
        choices=("defect", "analytic"),
        help="of lbfgs and adam: the one-interval defect of the solver (default), or the equation with the exact time "
        "derivative of the last layer",
    )
    parser.add_argument(
        "--order", type=float, metavar="S", help="of the Sobolev norm that measures the residual; default: -1"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="SIZE",
        help="residual at which a trajectory is done, over the size of its change in time or, where that is larger, "
        "of the prediction's residual; default: 1e-9, released: 0",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="frames refined together, newton and parareal only; default: as the network gives",
    )
    parser.add_argument(
        "--steps-per-frame", type=int, metavar="M", help="time steps of the residual's solver; default: as the data's"
    )
    parser.add_argument(
        "--resolution",
        type=int,
        metavar="N",
        help="points a side of the residual's grid, finer than the data's; newton without --modes runs the network on "
        "the data's grid, everything else on this one",
    )
    parser.add_argument(
        "--coarse-sweep",
        type=int,
        nargs=2,
        metavar=("N", "M"),
        help="a cheaper solver for newton's derivative, or for parareal, which needs one: N points a side, M time "
        "steps a frame; in single precision for newton",
    )
    parser.add_argument(
        "--solver",
        metavar="CLASS|YAML",
        help="a solver of your own for the residual, by import path or a YAML file with class_path and init_args; "
        "default: the one that made the data, in double precision",
    )
    parser.add_argument(
        "--frames-at-once",
        type=int,
        metavar="N",
        help="how many frames of each trajectory the solver steps side by side; fewer take less memory, much less with "
        "lbfgs and adam; default: all",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="frames of the report, block by block; default: one block"
    )
    parser.add_argument(
        "--start-frame", type=int, metavar="N", help="number of the first predicted frame; default: first possible"
    )
    sweep = parser.add_mutually_exclusive_group()
    sweep.add_argument(
        "--solver-sweep",
        type=int,
        nargs="+",
        metavar="N",
        help="points a side at which the plain solver is measured; default: from an eighth of the data's to its own",
    )
    sweep.add_argument("--no-solver-sweep", action="store_true", help="do not measure the plain solver's time")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report and figures")
    parser.add_argument("--name", help="label in tables")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    parser.add_argument("--no-figures", action="store_true", help="write the report alone")
    return parser


def main(argv: list[str]) -> int:
    """Run the verb; the exit status, 1 if a self-check failed."""
    arguments = build_parser().parse_args(argv)
    _check_options(arguments)

    from pdesurrogate.cli.evaluate import score_lines, with_solver_sweep
    from pdesurrogate.cli.terminal import choose_device, progress_bar
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.evaluation.checks import failed_checks
    from pdesurrogate.evaluation.evaluator import Evaluator
    from pdesurrogate.evaluation.refinement import RefinementTrial
    from pdesurrogate.evaluation.refinement_report import add_refinement, add_solver

    device = choose_device(arguments.device)
    archive = Archive(arguments.data)
    trajectories = archive.trajectories(arguments.split)
    if len(trajectories) == 0:
        raise ValueError(f"Expected at least one trajectory but the split {arguments.split!r} is empty.")
    validation = None if arguments.no_solver_sweep else _validation(archive)
    surrogate, plain_card = _surrogate(arguments, trajectories[0])
    refiner, settings = _refiner(arguments, surrogate, trajectories[0])
    resolution = settings["residual"]["resolution"]
    trial = RefinementTrial(
        refiner,
        trajectories,
        resolution=None if resolution == trajectories[0].shape[-1] else resolution,
        start_frame=arguments.start_frame,
        batch_size=arguments.batch_size,
        device=device,
    )
    card = replace(
        plain_card,
        name=arguments.name or f"{plain_card.name} + {METHODS[arguments.method]}",
        class_path=f"{type(refiner).__module__}.{type(refiner).__qualname__}",
        config={**plain_card.config, "refinement": settings},
    )
    arguments.out.mkdir(parents=True, exist_ok=True)  # refuse a bad place before the work
    evaluator = Evaluator(batch_size=arguments.batch_size, device=device)
    frames = trial.frames if arguments.frames is None else arguments.frames
    options: dict[str, Any] = {
        "split": arguments.split,
        "start_frame": trial.start_frame,
        "command": shlex.join(["pdesurrogate", "refine", *argv]),
    }
    # What is wrong with the data is found here, before the work.
    with progress_bar(f"evaluating {plain_card.name}", unit="trajectories") as progress:
        plain = evaluator(trial.surrogate, trajectories, frames, model=plain_card, **options, on_batch=progress)
    with progress_bar("refining and measuring", unit="iterations") as progress:
        trial.measure(progress=progress)
    stepper = trial.replayed if frames == trial.frames else trial.stepper
    with progress_bar(f"evaluating {card.name}", unit="trajectories") as progress:
        report = evaluator(stepper, trajectories, frames, model=card, **options, on_batch=progress)
    report = add_refinement(report, trial, settings)
    report.save(arguments.out)  # before the sweep, which may refuse the data or take long
    if validation is not None:
        with progress_bar("measuring the solver beside it", unit="parts") as progress:
            report = add_solver(report, trial, validation, arguments.solver_sweep, progress=progress)
        if frames != trial.frames:
            sweep = arguments.solver_sweep
            report = with_solver_sweep(report, evaluator, trial.stepper, trajectories, validation, sweep)
        report.save(arguments.out)
    if not arguments.no_figures:
        _draw(report, plain, evaluator, trial, arguments.out)
    print("\n".join([refinement_lines(report), *start_lines(report, plain)]))
    if frames != trial.frames:
        print(f"\n{frames} frames in all, block after block:\n{score_lines([report, plain])}")
    print(arguments.out / "report.json")
    failures = failed_checks(report)
    for failure in failures:
        print(f"self-check failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    method = arguments.method
    newton, released = method == "newton", method == "released"
    changes_frames = method in ("newton", "parareal")
    changes_head = "which changes the network's last layer"
    for given, message in (
        (
            changes_frames and arguments.residual == "analytic",
            f"Expected --residual defect with --method {method}; use adam.",
        ),
        (
            released and (arguments.residual is not None or arguments.order is not None),
            "Expected neither --residual nor --order with --method released, which has its own; use adam.",
        ),
        (
            not changes_frames and arguments.coarse_sweep is not None,
            f"Expected no --coarse-sweep with --method {method}; it is for newton and parareal.",
        ),
        (
            method == "parareal" and arguments.coarse_sweep is None,
            "Expected --coarse-sweep N M with --method parareal: it steps through time with a cheap solver.",
        ),
        (
            method == "parareal" and arguments.modes is not None,
            "Expected no --modes with --method parareal, which changes all waves; use newton.",
        ),
        (
            not changes_frames and arguments.window is not None,
            f"Expected no --window with --method {method}, {changes_head}; use newton, or leave it out.",
        ),
        (
            newton and arguments.modes is not None and arguments.window is not None,
            "Expected --modes or --window but not both: the network's last layer gives a block of its own.",
        ),
        (
            arguments.solver is not None and arguments.steps_per_frame is not None,
            "Expected --solver or --steps-per-frame but not both; say how many steps in the solver's YAML file.",
        ),
    ):
        if given:
            raise ValueError(message)


def _validation(archive: Archive) -> Sequence[Trajectory]:
    """Trajectories to find the plain solver's time step on; refuses data for which there is no such solver."""
    from pdesurrogate.evaluation.recipes import recipe_of

    if "simulator" not in (recipe_of(archive.metadata) or {}):
        raise ValueError(
            f"Expected data that one of our solvers made, to measure its time, but {archive.metadata.name!r} carries "
            "no recipe; leave that out with --no-solver-sweep."
        )
    if "val" not in archive.splits or len(archive.trajectories("val")) == 0:
        raise ValueError(
            "Expected trajectories in the split 'val', to find the plain solver's time step on, but there are none; "
            "generate some, or leave the solver out with --no-solver-sweep."
        )
    return archive.trajectories("val")


def _surrogate(arguments: argparse.Namespace, trajectory: Trajectory) -> tuple[Surrogate, ModelCard]:
    """The trained network; refuses other data, and a network without the last layer that a method changes."""
    from pdesurrogate.cli.evaluate import surrogate_from
    from pdesurrogate.models.sfno import SFNO
    from pdesurrogate.steppers.surrogate import Surrogate

    surrogate, card = surrogate_from(arguments.checkpoint)
    if not isinstance(surrogate, Surrogate):
        around = [each["class_path"].rpartition(".")[2] for each in card.config.get("wrappers", ())]
        raise ValueError(
            f"Expected a surrogate that was trained alone, as a refiner changes its frames, but {arguments.checkpoint} "
            f"was trained with {around} around it."
        )
    surrogate.metadata.require_same_fields(trajectory.metadata, what=f"data set {trajectory.metadata.name!r}")
    needs_head = arguments.method not in ("newton", "parareal") or arguments.modes is not None
    if needs_head and not (isinstance(surrogate.network, SFNO) and surrogate.target == "state"):
        option = "--modes" if arguments.method == "newton" else f"--method {arguments.method}"
        raise ValueError(
            f"Expected an SFNO with target 'state' for {option} but got {type(surrogate.network).__name__} with target "
            f"{surrogate.target!r}; refine its frames instead: --method newton without --modes."
        )
    return surrogate, card


def _refiner(
    arguments: argparse.Namespace, surrogate: Surrogate, trajectory: Trajectory
) -> tuple[SpectralRefiner, dict[str, Any]]:
    """The refiner on the grid of its residual, and its settings in plain values."""
    from pdesurrogate.steppers.resampled import Resampled
    from pdesurrogate.steppers.spectral_refiner import SpectralRefiner

    resolution = _resolution(arguments, trajectory)
    march, march_settings = _march(arguments, trajectory.metadata, resolution)
    residual, residual_settings = _residual(arguments, march, trajectory.metadata)
    if arguments.method == "released":
        method, method_settings = _released(arguments, surrogate, march, resolution)
    else:
        method, method_settings = _method(arguments, trajectory.metadata, resolution)
    predicting: Stepper = surrogate
    frames_alone = arguments.method in ("newton", "parareal") and arguments.modes is None
    if resolution != trajectory.shape[-1] and frames_alone:
        # A head on the finer grid needs the network there; frames alone can come from where it was trained.
        predicting = Resampled(surrogate, trajectory.shape[-1])
    tolerance = {} if arguments.tolerance is None else {"tolerance": arguments.tolerance}
    if arguments.method == "released":
        # To its residual every prediction is good enough.
        tolerance = {"tolerance": 0.0, **tolerance}
    refiner = SpectralRefiner(predicting, march, method, residual, window=arguments.window, **tolerance)
    return refiner, {
        "method": {**method_settings, "tolerance": refiner.tolerance, "window": refiner.window},
        "residual": {**residual_settings, "resolution": resolution},
        "march": march_settings,
    }


def _resolution(arguments: argparse.Namespace, trajectory: Trajectory) -> int:
    """Points a side of the residual's grid."""
    stored = trajectory.shape[-1]
    if arguments.resolution is None:
        return stored
    if arguments.resolution < stored:
        raise ValueError(
            f"Expected --resolution of at least the data's {stored} but got {arguments.resolution}; a coarser grid "
            "cannot hold the prediction."
        )
    return int(arguments.resolution)


def _march(arguments: argparse.Namespace, metadata: Metadata, resolution: int) -> tuple[March, dict[str, Any]]:
    """The solver that the residual marches with."""
    from pdesurrogate.cli.evaluate import stepper_from

    if arguments.solver is not None:
        march, card = stepper_from(arguments.solver)
        return march, card.config
    changes = {} if arguments.steps_per_frame is None else {"steps_per_frame": arguments.steps_per_frame}
    return _equation_solver(metadata, resolution, precision="float64", **changes)


def _equation_solver(metadata: Metadata, resolution: int, **changes: Any) -> tuple[NavierStokes2d, dict[str, Any]]:
    """The solver of the data's recipe with some arguments changed, and these arguments."""
    from pdesurrogate.evaluation.recipes import equation_solver, recipe_of

    solver = equation_solver(metadata, (resolution,) * metadata.grid.dimension, **changes)
    if solver is None:
        raise ValueError(
            f"Expected data that one of our solvers made but {metadata.name!r} names none that could give a residual; "
            "give one of your own with --solver."
        )
    simulator = (recipe_of(metadata) or {})["simulator"]
    return solver, {**simulator, "init_args": {**simulator["init_args"], "resolution": resolution, **changes}}


def _residual(arguments: argparse.Namespace, march: March, metadata: Metadata) -> tuple[Residual, dict[str, Any]]:
    """What is made small, and its settings."""
    from pdesurrogate.steppers.refinement.residuals import AnalyticResidual, Defect, SelfStartedResidual

    source = _forcing_of(march)
    if arguments.method == "released":
        return SelfStartedResidual(metadata, source), {"name": "self-started"}
    order = -1.0 if arguments.order is None else arguments.order
    if arguments.residual == "analytic":
        return AnalyticResidual(metadata, source, order), {"name": "analytic", "order": order}
    at_once = arguments.frames_at_once
    return Defect(march, metadata, order, at_once), {"name": "defect", "order": order, "frames_at_once": at_once}


def _forcing_of(march: March) -> Tensor | None:
    """Vorticity source ``(x, y)`` of a solver, perhaps in `Resampled`."""
    from pdesurrogate.steppers.resampled import Resampled

    solver = march.stepper if isinstance(march, Resampled) else march
    field: Tensor | None = getattr(solver, "forcing_field", None)
    return None if field is None else field[0]


def _method(arguments: argparse.Namespace, metadata: Metadata, resolution: int) -> tuple[Method, dict[str, Any]]:
    """How it is made small, and its settings."""
    from pdesurrogate.steppers.refinement.descent import LBFGS, Adam
    from pdesurrogate.steppers.refinement.newton import Newton
    from pdesurrogate.steppers.refinement.parareal import Parareal

    settings: dict[str, Any] = {"name": arguments.method, "modes": arguments.modes}
    count = {} if arguments.iterations is None else {"iterations": arguments.iterations}
    given: dict[str, Any] = {"modes": None if arguments.modes is None else tuple(arguments.modes), **count}
    method: Method
    if arguments.method == "newton":
        # A derivative in single precision is as good as that of a cheaper solver can be.
        sweep, settings["sweep"] = _coarse_sweep(arguments, metadata, resolution, "float32")
        method = Newton(sweep, **given)
    elif arguments.method == "parareal":
        sweep, settings["sweep"] = _coarse_sweep(arguments, metadata, resolution, "float64")
        assert sweep is not None
        method = Parareal(sweep, **count)
    elif arguments.method == "lbfgs":
        method = LBFGS(**given)
    else:
        method = Adam(**given)
    return method, {**settings, "iterations": method.iterations}


def _released(
    arguments: argparse.Namespace, surrogate: Surrogate, march: March, resolution: int
) -> tuple[Method, dict[str, Any]]:
    """Adam as the released notebooks have it: half of what the grid holds in space, six waves in time."""
    from pdesurrogate.models.sfno import SFNO
    from pdesurrogate.steppers.refinement.descent import Adam

    assert isinstance(surrogate.network, SFNO)
    wanted = arguments.modes or (resolution // 4, resolution // 4, _RELEASED_MODES_T)
    x, y, t = (max(new, trained) for new, trained in zip(wanted, surrogate.network.modes, strict=True))
    settings: dict[str, Any] = dict(_RELEASED if _forcing_of(march) is None else _RELEASED_FORCED)
    if arguments.iterations is not None:
        settings["iterations"] = arguments.iterations
    method = Adam((x, y, t), **settings, compat="torch-cfd")
    return method, {"name": "released", "modes": [x, y, t], **settings}


def _coarse_sweep(
    arguments: argparse.Namespace, metadata: Metadata, resolution: int, precision: str
) -> tuple[March | None, dict[str, Any] | None]:
    """A cheaper solver, on the grid of the residual, and its settings; ``None`` where there is to be none."""
    from pdesurrogate.steppers.resampled import Resampled

    if arguments.coarse_sweep is None:
        return None, None
    coarse, steps = arguments.coarse_sweep
    solver, settings = _equation_solver(metadata, coarse, precision=precision, steps_per_frame=steps)
    return (solver if coarse == resolution else Resampled(solver, coarse)), settings


def _draw(report: Report, plain: Report, evaluator: Evaluator, trial: RefinementTrial, out: Path) -> None:
    """The iterations, and the usual figures with the surrogate alone beside."""
    from pdesurrogate.cli.evaluate import draw
    from pdesurrogate.viz.refinement import plot_refinement
    from pdesurrogate.viz.style import save_figure

    save_figure(plot_refinement(report), out / "refinement.png")
    names = [each.attributes["model"]["name"] for each in (report, plain)]
    steppers = dict(zip(names, (trial.stepper, trial.surrogate), strict=True))
    draw(report, evaluator, steppers, trial.trajectories, out, others=[plain])


def refinement_lines(report: Report) -> str:
    """What each iteration was worth, how trajectories ended, and the least error that can be reached."""
    entry, data = report.attributes["refinement"], report.attributes["data"]
    rows = [_row(iteration, entry) for iteration in _shown(entry)]
    title = (
        f"{report.attributes['model']['name']}: {entry['frames']} frames from frame {data['start_frame']} on, "
        f"{data['trajectories']} trajectories of {data['name']}, {data['split']}"
    )
    lines = [title, "", _table(rows), "", *_outcome_lines(entry["outcomes"])]
    lines.append(_solver_line(entry))
    if entry["sweep"] is not None:
        last = entry["iterations"][-1]
        lines.append(f"Iteration {last['iteration']}: {last['reason']}")
    return "\n".join(lines)


def start_lines(report: Report, plain: Report) -> list[str]:
    """A word where a method does not begin with what the surrogate predicts: the released recipe's head is another."""
    if report.attributes["data"]["frames"] != report.attributes["refinement"]["frames"]:
        return []
    start = report.attributes["refinement"]["iterations"][0]["relative_l2"]
    alone = plain.attributes["scores"]["relative_l2"]["value"]
    if start is None or alone is None or math.isclose(start, alone, rel_tol=1e-3):
        return []
    return [
        f"The surrogate alone has a relative L2 error of {alone:.3g}: this method sets up a last layer of its own, "
        f"which begins with {start:.3g}."
    ]


def _solver_line(entry: dict[str, Any]) -> str:
    """What the solver alone makes of the last given frame; with its defect made small, that is what is aimed at."""
    solver, aimed_at = entry["solver"], entry["residual"].get("name") == "defect"
    error = "blows up"
    if solver["relative_l2"] is not None:
        error = f"has a relative L2 error of {solver['relative_l2']:.3g}"
    who = "The residual's own solver" if aimed_at else "The solver of the same equation"
    line = (
        f"{who}, {solver['description']}, {error} at {1e3 * solver['seconds_per_frame']:.3g} ms a frame from the last "
        "given frame on"
    )
    return f"{line}: this is what a refinement with it comes to." if aimed_at else f"{line}."


def _shown(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Iterations evenly spread, the first and the last among them."""
    iterations = entry["iterations"]
    last = len(iterations) - 1
    places = sorted({round(place * last / (_ROWS - 1)) for place in range(_ROWS)})
    return [iterations[place] for place in places]


def _row(iteration: dict[str, Any], entry: dict[str, Any]) -> dict[str, str]:
    """Cells by heading."""

    def number(key: str, scale: float = 1.0) -> str:
        return "-" if iteration[key] is None else f"{scale * iteration[key]:.3g}"

    cells = {
        "iteration": str(iteration["iteration"]),
        "relative L2": number("relative_l2"),
        "residual": number("residual"),
    }
    if entry["residual"].get("name") != "defect":
        cells["defect"] = number("defect")
    cells["ms per frame"] = number("seconds_per_frame", 1e3)
    if entry["sweep"] is None:
        return cells
    bound = "<= " if iteration["at_most"] else ""
    speed_up = number("speed_up")
    return {
        **cells,
        "solver's ms at that error": number("solver_seconds_per_frame", 1e3),
        "speed-up": speed_up if speed_up == "-" else bound + speed_up,
    }


def _table(rows: list[dict[str, str]]) -> str:
    headings = list(rows[0])
    widths = [max(len(heading), *(len(row[heading]) for row in rows)) for heading in headings]
    lines = [[*headings], *([row[heading] for heading in headings] for row in rows)]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def _outcome_lines(outcomes: list[dict[str, Any]]) -> list[str]:
    """A sentence for each way and iteration in which trajectories ended before they were done."""
    together: dict[tuple[str, int], list[str]] = {}
    for each in outcomes:
        if each["outcome"] not in ("converged", "exhausted"):
            together.setdefault((each["outcome"], each["iteration"]), []).append(str(each["trajectory"]))
    lines = []
    for (outcome, iteration), numbers in together.items():
        who, kept = f"Trajectory {numbers[0]}", "its best iterate is kept"
        if len(numbers) > 1:
            who, kept = f"Trajectories {', '.join(numbers)}", "their best iterates are kept"
        lines.append(f"{who} {outcome} at iteration {iteration}; {kept}.")
    return lines

"""Where a refined forecast beats the plain solver at equal error, and where it does not; prints Markdown tables.

    python benchmarks/parallel_in_time.py --data runs/data/ns2d_forced \
        --checkpoint benchmarks/checkpoints/ns2d_forced/fno_seed0.ckpt --output benchmarks/parallel_in_time.md

One trajectory of the forced flow is wanted, on a grid of some points a side, over a window of frames. The plain solver
(ETDRK4, the one that made the data) steps it frame after frame. A refined forecast starts from all frames of the window
at once, from a surrogate or from the solver at its largest useful step. The residual is marched for all frames side by
side; what is then corrected frame after frame costs only that largest step: its derivative with Newton's method, the
step itself with parareal. So it trades arithmetic for fewer calls in a row: it can only win where a call costs more
than its arithmetic, which on a CPU means small grids, and where the wanted accuracy needs many more steps than
stability does.

Errors are relative L2 over the window against the same grid at steps eight times as fine. Times are CPU seconds of the
process on one thread, the shortest of some repetitions that take turns. For each error that may be wanted the fastest
setting of each rival that reaches it on all trajectories counts; plain solvers may take any of the steps listed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.data.archive import Archive
from pdesurrogate.evaluation.provenance import git_commit
from pdesurrogate.evaluation.recipes import recipe_of
from pdesurrogate.fields.batch import collate
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.spectral import resample
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.recipe import build_simulator
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.refinement.newton import Newton
from pdesurrogate.steppers.refinement.parareal import Parareal
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.spectral_refiner import SpectralRefiner
from pdesurrogate.steppers.surrogate import Surrogate

STEPS = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96)
FINE_STEPS = (16, 32, 64)
TARGETS = (1e-3, 1e-5, 1e-7, 1e-8, 1e-9)
ITERATIONS = 4

# The derivative comes from the largest step with this error: one that is merely stable has a useless derivative.
USEFUL = 1e-5


class Outcome(NamedTuple):
    """What one setting reached: the largest error over trajectories, and the mean of their seconds."""

    setting: str
    error: float
    seconds: float


class Case(NamedTuple):
    """A grid and a window."""

    points: int
    frames: int


def solver(recipe: dict[str, object], points: int, steps: int) -> NavierStokes2d:
    """The data's solver on a grid, with so many steps a frame, in double precision."""
    built = build_simulator(recipe, resolution=points, steps_per_frame=steps, precision="float64")
    assert isinstance(built, NavierStokes2d)
    return built


def plain(stepper: Stepper, start: Tensor, context: Context, frames: int) -> Tensor:
    """The window, frame after frame."""
    return torch.cat(list(rollout(stepper, start, context, frames)), dim=1)


def relative_error(frames: Tensor, truth: Tensor) -> float:
    """Over the window; infinite where it is not finite."""
    error = float((frames - truth).norm() / truth.norm())
    return error if math.isfinite(error) else math.inf


def timed_iterates(refiner: SpectralRefiner, start: Tensor, context: Context) -> Iterator[tuple[float, Tensor]]:
    """CPU seconds so far and the frames, after each iteration."""
    spent, begun = 0.0, time.process_time()
    for iterate in refiner.iterates(start, context):
        spent += time.process_time() - begun
        yield spent, iterate.frames
        begun = time.process_time()


@torch.no_grad()
def measure(
    case: Case, recipe: dict[str, object], starts: Sequence[Tensor], context: Context, surrogate: Surrogate, rounds: int
) -> dict[str, list[Outcome]]:
    """Every setting of every rival: plain, refined from the solver at a large step, refined from the surrogate."""
    reference = solver(recipe, case.points, 8 * STEPS[-1])
    truths = [plain(reference, start, context, case.frames) for start in starts]
    found: dict[tuple[str, str], dict[int, tuple[float, float]]] = {}

    def note(rival: str, setting: str, number: int, error: float, seconds: float) -> None:
        of_setting = found.setdefault((rival, setting), {})
        before = of_setting.get(number, (0.0, math.inf))
        of_setting[number] = (max(before[0], error), min(before[1], seconds))

    useful = next(
        steps
        for steps in STEPS
        if all(
            relative_error(plain(solver(recipe, case.points, steps), start, context, case.frames), truth) < USEFUL
            for start, truth in zip(starts, truths, strict=True)
        )
    )
    coarse = solver(recipe, case.points, useful)
    for _ in range(rounds):
        for number, (start, truth) in enumerate(zip(starts, truths, strict=True)):
            for steps in STEPS:
                stepper = solver(recipe, case.points, steps)
                begun = time.process_time()
                frames = plain(stepper, start, context, case.frames)
                note("plain", f"{steps} steps", number, relative_error(frames, truth), time.process_time() - begun)
            rivals = {"from the solver": coarse, "from the surrogate": surrogate}
            methods = {"Newton": Newton(coarse, iterations=ITERATIONS), "parareal": Parareal(coarse, ITERATIONS)}
            fine_steps = [steps for steps in FINE_STEPS if steps > useful]
            for steps, (rival, first), (name, method) in itertools.product(fine_steps, rivals.items(), methods.items()):
                refiner = SpectralRefiner(
                    first,
                    solver(recipe, case.points, steps),
                    method,
                    tolerance=0.0,
                    window=case.frames,
                    metadata=surrogate.metadata,
                )
                for iteration, (seconds, frames) in enumerate(timed_iterates(refiner, start, context)):
                    if iteration:  # before that nothing is refined
                        setting = f"{iteration} of {name}, {steps} steps"
                        note(rival, setting, number, relative_error(frames, truth), seconds)
    outcomes: dict[str, list[Outcome]] = {}
    for (rival, setting), by_trajectory in found.items():
        errors, seconds = zip(*by_trajectory.values(), strict=True)
        outcomes.setdefault(rival, []).append(Outcome(setting, max(errors), sum(seconds) / len(seconds)))
    return outcomes


def fastest(outcomes: Sequence[Outcome], target: float) -> Outcome | None:
    """The quickest setting that is at least as accurate."""
    return min((each for each in outcomes if each.error <= target), key=lambda each: each.seconds, default=None)


def table(case: Case, outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Markdown: one row for each error that may be wanted."""
    lines = [
        f"### {case.points} x {case.points} points, {case.frames} frames",
        "",
        "| wanted error | plain solver | refined, from the solver | ratio | refined, from the surrogate | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for target in TARGETS:
        base = fastest(outcomes["plain"], target)
        cells = [f"{target:.0e}", _cell(base)]
        for rival in ("from the solver", "from the surrogate"):
            best = fastest(outcomes[rival], target)
            cells.append(_cell(best))
            cells.append("-" if base is None or best is None else f"**{base.seconds / best.seconds:.2f}**")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(outcome: Outcome | None) -> str:
    return "not reached" if outcome is None else f"{1e3 * outcome.seconds:.0f} ms ({outcome.setting})"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/data/ns2d_forced"), help="archive of the forced flow")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a surrogate that gives one frame a step")
    parser.add_argument("--points", type=int, nargs="+", default=[16, 24, 32, 64], help="grids")
    parser.add_argument("--frames", type=int, nargs="+", default=[10, 40], help="windows")
    parser.add_argument("--trajectories", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--machine", default="unnamed", help="for the record")
    parser.add_argument("--output", type=Path, help="Markdown file; also printed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trajectories = Archive(arguments.data).trajectories("test")
    surrogate = Surrogate.from_checkpoint(arguments.checkpoint)
    recipe = recipe_of(trajectories[0].metadata)
    if recipe is None:
        raise SystemExit(f"Expected data with a recipe in {arguments.data}; give those of `pdesurrogate generate`.")
    # The solver knows parameters and forcing by itself.
    context = collate([trajectories[0].context])
    lines = [
        "# One trajectory, many frames at once",
        "",
        f"Machine: {arguments.machine}, one thread; torch {torch.__version__}; commit {git_commit()}; "
        f"surrogate {arguments.checkpoint.stem}; {arguments.trajectories} trajectories, each on its own; shortest of "
        f"{arguments.rounds} rounds. What is compared, and how, stands at the top of `benchmarks/parallel_in_time.py`.",
        "",
    ]
    for points in arguments.points:
        starts = [
            resample(trajectories[number].read(0, 1)[None].double(), (points, points))
            for number in range(arguments.trajectories)
        ]
        for frames in arguments.frames:
            case = Case(points, frames)
            begun = time.perf_counter()
            outcomes = measure(case, recipe, starts, context, surrogate, arguments.rounds)
            part = table(case, outcomes)
            print("\n".join(part), f"({time.perf_counter() - begun:.0f} s)", flush=True)
            lines += part
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

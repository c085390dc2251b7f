"""Baselines that belong into every table: persistence, and the equation's own solver on coarser grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdesurrogate.evaluation.card import ModelCard
from pdesurrogate.evaluation.cost import Performance, SolverPoint, SolverSweep
from pdesurrogate.evaluation.recipes import recipe_of
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.physics.spectral import resample
from pdesurrogate.simulators.generation.protocols import Simulator
from pdesurrogate.simulators.recipe import build_simulator
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.resampled import Resampled

# A run and its twin at half the time step must agree this well in mean square at every frame to count as stable.
STABILITY_TOLERANCE = 0.01
# Other trajectories may be faster than those that the step was found on.
STABILITY_MARGIN = 1.1
# How many times the steps of the largest stable time step a sweep takes.
REFINEMENTS = (1, 2, 4)
_MOST_STEPS = 4096
# Finer steps end where they no longer lower the error by as much: they can only cost more.
_WORTHWHILE = 0.95
# Seconds of an evaluation after which its time needs no repetition.
_LONG = 30.0
# As the networks compute; a solver timed in double precision would be a handicapped rival.
_PRECISION = "float32"


def persistence() -> tuple[Persistence, ModelCard]:
    """The last frame repeated: what a model must beat to be worth anything."""
    stepper = Persistence()
    return stepper, ModelCard.of(stepper, "persistence", "baseline")


def coarse_solver(
    trajectories: Sequence[Trajectory], resolution: int, device: str = "cpu"
) -> tuple[Resampled, ModelCard]:
    """The solver that made the data, on ``resolution`` points a side, at its largest stable time step.

    The step is found on trajectories other than those that are measured, and a tenth more steps are taken: what is just
    stable on some trajectories blows up on faster ones.

    Args:
        trajectories: to find that step on, over their whole length; not those of the test split.
        resolution: of the solver's own grid.
        device: to find the step on.

    Raises:
        ValueError: if the data do not carry the recipe of one of our simulators, or no step is stable.
    """
    family = _SolverFamily(trajectories, device)
    found = family.stable_steps(resolution)
    steps = math.ceil(STABILITY_MARGIN * found)
    stepper, solver = family.stepper(resolution, steps)
    config = {
        "resolution": resolution,
        "steps_per_frame": steps,
        "time_step": solver.time_step,
        "precision": _PRECISION,
        "scheme": family.arguments.get("scheme"),
        "largest_stable_steps": found,
        "stable": family.stability,
    }
    sizes = " x ".join([str(resolution)] * family.dimension)
    return stepper, ModelCard.of(stepper, f"solver {sizes}", "solver", config=config)


def default_resolutions(stored: int, simulated: int) -> tuple[int, ...]:
    """Resolutions of a sweep: even, at least 8, from an eighth of the stored one to the one that made the data.

    Example:
        >>> default_resolutions(64, 128)
        (8, 16, 24, 32, 48, 64, 96, 128)
    """
    shares = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1, 3 / 2, 2, 3, 4)
    sizes = {2 * round(share * stored / 2) for share in shares} | {simulated}
    return tuple(sorted(size for size in sizes if 8 <= size <= simulated))


def solver_sweep(
    validation: Sequence[Trajectory],
    evaluate: Callable[[Stepper], Report],
    resolutions: Sequence[int] | None = None,
    *,
    models: Sequence[Stepper] = (),
    device: str = "cpu",
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SolverSweep, tuple[Performance, ...]]:
    """Error and time of the solver that made the data, over resolution and time step, and of models beside it.

    At every resolution it takes the largest stable time step, found as in `coarse_solver`, then half and a quarter of
    it as long as that lowers the error. A resolution that would need more steps than the data were made with is
    skipped. The setting that made the data is measured too, in the recipe's own precision: its time is what data cost.

    All settings and models take their turns in every round, and the shortest time of each counts: what else the machine
    does only adds, and rarely for so long that it spoils every round of one and none of another.

    Args:
        validation: trajectories to find stable steps on; not those that are measured.
        evaluate: gives a stepper's report, always on the same trajectories, frames, batch size, device and threads.
        resolutions: of the solver's grid; by default `default_resolutions`.
        models: to be measured under the same conditions.
        device: to find stable steps on.
        rounds: evaluations of each setting and model; those that take long are evaluated once.
        progress: told (parts done, parts in all).

    Returns:
        The sweep, and the performance of each model.

    Raises:
        ValueError: if the data do not carry the recipe of one of our simulators, or there is no round.
    """
    if rounds < 1:
        raise ValueError(f"Expected at least one round but got {rounds}.")
    family = _SolverFamily(validation, device)
    if resolutions is None:
        resolutions = default_resolutions(validation[0].shape[-1], family.original.shape[-1])
    done, parts = 0, len(resolutions) + 1 + rounds

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, parts)

    rivals = [_Timed(evaluate, model) for model in models]
    advance()
    settings: list[_Setting] = []
    skipped: list[tuple[int, str]] = []
    for resolution in resolutions:
        try:
            found = family.stable_steps(resolution, most=family.original.steps_per_frame)
        except ValueError as refusal:
            skipped.append((resolution, str(refusal)))
        else:
            settings += _refined(family, evaluate, resolution, math.ceil(STABILITY_MARGIN * found))
        advance()
    own, precision = family.original, family.arguments.get("precision", _PRECISION)
    settings.append(_Setting(family, evaluate, own.shape[-1], own.steps_per_frame, precision, makes_data=True))
    advance()
    for _ in range(rounds - 1):
        for timed in (*rivals, *settings):
            timed.again()
        advance()
    method = f"the largest stable time step ({family.stability}), then half and a quarter of it while that helps"
    sweep = SolverSweep(tuple(setting.point for setting in settings), tuple(skipped), method)
    return sweep, tuple(rival.performance for rival in rivals)


class _Timed:
    """A stepper and its evaluations so far."""

    def __init__(self, evaluate: Callable[[Stepper], Report], stepper: Stepper) -> None:
        self._evaluate = evaluate
        self._stepper = stepper
        self._reports = [evaluate(stepper)]

    def again(self) -> None:
        """Evaluate once more, unless that takes long."""
        if self._reports[0].attributes["run"]["wall_time_s"] < _LONG:
            self._reports.append(self._evaluate(self._stepper))

    @property
    def performance(self) -> Performance:
        """Error and shortest time."""
        return Performance.of_reports(self._reports)


class _Setting(_Timed):
    """A setting of the solver and its evaluations so far."""

    def __init__(
        self,
        family: _SolverFamily,
        evaluate: Callable[[Stepper], Report],
        resolution: int,
        steps: int,
        precision: str = _PRECISION,
        makes_data: bool = False,
    ) -> None:
        stepper, solver = family.stepper(resolution, steps, precision)
        super().__init__(evaluate, stepper)
        self._numbers = resolution, steps, solver.time_step, precision
        self._makes_data = makes_data

    @property
    def point(self) -> SolverPoint:
        """As a sweep holds it."""
        return SolverPoint(*self._numbers, self.performance, self._makes_data)


def _refined(
    family: _SolverFamily, evaluate: Callable[[Stepper], Report], resolution: int, steps: int
) -> list[_Setting]:
    """``steps`` a frame and multiples of it, as long as each lowers the error."""
    settings: list[_Setting] = []
    best = math.inf
    for factor in REFINEMENTS:
        settings.append(_Setting(family, evaluate, resolution, factor * steps))
        error = settings[-1].performance.relative_l2
        # A setting that is unstable on these trajectories needs finer steps all the more.
        if error is not None and error > _WORTHWHILE * best:
            break
        best = best if error is None else error
    return settings


class _SolverFamily:
    """The solver that made a data set, at any resolution and time step.

    Args:
        trajectories: whose recipe it is, and on which stability is judged.
        device: to judge it on.
    """

    def __init__(self, trajectories: Sequence[Trajectory], device: str) -> None:
        if len(trajectories) == 0:
            raise ValueError("Expected trajectories to find a stable time step on but the split is empty.")
        metadata = trajectories[0].metadata
        recipe = recipe_of(metadata)
        if recipe is None or "simulator" not in recipe:
            raise ValueError(
                f"Expected data that one of our simulators made but {metadata.name!r} carries no recipe; "
                "give a solver of your own with --stepper instead of --coarse-solver."
            )
        self._recipe = recipe
        self.original: Simulator = build_simulator(recipe)
        self._device = device
        self._frames = len(trajectories[0]) - 1
        self._start = torch.stack([trajectory.read(0, 1)[0] for trajectory in trajectories])
        self.dimension = metadata.grid.dimension
        self.arguments: dict[str, Any] = recipe["simulator"]["init_args"]
        self.stability = (
            f"mean square within {STABILITY_TOLERANCE:g} of half the step on {len(trajectories)} other trajectories; "
            f"{STABILITY_MARGIN:g} times as many steps taken"
        )

    def build(self, resolution: int, steps: int, precision: str = _PRECISION) -> Simulator:
        """On ``resolution`` points a side with ``steps`` time steps a frame interval, on the device."""
        simulator: Simulator = build_simulator(
            self._recipe, resolution=resolution, steps_per_frame=steps, precision=precision
        )
        if isinstance(simulator, nn.Module):
            simulator.to(self._device)
        return simulator

    def stepper(self, resolution: int, steps: int, precision: str = _PRECISION) -> tuple[Resampled, Simulator]:
        """On the grid of the data, and the bare solver."""
        solver = self.build(resolution, steps, precision)
        return Resampled(solver, resolution), solver  # type: ignore[arg-type]  # every simulator of ours is a stepper

    def stable_steps(self, resolution: int, most: int = _MOST_STEPS) -> int:
        """`largest_stable_step` at a resolution."""
        start = resample(self._start, (resolution,) * self.dimension).to(self._device)
        return largest_stable_step(lambda steps: self.build(resolution, steps), start, self._frames, most)


def largest_stable_step(build: Callable[[int], Simulator], start: Tensor, frames: int, most: int = _MOST_STEPS) -> int:
    """The smallest number of steps per frame interval at which a solver is stable.

    Stable means that the mean square of every trajectory is finite and, at every frame, within `STABILITY_TOLERANCE`
    of what half the time step gives.

    Args:
        build: gives the solver for a number of steps per frame.
        start: states ``(batch, channel, *space)`` to start from.
        frames: number of frames that are run.
        most: steps per frame that are tried.

    Raises:
        ValueError: if none of up to ``most`` steps is stable.
    """
    sizes: dict[int, Tensor] = {}

    def run(steps: int) -> Tensor:
        if steps not in sizes:
            solver, state, squares = build(steps), start, []
            with torch.no_grad():
                for _ in range(frames):
                    state = solver.advance(state, steps)
                    squares.append(state.square().flatten(1).mean(1))
            sizes[steps] = torch.stack(squares)
        return sizes[steps]

    steps = 1
    while steps <= most:
        coarse, fine = run(steps), run(2 * steps)
        # A comparison with NaN is false, so a run that blew up is not stable.
        if bool(((coarse - fine).abs() <= STABILITY_TOLERANCE * fine).all()):
            return steps
        steps = max(steps + 1, round(1.25 * steps))
    raise ValueError(
        f"Expected a stable time step with at most {most} steps a frame but found none; the states may be unfit."
    )

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray

from pdesurrogate.data.archive import Archive
from pdesurrogate.evaluation.baselines import (
    coarse_solver,
    default_resolutions,
    largest_stable_step,
    persistence,
    solver_sweep,
)
from pdesurrogate.evaluation.cost import cost_of, speed_up
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.report import Report
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.recipe import generate, parse_recipe

RECIPE = {
    "name": "tiny",
    "simulator": {
        "class_path": "pdesurrogate.simulators.navier_stokes.NavierStokes2d",
        "init_args": {"resolution": 32, "viscosity": 5e-3, "frame_interval": 0.25, "steps_per_frame": 10},
    },
    "initial_condition": {"class_path": "pdesurrogate.simulators.random_fields.McWilliams"},
    "frames": 5,
    "trajectories": {"train": 0, "val": 2, "test": 2},
    "seed": 0,
    "warm_up": 0.5,
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    recipe, plain = parse_recipe(RECIPE)
    generate(recipe, plain, folder)
    return Archive(folder)


@pytest.fixture(scope="module")
def evaluate(archive):
    evaluator = Evaluator(lambda plan: {"errors": ErrorMetric(plan)})
    return lambda stepper: evaluator(stepper, archive.trajectories("test"), 4, start_frame=1)


def test_a_finer_solver_is_closer_and_all_beat_persistence(archive, evaluate):
    val = archive.trajectories("val")
    models = [persistence(), coarse_solver(val, 16), coarse_solver(val, 24), coarse_solver(val, 32)]
    errors = [evaluate(stepper).attributes["scores"]["relative_l2"]["value"] for stepper, _ in models]
    assert errors == sorted(errors, reverse=True)
    # On the grid of the truth only the time step differs, and the largest stable one is not an accurate one.
    assert errors[-1] < 0.1 * errors[0]


def test_the_step_found_is_the_first_that_agrees_with_its_half(archive):
    start = torch.stack([t.read(0, 1)[0] for t in archive.trajectories("val")])

    def build(steps):
        return NavierStokes2d(32, 5e-3, 0.25, steps)

    steps = largest_stable_step(build, start, frames=4)
    squares = [build(n).advance(start, n).square().mean() for n in (steps, 2 * steps)]  # first frame alone
    assert float((squares[0] / squares[1] - 1).abs()) < 0.01
    assert steps < 10


def test_no_more_steps_are_tried_than_allowed():
    class StableFromFive:
        def __init__(self, steps):
            self.factor = 1.0 if steps >= 5 else math.nan

        def advance(self, state, steps):
            return state * self.factor

    assert largest_stable_step(StableFromFive, torch.ones(1, 1, 4), frames=2) == 5
    assert largest_stable_step(StableFromFive, torch.ones(1, 1, 4), frames=2, most=5) == 5
    with pytest.raises(ValueError, match="at most 4 steps"):
        largest_stable_step(StableFromFive, torch.ones(1, 1, 4), frames=2, most=4)


def test_a_solver_that_is_never_stable_is_refused():
    class Growing:
        def __init__(self, steps):
            self.factor = 1.0 + 1.0 / steps

        def advance(self, state, steps):
            return state * float("nan")

    with pytest.raises(ValueError, match="stable time step"):
        largest_stable_step(Growing, torch.ones(1, 1, 4), frames=1)


def test_data_without_a_recipe_have_no_coarse_solver(waves):
    with pytest.raises(ValueError, match="carries no recipe"):
        coarse_solver(waves.trajectories("val"), 8)
    with pytest.raises(ValueError, match="carries no recipe"):
        solver_sweep(waves.trajectories("val"), lambda stepper: None)


def test_without_validation_trajectories_there_is_no_stable_step():
    with pytest.raises(ValueError, match="split is empty"):
        coarse_solver([], 8)


def test_the_card_says_what_was_run(archive):
    stepper, card = coarse_solver(archive.trajectories("val"), 16)
    assert card.name == "solver 16 x 16"
    assert card.kind == "solver"
    assert json.dumps(card.config)
    assert card.config["time_step"] == pytest.approx(0.25 / card.config["steps_per_frame"])
    assert stepper.metadata.frame_interval == 0.25


@pytest.mark.parametrize(
    ("stored", "simulated", "expected"),
    [
        (64, 64, (8, 16, 24, 32, 48, 64)),
        (64, 256, (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)),
        (32, 32, (8, 12, 16, 24, 32)),
        (50, 50, (12, 18, 24, 38, 50)),
        (64, 512, (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)),
    ],
)
def test_resolutions_reach_from_coarse_to_that_of_the_data(stored, simulated, expected):
    assert default_resolutions(stored, simulated) == expected


# --- the sweep, measured ---


@pytest.fixture(scope="module")
def measured(archive, evaluate):
    parts = []
    val = archive.trajectories("val")
    models = [persistence()[0], coarse_solver(val, 24)[0]]
    with_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sweep, performances = solver_sweep(
        val, evaluate, (9, 16, 24), models=models, rounds=2, progress=lambda done, total: parts.append((done, total))
    )
    torch.set_num_threads(with_threads)
    return sweep, performances, parts


def test_a_sweep_covers_resolution_and_time_step(measured):
    sweep, _, _ = measured
    swept = [point for point in sweep.points if not point.makes_data]
    assert {point.resolution for point in swept} == {16, 24}
    for resolution in (16, 24):
        steps = [point.steps_per_frame for point in swept if point.resolution == resolution]
        assert steps[1:] == [steps[0] * factor for factor in (2, 4)[: len(steps) - 1]]
        assert len(steps) > 1
    assert all(point.time_step == pytest.approx(0.25 / point.steps_per_frame) for point in sweep.points)
    assert all(point.performance.seconds_per_frame > 0 for point in sweep.points)
    assert len({point.performance.conditions for point in sweep.points}) == 1


def test_a_finer_grid_is_more_accurate(measured):
    best = {r: min(p.performance.relative_l2 for p in measured[0].points if p.resolution == r) for r in (16, 24, 32)}
    assert best[32] < best[24] < best[16]


def test_the_solver_that_made_the_data_repeats_them(measured):
    own = measured[0].data_solver
    assert (own.resolution, own.steps_per_frame, own.precision) == (32, 10, "float32")
    # Another batch size than in generation may change the last bits.
    assert own.performance.relative_l2 < 1e-5


def test_a_resolution_that_the_solver_refuses_is_skipped_with_the_reason(measured):
    assert [resolution for resolution, _ in measured[0].skipped] == [9]
    assert "even resolution" in measured[0].skipped[0][1]


def test_progress_counts_to_the_end(measured):
    assert measured[2] == [(done, 6) for done in range(1, 7)]


def test_a_setting_of_the_sweep_is_met_at_its_own_error(measured):
    sweep, (_, solver), _ = measured
    swept = next(point for point in sweep.points if point.resolution == 24)
    assert solver.errors == pytest.approx(swept.performance.errors)
    # Timings of a test scatter; that of the very setting decides.
    same_time = replace(solver, errors=swept.performance.errors)
    found = speed_up(same_time, replace(sweep, points=(swept,)))
    assert found.value == pytest.approx(swept.performance.seconds_per_frame / solver.seconds_per_frame)
    assert not found.at_most


def test_persistence_is_bounded(measured, evaluate):
    sweep, (still, _), _ = measured
    found = speed_up(still, sweep)
    assert still.relative_l2 > max(point.performance.relative_l2 for point in sweep.points)
    assert found.at_most
    cost = cost_of(evaluate(persistence()[0]), still, sweep)
    assert json.dumps(cost.to_dict(), allow_nan=False)


# --- how settings are chosen and timed, without measuring ---


class Bench:
    """Gives made-up reports: errors and times by resolution and steps, one time for each evaluation."""

    def __init__(self, error, seconds=lambda call: 1.0, wall_time=0.1):
        self.error, self.seconds, self.wall_time = error, seconds, wall_time
        self.calls: dict[tuple[int, int], int] = {}

    def __call__(self, stepper):
        key = (stepper.resolution, stepper.stepper.steps_per_frame)
        self.calls[key] = self.calls.get(key, 0) + 1
        attributes = {
            "data": {
                "name": "n",
                "content_hash": "",
                "split": "test",
                "trajectories": 1,
                "start_frame": 1,
                "frames": 1,
            },
            "run": {
                "batch_size": 1,
                "device": "cpu",
                "threads": 1,
                "processes": 1,
                "seconds_per_frame": self.seconds(self.calls[key]),
                "wall_time_s": self.wall_time,
            },
        }
        curve = (("trajectory", "lead_time", "channel"), np.full((1, 1, 1), self.error(*key)))
        return Report(attributes, xarray.Dataset({"relative_l2": curve}))

    def steps_at(self, resolution):
        found = [steps for size, steps in self.calls if size == resolution]
        return [steps / found[0] for steps in found]


def test_steps_are_refined_as_long_as_that_helps(archive):
    val = archive.trajectories("val")
    worthwhile = Bench(lambda resolution, steps: 1.0 / steps)
    solver_sweep(val, worthwhile, (16,), rounds=1)
    assert worthwhile.steps_at(16) == [1, 2, 4]
    futile = Bench(lambda resolution, steps: 0.1)
    solver_sweep(val, futile, (16,), rounds=1)
    assert futile.steps_at(16) == [1, 2]
    unstable = Bench(lambda resolution, steps: math.nan)
    sweep, _ = solver_sweep(val, unstable, (16,), rounds=1)
    assert unstable.steps_at(16) == [1, 2, 4]
    assert sweep.front == ()


def test_every_setting_takes_its_turn_in_every_round_and_its_shortest_time_counts(archive):
    bench = Bench(lambda resolution, steps: 0.1, seconds=lambda call: [3.0, 1.0, 2.0][call - 1])
    sweep, _ = solver_sweep(archive.trajectories("val"), bench, (16, 24), rounds=3)
    assert set(bench.calls.values()) == {3}
    assert {point.performance.seconds_per_frame for point in sweep.points} == {1.0}


def test_what_takes_long_is_evaluated_once(archive):
    bench = Bench(lambda resolution, steps: 0.1, wall_time=1000.0)
    solver_sweep(archive.trajectories("val"), bench, (16,), rounds=3)
    assert set(bench.calls.values()) == {1}


def test_no_round_is_refused(archive):
    with pytest.raises(ValueError, match="at least one round"):
        solver_sweep(archive.trajectories("val"), Bench(lambda *_: 0.1), rounds=0)

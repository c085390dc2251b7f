from __future__ import annotations

import json

import pytest
import torch

from pdesurrogate.data.archive import Archive
from pdesurrogate.evaluation.baselines import coarse_solver, largest_stable_step, persistence
from pdesurrogate.evaluation.evaluator import Evaluator
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


def test_a_finer_solver_is_closer_and_all_beat_persistence(archive):
    evaluator = Evaluator()
    test, val = archive.trajectories("test"), archive.trajectories("val")
    models = [persistence(), coarse_solver(val, 16), coarse_solver(val, 24), coarse_solver(val, 32)]
    errors = []
    for stepper, card in models:
        report = evaluator.evaluate(stepper, test, 4, model=card, start_frame=1)
        errors.append(report.attributes["scores"]["relative_l2"]["value"])
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


def test_the_card_says_what_was_run(archive):
    stepper, card = coarse_solver(archive.trajectories("val"), 16)
    assert card.name == "solver 16 x 16"
    assert card.kind == "solver"
    assert json.dumps(card.config)
    assert card.config["time_step"] == pytest.approx(0.25 / card.config["steps_per_frame"])
    assert stepper.metadata.frame_interval == 0.25

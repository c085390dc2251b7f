"""Scores of the GPME family: those of the authors' draws, and what they are by their definitions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from pdesurrogate.evaluation.gpme import Line, Way, front_of, predicted_line, score, updated
from pdesurrogate.models.neural_process import AttentiveNeuralProcess, Prediction
from pdesurrogate.physics.gpme import PorousMedium, Stefan
from pdesurrogate.simulators.gpme_samples import GpmeSamples

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = {"stefan_u06": (Stefan(), 0.6), "pme_m3": (PorousMedium(), 3.0)}


def golden(name):
    with np.load(GOLDEN / f"probconserv_{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind == "f"}


def line_of(name, draws=100):
    """The authors' draws for one function."""
    known, (equation, parameter) = golden(name), CASES[name]
    prediction = Prediction(
        known["prior_sample_loc"].double()[:draws, None], known["prior_sample_scale"].double().square()[:draws, None]
    )
    front = equation.front(equation.scored_time, torch.tensor([parameter], dtype=torch.float64))
    return Line(prediction, known["x"], known["true_u"][None], known["b"], front), known


@pytest.mark.parametrize("name", CASES)
def test_scores_of_the_authors_draws(name):
    line, known = line_of(name)
    rows = known["scores_MSE_LL_CE"]
    for way, row in (("none", rows[0]), ("mixed_first", rows[1]), ("probconserv", rows[8])):
        found = score(line, updated(line, way))
        for ours, theirs in zip((found.squared_error, found.log_likelihood, found.mass_error), row, strict=True):
            assert float(ours) == pytest.approx(float(theirs), rel=1e-9, abs=1e-12), way
    hard = updated(line, "hard")
    torch.testing.assert_close(hard.mean[0], known["hardc_mean"], rtol=1e-9, atol=1e-12)
    assert float(score(line, hard).squared_error) == pytest.approx(float(rows[6, 0]), rel=1e-9)
    torch.testing.assert_close(
        score(line, updated(line, "none")).mass_error_of_truth, known["Gtrue_minus_b"], rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("way", [way for way in get_args(Way) if way not in ("none", "quadrature_noise")])
def test_the_mass_is_that_of_mean_and_samples(way):
    line, _ = line_of("pme_m3", draws=5)
    field = updated(line, way, samples=20)
    weights = torch.full((201,), 1 / 200, dtype=torch.float64)
    weights[[0, -1]] /= 2
    assert (field.mean @ weights - line.mass).abs().max() < 1e-13
    masses = field.samples @ weights
    if way == "hard":  # its variance is not conditioned
        assert (masses - line.mass).std() > 1e-4
    else:
        assert (masses - line.mass).abs().max() < 1e-12


def test_honest_noise_lies_between():
    line, _ = line_of("stefan_u06")
    errors = {
        way: score(line, updated(line, way)).mass_error.abs() for way in ("none", "probconserv", "quadrature_noise")
    }
    assert errors["probconserv"] < 1e-12 < errors["quadrature_noise"] < errors["none"]


def test_samples_have_the_moments_of_the_mixture():
    line, _ = line_of("stefan_u06", draws=4)
    for way in get_args(Way):
        field = updated(line, way, samples=2_000)
        count = len(field.samples)
        deviation = field.variance.sqrt()
        mean = field.samples.mean(0)
        assert ((mean - field.mean).abs() <= 6 * deviation / count**0.5 + 1e-9).all(), way
        # Between the 201 points there are strong correlations: the mean of all ratios scatters by a few percent.
        wide = deviation > 2e-3
        assert (field.samples.std(0) / deviation)[wide].mean() == pytest.approx(1, abs=0.05), way


def test_a_perfect_mean_has_the_likelihood_of_its_variance():
    line, _ = line_of("pme_m3")
    exact = Prediction(line.truth.expand(100, 1, -1), torch.full_like(line.prediction.variance, 0.01**2))
    found = score(line._replace(prediction=exact), updated(line._replace(prediction=exact), "none"))
    assert float(found.log_likelihood) == pytest.approx(-0.5 * math.log(2 * math.pi * 0.01**2), rel=1e-9)
    assert float(found.squared_error) < 1e-30
    assert float(found.coverage) == 1


def test_standard_errors_are_of_the_mean_over_functions():
    line, _ = line_of("pme_m3")
    several = Line(
        Prediction(*(moment.expand(-1, 3, -1) for moment in line.prediction)), line.x,
        line.truth + 0.1 * torch.arange(3)[:, None], line.mass.expand(3), line.front.expand(3),
    )  # fmt: skip
    scores = score(several, updated(several, "none"))
    mean, error = scores.summary()["squared_error"]
    values = scores.squared_error.numpy()
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / 3**0.5)
    signed, absolute = scores.summary()["mass_error"][0], scores.summary()["absolute_mass_error"][0]
    assert absolute == pytest.approx(abs(signed))


def test_fronts_are_the_first_points_at_which_nothing_is_left():
    x = torch.tensor([0.0, 0.25, 0.5, 1.0])
    values = torch.tensor([[1.0, -0.1, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert front_of(values, x).tolist() == [0.25, 0.0, 1.0]


def test_functions_are_updated_one_by_one():
    network = AttentiveNeuralProcess(width=8, heads=2)
    functions = GpmeSamples(Stefan(), functions=7, split="test", parameters=[0.6]).points()
    line = predicted_line(network, functions, Stefan(), draws=3, points=21)
    assert line.prediction.mean.shape == (3, 7, 21)
    whole = updated(line, "smoothed", samples=3)
    alone = Line(
        Prediction(*(m[:, 6:] for m in line.prediction)), line.x, line.truth[6:], line.mass[6:], line.front[6:]
    )
    torch.testing.assert_close(updated(alone, "smoothed", samples=3).mean[0], whole.mean[6])
    assert whole.samples.shape == (3, 7, 21)


def test_an_unknown_way_is_refused():
    line, _ = line_of("pme_m3")
    with pytest.raises(ValueError, match=r"'none', 'hard'.*but got 'soft'"):
        updated(line, "soft")

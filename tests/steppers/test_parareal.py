"""Parareal: what it shares with Newton's method, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refined_flow import BOX, Given, errors, flow, noise, smooth_noise, solver

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.time_schemes import RK2CrankNicolson
from pdesurrogate.steppers.refinement.base import Problem
from pdesurrogate.steppers.refinement.newton import Newton
from pdesurrogate.steppers.refinement.parareal import Parareal
from pdesurrogate.steppers.refinement.residuals import Defect, SelfStartedResidual
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.spectral_refiner import SpectralRefiner


class Watched:
    """A march that notes how many fields each of its steps was given."""

    def __init__(self, march):
        self.march = march
        self.batches = []

    def step(self, history, context):
        self.batches.append(len(history))
        return self.march.step(history, context)


class Scaled:
    """Every field times a number: a linear march without a solver."""

    def __init__(self, factor):
        self.factor = factor

    def step(self, history, context):
        return self.factor * history[:, -1:]


def cheap():
    return solver(steps_per_frame=1, scheme=RK2CrankNicolson())


def wrong_flow(frames, amplitude, batch=2):
    truth = flow(frames + 1, batch)
    return truth, truth[:, 1:] + smooth_noise(truth[:, 1:], amplitude)


def refine(method, truth, wrong, count=None):
    """Frames after every iteration."""
    refiner = SpectralRefiner(Given(wrong), solver(), method, tolerance=0.0)
    context = solver().context(len(truth))
    problem = refiner._problem(truth[:, :1], context)
    states = [method.begin(problem)]
    for _ in range(method.iterations if count is None else count):
        states.append(method.advance(problem, states[-1]))
    return states


@pytest.mark.parametrize("sweep", [cheap(), Resampled(solver(resolution=8, steps_per_frame=1), 8), Scaled(0.0)])
def test_each_iteration_makes_one_more_frame_exact_whatever_the_sweep(sweep):
    truth, wrong = wrong_flow(5, 0.5)
    states = refine(Parareal(sweep), truth, wrong)
    for number, state in enumerate(states):
        torch.testing.assert_close(state.frames[:, :number], truth[:, 1 : number + 1], rtol=0, atol=1e-13)


def test_with_the_residuals_own_march_one_iteration_is_the_plain_solver():
    truth, wrong = wrong_flow(6, 0.5)
    first = refine(Parareal(solver(), iterations=1), truth, wrong)[1]
    torch.testing.assert_close(first.frames, truth[:, 1:], rtol=0, atol=1e-13)


def test_it_converges_linearly_as_fast_as_the_sweep_is_near():
    truth, wrong = wrong_flow(8, 1e-3)
    near = Resampled(solver(steps_per_frame=2), 16)
    factors = []
    for sweep in (cheap(), near):
        found = torch.stack([errors(state.frames, truth[:, 1:]) for state in refine(Parareal(sweep), truth, wrong, 3)])
        assert bool((found[1:] < 0.2 * found[:-1]).all())
        factors.append(float((found[2] / found[1]).max()))
    assert factors[1] < factors[0] / 10


@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=25)
def test_for_linear_marches_it_is_newtons_method(factor, of_sweep, frames, iterations):
    grid = Grid((Axis("x", period=BOX[0]), Axis("y", period=BOX[1])))
    metadata = Metadata("scaled", grid, (Channel("temperature"),), frame_interval=0.5)
    start, wrong = noise(2, 1, 1, 4, 3), noise(2, frames, 1, 4, 3, seed=1)
    problem = Problem(
        Given(wrong, metadata),
        start,
        wrong,
        Context((torch.zeros(2, 4), torch.zeros(2, 3))),
        Defect(Scaled(factor), metadata),
        BOX,
    )
    ends = []
    for method in (Newton(Scaled(of_sweep)), Parareal(Scaled(of_sweep))):
        state = method.begin(problem)
        for _ in range(iterations):
            state = method.advance(problem, state)
        ends.append(state.frames)
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


def test_only_the_sweep_takes_one_frame_after_the_other():
    truth, wrong = wrong_flow(6, 0.1)
    sweep, march = Watched(cheap()), Watched(solver())
    refiner = SpectralRefiner(Given(wrong), march, Parareal(sweep, iterations=2), tolerance=0.0)
    refiner.step(truth[:, :1], solver().context(2))
    assert sweep.batches == [2 * 6, *[2] * 5, *[2] * 5]
    assert march.batches == [2 * 6] * 3


def test_samples_of_a_batch_are_refined_on_their_own():
    truth, wrong = wrong_flow(4, 0.1, batch=3)
    together = refine(Parareal(cheap(), 2), truth, wrong)[-1].frames
    for sample in range(3):
        alone = slice(sample, sample + 1)
        single = refine(Parareal(cheap(), 2), truth[alone], wrong[alone])[-1].frames
        torch.testing.assert_close(single, together[alone], rtol=0, atol=1e-13)


def test_what_it_cannot_use_is_refused():
    truth, wrong = wrong_flow(3, 0.1)
    with pytest.raises(ValueError, match="iterations of at least 1 but got 0"):
        Parareal(cheap(), iterations=0)
    blind = SelfStartedResidual(replace(solver().metadata, parameters=("viscosity",)))
    with pytest.raises(ValueError, match="the defect of a march for Parareal but got SelfStartedResidual"):
        SpectralRefiner(Given(wrong), solver(), Parareal(cheap()), blind).step(truth[:, :1], solver().context(2))
    with pytest.raises(ValueError, match=r"frames 0\.3 apart but the prediction to refine has 0\.1"):
        refine(Parareal(solver(frame_interval=0.3)), truth, wrong)

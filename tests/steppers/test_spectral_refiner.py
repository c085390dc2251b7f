"""The refiner as a whole: which samples go on, what is kept of each, and what it refuses."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refined_flow import (
    HISTORY,
    INTERVAL,
    SIZE,
    Given,
    errors,
    flow,
    noise,
    smooth_noise,
    solver,
    surrogate,
)
from torch import Tensor

from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.refinement.base import Method, Residual
from pdesurrogate.steppers.refinement.descent import LBFGS, Adam
from pdesurrogate.steppers.refinement.newton import Newton
from pdesurrogate.steppers.refinement.residuals import AnalyticResidual, Defect, SelfStartedResidual
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.spectral_refiner import OUTCOMES, SpectralRefiner

METHODS = [
    pytest.param(Newton(), id="newton"),
    pytest.param(Newton(modes=(6, 6, 4)), id="newton on the head"),
    pytest.param(LBFGS(iterations=2), id="lbfgs"),
    pytest.param(Adam(iterations=2), id="adam"),
]


def refined(refiner, history, context=None):
    """All iterates of a refinement."""
    return list(refiner.iterates(history, solver().context(len(history)) if context is None else context))


def outcomes(iterate):
    return [OUTCOMES[code] for code in iterate.outcome.tolist()]


def wrong_by(amplitudes, frames=4):
    """First frames, what the solver makes of them, and a prediction wrong by an amplitude in each sample."""
    truth = flow(frames + 1, batch=len(amplitudes))
    share = torch.tensor(amplitudes, dtype=torch.float64).reshape(-1, 1, 1, 1, 1)
    return truth[:, :1], truth[:, 1:], truth[:, 1:] + share * smooth_noise(truth[:, 1:], 1.0)


# Which samples go on


class Scene(NamedTuple):
    """State of `Scripted`."""

    frames: Tensor
    residual: Tensor
    sample: Tensor
    number: Tensor


class Scripted:
    """A method whose residuals are prescribed ``(sample, iteration)``; its frames say which iteration made them."""

    def __init__(self, sizes, patience):
        self.sizes = sizes
        self.iterations = sizes.shape[1] - 1
        self.patience = patience
        self.advanced = []

    def begin(self, problem):
        sample = torch.arange(len(self.sizes))
        return self._scene(problem, sample, torch.zeros_like(sample))

    def advance(self, problem, state):
        assert len(problem.history) == len(problem.prediction) == len(state.sample)
        self.advanced.append(state.sample.tolist())
        return self._scene(problem, state.sample, state.number + 1)

    def _scene(self, problem, sample, number):
        shape = (-1, 1, 1, 1, 1)
        residual = self.sizes[sample, number].reshape(shape).expand(-1, 1, 1, 2, 2)
        return Scene(problem.prediction + number.reshape(shape), residual, sample, number)


class Largest:
    """Size of a residual: its largest value."""

    needs_rate = False

    def of(self, path, context):
        raise AssertionError("the script says what the residual is")

    def size(self, residual):
        return residual.abs().flatten(1).amax(1)


def scripted(sizes, patience, tolerance=1e-3):
    """Iterates of a script, and which samples were advanced in each; the frames' rate is 1."""
    sizes = torch.tensor(sizes, dtype=torch.float64)
    method = Scripted(sizes, patience)
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    metadata = Metadata("script", grid, (Channel("height"),), frame_interval=1.0)
    prediction = torch.ones(len(sizes), 1, 1, 2, 2, dtype=torch.float64)
    refiner = SpectralRefiner(Given(prediction, metadata), Persistence(), method, Largest(), tolerance)
    return refined(refiner, torch.zeros_like(prediction), Context(())), method.advanced


def ending(sizes, patience, tolerance=1e-3):
    """What becomes of one sample: outcome, iteration that ends it, and iteration whose frames are kept."""
    kept, waited, goal = 0, 0, tolerance * max(1.0, sizes[0])
    for number, size in enumerate(sizes):
        if number and size < sizes[kept]:
            kept, waited = number, 0
        elif number:
            waited += 1
        if not math.isfinite(size) or size > 10 * sizes[0] > 0:
            return "diverged", number, kept
        if size <= goal:
            return "converged", number, kept
        if waited >= patience:
            return "stalled", number, kept
    return "exhausted", len(sizes) - 1, kept


def test_each_way_to_end_in_one_batch():
    iterates, advanced = scripted(
        [
            [0.0, 9.0, 9.0, 9.0, 9.0],  # on the trajectory already
            [1.0, 0.1, 5e-4, 9.0, 9.0],  # converges
            [1.0, 0.5, 11.0, 1e-9, 9.0],  # diverges
            [1.0, 0.5, 0.6, 0.5, 1e-9],  # stalls: as small is not smaller
            [1.0, 9.0, 0.9, 2.0, 0.8],  # is not done after all iterations
            [math.nan, 1e-9, 9.0, 9.0, 9.0],
            [1.0, math.inf, 1e-9, 9.0, 9.0],
        ],
        patience=2,
    )
    assert advanced == [[1, 2, 3, 4, 6], [1, 2, 3, 4], [3, 4], [4]]
    assert [outcomes(iterate) for iterate in iterates] == [
        ["converged", "refining", "refining", "refining", "refining", "diverged", "refining"],
        ["converged", "refining", "refining", "refining", "refining", "diverged", "diverged"],
        ["converged", "converged", "diverged", "refining", "refining", "diverged", "diverged"],
        ["converged", "converged", "diverged", "stalled", "refining", "diverged", "diverged"],
        ["converged", "converged", "diverged", "stalled", "exhausted", "diverged", "diverged"],
    ]
    assert [iterate.number for iterate in iterates] == [0, 1, 2, 3, 4]
    # The prediction is 1, and each iteration adds 1.
    assert iterates[1].frames[:, 0, 0, 0, 0].tolist() == [1, 2, 2, 2, 1, 1, 1]
    assert iterates[-1].frames[:, 0, 0, 0, 0].tolist() == [1, 3, 2, 2, 5, 1, 1]
    assert iterates[-1].size[:5].tolist() == [0.0, 5e-4, 0.5, 0.5, 0.8]


SIZES = st.one_of(st.floats(1e-5, 20.0), st.sampled_from([0.0, 1.0, 10.0, math.inf, math.nan]))


@given(
    sizes=st.integers(1, 5).flatmap(
        lambda length: st.lists(st.lists(SIZES, min_size=length, max_size=length), min_size=1, max_size=4)
    ),
    patience=st.integers(1, 3),
)
@settings(max_examples=40)
def test_every_sample_ends_as_it_would_alone(sizes, patience):
    sizes = [[*line, 1.0] for line in sizes]
    iterates, advanced = scripted(sizes, patience)
    for sample, line in enumerate(sizes):
        outcome, last, kept = ending(line, patience)
        assert outcomes(iterates[-1])[sample] == outcome
        assert float(iterates[-1].frames[sample, 0, 0, 0, 0]) == 1 + kept
        assert [number for number, group in enumerate(advanced, 1) if sample in group] == list(range(1, last + 1))
        found = torch.stack([iterate.size[sample] for iterate in iterates])
        assert found[-1].tolist() == line[kept] or math.isnan(line[0])
        assert not bool((found.diff() > 0).any())
        for iterate in iterates[last:]:
            assert torch.equal(iterate.frames[sample], iterates[-1].frames[sample])


class Disturbed:
    """The solver with noise; context parameters ``(level, growth)`` are its size and its factor from call to call."""

    def __init__(self):
        self.solver = solver()
        self.metadata = self.solver.metadata
        self.calls = 0

    def step(self, history, context):
        level, growth = context.parameters.double().reshape(-1, 2, 1, 1, 1, 1).unbind(1)
        block = self.solver.step(history, context)
        block = block + torch.where(level > 0, level * growth**self.calls, 0.0) * noise(*block.shape, seed=self.calls)
        self.calls += 1
        return block

    def step_tangent(self, history, direction, context):
        return self.solver.step_tangent(history, direction, context)


@pytest.mark.parametrize("growth", [1e4, math.inf], ids=["grows", "not a number"])
def test_a_sample_that_diverges_or_stalls_does_not_disturb_others(growth):
    start, truth, wrong = wrong_by([0.0, 0.2, 0.2, 0.2, 0.3])
    noisy = torch.tensor([[0, 1], [0, 1], [1e-3, growth], [1e-3, 2], [0, 1]])
    context = solver().context(5)._replace(parameters=noisy)
    iterates = refined(SpectralRefiner(Given(wrong), Disturbed(), Newton(iterations=6)), start, context)
    assert outcomes(iterates[0]) == ["converged", "refining", "refining", "refining", "refining"]
    assert outcomes(iterates[-1]) == ["converged", "converged", "diverged", "stalled", "converged"]
    assert torch.equal(iterates[-1].frames[0], wrong[0])
    # The best of what diverges is the prediction itself, without which it would be far away.
    assert torch.equal(iterates[-1].frames[2], wrong[2])
    for sample in (1, 4):
        alone = refined(
            SpectralRefiner(Given(wrong[sample, None]), solver(), Newton(iterations=6)), start[sample, None]
        )
        assert outcomes(alone[-1]) == ["converged"]
        torch.testing.assert_close(iterates[-1].frames[sample, None], alone[-1].frames, rtol=0, atol=1e-12)
        assert float(errors(alone[-1].frames, truth[sample, None])) < 1e-9


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [(Newton(), 1e-4), (LBFGS(iterations=8), 0.1), (Adam(iterations=4, bias_rate=5e-3), 0.7)],
    ids=["newton", "lbfgs", "adam"],
)
def test_a_batch_is_refined_as_its_samples_one_by_one(method, tolerance):
    # Slower and faster flow: they need more and fewer iterations.
    history = flow(HISTORY, batch=3) * torch.tensor([0.1, 1.0, 3.0]).reshape(-1, 1, 1, 1, 1)
    refiner = SpectralRefiner(surrogate(), solver(), method, tolerance=tolerance)
    together = refined(refiner, history)
    alone = [refined(refiner, history[sample, None]) for sample in range(3)]
    assert len({len(iterates) for iterates in alone}) > 1
    for sample, iterates in enumerate(alone):
        for one, all_ in zip(iterates, together, strict=False):
            assert outcomes(one) == [outcomes(all_)[sample]]
            torch.testing.assert_close(one.frames[0], all_.frames[sample], rtol=0, atol=1e-11)
            torch.testing.assert_close(one.size[0], all_.size[sample], rtol=1e-9, atol=1e-13)
        assert torch.equal(together[-1].frames[sample], together[len(iterates) - 1].frames[sample])


def test_a_prediction_that_is_not_finite_ends_alone():
    start, truth, wrong = wrong_by([0.2, 0.2])
    wrong[0, 2, 0, 3, 4] = math.nan
    refiner = SpectralRefiner(Given(wrong), solver(), Newton(iterations=4))
    iterates = refined(refiner, start)
    assert outcomes(iterates[-1]) == ["diverged", "converged"]
    assert float(errors(iterates[-1].frames[1:], truth[1:])) < 1e-9
    run = rollout(refiner, start, solver().context(2), 4)
    assert bool(torch.isfinite(torch.cat(list(run), 1)[1]).all())
    assert run.first_bad_frame.tolist() == [2, 4]


@given(seed=st.integers(0, 10**6), amplitude=st.floats(0.05, 1.0))
@settings(max_examples=5)
def test_a_smaller_residual_is_not_bought_with_a_larger_error(seed, amplitude):
    truth = flow(6)
    wrong = truth[:, 1:] + smooth_noise(truth[:, 1:], amplitude, seed)
    iterates = refined(SpectralRefiner(Given(wrong), solver(), Newton(iterations=6)), truth[:, :1])
    sizes = torch.stack([iterate.size for iterate in iterates])
    far = torch.stack([errors(iterate.frames, truth[:, 1:]) for iterate in iterates])
    assert bool((sizes.diff(dim=0) <= 0).all())
    # But for round-off.
    assert bool((far.diff(dim=0) <= 1e-13).all()), far
    assert outcomes(iterates[-1]) == ["converged", "converged"]


# When nothing is left to do


def test_without_tolerance_round_off_is_enough():
    start, truth, wrong = wrong_by([0.0, 0.2])
    iterates = refined(SpectralRefiner(Given(wrong), solver(), Newton(iterations=10), tolerance=0), start)
    assert outcomes(iterates[0]) == ["converged", "refining"]
    assert outcomes(iterates[-1]) == ["converged", "converged"]
    # Quadratic: four iterations from a fifth to 1e-16, and one frame more exact in each.
    assert len(iterates) <= 6
    assert float(errors(iterates[-1].frames, truth).max()) < 1e-14


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("prediction", ["wrong", "frozen", "far"])
def test_the_tolerance_is_in_units_of_the_predictions_rate_or_residual(prediction, tolerance):
    start, truth, wrong = wrong_by([0.3, 0.6])
    frames = {"wrong": wrong, "frozen": start.expand_as(truth), "far": 2 * truth}[prediction]
    refiner = SpectralRefiner(Given(frames), solver(), Newton(iterations=6), tolerance=tolerance)
    iterates = refined(refiner, start)
    rate = torch.cat([start, frames], 1).diff(dim=1) / INTERVAL
    unit = torch.maximum(refiner.residual.size(rate), iterates[0].size)
    assert outcomes(iterates[-1]) == ["converged", "converged"]
    for before, after in pairwise(iterates):
        done = after.size <= tolerance * unit
        assert bool((done == (after.outcome == OUTCOMES.index("converged"))).all())
        assert bool((before.size > tolerance * unit).any())


def test_what_overflows_has_not_converged():
    class Still:
        def step(self, history, context):
            return history[:, -1:]

    start, _, wrong = wrong_by([0.2, 0.2])
    wrong[0] *= 1e200
    iterates = refined(SpectralRefiner(Given(wrong), Still(), Newton(iterations=2)), start)
    assert outcomes(iterates[0]) == ["diverged", "refining"]
    assert torch.equal(iterates[-1].frames[0], wrong[0])


@pytest.mark.parametrize(("time", "length"), [(0.25, 8.0), (16.0, 0.5)])
def test_units_of_time_and_length_do_not_matter(time, length):
    start, _, wrong = wrong_by([0.3, 0.6])
    other = solver(frame_interval=INTERVAL * time, length=2 * math.pi * length, viscosity=1e-2 * length**2 / time)
    here = refined(SpectralRefiner(Given(wrong), solver()), start)
    there = refined(SpectralRefiner(Given(wrong / time, other.metadata), other), start / time)
    assert [outcomes(iterate) for iterate in there] == [outcomes(iterate) for iterate in here]
    for ours, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(theirs.frames * time, ours.frames, rtol=0, atol=1e-12)
        # Vorticity per time, times length for the order -1.
        torch.testing.assert_close(theirs.size * time**2 / length, ours.size, rtol=1e-6, atol=1e-13)


def with_viscosity(**changes):
    return replace(solver().metadata, parameters=("viscosity",), **changes)


def test_only_without_tolerance_does_the_blind_residual_begin():
    context = solver().context(2)._replace(parameters=torch.full((2, 1), 1e-2))
    recipe = Adam(iterations=2, compat="torch-cfd")
    residual = SelfStartedResidual(with_viscosity())
    done, begun = (
        refined(SpectralRefiner(surrogate(), solver(), recipe, residual, **given_), flow(HISTORY), context)
        for given_ in ({}, {"tolerance": 0})
    )
    assert [outcomes(iterate) for iterate in done] == [["converged", "converged"]]
    assert outcomes(begun[0]) == ["refining", "refining"]
    assert len(begun) == 3


def test_the_defect_of_another_march_is_refused():
    with pytest.raises(ValueError, match="the refiner's own march but got that of another"):
        SpectralRefiner(surrogate(), solver(), residual=Defect(solver(viscosity=0.1), solver().metadata))


def test_a_head_that_can_do_nothing_stalls():
    class Deaf(Defect):
        """Finds the same whatever the frames are."""

        def of(self, path, context):
            return 0 * path.frames + 1

    march = solver()
    refiner = SpectralRefiner(surrogate(), march, LBFGS(), Deaf(march, march.metadata))
    iterates = refined(refiner, flow(HISTORY))
    assert outcomes(iterates[-1]) == ["stalled", "stalled"]
    assert torch.equal(iterates[-1].frames, iterates[0].frames)


# A stepper


def test_a_window_of_several_blocks_is_refined_as_one():
    frames = flow(HISTORY + 10)
    history, truth = frames[:, :HISTORY], frames[:, HISTORY:]
    stepper = surrogate()
    refiner = SpectralRefiner(stepper, solver(), Newton(iterations=10), window=10)
    iterates = refined(refiner, history)
    predicted = torch.cat(list(rollout(stepper, history, solver().context(2), 10)), 1).detach()
    torch.testing.assert_close(iterates[0].frames, predicted, rtol=0, atol=0)
    assert outcomes(iterates[-1]) == ["converged", "converged"]
    assert float(errors(iterates[-1].frames, truth).max()) < 1e-8
    shorter = SpectralRefiner(stepper, solver(), Newton(), window=3).step(history, solver().context(2))
    torch.testing.assert_close(shorter, truth[:, :3], rtol=0, atol=1e-8)


@pytest.mark.parametrize("window", [3, 6])
@pytest.mark.parametrize("method", [LBFGS(), Adam(), Newton(modes=(4, 4, 3))], ids=["lbfgs", "adam", "newton"])
def test_what_works_on_a_head_refuses_another_window(method, window):
    refiner = SpectralRefiner(surrogate(), solver(), method, window=window)
    with pytest.raises(ValueError, match=rf"the 4 frames of the head .*but got a window of {window}; leave window"):
        refiner.step(flow(HISTORY), solver().context(2))


@pytest.mark.parametrize("method", METHODS)
def test_of_a_longer_history_the_last_frames_are_taken(method):
    refiner = SpectralRefiner(surrogate(), solver(), method)
    assert refiner.history_frames == HISTORY
    frames, context = flow(HISTORY + 2), solver().context(2)
    longer, plain = (refiner.step(history, context) for history in (frames, frames[:, 2:]))
    torch.testing.assert_close(longer, plain, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("window", [None, HISTORY])
def test_a_history_that_is_too_short_is_refused(method, window):
    refiner = SpectralRefiner(surrogate(), solver(), method, window=window)
    with pytest.raises(ValueError, match="at least 4 history frames but got 3"):
        refiner.step(flow(HISTORY - 1), solver().context(2))


@pytest.mark.parametrize("method", METHODS)
def test_the_callers_mode_does_not_matter_and_the_network_stays_as_it_is(method):
    refiner = SpectralRefiner(surrogate(), solver(), method)
    history, context = flow(HISTORY), solver().context(2)
    before = {name: value.clone() for name, value in refiner.state_dict().items()}
    buffers = [buffer.clone() for buffer in refiner.buffers()]
    flags = [(parameter.requires_grad, parameter.grad) for parameter in refiner.parameters()]
    expected = refiner.step(history, context)
    # Autocast leaves double precision alone but takes another way through the pointwise layers.
    autocast = torch.autocast("cpu", torch.bfloat16)
    for mode, tolerance in ((torch.inference_mode(), 0), (autocast, 1e-12), (nullcontext(), 0)):
        with mode:
            given_, where = (history + 0).requires_grad_(torch.is_grad_enabled()), solver().context(2)
            found = refiner.step(given_, where)
            assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    assert refiner.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in refiner.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(refiner.buffers(), buffers, strict=True))
    assert [(parameter.requires_grad, parameter.grad) for parameter in refiner.parameters()] == flags


def test_iterates_leave_the_callers_mode_alone():
    refiner = SpectralRefiner(surrogate(), solver(), LBFGS(iterations=2))
    modes = []
    with torch.inference_mode():
        for _ in refiner.iterates(flow(HISTORY), solver().context(2)):
            modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
    for _ in refiner.iterates(flow(HISTORY), solver().context(2)):
        modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
    assert modes == [(True, False)] * 3 + [(False, True)] * 3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_march_without_a_derivative_of_its_own_is_differentiated_in_any_mode(mode):
    class Plain:
        def __init__(self):
            self.solver = solver(steps_per_frame=1)

        def step(self, history, context):
            return self.solver.step(history, context)

    start, _, wrong = wrong_by([0.2, 0.3], frames=2)
    with mode():
        found, expected = (
            SpectralRefiner(Given(wrong), march, Newton(iterations=1)).step(start, solver().context(2))
            for march in (Plain(), Plain().solver)
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_single_precision_in_single_precision_out(method):
    single, context = surrogate().float(), solver().context(2)
    refiner = SpectralRefiner(single, solver(), method).to("cpu")
    assert isinstance(refiner, Stepper)
    history = flow(HISTORY).float()
    iterates = refined(refiner, history)
    found = refiner.step(history, context)
    assert (found.dtype, found.shape) == (torch.float32, (2, HISTORY, 1, SIZE, SIZE))
    assert {iterate.frames.dtype for iterate in iterates} == {torch.float64}
    torch.testing.assert_close(found, iterates[-1].frames.float(), rtol=0, atol=0)
    double = SpectralRefiner(surrogate(), solver(), method).step(history.double(), context)
    torch.testing.assert_close(found.double(), double, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_in_single_precision_is_refined_in_that_of_the_history(method):
    history, context = flow(HISTORY), solver().context(2)
    single, double = (
        SpectralRefiner(stepper, solver(), method).step(history, context)
        for stepper in (surrogate().float(), surrogate())
    )
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, double, rtol=0, atol=1e-4)


@pytest.mark.parametrize("window", [None, 2 * HISTORY])
def test_single_precision_of_the_network_limits_nothing(window):
    frames = flow(3 * HISTORY)
    refiner = SpectralRefiner(surrogate().float(), solver(), Newton(iterations=8), window=window)
    found = refiner.step(frames[:, :HISTORY], solver().context(2))
    assert float(errors(found, frames[:, HISTORY:][:, : found.shape[1]]).max()) < 1e-9


def test_all_parts_move_together():
    methods = (Newton(solver(steps_per_frame=1)), LBFGS())
    for refiner in (SpectralRefiner(surrogate(), solver(), method) for method in methods):
        refiner.to("meta")
        assert {tensor.device.type for tensor in (*refiner.parameters(), *refiner.buffers())} == {"meta"}
        parts = [refiner.surrogate.network.head.weight, refiner.march.tables, refiner.residual.march.tables]
        parts += [refiner.method.sweep.tables] if isinstance(refiner.method, Newton) else []
        assert {tensor.device.type for tensor in parts} == {"meta"}


def test_a_prediction_from_a_coarser_grid_is_refined_on_the_finer_one():
    frames = flow(HISTORY + 4)
    coarse = Resampled(surrogate(modes=(2, 2, 2)), 8)
    refiner = SpectralRefiner(coarse, solver(), Newton(iterations=6))
    found = refiner.step(frames[:, :HISTORY], solver().context(2))
    assert float(errors(found, frames[:, HISTORY:]).max()) < 1e-9


def test_blocks_follow_each_other_in_a_rollout():
    frames = flow(HISTORY + 10)
    refiner = SpectralRefiner(surrogate(), solver(), Newton(iterations=6))
    blocks = list(rollout(refiner, frames[:, :HISTORY], solver().context(2), 10))
    assert [block.shape[1] for block in blocks] == [4, 4, 2]
    assert float(errors(torch.cat(blocks, 1), frames[:, HISTORY:]).max()) < 1e-8


def test_an_evaluator_measures_it():
    frames, metadata = flow(HISTORY + 6, batch=3).float(), solver().metadata
    coordinates = Context(solver().grid.uniform_coordinates((SIZE, SIZE), dtype=torch.float32))
    trajectories = [
        Trajectory(
            metadata,
            coordinates,
            torch.arange(len(one)) * INTERVAL,
            lambda start, out, one=one: out.copy_(one[start : start + len(out)]),
            tuple(one.shape),
        )
        for one in frames
    ]
    evaluator = Evaluator(lambda plan: {"errors": ErrorMetric(plan)}, batch_size=2)
    scores = [
        evaluator(stepper, trajectories, 6).attributes["scores"]["relative_l2"]["value"]
        for stepper in (surrogate().float(), SpectralRefiner(surrogate().float(), solver(), Newton()))
    ]
    assert scores[1] < 1e-5 < 0.1 < scores[0]


# Bad input


def test_parts_that_do_not_fit_are_refused():
    other, metadata = solver(frame_interval=0.2), solver().metadata
    start = flow(2)
    with pytest.raises(ValueError, match="a surrogate that knows its metadata; give them to the refiner"):
        SpectralRefiner(Persistence(), solver())
    assert SpectralRefiner(Persistence(), solver(), metadata=metadata).metadata is metadata
    with pytest.raises(ValueError, match=r"frames 0\.2 apart but the prediction to refine has 0\.1"):
        SpectralRefiner(surrogate(), other)
    with pytest.raises(ValueError, match=r"frames 0\.2 apart but the prediction to refine has 0\.1"):
        SpectralRefiner(surrogate(), solver(), residual=Defect(other, other.metadata))
    with pytest.raises(ValueError, match=r"frames 0\.1 apart but the prediction to refine has 0\.2"):
        SpectralRefiner(surrogate(), other, metadata=other.metadata)
    narrow = with_viscosity(grid=solver(length=1.0).grid)
    for kind in (AnalyticResidual, SelfStartedResidual):
        with pytest.raises(ValueError, match=r"Expected periods \[1\.0, 1\.0\] but the prediction to refine has"):
            SpectralRefiner(surrogate(), solver(), LBFGS(), kind(narrow))
    walls = replace(metadata, grid=Grid((Axis("x", period=1.0), Axis("y"))))
    with pytest.raises(ValueError, match=r"periodic axes only, but \['y'\] are not"):
        SpectralRefiner(Persistence(), Persistence(), metadata=walls)
    for tolerance, window in ((-1e-3, None), (math.nan, None), (0.0, 0)):
        with pytest.raises(ValueError, match=f"tolerance >= 0 and window >= 1 but got {tolerance} and {window}"):
            SpectralRefiner(surrogate(), solver(), tolerance=tolerance, window=window)
    coarse = SpectralRefiner(Given(start), solver(resolution=8))
    with pytest.raises(ValueError, match=r"one vorticity channel at \(8, 8\) but got .* wrap the solver in Resampled"):
        coarse.step(start, solver().context(2))


def test_too_many_modes_are_refused():
    history, context = flow(HISTORY), solver().context(2)
    for modes in ((9, 4, 3), (4, 9, 3)):
        for method in (LBFGS(modes), Adam(modes), Newton(modes=modes)):
            with pytest.raises(ValueError, match=rf"at most half of the grid \(16, 16\) but got \({modes[0]}, "):
                SpectralRefiner(surrogate(), solver(), method).step(history, context)
    # The network's own are too many for a coarse grid.
    with pytest.raises(
        ValueError, match=r"at least \(8, 8\) points, two for each .* modes, but got a grid of \(6, 6\)"
    ):
        SpectralRefiner(surrogate(), solver()).step(history[..., :6, :6], context)


@pytest.mark.parametrize("kind", [LBFGS, Adam])
def test_waves_in_time_beyond_a_period_of_the_head_are_left_out(kind):
    # Ten latent frames in a period hold the waves 0 ... 5.
    history, context = flow(HISTORY), solver().context(2)
    most, more = (
        SpectralRefiner(surrogate(), solver(), kind(modes=(4, 4, count), iterations=2)).step(history, context)
        for count in (HISTORY + 2, 40)
    )
    torch.testing.assert_close(more, most, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [AnalyticResidual, SelfStartedResidual])
def test_what_a_residual_needs_of_the_context_must_be_there(kind):
    history, context = flow(HISTORY), solver().context(2)
    residual = kind(with_viscosity())
    assert isinstance(residual, Residual)
    refiner = SpectralRefiner(surrogate(), solver(), LBFGS(), residual)
    with pytest.raises(ValueError, match="the parameter 'viscosity' in the context of the data but it has none"):
        refiner.step(history, context)
    viscous = context._replace(parameters=torch.full((2, 1), 1e-2))
    for forcing, expected in (
        (torch.zeros(2, 1, 8, 8), r"a forcing on the grid of the fields \(16, 16\) but got \(2, 1, 8, 8\)"),
        (torch.zeros(3, 1, SIZE, SIZE), r"a forcing \(16, 16\), or one that broadcasts .* \(3, 1, 1, 16, 16\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            refiner.step(history, viscous._replace(forcing=forcing))


def test_methods_are_what_they_say():
    assert all(isinstance(method.values[0], Method) for method in METHODS)

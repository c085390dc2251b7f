"""Newton, descents, the enlarged head and residuals, each on its own."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refined_flow import (
    BOX,
    HISTORY,
    INTERVAL,
    SIZE,
    Given,
    errors,
    flow,
    marched,
    network,
    noise,
    smooth_noise,
    solver,
    surrogate,
)

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.layers.space_time import evaluate_waves
from pdesurrogate.models.fno import FNO
from pdesurrogate.physics.spectral import dealias_mask
from pdesurrogate.simulators.forcing import KolmogorovForcing
from pdesurrogate.simulators.time_schemes import RK2CrankNicolson
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.refinement.base import Method, Path, Problem, Residual, select_samples
from pdesurrogate.steppers.refinement.descent import LBFGS, Adam
from pdesurrogate.steppers.refinement.head import enlarged_head
from pdesurrogate.steppers.refinement.newton import Newton
from pdesurrogate.steppers.refinement.residuals import AnalyticResidual, Defect, SelfStartedResidual
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.surrogate import Surrogate


def problem_of(stepper, history, march=None, residual=None, prediction=None):
    march = solver() if march is None else march
    residual = Defect(march, solver().metadata) if residual is None else residual
    context = solver().context(len(history))
    prediction = stepper.step(history, context).detach() if prediction is None else prediction
    return Problem(stepper, history, prediction, context, residual, BOX)


def run(method, problem, iterations):
    """States of a method, the first one its beginning."""
    states = [method.begin(problem)]
    for _ in range(iterations):
        states.append(method.advance(problem, states[-1]))
    return states


def newton_errors(amplitude, method, frames=8):
    """Relative errors ``(iteration, batch)`` from a trajectory that is wrong by the amplitude."""
    truth = flow(frames + 1)
    wrong = truth[:, 1:] + smooth_noise(truth[:, 1:], amplitude)
    states = run(method, problem_of(Given(wrong), truth[:, :1]), method.iterations)
    return torch.stack([errors(state.frames, truth[:, 1:]) for state in states])


# Newton


def test_newton_converges_quadratically():
    found = newton_errors(0.3, Newton(iterations=3))
    assert bool((found[1:] < found[:-1]).all())
    slopes = found.log().diff(dim=0)
    # Each iteration doubles the number of digits; products of small fields gain a little more.
    orders = slopes[1:] / slopes[:-1]
    assert bool((orders > 1.9).all()), orders
    assert bool((newton_errors(0.3, Newton(iterations=4))[-1] < 1e-14).all())


def test_another_derivative_makes_it_linear():
    # One step of Heun's method a frame in place of four better ones: wrong by about a hundredth.
    sweep = solver(steps_per_frame=1, scheme=RK2CrankNicolson())
    slopes = newton_errors(1e-4, Newton(sweep, iterations=4)).log().diff(dim=0)
    orders = slopes[2:] / slopes[1:-1]
    torch.testing.assert_close(orders, torch.ones_like(orders), rtol=0, atol=0.2)


@pytest.mark.parametrize("sweep", ["coarse", "none"])
def test_each_iteration_makes_one_more_frame_exact_whatever_the_derivative(sweep):
    class Nothing:
        def step(self, history, context):
            return history[:, -1:]

        def step_tangent(self, history, direction, context):
            return torch.zeros_like(direction)

    march = {"coarse": Resampled(solver(resolution=8, steps_per_frame=1), 8), "none": Nothing()}[sweep]
    truth = flow(6)
    wrong = truth[:, 1:] + smooth_noise(truth[:, 1:], 0.5)
    states = run(Newton(march), problem_of(Given(wrong), truth[:, :1]), 5)
    for number, state in enumerate(states):
        exact = state.frames[:, :number]
        torch.testing.assert_close(exact, truth[:, 1 : number + 1], rtol=0, atol=1e-13)
    assert float(states[-1].residual.abs().max()) < 1e-13 / INTERVAL


def test_newton_finds_the_marchs_own_trajectory_from_the_last_given_frame():
    # Not that of the truth: another viscosity, and a start that was never in the data.
    march = solver(viscosity=3e-2, forcing=KolmogorovForcing(2), drag=0.1)
    start = flow(1) + smooth_noise(flow(1), 0.1, seed=5)
    history = torch.cat([noise(2, 2, 1, SIZE, SIZE), start], 1)
    wrong = marched(march, start, 5) + smooth_noise(flow(5), 0.2)
    problem = problem_of(Given(wrong), history, residual=Defect(march, march.metadata))
    end = run(Newton(), problem, 5)[-1]
    torch.testing.assert_close(end.frames, marched(march, start, 5), rtol=0, atol=1e-13)


class Diffusion:
    """``dw/dt = laplacian w`` on a rectangle of any grid, exactly; no derivative of its own."""

    def step(self, history, context):
        rows, columns = (torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) for size in history.shape[-2:])
        decay = torch.exp(-0.01 * (rows[:, None].square() + columns.square()))
        return torch.fft.ifft2(torch.fft.fft2(history[:, -1:]) * decay).real


def test_a_linear_march_needs_one_iteration_on_any_grid():
    grid = Grid((Axis("x", period=BOX[0]), Axis("y", period=BOX[1])))
    metadata = Metadata("heat", grid, (Channel("temperature"), Channel("salt")), frame_interval=0.5)
    march, context = Diffusion(), Context((torch.zeros(2, 12), torch.zeros(2, 9)))
    start, wrong = noise(2, 1, 2, 12, 9), noise(2, 4, 2, 12, 9, seed=1)
    problem = Problem(Given(wrong, metadata), start, wrong, context, Defect(march, metadata), BOX)
    end = run(Newton(), problem, 1)[-1].frames
    for before, after in pairwise(torch.cat([start, end], 1).unbind(1)):
        torch.testing.assert_close(after[:, None], march.step(before[:, None], context), rtol=0, atol=1e-14)


def head_matrix(head):
    """The correction that each number of the bias makes, ``(modes_t, 2 modes_x, 2 modes_y, 2, values)``, no batch."""
    shape = head.bias.shape[1:]
    unit = torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape)
    corrections = evaluate_waves(torch.view_as_complex(unit), head.linear.times, head.linear.space)
    return corrections.reshape(*shape, -1)


def distance_from(span, fields):
    """Largest part of ``fields (n, values)`` that no combination of ``span (..., values)`` gives."""
    parts = torch.linalg.svd(span.flatten(0, -2), full_matrices=False)
    basis = parts.Vh[parts.S / parts.S[0] > 1e-10]
    return float((fields - fields @ basis.T @ basis).abs().max() / fields.abs().max())


@pytest.mark.parametrize(
    ("modes", "options"),
    [
        ((2, 2, 2), {}),
        ((3, 2, 3), {"target_frames": 7}),
        ((2, 4, 9), {"target_frames": 3}),  # all waves along y, and more in time than there are
        ((3, 3, 3), {"target_frames": 6, "compat": "torch-cfd"}),
    ],
)
def test_a_projected_update_is_the_part_that_a_head_can_give(modes, options):
    stepper, march = surrogate(modes=(2, 2, 2), **options), solver(resolution=8)
    history = noise(1, HISTORY, 1, 8, 8)
    problem = problem_of(stepper, history, march, Defect(march, march.metadata))
    whole, part = (run(Newton(modes=kept), problem, 1)[-1].frames - problem.prediction for kept in (None, modes))
    span = head_matrix(enlarged_head(stepper, history, modes))
    # The lowest wave has no partner of the other sign, unless it is its own.
    x, y = (0 if 2 * kept == 8 else 1 for kept in modes[:2])
    paired = span[:, x:, y:]
    assert distance_from(paired, part.flatten(1)) < 1e-10
    rest = (whole - part).flatten()
    assert float((paired @ rest).abs().max()) < 1e-12 * float(paired.norm(dim=-1).max() * whole.norm())


def test_projected_on_all_waves_nothing_is_lost():
    stepper, history = surrogate(), flow(HISTORY)
    problem = problem_of(stepper, history)
    free, projected = (run(Newton(modes=kept), problem, 3)[-1].frames for kept in (None, (8, 8, HISTORY + 2)))
    torch.testing.assert_close(projected, free, rtol=0, atol=1e-12)


# The enlarged head


HEADS = [
    pytest.param((8, 8, 6), SIZE, {}, id="even"),
    pytest.param((4, 5, 3), SIZE, {}, id="as trained along x and in time"),
    pytest.param((9, 6, 5), 2 * SIZE, {"modes": (3, 4, 2)}, id="odd, finer grid"),
    pytest.param(None, SIZE, {"target_frames": 7}, id="more frames than latent ones"),
    pytest.param((5, 5, 4), SIZE, {"target_frames": 3, "modes": (4, 4, 1)}, id="fewer frames"),
    pytest.param((7, 6, 5), SIZE, {"history_frames": 6, "bias_strength": 0.7}, id="longer history"),
    pytest.param((6, 6, 5), SIZE, {"compat": "torch-cfd"}, id="compat"),
    pytest.param(None, SIZE, {"compat": "torch-cfd", "target_frames": 9}, id="compat, stretched"),
    pytest.param(
        (5, 6, 3),
        SIZE,
        {"compat": "torch-cfd", "compat_options": {"spatial_padding": 2, "temporal_padding": False}},
        id="compat, padded in space only",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("modes", "size", "options"), HEADS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_an_enlarged_head_first_gives_what_the_network_gives(modes, size, options, dtype, tolerance):
    stepper = surrogate(**options).to(dtype)
    history = noise(2, stepper.history_frames + 1, 1, size, size).to(dtype)
    head = enlarged_head(stepper, history, modes)
    frames = head.path(head.weight, head.bias, with_rate=False).frames
    assert frames.dtype == torch.float64
    with torch.no_grad():
        expected = stepper.step(history, solver().context(2)).double()
    assert float((frames - expected).norm() / expected.norm()) < tolerance
    if modes is not None:
        assert head.bias.shape == (2, modes[2], 2 * modes[0], 2 * modes[1], 2)


@given(wave=st.tuples(st.integers(-3, 2), st.integers(-3, 2), st.integers(0, 2)), more=st.integers(0, 3))
@settings(max_examples=15)
def test_a_trained_wave_stays_that_wave_on_any_grid(wave, more):
    stepper = surrogate(modes=(3, 3, 3))
    head = stepper.network.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[wave[0] + 3, wave[1] + 3, wave[2]] = torch.tensor([0.6, 0.8])
    fine = noise(1, HISTORY, 1, 2 * SIZE, 2 * SIZE)
    enlarged = enlarged_head(stepper, fine, (3 + more, 4 + more, 3 + more))
    correction = enlarged.path(enlarged.weight, enlarged.bias, with_rate=False).frames - fine[:, -1:]
    coarse = fine[..., ::2, ::2]
    with torch.no_grad():
        expected = stepper.step(coarse, solver().context(1)) - coarse[:, -1:]
    torch.testing.assert_close(correction[..., ::2, ::2], expected, rtol=0, atol=1e-13)
    # No other wave, and the amplitude of the bias times its strength, in physical units; 2 for a pair in time.
    excited = torch.fft.fft2(correction, norm="forward").abs().amax((0, 1, 2))
    places = {(sign * wave[0] % 32, sign * wave[1] % 32) for sign in (1, -1)}
    assert {tuple(place) for place in (excited > 1e-12).nonzero().tolist()} <= places
    strength = 1.5 * head.bias_strength * (2 if wave[2] else 1)
    assert float(excited.max()) <= strength * (1 + 1e-12)


def test_by_default_a_head_holds_every_trajectory_inside_the_mask():
    stepper, history = surrogate(modes=(2, 2, 2), target_frames=6), noise(1, HISTORY, 1, 8, 8)
    space = head_matrix(enlarged_head(stepper, history, None))
    inside = torch.fft.irfft2(torch.fft.rfft2(noise(6, 8, 8, seed=3)) * dealias_mask((8, 8)), s=(8, 8))
    assert distance_from(space, inside.reshape(1, -1)) < 1e-12


@pytest.mark.parametrize("options", [{}, {"compat": "torch-cfd", "target_frames": 6}], ids=["ours", "theirs"])
def test_the_released_recipe_amplifies_the_trained_bias_tenfold(options):
    stepper, history = surrogate(**options), flow(HISTORY)
    right, released = (enlarged_head(stepper, history, (6, 6, 4), compat) for compat in (None, "torch-cfd"))
    frames = [head.path(head.weight, head.bias, with_rate=False).frames for head in (right, released)]
    without_bias = right.path(right.weight, torch.zeros_like(right.bias), with_rate=False).frames
    # Trained with a strength of 0.1, taken with 1.
    torch.testing.assert_close(frames[1] - without_bias, 10 * (frames[0] - without_bias), rtol=0, atol=1e-12)
    # The unit of the released bias is one of a transform that divides by the number of points afterwards.
    points = SIZE * SIZE * released.linear.times.period
    assert released.linear.bias_factor == pytest.approx(1 / points, rel=1e-15)
    assert right.linear.bias_factor == 1


@pytest.mark.parametrize("target", [HISTORY, 7])
def test_the_rate_is_the_derivative_of_the_trajectory(target):
    stepper, history = surrogate(target_frames=target), flow(HISTORY)
    head = enlarged_head(stepper, history, None)
    path = head.path(head.weight, head.bias, with_rate=True)
    factor = 200
    with torch.no_grad():
        normalized = stepper.normalizer.normalize(history)
        fine = stepper.normalizer.denormalize(stepper.network.super_resolve(normalized, factor))
    places = torch.arange(1, target) * factor - 1
    torch.testing.assert_close(fine[:, places], path.frames[:, :-1])
    difference = (fine[:, places + 1] - fine[:, places - 1]) * (factor / (2 * INTERVAL))
    # Of second order: the highest trained wave has 2 pi 2 / 10 radians in a latent frame.
    angle = 0.4 * math.pi * HISTORY / target / factor
    assert (difference - path.rate[:, :-1]).abs().max() < angle**2 * path.rate.abs().max()


def test_the_rate_of_the_authors_head_knows_that_its_frames_do_not_move_closer():
    # A wave cos(a n + b) in time: the difference of its neighbors is 2 sin(a) / a times its derivative for a frame.
    stepper = surrogate(compat="torch-cfd", target_frames=7)
    head = enlarged_head(stepper, flow(HISTORY), None)
    bias = torch.zeros_like(head.bias)
    bias[:, 2] = noise(*bias[:, 2].shape)
    path = head.path(torch.zeros_like(head.weight), bias, with_rate=True)
    angle = 2 * math.pi * 2 / head.linear.times.period
    difference = (path.frames[:, 2:] - path.frames[:, :-2]) * (angle / (2 * math.sin(angle) * INTERVAL))
    torch.testing.assert_close(path.rate[:, 1:-1], difference, rtol=0, atol=1e-11 * float(difference.abs().max()))


def test_what_has_no_such_head_is_refused():
    history, metadata = flow(HISTORY), solver().metadata
    fno = Surrogate(FNO(channels=1, modes=(4, 4), width=4, layers=1), metadata)
    increment = Surrogate(network(), metadata, history_frames=HISTORY, target="increment")
    for stepper, found in (
        (fno, "FNO with target 'state'"),
        (increment, "SFNO with target 'increment'"),
        (Persistence(), "Persistence"),
    ):
        with pytest.raises(ValueError, match=rf"SFNO with target 'state' but got {found}; .* Newton\(\) without modes"):
            enlarged_head(stepper, history, None)
    for modes in ((3, 4, 3), (4, 3, 3), (4, 4, 2), (9, 4, 3), (4, 9, 3)):
        with pytest.raises(
            ValueError, match=r"at least the trained \(4, 4, 3\) and at most half of the grid \(16, 16\)"
        ):
            enlarged_head(surrogate(), history, modes)


# Descents


DESCENTS = [
    pytest.param(LBFGS(iterations=16), id="lbfgs"),
    pytest.param(Adam(iterations=40, bias_rate=5e-3, weight_rate=1e-3), id="adam"),
]


@pytest.mark.parametrize("method", DESCENTS)
def test_descents_make_residual_and_error_smaller_and_leave_the_network_alone(method):
    assert isinstance(method, Method)
    stepper, frames = surrogate(), flow(2 * HISTORY)
    history, truth = frames[:, :HISTORY], frames[:, HISTORY:]
    stepper.network.lifting.mix.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in stepper.state_dict().items()}
    flags = [parameter.requires_grad for parameter in stepper.parameters()]
    problem = problem_of(stepper, history)
    states = run(method, problem, method.iterations)
    sizes = [problem.residual.size(state.residual) for state in (states[0], states[-1])]
    assert bool((sizes[1] < sizes[0] / 10).all()), sizes
    wrong = [errors(state.frames, truth) for state in (states[0], states[-1])]
    assert bool((wrong[1] < wrong[0] / 3).all()), wrong
    assert all(torch.equal(value, before[name]) for name, value in stepper.state_dict().items())
    assert [parameter.requires_grad for parameter in stepper.parameters()] == flags
    assert all(parameter.grad is None for parameter in stepper.parameters())
    assert not any(tensor.requires_grad for tensor in (states[-1].frames, states[-1].residual, *states[-1].weights))


def test_lbfgs_reaches_the_trajectory_of_the_march():
    # Quadratic but for the advection of the error by itself: superlinear, so that double precision is in sight.
    frames = flow(HISTORY + 2, batch=1)
    problem = problem_of(surrogate(target_frames=2), frames[:, :HISTORY])
    end = run(LBFGS(), problem, 40)[-1]
    assert float(errors(end.frames, frames[:, HISTORY:])) < 1e-6


def test_a_gradient_of_round_off_makes_no_step_of_adam():
    # Waves beyond the solver's mask that are zero stay zero: nothing pulls at them but round-off.
    stepper = surrogate()
    problem = problem_of(stepper, flow(HISTORY))
    end = run(Adam(modes=(8, 8, 3)), problem, 5)[-1].frames
    beyond = (torch.fft.rfft2(end, norm="forward") * (1 - dealias_mask((SIZE, SIZE)))).abs().max()
    assert float(beyond) < 1e-12


def test_states_of_samples_are_those_of_the_batch():
    stepper, frames = surrogate(), flow(HISTORY, batch=3)
    kept = torch.tensor([2, 0])
    for method in (LBFGS(), Adam(), Newton()):
        problem = problem_of(stepper, frames)
        state = run(method, problem, 2)[-1]
        chosen = method.advance(problem.select(kept), select_samples(state, kept))
        whole = method.advance(problem, state)
        torch.testing.assert_close(chosen.frames, whole.frames[kept], rtol=0, atol=1e-11)
        assert chosen.residual.shape == (2, *whole.residual.shape[1:])


# Residuals


def vorticity_data(*parameters):
    march = solver()
    return Metadata("turbulence", march.grid, march.channels, INTERVAL, parameters=parameters)


def test_the_analytic_residual_vanishes_on_exact_solutions():
    x, y = torch.meshgrid(*solver().grid.uniform_coordinates((SIZE, SIZE)), indexing="ij")
    time = torch.arange(1, 5, dtype=torch.float64)[:, None, None, None]
    viscosity = torch.tensor([0.01, 0.2], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    # Taylor-Green, of another viscosity in each sample.
    decay = torch.exp(-2 * viscosity * time)
    frames = 2 * torch.cos(x) * torch.cos(y) * decay
    residual = AnalyticResidual(vorticity_data("drag", "viscosity"))
    assert isinstance(residual, Residual)
    parameters = torch.stack([torch.zeros(2, dtype=torch.float64), viscosity.flatten()], 1)
    context = Context((), parameters=parameters)
    path = Path(frames[:, :1], frames, -2 * viscosity * frames)
    assert float(residual.of(path, context).abs().max()) < 1e-13
    assert float(residual.size(residual.of(path._replace(rate=-path.rate), context)).min()) > 1e-2
    # Flow that a steady forcing drives against drag and viscosity: a head can hold it, with no correction at all.
    source = KolmogorovForcing(2, 0.5).vorticity_source(x, y, BOX)
    steady = (source / (0.01 * 4 + 0.1))[None, None, None].expand(1, HISTORY, 1, SIZE, SIZE)
    head = enlarged_head(surrogate(), steady, None)
    still = head.path(torch.zeros_like(head.weight), torch.zeros_like(head.bias), with_rate=True)
    given = Context((), parameters=torch.tensor([[0.1, 0.01]], dtype=torch.float64))
    for forced, where in ((AnalyticResidual(vorticity_data("drag", "viscosity"), source), given),
                          (residual, given._replace(forcing=source[None, None]))):  # fmt: skip
        assert float(forced.of(still, where).abs().max()) < 1e-13


def test_descents_know_the_analytic_residual():
    stepper, history = surrogate(), flow(HISTORY)
    context = solver().context(2)._replace(parameters=torch.full((2, 1), 1e-2))
    residual = AnalyticResidual(vorticity_data("viscosity"))
    problem = problem_of(stepper, history, residual=residual)._replace(context=context)
    sizes = [float(residual.size(state.residual).max()) for state in run(LBFGS(), problem, 10)]
    assert sizes[-1] < sizes[0] / 10


def test_the_self_started_residual_is_blind_and_knows_one_viscosity():
    residual = SelfStartedResidual(vorticity_data("viscosity"))
    assert isinstance(residual, Residual)
    truth = flow(6)
    context = Context((), parameters=torch.full((2, 1), 1e-2))
    # As rough as the truth, and nothing to do with it.
    factors = torch.tensor([-1.0, 2.0, 1.0, -0.5, 1.0, 3.0])[:, None, None, None]
    unrelated = truth.flip(1).roll((3, 5), (-2, -1)) * factors
    sizes = [residual.size(residual.of(Path(frames[:, :1], frames), context)) for frames in (truth, unrelated)]
    assert bool((sizes[1] < 10 * sizes[0]).all()), sizes
    defect = Defect(solver(), solver().metadata)
    sizes = [defect.size(defect.of(Path(frames[:, :1], frames[:, 1:]), context)) for frames in (truth, unrelated)]
    assert bool((sizes[1] > 1e6 * sizes[0]).all()), sizes
    with pytest.raises(ValueError, match="one viscosity in a batch for the released recipe; use batch size 1"):
        residual.of(Path(truth[:, :1], truth), Context((), parameters=torch.tensor([[1e-2], [2e-2]])))


@pytest.mark.parametrize("frames_at_once", [1, 2, 3, 9])
def test_a_defect_in_parts_has_the_same_values_and_gradients(frames_at_once):
    march = solver(forcing=KolmogorovForcing(2))
    frames = flow(6) + smooth_noise(flow(6), 0.1)
    found = []
    for parts in (None, frames_at_once):
        defect = Defect(march, march.metadata, frames_at_once=parts)
        leaf = frames.clone().requires_grad_()
        residual = defect.of(Path(leaf[:, :1], leaf[:, 1:]), march.context(2))
        (gradient,) = torch.autograd.grad(defect.size(residual).sum(), leaf)
        found.append((residual.detach(), gradient))
    for whole, parted in zip(*found, strict=True):
        torch.testing.assert_close(parted, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))


def test_bad_residuals_are_refused():
    march, frames = solver(), flow(3)
    path = Path(frames[:, :1], frames[:, 1:], torch.zeros_like(frames[:, 1:]))
    for kind in (AnalyticResidual, SelfStartedResidual):
        with pytest.raises(ValueError, match=r"'viscosity' in the data but they state \('drag',\); .* use the defect"):
            kind(vorticity_data("drag"))
        with pytest.raises(ValueError, match="'viscosity' in the context of the data but it has none; generate"):
            kind(vorticity_data("viscosity")).of(path, march.context(2))
        context = march.context(2)._replace(parameters=torch.ones(2, 1))
        with pytest.raises(ValueError, match=r"a forcing on the grid of the fields \(16, 16\) but got \(8, 8\)"):
            kind(vorticity_data("viscosity"), torch.zeros(8, 8)).of(path, context)
        velocity = Metadata("flow", march.grid, (Channel("velocity_x"),), INTERVAL, parameters=("viscosity",))
        with pytest.raises(ValueError, match=r"vorticity on a periodic rectangle but got channels \('velocity_x',\)"):
            kind(velocity)
        walls = Metadata("flow", Grid((Axis("x", period=1.0), Axis("y"))), march.channels, INTERVAL, ("viscosity",))
        with pytest.raises(ValueError, match=r"with periods \[1\.0, None\]; use the defect"):
            kind(walls)
    with pytest.raises(ValueError, match="frames_at_once of at least 1 but got 0"):
        Defect(march, march.metadata, frames_at_once=0)
    with pytest.raises(ValueError, match=r"frames 0\.2 apart but the prediction to refine has 0\.1"):
        Defect(solver(frame_interval=0.2), march.metadata)
    with pytest.raises(ValueError, match="periods"):
        Defect(solver(length=1.0), march.metadata)


def test_bad_methods_are_refused():
    for kind in (Newton, LBFGS, Adam):
        with pytest.raises(ValueError, match="iterations of at least 1 but got 0"):
            kind(iterations=0)
    with pytest.raises(ValueError, match="memory of at least 1 but got 0"):
        LBFGS(memory=0)
    with pytest.raises(ValueError, match="rates >= 0 and compat None or 'torch-cfd' but got -1"):
        Adam(bias_rate=-1)
    with pytest.raises(ValueError, match=r"compat None or 'torch-cfd' but got .* 'theirs'"):
        Adam(compat="theirs")
    with pytest.raises(ValueError, match=r"three positive modes \(x, y, time\) but got \(4, 0, 3\)"):
        Newton(modes=(4, 0, 3))


def test_newton_refuses_what_it_cannot_use():
    frames = flow(HISTORY + 3)
    history, block = frames[:, :HISTORY], frames[:, HISTORY:]
    blind = problem_of(Given(block), history, residual=SelfStartedResidual(vorticity_data("viscosity")))
    with pytest.raises(ValueError, match="defect of a march for Newton but got SelfStartedResidual; use Adam or LBFGS"):
        Newton().begin(blind)
    with pytest.raises(ValueError, match="an SFNO to project on its head but got Given; leave modes out"):
        Newton(modes=(4, 4, 3)).begin(problem_of(Given(block), history))
    fno = Surrogate(FNO(channels=1, modes=(4, 4), width=4, layers=1), solver().metadata)
    with pytest.raises(ValueError, match="an SFNO to project on its head but got FNO; leave modes out"):
        Newton(modes=(4, 4, 3)).begin(problem_of(fno, history.float()))
    with pytest.raises(
        ValueError, match=r"the 4 frames of the head .* but got a window of 3; leave window or modes out"
    ):
        Newton(modes=(4, 4, 3)).begin(problem_of(surrogate(), history, prediction=block))
    with pytest.raises(ValueError, match=r"frames 0\.3 apart but the prediction to refine has 0\.1"):
        Newton(solver(frame_interval=0.3)).begin(problem_of(Given(block), history))
    for method in (LBFGS(), Adam()):
        with pytest.raises(ValueError, match="the 4 frames of the head but got a window of 3; leave window out"):
            method.begin(problem_of(surrogate(), history, prediction=block))

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.norms import bochner_norm, sobolev_norm, torch_cfd_sobolev
from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.physics.residuals import (
    March,
    estimate,
    one_interval_defect,
    self_started_residual,
    vorticity_residual,
)
from pdesurrogate.simulators.forcing import DiagonalForcing, KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import McWilliams

BOX = (2 * math.pi, 2 * math.pi)
VISCOSITY = 1e-3
INTERVAL = 0.1
SIZE = 32
STEPS = 10  # of the solver in a frame interval

# On its first use of forward mode torch 2.13 compiles formulas in a way that it is about to drop.
uses_forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def mesh(size=SIZE, length=2 * math.pi):
    line = torch.arange(size, dtype=torch.float64) * (length / size)
    return torch.meshgrid(line, line, indexing="ij")


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def solver(**options):
    return NavierStokes2d(SIZE, VISCOSITY, INTERVAL, STEPS, precision="float64", **options)


def trajectory(march, frames, batch=2, steps=STEPS):
    """Frames ``(batch, time, 1, x, y)`` of a solver, ``steps`` time steps apart."""
    generator = torch.Generator().manual_seed(0)
    start = McWilliams().sample(batch, (SIZE, SIZE), BOX, generator)
    states = [march.advance(start, STEPS)]
    for _ in range(frames - 1):
        states.append(march.advance(states[-1], steps))
    return torch.stack(states, 1)


def wrong_trajectories(truth):
    """What a residual must not take for the truth."""
    amplitude = truth.square().mean((-2, -1), keepdim=True).sqrt()
    return {
        "reversed": truth.flip(1),
        "frozen": truth[:, -1:].expand_as(truth),
        "white noise": amplitude * noise(*truth.shape, seed=3),
    }


# One-interval defect


class Relaxation:
    """``dw/dt = -rate (w - forcing)``, exactly; keeps the histories that it was given."""

    def __init__(self):
        self.batches = []

    def step(self, history, context):
        self.batches.append(len(history))
        factor = torch.exp(-INTERVAL * context.parameters)[:, :, None, None]
        return (context.forcing + (history[:, 0] - context.forcing) * factor).unsqueeze(1)


@pytest.mark.parametrize(("frames_at_once", "batches"), [(None, [15]), (1, [3] * 5), (2, [6, 6, 3]), (9, [15])])
def test_frames_marched_side_by_side_meet_their_own_context(frames_at_once, batches):
    march = Relaxation()
    context = Context((torch.zeros(3, 4),), parameters=torch.tensor([[0.5], [1.0], [2.0]]), forcing=noise(3, 1, 4, 4))
    frames = noise(3, 6, 1, 4, 4, seed=1)
    found = one_interval_defect(frames, context, march, INTERVAL, frames_at_once)
    assert march.batches == batches
    decay = torch.exp(-INTERVAL * context.parameters)[:, :, None, None]
    for now in range(5):
        expected = context.forcing + (frames[:, now] - context.forcing) * decay
        torch.testing.assert_close(found[:, now], (frames[:, now + 1] - expected) / INTERVAL)


@pytest.mark.parametrize("forcing", [None, KolmogorovForcing(2)], ids=["decaying", "forced"])
def test_defects_are_those_of_single_steps_and_vanish_on_the_marchs_own_trajectory(forcing):
    march = solver(forcing=forcing)
    assert isinstance(march, March)
    truth = trajectory(march, frames=5)
    assert one_interval_defect(truth, march.context(2), march, INTERVAL).abs().max() < 1e-12
    frames = truth + 0.1 * noise(*truth.shape)
    together = one_interval_defect(frames, march.context(2), march, INTERVAL)
    for now in range(4):
        expected = (frames[:, now + 1] - march.advance(frames[:, now], STEPS)) / INTERVAL
        torch.testing.assert_close(together[:, now], expected, rtol=0, atol=1e-12)


@uses_forward_mode
@pytest.mark.parametrize("frames_at_once", [None, 1])
def test_derivatives_of_the_defect_in_both_modes(frames_at_once):
    march = solver(forcing=KolmogorovForcing(2))
    frames = trajectory(march, frames=4)
    direction, weight = noise(*frames.shape, seed=1), noise(2, 3, 1, SIZE, SIZE, seed=2)

    def defect(values):
        return one_interval_defect(values, march.context(2), march, INTERVAL, frames_at_once)

    _, tangent = torch.func.jvp(defect, (frames,), (direction,))
    step = 1e-5
    difference = (defect(frames + step * direction) - defect(frames - step * direction)) / (2 * step)
    # Third derivatives times step^2, and round-off of the defect over the step: both about 1e-9.
    assert (tangent - difference).abs().max() < 1e-7 * tangent.abs().max()
    leaf = frames.clone().requires_grad_()
    (adjoint,) = torch.autograd.grad((defect(leaf) * weight).sum(), leaf)
    torch.testing.assert_close((adjoint * direction).sum(), (weight * tangent).sum(), rtol=1e-10, atol=0)


def test_bad_input_of_the_defect_is_refused():
    march = solver()
    frames = torch.zeros(1, 2, 1, SIZE, SIZE)
    with pytest.raises(ValueError, match="at least two frames for a defect but got 1"):
        one_interval_defect(frames[:, :1], march.context(1), march, INTERVAL)
    with pytest.raises(ValueError, match=r"positive interval and frames_at_once but got 0\.1 and 0"):
        one_interval_defect(frames, march.context(1), march, INTERVAL, frames_at_once=0)
    with pytest.raises(ValueError, match=r"positive interval and frames_at_once but got -0\.1"):
        one_interval_defect(frames, march.context(1), march, -INTERVAL)

    class Coarse:
        def step(self, history, context):
            return history[..., ::2, ::2]

    with pytest.raises(ValueError, match=r"the march to give frames \(1, 32, 32\) but got \(1, 16, 16\)"):
        one_interval_defect(frames, march.context(1), Coarse(), INTERVAL)


# Strong form


def taylor_green(times, viscosity, wavenumber=1, size=64):
    """Exact vorticity and its time derivative ``(time, x, y)``."""
    x, y = mesh(size)
    decay = torch.exp(-2 * viscosity * wavenumber**2 * times)[:, None, None]
    vorticity = 2 * wavenumber * torch.cos(wavenumber * x) * torch.cos(wavenumber * y) * decay
    return vorticity, -2 * viscosity * wavenumber**2 * vorticity


@pytest.mark.parametrize("wavenumber", [1, 2, 4])
def test_taylor_green_vortices_leave_nothing(wavenumber):
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    vorticity, derivative = taylor_green(times, 1e-2, wavenumber)
    assert vorticity_residual(vorticity, derivative, BOX, viscosity=1e-2).abs().max() < 1e-12


def test_every_term_against_derivatives_by_hand():
    # Two waves of known stream function; psi = sum a cos(k x + phase) sin(l y), w = -laplacian psi.
    length, size = 3.0, 48
    x, y = mesh(size, length)
    unit = 2 * math.pi / length
    waves = [(0.7, 1, 2, 0.3), (0.4, 3, 1, -1.1)]
    w = wx = wy = u = v = laplacian = torch.zeros(size, size, dtype=torch.float64)
    for amplitude, kx, ky, phase in waves:
        k, m = kx * unit, ky * unit
        cos_x, sin_x = torch.cos(k * x + phase), torch.sin(k * x + phase)
        cos_y, sin_y = torch.cos(m * y), torch.sin(m * y)
        square = k**2 + m**2
        u = u + amplitude * m * cos_x * cos_y
        v = v + amplitude * k * sin_x * sin_y
        w = w + amplitude * square * cos_x * sin_y
        wx = wx - amplitude * square * k * sin_x * sin_y
        wy = wy + amplitude * square * m * cos_x * cos_y
        laplacian = laplacian - amplitude * square**2 * cos_x * sin_y
    forcing, derivative = noise(size, size), noise(size, size, seed=1)
    expected = derivative + u * wx + v * wy - 0.02 * laplacian + 0.3 * w - forcing
    found = vorticity_residual(w, derivative, (length, length), 0.02, drag=0.3, forcing=forcing)
    assert (found - expected).abs().max() < 1e-13 * expected.abs().max()


@pytest.mark.parametrize("forcing", [None, KolmogorovForcing(2)], ids=["decaying", "forced"])
def test_it_has_the_sign_and_the_mask_of_the_solver(forcing):
    march = solver(forcing=forcing, drag=0.2)
    frames = march.to_field(march.to_spectrum(noise(2, SIZE, SIZE)))
    spectrum = march.to_spectrum(frames)
    # By the solver's own tendency, another form of the same advection.
    damping = vorticity_residual(frames, torch.zeros_like(frames), BOX, VISCOSITY, 0.2, mask=torch.zeros(SIZE, 17))
    derivative = march.to_field(march.tendency(spectrum)) - damping
    source = None if forcing is None else march.forcing_field
    residual = vorticity_residual(frames, derivative, BOX, VISCOSITY, drag=0.2, forcing=source)
    assert residual.abs().max() < 1e-12 * derivative.abs().max()
    assert vorticity_residual(frames, -derivative, BOX, VISCOSITY, drag=0.2, forcing=source).abs().max() > 1


@given(length=st.floats(0.2, 20), seed=st.integers(0, 99))
def test_the_mask_does_not_know_the_size_of_the_box(length, seed):
    # White noise: waves beyond the mask matter. Vorticities of a scaled box obey the same equation, viscosity scaled.
    vorticity, derivative = noise(24, 24, seed=seed), noise(24, 24, seed=seed + 100)
    expected = vorticity_residual(vorticity, derivative, BOX, viscosity=0.1)
    scale = length / (2 * math.pi)
    found = vorticity_residual(vorticity, derivative, (length, length), viscosity=0.1 * scale**2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    unmasked = vorticity_residual(vorticity, derivative, BOX, viscosity=0.1, mask=torch.ones(24, 13))
    difference = torch.fft.rfft2(unmasked - expected)
    assert difference.abs().max() > 1e-3
    assert difference[:8, :8].abs().max() < 1e-10


def test_coefficients_and_forcings_of_single_samples():
    frames, derivative = noise(3, 2, 1, 16, 16), noise(3, 2, 1, 16, 16, seed=1)
    viscosity = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    forcing = noise(3, 1, 1, 16, 16, seed=2)
    shaped = viscosity.reshape(3, 1, 1, 1, 1)
    found = vorticity_residual(frames, derivative, BOX, shaped, drag=2 * shaped, forcing=forcing)
    for sample in range(3):
        value = float(viscosity[sample])
        expected = vorticity_residual(frames[sample], derivative[sample], BOX, value, 2 * value, forcing[sample, 0, 0])
        torch.testing.assert_close(found[sample], expected)


def test_bad_input_of_the_strong_form_is_refused():
    frames = torch.zeros(3, 2, 1, 16, 16)

    def refused(match, derivative=frames, viscosity=0.1, **options):
        with pytest.raises(ValueError, match=match):
            vorticity_residual(frames, derivative, BOX, viscosity, **options)

    refused(r"time derivative \(3, 2, 1, 16, 16\) as the vorticity but got \(3, 1, 1, 16, 16\)", frames[:, :1])
    refused("viscosity >= 0 but got -0.1", viscosity=-0.1)
    refused("drag >= 0 but got nan", drag=math.nan)
    refused(r"viscosity that broadcasts to \(3, 2, 1, 1, 1\) but got \(3, 1\)", viscosity=torch.ones(3, 1))
    refused(r"drag that broadcasts to \(3, 2, 1, 1, 1\) but got \(3, 2, 1, 16, 16\)", drag=torch.zeros_like(frames))
    # With an axis fewer, samples would be taken for frames.
    refused(r"a forcing \(16, 16\), or one .* has as many axes, but got \(2, 1, 16, 16\)", forcing=frames[0])
    refused(r"a forcing \(16, 16\).* but got \(8, 8\)", forcing=torch.zeros(8, 8))
    refused(r"a mask \(16, 9\) but got \(16, 16\)", mask=torch.ones(16, 16))
    with pytest.raises(ValueError, match="positive time_step but got 0"):
        self_started_residual(frames, BOX, 0.1, time_step=0.0)
    with pytest.raises(ValueError, match="a forcing"):
        self_started_residual(frames, BOX, 0.1, forcing=frames[0])


# Which of them see a wrong trajectory


def rank(measure, truth):
    """How many times larger than the truth's each wrong trajectory's residual is, the least of all samples."""
    exact = measure(truth)
    return {name: float((measure(wrong) / exact).min()) for name, wrong in wrong_trajectories(truth).items()}


def size_of(residual):
    return estimate(residual, BOX).total


@pytest.mark.parametrize("forcing", [None, KolmogorovForcing(2)], ids=["decaying", "forced"])
def test_the_defect_is_not_blind(forcing):
    march = solver(forcing=forcing)

    def measure(frames):
        return size_of(one_interval_defect(frames, march.context(2), march, INTERVAL))

    assert min(rank(measure, trajectory(march, frames=8)).values()) > 1e3
    # Nor to what files hold of another solver's trajectory: one with smaller steps, in single precision.
    precise_march = NavierStokes2d(SIZE, VISCOSITY, INTERVAL, 4 * STEPS, precision="float64", forcing=forcing)
    precise = trajectory(precise_march, frames=8, steps=4 * STEPS)
    assert min(rank(measure, precise.float().double()).values()) > 1e3


def eighth_order_derivative(frames, interval):
    """Time derivative of ``frames (batch, time, ...)`` but for the first and last four, by central differences."""
    inner = frames.shape[1] - 8
    total = torch.zeros_like(frames[:, 4:-4])
    for distance, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1):
        later, earlier = frames[:, 4 + distance :][:, :inner], frames[:, 4 - distance :][:, :inner]
        total = total + weight * (later - earlier) / interval
    return total


@pytest.mark.parametrize("forcing", [None, KolmogorovForcing(2)], ids=["decaying", "forced"])
def test_the_strong_form_with_the_trajectorys_own_derivative_is_not_blind(forcing):
    march = solver(forcing=forcing)
    source = None if forcing is None else march.forcing_field[0]

    def measure(frames):
        derivative = eighth_order_derivative(frames, march.time_step)
        return size_of(vorticity_residual(frames[:, 4:-4], derivative, BOX, VISCOSITY, forcing=source))

    ratios = rank(measure, trajectory(march, frames=14, steps=1))
    assert min(ratios.values()) > 1e3, ratios


@pytest.mark.parametrize("forcing", [None, KolmogorovForcing(2)], ids=["decaying", "forced"])
def test_the_self_started_residual_is_blind(forcing):
    march = solver(forcing=forcing)
    source = None if forcing is None else march.forcing_field[0]
    truth = trajectory(march, frames=8)
    ratios = rank(lambda frames: size_of(self_started_residual(frames, BOX, VISCOSITY, source)), truth)
    # It fails the gate above by orders of magnitude: a fault of the whole trajectory is not worth a factor of three.
    assert max(ratios.values()) < 3, ratios
    # What it measures in the authors' norm is round-off, about 4e-7 as they print it.
    assert torch_cfd_sobolev(self_started_residual(truth, BOX, VISCOSITY, source), diameter=BOX[0]).max() < 1e-5
    # With a forward step, it is the step: ten times as long, ten times as large.
    short, long = (
        size_of(self_started_residual(truth, BOX, VISCOSITY, source, step, (0.0, 1.0))) for step in (1e-5, 1e-4)
    )
    torch.testing.assert_close(long, 10 * short, rtol=1e-3, atol=0)


@pytest.mark.parametrize("case", ["mcw", "fno"])
def test_the_self_started_step_is_that_of_the_authors(case):
    flow = torch.load(Path(__file__).parents[1] / "golden" / "sfno_solver_step.pt", weights_only=True)[case]
    step, periods = flow["imex_cn_legacy"], (flow["diam"],) * 2
    x, y = mesh(length=flow["diam"])
    forcing = DiagonalForcing(0.1).vorticity_source(x, y, periods) if flow["forcing"] else None
    # Their mask compares waves per length with waves per box: on a box of side 2 pi it keeps all.
    mask = torch.ones(SIZE, SIZE // 2 + 1) if case == "mcw" else None
    found = self_started_residual(flow["w0"], periods, flow["visc"], forcing, step["dt"], (0.0, 1.0), mask)
    expected = vorticity_residual(step["w1"], step["dwdt"], periods, flow["visc"], forcing=forcing, mask=mask)
    assert expected.abs().max() > 1e-3
    # Their derivative is a difference of fields over 1e-2: round-off of 1e-16 becomes 1e-14, and more on the way here.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


# Estimator


def quadrature(nodes=12):
    """Gauss-Legendre points and weights on ``(0, 1)``."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.tensor((points + 1) / 2), torch.tensor(weights / 2)


EFFICIENCY = {
    # Wavenumber of the error: over its energy norm, over the norm of its own tendency.
    1: (1.17, 1.07), 2: (1.50, 1.39), 4: (2.24, 2.14), 8: (3.46, 3.01), 16: (4.83, 2.33),
}  # fmt: skip


@pytest.mark.parametrize("amplitude", [1e-1, 1e-3])
@pytest.mark.parametrize("k", EFFICIENCY)
def test_efficiency_on_taylor_green_vortices(k, amplitude):
    viscosity, duration = 1e-2, 1.0
    times, weights = quadrature()
    x, y = mesh(64)
    shape = torch.cos(k * x + 0.3) * torch.sin((k + 1) * y)
    growth = amplitude * torch.sin(math.pi * times / 2)[:, None, None]
    speed = amplitude * math.pi / 2 * torch.cos(math.pi * times / 2)[:, None, None]
    vorticity, derivative = taylor_green(times, viscosity)
    error, tendency = growth * shape, speed * shape
    residual = vorticity_residual(vorticity + error, derivative + tendency, BOX, viscosity)
    found = estimate(residual[None, :, None], BOX, order=-1.0, alpha=0.0, weights=weights)
    eta = duration**0.5 * found.total

    def squared(fields, order):
        return duration * bochner_norm(sobolev_norm(fields, BOX, order, alpha=0.0)[None], weights) ** 2

    # The error is largest at the end.
    largest = sobolev_norm(amplitude * shape, BOX, -1.0, alpha=0.0)
    energy = (largest**2 + viscosity * squared(error, 0.0)).sqrt()
    rates = (squared(tendency, -1.0) + viscosity**2 * squared(error, 1.0)).sqrt()
    assert (float(eta / energy), float(eta / rates)) == pytest.approx(EFFICIENCY[k], rel=0.01)


@given(
    k=st.integers(1, 7), viscosity=st.floats(1e-3, 1.0), frequency=st.floats(0.1, 20.0), duration=st.floats(0.1, 3.0)
)
def test_both_orders_bound_the_error_where_the_equation_is_linear(k, viscosity, frequency, duration):
    # Shear waves do not carry themselves along: the exact solution is rest, and the error is the wave.
    times, weights = quadrature(40)
    times = duration * times
    x, _ = mesh(16)
    wave = torch.sin(k * x)
    rise, speed = torch.sin(frequency * times), frequency * torch.cos(frequency * times)
    error, tendency = rise[:, None, None] * wave, speed[:, None, None] * wave
    residual = vorticity_residual(error, tendency, BOX, viscosity)[None, :, None]
    velocity = velocity_from_vorticity(error, BOX).square().sum(-3).mean((-2, -1))
    largest = velocity.max().sqrt()
    dissipated = viscosity * duration * (weights * error.square().mean((-2, -1))).sum()
    first = estimate(residual, BOX, order=-1.0, alpha=0.0, weights=weights).total[0]
    assert largest <= duration * first * (1 + 1e-9)
    second = estimate(residual, BOX, order=-2.0, alpha=0.0, weights=weights).total[0]
    # Twice: each of both terms is bounded by this on its own.
    assert largest**2 + dissipated <= 2 * duration / viscosity * second**2 * (1 + 1e-9)


@given(order=st.floats(-3, 3), seed=st.integers(0, 99))
def test_frames_and_shells_add_up(order, seed):
    residual = noise(2, 3, 2, 12, 10, seed=seed)
    periods, weights = (2 * math.pi, 3.0), noise(3, seed=seed).abs()
    found = estimate(residual, periods, order, weights=weights)
    assert found.by_frame.shape == (2, 3)
    assert found.by_shell.shape == (2, 3, len(found.wavenumbers))
    alpha = (2 * math.pi / max(periods)) ** 2
    squares = sobolev_norm(residual, periods, order, alpha).square().sum(2)
    close = {"rtol": 1e-12, "atol": 0}
    torch.testing.assert_close(found.by_frame.square(), squares, **close)
    torch.testing.assert_close(found.by_shell.sum(-1), squares, **close)
    torch.testing.assert_close(found.total, bochner_norm(squares.sqrt(), weights), **close)
    # The default counts the mean as the longest wave: at order -1 half of the square at most is lost.
    homogeneous = estimate(residual - residual.mean((-2, -1), keepdim=True), periods, -1.0, alpha=0.0, weights=weights)
    default = estimate(residual - residual.mean((-2, -1), keepdim=True), periods, weights=weights)
    assert (default.total <= homogeneous.total).all()
    assert (homogeneous.total <= 2**0.5 * default.total).all()


def test_when_and_where_an_error_is_shows():
    frames, (x, y) = torch.zeros(1, 5, 1, SIZE, SIZE, dtype=torch.float64), mesh()
    frames[0, 3, 0] = torch.cos(6 * x) * torch.cos(8 * y)
    found = estimate(frames, BOX, order=0.0)
    assert int(found.by_frame[0].argmax()) == 3
    assert float(found.wavenumbers[found.by_shell[0, 3].argmax()]) == 10
    assert float(found.total) == pytest.approx(0.5 / math.sqrt(5), rel=1e-12)
    assert found.by_frame[0, :3].max() < 1e-14


def test_one_diverged_sample_leaves_the_others_alone_and_single_precision_is_kept_apart():
    residual = noise(2, 3, 1, 16, 16)
    expected = estimate(residual, BOX)
    torn = residual.clone()
    torn[1, 2, 0, 5, 5] = math.nan
    found = estimate(torn, BOX)
    assert torch.equal(found.total[0], expected.total[0])
    assert found.total[1].isnan()
    assert found.by_frame.isnan().tolist() == [[False] * 3, [False, False, True]]
    single = estimate(residual.float(), BOX)
    assert single.total.dtype == torch.float64
    torch.testing.assert_close(single.total, expected.total, rtol=1e-6, atol=0)


@uses_forward_mode
def test_the_estimate_of_a_defect_has_derivatives_even_where_it_vanishes():
    march = solver()
    frames = trajectory(march, frames=3) + 0.1 * noise(2, 3, 1, SIZE, SIZE)
    direction = noise(*frames.shape, seed=1)
    with torch.inference_mode():
        estimate(noise(1, 1, 1, SIZE, SIZE), BOX)  # tables are shared, and must not stay in this mode

    def total(values):
        return estimate(one_interval_defect(values, march.context(2), march, INTERVAL), BOX, order=-2.0).total

    _, tangent = torch.func.jvp(total, (frames,), (direction,))
    step = 1e-5
    difference = (total(frames + step * direction) - total(frames - step * direction)) / (2 * step)
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=0)
    leaf = frames.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf).sum(), leaf)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3, 4)), tangent)
    still = torch.zeros(1, 2, 1, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(estimate(still, BOX).total.sum(), still)
    assert torch.equal(gradient, torch.zeros_like(still))


def test_a_residual_without_a_channel_axis_is_refused():
    with pytest.raises(ValueError, match=r"channel, \*space\) with 2 space axes but got \(2, 3, 16, 16\)"):
        estimate(torch.zeros(2, 3, 16, 16), BOX)

"""The solver against the authors' golden steps, exact solutions, orders of convergence and invariants."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.physics.residuals import LinearizedMarch
from pdesurrogate.physics.spectral import dealias_mask
from pdesurrogate.simulators.forcing import DiagonalForcing, KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import McWilliams
from pdesurrogate.simulators.time_schemes import ETDRK4, RK2CrankNicolson, RK4CrankNicolson, TimeScheme

BOX = (2 * math.pi, 2 * math.pi)


@pytest.fixture(scope="module")
def golden():
    return torch.load(Path(__file__).parents[1] / "golden" / "sfno_solver_step.pt", weights_only=True)


def turbulence(resolution: int = 32, count: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return McWilliams().sample(count, (resolution, resolution), BOX, generator)


def solver(scheme: TimeScheme, steps: int, viscosity: float = 1e-3, interval: float = 0.5, **options) -> NavierStokes2d:
    return NavierStokes2d(
        options.pop("resolution", 32), viscosity, interval, steps, scheme=scheme, precision="float64", **options
    )


@pytest.mark.parametrize("case", ["mcw", "fno", "drag"])
@pytest.mark.parametrize(("key", "scheme"), [("rk4cn_lowstorage", RK4CrankNicolson()), ("imex2", RK2CrankNicolson())])
def test_equals_the_authors_steps(golden, case, key, scheme):
    flow = golden[case]
    stored = flow[key]
    forcing = DiagonalForcing(0.1) if flow["forcing"] else None
    ours = solver(
        scheme, 1, flow["visc"], stored["dt"], length=flow["diam"], drag=flow["drag"], forcing=forcing,
        mask=flow["filter"],
    )  # fmt: skip
    start = flow["w0"].unsqueeze(1)
    torch.testing.assert_close(ours.advance(start, 1)[:, 0], stored["w1"], rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.advance(start, 10)[:, 0], stored["w10"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("scheme", "viscosity", "order"),
    [
        (RK4CrankNicolson, 1e-3, 4.0),
        (RK4CrankNicolson, 0.0, 4.0),
        (RK4CrankNicolson, 0.1, 2.0),  # the Crank–Nicolson floor
        (RK2CrankNicolson, 1e-3, 2.0),
        (ETDRK4, 1e-3, 4.0),
        (ETDRK4, 0.1, 4.0),
    ],
)
def test_order_of_convergence(scheme, viscosity, order):
    start = turbulence()
    reference = solver(ETDRK4(), 640, viscosity).advance(start, 640)
    errors = [(solver(scheme(), n, viscosity).advance(start, n) - reference).norm() for n in (20, 40, 80)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert slopes[-1] == pytest.approx(order, abs=0.3)


def taylor_green(resolution: int, wavenumber: int = 1) -> torch.Tensor:
    axis = torch.arange(resolution, dtype=torch.float64) * (2 * math.pi / resolution)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return (2 * wavenumber * torch.cos(wavenumber * x) * torch.cos(wavenumber * y))[None, None]


def test_taylor_green_is_exact_with_an_exponential_integrator():
    start = taylor_green(32, wavenumber=2)
    end = solver(ETDRK4(), 7, viscosity=0.1, interval=1.0).advance(start, 7)
    torch.testing.assert_close(end, start * math.exp(-2 * 0.1 * 4), rtol=0, atol=1e-13)


def test_taylor_green_time_error_of_crank_nicolson():
    # spectral_refiner note, section 5.8: maximum error at T = 1, viscosity 0.1, for 5, 10, 20 and 40 steps.
    start = taylor_green(32)
    exact = start * math.exp(-0.2)
    found = [
        float((solver(RK4CrankNicolson(), n, viscosity=0.1, interval=1.0).advance(start, n) - exact).abs().max())
        for n in (5, 10, 20, 40)
    ]
    assert found == pytest.approx([2.97e-6, 7.43e-7, 1.86e-7, 4.65e-8], rel=5e-3)


@pytest.mark.parametrize("scheme", [RK4CrankNicolson(), RK2CrankNicolson(), ETDRK4()], ids=lambda s: type(s).__name__)
def test_mean_vorticity_is_kept_and_energy_falls_without_forcing(scheme):
    flow = solver(scheme, 20)
    state = turbulence(count=2) + 0.3
    energies = []
    for _ in range(6):
        velocity = velocity_from_vorticity(state[:, 0], BOX)
        energies.append(velocity.square().sum(1).mean((-2, -1)))
        state = flow.advance(state, 10)
    assert float((state.mean((-2, -1)) - 0.3).abs().max()) < 1e-13
    drops = -torch.stack(energies).diff(dim=0)
    assert bool((drops > 0).all())


def test_advection_equals_the_textbook_form_inside_the_mask():
    n = 32
    flow = solver(ETDRK4(), 10, resolution=n)
    vorticity = turbulence(n)[:, 0]
    spectrum = flow.to_spectrum(vorticity)
    inside = flow.to_field(spectrum)
    u, v = velocity_from_vorticity(inside, BOX).unbind(-3)
    hat = torch.fft.rfft2(inside)
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    gradient = [torch.fft.irfft2(1j * wave * hat, s=(n, n)) for wave in (k[:, None], k[: n // 2 + 1].abs()[None])]
    expected = -torch.fft.rfft2(u * gradient[0] + v * gradient[1]) * dealias_mask((n, n))
    found = torch.view_as_complex(flow.tendency(spectrum))
    torch.testing.assert_close(found.mT, expected[..., : found.shape[-2]], rtol=0, atol=1e-10)


def test_kolmogorov_wavenumber_is_honoured():
    # From rest, one small step gives dt * f: a single wave -A k cos(k y).
    flow = solver(ETDRK4(), 1, interval=1e-6, forcing=KolmogorovForcing(wavenumber=3, amplitude=2.0))
    grown = flow.advance(torch.zeros(1, 1, 32, 32, dtype=torch.float64), 1)[0, 0] / 1e-6
    y = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    torch.testing.assert_close(grown, (-6 * torch.cos(3 * y)).expand(32, 32), rtol=0, atol=1e-5)


def test_translations_and_quarter_turns_commute_with_the_flow():
    flow = solver(ETDRK4(), 10)
    start = turbulence()
    end = flow.advance(start, 10)
    torch.testing.assert_close(flow.advance(start.roll((5, -3), (-2, -1)), 10), end.roll((5, -3), (-2, -1)))
    torch.testing.assert_close(flow.advance(start.rot90(1, (-2, -1)), 10), end.rot90(1, (-2, -1)))


def test_batch_of_two_equals_two_singles():
    flow = NavierStokes2d(32, 1e-3, 0.1, 5)
    start = turbulence(count=2).float()
    both = flow.advance(start, 5)
    singles = torch.cat([flow.advance(start[i : i + 1], 5) for i in range(2)])
    torch.testing.assert_close(both, singles)


def test_the_step_can_be_differentiated():
    flow = solver(ETDRK4(), 2, resolution=8, interval=0.1)
    start = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda state: flow.advance(state, 2), (start.requires_grad_(),))


@pytest.mark.parametrize("scheme", [RK4CrankNicolson(), RK2CrankNicolson(), ETDRK4()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("forcing", [None, KolmogorovForcing(2)], ids=["decaying", "forced"])
def test_the_derivative_of_a_step_is_that_of_forward_mode_and_of_differences(scheme, forcing):
    march = solver(scheme, 3, interval=0.1, resolution=16, drag=0.1, forcing=forcing)
    assert isinstance(march, LinearizedMarch)
    states = turbulence(16, count=2).unsqueeze(1)
    directions = torch.randn(states.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    context = march.context(2)

    def step(state):
        return march.step(state, context)

    found = march.step_tangent(states, directions, context)
    _, expected = torch.func.jvp(step, (states,), (directions,))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 * float(expected.abs().max()))
    # Third derivatives times size^2, and round-off over size: both about 1e-10.
    size = 1e-5
    difference = (step(states + size * directions) - step(states - size * directions)) / (2 * size)
    assert (found - difference).abs().max() < 1e-8 * found.abs().max()
    single = march.step_tangent(states[1:], directions[1:], march.context(1))
    torch.testing.assert_close(found[1:], single, rtol=0, atol=1e-13 * float(expected.abs().max()))


# torch 2.13 writes this whatever is linearized.
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
def test_a_step_can_be_linearized_once_for_many_directions():
    march = solver(RK2CrankNicolson(), 1, interval=0.1, resolution=8)
    states, directions = turbulence(8).unsqueeze(1), torch.ones(1, 1, 1, 8, 8, dtype=torch.float64).cumsum(-1)
    _, derivative = torch.func.linearize(lambda state: march.step(state, march.context(1)), states)
    torch.testing.assert_close(derivative(directions), march.step_tangent(states, directions, march.context(1)))


def test_the_derivative_keeps_precision_and_refuses_other_grids():
    march = solver(ETDRK4(), 2)
    states = turbulence().unsqueeze(1)
    assert march.step_tangent(states.float(), states.float(), march.context(1)).dtype == torch.float32
    with pytest.raises(
        ValueError, match=r"one vorticity channel at \(32, 32\) but got \(1, 16, 16\); wrap .* Resampled"
    ):
        march.step_tangent(states[..., ::2, ::2], states[..., ::2, ::2], march.context(1))


def test_other_precisions_come_back_as_they_went_in():
    flow = solver(ETDRK4(), 2)
    assert flow.advance(turbulence().float(), 2).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 31}, "even resolution"),
        ({"resolution": 4}, "even resolution"),
        ({"viscosity": -1.0}, "viscosity and drag"),
        ({"frame_interval": 0.0}, "positive frame_interval"),
        ({"steps_per_frame": 0}, "at least one step"),
        ({"mask": torch.ones(3, 3)}, "Expected a mask"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    options = {"resolution": 32, "viscosity": 1e-3, "frame_interval": 0.1, "steps_per_frame": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        NavierStokes2d(**options)


def test_fields_of_another_grid_are_refused():
    flow = NavierStokes2d(32, 1e-3, 0.1, 2)
    with pytest.raises(ValueError, match="Resampled"):
        flow.step(torch.zeros(1, 1, 1, 64, 64), flow.context(1))

"""The channel solver against exact solutions, orders of convergence, invariants and linear stability theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.evaluation.channel.comparison import compare_with_reference
from pdesurrogate.evaluation.channel.reference import channel_reference
from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics
from pdesurrogate.physics.staggered_channel import (
    ChannelGrid,
    ChannelPoisson,
    divergence,
    pressure_gradient,
    stretched_faces,
)
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.forcing import MassFlux, PressureGradient
from pdesurrogate.simulators.channel.start import LaminarChannel, TrippedChannel
from pdesurrogate.simulators.channel.statistics import ChannelStatistics
from pdesurrogate.simulators.generation.protocols import Simulator
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.rollout import rollout

SHAPE = (8, 12, 6)
LENGTHS = (3.0, 2.0)


class SmoothViscosity:
    """An eddy viscosity that varies in space and depends on the flow, with no preferred side or direction."""

    def viscosity(self, velocity: torch.Tensor, grid: ChannelGrid) -> torch.Tensor:
        u, v, w = velocity.unbind(1)
        through = v + torch.nn.functional.pad(v[..., 1:, :], (0, 0, 0, 1))
        return 0.01 * ((u + u.roll(-1, -3)).square() + through.square() + (w + w.roll(-1, -1)).square())


def solver(**options) -> ChannelFlow:
    standard = {"shape": SHAPE, "lengths": LENGTHS, "viscosity": 0.01, "frame_interval": 0.1, "steps_per_frame": 5}
    return ChannelFlow(**{**standard, **options})


def random_state(flow: ChannelFlow, count: int = 1, seed: int = 0, size: float = 0.3) -> torch.Tensor:
    """A random velocity free of divergence on top of a unit bulk flow, and a random pressure."""
    generator = torch.Generator().manual_seed(seed)
    state = size * torch.randn(count, 4, *flow.shape, dtype=torch.float64, generator=generator)
    state[:, 1, :, 0] = 0
    state[:, 0] += 1 - flow.diagnostics(state).bulk_velocity[:, None, None, None]
    state[:, :3] = ChannelPoisson(flow.channel_grid).project(state[:, :3])
    return state


def mirrored(state: torch.Tensor) -> torch.Tensor:
    """The reflection in the mid-plane. Face ``j`` goes to face ``ny - j``, the wall face 0 stays."""
    image = state.flip(-2)
    image[:, 1, :, 0] = 0
    image[:, 1, :, 1:] = -state[:, 1, :, 1:].flip(-2)
    return image


def exchanged(state: torch.Tensor) -> torch.Tensor:
    """x and z change places, and with them the components along them."""
    return state[:, [2, 1, 0, 3]].transpose(2, 4)


def order(errors: list[float]) -> float:
    return math.log2(errors[-2] / errors[-1])


# Exact solutions.


@pytest.mark.parametrize("forcing", [MassFlux(1.0), PressureGradient(0.5)])
def test_poiseuille_is_the_discrete_steady_state(forcing):
    flow = solver(shape=(2, 12, 2), viscosity=1.0, forcing=forcing, frame_interval=12.0, steps_per_frame=110)
    grid = flow.channel_grid
    heights, distances = grid.heights.numpy(), grid.distances.numpy()
    ny = len(heights)
    slopes = np.zeros((ny + 1, ny))
    for face in range(ny + 1):
        slopes[face, min(face, ny - 1)] += (1 if face < ny else -1) / distances[face]
        if 0 < face < ny:
            slopes[face, face - 1] -= 1 / distances[face]
    profile = np.linalg.solve(np.diff(slopes, axis=0) / heights[:, None], -np.ones(ny))
    bulk = profile @ heights / heights.sum()
    gradient = 0.5 if isinstance(forcing, PressureGradient) else 1 / bulk
    state, _ = flow.march(LaminarChannel(gradient / 3).sample(1, grid, torch.Generator()), 110)
    _, found = flow.march(state, 3)
    expected = torch.from_numpy(gradient * profile)[:, None].expand(flow.shape)
    torch.testing.assert_close(state[0, 0], expected, rtol=0, atol=1e-12)
    assert float(state[:, 1:].abs().max()) < 1e-12
    assert float(found) == pytest.approx(gradient, abs=1e-12)
    stress = flow.diagnostics(state).wall_stress
    torch.testing.assert_close(stress, torch.full_like(stress, gradient), rtol=0, atol=1e-12)


def taylor_green(flow: ChannelFlow) -> torch.Tensor:
    """Vortices in planes of equal height; ``u = sin x cos z, w = -cos x sin z`` on the faces of each."""
    grid = flow.channel_grid
    (x, _, z), (dx, dz) = grid.coordinates, (grid.spacing_x, grid.spacing_z)
    state = torch.zeros(1, 4, *flow.shape, dtype=torch.float64)
    state[:, 0] = (torch.sin(x - dx / 2)[:, None] * torch.cos(z))[:, None]
    state[:, 2] = -(torch.cos(x)[:, None] * torch.sin(z - dz / 2))[:, None]
    state[:, 3] = (torch.cos(2 * x)[:, None] + torch.cos(2 * z))[:, None] / 4
    return state


def test_taylor_green_vortices_are_of_second_order_along_x_and_z():
    # Walls so far away that neither friction nor pressure reaches the middle: cells a hundred times as high as long.
    errors, pressure_errors = [], []
    for cells in (8, 16, 32):
        flow = ChannelFlow(
            (cells, 5, cells), (2 * math.pi, 2 * math.pi), 0.1, 1.0, 2 * cells, PressureGradient(0.0),
            faces=[0.0, 1e3, 2e3, 3e3, 4e3, 5e3],
        )  # fmt: skip
        start = taylor_green(flow)
        end, pressure = flow.advance(start, flow.steps_per_frame)[:, :, :, 2].split([3, 1], 1)
        wrong = pressure - pressure.mean() - start[:, 3:, :, 2] * math.exp(-0.4)
        pressure_errors.append(float(wrong.abs().max()))
        errors.append(float((end - start[:, :3, :, 2] * math.exp(-0.2)).abs().max()))
        # Advection of these vortices is a gradient on the grid as well: only the rate of decay is off.
        wave = 2 * math.sin(math.pi / cells) / (2 * math.pi / cells)
        on_grid = start[:, :3, :, 2] * math.exp(-0.2 * wave**2)
        torch.testing.assert_close(end, on_grid, rtol=0, atol=2e-5 * (8 / cells) ** 3 + 1e-9)
    assert order(errors) == pytest.approx(2, abs=0.05)
    assert pressure_errors[-1] < 0.01
    assert order(pressure_errors) > 0.9  # the pressure is that of the middle of the last substep


def stokes_mode(grid: ChannelGrid, wave: float, kappa: float, alpha: float) -> torch.Tensor:
    """Velocity on faces of ``psi = cos(wave x) f(eta)`` with ``f = cos(kappa eta) / cos kappa - cosh .. / cosh ..``."""
    eta = grid.faces - 1
    along = torch.cos(kappa * eta) / math.cos(kappa) - torch.cosh(alpha * eta) / math.cosh(alpha)
    x = torch.arange(grid.shape[0] + 1, dtype=torch.float64) * grid.spacing_x
    stream = torch.cos(wave * x)[:, None] * along
    velocity = torch.zeros(1, 4, *grid.shape, dtype=torch.float64)
    velocity[0, 0] = (stream[:-1].diff(dim=1) / grid.heights)[..., None]
    velocity[0, 1] = (-stream.diff(dim=0)[:, :-1] / grid.spacing_x)[..., None]
    return velocity


def test_a_decaying_stokes_mode_is_of_second_order_across_the_channel():
    # The Fourier mode sees the wavenumber of the differences, so that the error left is that along y.
    wave, cells = 1.0, 8
    alpha = 2 * math.sin(wave * math.pi / cells) / (2 * math.pi / cells)
    low, high = math.pi / 2 + 1e-9, math.pi
    for _ in range(80):  # kappa tan kappa + alpha tanh alpha = 0, the slowest mode with even v
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.tan(middle) + alpha * math.tanh(alpha) < 0 else (low, middle)
    errors = []
    for ny in (12, 24, 48):
        flow = ChannelFlow((cells, ny, 1), (2 * math.pi, 1.0), 1.0, 0.1, 40, PressureGradient(0.0), stretching=1.2)
        start = 1e-6 * stokes_mode(flow.channel_grid, wave, low, alpha)
        end = flow.advance(start, 40)
        exact = start * math.exp(-0.1 * (alpha**2 + low**2))
        errors.append(float((end - exact)[:, :2].norm() / exact.norm()))
    assert order(errors) == pytest.approx(2, abs=0.1)


def orr_sommerfeld(reynolds: float, alpha: float, degree: int) -> tuple[complex, np.ndarray]:
    """Least stable mode of plane Poiseuille flow: phase speed and Chebyshev coefficients of its stream function."""
    chebyshev = np.polynomial.chebyshev
    points = np.cos(np.pi * (np.arange(degree - 3) + 0.5) / (degree - 3))
    basis = [[chebyshev.chebval(points, chebyshev.chebder(row, m)) for m in (0, 2, 4)] for row in np.eye(degree + 1)]
    values, second, fourth = (np.stack([row[m] for row in basis], 1) for m in range(3))
    speed, curvature = (1 - points**2)[:, None], -2.0
    laplacian = second - alpha**2 * values
    bilaplacian = fourth - 2 * alpha**2 * second + alpha**4 * values
    left = speed * laplacian - curvature * values - bilaplacian / (1j * alpha * reynolds)
    ends = np.stack(
        [
            [chebyshev.chebval(end, chebyshev.chebder(row, m)) for row in np.eye(degree + 1)]
            for end in (1.0, -1.0)
            for m in (0, 1)
        ]
    )
    _, _, basis_of_walls = np.linalg.svd(ends)
    inside = basis_of_walls[4:].T
    speeds, vectors = np.linalg.eig(np.linalg.lstsq(laplacian @ inside, left @ inside, rcond=None)[0])
    # Conditions on the slope at walls bring a few spurious modes, far away from all speeds of the flow.
    best = np.argmax(np.where(np.abs(speeds) < 1, speeds.imag, -np.inf))
    return complex(speeds[best]), inside @ vectors[:, best]


@pytest.mark.slow
def test_growth_rate_of_the_orr_sommerfeld_mode():
    # Orszag, J. Fluid Mech. 50 (1971) 689: c = 0.23752649 + 0.00373967i at Re = 10,000 and alpha = 1.
    speed, coefficients = orr_sommerfeld(1e4, 1.0, 96)
    assert speed == pytest.approx(0.23752649 + 0.00373967j, abs=1e-7)
    flow = ChannelFlow((64, 192, 1), (2 * math.pi, 1.0), 1e-4, 1.0, 20, PressureGradient(2e-4), stretching=1.5)
    grid = flow.channel_grid
    across = np.polynomial.chebyshev.chebval(grid.faces.numpy() - 1, coefficients)
    x = np.arange(65) * grid.spacing_x
    stream = torch.from_numpy(np.real(across * np.exp(1j * x)[:, None]))
    stream *= 1e-4 / stream.abs().max()
    state = LaminarChannel(2 / 3).sample(1, grid, torch.Generator())
    state[0, 0] += (stream[:-1].diff(dim=1) / grid.heights)[..., None]
    state[0, 1] -= (stream.diff(dim=0)[:, :-1] / grid.spacing_x)[..., None]
    amplitudes = []
    for _ in range(30):
        state = flow.advance(state, 20)
        amplitudes.append(torch.fft.rfft(state[0, 1, :, 96, 0])[1])
    later = torch.stack(amplitudes[10:])
    rate = torch.log(later[1:] / later[:-1]).mean()
    # Of second order: 1.4 % too slow here, 3.7 % with 128 cells across.
    assert float(rate.real) == pytest.approx(speed.imag, rel=0.03)
    assert -float(rate.imag) == pytest.approx(speed.real, rel=0.005)


# Invariants.


@pytest.mark.parametrize(("precision", "limit"), [("float64", 1e-12), ("float32", 1e-4)])
@pytest.mark.parametrize("subgrid", [None, SmoothViscosity()], ids=["direct", "subgrid"])
def test_velocity_is_free_of_divergence_and_zero_on_the_walls(precision, limit, subgrid):
    flow = solver(precision=precision, subgrid=subgrid)
    start = random_state(flow).to(flow.dtype)
    start[:, :3, 1:, 1:] += 0.1  # has divergence
    end = flow.advance(start, 3)
    # Per time: velocities of order one over cells of 0.1.
    assert float(divergence(end[:, :3].double(), flow.channel_grid).abs().max()) < limit
    assert float(end[:, 1, :, 0].abs().max()) == 0


def test_energy_without_viscosity_changes_by_the_error_in_time_alone():
    changes = []
    for steps in (10, 20, 40):
        flow = solver(viscosity=0.0, forcing=PressureGradient(0.0), frame_interval=0.2, steps_per_frame=steps)
        start = random_state(flow, size=1.0)
        energies = [flow.diagnostics(state).kinetic_energy for state in (start, flow.advance(start, steps))]
        changes.append(abs(float(energies[1] / energies[0]) - 1))
    assert order(changes) == pytest.approx(3, abs=0.1)
    assert changes[-1] < 1e-6


def test_the_scheme_is_of_second_order_in_time_with_diffusion():
    def end(steps: int) -> torch.Tensor:
        return solver(frame_interval=0.2, steps_per_frame=steps, viscosity=0.2).advance(start, steps)

    flow = solver(frame_interval=0.2, steps_per_frame=80, viscosity=0.2)
    start = flow.advance(random_state(flow), 80)  # with the pressure that belongs to it
    reference = end(160)
    wrong = [end(steps) - reference for steps in (20, 40)]
    # The reference has an error too, as steps of an eighth and a quarter of these have.
    assert order([float(each[:, :3].norm()) for each in wrong]) == pytest.approx(math.log2(63 / 15), abs=0.05)
    assert order([float(each[:, 3].norm()) for each in wrong]) == pytest.approx(math.log2(7 / 3), abs=0.05)


@pytest.mark.parametrize("stretching", [0.0, 1.5])
def test_the_pressure_of_a_stokes_flow_is_harmonic_off_the_walls_whatever_it_was(stretching):
    # The divergence of the momentum equation without advection; the split step solves it exactly but at the walls.
    still = {"viscosity": 1.0, "forcing": PressureGradient(0.0), "stretching": stretching}
    flow = solver(**still, frame_interval=0.02, steps_per_frame=1)
    assert flow.viscosity * flow.time_step / float(flow.channel_grid.heights.min()) ** 2 > 0.5
    state = random_state(flow)
    state[:, 0] -= 1.0
    pressure = flow.march(1e-9 * state, 1)[0][:, 3] / 1e-9
    found, start = (
        divergence(pressure_gradient(each, flow.channel_grid), flow.channel_grid)[..., 1:-1, :].abs().max()
        for each in (pressure, state[:, 3])
    )
    assert float(start) > 1
    assert float(found) < 1e-6 * float(start)  # advection: of the size of the flow


@settings(max_examples=10)
@given(bulk=st.floats(-1.5, 1.5), seed=st.integers(0, 100), steps=st.integers(1, 3))
def test_mass_flux_is_exact(bulk, seed, steps):
    flow = solver(forcing=MassFlux(bulk))
    end = flow.march(random_state(flow, 2, seed), steps)[0]
    torch.testing.assert_close(
        flow.diagnostics(end).bulk_velocity, torch.full((2,), bulk, dtype=torch.float64), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("forcing", [MassFlux(1.0), PressureGradient(0.3)])
def test_the_budget_of_momentum_closes(forcing):
    # dU_b/dt = f - (tau_low + tau_high) / 2h, the walls' part by the trapezoid rule over steps: of second order.
    gaps = []
    developed = solver(forcing=forcing).advance(random_state(solver()), 20)  # past the jump at a start from noise
    for steps in (5, 10, 20):
        flow = solver(forcing=forcing, frame_interval=0.2, steps_per_frame=steps)
        state = developed
        start, force, stress = flow.diagnostics(state).bulk_velocity, 0.0, 0.0
        for _ in range(steps):
            before = flow.diagnostics(state).wall_stress.mean(-1)
            state, applied = flow.march(state, 1)
            after = flow.diagnostics(state).wall_stress.mean(-1)
            force, stress = force + applied, stress + (before + after) / 2
        gain = flow.diagnostics(state).bulk_velocity - start
        gaps.append(abs(float(gain - flow.time_step * (force - stress))))
    assert gaps[-1] < 1e-5
    assert order(gaps) > 1.8


@pytest.mark.parametrize("subgrid", [None, SmoothViscosity()], ids=["direct", "subgrid"])
def test_reflections_turns_and_translations_commute_with_the_flow(subgrid):
    flow = solver(subgrid=subgrid, shape=(6, 12, 6), lengths=(2.0, 2.0), forcing=PressureGradient(0.0))
    start = random_state(flow)
    end = flow.advance(start, 5)
    for change in (mirrored, exchanged, lambda state: state.roll((2, 3), (-3, -1))):
        torch.testing.assert_close(flow.advance(change(start), 5), change(end), rtol=0, atol=1e-13)


@pytest.mark.parametrize("forcing", [MassFlux(1.0), PressureGradient(0.3)])
@pytest.mark.parametrize("subgrid", [None, SmoothViscosity()], ids=["direct", "subgrid"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_restart_is_bit_equal(precision, subgrid, forcing):
    flow = solver(precision=precision, subgrid=subgrid, forcing=forcing)
    start = random_state(flow, 2).to(flow.dtype)
    assert torch.equal(flow.advance(start, 7), flow.advance(flow.advance(start, 3), 4))


@pytest.mark.parametrize("subgrid", [None, SmoothViscosity()], ids=["direct", "subgrid"])
def test_a_batch_of_two_is_two_singles(subgrid):
    flow = solver(subgrid=subgrid)
    start = random_state(flow, 2)
    both, forces = flow.march(start, 4)
    singles = [flow.march(start[i : i + 1], 4) for i in range(2)]
    torch.testing.assert_close(both, torch.cat([state for state, _ in singles]), rtol=0, atol=1e-13)
    torch.testing.assert_close(forces, torch.cat([force for _, force in singles]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("subgrid", [None, SmoothViscosity()], ids=["direct", "subgrid"])
def test_single_precision_follows_double(subgrid):
    start = random_state(solver())
    double, single = (
        solver(precision=precision, subgrid=subgrid).advance(start, 5) for precision in ("float64", "float32")
    )
    torch.testing.assert_close(single, double, rtol=0, atol=2e-5)


# Sub-grid stress.


class UniformViscosity:
    def viscosity(self, velocity: torch.Tensor, grid: ChannelGrid) -> torch.Tensor:
        return torch.full((len(velocity), *grid.shape), 0.01, dtype=velocity.dtype)


def subgrid_rates(flow: ChannelFlow, state: torch.Tensor, model) -> torch.Tensor:
    """``(batch, 3, x, y, z)`` of the sub-grid stress."""
    planes = flow.scheme.fluxes.planes
    fields = planes.from_fields(state)
    closure = planes.from_fields(model.viscosity(state[:, :3], flow.channel_grid)[:, None])[:, 0]
    normal = torch.nn.functional.pad(fields[1:, 1], (0, 0, 1, 1))
    rates, rates_normal = flow.scheme.fluxes.subgrid(fields[:, 0:3:2], normal, closure)
    along = [planes.cells(rates[:, component]).permute(1, 2, 0, 3) for component in (0, 1)]
    across = torch.nn.functional.pad(planes.cells(rates_normal).permute(1, 2, 0, 3), (0, 0, 1, 0))
    return torch.stack([along[0], across, along[1]], 1)


def test_a_uniform_subgrid_viscosity_acts_as_a_molecular_one_off_the_walls():
    # The transposed part of the stress is a gradient of the divergence, which is zero.
    flow = solver(stretching=0.0)
    grid = flow.channel_grid
    velocity = random_state(flow)[:, :3]
    expected = torch.zeros_like(velocity)
    for axis, spacing in ((-3, grid.spacing_x), (-2, float(grid.heights[0])), (-1, grid.spacing_z)):
        expected += 0.01 * (velocity.roll(1, axis) + velocity.roll(-1, axis) - 2 * velocity) / spacing**2
    found = subgrid_rates(flow, random_state(flow), UniformViscosity())
    torch.testing.assert_close(found[..., 2:-2, :], expected[..., 2:-2, :], rtol=0, atol=1e-12)


def test_the_subgrid_stress_keeps_momentum_and_takes_energy():
    flow = solver()
    state = random_state(flow)
    rates = subgrid_rates(flow, state, SmoothViscosity())
    heights, distances = flow.channel_grid.heights, flow.channel_grid.distances[:-1]
    for component in (0, 2):
        assert abs(float(rates[0, component].mean((0, 2)) @ heights)) < 1e-13
    power = (rates * state[:, :3]).mean((0, 2, 4))
    assert float(power[0] @ heights + power[1] @ distances + power[2] @ heights) < -1e-3


# The face that others see.


def test_it_is_a_stepper_and_a_simulator():
    flow = solver(steps_per_frame=2, frame_interval=0.05)
    simulator: Simulator = flow
    assert isinstance(flow, Stepper)
    start = random_state(flow, 2).float()
    frames = torch.stack(list(rollout(flow, start[:, None], flow.context(2), 3)), 1).flatten(1, 2)
    torch.testing.assert_close(frames[:, 1].flatten(1), flow.advance(start, 4).flatten(1), rtol=0, atol=1e-6)
    assert frames.dtype == torch.float32
    assert simulator.shape == SHAPE
    assert simulator.parameters_by_name == {"viscosity": 0.01, "bulk_velocity": 1.0}
    assert [channel.location for channel in simulator.channels] == ["face_x", "face_y", "face_z", "cell"]
    assert flow.metadata.channel_names == ("velocity_x", "velocity_y", "velocity_z", "pressure")
    flow.grid.check_coordinates(flow.coordinates)


def test_diagnostics_of_a_known_flow():
    flow = solver(faces=torch.linspace(-2, 2, 13), viscosity=0.1)
    state = torch.zeros(2, 4, *SHAPE, dtype=torch.float64)
    state[0, 0], state[1, 0], state[1, 2] = 1.0, -2.0, 0.5
    found = flow.diagnostics(state)
    half_cell, step = 4 / 12 / 2, 0.02
    expected = {
        "cfl_number": [step / (3 / 8), step * (2 / (3 / 8) + 0.5 / (2 / 6))],
        "divergence": [0.0, 0.0],
        "bulk_velocity": [1.0, -2.0],
        "friction_reynolds_number": [math.sqrt(0.1 / half_cell) * 2 / 0.1, 0.0],
        "kinetic_energy": [0.5, 2.125],
        "pressure_gradient": [0.1 / half_cell / 2, -0.2 / half_cell / 2],
    }
    for name, values in expected.items():
        assert getattr(found, name).tolist() == pytest.approx(values), name
    assert found.wall_stress.tolist() == [pytest.approx([0.1 / half_cell] * 2), pytest.approx([-0.2 / half_cell] * 2)]
    assert flow.diagnostics(state, torch.tensor([3.0, 4.0])).pressure_gradient.tolist() == [3.0, 4.0]


def test_a_laminar_flow_is_doubted_and_a_tripped_one_is_not():
    flow = solver(viscosity=1 / 2800, shape=(8, 32, 6))
    generator = torch.Generator().manual_seed(0)
    laminar, tripped = (start.sample(2, flow.channel_grid, generator) for start in (LaminarChannel(), TrippedChannel()))
    assert "the flow is laminar" in flow.doubts(flow.diagnostics(laminar))
    assert flow.doubts(flow.diagnostics(tripped)) == ""
    assert "the flow is laminar" in flow.doubts(flow.diagnostics(torch.cat([tripped[:1], laminar[:1]])))


def test_the_flow_can_be_differentiated():
    flow = solver(shape=(3, 4, 2), steps_per_frame=5, subgrid=SmoothViscosity())
    start = random_state(flow).requires_grad_()
    assert torch.autograd.gradcheck(lambda state: flow.march(state, 1)[0], (start,), fast_mode=True)


def test_a_state_too_fast_is_refused_with_the_limit_named_and_a_step_lets_it_go():
    flow = solver()
    state = random_state(flow, 2)
    state[1, 0] += 100.0
    assert float(flow.cfl_number(state)[1]) > 5
    with pytest.raises(
        ValueError, match=r"CFL number of at most 1.732 but the state has .* time step 0.02; use one of"
    ):
        flow.advance(state, 1)
    assert bool(torch.isfinite(flow.step(state[:, None], flow.context(2))[0]).all())


def test_the_limit_of_diffusion_by_eddies_is_where_the_scheme_ends_to_be_stable():
    still = {"viscosity": 1e-9, "forcing": PressureGradient(0.0), "stretching": 0.0, "subgrid": UniformViscosity()}
    flow = solver(**still, steps_per_frame=1)
    state = random_state(flow)
    state[:, 0] -= 1.0
    state *= 1e-9
    limit = 2.5 * flow.time_step / float(flow.diffusion_number(state))
    shorter, longer = (
        solver(**{**still, "frame_interval": share * limit, "steps_per_frame": 1}) for share in (0.98, 1.05)
    )
    assert float(shorter.advance(state, 100)[:, :3].norm() / state[:, :3].norm()) < 1
    assert float(longer.march(state, 100)[0][:, :3].norm() / state[:, :3].norm()) > 1
    with pytest.raises(ValueError, match=r"diffusion number of at most 2.5 but the eddy viscosity of UniformViscosity"):
        longer.advance(state, 1)


def test_without_a_closure_the_diffusion_number_is_that_of_the_molecules():
    flow = solver(viscosity=0.1)
    expected = 0.02 * 4 * 0.1 * ((8 / 3) ** 2 + 3**2)
    assert flow.diffusion_number(random_state(flow, 2)).tolist() == pytest.approx([expected] * 2)


def test_a_time_step_over_the_limit_of_diffusion_is_refused():
    rate = 4 * 0.5 * ((8 / 3) ** 2 + 3**2)
    message = f"time step of at most {2.5 / rate:.3g} but got 0.1: the explicit diffusion"
    with pytest.raises(ValueError, match=message):
        solver(viscosity=0.5, steps_per_frame=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"faces": [0.0, 1.0, 2.0]}, r"13 faces around 12 cells along y but got shape \(3,\)"),
        ({"faces": stretched_faces(12).flip(0)}, "faces that increase"),
        ({"shape": (8, 12)}, "three axes"),
        ({"shape": (8, 1, 6)}, "at least two cells"),
        ({"lengths": (1.0, 2.0, 1.0)}, r"lengths of two, x and z, but got \(8, 12, 6\) and \(1.0, 2.0, 1.0\)"),
        ({"lengths": (0.0, 1.0)}, "two positive lengths"),
        ({"viscosity": -1.0}, "viscosity >= 0"),
        ({"viscosity": math.nan}, "viscosity >= 0"),
        ({"frame_interval": 0.0}, "positive frame_interval"),
        ({"steps_per_frame": 0}, "at least one step"),
        ({"stretching": -1.0}, "stretching"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        solver(**arguments)


@pytest.mark.parametrize("forcing", [MassFlux, PressureGradient])
def test_a_forcing_that_is_not_finite_is_refused(forcing):
    with pytest.raises(ValueError, match="finite"):
        forcing(math.inf)


def test_states_of_another_grid_are_refused():
    flow = solver()
    for shape in ((1, 4, 8, 13, 6), (1, 3, 8, 12, 6)):
        with pytest.raises(ValueError, match=r"three velocities and a pressure at \(8, 12, 6\)"):
            flow.advance(torch.zeros(shape), 1)
    with pytest.raises(ValueError, match="steps >= 0"):
        flow.march(torch.zeros(1, 4, *SHAPE), -1)


@pytest.mark.slow
def test_the_minimal_channel_has_the_statistics_of_published_simulations(tmp_path):
    # Specification, section 6.6, and its limits; the references are those of Moser, Kim & Mansour (1999) at 178.
    flow = ChannelFlow((32, 48, 32), (math.pi, math.pi / 3), 1 / 2800, 0.25, 5)
    state = TrippedChannel().sample(1, flow.channel_grid, torch.Generator().manual_seed(0))
    statistics = ChannelStatistics(every=5, block=35.0)
    gathering = statistics.on(flow)
    with torch.no_grad():
        for frame in range(1400):
            state = flow.march(state, 5)[0]
            if frame >= 560:
                gathering.update(state)
    path = tmp_path / "statistics.nc"
    statistics.save(flow, [gathering.state_dict()], str(path))
    run = WallUnitStatistics.of_run(xarray.load_dataset(path))
    found = compare_with_reference(run, channel_reference(180)).quantities
    assert abs(found["friction_reynolds_number"].deviation) < 0.05
    assert abs(found["centerline_velocity_plus"].deviation) < 0.08
    assert abs(found["largest_rms_velocity_x"].deviation) < 0.10
    assert found["total_stress_deviation"].value < 0.05

"""Compressible flow against exact solutions: shock tubes, a vortex, sound, layers and what viscosity does to them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pdesurrogate.simulators.compressible.flow import Compressible2d

PI = math.pi
LEFT, RIGHT = (1.0, 0.0, 1.0), (0.125, 0.0, 0.1)  # Sod: density, velocity, pressure


def run(primitive, time, resolution, length=1.0, cfl=0.8, **options):
    """Primitive fields at a time from a function of x and y that gives those at the start."""
    solver = Compressible2d(resolution, time, 1, length, precision="float64", **options)
    x, y = torch.meshgrid(*solver.coordinates, indexing="ij")
    state = solver.to_conserved(torch.stack(primitive(x, y)))[None]
    steps = math.ceil(float(solver.cfl_number(state).max()) / cfl)
    solver = Compressible2d(resolution, time, steps, length, precision="float64", **options)
    later = solver.advance(state, steps)
    solver.require_stable(later)
    return solver.to_primitive(later)[0], x, y


def order(errors):
    """Between each resolution and twice as many cells."""
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


def star_region(left, right, gamma):
    """Pressure and velocity between the waves of a Riemann problem, by Newton's method (Toro, section 4.3)."""

    def branch(pressure, state):
        density, _, other = state
        if pressure > other:
            a, b = 2 / ((gamma + 1) * density), (gamma - 1) / (gamma + 1) * other
            root = math.sqrt(a / (pressure + b))
            return (pressure - other) * root, root * (1 - (pressure - other) / (2 * (pressure + b)))
        sound = math.sqrt(gamma * other / density)
        power = (gamma - 1) / (2 * gamma)
        change = 2 * sound / (gamma - 1) * ((pressure / other) ** power - 1)
        return change, (pressure / other) ** (-(gamma + 1) / (2 * gamma)) / (density * sound)

    # From between two rarefactions, where no pressure can be negative.
    power = (gamma - 1) / (2 * gamma)
    sounds = [math.sqrt(gamma * pressure / density) for density, _, pressure in (left, right)]
    share = sum(sound / state[2] ** power for sound, state in zip(sounds, (left, right), strict=True))
    pressure = ((sum(sounds) - (gamma - 1) / 2 * (right[1] - left[1])) / share) ** (1 / power)
    for _ in range(50):
        (below, slope_below), (above, slope_above) = branch(pressure, left), branch(pressure, right)
        pressure -= (below + above + right[1] - left[1]) / (slope_below + slope_above)
    below, above = branch(pressure, left)[0], branch(pressure, right)[0]
    return pressure, (left[1] + right[1] + above - below) / 2


def side(speeds, state, star, gamma, sign):
    """Density, velocity and pressure at ``x / t`` on the left of the contact (sign -1) or on its right (1)."""
    density, velocity, pressure = state
    star_pressure, star_velocity = star
    sound = math.sqrt(gamma * pressure / density)
    ratio, g = star_pressure / pressure, (gamma - 1) / (gamma + 1)
    outward = sign * (speeds - velocity)  # from the gas ahead of the wave
    if ratio > 1:
        shock = sound * math.sqrt((gamma + 1) / (2 * gamma) * ratio + (gamma - 1) / (2 * gamma))
        behind = (density * (ratio + g) / (g * ratio + 1), star_velocity, star_pressure)
        return [torch.where(outward < shock, b, a) for a, b in zip(state, behind, strict=True)]
    tail = sign * (star_velocity - velocity) + sound * ratio ** ((gamma - 1) / (2 * gamma))
    fan = outward.clamp(tail, sound)
    local = 2 / (gamma + 1) * sound + g * fan
    return [
        density * (local / sound) ** (2 / (gamma - 1)),
        velocity + sign * (fan - local),
        pressure * (local / sound) ** (2 * gamma / (gamma - 1)),
    ]


def riemann(speeds, left, right, gamma):
    """Exact density, velocity and pressure at ``x / t`` (E. F. Toro, *Riemann Solvers*, chapter 4)."""
    star = star_region(left, right, gamma)
    choices = zip(side(speeds, left, star, gamma, -1), side(speeds, right, star, gamma, 1), strict=True)
    return torch.stack([torch.where(speeds < star[1], below, above) for below, above in choices])


def averaged_riemann(x, spacing, time, left, right, gamma, parts=64):
    """Averages over cells of the exact solution."""
    inside = (torch.arange(parts, dtype=torch.float64) + 0.5) / parts - 0.5
    return riemann((x[:, None] + spacing * inside) / time, left, right, gamma).mean(-1)


def test_the_exact_solver_agrees_with_published_values():
    """E. F. Toro, table 4.2: Sod's tube, the 1-2-3 problem, and the left half of the blast waves."""
    expected = {
        (LEFT, RIGHT): (0.30313, 0.92745),
        ((1.0, -2.0, 0.4), (1.0, 2.0, 0.4)): (0.00189, 0.0),
        ((1.0, 0.0, 1000.0), (1.0, 0.0, 0.01)): (460.894, 19.5975),
    }
    for (left, right), found in expected.items():
        assert star_region(left, right, 1.4) == pytest.approx(found, rel=1e-5, abs=5e-6)
    densities = riemann(torch.tensor([0.9274, 0.9275], dtype=torch.float64), LEFT, RIGHT, 1.4)[0]
    assert densities.tolist() == pytest.approx([0.42632, 0.26557], abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_sods_shock_tube(axis):
    """The box holds the tube and its mirror image; they have not met yet."""
    time, errors = 0.12, []

    def start(x, y):
        inner = ((y if axis else x) - 0.5).abs() < 0.25
        return [torch.where(inner, a, b) for a, b in zip((1.0, 0.0, 0.0, 1.0), (0.125, 0.0, 0.0, 0.1), strict=True)]

    for resolution in (64, 128):
        fields, x, y = run(start, time, resolution, cfl=0.5, gamma=1.4)  # the gas is at rest yet
        along = fields.transpose(-2, -1) if axis else fields
        assert torch.equal(along, along[..., :1].expand_as(along))  # nothing happens across
        assert torch.equal(along[2 - axis], torch.zeros_like(x))
        right = slice(resolution // 2, None)
        found = along[[0, 1 + axis, 3], :, 0][:, right]
        positions = (y[0] if axis else x[:, 0])[right] - 0.75
        exact = averaged_riemann(positions, 1 / resolution, time, LEFT, RIGHT, 1.4)
        errors.append(float((found - exact).abs().sum() / resolution))
        assert found[0].max() <= 1 + 1e-9  # no overshoot above the left state
        assert found[0].min() >= 0.125 - 1e-9
    # Of density, velocity and pressure together, over half the box. Contacts alone would converge with order 2/3.
    assert errors[1] < 0.011
    assert order(errors)[0] > 0.75


def vortex(x, y, time, gamma=1.4, strength=5.0, size=10.0, drift=(1.0, 0.5)):
    """C.-W. Shu's isentropic vortex; its periodic images are too weak to matter."""
    dx, dy = ((z - size / 2 - v * time + size / 2) % size - size / 2 for z, v in zip((x, y), drift, strict=True))
    bump = strength / (2 * PI) * torch.exp((1 - dx.square() - dy.square()) / 2)
    temperature = 1 - (gamma - 1) / (2 * gamma) * bump.square()
    density = temperature ** (1 / (gamma - 1))
    return [density, drift[0] - dy * bump, drift[1] + dx * bump, density * temperature]


def test_an_isentropic_vortex_is_carried_to_second_order():
    time, errors = 1.0, []
    for resolution in (32, 64, 128):
        fields, x, y = run(lambda x, y: vortex(x, y, 0.0), time, resolution, length=10.0, gamma=1.4)
        errors.append(float((fields - torch.stack(vortex(x, y, time))).abs().mean()))
    assert errors[-1] < 6e-4
    assert min(order(errors)) > 1.9


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1)])
def test_sound_travels_at_the_speed_of_sound_to_second_order(direction):
    """A weak simple wave; one wave in the box along each axis that it moves along."""
    amplitude, norm, gamma = 1e-6, math.hypot(*direction), 5 / 3

    def wave(x, y, time):
        phase = 2 * PI * (direction[0] * x + direction[1] * y - norm * time)
        part = amplitude * torch.sin(phase)
        return [1 + part, part * direction[0] / norm, part * direction[1] / norm, 1 / gamma + part]

    errors = []
    for resolution in (16, 32, 64):
        fields, x, y = run(lambda x, y: wave(x, y, 0.0), 0.5, resolution)
        errors.append(float((fields - torch.stack(wave(x, y, 0.5))).abs().mean() / amplitude))
    assert errors[-1] < 0.01
    assert order(errors)[-1] > 1.9


def test_layers_of_density_are_carried_to_second_order():
    def layers(x, y, time):
        density = 1 + 0.5 * torch.sin(2 * PI * (x + y - (0.7 + 0.3) * time))
        return [density, 0.7 + 0 * x, 0.3 + 0 * x, 1 + 0 * x]

    errors = []
    for resolution in (64, 128):
        fields, x, y = run(lambda x, y: layers(x, y, 0.0), 0.25, resolution)
        exact = torch.stack(layers(x, y, 0.25))
        assert torch.allclose(fields[1:], exact[1:], rtol=0, atol=1e-12)  # velocity and pressure feel nothing
        errors.append(float((fields - exact).abs().mean()))
    assert order(errors)[0] > 1.9


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1)])
def test_a_shear_wave_decays_at_the_rate_of_its_viscosity(direction):
    viscosity, density, time, size = 0.02, 2.0, 0.25, 1e-4
    squared = (2 * PI) ** 2 * (direction[0] ** 2 + direction[1] ** 2)

    def shear(x, y):
        wave = size * torch.sin(2 * PI * (direction[0] * x + direction[1] * y))
        return [density + 0 * x, -direction[1] * wave, direction[0] * wave, 1 + 0 * x]

    errors = []
    for resolution in (16, 32):
        fields, x, y = run(shear, time, resolution, shear_viscosity=viscosity, bulk_viscosity=0.3 * viscosity)
        exact = torch.stack(shear(x, y)[1:3]) * math.exp(-viscosity / density * squared * time)
        errors.append(float((fields[1:3] - exact).abs().mean() / size))
    assert errors[-1] < 2e-3
    assert order(errors)[0] > 1.9


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("viscosities", [(0.02, 0.0), (0.0, 0.02)])
def test_standing_sound_decays_by_both_viscosities(viscosities, direction):
    """``exp(-(4/3 shear + bulk) k^2 t / (2 rho))`` in a gas that conducts no heat, and at a lower frequency."""
    shear, bulk = viscosities
    squared = (2 * PI) ** 2 * (direction[0] ** 2 + direction[1] ** 2)
    damping = (4 / 3 * shear + bulk) * squared / 2
    time = 2 * PI / math.sqrt(squared - damping**2)  # one period: at rest again, and the pressure at its largest

    def wave(x, y):
        return torch.cos(2 * PI * (direction[0] * x + direction[1] * y))

    def sound(x, y):
        part = 1e-6 * wave(x, y)
        return [1 + part, 0 * x, 0 * x, 0.6 + part]

    errors = []
    for resolution in (16, 32):
        fields, x, y = run(sound, time, resolution, shear_viscosity=shear, bulk_viscosity=bulk)
        amplitude = float(2 * ((fields[3] - 0.6) * wave(x, y)).mean()) * 1e6
        errors.append(abs(amplitude - math.exp(-damping * time)))
    assert errors[-1] < 5e-3
    assert order(errors)[-1] > 1.9


@pytest.mark.parametrize("axis", [0, 1])
def test_viscosity_heats_the_gas_where_it_is_sheared(axis):
    """``dp/dt = (gamma - 1) shear (du/dy)^2`` before anything has had the time to move."""
    viscosity, size, time, gamma = 0.02, 0.1, 0.01, 5 / 3

    def shear(x, y):
        wave = size * torch.sin(2 * PI * (x if axis else y))
        return [1 + 0 * x, *((0 * x, wave) if axis else (wave, 0 * x)), 1 + 0 * x]

    fields, x, y = run(shear, time, 64, shear_viscosity=viscosity, bulk_viscosity=viscosity)
    rate = (gamma - 1) * viscosity * (2 * PI * size * torch.cos(2 * PI * (x if axis else y))).square()
    decay = 2 * viscosity * (2 * PI) ** 2
    heat = rate * (1 - math.exp(-decay * time)) / decay
    assert float((fields[3] - 1 - heat).abs().max() / heat.max()) < 0.02


@pytest.mark.parametrize("axis", [0, 1])
def test_viscosity_acts_to_second_order_in_time(axis):
    """A weak shear wave is an eigenvector of the scheme: what two stages take from it in a step is known exactly."""
    resolution, viscosity, size, steps = 16, 0.05, 1e-7, 20
    flow = Compressible2d(resolution, 0.2, steps, shear_viscosity=viscosity, precision="float64")
    x, y = torch.meshgrid(*flow.coordinates, indexing="ij")
    wave = size * torch.sin(2 * PI * (x if axis else y))
    rest = 0 * x
    state = flow.to_conserved(torch.stack([1 + rest, *((rest, wave) if axis else (wave, rest)), 1 + rest]))[None]
    part = flow.time_step * viscosity * 2 * (1 - math.cos(2 * PI / resolution)) * resolution**2
    later = flow.advance(state, steps)[0, 2 if axis else 1]
    assert torch.allclose(later, wave * (1 - part + part**2 / 2) ** steps, rtol=0, atol=1e-7 * size)
    assert part > 0.01


@pytest.mark.parametrize("axis", [0, 1])
def test_heat_of_friction_pushes_within_the_step_that_makes_it(axis):
    """The momentum after one step, ``-(dt^2 / 2) (gamma - 1) shear d/dy (du/dy)^2``, is that of pressure half way."""
    viscosity, size, step, gamma = 0.02, 0.1, 1e-3, 5 / 3
    flow = Compressible2d(64, step, 1, shear_viscosity=viscosity, precision="float64")
    x, y = torch.meshgrid(*flow.coordinates, indexing="ij")
    place, rest = (x if axis else y), 0 * x
    wave = size * torch.sin(2 * PI * place)
    state = flow.to_conserved(torch.stack([1 + rest, *((rest, wave) if axis else (wave, rest)), 1 + rest]))[None]
    squares = (2 * PI * size) ** 2
    expected = step**2 / 2 * (gamma - 1) * viscosity * squares * 2 * PI * torch.sin(4 * PI * place)
    found = flow.advance(state, 1)[0, 1 if axis else 2]
    assert float((found - expected).abs().mean() / expected.abs().mean()) < 0.02

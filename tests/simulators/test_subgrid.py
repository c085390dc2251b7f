"""Sub-grid models: where they must vanish, how they turn and scale, and that a planted constant is found."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson, stretched_faces
from pdesurrogate.physics.velocity_gradient import velocity_at_centers, velocity_gradient
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.plane_filters import CutoffFilter, ThreePointFilter, filtered
from pdesurrogate.simulators.channel.subgrid import (
    DynamicSmagorinsky,
    Smagorinsky,
    Wale,
    contraction,
    dynamic_coefficient,
    filter_width,
    strain_components,
    strain_magnitude,
    wale_rate,
)

MOLECULAR = 1 / 2800
SHAPE = (8, 10, 6)
MODELS = [DynamicSmagorinsky(), DynamicSmagorinsky(CutoffFilter()), Wale(), Smagorinsky(MOLECULAR)]
FILTERS = [ThreePointFilter(), ThreePointFilter(1 / 6), CutoffFilter()]


def name(value):
    return type(value).__name__


def channel(shape=SHAPE, lengths=(math.pi, math.pi / 3)):
    return ChannelGrid(lengths, (shape[0], shape[2]), stretched_faces(shape[1]))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turbulent(grid, batch=2, seed=0):
    """Poiseuille's profile with noise; not solenoidal, which no model minds."""
    profile = (grid.centers * (2 - grid.centers))[:, None]
    velocity = 0.2 * random(batch, 3, *grid.shape, seed=seed) * profile
    velocity[:, 0] += 1.5 * profile
    velocity[:, 1, :, 0] = 0
    return velocity


def laminar(grid):
    velocity = torch.zeros(1, 3, *grid.shape, dtype=torch.float64)
    velocity[:, 0] = 1.5 * (grid.centers * (2 - grid.centers))[:, None]
    return velocity


def at_a_point(matrix):
    return torch.as_tensor(matrix, dtype=torch.float64)[..., None, None, None]


# --- WALE


@pytest.mark.parametrize(("along", "across"), [(i, j) for i in range(3) for j in range(3) if i != j])
def test_wale_is_exactly_zero_in_pure_shear(along, across):
    shear = torch.zeros(3, 3, dtype=torch.float64)
    shear[along, across] = 0.7
    assert float(wale_rate(at_a_point(shear))) == 0


def test_wale_in_solid_body_rotation_is_not_zero():
    # (2/3)^(3/2) / (2/3)^(5/4) by hand from the formula, for unit rate about any axis.
    for i, j in ((0, 1), (1, 2), (2, 0)):
        rotation = torch.zeros(3, 3, dtype=torch.float64)
        rotation[i, j], rotation[j, i] = -1, 1
        assert float(wale_rate(at_a_point(rotation))) == pytest.approx((2 / 3) ** 0.25, rel=1e-14)


def test_wale_is_the_published_formula():
    gradient = random(3, 3)
    square = gradient @ gradient
    traceless = (square + square.T) / 2 - torch.eye(3, dtype=torch.float64) * square.trace() / 3
    strain = (gradient + gradient.T) / 2
    of_strain, of_square = strain.square().sum(), traceless.square().sum()
    expected = of_square**1.5 / (of_strain**2.5 + of_square**1.25)
    assert float(wale_rate(at_a_point(gradient))) == pytest.approx(float(expected), rel=1e-13)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e6))
def test_wale_turns_with_the_flow_and_scales_with_it(seed, factor):
    gradient = random(3, 3, seed=seed)
    turn, _ = torch.linalg.qr(random(3, 3, seed=seed + 1))
    rate = wale_rate(at_a_point(gradient))
    torch.testing.assert_close(wale_rate(at_a_point(turn @ gradient @ turn.T)), rate, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(wale_rate(at_a_point(factor * gradient)), factor * rate, rtol=1e-12, atol=0)
    before, after = (
        strain_magnitude(strain_components(at_a_point(each))) for each in (gradient, turn @ gradient @ turn.T)
    )
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-15)


def near_wall_gradient(y):
    """Of u = a y, v = -(a_x + c_z) y^2 / 2, w = c y, the leading terms of any flow at a wall; at one point (x, z)."""
    a, a_x, a_z, a_xx, a_xz = 1.0, 0.6, -0.4, 0.3, 0.8
    c, c_x, c_z, c_xz, c_zz = 0.5, -0.7, 0.9, 0.2, -0.5
    return at_a_point(
        [
            [a_x * y, a, a_z * y],
            [-(a_xx + c_xz) * y**2 / 2, -(a_x + c_z) * y, -(a_xz + c_zz) * y**2 / 2],
            [c_x * y, c, c_z * y],
        ]
    )


def test_wale_falls_with_the_third_power_of_the_distance_to_a_wall():
    rates = [float(wale_rate(near_wall_gradient(y))) for y in (1e-4, 1e-3)]
    assert math.log10(rates[1] / rates[0]) == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_wale_in_single_precision_has_no_range_to_leave(scale):
    gradient = random(3, 3, seed=3)
    single = wale_rate((scale * at_a_point(gradient)).float())
    assert float(single) == pytest.approx(float(scale * wale_rate(at_a_point(gradient))), rel=1e-4)


# --- the dynamic model


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_planted_constant_is_found_in_each_plane_and_member(seed):
    model = random(2, 6, 5, 4, 3, seed=seed)
    planted = random(2, 4, seed=seed + 1)
    stress = planted[:, None, None, :, None] * model
    torch.testing.assert_close(dynamic_coefficient(stress, model), planted, rtol=1e-12, atol=1e-14)
    other = random(2, 6, 5, 4, 3, seed=seed + 2)
    share = contraction(other, model).mean((-3, -1)) / contraction(model, model).mean((-3, -1))
    orthogonal = other - share[:, None, None, :, None] * model  # what the model cannot explain changes nothing
    torch.testing.assert_close(dynamic_coefficient(stress + orthogonal, model), planted, rtol=1e-10, atol=1e-12)


def test_a_plane_without_model_has_no_constant_and_no_nan():
    model = random(6, 5, 4, 3)
    model[..., 2, :] = 0
    found = dynamic_coefficient(random(6, 5, 4, 3, seed=1), model)
    assert float(found[2]) == 0
    assert bool(torch.isfinite(found).all())


def test_both_sides_of_the_identity_are_as_written():
    grid, model = channel(), DynamicSmagorinsky()
    velocity = turbulent(grid, batch=1)
    centered = velocity_at_centers(velocity, grid)[0]
    gradient = velocity_gradient(velocity, grid)[0]
    hat = partial(filtered, plane_filter=model.test_filter)
    strain = (gradient + gradient.transpose(0, 1)) / 2
    hat_strain = hat(strain)
    squared_width = (grid.spacing_x * grid.spacing_z * grid.heights[:, None]) ** (2 / 3)

    def size(tensor):
        return (2 * tensor.square().sum((0, 1))).sqrt()

    stress = hat(centered[:, None] * centered) - hat(centered)[:, None] * hat(centered)
    expected = 2 * squared_width * (hat(size(strain) * strain) - 4 ** (2 / 3) * size(hat_strain) * hat_strain)
    left, right = model.identity(centered, strain_components(gradient), grid)
    for place, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
        trace = (stress[0, 0] + stress[1, 1] + stress[2, 2]) / 3 if i == j else 0
        torch.testing.assert_close(left[place], stress[i, j] - trace, rtol=0, atol=1e-13)
        torch.testing.assert_close(right[place], expected[i, j], rtol=0, atol=1e-12)


@pytest.mark.parametrize("plane_filter", FILTERS, ids=repr)
def test_filters_keep_means_and_take_from_the_shortest_wave(plane_filter):
    fields = random(2, *SHAPE)
    smooth = filtered(fields, plane_filter)
    assert smooth.shape == fields.shape
    torch.testing.assert_close(smooth.mean((-3, -1)), fields.mean((-3, -1)), rtol=0, atol=1e-14)
    torch.testing.assert_close(filtered(torch.ones_like(fields), plane_filter), torch.ones_like(fields))
    # Symmetric, and a wave comes back as itself with a factor from 0 to 1, smaller where it is shorter.
    angle = torch.arange(SHAPE[0], dtype=torch.float64)[:, None, None] * (2 * math.pi / SHAPE[0])
    factors = []
    for wave in range(SHAPE[0] // 2 + 1):
        carrier = torch.cos(wave * angle).expand(SHAPE)
        factors.append(float((filtered(carrier, plane_filter) * carrier).sum() / carrier.square().sum()))
        torch.testing.assert_close(filtered(carrier, plane_filter), factors[-1] * carrier, rtol=0, atol=1e-13)
    assert factors[0] == pytest.approx(1)
    assert all(later <= before + 1e-13 for before, later in itertools.pairwise(factors))
    assert -1e-13 < factors[-1] < 0.5


def test_the_cutoff_keeps_exactly_the_waves_of_the_coarser_grid():
    wave = torch.arange(16, dtype=torch.float64)[:, None, None] * (2 * math.pi / 16)
    kept, removed = (torch.sin(number * wave).expand(16, 2, 16) for number in (3, 4))
    torch.testing.assert_close(filtered(kept + removed, CutoffFilter()), kept, rtol=0, atol=1e-13)
    both = (torch.sin(3 * wave) * torch.sin(3 * wave).transpose(0, 2)).expand(16, 2, 16)
    torch.testing.assert_close(filtered(both, CutoffFilter()), both, rtol=0, atol=1e-13)


def test_energy_may_come_back_only_where_it_is_let():
    grid = channel()
    velocity = turbulent(grid, seed=4)
    clipped = DynamicSmagorinsky().viscosity(velocity, grid)
    free = DynamicSmagorinsky(least_viscosity=-math.inf).viscosity(velocity, grid)
    bounded = DynamicSmagorinsky(least_viscosity=-MOLECULAR).viscosity(velocity, grid)
    assert float(free.min()) < -MOLECULAR  # else this test shows nothing
    torch.testing.assert_close(clipped, free.clamp_min(0))
    torch.testing.assert_close(bounded, free.clamp_min(-MOLECULAR))
    assert float((MOLECULAR + bounded).min()) >= 0


@pytest.mark.parametrize(
    ("model", "exponent"),
    # The dynamic model does not depend on the width; heights here grow with y, so WALE's squared width by y^(2/3).
    [(DynamicSmagorinsky(least_viscosity=-math.inf), 3), (Wale(), 3 + 2 / 3)],
)
def test_on_a_grid_too_both_fall_with_the_third_power_at_a_wall(model, exponent):
    # Leading terms u = a(x, z) y, w = c(x, z) y and the v that continuity asks for, in cells of geometric heights.
    faces = torch.cat([torch.zeros(1, dtype=torch.float64), 1.15 ** torch.arange(-50.0, 6.0, dtype=torch.float64)])
    grid = ChannelGrid((2 * math.pi, 2 * math.pi), (16, 16), faces)
    x = (torch.arange(16, dtype=torch.float64) * math.pi / 8)[:, None, None]
    z = torch.arange(16, dtype=torch.float64) * math.pi / 8
    half, y = math.pi / 16, grid.centers[:, None]
    velocity = torch.zeros(1, 3, *grid.shape, dtype=torch.float64)
    velocity[0, 0] = (2 + torch.sin(x + 2 * (z + half)) + 0.5 * torch.cos(3 * x)) * y
    velocity[0, 2] = 0.7 * torch.cos(2 * (x + half) + z) * y
    slope = torch.cos(x + half + 2 * (z + half)) - 1.5 * torch.sin(3 * (x + half))
    slope = slope - 0.7 * torch.sin(2 * (x + half) + z + half)
    velocity[0, 1] = -slope * faces[:-1, None].square() / 2
    found = model.viscosity(velocity, grid)[0].mean((0, 2)).abs()
    near = slice(5, 20)  # up to y = 0.01; the cell at the wall is not like the others
    exponents = found[near].log().diff() / grid.centers[near].log().diff()
    torch.testing.assert_close(exponents, torch.full_like(exponents, exponent), rtol=0, atol=0.05)


# --- what all models share


@pytest.mark.parametrize("model", [*MODELS, DynamicSmagorinsky(ThreePointFilter(1 / 6))], ids=name)
@pytest.mark.parametrize("cells", [10, 11])  # with 11 a center lies where Poiseuille's strain vanishes
def test_nothing_in_a_laminar_channel_but_for_smagorinsky(model, cells):
    grid = channel((8, cells, 6))
    found = model.viscosity(laminar(grid), grid)
    assert bool(torch.isfinite(found).all())
    if isinstance(model, Smagorinsky):
        assert float(found.max()) > 0.1 * MOLECULAR
    elif isinstance(model, Wale):
        assert bool((found == 0).all())
    else:
        assert float(found.abs().max()) < 1e-14 * MOLECULAR


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_nothing_in_a_fluid_at_rest(model):
    grid = channel()
    assert bool((model.viscosity(torch.zeros(1, 3, *SHAPE, dtype=torch.float64), grid) == 0).all())


@pytest.mark.parametrize("model", MODELS, ids=name)
@pytest.mark.parametrize("seed", range(3))
def test_never_negative_and_mostly_positive_in_turbulence(model, seed):
    grid = channel()
    found = model.viscosity(turbulent(grid, seed=seed), grid)
    assert found.shape == (2, *SHAPE)
    assert float(found.min()) >= 0
    assert float(found.mean()) > 0


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_members_of_a_batch_know_nothing_of_each_other(model):
    grid = channel()
    velocity = turbulent(grid, batch=3)
    together = model.viscosity(velocity, grid)
    apart = torch.cat([model.viscosity(each[None], grid) for each in velocity])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_shifts_along_the_walls_shift_the_viscosity(model):
    grid = channel()
    velocity = turbulent(grid)
    shifted = model.viscosity(velocity.roll((3, 2), (-3, -1)), grid)
    expected = model.viscosity(velocity, grid).roll((3, 2), (-3, -1))
    torch.testing.assert_close(shifted, expected, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_the_mirror_image_has_the_mirrored_viscosity(model):
    grid = channel()
    velocity = turbulent(grid)
    mirrored = velocity.flip(-2)
    mirrored[:, 1, :, 1:] = -velocity[:, 1, :, 1:].flip(-2)
    mirrored[:, 1, :, 0] = 0
    expected = model.viscosity(velocity, grid).flip(-2)
    torch.testing.assert_close(model.viscosity(mirrored, grid), expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_x_and_z_are_alike(model):
    grid, turned = channel(), channel(SHAPE[::-1], (math.pi / 3, math.pi))
    velocity = turbulent(grid)
    swapped = velocity[:, [2, 1, 0]].transpose(-3, -1)
    expected = model.viscosity(velocity, grid).transpose(-3, -1)
    torch.testing.assert_close(model.viscosity(swapped, turned), expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("model", [DynamicSmagorinsky(), DynamicSmagorinsky(CutoffFilter()), Wale()], ids=name)
def test_an_observer_who_moves_along_the_walls_sees_the_same_away_from_them(model):
    grid = channel()
    velocity = turbulent(grid)
    moving = velocity + torch.tensor([3.0, 0.0, -2.0], dtype=torch.float64)[:, None, None, None]
    first, second = (model.viscosity(each, grid)[..., 1:-1, :] for each in (velocity, moving))
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("model", [DynamicSmagorinsky(), Wale()], ids=name)
def test_twice_as_fast_has_twice_the_viscosity(model):
    grid = channel()
    velocity = turbulent(grid)
    expected = 2 * model.viscosity(velocity, grid)
    torch.testing.assert_close(model.viscosity(2 * velocity, grid), expected, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_single_precision_agrees(model):
    grid = channel()
    velocity = turbulent(grid)
    single = model.viscosity(velocity.float(), grid)
    assert single.dtype == torch.float32
    double = model.viscosity(velocity, grid)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5 * float(double.max()))


# --- van Driest


def test_van_driest_knows_the_wall_units_of_each_wall():
    grid = channel()
    velocity = laminar(grid)
    velocity[..., grid.centers < 1, :] *= 4  # fourfold shear, so twice as many wall units, below
    heights = Smagorinsky(MOLECULAR).wall_distance(velocity, grid)[0]
    shear = 1.5 * (2 - float(grid.centers[0]))  # mean slope from the wall to the first center
    friction = math.sqrt(MOLECULAR * shear)
    assert float(heights[0]) == pytest.approx(2 * float(grid.centers[0]) * friction / MOLECULAR, rel=1e-12)
    assert float(heights[-1]) == pytest.approx(float(grid.centers[0]) * friction / MOLECULAR, rel=1e-12)


def test_smagorinsky_is_its_formula():
    grid = channel()
    velocity = laminar(grid)
    model = Smagorinsky(MOLECULAR, constant=0.17, damping=25.0)
    damped = 1 - torch.exp(-model.wall_distance(velocity, grid)[0] / 25.0)
    shear = 1.5 * (2 - 2 * grid.centers).abs()
    expected = (0.17 * filter_width(grid, velocity) * damped).square() * shear
    torch.testing.assert_close(model.viscosity(velocity, grid)[0, 3, :, 2], expected, rtol=1e-10, atol=1e-16)


# --- in the solver


def solver(model):
    return ChannelFlow((8, 12, 6), (math.pi, math.pi / 3), MOLECULAR, 0.2, 10, subgrid=model)


@pytest.mark.parametrize("model", [DynamicSmagorinsky(), DynamicSmagorinsky(CutoffFilter()), Wale()], ids=name)
def test_laminar_flow_goes_on_as_without_a_model(model):
    flow = solver(model)
    state = torch.cat([laminar(flow.channel_grid), torch.zeros(1, 1, *flow.shape, dtype=torch.float64)], 1)
    torch.testing.assert_close(flow.advance(state, 10), solver(None).advance(state, 10), rtol=0, atol=1e-13)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_in_turbulence_energy_is_lost_to_the_model_and_the_flow_rate_is_kept(model):
    flow, without = solver(model), solver(None)
    velocity = ChannelPoisson(flow.channel_grid).project(turbulent(flow.channel_grid))
    state = torch.cat([velocity, torch.zeros_like(velocity[:, :1])], 1)
    state = without.advance(state, 10)  # with a pressure and the flow rate of the forcing
    lost, kept = (each.diagnostics(each.advance(state, 10)) for each in (flow, without))
    assert bool((lost.kinetic_energy < kept.kinetic_energy - 1e-5).all())
    torch.testing.assert_close(lost.bulk_velocity, kept.bulk_velocity, rtol=0, atol=1e-13)
    assert float(lost.divergence.max()) < 1e-12


@pytest.mark.parametrize("model", MODELS, ids=name)
@pytest.mark.parametrize("cells", [10, 11])
def test_gradients_are_finite_in_a_laminar_channel_and_at_rest(model, cells):
    grid = channel((8, cells, 6))
    for velocity in (laminar(grid), torch.zeros(1, 3, *grid.shape, dtype=torch.float64), laminar(grid).float()):
        velocity.requires_grad_()
        model.viscosity(velocity, grid).sum().backward()
        assert bool(torch.isfinite(velocity.grad).all())


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_gradients_come_after_inference_mode_too(model):
    grid = channel((10, 9, 14))
    velocity = turbulent(grid)
    with torch.inference_mode():
        model.viscosity(velocity, grid)
    velocity.requires_grad_()
    model.viscosity(velocity, grid).sum().backward()
    assert float(velocity.grad.abs().max()) > 0


class Uploads(TorchDispatchMode):
    """Counts what is copied from the processor to another device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sources = [each for each in args if isinstance(each, torch.Tensor) and each.device.type == "cpu"]
        self.count += bool(sources) and isinstance(result, torch.Tensor) and result.device.type != "cpu"
        return result


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_only_the_first_call_copies_tables_to_a_device(model):
    grid = channel()
    velocity = torch.empty(2, 3, *SHAPE, device="meta")
    counts = []
    for _ in range(2):
        with Uploads() as uploads:
            model.viscosity(velocity, grid)
        counts.append(uploads.count)
    assert counts[0] > 0
    assert counts[1] == 0


# --- bad input


def test_a_model_of_another_fluid_is_refused():
    with pytest.raises(ValueError, match=r"least_viscosity of at least -0.000357.* but got -1"):
        solver(DynamicSmagorinsky(least_viscosity=-1.0))
    with pytest.raises(ValueError, match=r"solver's viscosity 0.000357.* but got 0.5"):
        solver(Smagorinsky(0.5))
    assert solver(DynamicSmagorinsky(least_viscosity=-MOLECULAR)).subgrid.least_viscosity == -MOLECULAR


def test_eddies_that_diffuse_too_fast_for_the_time_step_are_refused():
    flow = ChannelFlow((2, 24, 2), (4.0, 2.0), 1 / 20, 1.0, 40, subgrid=Smagorinsky(1 / 20, constant=0.5, damping=1.0))
    state = torch.cat([laminar(flow.channel_grid), torch.zeros(1, 1, *flow.shape, dtype=torch.float64)], 1)
    later = flow.advance(state, 10)  # not yet too fast at the start
    with pytest.raises(ValueError, match="eddy viscosity of Smagorinsky makes it"):
        flow.advance(later, 30)  # would end with NaN


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Wale(-0.1), "model constant from zero up but got -0.1"),
        (lambda: Wale(math.nan), "model constant from zero up but got nan"),
        (lambda: Smagorinsky(0.0), "positive molecular viscosity and damping but got 0.0"),
        (lambda: Smagorinsky(1e-3, damping=-1.0), "positive molecular viscosity and damping"),
        (lambda: ThreePointFilter(0.3), "side weight above 0 and up to 1/4 but got 0.3"),
        (lambda: ThreePointFilter(width_ratio=1.0), "wider than the grid's, a ratio above 1, but got 1.0"),
        (lambda: CutoffFilter(0.5), "wider than the grid's"),
        (lambda: DynamicSmagorinsky(least_viscosity=1e-3), "least viscosity of zero, or below"),
    ],
)
def test_bad_input_is_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_a_velocity_of_another_grid_is_refused():
    with pytest.raises(ValueError, match="Expected a velocity"):
        Wale().viscosity(torch.zeros(1, 4, *SHAPE), channel())

from __future__ import annotations

import copy
import math

import pytest
import torch

from pdesurrogate.data.catalog import recipe_path
from pdesurrogate.physics.operators import divergence, velocity_from_vorticity, vorticity_from_velocity
from pdesurrogate.physics.spectral import Shells, angular_wavenumbers
from pdesurrogate.simulators.forcing import KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import FilteredVelocity, GaussianRandomField, McWilliams
from pdesurrogate.simulators.recipe import load_recipe, parse_recipe

BOX = (2 * math.pi, 2 * math.pi)


@pytest.mark.parametrize("spectrum", ["amplitude", "power"])
def test_mcwilliams_has_the_published_energy_and_no_mean(spectrum):
    # An odd grid has no Nyquist wave, whose velocity a grid cannot hold; there the energy is exact.
    vorticity = McWilliams(spectrum=spectrum).sample(3, (63, 63), BOX, torch.Generator().manual_seed(1))
    speed = velocity_from_vorticity(vorticity[:, 0], BOX).square().sum(1).mean((-2, -1))
    torch.testing.assert_close(speed, torch.full_like(speed, 0.5), rtol=1e-12, atol=0)
    assert float(vorticity.mean((-2, -1)).abs().max()) < 1e-13


def test_mcwilliams_spectrum_falls_as_the_note_measured():
    # Slope of E(k) between k = 8 and 16: about -6.7.
    vorticity = McWilliams().sample(64, (64, 64), BOX, torch.Generator().manual_seed(1))[:, 0]
    velocity = velocity_from_vorticity(vorticity, BOX)
    density = torch.fft.rfft2(velocity, norm="forward").abs().square().sum(1)
    energy = Shells((64, 64), BOX).sum(density).mean(0)
    assert math.log2(energy[16] / energy[8]) == pytest.approx(-6.7, abs=0.2)
    assert int(energy.argmax()) in (1, 2, 3)


def test_gaussian_field_has_the_stated_variance():
    # Sum of sigma^2 (4 pi^2 |k|^2 + tau^2)^-alpha over all waves, the mean left out; twice, as the authors scale it.
    shape = (32, 32)
    field = GaussianRandomField(alpha=2.5, tau=7.0).sample(400, shape, (1.0, 1.0), torch.Generator().manual_seed(0))
    k = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)
    squared = 4 * math.pi**2 * (k[:, None] ** 2 + k[None] ** 2)
    amplitude = 7.0**1.5 * (squared + 49.0) ** -1.25
    amplitude[0, 0] = 0
    expected = 2 * float(amplitude.square().sum())
    # The variance of a mean square over 400 draws of a field with few energetic waves: about 2 %.
    assert float(field.square().mean()) == pytest.approx(expected, rel=0.08)
    assert float(field.mean((-2, -1)).abs().max()) < 1e-12


def test_rms_agrees_with_the_note():
    field = GaussianRandomField().sample(50, (64, 64), (1.0, 1.0), torch.Generator().manual_seed(3))
    assert float(field.square().mean().sqrt()) == pytest.approx(0.26, rel=0.1)


@pytest.mark.parametrize("shape", [(32, 32), (31, 31), (32, 48)])
@pytest.mark.parametrize("box", [BOX, (1.0, 1.0), (1.0, 2.0)])
def test_filtered_velocity_has_the_stated_speed_no_divergence_and_no_mean(shape, box):
    draw = FilteredVelocity(peak_wavenumber=8 * math.pi / box[0], maximum_speed=3.0)
    vorticity = draw.sample(3, shape, box, torch.Generator().manual_seed(1))
    assert vorticity.shape == (3, 1, *shape)
    assert vorticity.dtype == torch.float64
    velocity = velocity_from_vorticity(vorticity[:, 0], box)
    speed = velocity.square().sum(1).sqrt().amax((-2, -1))
    torch.testing.assert_close(speed, torch.full_like(speed, 3.0), rtol=1e-12, atol=0)
    largest = vorticity.abs().max()
    assert float(divergence(velocity, box).abs().max() / largest) < 1e-12
    assert float(vorticity.mean((-2, -1)).abs().max() / largest) < 1e-14
    if shape == (31, 31):
        # No Nyquist wave, whose velocity a grid cannot hold: the vorticity is the curl of the velocity.
        torch.testing.assert_close(
            vorticity_from_velocity(velocity, box), vorticity[:, 0], rtol=0, atol=1e-12 * largest
        )


@pytest.mark.parametrize(("peak", "variance"), [(4.0, 0.25), (6.0, 0.1)])
def test_filtered_velocity_spectrum_is_the_log_normal_band(peak, variance):
    shape = (48, 48)
    draw = FilteredVelocity(peak_wavenumber=peak, variance=variance)
    vorticity = draw.sample(400, shape, BOX, torch.Generator().manual_seed(1))[:, 0]
    density = torch.fft.rfft2(velocity_from_vorticity(vorticity, BOX), norm="forward").abs().square().sum(1)
    shells = Shells(shape, BOX)
    energy = shells.sum(density).mean(0)
    kx, ky = angular_wavenumbers(shape, BOX)
    k = (kx.square() + ky.square()).sqrt().clamp(min=1e-9)
    log_normal = torch.exp(-(torch.log(k / peak) - variance).square() / (2 * variance)) / k
    expected = shells.sum((log_normal / k).square())
    # 400 draws of two dozen waves or more in a shell: a few per cent.
    band = slice(3, 13)
    torch.testing.assert_close(energy[band] / energy.sum(), expected[band] / expected.sum(), rtol=0.08, atol=0)
    assert abs(int(energy.argmax()) - peak * math.exp(-variance / 2)) < 1


@pytest.mark.parametrize(
    "draw", [McWilliams(), GaussianRandomField(), FilteredVelocity()], ids=lambda d: type(d).__name__
)
def test_a_seed_means_the_same_field(draw):
    first, second = (draw.sample(2, (16, 16), (1.0, 1.0), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="spectrum"):
        McWilliams(spectrum="pink")
    with pytest.raises(ValueError, match="alpha > 1"):
        GaussianRandomField(alpha=1.0)
    for arguments in ({"peak_wavenumber": 0.0}, {"maximum_speed": -1.0}, {"variance": 0.0}, {"variance": math.nan}):
        with pytest.raises(ValueError, match="maximum_speed and variance > 0"):
            FilteredVelocity(**arguments)


def test_the_kolmogorov_recipe_forces_the_wavenumber_that_it_names():
    recipe, plain = load_recipe(recipe_path("ns2d_kolmogorov"))
    assert plain["simulator"]["init_args"]["forcing"]["init_args"]["wavenumber"] == 4
    y = torch.arange(128, dtype=torch.float64) * (2 * math.pi / 128)
    source = recipe.simulator.forcing_field.double()
    torch.testing.assert_close(source[0], (-4 * torch.cos(4 * y)).expand(128, 128), rtol=0, atol=1e-5)
    # The authors' code takes any argument and keeps wavenumber 1 when it is misnamed.
    misnamed = copy.deepcopy(plain)
    misnamed["simulator"]["init_args"]["forcing"]["init_args"] = {"k": 4}
    with pytest.raises(ValueError, match="forcing"):
        parse_recipe(misnamed)


def test_forced_flow_takes_up_the_force_and_its_mean_decays_with_the_drag():
    drag, time = 0.1, 0.5
    options = {"drag": drag, "forcing": KolmogorovForcing(wavenumber=4), "precision": "float64"}
    start = 0.3 + FilteredVelocity().sample(64, (32, 32), BOX, torch.Generator().manual_seed(0))
    end = NavierStokes2d(32, 1e-3, time, 25, **options).advance(start, 25)
    torch.testing.assert_close(end.mean((-2, -1)), torch.full((64, 1), 0.3 * math.exp(-drag * time)).double())
    profile = (end - start).mean((0, 1, 2))
    waves = 2 * torch.fft.rfft(profile, norm="forward").real[1:]
    # Not stirred, the forced wave would change by -4 time; the other waves of the profile have no mean over many draws.
    assert int(waves.abs().argmax()) + 1 == 4
    assert -4 * time < float(waves[3]) < -2 * time

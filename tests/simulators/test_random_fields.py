from __future__ import annotations

import math

import pytest
import torch

from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.physics.spectral import Shells
from pdesurrogate.simulators.random_fields import GaussianRandomField, McWilliams

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


@pytest.mark.parametrize("draw", [McWilliams(), GaussianRandomField()], ids=lambda d: type(d).__name__)
def test_a_seed_means_the_same_field(draw):
    first, second = (draw.sample(2, (16, 16), (1.0, 1.0), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="spectrum"):
        McWilliams(spectrum="pink")
    with pytest.raises(ValueError, match="alpha > 1"):
        GaussianRandomField(alpha=1.0)

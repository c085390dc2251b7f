import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.spectra import (
    SpectrumMetric,
    energy_spectrum,
    enstrophy_spectrum,
    log_spectral_distance,
    resolved_shells,
)
from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.physics.spectral import Shells, resample

LENGTH = 2 * math.pi
SQUARE = Grid((Axis("x", period=LENGTH), Axis("y", period=LENGTH)))
VORTICITY = Metadata("vortices", SQUARE, (Channel("vorticity", "1/s"),), frame_interval=0.1)
VELOCITY = Metadata("flow", SQUARE, (Channel("pressure"), Channel("velocity_y"), Channel("velocity_x")), 0.1)


def white_noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_of(batch, size):
    return Context(tuple(c.expand(batch, -1) for c in SQUARE.uniform_coordinates((size, size))))


@given(nx=st.integers(4, 21), ny=st.integers(4, 21), ratio=st.sampled_from([0.5, 1.0, 3.0]), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_parseval_for_odd_and_even_sizes(nx, ny, ratio, seed):
    shells = Shells((nx, ny), (LENGTH, ratio * LENGTH))
    velocity = white_noise(3, 2, nx, ny, seed=seed) + 1.5
    energy = velocity.square().sum(-3).mean((-2, -1)) / 2
    assert torch.allclose(
        energy_spectrum(velocity, shells).sum(-1) / energy, torch.ones(3).double(), rtol=0, atol=1e-12
    )
    vorticity = velocity[:, 0]
    enstrophy = vorticity.square().mean((-2, -1)) / 2
    ratio_found = enstrophy_spectrum(vorticity, shells).sum(-1) / enstrophy
    assert torch.allclose(ratio_found, torch.ones(3).double(), rtol=0, atol=1e-12)


def test_white_noise_puts_the_same_energy_on_every_wave():
    size = 24
    shells = Shells((size, size), (LENGTH, LENGTH))
    mean = enstrophy_spectrum(white_noise(4000, size, size), shells).mean(0)
    kx, ky = torch.meshgrid(*(torch.fft.fftfreq(size, 1 / size),) * 2, indexing="ij")
    waves = torch.bincount((kx.square() + ky.square()).sqrt().round().long().flatten()).double()
    # Each wave of unit noise holds 1 / (2 size^2); 4000 fields of at least one wave leave a standard error below
    # sqrt(2 / 4000) = 2.2 %, so 8 % is beyond three standard errors of the worst of 18 shells.
    assert torch.allclose(mean / waves * (2 * size**2), torch.ones(len(waves)).double(), atol=0.08)


@pytest.mark.parametrize("wave", [(1, 0), (0, 5), (3, 4), (-3, 4), (4, -3), (-2, -7), (6, 6), (0, -8)])
@pytest.mark.parametrize("size", [20, 21])
def test_a_single_wave_lands_in_its_shell_with_its_energy(wave, size):
    x, y = torch.meshgrid(*SQUARE.uniform_coordinates((size, size)), indexing="ij")
    amplitude = 1.7
    vorticity = amplitude * torch.cos(wave[0] * x + wave[1] * y + 0.4)
    shells = Shells((size, size), (LENGTH, LENGTH))
    magnitude = math.hypot(*wave)
    shell = round(magnitude)
    enstrophy = enstrophy_spectrum(vorticity, shells)
    energy = energy_spectrum(velocity_from_vorticity(vorticity, (LENGTH, LENGTH)), shells)
    assert enstrophy[shell].item() == pytest.approx(amplitude**2 / 4, rel=1e-12)
    assert energy[shell].item() == pytest.approx(amplitude**2 / 4 / magnitude**2, rel=1e-12)
    for spectrum in (enstrophy, energy):
        others = torch.cat([spectrum[:shell], spectrum[shell + 1 :]])
        assert others.abs().max() < 1e-24
    assert shells.wavenumbers[shell].item() == pytest.approx(shell)


def test_the_spectrum_does_not_depend_on_the_resolution():
    field = resample(white_noise(9, 9), (16, 16))
    coarse = enstrophy_spectrum(field, Shells((16, 16), (LENGTH, LENGTH)))
    fine = enstrophy_spectrum(resample(field, (40, 40)), Shells((40, 40), (LENGTH, LENGTH)))
    assert torch.allclose(fine[: len(coarse)], coarse, atol=1e-15)
    assert fine[len(coarse) :].max() < 1e-25


def test_largest_whole_shell():
    assert resolved_shells((64, 64), (LENGTH, LENGTH)) == 31
    assert resolved_shells((65, 32), (LENGTH, LENGTH)) == 15
    # A box twice as long holds shells half as wide: the short axis reaches twice as many of them.
    assert resolved_shells((64, 32), (2 * LENGTH, LENGTH)) == 31


def test_log_spectral_distance_closed_forms():
    target = torch.exp(-torch.arange(12, dtype=torch.float64))
    assert log_spectral_distance(target, target, 9).item() == 0.0
    assert log_spectral_distance(100 * target, target, 9).item() == pytest.approx(2.0)
    assert log_spectral_distance(target / 1000, target, 9).item() == pytest.approx(3.0)
    tilted = target * 10.0 ** torch.arange(12)
    expected = math.sqrt(sum(shell**2 for shell in range(1, 10)) / 9)
    assert log_spectral_distance(tilted, target, 9).item() == pytest.approx(expected)
    # The mean and the shells beyond are left out.
    altered = target.clone()
    altered[0], altered[10:] = 1e9, 1e9
    assert log_spectral_distance(altered, target, 9).item() == 0.0


def test_log_spectral_distance_has_a_floor_relative_to_the_peak():
    target = torch.tensor([0.0, 1.0, 1e-40, 0.0], dtype=torch.float64)
    prediction = torch.tensor([0.0, 1.0, 1e-30, 1e-10], dtype=torch.float64)
    # Shell 2 is floored on both sides, shell 3 of the target is raised to 1e-12: two decades off, one shell of three.
    assert log_spectral_distance(prediction, target, 3).item() == pytest.approx(math.sqrt(4 / 3))
    with pytest.raises(ValueError, match=r"largest_shell within 1\.\.3"):
        log_spectral_distance(prediction, target, 4)


def test_the_metric_averages_over_trajectories():
    prediction, target = white_noise(2, 6, 3, 1, 16, 16)
    metric = SpectrumMetric(VORTICITY, trajectories=6, frames=3, shape=(16, 16))
    for start in (0, 4):
        numbers = torch.arange(6)[start : start + 4]
        for frame in range(3):
            block = slice(frame, frame + 1)
            metric.update(
                prediction[numbers, block], target[numbers, block], frame, numbers, context_of(len(numbers), 16)
            )
    outputs = metric.compute()
    shells = Shells((16, 16), (LENGTH, LENGTH))
    assert set(outputs) == set(metric.variables)
    assert torch.allclose(outputs["enstrophy_spectrum_truth"], enstrophy_spectrum(target[:, :, 0], shells).mean(0))
    velocity = velocity_from_vorticity(prediction[:, :, 0], (LENGTH, LENGTH))
    assert torch.allclose(outputs["energy_spectrum_prediction"], energy_spectrum(velocity, shells).mean(0))
    expected = log_spectral_distance(outputs["energy_spectrum_prediction"], outputs["energy_spectrum_truth"], 7)
    assert torch.equal(outputs["log_spectral_distance"], expected)
    assert torch.equal(metric.coordinates["wavenumber"].values, shells.wavenumbers)
    assert metric.variables["enstrophy_spectrum_truth"].units == "(1/s)^2"


def test_velocity_channels_are_found_by_name_and_give_the_same_spectra():
    vorticity = resample(white_noise(2, 1, 1, 11, 11), (16, 16))
    velocity = velocity_from_vorticity(vorticity[:, :, 0], (LENGTH, LENGTH))
    pressure = torch.full_like(vorticity, 9.0)
    fields = torch.cat([pressure, velocity.flip(2)], dim=2)
    outputs = []
    for metadata, values in ((VORTICITY, vorticity), (VELOCITY, fields)):
        metric = SpectrumMetric(metadata, trajectories=2, frames=1, shape=(16, 16))
        metric.update(values, values, 0, torch.arange(2), context_of(2, 16))
        outputs.append(metric.compute())
    # The mean vorticity has no velocity.
    assert torch.allclose(outputs[0]["energy_spectrum_truth"], outputs[1]["energy_spectrum_truth"], atol=1e-14)
    ours, theirs = (output["enstrophy_spectrum_truth"][:, 1:] for output in outputs)
    assert torch.allclose(ours, theirs, atol=1e-14)


def test_stopped_trajectories_are_left_out_counted_and_make_the_distance_undefined():
    fields = white_noise(3, 2, 1, 16, 16)
    prediction = fields.clone()
    prediction[1, 1] = math.nan
    metric = SpectrumMetric(VORTICITY, trajectories=3, frames=2, shape=(16, 16))
    metric.update(prediction, fields, 0, torch.arange(3), context_of(3, 16))
    outputs = metric.compute()
    assert outputs["spectrum_trajectories"].tolist() == [3, 2]
    shells = Shells((16, 16), (LENGTH, LENGTH))
    survivors = enstrophy_spectrum(fields[[0, 2], 1, 0], shells).mean(0)
    assert torch.allclose(outputs["enstrophy_spectrum_prediction"][1], survivors)
    assert torch.allclose(outputs["enstrophy_spectrum_truth"], enstrophy_spectrum(fields[:, :, 0], shells).mean(0))
    assert outputs["log_spectral_distance"][0] == 0
    assert outputs["log_spectral_distance"][1].isnan()


def test_data_without_a_flow_and_missing_updates_are_refused():
    walls = Metadata("walls", Grid((Axis("x", period=1.0), Axis("y"))), (Channel("vorticity"),), 0.1)
    with pytest.raises(ValueError, match="plane periodic data"):
        SpectrumMetric(walls, 1, 1, (16, 16))
    metric = SpectrumMetric(VORTICITY, trajectories=2, frames=1, shape=(16, 16))
    fields = white_noise(1, 1, 1, 16, 16)
    metric.update(fields, fields, 0, torch.arange(1), context_of(1, 16))
    with pytest.raises(ValueError, match=r"of 2 trajectories at every lead time but got \[1\]"):
        metric.compute()

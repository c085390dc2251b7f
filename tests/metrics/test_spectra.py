import math

import pytest
import torch
from helpers import block_of, measure, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.spectra import (
    SpectrumMetric,
    coherence,
    energy_spectrum,
    enstrophy_spectrum,
    log_spectral_distance,
    resolved_shells,
    spectral_slope,
    variance_spectrum,
)
from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.physics.spectral import Shells, resample

LENGTH = 2 * math.pi
SQUARE = Grid((Axis("x", period=LENGTH), Axis("y", period=LENGTH)))
VORTICITY = Metadata("vortices", SQUARE, (Channel("vorticity", "1/s"),), frame_interval=0.1)
VELOCITY = Metadata("flow", SQUARE, (Channel("pressure"), Channel("velocity_y"), Channel("velocity_x")), 0.1)


def white_noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


def test_log_spectral_distance_counts_the_shells_in_which_the_truth_is_above_the_floor():
    target = torch.tensor([0.0, 1.0, 1e-40, 1e-6], dtype=torch.float64)
    prediction = torch.tensor([0.0, 1.0, 1e-30, 0.0], dtype=torch.float64)
    # Shell 2 of the truth is below the floor and does not count; shell 3 of the prediction is raised to it.
    assert log_spectral_distance(prediction, target, 3).item() == pytest.approx(math.sqrt(4 / 2))
    # Round-off below the floor is no distance, however many orders it spans.
    noise = torch.tensor([0.0, 1.0, 1e-12, 1e-16], dtype=torch.float64)
    assert log_spectral_distance(noise, target, 2).item() == 0.0
    assert log_spectral_distance(target, torch.zeros_like(target), 3).isnan()
    with pytest.raises(ValueError, match=r"largest_shell within 1\.\.3"):
        log_spectral_distance(prediction, target, 4)


def test_the_metric_averages_over_trajectories():
    prediction, target = white_noise(2, 6, 3, 1, 16, 16)
    metric = SpectrumMetric(plan_of(VORTICITY, 6, 3, (16, 16)))
    outputs = measure(metric, prediction, target, batch=4, length=1)
    shells = Shells((16, 16), (LENGTH, LENGTH))
    assert set(outputs) == set(metric.variables)
    # Tables of shells are exact, transforms of these fields are in double precision.
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
    outputs = [
        measure(SpectrumMetric(plan_of(metadata, 2, 1, (16, 16))), values, values)
        for metadata, values in ((VORTICITY, vorticity), (VELOCITY, fields))
    ]
    # The mean vorticity has no velocity.
    assert torch.allclose(outputs[0]["energy_spectrum_truth"], outputs[1]["energy_spectrum_truth"], atol=1e-14)
    ours, theirs = (output["enstrophy_spectrum_truth"][:, 1:] for output in outputs)
    assert torch.allclose(ours, theirs, atol=1e-14)
    # The pressure has a spectrum of its own: its mean square, all in the mean.
    variance = outputs[1]["variance_spectrum_truth"]
    assert variance.shape[1] == 1
    assert variance[0, 0, 0].item() == pytest.approx(81.0)
    assert variance[0, 0, 1:].max() < 1e-24


def test_isotropic_spectra_in_three_dimensions():
    box = Grid(tuple(Axis(name, period=LENGTH) for name in "xyz"))
    metadata = Metadata("box", box, tuple(Channel(f"velocity_{name}", "m/s") for name in "xyz"), 0.1)
    plan = plan_of(metadata, 1, 1, (8, 10, 9))
    # Taylor-Green flow: waves (1, 1, 1) of energy 1/8, curl of magnitude sqrt(3) times as large.
    x, y, z = torch.meshgrid(*plan.coordinates, indexing="ij")
    u = torch.stack([x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos(), 0 * x])[None, None]
    outputs = measure(SpectrumMetric(plan), u, u)
    energy, enstrophy = outputs["energy_spectrum_truth"][0], outputs["enstrophy_spectrum_truth"][0]
    assert energy[2].item() == pytest.approx(1 / 8, rel=1e-6)  # sqrt(3) rounds to shell 2
    assert enstrophy[2].item() == pytest.approx(3 / 8, rel=1e-6)
    assert energy.sum().item() == pytest.approx(u.square().sum(2).mean().item() / 2, rel=1e-6)
    noise = white_noise(1, 1, 3, 8, 10, 9)
    outputs = measure(SpectrumMetric(plan), noise, noise)
    assert outputs["energy_spectrum_truth"].sum().item() == pytest.approx(1.5 * noise.square().mean().item(), rel=1e-6)


def cosine_plan(shape=(13, 9), periods=(None, None), location="node"):
    grid = Grid(tuple(Axis(name, period=period) for name, period in zip("xy", periods, strict=True)))
    points = [
        torch.linspace(0, 3.0, size + (period is not None), dtype=torch.float64)[:size]
        for size, period in zip(shape, periods, strict=True)
    ]
    return RolloutPlan(Metadata("box", grid, (Channel("smoke", location=location),), 0.1), 1, 1, tuple(points))


@pytest.mark.parametrize("periods", [(None, None), (3.0, None), (None, 3.0)])
@pytest.mark.parametrize("shape", [(13, 9), (12, 10)])
@pytest.mark.parametrize("location", ["node", "cell"])
def test_axes_that_are_not_periodic_get_a_cosine_transform_that_keeps_parseval(periods, shape, location):
    plan = cosine_plan(shape=shape, periods=periods, location=location)
    fields = white_noise(1, 1, 1, *shape) + 2.0
    outputs = measure(SpectrumMetric(plan), fields, fields)
    weights = plan.quadrature_weights(plan.coordinates)
    mean_square = torch.einsum("xy,x,y->", fields[0, 0, 0].square(), *weights) / (weights[0].sum() * weights[1].sum())
    assert outputs["variance_spectrum_truth"].sum().item() == pytest.approx(mean_square.item(), rel=1e-6)


def test_a_cosine_of_the_box_is_a_single_wave_and_a_ramp_has_no_jump():
    plan = cosine_plan(shape=(33, 33))
    x, _ = torch.meshgrid(*plan.coordinates, indexing="ij")
    wave = torch.cos(5 * math.pi * x / 3.0).expand(1, 1, 1, 33, 33)
    metric = SpectrumMetric(plan)
    spectrum = measure(metric, wave, wave)["variance_spectrum_truth"][0, 0]
    assert spectrum[5].item() == pytest.approx(0.5, rel=1e-6)
    assert spectrum.sum().item() == pytest.approx(0.5, rel=1e-6)
    assert metric.shells.wavenumbers[5].item() == pytest.approx(5 * math.pi / 3.0)
    # The transform of a ramp falls as (1 - cos(pi j / n))^-2, which is k^-4 on a fine grid; a silent periodic transform
    # of it would see a jump and fall as k^-2.
    ramp = x.expand(1, 1, 1, 33, 33)
    metric = SpectrumMetric(plan)
    spectrum = measure(metric, ramp, ramp)["variance_spectrum_truth"][0, 0]
    odd = torch.arange(1, 32, 2).double()
    expected = (1 - torch.cos(math.pi * odd / 32)) ** -2
    assert torch.allclose(spectrum[odd.long()] / spectrum[1], expected / expected[0], rtol=1e-5)


def test_coherence_sees_phases_shell_by_shell():
    shells = Shells((32, 32), (LENGTH, LENGTH))
    one, other = white_noise(2, 32, 32)
    assert torch.allclose(coherence(3 * one, one, shells), torch.ones(len(shells.wavenumbers)).double())
    # Unrelated phases: about a hundred waves in shell 15 leave a correlation of 0.1 by chance, so 0.5 is five of it.
    assert coherence(one, other, shells)[4:16].abs().max() < 0.5
    # Small scales replaced by others.
    low = resample(resample(one, (15, 15)), (32, 32))
    mixed = coherence(low + 1e-9 * other, one, shells)
    assert torch.allclose(mixed[:8], torch.ones(8).double(), atol=1e-6)
    assert mixed[11:16].abs().max() < 0.5
    shifted = coherence(torch.roll(one, 1, 0), one, shells)
    assert shifted[1].item() < 1.0  # a shift costs the more the smaller the wave
    assert shifted[14].item() < 0.3


def test_coherence_of_the_metric_is_that_of_mean_spectra():
    prediction, target = white_noise(2, 3, 2, 1, 12, 12)
    outputs = measure(SpectrumMetric(plan_of(VORTICITY, 3, 2, (12, 12))), prediction, target, batch=2)
    shells = Shells((12, 12), (LENGTH, LENGTH))
    one, other = (torch.fft.rfft2(values[:, :, 0], norm="forward") for values in (prediction, target))
    cross = shells.sum((one * other.conj()).real).mean(0)
    scale = (shells.sum(one.abs().square()).mean(0) * shells.sum(other.abs().square()).mean(0)).sqrt()
    assert torch.allclose(outputs["coherence"][:, 0], cross / scale, atol=1e-12)


@given(slope=st.floats(-6, 2), amplitude=st.floats(1e-6, 1e3))
@settings(max_examples=30, deadline=None)
def test_the_slope_of_a_power_law(slope, amplitude):
    shells = torch.arange(1, 33, dtype=torch.float64)
    spectrum = torch.cat([torch.zeros(1).double(), amplitude * shells**slope])
    assert spectral_slope(spectrum, 3, 20).item() == pytest.approx(slope, abs=1e-9)
    spectrum[5] = 0.0
    assert spectral_slope(spectrum, 3, 20).isnan()
    with pytest.raises(ValueError, match="first_shell < last_shell < 33"):
        spectral_slope(spectrum, 3, 33)


def test_stopped_trajectories_are_left_out_counted_and_make_the_distance_undefined():
    fields = white_noise(3, 2, 1, 16, 16)
    prediction = fields.clone()
    prediction[1, 1] = math.nan
    outputs = measure(SpectrumMetric(plan_of(VORTICITY, 3, 2, (16, 16))), prediction, fields)
    assert outputs["spectrum_trajectories"].tolist() == [3, 2]
    shells = Shells((16, 16), (LENGTH, LENGTH))
    survivors = enstrophy_spectrum(fields[[0, 2], 1, 0], shells).mean(0)
    assert torch.allclose(outputs["enstrophy_spectrum_prediction"][1], survivors)
    assert torch.allclose(outputs["enstrophy_spectrum_truth"], enstrophy_spectrum(fields[:, :, 0], shells).mean(0))
    assert outputs["log_spectral_distance"][0] == 0
    assert outputs["log_spectral_distance"][1].isnan()
    assert torch.allclose(outputs["coherence"][:, 0, 1:], torch.ones(2, len(shells.wavenumbers) - 1).double())


@pytest.mark.parametrize("size", [64, 400])
def test_large_grids_add_waves_one_by_one_to_the_same_sums(size):
    shells = Shells((size, 12), (LENGTH, LENGTH))
    dense = shells.table is not None
    fields = white_noise(2, size, 12)
    found = variance_spectrum(fields, shells)
    shells.table = None
    assert torch.allclose(variance_spectrum(fields, shells), found, rtol=1e-12)
    assert dense == (len(shells.wavenumbers) * size * 7 <= 1 << 22)


def test_bad_input_and_missing_updates_are_refused():
    with pytest.raises(ValueError, match=r"slope_range within 1\.\.7"):
        SpectrumMetric(plan_of(VORTICITY, 1, 1, (16, 16)), slope_range=(5, 5))
    stretched = cosine_plan()
    points = (stretched.coordinates[0].square(), stretched.coordinates[1])
    with pytest.raises(ValueError, match=r"even: \(False, True\)"):
        SpectrumMetric(RolloutPlan(stretched.metadata, 1, 1, points))
    plan = plan_of(VORTICITY, 2, 1, (16, 16))
    metric = SpectrumMetric(plan)
    fields = white_noise(1, 1, 1, 16, 16)
    metric.update(block_of(plan, fields, fields))
    with pytest.raises(ValueError, match=r"of 2 trajectories at every lead time but got \[1\]"):
        metric.compute()

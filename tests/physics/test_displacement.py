"""Phase correlation: exact for translations of periodic fields, steady under noise, silent where nothing is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdesurrogate.layers.upsampling import doubling_matrix, upsample
from pdesurrogate.physics.displacement import local_displacement, phase_correlation
from pdesurrogate.physics.spectral import integer_wavenumbers


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def translated(values: Tensor, shift: tuple[float, ...]) -> Tensor:
    """Band-limited values moved by parts of a grid point."""
    space = values.shape[-len(shift) :]
    axes = tuple(range(-len(shift), 0))
    spectrum = torch.fft.rfftn(values, dim=axes)
    for wave, size, by in zip(integer_wavenumbers(space), space, shift, strict=True):
        spectrum = spectrum * torch.exp(-2j * torch.pi * wave * by / size)
    return torch.fft.irfftn(spectrum, s=space, dim=axes)


def band_limited(*space: int, highest: int = 5, seed: int = 0) -> Tensor:
    """A smooth field: amplitudes fall as ``k^-2`` up to a highest wave."""
    waves = integer_wavenumbers(space)
    squared = sum(wave.square() for wave in waves)
    assert isinstance(squared, Tensor)
    kept = (squared > 0) & (squared <= highest**2)
    spectrum = torch.fft.rfftn(noise(*space, seed=seed)) * torch.where(kept, 1 / squared.clamp_min(1), 0)
    return torch.fft.irfftn(spectrum, s=space)


@given(st.integers(-8, 7), st.integers(-12, 12), st.integers(0, 99))
@settings(max_examples=20)
def test_whole_grid_points_are_found_to_rounding(along_x: int, along_y: int, seed: int) -> None:
    field = noise(17, 25, seed=seed)
    found = phase_correlation(field, field.roll((along_x, along_y), (0, 1)), 2)
    assert torch.allclose(found.shift, torch.tensor([along_x, along_y]).double(), atol=1e-10)
    assert math.isclose(found.coherence, 1, abs_tol=1e-12)


@given(st.floats(-15, 15), st.floats(-10, 10), st.integers(0, 99))
@settings(max_examples=20)
def test_parts_of_grid_points_are_found_to_rounding_for_band_limited_fields(x: float, y: float, seed: int) -> None:
    field = 3 + band_limited(32, 24, seed=seed)
    found = phase_correlation(field, translated(field, (x, y)) - 7, 2)
    assert torch.allclose(found.shift, torch.tensor([x, y], dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("space", [(40,), (12, 14, 16)])
def test_any_dimension(space: tuple[int, ...]) -> None:
    field = band_limited(*space)
    shift = (1.3, -0.4, 2.25)[: len(space)]
    found = phase_correlation(field, translated(field, shift), len(space))
    assert torch.allclose(found.shift, torch.tensor(shift, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(found.distance, torch.tensor(shift, dtype=torch.float64).norm(), atol=1e-8)


def test_axes_in_front_are_kept_and_amplitude_does_not_matter() -> None:
    fields = torch.stack([band_limited(32, 32, seed=seed) for seed in range(6)]).reshape(2, 3, 32, 32)
    single = phase_correlation(fields.float(), 1e6 * translated(fields, (0.5, 2.0)).float(), 2)
    assert single.shift.shape == (2, 3, 2)
    assert single.coherence.shape == (2, 3)
    assert torch.allclose(single.shift, torch.tensor([0.5, 2.0]).double(), atol=1e-4)


def test_the_way_back_is_the_opposite() -> None:
    first, second = band_limited(32, 32), band_limited(32, 32, seed=1) + 2 * band_limited(32, 32)
    there, back = phase_correlation(first, second, 2), phase_correlation(second, first, 2)
    assert torch.allclose(there.shift, -back.shift, atol=1e-9)
    assert torch.allclose(there.coherence, back.coherence)


def test_a_shift_beyond_half_the_period_is_the_short_way_round() -> None:
    field = noise(16, 16)
    assert torch.allclose(phase_correlation(field, field.roll(13, 0), 2).shift, torch.tensor([-3.0, 0]).double())


def test_of_equal_peaks_the_nearest_is_given() -> None:
    axis = torch.arange(32) * (2 * torch.pi / 32)
    twice = torch.cos(2 * axis)[:, None] + torch.cos(4 * axis)
    found = phase_correlation(twice, twice.roll((3, 1), (0, 1)), 2)
    assert torch.allclose(found.shift, torch.tensor([3.0, 1.0]).double(), atol=1e-5)


def test_noise_moves_the_peak_by_a_few_times_the_least_possible() -> None:
    level, by = 0.2, torch.tensor([2.4, -1.7], dtype=torch.float64)
    fields = torch.stack([band_limited(64, 64, seed=seed) for seed in range(16)])
    fields = fields / fields.std((-2, -1), keepdim=True)
    second = translated(fields, (2.4, -1.7)) + level * noise(16, 64, 64, seed=99)
    found = phase_correlation(fields + level * noise(16, 64, 64, seed=98), second, 2)
    # Cramer and Rao's bound for two fields with that noise; strong waves that count alike cost a small factor.
    slope = (fields.roll(-1, 1) - fields.roll(1, 1)).square().mean().sqrt() / 2
    least = math.sqrt(2) * level / (64 * slope)
    assert (found.shift - by).square().mean().sqrt() < 4 * least
    assert (found.coherence < 0.99).all()


def test_unrelated_fields_are_not_coherent() -> None:
    found = phase_correlation(noise(4, 64, 64), noise(4, 64, 64, seed=1), 2)
    # The highest of 64^2 sums of as many random phases: about sqrt(2 log 64^2) / 64.
    assert (found.coherence.abs() < 0.1).all()


def test_a_changed_sign_is_seen_through_on_demand() -> None:
    field = band_limited(32, 32)
    found = phase_correlation(field, -translated(field, (1.5, 0.25)), 2, sign="either")
    assert torch.allclose(found.shift, torch.tensor([1.5, 0.25]).double(), atol=1e-8)
    assert math.isclose(found.coherence, -1, abs_tol=1e-9)


def test_where_nothing_is_known_it_is_nan() -> None:
    axis = torch.arange(32) * (2 * torch.pi / 32)
    good = band_limited(32, 32)
    constant, along_one = torch.full((32, 32), 0.3).double(), torch.cos(axis)[:, None].expand(32, 32).double()
    oblique, broken = torch.cos(axis[:, None] + 2 * axis).double(), good.clone()
    broken[3, 4] = math.inf
    cases = torch.stack([constant, along_one, oblique, broken, torch.zeros(32, 32).double(), good])
    found = phase_correlation(cases, cases, 2)
    assert found.shift.isnan().all(-1).tolist() == found.coherence.isnan().tolist() == [True] * 5 + [False]
    assert found.distance[-1] < 1e-9
    rounded = (constant + 1e-17 * noise(32, 32)).float()
    assert phase_correlation(rounded, rounded.roll(1, 0), 2).shift.isnan().all()


@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_averaging_and_doubling_displace_nothing(padding: str) -> None:
    field = band_limited(32, 32, highest=3)
    pooled = torch.nn.functional.avg_pool2d(field[None, None], 2)
    again = upsample(pooled, [doubling_matrix(16, padding, "bicubic")] * 2)[0, 0]
    tapered = () if padding == "circular" else (0, 1)
    found = phase_correlation(field, again, 2, tapered=tapered)
    assert found.distance < (1e-9 if padding == "circular" else 0.02)


def test_windows_follow_a_field_that_moves_differently_from_place_to_place() -> None:
    # A flow along x that goes both ways: there is no shift of the whole.
    size, by = 128, 3.0
    axis = torch.arange(size, dtype=torch.float64) * (2 * torch.pi / size)
    waves = noise(12, 12, 2, seed=3)
    speed = by * torch.cos(axis)

    def field(moved: Tensor) -> Tensor:
        x = axis[:, None] - moved * (2 * torch.pi / size)
        total = torch.zeros(size, size, dtype=torch.float64)
        for k in range(1, 12):
            for m in range(1, 12):
                total += torch.cos(k * x + waves[k, m, 0] * 9) * torch.cos(m * axis + waves[k, m, 1] * 9)
        return total

    found = local_displacement(field(0 * speed), field(speed), 8, (True, True)).shift.reshape(8, 8, 2)
    # Window j is two of eight parts wide, with its middle at the end of part j.
    middles = torch.cos(2 * torch.pi * torch.arange(1, 9, dtype=torch.float64) / 8)
    fast = middles.abs() > 0.9
    along = found[:, fast, 0] / (by * middles[fast])
    assert 0.75 < along.median() < 1.02
    assert found[..., 1].abs().median() < 0.25
    whole = local_displacement(field(0 * speed), field(speed), 1, (True, True))
    assert whole.shift.shape == (1, 2)


def test_a_tapered_field_need_not_be_periodic() -> None:
    large = torch.stack([band_limited(128, 128, highest=20, seed=seed) for seed in range(6)])
    second = translated(large, (1.6, -0.7))
    cut = [values[:, :64, :64] for values in (large, second)]
    found = phase_correlation(*cut, 2, tapered=(0, 1))
    error = found.shift - torch.tensor([1.6, -0.7]).double()
    assert error.abs().median() < 0.1
    assert error.abs().max() < 0.3


def test_windows_of_an_open_axis_do_not_reach_over_its_ends() -> None:
    field = noise(2, 32, 64)
    assert local_displacement(field, field, 4, (False, True)).shift.shape == (2, 3 * 4, 2)
    assert local_displacement(field, field, 8, (False, True)).shift.shape == (2, 7 * 8, 2)
    assert local_displacement(field, field, 16, (False, True)).shift.isnan().all()
    assert local_displacement(field, field, 4, (False, True)).distance.max() < 1e-9


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"Expected two fields of one shape with 2 space axes but got \(4, 4\)"):
        phase_correlation(noise(4, 4), noise(4, 5), 2)
    with pytest.raises(ValueError, match="with 3 space axes"):
        phase_correlation(noise(4, 4), noise(4, 4), 3)
    with pytest.raises(ValueError, match="Expected tapered axes among 0 to 1 but got"):
        phase_correlation(noise(4, 4), noise(4, 4), 2, tapered=(2,))
    with pytest.raises(ValueError, match=r"Expected windows that divide the axes \(16, 18\) but got 4"):
        local_displacement(noise(16, 18), noise(16, 18), 4, (True, True))

"""The tables of Moser, Kim and Mansour (1999), and how far a run is from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pdesurrogate.evaluation.channel.reference import NOMINAL, ChannelReference, channel_reference

# Key values of the tables, computed from the full files (three digits or more).
PUBLISHED = {
    180: {"re": 178.12, "center": 18.301, "bulk": 15.679, "re_b": 2792.7, "cf": 8.136e-3, "line": 0.0030},
    395: {"re": 392.24, "center": 20.133, "bulk": 17.545, "re_b": 6881.8, "cf": 6.497e-3, "line": 0.0097},
    590: {"re": 587.19, "center": 21.263, "bulk": 18.654, "re_b": 10953.4, "cf": 5.748e-3, "line": 0.0136},
}
PEAKS = {180: (2.658, 0.836, 1.087, 0.723), 395: (2.739, 0.997, 1.289, 0.837), 590: (2.774, 1.038, 1.374, 0.865)}

# Mean spanwise velocity in the middle by the full tables, zero by symmetry.
MEAN_SPANWISE = {180: 7.2862e-2, 395: 7.8916e-2, 590: 5.5450e-2}


@pytest.fixture(params=NOMINAL)
def nominal(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def reference(nominal: int) -> ChannelReference:
    return channel_reference(nominal)


def test_derived_numbers_are_the_published_ones(nominal: int, reference: ChannelReference) -> None:
    known, curves = PUBLISHED[nominal], reference.curves
    assert reference.friction_reynolds_number == known["re"]
    assert reference.bulk_reynolds_number == pytest.approx(known["re_b"], abs=0.06)
    # The numbers are known to their last digit.
    assert float(curves["centerline_velocity_plus"]) == pytest.approx(known["center"], abs=5.1e-4)
    assert float(curves["bulk_velocity_plus"]) == pytest.approx(known["bulk"], abs=5.1e-4)
    assert float(curves["friction_coefficient"]) == pytest.approx(known["cf"], abs=5.1e-7)
    # Distances from the wall have five digits, which leaves 1.3e-5 of the height.
    assert float(curves["total_stress_deviation"]) == pytest.approx(known["line"], abs=5.1e-5 + 1.3e-5)


def test_peaks_are_the_published_ones(nominal: int, reference: ChannelReference) -> None:
    found = [*reference.curves["rms_velocity_plus"].max("wall_distance_plus").values]
    found.append(reference.curves["shear_stress_plus"].max().item())
    assert found == pytest.approx(PEAKS[nominal], abs=5.1e-4)


def test_profiles_start_at_the_wall_with_unit_slope_and_end_in_the_middle(reference: ChannelReference) -> None:
    curves = reference.curves
    wall = curves.isel(wall_distance_plus=0)
    assert float(wall["wall_distance_plus"]) == 0.0
    assert float(wall["mean_gradient_plus"]) == 1.0
    assert all(not wall[name].any() for name in ("mean_velocity_plus", "rms_velocity_plus", "shear_stress_plus"))
    distance = curves["wall_distance_plus"].values
    assert distance[-1] == pytest.approx(reference.friction_reynolds_number, rel=5e-5)
    # The gradient belongs to the mean: the trapezoid rule on the tables' points leaves a thousandth.
    rise = np.concatenate([[0.0], np.cumsum(np.diff(distance) * _between(curves["mean_gradient_plus"].values))])
    np.testing.assert_allclose(rise, curves["mean_velocity_plus"], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("axis", ["x", "z"])
def test_modes_add_up_to_the_reynolds_stress(axis: str, nominal: int, reference: ChannelReference) -> None:
    curves = reference.curves
    energy = curves[f"line_spectrum_{axis}"].sum(f"line_wavenumber_{axis}")
    distance = curves["wall_distance_plus"].values
    # Planes are stated to two decimals; the nearest point of the profiles is where they lie.
    places = [int(np.abs(distance - plane).argmin()) for plane in curves["plane_distance_plus"].values]
    np.testing.assert_allclose(distance[places], curves["plane_distance_plus"], atol=6e-3)
    square = curves["rms_velocity_plus"].isel(wall_distance_plus=places).values ** 2
    u, v, w = energy.values - square
    # Five digits in each of up to 192 modes and in the root; the authors' own u differs by 0.2 % at 590.
    np.testing.assert_allclose(v, 0.0, atol=1e-4 * square[1].max())
    np.testing.assert_allclose(u / square[0], 0.0, atol=2e-3)
    # Their spectra of w hold the square of a mean that had not died out, 0.07 in the middle; their profiles do not.
    assert w[-1] == pytest.approx(MEAN_SPANWISE[nominal] ** 2, rel=0.01)
    assert np.all((w > 0) & (w <= w[-1]))


def test_the_small_tables_are_the_published_ones() -> None:
    """Against the longer table that other tests use."""
    table = json.loads((Path(__file__).parents[1] / "golden" / "mkm_chan180.json").read_text())["profiles"]
    curves = channel_reference(180).curves
    np.testing.assert_allclose(curves["mean_velocity_plus"], table["mean_u"], rtol=1e-9)
    np.testing.assert_allclose(curves["shear_stress_plus"], -np.asarray(table["R_uv"]), rtol=1e-9, atol=1e-12)
    for row, name in enumerate(("R_uu", "R_vv", "R_ww")):
        np.testing.assert_allclose(curves["rms_velocity_plus"][row] ** 2, table[name], rtol=1.1e-4, atol=1e-20)
    np.testing.assert_allclose(curves["mean_gradient_plus"] * 178.12, table["mean_u_gradient"], rtol=1e-4)


@pytest.mark.parametrize(("near", "nominal"), [(178.1, 180), (392, 395), (550, 590)])
def test_the_nearest_case_is_taken(near: float, nominal: int) -> None:
    assert channel_reference(near).name.endswith(str(nominal))


@pytest.mark.parametrize("far", [0.0, 300.0, 1000.0, float("nan")])
def test_other_reynolds_numbers_are_refused(far: float) -> None:
    with pytest.raises(ValueError, match=r"near one of \(180, 395, 590\)"):
        channel_reference(far)


def _between(values: np.ndarray) -> np.ndarray:
    return (values[1:] + values[:-1]) / 2

"""Channels beside published ones: the tables themselves, scaled and shifted ones, reports, and runs of the solver."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import context_of, measure

from pdesurrogate.data.archive import Archive
from pdesurrogate.evaluation.channel.comparison import compare_with_reference, profile_distance, spectral_distance
from pdesurrogate.evaluation.channel.reference import channel_reference
from pdesurrogate.evaluation.channel.wall_units import NUMBERS, LineSpectrum, Number, Profile, WallUnitStatistics
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.report import Report
from pdesurrogate.evaluation.scores import curves_of
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.channel import ChannelMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.staggered_channel import ChannelGrid, stretched_faces
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.statistics import ChannelStatistics
from pdesurrogate.simulators.recipe import generate, parse_recipe
from pdesurrogate.steppers.persistence import Persistence

VISCOSITY, LENGTHS = 1 / 60, (2 * math.pi, math.pi)
REFERENCE = channel_reference(180)
TABLE = WallUnitStatistics.of_reference(REFERENCE)


def test_a_table_agrees_with_itself() -> None:
    found = compare_with_reference(TABLE, REFERENCE)
    assert all(quantity.deviation == 0.0 for quantity in found.quantities.values())
    assert max(found.distances.values()) < 1e-15
    # Two axes, three components, five planes.
    assert len(found.spectral_distances) == 30
    assert max(found.spectral_distances.values()) < 1e-12
    # The published peak of u'.
    assert found.quantities["largest_rms_velocity_x"].reference == pytest.approx(2.658, abs=5e-4)


def test_a_scaled_flow_is_as_far_as_it_was_scaled() -> None:
    scaled = WallUnitStatistics(
        {name: Number(1.2 * value, 0.1) for name, (value, _) in TABLE.numbers.items()},
        {name: profile._replace(values=1.1 * profile.values) for name, profile in TABLE.profiles.items()},
        {key: [plane._replace(energy=10 * plane.energy) for plane in planes] for key, planes in TABLE.spectra.items()},
    )
    found = compare_with_reference(scaled, REFERENCE)
    for name, quantity in found.quantities.items():
        assert quantity.deviation == pytest.approx(0.2 if name in NUMBERS else 0.1)
    assert list(found.distances.values()) == pytest.approx([0.1] * len(found.distances))
    assert list(found.spectral_distances.values()) == pytest.approx([1.0] * 30)
    lines = found.table().splitlines()
    assert len(lines) == 1 + len(found.quantities) + len(found.distances) + 6
    assert "20.0%" in lines[1]
    assert lines[-1].endswith("1.00")


def test_distances_of_profiles_do_not_depend_on_where_a_run_has_its_points() -> None:
    # The same curve on other points: what is left is the interpolation of the table.
    fine = TABLE.profiles["mean_velocity"]
    own = np.linspace(0.0, 178.12, 90) ** 2 / 178.12
    moved = Profile(own, np.interp(own, fine.distance, fine.values), np.zeros(90))
    assert profile_distance(moved, fine) < 1e-3


def test_spectra_of_boxes_of_other_lengths_are_compared_by_density() -> None:
    waves = np.arange(65) * 0.5
    energy = 0.5 * np.exp(-waves / 4)
    published = LineSpectrum(30.0, waves, energy, energy)
    # A box a quarter as long has every fourth mode, of four times the energy.
    short = LineSpectrum(30.0, waves[::4], 4 * energy[::4], energy[::4])
    assert spectral_distance(short, published) < 1e-12
    beyond = LineSpectrum(30.0, 100 * waves, energy, energy)
    assert math.isnan(spectral_distance(beyond, published))


def test_planes_far_from_published_ones_are_left_out() -> None:
    chosen = {key: [planes[1]] for key, planes in TABLE.spectra.items()}
    found = compare_with_reference(replace(TABLE, spectra=chosen), REFERENCE)
    assert {distance for *_, distance in found.spectral_distances} == {19.02}
    assert compare_with_reference(replace(TABLE, spectra={}), REFERENCE).spectral_distances == {}


# Reports.


def noisy_flow(plan: RolloutPlan, seed: int = 0) -> torch.Tensor:
    """Noise that vanishes on the walls on a parabola; in cells."""
    generator = torch.Generator().manual_seed(seed)
    y = plan.coordinates[1]
    envelope = (y * (2 - y))[:, None]
    values = torch.randn(plan.trajectories, plan.frames, 3, *plan.shape, generator=generator, dtype=torch.float64)
    values *= 0.1 * envelope
    values[:, :, 0] += envelope
    return values


@pytest.fixture(scope="module")
def report() -> Report:
    grid = ChannelGrid(LENGTHS, (8, 8), stretched_faces(16))
    axes = Grid((Axis("x", period=LENGTHS[0]), Axis("y"), Axis("z", period=LENGTHS[1])))
    channels = tuple(Channel(f"velocity_{axis}", location="cell") for axis in "xyz")
    metadata = Metadata("noise", axes, channels, 0.1, parameters=("viscosity",))
    plan = RolloutPlan(metadata, 2, 8, grid.coordinates)
    target = noisy_flow(plan)
    metrics = {"channel": ChannelMetric(plan), "line_spectra": LineSpectrumMetric(plan, [0.25, 1.0])}
    for metric in metrics.values():
        context = context_of(plan, 2, parameters=torch.full((2, 1), VISCOSITY))
        measure(metric, 1.1 * target, target, context=context)
    return Report({}, curves_of(metrics, plan))


def test_a_report_is_read_in_its_own_wall_units(report: Report) -> None:
    curves = report.curves
    found = WallUnitStatistics.of_report(curves, "prediction")
    u_tau = float(curves["friction_velocity_prediction"])
    reynolds = u_tau / VISCOSITY
    assert found.numbers["friction_reynolds_number"].value == pytest.approx(reynolds)
    assert found.numbers["bulk_velocity_plus"].error > 0
    profile = found.profiles["rms_velocity_y"]
    np.testing.assert_allclose(
        profile.values, curves["rms_velocity_plus_prediction"].sel(velocity_component="velocity_y")
    )
    np.testing.assert_allclose(profile.distance, curves["wall_distance"] * reynolds)
    assert (profile.error > 0).all()
    assert {axis for axis, _ in found.spectra} == {"x", "z"}
    plane = found.spectra["z", "velocity_z"][1]
    assert plane.distance == pytest.approx(float(curves["plane_distance"][1]) * reynolds)
    np.testing.assert_allclose(plane.wavenumber, 2 * np.arange(5))
    np.testing.assert_allclose(plane.energy * u_tau**2, curves["line_spectrum_z_prediction"][2, 1])


def test_wall_units_of_another_friction_velocity_scale_everything(report: Report) -> None:
    own = WallUnitStatistics.of_report(report.curves)
    u_tau = float(report.curves["friction_velocity_truth"])
    twice = WallUnitStatistics.of_report(report.curves, friction_velocity=2 * u_tau)
    powers = {"friction_reynolds_number": 1, "friction_coefficient": 2}
    total = own.profiles["total_stress"]
    line = 1 - total.distance / own.numbers["friction_reynolds_number"].value
    assert own.numbers["total_stress_deviation"].value == pytest.approx(np.abs(total.values - line).max())
    # The stress is scaled, the line that it should be stays.
    assert twice.numbers["total_stress_deviation"].value == pytest.approx(np.abs(total.values / 4 - line).max())
    for name, number in own.numbers.items():
        if name != "total_stress_deviation":
            assert twice.numbers[name].value == pytest.approx(2 ** powers.get(name, -1) * number.value), name
    for name, profile in own.profiles.items():
        np.testing.assert_allclose(twice.profiles[name].distance, 2 * profile.distance)
        power = 2 if name.endswith("stress") else 1
        np.testing.assert_allclose(twice.profiles[name].values * 2**power, profile.values)
        np.testing.assert_allclose(twice.profiles[name].error * 2**power, profile.error)
    one, other = own.spectra["x", "velocity_x"][0], twice.spectra["x", "velocity_x"][0]
    np.testing.assert_allclose(other.energy * 4, one.energy)
    np.testing.assert_allclose(other.wavenumber, one.wavenumber)
    assert other.distance == pytest.approx(2 * one.distance)


def test_a_report_is_compared_by_side(report: Report) -> None:
    truth, prediction = (compare_with_reference(report, REFERENCE, side) for side in ("truth", "prediction"))
    expected = WallUnitStatistics.of_report(report.curves)
    quantity = truth.quantities["centerline_velocity_plus"]
    assert quantity[:2] == expected.numbers["centerline_velocity_plus"]
    assert quantity.reference == pytest.approx(18.301, abs=5e-4)
    # Ten percent more of everything raises the friction velocity by its root.
    ratio = prediction.quantities["friction_reynolds_number"].value / truth.quantities["friction_reynolds_number"].value
    assert ratio == pytest.approx(math.sqrt(1.1))


def test_a_report_without_wall_units_is_refused(report: Report) -> None:
    with pytest.raises(ValueError, match=r"friction_velocity_truth.* are missing; measure"):
        compare_with_reference(Report({}, xr.Dataset()), REFERENCE)
    without = report.curves.drop_vars("shear_stress_plus_truth")
    with pytest.raises(ValueError, match="shear_stress_plus_truth"):
        WallUnitStatistics.of_report(without)


# Runs of the solver.


def test_statistics_of_a_run_are_read_where_the_solver_has_them(tmp_path) -> None:
    solver = ChannelFlow((8, 12, 8), LENGTHS, 1 / 100, frame_interval=0.1, steps_per_frame=4)
    state = torch.zeros(2, 4, 8, 12, 8, dtype=torch.float64)
    y = solver.channel_grid.centers
    noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state[:, :3] = 0.05 * noise[:, :3]
    state[:, 1, :, 0] = 0
    state[:, 0] += 1.5 * (y * (2 - y))[:, None]
    choice = ChannelStatistics(every=2, block=0.05, planes=(5.0,))
    gathering = choice.on(solver)
    for step in range(3):
        gathering.update(state * (1 + 0.01 * step))
    path = tmp_path / "statistics.nc"
    choice.save(solver, [gathering.state_dict()], str(path))
    with xr.open_dataset(path) as dataset:
        stored = dataset.load()
    found = WallUnitStatistics.of_run(stored)
    u_tau = float(stored["friction_velocity"])
    assert found.numbers["friction_reynolds_number"].value == pytest.approx(100 * u_tau)
    assert found.numbers["bulk_velocity_plus"].value == pytest.approx(float(stored["bulk_velocity"]) / u_tau)
    np.testing.assert_allclose(found.profiles["mean_velocity"].distance, y[:6] * 100 * u_tau)
    np.testing.assert_allclose(found.profiles["rms_velocity_y"].distance, solver.channel_grid.faces[:7] * 100 * u_tau)
    np.testing.assert_allclose(found.profiles["shear_stress"].values, stored["shear_stress_plus"])
    assert len(found.spectra["x", "velocity_y"]) == 2
    assert found.spectra["z", "velocity_x"][0].wavenumber[1] == pytest.approx(2.0)
    compared = compare_with_reference(found, REFERENCE)
    assert set(compared.distances) == set(TABLE.profiles)
    assert all(math.isfinite(far) for far in compared.distances.values())
    with pytest.raises(ValueError, match="statistics of a run"):
        WallUnitStatistics.of_run(xr.Dataset())


@pytest.mark.parametrize("reduction", ["ChannelCoarsening", "CollocatedCoarsening"])
def test_what_a_recipe_makes_is_measured_and_compared(tmp_path, reduction: str) -> None:
    package = "pdesurrogate.simulators"
    solver = {
        "shape": [8, 12, 8],
        "lengths": [3.0, 1.5],
        "viscosity": 1e-2,
        "frame_interval": 0.1,
        "steps_per_frame": 2,
    }
    recipe, plain = parse_recipe(
        {
            "name": "tiny_channel",
            "simulator": {"class_path": f"{package}.channel.flow.ChannelFlow", "init_args": solver},
            "initial_condition": {"class_path": f"{package}.channel.start.TrippedChannel"},
            "reduction": {
                "class_path": f"{package}.channel.coarsening.{reduction}",
                "init_args": {"shape": [4, 6, 4]},
            },
            "frames": 4,
            "trajectories": {"train": 0, "val": 0, "test": 2},
            "seed": 0,
        }
    )
    generate(recipe, plain, tmp_path)
    trajectories = Archive(tmp_path).trajectories("test")
    report = Evaluator()(Persistence(), trajectories, frames=3)
    found = WallUnitStatistics.of_report(report.curves)
    # The flow rate is held at one, which the heights of the stored cells know exactly; planes are a rule of trapezoids.
    u_tau = float(report.curves["friction_velocity_truth"])
    tolerance = 1e-6 if reduction == "ChannelCoarsening" else 0.1
    assert found.numbers["bulk_velocity_plus"].value * u_tau == pytest.approx(1.0, rel=tolerance)
    assert found.numbers["friction_reynolds_number"].value == pytest.approx(100 * u_tau)
    assert {"q_criterion_rms_truth", "line_spectrum_z_truth", "total_stress_plus_truth"} <= set(report.curves)
    compared = compare_with_reference(report, REFERENCE, "prediction")
    assert all(math.isfinite(far) for far in compared.distances.values())

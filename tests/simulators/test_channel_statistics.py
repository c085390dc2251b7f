"""Statistics of a channel: exact for flows that are known, even and odd as they must be, and the same however cut."""

from __future__ import annotations

import math

import pytest
import torch
import xarray

from pdesurrogate.metrics.profiles import plane_moments, profiles_of
from pdesurrogate.physics.staggered_channel import ChannelGrid, stretched_faces
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.statistics import (
    _LABELS,
    ChannelStatistics,
    Layout,
    PlaneStatistics,
    evaluate,
    jackknife,
    save_statistics,
    whole_blocks,
)
from pdesurrogate.simulators.navier_stokes import NavierStokes2d

GRID = ChannelGrid((4.0, 2.0), (8, 6), stretched_faces(10))
LAYOUT = Layout.of(GRID, [0.05, 0.3])
VISCOSITY = 0.01


def random_states(count, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(count, batch, 4, *GRID.shape, dtype=torch.float64, generator=generator)
    states[:, :, 0] += 3 * (GRID.centers * (2 - GRID.centers))[:, None] + 2
    # No flow through walls, nor through any plane.
    states[:, :, 1, :, 0] = 0
    states[:, :, 1] -= states[:, :, 1].mean((2, 4), keepdim=True)
    return states


def mirrored(states):
    """Reflected in the middle plane; the wall-normal velocity lives on faces and changes its sign."""
    result = states.flip(-2)
    normal = states[..., 1, :, :, :]
    result[..., 1, :, :, :] = torch.cat([normal[..., :1, :], -normal[..., 1:, :].flip(-2)], -2)
    return result


def rows_of(states):
    return torch.stack([LAYOUT.row(state) for state in states]).mean((0, 1))


def test_spectra_add_up_to_the_variance():
    found = evaluate(LAYOUT, rows_of(random_states(5)), VISCOSITY)
    for axis in ("x", "z"):
        for component, name, planes in ((0, "x", LAYOUT.cells), (1, "y", LAYOUT.faces), (2, "z", LAYOUT.cells)):
            variance = found[f"rms_velocity_{name}_plus"].square()[list(planes)]
            assert torch.allclose(found[f"spectrum_{axis}"][component].sum(-1), variance, rtol=1e-10)


def test_a_single_wave_is_in_its_mode():
    state = torch.zeros(1, 4, *GRID.shape, dtype=torch.float64)
    x = torch.arange(8) * (2 * torch.pi / 8)
    state[:, 0] = 1 + 0.5 * torch.cos(2 * x)[:, None, None]
    found = evaluate(LAYOUT, rows_of([state]), VISCOSITY)
    energy = torch.zeros(5, dtype=torch.float64)
    energy[2] = 0.5**2 / 2
    square = found["friction_velocity"].square()
    assert torch.allclose(found["spectrum_x"][0] * square, energy.expand(3, 5))
    assert torch.allclose(found["spectrum_z"][0, :, 0] * square, torch.tensor(0.125).double())


def test_correlated_waves_have_the_stress_that_they_must():
    state = torch.zeros(1, 4, *GRID.shape, dtype=torch.float64)
    wave = torch.cos(torch.arange(6, dtype=torch.float64) * (2 * torch.pi / 6))
    state[:, 0] = 1 + 0.4 * wave
    state[:, 1] = -0.1 * wave
    state[:, 1, :, 0] = 0
    found = evaluate(LAYOUT, rows_of([state + mirrored(state)]), VISCOSITY)
    # The mirror image turns the wall-normal velocity: their sum has none, their stress is even, so it cancels too.
    assert float(found["shear_stress_plus"].abs().max()) < 1e-12
    lower = LAYOUT.split(rows_of([state]))
    assert torch.allclose(lower["uv"][1:-1], torch.full((9,), -0.5 * 0.04).double())
    assert lower["uv"][0] == lower["uv"][-1] == 0


def test_halves_are_averaged_with_their_sign():
    states = random_states(4)
    rows, other, both = rows_of(states), rows_of(mirrored(states)), rows_of(torch.cat([states, mirrored(states)]))
    found = evaluate(LAYOUT, rows, VISCOSITY)
    for again in (evaluate(LAYOUT, other, VISCOSITY), evaluate(LAYOUT, both, VISCOSITY)):
        for name, value in found.items():
            assert torch.allclose(value, again[name], rtol=1e-9, atol=1e-9), name


def test_profiles_are_those_of_the_metrics():
    states = random_states(4)
    both = torch.cat([states, mirrored(states)])
    found = evaluate(LAYOUT, rows_of(both), VISCOSITY)
    moments = plane_moments(both[:, :, [0, 2]], axes=(-3, -1), streamwise=0, wall_normal=1).mean((0, 1))
    expected = profiles_of(moments, streamwise=0, wall_normal=1)
    friction = found["friction_velocity"]
    assert torch.allclose(found["mean_velocity_plus"] * friction, expected.mean[0, :5])
    assert torch.allclose(found["rms_velocity_x_plus"] * friction, expected.rms[0, :5])
    assert torch.allclose(found["rms_velocity_z_plus"] * friction, expected.rms[1, :5])


def even(count, generator):
    half = torch.rand((count + 1) // 2, dtype=torch.float64, generator=generator) + 0.5
    return torch.cat([half, half[: count // 2].flip(0)])


def test_every_statistic_of_a_slanted_wave_is_its_exact_value():
    # Of one wave along x, with amplitudes as they like over the half height and all phases apart.
    generator = torch.Generator().manual_seed(3)
    mean, along, across, pressure = (even(10, generator) for _ in range(4))
    through = even(11, generator) * torch.tensor([0, 1, 1, 1, 1, 0, -1, -1, -1, -1, 0])
    count, spacing = 8, 0.5
    places = torch.arange(count, dtype=torch.float64)[:, None, None] * (2 * math.pi / count)
    half_cell, lag = math.pi / count, 2.5
    state = torch.zeros(1, 4, *GRID.shape, dtype=torch.float64)
    state[0, 0] = mean[:, None] + along[:, None] * torch.cos(places)
    state[0, 1] = through[:-1, None] * torch.cos(places + half_cell + lag)
    state[0, 2] = across[:, None] * torch.cos(places + half_cell + 1)
    state[0, 3] = pressure[:, None] * torch.cos(places + half_cell + 2)
    found = evaluate(LAYOUT, rows_of([state]), VISCOSITY)

    assert GRID.spacing_x == spacing
    centers, faces = GRID.centers, GRID.faces
    stress = VISCOSITY * mean[0] / centers[0]
    velocity = stress.sqrt()
    bulk = (mean * faces.diff()).sum() / 2
    # On the faces that u crosses, where the mean of both neighbors has the wave's own v, times a cosine.
    between = torch.nn.functional.pad((along[1:5] + along[:4]) / 2, (1, 1))
    shear = -between * through[:6] * math.cos(half_cell) * math.cos(lag) / 2
    slope = torch.cat([mean[:1] / centers[0], (mean[1:6] - mean[:5]) / (centers[1:6] - centers[:5])])
    energy = torch.stack([along[list(LAYOUT.cells)], through[list(LAYOUT.faces)], across[list(LAYOUT.cells)]]) ** 2 / 2
    spectra = {axis: torch.zeros(3, 3, modes, dtype=torch.float64) for axis, modes in (("x", 5), ("z", 4))}
    spectra["x"][..., 1] = spectra["z"][..., 0] = energy / stress
    root = math.sqrt(2)
    expected = {
        "friction_velocity": velocity,
        "friction_reynolds_number": velocity / VISCOSITY,
        "bulk_velocity": bulk,
        "friction_coefficient": 2 * stress / bulk**2,
        "centerline_velocity_plus": mean[4] / velocity,
        "wall_stress_intensity": along[0] / root / mean[0],
        "mean_velocity_plus": mean[:5] / velocity,
        "rms_velocity_x_plus": along[:5] / root / velocity,
        "rms_velocity_y_plus": through[:6] / root / velocity,
        "rms_velocity_z_plus": across[:5] / root / velocity,
        "rms_pressure_plus": pressure[:5] / root / stress,
        "shear_stress_plus": shear / stress,
        "total_stress_plus": (shear + VISCOSITY * slope) / stress,
        "spectrum_x": spectra["x"],
        "spectrum_z": spectra["z"],
    }
    assert set(found) == set(expected) == set(_LABELS) - {"subgrid_stress_plus"}
    assert float(found["shear_stress_plus"][1:5].min()) > 0.1
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-10, atol=1e-10), name


def laminar(subgrid=None):
    flow = ChannelFlow(
        (2, 10, 2), (8.0, 8.0), 0.5, frame_interval=1.0, steps_per_frame=5, stretching=0.8, subgrid=subgrid
    )
    state = torch.zeros(1, 4, *flow.shape, dtype=torch.float64)
    state[:, 0] = 1.0
    return flow, state


def test_the_total_stress_of_a_steady_flow_is_exactly_linear():
    flow, state = laminar()
    state = flow.advance(state, 150)
    layout = Layout.of(flow.channel_grid, [])
    found = evaluate(layout, layout.row(state)[0], flow.viscosity)
    expected = 1 - flow.channel_grid.faces[:6]
    assert torch.allclose(found["total_stress_plus"], expected, atol=1e-10)
    assert float(found["bulk_velocity"]) == pytest.approx(1.0, abs=1e-12)
    diagnostics = flow.diagnostics(state)
    assert float(found["friction_reynolds_number"]) == pytest.approx(float(diagnostics.friction_reynolds_number[0]))


class HeightViscosity:
    """An eddy viscosity that grows off the walls."""

    def viscosity(self, velocity, grid):
        return (0.02 * grid.centers * (2 - grid.centers))[:, None].expand(len(velocity), *grid.shape)


def test_the_stress_of_a_closure_completes_the_balance():
    flow, state = laminar(HeightViscosity())
    state = flow.advance(state, 150)
    statistics = ChannelStatistics(every=1, block=1.0, planes=()).on(flow)
    statistics.update(state)
    layout, (row,) = statistics.layout, whole_blocks(statistics.state_dict())
    found = evaluate(layout, row, flow.viscosity)
    assert torch.allclose(found["total_stress_plus"], 1 - flow.channel_grid.faces[:6], atol=1e-10)
    assert float(found["subgrid_stress_plus"].max()) > 0.01
    assert "subgrid_stress_plus" in _LABELS
    assert not found["shear_stress_plus"].any()


class SquareViscosity:
    """An eddy viscosity that varies along all axes."""

    def viscosity(self, velocity, grid):
        return velocity.square().sum(1)


def test_the_stress_of_a_closure_is_the_flux_of_the_solver():
    flow = ChannelFlow(GRID.shape, GRID.lengths, 0.01, 0.1, 100, faces=GRID.faces, subgrid=SquareViscosity())
    state = random_states(1)[0]
    layout = Layout.of(GRID, [], flow.subgrid)
    planes = flow.scheme.fluxes.planes
    fields = planes.from_fields(state)
    eddy = planes.from_fields(flow.subgrid.viscosity(state[:, :3], GRID)[:, None])[:, 0]
    normal = torch.nn.functional.pad(fields[1:, 1], (0, 0, 1, 1))
    rate = planes.cells(flow.scheme.fluxes.subgrid(fields[:, 0:3:2].flatten(2), normal, eddy)[0][:, 0])
    # What flows into the cells below a face has come through it: the wall gives nothing.
    through = (rate.mean((2, 3)) * GRID.heights[:, None]).cumsum(0)
    stress = layout.split(layout.row(state))["subgrid"]
    assert torch.allclose(stress[:, 1:].T, through, atol=1e-12)
    assert float(stress.abs().max()) > 1
    assert not stress[:, 0].any()


def test_what_is_continued_equals_what_was_made_in_one_go():
    states = random_states(11)
    whole = PlaneStatistics(LAYOUT, samples_per_block=4)
    for state in states:
        whole.update(state)
    resumed = PlaneStatistics(LAYOUT, samples_per_block=4)
    for state in states:
        kept = resumed.state_dict()
        resumed = PlaneStatistics(LAYOUT, samples_per_block=4)
        resumed.load_state_dict(kept)
        resumed.update(state)
    assert torch.equal(whole_blocks(whole.state_dict()), whole_blocks(resumed.state_dict()))
    assert torch.equal(whole.state_dict()["sum"], resumed.state_dict()["sum"])
    assert whole_blocks(whole.state_dict()).shape == (2 * 2, sum(map(math.prod, LAYOUT.shapes.values())))


def test_a_run_shorter_than_a_block_is_one():
    short = PlaneStatistics(LAYOUT, samples_per_block=100)
    states = random_states(3)
    for state in states:
        short.update(state)
    assert torch.allclose(whole_blocks(short.state_dict()).mean(0), rows_of(states))
    with pytest.raises(ValueError, match="at least one state"):
        whole_blocks(PlaneStatistics(LAYOUT, 2).state_dict())


def test_errors_of_plain_means_are_those_of_textbooks_and_of_one_block_unknown():
    samples = torch.stack([LAYOUT.row(state) for state in random_states(6, batch=1)]).squeeze(1)
    samples[:, :10] *= torch.linspace(0.9, 1.1, 6, dtype=torch.float64)[:, None]
    bulk = evaluate(LAYOUT, samples, VISCOSITY)["bulk_velocity"]
    value, error = jackknife(LAYOUT, samples, VISCOSITY)["bulk_velocity"]
    assert float(value) == pytest.approx(float(bulk.mean()))
    assert float(error) == pytest.approx(float(bulk.std() / math.sqrt(6)))
    assert all(error.isnan().all() for _, error in jackknife(LAYOUT, samples[:1], VISCOSITY).values())


def test_the_file_is_labelled(tmp_path):
    samples = torch.cat([LAYOUT.row(state) for state in random_states(3)])
    save_statistics(LAYOUT, samples, VISCOSITY, str(tmp_path / "statistics.nc"))
    found = xarray.load_dataset(tmp_path / "statistics.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.nc"]
    assert found.attrs["blocks"] == 6
    assert found["mean_velocity_plus"].dims == ("wall_distance",)
    assert found["shear_stress_plus"].dims == ("wall_distance_face",)
    assert dict(found["spectrum_z"].sizes) == {"component": 3, "plane": 3, "wavenumber_z": 4}
    assert all(variable.attrs["units"] and variable.attrs["long_name"] for variable in found.data_vars.values())
    plus = found["wall_distance"] * found["friction_velocity"] / VISCOSITY
    assert float(abs(plus - found["wall_distance_plus"]).max()) < 1e-9
    assert {f"{name}_error" for name in found.data_vars if f"{name}_error" in found} == {
        name for name in found.data_vars if name.endswith("_error")
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ChannelStatistics(every=0, block=1.0), "every >= 1"),
        (lambda: ChannelStatistics(every=1, block=0.0), "positive block"),
        (lambda: ChannelStatistics(every=1, block=1.0, planes=(-1.0,)), "positive distances"),
        (lambda: ChannelStatistics(every=1, block=1.0, planes=(1e4,)).on(laminar()[0]), "within the half height"),
        (
            lambda: ChannelStatistics(every=1, block=1.0).on(NavierStokes2d(8, 1e-2, 0.1, 1)),
            "solver of channel flow",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Against NumPy, single waves, and the spectra of Moser, Kim and Mansour (1999)."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import block_of, context_of, measure
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.channel import ChannelGeometry, ChannelMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric, line_spectrum, nearest_planes
from pdesurrogate.metrics.plan import RolloutPlan

TABLE = json.loads((Path(__file__).parents[1] / "golden" / "mkm_chan180.json").read_text())
PERIODS = {"x": 4 * math.pi, "z": 4 * math.pi / 3}


def channel_plan(points, nx=8, nz=6, trajectories=2, frames=2, locations=("node",) * 3, attributes=None, **options):
    grid = Grid((Axis("x", period=PERIODS["x"]), Axis("y"), Axis("z", period=PERIODS["z"])))
    channels = tuple(Channel(f"velocity_{n}", "m/s", location=where) for n, where in zip("xyz", locations, strict=True))
    metadata = Metadata("channel", grid, channels, frame_interval=0.1, attributes=attributes or {})
    x = torch.arange(nx, dtype=torch.float64) * (PERIODS["x"] / nx)
    z = torch.arange(nz, dtype=torch.float64) * (PERIODS["z"] / nz)
    return RolloutPlan(metadata, trajectories, frames, (x, points, z), **options)


def cosine_points(n=17):
    return 1 - torch.cos(torch.linspace(0, math.pi, n, dtype=torch.float64))


def noise(plan, seed=0):
    shape = (plan.trajectories, plan.frames, len(plan.metadata.channels), *plan.shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The pure function.


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    axis=st.integers(-3, -1),
    seed=st.integers(0, 99),
)
def test_modes_add_up_to_the_mean_square(sizes, axis, seed):
    values = torch.randn(2, *sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    others = [each for each in (-3, -2, -1) if each != axis]
    total = line_spectrum(values, axis, others)
    assert total.shape == (2, sizes[axis] // 2 + 1)
    assert torch.allclose(total.sum(-1), values.square().mean((1, 2, 3)))
    kept = line_spectrum(values, axis, others[:1])
    remaining = tuple(each + 4 for each in (axis, others[0]))
    assert torch.allclose(kept.sum(-1), values.square().mean(remaining))


@pytest.mark.parametrize("n", [7, 8])
def test_each_wave_has_its_own_mode(n):
    x = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    for wave in range(n // 2 + 1):
        spectrum = line_spectrum(3 * torch.cos(wave * x + 0.4), -1)
        at_ends = wave == 0 or 2 * wave == n  # the mean and Nyquist's wave: the phase sets what points see
        expected = torch.zeros(n // 2 + 1, dtype=torch.float64)
        expected[wave] = 9 * math.cos(0.4) ** 2 if at_ends else 4.5
        assert torch.allclose(spectrum, expected, atol=1e-12)


@pytest.mark.parametrize("n", [9, 12])
def test_spectrum_agrees_with_numpy(n):
    values = torch.randn(3, 5, n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    full = np.abs(np.fft.fft(values.numpy(), axis=2) / n) ** 2
    expected = np.stack(
        [full[:, :, j] if j in (0, n / 2) else full[:, :, j] + full[:, :, -j] for j in range(n // 2 + 1)], -1
    )
    assert np.allclose(line_spectrum(values, -2), expected)
    assert np.allclose(line_spectrum(values, -2, [-1]), expected.mean(2))
    assert np.allclose(line_spectrum(values, -2, [-1, -3]), expected.mean((1, 2)))


def test_half_precision_is_transformed_in_single():
    values = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    spectrum = line_spectrum(values, -1)
    assert spectrum.dtype == torch.float64
    assert torch.allclose(spectrum.sum(-1), values.double().square().mean(-1))


@pytest.mark.parametrize(("axis", "average"), [(-1, [-1]), (0, []), (-1, [1]), (-4, []), (-1, [-2, -2])])
def test_axes_that_do_not_fit_are_refused(axis, average):
    with pytest.raises(ValueError, match="Expected different axes"):
        line_spectrum(torch.zeros(2, 3, 4), axis, average)


# Planes.


def geometry_of(points, **options):
    return ChannelGeometry.of(channel_plan(points, **options), "a test")


def test_planes_are_the_nearest_of_each_half_and_never_a_wall():
    geometry = geometry_of(torch.linspace(0, 2, 11, dtype=torch.float64))
    assert nearest_planes(geometry, [0.0, 0.05, 0.29, 0.31, 1.0]).tolist() == [[1, 9], [2, 8], [5, 5]]
    even_number = geometry_of(torch.linspace(0, 2, 10, dtype=torch.float64))
    assert nearest_planes(even_number, [1.0]).tolist() == [[4, 5]]
    cells = geometry_of((torch.arange(10, dtype=torch.float64) + 0.5) / 5, locations=("cell",) * 3)
    assert nearest_planes(cells, [0.0]).tolist() == [[0, 9]]


def test_default_planes_are_in_wall_units_where_the_friction_is_known():
    points = cosine_points(129)
    plan = channel_plan(points)
    distances = LineSpectrumMetric(plan).coordinates["plane_distance"].values
    assert distances.tolist() == pytest.approx([points[1].item(), 0.25, 0.5, 1.0], abs=0.01)
    known = LineSpectrumMetric(channel_plan(points, attributes={"friction_reynolds_number": 178.12}))
    by_hand = LineSpectrumMetric(plan, friction_reynolds_number=178.12)
    assert torch.equal(known.planes, by_hand.planes)
    wall_units = 178.12 * by_hand.coordinates["plane_distance"].values
    # Half of the local spacing is the most that the nearest plane can be off.
    assert wall_units.tolist() == pytest.approx([5, 15, 30, 100, 178.12], abs=2.2)
    assert wall_units[:2].tolist() == pytest.approx([5, 15], abs=0.8)
    low = LineSpectrumMetric(plan, friction_reynolds_number=50.0)
    assert len(low.planes) == 4  # 100 wall units are beyond the middle


@pytest.mark.parametrize(
    ("distances", "unit", "reynolds"),
    [([0.1, 1.0], "half_height", None), ([0.2, 2.0], "axis", None), ([18, 180], "wall", 180)],
)
def test_distances_may_be_given_in_three_units(distances, unit, reynolds):
    metric = LineSpectrumMetric(channel_plan(2 * cosine_points(41)), distances, unit, reynolds)
    assert metric.coordinates["plane_distance"].values.tolist() == pytest.approx([0.2, 2.0], abs=0.05)


# The metric.


def random_phases(plan, plane, generator):
    """Velocity ``(3, nx, nz)`` with the spectra of the tables, along x and z at once, and random phases."""
    fields = []
    nx, nz = plan.shape[0], plan.shape[2]
    x, z = (torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) for n in (nx, nz))
    for name in ("E_uu", "E_vv", "E_ww"):
        along_x, along_z = (torch.tensor(plane[axis][name], dtype=torch.float64) for axis in "xz")
        energy = along_x[:, None] * along_z / (along_x.sum() * along_z.sum()).sqrt()
        phase = 2 * math.pi * torch.rand(energy.shape, generator=generator, dtype=torch.float64)
        # Waves cos(j x + k z + phase) with j, k >= 0 are orthogonal; that with j = k = 0 is handled by the caller.
        amplitude = (2 * energy).sqrt().to(torch.complex128) * torch.exp(1j * phase)
        amplitude[0, 0] = 0
        waves_x, waves_z = (torch.exp(1j * torch.outer(line, torch.arange(64))) for line in (x, z))
        field = (waves_x @ amplitude @ waves_z.T).real
        fields.append((field, energy[0, 0].sqrt()))
    return torch.stack([field for field, _ in fields]), torch.stack([mean for _, mean in fields])


def test_random_phases_with_the_spectra_of_the_tables_give_them_back():
    heights = [TABLE["spectra"][name]["y"] for name in ("5.34", "19.02", "98.04")]
    points = torch.tensor([0.0, *heights, 1.0, *(2 - y for y in reversed(heights)), 2.0], dtype=torch.float64)
    plan = channel_plan(points, nx=128, nz=128, trajectories=1, frames=2)
    generator = torch.Generator().manual_seed(4)
    profile = torch.tensor([0, 5.1, 12.1, 17.1, 18.3, 17.1, 12.1, 5.1, 0], dtype=torch.float64)
    target = torch.zeros(1, 2, 3, *plan.shape, dtype=torch.float64)
    target[:, :, 0] += profile[:, None]
    for row, plane in enumerate(TABLE["spectra"].values(), start=1):
        for side in (row, 8 - row):
            field, mean = random_phases(plan, plane, generator)
            # What is constant over a plane can only vary in time: up in one frame, down in the next.
            for frame, sign in enumerate((1, -1)):
                target[0, frame, :, :, side] += field + sign * mean[:, None, None]
    metric = LineSpectrumMetric(plan, heights, unit="axis")
    found = measure(metric, target, target)
    assert metric.coordinates["plane_distance"].values.tolist() == pytest.approx(heights)
    profiles = measure(ChannelMetric(plan), target, target)["rms_velocity_profile_truth"]
    for axis in "xz":
        spectra = found[f"line_spectrum_{axis}_truth"]
        waves = metric.coordinates[f"line_wavenumber_{axis}"].values
        assert torch.allclose(waves[:64], torch.tensor(TABLE["spectra"]["5.34"][axis]["wavenumber"]).double())
        for row, plane in enumerate(TABLE["spectra"].values()):
            for component, name in enumerate(("E_uu", "E_vv", "E_ww")):
                table = torch.tensor(plane[axis][name], dtype=torch.float64)
                # The sums along x and z agree to five digits in the tables, so the two cannot be met any closer.
                assert torch.allclose(spectra[component, row, :64], table, rtol=2e-5), (axis, row, name)
                assert spectra[component, row, 64].item() == pytest.approx(0.0, abs=1e-12)
        assert spectra[0, 1].sum().item() == pytest.approx(6.686, abs=1e-3)
        # Parseval: the modes add up to the variance that the profiles show.
        assert torch.allclose(spectra.sum(-1), profiles[:, 1:4].square(), rtol=1e-6)
        assert found[f"line_spectral_distance_{axis}"].abs().max().item() == 0.0


def test_distance_tells_by_how_many_powers_of_ten_the_energy_is_off():
    plan = channel_plan(cosine_points())
    target = noise(plan)
    mean = torch.linspace(1, 3, 17, dtype=torch.float64)[:, None]
    found = measure(LineSpectrumMetric(plan), mean + math.sqrt(10) * target, 2 * mean + target)
    for axis in "xz":
        distance = found[f"line_spectral_distance_{axis}"]
        assert torch.allclose(distance, torch.ones_like(distance))
        assert found[f"line_spectral_distance_{axis}_standard_error"].max().item() < 1e-9
        assert torch.allclose(found[f"line_spectrum_{axis}_prediction"], 10 * found[f"line_spectrum_{axis}_truth"])


def test_both_walls_count_alike_each_about_its_own_mean():
    plan = channel_plan(cosine_points(), trajectories=1, frames=1)
    x = plan.coordinates[0][:, None]
    target = torch.zeros(1, 1, 3, *plan.shape, dtype=torch.float64)
    target[0, 0, 0, :, 1] = 5 + 2 * torch.cos(0.5 * x)
    target[0, 0, 0, :, 15] = -3 + 4 * torch.cos(1.0 * x)
    found = measure(LineSpectrumMetric(plan, [0.0]), target, target)
    spectrum = found["line_spectrum_x_truth"][0, 0]
    assert spectrum.tolist() == pytest.approx([0, 1, 4, 0, 0], abs=1e-9)
    assert found["line_spectrum_z_truth"][0, 0].tolist() == pytest.approx([5, 0, 0, 0], abs=1e-9)


def test_what_varies_between_frames_is_energy_of_mode_zero():
    plan = channel_plan(cosine_points(), trajectories=2, frames=2)
    level = torch.tensor([[1.0, 2.0], [4.0, 9.0]], dtype=torch.float64)
    target = level[:, :, None, None, None, None].expand(2, 2, 3, *plan.shape)
    found = measure(LineSpectrumMetric(plan), target, target)
    spectrum = found["line_spectrum_x_truth"]
    assert torch.allclose(spectrum[..., 0], level.var(correction=0))
    assert spectrum[..., 1:].abs().max().item() < 1e-12


def test_error_bars_are_those_of_trajectories():
    plan = channel_plan(cosine_points(), trajectories=9, frames=2)
    target = noise(plan)
    found = measure(LineSpectrumMetric(plan, [0.0]), target, target)
    planes = target[:, :, :, :, [1, 15]]
    energy = line_spectrum(planes, -3, [-1]).mean((1, 3))[..., 1:]
    assert torch.allclose(found["line_spectrum_x_truth"][:, 0, 1:], energy.mean(0))
    assert torch.allclose(found["line_spectrum_x_truth_standard_error"][:, 0, 1:], energy.std(0) / 3)


def plane_plan(nx=8, names=("temperature",), period=2.0, walls_first=True):
    axes = (Axis("x"), Axis("y", period=period, units="m"))
    grid = Grid(axes if walls_first else axes[::-1])
    metadata = Metadata("plane", grid, tuple(Channel(name, units="K") for name in names), frame_interval=0.1)
    lines = (cosine_points(9), torch.arange(nx, dtype=torch.float64) * (period / nx))
    return RolloutPlan(metadata, 2, 3, lines if walls_first else lines[::-1])


@pytest.mark.parametrize("walls_first", [True, False])
def test_plane_data_of_any_fields_have_a_spectrum(walls_first):
    plan = plane_plan(nx=7, walls_first=walls_first)
    target = noise(plan)
    metric = LineSpectrumMetric(plan, [1.0])
    found = measure(metric, target, target)
    middle = target.select(3 if walls_first else 4, 4)
    expected = line_spectrum(middle, -1).mean((0, 1))
    mean = middle.mean((0, 1, 3))
    expected[..., 0] -= mean.square()
    assert torch.allclose(found["line_spectrum_y_truth"][:, 0], expected)
    assert metric.variables["line_spectrum_y_truth"].units == "(K)^2"
    assert list(metric.scores) == ["line_spectral_distance_y"]


@pytest.fixture
def small():
    return channel_plan(cosine_points(9), trajectories=3, frames=4)


def test_results_do_not_depend_on_batches_blocks_or_processes(small):
    prediction, target = noise(small), noise(small, 1)
    whole = measure(LineSpectrumMetric(small), prediction, target)
    parted = measure(LineSpectrumMetric(small), prediction, target, batch=2, length=3)
    parts = []
    for numbers in ([2], [], [1, 0]):
        metric = pickle.loads(pickle.dumps(LineSpectrumMetric(small)))
        if numbers:
            metric.update(block_of(small, prediction[numbers], target[numbers], 0, numbers))
        parts.append(metric)
    joined = LineSpectrumMetric(small)
    for name, reduce in joined._reductions.items():
        setattr(joined, name, reduce(torch.stack([getattr(part, name) for part in parts])))
    joined._update_count = 1
    for found in (parted, joined.compute()):
        assert found.keys() == whole.keys()
        assert all(torch.allclose(found[name], whole[name], rtol=1e-9) for name in whole)
    joined.reset()
    again = measure(joined, prediction, target)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_outputs_have_the_shapes_of_their_labels(small):
    metric = LineSpectrumMetric(small)
    found = measure(metric, noise(small), noise(small, 1))
    sizes = {"channel": 3, **{name: len(axis.values) for name, axis in metric.coordinates.items()}}
    assert found.keys() == metric.variables.keys()
    for name, variable in metric.variables.items():
        assert tuple(found[name].shape) == tuple(sizes[dim] for dim in variable.dims), name


def test_a_stopped_trajectory_leaves_the_spectra_of_what_came_before_and_no_distance(small):
    prediction, target = noise(small), noise(small, 1)
    found = measure(LineSpectrumMetric(small), prediction, target)
    prediction[0, 2:] = torch.nan
    stopped = measure(LineSpectrumMetric(small), prediction, target)
    for axis in "xz":
        assert torch.equal(stopped[f"line_spectrum_{axis}_truth"], found[f"line_spectrum_{axis}_truth"])
        assert stopped[f"line_spectrum_{axis}_prediction"].isfinite().all()
        assert stopped[f"line_spectral_distance_{axis}"].isnan().all()


def test_missing_frames_are_refused(small):
    metric = LineSpectrumMetric(small)
    metric.update(block_of(small, noise(small)[:, :3], noise(small)[:, :3]))
    with pytest.raises(ValueError, match="12 finite true frames"):
        metric.compute()


def test_updates_need_no_values_on_the_host(small):
    metric = LineSpectrumMetric(small).to("meta")
    fields = torch.zeros(3, 4, 3, *small.shape, device="meta")
    context = context_of(small, 3)
    context = context._replace(coordinates=tuple(points.to("meta") for points in context.coordinates))
    metric.update(block_of(small, fields, fields, 0, torch.arange(3, device="meta"), context))
    assert metric.device.type == "meta"


def test_single_precision_keeps_the_spectrum_of_a_fast_flow(small):
    target = noise(small)
    fast = measure(LineSpectrumMetric(small), (100 + 0.1 * target).float(), (100 + 0.1 * target).float())
    slow = measure(LineSpectrumMetric(small), 0.1 * target, 0.1 * target)
    for axis in "xz":
        # Fields near 100 are stored with steps of 8e-6, 1e-4 of the fluctuation.
        assert torch.allclose(fast[f"line_spectrum_{axis}_truth"], slow[f"line_spectrum_{axis}_truth"], rtol=1e-3)


def test_what_has_no_line_spectrum_is_refused(small, square):
    box = Metadata("box", square, (Channel("vorticity"),), frame_interval=0.1)
    cases = [
        (RolloutPlan(box, 1, 1, square.uniform_coordinates((8, 8))), {}, "exactly one axis"),
        (channel_plan(cosine_points(), locations=("face_x", "face_y", "face_z")), {}, "walls="),
        (channel_plan(cosine_points(), locations=("node", "face_y", "node")), {"walls": (0.0, 2.0)}, "same height"),
        (channel_plan(cosine_points(), locations=("face_y", "face_y", "face_y")), {"walls": (0.0, 2.0)}, "same height"),
        (channel_plan(cosine_points(), nz=3), {}, "four points along each periodic axis"),
        (small, {"wall_distances": [1.5]}, "within 0 to 1"),
        (small, {"wall_distances": []}, "within 0 to 1"),
        (small, {"wall_distances": [5.0], "unit": "wall"}, "friction_reynolds_number"),
        (small, {"wall_distances": [5.0], "unit": "inch"}, "'half_height', 'axis' or 'wall'"),
        (small, {"friction_reynolds_number": -180.0}, "positive friction"),
        (small, {"friction_reynolds_number": math.inf}, "positive friction"),
        (channel_plan(cosine_points(), attributes={"friction_reynolds_number": "high"}), {}, "'high'; correct"),
        (channel_plan(cosine_points(), attributes={"friction_reynolds_number": [180.0, 2.0]}), {}, "positive friction"),
        (small, {"channels": ["velocity_q"]}, "different channels among"),
        (small, {"channels": ["velocity_x", "velocity_x"]}, "different channels among"),
        (small, {"channels": []}, "different channels among"),
        (small, {"channels": "velocity_x"}, "different channels among"),
        (channel_plan(cosine_points(), masked=True), {}, "no mask"),
        (small, {"walls": (0.0, 9.0)}, "points in both halves"),
    ]
    for plan, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            LineSpectrumMetric(plan, **arguments)


def test_components_staggered_along_the_walls_are_as_good_as_any():
    plan = channel_plan((torch.arange(10, dtype=torch.float64) + 0.5) / 5, locations=("face_x", "cell", "face_z"))
    target = noise(plan)
    found = measure(LineSpectrumMetric(plan, [1.0]), target, target)
    expected = line_spectrum(target[:, :, :, :, 4:6], -3, [-1]).mean((0, 1, 3))
    assert torch.allclose(found["line_spectrum_x_truth"][:, 0, 1:], expected[:, 1:])


def test_the_friction_reynolds_number_may_be_text():
    number, text = (
        LineSpectrumMetric(channel_plan(cosine_points(129), attributes={"friction_reynolds_number": value}))
        for value in (180, "180")
    )
    assert torch.equal(number.planes, text.planes)
    assert len(text.planes) == 5, "wall units"


def test_chosen_channels_have_the_spectra_that_they_have_among_all(small):
    prediction, target = noise(small), noise(small, 1)
    whole = measure(LineSpectrumMetric(small), prediction, target)
    metric = LineSpectrumMetric(small, channels=["velocity_z", "velocity_x"])
    found = measure(metric, prediction, target)
    assert found.keys() == whole.keys() == metric.variables.keys()
    assert all(torch.allclose(found[name], whole[name][[2, 0]]) for name in whole)
    assert all(variable.dims[0] == "line_spectrum_channel" for variable in metric.variables.values())
    assert metric.coordinates["line_spectrum_channel"].values == ["velocity_z", "velocity_x"]
    every = LineSpectrumMetric(small, channels=["velocity_x", "velocity_y", "velocity_z"])
    assert every.variables == LineSpectrumMetric(small).variables


def test_by_default_channels_are_those_as_high_as_the_velocity():
    plan = channel_plan(cosine_points(9))
    further = (Channel("pressure", "Pa", location="cell"), Channel("temperature", "K"))
    plan = replace(plan, metadata=replace(plan.metadata, channels=plan.metadata.channels + further))
    metric = LineSpectrumMetric(plan)
    target = noise(plan)
    found = measure(metric, target, target)
    names = ["velocity_x", "velocity_y", "velocity_z", "temperature"]
    assert metric.coordinates["line_spectrum_channel"].values == names
    alone = measure(LineSpectrumMetric(plan, channels=["temperature"]), target, target)
    assert torch.allclose(found["line_spectrum_x_truth"][3:], alone["line_spectrum_x_truth"])
    # Without a velocity nothing says which height is meant.
    scalars = replace(plan.metadata, channels=further)
    with pytest.raises(ValueError, match="same height"):
        LineSpectrumMetric(replace(plan, metadata=scalars))

"""Shallow water: what rests, what is conserved, waves and balances that are known, and its place among simulators."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml

from pdesurrogate.data.archive import Archive
from pdesurrogate.evaluation.baselines import coarse_solver
from pdesurrogate.simulators.generation.cell_frames import CellAverages, Convertible
from pdesurrogate.simulators.generation.protocols import Bounded, Monitored, Placed, Start
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import GaussianRandomField
from pdesurrogate.simulators.recipe import generate, parse_recipe
from pdesurrogate.simulators.shallow_water import (
    DisturbedLake,
    GaussianHill,
    ShallowWater2d,
    SmoothWaves,
    WaterColumns,
)
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.resampled import Resampled

RECIPE = Path(__file__).parents[2] / "datasets" / "shallow_water_2d" / "recipe.yaml"
HILL = GaussianHill(height=0.4, width=0.15, center=(0.4, 0.6))
ISLAND = GaussianHill(height=1.3, width=0.15, center=(0.4, 0.6))


def solver(resolution=16, **changes):
    options = {"frame_interval": 0.1, "steps_per_frame": 8, "precision": "float64"}
    return ShallowWater2d(resolution, **{**options, **changes})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def averages(fields, factor):
    """Of blocks of cells."""
    return fields.unflatten(-1, (-1, factor)).mean(-1).unflatten(-2, (-1, factor)).mean(-2)


def random_state(batch=2, resolution=16, seed=0):
    """Smooth waves with a smooth flow through them."""
    parts = SmoothWaves(0.1).sample(3 * batch, (resolution, resolution), (1.0, 1.0), generator(seed))
    state = parts.reshape(batch, 3, resolution, resolution)
    state[:, 0] += 1
    return state


def columns(simulator, batch=2, **options):
    """Dam breaks in the simulator's box."""
    length = simulator.grid.periods[0]
    options = {"number": (1, 3), "radius": (0.06 * length, 0.14 * length), **options}
    return DisturbedLake(1.0, [WaterColumns(**options)]).start(simulator, batch, generator())


def totals(state):
    return state.double().mean((-2, -1))


# Rest


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("bathymetry", [HILL, ISLAND], ids=["hill", "island"])
def test_a_lake_at_rest_stays_at_rest_to_round_off(bathymetry, precision):
    lake = solver(32, bathymetry=bathymetry, precision=precision, steps_per_frame=16)
    rest = DisturbedLake(1.0).start(lake, 1, generator()).to(lake.dtype)
    assert bool((rest[:, 0] == 0).any()) == (bathymetry is ISLAND)
    later = lake.advance(rest, 200)
    torch.testing.assert_close(later, rest, rtol=0, atol=4 * torch.finfo(lake.dtype).eps)


def test_over_a_flat_bottom_rest_is_exact():
    lake = solver()
    rest = DisturbedLake(0.7).start(lake, 1, generator())
    assert torch.equal(lake.advance(rest, 50), rest)


def test_a_flat_bottom_at_any_height_is_as_good_as_none():
    class Raised:
        def cell_averages(self, shape, periods):
            return torch.full(tuple(shape), 0.3, dtype=torch.float64)

    state = random_state()
    expected = solver().advance(state, 20)
    torch.testing.assert_close(solver(bathymetry=Raised()).advance(state, 20), expected, rtol=0, atol=1e-13)


def test_the_hill_of_the_box_is_the_same_hill_on_any_grid():
    fine, coarse = (solver(cells, bathymetry=ISLAND).bottom for cells in (32, 16))
    torch.testing.assert_close(averages(fine, 2), coarse, rtol=0, atol=1e-15)
    x, y = (points - middle for points, middle in zip(solver(32).coordinates, ISLAND.center, strict=True))
    squared = (x - x.round()).square()[:, None] + (y - y.round()).square()
    expected = 1.3 * torch.exp(-squared / (2 * 0.15**2))
    torch.testing.assert_close(fine, expected, rtol=0, atol=1e-2)
    # The whole hill is there, though its foot reaches over the edge of the box.
    assert float(fine.mean()) == pytest.approx(1.3 * 2 * math.pi * 0.15**2, rel=1e-12)


# What is conserved


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-15), ("float32", 1e-7)])
@pytest.mark.parametrize("bathymetry", [None, HILL], ids=["flat", "hill"])
def test_volume_is_conserved_to_round_off(bathymetry, precision, tolerance):
    water = solver(bathymetry=bathymetry, precision=precision)
    state = columns(water).to(water.dtype)
    later = water.advance(state, 80)
    torch.testing.assert_close(totals(later)[:, 0], totals(state)[:, 0], rtol=tolerance, atol=0)
    assert float((later - state).abs().max()) > 0.3


def test_momentum_is_conserved_over_a_flat_bottom_and_a_hill_pushes():
    state = random_state()
    later = solver().advance(state, 80)
    torch.testing.assert_close(totals(later), totals(state), rtol=0, atol=1e-15)
    pushed = solver(bathymetry=HILL).advance(state, 80)
    assert float((totals(pushed) - totals(state))[:, 1:].abs().max()) > 1e-4


@pytest.mark.parametrize("start", [columns, lambda water: random_state()], ids=["columns", "waves"])
@pytest.mark.parametrize("bathymetry", [None, HILL], ids=["flat", "hill"])
def test_energy_never_grows(bathymetry, start):
    water = solver(bathymetry=bathymetry)
    state = start(water)
    energies = [water.diagnostics(state).energy]
    for _ in range(20):
        state = water.advance(state, 4)
        energies.append(water.diagnostics(state).energy)
    assert float(torch.stack(energies).diff(dim=0).max()) < 0


def test_columns_on_a_dry_bed_leave_no_negative_depth():
    for precision in ("float32", "float64"):
        water = solver(32, precision=precision, steps_per_frame=16)
        state = columns(water, height=(1.0, 1.0)).to(water.dtype)
        state[:, 0] -= 1
        lowest = []
        later = state
        for _ in range(40):
            later = water.advance(later, 2)
            lowest.append(later[:, 0].amin())
        assert float(torch.stack(lowest).min()) >= -(torch.finfo(water.dtype).eps ** 2)
        assert float((later[:, 0] > 1e-3).double().mean()) > 2 * float((state[:, 0] > 1e-3).double().mean())
        torch.testing.assert_close(totals(later)[:, 0], totals(state)[:, 0], rtol=1e-6, atol=0)
        water.require_stable(later)


def test_a_dry_cell_that_round_off_left_below_zero_does_no_harm():
    water = solver()
    state = columns(water) - torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)[:, None, None]
    below = torch.where(state == 0, -1e-20, state)
    torch.testing.assert_close(water.advance(below, 20), water.advance(state, 20), rtol=0, atol=1e-15)


# Waves and balances


def wave(resolution, direction, amplitude=1e-6):
    """A plane wave that travels in a direction, and what it is at any time: itself, moved."""
    water = solver(resolution, frame_interval=0.5, steps_per_frame=3 * resolution // 2, gravity=0.81)
    x, y = (points[:, None] if axis == 0 else points for axis, points in enumerate(water.coordinates))
    phase = 2 * math.pi * (direction[0] * x + direction[1] * y)
    waves = math.hypot(*direction)
    speed = math.sqrt(0.81)

    def at(time):
        surface = amplitude * torch.cos(phase - 2 * math.pi * waves * speed * time)
        return torch.stack([1 + surface, *(speed * part / waves * surface for part in direction)])[None]

    return water, at


@pytest.mark.parametrize("direction", [(0, 1), (1, 1)])
def test_small_waves_travel_at_the_speed_of_gravity_waves(direction):
    phases, errors = [], []
    for resolution in (32, 64, 128):
        water, at = wave(resolution, direction)
        later = water.advance(at(0.0), water.steps_per_frame)
        found, exact = (torch.fft.fft2(state[0, 0])[direction] for state in (later, at(0.5)))
        phases.append(float((found / exact).angle().abs()))
        errors.append(float((later - at(0.5))[0, 0].abs().mean()) / 1e-6)
    # The limiter flattens crests, so that the error in the mean falls a little slower than that of the phase.
    assert math.log2(phases[1] / phases[2]) > 1.8, phases
    assert math.log2(errors[1] / errors[2]) > 1.6, errors
    assert phases[2] < 0.01 * math.hypot(*direction) ** 3


def test_with_rotation_drag_and_hills_it_converges_in_second_order():
    options = {"bathymetry": GaussianHill(0.2, 0.25), "coriolis": 2.0, "drag": 0.5}
    start = random_state(1, 128)
    ends = {}
    for resolution in (16, 32, 64, 128):
        water = solver(resolution, steps_per_frame=resolution // 2, **options)
        ends[resolution] = averages(
            water.advance(averages(start, 128 // resolution), water.steps_per_frame), resolution // 16
        )
    errors = [float((ends[resolution] - ends[128]).abs().mean()) for resolution in (16, 32, 64)]
    assert errors[0] / errors[1] > 3, errors
    assert errors[1] / errors[2] > 3, errors


def test_a_uniform_flow_turns_with_the_inertial_frequency():
    errors = []
    for steps in (50, 100):
        water = solver(8, frame_interval=2 * math.pi / 3, steps_per_frame=steps, coriolis=3.0)
        state = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
        state[:, 0], state[:, 1] = 1.0, 0.3
        quarter = water.advance(state, steps // 2)  # half a turn
        torch.testing.assert_close(quarter[:, 1:], -state[:, 1:], rtol=0, atol=3e-3)
        later = water.advance(state, steps)
        errors.append(float((later - state).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    # To the right, where the parameter is positive.
    assert float(water.advance(state, 1)[0, 2, 0, 0]) < 0


def test_drag_slows_a_uniform_flow():
    water = solver(8, frame_interval=1.0, steps_per_frame=50, drag=0.7)
    state = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    state[:, 0], state[:, 2] = 2.0, 0.3
    later = water.advance(state, 50)
    expected = state * torch.tensor([1.0, 1.0, math.exp(-0.7)], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(later, expected, rtol=1e-4, atol=0)


def test_a_jet_in_geostrophic_balance_stays():
    changes = []
    for resolution in (16, 32, 64):
        water = solver(resolution, coriolis=5.0, frame_interval=0.5, steps_per_frame=2 * resolution)
        y = water.coordinates[1].expand(water.shape)
        depth = 1 + 0.1 * torch.sin(2 * math.pi * y)
        velocity = -0.1 * 2 * math.pi * torch.cos(2 * math.pi * y) / 5.0
        state = torch.stack([depth, depth * velocity, 0 * y])[None]
        changes.append(float((water.advance(state, water.steps_per_frame) - state).abs().mean()))
    without = solver(64, frame_interval=0.5, steps_per_frame=128).advance(state, 128) - state
    assert math.log2(changes[1] / changes[2]) > 1.7, changes
    assert changes[2] < 1e-2 * float(without.abs().mean())


# Symmetries


def turned(state):
    """By a quarter to the left: cells and vectors."""
    depth, along_x, along_y = state.rot90(1, (-2, -1)).unbind(1)
    return torch.stack([depth, -along_y, along_x], 1)


def mirrored(state):
    """x to -x."""
    return state.flip(-2) * torch.tensor([1.0, -1.0, 1.0], dtype=state.dtype)[:, None, None]


def test_it_commutes_with_translations_turns_and_mirrors():
    rotating, state = solver(coriolis=2.0), random_state()
    later = rotating.advance(state, 20)
    torch.testing.assert_close(
        rotating.advance(state.roll((3, 5), (-2, -1)), 20), later.roll((3, 5), (-2, -1)), rtol=0, atol=1e-14
    )
    torch.testing.assert_close(rotating.advance(turned(state), 20), turned(later), rtol=0, atol=1e-13)
    # A mirror turns the rotation round.
    other = solver(coriolis=-2.0).advance(mirrored(state), 20)
    torch.testing.assert_close(other, mirrored(later), rtol=0, atol=1e-13)


def test_units_of_length_and_time_do_not_matter():
    state = random_state()
    later = solver(coriolis=2.0).advance(state, 20)
    length, time = 5.0, 0.5
    scale = torch.tensor([length, length**2 / time, length**2 / time], dtype=torch.float64)[:, None, None]
    scaled = solver(
        length=length, frame_interval=0.1 * time, gravity=length / time**2, coriolis=2.0 / time, dry_depth=1e-6 * length
    )
    torch.testing.assert_close(scaled.advance(state * scale, 20), later * scale, rtol=1e-12, atol=1e-12)


def test_a_column_in_the_middle_stays_round():
    water = solver(64, frame_interval=0.15, steps_per_frame=32)
    middle = columns(water, 1, number=(1, 1), radius=(0.12, 0.12), place="middle")
    later = water.advance(middle, 32)
    torch.testing.assert_close(turned(later), later, rtol=0, atol=1e-13)
    x, y = (points - 0.5 for points in water.coordinates)
    radius = torch.hypot(x[:, None], y)
    ring = torch.histc(radius, 22, 0.0, 0.44).clamp(min=1)
    place = (radius / 0.02).long().clamp(max=22)

    def mean_over_rings(values):
        return torch.zeros(23, dtype=torch.float64).index_add_(0, place.flatten(), values.flatten())[:22] / ring

    depth = later[0, 0]
    inside = radius < 0.44
    # Nearly all that varies over the box does so from ring to ring.
    within = (depth - mean_over_rings(depth)[place.clamp(max=21)])[inside].std()
    assert float(within) < 0.12 * float(depth[inside].std())
    outward = later[0, 1] * x[:, None] + later[0, 2] * y
    around = later[0, 2] * x[:, None] - later[0, 1] * y
    assert float(around.abs().mean()) < 0.02 * float(outward.abs().mean())


# A stepper and a simulator


def test_a_step_is_so_many_time_steps_and_may_be_interrupted():
    water, state = solver(bathymetry=HILL, coriolis=1.0), random_state()
    later = water.step(state[:, None], water.context(2))
    assert later.shape == (2, 1, 3, 16, 16)
    assert torch.equal(later[:, 0], water.advance(state, 8))
    assert torch.equal(water.advance(water.advance(state, 3), 5), later[:, 0])
    assert torch.equal(water.advance(state, 0), state)


def test_trajectories_of_a_batch_do_not_see_each_other(monkeypatch):
    water, state = solver(bathymetry=HILL), random_state(5)
    together = water.advance(state, 20)
    single = torch.cat([water.advance(one, 20) for one in state.split(1)])
    torch.testing.assert_close(together, single, rtol=0, atol=1e-14)
    monkeypatch.setattr("pdesurrogate.simulators.finite_volumes._CELLS_AT_ONCE", 2 * 16**2 + 1)
    torch.testing.assert_close(water.advance(state, 20), together, rtol=0, atol=1e-14)


def test_it_computes_in_its_precision_and_answers_in_that_of_the_state():
    state = random_state()
    assert solver(precision="float32").advance(state, 4).dtype == torch.float64
    assert solver().advance(state.float(), 4).dtype == torch.float32
    torch.testing.assert_close(
        solver(precision="float32").advance(state, 4), solver().advance(state, 4), rtol=0, atol=1e-6
    )


def test_no_step_looks_at_values():
    """Or else a device would be waited for; tensors without values would be refused."""
    water = solver(bathymetry=HILL, coriolis=1.0, drag=0.1).to("meta")
    state = random_state().to("meta")
    assert water.step(state[:, None], water.context(2)).device.type == "meta"


@pytest.mark.parametrize("bathymetry", [None, HILL], ids=["flat", "hill"])
def test_its_derivative_is_that_of_differences(bathymetry):
    water = solver(8, bathymetry=bathymetry, coriolis=1.0, drag=0.1)
    state = random_state(1, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: water.advance(values, 2), state, fast_mode=True)


def test_it_says_what_it_is():
    water = solver(16, length=4.0, gravity=9.81, coriolis=1e-4, drag=0.1, precision="float32")
    assert isinstance(water, Placed)
    assert isinstance(water, Monitored)
    assert isinstance(water, Bounded)
    assert isinstance(water, Convertible)
    assert isinstance(DisturbedLake(), Start)
    stepper: Stepper = water
    assert stepper.history_frames == 1
    assert water.metadata.channel_names == ("depth", "discharge_x", "discharge_y")
    assert {channel.location for channel in water.channels + water.primitive_channels} == {"cell"}
    assert water.parameters_by_name == {"gravity": 9.81, "coriolis": 1e-4, "drag": 0.1}
    assert water.coordinates[1][:2].tolist() == [0.125, 0.375]
    context = water.context(3)
    assert context.coordinates[0].shape == (3, 16)
    assert "gravity=9.81" in repr(water)


def test_primitive_fields_are_velocities_of_what_is_averaged():
    water, state = solver(32), random_state(2, 32)
    frames = CellAverages(2, fields="primitive").on(water)
    primitive = frames.apply(state)
    assert [channel.name for channel in frames.channels] == ["depth", "velocity_x", "velocity_y"]
    torch.testing.assert_close(primitive[:, :1] * primitive[:, 1:], averages(state, 2)[:, 1:])
    dry = torch.zeros(1, 3, 4, 4)
    assert torch.equal(water.to_primitive(dry), dry)


def test_diagnostics_of_a_known_state():
    water = solver(8, length=2.0, gravity=4.0, bathymetry=None, steps_per_frame=10)
    state = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    state[:, 1], state[:, 2] = 0.6, -0.8
    found = {name: float(value) for name, value in water.diagnostics(state)._asdict().items()}
    assert found == pytest.approx(
        {
            "cfl_number": 0.01 / 0.25 * (0.6 + 0.8 + 2 * 2),
            "volume": 4.0,
            "discharge_x": 2.4,
            "discharge_y": -3.2,
            "energy": 4 * (0.5 + 2.0),
            "least_depth": 1.0,
            "froude_number": 0.5,
        }
    )
    raised = solver(8, length=2.0, gravity=4.0, bathymetry=GaussianHill(1.0, 0.3))
    lifted = float((raised.diagnostics(state).energy - water.diagnostics(state).energy)[0])
    assert lifted == pytest.approx(4.0 * float(raised.bottom.sum()) * 0.25**2)
    assert float(water.diagnostics(torch.zeros(1, 3, 8, 8)).froude_number) == 0


def test_states_it_cannot_go_on_from_are_refused():
    water, state = solver(16, frame_interval=1.0, steps_per_frame=20), random_state()
    with pytest.raises(
        ValueError, match=r"CFL number of at most 1 but trajectory \d of the batch has 1\.\d+; use time"
    ):
        water.require_stable(state)
    state[1, 0, 3, 3] = -0.1
    with pytest.raises(
        ValueError, match=r"Expected depths >= 0 but trajectory 1 of the batch has -0.1; use a time step"
    ):
        solver().require_stable(state)
    state[1, 0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="finite fields but those of trajectory 1 of the batch are not; start from"):
        solver().require_stable(state)
    solver().require_stable(state[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 15}, "even resolution of at least 8 but got 15"),
        ({"resolution": 6}, "even resolution of at least 8 but got 6"),
        ({"frame_interval": 0.0}, "positive frame_interval but got 0"),
        ({"length": -1.0}, "positive length but got -1"),
        ({"gravity": 0.0}, "positive gravity but got 0"),
        ({"dry_depth": 0.0}, "positive dry_depth but got 0"),
        ({"drag": -0.1}, "drag >= 0 but got -0.1"),
        ({"coriolis": math.nan}, "finite coriolis but got nan"),
        ({"steps_per_frame": 0}, "at least one step per frame but got 0"),
        ({"gravity": math.inf}, "finite positive gravity but got inf"),
        ({"frame_interval": math.inf}, "finite positive frame_interval but got inf"),
        ({"drag": 200.0}, r"time steps of at most 1 / drag, 0.005, but got 0.0125; use more steps_per_frame"),
        ({"drag": math.inf}, r"time steps of at most 1 / drag, 0, "),
        ({"coriolis": -100.0}, r"time steps of at most 1 / coriolis, 0.01, but got 0.0125"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        solver(**options)


def test_wrong_objects_and_fields_are_refused():
    class Rough:
        def cell_averages(self, shape, periods):
            return torch.full(tuple(shape), math.nan)

    with pytest.raises(ValueError, match=r"Expected a finite bottom \(16, 16\)"):
        solver(bathymetry=Rough())
    with pytest.raises(ValueError, match="positive width but got 0"):
        GaussianHill(1.0, 0.0)
    for action in (lambda state: solver().advance(state, 1), solver().diagnostics):
        with pytest.raises(ValueError, match=r"a depth and two discharges at \(16, 16\) but got \(3, 8, 8\); wrap"):
            action(torch.ones(1, 3, 8, 8))


# Where trajectories start


def test_columns_have_the_volume_of_cylinders():
    drawn = WaterColumns(number=(2, 2), radius=(0.4, 0.6), height=(0.5, 1.0)).sample(
        8, (64, 64), (5.0, 5.0), generator()
    )
    assert drawn.shape == (8, 1, 64, 64)
    volume = drawn.mean((-2, -1)) * 25
    assert float(volume.min()) > 2 * math.pi * 0.4**2 * 0.5 * 0.98
    assert float(volume.max()) < 2 * math.pi * 0.6**2 * 1.0 * 1.02
    middle = WaterColumns(radius=(0.5, 0.5), place="middle").sample(1, (64, 64), (5.0, 5.0), generator())[0, 0]
    assert float(middle.mean()) * 25 == pytest.approx(math.pi * 0.25, rel=3e-3)
    torch.testing.assert_close(middle, middle.rot90())
    assert float(middle[31:33, 31:33].min()) == 1.0


def test_the_number_of_columns_varies_and_they_cross_the_edges():
    drawn = WaterColumns(number=(1, 3), radius=(0.3, 0.3)).sample(32, (64, 64), (5.0, 5.0), generator())
    count = drawn.mean((-3, -2, -1)) * 25 / (math.pi * 0.09)
    torch.testing.assert_close(count, count.round(), rtol=0.02, atol=0)
    assert set(count.round().int().tolist()) == {1, 2, 3}
    assert float(drawn[:, :, 0].sum()) > 0
    assert torch.equal(WaterColumns(number=(1, 3)).sample(2, (8, 8), (1.0, 1.0), generator(3)),
                       WaterColumns(number=(1, 3)).sample(2, (8, 8), (1.0, 1.0), generator(3)))  # fmt: skip


def test_disturbances_add_up_above_the_bottom():
    lake = solver(32, bathymetry=ISLAND)
    waves = SmoothWaves(0.05, GaussianRandomField(alpha=3.0))
    state = DisturbedLake(1.0, [waves, WaterColumns(radius=(0.1, 0.1))]).start(lake, 2, generator())
    drawn = generator()
    surface = 1 + waves.sample(2, (32, 32), (1.0, 1.0), drawn)
    surface = surface + WaterColumns(radius=(0.1, 0.1)).sample(2, (32, 32), (1.0, 1.0), drawn)
    torch.testing.assert_close(state[:, :1], (surface - lake.bottom).clamp(min=0))
    assert float(state[:, 1:].abs().max()) == 0
    assert state.dtype == torch.float64


def test_wrong_starts_are_refused():
    with pytest.raises(ValueError, match=r"numbers of columns >= 1 that increase but got \(2, 1\)"):
        WaterColumns(number=(2, 1))
    with pytest.raises(ValueError, match=r"a positive radius from smallest to largest but got \(0.5, 0.3\)"):
        WaterColumns(radius=(0.5, 0.3))
    with pytest.raises(ValueError, match="'anywhere' or 'middle' but got 'left'"):
        WaterColumns(place="left")
    with pytest.raises(ValueError, match="positive deviation but got 0"):
        SmoothWaves(0)
    with pytest.raises(ValueError, match="finite level but got nan"):
        DisturbedLake(math.nan)
    with pytest.raises(ValueError, match="water above the bottom but the surface at -1 lies below"):
        DisturbedLake(-1.0).start(solver(), 1, generator())
    with pytest.raises(ValueError, match="Expected ShallowWater2d but got NavierStokes2d, which has no surface"):
        DisturbedLake().start(NavierStokes2d(8, 0.1, 0.1, 1), 1, generator())


# Data sets


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Of the recipe that comes with the package, on few cells."""
    values = yaml.safe_load(RECIPE.read_text())
    values["simulator"]["init_args"].update(resolution=32, steps_per_frame=8)
    values.update(trajectories={"train": 2, "val": 2, "test": 1}, frames=5)
    recipe, plain = parse_recipe(values)
    out = tmp_path_factory.mktemp("shallow_water")
    generate(recipe, plain, out)
    return Archive(out)


def test_a_small_version_of_the_recipe_gives_an_archive(archive):
    metadata = archive.metadata
    assert metadata.channel_names == ("depth", "discharge_x", "discharge_y")
    assert {channel.location for channel in metadata.channels} == {"cell"}
    for trajectory in archive.trajectories("train"):
        frames = trajectory.read(0, 5)
        assert frames.shape == (5, 3, 16, 16)
        volume = totals(frames)[:, 0]
        torch.testing.assert_close(volume, volume[:1].expand(5), rtol=2e-8, atol=0)
        assert float(totals(frames)[:, 1:].abs().max()) < 1e-7
        assert float((frames[1:, 0] - frames[:-1, 0]).abs().amax((-2, -1)).min()) > 0.05
    assert trajectory.context.coordinates[0][0] == pytest.approx(5 / 32)


def test_the_recipe_as_it_is_can_be_built():
    recipe, _ = parse_recipe(yaml.safe_load(RECIPE.read_text()))
    state = recipe.draw(2, generator())
    recipe.simulator.require_stable(state)
    assert recipe.stored_frames.apply(state).shape == (2, 3, 64, 64)
    # While the CFL number is below 1/2, depths are sure to stay positive.
    assert float(recipe.simulator.diagnostics(state).cfl_number.max()) < 0.5


def test_a_recipe_names_a_bottom_and_disturbances_by_class_path():
    values = yaml.safe_load(RECIPE.read_text())
    hill = {"height": 0.4, "width": 0.15, "center": [0.4, 0.6]}
    values["simulator"]["init_args"].update(
        resolution=16,
        length=1.0,
        bathymetry={"class_path": "pdesurrogate.simulators.shallow_water.GaussianHill", "init_args": hill},
    )
    del values["initial_condition"]["init_args"]["disturbances"], values["reduction"]
    recipe, _ = parse_recipe(values)
    torch.testing.assert_close(recipe.simulator.bottom, solver(bathymetry=HILL, precision="float32").bottom)
    expected = DisturbedLake(1.0).start(recipe.simulator, 1, generator())
    assert torch.equal(recipe.draw(1, generator()), expected)


def test_the_coarse_solver_is_a_baseline_of_its_data(archive):
    trajectories = list(archive.trajectories("val"))
    stepper, card = coarse_solver(trajectories, 16)
    frames = torch.stack([trajectory.read(0, 3) for trajectory in trajectories])
    context = ShallowWater2d(16, 0.15, 1, length=5.0).context(2)
    later = stepper.step(frames[:, 1:2], context)[:, 0]
    change = (frames[:, 2] - frames[:, 1]).norm()
    assert float((later - frames[:, 2]).norm()) < 0.4 * float(change)
    assert card.config["resolution"] == 16


def test_on_another_grid_it_runs_resampled():
    fine = solver(32, steps_per_frame=16)
    state = random_state(2, 32)
    context = fine.context(2)
    later = Resampled(solver(16), 16).step(state[:, None], context)
    expected = fine.step(state[:, None], context)
    assert later.shape == expected.shape
    change = (expected[:, 0] - state).norm()
    assert float((later - expected).norm()) < 0.1 * float(change)

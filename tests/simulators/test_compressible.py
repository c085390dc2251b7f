"""Compressible flow: what is conserved, symmetric, kept and refused; its starts, its recipe and its coarse solvers."""

from __future__ import annotations

import math

import pytest
import torch

from pdesurrogate.data.archive import Archive
from pdesurrogate.data.catalog import recipe_path
from pdesurrogate.evaluation.baselines import coarse_solver
from pdesurrogate.simulators.compressible.flow import Compressible2d
from pdesurrogate.simulators.compressible.start import RandomWaves
from pdesurrogate.simulators.finite_volumes import LARGEST_CFL
from pdesurrogate.simulators.generation.protocols import Bounded, Monitored, Placed
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.recipe import generate, load_recipe, parse_recipe
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import rollout

SIZE = 16
VISCOSITIES = [{}, {"shear_viscosity": 2e-3, "bulk_viscosity": 1e-3}]
"""Without and with."""


def solver(resolution=SIZE, **changes):
    return Compressible2d(
        resolution, **{"frame_interval": 0.1, "steps_per_frame": 10, "precision": "float64", **changes}
    )


def start(batch=2, mach_number=0.5, resolution=SIZE, seed=0):
    return RandomWaves(mach_number).start(solver(resolution), batch, torch.Generator().manual_seed(seed))


def blast(ratio, resolution=32, dtype=torch.float64):
    """High pressure in the middle of a box at rest."""
    x = (torch.arange(resolution, dtype=dtype) + 0.5) / resolution - 0.5
    inside = x[:, None].square() + x.square() < 0.01
    zero = torch.zeros(resolution, resolution, dtype=dtype)
    pressure = torch.where(inside, ratio, 1.0).to(dtype)
    return solver(resolution).to_conserved(torch.stack([zero + 1, zero, zero, pressure]))[None]


@pytest.mark.parametrize("viscosities", VISCOSITIES)
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 2e-15), ("float32", 2e-7)])
def test_mass_momentum_and_energy_are_conserved_to_round_off(viscosities, precision, tolerance):
    """The tolerance is relative to the sum of absolute values; float32 rounds each cell in each step."""
    flow = solver(precision=precision, **viscosities)
    state = start().to(flow.dtype)
    later = flow.advance(state, 20)
    assert (later - state).abs().amax() > 0.1
    drift = (later.double() - state.double()).sum((-2, -1)).abs() / state.double().abs().sum((-2, -1))
    assert float(drift.max()) < tolerance


@pytest.mark.parametrize("viscosities", VISCOSITIES)
def test_the_scheme_knows_no_direction_and_no_place(viscosities):
    flow, state = solver(**viscosities), start()

    def transposed(fields):
        return fields.transpose(-2, -1)[:, [0, 2, 1, 3]]

    def reflected(fields):
        return fields.flip(-2) * torch.tensor([1.0, -1.0, 1.0, 1.0]).double()[:, None, None]

    later = flow.advance(state, 10)
    for move in (transposed, reflected, lambda fields: transposed(reflected(fields))):
        assert torch.allclose(flow.advance(move(state), 10), move(later), rtol=0, atol=1e-13)
    shifted = flow.advance(state.roll((3, -5), (-2, -1)), 10)
    assert torch.allclose(shifted, later.roll((3, -5), (-2, -1)), rtol=0, atol=1e-13)


def test_units_do_not_matter():
    """Density, length and time in other units: the same flow."""
    state = start()
    density, length, time = 3.0, 0.5, 4.0
    speed = length / time
    factors = (density * torch.tensor([1.0, speed, speed, speed**2])).double()[:, None, None]
    other = solver(length=length, frame_interval=0.1 * time)
    expected = solver().advance(state, 10) * factors
    assert torch.allclose(other.advance(state * factors, 10), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_contact_at_rest_stays_as_it_is(axis, precision):
    flow = solver(precision=precision)
    state = torch.zeros(1, 4, SIZE, SIZE, dtype=flow.dtype)
    state[:, 3] = 1.7
    state[:, 0] = 1.0
    state[:, 0].narrow(axis, 3, 6).fill_(0.01)
    assert torch.equal(flow.advance(state, 50), state)


def test_uniform_flow_stays_uniform():
    flow = solver(**VISCOSITIES[1])
    state = flow.to_conserved(torch.tensor([1.3, 0.7, -0.4, 0.9]).double()[:, None, None].expand(4, SIZE, SIZE))[None]
    assert torch.allclose(flow.advance(state, 50), state, rtol=1e-14, atol=0)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("ratio", [1e1, 1e3, 1e5])
def test_density_and_pressure_stay_positive_through_a_blast(ratio, precision):
    """At a CFL number just below the limit, found anew for each step; energy is conserved all the while."""
    state = blast(ratio).to(torch.float32 if precision == "float32" else torch.float64)
    energy, time = state[:, 3].double().sum(), 0.0
    while time < 0.2 / math.sqrt(ratio):
        step = 0.95 * LARGEST_CFL / float(solver(32, frame_interval=1.0, steps_per_frame=1).cfl_number(state))
        flow = solver(32, frame_interval=step, steps_per_frame=1, precision=precision)
        state, time = flow.advance(state, 1), time + step
        found = flow.diagnostics(state)
        assert float(found.least_density) > 0
        assert float(found.least_pressure) > 0
    assert float(found.mach_number) > 1 or ratio < 100
    assert float(state[:, 3].double().sum() / energy) == pytest.approx(1, rel=1e-6 if precision == "float32" else 1e-13)


def test_random_waves_stay_stable_up_to_the_stated_limit():
    """Their kinetic energy falls, as nothing feeds it but the pressure."""
    state = start(mach_number=0.5, resolution=32)
    flow = solver(32, frame_interval=1.0, steps_per_frame=136)
    before = flow.diagnostics(state)
    later = flow.advance(state, 136)
    found = flow.diagnostics(later)
    assert 0.9 < float(before.cfl_number.max()) < LARGEST_CFL
    assert bool((found.kinetic_energy < before.kinetic_energy).all())
    flow.require_stable(later)


def test_step_advances_by_one_frame_and_steps_add_up():
    flow, state = solver(), start()
    frame = flow.step(state.unsqueeze(1), flow.context(2))
    assert frame.shape == (2, 1, 4, SIZE, SIZE)
    assert torch.equal(frame[:, 0], flow.advance(state, 10))
    assert torch.equal(flow.advance(flow.advance(state, 4), 6), frame[:, 0])
    assert torch.equal(flow.advance(state, 0), state)
    blocks = torch.cat(list(rollout(flow, state.unsqueeze(1), flow.context(2), frames=2)), dim=1)
    assert torch.equal(blocks[:, 0], frame[:, 0])


def test_a_batch_is_its_members_one_by_one(monkeypatch):
    flow, state = solver(**VISCOSITIES[1]), start(batch=5)
    together = flow.advance(state, 10)
    alone = torch.cat([flow.advance(member, 10) for member in state.split(1)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-14)
    monkeypatch.setattr("pdesurrogate.simulators.finite_volumes._CELLS_AT_ONCE", 2 * SIZE**2)
    assert torch.allclose(flow.advance(state, 10), alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("channel", [0, 3])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_member_that_is_not_positive_becomes_nan_and_no_other(channel, steps):
    flow, state = solver(), start(batch=3)
    expected = flow.advance(state, steps)
    state[1, channel, 4, 5] = -0.1
    later = flow.advance(state, steps)
    assert bool(later[1].isnan().all())
    assert torch.equal(later[[0, 2]], expected[[0, 2]])


def test_a_flow_that_outruns_its_time_step_becomes_nan():
    flow = solver(frame_interval=1.0, steps_per_frame=4)
    assert bool(flow.advance(start(), 40).isnan().all())


def test_single_precision_follows_double():
    state = start()
    error = solver(precision="float32").advance(state.float(), 10) - solver().advance(state, 10)
    assert error.dtype == torch.float64
    assert float(error.abs().max()) < 3e-6


def test_precision_of_the_input_is_that_of_the_output():
    state = start().float()
    assert solver().advance(state, 1).dtype == torch.float32
    assert torch.equal(solver().advance(state, 3), solver().advance(state.double(), 3).float())


@pytest.mark.parametrize("viscosities", VISCOSITIES)
def test_a_frame_can_be_differentiated_both_ways(viscosities):
    flow, state = solver(**viscosities), start(batch=1)
    direction, weights = (torch.randn(state.shape, generator=torch.Generator().manual_seed(s)).double() for s in (1, 2))
    tangent = torch.func.jvp(lambda s: flow.advance(s, 3), (state,), (direction,))[1]
    step = 1e-7
    difference = (flow.advance(state + step * direction, 3) - flow.advance(state - step * direction, 3)) / (2 * step)
    # Limiters have kinks: a few cells may lie within the step of one.
    assert float((tangent - difference).abs().quantile(0.99)) < 1e-6 * float(tangent.abs().max())
    state.requires_grad_()
    (flow.advance(state, 3) * weights).sum().backward()
    assert float((state.grad * direction).sum()) == pytest.approx(float((weights * tangent).sum()), rel=1e-10)


def test_the_input_is_left_alone():
    state = start()
    before = state.clone()
    solver().advance(state, 2)
    assert torch.equal(state, before)


def test_primitive_fields_and_back():
    state = start()
    primitive = solver().to_primitive(state)
    assert torch.allclose(primitive[:, 1] * primitive[:, 0], state[:, 1])
    assert torch.allclose(solver().to_conserved(primitive), state, rtol=1e-13)
    blocks = solver().to_primitive(state[:, None, :, :4, :8])  # any axes in front, any number of cells
    assert torch.equal(blocks[:, 0], primitive[..., :4, :8])


def test_diagnostics_are_those_of_the_fields():
    flow, state = solver(shear_viscosity=0.03, bulk_viscosity=0.01, length=2.0), start()
    density, u, v, pressure = flow.to_primitive(state).unbind(1)
    found = flow.diagnostics(state.float())
    assert found.mass.tolist() == pytest.approx([4.0, 4.0], rel=1e-6)
    assert found.momentum_y.tolist() == pytest.approx((4 * state[:, 2].mean((-2, -1))).tolist(), abs=1e-6)
    assert found.energy.tolist() == pytest.approx((4 * state[:, 3].mean((-2, -1))).tolist(), rel=1e-6)
    kinetic = 4 * (density * (u**2 + v**2) / 2).mean((-2, -1))
    assert found.kinetic_energy.tolist() == pytest.approx(kinetic.tolist(), rel=1e-6)
    assert found.least_pressure.tolist() == pytest.approx(pressure.amin((-2, -1)).tolist(), rel=1e-5)
    sound = (5 / 3 * pressure / density).sqrt()
    assert found.mach_number.tolist() == pytest.approx((torch.hypot(u, v) / sound).amax((-2, -1)).tolist(), rel=1e-5)
    spacing = 2.0 / SIZE
    rate = (u.abs() + v.abs() + 2 * sound) / spacing + 4 * (4 / 3 * 0.03 + 0.01) / density / spacing**2
    assert found.cfl_number.tolist() == pytest.approx((0.01 * rate.amax((-2, -1))).tolist(), rel=1e-5)


def test_unstable_states_are_refused():
    flow, state = solver(), start()
    flow.require_stable(state)
    for channel, name in ((0, "density"), (3, "pressure")):
        bad = state.clone()
        bad[1, channel, 2, 3] = -1.0
        with pytest.raises(
            ValueError, match=f"Expected a positive {name} but that of trajectory 1 of the batch falls to"
        ):
            flow.require_stable(bad)
    with pytest.raises(ValueError, match=r"Expected a positive density but that of trajectory 0 .* falls to nan"):
        flow.require_stable(state * torch.nan)
    slow = solver(steps_per_frame=1)
    with pytest.raises(ValueError, match="Expected a CFL number of at most 1 but trajectory") as refusal:
        slow.require_stable(state)
    wanted = float(str(refusal.value).split("at most ")[2].split(" in")[0])
    solver(steps_per_frame=math.ceil(0.1 / wanted * 1.001)).require_stable(state)


def test_what_does_not_fit_is_refused():
    for shape in ((2, 3, SIZE, SIZE), (2, 4, SIZE, SIZE // 2), (2, 4, 2 * SIZE, 2 * SIZE)):
        with pytest.raises(
            ValueError, match=r"two momenta and energy at \(16, 16\) but got .*wrap the solver in Resampled"
        ):
            solver().advance(torch.ones(shape), 1)
    with pytest.raises(ValueError, match="wrap the solver in Resampled"):
        solver().diagnostics(torch.ones(2, 4, 8, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 9}, "even resolution of at least 8 but got 9"),
        ({"resolution": 6}, "even resolution of at least 8 but got 6"),
        ({"frame_interval": 0.0}, "positive frame_interval and length but got 0.0 and 1.0"),
        ({"length": -1.0}, "positive frame_interval and length"),
        ({"length": math.nan}, "positive frame_interval and length"),
        ({"frame_interval": math.inf}, "finite positive frame_interval and length but got inf"),
        ({"steps_per_frame": 0}, "at least one step per frame but got 0"),
        ({"gamma": 1.0}, "gamma, the ratio of the heat capacities, above 1 but got 1.0"),
        ({"gamma": math.inf}, "a finite gamma, the ratio of the heat capacities, above 1 but got inf"),
        ({"shear_viscosity": math.inf}, "finite viscosities >= 0 but got inf"),
        ({"shear_viscosity": -1e-3}, "viscosities >= 0 but got -0.001 and 0.0"),
        ({"bulk_viscosity": math.nan}, "viscosities >= 0 but got 0.0 and nan"),
    ],
)
def test_bad_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        solver(**{"resolution": SIZE, **changes})


def test_the_solver_says_what_it_steps():
    flow = solver(length=2.0, shear_viscosity=0.2, bulk_viscosity=0.1)
    assert isinstance(flow, Placed)
    assert isinstance(flow, Monitored)
    assert isinstance(flow, Bounded)
    assert flow.metadata.channel_names == ("density", "momentum_x", "momentum_y", "energy")
    assert [channel.vector for channel in flow.channels] == ["", "momentum", "momentum", ""]
    assert {channel.location for channel in flow.channels} == {"cell"}
    assert flow.metadata.frame_interval == 0.1
    assert flow.parameters_by_name == {"gamma": 5 / 3, "shear_viscosity": 0.2, "bulk_viscosity": 0.1}
    assert flow.coordinates[0].tolist() == [0.125 * i + 0.0625 for i in range(SIZE)]
    context = flow.context(3)
    assert [tuple(points.shape) for points in context.coordinates] == [(3, SIZE), (3, SIZE)]
    assert "resolution=16, gamma=1.66667" in repr(flow)


def test_random_waves_have_the_stated_means_and_mach_number():
    simulator = solver(32, length=3.0, gamma=1.4)
    condition = RandomWaves(0.4, 3, density_deviation=(0.1, 0.1), pressure_deviation=(0.0, 0.3))
    state = condition.start(simulator, 50, torch.Generator().manual_seed(0))
    assert state.dtype == torch.float64
    density, u, v, pressure = simulator.to_primitive(state).unbind(1)
    everywhere = (-2, -1)
    assert torch.allclose(density.mean(everywhere), torch.ones(50).double(), atol=1e-14)
    assert torch.allclose(pressure.mean(everywhere), torch.full((50,), 1 / 1.4).double(), atol=1e-14)
    assert torch.allclose((u**2 + v**2).mean(everywhere).sqrt(), torch.full((50,), 0.4).double(), atol=1e-14)
    assert torch.allclose(density.log().std(everywhere, correction=0), torch.full((50,), 0.1).double(), atol=1e-13)
    drawn = pressure.log().std(everywhere, correction=0)
    assert 0 <= float(drawn.min()) < 0.03
    assert 0.27 < float(drawn.max()) <= 0.3
    waves = torch.fft.fft2(u, norm="forward").abs().square().mean(0)
    numbers = torch.fft.fftfreq(32, 1 / 32).abs()
    held = ((numbers >= 1) & (numbers <= 3)).double()
    assert float((waves * (1 - held[:, None] * held)).sum() / waves.sum()) < 1e-28
    # Amplitudes |k|^(-1/2): waves (1, 1) have three times the mean square of waves (3, 3).
    assert float(waves[1, 1] / waves[3, 3]) == pytest.approx(3, rel=0.05)


def test_random_waves_are_the_same_fields_on_any_grid():
    coarse, fine = (start(resolution=size)[0] for size in (SIZE, 3 * SIZE))
    # The mean of an exponential over cells differs with their number, by as little as the waves are resolved.
    assert torch.allclose(fine[:, 1::3, 1::3], coarse, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(start(seed=1)[0], coarse, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mach_number": 0.0}, "positive mach_number but got 0.0"),
        ({"largest_wavenumber": 0}, "of at least 1 but got 0"),
        ({"density_deviation": (0.2, 0.1)}, r"density_deviation as two numbers 0 <= low <= high but got \(0.2, 0.1\)"),
        ({"pressure_deviation": (-0.1, 0.1)}, "pressure_deviation as two numbers"),
    ],
)
def test_bad_starts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomWaves(**{"mach_number": 0.3, **arguments})


def test_starts_that_do_not_fit_the_solver_are_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="Expected Compressible2d but got NavierStokes2d"):
        RandomWaves(0.3).start(NavierStokes2d(16, 1e-3, 0.1, 10), 1, generator)
    with pytest.raises(ValueError, match="at least four cells for a wave, 16 in all, but the solver has 8"):
        RandomWaves(0.3).start(solver(8), 1, generator)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The recipe on few cells and its files."""
    _, plain = load_recipe(recipe_path("compressible_2d"))
    arguments = {**plain["simulator"]["init_args"], "resolution": 32, "steps_per_frame": 8}
    plain = {**plain, "simulator": {**plain["simulator"], "init_args": arguments}, "frames": 3}
    plain["trajectories"] = {"train": 2, "val": 1, "test": 1}
    recipe, plain = parse_recipe(plain)
    out = tmp_path_factory.mktemp("compressible")
    return recipe, generate(recipe, plain, out)


def test_the_recipe_stores_averages_whose_means_are_conserved(tiny):
    recipe, files = tiny
    archive = Archive(files[0])
    assert archive.metadata.channel_names == recipe.simulator.metadata.channel_names
    assert archive.metadata.parameters == ("gamma", "shear_viscosity", "bulk_viscosity")
    assert archive.metadata.attributes["simulated_cells"] == [32, 32]
    trajectory = archive.trajectories("train")[1]
    assert trajectory.context.coordinates[0].tolist() == pytest.approx([(i + 0.5) / 16 for i in range(16)])
    frames = trajectory.read(0, 3)
    assert frames.shape == (3, 4, 16, 16)
    means = frames.double().mean((-2, -1))
    assert torch.allclose(means, means[:1].expand_as(means), rtol=0, atol=1e-7)
    assert float((frames[1] - frames[0]).norm() / frames[0].norm()) > 0.05


def test_a_run_leaves_a_log_of_what_is_conserved(tiny):
    _, files = tiny
    lines = files[0].with_name("train.log.csv").read_text().splitlines()
    assert lines[0].startswith("trajectory,step,time,cfl_number,mass,momentum_x,momentum_y,energy")
    assert len(lines) == 1 + 2 * 3
    assert [float(line.split(",")[4]) for line in lines[1:]] == pytest.approx([1.0] * 6, abs=1e-6)


def test_a_coarse_solver_steps_the_stored_frames(tiny):
    recipe, files = tiny
    trajectories = Archive(files[2]).trajectories("test")
    stepper, card = coarse_solver(trajectories, 16)
    assert isinstance(stepper, Resampled)
    assert card.config["steps_per_frame"] <= recipe.simulator.steps_per_frame
    frames = trajectories[0].read(0, 3).unsqueeze(0)
    context = recipe.simulator.context(1)._replace(coordinates=stepper.stepper.context(1).coordinates)
    found = stepper.step(frames[:, :1], context)
    change = float((frames[:, 1] - frames[:, 0]).norm())
    assert float((found[:, 0] - frames[:, 1]).norm()) < 0.3 * change

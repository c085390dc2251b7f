"""Taylor–Green vortices: an exact solution, its recipe, and what schemes that are not exact make of it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.data.archive import Archive
from pdesurrogate.data.catalog import recipe_path
from pdesurrogate.physics.operators import gradient, velocity_from_vorticity
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import TaylorGreen, taylor_green_vorticity
from pdesurrogate.simulators.recipe import block_generator, generate, load_recipe, parse_recipe
from pdesurrogate.simulators.time_schemes import ETDRK4, RK2CrankNicolson

BOX = (2 * math.pi, 2 * math.pi)


def mesh(points: int) -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    return axis[:, None], axis


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    wavenumber=st.integers(1, 10),
    shift=st.tuples(st.floats(0, 7), st.floats(0, 7)),
    time=st.floats(0, 10),
    viscosity=st.floats(0, 1),
)
def test_the_formula_solves_the_equation(wavenumber, shift, time, viscosity):
    x, y = mesh(32)
    field = taylor_green_vorticity(x - shift[0], y - shift[1], time, wavenumber, viscosity)
    velocity, slope = velocity_from_vorticity(field, BOX), gradient(field, BOX)
    advection = (velocity * slope).sum(0)
    laplacian = sum(gradient(slope[axis], BOX)[axis] for axis in (0, 1))
    # Round-off of sums of at most kappa^3 in size.
    scale = wavenumber**3
    assert float(advection.abs().max()) < 1e-12 * scale
    later = taylor_green_vorticity(x - shift[0], y - shift[1], time + 1.0, wavenumber, viscosity)
    torch.testing.assert_close(laplacian, -2 * wavenumber**2 * field, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(later, field * math.exp(-2 * viscosity * wavenumber**2), rtol=1e-12, atol=1e-300)
    assert float(velocity.norm(dim=0).max()) <= math.exp(-2 * viscosity * wavenumber**2 * time) + 1e-12


def test_times_and_wavenumbers_may_be_tensors():
    x, y = mesh(16)
    times, kappas = torch.tensor([0.0, 2.0]).double(), torch.tensor([1.0, 3.0]).double()
    fields = taylor_green_vorticity(x, y, times[:, None, None, None], kappas[:, None, None], 0.1)
    assert fields.shape == (2, 2, 16, 16)
    torch.testing.assert_close(fields[1, 1], taylor_green_vorticity(x, y, 2.0, 3, 0.1))
    assert taylor_green_vorticity(x.float(), y.float(), 1.0, 1, 0.1).dtype == torch.float32


@pytest.mark.parametrize("length", [1.0, 2 * math.pi])
def test_every_field_holds_one_wavenumber_and_all_occur_equally_often(length):
    fields = TaylorGreen([2, 3, 7]).sample(11, (24, 30), (length, length), seeded())[:, 0]
    amplitudes = torch.fft.fft2(fields, norm="forward").abs()
    found = [int(waves.diagonal()[:10].argmax()) for waves in amplitudes]
    assert sorted(found.count(n) for n in (2, 3, 7)) == [3, 4, 4]
    assert found != sorted(found)
    for n, waves in zip(found, amplitudes, strict=True):
        # Four waves (+-n, +-n) share 2 kappa; nothing else is there.
        expected = torch.zeros(24, 30, dtype=torch.float64)
        expected[[n, n, -n, -n], [n, -n, n, -n]] = math.pi * n / length
        torch.testing.assert_close(waves, expected, rtol=1e-12, atol=1e-12)


def test_shifts_make_fields_differ_and_none_gives_the_textbook():
    moved = TaylorGreen([2]).sample(20, (16, 16), BOX, seeded()).flatten(1)
    distances = torch.cdist(moved, moved).fill_diagonal_(1.0)
    assert float(distances.min()) > 0.1
    still = TaylorGreen([2], largest_shift=0.0).sample(1, (16, 16), BOX, seeded())
    torch.testing.assert_close(still[0, 0], taylor_green_vorticity(*mesh(16), 0.0, 2, 1e-3))


def test_the_solver_keeps_unstable_arrays_in_place():
    # Vortices of ten waves are unstable to longer ones; in double precision what round-off starts stays below 1e-11.
    start = TaylorGreen([10]).sample(2, (64, 64), BOX, seeded())
    end = NavierStokes2d(64, 1e-3, 5.5, 220, scheme=ETDRK4(), precision="float64").advance(start, 220)
    torch.testing.assert_close(end, start * math.exp(-2e-3 * 100 * 5.5), rtol=0, atol=20 * 1e-11)


@pytest.mark.parametrize("wavenumber", [1, 4])
def test_crank_nicolson_has_the_error_that_theory_gives(wavenumber):
    # (1 - z/2) / (1 + z/2) = exp(-z) (1 - z^3 / 12 + ...), z = rate dt: over time T the error is rate^3 dt^2 T / 12.
    viscosity, start = 0.02, taylor_green_vorticity(*mesh(32), 0.0, wavenumber, 0.0)[None, None]
    rate = 2 * viscosity * wavenumber**2
    for steps in (20, 40):
        solver = NavierStokes2d(32, viscosity, 1.0, steps, scheme=RK2CrankNicolson(), precision="float64")
        error = (solver.advance(start, steps) * math.exp(rate) - start).abs().max() / start.abs().max()
        assert float(error) == pytest.approx(rate**3 / steps**2 / 12, rel=2e-3)


def test_the_data_set_is_exact_to_the_precision_of_its_file(tmp_path):
    _, shipped = load_recipe(recipe_path("taylor_green"))
    plain = copy.deepcopy(shipped)
    plain["trajectories"] = {"train": 10, "val": 1, "test": 0}
    # The exponential integrator is exact at any step, and five times faster with this one.
    plain["simulator"]["init_args"]["steps_per_frame"] = 1
    recipe, plain = parse_recipe(plain)
    generate(recipe, plain, tmp_path)
    for split in ("train", "val"):
        trajectories = Archive(tmp_path).trajectories(split)
        generator = block_generator(recipe.seed, split, 0)
        starts = recipe.initial_condition.sample(len(trajectories), (64, 64), BOX, generator)
        for start, trajectory in zip(starts, trajectories, strict=True):
            kappa = int(torch.fft.fft2(start[0]).abs().diagonal()[:32].argmax())
            times = 4.525 + 0.025 * torch.arange(40, dtype=torch.float64)
            torch.testing.assert_close(trajectory.times.double(), times)
            exact = start * torch.exp(-2e-3 * kappa**2 * times)[:, None, None, None]
            # Rounding to the nearest float32, and the solver's own round-off of the test above.
            torch.testing.assert_close(trajectory.read().double(), exact, rtol=2.0**-24, atol=2 * kappa * 1e-11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wavenumbers": []}, "one or more wavenumbers"),
        ({"wavenumbers": [3, 0]}, "wavenumbers >= 1"),
        ({"largest_shift": 1.5}, "from 0 to 1"),
        ({"largest_shift": -0.1}, "from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TaylorGreen(**arguments)


def test_grids_that_cannot_hold_the_vortices_are_refused():
    assert TaylorGreen([10]).sample(1, (32, 32), BOX, seeded()).shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match=r"a third of the 30 points.*finer grid"):
        TaylorGreen([2, 10]).sample(1, (30, 64), BOX, seeded())
    with pytest.raises(ValueError, match="square box"):
        TaylorGreen().sample(1, (32, 32), (1.0, 2.0), seeded())

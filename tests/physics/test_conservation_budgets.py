"""Budgets along a rollout: exact contents of exact solutions, uncertainty that adds up, and what both do to a field."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.budgets import (
    Budget,
    at_all_times,
    boundary_inflow,
    compressible_flux,
    contents,
    contents_covariance,
    end_inflow,
    field_integrals,
    flow_balance,
)
from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Diagonal, LowRank
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows, quadrature_weights
from pdesurrogate.physics.gpme import LinearAdvection

seeds = st.integers(0, 2**31)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ contents


@settings(max_examples=20)
@given(times=st.integers(2, 12), rows=st.integers(1, 3), seed=seeds)
def test_step_by_step_equals_all_at_once(times, rows, seed):
    start, inflow = random(2, rows, seed=seed), random(2, times, rows, seed=seed + 1)
    lengths = random(times - 1, seed=seed + 2).exp()
    gained = random(times - 1, rows, seed=seed + 3).square()
    budget = Budget(start, torch.full((rows,), 0.5, dtype=torch.float64))
    together = contents(start, inflow, lengths)
    spread = contents_covariance(gained, budget.variance).diagonal(dim1=-2, dim2=-1).mT
    for number in range(times):
        torch.testing.assert_close(budget.content, together[:, number])
        torch.testing.assert_close(budget.variance, spread[number])
        if number < times - 1:
            budget = budget.after(inflow[:, number], inflow[:, number + 1], float(lengths[number]), gained[number])


@settings(max_examples=20)
@given(slope=st.floats(-3, 3), offset=st.floats(-3, 3), seed=seeds)
def test_inflow_that_is_linear_in_time_is_integrated_exactly(slope, offset, seed):
    time = torch.cat([torch.zeros(1), 0.1 + random(6, seed=seed).abs()]).cumsum(0).to(torch.float64)
    found = contents(torch.zeros(1), (offset + slope * time).unsqueeze(-1), time.diff())
    torch.testing.assert_close(found[:, 0], offset * time + slope * time.square() / 2)


def test_error_falls_with_the_square_of_the_interval():
    errors = []
    for count in (11, 21, 41):
        time = torch.linspace(0, 2, count, dtype=torch.float64)
        found = contents(torch.zeros(1), time.cos().unsqueeze(-1), 2 / (count - 1))
        errors.append(float((found[-1, 0] - math.sin(2)).abs()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


@settings(max_examples=20)
@given(times=st.integers(2, 9), q=st.floats(0.01, 10))
def test_covariance_of_equal_gains_is_the_smaller_number_of_intervals(times, q):
    number = torch.arange(times, dtype=torch.float64)
    found = contents_covariance(torch.full((times - 1, 1), q, dtype=torch.float64))
    torch.testing.assert_close(found[0], q * torch.minimum(number[:, None], number))


def test_covariance_is_that_of_drawn_walks():
    gained, start = random(4, 2).square(), random(2, seed=1).square()
    draws = 100_000
    gains = torch.cat([start.sqrt() * random(draws, 1, 2, seed=2), gained.sqrt() * random(draws, 4, 2, seed=3)], 1)
    for row in range(2):
        # Errors of as many draws.
        drawn = torch.cov(gains.cumsum(1)[..., row].T)
        torch.testing.assert_close(drawn, contents_covariance(gained, start)[row], rtol=0.03, atol=0.03)


# ------------------------------------------------------------------------------------------------ advection


@settings(max_examples=20)
@given(speed=st.floats(0.2, 2), seed=seeds)
def test_mass_of_an_advected_parabola_is_exact(speed, seed):
    # u = p(x - speed t) with a parabola p: the difference of the fluxes at the ends is linear in time.
    a, b, c = random(3, seed=seed).tolist()

    def profile(x):
        return a + b * x + c * x.square()

    def primitive(x):
        return a * x + b * x.square() / 2 + c * x**3 / 3

    time = torch.linspace(0, 1, 6, dtype=torch.float64)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64) - speed * time[:, None]
    inflow = end_inflow(speed * profile(ends).unsqueeze(-2))
    mass = (primitive(ends[:, 1]) - primitive(ends[:, 0])).unsqueeze(-1)
    torch.testing.assert_close(contents(mass[0], inflow, 0.2), mass, rtol=1e-12, atol=1e-12)


def test_flux_fed_mass_moves_a_late_front_forward():
    law, speed = LinearAdvection(), torch.tensor(1.0, dtype=torch.float64)
    time = torch.linspace(0, 0.4, 5, dtype=torch.float64)
    cells = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    # The front has not arrived at the outlet.
    mass = contents(torch.tensor([0.5]), torch.ones(5, 1), 0.1)
    torch.testing.assert_close(mass[:, 0], law.mass(time, speed))

    truth = law.solution(time[:, None], cells, speed)
    late = law.solution(0.8 * time[:, None], cells, speed)
    unsure = 0.01 + (-((cells - 0.5 - 0.9 * time[:, None]) / 0.05).square()).exp()
    constraint = LinearConstraint(DisjointRows(torch.full((200,), 1 / 200), event_ndim=1), mass)
    found = condition(late, Diagonal(unsure.square()), constraint).mean
    assert float(constraint.residual(found).abs().max()) < 1e-13
    # Of the last frame; nothing promises this of every prior.
    assert float((found - truth)[-1].square().mean()) < 0.7 * float((late - truth)[-1].square().mean())


# ------------------------------------------------------------------------------------------------ channel


def poiseuille(nx: int, ny: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    y = torch.linspace(0, 1, ny, dtype=torch.float64).square()
    lines = [quadrature_weights(torch.linspace(0, 4, nx, dtype=torch.float64)), quadrature_weights(y)]
    velocity = torch.zeros(2, nx, ny, dtype=torch.float64)
    velocity[0] = 4 * y * (1 - y)
    return velocity, lines


@settings(max_examples=20)
@given(nx=st.integers(2, 8), ny=st.integers(2, 8), seed=seeds)
def test_outlet_alone_makes_up_for_what_is_missing(nx, ny, seed):
    velocity, lines = poiseuille(nx, ny)
    balance = flow_balance(lines, open_axes=[0])
    assert float(balance.residual(velocity).abs()) < 1e-15

    # Known but for the outlet, where the walls are known too.
    known = torch.zeros(2, nx, ny, dtype=torch.float64)
    known[:, -1, 1 : ny - 1] = random(ny - 2, seed=seed).square()
    if ny < 4:
        known[:, -1] = 1.0
    wrong = velocity + known.sqrt() * random(2, nx, ny, seed=seed + 1)
    found = condition(wrong, Diagonal(known), balance).mean
    assert float(balance.residual(found).abs()) < 1e-13
    torch.testing.assert_close(found[:, :-1], velocity[:, :-1], rtol=0, atol=0)
    torch.testing.assert_close(found[1], wrong[1], rtol=0, atol=0)


@settings(max_examples=20)
@given(seed=seeds)
def test_balance_of_a_box_is_the_integral_of_the_divergence(seed):
    # A velocity linear in space has a constant divergence.
    matrix = random(3, 3, seed=seed)
    axes = [(0.1 + random(size, seed=seed + size).abs()).cumsum(0) for size in (4, 3, 5)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    velocity = torch.einsum("ij,jxyz->ixyz", matrix, points)
    lines = [quadrature_weights(axis) for axis in axes]
    volume = math.prod(float(axis[-1] - axis[0]) for axis in axes)
    outflow = -boundary_inflow(lines, open_axes=[0, 1, 2]).apply(velocity)
    assert float(outflow) == pytest.approx(float(matrix.trace()) * volume, rel=1e-9, abs=1e-9)


def test_periodic_axes_have_no_ends_and_one_axis_is_a_line():
    velocity = random(2, 6, 5)
    lines = [torch.full((6,), 0.5), quadrature_weights(torch.linspace(0, 1, 5))]
    rows = boundary_inflow(lines, open_axes=[1])
    torch.testing.assert_close(rows.apply(velocity)[0], 0.5 * (velocity[1, :, 0] - velocity[1, :, -1]).sum())
    line = random(1, 6)
    torch.testing.assert_close(boundary_inflow([torch.ones(6)], [0]).apply(line), end_inflow(line))


# ------------------------------------------------------------------------------------------------ shock tube

SOUND = math.sqrt(1.4)


class ShockTube:
    """Sod's problem on ``[0, 1]``, left state (1, 0, 1), right (1/8, 0, 1/10): Toro, *Riemann Solvers*, section 4."""

    ratio = 1.4
    left = (1.0, 0.0, 1.0)
    right = (0.125, 0.0, 0.1)

    def __init__(self) -> None:
        low, high = 0.1, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self._velocities(middle) < 0 else (low, middle)
        self.pressure = (low + high) / 2
        self.velocity = 2 * SOUND / 0.4 * (1 - self.pressure ** (0.4 / 2.8))
        jump = self.pressure / 0.1
        self.behind_fan = self.pressure ** (1 / 1.4)
        self.behind_shock = 0.125 * (jump + 1 / 6) / (jump / 6 + 1)
        self.shock_speed = math.sqrt(1.4 * 0.1 / 0.125) * math.sqrt(2.4 / 2.8 * jump + 0.4 / 2.8)

    def _velocities(self, pressure: float) -> float:
        through_fan = 2 * SOUND / 0.4 * (pressure ** (0.4 / 2.8) - 1)
        through_shock = (pressure - 0.1) * math.sqrt(2 / 2.4 / 0.125 / (pressure + 0.4 / 2.4 * 0.1))
        return through_fan + through_shock

    def conserved(self, density, velocity, pressure):
        return torch.stack([density, density * velocity, pressure / 0.4 + density * velocity.square() / 2], -2)

    def state(self, time: float, x: torch.Tensor) -> torch.Tensor:
        """Conserved variables ``(3, x)``."""
        speed = (x - 0.5) / time
        sound_behind = SOUND * self.pressure ** (0.4 / 2.8)
        fan = 2 / 2.4 + 0.4 / 2.4 / SOUND * -speed
        regions = [
            (speed < -SOUND, self.left),
            (speed < self.velocity - sound_behind, (fan**5, 2 / 2.4 * (SOUND + speed), fan**7)),
            (speed < self.velocity, (self.behind_fan, self.velocity, self.pressure)),
            (speed < self.shock_speed, (self.behind_shock, self.velocity, self.pressure)),
            (torch.ones_like(speed, dtype=torch.bool), self.right),
        ]
        found = torch.full((3, len(x)), torch.nan, dtype=torch.float64)
        for inside, values in reversed(regions):
            found = torch.where(inside, torch.stack([value + 0 * x for value in values]), found)
        return self.conserved(*found)

    def cell_averages(self, time: float, cells: int) -> torch.Tensor:
        """Of the conserved variables ``(3, cells)``, by many points in each; kinks are off by less than a point."""
        fine = (torch.arange(cells * 4000, dtype=torch.float64) + 0.5) / (cells * 4000)
        return self.state(time, fine).unflatten(-1, (cells, 4000)).mean(-1)


def test_integrals_of_the_shock_tube_follow_from_its_ends_until_waves_arrive():
    tube = ShockTube()
    assert tube.pressure == pytest.approx(0.30313, abs=1e-5)
    assert tube.velocity == pytest.approx(0.92745, abs=1e-5)
    time = torch.tensor([1e-9, 0.05, 0.13, 0.2], dtype=torch.float64)
    assert tube.shock_speed * 0.2 < 0.5
    frames = torch.stack([tube.cell_averages(float(instant), 100) for instant in time])
    integrals = frames.mean(-1)

    inflow = end_inflow(compressible_flux(frames))
    torch.testing.assert_close(inflow, torch.tensor([[0.0, 0.9, 0.0]], dtype=torch.float64).expand(4, 3))
    exact = torch.tensor([0.5625, 0.0, 1.375], dtype=torch.float64)
    # Left by the points of the quadrature: jumps of at most 2 in a 400,000th of the tube.
    torch.testing.assert_close(contents(exact, inflow, time.diff()), integrals, rtol=0, atol=1e-5)


def test_a_smeared_shock_tube_gets_its_mass_momentum_and_energy_back():
    tube = ShockTube()
    truth = tube.cell_averages(0.2, 100)
    inflow = torch.tensor([[0.0, 0.9, 0.0]], dtype=torch.float64).expand(2, 3)
    content = contents(torch.tensor([0.5625, 0.0, 1.375]), inflow, 0.2)[-1]
    constraint = field_integrals(torch.full((100,), 0.01), content, ("mass", "momentum", "energy"))
    assert float(constraint.residual(truth).abs().max()) < 1e-5

    predicted = truth * torch.tensor([[1.02], [0.97], [1.01]])
    spread = 0.001 + truth.diff(prepend=truth[:, :1]).abs()
    found = condition(predicted, Diagonal(spread.square()), constraint)
    assert float(constraint.residual(predicted).abs().min()) > 1e-3
    assert float(constraint.residual(found.mean).abs().max()) < 1e-14
    # Quiet gas at the ends stays nearly as predicted, and so do the fluxes there.
    ends = [0, -1]
    moved = compressible_flux(found.mean[:, ends]) - compressible_flux(predicted[:, ends])
    assert float(moved.abs().max()) < 1e-3


# ------------------------------------------------------------------------------------------------ uncertainty


def test_the_longer_the_rollout_the_less_an_uncertain_flux_says():
    x = torch.linspace(0, 1, 21, dtype=torch.float64)
    mass = LinearConstraint.integral(x, torch.tensor(0.0))
    of_prior = mass.rows.weights.square().sum() * 0.04
    budget, shares = Budget(torch.tensor([1.0])), []
    mean = torch.full((21,), 1.3, dtype=torch.float64)
    for _ in range(6):
        constraint = budget.on(mass)
        found = condition(mean, Diagonal(0.04), constraint)
        left = constraint.residual(found.mean) / constraint.residual(mean)
        noise = 0.0 if budget.variance is None else budget.variance
        torch.testing.assert_close(left, (noise / (of_prior + noise)).expand(1))
        shares.append(float(left))
        budget = budget.after(torch.zeros(1), torch.zeros(1), interval=0.1, gained_variance=1e-3)
    assert shares[0] == pytest.approx(0, abs=1e-12)
    assert shares == sorted(shares)
    assert shares[-1] > 0.5


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
@settings(max_examples=15)
@given(seed=seeds)
def test_all_times_at_once_equal_independent_gains(dense, labelled, seed):
    times, n = 4, 5
    labels = torch.tensor([0, 1, 1, -1, 0]) if labelled else None
    rows = DisjointRows(1 + random(n, seed=seed).square(), 1, labels)
    count = rows.count
    if dense:
        rows = DenseRows(rows.dense(), 1)
    content, gained = random(2, times, count, seed=seed + 1), random(times - 1, count, seed=seed + 2).square() + 0.1
    start = torch.full((count,), 0.2, dtype=torch.float64)
    constraint = LinearConstraint(rows, torch.zeros(count), names=tuple("ab"[:count]))
    whole = at_all_times(constraint, content, contents_covariance(gained, start))
    assert whole.names[count] == "a at time 1"

    mean = random(2, times, n, seed=seed + 3)
    torch.testing.assert_close(
        whole.residual(mean), (constraint.rows.apply(mean) - content).flatten(-2), rtol=1e-12, atol=1e-12
    )
    # What each interval gains, instead of the contents: rows that are independent.
    prior = LowRank(random(times, n, seed=seed + 4).square() + 0.1, random(2, times, n, seed=seed + 5))
    difference = torch.eye(times, dtype=torch.float64) - torch.eye(times, dtype=torch.float64).roll(1, 0).tril()
    weights = torch.einsum("ts,srux->trux", difference, whole.rows.dense().unflatten(0, (times, count))).flatten(0, 1)
    apart = LinearConstraint(
        DenseRows(weights, 2),
        torch.einsum("ts,bsr->btr", difference, content).flatten(-2),
        torch.cat([start.unsqueeze(0), gained]).flatten(),
    )
    found, expected = condition(mean, prior, whole), condition(mean, prior, apart)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.variance, expected.variance.expand_as(found.variance), rtol=1e-9, atol=1e-9)


def test_exact_contents_at_all_times_are_met_frame_by_frame():
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    mass = LinearConstraint.integral(x, torch.tensor(0.0))
    content, mean, variance = random(3, 4, 1), random(3, 4, 7, seed=1), random(4, 7, seed=2).square()
    together = condition(mean, Diagonal(variance), at_all_times(mass, content))
    apart = condition(mean, Diagonal(variance), mass.with_target(content))
    torch.testing.assert_close(together.mean, apart.mean)


def test_derivatives():
    start, inflow = random(2).requires_grad_(), random(3, 4, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda start, inflow: contents(start, inflow, 0.3), (start, inflow))
    state = torch.tensor([[1.0, 0.5], [0.3, -0.2], [2.5, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(compressible_flux, (state,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Budget(torch.tensor([math.nan])), "finite content"),
        (lambda: Budget(torch.ones(1), -torch.ones(1)), "at least zero but got -1"),
        (lambda: Budget(torch.ones(2), torch.ones(3)), r"variances \(..., 2\) of the contents but got \(3,\)"),
        (
            lambda: Budget(torch.ones(1)).after(torch.ones(1), torch.ones(1), 0.0),
            "positive intervals of time but got 0",
        ),
        (lambda: Budget(torch.ones(1)).after(torch.ones(1), torch.ones(1) / 0, 1.0), "finite net inflow"),
        (lambda: Budget(torch.ones(1)).after(torch.ones(1), torch.ones(1), 1.0, -1.0), "at least zero but got -1"),
        (
            lambda: Budget(torch.ones(2)).on(LinearConstraint.integral(torch.arange(3.0), torch.tensor(0.0))),
            r"target \('...', 1\)",
        ),
        (lambda: contents(torch.ones(2), torch.ones(4, 1), 1.0), r"net inflow \(..., times, 2\)"),
        (lambda: contents(torch.ones(1), torch.ones(4, 1), torch.ones(4)), r"3 intervals but got \(4,\)"),
        (lambda: contents(torch.ones(1), torch.ones(4, 1), torch.tensor([1.0, -1.0, 1.0])), "positive intervals"),
        (lambda: contents_covariance(torch.ones(3)), r"variances \(..., times - 1, rows\)"),
        (lambda: contents_covariance(-torch.ones(3, 1)), "at least zero but got -1"),
        (lambda: contents_covariance(torch.ones(3, 1), torch.ones(2)), "1 rows at the start, as afterwards, but got 2"),
        (
            lambda: at_all_times(LinearConstraint.integral(torch.arange(3.0), torch.tensor(0.0)), torch.ones(4)),
            r"contents \(..., times, 1\)",
        ),
        (
            lambda: at_all_times(
                LinearConstraint.integral(torch.arange(3.0), torch.tensor(0.0)), torch.ones(4, 1), torch.ones(4, 4)
            ),
            r"covariance \(..., 1, 4, 4\)",
        ),
        (lambda: field_integrals(torch.ones(3), torch.ones(1), ("mass", "energy")), r"target \('...', 2\)"),
        (lambda: boundary_inflow([torch.ones(3)], []), "open axes of at least two points"),
        (lambda: boundary_inflow([torch.ones(3)], [1]), "open axes of at least two points"),
        (lambda: flow_balance([torch.ones(3), torch.ones(1)], [1]), "open axes of at least two points"),
        (lambda: compressible_flux(torch.ones(4, 5)), "primitive variables are not conserved"),
        (lambda: compressible_flux(torch.ones(3, 5), 1.0), "above one but got 1.0"),
        (lambda: compressible_flux(torch.tensor([[1.0], [3.0], [1.0]])), "positive densities and pressures"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("summed", [1, 2, 3])
def test_rows_of_every_channel_are_repeated_at_every_time(summed):
    rows = DisjointRows(random(2, 3, 4), 3, summed=summed)
    count = rows.count
    names, units = tuple(f"row {number}" for number in range(count)), tuple(f"u{number}" for number in range(count))
    constraint = LinearConstraint(rows, torch.zeros(count), names=names, units=units)
    content, frames = random(5, count, seed=1), random(6, 5, 2, 3, 4, seed=2)
    whole = at_all_times(constraint, content)
    assert whole.units == units * 5
    torch.testing.assert_close(whole.residual(frames), (rows.apply(frames) - content).flatten(-2))


def test_integrals_of_fields_have_units_of_their_own():
    conserved = field_integrals(torch.ones(3), torch.zeros(2), ("mass", "momentum"), units=("kg", "kg m/s"))
    assert conserved.units == ("kg", "kg m/s")

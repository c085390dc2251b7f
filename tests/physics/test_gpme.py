import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.rows import quadrature_weights
from pdesurrogate.physics.gpme import Burgers, Diffusion, LinearAdvection, PorousMedium, Stefan, lattice

GOLDEN = Path(__file__).parents[1] / "golden" / "probconserv_exact_and_synthetic.npz"
EQUATIONS = (Diffusion(), PorousMedium(), Stefan(), LinearAdvection(), Burgers())
by_equation = pytest.mark.parametrize("equation", EQUATIONS, ids=lambda equation: type(equation).__name__)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def test_stefan_is_that_of_the_reference(golden):
    threshold, t = golden["stefan_u_star"], golden["stefan_t"]
    root = Stefan.similarity_root(threshold)
    torch.testing.assert_close(root, golden["stefan_z1"], rtol=1e-14, atol=0)
    torch.testing.assert_close(Stefan().front(1.0, threshold), golden["stefan_alpha"], rtol=1e-14, atol=0)
    torch.testing.assert_close((1 - threshold) / torch.erf(root), golden["stefan_c1"], rtol=1e-14, atol=0)
    u = Stefan().solution(t[:, None], golden["x01"], threshold[:, None, None])
    torch.testing.assert_close(u, golden["stefan_u"], rtol=0, atol=1e-14)
    torch.testing.assert_close(Stefan().mass(t, threshold[:, None]), golden["stefan_mass"], rtol=1e-14, atol=0)


def test_porous_medium_is_that_of_the_reference(golden):
    degree, t = golden["pme_m"], golden["pme_t"]
    u = PorousMedium().solution(t[:, None], golden["x01"], degree[:, None, None])
    torch.testing.assert_close(u, golden["pme_u"], rtol=0, atol=1e-14)
    torch.testing.assert_close(PorousMedium().mass(t, degree[:, None]), golden["pme_mass"], rtol=1e-14, atol=0)


def test_masses_of_advection_and_burgers_are_those_of_the_reference(golden):
    mass = LinearAdvection().mass(golden["adv_t"], golden["adv_a"][:, None])
    torch.testing.assert_close(mass, golden["adv_mass"], rtol=1e-14, atol=0)
    mass = Burgers().mass(golden["burgers_t"], golden["burgers_a"][:, None])
    torch.testing.assert_close(mass, golden["burgers_mass_true"], rtol=1e-14, atol=0)
    # Unclamped, the reference counts influx alone after the shock has left.
    assert golden["burgers_mass_reference"][-1, -1] == 10
    assert mass[-1, -1] == 8


@by_equation
def test_the_mass_is_the_integral_of_the_solution(equation):
    low, high = equation.space_range
    cells = 200_000
    centers = low + (high - low) * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    for parameter in {*equation.test_parameters, *equation.parameter_range}:
        for part in (0.013, 0.37, 1.0):
            t = part * equation.time_range[1]
            integral = equation.solution(t, centers, parameter).mean() * (high - low)
            # Cells that a jump cuts are half right; those beside an infinite gradient cost less.
            assert float(integral) == pytest.approx(float(equation.mass(t, parameter)), abs=1.1 * (high - low) / cells)


def test_the_mass_of_burgers_stops_when_the_shock_leaves():
    t = torch.tensor([0.99, 1.0, 1.01, 7.0], dtype=torch.float64)
    assert Burgers().mass(t, 3.0).tolist() == pytest.approx([1.5 * 3.97, 6.0, 6.0, 6.0])
    assert torch.isinf(Burgers().valid_until(3.0))


@given(st.floats(-12, math.log10(0.5)), st.booleans())
def test_the_similarity_root_solves_its_equation(exponent, near_one):
    small = torch.tensor(10.0**exponent, dtype=torch.float64)
    threshold = 1 - small if near_one else small
    z = Stefan.similarity_root(threshold)
    left = torch.log(threshold) + torch.log(torch.erf(z)) + torch.log(z) + z.square()
    assert float(left) == pytest.approx(float(torch.log((1 - threshold) / math.sqrt(math.pi))), abs=1e-13)


def test_the_published_roots_and_front_speeds():
    front = Stefan().front(1.0, torch.tensor([0.5, 0.6], dtype=torch.float64))
    assert (front / 2).tolist() == pytest.approx([0.6200626, 0.5256698], abs=1e-7)
    assert front.tolist() == pytest.approx([1.2401253, 1.0513396], abs=1e-7)


@by_equation
def test_the_solution_satisfies_the_equation(equation):
    """Where it is smooth: u_t by differentiation equals the divergence of the flux."""
    flux_divergence = {
        Diffusion: lambda u, ux, uxx, p: p * uxx,
        PorousMedium: lambda u, ux, uxx, p: u**p * uxx + p * u ** (p - 1) * ux**2,
        Stefan: lambda u, ux, uxx, p: uxx,
        LinearAdvection: lambda u, ux, uxx, p: -p * ux,
        Burgers: lambda u, ux, uxx, p: -u * ux,
    }[type(equation)]
    parameter = equation.test_parameters[0]
    t = torch.tensor(0.5 * equation.scored_time + 0.1 * equation.time_range[1], dtype=torch.float64)
    inside = {Diffusion: 1.0, PorousMedium: 0.2, Stefan: 0.1, LinearAdvection: 0.3, Burgers: -0.4}[type(equation)]
    x = torch.tensor(inside, dtype=torch.float64)

    def solution(time, place):
        return equation.solution(time, place, parameter)

    u = solution(t, x)
    ut, ux = torch.func.jacrev(solution, argnums=(0, 1))(t, x)
    uxx = torch.func.jacrev(torch.func.jacrev(solution, argnums=1), argnums=1)(t, x)
    torch.testing.assert_close(ut, flux_divergence(u, ux, uxx, parameter), rtol=1e-10, atol=1e-12)


@by_equation
def test_the_solution_jumps_or_bends_at_its_front(equation):
    parameter, t = equation.test_parameters[-1], equation.scored_time
    front = float(equation.front(t, parameter))
    if math.isnan(front):
        assert isinstance(equation, Diffusion)
        return
    left, right = equation.solution(t, torch.tensor([front - 1e-9, front + 1e-9], dtype=torch.float64), parameter)
    assert right == 0
    assert left > {Stefan: 0.49, Burgers: 2.99, LinearAdvection: 0.99, PorousMedium: 0.01}[type(equation)]


def test_before_it_breaks_a_ramp_has_no_shock():
    assert Burgers().front(torch.tensor([0.3, 0.4]), 3.0).isnan().tolist() == [True, False]
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    start = Burgers().solution(0.0, x, 2.0)
    assert start.tolist() == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    just = Burgers().solution(1.0, x, 1.0)  # it breaks at this moment
    assert just.tolist() == [1.0] * 5 + [0.0] * 4


@by_equation
def test_at_time_zero_there_is_the_initial_state(equation):
    low, high = equation.space_range
    u = equation.solution(0.0, torch.linspace(low, high, 11, dtype=torch.float64), equation.test_parameters[0])
    integral = torch.trapezoid(u[1:-1], dx=(high - low) / 10)
    assert torch.isfinite(u).all()
    if isinstance(equation, PorousMedium | Stefan):
        assert u[1:].eq(0).all()
    if isinstance(equation, Diffusion):
        assert float(integral) == pytest.approx(0, abs=1e-14)


@by_equation
def test_shapes_broadcast_and_precision_is_that_of_the_widest(equation):
    parameter, t = equation.test_parameters[0], equation.scored_time
    x = torch.linspace(*equation.space_range, 7)
    parameters = torch.full((2, 1, 1), parameter)
    u = equation.solution(torch.full((3, 1), t), x, parameters)
    assert u.shape == (2, 3, 7)
    assert u.dtype == torch.float32
    exact = equation.solution(torch.full((3, 1), t).double(), x, parameters)
    assert exact.dtype == torch.float64
    # Single precision moves no point of this grid over a front.
    torch.testing.assert_close(u.double(), exact, rtol=0, atol=2e-6)
    assert equation.mass(t, parameter).dtype == torch.float64
    assert equation.mass(torch.full((3, 1), t), torch.full((4,), parameter)).shape == (3, 4)
    assert equation.front(torch.full((3, 1), t), torch.full((4,), parameter)).shape == (3, 4)
    assert equation.solution(
        1, torch.tensor([0, 1]), 2 if equation.parameter_bounds[1] > 2 else 0.5
    ).is_floating_point()


@by_equation
def test_the_quadrature_bias_is_that_of_the_trapezoid(equation):
    x = torch.linspace(*equation.space_range, 101, dtype=torch.float64)
    parameters = torch.tensor(equation.test_parameters, dtype=torch.float64)
    bias = equation.quadrature_bias(equation.scored_time, x, quadrature_weights(x), parameters)
    u = equation.solution(equation.scored_time, x, parameters[:, None])
    torch.testing.assert_close(bias, torch.trapezoid(u, x) - equation.mass(equation.scored_time, parameters))


@pytest.mark.parametrize(
    ("equation", "parameter", "points", "expected"),
    [
        (Stefan(), 0.6, 201, 1.449e-3),
        (Stefan(), 0.5, 201, 1.05e-4),
        (PorousMedium(), 1.0, 201, 0.0),
        (PorousMedium(), 3.0, 201, -3.40e-4),
        (PorousMedium(), 6.0, 201, -1.032e-3),
        (Stefan(), 0.6, 51, -2.98e-3),
        (Stefan(), 0.6, 101, -3.1e-5),
        (Stefan(), 0.6, 401, 7.0e-4),
        (Stefan(), 0.6, 801, 3.2e-4),
    ],
)
def test_the_measured_biases(equation, parameter, points, expected):
    x = torch.linspace(0, 1, points, dtype=torch.float64)
    bias = equation.quadrature_bias(equation.scored_time, x, quadrature_weights(x), parameter)
    digits = 3 if abs(expected) > 1e-3 else 2  # as many as were noted
    assert float(bias) == pytest.approx(expected, rel=0.5 * 10 ** (1 - digits), abs=1e-15)


@pytest.mark.parametrize(
    ("equation", "t", "parameter", "limit"),
    [(Stefan(), 1.0, 0.5, "0.650233"), (PorousMedium(), 1.2, 3.0, "1,"), (Stefan(), math.inf, 0.6, "0.90472")],
)
def test_masses_after_the_front_has_left_are_refused(equation, t, parameter, limit):
    times = torch.tensor([0.01, t], dtype=torch.float64)
    with pytest.raises(
        ValueError, match=rf"Expected t <= {limit}.*{equation.parameter_name} {parameter:g}.*got t = {t:g}"
    ):
        equation.mass(times, parameter)
    last = equation.valid_until(parameter)
    assert float(equation.front(last, parameter)) == pytest.approx(1)
    assert torch.isfinite(equation.mass(last, parameter))


@by_equation
def test_what_has_no_solution_is_refused(equation):
    low, high = equation.parameter_bounds
    for wrong in (low, -1.0, math.nan, high):
        for call in (equation.mass, equation.front, lambda t, p: equation.solution(t, 0.1, p)):
            with pytest.raises(ValueError, match=f"Expected {equation.parameter_name} of {type(equation).__name__}"):
                call(0.05, torch.tensor([0.5, wrong]))
        with pytest.raises(ValueError, match=equation.parameter_name):
            equation.valid_until(wrong)
    for call in (equation.mass, equation.front, lambda t, p: equation.solution(t, 0.1, p)):
        with pytest.raises(ValueError, match="Expected times >= 0"):
            call(torch.tensor([0.0, -0.1]), 0.5)


def test_the_solution_is_differentiable_in_its_parameter():
    parameters = torch.tensor([0.55, 0.65], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.05, 0.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: Stefan().solution(0.05, x, p), (parameters,))


def test_a_lattice_has_places_innermost():
    points = lattice(torch.rand(3, 2), torch.rand(3, 4))
    assert points.shape == (3, 8, 2)
    assert points[:, :4, 0].diff(dim=1).eq(0).all()
    assert torch.equal(points[:, :4, 1], points[:, 4:, 1])

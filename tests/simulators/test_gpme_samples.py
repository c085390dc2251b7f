import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.gpme import Burgers, Diffusion, LinearAdvection, PorousMedium, Stefan
from pdesurrogate.simulators.gpme_samples import GpmeSamples

EQUATIONS = (Diffusion(), PorousMedium(), Stefan(), LinearAdvection(), Burgers())
by_equation = pytest.mark.parametrize("equation", EQUATIONS, ids=lambda equation: type(equation).__name__)


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def on_lattice(points, times, positions):
    """Times and places of points, each checked to be the same along the other axis."""
    t, x = points.unflatten(1, (times, positions)).unbind(-1)
    assert t.diff(dim=2).eq(0).all()
    assert x.diff(dim=1).eq(0).all()
    return t[:, :, 0], x[:, 0]


@by_equation
def test_points_are_stratified_sorted_and_in_range(equation):
    points = GpmeSamples(equation, 300, times=5, positions=7, seed=3).points()
    assert [tuple(leaf.shape) for leaf in points] == [(300, 35, 2), (300, 35, 1)] * 2 + [(300, 1)]
    assert all(leaf.dtype == torch.float32 for leaf in points)
    (start, end), (low, high) = equation.time_range, equation.space_range
    t, x = on_lattice(points.context_points, 5, 7)
    assert torch.equal(((t - start) / (end - start) * 5).floor(), torch.arange(5.0).expand(300, 5))
    target_t, target_x = on_lattice(points.target_points, 5, 7)
    assert (target_t >= start).all()
    assert (target_t <= end).all()
    assert not torch.equal(x, target_x)
    for sorted_draws in (target_t, x, target_x):
        assert (sorted_draws.diff(dim=1) >= 0).all()
    for places in (x, target_x):
        assert (places >= low).all()
        assert (places <= high).all()
        # 2,100 uniform draws: their mean has a standard deviation of 0.0063 of the range.
        assert float((places.mean() - low) / (high - low)) == pytest.approx(0.5, abs=0.03)
    assert float(((target_t - start) / (end - start)).std()) == pytest.approx(12**-0.5, abs=0.03)
    least, most = equation.parameter_range
    assert float(points.parameters.min()) == pytest.approx(least, abs=0.05 * (most - least))
    assert float(points.parameters.max()) == pytest.approx(most, abs=0.05 * (most - least))
    assert float(points.parameters.mean()) == pytest.approx((least + most) / 2, abs=0.1 * (most - least))


@by_equation
def test_values_are_the_solution_at_the_stored_points(equation):
    points = GpmeSamples(equation, 50).points()
    for coordinates, values in (points[:2], points[2:4]):
        t, x = coordinates.double().unbind(-1)
        exact = equation.solution(t, x, points.parameters.double())
        torch.testing.assert_close(values[..., 0].double(), exact, rtol=6e-8, atol=1e-30)


@by_equation
@settings(max_examples=30)
@given(numbers=st.lists(st.integers(0, 39), min_size=1, max_size=12))
def test_functions_do_not_depend_on_what_is_drawn_beside_them(equation, numbers):
    samples = GpmeSamples(equation, 40, times=3, positions=3, seed=1)
    whole = samples.points()
    assert equal(samples.draw(numbers), [leaf[numbers] for leaf in whole])


def test_seeds_and_splits_draw_different_functions_and_repeat():
    def points(**options):
        return GpmeSamples(PorousMedium(), 4, **options).points()

    assert equal(points(seed=5), points(seed=5))
    others = [points(seed=5), points(seed=6), points(seed=5, split="val"), points(seed=5, split="test")]
    parameters = torch.cat([other.parameters for other in others])
    assert len(parameters.unique()) == 16


def test_more_functions_begin_with_the_same():
    few, many = (GpmeSamples(Stefan(), count).points() for count in (3, 8))
    assert equal(few, [leaf[:3] for leaf in many])


def test_fixed_parameters_come_one_after_the_other_at_the_same_points():
    fixed = GpmeSamples(Stefan(), 2, split="test", parameters=[0.6, 0.5])
    assert len(fixed) == 4
    torch.testing.assert_close(fixed.points().parameters, torch.tensor([[0.6], [0.6], [0.5], [0.5]]))
    drawn = GpmeSamples(Stefan(), 4, split="test").points()
    assert torch.equal(fixed.points().context_points, drawn.context_points)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"functions": 0}, "functions, times and positions >= 1"),
        ({"times": 0}, "functions, times and positions >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"split": "valid"}, "Expected a split among"),
        ({"parameters": []}, "at least one parameter"),
        ({"parameters": [0.5, 1.0]}, "Expected threshold of Stefan between 0 and 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GpmeSamples(Stefan(), **{"functions": 3} | options)


@pytest.mark.parametrize("numbers", [[], [3], [-1, 0]])
def test_functions_that_are_not_there_are_refused(numbers):
    with pytest.raises(ValueError, match="between 0 and 2"):
        GpmeSamples(Stefan(), 3).draw(numbers)

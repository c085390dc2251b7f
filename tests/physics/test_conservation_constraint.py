"""Linear constraints: what they measure, how they join, and what they refuse by name."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.fields.grid import Axis, Grid
from pdesurrogate.physics.conservation.constraint import LinearConstraint, broadcast_batches, joined
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows, control_volumes, product_weights


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def three_rows(batch=(), **options):
    options = {"target": torch.zeros(3), "names": ("mass", "momentum", "energy"), **options}
    return LinearConstraint(DenseRows(noise(*batch, 3, 5), 1), **options)


@given(
    count=st.integers(2, 12),
    batch=st.sampled_from([(), (4,), (2, 3)]),
    rule=st.sampled_from(["trapezoid", "midpoint", "right"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_an_integral_measures_what_is_missing(count, batch, rule, dtype):
    points = torch.linspace(0, 1, count, dtype=dtype)
    target = noise(*batch).to(dtype)
    constraint = LinearConstraint.integral(points, target, rule)
    residual = constraint.residual(torch.ones(*batch, count, dtype=dtype))
    length = 1 + 1 / (count - 1) if rule == "midpoint" else 1
    assert residual.shape == (*batch, 1)
    assert residual.dtype == torch.float64
    assert torch.allclose(residual.squeeze(-1), length - target.double(), atol=1e-6)
    assert constraint.batch == batch


def test_one_target_serves_a_batch_of_fields_and_one_field_a_batch_of_targets():
    rows = DenseRows(noise(2, 5), 1)
    target, fields = noise(7, 2, seed=1), noise(7, 5, seed=2)
    many = LinearConstraint(rows, target).residual(fields)
    for number in range(7):
        single = LinearConstraint(rows, target[number]).residual(fields[number])
        assert torch.allclose(many[number], single)
        assert torch.allclose(LinearConstraint(rows, target[number]).residual(fields)[number], single)
        assert torch.allclose(LinearConstraint(rows, target).residual(fields[number])[number], single)


def test_the_penalty_is_the_mean_square_of_the_residual_and_pulls_towards_the_constraint():
    constraint = three_rows()
    fields = noise(4, 5, seed=3).requires_grad_()
    penalty = constraint.penalty(fields)
    assert torch.allclose(penalty, constraint.residual(fields).square().mean())
    (slope,) = torch.autograd.grad(penalty, fields)
    assert constraint.penalty(fields.detach() - 1e-3 * slope) < penalty
    assert torch.autograd.gradcheck(constraint.penalty, fields)


def test_another_target_takes_the_rows_and_drops_what_was_known_of_the_old_one():
    constraint = three_rows(covariance=torch.eye(3))
    other = constraint.with_target(torch.ones(3), variance=torch.full((3,), 0.5))
    assert other.names == constraint.names
    assert other.covariance is None
    assert torch.equal(other.target_covariance(), 0.5 * torch.eye(3, dtype=torch.float64))
    assert not constraint.with_target(torch.ones(3)).target_covariance().any()


def test_constraints_join_row_by_row_with_independent_targets():
    volumes = LinearConstraint(
        DisjointRows(noise(2, 3), 2, control_volumes((2, 3), (2, 1))), noise(4, 2), names=("left", "right"), units="kg"
    )
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    dense = LinearConstraint(DenseRows(noise(2, 2, 3, seed=4), 2), noise(2), covariance=matrix, units="J")
    single = LinearConstraint(DisjointRows(noise(2, 3, seed=5), 2), noise(1), torch.ones(1), units="kg")
    parts = [volumes, dense, single]
    whole = joined(parts)
    fields = noise(4, 2, 3, seed=6)
    assert torch.allclose(whole.residual(fields), torch.cat([part.residual(fields) for part in parts], -1))
    expected = torch.block_diag(*(part.target_covariance() for part in parts))
    assert torch.equal(whole.target_covariance(), expected)
    assert whole.names == ("left", "right", "row 0", "row 1", "row 0")
    assert whole.units == ("kg", "kg", "J", "J", "kg")
    assert joined([volumes, volumes]).covariance is None
    assert joined([volumes]) is volumes


def test_parts_of_a_batch_join_with_parts_that_all_share():
    whole = joined([three_rows(batch=(4,)), three_rows(variance=torch.ones(4, 3))])
    assert whole.batch == (4,)
    assert whole.target_covariance().shape == (4, 6, 6)
    with pytest.raises(ValueError, match="batch that broadcast"):
        joined([three_rows(batch=(4,)), three_rows(batch=(3,))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": torch.zeros(2)},
            r"target \('...', 3\) for 3 rows but got \(2,\); put the axes of a batch in front",
        ),
        ({"target": torch.zeros(())}, r"for 3 rows but got \(\)"),
        ({"variance": torch.zeros(3, 1)}, "Expected a variance"),
        ({"covariance": torch.zeros(3)}, "Expected a covariance"),
        ({"names": ("mass",)}, r"a name for each of 3 rows but got \['mass'\]"),
        ({"units": ("kg", "J")}, r"units for each of \['mass', 'momentum', 'energy'\], or one.*got \['kg', 'J'\]"),
        ({"target": torch.tensor([[0, 0, 0], [0, math.nan, 0]])}, "finite target but that of 'momentum'"),
        ({"target": torch.tensor([0, 0, math.inf])}, "finite target but that of 'energy'"),
        ({"variance": torch.tensor([0, 0, math.nan])}, "finite variance of the target but that of 'energy'"),
        ({"variance": torch.tensor([0, -1.0, 0])}, "'momentum' has less; square a deviation"),
        ({"variance": torch.zeros(3), "covariance": torch.eye(3)}, "got both; leave one out"),
        ({"covariance": torch.diag(torch.tensor([1, math.nan, 1]))}, "covariance of the target but that of 'momentum'"),
        ({"covariance": torch.eye(3) + torch.eye(3).roll(1, 0)}, "symmetric covariance of the target but that of 'mo"),
        ({"covariance": torch.diag(torch.tensor([1, 1e-3, -1e-3]))}, "eigenvalue -0.001.*mostly of 'energy'; clip"),
        # Units do not hide it: a deviation of 1e-6 beside one of 1e6, correlated by more than one.
        (
            {"covariance": torch.tensor([[1e-12, 1.5, 0], [1.5, 1e12, 0], [0, 0, 1]], dtype=torch.float64)},
            "eigenvalue -0.5, in units of the deviations",
        ),
        ({"target": torch.zeros(4, 3), "variance": torch.zeros(2, 3)}, r"\(4,\) of the target, \(2,\) of the variance"),
    ],
)
def test_what_is_no_constraint_is_refused_by_the_name_of_its_row(options, message):
    with pytest.raises(ValueError, match=message):
        three_rows(**options)


def test_rows_of_another_batch_than_the_targets_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\) of the rows, \(4,\) of the target"):
        three_rows(batch=(2,), target=torch.zeros(4, 3))
    assert broadcast_batches({"a": (2, 1), "b": (3,), "c": ()}) == (2, 3)


def test_values_on_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"values \(..., 5\).*got \(6,\); build the constraint for this grid"):
        three_rows().residual(torch.zeros(6))
    with pytest.raises(ValueError, match=r"got \(\)"):
        three_rows().residual(torch.zeros(()))
    with pytest.raises(ValueError, match=r"\(4,\) of the constraint, \(3,\) of the values"):
        three_rows(target=torch.zeros(4, 3)).residual(torch.zeros(3, 5))


def test_none_or_different_unknowns_do_not_join():
    with pytest.raises(ValueError, match=r"same unknowns but got \[\]"):
        joined([])
    with pytest.raises(ValueError, match=r"\[\(5,\), \(4,\)\]"):
        joined([three_rows(), LinearConstraint(DenseRows(torch.ones(1, 4), 1), torch.zeros(1))])


def test_a_covariance_that_is_singular_or_zero_or_rounded_is_one():
    direction = noise(3)
    for matrix in (
        torch.zeros(3, 3),
        torch.ones(3, 3),
        direction[:, None] * direction,
        torch.diag(torch.tensor([0, 1.0, 0])),
    ):
        three_rows(covariance=matrix)
        three_rows(covariance=matrix.float())


def test_numbers_are_targets_and_variances():
    points = torch.linspace(0, 1, 5)
    number = LinearConstraint.integral(points, 2, variance=0.5)
    tensor = LinearConstraint.integral(points, torch.tensor(2.0), variance=torch.tensor(0.5))
    assert number.target.dtype == number.variance.dtype == torch.float64
    assert torch.equal(number.residual(points), tensor.residual(points))
    assert torch.equal(number.target_covariance(), tensor.target_covariance())


def test_units_are_those_of_rows_and_targets_in_others_are_refused():
    assert three_rows(units="kg").units == ("kg", "kg", "kg")
    constraint = three_rows(units=("kg", "kg m/s", "J"))
    assert constraint.units == ("kg", "kg m/s", "J")
    other = constraint.with_target(torch.ones(3), units=("kg", "kg m/s", "J"))
    assert other.units == constraint.units
    assert three_rows(units="J").with_target(torch.ones(3), units="J").units == ("J", "J", "J")
    with pytest.raises(ValueError, match=r"target of 'energy' in 'J'.*but got it in 'kJ'; convert the target"):
        constraint.with_target(torch.ones(3), units=("kg", "kg m/s", "kJ"))
    with pytest.raises(ValueError, match=r"target of 'momentum' in 'kg m/s'.*but got it in 'kg'"):
        constraint.with_target(torch.ones(3), units="kg")
    with pytest.raises(ValueError, match=r"units for each of .*got \['kg'\]"):
        constraint.with_target(torch.ones(3), units=("kg",))


@pytest.mark.parametrize("known", [{}, {"variance": torch.ones(3)}, {"covariance": torch.eye(3)}])
def test_a_constraint_goes_to_a_device_with_all_it_holds(known):
    constraint = three_rows(units="kg", **known)
    moved = constraint.to("cpu")
    assert moved.names == constraint.names
    assert moved.units == constraint.units
    assert torch.equal(moved.residual(noise(5, seed=1)), constraint.residual(noise(5, seed=1)))
    assert torch.equal(moved.target_covariance(), constraint.target_covariance())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("known", [{}, {"variance": torch.ones(3)}, {"covariance": torch.eye(3)}])
def test_a_constraint_on_the_gpu_is_there_whole(known):
    moved = three_rows(**known).to("cuda")
    held = (moved.rows.weights, moved.target, moved.target_covariance())
    assert {each.device.type for each in held} == {"cuda"}


# Integrals over grids of any dimension.

BOX = Grid((Axis("x", period=4.0), Axis("y", bounds=(-1.0, 1.0)), Axis("z", period=2.0)))
PLACES = (
    torch.arange(4, dtype=torch.float64),
    torch.tensor([-0.95, -0.8, -0.3, 0.3, 0.8, 0.95], dtype=torch.float64),
    torch.arange(2, dtype=torch.float64),
)
SPACE = (4, 6, 2)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("points", ["nodes", "cells"])
def test_the_integral_over_a_grid_is_that_of_its_own_weights(dimension, points):
    grid, places = Grid(BOX.axes[:dimension]), PLACES[:dimension]
    whole = LinearConstraint.over(grid, places, 3.0, points=points, units="kg")
    weights = product_weights(grid.quadrature_weights(places, cells=points == "cells"))
    values = noise(5, *SPACE[:dimension])
    expected = (weights * values).flatten(1).sum(1, keepdim=True) - 3
    assert torch.allclose(whole.residual(values), expected)
    assert (whole.names, whole.units) == (("integral",), ("kg",))
    # One field is measured as it is: of ones the integral is the volume.
    ones = torch.ones(SPACE[:dimension])
    assert float(whole.residual(ones)) == pytest.approx(math.prod((4, 2, 2)[:dimension]) - 3)


def test_volumes_add_up_to_the_whole_and_each_has_its_own_points():
    target = noise(5, 4)
    parts = LinearConstraint.over(BOX, PLACES, target, volumes=(2, 2, 1))
    whole = LinearConstraint.over(BOX, PLACES, target.sum(-1, keepdim=True))
    values = noise(5, *SPACE, seed=1)
    assert parts.names == ("volume (0, 0, 0)", "volume (0, 1, 0)", "volume (1, 0, 0)", "volume (1, 1, 0)")
    assert torch.allclose(parts.residual(values).sum(-1, keepdim=True), whole.residual(values))
    values[:, 2:] = 0
    assert torch.equal(parts.residual(values)[:, 2:], -target[:, 2:])


def test_solid_counts_for_nothing_and_a_volume_wholly_in_it_has_no_row():
    mask = torch.ones(SPACE, dtype=torch.bool)
    mask[:2, :3] = False
    mask[3, 5] = False
    target = torch.tensor([math.nan, 1.0, 2.0, 3.0])
    names = ("body", "above", "behind", "corner")
    wet = LinearConstraint.over(
        BOX, PLACES, target, mask, volumes=(2, 2, 1), names=names, units=("none", "kg", "g", "t")
    )
    dry = LinearConstraint.over(BOX, PLACES, 0.0, volumes=(2, 2, 1))
    assert wet.names == names[1:]
    assert wet.units == ("kg", "g", "t")
    values = noise(*SPACE)
    unknown = torch.where(mask, values, math.nan)
    assert torch.allclose(wet.residual(unknown), dry.residual(values * mask)[1:] - target[1:])
    single = LinearConstraint.over(BOX, PLACES, 6.0, mask)
    assert torch.allclose(single.residual(unknown), wet.residual(unknown).sum(-1, keepdim=True))


def test_every_one_of_a_batch_may_have_a_grid_of_its_own():
    places = (torch.stack([PLACES[1], -PLACES[1].flip(0) * 0.99]),)
    grid = Grid(BOX.axes[1:2])
    whole = LinearConstraint.over(grid, places, torch.zeros(2, 1))
    values = noise(2, 6)
    for number in range(2):
        alone = LinearConstraint.over(grid, (places[0][number],), 0.0)
        assert torch.allclose(whole.residual(values)[number], alone.residual(values[number]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinates": PLACES[:2]}, "3 coordinate tensors but got 2"),
        ({"points": "faces"}, "'nodes' or 'cells' but got 'faces'"),
        ({"volumes": (2, 2)}, "along each axis"),
        ({"volumes": (5, 1, 1)}, "as many volumes as points"),
        ({"volumes": (2, 1, 1), "target": torch.zeros(3)}, "of 2 volumes, solid ones too, but got 3, 2 and 2"),
        ({"volumes": (2, 1, 1), "names": ("left",)}, "but got 2, 1 and 2"),
        ({"volumes": (2, 1, 1), "units": ("kg",)}, "but got 2, 2 and 1"),
        ({"mask": torch.ones(4, 6, dtype=torch.bool)}, r"a mask \(4, 6, 2\) of bool but got torch.bool \(4, 6\)"),
        ({"mask": torch.ones(SPACE)}, "but got torch.float32"),
        ({"mask": torch.zeros(SPACE, dtype=torch.bool)}, "mask is false everywhere; true is fluid"),
        ({"volumes": (2, 1, 1), "target": torch.tensor([0, math.nan]), "names": ("a", "b")}, "finite target.*'b'"),
    ],
)
def test_what_is_no_integral_over_the_grid_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LinearConstraint.over(**{"grid": BOX, "coordinates": PLACES, "target": 0.0, **options})

"""Rows of constraints: exact integrals, masks, control volumes, and every form equal to its dense one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.physics.conservation.rows import (
    DenseRows,
    DisjointRows,
    control_volumes,
    product_weights,
    quadrature_weights,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "probconserv_exact_and_synthetic.npz"


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_points(count, seed):
    gaps = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1e-3
    return gaps.cumsum(-1)


@given(count=st.integers(2, 40), seed=st.integers(0, 999), slope=st.floats(-3, 3), offset=st.floats(-3, 3))
def test_the_trapezoid_is_exact_for_straight_lines_on_any_points(count, seed, slope, offset):
    points = random_points(count, seed)
    weights = quadrature_weights(points)
    first, last = float(points[0]), float(points[-1])
    exact = slope * (last**2 - first**2) / 2 + offset * (last - first)
    assert float(weights @ (slope * points + offset)) == pytest.approx(exact, abs=1e-10)
    assert float(weights.sum()) == pytest.approx(last - first)
    right = quadrature_weights(points, "right")
    assert right[0] == 0
    assert float(right.sum()) == pytest.approx(last - first)


def test_weights_of_uneven_points_equal_the_authors():
    with np.load(GOLDEN) as golden:
        weights = quadrature_weights(torch.from_numpy(golden["nonuniform_x"]))
        np.testing.assert_allclose(weights.numpy(), golden["nonuniform_w"], rtol=1e-12)


def test_midpoint_weights_are_the_cells_of_even_points():
    centers = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    assert quadrature_weights(centers, "midpoint").tolist() == pytest.approx([1 / 8] * 8)


def test_every_function_of_a_batch_may_have_points_of_its_own():
    points = torch.stack([random_points(6, 0), random_points(6, 1)])
    assert torch.equal(quadrature_weights(points)[1], quadrature_weights(points[1]))


def test_points_in_single_precision_have_weights_in_double():
    assert quadrature_weights(torch.linspace(0, 1, 5)).dtype == torch.float64


@pytest.mark.parametrize(
    "points", [[0.0], [0.0, 1.0, 1.0], [0.0, 2.0, 1.0], [0.0, math.nan, 2.0]], ids=["one", "repeat", "fall", "nan"]
)
def test_points_that_do_not_increase_are_refused(points):
    with pytest.raises(ValueError, match="two points that increase; sort them"):
        quadrature_weights(torch.tensor(points))


def test_another_rule_is_refused():
    with pytest.raises(ValueError, match="'trapezoid', 'midpoint' or 'right' but got 'simpson'"):
        quadrature_weights(torch.linspace(0, 1, 5), "simpson")


def test_product_weights_integrate_over_a_box_and_only_where_the_mask_lets_them():
    x, y = random_points(5, 0), random_points(7, 1)
    mask = noise(5, 7) > 0
    lines = [quadrature_weights(x), quadrature_weights(y)]
    plane = 2 * x[:, None] - y + 1
    total = float((product_weights(lines) * plane).sum())
    mean = 2 * float(x[0] + x[-1]) / 2 - float(y[0] + y[-1]) / 2 + 1
    assert total == pytest.approx(mean * float((x[-1] - x[0]) * (y[-1] - y[0])))
    assert torch.equal(product_weights(lines, mask), product_weights(lines) * mask)
    assert not product_weights(lines, mask)[~mask].any()
    # A batch of grids.
    both = product_weights([torch.stack([lines[0], 2 * lines[0]]), lines[1]])
    assert torch.allclose(both[1], 2 * product_weights(lines))


@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    cuts=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    batch=st.sampled_from([(), (1,), (3,), (2, 3)]),
    batched_weights=st.booleans(),
    seed=st.integers(0, 99),
)
def test_control_volumes_sum_their_own_points_and_together_all(shape, cuts, batch, batched_weights, seed):
    volumes = tuple(min(cut, size) for cut, size in zip(cuts, shape, strict=True))
    labels = control_volumes(shape, volumes)
    weights = noise(*(batch if batched_weights else ()), *shape, seed=seed).abs()
    rows = DisjointRows(weights, event_ndim=2, labels=labels)
    values = noise(*batch, *shape, seed=seed + 1)
    found = rows.apply(values)
    assert rows.count == math.prod(volumes)
    assert found.shape == (*batch, rows.count)
    for row in range(rows.count):
        expected = (weights * values * (labels == row)).sum((-2, -1))
        assert torch.allclose(found[..., row], expected, atol=1e-12)
    assert torch.allclose(found.sum(-1), (weights * values).sum((-2, -1)), atol=1e-11)
    sizes = torch.bincount(labels.flatten()).reshape(volumes)
    # As equal as the points allow: boxes differ by one point along an axis.
    assert int(sizes[:, 0].max() - sizes[:, 0].min()) <= int(sizes[0].max())


def every_kind(batch, seed=0):
    labels = torch.tensor([[0, 1, -1], [2, 0, 1]])
    return {
        "all": DisjointRows(noise(*batch, 2, 3, seed=seed), 2),
        "channels": DisjointRows(noise(*batch, 2, 3, seed=seed), 2, summed=1),
        "labels": DisjointRows(noise(*batch, 2, 3, seed=seed), 2, labels),
        "dense": DenseRows(noise(*batch, 4, 2, 3, seed=seed), 2),
    }


@pytest.mark.parametrize("kind", ["all", "channels", "labels", "dense"])
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("values_batch", [(), (3,), (5, 1), (5, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_forms_of_rows_agree_with_their_dense_matrix(kind, batch, values_batch, dtype):
    rows = every_kind(batch)[kind]
    values = noise(*values_batch, 2, 3, seed=1).to(dtype)
    matrix = rows.dense()
    assert rows.event == (2, 3)
    assert rows.batch == batch
    assert matrix.shape == (*batch, rows.count, 2, 3)
    found = rows.apply(values)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.einsum("...rxy,...xy->...r", matrix, values.double()))
    assert torch.allclose(
        rows.magnitude(values), torch.einsum("...rxy,...xy->...r", matrix.abs(), values.abs().double())
    )
    multipliers = noise(*values_batch, rows.count, seed=2)
    assert torch.allclose(rows.transpose(multipliers), torch.einsum("...rxy,...r->...xy", matrix, multipliers))
    moved = rows.to("cpu")
    assert torch.equal(moved.apply(values), found)
    if isinstance(rows, DisjointRows):
        variances = values.double().square()
        assert torch.allclose(rows.variance(variances), torch.einsum("...rxy,...xy->...r", matrix.square(), variances))
        expected = values.double() - variances * rows.transpose(multipliers)
        assert torch.allclose(rows.moved(values.double(), variances, multipliers), expected)
        # One number for all unknowns.
        assert torch.allclose(rows.variance(torch.tensor(2.0)), 2 * matrix.square().sum((-2, -1)))


def test_a_row_that_leaves_points_out_does_not_see_them():
    rows = DisjointRows(torch.ones(4), event_ndim=1, labels=torch.tensor([0, -1, 0, 1]))
    assert rows.apply(torch.tensor([1.0, math.nan, 2.0, 3.0])).tolist() == [3.0, 3.0]
    assert rows.transpose(torch.tensor([1.0, 2.0])).tolist() == [1.0, 0.0, 1.0, 2.0]
    # A single row too: the step is not that of a row of everything.
    one = DisjointRows(torch.ones(3), event_ndim=1, labels=torch.tensor([0, -1, 0]))
    step = one.moved(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), torch.ones(1))
    assert step.tolist() == [-1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseRows(torch.ones(3), 1), r"weights \(rows, \*event\) with 1 axes of unknowns.*got \(3,\)"),
        (lambda: DenseRows(torch.ones(2, 3), 0), "at least one"),
        (lambda: DenseRows(torch.tensor([[1.0, math.nan]]), 1), "finite weights of a constraint"),
        (lambda: DisjointRows(torch.ones(3), 2), r"weights \(\*event\) with 2 axes of unknowns.*got \(3,\)"),
        (lambda: DisjointRows(torch.tensor([1.0, math.inf]), 1), "finite weights of a constraint"),
        (lambda: DisjointRows(torch.ones(3), 1, torch.tensor([0, 1])), r"labels, integers, of unknowns \(3,\)"),
        (lambda: DisjointRows(torch.ones(2), 1, torch.tensor([0.0, 1.0])), "labels, integers"),
        (lambda: DisjointRows(torch.ones(2), 1, torch.tensor([False, True])), r"integers.*but got torch.bool \(2,\)"),
        (lambda: DisjointRows(torch.ones(2), 1, torch.tensor([0, 1j])), "labels, integers"),
        (lambda: DisjointRows(torch.ones(2), 1, torch.tensor([0, 2])), r"every row 0..2 but rows \[1\] have none"),
        (lambda: DisjointRows(torch.ones(2), 1, torch.tensor([-1, -1])), "at least one unknown in every row"),
        (lambda: DisjointRows(torch.ones(2), 1, torch.tensor([0, 0]), summed=1), "summed=1 and labels"),
        (lambda: DisjointRows(torch.ones(2, 2), 2, summed=3), "sum over 1 to 2 axes, but got summed=3"),
        (lambda: control_volumes((4, 4), (5, 1)), r"as many volumes as points.*got \(5, 1\)"),
        (lambda: control_volumes((4, 4), (2,)), "along each axis"),
    ],
)
def test_what_is_no_row_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_labels_may_be_integers_of_any_size(dtype):
    weights, labels = noise(5), torch.tensor([0, 2, 1, 1, 0])
    expected, found = DisjointRows(weights, 1, labels), DisjointRows(weights, 1, labels.to(dtype))
    multipliers = noise(3, seed=1)
    assert torch.equal(found.apply(noise(5, seed=2)), expected.apply(noise(5, seed=2)))
    assert torch.equal(found.transpose(multipliers), expected.transpose(multipliers))


def test_rows_first_used_in_inference_mode_serve_in_training():
    rows = DisjointRows(noise(4), 1)
    variances = noise(4, seed=1).square()
    with torch.inference_mode():
        expected = rows.variance(variances)
    found = rows.variance(variances.requires_grad_())
    (slope,) = torch.autograd.grad(found.sum(), variances)
    assert torch.equal(found, expected)
    assert torch.equal(slope, rows.weights.square())

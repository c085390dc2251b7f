import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.physics.finite_difference import (
    collocated_gradient,
    derivative,
    staggered_derivative,
    staggered_gradient,
)

LENGTH = 2 * math.pi


def stretched(size, seed=0, batch=None):
    """Increasing points with gaps between 0.2 and 1.2."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size,) if batch is None else (batch, size)
    return (0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)).cumsum(-1)


def periodic_points(size, stretch=0.0):
    """Points of one period of 2 pi, pushed together and apart."""
    even = torch.arange(size, dtype=torch.float64) * (LENGTH / size)
    return even + stretch * torch.sin(even)


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(3, 12),
    seed=st.integers(0, 1000),
    coefficients=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_quadratics_are_differentiated_exactly_up_to_the_ends(size, seed, coefficients):
    points = stretched(size, seed)
    a, b, c = coefficients
    values = a * points.square() + b * points + c
    assert torch.allclose(derivative(values, points, -1), 2 * a * points + b, atol=1e-10)


def test_the_stencil_is_that_of_numpy():
    points = stretched(9)
    values = torch.randn(4, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = np.gradient(values.numpy(), points.numpy(), axis=1, edge_order=2)
    assert torch.allclose(derivative(values, points, -2), torch.from_numpy(expected), atol=1e-12)


@pytest.mark.parametrize("period", [None, LENGTH], ids=["open", "periodic"])
def test_order_two_on_stretched_points(period):
    errors = []
    for size in (64, 128, 256):
        points = periodic_points(size, stretch=0.5)
        wrong = derivative(torch.sin(points), points, -1, period) - torch.cos(points)
        errors.append(wrong.abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_a_wave_on_even_periodic_points_gets_its_modified_wavenumber():
    size, wave = 20, 3
    points = periodic_points(size)
    step = LENGTH / size
    found = derivative(torch.sin(wave * points), points, -1, LENGTH)
    assert torch.allclose(found, math.sin(wave * step) / step * torch.cos(wave * points), atol=1e-13)


def test_points_may_differ_between_cases_and_values_may_be_complex():
    points = stretched(7, batch=3)
    values = torch.randn(3, 2, 7, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
    for operator in (derivative, staggered_derivative):
        for period in (None, 20.0):
            found = operator(values, points, -2, period)
            for case in range(3):
                alone = operator(values[case], points[case], -2, period)
                assert torch.allclose(found[case], alone, atol=1e-14)
            assert torch.allclose(found.real, operator(values.real, points, -2, period), atol=1e-14)


def test_precision_is_that_of_the_values_and_no_value_is_needed():
    points = torch.empty(2, 8, device="meta", dtype=torch.float64)
    found = derivative(torch.empty(2, 5, 8, device="meta"), points, -1, 9.0)
    assert found.dtype == torch.float32
    assert found.shape == (2, 5, 8)
    assert staggered_derivative(torch.empty(2, 5, 8, device="meta"), points, -1).shape == (2, 5, 7)


def test_differences_of_faces_over_the_widths_of_cells():
    centers = stretched(6)
    # Faces half way between centers; the lowest as far below the first center as the next one is above.
    inner = (centers[1:] + centers[:-1]) / 2
    faces = torch.cat([(2 * centers[0] - inner[0])[None], inner])
    assert torch.allclose(staggered_derivative(3 * faces - 1, centers, -1), torch.full((5,), 3.0).double())
    period = (centers[-1] - centers[0]).item() + 0.7
    wrapped = staggered_derivative(torch.arange(6.0).double(), centers, -1, period)
    widths = torch.cat([centers[-1:] - period, centers, centers[:1] + period]).diff().unfold(0, 2, 1).mean(-1)
    assert torch.allclose(wrapped * widths, torch.tensor([1.0, 1, 1, 1, 1, -5]).double())


def curl_on_faces(shape, periodic, seed=0):
    """Plane velocity on faces whose discrete divergence vanishes: differences of a stream function on corners."""
    generator = torch.Generator().manual_seed(seed)
    if periodic:
        psi = torch.randn(shape, dtype=torch.float64, generator=generator)
        return torch.stack([psi.roll(-1, 1) - psi, psi - psi.roll(-1, 0)])
    psi = torch.randn(shape[0] + 1, shape[1] + 1, dtype=torch.float64, generator=generator)
    return torch.stack([psi.diff(dim=1)[:-1], -psi.diff(dim=0)[:, :-1]])


@pytest.mark.parametrize("periodic", [True, False])
def test_a_discrete_curl_has_no_divergence_on_faces_but_has_one_at_points(periodic):
    # Unit cells: fluxes are velocities.
    points = [torch.arange(12.0).double(), torch.arange(10.0).double()]
    periods = [12.0, 10.0] if periodic else [None, None]
    velocity = curl_on_faces((12, 10), periodic)
    found = staggered_gradient(velocity, points, periods)
    assert found.divergence.shape == ((12, 10) if periodic else (11, 9))
    assert found.divergence.abs().max() < 1e-14
    assert collocated_gradient(velocity, points, periods).divergence.abs().max() > 0.1


def test_gradients_of_linear_fields_in_three_dimensions():
    points = [stretched(size, seed=size) for size in (4, 5, 6)]
    mesh = torch.stack(torch.meshgrid(*points, indexing="ij"))
    matrix = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0], [4.0, 0.0, -3.0]], dtype=torch.float64)
    velocity = torch.einsum("ij,jxyz->ixyz", matrix, mesh).expand(2, 3, 3, 4, 5, 6)
    found = collocated_gradient(velocity, points, [None] * 3)
    assert found.divergence.shape == (2, 3, 4, 5, 6)
    assert torch.allclose(found.divergence, matrix.trace().expand(2, 3, 4, 5, 6))
    assert torch.allclose(found.squared_norm, matrix.square().sum().expand(2, 3, 4, 5, 6))
    even = [torch.arange(float(size)).double() for size in (4, 5, 6)]
    mesh = torch.stack(torch.meshgrid(*even, indexing="ij"))
    staggered = staggered_gradient(torch.einsum("ij,jxyz->ixyz", matrix, mesh), even, [None] * 3)
    assert staggered.divergence.shape == (3, 4, 5)
    assert torch.allclose(staggered.divergence, matrix.trace().expand(3, 4, 5))
    assert torch.allclose(staggered.squared_norm, matrix.square().sum().expand(3, 4, 5))


def test_bad_input_is_refused():
    values = torch.zeros(2, 5, 6)
    with pytest.raises(ValueError, match="axis from -3 to -1, counted from the end, but got 1"):
        derivative(values, torch.arange(6.0), 1)
    with pytest.raises(ValueError, match=r"points \(5,\) or \(2, 5\) for values \(2, 5, 6\) along axis -2"):
        derivative(values, torch.arange(6.0), -2)
    with pytest.raises(ValueError, match=r"points \(6,\) or \(2, 6\)"):
        staggered_derivative(values, torch.arange(6.0).expand(3, 6), -1)
    with pytest.raises(ValueError, match="at least 3 points along axis -1 but got 2"):
        derivative(torch.zeros(2), torch.arange(2.0), -1)
    with pytest.raises(ValueError, match="at least 2 points along axis -1 but got 1"):
        staggered_derivative(torch.zeros(1), torch.arange(1.0), -1)
    with pytest.raises(ValueError, match=r"one velocity component, .* but got \(2, 5, 6\), 2 lines and 1 periods"):
        collocated_gradient(values, [torch.arange(5.0), torch.arange(6.0)], [None])
    with pytest.raises(ValueError, match="one velocity component"):
        staggered_gradient(torch.zeros(3, 5, 6), [torch.arange(5.0), torch.arange(6.0)], [None, None])

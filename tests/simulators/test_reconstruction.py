"""Limited linear reconstruction: exact for lines, within its neighbors, of second order, the same from both ends."""

from __future__ import annotations

import pytest
import torch

from pdesurrogate.simulators.reconstruction import LIMITERS, face_values, wrapped

each_limiter = pytest.mark.parametrize("limiter", LIMITERS.values(), ids=LIMITERS)


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def sine_averages(cells):
    faces = torch.arange(cells + 1, dtype=torch.float64) / cells
    return (-torch.cos(2 * torch.pi * faces)).diff() * cells / (2 * torch.pi)


@each_limiter
def test_a_line_is_reconstructed_exactly(limiter):
    below, above = face_values(torch.arange(8.0), 0, limiter)
    assert below[2:7].tolist() == above[2:7].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]


@each_limiter
def test_face_values_lie_between_the_averages_on_both_sides(limiter):
    averages = noise(3, 16)
    cells = wrapped(averages, 1, 1)
    lowest, highest = torch.minimum(cells[:, 1:], cells[:, :-1]), torch.maximum(cells[:, 1:], cells[:, :-1])
    for values in face_values(averages, 1, limiter):
        assert values.shape == (3, 17)
        assert bool((values >= lowest - 1e-15).all() and (values <= highest + 1e-15).all())


@each_limiter
def test_the_last_face_is_the_first_one(limiter):
    for values in face_values(noise(16), 0, limiter):
        assert values[0] == values[-1]


@each_limiter
def test_it_commutes_with_shifts_signs_and_reflections(limiter):
    averages = noise(16)
    below, above = face_values(averages, 0, limiter)
    shifted, _ = face_values(averages.roll(3), 0, limiter)
    torch.testing.assert_close(shifted[:-1], below[:-1].roll(3), rtol=0, atol=0)
    negative, _ = face_values(-averages, 0, limiter)
    torch.testing.assert_close(negative, -below, rtol=0, atol=0)
    mirrored, _ = face_values(averages.flip(0), 0, limiter)
    torch.testing.assert_close(mirrored.flip(0), above, rtol=0, atol=1e-15)


@each_limiter
def test_smooth_fields_are_reconstructed_in_second_order(limiter):
    errors = []
    for cells in (32, 64, 128):
        below, above = face_values(sine_averages(cells), 0, limiter)
        faces = torch.arange(cells + 1, dtype=torch.float64) / cells
        exact = torch.sin(2 * torch.pi * faces)
        errors.append(torch.stack([(below - exact).abs().mean(), (above - exact).abs().mean()]).max())
    orders = torch.log2(torch.stack(errors[:-1]) / torch.stack(errors[1:]))
    assert float(orders.min()) > 1.9, orders


@each_limiter
def test_any_axis_is_taken_alike(limiter):
    averages = noise(2, 8, 10)
    for values, turned in zip(face_values(averages, 1, limiter), face_values(averages.mT, -1, limiter), strict=True):
        torch.testing.assert_close(values, turned.mT, rtol=0, atol=0)


@each_limiter
def test_its_derivative_is_that_of_differences(limiter):
    averages = noise(8).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: face_values(values, 0, limiter), averages)

"""Velocities from faces to cells: continuity at an outlet, walls, and boxes of several sizes at once."""

from __future__ import annotations

import pytest
import torch

from pdesurrogate.fields.staggered_box import cell_velocity

SIDES = (0.5, 0.25)


def flow(batch=3, shape=(8, 6)):
    """On all faces, of a stream function that is constant along both walls."""
    psi = torch.randn(batch, *(size + 1 for size in shape), generator=torch.Generator().manual_seed(0)).double()
    psi[..., 0], psi[..., -1] = 0.0, 1.0
    return psi.diff(dim=-1) / SIDES[1], -psi.diff(dim=-2) / SIDES[0]


def test_what_leaves_is_what_entered():
    u, v = flow()
    inside, across = cell_velocity(u[:, :-1], v[..., :-1], SIDES, "outlet")
    torch.testing.assert_close(inside, (u[:, :-1] + u[:, 1:]) / 2)
    torch.testing.assert_close(across, (v[..., :-1] + v[..., 1:]) / 2)


def test_nothing_passes_walls():
    u, v = flow()
    closed, _ = cell_velocity(u[:, :-1], v[..., :-1], SIDES, "wall")
    torch.testing.assert_close(closed[:, -1], u[:, -2] / 2)


def test_boxes_of_a_batch_have_sides_of_their_own():
    u, v = (velocity[:, :8, :6] for velocity in flow())
    x, y = torch.tensor([0.5, 0.1, 2.0]).double(), torch.tensor([0.25, 0.3, 1.0]).double()
    together = cell_velocity(u, v, (x[:, None, None], y[:, None, None]), "outlet")
    for number in range(3):
        alone = cell_velocity(u[number], v[number], (float(x[number]), float(y[number])), "outlet")
        assert all(torch.equal(both[number], one) for both, one in zip(together, alone, strict=True))


def test_other_ends_are_refused():
    with pytest.raises(ValueError, match="'wall' or an 'outlet' at the high end of x but got 'inlet'"):
        cell_velocity(torch.zeros(4, 4), torch.zeros(4, 4), SIDES, "inlet")

"""Which friction velocity to trust where the grid is coarse: against the tables of Moser, Kim and Mansour (1999)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator

from pdesurrogate.evaluation.channel.reference import ChannelReference, channel_reference
from pdesurrogate.metrics.profiles import fold, friction_velocity, friction_velocity_of_stress, wall_gradient
from pdesurrogate.physics import symmetry
from pdesurrogate.physics.staggered_channel import stretched_faces
from pdesurrogate.simulators.channel import statistics

# Of the sets in `datasets`: nominal Reynolds number, fine cells, stretching and kept faces, then the error expected.
STORED = [(180, 128, 1.75, 4, 0.011), (395, 192, 1.9, 4, 0.017), (590, 256, 2.0, 4, 0.016)]


def over_the_height(reference: ChannelReference, name: str, faces: torch.Tensor) -> torch.Tensor:
    """A profile of the table that is even in the mid-plane, at ``faces`` between walls at 0 and 2."""
    plus = torch.minimum(faces, 2 - faces).numpy() * reference.friction_reynolds_number
    table = reference.curves[name]
    known = table["wall_distance_plus"].values
    interpolate = CubicSpline if name == "mean_velocity_plus" else PchipInterpolator
    return torch.from_numpy(interpolate(known, table.values)(np.clip(plus, 0, known[-1])))


@pytest.mark.parametrize(("nominal", "cells", "stretching", "every", "error"), STORED)
def test_the_gradient_at_the_wall_is_too_steep_by_one_to_two_percent_on_stored_planes(
    nominal: int, cells: int, stretching: float, every: int, error: float
) -> None:
    reference = channel_reference(nominal)
    faces = stretched_faces(cells, stretching)[::every]
    mean = over_the_height(reference, "mean_velocity_plus", faces)
    slope = wall_gradient(mean, faces).mean() / reference.friction_reynolds_number
    assert float(friction_velocity(slope)) - 1 == pytest.approx(error, abs=1e-3)


def test_the_momentum_balance_misses_what_a_filter_took_out() -> None:
    reference = channel_reference(590)
    faces = stretched_faces(64)
    sign = torch.sign(1 - faces)
    shear, viscous = (over_the_height(reference, f"{name}_plus", faces) for name in ("shear_stress", "mean_gradient"))
    whole, filtered = (friction_velocity_of_stress(sign * (viscous + part * shear), faces) for part in (1.0, 0.7))
    # The table's own stress is a straight line to 1.4 percent; weighted by distance from the middle, that is 2.7 of the
    # slope at most.
    assert float(whole) == pytest.approx(1.0, abs=0.0136)
    # Off the wall the viscous share is small, so that the slope goes with the resolved part.
    assert 0.7**0.5 < float(filtered / whole) < 0.7**0.5 + 0.02


def test_there_is_one_way_to_fold() -> None:
    assert fold is symmetry.fold
    assert statistics.fold is symmetry.fold

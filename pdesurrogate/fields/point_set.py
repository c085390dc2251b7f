"""Functions known at scattered points, and points to predict them at: what query-point models are trained on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PointSet(NamedTuple):
    """Observations of some functions and points where they are asked for. Batched contexts have functions in front.

    Attributes:
        context_points: ``(function, context, dimension)`` coordinates of the observations, physical units.
        context_values: ``(function, context, field)`` observed there.
        target_points: ``(function, target, dimension)`` where the functions are asked for.
        target_values: ``(function, target, field)`` what they are there.
        parameters: ``(function, parameter)`` of the equation that each function solves; models do not see them.
    """

    context_points: Tensor
    context_values: Tensor
    target_points: Tensor
    target_values: Tensor
    parameters: Tensor

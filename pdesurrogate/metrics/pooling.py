"""Pooled statistics with error bars: prediction, truth, their distances, and standard errors by the jackknife."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pdesurrogate.metrics.base import RolloutMetric, Variable, block_error


def require_all_frames(metric: RolloutMetric, name: str, frames: int) -> None:
    """Refuse to compute a pooled statistic of the truth before every frame of every trajectory was measured.

    Raises:
        ValueError: naming how many were.
    """
    expected, found = metric.plan.trajectories * frames, int(getattr(metric, f"{name}_count").sum())
    if found < expected:
        raise ValueError(
            f"Expected {expected} finite true frames, {frames} of each of {metric.plan.trajectories} trajectories, but "
            f"got {found}; update with every block of every rollout first."
        )


def leave_one_out(blocks: Tensor) -> Tensor:
    """Means over all blocks but one, for each one, of ``blocks (blocks, ...)``; same shape."""
    return (blocks.sum(0) - blocks) / (len(blocks) - 1) if len(blocks) > 1 else torch.full_like(blocks, torch.nan)


def jackknife_error(values: Tensor) -> Tensor:
    """Standard error of a function of a mean over blocks, from its values ``(blocks, ...)`` with one block left out.

    For a linear function it is `block_error` of the blocks; others (roots, ratios, wall units) need no derivatives
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, eq. 11.5). NaN where there are fewer than two blocks.

    Example:
        >>> blocks = torch.tensor([1.0, 2.0, 6.0])
        >>> bool(torch.isclose(jackknife_error(leave_one_out(blocks)), block_error(blocks)))
        True
    """
    return (len(values) - 1) * block_error(values)


def with_errors(quantities: Mapping[str, Variable]) -> dict[str, Variable]:
    """Labels of pooled quantities of prediction and truth, and of their standard errors; see `compared`."""
    sides = {"prediction": "prediction, frames before it was stopped", "truth": "truth"}
    variables = {}
    for name, (dims, units, text) in quantities.items():
        for side, which in sides.items():
            variables[f"{name}_{side}"] = Variable(dims, units, f"{text}, {which}")
            variables[f"{name}_{side}_standard_error"] = Variable(dims, units, f"standard error of the {text}, {side}")
    return variables


def distances_with_errors(distances: Mapping[str, Variable]) -> dict[str, Variable]:
    """Labels of distances between prediction and truth and of their standard errors; see `compared`."""
    variables = {}
    for name, (dims, units, text) in distances.items():
        variables[name] = Variable(dims, units, f"{text}; NaN where a trajectory was stopped")
        variables[f"{name}_standard_error"] = Variable(dims, units, f"standard error of the {text}")
    return variables


Statistics = Mapping[str, Tensor]


def compared(
    found: Mapping[str, Statistics],
    left_out: Mapping[str, Statistics],
    distances: Callable[[Statistics, Statistics], dict[str, Tensor]],
    complete: bool,
) -> dict[str, Tensor]:
    """Pooled statistics of prediction and truth, their distances, and the standard errors of all.

    Args:
        found: by side (``"prediction"``, ``"truth"``) and name.
        left_out: the same with a block left out, ``(blocks, ...)``, for `jackknife_error`.
        distances: of the prediction's statistics (first) from the truth's, by name.
        complete: whether no frame of the prediction is missing; else distances are NaN, since a mean over survivors
            would reward a model for blowing up.

    Returns:
        ``<name>_<side>``, distances, and ``..._standard_error`` of each.
    """
    outputs = {}
    for side, values in found.items():
        for name, value in values.items():
            outputs[f"{name}_{side}"] = value
            outputs[f"{name}_{side}_standard_error"] = jackknife_error(left_out[side][name])
    between = distances(found["prediction"], found["truth"])
    if complete:
        spread = distances(left_out["prediction"], left_out["truth"])
        errors = {name: jackknife_error(spread[name]) for name in between}
    else:
        between = {name: torch.full_like(value, torch.nan) for name, value in between.items()}
        errors = between
    return outputs | between | {f"{name}_standard_error": error for name, error in errors.items()}

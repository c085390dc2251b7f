"""From metrics to labelled curves, and from curves to the single numbers of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray
from torch import Tensor

from pdesurrogate.evaluation.intervals import bootstrap_interval
from pdesurrogate.metrics.base import RolloutMetric, Score
from pdesurrogate.metrics.plan import RolloutPlan


def curves_of(metrics: Mapping[str, RolloutMetric], plan: RolloutPlan) -> xarray.Dataset:
    """Everything that was measured, labelled.

    Raises:
        ValueError: if two metrics give outputs or axes of one name, or a metric never saw some frames.
    """
    metadata = plan.metadata
    lead_time = (np.arange(plan.frames) + 1) * metadata.frame_interval
    coordinates: dict[str, Any] = {
        "trajectory": ("trajectory", np.arange(plan.trajectories)),
        "lead_time": ("lead_time", lead_time, {"units": metadata.time_units, "long_name": "time since the last input"}),
        "channel": ("channel", list(metadata.channel_names)),
    }
    sizes = {"trajectory": plan.trajectories, "lead_time": plan.frames, "channel": len(metadata.channels)}
    data: dict[str, Any] = {}
    for owner, metric in metrics.items():
        for name, axis in metric.coordinates.items():
            values = axis.values.cpu().numpy() if isinstance(axis.values, Tensor) else list(axis.values)
            if name in coordinates and not np.array_equal(np.asarray(coordinates[name][1]), np.asarray(values)):
                raise ValueError(
                    f"Expected one meaning of the axis {name!r} but {owner!r} gives it other values; measure with a "
                    "suite that lacks the other metric, into a report of its own."
                )
            coordinates[name] = (name, values, {"units": axis.units, "long_name": axis.long_name})
            sizes[name] = len(values)
        outputs = metric.compute()
        for name, variable in metric.variables.items():
            if name in data:
                raise ValueError(f"Expected outputs of different names but two metrics give {name!r}; leave one out.")
            # A metric's output of one element comes without its axes.
            shaped = outputs[name].reshape([sizes[dim] for dim in variable.dims]).cpu().numpy()
            data[name] = (variable.dims, shaped, {"units": variable.units, "long_name": variable.long_name})
    return xarray.Dataset(data, coords=coordinates)


def scores_of(metrics: Mapping[str, RolloutMetric], curves: xarray.Dataset) -> dict[str, dict[str, Any]]:
    """The single numbers of a table, ``{name: {value, spread, interval, units, ...}}``, from the metrics' curves."""
    scores = [(name, score) for metric in metrics.values() for name, score in metric.scores.items()]
    names = [name for name, _ in scores]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"Expected scores of different names but two metrics give {twice}; leave one out.")
    return {name: _reduced(curves, score) for name, score in scores}


def _reduced(curves: xarray.Dataset, score: Score) -> dict[str, Any]:
    """Mean over trajectories, its standard error and 95 % bootstrap interval.

    A value is null where a trajectory that counts in it was stopped, since a mean over survivors would reward a model
    for blowing up, and where nothing was measured. An output that is pooled over trajectories has the spread that its
    metric states beside it.
    """
    values = _by_trajectory(curves[score.variable], score)
    described = {
        "units": str(curves[score.variable].attrs["units"]) if score.units is None else score.units,
        "higher_is_better": score.higher_is_better,
        "description": score.description,
    }
    if "trajectory" in values.dims:
        return {**summarized(values.values), **described}
    error = curves.get(f"{score.variable}_standard_error")
    spread = None if error is None else float(_by_trajectory(error, score))
    value = float(values)
    return {
        "value": value if math.isfinite(value) else None,
        "spread": spread if spread is not None and math.isfinite(spread) and math.isfinite(value) else None,
        "interval": None,
        **described,
    }


def _by_trajectory(values: xarray.DataArray, score: Score) -> xarray.DataArray:
    """All axes but that of trajectories reduced."""
    values = values.astype(np.float64).sel(dict(score.select))
    if "lead_time" in values.dims and score.lead_time != "mean":
        values = values.isel(lead_time=0 if score.lead_time == "first" else -1)
    rest = [dim for dim in values.dims if dim != "trajectory"]
    return values.mean(rest, skipna=False)


def summarized(values: Any) -> dict[str, Any]:
    """``value``, ``spread`` and ``interval`` of a score from one number a trajectory; all null if one is not finite."""
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        return {"value": None, "spread": None, "interval": None}
    if numbers.size == 1:
        return {"value": float(numbers[0]), "spread": None, "interval": None}
    low, high = bootstrap_interval(numbers)
    spread = float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    return {"value": float(numbers.mean()), "spread": spread, "interval": [float(low), float(high)]}

"""What pictures take from reports: models by label, seeds together, one curve out of a labelled variable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pdesurrogate.evaluation.report import Report

# Labels along dimensions of a variable, such as {"channel": "pressure", "band": "low (0 to 4)"}.
Select: TypeAlias = Mapping[str, str | float]

# Behind the name of a statistic that is pooled over frames and trajectories: its standard error.
STANDARD_ERROR = "_standard_error"

_SAME = ("name", "split", "content_hash", "shape", "start_frame", "frames")


def require_same_data(reports: Sequence[Report]) -> None:
    """Refuse to draw different data into one picture.

    Raises:
        ValueError: if there is no report, or data name, split, content hash, shape or frames differ.
    """
    if not reports:
        raise ValueError("Expected at least one report but got none.")
    first = reports[0].attributes["data"]
    for report in reports[1:]:
        data = report.attributes["data"]
        for key in _SAME:
            if data[key] != first[key]:
                raise ValueError(
                    f"Expected reports on the same data but {key} is {first[key]!r} in one and {data[key]!r} in "
                    "another; draw them apart."
                )


def require_variables(reports: Sequence[Report], *names: str) -> None:
    """Refuse reports that lack a variable.

    Raises:
        ValueError: naming what is missing and what there is.
    """
    for report in reports:
        missing = [name for name in names if name not in report.curves]
        if missing:
            raise ValueError(
                f"Expected {' and '.join(missing)} in every report but one has only "
                f"{sorted(map(str, report.curves))}; add the metric to the suite and evaluate again."
            )


def group_seeds(reports: Sequence[Report]) -> dict[str, list[Report]]:
    """Reports of one model (`Report.identity`) together, in order of first appearance, by a label.

    The label is the model's name; models of one name and different configurations get the entries that differ.
    """
    groups: dict[str, list[Report]] = {}
    for report in reports:
        groups.setdefault(report.identity, []).append(report)
    labels: dict[str, list[Report]] = {}
    for seeds in groups.values():
        name = seeds[0].attributes["model"]["name"]
        namesakes = [group[0] for group in groups.values() if group[0].attributes["model"]["name"] == name]
        label = name if len(namesakes) == 1 else f"{name} ({_what_differs(seeds[0], namesakes)})"
        labels[label] = seeds
    return labels


def _what_differs(report: Report, namesakes: Sequence[Report]) -> str:
    leaves = dict(_leaves(report.attributes["model"]["config"]))
    others = [dict(_leaves(other.attributes["model"]["config"])) for other in namesakes]
    differing = [key for key, value in leaves.items() if any(other.get(key) != value for other in others)]
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {leaves[key]}" for key in differing) or "other settings"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key], f"{path}.{key}")
    else:
        yield path, value


def seeds_label(label: str, seeds: Sequence[Report]) -> str:
    """The label of a line, with the number of seeds where there are several."""
    return label if len(seeds) == 1 else f"{label} ({len(seeds)} seeds)"


def kind_of(seeds: Sequence[Report]) -> str:
    """Whether a surrogate, a solver or a baseline was measured."""
    return str(seeds[0].attributes["model"]["kind"])


def selection_text(select: Select | None) -> str:
    """What was selected, for a title.

    Example:
        >>> selection_text({"channel": "u", "plane_distance": 0.08579000000000002})
        'u, plane distance 0.08579'
    """
    return ", ".join(
        label if isinstance(label, str) else f"{dim.replace('_', ' ')} {label:g}"
        for dim, label in (select or {}).items()
    )


def select_labels(values: xr.DataArray, select: Select | None, keep: Sequence[str]) -> xr.DataArray:
    """The part of a variable that is over ``keep`` alone, in that order, with its units.

    A dimension of one label needs no selection. Channels without one are averaged, as long as their units agree.

    Raises:
        ValueError: if a label is not there, or one is missing.

    Example:
        >>> values = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], {"channel": ["u", "p"]}, ("time", "channel"))
        >>> values.attrs["units"] = "m/s, Pa"
        >>> one = select_labels(values, {"channel": "p"}, ["time"])
        >>> one.values.tolist(), one.attrs["units"]
        ([2.0, 4.0], 'Pa')
    """
    further = [str(dim) for dim in values.dims if dim not in keep]
    wanted = dict(select or {})
    unknown = [dim for dim in wanted if dim not in further]
    if unknown:
        raise ValueError(f"Expected to select along {further} of {values.name!r} but got {unknown}; leave them out.")
    for dim in further:
        labels = values[dim].values
        units = str(values.attrs.get("units", "1")).split(", ")
        if dim in wanted:
            values = _pick(values, dim, _place(labels, dim, wanted[dim]))
        elif len(labels) == 1:
            values = _pick(values, dim, 0)
        elif dim == "channel" and len(units) == 1:
            values = values.mean(dim, skipna=False, keep_attrs=True)
        else:
            raise ValueError(
                f"Expected one {dim} of {values.name!r} but got none; pass select={{{dim!r}: ...}} with one of "
                f"{labels.tolist()}."
            )
    return values.transpose(*keep)


def _place(labels: NDArray[Any], dim: str, wanted: str | float) -> int:
    same = [isinstance(wanted, str) == isinstance(label, str) and _equal(label, wanted) for label in labels.tolist()]
    if not any(same):
        raise ValueError(f"Expected a {dim} among {labels.tolist()} but got {wanted!r}.")
    return same.index(True)


def _equal(label: str | float, wanted: str | float) -> bool:
    return label == wanted if isinstance(label, str) else math.isclose(label, float(wanted), rel_tol=1e-3)


def _pick(values: xr.DataArray, dim: str, place: int) -> xr.DataArray:
    """One label's values, with its own units where a list of them is stated."""
    units = str(values.attrs.get("units", "1")).split(", ")
    own = units[place] if len(units) == values.sizes[dim] else ", ".join(units)
    return values.isel({dim: place}).assign_attrs(units=own)


def nearest_lead_times(values: xr.DataArray, chosen: float | Sequence[float] | None) -> list[float]:
    """Lead times of a variable nearest to the chosen ones; its first and last where none is chosen.

    Raises:
        ValueError: if one is further than half a frame from all of them.
    """
    available = np.asarray(values["lead_time"].values, dtype=np.float64)
    if chosen is None:
        return [float(time) for time in available[[0, -1]][: len(available)]]
    found = []
    for time in [chosen] if isinstance(chosen, int | float) else chosen:
        nearest = float(available[np.abs(available - time).argmin()])
        if abs(nearest - time) > 0.5 * float(available[0]):
            raise ValueError(f"Expected lead times from {available[0]:g} to {available[-1]:g} but got {time:g}.")
        found.append(nearest)
    return found

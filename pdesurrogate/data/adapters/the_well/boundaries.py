"""What The Well's files say of the ends of their axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pdesurrogate.data.adapters.the_well.attributes import flag, text, texts
from pdesurrogate.data.adapters.the_well.layout import BOUNDARIES, Boundary, Sides
from pdesurrogate.data.hdf5_file import Hdf5File

GROUP = "boundary_conditions"


class Condition(NamedTuple):
    """One boundary condition of a file.

    Attributes:
        name: of its group.
        kind: what is there.
        marked: for each axis that it is about, whether it holds at the low and at the high end.
    """

    name: str
    kind: Boundary
    marked: Mapping[str, tuple[bool, bool]]


def read_conditions(file: Hdf5File, sizes: Mapping[str, int], trajectories: int) -> list[Condition]:
    """All conditions of a file, by name.

    A condition holds at an end of an axis where its mask is true there: in some point for periodic and open ends, in
    all points for walls, as the layout's own reader has it.

    Args:
        file: the file.
        sizes: points along each axis.
        trajectories: in the file.

    Raises:
        ValueError: if the group is missing, a kind or an axis is unknown, a mask has another shape, or conditions
            differ between the trajectories or the times of a file.
    """
    if GROUP not in file.groups:
        raise ValueError(file.missing("group", GROUP))
    return [_read(file, name, sizes, trajectories) for name in sorted(file.members(GROUP))]


def sides(conditions: list[Condition], axes: tuple[str, ...], *, what: str) -> dict[str, Sides]:
    """What is at both ends of every axis: open where nothing is marked; of walls and openings the last by name.

    Raises:
        ValueError: if an end is periodic and something else, or only one of the two ends is periodic.
    """
    found: dict[str, list[Boundary]] = {axis: ["OPEN", "OPEN"] for axis in axes}
    named: dict[tuple[str, int], Condition] = {}
    for condition in conditions:
        for axis, marked in condition.marked.items():
            for end in (0, 1):
                if not marked[end]:
                    continue
                other = named.get((axis, end), condition)
                if other.kind != condition.kind and "PERIODIC" in (other.kind, condition.kind):
                    raise ValueError(
                        f"Expected one kind of boundary at the {('low', 'high')[end]} end of {axis!r} in {what} but "
                        f"{other.name!r} says {other.kind} and {condition.name!r} {condition.kind}."
                    )
                named[axis, end] = condition
                found[axis][end] = condition.kind
    for axis, (low, high) in found.items():
        if (low == "PERIODIC") != (high == "PERIODIC"):
            raise ValueError(
                f"Expected both ends of a periodic axis to be marked in {what} but those of {axis!r} are {low} and "
                f"{high}. Tell which axes are periodic: periodic=[...]."
            )
    return {axis: (low, high) for axis, (low, high) in found.items()}


def unmarked(conditions: list[Condition]) -> list[Condition]:
    """Periodic conditions whose masks mark no end of any of their axes."""
    return [
        condition
        for condition in conditions
        if condition.kind == "PERIODIC" and condition.marked and not any(map(any, condition.marked.values()))
    ]


def _read(file: Hdf5File, name: str, sizes: Mapping[str, int], trajectories: int) -> Condition:
    path = f"{GROUP}/{name}"
    if path not in file.groups:
        raise ValueError(f"Expected the group of a boundary condition in {file.path} but {path!r} is an array.")
    attributes = file.attributes(path)
    what = f"boundary condition {name!r} of {file.path}"
    kind = text(attributes, "bc_type", what=what).upper()
    known = {word: word for word in BOUNDARIES}
    if kind not in known:
        raise ValueError(f"Expected one of {BOUNDARIES} as bc_type of {what} but got {kind!r}.")
    axes = texts(attributes, "associated_dims", what=what)
    if not axes or len(set(axes)) < len(axes) or set(axes) - set(sizes):
        raise ValueError(f"Expected associated_dims among {tuple(sizes)} for {what} but got {axes}.")
    mask = _mask(file, path, attributes, tuple(sizes[axis] for axis in axes), trajectories)
    whole = np.all if known[kind] == "WALL" else np.any
    marked = {
        axis: (bool(whole(mask.take(0, axis=place))), bool(whole(mask.take(-1, axis=place))))
        for place, axis in enumerate(axes)
    }
    return Condition(name, known[kind], marked)


def _mask(
    file: Hdf5File, path: str, attributes: Mapping[str, Any], sizes: tuple[int, ...], trajectories: int
) -> npt.NDArray[np.bool_]:
    """Of the axes alone; those of all trajectories and times must be the same."""
    name, what = f"{path}/mask", f"{path!r} of {file.path}"
    stored = file.array(name)
    by_sample, in_time = (flag(attributes, key, False, what=what) for key in ("sample_varying", "time_varying"))
    lead = stored.shape[: by_sample + in_time]
    if stored.shape[len(lead) :] != sizes or (by_sample and lead[:1] != (trajectories,)) or 0 in lead:
        raise ValueError(
            f"Expected a mask of {sizes} points for {what}, with axes of trajectories and times in front where it "
            f"varies with them, but got {stored.shape}."
        )
    masks = file.read(name).astype(bool).reshape(-1, *sizes)
    if (masks != masks[0]).any():
        raise ValueError(
            f"Expected the same boundaries for all trajectories and times but {what} differs among them. Put "
            "trajectories with other boundaries into files, and data sets, of their own."
        )
    return np.asarray(masks[0])

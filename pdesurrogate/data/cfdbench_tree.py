"""Archives of enclosed flows as trees of files in the layout of CFDBench, which its loaders read.

``PROBLEM/SUBSET/caseNNNN/{case.json,u.npy,v.npy}`` as Luo, Chen & Zhang publish them (arXiv 2310.05963). What is
written so is data of ours in their layout, not CFDBench.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from pdesurrogate.data.adapters.cfdbench.published import NUMBERED_SUBSETS, reynolds_number
from pdesurrogate.data.adapters.cfdbench.tree import OWN_FILE
from pdesurrogate.data.archive import Archive, CaseName
from pdesurrogate.fields.staggered_box import cell_velocity
from pdesurrogate.fields.trajectory import Trajectory

_DIGITS = re.compile(r"(\d+)")
_VELOCITY = {"velocity_x": "face_x", "velocity_y": "face_y"}


@dataclass(frozen=True)
class _Layout:
    """How the files of a problem are written.

    Attributes:
        keys: of ``case.json`` in its order, and what our parameters of that meaning are called.
        further: parameters that the case file has no key for; readers need them and find them in our own file.
        high_end: what is at the high end of x.
    """

    keys: Mapping[str, str]
    high_end: Literal["wall", "outlet"] = "outlet"
    further: tuple[str, ...] = ()


_FLUID = {"density": "density", "viscosity": "dynamic_viscosity"}
_LAYOUTS = {
    "cavity": _Layout(
        {"vel_top": "lid_velocity", **_FLUID, "height": "height", "width": "width"},
        high_end="wall",
    ),
    "tube": _Layout({"vel_in": "inlet_velocity", **_FLUID, "height": "height", "width": "length"}),
    # The keys of CFDBench's dam, which is another flow: water that enters air.
    "step": _Layout(
        {"velocity": "inlet_velocity", **_FLUID, "barrier_height": "step_height", "barrier_width": "step_width"}
        | {"height": "height", "width": "length", "dx": "cell_width", "dy": "cell_height"},
        further=("step_position",),
    ),
    "cylinder": _Layout(
        {"vel_in": "inlet_velocity", **_FLUID}
        | {name: name for name in ("x_min", "x_max", "y_min", "y_max", "radius")},
    ),
}


class _Entry(NamedTuple):
    """A case to be written."""

    split: str
    number: int
    case: CaseName


def write_cfdbench_tree(archive: Archive, out: str | Path, problem: str) -> list[Path]:
    """Write all cases of an archive, those of all splits, as ``out/PROBLEM/SUBSET/caseNNNN``.

    ``u.npy`` and ``v.npy`` are velocities at the centers of cells, float64 ``(time, rows, columns)``; row 0 is the
    lowest, column 0 the leftmost. ``case.json`` has the published keys and no others, as loaders make a parameter of
    every number in it. What else is known is in ``pdesurrogate.json`` beside it: interval ``dt_frame`` and start ``t0``
    of the frames, Reynolds number ``re``, all parameters, and where the case came from.

    Numbers run on over the subsets bc, prop and geo, and within a subset by the names of the cases, numbers in them
    taken as such. A case that was dropped keeps its number, which no folder has then.

    Args:
        archive: with the attribute ``cases``, see `Archive.cases`.
        out: folder above that of the problem; cases that were written there before are written again.
        problem: ``cavity``, ``tube``, ``step`` or ``cylinder``.

    Returns:
        The folders in the order of their numbers.

    Raises:
        ValueError: for another problem, a case without name or of another subset, channels or parameters that are not
            there, or a folder that holds other cases.
    """
    if problem not in _LAYOUTS:
        hint = " A dam fills with water, which none of our data do; a flow over a step is a 'step'."
        raise ValueError(
            f"Expected a problem among {', '.join(_LAYOUTS)} but got {problem!r}.{hint if problem == 'dam' else ''}"
        )
    root = Path(out) / problem
    members = {
        split: dict(zip(archive.numbers(split), archive.trajectories(split), strict=True)) for split in archive.splits
    }
    folders = {
        root / entry.case.subset / f"case{number:04d}": entry
        for number, entry in enumerate(_numbered(archive))
        if entry.number in members[entry.split]
    }
    # All that can be wrong is found before anything is written.
    texts = {
        path: _texts(members[split][number], problem, split, case) for path, (split, number, case) in folders.items()
    }
    _require_ours(root, set(folders))
    for path, entry in folders.items():
        u, v = _cell_velocity_of(members[entry.split][entry.number], _LAYOUTS[problem].high_end)
        published, own = texts[path]
        path.mkdir(parents=True, exist_ok=True)
        for name, content in {OWN_FILE: own, "u.npy": _npy(u), "v.npy": _npy(v), "case.json": published}.items():
            _write_whole(path / name, content)
    _write_whole(root / OWN_FILE, _json(_origin(archive)))
    return list(folders)


def _origin(archive: Archive) -> dict[str, Any]:
    """Where the tree comes from: with the recipe of its archive the solver that made it can be run beside it."""
    recipe = archive.metadata.attributes.get("recipe")
    return {
        "generator": "pdesurrogate",
        "content_hash": archive.metadata.attributes.get("content_hash", ""),
        "recipe": json.loads(recipe) if isinstance(recipe, str) and recipe else recipe,
    }


def _cell_velocity_of(trajectory: Trajectory, high_end: Literal["wall", "outlet"]) -> tuple[Tensor, Tensor]:
    frames = trajectory.read().double()
    names = trajectory.metadata.channel_names
    u, v = (frames[:, names.index(name)] for name in _VELOCITY)
    if trajectory.metadata.channels[names.index("velocity_x")].location == "cell":
        return u, v
    return cell_velocity(u, v, _spacing(trajectory), high_end)


def _spacing(trajectory: Trajectory) -> tuple[float, float]:
    """Sides of a cell; cells are even."""
    x, y = (float(line[-1] - line[0]) / (len(line) - 1) for line in trajectory.context.coordinates)
    return x, y


def _numbered(archive: Archive) -> list[_Entry]:
    """All cases, dropped ones too, in the order of their numbers."""
    found: list[_Entry] = []
    for split in archive.splits:
        cases = archive.cases(split)
        nameless = sorted({*archive.numbers(split), *archive.dropped(split)} - set(cases))
        if nameless:
            raise ValueError(
                f"Expected a name and a subset for each trajectory of {split!r} in the attribute 'cases' of "
                f"{archive.path} but numbers {nameless[:4]} have none; generate the data from a recipe of cases."
            )
        found += [_Entry(split, number, case) for number, case in cases.items()]
    others = sorted({entry.case.subset for entry in found} - set(NUMBERED_SUBSETS))
    if others:
        raise ValueError(f"Expected the subsets {', '.join(NUMBERED_SUBSETS)} but got {', '.join(others)} too.")
    if len({entry.case for entry in found}) < len(found):
        raise ValueError(f"Expected every name once in a subset but some cases of {archive.path} share theirs.")
    return sorted(found, key=lambda entry: (NUMBERED_SUBSETS.index(entry.case.subset), _natural(entry.case.name)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``case2`` before ``case10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name)]


def _texts(trajectory: Trajectory, problem: str, split: str, case: CaseName) -> tuple[bytes, bytes]:
    """What ``case.json`` and our own file say."""
    metadata, layout = trajectory.metadata, _LAYOUTS[problem]
    _require_velocity(trajectory)
    given = () if trajectory.context.parameters is None else trajectory.context.parameters.tolist()
    parameters = {name: _shortest(value) for name, value in zip(metadata.parameters, given, strict=True)}
    values = _with_sizes(parameters, trajectory)
    missing = [ours for ours in (*layout.keys.values(), *layout.further) if ours not in values]
    if missing:
        raise ValueError(
            f"Expected the parameters of a {problem} but {', '.join(missing)} are missing; there are "
            f"{', '.join(metadata.parameters) or 'none'}. A tree without them could not be read."
        )
    published = {key: values[ours] for key, ours in layout.keys.items()}
    own = {
        "generator": "pdesurrogate",
        "content_hash": metadata.attributes.get("content_hash", ""),
        "name": case.name,
        "subset": case.subset,
        "split": split,
        "dt_frame": metadata.frame_interval,
        "t0": float(trajectory.times[0]),
        "re": reynolds_number(problem, values),
        "parameters": parameters,
    }
    return _json(published), _json(own)


def _require_velocity(trajectory: Trajectory) -> None:
    found = {channel.name: channel.location for channel in trajectory.metadata.channels}
    locations = {name: found.get(name) for name in _VELOCITY}
    if (locations != _VELOCITY and set(locations.values()) != {"cell"}) or len(trajectory.shape) != 4:
        raise ValueError(
            f"Expected plane flow with channels {_VELOCITY}, or both in cells, but {trajectory.metadata.name!r} has "
            f"{found}."
        )


def _with_sizes(parameters: Mapping[str, float], trajectory: Trajectory) -> dict[str, float]:
    """Parameters, and extents and sides of cells by coordinates where no parameter says them."""
    (nx, ny), (dx, dy) = trajectory.shape[2:], _spacing(trajectory)
    values = {"length": nx * dx, "width": nx * dx, "height": ny * dy} | dict(parameters)
    return values | {"cell_width": values["length"] / nx, "cell_height": values["height"] / ny}


def _shortest(value: float) -> float:
    """The shortest decimal that is this number in single precision, which contexts hold parameters in."""
    return float(str(np.float32(value)))


def _require_ours(root: Path, wanted: set[Path]) -> None:
    """Nothing but what this function wrote is ever written over, and no two sets are mixed."""
    there = {path for path in root.glob("*/case*") if path.is_dir()}
    foreign = {path for path in there if (path / "case.json").exists() and not (path / OWN_FILE).exists()}
    others = sorted(str(path) for path in (there - wanted) | foreign)
    if others:
        raise ValueError(
            f"Expected no other cases in {root} but found {others[0]} and {len(others) - 1} more. Choose another "
            "folder, or delete them."
        )


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _npy(velocity: Tensor) -> bytes:
    """Of ``(time, x, y)``: rows are y."""
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(velocity.transpose(-1, -2).numpy(), dtype=np.float64))
    return buffer.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)

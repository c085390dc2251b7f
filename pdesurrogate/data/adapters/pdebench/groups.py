"""PDEBench's files with a group for each run: shallow water, diffusion-reaction and diffusion-sorption.

Takamoto et al., *PDEBench: An extensive benchmark for scientific machine learning*, NeurIPS 2022, arXiv:2210.07182.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pdesurrogate.data.adapters.pdebench.configuration import configuration, number_of
from pdesurrogate.data.adapters.pdebench.runs import Run, RunSet, Variable
from pdesurrogate.data.adapters.pdebench.sampling import (
    axis_and_points,
    read_line,
    require_reals,
    sample,
    source_attributes,
    split_numbers,
)
from pdesurrogate.data.adapters.shards import in_natural_order
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Channel, Grid, Metadata

Problem = Literal["shallow_water", "diffusion_reaction", "diffusion_sorption"]


class _Stored(NamedTuple):
    """What one problem's groups hold: a word of the file's name, axes, channels, and our names of its parameters."""

    word: str
    axes: tuple[str, ...]
    channels: tuple[Channel, ...]
    parameters: dict[str, str]


_PROBLEMS: dict[Problem, _Stored] = {
    "shallow_water": _Stored(
        "rdb",
        ("x", "y"),
        (Channel("depth", "length", "depth of the water", location="cell"),),
        {"gravity": "gravity", "dam_radius": "dam_radius"},
    ),
    "diffusion_reaction": _Stored(
        "diff-react",
        ("x", "y"),
        (
            Channel("activator", "1", "concentration of the activator", location="cell"),
            Channel("inhibitor", "1", "concentration of the inhibitor", location="cell"),
        ),
        {"Du": "activator_diffusivity", "Dv": "inhibitor_diffusivity", "k": "reaction_constant"},
    ),
    "diffusion_sorption": _Stored(
        "diff-sorp",
        ("x",),
        (Channel("concentration", "1", "concentration of the solute", location="cell"),),
        {
            "D": "diffusivity",
            "por": "porosity",
            "rho_s": "bulk_density",
            "k_f": "freundlich_parameter",
            "n_f": "freundlich_exponent",
            "sol": "solubility",
        },
    ),
}


class PdeBenchGroups(RunSet):
    """``2D_rdb_NA_NA.h5``, ``2D_diff-react_NA_NA.h5`` or ``1D_diff-sorp_NA_NA.h5``; an `Adapter`.

    Each group, named by the seed of its run, has ``data (time, x[, y], channel)``, ``grid/x``, ``grid/y`` and
    ``grid/t``. Groups are taken by their numbers, in whatever order they were written. None of these domains is
    periodic. Parameters are those of the section ``sim`` of the YAML text in the attribute ``config`` of each group (of
    the file, as ``0000/config``, for diffusion-sorption), where it is there.

    Args:
        path: the file.
        problem: by default the name says.
        train: groups for training and validation; by default all but the tests.
        val: cut from the end of those.
        test: groups at the end of the file; by default a tenth, both as the authors' loader has it.
        interval: time between frames, a multiple of the stored interval.
        every: 2 keeps every second cell along each axis, and so on; no filter.
        skip_bad_trajectories: go on without runs whose last frame is not finite or nothing but zeros; otherwise such
            frames are refused when read.

    Raises:
        ValueError: if the file is truncated, a group lacks an array or differs from the others in shape, coordinates
            or times, or nothing says which problem it is.
    """

    def __init__(
        self,
        path: str | Path,
        problem: Problem | None = None,
        train: int | None = None,
        val: int = 0,
        test: int | None = None,
        interval: float | None = None,
        every: int = 1,
        skip_bad_trajectories: bool = False,
    ) -> None:
        path = Path(path)
        file = Hdf5File(path)
        problem = _problem(path, problem)
        stored = _PROBLEMS[problem]
        names = _runs_of(file)
        frames, *space = _shape(file, names, stored)
        lines = {name: f"{names[0]}/grid/{name}" for name in ("t", *stored.axes)}
        times = read_line(file, lines["t"], frames, frames + 1)
        sampling = sample(times, frames, interval, every, what=f"{lines['t']!r} of {path}")
        axes = [
            axis_and_points(file, lines[name], name, size, "bounded", every)
            for name, size in zip(stored.axes, space, strict=True)
        ]
        _require_same_lines(file, names, lines)
        parameters, values = _parameters(file, names, stored)
        metadata = Metadata(
            name=path.stem,
            grid=Grid(tuple(axis for axis, _ in axes)),
            channels=stored.channels,
            frame_interval=sampling.interval,
            parameters=parameters,
            attributes={**source_attributes(path, sampling), "problem": problem},
        )
        variable = Variable("", components=len(stored.channels))
        runs = [
            Run(number, f"group {name!r}", file, (variable._replace(array=f"{name}/data"),), row)
            for number, (name, row) in enumerate(zip(names, values, strict=True))
        ]
        splits = split_numbers(len(runs), train, val, test, "test last")
        super().__init__(
            path, metadata, tuple(points for _, points in axes), sampling,
            {split: [runs[number] for number in numbers] for split, numbers in splits.items()},
            skip_bad_trajectories=skip_bad_trajectories,
        )  # fmt: skip


def _problem(path: Path, given: Problem | None) -> Problem:
    if given is not None:
        if given not in _PROBLEMS:
            raise ValueError(f"Expected a problem among {', '.join(_PROBLEMS)} but got {given!r}.")
        return given
    words = path.stem.lower().split("_")
    found = [problem for problem, stored in _PROBLEMS.items() if stored.word in words]
    if len(found) != 1:
        raise ValueError(
            f"Expected one of the words {', '.join(stored.word for stored in _PROBLEMS.values())} in the name of "
            f"{path}, as published, but found {found or 'none'}. Give problem=, one of {', '.join(_PROBLEMS)}."
        )
    return found[0]


def _runs_of(file: Hdf5File) -> list[str]:
    """Names of the groups by their numbers."""
    groups = [name for name in file.groups if name and "/" not in name]
    if not groups:
        raise ValueError(
            f"Expected a group for each run in {file.path}, '0000' and so on, but it holds "
            f"{', '.join(sorted(file.arrays)[:6]) or 'nothing'}. Is it another file of the collection?"
        )
    return [path.name for path in in_natural_order(map(Path, groups))]


def _shape(file: Hdf5File, names: list[str], stored: _Stored) -> tuple[int, ...]:
    """Shape of all runs without the channels."""
    shape = require_reals(file, f"{names[0]}/data")
    if len(shape) != len(stored.axes) + 2 or shape[-1] != len(stored.channels):
        raise ValueError(
            f"Expected data (time, {', '.join(stored.axes)}, {len(stored.channels)}) in the groups of {file.path} but "
            f"'{names[0]}/data' is {shape}. Is it another problem?"
        )
    for name in names:
        found = require_reals(file, f"{name}/data")
        if found != shape:
            raise ValueError(
                f"Expected the shape of '{names[0]}/data', {shape}, in all groups of {file.path} but '{name}/data' is "
                f"{found}. Take such runs out of the file."
            )
    return shape[:-1]


def _require_same_lines(file: Hdf5File, names: list[str], lines: dict[str, str]) -> None:
    """Refuse runs on other grids or at other times than the first one's."""
    for line, first in lines.items():
        wanted = read_line(file, first, math.prod(file.array(first).shape))
        for name in names[1:]:
            found = read_line(file, f"{name}/grid/{line}", len(wanted))
            if not np.allclose(found, wanted, rtol=0, atol=1e-3 * _gap(wanted)):
                raise ValueError(
                    f"Expected one grid and one set of times in {file.path} but '{name}/grid/{line}' differs from "
                    f"{first!r}. Take such runs out of the file."
                )


def _gap(line: Any) -> float:
    return float(abs(line[-1] - line[0])) / max(len(line) - 1, 1)


def _parameters(file: Hdf5File, names: list[str], stored: _Stored) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    """Names of the parameters that configurations state, and their values in each run."""
    of_file = file.attributes()
    rows: list[dict[str, float]] = []
    for name in names:
        what = f"{name!r} of {file.path}"
        text = file.attributes(name).get("config", of_file.get(f"{name}/config", ""))
        values = configuration(text, "sim", what=what)
        found = {ours: number_of(values, key, what=what) for key, ours in stored.parameters.items()}
        rows.append({key: value for key, value in found.items() if value is not None})
        if rows[-1].keys() != rows[0].keys():
            raise ValueError(
                f"Expected a configuration of the same parameters in all groups of {file.path} but that of {name!r} "
                f"states {sorted(rows[-1]) or 'none'} and that of {names[0]!r} {sorted(rows[0]) or 'none'}."
            )
    return tuple(rows[0]), [tuple(row.values()) for row in rows]

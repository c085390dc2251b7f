"""PDEBench's scalar equations in one dimension: advection, Burgers and reaction-diffusion.

Takamoto et al., *PDEBench: An extensive benchmark for scientific machine learning*, NeurIPS 2022, arXiv:2210.07182.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pdesurrogate.data.adapters.pdebench.runs import Run, RunSet, Variable
from pdesurrogate.data.adapters.pdebench.sampling import (
    axis_and_points,
    read_line,
    require_reals,
    sample,
    source_attributes,
    split_numbers,
    stated_number,
)
from pdesurrogate.data.hdf5_file import Hdf5File
from pdesurrogate.fields.grid import Channel, Grid, Metadata

Equation = Literal["advection", "burgers", "reaction_diffusion"]


class _Coefficient(NamedTuple):
    """A parameter of ours, the attribute and the word of the name that state it, and what to multiply that by."""

    name: str
    attribute: str
    prefix: str
    factor: float = 1.0


# The authors' Burgers solver takes Nu / pi as coefficient of the second derivative.
_COEFFICIENTS: dict[Equation, tuple[_Coefficient, ...]] = {
    "advection": (_Coefficient("advection_velocity", "beta", "beta"),),
    "burgers": (_Coefficient("viscosity", "Nu", "Nu", 1 / math.pi),),
    "reaction_diffusion": (_Coefficient("diffusivity", "Nu", "Nu"), _Coefficient("reaction_rate", "rho", "Rho")),
}
_WORDS: dict[str, Equation] = {"advection": "advection", "burgers": "burgers", "reacdiff": "reaction_diffusion"}


class PdeBench1d(RunSet):
    """One file of a scalar equation on a periodic line; an `Adapter`.

    ``tensor (trajectory, time, x)`` becomes the channel ``u`` at the centers of cells. Parameters are coefficients of
    the equation as it was solved: ``advection_velocity`` (the file's ``beta``); ``viscosity``, which is the file's
    ``Nu`` over pi; or ``diffusivity`` (``Nu``) and ``reaction_rate`` (``rho``).

    Args:
        path: the file.
        equation: by default the attributes and the name say.
        train: trajectories for training and validation; by default all but the tests.
        val: cut from the end of those.
        test: trajectories at the start of the file; by default a tenth, both as the authors' loader has it.
        interval: time between frames, a multiple of the stored interval (their ``reduced_resolution_t``).
        every: 2 keeps every second point, and so on (their ``reduced_resolution``); no filter.
        skip_bad_trajectories: go on without trajectories whose last frame is not finite or nothing but zeros; otherwise
            such frames are refused when read.

    Raises:
        ValueError: if the file is truncated, lacks an array, holds other shapes or uneven coordinates or times, or
            does not state its equation and coefficients.
    """

    def __init__(
        self,
        path: str | Path,
        equation: Equation | None = None,
        train: int | None = None,
        val: int = 0,
        test: int | None = None,
        interval: float | None = None,
        every: int = 1,
        skip_bad_trajectories: bool = False,
    ) -> None:
        path = Path(path)
        file = Hdf5File(path)
        shape = require_reals(file, "tensor")
        if len(shape) != 3:
            steady = " It looks like steady Darcy flow, which has no trajectories." if "nu" in file.arrays else ""
            raise ValueError(f"Expected tensor (trajectory, time, x) in {path} but found {shape}.{steady}")
        trajectories, frames, size = shape
        what = f"'t-coordinate' of {path}"
        sampling = sample(read_line(file, "t-coordinate", frames, frames + 1), frames, interval, every, what=what)
        axis, points = axis_and_points(file, "x-coordinate", "x", size, "periodic", every)
        equation = _equation(path, file.attributes(), equation)
        parameters = _parameters(file, equation)
        metadata = Metadata(
            name=path.stem,
            grid=Grid((axis,)),
            channels=(Channel("u", "1", f"solution of the {equation.replace('_', '-')} equation", location="cell"),),
            frame_interval=sampling.interval,
            parameters=tuple(parameters),
            attributes={**source_attributes(path, sampling), "equation": equation},
        )
        values = tuple(parameters.values())
        runs = {
            split: [Run(each, f"trajectory {each}", file, (Variable("tensor", (each,)),), values) for each in numbers]
            for split, numbers in split_numbers(trajectories, train, val, test, "test first").items()
        }
        super().__init__(path, metadata, (points,), sampling, runs, skip_bad_trajectories=skip_bad_trajectories)


def _equation(path: Path, attributes: Mapping[str, Any], given: Equation | None) -> Equation:
    if given is not None:
        if given not in _COEFFICIENTS:
            raise ValueError(f"Expected an equation among {', '.join(_COEFFICIENTS)} but got {given!r}.")
        return given
    words = path.stem.lower().split("_")
    found = {equation for word, equation in _WORDS.items() if word in words}
    stated = {coefficient for coefficient in ("beta", "Nu", "rho") if coefficient in attributes}
    found |= {
        equation
        for equation, coefficients in _COEFFICIENTS.items()
        if stated and stated == {coefficient.attribute for coefficient in coefficients}
    }
    if len(found) != 1:
        raise ValueError(
            f"Expected one equation among {', '.join(_COEFFICIENTS)} but the name of {path} and its attributes "
            f"{sorted(stated)} speak of {sorted(found) or 'none'}. Give equation=."
        )
    return found.pop()


def _parameters(file: Hdf5File, equation: Equation) -> dict[str, float]:
    values = {}
    for name, attribute, prefix, factor in _COEFFICIENTS[equation]:
        value = stated_number(file, attribute, prefix)
        if value is None:
            raise ValueError(
                f"Expected the attribute {attribute!r} in {file.path}, or {prefix} and a number in its name, but "
                "neither is there. Give the file the name under which it was published."
            )
        values[name] = factor * value
    return values

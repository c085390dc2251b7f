"""PDEBench's compressible flow: ``1D_CFD_*.hdf5``, ``2D_CFD_*.hdf5`` and ``3D_CFD_*.hdf5``.

Takamoto et al., *PDEBench: An extensive benchmark for scientific machine learning*, NeurIPS 2022, arXiv:2210.07182.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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

_AXES = ("x", "y", "z")
# Words of the published names; ``trans`` lets waves out.
_BOUNDARY_WORDS: dict[str, Literal["periodic", "outgoing"]] = {"periodic": "periodic", "trans": "outgoing"}


class PdeBenchCompressible(RunSet):
    """One file of compressible flow in one, two or three dimensions; an `Adapter`.

    ``density``, ``pressure``, ``Vx``, ``Vy`` and ``Vz`` of shape ``(trajectory, time, x[, y[, z]])`` become the
    channels density, velocity_x, velocity_y, velocity_z, pressure: primitive variables at the centers of cells. The
    times have one entry more than there are frames; it is the last, and left out. Parameters are shear_viscosity
    (``eta``) and bulk_viscosity (``zeta``), both of which the generator multiplies by the density, mach (``M``) where
    it is stated, and gamma.

    Args:
        path: the file.
        boundary: ``periodic`` or ``outgoing``; by default the word ``periodic`` or ``trans`` of the name says.
        shear_viscosity: by default the attribute ``eta`` or the name says.
        bulk_viscosity: by default the attribute ``zeta`` or the name says.
        mach: of the initial flow; by default the attribute ``M`` or the name, and no parameter without either.
        gamma: ratio of heat capacities; not stored, 5/3 in the authors' configurations.
        train: trajectories for training and validation; by default all but the tests.
        val: cut from the end of those.
        test: trajectories at the start of the file; by default a tenth, both as the authors' loader has it.
        interval: time between frames, a multiple of the stored interval (their ``reduced_resolution_t``).
        every: 2 keeps every second cell along each axis, and so on (their ``reduced_resolution``). That is no filter:
            small waves alias, and sums over what is left are not conserved.
        skip_bad_trajectories: go on without trajectories whose last frame is not finite or nothing but zeros, as where
            the authors' solver failed; otherwise such frames are refused when read.

    Raises:
        ValueError: if the file is truncated, lacks an array, holds other shapes or uneven coordinates or times, or
            neither it nor the options state boundary and viscosities.
    """

    def __init__(
        self,
        path: str | Path,
        boundary: Literal["periodic", "outgoing"] | None = None,
        shear_viscosity: float | None = None,
        bulk_viscosity: float | None = None,
        mach: float | None = None,
        gamma: float = 5 / 3,
        train: int | None = None,
        val: int = 0,
        test: int | None = None,
        interval: float | None = None,
        every: int = 1,
        skip_bad_trajectories: bool = False,
    ) -> None:
        path = Path(path)
        file = Hdf5File(path)
        names, (trajectories, frames, *space) = _layout(file)
        what = f"'t-coordinate' of {path}"
        sampling = sample(read_line(file, "t-coordinate", frames, frames + 1), frames, interval, every, what=what)
        boundary = _boundary(path, boundary)
        kind: Literal["periodic", "bounded"] = "periodic" if boundary == "periodic" else "bounded"
        lines = [
            axis_and_points(file, f"{axis}-coordinate", axis, size, kind, every)
            for axis, size in zip(_AXES, space, strict=False)
        ]
        parameters = _parameters(file, shear_viscosity, bulk_viscosity, mach, gamma)
        metadata = Metadata(
            name=path.stem,
            grid=Grid(tuple(axis for axis, _ in lines)),
            channels=_channels(len(space)),
            frame_interval=sampling.interval,
            parameters=tuple(parameters),
            attributes={**source_attributes(path, sampling), "boundary": boundary},
        )
        splits = split_numbers(trajectories, train, val, test, "test first")
        runs = {
            split: [
                Run(
                    number,
                    f"trajectory {number}",
                    file,
                    tuple(Variable(name, (number,)) for name in names),
                    tuple(parameters.values()),
                )
                for number in numbers
            ]
            for split, numbers in splits.items()
        }
        super().__init__(
            path, metadata, tuple(points for _, points in lines), sampling, runs,
            skip_bad_trajectories=skip_bad_trajectories,
        )  # fmt: skip


def _layout(file: Hdf5File) -> tuple[list[str], tuple[int, ...]]:
    """Arrays in the order of the channels, and their shape."""
    shape = require_reals(file, "density")
    if len(shape) not in (3, 4, 5):
        raise ValueError(f"Expected density (trajectory, time, x[, y[, z]]) in {file.path} but found {shape}.")
    names = ["density", *(f"V{axis}" for axis in _AXES[: len(shape) - 2]), "pressure"]
    for name in names:
        found = require_reals(file, name)
        if found != shape:
            raise ValueError(
                f"Expected {name!r} of {file.path} to have the shape of density, {shape}, but found {found}."
            )
    return names, shape


def _boundary(path: Path, given: Literal["periodic", "outgoing"] | None) -> Literal["periodic", "outgoing"]:
    if given is not None:
        if given not in _BOUNDARY_WORDS.values():
            raise ValueError(f"Expected boundary 'periodic' or 'outgoing' but got {given!r}.")
        return given
    found = {_BOUNDARY_WORDS[word] for word in path.stem.lower().split("_") if word in _BOUNDARY_WORDS}
    if len(found) != 1:
        raise ValueError(
            f"Expected one of the words {' or '.join(_BOUNDARY_WORDS)} in the name of {path}, as published, but found "
            f"{sorted(found) or 'none'}: the file does not say what happens at its boundary. Give "
            "boundary='periodic' or boundary='outgoing'."
        )
    return found.pop()


def _parameters(
    file: Hdf5File, shear: float | None, bulk: float | None, mach: float | None, gamma: float
) -> dict[str, float]:
    found = {
        "shear_viscosity": stated_number(file, "eta", "Eta", shear),
        "bulk_viscosity": stated_number(file, "zeta", "Zeta", bulk),
        "mach": stated_number(file, "M", "M", mach),
        "gamma": gamma,
    }
    missing = [name for name, value in found.items() if value is None and name != "mach"]
    if missing:
        raise ValueError(
            f"Expected the attributes eta and zeta in {file.path}, or Eta and Zeta in its name, but {missing} are not "
            f"stated. Give {' and '.join(f'{name}=' for name in missing)}."
        )
    known = {name: value for name, value in found.items() if value is not None}
    if min(known.values()) < 0 or not gamma > 1:
        raise ValueError(f"Expected viscosities and mach >= 0 and gamma > 1 for {file.path} but got {known}.")
    return known


def _channels(dimension: int) -> tuple[Channel, ...]:
    velocity = [
        Channel(f"velocity_{axis}", "length/time", f"velocity along {axis}", location="cell", vector="velocity")
        for axis in _AXES[:dimension]
    ]
    return (
        Channel("density", "mass/length^3", "mass density", location="cell"),
        *velocity,
        Channel("pressure", "mass/(length time^2)", "pressure", location="cell"),
    )

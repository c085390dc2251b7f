"""Test and validation sets of the ProbConserv paper: ``.npz``, functions of the GPME family at scattered points.

Hansen, Maddix, Alizadeh, Gupta & Mahoney, *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023,
arXiv:2302.11002. The card ``datasets/gpme`` says what the files are.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import require_file
from pdesurrogate.data.catalog import datasets_directory
from pdesurrogate.fields.point_set import PointSet

_POINTS = ("context_tx", "context_u", "target_tx", "target_u")


class _Family(NamedTuple):
    """What sets of one equation have in common; ends of ranges belong to them, but for those of the parameter."""

    parameter_name: str
    parameter_bounds: tuple[float, float]
    last_time: float


# By the array that holds the parameter.
_FAMILIES = {
    "degree_m": _Family("degree", (0.0, float("inf")), 1.0),
    "u_star": _Family("threshold", (0.0, 1.0), 0.1),
}


class GpmeNpz:
    """One set of functions; a source of points for `PointData`.

    Points are columns t and x, in order of time, then place. Arrays that are not needed are left alone.

    Args:
        path: a file, or the name of a set that comes with the package: ``pme_test``, ``pme_valid``, ``stefan_test`` or
            ``stefan_valid``.

    Raises:
        ValueError: if there is no such file or set, it holds pickled objects or lacks an array, or shapes, ranges or
            values are not those of such a set.

    Example:
        >>> published = GpmeNpz("pme_test")
        >>> published.parameter_name, published.points().parameters[::50].flatten().tolist()
        ('degree', [1.0, 3.0, 6.0])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _found(path)
        arrays = _read(self.path)
        parameter, family = _family(arrays, self.path)
        self._points = _checked(arrays, parameter, family, self.path)
        self._parameter_name = family.parameter_name

    @property
    def parameter_name(self) -> str:
        """``"degree"`` of the porous medium equation, or ``"threshold"`` of the Stefan problem."""
        return self._parameter_name

    def points(self) -> PointSet:
        """All functions in file order, float32."""
        return self._points


def _found(path: str | Path) -> Path:
    """A file, or that of a shipped set."""
    given = Path(path)
    if given.suffix or given.exists() or given.name != str(path):
        require_file(given)
        return given
    directory = datasets_directory() / "gpme"
    shipped = directory / f"{path}.npz"
    if not shipped.is_file():
        names = ", ".join(sorted(file.stem for file in directory.glob("*.npz")))
        raise ValueError(f"Expected a file, or a set among {names}, but got {str(path)!r}.")
    return shipped


def _read(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays; nothing is ever unpickled."""
    try:
        # Opened here, since numpy leaves a file that it cannot read open.
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it is no zip archive of arrays")
            return dict(content)
    except Exception as error:  # damaged bytes make the parser raise errors of any kind
        raise ValueError(
            f"Expected an .npz file of plain arrays but {path} cannot be read ({error}). "
            "`pdesurrogate datasets show gpme` says how such a file is laid out."
        ) from error


def _family(arrays: dict[str, npt.NDArray[np.generic]], path: Path) -> tuple[str, _Family]:
    missing = [name for name in _POINTS if name not in arrays]
    found = [name for name in _FAMILIES if name in arrays]
    if missing or len(found) != 1:
        raise ValueError(
            f"Expected the arrays {', '.join(_POINTS)} and either {' or '.join(_FAMILIES)} in {path} but got "
            f"{', '.join(arrays) or 'none'}."
        )
    return found[0], _FAMILIES[found[0]]


def _checked(arrays: dict[str, npt.NDArray[np.generic]], parameter: str, family: _Family, path: Path) -> PointSet:
    functions = arrays[parameter].shape[:1]
    shapes = {name: functions for name in (parameter, "x_scale") if name in arrays}
    for part in ("context", "target"):
        points = arrays[f"{part}_tx"].shape[1:2]
        shapes |= {f"{part}_tx": (*functions, *points, 2), f"{part}_u": (*functions, *points)}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or not array.size or not np.issubdtype(array.dtype, np.floating):
            raise ValueError(
                f"Expected real {name} {shape}, functions in front and as many points as in its set, in {path} but got "
                f"{array.shape}, {array.dtype}."
            )
        if not np.isfinite(array).all():
            function = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(
                f"Expected finite values but {name} of function {function} of {path} holds NaN or infinity; "
                "download the file again, or leave that function out."
            )
    tensors: dict[str, Tensor] = {name: torch.from_numpy(arrays[name]).float() for name in shapes}
    values = tensors[parameter]
    low, high = family.parameter_bounds
    if not bool(((values > low) & (values < high)).all()):
        raise ValueError(f"Expected {parameter} between {low:g} and {high:g}, both left out, in {path}.")
    if "x_scale" in tensors and not bool((tensors["x_scale"] == 1).all()):
        raise ValueError(
            f"Expected x_scale 1 for all functions of {path}: scaled places are not those of the solution."
        )
    last = torch.tensor([family.last_time, 1.0])
    for name in ("context_tx", "target_tx"):
        if not bool(((tensors[name] >= 0) & (tensors[name] <= last)).all()):
            raise ValueError(
                f"Expected times from 0 to {family.last_time:g} and places from 0 to 1 in {name} of {path} but got "
                f"{tensors[name].amin((0, 1)).tolist()} to {tensors[name].amax((0, 1)).tolist()}; columns are t and x."
            )
    return PointSet(
        tensors["context_tx"],
        tensors["context_u"].unsqueeze(-1),
        tensors["target_tx"],
        tensors["target_u"].unsqueeze(-1),
        values.unsqueeze(-1),
    )

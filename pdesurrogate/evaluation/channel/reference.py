"""Published direct simulations of turbulent channels: profiles and line spectra in wall units, small files inside.

Lengths are in units of ``nu / u_tau``, velocities of ``u_tau`` and stresses of ``u_tau^2``, where the velocity gradient
at the wall is one. Wavenumbers of spectra are times the half height.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import xarray as xr
from numpy.typing import NDArray

CITATION = (
    "R. D. Moser, J. Kim and N. N. Mansour, Direct numerical simulation of turbulent channel flow up to "
    "Re_tau = 590, Physics of Fluids 11 (1999) 943-945, doi:10.1063/1.869966"
)
# Nominal friction Reynolds numbers of the tables.
NOMINAL = (180, 395, 590)
# A run this far from one of them, relative to it, is another flow.
_NEAR = 0.1

COMPONENTS = ("velocity_x", "velocity_y", "velocity_z")
_LETTERS = "uvw"


@dataclass(frozen=True, eq=False)
class ChannelReference:
    """A published channel: x along the mean flow, y from the wall, z along the span.

    Attributes:
        name: how figures call it.
        citation: whose work it is.
        curves: ``mean_velocity_plus``, ``mean_gradient_plus``, ``rms_velocity_plus``, ``shear_stress_plus`` (that is
            ``-<u'v'>``) and ``total_stress_plus`` over ``wall_distance_plus`` from the wall to the middle, the rms over
            ``velocity_component`` too; ``line_spectrum_x`` and ``line_spectrum_z`` over ``velocity_component``,
            ``plane_distance_plus`` and ``line_wavenumber_x`` or ``_z``, energies of modes that add up to the mean
            square, as `metrics.line_spectra` defines them; and single numbers, named as in `ChannelMetric`:
            ``friction_reynolds_number``, ``friction_coefficient``, ``bulk_velocity_plus``,
            ``centerline_velocity_plus``, ``total_stress_deviation``.
    """

    name: str
    citation: str
    curves: xr.Dataset

    @property
    def friction_reynolds_number(self) -> float:
        """``u_tau h / nu``."""
        return float(self.curves["friction_reynolds_number"])

    @property
    def bulk_reynolds_number(self) -> float:
        """``U_b h / nu`` of the mean velocity over the height."""
        return self.friction_reynolds_number * float(self.curves["bulk_velocity_plus"])


def channel_reference(reynolds_number: float) -> ChannelReference:
    """The published channel nearest to a friction Reynolds number.

    Moser, Kim and Mansour, Physics of Fluids 11 (1999) 943, doi:10.1063/1.869966: nominally 180, 395 and 590.

    Raises:
        ValueError: if none lies within a tenth of it.

    Example:
        >>> reference = channel_reference(180)
        >>> reference.friction_reynolds_number, round(reference.bulk_reynolds_number)
        (178.12, 2793)
    """
    nominal = min(NOMINAL, key=lambda each: abs(each - reynolds_number))
    if not abs(nominal - reynolds_number) <= _NEAR * nominal:
        raise ValueError(
            f"Expected a friction Reynolds number near one of {NOMINAL} but got {reynolds_number:g}; compare with "
            "profiles of your own instead."
        )
    comments, profiles = _read(f"mkm_{nominal}_profiles.csv")
    reynolds = float(next(line for line in comments if "friction_reynolds_number" in line).split("=")[1])
    return ChannelReference(f"Moser, Kim & Mansour, {nominal}", CITATION, _curves(nominal, reynolds, profiles))


def _curves(nominal: int, reynolds: float, profiles: dict[str, NDArray[np.float64]]) -> xr.Dataset:
    distance, mean = profiles["y_plus"], profiles["mean"]
    over = ("wall_distance_plus",)
    total = profiles["mean_gradient"] + profiles["shear_stress"]
    bulk = float(np.trapezoid(mean, distance) / distance[-1])
    curves = xr.Dataset(
        {
            "mean_velocity_plus": (over, mean),
            "mean_gradient_plus": (over, profiles["mean_gradient"]),
            "rms_velocity_plus": (("velocity_component", *over), np.stack([profiles[f"rms_{c}"] for c in _LETTERS])),
            "shear_stress_plus": (over, profiles["shear_stress"]),
            "total_stress_plus": (over, total),
            "friction_reynolds_number": reynolds,
            "friction_coefficient": 2 / bulk**2,
            "bulk_velocity_plus": bulk,
            "centerline_velocity_plus": float(mean[-1]),
            "total_stress_deviation": float(np.abs(total - (1 - distance / distance[-1])).max()),
        },
        coords={"wall_distance_plus": distance, "velocity_component": list(COMPONENTS)},
    )
    for axis in "xz":
        _, columns = _read(f"mkm_{nominal}_spectra_{axis}.csv")
        planes = [float(name.removeprefix("u_")) for name in columns if name.startswith("u_")]
        energy = np.stack([[columns[f"{letter}_{plane:g}"] for plane in planes] for letter in _LETTERS])
        wave = f"line_wavenumber_{axis}"
        curves[f"line_spectrum_{axis}"] = (("velocity_component", "plane_distance_plus", wave), energy)
        curves = curves.assign_coords({"plane_distance_plus": planes, wave: columns["wavenumber"]})
    return curves


def _read(name: str) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Comments and columns of one of our small tables."""
    text = files("pdesurrogate.evaluation.channel").joinpath("data", name).read_text(encoding="utf-8")
    lines = text.splitlines()
    comments = [line for line in lines if line.startswith("#")]
    header, *rows = lines[len(comments) :]
    table = np.asarray([row.split(",") for row in rows], dtype=np.float64)
    return comments, dict(zip(header.split(","), table.T, strict=True))

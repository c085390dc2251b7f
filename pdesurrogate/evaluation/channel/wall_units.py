"""Statistics of a turbulent channel in wall units, from wherever they come: a report, a run of the solver, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pdesurrogate.evaluation.channel.reference import ChannelReference

Side = Literal["prediction", "truth"]
Array = NDArray[np.float64]

# Profiles that every source has, beside the rms of each component, and numbers.
PROFILES = ("mean_velocity", "shear_stress", "total_stress")
NUMBERS = (
    "friction_reynolds_number",
    "friction_coefficient",
    "bulk_velocity_plus",
    "centerline_velocity_plus",
    "total_stress_deviation",
)


class Number(NamedTuple):
    """A value and its standard error, NaN where that is unknown."""

    value: float
    error: float


class Profile(NamedTuple):
    """Values over the distance from the wall; arrays ``(n,)`` in wall units, from the wall to the middle.

    Attributes:
        distance: ``y+``.
        values: at these distances.
        error: standard error, NaN where unknown.
    """

    distance: Array
    values: Array
    error: Array


class LineSpectrum(NamedTuple):
    """Energy of each mode along an axis in one plane, over ``u_tau^2``; the modes add up to the mean square.

    Attributes:
        distance: of the plane from the wall, ``y+``.
        wavenumber: ``(modes,)`` from zero, times the half height.
        energy: ``(modes,)``, both signs folded in.
        error: standard error, NaN where unknown.
    """

    distance: float
    wavenumber: Array
    energy: Array
    error: Array

    @property
    def density(self) -> tuple[Array, Array]:
        """Wavenumbers above zero and the energy per wavenumber there: boxes of other lengths have other modes."""
        return self.wavenumber[1:], self.energy[1:] / self.wavenumber[1]


@dataclass(frozen=True, eq=False)
class WallUnitStatistics:
    """One turbulent channel in its own wall units, both halves folded; x along the flow, y across the channel.

    Attributes:
        numbers: by the names of `ChannelMetric`: ``friction_reynolds_number``, ``friction_coefficient``,
            ``bulk_velocity_plus``, ``centerline_velocity_plus``, ``total_stress_deviation``.
        profiles: ``mean_velocity``, ``rms_velocity_x``, ``_y``, ``_z``, ``shear_stress`` (that is ``-<u'v'>``) and
            ``total_stress``.
        spectra: by axis (``x`` or ``z``) and component (``velocity_x``, ...), one for each plane; empty where none were
            taken.
    """

    numbers: Mapping[str, Number]
    profiles: Mapping[str, Profile]
    spectra: Mapping[tuple[str, str], Sequence[LineSpectrum]]

    @classmethod
    def of_reference(cls, reference: ChannelReference) -> WallUnitStatistics:
        """Of a published channel; its errors are not known.

        Example:
            >>> from pdesurrogate.evaluation.channel.reference import channel_reference
            >>> found = WallUnitStatistics.of_reference(channel_reference(395))
            >>> round(float(found.profiles["rms_velocity_x"].values.max()), 3), len(found.spectra["z", "velocity_y"])
            (2.739, 5)
        """
        curves = reference.curves
        distance = curves["wall_distance_plus"].values
        numbers = {name: Number(float(curves[name]), np.nan) for name in NUMBERS}
        profiles = {name: _profile(distance, curves[f"{name}_plus"].values) for name in PROFILES}
        spectra = {}
        for name in curves["velocity_component"].values.tolist():
            part = curves.sel(velocity_component=name)
            profiles[f"rms_{name}"] = _profile(distance, part["rms_velocity_plus"].values)
            for axis in "xz":
                waves = curves[f"line_wavenumber_{axis}"].values
                spectra[axis, name] = [
                    _spectrum(float(plane), waves, part[f"line_spectrum_{axis}"].sel(plane_distance_plus=plane).values)
                    for plane in curves["plane_distance_plus"].values
                ]
        return cls(numbers, profiles, spectra)

    @classmethod
    def of_report(
        cls, curves: xr.Dataset, side: Side = "truth", friction_velocity: float | None = None
    ) -> WallUnitStatistics:
        """Of one side of a report (`Report.curves`) with `ChannelMetric`, and `LineSpectrumMetric` where it is there.

        Args:
            curves: measured on data that state a viscosity.
            side: whose statistics.
            friction_velocity: that makes the wall units; by default from the gradient at the walls, see
                `ChannelMetric` for how good that is on coarse grids. Of a coarse-grained set the fine run's is best; of
                a simulation on a coarse grid the momentum balance's, ``stress_friction_velocity`` in the report.

        Raises:
            ValueError: if there is no channel in wall units.
        """
        names = [f"{name}_plus" for name in (*PROFILES, "rms_velocity", "wall_distance")]
        needed = [f"{name}_{side}" for name in ("friction_velocity", *NUMBERS, *names)]
        missing = [name for name in needed if name not in curves]
        if missing:
            raise ValueError(
                f"Expected statistics of a channel in wall units but {missing} are missing; measure with ChannelMetric "
                "on data that state a viscosity."
            )
        own = float(curves[f"friction_velocity_{side}"])
        velocity = own if friction_velocity is None else friction_velocity
        scale = velocity / own
        distance = curves[f"wall_distance_plus_{side}"].values * scale
        powers = {
            "friction_reynolds_number": -1,
            "friction_coefficient": -2,
            "bulk_velocity_plus": 1,
            "centerline_velocity_plus": 1,
        }
        numbers = {}
        for name in NUMBERS:
            parts = (float(part) / scale ** powers.get(name, 0) for part in _with_error(curves, f"{name}_{side}"))
            numbers[name] = Number(*parts)
        profiles = {}
        for name in PROFILES:
            values, error = _with_error(curves, f"{name}_plus_{side}")
            unit = scale if name == "mean_velocity" else scale**2
            profiles[name] = Profile(distance, values / unit, error / unit)
        if friction_velocity is not None:
            reynolds = numbers["friction_reynolds_number"].value
            numbers["total_stress_deviation"] = _stress_deviation(profiles["total_stress"], reynolds)
        values, error = _with_error(curves, f"rms_velocity_plus_{side}")
        for row, name in enumerate(curves["velocity_component"].values.tolist()):
            profiles[f"rms_{name}"] = Profile(distance, values[row] / scale, error[row] / scale)
        length = float(curves["wall_distance"][-1]) / float(distance[-1])
        half_height = numbers["friction_reynolds_number"].value * length
        return cls(numbers, profiles, _spectra_of_report(curves, side, velocity, length, half_height))

    @classmethod
    def of_run(cls, statistics: xr.Dataset) -> WallUnitStatistics:
        """Of the statistics that a run of the solver gathered (``statistics.nc``, `simulators.channel.statistics`).

        Wall units are by the mean stress on the walls as the solver has it. Of a large-eddy simulation shear stress and
        rms are the resolved ones, and the total stress holds the closure's.

        Raises:
            ValueError: if they are not of a channel.
        """
        components = ("x", "y", "z")
        profiles = {name: f"{name}_plus" for name in PROFILES}
        profiles |= {f"rms_velocity_{axis}": f"rms_velocity_{axis}_plus" for axis in components}
        needed = (*profiles.values(), "friction_velocity", "friction_coefficient")
        missing = [name for name in needed if name not in statistics]
        if missing:
            raise ValueError(f"Expected statistics of a run of a channel but {missing} are missing.")
        velocity = float(statistics["friction_velocity"])
        half_height = float(statistics.attrs["half_height"])
        length = float(statistics.attrs["viscosity"]) / velocity
        found = {}
        for name, stored in profiles.items():
            values, error = _with_error(statistics, stored, "_error")
            distance = statistics[f"{statistics[stored].dims[0]}_plus"].values
            found[name] = Profile(distance, values, error)
        numbers = {
            name: Number(*(float(part) for part in _with_error(statistics, name, "_error")))
            for name in NUMBERS
            if name in statistics
        }
        # The bulk velocity may be held, then its error is that of the friction velocity alone.
        friction = numbers["friction_coefficient"]
        bulk = (2 / friction.value) ** 0.5
        numbers["bulk_velocity_plus"] = Number(bulk, bulk * friction.error / (2 * friction.value))
        numbers["total_stress_deviation"] = _stress_deviation(found["total_stress"], half_height / length)
        spectra = {}
        for axis in "xz":
            waves = statistics[f"wavenumber_{axis}"].values * half_height
            values, error = _with_error(statistics, f"spectrum_{axis}", "_error")
            for row, component in enumerate(components):
                places = statistics["plane_distance_face" if component == "y" else "plane_distance"].values / length
                spectra[axis, f"velocity_{component}"] = [
                    LineSpectrum(float(place), waves, values[row, plane], error[row, plane])
                    for plane, place in enumerate(places)
                ]
        return cls(numbers, found, spectra)


def _stress_deviation(total: Profile, reynolds: float) -> Number:
    """Largest distance of the total stress from ``1 - y / h``; its error is not known."""
    line = 1 - total.distance / reynolds
    return Number(float(np.abs(total.values - line).max()), np.nan)


def _spectra_of_report(
    curves: xr.Dataset, side: str, velocity: float, length: float, half_height: float
) -> dict[tuple[str, str], list[LineSpectrum]]:
    found = {}
    for axis in "xz":
        name = f"line_spectrum_{axis}_{side}"
        if name not in curves:
            continue
        values, error = (part / velocity**2 for part in _with_error(curves, name))
        waves = curves[f"line_wavenumber_{axis}"].values * half_height
        channels = curves[name][str(curves[name].dims[0])].values.tolist()
        for row, channel in enumerate(channels):
            found[axis, channel] = [
                LineSpectrum(float(distance) / length, waves, values[row, plane], error[row, plane])
                for plane, distance in enumerate(curves["plane_distance"].values)
            ]
    return found


def _with_error(curves: xr.Dataset, name: str, ending: str = "_standard_error") -> tuple[Any, Any]:
    """Values of a variable and of its error, NaN where there is none."""
    values = curves[name].values
    return values, curves[f"{name}{ending}"].values if f"{name}{ending}" in curves else np.full_like(values, np.nan)


def _profile(distance: Array, values: Array) -> Profile:
    return Profile(distance, values, np.full_like(values, np.nan))


def _spectrum(distance: float, waves: Array, energy: Array) -> LineSpectrum:
    return LineSpectrum(distance, waves, energy, np.full_like(energy, np.nan))

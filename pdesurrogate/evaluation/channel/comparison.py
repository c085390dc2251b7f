"""How far a turbulent channel is from another, published or not: numbers, profiles over ``y+`` and line spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from pdesurrogate.evaluation.channel.reference import ChannelReference
from pdesurrogate.evaluation.channel.wall_units import NUMBERS, LineSpectrum, Number, Profile, Side, WallUnitStatistics
from pdesurrogate.evaluation.report import Report

# Planes whose distances from the wall differ by more than this factor are not compared.
_SAME_PLANE = 1.3
# Modes are compared up to this share of the run's highest wavenumber, where a wave is four points long.
_RESOLVED = 0.5


class Quantity(NamedTuple):
    """A number of a run beside that of the reference.

    Attributes:
        value: of the run.
        error: its standard error, NaN where unknown.
        reference: of the reference.
        reference_error: its standard error; NaN where unknown, as for published ones.
    """

    value: float
    error: float
    reference: float
    reference_error: float = np.nan

    @property
    def deviation(self) -> float:
        """Relative to the reference."""
        return self.value / self.reference - 1


@dataclass(frozen=True, eq=False)
class ChannelComparison:
    """A channel beside its reference, each in wall units of its own.

    Attributes:
        quantities: `NUMBERS`, and ``largest_<profile>`` of each rms and of the shear stress, at the run's own points.
        distances: of profiles, see `profile_distance`.
        spectral_distances: by axis, component and ``y+`` of the reference's plane, see `spectral_distance`; only where
            the run has a plane whose ``y+`` agrees within a factor of 1.3.
    """

    quantities: dict[str, Quantity]
    distances: dict[str, float]
    spectral_distances: dict[tuple[str, str, float], float]

    def table(self) -> str:
        """Single numbers, distances of profiles, and those of spectra on the mean over planes, as lines of text."""
        lines = [f"{'':28}{'run':>10}{'+-':>9}{'reference':>11}{'+-':>9}{'deviation':>11}"]
        for name, quantity in self.quantities.items():
            own, other = (
                "" if np.isnan(error) else f"{error:.2g}" for error in (quantity.error, quantity.reference_error)
            )
            lines.append(
                f"{name:28}{quantity.value:10.4g}{own:>9}{quantity.reference:11.4g}{other:>9}{quantity.deviation:11.1%}"
            )
        lines += [f"{f'relative L1 of {name}':67}{distance:11.1%}" for name, distance in self.distances.items()]
        for axis, component in dict.fromkeys(key[:2] for key in self.spectral_distances):
            chosen = [far for key, far in self.spectral_distances.items() if key[:2] == (axis, component)]
            lines.append(f"{f'log10 distance of spectra along {axis}, {component}':67}{np.nanmean(chosen):11.2f}")
        return "\n".join(lines)


def compare_with_reference(
    statistics: Report | WallUnitStatistics, reference: ChannelReference | WallUnitStatistics, side: Side = "truth"
) -> ChannelComparison:
    """How far a channel is from a published one, or from what a run of the solver gathered.

    Args:
        statistics: of the channel; of a report those of one side are taken as `WallUnitStatistics.of_report` does.
        reference: a published one, or any statistics, such as those of the run that made the data.
        side: of a report.

    Raises:
        ValueError: if a report holds no channel in wall units.

    Example:
        >>> from pdesurrogate.evaluation.channel.reference import channel_reference
        >>> low, high = channel_reference(395), channel_reference(590)
        >>> found = compare_with_reference(WallUnitStatistics.of_reference(low), high)
        >>> round(found.quantities["largest_rms_velocity_x"].deviation, 3), round(found.distances["mean_velocity"], 2)
        (-0.013, 0.01)
    """
    run = WallUnitStatistics.of_report(statistics.curves, side) if isinstance(statistics, Report) else statistics
    known = WallUnitStatistics.of_reference(reference) if isinstance(reference, ChannelReference) else reference
    shared_numbers = [name for name in NUMBERS if name in run.numbers and name in known.numbers]
    quantities = {name: Quantity(*run.numbers[name], *known.numbers[name]) for name in shared_numbers}
    shared = [name for name in known.profiles if name in run.profiles]
    for name in shared:
        if name.startswith("rms_") or name == "shear_stress":
            peak = _largest(run.profiles[name])
            quantities[f"largest_{name}"] = Quantity(*peak, *_largest(known.profiles[name]))
    distances = {name: profile_distance(run.profiles[name], known.profiles[name]) for name in shared}
    spectra = {}
    for (axis, component), planes in known.spectra.items():
        for plane in planes:
            nearest = nearest_plane(run.spectra.get((axis, component), ()), plane.distance)
            if nearest is not None:
                spectra[axis, component, plane.distance] = spectral_distance(nearest, plane)
    return ChannelComparison(quantities, distances, spectra)


def profile_distance(run: Profile, reference: Profile) -> float:
    """``sum |run - reference| / sum |reference|`` over the run's points, weighted with the ``y+`` they stand for.

    The reference is interpolated without overshoots; beyond its ends it is taken as constant.

    Example:
        >>> y = np.linspace(0.0, 180.0, 10)
        >>> round(profile_distance(Profile(y, 1.1 * y, y), Profile(y, y, y)), 12)
        0.1
    """
    distance = run.distance
    within = np.clip(distance, reference.distance[0], reference.distance[-1])
    published = PchipInterpolator(reference.distance, reference.values)(within)
    # Each point stands for what is nearer to it than to its neighbors, from the first to the last.
    weights = np.diff(np.concatenate([distance[:1], (distance[1:] + distance[:-1]) / 2, distance[-1:]]))
    return float((np.abs(run.values - published) * weights).sum() / (np.abs(published) * weights).sum())


def spectral_distance(run: LineSpectrum, reference: LineSpectrum) -> float:
    """Root mean square over modes of ``log10`` of the ratio of the run's to the reference's energy per wavenumber.

    Over the run's modes from the first to half of the highest, where a wave is four points long: beyond, differences of
    second order leave little of the truth and a logarithm would see nothing else. The reference is interpolated on
    logarithmic axes. NaN where nothing is left to compare.

    Example:
        >>> k = np.arange(9.0)
        >>> one = LineSpectrum(30.0, k, np.exp(-k), k)
        >>> round(spectral_distance(LineSpectrum(30.0, k, 10 * np.exp(-k), k), one), 12)
        1.0
    """
    waves, density = run.density
    known_waves, known_density = reference.density
    last = min(known_waves[-1], _RESOLVED * waves[-1])
    within = (waves >= known_waves[0]) & (waves <= last) & (density > 0)
    if not within.any():
        return float("nan")
    expected = np.interp(np.log(waves[within]), np.log(known_waves), np.log10(known_density))
    return float(np.sqrt(np.mean((np.log10(density[within]) - expected) ** 2)))


def _largest(profile: Profile) -> Number:
    place = int(np.argmax(profile.values))
    return Number(float(profile.values[place]), float(profile.error[place]))


def nearest_plane(planes: Sequence[LineSpectrum], distance: float) -> LineSpectrum | None:
    """The plane whose ``y+`` has the ratio nearest to one, if that is within 1.3; else ``None``."""
    ratios = [max(plane.distance / distance, distance / plane.distance) for plane in planes]
    if not ratios or min(ratios) > _SAME_PLANE:
        return None
    return planes[int(np.argmin(ratios))]

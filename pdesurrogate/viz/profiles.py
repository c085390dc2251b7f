"""Profiles over the distance from a wall, in wall units, against the laws of the wall and against DNS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from pdesurrogate.evaluation.channel.reference import ChannelReference
from pdesurrogate.evaluation.channel.wall_units import Profile, WallUnitStatistics
from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import (
    STANDARD_ERROR,
    group_seeds,
    kind_of,
    require_same_data,
    require_variables,
    seeds_label,
)
from pdesurrogate.viz.style import (
    GUIDE,
    HALO,
    INK,
    MUTED,
    TRUTH,
    Band,
    Panels,
    draw_band,
    line_look,
    row_of_panels,
    set_scale,
    style,
)

# Arrays (n,) in wall units by name; see `plot_profiles`.
Profiles: TypeAlias = Mapping[str, ArrayLike]
Arrays: TypeAlias = dict[str, NDArray[np.float64]]
# By the names of `plot_profiles`, each over distances of its own.
Curves: TypeAlias = dict[str, Profile]

# Constants of the logarithmic law (Pope, Turbulent Flows, 2000, section 7.1.4).
VON_KARMAN = 0.41
LOG_LAW_INTERCEPT = 5.2
# Where sublayer and logarithmic law meet.
_MEETING = 10.8

# What the profiles are called in a report, "_prediction" or "_truth" left off; there is an rms for each component.
NAMES = {
    "y_plus": "wall_distance_plus",
    "u_plus": "mean_velocity_plus",
    "rms": "rms_velocity_plus",
    "shear_stress": "shear_stress_plus",
    "total_stress": "total_stress_plus",
}
# Names here of the profiles of `WallUnitStatistics`.
_IN_WALL_UNITS = {"mean_velocity": "u_plus", "shear_stress": "shear_stress", "total_stress": "total_stress"}

# Published tables are dense; so many circles would run into each other.
_REFERENCE: dict[str, Any] = {
    "color": INK, "linestyle": "none", "marker": "o", "markersize": 4.5, "markerfacecolor": "white",
    "markevery": 0.04, "zorder": 3,
}  # fmt: skip


def log_law(y_plus: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean velocity ``ln(y+) / 0.41 + 5.2`` of the logarithmic layer.

    Example:
        >>> round(float(log_law(np.asarray(100.0))), 2)
        16.43
    """
    return np.log(y_plus) / VON_KARMAN + LOG_LAW_INTERCEPT


def plot_profiles(
    truth: Profiles,
    predictions: Mapping[str, Profiles],
    *,
    reference: Profiles | ChannelReference | None = None,
    reference_label: str = "DNS",
    kinds: Mapping[str, str] | None = None,
    axes: Sequence[Axes] | Panels | None = None,
) -> Panels:
    """Mean velocity, rms of the fluctuations and shear stress over the distance from the wall, all in wall units.

    The mean velocity is over a logarithmic axis, with the viscous sublayer ``u+ = y+`` and the logarithmic law
    ``ln(y+) / 0.41 + 5.2`` dashed. Shear stress is ``-<u'v'>``, with a thin line for the total stress. Shades are one
    error to both sides.

    Profiles are arrays ``(n,)`` by name: the distances ``"y_plus"``, from the wall to the middle, and any of
    ``"u_plus"`` (mean velocity), ``"<component>_rms"`` such as ``"v_rms"``, ``"shear_stress"`` and ``"total_stress"``;
    the error of each, where there is one, has ``_error`` behind its name.

    Args:
        truth: profiles of the data.
        predictions: label to profiles of a model.
        reference: published profiles, drawn as open circles.
        reference_label: whose they are; a `ChannelReference` has a name of its own.
        kinds: label to ``"surrogate"``, ``"solver"`` or ``"baseline"``, for the dashes.
        axes: three to draw into; those of a new figure by default.

    Returns:
        The three panels; ``panels[0].figure`` is what a notebook shows.

    Raises:
        ValueError: if distances are missing or a length differs.

    Example:
        >>> y = np.linspace(0.0, 180.0, 40)
        >>> panels = plot_profiles({"y_plus": y, "shear_stress": 1 - y / 180}, {})
        >>> panels[2].get_ylabel()
        "$-\\\\langle u'v' \\\\rangle^+$"
    """
    kinds = kinds or {}
    checked = _checked("truth", truth)
    models = {label: _checked(label, profiles) for label, profiles in predictions.items()}
    published = _published(reference, reference_label)
    with style():
        panels = row_of_panels(axes, 3, 13.4, 4.2, share=False)
        _draw(panels, checked, "truth", TRUTH)
        for index, (label, profiles) in enumerate(models.items()):
            _draw(panels, profiles, label, line_look(index, kinds.get(label, "surrogate")))
        for label, profiles in published.items():
            _draw(panels, profiles, label, _REFERENCE)
        _dress(panels, checked, [checked, *models.values(), *published.values()])
    return panels


def plot_wall_units(
    channels: Mapping[str, WallUnitStatistics],
    *,
    reference: ChannelReference | None = None,
    axes: Sequence[Axes] | Panels | None = None,
) -> Panels:
    """`plot_profiles` of channels from any source, such as runs of the solver: a line for each label.

    Args:
        channels: label to statistics.
        reference: published profiles, drawn as open circles.
        axes: three to draw into; those of a new figure by default.

    Returns:
        The three panels; ``panels[0].figure`` is what a notebook shows.

    Raises:
        ValueError: if there is no channel.

    Example:
        >>> from pdesurrogate.evaluation.channel.reference import channel_reference
        >>> low, high = channel_reference(180), channel_reference(590)
        >>> panels = plot_wall_units({"higher": WallUnitStatistics.of_reference(high)}, reference=low)
        >>> panels[0].get_xscale()
        'log'
    """
    if not channels:
        raise ValueError("Expected at least one channel but got none.")
    curves = {label: _curves_of(statistics) for label, statistics in channels.items()}
    published = _published(reference, "")
    with style():
        panels = row_of_panels(axes, 3, 13.4, 4.2, share=False)
        for index, (label, profiles) in enumerate(curves.items()):
            _draw(panels, profiles, label, line_look(index, "surrogate"))
        for label, profiles in published.items():
            _draw(panels, profiles, label, _REFERENCE)
        _dress(panels, next(iter(curves.values())), [*curves.values(), *published.values()])
    return panels


def plot_channel_profiles(
    reports: Sequence[Report],
    *,
    reference: Profiles | ChannelReference | None = None,
    reference_label: str = "DNS",
    names: Mapping[str, str] = NAMES,
    axes: Sequence[Axes] | Panels | None = None,
) -> Panels:
    """`plot_profiles` of reports on a channel: its truth and a line for each model, each in wall units of its own.

    Shades are one standard error to both sides or, with several seeds of a model, one standard deviation over them. A
    note says by which friction velocity, and how far that of the truth's momentum balance is from it: see
    `ChannelMetric` for which of them to trust.

    Args:
        reports: on the same data, with profiles in wall units (`ChannelMetric`, data that state a viscosity).
        reference: published profiles, drawn as open circles.
        reference_label: whose they are; a `ChannelReference` has a name of its own.
        names: of the profiles in the reports, ``_prediction`` or ``_truth`` left off.
        axes: three to draw into; those of a new figure by default.

    Returns:
        The three panels; ``panels[0].figure`` is what a notebook shows.

    Raises:
        ValueError: if the reports are not about the same data or lack the profiles.
    """
    require_same_data(reports)
    groups = {seeds_label(label, seeds): seeds for label, seeds in group_seeds(reports).items()}
    panels = plot_profiles(
        read_profiles(reports[:1], "truth", names),
        {label: read_profiles(seeds, "prediction", names) for label, seeds in groups.items()},
        reference=reference,
        reference_label=reference_label,
        kinds={label: kind_of(seeds) for label, seeds in groups.items()},
        axes=axes,
    )
    _note_friction_velocity(panels[0], reports[0])
    return panels


def _note_friction_velocity(panel: Axes, report: Report) -> None:
    sources = "friction_velocity_truth", "stress_friction_velocity_truth"
    if any(name not in report.curves for name in sources):
        return
    gradient, balance = (float(report.curves[name]) for name in sources)
    text = f"$u_\\tau$ by the gradient at the walls;\nmomentum balance of the truth: {balance / gradient - 1:+.1%}"
    with style():
        panel.annotate(
            text, (0.97, 0.03), xycoords="axes fraction", ha="right", va="bottom", fontsize=8, color=MUTED
        )  # fmt: skip


def read_profiles(
    seeds: Sequence[Report], side: Literal["prediction", "truth"], names: Mapping[str, str] = NAMES
) -> Arrays:
    """Profiles of a report, as `plot_profiles` takes them; of several, their mean and the deviation over them.

    Raises:
        ValueError: if a report lacks one.
    """
    require_variables(seeds, *(f"{name}_{side}" for name in names.values()))
    found = [_of_report(seed, side, names) for seed in seeds]
    if len(found) == 1:
        return found[0]
    rows = {name: np.stack([profiles[name] for profiles in found]) for name in found[0] if not name.endswith("_error")}
    deviations = {f"{name}_error": values.std(0, ddof=1) for name, values in rows.items() if name != "y_plus"}
    return {name: values.mean(0) for name, values in rows.items()} | deviations


def _of_report(report: Report, side: str, names: Mapping[str, str]) -> Arrays:
    profiles = {}
    for key, name in names.items():
        for suffix, ending in (("", ""), ("_error", STANDARD_ERROR)):
            values = report.curves.get(f"{name}_{side}{ending}")
            if values is None:
                continue
            if values.ndim == 1:
                profiles[f"{key}{suffix}"] = np.asarray(values.values, dtype=np.float64)
            else:
                component = values.dims[0]
                for label, row in zip(values[component].values, values.values, strict=True):
                    profiles[f"{label}_{key}{suffix}"] = np.asarray(row, dtype=np.float64)
    return profiles


def _checked(label: str, profiles: Profiles) -> Curves:
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in profiles.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(arrays) < 2 or "y_plus" not in arrays or arrays["y_plus"].ndim != 1 or len(set(shapes.values())) != 1:
        raise ValueError(f"Expected profiles of {label!r} of one length (n,), 'y_plus' among them, but got {shapes}.")
    distance = arrays.pop("y_plus")
    none = np.full_like(distance, np.nan)
    return {name: Profile(distance, values, arrays.get(f"{name}_error", none)) for name, values in arrays.items()}


def _curves_of(statistics: WallUnitStatistics) -> Curves:
    return {
        _IN_WALL_UNITS.get(name, f"{name.removeprefix('rms_')}_rms"): profile
        for name, profile in statistics.profiles.items()
    }


def _published(reference: Profiles | ChannelReference | None, label: str) -> dict[str, Curves]:
    """The reference by its label, if there is one."""
    if reference is None:
        return {}
    if isinstance(reference, ChannelReference):
        return {reference.name: _curves_of(WallUnitStatistics.of_reference(reference))}
    return {label: _checked(label, reference)}


def _draw(panels: Panels, profiles: Curves, label: str, look: Mapping[str, Any]) -> None:
    for name, (distance, values, error) in profiles.items():
        panel = _panel(panels, name)
        # Published stresses that are a straight line would hide the run's.
        if panel is None or (name == "total_stress" and "marker" in look):
            continue
        thin = {"linewidth": 1.0} if name == "total_stress" else {}
        if name == "u_plus":
            # The wall itself is infinitely far off on a logarithmic axis.
            distance = np.where(distance > 0, distance, np.nan)
        band = Band.of_lines([values], error)
        draw_band(panel, distance, band, f"_{label}" if thin else label, **{**look, **thin})


def _panel(panels: Panels, name: str) -> Axes | None:
    """Where a profile belongs; nowhere if it is none."""
    mean, rms, stress = panels
    if name.endswith("_rms"):
        return rms
    return {"u_plus": mean, "shear_stress": stress, "total_stress": stress}.get(name)


def _dress(panels: Panels, truth: Curves, drawn: Iterable[Curves]) -> None:
    mean, rms, stress = panels
    drawn = list(drawn)
    distances = [profile.distance for curves in drawn for profile in curves.values()]
    farthest = max(float(distance.max()) for distance in distances)
    nearest = min(float(distance[distance > 0].min()) for distance in distances)
    set_scale(mean.xaxis, "log")
    mean.set_xlim(min(max(nearest, 0.3), 1.0), 1.08 * farthest)
    sublayer, layer = np.geomspace(0.1, _MEETING, 60), np.asarray([_MEETING, max(farthest, 2 * _MEETING)])
    mean.plot(sublayer, sublayer, **GUIDE)
    mean.plot(layer, log_law(layer), **GUIDE)
    text: dict[str, Any] = {"color": MUTED, "fontsize": 9, "textcoords": "offset points"}
    mean.annotate("$y^+$", (8.5, 8.5), (-6, 4), ha="right", **text)
    where = float(np.sqrt(_MEETING * layer[1]))
    height = float(log_law(np.asarray(where)))
    mean.annotate("$\\ln(y^+)\\,/\\,0.41 + 5.2$", (where, height), (-22, 18), ha="right", **text)
    mean.set_ylim(bottom=0.0)
    _name_components(rms, truth, drawn)
    if "total_stress" in truth:
        distance, values, _ = truth["total_stress"]
        near = int(np.argmin(np.abs(distance - 0.15 * farthest)))
        place = float(distance[near]), float(values[near])
        stress.annotate("total stress", place, (8, 3), path_effects=HALO, **text)
    names = "$U^+$", "rms of the fluctuations$^+$", "$-\\langle u'v' \\rangle^+$"
    for panel, name in zip(panels, names, strict=True):
        panel.set_xlabel("distance from the wall $y^+$")
        panel.set_ylabel(name)
    for panel in (rms, stress):
        panel.set_xlim(0.0, 1.02 * farthest)
        panel.set_ylim(bottom=0.0)
    known = {text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)}
    stress.legend(known.values(), known, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _component(name: str) -> str:
    """``u`` as it is, ``velocity_x`` as a letter with an index."""
    axis = name.removeprefix("velocity_")
    return f"${name}$" if len(name) == 1 else f"$u_{{{axis}}}$" if axis != name else name


def _name_components(panel: Axes, truth: Curves, drawn: Sequence[Curves]) -> None:
    """The components' names at the peaks of the truth, above all lines; below for the lowest, which others run over."""
    names = [name for name in truth if name.endswith("_rms")]
    lowest = min(names, key=lambda name: float(truth[name].values.max()), default=None)
    for name in names:
        distance, values, _ = truth[name]
        below = name == lowest and len(names) > 1
        peaks = [float(curves[name].values.max()) for curves in drawn if name in curves]
        place = float(distance[values.argmax()]), float(values.max()) if below else max(peaks)
        panel.annotate(
            _component(name.removesuffix("_rms")), place, (0, -8 if below else 7), textcoords="offset points",
            ha="center", va="top" if below else "bottom", path_effects=HALO, zorder=5,
        )  # fmt: skip

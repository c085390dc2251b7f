from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pdesurrogate.evaluation.channel.reference import channel_reference
from pdesurrogate.evaluation.channel.wall_units import Profile, WallUnitStatistics
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.channel import ChannelMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.viz.profiles import (
    NAMES,
    log_law,
    plot_channel_profiles,
    plot_profiles,
    plot_wall_units,
    read_profiles,
)
from pdesurrogate.viz.style import new_figure

Make = Callable[..., Report]
Y = np.concatenate([[0.0], np.geomspace(0.5, 180.0, 30)])
PROFILES = {
    "y_plus": Y,
    "u_plus": np.minimum(Y, log_law(np.maximum(Y, 1.0))),
    "u_rms": Y * np.exp(1 - Y / 15) / 5.5,
    "v_rms": Y * np.exp(1 - Y / 60) / 80,
    "shear_stress": 1 - Y / 180,
}


def _lines(axes: Any, label: str) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata()) for line in axes.get_lines() if line.get_label() == label]


def test_each_profile_is_drawn_in_its_panel_over_wall_distance() -> None:
    mean, rms, stress = plot_profiles(PROFILES, {"FNO": {"y_plus": Y, "u_plus": 2 * PROFILES["u_plus"]}})
    np.testing.assert_allclose(_lines(mean, "truth"), [PROFILES["u_plus"]])
    np.testing.assert_allclose(_lines(mean, "FNO"), [2 * PROFILES["u_plus"]])
    np.testing.assert_allclose(_lines(rms, "truth"), [PROFILES["u_rms"], PROFILES["v_rms"]])
    np.testing.assert_allclose(_lines(stress, "truth"), [PROFILES["shear_stress"]])
    assert _lines(stress, "FNO") == []
    assert (mean.get_xscale(), rms.get_xscale()) == ("log", "linear")
    assert [text.get_text() for text in rms.texts] == ["$u$", "$v$"]
    _, rms, _ = plot_profiles({"y_plus": Y, "velocity_x_rms": Y, "mean wind_rms": 2 * Y}, {})
    assert [text.get_text() for text in rms.texts] == ["$u_{x}$", "mean wind"]


def test_the_legend_names_each_model_once_also_where_a_panel_lacks_it() -> None:
    panels = plot_profiles(
        PROFILES, {"FNO": {"y_plus": Y, "u_plus": Y}}, reference={"y_plus": [1.0, 2.0], "u_plus": [1.0, 1.9]}
    )
    legend = panels[2].get_legend()
    assert legend is not None
    assert sorted(text.get_text() for text in legend.get_texts()) == ["DNS", "FNO", "truth"]


def test_the_laws_of_the_wall_are_where_the_constants_say() -> None:
    mean, _, _ = plot_profiles(PROFILES, {})
    sublayer, layer = (line for line in mean.get_lines() if line.get_label() != "truth")
    np.testing.assert_allclose(sublayer.get_ydata(), sublayer.get_xdata())
    np.testing.assert_allclose(layer.get_ydata(), np.log(layer.get_xdata()) / 0.41 + 5.2)
    # They meet: the step between them is smaller than a twentieth of the velocity there.
    assert abs(layer.get_ydata()[0] - sublayer.get_ydata()[-1]) < 0.5


def test_shades_are_one_error_to_both_sides() -> None:
    profiles = {"y_plus": Y, "shear_stress": np.ones(31), "shear_stress_error": 0.25 * np.ones(31)}
    _, _, stress = plot_profiles(profiles, {})
    heights = stress.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [0.75, 1.25])


@pytest.mark.parametrize(
    "profiles", [{"u_plus": Y}, {"y_plus": Y, "u_plus": Y[1:]}, {"y_plus": np.ones((2, 3)), "u_plus": np.ones((2, 3))}]
)
def test_profiles_without_distances_or_of_unequal_length_are_refused(profiles: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="profiles of 'DNS' of one length"):
        plot_profiles(PROFILES, {}, reference=profiles)
    with pytest.raises(ValueError, match="3 axes"):
        plot_profiles(PROFILES, {}, axes=new_figure(3, 3).subplots(1, 2))


def _channel_report(make_report: Make, factor: float = 1.0, **options: Any) -> Report:
    half = ("wall_distance",)
    curves: dict[str, Any] = {}
    for side, scale in (("prediction", factor), ("truth", 1.0)):
        rms = np.stack([PROFILES["u_rms"], PROFILES["v_rms"]])
        curves |= {
            f"wall_distance_plus_{side}": (half, Y, "1"),
            f"mean_velocity_plus_{side}": (half, scale * PROFILES["u_plus"], "1"),
            f"mean_velocity_plus_{side}_standard_error": (half, np.full(31, 0.1), "1"),
            f"rms_velocity_plus_{side}": (("velocity_component", *half), scale * rms, "1"),
            f"shear_stress_plus_{side}": (half, scale * PROFILES["shear_stress"], "1"),
            f"total_stress_plus_{side}": (half, PROFILES["shear_stress"], "1"),
        }
    return make_report(curves=curves, labels={"velocity_component": ["u", "v"], "wall_distance": Y / 180}, **options)


def test_a_report_s_profiles_are_read_by_component_with_their_errors(make_report: Make) -> None:
    found = read_profiles([_channel_report(make_report)], "truth")
    assert set(found) == {*PROFILES, "total_stress", "u_plus_error"}
    for name, values in PROFILES.items():
        np.testing.assert_allclose(found[name], values)


def test_seeds_are_averaged_and_their_deviation_is_the_error(make_report: Make) -> None:
    seeds = [_channel_report(make_report, factor, seed=seed) for seed, factor in enumerate((1.0, 2.0, 3.0))]
    found = read_profiles(seeds, "prediction")
    np.testing.assert_allclose(found["u_plus"], 2 * PROFILES["u_plus"])
    np.testing.assert_allclose(found["u_plus_error"], PROFILES["u_plus"])
    mean, _, _ = plot_channel_profiles(seeds)
    np.testing.assert_allclose(_lines(mean, "FNO (3 seeds)"), [2 * PROFILES["u_plus"]])
    np.testing.assert_allclose(_lines(mean, "truth"), [PROFILES["u_plus"]])


def test_the_names_are_those_that_the_channel_metric_gives() -> None:
    grid = Grid((Axis("x", period=1.0), Axis("y"), Axis("z", period=1.0)))
    channels = tuple(Channel(f"velocity_{name}") for name in "xyz")
    metadata = Metadata("channel", grid, channels, frame_interval=0.1, parameters=("viscosity",))
    even = torch.arange(4) / 4
    variables = ChannelMetric(RolloutPlan(metadata, 1, 1, (even, torch.linspace(0, 2, 9), even))).variables
    assert {f"{name}_{side}" for name in NAMES.values() for side in ("prediction", "truth")} <= set(variables)
    # The component is the first axis of the rms, the only profile that has one.
    assert variables[f"{NAMES['rms']}_truth"].dims[1:] == variables[f"{NAMES['u_plus']}_truth"].dims


def test_the_laws_of_the_wall_fit_dns() -> None:
    """Moser, Kim and Mansour (1999) at Re_tau = 178: the sublayer to 1 %, the short logarithmic layer to 5 %."""
    table = json.loads((Path(__file__).parents[1] / "golden" / "mkm_chan180.json").read_text())
    y_plus = np.asarray(table["profiles"]["y"]) * table["friction_reynolds_number"]
    u_plus = np.asarray(table["profiles"]["mean_u"])
    near, layer = y_plus < 2, (y_plus > 30) & (y_plus < 100)
    np.testing.assert_allclose(y_plus[near], u_plus[near], rtol=0.01)
    np.testing.assert_allclose(log_law(y_plus[layer]), u_plus[layer], rtol=0.05)


def test_the_source_of_wall_units_is_said_with_what_the_other_would_be(make_report: Make) -> None:
    report = _channel_report(make_report)
    assert not any("gradient" in text.get_text() for text in plot_channel_profiles([report])[0].texts)
    for name, value in (("friction_velocity", 0.05), ("stress_friction_velocity", 0.045)):
        report.curves[f"{name}_truth"] = value
    (note,) = (text.get_text() for text in plot_channel_profiles([report])[0].texts if "gradient" in text.get_text())
    assert note.endswith("at the walls;\nmomentum balance of the truth: -10.0%")


def test_names_in_a_report_may_differ_and_must_be_there(make_report: Make) -> None:
    report = _channel_report(make_report)
    mean, rms, stress = plot_channel_profiles([report], names={"y_plus": NAMES["y_plus"], "u_plus": NAMES["u_plus"]})
    assert len(_lines(mean, "truth")) == 1
    assert _lines(rms, "truth") == _lines(stress, "truth") == []
    with pytest.raises(ValueError, match="Expected wall_distance_plus_truth"):
        plot_channel_profiles([make_report()])


def test_published_channels_bring_their_name_and_are_open_circles(make_report: Make) -> None:
    reference = channel_reference(180)
    mean, rms, stress = plot_channel_profiles([_channel_report(make_report)], reference=reference)
    label = "Moser, Kim & Mansour, 180"
    np.testing.assert_allclose(_lines(mean, label), [reference.curves["mean_velocity_plus"]])
    assert len(_lines(rms, label)) == 3
    # The published total stress is a straight line: it would only hide the others.
    np.testing.assert_allclose(_lines(stress, label), [reference.curves["shear_stress_plus"]])
    (circles,) = (line for line in mean.get_lines() if line.get_label() == label)
    assert (circles.get_marker(), circles.get_markerfacecolor(), circles.get_linestyle()) == ("o", "white", "None")


def test_channels_of_any_source_are_drawn_where_each_profile_has_its_points() -> None:
    table = WallUnitStatistics.of_reference(channel_reference(395))
    shear = table.profiles["shear_stress"]
    on_faces = Profile(shear.distance[::2], shear.values[::2], np.full_like(shear.values[::2], 0.1))
    staggered = replace(table, profiles={**table.profiles, "shear_stress": on_faces})
    mean, rms, stress = plot_wall_units({"one": table, "other": staggered}, reference=channel_reference(180))
    np.testing.assert_allclose(_lines(stress, "other"), [on_faces.values])
    (line,) = (line for line in stress.get_lines() if line.get_label() == "other")
    np.testing.assert_allclose(line.get_xdata(), on_faces.distance)
    assert len(_lines(rms, "one")) == 3
    # The thin line of the total stress has no entry of its own in the legend.
    assert len(_lines(stress, "_one")) == 1
    legend = stress.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["one", "other", "Moser, Kim & Mansour, 180"]
    assert mean.get_xlim()[1] > 392
    with pytest.raises(ValueError, match="at least one channel"):
        plot_wall_units({})


def test_the_wall_is_left_out_of_a_logarithmic_axis() -> None:
    mean, rms, _ = plot_profiles(PROFILES, {})
    assert np.isnan(mean.get_lines()[0].get_xdata()[0])
    assert rms.get_lines()[0].get_xdata()[0] == 0.0


def test_names_of_components_stand_above_all_lines() -> None:
    _, rms, _ = plot_profiles(PROFILES, {"FNO": {"y_plus": Y, "u_rms": 1.5 * PROFILES["u_rms"]}})
    (name,) = (text for text in rms.texts if text.get_text() == "$u$")
    assert name.xy[1] == pytest.approx(1.5 * PROFILES["u_rms"].max())

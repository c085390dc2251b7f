from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes

from pdesurrogate.evaluation.intervals import bootstrap_interval
from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.curves import mean_curve, plot_error_curves
from pdesurrogate.viz.style import new_figure

Make = Callable[..., Report]
BY_TRAJECTORY = np.asarray([1.0, 2.0, 6.0])[:, None, None]
PER_FRAME = ("trajectory", "lead_time")


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_band_of_one_seed_is_the_bootstrap_interval_over_trajectories(make_report: Make) -> None:
    time, band = mean_curve([make_report(BY_TRAJECTORY)], "relative_l2")
    np.testing.assert_allclose(time, [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(band.mean, 3.0)
    low, high = bootstrap_interval(BY_TRAJECTORY[:, 0, 0])
    np.testing.assert_allclose(band.low, low)
    np.testing.assert_allclose(band.high, high)


def test_the_band_of_seeds_is_one_standard_deviation_over_them(make_report: Make) -> None:
    seeds = [make_report(BY_TRAJECTORY + shift, seed=shift) for shift in range(3)]
    _, band = mean_curve(seeds, "relative_l2")
    np.testing.assert_allclose(band.mean, 4.0)
    np.testing.assert_allclose(band.high - band.mean, 1.0)
    np.testing.assert_allclose(band.mean - band.low, 1.0)


def test_a_curve_that_is_a_mean_already_has_no_band(make_report: Make) -> None:
    distance = {"log_spectral_distance": (("lead_time",), [0.1, 0.2, 0.3, 0.4], "1")}
    _, band = mean_curve([make_report(curves=distance)], "log_spectral_distance")
    np.testing.assert_allclose(band.mean, [0.1, 0.2, 0.3, 0.4])
    assert np.isnan(band.low).all()
    assert _legend(plot_error_curves([make_report(curves=distance)], "log_spectral_distance")) == ["FNO"]


def test_labels_along_further_dimensions_are_selected_and_named(make_report: Make) -> None:
    values = np.arange(4.0).reshape(1, 1, 2, 2) * np.ones((3, 4, 1, 1))
    report = make_report(
        np.asarray([1.0, 5.0]),
        curves={"band_rmse": ((*PER_FRAME, "channel", "band"), values, "m/s, Pa")},
        labels={"band": ["low", "high"]},
    )
    assert mean_curve([report], "relative_l2", {"channel": "v"})[1].mean[0] == 5.0
    assert mean_curve([report], "relative_l2")[1].mean[0] == 3.0
    assert mean_curve([report], "band_rmse", {"channel": "v", "band": "low"})[1].mean[0] == 2.0
    axes = plot_error_curves([report], "band_rmse", select={"channel": "v", "band": "high"})
    assert axes.get_title() == "v, high"
    assert axes.get_ylabel() == "root mean squared error [Pa]"
    with pytest.raises(ValueError, match="channel among"):
        mean_curve([report], "relative_l2", {"channel": "pressure"})
    with pytest.raises(ValueError, match=r"select={'band': ...}"):
        mean_curve([report], "band_rmse", {"channel": "u"})


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_one_trajectory_that_is_not_finite_ends_the_line_with_a_cross(make_report: Make, broken: float) -> None:
    errors = np.full((3, 4, 2), 0.5)
    errors[1, 2:] = broken
    line, cross = plot_error_curves([make_report(errors)]).get_lines()[:2]
    assert np.isfinite(line.get_ydata()).tolist() == [True, True, False, False]
    assert cross.get_marker() == "x"
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (1.0, 0.5)


def test_a_model_that_is_nowhere_finite_is_named_all_the_same(make_report: Make) -> None:
    axes = plot_error_curves([make_report(np.nan), make_report(0.1, name="UNet")])
    assert _legend(axes)[:2] == ["FNO, not finite", "UNet"]
    assert not any(line.get_marker() == "x" for line in axes.get_lines())


def test_seeds_share_a_line_and_namesakes_are_told_apart(make_report: Make) -> None:
    varied = 0.1 * BY_TRAJECTORY
    reports = [
        *(make_report(varied, seed=seed, config={"init_args": {"modes": 8}}) for seed in range(2)),
        make_report(varied, config={"init_args": {"modes": 12}}),
        make_report(0.5, name="persistence", kind="baseline"),
    ]
    axes = plot_error_curves(reports)
    assert _legend(axes) == [
        "FNO (modes 8) (2 seeds)",
        "FNO (modes 12)",
        "persistence",
        "predicting zero",
        "95 % interval of the mean,\nor one deviation over seeds",
    ]
    styles = {line.get_linestyle() for line in axes.get_lines()[:3]}
    assert len(styles) == 2
    assert axes.get_xlabel() == "lead time [s]"


def test_the_truth_s_own_curve_is_drawn_and_found_by_the_name_without_its_ending(make_report: Make) -> None:
    drift = np.linspace(-0.2, 0.1, 4) * np.ones((3, 1))
    curves = {"drift_energy_prediction": (PER_FRAME, drift, "1"), "drift_energy_truth": (PER_FRAME, drift / 2, "1")}
    axes = plot_error_curves([make_report(curves=curves)], "drift_energy")
    truth, model, zero = axes.get_lines()
    np.testing.assert_allclose(truth.get_ydata(), drift[0] / 2)
    np.testing.assert_allclose(model.get_ydata(), drift[0])
    assert zero.get_ydata() == [0.0, 0.0]
    assert _legend(axes)[:2] == ["truth", "FNO"]
    assert axes.get_ylim()[0] < -0.2


def test_curves_far_below_zero_keep_their_scale(make_report: Make) -> None:
    slopes = {"energy_slope_prediction": (("lead_time",), [-3.0, -3.1, -3.2, -3.1], "1")}
    axes = plot_error_curves([make_report(curves=slopes)], "energy_slope")
    assert -4 < axes.get_ylim()[0] < axes.get_ylim()[1] < -2


def test_a_positive_curve_starts_at_zero_and_a_lost_model_does_not_press_the_others_flat(make_report: Make) -> None:
    axes = plot_error_curves([make_report(0.3), make_report(40.0, name="UNet")])
    assert axes.get_ylim() == (0.0, 2.5)
    assert plot_error_curves([make_report(40.0)]).get_ylim()[1] > 40.0
    assert plot_error_curves([make_report(0.3)]).get_ylim()[0] == 0.0


def test_only_errors_relative_to_the_truth_have_a_line_where_predicting_zero_lies(make_report: Make) -> None:
    divergence = {"relative_divergence_prediction": (PER_FRAME, np.ones((3, 4)), "1")}
    assert "predicting zero" in _legend(plot_error_curves([make_report()]))
    assert _legend(plot_error_curves([make_report(curves=divergence)], "relative_divergence"))[:1] == ["FNO"]
    assert "predicting zero" not in _legend(plot_error_curves([make_report(curves=divergence)], "relative_divergence"))


def test_given_axes_are_drawn_into_and_given_back(make_report: Make) -> None:
    axes = new_figure(4, 3).add_subplot()
    assert plot_error_curves([make_report()], scale="log", axes=axes) is axes
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("difference", [{"content_hash": "1" * 64}, {"split": "val"}, {"frames": 2}])
def test_different_data_are_never_in_one_picture(make_report: Make, difference: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="same data"):
        plot_error_curves([make_report(), make_report(**difference)])


def test_an_unknown_curve_is_refused_by_naming_what_there_is(make_report: Make) -> None:
    with pytest.raises(ValueError, match=r"among .*'relative_l2'.* but got 'speed'"):
        plot_error_curves([make_report()], "speed")
    with pytest.raises(ValueError, match="at least one report"):
        plot_error_curves([])

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.statistics import plot_statistic
from pdesurrogate.viz.style import new_figure

Make = Callable[..., Report]
DISTANCE = np.linspace(0, 3, 7)
DIMS = ("channel", "separation_x")


def _report(make_report: Make, factor: float = 1.0, **options: object) -> Report:
    truth = np.stack([np.cos(DISTANCE), np.ones(7)])
    curves = {
        "two_point_correlation_x_prediction": (DIMS, factor * truth, "1"),
        "two_point_correlation_x_truth": (DIMS, truth, "1"),
        "two_point_correlation_x_truth_standard_error": (DIMS, np.full((2, 7), 0.1), "1"),
    }
    about = {"units": "m", "long_name": "separation along x"}
    labels = {"separation_x": ("separation_x", DISTANCE, about)}
    return make_report(curves=curves, labels=labels, **options)


def test_truth_and_models_are_drawn_over_the_statistic_s_own_axis(make_report: Make) -> None:
    seeds = [_report(make_report, factor, seed=seed) for seed, factor in enumerate((0.5, 1.0))]
    axes = plot_statistic(seeds, "two_point_correlation_x", select={"channel": "u"})
    truth, model, zero = axes.get_lines()
    np.testing.assert_allclose(truth.get_xdata(), DISTANCE)
    np.testing.assert_allclose(truth.get_ydata(), np.cos(DISTANCE))
    np.testing.assert_allclose(model.get_ydata(), 0.75 * np.cos(DISTANCE))
    assert list(zero.get_ydata()) == [0.0, 0.0]
    assert axes.get_xlabel() == "separation along x [m]"
    shade, seeds_shade = (collection.get_paths()[0].vertices[:, 1] for collection in axes.collections)
    assert shade.max() == pytest.approx(1.1)
    assert seeds_shade.max() == pytest.approx(1.0)


def test_channels_are_averaged_and_axes_may_be_given(make_report: Make) -> None:
    own = new_figure(4, 3).add_subplot()
    axes = plot_statistic([_report(make_report)], "two_point_correlation_x", scale="log", axes=own)
    assert axes is own
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), (np.cos(DISTANCE) + 1) / 2)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_what_is_no_curve_of_both_sides_is_refused(make_report: Make) -> None:
    with pytest.raises(ValueError, match="Expected autocorrelation_prediction and autocorrelation_truth"):
        plot_statistic([_report(make_report)], "autocorrelation")
    with pytest.raises(ValueError, match=r"one axis of .* but got \['lead_time', 'wavenumber'\]"):
        plot_statistic([_report(make_report)], "energy_spectrum")

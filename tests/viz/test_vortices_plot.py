from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.vortices import plot_q_criterion

Make = Callable[..., Report]
PLACES = np.asarray([-20.0, -1.0, 0.0, 1.0, 30.0])
DENSITY = np.asarray([0.0, 1e-2, 1.0, 2e-2, 1e-4])


def _report(make_report: Make, factor: float = 1.0, **options: Any) -> Report:
    axis = ("standardized_q",)
    curves = {
        "q_criterion_density_truth": (axis, DENSITY, "1"),
        "q_criterion_density_prediction": (axis, factor * DENSITY, "1"),
        "q_criterion_density_prediction_standard_error": (axis, 0.1 * DENSITY, "1"),
    }
    return make_report(curves=curves, labels={"standardized_q": PLACES}, **options)


def test_densities_are_drawn_over_both_signs_of_q_and_empty_bins_left_out(make_report: Make) -> None:
    axes = plot_q_criterion([_report(make_report, 2.0)])
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["truth"].get_xdata(), PLACES)
    np.testing.assert_allclose(lines["truth"].get_ydata(), np.where(DENSITY > 0, DENSITY, np.nan))
    np.testing.assert_allclose(lines["FNO"].get_ydata(), 2 * np.where(DENSITY > 0, DENSITY, np.nan))
    assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "log")
    assert axes.get_ylim()[0] < 1e-4


def test_seeds_share_a_line(make_report: Make) -> None:
    axes = plot_q_criterion([_report(make_report, factor, seed=seed) for seed, factor in enumerate((1.0, 3.0))])
    (line,) = (line for line in axes.get_lines() if line.get_label() == "FNO (2 seeds)")
    np.testing.assert_allclose(line.get_ydata()[1:], 2 * DENSITY[1:])


def test_reports_without_vortices_are_refused(make_report: Make) -> None:
    with pytest.raises(ValueError, match="Expected q_criterion_density_prediction"):
        plot_q_criterion([make_report()])

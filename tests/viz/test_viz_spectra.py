from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.spectra import plot_spectra

Make = Callable[..., Report]


def test_lines_hold_truth_and_the_mean_of_the_seeds_on_logarithmic_axes(make_report: Make) -> None:
    figure = plot_spectra([make_report(seed=0, amplitude=1.0), make_report(seed=1, amplitude=3.0)], 1.0)
    (axes,) = figure.axes
    truth, model = axes.get_lines()[:2]
    wavenumber = np.arange(1.0, 12.0)
    np.testing.assert_allclose(truth.get_xdata(), wavenumber)
    np.testing.assert_allclose(truth.get_ydata(), wavenumber**-3)
    np.testing.assert_allclose(model.get_ydata(), 2 * wavenumber**-3)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "wavenumber [1/m]"
    assert axes.get_ylabel() == "energy spectrum [length$^{3}$/time$^{2}$]"


def test_the_reference_line_has_the_slope_that_its_label_says(make_report: Make) -> None:
    (axes,) = plot_spectra([make_report()], 2.0, slope=-5).figure.axes
    reference = next(
        line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_ydata()[1] not in (0, 1)
    )
    slope = np.diff(np.log(reference.get_ydata())) / np.diff(np.log(reference.get_xdata()))
    np.testing.assert_allclose(slope, -5.0)
    assert "$k^{-5}$" in [text.get_text() for text in axes.texts]


def test_the_cut_is_a_third_of_the_points_in_waves_per_unit_length(make_report: Make) -> None:
    half_box = [np.pi, np.pi]
    (axes,) = plot_spectra([make_report(periods=half_box)], 2.0).figure.axes
    cuts = [line.get_xdata()[0] for line in axes.get_lines() if list(line.get_ydata()) == [0, 1]]
    np.testing.assert_allclose(cuts, [2 * 16 / 3])


def test_there_is_no_cut_between_walls(make_report: Make) -> None:
    (axes,) = plot_spectra([make_report(periods=[6.0, None])], 2.0).figure.axes
    assert not any(list(line.get_ydata()) == [0, 1] for line in axes.get_lines())


def test_first_and_last_lead_time_by_default(make_report: Make) -> None:
    figure = plot_spectra([make_report()])
    assert [axes.get_title() for axes in figure.axes] == ["lead time 0.5", "lead time 2"]


def test_the_legend_tells_when_a_mean_is_over_survivors(make_report: Make) -> None:
    figure = plot_spectra([make_report(alive=[3, 3, 3, 1]), make_report(name="UNet")])
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["truth", "FNO,\n1 of 3 trajectories left", "UNet"]


def test_what_is_not_there_is_refused(make_report: Make) -> None:
    with pytest.raises(ValueError, match=r"from 0\.5 to 2"):
        plot_spectra([make_report()], 3.0)
    with pytest.raises(ValueError, match="enstrophy_spectrum_truth"):
        plot_spectra([make_report()], quantity="enstrophy")
    with pytest.raises(ValueError, match="same data"):
        plot_spectra([make_report(), make_report(name="other", start_frame=3)])

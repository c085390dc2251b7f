from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.spectra import plot_coherence, plot_spectra
from pdesurrogate.viz.style import figure_of, new_figure

Make = Callable[..., Report]
WAVES = np.arange(1.0, 12.0)


def _cuts(axes: Axes) -> list[float]:
    return [line.get_xdata()[0] for line in axes.get_lines() if list(line.get_ydata()) == [0, 1]]


def _reference(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_ydata()[1] not in (0, 1)]
    assert len(lines) <= 1
    return (np.asarray(lines[0].get_xdata()), np.asarray(lines[0].get_ydata())) if lines else (WAVES[:0], WAVES[:0])


def test_lines_hold_truth_and_the_mean_of_the_seeds_on_logarithmic_axes(make_report: Make) -> None:
    (axes,) = plot_spectra([make_report(seed=0, amplitude=1.0), make_report(seed=1, amplitude=3.0)], 1.0)
    truth, model = axes.get_lines()[:2]
    np.testing.assert_allclose(truth.get_xdata(), WAVES)
    np.testing.assert_allclose(truth.get_ydata(), WAVES**-3)
    np.testing.assert_allclose(model.get_ydata(), 2 * WAVES**-3)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "wavenumber [1/m]"
    assert axes.get_ylabel() == "energy spectrum [length$^{3}$/time$^{2}$]"


@pytest.mark.parametrize(
    ("shape", "slope", "expected", "label"),
    [
        ([16, 16], -5, -5.0, "$k^{-5}$"),
        ([16, 16], None, -3.0, "$k^{-3}$"),
        ([16, 16, 16], None, -5 / 3, "$k^{-5/3}$"),
    ],
)
def test_the_reference_line_has_the_slope_that_its_label_says(
    make_report: Make, shape: list[int], slope: float | None, expected: float, label: str
) -> None:
    (axes,) = plot_spectra([make_report(shape=shape, periods=[2 * np.pi] * len(shape))], 2.0, slope=slope)
    x, y = _reference(axes)
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), expected)
    assert label in [text.get_text() for text in axes.texts]


def test_the_cut_is_a_third_of_the_points_in_waves_per_unit_length(make_report: Make) -> None:
    (axes,) = plot_spectra([make_report(periods=[np.pi, np.pi])], 2.0)
    np.testing.assert_allclose(_cuts(axes), [2 * 16 / 3])


def test_there_is_no_cut_between_walls(make_report: Make) -> None:
    (axes,) = plot_spectra([make_report(periods=[6.0, None])], 2.0)
    assert _cuts(axes) == []


def test_first_and_last_lead_time_by_default(make_report: Make) -> None:
    panels = plot_spectra([make_report()])
    assert [axes.get_title() for axes in panels] == ["lead time 0.5", "lead time 2"]


def test_the_legend_tells_when_a_mean_is_over_survivors(make_report: Make) -> None:
    panels = plot_spectra([make_report(alive=[3, 3, 3, 1]), make_report(name="UNet")])
    legend = panels[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["truth", "FNO,\n1 of 3 trajectories left", "UNet"]


def test_a_spectrum_of_one_channel_along_one_axis_without_lead_time(make_report: Make) -> None:
    dims = ("channel", "line_wavenumber_x")
    spectrum = np.stack([np.ones(12), 7 * np.ones(12)])
    curves = {
        "line_spectrum_x_prediction": (dims, 2 * spectrum, "m, Pa"),
        "line_spectrum_x_truth": (dims, spectrum, "m, Pa"),
        "line_spectrum_x_prediction_standard_error": (dims, spectrum, "m, Pa"),
    }
    report = make_report(curves=curves, labels={"line_wavenumber_x": np.arange(12.0)})
    (axes,) = plot_spectra([report], variable="line_spectrum_x", select={"channel": "v"})
    truth, model = axes.get_lines()[:2]
    np.testing.assert_allclose(truth.get_ydata(), 7.0)
    np.testing.assert_allclose(model.get_ydata(), 14.0)
    assert (axes.get_title(), axes.get_ylabel()) == ("v", "line spectrum x [Pa]")
    # The 2/3 cut is that of shells, and the slope of this spectrum is nobody's.
    assert _cuts(axes) == []
    assert len(_reference(axes)[0]) == 0
    heights = axes.collections[-1].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [7.0, 21.0])


def test_panels_can_be_given(make_report: Make) -> None:
    own = new_figure(6, 3).subplots(1, 2)
    panels = plot_spectra([make_report()], axes=own)
    assert list(panels) == list(own)
    assert figure_of(panels) is own[0].figure
    with pytest.raises(ValueError, match="2 axes"):
        plot_spectra([make_report()], axes=own[0])


def test_coherence_is_drawn_from_below_zero_to_one_with_the_mean_over_channels(make_report: Make) -> None:
    values = np.stack([np.linspace(1, -0.2, 12), np.linspace(1, -0.4, 12)]) * np.ones((4, 1, 1))
    curves = {"coherence": (("lead_time", "channel", "wavenumber"), values, "1")}
    (axes,) = plot_coherence([make_report(curves=curves)], 1.0)
    zero, model = axes.get_lines()[:2]
    assert list(zero.get_ydata()) == [0.0, 0.0]
    np.testing.assert_allclose(model.get_ydata(), np.linspace(1, -0.3, 12)[1:])
    np.testing.assert_allclose(axes.get_ylim(), (-0.33, 1.03))
    np.testing.assert_allclose(_cuts(axes), [16 / 3])
    (axes,) = plot_coherence([make_report(curves=curves)], 1.0, select={"channel": "v"})
    np.testing.assert_allclose(axes.get_lines()[1].get_ydata(), np.linspace(1, -0.4, 12)[1:])
    assert axes.get_title() == "v, lead time 1"


def test_what_is_not_there_is_refused(make_report: Make) -> None:
    with pytest.raises(ValueError, match=r"from 0\.5 to 2"):
        plot_spectra([make_report()], 3.0)
    with pytest.raises(ValueError, match="enstrophy_spectrum_truth"):
        plot_spectra([make_report()], variable="enstrophy_spectrum")
    with pytest.raises(ValueError, match="same data"):
        plot_spectra([make_report(), make_report(name="other", start_frame=3)])
    with pytest.raises(ValueError, match="Expected coherence"):
        plot_coherence([make_report()])
    with pytest.raises(ValueError, match="over a wavenumber"):
        plot_coherence([make_report()], variable="relative_l2")

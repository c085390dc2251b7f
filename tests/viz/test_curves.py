from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.curves import group_seeds, mean_curve, plot_error_curves
from pdesurrogate.viz.style import new_figure

Make = Callable[..., Report]
BY_TRAJECTORY = np.asarray([1.0, 2.0, 6.0])[:, None, None]


def test_the_spread_of_one_seed_is_the_standard_error_over_trajectories(make_report: Make) -> None:
    time, mean, spread = mean_curve([make_report(BY_TRAJECTORY)], "relative_l2")
    np.testing.assert_allclose(time, [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(mean, 3.0)
    np.testing.assert_allclose(spread, np.sqrt(7.0 / 3.0))


def test_the_spread_of_seeds_is_their_standard_deviation(make_report: Make) -> None:
    seeds = [make_report(BY_TRAJECTORY + shift, seed=shift) for shift in range(3)]
    _, mean, spread = mean_curve(seeds, "relative_l2")
    np.testing.assert_allclose(mean, 4.0)
    np.testing.assert_allclose(spread, 1.0)


def test_one_channel_can_be_chosen(make_report: Make) -> None:
    report = make_report(np.asarray([1.0, 5.0]))
    assert mean_curve([report], "relative_l2", "v")[1][0] == 5.0
    assert mean_curve([report], "relative_l2")[1][0] == 3.0
    with pytest.raises(ValueError, match="channel among"):
        mean_curve([report], "relative_l2", "pressure")


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_one_trajectory_that_is_not_finite_ends_the_line_with_a_cross(make_report: Make, broken: float) -> None:
    errors = np.full((3, 4, 2), 0.5)
    errors[1, 2:] = broken
    figure = plot_error_curves([make_report(errors)])
    line, cross = figure.axes[0].get_lines()[:2]
    assert np.isfinite(line.get_ydata()).tolist() == [True, True, False, False]
    assert cross.get_marker() == "x"
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (1.0, 0.5)


def test_seeds_share_a_line_and_namesakes_are_told_apart(make_report: Make) -> None:
    reports = [
        *(make_report(0.1, seed=seed, config={"init_args": {"modes": 8}}) for seed in range(2)),
        make_report(0.2, config={"init_args": {"modes": 12}}),
        make_report(0.5, name="persistence", kind="baseline"),
    ]
    assert [len(seeds) for seeds in group_seeds(reports).values()] == [2, 1, 1]
    figure = plot_error_curves(reports)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["FNO (modes 8) (2 seeds)", "FNO (modes 12)", "persistence", "predicting zero"]
    styles = {line.get_linestyle() for line in figure.axes[0].get_lines()[:3]}
    assert len(styles) == 2
    assert figure.axes[0].get_xlabel() == "lead time [s]"


def test_a_given_axes_is_drawn_into(make_report: Make) -> None:
    figure = new_figure(4, 3)
    axes = figure.add_subplot()
    assert plot_error_curves([make_report()], scale="log", axes=axes) is figure
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("difference", [{"content_hash": "1" * 64}, {"split": "val"}, {"frames": 2}])
def test_different_data_are_never_in_one_picture(make_report: Make, difference: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="same data"):
        plot_error_curves([make_report(), make_report(**difference)])


def test_an_unknown_curve_is_refused_by_naming_what_there_is(make_report: Make) -> None:
    with pytest.raises(ValueError, match=r"'relative_l2'"):
        plot_error_curves([make_report()], "energy_spectrum_truth")
    with pytest.raises(ValueError, match="at least one report"):
        plot_error_curves([])

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_reports import SWEEP, fake_report

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.refinement import plot_refinement
from pdesurrogate.viz.style import figure_of, new_figure, save_figure

ERRORS = np.array([[0.3, 3e-3, 3e-7], [0.1, 1e-3, 1e-7]])


def refined(errors: Any = ERRORS, residual: str = "defect", sweep: Any = SWEEP, floor: float | None = 2e-7) -> Report:
    """A report of a refinement of two trajectories; the residual is ten times the error, the defect a hundred times."""
    report = fake_report(model="SFNO + Newton")
    errors = np.asarray(errors)
    means = [float(mean) if math.isfinite(mean) else None for mean in errors.mean(0)]
    rows = [
        {"iteration": number, "relative_l2": mean, "seconds_per_frame": 1e-3 * (1 + number)}
        for number, mean in enumerate(means)
    ]
    entry = {
        "residual": {"name": residual},
        "iterations": rows,
        "solver": {"relative_l2": floor, "seconds_per_frame": 2e-3},
        "sweep": None if sweep is None else sweep.to_dict(),
    }
    about = {"units": "1", "long_name": "x"}
    both = ("trajectory", "iteration")
    curves = report.curves.isel(trajectory=slice(0, len(errors))).assign(
        refined_relative_l2=(both, errors, about),
        refined_residual=(both, 10 * errors, about),
        refined_defect=(both, 100 * errors, about),
    )
    curves = curves.assign_coords(iteration=np.arange(errors.shape[1]))
    return Report({**report.attributes, "refinement": entry}, curves)


def line_of(axes: Any, label: str) -> Any:
    return next(line for line in axes.get_lines() if str(line.get_label()).startswith(label))


def legend_of(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_lines_are_means_over_trajectories_and_residuals_start_at_one() -> None:
    left, right = plot_refinement(refined())
    np.testing.assert_allclose(line_of(left, "relative L2 error").get_ydata(), ERRORS.mean(0))
    np.testing.assert_allclose(line_of(left, "residual").get_ydata(), ERRORS.mean(0) / ERRORS[:, 0].mean())
    assert left.get_yscale() == right.get_yscale() == right.get_xscale() == "log"
    assert right.get_ylabel() == "relative L2 error"
    own = line_of(right, "SFNO + Newton")
    np.testing.assert_allclose(own.get_xdata(), [1e-3, 2e-3, 3e-3])
    np.testing.assert_allclose(own.get_ydata(), ERRORS.mean(0))


def test_bands_reach_from_the_lowest_to_the_highest_trajectory() -> None:
    left, _ = plot_refinement(refined())
    low, high = left.collections[0].get_paths()[0].get_extents().get_points()[:, 1]
    np.testing.assert_allclose([low, high], [ERRORS.min(), ERRORS.max()])
    assert "lowest to highest trajectory" in legend_of(left)
    assert "lowest to highest trajectory" not in legend_of(plot_refinement(refined(ERRORS[:1]))[0])


def test_iterations_are_named_by_whole_numbers_along_the_line() -> None:
    left, right = plot_refinement(refined())
    figure_of(left).draw_without_rendering()
    assert {text.get_text() for text in right.texts} >= {"0", "1", "2"}
    assert all(float(tick) == round(float(tick)) for tick in left.get_xticks())
    many, _ = np.meshgrid(np.logspace(-1, -5, 101), [1, 2])
    _, right = plot_refinement(refined(many, sweep=None))
    assert {text.get_text() for text in right.texts if text.get_text()} >= {"0", "25", "50", "75", "100"}


@pytest.mark.parametrize("residual", ["defect", "analytic", "self-started"])
def test_a_residual_that_is_no_defect_stands_beside_one(residual: str) -> None:
    left, _ = plot_refinement(refined(residual=residual))
    assert any("defect" in name for name in legend_of(left)) == (residual != "defect")
    assert any("residual's own solver" in name for name in legend_of(left)) == (residual == "defect")


def test_the_solver_alone_is_a_line_across_both_panels() -> None:
    panels = plot_refinement(refined())
    for axes in panels:
        assert any(np.allclose(line.get_ydata(), 2e-7) and len(line.get_ydata()) == 2 for line in axes.get_lines())
    blown_up = plot_refinement(refined(floor=None))
    for axes in blown_up:
        assert not any("own solver" in str(line.get_label()) for line in axes.get_lines() if len(line.get_ydata()) == 2)


def test_without_a_sweep_there_are_no_squares() -> None:
    _, right = plot_refinement(refined(sweep=None))
    assert not any(line.get_marker() == "s" for line in right.get_lines())
    _, right = plot_refinement(refined())
    squares = line_of(right, "solver")
    assert squares.get_marker() == "s"


def test_what_is_not_finite_leaves_a_gap() -> None:
    errors = ERRORS.copy()
    errors[1, 2] = math.nan
    left, right = plot_refinement(refined(errors))
    assert np.isnan(line_of(left, "relative L2 error").get_ydata()[2])
    assert np.isnan(line_of(right, "SFNO + Newton").get_ydata()[2])


def test_no_text_lies_over_another_or_outside() -> None:
    for report in (refined(), refined(sweep=None), refined(residual="analytic")):
        panels = plot_refinement(report)
        figure = figure_of(panels)
        figure.draw_without_rendering()
        box = figure.bbox
        for axes in panels:
            texts = [axes.xaxis.label, axes.yaxis.label, *axes.get_legend().get_texts()]
            extents = [text.get_window_extent() for text in texts]
            assert all(box.x0 <= e.x0 and e.x1 <= box.x1 and box.y0 <= e.y0 and e.y1 <= box.y1 for e in extents)
            for place, one in enumerate(extents):
                assert not any(one.overlaps(other) for other in extents[place + 1 :])


def test_it_is_drawn_into_given_axes_and_written(tmp_path: Path) -> None:
    own = new_figure(10, 4).subplots(1, 2)
    panels = plot_refinement(refined(), axes=own)
    assert [*panels] == [*own]
    assert save_figure(panels, tmp_path / "refinement.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="Expected 2 axes"):
        plot_refinement(refined(), axes=[own[0]])


def test_another_report_is_refused() -> None:
    with pytest.raises(ValueError, match=r"that of 'FNO' is none; make one with `pdesurrogate refine`"):
        plot_refinement(fake_report())
    with pytest.raises(ValueError, match="positive finite"):
        plot_refinement(refined(np.full((2, 3), math.nan), sweep=None, floor=None))

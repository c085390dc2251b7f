from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.statistics import DensityMetric
from pdesurrogate.metrics.uncertainty import EnsembleMetric
from pdesurrogate.viz.distributions import plot_density, plot_rank_histogram
from pdesurrogate.viz.style import new_figure

Make = Callable[..., Report]
VALUES = np.linspace(-3, 3, 25)
BINS = ("channel", "density_bin")


def _with_density(make_report: Make, width: float = 1.0, **options: object) -> Report:
    truth, prediction = (np.exp(-((VALUES / w) ** 2) / 2) / (w * np.sqrt(2 * np.pi)) for w in (1.0, width))
    prediction = np.where(np.abs(VALUES) > 2.9, 0.0, prediction)
    curves = {
        "density_truth": (BINS, np.stack([truth, truth / 2]), "s/m, 1/Pa"),
        "density_prediction": (BINS, np.stack([prediction, prediction / 2]), "s/m, 1/Pa"),
        "density_prediction_standard_error": (BINS, np.stack([prediction / 4, prediction / 8]), "s/m, 1/Pa"),
        "density_value": (BINS, np.stack([VALUES, 2 * VALUES]), "m/s, Pa"),
    }
    return make_report(curves=curves, labels={"density_bin": np.arange(25)}, **options)


def test_each_channel_has_a_panel_on_its_own_values_and_units(make_report: Make) -> None:
    panels = plot_density([_with_density(make_report)])
    assert [axes.get_xlabel() for axes in panels] == ["u [m/s]", "v [Pa]"]
    assert [axes.get_ylabel() for axes in panels] == ["probability density [s/m]", "probability density [1/Pa]"]
    assert all(axes.get_yscale() == "log" for axes in panels)
    np.testing.assert_allclose(panels[1].get_lines()[0].get_xdata(), 2 * VALUES)


def test_empty_bins_leave_a_gap_and_the_band_is_the_stated_error(make_report: Make) -> None:
    (axes,) = plot_density([_with_density(make_report)], channels=["u"])
    model = axes.get_lines()[1].get_ydata()
    assert np.isnan(model[[0, -1]]).all()
    assert np.isfinite(model[1:-1]).all()
    heights = axes.collections[-1].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(1.25 * np.nanmax(model))


def test_seeds_share_a_line_in_a_band_from_the_lowest_to_the_highest(make_report: Make) -> None:
    seeds = [_with_density(make_report, width, seed=seed) for seed, width in enumerate((0.5, 1.0))]
    (axes,) = plot_density(seeds, channels=["u"])
    _, model = axes.get_lines()
    middle = len(VALUES) // 2
    assert model.get_ydata()[middle] == pytest.approx(1.5 / np.sqrt(2 * np.pi))
    heights = axes.collections[-1].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(2 / np.sqrt(2 * np.pi))


def test_what_is_not_there_is_refused(make_report: Make) -> None:
    with pytest.raises(ValueError, match="density_prediction"):
        plot_density([make_report()])
    with pytest.raises(ValueError, match="channel among"):
        plot_density([_with_density(make_report)], channels=["w"])
    with pytest.raises(ValueError, match="rank_histogram"):
        plot_rank_histogram(make_report())


def test_the_names_are_those_that_the_metrics_give() -> None:
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    metadata = Metadata("waves", grid, (Channel("u"),), frame_interval=0.1)
    plan = RolloutPlan(metadata, 1, 3, grid.uniform_coordinates((8, 8)), members=3)
    density = DensityMetric(plan).variables
    assert {density[name].dims for name in ("density_prediction", "density_truth", "density_value")} == {BINS}
    ranks = EnsembleMetric(plan).variables
    assert {ranks[name].dims for name in ("rank_histogram", "rank_histogram_standard_error")} == {
        ("stage", "channel", "rank")
    }


def _with_ranks(make_report: Make) -> Report:
    dims = ("stage", "channel", "rank")
    shares = np.asarray(
        [[[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]], [[0.5, 0, 0, 0.5], [0.4, 0.1, 0.1, 0.4]]]
    )
    curves = {"rank_histogram": (dims, shares, "1"), "rank_histogram_standard_error": (dims, shares / 10, "1")}
    return make_report(curves=curves, labels={"stage": ["early", "late"], "rank": np.arange(4)})


def test_a_rank_histogram_has_a_line_a_stage_and_the_height_of_a_reliable_one(make_report: Make) -> None:
    axes = plot_rank_histogram(_with_ranks(make_report), select={"channel": "u"})
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {"early", "late", "reliable"}
    flat = next(line for line in axes.get_lines() if line.get_label() == "reliable")
    assert list(flat.get_ydata()) == [0.25, 0.25]
    np.testing.assert_allclose(axes.patches[1].get_data().values, [0.5, 0, 0, 0.5])
    np.testing.assert_allclose(axes.patches[1].get_data().edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
    assert axes.get_title() == "u"


def test_without_a_channel_the_histogram_is_the_mean_over_channels(make_report: Make) -> None:
    axes = new_figure(4, 3).add_subplot()
    assert plot_rank_histogram(_with_ranks(make_report), axes=axes) is axes
    np.testing.assert_allclose(axes.patches[1].get_data().values, [0.45, 0.05, 0.05, 0.45])


def test_a_histogram_without_stages_bears_the_model_s_name(make_report: Make) -> None:
    report = make_report(curves={"rank_histogram": (("rank",), [0.5, 0.5], "1")})
    legend = plot_rank_histogram(report).get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["FNO", "reliable"]

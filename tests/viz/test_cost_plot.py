from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.viz.cost import CostPoint, pareto_front, plot_cost_accuracy
from pdesurrogate.viz.style import new_figure

SWEEP = [
    CostPoint("32", "solver", 1e-3, 0.5),
    CostPoint("48", "solver", 2e-3, 0.2, 0.1, 0.3),
    CostPoint("48, two steps", "solver", 4e-3, 0.3),
    CostPoint("64", "solver", 8e-3, 0.1),
]
costs = st.floats(1e-6, 1e3)


@given(runs=st.lists(st.tuples(costs, costs), max_size=12))
def test_none_on_the_front_is_beaten_and_each_beside_it_is(runs: list[tuple[float, float]]) -> None:
    points = [CostPoint(str(index), "solver", *run) for index, run in enumerate(runs)]
    front = pareto_front(points)
    for point in points:
        no_worse = [p for p in points if p.seconds <= point.seconds and p.error <= point.error]
        better = [p for p in no_worse if (p.seconds, p.error) != (point.seconds, point.error)]
        if point in front:
            assert not better
        else:
            assert any((p.seconds, p.error) <= (point.seconds, point.error) and p in front for p in no_worse)


def test_the_line_joins_the_solver_runs_that_no_other_beats_and_names_them() -> None:
    axes = plot_cost_accuracy([*SWEEP, CostPoint("FNO", "surrogate", 5e-4, 0.15)])
    line = next(line for line in axes.get_lines() if line.get_label() == "solver")
    np.testing.assert_allclose(line.get_xdata(), [1e-3, 2e-3, 8e-3])
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.2, 0.1])
    assert [text.get_text() for text in axes.texts] == ["32", "48", "64"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_seeds_of_one_label_share_a_colour_and_a_legend_entry() -> None:
    axes = plot_cost_accuracy(
        [("FNO", "surrogate", 1e-3, 0.2), ("UNet", "surrogate", 2e-3, 0.1), ("FNO", "surrogate", 1e-3, 0.3)]
    )
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["FNO", "UNet"]
    colors = [line.get_color() for line in axes.get_lines()]
    assert colors[0] == colors[2] != colors[1]


def test_bars_are_the_errors_intervals() -> None:
    axes = plot_cost_accuracy([CostPoint("FNO", "surrogate", 1e-3, 0.2, 0.1, 0.4)])
    ends = axes.collections[0].get_segments()[0][:, 1]
    np.testing.assert_allclose(ends, [0.1, 0.4])


def test_what_cannot_be_shown_is_named() -> None:
    own = new_figure(4, 3).add_subplot()
    axes = plot_cost_accuracy([*SWEEP, CostPoint("UNet", "surrogate", 1e-3, math.nan)], axes=own)
    assert axes is own
    assert axes.get_title(loc="left") == "not finite: UNet"
    with pytest.raises(ValueError, match="positive finite"):
        plot_cost_accuracy([CostPoint("UNet", "surrogate", 1e-3, math.inf), CostPoint("exact", "solver", 1e-3, 0.0)])

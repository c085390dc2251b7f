"""Maps of errors over the parameters of cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.patches import Rectangle

from pdesurrogate.viz.generalization import CaseErrors, plot_error_maps
from pdesurrogate.viz.style import INK, figure_of, save_figure

NAMES = ("speed [m/s]", "height [m]")
TESTED = np.asarray([[4.0, 0.3], [1.0, 0.1]])
TRAINED = np.asarray([[1.0, 0.3], [2.0, 0.1], [4.0, 0.1]])


def cases(errors=(0.5, 0.02), trained_errors=None, tested=TESTED, trained=TRAINED):
    measured = None if trained_errors is None else np.asarray(trained_errors)
    return CaseErrors(NAMES, np.asarray(tested), np.asarray(errors), np.asarray(trained), measured)


def cells(axes):
    """Colours by place, NaN where there is none."""
    (mesh,) = axes.collections
    return np.ma.filled(mesh.get_array().astype(float), np.nan)


def frames(axes):
    """Middles of the cells in heavy frames, and of the others."""
    found = {True: set(), False: set()}
    for patch in (patch for patch in axes.patches if isinstance(patch, Rectangle)):
        middle = patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2
        found[patch.get_edgecolor() == to_rgba(INK)].add(tuple(round(each) for each in middle))
    return found[True], found[False]


def words(axes):
    return sorted(text.get_text() for text in axes.texts)


def legend(panels):
    return [text.get_text() for text in figure_of(panels).legends[0].get_texts()]


def test_every_case_is_the_cell_of_its_two_values_whatever_their_distance():
    (axes,) = plot_error_maps({"FNO": {"bc": cases(trained_errors=[0.1, 0.2, 0.4])}})[0]
    np.testing.assert_allclose(cells(axes), [[0.02, 0.2, 0.4], [0.1, np.nan, 0.5]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "4"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0.1", "0.3"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (*NAMES, "bc")
    assert words(axes) == ["0.02", "0.1", "0.2", "0.4", "0.5"]
    tested, trained = frames(axes)
    assert tested == {(2, 1), (0, 0)}
    assert trained == {(0, 1), (1, 0), (2, 0)}


def test_training_cases_that_were_not_measured_are_points():
    panels = plot_error_maps({"FNO": {"bc": cases()}})
    (axes,) = panels[0]
    np.testing.assert_allclose(cells(axes), [[0.02, np.nan, np.nan], [np.nan, np.nan, 0.5]])
    points = {tuple(line.get_xydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"}
    assert points == {(0, 1), (1, 0), (2, 0)}
    assert legend(panels) == ["test case", "training case, not measured"]


def test_cases_of_one_cell_are_their_mean_and_test_cases_come_first():
    tested, trained = [[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [2.0, 1.0], [2.0, 1.0]]
    (axes,) = plot_error_maps({"FNO": {"geo": cases([1.0, 3.0], [9.0, 5.0, 7.0], tested, trained)}})[0]
    np.testing.assert_allclose(cells(axes), [[2.0, 6.0]])
    assert frames(axes) == ({(0, 0)}, {(1, 0)})


def test_numbers_of_single_precision_are_those_that_were_meant():
    tested, trained = np.asarray([[0.1, 0.3]], np.float32), np.asarray([[0.1, 0.3], [0.1, 0.300001]])
    (axes,) = plot_error_maps({"FNO": {"bc": cases([0.5], [0.1, 0.2], tested, trained)}})[0]
    assert cells(axes).shape == (1, 1)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0.3"]


def test_errors_that_are_not_finite_are_crosses_and_count_for_no_scale():
    panels = plot_error_maps({"FNO": {"bc": cases([np.nan, 0.1], [0.2, np.inf, 0.4])}})
    (axes,) = panels[0]
    crosses = {tuple(line.get_xydata()[0]) for line in axes.get_lines() if line.get_marker() == "x"}
    assert crosses == {(2, 1), (1, 0)}
    norm = axes.collections[0].norm
    assert 0.099 < norm.vmin < 0.1 < 0.4 < norm.vmax < 0.405
    assert "not finite" in legend(panels)
    figure_of(panels).draw_without_rendering()


def test_all_panels_have_one_scale_and_a_column_its_axes():
    worse = cases([50.0, 2.0], tested=TESTED[::-1] * [1, 2])
    panels = plot_error_maps({"FNO": {"bc": cases(), "geo": cases()}, "U-Net": {"geo": worse, "bc": cases()}})
    assert panels.shape == (2, 2)
    norms = [axes.collections[0].norm for axes in panels.flat]
    assert {(norm.vmin, norm.vmax) for norm in norms} == {(norms[0].vmin, norms[0].vmax)}
    assert norms[0].vmax > 50
    assert isinstance(norms[0], LogNorm)
    for column in panels.T:
        labels = [[text.get_text() for text in axes.get_yticklabels()] for axes in column]
        assert labels[0] == labels[1]
    assert [axes.get_title() for axes in panels[1]] == ["bc", "geo"]
    assert [words(axes)[-1] for axes in panels[:, 0]] == ["FNO", "U-Net"]
    assert [text.get_text() for text in panels[0, 1].get_yticklabels()] == ["0.1", "0.2", "0.3", "0.6"]


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("errors", [[0.0, 0.0], [0.3, 0.3], [np.nan, np.nan], [0.0, 1.0], [-1.0, 1.0]])
def test_any_errors_can_be_drawn(scale, errors):
    panels = plot_error_maps({"FNO": {"bc": cases(errors)}}, scale=scale)
    figure_of(panels).draw_without_rendering()
    norm = panels[0, 0].collections[0].norm
    assert norm.vmin < norm.vmax


def test_errors_that_are_alike_look_so():
    norm = plot_error_maps({"FNO": {"bc": cases([0.2, 0.2])}})[0, 0].collections[0].norm
    assert (norm.vmin, norm.vmax) == pytest.approx((0.1, 0.4))


def test_one_case_and_no_training_case_at_all():
    panels = plot_error_maps({"FNO": {"bc": cases([0.1], tested=[[1.0, 2.0]], trained=np.empty((0, 2)))}})
    assert words(panels[0, 0]) == ["0.1"]
    assert legend(panels) == ["test case"]


def test_it_is_written_to_a_file(tmp_path: Path):
    panels = plot_error_maps({"FNO": {"bc": cases()}}, "squared error", units="m^2/s^2")
    bar = figure_of(panels).axes[-1]
    assert bar.get_ylabel() == "squared error [m$^{2}$/s$^{2}$]"
    assert save_figure(panels, tmp_path / "map.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "Expected the same subsets, one at least, of every model"),
        ({"FNO": {}}, "Expected the same subsets, one at least, of every model"),
        ({"FNO": {"bc": cases()}, "U-Net": {"geo": cases()}}, r"but got \{'FNO': \['bc'\], 'U-Net': \['geo'\]\}"),
        (
            {"FNO": {"bc": cases([0.1])}},
            r"of 'FNO' on 'bc', .* tested \(2, 2\), errors \(1,\)",
        ),
        ({"FNO": {"bc": cases(trained_errors=[0.1])}}, r"trained \(3, 2\), trained_errors \(1,\)"),
        ({"FNO": {"bc": cases(trained=np.empty((0, 3)))}}, r"trained \(0, 3\)"),
        ({"FNO": {"bc": cases([], tested=np.empty((0, 2)), trained=np.empty((0, 2)))}}, "of a case at least"),
    ],
)
def test_what_does_not_fit_together_is_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        plot_error_maps(maps)


def test_another_scale_is_refused():
    with pytest.raises(ValueError, match="Expected the scale 'linear' or 'log' but got 'sqrt'"):
        plot_error_maps({"FNO": {"bc": cases()}}, scale="sqrt")

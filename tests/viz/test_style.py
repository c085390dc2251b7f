from __future__ import annotations

from contextlib import nullcontext
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import select_figure_formats
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pdesurrogate.viz.style import (
    INK,
    PALETTE,
    Band,
    evenly_spread,
    figure_of,
    labelled,
    line_look,
    new_figure,
    row_of_panels,
    save_figure,
    set_length_ticks,
    set_scale,
    style,
)


def test_settings_are_as_before_after_the_block_even_after_an_error() -> None:
    def fail_inside() -> None:
        with style():
            assert matplotlib.rcParams["axes.spines.top"] is False
            raise RuntimeError

    before = dict(matplotlib.rcParams)
    with pytest.raises(RuntimeError):
        fail_inside()
    assert dict(matplotlib.rcParams) == before


@given(count=st.integers(1, 200), shown=st.integers(1, 12))
def test_frames_shown_increase_and_end_with_the_last(count: int, shown: int) -> None:
    indices = evenly_spread(count, shown)
    assert indices == sorted(set(indices))
    assert len(indices) == min(count, shown)
    assert indices[-1] == count - 1
    assert shown == 1 or indices[0] == 0


# Machado, Oliveira & Fernandes, IEEE Trans. Vis. Comput. Graph. 15 (2009) 1291, full severity, linear light.
VISION = {
    "all cones": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _seen(color: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour as someone sees it; distances of about 2 are just noticeable side by side."""
    light = np.asarray(matplotlib.colors.to_rgb(color))
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    light = np.clip(np.asarray(VISION[vision]) @ light, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ light / [0.9505, 1.0, 1.089], 0.00886))
    return np.asarray([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_no_eye_takes_one_colour_for_another(vision: str) -> None:
    """Fifteen is what the six of Okabe & Ito that are among ours keep to each other."""
    colors = [_seen(color, vision) for color in (*PALETTE, INK)]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(colors, 2)) > 15


def test_lines_beyond_the_palette_differ_by_their_marks() -> None:
    looks = {str(sorted(line_look(index, "surrogate").items())) for index in range(3 * len(PALETTE))}
    assert len(looks) == 3 * len(PALETTE)


def test_a_figure_looks_the_same_outside_the_style_as_inside() -> None:
    """A notebook draws when the plot function has long returned."""
    pictures = []
    for block in (nullcontext(), style()):
        with style():
            axes = new_figure(3, 2).add_subplot()
            axes.loglog([1, 10, 100], [1, 5, 30], label="a")
            axes.legend()
        with block:
            canvas = FigureCanvasAgg(figure_of(axes))
            canvas.draw()
            pictures.append(np.asarray(canvas.buffer_rgba()).copy())
    np.testing.assert_array_equal(*pictures)


def test_a_notebook_shows_the_figure_of_the_axes() -> None:
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    select_figure_formats(shell, {"png"})  # what %matplotlib inline does
    axes = new_figure(2, 2).add_subplot()
    shown, _ = shell.display_formatter.format(axes.figure)
    assert "image/png" in shown


def test_a_figure_is_found_from_all_that_a_plot_function_gives_back(tmp_path: Path) -> None:
    figure = new_figure(3, 3)
    panels = figure.subplots(2, 2)
    assert figure_of(figure) is figure_of(panels) is figure_of(panels[0, 1]) is figure
    nested = new_figure(3, 3)
    assert figure_of(nested.subfigures(1, 2)[0].subplots()) is nested
    assert save_figure(panels, tmp_path / "panels.png", dpi=30).is_file()


def test_a_band_of_lines_spans_them_and_that_of_one_line_is_its_error() -> None:
    lines = [np.asarray([1.0, 2.0]), np.asarray([3.0, 4.0])]
    assert [ends.tolist() for ends in Band.of_lines(lines)] == [[2.0, 3.0], [1.0, 2.0], [3.0, 4.0]]
    assert [ends.tolist() for ends in Band.of_lines(lines[:1], np.ones(2))] == [[1.0, 2.0], [0.0, 1.0], [2.0, 3.0]]
    assert np.isnan(Band.of_lines(lines[:1]).low).all()


def test_a_row_of_panels_is_as_long_as_asked() -> None:
    given = new_figure(3, 3).subplots(1, 2)
    assert list(row_of_panels(given, 2, 1, 1)) == list(given)
    assert len(row_of_panels(None, 3, 4, 2)) == 3
    with pytest.raises(ValueError, match="3 axes, one a panel, but got 2"):
        row_of_panels(given, 3, 1, 1)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(6.283185307, ["0", "π", "2π"]), (3.141592654, ["0", "π/2", "π"]), (1.0, ["0", "0.5", "1"])],
)
def test_sides_are_marked_in_multiples_of_pi_where_they_are(length: float, expected: list[str]) -> None:
    axes = new_figure(2, 2).add_subplot()
    set_length_ticks(axes.xaxis, length)
    assert [axes.xaxis.get_major_formatter()(tick, 0) for tick in axes.get_xticks()] == expected


def test_numbers_between_powers_of_ten_are_plain() -> None:
    axes = new_figure(3, 3).add_subplot()
    axes.plot([0.3, 4], [1, 1])
    set_scale(axes.xaxis, "log")
    axes.figure.draw_without_rendering()
    between = [label.get_text() for label in axes.xaxis.get_ticklabels(which="minor") if label.get_text()]
    assert {"0.3", "2"} <= set(between)
    set_scale(axes.xaxis, "linear")
    assert axes.get_xscale() == "linear"


def test_powers_in_units_are_raised() -> None:
    assert labelled("energy", "m^3/s^-2") == "energy [m$^{3}$/s$^{-2}$]"


@pytest.mark.parametrize("name", ["figure.png", "figure.svg", "figure.pdf"])
def test_the_same_figure_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    written = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        figure = new_figure(2, 2)
        figure.add_subplot().plot([0, 1], [0, 1])
        written.append(save_figure(figure, tmp_path / folder / name, dpi=40).read_bytes())
    assert written[0] == written[1]


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file ending"):
        save_figure(new_figure(1, 1), tmp_path / "figure.docx")

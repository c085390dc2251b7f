from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.viz.style import PALETTE, evenly_spread, labelled, new_figure, save_figure, set_length_ticks, style


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


def test_colours_differ_in_lightness_as_well_as_hue() -> None:
    """Two colours of one lightness and one hue could not be told apart in print or by a colour-blind reader."""
    luminances = [
        sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), matplotlib.colors.to_rgb(p), strict=True)) for p in PALETTE
    ]
    assert len({round(value, 3) for value in luminances}) == len(PALETTE)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(6.283185307, ["0", "π", "2π"]), (3.141592654, ["0", "π/2", "π"]), (1.0, ["0", "0.5", "1"])],
)
def test_sides_are_marked_in_multiples_of_pi_where_they_are(length: float, expected: list[str]) -> None:
    axes = new_figure(2, 2).add_subplot()
    set_length_ticks(axes.xaxis, length)
    assert [axes.xaxis.get_major_formatter()(tick, 0) for tick in axes.get_xticks()] == expected


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

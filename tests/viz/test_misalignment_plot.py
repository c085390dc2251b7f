from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from pdesurrogate.evaluation.misalignment import Misalignment, Shift
from pdesurrogate.viz.misalignment import plot_misalignment
from pdesurrogate.viz.style import figure_of, new_figure, save_figure


def shift(median: float, chance: float = 9.0, chance_coherence: float = 0.5) -> Shift:
    return Shift(0.8 * median, median, 1.3 * median, 0.7, chance, chance_coherence)


def measured(waves: int = 4, chance: float = 9.0, flow: bool = True) -> Misalignment:
    return Misalignment(
        samples=32,
        windows=4,
        waves=tuple(shift(1 + 0.1 * wave, chance) for wave in range(waves)),
        levels=tuple(
            (
                *(shift(0.5 + 0.3 * level + 0.1 * wave, chance * (1 + level), 0.4 * level) for level in range(3)),
                Shift(*[math.nan] * 3),
            )
            for wave in range(waves)
        ),
        total=shift(4.4, chance),
        data=shift(1.6, chance),
        fastest=shift(6.0) if flow else None,
        typical=shift(2.5) if flow else None,
    )


def heights(axes: Axes) -> dict[str, float]:
    return {str(line.get_label()): line.get_ydata()[0] for line in axes.get_lines() if len(line.get_ydata()) == 2}


def names(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_points_are_medians_and_bars_quartiles() -> None:
    left, right = plot_misalignment(measured())
    container = left.containers[0]
    np.testing.assert_allclose(container.lines[0].get_xydata(), [[1, 1.0], [2, 1.1], [3, 1.2], [4, 1.3]])
    first = container.lines[2][0].get_segments()[0]
    np.testing.assert_allclose(first[:, 1], [0.8, 1.3])
    assert len(right.containers) == 4
    np.testing.assert_allclose(right.containers[1].lines[0].get_ydata(), [0.6, 0.9, 1.2, math.nan])
    assert left.get_ylim()[0] == right.get_ylim()[0] == 0


def test_a_wave_stands_beside_its_share_and_the_way_of_the_flow() -> None:
    left, _ = plot_misalignment(measured())
    assert heights(left) == pytest.approx(
        {
            "over all waves, by 4": 1.1,
            "frames of the data, same measure": 1.6,
            "root mean square of |u| dt / dx": 2.5,
            "max |u| dt / dx": 6.0,
        }
    )
    left, _ = plot_misalignment(measured(flow=False))
    assert list(heights(left)) == ["over all waves, by 4", "frames of the data, same measure"]


def test_what_chance_gives_is_marked_where_it_is_known() -> None:
    for panel in plot_misalignment(measured()):
        assert "of different samples" in names(panel)
    for panel in plot_misalignment(measured(chance=math.nan)):
        assert "of different samples" not in names(panel)


def test_points_of_accidents_are_open() -> None:
    left, right = plot_misalignment(measured(2))
    opened = [line.get_xydata() for line in right.get_lines() if line.get_color() == "white"]
    np.testing.assert_allclose(np.concatenate(opened)[:, 1], [1.1, 1.2])
    assert not any(line.get_color() == "white" for line in left.get_lines())


@pytest.mark.parametrize("waves", [1, 8, 16])
def test_any_number_of_waves(waves: int) -> None:
    left, right = plot_misalignment(measured(waves))
    figure_of(left).draw_without_rendering()
    assert left.get_xlim() == (0.5, waves + 0.5)
    assert sum(name.startswith("wave ") for name in names(right)) == waves
    assert [label.get_text() for label in right.get_xticklabels()] == ["1", "1/2", "1/4", "1/8"]


def test_it_is_drawn_into_given_axes_and_written(tmp_path: Path) -> None:
    own = new_figure(10, 4).subplots(1, 2)
    panels = plot_misalignment(measured(), axes=own)
    assert [*panels] == [*own]
    assert save_figure(panels, tmp_path / "misalignment.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="Expected 2 axes"):
        plot_misalignment(measured(), axes=[own[0]])

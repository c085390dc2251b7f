from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pdesurrogate.viz.snapshots import plot_snapshots, save_film
from pdesurrogate.viz.style import figure_of

SIDES = (2 * math.pi, math.pi)


def _wave(frames: int = 3) -> torch.Tensor:
    """``cos(x) + y / 2`` growing in time, so that x, y and time can be told apart; (time, 8, 4)."""
    x = torch.arange(8) * (SIDES[0] / 8)
    y = torch.arange(4) * (SIDES[1] / 4)
    return torch.arange(1, frames + 1)[:, None, None] * (torch.cos(x)[:, None] + y / 2)


def test_pictures_hold_the_fields_with_x_to_the_right_and_y_upwards() -> None:
    truth = _wave()
    panels = plot_snapshots(truth, {"A": truth + 1}, [1.0, 2.0, 3.0], extent=SIDES)
    assert panels.shape == (3, 3)
    for frame in range(3):
        for row, expected in enumerate((truth[frame], truth[frame] + 1, torch.ones(8, 4))):
            picture = panels[row, frame].images[0]
            np.testing.assert_allclose(picture.get_array(), expected.T, rtol=1e-6)
            assert picture.origin == "lower"
            np.testing.assert_allclose(picture.get_extent(), (0, SIDES[0], 0, SIDES[1]))


def test_truth_and_models_share_a_symmetric_scale_and_errors_state_their_own() -> None:
    truth = _wave()
    panels = plot_snapshots(truth, {"A": 0.5 * truth, "B": 0.9 * truth}, [1.0, 2.0, 3.0], extent=SIDES)
    limits = [panel.images[0].get_clim() for panel in panels.flat]
    largest = float(truth.abs().max())
    assert all(limit == pytest.approx((-largest, largest)) for limit in limits[:9])
    assert all(limit == pytest.approx((-largest / 2, largest / 2)) for limit in limits[9:])
    bars = [axes.get_ylabel() for axes in figure_of(panels).axes if not axes.images]
    assert bars == ["vorticity [1/time]", "prediction − truth [1/time]\n(own scale)"]


def test_error_panels_tell_the_relative_error() -> None:
    truth = _wave()
    panels = plot_snapshots(truth, {"A": 1.25 * truth}, [1.0, 2.0, 3.0], extent=SIDES, frames=[0, 2])
    assert [panel.texts[0].get_text() for panel in panels[2]] == ["rel. L2 0.25"] * 2
    assert [panel.get_title() for panel in panels[0]] == ["lead time 1", "lead time 3"]


def test_what_is_not_finite_is_masked_and_said() -> None:
    truth = _wave()
    broken = truth.clone()
    broken[2] = math.nan
    panels = plot_snapshots(truth, {"A": broken}, [1.0, 2.0, 3.0], extent=SIDES)
    last = panels[1, 2]
    assert np.ma.getmaskarray(last.images[0].get_array()).all()
    assert [text.get_text() for text in last.texts] == ["not finite"]
    assert panels[0, 2].images[0].get_clim()[1] == pytest.approx(float(truth.abs().max()))


def test_a_field_of_one_sign_has_a_scale_without_a_middle() -> None:
    truth = _wave() ** 2 + 1
    panels = plot_snapshots(truth, {"A": 2 * truth}, [1.0, 2.0, 3.0], extent=SIDES)
    picture = panels[0, 0].images[0]
    assert picture.get_cmap().name == "viridis"
    assert picture.get_clim() == pytest.approx((float(truth.min()), float(truth.max())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truth": torch.zeros(3, 1, 8, 4)}, r"truth \(time, x, y\)"),
        ({"predictions": {}}, "at least one prediction"),
        ({"predictions": {"A": torch.zeros(2, 8, 4)}}, "prediction 'A'"),
        ({"lead_times": [1.0]}, "3 lead times"),
        ({"frames": [3]}, "frames within 0..2"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], message: str) -> None:
    good = {"truth": _wave(), "predictions": {"A": _wave()}, "lead_times": [1.0, 2.0, 3.0], "extent": SIDES}
    with pytest.raises(ValueError, match=message):
        plot_snapshots(**{**good, **arguments})  # type: ignore[arg-type]


def test_a_film_has_a_frame_for_every_lead_time_and_the_same_bytes_again(tmp_path: Path) -> None:
    truth, broken = _wave(), 0.8 * _wave()
    broken[1] = math.nan
    paths = [
        save_film(truth, broken, [1.0, 2.0, 3.0], tmp_path / name, extent=SIDES, dpi=30)
        for name in ("first.gif", "second.gif")
    ]
    with Image.open(paths[0]) as film:
        assert film.n_frames == 3
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_film_is_a_gif(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.gif"):
        save_film(_wave(), _wave(), [1.0, 2.0, 3.0], tmp_path / "film.mp4", extent=SIDES)

"""Pictures and films of enclosed flows hold what they were given, bodies in their places."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pdesurrogate.evaluation.enclosed.centerlines import Centerlines, Line
from pdesurrogate.evaluation.enclosed.forces import ForceCoefficients
from pdesurrogate.evaluation.enclosed.reference import SCHAEFER_TUREK_2D2, cavity_reference
from pdesurrogate.evaluation.report import Report
from pdesurrogate.simulators.enclosed.geometry import Disc, Rectangle
from pdesurrogate.viz.centerlines import plot_centerlines, plot_rollout_centerlines
from pdesurrogate.viz.films import save_field_film
from pdesurrogate.viz.forces import plot_forces, plot_rollout_forces
from pdesurrogate.viz.planes import Box, draw_plane, draw_streamlines, plot_planes
from pdesurrogate.viz.scales import ColorScale
from pdesurrogate.viz.snapshots import plot_snapshots
from pdesurrogate.viz.style import figure_of

Make = Callable[..., Report]
CENTERS = torch.arange(12).double() / 4 - 0.875, torch.arange(6).double() / 4 + 0.125
BOX = (-1.0, 2.0, 0.0, 1.5)


def _field(frames: int = 3) -> Tensor:
    """``(time, 12, 6)`` growing in time."""
    x, y = CENTERS
    return torch.arange(1, frames + 1)[:, None, None] * (torch.cos(2 * x)[:, None] + y)


def _mask() -> Tensor:
    mask = torch.ones(12, 6, dtype=torch.bool)
    mask[3:5, 2:4] = False
    return mask


def test_a_box_reaches_half_a_cell_beyond_its_centers() -> None:
    box = Box.around(CENTERS)
    assert box == BOX
    x, y = box.centers((12, 6))
    np.testing.assert_allclose(x, CENTERS[0])
    np.testing.assert_allclose(y, CENTERS[1])
    assert Box.of_sides((3.0, 1.5), (-1.0, 0.0)) == box


def test_boxes_need_even_cells() -> None:
    with pytest.raises(ValueError, match="Expected even cells"):
        Box.around((torch.tensor([0.0, 1.0, 3.0]), CENTERS[1]))
    with pytest.raises(ValueError, match="at least two each"):
        Box.around((CENTERS[0], torch.tensor([0.0])))


def test_pictures_hold_the_fields_in_their_box() -> None:
    first, second = _field(2)
    panels = plot_planes({"a": first, "b": second}, CENTERS, units={"a": "m/s"})
    for panel, field in zip(panels, (first, second), strict=True):
        (picture,) = panel.images
        np.testing.assert_allclose(picture.get_array(), field.T)
        assert tuple(picture.get_extent()) == BOX
        assert panel.get_aspect() == 1.0
    bars = [axes.get_ylabel() for axes in figure_of(panels).axes if not axes.images]
    assert bars == ["a [m/s]", "b"]


def test_solid_cells_are_drawn_and_do_not_count() -> None:
    field = _field(1)[0] ** 2 + 1
    solid = ~_mask()
    marred = torch.where(solid, -99.0, field)
    (panel,) = plot_planes({"a": marred}, CENTERS, mask=_mask())
    picture, cells = panel.images
    assert picture.get_clim() == pytest.approx((float(field[~solid].min()), float(field[~solid].max())))
    np.testing.assert_array_equal(np.ma.getmaskarray(cells.get_array()), ~solid.T)
    assert not panel.texts


def test_round_off_below_zero_is_no_second_sign() -> None:
    field = _field(1)[0].abs()
    field[0, 0] = -1e-20
    (panel,) = plot_planes({"smoke": field}, CENTERS)
    assert panel.images[0].get_cmap().name == "viridis"
    assert panel.images[0].colorbar.extend == "neither"


def test_what_is_not_finite_is_said_of_the_fluid_alone() -> None:
    field = _field(1)[0]
    field[3, 2] = math.nan
    (inside,) = plot_planes({"a": field}, CENTERS, mask=_mask())
    (beside,) = plot_planes({"a": field}, CENTERS)
    assert [len(panel.texts) for panel in (inside, beside)] == [0, 1]


@pytest.mark.parametrize(
    ("body", "expected"),
    [(Disc((0.5, 0.75), 0.5), (0.0, 1.0, 0.25, 1.25)), (Rectangle((0.0, -9.0), (0.5, 0.5)), (0.0, 0.5, 0.0, 0.5))],
    ids=["disc", "step"],
)
def test_bodies_have_their_true_outline(body: Disc | Rectangle, expected: tuple[float, ...]) -> None:
    axes = Figure().add_subplot()
    draw_plane(axes, np.zeros((12, 6)), Box(*BOX), ColorScale(-1, 1, "RdBu_r"), bodies=[body])
    (outline,) = axes.collections
    points = np.concatenate([path.vertices for path in outline.get_paths()])
    found = points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max()
    # A step goes on below the floor, by what nobody sees.
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert (*axes.get_xlim(), *axes.get_ylim()) == BOX


def test_streamlines_are_level_lines() -> None:
    axes = Figure().add_subplot()
    psi = torch.linspace(0, 1, 7).expand(13, 7)
    draw_streamlines(axes, psi, Box(*BOX), lines=4)
    (lines,) = axes.collections
    heights = [float(path.vertices[:, 1].mean()) for path in lines.get_paths()]
    np.testing.assert_allclose(heights, [0.3, 0.6, 0.9, 1.2], atol=1e-6)
    with pytest.raises(ValueError, match="at least two lines"):
        draw_streamlines(axes, psi, Box(*BOX), lines=1)


def test_weak_eddies_get_lines_of_their_own() -> None:
    x = torch.linspace(0, 1, 41)
    psi = -(torch.sin(torch.pi * x)[:, None] * torch.sin(torch.pi * x))
    axes = Figure().add_subplot()
    draw_streamlines(axes, psi.clamp(max=0.0), Box(0, 1, 0, 1))
    assert len(axes.collections) == 1
    psi[1:4, 1:4] = 1e-3
    draw_streamlines(axes, psi, Box(0, 1, 0, 1))
    assert len(axes.collections) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fields": {}}, "at least one field"),
        ({"fields": {"a": torch.zeros(6, 12)}}, r"Expected 'a' \(x, y\)"),
        ({"mask": torch.ones(6, 12)}, "Expected a mask"),
        ({"mask": torch.zeros(12, 6)}, "with some fluid"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_planes(**{"fields": {"a": _field(1)[0]}, "coordinates": CENTERS, **arguments})


def test_a_film_has_a_frame_for_every_time_and_the_same_bytes_again(tmp_path: Path) -> None:
    frames = _field()
    frames[1, 0, 0] = math.nan
    paths = [
        save_field_film(
            frames, [1.0, 2.0, 3.0], tmp_path / name, CENTERS, mask=_mask(), bodies=[Disc((0.0, 0.7), 0.4)], dpi=30
        )
        for name in ("first.gif", "second.gif")
    ]
    with Image.open(paths[0]) as film:
        assert film.n_frames == 3
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_films_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.gif"):
        save_field_film(_field(), [1.0, 2.0, 3.0], tmp_path / "film.mp4", CENTERS)
    with pytest.raises(ValueError, match=r"Expected frames \(time, x, y\) \(2, 12, 6\)"):
        save_field_film(_field(), [1.0, 2.0], tmp_path / "film.gif", CENTERS)


def test_snapshots_of_a_case_lie_in_its_box_and_leave_its_body_out() -> None:
    truth, mask = _field(), _mask()
    prediction = torch.where(mask, 1.25 * truth, 1e6)
    panels = plot_snapshots(truth, {"A": prediction}, [1.0, 2.0, 3.0], extent=(3.0, 1.5), origin=(-1.0, 0.0), mask=mask)
    assert all(tuple(panel.images[0].get_extent()) == BOX for panel in panels.flat)
    assert [panel.texts[0].get_text() for panel in panels[2]] == ["rel. L2 0.25"] * 3
    assert all(len(panel.images) == 2 for panel in panels.flat)
    largest = float(truth[:, mask].abs().max())
    assert panels[0, 0].images[0].get_clim() == pytest.approx((-largest, largest))


def test_long_boxes_have_fewer_and_wider_pictures() -> None:
    truth = torch.randn(9, 20, 4, generator=torch.Generator().manual_seed(0))
    panels = plot_snapshots(truth, {"A": truth + 1}, list(range(9)), extent=(5.0, 1.0))
    assert panels.shape == (3, 3)


def _lines(offset: float = 0.0) -> Centerlines:
    x = np.linspace(0, 1, 5)
    return Centerlines(Line(x, x**2 + offset), Line(x, x - offset))


def test_centerlines_are_drawn_upwards_and_along_with_published_symbols() -> None:
    reference = cavity_reference(100)
    vertical, horizontal = plot_centerlines({"coarse": _lines(0.1)}, references=[reference])
    drawn = {line.get_label(): line for line in vertical.get_lines()}
    np.testing.assert_allclose(drawn["coarse"].get_xdata(), _lines(0.1).velocity_x.values)
    np.testing.assert_allclose(drawn["coarse"].get_ydata(), _lines().velocity_x.positions)
    symbols = {line.get_label(): line for line in horizontal.get_lines()}[reference.name]
    np.testing.assert_allclose(symbols.get_ydata(), reference.centerlines.velocity_y.values)
    assert symbols.get_linestyle() == "None"
    with pytest.raises(ValueError, match="at least one flow or reference"):
        plot_centerlines({})


def _history(frequency: float = 3.0) -> ForceCoefficients:
    times = 0.02 * np.arange(300)
    lift = np.sin(2 * np.pi * frequency * times)
    return ForceCoefficients(times, 3.2 + 0.02 * lift**2, lift, 0.1)


def test_forces_are_drawn_beside_the_spectrum_that_gives_the_strouhal_number() -> None:
    drag, lift, spectrum = plot_forces({"a": _history(3.0)}, since=1.0, reference=SCHAEFER_TUREK_2D2)
    np.testing.assert_allclose(lift.get_lines()[0].get_ydata(), _history().lift)
    np.testing.assert_allclose(drag.get_lines()[0].get_ydata(), _history().drag)
    line = spectrum.get_lines()[0]
    peak = line.get_xdata()[np.argmax(line.get_ydata())]
    assert peak == pytest.approx(0.3, abs=0.003)
    assert max(line.get_ydata()) == pytest.approx(1.0, rel=0.02)
    assert line.get_label() == "a: 0.3000"
    low, high = drag.get_ylim()
    assert low < 3.2 < 3.24 < high < 3.4


def test_forces_need_a_flow_and_enough_of_it() -> None:
    with pytest.raises(ValueError, match="at least one flow"):
        plot_forces({}, since=0.0)
    with pytest.raises(ValueError, match="at least 8 frames"):
        plot_forces({"a": _history()}, since=5.9)


def _report(make_report: Make, factor: float = 1.0, **options: Any) -> Report:
    forces, place = ("trajectory", "lead_time"), np.linspace(0.1, 0.9, 5)
    truth = np.arange(12.0).reshape(3, 4)
    profile = np.arange(15.0).reshape(3, 5)
    curves = {
        **{f"{name}_truth": (forces, truth, "N/m") for name in ("drag", "lift")},
        **{f"{name}_prediction": (forces, factor * truth, "N/m") for name in ("drag", "lift")},
    }
    for component, along in (("x", "vertical_position"), ("y", "horizontal_position")):
        dims = ("trajectory", along)
        curves[f"centerline_velocity_{component}_truth"] = (dims, profile, "m/s")
        curves[f"centerline_velocity_{component}_prediction"] = (dims, factor * profile, "m/s")
    labels = {"vertical_position": place, "horizontal_position": place}
    return make_report(curves=curves, labels=labels, **options)


@pytest.mark.parametrize("plot", [plot_rollout_forces, plot_rollout_centerlines])
def test_rollouts_are_drawn_for_one_trajectory_and_every_seed(make_report: Make, plot: Callable[..., Any]) -> None:
    reports = [_report(make_report, factor, seed=seed) for seed, factor in enumerate((2.0, 3.0))]
    panels = plot(reports, trajectory=1)
    known = {line.get_label(): line for line in panels[1].get_lines()}
    truth = known["truth"].get_ydata()
    np.testing.assert_allclose(known["FNO (2 seeds)"].get_ydata(), 2 * truth)
    drawn = [line.get_ydata() for line in panels[1].get_lines()]
    assert sum(len(values) == len(truth) and np.allclose(values, 3 * truth) for values in drawn) == 1
    with pytest.raises(ValueError, match="trajectory from 0 to 2"):
        plot(reports, trajectory=3)
    with pytest.raises(ValueError, match="Expected"):
        plot([make_report()])

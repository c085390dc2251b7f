from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pdesurrogate.viz.spacetime import plot_spacetime
from pdesurrogate.viz.style import figure_of, new_figure

TIMES = [1.0, 2.0, 4.0]
X = torch.arange(6) * (2 * math.pi / 6)


def _wave() -> torch.Tensor:
    return torch.tensor(TIMES)[:, None] * torch.sin(X)


def test_panels_hold_truth_prediction_and_error_with_time_upwards() -> None:
    truth = _wave()
    panels = plot_spacetime(truth, truth + 1, TIMES, X)
    for panel, expected in zip(panels, (truth, truth + 1, torch.ones(3, 6)), strict=True):
        (mesh,) = panel.collections
        np.testing.assert_allclose(mesh.get_array().reshape(3, 6), expected, rtol=1e-6)
        assert panel.get_ylim()[0] < panel.get_ylim()[1]
    # Cells end halfway between lead times, also where these are uneven.
    np.testing.assert_allclose(panels[0].collections[0].get_coordinates()[:, 0, 1], [0.5, 1.5, 3.0, 5.0])


def test_truth_and_prediction_share_a_scale_and_the_error_has_its_own() -> None:
    truth = _wave()
    panels = plot_spacetime(truth, 0.5 * truth, TIMES, X, prediction_label="FNO")
    largest = float(truth.abs().max())
    limits = [panel.collections[0].get_clim() for panel in panels]
    assert limits[0] == limits[1] == pytest.approx((-largest, largest))
    assert limits[2] == pytest.approx((-largest / 2, largest / 2))
    assert [panel.get_title() for panel in panels] == ["truth", "FNO", "error"]
    bars = [axes.get_ylabel() for axes in figure_of(panels).axes if axes not in panels]
    assert bars == ["vorticity [1/time]", "prediction − truth [1/time]\n(own scale)"]


def test_a_periodic_line_closes_on_itself() -> None:
    panels = plot_spacetime(_wave(), _wave(), TIMES, X, period=2 * math.pi)
    values = panels[0].collections[0].get_array().reshape(3, 7)
    np.testing.assert_allclose(values[:, 0], values[:, -1])
    np.testing.assert_allclose(panels[0].get_xlim(), (0, 2 * math.pi))
    assert [panels[0].xaxis.get_major_formatter()(tick, 0) for tick in panels[0].get_xticks()] == ["0", "π", "2π"]


def test_what_is_not_finite_is_masked_and_said_where_it_is() -> None:
    broken = _wave()
    broken[2] = math.nan
    panels = plot_spacetime(_wave(), broken, TIMES, X, axes=new_figure(9, 3).subplots(1, 3))
    assert np.ma.getmaskarray(panels[1].collections[0].get_array()).reshape(3, 6)[2].all()
    (text,) = panels[1].texts
    assert (text.get_text(), text.get_position()[1]) == ("not finite", 4.0)
    assert not panels[0].texts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truth": torch.zeros(3, 6, 6)}, "one line"),
        ({"truth": torch.zeros(1, 6)}, "one line"),
        ({"prediction": torch.zeros(3, 5)}, "truth's shape"),
        ({"lead_times": [1.0]}, "3 lead times"),
        ({"positions": [1.0]}, "6 positions"),
        ({"axes": new_figure(3, 3).subplots(1, 2)}, "3 axes"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], message: str) -> None:
    good = {"truth": _wave(), "prediction": _wave(), "lead_times": TIMES, "positions": X}
    with pytest.raises(ValueError, match=message):
        plot_spacetime(**{**good, **arguments})  # type: ignore[arg-type]

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pdesurrogate.evaluation.channel.reference import COMPONENTS, channel_reference
from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics
from pdesurrogate.viz.plane_spectra import plot_plane_spectra
from pdesurrogate.viz.style import new_figure

REFERENCE = channel_reference(180)
TABLE = WallUnitStatistics.of_reference(REFERENCE)


def _line(axes: Any, label: str) -> Any:
    (line,) = (line for line in axes.get_lines() if line.get_label() == label)
    return line


@pytest.mark.parametrize("axis", ["x", "z"])
def test_each_panel_shows_the_energy_per_wavenumber_of_its_component_and_plane(axis: Any) -> None:
    panels = plot_plane_spectra({"run": TABLE}, axis=axis, reference=REFERENCE)
    assert panels.shape == (3, 5)
    for row, component in enumerate(COMPONENTS):
        for column, spectrum in enumerate(TABLE.spectra[axis, component]):
            waves, density = spectrum.density
            for label in ("run", REFERENCE.name):
                line = _line(panels[row, column], label)
                # The last mode holds half a wave, mode zero no place on a logarithmic axis.
                np.testing.assert_allclose(line.get_xdata(), waves[:-1])
                np.testing.assert_allclose(line.get_ydata(), density[:-1])
            assert (panels[row, column].get_xscale(), panels[row, column].get_yscale()) == ("log", "log")
    assert [panel.get_title() for panel in panels[0]] == [
        "$y^+ = 5.34$", "$y^+ = 19$", "$y^+ = 30$", "$y^+ = 98$", "$y^+ = 178$",
    ]  # fmt: skip
    assert panels[2, 0].get_xlabel() == f"$k_{axis} h$"
    assert [panel.get_ylabel() for panel in panels[:, 0]] == ["$E_{uu}^+ / h$", "$E_{vv}^+ / h$", "$E_{ww}^+ / h$"]


def test_planes_that_a_channel_lacks_stay_empty_and_those_elsewhere_are_marked() -> None:
    some = {
        key: [plane._replace(distance=1.1 * plane.distance) for plane in planes[1:3]]
        for key, planes in TABLE.spectra.items()
    }
    own = {key: planes if key[1] == "velocity_y" else TABLE.spectra[key][1:3] for key, planes in some.items()}
    panels = plot_plane_spectra({"run": replace(TABLE, spectra=own), "none": replace(TABLE, spectra={})})
    assert panels.shape == (3, 2)
    assert [len(panel.get_lines()) for panel in panels.flat] == [1] * 6
    assert [text.get_text() for text in panels[1, 0].texts] == ["$y^+ = 20.9$"]
    assert not panels[0, 0].texts
    # The other way round: every panel has the channel's own planes only.
    panels = plot_plane_spectra({"table": TABLE, "run": replace(TABLE, spectra=own)})
    assert [len(panel.get_lines()) for panel in panels[0]] == [1, 2, 2, 1, 1]


def test_spectra_that_are_not_there_are_refused() -> None:
    only = {key: planes for key, planes in TABLE.spectra.items() if key == ("x", "velocity_x")}
    with pytest.raises(ValueError, match=r"along x but got \['velocity_x'\]"):
        plot_plane_spectra({"run": replace(TABLE, spectra=only)}, axis="x")
    with pytest.raises(ValueError, match="along z but got None"):
        plot_plane_spectra({})
    with pytest.raises(ValueError, match=r"axes of shape \(3, 5\)"):
        plot_plane_spectra({"run": TABLE}, axes=new_figure(3, 3).subplots(3, 2))

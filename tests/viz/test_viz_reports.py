from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pdesurrogate.evaluation.report import Report
from pdesurrogate.viz.reports import group_seeds, nearest_lead_times, require_variables, select_labels

Make = Callable[..., Report]


def _values() -> xr.DataArray:
    return xr.DataArray(
        np.arange(12.0).reshape(2, 2, 3),
        {"channel": ["u", "p"], "distance": [0.0, 0.5], "time": [1.0, 2.0, 3.0]},
        ("channel", "distance", "time"),
        attrs={"units": "m/s, Pa"},
    )


def test_names_and_numbers_are_labels() -> None:
    found = select_labels(_values(), {"channel": "p", "distance": 0.5}, ["time"])
    assert found.values.tolist() == [9.0, 10.0, 11.0]
    assert found.attrs["units"] == "Pa"


def test_a_dimension_of_one_label_needs_no_selection_and_channels_of_one_unit_are_averaged() -> None:
    values = _values().isel(distance=[0]).assign_attrs(units="m/s")
    found = select_labels(values, None, ["time"])
    assert found.values.tolist() == [3.0, 4.0, 5.0]
    assert found.attrs["units"] == "m/s"


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"distance": 0.5}, "one channel of"),
        ({"channel": "u"}, "one distance of"),
        ({"channel": "u", "distance": 0.3}, "a distance among"),
        ({"channel": "u", "distance": "near"}, "a distance among"),
        ({"channel": 0, "distance": 0.5}, "a channel among"),
        ({"time": 1.0}, "select along"),
        ({"colour": "red"}, "select along"),
    ],
)
def test_what_does_not_leave_one_curve_is_refused(select: dict[str, str | float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_labels(_values(), select, ["time"])


def test_models_are_grouped_by_what_they_are(make_report: Make) -> None:
    reports = [make_report(seed=0), make_report(name="UNet"), make_report(seed=1)]
    assert {label: len(seeds) for label, seeds in group_seeds(reports).items()} == {"FNO": 2, "UNet": 1}


def test_lead_times_are_the_nearest_within_half_a_frame(make_report: Make) -> None:
    values = make_report().curves["relative_l2"]
    assert nearest_lead_times(values, None) == [0.5, 2.0]
    assert nearest_lead_times(values.isel(lead_time=[1]), None) == [1.0]
    assert nearest_lead_times(values, [1.2, 0.9]) == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"from 0\.5 to 2"):
        nearest_lead_times(values, 2.4)


def test_a_report_without_a_variable_is_refused(make_report: Make) -> None:
    with pytest.raises(ValueError, match="Expected coherence in every report"):
        require_variables([make_report()], "relative_l2", "coherence")

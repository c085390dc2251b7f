from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.viz.scales import ColorScale

fields = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=9).map(np.asarray)


@given(values=fields)
def test_a_scale_holds_the_field_and_zero_is_white_where_both_signs_occur(values: np.ndarray) -> None:
    scale = ColorScale.of_field(values)
    assert scale.clipped_ends(values) == "neither"
    assert scale.low < scale.high
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() < 0 < finite.max():
        assert scale.low == -scale.high


@pytest.mark.parametrize(
    ("values", "ends"), [([0.5, -3], "min"), ([2], "max"), ([2, -2, np.nan], "both"), ([1], "neither")]
)
def test_clipped_ends_are_told(values: list[float], ends: str) -> None:
    assert ColorScale.of_error(np.zeros(1), 1.0).clipped_ends(np.asarray(values)) == ends


def test_a_limit_makes_any_scale_symmetric() -> None:
    scale = ColorScale.of_field(np.asarray([1.0, 2.0]), limit=5.0)
    assert (scale.low, scale.high, scale.name) == (-5.0, 5.0, "RdBu_r")

"""Files with flipped bits are read, or refused with a ``ValueError``; nothing else happens."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_pdearena import (
    compressible_fields,
    speedy_fields,
    staggered_flow,
    write_compressible,
    write_navier_stokes,
    write_speedy_run,
)

from pdesurrogate.data.adapters.pdearena import PdeArenaNavierStokes, PdeArenaShallowWater
from pdesurrogate.data.adapters.sinenet_compressible import SineNetCompressible


def smoke(folder):
    return write_navier_stokes(folder, "train", 1, staggered_flow(0, 1, 3, 4, 4))


def gas(folder):
    return write_compressible(folder, "train", {"1": compressible_fields(0, 1, 3, 4, 4)})


def water(folder):
    return write_speedy_run(folder / "train" / "seed=1" / "run0001", speedy_fields(0, 3, 4, 6))


@pytest.mark.parametrize(
    ("write", "adapter"),
    [(smoke, PdeArenaNavierStokes), (gas, SineNetCompressible), (water, PdeArenaShallowWater)],
    ids=["smoke", "gas", "water"],
)
@pytest.mark.filterwarnings("ignore:Expected d:UserWarning")
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8))
@settings(max_examples=25)
def test_flipped_bits_are_read_or_refused(write, adapter, places):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder))
        content = bytearray(path.read_bytes())
        for place, bit in places:
            content[int(place * len(content))] ^= 1 << bit
        path.unlink()
        path.write_bytes(content)
        with contextlib.suppress(ValueError):
            for trajectory in adapter(folder).trajectories("train"):
                assert trajectory.read().isfinite().all()

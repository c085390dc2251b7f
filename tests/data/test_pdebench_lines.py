"""PDEBench's scalar equations in one dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from layouts_pdebench import LINES, line_arrays, write_line

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.pdebench import PdeBench1d
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert

COEFFICIENTS = {
    "advection": {"advection_velocity": 0.4},
    # The authors' solver divides Nu by pi.
    "burgers": {"viscosity": 0.001 / math.pi},
    "reaction_diffusion": {"diffusivity": 0.5, "reaction_rate": 2.0},
}


@pytest.mark.parametrize("source", ["attributes", "name", "both"])
@pytest.mark.parametrize("equation", LINES)
def test_values_and_coefficients(tmp_path, equation, source):
    published, stated = LINES[equation]
    name = "lines.hdf5" if source == "attributes" else published
    arrays = line_arrays()
    path = write_line(tmp_path, equation, name, arrays, {} if source == "name" else stated)
    adapter = PdeBench1d(path, test=4)
    assert isinstance(adapter, Adapter)
    assert adapter.metadata.attributes["equation"] == equation
    assert adapter.metadata.channel_names == ("u",)
    assert adapter.metadata.grid.periods == (1.0,)
    assert adapter.metadata.parameters == tuple(COEFFICIENTS[equation])
    for number, trajectory in enumerate(adapter.trajectories("test")):
        assert np.array_equal(trajectory.read()[:, 0].numpy(), arrays["tensor"][number])
        assert trajectory.context.parameters.tolist() == pytest.approx([*COEFFICIENTS[equation].values()])
        assert trajectory.times.tolist() == [0.0, 0.01, 0.02, 0.03, 0.04, 0.05]


def test_an_advected_wave_moves_at_its_stated_velocity(tmp_path):
    x, beta, interval = (np.arange(64) + 0.5) / 64, 0.4, 0.05
    times = interval * np.arange(6)
    exact = np.sin(2 * math.pi * (x - beta * times[:-1, None]))[None]
    arrays = {"tensor": exact.astype(np.float32), "x-coordinate": x, "t-coordinate": times}
    (trajectory,) = PdeBench1d(write_line(tmp_path, arrays=arrays), train=1).trajectories("train")
    places, period = trajectory.context.coordinates[0].double(), trajectory.metadata.grid.periods[0]
    moved = trajectory.context.parameters.double() * trajectory.times[:, None]
    assert torch.allclose(
        trajectory.read()[:, 0].double(), torch.sin(2 * math.pi * (places - moved) / period), atol=1e-6
    )


def test_intervals_points_and_splits(tmp_path):
    arrays = line_arrays(trajectories=20)
    adapter = PdeBench1d(write_line(tmp_path, arrays=arrays), interval=0.02, every=4, val=2)
    assert [len(adapter.trajectories(split)) for split in ("train", "val", "test")] == [16, 2, 2]
    assert np.array_equal(adapter.trajectories("val")[0].read()[:, 0].numpy(), arrays["tensor"][18, ::2, ::4])
    assert adapter.metadata.grid.periods == (1.0,)


@pytest.mark.parametrize("equation", LINES)
def test_archives_hold_the_same(tmp_path, equation):
    adapter = PdeBench1d(write_line(tmp_path, equation))
    convert(adapter, tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    for split in adapter.splits:
        for ours, theirs in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.equal(ours.context.parameters.float(), theirs.context.parameters)


def test_nothing_that_tells_the_equation(tmp_path):
    path = write_line(tmp_path, name="lines.hdf5", attributes={})
    with pytest.raises(ValueError, match=r"speak of none\. Give equation="):
        PdeBench1d(path)
    with pytest.raises(ValueError, match=r"Expected the attribute 'beta' .* or beta and a number in its name"):
        PdeBench1d(path, equation="advection")
    with pytest.raises(ValueError, match="among advection, burgers, reaction_diffusion but got 'heat'"):
        PdeBench1d(path, equation="heat")


def test_name_and_attributes_must_agree(tmp_path):
    other = write_line(tmp_path, attributes={"Nu": 0.1})
    with pytest.raises(ValueError, match=r"speak of \['advection', 'burgers'\]"):
        PdeBench1d(other)
    renamed = write_line(tmp_path, name="1D_Advection_Sols_beta7.0.hdf5")
    with pytest.raises(ValueError, match=r"says 0\.4 and its name 7"):
        PdeBench1d(renamed)


@pytest.mark.parametrize("name", ["tensor", "x-coordinate", "t-coordinate"])
def test_missing_arrays_are_named(tmp_path, name):
    arrays = line_arrays()
    del arrays[name]
    with pytest.raises(ValueError, match=f"Expected the array '{name}'"):
        PdeBench1d(write_line(tmp_path, arrays=arrays))


def test_darcy_flow_is_told_from_lines(tmp_path):
    arrays = line_arrays() | {"tensor": np.ones((2, 1, 8, 8), np.float32), "nu": np.ones((2, 8, 8), np.float32)}
    with pytest.raises(ValueError, match=r"found \(2, 1, 8, 8\)\. It looks like steady Darcy flow"):
        PdeBench1d(write_line(tmp_path, arrays=arrays))


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("tensor", lambda v: v.astype(np.int64), "real numbers in 'tensor'"),
        ("tensor", lambda v: v[:, :, :0], "real numbers in 'tensor'"),
        ("tensor", lambda v: v.transpose(0, 2, 1), "5 or 6|16 or 17"),
        ("x-coordinate", lambda v: v[:-1], "16 entries in 'x-coordinate'"),
        ("t-coordinate", lambda v: v[:3], "6 or 7 entries in 't-coordinate'"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, name, edit, message):
    arrays = line_arrays()
    arrays[name] = edit(arrays[name])
    with pytest.raises(ValueError, match=message):
        PdeBench1d(write_line(tmp_path, arrays=arrays))


def test_zeros_are_left_out_on_request(tmp_path):
    arrays = line_arrays()
    arrays["tensor"][4] = 0
    path = write_line(tmp_path, arrays=arrays)
    with pytest.raises(ValueError, match=r"frame 1 of trajectory 4 .* nothing but zeros"):
        PdeBench1d(path, train=10).trajectories("train")[4].read(1)
    with pytest.warns(UserWarning, match="trajectory 4 of 1D_Advection"):
        adapter = PdeBench1d(path, train=10, skip_bad_trajectories=True)
    assert len(adapter.trajectories("train")) == 9


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_truncated_files_are_refused(tmp_path, share):
    path = write_line(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="truncated"):
        PdeBench1d(path)

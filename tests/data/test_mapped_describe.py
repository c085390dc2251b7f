"""What `describe` proposes is a mapping that reads the file; see `layouts_mapped`."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from layouts_mapped import NAMED, UNNAMED, flow, write

from pdesurrogate.data.adapters.mapped.adapter import MappedFiles
from pdesurrogate.data.adapters.mapped.describe import describe

FIELDS = flow()


def proposed(text):
    return yaml.safe_load(text.split("(check what is marked):")[1])


@pytest.mark.parametrize("form", [*NAMED, *UNNAMED])
def test_what_is_proposed_reads_the_file(tmp_path, form):
    if form.startswith("zarr"):
        pytest.importorskip("zarr")
    path = write(tmp_path, form, FIELDS)
    folder = path if form == "npy" else tmp_path
    text = describe(path)
    values = proposed(text)
    if form == "npy":
        values["files"] = str(path)  # a folder of arrays is named as a whole
    adapter = MappedFiles(values, root=folder)
    assert adapter.metadata.grid.axis_names == ("x", "y")
    names = adapter.metadata.channel_names
    assert set(names) == {"u", "pressure"}
    read = torch.stack([trajectory.read() for trajectory in adapter.trajectories("train")])
    for name, field in (("u", "u"), ("pressure", "p")):
        assert torch.equal(read[:, :, names.index(name)], torch.from_numpy(FIELDS[field]))
    assert ("?" in text) == (form in UNNAMED)


def test_dimensions_are_told_by_attributes_whatever_their_names(tmp_path):
    data = xr.Dataset(
        {
            "q1": (("a", "b", "c"), np.zeros((3, 4, 8), "f4"), {"units": "K", "long_name": "temperature"}),
            "a": ("a", [0.0, 6.0, 12.0], {"units": "hours since 2000-01-01"}),
            "b": ("b", [30.0, 10.0, -10.0, -30.0], {"standard_name": "latitude", "units": "degrees_north"}),
            "c": ("c", 45.0 * np.arange(8), {"units": "degrees_east"}),
        },
        attrs={"source": "a model\nof weather"},
    )
    data.to_netcdf(tmp_path / "a.nc")
    text = describe(tmp_path / "a.nc")
    values = proposed(text)
    assert values["axes"] == {"x": {"dimension": "c", "period": 360}, "y": {"dimension": "b"}}
    assert values["time"] == {"dimension": "a"}
    assert "q1" in text
    assert "temperature" in text
    assert "30 to -30, step -20, latitude" in text
    assert "source = a model of weather" in text
    assert MappedFiles(values, root=tmp_path).metadata.channels[0].long_name == "temperature"


def test_components_and_velocities_are_told(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/velocity"] = np.zeros((4, 5, 7, 9, 2), "f4")
        file["train/tracer"] = np.zeros((4, 5, 7, 9), "i2")
        file["train/t"] = 0.1 * np.arange(5)
        file["train/x-coordinate"] = np.arange(7.0)
        file["note"] = "text"
        file.attrs["nu"] = np.array([1e-3])
    text = describe(tmp_path / "a.h5")
    adapter = MappedFiles(proposed(text), root=tmp_path)
    assert set(adapter.metadata.channel_names) == {"velocity_x", "velocity_y", "tracer"}
    assert {channel.vector for channel in adapter.metadata.channels} == {"velocity", ""}
    assert len(adapter.trajectories("train")) == 4
    assert "nu = 0.001" in text
    assert "note: not read, as it holds" in text
    assert "check: the file does not name its dimensions" in text
    np.savez(tmp_path / "b.npz", **{name: np.zeros((5, 6, 7)) for name in ("vx", "vy", "rho")}, t=np.arange(5.0))
    values = proposed(describe(tmp_path / "b.npz"))
    assert [channel["name"] for channel in values["channels"]] == ["velocity_x", "velocity_y", "density"]


def test_what_a_user_has_to_decide_stands_in_comments(tmp_path):
    points = (np.arange(8) + 0.5) / 4
    data = xr.Dataset(
        {
            "u": (("sample", "time", "x", "y"), np.ones((3, 5, 8, 4), "f4")),
            "nu": ("sample", [0.1, 0.2, 0.3]),
            "drag": ((), 0.5),
            "sample": ("sample", [0, 1, 2]),
        },
        {"x": points, "y": [0.0, 0.1, 0.5, 1.0]},
        attrs={"Re": 100, "note": "words"},
    )
    data.to_netcdf(tmp_path / "my run.nc")
    text = describe(tmp_path / "my run.nc")
    assert f"# Save it as {tmp_path / 'my_run.yaml'}, then:\n#   pdesurrogate datasets convert {tmp_path}" in text
    (told,) = [line for line in text.splitlines() if line.startswith("# parameters")]
    chosen = yaml.safe_load(told.removeprefix("# ").split("  #")[0])
    assert set(chosen["parameters"]) == {"nu", "drag", "Re"}
    assert "x: {dimension: x}  # add period: 2 if it is periodic" in text
    assert "y: {dimension: y}  # add period: LENGTH, or bounds" in text
    values = proposed(text) | chosen
    values["axes"]["x"]["period"] = 2
    adapter = MappedFiles(values, root=tmp_path)
    rows = [member.context.parameters.tolist() for member in adapter.trajectories("train")]
    order = [adapter.metadata.parameters.index(name) for name in ("nu", "drag", "Re")]
    assert [[row[place] for place in order] for row in rows] == [
        pytest.approx([nu, 0.5, 100]) for nu in (0.1, 0.2, 0.3)
    ]


def test_folders_are_described_by_their_first_file(tmp_path):
    (tmp_path / "runs").mkdir()
    for number in (10, 9):
        np.save(tmp_path / "runs" / f"run{number}.npy", np.zeros((number, 4, 4)))
    text = describe(tmp_path)
    assert text.startswith("run9.npy: NumPy")
    assert "the first of the files runs/*.npy" in text
    assert len(MappedFiles(proposed(text), root=tmp_path).files) == 2


def test_files_without_fields_or_of_no_format_say_so(tmp_path):
    np.savez(tmp_path / "a.npz", t=np.arange(3.0), one=np.array([1.0, 1.5, 4.0]), single=np.array(2.0))
    text = describe(tmp_path / "a.npz")
    assert "nothing that a mapping could make frames of" in text
    assert "0 to 2, step 1" in text
    assert "1 to 4, uneven" in text
    assert "one number" in text
    (tmp_path / "b.nc").write_text("text")
    with pytest.raises(ValueError, match="error page"):
        describe(tmp_path / "b.nc")
    with pytest.raises(ValueError, match="does not exist"):
        describe(tmp_path / "c.nc")


def test_names_that_yaml_takes_for_other_things_are_quoted(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["on"] = np.zeros((3, 4, 5))
        file["a b: c"] = np.zeros((3, 4, 5))
    values = proposed(describe(tmp_path / "a.h5"))
    assert [channel["variable"] for channel in values["channels"]] == ["a b: c", "on"]
    assert MappedFiles(values, root=tmp_path).metadata.channel_names == ("a_b_c", "on")


def test_long_files_are_cut(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(100):
            file[f"run{number:03d}/data"] = np.zeros((3, 4, 5))
        file.attrs["config"] = "x" * 1000
    text = describe(tmp_path / "a.h5")
    assert "and 40 more" in text
    assert max(map(len, text.splitlines())) < 200
    names = [channel["name"] for channel in proposed(text)["channels"]]
    assert len(set(names)) == len(names) == 60  # in groups of their own

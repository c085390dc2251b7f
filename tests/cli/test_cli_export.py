"""From a file of unknown layout to an archive, a trained network, and files in the layout of The Well."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from helpers import write_archive

from pdesurrogate.__main__ import main
from pdesurrogate.data.adapters.mapped import MappedFiles
from pdesurrogate.data.adapters.the_well import TheWell
from pdesurrogate.data.archive import Archive
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata

PERIOD = 2 * np.pi


def write_simulations(path, scale=1.0):
    """What a user may have: ``U`` and ``V (sample, time, y, x)`` between walls."""
    x, y, time = (np.arange(12) + 0.5) * PERIOD / 12, np.linspace(0, 1, 7), 0.1 * np.arange(6)
    phase = np.arange(5.0)[:, None, None, None]
    wave = np.sin(x - time[:, None, None] + phase) * np.sin(np.pi * y)[:, None]
    order = ("sample", "time", "y", "x")
    fields = {"U": (order, scale * wave.astype("f4")), "V": (order, wave.astype("f4") ** 2)}
    parameters = {"nu": ("sample", 0.01 * np.arange(1.0, 6.0))}
    xr.Dataset(fields | parameters, {"time": time, "x": x, "y": y}).to_netcdf(path)


def one_line_refusal(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def mapping(tmp_path, capsys):
    """As `describe` proposes it, and what its comments leave to the user."""
    write_simulations(tmp_path / "sim.nc")
    assert main(["datasets", "describe", str(tmp_path / "sim.nc")]) == 0
    proposed = capsys.readouterr().out.split("(check what is marked):")[1]
    (parameters,) = [line for line in proposed.splitlines() if line.startswith("# parameters")]
    values = yaml.safe_load(proposed) | yaml.safe_load(parameters.removeprefix("# "))
    values["splits"] = {"val": 1, "test": 1}
    values["axes"]["x"]["period"] = PERIOD
    path = tmp_path / "sim.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_from_an_unknown_file_to_a_trained_network_and_the_layout_of_the_well(mapping, tmp_path, capsys, monkeypatch):
    archive, well = tmp_path / "archive", tmp_path / "well"
    assert main(["datasets", "convert", str(mapping), "--format", "mapped", "--out", str(archive)]) == 0
    config = {
        "seed_everything": 0,
        "model": {
            "network": {
                "class_path": "pdesurrogate.models.fno.FNO",
                "init_args": {"modes": [2, 2], "width": 4, "layers": 1},
            },
        },
        "data": {
            "adapter": {"class_path": "pdesurrogate.data.archive.Archive", "init_args": {"path": str(archive)}},
            "rollout_frames": 2,
            "batch_size": 8,  # two steps an epoch
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 1, "enable_progress_bar": False},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "-c", str(tmp_path / "fit.yaml")]) == 0
    assert list(tmp_path.rglob("*.ckpt"))
    capsys.readouterr()
    command = ["datasets", "export", str(archive), "--format", "the-well", "--out", str(well)]
    assert main([*command, "--boundary", "y=wall,open"]) == 0
    written = [str(well / "data" / split / "sim.hdf5") for split in ("train", "valid", "test")]
    assert capsys.readouterr().out.split() == [*written, str(well / "stats.yaml")]
    read, source = TheWell(well), Archive(archive)
    assert read.metadata.attributes["boundary_conditions"]["y"] == ["WALL", "OPEN"]
    assert read.metadata == source.metadata
    with xr.open_dataset(tmp_path / "sim.nc") as data:
        exact = np.stack(
            [data.U.transpose("sample", "time", "x", "y"), data.V.transpose("sample", "time", "x", "y")], 2
        )
        viscosities = data.nu.values
    for split, first in (("train", 0), ("val", 3), ("test", 4)):
        for number, member in enumerate(read.trajectories(split), first):
            assert np.array_equal(member.read().numpy(), exact[number])
            assert member.context.parameters.tolist() == pytest.approx([viscosities[number]])
    assert [len(read.trajectories(split)) for split in read.splits] == [3, 1, 1]
    stated = yaml.safe_load((well / "stats.yaml").read_text())
    assert stated["mean"]["velocity"] == pytest.approx(exact[:3].mean((0, 1, 3, 4), dtype=float).tolist(), abs=1e-12)


def test_the_hash_of_mapped_files_covers_what_they_hold(mapping, tmp_path, capsys):
    command = ["datasets", "convert", str(mapping), "--format", "mapped", "--out", str(tmp_path / "archive")]
    assert main(command) == 0
    attributes = Archive(tmp_path / "archive").metadata.attributes
    assert len(json.loads(attributes["source"])["files_hash"]) == 64
    assert main(command) == 0  # the same data
    capsys.readouterr()
    (tmp_path / "sim.nc").unlink()
    write_simulations(tmp_path / "sim.nc", scale=2.0)
    assert main(command) == 2
    assert "from another source" in one_line_refusal(capsys)
    assert main([*command[:-1], str(tmp_path / "again")]) == 0
    assert Archive(tmp_path / "again").metadata.attributes["content_hash"] != attributes["content_hash"]


def test_data_in_place_of_its_mapping_are_answered_with_the_verb_that_makes_one(mapping, tmp_path, capsys):
    command = [
        "datasets",
        "convert",
        str(tmp_path / "sim.nc"),
        "--format",
        "mapped",
        "--out",
        str(tmp_path / "archive"),
    ]
    assert main(command) == 2
    assert "`pdesurrogate datasets describe` proposes one" in one_line_refusal(capsys)


@pytest.fixture
def plane(tmp_path):
    """An archive of a flow between walls, its velocity on faces of cells along x."""
    grid = Grid((Axis("x", period=1.0), Axis("y", bounds=(0.0, 1.0))))
    metadata = Metadata("plane", grid, (Channel("u", location="face_x"), Channel("p", location="cell")), 1.0)
    values = torch.randn((2, 3, 2, 4, 5), generator=torch.Generator().manual_seed(0))
    lines = (torch.arange(4) / 4 + 0.125, (torch.arange(5) + 0.5) / 5)
    write_archive(tmp_path / "plane", metadata, {"train": values}, coordinates=lines)
    return tmp_path / "plane"


def test_faces_are_taken_to_centers_where_that_is_asked_for(plane, tmp_path, capsys):
    command = ["datasets", "export", str(plane), "--format", "the-well", "--out", str(tmp_path / "well")]
    command += ["--boundary", "y=wall"]
    assert main(command) == 2
    assert "--staggered centers" in one_line_refusal(capsys)
    assert main([*command, "--staggered", "centers"]) == 0
    (faces, pressure), (centers, same) = (
        adapter.trajectories("train")[0].read().unbind(1) for adapter in (Archive(plane), TheWell(tmp_path / "well"))
    )
    assert torch.equal(centers, (faces + faces.roll(-1, 1)) / 2)
    assert torch.equal(same, pressure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["the-well"], "what is at the ends of the axis 'y', .*--boundary y=wall"),
        (["the-well", "--boundary", "x=wall"], r"axes that are not periodic .* \['x'\]"),
        (["the-well", "--boundary", "y=wall", "--boundary", "y=open"], "--boundary once for each axis but got y, y"),
        (["the-well", "--problem", "cavity"], "--problem with cfdbench alone but the format is the-well"),
        (["cfdbench", "--problem", "cavity", "--staggered", "centers"], "--staggered with the-well alone"),
        (["cfdbench", "--boundary", "y=wall"], "--boundary with the-well alone"),
        (["cfdbench"], "Expected --problem with cfdbench: cavity"),
    ],
)
def test_options_that_do_not_fit(plane, tmp_path, options, message):
    from pdesurrogate.cli.datasets import main as datasets

    with pytest.raises(ValueError, match=message):
        datasets(["export", str(plane), "--format", *options, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stated", ["y", "y=", "=wall", "y=periodic", "y=wall,", "y=wall,open,wall"])
def test_boundaries_are_told_by_words(plane, tmp_path, capsys, stated):
    command = ["datasets", "export", str(plane), "--format", "the-well", "--out", str(tmp_path), "--boundary", stated]
    with pytest.raises(SystemExit):
        main(command)
    assert f"expected AXIS=wall, AXIS=open or AXIS=wall,open but got '{stated}'" in capsys.readouterr().err


def test_a_description_becomes_a_mapping_file_once(tmp_path, monkeypatch, capsys):
    values = np.arange(60.0, dtype=np.float32).reshape(3, 4, 5)
    points = {"time": np.arange(4.0), "x": np.arange(5.0)}
    xr.Dataset({"u": (("run", "time", "x"), values)}, points).to_netcdf(tmp_path / "mine.nc")
    monkeypatch.chdir(tmp_path)
    assert main(["datasets", "describe", "mine.nc", "--out", "map.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "map.yaml"
    adapter = MappedFiles("map.yaml")
    frames = torch.cat([each.read() for split in adapter.splits for each in adapter.trajectories(split)])
    assert torch.equal(frames.flatten(), torch.arange(60.0))
    assert main(["datasets", "describe", "mine.nc", "--out", "map.yaml"]) == 2
    assert "Expected a new file for --out but map.yaml exists" in capsys.readouterr().err


def test_a_file_without_frames_makes_no_mapping(tmp_path, capsys):
    np.savez(tmp_path / "line.npz", x=np.arange(5.0))
    assert main(["datasets", "describe", str(tmp_path / "line.npz"), "--out", str(tmp_path / "map.yaml")]) == 2
    assert "no mapping is made" in capsys.readouterr().err
    assert not (tmp_path / "map.yaml").exists()

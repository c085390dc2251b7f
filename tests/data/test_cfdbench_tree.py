"""Trees in the layout of CFDBench: velocities at centers, keys, numbers, and files that are there already."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pdesurrogate.data.adapters.cfdbench import CfdBench
from pdesurrogate.data.adapters.cfdbench.published import NUMBERED_SUBSETS
from pdesurrogate.data.archive import Archive, ArchiveWriter
from pdesurrogate.data.cfdbench_tree import write_cfdbench_tree
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata

FAKE = Path(__file__).parents[3] / "shared" / "golden" / "cfdbench_fake"
SHAPE, FRAMES = (8, 6), 3
CHANNELS = (
    Channel("velocity_x", "m/s", location="face_x", vector="velocity"),
    Channel("velocity_y", "m/s", location="face_y", vector="velocity"),
    Channel("pressure", "Pa", location="cell"),
)
FLUID = {"density": 2.0, "dynamic_viscosity": 0.01}
PARAMETERS = {
    "cavity": {"lid_velocity": 1.1, **FLUID, "width": 0.3, "height": 0.7},
    "tube": {"inlet_velocity": 0.4, **FLUID, "length": 3.0, "height": 0.5},
    "step": {
        "inlet_velocity": 0.4,
        **FLUID,
        "step_height": 0.3,
        "step_width": 0.2,
        "step_position": 1.0,
        "length": 4.0,
        "height": 1.5,
    },
    "cylinder": {
        "inlet_velocity": 0.4,
        **FLUID,
        "radius": 0.1,
        "x_min": -0.3,
        "x_max": 1.3,
        "y_min": -0.4,
        "y_max": 0.4,
    },
}
# Split, number within it, name, subset, in no order.
CASES = [
    ("train", 0, "geo2", "geo"),
    ("train", 1, "bc10", "bc"),
    ("train", 2, "prop0", "prop"),
    ("val", 0, "bc2", "bc"),
    ("test", 0, "geo1", "geo"),
    ("test", 1, "bc1", "bc"),
]


def box(problem, factor):
    """Low and high ends along x and y of a case whose extents are a multiple of the base case's."""
    values = PARAMETERS[problem]
    if problem == "cylinder":
        return [(factor * values["x_min"], factor * values["x_max"]), (values["y_min"], values["y_max"])]
    return [(0.0, factor * values["width" if problem == "cavity" else "length"]), (0.0, values["height"])]


def parameters(problem, factor):
    stretched = {"cavity": ["width"], "cylinder": ["x_min", "x_max"]}.get(problem, ["length"])
    return {name: value * (factor if name in stretched else 1) for name, value in PARAMETERS[problem].items()}


def flow(seed, problem, sides):
    """Faces ``(time, x, y)`` of a flow without divergence, upper ones too: differences of a stream function."""
    stream = torch.randn(FRAMES, *(n + 1 for n in SHAPE), generator=torch.Generator().manual_seed(seed)).double()
    stream[..., 0], stream[..., -1] = 0.0, 0.0 if problem == "cavity" else 0.5
    if problem == "cavity":
        stream[:, [0, -1]] = 0.0
    return stream.diff(dim=2) / sides[1], -stream.diff(dim=1) / sides[0]


def archive(folder, problem, dropped=(), names=None, channels=CHANNELS, missing=(), subsets=None):
    """Cases of different extents; returns what the velocities are, by name."""
    truth = {}
    kept = [name for name in (names or PARAMETERS[problem]) if name not in missing]
    axes = [Axis(name, units="m") for name in "xy"]
    metadata = Metadata(problem, Grid(tuple(axes)), channels, 0.25, tuple(kept))
    for split in ("train", "val", "test"):
        members = [case for case in CASES if case[0] == split]
        lines, rows, frames = [[], []], [], []
        for seed, (_, _, name, _) in enumerate(members):
            factor = 1 + seed + 3 * len(split)
            ends = box(problem, factor)
            sides = [(high - low) / n for (low, high), n in zip(ends, SHAPE, strict=True)]
            for line, (low, _), side, n in zip(lines, ends, sides, SHAPE, strict=True):
                line.append(low + side * (torch.arange(n, dtype=torch.float64) + 0.5))
            rows.append([parameters(problem, factor)[key] for key in kept])
            u, v = flow(10 * len(split) + seed, problem, sides)
            truth[name] = ((u[:, :-1] + u[:, 1:]) / 2, (v[..., :-1] + v[..., 1:]) / 2, factor)
            frames.append(torch.stack([u[:, :-1], v[..., :-1], torch.zeros(FRAMES, *SHAPE)], 1))
        named = [{"number": n, "name": name, "subset": (subsets or {}).get(name, s)} for _, n, name, s in members]
        with ArchiveWriter(
            folder / f"{split}.nc",
            metadata,
            [line[0] for line in lines],
            2.0 + 0.25 * torch.arange(FRAMES, dtype=torch.float64),
            len(members),
            parameters=torch.tensor(rows, dtype=torch.float64),
            case_coordinates=[torch.stack(line) for line in lines],
            attributes={"cases": named, "content_hash": "abc"},
        ) as writer:
            for number, (_, _, name, _) in enumerate(members):
                if name in dropped:
                    writer.drop(number, "blew up")
                else:
                    writer.write(number, frames[number][None])
            writer.finish()
    return Archive(folder), truth


@pytest.mark.parametrize("problem", list(PARAMETERS))
def test_velocities_are_means_of_true_faces_with_rows_along_y(tmp_path, problem):
    data, truth = archive(tmp_path / "data", problem)
    folders = write_cfdbench_tree(data, tmp_path / "out", problem)
    for folder in folders:
        u, v, _ = truth[json.loads((folder / "pdesurrogate.json").read_text())["name"]]
        for name, wanted in (("u.npy", u), ("v.npy", v)):
            found = np.load(folder / name)
            assert found.dtype == np.float64
            assert found.flags.c_contiguous
            assert found.shape == (FRAMES, SHAPE[1], SHAPE[0])
            np.testing.assert_allclose(found, wanted.transpose(1, 2).numpy(), atol=2e-6 * float(wanted.abs().max()))


def test_numbers_run_on_over_subsets_and_splits_in_the_order_of_names(tmp_path):
    data, _ = archive(tmp_path / "data", "tube")
    folders = write_cfdbench_tree(data, tmp_path / "out", "tube")
    found = [json.loads((folder / "pdesurrogate.json").read_text()) for folder in folders]
    assert [case["name"] for case in found] == ["bc1", "bc2", "bc10", "prop0", "geo1", "geo2"]
    assert [case["split"] for case in found] == ["test", "val", "train", "train", "test", "train"]
    assert [folder.relative_to(tmp_path / "out").as_posix() for folder in folders] == [
        "tube/bc/case0000",
        "tube/bc/case0001",
        "tube/bc/case0002",
        "tube/prop/case0003",
        "tube/geo/case0004",
        "tube/geo/case0005",
    ]
    assert NUMBERED_SUBSETS == ("bc", "prop", "geo")


def test_a_dropped_case_keeps_its_number(tmp_path):
    data, _ = archive(tmp_path / "data", "tube", dropped=["bc2"])
    folders = write_cfdbench_tree(data, tmp_path / "out", "tube")
    assert [folder.name for folder in folders] == ["case0000", "case0002", "case0003", "case0004", "case0005"]
    assert not (tmp_path / "out" / "tube" / "bc" / "case0001").exists()


KEYS = {
    "cavity": {"vel_top": 1.1, "density": 2.0, "viscosity": 0.01, "height": 0.7, "width": 0.3},
    "tube": {"vel_in": 0.4, "density": 2.0, "viscosity": 0.01, "height": 0.5, "width": 3.0},
    "step": {
        "velocity": 0.4,
        "density": 2.0,
        "viscosity": 0.01,
        "barrier_height": 0.3,
        "barrier_width": 0.2,
        "height": 1.5,
        "width": 4.0,
        "dx": 4.0 / SHAPE[0],
        "dy": 1.5 / SHAPE[1],
    },
    "cylinder": {
        "vel_in": 0.4,
        "density": 2.0,
        "viscosity": 0.01,
        "x_min": -0.3,
        "x_max": 1.3,
        "y_min": -0.4,
        "y_max": 0.4,
        "radius": 0.1,
    },
}


@pytest.mark.parametrize(
    ("problem", "reynolds"),
    [
        ("cavity", 2.0 * 1.1 * 0.3 / 0.01),
        ("tube", 2.0 * 0.4 * 0.5 / 0.01),
        ("step", 2.0 * 0.4 * 1.5 / 0.01),
        ("cylinder", 2.0 * 0.4 * 0.2 / 0.01),
    ],
)
def test_keys_and_values_are_those_of_the_case(tmp_path, problem, reynolds):
    data, truth = archive(tmp_path / "data", problem)
    for folder in write_cfdbench_tree(data, tmp_path / "out", problem):
        own = json.loads((folder / "pdesurrogate.json").read_text())
        factor = truth[own["name"]][2]
        stretched = {"cylinder": ("x_min", "x_max")}.get(problem, ("width", "dx"))
        found = json.loads((folder / "case.json").read_text())
        wanted = {key: value * (factor if key in stretched else 1) for key, value in KEYS[problem].items()}
        assert list(found) == list(wanted)
        assert found == pytest.approx(wanted, rel=1e-7)
        # Decimals are not those of single precision.
        assert [found["density"], found["viscosity"]] == [2.0, 0.01]
        assert (own["dt_frame"], own["t0"], own["generator"], own["content_hash"]) == (0.25, 2.0, "pdesurrogate", "abc")
        assert own["parameters"] == pytest.approx(parameters(problem, factor), rel=1e-6)
        assert own["re"] == pytest.approx(reynolds * (factor if problem == "cavity" else 1), rel=1e-6)


@pytest.mark.parametrize("name", ["step_height", "step_width", "step_position"])
def test_a_step_of_unknown_size_or_place_is_refused(tmp_path, name):
    data, _ = archive(tmp_path / "data", "step", missing=(name,))
    with pytest.raises(ValueError, match=f"parameters of a step but {name} are missing; .* could not be read"):
        write_cfdbench_tree(data, tmp_path / "out", "step")
    assert not (tmp_path / "out").exists()


def test_a_step_is_read_back_as_it_was_written(tmp_path):
    data, _ = archive(tmp_path / "data", "step")
    write_cfdbench_tree(data, tmp_path / "out", "step")
    with pytest.warns(UserWarning, match="does not fit"):  # noise is no flow
        found = CfdBench(tmp_path / "out", "step", cells=SHAPE)
    assert found.metadata.parameters == data.metadata.parameters
    for split in ("train", "val", "test"):
        names = [json.loads((case.folder / "pdesurrogate.json").read_text())["name"] for case in found.cases(split)]
        numbers = [next(n for s, n, other, _ in CASES if (s, other) == (split, name)) for name in names]
        assert sorted(numbers) == list(range(len(data.trajectories(split))))
        for number, mine in zip(numbers, found.trajectories(split), strict=True):
            stored = data.trajectories(split)[number]
            torch.testing.assert_close(mine.context.parameters, stored.context.parameters)
            torch.testing.assert_close(mine.times, stored.times)
            for line, other in zip(mine.context.coordinates, stored.context.coordinates, strict=True):
                torch.testing.assert_close(line, other)


def test_sizes_of_a_step_follow_from_coordinates(tmp_path):
    data, truth = archive(tmp_path / "data", "step", missing=("length", "height"))
    (first, *_) = write_cfdbench_tree(data, tmp_path / "out", "step")
    found = json.loads((first / "case.json").read_text())
    factor = truth["bc1"][2]
    assert found["width"] == pytest.approx(4.0 * factor, rel=1e-6)
    assert found["dy"] == pytest.approx(1.5 / SHAPE[1], rel=1e-6)


def test_velocities_that_are_in_cells_already_are_written_as_they_are(tmp_path):
    cells = tuple(dataclasses.replace(channel, location="cell") for channel in CHANNELS)
    data, _ = archive(tmp_path / "data", "tube", channels=cells)
    (first, *_) = write_cfdbench_tree(data, tmp_path / "out", "tube")
    wanted = data.trajectories("test")[1].read()
    np.testing.assert_array_equal(np.load(first / "u.npy"), wanted[:, 0].transpose(1, 2).double().numpy())
    np.testing.assert_array_equal(np.load(first / "v.npy"), wanted[:, 1].transpose(1, 2).double().numpy())


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_written_again_with_equal_bytes_but_never_over_anything_else(tmp_path):
    data, _ = archive(tmp_path / "data", "tube")
    folders = write_cfdbench_tree(data, tmp_path / "out", "tube")
    before = files_of(tmp_path / "out")
    assert {path.name for path in before} == {"case.json", "pdesurrogate.json", "u.npy", "v.npy"}
    (folders[2] / "case.json").unlink()  # as after an interruption
    write_cfdbench_tree(data, tmp_path / "out", "tube")
    assert files_of(tmp_path / "out") == before
    (folders[0] / "pdesurrogate.json").unlink()  # as in a published set
    with pytest.raises(ValueError, match=r"no other cases in .*case0000 and 0 more"):
        write_cfdbench_tree(data, tmp_path / "out", "tube")
    (tmp_path / "new" / "tube" / "bc" / "case0099").mkdir(parents=True)
    with pytest.raises(ValueError, match="case0099"):
        write_cfdbench_tree(data, tmp_path / "new", "tube")


@pytest.mark.parametrize(
    ("problem", "changes", "message"),
    [
        ("dam", {}, "Expected a problem among cavity, tube, step, cylinder but got 'dam'. A dam fills with water"),
        ("plume", {}, "but got 'plume'"),
        ("cylinder", {}, "parameters of a cylinder but x_min, x_max, y_min, y_max, radius are missing; there are"),
        ("tube", {"subsets": {"bc2": "extra"}}, "Expected the subsets bc, prop, geo but got extra too"),
        ("tube", {"channels": (CHANNELS[0], Channel("w"), CHANNELS[2])}, "plane flow with channels"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, problem, changes, message):
    data, _ = archive(tmp_path / "data", "tube", **changes)
    with pytest.raises(ValueError, match=message):
        write_cfdbench_tree(data, tmp_path / "out", problem)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cases", [None, [{"number": 0, "name": "a", "subset": "bc"}], "twice"])
def test_cases_must_have_names_of_their_own(tmp_path, cases):
    metadata = Metadata("tube", Grid((Axis("x"), Axis("y"))), CHANNELS, 1.0)
    if cases == "twice":
        cases = [{"number": number, "name": "a", "subset": "bc"} for number in range(2)]
    points = torch.arange(4.0)
    with ArchiveWriter(
        tmp_path / "train.nc",
        metadata,
        (points, points),
        torch.zeros(1),
        2,
        attributes={"cases": cases} if cases else {},
    ) as writer:
        writer.write(0, torch.zeros(2, 1, 3, 4, 4))
        writer.finish()
    message = (
        "some cases of .* share theirs" if cases and len(cases) == 2 else "a name and a subset for each trajectory"
    )
    with pytest.raises(ValueError, match=message):
        write_cfdbench_tree(Archive(tmp_path), tmp_path / "out", "tube")


@pytest.mark.skipif(not FAKE.is_dir(), reason="needs the golden files")
@pytest.mark.parametrize(("ours", "theirs"), [(name, "dam" if name == "step" else name) for name in PARAMETERS])
def test_layout_keys_and_types_are_those_of_the_published_format(tmp_path, ours, theirs):
    data, _ = archive(tmp_path / "data", ours)
    first = write_cfdbench_tree(data, tmp_path / "out", ours)[0]
    for golden in sorted((FAKE / theirs).glob("*/case*")):
        assert golden.parent.name in NUMBERED_SUBSETS
        assert golden.name == f"case{int(golden.name[4:]):04d}"
        keys = [key for key in json.loads((golden / "case.json").read_text()) if key != "case_no"]
        assert list(json.loads((first / "case.json").read_text())) == keys
        for name in ("u.npy", "v.npy"):
            mine, published = (np.load(folder / name, mmap_mode="r") for folder in (first, golden))
            assert (mine.dtype, mine.ndim) == (published.dtype, published.ndim)
        assert {path.name for path in first.iterdir()} - {path.name for path in golden.iterdir()} == {
            "pdesurrogate.json"
        }

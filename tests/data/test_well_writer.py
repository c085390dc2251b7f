"""Writing the layout of The Well: what was written comes back, and says what that layout's own reader looks for."""

import errno
import math

import archive_cases
import h5py
import numpy as np
import pytest
import torch
import yaml
from helpers import write_archive
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.data import well_writer
from pdesurrogate.data.adapters.the_well import TheWell
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.well_writer import write_well
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory

PLANE = Grid((Axis("x", period=2.0, units="m"), Axis("y", bounds=(0.0, 1.0), units="m")))
FLOW = Metadata(
    "flow",
    PLANE,
    (
        Channel("u", "m/s", "velocity along x", "cell", vector="velocity"),
        Channel("p", "Pa", location="cell"),
        Channel("v", "m/s", location="cell", vector="velocity"),
    ),
    frame_interval=0.1,
    parameters=("viscosity",),
    time_units="s",
)
POINTS = (0.25 * torch.arange(8.0), (torch.arange(5) + 0.5) / 5)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def flow(tmp_path):
    """An archive of a plane flow in all three splits."""
    values = {split: noise(count, 6, 3, 8, 5, seed=count) for split, count in (("train", 4), ("val", 2), ("test", 1))}
    return write_archive(tmp_path / "archive", FLOW, values, coordinates=POINTS, parameters=(0.01,))


class InMemory:
    """An adapter around trajectories that are there already."""

    def __init__(self, metadata, values, contexts):
        self.metadata, self.splits = metadata, ("train",)
        times = [metadata.frame_interval * torch.arange(len(each), dtype=torch.float64) for each in values]
        self._trajectories = [
            Trajectory(metadata, context, line, lambda start, out, v=v: out.copy_(v[start : start + len(out)]), v.shape)
            for v, context, line in zip(values, contexts, times, strict=True)
        ]

    def trajectories(self, split):
        return self._trajectories


def assert_same(found, wanted):
    """Two adapters hold the same, bit for bit."""
    assert found.splits == wanted.splits
    assert found.metadata == wanted.metadata
    for split in wanted.splits:
        for ours, theirs in zip(found.trajectories(split), wanted.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.equal(ours.times, theirs.times)
            assert all(map(torch.equal, ours.context.coordinates, theirs.context.coordinates))
            assert (ours.context.parameters is None) == (theirs.context.parameters is None)
            if ours.context.parameters is not None:
                assert torch.equal(ours.context.parameters, theirs.context.parameters)


@st.composite
def data_sets(draw):
    """Data on one to three axes, periodic or not, with vectors, other channels in between, and parameters."""
    dimension = draw(st.integers(1, 3))
    names = ("x", "y", "z")[:dimension]
    periodic = draw(st.lists(st.booleans(), min_size=dimension, max_size=dimension))
    lengths = draw(st.lists(st.floats(0.1, 100), min_size=dimension, max_size=dimension))
    axes = [Axis(name, period=length if closed else None, bounds=None if closed else (0.0, length), units="m")
            for name, length, closed in zip(names, lengths, periodic, strict=True)]  # fmt: skip
    sizes = draw(st.lists(st.integers(2, 6), min_size=dimension, max_size=dimension))
    location = draw(st.sampled_from(["cell", "node"]))
    scalars = [Channel(f"s{number}", "K", "a scalar", location) for number in range(draw(st.integers(0, 2)))]
    vectors = [
        Channel(f"{'uvw'[number]}_{vector}", "m/s", "", location, vector=vector)
        for vector in draw(st.lists(st.sampled_from(["velocity", "field"]), unique=True, max_size=2))
        for number in range(draw(st.sampled_from([dimension, 1, 3])))
    ]
    channels = draw(st.permutations([*scalars, *vectors]).filter(bool) if scalars or vectors else st.just([]))
    channels = tuple(channels) or (Channel("only"),)
    parameters = tuple(draw(st.lists(st.sampled_from(["viscosity", "drag"]), unique=True)))
    metadata = Metadata("drawn", Grid(tuple(axes)), channels, draw(st.floats(1e-3, 10)), parameters)
    points = tuple((torch.arange(n) + 0.5) * (axis.period or axis.bounds[1]) / n
                   for n, axis in zip(sizes, axes, strict=True))  # fmt: skip
    count, frames = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    seed = draw(st.integers(0, 2**31))
    rows = noise(count, len(parameters), seed=seed)
    contexts = [Context(points, parameters=row if parameters else None) for row in rows]
    return InMemory(metadata, noise(count, frames, len(channels), *sizes, seed=seed), contexts)


@settings(max_examples=40, deadline=None)
@given(source=data_sets(), storage=st.sampled_from(["contiguous", "frames"]))
def test_what_was_written_comes_back(tmp_path_factory, source, storage):
    folder = tmp_path_factory.mktemp("well")
    ends = {axis.name: "wall" for axis in source.metadata.grid.axes if axis.period is None}
    write_well(source, folder, boundaries=ends, storage=storage)
    assert_same(TheWell(folder), source)


def test_an_archive_comes_back_in_all_its_splits(flow, tmp_path):
    seen = []
    files = write_well(
        flow, tmp_path / "well", boundaries={"y": ("wall", "open")}, progress=lambda *at: seen.append(at)
    )
    names = ["data/train/flow.hdf5", "data/valid/flow.hdf5", "data/test/flow.hdf5", "stats.yaml"]
    assert [file.relative_to(tmp_path / "well").as_posix() for file in files] == names
    assert seen == [(done, 7) for done in range(1, 8)]
    found = TheWell(tmp_path / "well")
    assert_same(found, flow)
    assert found.metadata.attributes["boundary_conditions"] == {"x": ["PERIODIC", "PERIODIC"], "y": ["WALL", "OPEN"]}
    write_well(found, tmp_path / "again")  # what is at the ends is known now
    assert_same(TheWell(tmp_path / "again"), flow)


def test_a_file_says_what_readers_of_the_layout_look_for(flow, tmp_path):
    path, *_ = write_well(flow, tmp_path, boundaries={"y": "wall"})
    with h5py.File(path) as file:
        assert (file.attrs["dataset_name"], file.attrs["grid_type"]) == ("flow", "cartesian")
        assert (file.attrs["n_spatial_dims"], file.attrs["n_trajectories"]) == (2, 4)
        assert list(file.attrs["simulation_parameters"]) == ["viscosity"]
        assert file.attrs["viscosity"] == np.float32(0.01)
        assert list(file["dimensions"].attrs["spatial_dims"]) == ["x", "y"]
        assert [file["dimensions"][name].shape for name in ("time", "x", "y")] == [(6,), (8,), (5,)]
        assert {file["dimensions"][name].dtype for name in ("time", "x", "y")} == {np.dtype("f4")}
        for axis in ("x", "y"):
            assert not file["dimensions"][axis].attrs["sample_varying"]
            assert not file["dimensions"][axis].attrs["time_varying"]
        groups = {f"t{order}_fields": list(file[f"t{order}_fields"].attrs["field_names"]) for order in range(3)}
        assert groups == {"t0_fields": ["p"], "t1_fields": ["velocity"], "t2_fields": []}
        velocity = file["t1_fields/velocity"]
        assert velocity.shape == (4, 6, 8, 5, 2)
        assert velocity.dtype == np.dtype("<f4")
        assert velocity.id.get_offset() % 4096 == 0
        for array in (velocity, file["t0_fields/p"]):
            assert array.attrs["sample_varying"] and array.attrs["time_varying"]  # noqa: PT018
            assert list(array.attrs["dim_varying"]) == [True, True]
        assert list(file["scalars"].attrs["field_names"]) == ["viscosity"]
        assert file["scalars/viscosity"].shape == ()
        masks = {}
        for condition in file["boundary_conditions"].values():
            assert not condition.attrs["sample_varying"]
            assert not condition.attrs["time_varying"]
            [axis] = condition.attrs["associated_dims"]
            masks[axis, condition.attrs["bc_type"]] = np.flatnonzero(condition["mask"]).tolist()
        assert masks == {("x", "PERIODIC"): [0, 7], ("y", "WALL"): [0, 4]}


def test_statistics_are_those_of_all_training_frames(flow, tmp_path, monkeypatch):
    monkeypatch.setattr(well_writer, "_BLOCK_BYTES", 4 * 3 * 40 * 4)  # four frames, so that blocks meet
    *_, path = write_well(flow, tmp_path, boundaries={"y": "wall"})
    stated = yaml.safe_load(path.read_text())
    assert set(stated) == {"mean", "std", "rms", "mean_delta", "std_delta", "rms_delta"}
    values = torch.stack([each.read() for each in flow.trajectories("train")]).double().numpy()
    for suffix, array in (("", values), ("_delta", np.diff(values, axis=1))):
        u, p, v = np.moveaxis(array, 2, 0)
        for key, formula in (("mean", np.mean), ("std", np.std), ("rms", lambda x: math.sqrt(np.mean(x**2)))):
            assert stated[key + suffix]["p"] == pytest.approx(formula(p), rel=1e-12)
            assert stated[key + suffix]["velocity"] == pytest.approx([formula(u), formula(v)], rel=1e-12)
    mean, std, change = TheWell(tmp_path).published_statistics()
    assert torch.equal(mean, torch.tensor(values.mean((0, 1, 3, 4)), dtype=torch.float32))
    assert torch.allclose(std, torch.tensor(values.std((0, 1, 3, 4)), dtype=torch.float32), rtol=1e-6)
    assert change.tolist() == pytest.approx([stated["rms_delta"]["velocity"][0], stated["rms_delta"]["p"],
                                             stated["rms_delta"]["velocity"][1]])  # fmt: skip


def test_cases_keep_their_coordinates_parameters_and_times(tmp_path):
    metadata = Metadata("cases", Grid((Axis("x"),)), (Channel("u"),), 0.5, ("density",))
    contexts = [
        Context((torch.linspace(0, number + 1, 4),), parameters=torch.tensor([number + 1.0])) for number in range(3)
    ]
    source = InMemory(metadata, noise(3, 4, 1, 4), contexts)
    path, *_ = write_well(source, tmp_path, boundaries={"x": "open"})
    assert_same(TheWell(tmp_path), source)
    with h5py.File(path) as file:
        assert file["dimensions/x"].shape == (3, 4)
        assert file["dimensions/x"].attrs["sample_varying"]
        assert file["scalars/density"].attrs["sample_varying"]
        assert not len(file.attrs["simulation_parameters"])


def test_times_that_single_precision_cannot_tell_apart_are_stored_in_double(tmp_path):
    metadata = Metadata("late", Grid((Axis("x", period=1.0),)), (Channel("u"),), 1e-4)
    source = InMemory(metadata, noise(1, 3, 1, 4), [Context((torch.arange(4.0) / 4,))])
    source._trajectories[0].times.add_(1e4)
    write_well(source, tmp_path)
    assert torch.allclose(TheWell(tmp_path).trajectories("train")[0].times, source._trajectories[0].times, atol=1e-9)


def test_faces_are_taken_to_centers_on_request(tmp_path):
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    channels = tuple(Channel(f"u_{axis}", location=f"face_{axis}", vector="u") for axis in "xy")
    source = write_archive(tmp_path / "archive", Metadata("m", grid, channels, 1.0), {"train": noise(2, 3, 2, 4, 6)})
    with pytest.raises(ValueError, match=r"\['u_x', 'u_y'\] are on faces.*staggered='centers'"):
        write_well(source, tmp_path / "well")
    write_well(source, tmp_path / "well", staggered="centers")
    found = TheWell(tmp_path / "well")
    assert {channel.location for channel in found.metadata.channels} == {"cell"}
    for ours, theirs in zip(found.trajectories("train"), source.trajectories("train"), strict=True):
        for channel, axis in ((0, 1), (1, 2)):
            faces = theirs.read()[:, channel]
            assert torch.equal(ours.read()[:, channel], (faces + faces.roll(-1, axis)) / 2)


def test_vectors_that_do_not_fit_the_axes_are_scalar_fields(tmp_path):
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    three = tuple(Channel(name, vector="velocity") for name in "uvw")
    clash = (Channel("b1", vector="b"), Channel("b2", vector="b"), Channel("b_x"))
    metadata = Metadata("m", grid, (*three, *clash), 1.0)
    source = write_archive(tmp_path / "archive", metadata, {"train": noise(1, 2, 6, 4, 4)})
    path, *_ = write_well(source, tmp_path / "well")
    with h5py.File(path) as file:
        assert list(file["t0_fields"].attrs["field_names"]) == ["u", "v", "w", "b1", "b2", "b_x"]
    assert_same(TheWell(tmp_path / "well"), source)


def test_a_second_run_writes_the_same_bytes_again(flow, tmp_path):
    files = write_well(flow, tmp_path / "well", boundaries={"y": "wall"})
    before = [file.read_bytes() for file in files]
    files[0].with_name("flow.hdf5.part").write_bytes(b"what an interrupted run left")
    TheWell(tmp_path / "well").trajectories("train")[0].read()
    assert write_well(flow, tmp_path / "well", boundaries={"y": "wall"}) == files
    assert [file.read_bytes() for file in files] == before
    assert not list((tmp_path / "well").rglob("*.part"))


def test_nothing_of_others_is_written_over(flow, tmp_path):
    path, *_ = write_well(flow, tmp_path / "well", boundaries={"y": "wall"})
    with pytest.raises(ValueError, match=r"Expected no other data in .* but found flow\.hdf5"):
        write_well(flow, tmp_path / "well", name="other", boundaries={"y": "wall"})
    alone = write_archive(
        tmp_path / "alone", FLOW, {"train": noise(4, 6, 3, 8, 5)}, coordinates=POINTS, parameters=(1.0,)
    )
    with pytest.raises(ValueError, match=r"no other data in .*valid but found flow\.hdf5"):
        write_well(alone, tmp_path / "well", boundaries={"y": "wall"})  # would be read with another's validation data
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="Expected a file that was written here before"):
        write_well(flow, tmp_path / "well", boundaries={"y": "wall"})
    assert path.read_bytes() == b"something else"


def test_a_full_disk_leaves_nothing_half_written(flow, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(well_writer.os, "replace", full)
    with pytest.raises(ValueError, match="no space left on the device"):
        write_well(flow, tmp_path / "well", boundaries={"y": "wall"})
    assert not [path for path in (tmp_path / "well").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Expected to be told what is at the ends of the axis 'y'"),
        ({"boundaries": {"y": "periodic"}}, "Expected to be told what is at the ends of the axis 'y'.*got 'periodic'"),
        ({"boundaries": {"y": ("wall",)}}, "Expected to be told what is at the ends of the axis 'y'"),
        ({"boundaries": {"x": "wall"}}, r"Expected boundaries of axes that are not periodic .* \['x'\]"),
        ({"boundaries": {"y": "wall"}, "storage": "zipped"}, "Expected staggered 'refuse' or 'centers' and storage"),
    ],
)
def test_options_that_make_no_sense(flow, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_well(flow, tmp_path / "well", **options)
    assert not (tmp_path / "well").exists()


def test_masks_have_no_place(tmp_path):
    archive_cases.write(tmp_path / "train.nc")
    with pytest.raises(ValueError, match=r"'u'.* are on faces"):
        write_well(Archive(tmp_path), tmp_path / "well", boundaries={"x": "open", "y": "wall"})
    with pytest.raises(ValueError, match="'x' is not periodic"):
        write_well(Archive(tmp_path), tmp_path / "well", boundaries={"x": "open", "y": "wall"}, staggered="centers")
    metadata = Metadata("masked", Grid((Axis("x", period=1.0),)), (Channel("u"),), 1.0)
    masked = Context((torch.arange(4.0) / 4,), mask=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="Expected trajectories without mask"):
        write_well(InMemory(metadata, noise(1, 2, 1, 4), [masked]), tmp_path / "well")


LINE = Metadata("line", Grid((Axis("x", period=1.0),)), (Channel("u"),), 1.0)
ON_LINE = Context((torch.arange(4.0) / 4,))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (InMemory(LINE, [], []), "Expected at least one trajectory in split 'train'"),
        (
            InMemory(LINE, [noise(3, 1, 4), noise(2, 1, 4)], [ON_LINE, ON_LINE]),
            "Expected trajectories of one shape in split 'train', as a file holds, but number 1",
        ),
        (InMemory(LINE, [noise(1, 1, 4)], [ON_LINE]), "at least two frames.*split 'train' has one"),
        (
            InMemory(
                Metadata("twice", LINE.grid, (Channel("u"),), 1.0, ("u",)),
                [noise(3, 1, 4)],
                [ON_LINE._replace(parameters=torch.ones(1))],
            ),
            r"other ones for parameters than for channels, but got \['u'\]",
        ),
        (InMemory(LINE, [noise(3, 1, 4) / 0], [ON_LINE]), "frame 0 of trajectory 0 of line holds NaN or infinity"),
        (
            InMemory(Metadata("odd", LINE.grid, (Channel("a/b"),), 1.0), [noise(3, 1, 4)], [ON_LINE]),
            r"Expected names that the layout can store, .* \['a/b'\]",
        ),
        (
            InMemory(
                Metadata("taken", LINE.grid, (Channel("u"),), 1.0, ("grid_type",)),
                [noise(3, 1, 4)],
                [ON_LINE._replace(parameters=torch.ones(1))],
            ),
            r"\['grid_type'\]",
        ),
        (
            InMemory(
                Metadata("unknown", LINE.grid, (Channel("u"),), 1.0, ("drag",)),
                [noise(3, 1, 4)],
                [ON_LINE._replace(parameters=torch.full((1,), math.nan))],
            ),
            "Expected finite parameters but trajectory 0",
        ),
    ],
)
def test_sources_that_cannot_be_stored(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        write_well(source, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

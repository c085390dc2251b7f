"""Reading the layout of The Well: files written by hand as its page says, and every way in which they can be wrong."""

import contextlib
import pickle
import shutil
import warnings

import h5py
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_well import CHANNELS, SIZES, ends, write_condition, write_field, write_scalar, write_well_file

from pdesurrogate.data.adapters.base import Adapter, WithStatistics
from pdesurrogate.data.adapters.the_well import TheWell
from pdesurrogate.data.convert import convert
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.windows import Windows


@pytest.fixture
def example(tmp_path):
    """The folder of a data set, and what its one file means."""
    return tmp_path / "example", write_well_file(tmp_path / "example/data/train/example.hdf5")


def changed(folder, change):
    """The same folder after a change of its file, which may be open."""
    path = folder / "data/train/example.hdf5"
    copy = shutil.copyfile(path, path.with_suffix(".copy"))
    with h5py.File(copy, "r+") as file:
        change(file)
    copy.replace(path)
    return folder


def read(adapter, split="train"):
    return torch.stack([trajectory.read() for trajectory in adapter.trajectories(split)]).numpy()


def test_every_kind_of_field_is_read_where_it_belongs(example):
    folder, values = example
    adapter = TheWell(folder)
    assert isinstance(adapter, Adapter)
    assert isinstance(adapter, WithStatistics)
    assert adapter.metadata.name == "example"
    assert adapter.metadata.channel_names == CHANNELS
    assert np.array_equal(read(adapter), values)
    assert torch.equal(adapter.trajectories("train")[2].read(3, 5), torch.from_numpy(values[2, 3:5]))


def test_components_of_a_vector_are_one_vector_and_those_of_a_tensor_are_not(example):
    vectors = {channel.name: channel.vector for channel in TheWell(example[0]).metadata.channels}
    assert {name for name, vector in vectors.items() if vector == "velocity"} == {"velocity_x", "velocity_y"}
    assert not any(vectors[name] for name in set(CHANNELS) - {"velocity_x", "velocity_y"})


def test_constant_scalars_and_numbers_of_the_root_are_parameters(example):
    adapter = TheWell(example[0])
    assert adapter.metadata.parameters == ("viscosity", "gamma", "drag")
    rows = torch.stack([trajectory.context.parameters for trajectory in adapter.trajectories("train")])
    assert torch.equal(rows, torch.tensor([[0.5, 1.4, 0.125], [1.5, 1.4, 0.125], [2.5, 1.4, 0.125]]))
    assert adapter.metadata.attributes["left_out"] == {"gas": "a parameter that is no number but 'ideal'"}


def test_axes_follow_from_masks_and_coordinates(example):
    metadata = TheWell(example[0]).metadata
    x, y = metadata.grid.axes
    assert x.period == pytest.approx(2.0)
    assert (y.period, y.bounds) == (None, None)
    assert metadata.attributes["boundary_conditions"] == {"x": ["PERIODIC", "PERIODIC"], "y": ["WALL", "OPEN"]}
    assert metadata.frame_interval == pytest.approx(0.1)
    context = TheWell(example[0]).trajectories("train")[0].context
    assert [len(points) for points in context.coordinates] == list(SIZES.values())
    assert context.coordinates[0].dtype == torch.float32


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": True},
        {"chunks": True, "compression": "gzip", "shuffle": True},
        {"dtype": np.float64},
        {"dtype": np.dtype(">f4")},
    ],
    ids=["chunks", "compressed", "float64", "other byte order"],
)
def test_storage_does_not_change_values(tmp_path, storage):
    values = write_well_file(tmp_path / "train/a.hdf5", **storage)
    assert np.array_equal(read(TheWell(tmp_path)), values)


def test_constant_fields_and_varying_scalars_can_be_left_out(example):
    folder, values = example
    adapter = TheWell(folder, constant_fields="leave out", varying_scalars="leave out")
    kept = [number for number, name in enumerate(CHANNELS) if name not in ("density", "amplitude")]
    assert adapter.metadata.channel_names == tuple(CHANNELS[number] for number in kept)
    assert np.array_equal(read(adapter), values[:, :, kept])
    assert set(adapter.metadata.attributes["left_out"]) == {"t0_fields/density", "scalars/amplitude", "gas"}


def test_tensors_may_have_one_axis_of_components(example):
    folder, values = example

    def flatten(file):
        tensor = file["t2_fields/D"][...]
        del file["t2_fields/D"]
        write_field(file["t2_fields"], "D", tensor.reshape(*tensor.shape[:-2], 4))

    assert np.array_equal(read(TheWell(changed(folder, flatten))), values)


def test_coordinates_that_decrease_are_turned_round_with_the_fields(example):
    folder, values = example

    def turn(file):
        file["dimensions/y"][...] = file["dimensions/y"][...][::-1]

    adapter = TheWell(changed(folder, turn))
    assert np.array_equal(read(adapter), values[..., ::-1])
    assert bool((adapter.trajectories("train")[0].context.coordinates[1].diff() > 0).all())


def test_times_and_coordinates_may_be_those_of_each_trajectory(example):
    def vary(file):
        for name, rows in {
            "time": 0.1 * np.arange(6) + np.arange(3)[:, None],
            "y": (1 + np.arange(3)[:, None]) * np.linspace(0, 1, 5),
        }.items():
            del file[f"dimensions/{name}"]
            file[f"dimensions/{name}"] = rows.astype(np.float32)
            file[f"dimensions/{name}"].attrs["sample_varying"] = True

    adapter = TheWell(changed(example[0], vary))
    for number, trajectory in enumerate(adapter.trajectories("train")):
        assert trajectory.times[0] == number
        assert trajectory.context.coordinates[1][-1] == number + 1
    assert np.array_equal(read(adapter), example[1])


def test_files_are_shards_in_natural_order_with_uneven_counts_and_lengths(tmp_path):
    folder = tmp_path / "set"
    last = write_well_file(folder / "data/train/seed_10.hdf5", trajectories=1, frames=9, seed=1)
    first = write_well_file(folder / "data/train/seed_2.hdf5", trajectories=2, frames=6, seed=2)
    held = write_well_file(folder / "data/valid/seed_1.hdf5", trajectories=1, frames=6, seed=3)
    adapter = TheWell(folder)
    assert adapter.splits == ("train", "val")
    trajectories = adapter.trajectories("train")
    assert [len(trajectory) for trajectory in trajectories] == [6, 6, 9]
    for trajectory, values in zip(trajectories, (first[0], first[1], last[0]), strict=True):
        assert np.array_equal(trajectory.read().numpy(), values)
    assert np.array_equal(read(adapter, "val"), held)
    assert len(Windows(trajectories, 1, 2)) == 4 + 4 + 7
    assert TheWell(folder, files="seed_1*").trajectories("train")[0].shape[0] == 9


@pytest.mark.parametrize("place", ["", "data", "data/train", "data/train/example.hdf5"])
def test_any_folder_of_a_set_can_be_named(example, place):
    assert TheWell(example[0] / place).splits == ("train",)


def test_a_single_file_is_of_the_split_that_is_told(tmp_path):
    write_well_file(tmp_path / "run.hdf5")
    assert TheWell(tmp_path / "run.hdf5").splits == ("train",)
    assert TheWell(tmp_path / "run.hdf5", split="test").splits == ("test",)


def test_batches_for_training_and_archives_come_out(example, tmp_path):
    folder, values = example
    data = ForecastData(TheWell(folder), history_frames=2, target_frames=1, batch_size=4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.history.shape == (4, 2, len(CHANNELS), 8, 5)
    assert batch.context.parameters.shape == (4, 3)
    [path] = convert(TheWell(folder), tmp_path / "archive")
    with h5py.File(path) as file:
        assert np.array_equal(file["velocity_x"], values[:, :, 3])


def test_an_adapter_can_be_pickled_after_it_was_read(example):
    folder, values = example
    adapter = TheWell(folder)
    read(adapter)
    assert np.array_equal(read(pickle.loads(pickle.dumps(adapter))), values)


def test_only_so_many_files_are_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pdesurrogate.data.adapters.the_well.file.MOST_MAPPED", 2)
    values = [write_well_file(tmp_path / f"train/{name}.hdf5", seed=name) for name in range(5)]
    adapter = TheWell(tmp_path)
    for _ in range(2):
        assert np.array_equal(read(adapter), np.concatenate(values))
    held = {trajectory.read_into.func.__self__._sources is not None for trajectory in adapter.trajectories("train")[:9]}
    assert held == {False}


# Boundary conditions


def with_conditions(folder, *conditions):
    """The folder, its file with other boundary conditions."""

    def replace(file):
        del file["boundary_conditions"]
        group = file.create_group("boundary_conditions")
        for number, (axes, kind, mask, options) in enumerate(conditions):
            write_condition(group, f"condition_{number}", axes, kind, mask, **options)

    return changed(folder, replace)


def sides(folder, *conditions):
    return TheWell(with_conditions(folder, *conditions)).metadata.attributes["boundary_conditions"]


def test_ends_that_no_mask_marks_are_open(example):
    assert sides(example[0]) == {"x": ["OPEN", "OPEN"], "y": ["OPEN", "OPEN"]}
    low = (["x"], "WALL", ends("x", 0), {})
    assert sides(example[0], low) == {"x": ["WALL", "OPEN"], "y": ["OPEN", "OPEN"]}


def test_a_wall_needs_the_whole_end_and_others_one_point_of_it(example):
    part, whole = np.zeros((8, 5), dtype=bool), np.zeros((8, 5), dtype=bool)
    part[0, 2] = part[-1, 2] = whole[0] = whole[-1] = True
    assert sides(example[0], (["x", "y"], "WALL", part, {}))["x"] == ["OPEN", "OPEN"]
    assert sides(example[0], (["x", "y"], "WALL", whole, {}))["x"] == ["WALL", "WALL"]
    assert sides(example[0], (["x", "y"], "PERIODIC", part, {}))["x"] == ["PERIODIC", "PERIODIC"]


def test_a_mask_of_each_trajectory_must_be_the_same(example):
    both = np.stack([ends("x", 0, -1)] * 3)
    assert sides(example[0], (["x"], "PERIODIC", both, {"sample_varying": True}))["x"] == ["PERIODIC", "PERIODIC"]
    both[1] = False
    with pytest.raises(ValueError, match="Expected the same boundaries for all trajectories"):
        sides(example[0], (["x"], "PERIODIC", both, {"sample_varying": True}))


def test_masks_that_mark_nothing_are_told_and_can_be_overruled(example):
    folder = with_conditions(example[0], ("x", "PERIODIC", ends("x"), {}))
    with pytest.warns(UserWarning, match=r"'condition_0' is periodic but its mask marks no end of x"):
        assert TheWell(folder).metadata.grid.axes[0].period is None
    axes = TheWell(folder, periodic=["x"]).metadata.grid.axes
    assert axes[0].period == pytest.approx(2.0)
    assert axes[1].period is None


def test_axes_that_are_told_to_be_periodic_change_no_others(example):
    around = (["x"], "PERIODIC", ends("x", 0, -1), {})
    folder = with_conditions(example[0], around, (["y"], "PERIODIC", ends("y"), {}))
    assert all(axis.period is not None for axis in TheWell(folder, periodic=["y"]).metadata.grid.axes)
    folder = with_conditions(example[0], around, (["y"], "WALL", ends("y", 0, -1), {}))
    with pytest.raises(ValueError, match=r"'condition_1' of .* marks ends of \['y'\] as WALL; leave them out"):
        TheWell(folder, periodic=["y"])


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([(["x"], "PERIODIC", ends("x", 0), {})], "Expected both ends of a periodic axis to be marked"),
        (
            [(["x"], "PERIODIC", ends("x", 0, -1), {}), (["x"], "WALL", ends("x", 0), {})],
            "Expected one kind of boundary at the low end of 'x'",
        ),
        ([(["x"], "SLIPPERY", ends("x", 0), {})], "as bc_type of .* but got 'SLIPPERY'"),
        ([(["z"], "WALL", ends("x", 0), {})], r"Expected associated_dims among \('x', 'y'\)"),
        ([(["y"], "WALL", ends("x", 0), {})], r"Expected a mask of \(5,\) points"),
    ],
)
def test_conditions_that_make_no_sense(example, conditions, message):
    with pytest.raises(ValueError, match=message):
        TheWell(with_conditions(example[0], *conditions))


def test_a_grid_that_is_not_cartesian_is_read_with_a_warning(example):
    folder = changed(example[0], lambda file: file.attrs.__setitem__("grid_type", "equiangular"))
    with pytest.warns(UserWarning, match="grid of the type 'equiangular'"):
        adapter = TheWell(folder)
    assert adapter.metadata.attributes["grid_type"] == "equiangular"


# Published statistics


def write_statistics(folder, **changes):
    fields = {"pressure": 0.5, "density": 1.5, "profile": 0.25, "velocity": [1.0, 2.0], "D": [[3.0, 4.0], [5.0, 6.0]]}
    delta = {name: value for name, value in fields.items() if name != "density"}
    stated = {"mean": fields, "std": fields, "rms_delta": delta, **changes}
    (folder / "stats.yaml").write_text(yaml.safe_dump({key: value for key, value in stated.items() if value}))


def test_statistics_come_in_the_order_of_the_channels(example):
    write_statistics(example[0])
    mean, std, change = TheWell(example[0] / "data/train", varying_scalars="leave out").published_statistics()
    assert mean.tolist() == std.tolist() == [0.5, 1.5, 0.25, 1, 2, 3, 4, 5, 6]
    assert change.tolist() == [0.5, 0, 0.25, 1, 2, 3, 4, 5, 6]
    write_statistics(example[0], rms_delta=None)
    assert TheWell(example[0], varying_scalars="leave out").published_statistics().increment_rms is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": None}, "Expected 'std' of each field"),
        ({"mean": {"pressure": 0.5}}, "Expected numbers as 'mean' of 'density'"),
        ({"mean": {"pressure": "much"}}, "Expected numbers as 'mean' of 'pressure'"),
        ({"mean": {"pressure": [1.0, 2.0]}}, "Expected 1 finite numbers as 'mean' of 'pressure'"),
    ],
)
def test_statistics_that_do_not_fit(example, changes, message):
    write_statistics(example[0], **changes)
    with pytest.raises(ValueError, match=message):
        TheWell(example[0], varying_scalars="leave out").published_statistics()


def test_statistics_that_are_not_there(example):
    with pytest.raises(ValueError, match=r"Expected stats\.yaml in"):
        TheWell(example[0]).published_statistics()
    (example[0] / "stats.yaml").write_text("mean: [")
    with pytest.raises(ValueError, match="Expected YAML in"):
        TheWell(example[0]).published_statistics()
    (example[0] / "stats.yaml").write_text("much")
    with pytest.raises(ValueError, match="Expected statistics by name"):
        TheWell(example[0]).published_statistics()


# What is wrong with a file


def delete(*names):
    def change(file):
        for name in names:
            del file[name]

    return change


def attribute(name, key, value):
    return lambda file: file[name].attrs.__setitem__(key, value)


def replaced(group, name, values, write=write_field, **options):
    def change(file):
        del file[group][name]
        write(file[group], name, values, **options)

    return change


def without(name, key):
    return lambda file: file[name].attrs.__delitem__(key)


TIMES = 0.1 * np.arange(6, dtype=np.float32)


def dimension(name, values, **attributes):
    def change(file):
        kept = dict(file[f"dimensions/{name}"].attrs) | attributes
        del file[f"dimensions/{name}"]
        file[f"dimensions/{name}"] = values
        file[f"dimensions/{name}"].attrs.update(kept)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            (delete(group), f"Expected the group '{group}'")
            for group in ("dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields")
        ),
        (without("/", "dataset_name"), "Expected the attribute 'dataset_name' of the root"),
        (attribute("/", "n_trajectories", -1), "Expected a positive number as the attribute 'n_trajectories'"),
        (attribute("/", "n_trajectories", 10**12), "Expected at most 100000 trajectories"),
        (attribute("/", "n_trajectories", 4), "Expected 't0_fields/pressure' of .* with axes"),
        (attribute("/", "n_spatial_dims", 3), "Expected one to three names in spatial_dims"),
        (attribute("dimensions", "spatial_dims", ["x", "x"]), "Expected different names in spatial_dims"),
        (attribute("dimensions", "spatial_dims", ["x", "z"]), "Expected the array 'dimensions/z'"),
        (attribute("dimensions", "spatial_dims", [1, 2]), "Expected a list of names as the attribute 'spatial_dims'"),
        (delete("dimensions/time"), "Expected the array 'dimensions/time'"),
        (delete("t0_fields/pressure"), "Expected the array 't0_fields/pressure'"),
        (delete("scalars/gamma"), "Expected the array 'scalars/gamma'"),
        (delete("boundary_conditions/y_low/mask"), "Expected the array 'boundary_conditions/y_low/mask'"),
        (attribute("t0_fields", "field_names", ["pressure"] * 2), "Expected different names in field_names"),
        (without("t0_fields/pressure", "time_varying"), "Expected the attribute 'time_varying'"),
        (attribute("t0_fields/pressure", "time_varying", "yes"), "Expected true or false as .* 'time_varying'"),
        (attribute("t0_fields/pressure", "dim_varying", [True]), "Expected 2 times true or false"),
        (attribute("t0_fields/pressure", "dim_varying", [True, False]), "Expected 't0_fields/pressure' of"),
        (
            replaced("t1_fields", "velocity", np.zeros((3, 6, 8, 5, 3), "f4")),
            r"Expected 't1_fields/velocity' of .* with axes \(trajectory 3, time 6, x 8, y 5\), then 1 of 2 components",
        ),
        (
            replaced("t0_fields", "pressure", np.zeros((3, 6, 5, 8), "f4")),
            r"Expected 't0_fields/pressure' of .* but got shape \(3, 6, 5, 8\)",
        ),
        (
            replaced("t0_fields", "pressure", np.zeros((3, 6, 8, 5), "i4")),
            "Expected floating-point numbers in 't0_fields/pressure'",
        ),
        (
            replaced("scalars", "viscosity", np.zeros(2), write_scalar, sample_varying=True),
            r"Expected 'scalars/viscosity' of .* with shape \(3,\) but got \(2,\)",
        ),
        (
            replaced("scalars", "gamma", np.asarray(np.nan), write_scalar),
            "Expected finite values of the parameter 'scalars/gamma'",
        ),
        (attribute("dimensions/x", "time_varying", True), "Expected a grid that stays"),
        (dimension("x", np.zeros(8)), "Expected finite coordinates that increase or decrease"),
        (dimension("x", np.full(8, np.nan)), "Expected finite coordinates that increase or decrease"),
        (dimension("x", np.arange(8.0) ** 2), "Expected even spacing along the periodic axis 'x'"),
        (dimension("x", np.zeros((2, 4))), "Expected 'dimensions/x' of .* got shape"),
        (dimension("x", np.zeros(1)), "2 points at least"),
        (dimension("time", TIMES**2), "Expected increasing, evenly spaced times"),
        (dimension("time", np.full(6, np.nan)), "Expected finite times"),
        (
            dimension("time", np.stack([TIMES, 2 * TIMES, TIMES]), sample_varying=True),
            "Expected frames equally far apart in all trajectories",
        ),
        (attribute("t0_fields", "field_names", ["pressure", "density", "amplitude"]), "Expected the array"),
    ],
)
def test_what_a_file_may_lack(example, change, message):
    with pytest.raises(ValueError, match=message):
        TheWell(changed(example[0], change))


def test_names_that_occur_twice(example):
    def change(file):
        file["t0_fields"].attrs["field_names"] = ["pressure", "velocity_x"]
        file["t0_fields/velocity_x"] = file["t0_fields/pressure"]

    with pytest.raises(ValueError, match=r"Expected different names of channels and parameters .* \['velocity_x'\]"):
        TheWell(changed(example[0], change))


def test_a_file_without_fields(example):
    def change(file):
        for order in range(3):
            file[f"t{order}_fields"].attrs["field_names"] = []

    with pytest.raises(ValueError, match="Expected at least one field"):
        TheWell(changed(example[0], change), varying_scalars="leave out")


def test_trajectories_that_are_all_one(example):
    def change(file):
        file["t0_fields"].attrs["field_names"] = ["profile"]
        for order in (1, 2):
            file[f"t{order}_fields"].attrs["field_names"] = []

    with pytest.raises(ValueError, match="Expected fields that vary from trajectory to trajectory"):
        TheWell(changed(example[0], change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (attribute("/", "dataset_name", "another"), "Expected dataset_name example"),
        (attribute("t0_fields", "field_names", ["pressure", "profile"]), "Expected channels "),
        (attribute("scalars", "field_names", ["gamma", "amplitude"]), "Expected parameters "),
        (delete("boundary_conditions/x_periodic"), "Expected boundary conditions "),
        (dimension("x", np.arange(8.0)), r"Expected periods \["),
        (dimension("time", 2 * TIMES), "Expected frames 0.1 apart"),
    ],
)
def test_files_of_other_problems_do_not_mix(example, change, message):
    folder, _ = example
    write_well_file(folder / "data/train/other.hdf5")
    with h5py.File(folder / "data/train/other.hdf5", "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=rf"{message}.*files='PATTERN'"):
        TheWell(folder)
    assert len(TheWell(folder, files="example*").trajectories("train")) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_named(tmp_path, bad):
    write_well_file(tmp_path / "train/a.hdf5", dtype=np.float64)
    with h5py.File(tmp_path / "train/a.hdf5", "r+") as file:
        file["t1_fields/velocity"][1, 4, 2, 3, 0] = bad
    good, second, _ = TheWell(tmp_path).trajectories("train")
    good.read()
    second.read(0, 4)
    with pytest.raises(ValueError, match=r"frame 4 of trajectory 1 of .*a\.hdf5 holds NaN or infinity"):
        second.read(3, 6)


def test_bad_trajectories_are_skipped_on_request(example):
    folder, values = example

    def spoil(file):
        file["t0_fields/pressure"][0, -1, 0, 0] = np.nan
        for name in ("t0_fields/pressure", "t1_fields/velocity", "t2_fields/D"):
            file[name][2] = 0

    changed(folder, spoil)
    options = {"constant_fields": "leave out", "varying_scalars": "leave out"}
    changed(folder, attribute("t0_fields", "field_names", ["pressure"]))
    with pytest.warns(UserWarning, match="2 trajectories of .* are left out"):
        adapter = TheWell(folder, skip_bad_trajectories=True, **options)
    assert [name for name, _ in adapter.left_out] == ["example.hdf5, trajectory 0", "example.hdf5, trajectory 2"]
    assert "the last frame is zero in all channels" in adapter.left_out[1].reason
    kept = [number for number, name in enumerate(CHANNELS) if name not in ("density", "profile", "amplitude")]
    assert np.array_equal(read(adapter)[0], values[1][:, kept])
    changed(folder, lambda file: file["t0_fields/pressure"].write_direct(np.full((3, 6, 8, 5), np.nan, "f4")))
    with (
        pytest.warns(UserWarning, match="3 trajectories"),
        pytest.raises(ValueError, match="Expected a trajectory to be left in 'train'"),
    ):
        TheWell(folder, skip_bad_trajectories=True, **options)


def test_places_where_there_is_nothing_and_options_that_are_none(tmp_path, example):
    with pytest.raises(ValueError, match="does not exist"):
        TheWell(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="Expected files 'other_\\*'"):
        TheWell(example[0], files="other_*")
    with pytest.raises(ValueError, match="Expected one of the splits"):
        TheWell(example[0]).trajectories("val")
    with pytest.raises(ValueError, match="Expected 'train', 'val' or 'test' as split"):
        TheWell(example[0] / "data/train/example.hdf5", split="valid")
    with pytest.raises(ValueError, match="Expected names of axes"):
        TheWell(example[0], periodic=["z"])
    with pytest.raises(ValueError, match=r"Expected one of \('channels', 'leave out'\) as constant_fields"):
        TheWell(example[0], constant_fields="leave_out")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_with_a_message(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "train/a.hdf5"
    write_well_file(path, trajectories=2, frames=2)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="truncate"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # Anything but a ValueError, a crash above all, is a fault.
        with contextlib.suppress(ValueError):
            for trajectory in TheWell(path.parent).trajectories("train"):
                trajectory.read()

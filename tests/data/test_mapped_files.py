"""`MappedFiles` on one small flow in every format; see `layouts_mapped`."""

from __future__ import annotations

import json
import math
import pickle
from itertools import permutations

import h5py
import lightning
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_mapped import AXES, NAMED, SIZES, UNNAMED, coordinates, flow, mapping, write

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.mapped.adapter import MappedFiles
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.models.fno import FNO
from pdesurrogate.training.forecast import ForecastModule

FIELDS = flow()
EXAMPLE = "benchmarks/data/example_mapping.yaml"


def all_of(adapter, split="train"):
    return torch.stack([trajectory.read() for trajectory in adapter.trajectories(split)])


def expected(fields=FIELDS):
    return torch.from_numpy(np.stack([fields["u"], fields["p"]], 2))


def written(folder, form, fields=FIELDS, order=tuple(SIZES)):
    if form.startswith("zarr"):
        pytest.importorskip("zarr")
    path = write(folder, form, fields, order)
    return MappedFiles(mapping(path.name, None if form in NAMED else order), root=folder)


@pytest.mark.parametrize("form", [*NAMED, *UNNAMED])
def test_every_format_gives_what_was_written(tmp_path, form):
    adapter = written(tmp_path, form)
    assert isinstance(adapter, Adapter)
    assert torch.equal(all_of(adapter), expected())
    trajectory = adapter.trajectories("train")[1]
    assert torch.equal(trajectory.read(2, 4), expected()[1, 2:4])
    for points, name in zip(trajectory.context.coordinates, "xy", strict=True):
        assert points.tolist() == coordinates()[name].tolist()
    assert trajectory.times.tolist() == coordinates()["time"].tolist()
    assert adapter.metadata.frame_interval == 0.25
    assert [axis.period for axis in adapter.metadata.grid.axes] == [3.0, None]
    assert adapter.metadata.channels[0].units == "m/s"


@given(
    order=st.sampled_from(list(permutations(SIZES))),
    form=st.sampled_from(["netCDF-4", "netCDF-3", "hdf5", "npz", "npy"]),
    start=st.integers(0, 3),
)
@settings(max_examples=15)
def test_any_order_of_dimensions_gives_the_same(tmp_path_factory, order, form, start):
    adapter = written(tmp_path_factory.mktemp("order"), form, order=order)
    found = torch.stack([trajectory.read(start, start + 2) for trajectory in adapter.trajectories("train")])
    assert torch.equal(found, expected()[:, start : start + 2])


@pytest.mark.parametrize("form", ["netCDF-3", "zarr2", "npz compressed", "hdf5", "npy"])
def test_workers_read_the_same_and_pickles_are_small(tmp_path, form):
    adapter = written(tmp_path, form)
    assert torch.equal(all_of(adapter), expected())  # handles are open when the workers start
    assert len(pickle.dumps(adapter)) < 20_000
    assert torch.equal(all_of(pickle.loads(pickle.dumps(adapter))), expected())
    batches = [
        torch.cat([batch.history for batch in ForecastData(adapter, batch_size=4, workers=workers).train_dataloader()])
        for workers in (0, 2)
    ]
    assert torch.equal(*batches)


@pytest.mark.parametrize("form", ["netCDF-4", "netCDF-3", "zarr3", "npz", "hdf5", "npy"])
def test_only_frames_that_are_asked_for_are_read(tmp_path, form):
    fields = flow()
    fields["p"][1, 3, 2, 1] = math.nan
    adapter = written(tmp_path, form, fields)
    trajectory = adapter.trajectories("train")[1]
    assert torch.equal(trajectory.read(0, 3), expected()[1, :3])
    with pytest.raises(ValueError, match=r"frame 3 of 'p' of .*flow.* lacks 1 of 24"):
        trajectory.read(2, 5)


def test_mappings_are_yaml_files_beside_the_data(tmp_path):
    write(tmp_path, "netCDF-4", FIELDS)
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(mapping("*.nc")))
    adapter = MappedFiles(tmp_path / "map.yaml")
    assert torch.equal(all_of(adapter), expected())
    assert adapter.files == [tmp_path / "flow.nc"]
    assert json.loads(adapter.metadata.attributes["mapping"]) == mapping("*.nc")
    absolute = MappedFiles(mapping(str(tmp_path / "*.nc")))
    assert torch.equal(all_of(absolute), expected())


def test_the_example_is_a_mapping(tmp_path, request):
    values = yaml.safe_load((request.config.rootpath / EXAMPLE).read_text())
    time, lat, lon = 3.0 * np.arange(6), np.linspace(90, -90, 5), 45.0 * np.arange(8)
    (tmp_path / "runs").mkdir()
    winds = np.random.default_rng(0).integers(-900, 900, (3, 2, 6, 5, 8)).astype(np.int16)
    for number, year in enumerate((1998, 1999, 2000)):
        packed = {"scale_factor": 0.01, "add_offset": 1.0, "units": "m s-1"}
        data = xr.Dataset(
            {name: (("time", "lat", "lon"), winds[number, place], packed) for place, name in enumerate(("u10", "v10"))},
            {"time": ("time", time, {"units": f"hours since {year}-01-01"}), "lat": lat, "lon": lon},
        )
        data.to_netcdf(tmp_path / "runs" / f"{year}.nc")
    adapter = MappedFiles(values, root=tmp_path)
    assert [len(adapter.trajectories(split)) for split in adapter.splits] == [1, 1, 1]
    found = adapter.trajectories("test")[0].read()
    exact = (winds[2].astype(np.float64) * 0.01 + 1.0).astype(np.float32)
    assert torch.equal(found, torch.from_numpy(exact[:, :, ::-1].copy()).permute(1, 0, 3, 2))
    assert adapter.metadata.frame_interval == 3 * 3600
    assert adapter.metadata.time_units == "s"
    assert adapter.metadata.channels[0].units == "m s-1"


def test_files_are_splits_or_are_divided(tmp_path):
    for number in range(5):
        (tmp_path / f"run{number + 8}").mkdir()
        write(tmp_path / f"run{number + 8}", "npz", flow(number))
    files = {"train": ["run8/*.npz", "run10/*.npz"], "valid": "run9/*.npz", "test": "run1[12]/*.npz"}
    adapter = MappedFiles(mapping(files, tuple(SIZES)), root=tmp_path)
    assert {split: len(adapter.trajectories(split)) for split in adapter.splits} == {"train": 6, "val": 3, "test": 6}
    assert torch.equal(all_of(adapter, "val"), expected(flow(1)))
    assert torch.equal(all_of(adapter, "train")[3:], expected(flow(2)))
    divided = MappedFiles(mapping("run*/*.npz", tuple(SIZES), splits={"val": 2, "test": 4}), root=tmp_path)
    assert {split: len(divided.trajectories(split)) for split in divided.splits} == {"train": 9, "val": 2, "test": 4}
    assert torch.equal(all_of(divided, "train")[:3], expected(flow(0)))  # run8 before run10
    assert torch.equal(all_of(divided, "test")[1:], expected(flow(4)))
    in_time = {"by": "time", "val": 1, "test": 1, "gap": 1}
    blocks = MappedFiles(mapping("run8/*.npz", tuple(SIZES), splits=in_time), root=tmp_path)
    assert {split: len(blocks.trajectories(split)[0]) for split in blocks.splits} == {"train": 1, "val": 1, "test": 1}
    assert torch.equal(all_of(blocks, "val"), expected()[:, 2:3])
    assert blocks.trajectories("test")[2].times.tolist() == [3.0]


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("form", ["npy", "nc"])
def test_trajectories_may_go_on_from_file_to_file(tmp_path, form, frames):
    values = np.random.default_rng(0).normal(size=(12, 6, 4)).astype("f4")
    for number in range(12 // frames):
        part = values[number * frames : (number + 1) * frames]
        if form == "npy":
            np.save(tmp_path / f"step{number}.npy", part[0] if frames == 1 else part)
        else:
            time = 0.5 * np.arange(number * frames, (number + 1) * frames)
            data = xr.Dataset({"array": (("time", "x", "y"), part)}, {"time": time})
            (data.isel(time=0) if frames == 1 else data).to_netcdf(tmp_path / f"step{number}.nc")
    order = None if form == "nc" else ("x", "y") if frames == 1 else ("time", "x", "y")
    time = {"dimension": "time", **({"interval": 0.5} if form == "npy" else {"coordinate": "time"})}
    told = mapping(
        f"*.{form}", order, trajectory=None, each_file="times", splits={"by": "time", "test": 3, "gap": 2}, time=time,
        channels=[{"name": "u", "variable": "array"}],
        axes={axis: {"dimension": axis, "period": 1} for axis in "xy"},
    )  # fmt: skip
    adapter = MappedFiles(told, root=tmp_path)
    assert torch.equal(all_of(adapter, "train")[0, :, 0], torch.from_numpy(values[:7]))
    (trajectory,) = adapter.trajectories("test")
    assert torch.equal(trajectory.read()[:, 0], torch.from_numpy(values[9:]))
    assert torch.equal(trajectory.read(1, 2)[:, 0], torch.from_numpy(values[10:11]))
    assert trajectory.times.tolist() == [4.5, 5.0, 5.5]
    (tmp_path / f"step3.{form}").unlink()
    if form == "nc":
        with pytest.raises(ValueError, match="evenly spaced times"):
            MappedFiles(told, root=tmp_path)
    alone = {**told, "files": f"step1.{form}", "splits": {}}
    with pytest.raises(ValueError, match=r"Did you mean times\?"):
        MappedFiles({**alone, "each_file": "time"}, root=tmp_path)
    if frames == 1:
        with pytest.raises(ValueError, match="at least two times"):
            MappedFiles(alone, root=tmp_path)
        with pytest.raises(ValueError, match="dimension that is there but got 'time'"):
            MappedFiles({**alone, "each_file": "trajectories"}, root=tmp_path)


def test_components_of_one_array_are_channels(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 4, 6, 7)).astype(">f8")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/w"] = values
        file["group/extra"] = values[:, :, None, :, :1, None]
    channels = [
        {"name": f"c{place}", "variable": "group/w", "index": {"c": place}, "order": ["time", "y", "x", "c"]}
        for place in (5, 2, 3)
    ]
    channels.append({"name": "e", "variable": "group/extra", "order": ["time", "y", "one", "x", "two", "three"]})
    axes = {"x": {"dimension": "x", "period": 1}, "y": {"dimension": "y", "start": -1, "spacing": 0.5}}
    time = {"dimension": "time", "interval": "1e-1", "start": 2}
    adapter = MappedFiles(
        mapping("a.h5", trajectory=None, axes=axes, time=time, channels=channels), root=tmp_path
    )  # fmt: skip
    (trajectory,) = adapter.trajectories("train")
    exact = torch.from_numpy(values.astype(np.float32)).permute(0, 3, 2, 1)
    assert torch.equal(trajectory.read(), exact[:, [5, 2, 3, 0]])
    assert trajectory.times.tolist() == pytest.approx([2.0, 2.1, 2.2, 2.3, 2.4])
    assert trajectory.context.coordinates[1].tolist() == [-1.0, -0.5, 0.0, 0.5]


@pytest.mark.parametrize(("axis", "points", "units"), [
    ({"start": 0.25, "period": 3}, [0.25, 0.75, 1.25, 1.75, 2.25, 2.75], "1"),
    ({"spacing": 2}, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0], "1"),
    ({"period": 3}, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5], "km"),
])  # fmt: skip
def test_points_of_the_mapping_take_the_place_of_stored_ones_with_their_units(tmp_path, axis, points, units):
    with h5py.File(write(tmp_path, "netCDF-4", FIELDS), "r+") as file:
        file["x"].attrs["units"] = "km"
    adapter = MappedFiles(mapping("flow.nc", axes={**AXES, "x": {"dimension": "x", **axis}}), root=tmp_path)
    assert adapter.trajectories("train")[0].context.coordinates[0].tolist() == points
    assert adapter.metadata.grid.axes[0].units == units


def test_parameters_come_from_the_mapping_arrays_or_attributes(tmp_path):
    with h5py.File(write(tmp_path, "hdf5", FIELDS), "r+") as file:
        file["nu"] = np.array([0.1, 0.2, 0.3])
        file["rho"] = 1.5
        file.attrs["Re"] = 40
    parameters = {
        "drag": "1e-3", "viscosity": {"variable": "nu"}, "density": {"variable": "rho"}, "re": {"attribute": "Re"},
    }  # fmt: skip
    adapter = MappedFiles(mapping("flow.h5", tuple(SIZES), parameters=parameters), root=tmp_path)
    assert adapter.metadata.parameters == ("drag", "viscosity", "density", "re")
    rows = [trajectory.context.parameters.tolist() for trajectory in adapter.trajectories("train")]
    assert rows == [pytest.approx([1e-3, nu, 1.5, 40.0]) for nu in (0.1, 0.2, 0.3)]


def with_times(folder, times, **attributes):
    data = xr.Dataset({"u": (("time", "x"), np.ones((len(times), 4), "f4"))}, {"x": np.arange(4.0)})
    data["time"] = ("time", np.asarray(times, float), attributes)
    data.to_netcdf(folder / "t.nc")
    return mapping(
        "t.nc", trajectory=None, axes={"x": {"dimension": "x"}}, time={"dimension": "time"},
        channels=[{"name": "u", "variable": "u"}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("units", "factor", "told"),
    [
        ("hours since 1979-01-01 00:00:0.0", 3600, "s"),
        ("Days since 2000-01-01", 86400, "s"),
        ("minutes", 60, "s"),
        ("s", 1, "s"),
        ("L/U", 1, "L/U"),
        (None, 1, "1"),
    ],
)
def test_times_become_seconds_where_their_units_say_so(tmp_path, units, factor, told):
    values = with_times(tmp_path, [6, 12, 18], **({} if units is None else {"units": units}))
    adapter = MappedFiles(values, root=tmp_path)
    assert adapter.trajectories("train")[0].times.tolist() == [6 * factor, 12 * factor, 18 * factor]
    assert (adapter.metadata.frame_interval, adapter.metadata.time_units) == (6 * factor, told)


def test_times_of_each_trajectory_may_have_another_start(tmp_path):
    with h5py.File(write(tmp_path, "hdf5", FIELDS), "r+") as file:
        file["t"] = np.array([0.0, 10.0, 20.0])[:, None] + 0.5 * np.arange(5)
    values = mapping("flow.h5", tuple(SIZES), time={"dimension": "time", "coordinate": "t"})
    starts = [float(each.times[0]) for each in MappedFiles(values, root=tmp_path).trajectories("train")]
    assert starts == [0.0, 10.0, 20.0]


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_packed_numbers_are_scaled_in_double_precision(tmp_path, form):
    stored = np.random.default_rng(0).integers(-32000, 32000, (3, 4)).astype(np.int16)
    attributes = {"scale_factor": 0.1 / 3, "add_offset": 273.15, "missing_value": np.int16(-32768)}
    data = xr.Dataset({"u": (("time", "x"), stored, attributes)}, {"time": np.arange(3.0), "x": np.arange(4.0)})
    data.to_netcdf(tmp_path / "a.nc", format=form)
    values = mapping(
        "a.nc", trajectory=None, axes={"x": {"dimension": "x"}}, time={"dimension": "time"},
        channels=[{"name": "u", "variable": "u"}],
    )  # fmt: skip
    exact = (stored.astype(np.float64) * (0.1 / 3) + 273.15).astype(np.float32)
    assert torch.equal(all_of(MappedFiles(values, root=tmp_path))[0, :, 0], torch.from_numpy(exact))
    data["u"][1, 2] = -32768
    data.to_netcdf(tmp_path / "b.nc", format=form)
    with pytest.raises(ValueError, match=r"frame 1 of 'u' of .* lacks 1 of 4"):
        all_of(MappedFiles({**values, "files": "b.nc"}, root=tmp_path))


@pytest.mark.parametrize("fill", [1e20, -999.0])
def test_fill_values_are_those_of_the_stored_precision(tmp_path, fill):
    values = np.ones((3, 4), np.float32)
    values[2, 1] = fill
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = values
        file["u"].attrs["_FillValue"] = fill  # double precision, for an array in single
    told = mapping(
        "a.h5", ("time", "x"), trajectory=None, axes={"x": {"dimension": "x", "period": 1}},
        time={"dimension": "time", "interval": 1}, channels=[{"name": "u", "variable": "u"}],
    )  # fmt: skip
    with pytest.raises(ValueError, match="frame 2 of 'u'"):
        all_of(MappedFiles(told, root=tmp_path))


def test_integers_are_taken_with_permission_only(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12).reshape(3, 4))
    told = mapping(
        "a.npy", ("time", "x"), trajectory=None, axes={"x": {"dimension": "x", "period": 1}},
        time={"dimension": "time", "interval": 1}, channels=[{"name": "u", "variable": "array"}],
    )  # fmt: skip
    with pytest.raises(ValueError, match="integers: convert"):
        MappedFiles(told, root=tmp_path)
    told["channels"][0]["integers"] = "convert"
    assert torch.equal(all_of(MappedFiles(told, root=tmp_path)).flatten(), torch.arange(12.0))


def test_decreasing_coordinates_are_turned_around_with_the_fields(tmp_path):
    data = xr.load_dataset(write(tmp_path, "netCDF-4", FIELDS)).isel(y=slice(None, None, -1), x=slice(None, None, -1))
    data.to_netcdf(tmp_path / "turned.nc")
    values = mapping("turned.nc")
    adapter = MappedFiles(values, root=tmp_path)
    assert torch.equal(all_of(adapter), expected())
    assert adapter.trajectories("train")[0].context.coordinates[1].tolist() == coordinates()["y"].tolist()
    values["channels"][0]["location"] = "face_y"
    with pytest.raises(ValueError, match="turn the arrays around first"):
        MappedFiles(values, root=tmp_path)


def test_conversion_keeps_every_value(tmp_path):
    adapter = written(tmp_path, "netCDF-4")
    (path,) = convert(adapter, tmp_path / "out")
    archive = Archive(path.parent)
    assert torch.equal(all_of(archive), expected())
    assert archive.metadata.grid == adapter.metadata.grid


def test_a_network_trains_on_it(tmp_path):
    write(tmp_path, "netCDF-4", FIELDS)
    splits = {"val": 1, "test": 1}
    data = ForecastData(MappedFiles(mapping("flow.nc", splits=splits), root=tmp_path), batch_size=2)
    network = FNO(channels=2, modes=(2, 2), width=4, layers=1)
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(ForecastModule(network, data.metadata), data)
    assert trainer.global_step == 2


BASE = mapping("flow.nc")


def altered(**changes):
    return {**BASE, **changes}


def channel(**changes):
    return altered(channels=[{**BASE["channels"][0], **changes}])


def axes(**changes):
    return altered(axes={**BASE["axes"], "y": {**BASE["axes"]["y"], **changes}})


BAD_WORDS = [
    (altered(axis={}), "word that is there but got 'axis'. Did you mean axes"),
    (altered(colour=1), "got 'colour'. There are: attributes"),
    (axes(dimenson="y"), "Did you mean dimension.*axis 'y'"),
    (channel(varible="u"), "Did you mean variable.*channel 0"),
    (altered(time={"dimension": "time", "intervall": 1}), "Did you mean interval.*time"),
    (altered(splits={"valid": 1}), "Did you mean val.*splits"),
    (altered(parameters={"nu": {"varable": "nu"}}), "Did you mean variable.*parameter 'nu'"),
    (altered(name=None), "'name' in the mapping but it is missing"),
    (altered(axes={}), "at least one axis"),
    (altered(axes=["x", "y"]), "words and values under 'axes'"),
    (altered(channels=[]), "list of channels"),
    (altered(channels={"u": "u"}), "list of channels"),
    (altered(channels=["u"]), "words and values in channel 0"),
    (altered(time=None), "under 'time'"),
    (altered(time="time"), "under 'time'"),
    (channel(variable=None), "'variable' in channel 0"),
    (channel(location="corner"), "location that is there but got 'corner'. There are: cell, face_x"),
    (channel(index={"component": -1}), "number from 0 on for 'component'"),
    (channel(integers=True), "integers that is there"),
    (channel(units=["m"]), "name or text as 'units'"),
    (axes(period="long"), "number as 'period' in axis 'y'"),
    (axes(period=True), "number as 'period'"),
    (axes(spacing=1.0), "got both; leave one out"),
    (axes(bounds=[0]), r"bounds \[low, high\]"),
    (axes(bounds=[0, "top"]), r"bounds \[low, high\]"),
    (altered(order="xy"), "list of names as 'order'"),
    (altered(order=["x", "x"]), "different names as 'order'"),
    (altered(splits={"val": -1}), "number from 0 on as 'val'"),
    (altered(splits={"by": "frames"}), "got 'frames'. There are: time, trajectory"),
    (altered(parameters={"nu": {}}), "either a variable or an attribute"),
    (altered(parameters={"nu": "high"}), "Expected a number, {variable: NAME}"),
    (altered(parameters={"nu": math.inf}), "Expected a number, {variable: NAME}"),
    (altered(files=None), "names or patterns of files"),
    (altered(files={}), "but got none"),
    (altered(files="*.h5"), r"files like '\*.h5'"),
    (altered(files={"train": "flow.nc", "test": "*.nc"}), "in train and test"),
    (altered(files={"trian": "flow.nc"}), "Did you mean train"),
    (altered(files={"train": "flow.nc"}, splits={"val": 1}), "leave one of them out"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad")
    with h5py.File(write(path, "netCDF-4", FIELDS), "r+") as file:
        file["label"] = "text"
        file["empty"] = np.empty((0, 4))
        file["three"] = np.zeros((3, 5))
        file["even"] = np.zeros(4)
        file.attrs["note"] = "words"
    return path


@pytest.mark.parametrize(("values", "message"), BAD_WORDS)
def test_words_of_the_mapping_are_checked(folder, values, message):
    with pytest.raises(ValueError, match=message):
        MappedFiles({name: value for name, value in values.items() if value is not None}, root=folder)


BAD_CONTENT = [
    (channel(variable="uu"), r"variable that is there but got 'uu'. .*looked for in .*flow\.nc"),
    (channel(variable="label"), "numbers in 'label'"),
    (channel(variable="empty"), "give order"),
    (channel(variable="three"), "give order"),
    (axes(dimension="yy"), "dimension that is there but got 'yy'. Did you mean y"),
    (axes(coordinate="Y"), "variable that is there but got 'Y'"),
    (axes(coordinate="x"), "4 coordinates along 'y'"),
    (axes(coordinate="even"), "increasing or decreasing"),
    (axes(coordinate="none"), "Give coordinate: NAME"),
    (axes(bounds=[0, 1]), "within the bounds"),
    (axes(coordinate="none", spacing=0.3, bounds=[0, 0.5]), "within the bounds .* those of the mapping run from 0 to"),
    (altered(axes={**AXES, "x": {"dimension": "x", "period": 1.5}}), "a period 3 along 'x'"),
    (altered(axes={**AXES, "x": {"dimension": "x", "period": 360}}), "a period 3 along 'x'.* other units"),
    (altered(axes={**AXES, "x": {"dimension": "x", "period": 3, "spacing": 0.1}}), "a period 0.6 along 'x'"),
    (axes(period=1.5), "within one period"),
    (axes(coordinate="none", spacing=0.0), "spacing > 0"),
    (altered(time={"dimension": "time", "start": 0}), "start 2, as stored"),
    (axes(dimension="x"), "different dimensions"),
    (altered(trajectory=None), "'run' .* to be time, an axis, trajectory or in the channel's index"),
    (altered(trajectory="runs"), "dimension that is there but got 'runs'. Did you mean run"),
    (altered(time={"dimension": "times"}), "dimension that is there but got 'times'. Did you mean time"),
    (altered(time={"dimension": "time", "coordinate": "x"}), "5 .*times in 'x'"),
    (altered(time={"dimension": "time", "interval": 0.3}), "frame_interval 0.25"),
    (altered(time={"dimension": "time", "coordinate": "none"}), "give frame_interval"),
    (channel(index={"component": 0}), "dimension that is there but got 'component'"),
    (channel(index={"y": 9}), "index below 4"),
    (channel(order=["time", "run", "x", "y"]), "as the file names them"),
    (channel(order=["time", "x"]), "4 names in order"),
    (altered(parameters={"nu": {"variable": "y"}}), "each of the 3 trajectories"),
    (altered(parameters={"nu": {"attribute": "Note"}}), "Did you mean note"),
    (altered(parameters={"nu": {"attribute": "note"}}), "number as the attribute 'note'"),
    (altered(splits={"test": 4}), "they would overlap"),
    (altered(splits={"gap": 1}), "no gap between trajectories"),
    (altered(splits={"by": "time", "test": 6}), "fit into the 5 frames"),
]


@pytest.mark.parametrize(("values", "message"), BAD_CONTENT)
def test_what_files_hold_is_checked(folder, values, message):
    with pytest.raises(ValueError, match=message):
        MappedFiles({name: value for name, value in values.items() if value is not None}, root=folder)


def test_dimensions_that_disagree_are_named(tmp_path):
    shapes = {"u": (3, 5, 6, 4), "p": (3, 5, 6, 3)}
    np.savez(tmp_path / "a.npz", **{name: np.ones(shape) for name, shape in shapes.items()})
    free = {"x": {"dimension": "x", "period": 1}, "y": {"dimension": "y", "period": 1}}
    values = mapping("a.npz", tuple(SIZES), axes=free, time={"dimension": "time", "interval": 1})
    with pytest.raises(ValueError, match=r"Expected 4 along 'y', as 'u' has, in 'p' of .* but got 3"):
        MappedFiles(values, root=tmp_path)
    without = {**values, "channels": [values["channels"][0], {**values["channels"][1], "order": ["time", "x", "y"]}]}
    np.savez(tmp_path / "a.npz", u=np.ones((3, 5, 6, 4)), p=np.ones((5, 6, 4)))
    with pytest.raises(ValueError, match="dimension 'run' in 'p'"):
        MappedFiles(without, root=tmp_path)
    np.savez(tmp_path / "a.npz", u=np.ones((3, 1, 6, 4)), p=np.ones((3, 1, 6, 4)))
    with pytest.raises(ValueError, match="at least two frames"):
        MappedFiles(values, root=tmp_path)


def test_files_that_differ_are_refused(tmp_path):
    write(tmp_path, "netCDF-4", FIELDS)
    data = xr.load_dataset(tmp_path / "flow.nc", decode_times=False)
    for name, change, message in (
        ("moved", data.assign_coords(x=data.x + 0.1), "points of .* along 'x'"),
        ("fewer", data.isel(y=slice(3)), "4 points of .* along 'y'"),
        ("slower", data.assign_coords(time=data.time * 2), "0.25 apart as in the first file"),
        ("scaled", data.assign(p=data.p.assign_attrs(units="hPa")), "'pressure' in '1' as in .* has it in 'hPa'"),
        ("later", data.assign_coords(time=data.time.assign_attrs(units="s")), "'time' in '1' as in .* has it in 's'"),
        ("longer", data.assign_coords(x=data.x.assign_attrs(units="km")), "'x' in '1' as in .* has it in 'km'"),
        ("other", data.rename(p="q"), "variable that is there but got 'p'"),
    ):
        change.to_netcdf(tmp_path / f"{name}.nc")
        with pytest.raises(ValueError, match=message):
            MappedFiles(mapping(["flow.nc", f"{name}.nc"]), root=tmp_path)


def test_times_without_a_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no fixed length"):
        MappedFiles(with_times(tmp_path, [1, 2, 3], units="months since 2000-01-01"), root=tmp_path)
    (tmp_path / "uneven").mkdir()
    with pytest.raises(ValueError, match="evenly spaced"):
        MappedFiles(with_times(tmp_path / "uneven", [1, 2, 4]), root=tmp_path / "uneven")


def test_mappings_that_cannot_be_read_say_why(tmp_path):
    for content, message in ((b"name: [", "mapping in YAML"), (b"- a", "got list"), (b"\xff\xfe\x00", "in YAML")):
        (tmp_path / "map.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            MappedFiles(tmp_path / "map.yaml")
    with pytest.raises(ValueError, match="is not one"):
        MappedFiles(tmp_path / "none.yaml")


def test_values_beyond_single_precision_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, 2.0], [1e300, 1.0]]))
    told = mapping(
        "a.npy", ("time", "x"), trajectory=None, axes={"x": {"dimension": "x", "period": 1}},
        time={"dimension": "time", "interval": 1}, channels=[{"name": "u", "variable": "array"}],
    )  # fmt: skip
    with pytest.raises(ValueError, match="frame 1 of 'array'"):
        all_of(MappedFiles(told, root=tmp_path))

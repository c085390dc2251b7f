"""Cutouts written as the two clients of the Johns Hopkins Turbulence Databases write them."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

CHANNEL_PERIODS = (8 * math.pi, 3 * math.pi)
# So few points that they go around the box: strides of the 2048 x 512 x 1536 points of the published one.
STRIDES = {"x": 256, "y": 73, "z": 384}
COUNTS = {"x": 2048, "y": 512, "z": 1536}


def channel_heights() -> np.ndarray:
    """512 stretched heights whose first and last are the walls, as in the database to single precision."""
    return -np.cos(np.pi * np.arange(512) / 511)


def channel_box(stop: dict[str, int] | None = None, **step: int) -> dict[str, tuple[int, int, int]]:
    """First and last index (from 1 on, inclusive) and stride along each axis; by default all of the channel."""
    stops = {**COUNTS, **(stop or {})}
    return {axis: (1, stops[axis], step.get(axis, STRIDES[axis])) for axis in "xyz"}


def indices(box: dict[str, tuple[int, int, int]]) -> dict[str, np.ndarray]:
    return {axis: np.arange(first, last + 1, step) - 1 for axis, (first, last, step) in box.items()}


def channel_points(box: dict[str, tuple[int, int, int]]) -> dict[str, np.ndarray]:
    places = indices(box)
    return {
        "x": places["x"] * (CHANNEL_PERIODS[0] / 2048),
        "y": channel_heights()[places["y"]],
        "z": places["z"] * (CHANNEL_PERIODS[1] / 1536),
    }


def fields_of(points: dict[str, np.ndarray], times, components: int = 3, seed: int = 0) -> dict[int, np.ndarray]:
    """``(z, y, x, component)`` in float32 by time index: a mean flow along x and noise."""
    generator = np.random.default_rng(seed)
    shape = (len(points["z"]), len(points["y"]), len(points["x"]), components)
    found = {}
    for time in times:
        values = generator.normal(0, 0.1, shape)
        values[..., 0] += 1 - points["y"][None, :, None] ** 2
        values[:, np.abs(points["y"]) > 1 - 1e-9] = 0  # walls
        found[time] = values.astype(np.float32)
    return found


def box_attributes(box, times, step=None) -> dict[str, int]:
    times = sorted(times)
    stride = step or (times[1] - times[0] if len(times) > 1 else 1)
    found = {"t_start": times[0], "t_end": times[-1], "t_step": stride}
    for number, word in enumerate(("start", "end", "step")):
        found |= {f"{axis}_{word}": box[axis][number] for axis in "xyz"}
    return found


def write_pyjhtdb(path: Path, box, points, variables: dict[str, dict[int, np.ndarray]], title: str = "channel") -> Path:
    """``getbigCutout``: attributes as bytes and integers, coordinates and fields in single precision."""
    times = next(iter(variables.values()))
    with h5py.File(path, "w") as file:
        file.attrs["dataset"] = np.bytes_(title)
        for name, value in {**box_attributes(box, times), "filterWidth": 1}.items():
            file.attrs[name] = value
        for axis in "xyz":
            line = file.create_dataset(f"{axis}coor", points[axis].shape, "f4", maxshape=points[axis].shape)
            line[...] = points[axis]
        for name, frames in variables.items():
            for time, values in frames.items():
                array = file.create_dataset(f"{name}_{time:04d}", values.shape, "f4", maxshape=values.shape)
                array[...] = values
    path.with_suffix(".xmf").write_text('<?xml version="1.0" ?>\n')
    return path


def write_giverny(
    path: Path, box, points, variables: dict[str, dict[int, np.ndarray]], title: str = "channel", staggered=None
) -> Path:
    """``write_cutout_hdf5_and_xmf_files``: an xarray data set; ``staggered`` is the height of ``zcoor_w`` over z."""
    times = next(iter(variables.values()))
    z = "zcoor" if staggered is None else "zcoor_uv"
    arrays = {
        f"{name}_{time:04d}": ((z, "ycoor", "xcoor", "values"), values)
        for name, frames in variables.items()
        for time, values in frames.items()
    }
    coordinates = {z: points["z"], "ycoor": points["y"], "xcoor": points["x"]}
    if staggered is not None:
        coordinates["zcoor_w"] = points["z"] + staggered
    attributes = {"dataset": title, **box_attributes(box, times), "filterWidth": 1}
    xr.Dataset(arrays, coordinates, attributes).to_netcdf(path, format="NETCDF4", mode="w")
    return path

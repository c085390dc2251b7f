"""One small flow in every format and order of dimensions that a mapping can name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

SIZES = {"run": 3, "time": 5, "x": 6, "y": 4}
NAMED = ("netCDF-4", "netCDF-3", "zarr2", "zarr3")
UNNAMED = ("hdf5", "npz", "npz compressed", "npy", "mat")
AXES = {"x": {"dimension": "x", "coordinate": "x", "period": 3.0}, "y": {"dimension": "y", "coordinate": "y"}}


def coordinates() -> dict[str, np.ndarray]:
    return {"time": 0.25 * np.arange(5) + 2, "x": 0.5 * np.arange(6), "y": np.array([-1.0, -0.5, 0.5, 1.0])}


def flow(seed: int = 0) -> dict[str, np.ndarray]:
    """``u`` and ``p (run, time, x, y)`` in float32."""
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=tuple(SIZES.values())).astype(np.float32) for name in "up"}


def ordered(values: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    return np.ascontiguousarray(values.transpose([list(SIZES).index(name) for name in order]))


def write(folder: Path, form: str, fields: dict[str, np.ndarray], order: tuple[str, ...] = tuple(SIZES)) -> Path:
    """All of it in one file, dimensions in the order given; ``npy`` is a folder of one file for each array."""
    arrays = {name: ordered(values, order) for name, values in fields.items()}
    lines = coordinates()
    if form in NAMED:
        data = xr.Dataset({name: (order, values) for name, values in arrays.items()}, lines)
        path = folder / f"flow.{'zarr' if form.startswith('zarr') else 'nc'}"
        if form.startswith("zarr"):
            data.to_zarr(path, zarr_format=int(form[-1]), consolidated=False)
        else:
            data.to_netcdf(path, format="NETCDF4" if form == "netCDF-4" else "NETCDF3_64BIT")
        return path
    if form == "npy":
        path = folder / "flow"
        path.mkdir()
        for name, values in (arrays | lines).items():
            np.save(path / f"{name}.npy", values)
        return path
    if form.startswith("npz"):
        path = folder / "flow.npz"
        (np.savez_compressed if "compressed" in form else np.savez)(path, **arrays, **lines)
        return path
    path = folder / ("flow.mat" if form == "mat" else "flow.h5")
    with h5py.File(path, "w", userblock_size=512 if form == "mat" else 0) as file:
        for name, values in (arrays | lines).items():
            file[name] = values
    if form == "mat":
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


def mapping(files: Any, order: tuple[str, ...] | None = None, **changes: Any) -> dict[str, Any]:
    """Of such a file."""
    values = {
        "name": "small_flow",
        "files": files,
        "trajectory": "run",
        "axes": AXES,
        "time": {"dimension": "time", "coordinate": "time"},
        "channels": [{"name": "velocity_x", "variable": "u", "units": "m/s"}, {"name": "pressure", "variable": "p"}],
    }
    if order is not None:
        values["order"] = list(order)
    return {name: value for name, value in {**values, **changes}.items() if value is not None}

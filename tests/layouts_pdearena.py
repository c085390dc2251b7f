"""Writers of the layouts that PDEArena's and SineNet's generators and converters leave behind, at any size.

Names, groups, kinds of numbers and faults are those of ``pdedatagen/navier_stokes.py``, of SpeedyWeather.jl 0.2
(``initialize_netcdf_output``), of ``scripts/h5_conv.py`` and of SineNet's ``CFD_multi_Hydra.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import torch

SIDE = 32.0
START, NS_INTERVAL = 18.0, 6.0
RUN_HOURS = 5.46
CFD_NAME = "2D_rand_{mode}_Eta1e-08_Zeta1e-08_M0.1_D.h5"


def random_fields(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def rewrite(path: Path, change: Callable[[h5py.Group], object]) -> Path:
    """Change a copy of a file and put it in its place, as a reader may have it open."""
    copy = path.with_name("copy.tmp")
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        change(file)
    copy.replace(path)
    return path


def staggered_flow(seed: int, count: int, frames: int, nx: int, ny: int, side: float = SIDE) -> dict[str, np.ndarray]:
    """Smoke, and a velocity between walls without divergence, as PhiFlow keeps it: all faces but the last.

    The components are differences of a stream function at the corners of cells, which is zero on the walls.
    """
    corners = np.zeros((count, frames, nx + 1, ny + 1))
    corners[:, :, 1:-1, 1:-1] = random_fields(seed, count, frames, nx - 1, ny - 1)
    vx = np.diff(corners, axis=3) / (side / ny)  # (nx + 1) faces across x
    vy = -np.diff(corners, axis=2) / (side / nx)
    return {"u": np.abs(random_fields(seed + 1, count, frames, nx, ny)), "vx": vx[:, :, :-1], "vy": vy[:, :, :, :-1]}


def ns_name(mode: str, seed: int, buoyancy: float, count: int) -> str:
    return f"NavierStokes2D_{mode}_{seed}_{buoyancy:.5f}" + (f"_{count}" if mode == "train" else "") + ".h5"


def write_navier_stokes(
    folder: Path,
    mode: str,
    seed: int,
    fields: dict[str, np.ndarray],
    buoyancy: float = 0.5,
    interval: float = NS_INTERVAL,
    side: float = SIDE,
) -> Path:
    """One shard; ``t`` runs to the end of the last interval and ``dx`` is that of one cell fewer, as published."""
    count, frames, nx, ny = fields["u"].shape
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ns_name(mode, seed, buoyancy, count)
    with h5py.File(path, "w") as file:
        group = file.create_group(mode)
        for name, values in fields.items():
            group.create_dataset(name, values.shape, dtype=float)[...] = values
        group.create_dataset("t", (count, frames), dtype=float)[...] = np.linspace(
            START, START + interval * frames, frames
        )
        group.create_dataset("dt", (count,), dtype=float)[...] = interval
        for axis, points in (("x", nx), ("y", ny)):
            group.create_dataset(axis, (count, points), dtype=float)[...] = np.linspace(0, side, points)
            group.create_dataset(f"d{axis}", (count,), dtype=float)[...] = side / (points - 1)
        group.create_dataset("buo_y", (count,), dtype=float)[...] = buoyancy
    return path


def speedy_fields(seed: int, frames: int, rows: int, columns: int) -> dict[str, np.ndarray]:
    """Variables of one run in the order of the file: time, lev, lat (from north to south), lon."""
    fields = {
        name: random_fields(seed + number, frames, 1, rows, columns).astype(np.float32)
        for number, name in enumerate(("u", "v", "vor", "div"))
    }
    return fields | {"pres": random_fields(seed + 9, frames, rows, columns).astype(np.float32)}


def gaussian_latitudes(rows: int) -> np.ndarray:
    """Degrees, from north to south."""
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))[::-1].copy()


def write_speedy_run(
    folder: Path, fields: dict[str, np.ndarray], hours: float = RUN_HOURS, southward: bool = True
) -> Path:
    """``output.nc`` of one run; times are whole hours."""
    frames, rows, columns = fields["pres"].shape
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "output.nc"
    path.unlink(missing_ok=True)  # a reader may have it open
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("lon", columns)
        file.createDimension("lat", rows)
        file.createDimension("lev", 1)
        file.createDimension("time", None)
        time = file.createVariable("time", "i4", ("time",))
        time.setncatts({"units": "hours since 2000-01-01 00:00:0.0", "long_name": "time"})
        time[:] = np.round(hours * np.arange(frames)).astype(np.int32)
        lon = file.createVariable("lon", "f8", ("lon",))
        lon.setncatts({"units": "degrees_east", "long_name": "longitude"})
        lon[:] = 360 / columns * np.arange(columns)
        lat = file.createVariable("lat", "f8", ("lat",))
        lat.setncatts({"units": "degrees_north", "long_name": "latitude"})
        lat[:] = gaussian_latitudes(rows)[:: 1 if southward else -1]
        lev = file.createVariable("lev", "i4", ("lev",))
        lev.setncatts({"units": "1", "long_name": "vertical model levels"})
        lev[:] = [1]
        for name, values in fields.items():
            dims = ("time", "lev", "lat", "lon") if values.ndim == 4 else ("time", "lat", "lon")
            variable = file.createVariable(name, "f4", dims, zlib=True, complevel=3)
            variable.setncatts({"units": "m" if name == "pres" else "m/s", "missing_value": np.float32(-999999)})
            variable[:] = values
    (folder / "parameters.txt").write_text("Parameters")
    (folder / "progress.txt").write_text("Starting SpeedyWeather.jl run")
    return path


def write_speedy_tree(root: Path, runs: dict[str, int], frames: int = 6, rows: int = 6, columns: int = 8) -> dict:
    """``{train,valid,test}/seed=NNNNNN/runNNNN/output.nc``; the fields of every run by its folder."""
    written = {}
    for mode, count in runs.items():
        for number in range(count):
            folder = root / mode / f"seed={97373 if number % 2 else 197910}" / f"run{number // 2 + 1:04d}"
            written[folder] = speedy_fields(100 * len(written), frames, rows, columns)
            write_speedy_run(folder, written[folder])
    return written


def write_converted(folder: Path, mode: str, shards: list[list[dict[str, np.ndarray]]]) -> None:
    """``MODE_i.h5``, group ``MODE``: variables alone, without times and places."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, runs in enumerate(shards):
        with h5py.File(folder / f"{mode}_{number}.h5", "w") as file:
            group = file.create_group(mode)
            for name in runs[0]:
                group.create_dataset(name, data=np.stack([run[name] for run in runs]))


def write_normstats(path: Path, runs: list[dict[str, np.ndarray]]) -> Path:
    """Over runs and times at each point, as ``scripts/compute_normalization.py`` takes them."""
    stats = {}
    for name in ("pres", "u", "v", "vor"):
        values = torch.from_numpy(np.stack([run[name] for run in runs]))
        stats[name] = {"mean": values.mean((0, 1)), "std": values.std((0, 1), correction=0)}
    torch.save(stats, path)
    return path


def compressible_fields(seed: int, count: int, frames: int, nx: int, ny: int) -> dict[str, np.ndarray]:
    shape = (count, frames, nx, ny, 1)
    names = ("D", "Vx", "Vy", "P")
    fields = {name: random_fields(seed + number, *shape) for number, name in enumerate(names)}
    return fields | {name: 1 + np.abs(fields[name]) for name in ("D", "P")}


def write_compressible(
    folder: Path, mode: str, batches: dict[str, dict[str, np.ndarray]], down_rate: int = 4, name: str = CFD_NAME
) -> Path:
    """One file of a split; x and y are those of the finer grid, and t has one entry more than there are frames."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name.format(mode=mode)
    with h5py.File(path, "a") as file:
        group = file.require_group(mode)
        for key, fields in batches.items():
            batch = group.create_group(key)
            _, frames, nx, ny, _ = fields["D"].shape
            for field, values in fields.items():
                batch.create_dataset(field, data=values, dtype=float)
            for axis, points in (("x", nx * down_rate), ("y", ny * down_rate)):
                batch.create_dataset(axis, data=(np.arange(points) + 0.5) / points, dtype=float)
            # Made in single precision, stored in double.
            batch.create_dataset("t", data=np.arange(frames + 1, dtype=np.float32) * np.float32(0.05), dtype=float)
    return path

"""Small files in PDEBench's published layouts: names, groups, types, attributes, storage, and the extra time."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

AXES = ("x", "y", "z")
# What the authors' generators write beside the values, cut to what is of use.
CONFIG = """work_dir: /somewhere
data_dir: data
name: {name}
sim:
{sim}
plot:
  t_idx: 1.0
  dim: 2
dataverse:
  lib_name: pyDaRUS
  metadatablocks:
    citation:
      author:
      - name: Somebody
        affiliation: Universität Stuttgart
"""


def centers(low, high, cells):
    """Of even cells, in single precision."""
    return (low + (high - low) * (np.arange(cells) + 0.5) / cells).astype(np.float32)


def wave(kind, number, times, *lines):
    """Values ``(time, *space)`` that differ by channel, run, time and axis, and are positive."""
    value = 3.0 + kind + 0.1 * number + 0.5 * times.reshape(-1, *(1,) * len(lines))
    for axis, line in enumerate(lines):
        shape = [1] * (len(lines) + 1)
        shape[axis + 1] = len(line)
        value = value + 0.2 * np.sin(2 * np.pi * (axis + 1) * (line.astype(np.float64) + 0.1)).reshape(shape)
    return value.astype(np.float32)


def compressible_arrays(dimension=2, trajectories=10, frames=5, points=8, interval=0.05, extra=1, low=0.0, high=1.0):
    """As `Data_Merge.py` writes them; the generator numbers one time more than it saves frames."""
    sizes = [points + 2 * axis for axis in range(dimension)]
    lines = [centers(low, high, size) for size in sizes]
    times = (np.arange(frames + extra) * np.float32(interval)).astype(np.float32)
    names = ["density", *(f"V{axis}" for axis in AXES[:dimension]), "pressure"]
    arrays = {
        name: np.stack([wave(kind, number, times[:frames], *lines) for number in range(trajectories)])
        for kind, name in enumerate(names)
    }
    return arrays | {f"{axis}-coordinate": line for axis, line in zip(AXES, lines, strict=False)} | {
        "t-coordinate": times
    }  # fmt: skip


def write_flat(path: Path, arrays, attributes, **storage) -> Path:
    """Arrays and attributes at the root, each array in one piece unless told otherwise."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **(storage if np.ndim(values) > 1 else {}))
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


def write_compressible(folder: Path, name=None, arrays=None, attributes=None, storage=None, **options) -> Path:
    arrays = compressible_arrays(**options) if arrays is None else arrays
    dimension = arrays["density"].ndim - 2 if "density" in arrays else 2
    mach = "" if dimension == 1 else "M0.1_"
    name = f"{dimension}D_CFD_Rand_{mach}Eta0.01_Zeta1.e-2_periodic_8_Train.hdf5" if name is None else name
    stated = {"eta": 0.01, "zeta": 0.01} | ({"M": 0.1} if dimension > 1 else {})
    return write_flat(folder / name, arrays, stated if attributes is None else attributes, **(storage or {}))


def line_arrays(trajectories=10, frames=6, points=16, interval=0.01, extra=1):
    x = centers(0.0, 1.0, points)
    times = (np.arange(frames + extra) * np.float32(interval)).astype(np.float32)
    tensor = np.stack([wave(0, number, times[:frames], x) for number in range(trajectories)])
    return {"tensor": tensor, "x-coordinate": x, "t-coordinate": times}


LINES = {
    "advection": ("1D_Advection_Sols_beta0.4.hdf5", {"beta": 0.4}),
    "burgers": ("1D_Burgers_Sols_Nu0.001.hdf5", {"Nu": 0.001}),
    "reaction_diffusion": ("ReacDiff_Nu0.5_Rho2.0.hdf5", {"Nu": 0.5, "rho": 2.0}),
}


def write_line(folder: Path, equation="advection", name=None, arrays=None, attributes=None, **options) -> Path:
    published, stated = LINES[equation]
    arrays = line_arrays(**options) if arrays is None else arrays
    return write_flat(
        folder / (published if name is None else name), arrays, stated if attributes is None else attributes
    )


GROUPS = {
    "shallow_water": ("2D_rdb_NA_NA.h5", 2, 1, (-2.5, 2.5), 1.0),
    "diffusion_reaction": ("2D_diff-react_NA_NA.h5", 2, 2, (-1.0, 1.0), 5.0),
    "diffusion_sorption": ("1D_diff-sorp_NA_NA.h5", 1, 1, (0.0, 1.0), 500.0),
}
SIMULATION = {
    "shallow_water": "  T_end: 1.0\n  gravity: 1.0\n  dam_radius: {radius}\n  inner_height: 2.0\n  seed: {seed}",
    "diffusion_reaction": "  Du: 0.001\n  Dv: 5E-3\n  k: 0.005\n  t: 5\n  seed: {seed}",
    "diffusion_sorption": (
        "  D: 0.0005\n  por: 0.29\n  rho_s: 2880\n  k_f: 0.00035\n  n_f: 0.874\n  sol: 1.0\n  t: 500\n  seed: {seed}"
    ),
}


def dam_radius(seed):
    return 0.3 + 0.01 * seed


def group_values(problem, seed, frames=5, points=8):
    """``data (time, *space, channel)`` and the lines of one run."""
    _, dimension, channels, (low, high), end = GROUPS[problem]
    lines = [centers(low, high, points + 2 * axis) for axis in range(dimension)]
    times = np.linspace(0.0, end, frames).astype(np.float32)
    scaled = (times / end).astype(np.float32)
    data = np.stack([wave(kind, seed, scaled, *lines) for kind in range(channels)], -1)
    return data, lines, times


def write_groups(folder: Path, problem="shallow_water", seeds=range(10), name=None, config=True, edit=None, **sizes):
    """Runs in the order of ``seeds``: workers finish in any order. ``edit(file)`` changes the open file at the end."""
    path = folder / (GROUPS[problem][0] if name is None else name)
    packed = {} if problem == "shallow_water" else {"compression": "lzf"}
    with h5py.File(path, "w", track_order=True) as file:
        for seed in seeds:
            data, lines, times = group_values(problem, seed, **sizes)
            group = f"{seed:04d}"
            file.create_dataset(f"{group}/data", data=data, dtype="float32", **packed)
            for axis, line in zip(AXES, lines, strict=False):
                file.create_dataset(f"{group}/grid/{axis}", data=line, dtype="float32", **packed)
            file.create_dataset(f"{group}/grid/t", data=times, dtype="float32", **packed)
            text = CONFIG.format(name=path.stem, sim=SIMULATION[problem].format(seed=seed, radius=dam_radius(seed)))
            if config and problem == "diffusion_sorption":
                file.attrs[f"{group}/config"] = text
            elif config:
                file[group].attrs["config"] = text
        if edit is not None:
            edit(file)
    return path


FLOW_CONFIG = """sim_name: ns_incom_inhom_2d_512
domain_size:
- 1
- 1
grid_size:
- 512
- 512
velocity_extrapolation: ZERO
NU: 0.01
seed: {seed}
n_steps: 100000
DT: 5.0e-05
frame_int: 100
n_batch: {runs}
"""


def flow_arrays(seed, runs=2, frames=6, points=(8, 12)):
    random = np.random.default_rng(seed)
    space = tuple(points)
    return {
        "velocity": random.standard_normal((runs, frames, *space, 2)).astype(np.float32),
        "particles": random.standard_normal((runs, frames, *space, 1)).astype(np.float32),
        "force": random.standard_normal((runs, *space, 2)).astype(np.float32),
        "t": np.broadcast_to(np.linspace(0, 0.005 * frames, frames, endpoint=False), (runs, frames)).astype(np.float32),
    }


def write_flow(folder: Path, seed=0, number=None, arrays=None, latest=None, config=True, **sizes) -> Path:
    """``ns_incom_inhom_2d_512-N.h5``: chunks of one frame, shuffled and packed by LZF."""
    arrays = flow_arrays(seed, **sizes) if arrays is None else arrays
    path = folder / f"ns_incom_inhom_2d_512-{seed if number is None else number}.h5"
    with h5py.File(path, "w") as file:
        if config:
            file.attrs["config"] = FLOW_CONFIG.format(seed=seed, runs=len(arrays["velocity"]))
        file.attrs["latestIndex"] = arrays["velocity"].shape[1] - 1 if latest is None else latest
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="lzf", shuffle=True, chunks=(1, 1, *values.shape[2:]))
    return path

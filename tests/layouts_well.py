"""Files in the layout of The Well, written by hand as its page on the data format says."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

SIZES = {"x": 8, "y": 5}
SPACING = {"x": 0.25, "y": 0.2}
CHANNELS = (
    "pressure", "density", "profile", "velocity_x", "velocity_y", "D_xx", "D_xy", "D_yx", "D_yy", "amplitude",
)  # fmt: skip


def write_well_file(path: Path, *, trajectories: int = 3, frames: int = 6, seed: int = 0, **storage) -> np.ndarray:
    """A file with a field of every kind; what it means as ``(trajectory, time, channel, x, y)``, float32.

    x is periodic, y has a wall at its low and an open high end. ``pressure`` varies with everything, ``density`` not in
    time, ``profile`` only in time and along y; ``velocity`` is a vector, ``D`` a tensor; of the scalars ``viscosity``
    varies from trajectory to trajectory, ``gamma`` with nothing, ``amplitude`` in time; ``drag`` is a number of the
    root.

    Args:
        storage: of the fields, as h5py has it: ``chunks``, ``compression``, ``dtype``.
    """
    random = np.random.default_rng(seed)
    lead, space = (trajectories, frames), tuple(SIZES.values())
    values = {
        "pressure": random.standard_normal((*lead, *space)),
        "density": random.uniform(1, 2, (trajectories, *space)),
        "profile": random.standard_normal((frames, space[1])),
        "velocity": random.standard_normal((*lead, *space, 2)),
        "D": random.standard_normal((*lead, *space, 2, 2)),
    }
    values = {name: array.astype(np.float32) for name, array in values.items()}
    amplitude = random.standard_normal(frames).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"] = "example"
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = 2
        file.attrs["n_trajectories"] = trajectories
        file.attrs["simulation_parameters"] = ["gamma", "drag", "gas"]
        file.attrs["gamma"], file.attrs["drag"], file.attrs["gas"] = 1.4, 0.125, "ideal"
        _write_dimensions(file.create_group("dimensions"), frames)
        conditions = file.create_group("boundary_conditions")
        write_condition(conditions, "x_periodic", ["x"], "PERIODIC", ends("x", 0, -1))
        write_condition(conditions, "y_low", ["y"], "wall", ends("y", 0))
        write_condition(conditions, "y_high", ["y"], "OPEN", ends("y", -1))
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["viscosity", "gamma", "amplitude"]
        write_scalar(scalars, "viscosity", 0.5 + np.arange(trajectories), sample_varying=True)
        write_scalar(scalars, "gamma", np.asarray(1.4))
        write_scalar(scalars, "amplitude", amplitude, time_varying=True)
        groups = [file.create_group(f"t{order}_fields") for order in range(3)]
        for group, names in zip(groups, (["pressure", "density", "profile"], ["velocity"], ["D"]), strict=True):
            group.attrs["field_names"] = names
        write_field(groups[0], "pressure", values["pressure"], **storage)
        write_field(groups[0], "density", values["density"], time_varying=False, **storage)
        write_field(groups[0], "profile", values["profile"], sample_varying=False, dims=[False, True], **storage)
        write_field(groups[1], "velocity", values["velocity"], **storage)
        write_field(groups[2], "D", values["D"], **storage)
    tensors = [values["D"][..., i, j] for i in range(2) for j in range(2)]
    channels = [
        values["pressure"], values["density"][:, None], values["profile"][:, None],
        values["velocity"][..., 0], values["velocity"][..., 1], *tensors, amplitude[:, None, None],
    ]  # fmt: skip
    return np.stack([np.broadcast_to(channel, (*lead, *space)) for channel in channels], axis=2)


def write_field(group, name, values, *, sample_varying=True, time_varying=True, dims=(True, True), **storage):
    array = group.create_dataset(name, data=values.astype(storage.pop("dtype", values.dtype)), **storage)
    array.attrs["dim_varying"] = list(dims)
    array.attrs["sample_varying"], array.attrs["time_varying"] = sample_varying, time_varying
    if group.name.endswith("t2_fields"):
        array.attrs["symmetric"] = array.attrs["antisymmetric"] = False


def write_scalar(group, name, values, *, sample_varying=False, time_varying=False):
    group[name] = values
    group[name].attrs["sample_varying"], group[name].attrs["time_varying"] = sample_varying, time_varying


def write_condition(group, name, axes, kind, mask, *, sample_varying=False, time_varying=False):
    condition = group.create_group(name)
    condition.attrs["associated_dims"] = axes
    condition.attrs["associated_fields"] = []
    condition.attrs["bc_type"] = kind
    condition.attrs["sample_varying"], condition.attrs["time_varying"] = sample_varying, time_varying
    condition["mask"] = mask


def ends(axis, *places):
    """A mask along an axis that is true in these places."""
    mask = np.zeros(SIZES[axis], dtype=bool)
    mask[list(places)] = True
    return mask


def _write_dimensions(group, frames):
    group.attrs["spatial_dims"] = list(SIZES)
    group["time"] = 0.1 * np.arange(frames, dtype=np.float32)
    group["time"].attrs["sample_varying"] = False
    for axis, size in SIZES.items():
        group[axis] = SPACING[axis] * np.arange(size, dtype=np.float32)
        group[axis].attrs["sample_varying"] = group[axis].attrs["time_varying"] = False

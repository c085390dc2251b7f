"""Small trees in the layout of CFDBench, with flows that look like what their files say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

# The base cases of the paper.
BASE = {
    "cavity": {"vel_top": 10.0, "density": 1.0, "viscosity": 1e-5, "height": 0.01, "width": 0.01},
    "tube": {"vel_in": 1.0, "density": 100.0, "viscosity": 0.1, "height": 0.1, "width": 1.0},
    "dam": {
        "case_no": 0.0, "velocity": 1.0, "density": 100.0, "viscosity": 0.1, "barrier_height": 0.1,
        "barrier_width": 0.05, "height": 0.4, "width": 1.5, "dx": 0.0234375, "dy": 0.00625,
    },
    "step": {
        "velocity": 1.0, "density": 1.0, "viscosity": 0.01, "barrier_height": 0.3, "barrier_width": 0.3, "height": 1.0,
        "width": 4.0, "dx": 0.0625, "dy": 0.015625, "dt_frame": 0.2,
    },
    "cylinder": {
        "vel_in": 1.0, "density": 10.0, "viscosity": 0.001, "x_min": -0.06, "x_max": 0.16, "y_min": -0.06,
        "y_max": 0.06, "radius": 0.01,
    },
}  # fmt: skip


def frames_of(problem, values, frames=5, rows=64, columns=64, seed=0):
    """Velocities ``(time, rows, columns)`` that grow in time: fastest under the lid, or a stream between walls."""
    generator = np.random.default_rng(seed)
    y = (np.arange(rows) + 0.5) / rows
    x = (np.arange(columns) + 0.5) / columns
    grow = np.linspace(0.5, 1.0, frames)[:, None, None] + 0.01 * generator.standard_normal((frames, 1, 1))
    if problem == "cavity":
        u, speed = y**4, values["vel_top"]
    else:
        speed = values.get("vel_in", values.get("velocity"))
        u = np.where(x < 1.5 / columns, 1.2, 4 * (y * (1 - y))[:, None])
    u = np.broadcast_to(u if np.ndim(u) == 2 else u[:, None], (rows, columns))
    v = 0.1 * np.sin(np.pi * x) * np.sin(np.pi * y)[:, None]
    return speed * grow * (u * resting(problem, values, rows, columns)), speed * grow * v * resting(
        problem, values, rows, columns
    )


def resting(problem, values, rows, columns):
    """1 in the fluid and 0 in the body, written out."""
    fluid = np.ones((rows, columns))
    if problem == "cylinder":
        x0, x1, y0, y1 = (values[key] for key in ("x_min", "x_max", "y_min", "y_max"))
        for row in range(rows):
            for column in range(columns):
                x, y = x0 + (column + 0.5) * (x1 - x0) / columns, y0 + (row + 0.5) * (y1 - y0) / rows
                fluid[row, column] = x * x + y * y > values["radius"] ** 2
    if problem in ("dam", "step"):
        left = values.get("step_position", 0.5)
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) * values["width"] / columns, (row + 0.5) * values["height"] / rows
                inside = left <= x <= left + values["barrier_width"] and y <= values["barrier_height"]
                fluid[row, column] = not inside
    return fluid


def write_case(root, problem, subset="bc", name="case0000", frames=5, rows=64, columns=64, seed=0, **changes) -> Path:
    """One case; ``changes`` of ``case.json``, ``None`` takes a key away."""
    folder = Path(root) / problem / subset / name
    folder.mkdir(parents=True)
    values = {key: value for key, value in {**BASE[problem], **changes}.items() if value is not None}
    (folder / "case.json").write_text(json.dumps(values, indent=2))
    u, v = frames_of(problem, {**BASE[problem], **values}, frames, rows, columns, seed)
    np.save(folder / "u.npy", u)
    np.save(folder / "v.npy", v)
    return folder


def write_tree(root, problem, bc=10, prop=5, geo=4, **options) -> Path:
    """Cases of all subsets, numbered on, of 4 to 7 frames; returns ``root``."""
    number = 0
    for subset, count in (("bc", bc), ("prop", prop), ("geo", geo)):
        for _ in range(count):
            frames = options.get("frames", 4 + number % 4)
            rest = {key: value for key, value in options.items() if key != "frames"}
            write_case(root, problem, subset, f"case{number:04d}", frames, seed=number, **rest)
            number += 1
    return Path(root)

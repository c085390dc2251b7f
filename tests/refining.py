"""A tiny data set with its recipe, and an untrained surrogate of it, to be refined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pdesurrogate.data.archive import Archive
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.simulators.recipe import generate, parse_recipe
from pdesurrogate.steppers.surrogate import Surrogate

HISTORY, BLOCK = 4, 4
TRAINING = {"seed": 0, "settings": {"loss": "none"}, "steps": 0, "epochs": 0, "wall_time_s": 1.0, "device": "cpu"}


def tiny_recipe(**changes: Any) -> dict[str, Any]:
    """Decaying vortices on 16 x 16, in double precision; ``changes`` are to arguments of the solver."""
    solver = {"resolution": 16, "viscosity": 1e-2, "frame_interval": 0.1, "steps_per_frame": 4, "precision": "float64"}
    return {
        "name": "tiny",
        "simulator": {
            "class_path": "pdesurrogate.simulators.navier_stokes.NavierStokes2d",
            "init_args": {**solver, **changes},
        },
        "initial_condition": {
            "class_path": "pdesurrogate.simulators.random_fields.McWilliams",
            "init_args": {"peak_wavenumber": 2.0},
        },
        "frames": 14,
        "trajectories": {"train": 0, "val": 2, "test": 3},
        "seed": 0,
        "warm_up": 0.5,
    }


def tiny_archive(folder: Path, stored: int | None = None, **changes: Any) -> Archive:
    """The data of `tiny_recipe`, perhaps stored on fewer points."""
    recipe, plain = parse_recipe({**tiny_recipe(**changes), "resolution": stored})
    generate(recipe, plain, folder)
    return Archive(folder)


def tiny_surrogate(metadata: Metadata) -> Surrogate:
    """Four frames to four, with weights as they are drawn."""
    torch.manual_seed(0)
    network = SFNO(
        history_frames=HISTORY, target_frames=BLOCK, modes=(3, 3, 2), width=5, layers=2, latent_frames=HISTORY
    )
    return Surrogate(network, metadata, history_frames=HISTORY).eval()

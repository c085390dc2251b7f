"""A small turbulent flow, its solver, and predictors of it: what the tests of the refiner share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import McWilliams
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate

BOX = (2 * math.pi, 2 * math.pi)
SIZE = 16
INTERVAL = 0.1
HISTORY = 4


def solver(**changes: Any) -> NavierStokes2d:
    """Four steps of ETDRK4 a frame, in double precision."""
    options = {"resolution": SIZE, "viscosity": 1e-2, "frame_interval": INTERVAL, "steps_per_frame": 4}
    return NavierStokes2d(**{**options, "precision": "float64", **changes})


def flow(frames: int, batch: int = 2, march: NavierStokes2d | None = None) -> Tensor:
    """The solver's own frames ``(batch, time, 1, x, y)``, inside its mask from the first on."""
    march = solver() if march is None else march
    generator = torch.Generator().manual_seed(0)
    start = McWilliams().sample(batch, (SIZE, SIZE), BOX, generator).unsqueeze(1)
    return marched(march, march.step(start, march.context(batch)), frames)


def marched(march: Any, start: Tensor, frames: int) -> Tensor:
    """The frames that the solver gives after the last one of ``start``."""
    return torch.cat(list(rollout(march, start, march.context(len(start)), frames)), 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth_noise(like: Tensor, amplitude: float, seed: int = 1) -> Tensor:
    """Of the given size beside the fields, inside the solver's mask."""
    march = solver()
    found = march.to_field(march.to_spectrum(noise(*like.shape, seed=seed).flatten(0, 2))).view(like.shape)
    return found * (amplitude * like.std() / found.std())


def errors(frames: Tensor, truth: Tensor) -> Tensor:
    """Relative L2 of each sample, ``(batch,)``."""
    return (frames - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


class Given:
    """A stepper that predicts the given frames ``(batch, time, 1, x, y)``, whatever came before."""

    history_frames = 1

    def __init__(self, frames: Tensor, metadata: Metadata | None = None) -> None:
        self.frames = frames
        self.metadata = solver().metadata if metadata is None else metadata

    def step(self, history: Tensor, context: Context) -> Tensor:
        return self.frames


def network(**changes: Any) -> SFNO:
    """A small network, untrained but for a head that predicts a wrong change."""
    torch.manual_seed(0)
    sizes = {"history_frames": HISTORY, "latent_frames": HISTORY, "modes": (4, 4, 3), "width": 8, "layers": 2}
    built = SFNO(**{**sizes, **changes})
    torch.nn.init.normal_(built.head.weight, std=0.3)
    torch.nn.init.normal_(built.head.bias, std=0.1)
    return built


def surrogate(**changes: Any) -> Surrogate:
    """It in double precision behind statistics that are not 0 and 1."""
    built = Surrogate(network(**changes), solver().metadata, history_frames=changes.get("history_frames", HISTORY))
    built.normalizer.set_statistics(torch.tensor([0.2]), torch.tensor([1.5]))
    return built.double().eval()

"""A tiny chaotic "flow" between walls that is watched while it runs, and what a recipe can put around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Axis, Channel, Grid
from pdesurrogate.simulators.generation.protocols import Gathering, Simulator, StoredFrames


class Diagnostics(NamedTuple):
    cfl: Tensor
    energy: Tensor


class WatchedFlow:
    """Coupled logistic maps: a difference in the last bit grows to order one within some 50 steps."""

    def __init__(
        self, points: int = 6, steps_per_frame: int = 4, bad_step: int = -1, largest_cfl: float = 10.0
    ) -> None:
        self.points = points
        self.steps_per_frame = steps_per_frame
        self.bad_step = bad_step
        self.largest_cfl = largest_cfl
        self.frame_interval = 0.1 * steps_per_frame
        self.grid = Grid((Axis("x", period=1.0), Axis("y")))
        self.channels = (Channel("value", location="cell"), Channel("age", location="cell"))
        self.dtypes: set[torch.dtype] = set()

    @property
    def shape(self) -> tuple[int, ...]:
        return (4, self.points)

    @property
    def time_step(self) -> float:
        return self.frame_interval / self.steps_per_frame

    @property
    def parameters_by_name(self) -> dict[str, float]:
        return {"viscosity": 1e-2}

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        places = (torch.arange(self.points, dtype=torch.float64) + 0.5) / self.points
        return (torch.arange(4, dtype=torch.float64) + 0.5) / 4, places.square()

    def require_stable(self, state: Tensor) -> None:
        if float(state[:, 1].max()) / 10 > self.largest_cfl:
            raise ValueError(f"the CFL number is over {self.largest_cfl:g}.")

    def advance(self, state: Tensor, steps: int) -> Tensor:
        self.require_stable(state)
        self.dtypes.add(state.dtype)
        value, age = state.unbind(1)
        for _ in range(steps):
            mixed = 0.9 * value + 0.1 * value.roll(1, -1)
            value, age = 3.9 * mixed * (1 - mixed), age + 1
            if self.bad_step >= 0:
                value = torch.where(age == self.bad_step, torch.inf, value)
        return torch.stack([value, age], 1)

    def diagnostics(self, state: Tensor) -> Diagnostics:
        return Diagnostics(state[:, 1].amax((-2, -1)) / 10, state[:, 0].square().mean((-2, -1)))

    def doubts(self, diagnostics: Any) -> str:
        return "the flow fell asleep" if float(diagnostics.energy.min()) < 0.01 else ""


class RandomStart:
    def __init__(self, largest: float = 1.0) -> None:
        self.largest = largest

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        value = self.largest * torch.rand(count, *simulator.shape, dtype=torch.float64, generator=generator)
        return torch.stack([value, torch.zeros_like(value)], 1)


class Pairs:
    """Means over pairs of points along y, of the first channel."""

    def on(self, simulator: Simulator) -> StoredFrames:
        return _Pairs(simulator)


class _Pairs:
    def __init__(self, simulator: Any) -> None:
        self.channels = simulator.channels[:1]
        x, y = simulator.coordinates
        self.attributes = {"walls": [0.0, 1.0]}
        self.coordinates = (x, y.unflatten(0, (-1, 2)).mean(-1))

    def apply(self, state: Tensor) -> Tensor:
        return state[:, :1].unflatten(-1, (-1, 2)).mean(-1)


class MeanOfAll:
    def __init__(self, every: int = 2) -> None:
        self.every = every

    def on(self, simulator: Simulator) -> Gathering:
        return _Sum()

    def save(self, simulator: Simulator, gathered: list[dict[str, Any]], path: str) -> None:
        counts = sum(each["count"] for each in gathered)
        total = sum(each["total"].sum().item() for each in gathered)
        Path(path).write_text(json.dumps({"count": counts, "total": total}))

    def load(self, simulator: Simulator, path: str) -> dict[str, Any]:
        found = json.loads(Path(path).read_text())
        return {"count": found["count"], "total": torch.tensor(found["total"], dtype=torch.float64)}


class _Sum:
    def __init__(self) -> None:
        self.count, self.total = 0, torch.zeros((), dtype=torch.float64)

    def update(self, state: Tensor) -> None:
        self.count += len(state)
        self.total = self.total + state[:, 0].sum()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.total = state["count"], state["total"]


def watched_recipe(**changes: Any) -> dict[str, Any]:
    """The plain form of a recipe of this flow; ``flow`` holds changes of its arguments."""
    flow = changes.pop("flow", {})
    return {
        "name": "watched",
        "simulator": {"class_path": "watched_flow.WatchedFlow", "init_args": flow},
        "initial_condition": {"class_path": "watched_flow.RandomStart"},
        "reduction": {"class_path": "watched_flow.Pairs"},
        "statistics": {"class_path": "watched_flow.MeanOfAll"},
        "frames": 6,
        "trajectories": {"train": 3, "val": 1, "test": 0},
        "seed": 5,
        "warm_up": 1.0,
        "block": 2,
        **changes,
    }

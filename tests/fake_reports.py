"""Reports as an evaluation writes them, with chosen figures; they fit the schema."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdesurrogate.evaluation.cost import BreakEven, Performance, SolverPoint, SolverSweep, SpeedUp
from pdesurrogate.evaluation.report import SCHEMA_VERSION, Report
from pdesurrogate.leaderboard import Source

LEAD_TIMES = np.asarray([0.5, 1.0, 1.5])


def fake_score(
    value: float | None,
    *,
    spread: float | None = None,
    interval: list[float] | None = None,
    units: str = "1",
    higher_is_better: bool = False,
) -> dict[str, Any]:
    about = {"units": units, "higher_is_better": higher_is_better, "description": "a score"}
    return {"value": value, "spread": spread, "interval": interval, **about}


def fake_point(resolution: int, error: float, seconds: float, *, steps: int = 4, makes_data: bool = False):
    """A setting of a solver; an error that is not a number stands for one that blew up."""
    return SolverPoint(resolution, steps, 1 / steps, "float32", Performance((error,), seconds), makes_data)


# The front is 16, 32, 64 and, dashed, 128 points a side; 48 is dominated and 8 blew up.
SWEEP = SolverSweep(
    (
        fake_point(8, math.nan, 5e-5),
        fake_point(16, 0.8, 1e-4),
        fake_point(32, 0.4, 2e-4),
        fake_point(48, 0.5, 4e-4),
        fake_point(64, 0.2, 8e-4),
        fake_point(128, 0.02, 6.4e-3, makes_data=True),
    ),
    ((12, "needs more steps than the data"),),
    "the largest stable time step",
)


def fake_cost(
    speed_up: float | None = None,
    rollouts: int | None = None,
    *,
    bound: bool = False,
    reason: str = "why the speed-up is so",
    break_even_reason: str = "why the break-even is so",
    interval: tuple[float | None, float | None] | None = None,
    rollouts_interval: tuple[int | None, int | None] | None = None,
    sweep: SolverSweep | None = SWEEP,
    seconds: float = 0.002,
    memory: int | None = 29_400_000,
) -> dict[str, Any]:
    """The section ``cost``; ``bound`` makes an upper bound of the speed-up and a lower one of the break-even."""
    solver = None if speed_up is None else speed_up * seconds
    gained = SpeedUp(
        speed_up,
        reason,
        bound,
        interval,
        None if speed_up is None else 0.3,
        solver,
        None if speed_up is None else seconds,
        () if speed_up is None else ("32 points a side",),
    )
    back = BreakEven(rollouts, break_even_reason, 3, bound and rollouts is not None, rollouts_interval, 60.0, 30.0)
    return {
        "seconds_per_frame": seconds,
        "time_scatter": 1.1,
        "peak_memory_bytes": memory,
        "module_bytes": 4_000_000,
        "sweep": None if sweep is None else sweep.to_dict(),
        "speed_up": gained.to_dict(),
        "break_even": back.to_dict(),
    }


def fake_report(
    error: float | None = 0.5,
    *,
    model: str = "FNO",
    kind: str = "surrogate",
    config: dict[str, Any] | None = None,
    seed: int = 0,
    steps: int = 10,
    checkpoint: dict[str, str] | None = None,
    checks: tuple[dict[str, Any], ...] = (),
    scores: dict[str, Any] | None = None,
    cost: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    **data: Any,
) -> Report:
    """A report of three trajectories on "waves"; ``error`` is its relative L2, further scores and facts are added."""
    training = {
        "seed": seed,
        "settings": {"max_steps": steps},
        "steps": steps,
        "epochs": 1,
        "wall_time_s": 60.0 + seed,
        "device": "cpu",
    }
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "name": model,
            "kind": kind,
            "class_path": "package.Model",
            "config": config or {},
            "parameters": 1234567,
            "parameters_without_gradient": [],
            "checkpoint": checkpoint,
            "training": training if kind == "surrogate" else None,
        },
        "data": {
            "name": "waves",
            "split": "test",
            "content_hash": "0" * 64,
            "channels": ["vorticity"],
            "shape": [16, 16],
            "periods": [2 * math.pi, 2 * math.pi],
            "frame_interval": 0.5,
            "trajectories": 3,
            "trajectories_declared": 3,
            "start_frame": 1,
            "frames": len(LEAD_TIMES),
            "recipe": None,
            **data,
        },
        "run": {
            "command": "pdesurrogate evaluate",
            "seed": seed,
            "versions": {"torch": "2.13.0"},
            "git_commit": None,
            "device": "cpu",
            "precision": "float32",
            "threads": 1,
            "processes": 1,
            "wall_time_s": 1.0,
            "seconds_per_frame": 0.002,
            "metric_seconds_per_frame": 0.0001,
            "batch_size": 2,
            "created": "2026-01-01T00:00:00+00:00",
            **(run or {}),
        },
        "cost": cost,
        "scores": {"relative_l2": fake_score(error), **(scores or {})},
        "checks": list(checks),
    }
    growth = (math.nan if error is None else error) * LEAD_TIMES[:, None] * np.ones((3, 1, 1))
    curves = xr.Dataset(
        {
            "relative_l2": (("trajectory", "lead_time", "channel"), growth, _about("relative L2 error")),
            "finite": (("trajectory", "lead_time"), np.ones(growth.shape[:2]), _about("finite")),
        },
        coords={"lead_time": ("lead_time", LEAD_TIMES, {"units": "1"}), "channel": ["vorticity"]},
    )
    return Report(attributes, curves)


def fake_source(name: str, error: float | None = 0.5, *, directory: Path = Path("nowhere"), **details: Any) -> Source:
    """A report and where it was found; the details are those of `fake_report`."""
    return Source(name, directory, fake_report(error, **details))


def _about(long_name: str) -> dict[str, str]:
    return {"long_name": long_name, "units": "1"}

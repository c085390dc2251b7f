"""Small reports with known curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pdesurrogate.evaluation.report import Report

LEAD_TIMES = np.asarray([0.5, 1.0, 1.5, 2.0])
WAVENUMBERS = np.arange(12.0)


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """``make_report(errors (trajectory, lead_time, channel), name=..., seed=...)``; energy ``amplitude / k^3``.

    ``curves`` adds variables ``name: (dims, values, units)``, ``labels`` the labels along their dimensions.
    """
    return _make_report


def _make_report(
    errors: Any = 0.1,
    *,
    name: str = "FNO",
    kind: str = "surrogate",
    config: dict[str, Any] | None = None,
    seed: int = 0,
    amplitude: float = 1.0,
    alive: list[int] | None = None,
    curves: Mapping[str, tuple[tuple[str, ...], Any, str]] | None = None,
    labels: Mapping[str, Any] | None = None,
    **data: Any,
) -> Report:
    errors = np.broadcast_to(np.asarray(errors, dtype=float), (3, len(LEAD_TIMES), 2))
    spectrum = np.zeros((len(LEAD_TIMES), len(WAVENUMBERS)))
    spectrum[:, 1:] = WAVENUMBERS[1:] ** -3.0
    spectral = ("lead_time", "wavenumber")
    further = {name: (dims, values, _about(name, units)) for name, (dims, values, units) in (curves or {}).items()}
    measured = xr.Dataset(
        {
            "relative_l2": (("trajectory", "lead_time", "channel"), errors, _about("relative L2 error")),
            "finite": (("trajectory", "lead_time"), np.ones(errors.shape[:2]), _about("finite")),
            "energy_spectrum_truth": (spectral, spectrum, _about("energy spectrum of the truth", "length^3/time^2")),
            "spectrum_trajectories": (("lead_time",), np.asarray(alive or [3, 3, 3, 3]), _about("trajectories")),
            "energy_spectrum_prediction": (spectral, amplitude * spectrum, _about("energy spectrum")),
            **further,
        },
        coords={
            "lead_time": ("lead_time", LEAD_TIMES, _about("lead time", "s")),
            "wavenumber": ("wavenumber", WAVENUMBERS, _about("wavenumber", "1/m")),
            "channel": ["u", "v"],
            **(labels or {}),
        },
    )
    facts = {
        "name": "waves",
        "split": "test",
        "content_hash": "0" * 64,
        "shape": [16, 16],
        "periods": [2 * math.pi, 2 * math.pi],
        "start_frame": 1,
        "frames": len(LEAD_TIMES),
        "trajectories": 3,
        **data,
    }
    model = {
        "name": name,
        "kind": kind,
        "class_path": "package.Model",
        "config": config or {},
        "training": {"seed": seed},
    }
    return Report(attributes={"model": model, "data": facts}, curves=measured)


def _about(long_name: str, units: str = "1") -> dict[str, str]:
    return {"long_name": long_name, "units": units}

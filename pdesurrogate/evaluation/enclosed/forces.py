"""Drag and lift of a body as coefficients over time, and how often the lift swings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdesurrogate.metrics.forces import dominant_frequency


@dataclass(frozen=True, eq=False)
class ForceCoefficients:
    """Coefficients ``2 F / (density velocity^2 diameter)`` of a body, at even times.

    Attributes:
        times: ``(time,)``.
        drag: ``(time,)``, along x.
        lift: ``(time,)``, along y.
        convective_time: diameter over velocity.

    Raises:
        ValueError: if lengths differ or times are not even.
    """

    times: NDArray[np.float64]
    drag: NDArray[np.float64]
    lift: NDArray[np.float64]
    convective_time: float

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("times", "drag", "lift")}
        if len(set(shapes.values())) != 1 or self.times.ndim != 1 or len(self.times) < 2:
            raise ValueError(f"Expected times, drag and lift of one length (time,), at least two, but got {shapes}.")
        gaps = np.diff(self.times)
        if not (gaps.min() > 0 and np.allclose(gaps, gaps[0], rtol=1e-6)):
            raise ValueError(f"Expected even times but their steps are from {gaps.min():g} to {gaps.max():g}.")

    @classmethod
    def of_forces(
        cls,
        times: Tensor | Sequence[float],
        drag: Tensor | Sequence[float],
        lift: Tensor | Sequence[float],
        *,
        density: float,
        velocity: float,
        diameter: float,
    ) -> ForceCoefficients:
        """From forces per depth ``(time,)``, such as those of `EnclosedFlow.diagnostics`.

        Args:
            times: even.
            drag: force along x.
            lift: force along y.
            density: of the fluid.
            velocity: reference, such as the mean over the inlet.
            diameter: of the body.

        Example:
            >>> found = ForceCoefficients.of_forces([0, 1], [1, 1], [0, 0], density=2, velocity=1, diameter=0.5)
            >>> found.drag.tolist(), found.convective_time
            ([2.0, 2.0], 0.5)
        """
        unit = density * velocity**2 * diameter / 2
        when, along, across = (
            torch.as_tensor(each, dtype=torch.float64).detach().cpu().numpy() for each in (times, drag, lift)
        )
        return cls(when, along / unit, across / unit, diameter / velocity)

    def after(self, time: float) -> ForceCoefficients:
        """What comes at this time and later, where a start is forgotten.

        Raises:
            ValueError: if that is less than two times.
        """
        kept = self.times >= time
        return ForceCoefficients(self.times[kept], self.drag[kept], self.lift[kept], self.convective_time)

    @property
    def strouhal_number(self) -> float:
        """``frequency diameter / velocity`` of the lift; see `dominant_frequency`.

        Raises:
            ValueError: if there are fewer than eight times.
        """
        frequency = dominant_frequency(torch.from_numpy(self.lift), float(self.times[1] - self.times[0]))
        return float(frequency) * self.convective_time

"""What an incompressible flow keeps or balances: momentum, mean vorticity, energy, enstrophy, no divergence.

Velocities are ``(batch, time, 2, x, y)``, vorticities ``(batch, time, 1, x, y)``; weights are quadrature weights that
broadcast to them (``None`` where all points count alike); results are ``(batch, time)`` in float64 unless said.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import (
    Flow,
    RolloutMetric,
    Variable,
    at_least_float32,
    box_mean,
    require_flow,
)
from pdesurrogate.physics.operators import divergence


def mean_vorticity(vorticity: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of the vorticity over the box; its circulation per area."""
    return box_mean(vorticity, weights)[..., 0]


def momentum(velocity: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean velocity over the box ``(batch, time, 2)``: the momentum per mass."""
    return box_mean(velocity, weights)


def kinetic_energy(velocity: Tensor, weights: Tensor | None = None) -> Tensor:
    """Box mean of ``|u|^2 / 2``.

    Example:
        >>> import torch
        >>> kinetic_energy(torch.tensor([3.0, 4.0]).reshape(1, 1, 2, 1, 1).expand(1, 1, 2, 8, 8)).item()
        12.5
    """
    return box_mean(at_least_float32(velocity).square(), weights).sum(-1) / 2


def enstrophy(vorticity: Tensor, weights: Tensor | None = None) -> Tensor:
    """Box mean of ``w^2 / 2``."""
    return box_mean(at_least_float32(vorticity).square(), weights)[..., 0] / 2


def divergence_rms(velocity: Tensor, periods: Sequence[float], weights: Tensor | None = None) -> Tensor:
    """Root mean square of the spectral divergence of velocities at evenly spaced points."""
    values = divergence(at_least_float32(velocity), periods).unsqueeze(2)
    return box_mean(values.square(), weights)[..., 0].sqrt()


class ConservationMetric(RolloutMetric):
    """Drift of the flow's integrals, of prediction and truth; both counted from the truth's first predicted frame.

    Energy and enstrophy drifts are relative to their own value there. The mean vorticity (of vorticity data) and the
    momentum (of velocity data, where it is the norm of the vector) may be zero, so their drifts are relative to the
    root mean square of vorticity and velocity. The other one of the two is fixed by the periodic box whatever a model
    does, and is not reported. Points must be evenly spaced.

    Args:
        metadata: of the data set.
        trajectories: number of trajectories in all.
        frames: number of predicted frames.

    Raises:
        ValueError: if the data are not a plane periodic flow.
    """

    def __init__(self, metadata: Metadata, trajectories: int, frames: int) -> None:
        super().__init__(metadata, trajectories, frames)
        self.flow = require_flow(metadata, "drifts of energy and enstrophy")
        for side in ("prediction", "truth"):
            self.add_curve(f"energy_{side}")
            self.add_curve(f"enstrophy_{side}")
            if self.flow.given == "vorticity":
                self.add_curve(f"mean_vorticity_{side}")
            else:
                self.add_curve(f"momentum_{side}", 2)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        meanings = {"energy": "kinetic energy, relative", "enstrophy": "enstrophy, relative"}
        if self.flow.given == "vorticity":
            meanings["mean_vorticity"] = "mean vorticity, relative to its root mean square"
        else:
            meanings["momentum"] = "mean velocity, relative to the root mean square velocity"
        return {
            f"drift_{name}{suffix}": Variable(("trajectory", "lead_time"), "1", f"drift of the {side}'s {meaning}")
            for name, meaning in meanings.items()
            for suffix, side in (("", "prediction"), ("_truth", "truth"))
        }

    def update(
        self, prediction: Tensor, target: Tensor, first_frame: int, trajectories: Tensor, context: Context
    ) -> None:
        """Measure one block; see `RolloutMetric`."""
        for side, fields in (("prediction", prediction), ("truth", target)):
            for name, values in _integrals(self.flow, fields).items():
                self.write(f"{name}_{side}", values, first_frame, trajectories)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        initial_energy = self.curve("energy_truth")[:, :1]
        initial_enstrophy = self.curve("enstrophy_truth")[:, :1]
        drifts = {}
        for suffix, side in (("", "prediction"), ("_truth", "truth")):
            drifts[f"drift_energy{suffix}"] = self.curve(f"energy_{side}") / initial_energy - 1
            drifts[f"drift_enstrophy{suffix}"] = self.curve(f"enstrophy_{side}") / initial_enstrophy - 1
            if self.flow.given == "vorticity":
                shift = self.curve(f"mean_vorticity_{side}") - self.curve("mean_vorticity_truth")[:, :1]
                drifts[f"drift_mean_vorticity{suffix}"] = shift / (2 * initial_enstrophy).sqrt()
            else:
                vector = self.curve(f"momentum_{side}") - self.curve("momentum_truth")[:, :1]
                drifts[f"drift_momentum{suffix}"] = vector.square().sum(-1).sqrt() / (2 * initial_energy).sqrt()
        return drifts


def _integrals(flow: Flow, fields: Tensor) -> dict[str, Tensor]:
    # Equal weights: the points are even, and weights taken from coordinates in single precision would carry round-off
    # of 1e-5 into means that should stay zero.
    velocity, vorticity = flow.velocity_and_vorticity(fields)
    integrals = {"energy": kinetic_energy(velocity), "enstrophy": enstrophy(vorticity)}
    if flow.given == "vorticity":
        return integrals | {"mean_vorticity": mean_vorticity(vorticity)}
    return integrals | {"momentum": momentum(velocity)}


class DivergenceMetric(RolloutMetric):
    """`divergence_rms` of prediction and truth; only for data that hold a velocity, evenly spaced.

    Args:
        metadata: of the data set.
        trajectories: number of trajectories in all.
        frames: number of predicted frames.

    Raises:
        ValueError: if the data are not a plane periodic flow given by its velocity.
    """

    def __init__(self, metadata: Metadata, trajectories: int, frames: int) -> None:
        super().__init__(metadata, trajectories, frames)
        self.flow = require_flow(metadata, "the divergence")
        if self.flow.given != "velocity":
            raise ValueError(
                "Expected velocity data for the divergence; that of a vorticity's velocity is always zero."
            )
        self.add_curve("divergence")
        self.add_curve("divergence_truth")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims = ("trajectory", "lead_time")
        return {
            "divergence": Variable(dims, self.flow.vorticity_units, "root mean square divergence of the prediction"),
            "divergence_truth": Variable(dims, self.flow.vorticity_units, "root mean square divergence of the truth"),
        }

    def update(
        self, prediction: Tensor, target: Tensor, first_frame: int, trajectories: Tensor, context: Context
    ) -> None:
        """Measure one block; see `RolloutMetric`."""
        for name, fields in (("divergence", prediction), ("divergence_truth", target)):
            values = divergence_rms(self.flow.select(fields), self.flow.periods)
            self.write(name, values, first_frame, trajectories)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        return {name: self.curve(name) for name in ("divergence", "divergence_truth")}

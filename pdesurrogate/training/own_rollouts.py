"""Training on what a surrogate makes of its own rollouts: by their statistics, as there is no truth beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.fields.batch import Batch, map_context
from pdesurrogate.fields.grid import Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.training.losses import Loss

# Frames that follow a history ``(batch, time, channel, *space)``, with their gradients.
Forecast = Callable[[Tensor, Context, int], Tensor]


class OwnRollouts:
    """Goes on with rollouts of the surrogate in training and holds them to the statistics of the data.

    A surrogate that was trained from true frames meets, in a long rollout, states that no true frame has led to, and
    what it does there was never asked of it. Here a set of states is kept. Each training step takes as many of them as
    the batch has samples, rolls them on by a few frames with gradients, compares these frames with the batch's true
    ones by a loss of statistics, and puts the last of them back. So states grow as old as training is long, at the cost
    of a few frames a step. A state that has left the bounds begins anew from the batch, and so does one now and then.

    That chaotic flow is to be learned by its invariant statistics where trajectories cannot be followed is Jiang et
    al.'s (NeurIPS 2023, arXiv:2306.01187); they compare windows of the data. Keeping the model's own states from step
    to step is how persistent contrastive divergence trains energy models (Tieleman, ICML 2008).

    Where several processes train each keeps states of its own; a checkpoint holds those of the first.

    Args:
        statistics: that the frames are compared by; it must not know which true frame belongs to which, such as
            `LogLineSpectrum` averaged over the batch, or `PlaneMoments`.
        weight: of this loss beside that of the forecast.
        states: kept, best several times as many as a batch has samples.
        frames: rolled on in a step.
        renewal: probability that a state begins anew when it is taken.
        bounds: of values in a state; one that leaves them begins anew.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(
        self,
        statistics: Loss,
        weight: float = 0.5,
        states: int = 64,
        frames: int = 4,
        renewal: float = 0.02,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        if states < 1 or frames < 1 or not weight > 0 or not 0 <= renewal <= 1:
            raise ValueError(
                "Expected states >= 1, frames >= 1, weight > 0 and renewal within [0, 1] but got "
                f"{states}, {frames}, {weight} and {renewal}."
            )
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"Expected bounds (low, high) with low < high but got {bounds}.")
        self.statistics = statistics
        self.weight = weight
        self.states = states
        self.frames = frames
        self.renewal = renewal
        self.bounds = bounds
        self._kept: Batch | None = None
        self._ages = torch.zeros(states, dtype=torch.long)

    def loss(self, forecast: Forecast, batch: Batch, deviation: Tensor, grid: Grid) -> Tensor:
        """Weighted distance of the rolled-on frames' statistics from those of the batch's true frames.

        Args:
            forecast: of the surrogate.
            batch: of true frames.
            deviation: that fields are divided by, as the statistics expect them.
            grid: of the data.
        """
        if self._kept is None:
            self._kept = _rows(batch, torch.arange(self.states, device=batch.history.device) % len(batch.history))
        kept = self._kept
        taken = torch.randperm(self.states)[: len(batch.history)].to(batch.history.device)
        anew = torch.arange(len(taken), device=taken.device)[self._begin_anew(kept.history[taken])]
        _put(kept, taken[anew], _rows(batch, anew))
        ages = self._ages.to(taken.device)
        ages[taken[anew]] = 0
        begun = _rows(kept, taken)
        made = forecast(begun.history, begun.context, self.frames)
        distance = self.statistics.distance(made / deviation, batch.target / deviation, begun.context, grid)
        latest = torch.cat([begun.history, made.detach()], 1)[:, -begun.history.shape[1] :]
        kept.history[taken] = latest
        ages[taken] += self.frames
        self._ages = ages
        # A state may overflow within a few frames; its gradient would spoil the weights, so this step goes without.
        return self.weight * distance if bool(torch.isfinite(distance)) else torch.zeros_like(distance)

    def _begin_anew(self, histories: Tensor) -> Tensor:
        """``(batch,)``: which states are not to be gone on with."""
        lowest, highest = histories.flatten(1).aminmax(dim=1)
        fine = torch.isfinite(lowest) & torch.isfinite(highest)
        if self.bounds is not None:
            fine &= (lowest >= self.bounds[0]) & (highest <= self.bounds[1])
        return ~fine | (torch.rand(len(histories)).to(fine.device) < self.renewal)

    @property
    def mean_age(self) -> float:
        """Frames since a state's beginning, the mean of all."""
        return float(self._ages.double().mean())

    def state_dict(self) -> dict[str, Any]:
        """States, their contexts and ages, in tensors and plain values; empty before the first step."""
        if self._kept is None:
            return {}
        context = self._kept.context
        return {
            "history": self._kept.history,
            "coordinates": list(context.coordinates),
            "context": list(context[1:]),
            "ages": self._ages,
        }

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        if not stored:
            self._kept = None
            return
        history = stored["history"]
        self._kept = Batch(history, history[:, :0], Context(tuple(stored["coordinates"]), *stored["context"]))
        self._ages = stored["ages"]


def _rows(batch: Batch, rows: Tensor) -> Batch:
    """Copies of some samples, without their targets."""
    history = batch.history[rows].detach().clone()
    return Batch(history, history[:, :0], map_context(lambda leaf: leaf[rows].clone(), batch.context))


def _put(kept: Batch, rows: Tensor, samples: Batch) -> None:
    """Samples in the place of others."""
    kept.history[rows] = samples.history
    for own, other in zip(_leaves(kept.context), _leaves(samples.context), strict=True):
        own[rows] = other


def _leaves(context: Context) -> list[Tensor]:
    return [leaf for leaf in (*context.coordinates, *context[1:]) if leaf is not None]

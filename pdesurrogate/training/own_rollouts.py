"""Training on what a surrogate makes of its own rollouts: by their statistics, as there is no truth beside them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pdesurrogate.fields.batch import Batch
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
            `LogLineSpectrum` averaged over the batch, or `PlaneMoments`. The data are of one flow on one grid: states
            of one viscosity are not to be held to the statistics of another.
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
        self._kept: Tensor | None = None
        self._ages = torch.zeros(states, dtype=torch.long)
        self._flow: list[Tensor] | None = None

    def loss(self, forecast: Forecast, batch: Batch, deviation: Tensor, grid: Grid) -> Tensor:
        """Weighted distance of the rolled-on frames' statistics from those of the batch's true frames.

        Args:
            forecast: of the surrogate.
            batch: of true frames.
            deviation: that fields are divided by, as the statistics expect them.
            grid: of the data.

        Raises:
            ValueError: if a batch has more samples than there are states, or samples are not of one flow on one grid.
        """
        self._require_fit(batch)
        given, device = batch.history.detach(), batch.history.device
        if self._kept is None:
            self._kept = given[torch.arange(self.states, device=device) % len(given)].clone()
        # What a checkpoint brought lies on the CPU.
        self._kept, self._ages = self._kept.to(device), self._ages.to(device)
        taken = torch.randperm(self.states)[: len(given)].to(device)
        anew = self._begin_anew(self._kept[taken])
        begun = torch.where(anew.reshape(-1, *(1,) * (given.ndim - 1)), given, self._kept[taken])
        made = forecast(begun, batch.context, self.frames)
        distance = self.statistics.distance(made / deviation, batch.target / deviation, batch.context, grid)
        self._kept[taken] = torch.cat([begun, made.detach()], 1)[:, -given.shape[1] :]
        self._ages[taken] = torch.where(anew, 0, self._ages[taken]) + self.frames
        # A state may overflow within a few frames; its gradient would spoil the weights, so this step goes without.
        return self.weight * distance if bool(torch.isfinite(distance)) else torch.zeros_like(distance)

    def _require_fit(self, batch: Batch) -> None:
        """Samples must be as few as states, and all of the flow of the first one ever seen."""
        if len(batch.history) > self.states:
            raise ValueError(
                f"Expected batches of at most {self.states} samples, as many as there are states, but got "
                f"{len(batch.history)}; keep more states."
            )
        leaves = [leaf for leaf in (*batch.context.coordinates, *batch.context[1:]) if leaf is not None]
        if self._flow is None:
            self._flow = [leaf[:1] for leaf in leaves]
        if not all(bool((leaf == one).all()) for leaf, one in zip(leaves, self._flow, strict=True)):
            raise ValueError(
                "Expected one grid and the same parameters in all samples for own rollouts, whose statistics are those "
                "of one flow, but they differ; train on one flow at a time."
            )

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

    def state_dict(self) -> dict[str, Tensor]:
        """States ``(states, time, channel, *space)`` and their ages; empty before the first step."""
        return {} if self._kept is None else {"history": self._kept, "ages": self._ages}

    def load_state_dict(self, stored: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            ValueError: if it holds another number of states.
        """
        if not stored:
            self._kept = None
            return
        if len(stored["history"]) != self.states:
            raise ValueError(
                f"Expected {self.states} states, as configured, but the checkpoint has {len(stored['history'])}."
            )
        self._kept, self._ages = stored["history"], stored["ages"]

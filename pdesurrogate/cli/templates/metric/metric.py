"""The measure as a pure function, and a thin class that streams rollouts through it."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.metrics.base import RolloutMetric, Score, Variable
from pdesurrogate.metrics.block import Block, at_least_float32, box_mean
from pdesurrogate.metrics.plan import RolloutPlan


def template_metric(
    prediction: Tensor, target: Tensor, tolerance: float = 0.5, weights: Tensor | None = None
) -> Tensor:
    """Share of the box where the prediction errs by more than ``tolerance`` deviations of the target.

    Args:
        prediction: ``(batch, time, channel, *space)``, physical units.
        target: the true frames, same shape.
        tolerance: in units of the target's standard deviation over the box.
        weights: quadrature weights that broadcast to the frames; ``None`` where all points count alike.

    Returns:
        ``(batch, time, channel)`` in float64, between 0 and 1; NaN where a rollout was stopped.

    Example:
        >>> target = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 1, 4)
        >>> template_metric(target + torch.tensor([0.0, 0.0, 0.0, 2.0]), target).item()
        0.25
    """
    truth = at_least_float32(target)
    mean = box_mean(truth, weights)
    mean = mean.reshape(*mean.shape, *(1,) * (truth.ndim - mean.ndim))
    deviation = box_mean((truth - mean).square(), weights).sqrt()
    error = (at_least_float32(prediction) - truth).abs()
    missed = error > tolerance * deviation.reshape(mean.shape)
    # A comparison with NaN is false, and a stopped rollout must not pass for an exact one.
    return box_mean(torch.where(error.isfinite(), missed.to(error.dtype), torch.nan), weights)


class TemplateMetric(RolloutMetric):
    """`template_metric` by trajectory, lead time and channel, and its mean as a score.

    Args:
        plan: what is going to be measured.
        tolerance: in units of the truth's standard deviation over the box.

    Raises:
        ValueError: if the tolerance is negative.
    """

    def __init__(self, plan: RolloutPlan, tolerance: float = 0.5) -> None:
        super().__init__(plan)
        if not tolerance >= 0:
            raise ValueError(f"Expected a tolerance >= 0 but got {tolerance}.")
        self.tolerance = tolerance
        self.add_curve("missed", len(plan.metadata.channels))

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        text = f"share of the box that errs by more than {self.tolerance:g} deviations"
        return {"template_metric": Variable(("trajectory", "lead_time", "channel"), "1", text)}

    @property
    def scores(self) -> dict[str, Score]:
        """The number for tables."""
        text = f"share of the box that errs by more than {self.tolerance:g} deviations"
        return {"template_metric": Score("template_metric", f"{text}, mean over lead time and channels")}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        shares = template_metric(block.prediction.values, block.target.values, self.tolerance, block.weights)
        self.write("missed", shares, block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        return {"template_metric": self.curve("missed")}

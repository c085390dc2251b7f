"""The scores of CFDBench (arXiv:2310.05963), each with the averaging that its figures have.

``NMSE`` is the mean squared error over the mean square of the truth. The paper's tables give the mean of the ratios of
single frames, in which frames near rest count most; its training takes one ratio for a whole batch. The two differ by
orders of magnitude where a frame is almost zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pdesurrogate.metrics.base import RolloutMetric, Score, Variable, shared_units
from pdesurrogate.metrics.block import Block, box_mean
from pdesurrogate.metrics.plan import RolloutPlan

Averaging = Literal["frames", "batch"]
Compat = Literal["none", "reference"]
Alignment = Literal["frames", "reference"]


class Scores(NamedTuple):
    """Scores in float64, of frames or of a mean over them.

    Attributes:
        nmse: mean squared error over the mean square of the truth.
        mse: mean squared error, in squared units of the fields.
        rmse: its root.
        mae: mean absolute error, in units of the fields.
    """

    nmse: Tensor
    mse: Tensor
    rmse: Tensor
    mae: Tensor


def frame_scores(prediction: Tensor, target: Tensor, mask: Tensor | None = None, compat: Compat = "none") -> Scores:
    """Scores ``(...)`` of each frame ``(..., channel, x, y)``, over all its channels together.

    Args:
        prediction: ``(..., channel, x, y)``.
        target: likewise.
        mask: ``(..., x, y)``, true where there is fluid; what broadcasts will do. Other cells do not count.
        compat: with ``"reference"`` other cells count as if prediction and target were zero there, so that errors are
            smaller by the share of the fluid, as in the authors' code. The NMSE is the same.

    Returns:
        With an ``nmse`` of NaN where the target is zero throughout; in the authors' code it is infinite there, or NaN
        if the prediction is exact.

    Raises:
        ValueError: if shapes differ, or a mask has no fluid.

    Example:
        >>> target = torch.tensor([3.0, 4.0]).reshape(1, 1, 2)
        >>> [float(each) for each in frame_scores(target + 1, target)]
        [0.08, 1.0, 1.0, 1.0]
    """
    if prediction.shape != target.shape or prediction.ndim < 3:
        raise ValueError(
            f"Expected prediction and target (..., channel, x, y) of one shape but got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}."
        )
    error, truth = (prediction - target).to(torch.float64), target.to(torch.float64)
    share = error.new_ones(())
    if mask is not None:
        fluid = (mask > 0).unsqueeze(-3)
        if not bool(fluid.flatten(-2).any(-1).all()):
            raise ValueError("Expected fluid in every mask but one has none; leave its case out.")
        error, truth = (torch.where(fluid, each, 0.0) for each in (error, truth))
        if compat == "none":
            share = fluid.to(torch.float64).mean((-3, -2, -1))
    axes = (-3, -2, -1)
    mse, mae, square = error.square().mean(axes) / share, error.abs().mean(axes) / share, truth.square().mean(axes)
    nmse = mse * share / square
    if compat == "none":
        nmse = torch.where(square > 0, nmse, torch.nan)
    return Scores(nmse, mse, mse.sqrt(), mae)


def mean_scores(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    averaging: Averaging = "frames",
    compat: Compat = "none",
) -> Scores:
    """Scores of some frames ``(frame, channel, x, y)`` as single numbers.

    Args:
        prediction: ``(frame, channel, x, y)``.
        target: likewise.
        mask: ``(frame, x, y)`` or ``(x, y)``, true where there is fluid.
        averaging: ``"frames"`` gives the mean over frames of their `frame_scores`, as the paper's tables do, where
            frames whose truth is zero throughout have no NMSE and are left out of its mean. ``"batch"`` takes all
            frames as one, as the authors' loss does.
        compat: see `frame_scores`; also, no frame is left out.

    Returns:
        With an ``nmse`` of NaN if no frame has one.

    Raises:
        ValueError: as `frame_scores`, and for another averaging.

    Example:
        >>> target = torch.tensor([1.0, 0.001]).reshape(2, 1, 1, 1)
        >>> prediction = target + 0.1
        >>> [round(float(mean_scores(prediction, target, averaging=each).nmse), 2) for each in ("frames", "batch")]
        [5000.0, 0.02]
    """
    if averaging == "batch":
        line = (1, 1, -1)
        counted = None if mask is None else mask.unsqueeze(-3).expand(prediction.shape).reshape(1, -1)
        return frame_scores(prediction.reshape(line), target.reshape(line), counted, compat)
    if averaging != "frames":
        raise ValueError(f"Expected averaging 'frames' or 'batch' but got {averaging!r}.")
    each = frame_scores(prediction, target, mask, compat)
    return Scores(*((score.mean() if compat == "reference" else score.nanmean()) for score in each))


def multi_step_scores(
    prediction: Tensor,
    truth: Sequence[Tensor],
    mask: Tensor | None = None,
    stride: int = 1,
    alignment: Alignment = "frames",
) -> Scores:
    """Scores ``(step,)`` of rollouts that start from the first frame of each case; means over cases.

    Args:
        prediction: ``(case, step, channel, x, y)``, the first step being the first predicted frame.
        truth: of each case ``(frame, channel, x, y)``, the frame that the rollout starts from in front.
        mask: ``(case, x, y)``, true where there is fluid.
        stride: frames of the truth from one step to the next.
        alignment: ``"frames"`` compares step ``k``, counted from 0, with frame ``(k + 1) * stride``, and a case counts
            as long as it has frames. With ``"reference"`` it is what the authors' code does: step ``k`` with frame
            ``k``, whatever the stride, a case that is too short goes on with its last frame, and `frame_scores` are
            those of the reference. Persistence then has no error at step 0, and an exact model has one.

    Returns:
        NaN at steps that no case has.

    Raises:
        ValueError: if shapes do not fit together, for a stride below 1, or another alignment.

    Example:
        >>> truth = torch.arange(5.0).reshape(5, 1, 1, 1)
        >>> float(multi_step_scores(truth[None, 1:], [truth]).mse.sum())
        0.0
        >>> multi_step_scores(truth[None, 1:], [truth], alignment="reference").mae.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if prediction.ndim != 5 or len(truth) != len(prediction) or stride < 1:
        raise ValueError(
            "Expected a prediction (case, step, channel, x, y), truth for each case and a stride of at least 1 but got "
            f"{tuple(prediction.shape)}, truth for {len(truth)} and {stride}."
        )
    if alignment not in ("frames", "reference"):
        raise ValueError(f"Expected alignment 'frames' or 'reference' but got {alignment!r}.")
    steps = torch.arange(prediction.shape[1])
    # Row by row of a table (case, step); no value where a case has ended.
    tables = Scores(*(prediction.new_full(prediction.shape[:2], torch.nan, dtype=torch.float64) for _ in range(4)))
    for case, frames in enumerate(truth):
        where = steps.clamp(max=len(frames) - 1) if alignment == "reference" else (steps + 1) * stride
        known = int((where < len(frames)).sum())
        compat: Compat = "reference" if alignment == "reference" else "none"
        fluid = None if mask is None else mask[case]
        found = frame_scores(prediction[case, :known], frames[where[:known]], fluid, compat)
        for table, values in zip(tables, found, strict=True):
            table[case, :known] = values
    return Scores(*(table.mean(0) if alignment == "reference" else table.nanmean(0) for table in tables))


class CFDBenchErrorMetric(RolloutMetric):
    """`frame_scores` of rollouts by lead time, over some channels together, cells weighted by their volume.

    Args:
        plan: what is going to be measured.
        channels: names of the channels; all if not given. The paper's are the first velocity, or both.

    Raises:
        ValueError: for a channel that the data do not have, or channels of different units.
    """

    def __init__(self, plan: RolloutPlan, channels: Sequence[str] | None = None) -> None:
        super().__init__(plan)
        names = plan.metadata.channel_names
        self.channels = tuple(names if channels is None else channels)
        missing = sorted(set(self.channels) - set(names))
        if missing or not self.channels:
            raise ValueError(f"Expected channels among {names} but got {self.channels}.")
        places = [names.index(name) for name in self.channels]
        self._units = shared_units([plan.metadata.channels[place].units for place in places])
        if "," in self._units:
            raise ValueError(
                f"Expected channels of the same units, as their errors are added, but got {self._units} of "
                f"{self.channels}; name those to measure."
            )
        self._places = places
        for name in ("error_square", "error_magnitude", "target_square"):
            self.add_curve(name)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        curve = ("trajectory", "lead_time")
        return {
            "nmse": Variable(curve, "1", "mean squared error over the mean square of the truth"),
            "mse": Variable(curve, f"({self._units})2", "mean squared error"),
            "mae": Variable(curve, self._units, "mean absolute error"),
        }

    @property
    def scores(self) -> dict[str, Score]:
        """Means over lead times."""
        return {
            name: Score(name, f"{variable.long_name}, mean over lead times")
            for name, variable in self.variables.items()
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        error, target = block.error.values[:, :, self._places], block.target.values[:, :, self._places]
        measured = {"error_square": error.square(), "error_magnitude": error.abs(), "target_square": target.square()}
        for name, values in measured.items():
            self.write(name, box_mean(values, block.weights).mean(-1), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        error, target = self.curve("error_square"), self.curve("target_square")
        nmse = torch.where(target > 0, error / target, torch.nan)
        return {"nmse": nmse, "mse": error, "mae": self.curve("error_magnitude")}

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
        fluid = _fluid(mask)
        error, truth = (torch.where(fluid, each, 0.0) for each in (error, truth))
        if compat == "none":
            share = fluid.to(torch.float64).mean((-3, -2, -1))
    axes = (-3, -2, -1)
    mse, mae, square = error.square().mean(axes) / share, error.abs().mean(axes) / share, truth.square().mean(axes)
    nmse = mse * share / square
    if compat == "none":
        nmse = torch.where(square == 0, torch.nan, nmse)
    return Scores(nmse, mse, mse.sqrt(), mae)


def at_rest(target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Whether the truth of a frame is zero throughout its fluid, so that it has no NMSE; bool ``(...)``.

    Which frames count in a mean NMSE follows from this alone. The prediction must not decide, else a network that blows
    up would be spared its worst frames.

    Args:
        target: ``(..., channel, x, y)``.
        mask: see `frame_scores`.

    Raises:
        ValueError: if a mask has no fluid.

    Example:
        >>> at_rest(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)).tolist()
        [True, False]
    """
    truth = target.to(torch.float64)
    if mask is not None:
        truth = torch.where(_fluid(mask), truth, 0.0)
    return truth.square().mean((-3, -2, -1)) == 0


def _fluid(mask: Tensor) -> Tensor:
    """Of all channels, ``(..., 1, x, y)``."""
    fluid = (mask > 0).unsqueeze(-3)
    if not bool(fluid.flatten(-2).any(-1).all()):
        raise ValueError("Expected fluid in every mask but one has none; leave its case out.")
    return fluid


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
        NaN where a prediction that counts is; an ``nmse`` of NaN too if no frame has one.

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
    nmse = each.nmse if compat == "reference" else each.nmse[~at_rest(target, mask)]
    return Scores(nmse.mean(), each.mse.mean(), each.rmse.mean(), each.mae.mean())


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
            those of the reference. Persistence then has no error at step 0, and an exact model has one. Theirs are
            scores of the first velocity alone, so give that; and the list of their ResNet begins with its input,
            which has to be put in front of the prediction.

    Returns:
        NaN at steps that no case has, and from where on a prediction that counts is. Frames whose truth is zero
        throughout are left out of the mean NMSE, but not with the alignment of the reference.

    Raises:
        ValueError: if shapes do not fit together, for a stride below 1, another alignment, or a case without frames.

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
    empty = [case for case, frames in enumerate(truth) if len(frames) == 0]
    if empty:
        raise ValueError(
            f"Expected truth with the frame that a rollout starts from but case {empty[0]} has no frame; leave it out."
        )
    compat: Compat = "reference" if alignment == "reference" else "none"
    steps = torch.arange(prediction.shape[1])
    # Row by row of a table (case, step), zero where nothing is known.
    sums = Scores(*(prediction.new_zeros(prediction.shape[:2], dtype=torch.float64) for _ in range(4)))
    known, ratios = (prediction.new_zeros(prediction.shape[:2], dtype=torch.bool) for _ in range(2))
    for case, frames in enumerate(truth):
        where = steps.clamp(max=len(frames) - 1) if alignment == "reference" else (steps + 1) * stride
        count = int((where < len(frames)).sum())
        targets, fluid = frames[where[:count]], None if mask is None else mask[case]
        known[case, :count] = True
        ratios[case, :count] = True if compat == "reference" else ~at_rest(targets, fluid)
        for table, values in zip(sums, frame_scores(prediction[case, :count], targets, fluid, compat), strict=True):
            table[case, :count] = values
    nmse = torch.where(ratios, sums.nmse, 0.0).sum(0) / ratios.sum(0)
    return Scores(nmse, *(table.sum(0) / known.sum(0) for table in sums[1:]))


class CFDBenchErrorMetric(RolloutMetric):
    """`frame_scores` of rollouts by lead time, over some channels together, cells weighted by their volume.

    Frames whose truth is zero throughout have no NMSE and are left out of its score, which is the mean over the others
    of a trajectory. A trajectory that was stopped has no score, nor has one that is at rest throughout.

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
            "mean_nmse": Variable(
                ("trajectory",), "1", "mean squared error over the mean square of the truth, mean over lead times"
            ),
            "mse": Variable(curve, f"({self._units})2", "mean squared error"),
            "mae": Variable(curve, self._units, "mean absolute error"),
        }

    @property
    def scores(self) -> dict[str, Score]:
        """Means over lead times."""
        labels = self.variables
        means = {name: Score(name, f"{labels[name].long_name}, mean over lead times") for name in ("mse", "mae")}
        return {"nmse": Score("mean_nmse", labels["mean_nmse"].long_name), **means}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        error, target = block.error.values[:, :, self._places], block.target.values[:, :, self._places]
        measured = {"error_square": error.square(), "error_magnitude": error.abs(), "target_square": target.square()}
        for name, values in measured.items():
            self.write(name, box_mean(values, block.weights).mean(-1), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        error, target = self.curve("error_square"), self.curve("target_square")
        # By the truth alone: the error of a stopped prediction is NaN, which the mean keeps.
        moving = target != 0
        nmse = torch.where(moving, error / target, torch.nan)
        mean = torch.where(moving, nmse, 0.0).sum(1) / moving.sum(1)
        return {"nmse": nmse, "mean_nmse": mean, "mse": error, "mae": self.curve("error_magnitude")}

"""Whether a rollout obeys the equation: the residual that is left when a solver steps the rollout's own frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable, shared_units
from pdesurrogate.metrics.block import Block, Fields
from pdesurrogate.metrics.errors import require_spectra
from pdesurrogate.metrics.flow import joint_units
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.norms import sobolev_symbol
from pdesurrogate.physics.residuals import March, one_interval_defect
from pdesurrogate.physics.spectral import WaveSums

_SIDES = ("prediction", "truth")


class _Before(NamedTuple):
    """Last frame ``(batch, 1, channel, *space)`` of the block before, of the batch that is being measured."""

    next_frame: int
    trajectories: Tensor
    prediction: Tensor
    truth: Tensor


class ResidualMetric(RolloutMetric):
    """Norm of the PDE residual, as the `one_interval_defect` of a march, by lead time.

    Norms are those of ``H^order`` with ``alpha = (2 pi / longest side)^2``, as in `SobolevErrorMetric`. The default
    order -1 makes of a vorticity's residual, up to alpha, that of its velocity in the L2 norm. The relative residual is
    over the norm of the truth's own tendency ``(w_{j+1} - w_j) / interval``: a frozen rollout has about one, and below
    one a rollout moves more like the equation than not. Where the truth stands still it is infinite.

    It says whether each step obeys the equation, not whether the rollout is near the truth; a rollout on another
    trajectory of the same equation has none. An interval is measured between two predicted frames, and carries the lead
    time of the later one; the step from the last given frame to the first predicted one is left out, as blocks do not
    hold given frames. The truth's own residual shows how well the march reproduces the solver of the data, and the
    round-off of stored frames.

    The metric costs one step of the march for each frame of prediction and truth: as much as two solver runs. Blocks of
    a batch must be given in order, one batch after the other.

    Args:
        plan: what is going to be measured; evenly spaced, without a mask, two frames at least.
        march: the solver; its step must be the plan's frame interval.
        order: of the Sobolev norm.

    Raises:
        ValueError: if the points are not evenly spaced, there is a mask, or fewer than two frames.
    """

    def __init__(self, plan: RolloutPlan, march: March, order: float = -1.0) -> None:
        super().__init__(plan)
        require_spectra(plan, "residual norms")
        if plan.frames < 2:
            raise ValueError(f"Expected at least two frames for a residual but got {plan.frames}; roll out further.")
        self.march = march
        self.order = order
        alpha = (2 * torch.pi / max(plan.wave_periods)) ** 2
        self.sums = WaveSums(sobolev_symbol(plan.wave_shape, plan.wave_periods, order, alpha)[None], plan.wave_shape)
        for name in (*_SIDES, "tendency"):
            self.add_curve(name, len(plan.metadata.channels))
        self.add_state("mixed_up", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self._before: _Before | None = None

    mixed_up: Tensor

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims = ("trajectory", "interval", "channel")
        metadata = self.plan.metadata
        length = metadata.grid.axes[0].units
        rates = [joint_units(channel.units, metadata.time_units, "/") for channel in metadata.channels]
        power = length if self.order == -1 or length == "1" else f"{length}^{-self.order:g}"
        units = shared_units([rate if self.order == 0 else joint_units(rate, power, " ") for rate in rates])
        text = f"norm in H^{self.order:g} of the residual of the"
        variables = {}
        for side in _SIDES:
            variables[f"residual_{side}"] = Variable(dims, units, f"{text} {side}")
            variables[f"relative_residual_{side}"] = Variable(
                dims, "1", f"{text} {side}, relative to that of the truth's tendency"
            )
        return variables

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Lead time at which each interval ends."""
        ends = torch.arange(2, self.plan.frames + 1, dtype=torch.float64) * self.plan.metadata.frame_interval
        return {"interval": Coordinate(ends, self.plan.metadata.time_units, "lead time at the end of the interval")}

    @property
    def scores(self) -> dict[str, Score]:
        """Relative residual of both: the truth's is the least that the march can find."""
        text = "norm of the PDE residual over that of the truth's tendency, mean over intervals and channels"
        return {
            "relative_residual": Score("relative_residual_prediction", text),
            "relative_residual_truth": Score("relative_residual_truth", f"{text}, of the truth"),
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`.

        Raises:
            ValueError: if the block does not follow the one before of the same batch.
        """
        prediction, truth = self._continued(block)
        intervals = truth.shape[1] - 1
        # Nothing ends at the very first frame.
        missing = truth.new_full((len(truth), block.frames - intervals, truth.shape[2]), torch.nan)
        differences = {}
        if intervals:
            interval = self.plan.metadata.frame_interval
            # One frame at a time: memory does not grow with the length of a block.
            differences = {
                "prediction": one_interval_defect(prediction, block.context, self.march, interval, frames_at_once=1),
                "truth": one_interval_defect(truth, block.context, self.march, interval, frames_at_once=1),
                "tendency": truth.diff(dim=1) / interval,
            }
        for name in (*_SIDES, "tendency"):
            squares = [missing]
            if name in differences:
                squares.append(self.sums(Fields(differences[name], self.plan).density)[..., 0])
            self.write(name, torch.cat(squares, 1), block)
        self._remember(block)

    def _continued(self, block: Block) -> tuple[Tensor, Tensor]:
        """Prediction and truth, after the last frame of the block before."""
        prediction, truth = block.prediction.values, block.target.values
        if block.first_frame == 0:
            return prediction, truth
        before = self._before
        if before is None or before.next_frame != block.first_frame or len(before.trajectories) != len(truth):
            expected = "0" if before is None else f"0 or frame {before.next_frame} of the batch before"
            raise ValueError(
                f"Expected a block from frame {expected} but got one from frame {block.first_frame}; residuals need "
                "the blocks of a batch in order, and one batch after the other."
            )
        # Whether it is the same batch is known on the device only; `compute` asks.
        self.mixed_up = self.mixed_up + (before.trajectories != block.trajectories).any()
        return torch.cat([before.prediction, prediction], 1), torch.cat([before.truth, truth], 1)

    def _remember(self, block: Block) -> None:
        next_frame = block.first_frame + block.frames
        if next_frame == self.plan.frames:
            self._before = None
            return
        last_frames = (fields.values[:, -1:].clone() for _, fields in block.sides)
        self._before = _Before(next_frame, block.trajectories, *last_frames)

    def reset(self) -> None:
        """Forget all that was measured."""
        super().reset()
        self._before = None

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`.

        Raises:
            ValueError: if blocks of several batches were given in turn.
        """
        if int(self.mixed_up) > 0:
            raise ValueError(
                f"Expected the blocks of one batch after those of another but {int(self.mixed_up)} followed a block of "
                "other trajectories; finish a batch before the next one begins."
            )
        tendency = self.curve("tendency")[:, 1:]
        outputs = {}
        for side in _SIDES:
            residual = self.curve(side)[:, 1:]
            outputs[f"residual_{side}"] = residual.sqrt()
            outputs[f"relative_residual_{side}"] = torch.where(residual == 0, 0.0, residual / tendency).sqrt()
        return outputs

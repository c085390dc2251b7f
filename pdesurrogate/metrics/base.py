"""What all metrics share: how they keep what they measure, and how they name it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.plan import RolloutPlan

# Statistics of at least this many blocks of samples carry an error bar.
_FEWEST_BLOCKS = 8


class Variable(NamedTuple):
    """Label of one output of a metric.

    Attributes:
        dims: among ``trajectory``, ``lead_time``, ``channel`` and the metric's own coordinates, in order.
        units: physical units, ``"1"`` where there are none.
        long_name: what it is, in words.
    """

    dims: tuple[str, ...]
    units: str
    long_name: str


class Coordinate(NamedTuple):
    """A metric's own axis: its ``values (n,)``, numbers or names, and label."""

    values: Tensor | Sequence[str]
    units: str
    long_name: str


@dataclass(frozen=True)
class Score:
    """One number for tables: an output reduced over lead time and all else but trajectories, then averaged over those.

    Attributes:
        variable: name of the output.
        description: what the number is.
        lead_time: the mean over lead times, or one end of them; outputs without lead time do not mind.
        select: labels along other dimensions, for example ``{"channel": "vorticity"}``.
        higher_is_better: how a table sorts it.
        units: where they are not those of the variable.
    """

    variable: str
    description: str
    lead_time: Literal["mean", "first", "last"] = "mean"
    select: Mapping[str, str | float] = field(default_factory=dict)
    higher_is_better: bool = False
    units: str | None = None


class RolloutMetric(Metric, ABC):
    """Measures rollouts block by block; the size of its states is fixed when it is built.

    Three kinds of state. A *curve* ``(trajectories, frames, ...)`` in float64 is filled with minus infinity and written
    at the number of the trajectory; processes are joined by the maximum, so uneven shards, empty ones and duplicates
    are harmless. A measured value that is not finite (its trajectory was stopped) is written as NaN, which the maximum
    keeps; minus infinity therefore always means "not written yet", and `curve` refuses it. A *lead-time sum*
    ``(frames, ...)`` is the sum over trajectories, with a count beside it. A *pooled sum* is over space and lead time,
    kept apart for several blocks of samples, so that the mean carries an error bar (`pooled`).

    ``update`` brings no value to the host. Subclasses take the plan first and further arguments by name, so that a YAML
    file can add any of them by class path.

    Args:
        plan: what is going to be measured.
    """

    full_state_update = False

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__()
        self.plan = plan

    @property
    @abstractmethod
    def variables(self) -> dict[str, Variable]:
        """Label of every output of `compute`."""

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Axes of outputs beside ``trajectory``, ``lead_time`` and ``channel``."""
        return {}

    @property
    def scores(self) -> dict[str, Score]:
        """Numbers for tables, by name."""
        return {}

    @abstractmethod
    def update(self, block: Block) -> None:
        """Measure one block."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """All outputs by name, joined over processes; an output of one element may lose its axes.

        Raises:
            ValueError: if a trajectory or frame was never measured.
        """

    def add_curve(self, name: str, *trailing: int) -> None:
        """Declare a state ``(trajectories, frames, *trailing)``."""
        plan = self.plan
        empty = torch.full((plan.trajectories, plan.frames, *trailing), -torch.inf, dtype=torch.float64)
        self.add_state(name, default=empty, dist_reduce_fx="max")

    def write(self, name: str, values: Tensor, block: Block) -> None:
        """Put ``values (batch, time, ...)`` of a block in their place in a curve.

        Raises:
            ValueError: if the block reaches beyond the declared frames.
        """
        values = values.to(torch.float64)
        place = (block.trajectories, self.frame_range(block))
        getattr(self, name)[place] = torch.where(torch.isfinite(values), values, torch.nan)

    def frame_range(self, block: Block) -> slice:
        """The places of a block's frames.

        Raises:
            ValueError: if they are not inside the declared frames.
        """
        first, last = block.first_frame, block.first_frame + block.frames
        if first < 0 or last > self.plan.frames:
            raise ValueError(
                f"Expected frames within 0..{self.plan.frames} but got {first}..{last}; "
                f"build {type(self).__name__} for as many frames as are predicted."
            )
        return slice(first, last)

    def curve(self, name: str) -> Tensor:
        """The whole state, NaN where a trajectory was stopped.

        Raises:
            ValueError: if a place was never written.
        """
        values: Tensor = getattr(self, name)
        missing = (values == -torch.inf).flatten(2).any(-1) if values.ndim > 2 else values == -torch.inf
        if bool(missing.any()):
            trajectory, frame = missing.nonzero()[0].tolist()
            raise ValueError(
                f"Expected {name!r} of all {self.plan.trajectories} trajectories and {self.plan.frames} frames but "
                f"{int(missing.sum())} were never measured, the first is frame {frame} of trajectory {trajectory}; "
                "update with every block of every rollout first."
            )
        return values

    def add_lead_time_sum(self, name: str, *trailing: int) -> None:
        """Declare a sum over trajectories ``(frames, *trailing)`` and a count ``{name}_count (frames,)``."""
        self.add_state(
            name, default=torch.zeros(self.plan.frames, *trailing, dtype=torch.float64), dist_reduce_fx="sum"
        )
        self.add_state(f"{name}_count", default=torch.zeros(self.plan.frames, dtype=torch.long), dist_reduce_fx="sum")

    def accumulate(self, name: str, values: Tensor, block: Block) -> None:
        """Add ``values (batch, time, *trailing)`` of a block to a lead-time sum.

        Frames that are not finite are left out. A trajectory must be given to one process only, once.
        """
        frames = self.frame_range(block)
        values = values.to(torch.float64)
        kept = torch.isfinite(values).flatten(2).all(-1) if values.ndim > 2 else torch.isfinite(values)
        mask = kept.reshape(*kept.shape, *(1,) * (values.ndim - 2))
        getattr(self, name)[frames] += torch.where(mask, values, 0.0).sum(0)
        getattr(self, f"{name}_count")[frames] += kept.sum(0)

    def lead_time_mean(self, name: str) -> Tensor:
        """Mean over the trajectories that were finite ``(frames, *trailing)``; NaN where none was left."""
        count = getattr(self, f"{name}_count").to(torch.float64)
        values: Tensor = getattr(self, name)
        return values / count.reshape(-1, *(1,) * (values.ndim - 1))

    @property
    def sample_blocks(self) -> tuple[int, int]:
        """How pooled samples are cut into blocks: (groups of trajectories, stretches of lead time).

        Trajectories are independent, so with eight of them or more each is a block (at most 64 groups); with fewer,
        each is cut into stretches, so that there are eight blocks as long as there are frames. Frames within a stretch
        may be correlated; stretches should be longer than the correlation time.
        """
        groups = min(self.plan.trajectories, 64)
        return groups, min(-(-_FEWEST_BLOCKS // groups), self.plan.frames)

    def add_pooled(self, name: str, *trailing: int) -> None:
        """Declare a mean over frames and trajectories of values ``(*trailing,)``, with a block-averaged error bar."""
        groups, stretches = self.sample_blocks
        self.add_state(
            name, default=torch.zeros(groups, stretches, *trailing, dtype=torch.float64), dist_reduce_fx="sum"
        )
        self.add_state(
            f"{name}_count", default=torch.zeros(groups, stretches, dtype=torch.float64), dist_reduce_fx="sum"
        )

    def pool(self, name: str, values: Tensor, block: Block) -> None:
        """Add ``values (batch, time, *trailing)``, one sample a frame; frames that are not finite are left out.

        Duplicates (samplers that pad) weigh a trajectory twice but do no other harm.
        """
        groups, stretches = self.sample_blocks
        taken = self.frame_range(block)
        values = values.to(torch.float64)
        kept = torch.isfinite(values).flatten(2).all(-1) if values.ndim > 2 else torch.isfinite(values)
        mask = kept.reshape(*kept.shape, *(1,) * (values.ndim - 2))
        frames = torch.arange(taken.start, taken.stop, device=values.device)
        stretch = frames * stretches // self.plan.frames
        group = block.trajectories % groups
        place = (group[:, None] * stretches + stretch).flatten()
        sums: Tensor = getattr(self, name)
        sums.view(groups * stretches, *sums.shape[2:]).index_add_(
            0, place, torch.where(mask, values, 0.0).flatten(0, 1)
        )
        getattr(self, f"{name}_count").view(-1).index_add_(0, place, kept.to(torch.float64).flatten())

    def pooled(self, name: str) -> tuple[Tensor, Tensor]:
        """Mean over all samples ``(*trailing,)``, and over those of each block that has any ``(blocks, *trailing)``.

        From the block means a derived quantity gets its error bar: `block_error`. NaN if nothing was ever measured.
        """
        sums: Tensor = getattr(self, name)
        counts: Tensor = getattr(self, f"{name}_count")
        sums, counts = sums.flatten(0, 1), counts.flatten()
        kept = counts > 0
        if not bool(kept.any()):
            return torch.full_like(sums[0], torch.nan), sums[kept]
        column = counts[kept].reshape(-1, *(1,) * (sums.ndim - 1))
        return sums[kept].sum(0) / counts.sum(), sums[kept] / column


def block_error(values: Tensor) -> Tensor:
    """Standard error of the mean of block values ``(blocks, ...)``: their deviation over the root of their number.

    NaN where there are fewer than two blocks.

    Example:
        >>> round(block_error(torch.tensor([1.0, 3.0])).item(), 6)
        1.0
    """
    if len(values) < 2:
        return torch.full_like(values.sum(0), torch.nan)
    return values.std(0, correction=1) / len(values) ** 0.5


def shared_units(units: Sequence[str]) -> str:
    """The units if all are equal, else a list of them in the order of the channels."""
    return units[0] if len(set(units)) == 1 else ", ".join(units)


def scores_by_channel(plan: RolloutPlan, variable: str, description: str) -> dict[str, Score]:
    """One score if all channels have the same units, else one for each channel: metres do not add to pascals."""
    channels = plan.metadata.channels
    if len({channel.units for channel in channels}) == 1:
        return {variable: Score(variable, f"{description} and channels", units=channels[0].units)}
    return {
        f"{variable}_{channel.name}": Score(
            variable, f"{description}, of {channel.name}", select={"channel": channel.name}, units=channel.units
        )
        for channel in channels
    }

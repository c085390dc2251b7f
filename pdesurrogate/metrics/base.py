"""What all metrics share: the streaming interface, means over the box, and where a flow's velocity lives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from pdesurrogate.fields.grid import Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.operators import velocity_from_vorticity, vorticity_from_velocity


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
    """A metric's own axis: its ``values (n,)`` and label."""

    values: Tensor
    units: str
    long_name: str


class RolloutMetric(Metric, ABC):
    """Measures rollouts block by block; the size of its states is fixed when it is built.

    Curves are states of shape ``(trajectories, frames, ...)`` in float64, filled with minus infinity and written at
    the number of the trajectory. Processes are joined by the maximum, so uneven shards, empty ones and duplicates are
    harmless. A measured value that is not finite (its trajectory was stopped) is written as NaN, which the maximum
    keeps; minus infinity therefore always means "not written yet", and `compute` refuses it.

    ``update`` brings no value to the host.

    Args:
        metadata: of the data set.
        trajectories: number of trajectories in all.
        frames: number of predicted frames.
    """

    full_state_update = False

    def __init__(self, metadata: Metadata, trajectories: int, frames: int) -> None:
        super().__init__()
        if trajectories < 1 or frames < 1:
            raise ValueError(f"Expected at least one trajectory and frame but got {trajectories} and {frames}.")
        self.metadata = metadata
        self.trajectories = trajectories
        self.frames = frames

    @property
    @abstractmethod
    def variables(self) -> dict[str, Variable]:
        """Label of every output of `compute`."""

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Axes of outputs beside ``trajectory``, ``lead_time`` and ``channel``."""
        return {}

    @abstractmethod
    def update(
        self, prediction: Tensor, target: Tensor, first_frame: int, trajectories: Tensor, context: Context
    ) -> None:
        """Measure one block.

        Args:
            prediction: ``(batch, time, channel, *space)``, physical units; NaN where a trajectory was stopped.
            target: the true frames, same shape.
            first_frame: number of the block's first frame, counted from zero at the first predicted frame.
            trajectories: ``(batch,)`` integers, number of each trajectory.
            context: batched.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """All outputs by name, joined over processes; an output of one element may lose its axes.

        Raises:
            ValueError: if a trajectory or frame was never measured.
        """

    def add_curve(self, name: str, *trailing: int) -> None:
        """Declare a state ``(trajectories, frames, *trailing)``."""
        empty = torch.full((self.trajectories, self.frames, *trailing), -torch.inf, dtype=torch.float64)
        self.add_state(name, default=empty, dist_reduce_fx="max")

    def write(self, name: str, values: Tensor, first_frame: int, trajectories: Tensor) -> None:
        """Put ``values (batch, time, ...)`` of a block in their place in a curve.

        Raises:
            ValueError: if the block reaches beyond the declared frames.
        """
        frames = self.frame_range(first_frame, values.shape[1])
        values = values.to(torch.float64)
        getattr(self, name)[trajectories, frames] = torch.where(torch.isfinite(values), values, torch.nan)

    def frame_range(self, first_frame: int, count: int) -> slice:
        """The places of a block's frames.

        Raises:
            ValueError: if they are not inside the declared frames.
        """
        if first_frame < 0 or first_frame + count > self.frames:
            raise ValueError(
                f"Expected frames within 0..{self.frames} but got {first_frame}..{first_frame + count}; "
                f"build {type(self).__name__} for as many frames as are predicted."
            )
        return slice(first_frame, first_frame + count)

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
                f"Expected {name!r} of all {self.trajectories} trajectories and {self.frames} frames but "
                f"{int(missing.sum())} were never measured, the first is frame {frame} of trajectory {trajectory}; "
                "update with every block of every rollout first."
            )
        return values


def at_least_float32(values: Tensor) -> Tensor:
    """Half precisions become float32; others stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def space_weights(grid: Grid, context: Context) -> Tensor:
    """Quadrature weights of batched coordinates; ``(batch, 1, 1, *space)``, zero outside the mask."""
    lines = grid.quadrature_weights(context.coordinates)
    weights = lines[0][:, None, None]
    for line in lines[1:]:
        weights = weights.unsqueeze(-1) * line.reshape(line.shape[0], *(1,) * (weights.ndim - 1), -1)
    return weights if context.mask is None else weights * context.mask[:, None, None]


def box_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over space of ``values (batch, time, channel, *space)``; ``(batch, time, channel)`` in float64.

    Args:
        values: any floating type; products are formed in float32 at least and summed in float64.
        weights: quadrature weights that broadcast to ``values``, of any scale; ``None`` where all points count alike.
    """
    values = at_least_float32(values)
    space = tuple(range(3, values.ndim))
    if weights is None:
        return values.mean(space, dtype=torch.float64)
    return (values * weights).sum(space, dtype=torch.float64) / weights.sum(space, dtype=torch.float64)


@dataclass(frozen=True)
class Flow:
    """Where the velocity or the vorticity of a plane periodic flow lives among the channels.

    Attributes:
        given: which of the two the data hold.
        channels: indices of the two velocity components, or of the vorticity.
        periods: of the box.
        velocity_units: units of the velocity, derived from the vorticity's where that is given.
        vorticity_units: units of the vorticity, derived from the velocity's where that is given.
        wavenumber_units: radians per unit length.
    """

    given: Literal["velocity", "vorticity"]
    channels: tuple[int, ...]
    periods: tuple[float, ...]
    velocity_units: str
    vorticity_units: str
    wavenumber_units: str

    def select(self, fields: Tensor) -> Tensor:
        """The flow's own channels of ``(batch, time, channel, x, y)``, in single precision at least."""
        return at_least_float32(torch.stack([fields[:, :, channel] for channel in self.channels], dim=2))

    def velocity_and_vorticity(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, time, 2, x, y)`` and ``(batch, time, 1, x, y)`` of fields on evenly spaced points."""
        own = self.select(fields)
        if self.given == "velocity":
            return own, vorticity_from_velocity(own, self.periods).unsqueeze(2)
        return velocity_from_vorticity(own[:, :, 0], self.periods), own


def flow_of(metadata: Metadata) -> Flow | None:
    """The flow that a data set holds, by the names of its channels; ``None`` unless it is plane and periodic.

    Channels ``velocity_x`` and ``velocity_y`` are taken before ``vorticity``.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel
        >>> grid = Grid((Axis("x", period=1.0, units="m"), Axis("y", period=1.0, units="m")))
        >>> metadata = Metadata("example", grid, (Channel("vorticity", units="1/s"),), frame_interval=0.1)
        >>> flow_of(metadata).velocity_units
        '(1/s) m'
    """
    grid, names = metadata.grid, metadata.channel_names
    periods = tuple(axis.period for axis in grid.axes if axis.period is not None)
    if grid.dimension != 2 or len(periods) != 2:
        return None
    length = grid.axes[0].units
    wavenumber = _units("rad", length, "/")
    if "velocity_x" in names and "velocity_y" in names:
        channels = (names.index("velocity_x"), names.index("velocity_y"))
        units = metadata.channels[channels[0]].units
        return Flow("velocity", channels, periods, units, _units(units, length, "/"), wavenumber)
    if "vorticity" in names:
        channel = names.index("vorticity")
        units = metadata.channels[channel].units
        return Flow("vorticity", (channel,), periods, _units(units, length, " "), units, wavenumber)
    return None


def require_flow(metadata: Metadata, what: str) -> Flow:
    """`flow_of`, where there must be one.

    Raises:
        ValueError: naming ``what`` needs it.
    """
    flow = flow_of(metadata)
    if flow is None:
        raise ValueError(
            f"Expected plane periodic data with channels 'velocity_x' and 'velocity_y' or 'vorticity' for {what} but "
            f"got {metadata.channel_names} on axes {metadata.grid.axis_names}; leave this metric out of the suite."
        )
    return flow


def squared(units: str) -> str:
    """Units of the square, for example of an energy from a velocity.

    Example:
        >>> squared("m/s"), squared("1")
        ('(m/s)^2', '1')
    """
    return "1" if units == "1" else f"({units})^2"


def shared_units(units: Sequence[str]) -> str:
    """The units if all are equal, else a list of them in the order of the channels."""
    return units[0] if len(set(units)) == 1 else ", ".join(units)


def _units(left: str, right: str, joint: str) -> str:
    if right == "1":
        return left
    if left == "1":
        return right if joint == " " else f"1/{right}"
    return f"({left}){joint}{right}" if any(sign in left for sign in " /") else f"{left}{joint}{right}"

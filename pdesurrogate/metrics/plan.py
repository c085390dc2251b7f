"""What is going to be measured: all that a metric can know before the first block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.metrics.flow import Flow, flow_of


@dataclass(frozen=True)
class RolloutPlan:
    """What is going to be measured; all that a metric can know before the first block.

    Attributes:
        metadata: of the data set.
        trajectories: number of trajectories in all.
        frames: number of predicted frames.
        coordinates: ``(n,)`` points along each space axis, those of the first trajectory.
        masked: whether the trajectories carry a mask.
        shared_grid: whether all trajectories have these coordinates; cases of one set may differ in extent.
        members: of an ensemble; one for a single prediction.
        has_variance: whether the model states the variance of its prediction.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", period=2.0)))
        >>> metadata = Metadata("example", grid, (Channel("vorticity"),), frame_interval=0.1)
        >>> plan = RolloutPlan(metadata, trajectories=4, frames=10, coordinates=grid.uniform_coordinates((16, 16)))
        >>> plan.shape, plan.even, plan.flow.given
        ((16, 16), (True, True), 'vorticity')
    """

    metadata: Metadata
    trajectories: int
    frames: int
    coordinates: tuple[Tensor, ...]
    masked: bool = False
    shared_grid: bool = True
    members: int = 1
    has_variance: bool = False

    def __post_init__(self) -> None:
        if self.trajectories < 1 or self.frames < 1:
            raise ValueError(
                f"Expected at least one trajectory and frame but got {self.trajectories} and {self.frames}."
            )
        self.metadata.grid.check_coordinates(self.coordinates)

    @classmethod
    def of(
        cls, trajectories: Sequence[Trajectory], frames: int, *, members: int = 1, has_variance: bool = False
    ) -> RolloutPlan:
        """The plan of rollouts over ``trajectories`` of one data set."""
        context = trajectories[0].context
        if len({trajectory.context.mask is None for trajectory in trajectories}) > 1:
            raise ValueError("Expected a mask in all trajectories or in none; evaluate those with a mask apart.")
        shared = all(
            one is other or torch.equal(one, other)
            for trajectory in trajectories
            for one, other in zip(trajectory.context.coordinates, context.coordinates, strict=True)
        )
        return cls(
            trajectories[0].metadata,
            len(trajectories),
            frames,
            context.coordinates,
            masked=context.mask is not None,
            shared_grid=shared,
            members=members,
            has_variance=has_variance,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each space axis."""
        return tuple(points.numel() for points in self.coordinates)

    @cached_property
    def even(self) -> tuple[bool, ...]:
        """Whether the points along each axis are evenly spaced, a periodic axis' closing gap included."""
        return tuple(
            _is_even(points.double(), axis.period)
            for points, axis in zip(self.coordinates, self.metadata.grid.axes, strict=True)
        )

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes are periodic."""
        return tuple(axis.period is not None for axis in self.metadata.grid.axes)

    @property
    def cell_centered(self) -> bool:
        """Whether coordinates are those of cells: unless every channel lives on nodes."""
        return self.metadata.cell_centered

    @property
    def equal_weights(self) -> bool:
        """Whether all points count alike in a mean over the box."""
        return self.shared_grid and all(self.even) and (all(self.periodic) or self.cell_centered) and not self.masked

    def quadrature_weights(self, coordinates: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Weights of each axis ``(..., n)`` for coordinates of these data; see `Grid.quadrature_weights`."""
        return self.metadata.grid.quadrature_weights(coordinates, cells=self.cell_centered)

    @property
    def has_spectra(self) -> bool:
        """Whether fields have a transform over all axes: one grid, evenly spaced, no mask, at least four points."""
        return self.shared_grid and all(self.even) and not self.masked and min(self.shape) >= 4

    @property
    def extents(self) -> tuple[float, ...]:
        """Length of each axis: the period, or that of all cells, or from the first node to the last."""
        lines = self.quadrature_weights(self.coordinates)
        axes = self.metadata.grid.axes
        return tuple(axis.period or float(line.sum()) for axis, line in zip(axes, lines, strict=True))

    @property
    def wave_shape(self) -> tuple[int, ...]:
        """Points along each axis after mirroring the axes that are not periodic; see `Fields.spectrum`."""
        repeated = 0 if self.cell_centered else 2
        pairs = zip(self.shape, self.periodic, strict=True)
        return tuple(size if periodic else 2 * size - repeated for size, periodic in pairs)

    @property
    def wave_periods(self) -> tuple[float, ...]:
        """Periods of the mirrored box."""
        return tuple(
            extent if periodic else 2 * extent for extent, periodic in zip(self.extents, self.periodic, strict=True)
        )

    @cached_property
    def flow(self) -> Flow | None:
        """Where the velocity or vorticity lives among the channels, if there is one."""
        return flow_of(self.metadata)

    @property
    def wavenumber_units(self) -> str:
        """Radians per unit length."""
        length = self.metadata.grid.axes[0].units
        return "rad" if length == "1" else f"rad/{length}"


def _is_even(points: Tensor, period: float | None) -> bool:
    gaps = points.diff()
    if period is not None:
        gaps = torch.cat([gaps, (points[0] + period - points[-1]).unsqueeze(0)])
    # Single-precision coordinates carry round-off of 1e-7 of the extent.
    return bool((gaps - gaps.mean()).abs().max() <= 1e-3 * gaps.mean())

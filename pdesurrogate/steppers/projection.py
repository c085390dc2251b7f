"""Steppers of channel flow that keep to what is known of it: no slip, no divergence, a given flow rate.

Each wraps another stepper and changes its frames as little as its condition asks for; gradients go through it. The flow
rate goes outermost: `FlowRate` adds no divergence and moves no wall, and `DivergenceFree` keeps the flow rate that it
meets, while `NoSlip` changes it. ::

    FlowRate(DivergenceFree(surrogate), bulk_velocity=1.0)   # staggered data
    FlowRate(NoSlip(surrogate))                              # data on nodes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Axis, Metadata, cell_faces
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson
from pdesurrogate.steppers.base import Stepper

# Points this close, in heights of the channel, are one: coordinates in single precision carry round-off of 1e-7.
SAME_PLACE = 1e-5


class NoSlip(nn.Module):
    """Sets the velocity on the walls of a channel to zero; a `Stepper`.

    The walls are where the axis that is not periodic has its bounds, or its first and last point where it states none.
    Of staggered data only the component across the channel has points there, on the lower wall.

    Args:
        stepper: of channel flow with a velocity on the walls.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if there is no metadata, it is of no channel, or no velocity is stored on a wall.

    Example:
        >>> from pdesurrogate.fields.grid import Channel, Grid
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", bounds=(0.0, 2.0))))
        >>> metadata = Metadata("example", grid, (Channel("velocity_x"), Channel("velocity_y")), frame_interval=0.1)
        >>> context = Context((torch.arange(4)[None] / 4, torch.linspace(0, 2, 5)[None]))
        >>> NoSlip(Persistence(), metadata).step(torch.ones(1, 1, 2, 4, 5), context)[0, 0, 0, 0].tolist()
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """

    def __init__(self, stepper: Stepper, metadata: Metadata | None = None) -> None:
        super().__init__()
        self.stepper = stepper
        self.metadata = _metadata_of(stepper, metadata, "NoSlip")
        self._channel = _ChannelData.of(self.metadata, "NoSlip")
        self._checked: Tensor | None = None
        if not any(self._channel.stored_on_walls):
            raise ValueError(
                f"Expected a velocity that is stored on the walls, on nodes or on faces across, for NoSlip but "
                f"{self.metadata.name!r} has it in the middle of cells; leave NoSlip out."
            )

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The wrapped stepper's next block, zero on the walls.

        Raises:
            ValueError: if the block has not the channels and axes of the metadata, there is a mask, or nodes across the
                channel do not begin and end on the walls.
        """
        block = self.stepper.step(history, context)
        channel = self._channel
        channel.require(block, context)
        on_walls = channel.on_walls(context)
        self._require_walls(on_walls, context.coordinates[channel.wall])
        sizes = len(block), block.shape[2], block.shape[3 + channel.wall]
        slips = torch.zeros(sizes, dtype=torch.bool, device=block.device)
        for component, location in zip(channel.velocity, channel.locations, strict=True):
            if location == "node":
                slips[:, component] = on_walls
            elif location == channel.across:
                slips[:, component, 0] = True
        shape = [1] * block.ndim
        shape[0], shape[2], shape[3 + channel.wall] = slips.shape
        return torch.where(slips.reshape(shape), 0.0, block)

    def _require_walls(self, on_walls: Tensor, points: Tensor) -> None:
        """Look at the same coordinates once: looking waits for the device."""
        if self._checked is points or "node" not in self._channel.locations:
            return
        if not bool((on_walls[:, 0] & on_walls[:, -1]).all()):
            axis = self._channel.axis
            raise ValueError(
                f"Expected nodes along {axis.name!r} from wall to wall, {axis.bounds}, but they run from "
                f"{float(points[0, 0]):g} to {float(points[0, -1]):g}; correct the bounds of the axis, or the location "
                "of the channels."
            )
        self._checked = points


class FlowRate(nn.Module):
    """Resets the bulk velocity of a channel by a uniform shift of its streamwise component; a `Stepper`.

    The bulk velocity is the mean with the quadrature weights of the data, as metrics take it. What is stored on a wall
    is not shifted, and the rest by so much more. A uniform shift is what a uniform force does in a moment.

    Args:
        stepper: of channel flow.
        bulk_velocity: to be kept; by default that of the latest frame of the history.
        streamwise: name of the axis along the mean flow; by default the first periodic one.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if there is no metadata, it is of no channel, or ``streamwise`` is no periodic axis.

    Example:
        >>> from pdesurrogate.fields.grid import Channel, Grid
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", bounds=(0.0, 2.0))))
        >>> metadata = Metadata("example", grid, (Channel("velocity_x"), Channel("velocity_y")), frame_interval=0.1)
        >>> context = Context((torch.arange(4)[None] / 4, torch.linspace(0, 2, 5)[None]))
        >>> stepper = FlowRate(Persistence(), bulk_velocity=1.5, metadata=metadata)
        >>> stepper.step(torch.zeros(1, 1, 2, 4, 5), context)[0, 0, 0, 0].tolist()
        [0.0, 2.0, 2.0, 2.0, 0.0]
    """

    def __init__(
        self,
        stepper: Stepper,
        bulk_velocity: float | None = None,
        streamwise: str | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__()
        self.stepper = stepper
        self.bulk_velocity = bulk_velocity
        self.metadata = _metadata_of(stepper, metadata, "FlowRate")
        self._channel = _ChannelData.of(self.metadata, "FlowRate")
        along = [axis.name for axis in self.metadata.grid.axes if axis.period is not None]
        self.streamwise = along[0] if streamwise is None else streamwise
        if self.streamwise not in along:
            raise ValueError(f"Expected streamwise to be one of the periodic axes {along} but got {streamwise!r}.")

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The wrapped stepper's next block at the flow rate that is to be kept.

        Raises:
            ValueError: if history or block have not the channels and axes of the metadata, or there is a mask.
        """
        block = self.stepper.step(history, context)
        channel = self._channel
        channel.require(history, context)
        channel.require(block, context)
        place = self.metadata.grid.axis_names.index(self.streamwise)
        component = channel.velocity[place]
        shares = self._shares(context)
        moving = torch.ones_like(shares)
        if channel.locations[place] == "node":
            moving = channel.along_wall_axis(~channel.on_walls(context)).unsqueeze(1).to(shares)
        own = _mean(block[:, :, component], shares)
        kept = own.new_tensor(self.bulk_velocity) if self.bulk_velocity is not None else None
        target = _mean(history[:, -1:, component], shares) if kept is None else kept
        shift = (target - own) / _mean(moving, shares)
        shift = shift.reshape(*shift.shape, *(1,) * (block.ndim - 3)) * moving
        # One channel is changed without touching the others, and without an operation in place.
        changed = (block[:, :, component] + shift.to(block)).unsqueeze(2)
        return torch.cat([block[:, :, :component], changed, block[:, :, component + 1 :]], 2)

    def _shares(self, context: Context) -> Tensor:
        """``(batch, 1, *space)`` in float64, adding up to one."""
        coordinates = tuple(points.double() for points in context.coordinates)
        weights = space_weights(self.metadata.grid, Context(coordinates), cells=self.metadata.cell_centered)[:, 0]
        return weights / weights.flatten(1).sum(1).reshape(-1, *(1,) * (weights.ndim - 1))

    def extra_repr(self) -> str:
        """The flow rate, shown by ``print``."""
        return f"bulk_velocity={self.bulk_velocity}, streamwise={self.streamwise!r}"


class DivergenceFree(nn.Module):
    """Projects the velocity of each frame of a staggered channel onto fields without divergence; a `Stepper`.

    The nearest velocity without divergence and without flow through the walls, by the solver's own operators
    (`ChannelPoisson`): divergence is at round-off, flow rates are kept, and the velocity along the walls is free.
    Other channels, the pressure among them, are not touched.

    Args:
        stepper: of channel flow on axes x, y (from wall to wall, with bounds) and z, each component of the velocity on
            the faces that it crosses.
        precision: of the computation; frames keep theirs.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if there is no metadata, or it is of no staggered channel.

    Example:
        >>> from pdesurrogate.fields.grid import Channel, Grid
        >>> from pdesurrogate.physics.staggered_channel import divergence, stretched_faces
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> axes = Axis("x", period=4.0), Axis("y", bounds=(0.0, 2.0)), Axis("z", period=2.0)
        >>> channels = tuple(Channel(f"velocity_{name}", location=f"face_{name}") for name in "xyz")
        >>> metadata = Metadata("example", Grid(axes), channels, frame_interval=0.1)
        >>> grid = ChannelGrid((4.0, 2.0), (8, 4), stretched_faces(6))
        >>> context = Context(tuple(points[None] for points in grid.coordinates))
        >>> noise = torch.randn(1, 1, 3, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> frame = DivergenceFree(Persistence(), metadata=metadata).step(noise, context)
        >>> bool(divergence(frame, grid).abs().max() < 1e-12)
        True
    """

    def __init__(
        self, stepper: Stepper, precision: Literal["float32", "float64"] = "float64", metadata: Metadata | None = None
    ) -> None:
        super().__init__()
        if precision not in ("float32", "float64"):
            raise ValueError(f"Expected precision 'float32' or 'float64' but got {precision!r}.")
        self.stepper = stepper
        self.precision = precision
        self.metadata = _metadata_of(stepper, metadata, "DivergenceFree")
        self._channel = _ChannelData.of(self.metadata, "DivergenceFree")
        _require_staggered(self.metadata, self._channel)
        self._poisson: ChannelPoisson | None = None
        self._made_for: tuple[Tensor, ...] = ()

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The wrapped stepper's next block, its velocity projected.

        Raises:
            ValueError: if the block has not the channels and axes of the metadata, there is a mask, trajectories differ
                in their grid, or coordinates are not those of the centers of cells that fill the channel.
        """
        block = self.stepper.step(history, context)
        self._channel.require(block, context)
        poisson = self._poisson_for(context, block)
        velocity = torch.stack([block[:, :, component] for component in self._channel.velocity], 2)
        u, v, w = velocity.to(poisson.to_modes.dtype).unbind(2)
        v = torch.cat([torch.zeros_like(v[..., :1, :]), v[..., 1:, :]], -2)
        projected = poisson.project(torch.stack([u, v, w], 2)).to(block.dtype)
        channels = list(block.unbind(2))
        for component, values in zip(self._channel.velocity, projected.unbind(2), strict=True):
            channels[component] = values
        return torch.stack(channels, 2)

    def _poisson_for(self, context: Context, block: Tensor) -> ChannelPoisson:
        """The operator for the grid of a context; made anew only where that is another one."""
        same = len(self._made_for) == len(context.coordinates) and all(
            made is given for made, given in zip(self._made_for, context.coordinates, strict=True)
        )
        if self._poisson is None or not same:
            grid = _channel_grid(self.metadata, context)
            known = None if self._poisson is None else self._poisson.grid
            if known is None or known.shape != grid.shape or not torch.equal(known.faces, grid.faces):
                # What is made in inference mode could never be used in training.
                with torch.inference_mode(False), torch.no_grad():
                    self._poisson = ChannelPoisson(grid, self.precision)
            self._made_for = tuple(context.coordinates)
        assert self._poisson is not None
        return self._poisson.to(block.device)

    def extra_repr(self) -> str:
        """The precision, shown by ``print``."""
        return f"precision={self.precision!r}"


@dataclass(frozen=True)
class _ChannelData:
    """Where the velocity of a channel flow is among its channels and axes.

    Attributes:
        wall: place of the axis across the channel among the space axes.
        axis: that axis.
        velocity: numbers of the components' channels, in the order of the axes.
        locations: of these.
        channels: number of all channels.
        dimension: number of space axes.
    """

    wall: int
    axis: Axis
    velocity: tuple[int, ...]
    locations: tuple[str, ...]
    channels: int
    dimension: int

    @classmethod
    def of(cls, metadata: Metadata, what: str) -> _ChannelData:
        axes, names = metadata.grid.axes, metadata.channel_names
        closed = [place for place, axis in enumerate(axes) if axis.period is None]
        if len(closed) != 1 or len(axes) < 2:
            raise ValueError(
                f"Expected a channel, periodic along all axes but one, for {what} but {metadata.name!r} is not "
                f"periodic along {[axes[place].name for place in closed]} of {list(metadata.grid.axis_names)}; "
                f"leave {what} out."
            )
        wanted = [f"velocity_{axis.name}" for axis in axes]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ValueError(
                f"Expected channels {wanted} for {what} but {metadata.name!r} has {list(names)}; name the components "
                f"of the velocity by their axes, or leave {what} out."
            )
        velocity = tuple(names.index(name) for name in wanted)
        locations = tuple(metadata.channels[number].location for number in velocity)
        (wall,) = closed
        return cls(wall, axes[wall], velocity, locations, len(names), len(axes))

    @property
    def across(self) -> str:
        """Location of what is stored on the faces parallel to the walls."""
        return f"face_{self.axis.name}"

    @property
    def stored_on_walls(self) -> tuple[bool, ...]:
        """Of each component, whether some of its points may lie on a wall."""
        return tuple(location in ("node", self.across) for location in self.locations)

    def require(self, frames: Tensor, context: Context) -> None:
        """Refuse frames ``(batch, time, channel, *space)`` of other data.

        Raises:
            ValueError: giving expected and found shapes.
        """
        sizes = tuple(points.shape[-1] for points in context.coordinates)
        if frames.ndim != 3 + self.dimension or frames.shape[2] != self.channels or frames.shape[3:] != sizes:
            raise ValueError(
                f"Expected frames (batch, time, {self.channels}, *{sizes}) of channel flow but got "
                f"{tuple(frames.shape)}; the stepper, the metadata and the coordinates must be of the same data."
            )
        if context.mask is not None:
            raise ValueError("Expected a channel without a mask but got one; there is no body in plane channel flow.")

    def on_walls(self, context: Context) -> Tensor:
        """``(batch, n)``: which points across the channel lie on a wall."""
        points = context.coordinates[self.wall]
        low, high = (points[:, :1], points[:, -1:]) if self.axis.bounds is None else self.axis.bounds
        slack = SAME_PLACE * (points[:, -1:] - points[:, :1])
        return ((points - low).abs() <= slack) | ((points - high).abs() <= slack)

    def along_wall_axis(self, values: Tensor) -> Tensor:
        """``(batch, n)`` with axes of size one for the others: ``(batch, *space)``."""
        shape = [1] * self.dimension
        shape[self.wall] = values.shape[-1]
        return values.reshape(-1, *shape)


def _metadata_of(stepper: Stepper, given: Metadata | None, what: str) -> Metadata:
    found = getattr(stepper, "metadata", None) if given is None else given
    if not isinstance(found, Metadata):
        raise ValueError(
            f"Expected the metadata of a channel flow for {what} but a {type(stepper).__name__} has none; give them."
        )
    return found


def _mean(values: Tensor, shares: Tensor) -> Tensor:
    """Weighted mean ``(batch, time)`` of ``values (batch, time, *space)`` in float64."""
    return (values.double() * shares).flatten(2).sum(2)


def _require_staggered(metadata: Metadata, channel: _ChannelData) -> None:
    expected = tuple(f"face_{axis.name}" for axis in metadata.grid.axes)
    if channel.dimension != 3 or channel.wall != 1 or channel.locations != expected:
        raise ValueError(
            f"Expected axes x, y from wall to wall and z, and each component of the velocity on the faces that it "
            f"crosses, for DivergenceFree but {metadata.name!r} has axes {list(metadata.grid.axis_names)} and "
            f"components on {list(channel.locations)}. Only of staggered data can all divergence be removed; make them "
            "with ChannelCoarsening, or leave DivergenceFree out."
        )
    if channel.axis.bounds is None:
        raise ValueError(
            f"Expected bounds of axis {channel.axis.name!r}, where the walls are, for DivergenceFree but "
            f"{metadata.name!r} has none; state them in the metadata."
        )


def _channel_grid(metadata: Metadata, context: Context) -> ChannelGrid:
    """The cells whose centers a batched context holds."""
    lines = [points.detach().to("cpu", torch.float64) for points in context.coordinates]
    for axis, points in zip(metadata.grid.axes, lines, strict=True):
        if not bool((points == points[:1]).all()):
            raise ValueError(f"Expected one grid for all trajectories of a batch but they differ along {axis.name!r}.")
        spacing = 0.0 if axis.period is None else axis.period / points.shape[1]
        if axis.period is not None and not bool(((points[0].diff() - spacing).abs() <= 1e-3 * spacing).all()):
            raise ValueError(
                f"Expected {points.shape[1]} evenly spaced points of one period along {axis.name!r} but they are "
                f"{float(points[0, 1] - points[0, 0]):g} apart and the period is {axis.period:g}; correct the metadata."
            )
    x, wall, z = metadata.grid.axes
    assert wall.bounds is not None
    assert x.period is not None
    assert z.period is not None
    # Plain numbers leave inference mode behind.
    centers = torch.tensor(lines[1][0].tolist(), dtype=torch.float64)
    faces = cell_faces(centers, wall.bounds)
    if not bool((((faces[1:] + faces[:-1]) / 2 - centers).abs() <= 1e-3 * faces.diff()).all()):
        raise ValueError(
            f"Expected coordinates of {wall.name!r} that are centers of cells from {wall.bounds[0]:g} to "
            f"{wall.bounds[1]:g} but got {centers.tolist()}; correct the bounds of the axis."
        )
    return ChannelGrid((x.period, z.period), (lines[0].shape[1], lines[2].shape[1]), faces)

"""Where the velocity or the vorticity of a flow lives among the channels of a data set, and in which units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Location, Metadata


@dataclass(frozen=True)
class Flow:
    """The channels of a flow, by their names.

    Attributes:
        given: which of the two the data hold; a vorticity counts only in a plane periodic box, where it fixes the flow.
        channels: indices of the velocity components in the order of the axes, or of the vorticity.
        locations: where each of them is stored.
        velocity_units: units of the velocity, derived from the vorticity's where that is given.
        vorticity_units: units of the vorticity, derived from the velocity's where that is given.
    """

    given: Literal["velocity", "vorticity"]
    channels: tuple[int, ...]
    locations: tuple[Location, ...]
    velocity_units: str
    vorticity_units: str

    @property
    def collocated(self) -> bool:
        """Whether all components live at the same points."""
        return len(set(self.locations)) == 1

    def select(self, values: Tensor) -> Tensor:
        """The flow's own channels ``(batch, time, component, ...)`` of ``values (batch, time, channel, ...)``."""
        first = self.channels[0]
        if self.channels == tuple(range(first, first + len(self.channels))):
            return values[:, :, first : first + len(self.channels)]
        return torch.stack([values[:, :, channel] for channel in self.channels], dim=2)


def flow_of(metadata: Metadata) -> Flow | None:
    """The flow that a data set holds; ``None`` unless it has a velocity component for every axis or, in a plane
    periodic box, a vorticity.

    Channels ``velocity_x``, ``velocity_y``, ... (by the names of the axes) are taken before ``vorticity``.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> grid = Grid((Axis("x", period=1.0, units="m"), Axis("y", period=1.0, units="m")))
        >>> metadata = Metadata("example", grid, (Channel("vorticity", units="1/s"),), frame_interval=0.1)
        >>> flow_of(metadata).velocity_units
        '(1/s) m'
    """
    grid, names = metadata.grid, metadata.channel_names
    length = grid.axes[0].units
    components = [f"velocity_{axis}" for axis in grid.axis_names]
    if grid.dimension > 1 and all(name in names for name in components):
        channels = tuple(names.index(name) for name in components)
        units = metadata.channels[channels[0]].units
        locations = tuple(metadata.channels[channel].location for channel in channels)
        return Flow("velocity", channels, locations, units, joint_units(units, length, "/"))
    if "vorticity" in names and grid.dimension == 2 and all(axis.period is not None for axis in grid.axes):
        channel = names.index("vorticity")
        units = metadata.channels[channel].units
        location = metadata.channels[channel].location
        return Flow("vorticity", (channel,), (location,), joint_units(units, length, " "), units)
    return None


def require_flow(metadata: Metadata, what: str) -> Flow:
    """`flow_of`, where there must be one.

    Raises:
        ValueError: naming ``what`` needs it.
    """
    flow = flow_of(metadata)
    if flow is None:
        wanted = [f"velocity_{axis}" for axis in metadata.grid.axis_names]
        raise ValueError(
            f"Expected data with channels {wanted}, or plane periodic data with 'vorticity', for {what} but got "
            f"{metadata.channel_names} on axes {metadata.grid.axis_names}; leave this metric out of the suite."
        )
    return flow


def squared(units: str) -> str:
    """Units of the square, for example of an energy from a velocity.

    Example:
        >>> squared("m/s"), squared("1")
        ('(m/s)^2', '1')
    """
    return "1" if units == "1" else f"({units})^2"


def joint_units(left: str, right: str, joint: Literal["/", " "]) -> str:
    """Units of a product (``" "``) or quotient (``"/"``).

    Example:
        >>> joint_units("m", "s", "/"), joint_units("m/s", "m", "/"), joint_units("1", "1/s", "/")
        ('m/s', '(m/s)/m', 's')
    """
    if right == "1":
        return left
    if left == "1" and joint == " ":
        return right
    if left == "1" and right.startswith("1/"):
        return right.removeprefix("1/")
    left, right = (f"({units})" if any(sign in units for sign in " /") else units for units in (left, right))
    return f"{left}{joint}{right}"

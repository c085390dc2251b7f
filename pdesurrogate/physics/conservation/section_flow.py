"""Flow through a box: what enters it passes every section."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.conservation.rows import DisjointRows, Rows, product_weights


class SectionFlowRates:
    """The flow rate through each section across an axis is that of an inlet over the whole low end of it.

    A `ConservationLaw`. Each row is the integral of one velocity component over a section, its points at one place
    along the axis, over the inlet's rate: the velocity there, a parameter of the case, times the whole section of the
    box. So rows give 1 in every frame, whatever the known one is, which may be at rest. In cells of velocities that are
    means of those on their faces, and on the faces themselves, rows of an incompressible flow are exact.

    It does not hold where fluid passes other ends of the box.

    Args:
        sections: how many there are, the points along the axis.
        inlet_velocity: name of the parameter that is the mean velocity of what enters.
        of: name of the channel, the velocity along the axis.
        along: name of the axis.

    Raises:
        ValueError: for less than one section; in use, for another number of them, a channel, an axis or a parameter
            that is not there, an axis that is periodic, a case at whose inlet nothing enters, a section without fluid,
            or a mask with a velocity that does not live in cells.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> grid = Grid((Axis("x", bounds=(0.0, 4.0)), Axis("y", bounds=(0.0, 2.0))))
        >>> channel = Channel("velocity_x", "m/s", location="cell")
        >>> metadata = Metadata("example", grid, (channel,), frame_interval=0.1, parameters=("inlet_velocity",))
        >>> lines = (torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 1.5]]))
        >>> rows = SectionFlowRates(sections=2).rows(metadata, Context(lines, parameters=torch.tensor([[2.0]])))
        >>> rows.apply(torch.tensor([[[[[2.0, 2.0], [1.0, 3.5]]]]])).tolist()
        [[[1.0, 1.125]]]
    """

    def __init__(
        self, sections: int, inlet_velocity: str = "inlet_velocity", of: str = "velocity_x", along: str = "x"
    ) -> None:
        if sections < 1:
            raise ValueError(f"Expected at least one section but got {sections}.")
        self.sections = sections
        self.inlet_velocity = inlet_velocity
        self.of = of
        self.along = along

    def channels(self, metadata: Metadata) -> tuple[int, ...]:
        """See `ConservationLaw`.

        Raises:
            ValueError: if the channel, the axis or the parameter is not there, or the axis is periodic.
        """
        if self.of not in metadata.channel_names:
            raise ValueError(
                f"Expected the channel {self.of!r}, whose flow rate is known, but {metadata.name!r} has "
                f"{list(metadata.channel_names)}; give the velocity along {self.along} as `of`."
            )
        if self.inlet_velocity not in metadata.parameters:
            raise ValueError(
                f"Expected the parameter {self.inlet_velocity!r}, the velocity of what enters, but {metadata.name!r} "
                f"has {list(metadata.parameters)}; give its name as `inlet_velocity`."
            )
        open_axes = [axis.name for axis in metadata.grid.axes if axis.period is None]
        if self.along not in open_axes:
            raise ValueError(
                f"Expected `along` among the axes that are not periodic, {open_axes}, but got {self.along!r}."
            )
        return (metadata.channel_names.index(self.of),)

    def names(self, metadata: Metadata) -> tuple[str, ...]:
        """See `ConservationLaw`."""
        return tuple(f"flow rate of section {number}" for number in range(self.sections))

    def units(self, metadata: Metadata) -> tuple[str, ...]:
        """See `ConservationLaw`."""
        return ("1",) * self.sections

    def rows(self, metadata: Metadata, context: Context) -> Rows:
        """See `ConservationLaw`.

        Raises:
            ValueError: as the class says.
        """
        (channel,) = self.channels(metadata)
        place = metadata.grid.axis_names.index(self.along)
        points = [int(line.shape[-1]) for line in context.coordinates]
        if points[place] != self.sections:
            raise ValueError(
                f"Expected {self.sections} sections, points along {self.along}, but the data have {points[place]}; "
                f"give sections={points[place]}."
            )
        location = metadata.channels[channel].location
        if context.mask is not None and location != "cell":
            raise ValueError(
                f"Expected a velocity in cells where there is a mask but {self.of!r} lives at {location!r}, where a "
                "mask does not say what is open; give data at centers of cells."
            )
        lines = metadata.grid.quadrature_weights(
            tuple(line.to(torch.float64) for line in context.coordinates), cells=location != "node"
        )
        # Along the axis a section has no width.
        lines = tuple(torch.ones_like(line) if number == place else line for number, line in enumerate(lines))
        areas = product_weights(lines)
        across = [number for number in range(1, areas.ndim) if number != place + 1]
        entering = self._entering(metadata, context) * areas.sum(across)[:, :1]
        weights = areas if context.mask is None else areas * context.mask
        if not bool((weights.sum(across) > 0).all()):
            raise ValueError("Expected fluid in every section but some are solid from side to side; correct the mask.")
        weights = weights / entering.reshape(-1, *(1,) * len(points))
        shape = [-1 if number == place else 1 for number in range(len(points))]
        labels = torch.arange(self.sections, device=weights.device).reshape(shape).expand(points)
        return DisjointRows(weights[:, None, None], 1 + len(points), labels[None])

    def target(self, metadata: Metadata, before: Tensor, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `ConservationLaw`."""
        return torch.ones_like(before).unsqueeze(1), None

    def _entering(self, metadata: Metadata, context: Context) -> Tensor:
        """Velocity of what enters, ``(batch, 1)``."""
        if context.parameters is None:
            raise ValueError(
                f"Expected the parameter {self.inlet_velocity!r} of every case but the samples have no parameters."
            )
        number = metadata.parameters.index(self.inlet_velocity)
        velocity = context.parameters[:, number : number + 1].to(torch.float64)
        if not bool((velocity != 0).all()):
            raise ValueError(
                f"Expected a velocity of what enters in every case but {self.inlet_velocity!r} is zero in some; leave "
                "them out."
            )
        return velocity

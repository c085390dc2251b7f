"""Where fields live: axes, periodicity, staggering, and the quadrature that follows from coordinates."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Location = Literal["cell", "node", "face_x", "face_y", "face_z"]


@dataclass(frozen=True)
class Axis:
    """One space axis. ``period`` is the length after which the field repeats; ``None`` means not periodic.

    A periodic axis stores no duplicated end point: ``n`` points at spacing ``period / n``. One that is not periodic may
    say where it ends, ``bounds``: at walls, inlets, outlets. Then the centers of stretched cells tell their faces.

    Raises:
        ValueError: if the period is not positive, or bounds do not increase or belong to a periodic axis.
    """

    name: str
    period: float | None = None
    units: str = "1"
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.period is not None and not self.period > 0:
            raise ValueError(f"Expected a positive period for axis {self.name!r} but got {self.period}.")
        if self.bounds is None:
            return
        if self.period is not None or len(self.bounds) != 2 or not self.bounds[0] < self.bounds[1]:
            raise ValueError(
                f"Expected bounds (low, high) of an axis that is not periodic but {self.name!r} has {self.bounds} and "
                f"period {self.period}."
            )
        object.__setattr__(self, "bounds", tuple(float(bound) for bound in self.bounds))  # JSON knows lists


@dataclass(frozen=True)
class Channel:
    """One scalar field: its name, physical units and where on the grid it is stored.

    Coordinates are those of nodes, or of cell centers. Value ``i`` of a channel at ``face_x`` lies on the face below
    cell ``i`` along x: between the centers ``i - 1`` and ``i``, half way unless the axis has bounds (`cell_faces`); on
    an axis that is not periodic the upper face of the last cell is not stored.

    Channels with the same ``vector`` are components of one vector, in the order of the axes.
    """

    name: str
    units: str = "1"
    long_name: str = ""
    location: Location = "node"
    vector: str = ""


@dataclass(frozen=True)
class Grid:
    """The geometry shared by all samples of a data set; coordinates themselves travel in a ``Context``.

    Example:
        >>> import math
        >>> grid = Grid((Axis("x", period=2 * math.pi), Axis("y", period=2 * math.pi)))
        >>> grid.dimension, grid.axis_names
        (2, ('x', 'y'))
        >>> [tuple(c.shape) for c in grid.uniform_coordinates((64, 32))]
        [(64,), (32,)]
    """

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if not 1 <= len(names) <= 3 or len(set(names)) != len(names):
            raise ValueError(f"Expected one to three axes with different names but got {names}.")

    @property
    def dimension(self) -> int:
        """Number of space axes."""
        return len(self.axes)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes, first axis first."""
        return tuple(axis.name for axis in self.axes)

    @property
    def periods(self) -> tuple[float, ...]:
        """Period of every axis.

        Raises:
            ValueError: if an axis is not periodic.
        """
        found = [axis.period for axis in self.axes if axis.period is not None]
        if len(found) != len(self.axes):
            open_axes = [axis.name for axis in self.axes if axis.period is None]
            raise ValueError(f"Expected periodic axes only, but {open_axes} are not; use a method for walls instead.")
        return tuple(found)

    def uniform_coordinates(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """Evenly spaced points ``i * period / n`` of periodic axes, one tensor of shape ``(n,)`` each."""
        if len(shape) != self.dimension:
            raise ValueError(f"Expected {self.dimension} sizes, one for each of {self.axis_names}, but got {shape}.")
        return tuple(
            torch.arange(size, dtype=dtype) * (period / size) for size, period in zip(shape, self.periods, strict=True)
        )

    def check_coordinates(self, coordinates: tuple[Tensor, ...]) -> None:
        """Refuse coordinates ``(n,)`` that do not increase or do not fit into one period; for readers and writers.

        Raises:
            ValueError: naming the axis.
        """
        if len(coordinates) != self.dimension:
            raise ValueError(f"Expected coordinates of {self.axis_names} but got {len(coordinates)} tensors.")
        for axis, points in zip(self.axes, coordinates, strict=True):
            if points.numel() < 2 or not bool((points.diff() > 0).all()):
                raise ValueError(f"Expected at least two increasing coordinates along axis {axis.name!r}.")
            extent = float(points[-1] - points[0])
            if axis.period is not None and extent >= axis.period * (1 - 1e-6):
                raise ValueError(
                    f"Expected coordinates of {axis.name!r} within one period {axis.period:g}, its end point left out, "
                    f"but they span {extent:g}."
                )

    def quadrature_weights(self, coordinates: tuple[Tensor, ...], *, cells: bool = False) -> tuple[Tensor, ...]:
        """Weights of each axis from its coordinates; shapes ``(..., n)`` as given.

        The trapezoid rule for nodes. A periodic axis closes on itself, so evenly spaced points get equal weights and
        the rule is spectrally accurate for smooth fields. The integral over the box is the tensor product of the
        weights.

        Args:
            coordinates: of nodes, or of the centers of cells.
            cells: points are centers: a cell reaches half way to its neighbors, and the outermost as far out as in, so
                that a sum over even cells is conserved exactly. An axis with bounds needs not be told: its weights are
                the widths between `cell_faces`, the trapezoid rule for nodes and those of the cells for centers.

        Raises:
            ValueError: if the number of axes is wrong.
        """
        if len(coordinates) != self.dimension:
            raise ValueError(f"Expected {self.dimension} coordinate tensors but got {len(coordinates)}.")
        return tuple(_line_weights(axis, points, cells) for axis, points in zip(self.axes, coordinates, strict=True))


def cell_faces(points: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Faces ``(..., n + 1)`` within bounds around ``points (..., n)``, for stretched cells too.

    If the points are the centers of cells that fill the axis, faces follow from the low end one by one. Points that are
    no such centers, such as nodes, have faces half way between them. Nothing is brought to the host.

    Args:
        points: increasing.
        bounds: the first and the last face.

    Example:
        >>> cell_faces(torch.tensor([0.5, 2.0, 3.5]), bounds=(0.0, 4.0)).tolist()
        [0.0, 1.0, 3.0, 4.0]
        >>> cell_faces(torch.tensor([0.0, 1.0, 4.0]), bounds=(0.0, 4.0)).tolist()
        [0.0, 0.5, 2.5, 4.0]
    """
    faces = faces_from(points.to(torch.float64), bounds[0])
    between = (faces[..., :-1] < points) & (points < faces[..., 1:])
    # A hundredth of the smallest cell: coordinates in single precision leave less.
    close = (faces[..., -1] - bounds[1]).abs() <= 1e-2 * points.diff(dim=-1).amin(-1)
    fits = (close & between.all(-1)).unsqueeze(-1)
    halfway = (points[..., 1:] + points[..., :-1]) / 2
    inner = torch.where(fits, faces[..., 1:-1].to(points.dtype), halfway)
    low, high = (torch.full_like(points[..., :1], bound) for bound in bounds)
    return torch.cat([low, inner, high], -1)


def faces_from(centers: Tensor, low: float) -> Tensor:
    """``f[i + 1] = 2 c[i] - f[i]`` from the lowest face ``low`` on: ``(..., n + 1)`` for ``centers (..., n)``.

    Example:
        >>> faces_from(torch.tensor([0.5, 2.0, 3.5]), low=0.0).tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    signs = torch.ones_like(centers)
    signs[..., 1::2] = -1
    places = torch.cat([torch.full_like(centers[..., :1], low), low - 2 * (signs * centers).cumsum(-1)], -1)
    places[..., 1::2] *= -1
    return places


def _line_weights(axis: Axis, points: Tensor, cells: bool) -> Tensor:
    if axis.bounds is not None:
        return cell_faces(points, axis.bounds).diff(dim=-1)
    gaps = points.diff(dim=-1)
    before = after = points[..., :1] * 0
    if axis.period is not None:
        before = after = points[..., :1] + axis.period - points[..., -1:]
    elif cells:
        before, after = gaps[..., :1], gaps[..., -1:]
    return (torch.cat([before, gaps], -1) + torch.cat([gaps, after], -1)) / 2


@dataclass(frozen=True)
class Metadata:
    """What never varies within a data set.

    ``frame_interval`` is the physical time between stored frames; ``parameters`` names the entries of
    ``Context.parameters`` in order.
    """

    name: str
    grid: Grid
    channels: tuple[Channel, ...]
    frame_interval: float
    parameters: tuple[str, ...] = ()
    time_units: str = "1"
    attributes: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        names = self.channel_names
        if not names or len(set(names)) != len(names):
            raise ValueError(f"Expected at least one channel, all with different names, but got {names}.")
        if not self.frame_interval > 0:
            raise ValueError(f"Expected a positive frame_interval but got {self.frame_interval}.")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Channel names in the order of the channel axis."""
        return tuple(channel.name for channel in self.channels)

    @property
    def cell_centered(self) -> bool:
        """Whether coordinates are those of cells: unless every channel lives on nodes."""
        return any(channel.location != "node" for channel in self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary (JSON and checkpoint safe); inverse of `from_dict`."""
        values = asdict(self)
        for axis in values["grid"]["axes"]:
            if axis["bounds"] is None:  # archives are byte for byte what they were before axes could have bounds
                del axis["bounds"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Metadata:
        """Build from the output of `to_dict`."""
        values = dict(values)
        axes = tuple(Axis(**axis) for axis in values.pop("grid")["axes"])
        channels = tuple(Channel(**channel) for channel in values.pop("channels"))
        parameters = tuple(values.pop("parameters"))
        return cls(grid=Grid(axes), channels=channels, parameters=parameters, **values)

    def require_same_fields(self, other: Metadata, *, what: str) -> None:
        """Refuse a data set whose channels, axes or frame interval differ from ours.

        Raises:
            ValueError: naming the first difference, ``what`` it came from, and the cure.
        """
        for label, ours, theirs in (
            ("channels", self.channel_names, other.channel_names),
            ("axes", self.grid.axis_names, other.grid.axis_names),
            ("periods", [axis.period for axis in self.grid.axes], [axis.period for axis in other.grid.axes]),
        ):
            if ours != theirs:
                raise ValueError(
                    f"Expected {label} {ours} but {what} has {theirs}. "
                    "Use data with the same fields, or train on these first."
                )
        if abs(self.frame_interval - other.frame_interval) > 1e-6 * self.frame_interval:
            raise ValueError(
                f"Expected frames {self.frame_interval} apart but {what} has {other.frame_interval}. "
                "Resample the data in time, or train at that interval."
            )

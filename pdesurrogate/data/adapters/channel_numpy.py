"""Filtered channel flow as published with IFactFormer-m: ``.npy``, ``(simulation, time, x, y, z, channel)``.

The data of arXiv:2412.18840 (Sci. China Phys. Mech. Astron. 69 (2026) 214606). What the numbers are stands in the name
alone: ``Retau180_dim21x400x32x33x16x4_dT200.npy`` and its siblings.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pdesurrogate.data.adapters.common import (
    lazy_trajectories,
    require_file,
    require_finite,
    require_split,
    splits_in_file_order,
)
from pdesurrogate.data.adapters.wall_spacing import Continuity, changes_over_gaps
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Trajectory

# Kinematic viscosities of the authors' simulations, in units of half height and laminar centerline velocity.
VISCOSITIES = {180: 1 / 4200, 395: 1 / 10500, 590: 1 / 16800}
BOX = (4 * math.pi, 4 * math.pi / 3)
# Frames that are looked at when a file is opened.
PROBED_FRAMES = 16
# Heights that leave this many times more unexplained than the best usual spacing, or than a tenth where that leaves
# less, do not belong to the field.
LARGEST_MISFIT = 1.5
# Coarse grids and filters leave the two sides of the continuity equation within a factor of 1.5; another box does not.
LARGEST_SCALE = 2.5
# Plane means of a turbulent channel are some ten times its fluctuations; this little is no mean flow.
SMALLEST_MEAN_FLOW = 1.0

_NAME = re.compile(r"Retau(\d+)_dim(\d+(?:x\d+)*)_dT(\d+)\.npy$")
_FIELDS = (
    Channel("velocity_x", "length/time", "streamwise velocity", "node", "velocity"),
    Channel("velocity_y", "length/time", "wall-normal velocity", "node", "velocity"),
    Channel("velocity_z", "length/time", "spanwise velocity", "node", "velocity"),
    Channel("pressure", "length^2/time^2", "pressure over density", "node"),
)


class ArrayName(NamedTuple):
    """What the name of a published array says.

    Attributes:
        friction_reynolds_number: nominal.
        shape: ``(simulation, time, x, y, z, channel)``.
        steps_per_frame: time steps of the simulation between frames.
    """

    friction_reynolds_number: int
    shape: tuple[int, ...]
    steps_per_frame: int

    @classmethod
    def parse(cls, name: str) -> ArrayName:
        """Of a file of this name.

        Raises:
            ValueError: for another kind of name, or sizes that no such array has.

        Example:
            >>> ArrayName.parse("Retau180_dim21x400x32x33x16x4_dT200.npy").shape
            (21, 400, 32, 33, 16, 4)
        """
        found = _NAME.search(name)
        if found is None:
            raise ValueError(
                f"Expected a name like Retau180_dim21x400x32x33x16x4_dT200.npy but got {name!r}; "
                "the name is all that says what the array holds, so give the file the one that it was published under."
            )
        shape = tuple(int(size) for size in found[2].split("x"))
        if len(shape) != 6 or shape[5] not in (3, 4):
            raise ValueError(
                "Expected six sizes (simulation, time, x, y, z, channel) with 3 or 4 channels in the name "
                f"but {name!r} has {shape}."
            )
        if min(shape[0], int(found[1]), int(found[3])) < 1 or min(shape[1], shape[2], shape[4]) < 2 or shape[3] < 4:
            raise ValueError(
                f"Expected at least 2 frames, 2 x 2 points along x and z, 4 planes from wall to wall, and positive "
                f"numbers after Retau and dT but got {name!r}."
            )
        return cls(int(found[1]), shape, int(found[3]))


class ChannelNumpy:
    """One array of filtered channel flow; an `Adapter`.

    The array is memory-mapped and only frames that are asked for are read. Lengths are in half heights: x and z are
    periodic, and the planes along y run from the wall at 0 to that at 2. Neither heights of planes nor time step nor
    viscosity are stored. Heights are told from the flow where none are given: see `Continuity.spacing`. The defaults of
    the other two are those of the simulations in the authors' earlier work, and were not checked against the data;
    `summary` shows whether they make sense.

    Splits are by simulation, in the order of the file: by default the last seventh for testing and before it a tenth
    for validation, of 21 simulations 16, 2 and 3.

    ``compat="reference"`` gives the authors' own split instead: all simulations but the last, the first 80 percent of
    them to train and the others to test, which are also ``val`` since the authors choose their checkpoint by them; the
    velocity alone, and trajectories one frame short, because the authors' count of pairs is one too small. With one
    frame in and one out, 21 simulations of 400 frames make 6,368 and 1,592 pairs.

    Args:
        path: the file, under its published name.
        heights: of the planes from 0 to 2; by default told from the flow. `wall_spacing` has the usual ones.
        lengths: periods along x and z.
        viscosity: kinematic; by default by the Reynolds number of the name.
        time_step: of the simulation that ``dT`` counts.
        channels: 3 for the velocity alone, 4 with what is taken for pressure; by default all.
        train: simulations at the start of the file, with those for validation.
        val: simulations cut from the end of those.
        test: simulations at the end of the file.
        slip_tolerance: largest speed on a wall, relative to the bulk velocity.
        compat: the authors' split, or ours.

    Raises:
        ValueError: if name, shape and size do not agree, the file is no array of real numbers, an argument is out of
            range, heights are neither given nor told, a wall plane moves, or there is no mean flow along x. Values are
            checked when they are read: NaN and infinity are refused.
    """

    def __init__(
        self,
        path: str | Path,
        heights: Sequence[float] | None = None,
        lengths: tuple[float, float] = BOX,
        viscosity: float | None = None,
        time_step: float = 0.005,
        channels: Literal[3, 4] | None = None,
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
        slip_tolerance: float = 1e-3,
        compat: Literal["reference"] | None = None,
    ) -> None:
        if compat not in (None, "reference"):
            raise ValueError(f"Expected compat None or 'reference' but got {compat!r}.")
        if len(lengths) != 2 or not min(lengths) > 0 or not time_step > 0 or not slip_tolerance >= 0:
            raise ValueError(
                "Expected two positive lengths, a positive time_step and slip_tolerance >= 0 but got "
                f"{tuple(lengths)}, {time_step} and {slip_tolerance}."
            )
        self.path = Path(path)
        require_file(self.path)
        self._name = ArrayName.parse(self.path.name)
        self._values: npt.NDArray[Any] | None = _map_array(self.path, self._name.shape)
        simulations, self._frames, nx, planes, nz, stored = self._name.shape
        self.compat = compat
        if compat == "reference":
            self._splits = _reference_splits(simulations, self._frames, (train, val, test))
        else:
            self._splits = _splits_by_simulation(simulations, train, val, test)
        count = channels or (3 if compat == "reference" else stored)
        if count not in (3, 4) or count > stored:
            raise ValueError(f"Expected channels 3 or 4, at most the {stored} of the file, but got {channels}.")
        self._lengths = (float(lengths[0]), float(lengths[1]))
        probed = self._probe()
        require_no_slip(probed, slip_tolerance, what=str(self.path))
        self._heights, spacing = _heights_of(probed, self._lengths, heights, planes)
        require_mean_flow(probed, self._heights, what=str(self.path))
        self._viscosity = _viscosity_of(self._name.friction_reynolds_number, viscosity)
        grid = Grid(
            (Axis("x", period=self._lengths[0]), Axis("y", bounds=(0.0, 2.0)), Axis("z", period=self._lengths[1]))
        )
        x, z = (
            (torch.arange(size, dtype=torch.float64) * (length / size)).float()
            for size, length in zip((nx, nz), self._lengths, strict=True)
        )
        self._coordinates = (x, self._heights.float(), z)
        self._metadata = Metadata(
            name=self.path.stem,
            grid=grid,
            channels=_FIELDS[:count],
            frame_interval=self._name.steps_per_frame * time_step,
            parameters=("viscosity",),
            attributes={
                "source_file": self.path.name,
                "source_bytes": self.path.stat().st_size,
                "walls": [0.0, 2.0],
                "half_height": 1.0,
                "viscosity": self._viscosity,
                "friction_velocity": self._name.friction_reynolds_number * self._viscosity,
                "friction_reynolds_number": float(self._name.friction_reynolds_number),
                "heights": spacing,
            },
        )

    @property
    def metadata(self) -> Metadata:
        """Velocity, perhaps pressure, at the nodes of a channel."""
        return self._metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one simulation."""
        return tuple(self._splits)

    @property
    def heights(self) -> Tensor:
        """``(planes,)`` from wall to wall in float64, as given or as told from the flow."""
        return self._heights

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split, in file order.

        Raises:
            ValueError: if there is no such split.
        """
        simulations = require_split(self._splits, split, path=self.path)
        times = self._metadata.frame_interval * torch.arange(self._frames, dtype=torch.float64)
        whole = lazy_trajectories(
            simulations, self._metadata, self._coordinates, times, self._viscosity, self._read_into
        )
        if self.compat == "reference":
            return [trajectory.part(0, self._frames - 1) for trajectory in whole]
        return whole

    def summary(self, frames: int = PROBED_FRAMES) -> ChannelSummary:
        """What the flow looks like in ``frames`` frames spread over the whole file; ``print`` it.

        Raises:
            ValueError: if a frame among these holds NaN or infinity.
        """
        velocity = self._probe(frames)
        return summarize(velocity, self._heights, self._lengths, self._viscosity)

    def _probe(self, frames: int = PROBED_FRAMES) -> Tensor:
        """Velocities ``(frame, 3, x, y, z)`` in float64, spread over all simulations and times."""
        total = self._name.shape[0] * self._frames
        places = np.unique(np.linspace(0, total - 1, max(frames, 1)).astype(int)).tolist()
        found = torch.empty(len(places), 3, *self._name.shape[2:5], dtype=torch.float64)
        for row, place in enumerate(places):
            simulation, frame = divmod(place, self._frames)
            self._read_into(simulation, frame, found[row : row + 1])
        return found

    def _read_into(self, simulation: int, start: int, out: Tensor) -> None:
        if self._values is None:
            self._values = _map_array(self.path, self._name.shape)
        frames = self._values[simulation, start : start + len(out), ..., : out.shape[1]]
        # Copied out of the map in the byte order of this machine, then channels first.
        out.copy_(torch.from_numpy(frames.astype(frames.dtype.newbyteorder("="))).movedim(-1, 1))
        require_finite(out, what=f"simulation {simulation} of {self.path}", start=start)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}


class ChannelSummary(NamedTuple):
    """A channel flow in a few numbers; lengths in half heights, velocities as stored.

    Attributes:
        bulk_velocity: mean of ``u`` over the volume.
        largest_slip: largest speed on a wall, relative to the bulk velocity.
        wall_shear_stress: at the lower and the upper wall, over density; from the wall and two planes.
        friction_velocity: square root of their mean.
        friction_reynolds_number: in half heights.
        bulk_reynolds_number: in half heights.
        first_plane: its distance from the wall in wall units; beyond about 2 the stress at the wall is a coarse guess.
        fluctuations: root mean square over the volume of each component's deviation from its plane means.
        divergence: mean size of the divergence in the gaps between planes.
        relative_divergence: its root mean square relative to that of ``dv/dy``.
    """

    bulk_velocity: float
    largest_slip: float
    wall_shear_stress: tuple[float, float]
    friction_velocity: float
    friction_reynolds_number: float
    bulk_reynolds_number: float
    first_plane: float
    fluctuations: tuple[float, float, float]
    divergence: float
    relative_divergence: float

    def __str__(self) -> str:
        rows = [
            ("bulk velocity", f"{self.bulk_velocity:.4g}"),
            ("largest slip on a wall", f"{self.largest_slip:.2g} of it"),
            ("wall shear stress", " and ".join(f"{stress:.4g}" for stress in self.wall_shear_stress)),
            ("friction velocity", f"{self.friction_velocity:.4g}"),
            ("Re_tau", f"{self.friction_reynolds_number:.1f}"),
            ("Re_bulk", f"{self.bulk_reynolds_number:.0f}"),
            ("first plane", f"y+ = {self.first_plane:.2f}"),
            ("fluctuations", ", ".join(f"{size:.3g}" for size in self.fluctuations)),
            ("mean |divergence|", f"{self.divergence:.3g}"),
            ("divergence over dv/dy", f"{self.relative_divergence:.2g}"),
        ]
        return "\n".join(f"{name:24}{value}" for name, value in rows)


def summarize(velocity: Tensor, heights: Tensor, lengths: tuple[float, float], viscosity: float) -> ChannelSummary:
    """The flow ``velocity (frame, 3, x, y, z)`` at the nodes of a channel, in numbers.

    Example:
        >>> from pdesurrogate.data.adapters.wall_spacing import uniform_heights
        >>> y = uniform_heights(9)
        >>> velocity = torch.zeros(1, 3, 4, 9, 4, dtype=torch.float64)
        >>> velocity[:, 0] = (1.5 * y * (2 - y))[:, None]
        >>> found = summarize(velocity, y, lengths=(4.0, 2.0), viscosity=0.01)
        >>> [round(stress, 4) for stress in found.wall_shear_stress]  # 3 viscosity U_b, exact for a parabola
        [0.03, 0.03]
    """
    mean, bulk = _mean_flow(velocity, heights)
    low, high = _slope_at_wall(mean[0], heights), _slope_at_wall(mean[0].flip(0), 2 - heights.flip(0))
    stress = viscosity * low, viscosity * high
    friction_velocity = math.sqrt(max(stress[0] + stress[1], 0.0) / 2)
    weights = _height_shares(heights)
    deviation = (velocity - mean[:, None, :, None]).square().mean((0, 2, 4)) @ weights
    change, convergence = changes_over_gaps(velocity, lengths)
    gaps = heights.diff()[:, None]
    across = change / gaps
    divergence = across - convergence
    size = float(across.square().mean().sqrt())
    return ChannelSummary(
        bulk_velocity=bulk,
        largest_slip=_largest_slip(velocity) / abs(bulk) if bulk else math.inf,
        wall_shear_stress=stress,
        friction_velocity=friction_velocity,
        friction_reynolds_number=friction_velocity / viscosity,
        bulk_reynolds_number=bulk / viscosity,
        first_plane=float(heights[1]) * friction_velocity / viscosity,
        fluctuations=(float(deviation[0].sqrt()), float(deviation[1].sqrt()), float(deviation[2].sqrt())),
        divergence=float(divergence.abs().mean()),
        relative_divergence=float(divergence.square().mean().sqrt()) / size if size else 0.0,
    )


def require_no_slip(velocity: Tensor, tolerance: float, *, what: str) -> None:
    """Refuse ``velocity (frame, 3, x, y, z)`` that moves on the first or last plane.

    Raises:
        ValueError: if the speed there is larger than ``tolerance`` times the mean of ``u`` over planes.
    """
    bulk = float(velocity[:, 0].mean())
    for plane, name in ((0, "first"), (-1, "last")):
        slip = float(velocity[:, :, :, plane].abs().max())
        if slip > tolerance * abs(bulk):
            raise ValueError(
                f"Expected no flow on the {name} plane along y of {what}, which is a wall, but it moves at up to "
                f"{slip:.3g} where the mean velocity is {bulk:.3g}. Axes or planes may be others than "
                "(simulation, time, x, y, z, channel) with both walls; if not, raise slip_tolerance."
            )


def require_mean_flow(velocity: Tensor, heights: Tensor, *, what: str) -> None:
    """Refuse ``velocity (frame, 3, x, y, z)`` without a mean flow along x that is larger than its fluctuations.

    Raises:
        ValueError: naming what was found instead.
    """
    mean, bulk = _mean_flow(velocity, heights)
    weights = _height_shares(heights)
    spread = float(((velocity[:, 0] - mean[0, :, None]).square().mean((0, 1, 3)) @ weights).sqrt())
    across, along_z = (float(profile @ weights) for profile in mean[1:])
    if not bulk > max(SMALLEST_MEAN_FLOW * spread, abs(across), abs(along_z)):
        raise ValueError(
            f"Expected a mean flow along x in {what} but the bulk velocities are {bulk:.3g}, {across:.3g} and "
            f"{along_z:.3g}, and u fluctuates by {spread:.3g}. Fluctuations alone, normalized fields and components in "
            "another order are no channel flow; restore the mean, or the order."
        )


def _map_array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array of a file, mapped; neither pickles nor other shapes are read."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise ValueError(f"version {version} of the format")
            found, by_column, dtype = readers[version](file)
            offset = file.tell()
    except ValueError as error:
        raise ValueError(
            f"Expected an array of numpy (.npy) but {path} is none ({error}); download it again."
        ) from error
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ValueError(f"Expected real numbers in {path} but got {dtype}; pickled objects are not loaded.")
    if tuple(found) != shape:
        raise ValueError(
            f"Expected the shape {shape} that its name says in {path} but the array has {tuple(found)}. "
            "The name or the file belongs to another array."
        )
    expected, size = offset + math.prod(shape) * dtype.itemsize, os.path.getsize(path)
    if size != expected:
        raise ValueError(
            f"Expected {expected} bytes in {path} but it has {size}; it is "
            f"{'truncated' if size < expected else 'longer than its array'}. Download it again."
        )
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order="F" if by_column else "C")


def _splits_by_simulation(total: int, train: int | None, val: int | None, test: int | None) -> dict[str, range]:
    if total < 3 and None in (train, val, test):
        raise ValueError(
            f"Expected three simulations or more for train, val and test but the file has {total}; "
            "give the sizes of all three splits."
        )
    test = round(total / 7) or 1 if test is None else test
    train = max(total - test, 0) if train is None else train
    val = min(round(total / 10) or 1, train) if val is None else val
    return splits_in_file_order(total, train, val, test)


def _reference_splits(total: int, frames: int, sizes: tuple[int | None, ...]) -> dict[str, range]:
    used = total - 1
    if sizes != (None, None, None):
        raise ValueError("Expected no sizes of splits with compat='reference', which has its own; leave them out.")
    if used < 5 or used % 5 or frames < 3:
        raise ValueError(
            f"Expected one simulation more than a multiple of five, of three frames at least, for compat='reference' "
            f"but the file has {total} of {frames} frames; their split would cut through a simulation. Use our split."
        )
    held_out = range(used * 4 // 5, used)
    return {"train": range(used * 4 // 5), "val": held_out, "test": held_out}


def _heights_of(
    velocity: Tensor, lengths: tuple[float, float], given: Sequence[float] | None, planes: int
) -> tuple[Tensor, str]:
    """Heights ``(planes,)`` and where they come from."""
    continuity = Continuity.of(velocity, lengths)
    told = continuity.spacing()
    if told is not None and not 1 / LARGEST_SCALE < told.factor < LARGEST_SCALE:
        raise ValueError(
            f"Expected lengths along x and z in half heights but {lengths} are {told.factor:.2g} times as large as the "
            "continuity equation asks for. Give the periods of the box."
        )
    if given is None:
        if told is None:
            kinds = ", ".join(f"{kind.name}: {kind.unexplained:.3f}" for kind in continuity.best_of_each())
            raise ValueError(
                f"Expected heights of the {planes} planes: none were given, and the flow does not tell them (share of "
                f"the continuity equation left unexplained by {kinds}). Give heights, from 0 to 2."
            )
        return told.heights, f"{told.name}, told from the flow"
    heights = torch.tensor([float(height) for height in given], dtype=torch.float64)
    if len(heights) != planes or not bool((heights.diff() > 0).all()):
        raise ValueError(f"Expected {planes} increasing heights, one for each plane, but got {heights.tolist()}.")
    if abs(float(heights[0])) > 1e-6 or abs(float(heights[-1]) - 2) > 1e-6:
        raise ValueError(
            f"Expected heights from 0 to 2, in half heights from the lower wall, but got {float(heights[0]):g} to "
            f"{float(heights[-1]):g}; shift and scale them."
        )
    _, misfit = continuity.fit(heights)
    if told is not None and misfit > LARGEST_MISFIT * max(told.unexplained, 0.1):
        raise ValueError(
            f"Expected heights at which the flow is incompressible but those given leave {misfit:.3f} of the "
            f"continuity equation unexplained, and planes spaced as {told.name} only {told.unexplained:.3f}. "
            "Leave heights out to take these, or check order and units."
        )
    heights[0], heights[-1] = 0.0, 2.0
    return heights, "given"


def _viscosity_of(friction_reynolds_number: int, viscosity: float | None) -> float:
    if viscosity is None:
        if friction_reynolds_number not in VISCOSITIES:
            raise ValueError(
                f"Expected a viscosity for Re_tau = {friction_reynolds_number}: it is known for "
                f"{', '.join(map(str, VISCOSITIES))} only; give it."
            )
        return VISCOSITIES[friction_reynolds_number]
    if not viscosity > 0:
        raise ValueError(f"Expected a positive viscosity but got {viscosity}.")
    return float(viscosity)


def _mean_flow(velocity: Tensor, heights: Tensor) -> tuple[Tensor, float]:
    """Plane means ``(3, planes)`` and the bulk velocity."""
    mean = velocity.mean((0, 2, 4))
    return mean, float(mean[0] @ _height_shares(heights))


def _height_shares(heights: Tensor) -> Tensor:
    """The trapezoid rule, as a mean."""
    (weights,) = Grid((Axis("y", bounds=(0.0, 2.0)),)).quadrature_weights((heights,))
    return weights / weights.sum()


def _largest_slip(velocity: Tensor) -> float:
    return float(torch.stack([velocity[:, :, :, 0], velocity[:, :, :, -1]]).norm(dim=2).max())


def _slope_at_wall(profile: Tensor, heights: Tensor) -> float:
    """At the first plane, of the parabola through it and the two planes after it."""
    near, far = float(heights[1] - heights[0]), float(heights[2] - heights[0])
    one, other = float(profile[1] - profile[0]), float(profile[2] - profile[0])
    return (one * far / near - other * near / far) / (far - near)

"""Velocity along the two centerlines of a box, as cavities and steps are compared by."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Axis, cell_faces
from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.conservation import SIDES, ratio, require_velocity
from pdesurrogate.metrics.faces import open_faces
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.staggered import is_staggered


def bounds_of(points: Tensor, axis: Axis, *, cells: bool) -> tuple[float, float]:
    """Where an axis ends: its bounds, else the outermost nodes, or half a cell beyond the outermost centers.

    Args:
        points: ``(n,)``.
        axis: which they lie on.
        cells: points are centers of cells.

    Example:
        >>> bounds_of(torch.tensor([0.5, 1.5, 2.5]), Axis("x"), cells=True)
        (0.0, 3.0)
    """
    if axis.bounds is not None:
        return axis.bounds
    low, high = float(points[0]), float(points[-1])
    if not cells:
        return low, high
    return low - float(points[1] - points[0]) / 2, high + float(points[-1] - points[-2]) / 2


def interpolation_weights(points: Tensor, place: float) -> Tensor:
    """Weights ``(n,)`` of linear interpolation between the two points that enclose a place; zero elsewhere.

    Beyond the last point the line through the last two is followed.

    Example:
        >>> interpolation_weights(torch.tensor([0.0, 1.0, 3.0]), 1.5).tolist()
        [0.0, 0.75, 0.25]
    """
    points = points.to(torch.float64)
    below = min(max(int((points <= place).sum()) - 1, 0), points.numel() - 2)
    share = (place - points[below]) / (points[below + 1] - points[below])
    share = (share * 1e9).round() / 1e9  # round-off of coordinates must not reach for a point beyond
    weights = torch.zeros_like(points)
    weights[below], weights[below + 1] = 1 - share, share
    return weights


class CenterlineMetric(RolloutMetric):
    """Mean over frames of the first component along the vertical, the second along the horizontal centerline of a box.

    Vertical is the second axis. A profile is interpolated linearly between the two nearest columns (rows) of points or
    faces, and given at the points along the line, whose places are shares of the box's extent, so that boxes of
    different extent go together. Points that are solid, or lie beside a solid point or closed face that the
    interpolation takes, are NaN and do not count. The error is the root mean square difference over a line, relative to
    the truth's root mean square over both lines, since one of the two may vanish by symmetry.

    Of a trajectory that was stopped the prediction's profiles are those of the frames before, its errors NaN.

    Args:
        plan: what is going to be measured.

    Raises:
        ValueError: if the data hold no plane velocity whose components live at the same points or on the faces that
            they cross, an axis is periodic, or boxes differ in extent and have points that are not even.
    """

    measured: Tensor

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        what = "centerline profiles"
        self.flow = require_velocity(plan, what)
        self._staggered = is_staggered(plan)
        if len(plan.shape) != 2 or any(plan.periodic):
            raise ValueError(
                f"Expected two axes that are not periodic for {what} but got periodic: {plan.periodic}; leave this "
                "metric out of the suite."
            )
        if not (self.flow.collocated or self._staggered):
            raise ValueError(
                f"Expected velocity components at the same points, or each on the faces that it crosses, for {what} "
                f"but they are declared at {self.flow.locations}; correct the location of the channels."
            )
        if not (plan.shared_grid or all(plan.even)):
            raise ValueError(
                f"Expected one grid, or boxes of even points, for {what} but got even: {plan.even} and boxes of "
                "different extent; leave this metric out of the suite."
            )
        cells = plan.cell_centered
        self._places = []
        for axis, (points, line) in enumerate(zip(plan.coordinates, plan.metadata.grid.axes, strict=True)):
            points = points.to("cpu", torch.float64)
            low, high = bounds_of(points, line, cells=cells)
            self._places.append((points - low) / (high - low))
            stored = cell_faces(points, (low, high))[:-1] if self._staggered else points
            across = interpolation_weights(stored, (low + high) / 2)
            self.register_buffer(f"across_{axis}", across, persistent=False)
        for component in range(2):
            size = plan.shape[1 - component]
            for side in SIDES:
                zeros = torch.zeros(plan.trajectories, size, dtype=torch.float64)
                self.add_state(f"sum_{component}_{side}", default=zeros, dist_reduce_fx="sum")
                self.add_state(f"count_{component}_{side}", default=zeros.clone(), dist_reduce_fx="sum")
        self.add_state("measured", default=torch.zeros(plan.trajectories, dtype=torch.long), dist_reduce_fx="sum")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        variables = {}
        for component, (name, line, text) in enumerate(self._lines):
            channel = self.plan.metadata.channels[self.flow.channels[component]]
            for side in SIDES:
                variables[f"centerline_{name}_{side}"] = Variable(
                    ("trajectory", line), channel.units, f"{name} along the {text} centerline, mean over frames, {side}"
                )
            variables[f"centerline_{name}_error"] = Variable(
                ("trajectory",), "1", f"rms error of {name} along the {text} centerline, relative to the truth's rms"
            )
        return variables

    @property
    def _lines(self) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
        """Name of each component, dimension and name of its line."""
        first, second = self.plan.metadata.grid.axis_names
        return (
            (f"velocity_{first}", "vertical_position", "vertical"),
            (f"velocity_{second}", "horizontal_position", "horizontal"),
        )

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Places along both lines."""
        horizontal, vertical = self._places
        return {
            "vertical_position": Coordinate(vertical, "1", "position along the second axis, share of the box's extent"),
            "horizontal_position": Coordinate(
                horizontal, "1", "position along the first axis, share of the box's extent"
            ),
        }

    @property
    def scores(self) -> dict[str, Score]:
        """Errors of both profiles."""
        names = [f"centerline_{name}_error" for name, _, _ in self._lines]
        return {name: Score(name, self.variables[name].long_name) for name in names}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        self.frame_range(block)
        mask = block.context.mask
        if mask is None:
            fluid = None
        elif self._staggered:
            fluid = open_faces(mask, self.plan.periodic)
        else:
            fluid = mask.bool()[:, None].expand(-1, 2, -1, -1)
        for component in range(2):
            weights = self.get_buffer(f"across_{component}")
            # Columns of the first component are taken along the first axis, rows of the second along the second.
            along = component - 2
            used = weights != 0
            for side, fields in block.sides:
                values = fields.velocity[:, :, component].movedim(along, -1).to(torch.float64)
                profile = torch.where(used, values * weights, 0.0).sum(-1)
                kept = torch.isfinite(profile)
                if fluid is not None:
                    kept = kept & (fluid[:, component].movedim(along, -1) | ~used).all(-1)[:, None]
                sums: Tensor = getattr(self, f"sum_{component}_{side}")
                counts: Tensor = getattr(self, f"count_{component}_{side}")
                sums.index_add_(0, block.trajectories, torch.where(kept, profile, 0.0).sum(1))
                counts.index_add_(0, block.trajectories, kept.sum(1).to(torch.float64))
        self.measured.index_add_(0, block.trajectories, torch.full_like(block.trajectories, block.frames))

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        if bool((self.measured < self.plan.frames).any()):
            raise ValueError(
                f"Expected {self.plan.frames} frames of each of {self.plan.trajectories} trajectories but got "
                f"{self.measured.tolist()}; update with every block of every rollout first."
            )
        lines = self.plan.quadrature_weights(self.plan.coordinates)
        outputs: dict[str, Tensor] = {}
        squares, errors = [], {}
        for component, (name, _, _) in enumerate(self._lines):
            counts = {side: getattr(self, f"count_{component}_{side}") for side in SIDES}
            for side, count in counts.items():
                outputs[f"centerline_{name}_{side}"] = getattr(self, f"sum_{component}_{side}") / count
            prediction, truth = (outputs[f"centerline_{name}_{side}"] for side in SIDES)
            weights = lines[1 - component].to(truth) * (counts["truth"] > 0)
            weights = weights / weights.sum(-1, keepdim=True)
            stopped = (counts["prediction"] < counts["truth"]).any(-1)
            difference = torch.where(weights > 0, weights * (prediction - truth).square(), 0.0).sum(-1)
            errors[f"centerline_{name}_error"] = torch.where(stopped, torch.nan, difference)
            squares.append(torch.where(weights > 0, weights * truth.square(), 0.0).sum(-1))
        scale = squares[0] + squares[1]
        return outputs | {name: ratio(error, scale).sqrt() for name, error in errors.items()}

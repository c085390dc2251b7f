"""Vortices by the Q-criterion, and how strong and how common they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable
from pdesurrogate.metrics.block import Block, Fields
from pdesurrogate.metrics.channel import ChannelGeometry
from pdesurrogate.metrics.flow import require_flow, squared
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.pooling import compared, distances_with_errors, leave_one_out, require_all_frames, with_errors
from pdesurrogate.metrics.profiles import height_weights
from pdesurrogate.metrics.staggered import components_at_centers, faces_to_centers, is_staggered
from pdesurrogate.physics.finite_difference import derivative
from pdesurrogate.physics.spectral import derivative_wavenumbers

# Bins of the Q-criterion reach to this many times its root mean square.
_LARGEST_Q = 100.0
# So many frames of one rollout are enough for a distribution over its whole box.
_FRAMES_ENOUGH = 32


def spectral_derivative_matrix(points: Tensor, period: float) -> Tensor:
    """Matrix ``(n, n)`` that takes values on evenly spaced ``points (n,)`` of a period to the Fourier derivative there.

    Exact for waves below Nyquist's; that of Nyquist's wave is zero. A product with it is faster than two transforms up
    to some hundred points.

    Example:
        >>> x = torch.arange(8, dtype=torch.float64) * (2 * torch.pi / 8)
        >>> matrix = spectral_derivative_matrix(x, 2 * torch.pi)
        >>> bool(torch.allclose(matrix @ torch.sin(3 * x), 3 * torch.cos(3 * x)))
        True
    """
    size = points.numel()
    (waves,) = derivative_wavenumbers((size,), (period,), dtype=points.dtype, device=points.device)
    columns = torch.fft.rfft(torch.eye(size, dtype=points.dtype, device=points.device))
    return torch.fft.irfft(1j * waves * columns, n=size).T.contiguous()


def difference_matrix(points: Tensor, period: float | None = None) -> Tensor:
    """Matrix ``(n, n)`` that takes values on ``points (n,)`` to `derivative` there."""
    rows = torch.eye(points.numel(), dtype=points.dtype, device=points.device)
    return derivative(rows, points, -1, period).T.contiguous()


def derivatives_along_axes(velocity: Tensor, matrices: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Derivatives along each axis of all components of ``velocity (..., component, *space)``; same shape each.

    Args:
        velocity: collocated.
        matrices: ``(n, n)`` for each space axis, as `spectral_derivative_matrix` and `difference_matrix` give them.
    """
    dimension = len(matrices)
    found = []
    for axis, matrix in enumerate(matrices, start=-dimension):
        matrix = matrix.to(velocity.dtype)
        if axis == -1:
            found.append(velocity @ matrix.T)
        else:
            found.append((matrix @ velocity.flatten(axis + 1)).reshape(velocity.shape))
    return tuple(found)


def q_criterion(velocity: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """``Q = -1/2 d_i u_j d_j u_i``: rotation beyond strain where positive (Hunt, Wray and Moin, CTR-S88, 1988).

    For incompressible flow it is half of the squared rate of rotation less that of strain, ``(W:W - S:S) / 2``.

    Args:
        velocity: collocated ``(..., d, *space)``, a component for each axis, in their order.
        matrices: of derivatives along each axis, see `derivatives_along_axes`.

    Returns:
        ``(..., *space)``, units of a squared velocity per squared length.

    Raises:
        ValueError: if the components or matrices are not as many as the axes.

    Example:
        >>> y = torch.linspace(-1, 1, 5, dtype=torch.float64)
        >>> rotation = torch.stack([-y.expand(5, 5), y[:, None].expand(5, 5)])  # (-y, x): spinning at unit rate
        >>> q_criterion(rotation, [difference_matrix(y)] * 2)[2, 2].item()
        1.0
    """
    dimension = len(matrices)
    if velocity.ndim <= dimension or velocity.shape[-dimension - 1] != dimension:
        raise ValueError(
            f"Expected velocity (..., {dimension}, *space), as many components as axes and matrices, but got "
            f"{tuple(velocity.shape)}."
        )
    gradient = [part.unbind(-dimension - 1) for part in derivatives_along_axes(velocity, matrices)]
    total = torch.zeros_like(gradient[0][0])
    for i in range(dimension):
        total.addcmul_(gradient[i][i], gradient[i][i], value=-0.5)
        for j in range(i):
            total.addcmul_(gradient[i][j], gradient[j][i], value=-1)
    return total


class VortexMetric(RolloutMetric):
    """How the Q-criterion is distributed over the box: root mean square, share of positive values, density.

    Pooled over frames and trajectories, with standard errors from blocks of them. For the density Q is divided by its
    true root mean square in the same frame, so that it shows strength as well as shape; bins are even in
    ``sign(q) log(1 + |q|)`` up to ``|q| = 100`` and the outermost hold all beyond. Derivatives are spectral along
    evenly spaced periodic axes, else by second-order differences. Staggered components are brought to the centers of
    cells first (`metrics.staggered`), and the walls of their channel are at rest. Where a trajectory was stopped,
    distances are NaN. A frame whose true Q vanishes throughout, of a laminar channel for example, has no density.

    Args:
        plan: what is going to be measured.
        bins: of the density, an odd number: the middle one is centered at zero.
        every: measure only every so many frames; by default so many that no more than 32 of a rollout are measured.
            Neighbors tell much the same, and Q is dear.

    Raises:
        ValueError: if there is no velocity, its components live neither at the same points nor each on the faces that
            it crosses, there is a mask, trajectories differ in their grid, staggered data are no channel and no evenly
            spaced periodic box, or the numbers are not positive or ``bins`` is even.
    """

    edges: Tensor
    weights: Tensor
    to_centers: Tensor
    q_moments_prediction_count: Tensor
    q_moments_truth_count: Tensor

    def __init__(self, plan: RolloutPlan, bins: int = 41, every: int | None = None) -> None:
        super().__init__(plan)
        self.flow = require_flow(plan.metadata, "the Q-criterion")
        self._staggered = is_staggered(plan)
        if not (self.flow.collocated or self._staggered) or plan.masked or not plan.shared_grid:
            raise ValueError(
                f"Expected velocity components at the same points or each on the faces that it crosses, no mask and "
                f"one grid for the Q-criterion but got {self.flow.locations}, mask: {plan.masked}, one grid: "
                f"{plan.shared_grid}; interpolate the components first, or leave this metric out of the suite."
            )
        every = -(-plan.frames // _FRAMES_ENOUGH) if every is None else every
        if bins < 3 or bins % 2 == 0 or every < 1:
            raise ValueError(f"Expected an odd number of bins from 3 and every from 1 but got {bins} and {every}.")
        self.bins = bins
        self.every = every
        self._axes = [f"derivative_{name}" for name in plan.metadata.grid.axis_names]
        lines = [line.to("cpu", torch.float64) for line in plan.quadrature_weights(plan.coordinates)]
        channel = self._staggered_channel(plan)
        for place, name in enumerate(self._axes):
            self.register_buffer(name, _derivative_matrix(plan, place), persistent=False)
        if channel is not None:
            across, walls = channel.wall_axis, channel.walls
            # The velocity is zero on the walls, which therefore need no columns.
            nodes = torch.cat(
                [channel.points.new_tensor(walls[:1]), channel.points, channel.points.new_tensor(walls[1:])]
            )
            self.register_buffer(self._axes[across], difference_matrix(nodes)[1:-1, 1:-1], persistent=False)
            self.register_buffer("to_centers", faces_to_centers(channel.points, walls), persistent=False)
            lines[across] = height_weights(channel.points, walls)
        self._wall_axis = None if channel is None else channel.wall_axis
        weights = torch.cartesian_prod(*lines).prod(-1)
        self.register_buffer("weights", weights / weights.sum(), persistent=False)
        # Bins are even in the compressed Q, its sign times the logarithm of one and its magnitude.
        edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64) * math.log1p(_LARGEST_Q)
        centers = (edges[1:] + edges[:-1]) / 2
        self.register_buffer("edges", edges.sign() * edges.abs().expm1(), persistent=False)
        self._centers = centers.sign() * centers.abs().expm1()
        for side in ("prediction", "truth"):
            self.add_pooled(f"q_moments_{side}", 2)
            self.add_pooled(f"q_shares_{side}", bins)

    def _staggered_channel(self, plan: RolloutPlan) -> ChannelGeometry | None:
        """The channel that staggered components live in; ``None`` for a periodic box or collocated ones."""
        if not self._staggered:
            return None
        if not all(plan.periodic):
            along = [place for place, each in zip(self.flow.channels, plan.periodic, strict=True) if each]
            return ChannelGeometry.of(plan, "the Q-criterion of staggered components", along)
        if not all(plan.even):
            raise ValueError(
                f"Expected evenly spaced axes for the Q-criterion of staggered components but got even: {plan.even}; "
                "interpolate them to common points first, or leave this metric out of the suite."
            )
        return None

    def _velocity(self, fields: Fields, chosen: slice) -> Tensor:
        """``(batch, chosen, component, *space)`` at common points."""
        velocity = fields.velocity[:, chosen]
        if not self._staggered:
            return velocity
        places = range(len(self._axes))
        return components_at_centers(
            velocity, [self.to_centers if axis == self._wall_axis else None for axis in places]
        )

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        units, axis = squared(self.flow.vorticity_units), "standardized_q"
        quantities = {
            "q_criterion_rms": Variable((), units, "root mean square of the Q-criterion"),
            "vortex_fraction": Variable((), "1", "share of the box where the Q-criterion is positive"),
            "q_criterion_density": Variable((axis,), "1", "probability density of the Q-criterion"),
        }
        distances = {
            "q_criterion_rms_deviation": Variable((), "1", "relative error of the Q-criterion's root mean square"),
            "q_criterion_density_distance": Variable((), "1", "share of the box in other bins of the Q-criterion"),
        }
        return with_errors(quantities) | distances_with_errors(distances)

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Centers of the bins."""
        label = "Q-criterion over its true root mean square in the same frame"
        return {"standardized_q": Coordinate(self._centers, "1", label)}

    @property
    def scores(self) -> dict[str, Score]:
        """Both distances."""
        names = ("q_criterion_rms_deviation", "q_criterion_density_distance")
        return {name: Score(name, self.variables[name].long_name) for name in names}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        chosen = slice(-block.first_frame % self.every, None, self.every)
        matrices = [getattr(self, name) for name in self._axes]
        if chosen.start >= block.frames:
            return
        q = {side: q_criterion(self._velocity(fields, chosen), matrices).flatten(2) for side, fields in block.sides}
        squares = {side: self._mean(values.square()) for side, values in q.items()}
        scale = squares["truth"].sqrt()
        for side, values in q.items():
            moments = torch.stack([squares[side], self._mean((values > 0).to(values.dtype))], -1)
            known = torch.isfinite(squares[side]) & (scale > 0)
            shares = self._shares(values.div_(scale.to(values.dtype).unsqueeze(-1)))
            shares = torch.where(known.unsqueeze(-1), shares, torch.nan)
            self.pool(f"q_moments_{side}", _between(moments, chosen, block), block)
            self.pool(f"q_shares_{side}", _between(shares, chosen, block), block)

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the box of ``values (batch, time, points)``; ``(batch, time)``, float64."""
        return (values @ self.weights.to(values.dtype)).to(torch.float64)

    def _shares(self, values: Tensor) -> Tensor:
        """Share of the box in each bin of ``values (batch, time, points)``; ``(batch, time, bins)``, float64."""
        compressed = values.abs().log1p_().copysign_(values)
        places = compressed.mul_(self.bins / (2 * math.log1p(_LARGEST_Q))).add_(self.bins / 2)
        # Frames of stopped trajectories go anywhere; they are left out later.
        places = places.nan_to_num_(0.0).clamp_(0, self.bins - 1).long()
        # In single precision a sum stalls once a share is less than half of its last digit.
        shares = torch.zeros(*places.shape[:2], self.bins, dtype=torch.float64, device=values.device)
        return shares.scatter_add_(-1, places, self.weights.expand(places.shape))

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        require_all_frames(self, "q_moments_truth", -(-self.plan.frames // self.every))
        found, left_out = {}, {}
        for side in ("prediction", "truth"):
            moments, moment_blocks = self.pooled(f"q_moments_{side}")
            shares, share_blocks = self.pooled(f"q_shares_{side}")
            found[side] = self._statistics(moments, shares)
            left_out[side] = self._statistics(leave_one_out(moment_blocks), leave_one_out(share_blocks))
        complete = bool(self.q_moments_prediction_count.sum() == self.q_moments_truth_count.sum())
        return compared(found, left_out, self._distances, complete)

    def _statistics(self, moments: Tensor, shares: Tensor) -> dict[str, Tensor]:
        square, positive = moments.unbind(-1)
        return {
            "q_criterion_rms": square.sqrt(),
            "vortex_fraction": positive,
            "q_criterion_density": shares / self.edges.diff(),
        }

    def _distances(self, prediction: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ratio = prediction["q_criterion_rms"] / truth["q_criterion_rms"]
        difference = (prediction["q_criterion_density"] - truth["q_criterion_density"]) * self.edges.diff()
        return {
            "q_criterion_rms_deviation": (ratio - 1).abs(),
            "q_criterion_density_distance": difference.abs().sum(-1) / 2,
        }


def _derivative_matrix(plan: RolloutPlan, place: int) -> Tensor:
    """Of one axis, in float64: spectral where it is periodic and evenly spaced."""
    points, period = plan.coordinates[place].to("cpu", torch.float64), plan.metadata.grid.axes[place].period
    if period is not None and plan.even[place]:
        return spectral_derivative_matrix(points, period)
    return difference_matrix(points, period)


def _between(values: Tensor, chosen: slice, block: Block) -> Tensor:
    """Measured frames ``(batch, chosen, n)`` in their place among all of a block, NaN between them."""
    spread = values.new_full((len(values), block.frames, values.shape[-1]), torch.nan)
    spread[:, chosen] = values
    return spread

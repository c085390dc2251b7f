"""Conservation and bounds at once: densities that stay positive, shares that stay between zero and one.

Clipping a conserved field breaks its conservation. Here the unknowns that are not at a bound take up what clipping
adds: the weighted projection onto all fields that satisfy both, by water-filling.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Diagonal
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows

# How far beyond what can be attained a target may be, relative to its terms: round-off of their sum.
_ROUND_OFF = 1e-12


class Bounded(NamedTuple):
    """What `condition_within` finds.

    Attributes:
        mode: ``(..., *event)``, the most probable field within the bounds, of the prior mean's precision. Where no
            bound is active, the mean of `condition`.
        variance: ``(..., *event)`` in float64, of the unknowns that are free, were the others fixed at their bounds:
            zero for those, and that of `condition` where no bound is active.
        at_bound: ``(..., *event)``, true where the mode is held at a bound.
    """

    mode: Tensor
    variance: Tensor
    at_bound: Tensor


def condition_within(
    mean: Tensor,
    covariance: Diagonal,
    constraint: LinearConstraint,
    lower: Tensor | float = -math.inf,
    upper: Tensor | float = math.inf,
) -> Bounded:
    """The most probable field of ``N(mean, covariance)`` that satisfies the constraint and lies within bounds.

    Minimizes ``sum (y - mean)^2 / variance`` over ``G y = b``, ``lower <= y <= upper``. For rows that share no unknown

        y = max(lower, min(upper, mean - l w variance)),

    with a multiplier ``l`` for each row, found exactly by bisection over the sorted multipliers at which an unknown
    meets its bound. ``O(n log n)``. A target with a variance is met as far as that says. Unknowns without variance, or
    in no row, are only clipped. Differentiable in mean, variance, target and bounds, as long as the same unknowns are
    at them. Computed in float64; the mean keeps its precision.

    Args:
        mean: ``(..., *event)``, physical units.
        covariance: of independent unknowns.
        constraint: rows that share no unknown, targets that are exact or independent.
        lower: bound, a number or what broadcasts to the mean; minus infinity for none.
        upper: bound, likewise.

    Raises:
        ValueError: if rows share unknowns or targets are correlated, shapes do not fit, the mean is not finite, a lower
            bound is above its upper one, or a target cannot be attained within the bounds; this names the row and the
            range.

    Example:
        >>> mass = LinearConstraint(DisjointRows(torch.ones(3), event_ndim=1), torch.tensor([1.0]))
        >>> found = condition_within(torch.tensor([0.0, 1.0, 3.0]), Diagonal(1.0), mass, lower=0.0)
        >>> found.mode.tolist(), found.at_bound.tolist()
        ([0.0, 0.0, 1.0], [True, True, False])
    """
    rows = _disjoint(constraint)
    residual = constraint.residual(mean)
    _require_finite(residual, constraint)
    fill = _Filling(mean.to(torch.float64), covariance.variance, rows, constraint, lower, upper)
    fill.require_attainable()
    mode, variance, at_bound = fill.solved(*fill.interval())
    # Rounded once more, as the bounds are to the precision of the mean.
    mode = mode.to(mean.dtype)
    low, high = (torch.as_tensor(bound, dtype=mean.dtype, device=mean.device) for bound in (lower, upper))
    return Bounded(_held(mode, low, high), variance, at_bound)


class _Filling:
    """Water-filling of rows that share no unknown: sums of ``y`` fall, piecewise linearly, with the multipliers."""

    def __init__(
        self,
        mean: Tensor,
        variance: Tensor,
        rows: DisjointRows,
        constraint: LinearConstraint,
        lower: Tensor | float,
        upper: Tensor | float,
    ) -> None:
        self.rows = rows
        self.names = constraint.names
        # Unknowns in no row have no weight in any.
        weights = rows.transpose(torch.ones(rows.count, dtype=torch.float64, device=rows.weights.device))
        low, high = (torch.as_tensor(bound, dtype=torch.float64, device=mean.device) for bound in (lower, upper))
        for what, value in (("variances", variance), ("lower bounds", low), ("upper bounds", high)):
            own = value.shape[max(value.ndim - rows.event_ndim, 0) :]
            if not all(size in (1, other) for size, other in zip(reversed(own), reversed(rows.event), strict=False)):
                raise ValueError(
                    f"Expected {what} that broadcast to unknowns {rows.event} but got {tuple(value.shape)}."
                )
        parts = torch.broadcast_tensors(mean, variance, weights, low, high)
        self.mean, self.variance, self.weights, self.lower, self.upper = parts
        if not bool((self.lower <= self.upper).all()):
            raise ValueError("Expected lower bounds up to the upper ones but some are above, or NaN; exchange them.")
        self.spread = self.weights * self.variance
        self.moves = self.spread != 0
        self.target = constraint.target.to(torch.float64)
        self.noise = (
            torch.zeros_like(self.target) if constraint.variance is None else constraint.variance.to(self.target)
        )

    def at(self, multipliers: Tensor) -> Tensor:
        """``y (..., *event)`` of ``multipliers (..., rows)``."""
        return _clamped(self.mean - self.rows.lift(multipliers) * self.spread, self.lower, self.upper)

    def excess(self, multipliers: Tensor) -> Tensor:
        """What the rows have above their targets: falls with the multiplier."""
        return self.rows.collect(self.weights * self.at(multipliers)) - self.target - self.noise * multipliers

    def require_attainable(self) -> None:
        """Refuse exact targets that no field within the bounds has."""
        resting = _clamped(self.mean, self.lower, self.upper)
        ends = torch.where(self.moves, self.lower, resting), torch.where(self.moves, self.upper, resting)
        terms = [torch.where(self.weights == 0, 0.0, self.weights * end) for end in ends]
        least = self.rows.collect(torch.minimum(*terms))
        most = self.rows.collect(torch.maximum(*terms))
        finite = (
            self.rows.collect(torch.where(self.weights == 0, 0.0, self.weights * resting).abs()) + self.target.abs()
        )
        slack = _ROUND_OFF * finite
        out = ((self.target < least - slack) | (self.target > most + slack)) & (self.noise == 0)
        if bool(out.any()):
            row = int(out.reshape(-1, out.shape[-1]).any(0).nonzero()[0])
            number = int(out[..., row].reshape(-1).nonzero()[0])
            target, low, high = (
                float(value.expand(out.shape)[..., row].reshape(-1)[number]) for value in (self.target, least, most)
            )
            raise ValueError(
                f"Expected a target of {self.names[row]!r} that fields within the bounds can have, from {low:.6g} to "
                f"{high:.6g}, but got {target:.6g}; widen the bounds, correct the target, give it a variance, or give "
                "variance to more unknowns."
            )

    @torch.no_grad()
    def interval(self) -> tuple[Tensor, Tensor]:
        """``(..., rows)`` between which multipliers the solution lies; no unknown meets a bound in between."""
        marks = torch.stack(self._meetings()).movedim(0, -1).flatten(-self.rows.event_ndim - 1)
        marks = torch.where(marks.isfinite(), marks, 0.0).sort(-1).values
        count = marks.shape[-1]
        marks = marks.expand(*torch.broadcast_shapes(marks.shape[:-1], self.target.shape[:-1]), count)
        # As many marks as are known to lie below the solution, and one more than may.
        below = torch.zeros(*marks.shape[:-1], self.rows.count, dtype=torch.long, device=marks.device)
        beyond = torch.full_like(below, count + 1)
        for _ in range(math.ceil(math.log2(count + 1))):
            middle = (below + beyond) // 2
            too_much = self.excess(marks.gather(-1, (middle - 1).clamp_min(0))) > 0
            searching = middle > below
            below = torch.where(searching & too_much, middle, below)
            beyond = torch.where(searching & ~too_much, middle, beyond)
        first = torch.where(below > 0, marks.gather(-1, (below - 1).clamp_min(0)), -math.inf)
        last = torch.where(below < count, marks.gather(-1, below.clamp_max(count - 1)), math.inf)
        return first, last

    def solved(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mode, variance and what is at a bound, from the interval in which everything is linear."""
        with torch.no_grad():
            enters, leaves = self._meetings()
            free = self.moves & (enters <= self.rows.lift(first)) & (leaves >= self.rows.lift(last))
            # Before it is free an unknown is at the bound that the row's sum is largest for, afterwards at the other.
            before = self.moves & ~free & (enters >= self.rows.lift(last))
            high = torch.where(self.moves, before == (self.spread > 0), self.mean > self.upper)
            at_bound = torch.where(self.moves, ~free, (self.mean > self.upper) | (self.mean < self.lower))
        held = torch.where(at_bound, torch.where(high, self.upper, self.lower), self.mean)
        spread = torch.where(free, self.spread, 0.0)
        slope = self.rows.collect(self.weights * spread) + self.noise
        moves = slope > 0
        excess = self.rows.collect(torch.where(self.weights == 0, 0.0, self.weights * held)) - self.target
        multipliers = torch.where(moves, excess / torch.where(moves, slope, 1.0), 0.0)
        mode = _held(held - self.rows.lift(multipliers) * spread, self.lower, self.upper)
        gain = torch.where(moves, 1 / torch.where(moves, slope, 1.0), 0.0)
        variance = torch.where(at_bound, 0.0, self.variance) - spread.square() * self.rows.lift(gain)
        return mode, variance.clamp_min(0), at_bound

    def _meetings(self) -> tuple[Tensor, Tensor]:
        """``(..., *event)`` multipliers from which and up to which an unknown is free; infinite without a bound."""
        spread = torch.where(self.moves, self.spread, 1.0)
        first, second = (self.mean - self.upper) / spread, (self.mean - self.lower) / spread
        return torch.minimum(first, second), torch.maximum(first, second)


def _disjoint(constraint: LinearConstraint) -> DisjointRows:
    rows = constraint.rows
    if constraint.covariance is not None:
        raise ValueError("Expected targets that are exact or independent but they have a covariance; give a variance.")
    if isinstance(rows, DisjointRows):
        return rows
    assert isinstance(rows, DenseRows)
    if rows.count > 1:
        raise ValueError(
            f"Expected rows that share no unknown, as `DisjointRows` holds them, but got {rows.count} dense rows; "
            "condition on the others first."
        )
    return DisjointRows(rows.weights.squeeze(-rows.event_ndim - 1), rows.event_ndim)


def _require_finite(residual: Tensor, constraint: LinearConstraint) -> None:
    unknown = ~torch.isfinite(residual)
    if bool(unknown.any()):
        row = int(unknown.reshape(-1, unknown.shape[-1]).any(0).nonzero()[0])
        raise ValueError(
            f"Expected a finite mean but that in {constraint.names[row]!r} holds NaN or infinity; stop the rollout, or "
            "mask these points."
        )


def _clamped(values: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.maximum(lower, torch.minimum(upper, values))


def _held(values: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Clamped, with the derivatives of the values: what is cut off is round-off."""
    return values + (_clamped(values, lower, upper) - values).detach()

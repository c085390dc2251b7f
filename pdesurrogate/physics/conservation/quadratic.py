"""Quadratic invariants: kinetic energy, enstrophy, conditioned on by linearizing where the last iterate is.

Unlike linear laws they leave no Gaussian: what is found is a most probable field, and the covariance beside it is that
of the linearization. The energy of the field is exact, that of samples of the linearization is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.physics.conservation.conditioning import Conditioned, condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint, broadcast_cat, joined
from pdesurrogate.physics.conservation.covariance import Covariance, Dense, Diagonal, LowRank
from pdesurrogate.physics.conservation.rows import DenseRows

# A change of the field, relative to the field, that is round-off.
_ROUND_OFF = 1e-13

# Of what the prior says of an unknown, at least so much is left beside the curvature of the constraints.
_LEAST_SHARE = 0.1

# Covariances that the curvature of diagonal forms can go into.
_WITH_CURVATURE = (Diagonal, LowRank, Dense)

# A multiple of the largest eigenvalue below which those of the rows' covariance are taken for zero.
_DEPENDENT = 1e-11


@dataclass(frozen=True)
class QuadraticConstraint:
    """``u . Q_k u = b_k + noise`` for some symmetric positive forms ``Q_k``.

    Attributes:
        forms: what applies ``Q_k`` to fields, as a covariance is applied: ``Diagonal(weights)`` is the sum of weighted
            squares, such as a kinetic energy with half the volumes of cells as weights, and ``FourierDiagonal(symbol)``
            one that weighs waves, such as the kinetic energy ``|w|^2 / (2 k^2)`` of a vorticity.
        target: ``b (..., forms)``, positive; axes in front are those of a batch.
        event_ndim: number of axes of the unknowns.
        variance: of the target ``(..., forms)``; without, it is exact.
        names: of the forms, for messages; by default numbers.

    Raises:
        ValueError: if shapes do not fit, a target is not positive, or a variance is negative.

    Example:
        >>> energy = QuadraticConstraint([Diagonal(0.5)], torch.tensor([4.0]), event_ndim=1, names=("energy",))
        >>> energy.residual(torch.tensor([1.0, 3.0])).tolist()
        [1.0]
    """

    forms: Sequence[Covariance]
    target: Tensor
    event_ndim: int
    variance: Tensor | None = None
    names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        count = len(self.forms)
        if not self.names:
            object.__setattr__(self, "names", tuple(f"form {number}" for number in range(count)))
        if count == 0 or len(self.names) != count:
            raise ValueError(f"Expected forms and a name for each but got {count} forms and {list(self.names)}.")
        for what, value in (("target", self.target), ("variance", self.variance)):
            if value is not None and tuple(value.shape[-1:]) != (count,):
                raise ValueError(f"Expected a {what} (..., {count}), one for each form, but got {tuple(value.shape)}.")
        refused = ~(torch.isfinite(self.target) & (self.target > 0))
        if bool(refused.any()):
            number = int(refused.reshape(-1, count).any(0).nonzero()[0])
            lowest = float(self.target.reshape(-1, count)[:, number].min())
            raise ValueError(
                f"Expected positive targets, of sums of squares, but that of {self.names[number]!r} is {lowest:.6g}; a "
                "field of zero energy is zero."
            )
        if self.variance is not None and not bool((torch.isfinite(self.variance) & (self.variance >= 0)).all()):
            raise ValueError("Expected variances of the targets, finite and at least zero, but some are not.")

    def residual(self, values: Tensor) -> Tensor:
        """``u . Q u - b (..., forms)`` of ``values (..., *event)``, in float64."""
        return self._values(values, self._slopes(values)) - self.target.to(torch.float64)

    def linearized(self, values: Tensor) -> LinearConstraint:
        """Its tangent at ``values (..., *event)``."""
        halves = self._slopes(values)
        # u . Q u + 2 (Q u) . (y - u) = b
        target = self.target.to(torch.float64) + self._values(values, halves)
        return LinearConstraint(DenseRows(2 * halves, self.event_ndim), target, self.variance, names=self.names)

    def _slopes(self, values: Tensor) -> Tensor:
        """``Q u (..., forms, *event)``, half the slopes."""
        if values.ndim < self.event_ndim:
            raise ValueError(f"Expected values with {self.event_ndim} axes of unknowns but got {tuple(values.shape)}.")
        event = tuple(values.shape[values.ndim - self.event_ndim :])
        vectors = values.to(torch.float64).unsqueeze(-self.event_ndim - 1)
        return broadcast_cat([form.times(vectors, event) for form in self.forms], -self.event_ndim - 1)

    def _values(self, values: Tensor, halves: Tensor) -> Tensor:
        axes = tuple(range(-self.event_ndim, 0))
        return (halves * values.to(torch.float64).unsqueeze(-self.event_ndim - 1)).sum(axes)


class ConditionedQuadratic(NamedTuple):
    """What `condition_quadratic` finds.

    Attributes:
        mean: ``(..., *event)``, a most probable field, of the prior mean's precision.
        linearized: the update by the tangents at this field. Its mean is the same; variance and covariance are those of
            moves along the tangents.
        residuals: ``(iterations + 1, ..., forms)`` of the prior's mean and after every iteration, in float64.
    """

    mean: Tensor
    linearized: Conditioned
    residuals: Tensor


def condition_quadratic(
    mean: Tensor,
    covariance: Covariance,
    quadratic: QuadraticConstraint,
    linear: LinearConstraint | None = None,
    iterations: int = 100,
) -> ConditionedQuadratic:
    """The field of ``N(mean, covariance)`` that satisfies quadratic constraints, and a linear one with them.

    The iterated update (Gauss-Newton, the iterated extended Kalman filter) with the slopes ``J`` of
    ``h(y) = y . Q y - b`` at the last iterate,

        y_{k+1} = mean - S J^T (J S J^T + R)^-1 (h(y_k) + J (mean - y_k)),

    until the field no longer changes. It ignores the curvature of the constraints, without which it converges
    linearly, and not at all where much energy has to go. That of diagonal forms goes into the covariance, if it is
    diagonal, of low rank, or dense: then convergence is quadratic. Steps are halved when they grow. For ``m`` rows an
    iteration costs ``O(n m^2)``, and with a dense covariance ``O(n^3)``.

    Differentiable in mean, covariance and targets through all iterations. Computed in float64; the mean keeps its
    precision.

    Args:
        mean: ``(..., *event)``, physical units.
        covariance: of the unknowns.
        quadratic: the forms and their targets.
        linear: rows and targets that hold at the same time.
        iterations: after which it gives up.

    Raises:
        ValueError: if shapes do not fit, the mean is not finite, or a form has no slope at it, as at a zero field; and
            as `condition`.
        RuntimeError: if the iterations do not suffice: a target is far from what the mean has, or cannot be met
            together with the others.

    Example:
        >>> energy = QuadraticConstraint([Diagonal(1.0)], torch.tensor([25.0]), event_ndim=1, names=("energy",))
        >>> condition_quadratic(torch.tensor([0.6, 0.8]), Diagonal(1.0), energy).mean.tolist()
        [3.0, 4.0]
    """
    _require_slopes(mean, covariance, quadratic)
    axes = tuple(range(-quadratic.event_ndim, 0))
    prior = mean.to(torch.float64)
    values, residuals = prior, [quadratic.residual(prior)]
    known = isinstance(covariance, _WITH_CURVATURE) and all(isinstance(form, Diagonal) for form in quadratic.forms)
    share: Tensor | float = 1.0
    last: Tensor | float = torch.inf
    for _ in range(iterations):
        tangent = quadratic.linearized(values)
        tangent = tangent if linear is None else joined([tangent, linear])
        change = condition(*_curved(values, prior, covariance, quadratic, tangent), tangent).mean - values
        size = change.detach().square().mean(axes, keepdim=True).sqrt()
        share = torch.where(size > last, share / 2, share)
        if known:
            share = torch.where(size < (1 - 0.9 * share) * last, 2 * share, share).clamp_max(1.0)
        last = size
        values = values + share * change
        residuals.append(quadratic.residual(values))
        if bool((size <= _ROUND_OFF * values.detach().square().mean(axes, keepdim=True).sqrt()).all()):
            found = condition(prior, covariance, tangent)
            return ConditionedQuadratic(values.to(mean.dtype), found, torch.stack(residuals).detach())
    history = (torch.stack(residuals).detach() / quadratic.target).abs()
    history = history.reshape(len(residuals), -1, len(quadratic.names)).amax(1)
    worst = int(history[-1].argmax())
    raise RuntimeError(
        f"The field still changes after {iterations} iterations: {quadratic.names[worst]!r} is a share of "
        f"{float(history[-1, worst]):.3g} of its target away and was {float(history[0, worst]):.3g} at the start; "
        "targets that are far from the mean, or that cannot be met together, need a variance."
    )


def _curved(
    values: Tensor, prior: Tensor, covariance: Covariance, quadratic: QuadraticConstraint, tangent: LinearConstraint
) -> tuple[Tensor, Covariance]:
    """Mean and covariance of the prior times the curvature of the constraints, at the multipliers of the last iterate.

    Whatever the curvature, the constrained update leaves the solution where it is: what is cut off costs speed alone.
    """
    weights = [form.variance for form in quadratic.forms if isinstance(form, Diagonal)]
    if not isinstance(covariance, _WITH_CURVATURE) or len(weights) < len(quadratic.forms):
        return prior, covariance
    with torch.no_grad():
        multipliers = _multipliers(values - prior, covariance, tangent)
        curvature = torch.zeros_like(values)
        for number, weight in enumerate(weights):
            own = multipliers[..., number].reshape(*multipliers.shape[:-1], *(1,) * quadratic.event_ndim)
            curvature = curvature + 2 * own * weight
        curvature = torch.maximum(curvature, (_LEAST_SHARE - 1) / _largest_variance(covariance, quadratic.event_ndim))
    bent = _bent(covariance, curvature, quadratic.event_ndim)
    towards = (curvature * (values - prior)).unsqueeze(-quadratic.event_ndim - 1)
    return prior + bent.times(towards, tangent.rows.event).squeeze(-quadratic.event_ndim - 1), bent


def _largest_variance(covariance: Diagonal | LowRank | Dense, event_ndim: int) -> Tensor:
    """Of what broadcasts to ``(..., *event)``: above all eigenvalues, or the variances of independent unknowns."""
    if isinstance(covariance, Diagonal):
        return covariance.variance
    if isinstance(covariance, Dense):
        return covariance.matrix.abs().sum(-1).amax(-1).reshape(*covariance.matrix.shape[:-2], *(1,) * event_ndim)
    axes = tuple(range(-event_ndim, 0))
    shared = covariance.modes.square().sum(axes, keepdim=True).sum(-event_ndim - 1)
    return (
        covariance.variance.expand(torch.broadcast_shapes(covariance.variance.shape, shared.shape)).amax(
            axes, keepdim=True
        )
        + shared
    )


def _bent(covariance: Diagonal | LowRank | Dense, curvature: Tensor, event_ndim: int) -> Covariance:
    """``(S^-1 + diag(curvature))^-1``, without the inverse of ``S``."""
    if isinstance(covariance, Dense):
        matrix = covariance.matrix
        flat = curvature.flatten(-event_ndim).unsqueeze(-2)
        system = torch.eye(matrix.shape[-1]).to(matrix) + matrix * flat
        solved = torch.linalg.solve(system, matrix.expand_as(system))
        return Dense((solved + solved.mT) / 2)
    own = 1 / (1 + curvature * covariance.variance)
    if isinstance(covariance, Diagonal):
        return Diagonal(covariance.variance * own)
    event = curvature.shape[-event_ndim:]
    modes = covariance.modes.flatten(-event_ndim)
    along = (curvature * own).flatten(-event_ndim).unsqueeze(-2)
    gram = torch.eye(modes.shape[-2]).to(modes) + (modes * along) @ modes.mT
    scaled = modes * own.flatten(-event_ndim).unsqueeze(-2)
    factor = torch.linalg.cholesky(gram)
    return LowRank(
        covariance.variance * own, torch.linalg.solve_triangular(factor, scaled, upper=False).unflatten(-1, event)
    )


def _multipliers(change: Tensor, covariance: Covariance, tangent: LinearConstraint) -> Tensor:
    """``l (..., rows)`` for which ``-S G^T l`` is closest to a change of the field."""
    rows, event = tangent.rows.dense(), tangent.rows.event
    flat, spread = rows.flatten(-len(event)), covariance.times(rows, event).flatten(-len(event))
    gram = flat @ spread.mT
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(torch.float64).tiny).rsqrt()
    inverse = torch.linalg.pinv(scale.unsqueeze(-1) * gram * scale.unsqueeze(-2), rtol=_DEPENDENT, hermitian=True)
    of_change = scale * tangent.rows.apply(change)
    return -scale * (inverse @ of_change.unsqueeze(-1)).squeeze(-1)


def _require_slopes(mean: Tensor, covariance: Covariance, quadratic: QuadraticConstraint) -> None:
    """Refuse means from which no direction leads to the target."""
    if not bool(torch.isfinite(mean).all()):
        raise ValueError("Expected a finite mean but it holds NaN or infinity; stop the rollout, or mask these points.")
    halves = quadratic._slopes(mean)
    event = tuple(halves.shape[-quadratic.event_ndim :])
    gain = (halves * covariance.times(halves, event)).sum(tuple(range(-quadratic.event_ndim, 0)))
    flat = ~(gain > 0)
    if bool(flat.any()):
        number = int(flat.reshape(-1, flat.shape[-1]).any(0).nonzero()[0])
        raise ValueError(
            f"Expected a mean at which {quadratic.names[number]!r} has a slope but it is zero wherever there is "
            "variance, so that nothing leads to the target; start from a field that is not zero."
        )

"""Gaussian predictions, conditioned on linear constraints: the update of ProbConserv.

Hansen et al., *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023, arXiv:2302.11002, section 3.2:
with a prior ``N(mu, S)`` and an observation ``b = G u + noise`` of covariance ``R``, and ``A = G S G^T + R``,

    mu' = mu - S G^T A^-1 (G mu - b)        S' = S - S G^T A^-1 G S.

Neither ``S`` nor ``R`` is inverted, so that ``R = 0`` is allowed: then ``G mu' = b``, and ``mu'`` is the projection of
``mu`` in the norm of ``S^-1``, which moves what is uncertain and leaves what is not. If the truth satisfies the
constraint, the update brings the mean closer to it in that norm, and in no other: the mean squared error may grow.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from pdesurrogate.physics.conservation.constraint import LinearConstraint, broadcast_batches
from pdesurrogate.physics.conservation.covariance import Covariance, Diagonal
from pdesurrogate.physics.conservation.rows import DisjointRows

# Rows count as dependent where less than this is left of a row's variance beyond that of the rows before it.
_DEPENDENT = 1e-11

# Round-off of the variance of a row, as a share of what it is at most.
_ROUND_OFF = 1e-13

# A variance below this is none: what it divides, or its square, overflows.
_LEAST = torch.finfo(torch.float64).tiny / torch.finfo(torch.float64).eps

# Dependent rows contradict each other if they are this far apart, relative to their deviations and residuals.
_CONTRADICTION = 1e-6

# What cannot move is taken as met if it is this close, relative to its terms: round-off of what was done before.
_MET = 1e-9


def condition(mean: Tensor, covariance: Covariance, constraint: LinearConstraint, noise: float = 0.0) -> Conditioned:
    """The Gaussian ``N(mean, covariance)`` given that it satisfies the constraint, exactly or up to noise.

    Costs ``O(n)`` for a single row, or rows of disjoint unknowns, and a diagonal covariance; ``O(n m^2)`` for ``m``
    rows and one that is diagonal, of low rank or diagonal in Fourier space (times what it costs to apply).
    Differentiable in mean, covariance and target. Computed in float64; the mean keeps its precision.

    Args:
        mean: ``(..., *event)``, physical units.
        covariance: of the unknowns.
        constraint: rows, target and the target's own uncertainty.
        noise: further deviation of the target, as a share of the deviation that the prior gives it:
            ``R = noise^2 diag(G S G^T)`` is added to the target's covariance. Zero enforces the target.

    Raises:
        ValueError: if shapes do not fit, the mean is not in floating point, something is not finite, the noise is
            negative, a row that is not met has no unknown with any variance, or rows contradict each other; what is
            wrong with a row names it.

    Example:
        >>> constraint = LinearConstraint.integral(torch.linspace(0, 1, 3), torch.tensor(1.0), rule="midpoint")
        >>> found = condition(torch.zeros(3), Diagonal(torch.tensor([0.0, 1.0, 3.0])), constraint)
        >>> found.mean.tolist()
        [0.0, 0.5, 1.5]
    """
    if not 0 <= noise < math.inf:
        raise ValueError(
            f"Expected finite noise of at least zero, as a share of the prior's deviation, but got {noise}; give the "
            "target a variance if that is what is known."
        )
    _require_floating(mean, "mean")
    residual = constraint.residual(mean)
    rows, event = constraint.rows, constraint.rows.event
    # Not the variances themselves, which may cost as many solutions as there are unknowns.
    bound = covariance.bound(event)
    if bound.ndim > len(event):
        given = {"mean and target": tuple(residual.shape[:-1]), "rows": constraint.batch}
        broadcast_batches({**given, "covariance": tuple(bound.shape[: bound.ndim - len(event)])})
    gain: _Gain
    if isinstance(covariance, Diagonal) and isinstance(rows, DisjointRows) and constraint.covariance is None:
        gain = _DisjointGain(rows, covariance.diagonal(event), constraint, noise)
    else:
        gain = _DenseGain(covariance, bound, constraint, noise)
    _require_finite(residual, constraint)
    if gain.dropped is not None:
        _require_consistent(gain, gain.dropped, residual, mean, constraint)
    return Conditioned(mean, covariance, constraint, gain, residual)


class Conditioned:
    """A conditioned Gaussian, made by `condition`; what is not asked for is not computed.

    Attributes:
        mean: ``(..., *event)``, of the prior mean's precision.
        residual: ``(..., rows)`` of the prior mean, ``G mu - b``, in float64.
        dropped: ``(..., rows)``, true for rows that change nothing because they follow from those before them, or are
            met where the prior has no variance; ``None`` where there are none.
    """

    def __init__(
        self, mean: Tensor, covariance: Covariance, constraint: LinearConstraint, gain: _Gain, residual: Tensor
    ) -> None:
        self._prior_mean = mean
        self._prior = covariance
        self._constraint = constraint
        self._gain = gain
        self.residual = residual
        self.dropped = gain.dropped
        self.mean = self._corrected(mean, residual)

    @property
    def variance(self) -> Tensor:
        """Marginal variances ``(..., *event)`` in float64, at least zero, nowhere larger than the prior's."""
        return self._gain.variance()

    def covariance(self) -> Tensor:
        """The whole covariance ``(..., n, n)`` in float64, unknowns flattened: n times n numbers."""
        spread = self._gain.whitened_spread()
        return self._prior.dense(self._constraint.rows.event) - spread.mT @ spread

    def moved(self, samples: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Samples of the prior made samples of this, each as far from its target as the target's noise allows.

        Matheron's rule, ``u - S G^T A^-1 (G u + noise - b)``: with an exact target every sample satisfies the
        constraint, and no covariance is factorized.

        Args:
            samples: ``(draws, ..., *event)`` of the prior, with its mean.
            generator: of the target's noise, if it has any.

        Raises:
            ValueError: if the target is noisy and there is no generator, or samples are not in floating point.
        """
        _require_floating(samples, "samples")
        residual = self._constraint.residual(samples)
        if not self._gain.exact:
            if generator is None:
                raise ValueError("Expected a generator for the noise of the target but got none.")
            residual = residual + self._gain.noise_like(residual, generator)
        return self._corrected(samples, residual)

    def shifted(self, members: Tensor) -> Tensor:
        """Members ``(members, ..., *event)``, each moved by its own residual and the common gain, without noise.

        What an ensemble filter does to its members if targets are not perturbed: their spread is smaller than that of
        samples where the target is uncertain, and the same where it is exact.

        Raises:
            ValueError: if members are not in floating point.
        """
        _require_floating(members, "members")
        return self._corrected(members, self._constraint.residual(members))

    def sample(self, draws: int, generator: torch.Generator) -> Tensor:
        """``(draws, ..., *event)`` in float64, by Matheron's rule from draws of the prior."""
        event = self._constraint.rows.event
        batch = self.mean.shape[: self.mean.ndim - len(event)]
        anomalies = self._prior.sample((draws, *batch), event, generator)
        prior_mean = self._prior_mean.to(torch.float64)
        return self.moved(prior_mean + anomalies.to(prior_mean.device), generator)

    def _corrected(self, values: Tensor, residual: Tensor) -> Tensor:
        return self._gain.corrected(values.to(torch.float64), residual).to(values.dtype)


class _Gain(Protocol):
    """``S G^T A^-1`` in the form that suits covariance and rows."""

    dropped: Tensor | None
    exact: bool
    total: Tensor
    """Diagonal of ``A``."""
    constant: Tensor
    """Rows in which nothing varies."""

    def corrected(self, values: Tensor, residual: Tensor) -> Tensor:
        """``u - S G^T A^-1 r`` of values in float64."""
        ...

    def left(self, residual: Tensor) -> Tensor:
        """``r - A A^-1 r``: not zero where dropped rows are not met."""
        ...

    def variance(self) -> Tensor:
        """Diagonal of ``S'``."""
        ...

    def whitened_spread(self) -> Tensor:
        """``L^-1 G S (..., rows, n)`` with ``A = L L^T``: its square is what ``S'`` is less than ``S``."""
        ...

    def noise_like(self, residual: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of the target's noise."""
        ...


class _DisjointGain:
    """Of independent unknowns and rows that share none: ``A`` is diagonal, all costs are those of a few passes."""

    def __init__(self, rows: DisjointRows, prior_variance: Tensor, constraint: LinearConstraint, noise: float) -> None:
        self.rows = rows
        self.prior_variance = prior_variance
        of_prior = rows.variance(prior_variance)
        self.exact = noise == 0 and constraint.variance is None
        self.noise: Tensor | None = None
        self.total = of_prior
        if not self.exact:
            self.noise = noise**2 * of_prior
            if constraint.variance is not None:
                self.noise = self.noise + constraint.variance.to(of_prior)
            self.total = of_prior + self.noise
        self.constant = self.total < _LEAST
        self.dropped = _if_any(self.constant)
        # Where nothing varies any number will do: what it multiplies is zero.
        self.divisor = self.total if self.dropped is None else torch.where(self.dropped, 1.0, self.total)

    def corrected(self, values: Tensor, residual: Tensor) -> Tensor:
        return self.rows.moved(values, self.prior_variance, residual / self.divisor)

    def left(self, residual: Tensor) -> Tensor:
        return residual if self.dropped is None else torch.where(self.dropped, residual, 0.0)

    def variance(self) -> Tensor:
        return self.rows.reduced(self.prior_variance, 1 / self.divisor).clamp_min_(0)

    def whitened_spread(self) -> Tensor:
        each = self.rows.lift(torch.diag_embed(self.divisor.rsqrt()))
        spread = (self.rows.weights * self.prior_variance).unsqueeze(-self.rows.event_ndim - 1)
        return (each * spread).flatten(-self.rows.event_ndim)

    def noise_like(self, residual: Tensor, generator: torch.Generator) -> Tensor:
        white = _white(residual, generator)
        return white.new_zeros(()) if self.noise is None else self.noise.sqrt() * white


class _DenseGain:
    """Of any covariance and rows, by a Cholesky factor of the equilibrated ``A``."""

    def __init__(self, covariance: Covariance, bound: Tensor, constraint: LinearConstraint, noise: float) -> None:
        rows = constraint.rows
        self.event = rows.event
        self.covariance = covariance
        weights = rows.dense()
        self.spread = covariance.times(weights, self.event).flatten(-len(self.event))
        # Symmetric, but for round-off.
        of_prior = self.spread @ weights.flatten(-len(self.event)).mT
        of_prior = (of_prior + of_prior.mT) / 2
        own = torch.diag_embed(noise**2 * of_prior.diagonal(dim1=-2, dim2=-1))
        self.noise = own + constraint.target_covariance().to(own)
        self.independent = constraint.covariance is None
        self.exact = noise == 0 and constraint.variance is None and self.independent
        self.gram = of_prior + self.noise
        self.total = self.gram.diagonal(dim1=-2, dim2=-1)
        with torch.no_grad():
            bound = bound.to(weights.device)
            most = rows.magnitude(bound.sqrt().expand(*bound.shape[: -len(self.event)], *self.event))
            self.constant = self.total <= (_ROUND_OFF * most.square()).clamp_min(_LEAST)
        self.root = torch.where(self.constant, 1.0, self.total).rsqrt()
        self.factor, self.dropped = self._factorized()
        if self.dropped is not None:
            self.root = torch.where(self.dropped, 0.0, self.root)

    def _factorized(self) -> tuple[Tensor, Tensor | None]:
        """The factor of rows in units of their deviations, and the rows that are not in it."""
        equilibrated = self.root.unsqueeze(-1) * self.gram * self.root.unsqueeze(-2)
        factor, failed = torch.linalg.cholesky_ex(equilibrated)
        left = factor.diagonal(dim1=-2, dim2=-1).square()
        if not bool((failed > 0).any() | self.constant.any() | (left < _DEPENDENT).any()):
            return factor, None
        dropped = _dependent(equilibrated.detach(), self.constant)
        kept = ~dropped
        pairs = kept.unsqueeze(-1) & kept.unsqueeze(-2)
        identity = torch.eye(kept.shape[-1], dtype=torch.float64, device=kept.device)
        independent = torch.where(pairs, equilibrated, identity)
        factor, failed = torch.linalg.cholesky_ex(independent)
        if bool((failed > 0).any()):
            # Rows that are just not dependent, each a little.
            factor = torch.linalg.cholesky(independent + 10 * _DEPENDENT * identity)
        return factor, dropped

    def _multipliers(self, residual: Tensor) -> Tensor:
        scaled = (self.root * residual).unsqueeze(-1)
        solved = torch.cholesky_solve(scaled, self.factor.expand(*scaled.shape[:-2], *self.factor.shape[-2:]))
        return self.root * solved.squeeze(-1)

    def corrected(self, values: Tensor, residual: Tensor) -> Tensor:
        shift = self._multipliers(residual).unsqueeze(-2) @ self.spread
        return values - shift.squeeze(-2).unflatten(-1, self.event)

    def left(self, residual: Tensor) -> Tensor:
        return residual - (self.gram @ self._multipliers(residual).unsqueeze(-1)).squeeze(-1)

    def variance(self) -> Tensor:
        removed = self.whitened_spread().square().sum(-2).unflatten(-1, self.event)
        return (self.covariance.diagonal(self.event).to(removed.device) - removed).clamp_min(0)

    def whitened_spread(self) -> Tensor:
        scaled = self.root.unsqueeze(-1) * self.spread
        batch = torch.broadcast_shapes(scaled.shape[:-2], self.factor.shape[:-2])
        factor = self.factor.expand(*batch, *self.factor.shape[-2:])
        return torch.linalg.solve_triangular(factor, scaled.expand(*batch, *scaled.shape[-2:]), upper=False)

    def noise_like(self, residual: Tensor, generator: torch.Generator) -> Tensor:
        if self.independent:
            return self.noise.diagonal(dim1=-2, dim2=-1).sqrt() * _white(residual, generator)
        values, vectors = torch.linalg.eigh(self.noise)
        # The root of round-off would be noise on exact targets.
        least = values.shape[-1] * torch.finfo(values.dtype).eps * values[..., -1:]
        root = vectors * torch.where(values > least, values, 0.0).sqrt().unsqueeze(-2)
        return (root @ _white(residual, generator).unsqueeze(-1)).squeeze(-1)


def _dependent(matrix: Tensor, constant: Tensor) -> Tensor:
    """``(..., rows)``: rows of a matrix with unit diagonal that are constant, or follow from the rows before them."""
    left = matrix.clone()
    dropped = constant.clone()
    for row in range(matrix.shape[-1]):
        pivot = left[..., row, row]
        dropped[..., row] |= pivot < _DEPENDENT
        column = torch.where(dropped[..., row, None], 0.0, left[..., :, row])
        left = left - column.unsqueeze(-1) * column.unsqueeze(-2) / pivot.clamp_min(_DEPENDENT)[..., None, None]
    return dropped


def _require_floating(values: Tensor, what: str) -> None:
    if not values.is_floating_point():
        raise ValueError(
            f"Expected {what} in floating point but got {values.dtype}, in which the update would be cut off; convert "
            f"the {what}."
        )


def _require_finite(residual: Tensor, constraint: LinearConstraint) -> None:
    """Refuse means that nothing can be made of. One look at the device where all is well."""
    if math.isfinite(float(residual.detach().sum())):
        return
    unknown = ~torch.isfinite(residual)
    if bool(unknown.any()):
        raise ValueError(
            f"Expected a finite mean but that in {constraint.names[_first(unknown)]!r} holds NaN or infinity; stop the "
            "rollout, or fill what is masked: a weight of zero does not hide it."
        )


def _require_consistent(
    gain: _Gain, dropped: Tensor, residual: Tensor, mean: Tensor, constraint: LinearConstraint
) -> None:
    """Refuse rows that cannot move but would have to."""
    left, total = gain.left(residual).abs(), gain.total
    varies = total >= _LEAST
    deviation = torch.where(varies, total, 0.0).sqrt()
    relative = torch.where(varies, residual, 0.0).abs() / torch.where(varies, deviation, 1.0)
    tolerance = _CONTRADICTION * deviation * (1 + relative.amax(-1, keepdim=True))
    for values, size in ((mean, constraint.rows.magnitude(mean)), (constraint.target, constraint.target.abs())):
        tolerance = tolerance + max(_MET, 8 * torch.finfo(values.dtype).eps) * size.to(tolerance)
    contradicts = dropped & (left > tolerance)
    if not bool(contradicts.any()):
        return
    row = _first(contradicts)
    amount = float(torch.where(contradicts, left, 0.0)[..., row].max())
    apart = f"Expected targets that can be met but {constraint.names[row]!r}"
    if bool((contradicts & gain.constant)[..., row].any()):
        raise ValueError(
            f"{apart} is {amount:.3g} away from its target and there is no variance where it has its weights; give the "
            "variance a floor, or the target a variance."
        )
    raise ValueError(
        f"{apart} follows from the rows before it and its target is {amount:.3g} away from theirs; correct a target, "
        "drop the row, or give the targets a variance."
    )


def _if_any(flags: Tensor) -> Tensor | None:
    return flags if flags.any().item() else None


def _first(flags: Tensor) -> int:
    """The number of the first row that is flagged in ``(..., rows)``."""
    return int(flags.reshape(-1, flags.shape[-1]).any(0).nonzero()[0])


def _white(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device=generator.device).to(like.device)

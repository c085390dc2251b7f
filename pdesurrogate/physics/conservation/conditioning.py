"""Gaussian predictions, conditioned on linear constraints: the update of ProbConserv.

Hansen et al., *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023, arXiv:2302.11002, section 3.2:
with a prior ``N(mu, S)`` and an observation ``b = G u + noise`` of covariance ``R``, and ``A = G S G^T + R``,

    mu' = mu - S G^T A^-1 (G mu - b)        S' = S - S G^T A^-1 G S.

Neither ``S`` nor ``R`` is inverted, so that ``R = 0`` is allowed: then ``G mu' = b``, and ``mu'`` is the projection of
``mu`` in the norm of ``S^-1``, which moves what is uncertain and leaves what is not. If the truth satisfies the constraint, the
update brings the mean closer to it in that norm, and in no other: the mean squared error may grow.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Covariance, Diagonal
from pdesurrogate.physics.conservation.rows import DisjointRows

# Rows count as dependent where less than this is left of a row's variance beyond that of the rows before it.
_DEPENDENT = 1e-11

# Dependent rows contradict each other if they are this far apart, relative to their deviations and residuals.
_CONTRADICTION = 1e-6


def condition(mean: Tensor, covariance: Covariance, constraint: LinearConstraint, noise: float = 0.0) -> Conditioned:
    """The Gaussian ``N(mean, covariance)`` given that it satisfies the constraint, exactly or up to noise.

    Costs ``O(n)`` for a single row, or rows of disjoint unknowns, and a diagonal covariance; ``O(n m^2)`` for ``m`` rows
    and one that is diagonal, of low rank or diagonal in Fourier space (times what it costs to apply). Differentiable
    in mean, covariance and target. Computed in float64; the mean keeps its precision.

    Args:
        mean: ``(..., *event)``, physical units.
        covariance: of the unknowns.
        constraint: rows, target and the target's own uncertainty.
        noise: further deviation of the target, as a share of the deviation that the prior gives it:
            ``R = noise^2 diag(G S G^T)`` is added to the target's covariance. Zero enforces the target.

    Raises:
        ValueError: if shapes do not fit, something is not finite, the noise is negative, no unknown of a row has any
            variance, or rows contradict each other; all name the row.

    Example:
        >>> constraint = LinearConstraint.integral(torch.linspace(0, 1, 3), torch.tensor(1.0), rule="midpoint")
        >>> found = condition(torch.zeros(3), Diagonal(torch.tensor([0.0, 1.0, 3.0])), constraint)
        >>> found.mean.tolist()
        [0.0, 0.5, 1.5]
    """
    if noise < 0:
        raise ValueError(f"Expected noise of at least zero, as a share of the prior's deviation, but got {noise}.")
    residual = constraint.residual(mean)
    rows, event = constraint.rows, constraint.rows.event
    if isinstance(covariance, Diagonal) and isinstance(rows, DisjointRows) and constraint.covariance is None:
        gain: _Gain = _DisjointGain(rows, covariance, constraint, noise)
    else:
        gain = _DenseGain(covariance.times(rows.dense(), event), constraint, noise)
    gain.check(residual)
    return Conditioned(mean, covariance, constraint, gain, residual)


class Conditioned:
    """A conditioned Gaussian, made by `condition`; what is not asked for is not computed.

    Attributes:
        mean: ``(..., *event)``, of the prior mean's precision.
        residual: ``(..., rows)`` of the prior mean, ``G mu - b``, in float64.
        dropped: ``(..., rows)``, true for rows that follow from those before them; ``None`` where none does.
    """

    def __init__(
        self, mean: Tensor, covariance: Covariance, constraint: LinearConstraint, gain: _Gain, residual: Tensor
    ) -> None:
        self._prior = covariance
        self._constraint = constraint
        self._gain = gain
        self.residual = residual
        self.dropped = gain.dropped
        self.mean = (mean.to(torch.float64) - gain.shift(residual)).to(mean.dtype)

    @property
    def variance(self) -> Tensor:
        """Marginal variances ``(..., *event)`` in float64, at least zero, nowhere larger than the prior's."""
        return (self._prior.diagonal(self._constraint.rows.event) - self._gain.variance_removed()).clamp_min(0)

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
            ValueError: if the target is noisy and there is no generator.
        """
        residual = self._constraint.residual(samples)
        if not self._gain.exact:
            if generator is None:
                raise ValueError("Expected a generator for the noise of the target but got none.")
            residual = residual + self._gain.noise_like(residual, generator)
        return (samples.to(torch.float64) - self._gain.shift(residual)).to(samples.dtype)

    def shifted(self, members: Tensor) -> Tensor:
        """Members ``(members, ..., *event)``, each moved by its own residual and the common gain, without noise.

        What an ensemble filter does to its members if targets are not perturbed: their spread is smaller than that of
        samples where the target is uncertain, and the same where it is exact.
        """
        return (members.to(torch.float64) - self._gain.shift(self._constraint.residual(members))).to(members.dtype)

    def sample(self, draws: int, generator: torch.Generator, mean: Tensor) -> Tensor:
        """``(draws, ..., *event)`` in float64 around what was conditioned, by Matheron's rule."""
        event = self._constraint.rows.event
        batch = self.mean.shape[: self.mean.ndim - len(event)]
        prior = mean.to(torch.float64) + self._prior.sample((draws, *batch), event, generator)
        return self.moved(prior, generator)


class _Gain(Protocol):
    """``S G^T A^-1`` in the form that suits covariance and rows."""

    dropped: Tensor | None
    exact: bool

    def check(self, residual: Tensor) -> None: ...

    def shift(self, residual: Tensor) -> Tensor: ...

    def variance_removed(self) -> Tensor: ...

    def whitened_spread(self) -> Tensor: ...

    def noise_like(self, residual: Tensor, generator: torch.Generator) -> Tensor: ...


class _DisjointGain:
    """Of independent unknowns and rows that share none: ``A`` is diagonal, all costs are those of a few passes."""

    dropped = None

    def __init__(self, rows: DisjointRows, covariance: Diagonal, constraint: LinearConstraint, noise: float) -> None:
        self.rows = rows
        self.spread = rows.weights * covariance.variance
        if rows.count == 1 and rows.labels is None and self.spread.ndim == rows.weights.ndim == rows.event_ndim:
            of_prior = self.spread.flatten().dot(rows.weights.flatten()).unsqueeze(0)
        else:
            of_prior = rows.collect(self.spread * rows.weights)
        self.noise = noise**2 * of_prior
        if constraint.variance is not None:
            self.noise = self.noise + constraint.variance.to(self.noise)
        self.exact = noise == 0 and constraint.variance is None
        self.total = of_prior + self.noise
        self.constraint = constraint

    def check(self, residual: Tensor) -> None:
        _require_known(residual, self.total > 0, self.constraint)

    def shift(self, residual: Tensor) -> Tensor:
        return self.spread * self.rows.lift(residual / self.total)

    def variance_removed(self) -> Tensor:
        return self.spread.square() * self.rows.lift(1 / self.total)

    def whitened_spread(self) -> Tensor:
        each = torch.diag_embed(self.total.rsqrt())
        lifted = self.rows.lift(each) * self.spread.unsqueeze(-self.rows.event_ndim - 1)
        return lifted.flatten(-self.rows.event_ndim)

    def noise_like(self, residual: Tensor, generator: torch.Generator) -> Tensor:
        return self.noise.sqrt() * _white(residual, generator)


class _DenseGain:
    """Of any covariance and rows, by a Cholesky factor of the equilibrated ``A``."""

    def __init__(self, spread: Tensor, constraint: LinearConstraint, noise: float) -> None:
        self.event = constraint.rows.event
        self.constraint = constraint
        self.spread = spread.flatten(-len(self.event))
        # Row k of what the rows make of S G^T e_k: symmetric, but for round-off.
        of_prior = constraint.rows.apply(spread.movedim(-len(self.event) - 1, 0)).movedim(0, -2)
        of_prior = (of_prior + of_prior.mT) / 2
        own = torch.diag_embed(noise**2 * of_prior.diagonal(dim1=-2, dim2=-1))
        self.noise = own + constraint.target_covariance().to(own)
        self.exact = noise == 0 and constraint.variance is None and constraint.covariance is None
        self.gram = of_prior + self.noise
        self.scale = self.gram.diagonal(dim1=-2, dim2=-1)
        self.dropped: Tensor | None = None

    def check(self, residual: Tensor) -> None:
        _require_known(residual, self.scale > 0, self.constraint)
        root = self.scale.rsqrt()
        equilibrated = root.unsqueeze(-1) * self.gram * root.unsqueeze(-2)
        factor, failed = torch.linalg.cholesky_ex(equilibrated)
        left = factor.diagonal(dim1=-2, dim2=-1).square()
        if bool((failed > 0).any() | (left < _DEPENDENT).any()):
            self.dropped = _dependent(equilibrated.detach())
            kept = ~self.dropped
            pairs = kept.unsqueeze(-1) & kept.unsqueeze(-2)
            identity = torch.eye(kept.shape[-1], dtype=torch.float64, device=kept.device)
            factor = torch.linalg.cholesky(torch.where(pairs, equilibrated, identity))
            root = torch.where(kept, root, 0.0)
        self.factor, self.root = factor, root
        if self.dropped is not None:
            self._require_consistent(residual)

    def _require_consistent(self, residual: Tensor) -> None:
        assert self.dropped is not None
        left = residual - (self.gram @ self._multipliers(residual).unsqueeze(-1)).squeeze(-1)
        size = self.scale.sqrt() + residual.abs().amax(-1, keepdim=True)
        contradicts = self.dropped & (left.abs() > _CONTRADICTION * size)
        if bool(contradicts.any()):
            row = int(contradicts.reshape(-1, contradicts.shape[-1]).any(0).nonzero()[0])
            amount = float(left[..., row].abs().max())
            raise ValueError(
                f"Expected targets that can all be met but {self.constraint.names[row]!r} follows from the rows before "
                f"it and its target is {amount:.3g} away from theirs; correct a target, drop the row, or give the "
                "targets a variance."
            )

    def _multipliers(self, residual: Tensor) -> Tensor:
        scaled = (self.root * residual).unsqueeze(-1)
        solved = torch.cholesky_solve(scaled, self.factor.expand(*scaled.shape[:-2], *self.factor.shape[-2:]))
        return self.root * solved.squeeze(-1)

    def shift(self, residual: Tensor) -> Tensor:
        return (self._multipliers(residual).unsqueeze(-2) @ self.spread).squeeze(-2).unflatten(-1, self.event)

    def variance_removed(self) -> Tensor:
        return self.whitened_spread().square().sum(-2).unflatten(-1, self.event)

    def whitened_spread(self) -> Tensor:
        scaled = self.root.unsqueeze(-1) * self.spread
        batch = torch.broadcast_shapes(scaled.shape[:-2], self.factor.shape[:-2])
        factor = self.factor.expand(*batch, *self.factor.shape[-2:])
        return torch.linalg.solve_triangular(factor, scaled.expand(*batch, *scaled.shape[-2:]), upper=False)

    def noise_like(self, residual: Tensor, generator: torch.Generator) -> Tensor:
        values, vectors = torch.linalg.eigh(self.noise)
        root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
        return (root @ _white(residual, generator).unsqueeze(-1)).squeeze(-1)


def _dependent(matrix: Tensor) -> Tensor:
    """``(..., rows)``: rows of a matrix with unit diagonal that the rows before them determine."""
    left = matrix.clone()
    dropped = torch.zeros(matrix.shape[:-1], dtype=torch.bool, device=matrix.device)
    for row in range(matrix.shape[-1]):
        pivot = left[..., row, row]
        none_left = pivot < _DEPENDENT
        dropped[..., row] = none_left
        column = torch.where(none_left.unsqueeze(-1), 0.0, left[..., :, row])
        left = left - column.unsqueeze(-1) * column.unsqueeze(-2) / pivot.clamp_min(_DEPENDENT)[..., None, None]
    return dropped


def _require_known(residual: Tensor, varies: Tensor, constraint: LinearConstraint) -> None:
    """Refuse what has no answer. One look at the device where all is well."""
    known = torch.isfinite(residual)
    if bool(known.all() & varies.all()):
        return
    if not bool(known.all()):
        row = int((~known).reshape(-1, known.shape[-1]).any(0).nonzero()[0])
        raise ValueError(
            f"Expected a finite mean but that in {constraint.names[row]!r} holds NaN or infinity; stop the rollout, or "
            "mask these points."
        )
    row = int((~varies).reshape(-1, varies.shape[-1]).any(0).nonzero()[0])
    raise ValueError(
        f"Expected some variance where {constraint.names[row]!r} has its weights but there is none, so nothing can move to "
        "meet an exact target; give the variance a floor, or the target a variance."
    )


def _white(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device=generator.device).to(like.device)

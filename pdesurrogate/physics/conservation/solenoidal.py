"""Predicted velocities, given that they are divergence-free: periodic boxes, collocated grids, the spectral divergence.

The rows of ``div u = 0`` are as many as points, and never built: with a variance for each component that is the same
everywhere, waves are independent of each other; with one that varies in space, conjugate gradients solve for the
multipliers. The divergence is that of `physics.operators.divergence`, in which Nyquist waves of even axes have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.physics.conservation.covariance import Covariance, Diagonal
from pdesurrogate.physics.operators import divergence, gradient
from pdesurrogate.physics.spectral import derivative_wavenumbers, half_spectrum_weights

# Of the residual, relative to the divergence at the start: what is left is round-off.
_SOLVED = 1e-13


def solenoidal(
    mean: Tensor, covariance: Diagonal, periods: Sequence[float], iterations: int = 1000
) -> tuple[Tensor, Solenoidal]:
    """Mean and covariance of a velocity, given that its spectral divergence vanishes: what `condition` takes next.

    With equal variances this is the Leray projection. A component that is surer moves less:
    ``u' = u - S k (k . u) / (k . S k)`` for every wave. Where the variance is the same everywhere the mean over the box
    stays; where it is not, the mean moves, and a constraint on it is met by conditioning on both, which is what
    ``condition(*solenoidal(...), momentum)`` does: exact updates one after the other are the joint update.

    Differentiable in mean and variance, and computed in float64; the mean keeps its precision.

    Args:
        mean: ``(..., d, *space)``, d components in as many dimensions, physical units.
        covariance: of independent unknowns, with positive variances that broadcast to ``(..., d, *space)``:
            ``(d, 1, 1)`` in a plane for those of the components.
        periods: of the box along each axis.
        iterations: after which conjugate gradients give up, where the variance varies in space; they need up to 15
            times the root of the largest ratio of variances.

    Raises:
        ValueError: if shapes or periods do not fit, the mean is not finite, or a variance is zero.
        RuntimeError: if the iterations do not suffice.

    Example:
        >>> x = torch.arange(8, dtype=torch.float64) * (2 * torch.pi / 8)
        >>> gradient_of_cosine = torch.stack([-x.sin(), 0 * x]).unsqueeze(-1).expand(2, 8, 8)
        >>> mean, _ = solenoidal(1 + gradient_of_cosine, Diagonal(1.0), (2 * torch.pi, 2 * torch.pi))
        >>> bool(torch.allclose(mean, torch.ones(2, 8, 8).double()))
        True
    """
    prior = Solenoidal(covariance, periods, iterations)
    if not bool(torch.isfinite(mean).all()):
        raise ValueError("Expected a finite mean but that of the velocity holds NaN or infinity; stop the rollout.")
    return prior.projected(mean).to(mean.dtype), prior


class Solenoidal(Covariance):
    """A covariance of velocities ``(..., d, *space)`` that are independent but for being divergence-free.

    Args:
        covariance: without that, see `solenoidal`.
        periods: of the box along each axis.
        iterations: of conjugate gradients, see `solenoidal`.

    Raises:
        ValueError: if a period or a variance is not positive.
    """

    def __init__(self, covariance: Diagonal, periods: Sequence[float], iterations: int = 1000) -> None:
        self.variance = covariance.variance
        self.periods = tuple(periods)
        self.iterations = iterations
        if not self.periods or not all(0 < period < math.inf for period in self.periods):
            raise ValueError(f"Expected positive periods of a box, one for each axis, but got {self.periods}.")
        if not bool((self.variance > 0).all()):
            raise ValueError(
                "Expected a positive variance of every component everywhere but the lowest is zero; add a floor: a "
                "velocity that cannot move may keep its divergence."
            )

    def projected(self, velocity: Tensor) -> Tensor:
        """``velocity (..., d, *space)`` in float64, without its divergence: less variance times a gradient."""
        return self._projected(velocity.to(torch.float64), self.variance, self._event(velocity.shape))

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v``; see `Covariance`."""
        # With an axis for several vectors between batch and event, if there is a batch.
        variance = self.variance.unsqueeze(-len(event) - 1) if self.variance.ndim > len(event) else self.variance
        variance = variance.to(vectors.device)
        return self._projected(variance * vectors, variance, event)

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """Marginal variances; see `Covariance`. Where the prior's vary in space, as many solutions as unknowns."""
        dimension = len(self.periods)
        if not _uniform(self.variance, dimension):
            return self.dense(event).diagonal(dim1=-2, dim2=-1).unflatten(-1, event)
        space = event[1:]
        spread, along = _symbol(self.variance, space, self.periods)
        removed = spread * along * half_spectrum_weights(space, device=along.device)
        kept = removed.sum(tuple(range(-dimension, 0)), keepdim=True) / math.prod(space)
        return self.variance - self.variance * kept

    def bound(self, event: tuple[int, ...]) -> Tensor:
        """The variances without the projection, which lifts none; see `Covariance`."""
        self._event(event)
        return self.variance

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """Written out; see `Covariance`."""
        each = torch.eye(math.prod(event), dtype=torch.float64, device=self.variance.device).unflatten(-1, event)
        matrix = self.times(each, event).flatten(-len(event))
        return (matrix + matrix.mT) / 2

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws; see `Covariance`."""
        return self._projected(Diagonal(self.variance).sample(batch, event, generator), self.variance, event)

    def _event(self, shape: Sequence[int]) -> tuple[int, ...]:
        dimension = len(self.periods)
        event = tuple(shape[-dimension - 1 :])
        if len(event) != dimension + 1 or event[0] != dimension:
            raise ValueError(
                f"Expected a velocity (..., {dimension}, *space) with {dimension} space axes, as there are periods, "
                f"but got {tuple(shape)}; select the channels of the velocity."
            )
        own = self.variance.shape[-dimension - 1 :]
        if not all(size in (1, other) for size, other in zip(reversed(own), reversed(event), strict=False)):
            raise ValueError(
                f"Expected variances that broadcast to {event}, components and space, but got {tuple(own)}; those of "
                f"components alone are ({dimension}{', 1' * dimension})."
            )
        return event

    def _projected(self, velocity: Tensor, variance: Tensor, event: tuple[int, ...]) -> Tensor:
        variance = variance.to(velocity.device)
        if _uniform(variance, len(self.periods)):
            return _without_divergence(velocity, variance, event[1:], self.periods)
        batch = torch.broadcast_shapes(velocity.shape, variance.shape)
        variance = variance.expand(batch)
        source = divergence(velocity.expand(batch), self.periods)
        potential = _potential(source, variance, self.periods, self.iterations)
        return velocity + variance * gradient(potential, self.periods)


def _uniform(variance: Tensor, dimension: int) -> bool:
    """Whether it is the same everywhere by its shape."""
    return all(size == 1 for size in variance.shape[-dimension:])


def _along(space: Sequence[int], periods: Sequence[float], device: torch.device) -> Tensor:
    """``k``: ``(d, *rfftn space)``."""
    return torch.stack(torch.broadcast_tensors(*derivative_wavenumbers(space, periods, device=device)))


def _norm(variance: Tensor, along: Tensor) -> Tensor:
    """``k . S k``: ``(..., 1, *rfftn space)``."""
    return (variance * along.square()).sum(-along.ndim, keepdim=True)


def _symbol(variance: Tensor, space: Sequence[int], periods: Sequence[float]) -> tuple[Tensor, Tensor]:
    """``S k / (k . S k)`` and ``k``, both ``(..., d, *rfftn space)``; zero where ``k`` is."""
    along = _along(space, periods, variance.device)
    norm = _norm(variance, along)
    return variance * along / torch.where(norm > 0, norm, 1.0), along


def _without_divergence(velocity: Tensor, variance: Tensor, space: Sequence[int], periods: Sequence[float]) -> Tensor:
    axes = tuple(range(-len(space), 0))
    spectrum = torch.fft.rfftn(velocity, dim=axes)
    spread, along = _symbol(variance, space, periods)
    divergent = (along * spectrum).sum(-len(space) - 1, keepdim=True)
    return torch.fft.irfftn(spectrum - spread * divergent, s=tuple(space), dim=axes)


class _Potential(torch.autograd.Function):
    """Solves ``-div(S grad p) = source`` for ``p`` of zero mean; derivatives by the same symmetric equation."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, variance: Tensor, periods: tuple[float, ...], iterations: int) -> Tensor:
        potential = _conjugate_gradients(source, variance, periods, iterations)
        ctx.save_for_backward(potential, variance)
        ctx.periods, ctx.iterations = periods, iterations
        return potential

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        potential, variance = ctx.saved_tensors
        # What waves without a derivative carry cannot be solved for, and does not reach the source.
        uniform = slopes[0].new_ones(len(ctx.periods), *(1,) * len(ctx.periods))
        solvable = _inverse(-divergence(gradient(slopes[0], ctx.periods), ctx.periods), uniform, ctx.periods)
        adjoint = _potential(solvable, variance, ctx.periods, ctx.iterations)
        to_variance = -gradient(adjoint, ctx.periods) * gradient(potential, ctx.periods)
        return adjoint, to_variance, None, None


def _potential(source: Tensor, variance: Tensor, periods: tuple[float, ...], iterations: int) -> Tensor:
    potential: Tensor = _Potential.apply(source, variance, periods, iterations)  # type: ignore[no-untyped-call]
    return potential


def _inverse(values: Tensor, variance: Tensor, periods: Sequence[float]) -> Tensor:
    """Of ``-div S grad`` with a variance that is the same everywhere; zero for the waves of which it leaves nothing."""
    space = values.shape[-len(periods) :]
    axes = tuple(range(-len(periods), 0))
    norm = _norm(variance, _along(space, periods, values.device)).squeeze(-len(periods) - 1)
    inverse = torch.where(norm > 0, 1 / torch.where(norm > 0, norm, 1.0), 0.0)
    return torch.fft.irfftn(torch.fft.rfftn(values, dim=axes) * inverse, s=tuple(space), dim=axes)


def _conjugate_gradients(source: Tensor, variance: Tensor, periods: Sequence[float], iterations: int) -> Tensor:
    """``p`` with ``-div(S grad p) = source``, every element of the batch for itself.

    The preconditioner is the same with the mean variance of each component, by Fourier transforms.
    """
    axes = tuple(range(-len(periods), 0))
    everywhere = variance.mean(axes, keepdim=True)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True)

    residual = source
    goal = _SOLVED**2 * inner(source, source)
    potential = torch.zeros_like(source)
    ascent = _inverse(residual, everywhere, periods)
    direction, decrease = ascent, inner(residual, ascent)
    for _ in range(iterations):
        working = inner(residual, residual) > goal
        if not bool(working.any()):
            return potential
        turned = -divergence(variance * gradient(direction, periods), periods)
        curvature = inner(direction, turned)
        step = torch.where(working, decrease / torch.where(working, curvature, 1.0), 0.0)
        potential = potential + step * direction
        residual = residual - step * turned
        ascent = _inverse(residual, everywhere, periods)
        before, decrease = decrease, inner(residual, ascent)
        direction = ascent + torch.where(working, decrease / torch.where(working, before, 1.0), 0.0) * direction
    left = float((inner(residual, residual) / inner(source, source)).nan_to_num(0).max().sqrt())
    ratio = float(variance.max() / variance.min())
    raise RuntimeError(
        f"The divergence fell to {left:.3g} of what it was in {iterations} iterations, where variances differ by a "
        f"factor of {ratio:.3g}; allow more iterations, or lift the smallest variances by a floor."
    )

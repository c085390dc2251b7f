"""The second-difference step of ProbConserv: a prior is smoothed where it is evenly sure, and less so at fronts.

Hansen et al., *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023, arXiv:2302.11002, call the two
steps together "ProbConserv w/diff". Conservation comes last, so that it is exact at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Dense, Diagonal
from pdesurrogate.physics.conservation.rows import DenseRows


def smoothed(
    mean: Tensor, covariance: Diagonal, correlation: float = 0.9, points: Tensor | None = None
) -> tuple[Tensor, Dense]:
    """Mean and covariance, given that second differences are near zero: what `condition` takes next.

    Where neighbors are equally sure, differences are held small; where the variance jumps, as at a front, they are held
    less, and what is sure beside it stays. Dampens the spikes that conservation leaves beside a front, but is no
    limiter: it may overshoot.

    Neighbors get correlated, so that the covariance is full: ``n^2`` numbers and ``O(n^3)`` operations for each line.

    Args:
        mean: ``(..., n)`` along one axis, physical units.
        covariance: of independent unknowns, with variances ``(..., n)`` or what broadcasts to them.
        correlation: of neighbors, by which the noise of the differences is measured; see `second_differences`.
        points: ``(n,)`` coordinates, where they are not equally spaced.

    Raises:
        ValueError: as `second_differences`, and if the mean is not finite.

    Example:
        >>> x = torch.linspace(0, 1, 5, dtype=torch.float64)
        >>> kinked = torch.tensor([0.0, 1.0, 2.0, 1.0, 0.0])
        >>> mean, spread = smoothed(kinked, Diagonal(torch.ones(5)))
        >>> round(float(mean.diff(n=2).abs().max()), 3)
        0.399
        >>> mass = LinearConstraint.integral(x, torch.tensor(1.0))
        >>> conserved = condition(mean, spread, mass).mean
        >>> round(float(mass.rows.apply(conserved)), 6)
        1.0
    """
    variance = covariance.variance.expand(*covariance.variance.shape[:-1], mean.shape[-1])
    found = condition(mean, covariance, second_differences(variance, correlation, points))
    return found.mean, Dense(found.covariance())


def second_differences(variance: Tensor, correlation: float = 0.9, points: Tensor | None = None) -> LinearConstraint:
    """``u_{i-1} - 2 u_i + u_{i+1} = 0`` up to the noise that it would have if neighbors were correlated.

    With the deviations ``s`` and the correlation ``a`` of neighbors, ``a^2`` of next neighbors, the noise has
    the variance

        r_i = s_{i-1}^2 + 4 s_i^2 + s_{i+1}^2 - 4 a s_{i-1} s_i + 2 a^2 s_{i-1} s_{i+1} - 4 a s_i s_{i+1},

    which is small where the deviations are equal and large where they jump. On points that are not equally spaced the
    differences are those that vanish for straight lines.

    Args:
        variance: ``(..., n)`` of the unknowns, which are independent.
        correlation: ``a``, from -1 to 1; 0.9 in the paper.
        points: ``(n,)`` coordinates, where they are not equally spaced.

    Raises:
        ValueError: if there are fewer than three unknowns, a variance is negative or not finite, the correlation is out
            of range, or the points do not fit or do not increase.

    Example:
        >>> second_differences(torch.ones(3), correlation=0.5).variance.tolist()
        [2.5]
    """
    if not -1 <= correlation <= 1:
        raise ValueError(f"Expected a correlation of neighbors from -1 to 1 but got {correlation}.")
    if variance.ndim < 1 or variance.shape[-1] < 3:
        raise ValueError(
            f"Expected variances (..., n) of at least three unknowns, for a second difference, but got "
            f"{tuple(variance.shape)}."
        )
    variance = Diagonal(variance).variance
    count = variance.shape[-1]
    before, here, after = _coefficients(count, points, variance)
    positive = variance > 0
    # The root of zero has no derivative.
    deviation = torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)
    first, second, third = before * deviation[..., :-2], here * deviation[..., 1:-1], after * deviation[..., 2:]
    noise = first.square() + second.square() + third.square()
    noise = noise + 2 * correlation * second * (first + third) + 2 * correlation**2 * first * third
    # Round-off must not make it negative; and where three neighbors are known, any noise leaves them as they are.
    known = ~(positive[..., :-2] | positive[..., 1:-1] | positive[..., 2:])
    noise = torch.where(known, 1.0, noise.clamp_min(0))
    rows = variance.new_zeros(count - 2, count)
    for offset, coefficient in enumerate((before, here, after)):
        rows.diagonal(offset).copy_(coefficient)
    names = tuple(f"second difference at point {number}" for number in range(1, count - 1))
    return LinearConstraint(DenseRows(rows, event_ndim=1), rows.new_zeros(count - 2), noise, names=names)


def _coefficients(count: int, points: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(n - 2,)`` of the point before, the point itself and the one after: 1, -2, 1 at equal spacing."""
    ones = torch.ones(count - 2, dtype=torch.float64, device=like.device)
    if points is None:
        return ones, -2 * ones, ones
    if tuple(points.shape) != (count,) or not bool((points.diff() > 0).all()):
        raise ValueError(f"Expected {count} points that increase, one for each unknown, but got {tuple(points.shape)}.")
    gaps = points.to(ones).diff()
    left, right = gaps[:-1], gaps[1:]
    return 2 * right / (left + right), -2 * ones, 2 * left / (left + right)

"""Covariances of what a model predicts, by what is in them: none is written out unless that is asked for.

The unknowns are axes ``(*event)`` at the end; axes in front are those of a batch, each element with its own covariance.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

# What round-off leaves of a zero eigenvalue, relative to the mean of the diagonal.
_ROUND_OFF = 1e-10


@runtime_checkable
class Covariance(Protocol):
    """A symmetric positive semi-definite operator on unknowns ``(*event)``."""

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v`` for several vectors, ``(..., k, *event)`` to the same."""
        ...

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """Marginal variances ``(..., *event)``, or what broadcasts to them."""
        ...

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """``(..., n, n)`` with the unknowns flattened: for small ones."""
        ...

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws ``(*batch, *event)`` of zero mean in float64; ``batch`` ends with the batch of the covariance."""
        ...


class Diagonal:
    """Independent unknowns.

    Args:
        variance: ``(..., *event)``, or what broadcasts to it; a number stands for equal variances.

    Raises:
        ValueError: if a variance is negative or not finite.

    Example:
        >>> Diagonal(torch.tensor([1.0, 4.0])).dense((2,)).tolist()
        [[1.0, 0.0], [0.0, 4.0]]
    """

    def __init__(self, variance: Tensor | float) -> None:
        self.variance = torch.as_tensor(variance).to(torch.float64)
        _require_variances(self.variance)

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v``; see `Covariance`."""
        return _for_vectors(self.variance, event) * vectors

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """The variances; see `Covariance`."""
        return self.variance

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """Written out; see `Covariance`."""
        return torch.diag_embed(_flat(self.variance, event))

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws; see `Covariance`."""
        return self.variance.sqrt() * _white((*batch, *event), generator, self.variance)


class LowRank:
    """Independent unknowns and a few modes that they share: ``diag(variance) + sum_k a_k a_k^T``.

    Args:
        variance: ``(..., *event)`` or a number, as `Diagonal` takes it.
        modes: ``(..., modes, *event)``.

    Raises:
        ValueError: if a variance is negative, or something is not finite.

    Example:
        >>> LowRank(1.0, torch.tensor([[1.0, 2.0]])).dense((2,)).tolist()
        [[2.0, 2.0], [2.0, 5.0]]
    """

    def __init__(self, variance: Tensor | float, modes: Tensor) -> None:
        self.modes = modes.to(torch.float64)
        self.variance = torch.as_tensor(variance).to(self.modes)
        _require_variances(self.variance)
        if not bool(torch.isfinite(self.modes).all()):
            raise ValueError("Expected finite modes of a covariance but some are NaN or infinite.")

    @classmethod
    def of_members(cls, members: Tensor, event_ndim: int, floor: Tensor | float) -> LowRank:
        """The unbiased covariance of ``members (member, ..., *event)`` and a floor of variance at every unknown.

        Without a floor, no unknown can move along which all members agree.

        Raises:
            ValueError: if there are fewer than two members.

        Example:
            >>> members = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
            >>> LowRank.of_members(members, event_ndim=1, floor=0.5).dense((2,)).tolist()
            [[2.5, 0.0], [0.0, 0.5]]
        """
        if len(members) < 2:
            raise ValueError(f"Expected at least two members, which have a covariance, but got {len(members)}.")
        members = members.to(torch.float64)
        anomalies = (members - members.mean(0)) / math.sqrt(len(members) - 1)
        return cls(floor, anomalies.movedim(0, -event_ndim - 1))

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v``; see `Covariance`."""
        modes, flat = self.modes.flatten(-len(event)), vectors.flatten(-len(event))
        shared = (flat @ modes.mT) @ modes
        return _for_vectors(self.variance, event) * vectors + shared.unflatten(-1, event)

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """Marginal variances; see `Covariance`."""
        return self.variance + self.modes.square().sum(-len(event) - 1)

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """Written out; see `Covariance`."""
        modes = self.modes.flatten(-len(event))
        return torch.diag_embed(_flat(self.variance, event)) + modes.mT @ modes

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws; see `Covariance`."""
        own = self.variance.sqrt() * _white((*batch, *event), generator, self.modes)
        modes = self.modes.flatten(-len(event))
        amplitudes = _white((*batch, 1, modes.shape[-2]), generator, modes)
        return own + (amplitudes @ modes).squeeze(-2).unflatten(-1, event)


class Dense:
    """A covariance that is written out.

    Args:
        matrix: ``(..., n, n)``, the unknowns flattened.

    Raises:
        ValueError: if it is not square, symmetric and positive semi-definite.

    Example:
        >>> Dense(2 * torch.eye(2)).diagonal((2,)).tolist()
        [2.0, 2.0]
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.to(torch.float64)
        if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
            raise ValueError(f"Expected a square matrix as a covariance but got {tuple(matrix.shape)}.")
        scale = self.matrix.diagonal(dim1=-2, dim2=-1).abs().mean(-1)
        skew = (self.matrix - self.matrix.mT).abs().amax((-2, -1))
        if not bool((skew <= 1e-6 * scale).all()):
            raise ValueError(
                f"Expected a symmetric covariance but entries differ by {float(skew.max()):.3g} from their mirror images."
            )
        lifted = self.matrix + _ROUND_OFF * scale[..., None, None] * torch.eye(matrix.shape[-1]).to(self.matrix)
        failed = torch.linalg.cholesky_ex(lifted.detach())[1] > 0
        if bool(failed.any()):
            # A vanishing covariance is one, though nothing factorizes it.
            lowest = torch.linalg.eigvalsh(self.matrix.detach()[failed & (scale > 0)])[..., 0]
            if lowest.numel():
                raise ValueError(
                    f"Expected a positive semi-definite covariance but it has the eigenvalue {float(lowest.min()):.3g}; "
                    "clip its negative eigenvalues, or add a floor to its diagonal."
                )

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v``; see `Covariance`."""
        return (vectors.flatten(-len(event)) @ self.matrix).unflatten(-1, event)

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """Marginal variances; see `Covariance`."""
        return self.matrix.diagonal(dim1=-2, dim2=-1).unflatten(-1, event)

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """The matrix; see `Covariance`."""
        return self.matrix

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws; see `Covariance`."""
        # The symmetric root exists where the matrix is singular too.
        values, vectors = torch.linalg.eigh(self.matrix)
        white = _white((*batch, 1, self.matrix.shape[-1]), generator, self.matrix)
        return (white * values.clamp_min(0).sqrt().unsqueeze(-2) @ vectors.mT).squeeze(-2).unflatten(-1, event)


class FourierDiagonal:
    """A covariance that is the same everywhere in a periodic box: independent waves.

    Args:
        power: ``(..., *waves)`` variance of every wave of the full transform over the event's axes, in the order of
            ``torch.fft.fftn``, so that an unknown has the mean of these as its variance. Only its part that is even in
            the wave counts: real fields have no other.

    Raises:
        ValueError: if a variance is negative or not finite.

    Example:
        >>> white = FourierDiagonal(torch.full((8,), 3.0))
        >>> white.diagonal((8,)).flatten().tolist()
        [3.0]
    """

    def __init__(self, power: Tensor) -> None:
        self.power = power.to(torch.float64)
        _require_variances(self.power)

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v``; see `Covariance`."""
        return self._convolved(vectors, event, _for_vectors(self.power, event))

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """Marginal variances, the same everywhere; see `Covariance`."""
        return self.power.mean(tuple(range(-len(event), 0)), keepdim=True)

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """Written out; see `Covariance`."""
        each = torch.eye(math.prod(event)).to(self.power).unflatten(-1, event)
        return self.times(each, event).flatten(-len(event))

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws; see `Covariance`."""
        return self._convolved(_white((*batch, *event), generator, self.power), event, self.power, root=True)

    def _convolved(self, values: Tensor, event: tuple[int, ...], power: Tensor, root: bool = False) -> Tensor:
        axes = tuple(range(-len(event), 0))
        mirrored = power.flip(axes).roll((1,) * len(event), axes)
        even = (power + mirrored) / 2
        symbol = even.sqrt() if root else even
        return torch.fft.ifftn(torch.fft.fftn(values.to(torch.float64), dim=axes) * symbol, dim=axes).real


def _flat(variance: Tensor, event: tuple[int, ...]) -> Tensor:
    """``(..., n)`` of what broadcasts to ``(..., *event)``."""
    batch = variance.shape[: max(variance.ndim - len(event), 0)]
    return variance.expand(*batch, *event).flatten(-len(event))


def _for_vectors(variance: Tensor, event: tuple[int, ...]) -> Tensor:
    """With an axis for several vectors between batch and event, if there is a batch."""
    return variance.unsqueeze(-len(event) - 1) if variance.ndim > len(event) else variance


def _white(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device).to(like.device)


def _require_variances(variance: Tensor) -> None:
    if not bool(torch.isfinite(variance).all() and (variance >= 0).all()):
        lowest = float(variance.min()) if bool(torch.isfinite(variance).all()) else math.nan
        raise ValueError(
            f"Expected variances that are finite and at least zero but the lowest is {lowest:.3g}; a model's deviation "
            "needs squaring, not its logarithm."
        )

"""Covariances of what a model predicts, by what is in them: none is written out unless that is asked for.

The unknowns are axes ``(*event)`` at the end; axes in front are those of a batch, each element with its own covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

# What an update leaves of a zero eigenvalue, unknowns in units of their deviations: where one of them is all but known,
# the round-off of what it was.
_ROUND_OFF = 1e-6


@runtime_checkable
class Covariance(Protocol):
    """A symmetric positive semi-definite operator on unknowns ``(*event)``."""

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v`` for several vectors, ``(..., k, *event)`` to the same."""
        ...

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """Marginal variances ``(..., *event)``, or what broadcasts to them."""
        ...

    def bound(self, event: tuple[int, ...]) -> Tensor:
        """Upper bounds of the marginal variances, of the same batch, where these cost more than a product does."""
        return self.diagonal(event)

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """``(..., n, n)`` with the unknowns flattened: for small ones."""
        ...

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws ``(*batch, *event)`` of zero mean in float64; ``batch`` ends with the batch of the covariance."""
        ...


class Diagonal(Covariance):
    """Independent unknowns.

    Args:
        variance: ``(..., *event)``, or what broadcasts to it; a number stands for equal variances.

    Raises:
        ValueError: if a variance is negative or not finite; by the methods, if variances do not fit the unknowns.

    Example:
        >>> Diagonal(torch.tensor([1.0, 4.0])).dense((2,)).tolist()
        [[1.0, 0.0], [0.0, 4.0]]
    """

    def __init__(self, variance: Tensor | float) -> None:
        self.variance = torch.as_tensor(variance, dtype=torch.float64)
        _require_variances(self.variance)

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v``; see `Covariance`."""
        return _for_vectors(self.variance, event) * vectors

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """The variances; see `Covariance`."""
        _require_broadcasts(self.variance, event)
        return self.variance

    def dense(self, event: tuple[int, ...]) -> Tensor:
        """Written out; see `Covariance`."""
        return torch.diag_embed(_flat(self.variance, event))

    def sample(self, batch: tuple[int, ...], event: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws; see `Covariance`."""
        return self.variance.sqrt() * _white((*batch, *event), generator, self.variance)


class LowRank(Covariance):
    """Independent unknowns and a few modes that they share: ``diag(variance) + sum_k a_k a_k^T``.

    Args:
        variance: ``(..., *event)`` or a number, as `Diagonal` takes it.
        modes: ``(..., modes, *event)``.

    Raises:
        ValueError: if a variance is negative, or something is not finite; by the methods, if variances or modes do not
            fit the unknowns.

    Example:
        >>> LowRank(1.0, torch.tensor([[1.0, 2.0]])).dense((2,)).tolist()
        [[2.0, 2.0], [2.0, 5.0]]
    """

    def __init__(self, variance: Tensor | float, modes: Tensor) -> None:
        self.modes = modes.to(torch.float64)
        self.variance = torch.as_tensor(variance, dtype=torch.float64, device=self.modes.device)
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
        _require_broadcasts(self.variance, event)
        _require_unknowns("modes (..., modes, *event) of a covariance", self.modes, event, len(event) + 1)
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


class Dense(Covariance):
    """A covariance that is written out.

    Args:
        matrix: ``(..., n, n)``, the unknowns flattened.

    Raises:
        ValueError: if it is not square, finite, symmetric and positive semi-definite up to round-off of its precision;
            by the methods, if it does not fit the unknowns.

    Example:
        >>> Dense(2 * torch.eye(2)).diagonal((2,)).tolist()
        [2.0, 2.0]
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
            raise ValueError(f"Expected a square matrix as a covariance but got {tuple(matrix.shape)}.")
        require_semidefinite(matrix)
        # What is left of asymmetry would be an error of the constraint.
        self.matrix = (matrix.to(torch.float64) + matrix.mT.to(torch.float64)) / 2

    def times(self, vectors: Tensor, event: tuple[int, ...]) -> Tensor:
        """``S v``; see `Covariance`."""
        return (vectors.flatten(-len(event)) @ self.matrix).unflatten(-1, event)

    def diagonal(self, event: tuple[int, ...]) -> Tensor:
        """Marginal variances; see `Covariance`."""
        if self.matrix.shape[-1] != math.prod(event):
            raise ValueError(
                f"Expected a covariance of {math.prod(event)} unknowns {tuple(event)} but got "
                f"{tuple(self.matrix.shape)}."
            )
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


class FourierDiagonal(Covariance):
    """A covariance that is the same everywhere in a periodic box: independent waves.

    Args:
        power: ``(..., *waves)`` variance of every wave of the full transform over the event's axes, in the order of
            ``torch.fft.fftn``, so that an unknown has the mean of these as its variance. Only its part that is even in
            the wave counts: real fields have no other.

    Raises:
        ValueError: if a variance is negative or not finite; by the methods, if waves do not fit the unknowns.

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
        _require_unknowns("the power of every wave (..., *event)", self.power, event, len(event))
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
        even = ((power + mirrored) / 2)[..., : event[-1] // 2 + 1]
        symbol = even.sqrt() if root else even
        return torch.fft.irfftn(torch.fft.rfftn(values.to(torch.float64), dim=axes) * symbol, s=event, dim=axes)


def require_semidefinite(matrix: Tensor, of: str = "covariance", names: Sequence[str] | None = None) -> None:
    """Refuse a matrix ``(..., n, n)`` that is no covariance, up to round-off of its precision.

    Args:
        matrix: square.
        of: what it is, for the message.
        names: of its rows, for the message.

    Raises:
        ValueError: if it is not finite, symmetric and positive semi-definite; it names the unknown to blame.
    """
    precision = torch.finfo(matrix.dtype).eps if matrix.is_floating_point() else 0.0
    matrix = matrix.detach().to(torch.float64)

    def named(numbers: Tensor) -> str:
        number = int(numbers.flatten()[0])
        return f"unknown {number}" if names is None else repr(names[number])

    unknown = ~torch.isfinite(matrix)
    if bool(unknown.any()):
        raise ValueError(f"Expected a finite {of} but that of {named(unknown.nonzero()[:, -1])} holds NaN or infinity.")
    variance = matrix.diagonal(dim1=-2, dim2=-1)
    # In units of the deviations, so that it does not matter what the unknowns are measured in.
    root = torch.where(variance > 0, variance, 1.0).rsqrt()
    scaled = root.unsqueeze(-1) * matrix * root.unsqueeze(-2)
    skew = (scaled - scaled.mT).abs()
    if bool((skew > 1e-6).any()):
        raise ValueError(
            f"Expected a symmetric {of} but that of {named((skew > 1e-6).nonzero()[:, -1])} is not its mirror image; "
            "take the mean with the transpose."
        )
    size = matrix.shape[-1]
    allowed = max(_ROUND_OFF, size * precision)
    lifted = (scaled + scaled.mT) / 2 + allowed * torch.eye(size, dtype=torch.float64, device=matrix.device)
    failed = torch.linalg.cholesky_ex(lifted)[1] > 0
    if bool(failed.any()):
        values, vectors = torch.linalg.eigh(scaled[failed])
        lowest = values[..., 0].argmin()
        raise ValueError(
            f"Expected a positive semi-definite {of} but it has the eigenvalue {float(values[lowest, 0]):.3g}, in "
            f"units of the deviations, mostly of {named(vectors[lowest, :, 0].abs().argmax())}; clip its negative "
            "eigenvalues, or add a floor to its diagonal."
        )


def _require_broadcasts(variance: Tensor, event: tuple[int, ...]) -> None:
    if variance.shape[variance.ndim - len(event) :] == event:
        return
    if any(size not in (1, of) for size, of in zip(reversed(variance.shape), reversed(event), strict=False)):
        raise ValueError(
            f"Expected variances (..., {', '.join(map(str, event))}), or what broadcasts to them, but got "
            f"{tuple(variance.shape)}."
        )


def _require_unknowns(what: str, values: Tensor, event: tuple[int, ...], axes: int) -> None:
    if values.ndim < axes or values.shape[values.ndim - len(event) :] != event:
        raise ValueError(f"Expected {what} of unknowns {tuple(event)} but got {tuple(values.shape)}.")


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
    if not variance.numel():
        return
    lowest, highest = (float(value) for value in variance.detach().aminmax())
    # One pass: a NaN is both lowest and highest.
    if not 0 <= lowest <= highest < math.inf:
        flat = variance.detach().flatten()
        first = int((~torch.isfinite(flat) | (flat < 0)).nonzero()[0])
        raise ValueError(
            f"Expected variances that are finite and at least zero but they lie from {lowest:.3g} to {highest:.3g}; "
            f"the first to blame is number {first} of {tuple(variance.shape)} flattened, {float(flat[first]):.3g}: a "
            "model's deviation needs squaring, its logarithm the exponential."
        )

"""Rows of linear constraints ``G u = b``: weights over unknowns, held so that what is not there costs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["trapezoid", "midpoint", "right"]


class DenseRows:
    """Rows of which any may touch any unknown.

    Args:
        weights: ``(..., rows, *event)``; axes in front are those of a batch with rows of its own.
        event_ndim: number of axes of the unknowns.

    Attributes:
        event: sizes of the axes of the unknowns.

    Raises:
        ValueError: if weights have too few axes or are not finite.

    Example:
        >>> rows = DenseRows(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]), event_ndim=1)
        >>> rows.apply(torch.tensor([1.0, 2.0, 3.0])).tolist()
        [3.0, 5.0]
    """

    def __init__(self, weights: Tensor, event_ndim: int) -> None:
        if event_ndim < 1 or weights.ndim < event_ndim + 1:
            raise ValueError(
                f"Expected weights (rows, *event) with {event_ndim} axes of unknowns, at least one, but got "
                f"{tuple(weights.shape)}."
            )
        _require_finite(weights)
        self.weights = weights.to(torch.float64)
        self.event_ndim = event_ndim
        self.event = tuple(weights.shape[weights.ndim - event_ndim :])

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.weights.shape[-self.event_ndim - 1]

    @property
    def batch(self) -> tuple[int, ...]:
        """Sizes of the axes in front of the rows."""
        return tuple(self.weights.shape[: -self.event_ndim - 1])

    def apply(self, values: Tensor) -> Tensor:
        """``G u``: ``(..., rows)`` of ``values (..., *event)``, in float64."""
        return self._product(self.weights, values)

    def magnitude(self, values: Tensor) -> Tensor:
        """``|G| |u| (..., rows)`` of ``values (..., *event)``: what round-off in ``G u`` is a share of."""
        return self._product(self.weights.abs(), values.abs())

    def _product(self, weights: Tensor, values: Tensor) -> Tensor:
        weights = weights.flatten(-self.event_ndim)
        flat = values.to(torch.float64).flatten(-self.event_ndim)
        # Without a batch of rows, one matrix product reads the weights once for the whole batch of values.
        return flat @ weights.mT if weights.ndim == 2 else (weights @ flat.unsqueeze(-1)).squeeze(-1)

    def transpose(self, multipliers: Tensor) -> Tensor:
        """``G^T l``: ``(..., *event)`` of ``multipliers (..., rows)``."""
        flat = multipliers.unsqueeze(-2) @ self.weights.flatten(-self.event_ndim)
        return flat.squeeze(-2).unflatten(-1, self.event)

    def dense(self) -> Tensor:
        """``(..., rows, *event)``."""
        return self.weights

    def to(self, device: torch.device | str) -> DenseRows:
        """On a device."""
        return DenseRows(self.weights.to(device), self.event_ndim)


class DisjointRows:
    """Rows no two of which touch the same unknown: an integral over everything, or one over each control volume.

    With a prior that does not couple unknowns all costs are those of a few passes over these.

    Args:
        weights: ``(..., *event)`` of every unknown in its row.
        event_ndim: number of axes of the unknowns.
        labels: ``(*event)`` integers, the row of every unknown, ``0, 1, ...``, or -1 for none. Rows of like size
            are best: each takes the memory of the largest.
        summed: without labels, how many axes at the end a row sums over, all of them by default: with one less there is
            a row for each channel of ``(channel, *space)``.

    Attributes:
        event: sizes of the axes of the unknowns.

    Raises:
        ValueError: if shapes do not fit, weights are not finite, a row is empty, or labels and ``summed`` are given.

    Example:
        >>> rows = DisjointRows(torch.ones(4), event_ndim=1, labels=torch.tensor([0, 0, 1, -1]))
        >>> rows.apply(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
        [3.0, 3.0]
    """

    def __init__(
        self, weights: Tensor, event_ndim: int, labels: Tensor | None = None, summed: int | None = None
    ) -> None:
        if event_ndim < 1 or weights.ndim < event_ndim:
            raise ValueError(
                f"Expected weights (*event) with {event_ndim} axes of unknowns, at least one, but got "
                f"{tuple(weights.shape)}."
            )
        _require_finite(weights)
        self.weights = weights.to(torch.float64)
        self.event_ndim = event_ndim
        self.event = tuple(weights.shape[weights.ndim - event_ndim :])
        self.labels: Tensor | None = None
        self.summed = event_ndim if summed is None else summed
        if not 1 <= self.summed <= event_ndim or (labels is not None and summed is not None):
            raise ValueError(
                f"Expected labels, or to sum over 1 to {event_ndim} axes, but got summed={summed}"
                f"{'' if labels is None else ' and labels'}."
            )
        self._squares: Tensor | None = None
        self._places: Tensor | None = None
        self._taken: Tensor | None = None
        if labels is not None:
            counts = not labels.is_floating_point() and not labels.is_complex() and labels.dtype != torch.bool
            if tuple(labels.shape) != self.event or not counts:
                raise ValueError(
                    f"Expected labels, integers, of unknowns {self.event} but got {labels.dtype} {tuple(labels.shape)}."
                )
            # Of bytes, an index would be a mask.
            self.labels = labels.to(torch.long)
            self._places, self._taken = _places(self.labels.flatten())

    @property
    def count(self) -> int:
        """Number of rows."""
        return math.prod(self.event[: -self.summed]) if self._places is None else len(self._places)

    @property
    def batch(self) -> tuple[int, ...]:
        """Sizes of the axes in front of the unknowns."""
        return tuple(self.weights.shape[: self.weights.ndim - self.event_ndim])

    def apply(self, values: Tensor) -> Tensor:
        """``G u``: ``(..., rows)`` of ``values (..., *event)``, in float64."""
        return self._product(self.weights, values)

    def magnitude(self, values: Tensor) -> Tensor:
        """``|G| |u| (..., rows)`` of ``values (..., *event)``: what round-off in ``G u`` is a share of."""
        return self._product(self.weights.abs(), values.abs())

    def variance(self, variances: Tensor) -> Tensor:
        """Variances ``(..., rows)`` of ``G u`` if unknowns are independent with these, ``(..., *event)``."""
        return self._product(self._squared(), variances)

    def _product(self, weights: Tensor, values: Tensor) -> Tensor:
        values = values.to(torch.float64)
        if self.labels is None and self.summed == weights.ndim and values.shape[-self.summed :] == weights.shape:
            # One inner product for each of the batch: nothing is written that has the size of the unknowns.
            return (values.flatten(-self.event_ndim) @ weights.flatten()).unsqueeze(-1)
        return self.collect(weights * values)

    def collect(self, values: Tensor) -> Tensor:
        """Sums of ``values (..., *event)`` over the unknowns of every row ``(..., rows)``."""
        if self._places is None or self._taken is None:
            sums = values.flatten(-self.summed).sum(-1, keepdim=True)
            return sums.flatten(-self.event_ndim + self.summed - 1)
        # Gathered, not scattered: scattered sums differ from run to run on a GPU.
        return (values.flatten(-self.event_ndim)[..., self._places] * self._taken).sum(-1)

    def lift(self, values: Tensor) -> Tensor:
        """To every unknown the value of its row: ``(..., *event)``, or what broadcasts to it, of ``(..., rows)``."""
        if self.labels is None:
            return values.reshape(*values.shape[:-1], *self.event[: -self.summed], *(1,) * self.summed)
        lifted = values[..., self.labels.clamp_min(0)]
        return torch.where(self.labels >= 0, lifted, 0.0)

    def transpose(self, multipliers: Tensor) -> Tensor:
        """``G^T l``: ``(..., *event)`` of ``multipliers (..., rows)``."""
        return self.weights * self.lift(multipliers)

    def moved(self, values: Tensor, variances: Tensor, multipliers: Tensor) -> Tensor:
        """``u - S G^T l`` of ``values (..., *event)`` in float64, if unknowns are independent with these variances."""
        return self._step(values, self.weights, variances, multipliers)

    def reduced(self, variances: Tensor, multipliers: Tensor) -> Tensor:
        """``diag(S - S G^T diag(l) G S)`` if unknowns are independent with these variances, ``(..., *event)``."""
        return self._step(variances, self._squared(), variances.square(), multipliers)

    def _step(self, values: Tensor, weights: Tensor, factors: Tensor, multipliers: Tensor) -> Tensor:
        single = self.labels is None and multipliers.shape == (1,)
        if single and not (torch.is_grad_enabled() and multipliers.requires_grad):
            # A number, where no gradient has to go through it, spares a pass over the unknowns.
            return torch.addcmul(values, weights, factors, value=-multipliers.item())
        return torch.addcmul(values, weights * self.lift(multipliers), factors, value=-1)

    def _squared(self) -> Tensor:
        if self.weights.requires_grad:
            return self.weights.square()
        if self._squares is None:
            # What is made in inference mode could never be used in training.
            with torch.inference_mode(False), torch.no_grad():
                self._squares = self.weights.square()
        return self._squares

    def dense(self) -> Tensor:
        """``(..., rows, *event)``; as many numbers as rows times unknowns."""
        each = torch.eye(self.count, dtype=torch.float64, device=self.weights.device)
        return self.weights.unsqueeze(-self.event_ndim - 1) * self.lift(each)

    def to(self, device: torch.device | str) -> DisjointRows:
        """On a device."""
        if self.labels is None:
            return DisjointRows(self.weights.to(device), self.event_ndim, summed=self.summed)
        return DisjointRows(self.weights.to(device), self.event_ndim, self.labels.to(device))


Rows = DenseRows | DisjointRows


def quadrature_weights(points: Tensor, rule: Rule = "trapezoid") -> Tensor:
    """Weights ``(..., n)`` of an integral along one axis over ``points (..., n)``, which increase.

    ``"trapezoid"`` over nodes, from the first to the last; ``"midpoint"`` over centers of cells, the outermost of which
    reach as far out as their neighbors are away; ``"right"`` the right-hand Riemann sum, without the first point.

    Raises:
        ValueError: for another rule, fewer than two points, or points that do not increase.

    Example:
        >>> quadrature_weights(torch.tensor([0.0, 1.0, 3.0])).tolist()
        [0.5, 1.5, 1.0]
        >>> quadrature_weights(torch.tensor([0.0, 1.0, 3.0]), rule="right").tolist()
        [0.0, 1.0, 2.0]
    """
    if rule not in ("trapezoid", "midpoint", "right"):
        raise ValueError(f"Expected rule 'trapezoid', 'midpoint' or 'right' but got {rule!r}.")
    if points.shape[-1] < 2 or not bool((points.diff(dim=-1) > 0).all()):
        raise ValueError("Expected at least two points that increase; sort them, and leave out those that repeat.")
    gaps = points.to(torch.float64).diff(dim=-1)
    nothing = torch.zeros_like(gaps[..., :1])
    if rule == "right":
        return torch.cat([nothing, gaps], -1)
    before, after = (gaps[..., :1], gaps[..., -1:]) if rule == "midpoint" else (nothing, nothing)
    return (torch.cat([before, gaps], -1) + torch.cat([gaps, after], -1)) / 2


def control_volumes(shape: Sequence[int], volumes: Sequence[int]) -> Tensor:
    """Labels ``(*shape)`` that cut a grid into boxes, as many along each axis as ``volumes`` says, for `DisjointRows`.

    Boxes are as equal as the points allow.

    Raises:
        ValueError: if there are more volumes than points along an axis, or none.

    Example:
        >>> control_volumes((4, 3), (2, 1)).tolist()
        [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]
    """
    if len(shape) != len(volumes) or not all(1 <= number <= size for size, number in zip(shape, volumes, strict=True)):
        raise ValueError(
            f"Expected between one and as many volumes as points along each axis of {tuple(shape)} but got "
            f"{tuple(volumes)}."
        )
    labels = torch.zeros(1, dtype=torch.long)
    for size, number in zip(shape, volumes, strict=True):
        labels = labels.unsqueeze(-1) * number + torch.arange(size) * number // size
    return labels.reshape(tuple(shape))


def product_weights(lines: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Weights ``(..., *space)`` of an integral over a box from those along each axis, ``(..., n)``; zero off the mask.

    Lines come from `quadrature_weights`, or from `Grid.quadrature_weights`, which knows periods, bounds and stretching.

    Example:
        >>> product_weights([torch.tensor([0.5, 0.5]), torch.tensor([1.0, 2.0, 1.0])]).tolist()
        [[0.5, 1.0, 0.5], [0.5, 1.0, 0.5]]
    """
    weights = torch.ones((), dtype=torch.float64, device=lines[0].device)
    for place, line in enumerate(lines):
        behind = len(lines) - 1 - place
        weights = weights * line.to(torch.float64).reshape(*line.shape[:-1], *(1,) * place, -1, *(1,) * behind)
    return weights if mask is None else weights * mask


def _places(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers ``(rows, longest)`` of the unknowns of every row, and ``(rows, longest)`` one where there is one."""
    count = int(labels.max()) + 1 if labels.numel() else 0
    sizes = torch.bincount(labels[labels >= 0], minlength=count)
    empty = (sizes == 0).nonzero().flatten().tolist()
    if count == 0 or empty:
        raise ValueError(f"Expected at least one unknown in every row 0..{count - 1} but rows {empty} have none.")
    order = torch.argsort(labels, stable=True)[int((labels < 0).sum()) :]
    longest = int(sizes.max())
    slots = torch.arange(longest, device=labels.device)
    taken = slots < sizes.unsqueeze(-1)
    starts = sizes.cumsum(0) - sizes
    places = order[(starts.unsqueeze(-1) + slots).clamp_max(math.prod(order.shape) - 1)]
    return places, taken.to(torch.float64)


def _require_finite(weights: Tensor) -> None:
    if not bool(torch.isfinite(weights).all()):
        raise ValueError("Expected finite weights of a constraint but some are NaN or infinite.")

"""What is known of linear functions of a field: the same object enforces, trains and measures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Grid
from pdesurrogate.physics.conservation.covariance import require_semidefinite
from pdesurrogate.physics.conservation.rows import (
    DenseRows,
    DisjointRows,
    Rows,
    Rule,
    control_volumes,
    product_weights,
    quadrature_weights,
)


@dataclass(frozen=True, eq=False)
class LinearConstraint:
    """``G u = b + noise``: rows, what they should give, and how sure that is.

    Hansen et al., *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023, arXiv:2302.11002, section
    3: a conservation law, integrated over its domain, is linear in the solution even where the flux is not.

    Attributes:
        rows: ``G``.
        target: ``b (..., rows)``; axes in front are those of a batch.
        variance: of the target ``(..., rows)``, independent from row to row; without, the target is exact.
        covariance: of the target ``(..., rows, rows)`` instead, where rows are correlated.
        names: of the rows, for messages and reports; by default numbers.
        units: of the rows' targets, one each; one for all is also taken.

    Raises:
        ValueError: if shapes or units do not fit, a target is not finite, a variance is negative, a covariance is none,
            or both are given.

    Example:
        >>> mass = LinearConstraint.integral(torch.linspace(0, 1, 5), target=torch.tensor(2.0))
        >>> mass.residual(torch.ones(5)).tolist()
        [-1.0]
    """

    rows: Rows
    target: Tensor
    variance: Tensor | None = None
    covariance: Tensor | None = None
    names: tuple[str, ...] = field(default=())
    units: str | tuple[str, ...] = "1"

    def __post_init__(self) -> None:
        count = self.rows.count
        if not self.names:
            object.__setattr__(self, "names", tuple(f"row {number}" for number in range(count)))
        if len(self.names) != count:
            raise ValueError(f"Expected a name for each of {count} rows but got {list(self.names)}.")
        object.__setattr__(self, "units", self._units_of_rows(self.units))
        for what, value, shape in (
            ("target", self.target, (count,)),
            ("variance", self.variance, (count,)),
            ("covariance", self.covariance, (count, count)),
        ):
            if value is not None and tuple(value.shape[-len(shape) :]) != shape:
                raise ValueError(
                    f"Expected a {what} {('...', *shape)} for {count} rows but got {tuple(value.shape)}; put the axes "
                    "of a batch in front."
                )
        if self.variance is not None and self.covariance is not None:
            raise ValueError("Expected a variance or a covariance of the target but got both; leave one out.")
        self._require_finite(self.target, "target")
        if self.variance is not None:
            self._require_finite(self.variance, "variance of the target")
            if bool((self.variance < 0).any()):
                raise ValueError(
                    f"Expected variances of the target of at least zero but {self._first(self.variance < 0)} has less; "
                    "square a deviation, or leave the variance out where the target is exact."
                )
        if self.covariance is not None:
            require_semidefinite(self.covariance, "covariance of the target", self.names)
        _ = self.batch

    @cached_property
    def batch(self) -> tuple[int, ...]:
        """Sizes of the axes in front of the rows, of all that is here.

        Raises:
            ValueError: if they do not broadcast.
        """
        shapes = {"rows": self.rows.batch, "target": tuple(self.target.shape[:-1])}
        if self.variance is not None:
            shapes["variance"] = tuple(self.variance.shape[:-1])
        if self.covariance is not None:
            shapes["covariance"] = tuple(self.covariance.shape[:-2])
        return broadcast_batches(shapes)

    @classmethod
    def integral(
        cls,
        points: Tensor,
        target: Tensor | float,
        rule: Rule = "trapezoid",
        variance: Tensor | float | None = None,
        name: str = "integral",
        units: str = "1",
    ) -> LinearConstraint:
        """The integral over one axis.

        Args:
            points: ``(n,)``, increasing.
            target: ``(...)`` one for each function of the batch, or a number.
            rule: see `quadrature_weights`.
            variance: of the target ``(...)``; that of the quadrature, the square of its error, is an honest one.
            name: of the row.
            units: of the target.

        Raises:
            ValueError: as `quadrature_weights` and the class itself.

        Example:
            >>> LinearConstraint.integral(torch.linspace(0, 1, 3), 1.0).residual(torch.zeros(3)).tolist()
            [-1.0]
        """
        rows = DisjointRows(quadrature_weights(points, rule), event_ndim=1)
        spread = None if variance is None else _tensor(variance, points).unsqueeze(-1)
        return cls(rows, _tensor(target, points).unsqueeze(-1), spread, names=(name,), units=units)

    @classmethod
    def over(
        cls,
        grid: Grid,
        coordinates: Sequence[Tensor],
        target: Tensor | float,
        mask: Tensor | None = None,
        volumes: Sequence[int] | None = None,
        points: Literal["nodes", "cells"] = "nodes",
        names: Sequence[str] | None = None,
        units: str | tuple[str, ...] = "1",
    ) -> LinearConstraint:
        """The integral over a domain of any dimension, or those over control volumes, one row each.

        Args:
            grid: its periods and bounds.
            coordinates: of each axis ``(n,)``, or ``(..., n)`` for a batch of grids.
            target: ``(..., volumes)`` of every volume in the order of `control_volumes`, or a number for all; exact.
            mask: ``(*space)``, true in the fluid. Values in the solid do not count, NaN or not. A volume wholly in
                solid has no row: its target, name and units are left out.
            volumes: how many along each axis; without, a single one.
            points: what coordinates are of, nodes or centers of cells; see `Grid.quadrature_weights`.
            names: of all volumes; by default after their places along the axes.
            units: of all targets, or one for all.

        Raises:
            ValueError: if axes, mask, target, names or units do not fit, there are more volumes than points, or the
                mask leaves no fluid.

        Example:
            >>> from pdesurrogate.fields.grid import Axis
            >>> grid = Grid((Axis("x", period=4.0), Axis("y", period=2.0)))
            >>> halves = LinearConstraint.over(grid, (torch.arange(4.0), torch.arange(2.0)), 0.0, volumes=(2, 1))
            >>> halves.names, halves.residual(torch.ones(4, 2)).tolist()
            (('volume (0, 0)', 'volume (1, 0)'), [4.0, 4.0])
        """
        if points not in ("nodes", "cells"):
            raise ValueError(f"Expected points 'nodes' or 'cells' but got {points!r}.")
        lines = grid.quadrature_weights(tuple(axis.to(torch.float64) for axis in coordinates), cells=points == "cells")
        weights = product_weights(lines)
        space = tuple(line.shape[-1] for line in lines)
        cuts = (1,) * len(space) if volumes is None else tuple(volumes)
        labels = control_volumes(space, cuts).to(weights.device)
        if names is None:
            places = product(*(range(cut) for cut in cuts))
            names = ["integral"] if volumes is None else [f"volume {place}" for place in places]
        targets = torch.atleast_1d(_tensor(target, weights))
        count = math.prod(cuts)
        targets = targets.expand(count) if not isinstance(target, Tensor) else targets
        listed = (units,) * count if isinstance(units, str) else tuple(units)
        if not targets.shape[-1] == len(names) == len(listed) == count:
            raise ValueError(
                f"Expected targets, names and units of {count} volumes, solid ones too, but got "
                f"{targets.shape[-1]}, {len(names)} and {len(listed)}."
            )
        if mask is not None:
            labels, kept = _in_fluid(labels, mask, count)
            targets, names = targets[..., kept], [names[number] for number in kept]
            listed = tuple(listed[number] for number in kept)
        # A single row of everything needs no labels, and is one matrix product.
        rows = DisjointRows(weights, len(space), None if mask is None and count == 1 else labels)
        return cls(rows, targets, names=tuple(names), units=listed)

    def residual(self, values: Tensor) -> Tensor:
        """``G u - b (..., rows)`` of ``values (..., *event)``, in float64: the measure of how far a law is broken.

        Raises:
            ValueError: if the values have other axes than the rows.
        """
        event = values.shape[values.ndim - self.rows.event_ndim :]
        if event != self.rows.event:
            raise ValueError(
                f"Expected values (..., {', '.join(map(str, self.rows.event))}), as the rows have unknowns, but got "
                f"{tuple(values.shape)}; build the constraint for this grid."
            )
        if self.batch:
            broadcast_batches({"constraint": self.batch, "values": tuple(values.shape[: values.ndim - len(event)])})
        return self.rows.apply(values) - self.target.to(torch.float64)

    def penalty(self, values: Tensor) -> Tensor:
        """Mean over batch and rows of the squared residual: what training adds to its loss ("SoftC")."""
        return self.residual(values).square().mean()

    def with_target(
        self, target: Tensor, variance: Tensor | None = None, units: str | tuple[str, ...] | None = None
    ) -> LinearConstraint:
        """The same rows with another target, exact or with a variance.

        Args:
            target: ``(..., rows)``.
            variance: of it ``(..., rows)``; without, the target is exact.
            units: of the target, one each or one for all, to be held against those of the rows.

        Raises:
            ValueError: if units are others than those of a row, which is named; and as the class itself.

        Example:
            >>> mass = LinearConstraint.integral(torch.linspace(0, 1, 3), 1.0, name="mass", units="kg")
            >>> mass.with_target(torch.tensor([2.0]), units="kg").target.tolist()
            [2.0]
        """
        if units is not None:
            for name, own, given in zip(self.names, self.units, self._units_of_rows(units), strict=True):
                if given != own:
                    raise ValueError(
                        f"Expected a target of {name!r} in {own!r}, as the constraint has it, but got it in {given!r}; "
                        "convert the target."
                    )
        return replace(self, target=target, variance=variance, covariance=None)

    def to(self, device: torch.device | str) -> LinearConstraint:
        """On a device."""
        return replace(
            self,
            rows=self.rows.to(device),
            target=self.target.to(device),
            variance=None if self.variance is None else self.variance.to(device),
            covariance=None if self.covariance is None else self.covariance.to(device),
        )

    def target_covariance(self) -> Tensor:
        """Covariance of the target ``(..., rows, rows)`` in float64, zero where it is exact."""
        if self.covariance is not None:
            return self.covariance.to(torch.float64)
        if self.variance is None:
            return self.target.new_zeros(self.rows.count, self.rows.count, dtype=torch.float64)
        return torch.diag_embed(self.variance.to(torch.float64))

    def _units_of_rows(self, units: str | tuple[str, ...]) -> tuple[str, ...]:
        listed = (units,) * self.rows.count if isinstance(units, str) else tuple(units)
        if len(listed) != self.rows.count:
            raise ValueError(f"Expected units for each of {list(self.names)}, or one for all, but got {list(listed)}.")
        return listed

    def _require_finite(self, values: Tensor, what: str) -> None:
        unknown = ~torch.isfinite(values)
        if bool(unknown.any()):
            raise ValueError(f"Expected a finite {what} but that of {self._first(unknown)} is NaN or infinite.")

    def _first(self, flags: Tensor) -> str:
        """The name of the first row that is flagged in ``(..., rows)``."""
        return repr(self.names[int(flags.reshape(-1, flags.shape[-1]).any(0).nonzero()[0])])


def joined(constraints: Sequence[LinearConstraint]) -> LinearConstraint:
    """All rows of several constraints of the same unknowns, whose targets are independent, as one.

    Raises:
        ValueError: if there are none, they have different unknowns, or batches that do not broadcast.

    Example:
        >>> points = torch.linspace(0, 1, 5)
        >>> mass = LinearConstraint.integral(points, torch.tensor(1.0), name="mass")
        >>> left = LinearConstraint(DenseRows(torch.eye(5)[:1], event_ndim=1), torch.zeros(1), names=("wall",))
        >>> joined([mass, left]).names
        ('mass', 'wall')
    """
    if not constraints or len({constraint.rows.event for constraint in constraints}) > 1:
        raise ValueError(
            "Expected constraints of the same unknowns but got "
            f"{[constraint.rows.event for constraint in constraints]}."
        )
    if len(constraints) == 1:
        return constraints[0]
    axis = -constraints[0].rows.event_ndim - 1
    weights = broadcast_cat([constraint.rows.dense() for constraint in constraints], axis)
    exact = all(constraint.variance is None and constraint.covariance is None for constraint in constraints)
    return LinearConstraint(
        DenseRows(weights, constraints[0].rows.event_ndim),
        broadcast_cat([constraint.target for constraint in constraints], -1),
        covariance=None if exact else _block_diagonal([constraint.target_covariance() for constraint in constraints]),
        names=tuple(name for constraint in constraints for name in constraint.names),
        units=tuple(unit for constraint in constraints for unit in constraint.units),
    )


def broadcast_batches(shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """What the axes of a batch broadcast to.

    Raises:
        ValueError: if they do not; it says which is whose.
    """
    try:
        return tuple(torch.broadcast_shapes(*shapes.values()))
    except RuntimeError:
        listed = ", ".join(f"{tuple(shape)} of the {name}" for name, shape in shapes.items())
        raise ValueError(
            f"Expected axes of a batch that broadcast but got {listed}; each of the batch has its own, or all have one."
        ) from None


def broadcast_cat(parts: Sequence[Tensor], axis: int) -> Tensor:
    """One after the other along an axis counted from the end; what is before the axis is broadcast.

    Raises:
        ValueError: if that does not broadcast.

    Example:
        >>> broadcast_cat([torch.zeros(1), torch.ones(2, 1)], -1).tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """
    batch = broadcast_batches({f"number {place}": part.shape[: part.ndim + axis] for place, part in enumerate(parts)})
    return torch.cat([part.expand(*batch, *part.shape[part.ndim + axis :]) for part in parts], axis)


def _in_fluid(labels: Tensor, mask: Tensor, count: int) -> tuple[Tensor, list[int]]:
    """Labels ``(*space)`` of the volumes with any fluid, -1 in solid, and which of all these volumes are."""
    if mask.shape != labels.shape or mask.dtype != torch.bool:
        raise ValueError(f"Expected a mask {tuple(labels.shape)} of bool but got {mask.dtype} {tuple(mask.shape)}.")
    wet = torch.bincount(labels[mask], minlength=count) > 0
    kept = wet.nonzero().flatten().tolist()
    if not kept:
        raise ValueError("Expected fluid in at least one volume but the mask is false everywhere; true is fluid.")
    return torch.where(mask, (wet.cumsum(0) - 1)[labels], -1), kept


def _tensor(value: Tensor | float, like: Tensor) -> Tensor:
    """A number in float64, where the other tensor is."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device=like.device)


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    sizes = [block.shape[-1] for block in blocks]
    batch = torch.broadcast_shapes(*(block.shape[:-2] for block in blocks))
    rows = [
        torch.cat(
            [block if one == other else block.new_zeros(*batch, size, width) for other, width in enumerate(sizes)], -1
        )
        for one, (block, size) in enumerate(
            zip((block.expand(*batch, *block.shape[-2:]) for block in blocks), sizes, strict=True)
        )
    ]
    return torch.cat(rows, -2)

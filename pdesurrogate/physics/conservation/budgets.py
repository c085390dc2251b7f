"""Right-hand sides of conservation laws along a rollout, from what flows through the boundary.

The content of a domain grows by the net inflow and by what is forced, ``b_{k+1} = b_k + interval * net inflow``, by
the trapezoid rule in time. Where the inflow is uncertain, so is the content, and more so the longer the rollout: errors
of one interval stay in all later contents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows, Rows, product_weights


@dataclass(frozen=True)
class Budget:
    """The content of a domain at one time of a rollout, and how sure it is.

    Attributes:
        content: ``(..., rows)`` of every conserved quantity, physical units.
        variance: ``(..., rows)`` of it; none where it is exact.

    Raises:
        ValueError: if a content is not finite, or a variance is negative or of another shape.

    Example:
        >>> start = Budget(torch.tensor([1.0]))
        >>> later = start.after(torch.tensor([0.0]), torch.tensor([2.0]), interval=0.5, gained_variance=0.1)
        >>> later.content.tolist(), later.variance.tolist()
        ([1.5], [0.1])
    """

    content: Tensor
    variance: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", self.content.to(torch.float64))
        _require_finite(self.content, "content")
        if self.variance is not None:
            object.__setattr__(self, "variance", self.variance.to(torch.float64))
            _require_variance(self.variance)
            if self.variance.shape[-1:] != self.content.shape[-1:]:
                raise ValueError(
                    f"Expected variances (..., {self.content.shape[-1]}) of the contents but got "
                    f"{tuple(self.variance.shape)}."
                )

    def after(
        self, before: Tensor, later: Tensor, interval: float, gained_variance: Tensor | float | None = None
    ) -> Budget:
        """One interval later.

        Args:
            before: net inflow ``(..., rows)``, content per time, at the start of the interval; sources count too.
            later: net inflow at its end.
            interval: time.
            gained_variance: of the error of what is gained, ``(..., rows)`` or a number, independent of that of other
                intervals; without, the inflow is exact.

        Raises:
            ValueError: if the interval is not positive, something is not finite, or a variance is negative.
        """
        _require_positive(interval)
        for inflow in (before, later):
            _require_finite(inflow, "net inflow")
        content = self.content + interval * (before.to(torch.float64) + later.to(torch.float64)) / 2
        variance = self.variance
        if gained_variance is not None:
            gained = torch.as_tensor(gained_variance, dtype=torch.float64, device=content.device)
            _require_variance(gained)
            variance = gained + (content.new_zeros(content.shape[-1]) if variance is None else variance)
        return Budget(content, variance)

    def on(self, constraint: LinearConstraint) -> LinearConstraint:
        """The constraint with this content as its target.

        Raises:
            ValueError: if it has another number of rows.
        """
        return constraint.with_target(self.content, self.variance)


def contents(start: Tensor, inflow: Tensor, interval: Tensor | float) -> Tensor:
    """Contents ``(..., times, rows)`` in float64, from the first of which net inflow adds up by the trapezoid rule.

    Args:
        start: ``(..., rows)`` at the first time.
        inflow: net, ``(..., times, rows)``, content per time; sources count as inflow.
        interval: between times, a number or ``(times - 1,)``.

    Raises:
        ValueError: if shapes do not fit, an interval is not positive, or something is not finite.

    Example:
        >>> contents(torch.tensor([1.0]), torch.tensor([[0.0], [2.0], [4.0]]), interval=0.5).flatten().tolist()
        [1.0, 1.5, 3.0]
    """
    if inflow.ndim < 2 or inflow.shape[-1] != start.shape[-1]:
        raise ValueError(
            f"Expected net inflow (..., times, {start.shape[-1]}), as there are contents at the start, but got "
            f"{tuple(inflow.shape)}."
        )
    _require_finite(start, "content")
    _require_finite(inflow, "net inflow")
    lengths = torch.as_tensor(interval, dtype=torch.float64, device=inflow.device)
    _require_positive(lengths)
    if lengths.ndim and tuple(lengths.shape) != (inflow.shape[-2] - 1,):
        raise ValueError(f"Expected {inflow.shape[-2] - 1} intervals but got {tuple(lengths.shape)}.")
    inflow = inflow.to(torch.float64)
    gained = lengths.reshape(-1, 1) * (inflow[..., :-1, :] + inflow[..., 1:, :]) / 2
    return _walk(start, gained)


def contents_covariance(gained_variance: Tensor, start_variance: Tensor | None = None) -> Tensor:
    """Covariance ``(..., rows, times, times)`` of contents whose inflow is uncertain: a random walk.

    With equal variances ``q`` and an exact start it is ``min(j, k) q`` between the times ``j`` and ``k``.

    Args:
        gained_variance: ``(..., times - 1, rows)`` of the errors of what each interval gains, which are independent.
            Flux errors of variance ``s^2`` at every frame make it about ``interval^2 s^2``.
        start_variance: ``(..., rows)`` of the content at the first time; without, it is exact.

    Raises:
        ValueError: if a variance is negative or not finite, or shapes do not fit.

    Example:
        >>> contents_covariance(torch.ones(2, 1))[0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 2.0]]
    """
    if gained_variance.ndim < 2:
        raise ValueError(f"Expected variances (..., times - 1, rows) but got {tuple(gained_variance.shape)}.")
    _require_variance(gained_variance)
    start = gained_variance.new_zeros(gained_variance.shape[-1]) if start_variance is None else start_variance
    _require_variance(start)
    # The variance of a content is what was gained until then; what two have in common is that of the earlier.
    variance = _walk(start, gained_variance).mT
    times = torch.arange(variance.shape[-1], device=variance.device)
    return variance[..., torch.minimum(times.unsqueeze(-1), times)]


def at_all_times(constraint: LinearConstraint, content: Tensor, covariance: Tensor | None = None) -> LinearConstraint:
    """One constraint on frames ``(times, *event)`` together, in which a later content corrects earlier frames too.

    Args:
        constraint: of one frame; its own target does not count.
        content: targets ``(..., times, rows)``, as from `contents`.
        covariance: of them ``(..., rows, times, times)``, as from `contents_covariance`; without, they are exact.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> mass = LinearConstraint.integral(torch.linspace(0, 1, 3), torch.tensor(0.0), name="mass")
        >>> at_all_times(mass, torch.ones(2, 1)).names
        ('mass at time 0', 'mass at time 1')
    """
    count = constraint.rows.count
    if content.ndim < 2 or content.shape[-1] != count:
        raise ValueError(f"Expected contents (..., times, {count}), as there are rows, but got {tuple(content.shape)}.")
    times = content.shape[-2]
    if covariance is not None:
        if tuple(covariance.shape[-3:]) != (count, times, times):
            raise ValueError(
                f"Expected a covariance (..., {count}, {times}, {times}), rows and times, but got "
                f"{tuple(covariance.shape)}."
            )
        covariance = _interleaved(covariance)
    return LinearConstraint(
        _repeated(constraint.rows, times),
        content.flatten(-2),
        covariance=covariance,
        names=tuple(f"{name} at time {number}" for number in range(times) for name in constraint.names),
        units=tuple(constraint.units) * times,
    )


def field_integrals(
    weights: Tensor, content: Tensor, names: Sequence[str], units: str | tuple[str, ...] = "1"
) -> LinearConstraint:
    """The integrals of several fields ``(fields, *space)`` over the domain, one row each.

    Args:
        weights: ``(*space)``, as from `product_weights`; volumes of cells where the fields are averages over cells.
        content: ``(..., fields)`` what they should be.
        names: of the fields' integrals.
        units: of each, or one for all.

    Raises:
        ValueError: if there is not a name and a content for every field.

    Example:
        >>> conserved = field_integrals(torch.full((4,), 0.25), torch.zeros(2), names=("mass", "momentum"))
        >>> conserved.residual(torch.tensor([[1.0, 1, 1, 1], [0.0, 2, 0, 2]])).tolist()
        [1.0, 1.0]
    """
    event = (len(names), *weights.shape)
    labels = torch.arange(len(names), device=weights.device).reshape(-1, *(1,) * weights.ndim).expand(event)
    rows = DisjointRows(weights.expand(event), len(event), labels)
    return LinearConstraint(rows, content, names=tuple(names), units=units)


def boundary_inflow(lines: Sequence[Tensor], open_axes: Sequence[int]) -> DisjointRows:
    """One row that takes a flux ``(d, *space)`` to its net inflow, by its normal components at the ends of axes.

    Args:
        lines: quadrature weights along each axis of points that lie on the ends, as `product_weights` takes them.
        open_axes: axes through whose ends something may flow; not those that are periodic.

    Raises:
        ValueError: if an axis is not there or has fewer than two points.

    Example:
        >>> rows = boundary_inflow([torch.ones(3), torch.tensor([0.5, 0.5])], open_axes=[0])
        >>> flux = torch.zeros(2, 3, 2)
        >>> flux[0, 0] = 3.0
        >>> flux[0, 2] = 1.0
        >>> rows.apply(flux).tolist()
        [2.0]
    """
    shape = tuple(len(line) for line in lines)
    if not open_axes or not all(0 <= axis < len(shape) and shape[axis] > 1 for axis in open_axes):
        raise ValueError(
            f"Expected open axes of at least two points among {len(shape)} axes but got {list(open_axes)} of {shape}."
        )
    weights = torch.zeros(len(shape), *shape, dtype=torch.float64, device=lines[0].device)
    for axis in open_axes:
        across = [*lines[:axis], *lines[axis + 1 :]]
        face = product_weights(across) if across else weights.new_ones(())
        weights[axis].select(axis, 0).copy_(face)
        weights[axis].select(axis, -1).copy_(-face)
    return DisjointRows(weights, len(shape) + 1)


def flow_balance(lines: Sequence[Tensor], open_axes: Sequence[int]) -> LinearConstraint:
    """What flows into an enclosed incompressible flow flows out: one row on the velocity's values at the boundary.

    Velocities that are known, at walls and at an inlet, are those without variance in what `condition` is given: the
    outlet alone makes up for what is missing.

    Args:
        lines: see `boundary_inflow`.
        open_axes: see `boundary_inflow`.

    Raises:
        ValueError: see `boundary_inflow`.

    Example:
        >>> balance = flow_balance([torch.ones(3), torch.tensor([0.5, 0.5])], open_axes=[0])
        >>> balance.residual(torch.ones(2, 3, 2)).tolist()
        [0.0]
    """
    return LinearConstraint(boundary_inflow(lines, open_axes), torch.zeros(1), names=("in- and outflow",))


def end_inflow(flux: Tensor) -> Tensor:
    """Net inflow ``(..., fields)`` of a flux ``(..., fields, x)`` that is known at both ends of a line.

    Example:
        >>> end_inflow(torch.tensor([[3.0, 7.0, 1.0]])).tolist()
        [2.0]
    """
    return flux[..., 0] - flux[..., -1]


def compressible_flux(state: Tensor, heat_capacity_ratio: float = 1.4) -> Tensor:
    """Fluxes of mass, momentum and energy of an ideal gas along a line, ``(..., 3, x)`` as the state.

    Args:
        state: density, momentum density and total energy density, ``(..., 3, x)``: what is conserved. Of primitive
            variables the integrals are not linear.
        heat_capacity_ratio: above one.

    Raises:
        ValueError: if there are not three fields, a density or pressure is not positive, or the ratio is not above one.

    Example:
        >>> compressible_flux(torch.tensor([[1.0], [0.0], [2.5]]))[:, 0].round(decimals=6).tolist()
        [0.0, 1.0, 0.0]
    """
    if not heat_capacity_ratio > 1:
        raise ValueError(f"Expected a ratio of heat capacities above one but got {heat_capacity_ratio}.")
    if state.ndim < 2 or state.shape[-2] != 3:
        raise ValueError(
            f"Expected density, momentum density and energy density (..., 3, x) but got {tuple(state.shape)}; "
            "primitive variables are not conserved."
        )
    density, momentum, energy = state.unbind(-2)
    velocity = momentum / density
    pressure = (heat_capacity_ratio - 1) * (energy - momentum * velocity / 2)
    if not bool(((density > 0) & (pressure > 0)).all()):
        raise ValueError("Expected positive densities and pressures; is the energy the total one, per volume?")
    return torch.stack([momentum, momentum * velocity + pressure, (energy + pressure) * velocity], -2)


def _walk(start: Tensor, gained: Tensor) -> Tensor:
    """``(..., times, rows)``: a start ``(..., rows)`` and what is gained ``(..., times - 1, rows)`` added up."""
    first, gained = start.to(torch.float64).unsqueeze(-2), gained.to(torch.float64)
    if first.shape[-1] != gained.shape[-1]:
        raise ValueError(f"Expected {gained.shape[-1]} rows at the start, as afterwards, but got {first.shape[-1]}.")
    batch = torch.broadcast_shapes(first.shape[:-2], gained.shape[:-2])
    first, gained = (part.expand(*batch, *part.shape[-2:]) for part in (first, gained))
    return torch.cat([first, first + gained.cumsum(-2)], -2)


def _repeated(rows: Rows, times: int) -> Rows:
    """The same rows for every one of several frames, unknowns ``(times, *event)``, all rows of a time together."""
    behind = rows.event_ndim
    if isinstance(rows, DenseRows):
        each = torch.eye(times, dtype=torch.float64, device=rows.weights.device)
        # (time, 1, time, *1) times (..., 1, rows, 1, *event).
        own = each.reshape(times, 1, times, *(1,) * behind)
        weights = own * rows.weights.unsqueeze(-behind - 1).unsqueeze(-behind - 3)
        return DenseRows(weights.flatten(-behind - 3, -behind - 2), behind + 1)
    labels = rows.labels
    if labels is None:
        labels = rows.lift(torch.arange(rows.count, device=rows.weights.device)).expand(rows.event)
    number = torch.arange(times, device=labels.device).reshape(-1, *(1,) * behind)
    labels = torch.where(labels >= 0, labels + number * rows.count, -1)
    weights = rows.weights.unsqueeze(-behind - 1)
    weights = weights.expand(*weights.shape[: weights.ndim - behind - 1], times, *rows.event)
    return DisjointRows(weights, behind + 1, labels)


def _interleaved(covariance: Tensor) -> Tensor:
    """``(..., times * rows, times * rows)``, rows independent of each other, of ``(..., rows, times, times)``."""
    # diag_embed gives (..., time, time, row, row).
    apart = torch.diag_embed(covariance.movedim(-3, -1))
    return apart.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def _require_positive(interval: Tensor | float) -> None:
    lowest = float(torch.as_tensor(interval).min())
    if not 0 < lowest < math.inf:
        raise ValueError(f"Expected positive intervals of time but got {lowest}.")


def _require_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"Expected a finite {what} but it holds NaN or infinity; stop the rollout.")


def _require_variance(values: Tensor) -> None:
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(f"Expected variances that are finite and at least zero but got {float(values.min()):.3g}.")

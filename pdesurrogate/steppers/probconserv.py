"""Steppers that keep to a conservation law: each frame is conditioned on what is known of it.

Hansen et al., *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023, arXiv:2302.11002: the update of
`physics.conservation.condition`, in rollouts. Points move by as much as they are uncertain: all alike unless told
otherwise. ::

    ProbConserv(surrogate, KeptMeans(of=["vorticity"]))           # inside the loop: the next step starts from it
    ProbConservOutput(surrogate, KeptMeans(of=["vorticity"]))     # of what is shown alone: errors feed back as before
    ProbConservPredicted(probabilistic_surrogate, law)            # by the covariance that the model states
    ProbConservEnsemble(Ensemble([...]), law)                     # by the spread of the members
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pdesurrogate.fields.batch import map_context
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.distributions import Moments
from pdesurrogate.physics.conservation.conditioning import Conditioned, condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Covariance, Diagonal, LowRank
from pdesurrogate.physics.conservation.laws import ConservationLaw
from pdesurrogate.physics.conservation.rows import DenseRows, DisjointRows, Rows
from pdesurrogate.steppers.base import ProbabilisticStepper, Stepper, require_outermost
from pdesurrogate.steppers.ensemble import EnsembleStepper, ProbabilisticEnsemble
from pdesurrogate.steppers.uncertain import CorrelatedStepper


class ProbConserv(nn.Module):
    """Conditions each frame of a stepper on a law, before the next step; a `Stepper`.

    What the law says is counted from the latest frame of the history: with an exact law nothing drifts but by the
    rounding of the stored precision; with an uncertain one, uncertainty grows along the rollout.

    Args:
        stepper: to be wrapped.
        law: of its frames.
        variances: of the prediction, squared physical units, for each channel (all of them) a profile along the one
            axis that is not periodic, or a single number. Without, all points are as uncertain, which is all that an
            exact law needs to know.
        noise: see `condition`.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if there is no metadata, the law is of channels that are not there, ``variances`` do not fit or are
            negative, or the stepper is an ensemble; in use, for an uncertain law without ``variances``.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> from pdesurrogate.physics.conservation.laws import BalancedMeans
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> from pdesurrogate.steppers.rollout import rollout
        >>> metadata = Metadata("example", Grid((Axis("x", period=1.0),)), (Channel("density"),), frame_interval=0.5)
        >>> stepper = ProbConserv(Persistence(), BalancedMeans(["density"], sources=[2.0]), metadata=metadata)
        >>> run = rollout(stepper, torch.zeros(1, 1, 1, 4), Context((torch.arange(4)[None] / 4,)), frames=3)
        >>> [block.mean().item() for block in run]
        [1.0, 2.0, 3.0]
    """

    def __init__(
        self,
        stepper: Stepper,
        law: ConservationLaw,
        variances: Sequence[Sequence[float]] | None = None,
        noise: float = 0.0,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__()
        if isinstance(stepper, EnsembleStepper):
            raise ValueError(
                f"Expected a single stepper but a {type(stepper).__name__} is an ensemble; use ProbConservEnsemble."
            )
        self.stepper = stepper
        self.law = law
        self.variances = None if variances is None else tuple(tuple(profile) for profile in variances)
        self.noise = noise
        self._frames = _LawfulFrames(stepper, law, noise, metadata)
        self.metadata = self._frames.metadata
        if self.variances is not None and len(self.variances) != len(self.metadata.channels):
            raise ValueError(
                f"Expected variances of each of {len(self.metadata.channels)} channels but got {len(self.variances)}."
            )
        if not all(0 <= value < math.inf for profile in self.variances or () for value in profile):
            raise ValueError("Expected finite variances of at least zero but some are not; square deviations.")

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The wrapped stepper's next block, conditioned.

        Raises:
            ValueError: if ``variances`` have not the points of the axis that is not periodic, or whatever `condition`
                refuses; frames that are not finite are left as they are, for the rollout to see.
        """
        block = self.stepper.step(history, context)
        return self._updated(block, history[:, -1], 1, context)

    def _updated(self, block: Tensor, known: Tensor, since: int, context: Context) -> Tensor:
        """A block whose first frame is ``since`` frames after a ``known`` one ``(batch, channel, *space)``."""
        frames = self._frames
        covariance = Diagonal(_fixed_variances(self.variances, frames.chosen, self.metadata, block, context))

        def update(chosen: Tensor) -> Tensor:
            constraint = frames.constraint(chosen, known, since, context)
            if constraint.variance is not None and self.variances is None:
                raise ValueError(
                    f"Expected variances of the prediction, which the uncertain {type(self.law).__name__} is weighed "
                    "against, but there are none; give them, or use ProbConservPredicted."
                )
            return condition(chosen, covariance, constraint, self.noise).mean

        return frames.replaced(block, update)

    def extra_repr(self) -> str:
        """Law and noise, shown by ``print``."""
        return f"law={type(self.law).__name__}, noise={self.noise}"


class ProbConservOutput(ProbConserv):
    """Conditions what a rollout shows, and leaves what it goes on from; a `Stepper` that is to be the outermost one.

    What the law says is counted from the start of the rollout. Its ``step`` is the wrapped stepper's: it is `rollout`
    that corrects the frames which it yields. Arguments are those of `ProbConserv`.
    """

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The wrapped stepper's next block as it is."""
        return self.stepper.step(history, context)

    def correction(self, history: Tensor, context: Context) -> Callable[[Tensor], Tensor]:
        """What corrects block after block of the rollout that starts from ``history``; it counts their frames."""
        known, done = history[:, -1].clone(), 0

        def corrected(block: Tensor) -> Tensor:
            nonlocal done
            since, done = done + 1, done + block.shape[1]
            return self._updated(block, known, since, context)

        return corrected


class ProbConservPredicted(nn.Module):
    """Conditions each frame by the covariance that its stepper states, inside the loop; a `ProbabilisticStepper`.

    That is the variance of each point, and what points of a frame share where it is a `CorrelatedStepper`.

    Args:
        stepper: states mean and variance.
        law: of its frames.
        noise: see `condition`.
        floor: added to variances, as a share of their mean over each frame and channel.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if the stepper states no variance, there is no metadata, or the law is of channels that are not
            there.
    """

    def __init__(
        self,
        stepper: ProbabilisticStepper,
        law: ConservationLaw,
        noise: float = 0.0,
        floor: float = 1e-6,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(stepper, ProbabilisticStepper):
            raise ValueError(
                f"Expected a stepper that states a variance but a {type(stepper).__name__} states none; use "
                "ProbConserv."
            )
        self.stepper = stepper
        self.law = law
        self.noise = noise
        self.floor = floor
        self._frames = _LawfulFrames(stepper, law, noise, metadata)
        self.metadata = self._frames.metadata

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The mean of `predict`."""
        return self.predict(history, context)[0]

    def predict(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Mean and variance of the next block, conditioned; but for the floor no variance is larger than stated."""
        if isinstance(self.stepper, CorrelatedStepper):
            moments = self.stepper.moments(history, context)
        else:
            moments = Moments(*self.stepper.predict(history, context))
        frames = self._frames
        covariance = self._covariance(moments)
        found: list[Conditioned] = []

        def update(values: Tensor) -> Tensor:
            constraint = frames.constraint(values, history[:, -1], 1, context)
            found.append(condition(values, covariance, constraint, self.noise))
            return found[0].mean

        mean = frames.replaced(moments.mean, update)
        stated = moments.marginal_variance
        return mean, frames.replaced(stated, lambda _: found[0].variance.to(stated.dtype))

    def _covariance(self, moments: Moments) -> Covariance:
        """Of the law's channels of each frame."""
        own, whole = (_known(self._frames.select(part)) for part in (moments.variance, moments.marginal_variance))
        lifted = own + self.floor * whole.mean(tuple(range(3, own.ndim)), keepdim=True)
        # A frame of which nothing is known is not shown; it must not stop the others.
        lifted = lifted + (whole.flatten(3).amax(3) == 0).reshape(*whole.shape[:3], *(1,) * (own.ndim - 3))
        if moments.modes is None:
            return Diagonal(lifted)
        # Modes are those of a whole block; a frame has its part of each.
        modes = torch.stack([self._frames.select(mode) for mode in moments.modes.unbind(1)], 2)
        return LowRank(lifted, _known(modes))


class ProbConservEnsemble(nn.Module):
    """Moves each member by the spread of all, inside the loop; an `EnsembleStepper`.

    Each member keeps to the law from its own latest frame, and moves where members differ. A member that was stopped
    has no say in that.

    Args:
        stepper: an ensemble.
        law: of its frames.
        correlations: ``"none"``: points move by their variance alone; ``"members"``: by the covariance of the members,
            correlations between points included. These are noise where members are few: three FNOs err by 15 % more
            after a step so conditioned (`benchmarks/calibration.md`).
        noise: see `condition`; it is drawn for no member, so that all keep equally close to the law.
        floor: variance at every point, as a share of the mean variance of each frame and channel: where members agree,
            nothing could move.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if the stepper is no ensemble, there is no metadata, the law is of channels that are not there, the
            floor is not positive, or for other correlations.
    """

    def __init__(
        self,
        stepper: EnsembleStepper,
        law: ConservationLaw,
        correlations: Literal["none", "members"] = "none",
        noise: float = 0.0,
        floor: float = 0.01,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(stepper, EnsembleStepper):
            raise ValueError(f"Expected an ensemble but a {type(stepper).__name__} is none; use ProbConserv.")
        if not floor > 0:
            raise ValueError(f"Expected a positive floor but got {floor}: where all members agree nothing could move.")
        if correlations not in ("none", "members"):
            raise ValueError(f"Expected correlations 'none' or 'members' but got {correlations!r}.")
        self.stepper = stepper
        self.law = law
        self.correlations = correlations
        self.noise = noise
        self.floor = floor
        self._frames = _LawfulFrames(stepper, law, noise, metadata)
        self.metadata = self._frames.metadata

    @property
    def members(self) -> int:
        """Number of members."""
        return self.stepper.members

    @property
    def history_frames(self) -> int:
        """As the wrapped stepper has it."""
        return self.stepper.history_frames

    def spread(self, history: Tensor, context: Context) -> tuple[Tensor, Context]:
        """As the wrapped stepper does."""
        return self.stepper.spread(history, context)

    def fold(self, block: Tensor) -> Tensor:
        """As the wrapped stepper does."""
        return self.stepper.fold(block)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The members' next blocks, each conditioned by the spread of all."""
        return self._updated(self.stepper.step(history, context), history, context)

    def predict_members(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Members' next blocks, conditioned, and the variances that they state themselves, as they are."""
        if not isinstance(self.stepper, ProbabilisticEnsemble):
            block = self.step(history, context)
            return block, torch.zeros_like(block)
        means, variances = self.stepper.predict_members(history, context)
        return self._updated(means, history, context), variances

    def _updated(self, block: Tensor, history: Tensor, context: Context) -> Tensor:
        frames = self._frames
        # A rollout gives a stopped member zeros for a history.
        space = tuple(range(2, block.ndim))
        alive = torch.isfinite(block).all(space) & (history[:, -1] != 0).flatten(1).any(1, keepdim=True)

        def update(chosen: Tensor) -> Tensor:
            members = self.fold(chosen)
            covariance = self._covariance(members.double(), self.fold(alive))
            constraint = frames.constraint(chosen, history[:, -1], 1, context)
            # Members in front of the batch, each with its own target and all with one covariance.
            of_members = LinearConstraint(
                constraint.rows if not constraint.rows.batch else _for_members(constraint.rows, self.members),
                self.fold(constraint.target.expand(len(chosen), *constraint.target.shape[1:])),
                constraint.variance,
                names=frames.names,
            )
            return condition(members, covariance, of_members, self.noise).mean.flatten(0, 1)

        return frames.replaced(block, update)

    def _covariance(self, members: Tensor, alive: Tensor) -> Covariance:
        """Of members ``(member, batch, time, channel, *space)``; those that live count."""
        counted = alive.reshape(*alive.shape, *(1,) * (members.ndim - alive.ndim)).to(members)
        count = counted.sum(0)
        mean = (counted * members).sum(0) / count.clamp_min(1)
        anomalies = counted * (members - mean) / (count - 1).clamp_min(1).sqrt()
        variance = anomalies.square().sum(0)
        space = tuple(range(3, variance.ndim))
        # Members that are alike, or alone, move everywhere alike.
        floor = self.floor * variance.mean(space, keepdim=True) + torch.finfo(torch.float32).tiny
        if self.correlations == "none":
            return Diagonal(variance + floor)
        return LowRank(floor.expand_as(variance), anomalies.movedim(0, 2))


class _LawfulFrames:
    """A law on the frames of one data set: which channels, which rows, and the update itself."""

    def __init__(self, stepper: Stepper, law: ConservationLaw, noise: float, metadata: Metadata | None) -> None:
        known = getattr(stepper, "metadata", None) if metadata is None else metadata
        if not isinstance(known, Metadata):
            raise ValueError(
                f"Expected the metadata of the data for a conservation law but a {type(stepper).__name__} has none; "
                "give them."
            )
        if noise < 0:
            raise ValueError(f"Expected noise of at least zero but got {noise}.")
        require_outermost(stepper, "a conservation law")
        self.metadata = known
        self.law = law
        self.chosen = law.channels(known)
        self.names = law.names(known)
        self._rows: Rows | None = None
        self._made_for: tuple[Tensor | None, ...] = ()

    def select(self, block: Tensor) -> Tensor:
        """The channels that the law is on."""
        if self.chosen == tuple(range(block.shape[2])):
            return block
        return block[:, :, list(self.chosen)]

    def replaced(self, block: Tensor, update: Callable[[Tensor], Tensor]) -> Tensor:
        """The block with its chosen channels updated; what is not finite stays as it is."""
        chosen = self.select(block)
        finite = torch.isfinite(chosen)
        updated = torch.where(finite, update(torch.where(finite, chosen, 0.0)), chosen)
        if chosen is block:
            return updated
        channels = list(block.unbind(2))
        for number, values in zip(self.chosen, updated.unbind(2), strict=True):
            channels[number] = values
        return torch.stack(channels, 2)

    def constraint(self, values: Tensor, known: Tensor, since: int, context: Context) -> LinearConstraint:
        """On chosen channels ``(batch, time, channel, *space)``, the first frame ``since`` frames after a known one."""
        rows = self._rows_for(context)
        before = rows.apply(self.select(known.unsqueeze(1)))[:, 0]
        frames = torch.arange(since, since + values.shape[1], device=values.device)
        target, variance = self.law.target(self.metadata, before, frames)
        # A trajectory that broke has no target; its frames stay as they are.
        target = torch.where(torch.isfinite(target), target, 0.0)
        return LinearConstraint(rows, target, variance, names=self.names)

    def _rows_for(self, context: Context) -> Rows:
        """Made anew only for other cases: another grid, mask or parameters."""
        leaves = (*context.coordinates, context.mask, context.parameters)
        if (
            self._rows is None
            or len(leaves) != len(self._made_for)
            or any(one is not other for one, other in zip(leaves, self._made_for, strict=True))
        ):
            # What is made in inference mode could never be used in training.
            with torch.inference_mode(False), torch.no_grad():
                self._rows = self.law.rows(self.metadata, map_context(torch.clone, context))
            self._made_for = leaves
        return self._rows


def _known(values: Tensor) -> Tensor:
    return torch.where(torch.isfinite(values), values, 0.0)


def _for_members(rows: Rows, members: int) -> Rows:
    """Rows of ``(member * batch, ...)`` with members in front of the batch."""
    weights = rows.weights.unflatten(0, (members, -1))
    if isinstance(rows, DenseRows):
        return DenseRows(weights, rows.event_ndim)
    if rows.labels is None:
        return DisjointRows(weights, rows.event_ndim, summed=rows.summed)
    return DisjointRows(weights, rows.event_ndim, rows.labels)


def _fixed_variances(
    profiles: Sequence[Sequence[float]] | None,
    chosen: Sequence[int],
    metadata: Metadata,
    block: Tensor,
    context: Context,
) -> Tensor:
    """``(batch or 1, 1, channel, *space)`` in float64, zero in solid; a single number where all points are alike."""
    variance = torch.ones((), dtype=torch.float64, device=block.device)
    if profiles is not None:
        closed = [place for place, axis in enumerate(metadata.grid.axes) if axis.period is None]
        sizes = [block.shape[3 + place] for place in closed]
        if all(len(profile) == 1 for profile in profiles):
            closed, sizes = [0], [1]
        if len(closed) != 1 or any(len(profile) != sizes[0] for profile in profiles):
            raise ValueError(
                f"Expected variances along one axis that is not periodic, {sizes} points, but got "
                f"{[len(profile) for profile in profiles]} of them for each channel."
            )
        shape = [len(chosen), *(1,) * metadata.grid.dimension]
        shape[1 + closed[0]] = sizes[0]
        variance = torch.tensor([profiles[number] for number in chosen], dtype=torch.float64, device=block.device)
        variance = variance.reshape(shape)
    return variance if context.mask is None else variance * context.mask[:, None, None]

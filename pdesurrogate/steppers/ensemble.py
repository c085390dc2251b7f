"""Several forecasts side by side: of several steppers, or of one from several starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdesurrogate.fields.batch import map_context, repeat_context
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.steppers.base import ProbabilisticStepper, Stepper, require_outermost


@runtime_checkable
class EnsembleStepper(Stepper, Protocol):
    """A `Stepper` whose batch axis holds members times trajectories, all trajectories of the first member first.

    One rollout carries all members: spread the history, roll out, fold each block.
    """

    @property
    def members(self) -> int:
        """Number of members."""
        ...

    def spread(self, history: Tensor, context: Context) -> tuple[Tensor, Context]:
        """The starts of all members ``(member * batch, ...)`` from one of each trajectory ``(batch, ...)``."""
        ...

    def fold(self, block: Tensor) -> Tensor:
        """``(member * batch, ...)`` to ``(member, batch, ...)``."""
        ...


@runtime_checkable
class ProbabilisticEnsemble(EnsembleStepper, Protocol):
    """An `EnsembleStepper` whose members may state how sure each of them is."""

    def predict_members(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Means and variances ``(member * batch, time, channel, *space)``; no variance where a member states none."""
        ...


class Ensemble(nn.Module):
    """Each member steps its own share of the batch from the same start; an `EnsembleStepper`.

    The rollout of a member is bit for bit the one that its stepper alone gives for the same batch.

    Args:
        steppers: at least two, of the same fields, that give equally many frames a step.

    Raises:
        ValueError: if there are fewer than two, or their data sets differ in channels, axes or frame interval.

    Example:
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> from pdesurrogate.steppers.rollout import rollout
        >>> ensemble = Ensemble([Persistence(), Persistence(), Persistence()])
        >>> history, context = torch.ones(2, 1, 1, 8), Context((torch.arange(8.0).expand(2, -1),))
        >>> [ensemble.fold(block).shape for block in rollout(ensemble, *ensemble.spread(history, context), frames=1)]
        [torch.Size([3, 2, 1, 1, 8])]
    """

    def __init__(self, steppers: Sequence[Stepper]) -> None:
        super().__init__()
        if len(steppers) < 2:
            raise ValueError(f"Expected at least two steppers for an ensemble but got {len(steppers)}.")
        for stepper in steppers:
            require_outermost(stepper, "an ensemble")
        described = [found for stepper in steppers if (found := _metadata_of(stepper)) is not None]
        for number, other in enumerate(described[1:], start=1):
            described[0].require_same_fields(other, what=f"member {number} of the ensemble")
        self.steppers = tuple(steppers)
        self.metadata = described[0] if described else None
        # Members that hold tensors move, save and load with the ensemble; others, such as persistence, need not.
        self.member_modules = nn.ModuleList(stepper for stepper in steppers if isinstance(stepper, nn.Module))

    @property
    def members(self) -> int:
        """Number of members."""
        return len(self.steppers)

    @property
    def history_frames(self) -> int:
        """The most that any member needs."""
        return max(stepper.history_frames for stepper in self.steppers)

    def spread(self, history: Tensor, context: Context) -> tuple[Tensor, Context]:
        """The same start for all members: ``(batch, ...)`` repeated to ``(member * batch, ...)``."""
        return spread_members(history, context, self.members)

    def fold(self, block: Tensor) -> Tensor:
        """``(member * batch, ...)`` to ``(member, batch, ...)``, a view."""
        return fold_members(block, self.members)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The members' next blocks ``(member * batch, time, channel, *space)``, each from its own share of ``history``.

        Raises:
            ValueError: if the batch is not a multiple of the members, or they give different numbers of frames.
        """
        return _joined([stepper.step(*own) for stepper, own in self._shares(history, context)])

    def predict_members(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Means and variances of the members' next blocks; see `ProbabilisticEnsemble`.

        Raises:
            ValueError: as `step`.
        """
        predicted = [predicted_by(stepper, *own) for stepper, own in self._shares(history, context)]
        means, variances = zip(*predicted, strict=True)
        return _joined(means), _joined(variances)

    def _shares(self, history: Tensor, context: Context) -> Iterator[tuple[Stepper, tuple[Tensor, Context]]]:
        """Each stepper with its own history and context."""
        own = fold_members(history, self.members)
        batch, past = own.shape[1:3]
        for number, stepper in enumerate(self.steppers):
            share = slice(number * batch, (number + 1) * batch)
            latest = own[number, :, past - stepper.history_frames :]
            yield stepper, (latest, map_context(itemgetter(share), context))

    def extra_repr(self) -> str:
        """The number of members, shown by ``print``."""
        return f"members={self.members}"


class PerturbedStarts(nn.Module):
    """One stepper from several starts; an `EnsembleStepper` that steps all of them in one batch.

    A perturbation is the history convolved with a random kernel along the periodic axes: a random mixture of the
    field's own translates. It has the spectrum of the field, its root mean square is ``amplitude`` times that of the
    field's deviation from its mean over these axes (on average over kernels), and whatever is linear and the same
    everywhere along them it keeps: zero divergence, values at walls, the mean. Frames and channels share a kernel, and
    so do trajectories, so that a result depends neither on the batch nor on the device.

    Args:
        stepper: of data with a periodic axis.
        members: number of starts, all perturbed.
        amplitude: size of the perturbations relative to the field's deviation.
        seed: of the kernels.
        metadata: of the data; by default the stepper's own.

    Raises:
        ValueError: if there are fewer than two members, the amplitude is not positive, or no periodic axis is known.

    Example:
        >>> from pdesurrogate.fields import Axis, Channel, Grid
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> metadata = Metadata("example", Grid((Axis("x", period=1.0),)), (Channel("height"),), frame_interval=0.1)
        >>> ensemble = PerturbedStarts(Persistence(), members=100, amplitude=0.1, metadata=metadata)
        >>> x = torch.arange(64) / 64
        >>> wave = 3 + torch.cos(2 * torch.pi * 5 * x).reshape(1, 1, 1, 64)
        >>> starts = ensemble.fold(ensemble.spread(wave, Context((x[None],)))[0])
        >>> starts.shape, round(((starts - wave).square().mean() / 0.5).sqrt().item(), 1)
        (torch.Size([100, 1, 1, 1, 64]), 0.1)
    """

    def __init__(
        self, stepper: Stepper, members: int, amplitude: float, seed: int = 0, metadata: Metadata | None = None
    ) -> None:
        super().__init__()
        if members < 2 or not amplitude > 0:
            raise ValueError(
                f"Expected at least two members and a positive amplitude but got {members} and {amplitude}."
            )
        require_outermost(stepper, "an ensemble")
        known = _metadata_of(stepper) if metadata is None else metadata
        if known is None or all(axis.period is None for axis in known.grid.axes):
            raise ValueError(
                f"Expected metadata with a periodic axis, along which fields can be moved, but got {known}; "
                "give the metadata of the data, or use an ensemble of several steppers."
            )
        self.metadata = known
        self.stepper = stepper
        self.members = members
        self.amplitude = amplitude
        self.seed = seed

    @property
    def history_frames(self) -> int:
        """As the stepper has it."""
        return self.stepper.history_frames

    def spread(self, history: Tensor, context: Context) -> tuple[Tensor, Context]:
        """Perturbed starts ``(member * batch, time, channel, *space)`` and the context repeated.

        Raises:
            ValueError: if the context holds a mask: a body must not move.
        """
        if context.mask is not None:
            raise ValueError("Expected fields without a mask but got one; use an ensemble of several steppers.")
        starts, contexts = spread_members(history, context, self.members)
        periodic = [axis.period is not None for axis in self.metadata.grid.axes]
        sizes = [size if moves else 1 for size, moves in zip(history.shape[3:], periodic, strict=True)]
        # Counted from the end, the axes of histories and kernels have the same numbers.
        axes = [place - len(periodic) for place, moves in enumerate(periodic) if moves]
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.members, 1, 1, 1, *sizes, generator=generator, dtype=torch.float64)
        noise = (noise - noise.mean(axes, keepdim=True)).to(history)
        # The transform of white noise has unit variance at each wave.
        kernels = torch.fft.rfftn(noise, dim=axes, norm="ortho")
        waves = torch.fft.rfftn(history, dim=axes) * kernels
        perturbations = torch.fft.irfftn(waves, s=[history.shape[axis] for axis in axes], dim=axes)
        return starts + self.amplitude * perturbations.flatten(0, 1), contexts

    def fold(self, block: Tensor) -> Tensor:
        """``(member * batch, ...)`` to ``(member, batch, ...)``, a view."""
        return fold_members(block, self.members)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The stepper's next block for all members at once."""
        return self.stepper.step(history, context)

    def predict_members(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Means and variances of that block; see `ProbabilisticEnsemble`."""
        return predicted_by(self.stepper, history, context)

    def extra_repr(self) -> str:
        """The starts, shown by ``print``."""
        return f"members={self.members}, amplitude={self.amplitude}, seed={self.seed}"


def spread_members(history: Tensor, context: Context, members: int) -> tuple[Tensor, Context]:
    """Repeat ``(batch, ...)`` to ``(member * batch, ...)``, all trajectories of the first member first.

    Example:
        >>> history, context = torch.arange(2.0).reshape(2, 1, 1, 1), Context((torch.zeros(2, 1),))
        >>> spread_members(history, context, members=3)[0].flatten().tolist()
        [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    """
    return torch.cat([history] * members), repeat_context(context, members)


def fold_members(block: Tensor, members: int) -> Tensor:
    """``(member * batch, ...)`` to ``(member, batch, ...)``, a view.

    Raises:
        ValueError: if the batch is not a multiple of the members.

    Example:
        >>> fold_members(torch.zeros(6, 1, 1, 8), members=3).shape
        torch.Size([3, 2, 1, 1, 8])
    """
    if block.shape[0] % members:
        raise ValueError(
            f"Expected a batch of {members} members times trajectories but got {block.shape[0]}; "
            "spread the history over the members first."
        )
    return block.unflatten(0, (members, -1))


def predicted_by(stepper: Stepper, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Mean and variance of a stepper's next block; the variance is zero where it states none.

    Example:
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> context = Context((torch.arange(8.0).expand(2, -1),))
        >>> predicted_by(Persistence(), torch.ones(2, 1, 1, 8), context)[1].any().item()
        False
    """
    if isinstance(stepper, ProbabilisticStepper):
        return stepper.predict(history, context)
    block = stepper.step(history, context)
    return block, torch.zeros_like(block)


def _joined(blocks: Sequence[Tensor]) -> Tensor:
    """The members' blocks in one batch."""
    frames = [block.shape[1] for block in blocks]
    if len(set(frames)) > 1:
        raise ValueError(
            f"Expected all members to give equally many frames a step but got {frames}; "
            "put those of one block length into an ensemble."
        )
    return torch.cat(list(blocks))


def _metadata_of(stepper: Stepper) -> Metadata | None:
    """What the stepper says about its data; persistence steps any."""
    found = getattr(stepper, "metadata", None)
    return found if isinstance(found, Metadata) else None

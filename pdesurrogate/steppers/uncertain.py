"""One way to mean and variance, wherever they come from: moments of an ensemble, and dropout as an ensemble.

Whatever states how sure it is has ``predict(history, context) -> (mean, variance)``, a `ProbabilisticStepper`; where
the covariance between points is known too it has ``moments(history, context)``, a `CorrelatedStepper`.

| source | stepper |
|---|---|
| a head (`models.heads`) | `ProbabilisticSurrogate`, which its checkpoint gives |
| an ensemble of networks, or of starts | ``EnsembleMoments(Ensemble([...]))`` |
| dropout | ``EnsembleMoments(MonteCarloDropout(surrogate, members=10))`` |
| the last layer | `steppers.laplace.LastLayerLaplace` |
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.distributions import Moments, anomalies
from pdesurrogate.steppers.base import ProbabilisticStepper, Stepper
from pdesurrogate.steppers.ensemble import (
    EnsembleStepper,
    ProbabilisticEnsemble,
    fold_members,
    predicted_by,
    spread_members,
)

_Dropouts = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@runtime_checkable
class CorrelatedStepper(ProbabilisticStepper, Protocol):
    """A `ProbabilisticStepper` that also knows what points share."""

    def moments(self, history: Tensor, context: Context) -> Moments:
        """Mean and covariance of the next block, physical units."""
        ...


class EnsembleMoments(nn.Module):
    """Mean and covariance of an ensemble's next block, mixed at every step; a `ProbabilisticStepper`.

    By the law of total variance: the mean of the members' own variances, where they state them, and the unbiased
    covariance of their means. What a member states itself counts as independent from point to point. In a rollout all
    members go on from the mean of the last block. To let each go on by itself roll out the ensemble; to correct each by
    itself put the correction around the members.

    Args:
        stepper: the ensemble that is mixed.
        floor: smallest deviation that is independent from point to point, relative to the root mean square of the
            ensemble's deviation in a frame and channel. A point where all members agree has none of its own, and no
            observation can move it.

    Raises:
        ValueError: for a stepper that is no ensemble, and a negative floor.

    Example:
        >>> from pdesurrogate.steppers.ensemble import Ensemble
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> mixed = EnsembleMoments(Ensemble([Persistence(), Persistence()]))
        >>> mean, variance = mixed.predict(torch.ones(2, 1, 1, 8), Context((torch.arange(8.0).expand(2, -1),)))
        >>> mean.mean().item(), variance.max().item()
        (1.0, 0.0)
    """

    def __init__(self, stepper: EnsembleStepper, floor: float = 0.0) -> None:
        super().__init__()
        if not isinstance(stepper, EnsembleStepper):
            raise ValueError(
                f"Expected an ensemble but a {type(stepper).__name__} is none; use Ensemble, PerturbedStarts or "
                "MonteCarloDropout."
            )
        if not floor >= 0:
            raise ValueError(f"Expected a floor that is not negative but got {floor}.")
        self.stepper = stepper
        self.floor = floor

    @property
    def history_frames(self) -> int:
        """As the ensemble has it."""
        return self.stepper.history_frames

    @property
    def metadata(self) -> Metadata | None:
        """As the ensemble has it."""
        return getattr(self.stepper, "metadata", None)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """Mean of the members' next blocks."""
        return self.moments(history, context).mean

    def predict(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Mean and variance of the next block, the variance in squared physical units."""
        moments = self.moments(history, context)
        return moments.mean, moments.marginal_variance

    def moments(self, history: Tensor, context: Context) -> Moments:
        """Mean and covariance of the next block; a mode for each member."""
        starts = self.stepper.spread(history, context)
        if isinstance(self.stepper, ProbabilisticEnsemble):
            means, variances = self.stepper.predict_members(*starts)
        else:
            means = self.stepper.step(*starts)
            variances = torch.zeros_like(means)
        members, own = self.stepper.fold(means), self.stepper.fold(variances).mean(0)
        found = Moments(members[0] + (members - members[0]).mean(0), own, anomalies(members))
        if self.floor == 0:
            return found
        size = found.marginal_variance.mean(tuple(range(3, own.ndim)), keepdim=True)
        return found._replace(variance=torch.maximum(own, self.floor**2 * size))

    def extra_repr(self) -> str:
        """The floor, shown by ``print``."""
        return f"floor={self.floor}"


class MonteCarloDropout(nn.Module):
    """A network with dropout as an ensemble: each member is the network without some of it; an `EnsembleStepper`.

    Dropout is on in evaluation, on purpose (Gal & Ghahramani 2016, arXiv:1506.02142). What a member lacks is drawn from
    the seed once, and is the same at every step and in every trajectory. So a rerun is bit-equal, a forecast depends
    neither on the batch nor on torch's own random numbers, and a rollout of a member is that of one network.

    Args:
        stepper: with ``torch.nn.Dropout`` or ``Dropout1d`` to ``Dropout3d`` in it, whose input has the batch as its
            first axis; `models.heads.WithDropout` puts some into any network.
        members: at least two.
        seed: of what they lack.
        probability: of dropping; by default that of each layer.

    Raises:
        ValueError: for fewer members, a probability outside (0, 1), or a stepper without dropout.

    Example:
        >>> from pdesurrogate.fields import Axis, Channel, Grid
        >>> from pdesurrogate.models.heads import WithDropout
        >>> from pdesurrogate.steppers.surrogate import Surrogate
        >>> grid = Grid((Axis("x", period=1.0),))
        >>> metadata = Metadata("example", grid, (Channel("height"),), frame_interval=0.1)
        >>> fno = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4], "width": 8}}
        >>> network = WithDropout(fno, channels=1, after=["blocks.0", "blocks.2"])
        >>> dropout = MonteCarloDropout(Surrogate(network, metadata).eval(), members=5)
        >>> start = torch.randn(2, 1, 1, 16), Context((torch.arange(16).expand(2, -1) / 16,))
        >>> dropout.fold(dropout.step(*dropout.spread(*start))).std(0).shape
        torch.Size([2, 1, 1, 16])
    """

    def __init__(self, stepper: Stepper, members: int, seed: int = 0, probability: float | None = None) -> None:
        super().__init__()
        if members < 2:
            raise ValueError(f"Expected at least two members but got {members}.")
        if probability is not None and not 0 < probability < 1:
            raise ValueError(f"Expected a probability within (0, 1) but got {probability}.")
        self.stepper = stepper
        self.members = members
        self.seed = seed
        self.probability = probability
        if not any(self._probability_of(layer) > 0 for layer in self._layers):
            raise ValueError(
                f"Expected a network with dropout but the {type(stepper).__name__} has none that drops anything; train "
                "it with pdesurrogate.models.heads.WithDropout around the network, or use an ensemble of networks."
            )
        self._masks: dict[int, Tensor] = {}

    @property
    def history_frames(self) -> int:
        """As the stepper has it."""
        return self.stepper.history_frames

    @property
    def metadata(self) -> Metadata | None:
        """As the stepper has it."""
        return getattr(self.stepper, "metadata", None)

    def spread(self, history: Tensor, context: Context) -> tuple[Tensor, Context]:
        """The same start for all members: ``(batch, ...)`` repeated to ``(member * batch, ...)``."""
        return spread_members(history, context, self.members)

    def fold(self, block: Tensor) -> Tensor:
        """``(member * batch, ...)`` to ``(member, batch, ...)``, a view."""
        return fold_members(block, self.members)

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The members' next blocks ``(member * batch, time, channel, *space)``.

        Raises:
            ValueError: if the batch is not a multiple of the members, or dropout is nowhere on the way.
        """
        with self._dropping(len(history)):
            return self.stepper.step(history, context)

    def predict_members(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Means and variances of these blocks; see `ProbabilisticEnsemble`."""
        with self._dropping(len(history)):
            return predicted_by(self.stepper, history, context)

    @property
    def _layers(self) -> list[nn.Module]:
        modules = self.stepper.modules() if isinstance(self.stepper, nn.Module) else ()
        return [module for module in modules if isinstance(module, _Dropouts)]

    def _probability_of(self, layer: Any) -> float:
        return float(layer.p) if self.probability is None else self.probability

    @contextmanager
    def _dropping(self, batch: int) -> Iterator[None]:
        """Dropout layers drop what each member lacks, whether in training or in evaluation."""
        if batch % self.members:
            raise ValueError(
                f"Expected a batch of {self.members} members times trajectories but got {batch}; spread the history "
                "over the members first."
            )
        reached: list[int] = []
        drop = functools.partial(self._drop, batch, reached)
        handles = [
            layer.register_forward_hook(functools.partial(drop, number)) for number, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if not reached:
            raise ValueError(
                "Expected dropout on the way from history to forecast but no such layer was called: all members agree."
            )

    def _drop(
        self, batch: int, reached: list[int], number: int, layer: nn.Module, given: tuple[Tensor, ...], made: Tensor
    ) -> Tensor:
        """What a dropout layer is given, ``(member * batch, ...)``, without what each member lacks."""
        values = given[0]
        if len(values) != batch:
            raise ValueError(
                f"Expected the batch of {batch} as the first axis of what a dropout layer is given but got "
                f"{tuple(values.shape)}; put the layer elsewhere."
            )
        reached.append(number)
        shape = values.shape[1:] if isinstance(layer, nn.Dropout) else (values.shape[1], *(1,) * (values.ndim - 2))
        mask = self._mask(number, (self.members, 1, *shape), self._probability_of(layer), values)
        return (fold_members(values, self.members) * mask).flatten(0, 1)

    def _mask(self, number: int, shape: tuple[int, ...], probability: float, like: Tensor) -> Tensor:
        """Zero where a layer drops, else what keeps the mean."""
        mask = self._masks.get(number)
        if mask is None or (mask.shape, mask.device, mask.dtype) != (shape, like.device, like.dtype):
            # A mask outlives the step that drew it, and gradients may go through a later one.
            with torch.inference_mode(False), torch.no_grad():
                # A seed for each layer, so that it does not matter which of them is called first.
                seeds = torch.Generator().manual_seed(self.seed)
                own = int(torch.randint(2**62, (number + 1,), generator=seeds)[number])
                drawn = torch.rand(shape, generator=torch.Generator().manual_seed(own))
                mask = ((drawn >= probability) / (1 - probability)).to(like)
            self._masks[number] = mask
        return mask

    def extra_repr(self) -> str:
        """Members and seed, shown by ``print``."""
        return f"members={self.members}, seed={self.seed}, probability={self.probability}"

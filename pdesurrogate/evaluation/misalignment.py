"""How far features move inside a SineNet: over each of its waves, and between the two parts that a skip joins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdesurrogate.data.windows import Windows
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.batch import Batch, map_context
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory
from pdesurrogate.metrics.flow import flow_of
from pdesurrogate.models.sinenet import LEVELS, SineNet
from pdesurrogate.physics.displacement import local_displacement
from pdesurrogate.physics.operators import velocity_from_vorticity
from pdesurrogate.steppers.surrogate import Surrogate

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Shift:
    """Median over samples of a distance in points of the finest grid, and its quartiles; NaN where none is known.

    Attributes:
        lower: a quarter of the samples lies below.
        median: half of them.
        upper: three quarters.
        coherence: median size of the correlation's peak, 1 for a pure translation; higher by chance the fewer points.
            NaN for what is no correlation.
        chance: median distance between features that have nothing to do with each other, those of different samples;
            NaN for batches of one.
        chance_coherence: of those; a tenth of the samples lies above.
    """

    lower: float
    median: float
    upper: float
    coherence: float = math.nan
    chance: float = math.nan
    chance_coherence: float = math.nan

    @property
    def accidental(self) -> bool:
        """Whether features of different samples fit together as well: then the shift means nothing."""
        return self.coherence <= self.chance_coherence

    @classmethod
    def of(cls, distances: Tensor, *others: Tensor) -> Shift:
        """Over samples ``(samples,)``; those that are NaN are left out.

        Args:
            distances: in points.
            others: coherences, distances by chance and coherences by chance.

        Example:
            >>> Shift.of(torch.tensor([3.0, 1.0, 2.0, torch.nan])).median
            2.0
        """
        half = 0.5
        quantiles = zip((distances,) * 3 + others, (0.25, half, 0.75, half, half, 0.9), strict=False)
        return cls(*(float(values.detach().double().nanquantile(place)) for values, place in quantiles))


@dataclass(frozen=True)
class Misalignment:
    """What `measure_misalignment` finds; distances in points of the finest grid.

    Attributes:
        samples: how many histories.
        windows: parts of each axis that were looked at apart.
        waves: between the features that go into each wave and those that come out.
        levels: for each wave, between skip and upsampled features where they meet, finest level first.
        total: between the features that go into the first wave and those that come out of the last.
        data: between the latest given frame and the last one of a step, as the data have them, by the same measure.
        fastest: how far the fastest point of the flow moves meanwhile, ``max |u| dt / dx``; ``None`` for data without a
            flow.
        typical: the same with the root mean square of the velocity.
    """

    samples: int
    windows: int
    waves: tuple[Shift, ...]
    levels: tuple[tuple[Shift, ...], ...]
    total: Shift
    data: Shift
    fastest: Shift | None = None
    typical: Shift | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, with NaN as ``None``; inverse of `from_dict`."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Misalignment:
        """Build from the output of `to_dict`."""
        flow = {name: None if values[name] is None else _shift(values[name]) for name in ("fastest", "typical")}
        return cls(
            values["samples"],
            values["windows"],
            tuple(_shift(each) for each in values["waves"]),
            tuple(tuple(_shift(each) for each in wave) for wave in values["levels"]),
            _shift(values["total"]),
            _shift(values["data"]),
            **flow,
        )


@torch.no_grad()
def measure_misalignment(surrogate: Surrogate, batches: Iterable[Batch], *, windows: int = 4) -> Misalignment:
    """Displacement of features in a surrogate's `SineNet`, beside the way that the flow itself covers in a step.

    Features are averaged over channels and compared by `phase_correlation`, so nothing about the network's latent time
    is assumed. A distance is the length of the shift; the median over all windows of a sample stands for it. A flow
    whose mean is zero moves nothing as a whole: several windows see what happens in it, in turbulence the slower motion
    that a window has in common. So features are to be compared with the data's own shift, which is measured alike, and
    the way of single points gives the scale only. At levels where a window has fewer than 8 points there is no number
    (with 4 windows, on 64 points, the coarsest); one window, the whole field, gives one at every level. Few points are
    easily mistaken: compare with what chance gives.

    A feature may change its sign on the way, so negative peaks count where skips meet upsampled features. A wave adds
    to what goes in, and what it leaves as it is holds the peak where it was: distances over waves are those of the sum,
    as the next wave sees it.

    Args:
        surrogate: with a `SineNet`; it is left as it was.
        batches: in physical units, in random order: what chance gives is seen between neighbors in a batch, and those
            of one trajectory are alike.
        windows: parts of each axis, which they divide at the levels that are to be seen.

    Raises:
        ValueError: if the network is no `SineNet` or compiled, or there are no batches, or too few target frames.
    """
    network = surrogate.network
    if not isinstance(network, SineNet):
        raise ValueError(f"Expected a surrogate with a SineNet but got one with a {type(network).__name__}.")
    periodic = [kind == "circular" for kind in network.padding]
    metadata, frames = surrogate.metadata, network.target_frames
    found: list[_Found] = []
    device = surrogate.increment_rms.device
    for batch in batches:
        history, context = batch.history.to(device), map_context(lambda leaf: leaf.to(device), batch.context)
        batch = Batch(history, batch.target.to(device), context)
        with recorded_features(network) as features:
            surrogate.step(batch.history, batch.context)
        frame = batch.history[:, -1], _last_frame(batch, frames)
        found.append(_found(frame, features, windows, periodic, _flow(batch, metadata, frames)))
    if not found:
        raise ValueError("Expected at least one batch to measure misalignment on but got none.")
    measured = torch.cat([each.places for each in found], -1)
    shifts = [Shift.of(*each) for each in measured]
    flow = [each.flow for each in found if each.flow is not None]
    ways = [Shift.of(each) for each in torch.cat(flow, -1)] if flow else [None, None]
    count = len(network.waves)
    return Misalignment(
        samples=measured.shape[-1],
        windows=windows,
        waves=tuple(shifts[2 : count + 2]),
        levels=tuple(tuple(shifts[start : start + LEVELS]) for start in range(count + 2, len(shifts), LEVELS)),
        total=shifts[1],
        data=shifts[0],
        fastest=ways[0],
        typical=ways[1],
    )


def add_misalignment(report: Report, found: Misalignment) -> Report:
    """The report with what `measure_misalignment` found as the entry ``misalignment``."""
    return Report({**report.attributes, "misalignment": found.to_dict()}, report.curves)


def shuffled_windows(
    trajectories: Sequence[Trajectory], surrogate: Surrogate, *, samples: int = 128, batch_size: int = 16, seed: int = 0
) -> Iterator[Batch]:
    """Batches for `measure_misalignment`: some of the windows that trajectories have for a step, in random order.

    Args:
        trajectories: of one split.
        surrogate: whose history and block a window holds.
        samples: at most so many windows.
        batch_size: windows in a batch.
        seed: of the order.

    Raises:
        ValueError: if the trajectories are too short.
    """
    network: Any = surrogate.network
    windows = Windows(trajectories, surrogate.history_frames, getattr(network, "target_frames", 1))
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))[:samples].tolist()
    for first in range(0, len(order), batch_size):
        yield windows.__getitems__(order[first : first + batch_size])


@dataclass
class Features:
    """Channel means ``(batch, *space)`` of features of the latest forward pass.

    Attributes:
        waves: what goes into each wave and what comes out.
        levels: for each wave, skip and upsampled features where they meet, finest level first.
    """

    waves: list[Pair] = field(default_factory=list)
    levels: list[list[Pair]] = field(default_factory=list)


@contextmanager
def recorded_features(network: nn.Module) -> Iterator[Features]:
    """Collect the features of a `SineNet`'s forward pass inside the ``with`` block; the network is as before after it.

    Only means over channels are kept.

    Raises:
        ValueError: at the end, if no features passed by: without a forward pass, or for a compiled network.

    Example:
        >>> network = SineNet(channels=1, waves=3, width=4)
        >>> with torch.no_grad(), recorded_features(network) as features:
        ...     frames = network(torch.randn(2, 1, 1, 32, 32))
        >>> len(features.waves), [skip.shape[-1] for skip, _ in features.levels[0]]
        (3, [32, 16, 8, 4])
    """
    waves: Any = network.waves
    features = Features([_NONE] * len(waves), [[_NONE] * len(wave.up) for wave in waves])
    handles = []
    for number, wave in enumerate(waves):
        handles.append(wave.register_forward_hook(_wave_hook(features.waves, number)))
        for level, module in enumerate(reversed(wave.up)):
            handles.append(module.register_forward_pre_hook(_level_hook(features.levels[number], level)))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()
    if any(pair is _NONE for pairs in (features.waves, *features.levels) for pair in pairs):
        raise ValueError(
            "Expected features of every wave but some were not seen; run the network inside the block, and measure "
            "before it is compiled."
        )


_NONE: Pair = (torch.empty(0), torch.empty(0))


def _wave_hook(pairs: list[Pair], place: int) -> Any:
    def keep(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        pairs[place] = _mean(arguments[0]), _mean(output)

    return keep


def _level_hook(pairs: list[Pair], place: int) -> Any:
    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        skip, upsampled = arguments[0]
        pairs[place] = _mean(skip), _mean(upsampled)

    return keep


def _mean(features: Tensor) -> Tensor:
    return features.detach().float().mean(1) if features.dtype.itemsize < 4 else features.detach().mean(1)


@dataclass(frozen=True)
class _Found:
    """Of one batch.

    Attributes:
        places: ``(places, 4, batch)``: distance, coherence, and both by chance; the data first, then the total, waves,
            and the levels of each.
        flow: ``(2, batch)``, of the fastest and the typical point.
    """

    places: Tensor
    flow: Tensor | None


def _last_frame(batch: Batch, frames: int) -> Tensor:
    if batch.target.shape[1] < frames:
        raise ValueError(
            f"Expected batches with the {frames} target frames of a step but got {batch.target.shape[1]}; use windows "
            "with as many."
        )
    return batch.target[:, frames - 1]


def _found(frame: Pair, features: Features, windows: int, periodic: list[bool], flow: Tensor | None) -> _Found:
    total = features.waves[0][0], features.waves[-1][1]
    places = [_distances(pair, windows, periodic, "same") for pair in (frame, total, *features.waves)]
    for wave in features.levels:
        for level, pair in enumerate(wave):
            measured = _distances(pair, windows, periodic, "either")
            # Coherence has no unit.
            units = measured.new_tensor([2.0**level, 1.0, 2.0**level, 1.0])
            places.append(measured * units[:, None])
    return _Found(torch.stack(places), flow)


def _distances(pair: Pair, windows: int, periodic: list[bool], sign: Literal["same", "either"]) -> Tensor:
    """Distance, coherence, and both by chance, ``(4, batch)``, in points of their own grid; over channels if any."""
    first, second = pair
    nothing = first.new_full((2, len(first)), math.nan, dtype=torch.float64)
    # The finest level comes first and was refused if they do not divide it; a coarser one is left out.
    if sign == "either" and any(size % windows for size in first.shape[-len(periodic) :]):
        return torch.cat([nothing, nothing])
    measured = []
    for other in (second, second.roll(1, 0)):
        local = local_displacement(first, other, windows, periodic, sign=sign)
        measured += [each.flatten(1).nanmedian(-1).values for each in (local.distance, local.coherence.abs())]
    found = torch.stack(measured)
    return found if len(first) > 1 else torch.cat([found[:2], nothing])


def _flow(batch: Batch, metadata: Metadata, frames: int) -> Tensor | None:
    """Grid points that the fastest and the typical point move while ``frames`` pass, ``(2, batch)``."""
    velocity = _velocity(batch.history[:, -1], metadata)
    if velocity is None:
        return None
    space = range(metadata.grid.dimension)
    # What a point stands for along an axis: the spacing, also where that varies.
    spacings = metadata.grid.quadrature_weights(batch.context.coordinates, cells=True)
    points = torch.stack(
        [
            velocity[:, axis].double() / spacing.reshape(-1, *(spacing.shape[1] if i == axis else 1 for i in space))
            for axis, spacing in enumerate(spacings)
        ],
        dim=-1,
    )
    squared = points.square().sum(-1).flatten(1) * (metadata.frame_interval * frames) ** 2
    return torch.stack([squared.amax(-1), squared.mean(-1)]).sqrt()


def _velocity(frame: Tensor, metadata: Metadata) -> Tensor | None:
    """``(batch, axes, *space)`` of ``frame (batch, channel, *space)``, as far as `flow_of` knows it."""
    flow = flow_of(metadata)
    if flow is None:
        return None
    values = flow.select(frame[:, None])[:, 0]
    return values if flow.given == "velocity" else velocity_from_vorticity(values[:, 0], metadata.grid.periods)


def _shift(values: dict[str, float | None]) -> Shift:
    return Shift(**{name: math.nan if value is None else value for name, value in values.items()})


def _without_nan(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values

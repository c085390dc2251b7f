"""What is known of the frames of a rollout, stated once: wrappers enforce it, metrics measure it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.conservation.rows import DisjointRows, Rows, product_weights

# Coordinates in single precision, of a thousand points along an axis, leave this of their even spacing.
_EVEN = 1e-3


@runtime_checkable
class ConservationLaw(Protocol):
    """Linear rows on some channels of every frame, and what they give so many frames after a known one.

    A law holds no tensors: it is built from plain values and asked about data.
    """

    def channels(self, metadata: Metadata) -> tuple[int, ...]:
        """Numbers of the channels that the rows are on."""
        ...

    def names(self, metadata: Metadata) -> tuple[str, ...]:
        """Of the rows."""
        ...

    def units(self, metadata: Metadata) -> tuple[str, ...]:
        """Of what each row gives."""
        ...

    def rows(self, metadata: Metadata, context: Context) -> Rows:
        """On frames ``(batch, time, channel, *space)`` of these channels: unknowns are ``(channel, *space)``."""
        ...

    def target(self, metadata: Metadata, before: Tensor, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the rows give, and the variance of that if it is not exact, ``(batch, time, rows)`` both.

        Args:
            metadata: of the data.
            before: ``(batch, rows)`` what they give in the known frame.
            frames: ``(time,)`` number of frames since.
        """
        ...


class KeptMeans:
    """The mean of a channel over the box stays what it is: circulation, momentum, mass in a closed or periodic box.

    Means are taken with the quadrature weights of the data, as metrics take them, over the fluid where there is a mask.

    Args:
        of: names of the channels; by default all. Say which: not every mean is kept.
        values: what the means are, one for each channel; by default those of the known frame.
        unit: that ``values`` are in, to be held against the data's own.

    Raises:
        ValueError: for as many values as channels are not; in use, for channels that are not there and other units.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> metadata = Metadata("example", Grid((Axis("x", period=1.0),)), (Channel("vorticity"),), frame_interval=0.1)
        >>> law = KeptMeans(of=["vorticity"])
        >>> rows = law.rows(metadata, Context((torch.arange(4)[None] / 4,)))
        >>> rows.apply(torch.tensor([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 1, 4)).tolist()
        [[[3.0]]]
    """

    def __init__(
        self, of: Sequence[str] | None = None, values: Sequence[float] | None = None, unit: str | None = None
    ) -> None:
        _require_names(of)
        if values is not None and (of is None or len(values) != len(of)):
            raise ValueError(f"Expected values for channels that are named, one for each, but got {of} and {values}.")
        self.of = None if of is None else tuple(of)
        self.values = None if values is None else tuple(values)
        self.unit = unit

    def channels(self, metadata: Metadata) -> tuple[int, ...]:
        """See `ConservationLaw`.

        Raises:
            ValueError: if a channel is not there, or its units are not those that values are given in.
        """
        known = metadata.channel_names
        missing = [name for name in self.of or () if name not in known]
        if missing:
            raise ValueError(
                f"Expected channels {missing}, whose means are kept, but {metadata.name!r} has {list(known)}; name "
                "channels that are there."
            )
        chosen = tuple(range(len(known))) if self.of is None else tuple(known.index(name) for name in self.of)
        for number in chosen:
            channel = metadata.channels[number]
            if self.unit not in (None, channel.units):
                raise ValueError(
                    f"Expected values of {channel.name!r} in {channel.units!r}, the units of {metadata.name!r}, but "
                    f"got them in {self.unit!r}; convert them."
                )
        return chosen

    def names(self, metadata: Metadata) -> tuple[str, ...]:
        """See `ConservationLaw`."""
        return tuple(f"mean of {metadata.channels[number].name}" for number in self.channels(metadata))

    def units(self, metadata: Metadata) -> tuple[str, ...]:
        """See `ConservationLaw`."""
        return tuple(metadata.channels[number].units for number in self.channels(metadata))

    def rows(self, metadata: Metadata, context: Context) -> Rows:
        """See `ConservationLaw`."""
        return _mean_rows(metadata, context, len(self.channels(metadata)))

    def target(self, metadata: Metadata, before: Tensor, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `ConservationLaw`."""
        if self.values is not None:
            before = before.new_tensor(self.values).expand_as(before)
        return before.unsqueeze(1), None


class BalancedMeans:
    """The mean of a channel changes by a source and decays: ``d mean / dt = source - decay * mean``, with uncertainty.

    The budget of a quantity whose boundary fluxes and forcing are known up to noise that is white in time; the
    deviation of what is known of the mean grows with the square root of time, less what decays.

    Args:
        of: names of the channels.
        sources: of each, in its units per unit of time: influx less outflux plus forcing, over the volume.
        decay: a rate for all, as of a linear drag.
        deviations: of each budget after one unit of time, if it is not exact.
        unit: of the channels, which sources and deviations are in, to be held against the data's own.

    Raises:
        ValueError: if numbers do not fit or a deviation is negative; in use, for channels that are not there.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> metadata = Metadata("example", Grid((Axis("x", period=1.0),)), (Channel("density"),), frame_interval=0.5)
        >>> law = BalancedMeans(["density"], sources=[2.0], deviations=[0.1])
        >>> target, variance = law.target(metadata, torch.ones(1, 1), torch.tensor([1, 2]))
        >>> target.flatten().tolist(), [round(value, 4) for value in variance.flatten().tolist()]
        ([2.0, 3.0], [0.005, 0.01])
    """

    def __init__(
        self,
        of: Sequence[str],
        sources: Sequence[float],
        decay: float = 0.0,
        deviations: Sequence[float] | None = None,
        unit: str | None = None,
    ) -> None:
        _require_names(of)
        if len(sources) != len(of) or (deviations is not None and len(deviations) != len(of)) or decay < 0:
            raise ValueError(
                f"Expected sources, and deviations if any, for each of {list(of)} and a decay of at least zero but got "
                f"{sources}, {deviations} and {decay}."
            )
        if not all(0 <= deviation < math.inf for deviation in deviations or ()):
            raise ValueError(f"Expected finite deviations of at least zero but got {deviations}.")
        if not all(math.isfinite(source) for source in (*sources, decay)):
            raise ValueError(f"Expected finite sources and decay but got {sources} and {decay}.")
        self.of = tuple(of)
        self.sources = tuple(sources)
        self.decay = decay
        self.deviations = None if deviations is None else tuple(deviations)
        self.unit = unit
        self._kept = KeptMeans(of, unit=unit)

    def channels(self, metadata: Metadata) -> tuple[int, ...]:
        """See `ConservationLaw`."""
        return self._kept.channels(metadata)

    def names(self, metadata: Metadata) -> tuple[str, ...]:
        """See `ConservationLaw`."""
        return self._kept.names(metadata)

    def units(self, metadata: Metadata) -> tuple[str, ...]:
        """See `ConservationLaw`."""
        return self._kept.units(metadata)

    def rows(self, metadata: Metadata, context: Context) -> Rows:
        """See `ConservationLaw`."""
        return self._kept.rows(metadata, context)

    def target(self, metadata: Metadata, before: Tensor, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `ConservationLaw`; exact in time."""
        time = (frames * metadata.frame_interval).to(before).unsqueeze(-1)
        sources = before.new_tensor(self.sources)
        target = before.unsqueeze(1) * torch.exp(-self.decay * time) + sources * _filled(time, self.decay)
        if self.deviations is None:
            return target, None
        variance = before.new_tensor(self.deviations).square() * _filled(time, 2 * self.decay)
        return target, variance.unsqueeze(0)


def _require_names(of: Sequence[str] | None) -> None:
    if of is not None and (isinstance(of, str) or not len(of)):
        raise ValueError(f"Expected a list of names of channels, at least one, but got {of!r}.")


def _filled(time: Tensor, rate: float) -> Tensor:
    """Integral of ``exp(-rate s)`` from 0 to ``time``."""
    exponent = -rate * time
    small = exponent.abs() < 1e-10
    return time * torch.where(small, 1.0, torch.expm1(exponent) / torch.where(small, 1.0, exponent))


def _mean_rows(metadata: Metadata, context: Context, channels: int) -> DisjointRows:
    """One row for each channel, the mean over the box, in every sample."""
    coordinates = tuple(points.to(torch.float64) for points in context.coordinates)
    lines = metadata.grid.quadrature_weights(coordinates, cells=metadata.cell_centered)
    weights = product_weights([_evened(line) for line in lines], context.mask)
    if len(weights) > 1 and bool((weights == weights[:1]).all()):
        weights = weights[:1]  # one grid for all: products with a batch read the weights once
    shares = weights / weights.flatten(1).sum(1).reshape(-1, *(1,) * len(lines))
    shares = shares[:, None, None].expand(-1, 1, channels, *shares.shape[1:])
    summed = len(lines) if channels > 1 else None  # a single row is one matrix product
    return DisjointRows(shares[0, 0] if len(shares) == 1 else shares, 1 + len(lines), summed=summed)


def _evened(line: Tensor) -> Tensor:
    """Weights ``(batch, n)`` that differ by what single precision leaves of their coordinates alone, made equal."""
    mean = line.mean(-1, keepdim=True)
    return torch.where((line - mean).abs().amax(-1, keepdim=True) <= _EVEN * mean, mean, line)

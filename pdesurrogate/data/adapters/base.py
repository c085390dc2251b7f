"""What a reader of a file format offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory


@runtime_checkable
class Adapter(Protocol):
    """A data set on disk. Splits are by trajectory, made before any window is cut, so nothing leaks."""

    @property
    def metadata(self) -> Metadata:
        """What all trajectories share; readable without reading any frame."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits at hand, among ``train``, ``val`` and ``test``."""
        ...

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """The lazy trajectories of a split.

        Raises:
            ValueError: if there is no such split.
        """
        ...


class PublishedStatistics(NamedTuple):
    """Means and deviations that come with a data set, ``(channel,)`` each, in physical units.

    Attributes:
        mean: of each channel.
        std: standard deviation of each channel.
        increment_rms: root mean square of what a channel changes by from frame to frame, where that is published.
    """

    mean: Tensor
    std: Tensor
    increment_rms: Tensor | None = None


@runtime_checkable
class WithStatistics(Protocol):
    """An adapter whose data set comes with statistics of its own."""

    def published_statistics(self) -> PublishedStatistics:
        """Those of the set's authors, in the order of the channels.

        Raises:
            ValueError: if they are not there, or do not fit the channels.
        """
        ...


class LeftOut(NamedTuple):
    """A trajectory that a reader went on without.

    Attributes:
        name: file and number.
        reason: why.
    """

    name: str
    reason: str

"""What a reader of a file format offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

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

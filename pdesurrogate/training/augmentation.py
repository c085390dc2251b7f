"""Symmetries of an equation, applied to training batches."""

from __future__ import annotations

import json
from typing import Protocol

import torch

from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Metadata


class Augmentation(Protocol):
    """Maps a batch to an equally valid one."""

    def check(self, metadata: Metadata) -> None:
        """Refuse data without the symmetry.

        Raises:
            ValueError: saying what is missing.
        """
        ...

    def transform(self, batch: Batch) -> Batch:
        """A random element of the symmetry group, the same for the whole batch; from torch's generator."""
        ...


class SquareSymmetries:
    """Quarter turns and reflections of vorticity on a periodic square; vorticity changes sign when reflected.

    Symmetries of two-dimensional Navier–Stokes flow without forcing. Translations need no augmentation: a network
    without coordinate channels commutes with them.
    """

    def check(self, metadata: Metadata) -> None:
        """Vorticity alone, on a square; where the data carry a recipe, one without forcing.

        Raises:
            ValueError: otherwise.
        """
        periods = [axis.period for axis in metadata.grid.axes]
        if metadata.channel_names != ("vorticity",) or len(periods) != 2 or periods[0] is None or len(set(periods)) > 1:
            raise ValueError(
                "Expected vorticity on a periodic square for SquareSymmetries but got channels "
                f"{metadata.channel_names} with periods {periods}; leave the augmentation out."
            )
        recipe = json.loads(str(metadata.attributes.get("recipe") or "{}"))
        if recipe.get("simulator", {}).get("init_args", {}).get("forcing"):
            raise ValueError(
                f"Expected flow without forcing for SquareSymmetries but {metadata.name!r} is forced, which singles "
                "out directions; leave the augmentation out."
            )

    def transform(self, batch: Batch) -> Batch:
        """One of the eight symmetries."""
        turns, reflected = int(torch.randint(4, ())), bool(torch.rand(()) < 0.5)
        history, target = (torch.rot90(frames, turns, (-2, -1)) for frames in (batch.history, batch.target))
        if reflected:
            history, target = -history.flip(-1), -target.flip(-1)
        return Batch(history, target, batch.context)

"""A data loader that resumes in the middle of an epoch with the batches that were still to come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from pdesurrogate.data.windows import Windows, as_batch
from pdesurrogate.fields.batch import Batch


class EpochSampler(Sampler[list[int]]):
    """Batches of window indices whose order is a function of (seed, epoch, rank) alone.

    Each epoch is a fresh permutation, dealt out to the ranks batch by batch; every rank gets the same number of
    batches, so the last few windows may be left out. Without shuffling every window comes once, dealt out to the ranks
    one by one.
    """

    def __init__(
        self, length: int, batch_size: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.skip = 0
        self._resumed_epoch = 0
        if not shuffle and length < world_size:
            raise ValueError(
                f"Expected a window for each of {world_size} devices but there are {length}; use fewer devices."
            )
        if shuffle and len(self) == 0:
            raise ValueError(
                f"Expected at least {batch_size * world_size} windows for one batch on each of {world_size} "
                f"device(s) but there are {length}; use a smaller batch_size."
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; Lightning calls this at the start of every epoch."""
        self.epoch = epoch
        if epoch != self._resumed_epoch:  # a pass that was cut short by limit_train_batches is not continued
            self.skip = 0

    def resume(self, epoch: int, skip: int) -> None:
        """Leave out the first ``skip`` batches of ``epoch``."""
        self.epoch, self._resumed_epoch, self.skip = epoch, epoch, skip

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // (self.batch_size * self.world_size)
        return -(-len(range(self.rank, self.length, self.world_size)) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator).tolist()
            first, between = self.rank * self.batch_size, self.world_size * self.batch_size
        else:
            order = list(range(self.rank, self.length, self.world_size))
            first, between = 0, self.batch_size
        for batch in range(skip, len(self)):
            start = first + batch * between
            yield order[start : start + self.batch_size]


class ResumableLoader(DataLoader[Batch]):
    """A `DataLoader` over `Windows` with ``state_dict`` and ``load_state_dict``, which Lightning saves and restores.

    The state is how many batches of the epoch were given out; the order itself follows from (seed, epoch).
    """

    def __init__(self, windows: Windows, sampler: EpochSampler, **options: Any) -> None:
        # The sampler yields whole index lists, so the loader is told not to batch and asks `Windows` for lists.
        super().__init__(_Lists(windows), batch_size=None, sampler=sampler, collate_fn=as_batch, **options)
        self._given = 0

    def __iter__(self) -> Any:
        assert isinstance(self.sampler, EpochSampler)
        self._given = self.sampler.skip
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, int]:
        """Batches given in this epoch; zero once all were, so that a checkpoint there starts the next one."""
        assert isinstance(self.sampler, EpochSampler)
        return {"given": self._given % max(len(self), 1), "epoch": self.sampler.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip that many batches in the next pass, if it is one through the same epoch."""
        assert isinstance(self.sampler, EpochSampler)
        self.sampler.resume(state["epoch"], state["given"])


class _Lists(torch.utils.data.Dataset[Batch]):
    """Indexed by a list of window numbers."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, indices: list[int]) -> Batch:
        return self.windows.__getitems__(indices)

"""From functions known at scattered points to batches of them: what query-point models are trained on."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import lightning
import torch

from pdesurrogate.data.loading import EpochSampler, ResumableLoader
from pdesurrogate.fields.point_set import PointSet


@runtime_checkable
class PointSource(Protocol):
    """Where functions come from: a file, or a generator."""

    def points(self) -> PointSet:
        """All of its functions, on the CPU; the same whenever it is asked."""
        ...


class PointData(lightning.LightningDataModule):
    """Batches of functions for query-point training; each is a `PointSet` with functions in front.

    Sources are asked at first use, and their functions stay in memory. The order of training batches is a function of
    ``(seed, epoch)`` and resumes in the middle of an epoch; functions that do not fill a batch are left out of that
    epoch. Those of validation and testing all come, in the order of their source.

    Args:
        train: functions to train on.
        val: to validate on; without, train with the trainer's ``limit_val_batches=0``.
        test: to test on.
        batch_size: functions in a batch, on each device.
        seed: of the order of the training functions.
    """

    def __init__(
        self,
        train: PointSource | None = None,
        val: PointSource | None = None,
        test: PointSource | None = None,
        batch_size: int = 250,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or seed < 0:
            raise ValueError(f"Expected batch_size >= 1 and seed >= 0 but got {batch_size} and {seed}.")
        sources = {"train": train, "val": val, "test": test}
        self.sources = {split: source for split, source in sources.items() if source is not None}
        if not self.sources:
            raise ValueError("Expected a source of functions but train, val and test are all missing.")
        self.batch_size = batch_size
        self.seed = seed
        self._points: dict[str, PointSet] = {}

    @property
    def dimension(self) -> int:
        """Coordinates of a point; linked to the network's argument of that name."""
        return self.points(next(iter(self.sources))).context_points.shape[-1]

    @property
    def fields(self) -> int:
        """Fields at a point; linked to the network's argument of that name."""
        return self.points(next(iter(self.sources))).context_values.shape[-1]

    def points(self, split: str) -> PointSet:
        """All functions of a split.

        Raises:
            ValueError: if the split has no source, or the source's tensors do not fit together, or not to those of the
                other splits, or are not finite.
        """
        if split not in self.sources:
            raise ValueError(f"Expected a split among {tuple(self.sources)} but got {split!r}; give it a source.")
        if split not in self._points:
            points = self.sources[split].points()
            _require_points(points, split)
            for other, known in self._points.items():
                _require_alike(points, split, known, other)
            self._points[split] = points
        return self._points[split]

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled functions; resumes in the middle of an epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> ResumableLoader:
        """Functions in order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> ResumableLoader:
        """Functions in order."""
        return self._loader("test", shuffle=False)

    def _loader(self, split: str, *, shuffle: bool) -> ResumableLoader:
        functions = _Functions(self.points(split))
        rank, devices = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        sampler = EpochSampler(
            len(functions), self.batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world_size=devices
        )
        # What the loader asks of windows, a list of samples for a list of numbers, functions give as well.
        return ResumableLoader(functions, sampler, pin_memory=torch.cuda.is_available())  # type: ignore[arg-type]


class _Functions(torch.utils.data.Dataset[PointSet]):
    """Indexed by function."""

    def __init__(self, points: PointSet) -> None:
        self._points = points

    def __len__(self) -> int:
        return len(self._points.parameters)

    def __getitems__(self, numbers: list[int]) -> list[PointSet]:
        chosen = torch.tensor(numbers)
        # One gather for each tensor, cut into views: a batch is stacked from them again.
        return [PointSet(*leaves) for leaves in zip(*(leaf[chosen].unbind() for leaf in self._points), strict=True)]


def _require_points(points: PointSet, split: str) -> None:
    ranks = (3, 3, 3, 3, 2)
    for name, leaf, rank in zip(PointSet._fields, points, ranks, strict=True):
        if leaf.ndim != rank or not leaf.numel() or not leaf.is_floating_point():
            raise ValueError(
                f"Expected {name} of {split} with {rank} axes, functions in front, none of them empty, and real "
                f"numbers but got {tuple(leaf.shape)}, {leaf.dtype}."
            )
        if not bool(torch.isfinite(leaf).all()):
            function = int((~torch.isfinite(leaf)).flatten(1).any(1).nonzero()[0])
            raise ValueError(
                f"Expected finite values but {name} of {split} function {function} holds NaN or infinity; leave it out."
            )
    shapes = {name: tuple(leaf.shape) for name, leaf in zip(PointSet._fields, points, strict=True)}
    context, target = points.context_points.shape, points.target_points.shape
    fit = (
        len({len(leaf) for leaf in points}) == 1
        and points.context_values.shape[:2] == context[:2]
        and points.target_values.shape[:2] == target[:2]
        and context[2] == target[2]
        and points.context_values.shape[2] == points.target_values.shape[2]
    )
    if not fit or len({leaf.dtype for leaf in points}) > 1:
        raise ValueError(
            f"Expected as many functions everywhere, a value for each point, and targets like contexts, all of one "
            f"precision, in {split} but got {shapes}, {[str(leaf.dtype) for leaf in points]}."
        )


def _require_alike(points: PointSet, split: str, known: PointSet, other: str) -> None:
    found, expected = (
        (each.context_points.shape[-1], each.context_values.shape[-1], each.context_points.dtype)
        for each in (points, known)
    )
    if found != expected:
        raise ValueError(
            f"Expected {split} to have {expected[0]} coordinates and {expected[1]} fields, {expected[2]}, as {other} "
            f"but got {found[0]} and {found[1]}, {found[2]}."
        )

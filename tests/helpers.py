"""Shared by several tests."""

from __future__ import annotations

from pathlib import Path

import torch

from pdesurrogate.data.archive import Archive, ArchiveWriter
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.plan import RolloutPlan


def write_archive(
    directory: Path,
    metadata: Metadata,
    splits: dict[str, torch.Tensor],
    coordinates: tuple[torch.Tensor, ...] | None = None,
    parameters: tuple[float, ...] | None = None,
) -> Archive:
    """An archive whose splits hold the given ``(trajectory, time, channel, *space)`` values.

    On even points of a fully periodic box and with parameters of zero, unless others are given.
    """
    for split, values in splits.items():
        times = metadata.frame_interval * torch.arange(values.shape[1], dtype=torch.float64)
        points = metadata.grid.uniform_coordinates(tuple(values.shape[3:])) if coordinates is None else coordinates
        row = torch.zeros(len(metadata.parameters)) if parameters is None else torch.tensor(parameters)
        rows = row.repeat(len(values), 1) if metadata.parameters else None
        path = directory / f"{split}.nc"
        with ArchiveWriter(path, metadata, points, times, len(values), parameters=rows) as writer:
            writer.write(0, values)
            writer.finish()
    return Archive(directory)


def plan_of(metadata: Metadata, trajectories: int, frames: int, shape: tuple[int, ...], **options) -> RolloutPlan:
    """The plan of rollouts on even points of a fully periodic box."""
    return RolloutPlan(metadata, trajectories, frames, metadata.grid.uniform_coordinates(shape), **options)


def context_of(plan: RolloutPlan, batch: int, **rest) -> Context:
    """A batched context on the plan's own points."""
    return Context(tuple(points.expand(batch, -1) for points in plan.coordinates), **rest)


def block_of(plan: RolloutPlan, prediction, target, first_frame=0, trajectories=None, context=None, **options) -> Block:
    """A block of the first trajectories, unless others are named."""
    numbers = torch.arange(len(target)) if trajectories is None else torch.as_tensor(trajectories)
    context = context_of(plan, len(target)) if context is None else context
    return Block(plan, prediction, target, first_frame, numbers, context, **options)


def measure(metric: RolloutMetric, prediction, target, *, batch=None, length=None, context=None) -> dict:
    """All outputs of a metric for whole rollouts, given in batches and in blocks of some length."""
    count, frames = target.shape[:2]
    batch, length = batch or count, length or frames
    for first in range(0, count, batch):
        numbers = torch.arange(first, min(first + batch, count))
        for start in range(0, frames, length):
            part = slice(start, start + length)
            metric.update(
                block_of(
                    metric.plan, prediction[numbers, part], target[numbers, part], start, numbers,
                    context_of(metric.plan, len(numbers)) if context is None else context,
                )
            )  # fmt: skip
    return metric.compute()

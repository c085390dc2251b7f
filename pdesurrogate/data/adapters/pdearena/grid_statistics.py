"""``normstats.pt``: mean and deviation of each variable at each point of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.data.adapters.base import PublishedStatistics


def read_grid_statistics(path: Path, variables: Sequence[str], shape: tuple[int, int]) -> PublishedStatistics:
    """Mean and deviation of each variable over the grid and over time, float32 ``(variable,)`` each.

    Args:
        path: a torch file with a dictionary ``{variable: {"mean": tensor, "std": tensor}}``.
        variables: wanted.
        shape: latitudes and longitudes; tensors may have a level of one in front.

    Raises:
        ValueError: if the file is none such.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the parser raise errors of any kind
        raise ValueError(
            f"Expected a dictionary of tensors in {path} but it cannot be read safely ({type(error).__name__}). It may "
            "be damaged; download it again."
        ) from error
    moments = [_moments(content, name, shape, path) for name in variables]
    mean = torch.stack([means.mean() for means, _ in moments])
    variance = torch.stack([(stds**2).mean() + means.var(correction=0) for means, stds in moments])
    return PublishedStatistics(mean.float(), variance.sqrt().float())


def _moments(content: Any, name: str, shape: tuple[int, int], path: Path) -> tuple[Tensor, Tensor]:
    entry = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), Tensor) for key in ("mean", "std")):
        there = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"Expected tensors mean and std of {name!r} in {path} but it holds {there}.")
    mean, std = (entry[key].to(torch.float64) for key in ("mean", "std"))
    for key, values in (("mean", mean), ("std", std)):
        if tuple(values.shape) not in (shape, (1, *shape)) or not bool(values.isfinite().all()):
            raise ValueError(
                f"Expected a finite {key} of {name!r} at each of {shape[0]} x {shape[1]} points in {path} but got "
                f"{tuple(values.shape)}; it is of another grid, or damaged."
            )
    if not bool((std >= 0).all()):
        raise ValueError(f"Expected no negative std of {name!r} in {path}.")
    return mean, std

"""Frames as channels and back: how networks without a time axis inside take a history and give a block of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from pdesurrogate.layers.padding import Padding


def fold_history(history: Tensor, frames: int, channels: int, dimension: int) -> Tensor:
    """``(batch, frames, channels, *space)`` as ``(batch, frames * channels, *space)``, frame by frame.

    Raises:
        ValueError: if frames, channels or the number of space axes are not those.

    Example:
        >>> import torch
        >>> fold_history(torch.zeros(5, 4, 3, 16, 8), frames=4, channels=3, dimension=2).shape
        torch.Size([5, 12, 16, 8])
    """
    if history.ndim != 3 + dimension or tuple(history.shape[1:3]) != (frames, channels):
        raise ValueError(
            f"Expected (batch, {frames}, {channels}, *space) with {dimension} space axes but got "
            f"{tuple(history.shape)}; give {frames} frames of {channels} channels or build the network for others."
        )
    return history.flatten(1, 2)


def unfold_frames(values: Tensor, frames: int) -> Tensor:
    """``(batch, frames * channels, *space)`` as ``(batch, frames, channels, *space)``."""
    return values.unflatten(1, (frames, -1))


def check_halvings(values: Tensor, halvings: int, padding: Sequence[Padding]) -> None:
    """Refuse ``(batch, channel, *space)`` that cannot be halved so often.

    Raises:
        ValueError: if a size of the space is not divisible, or an axis that ends in its mirror image is left with one
            point.
    """
    space, divisor = tuple(values.shape[2:]), 2**halvings
    if any(size % divisor for size in space):
        raise ValueError(
            f"Expected sizes divisible by {divisor} but got a grid of {space}; resample the data or use fewer levels."
        )
    if any(rule == "reflect" and size < 2 * divisor for rule, size in zip(padding, space, strict=True)):
        raise ValueError(
            f"Expected at least {2 * divisor} points on an axis with padding 'reflect' but got a grid of {space}; use "
            "a finer grid, fewer levels, or padding 'replicate'."
        )


def check_space(dimension: int) -> None:
    """Refuse a number of space axes that there are no blocks of convolutions for.

    Raises:
        ValueError: if it is not 2 or 3.
    """
    if dimension not in (2, 3):
        raise ValueError(f"Expected dimension 2 or 3 but got {dimension}.")


def check_positive(**sizes: int) -> None:
    """Refuse a size below one.

    Raises:
        ValueError: naming the sizes and what they are.

    Example:
        >>> check_positive(width=64, layers=0)
        Traceback (most recent call last):
        ...
        ValueError: Expected width, layers of at least 1 but got (64, 0).
    """
    if min(sizes.values()) < 1:
        raise ValueError(f"Expected {', '.join(sizes)} of at least 1 but got {tuple(sizes.values())}.")


def check_kinds(known: Mapping[str, Sequence[str]], **kinds: str) -> None:
    """Refuse an argument that is none of the words it may be.

    Raises:
        ValueError: naming the argument and its words.

    Example:
        >>> check_kinds({"pooling": ("average", "max")}, pooling="median")
        Traceback (most recent call last):
        ...
        ValueError: Expected pooling among ('average', 'max') but got 'median'.
    """
    for name, kind in kinds.items():
        if kind not in known[name]:
            raise ValueError(f"Expected {name} among {known[name]} but got {kind!r}.")

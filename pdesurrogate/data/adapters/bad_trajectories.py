"""Trajectories that a generator or a download spoiled: refused when they are read, or left out on request."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pdesurrogate.data.adapters.base import LeftOut

# Left-out trajectories that a warning names.
_NAMED = 3


def first_fault(frames: Tensor) -> tuple[int, str] | None:
    """Number of the first of the frames ``(time, ...)`` that is none, and what it holds.

    Example:
        >>> import torch
        >>> first_fault(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        (1, 'nothing but zeros')
    """
    # One pass tells both: the largest magnitude is NaN where a value is.
    largest = frames.flatten(1).abs().amax(1)
    empty = largest == 0
    bad = (~largest.isfinite() | empty).nonzero()
    if not len(bad):
        return None
    number = int(bad[0])
    return number, "nothing but zeros" if bool(empty[number]) else "NaN or infinity"


def require_sound(frames: Tensor, *, what: str, start: int) -> None:
    """Refuse frames ``(time, ...)`` that hold NaN, infinity, or zeros everywhere; ``start`` is the number of the first.

    Raises:
        ValueError: naming the first bad frame.
    """
    found = first_fault(frames)
    if found:
        raise ValueError(
            f"Expected finite values, not all of them 0, but frame {start + found[0]} of {what} holds {found[1]}, as "
            "it may where the solver failed. skip_bad_trajectories=True goes on without such trajectories; or download "
            "the file again."
        )


def warn_of_left_out(path: Path, left_out: Sequence[LeftOut], *, stacklevel: int) -> None:
    """Warn once of the trajectories that a reader went on without, if there are any."""
    if left_out:
        warnings.warn(f"Went on without trajectories of {path}: {listed(left_out)}.", stacklevel=stacklevel + 1)


def listed(left_out: Sequence[LeftOut]) -> str:
    """The first few of them, with the reasons.

    Example:
        >>> listed([LeftOut("run 3", "was not finished")] * 4)
        'run 3 was not finished; run 3 was not finished; run 3 was not finished; and 1 more, see left_out'
    """
    told = "; ".join(f"{name} {reason}" for name, reason in left_out[:_NAMED])
    return f"{told}; and {len(left_out) - _NAMED} more, see left_out" if len(left_out) > _NAMED else told

"""What explicit finite volumes on even cells share: parts of a batch that fit a cache, and stable time steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Linear stability of limited linear profiles, by two stages or Hancock's half step, waves along both axes counted.
LARGEST_CFL = 1.0
# Cells that one thread works on at a time: what they need of fields fits into its cache, and calls still cost little.
_CELLS_AT_ONCE = 2**16


def advance_in_parts(advance: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    """What ``advance`` makes of ``state (batch, channel, x, y)``; on the CPU of a few members of the batch at a time.

    Example:
        >>> advance_in_parts(lambda part: part + len(part), torch.zeros(3, 1, 256, 128)).amax((1, 2, 3)).tolist()
        [2.0, 2.0, 1.0]
    """
    if state.device.type != "cpu":
        return advance(state)
    members = max(1, _CELLS_AT_ONCE // (state.shape[-2] * state.shape[-1]))
    return torch.cat([advance(part) for part in state.split(members)])


def require_cfl_number(cfl_number: Tensor, time_step: float) -> None:
    """Refuse ``cfl_number (batch,)`` above `LARGEST_CFL`, or one that is no number; waits for the device.

    Raises:
        ValueError: naming the trajectory within the batch, what was found, and a time step that would do.
    """
    fastest = int(cfl_number.argmax())
    found = float(cfl_number[fastest])
    if found <= LARGEST_CFL:
        return
    if found < torch.inf:
        raise ValueError(
            f"Expected a CFL number of at most {LARGEST_CFL:g} but trajectory {fastest} of the batch has {found:.3g}; "
            f"use time steps of at most {LARGEST_CFL / found * time_step:.3g} in place of {time_step:.3g}."
        )
    raise ValueError(
        f"Expected finite fields but those of trajectory {fastest} of the batch are not; start from others, or take "
        f"smaller time steps than {time_step:.3g} on the way here."
    )

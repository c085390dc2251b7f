"""What steppers on another grid remember, so that a rollout is the one that their solver alone would give."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class OwnState:
    """The solver's state behind the latest frame that a stepper gave.

    A frame that is given back is not brought to the solver's grid again: interpolation errors would add up.
    """

    def __init__(self) -> None:
        self._latest: tuple[Tensor, Tensor] | None = None

    def behind(self, given: Tensor, brought: Callable[[], Tensor]) -> Tensor:
        """The state to go on from, ``(batch, channel, *solver)``, for each frame of ``given (batch, channel, *space)``.

        Args:
            given: latest frames; each that is the one given last goes on from the state behind it.
            brought: makes states of the others; not called if there is none.
        """
        if self._latest is None or self._latest[0].shape != given.shape:
            return brought()
        frame, state = (each.to(given.device) for each in self._latest)
        own = (frame == given).flatten(1).all(1)
        if bool(own.all()):
            return state
        return torch.where(own.reshape(-1, *(1,) * (state.ndim - 1)), state, brought())

    def keep(self, frame: Tensor, state: Tensor) -> None:
        """Remember that ``frame`` was made from ``state``."""
        self._latest = frame.clone(), state

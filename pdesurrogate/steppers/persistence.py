"""The forecast that nothing changes: what every model has to beat."""

from __future__ import annotations

from torch import Tensor

from pdesurrogate.fields.trajectory import Context


class Persistence:
    """Repeats the latest frame; a `Stepper`.

    Example:
        >>> import torch
        >>> history = torch.arange(3.0).reshape(1, 3, 1, 1)
        >>> Persistence().step(history, Context((torch.zeros(1, 1),))).item()
        2.0
    """

    history_frames = 1

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The last frame of ``history (batch, time, channel, *space)``, once; ``(batch, 1, channel, *space)``."""
        return history[:, -1:]

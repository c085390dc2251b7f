"""The spectral convolution of factorized Fourier neural operators: one along each axis, added up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from pdesurrogate.layers.spectral_conv import SpectralConv


class FactorizedSpectralConv(nn.Module):
    """Sum of `SpectralConv` along each axis on its own; ``(batch, width, *space) -> (batch, width, *space)``.

    ``y = sum over axes a of F_a^-1 (R_a(k) F_a x(k))`` (Tran et al., arXiv:2111.13802): the number of weights grows
    with the sum of the modes, not with their product. There is no bias.

    Args:
        width: channels.
        modes: waves ``0 ... modes - 1`` kept along each axis; a grid needs ``2 (modes - 1)`` points.

    Example:
        >>> import torch
        >>> FactorizedSpectralConv(3, modes=(4, 2))(torch.ones(2, 3, 16, 9)).shape
        torch.Size([2, 3, 16, 9])
    """

    def __init__(self, width: int, modes: Sequence[int]) -> None:
        super().__init__()
        if not 1 <= len(modes) <= 3 or min(modes) < 1:
            raise ValueError(f"Expected positive modes for one to three axes but got {tuple(modes)}.")
        self.modes = tuple(modes)
        self.axes = nn.ModuleList(SpectralConv(width, width, (max(2 * m - 2, 1),), bias=False) for m in self.modes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights with a variance that falls with the number of modes, so that deep networks start small."""
        for layer, modes in zip(self.axes, self.modes, strict=True):
            assert isinstance(layer, SpectralConv)
            nn.init.normal_(layer.weight, std=1 / math.sqrt(2 * layer.channels_in * modes))

    def forward(self, values: Tensor) -> Tensor:
        """Convolve ``values``.

        Raises:
            ValueError: if the axes do not fit or one has too few points for its modes.
        """
        space = tuple(values.shape[2:])
        if len(space) != len(self.modes) or any(n < 2 * m - 2 for n, m in zip(space, self.modes, strict=True)):
            raise ValueError(
                f"Expected a grid with at least {tuple(max(2 * m - 2, 1) for m in self.modes)} points for modes "
                f"{self.modes} but got {space}; use a finer grid or fewer modes."
            )
        result = _along(values, 2, self.axes[0])
        for axis, layer in enumerate(self.axes[1:], start=3):
            result = result + _along(values, axis, layer)
        return result


def _along(values: Tensor, axis: int, layer: nn.Module) -> Tensor:
    """A layer for one space axis, applied to every line along ``axis`` of ``values (batch, channel, *space)``."""
    lines = values.movedim((1, axis), (-2, -1))
    result: Tensor = layer(lines.flatten(0, -3))
    return result.unflatten(0, lines.shape[:-2]).movedim((-2, -1), (1, axis))

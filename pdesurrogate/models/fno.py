"""The Fourier neural operator, baseline of all comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pdesurrogate.layers.pointwise import Pointwise, PointwiseMLP
from pdesurrogate.layers.spectral_conv import SpectralConv
from pdesurrogate.models.specification import recorded


class FourierBlock(nn.Module):
    """One layer: ``v = act(K x + W x + b)``, then ``act(mlp(v) + gate * x)``; ``(batch, width, *space)``.

    ``K`` is the `SpectralConv`. The second half, a pointwise network with a gated skip, is not in the paper. The last
    block of a network has ``act`` the identity; the GELU inside ``mlp`` stays.
    """

    def __init__(self, width: int, modes: Sequence[int], mlp_ratio: float, activate: bool) -> None:
        super().__init__()
        self.spectral = SpectralConv(width, width, modes)
        self.skip = Pointwise(width, width, bias=False)
        self.mlp = PointwiseMLP(width, round(width * mlp_ratio), width)
        self.gate = nn.Parameter(torch.ones(width))
        self.activate = activate

    def forward(self, values: Tensor) -> Tensor:
        """Apply the layer to ``values (batch, width, *space)``."""
        mixed = self.spectral(values, skip=self.skip.weight)
        result: Tensor = self.mlp(mixed, gate=self.gate, gated=values, activate=self.activate)
        return result


@recorded
class FNO(nn.Module):
    """Fourier neural operator; frames ``(batch, time, channels, *space)`` in, the block that follows them out.

    A pointwise lifting to ``width`` channels, ``layers`` times `FourierBlock`, a pointwise projection (Li et al.,
    arXiv:2010.08895, equations 1 to 5). Frames of the history are stacked as channels, and the block of target frames
    is given at once. With ``positional="none"`` the network commutes with translations on a periodic box.

    Departures from the paper, all as in neuraloperator 2.0, whose ``FNO(positional_embedding=None)`` is the same
    function (`pdesurrogate.models.neuralop.from_neuralop` copies its weights): GELU for ReLU, pointwise networks with
    one hidden layer for lifting and projection, and a pointwise network with a gated skip in every block.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        modes: waves kept along each axis, ``m`` of them: ``-(m // 2) ... (m - 1) // 2``, on the last axis
            ``0 ... m // 2``. The grid needs at least as many points.
        width: channels inside.
        layers: number of blocks.
        lifting_ratio: hidden channels of the lifting, in units of ``width``.
        projection_ratio: hidden channels of the projection, in units of ``width``.
        mlp_ratio: hidden channels of the pointwise networks in the blocks, in units of ``width``.
        positional: ``"grid"`` appends the coordinates ``i / n`` of every axis as channels.

    Example:
        >>> network = FNO(channels=1, history_frames=2, target_frames=3, modes=(8, 8), width=8, layers=2)
        >>> network(torch.zeros(4, 2, 1, 16, 16)).shape
        torch.Size([4, 3, 1, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        modes: tuple[int, ...] = (24, 24),
        width: int = 32,
        layers: int = 4,
        lifting_ratio: float = 2.0,
        projection_ratio: float = 2.0,
        mlp_ratio: float = 0.5,
        positional: Literal["none", "grid"] = "none",
    ) -> None:
        super().__init__()
        if min(channels, history_frames, target_frames, width, layers) < 1:
            raise ValueError(
                "Expected channels, history_frames, target_frames, width and layers of at least 1 but got "
                f"{(channels, history_frames, target_frames, width, layers)}."
            )
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.modes = tuple(modes)
        self.positional = positional
        coordinates = len(self.modes) if positional == "grid" else 0
        self.lifting = PointwiseMLP(history_frames * channels + coordinates, int(lifting_ratio * width), width)
        self.blocks = nn.ModuleList(
            FourierBlock(width, self.modes, mlp_ratio, activate=layer < layers - 1) for layer in range(layers)
        )
        self.projection = PointwiseMLP(width, int(projection_ratio * width), target_frames * channels)

    def forward(self, history: Tensor) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Raises:
            ValueError: if frames, channels or axes do not fit, or the grid is too coarse for the modes.
        """
        self._check(history)
        values = history.flatten(1, 2)
        if self.positional == "grid":
            values = torch.cat([values, unit_coordinates(values)], dim=1)
        values = self.lifting(values)
        for block in self.blocks:
            values = block(values)
        predicted: Tensor = self.projection(values)
        return predicted.reshape(len(history), self.target_frames, self.channels, *history.shape[3:])

    def _check(self, history: Tensor) -> None:
        expected = (self.history_frames, self.channels)
        if history.ndim != 3 + len(self.modes) or tuple(history.shape[1:3]) != expected:
            raise ValueError(
                f"Expected (batch, {self.history_frames}, {self.channels}, *space) with {len(self.modes)} space axes "
                f"but got {tuple(history.shape)}."
            )


def unit_coordinates(values: Tensor) -> Tensor:
    """Coordinates ``i / n`` of every axis of ``values (batch, channel, *space)``; ``(batch, axes, *space)``."""
    space = values.shape[2:]
    lines = [torch.arange(size, dtype=values.dtype, device=values.device) / size for size in space]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    return grid.expand(values.shape[0], *grid.shape)

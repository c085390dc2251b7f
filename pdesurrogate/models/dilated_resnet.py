"""The dilated residual network of PDEArena: full resolution throughout, reach by dilation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.convolution import SpacedConvolution, padding_of_axes, with_margin, without_margin
from pdesurrogate.layers.frames import check_positive, fold_history, unfold_frames
from pdesurrogate.layers.padding import Padding, channels_last
from pdesurrogate.layers.pointwise import PointwiseMLP
from pdesurrogate.models.specification import recorded

# Points from one of the three of a convolution to the next, layer by layer of a block.
DILATIONS = (1, 2, 4, 8, 4, 2, 1)


class DilatedBlock(nn.Module):
    """``v + c(v)`` with ``c`` seven times normalization, dilated convolution, GELU; ``(batch, width, *space)``."""

    def __init__(self, width: int, padding: Sequence[Padding]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in DILATIONS)
        self.convolutions = nn.ModuleList(
            SpacedConvolution(width, width, padding, dilation=dilation) for dilation in DILATIONS
        )

    def forward(self, values: Tensor) -> Tensor:
        """Apply the block."""
        inner = values
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            inner = functional.gelu(convolution(norm(inner)))
        return values + inner


@recorded
class DilatedResNet(nn.Module):
    """Dilated residual network; frames ``(batch, time, channels, *space)`` in, the block that follows them out.

    PDEArena's ``DilResNet-128-norm`` (Gupta and Brandstetter, arXiv:2209.15616, after Stachenfeld et al.,
    arXiv:2112.15275): a lifting with one hidden layer at every point, four blocks of seven convolutions with dilations
    1, 2, 4, 8, 4, 2, 1, a projection with one hidden layer. Nothing is halved, so sizes need no divisor, and with
    ``padding="circular"`` the network commutes with all translations; but all channels live at full resolution.

    Departures: the ends of axes are treated one by one, and only those padded with zeros get a margin.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        width: channels inside.
        blocks: number of blocks.
        padding: of all axes, or one for each: ``"circular"`` for periodic ones, else ``"zeros"`` as published,
            ``"replicate"`` or ``"reflect"``.
        margin: points of zeros that are appended to axes padded with zeros before the blocks and cut off after them.
        dimension: number of space axes.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> network = DilatedResNet(channels=3, history_frames=4, width=8, padding="circular")
        >>> network(torch.zeros(2, 4, 3, 16, 15)).shape
        torch.Size([2, 1, 3, 16, 15])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        width: int = 128,
        blocks: int = 4,
        padding: Padding | Sequence[Padding] = "zeros",
        margin: int = 9,
        dimension: int = 2,
    ) -> None:
        super().__init__()
        check_positive(
            channels=channels, history_frames=history_frames, target_frames=target_frames, width=width, blocks=blocks
        )
        if margin < 0:
            raise ValueError(f"Expected a margin of at least 0 points but got {margin}.")
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.dimension = dimension
        self.padding = padding_of_axes(padding, dimension)
        self.margin = margin
        self.lifting = PointwiseMLP(history_frames * channels, width, width)
        self.blocks = nn.ModuleList(DilatedBlock(width, self.padding) for _ in range(blocks))
        self.projection = PointwiseMLP(width, width, target_frames * channels)

    def forward(self, history: Tensor) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Raises:
            ValueError: if frames, channels or axes do not fit, or an axis has fewer points than the convolutions reach.
        """
        values = fold_history(history, self.history_frames, self.channels, self.dimension)
        values = functional.gelu(self.lifting(values))
        values = channels_last(with_margin(values, self.padding, self.margin))
        for block in self.blocks:
            values = block(values)
        values = without_margin(values, history.shape[3:])
        return unfold_frames(self.projection(values), self.target_frames)

"""The plain U-Net, at any number of parameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.budget import multiplier_for
from pdesurrogate.layers.conv_blocks import ConvBlock, JointConvolution
from pdesurrogate.layers.convolution import TransposedConvolution, padding_of_axes
from pdesurrogate.layers.frames import check_halvings, check_positive, check_space, fold_history, unfold_frames
from pdesurrogate.layers.padding import Padding, channels_last
from pdesurrogate.models.specification import recorded

_POOLS = {2: functional.max_pool2d, 3: functional.max_pool3d}


@recorded
class UNet(nn.Module):
    """Plain U-Net; frames ``(batch, time, channels, *space)`` in, the block that follows them out.

    Going down, each level takes the maximum of every two points along each axis and convolves twice; going up, it
    doubles the points by a transposed convolution, puts the values of the same level beside them and convolves twice
    (Ronneberger, Fischer and Brox, arXiv:1505.04597). With the default ``multiplier`` it is PDEArena's ``Unetbase``,
    which departs from that paper: edges are padded, GELU for ReLU, a normalization over channels and space for that
    over batches, and a last convolution three points wide.

    Other multipliers make the same network as wide as a ``budget`` of parameters allows, for comparisons at equal
    size: level ``i`` has ``int(width * multiplier**i)`` channels. Few channels make tall steps in the number of
    parameters; a narrow network may have to meet a small budget with another ``width``.

    Departures: the ends of axes are treated one by one, and three dimensions.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        width: channels at the finest level.
        multiplier: of the channels from one level to the next; 2 if neither it nor a budget is given.
        budget: number of parameters that the multiplier is chosen for, within half a percent.
        levels: how often the points are halved; sizes must be divisible by ``2**levels``.
        padding: of all axes, or one for each: ``"circular"`` for periodic ones, else ``"zeros"`` as published,
            ``"replicate"`` or ``"reflect"``.
        dimension: space axes, 2 or 3.

    Raises:
        ValueError: for arguments out of range, or a budget that no multiplier meets.

    Example:
        >>> import torch
        >>> network = UNet(channels=3, history_frames=4, width=8, budget=500_000, padding="circular")
        >>> network.widths, network(torch.zeros(2, 4, 3, 32, 16)).shape
        ((8, 16, 32, 65, 130), torch.Size([2, 1, 3, 32, 16]))
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        width: int = 64,
        multiplier: float | None = None,
        budget: int | None = None,
        levels: int = 4,
        padding: Padding | Sequence[Padding] = "zeros",
        dimension: int = 2,
    ) -> None:
        super().__init__()
        check_positive(
            channels=channels, history_frames=history_frames, target_frames=target_frames, width=width, levels=levels
        )
        check_space(dimension)
        rules = padding_of_axes(padding, dimension)
        if multiplier is not None and budget is not None:
            raise ValueError(f"Expected a multiplier or a budget but got both, {multiplier} and {budget}.")

        def level_widths(candidate: float) -> tuple[int, ...]:
            return tuple(int(width * candidate**level) for level in range(levels + 1))

        if budget is not None:
            ends = history_frames * channels, target_frames * channels
            multiplier = multiplier_for(
                budget, lambda candidate: parameter_count(level_widths(candidate), *ends, dimension)
            )
        self.multiplier = 2.0 if multiplier is None else multiplier
        if self.multiplier < 1:
            raise ValueError(f"Expected a multiplier of at least 1 but got {self.multiplier}.")
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.dimension = dimension
        self.padding = rules
        self.widths = level_widths(self.multiplier)
        fine, coarse = self.widths[:-1], self.widths[1:]
        self.lifting = ConvBlock(history_frames * channels, width, rules)
        self.down = nn.ModuleList(ConvBlock(*pair, rules) for pair in zip(fine, coarse, strict=True))
        self.doubling = nn.ModuleList(
            TransposedConvolution(below, own, rules, kernel_size=2) for own, below in zip(fine, coarse, strict=True)
        )
        self.up = nn.ModuleList(ConvBlock(2 * own, own, rules) for own in fine)
        self.projection = JointConvolution(width, target_frames * channels, rules)

    def forward(self, history: Tensor) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Raises:
            ValueError: if frames, channels or axes do not fit, or a size is not divisible by ``2**levels``.
        """
        values = fold_history(history, self.history_frames, self.channels, self.dimension)
        check_halvings(values, len(self.down), self.padding)
        values = self.lifting(channels_last(values))
        passed = []
        for down in self.down:
            passed.append(values)
            values = down(_POOLS[self.dimension](values, 2))
        for double, up in zip(reversed(self.doubling), reversed(self.up), strict=True):
            values = up(passed.pop(), double(values))
        return unfold_frames(self.projection(values).contiguous(), self.target_frames)


def parameter_count(widths: Sequence[int], channels_in: int, channels_out: int, dimension: int) -> int:
    """Parameters of a `UNet` whose levels have ``widths`` channels, with all frames' channels in and out.

    Example:
        >>> parameter_count((64, 128, 256, 512, 1024), 12, 3, dimension=2)
        31050371
    """

    def convolution(inner: int, outer: int, points: int = 3) -> int:
        return points**dimension * inner * outer + outer

    def block(inner: int, outer: int) -> int:
        return convolution(inner, outer) + convolution(outer, outer) + 4 * outer

    count = block(channels_in, widths[0]) + convolution(widths[0], channels_out)
    for own, below in itertools.pairwise(widths):
        count += block(own, below) + convolution(below, own, points=2) + block(2 * own, own)
    return count

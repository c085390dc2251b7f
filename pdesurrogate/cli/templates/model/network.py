"""The network: frames in, the frames that follow them out."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.frames import check_positive, fold_history, unfold_frames
from pdesurrogate.models.specification import recorded


# `recorded` keeps the constructor's arguments, so that a checkpoint needs no pickled class; they must be plain values.
@recorded
class TemplateModel(nn.Module):
    """Residual convolutions at full resolution; frames ``(batch, time, channels, *space)`` in, those that follow out.

    What goes in and comes out is scaled to the order of one by the surrogate around the network. Replace the layers by
    your own and cite where they come from.

    Args:
        channels: of a frame, in and out; the command line links it to the data.
        history_frames: frames that go in; linked to the data as well.
        target_frames: frames that come out.
        width: channels inside.
        layers: convolutions between the first and the last.
        padding: of all axes: ``"circular"`` for periodic ones, else ``"zeros"`` or ``"replicate"``.
        dimension: number of space axes, 1 to 3.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> network = TemplateModel(channels=3, history_frames=2, width=8)
        >>> network(torch.zeros(5, 2, 3, 16, 12)).shape
        torch.Size([5, 1, 3, 16, 12])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        width: int = 32,
        layers: int = 4,
        padding: Literal["circular", "zeros", "replicate"] = "circular",
        dimension: int = 2,
    ) -> None:
        super().__init__()
        check_positive(
            channels=channels, history_frames=history_frames, target_frames=target_frames, width=width, layers=layers
        )
        if dimension not in (1, 2, 3):
            raise ValueError(f"Expected dimension 1, 2 or 3 but got {dimension}.")
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.dimension = dimension

        def convolution(inputs: int, outputs: int) -> nn.Module:
            kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimension - 1]
            return kind(inputs, outputs, kernel_size=3, padding=1, padding_mode=padding)

        self.lifting = convolution(history_frames * channels, width)
        self.layers = nn.ModuleList(convolution(width, width) for _ in range(layers))
        self.projection = convolution(width, target_frames * channels)

    def forward(self, history: Tensor) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Raises:
            ValueError: if frames, channels or axes do not fit.
        """
        values = self.lifting(fold_history(history, self.history_frames, self.channels, self.dimension))
        for layer in self.layers:
            values = values + functional.gelu(layer(values))
        return unfold_frames(self.projection(values), self.target_frames)

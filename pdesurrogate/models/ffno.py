"""The factorized Fourier neural operator: many layers, each with one spectral convolution for every axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.convolution import padding_of_axes, with_margin, without_margin
from pdesurrogate.layers.factorized_spectral_conv import FactorizedSpectralConv
from pdesurrogate.layers.frames import check_positive, fold_history, unfold_frames
from pdesurrogate.layers.normalized_pointwise import NormalizedPointwise
from pdesurrogate.models.fno import unit_coordinates
from pdesurrogate.models.specification import recorded

Periodicity = Literal["circular", "zeros"]


class FeedForward(nn.Module):
    """Two `NormalizedPointwise` layers with a ReLU between them; ``(batch, width, *space)``."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.first = NormalizedPointwise(width, expansion * width)
        self.second = NormalizedPointwise(expansion * width, width)

    def forward(self, values: Tensor) -> Tensor:
        """Mix the channels of ``values``."""
        mixed: Tensor = self.second(functional.relu(self.first(values)))
        return mixed


@recorded
class FactorizedFNO(nn.Module):
    """F-FNO; frames ``(batch, time, channels, *space)`` in, the block that follows them out.

    A lifting to ``width`` channels, ``layers`` times ``v + network(K v)`` with a `FactorizedSpectralConv` ``K``, and a
    projection in two linear steps (Tran, Mathews, Xie and Ong, *Factorized Fourier neural operators*,
    arXiv:2111.13802, and the released code alasdairtran/fourierflow). With ``sharing="all"`` one ``K`` serves all
    layers. Weights depend on no grid size, and the network is a function of the field alone that all grids with enough
    points sample, but for the waves that its ReLUs make beyond their reach.

    As in the released code, and unlike in the paper, there is no nonlinearity after a layer's second matrix, all
    matrices have their rows' lengths as parameters of their own, and the projection takes what the last layer would
    add, not the sum.

    Departures from that code: coordinates are ``i / n``, so that they mean the same on a periodic box at every
    resolution, and a margin of zeros stands only behind axes that are not periodic.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        modes: waves ``0 ... modes - 1`` kept along each axis; the grid needs ``2 (modes - 1)`` points.
        width: channels inside.
        layers: number of layers.
        sharing: whether each layer has a spectral convolution of its own (``"none"``) or all have one (``"all"``).
        expansion: hidden channels of a layer's network, in units of ``width``.
        projection_width: channels between the two steps of the projection.
        positional: ``"grid"`` appends the coordinates ``i / n`` of every axis as channels; with ``"none"`` the network
            commutes with translations on a periodic box.
        padding: for all axes or one by one; ``"circular"`` for periodic ones, ``"zeros"`` for a margin.
        margin: points of zeros that are appended to axes padded with zeros before the layers and cut off after them.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = FactorizedFNO(channels=3, history_frames=4, modes=(6, 6), width=8, layers=3)
        >>> network(torch.zeros(2, 4, 3, 16, 15)).shape
        torch.Size([2, 1, 3, 16, 15])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        modes: tuple[int, ...] = (32, 32),
        width: int = 96,
        layers: int = 24,
        sharing: Literal["none", "all"] = "none",
        expansion: int = 4,
        projection_width: int = 128,
        positional: Literal["none", "grid"] = "grid",
        padding: Periodicity | Sequence[Periodicity] = "circular",
        margin: int = 8,
    ) -> None:
        super().__init__()
        check_positive(
            channels=channels, history_frames=history_frames, target_frames=target_frames, width=width, layers=layers,
            expansion=expansion, projection_width=projection_width,
        )  # fmt: skip
        rules = padding_of_axes(padding, len(modes))
        if not set(rules) <= {"circular", "zeros"}:
            raise ValueError(f"Expected padding 'circular', or 'zeros' for a margin, but got {padding!r}.")
        if sharing not in ("none", "all") or positional not in ("none", "grid"):
            raise ValueError(
                f"Expected sharing 'none' or 'all' and positional 'none' or 'grid' but got {sharing!r} and "
                f"{positional!r}."
            )
        if margin < 0:
            raise ValueError(f"Expected a margin of at least 0 points but got {margin}.")
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.dimension = len(modes)
        self.positional = positional
        self.padding = rules
        self.margin = margin
        coordinates = self.dimension if positional == "grid" else 0
        self.lifting = NormalizedPointwise(history_frames * channels + coordinates, width)
        self.convolutions = nn.ModuleList(
            FactorizedSpectralConv(width, modes) for _ in range(1 if sharing == "all" else layers)
        )
        self.networks = nn.ModuleList(FeedForward(width, expansion) for _ in range(layers))
        self.projection = nn.Sequential(
            NormalizedPointwise(width, projection_width),
            NormalizedPointwise(projection_width, target_frames * channels),
        )

    def forward(self, history: Tensor) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Raises:
            ValueError: if frames, channels or axes do not fit, or the grid is too coarse for the modes.
        """
        values = fold_history(history, self.history_frames, self.channels, self.dimension)
        if self.positional == "grid":
            values = torch.cat([values, unit_coordinates(values)], dim=1)
        values = with_margin(self.lifting(values), self.padding, self.margin)
        for layer, network in enumerate(self.networks):
            added = network(self.convolutions[layer % len(self.convolutions)](values))
            values = values + added
        added = without_margin(added, history.shape[3:])
        return unfold_frames(self.projection(added), self.target_frames)

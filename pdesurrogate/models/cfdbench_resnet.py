"""The residual network of CFDBench: wide kernels at full resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.convolution import extend, padding_of_axes
from pdesurrogate.layers.frames import check_positive, fold_history, unfold_frames
from pdesurrogate.layers.padding import Padding
from pdesurrogate.layers.pointwise import Pointwise
from pdesurrogate.models.cfdbench import (
    CaseNetwork,
    Compat,
    Gives,
    case_channels,
    identity_ranges,
    module_translations,
    reference_entry,
    reference_values,
    require_alone,
)
from pdesurrogate.models.reference_weights import Translation, as_matrix, load_reference_weights, unchanged
from pdesurrogate.models.specification import recorded

Shortcut = Literal["mixed", "as_is"]

# Channels between the two convolutions of a block.
HIDDEN = 64


class _Block(nn.Module):
    """``W v + c(gelu(drop(c(v))))`` with wide convolutions ``c``; ``W`` mixes channels at the ends of the network."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        shortcut: Shortcut,
        kernel_size: int,
        padding: Sequence[Padding],
        dropout: float,
    ) -> None:
        super().__init__()
        self.padding = tuple(padding)
        self.reach = kernel_size // 2
        along_x, along_y = (self.reach if rule == "zeros" else 0 for rule in padding)
        zeros = along_x, along_y
        self.first = nn.Conv2d(channels_in, HIDDEN, kernel_size, padding=zeros)
        self.second = nn.Conv2d(HIDDEN, channels_out, kernel_size, padding=zeros)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = Pointwise(channels_in, channels_out) if shortcut == "mixed" else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """Apply the block."""
        hidden = functional.gelu(self.dropout(self.first(extend(values, self.padding, self.reach))))
        result: Tensor = self.shortcut(values) + self.second(extend(hidden, self.padding, self.reach))
        return result


class _BlockWithUnusedNorms(_Block):
    """With the normalizations that the authors build and never apply: their weights have entries for them."""

    def __init__(self, channels_in: int, channels_out: int, *rest: Any) -> None:
        super().__init__(channels_in, channels_out, *rest)
        self.first_norm = nn.BatchNorm2d(HIDDEN)
        self.second_norm = nn.BatchNorm2d(channels_out)


@recorded
class CFDBenchResNet(CaseNetwork):
    """CFDBench's ResNet; frames ``(batch, time, channels, x, y)`` in, the block that follows them out.

    The frames, where the fluid is, and the case's parameters enter side by side, and go through residual blocks of two
    convolutions, seven points wide along each axis, with dropout and a GELU between them. The latest frame is added to
    the result (Luo, Chen and Zhang, *CFDBench*, arXiv:2310.05963).

    Departures: what it gives outside the fluid, see `CaseNetwork`; the ends of axes are treated one by one; and the
    authors' normalizations, which they build and never apply, are there with ``compat="reference"`` alone, as weights
    without a gradient stop training on several devices.

    Args:
        channels: see `CaseNetwork`.
        history_frames: see `CaseNetwork`.
        target_frames: see `CaseNetwork`.
        parameter_ranges: see `CaseNetwork`.
        width: channels between blocks; inside a block there are 64.
        blocks: number of them between the first, which lifts to ``width``, and the last, which projects.
        kernel_size: points along each axis, odd.
        dropout: share of the values inside a block that is set to zero in training.
        padding: of both axes, or one for each.
        gives: see `CaseNetwork`.
        compat: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> network = CFDBenchResNet(channels=2, parameter_ranges=[(0.1, 10.0)], width=4, blocks=1)
        >>> network(torch.zeros(3, 1, 2, 9, 8), parameters=torch.ones(3, 1)).shape
        torch.Size([3, 1, 2, 9, 8])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        parameter_ranges: Sequence[tuple[float, float]] = (),
        width: int = 16,
        blocks: int = 4,
        kernel_size: int = 7,
        dropout: float = 0.2,
        padding: Padding | Sequence[Padding] = "replicate",
        gives: Gives = "state",
        compat: Compat = "none",
    ) -> None:
        check_positive(channels=channels, history_frames=history_frames, target_frames=target_frames, width=width)
        if blocks < 0 or kernel_size < 1 or kernel_size % 2 == 0 or not 0 <= dropout < 1:
            raise ValueError(
                "Expected at least 0 blocks, an odd kernel_size and a dropout in [0, 1) but got "
                f"{blocks}, {kernel_size} and {dropout}."
            )
        super().__init__(channels, history_frames, target_frames, parameter_ranges, gives, compat)
        rules = padding_of_axes(padding, 2)
        self.width = width
        # One channel says where the fluid is.
        ends = history_frames * channels + 1 + len(self.ranges), target_frames * channels
        between: list[tuple[int, int, Shortcut]] = [(width, width, "as_is")] * blocks
        sizes = [(ends[0], width, "mixed"), *between, (width, ends[1], "mixed")]
        kind = _BlockWithUnusedNorms if compat == "reference" else _Block
        self.blocks = nn.ModuleList(kind(*size, kernel_size, rules, dropout) for size in sizes)

    def forward(self, history: Tensor, parameters: Tensor | None = None, volumes: Tensor | None = None) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, x, y)``.

        Args:
            history: frames.
            parameters: of the case, ``(batch, count)`` in the units of their ranges.
            volumes: of the fluid in each cell, ``(batch, x, y)`` or ``(x, y)``, zero in solid, in any unit; fluid
                everywhere if not given.

        Raises:
            ValueError: if frames, channels, axes, parameters or volumes do not fit.
        """
        folded = fold_history(history, self.history_frames, self.channels, 2)
        fluid = self.fluid(history, volumes)
        values = case_channels(folded, fluid, numbers=self.scaled_parameters(history, parameters))
        for block in self.blocks:
            values = block(values)
        frames = unfold_frames(values, self.target_frames)
        if self.gives == "state":
            frames = frames + history[:, -1:]
        return self.finished(frames, history, fluid)

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> CFDBenchResNet:
        """The authors' network with their constructor's keywords and released weights; axes x in front of y.

        Args:
            config: keywords of the authors' ``ResNet`` but its loss.
            state_dict: under their names.

        Raises:
            ValueError: for keywords that are unknown or that we have no network for, and for weights that do not fit.
        """
        values = reference_values(config, _REFERENCE_DEFAULTS, "ResNet")
        channels, kernel_size = values["in_chan"], values["kernel_size"]
        require_alone(values, {"out_chan": (channels,), "padding": (kernel_size // 2,), "stride": (1,)}, "ResNet")
        parameters = values["n_case_params"]
        if parameters is None:
            parameters = reference_entry(state_dict, "blocks.0.conv1.weight", "ResNet").shape[1] - channels - 1
        model = cls(
            channels,
            parameter_ranges=identity_ranges(parameters),
            width=values["hidden_chan"],
            blocks=values["num_blocks"],
            kernel_size=kernel_size,
            compat="reference",
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        found = []
        for number, block in enumerate(self.blocks):
            for part, called in _REFERENCE_PARTS.items():
                if hasattr(block, part):
                    name = f"blocks.{number}.{part}"
                    found += module_translations(name, f"blocks.{number}.{called}", self.get_submodule(name))
            shortcut = block.get_submodule("shortcut")
            if isinstance(shortcut, Pointwise):
                assert shortcut.bias is not None
                ours, theirs = f"blocks.{number}.shortcut", f"blocks.{number}.res_conv"
                found += [
                    Translation(f"{ours}.weight", {f"{theirs}.weight": (*shortcut.weight.shape, 1, 1)}, as_matrix),
                    Translation(f"{ours}.bias", {f"{theirs}.bias": tuple(shortcut.bias.shape)}, unchanged),
                ]
        return found


_REFERENCE_DEFAULTS = {
    "in_chan": 2,
    "out_chan": 2,
    "n_case_params": None,
    "hidden_chan": 32,
    "num_blocks": 4,
    "kernel_size": 7,
    "padding": 3,
    "stride": 1,
}
_REFERENCE_PARTS = {"first": "conv1", "first_norm": "bn1", "second": "conv2", "second_norm": "bn2"}

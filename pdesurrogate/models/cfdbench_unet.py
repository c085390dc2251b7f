"""The U-Net of CFDBench: batch normalization, edges repeated, any size of grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.conv_blocks import JointConvolution
from pdesurrogate.layers.convolution import TransposedConvolution, padding_of_axes
from pdesurrogate.layers.frames import check_kinds, check_positive, fold_history, unfold_frames
from pdesurrogate.layers.padding import Padding, channels_last
from pdesurrogate.layers.pointwise import Pointwise
from pdesurrogate.models.cfdbench import (
    CaseNetwork,
    Compat,
    Gives,
    case_channels,
    identity_ranges,
    linear_translations,
    module_translations,
    reference_entry,
    reference_values,
    require_alone,
)
from pdesurrogate.models.reference_weights import Translation, as_matrix, load_reference_weights, unchanged
from pdesurrogate.models.specification import recorded

Entry = Literal["input", "bottleneck"]

# Times that the points are halved.
LEVELS = 4


class _DoubleConvolution(nn.Module):
    """Twice: three points wide convolution, normalization over the batch, ReLU; ``(batch, channels_out, x, y)``."""

    def __init__(self, channels_in: int, channels_out: int, padding: Sequence[Padding]) -> None:
        super().__init__()
        self.first = JointConvolution(channels_in, channels_out, padding)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = JointConvolution(channels_out, channels_out, padding)
        self.second_norm = nn.BatchNorm2d(channels_out)

    def forward(self, *parts: Tensor) -> Tensor:
        """Apply it to tensors whose channels are together the input's."""
        hidden = functional.relu(self.first_norm(self.first(*parts)))
        return functional.relu(self.second_norm(self.second(hidden)))


@recorded
class CFDBenchUNet(CaseNetwork):
    """CFDBench's U-Net; frames ``(batch, time, channels, x, y)`` in, the block that follows them out.

    The frames, where the fluid is, and the case's parameters enter side by side. Going down, each of four levels takes
    the maximum of every two points along each axis and convolves twice; going up, it doubles the points by a transposed
    convolution, adds zeros at the ends where a size was odd, puts the values of the same level in front and convolves
    twice. The latest frame is added to the result (Luo, Chen and Zhang, *CFDBench*, arXiv:2310.05963). Each convolution
    is followed by a normalization over the batch and a ReLU.

    Departures: what it gives outside the fluid, see `CaseNetwork`, and the ends of axes are treated one by one.

    Args:
        channels: see `CaseNetwork`.
        history_frames: see `CaseNetwork`.
        target_frames: see `CaseNetwork`.
        parameter_ranges: see `CaseNetwork`.
        width: channels at the finest level, doubled at each halving.
        entry: where parameters enter: as constant channels of the ``"input"``, or added at the ``"bottleneck"`` after a
            linear layer.
        padding: of both axes, or one for each.
        gives: see `CaseNetwork`.
        compat: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> network = CFDBenchUNet(channels=2, parameter_ranges=[(0.1, 10.0)], width=4)
        >>> network(torch.zeros(3, 1, 2, 17, 34), parameters=torch.ones(3, 1)).shape
        torch.Size([3, 1, 2, 17, 34])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        parameter_ranges: Sequence[tuple[float, float]] = (),
        width: int = 12,
        entry: Entry = "input",
        padding: Padding | Sequence[Padding] = "replicate",
        gives: Gives = "state",
        compat: Compat = "none",
    ) -> None:
        check_positive(channels=channels, history_frames=history_frames, target_frames=target_frames, width=width)
        check_kinds({"entry": ("input", "bottleneck")}, entry=entry)
        super().__init__(channels, history_frames, target_frames, parameter_ranges, gives, compat)
        rules = padding_of_axes(padding, 2)
        self.entry = entry
        self.widths = tuple(width * 2**level for level in range(LEVELS + 1))
        count = len(self.ranges)
        # One channel says where the fluid is.
        entering = history_frames * channels + 1 + (count if entry == "input" else 0)
        self.lifting = _DoubleConvolution(entering, width, rules)
        self.down = nn.ModuleList(_DoubleConvolution(fine, coarse, rules) for fine, coarse in pairwise(self.widths))
        self.condition = nn.Linear(count, self.widths[-1]) if count and entry == "bottleneck" else None
        self.doubling = nn.ModuleList(
            TransposedConvolution(coarse, fine, rules, kernel_size=2) for fine, coarse in pairwise(self.widths)
        )
        self.up = nn.ModuleList(_DoubleConvolution(coarse, fine, rules) for fine, coarse in pairwise(self.widths))
        self.projection = Pointwise(width, target_frames * channels)

    def forward(self, history: Tensor, parameters: Tensor | None = None, volumes: Tensor | None = None) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, x, y)``.

        Args:
            history: frames.
            parameters: of the case, ``(batch, count)`` in the units of their ranges.
            volumes: of the fluid in each cell, ``(batch, x, y)`` or ``(x, y)``, zero in solid, in any unit; fluid
                everywhere if not given.

        Raises:
            ValueError: if frames, channels, axes, parameters or volumes do not fit, or a size is below 16.
        """
        folded = fold_history(history, self.history_frames, self.channels, 2)
        if min(folded.shape[2:]) < 2**LEVELS:
            raise ValueError(
                f"Expected at least {2**LEVELS} points along each axis, which are halved {LEVELS} times, but got a "
                f"grid of {tuple(folded.shape[2:])}; use a finer grid."
            )
        fluid = self.fluid(history, volumes)
        numbers = self.scaled_parameters(history, parameters)
        entering = case_channels(folded, fluid, numbers=numbers if self.entry == "input" else None)
        values = self.lifting(channels_last(entering))
        passed = []
        for down in self.down:
            passed.append(values)
            values = down(functional.max_pool2d(values, 2))
        if self.condition is not None:
            values = values + self.condition(numbers)[:, :, None, None]
        for double, up in zip(reversed(self.doubling), reversed(self.up), strict=True):
            skip = passed.pop()
            values = up(skip, _centered(double(values), skip.shape[2:]))
        frames = unfold_frames(self.projection(values.contiguous()), self.target_frames)
        if self.gives == "state":
            frames = frames + history[:, -1:]
        return self.finished(frames, history, fluid)

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> CFDBenchUNet:
        """The authors' network with their constructor's keywords and released weights; axes x in front of y.

        Args:
            config: keywords of the authors' ``UNet`` but its loss; ``insert`` is short for ``insert_case_params_at``.
            state_dict: under their names.

        Raises:
            ValueError: for keywords that are unknown or that we have no network for, and for weights that do not fit.
        """
        given = dict(config)
        if "insert" in given:
            given["insert_case_params_at"] = given.pop("insert")
        values = reference_values(given, _REFERENCE_DEFAULTS, "UNet")
        channels = values["in_chan"]
        require_alone(
            values,
            {"out_chan": (channels,), "bilinear": (False,), "insert_case_params_at": ("hidden", "input")},
            "UNet",
        )
        entry: Entry = "input" if values["insert_case_params_at"] == "input" else "bottleneck"
        parameters = values["n_case_params"]
        if parameters is None and entry == "input":
            parameters = reference_entry(state_dict, "in_conv.conv1.0.weight", "UNet").shape[1] - channels - 1
        elif parameters is None:
            parameters = reference_entry(state_dict, "case_params_fc.weight", "UNet").shape[1]
        model = cls(
            channels,
            parameter_ranges=identity_ranges(parameters),
            width=values["dim"],
            entry=entry,
            compat="reference",
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        doubles = {"lifting": "in_conv"}
        for level in range(LEVELS):
            doubles |= {
                f"down.{level}": f"down{level + 1}.maxpool_conv.1",
                f"up.{level}": f"up{LEVELS - level}.conv",
            }
        modules = {
            f"{ours}.{part}": f"{theirs}.{called}"
            for ours, theirs in doubles.items()
            for part, called in _REFERENCE_PARTS.items()
        }
        modules |= {f"doubling.{level}": f"up{LEVELS - level}.up" for level in range(LEVELS)}
        found = []
        for ours, theirs in modules.items():
            found += module_translations(ours, theirs, self.get_submodule(ours))
        if self.condition is not None:
            found += linear_translations("condition", "case_params_fc", self.condition)
        weight, bias = self.projection.weight, self.projection.bias
        assert bias is not None
        return [
            *found,
            Translation("projection.weight", {"out_conv.conv.weight": (*weight.shape, 1, 1)}, as_matrix),
            Translation("projection.bias", {"out_conv.conv.bias": tuple(bias.shape)}, unchanged),
        ]


_REFERENCE_DEFAULTS = {
    "in_chan": 2,
    "out_chan": 2,
    "n_case_params": None,
    "insert_case_params_at": "hidden",
    "bilinear": False,
    "dim": 8,
}
_REFERENCE_PARTS = {"first": "conv1.0", "first_norm": "conv1.1", "second": "conv2.0", "second_norm": "conv2.1"}


def _centered(values: Tensor, space: Sequence[int]) -> Tensor:
    """``values (batch, channel, *fewer)`` with zeros at both ends of each axis, one more behind if they are odd."""
    more = [size - own for size, own in zip(space, values.shape[2:], strict=True)]
    return functional.pad(values, [n for each in reversed(more) for n in (each // 2, each - each // 2)])

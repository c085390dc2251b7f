"""A plain SineNet: the rival for speed, and an oracle for tests.

Every step is what a reader of the paper would write with torch's own functions: `nn.Conv2d` with its ``padding_mode``,
`nn.GroupNorm`, ``interpolate``, ``cat``. It was written without a thought for speed, for or against, and shares no code
with `pdesurrogate`. Parameters have the names that the authors gave them, so their weights load with
``load_state_dict``, and so have the keywords of the constructor.

X. Zhang, J. Helwig, Y. Lin, Y. Xie, C. Fu, S. Wojtowytsch, S. Ji, "SineNet: Learning Temporal Dynamics in
Time-Dependent Partial Differential Equations", ICLR 2024 (arXiv:2403.19507), as released.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
LEVELS = 4
LONGEST_PERIOD = 10000


class Block(nn.Module):
    """Twice a convolution, a norm over all of a sample and an activation; in between a condition acts."""

    def __init__(self, channels_in: int, channels_out: int, options: dict[str, Any]) -> None:
        super().__init__()
        padding = {"kernel_size": 3, "padding": 1, "padding_mode": options["padding_mode"]}
        self.conv1 = nn.Conv2d(channels_in, channels_out, **padding)
        self.conv2 = nn.Conv2d(channels_out, channels_out, **padding)
        self.norm1, self.norm2 = (nn.GroupNorm(1, channels_out) if options["norm"] else nn.Identity() for _ in range(2))
        self.activation = ACTIVATIONS[options["activation"]]()
        self.scales = options["use_scale_shift_norm"]
        if options["condition"]:
            self.cond_emb = nn.Linear(options["condition"], channels_out * (2 if self.scales else 1))

    def forward(self, values: Tensor, condition: Tensor | None) -> Tensor:
        """``(batch, channels_in, x, y)`` to ``(batch, channels_out, x, y)``."""
        hidden = self.activation(self.norm1(self.conv1(values)))
        if condition is not None:
            given = self.cond_emb(condition)[:, :, None, None]
            if self.scales:
                scale, shift = given.chunk(2, dim=1)
                hidden = hidden * (1 + scale) + shift
            else:
                hidden = hidden + given
        return self.activation(self.norm2(self.conv2(hidden)))


class Level(nn.Module):
    """Blocks, each with a way around it: a 1 x 1 convolution of ``around`` for the first, then the identity."""

    def __init__(self, channels_in: int, channels_around: int, channels_out: int, options: dict[str, Any]) -> None:
        super().__init__()
        first = [channels_in] + [channels_out] * (options["num_blocks"] - 1)
        self.conv = nn.ModuleList(Block(channels, channels_out, options) for channels in first)
        self.residual = options["residual"]
        if self.residual:
            self.shortcut = nn.Conv2d(channels_around, channels_out, kernel_size=1)

    def forward(self, values: Tensor, around: Tensor, condition: Tensor | None) -> Tensor:
        """``values`` through the blocks."""
        for number, block in enumerate(self.conv):
            after = block(values, condition)
            if self.residual:
                after = after + (self.shortcut(around) if number == 0 else values)
            values = after
        return values


class PlainSineNet(nn.Module):
    """Frames ``(batch, time, channel, x, y)`` to the frames that follow; the conditional one takes ``time`` and ``z``.

    Keywords and their meaning are the authors'. ``param_conditioning`` or ``use_scale_shift_norm``, also where they are
    ``None`` and ``False``, make it the conditional one.
    """

    def __init__(
        self,
        n_input_scalar_components: int,
        n_input_vector_components: int,
        n_output_scalar_components: int,
        n_output_vector_components: int,
        time_history: int,
        time_future: int,
        hidden_channels: int,
        padding_mode: str = "zeros",
        activation: str = "gelu",
        num_waves: int = 2,
        num_blocks: int = 1,
        norm: bool = True,
        mult: float = 2,
        residual: bool = True,
        wave_residual: bool = True,
        disentangle: bool = True,
        avg_pool: bool = True,
        interpolation_mode: str = "bicubic",
        **conditional: Any,
    ) -> None:
        super().__init__()
        channels_in = n_input_scalar_components + 2 * n_input_vector_components
        self.channels_out = n_output_scalar_components + 2 * n_output_vector_components
        widths = [int(hidden_channels * mult**level) for level in range(LEVELS + 1)]
        options = {
            "padding_mode": padding_mode,
            "norm": norm,
            "activation": activation,
            "num_blocks": num_blocks,
            "residual": residual,
            "condition": 4 * hidden_channels if conditional else 0,
            "use_scale_shift_norm": conditional.get("use_scale_shift_norm", False),
        }
        raw = hidden_channels if disentangle else 0
        padding = {"kernel_size": 3, "padding": 1, "padding_mode": padding_mode}
        self.image_proj = nn.Conv2d(time_history * channels_in, hidden_channels, **padding)
        self.down = nn.ModuleList(
            nn.ModuleList(
                Level(widths[i] + (raw if i else 0), widths[i], widths[i + 1], options) for i in range(LEVELS)
            )
            for _ in range(num_waves)
        )
        self.up = nn.ModuleList(
            nn.ModuleList(
                Level(widths[i] + widths[i + 1], widths[i + 1], widths[i], options) for i in reversed(range(LEVELS))
            )
            for _ in range(num_waves)
        )
        self.final = nn.Conv2d(hidden_channels, time_future * self.channels_out, **padding)
        if conditional:
            self.time_embed = self._perceptron(hidden_channels, activation)
            if conditional.get("param_conditioning") is not None:
                self.pde_emb = self._perceptron(hidden_channels, activation)
        self.hidden_channels = hidden_channels
        self.pool = nn.AvgPool2d(2) if avg_pool else nn.MaxPool2d(2)
        self.wave_residual = wave_residual
        self.disentangle = disentangle
        self.circular = padding_mode == "circular"
        self.interpolation_mode = interpolation_mode

    @staticmethod
    def _perceptron(width: int, activation: str) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, 4 * width), ACTIVATIONS[activation](), nn.Linear(4 * width, 4 * width))

    def forward(self, history: Tensor, time: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """The frames that follow ``history``."""
        condition = None
        if time is not None:
            condition = self.time_embed(self._waves(time))
            if z is not None:
                condition = condition + self.pde_emb(self._waves(z))
        values = self.image_proj(history.flatten(1, 2))
        for down, up in zip(self.down, self.up, strict=True):
            values = self._wave(values, down, up, condition)
        result = self.final(values)
        return result.unflatten(1, (-1, self.channels_out))

    def _wave(self, values: Tensor, down: nn.Module, up: nn.Module, condition: Tensor | None) -> Tensor:
        raw = feature = values
        skips = []
        for number, level in enumerate(down):
            skips.append(feature)
            raw, pooled = self.pool(raw), self.pool(feature)
            both = torch.cat([pooled, raw], dim=1) if number and self.disentangle else pooled
            feature = level(both, pooled, condition)
        for level in up:
            upsampled = self._upsample(feature)
            feature = level(torch.cat([skips.pop(), upsampled], dim=1), upsampled, condition)
        return values + feature if self.wave_residual else feature

    def _upsample(self, values: Tensor) -> Tensor:
        if not self.circular:
            return functional.interpolate(values, scale_factor=2, mode=self.interpolation_mode)
        padded = functional.pad(values, (2, 2, 2, 2), mode="circular")
        return functional.interpolate(padded, scale_factor=2, mode=self.interpolation_mode)[..., 4:-4, 4:-4]

    def _waves(self, numbers: Tensor) -> Tensor:
        half = self.hidden_channels // 2
        frequencies = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=numbers.device) / half)
        angles = numbers[:, None].float() * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        waves = functional.pad(waves, (0, self.hidden_channels % 2))
        return waves.to(self.final.weight.dtype)

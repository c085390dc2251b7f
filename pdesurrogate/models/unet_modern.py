"""PDEArena's modern U-Net: the large residual one that many comparisons of surrogates name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.conv_blocks import Conditioning, JointConvolution
from pdesurrogate.layers.convolution import SpacedConvolution, TransposedConvolution, padding_of_axes
from pdesurrogate.layers.frames import check_halvings, check_positive, check_space, fold_history, unfold_frames
from pdesurrogate.layers.padding import Padding, channels_last
from pdesurrogate.layers.pointwise import Pointwise
from pdesurrogate.models.sinenet import ConditionEmbedding
from pdesurrogate.models.specification import ContextInput, recorded

# Of the last normalization; the others take all channels together.
GROUPS = 8


class ResidualBlock(nn.Module):
    """``W v + c(act(n(c(act(n(v))))))`` with convolutions ``c``; ``(batch, channels_in or channels_out, *space)``.

    ``W`` mixes the channels of every point where their number changes and is the identity elsewhere. A condition
    ``(batch, features)`` is added before the second normalization (``"add"``) or scales and shifts after it
    (``"adagn"``); then the second convolution begins as zero, as PDEArena draws it.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        padding: Sequence[Padding],
        conditioning: Conditioning,
        features: int,
    ) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(1, channels_in)
        self.first = JointConvolution(channels_in, channels_out, padding)
        self.second_norm = nn.GroupNorm(1, channels_out)
        self.second = JointConvolution(channels_out, channels_out, padding)
        self.shortcut = Pointwise(channels_in, channels_out) if channels_in != channels_out else nn.Identity()
        acts = {"none": 0, "add": 1, "adagn": 2}[conditioning]
        self.condition = nn.Linear(features, acts * channels_out) if acts else None
        if self.condition is not None:
            _set_zero(self.second)

    def forward(self, values: Tensor, condition: Tensor | None) -> Tensor:
        """Apply the block."""
        hidden = self.first(functional.gelu(self.first_norm(values)))
        hidden = self.second(functional.gelu(self._conditioned(hidden, condition)))
        result: Tensor = self.shortcut(values) + hidden
        return result

    def _conditioned(self, hidden: Tensor, condition: Tensor | None) -> Tensor:
        if self.condition is None:
            return self.second_norm(hidden)
        acts: Tensor = self.condition(condition)
        acts = acts.reshape(*acts.shape, *(1,) * (hidden.ndim - 2))
        if acts.shape[1] == hidden.shape[1]:
            return self.second_norm(hidden + acts)
        scale, shift = acts.chunk(2, dim=1)
        return self.second_norm(hidden) * (1 + scale) + shift


class Stage(nn.Module):
    """The blocks of one level, and what leads to the next."""

    def __init__(self, blocks: Sequence[ResidualBlock], onward: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.onward = onward


@recorded
class ModernUNet(nn.Module):
    """U-Net of residual blocks; frames ``(batch, time, channels, *space)`` in, the block that follows them out.

    PDEArena's ``Unetmod-64`` (Gupta and Brandstetter, *Towards multi-spatiotemporal-scale generalized PDE modeling*,
    arXiv:2209.15616, code in pdearena/pdearena): normalization and GELU come before each convolution, strided
    convolutions halve the points, transposed ones double them, and all that was computed on the way down, the lifting
    and the halved values included, is put beside the values on the way up. The defaults have 144 million parameters;
    ``width`` makes it smaller. As everywhere here the network knows no residual from the last frame.

    With a ``conditioning`` it is the conditional one: a lead time and scalar parameters act on every block.

    Departures: the ends of axes are treated one by one, three dimensions, and parameters are brought to a range in
    which their embedding tells them apart; a range ``(0, 100)`` leaves them as PDEArena has them.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        width: channels at the finest level, a multiple of 8.
        multipliers: of the channels from each level to the next, the first from ``width`` to the finest.
        blocks: of a level on the way down; on the way up there is one more.
        padding: of all axes, or one for each: ``"circular"`` for periodic ones, else ``"zeros"`` as published,
            ``"replicate"`` or ``"reflect"``.
        conditioning: what lead time and parameters do: nothing (``"none"``), are added (``"add"``), or scale and shift
            normalized values (``"adagn"``).
        parameter_ranges: lowest and highest value of each scalar parameter that goes in, with a conditioning.
        dimension: space axes, 2 or 3.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = ModernUNet(channels=3, history_frames=4, width=8, padding="circular")
        >>> network(torch.zeros(2, 4, 3, 32, 16)).shape
        torch.Size([2, 1, 3, 32, 16])
        >>> network = ModernUNet(channels=3, width=8, conditioning="adagn", parameter_ranges=[(0.2, 0.5)])
        >>> network(torch.zeros(2, 1, 3, 16, 16), torch.tensor([1.0, 4.0]), torch.tensor([[0.2], [0.5]])).shape
        torch.Size([2, 1, 3, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2, 4),
        blocks: int = 2,
        padding: Padding | Sequence[Padding] = "zeros",
        conditioning: Conditioning = "none",
        parameter_ranges: Sequence[tuple[float, float]] = (),
        dimension: int = 2,
    ) -> None:
        super().__init__()
        check_positive(
            channels=channels, history_frames=history_frames, target_frames=target_frames, width=width, blocks=blocks
        )
        check_space(dimension)
        rules = padding_of_axes(padding, dimension)
        if width % GROUPS:
            raise ValueError(f"Expected a width that is a multiple of {GROUPS} but got {width}.")
        if not multipliers or min(multipliers) < 1:
            raise ValueError(f"Expected multipliers of at least 1, one for each level, but got {tuple(multipliers)}.")
        if conditioning not in ("none", "add", "adagn"):
            raise ValueError(f"Expected conditioning 'none', 'add' or 'adagn' but got {conditioning!r}.")
        if conditioning == "none" and parameter_ranges:
            raise ValueError("Expected parameter_ranges with conditioning 'add' or 'adagn' only.")
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.dimension = dimension
        self.padding = rules
        self.parameters_expected = len(parameter_ranges)
        self.condition = None if conditioning == "none" else ConditionEmbedding(width, "gelu", parameter_ranges)

        def block(channels_in: int, channels_out: int) -> ResidualBlock:
            return ResidualBlock(channels_in, channels_out, rules, conditioning, 4 * width)

        self.lifting = JointConvolution(history_frames * channels, width, rules)
        finer, down, up = width, [], []
        for level, multiplier in enumerate(multipliers):
            own = finer * multiplier
            last = level == len(multipliers) - 1
            entering = [block(finer if number == 0 else own, own) for number in range(blocks)]
            down.append(Stage(entering, None if last else SpacedConvolution(own, own, rules, stride=2)))
            leaving = [block(2 * own, own) for _ in range(blocks)] + [block(own + finer, finer)]
            up.append(Stage(leaving, None if level == 0 else TransposedConvolution(finer, finer, rules)))
            finer = own
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList([block(finer, finer), block(finer, finer)])
        self.up = nn.ModuleList(reversed(up))
        self.norm = nn.GroupNorm(GROUPS, width)
        self.projection = JointConvolution(width, target_frames * channels, rules)
        if self.condition is not None:
            _set_zero(self.projection)

    @property
    def context_inputs(self) -> tuple[ContextInput, ...]:
        """What `pdesurrogate.steppers.surrogate.Surrogate` gives it beside the frames."""
        return ("parameters",) if self.parameters_expected else ()

    def forward(self, history: Tensor, lead_time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Args:
            history: frames.
            lead_time: how many frame intervals ahead, ``(batch,)``; with a conditioning only, one if not given.
            parameters: ``(batch, parameters)`` in the units of their ranges.

        Raises:
            ValueError: if frames, channels, axes, lead times or parameters do not fit, or a size cannot be halved often
                enough.
        """
        values = fold_history(history, self.history_frames, self.channels, self.dimension)
        check_halvings(values, len(self.down) - 1, self.padding)
        condition = self._condition(values, lead_time, parameters)
        values = self.lifting(channels_last(values))
        passed = [values]
        for stage in self.down:
            assert isinstance(stage, Stage)
            for block in stage.blocks:
                values = block(values, condition)
                passed.append(values)
            if stage.onward is not None:
                values = stage.onward(values)
                passed.append(values)
        for block in self.middle:
            values = block(values, condition)
        for stage in self.up:
            assert isinstance(stage, Stage)
            for block in stage.blocks:
                values = block(torch.cat([values, passed.pop()], dim=1), condition)
            if stage.onward is not None:
                values = stage.onward(values)
        predicted = self.projection(functional.gelu(self.norm(values))).contiguous()
        return unfold_frames(predicted, self.target_frames)

    def _condition(self, values: Tensor, lead_time: Tensor | None, parameters: Tensor | None) -> Tensor | None:
        if self.condition is None:
            if lead_time is not None or parameters is not None:
                raise ValueError(
                    "Expected neither lead_time nor parameters: this network has conditioning='none'; build it with "
                    "'add' or 'adagn'."
                )
            return None
        batch = len(values)
        times = values.new_ones(batch) if lead_time is None else lead_time
        numbers = values.new_empty(batch, 0) if parameters is None else parameters
        if (tuple(times.shape), tuple(numbers.shape)) != ((batch,), (batch, self.parameters_expected)):
            raise ValueError(
                f"Expected lead_time ({batch},) and parameters ({batch}, {self.parameters_expected}) but got "
                f"{tuple(times.shape)} and {tuple(numbers.shape)}."
            )
        condition: Tensor = self.condition(times, numbers)
        return condition


def _set_zero(layer: JointConvolution) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

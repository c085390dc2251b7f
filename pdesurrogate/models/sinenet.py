"""SineNet: several U-shaped networks in a row, so that none of them has to bridge a long step in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pdesurrogate.layers.budget import multiplier_for
from pdesurrogate.layers.conditioning import sinusoids
from pdesurrogate.layers.conv_blocks import (
    BlockActivation,
    Conditioning,
    ConvBlock,
    JointConvolution,
    Normalization,
    activation_function,
)
from pdesurrogate.layers.convolution import padding_of_axes
from pdesurrogate.layers.frames import check_kinds, check_positive, fold_history, unfold_frames
from pdesurrogate.layers.padding import Padding, channels_last
from pdesurrogate.layers.pointwise import Pointwise
from pdesurrogate.layers.upsampling import Upsampling, doubling_matrix, upsample
from pdesurrogate.models.reference_weights import Translation, as_matrix, load_reference_weights, unchanged
from pdesurrogate.models.specification import ContextInput, recorded

Skips = Literal["dual", "tangled"]
Residual = Literal["block", "wave"]
Pooling = Literal["average", "max"]
Checkpointing = Literal["none", "waves"]
Cells = Literal["uniform", "volumes"]

# Times that a wave halves its resolution.
LEVELS = 4

# Of SineNet-8, in which the number of channels grows by this factor from level to level.
MULTIPLIER = 1.425

# A budget is met when the number of parameters is that close to it.
BUDGET_TOLERANCE = 0.005

# Length of the range that a parameter is brought to before it meets sines and cosines; the fastest of them turns by one
# radian a unit.
PARAMETER_SPAN = 100.0


@recorded
class SineNet(nn.Module):
    """Frames ``(batch, time, channels, *space)`` in, the block that follows them out.

    A convolution lifts the stacked frames to ``width`` channels, then ``waves`` U-shaped networks, each with weights of
    its own, add to them one after the other, and a convolution gives the result (Zhang et al., *SineNet: Learning
    Temporal Dynamics in Time-Dependent Partial Differential Equations*, ICLR 2024, arXiv:2403.19507). In a U-Net that
    steps a field forward, skips hand features of the early time to a decoder whose features have moved on; with ``K``
    waves each has to bridge a part of the step only. The skips are dual: every level also sees the wave's input at its
    own resolution, so that the features need not carry it.

    The network gives the state or an increment, as `pdesurrogate.steppers.surrogate.Surrogate` has it; the authors' is
    trained for the state. Normalization is by the mean and deviation of a whole sample: outputs depend on the size of
    the domain, and a network is not the same operator on another grid. On periodic grids it commutes with translations
    by multiples of 16 points.

    Departures from the released code, all of which leave its function as it is (`from_reference`): upsampling is in the
    polyphase form, deterministic on every device; axes are padded one by one; three dimensions; parameters are
    brought to a range in which their embedding tells them apart.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        waves: how many.
        width: channels at full resolution.
        multiplier: channels at ``i`` halvings are ``int(width * multiplier**i)``; 1.425 if neither this nor a budget is
            given.
        budget: number of parameters to choose the multiplier for, met within half a percent.
        padding: of all axes, or a sequence with one for each: ``"circular"`` for periodic ones, else ``"zeros"``,
            ``"replicate"`` or ``"reflect"``.
        dimension: space axes, 2 or 3.
        skips: ``"dual"``, or ``"tangled"`` without the wave's input at every level.
        blocks: convolution blocks at every level.
        upsampling: ``"bicubic"``, ``"bilinear"`` or ``"nearest"``.
        pooling: ``"average"`` or ``"max"``.
        normalization: ``"sample"`` or ``"none"``.
        activation: after each convolution in a wave.
        residuals: ways around: of each ``"block"`` and of each ``"wave"``.
        conditioning: what lead time and parameters do in every block, see `ConvBlock`.
        parameter_ranges: lowest and highest value of each scalar parameter that goes in, with a conditioning.
        cells: ``"uniform"``, or ``"volumes"`` for stretched and masked grids: `forward` takes what each cell holds of
            the fluid, pooling weights by it, where the fluid is enters as a channel, and solid cells come out zero.
        target_channels: of a predicted frame, if they are not those of a given one.
        round_to: channels of all levels but the first are rounded to a multiple of this; multiples of 8 suit the
            matrix units of GPUs.
        checkpointing: ``"waves"`` keeps only what lies between the waves for the backward pass and computes them again.

    Raises:
        ValueError: for arguments out of range, and for a budget that no multiplier meets.

    Example:
        >>> network = SineNet(channels=3, history_frames=4, waves=2, width=8, padding="circular")
        >>> network(torch.zeros(2, 4, 3, 32, 48)).shape
        torch.Size([2, 1, 3, 32, 48])
        >>> sum(each.numel() for each in network.parameters())
        137655
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        waves: int = 8,
        width: int = 64,
        multiplier: float | None = None,
        budget: int | None = None,
        padding: Padding | Sequence[Padding] = "zeros",
        dimension: int = 2,
        skips: Skips = "dual",
        blocks: int = 1,
        upsampling: Upsampling = "bicubic",
        pooling: Pooling = "average",
        normalization: Normalization = "sample",
        activation: BlockActivation = "gelu",
        residuals: Sequence[Residual] = ("block", "wave"),
        conditioning: Conditioning = "none",
        parameter_ranges: Sequence[tuple[float, float]] = (),
        cells: Cells = "uniform",
        target_channels: int | None = None,
        round_to: int = 1,
        checkpointing: Checkpointing = "none",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.target_channels = channels if target_channels is None else target_channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.padding: tuple[Padding, ...] = padding_of_axes(padding, dimension)
        self.sizes = SineNetSizes(
            channels_in=history_frames * channels + (1 if cells == "volumes" else 0),
            channels_out=target_frames * self.target_channels,
            waves=waves,
            width=width,
            dimension=dimension,
            skips=skips,
            blocks=blocks,
            normalization=normalization,
            residuals=tuple(residuals),
            conditioning=conditioning,
            parameters=len(parameter_ranges),
            round_to=round_to,
        )
        check_kinds(
            _KINDS,
            upsampling=upsampling,
            pooling=pooling,
            activation=activation,
            cells=cells,
            checkpointing=checkpointing,
        )
        if cells == "volumes" and pooling == "max":
            raise ValueError("Expected pooling 'average' with cells='volumes': a maximum has no weights.")
        if multiplier is not None and budget is not None:
            raise ValueError(f"Expected a multiplier or a budget but got both, {multiplier} and {budget}.")
        if budget is not None:
            multiplier = self.sizes.multiplier_for(budget)
        self.multiplier = MULTIPLIER if multiplier is None else multiplier
        self.widths = self.sizes.level_widths(self.multiplier)
        self.upsampling: Upsampling = upsampling
        self.cells = cells
        self.checkpointing = checkpointing
        self.condition = None if conditioning == "none" else ConditionEmbedding(width, activation, parameter_ranges)
        self.lift = JointConvolution(self.sizes.channels_in, width, self.padding)
        self.waves = nn.ModuleList(
            Wave(self.sizes, self.widths, self.padding, pooling, activation) for _ in range(waves)
        )
        self.head = JointConvolution(width, self.sizes.channels_out, self.padding)

    @property
    def context_inputs(self) -> tuple[ContextInput, ...]:
        """What `pdesurrogate.steppers.surrogate.Surrogate` gives it beside the frames."""
        taken: list[ContextInput] = ["parameters"] if self.sizes.parameters else []
        return (*taken, "volumes") if self.cells == "volumes" else tuple(taken)

    def forward(
        self,
        history: Tensor,
        lead_time: Tensor | float | None = None,
        parameters: Tensor | None = None,
        volumes: Tensor | None = None,
    ) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Args:
            history: frames.
            lead_time: how many frame intervals ahead, of all samples or ``(batch,)``; with a conditioning only, one if
                not given.
            parameters: ``(batch, parameters)``, or ``(batch,)`` of a single one, in the units of their ranges.
            volumes: of the fluid in each cell, ``(batch, *space)`` or ``(*space)``, zero in solid; in any unit, and
                with ``cells="volumes"`` only.

        Raises:
            ValueError: if frames, channels, axes, lead times, parameters or volumes do not fit, or an axis cannot be
                halved four times.
        """
        folded = fold_history(history, self.history_frames, self.channels, len(self.padding))
        self._check_grid(folded.shape[2:])
        condition = self._condition(history, lead_time, parameters)
        shares, fluid = self._shares(folded, volumes)
        if fluid is not None:
            folded = torch.cat([folded, fluid.to(folded.dtype).expand(len(folded), *fluid.shape[1:])], dim=1)
        device = history.device.type
        # Ends and sums of waves keep their precision under autocast.
        with torch.autocast(device, enabled=False):
            values = self.lift(channels_last(folded))
        matrices = self._matrices(values)
        for wave in self.waves:
            if self.checkpointing == "waves" and torch.is_grad_enabled():
                values = checkpoint(wave, values, matrices, shares, condition, use_reentrant=False)
            else:
                values = wave(values, matrices, shares, condition)
        with torch.autocast(device, enabled=False):
            predicted: Tensor = self.head(values.to(self.head.weight.dtype)).contiguous()
        if fluid is not None:
            predicted = predicted * fluid
        return unfold_frames(predicted, self.target_frames)

    def _matrices(self, values: Tensor) -> list[list[Tensor]]:
        """Those that double each axis, from level ``i + 1`` to level ``i``, for each ``i``."""
        return [
            [
                doubling_matrix(size >> (level + 1), kind, self.upsampling, values.dtype, values.device)
                for size, kind in zip(values.shape[2:], self.padding, strict=True)
            ]
            for level in range(LEVELS)
        ]

    def _shares(self, folded: Tensor, volumes: Tensor | None) -> tuple[list[Tensor] | None, Tensor | None]:
        """Weights with mean one of the cells that become one, for each level, and where there is fluid."""
        space = tuple(folded.shape[2:])
        if self.cells == "uniform":
            if volumes is not None:
                raise ValueError("Expected no volumes: this network has cells='uniform'; build it with 'volumes'.")
            return None, None
        if volumes is None or tuple(volumes.shape) not in (space, (len(folded), *space)):
            given = "none" if volumes is None else tuple(volumes.shape)
            raise ValueError(
                f"Expected volumes {space} or {(len(folded), *space)} with cells='volumes' but got {given}."
            )
        level = volumes.reshape(-1, 1, *space).to(self.lift.weight.dtype)
        fluid, pool, shares = level > 0, _POOLS["average", len(space)], []
        for _ in range(LEVELS):
            pooled = pool(level, 2)
            inverse = torch.where(pooled > 0, 1 / pooled, 0)
            for dim in range(2, level.ndim):
                inverse = inverse.repeat_interleave(2, dim)
            shares.append(level * inverse)
            level = pooled
        return shares, fluid

    def _condition(self, history: Tensor, lead_time: Tensor | float | None, parameters: Tensor | None) -> Tensor | None:
        batch = len(history)
        if self.condition is None:
            if lead_time is not None or parameters is not None:
                raise ValueError(
                    "Expected neither lead_time nor parameters: this network has conditioning='none'; build it with "
                    "'add' or 'adagn'."
                )
            return None
        times = torch.as_tensor(1.0 if lead_time is None else lead_time, device=history.device)
        if times.ndim == 0:
            times = times.expand(batch)
        if tuple(times.shape) != (batch,):
            raise ValueError(f"Expected a lead time for each of {batch} samples but got {tuple(times.shape)}.")
        count = self.sizes.parameters
        if parameters is not None and parameters.ndim == 1 and count == 1:
            parameters = parameters[:, None]
        given = (batch, 0) if parameters is None else tuple(parameters.shape)
        if given != (batch, count):
            raise ValueError(
                f"Expected parameters (batch, {count}), one for each of the parameter_ranges, for {batch} samples but "
                f"got {'none' if parameters is None else given}."
            )
        embedded: Tensor = self.condition(times, times.new_empty(batch, 0) if parameters is None else parameters)
        return embedded

    def _check_grid(self, space: Sequence[int]) -> None:
        factor = 2**LEVELS
        for size, kind in zip(space, self.padding, strict=True):
            if size % factor:
                raise ValueError(
                    f"Expected axes divisible by {factor}, which waves halve {LEVELS} times, but got a grid of "
                    f"{tuple(space)}; resample the data or cut them."
                )
            if size < _FEWEST_HALVED[kind] * factor:
                raise ValueError(
                    f"Expected at least {_FEWEST_HALVED[kind] * factor} points along an axis with padding {kind!r} but "
                    f"got a grid of {tuple(space)}; use a finer grid or padding 'zeros'."
                )

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> SineNet:
        """The authors' network with their constructor's keywords and released weights, the conditional one too.

        Args:
            config: keywords of the authors' ``sinenet``; what is missing has their default.
            state_dict: under their names.

        Raises:
            ValueError: for keywords that are unknown or that their code cannot build either, and for weights that do
                not fit.
        """
        values = {**_REFERENCE_DEFAULTS, **config}
        unknown = sorted(set(values) - set(_REFERENCE_DEFAULTS) - _REFERENCE_IGNORED)
        if unknown:
            raise ValueError(f"Expected keywords of the authors' sinenet but got {', '.join(unknown)}.")
        missing = sorted(name for name in _REFERENCE_DEFAULTS if values[name] is _NEEDED)
        if missing:
            raise ValueError(f"Expected the keywords of the authors' sinenet but {', '.join(missing)} have no default.")
        for name, only in _REFERENCE_FIXED.items():
            if values[name] not in only:
                raise ValueError(
                    f"Expected {name} among {only}, as the authors' code runs with nothing else, but got "
                    f"{values[name]!r}."
                )
        conditional = bool(_REFERENCE_CONDITIONAL & set(config)) or any(
            name.startswith("time_embed.") for name in state_dict
        )
        # Their embedding takes a parameter as it is, as this range does.
        scalar = conditional and values["param_conditioning"] is not None
        model = cls(
            channels=values["n_input_scalar_components"] + 2 * values["n_input_vector_components"],
            history_frames=values["time_history"],
            target_frames=values["time_future"],
            waves=values["num_waves"],
            width=values["hidden_channels"],
            multiplier=values["mult"],
            padding=values["padding_mode"],
            skips="dual" if values["disentangle"] else "tangled",
            blocks=values["num_blocks"],
            upsampling=values["interpolation_mode"],
            pooling="average" if values["avg_pool"] else "max",
            normalization="sample" if values["norm"] else "none",
            activation=values["activation"],
            residuals=[
                name for name in ("block", "wave") if values[{"block": "residual", "wave": "wave_residual"}[name]]
            ],
            conditioning="none" if not conditional else "adagn" if values["use_scale_shift_norm"] else "add",
            parameter_ranges=[(0.0, PARAMETER_SPAN)] if scalar else [],
            target_channels=values["n_output_scalar_components"] + 2 * values["n_output_vector_components"],
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        theirs = {"lift.": "image_proj.", "head.": "final."}
        if self.condition is not None:
            theirs |= {
                f"condition.{ours}.{layer}.": f"{name}.{number}."
                for ours, name in (("lead_time", "time_embed"), ("scalars.0", "pde_emb"))
                for layer, number in (("first", 0), ("second", 2))
            }
        for wave in range(len(self.waves)):
            for level in range(LEVELS):
                for way in ("down", "up"):
                    ours, name = f"waves.{wave}.{way}.{level}.", f"{way}.{wave}.{level}."
                    theirs[f"{ours}shortcut."] = f"{name}shortcut."
                    for block in range(self.sizes.blocks):
                        for part, called in _REFERENCE_PARTS.items():
                            theirs[f"{ours}blocks.{block}.{part}."] = f"{name}conv.{block}.{called}."
        found = []
        for name, values in self.state_dict().items():
            layer, kind = name.rsplit(".", 1)
            source = f"{theirs[f'{layer}.']}{kind}"
            if layer.endswith("shortcut") and kind == "weight":
                shape = (*values.shape, *(1,) * len(self.padding))
                found.append(Translation(name, {source: shape}, as_matrix))
            else:
                found.append(Translation(name, {source: tuple(values.shape)}, unchanged))
        return found


class Wave(nn.Module):
    """One U: four times down and up again, added to what went in; ``(batch, width, *space)``."""

    def __init__(
        self,
        sizes: SineNetSizes,
        widths: Sequence[int],
        padding: Sequence[Padding],
        pooling: Pooling,
        activation: BlockActivation,
    ) -> None:
        super().__init__()
        self.dual = sizes.skips == "dual"
        self.around = "wave" in sizes.residuals
        self.pool = _POOLS[pooling, len(padding)]
        self.down = nn.ModuleList(
            Level(inputs, widths[level], widths[level + 1], sizes, padding, activation)
            for level, inputs in enumerate(sizes.inputs_down(widths))
        )
        self.up = nn.ModuleList(
            Level(widths[level] + widths[level + 1], widths[level + 1], widths[level], sizes, padding, activation)
            for level in reversed(range(LEVELS))
        )

    def forward(
        self,
        values: Tensor,
        matrices: Sequence[Sequence[Tensor]],
        shares: Sequence[Tensor] | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Apply the wave.

        Args:
            values: ``(batch, width, *space)``, channels last in memory.
            matrices: those that double the axes, from level ``i + 1`` to level ``i``, for each ``i``.
            shares: weights ``(1 or batch, 1, *space)`` with mean one of the cells that become one, for each level.
            condition: ``(batch, features)``.
        """
        coarse = features = values
        skips = []
        for number, level in enumerate(self.down):
            skips.append(features)
            share = None if shares is None else shares[number]
            features = self._halve(features, share)
            if self.dual:
                # What the finest level would see twice is the same.
                coarse = features if number == 0 else self._halve(coarse, share)
            parts = [features, coarse] if self.dual and number else [features]
            features = level(parts, features, condition)
        for number, level in zip(reversed(range(LEVELS)), self.up, strict=True):
            features = upsample(features, matrices[number])
            features = level([skips.pop(), features], features, condition)
        return values + features if self.around else features

    def _halve(self, values: Tensor, share: Tensor | None) -> Tensor:
        return self.pool(values if share is None else values * share, 2)


class Level(nn.Module):
    """Blocks at one resolution, with a way around each of them: pointwise for the first, the identity for others."""

    def __init__(
        self,
        channels_in: int,
        channels_around: int,
        channels_out: int,
        sizes: SineNetSizes,
        padding: Sequence[Padding],
        activation: BlockActivation,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(
                channels_out if number else channels_in,
                channels_out,
                padding,
                sizes.normalization,
                activation,
                sizes.conditioning,
                sizes.features,
            )
            for number in range(sizes.blocks)
        )
        self.shortcut = Pointwise(channels_around, channels_out) if "block" in sizes.residuals else None

    def forward(self, parts: Sequence[Tensor], around: Tensor, condition: Tensor | None) -> Tensor:
        """The blocks on all ``parts`` together; the first one's way ``around`` takes one of them only."""
        first, *others = self.blocks
        features: Tensor = first(*parts, condition=condition)
        if self.shortcut is not None:
            mixed = functional.linear(around.movedim(1, -1), self.shortcut.weight, self.shortcut.bias)
            features = mixed.add_(features.movedim(1, -1)).movedim(-1, 1)
        for block in others:
            after = block(features, condition=condition)
            features = after if self.shortcut is None else features + after
        return features


class ConditionEmbedding(nn.Module):
    """Lead times and scalar parameters as features ``(batch, 4 width)``, one sum for all blocks.

    Each number becomes ``width`` `sinusoids` and goes through a network with one hidden layer. Lead times count frames,
    for which the sinusoids' periods are made; a parameter's range is stretched to `PARAMETER_SPAN` units first, as
    values that lie close together would look alike.

    Example:
        >>> embedding = ConditionEmbedding(8, "gelu", [(0.2, 0.5)])
        >>> embedding(torch.ones(3), torch.full((3, 1), 0.3)).shape
        torch.Size([3, 32])
    """

    lowest: Tensor
    factors: Tensor

    def __init__(
        self, width: int, activation: BlockActivation, parameter_ranges: Sequence[tuple[float, float]] = ()
    ) -> None:
        super().__init__()
        for ends in parameter_ranges:
            if len(ends) != 2 or not ends[0] < ends[1]:
                raise ValueError(f"Expected parameter_ranges as pairs (lowest, highest) but got {tuple(ends)}.")
        self.width = width
        self.lead_time = _Perceptron(width, activation)
        self.scalars = nn.ModuleList(_Perceptron(width, activation) for _ in parameter_ranges)
        lowest = torch.tensor([low for low, _ in parameter_ranges])
        factors = torch.tensor([PARAMETER_SPAN / (high - low) for low, high in parameter_ranges])
        self.register_buffer("lowest", lowest, persistent=False)
        self.register_buffer("factors", factors, persistent=False)

    def forward(self, lead_times: Tensor, parameters: Tensor) -> Tensor:
        """Embed ``lead_times (batch,)`` and ``parameters (batch, parameters)``."""
        precision = self.lead_time.first.weight.dtype
        embedded: Tensor = self.lead_time(sinusoids(lead_times.to(precision), self.width))
        stretched = (parameters.to(precision) - self.lowest) * self.factors
        for network, numbers in zip(self.scalars, stretched.unbind(1), strict=True):
            embedded = embedded + network(sinusoids(numbers, self.width))
        return embedded


class _Perceptron(nn.Module):
    """From ``width`` to ``4 width`` features, with a hidden layer of as many."""

    def __init__(self, width: int, activation: BlockActivation) -> None:
        super().__init__()
        self.first = nn.Linear(width, 4 * width)
        self.second = nn.Linear(4 * width, 4 * width)
        self.activate = activation_function(activation)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.second(self.activate(self.first(values)))
        return result


@dataclass(frozen=True)
class SineNetSizes:
    """What the number of a `SineNet`'s parameters depends on besides its multiplier, and that number in closed form.

    Attributes:
        channels_in: all frames together.
        channels_out: all frames together.
        waves: as for `SineNet`, and so are all others.
        parameters: how many scalar parameters go in.

    Raises:
        ValueError: for values out of range.

    Example:
        >>> sizes = SineNetSizes(channels_in=12, channels_out=3)
        >>> sizes.level_widths(1.425), sizes.parameter_count(1.425)
        ((64, 91, 129, 185, 263), 35490219)
        >>> round(SineNetSizes(channels_in=12, channels_out=3, waves=4).multiplier_for(35_490_219), 3)
        1.611
    """

    channels_in: int
    channels_out: int
    waves: int = 8
    width: int = 64
    dimension: int = 2
    skips: Skips = "dual"
    blocks: int = 1
    normalization: Normalization = "sample"
    residuals: tuple[Residual, ...] = ("block", "wave")
    conditioning: Conditioning = "none"
    parameters: int = 0
    round_to: int = 1

    def __post_init__(self) -> None:
        names = ("channels_in", "channels_out", "waves", "width", "blocks", "round_to")
        check_positive(**{name: getattr(self, name) for name in names})
        if self.dimension not in (2, 3):
            raise ValueError(f"Expected dimension 2 or 3 but got {self.dimension}.")
        check_kinds(_KINDS, skips=self.skips, normalization=self.normalization, conditioning=self.conditioning)
        if not set(self.residuals) <= {"block", "wave"} or len(set(self.residuals)) < len(self.residuals):
            raise ValueError(f"Expected residuals among 'block' and 'wave' but got {self.residuals}.")
        if self.parameters and self.conditioning == "none":
            raise ValueError("Expected parameter_ranges with conditioning 'add' or 'adagn' only.")

    @property
    def features(self) -> int:
        """Of a condition."""
        return 0 if self.conditioning == "none" else 4 * self.width

    def level_widths(self, multiplier: float) -> tuple[int, ...]:
        """Channels at full resolution and after each of four halvings.

        Raises:
            ValueError: if a level would be left without channels.
        """
        widths = [int(self.width * multiplier**level) for level in range(LEVELS + 1)]
        if self.round_to > 1:
            rounded = (max(round(each / self.round_to), 1) * self.round_to for each in widths[1:])
            widths = [self.width, *rounded]
        if min(widths) < 1:
            raise ValueError(
                f"Expected a multiplier that leaves channels at every level but {multiplier} gives {widths}."
            )
        return tuple(widths)

    def inputs_down(self, widths: Sequence[int]) -> list[int]:
        """Channels that go into each level on the way down: dual skips add the wave's input, but not to itself."""
        added = self.width if self.skips == "dual" else 0
        return [widths[level] + (added if level else 0) for level in range(LEVELS)]

    def parameter_count(self, multiplier: float) -> int:
        """How many parameters the network has."""
        widths = self.level_widths(multiplier)
        wave = 0
        for level, inputs in enumerate(self.inputs_down(widths)):
            upper, lower = widths[level], widths[level + 1]
            wave += self._level(inputs, upper, lower) + self._level(upper + lower, lower, upper)
        ends = self._convolution(self.channels_in, self.width) + self._convolution(self.width, self.channels_out)
        embedded = self.features
        networks = 0 if self.conditioning == "none" else 1 + self.parameters
        embedding = networks * (self.width * embedded + embedded**2 + 2 * embedded)
        return ends + embedding + self.waves * wave

    def multiplier_for(self, budget: int) -> float:
        """The multiplier whose number of parameters is nearest to ``budget``, in the middle of all that have it.

        Raises:
            ValueError: if the nearest is further away than half a percent.
        """
        # Just above that which would leave the coarsest level without channels.
        lowest = 1.0001 * self.width ** (-1 / LEVELS)
        return multiplier_for(budget, self.parameter_count, lowest, tolerance=BUDGET_TOLERANCE)

    def _level(self, inputs: int, around: int, outputs: int) -> int:
        others = (self.blocks - 1) * self._block(outputs, outputs)
        shortcut = around * outputs + outputs if "block" in self.residuals else 0
        return self._block(inputs, outputs) + others + shortcut

    def _block(self, inputs: int, outputs: int) -> int:
        norms = 4 * outputs if self.normalization == "sample" else 0
        acts = {"none": 0, "add": 1, "adagn": 2}[self.conditioning] * outputs
        condition = (self.features + 1) * acts
        return self._convolution(inputs, outputs) + self._convolution(outputs, outputs) + norms + condition

    def _convolution(self, inputs: int, outputs: int) -> int:
        return inputs * outputs * 3**self.dimension + outputs


_KINDS: dict[str, tuple[str, ...]] = {
    "skips": get_args(Skips),
    "normalization": get_args(Normalization),
    "conditioning": get_args(Conditioning),
    "upsampling": get_args(Upsampling),
    "pooling": get_args(Pooling),
    "activation": get_args(BlockActivation),
    "cells": get_args(Cells),
    "checkpointing": get_args(Checkpointing),
}
_POOLS: dict[tuple[str, int], Callable[[Tensor, int], Tensor]] = {
    ("average", 2): functional.avg_pool2d,
    ("average", 3): functional.avg_pool3d,
    ("max", 2): functional.max_pool2d,
    ("max", 3): functional.max_pool3d,
}
# Points that the coarsest level needs along an axis; those of circular axes would be neighbors of themselves with one.
_FEWEST_HALVED: dict[str, int] = {"circular": 2, "zeros": 1, "replicate": 1, "reflect": 2}

_NEEDED: Any = object()
_REFERENCE_DEFAULTS: dict[str, Any] = {
    "n_input_scalar_components": _NEEDED,
    "n_input_vector_components": _NEEDED,
    "n_output_scalar_components": _NEEDED,
    "n_output_vector_components": _NEEDED,
    "time_history": _NEEDED,
    "time_future": _NEEDED,
    "hidden_channels": _NEEDED,
    "padding_mode": "zeros",
    "activation": "gelu",
    "num_layers": LEVELS,
    "num_waves": 2,
    "num_blocks": 1,
    "norm": True,
    "mult": 2,
    "residual": True,
    "wave_residual": True,
    "disentangle": True,
    "down_pool": True,
    "avg_pool": True,
    "up_interpolation": True,
    "interpolation_mode": "bicubic",
    "param_conditioning": None,
    "use_scale_shift_norm": False,
}
_REFERENCE_CONDITIONAL = {"param_conditioning", "use_scale_shift_norm"}
# What their constructor only prints.
_REFERENCE_IGNORED = {"par1"}
_REFERENCE_FIXED: dict[str, tuple[Any, ...]] = {
    "num_layers": (LEVELS,),
    "down_pool": (True,),
    "up_interpolation": (True,),
    "param_conditioning": (None, "scalar"),
}
_REFERENCE_PARTS = {
    "first": "conv1",
    "second": "conv2",
    "first_norm": "norm1",
    "second_norm": "norm2",
    "condition": "cond_emb",
}

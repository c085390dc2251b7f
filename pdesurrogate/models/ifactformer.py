"""IFactFormer: an implicit transformer whose attention works along one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pdesurrogate.layers.conditioning import sinusoids
from pdesurrogate.layers.coordinates import AxisKind, RandomCode, Rotation, WallCode
from pdesurrogate.layers.factorized_attention import (
    Attention,
    BlockVariant,
    FactorizedAttention,
    KernelStart,
    Measure,
    Modulation,
    Sums,
)
from pdesurrogate.layers.frames import check_kinds, check_positive
from pdesurrogate.models.reference_weights import Translation, load_reference_weights, unchanged
from pdesurrogate.models.specification import ContextInput, recorded

PlaceCode = Literal["random", "walls"]
Places = Literal["uniform", "given"]
Checkpointing = Literal["none", "iterations"]

# Of the box that the authors' channels have, in half-heights.
CHANNEL_LENGTHS = (4 * math.pi, 2.0, 4 * math.pi / 3)


@recorded
class IFactFormer(nn.Module):
    """Frames ``(batch, time, channels, *space)`` in, the block that follows them out; one, two or three axes.

    The frames are lifted to ``width`` channels. Each of ``depth`` blocks first adds a code of the place, then takes
    ``iterations`` steps ``h <- h + F(h) / iterations`` with one and the same `FactorizedAttention` ``F``; a pointwise
    network gives the result. ``F`` mixes points along one axis at a time, with a kernel for each axis that is made from
    means of the field over all others: ``"parallel"`` in IFactFormer-m (Yang et al., *Implicit factorized transformer
    approach to fast prediction of turbulent channel flows*, Sci. China Phys. Mech. Astron. 69, 214606, 2026,
    arXiv:2412.18840), ``"chained"`` in IFactFormer-o (TAML, 2024).

    The defaults are the authors' function and sizes for the channel at a friction Reynolds number of 180. They are
    faithful in what one may not want: all axes count as open, their coordinates as evenly spaced with both ends
    included, so that a periodic axis has one point twice and a stretched one is taken for uniform; the code of the
    place is random, so that a network knows its own grid only; kernels sum over points without weights. Walls are
    learned, not enforced. What repairs them are options:

    - ``axes`` says which are ``"periodic"``: kernels depend on distances on a circle, the code leaves them out, and the
      network commutes with translations along them.
    - ``code="walls"`` tells of the distances to the ends of the open axes instead of random features.
    - ``places="given"`` takes the coordinates of the sample.
    - ``sums="mean"`` divides kernels by the number of points of their axis, ``sums="volumes"`` weights all means and
      sums by the volumes of the sample's cells, so that the block has a limit on fine grids.
    - ``parameters`` tells of the flow beside its frames, such as of its viscosity: see `ParameterModulation`.
    - ``start="unit"`` begins with kernels of root mean square one. As published they are so small that the chained form
      begins seven orders below the parallel one, below the epsilon of its norm.

    Departures from the released code, none of which changes its function (`from_reference`): see
    `FactorizedAttention` for the order of the linear maps; tables of the grid are made once and kept while it stays the
    same; one history frame or more, one frame or more out.

    Args:
        channels: of a frame, in and out; half the width must be a multiple of it.
        history_frames: frames that go in.
        target_frames: frames that come out.
        width: channels inside.
        heads: kernels of each axis.
        head_width: channels that a kernel acts on.
        iterations: of each block.
        depth: blocks with weights of their own.
        kernel_multiplier: features of queries and keys, in units of ``head_width``.
        attention: ``"parallel"`` (m) or ``"chained"`` (o).
        variant: of the block: ``"head"``, the code as of December 2025, or ``"feb2025"``, as of the paper's second
            version.
        lengths: of the axes, from the first coordinate, 0, to the last, or the period. Their number is the dimension.
        axes: ``"open"`` or ``"periodic"``, of all axes or one for each.
        places: ``"uniform"``, or ``"given"`` for networks that take ``coordinates``.
        code: of the place: ``"random"`` or ``"walls"``.
        sums: along axes and over the grid: ``"points"``, ``"mean"`` or ``"volumes"``.
        start: kernels before training, ``"small"`` or ``"unit"``.
        harmonics: of the rotary code of periodic axes, which need twice as many points.
        target_channels: of a predicted frame, if they are not those of a given one.
        checkpointing: ``"iterations"`` keeps only what lies between iterations for the backward pass and computes them
            again.
        parameters: how many numbers go with a sample, all positive; a network starts as that without them.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = IFactFormer(channels=3, width=12, heads=2, head_width=4, iterations=2)
        >>> network(torch.zeros(2, 1, 3, 8, 9, 6)).shape
        torch.Size([2, 1, 3, 8, 9, 6])
    """

    def __init__(
        self,
        channels: int = 3,
        history_frames: int = 1,
        target_frames: int = 1,
        width: int = 96,
        heads: int = 5,
        head_width: int = 96,
        iterations: int = 10,
        depth: int = 1,
        kernel_multiplier: int = 3,
        attention: Attention = "parallel",
        variant: BlockVariant = "head",
        lengths: Sequence[float] = CHANNEL_LENGTHS,
        axes: AxisKind | Sequence[AxisKind] = "open",
        places: Places = "uniform",
        code: PlaceCode = "random",
        sums: Sums = "points",
        start: KernelStart = "small",
        harmonics: int = 8,
        target_channels: int | None = None,
        checkpointing: Checkpointing = "none",
        parameters: int = 0,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.target_channels = channels if target_channels is None else target_channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.iterations = iterations
        self.attention = attention
        self.lengths = tuple(float(length) for length in lengths)
        self.axes: tuple[AxisKind, ...] = (axes,) * len(self.lengths) if isinstance(axes, str) else tuple(axes)
        self.places = places
        self.code = code
        self.sums = sums
        self.harmonics = harmonics
        self.checkpointing = checkpointing
        self.parameters_expected = parameters
        check_positive(
            channels=channels,
            history_frames=history_frames,
            target_frames=target_frames,
            width=width,
            heads=heads,
            head_width=head_width,
            iterations=iterations,
            depth=depth,
            kernel_multiplier=kernel_multiplier,
            harmonics=harmonics,
            target_channels=self.target_channels,
        )
        check_kinds(
            _KINDS,
            attention=attention,
            variant=variant,
            places=places,
            code=code,
            sums=sums,
            start=start,
            checkpointing=checkpointing,
        )
        self._check_axes()
        if width % (2 * channels):
            raise ValueError(
                f"Expected a width divisible by {2 * channels}, twice the number of channels, but got {width}."
            )
        if kernel_multiplier * head_width % 2:
            raise ValueError(
                "Expected an even number of features of queries and keys, kernel_multiplier * head_width, but got "
                f"{kernel_multiplier * head_width}."
            )
        if variant == "feb2025" and sums == "volumes":
            raise ValueError("Expected sums 'points' or 'mean' with variant 'feb2025', whose norm has no weights.")
        self.lift = Lifting(channels, history_frames, width)
        rotary = list(zip(self.axes, self.lengths, strict=True))
        self.blocks = nn.ModuleList(
            Block(
                self._place_code(width),
                FactorizedAttention(
                    width, heads, head_width, rotary, kernel_multiplier, attention, variant, start, harmonics
                ),
            )
            for _ in range(depth)
        )
        self.head = nn.Sequential(
            nn.Linear(width, width // 2, bias=False),
            nn.GELU(),
            nn.Linear(width // 2, target_frames * self.target_channels),
        )
        if parameters < 0:
            raise ValueError(f"Expected a number of parameters that is not negative but got {parameters}.")
        # Last, so that all other weights are those of a network without them and the same seed.
        self.conditions = nn.ModuleList(
            ParameterModulation(parameters, width) for _ in range(depth if parameters else 0)
        )
        self._cached: _Cached | None = None

    @property
    def context_inputs(self) -> tuple[ContextInput, ...]:
        """What a sample must give beside its frames."""
        taken: dict[ContextInput, bool] = {
            "coordinates": self.places == "given",
            "parameters": self.parameters_expected > 0,
            "volumes": self.sums == "volumes",
        }
        return tuple(name for name, needed in taken.items() if needed)

    def forward(
        self,
        history: Tensor,
        coordinates: Sequence[Tensor] | None = None,
        volumes: Tensor | None = None,
        parameters: Tensor | None = None,
    ) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Args:
            history: frames.
            coordinates: of each axis, ``(n,)`` or ``(batch, n)``, in the units of the lengths. Networks with
                ``places="uniform"`` have their own, which these replace.
            volumes: of each cell, ``(*space)`` or ``(batch, *space)``, in any unit; with ``sums="volumes"`` only.
            parameters: ``(batch, parameters)``, or ``(batch,)`` of a single one, positive, in any units.

        Raises:
            ValueError: if frames, channels, axes, coordinates, volumes or parameters do not fit.
        """
        self._check_history(history)
        given = self._checked_parameters(len(history), parameters)
        grid = self._tables(history, coordinates, volumes)
        device = history.device.type
        # The ends keep their precision under autocast, and so does the sum of all steps.
        with torch.autocast(device, enabled=False):
            fields = self.lift(history)
        for number, (block, tables) in enumerate(zip(self.blocks, grid.blocks, strict=True)):
            assert isinstance(block, Block)
            with torch.autocast(device, enabled=False):
                fields = block.enter(fields, tables)
                modulation = None if given is None else self.conditions[number](given)
            for _ in range(self.iterations):
                if self.checkpointing == "iterations" and torch.is_grad_enabled():
                    change = checkpoint(
                        block.attention, fields, tables.rotations, grid.measure, modulation, use_reentrant=False
                    )
                else:
                    change = block.attention(fields, tables.rotations, grid.measure, modulation)
                fields = torch.add(fields, change, alpha=1 / self.iterations)
        with torch.autocast(device, enabled=False):
            predicted: Tensor = self.head(fields)
        frames = predicted.unflatten(-1, (self.target_frames, self.target_channels))
        return frames.movedim((-2, -1), (1, 2)).contiguous()

    def _place_code(self, width: int) -> RandomCode | WallCode | None:
        """That of the open axes; none where all are periodic."""
        ends = [length for kind, length in zip(self.axes, self.lengths, strict=True) if kind == "open"]
        if not ends:
            return None
        return RandomCode(len(ends), width) if self.code == "random" else WallCode(ends, width)

    def _tables(self, history: Tensor, coordinates: Sequence[Tensor] | None, volumes: Tensor | None) -> GridTables:
        """What blocks need to know of the grid; kept until the grid changes, or what the tables are made with."""
        if self.places == "given" and coordinates is None:
            raise ValueError("Expected the coordinates of each axis with places='given' but got none.")
        if (volumes is None) is (self.sums == "volumes"):
            given = "none" if volumes is None else f"some with sums={self.sums!r}"
            raise ValueError(f"Expected volumes with sums='volumes', and only then, but got {given}.")
        sources = [*(() if coordinates is None else coordinates), *(() if volumes is None else (volumes,))]
        made_with = [*self.buffers(), *(each for each in self.parameters() if not each.requires_grad)]
        # A compiled graph cannot look at values, and tensors of inference mode do not count their changes.
        if torch.compiler.is_compiling() or any(each.is_inference() for each in made_with):
            return self._make_tables(history, coordinates, volumes)
        weight = self.lift.weight
        key = (tuple(history.shape[3:]), history.device, weight.device, weight.dtype, coordinates is None)
        versions = tuple((each, each.data_ptr(), each._version) for each in made_with)
        cached = self._cached
        if cached is None or not cached.holds_for(key, versions, sources):
            # Neither could tables of inference mode be used for training after it.
            with torch.inference_mode(False):
                tables = self._make_tables(history, coordinates, volumes)
                cached = _Cached(key, versions, tuple(each.detach().clone() for each in sources), tables)
            self._cached = cached
        return cached.tables

    @torch.no_grad()
    def _make_tables(self, history: Tensor, coordinates: Sequence[Tensor] | None, volumes: Tensor | None) -> GridTables:
        space, device = tuple(history.shape[3:]), history.device
        weight = self.lift.weight
        precision = torch.promote_types(weight.dtype, torch.float32)
        if coordinates is None:
            lines = [
                _uniform(size, kind, length).to(device, precision)[None]
                for size, kind, length in zip(space, self.axes, self.lengths, strict=True)
            ]
        else:
            lines = [line.clone().to(device, precision) for line in _given(coordinates, len(history), space)]
        with torch.autocast(device.type, enabled=False):
            every = (block for block in self.blocks if isinstance(block, Block))
            blocks = [block.tables(lines, self.axes, weight.dtype) for block in every]
        if self.sums == "points":
            return GridTables(blocks, Measure())
        if self.sums == "mean":
            means = tuple(torch.full((1, size), 1 / size, dtype=weight.dtype, device=device) for size in space)
            return GridTables(blocks, Measure(weights=means))
        assert volumes is not None
        shares = _shares(volumes, len(history), space).to(device, precision)
        weights = [
            shares.sum([1 + other for other in range(len(space)) if other != axis]) for axis in range(len(space))
        ]
        return GridTables(blocks, Measure(shares.to(weight.dtype), tuple(each.to(weight.dtype) for each in weights)))

    def _check_axes(self) -> None:
        if not 1 <= len(self.lengths) <= 3 or min(self.lengths) <= 0:
            raise ValueError(f"Expected positive lengths of one to three axes but got {self.lengths}.")
        if len(self.axes) != len(self.lengths) or not set(self.axes) <= set(get_args(AxisKind)):
            raise ValueError(
                f"Expected axes among {get_args(AxisKind)}, one for each of {len(self.lengths)} lengths, but got "
                f"{self.axes}."
            )

    def _check_history(self, history: Tensor) -> None:
        axes = len(self.lengths)
        if history.ndim != 3 + axes or tuple(history.shape[1:3]) != (self.history_frames, self.channels):
            raise ValueError(
                f"Expected (batch, {self.history_frames}, {self.channels}, *space) with {axes} space axes but got "
                f"{tuple(history.shape)}; give {self.history_frames} frames of {self.channels} channels or build the "
                "network for others."
            )
        for size, kind in zip(history.shape[3:], self.axes, strict=True):
            if kind == "periodic" and size < 2 * self.harmonics:
                raise ValueError(
                    f"Expected at least {2 * self.harmonics} points along a periodic axis, twice the harmonics, but "
                    f"got a grid of {tuple(history.shape[3:])}; use a finer grid or fewer harmonics."
                )

    def _checked_parameters(self, batch: int, parameters: Tensor | None) -> Tensor | None:
        count = self.parameters_expected
        if parameters is None and not count:
            return None
        if parameters is not None and parameters.ndim == 1 and count == 1:
            parameters = parameters[:, None]
        if parameters is None or not count or tuple(parameters.shape) != (batch, count):
            raise ValueError(
                f"Expected {f'parameters ({batch}, {count})' if count else 'no parameters'}, as the network was built "
                f"with parameters={count}, but got {'none' if parameters is None else tuple(parameters.shape)}."
            )
        # A compiled graph cannot look at values.
        if not torch.compiler.is_compiling() and not bool((parameters > 0).all()):
            raise ValueError(
                f"Expected positive parameters, whose logarithms the network takes, but got {parameters.tolist()}."
            )
        return parameters

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> IFactFormer:
        """The authors' network with their constructor's keywords and released weights.

        Args:
            config: their keywords, and ``variant``, which they have none for: ``"head"`` if not given.
            state_dict: under their names.

        Raises:
            ValueError: for keywords that are unknown or missing, and for weights that do not fit.
        """
        values = {**_REFERENCE_DEFAULTS, **config}
        unknown = sorted(set(values) - set(_REFERENCE_DEFAULTS))
        if unknown:
            raise ValueError(f"Expected keywords of the authors' IFactFormer but got {', '.join(unknown)}.")
        missing = sorted(name for name in values if values[name] is _NEEDED)
        if missing:
            raise ValueError(f"Expected the keywords of the authors' IFactFormer but {', '.join(missing)} are missing.")
        if values["model"] not in _REFERENCE_MODELS:
            raise ValueError(f"Expected model among {tuple(_REFERENCE_MODELS)} but got {values['model']!r}.")
        model = cls(
            channels=values["in_dim"],
            history_frames=values["in_time_window"],
            width=values["dim"],
            heads=values["heads"],
            head_width=values["dim_head"],
            iterations=values["n_layer"],
            depth=values["depth"],
            kernel_multiplier=values["kernel_multiplier"],
            attention=_REFERENCE_MODELS[values["model"]],
            variant=values["variant"],
            target_channels=values["out_dim"],
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`.

        Raises:
            ValueError: if the network is none that their code can build.
        """
        if self.axes != ("open",) * 3 or self.code != "random" or self.target_frames != 1 or self.parameters_expected:
            raise ValueError(
                "Expected a network as the authors' code builds it, with three open axes, a random code, one target "
                f"frame and no parameters, but got axes {self.axes}, code {self.code!r}, {self.target_frames} frames "
                f"and {self.parameters_expected} parameters."
            )
        hidden, frames = len(self.lift.weight), self.history_frames
        found = [
            Translation("lift.weight", {"to_in.0.weight": (hidden, 1, 1, 1)}, torch.flatten),
            Translation("lift.bias", {"to_in.0.bias": (hidden,)}, unchanged),
            Translation("lift.fold.weight", {"to_in.2.weight": (2 * hidden, hidden, frames, 1)}, _frames_first),
        ]
        names = {"head.0.weight": "simple_to_out.1.weight", "head.2.weight": "simple_to_out.3.weight"}
        state = self.state_dict()
        found += [Translation(ours, {theirs: (*state[ours].shape, 1)}, _without_last) for ours, theirs in names.items()]
        names = {"head.2.bias": "simple_to_out.3.bias"}
        for block in range(len(self.blocks)):
            ours, theirs = f"blocks.{block}.", f"encoder.layers.{block}."
            names |= {f"{ours}{part}": f"{theirs}{called}" for part, called in _REFERENCE_BLOCK.items()}
            if f"{ours}attention.after.0.weight" in state:
                names |= {f"{ours}{part}": f"{theirs}{called}" for part, called in _REFERENCE_FEBRUARY.items()}
            for axis, reducer in enumerate(("to_x.0", "to_y.1", "to_z.1")):
                kernel, letter = f"{ours}attention.kernels.{axis}.", "xyz"[axis]
                names |= {
                    f"{kernel}{part}": f"{theirs}1.{called.format(reducer=reducer, letter=letter)}"
                    for part, called in _REFERENCE_KERNEL.items()
                }
        return found + [
            Translation(ours, {theirs: tuple(state[ours].shape)}, unchanged) for ours, theirs in names.items()
        ]


class Lifting(nn.Module):
    """Private features of every channel and frame, then all mixed; the result has its channels last.

    ``(batch, frames, channels, *space)`` to ``(batch, *space, width)``: with ``width / 2 / channels`` features of a
    channel, the same ones of every frame, ``gelu(weight * value + bias)``.
    """

    def __init__(self, channels: int, frames: int, width: int) -> None:
        super().__init__()
        hidden = width // 2
        self.channels = channels
        # As a convolution of one input to a group has them.
        self.weight = nn.Parameter(torch.empty(hidden).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-1, 1))
        self.fold = nn.Linear(frames * hidden, width, bias=False)

    def forward(self, history: Tensor) -> Tensor:
        """Lift ``history (batch, frames, channels, *space)``."""
        points = history.movedim((1, 2), (-2, -1))[..., None]
        weight, bias = (each.unflatten(0, (self.channels, -1)) for each in (self.weight, self.bias))
        lifted: Tensor = self.fold(functional.gelu(points * weight + bias).flatten(-3))
        return lifted


class ParameterModulation(nn.Module):
    """From positive ``parameters (batch, count)`` to the `Modulation` of a block's norm (AdaLN).

    Parameters of a flow, such as viscosities, differ by factors. So their logarithms go in, as `sinusoids`, of which
    the fastest turns by a radian when a parameter grows by a factor ``e``; a network with one hidden layer gives factor
    and shift. Its last layer starts at zero, as in Peebles & Xie, *Scalable diffusion models with transformers*, ICCV
    2023, arXiv:2212.09748: at first nothing depends on the parameters.

    Example:
        >>> ParameterModulation(1, 8)(torch.tensor([[2e-4], [1e-4]])).factor.shape
        torch.Size([2, 8])
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(count * width, width)
        self.leave = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, parameters: Tensor) -> Modulation:
        """Factor and shift ``(batch, width)``."""
        # Small parameters leave the range of half precision before their logarithms do.
        logarithms = parameters.to(torch.promote_types(parameters.dtype, torch.float32)).log()
        waves = [sinusoids(each, self.width) for each in logarithms.to(self.enter.weight.dtype).unbind(1)]
        return Modulation(*self.leave(functional.gelu(self.enter(torch.cat(waves, 1)))).chunk(2, dim=1))


class BlockTables(NamedTuple):
    """What a block needs to know of the grid: features of the place before they are mixed, and `Rotation` tables."""

    features: Tensor | None
    rotations: tuple[Rotation, ...]


class GridTables(NamedTuple):
    """What the network needs to know of the grid."""

    blocks: list[BlockTables]
    measure: Measure


class Block(nn.Module):
    """What is iterated, and the code of the place that is added before it is."""

    def __init__(self, code: RandomCode | WallCode | None, attention: FactorizedAttention) -> None:
        super().__init__()
        self.code = code
        self.attention = attention

    def tables(self, lines: Sequence[Tensor], axes: Sequence[AxisKind], precision: torch.dtype) -> BlockTables:
        """For grids with coordinates ``(1 or batch, n)`` of each axis."""
        rotations = tuple(
            Rotation(*(table.to(precision) for table in rotation)) for rotation in self.attention.rotations(lines)
        )
        if self.code is None:
            return BlockTables(None, rotations)
        spread = [
            line.view(len(line), *(line.shape[1] if other == axis else 1 for other in range(len(lines))))
            for axis, (line, kind) in enumerate(zip(lines, axes, strict=True))
            if kind == "open"
        ]
        places = torch.stack(torch.broadcast_tensors(*spread), dim=-1)
        return BlockTables(self.code.features(places).to(precision), rotations)

    def enter(self, fields: Tensor, tables: BlockTables) -> Tensor:
        """Add the code of the place to ``fields (batch, *space, width)``."""
        if self.code is None or tables.features is None:
            return fields
        entered: Tensor = fields + self.code(tables.features)
        return entered


class _Cached(NamedTuple):
    """Tables, the grid and the precision that they are for, and the state of all that they were made with."""

    key: tuple[Any, ...]
    versions: tuple[tuple[Tensor, int, int], ...]
    given: tuple[Tensor, ...]
    tables: GridTables

    def holds_for(
        self, key: tuple[Any, ...], versions: Sequence[tuple[Tensor, int, int]], given: Sequence[Tensor]
    ) -> bool:
        """Whether nothing has changed."""
        if self.key != key or len(self.versions) != len(versions) or len(self.given) != len(given):
            return False
        if any(old[0] is not new[0] or old[1:] != new[1:] for old, new in zip(self.versions, versions, strict=True)):
            return False
        pairs = zip(self.given, given, strict=True)
        return all(
            old.shape == new.shape and old.dtype == new.dtype and old.device == new.device and torch.equal(old, new)
            for old, new in pairs
        )


def _uniform(size: int, kind: AxisKind, length: float) -> Tensor:
    """Coordinates of an axis, ``(n,)``: from end to end, or without the end point that is the first one again."""
    if kind == "open":
        return torch.linspace(0, length, size, dtype=torch.float64)
    return torch.arange(size, dtype=torch.float64) * (length / size)


def _given(coordinates: Sequence[Tensor], batch: int, space: Sequence[int]) -> list[Tensor]:
    """Coordinates as ``(1 or batch, n)`` of each axis: one row where all are alike."""
    found = tuple(tuple(line.shape) for line in coordinates)
    if len(found) != len(space) or any(
        shape not in ((size,), (batch, size)) for shape, size in zip(found, space, strict=True)
    ):
        raise ValueError(
            f"Expected coordinates (n,) or ({batch}, n) of each axis of a grid of {tuple(space)} but got {found}."
        )
    rows = [line.reshape(-1, line.shape[-1]) for line in coordinates]
    if torch.compiler.is_compiling():
        return rows
    for line in rows:
        if not bool((line.diff(dim=-1) > 0).all()):
            raise ValueError("Expected coordinates that increase along each axis.")
    return [line[:1] if torch.equal(line, line[:1].expand_as(line)) else line for line in rows]


def _shares(volumes: Tensor, batch: int, space: tuple[int, ...]) -> Tensor:
    """Volumes as shares of the whole, ``(1 or batch, *space)``: one sample's where all are alike."""
    if tuple(volumes.shape) not in (space, (batch, *space)):
        raise ValueError(f"Expected volumes {space} or {(batch, *space)} but got {tuple(volumes.shape)}.")
    rows = volumes.reshape(-1, *space).double()
    shares = rows / rows.sum(list(range(1, rows.ndim)), keepdim=True)
    if torch.compiler.is_compiling():
        return shares
    planes = [shares.sum([1 + other for other in range(len(space)) if other != axis]) for axis in range(len(space))]
    if not bool((shares >= 0).all()) or not all(bool((plane > 0).all()) for plane in planes):
        raise ValueError("Expected volumes that are not negative, and some volume in every plane of the grid.")
    return shares[:1] if torch.equal(shares, shares[:1].expand_as(shares)) else shares


def _frames_first(kernel: Tensor) -> Tensor:
    """The matrix ``(width, frames * hidden)`` of a kernel ``(width, hidden, frames, 1)``."""
    return kernel[..., 0].transpose(1, 2).flatten(1)


def _without_last(kernel: Tensor) -> Tensor:
    return kernel[..., 0]


_NEEDED: Any = object()
_REFERENCE_DEFAULTS: dict[str, Any] = {
    "in_dim": _NEEDED,
    "out_dim": _NEEDED,
    "in_time_window": _NEEDED,
    "dim": _NEEDED,
    "heads": _NEEDED,
    "depth": _NEEDED,
    "dim_head": _NEEDED,
    "n_layer": _NEEDED,
    "model": _NEEDED,
    "kernel_multiplier": 3,
    "variant": "head",
}
_REFERENCE_MODELS: dict[str, Attention] = {"IFactFormer_m": "parallel", "IFactFormer_o": "chained"}
_REFERENCE_BLOCK = {
    "code.frequencies": "0.0._B",
    "code.mix.weight": "0.1.weight",
    "code.mix.bias": "0.1.bias",
    "attention.norm.weight": "1.in_norm.weight",
    "attention.norm.bias": "1.in_norm.bias",
    "attention.values.weight": "1.to_v.weight",
    "attention.enter.weight": "1.to_in.weight",
    "attention.project.weight": "1.to_out.2.weight",
    "attention.leave.weight": "1.to_out.4.weight",
}
# Their layers have other numbers where none of them moves the channels, and there are two more of them.
_REFERENCE_FEBRUARY = {
    "attention.project.weight": "1.to_out.1.weight",
    "attention.leave.weight": "1.to_out.3.weight",
    "attention.after.0.weight": "1.to_out_1.0.weight",
    "attention.after.2.weight": "1.to_out_1.2.weight",
}
_REFERENCE_KERNEL = {
    "enter.weight": "{reducer}.to_in.weight",
    "norm.weight": "{reducer}.out_ffn.norm.weight",
    "norm.bias": "{reducer}.out_ffn.norm.bias",
    "gate.weight": "{reducer}.out_ffn.fn.net.0.weight",
    "gate.bias": "{reducer}.out_ffn.fn.net.0.bias",
    "leave.weight": "{reducer}.out_ffn.fn.net.3.weight",
    "leave.bias": "{reducer}.out_ffn.fn.net.3.bias",
    "query.weight": "low_rank_kernel_{letter}.to_q.weight",
    "key.weight": "low_rank_kernel_{letter}.to_k.weight",
    "rotary.rates": "low_rank_kernel_{letter}.pos_emb.inv_freq",
}


_KINDS: dict[str, tuple[str, ...]] = {
    "attention": get_args(Attention),
    "variant": get_args(BlockVariant),
    "places": get_args(Places),
    "code": get_args(PlaceCode),
    "sums": get_args(Sums),
    "start": get_args(KernelStart),
    "checkpointing": get_args(Checkpointing),
}

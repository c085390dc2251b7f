"""The *spatiotemporal* Fourier neural operator of the Spectral-Refiner paper; elsewhere SFNO is a spherical one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.pointwise import Activation, Pointwise, ResidualMLP, activated
from pdesurrogate.layers.positional import TIME_UNIT, Positional, PositionalFeatures
from pdesurrogate.layers.space_time import LinearHead, Times, space_time_waves
from pdesurrogate.layers.spectral_conv import SpectralConv
from pdesurrogate.models.reference_weights import Translation, as_matrix, load_reference_weights, unchanged
from pdesurrogate.models.specification import recorded


@recorded
class SFNO(nn.Module):
    """Trajectory to trajectory: ``(batch, time, 1, x, y)`` of vorticity to the frames that follow it, all at once.

    Space and time are transformed together (Cao, Brarda, Li and Xi, *Spectral-Refiner*, ICLR 2025, arXiv:2405.17211):
    a lifting that brings the history to ``latent_frames``, spectral layers in ``(x, y, time)``, a reduction to one
    channel, and a spectral head that adds a correction to the last given frame. The head is linear in its own weights,
    which is what `pdesurrogate.steppers.spectral_refiner.SpectralRefiner` builds on. Weights depend on no grid size,
    so a trained network runs at any resolution with two points for each of its ``modes``.

    Time is done right by default, unlike in the released code. Latent frame ``j`` stands for time ``j target_frames /
    latent_frames`` in units of the frame interval, and the head, a trigonometric polynomial in time, is evaluated where
    it is asked for; neither amplitude nor phase depends on how many frames that are. There are two ways to more frames:
    a longer horizon, `forward` with more frames than ``target_frames``, applies the network to its own output; finer
    frames in the same horizon come from `super_resolve`. With ``compat="torch-cfd"`` the authors' function is computed
    instead, to the last bits: their head stretches its time axis, and scales its amplitude, with the number of frames;
    the coordinates include the end point of the box; longer histories are squeezed into the latent frames.

    Further departures without ``compat``: the coordinates are periodic, so that they do not jump at the edge of the
    box, or are left out (``positional="time"``), so that all but the head's bias, a field of its own that is zero
    before training, commutes with translations; and of a history that is longer than ``history_frames`` the last frames
    are taken.

    Args:
        channels: must be 1, the vorticity.
        history_frames: frames that go in, at least ``latent_frames``.
        target_frames: frames that come out; if not given, as many as ``latent_frames``, or with ``compat`` as the
            history has.
        modes: waves ``(x, y, time)`` kept to each side, as the paper counts them: ``-m ... m - 1`` in space and
            ``0 ... m - 1`` in time. The grid needs twice as many points, the latent frames ``2 (m - 1)``.
        width: channels inside.
        layers: spectral layers, that of the lifting included.
        latent_frames: frames inside.
        expansion: hidden channels of the pointwise networks, in units of ``width``.
        activation: ``"relu"`` as published, or ``"gelu"``.
        positional: what is added to the vorticity: ``"time"`` alone; also sines and cosines of the place
            (``"periodic"``); the place itself (``"linear"``, the authors'); or products of sines and cosines that are
            mixed (``"products"``, the authors' ``spatial_random_feats``).
        damping: rate of the exponential in the time features, the authors' ``beta``.
        bias_strength: factor of the head's bias, the authors' ``delta``.
        lifting_activation: whether the lifting has a nonlinear network.
        compat: ``"torch-cfd"`` for the authors' function.
        compat_options: of the authors' constructor, with ``compat`` only: ``fft_norm``, ``spatial_padding`` and
            ``temporal_padding``.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = SFNO(history_frames=10, target_frames=10, modes=(4, 4, 3), width=8)
        >>> history = torch.randn(2, 10, 1, 16, 16)
        >>> network(history).shape, network(history, frames=25).shape, network.super_resolve(history, 2).shape
        (torch.Size([2, 10, 1, 16, 16]), torch.Size([2, 25, 1, 16, 16]), torch.Size([2, 20, 1, 16, 16]))
    """

    def __init__(
        self,
        channels: int = 1,
        history_frames: int = 10,
        target_frames: int | None = None,
        modes: tuple[int, int, int] = (16, 16, 5),
        width: int = 10,
        layers: int = 4,
        latent_frames: int = 10,
        expansion: int = 4,
        activation: Activation = "relu",
        positional: Positional = "periodic",
        damping: float = -1e-2,
        bias_strength: float = 0.1,
        lifting_activation: bool = True,
        compat: Literal["torch-cfd"] | None = None,
        compat_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(channels, modes, width, layers, latent_frames, expansion, positional)
        if history_frames < latent_frames:
            raise ValueError(
                f"Expected at least latent_frames = {latent_frames} frames of history but got {history_frames}; give a "
                "longer history or fewer latent_frames."
            )
        if target_frames is not None and target_frames < 1:
            raise ValueError(f"Expected at least one target frame but got {target_frames}.")
        if activation not in ("relu", "gelu"):
            raise ValueError(f"Expected activation 'relu' or 'gelu' but got {activation!r}.")
        self.history_frames = history_frames
        self.target_frames = latent_frames if target_frames is None and compat is None else target_frames
        self.modes = (modes[0], modes[1], modes[2])
        self.latent_frames = latent_frames
        self.compat = _Compat.of(compat, compat_options)
        self.lifting = Lifting(
            self.modes,
            width,
            latent_frames,
            expansion,
            activation,
            positional,
            damping,
            lifting_activation,
            self.compat,
        )
        self.blocks = nn.ModuleList(SpectralBlock(self.modes, width, expansion, activation) for _ in range(layers - 1))
        self.reduction = Pointwise(width, 1)
        self.head = TrajectoryHead(self.modes, latent_frames, bias_strength)

    def forward(self, history: Tensor, frames: int | None = None) -> Tensor:
        """The ``frames`` frames that follow ``history (batch, time, 1, x, y)``, by default ``target_frames``.

        More than ``target_frames`` are a longer horizon: the network is applied to its own output. With ``compat`` they
        are not: the authors' head stretches.

        Raises:
            ValueError: if the history is too short, or grid or channels do not fit.
        """
        if frames is not None and frames < 1:
            raise ValueError(f"Expected at least one frame but got {frames}.")
        if self.compat is not None:
            history = self._given(history)
            stretched = self.frames_out(history) if frames is None else frames
            return self._predict(history, self.compat.times(self.head, stretched))
        horizon = self._horizon
        wanted = horizon if frames is None else frames
        blocks, done = [], 0
        while done < wanted:
            history = self._given(history)
            block = self._predict(history, self.output_times(min(wanted - done, horizon)))
            blocks.append(block)
            done += block.shape[1]
            if done < wanted:
                history = torch.cat([history, block], dim=1)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def super_resolve(self, history: Tensor, factor: int) -> Tensor:
        """``factor`` frames in place of each of the ``target_frames``; every ``factor``-th is that of `forward`.

        The times in between are those of the head's trigonometric polynomial, a smooth interpolation that was never
        trained.

        Raises:
            ValueError: as `forward`, if the factor is not positive, or with ``compat``.
        """
        if self.compat is not None:
            raise ValueError("Expected a network without compat: the authors' head knows no times between frames.")
        if factor < 1:
            raise ValueError(f"Expected a factor of at least 1 but got {factor}.")
        history = self._given(history)
        return self._predict(history, self.output_times(self._horizon, factor))

    @property
    def _horizon(self) -> int:
        assert self.target_frames is not None
        return self.target_frames

    def output_times(self, frames: int, factor: int = 1) -> Times:
        """Where the head is evaluated for ``factor`` frames in each of the first ``frames`` frame intervals."""
        steps = torch.arange(1, factor * frames + 1, dtype=torch.float64) / factor
        return Times(self.head.latent_times(self._horizon, steps), self.head.period)

    def frames_out(self, history: Tensor) -> int:
        """How many frames `forward` gives by default after ``history (batch, time, 1, x, y)``."""
        return history.shape[1] if self.target_frames is None else self.target_frames

    def times_out(self, history: Tensor) -> Times:
        """Where the head is evaluated for them."""
        frames = self.frames_out(history)
        return self.output_times(frames) if self.compat is None else self.compat.times(self.head, frames)

    def linear_head(self, history: Tensor, modes: tuple[int, int, int]) -> LinearHead:
        """The head after ``history`` as a linear function of its weights, for ``modes``, in double precision."""
        latent = self.latent(history).double()
        return self.head.linear(history[:, -1:, 0].double(), latent, self.times_out(history), self.compat, modes)

    def latent(self, history: Tensor) -> Tensor:
        """What the head sees, ``(batch, latent_frames, x, y)``: all that costs and is learned lies before it.

        Raises:
            ValueError: as `forward`.
        """
        history = self._given(history)
        values = history[:, :, 0].movedim(1, -1).unsqueeze(1)
        values = self.lifting(values)
        for block in self.blocks:
            values = block(values)
        latent: Tensor = self.reduction(values)
        return latent[:, 0].movedim(-1, 1)

    def _predict(self, history: Tensor, times: Times) -> Tensor:
        last = history[:, -1:, 0]
        correction: Tensor = self.head(last, self.latent(history), times, self.compat)
        return (last + correction).unsqueeze(2)

    def _given(self, history: Tensor) -> Tensor:
        """What the network sees of a history: its last frames, with ``compat`` all of them."""
        if self.compat is not None:
            self._check(history, self.latent_frames, TIME_UNIT)
            return history
        self._check(history, self.history_frames)
        return history[:, history.shape[1] - self.history_frames :]

    def _check(self, history: Tensor, fewest: int, most: int | None = None) -> None:
        if history.ndim != 5 or history.shape[2] != 1:
            raise ValueError(f"Expected vorticity (batch, time, 1, x, y) but got {tuple(history.shape)}.")
        frames, space = history.shape[1], tuple(history.shape[3:])
        if frames < fewest or (most is not None and frames > most):
            bounds = f"at least {fewest}" if most is None else f"{fewest} to {most}"
            raise ValueError(f"Expected {bounds} frames of history but got {frames}; start later in the trajectory.")
        if any(size < 2 * kept for size, kept in zip(space, self.modes, strict=False)):
            raise ValueError(
                f"Expected at least {tuple(2 * kept for kept in self.modes[:2])} points, two for each of the "
                f"{self.modes[:2]} modes, but got a grid of {space}; use a finer grid or fewer modes."
            )

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> SFNO:
        """The authors' network with their constructor's keywords and released weights, in our axis order.

        Args:
            config: keywords of torch-cfd's ``SFNO``; what is missing has their default.
            state_dict: under their names.

        Raises:
            ValueError: for keywords that are unknown or not supported, and for weights that do not fit.
        """
        values = {**_REFERENCE_DEFAULTS, **config}
        unknown = sorted(set(config) - set(_REFERENCE_DEFAULTS) - _REFERENCE_IGNORED)
        if unknown:
            raise ValueError(f"Expected keywords of the authors' SFNO but got {', '.join(unknown)}.")
        missing = [name for name in ("modes_x", "modes_y", "modes_t", "width") if values[name] is None]
        if missing:
            raise ValueError(f"Expected the keywords of the authors' SFNO but {', '.join(missing)} have no default.")
        if values["out_dim"] != 1:
            raise ValueError(f"Expected out_dim 1, scalar vorticity, but got {values['out_dim']}.")
        model = cls(
            history_frames=values["latent_steps"],
            target_frames=values["output_steps"],
            modes=(values["modes_x"], values["modes_y"], values["modes_t"]),
            width=values["width"],
            layers=values["num_spectral_layers"],
            latent_frames=values["latent_steps"],
            expansion=values["channel_expansion"],
            activation=str(values["activation"]).lower(),  # type: ignore[arg-type]  # checked by the constructor
            positional="products" if values["spatial_random_feats"] else "linear",
            damping=values["beta"],
            bias_strength=values["delta"],
            lifting_activation=values["lift_activation"],
            compat="torch-cfd",
            compat_options={name: values[name] for name in ("fft_norm", "spatial_padding", "temporal_padding")},
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        found = self.lifting.translations("lifting.", "lifting_operator.")
        for number, block in enumerate(self.blocks):
            assert isinstance(block, SpectralBlock)
            found += block.translations(f"blocks.{number}.", number)
        found += _pointwise_translations(self.reduction, "reduction.", "reduction.")
        return found + self.head.translations("head.", "output_operator.conv.")


class Lifting(nn.Module):
    """From one channel of vorticity ``(batch, 1, x, y, time)`` to ``(batch, width, x, y, latent_frames)``.

    The vorticity is added to each of the positional features, normalized over channels, space and time together, and
    mixed; a `SpectralConv` and a pointwise network bring it to the latent frames, its last frame is added to all.
    """

    def __init__(
        self,
        modes: tuple[int, int, int],
        width: int,
        latent_frames: int,
        expansion: int,
        activation: Activation,
        positional: Positional,
        damping: float,
        activate: bool,
        compat: _Compat | None,
    ) -> None:
        super().__init__()
        self.positional = PositionalFeatures(positional, width, modes, damping, end_point=compat is not None)
        count = self.positional.count
        self.features = Pointwise(count, width) if positional == "products" else None
        self.norm = nn.GroupNorm(1, width, eps=1e-7)
        self.mix = Pointwise(width, width)
        self.spectral = _spectral_layer(modes, width)
        self.first = Pointwise(width, expansion * width) if activate else None
        self.second = Pointwise(expansion * width if activate else width, width)
        self.latent_frames = latent_frames
        self.activation: Activation = activation
        self.compat = compat

    def forward(self, vorticity: Tensor) -> Tensor:
        """Lift ``vorticity (batch, 1, x, y, time)``."""
        features = self.positional(vorticity)
        if self.features is not None:
            features = self.features(features.unsqueeze(0))  # the vorticity is added after it
        values = self.mix(self.norm(vorticity + features))
        latent = self.spectral(values, last_size=self.latent_frames)
        if self.compat is not None:
            latent = latent * self.compat.amplitude(values.shape[-1], self.latent_frames)
        if self.first is None:
            return torch.as_tensor(self.second(latent) + values[..., -1:])
        hidden = activated(self.first(latent), self.activation)
        return activated(self.second(hidden) + values[..., -1:], self.activation)

    def translations(self, ours: str, theirs: str) -> list[Translation]:
        """The authors' names."""
        found = [
            Translation(f"{ours}norm.{part}", {f"{theirs}norm.{part}": tuple(self.norm.weight.shape)}, unchanged)
            for part in ("weight", "bias")
        ]
        if self.features is not None:
            found += _pointwise_translations(self.features, f"{ours}features.", f"{theirs}pe.proj.")
        found += _pointwise_translations(self.mix, f"{ours}mix.", f"{theirs}proj.")
        found.append(_spectral_translation(self.spectral, f"{ours}spectral.", f"{theirs}sconv."))
        if self.first is None:
            return found + _pointwise_translations(self.second, f"{ours}second.", f"{theirs}mlp.")
        found += _pointwise_translations(self.first, f"{ours}first.", f"{theirs}mlp.linear1.")
        return found + _pointwise_translations(self.second, f"{ours}second.", f"{theirs}mlp.linear2.")


class SpectralBlock(nn.Module):
    """``act(network(K v) + W v + b)`` with the `SpectralConv` ``K``; ``(batch, width, x, y, time)``."""

    def __init__(self, modes: tuple[int, int, int], width: int, expansion: int, activation: Activation) -> None:
        super().__init__()
        self.spectral = _spectral_layer(modes, width)
        self.network = ResidualMLP(width, expansion * width, activation)

    def forward(self, values: Tensor) -> Tensor:
        """Apply the block."""
        result: Tensor = self.network(self.spectral(values), values)
        return result

    def translations(self, ours: str, number: int) -> list[Translation]:
        """The authors' names."""
        return [
            _spectral_translation(self.spectral, f"{ours}spectral.", f"spectral_conv.{number}."),
            *_pointwise_translations(self.network.first, f"{ours}network.first.", f"mlp.{number}.linear1."),
            *_pointwise_translations(self.network.second, f"{ours}network.second.", f"mlp.{number}.linear2."),
            *_pointwise_translations(self.network.skip, f"{ours}network.skip.", f"w.{number}."),
        ]


class TrajectoryHead(nn.Module):
    """A correction to the last given frame: one spectral convolution in ``(x, y, time)`` of that frame and the latent.

    Last frame and latent frames fill the second half of a period in time, zeros the first. With ``y`` the Fourier
    coefficients of that, the correction has the coefficients ``weight y + bias_strength bias``: linear in its weights.

    Attributes:
        weight: ``(2 modes_x, 2 modes_y, modes_t, 2)``, waves ascending, real and imaginary part last.
        bias: of the same shape.
    """

    def __init__(self, modes: tuple[int, int, int], latent_frames: int, bias_strength: float) -> None:
        super().__init__()
        shape = (2 * modes[0], 2 * modes[1], modes[2], 2)
        self.modes = modes
        self.latent_frames = latent_frames
        self.bias_strength = bias_strength
        self.weight = nn.Parameter(torch.empty(shape).uniform_(0, _SPECTRAL_GAIN))
        self.bias = nn.Parameter(torch.zeros(shape))

    @property
    def period(self) -> int:
        """Latent frames in a period."""
        return 2 * (self.latent_frames + 1)

    def latent_times(self, horizon: int, steps: Tensor) -> Tensor:
        """Positions in the period of ``steps`` frame intervals after the last frame, of ``horizon`` in all."""
        return self.latent_frames + 1 + steps * (self.latent_frames / horizon)

    def forward(self, last: Tensor, latent: Tensor, times: Times, compat: _Compat | None = None) -> Tensor:
        """Correction ``(batch, time, x, y)`` of ``last (batch, 1, x, y)``; ``latent (batch, latent_frames, x, y)``."""
        weight, bias = torch.view_as_complex(self.weight), torch.view_as_complex(self.bias)
        weight, bias = (each.movedim(-1, 0) for each in (weight, bias * self.bias_strength))
        # No Fourier transform is made of half precision, which a latent under autocast has.
        with torch.autocast(latent.device.type, enabled=False):
            precision = torch.promote_types(latent.dtype, self.weight.dtype)
            return self.linear(last.to(precision), latent.to(precision), times, compat).correction(weight, bias)

    def linear(
        self,
        last: Tensor,
        latent: Tensor,
        times: Times,
        compat: _Compat | None = None,
        modes: tuple[int, int, int] | None = None,
    ) -> LinearHead:
        """All of the head but its weights, for its own ``modes`` or others."""
        kept = self.modes if modes is None else modes
        frames = torch.cat([last, latent], dim=1)
        if compat is None:
            waves = space_time_waves(frames, self.latent_frames + 1, self.period, kept)
            return LinearHead(waves, times, (frames.shape[2], frames.shape[3]))
        margin = compat.spatial_padding
        frames = functional.pad(frames, (margin,) * 4)
        space = (frames.shape[2], frames.shape[3])
        start = compat.start(self)
        period = start + self.latent_frames + 1
        waves = space_time_waves(frames, start, period, kept) * compat.amplitude(period, times.period)
        return LinearHead(waves, times, space, compat.amplitude(1, math.prod(space) * times.period), margin)

    def translations(self, ours: str, theirs: str) -> list[Translation]:
        """The authors' names."""
        shape = (self.modes[0], self.modes[1], self.modes[2], 2)
        return [
            Translation(
                f"{ours}weight", {f"{theirs}weight.{block}": (1, 1, *shape) for block in range(4)}, _joined_head
            ),
            Translation(f"{ours}bias", {f"{theirs}bias.{block}": shape for block in range(4)}, _joined),
        ]


class _Compat(NamedTuple):
    """What the authors' code does otherwise: where its transforms are scaled, and how the head pads."""

    fft_norm: str
    spatial_padding: int
    temporal_padding: bool

    @classmethod
    def of(cls, compat: str | None, options: Mapping[str, Any] | None) -> _Compat | None:
        if compat is None:
            if options:
                raise ValueError(f"Expected compat_options with compat='torch-cfd' only but got {dict(options)}.")
            return None
        if compat != "torch-cfd":
            raise ValueError(f"Expected compat None or 'torch-cfd' but got {compat!r}.")
        values = {name: _REFERENCE_DEFAULTS[name] for name in cls._fields} | dict(options or {})
        if set(values) != set(cls._fields) or values["fft_norm"] not in _NORMS or values["spatial_padding"] < 0:
            raise ValueError(
                f"Expected compat_options among {cls._fields}, with fft_norm one of {tuple(_NORMS)} and "
                f"spatial_padding of at least 0, but got {options}."
            )
        return cls(**values)

    def amplitude(self, size_in: int, size_out: int) -> float:
        """Factor of a wave that is transformed at one number of points and back at another."""
        return float((size_in / size_out) ** _NORMS[self.fft_norm])

    def start(self, head: TrajectoryHead) -> int:
        """Zeros before the last given frame."""
        return head.latent_frames + 1 if self.temporal_padding else 0

    def times(self, head: TrajectoryHead, frames: int) -> Times:
        """Where the authors' head puts its frames: always at the end of a period that is as long as they are many."""
        start = self.start(head)
        return Times(torch.arange(start + 1, start + 1 + frames, dtype=torch.float64), start + 1 + frames)


# Power of the number of points that a transform back divides by, in excess of the transform there.
_NORMS = {"backward": 1.0, "ortho": 0.5, "forward": 0.0}

_REFERENCE_DEFAULTS: dict[str, Any] = {
    "modes_x": None,
    "modes_y": None,
    "modes_t": None,
    "width": None,
    "out_dim": 1,
    "beta": -1e-2,
    "delta": 0.1,
    "num_spectral_layers": 4,
    "fft_norm": "backward",
    "activation": "ReLU",
    "spatial_padding": 0,
    "temporal_padding": True,
    "channel_expansion": 4,
    "spatial_random_feats": False,
    "lift_activation": True,
    "latent_steps": 10,
    "output_steps": None,
}
# Swallowed by the authors' constructor without effect.
_REFERENCE_IGNORED = {"pe_trainable", "dim_reduction"}

# Spectral weights are drawn from 0 to this over the numbers of channels in and out, as the authors draw them.
_SPECTRAL_GAIN = 0.5


def _spectral_layer(modes: tuple[int, int, int], width: int) -> SpectralConv:
    layer = SpectralConv(width, width, (2 * modes[0], 2 * modes[1], max(2 * (modes[2] - 1), 1)), bias=False)
    nn.init.uniform_(layer.weight, 0, _SPECTRAL_GAIN / width**2)
    return layer


def _check_sizes(
    channels: int,
    modes: tuple[int, int, int],
    width: int,
    layers: int,
    latent_frames: int,
    expansion: int,
    positional: Positional,
) -> None:
    if channels != 1:
        raise ValueError(f"Expected one channel, vorticity, but got {channels}; SFNO is for scalar fields.")
    if min(width, layers, latent_frames, expansion) < 1:
        raise ValueError(
            "Expected width, layers, latent_frames and expansion of at least 1 but got "
            f"{(width, layers, latent_frames, expansion)}."
        )
    if len(modes) != 3 or min(modes) < 1:
        raise ValueError(f"Expected three positive modes (x, y, time) but got {tuple(modes)}.")
    if modes[2] > latent_frames // 2 + 1:
        raise ValueError(
            f"Expected at most {latent_frames // 2 + 1} modes in time, half of {latent_frames} latent frames and one, "
            f"but got {modes[2]}; use fewer, or more latent_frames."
        )
    fewest = {"time": 1, "periodic": 5, "linear": 3, "products": 1}
    if positional not in fewest:
        raise ValueError(f"Expected positional among {tuple(fewest)} but got {positional!r}.")
    if width < fewest[positional]:
        raise ValueError(f"Expected a width of at least {fewest[positional]} for {positional!r} but got {width}.")


def _pointwise_translations(layer: Pointwise, ours: str, theirs: str) -> list[Translation]:
    channels_out, channels_in = layer.weight.shape
    return [
        Translation(f"{ours}weight", {f"{theirs}weight": (channels_out, channels_in, 1, 1, 1)}, as_matrix),
        Translation(f"{ours}bias", {f"{theirs}bias": (channels_out,)}, unchanged),
    ]


def _spectral_translation(layer: SpectralConv, ours: str, theirs: str) -> Translation:
    x, y, t = layer.modes
    shape = (layer.channels_in, layer.channels_out, x // 2, y // 2, t // 2 + 1, 2)
    return Translation(f"{ours}weight", {f"{theirs}weight.{block}": shape for block in range(4)}, _joined_by_wave)


def _joined(*blocks: Tensor) -> Tensor:
    """Four corners ``(..., x, y, time, 2)`` as one block with the waves along x and y ascending."""
    lower, upper = torch.cat([blocks[1], blocks[0]], dim=-4), torch.cat([blocks[3], blocks[2]], dim=-4)
    return torch.cat([upper, lower], dim=-3)


def _joined_head(*blocks: Tensor) -> Tensor:
    return _joined(*blocks)[0, 0]


def _joined_by_wave(*blocks: Tensor) -> Tensor:
    return _joined(*blocks).permute(4, 3, 2, 0, 1, 5).flatten(0, 2).contiguous()

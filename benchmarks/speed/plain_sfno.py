"""A plain spatiotemporal Fourier neural operator: the rival for speed, and an oracle for tests.

Every step is what a reader of the paper would write with torch's own functions: the whole spectrum by ``rfftn``, one
``einsum`` for each corner of kept waves, a spectrum of zeros filled and inverted, pointwise networks as `nn.Conv3d`.
It was written without a thought for speed, for or against, and shares no code with `pdesurrogate`. Parameters have the
names that the authors gave them, so their weights load with ``load_state_dict``.

S. Cao, F. Brarda, R. Li, Y. Xi, "Spectral-Refiner: Accurate Fine-Tuning of Spatiotemporal Fourier Neural Operator for
Turbulent Flows", ICLR 2025 (arXiv:2405.17211), as released: amplitude and phase depend on the number of output frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS = {"ReLU": nn.ReLU, "GELU": nn.GELU}
LONGEST_HISTORY = 100


class CornerConv(nn.Module):
    """Products with complex weights on the four corners of lowest waves of ``(batch, channel, x, y, time)``.

    Corner ``ix + 2 * iy`` holds the waves ``0 ... mx - 1`` of x where ``ix`` is 0 and ``-mx ... -1`` where it is 1, the
    same for y, and the first ``mt`` waves of time. Transforms have the norm "backward" in both directions, also where
    the number of frames changes, so the amplitude falls by the ratio of both numbers.
    """

    def __init__(self, channels_in: int, channels_out: int, modes: tuple[int, int, int], delta: float | None) -> None:
        super().__init__()
        self.modes = modes
        self.delta = delta
        gain = 0.5 / (channels_in * channels_out)
        self.weight = nn.ParameterList(
            nn.Parameter(gain * torch.rand(channels_in, channels_out, *modes, 2)) for _ in range(4)
        )
        if delta is not None:
            self.bias = nn.ParameterList(nn.Parameter(torch.zeros(*modes, 2)) for _ in range(4))

    def forward(self, values: Tensor, frames: int) -> Tensor:
        """The product, inverted on ``frames`` frames."""
        modes_x, modes_y, modes_t = self.modes
        *_, size_x, size_y, _ = values.shape
        spectrum = torch.fft.rfftn(values, dim=(-3, -2, -1))
        channels_out = self.weight[0].shape[1]
        product = spectrum.new_zeros(len(values), channels_out, *spectrum.shape[2:])
        for corner, weight in enumerate(self.weight):
            rows = slice(None, modes_x) if corner % 2 == 0 else slice(-modes_x, None)
            columns = slice(None, modes_y) if corner // 2 == 0 else slice(-modes_y, None)
            kept = spectrum[:, :, rows, columns, :modes_t]
            block = torch.einsum("bixyt,ioxyt->boxyt", kept, torch.view_as_complex(weight))
            if self.delta is not None:
                block = block + self.delta * torch.view_as_complex(self.bias[corner])
            product[:, :, rows, columns, :modes_t] = block
        return torch.fft.irfftn(product, s=(size_x, size_y, frames), dim=(-3, -2, -1))


class PointwiseMLP(nn.Module):
    """Two pointwise layers with an activation between them."""

    def __init__(self, width: int, expansion: int, activation: str) -> None:
        super().__init__()
        self.linear1 = nn.Conv3d(width, expansion * width, 1)
        self.activation = ACTIVATIONS[activation]()
        self.linear2 = nn.Conv3d(expansion * width, width, 1)

    def forward(self, values: Tensor) -> Tensor:
        """Apply both to ``(batch, width, x, y, time)``."""
        return self.linear2(self.activation(self.linear1(values)))


class PositionalEncoding(nn.Module):
    """A field ``(batch, 1, x, y, time)`` plus an encoding of position and time in every channel.

    The encoding is made in float32, kept until the shape changes, and cast.
    """

    def __init__(self, modes: tuple[int, int, int], width: int, beta: float, random_features: bool) -> None:
        super().__init__()
        self.modes = modes
        self.width = width
        self.beta = beta
        self.encoding: Tensor | None = None
        if random_features:
            modes_x, modes_y, modes_t = modes
            self.proj = nn.Conv3d(3 + (modes_x // 2) * (modes_y // 2) * (modes_t // 2), width, 1)
        else:
            self.proj = None

    def forward(self, field: Tensor) -> Tensor:
        """The sum, of ``width`` channels."""
        shape = field.shape[2:]
        if self.encoding is None or self.encoding.shape[2:] != shape:
            make = self._harmonics if self.proj is None else self._features
            self.encoding = make(*shape)[None]
        encoding = self.encoding.to(field)
        return field + (encoding if self.proj is None else self.proj(encoding))

    def _coordinates(self, *shape: int) -> list[Tensor]:
        size_x, size_y, frames = shape
        times = torch.arange(1, frames + 1, dtype=torch.float32) / LONGEST_HISTORY
        lines = [torch.linspace(0, 1, size_x), torch.linspace(0, 1, size_y), times]
        return list(torch.meshgrid(*lines, indexing="ij"))

    def _harmonics(self, *shape: int) -> Tensor:
        coordinates = self._coordinates(*shape)
        times = coordinates[-1]
        channels = [
            torch.exp(self.beta * times) * (torch.cos if index % 2 else torch.sin)(math.pi * (index + 1) * times)
            for index in range(self.width - 3)
        ]
        return torch.stack([*coordinates, *channels])

    def _features(self, *shape: int) -> Tensor:
        x, y, times = coordinates = self._coordinates(*shape)
        modes_x, modes_y, modes_t = self.modes

        def basis(wave: int, coordinate: Tensor) -> Tensor:
            return (torch.cos if wave % 2 else torch.sin)(math.pi * wave * coordinate)

        channels = [
            torch.exp(self.beta * times) * basis(i, x) * basis(j, y) * basis(k, times) / (i * j * k)
            for i in range(1, modes_x // 2 + 1)
            for j in range(1, modes_y // 2 + 1)
            for k in range(1, modes_t // 2 + 1)
        ]
        return torch.stack([*coordinates, *channels])


class Lifting(nn.Module):
    """From the given frames to ``width`` channels on the latent frames."""

    def __init__(
        self,
        modes: tuple[int, int, int],
        width: int,
        latent_frames: int,
        beta: float,
        expansion: int,
        activation: str,
        activate: bool,
        random_features: bool,
    ) -> None:
        super().__init__()
        self.latent_frames = latent_frames
        self.pe = PositionalEncoding(modes, width, beta, random_features)
        self.norm = nn.GroupNorm(1, width, eps=1e-7)
        self.proj = nn.Conv3d(width, width, 1)
        self.sconv = CornerConv(width, width, modes, delta=None)
        self.mlp = PointwiseMLP(width, expansion, activation) if activate else nn.Conv3d(width, width, 1)
        self.activation = ACTIVATIONS[activation]() if activate else nn.Identity()

    def forward(self, field: Tensor) -> Tensor:
        """Lift ``field (batch, 1, x, y, time)``."""
        values = self.proj(self.norm(self.pe(field)))
        mixed = self.mlp(self.sconv(values, self.latent_frames))
        return self.activation(values[..., -1:] + mixed)


class Head(nn.Module):
    """The last given frame plus a correction, which is a spectral product of that frame followed by the latent ones."""

    def __init__(self, modes: tuple[int, int, int], delta: float, spatial_padding: int, temporal_padding: bool) -> None:
        super().__init__()
        self.conv = CornerConv(1, 1, modes, delta)
        self.spatial_padding = spatial_padding
        self.temporal_padding = temporal_padding

    def forward(self, latent: Tensor, field: Tensor, frames: int) -> Tensor:
        """Predict ``frames`` frames from ``latent`` and ``field``, both ``(batch, 1, x, y, time)``."""
        last = field[..., -1:]
        values = torch.cat([last, latent], dim=-1)
        space = self.spatial_padding
        time = values.shape[-1] if self.temporal_padding else 0
        values = functional.pad(values, (time, 0, space, space, space, space))
        correction = self.conv(values, frames + 1 + time)[..., -frames:]
        if space:
            correction = correction[:, :, space:-space, space:-space]
        return last + correction


class PlainSFNO(nn.Module):
    """Vorticity ``(batch, x, y, time)`` to the ``out_steps`` frames that follow; keywords are those of the authors.

    Example:
        >>> network = PlainSFNO(modes_x=4, modes_y=4, modes_t=3, width=6, latent_steps=6)
        >>> network(torch.zeros(2, 16, 16, 8), out_steps=12).shape
        torch.Size([2, 16, 16, 12])
    """

    def __init__(
        self,
        modes_x: int,
        modes_y: int,
        modes_t: int,
        width: int,
        beta: float = -1e-2,
        delta: float = 0.1,
        num_spectral_layers: int = 4,
        activation: str = "ReLU",
        spatial_padding: int = 0,
        temporal_padding: bool = True,
        channel_expansion: int = 4,
        spatial_random_feats: bool = False,
        lift_activation: bool = True,
        latent_steps: int = 10,
        output_steps: int | None = None,
    ) -> None:
        super().__init__()
        modes = (modes_x, modes_y, modes_t)
        self.latent_steps = latent_steps
        self.output_steps = output_steps
        self.lifting_operator = Lifting(
            modes, width, latent_steps, beta, channel_expansion, activation, lift_activation, spatial_random_feats
        )
        layers = range(num_spectral_layers - 1)
        self.spectral_conv = nn.ModuleList(CornerConv(width, width, modes, delta=None) for _ in layers)
        self.mlp = nn.ModuleList(PointwiseMLP(width, channel_expansion, activation) for _ in layers)
        self.w = nn.ModuleList(nn.Conv3d(width, width, 1) for _ in layers)
        self.activation = ACTIVATIONS[activation]()
        self.reduction = nn.Conv3d(width, 1, 1)
        self.output_operator = Head(modes, delta, spatial_padding, temporal_padding)

    def forward(self, vorticity: Tensor, out_steps: int | None = None) -> Tensor:
        """Predict ``out_steps`` frames; by default those asked for at construction, or else as many as are given."""
        field = vorticity.unsqueeze(1)
        frames = out_steps or self.output_steps or field.shape[-1]
        values = self.lifting_operator(field)
        for spectral, mlp, skip in zip(self.spectral_conv, self.mlp, self.w, strict=True):
            values = self.activation(mlp(spectral(values, self.latent_steps)) + skip(values))
        return self.output_operator(self.reduction(values), field, frames).squeeze(1)

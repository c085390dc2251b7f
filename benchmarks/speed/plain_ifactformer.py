"""A plain IFactFormer: the rival for speed, and an oracle for tests.

Every step is what a reader of the paper would write with torch's own functions: `nn.Linear`, ``einsum``, ``cat`` and
`nn.InstanceNorm3d`. It was written without a thought for speed, for or against, and shares no code with `pdesurrogate`.
Parameters have the names that the authors gave them, so their weights load with ``load_state_dict``, and so have the
keywords of the constructor; ``variant`` is ours.

Yang et al., "Implicit factorized transformer approach to fast prediction of turbulent channel flows", Sci. China Phys.
Mech. Astron. 69, 214606, 2026 (arXiv:2412.18840), as released.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Along the axis of each kernel.
FORMULAS = ("bhij,bhjmsc->bhimsc", "bhlm,bhimsc->bhilsc", "bhrs,bhilsc->bhilrc")
SMALL_GAIN = 0.02


class RandomFeatures(nn.Module):
    """Sines and cosines of the place with frequencies that stay as they were drawn."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._B = nn.Parameter(8 * torch.randn(3, dim // 2), requires_grad=False)

    def forward(self, grid: Tensor) -> Tensor:
        """``(x, y, z, 3)`` to ``(x, y, z, dim)``."""
        angles = 2 * math.pi * (grid @ self._B)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class GatedGELU(nn.Module):
    """One half of the channels, times the GELU of the other."""

    def forward(self, values: Tensor) -> Tensor:
        """Half as many channels."""
        gate, passed = values.chunk(2, dim=-1)
        return nn.functional.gelu(gate) * passed


class FeedForward(nn.Module):
    """A gated network with one hidden layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, 2 * dim), GatedGELU(), nn.Identity(), nn.Linear(dim, dim))

    def forward(self, values: Tensor) -> Tensor:
        """As many channels."""
        return self.net(values)


class NormalizedFeedForward(nn.Module):
    """`FeedForward` of what a layer norm gives."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = FeedForward(dim)

    def forward(self, values: Tensor) -> Tensor:
        """As many channels."""
        return self.fn(self.norm(values))


class Foremost(nn.Module):
    """Moves one axis of space before the others."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, values: Tensor) -> Tensor:
        """Of ``(batch, x, y, z, channel)``."""
        return values.movedim(1 + self.axis, 1)


class PoolingReducer(nn.Module):
    """A linear map, the mean over all axes of space but the first, and a gated network."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_in = nn.Linear(dim, dim, bias=False)
        self.out_ffn = NormalizedFeedForward(dim)

    def forward(self, values: Tensor) -> Tensor:
        """``(batch, n, ..., dim)`` to ``(batch, n, dim)``."""
        return self.out_ffn(self.to_in(values).mean((2, 3)))


class RotaryEmbedding(nn.Module):
    """Turns pairs of features by angles that grow with the coordinate."""

    inv_freq: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 10000 ** (-torch.arange(0, features, 2) / features))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``(n, features)``."""
        angles = (points * 64)[:, None] * self.inv_freq
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


class LowRankKernel(nn.Module):
    """Products of queries and keys, ``(batch, heads, n, n)``."""

    def __init__(self, dim: int, heads: int, dim_head: int, kernel_multiplier: int) -> None:
        super().__init__()
        features = kernel_multiplier * dim_head
        self.heads = heads
        self.scale = 1.0 if kernel_multiplier <= 4 else features**-0.5
        self.to_q = nn.Linear(dim, heads * features, bias=False)
        self.to_k = nn.Linear(dim, heads * features, bias=False)
        self.pos_emb = RotaryEmbedding(features)
        for layer in (self.to_q, self.to_k):
            nn.init.xavier_uniform_(layer.weight, gain=SMALL_GAIN)

    def forward(self, summary: Tensor, points: Tensor) -> Tensor:
        """From ``summary (batch, n, dim)`` at the coordinates ``points (n,)``."""
        cosines, sines = self.pos_emb(points)
        turned = []
        for layer in (self.to_q, self.to_k):
            features = layer(summary).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            low, high = features.chunk(2, dim=-1)
            turned.append(features * cosines + torch.cat([-high, low], dim=-1) * sines)
        return torch.einsum("bhic,bhjc->bhij", *turned) * self.scale


class ChannelsFirst(nn.Module):
    """``(batch, x, y, z, channel)`` to ``(batch, channel, x, y, z)``."""

    def forward(self, values: Tensor) -> Tensor:
        """A view."""
        return values.movedim(-1, 1)


class ChannelsLast(nn.Module):
    """``(batch, channel, x, y, z)`` to ``(batch, x, y, z, channel)``."""

    def forward(self, values: Tensor) -> Tensor:
        """A view."""
        return values.movedim(1, -1)


class PlaneNorm(nn.Module):
    """One mean and variance for all channels of a plane of constant ``x``; ``(batch, x, y, z, channel)``.

    It is what `nn.InstanceNorm3d` does where channels come last, as in the code of February 2025, apart from its
    warning.
    """

    def forward(self, values: Tensor) -> Tensor:
        """The normalized values."""
        return nn.functional.instance_norm(values.flatten(2)).view_as(values)


class Attention(nn.Module):
    """What is iterated: kernels of all axes, side by side (``IFactFormer_m``) or one after the other."""

    def __init__(
        self, dim: int, heads: int, dim_head: int, kernel_multiplier: int, chained: bool, february: bool
    ) -> None:
        super().__init__()
        inner = heads * dim_head * (1 if chained else 3)
        self.heads = heads
        self.chained = chained
        self.in_norm = nn.LayerNorm(dim)
        self.to_v = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_in = nn.Linear(dim, dim, bias=False)
        self.to_x = nn.Sequential(PoolingReducer(dim))
        self.to_y, self.to_z = (nn.Sequential(Foremost(axis), PoolingReducer(dim)) for axis in (1, 2))
        self.low_rank_kernel_x, self.low_rank_kernel_y, self.low_rank_kernel_z = (
            LowRankKernel(dim, heads, dim_head, kernel_multiplier) for _ in range(3)
        )
        project, leave = nn.Linear(inner, dim, bias=False), nn.Linear(dim, dim, bias=False)
        if february:
            self.to_out = nn.Sequential(PlaneNorm(), project, nn.GELU(), leave)
            last = (nn.Linear(dim, dim, bias=False) for _ in range(2))
            self.to_out_1: nn.Module = nn.Sequential(next(last), nn.GELU(), next(last))
        else:
            norm = nn.Sequential(ChannelsFirst(), nn.InstanceNorm3d(inner))
            self.to_out = nn.Sequential(norm, ChannelsLast(), project, nn.GELU(), leave)
            self.to_out_1 = nn.Identity()

    def forward(self, values: Tensor, places: Sequence[Tensor]) -> Tensor:
        """Change of ``values (batch, x, y, z, dim)``."""
        normal = self.in_norm(values)
        lifted = self.to_v(normal).unflatten(-1, (self.heads, -1)).permute(0, 4, 1, 2, 3, 5)
        entered = self.to_in(normal)
        kernels = [
            self.low_rank_kernel_x(self.to_x(entered), places[0]),
            self.low_rank_kernel_y(self.to_y(entered), places[1]),
            self.low_rank_kernel_z(self.to_z(entered), places[2]),
        ]
        if self.chained:
            applied = lifted
            for formula, kernel in zip(FORMULAS, kernels, strict=True):
                applied = torch.einsum(formula, kernel, applied)
        else:
            terms = zip(FORMULAS, kernels, strict=True)
            applied = torch.cat([torch.einsum(formula, kernel, lifted) for formula, kernel in terms], dim=-1)
        return self.to_out_1(self.to_out(applied.permute(0, 2, 3, 4, 1, 5).flatten(4)))


class Encoder(nn.Module):
    """Blocks: the code of the place is added, then so often a fraction of what `Attention` gives."""

    def __init__(self, blocks: Sequence[nn.ModuleList], iterations: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        self.iterations = iterations

    def forward(self, values: Tensor, places: Sequence[Tensor]) -> Tensor:
        """Of ``values (batch, x, y, z, dim)``."""
        grid = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1)
        for code, attention in self.layers:
            values = values + code(grid)
            for _ in range(self.iterations):
                values = values + attention(values, places) / self.iterations
        return values


class PlainIFactFormer(nn.Module):
    """Frames ``(batch, time, channel, x, y, z)`` to the frame that follows; keywords and their meaning the authors'."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        in_time_window: int,
        dim: int,
        heads: int,
        depth: int,
        dim_head: int,
        n_layer: int,
        model: str,
        kernel_multiplier: int = 3,
        variant: str = "head",
    ) -> None:
        super().__init__()
        self.to_in = nn.Sequential(
            nn.Conv2d(in_dim, dim // 2, kernel_size=1, groups=in_dim),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, kernel_size=(in_time_window, 1), bias=False),
        )
        options = (kernel_multiplier, model == "IFactFormer_o", variant == "feb2025")
        blocks = [
            nn.ModuleList(
                [nn.Sequential(RandomFeatures(dim), nn.Linear(dim, dim)), Attention(dim, heads, dim_head, *options)]
            )
            for _ in range(depth)
        ]
        self.encoder = Encoder(blocks, n_layer)
        self.simple_to_out = nn.Sequential(
            nn.Identity(),
            nn.Conv1d(dim, dim // 2, kernel_size=1, bias=False),
            nn.GELU(),
            nn.Conv1d(dim // 2, out_dim, kernel_size=1),
        )

    def forward(self, history: Tensor, places: Sequence[Tensor]) -> Tensor:
        """The frame after ``history`` on a grid with coordinates ``places``, ``(n,)`` of each axis."""
        space = history.shape[3:]
        lifted = self.to_in(history.transpose(1, 2).flatten(3))
        encoded = self.encoder(lifted.squeeze(2).unflatten(2, space).movedim(1, -1), places)
        result = self.simple_to_out(encoded.movedim(-1, 1).flatten(2))
        return result.unflatten(2, space).unsqueeze(1)

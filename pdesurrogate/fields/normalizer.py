"""Channel statistics gathered in one streaming pass, and the normalizer that they feed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RunningMoments:
    """Mean and standard deviation of each channel, accumulated in float64 block by block.

    Blocks are merged by the parallel update of Chan, Golub & LeVeque (1979), which stays accurate when the mean
    is large beside the deviation.

    Args:
        channels: of the values.
        kept: space axes whose points have moments of their own, such as the one between two walls; all others are
            averaged over.

    Example:
        >>> moments = RunningMoments(channels=1)
        >>> moments.update(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3))
        >>> moments.update(torch.tensor([4.0]).reshape(1, 1, 1))
        >>> moments.mean.item(), round(moments.std.item() ** 2, 6)
        (2.5, 1.25)
    """

    def __init__(self, channels: int, kept: Sequence[int] = ()) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, *(1,) * len(kept), dtype=torch.float64)
        self._squares = torch.zeros_like(self.mean)
        self._kept = tuple(kept)

    def update(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Add ``values (time, channel, *space)``, those in the fluid alone where there is a mask ``(*space)``.

        Raises:
            ValueError: if a value is not finite, naming the first frame and channel, a kept axis has another number of
                points than before, or axes are kept and there is a mask.
        """
        if not bool(torch.isfinite(values).all()):
            frame, channel = (~torch.isfinite(values)).flatten(2).any(-1).nonzero()[0].tolist()
            raise ValueError(
                f"Expected finite values but frame {frame}, channel {channel} holds NaN or infinity. "
                "Remove or regenerate that trajectory."
            )
        if mask is not None:
            if self._kept:
                raise ValueError("Expected data without a mask for a mean profile, but there are bodies in the flow.")
            values = values[..., mask]
        others = [axis for axis in range(values.ndim - 2) if axis not in self._kept]
        order = (1, *(2 + axis for axis in self._kept), 0, *(2 + axis for axis in others))
        flat = values.detach().to("cpu", torch.float64).permute(order).flatten(1 + len(self._kept))
        if self.count and flat.shape[:-1] != self.mean.shape:
            raise ValueError(
                f"Expected {tuple(self.mean.shape[1:])} points along axes {self._kept}, as before, but got "
                f"{tuple(flat.shape[1:-1])}: a mean profile needs trajectories on one grid."
            )
        count = flat.shape[-1]
        mean = flat.mean(-1)
        squares = (flat - mean[..., None]).square().sum(-1)
        shift = mean - self.mean
        total = self.count + count
        self._squares = self._squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        """Population standard deviation, shaped as the mean: ``(channel, *points of the kept axes)``."""
        return (self._squares / max(self.count, 1)).sqrt()


class Normalizer(nn.Module):
    """Affine map of each channel to zero mean and unit deviation, and back; ``(batch, time, channel, *space)``.

    The mean is a number, or a profile along some axes of space: then what is normalized is the fluctuation about it.
    The statistics are buffers, so they follow the module's device and travel in its checkpoint. A constant channel
    keeps scale one.

    Args:
        channels: of the values.
        profile: points of the mean along each axis of space, one where it is the same at all of them; without, the mean
            of a channel is one number.

    Example:
        >>> normalizer = Normalizer(channels=1, profile=(1, 3))
        >>> normalizer.set_statistics(mean=torch.tensor([[[1.0, 2.0, 3.0]]]), std=torch.tensor([0.5]))
        >>> normalizer.normalize(torch.tensor([1.0, 3.0, 3.0]).expand(1, 1, 1, 4, 3))[0, 0, 0, 0].tolist()
        [0.0, 2.0, 0.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, profile: Sequence[int] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, *profile))
        self.register_buffer("std", torch.ones(channels))

    @property
    def profile(self) -> tuple[int, ...]:
        """Points of the mean along each axis of space; empty where it is one number a channel."""
        return tuple(self.mean.shape[1:])

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the mean ``(channel, *profile)`` and the deviation ``(channel,)``.

        Raises:
            ValueError: if the number of channels or the points of the profile differ or a statistic is not finite.
        """
        if mean.shape[:1] != self.std.shape or std.shape != self.std.shape:
            raise ValueError(f"Expected statistics of {len(self.std)} channels but got {len(mean)} and {len(std)}.")
        if mean.shape != self.mean.shape:
            raise ValueError(
                f"Expected a mean with {self.profile or 'no'} points along the axes but got "
                f"{tuple(mean.shape[1:]) or 'none'}."
            )
        if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise ValueError("Expected finite channel statistics; the data hold NaN or infinity.")
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def normalize(self, values: Tensor) -> Tensor:
        """Physical to normalized values."""
        return (values - self._column(self.mean, values)) / self._column(self.std, values)

    def denormalize(self, values: Tensor) -> Tensor:
        """Normalized to physical values."""
        return values * self._column(self.std, values) + self._column(self.mean, values)

    @staticmethod
    def _column(statistic: Tensor, values: Tensor) -> Tensor:
        return statistic if statistic.ndim > 1 else statistic.reshape(-1, *(1,) * (values.ndim - 3))

    def extra_repr(self) -> str:
        """Channels and profile, shown by ``print``."""
        return f"channels={len(self.std)}" + (f", profile={self.profile}" if self.profile else "")

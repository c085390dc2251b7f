"""Channel statistics gathered in one streaming pass, and the normalizer that they feed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments:
    """Mean and standard deviation of each channel, accumulated in float64 block by block.

    Blocks are merged by the parallel update of Chan, Golub & LeVeque (1979), which stays accurate when the mean
    is large beside the deviation.

    Example:
        >>> moments = RunningMoments(channels=1)
        >>> moments.update(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3))
        >>> moments.update(torch.tensor([4.0]).reshape(1, 1, 1))
        >>> moments.mean.item(), round(moments.std.item() ** 2, 6)
        (2.5, 1.25)
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """Add ``values (time, channel, *space)``.

        Raises:
            ValueError: if a value is not finite, naming the first frame and channel.
        """
        if not bool(torch.isfinite(values).all()):
            frame, channel = (~torch.isfinite(values)).flatten(2).any(-1).nonzero()[0].tolist()
            raise ValueError(
                f"Expected finite values but frame {frame}, channel {channel} holds NaN or infinity. "
                "Remove or regenerate that trajectory."
            )
        flat = values.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
        count = flat.shape[1]
        mean = flat.mean(1)
        squares = (flat - mean[:, None]).square().sum(1)
        shift = mean - self.mean
        total = self.count + count
        self._squares += squares + shift.square() * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        """Population standard deviation ``(channel,)``."""
        return (self._squares / max(self.count, 1)).sqrt()


class Normalizer(nn.Module):
    """Affine map of each channel to zero mean and unit deviation, and back; ``(batch, time, channel, *space)``.

    The statistics are buffers, so they follow the module's device and travel in its checkpoint. A constant channel
    keeps scale one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the statistics ``(channel,)`` of a `RunningMoments`.

        Raises:
            ValueError: if the number of channels differs or a statistic is not finite.
        """
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ValueError(
                f"Expected statistics of {self.mean.numel()} channels but got {mean.numel()} and {std.numel()}."
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
        return statistic.reshape(-1, *(1,) * (values.ndim - 3))

    def extra_repr(self) -> str:
        """Channels, shown by ``print``."""
        return f"channels={self.mean.numel()}"

"""Both halves of a profile that is even or odd in its middle."""

from __future__ import annotations

from torch import Tensor


def fold(profile: Tensor, parity: float | Tensor = 1) -> Tensor:
    """Mean of both halves of ``profile (..., n)`` on points that are symmetric; ``(..., (n + 1) // 2)``, from the wall.

    Args:
        profile: over the whole height.
        parity: 1 where a quantity is even under reflection in the mid-plane, such as the mean velocity along the wall;
            -1 where it is odd, such as a shear stress. May be a tensor that broadcasts to the profile.

    Example:
        >>> import torch
        >>> fold(torch.tensor([1.0, 2.0, 0.0, -2.0, -3.0]), parity=-1).tolist()
        [2.0, 2.0, 0.0]
    """
    half = (profile.shape[-1] + 1) // 2
    return ((profile + parity * profile.flip(-1)) / 2)[..., :half]

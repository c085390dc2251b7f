"""Losses, named for what they are. Fields arrive in units of each channel's deviation, their mean kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from torch import Tensor

from pdesurrogate.fields.grid import Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.norms import relative_bochner_error, sobolev_norm, torch_cfd_relative_sobolev, weighted_mean

# The square root has no derivative at zero: a vanishing error gets this mean square and gradient zero.
_TINY = 1e-30

# Keeps the relative error of an almost vanishing target finite: 1e-6 of one standard deviation.
_FLOOR = 1e-6


class Loss(Protocol):
    """Scalar distance of a prediction from its target."""

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """Scalar; fields ``(batch, time, channel, *space)``."""
        ...


class RelativeL2PerChannel:
    """``mean over (batch, time, channel) of |prediction - target| / |target|``: every channel counts the same.

    SineNet's ``scaledl2`` (Zhang et al., arXiv:2403.19507). Where the target is zero throughout, the ratio is a million
    times the error in units of the channel's deviation: finite, and more than all else.
    """

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        error, size = _mean_squares(prediction, target, context, grid)
        return (_root(error) / (_root(size) + _FLOOR)).mean()


class RelativeL2Joint:
    """``mean over (batch, time) of |prediction - target| / |target|``, norms over all channels together.

    Large channels drown small ones; see `RelativeL2PerChannel`. With ``frames="together"`` it is what PDEArena calls
    ``scaledl2``, a name that SineNet's code has for `RelativeL2PerChannel`.

    Args:
        frames: a ratio for each frame (``"apart"``), or one a sample with norms over all its frames (``"together"``).

    Raises:
        ValueError: for other ``frames``.
    """

    def __init__(self, frames: Literal["apart", "together"] = "apart") -> None:
        if frames not in ("apart", "together"):
            raise ValueError(f"Expected frames 'apart' or 'together' but got {frames!r}.")
        self.frames = frames

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        error, size = _mean_squares(prediction, target, context, grid)
        if self.frames == "together":
            error, size = error.sum(1, keepdim=True), size.sum(1, keepdim=True)
        return (_root(error.sum(-1)) / (_root(size.sum(-1)) + _FLOOR)).mean()


class RelativeSobolev:
    """``mean over (batch, time, channel) of |prediction - target|_s / |target|_s`` in ``H^s`` of a periodic box.

    Args:
        order: ``s``; 1 stresses fine scales, -1 coarse ones, 0 is `RelativeL2PerChannel`.
        alpha: weight of the mean, see `physics.norms.sobolev_norm`.
    """

    def __init__(self, order: float = 1.0, alpha: float = 1.0) -> None:
        self.order = order
        self.alpha = alpha

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        error = sobolev_norm(prediction - target, grid.periods, self.order, self.alpha)
        return (error / (sobolev_norm(target, grid.periods, self.order, self.alpha) + _FLOOR)).mean()


class RelativeBochner:
    """``mean over (batch, channel) of |prediction - target| / |target|`` in ``L2(0, T; H^s)`` of a periodic box.

    Norms are over all frames together, so that one in which the target almost vanishes counts no more than others.

    Args:
        order: ``s``; 1 stresses fine scales, -1 coarse ones.
        alpha: weight of the mean, see `physics.norms.sobolev_norm`.
    """

    def __init__(self, order: float = 0.0, alpha: float = 1.0) -> None:
        self.order = order
        self.alpha = alpha

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        return relative_bochner_error(prediction, target, grid.periods, self.order, self.alpha, floor=_FLOOR)


class TorchCFDSobolev:
    """The training loss of torch-cfd's recipes, to reproduce them; see `physics.norms.torch_cfd_relative_sobolev`.

    With the recipes' order 0 it is ``1 / frames^(1/2)`` of `RelativeBochner` of order 1, on a box of side ``diameter``
    whatever the grid says. As it is relative, the units of fields do not matter.

    Args:
        order: as the authors name it; really half of it, or 1 for 0.
        alpha: weight of the mean.
        diameter: side of the box as the authors give it, who leave it at 1.
    """

    def __init__(self, order: float = 0.0, alpha: float = 0.1, diameter: float = 1.0) -> None:
        self.order = order
        self.alpha = alpha
        self.diameter = diameter

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean over samples and channels."""
        return torch_cfd_relative_sobolev(prediction, target, self.order, self.alpha, self.diameter).mean()


class MeanSquaredError:
    """``mean |prediction - target|^2``, in units of each channel's variance."""

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean over everything."""
        error, _ = _mean_squares(prediction, target, context, grid)
        return error.mean()


def require_nonzero_channels(names: Sequence[str], mean: Tensor, std: Tensor) -> None:
    """Refuse data with a channel that is zero throughout: there is no error relative to it.

    Args:
        names: of the channels.
        mean: of each, over the training split, ``(channel,)``.
        std: deviation of each from its mean, ``(channel,)``.

    Raises:
        ValueError: naming the channels.

    Example:
        >>> from torch import tensor
        >>> require_nonzero_channels(["u", "v"], tensor([0.0, 3.0]), tensor([1.0, 0.0]))
    """
    zero = [name for name, *moments in zip(names, mean.tolist(), std.tolist(), strict=True) if not any(moments)]
    if zero:
        raise ValueError(
            f"Expected channels that are not zero throughout but the training split's {', '.join(zero)} "
            f"{'is' if len(zero) == 1 else 'are'}, and no error is relative to zero; leave such channels out of the "
            "data."
        )


def _root(mean_square: Tensor) -> Tensor:
    return mean_square.clamp_min(_TINY).sqrt()


def _mean_squares(prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> tuple[Tensor, Tensor]:
    weights = grid.quadrature_weights(context.coordinates)
    error = (prediction - target).square()
    size = target.square()
    return weighted_mean(error, weights), weighted_mean(size, weights)

"""Losses, named for what they are. Fields arrive in units of each channel's deviation, their mean kept.

A mean over channels may be weighted: ``weights`` are one number for each channel, and only their ratios matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.grid import Axis, Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.norms import bochner_norm, sobolev_norm, torch_cfd_relative_sobolev, weighted_mean
from pdesurrogate.physics.spectral import squared_magnitude

# The square root has no derivative at zero: a vanishing error gets this mean square and gradient zero.
_TINY = 1e-30

# Fluctuations below this share of a channel's deviation count as this.
_WEAKEST = 1e-3

# Keeps the relative error of an almost vanishing target finite: 1e-6 of one standard deviation.
_FLOOR = 1e-6

# Gaps between evenly spaced points differ from the spacing by this share of it at most.
_UNEVEN = 1e-3


class Loss(Protocol):
    """Scalar distance of a prediction from its target."""

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """Scalar; fields ``(batch, time, channel, *space)``."""
        ...


class RelativeL2PerChannel:
    """``mean over (batch, time, channel) of |prediction - target| / |target|``: every channel counts the same.

    SineNet's ``scaledl2`` (Zhang et al., arXiv:2403.19507). Where the target is zero throughout, the ratio is a million
    times the error in units of the channel's deviation: finite, and more than all else.

    Args:
        weights: of the channels in the mean over them, all alike if not given.

    Raises:
        ValueError: for weights that are negative or all zero; in use, for others than one for each channel.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = _channel_weights(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        error, size = _mean_squares(prediction, target, context, grid)
        return _channel_mean(_root(error) / (_root(size) + _FLOOR), self.weights)


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
        weights: of the channels, see `RelativeL2PerChannel`.
    """

    def __init__(self, order: float = 1.0, alpha: float = 1.0, weights: Sequence[float] | None = None) -> None:
        self.order = order
        self.alpha = alpha
        self.weights = _channel_weights(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        error, size = (
            sobolev_norm(field, grid.periods, self.order, self.alpha) for field in (prediction - target, target)
        )
        return _channel_mean(error / (size + _FLOOR), self.weights)


class RelativeBochner:
    """``mean over (batch, channel) of |prediction - target| / |target|`` in ``L2(0, T; H^s)`` of a periodic box.

    Norms are over all frames together, so that one in which the target almost vanishes counts no more than others.

    Args:
        order: ``s``; 1 stresses fine scales, -1 coarse ones.
        alpha: weight of the mean, see `physics.norms.sobolev_norm`.
        weights: of the channels, see `RelativeL2PerChannel`.
    """

    def __init__(self, order: float = 0.0, alpha: float = 1.0, weights: Sequence[float] | None = None) -> None:
        self.order = order
        self.alpha = alpha
        self.weights = _channel_weights(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        error, size = (
            bochner_norm(sobolev_norm(field, grid.periods, self.order, self.alpha))
            for field in (prediction - target, target)
        )
        return _channel_mean(error / (size + _FLOOR), self.weights)


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
    """``mean |prediction - target|^2``, in units of each channel's variance.

    Args:
        weights: of the channels, see `RelativeL2PerChannel`.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = _channel_weights(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean over everything."""
        error, _ = _mean_squares(prediction, target, context, grid)
        return _channel_mean(error, self.weights)


class NormalizedMSE:
    """``sum |prediction - target|^2 / sum |target|^2`` over the batch, its frames, channels and points: one ratio.

    What the networks of CFDBench are trained with (Luo, Chen & Zhang, arXiv:2310.05963), and
    `metrics.cfdbench.mean_scores` with ``averaging="batch"`` measures. A frame near rest counts little, and so does a
    case that is slow beside the others of its batch, whose relative error may stay large; see `RelativeL2Joint`. Where
    components share a deviation, as those of a vector do, units make no difference.

    Points are centers of cells. Each case counts as one box whatever its extent, and points outside the mask not at
    all.

    Args:
        weights: of the channels, see `RelativeL2PerChannel`.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = _channel_weights(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The ratio."""
        lines = grid.quadrature_weights(context.coordinates, cells=True)
        error, size = (prediction - target).square(), target.square()
        if context.mask is not None:
            fluid = context.mask[:, None, None]
            error, size = torch.where(fluid, error, 0.0), torch.where(fluid, size, 0.0)
        # Of the box, not of its fluid: with a mean over the fluid cells would not count alike in all cases.
        error, size = (_channel_mean(weighted_mean(square, lines), self.weights) for square in (error, size))
        return error / (size + _FLOOR**2)


class FluctuationL2:
    """``mean over (batch, time, channel) of |prediction - target| / |target - its mean along periodic axes|``.

    In a channel flow the mean profile is most of the streamwise velocity, and an error that is small beside it may be a
    large one of the turbulence, which this loss is relative to. With ``relative_to="height"`` every height counts the
    same, not only every channel: the square of the ratio is the mean over heights of the mean square error at a height
    over the mean square fluctuation there, ``1 / rms(y)`` being the weight of an error. "Heights" are the points of all
    axes that are not periodic.

    Args:
        relative_to: the fluctuation of the whole ``"channel"``, or that at each ``"height"``.
        floor: smallest fluctuation of a height, in units of the channel's, so that walls and the plane next to them,
            where the fluctuation vanishes, do not rule; with ``relative_to="height"`` only.
        weights: of the channels, see `RelativeL2PerChannel`.

    Raises:
        ValueError: for other ``relative_to``, for a floor outside (0, 1], for weights that are negative or all zero; in
            use, for a grid without a periodic axis.
    """

    def __init__(
        self,
        relative_to: Literal["channel", "height"] = "channel",
        floor: float = 0.05,
        weights: Sequence[float] | None = None,
    ) -> None:
        if relative_to not in ("channel", "height"):
            raise ValueError(f"Expected relative_to 'channel' or 'height' but got {relative_to!r}.")
        if not 0 < floor <= 1:
            raise ValueError(f"Expected a floor within (0, 1] but got {floor}.")
        self.relative_to = relative_to
        self.floor = floor
        self.weights = _channel_weights(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean of the ratios."""
        lines = grid.quadrature_weights(context.coordinates)
        homogeneous, heights = _split_axes(grid)
        if not homogeneous:
            raise ValueError(
                f"Expected a periodic axis, along which a fluctuation has its mean, but none of {grid.axis_names} is; "
                "use RelativeL2PerChannel."
            )
        error = _mean_along((prediction - target).square(), lines, homogeneous)
        fluctuation = target - _mean_along(target, lines, homogeneous)
        variance = _mean_along(fluctuation.square(), lines, homogeneous)
        whole = _mean_along(variance, lines, heights)
        if self.relative_to == "height":
            scale = torch.maximum(variance, self.floor**2 * whole) + _FLOOR**2
            ratios = _root(_mean_along(error / scale, lines, heights))
        else:
            ratios = _root(_mean_along(error, lines, heights)) / (_root(whole) + _FLOOR)
        return _channel_mean(ratios.flatten(2), self.weights)


class LogLineSpectrum:
    """Root mean square of ``log10(E_prediction / E_target)`` over modes and heights; the mean of all channels and axes.

    ``E(k, y)`` is the energy of mode ``k`` along one periodic axis, the mean over the other periodic axes, for every
    channel and every height ``y``, the points of all axes that are not periodic: in a channel ``E(kx, y)`` and
    ``E(kz, y)``. One means that spectra are typically a factor ten apart. It knows no phases: a field of any place and
    the right spectrum costs nothing, so add it to a loss that knows them (`WeightedSum`).

    Modes are those from 1 to below half the number of points: the mean and the mode that an even grid holds in part
    have no say. Periodic axes that are not evenly spaced are left out.

    With ``averaged_over="batch"`` energies are those of all samples and frames together. One frame's spectrum scatters
    about that of its flow, and so does its logarithm; over a batch that averages out, and frames far from the first can
    be held to the statistics of turbulence where nobody can predict them.

    Args:
        kept: share of these modes that count, the lowest ones; a surrogate may not be asked for the highest.
        floor: added to energies, in units of the channel's variance: amplitudes below its root count as none, as on
            walls.
        weights: of the channels, see `RelativeL2PerChannel`.
        averaged_over: what an energy is the mean of before its logarithm is taken: one ``"frame"``, or the ``"batch"``.

    Raises:
        ValueError: for a share outside (0, 1], a floor that is not positive, weights that are negative or all zero,
            other ``averaged_over``; in use, for a grid without an evenly spaced periodic axis of three points or more.
    """

    def __init__(
        self,
        kept: float = 1.0,
        floor: float = 1e-8,
        weights: Sequence[float] | None = None,
        averaged_over: Literal["frame", "batch"] = "frame",
    ) -> None:
        if not 0 < kept <= 1:
            raise ValueError(f"Expected a share of modes within (0, 1] but got {kept}.")
        if not 0 < floor < math.inf:
            raise ValueError(f"Expected a positive floor but got {floor}.")
        if averaged_over not in ("frame", "batch"):
            raise ValueError(f"Expected averaged_over 'frame' or 'batch' but got {averaged_over!r}.")
        # A loss of frames is recorded as it was before there was a choice.
        self.averaged_over = None if averaged_over == "frame" else averaged_over
        self.kept = kept
        self.floor = floor
        self.weights = _channel_weights(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The mean over samples, frames, channels and axes."""
        lines = grid.quadrature_weights(context.coordinates)
        homogeneous, heights = _split_axes(grid)
        even = [axis for axis in homogeneous if _is_even(grid.axes[axis], context.coordinates[axis])]
        if not even:
            raise ValueError(
                "Expected a periodic axis of evenly spaced points, three or more, which a line spectrum is along, but "
                f"none of {grid.axis_names} is one; leave LogLineSpectrum out."
            )
        distances = []
        for axis in even:
            others = [other for other in homogeneous if other != axis]
            predicted, true = (
                torch.log10(self._averaged(_mean_along(self._energies(field, axis), lines, others)) + self.floor)
                for field in (prediction, target)
            )
            squares = (predicted - true).square().mean(3 + axis, keepdim=True)
            distances.append(_root(_mean_along(squares, lines, heights)).flatten(2))
        return _channel_mean(torch.stack(distances), self.weights)

    def _averaged(self, energies: Tensor) -> Tensor:
        return energies if self.averaged_over is None else energies.mean((0, 1), keepdim=True)

    def _energies(self, field: Tensor, axis: int) -> Tensor:
        """Of the modes that count along an axis, both signs folded in."""
        # Half precision has neither transforms nor the range of energies.
        field = field.to(torch.promote_types(field.dtype, torch.float32))
        count = math.ceil(self.kept * _modes(field.shape[3 + axis]))
        modes = torch.fft.rfft(field, dim=3 + axis, norm="forward").narrow(3 + axis, 1, count)
        return 2 * squared_magnitude(modes)


class PlaneMoments:
    """How far means and stresses over planes are from the target's: the profiles that a flow between walls is known by.

    At every height, means over the periodic axes, all samples and all frames: of each channel, and of the products of
    any two channels' fluctuations about the mean of their plane, each in units of the target's fluctuation over all
    heights, so that weak components count as strong ones. The distance is the root mean square over heights of the
    difference of means, the mean of all channels, plus the Frobenius distance of the covariances relative to the
    target's, over all heights. It knows neither phases nor scales: add it to losses that know them.

    Raises:
        ValueError: in use, for a grid without a periodic axis.
    """

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The sum of both."""
        lines = grid.quadrature_weights(context.coordinates)
        homogeneous, heights = _split_axes(grid)
        if not homogeneous:
            raise ValueError(f"Expected a periodic axis, to take means along, but none of {grid.axis_names} is one.")
        # Heights of all samples are alike here: planes of different grids have no common mean.
        one = [line[:1] for line in lines]
        planes = [_mean_along(field, lines, homogeneous) for field in (prediction, target)]
        fluctuation = _mean_along((target - planes[1]).square(), lines, homogeneous).mean((0, 1), keepdim=True)
        # In units of deviations: a channel that hardly fluctuates is not to drown the others.
        scale = _root(_mean_along(fluctuation, one, heights)).clamp_min(_WEAKEST)
        stresses = []
        for field, mean in zip((prediction, target), planes, strict=True):
            units = (field - mean) / scale
            products = (units.unsqueeze(2) * units.unsqueeze(3)).flatten(2, 3)
            stresses.append(_mean_along(products, lines, homogeneous).mean((0, 1), keepdim=True))
        drift = (planes[0].mean((0, 1), keepdim=True) - planes[1].mean((0, 1), keepdim=True)) / scale
        error, size = (
            _mean_along(each.square(), one, heights).sum() for each in (stresses[0] - stresses[1], stresses[1])
        )
        return _root(_mean_along(drift.square(), one, heights)).mean() + _root(error) / (_root(size) + _FLOOR)


class MeanDrift:
    """Root mean square, over samples, frames and channels, of how far the mean over the box is from the target's.

    The mean is that of `physics.conservation.laws.KeptMeans`: by the quadrature weights of the data, over the fluid
    where there is a mask. Where the true mean is kept, its drift is the violation of a conservation law, as a penalty
    ("SoftC" of Hansen et al., arXiv:2302.11002, section 4): add it to a loss of the fields (`WeightedSum`). A network
    can be told that no mean drifts, and can then not be relied on; a wrapper that enforces it can
    (`steppers.probconserv`).

    Args:
        weights: of the channels, see `RelativeL2PerChannel`.
        points: what coordinates are those of, ``"nodes"`` or the centers of ``"cells"``. `KeptMeans` takes cells unless
            every channel of the data lives on nodes; a loss is not told where channels live. It matters along axes
            without period and bounds alone, see `Grid.quadrature_weights`.

    Raises:
        ValueError: for weights that are negative or all zero, and other ``points``; in use, for others than one weight
            for each channel.
    """

    def __init__(self, weights: Sequence[float] | None = None, points: Literal["nodes", "cells"] = "nodes") -> None:
        if points not in ("nodes", "cells"):
            raise ValueError(f"Expected points 'nodes' or 'cells' but got {points!r}.")
        self.weights = _channel_weights(weights)
        # A loss of nodes is recorded as it was before there was a choice.
        self.points = None if points == "nodes" else points

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The root mean square, in units of each channel's deviation."""
        exact = context._replace(coordinates=tuple(line.double() for line in context.coordinates))
        volumes = space_weights(grid, exact, cells=self.points == "cells").flatten(3)
        shares = volumes / volumes.sum(-1, keepdim=True)
        drift = ((prediction - target).flatten(3) * shares).sum(-1)
        return _root(_channel_mean(drift.square(), self.weights)).to(prediction.dtype)


class FirstFrames:
    """A loss of the first predicted frames alone.

    Beyond the time over which a chaotic flow can be predicted, a distance from the one true frame teaches a network to
    predict the mean. There its statistics may still be right: ``WeightedSum([FirstFrames(FluctuationL2(), 3),
    LogLineSpectrum(averaged_over="batch")])``.

    Args:
        loss: of these frames.
        frames: how many; all if there are fewer.

    Raises:
        ValueError: if ``frames`` is below 1.
    """

    def __init__(self, loss: Loss, frames: int) -> None:
        if frames < 1:
            raise ValueError(f"Expected at least one frame but got {frames}.")
        self.loss = loss
        self.frames = frames

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The loss of them."""
        return self.loss.distance(prediction[:, : self.frames], target[:, : self.frames], context, grid)


class WeightedSum:
    """``sum of weight * loss``.

    Args:
        losses: to add up.
        weights: of each; one if not given.

    Raises:
        ValueError: if there are no losses, not as many weights, or weights that are negative or all zero.

    Example:
        >>> loss = WeightedSum([FluctuationL2(), LogLineSpectrum()], weights=[1.0, 0.1])
        >>> [type(part).__name__ for part in loss.losses]
        ['FluctuationL2', 'LogLineSpectrum']
    """

    def __init__(self, losses: list[Loss], weights: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(losses) if weights is None else weights
        if not losses or len(weights) != len(losses):
            raise ValueError(
                f"Expected losses and a weight for each but got {len(losses)} losses and {len(weights)} weights."
            )
        self.losses = list(losses)
        self.weights = _checked(weights)

    def distance(self, prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> Tensor:
        """The sum."""
        parts = [
            weight * loss.distance(prediction, target, context, grid)
            for loss, weight in zip(self.losses, self.weights, strict=True)
        ]
        return torch.stack(parts).sum()


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


def _channel_weights(weights: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if weights is None else _checked(weights)


def _checked(weights: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(weight) for weight in weights)
    if not all(0 <= weight < math.inf for weight in found) or not any(found):
        raise ValueError(f"Expected finite weights that are not negative, and one that is not zero, but got {found}.")
    return found


def _channel_mean(values: Tensor, weights: Sequence[float] | None) -> Tensor:
    """The mean of ``values (..., channel)``, where channels may weigh differently."""
    if weights is None:
        return values.mean()
    if len(weights) != values.shape[-1]:
        raise ValueError(
            f"Expected a weight for each of {values.shape[-1]} channels but the loss has {len(weights)}: "
            f"{tuple(weights)}."
        )
    shares = values.new_tensor(weights)
    return (values * (shares / shares.sum())).sum(-1).mean()


def _split_axes(grid: Grid) -> tuple[list[int], list[int]]:
    """Numbers of the periodic axes, and of those that are not."""
    numbers = range(grid.dimension)
    periodic = [axis for axis in numbers if grid.axes[axis].period is not None]
    return periodic, [axis for axis in numbers if axis not in periodic]


def _mean_along(values: Tensor, lines: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    """Mean of ``values (batch, time, channel, *space)`` along some axes of space, kept as one, by their weights."""
    for axis in axes:
        shares = (lines[axis] / lines[axis].sum(-1, keepdim=True)).to(values.dtype)
        behind = values.ndim - 4 - axis
        shares = shares.reshape(-1, *(1,) * (2 + axis), shares.shape[-1], *(1,) * behind)
        values = (values * shares).sum(3 + axis, keepdim=True)
    return values


def _modes(points: int) -> int:
    """How many modes lie between the mean and the one of half as many waves as points."""
    return (points - 1) // 2


def _is_even(axis: Axis, points: Tensor) -> bool:
    """Whether the points of a periodic axis are evenly spaced and hold a mode."""
    if axis.period is None or not _modes(points.shape[-1]):
        return False
    spacing = axis.period / points.shape[-1]
    return bool(((points.diff(dim=-1) - spacing).abs() <= _UNEVEN * spacing).all())


def _mean_squares(prediction: Tensor, target: Tensor, context: Context, grid: Grid) -> tuple[Tensor, Tensor]:
    weights = grid.quadrature_weights(context.coordinates)
    error = (prediction - target).square()
    size = target.square()
    return weighted_mean(error, weights, context.mask), weighted_mean(size, weights, context.mask)

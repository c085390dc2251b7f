"""Norms of fields: L2 and Sobolev norms of any real order on a box, and of these over time.

Used by losses, metrics and refinement alike. All are averages: a norm over the box is a root mean square, in units of
the field times length^-order, whatever the size of the box; multiply by ``volume^(1/2)`` for the norm that is an
integral over it. A norm over time is the root mean square of the frames' norms; multiply by ``duration^(1/2)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pdesurrogate.physics.spectral import angular_wavenumbers, half_spectrum_weights, squared_magnitude


def weighted_mean(values: Tensor, weights: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Mean over the trailing space axes with tensor-product quadrature weights.

    Args:
        values: ``(batch, ..., *space)``.
        weights: one tensor per space axis, ``(n,)`` or ``(batch, n)``, as `Grid.quadrature_weights` gives them.
        mask: ``(batch, *space)``, true where there is fluid: the mean is over it alone.

    Returns:
        ``(batch, ...)``.

    Example:
        >>> weighted_mean(torch.tensor([[1.0, 3.0]]), [torch.tensor([3.0, 1.0])])
        tensor([1.5000])
        >>> weighted_mean(torch.tensor([[1.0, 3.0]]), [torch.tensor([3.0, 1.0])], torch.tensor([[False, True]]))
        tensor([3.])
    """
    if mask is not None:
        fluid = mask.reshape(len(mask), *(1,) * (values.ndim - mask.ndim), *mask.shape[1:])
        share = weighted_mean(fluid.to(values.dtype), weights)
        return weighted_mean(torch.where(fluid, values, 0.0), weights) / share
    for weight in reversed(list(weights)):
        weight = (weight / weight.sum(-1, keepdim=True)).to(values.dtype)
        if weight.ndim == 2:
            weight = weight.reshape(weight.shape[0], *(1,) * (values.ndim - 2), weight.shape[1])
        values = (values * weight).sum(-1)
    return values


def sobolev_norm(values: Tensor, periods: Sequence[float], order: float, alpha: float = 1.0) -> Tensor:
    """Norm of ``H^order`` on a periodic box, averaged over the box: ``(sum_k (alpha + |k|^2)^order |v_k|^2)^(1/2)``.

    ``k`` are angular wavenumbers and ``v_k`` Fourier coefficients (amplitudes). Order 0 is the root mean square, by
    Parseval; negative orders give the dual norms, which weigh large scales most: ``mean(v w) <= |v|_-s |w|_s``. Order
    -1 with ``alpha = 0`` of a vorticity is order 0 of its velocity.

    Args:
        values: ``(..., *space)``.
        periods: box length along each space axis.
        order: any real number.
        alpha: weight of the mean, squared inverse length; with 0 the mean is left out.

    Returns:
        ``(...)``.

    Example:
        >>> x = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> round(float(sobolev_norm(torch.cos(3 * x), [2 * torch.pi], order=1.0) ** 2), 12)  # (1 + 9) / 2
        5.0
    """
    shape = tuple(values.shape[-len(periods) :])
    axes = tuple(range(-len(periods), 0))
    density = squared_magnitude(torch.fft.rfftn(values, dim=axes, norm="forward"))
    symbol = sobolev_symbol(shape, periods, order, alpha, dtype=values.dtype, device=values.device)
    weights = half_spectrum_weights(shape, device=values.device).to(values.dtype)
    # The square root has no derivative at zero: a vanishing field gets a norm of 1e-15 and gradient zero.
    return (density * symbol * weights).sum(axes).clamp_min(1e-30).sqrt()


def sobolev_symbol(
    shape: Sequence[int],
    periods: Sequence[float],
    order: float,
    alpha: float = 1.0,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Weight ``(alpha + |k|^2)^order`` of each wave of a half spectrum in the squared norm; ``(*rfftn space)``.

    Raises:
        ValueError: if ``alpha`` is negative.
    """
    if alpha < 0:
        raise ValueError(f"Expected alpha >= 0 but got {alpha}.")
    waves = angular_wavenumbers(shape, periods, dtype=dtype, device=device)
    symbol = alpha + sum((wave.square() for wave in waves), start=torch.zeros((), device=device))
    return torch.where(symbol > 0, symbol.clamp(min=torch.finfo(dtype).tiny) ** order, 0.0)


def bochner_norm(norms: Tensor, weights: Tensor | None = None) -> Tensor:
    """Norm over time from those of single frames, averaged: ``(sum_j q_j |v(t_j)|^2 / sum_j q_j)^(1/2)``.

    From Sobolev norms it makes that of ``L2(0, T; H^s)``.

    Args:
        norms: ``(batch, time, ...)``, of each frame.
        weights: quadrature weights ``q`` of the frames ``(time,)`` or ``(batch, time)``, of any scale; all alike where
            there are none.

    Returns:
        ``(batch, ...)``.

    Raises:
        ValueError: if the weights do not fit the frames.

    Example:
        >>> bochner_norm(torch.tensor([[1.0, 7.0]])), bochner_norm(torch.tensor([[1.0, 7.0]]), torch.tensor([3.0, 0.0]))
        (tensor([5.]), tensor([1.]))
    """
    squares = norms.square()
    if weights is None:
        mean = squares.mean(1)
    else:
        if weights.shape not in (norms.shape[1:2], norms.shape[:2]):
            raise ValueError(
                f"Expected weights ({norms.shape[1]},) or {tuple(norms.shape[:2])}, one for each frame, but got "
                f"{tuple(weights.shape)}."
            )
        shares = (weights / weights.sum(-1, keepdim=True)).to(norms.dtype)
        mean = (squares * shares.reshape(*(1,) * (2 - shares.ndim), *shares.shape, *(1,) * (norms.ndim - 2))).sum(1)
    return mean.clamp_min(1e-30).sqrt()


def relative_bochner_error(
    prediction: Tensor,
    target: Tensor,
    periods: Sequence[float],
    order: float = 0.0,
    alpha: float = 1.0,
    weights: Tensor | None = None,
    floor: float = 0.0,
) -> Tensor:
    """``|prediction - target| / |target|`` in ``L2(0, T; H^order)``, the mean over samples of each one's ratio.

    Args:
        prediction: ``(batch, time, ..., *space)``; the ratios of channels are averaged too.
        target: same shape.
        periods: box length along each space axis.
        order: any real number, see `sobolev_norm`.
        alpha: weight of the mean, see `sobolev_norm`.
        weights: of the frames, see `bochner_norm`.
        floor: added to the norm of the target, so that one which almost vanishes does not rule.

    Returns:
        A scalar.

    Example:
        >>> x = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> target = torch.cos(x) * torch.tensor([[[1.0], [7.0]]])  # two frames
        >>> prediction = target + torch.cos(3 * x)
        >>> round(float(relative_bochner_error(prediction, target, [2 * torch.pi], order=1.0, alpha=0.0)), 12)  # 3 / 5
        0.6
    """
    error = bochner_norm(sobolev_norm(prediction - target, periods, order, alpha), weights)
    return (error / (bochner_norm(sobolev_norm(target, periods, order, alpha), weights) + floor)).mean()


def torch_cfd_sobolev(
    values: Tensor,
    order: float = -1.0,
    alpha: float = 0.1,
    diameter: float = 1.0,
    time: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """The number that torch-cfd's ``SobolevLoss(relative=False)`` prints for its ``norm_order``; to compare with it.

    It is no norm of the order that it is given, and depends on the grid: with ``n`` points along each side it is
    ``n^2`` times the `bochner_norm` of the Sobolev norm of *half* the order, or of order 1 where 0 is asked for. So -1
    is really order -1/2, -2 is -1, 1 is 1/2, 2 is 1, and what is called L2 is H^1. Its users leave ``diameter`` at one
    for boxes of another size too, which takes all wavenumbers for those of the unit box.

    Args:
        values: ``(batch, time, ..., n, n)``.
        order: as the authors name it.
        alpha: weight of the mean.
        diameter: side of the box, as the authors give it.
        time: their ``time_average``: the root mean square over frames, or with ``sum`` the root of the sum of squares.

    Returns:
        ``(batch, ...)``; the authors print the mean over the batch.

    Raises:
        ValueError: if the sides have different numbers of points, or ``time`` is something else.

    Example:
        >>> x = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> frames = torch.cos(3 * x)[:, None].expand(1, 5, 16, 16)
        >>> found = torch_cfd_sobolev(frames, order=2.0, alpha=0.0, diameter=2 * torch.pi)
        >>> round(float(found), 9), round(16**2 * 3 * 0.5**0.5, 9)
        (543.058007951, 543.058007951)
    """
    if values.ndim < 4 or values.shape[-1] != values.shape[-2]:
        raise ValueError(
            f"Expected fields (batch, time, ..., n, n) on a square grid but got {tuple(values.shape)}; "
            "use bochner_norm and sobolev_norm."
        )
    if time not in ("mean", "sum"):
        raise ValueError(f"Expected 'mean' or 'sum' over time but got {time!r}.")
    actual_order = order / 2 if order != 0 else 1.0
    norm = bochner_norm(sobolev_norm(values, (diameter, diameter), actual_order, alpha))
    frames = values.shape[1] if time == "sum" else 1
    return norm * (values.shape[-1] ** 2 * math.sqrt(frames))


def torch_cfd_relative_sobolev(
    prediction: Tensor,
    target: Tensor,
    order: float = -1.0,
    alpha: float = 0.1,
    diameter: float = 1.0,
    time: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """The number that torch-cfd's ``SobolevLoss(relative=True)`` prints for its ``norm_order``; to compare with it.

    Of the two norms only the error's is averaged over time: it is the true ratio of Bochner norms, of the order that
    `torch_cfd_sobolev` tells, over ``frames^(1/2)``. To read a published value, multiply it by that: by 3.162 for 10
    frames, 6.325 for 40. With ``time="sum"`` it is the true ratio.

    Args:
        prediction: ``(batch, time, ..., x, y)``.
        target: same shape.
        order: as the authors name it.
        alpha: weight of the mean.
        diameter: side of the box, as the authors give it.
        time: their ``time_average``.

    Returns:
        ``(batch, ...)``; the authors print the mean over the batch.

    Raises:
        ValueError: as `torch_cfd_sobolev`.
    """
    error = torch_cfd_sobolev(prediction - target, order, alpha, diameter, time)
    return error / torch_cfd_sobolev(target, order, alpha, diameter, time="sum")

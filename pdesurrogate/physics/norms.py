"""Norms of fields on a box: L2 and Sobolev norms of any real order. Used by losses, metrics and refinement alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdesurrogate.physics.spectral import angular_wavenumbers, half_spectrum_weights


def weighted_mean(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Mean over the trailing space axes with tensor-product quadrature weights.

    Args:
        values: ``(batch, ..., *space)``.
        weights: one tensor per space axis, ``(n,)`` or ``(batch, n)``, as `Grid.quadrature_weights` gives them.

    Returns:
        ``(batch, ...)``.

    Example:
        >>> weighted_mean(torch.tensor([[1.0, 3.0]]), [torch.tensor([3.0, 1.0])])
        tensor([1.5000])
    """
    for weight in reversed(list(weights)):
        weight = (weight / weight.sum(-1, keepdim=True)).to(values.dtype)
        if weight.ndim == 2:
            weight = weight.reshape(weight.shape[0], *(1,) * (values.ndim - 2), weight.shape[1])
        values = (values * weight).sum(-1)
    return values


def sobolev_norm(values: Tensor, periods: Sequence[float], order: float, alpha: float = 1.0) -> Tensor:
    """Norm of ``H^order`` on a periodic box, averaged over the box: ``(sum_k (alpha + |k|^2)^order |v_k|^2)^(1/2)``.

    ``k`` are angular wavenumbers and ``v_k`` Fourier coefficients (amplitudes). Order 0 is the root mean square, by
    Parseval; negative orders give the dual norms, which weigh large scales most.

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
    density = torch.fft.rfftn(values, dim=axes, norm="forward").abs().square()
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

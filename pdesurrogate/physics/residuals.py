"""What a trajectory leaves of an equation, and the estimate of its error that follows from this.

Two residuals see a wrong trajectory: the `one_interval_defect` of a solver, and the `vorticity_residual` with a time
derivative that belongs to the trajectory. `self_started_residual` sees nothing; it is there to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdesurrogate.fields.batch import repeat_context
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.norms import bochner_norm, sobolev_symbol
from pdesurrogate.physics.operators import gradient, velocity_from_vorticity
from pdesurrogate.physics.spectral import Shells, angular_wavenumbers, dealias_mask, squared_magnitude


@runtime_checkable
class March(Protocol):
    """What steps a frame by one frame interval: a solver of the equation on the grid of the data."""

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The block that follows ``history (batch, 1, channel, *space)``, of which the first frame is used."""
        ...


@runtime_checkable
class LinearizedMarch(March, Protocol):
    """A march that gives its own derivative, more cheaply than by differentiating it."""

    def step_tangent(self, history: Tensor, direction: Tensor, context: Context) -> Tensor:
        """Derivative of ``step`` at ``history (batch, 1, channel, *space)`` in a direction of the same shape."""
        ...


def march_tangent(march: March, state: Tensor, direction: Tensor, context: Context) -> Tensor:
    """Derivative of a march at ``state (batch, 1, channel, *space)`` in a direction of the same shape.

    What the march gives itself, or forward-mode differentiation where it gives none.
    """
    if isinstance(march, LinearizedMarch):
        return march.step_tangent(state, direction, context)
    tangent: Tensor = torch.func.jvp(lambda frame: march.step(frame, context)[:, :1], (state,), (direction,))[1]
    return tangent


def one_interval_defect(
    frames: Tensor, context: Context, march: March, interval: float, frames_at_once: int | None = None
) -> Tensor:
    """``(w_{j+1} - Phi(w_j)) / interval`` for consecutive ``frames (batch, time, channel, *space)``, ``Phi`` the march.

    Zero for a trajectory of the march itself. Its time derivative spans two frames of the trajectory, so it sees a
    wrong one. With the last given frame in front of a prediction, the first predicted frame is measured too.
    Differentiable in forward and reverse mode where the march is.

    Args:
        frames: physical units, ``interval`` apart.
        context: batched.
        march: its step must be the frame interval.
        interval: time between frames.
        frames_at_once: how many frames of each sample the march steps side by side, with the context repeated; all of
            them by default. Memory grows with it; on a CPU it pays on small grids only, whose frames share the cache.

    Returns:
        ``(batch, time - 1, channel, *space)``, units of the fields per time.

    Raises:
        ValueError: if there are fewer than two frames, the march gives fields of another shape, or the interval or
            ``frames_at_once`` is not positive.

    Example:
        >>> class Decay:
        ...     def step(self, history, context):
        ...         return history / 2
        >>> frames = torch.tensor([8.0, 4.0, 3.0]).reshape(1, 3, 1, 1)
        >>> one_interval_defect(frames, Context(()), Decay(), interval=0.1).flatten().tolist()
        [0.0, 10.0]
    """
    if frames.shape[1] < 2:
        raise ValueError(f"Expected at least two frames for a defect but got {frames.shape[1]}.")
    if not interval > 0 or (frames_at_once is not None and frames_at_once < 1):
        raise ValueError(f"Expected positive interval and frames_at_once but got {interval} and {frames_at_once}.")
    return (frames[:, 1:] - march_frames(frames[:, :-1], context, march, frames_at_once)) / interval


def march_frames(frames: Tensor, context: Context, march: March, frames_at_once: int | None = None) -> Tensor:
    """What a march makes of each of ``frames (batch, time, channel, *space)``, side by side; the same shape.

    Args:
        frames: physical units.
        context: batched.
        march: from frame to frame.
        frames_at_once: as `one_interval_defect` has it.

    Raises:
        ValueError: if the march gives fields of another shape.
    """
    parts = frames.split(frames_at_once or frames.shape[1], dim=1)
    return torch.cat([_marched(part, context, march) for part in parts], dim=1)


def _marched(starts: Tensor, context: Context, march: March) -> Tensor:
    """The frame after each of ``starts (batch, time, channel, *space)``, stepped as one batch."""
    batch, count = starts.shape[:2]
    # Time in front of the batch, so that the context repeats as a whole.
    histories = starts.transpose(0, 1).flatten(0, 1).unsqueeze(1)
    stepped = march.step(histories, repeat_context(context, count))[:, 0]
    if stepped.shape[1:] != starts.shape[2:]:
        raise ValueError(
            f"Expected the march to give frames {tuple(starts.shape[2:])} but got {tuple(stepped.shape[1:])}; wrap "
            "a solver of another grid in Resampled."
        )
    return stepped.unflatten(0, (count, batch)).transpose(0, 1)


def vorticity_residual(
    vorticity: Tensor,
    time_derivative: Tensor,
    periods: Sequence[float],
    viscosity: float | Tensor,
    drag: float | Tensor = 0.0,
    forcing: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """``dw/dt + P[(u . grad) w] - viscosity laplacian w + drag w - f`` of plane flow; the strong form.

    Pseudo-spectral: derivatives in Fourier space, the product on the grid. ``P`` keeps the waves of the mask. It is the
    curl of the momentum equation's residual. As honest as its time derivative: that of the trajectory, such as a
    network's analytic one or differences of many frames, and not one that a solver gives from the frame itself.

    Args:
        vorticity: ``(..., x, y)``.
        time_derivative: of the vorticity, same shape.
        periods: sides of the box.
        viscosity: kinematic; a number, or a tensor of numbers with as many axes as the vorticity, ``(..., 1, 1)``.
        drag: linear friction, per time; as the viscosity.
        forcing: vorticity source ``(x, y)``, or with as many axes as the vorticity.
        mask: of the advection's half spectrum ``(x, y // 2 + 1)``, in place of the symmetric 2/3 mask; ones for none.

    Returns:
        ``(..., x, y)``, vorticity per time.

    Raises:
        ValueError: if a shape does not fit, or viscosity or drag is a negative number.

    Example:
        >>> axis = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> x, y = torch.meshgrid(axis, axis, indexing="ij")
        >>> vortices = 2 * torch.cos(x) * torch.cos(y)  # Taylor-Green: decays at the rate 2 nu
        >>> residual = vorticity_residual(vortices, -0.2 * vortices, (2 * torch.pi, 2 * torch.pi), viscosity=0.1)
        >>> bool(residual.abs().max() < 1e-14)
        True
    """
    if time_derivative.shape != vorticity.shape:
        raise ValueError(
            f"Expected a time derivative {tuple(vorticity.shape)} as the vorticity but got "
            f"{tuple(time_derivative.shape)}."
        )
    _check_coefficient("viscosity", viscosity, vorticity)
    _check_coefficient("drag", drag, vorticity)
    _check_forcing(forcing, vorticity)
    damping = drag - viscosity * _laplacian(vorticity, periods)
    others = damping * torch.fft.rfft2(vorticity) + _advection(vorticity, periods, mask)
    residual = time_derivative + torch.fft.irfft2(others, s=vorticity.shape[-2:])
    return residual if forcing is None else residual - forcing


def self_started_residual(
    vorticity: Tensor,
    periods: Sequence[float],
    viscosity: float,
    forcing: Tensor | None = None,
    time_step: float = 1e-6,
    weights: tuple[float, float] = (0.5, 0.5),
    mask: Tensor | None = None,
) -> Tensor:
    """The residual that torch-cfd's fine-tuning minimizes, which vanishes for *any* smooth field; to compare with it.

    Its time derivative is that of a tiny explicit step (Crank–Nicolson for the viscous part) from the very frame at
    which the rest of the equation is evaluated: the right-hand side is compared with itself, each frame on its own, and
    what is left is the step's own error. With weights ``(0, 1)`` that is proportional to the time step, with
    ``(0.5, 0.5)`` it is round-off. Frames in reverse, frozen or unrelated ones, and the truth are all alike to it. Use
    `one_interval_defect` or `vorticity_residual` to learn anything about a trajectory.

    Args:
        vorticity: ``(..., x, y)``, float64 or nothing is left but noise.
        periods: sides of the box.
        viscosity: kinematic.
        forcing: vorticity source, as in `vorticity_residual`.
        time_step: of the steps backward and forward.
        weights: of the steps backward and forward; derivatives and stepped fields are combined alike.
        mask: of the advection; the authors' keeps all waves of a box of side ``2 pi``.

    Returns:
        ``(..., x, y)``.

    Raises:
        ValueError: if a shape does not fit, or the time step is not positive.
    """
    if not time_step > 0:
        raise ValueError(f"Expected a positive time_step but got {time_step}.")
    _check_forcing(forcing, vorticity)
    shape = vorticity.shape[-2:]
    diffusion = viscosity * _laplacian(vorticity, periods)
    spectrum = torch.fft.rfft2(vorticity)
    explicit = -_advection(vorticity, periods, mask)
    if forcing is not None:
        explicit = explicit + torch.fft.rfft2(forcing)
    field_hat, derivative_hat = torch.zeros_like(spectrum), torch.zeros_like(spectrum)
    for weight, step in zip(weights, (-time_step, time_step), strict=True):
        half = step * diffusion / 2
        stepped = (spectrum * (1 + half) + step * explicit) / (1 - half)
        field_hat = field_hat + weight * stepped
        derivative_hat = derivative_hat + weight * (stepped - spectrum) / step
    field, derivative = torch.fft.irfft2(field_hat, s=shape), torch.fft.irfft2(derivative_hat, s=shape)
    return vorticity_residual(field, derivative, periods, viscosity, forcing=forcing, mask=mask)


class Estimate(NamedTuple):
    """How large a residual is: altogether, when, and at which scales.

    Attributes:
        total: ``(batch,)`` root mean square of ``by_frame`` over time.
        by_frame: ``(batch, time)`` norm of each frame.
        by_shell: ``(batch, time, shell)`` what each shell of waves adds to the *square* of ``by_frame``.
        wavenumbers: ``(shell,)`` center of each shell, radians per unit length.
    """

    total: Tensor
    by_frame: Tensor
    by_shell: Tensor
    wavenumbers: Tensor


def estimate(
    residual: Tensor,
    periods: Sequence[float],
    order: float = -1.0,
    alpha: float | None = None,
    weights: Tensor | None = None,
) -> Estimate:
    """Norms in ``H^order`` of a residual, which estimate the error of the trajectory that left it.

    Which order says what, for the residual ``R`` of a vorticity with ``alpha = 0``: it is the curl of the momentum
    equation's residual, so its order -1 is the root mean square of that (its divergence-free part), and order -2 is
    that in order -1. With ``T`` the duration and ``e`` the error of the velocity, zero at first,

    - order -1 bounds the largest error in time: ``sup |e| <= T total``, as far as the equation is linear;
    - order -2 bounds the energy norm: ``(sup |e|^2 + viscosity int |grad e|^2)^(1/2) <~ (T / viscosity)^(1/2) total``.

    What is not linear lets an error grow besides, at the rate of the flow's strain; both hold near the true solution.
    The default ``alpha`` counts the mean as the longest wave, which makes the number at order -1 smaller by at most
    ``2^(1/2)``.

    Args:
        residual: ``(batch, time, channel, *space)``; squares of channels are added.
        periods: box length along each space axis.
        order: any real number.
        alpha: weight of the mean, squared inverse length; ``(2 pi / longest period)^2`` by default, as metrics have it.
        weights: quadrature weights of the frames, see `bochner_norm`.

    Returns:
        An `Estimate` in float64; averages over box and time, as all of `physics.norms`.

    Raises:
        ValueError: if the residual has too few axes, or the weights do not fit.

    Example:
        >>> x = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
        >>> found = estimate(torch.cos(3 * x).reshape(1, 1, 1, 16), [2 * torch.pi], order=-1.0, alpha=0.0)
        >>> round(float(found.total**2), 12), found.wavenumbers[found.by_shell[0, 0].argmax()].item()  # 1 / (2 * 3^2)
        (0.055555555556, 3.0)
    """
    dimension = len(periods)
    if residual.ndim != dimension + 3:
        raise ValueError(
            f"Expected a residual (batch, time, channel, *space) with {dimension} space axes but got "
            f"{tuple(residual.shape)}."
        )
    shape = tuple(residual.shape[-dimension:])
    alpha = (2 * torch.pi / max(periods)) ** 2 if alpha is None else alpha
    spectrum = torch.fft.rfftn(residual, dim=tuple(range(-dimension, 0)), norm="forward")
    symbol = sobolev_symbol(shape, periods, order, alpha, dtype=residual.dtype, device=residual.device)
    shells = _shells(shape, tuple(periods), residual.device)
    by_shell = shells.sum(squared_magnitude(spectrum).sum(2) * symbol)
    # The square root has no derivative at zero: what vanishes gets 1e-15 and gradient zero.
    by_frame = by_shell.sum(-1).clamp_min(1e-30).sqrt()
    return Estimate(bochner_norm(by_frame, weights), by_frame, by_shell, shells.wavenumbers)


@lru_cache(maxsize=4)
def _shells(shape: tuple[int, ...], periods: tuple[float, ...], device: torch.device) -> Shells:
    # Tables made in inference mode could not take part in a derivative later.
    with torch.inference_mode(False):
        return Shells(shape, periods, device=device)


def _laplacian(vorticity: Tensor, periods: Sequence[float]) -> Tensor:
    """Symbol ``-|k|^2`` of each wave of the half spectrum."""
    kx, ky = angular_wavenumbers(vorticity.shape[-2:], periods, dtype=vorticity.dtype, device=vorticity.device)
    return -(kx.square() + ky.square())


def _advection(vorticity: Tensor, periods: Sequence[float], mask: Tensor | None) -> Tensor:
    """Masked half spectrum of ``(u . grad) w``."""
    shape = tuple(vorticity.shape[-2:])
    mask = dealias_mask(shape) if mask is None else mask
    if mask.shape != (shape[0], shape[1] // 2 + 1):
        raise ValueError(f"Expected a mask {(shape[0], shape[1] // 2 + 1)} but got {tuple(mask.shape)}.")
    product = (velocity_from_vorticity(vorticity, periods) * gradient(vorticity, periods)).sum(-3)
    return torch.fft.rfft2(product) * mask.to(product)


def _check_coefficient(name: str, value: float | Tensor, vorticity: Tensor) -> None:
    if isinstance(value, Tensor):
        if value.ndim and not (value.ndim == vorticity.ndim and _fits(value.shape, (*vorticity.shape[:-2], 1, 1))):
            raise ValueError(
                f"Expected {name} that broadcasts to {(*vorticity.shape[:-2], 1, 1)} but got {tuple(value.shape)}; "
                "give it as many axes as the vorticity."
            )
    elif not value >= 0:
        raise ValueError(f"Expected {name} >= 0 but got {value}.")


def _check_forcing(forcing: Tensor | None, vorticity: Tensor) -> None:
    if forcing is None:
        return
    # With an axis fewer, samples would broadcast along time.
    aligned = forcing.ndim in (2, vorticity.ndim) and forcing.shape[-2:] == vorticity.shape[-2:]
    if not aligned or not _fits(forcing.shape, vorticity.shape[-forcing.ndim :]):
        raise ValueError(
            f"Expected a forcing {tuple(vorticity.shape[-2:])}, or one that broadcasts to {tuple(vorticity.shape)} and "
            f"has as many axes, but got {tuple(forcing.shape)}."
        )


def _fits(shape: Sequence[int], whole: Sequence[int]) -> bool:
    return all(size in (1, full) for size, full in zip(shape, whole, strict=True))

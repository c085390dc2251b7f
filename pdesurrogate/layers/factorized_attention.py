"""Attention along one axis at a time: a kernel for each axis, made from means of the field over all others."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.coordinates import AxisKind, RotaryCode, Rotation, rotate
from pdesurrogate.layers.gradients import differentiable_gradients, without_autocast

Attention = Literal["parallel", "chained"]
BlockVariant = Literal["head", "feb2025"]
Sums = Literal["points", "mean", "volumes"]
KernelStart = Literal["small", "unit"]

# Added to variances.
EPSILON = 1e-5

# Xavier gain of queries and keys with ``start="small"``.
SMALL_GAIN = 0.02

# Queries and keys of a head are that many times wider than its values before their products are scaled down.
WIDEST_UNSCALED = 4

# Rows that the kernels' initial size is measured with.
TRIAL_POINTS = 64


class Measure(NamedTuple):
    """How means over the grid are taken.

    Attributes:
        shares: of each point, ``(1 or batch, *space)`` with sum one; all alike if not given.
        weights: of the points of each axis in sums along it, ``(1 or batch, n)``; one if not given.
    """

    shares: Tensor | None = None
    weights: tuple[Tensor, ...] | None = None


class Modulation(NamedTuple):
    """What a condition does to a normalized field: ``normal * (1 + factor) + shift``, each ``(batch, width)``."""

    factor: Tensor
    shift: Tensor

    def of(self, normal: Tensor) -> Tensor:
        """Applied to ``normal (batch, *space, width)``."""
        factor, shift = (each.view(len(each), *(1,) * (normal.ndim - 2), -1).to(normal.dtype) for each in self)
        return torch.addcmul(normal + shift, normal, factor)


class AxisKernel(nn.Module):
    """The kernel ``(batch, heads, n, n)`` of one axis: products of queries and keys, with no softmax.

    The mean over the other axes goes through a gated network with one hidden layer; queries and keys of the result are
    turned by a `RotaryCode`.
    """

    def __init__(
        self, width: int, heads: int, features: int, unscaled: bool, rotary: RotaryCode, start: KernelStart
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1.0 if unscaled else 1 / math.sqrt(features)
        self.enter = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, width)
        self.query = nn.Linear(width, heads * features, bias=False)
        self.key = nn.Linear(width, heads * features, bias=False)
        self.rotary = rotary
        for layer in (self.query, self.key):
            nn.init.xavier_uniform_(layer.weight, gain=SMALL_GAIN if start == "small" else 1.0)
        if start == "unit" and not self.query.weight.is_meta:
            self._scale_to_unit()

    def forward(self, means: Tensor, rotation: Rotation) -> Tensor:
        """From ``means (batch, n, width)`` over the other axes."""
        queries, keys = self._queries_and_keys(self.norm(self.enter(means)))
        return rotate(queries, rotation) @ rotate(keys, rotation).mT * self.scale

    def _queries_and_keys(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        gated, values = self.gate(normal).chunk(2, dim=-1)
        summary = self.leave(functional.gelu(gated) * values)
        queries, keys = (
            layer(summary).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for layer in (self.query, self.key)
        )
        return queries, keys

    @torch.no_grad()
    def _scale_to_unit(self) -> None:
        """Give kernels a root mean square of one for rows that are independent of each other."""
        trial = functional.layer_norm(
            torch.randn(TRIAL_POINTS, self.norm.normalized_shape[0]), self.norm.normalized_shape
        )
        queries, keys = self._queries_and_keys(trial)
        size = (queries @ keys.mT * self.scale).square().mean().sqrt()
        for layer in (self.query, self.key):
            layer.weight /= size.sqrt()


class FactorizedAttention(nn.Module):
    """One block: axis kernels applied to values, a norm over the grid, two linear maps; ``(batch, *space, width)``.

    With ``"parallel"`` attention every kernel acts on the values themselves and the results lie side by side as
    channels; with ``"chained"`` attention each acts on the result of the one before: in any order, for kernels of
    different axes commute. In the norm of ``"head"`` each channel of a sample has mean zero and variance one over the
    grid. In that of ``"feb2025"`` all channels of a plane of constant ``x`` have that together, and two more linear
    maps follow.

    Neither the channels of all axes together nor their normalized values are ever stored: the norm goes into the
    weights of the linear map after it, sample by sample, and the map is a sum over heads and axes. Means are taken
    before the linear maps that they commute with.

    Args:
        width: channels.
        heads: kernels of each axis.
        head_width: channels of values that a kernel acts on.
        rotary: kind and length of each axis.
        kernel_multiplier: features of queries and keys in units of ``head_width``.
        attention: ``"parallel"`` or ``"chained"``.
        variant: ``"head"`` or ``"feb2025"``.
        start: ``"small"`` kernels, as published, or of root mean square one, ``"unit"``.
        harmonics: of the rotary code of periodic axes.

    Example:
        >>> block = FactorizedAttention(8, heads=2, head_width=4, rotary=[("open", 1.0)] * 2)
        >>> rotations = block.rotations([torch.linspace(0, 1, size) for size in (6, 5)])
        >>> block(torch.randn(3, 6, 5, 8), rotations).shape
        torch.Size([3, 6, 5, 8])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        rotary: Sequence[tuple[AxisKind, float]],
        kernel_multiplier: int = 3,
        attention: Attention = "parallel",
        variant: BlockVariant = "head",
        start: KernelStart = "small",
        harmonics: int = 8,
    ) -> None:
        super().__init__()
        axes, features = range(len(rotary)), kernel_multiplier * head_width
        self.heads = heads
        self.variant = variant
        self.chains = tuple((axis,) for axis in axes) if attention == "parallel" else (tuple(axes),)
        self.norm = nn.LayerNorm(width)
        self.values = nn.Linear(width, heads * head_width, bias=False)
        self.enter = nn.Linear(width, width, bias=False)
        self.kernels = nn.ModuleList(
            AxisKernel(
                width,
                heads,
                features,
                kernel_multiplier <= WIDEST_UNSCALED,
                RotaryCode(features, kind, length, harmonics),
                start,
            )
            for kind, length in rotary
        )
        self.project = nn.Linear(len(self.chains) * heads * head_width, width, bias=False)
        self.leave = nn.Linear(width, width, bias=False)
        self.after = nn.Sequential()
        if variant == "feb2025":
            linear = (nn.Linear(width, width, bias=False) for _ in range(2))
            self.after = nn.Sequential(next(linear), nn.GELU(), next(linear))

    def rotations(self, points: Sequence[Tensor]) -> tuple[Rotation, ...]:
        """Tables for grids with the coordinates ``points``, ``(n,)`` or ``(batch, n)`` of each axis."""
        found = []
        for kernel, line in zip(self.kernels, points, strict=True):
            assert isinstance(kernel, AxisKernel)
            # Heads lie between samples and points.
            found.append(Rotation(*(table.unsqueeze(-3) for table in kernel.rotary(line))))
        return tuple(found)

    def forward(
        self,
        fields: Tensor,
        rotations: Sequence[Rotation],
        measure: Measure | None = None,
        modulation: Modulation | None = None,
    ) -> Tensor:
        """The block's result at every point of ``fields (batch, *space, width)``."""
        measure = Measure() if measure is None else measure
        normal = self.norm(fields)
        if modulation is not None:
            normal = modulation.of(normal)
        kernels = self.axis_kernels(normal, rotations, measure)
        heads, chains = self.heads, len(self.chains)
        lift = self.values.weight.unflatten(0, (heads, -1))
        project = self.project.weight.unflatten(1, (heads, chains, -1)).permute(2, 1, 0, 3)
        shares = None if measure.shares is None else measure.shares.flatten(1)
        if self.variant == "feb2025":
            mixed = mixed_by_plane(normal, lift, project, kernels, self.chains)
        elif torch.compiler.is_compiling() or torch.is_autocast_enabled(fields.device.type):
            mixed = mixed_along_axes(normal, lift, project, shares, *kernels, chains=self.chains)
        else:
            mixed = mixed_by_head(normal, lift, project, shares, kernels, self.chains)
        result: Tensor = self.after(self.leave(functional.gelu(mixed)))
        return result

    def axis_kernels(self, normal: Tensor, rotations: Sequence[Rotation], measure: Measure) -> list[Tensor]:
        """Kernels ``(batch, heads, n, n)`` of all axes for a normalized field ``(batch, *space, width)``."""
        found = []
        for axis, (kernel, rotation) in enumerate(zip(self.kernels, rotations, strict=True)):
            matrix = kernel(self.enter(axis_means(normal, axis, measure.shares)), rotation)
            if measure.weights is not None:
                matrix = matrix * measure.weights[axis][:, None, None, :]
            found.append(matrix)
        return found


def axis_means(fields: Tensor, axis: int, shares: Tensor | None = None) -> Tensor:
    """Means ``(batch, n, width)`` of ``fields (batch, *space, width)`` over all axes of space but one."""
    others = [1 + other for other in range(fields.ndim - 2) if other != axis]
    if not others:
        return fields
    if shares is None:
        return fields.mean(others)
    return (fields * shares[..., None]).sum(others) / shares.sum(others)[..., None]


def apply_along(kernel: Tensor, values: Tensor, space: Sequence[int], axis: int) -> Tensor:
    """``sum_j kernel[i, j] values[j]`` along one axis: ``(batch, n, n)`` on ``(batch, points, channels)``."""
    lines = _lines(values, space, axis)
    if lines.shape[1] == 1:
        return torch.bmm(kernel, lines[:, 0]).view_as(values)
    return torch.matmul(kernel[:, None], lines).view_as(values)


def _lines(values: Tensor, space: Sequence[int], axis: int) -> Tensor:
    """``(batch, points, channels)`` as ``(batch, what is before, n, what is after the axis)``."""
    return values.reshape(len(values), math.prod(space[:axis]), space[axis], -1)


def mixed_along_axes(
    normal: Tensor,
    lift: Tensor,
    project: Tensor,
    shares: Tensor | None,
    *kernels: Tensor,
    chains: Sequence[Sequence[int]],
) -> Tensor:
    """Lift, apply kernels, normalize each channel over the grid, project; ``(batch, *space, width)``.

    It defines the function of `mixed_by_head`, for tests, second derivatives, compilers and mixed precision.

    Args:
        normal: ``(batch, *space, width)``.
        lift: ``(heads, head_width, width)``.
        project: ``(chains, heads, width, head_width)``.
        shares: of points in means over the grid, ``(1 or batch, points)``.
        kernels: ``(batch, heads, n, n)`` of each axis.
        chains: axes whose kernels act one after the other, for each part of the channels that is projected.
    """
    # Sums of many terms and variances near the norm's epsilon are too much for half precision.
    precision = torch.promote_types(normal.dtype, torch.float32)
    result: Tensor | None = None
    for chain, weight in zip(_applied(normal, lift, kernels, chains), project, strict=True):
        applied = chain.to(precision)
        if shares is None:
            variance, mean = torch.var_mean(applied, 2, correction=0)
        else:
            mean = (applied * shares[:, None, :, None]).sum(2)
            variance = ((applied - mean[:, :, None]).square() * shares[:, None, :, None]).sum(2)
        scaled = weight * torch.rsqrt(variance + EPSILON)[:, :, None]
        lines, matrix = chain.transpose(1, 2).flatten(2), scaled.transpose(2, 3).flatten(1, 2)
        shift = torch.einsum("bhwc,bhc->bw", scaled, mean)[:, None]
        part = torch.bmm(lines, matrix.to(lines.dtype)) - shift
        result = part if result is None else result + part
    assert result is not None
    return result.view(*normal.shape[:-1], -1)


def mixed_by_plane(
    normal: Tensor, lift: Tensor, project: Tensor, kernels: Sequence[Tensor], chains: Sequence[Sequence[int]]
) -> Tensor:
    """As `mixed_along_axes`, with one mean and variance for all channels of a plane of constant ``x``."""
    size = normal.shape[1]
    precision = torch.promote_types(normal.dtype, torch.float32)
    chained = [chain.unflatten(2, (size, -1)) for chain in _applied(normal, lift, kernels, chains)]
    planes = torch.stack([chain.to(precision).mean((1, 3, 4)) for chain in chained])
    mean = planes.mean(0)
    deviations = [(chain.to(precision) - mean[:, None, :, None, None]).square().mean((1, 3, 4)) for chain in chained]
    scale = torch.rsqrt(torch.stack(deviations).mean(0) + EPSILON)[..., None, None]
    lines = (chain.permute(0, 2, 3, 1, 4).flatten(3) for chain in chained)
    sums = sum(
        functional.linear(line, weight.transpose(0, 1).flatten(1)) for line, weight in zip(lines, project, strict=True)
    )
    shift = mean[..., None, None] * project.sum((0, 1, 3))
    return ((sums - shift) * scale).view(*normal.shape[:-1], -1)


def _applied(
    normal: Tensor, lift: Tensor, kernels: Sequence[Tensor], chains: Sequence[Sequence[int]]
) -> Iterator[Tensor]:
    """What each chain of kernels makes of the lifted values, ``(batch, heads, points, head_width)``."""
    batch, *space, _ = normal.shape
    lifted = functional.linear(normal.flatten(1, -2), lift.flatten(0, 1)).unflatten(-1, (len(lift), -1)).transpose(1, 2)
    every = lifted.flatten(0, 1)
    for chain in chains:
        applied = every
        for axis in chain:
            applied = apply_along(kernels[axis].flatten(0, 1), applied, space, axis)
        yield applied.unflatten(0, (batch, -1))


def mixed_by_head(
    normal: Tensor,
    lift: Tensor,
    project: Tensor,
    shares: Tensor | None,
    kernels: Sequence[Tensor],
    chains: Sequence[Sequence[int]],
) -> Tensor:
    """`mixed_along_axes`, head by head; of all channels only the lifted values are kept for the gradients."""
    if torch.is_grad_enabled():
        mixed: Tensor = _MixedByHead.apply(normal, lift, project, shares, chains, *kernels)  # type: ignore[no-untyped-call]
        return mixed
    return _mix(normal, lift, project, shares, kernels, chains, None)[0]


class _MixedByHead(torch.autograd.Function):
    """`mixed_along_axes` in pieces of one head, on a CPU also of one sample.

    What a kernel makes of the values is computed again for the gradients, which costs less than to write and read it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        normal: Tensor,
        lift: Tensor,
        project: Tensor,
        shares: Tensor | None,
        chains: Sequence[Sequence[int]],
        *kernels: Tensor,
    ) -> Tensor:
        """`mixed_along_axes`."""
        batch, *space, _ = normal.shape
        lifted = normal.new_empty(len(lift), batch, math.prod(space), lift.shape[1])
        result, means, scales = _mix(normal, lift, project, shares, kernels, chains, lifted)
        ctx.chains = chains
        ctx.save_for_backward(normal, lift, project, shares, *kernels, lifted, means, scales)
        return result

    @staticmethod
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors but the shares; differentiable again when a graph is asked for."""
        *inputs, lifted, means, scales = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = functools.partial(mixed_along_axes, chains=ctx.chains)
            needed = [*ctx.needs_input_grad[:3], False, *ctx.needs_input_grad[5:]]
            first = differentiable_gradients(formula, inputs, needed, gradient)
            return *first[:4], None, *first[4:]
        normal, lift, project, shares, *kernels = inputs
        space = normal.shape[1:-1]
        flat, upper = normal.flatten(1, -2), gradient.flatten(1, -2).contiguous()
        total = upper.sum(1)
        grad_flat, grad_lift = torch.zeros_like(flat), torch.zeros_like(lift)
        grad_project = project.new_zeros(project.shape)
        grad_kernels = [torch.zeros_like(kernel) for kernel in kernels]
        for head, piece in _pieces(normal, len(lift)):
            source, summed = upper[piece], total[piece]
            grad_values: Tensor | None = None
            for number, chain in enumerate(ctx.chains):
                states = [lifted[head, piece]]
                for axis in chain:
                    states.append(apply_along(kernels[axis][piece, head], states[-1], space, axis))
                mean, scale, weight = means[number, head, piece], scales[number, head, piece], project[number, head]
                outer = torch.bmm(source.mT, states[-1])
                outer = outer.sub_(summed[:, :, None] * mean[:, None]).mul_(scale[:, None])
                grad_project[number, head] += outer.sum(0)
                # Mean and variance depend on every point: a term linear in the values, the same at all of them.
                slope = -scale.square() * (weight * outer).sum(1)
                offset = -slope * mean - scale * (summed @ weight)
                change = _linear_term(
                    states.pop(), slope, offset, None if shares is None else shares[_of(shares, piece)]
                )
                change = change.baddbmm_(source, weight * scale[:, None])
                for axis in reversed(chain):
                    lines = (_lines(each, space, axis) for each in (change, states.pop()))
                    grad_kernels[axis][piece, head] += torch.matmul(next(lines), next(lines).mT).sum(1)
                    change = apply_along(kernels[axis][piece, head].mT, change, space, axis)
                grad_values = change if grad_values is None else grad_values.add_(change)
            assert grad_values is not None
            grad_flat[piece].baddbmm_(grad_values, lift[head].expand(len(grad_values), -1, -1))
            grad_lift[head] += torch.bmm(grad_values.mT, flat[piece]).sum(0)
        return grad_flat.view_as(normal), grad_lift, grad_project, None, None, *grad_kernels


def _mix(
    normal: Tensor,
    lift: Tensor,
    project: Tensor,
    shares: Tensor | None,
    kernels: Sequence[Tensor],
    chains: Sequence[Sequence[int]],
    lifted: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`mixed_along_axes`, and means and scales of all channels; fills ``lifted (heads, batch, points, head_width)``."""
    batch, *space, _ = normal.shape
    flat = normal.flatten(1, -2)
    result = flat.new_zeros(batch, flat.shape[1], project.shape[2])
    shift = flat.new_zeros(batch, project.shape[2])
    means, scales = (flat.new_empty(len(chains), len(lift), batch, lift.shape[1]) for _ in range(2))
    for head, piece in _pieces(normal, len(lift)):
        values = flat[piece] @ lift[head].T
        if lifted is not None:
            lifted[head, piece] = values
        for number, chain in enumerate(chains):
            applied = values
            for axis in chain:
                applied = apply_along(kernels[axis][piece, head], applied, space, axis)
            mean, scale = _moments(applied, None if shares is None else shares[_of(shares, piece)])
            weight = project[number, head] * scale[:, None]
            result[piece].baddbmm_(applied, weight.mT)
            shift[piece] += torch.bmm(weight, mean[:, :, None])[:, :, 0]
            means[number, head, piece], scales[number, head, piece] = mean, scale
    return result.sub_(shift[:, None]).view(*normal.shape[:-1], -1), means, scales


def _pieces(normal: Tensor, heads: int) -> Iterator[tuple[int, slice]]:
    """Heads and samples that are worked on at once: on a CPU single samples, which stay in its cache."""
    batch = len(normal)
    size = 1 if normal.device.type == "cpu" else batch
    for start in range(0, batch, size):
        for head in range(heads):
            yield head, slice(start, start + size)


def _of(shares: Tensor, piece: slice) -> slice:
    """The samples of a piece among ``shares``, which may be the same for all of them."""
    return piece if len(shares) > 1 else slice(None)


def _moments(values: Tensor, shares: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation ``(batch, channels)`` over the points of ``values (batch, points, channels)``."""
    batch, points, _ = values.shape
    if shares is None and values.device.type != "cpu":
        variance, mean = torch.var_mean(values, 1, correction=0)
        return mean, torch.rsqrt(variance + EPSILON)
    # On a CPU a product with a row of ones is several times faster than a mean.
    row = values.new_full((1, 1, 1), 1 / points).expand(1, 1, points) if shares is None else shares[:, None]
    row = row.expand(batch, 1, points).contiguous()
    mean = torch.bmm(row, values)
    variance = torch.bmm(row, (values - mean).square_())
    return mean[:, 0], torch.rsqrt(variance[:, 0] + EPSILON)


def _linear_term(values: Tensor, slope: Tensor, offset: Tensor, shares: Tensor | None) -> Tensor:
    """``share * (slope * values + offset)`` in place of ``values (batch, points, channels)``."""
    if shares is None:
        points = values.shape[1]
        return torch.addcmul(offset[:, None] / points, values, slope[:, None] / points, out=values)
    return torch.addcmul(offset[:, None], values, slope[:, None], out=values).mul_(shares[..., None])

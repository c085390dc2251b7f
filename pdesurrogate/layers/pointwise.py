"""Channel mixing that acts on every grid point alone: 1 x 1 convolutions as matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Elements of a tile, half a megabyte in float32: the handful of tensors that a tile needs stay in a core's cache.
TILE_ELEMENTS = 2**17


class Pointwise(nn.Module):
    """``weight @ x + bias`` at every point: ``(batch, channels_in, *space) -> (batch, channels_out, *space)``.

    The same function as a convolution with kernel size one, as one matrix product a sample. Parameters are drawn as
    torch draws those of such a convolution.

    Example:
        >>> layer = Pointwise(2, 3)
        >>> layer(torch.ones(4, 2, 8, 8)).shape
        torch.Size([4, 3, 8, 8])
    """

    bias: Tensor | None

    def __init__(self, channels_in: int, channels_out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in))
        self.bias = nn.Parameter(torch.empty(channels_out)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly within ``1 / sqrt(channels_in)``."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, values: Tensor) -> Tensor:
        """Mix the channels of ``values``."""
        return mix(values, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        channels_out, channels_in = self.weight.shape
        return f"{channels_in}, {channels_out}, bias={self.bias is not None}"


class PointwiseMLP(nn.Module):
    """Two `Pointwise` layers with a GELU between them.

    Example:
        >>> PointwiseMLP(2, 16, 1)(torch.ones(4, 2, 8)).shape
        torch.Size([4, 1, 8])
    """

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__()
        self.first = Pointwise(channels_in, hidden)
        self.second = Pointwise(hidden, channels_out)

    def forward(
        self, values: Tensor, gate: Tensor | None = None, gated: Tensor | None = None, activate: bool = False
    ) -> Tensor:
        """Mix the channels of ``values (batch, channels_in, *space)`` at every point; see `perceptron`."""
        inputs = (self.first.weight, self.first.bias, self.second.weight, self.second.bias, gate, gated)
        if torch.is_autocast_enabled(values.device.type):
            return perceptron(values, *inputs, activate)
        mixed: Tensor = _Perceptron.apply(values, *inputs, activate)
        return mixed


def mix(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight (out, in) @ values (batch, in, *space) + bias (out,)``; ``(batch, out, *space)``."""
    points = values.flatten(2)
    every = weight.expand(points.shape[0], -1, -1)
    mixed = torch.bmm(every, points) if bias is None else torch.baddbmm(bias[:, None], every, points)
    return mixed.unflatten(2, values.shape[2:])


def perceptron(
    values: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    gate: Tensor | None,
    gated: Tensor | None,
    activate: bool,
) -> Tensor:
    """``act(second(gelu(first(act(values)))) + gate * gated)`` with ``act`` the GELU, or the identity.

    It defines the function of `PointwiseMLP`, for tests, second derivatives and mixed precision. ``gate (channels,)``
    and ``gated (batch, channels, *space)`` come together or not at all.
    """
    hidden = mix(functional.gelu(values) if activate else values, first_weight, first_bias)
    result = mix(functional.gelu(hidden), second_weight, second_bias)
    if gate is not None and gated is not None:
        result = result + gate.reshape(-1, *(1,) * (values.ndim - 2)) * gated
    return functional.gelu(result) if activate else result


class _Perceptron(torch.autograd.Function):
    """`perceptron`, tile by tile, keeping what comes before each GELU and computing the GELU itself again."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        first_weight: Tensor,
        first_bias: Tensor,
        second_weight: Tensor,
        second_bias: Tensor,
        gate: Tensor | None,
        gated: Tensor | None,
        activate: bool,
    ) -> Tensor:
        """`perceptron`."""
        flat = values.flatten(2)
        skip = None if gated is None else gated.flatten(2)
        batch, _, points = flat.shape
        hidden = flat.new_empty(batch, len(first_weight), points)
        result = flat.new_empty(batch, len(second_weight), points)
        activated = torch.empty_like(result) if activate else result
        for tile in _tiles(flat, hidden):
            entered = functional.gelu(flat[tile]) if activate else flat[tile]
            _affine(first_weight, first_bias[:, None], entered, out=hidden[tile])
            constant = second_bias[:, None]
            if gate is not None and skip is not None:
                constant = torch.addcmul(constant, gate[:, None], skip[tile])
            _affine(second_weight, constant, functional.gelu(hidden[tile]), out=result[tile])
            if activate:
                torch.ops.aten.gelu.out(result[tile], out=activated[tile])
        ctx.activate = activate
        ctx.save_for_backward(
            values,
            first_weight,
            first_bias,
            second_weight,
            second_bias,
            gate,
            gated,
            hidden,
            result if activate else None,
        )
        return activated.unflatten(2, values.shape[2:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors; differentiable again when a graph is asked for."""
        if torch.is_grad_enabled():
            return *_differentiable_gradients(gradient, ctx), None
        values, first_weight, first_bias, second_weight, second_bias, gate, gated, hidden, result = ctx.saved_tensors
        flat, upper = values.flatten(2), gradient.flatten(2)
        skip = None if gated is None else gated.flatten(2)
        grad_values = torch.empty_like(flat) if ctx.needs_input_grad[0] else None
        grad_skip = None if skip is None else torch.empty_like(skip)
        sums = [torch.zeros_like(x) for x in (first_weight, first_bias, second_weight, second_bias)]
        grad_gate = None if gate is None else torch.zeros_like(gate)
        for tile in _tiles(flat, hidden):
            grad = upper[tile]
            if ctx.activate:
                grad = torch.ops.aten.gelu_backward(grad, result[tile])
            if skip is not None:
                grad_gate += (grad * skip[tile]).sum((0, 2))
                torch.mul(grad, gate[:, None], out=grad_skip[tile])
            middle = functional.gelu(hidden[tile])
            sums[2] += torch.bmm(grad, middle.mT).sum(0)
            sums[3] += grad.sum((0, 2))
            grad = torch.bmm(second_weight.T.expand(len(grad), -1, -1), grad, out=middle)
            torch.ops.aten.gelu_backward.grad_input(grad, hidden[tile], grad_input=grad)
            entered = functional.gelu(flat[tile]) if ctx.activate else flat[tile]
            sums[0] += torch.bmm(grad, entered.mT).sum(0)
            sums[1] += grad.sum((0, 2))
            if grad_values is not None:
                out = grad_values[tile]
                torch.bmm(first_weight.T.expand(len(grad), -1, -1), grad, out=out)
                if ctx.activate:
                    torch.ops.aten.gelu_backward.grad_input(out, flat[tile], grad_input=out)
        if grad_values is not None:
            grad_values = grad_values.view(values.shape)
        return grad_values, *sums, grad_gate, None if grad_skip is None else grad_skip.view(gated.shape), None


def _affine(weight: Tensor, constant: Tensor, values: Tensor, out: Tensor) -> None:
    torch.baddbmm(constant, weight.expand(len(values), -1, -1), values, out=out)


def _tiles(values: Tensor, hidden: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Parts ``(samples, all channels, points)`` that fit the cache of a core; on other devices everything at once."""
    batch, channels, points = values.shape
    whole = slice(None)
    if values.device.type != "cpu":
        yield whole, whole, whole
        return
    size = max(TILE_ELEMENTS // max(channels, hidden.shape[1]), 256)
    samples = max(size // points, 1)
    for sample in range(0, batch, samples):
        for point in range(0, points, size):
            yield slice(sample, sample + samples), whole, slice(point, point + size)


def _differentiable_gradients(gradient: Tensor, ctx: Any) -> list[Tensor | None]:
    inputs = ctx.saved_tensors[:7]
    needed = [index for index in range(7) if ctx.needs_input_grad[index]]
    result = perceptron(*inputs, ctx.activate)
    found = torch.autograd.grad(result, [inputs[index] for index in needed], gradient, create_graph=True)
    gradients: list[Tensor | None] = [None] * 7
    for index, part in zip(needed, found, strict=True):
        gradients[index] = part
    return gradients

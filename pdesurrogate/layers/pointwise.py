"""Channel mixing that acts on every grid point alone: 1 x 1 convolutions as matrix products."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.gradients import differentiable_gradients, without_autocast

aten = torch.ops.aten

Activation = Literal["relu", "gelu"]

# Below this many elements in a sample the steps of a loop over samples cost more than the memory traffic they save.
SMALLEST_SAMPLE = 2**14

# Hidden values of `ResidualMLP` that are worked on at once; two such arrays fit into a core's second-level cache.
PIECE = 2**17


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
        first, second = self.first, self.second
        assert first.bias is not None
        assert second.bias is not None
        function = _Perceptron.apply if _pays_by_sample(values, len(first.weight)) else perceptron
        mixed: Tensor = function(values, first.weight, first.bias, second.weight, second.bias, gate, gated, activate)
        return mixed


class ResidualMLP(nn.Module):
    """``act(second(act(first(x))) + skip(y))`` at every point, with `Pointwise` layers; ``(batch, width, *space)``.

    Example:
        >>> fields = torch.ones(2, 3, 8, 8)
        >>> ResidualMLP(3, 12, "relu")(fields, fields).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.first = Pointwise(width, hidden)
        self.second = Pointwise(hidden, width)
        self.skip = Pointwise(width, width)
        self.activation: Activation = activation

    def forward(self, values: Tensor, around: Tensor) -> Tensor:
        """Mix ``values`` and add what goes ``around``, both ``(batch, width, *space)``."""
        first, second, skip = self.first, self.second, self.skip
        assert first.bias is not None
        assert second.bias is not None
        assert skip.bias is not None
        parameters = (first.weight, first.bias, second.weight, second.bias, skip.weight, skip.bias)
        function = _ResidualMLP.apply if _pays_by_sample(values, len(first.weight)) else residual_mlp
        mixed: Tensor = function(values, around, *parameters, self.activation)
        return mixed

    def extra_repr(self) -> str:
        """Kind, shown by ``print``."""
        return f"activation={self.activation!r}"


def _pays_by_sample(values: Tensor, hidden: int) -> bool:
    """Whether to work in a core's cache, sample by sample; autocast and compilers take the formula instead."""
    if values.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return values[0, 0].numel() * hidden >= SMALLEST_SAMPLE


def mix(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight (out, in) @ values (batch, in, *space) + bias (out,)``; ``(batch, out, *space)``."""
    points = values.flatten(2)
    every = weight.expand(points.shape[0], -1, -1)
    mixed = torch.bmm(every, points) if bias is None else torch.baddbmm(bias[:, None], every, points)
    return mixed.reshape(len(values), -1, *values.shape[2:])


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
    """`perceptron`, sample by sample in the cache of a core.

    Only what comes before each GELU is kept; the GELU itself is computed again for the gradients, in the cache, which
    is cheaper than writing it to memory and reading it back.
    """

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
        flat, skip = values.flatten(2), None if gated is None else gated.flatten(2)
        hidden = flat.new_empty(len(flat), len(first_weight), flat.shape[2])
        result = flat.new_empty(len(flat), len(second_weight), flat.shape[2])
        activated = torch.empty_like(result) if activate else result
        entered, middle, product = (torch.empty_like(part[0]) for part in (flat, hidden, result))
        for sample in range(len(flat)):
            source = aten.gelu.out(flat[sample], out=entered) if activate else flat[sample]
            torch.mm(first_weight, source, out=hidden[sample]).add_(first_bias[:, None])
            aten.gelu.out(hidden[sample], out=middle)
            torch.mm(second_weight, middle, out=result[sample]).add_(second_bias[:, None])
            if gate is not None and skip is not None:
                result[sample].add_(torch.mul(skip[sample], gate[:, None], out=product))
            if activate:
                aten.gelu.out(result[sample], out=activated[sample])
        ctx.activate = activate
        inputs = (values, first_weight, first_bias, second_weight, second_bias, gate, gated)
        ctx.save_for_backward(*inputs, hidden, result if activate else None)
        return activated.view(len(flat), -1, *values.shape[2:])

    @staticmethod
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors; differentiable again when a graph is asked for."""
        *inputs, hidden, result = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = functools.partial(perceptron, activate=ctx.activate)
            return *differentiable_gradients(formula, inputs, ctx.needs_input_grad[:7], gradient), None
        values, first_weight, first_bias, second_weight, second_bias, gate, gated = inputs
        flat, upper, skip = values.flatten(2), gradient.flatten(2), None if gated is None else gated.flatten(2)
        grad_flat = torch.empty_like(flat)
        grad_skip = None if skip is None else torch.empty_like(skip)
        grad_first, grad_first_bias = torch.zeros_like(first_weight), torch.zeros_like(first_bias)
        grad_second, grad_second_bias = torch.zeros_like(second_weight), torch.zeros_like(second_bias)
        grad_gate = None if gate is None else torch.zeros_like(gate)
        entered, middle, grad_middle, product = (torch.empty_like(part[0]) for part in (flat, hidden, hidden, upper))
        grad_result = torch.empty_like(product)
        for sample in range(len(flat)):
            grad = upper[sample]
            if ctx.activate:
                grad = aten.gelu_backward.grad_input(grad, result[sample], grad_input=grad_result)
            if skip is not None and grad_skip is not None and grad_gate is not None:
                grad_gate += torch.mul(grad, skip[sample], out=product).sum(1)
                torch.mul(grad, gate[:, None], out=grad_skip[sample])
            aten.gelu.out(hidden[sample], out=middle)
            grad_second += outer(grad, middle)
            grad_second_bias += grad.sum(1)
            torch.mm(second_weight.T, grad, out=grad_middle)
            aten.gelu_backward.grad_input(grad_middle, hidden[sample], grad_input=grad_middle)
            source = aten.gelu.out(flat[sample], out=entered) if ctx.activate else flat[sample]
            grad_first += outer(grad_middle, source)
            grad_first_bias += grad_middle.sum(1)
            if ctx.activate:
                torch.mm(first_weight.T, grad_middle, out=entered)
                aten.gelu_backward.grad_input(entered, flat[sample], grad_input=grad_flat[sample])
            elif ctx.needs_input_grad[0]:
                torch.mm(first_weight.T, grad_middle, out=grad_flat[sample])
        grad_values = grad_flat.reshape(values.shape) if ctx.needs_input_grad[0] else None
        grad_gated = None if grad_skip is None else grad_skip.reshape(gated.shape)
        parameters = grad_first, grad_first_bias, grad_second, grad_second_bias
        return grad_values, *parameters, grad_gate, grad_gated, None


def activated(values: Tensor, activation: Activation) -> Tensor:
    """The activation of ``values``."""
    return functional.relu(values) if activation == "relu" else functional.gelu(values)


def residual_mlp(
    values: Tensor,
    around: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    skip_weight: Tensor,
    skip_bias: Tensor,
    activation: Activation,
) -> Tensor:
    """What `ResidualMLP` computes, as its formula: for tests, second derivatives and mixed precision."""
    hidden = activated(mix(values, first_weight, first_bias), activation)
    return activated(mix(hidden, second_weight, second_bias) + mix(around, skip_weight, skip_bias), activation)


class _ResidualMLP(torch.autograd.Function):
    """`residual_mlp` in pieces of points that stay in a core's cache.

    Hidden values are computed again for the gradients: that costs a tenth of what writing them to memory and reading
    them back does.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, around: Tensor, *parameters: Any) -> Tensor:
        """`residual_mlp`."""
        *tensors, activation = parameters
        first_weight, first_bias, second_weight, second_bias, skip_weight, skip_bias = tensors
        flat, detour = values.flatten(2), around.flatten(2)
        # What comes before the last activation is kept for a GELU; of a ReLU the result tells its derivative.
        before = torch.empty_like(flat)
        last_bias = (second_bias + skip_bias)[:, None]
        for place in _pieces(flat, len(first_weight)):
            hidden = _activate_(torch.addmm(first_bias[:, None], first_weight, flat[place]), activation)
            piece = torch.addmm(last_bias, second_weight, hidden).addmm_(skip_weight, detour[place])
            before[place] = _activate_(piece, "relu") if activation == "relu" else piece
        ctx.activation = activation
        ctx.save_for_backward(values, around, *tensors, before)
        result = before if activation == "relu" else functional.gelu(before)
        return result.view(values.shape)

    @staticmethod
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors; differentiable again when a graph is asked for."""
        *inputs, before = ctx.saved_tensors
        activation = ctx.activation
        if torch.is_grad_enabled():
            formula = functools.partial(residual_mlp, activation=activation)
            return *differentiable_gradients(formula, inputs, ctx.needs_input_grad[:8], gradient), None
        values, around, first_weight, first_bias, second_weight, _, skip_weight, _ = inputs
        flat, detour, upper = values.flatten(2), around.flatten(2), gradient.flatten(2)
        grad_flat, grad_detour = torch.empty_like(flat), torch.empty_like(flat)
        grads = [torch.zeros_like(weight) for weight in (first_weight, first_bias, second_weight, skip_weight)]
        grad_first, grad_first_bias, grad_second, grad_skip = grads
        grad_last_bias = torch.zeros_like(inputs[5])
        for place in _pieces(flat, len(first_weight)):
            source, aside = flat[place], detour[place]
            entered = torch.addmm(first_bias[:, None], first_weight, source)
            grad = _before_activation(upper[place], before[place], activation)
            hidden = functional.relu_(entered) if activation == "relu" else functional.gelu(entered)
            grad_second += outer(grad, hidden)
            grad_last_bias += grad.sum(1)
            grad_skip += outer(grad, aside)
            grad_detour[place] = torch.mm(skip_weight.T, grad)
            grad_hidden = _before_activation(torch.mm(second_weight.T, grad), entered, activation)
            grad_first += outer(grad_hidden, source)
            grad_first_bias += grad_hidden.sum(1)
            grad_flat[place] = torch.mm(first_weight.T, grad_hidden)
        fields = grad_flat.view(values.shape), grad_detour.view(around.shape)
        return *fields, grad_first, grad_first_bias, grad_second, grad_last_bias, grad_skip, grad_last_bias, None


def _pieces(flat: Tensor, hidden: int) -> Iterator[tuple[int, slice, slice]]:
    """Places of pieces ``(channel, points)`` of ``flat (batch, channel, points)``."""
    points = flat.shape[2]
    size = max(PIECE // hidden, 1)
    for sample in range(len(flat)):
        for start in range(0, points, size):
            yield sample, slice(None), slice(start, min(start + size, points))


def _activate_(values: Tensor, activation: Activation) -> Tensor:
    return functional.relu_(values) if activation == "relu" else aten.gelu.out(values.clone(), out=values)


def _before_activation(gradient: Tensor, values: Tensor, activation: Activation) -> Tensor:
    """Gradient before an activation; ``values`` are those before it, or for a ReLU those after it."""
    if activation == "relu":
        return aten.threshold_backward(gradient, values, 0)
    return aten.gelu_backward(gradient, values)


def outer(left: Tensor, right: Tensor) -> Tensor:
    """``left (m, points) @ right (n, points).T``, with the longer side as rows: MKL is up to twice as fast that way."""
    return torch.mm(left, right.T) if len(left) >= len(right) else torch.mm(right, left.T).T

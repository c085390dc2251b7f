"""Pointwise layers against the convolutions they replace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers import pointwise
from pdesurrogate.layers.pointwise import Activation, Pointwise, PointwiseMLP, ResidualMLP


@pytest.fixture(params=[0, 2**40], ids=["by_sample", "formula"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointwise, "SMALLEST_SAMPLE", request.param)


@pytest.fixture(params=[15, 2**17, None], ids=["pieces", "one_piece", "formula"])
def any_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of three points where five channels are hidden, as one piece, and as the formula."""
    monkeypatch.setattr(pointwise, "SMALLEST_SAMPLE", 2**40 if request.param is None else 0)
    if request.param is not None:
        monkeypatch.setattr(pointwise, "PIECE", request.param)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_pointwise_is_a_convolution_with_kernel_size_one() -> None:
    torch.manual_seed(0)
    layer, convolution = Pointwise(3, 5).double(), nn.Conv2d(3, 5, 1).double()
    with torch.no_grad():
        convolution.weight.copy_(layer.weight[..., None, None])
        assert convolution.bias is not None
        convolution.bias.copy_(layer.bias)
    values = random(2, 3, 6, 7)
    torch.testing.assert_close(layer(values), convolution(values))
    assert Pointwise(3, 5, bias=False)(torch.zeros(2, 3, 4)).abs().max() == 0


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_perceptron_value_and_derivatives(activate: bool, gated: bool) -> None:
    torch.manual_seed(1)
    layer = PointwiseMLP(2, 3, 4).double()
    values = random(2, 2, 3, 2)
    gate, skip = (random(4), random(2, 4, 3, 2)) if gated else (None, None)

    def function(values: Tensor, gate: Tensor | None, skip: Tensor | None, *parameters: Tensor) -> Tensor:
        names = dict(layer.named_parameters())
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, state, (values, gate, skip, activate))

    first, second = layer.first, layer.second
    entered = functional.gelu(values) if activate else values
    hidden = torch.einsum("oi,bixy->boxy", first.weight, entered) + first.bias[:, None, None]
    expected = torch.einsum("oi,bixy->boxy", second.weight, functional.gelu(hidden)) + second.bias[:, None, None]
    if gate is not None and skip is not None:
        expected = expected + gate[:, None, None] * skip
    if activate:
        expected = functional.gelu(expected)
    inputs = (values, gate, skip, *layer.parameters())
    torch.testing.assert_close(function(*inputs), expected)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.usefixtures("both_ways")
def test_gradient_only_where_it_is_needed() -> None:
    layer = PointwiseMLP(2, 3, 1)
    layer.first.requires_grad_(False)
    values = torch.randn(2, 2, 5)
    layer(values).sum().backward()
    assert layer.first.weight.grad is None
    assert layer.second.weight.grad is not None
    assert layer.second.weight.grad.abs().min() > 0


def test_autocast_lowers_the_precision_of_the_products() -> None:
    torch.manual_seed(2)
    layer = PointwiseMLP(2, 8, 1)
    values = torch.randn(2, 2, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(values)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(values), atol=0.03, rtol=0.03)  # bfloat16 has eight bits


def convolutions(layer: ResidualMLP, values: Tensor, around: Tensor) -> Tensor:
    """The formula of `ResidualMLP`, by torch's own convolutions."""
    act = functional.relu if layer.activation == "relu" else functional.gelu

    def convolve(part: Pointwise, fields: Tensor) -> Tensor:
        return functional.conv2d(fields, part.weight[..., None, None], part.bias)

    return act(convolve(layer.second, act(convolve(layer.first, values))) + convolve(layer.skip, around))


@pytest.mark.usefixtures("any_way")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_residual_mlp_value_and_derivatives(activation: Activation) -> None:
    torch.manual_seed(3)
    layer = ResidualMLP(2, 5, activation).double()
    values, around = random(2, 2, 5, 2), random(2, 2, 5, 2)  # ten points: three pieces of three and one of one

    def function(values: Tensor, around: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(dict(layer.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(layer, state, (values, around))

    inputs = (values, around, *layer.parameters())
    torch.testing.assert_close(function(*inputs), convolutions(layer, values, around))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.usefixtures("any_way")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_residual_mlp_around_itself_in_single_precision(activation: Activation) -> None:
    torch.manual_seed(4)
    layer = ResidualMLP(3, 5, activation)
    values = torch.randn(2, 6, 7, 3).movedim(-1, 1).requires_grad_()
    fields = layer(values, values)
    (gradient,) = torch.autograd.grad(fields.square().sum(), values)
    layer, exact = layer.double(), values.detach().double().requires_grad_()
    expected = convolutions(layer, exact, exact)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), exact)
    assert fields.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(fields.double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("any_way")
def test_residual_mlp_gradient_only_where_it_is_needed() -> None:
    layer = ResidualMLP(2, 5, "gelu")
    layer.second.requires_grad_(False)
    layer(torch.randn(2, 2, 7), torch.randn(2, 2, 7)).sum().backward()
    assert layer.second.weight.grad is None
    for part in (layer.first, layer.skip):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().min() > 0


def test_residual_mlp_under_autocast() -> None:
    torch.manual_seed(5)
    layer = ResidualMLP(2, 8, "relu")
    values = torch.randn(2, 2, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(values, values)
    half.float().sum().backward()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(values, values), atol=0.03, rtol=0.03)  # bfloat16 has eight bits

"""Pointwise layers against the convolutions they replace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers import pointwise
from pdesurrogate.layers.pointwise import Pointwise, PointwiseMLP


@pytest.fixture(params=[0, 2**40], ids=["by_sample", "formula"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointwise, "SMALLEST_SAMPLE", request.param)


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

"""Activations of standardized values, and the networks between whose layers they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdesurrogate.layers.conv_blocks import activation_function
from pdesurrogate.layers.standardized_activation import Activation, Perceptron, StandardizedActivation


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "silu"])
@pytest.mark.parametrize(("over", "axes"), [("features", (2,)), ("sample", (1, 2))])
def test_is_the_formula(activation: Any, over: Any, axes: tuple[int, ...]) -> None:
    values = 3 + 2 * numbers(4, 5, 6)
    mean, deviation = values.mean(axes, keepdim=True), values.std(axes, keepdim=True)
    expected = deviation * activation_function(activation)((values - mean) / deviation) + mean
    torch.testing.assert_close(StandardizedActivation(activation, over)(values), expected)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_commutes_with_scale_and_shift(activation: Any) -> None:
    layer, values = StandardizedActivation(activation), numbers(4, 6)
    torch.testing.assert_close(layer(10 * values - 7), 10 * layer(values) - 7)


def test_over_features_no_row_minds_the_others() -> None:
    values = numbers(3, 50, 8)
    alone, together = (StandardizedActivation("relu", over) for over in ("features", "sample"))
    torch.testing.assert_close(alone(values[:, :7]), alone(values)[:, :7])
    assert not torch.allclose(together(values[:, :7]), together(values)[:, :7])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_equal_values_stay_and_have_a_gradient(activation: Any) -> None:
    values = torch.full((2, 5), 3.0, requires_grad=True)
    result = StandardizedActivation(activation)(values)
    result.sum().backward()
    torch.testing.assert_close(result, values)
    assert values.grad is not None
    assert bool(torch.isfinite(values.grad).all())


def test_perceptron_is_its_layers_one_after_the_other() -> None:
    torch.manual_seed(0)
    network = Perceptron((3, 7, 5, 2), Activation("tanh")).double()
    first, second, third = network.layers
    values = numbers(4, 3)
    expected = third(torch.tanh(second(torch.tanh(first(values)))))
    torch.testing.assert_close(network(values), expected)
    assert isinstance(first, nn.Linear)
    torch.testing.assert_close(network.after_first(first(values)), expected)


def test_they_say_what_they_are() -> None:
    assert repr(StandardizedActivation("relu", "sample")) == "StandardizedActivation('relu', over='sample')"
    assert repr(Activation("gelu")) == "Activation('gelu')"

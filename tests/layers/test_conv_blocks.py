"""Blocks of convolutions: torch's own layers with other memory, and a condition that acts in between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.conv_blocks import Conditioning, ConvBlock, JointConvolution


def fields(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("padding", ["circular", "zeros", "replicate", "reflect"])
def test_joint_convolution_is_torch_convolution_of_the_concatenation(dimension: int, padding: str) -> None:
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
    theirs = kind(5, 4, 3, padding=1, padding_mode=padding).double()
    ours = JointConvolution(5, 4, (padding,) * dimension).double()
    ours.load_state_dict(theirs.state_dict())
    space = (4, 6, 5)[:dimension]
    one, two = fields(2, 2, *space), fields(2, 3, *space, seed=1)
    expected = theirs(torch.cat([one, two], dim=1))
    torch.testing.assert_close(ours(one, two), expected, atol=1e-13, rtol=0)


def test_parameters_are_drawn_as_torch_draws_them() -> None:
    torch.manual_seed(0)
    weight = JointConvolution(7, 500, ("zeros", "zeros")).weight.detach()
    bound = (7 * 9) ** -0.5
    assert bound * 0.999 < weight.abs().max() <= bound
    assert float(weight.var()) == pytest.approx(bound**2 / 3, rel=0.02)


@pytest.mark.parametrize("conditioning", ["none", "add", "adagn"])
def test_block_is_its_formula(conditioning: Conditioning) -> None:
    torch.manual_seed(1)
    block = ConvBlock(3, 4, ("zeros", "zeros"), conditioning=conditioning, features=5).double()
    nn.init.normal_(block.first_norm.weight)
    values, condition = fields(2, 3, 6, 6), fields(2, 5)
    first, second = block.first, block.second
    hidden = functional.conv2d(values, first.weight, first.bias, padding=1)
    hidden = functional.gelu(functional.group_norm(hidden, 1, block.first_norm.weight, block.first_norm.bias))
    if block.condition is not None:
        acts = block.condition(condition)[..., None, None]
        hidden = hidden + acts if conditioning == "add" else hidden * (1 + acts[:, :4]) + acts[:, 4:]
    hidden = functional.conv2d(hidden, second.weight, second.bias, padding=1)
    expected = functional.gelu(functional.group_norm(hidden, 1, block.second_norm.weight, block.second_norm.bias))
    torch.testing.assert_close(block(values, condition=condition), expected, atol=1e-12, rtol=0)
    parameters = list(block.parameters())
    ours = torch.autograd.grad(block(values, condition=condition).square().sum(), parameters)
    for one, other in zip(ours, torch.autograd.grad(expected.square().sum(), parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)

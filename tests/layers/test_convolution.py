"""Convolutions with a rule for each axis' ends, against torch's own on tiled and padded fields."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdesurrogate.layers.conditioning import sinusoids
from pdesurrogate.layers.conv_blocks import JointConvolution
from pdesurrogate.layers.convolution import (
    SpacedConvolution,
    TransposedConvolution,
    extend,
    padding_of_axes,
    with_margin,
    without_margin,
)
from pdesurrogate.layers.frames import fold_history, unfold_frames


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def torch_twin(layer: SpacedConvolution, dimension: int) -> nn.Module:
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    channels_out, channels_in = layer.weight.shape[:2]
    twin = kinds[dimension](channels_in, channels_out, 3, layer.stride, padding=layer.dilation, dilation=layer.dilation)
    twin.load_state_dict(layer.state_dict())
    return twin.double()


@pytest.mark.parametrize("space", [(8,), (8, 16), (8, 8, 16)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 4)])
def test_convolution_with_zeros_is_torchs(space: tuple[int, ...], stride: int, dilation: int) -> None:
    layer = SpacedConvolution(2, 3, ("zeros",) * len(space), stride, dilation).double()
    values = fields(2, 2, *space)
    torch.testing.assert_close(layer(values), torch_twin(layer, len(space))(values))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 8)])
def test_convolution_on_a_periodic_axis_sees_its_copies(stride: int, dilation: int) -> None:
    layer = SpacedConvolution(2, 3, ("circular", "zeros"), stride, dilation).double()
    values = fields(1, 2, 8, 10)
    tiled = torch_twin(layer, 2)(values.repeat(1, 1, 3, 1))
    size = 8 // stride
    torch.testing.assert_close(layer(values), tiled[:, :, size : 2 * size])


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_transposed_convolution_is_torchs_and_periodic_where_the_axis_is(kernel_size: Any) -> None:
    values = fields(1, 2, 3, 4)
    twin = nn.ConvTranspose2d(2, 3, kernel_size, stride=2, padding=kernel_size // 2 - 1).double()
    for padding, inside in ((("zeros", "zeros"), None), (("circular", "zeros"), slice(6, 12))):
        layer = TransposedConvolution(2, 3, padding, kernel_size).double()
        layer.load_state_dict(twin.state_dict())
        expected = twin(values) if inside is None else twin(values.repeat(1, 1, 3, 1))[:, :, inside]
        torch.testing.assert_close(layer(values), expected)


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_transposed_convolution_is_the_transpose(kernel_size: Any) -> None:
    # <T x, y> = <x, C y> with the strided convolution C of the same weights, on a periodic line.
    layer = TransposedConvolution(1, 1, ("circular",), kernel_size).double()
    nn.init.zeros_(layer.bias)
    x, y = fields(1, 1, 6), fields(1, 1, 12)
    reach = kernel_size // 2 - 1
    wrapped = y if reach == 0 else extend(y, ("circular",), reach)
    back = nn.functional.conv1d(wrapped, layer.weight, stride=2)
    torch.testing.assert_close((layer(x) * y).sum(), (x * back).sum())


@pytest.mark.parametrize("padding", [("replicate", "reflect"), ("circular", "replicate"), ("zeros", "circular")])
def test_ends_are_those_of_the_joint_convolution(padding: Any) -> None:
    layer, joint = SpacedConvolution(2, 3, padding).double(), JointConvolution(2, 3, padding).double()
    joint.load_state_dict(layer.state_dict())
    values = fields(2, 2, 4, 5)
    torch.testing.assert_close(layer(values), joint(values))


def test_parameters_are_drawn_as_torchs() -> None:
    for ours, theirs in (
        (SpacedConvolution(3, 5, ("zeros", "zeros")), nn.Conv2d(3, 5, 3)),
        (TransposedConvolution(3, 5, ("zeros", "zeros")), nn.ConvTranspose2d(3, 5, 4, stride=2)),
    ):
        torch.manual_seed(0)
        ours.reset_parameters()
        torch.manual_seed(0)
        theirs.reset_parameters()
        for name, values in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], values)


def test_margins_stand_behind_axes_with_zeros_and_come_off() -> None:
    values = fields(1, 2, 3, 4)
    wide = with_margin(values, ("zeros", "circular"), 2)
    assert wide.shape == (1, 2, 5, 4)
    assert not wide[:, :, 3:].any()
    assert torch.equal(without_margin(wide, (3, 4)), values)
    assert with_margin(values, ("circular", "replicate"), 2) is values


def test_frames_are_folded_in_order_of_time() -> None:
    history = fields(2, 3, 2, 4, 5)
    folded = fold_history(history, 3, 2, 2)
    assert torch.equal(folded[:, 2], history[:, 1, 0])
    assert torch.equal(unfold_frames(folded, 3), history)


def test_sinusoids_have_known_rates() -> None:
    numbers = torch.tensor([0.5, 3.0], dtype=torch.float64)
    rates = torch.tensor([1.0, 0.01], dtype=torch.float64)
    expected = torch.cat([torch.cos(numbers[:, None] * rates), torch.sin(numbers[:, None] * rates)], dim=1)
    torch.testing.assert_close(sinusoids(numbers, 4), expected)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"Expected padding among .* one for each of 2 axes, but got \('zeros',\)"):
        padding_of_axes(("zeros",), 2)
    with pytest.raises(ValueError, match="but got 'mirror'"):
        padding_of_axes("mirror", 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least 4 points on an axis with padding 'circular'.* grid of \(3, 9\)"):
        SpacedConvolution(1, 1, ("circular", "circular"), dilation=4)(torch.zeros(1, 1, 3, 9))
    with pytest.raises(ValueError, match=r"at least 5 points on an axis with padding 'reflect'"):
        SpacedConvolution(1, 1, ("reflect", "circular"), dilation=4)(torch.zeros(1, 1, 4, 9))

"""Padding: the same values as torch's own, axis by axis, and exact transposes as gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pdesurrogate.layers.padding import _SOURCES, Padding, channels_last, pad, padded

KINDS: list[Padding] = ["circular", "zeros", "replicate", "reflect"]


def fields(*space: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def padded_by_torch(values: Tensor, padding: list[Padding]) -> Tensor:
    """An axis at a time, brought to the end, as torch pads trailing axes only."""
    for dim, kind in enumerate(padding, start=2):
        if kind != "zeros":
            lines = values.movedim(dim, -1)
            flat = functional.pad(lines.reshape(1, -1, lines.shape[-1]), (1, 1), mode=kind)
            values = flat.reshape(*lines.shape[:-1], -1).movedim(-1, dim)
    return values


@given(padding=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_is_torch_padding_axis_by_axis(padding: list[Padding], seed: int) -> None:
    values = fields(*(3, 4, 5)[: len(padding)], seed=seed)
    expected = padded_by_torch(values, padding)
    assert torch.equal(pad(values, padding), expected)
    ends = tuple((2 + axis, *_SOURCES[kind]) for axis, kind in enumerate(padding) if kind != "zeros")
    assert torch.equal(padded(values, ends), expected)


@pytest.mark.parametrize("padding", [["circular", "circular"], ["reflect", "replicate"], ["zeros", "circular"]])
def test_gradients_are_exact_to_second_order(padding: list[Padding]) -> None:
    values = fields(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda each: pad(each, padding), values)
    assert torch.autograd.gradgradcheck(lambda each: pad(each, padding).square(), values)


def test_the_given_gradient_is_left_alone() -> None:
    values = fields(3, 4).requires_grad_()
    wrapped = pad(values, ["circular", "circular"])
    gradient = channels_last(torch.ones_like(wrapped))
    wrapped.backward(gradient)
    assert bool((gradient == 1).all())
    # Each point of a periodic grid is used once, and once more for each end that it is copied to.
    assert values.grad is not None
    assert values.grad.sum() == gradient.sum()


def test_channels_are_last_in_memory_and_zeros_are_not_copied() -> None:
    values = channels_last(fields(3, 4))
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert channels_last(values).data_ptr() == values.data_ptr()
    assert pad(fields(3, 4), ["zeros", "circular"]).is_contiguous(memory_format=torch.channels_last)
    assert pad(values, ["zeros", "zeros"]) is values

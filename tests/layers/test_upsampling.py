"""Polyphase upsampling: equal to interpolation by image libraries, exact on what interpolation keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pdesurrogate.layers.padding import Padding
from pdesurrogate.layers.upsampling import Upsampling, doubling_matrix, upsample

KINDS: list[Upsampling] = ["bicubic", "bilinear", "nearest"]


def doubled(values: Tensor, padding: Padding, kind: Upsampling) -> Tensor:
    return upsample(values, [doubling_matrix(size, padding, kind, values.dtype) for size in values.shape[2:]])


def fields(*space: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(x=st.integers(2, 7), y=st.integers(2, 7), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_equals_interpolate(x: int, y: int, kind: Upsampling, seed: int) -> None:
    values = fields(x, y, seed=seed)
    clamped = functional.interpolate(values, scale_factor=2, mode=kind)
    torch.testing.assert_close(doubled(values, "zeros", kind), clamped, atol=1e-14, rtol=0)
    wrapped = functional.interpolate(functional.pad(values, (2,) * 4, mode="circular"), scale_factor=2, mode=kind)
    torch.testing.assert_close(doubled(values, "circular", kind), wrapped[..., 4:-4, 4:-4], atol=1e-14, rtol=0)


@pytest.mark.parametrize("kind", ["bilinear", "nearest"])
def test_three_axes_equal_interpolate(kind: Upsampling) -> None:
    values = fields(2, 3, 4)
    expected = functional.interpolate(values, scale_factor=2, mode="trilinear" if kind == "bilinear" else kind)
    torch.testing.assert_close(doubled(values, "zeros", kind), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("padding", ["circular", "zeros", "replicate", "reflect"])
@pytest.mark.parametrize("kind", KINDS)
def test_constants_stay_and_taps_sum_to_one(kind: Upsampling, padding: Padding) -> None:
    assert torch.equal(doubling_matrix(5, padding, kind).sum(1), torch.ones(10, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_commutes_with_mirror_images_and_translations(kind: Upsampling) -> None:
    matrix = doubling_matrix(6, "circular", kind)
    assert torch.equal(matrix.flip(0, 1), matrix)
    assert torch.equal(matrix.roll((2, 1), (0, 1)), matrix)


def test_linear_functions_stay_for_bilinear_only() -> None:
    # The bicubic kernel of image libraries, with parameter -3/4, moves the points of a linear function by 3/64 of a
    # cell to and fro; only -1/2 would keep it (Keys 1981).
    places, inside = torch.arange(12, dtype=torch.float64), slice(4, -4)
    halves = (torch.arange(24, dtype=torch.float64) - 0.5) / 2
    bilinear, bicubic = (doubling_matrix(12, "zeros", kind) @ places - halves for kind in ("bilinear", "bicubic"))
    assert bool((bilinear[inside] == 0).all())
    to_and_fro = torch.tensor([-3 / 64, 3 / 64], dtype=torch.float64).repeat(12)
    torch.testing.assert_close(bicubic[inside], to_and_fro[inside], atol=1e-14, rtol=0)


def test_gradient_is_the_transpose_and_precision_is_kept() -> None:
    values = fields(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda each: doubled(each, "circular", "bicubic"), values)
    single = fields(3, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(doubled(single, "zeros", "bicubic"), doubled(single, "zeros", "bicubic"))
        assert doubled(single, "zeros", "bicubic").dtype == torch.float32
        assert doubled(single.bfloat16(), "zeros", "bicubic").dtype == torch.bfloat16

"""Factorized attention: the fast form is the formula, codes of places are what they say."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdesurrogate.layers import factorized_attention
from pdesurrogate.layers.coordinates import RandomCode, RotaryCode, WallCode, rotate
from pdesurrogate.layers.factorized_attention import (
    FactorizedAttention,
    apply_along,
    axis_means,
    mixed_along_axes,
    mixed_by_head,
)

PARALLEL, CHAINED = ((0,), (1,), (2,)), ((0, 1, 2),)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ingredients(space: tuple[int, ...], chains: Any, weighted: bool = False, mean: float = 0.0) -> list[Any]:
    """Fields, weights, shares and kernels for the functions that mix."""
    batch, heads, inside, width = 2, 3, 4, 5
    shares = numbers(batch, math.prod(space), seed=9).abs() if weighted else None
    return [
        numbers(batch, *space, width) + mean,
        numbers(heads, inside, width, seed=2),
        numbers(len(chains), heads, width, inside, seed=3),
        None if shares is None else shares / shares.sum(1, keepdim=True),
        *(numbers(batch, heads, size, size, seed=4 + axis) for axis, size in enumerate(space)),
    ]


def by_head(chains: Any, *tensors: Any) -> Tensor:
    return mixed_by_head(*tensors[:4], tensors[4:], chains)


@settings(max_examples=20)
@given(space=st.tuples(*[st.integers(1, 5)] * 3), chains=st.sampled_from([PARALLEL, CHAINED]), weighted=st.booleans())
def test_fast_form_is_the_formula(space: tuple[int, ...], chains: Any, weighted: bool) -> None:
    tensors = [each if each is None else each.requires_grad_() for each in ingredients(space, chains, weighted)]
    if tensors[3] is not None:
        tensors[3].requires_grad_(False)
    sources = [each for number, each in enumerate(tensors) if number != 3]
    expected, found = mixed_along_axes(*tensors, chains=chains), by_head(chains, *tensors)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    with torch.no_grad():
        assert torch.equal(by_head(chains, *tensors), found)
    upper = numbers(*found.shape, seed=11)
    for one, other in zip(*(torch.autograd.grad(each, sources, upper) for each in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("chains", [PARALLEL, CHAINED])
@pytest.mark.parametrize("rows", [None, 1, 2])
def test_pieces_of_several_samples_give_the_same(
    monkeypatch: pytest.MonkeyPatch, chains: Any, rows: int | None
) -> None:
    # As on a GPU.
    tensors = ingredients((3, 4, 2), chains, weighted=rows is not None)
    if rows == 1:
        tensors[3] = tensors[3][:1]
    sources = [each.requires_grad_() for number, each in enumerate(tensors) if number != 3]
    upper = numbers(2, 3, 4, 2, 5, seed=11)
    found = []
    for size in (1, 2):
        monkeypatch.setattr(
            factorized_attention,
            "_pieces",
            lambda normal, heads, size=size: [
                (head, slice(start, start + size)) for start in range(0, len(normal), size) for head in range(heads)
            ],
        )
        mixed = by_head(chains, *tensors)
        found.append([mixed, *torch.autograd.grad(mixed, sources, upper)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chains", [((0,), (1,)), ((0, 1),)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_and_their_gradients(chains: Any, weighted: bool) -> None:
    normal, lift, project, shares, *kernels = ingredients((2, 3), chains, weighted)
    tensors = [each.requires_grad_() for each in (normal[..., :2], lift[:2, :2, :2], project[:, :2, :2, :2])]
    kernels = [kernel[:, :2].requires_grad_() for kernel in kernels]

    def function(*given_: Tensor) -> Tensor:
        return by_head(chains, *given_[:3], shares, *given_[3:])

    assert torch.autograd.gradcheck(function, (*tensors, *kernels), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (*tensors, *kernels), fast_mode=True)


@pytest.mark.parametrize("chains", [PARALLEL, CHAINED])
def test_large_means_cost_no_digits(chains: Any) -> None:
    # In single precision a variance as a difference of squares would be all round-off here.
    tensors = ingredients((6, 5, 4), chains, mean=300.0)
    kernels = [torch.softmax(kernel, -1) for kernel in tensors[4:]]
    normal, lift, project, _ = tensors[:4]
    expected = by_head(chains, *tensors[:4], *kernels)
    single = [each if each is None else each.float() for each in (*tensors[:4], *kernels)]
    # Round-off of values, in units of their deviations, times what they are multiplied by.
    values = torch.einsum("bxyzw,hcw->bhxyzc", normal, lift)
    sums = 0.0
    for number, chain in enumerate(chains):
        applied = values
        for axis in chain:
            moved = applied.movedim(2 + axis, 2)
            applied = torch.einsum("bhij,bhj...->bhi...", kernels[axis], moved).movedim(2, 2 + axis)
        ratio = applied.mean((2, 3, 4)).abs() / applied.std((2, 3, 4))
        sums = sums + torch.einsum("hwc,bhc->bw", project[number].abs(), ratio).max()
    bound = 2 * torch.finfo(torch.float32).eps * sums
    assert bound < 5e-2
    for function in (functools.partial(by_head, chains), functools.partial(mixed_along_axes, chains=chains)):
        assert (function(*single) - expected).abs().max() < bound


def test_norm_takes_away_mean_and_size_of_each_channel() -> None:
    tensors = ingredients((6, 5, 4), PARALLEL)
    expected = by_head(PARALLEL, *tensors)
    assert expected.mean((1, 2, 3)).abs().max() < 1e-12
    larger = by_head(PARALLEL, tensors[0], 1e3 * tensors[1], *tensors[2:])
    torch.testing.assert_close(larger, expected, atol=1e-4, rtol=0)  # but for the epsilon


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_kernels_act_along_their_axis(axis: int) -> None:
    space = (3, 4, 5)
    values, kernel = numbers(2, 60, 6), numbers(2, space[axis], space[axis], seed=2)
    field = values.view(2, *space, 6).movedim(1 + axis, 1)
    expected = torch.einsum("bij,bj...->bi...", kernel, field).movedim(1, 1 + axis).reshape(2, 60, 6)
    torch.testing.assert_close(apply_along(kernel, values, space, axis), expected, atol=1e-12, rtol=0)


def test_means_over_the_other_axes() -> None:
    field, shares = numbers(2, 3, 4, 5, 6), numbers(2, 3, 4, 5, seed=2).abs()
    torch.testing.assert_close(axis_means(field, 1), field.mean((1, 3)))
    weighted = axis_means(field, 1, shares)
    expected = torch.einsum("bxyzc,bxyz->byc", field, shares) / shares.sum((1, 3))[..., None]
    torch.testing.assert_close(weighted, expected)
    torch.testing.assert_close(axis_means(field, 2, torch.ones(1, 3, 4, 5)), axis_means(field, 2))
    line = numbers(2, 7, 3)
    assert torch.equal(axis_means(line, 0), line)


def test_products_of_rotated_features_depend_on_differences_of_places() -> None:
    values, other = numbers(8), numbers(8, seed=2)
    for kind in ("open", "periodic"):
        code = RotaryCode(8, kind, length=3.0, harmonics=2).double()
        places = torch.tensor([0.0, 0.2, 1.1, 1.3], dtype=torch.float64)
        rotation = code(places)
        left, right = rotate(values.expand(4, 8), rotation), rotate(other.expand(4, 8), rotation)
        products = left @ right.mT
        torch.testing.assert_close(products[0, 1], products[2, 3])
        torch.testing.assert_close(left.norm(dim=1), values.norm().expand(4))
        assert (products[0, 1] - products[0, 2]).abs() > 1e-3
        shifted = code(places + 3.0)
        same = torch.allclose(rotate(values.expand(4, 8), shifted), left, atol=1e-12)
        assert same is (kind == "periodic")


def test_rates_of_open_axes_fall_by_equal_factors() -> None:
    rates = RotaryCode(6, "open", length=1.0, harmonics=1).rates
    torch.testing.assert_close(rates, torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)]))


def test_random_code_is_frozen_and_wall_code_tells_the_walls_apart() -> None:
    random = RandomCode(3, 8)
    assert not random.frequencies.requires_grad
    features = random.features(torch.zeros(1, 3))
    torch.testing.assert_close(features, torch.tensor([[0.0] * 4 + [1.0] * 4]))
    walls = WallCode([2.0], 8).double()
    places = torch.linspace(0, 2, 9, dtype=torch.float64)[:, None]
    below, above = walls.features(places).chunk(2, dim=-1)
    torch.testing.assert_close(below, above.flip(0))
    assert bool((below.diff(dim=0) < 0).all())
    torch.testing.assert_close(below[0], torch.ones(8, dtype=torch.float64))
    # From a hundredth of the half-height on, by equal factors.
    torch.testing.assert_close(walls.rates[0, 0], torch.tensor(100.0, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(walls.rates[0, -1], torch.tensor(1.0, dtype=torch.float64))


def test_unit_kernels_are_so_for_any_multiplier() -> None:
    torch.manual_seed(0)
    for multiplier in (1, 3, 6):
        block = FactorizedAttention(
            24, heads=3, head_width=8, rotary=[("open", 1.0)], kernel_multiplier=multiplier, start="unit"
        )
        (rotation,) = block.rotations([torch.linspace(0, 1, 200)])
        # Means that the norm makes of rows with nothing in common.
        (kernel,) = block.kernels
        means = torch.linalg.lstsq(kernel.enter.weight, torch.randn(24, 200)).solution.T
        size = kernel(means[None], rotation).detach().square().mean().sqrt()
        assert 0.8 < float(size) < 1.25

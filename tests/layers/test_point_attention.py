"""Attention between points: the plain formula, no order, and dropout that is asked for."""

from __future__ import annotations

import math

import pytest
import torch

from pdesurrogate.layers.point_attention import DropoutMasks, PointAttention


def block(width=12, heads=3, **options):
    torch.manual_seed(0)
    return PointAttention(width, heads, **options).double()


def points(count, seed=0, functions=2, width=12):
    return torch.randn(functions, count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(layer, queries, keys, values):
    """Head by head, point by point."""
    size = queries.shape[-1] // layer.heads
    heads = []
    for head in range(layer.heads):
        rows = slice(head * size, (head + 1) * size)
        q, k, v = (
            each @ linear.weight[rows].T
            for each, linear in ((queries, layer.query), (keys, layer.key), (values, layer.value))
        )
        weights = torch.exp(torch.einsum("fqc,fkc->fqk", q, k) / math.sqrt(size))
        heads.append(torch.einsum("fqk,fkc->fqc", weights / weights.sum(-1, keepdim=True), v))
    changed = queries + layer.output(torch.cat([queries, *heads], dim=-1))
    centered = changed - changed.mean(-1, keepdim=True)
    deviation = (centered.square().mean(-1, keepdim=True) + layer.norm.eps).sqrt()
    return centered / deviation * layer.norm.weight + layer.norm.bias


@pytest.mark.parametrize("gradients", [True, False])
def test_it_is_the_plain_formula(gradients):
    layer, queries, keys, values = block(), points(5), points(7, 1), points(7, 2)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(layer(queries, keys, values), plain(layer, queries, keys, values))


def test_points_have_no_order():
    layer, queries, keys, values = block(), points(5), points(7, 1), points(7, 2)
    order, other = torch.randperm(7), torch.randperm(5)
    expected = layer(queries, keys, values)
    torch.testing.assert_close(layer(queries, keys[:, order], values[:, order]), expected)
    torch.testing.assert_close(layer(queries[:, other], keys, values), expected[:, other])


def test_it_has_second_derivatives():
    layer, queries, keys, values = block(width=4, heads=2), *(points(3, seed, 1, 4) for seed in range(3))
    inputs = tuple(each.requires_grad_() for each in (queries, keys, values))
    assert torch.autograd.gradgradcheck(layer, inputs)


@pytest.mark.parametrize("mode", [True, False])
def test_dropout_is_what_masks_say_in_whatever_mode_the_module_is(mode):
    layer, queries = block().train(mode), points(6)

    def passed(seed=None):
        masks = None if seed is None else DropoutMasks(torch.Generator().manual_seed(seed))
        return layer(queries, queries, queries, masks)

    assert torch.equal(passed(), passed())
    assert torch.equal(passed(1), passed(1))
    assert not torch.allclose(passed(1), passed(2))
    assert not torch.allclose(passed(1), passed())


def test_without_rates_masks_change_nothing():
    layer, queries = block(attention_dropout=0.0, output_dropout=0.0), points(6)
    torch.testing.assert_close(layer(queries, queries, queries, DropoutMasks()), layer(queries, queries, queries))


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_masks_zero_at_their_rate_and_keep_the_mean(rate, dtype):
    values = DropoutMasks(torch.Generator().manual_seed(0)).applied(torch.ones(200_000, dtype=dtype), rate)
    assert values.dtype == dtype
    share = (values == 0).double().mean()
    assert float(share) == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / len(values)))
    # To the rounding of bfloat16.
    assert values.unique().tolist() == pytest.approx([0, 1 / (1 - rate)], rel=4e-3)


def test_without_a_generator_masks_are_torchs_own():
    torch.manual_seed(3)
    first = DropoutMasks().applied(torch.ones(100), 0.3)
    torch.manual_seed(3)
    assert torch.equal(DropoutMasks().applied(torch.ones(100), 0.3), first)


def test_bad_sizes_and_rates_are_refused():
    with pytest.raises(ValueError, match="heads that divide the width but got 4 and 6"):
        PointAttention(6, 4)
    with pytest.raises(ValueError, match=r"rates within \[0, 1\) but got 1.0 and 0.1"):
        PointAttention(4, 2, attention_dropout=1.0)

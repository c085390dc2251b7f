"""Parts of a batch that fit a cache, and time steps that are refused."""

from __future__ import annotations

import math

import pytest
import torch

from pdesurrogate.simulators.finite_volumes import LARGEST_CFL, advance_in_parts, require_cfl_number


def test_every_member_is_advanced_once_and_in_order():
    state = torch.rand(5, 2, 256, 128)
    sizes = []

    def advance(part):
        sizes.append(len(part))
        return 2 * part

    assert torch.equal(advance_in_parts(advance, state), 2 * state)
    assert sizes == [2, 2, 1]
    assert advance_in_parts(advance, state[:0]).shape == (0, 2, 256, 128)


def test_members_larger_than_the_cache_come_one_by_one():
    assert advance_in_parts(lambda part: part + len(part), torch.zeros(3, 1, 512, 512)).amax() == 1


def test_a_device_gets_the_whole_batch():
    sizes = []
    advance_in_parts(lambda part: sizes.append(len(part)) or part, torch.zeros(5, 1, 512, 512, device="meta"))
    assert sizes == [5]


def test_time_steps_up_to_the_limit_are_taken():
    require_cfl_number(torch.tensor([0.0, LARGEST_CFL]), 0.1)
    with pytest.raises(
        ValueError,
        match=r"at most 1 but trajectory 1 of the batch has 4; use time steps of at most 0.025 in place of 0.1",
    ):
        require_cfl_number(torch.tensor([0.5, 4.0, 2.0]), 0.1)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_number_is_not_answered_by_a_time_step(number):
    with pytest.raises(ValueError, match="finite fields but those of trajectory 1 of the batch are not; start from"):
        require_cfl_number(torch.tensor([0.5, number, 2.0]), 0.1)

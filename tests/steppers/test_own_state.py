"""What a stepper on another grid remembers: its own frames alone, each on its own."""

from __future__ import annotations

import pytest
import torch

from pdesurrogate.steppers.own_state import OwnState


def brought():
    return torch.full((2, 1, 3), -1.0)


def test_frames_that_were_given_go_on_from_the_state_behind_them():
    own, frame, state = OwnState(), torch.rand(2, 1, 4), torch.rand(2, 1, 3)
    assert torch.equal(own.behind(frame, brought), brought())
    own.keep(frame, state)
    assert torch.equal(own.behind(frame.clone(), pytest.fail), state)


def test_the_others_of_a_batch_are_brought_anew():
    own, frame, state = OwnState(), torch.rand(2, 1, 4), torch.rand(2, 1, 3)
    own.keep(frame, state)
    given = frame.clone()
    given[1, 0, 2] += 1
    assert torch.equal(own.behind(given, brought), torch.stack([state[0], brought()[1]]))
    assert torch.equal(own.behind(frame[:1], lambda: brought()[:1]), brought()[:1])


def test_a_frame_that_is_changed_in_place_afterwards_is_not_the_one_that_was_given():
    own, frame = OwnState(), torch.rand(2, 1, 4)
    own.keep(frame, torch.rand(2, 1, 3))
    frame += 1
    assert torch.equal(own.behind(frame, brought), brought())


def test_what_is_no_number_is_no_frame_of_ours():
    own, frame = OwnState(), torch.full((2, 1, 4), torch.nan)
    own.keep(frame, torch.rand(2, 1, 3))
    assert torch.equal(own.behind(frame, brought), brought())

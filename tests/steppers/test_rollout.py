import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.fields.trajectory import Context
from pdesurrogate.steppers.rollout import rollout


class Counting:
    """Gives ``block`` frames at once, each one more than the frame before it, and remembers what it was given."""

    def __init__(self, history_frames=1, block=1):
        self.history_frames = history_frames
        self.block = block
        self.given = []

    def step(self, history, context):
        self.given.append(history.clone())
        ahead = torch.arange(1, self.block + 1, dtype=history.dtype).reshape(1, -1, 1, 1, 1)
        return history[:, -1:] + ahead


class Scripted:
    """Multiplies by a factor that travels in the context, ``block`` frames at once."""

    history_frames = 1

    def __init__(self, block=1):
        self.block = block
        self.given = []

    def step(self, history, context):
        self.given.append(history.clone())
        powers = torch.arange(1, self.block + 1).reshape(1, -1, 1, 1, 1)
        return history[:, -1:] * context.parameters.reshape(-1, 1, 1, 1, 1) ** powers


def context_of(batch, parameters=None):
    return Context((torch.arange(4.0).expand(batch, -1),) * 2, parameters=parameters)


def history_of(batch, frames=1, channels=1):
    values = torch.arange(frames, dtype=torch.float32) - (frames - 1)
    return values.reshape(1, -1, 1, 1, 1).expand(batch, frames, channels, 4, 4)


@given(frames=st.integers(1, 9), block=st.integers(1, 4), history=st.integers(1, 3), spare=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_counts_frames_and_not_steps(frames, block, history, spare):
    stepper = Counting(history, block)
    run = rollout(stepper, history_of(2, history + spare, channels=2), context_of(2), frames)
    blocks = list(run)
    assert [b.shape[1] for b in blocks[:-1]] == [block] * (len(blocks) - 1)
    # The latest given frame is zero, so the first predicted one is one: no given frame is handed out.
    assert torch.cat(blocks, dim=1)[1, :, 1, 2, 3].tolist() == list(range(1, frames + 1))
    assert len(stepper.given) == -(-frames // block)
    assert {seen.shape[1] for seen in stepper.given} == {history}
    assert run.first_bad_frame.tolist() == [frames, frames]


def test_history_is_the_latest_frames_in_order():
    stepper = Counting(history_frames=3, block=2)
    list(rollout(stepper, history_of(1, 3), context_of(1), 6))
    assert [seen[0, :, 0, 0, 0].tolist() for seen in stepper.given] == [[-2, -1, 0], [0, 1, 2], [2, 3, 4]]


@given(history=st.integers(1, 5), block=st.integers(1, 7), frames=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_the_ring_holds_the_newest_frames_without_a_concatenation(history, block, frames):
    def refuse(*arguments, **keywords):
        raise AssertionError("frames were put together anew")

    given_frames = history_of(2, history)
    before = given_frames.clone()
    stepper = Counting(history, block)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "cat", refuse)
        blocks = list(rollout(stepper, given_frames, context_of(2), frames))
    for number, seen in enumerate(stepper.given):
        newest = number * block
        assert seen[1, :, 0, 3, 3].tolist() == list(range(newest - history + 1, newest + 1))
    assert sum(each.shape[1] for each in blocks) == frames
    assert torch.equal(given_frames, before)


def test_frames_that_were_handed_out_are_not_overwritten():
    class Echo:
        history_frames = 2

        def step(self, history, context):
            return history[:, :1]  # a view of what it was given

    with torch.no_grad():
        blocks = list(rollout(Echo(), history_of(1, 2), context_of(1), 5))
    assert [each[0, 0, 0, 0, 0].item() for each in blocks] == [-1, 0, -1, 0, -1]


def test_a_precise_step_is_not_rounded_to_the_history():
    class Thirds(Counting):
        def step(self, history, context):
            self.given.append(history.clone())
            return history[:, -1:].double() / 3

    stepper = Thirds(history_frames=2)
    with torch.no_grad():
        blocks = list(rollout(stepper, torch.ones(1, 2, 1, 4, 4), context_of(1), 3))
    assert [seen.dtype for seen in stepper.given] == [torch.float32, torch.float64, torch.float64]
    assert blocks[-1][0, 0, 0, 0, 0].item() == 1 / 3 / 3 / 3


def test_a_second_iteration_starts_again_from_the_given_history():
    run = rollout(Counting(block=2), history_of(1), context_of(1), 5)
    assert torch.equal(torch.cat(list(run), 1), torch.cat(list(run), 1))


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_a_trajectory_that_leaves_its_bounds_is_stopped_and_the_others_go_on(block):
    factors = torch.tensor([1.0, 2.0, -3.0, 0.5])
    stepper = Scripted(block)
    run = rollout(stepper, torch.ones(4, 1, 2, 4, 4), context_of(4, factors), 7, bounds=(-20.0, 20.0))
    frames = torch.cat(list(run), dim=1)
    # 2, 4, 8, 16, then 32; -3, 9, then -27.
    assert run.first_bad_frame.tolist() == [7, 4, 2, 7]
    for number, stop in enumerate([7, 4, 2, 7]):
        expected = factors[number] ** torch.arange(1, 8)
        assert torch.equal(frames[number, :stop, 0, 0, 0], expected[:stop])
        assert frames[number, stop:].isnan().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_stops_a_trajectory_and_never_reaches_the_stepper(bad):
    class Breaking(Counting):
        def step(self, history, context):
            block = super().step(history, context).clone()
            if len(self.given) == 2:
                block[1, 1, 0, 2, 2] = bad
            return block

    stepper = Breaking(history_frames=2, block=3)
    run = rollout(stepper, history_of(3, 2), context_of(3), 9)
    frames = torch.cat(list(run), dim=1)
    assert run.first_bad_frame.tolist() == [9, 4, 9]
    assert torch.isfinite(frames[1, :4]).all()
    assert frames[1, 4:].isnan().all()
    assert torch.equal(frames[0], frames[2])
    assert frames[0, :, 0, 0, 0].tolist() == list(range(1, 10))
    assert all(torch.isfinite(seen).all() for seen in stepper.given)
    assert torch.equal(stepper.given[2][1], torch.zeros(2, 1, 4, 4))


def test_what_lies_beyond_the_last_frame_asked_for_stops_nothing():
    stepper = Scripted(block=4)
    run = rollout(stepper, torch.ones(1, 1, 1, 4, 4), context_of(1, torch.tensor([10.0])), 2, bounds=(0.0, 500.0))
    assert torch.cat(list(run), 1)[0, :, 0, 0, 0].tolist() == [10.0, 100.0]
    assert run.first_bad_frame.tolist() == [2]


def test_gradients_reach_the_history_of_living_trajectories():
    history = torch.ones(2, 1, 1, 4, 4, requires_grad=True)
    run = rollout(Scripted(), history, context_of(2, torch.tensor([0.5, 1.0])), 3)
    list(run)[-1].sum().backward()
    assert torch.equal(history.grad[:, 0, 0, 0, 0], torch.tensor([0.125, 1.0]))


def test_bad_arguments_are_refused_with_the_cure():
    with pytest.raises(ValueError, match="at least 3 history frames but got 2; start the rollout later"):
        rollout(Counting(history_frames=3), history_of(1, 2), context_of(1), 4)
    with pytest.raises(ValueError, match="at least one frame to predict but got 0"):
        rollout(Counting(), history_of(1), context_of(1), 0)
    with pytest.raises(ValueError, match="low < high"):
        rollout(Counting(), history_of(1), context_of(1), 1, bounds=(1.0, 1.0))
    with pytest.raises(ValueError, match="batch, time, channel"):
        rollout(Counting(), torch.zeros(3, 4, 4), context_of(1), 1)


@pytest.mark.parametrize("shape", [(2, 1, 2, 4, 4), (2, 1, 1, 4, 5), (1, 1, 1, 4, 4), (2, 0, 1, 4, 4), (2, 1, 4, 4)])
def test_a_block_that_does_not_fit_is_refused(shape):
    class Misshapen:
        history_frames = 1

        def step(self, history, context):
            return torch.zeros(shape)

    with pytest.raises(ValueError, match="Expected Misshapen to give a block"):
        list(rollout(Misshapen(), history_of(2), context_of(2), 1))

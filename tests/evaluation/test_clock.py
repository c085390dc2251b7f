import itertools
from unittest.mock import patch

import pytest
import torch

from pdesurrogate.evaluation.clock import StepClock


class Machine:
    """A clock that only moves when someone works."""

    def __init__(self):
        self.time = 0.0

    def rollout(self, durations, frames=1):
        for seconds in durations:
            self.time += seconds
            yield torch.zeros(1, frames)


@pytest.fixture
def machine():
    machine = Machine()
    with patch("pdesurrogate.evaluation.clock.time.perf_counter", lambda: machine.time):
        yield machine


def run(clock, machine, durations, batch=1, frames=1, between=0.0):
    for _ in clock.timed(machine.rollout(durations, frames), batch):
        machine.time += between


def test_neither_the_first_block_nor_what_happens_in_between_is_counted(machine):
    clock = StepClock("cpu")
    run(clock, machine, [100.0, 1.0, 1.0], between=50.0)
    assert clock.seconds_per_frame == pytest.approx(1.0)
    assert clock.quartiles == pytest.approx((1.0, 1.0))


def test_time_is_for_one_frame_of_one_trajectory(machine):
    clock = StepClock("cpu")
    run(clock, machine, [9.0, 6.0, 6.0], batch=4, frames=3)
    assert clock.seconds_per_frame == pytest.approx(0.5)


def test_a_single_block_counts_where_there_is_no_other(machine):
    clock = StepClock("cpu")
    run(clock, machine, [6.0], batch=2, frames=3)
    assert clock.seconds_per_frame == pytest.approx(1.0)
    assert clock.quartiles == pytest.approx((1.0, 1.0))


def test_where_nothing_was_timed_the_time_is_zero():
    clock = StepClock("cpu")
    assert clock.seconds_per_frame == 0.0
    assert clock.quartiles == (0.0, 0.0)


@pytest.mark.parametrize("disturbed", range(3))
def test_an_interruption_of_one_rollout_in_three_does_no_harm(machine, disturbed):
    clock = StepClock("cpu")
    for number in range(3):
        run(clock, machine, [1.0, 1.0, 40.0 if number == disturbed else 1.0, 1.0])
    assert clock.seconds_per_frame == pytest.approx(1.0)
    assert max(clock.quartiles) == pytest.approx(1.0)


def test_a_stepper_that_works_harder_now_and_then_is_charged_for_it(machine):
    clock = StepClock("cpu")
    for _ in range(3):
        run(clock, machine, [1.0, 1.0, 1.0, 9.0])
    assert clock.seconds_per_frame == pytest.approx(3.0)


def test_a_last_batch_that_is_smaller_is_left_out(machine):
    clock = StepClock("cpu")
    run(clock, machine, [8.0, 8.0, 8.0], batch=8)
    run(clock, machine, [5.0, 5.0, 5.0], batch=1)
    assert clock.seconds_per_frame == pytest.approx(1.0)


def test_the_first_place_counts_from_the_second_rollout_on(machine):
    clock = StepClock("cpu")
    run(clock, machine, [50.0, 1.0])
    run(clock, machine, [3.0, 1.0])
    assert clock.seconds_per_frame == pytest.approx(2.0)


def test_rollouts_of_different_length_are_taken_together_place_by_place(machine):
    clock = StepClock("cpu")
    run(clock, machine, [9.0, 1.0, 5.0])
    run(clock, machine, [2.0, 3.0])
    assert clock.seconds_per_frame == pytest.approx((2.0 + 2.0 + 5.0) / 3)


def test_work_on_given_frames_is_timed_without_its_warm_up(machine):
    clock = StepClock("cpu")
    for seconds in (70.0, 2.0, 4.0):
        machine.time += 1000.0
        with clock.running(frames=2):
            machine.time += seconds
    assert clock.seconds_per_frame == pytest.approx(1.5)


def test_blocks_are_handed_on_as_they_are_and_made_when_asked_for():
    asked = []

    def blocks():
        for number in itertools.count():
            asked.append(number)
            yield torch.full((1, 1), float(number))

    timed = StepClock("cpu").timed(blocks(), batch=1)
    assert [float(next(timed)) for _ in range(3)] == [0.0, 1.0, 2.0]
    assert asked == [0, 1, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_work_in_flight_on_a_gpu_is_waited_for():
    matrix = torch.randn(4096, 4096, device="cuda")

    def blocks():
        for _ in range(4):
            for _ in range(20):
                torch.mm(matrix, matrix)
            yield matrix[None, :1]

    clock = StepClock("cuda")
    for _ in clock.timed(blocks(), batch=1):
        pass
    # 20 products of 1.4e11 operations take more than a millisecond on any device; launching them takes less.
    assert clock.seconds_per_frame > 1e-3

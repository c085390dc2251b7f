from __future__ import annotations

import pytest
import torch
from torch import nn

from pdesurrogate.training.schedules import EpochWarmupCosine, StepDecay, WarmupCosine

# Learning rates of the authors' run by epoch, and the place of the last digit that is known of each.
PUBLISHED = {
    0: (1.0e-7, 1e-8), 1: (5.008e-5, 1e-8), 2: (1.001e-4, 1e-7), 3: (1.5e-4, 1e-5), 4: (2e-4, 1e-5), 5: (2e-4, 1e-5),
    6: (1.998e-4, 1e-7), 20: (1.5e-4, 1e-5), 30: (8.27e-5, 1e-7), 40: (2.35e-5, 1e-7), 48: (1.07e-6, 1e-8),
    49: (3.4e-7, 1e-8),
}  # fmt: skip


def rates(schedule, steps, highest=2e-4):
    """Learning rate of each of ``steps`` steps."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=highest)
    scheduler = schedule.build(optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_an_epoch_has_the_published_rate_from_its_first_step_to_its_last(steps_per_epoch):
    found = rates(EpochWarmupCosine(), 50 * steps_per_epoch)
    for epoch, (expected, digit) in PUBLISHED.items():
        own = found[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]
        assert own == [own[0]] * steps_per_epoch
        # Rounding to that digit, half of which falls on it exactly for epoch 2.
        assert own[0] == pytest.approx(expected, abs=0.501 * digit)
    assert found[4 * steps_per_epoch] == found[5 * steps_per_epoch] == max(found) == 2e-4


def test_our_rate_is_useful_from_the_first_epoch_where_the_published_one_is_not():
    ours, theirs = rates(WarmupCosine(0.1), 50 * 20), rates(EpochWarmupCosine(), 50 * 20)
    assert sum(ours[:20]) / 20 > 0.1 * 2e-4
    assert sum(theirs[:20]) / 20 < 1e-3 * 2e-4
    assert max(ours) == max(theirs) == 2e-4


def test_each_group_has_a_highest_rate_of_its_own():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (2e-4, 1e-3)]
    optimizer = torch.optim.AdamW(groups)
    scheduler = EpochWarmupCosine(epochs=10, warmup_epochs=2).build(optimizer, 10)
    assert scheduler.get_last_lr() == pytest.approx([1e-7, 1e-7])
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([2e-4, 1e-3])


def test_fewer_steps_shorten_all_epochs():
    found = rates(EpochWarmupCosine(), 25)
    assert found == pytest.approx(rates(EpochWarmupCosine(), 50)[::2])


def test_a_scheduler_that_is_stepped_past_the_end_stays_at_its_last_rate():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2e-4)
    scheduler = EpochWarmupCosine().build(optimizer, 50)
    for _ in range(60):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([1e-7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup_epochs": 1}, "2 <= warmup_epochs < epochs but got 1 and 50"),
        ({"epochs": 5}, "2 <= warmup_epochs < epochs but got 5 and 5"),
        ({"final_rate": -1.0}, "rates of at least 0"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EpochWarmupCosine(**arguments)


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_steps_of_decay_are_those_of_torch_once_an_epoch(steps_per_epoch):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=5e-4)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.7)
    found = rates(StepDecay(), 30 * steps_per_epoch, highest=5e-4)
    for epoch in range(30):
        own = found[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]
        assert own == pytest.approx([theirs.get_last_lr()[0]] * steps_per_epoch, rel=1e-12)
        optimizer.step()
        theirs.step()


def test_steps_of_decay_come_in_time_where_there_are_fewer_steps_than_epochs():
    assert rates(StepDecay(), 6, highest=1.0) == pytest.approx([0.7**step for step in range(6)])


def test_a_decay_that_is_stepped_past_the_end_stays_at_the_rate_of_the_epoch_after_it():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = StepDecay(epochs=2, step_epochs=1, factor=0.5).build(optimizer, 2)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0.25]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs and step_epochs of at least 1 but got 0 and 5"),
        ({"step_epochs": 0}, "epochs and step_epochs of at least 1 but got 30 and 0"),
        ({"factor": 0.0}, r"factor within \(0, 1\] but got 0.0"),
        ({"factor": 1.5}, r"factor within \(0, 1\] but got 1.5"),
    ],
)
def test_impossible_decays_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StepDecay(**arguments)

"""Rates that rise and fall: in a line over the updates, and as a cosine or in lines over the epochs."""

import pytest
import torch

from spikebrain.training.checkpoints import Checkpointer
from spikebrain.training.schedules import CosineByEpoch, CyclicByEpoch, WarmRestarts, WarmupDecay


def rates(schedule, updates):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=9.0)
    seen = []
    for _ in range(updates):
        schedule(optimizer)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_up_in_a_line_down_in_a_line():
    schedule = WarmupDecay(lr=2.0, warmup=0.4)
    schedule.plan(10)
    assert rates(schedule, 10) == pytest.approx([0.5, 1.0, 1.5, 2.0, 5 / 3, 4 / 3, 1.0, 2 / 3, 1 / 3, 0.0])
    assert rates(schedule, 2) == [0.0, 0.0]


def test_it_continues_where_it_was_saved(tmp_path):
    whole, first, second = (WarmupDecay(lr=1.0, warmup=0.2) for _ in range(3))
    for schedule in (whole, first, second):
        schedule.plan(8)
    wanted = rates(whole, 8)
    begun = rates(first, 3)
    first.save(tmp_path / "schedule.ckpt")
    second.load(tmp_path / "schedule.ckpt")
    assert begun + rates(second, 5) == wanted


def test_it_must_know_how_long_training_is():
    with pytest.raises(RuntimeError, match="call plan"):
        rates(WarmupDecay(lr=1.0), 1)
    with pytest.raises(ValueError, match="warmup is 1.5"):
        WarmupDecay(lr=1.0, warmup=1.5)


def test_the_periodic_cosine_falls_for_forty_epochs_and_rises_for_forty():
    schedule = CosineByEpoch(lr=1.0, half_period=40)
    wanted = {0: 1, 20: 0.5, 40: 0, 60: 0.5, 80: 1, 120: 0, 280: 0, 299: 0.4608}
    assert {epoch: schedule.multiplier(epoch) for epoch in wanted} == pytest.approx(wanted, abs=1e-4)
    assert schedule.multiplier(40) == 0 and schedule.multiplier(80) == 1


def test_warm_up_reaches_the_rate_after_its_epochs_and_the_cosine_begins_there():
    schedule = CosineByEpoch(lr=1.0, half_period=40, warmup_epochs=10)
    assert [schedule.multiplier(epoch) for epoch in range(12)] == pytest.approx([e / 10 for e in range(1, 11)] + [1, 0.998459], abs=1e-6)
    assert schedule.multiplier(10 + 40) == 0 and schedule.multiplier(10 + 80) == 1


@pytest.mark.parametrize("warmup", [0, 3])
def test_a_single_cosine_falls_once_over_the_whole_training(warmup):
    schedule = CosineByEpoch(lr=1.0, warmup_epochs=warmup)
    schedule.plan(130, 13)
    falling = [schedule.multiplier(epoch) for epoch in range(warmup, 14)]
    assert falling == sorted(falling, reverse=True) and falling[0] == 1 and falling[-1] == 0


def test_the_rate_is_constant_within_an_epoch():
    schedule = CosineByEpoch(lr=2.0, half_period=2, warmup_epochs=1)
    schedule.plan(12, 4)
    assert rates(schedule, 12) == pytest.approx([2.0] * 3 + [2.0] * 3 + [1.0] * 3 + [0.0] * 3)


@pytest.mark.parametrize("half_period", [None, 3])
def test_a_cosine_continues_where_it_was_saved(tmp_path, half_period):
    whole, first, second = (CosineByEpoch(lr=1.0, half_period=half_period, warmup_epochs=2) for _ in range(3))
    for schedule in (whole, first, second):
        schedule.plan(21, 7)
    wanted = rates(whole, 21)
    begun = rates(first, 8)
    first.save(tmp_path / "schedule.ckpt")
    second.load(tmp_path / "schedule.ckpt")
    assert begun + rates(second, 13) == wanted


def test_a_cosine_must_know_how_long_epochs_are():
    with pytest.raises(RuntimeError, match="call plan"):
        rates(CosineByEpoch(lr=1.0, half_period=3), 1)
    with pytest.raises(RuntimeError, match="call plan"):
        CosineByEpoch(lr=1.0).multiplier(3)
    with pytest.raises(ValueError, match="half_period is 0"):
        CosineByEpoch(lr=1.0, half_period=0)
    with pytest.raises(ValueError, match="warmup_epochs is -1"):
        CosineByEpoch(lr=1.0, warmup_epochs=-1)


def test_warm_restarts_are_those_of_torch_and_fall_at_10_30_70_and_150():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, 2, 1e-6)
    expected = []
    for _ in range(200):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = WarmRestarts(lr=5e-4, first=10, factor=2, lowest=1e-6)
    assert [5e-4 * ours.multiplier(epoch) for epoch in range(200)] == pytest.approx(expected, rel=1e-12)
    assert [epoch for epoch in range(200) if ours.multiplier(epoch) == 1] == [0, 10, 30, 70, 150]
    assert ours.multiplier(200) == pytest.approx(0.786, abs=0.01)


def test_warm_restarts_continue_where_they_were_saved(tmp_path):
    whole, first, second = (WarmRestarts(lr=1.0, first=2) for _ in range(3))
    for schedule in (whole, first, second):
        schedule.plan(20, 10)
    wanted, begun = rates(whole, 20), rates(first, 7)
    checkpointer = Checkpointer(tmp_path, {"schedule": first})
    checkpointer.save_checkpoint()
    Checkpointer(tmp_path, {"schedule": second}).recover_if_possible()
    assert begun + rates(second, 13) == wanted


@pytest.mark.parametrize("options, said", [({"first": 0}, "first is 0"), ({"factor": 0}, "factor 0"), ({"lowest": 2.0}, "lowest is 2.0")])
def test_warm_restarts_that_cannot_be(options, said):
    with pytest.raises(ValueError, match=said):
        WarmRestarts(lr=1.0, **options)


def rmsprop():
    return torch.optim.RMSprop([torch.nn.Parameter(torch.zeros(1))], lr=9.0, momentum=0.7)


def test_a_cycle_is_that_of_torch_stepped_once_an_epoch_and_turns_its_momentum_too():
    optimizer, ours = rmsprop(), rmsprop()
    theirs = torch.optim.lr_scheduler.CyclicLR(optimizer, 5e-4, 1e-3, step_size_up=10)
    schedule = CyclicByEpoch(lr=1e-3, lowest=5e-4, half_period=10, momentum=(0.8, 0.9))
    schedule.plan(300, 100)
    expected, seen = [], []
    for _ in range(100):
        expected += [(optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"])] * 3
        optimizer.step()
        theirs.step()
        for _ in range(3):
            schedule(ours)
            seen.append((ours.param_groups[0]["lr"], ours.param_groups[0]["momentum"]))
    for found, wanted in zip(zip(*seen), zip(*expected)):  # rates, then momenta
        assert found == pytest.approx(wanted, rel=1e-12)
    assert seen[0] == pytest.approx((5e-4, 0.9)) and seen[30] == pytest.approx((1e-3, 0.8)) and seen[60] == pytest.approx((5e-4, 0.9))


def test_without_momenta_a_cycle_leaves_the_optimizer_its_own():
    schedule, optimizer = CyclicByEpoch(lr=1.0, lowest=0.2, half_period=1), rmsprop()
    schedule.plan(4, 4)
    schedule(optimizer)
    assert optimizer.param_groups[0]["momentum"] == 0.7
    assert rates(schedule, 3) == pytest.approx([1.0, 0.2, 1.0])


def test_a_cycle_continues_where_it_was_saved(tmp_path):
    whole, first, second = (CyclicByEpoch(lr=1.0, lowest=0.5, half_period=3) for _ in range(3))
    for schedule in (whole, first, second):
        schedule.plan(20, 10)
    wanted, begun = rates(whole, 20), rates(first, 7)
    checkpointer = Checkpointer(tmp_path, {"schedule": first})
    checkpointer.save_checkpoint()
    Checkpointer(tmp_path, {"schedule": second}).recover_if_possible()
    assert begun + rates(second, 13) == wanted


@pytest.mark.parametrize(
    "options, said",
    [
        ({"half_period": 0}, "half_period is 0"),
        ({"lowest": 2.0}, "lowest is 2.0: give a rate from 0 to lr, 1.0"),
        ({"momentum": (0.8, 1.0)}, "momentum is .0.8, 1.0.: give those"),
        ({"momentum": (0.8,)}, "momentum is .0.8,.: give those"),
    ],
)
def test_cycles_that_cannot_be(options, said):
    with pytest.raises(ValueError, match=said):
        CyclicByEpoch(lr=1.0, **options)


def test_a_cycle_of_momenta_needs_an_optimizer_that_has_one():
    schedule = CyclicByEpoch(lr=1.0, momentum=(0.8, 0.9))
    schedule.plan(2, 2)
    with pytest.raises(ValueError, match="momentum is .0.8, 0.9., but Adam has none"):
        schedule(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]))
    with pytest.raises(RuntimeError, match="call plan"):
        rates(CyclicByEpoch(lr=1.0), 1)

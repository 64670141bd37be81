"""A rate that rises, falls, and ends at nothing when training does."""

import pytest
import torch

from spikebrain.training.schedules import WarmupDecay


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

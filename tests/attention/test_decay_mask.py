"""The hierarchical decay mask, property 12 of the specification."""

import pytest
import torch

from spikebrain.attention.decay_mask import decay_mask, log_decay


def test_values_of_the_table():
    like = torch.zeros(1, dtype=torch.float64)
    first = decay_mask(71, log_decay(1), like)
    assert torch.equal(first, first.T) and bool((first.diagonal() == 1).all())
    assert first[0, 1].item() == pytest.approx(0.984375, abs=1e-15)
    assert decay_mask(2, log_decay(12), like)[0, 1].item() == pytest.approx(0.9999923706, abs=1e-10)
    for m, expected in ((0, 0.108), (1, 0.332), (2, 0.577), (3, 0.760), (6, 0.966), (12, 0.9995)):
        assert decay_mask(71, log_decay(m), like)[0, 70].item() == pytest.approx(expected, abs=6e-4)


def test_deeper_blocks_look_farther_and_no_decay_is_one():
    like = torch.zeros(1)
    masks = torch.stack([decay_mask(50, log_decay(m), like) for m in range(13)])
    assert bool((masks[1:] >= masks[:-1]).all()) and bool((masks[1:4] > masks[:3]).flatten(1).any(1).all())
    assert bool((decay_mask(50, 0.0, like) == 1).all())


def test_is_built_in_float32_under_autocast_and_for_half_precision():
    with torch.autocast("cpu", torch.bfloat16):
        mask = decay_mask(10, log_decay(6), torch.zeros(1, dtype=torch.bfloat16))
    assert mask.dtype == torch.float32 and 0.999 < mask[0, 1] < 1
    assert mask.to(torch.bfloat16)[0, 1] == 1, "which is why"

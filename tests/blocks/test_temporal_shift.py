"""Temporal shift: which channel takes which frame, what is lost at the ends, and that padding is no frame."""

import pytest
import torch

from spikebrain.blocks.temporal_shift import TemporalShift, shift, shifted_channels


def features(frames=9, channels=16):
    return torch.randn(2, frames, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_an_eighth_comes_from_the_frame_before_and_an_eighth_from_the_one_behind():
    x, out = features(), TemporalShift()(features())
    assert torch.equal(out[:, 1:, :2], x[:, :-1, :2]) and not out[:, 0, :2].any()
    assert torch.equal(out[:, :-1, 2:4], x[:, 1:, 2:4]) and not out[:, -1, 2:4].any()
    assert torch.equal(out[..., 4:], x[..., 4:])
    assert list(TemporalShift().parameters()) == [] and shifted_channels(768, 0.25) == 96


def test_frames_two_apart_do_not_mix():
    x = features().requires_grad_()
    (grad,) = torch.autograd.grad(TemporalShift()(x)[:, 4].sum(), x)
    assert [t for t in range(9) if grad[:, t].any()] == [3, 4, 5] and (grad[:, 4].sum(-1) == 12).all()


def test_shifted_back_the_inner_frames_are_what_they_were():
    x = features()
    there = shift(x, 3)
    back = torch.cat([there[..., 3:6], there[..., :3], there[..., 6:]], -1)  # each half to the other's way
    back = shift(back, 3)
    back = torch.cat([back[..., 3:6], back[..., :3], back[..., 6:]], -1)
    assert torch.equal(back[:, 1:-1], x[:, 1:-1]) and not torch.equal(back, x)


def test_nothing_is_shifted_at_0_and_everything_at_1():
    x = features()
    assert torch.equal(TemporalShift(0.0)(x), x)
    everything = TemporalShift(1.0)(x)
    assert torch.equal(everything[:, 1:, :8], x[:, :-1, :8]) and torch.equal(everything[:, :-1, 8:], x[:, 1:, 8:])


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_utterances(frames):
    x, out = features(frames), TemporalShift()(features(frames))
    assert out.shape == x.shape and torch.equal(out[..., 4:], x[..., 4:]) and not out[:, 0, :2].any() and not out[:, -1, 2:4].any()


def test_the_last_frame_of_an_utterance_never_sees_padding():
    x = features()
    x[1, 5:] = float("nan")
    out = TemporalShift()(x, torch.tensor([1.0, 5 / 9]))
    assert torch.equal(out[1, :5], TemporalShift()(x[1:, :5])[0]) and not out[1, 5:].any() and out.isfinite().all()


def test_another_share_is_refused():
    with pytest.raises(ValueError, match="shift is 1.5: choose the share of channels that are shifted, 0 to 1"):
        TemporalShift(1.5)

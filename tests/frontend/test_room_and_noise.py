"""Noise, rooms and volume: ratios are those that were asked for, nothing moves in time, and features are normalised without padding."""

import pytest
import torch

from spikebrain.frontend.normalisation import UtteranceNormalization
from spikebrain.frontend.room_and_noise import add_noise, change_volume, gaussian_noise, random_crop, reverberate, uniform


def decibels(signal, noise):
    return float(10 * (signal.square().mean() / noise.square().mean()).log10())


def test_noise_lies_as_far_below_as_was_asked_for():
    torch.manual_seed(0)
    wav, noise = torch.sin(torch.arange(4000) / 7), 30 * torch.randn(4000)
    for snr in (-5.0, 0.0, 20.0):
        assert decibels(wav, add_noise(wav, noise, snr) - wav) == pytest.approx(snr, abs=1e-3)
        assert decibels(wav, gaussian_noise(wav, snr) - wav) == pytest.approx(snr, abs=1e-3)
    assert torch.equal(add_noise(torch.zeros(10), torch.ones(10), 10.0), torch.zeros(10))
    assert torch.equal(add_noise(wav, torch.zeros(4000), 10.0), wav)
    with pytest.raises(ValueError, match="the noise has 3 samples, the signal 4"):
        add_noise(torch.ones(4), torch.ones(3), 10.0)


def test_a_room_is_a_convolution_that_moves_nothing_and_does_not_wrap_around():
    torch.manual_seed(0)
    wav = torch.randn(300, dtype=torch.float64)
    response = torch.cat([torch.tensor([0.0, 0.1, 0.0]), torch.tensor([1.0]), 0.3 * torch.randn(80)]).double()
    heard = reverberate(wav, response)
    direct = response[3:]
    expected = torch.stack([sum(wav[n - k] * direct[k] for k in range(min(n + 1, len(direct)))) for n in range(300)])
    scale = (wav.square().mean() / expected.square().mean()).sqrt()
    assert torch.allclose(heard, expected * scale, atol=1e-10) and heard.square().mean().item() == pytest.approx(wav.square().mean().item())
    echo = torch.zeros(101)
    echo[0], echo[100] = 1.0, 0.5
    click = torch.zeros(120)
    click[110] = 1.0
    assert not reverberate(click, echo)[:105].abs().gt(1e-5).any(), "an echo past the end comes back at the beginning"
    assert torch.allclose(reverberate(wav, torch.tensor([0.0, 7.0]).double()), wav)
    with pytest.raises(ValueError, match="the impulse response is silent"):
        reverberate(wav, torch.zeros(5))


def test_crops_are_drawn_from_everywhere_and_short_recordings_repeat():
    torch.manual_seed(0)
    wav = torch.arange(10.0)
    starts = {int(random_crop(wav, 4)[0]) for _ in range(200)}
    assert starts == set(range(7)) and all(torch.equal(random_crop(wav, 10), wav) for _ in range(3))
    assert random_crop(torch.arange(3.0), 8).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    with pytest.raises(ValueError, match="0 samples"):
        random_crop(torch.zeros(0), 4)


def test_volume_and_draws():
    assert change_volume(torch.ones(2), -20.0).tolist() == pytest.approx([0.1, 0.1])
    torch.manual_seed(3)
    drawn = [uniform(15, 25) for _ in range(200)]
    torch.manual_seed(3)
    assert drawn == [uniform(15, 25) for _ in range(200)] and 15 <= min(drawn) < 15.5 and 24.5 < max(drawn) < 25


def test_an_utterance_is_normalised_by_its_own_frames():
    torch.manual_seed(0)
    norm, x, counts = UtteranceNormalization(eps=0.0), 5 + 3 * torch.randn(3, 4001, 4, dtype=torch.float64), [4001, 4000, 777]
    out = norm(x, torch.tensor(counts) / 4001)
    for row, count in enumerate(counts):
        own = out[row, :count]
        assert torch.allclose(own.mean(0), torch.zeros(4).double(), atol=1e-12)
        assert torch.allclose(own.std(0, correction=0), torch.ones(4).double())
        assert torch.equal(own, norm(x[row : row + 1, :count])[0]) or torch.allclose(own, norm(x[row : row + 1, :count])[0], atol=1e-12)
        assert not out[row, count:].any()
    assert not torch.allclose(norm(x)[2, :777], out[2, :777]), "padding that counts must be seen here"

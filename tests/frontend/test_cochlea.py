"""The artificial cochlea against its definition, cell by cell, and what any ear must do."""

import math

import pytest
import torch

from spikebrain.frontend.cochlea import Cochlea

RATE = 16000


def tone(frequency, seconds=0.3, rate=RATE):
    return torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def noise():
    return torch.randn(RATE // 2, generator=torch.Generator().manual_seed(1))


def test_spikes_are_sorted_and_within_range(noise):
    times, units = Cochlea()(noise, RATE)
    assert times.dtype == torch.float64 and units.dtype == torch.int64 and len(times) == len(units) > 1000
    assert (times.diff() >= 0).all() and times[0] >= 0 and times[-1] < 0.5
    assert units.min() >= 0 and units.max() < 700


@pytest.mark.parametrize("frequency", [100, 300, 700, 990, 1010, 1500, 3000, 6000])
def test_a_tone_is_heard_at_its_place(frequency):
    ear = Cochlea()
    _, units = ear(tone(frequency), RATE)
    nearest = (ear.best_frequencies() - frequency).abs().argmin()
    assert len(units) > 20 and abs(units.double().median() - nearest) < 10


def test_best_frequencies():
    best = Cochlea().best_frequencies()
    assert len(best) == 700 and (best.diff() < 0).all()
    assert best[0] == 7118 and float(best[-1]) == pytest.approx(7118 * math.exp(-5.25))


def gammatone(x, best, rate):
    """The complex answer of a filter, by convolution with its impulse response."""
    width = 2 * math.pi * 1.019 * 24.7 * (4.37 * best / 1000 + 1)
    time = torch.arange(len(x), dtype=torch.float64) / rate
    h = width**4 * time**3 / 6 * torch.exp(-width * time) * torch.exp(2j * math.pi * best * time) / rate
    size = 2 * len(x)
    return torch.fft.ifft(torch.fft.fft(x.double(), size) * torch.fft.fft(h, size))[: len(x)]


def test_filters_are_gammatones_and_rectified(noise):
    ear = Cochlea(tilt=0.0)
    got = ear.rectified(noise, RATE)
    best = ear.best_frequencies()
    for unit in (60, 150, 250, 300, 420, 550):
        answer = gammatone(noise, float(best[unit]), RATE)[:: RATE // ear.tick]
        envelope = answer.abs() * 2 / math.pi
        expected = envelope if best[unit] >= ear.follow else (2 * answer.real).clamp_min(0)
        error = (got[: len(expected), unit] - expected).square().mean() / expected.square().mean()
        assert error < 1e-3, (unit, float(best[unit]), float(error))


def test_tilt_weights_frequencies(noise):
    flat, tilted = (Cochlea(tilt=tilt).rectified(noise, RATE).square().mean(0).sqrt() for tilt in (0.0, 0.5))
    best = Cochlea().best_frequencies()
    for unit in (100, 300, 450):
        assert float(tilted[unit] / flat[unit]) == pytest.approx(math.sqrt(best[unit] / 1000), rel=0.05)


def fired_by_hand(ear, x):
    """The recurrence of the docstring for one cell, in Python numbers."""
    keep, slow = math.exp(-1 / (ear.tick * ear.tau_s)), 1 - math.exp(-1 / (ear.tick * ear.adaptation_s))
    recent = v = 0.0
    rest, fired = 0, []
    for value in (float(number) ** ear.power * ear.gain for number in x):
        recent += slow * (value - recent)
        v = 0.0 if rest else v * keep + max(0.0, value - ear.adaptation * recent)
        rest = max(0, rest - 1)
        fired.append(v >= 1)
        if fired[-1]:
            v, rest = 0.0, round(ear.tick * ear.refractory_s)
    return fired


def test_cells_follow_their_recurrence():
    ear = Cochlea()
    x = torch.rand(300, 5, generator=torch.Generator().manual_seed(2)) * torch.tensor([0.05, 0.2, 0.5, 2.0, 50.0])
    fired = ear.fire(x)
    assert [fired[:, cell].tolist() for cell in range(5)] == [fired_by_hand(ear, x[:, cell]) for cell in range(5)]
    assert fired.sum(0)[0] == 0 < fired.sum(0)[2] < fired.sum(0)[4]


def test_cells_rest_after_a_spike():
    ear = Cochlea()
    fired = ear.fire(torch.full((100, 1), 1e4))
    ticks = fired[:, 0].nonzero().flatten()
    assert (ticks.diff() == 1 + ear.tick * ear.refractory_s).all()


def test_hair_cells_tire(noise):
    times, _ = Cochlea()(torch.cat([torch.zeros(RATE // 10), noise]), RATE)
    begun, later = ((times >= start) & (times < start + 0.02) for start in (0.1, 0.4))
    assert begun.sum() > 2 * later.sum() > 0


def test_the_level_of_a_recording_does_not_matter(noise):
    quiet, loud = (Cochlea()(noise * 2.0**power, RATE) for power in (-12, 5))
    assert torch.equal(quiet[0], loud[0]) and torch.equal(quiet[1], loud[1])


def test_what_comes_later_is_heard_later(noise):
    silence = torch.zeros(RATE // 5)
    late, early = torch.cat([silence, noise, silence]), torch.cat([noise, silence, silence])
    shifted, original = Cochlea()(late, RATE), Cochlea()(early, RATE)
    assert abs(len(shifted[0]) - len(original[0])) < 0.01 * len(original[0])
    histogram = [torch.histc(times.float(), 45, 0, 0.9) for times in (shifted[0] - 0.2, original[0])]
    assert (histogram[0] - histogram[1]).abs().sum() < 0.03 * histogram[1].sum()


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_other_rates_give_the_same_spikes(rate):
    ear = Cochlea()
    count = [len(ear(tone(800, rate=r) + tone(2100, rate=r), r)[0]) for r in (RATE, rate)]
    assert abs(count[0] - count[1]) < 0.03 * count[0]
    _, units = ear(torch.randn(rate // 4, generator=torch.Generator().manual_seed(3)), rate)
    assert ear.best_frequencies()[units].max() < 1.2 * rate / 2  # a filter's skirt reaches down to what there is


def test_silence_has_no_spikes():
    times, units = Cochlea()(torch.zeros(RATE), RATE)
    assert times.shape == units.shape == (0,) and times.dtype == torch.float64 and units.dtype == torch.int64


def test_the_same_sound_gives_the_same_spikes(noise):
    first, second = Cochlea()(noise, RATE), Cochlea()(noise.clone(), RATE)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_a_short_sound_is_heard():
    times, _ = Cochlea()(tone(500, 0.01), RATE)
    assert len(times) > 0 and times[-1] < 0.01


@pytest.mark.parametrize("wav", [torch.zeros(0), torch.ones(2, 100), torch.tensor([0.0, float("nan")]), torch.tensor([0.0, float("inf")])])
def test_wrong_samples(wav):
    with pytest.raises(ValueError, match=r"wav has shape .*: pass the finite samples of one channel"):
        Cochlea()(wav, RATE)

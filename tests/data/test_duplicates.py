"""Recordings that share audio: found where they do, with the seconds that they share, and nowhere else."""

from dataclasses import asdict

import numpy as np
import pytest
import soundfile

from spikebrain.data import duplicates, folds
from spikebrain.data.duplicates import ALIKE, RATE, WINDOW, Pair
from spikebrain.data.folds import Fold, Protocol
from spikebrain.data.manifest import Utterance


def babble(seed, seconds=2.0, rate=RATE):
    """Noise whose spectrum and level change every tenth of a second: as little alike as two stretches of speech are."""
    rng = np.random.default_rng(seed)
    pieces = [_piece(rng, rate // 10) for _ in range(round(10 * seconds))]
    return np.concatenate(pieces).astype(np.float32)


def _piece(rng, samples):
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    shape = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, 24), rng.lognormal(0, 1, 24))
    return 0.02 * rng.uniform(0.3, 1.5) * np.fft.irfft(spectrum * shape, samples)


def write(folder, recordings, rate=RATE):
    """The Utterances of a name -> samples, written into ``folder``."""
    for name, wav in recordings.items():
        soundfile.write(folder / f"{name}.wav", wav, rate, subtype="PCM_16")
    return [Utterance(name, f"{name}.wav", len(wav) / rate) for name, wav in recordings.items()]


def find(folder, recordings, rate=RATE):
    return duplicates.find(write(folder, recordings, rate), str(folder))


def noisy(wav, snr, seed=9):
    noise = np.random.default_rng(seed).standard_normal(len(wav)) * 10 ** (-snr / 20) * np.sqrt(np.mean(np.square(wav)))
    return (wav + noise).astype(np.float32)


def test_unrelated_recordings_share_nothing(tmp_path):
    assert find(tmp_path, {f"u{seed}": babble(seed) for seed in range(30)}) == ()


@pytest.mark.parametrize("seconds", [0.8, 1.3, 2.0])
@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_a_shared_end_is_found_with_its_length(tmp_path, seconds, gain):
    first, n = babble(1), round(seconds * RATE)
    second = np.concatenate([gain * first[-n:], babble(2)])
    found = find(tmp_path, {"x": babble(3), "b": second, "y": babble(4), "a": first})
    assert [(pair.first, pair.second) for pair in found] == [("b", "a")]
    assert found[0].seconds == pytest.approx(seconds, abs=0.1) and found[0].correlation > 0.999


@pytest.mark.parametrize("seconds", [0.5, 0.58])
def test_less_than_a_window_is_no_pair(tmp_path, seconds):
    first, n = babble(1), round(seconds * RATE)
    assert find(tmp_path, {"a": first, "b": np.concatenate([babble(2), first[:n], babble(3)])}) == ()


def test_noise_parts_what_is_alike_from_what_is_not(tmp_path):
    # 0.98 is a signal-to-noise ratio of 1 / (1 / 0.98^2 - 1) = 24, that is 13.8 dB.
    first = babble(1)
    assert len(find(tmp_path, {"a": first, "b": noisy(first, 20)})) == 1
    assert find(tmp_path, {"a": first, "b": noisy(first, 8)}) == ()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_copies_at_other_rates_and_of_two_channels(tmp_path, rate):
    wav = babble(1, 3.0, rate)
    first, second = wav[: 2 * rate], wav[rate:]
    found = find(tmp_path, {"a": np.stack([first, first], 1), "b": np.stack([second, second], 1)}, rate)
    assert [(pair[:2], round(pair.seconds, 1)) for pair in found] == [(("a", "b"), 1.0)]


@pytest.mark.parametrize("part", [0.0, 0.25, 0.5, 0.75])
def test_copies_that_lie_between_samples(tmp_path, part):
    wav = babble(1)
    spectrum = np.fft.rfft(wav, 1 << 16) * np.exp(-2j * np.pi * part * np.fft.rfftfreq(1 << 16))
    found = find(tmp_path, {"a": wav, "b": np.fft.irfft(spectrum, 1 << 16)[RATE // 2 : len(wav)]})
    assert [(pair[:2], round(pair.seconds, 1)) for pair in found] == [(("a", "b"), 1.5)]


def test_a_recording_may_hold_more_than_the_utterance(tmp_path):
    first, second = babble(1), babble(2)
    soundfile.write(tmp_path / "long.wav", np.concatenate([first, second]), RATE, subtype="PCM_16")
    cut = [Utterance("a", "long.wav", 2.0), Utterance("b", "long.wav", 2.0, start=2 * RATE), Utterance("c", "long.wav", 2.0, start=RATE)]
    assert [pair[:2] for pair in duplicates.find(cut, str(tmp_path))] == [("a", "c"), ("b", "c")]


def test_one_recording_under_two_names_and_three_that_share(tmp_path):
    wav = babble(5)
    found = find(tmp_path, {"a": wav, "b": wav, "c": np.concatenate([babble(6), wav])})
    assert [(pair[:2], round(pair.seconds, 1)) for pair in found] == [(("a", "b"), 2.0), (("a", "c"), 2.0), (("b", "c"), 2.0)]


def test_silence_hum_and_short_recordings_are_no_pairs(tmp_path):
    hum = (0.1 * np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)).astype(np.float32)
    silent = {"zero": np.zeros(RATE), "zeros": np.zeros(2 * RATE), "offset": np.full(RATE, 0.1), "offsets": np.full(2 * RATE, 0.1)}
    faint = {f"faint{seed}": babble(seed) * 1e-3 for seed in range(3)}
    short = {"short": babble(7, 0.1), "as short": babble(7, 0.1), "hum": hum}
    assert find(tmp_path, {**silent, **faint, **short}) == ()
    assert duplicates.find([], str(tmp_path)) == ()


def test_correlations_are_those_of_every_window():
    rng = np.random.default_rng(3)
    x = rng.standard_normal(WINDOW + 20) + 5
    y = 0.5 * x + 0.1 * rng.standard_normal(len(x)) - 2
    expected = [np.corrcoef(x[i : i + WINDOW], y[i : i + WINDOW])[0, 1] for i in range(21)]
    np.testing.assert_allclose(duplicates._correlations(x, y), expected, atol=1e-9)
    assert min(expected) > ALIKE


def test_seconds_are_counted_once():
    starts = np.zeros(5 * WINDOW, bool)
    starts[[0, 10, WINDOW + 500]] = True
    assert duplicates._covered(starts) == 10 + WINDOW + WINDOW
    assert duplicates._covered(np.zeros(5, bool)) == 0


def test_folds_that_take_a_pair_apart_are_named():
    pairs = (Pair("a", "b", 0.99, 1.0), Pair("c", "d", 0.99, 1.0))
    plan = [
        Fold("1", ("b", "c", "d"), ("e",), ("a", "f")),
        Fold("2", ("e", "f"), ("c", "d"), ("a", "b")),
        Fold("3", ("a", "b"), ("c",), ("d", "e", "f")),
    ]
    assert duplicates.leaks(plan, pairs) == {"1": pairs[:1], "3": pairs[1:]}
    assert duplicates.leaks(plan, ()) == {}


def test_random_folds_take_apart_what_speaker_folds_keep(tmp_path):
    found = []
    for speaker in range(6):
        wav = babble(speaker, 3.0)
        halves = {f"s{speaker}-{i}": wav[i * RATE : (i + 2) * RATE] for i in range(2)}
        found += [Utterance(u.id, u.wav, u.duration, f"s{speaker}", label=str(i)) for i, u in enumerate(write(tmp_path, halves))]
    pairs = duplicates.find(found, str(tmp_path))
    assert [pair[:2] for pair in pairs] == [(f"s{s}-0", f"s{s}-1") for s in range(6)]
    plans = {by: folds.make(found, {"x": asdict(Protocol(by, 3))}, "x") for by in ("id", "speaker")}
    assert duplicates.leaks(plans["id"], pairs) and not duplicates.leaks(plans["speaker"], pairs)

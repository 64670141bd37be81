"""Finds recordings that share audio: what a fold trains on and tests as well.

Two recordings share audio where a window of 0.6 s of one is, up to its level, a stretch of the other: their correlation is above 0.98
(a signal-to-noise ratio of 14 dB). To correlate all windows of all pairs would take minutes for a few hundred recordings, so candidates
are found first, by prints of 18 bits, 8 ms apart: of 18 pairs of neighbouring bands the sign in which their difference in level changes
over 32 ms, after J. Haitsma, T. Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002. Pairs with several equal
prints at one distance in time are then correlated. That takes about 4 ms a second of audio.

Clean copies are found, noisy ones in part: of 60 pieces of speech that were put into other recordings, all 60 at 0.7 s and 30 dB of
noise, 47 at 0.65 s and 20 dB, 24 at 0.6 s and 15 dB.
"""

from typing import NamedTuple

import numpy as np
import torch
from speechbrain.dataio import audio_io

from spikebrain.data.manifest import rooted

RATE = 16000  # Hz at which recordings are compared
WINDOW, ALIKE = round(0.6 * RATE), 0.98

# Prints: samples of a frame and from one to the next, frames of a change, bits, and Hz of the bands.
FRAME, HOP, CHANGE, BITS, BANDS = 2048, 128, 4, 18, (250, 4000)
VOTES = 4  # equal prints at one distance that make a candidate; two unrelated recordings seldom have 4
NEIGHBOURS = 64  # equal prints that are looked at: a print that many recordings have says nothing
LEVEL = round(0.05 * RATE)  # samples over which loud and quiet parts are made equal
PARTS = np.arange(-4, 5) / 8  # of a sample, by which two copies may differ
NEARLY = 0.5  # a copy half a sample off correlates more than this


class Pair(NamedTuple):
    """Two recordings that share audio.

    first, second : ids
    correlation : of their most similar window
    seconds : that they share
    """

    first: str
    second: str
    correlation: float
    seconds: float


def find(utterances, data_folder):
    """The pairs of ``utterances`` that share 0.6 s of audio or more.

    Arguments
    ---------
    utterances : list of Utterance
    data_folder : str
        What their paths are relative to. Audio of any rate is resampled to 16 kHz, and channels are averaged.

    Returns
    -------
    tuple of Pair
        Those that are first in ``utterances`` first.
    """
    files = [rooted(utterance, data_folder) for utterance in utterances]
    found = []
    for (first, second), lag in sorted(_candidates(files).items()):
        correlation, seconds = _shared(_samples(files[first]), _samples(files[second]), lag * HOP)
        if correlation > ALIKE:
            found.append(Pair(utterances[first].id, utterances[second].id, correlation, seconds))
    return tuple(found)


def leaks(plan, pairs):
    """Which of ``pairs`` folds take apart.

    Arguments
    ---------
    plan : iterable of Fold
    pairs : iterable of Pair

    Returns
    -------
    dict
        Name of a fold -> tuple of the Pairs of which it tests one, and trains on the other or validates by it. Folds without such
        pairs are left out.
    """
    found = {}
    for fold in plan:
        tested = set(fold.test)
        crossing = tuple(pair for pair in pairs if (pair.first in tested) != (pair.second in tested))
        if crossing:
            found[fold.name] = crossing
    return found


def _samples(utterance):
    """Samples of an utterance at RATE: array (S,), float32."""
    from torchaudio.functional import resample

    wav, rate = audio_io.load(utterance.wav, dtype=torch.float32)
    wav = wav.mean(0)[utterance.start : utterance.start + round(utterance.duration * rate)]
    return resample(wav, rate, RATE).numpy()


def _candidates(files):
    """(place of the first, place of the second) -> frames by which the second is late, of the pairs that have prints in common."""
    prints = [_prints(_samples(file)) for file in files]
    none = np.zeros(0, np.int64)
    keys, who = np.concatenate([none, *prints]), np.repeat(np.arange(len(prints)), [len(p) for p in prints])
    when = np.concatenate([none, *(np.arange(len(p)) for p in prints)])
    order = np.argsort(keys, kind="stable")
    votes = _votes(keys[order], who[order], when[order])
    # The distance with most votes comes last, and stays.
    return {(int(a), int(b)): int(lag) for _, a, b, lag in sorted(votes)}


def _votes(keys, who, when):
    """(votes, first, second, distance) of every pair and distance with VOTES equal prints or more; prints are sorted."""
    span, many = 2 * (when.max(initial=0) + 1), who.max(initial=0) + 1
    found = []
    for apart in range(1, min(NEIGHBOURS, len(keys))):
        same = (keys[apart:] == keys[:-apart]) & (who[apart:] != who[:-apart])
        first, second = who[:-apart][same], who[apart:][same]  # the sort is stable: the first comes first
        lag = when[apart:][same] - when[:-apart][same] + span // 2
        found.append((first.astype(np.int64) * many + second) * span + lag)
    codes, votes = np.unique(np.concatenate(found or [np.zeros(0, np.int64)]), return_counts=True)
    codes, votes = codes[votes >= VOTES], votes[votes >= VOTES]
    pairs, lags = codes // span, codes % span - span // 2
    return zip(votes, pairs // many, pairs % many, lags)


def _prints(wav):
    """The prints of samples (S,): int array, one a frame."""
    if len(wav) < FRAME + CHANGE * HOP:
        return np.zeros(0, np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(wav, FRAME)[::HOP] * np.hanning(FRAME).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))
    level = np.log(power @ _bands() + 1e-9)
    slope = level[:, :-1] - level[:, 1:]
    return (slope[CHANGE:] - slope[:-CHANGE] > 0) @ (1 << np.arange(BITS))


def _bands():
    edges, frequency = np.geomspace(*BANDS, BITS + 2), np.fft.rfftfreq(FRAME, 1 / RATE)
    return np.stack([(frequency >= low) & (frequency < high) for low, high in zip(edges, edges[1:])], 1).astype(np.float32)


def _shared(first, second, about):
    """(highest correlation of a window, seconds in alike windows) of two recordings, the second ``about`` so many samples late."""
    cross = np.conj(_spectrum(first, second)) * _spectrum(second, first)
    near = np.arange(about - 2 * HOP, about + 2 * HOP + 1)
    lag = int(near[np.argmax(np.fft.irfft(cross)[near])])
    found = _shared_at(first, second, lag)
    if found[0] < NEARLY:
        return found
    # Copies that were resampled each on its own lie between samples, and half a sample is enough to fall below ALIKE.
    turns = np.exp(2j * np.pi * np.outer(lag + PARTS, np.linspace(0, 0.5, len(cross))))
    return max(found, _shared_at(first, _earlier(second, PARTS[np.argmax((turns @ cross).real)]), lag))


def _shared_at(first, second, lag):
    begin, end = max(0, -lag), min(len(first), len(second) - lag)
    if end - begin < WINDOW:
        return 0.0, 0.0
    alike = _correlations(first[begin:end], second[begin + lag : end + lag])
    return float(alike.max()), _covered(alike > ALIKE) / RATE


def _covered(starts):
    """How many samples lie in one of the windows that begin where ``starts`` is true."""
    begins = np.flatnonzero(starts)
    return int(np.minimum(np.diff(begins), WINDOW).sum()) + (WINDOW if len(begins) else 0)


def _spectrum(wav, other):
    return np.fft.rfft(_levelled(wav), 1 << (len(wav) + len(other)).bit_length())


def _earlier(wav, part):
    """``wav`` a ``part`` of a sample earlier."""
    spectrum = np.fft.rfft(wav, 1 << len(wav).bit_length())
    turn = np.exp(2j * np.pi * part * np.linspace(0, 0.5, len(spectrum)))
    return np.fft.irfft(spectrum * turn)[: len(wav)].astype(np.float32)


def _levelled(wav):
    total = np.concatenate([[0.0], np.cumsum(np.square(wav, dtype=np.float64))])
    ends = np.clip(np.arange(len(wav))[:, None] + [LEVEL // 2, -LEVEL // 2], 0, len(wav))
    return wav / np.sqrt((total[ends[:, 0]] - total[ends[:, 1]]) / LEVEL + 1e-8)


def _correlations(x, y):
    """Pearson's correlation of x and y (S,) in every window: array (S - WINDOW + 1,)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    sum_x, sum_y = _sums(x), _sums(y)
    spread_x, spread_y = (_sums(z * z) - s * s / WINDOW for z, s in ((x, sum_x), (y, sum_y)))
    together = _sums(x * y) - sum_x * sum_y / WINDOW
    return together / np.sqrt(np.maximum(spread_x * spread_y, 1e-12))


def _sums(x):
    total = np.concatenate([[0.0], np.cumsum(x)])
    return total[WINDOW:] - total[:-WINDOW]

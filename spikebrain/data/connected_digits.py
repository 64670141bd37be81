"""Strings of spoken digits in the layout of LibriSpeech: recognition of real voices that trains in minutes.

The source is the Free Spoken Digit Dataset, as for :mod:`spikebrain.data.spoken_digits`. An utterance joins three to six recordings of one
speaker with pauses of 50 to 200 ms, which hold noise of 0.00005 rather than digital silence; each recording fades in and out over 5 ms.
The joined samples are brought to 16 kHz (nothing above 4 kHz: set ``f_max: 4000`` for mel bands). The voices are real; no string was
spoken as one.

No recording is in two splits: of the speakers whom the column ``split`` does not test, takes 10 and up make ``train-clean-100``, 5 to 9
``dev-clean`` and 0 to 4 ``test-clean``; all takes of the others make ``test-other``. Digits, and recordings of a digit, are dealt as from
decks of cards, so that all are used evenly. The same source gives the same files.
"""

import math
import random
import zlib

import numpy as np
import soundfile

RATE = 16000
SPLITS = {"train-clean-100": 1500, "dev-clean": 150, "test-clean": 150, "test-other": 150}  # utterances
DIGITS = (3, 6)  # fewest and most in a string
WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
ENDS_S, PAUSE_S, FADE_S = (0.05, 0.15), (0.05, 0.20), 0.005
NOISE = 5e-5
CHAPTER = 50  # utterances
FIRST = 1001  # of the speakers' numbers
SEED = 1234


class Deck:
    """Deals things, all of them before any comes again.

    Arguments
    ---------
    things : list
    rng : random.Random
    """

    def __init__(self, things, rng):
        self.things, self.rng, self.left = things, rng, []

    def deal(self):
        """The next one."""
        if not self.left:
            self.left = list(self.things)
            self.rng.shuffle(self.left)
        return self.left.pop()


def split_of(tested, take):
    """The split of a recording: whether its speaker is tested alone, and its take."""
    if tested:
        return "test-other"
    return "test-clean" if take < 5 else "dev-clean" if take < 10 else "train-clean-100"


def write(folder, source, told):
    """Writes the whole corpus.

    Arguments
    ---------
    folder, source : Path
    told : list of (path, speaker, digit, take, tested)
        Of every recording of the source.
    """
    numbers = {name: FIRST + place for place, name in enumerate(sorted({speaker for _, speaker, *_ in told}))}
    samples = {path: _faded(*soundfile.read(source / path, dtype="float64")) for path, *_ in told}
    for place, split in enumerate(SPLITS):
        pool = {}
        for path, speaker, digit, take, tested in told:
            if split_of(tested, take) == split:
                pool.setdefault(speaker, {}).setdefault(digit, []).append(path)
        _write_split(folder, split, place, pool, numbers, samples)


def _write_split(folder, split, place, pool, numbers, samples):
    rng, lines = random.Random(SEED * 100 + place), {}
    recordings = {(s, d): Deck(sorted(pool[s][d]), rng) for s in sorted(pool) for d in sorted(pool[s])}
    digits = {s: Deck(sorted(pool[s]), rng) for s in sorted(pool)}
    for turn in range(SPLITS[split] if pool else 0):
        speaker, own = sorted(pool)[turn % len(pool)], np.random.default_rng(zlib.crc32(f"{SEED}/{split}/{turn}".encode()))
        said = [digits[speaker].deal() for _ in range(int(own.integers(DIGITS[0], DIGITS[1] + 1)))]
        wav = _joined([recordings[speaker, digit] for digit in said], samples, own)
        number, chapter = turn // len(pool), (place + 1) * 100 + turn // len(pool) // CHAPTER
        name = f"{numbers[speaker]}-{chapter}-{number % CHAPTER:04d}"
        home = folder / split / str(numbers[speaker]) / str(chapter)
        home.mkdir(parents=True, exist_ok=True)
        soundfile.write(home / f"{name}.flac", wav, RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)
        lines.setdefault(home / f"{home.parent.name}-{chapter}.trans.txt", []).append(f"{name} {' '.join(WORDS[d] for d in said)}\n")
    for path, those in lines.items():
        path.write_text("".join(those), encoding="utf-8")


def _joined(decks, samples, rng):
    """The next recording of each deck between pauses, as int16 at RATE."""
    from scipy.signal import resample_poly

    parts, rate = [], None
    for place, deck in enumerate(decks):
        wav, rate = samples[deck.deal()]
        parts += [_noise(rng, PAUSE_S if place else ENDS_S, rate), wav]
    wav = np.concatenate([*parts, _noise(rng, ENDS_S, rate)])
    if rate != RATE:
        divisor = math.gcd(rate, RATE)
        wav = resample_poly(wav, RATE // divisor, rate // divisor)
    return np.clip(np.round(wav * 2**15), -(2**15), 2**15 - 1).astype(np.int16)


def _noise(rng, seconds, rate):
    return rng.normal(0, NOISE, int(rng.uniform(*seconds) * rate))


def _faded(wav, rate):
    size = min(int(FADE_S * rate), len(wav) // 4)
    if size:
        ramp = np.linspace(0, 1, size, endpoint=False)
        wav = np.concatenate([wav[:size] * ramp, wav[size:-size], wav[-size:] * ramp[::-1]])
    return wav, rate

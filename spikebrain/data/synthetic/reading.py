"""What twins of corpora of read speech share: sentences of a grammar, speakers with moods, and noise around their voices."""

import itertools
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soundfile

from spikebrain.data.synthetic.speech import Voice, speak_at

RATE = 16000

# Variants of eSpeak NG that sound like a person; whispers and robots are left out.
FEMALE = frozenset("Alicia Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 grandma linda shelby steph".split())
TRAIN = tuple(
    "m1 f1 m2 f4 m4 Andrea m5 Alicia m7 steph Andy anika Denis Gene Gene2 Henrique Hugo Mario Marco Mike Nguyen Reed RicishayMax "
    "RicishayMax2 Tweaky antonio benjamin ed edward edward2 gustave iven2 iven4 kaukovalta klatt3 klatt6 marcelo michel miguel mike2 "
    "norbert paul pedro rob sandro travis victor".split()
)


@dataclass(frozen=True)
class Split:
    """How a split sounds: first speaker id, variants, words a minute, signal-to-noise ratio (dB), share of each sentence pattern."""

    first: int
    variants: tuple
    rate: tuple
    snr: tuple
    share: tuple


@dataclass(frozen=True)
class Line:
    """One utterance to be spoken: its id, words, voice, signal-to-noise ratio (dB), and the seed of its noise."""

    id: str
    text: str
    voice: Voice
    snr: float
    seed: tuple


@dataclass(frozen=True)
class Script:
    """What is said in a twin, and by whom.

    grammar : patterns; each is a sequence of slots, of which a sentence takes one choice each ("" for none)
    languages : eSpeak NG's languages, one of which each speaker speaks
    splits : split -> Split
    name : (split, number of a speaker, how often it has spoken before) -> id of an utterance
    """

    grammar: tuple
    languages: tuple
    splits: Mapping
    name: Callable

    def sentences(self, seed, split):
        """The sentences that ``split`` may use, one shuffled list a pattern of the grammar; those of splits with other shares differ."""
        pools = []
        for number, pattern in enumerate(self.grammar):
            every = [" ".join(filter(None, words)) for words in itertools.product(*pattern)]
            order = np.random.default_rng([seed, number]).permutation(len(every))
            low, high = (round(share * len(every)) for share in self.splits[split].share)
            pools.append([every[i] for i in order[low:high]])
        return pools

    def lines(self, seed, split, number):
        """What is said in ``split``: ``number`` Lines, patterns, speakers and sentences in turn."""
        pools, spec = self.sentences(seed, split), self.splits[split]
        rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
        speakers = [self._speaker(spec, variant, rng) for variant in spec.variants]
        texts = [pool[i // len(pools) % len(pool)] for i, pool in zip(range(number), itertools.cycle(pools))]
        rng.shuffle(texts)
        out = []
        for i, text in enumerate(texts):
            turn, who = divmod(i, len(speakers))
            name = self.name(split, spec.first + who, turn)
            out.append(Line(name, text, _mood(speakers[who], rng), rng.uniform(*spec.snr), (seed, zlib.crc32(name.encode()))))
        return out

    def _speaker(self, spec, variant, rng):
        language = self.languages[int(rng.integers(len(self.languages)))]
        middle, half = sum(spec.rate) / 2, (spec.rate[1] - spec.rate[0]) / 2
        return Voice(f"{language}+{variant}", round(middle + rng.uniform(-0.7, 0.7) * half), *(int(rng.integers(30, 71)) for _ in "ab"))


def _mood(voice, rng):
    # A speaker does not say everything at one speed and pitch.
    return Voice(voice.name, round(voice.rate * rng.uniform(0.92, 1.08)), int(voice.pitch + rng.integers(-8, 9)), voice.pitch_range)


def variant(line):
    """The variant of eSpeak NG that speaks a Line."""
    return line.voice.name.partition("+")[2]


def sex(variant):
    """How a variant sounds: F or M."""
    return "F" if variant in FEMALE else "M"


def render(line):
    """The samples of a Line: float32 array (S,) at 16 kHz, with noise around and under the voice."""
    rng = np.random.default_rng(line.seed)
    wav = speak_at(line.text.lower(), RATE, line.voice)
    wav = wav / (np.sqrt(np.mean(wav**2)) + 1e-9)
    wav = np.pad(wav, rng.integers(RATE // 20, RATE // 5, 2))
    wav = wav + _noise(len(wav), rng) * 10 ** (-line.snr / 20)
    level = 10 ** (rng.uniform(-30, -22) / 20)
    return np.clip(wav * level, -0.999, 0.999).astype(np.float32)


def _noise(samples, rng):
    """White to pink noise of unit power: amplitudes fall as frequency to the power -tilt / 2."""
    length = 1 << samples.bit_length()  # a power of two: the transform of a prime length takes five times as long
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.arange(len(spectrum)), 1 + length // 400)
    noise = np.fft.irfft(spectrum * frequency ** (-rng.uniform(0, 1) / 2), length)[:samples]
    return noise / np.sqrt(np.mean(noise**2))


def write_all(lines, path):
    """Speaks Lines, in threads, into the 16-bit files ``path(line)``; a list of their lengths in samples."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda line: _write(line, path(line)), lines))


def _write(line, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = render(line)
    soundfile.write(path, wav, RATE, subtype="PCM_16")
    return len(wav)

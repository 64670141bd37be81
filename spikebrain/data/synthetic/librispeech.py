"""A synthetic twin of LibriSpeech: spoken commands in LibriSpeech's on-disk layout, made here in seconds.

``<split>/<speaker>/<chapter>/<utterance>.flac`` (16 kHz, 16 bit, mono), ``.trans.txt``
and ``SPEAKERS.TXT`` are as in the corpus, so that its preparer runs on it unchanged.

Sentences come from a small grammar of 3 to 7 words and voices from eSpeak NG's
variants. Dev and test sentences, and dev and test voices, do not occur in training; the
"other" splits are faster and noisier. The same seed gives the same bytes.
"""

import itertools
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import soundfile

from spikebrain.data.synthetic.folder import choose_utterances, make_folder
from spikebrain.data.synthetic.speech import Voice, speak_at

VERSION = 1
RATE = 16000
CHAPTER = 50  # utterances in a chapter's folder

UTTERANCES = {"train-clean-100": 1500, "dev-clean": 100, "dev-other": 60, "test-clean": 150, "test-other": 100}

_ROOM = "KITCHEN BEDROOM GARDEN OFFICE".split()
_DEVICE = "LIGHT HEATER RADIO FAN".split()
_CITY = "LONDON PARIS BERLIN".split()
_DAY = "TODAY TOMORROW MONDAY FRIDAY".split()
_DIGIT = "ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()

# One slot a column: each sentence takes one of its choices. No two words sound alike (no FOR beside FOUR).
GRAMMAR = (
    (["TURN"], ["ON", "OFF"], ["THE"], _ROOM, _DEVICE, ["", "NOW", *_DAY]),
    (["STOP THE"], [*_DEVICE, "MUSIC", "TIMER"], ["", *(f"IN THE {room}" for room in _ROOM)], ["", "NOW", *_DAY]),
    (["WAKE ME"], ["", *_DAY], ["AT"], _DIGIT),
    (["WILL IT"], ["RAIN", "SNOW", "BE COLD", "BE WARM"], ["IN"], _CITY, ["", *_DAY]),
    (["THE NUMBER IS"], _DIGIT, _DIGIT, ["", *_DIGIT]),
    (["PLAY SOME"], ["MUSIC", "JAZZ"], ["IN THE"], _ROOM, ["", "NOW", *_DAY]),
    (["CALL MY"], ["MOTHER", "DOCTOR"], ["", *(f"AT {digit}" for digit in _DIGIT)], _DAY),
    (["HOW"], ["COLD", "WARM"], ["IS IT IN"], _CITY, ["", *_DAY]),
)

# Variants of eSpeak NG that sound like a person; whispers and robots are left out.
_FEMALE = set("Alicia Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 grandma linda shelby steph".split())
_TEST_CLEAN = "m3 f2 Michael linda robert aunty m8 belinda adam Alex".split()
_TEST_OTHER = "klatt4 grandma Diogo pablo f5 Lee Storm grandpa".split()
_DEV_CLEAN = "m6 f3 david Annie max quincy".split()
_DEV_OTHER = "klatt5 shelby john boris".split()
_TRAIN = (
    "m1 f1 m2 f4 m4 Andrea m5 Alicia m7 steph Andy anika Denis Gene Gene2 Henrique Hugo Mario Marco Mike Nguyen Reed RicishayMax "
    "RicishayMax2 Tweaky antonio benjamin ed edward edward2 gustave iven2 iven4 kaukovalta klatt3 klatt6 marcelo michel miguel mike2 "
    "norbert paul pedro rob sandro travis victor"
).split()


@dataclass(frozen=True)
class Split:
    """How a split sounds: first speaker id, variants, words a minute, signal-to-noise ratio (dB), share of each sentence pattern."""

    first: int
    variants: tuple
    rate: tuple
    snr: tuple
    share: tuple


_EASY, _HARD = dict(rate=(125, 180), snr=(20, 40)), dict(rate=(165, 210), snr=(10, 18))
SPLITS = {
    "train-clean-100": Split(1000, tuple(_TRAIN), (120, 205), (10, 40), (0.0, 0.7)),
    "train-clean-360": Split(2000, tuple(_TRAIN), (120, 205), (10, 40), (0.0, 0.7)),
    "train-other-500": Split(3000, tuple(_TRAIN), (120, 220), (8, 25), (0.0, 0.7)),
    "dev-clean": Split(4000, tuple(_DEV_CLEAN), share=(0.7, 0.8), **_EASY),
    "dev-other": Split(5000, tuple(_DEV_OTHER), share=(0.7, 0.8), **_HARD),
    "test-clean": Split(6000, tuple(_TEST_CLEAN), share=(0.8, 1.0), **_EASY),
    "test-other": Split(7000, tuple(_TEST_OTHER), share=(0.8, 1.0), **_HARD),
}


@dataclass(frozen=True)
class Line:
    """One utterance to be spoken: its id, words, voice, signal-to-noise ratio (dB), and the seed of its noise."""

    id: str
    text: str
    voice: Voice
    snr: float
    seed: tuple


def make(out, seed=1234, utterances=None):
    """Writes the twin into the folder ``out``, or keeps the complete one that is there: see :func:`make_folder`.

    Arguments
    ---------
    out : str or Path
    seed : int
    utterances : dict or None
        Split -> number of utterances; default: UTTERANCES. Splits that are not named are not made.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    DataError
        An unknown split or a number below 1, or ``out`` holds something that was not made here.
    ImportError
        espeakng_loader is not installed, naming the extra.
    """
    utterances = choose_utterances(utterances, UTTERANCES, "LibriSpeech", splits=SPLITS)
    settings = {"corpus": "librispeech", "version": VERSION, "seed": seed, "utterances": utterances, "espeak": version("espeakng-loader")}
    return make_folder(out, settings, lambda folder: _fill(folder, seed, utterances))


def sentences(seed, split):
    """The sentences that ``split`` may use, one shuffled list a pattern of the grammar; no dev or test sentence is a training sentence."""
    pools = []
    for number, pattern in enumerate(GRAMMAR):
        every = [" ".join(filter(None, words)) for words in itertools.product(*pattern)]
        order = np.random.default_rng([seed, number]).permutation(len(every))
        low, high = (round(share * len(every)) for share in SPLITS[split].share)
        pools.append([every[i] for i in order[low:high]])
    return pools


def lines(seed, split, number):
    """What is said in ``split``: ``number`` Lines, patterns, speakers and sentences in turn."""
    pools, spec = sentences(seed, split), SPLITS[split]
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    speakers = [_speaker(spec, variant, rng) for variant in spec.variants]
    texts = [pool[i // len(pools) % len(pool)] for i, pool in zip(range(number), itertools.cycle(pools))]
    rng.shuffle(texts)
    out = []
    for i, text in enumerate(texts):
        turn, who = divmod(i, len(speakers))
        speaker = spec.first + who
        name = f"{speaker}-{speaker}{turn // CHAPTER}-{turn % CHAPTER:04d}"
        out.append(Line(name, text, _mood(speakers[who], rng), rng.uniform(*spec.snr), (seed, zlib.crc32(name.encode()))))
    return out


def _speaker(spec, variant, rng):
    language = ("en-us", "en")[int(rng.integers(2))]
    middle, half = sum(spec.rate) / 2, (spec.rate[1] - spec.rate[0]) / 2
    return Voice(f"{language}+{variant}", round(middle + rng.uniform(-0.7, 0.7) * half), *(int(rng.integers(30, 71)) for _ in "ab"))


def _mood(voice, rng):
    # A speaker does not say everything at one speed and pitch.
    return Voice(voice.name, round(voice.rate * rng.uniform(0.92, 1.08)), int(voice.pitch + rng.integers(-8, 9)), voice.pitch_range)


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


def _fill(folder, seed, utterances):
    minutes = defaultdict(float)
    with ThreadPoolExecutor() as pool:
        for split, number in utterances.items():
            said = lines(seed, split, number)
            for line, samples in zip(said, pool.map(_write, itertools.repeat(folder / split), said), strict=True):
                minutes[split, line.voice.name.partition("+")[2], line.id.split("-")[0]] += samples / RATE / 60
            _write_transcripts(folder / split, said)
    (folder / "SPEAKERS.TXT").write_text(_speakers_table(minutes), encoding="utf-8")


def _place(folder, line):
    speaker, chapter, _ = line.id.split("-")
    return folder / speaker / chapter


def _write(folder, line):
    path = _place(folder, line) / f"{line.id}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = render(line)
    soundfile.write(path, wav, RATE, subtype="PCM_16")
    return len(wav)


def _write_transcripts(folder, said):
    chapters = defaultdict(list)
    for line in said:
        chapters[_place(folder, line)].append(f"{line.id} {line.text}\n")
    for place, texts in chapters.items():
        (place / f"{place.parent.name}-{place.name}.trans.txt").write_text("".join(texts), encoding="utf-8")


def _speakers_table(minutes):
    head = f";ID  |SEX| {'SUBSET':<16} |MINUTES| NAME\n"
    rows = [
        f"{speaker} | {'F' if variant in _FEMALE else 'M'} | {split:<16} | {spoken:5.2f} | eSpeak NG {variant}\n"
        for (split, variant, speaker), spoken in sorted(minutes.items(), key=lambda item: item[0][2])
    ]
    return head + "".join(rows)

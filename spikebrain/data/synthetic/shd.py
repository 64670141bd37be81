"""A synthetic twin of the Spiking Heidelberg Digits: digits of eSpeak NG through our artificial cochlea, made here in a minute and a half.

``shd_train.h5`` and ``shd_test.h5`` have the names and types of the corpus, so that its preparer
runs on them unchanged: English and German digits, labels 0..19, twelve speakers (variants of eSpeak NG,
each in both languages) of whom 4 and 5 speak in the test file alone, four fifths of it, as in the corpus.

Speed, pitch, onset and noise differ from recording to recording. Spikes come from
:class:`spikebrain.frontend.cochlea.Cochlea`, not from the corpus's own model. The same seed gives the same bytes.
"""

import zlib
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from spikebrain.data.synthetic import event_file
from spikebrain.data.synthetic.event_file import RATE
from spikebrain.data.synthetic.folder import choose_utterances, make_folder
from spikebrain.data.synthetic.speech import Voice, speak_at

VERSION = 1

UTTERANCES = {"train": 1200, "test": 300}
KEYS = tuple("zero one two three four five six seven eight nine null eins zwei drei vier fuenf sechs sieben acht neun".split())
_SPELLED = {"fuenf": "fünf"}
GERMAN = KEYS.index("null")  # from this label on

# Speaker number -> variant of eSpeak NG, and whether it sounds like a woman.
SPEAKERS = (
    ("m1", False),
    ("f1", True),
    ("m2", False),
    ("f4", True),
    ("m3", False),
    ("f2", True),
    ("m4", False),
    ("Andrea", True),
    ("m5", False),
    ("Alicia", True),
    ("m7", False),
    ("steph", True),
)
TEST_ONLY = (4, 5)
SHARE = 5  # in the test file, one recording in so many is of a speaker who is in training too

PACE = (90, 150)  # words a minute
SNR = (20, 45)  # dB, of a studio
UNKNOWN = -1  # years and centimetres of a voice that has no body


@dataclass(frozen=True)
class Digit:
    """One recording to be spoken: its label, speaker, voice, and the seed of all else."""

    label: int
    speaker: int
    voice: Voice
    seed: tuple


def make(out, seed=1234, utterances=None):
    """Writes the twin into the folder ``out``: see :mod:`spikebrain.data.synthetic`. ``utterances``: file (train, test) -> recordings.

    The validation split of the corpus's preparer comes out of train.
    """
    utterances = choose_utterances(utterances, UTTERANCES, "SHD", "recordings")
    settings = {"corpus": "shd", "version": VERSION, "seed": seed, "utterances": utterances, "espeak": version("espeakng-loader")}
    return make_folder(out, settings, lambda folder: _fill(folder, seed, utterances))


def digits(seed, split, number):
    """What is said in ``split``: ``number`` Digits in random order, classes in turn, and speakers in turn within a class."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    middle = np.random.default_rng([seed, 0]).uniform(*PACE, len(SPEAKERS))  # the same for a speaker in both files
    chosen = [(turn % len(KEYS), _speaker(split, turn // len(KEYS), turn % len(KEYS))) for turn in range(number)]
    order = rng.permutation(number)
    return [_digit(*chosen[turn], middle, rng, (seed, zlib.crc32(f"{split}{turn}".encode()))) for turn in order]


def _speaker(split, turn, label):
    others = [speaker for speaker in range(len(SPEAKERS)) if speaker not in TEST_ONLY]
    if split == "train":
        return others[(turn + label) % len(others)]
    if (turn + label) % SHARE == 0:
        return others[(turn // SHARE + label) % len(others)]
    return TEST_ONLY[(turn + label) % len(TEST_ONLY)]


def _digit(label, speaker, middle, rng, seed):
    language = "de" if label >= GERMAN else "en"
    pace, pitch = round(middle[speaker] * rng.uniform(0.88, 1.12)), int(50 + rng.integers(-12, 13))
    return Digit(label, speaker, Voice(f"{language}+{SPEAKERS[speaker][0]}", pace, pitch, int(rng.integers(35, 66))), seed)


def render(digit):
    """The samples of a Digit: float32 array (S,) at 16 kHz."""
    rng = np.random.default_rng(digit.seed)
    key = KEYS[digit.label]
    wav = speak_at(_SPELLED.get(key, key), RATE, digit.voice)
    wav = np.pad(wav / np.sqrt(np.mean(wav**2)), rng.integers(RATE // 50, RATE // 10, 2))
    noise = rng.standard_normal(len(wav)) * 10 ** (-rng.uniform(*SNR) / 20)
    return (wav + noise).astype(np.float32)


def _fill(folder, seed, utterances):
    meta = {
        "gender": [b"female" if woman else b"male" for _, woman in SPEAKERS],
        "age": [UNKNOWN] * len(SPEAKERS),
        "body_height": [UNKNOWN] * len(SPEAKERS),
    }
    for split, number in utterances.items():
        said = digits(seed, split, number)
        rows = (event_file.spikes(render(digit)) for digit in said)
        event_file.write(folder / f"shd_{split}.h5", rows, [d.label for d in said], [d.speaker for d in said], KEYS, meta)

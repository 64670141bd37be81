"""Acted speech for the twins of emotion corpora: voices of eSpeak NG whose pace, pitch, liveliness and level say the emotion.

An emotion shifts what a voice does as it shifts a human one: anger is fast, loud and lively, sadness slow, low, flat and quiet. The
shifts are alike for all voices, so that emotions can be told from voices that were never heard. Each twin has the layout, the names, the
rate and the number of channels of its corpus, so that the corpus's preparer runs on it unchanged; the same seed gives the same bytes.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import NamedTuple
from zlib import crc32

import numpy as np
import soundfile

from spikebrain.data.folds import SPLIT
from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic.folder import choose_utterances, make_folder
from spikebrain.data.synthetic.speech import Voice, speak_at

VERSION = 1

WHAT = "recordings a speaker and emotion"
PACE = (140, 190)  # words a minute
SNR = (20, 40)  # dB
LEVEL = -28  # dB below full scale, of a calm voice
OVERLAP = 0.8  # seconds of a recording that another one begins with, where they share audio
STRIDE = 7  # has no divisor in common with any number of sentences here


class Mood(NamedTuple):
    """What an emotion does to a voice: factor of its pace, steps of its pitch, factor of its pitch range, and dB of its level."""

    pace: float
    pitch: int
    lively: float
    level: float


MOODS = {
    "angry": Mood(1.25, 10, 1.5, 7),
    "boredom": Mood(0.7, -18, 0.2, -4),
    "disgust": Mood(0.8, -8, 1.3, 1),
    "fear": Mood(1.4, 26, 0.5, -2),
    "happy": Mood(1.1, 22, 1.7, 4),
    "neutral": Mood(1.0, 0, 0.8, 0),
    "sad": Mood(0.75, -12, 0.4, -7),
    "surprise": Mood(0.9, 32, 1.9, 3),
}


@dataclass(frozen=True)
class Take:
    """One recording to be spoken.

    path : in the corpus
    text : what is said
    label : one of MOODS
    voice : of its speaker, who is calm
    seed : of all that differs from take to take, together with the path
    after : the take with whose last OVERLAP seconds it begins, or None
    """

    path: str
    text: str
    label: str
    voice: Voice
    seed: int
    after: "Take | None" = None


def make(name, out, seed, utterances, default, fill, most=None):
    """Writes a twin into the folder ``out``, or keeps the complete one that is there: see :func:`make_folder`.

    Arguments
    ---------
    name : str
        Of the corpus.
    out : str or Path
    seed : int
    utterances : dict or None
        ``{"all": number}``, recordings of each speaker and emotion; None: ``default``.
    default : dict
    fill : callable
        (folder, seed, number) writes the content.
    most : int or None
        How many sentences the corpus has, where a speaker says each one once.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    DataError
        An unknown split, a number below 1 or above ``most``, or ``out`` holds something that was not made here.
    ImportError
        espeakng_loader is not installed, naming the extra.
    """
    utterances = choose_utterances(utterances, default, name, WHAT)
    number = utterances.get(SPLIT, 0)
    if most is not None and number > most:
        raise DataError(f"utterances: split {SPLIT!r}: {number} {WHAT}: {name} has {most} sentences, ask for {most} or fewer")
    settings = {"corpus": name.lower(), "version": VERSION, "seed": seed, "utterances": utterances, "espeak": version("espeakng-loader")}
    return make_folder(out, settings, lambda folder: fill(folder, seed, number))


def texts(*parts):
    """Sentences: every choice of one phrase of each of ``parts``, mixed so that neighbours differ."""
    every = [" ".join(phrases) for phrases in product(*parts)]
    return tuple(every[i * STRIDE % len(every)] for i in range(len(every)))


def voices(seed, speakers, language):
    """Speaker -> Voice: the variant of eSpeak NG that ``speakers`` names for each, with a pace, pitch and liveliness of his own."""
    return {speaker: _voice(seed, speaker, f"{language}+{variant}") for speaker, variant in speakers.items()}


def _voice(seed, speaker, name):
    rng = np.random.default_rng([seed, crc32(speaker.encode())])
    return Voice(name, int(rng.integers(*PACE, endpoint=True)), int(rng.integers(40, 56)), int(rng.integers(40, 61)))


def act(voice, label, rng):
    """``voice`` in the mood of ``label``, never twice quite alike."""
    mood = MOODS[label]
    pace, lively = voice.rate * mood.pace * rng.uniform(0.93, 1.07), voice.pitch_range * mood.lively * rng.uniform(0.9, 1.1)
    pitch = voice.pitch + mood.pitch + int(rng.integers(-5, 6))
    return Voice(voice.name, round(np.clip(pace, 80, 450)), int(np.clip(pitch, 0, 100)), round(np.clip(lively, 0, 100)))


def render(take, rate):
    """The samples of a Take: float32 array (S,) at ``rate`` Hz."""
    rng = np.random.default_rng([take.seed, crc32(take.path.encode())])
    wav = speak_at(take.text, rate, act(take.voice, take.label, rng))
    wav = np.pad(wav / np.sqrt(np.mean(np.square(wav))), rng.integers(rate // 20, rate // 5, 2))
    wav = wav + rng.standard_normal(len(wav)) * 10 ** (-rng.uniform(*SNR) / 20)
    wav = np.clip(wav * 10 ** ((LEVEL + MOODS[take.label].level + rng.uniform(-2, 2)) / 20), -0.999, 0.999).astype(np.float32)
    return wav if take.after is None else np.concatenate([render(take.after, rate)[-round(OVERLAP * rate) :], wav])


def write(folder, takes, rate=16000, channels=1):
    """Speaks ``takes`` into ``folder``, 16 bit, each channel alike."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(_write, folder, rate, channels), takes))


def _write(folder, rate, channels, take):
    path = folder / take.path
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(render(take, rate)[:, None], channels, 1), rate, subtype="PCM_16")

"""A synthetic twin of Google Speech Commands: single words in the corpus's on-disk layout, made here in half a minute.

``<word>/<speaker>_nohash_<number>.wav`` (16 kHz, 16 bit, mono, at most 1 s), the two lists and
``_background_noise_`` are as in the corpus, so that its preparer runs on it unchanged.

A speaker is a variant of eSpeak NG, and every split has its own: validation and test voices do
not occur in training. Speed, pitch, onset, level and noise differ from clip to clip; one clip
in ten is shorter than a second, as in the corpus. The same seed gives the same bytes.
"""

import functools
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import soundfile

from spikebrain.data.corpora.gsc import LISTS, NOISE, WORDS
from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic import librispeech
from spikebrain.data.synthetic.folder import choose_utterances, make_folder
from spikebrain.data.synthetic.speech import Voice, speak_at
from spikebrain.spelling import did_you_mean

VERSION = 1
RATE = 16000
SHORT = 0.1  # share of clips that are shorter than a second

# Clips of each word.
UTTERANCES = {"train": 80, "valid": 10, "test": 18}
_VARIANTS = {"train": ["train-clean-100"], "valid": ["dev-clean", "dev-other"], "test": ["test-clean", "test-other"]}
# Variants of eSpeak NG that speak in a split.
VOICES = {split: [name for source in sources for name in librispeech.SPLITS[source].variants] for split, sources in _VARIANTS.items()}

PACE = (130, 200)  # words a minute
SNR = (6, 40)  # dB
LEVEL = (-34, -18)  # dB below full scale, of the voice

SECONDS = 20
# Background recordings: fall of power with frequency (exponent), beats a second, depth of the beat.
RECORDINGS = {"white_noise": (0, 0, 0), "pink_noise": (1, 0, 0), "running_tap": (-0.5, 0.4, 0.5), "exercise_bike": (1.5, 1.7, 0.9)}


@dataclass(frozen=True)
class Clip:
    """One clip to be spoken: its path in the corpus, word, voice, and the seed of all else."""

    path: str
    word: str
    voice: Voice
    seed: tuple


def make(out, seed=1234, utterances=None, words=None):
    """Writes the twin into the folder ``out``, or keeps the complete one that is there: see :func:`make_folder`.

    Arguments
    ---------
    out : str or Path
    seed : int
    utterances : dict or None
        Split (train, valid, test) -> number of clips of each word; default: UTTERANCES. Splits that are not named are not made.
    words : list of str or None
        Only these words of the corpus; default: all 35.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    DataError
        An unknown split or word or a number below 1, or ``out`` holds something that was not made here.
    ImportError
        espeakng_loader is not installed, naming the extra.
    """
    utterances = choose_utterances(utterances, UTTERANCES, "Speech Commands", "clips a word")
    words = sorted(set(WORDS if words is None else words))
    for word in words:
        if word not in WORDS:
            raise DataError(f"words: {word!r} is no word of Speech Commands{did_you_mean(word, WORDS)}")
    settings = {"corpus": "gsc", "version": VERSION, "seed": seed, "utterances": utterances, "words": words}
    return make_folder(out, {**settings, "espeak": version("espeakng-loader")}, lambda folder: _fill(folder, seed, utterances, words))


def clips(seed, split, number, words=WORDS):
    """What is said in ``split``: ``number`` Clips of each word, its speakers in turn."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    speakers = [_speaker(variant, rng) for variant in VOICES[split]]
    return [_clip(seed, word, speakers, first, i) for first, word in enumerate(words) for i in range(number)]


def _speaker(variant, rng):
    language = ("en-us", "en")[int(rng.integers(2))]
    return Voice(f"{language}+{variant}", int(rng.integers(*PACE, endpoint=True)), *(int(rng.integers(30, 71)) for _ in "ab"))


def _clip(seed, word, speakers, first, turn):
    # Each word begins with another speaker, so that few clips of each word still take all of the voices.
    speaker = speakers[(first + turn) % len(speakers)]
    name = zlib.crc32(f"{seed}/{speaker.name.partition('+')[2]}".encode())
    path = f"{word}/{name:08x}_nohash_{turn // len(speakers)}.wav"
    return Clip(path, word, speaker, (seed, zlib.crc32(path.encode())))


def render(clip, recordings):
    """The samples of a Clip: float32 array (S,) at 16 kHz, S <= 16000, with a piece of one of ``recordings`` under the voice."""
    rng = np.random.default_rng(clip.seed)
    wav = _unit_power(_trimmed(speak_at(clip.word, RATE, _mood(clip.voice, rng))))
    shortest = max(len(wav) + RATE // 50, RATE * 7 // 10)
    length = int(rng.integers(min(shortest, RATE - 1), RATE)) if rng.random() < SHORT else RATE
    onset = int(rng.integers(max(1, length - len(wav) + 1)))
    wav = np.pad(wav[:length], (onset, max(0, length - onset - len(wav))))
    recording = recordings[int(rng.integers(len(recordings)))]
    start = int(rng.integers(len(recording) - length + 1))
    wav = wav + _unit_power(recording[start : start + length]) * 10 ** (-rng.uniform(*SNR) / 20)
    return np.clip(wav * 10 ** (rng.uniform(*LEVEL) / 20), -0.999, 0.999).astype(np.float32)


def _mood(voice, rng):
    # The same speaker does not say a word twice alike.
    return Voice(voice.name, round(voice.rate * rng.uniform(0.88, 1.12)), int(voice.pitch + rng.integers(-10, 11)), voice.pitch_range)


def _trimmed(wav):
    loud = np.flatnonzero(np.abs(wav) > 0.02 * np.abs(wav).max())
    return wav[loud[0] : loud[-1] + 1]


def _unit_power(wav):
    return wav / np.sqrt(np.mean(np.square(wav)))


def background(name, seed):
    """The samples of a background recording of RECORDINGS: float32 array (S,) at 16 kHz, 20 s."""
    tilt, beats, depth = RECORDINGS[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    spectrum = np.fft.rfft(rng.standard_normal(SECONDS * RATE))
    frequency = np.maximum(np.arange(len(spectrum)), SECONDS * 20)  # flat below 20 Hz
    noise = np.fft.irfft(spectrum * frequency ** (-tilt / 2), SECONDS * RATE)
    noise *= 1 + depth * np.sin(2 * np.pi * beats * np.arange(len(noise)) / RATE)
    return np.clip(0.05 * _unit_power(noise), -0.999, 0.999).astype(np.float32)


def _fill(folder, seed, utterances, words):
    recordings = {name: background(name, seed) for name in RECORDINGS}
    said = {split: clips(seed, split, number, words) for split, number in utterances.items()}
    for place in (NOISE, *words):
        (folder / place).mkdir()
    for name, wav in recordings.items():
        soundfile.write(folder / NOISE / f"{name}.wav", wav, RATE, subtype="PCM_16")
    write = functools.partial(_write, folder, list(recordings.values()))
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, [clip for those in said.values() for clip in those]))
    for split, name in LISTS.items():
        (folder / name).write_text("".join(f"{clip.path}\n" for clip in said.get(split, [])), encoding="utf-8")


def _write(folder, recordings, clip):
    soundfile.write(folder / clip.path, render(clip, recordings), RATE, subtype="PCM_16")

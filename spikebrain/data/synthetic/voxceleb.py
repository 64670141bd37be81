"""A synthetic twin of VoxCeleb: English sentences of many voices in VoxCeleb1's on-disk layout, made here in seconds.

``wav/<speaker>/<video>/<utterance>.wav`` (16 kHz, 16 bit, mono), ``iden_split.txt``, ``veri_test.txt`` and ``vox1_meta.csv`` are as in the
corpus, so that its preparer runs on it unchanged.

A speaker is a variant of eSpeak NG with an accent, a pitch, a pace and a liveliness of its own; those of the trials (``test``) speak with
variants that no speaker of development (``dev``) has. All say sentences of one pool, drawn at random. An utterance belongs to a video, as
there: a video has its own filter, noise and level, and its speaker another mood. Of each speaker's videos one validates and one
tests identification, the others train. The same seed gives the same bytes.
"""

import base64
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import soundfile

from spikebrain.data import trials
from spikebrain.data.corpora.voxceleb import IDEN_LIST, PARTS, RATE, TRIAL_LIST
from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic import librispeech, reading
from spikebrain.data.synthetic.folder import choose_utterances, make_folder
from spikebrain.data.synthetic.speech import Voice, speak_at

VERSION = 1
UTTERANCES = {"dev": 1600, "test": 320}
FEWEST = 6  # utterances of a speaker, in three videos; of few utterances there are few speakers
VIDEO = 4  # utterances of a video, where there are enough of them

_TEST = ("test-clean", "test-other")
_DEV = ("train-clean-100", "dev-clean", "dev-other")
# Variants of eSpeak NG that speak in a split, and the first speaker's number, as in the corpus.
VARIANTS = {
    "dev": (*(name for split in _DEV for name in librispeech.SPLITS[split].variants), "Jacky", "announcer", "caleb", "ian", "zac"),
    "test": tuple(name for split in _TEST for name in librispeech.SPLITS[split].variants),
}
FIRST = {"dev": 10001, "test": 10270}
NATIONS = {"en-us": "USA", "en": "UK"}

PACE, PITCH, LIVELINESS = (135, 185), (30, 70), (30, 70)  # words a minute; 0..100
SNR, LEVEL = (10, 35), (-34, -20)  # dB; of the voice, and below full scale
TILT = 2.0  # dB an octave, at most
RESONANCES, GAIN = 4, 5.0  # of a video's filter, and how far each goes at most (dB)
HUM, OVERTONES = 50, (1, 2, 3, 5)  # Hz, and times that

# A sentence takes one word or phrase of each slot.
SLOTS = tuple(
    tuple(slot.split("|"))
    for slot in (
        "the|my|your|our|his|her|their|that|this|another",
        "||||||old|young|famous|strange|clever|broken|golden|lonely|modern|noisy|polite|yellow",
        "actor|baker|captain|doctor|engine|farmer|garden|hammer|island|journal|kitchen|letter|mountain|neighbour|orchestra|picture|queen|"
        "river|singer|teacher|uncle|village|window|orange|shadow",
        "will follow|has changed|never liked|always finds|could not see|was made for|often visits|is waiting for|should remember|"
        "looked behind|moved towards|might discover|talked about|cannot open|would rather have",
        "a|one|every|no other|the next|the first|some kind of|the only",
        "bridge|coffee|dollar|elephant|flower|guitar|harbour|jacket|kingdom|lesson|market|number|office|piano|question|road|summer|ticket|"
        "umbrella|voice|weather|year|zebra|answer",
        "||||today|in the morning|last week|after dinner|for a while|in public|once again|at home",
    )
)


@dataclass(frozen=True)
class Speaker:
    """A person of the twin: id as in the corpus, split, and how it speaks."""

    id: str
    split: str
    voice: Voice


@dataclass(frozen=True)
class Channel:
    """How a video sounds.

    tilt : dB an octave, of the filter
    resonances : (octaves above 100 Hz, width in octaves, dB) of each
    noise_tilt : power of the noise falls as frequency to this power
    hum : its share of the noise's amplitude
    snr, level : dB, of voice to noise, and of the voice below full scale
    """

    tilt: float
    resonances: tuple
    noise_tilt: float
    hum: float
    snr: float
    level: float


@dataclass(frozen=True)
class Take:
    """One utterance to be spoken: its path as lists write it, its part of identification, words, voice, channel, its noise's seed."""

    path: str
    part: str
    text: str
    voice: Voice
    channel: Channel
    seed: tuple


def make(out, seed=1234, utterances=None):
    """Writes the twin into the folder ``out``: see :mod:`spikebrain.data.synthetic`. ``utterances``: "dev", "test" -> number of utterances.

    Without "test" there are no trials, without "dev" nobody else. Fewer than the trials need are a DataError too.
    """
    utterances = choose_utterances(utterances, UTTERANCES, "VoxCeleb")
    if utterances.get("test", 2 * FEWEST) < 2 * FEWEST:
        raise DataError(f"utterances: split 'test': {utterances['test']} utterances are no two speakers: ask for {2 * FEWEST} or more")
    settings = {"corpus": "voxceleb", "version": VERSION, "seed": seed, "utterances": utterances, "espeak": version("espeakng-loader")}
    return make_folder(out, settings, lambda folder: _fill(folder, seed, utterances))


def speakers(seed, split, number):
    """Those who say ``number`` utterances in ``split``, a list of Speaker: one a variant, fewer where each would say less than FEWEST."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    variants = VARIANTS[split][: max(1, number // FEWEST)]
    return [Speaker(f"id{FIRST[split] + i}", split, _voice(variant, rng)) for i, variant in enumerate(variants)]


def _voice(variant, rng):
    language = list(NATIONS)[int(rng.integers(len(NATIONS)))]
    return Voice(f"{language}+{variant}", *(int(rng.integers(*limits, endpoint=True)) for limits in (PACE, PITCH, LIVELINESS)))


def takes(seed, split, number):
    """What is said in ``split``: ``number`` Takes, the speakers in turn, video after video."""
    said = []
    people = speakers(seed, split, number)
    for i, speaker in enumerate(people):
        mine = number // len(people) + (i < number % len(people))
        for video in range(videos := max(3, mine // VIDEO)):
            count = mine // videos + (video < mine % videos)
            said += _video(seed, speaker, video, count)
    return said


def _video(seed, speaker, number, count):
    rng = np.random.default_rng([seed, zlib.crc32(f"{speaker.id}/{number}".encode())])
    # As long as those of the corpus: 64 bits in 11 letters.
    name = base64.urlsafe_b64encode(hashlib.sha256(f"{seed}/{speaker.id}/{number}".encode()).digest()[:8]).decode().rstrip("=")
    part = {0: PARTS["iden-test"], 1: PARTS["iden-valid"]}.get(number, PARTS["iden-train"])
    channel, mood = _channel(rng), _varied(speaker.voice, rng, 0.06, 5)
    paths = [f"{speaker.id}/{name}/{i:05d}.wav" for i in range(1, count + 1)]
    return [Take(path, part, _sentence(rng), _varied(mood, rng, 0.04, 3), channel, (seed, zlib.crc32(path.encode()))) for path in paths]


def _channel(rng):
    resonances = tuple((rng.uniform(0, 6), rng.uniform(0.3, 1.2), rng.uniform(-GAIN, GAIN)) for _ in range(RESONANCES))
    hum = rng.uniform(0, 0.8) if rng.random() < 0.25 else 0.0
    return Channel(rng.uniform(-TILT, TILT), resonances, rng.uniform(0, 2), hum, rng.uniform(*SNR), rng.uniform(*LEVEL))


def _varied(voice, rng, pace, pitch):
    """The same voice at another time: its pace differs by a share, its pitch by a number."""
    rate, height = round(voice.rate * rng.uniform(1 - pace, 1 + pace)), int(voice.pitch + rng.integers(-pitch, pitch + 1))
    return replace(voice, rate=rate, pitch=height)


def _sentence(rng):
    return " ".join(filter(None, (slot[int(rng.integers(len(slot)))] for slot in SLOTS)))


def render(take):
    """The samples of a Take: float32 array (S,) at 16 kHz, through the filter of its video, with noise around and under the voice."""
    rng, channel = np.random.default_rng(take.seed), take.channel
    wav = np.pad(speak_at(take.text, RATE, take.voice), rng.integers(RATE // 20, RATE // 5, 2))
    wav = _unit_power(_filtered(wav, lambda frequency: _response(channel, frequency)))
    noise = _filtered(rng.standard_normal(len(wav)), lambda frequency: np.maximum(frequency, 20) ** (-channel.noise_tilt / 2))
    time = np.arange(len(wav)) / RATE
    hum = np.zeros(1) if channel.hum == 0 else sum(np.sin(2 * np.pi * k * HUM * time) / k for k in OVERTONES)
    wav = wav + _unit_power(_unit_power(noise) + channel.hum * _unit_power(hum)) * 10 ** (-(channel.snr + rng.uniform(-2, 2)) / 20)
    return np.clip(wav * 10 ** ((channel.level + rng.uniform(-2, 2)) / 20), -0.999, 0.999).astype(np.float32)


def _response(channel, frequency):
    octaves = np.log2(np.maximum(frequency, 50) / 100)
    gain = channel.tilt * (octaves - 3)
    for place, width, height in channel.resonances:
        gain = gain + height * np.exp(-(((octaves - place) / width) ** 2))
    return 10 ** (gain / 20)


def _filtered(wav, response):
    """``wav`` (S,) with the amplitudes of its frequencies times ``response`` of them (Hz); phases stay."""
    length = 1 << len(wav).bit_length()  # a power of two: the transform of a prime length takes five times as long
    spectrum = np.fft.rfft(wav, length)
    return np.fft.irfft(spectrum * response(np.fft.rfftfreq(length, 1 / RATE)), length)[: len(wav)]


def _unit_power(wav):
    return wav / (np.sqrt(np.mean(np.square(wav))) + 1e-9)


def _fill(folder, seed, utterances):
    said = {split: takes(seed, split, number) for split, number in utterances.items()}
    people = [speaker for split, number in utterances.items() for speaker in speakers(seed, split, number)]
    everything = [take for those in said.values() for take in those]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda take: _write(folder / "wav" / take.path, render(take)), everything))
    (folder / IDEN_LIST).write_text("".join(f"{take.part} {take.path}\n" for take in everything), encoding="utf-8")
    (folder / "vox1_meta.csv").write_text(_meta(people), encoding="utf-8")
    if "test" in said:
        female = {speaker.id for speaker in people if _sex(speaker) == "f"}
        trials.write(folder / TRIAL_LIST, trials.balanced([take.path for take in said["test"]], female, seed))


def _write(path, wav):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, RATE, subtype="PCM_16")


def _sex(speaker):
    return reading.sex(speaker.voice.name.partition("+")[2]).lower()


def _meta(people):
    lines = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    for speaker in people:
        language, _, variant = speaker.voice.name.partition("+")
        lines.append(f"{speaker.id}\teSpeak_NG_{variant}\t{_sex(speaker)}\t{NATIONS[language]}\t{speaker.split}")
    return "".join(f"{line}\n" for line in lines)

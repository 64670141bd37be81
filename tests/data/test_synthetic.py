"""Synthetic speech, and the LibriSpeech twin: repeatable, and unseen in training where promised."""

import csv
import hashlib
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from spikebrain.data import manifest
from spikebrain.data.corpora import librispeech as corpus
from spikebrain.data.synthetic import librispeech, reading, speech
from spikebrain.data.synthetic.speech import Voice

pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")


def test_speech_is_speech():
    wav, rate = speech.speak("turn on the kitchen light")
    assert rate == 22050 and wav.dtype == np.float32 and wav.ndim == 1
    assert 0.8 < len(wav) / rate < 2.5
    assert 0.2 < np.abs(wav).max() <= 1.0
    resampled = speech.speak_at("turn on the kitchen light", 16000)
    assert resampled.dtype == np.float32 and abs(len(resampled) / 16000 - len(wav) / rate) < 1e-3


def test_resampling_keeps_a_tone():
    time = np.arange(22050) / 22050
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert np.abs(speech.resample(tone, 22050, 16000) - expected)[500:-500].max() < 2e-3
    above = np.sin(2 * np.pi * 10000 * time).astype(np.float32)
    assert np.abs(speech.resample(above, 22050, 16000))[500:-500].max() < 0.02


# Flutter, noise of its own, noise of the C library, and Klatt synthesis: all that eSpeak NG carries over from before.
VOICES = [Voice(f"en-us+{variant}") for variant in ("m3", "f2", "whisper", "Reed", "klatt4", "croak")]


def test_an_utterance_does_not_depend_on_the_ones_before():
    text = "wake me at nine thirty"
    first = [speech.speak(text, voice)[0] for voice in VOICES]
    speech.speak("something else entirely, and long", Voice("en+f5", rate=300))
    second = [speech.speak(text, voice)[0] for voice in reversed(VOICES)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(first[0], other) for other in first[1:])


def test_an_utterance_is_the_same_in_another_process():
    code = (
        "import hashlib; from spikebrain.data.synthetic.speech import *; "
        "print(hashlib.sha256(speak('wake me', Voice('en-us+Reed'))[0].tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(speech.speak("wake me", Voice("en-us+Reed"))[0].tobytes()).hexdigest() == there


def test_threads_do_not_mix():
    texts = ["turn on the light", "call my mother", "play some jazz"] * 4
    alone = [speech.speak(text)[0] for text in texts]
    together = [None] * len(texts)

    def say(i):
        together[i] = speech.speak(texts[i])[0]

    threads = [threading.Thread(target=say, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_settings_are_heard():
    def say(**settings):
        return speech.speak("turn on the light", Voice(**settings))[0]

    assert len(say(rate=250)) < 0.85 * len(say(rate=150))
    assert np.sqrt(np.mean(say(volume=40) ** 2)) < 0.6 * np.sqrt(np.mean(say(volume=100) ** 2))
    assert not np.array_equal(say(pitch=20), say(pitch=80))
    assert not np.array_equal(say(pitch_range=10), say(pitch_range=90))


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        (Voice("en-us+nobody"), r"voice 'en-us\+nobody': no variant 'nobody'; there are \d+: .*m3"),
        (Voice("zz"), "voice 'zz': eSpeak NG has no such language"),
        (Voice(rate=1000), r"rate is 1000, must lie in 80\.\.450"),
        (Voice(pitch=-1), r"pitch is -1, must lie in 0\.\.100"),
    ],
)
def test_wrong_voice(voice, message):
    with pytest.raises(ValueError, match=message):
        speech.speak("hello", voice)


def test_the_preparer_reads_it(twin, tmp_path):
    made = corpus.prepare(str(twin), str(tmp_path))
    asked = json.loads((twin / "synthetic.json").read_text())["utterances"]
    assert {split: counts["utterances"] for split, counts in made.counts.items()} == asked
    assert not made.complete and not made.skipped
    for path in made.manifests.values():
        seconds = [u.duration for u in manifest.read(path)]
        assert 0.6 < min(seconds) and max(seconds) < 6 and 1.2 < sum(seconds) / len(seconds) < 3


def speakers_table(folder):
    rows = csv.reader((line for line in (folder / "SPEAKERS.TXT").read_text().splitlines() if not line.startswith(";")), delimiter="|")
    return [[cell.strip() for cell in row] for row in rows]


def test_speakers_table(twin):
    rows = speakers_table(twin)
    folders = {path.name: path.parent.name for split in twin.iterdir() if split.is_dir() for path in split.iterdir()}
    assert {row[0]: row[2] for row in rows} == folders
    assert {row[1] for row in rows} == {"F", "M"}


def test_dev_and_test_voices_are_unseen(twin):
    voices = {}
    for _, _, split, _, name in speakers_table(twin):
        voices.setdefault(split, set()).add(name)
    assert len(voices["train-clean-100"]) >= 40
    splits = ("dev-clean", "dev-other", "test-clean", "test-other")
    assert all(len(voices[split]) >= 4 and not voices[split] & voices["train-clean-100"] for split in splits)
    assert not voices["test-clean"] & voices["test-other"]


@pytest.mark.parametrize("seed", [0, 1234])
def test_sentences(seed):
    lines = librispeech.SCRIPT.lines
    said = {split: [line.text for line in lines(seed, split, number)] for split, number in librispeech.UTTERANCES.items()}
    train = set(said["train-clean-100"])
    words = {word for text in train for word in text.split()}
    assert len(words) >= 40 and len(train) > 500
    for split, texts in said.items():
        assert all(3 <= len(text.split()) <= 7 for text in texts)
        assert {word for text in texts for word in text.split()} <= words
        assert split.startswith("train") or not train & set(texts)


def test_every_variant_exists():
    used = [variant for split in librispeech.SPLITS.values() for variant in split.variants]
    assert set(used) <= set(speech.variants()) and reading.FEMALE <= set(speech.variants())


def snr(samples):
    """Rough: loudest against quietest 20 ms, in dB."""
    power = np.square(samples[: len(samples) // 320 * 320].reshape(-1, 320)).mean(1)
    return 10 * np.log10(np.quantile(power, 0.95) / np.quantile(power, 0.02))


def test_other_is_noisier_and_faster():
    def measure(split):
        said = librispeech.SCRIPT.lines(3, split, 24)
        rendered = [reading.render(line) for line in said]
        return np.mean([snr(wav) for wav in rendered]), sum(map(len, rendered)) / sum(len(line.text) for line in said)

    (clean_snr, clean_pace), (other_snr, other_pace) = measure("test-clean"), measure("test-other")
    assert clean_snr > other_snr + 5 and clean_pace > 1.1 * other_pace

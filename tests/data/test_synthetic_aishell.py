"""The AISHELL-1 twin: the corpus's layout, unseen sentences and voices where promised, and characters that are all told by ear."""

import csv

import numpy as np
import pytest
import soundfile

from spikebrain.data import manifest, tokens
from spikebrain.data.corpora import aishell as corpus
from spikebrain.data.synthetic import aishell, reading, speech
from spikebrain.data.tokens import TokenizerSettings

pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")

NUMBERS = {"train": 94, "dev": 12, "test": 20}


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """Every training voice twice."""
    return aishell.make(tmp_path_factory.mktemp("twin") / "AISHELL", 5, NUMBERS)


def said(seed):
    return {split: [line.text for line in aishell.SCRIPT.lines(seed, split, number)] for split, number in aishell.UTTERANCES.items()}


def test_layout(twin):
    lines = [line.split() for line in (twin / "transcript" / "aishell_transcript_v0.8.txt").read_text(encoding="utf-8").splitlines()]
    recordings = {path.stem: path for path in twin.glob("wav/*/S????/*.wav")}
    assert [name for name, *_ in lines] == sorted(recordings) and len(recordings) == sum(NUMBERS.values())
    assert all(len(words) > 1 for _, *words in lines)
    assert all(path.parent.name in name for name, path in recordings.items())
    info = soundfile.info(recordings["BAC009S0002W0121"])
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")


def test_the_preparer_reads_it(twin, tmp_path):
    made = corpus.prepare(str(twin), str(tmp_path))
    assert {split: counts["utterances"] for split, counts in made.counts.items()} == NUMBERS and not made.skipped
    for split, path in made.manifests.items():
        found = manifest.read(path)
        expected = {line.id: "".join(line.text.split()) for line in aishell.SCRIPT.lines(5, split, NUMBERS[split])}
        assert {u.id: u.text for u in found} == expected
        seconds = [u.duration for u in found]
        assert 0.8 < min(seconds) and max(seconds) < 5 and 1.5 < sum(seconds) / len(seconds) < 2.6
    tokenizer = tokens.train([made.manifests["train"]], str(tmp_path / "t.model"), TokenizerSettings(4233, "char"))
    assert len(tokenizer) == len({character for u in manifest.read(made.manifests["train"]) for character in u.text}) + 3


def test_speakers(twin):
    with open(twin / "resource_aishell" / "speaker.info", newline="") as file:
        rows = dict(csv.reader(file, delimiter=" "))
    assert {f"S{number}" for number in rows} == {path.name for path in twin.glob("wav/*/S????")} and set(rows.values()) == {"F", "M"}
    voices = {split: set(spec.variants) for split, spec in aishell.SPLITS.items()}
    assert set().union(*voices.values()) <= set(speech.variants())
    assert sum(map(len, voices.values())) == len(set().union(*voices.values()))
    firsts = [range(spec.first, spec.first + len(spec.variants)) for spec in aishell.SPLITS.values()]
    assert len({number for numbers in firsts for number in numbers}) == sum(map(len, firsts))


@pytest.mark.parametrize("seed", [0, 1234])
def test_sentences(seed):
    texts = said(seed)
    train = set(texts["train"])
    characters = {character for text in train for character in text} - {" "}
    assert 60 <= len(characters) <= 100 and len(train) > 500
    for split, sentences in texts.items():
        assert all(5 <= len(text.replace(" ", "")) <= 10 for text in sentences)
        assert {character for text in sentences for character in text} - {" "} <= characters
        assert split == "train" or not train & set(sentences)


def test_no_two_characters_sound_alike():
    characters = sorted({character for text in said(1234)["train"] for character in text} - {" "})
    sounds = {speech.speak(character, speech.Voice("cmn"))[0].tobytes() for character in characters}
    assert len(sounds) == len(characters)
    # What is compared can be equal: "seven" and "period" are homophones, and so 期 is no character of the grammar.
    assert speech.speak("七", speech.Voice("cmn"))[0].tobytes() == speech.speak("期", speech.Voice("cmn"))[0].tobytes()


def test_characters_are_spoken_and_not_spelt():
    voice = speech.Voice("cmn")
    seconds = [len(speech.speak("打开厨房的灯" * times, voice)[0]) / 22050 for times in (1, 2, 3)]
    assert all(0.15 < second / (6 * times) < 0.3 for times, second in enumerate(seconds, 1))


def test_pace_follows_the_number_of_characters():
    lines = aishell.SCRIPT.lines(3, "test", 30)
    lengths = [len(reading.render(line)) for line in lines]
    assert np.corrcoef(lengths, [len(line.text.replace(" ", "")) for line in lines])[0, 1] > 0.6

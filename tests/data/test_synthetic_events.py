"""The twins of SHD and SSC: the corpora's layout and types, and speakers where they belong."""

import os
import sys

import h5py
import numpy as np
import pytest

from spikebrain.data import manifest
from spikebrain.data.corpora import gsc as gsc_corpus
from spikebrain.data.corpora import shd as shd_corpus
from spikebrain.data.corpora import ssc as ssc_corpus
from spikebrain.data.events import COLUMNS, ReadEvents
from spikebrain.data.synthetic import event_file, gsc, shd, ssc

pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")

SEED = 5
NUMBERS = {"shd": {"train": 20, "test": 20}, "ssc": {"valid": 1}}


@pytest.fixture(scope="module")
def shd_twin(tmp_path_factory):
    """Every digit once in both files."""
    return shd.make(tmp_path_factory.mktemp("twin") / "SHD", SEED, NUMBERS["shd"])


@pytest.fixture(scope="module")
def ssc_twin(tmp_path_factory):
    """One clip of every word, in one split."""
    return ssc.make(tmp_path_factory.mktemp("twin") / "SSC", SEED, NUMBERS["ssc"])


def test_shd_has_the_layout_and_types_of_the_corpus(shd_twin):
    assert sorted(os.listdir(shd_twin)) == ["shd_test.h5", "shd_train.h5", "synthetic.json"]
    with h5py.File(shd_twin / "shd_train.h5") as file:
        assert file["spikes/times"][0].dtype == np.float16 and file["spikes/units"][0].dtype == np.uint16
        assert len(file["spikes/times"]) == len(file["spikes/units"]) == len(file["labels"]) == len(file["extra/speaker"]) == 20
        assert [key.decode() for key in file["extra/keys"]] == list(shd.KEYS) and len(shd.KEYS) == 20
        assert all(len(file[f"extra/meta_info/{name}"]) == 12 for name in ("gender", "age", "body_height"))
        assert {len(times) for times in file["spikes/times"]} != {len(file["spikes/times"][0])}


def test_the_preparer_reads_shd(shd_twin, tmp_path):
    done = shd_corpus.prepare(str(shd_twin), str(tmp_path))
    rows = {split: manifest.read(path, COLUMNS) for split, path in done.manifests.items()}
    assert not done.skipped and len(rows["train"]) + len(rows["valid"]) == 20 and len(rows["test"]) == 20
    for row in (row for found in rows.values() for row in found):
        assert 0.1 < row.duration < 1.5 and 1000 < row.events < 20000
    mean = np.mean([row.events for found in rows.values() for row in found])
    assert 3000 < mean < 12000
    first = rows["train"][0]
    frames = ReadEvents(10)(str(shd_twin / first.wav))
    assert frames.sum() == first.events and len(frames) == int(np.ceil(first.duration * 100))


def test_shd_speakers_are_where_they_belong():
    train, test = (shd.digits(7, split, number) for split, number in shd.UTTERANCES.items())
    trained = {digit.speaker for digit in train}
    assert len(trained) == 10 and not trained & set(shd.TEST_ONLY)
    assert {digit.speaker for digit in test} == set(range(12))
    assert np.mean([digit.speaker in shd.TEST_ONLY for digit in test]) == 0.8
    for said in (train, test):
        assert {digit.label for digit in said} == set(range(20))
        assert all(digit.voice.name.startswith("de+" if digit.label >= 10 else "en+") for digit in said)
        assert all(digit.voice.name.endswith("+" + shd.SPEAKERS[digit.speaker][0]) for digit in said)
    held_out = shd_corpus.validation_speaker([str(digit.speaker) for digit in train])
    valid = {digit.label for digit in train if str(digit.speaker) == held_out}
    assert valid == set(range(20)) and sum(str(digit.speaker) == held_out for digit in train) == 120


def test_a_digit_is_not_said_twice_alike():
    said = [digit for digit in shd.digits(7, "train", 1200) if (digit.label, digit.speaker) == (14, 3)]
    assert len({digit.voice for digit in said}) == len(said) == 6
    first, second = (event_file.spikes(shd.render(digit)) for digit in said[:2])
    assert len(first[0]) != len(second[0])


def test_ssc_has_the_words_and_voices_of_speech_commands(ssc_twin, tmp_path):
    assert set(ssc.KEYS) == set(gsc_corpus.WORDS) and len(ssc.KEYS) == 35
    done = ssc_corpus.prepare(str(ssc_twin), str(tmp_path))
    rows = manifest.read(done.manifests["valid"], COLUMNS)
    assert not done.skipped and len(rows) == 35 and {row.label for row in rows} == set(ssc.KEYS)
    assert len(ssc.VOICES) == len(set(ssc.VOICES)) and {ssc.VOICES[int(row.speaker)] for row in rows} == set(gsc.VOICES["valid"])
    assert all(row.duration <= 1 and 1000 < row.events < 30000 for row in rows)
    with h5py.File(ssc_twin / "ssc_valid.h5") as file:
        assert file["spikes/times"][0].dtype == np.float16 and "meta_info" not in file["extra"]
        names, labels = [key.decode() for key in file["extra/keys"]], file["labels"][:]
    assert [names[label] for label in labels] == [row.label for row in rows] and labels.tolist() != sorted(labels)


def test_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install spikebrain\[spikes\]"):
        shd.make(tmp_path / "twin", 7, {"test": 2})
    assert not list(tmp_path.iterdir())

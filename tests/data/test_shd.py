"""The SHD preparer: its two protocols, who is held out, and one planted fault after another."""

import logging
import re
from collections import Counter
from functools import partial

import fake_events as fake
import h5py
import numpy as np
import preparing
import pytest

from spikebrain.data import manifest
from spikebrain.data.corpora import shd
from spikebrain.data.events import COLUMNS, SHORTEST, ReadEvents
from spikebrain.data.manifest import CLASS_COLUMNS, DataError
from spikebrain.data.preparation import Published

prepare = partial(preparing.prepare, shd)
refusal = partial(preparing.refusal, shd)
left_out = partial(preparing.left_out, shd)
manifests = partial(preparing.manifests, shd)


@pytest.fixture
def folder(tmp_path):
    """A sound SHD folder."""
    return fake.make_shd(tmp_path / "SHD")


def test_held_out_protocol(folder, tmp_path):
    done = prepare(folder, tmp_path)
    rows = manifests(done)
    assert list(rows) == ["train", "valid", "test"] and [len(found) for found in rows.values()] == [80, 20, 40]
    speakers = {split: {row.speaker for row in found} for split, found in rows.items()}
    assert len(speakers["valid"]) == 1 and not speakers["valid"] & speakers["train"]
    assert speakers["train"] | speakers["valid"] == {"0", "1", "2", "3", "6"}
    assert speakers["test"] == {"0", "4", "5", "6"}
    wavs = [row.wav for found in rows.values() for row in found]
    assert len(set(wavs)) == 140
    assert done.settings == {"protocol": "heldout", "validation": "one speaker of the training file"}
    assert done.summary()["settings"] == done.settings


def test_a_row_of_the_manifest(folder, tmp_path):
    first = manifest.read(prepare(folder, tmp_path).manifests["test"], COLUMNS)[1]
    times, _ = fake.recording(1)
    assert (first.id, first.wav, first.speaker, first.label) == ("shd_test-00001", "shd_test.h5#1", "4", "one")
    assert first.events == len(times) and first.duration == float(times[-1]) - float(times[0])
    assert ReadEvents(10)(str(folder / first.wav)).sum() == first.events


def test_the_manifest_is_one_of_a_classification_corpus(folder, tmp_path):
    rows = manifest.read(prepare(folder, tmp_path).manifests["valid"], CLASS_COLUMNS)
    assert {row.label for row in rows} == set(fake.SHD_KEYS)


def test_paper_protocol_is_labelled_and_warned_of(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        done = prepare(folder, tmp_path, protocol="paper")
    assert done.settings == {"protocol": "paper", "validation": "the test set"}
    assert any("validation is the test set" in record.getMessage() for record in caplog.records)
    rows = manifests(done)
    assert rows["valid"] == rows["test"] == shd.read(str(folder), "valid", protocol="paper") and done.counts["train"]["utterances"] == 100


def test_held_out_says_nothing_of_the_test_set(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare(folder, tmp_path)
    assert not any("validation is the test set" in record.getMessage() for record in caplog.records)


def test_protocols_do_not_share_notes(folder, tmp_path):
    assert prepare(folder, tmp_path).counts["valid"]["utterances"] == 20
    assert prepare(folder, tmp_path, protocol="paper").counts["valid"]["utterances"] == 40
    assert prepare(folder, tmp_path) == prepare(folder, tmp_path)


def test_unknown_protocol(folder, tmp_path):
    assert refusal(folder, tmp_path, protocol="test") == "protocol 'test' is none of heldout, paper"


@pytest.mark.parametrize(
    ("counts", "speaker"),
    [
        ({"0": 80, "1": 11, "2": 9}, "1"),  # both are one off a tenth: the lower number
        ({"0": 80, "2": 9, "1": 11}, "1"),
        ({"0": 60, "10": 12, "9": 8, "3": 20}, "9"),
        ({"0": 500, "1": 400}, "1"),
    ],
)
def test_who_is_held_out(counts, speaker):
    assert shd.validation_speaker([name for name, number in counts.items() for _ in range(number)]) == speaker


def test_one_speaker_cannot_be_held_out(folder, tmp_path):
    fake.plain(folder / "shd_train.h5", 20, (7,))
    assert "shd_train.h5: has recordings of 1 speaker, held-out validation needs 2" in refusal(folder, tmp_path)
    assert prepare(folder, tmp_path, protocol="paper").counts["train"]["speakers"] == 1


def test_counts_are_compared_with_the_files(folder, tmp_path, monkeypatch):
    done = prepare(folder, tmp_path)
    assert not done.complete
    assert done.differences[0].startswith("train + valid has 100 utterances (published: 8156)")
    assert done.differences[1].startswith("test has 40 utterances (published: 2264)")
    monkeypatch.setitem(shd.PUBLISHED, "shd_train.h5", Published(100, speakers=5))
    monkeypatch.setitem(shd.PUBLISHED, "shd_test.h5", Published(40, speakers=4))
    for protocol in ("heldout", "paper"):
        done = shd.prepare(str(folder), str(tmp_path / "other" / protocol), protocol=protocol, strict_counts=True)
        assert done.complete and done.differences == ()


def test_a_class_without_a_recording_is_told(folder, tmp_path):
    with h5py.File(folder / "shd_test.h5", "r+") as file:
        labels = file["labels"][:]
        labels[np.isin(labels, (7, 14))] = 3
        file["labels"][:] = labels
    done = prepare(folder, tmp_path)
    assert "test has no recording of 2 of 20 classes: seven, vier" in done.differences and not done.complete
    with pytest.raises(DataError, match="test has no recording of 2 of 20 classes: seven, vier"):
        prepare(folder, tmp_path, strict_counts=True)


def test_every_split_is_optional(folder, tmp_path):
    assert list(prepare(folder, tmp_path, splits=["test"]).manifests) == ["test"]
    (folder / "shd_train.h5").unlink()
    assert list(prepare(folder, tmp_path).manifests) == ["test"]
    assert list(prepare(folder, tmp_path, protocol="paper").manifests) == ["valid", "test"]


def test_missing_file(folder, tmp_path):
    (folder / "shd_test.h5").unlink()
    with pytest.raises(DataError, match=r"split 'test' is not there; there are 2 of 3: train, valid(.|\n)*shd_test\.h5"):
        prepare(folder, tmp_path, splits=["train", "test"])


# What is planted in row 13 of the training file: times, units, label, and what is said (other faults: test_events.py).
ROW_FAULTS = {
    "empty": ([], [], None, "holds 0 spikes"),
    "unit": ([0.1, 0.5], [1, 700], None, r"spike 1 of 2 is of unit 700, units are 0\.\.699"),
    "label": (None, None, 20, r"has label 20, there are 20 classes, 0\.\.19"),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
def test_a_bad_recording_is_named_or_left_out(folder, tmp_path, fault):
    times, units, label, message = ROW_FAULTS[fault]
    as_array = lambda values, kind: None if values is None else np.array(values, kind)  # noqa: E731
    fake.replace_row(folder / "shd_train.h5", 13, as_array(times, np.float16), as_array(units, np.uint16), label)
    said = refusal(folder, tmp_path)
    assert re.match(rf"shd_train\.h5#13: {message}.* or pass --skip_bad_audio=True to leave it out", said), said
    done, kept = left_out(folder, tmp_path)
    assert [(item.id, item.path) for item in done.skipped] == [("shd_train-00013", "shd_train.h5#13")]
    assert len(kept["train"]) + len(kept["valid"]) == 99
    assert "shd_train.h5#14" in {row.wav for split in ("train", "valid") for row in kept[split]}


def test_one_spike_is_a_recording_of_a_millisecond(folder, tmp_path):
    fake.replace_row(folder / "shd_test.h5", 5, np.array([0.5], np.float16), np.array([3], np.uint16))
    row = manifest.read(prepare(folder, tmp_path).manifests["test"], COLUMNS)[5]
    assert (row.events, row.duration) == (1, SHORTEST)
    assert ReadEvents(2)(str(folder / row.wav)).shape == (1, 140)


def truncate(folder):
    path = folder / "shd_train.h5"
    path.write_bytes(path.read_bytes()[:-500])


def remove(name):
    def plant(folder):
        with h5py.File(folder / "shd_train.h5", "r+") as file:
            del file[name]

    return plant


def replace(name, values):
    def plant(folder):
        remove(name)(folder)
        with h5py.File(folder / "shd_train.h5", "r+") as file:
            file[name] = values

    return plant


FILE_FAULTS = {
    "truncated": (truncate, r"cannot be read as HDF5 \(.*truncated.*; \d+ bytes\): unpack or fetch the file again"),
    "empty file": (lambda folder: (folder / "shd_train.h5").write_bytes(b""), r"cannot be read as HDF5 \(.*; 0 bytes\)"),
    "packed": (lambda folder: (folder / "shd_train.h5").write_bytes(b"\x1f\x8b" + bytes(900)), r"cannot be read as HDF5.*902 bytes"),
    "no times": (remove("spikes/times"), "has no dataset spikes/times; there is: .*spikes/units.*: fetch the file again"),
    "no labels": (remove("labels"), "has no dataset labels"),
    "no speakers": (remove("extra/speaker"), "has no dataset extra/speaker"),
    "no keys": (remove("extra/keys"), "has no dataset extra/keys"),
    "few labels": (replace("labels", [1, 2, 3]), r"different length \(spikes/times 100, spikes/units 100, labels 3, extra/speaker 100\)"),
    "few keys": (replace("extra/keys", [b"zero", b"one"]), "extra/keys holds 2 different names, there are 20 classes"),
    "double keys": (replace("extra/keys", [b"zero"] * 20), "extra/keys holds 1 different names, there are 20 classes"),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_file_of_no_use_is_named(folder, tmp_path, fault):
    plant, message = FILE_FAULTS[fault]
    plant(folder)
    for options in ({}, {"skip_bad_audio": True}):
        said = refusal(folder, tmp_path, **options)
        assert re.search(rf"shd_train\.h5: .*{message}", said), said


def test_files_of_tests_are_what_they_say(folder):
    with h5py.File(folder / "shd_train.h5") as file:
        assert file["spikes/times"][3].dtype == np.float16 and file["spikes/units"][3].dtype == np.uint16
        pairs = Counter(zip(file["labels"][:].tolist(), file["extra/speaker"][:].tolist(), strict=True))
    assert len(pairs) == 100 and set(pairs.values()) == {1}

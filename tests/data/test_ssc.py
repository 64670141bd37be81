"""The SSC preparer: three files, three splits."""

import re
from functools import partial

import fake_events as fake
import numpy as np
import preparing
import pytest

from spikebrain.data.corpora import ssc
from spikebrain.data.manifest import DataError
from spikebrain.data.preparation import Published

prepare = partial(preparing.prepare, ssc)
refusal = partial(preparing.refusal, ssc)
manifests = partial(preparing.manifests, ssc)


@pytest.fixture
def folder(tmp_path):
    """A sound SSC folder."""
    return fake.make_ssc(tmp_path / "SSC")


def test_splits_are_files(folder, tmp_path):
    done = prepare(folder, tmp_path)
    rows = manifests(done)
    assert {split: len(found) for split, found in rows.items()} == {"train": 70, "valid": 35, "test": 35}
    assert all({row.label for row in found} == set(fake.SSC_KEYS) for found in rows.values())
    assert all(row.wav == f"ssc_{split}.h5#{number}" for split, found in rows.items() for number, row in enumerate(found))
    assert rows["test"] == ssc.read(str(folder), "test")
    assert "valid has 35 utterances (published: 9981)" in " ".join(done.differences)


def test_published_counts_make_it_complete(folder, tmp_path, monkeypatch):
    for split, number in (("train", 70), ("valid", 35), ("test", 35)):
        monkeypatch.setitem(ssc.PUBLISHED, split, Published(number))
    assert prepare(folder, tmp_path, strict_counts=True).complete


def test_a_class_without_a_recording_is_told(folder, tmp_path):
    fake.replace_row(folder / "ssc_valid.h5", 11, label=3)
    assert "valid has no recording of 1 of 35 classes: word11" in prepare(folder, tmp_path).differences


def test_a_bad_recording_is_named(folder, tmp_path):
    fake.replace_row(folder / "ssc_test.h5", 34, units=np.array([1], np.uint16))
    assert re.match(r"ssc_test\.h5#34: has \d+ times but 1 units", refusal(folder, tmp_path))


def test_missing_file(folder, tmp_path):
    (folder / "ssc_valid.h5").unlink()
    assert list(prepare(folder, tmp_path).manifests) == ["train", "test"]
    with pytest.raises(DataError, match=r"split 'valid' is not there(.|\n)*ssc_valid\.h5"):
        prepare(folder, tmp_path, splits=["valid"])

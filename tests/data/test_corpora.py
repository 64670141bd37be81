"""What holds for the preparer of every corpus."""

import os
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import fake_aishell
import fake_casia
import fake_emodb
import fake_emovo
import fake_events
import fake_gsc
import fake_iemocap
import fake_librispeech
import fake_urdu
import fake_voxceleb
import pytest
from preparing import manifests

from spikebrain.data import corpora, preparation
from spikebrain.data.corpora import aishell, casia, emodb, emovo, gsc, iemocap, librispeech, shd, ssc, urdu, voxceleb
from spikebrain.data.manifest import DataError


@dataclass(frozen=True)
class Case:
    """A preparer, what writes a sound folder for it, and one of the folder's files."""

    corpus: ModuleType
    make: Callable
    file: str

    @property
    def name(self):
        return self.corpus.CORPUS.name


CASES = {
    "aishell": Case(aishell, fake_aishell.make_tree, "wav/train/S0002/BAC009S0002W0122.wav"),
    "casia": Case(casia, fake_casia.make_tree, "liuchanhg/angry/201.wav"),
    "emodb": Case(emodb, fake_emodb.make_tree, "wav/03a01Aa.wav"),
    "emovo": Case(emovo, fake_emovo.make_tree, "f1/dis-f1-b1.wav"),
    "gsc": Case(gsc, fake_gsc.make_tree, "yes/2c6d3924_nohash_0.wav"),
    "iemocap": Case(iemocap, fake_iemocap.make_tree, "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"),
    "librispeech": Case(librispeech, fake_librispeech.make_tree, "train-clean-100/100/7/100-7-0000.flac"),
    "shd": Case(shd, fake_events.make_shd, "shd_train.h5"),
    "ssc": Case(ssc, fake_events.make_ssc, "ssc_train.h5"),
    "urdu": Case(urdu, fake_urdu.make_tree, "Angry/SM1_F1_A01.wav"),
    "voxceleb": Case(voxceleb, fake_voxceleb.make_tree, "wav/id10001/1zcIwhmdeo4/00001.wav"),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def folder(case, tmp_path):
    return case.make(tmp_path / case.name)


@pytest.fixture
def prepare(case, folder, tmp_path):
    """The preparer, on the sound folder where no other is given."""
    return lambda where=folder, **options: case.corpus.prepare(str(where), str(tmp_path / "save"), **options)


def test_every_corpus_is_here():
    assert sorted(CASES) == [module.name for module in pkgutil.iter_modules(corpora.__path__)]


def test_read_gives_what_prepare_writes(case, folder, prepare):
    done = prepare()
    assert not done.skipped
    written = manifests(case.corpus, done)
    assert written == {split: case.corpus.read(str(folder), split) for split in written}
    assert done.counts == {split: preparation.count(rows) for split, rows in written.items()}
    assert str(folder) not in str(done.summary())


def test_does_nothing_twice(case, folder, prepare, monkeypatch):
    first, looked, examine = prepare(), [], preparation.examine
    monkeypatch.setattr(
        preparation, "examine", lambda corpus, place, split, *rest: looked.append(split) or examine(corpus, place, split, *rest)
    )
    assert prepare() == first and not looked
    os.utime(folder / case.file, ns=(1, 1))
    assert prepare() == first and looked == list(first.manifests)


def test_notices_a_damaged_manifest(prepare):
    path = next(iter(prepare().manifests.values()))
    with open(path) as file:
        content = file.read()
    with open(path, "w") as file:
        file.write(content[:100])
    prepare()
    with open(path) as file:
        assert file.read() == content


def test_a_moved_folder_has_the_same_hash(folder, prepare, tmp_path):
    first = prepare().data_hash
    assert prepare(folder.rename(tmp_path / "elsewhere")).data_hash == first


def test_counts_that_are_not_the_published_ones_are_told(prepare, caplog):
    done = prepare()
    assert not done.complete and done.differences
    assert len([r for r in caplog.records if "differs from its published counts" in r.getMessage()]) == 1
    with pytest.raises(DataError, match=f"{re.escape('; '.join(done.differences))}.*--strict_counts=False"):
        prepare(strict_counts=True)


@pytest.mark.parametrize("given", [None, "", "nowhere", "empty"])
def test_wrong_folder(case, tmp_path, given):
    (tmp_path / "empty").mkdir()
    where = given and str(tmp_path / given)
    with pytest.raises(DataError) as error:
        case.corpus.prepare(where, str(tmp_path / "save"))
    message = str(error.value)
    assert f"data_folder: {where!r} is not a folder" in message or f"{where} holds none of the splits of {case.name}" in message
    assert f"--data_folder=/path/to/{case.name}" in message and "--data_folder=synthetic" in message
    assert case.corpus.LAYOUT in message


def test_folder_one_level_off(folder, prepare):
    with pytest.raises(DataError, match=rf"Did you mean {re.escape(str(folder))}\?"):
        prepare(folder.parent)


def test_missing_split(case, prepare):
    there, published = list(prepare().manifests), case.corpus.CORPUS.published
    with pytest.raises(DataError) as error:
        prepare(splits=[there[0], "nowhere"])
    assert f"split 'nowhere' is not there; there are {len(there)} of {len(published)}: {', '.join(there)}. " in str(error.value)

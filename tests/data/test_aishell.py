"""The AISHELL-1 preparer: what it writes, archives that are not unpacked, and one planted fault after another."""

import io
import logging
import re
import shutil
import tarfile
from functools import partial

import fake_aishell as fake
import fake_librispeech
import preparing
import pytest
import soundfile
from preparing import truncate

from spikebrain.data import manifest, preparation
from spikebrain.data.corpora import aishell
from spikebrain.data.manifest import DataError
from spikebrain.data.preparation import Published

prepare = partial(preparing.prepare, aishell)
refusal = partial(preparing.refusal, aishell)
left_out = partial(preparing.left_out, aishell)

FIRST = "BAC009S0002W0122"


@pytest.fixture
def tree(tmp_path):
    """Three splits of two speakers with three utterances each."""
    return fake.make_tree(tmp_path / "data_aishell")


def first_audio(tree):
    return tree / "wav" / "train" / "S0002" / f"{FIRST}.wav"


def change(tree, old, new):
    path = tree / fake.TRANSCRIPT
    path.write_bytes(path.read_bytes().replace(old.encode(), new if isinstance(new, bytes) else new.encode()))


def append(line):
    def plant(tree):
        with open(tree / fake.TRANSCRIPT, "ab") as file:
            file.write(line)

    return plant


def test_reads_the_layout(tree):
    utterances = aishell.read(str(tree), "dev")
    assert [u.id for u in utterances] == [f"BAC009S{s:04d}W{n:04d}" for s in (724, 725) for n in (122, 123, 124)]
    first = utterances[0]
    assert (first.wav, first.duration, first.speaker) == ("wav/dev/S0724/BAC009S0724W0122.wav", 1.0, "S0724")
    assert first.text == fake.WORDS[724 % 5].replace(" ", "") and " " not in first.text


def test_writes_manifests_and_counts(tree, tmp_path):
    done = prepare(tree, tmp_path)
    assert list(done.manifests) == ["train", "dev", "test"] and not done.skipped
    assert "train has 6 utterances (published: 120098), 0.00 h (none), 2 speakers (340)" in done.differences
    assert list(prepare(tree, tmp_path, splits=["test"]).manifests) == ["test"]


def test_published_counts(tree, tmp_path, monkeypatch):
    assert sum(split.utterances for split in aishell.PUBLISHED.values()) == 141600
    assert sum(split.speakers for split in aishell.PUBLISHED.values()) == 400
    monkeypatch.setitem(aishell.PUBLISHED, "dev", Published(6, None, 2))
    assert prepare(tree, tmp_path, splits=["dev"], strict_counts=True).complete


def test_every_split_is_optional_and_one_transcript_is_for_all(tree, tmp_path):
    shutil.rmtree(tree / "wav" / "train")
    done = prepare(tree, tmp_path)
    assert list(done.manifests) == ["dev", "test"] and not done.skipped
    before = done.data_hash
    change(tree, fake.WORDS[724 % 5], "四 五")
    assert prepare(tree, tmp_path).data_hash != before


def test_recordings_without_transcript_are_counted_and_left_out(tree, tmp_path, caplog):
    change(tree, FIRST, "BAC009S0999W0122")
    with caplog.at_level(logging.WARNING):
        done = prepare(tree, tmp_path)
    assert done.counts["train"]["utterances"] == 5 and not done.skipped
    assert f"AISHELL-1 train: left out 1 recordings without a transcript, the first is {FIRST}" in caplog.text
    assert "AISHELL-1 dev" not in caplog.text


@pytest.mark.parametrize("given", ["..", "wav", "wav/train"])
def test_folder_beside_the_right_one(tree, tmp_path, given):
    with pytest.raises(DataError, match=rf"holds no folder wav\. Did you mean {re.escape(str(tree))}\?"):
        prepare((tree / given).resolve(), tmp_path)


def test_without_transcript(tree, tmp_path):
    (tree / fake.TRANSCRIPT).unlink()
    assert f"{tree}/{fake.TRANSCRIPT}: there is no such file: restore it" in refusal(tree, tmp_path)


def test_without_split(tree, tmp_path):
    shutil.rmtree(tree / "wav")
    (tree / "wav").mkdir()
    with pytest.raises(DataError) as error:
        prepare(tree, tmp_path)
    assert "holds none of the splits of AISHELL-1" in str(error.value) and aishell.LAYOUT in str(error.value)


def plant_wrong_rate(tree):
    soundfile.write(first_audio(tree), fake_librispeech.tone(1.0, rate=8000), 8000)


def plant_duplicate_audio(tree):
    (first_audio(tree).parent / "again").mkdir()
    shutil.copy(first_audio(tree), first_audio(tree).parent / "again")


def plant_in_two_splits(tree):
    shutil.copytree(first_audio(tree).parent, tree / "wav" / "dev" / "S0002")


def plant_wrong_folder(tree):
    first_audio(tree).rename(tree / "wav" / "train" / "S0003" / f"{FIRST}.wav")


def plant_wrong_name(tree):
    first_audio(tree).rename(first_audio(tree).with_name("a.wav"))


AUDIO, TEXT = rf"wav/train/S0002/{FIRST}\.wav: ", r"transcript/aishell_transcript_v0\.8\.txt"
MISSING = rf"transcribes {FIRST}, but there is no {FIRST}\.wav in wav/train/S0002"
NEXT = b"BAC009S0002W0125"
FAULTS = {
    "missing audio": (lambda tree: first_audio(tree).unlink(), TEXT + ":1: " + MISSING),
    "truncated": (lambda tree: truncate(first_audio(tree), 0.6), AUDIO + r"is truncated"),
    "no audio": (lambda tree: first_audio(tree).write_bytes(b"no sound"), AUDIO),
    "wrong rate": (plant_wrong_rate, AUDIO + r"has a sample rate of 8000 Hz, expected 16000 Hz"),
    "duplicate audio": (plant_duplicate_audio, rf"again/{FIRST}\.wav: has the id of wav/train/S0002/{FIRST}\.wav.*2 files"),
    "wrong folder": (plant_wrong_folder, rf"S0003/{FIRST}\.wav: lies in the folder S0003, expected S0002"),
    "wrong name": (plant_wrong_name, r"S0002/a\.wav: is called otherwise than BAC009S\?\?\?\?W\?\?\?\?"),
    "duplicate line": (append(f"{FIRST} 一\n".encode()), TEXT + rf":19: is the 2nd transcript of {FIRST}, the 1st is {TEXT}:1:"),
    "empty transcript": (append(NEXT + b"\n"), TEXT + r":19: BAC009S0002W0125 has an empty transcript \(0 words\)"),
    "malformed line": (append("打开 厨房\n".encode()), TEXT + r":19: begins with '打开', expected BAC009S\?\?\?\?W\?\?\?\?"),
    "not utf-8": (lambda tree: change(tree, "打开 厨房", "打开 厨房".encode("gbk")), TEXT + r":\d+: is not UTF-8 text \(byte 17 of \d+\)"),
    "speaker without lines": (lambda tree: change(tree, "S0002", "S0009"), "wav/train/S0002: has 3 recordings and none of them a line"),
    "speaker in two splits": (plant_in_two_splits, r"wav/train/S0002: is in wav/dev too: a speaker is of 1 split, remove one of the 2"),
}

# Utterances of train that are left, of 6; 5 where nothing is said.
KEPT = {"empty transcript": 6, "malformed line": 6, "not utf-8": 5, "speaker without lines": 3, "speaker in two splits": 3}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_or_left_out(tree, tmp_path, fault):
    plant, message = FAULTS[fault]
    plant(tree)
    said = refusal(tree, tmp_path)
    assert re.search(message, said) and "or pass --skip_bad_audio=True to leave it out" in said, said
    done, kept = left_out(tree, tmp_path)
    assert len(kept["train"]) == KEPT.get(fault, 5)
    assert len(set(done.skipped)) == len(done.skipped)


def test_a_fault_is_of_its_own_split(tree, tmp_path):
    append(b"BAC009S0724W0122 \xff\n")(tree)
    assert not prepare(tree, tmp_path, splits=["train"]).skipped
    with pytest.raises(DataError, match="2nd transcript of BAC009S0724W0122"):
        prepare(tree, tmp_path, splits=["dev"])


def test_archives_that_are_not_unpacked(tree, tmp_path):
    fake.pack(tree, "train", "S0003")
    fake.pack(tree, "test", "S0764")
    said = refusal(tree, tmp_path)
    assert (
        f"{tree}/wav: holds 2 archives S????.tar.gz and 4 unpacked speakers; 2 archives are not unpacked, the first is S0003.tar.gz" in said
    )
    assert f"set --unpack=True, or unpack them with: cd '{tree}/wav' && for archive in S*.tar.gz; do tar -xzf" in said
    with pytest.raises(DataError, match=r"Did you mean .*data_aishell\?"):
        prepare(tree.parent, tmp_path)


def test_unpacks_what_is_not_unpacked(tree, tmp_path):
    expected = prepare(tree, tmp_path).counts
    before = first_audio(tree).read_bytes()
    packed = [fake.pack(tree, *name) for name in (("train", "S0002"), ("train", "S0003"), ("test", "S0764"))]
    (tree / "wav" / ".S0002.partial").mkdir()  # of a run that was killed
    done = prepare(tree, tmp_path, unpack=True)
    assert done.counts == expected and all(archive.is_file() for archive in packed) and first_audio(tree).read_bytes() == before
    assert not list((tree / "wav").glob(".*"))
    made = first_audio(tree).stat().st_mtime_ns
    assert prepare(tree, tmp_path, unpack=True) == done and first_audio(tree).stat().st_mtime_ns == made


def add(name, kind=tarfile.REGTYPE, target=""):
    """What writes an archive of S0003 with one sound member, and one that is called ``name``."""

    def write(archive, inside):
        with tarfile.open(archive, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("train/S0003/BAC009S0003W0122.wav"), io.BytesIO())
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, len(inside) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(inside))

    return write


def shorten(archive, inside):
    truncate(archive, 0.5)


BAD_ARCHIVES = {
    "outside": (add("../../stolen.wav"), r"holds '\.\./\.\./stolen\.wav', expected files <split>/S0003/<name>\.wav"),
    "absolute": (add("/elsewhere/stolen.wav"), "holds '/elsewhere/stolen.wav'"),
    "climbing": (add("train/S0003/../../../stolen.wav"), "stolen.wav"),
    "link": (add("train/S0003/BAC009S0003W0123.wav", tarfile.SYMTYPE, "/etc/hostname"), "holds 'train/S0003/BAC009S0003W0123.wav'"),
    "other speaker": (add("train/S0004/BAC009S0004W0122.wav"), "holds 'train/S0004/BAC009S0004W0122.wav'"),
    "two splits": (add("dev/S0003/BAC009S0003W0122.wav"), "holds recordings of 2 splits, expected 1"),
    "cut short": (shorten, r"is no whole archive \(\d+ bytes; .*\): download it again"),
    "no archive": (lambda archive, inside: archive.write_bytes(inside), r"is no whole archive \(4 bytes"),
}


@pytest.mark.parametrize("fault", BAD_ARCHIVES)
def test_bad_archives_write_nothing(tree, tmp_path, fault):
    archive = fake.pack(tree, "train", "S0003")
    plant, message = BAD_ARCHIVES[fault]
    plant(archive, b"evil")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=rf"S0003\.tar\.gz: .*{message}|S0003\.tar\.gz: {message}"):
        prepare(tree, tmp_path, unpack=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_manifest_is_utf8(tree, tmp_path):
    path = prepare(tree, tmp_path).manifests["train"]
    with open(path, "rb") as file:
        assert "打开厨房的灯".encode() in file.read()
    assert manifest.read(path) == preparation.read(aishell.CORPUS, str(tree), "train")

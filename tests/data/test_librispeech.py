"""The LibriSpeech preparer: what it writes, what it remembers, and one planted fault after another."""

import csv
import logging
import os
import re
import shutil

import fake_librispeech as fake
import numpy as np
import pytest
import soundfile

from spikebrain.data import manifest, preparation
from spikebrain.data.corpora import librispeech
from spikebrain.data.manifest import DataError
from spikebrain.data.preparation import Published


def prepare(tree, tmp_path, **options):
    return librispeech.prepare(str(tree), str(tmp_path / "save"), **options)


def refusal(tree, tmp_path, **options):
    """The message with which preparation stops, and that it is one line and wrote no manifest."""
    with pytest.raises(DataError) as error:
        prepare(tree, tmp_path, **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("save/*.csv"))
    return str(error.value)


def test_reads_the_layout(tree):
    utterances = librispeech.read(str(tree), "dev-clean")
    assert [u.id for u in utterances] == [f"{s}-7-{n:04d}" for s in (200, 201) for n in range(3)]
    first = utterances[0]
    assert (first.wav, first.duration, first.speaker, first.text) == ("dev-clean/200/7/200-7-0000.flac", 1.0, "200", fake.WORDS[200 % 6])


def test_writes_manifests_and_counts(tree, tmp_path, caplog):
    done = prepare(tree, tmp_path)
    assert list(done.manifests) == ["train-clean-100", "dev-clean", "test-clean"]
    assert done.counts["dev-clean"] == {"utterances": 6, "hours": pytest.approx(8 / 3600, abs=1e-4), "speakers": 2}
    assert not done.complete and not done.skipped
    assert "dev-clean has 6 utterances (published: 2703), 0.00 h (5.4), 2 speakers (40)" in done.differences
    assert len([r for r in caplog.records if "differs from its published counts" in r.message]) == 1
    assert manifest.read(done.manifests["dev-clean"]) == librispeech.read(str(tree), "dev-clean")
    assert str(tree) not in str(done.summary())


def test_every_split_is_optional(tree, tmp_path):
    shutil.rmtree(tree / "dev-clean")
    assert list(prepare(tree, tmp_path).manifests) == ["train-clean-100", "test-clean"]
    assert list(prepare(tree, tmp_path, splits=["test-clean"]).manifests) == ["test-clean"]


def test_strict_counts(tree, tmp_path):
    with pytest.raises(DataError, match=r"dev-clean has 6 utterances \(published: 2703\).*--strict_counts=False"):
        prepare(tree, tmp_path, strict_counts=True)


def test_published_counts_make_it_complete(tree, tmp_path, monkeypatch):
    monkeypatch.setitem(librispeech.PUBLISHED, "dev-clean", Published(6, 0.002, 2))
    done = prepare(tree, tmp_path, splits=["dev-clean"], strict_counts=True)
    assert done.complete and done.differences == ()


def test_hours_of_the_released_corpus_agree_with_its_table():
    # The released dev-other lasts 5.1 h, the published table says 5.3: that is no incomplete corpus.
    released = {"utterances": 2864, "hours": 5.12, "speakers": 33}
    assert preparation.difference("dev-other", released, librispeech.PUBLISHED["dev-other"]) is None
    assert preparation.difference("dev-other", {**released, "hours": 2.5}, librispeech.PUBLISHED["dev-other"])
    assert preparation.difference("dev-other", {**released, "speakers": 32}, librispeech.PUBLISHED["dev-other"])


def test_does_nothing_twice(tree, tmp_path, monkeypatch):
    first = prepare(tree, tmp_path)
    looked = []
    probe = preparation.audio.probe
    monkeypatch.setattr(preparation.audio, "probe", lambda *a: looked.append(a) or probe(*a))
    assert prepare(tree, tmp_path) == first and not looked
    os.utime(fake.first_audio(tree), ns=(1, 1))
    assert prepare(tree, tmp_path) == first and len(looked) == 18


def test_notices_a_changed_tree(tree, tmp_path):
    first = prepare(tree, tmp_path)
    transcript = fake.first_transcript(tree)
    transcript.write_text(transcript.read_text().replace("TWO", "SIX"))
    second = prepare(tree, tmp_path)
    assert second.data_hash != first.data_hash
    assert "TWO" not in manifest.read(second.manifests["train-clean-100"])[0].text


def test_notices_a_damaged_manifest(tree, tmp_path):
    done = prepare(tree, tmp_path)
    path = done.manifests["dev-clean"]
    content = open(path).read()
    with open(path, "w") as file:
        file.write(content[:100])
    prepare(tree, tmp_path)
    assert open(path).read() == content


def test_a_moved_tree_has_the_same_hash(tree, tmp_path):
    first = prepare(tree, tmp_path)
    moved = tree.rename(tmp_path / "elsewhere")
    assert prepare(moved, tmp_path).data_hash == first.data_hash


@pytest.mark.parametrize("given", [None, "", "nowhere", "empty"])
def test_wrong_folder(tmp_path, given):
    (tmp_path / "empty").mkdir()
    folder = given and str(tmp_path / given)
    with pytest.raises(DataError) as error:
        librispeech.prepare(folder, str(tmp_path / "save"))
    message = str(error.value)
    assert repr(folder) in message or f"{folder} holds none of the splits of LibriSpeech" in message
    assert "--data_folder=/path/to/LibriSpeech" in message and "--data_folder=synthetic" in message
    assert librispeech.LAYOUT in message


def test_folder_one_level_off(tree, tmp_path):
    with pytest.raises(DataError, match=f"Did you mean {tree}"):
        prepare(tree.parent, tmp_path)
    with pytest.raises(DataError, match=rf"Did you mean {tree}\?"):
        prepare(tree / "dev-clean", tmp_path)


def test_missing_split(tree, tmp_path):
    message = refusal(tree, tmp_path, splits=["train-clean-100", "test-other"])
    assert "split 'test-other' is not there; there are 3 of 7: train-clean-100, dev-clean, test-clean" in message


def truncate(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def plant_missing_audio(tree):
    fake.first_audio(tree).unlink()


def plant_missing_line(tree):
    path = fake.first_transcript(tree)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def plant_missing_transcripts(tree):
    fake.first_transcript(tree).unlink()


def plant_wrong_rate(tree):
    soundfile.write(fake.first_audio(tree), fake.tone(1.0, rate=8000), 8000)


def plant_stereo(tree):
    soundfile.write(fake.first_audio(tree), np.stack([fake.tone(1.0)] * 2, 1), 16000)


def plant_nan(tree):
    wav = fake.tone(1.0)
    wav[5:9] = np.nan
    with open(fake.first_audio(tree), "wb") as file:
        soundfile.write(file, wav, 16000, format="WAV", subtype="FLOAT")


def plant_no_samples(tree):
    with open(fake.first_audio(tree), "wb") as file:
        soundfile.write(file, np.zeros(0), 16000, format="WAV")


def plant_text_as_audio(tree):
    fake.first_audio(tree).write_text("<html>404</html>")


def plant_damage_in_the_middle(tree):
    path = fake.first_audio(tree)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path.write_bytes(content)


def plant_duplicate_audio(tree):
    path = fake.first_audio(tree)
    (path.parents[1] / "8").mkdir()
    shutil.copy(path, path.parents[1] / "8" / path.name)


def append(line):
    def plant(tree):
        with open(fake.first_transcript(tree), "ab") as file:
            file.write(line)

    return plant


AUDIO = r"train-clean-100/100/7/100-7-0000\.flac: "
TEXT = r"train-clean-100/100/7/100-7\.trans\.txt"
FAULTS = {
    "missing audio": (plant_missing_audio, TEXT + r":1: transcribes 100-7-0000, but there is no 100-7-0000\.flac in train-clean-100"),
    "missing line": (plant_missing_line, AUDIO + r"has no transcript: no line of a \.trans\.txt file begins with 100-7-0000"),
    "missing transcripts": (plant_missing_transcripts, AUDIO + r"has no transcript.* 2 more: .*0001\.flac, .*0002\.flac"),
    "empty file": (lambda tree: truncate(fake.first_audio(tree), 0), AUDIO + r"is empty \(0 bytes\)"),
    "no samples": (plant_no_samples, AUDIO + r"holds 0 samples"),
    "header only": (lambda tree: truncate(fake.first_audio(tree), 0.002), AUDIO + r"is truncated or damaged.* its 43 bytes give fewer"),
    "truncated": (lambda tree: truncate(fake.first_audio(tree), 0.6), AUDIO + r"is truncated.* promises 16000 samples \(1.00 s\)"),
    "last byte": (lambda tree: truncate(fake.first_audio(tree), 0.999), AUDIO + r"is truncated.* promises 16000 samples"),
    "damaged": (plant_damage_in_the_middle, AUDIO + r"is truncated or damaged.*16000 samples"),
    "no audio": (plant_text_as_audio, AUDIO + r"cannot be read"),
    "wrong rate": (plant_wrong_rate, AUDIO + r"has a sample rate of 8000 Hz, expected 16000 Hz"),
    "stereo": (plant_stereo, AUDIO + r"has 2 channels, expected 1"),
    "nan": (plant_nan, AUDIO + r"holds 4 NaN or infinite samples of 16000"),
    "duplicate audio": (plant_duplicate_audio, r"100/8/100-7-0000\.flac: has the id of train-clean-100/100/7/100-7-0000\.flac.*2 files"),
    "duplicate line": (append(b"100-7-0000 ONE\n"), TEXT + r":4: is the 2nd transcript of 100-7-0000, the 1st is .*:1:"),
    "empty transcript": (append(b"100-7-0003\n"), TEXT + r":4: 100-7-0003 has an empty transcript \(0 words\)"),
    "malformed line": (append(b"SOME WORDS\n"), TEXT + r":4: begins with 'SOME', expected <speaker>-<chapter>-<number>"),
    "not utf-8": (append(b"100-7-0003 CAF\xc9\n"), TEXT + r": is not UTF-8 text \(byte \d+ of \d+\)"),
}

# Utterances of train-clean-100 that are left, of 6; 5 where nothing is said.
KEPT = {"missing transcripts": 3, "duplicate audio": 5, "duplicate line": 5, "empty transcript": 6, "malformed line": 6, "not utf-8": 3}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(tree, tmp_path, fault):
    plant, message = FAULTS[fault]
    plant(tree)
    said = refusal(tree, tmp_path)
    assert re.search(message, said), said
    assert "or pass --skip_bad_audio=True to leave it out" in said


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_skipped_and_listed(tree, tmp_path, fault):
    FAULTS[fault][0](tree)
    done = prepare(tree, tmp_path, skip_bad_audio=True)
    assert done.skipped and done.summary()["skipped"] == len(done.skipped)
    with open(tmp_path / "save" / "skipped.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["ID"], r["path"], r["reason"]) for r in rows] == [(s.id, s.path, s.reason) for s in done.skipped]
    kept = {u.wav for u in manifest.read(done.manifests["train-clean-100"])}
    assert len(kept) == KEPT.get(fault, 5) and not kept & {s.path for s in done.skipped}
    assert prepare(tree, tmp_path, skip_bad_audio=True) == done
    assert "or pass" in str(pytest.raises(DataError, prepare, tree, tmp_path).value)


def test_skipping_everything_is_no_way_out(tree, tmp_path):
    for path in (tree / "dev-clean").rglob("*.flac"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"dev-clean\.csv: holds 0 utterances"):
        prepare(tree, tmp_path, skip_bad_audio=True)


@pytest.mark.parametrize("keep", [0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_cut_files_are_found_without_decoding_all(tree, tmp_path, keep):
    truncate(fake.first_audio(tree), keep)
    assert "100-7-0000.flac: " in refusal(tree, tmp_path, decode=False)


def test_hidden_files_are_no_audio(tree, tmp_path):
    path = fake.first_audio(tree)
    (path.parent / f"._{path.name}").write_bytes(b"\0")
    assert prepare(tree, tmp_path).counts["train-clean-100"]["utterances"] == 6


def test_skipped_are_logged(tree, tmp_path, caplog):
    plant_wrong_rate(tree)
    with caplog.at_level(logging.WARNING):
        prepare(tree, tmp_path, skip_bad_audio=True)
    assert any("left out train-clean-100/100/7/100-7-0000.flac: has a sample rate of 8000 Hz" in r.getMessage() for r in caplog.records)

"""The LibriSpeech preparer: what it writes, what it remembers, and one planted fault after another."""

import logging
import re
import shutil
from functools import partial

import fake_librispeech as fake
import preparing
import pytest
import soundfile
from preparing import truncate

from spikebrain.data import manifest, preparation
from spikebrain.data.corpora import librispeech
from spikebrain.data.manifest import DataError
from spikebrain.data.preparation import Published

prepare = partial(preparing.prepare, librispeech)
refusal = partial(preparing.refusal, librispeech)
left_out = partial(preparing.left_out, librispeech)


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


def test_notices_a_changed_tree(tree, tmp_path):
    first = prepare(tree, tmp_path)
    transcript = fake.first_transcript(tree)
    transcript.write_text(transcript.read_text().replace("TWO", "SIX"))
    second = prepare(tree, tmp_path)
    assert second.data_hash != first.data_hash
    assert "TWO" not in manifest.read(second.manifests["train-clean-100"])[0].text


def test_folder_one_level_off(tree, tmp_path):
    with pytest.raises(DataError, match=f"Did you mean {tree}"):
        prepare(tree.parent, tmp_path)
    with pytest.raises(DataError, match=rf"Did you mean {tree}\?"):
        prepare(tree / "dev-clean", tmp_path)


def plant_missing_audio(tree):
    fake.first_audio(tree).unlink()


def plant_missing_line(tree):
    path = fake.first_transcript(tree)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def plant_missing_transcripts(tree):
    fake.first_transcript(tree).unlink()


def plant_wrong_rate(tree):
    soundfile.write(fake.first_audio(tree), fake.tone(1.0, rate=8000), 8000)


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
    "truncated": (lambda tree: truncate(fake.first_audio(tree), 0.6), AUDIO + r"is truncated.* promises 16000 samples \(1.00 s\)"),
    "damaged": (plant_damage_in_the_middle, AUDIO + r"is truncated or damaged.*16000 samples"),
    "wrong rate": (plant_wrong_rate, AUDIO + r"has a sample rate of 8000 Hz, expected 16000 Hz"),
    "duplicate audio": (plant_duplicate_audio, r"100/8/100-7-0000\.flac: has the id of train-clean-100/100/7/100-7-0000\.flac.*2 files"),
    "duplicate line": (append(b"100-7-0000 ONE\n"), TEXT + r":4: is the 2nd transcript of 100-7-0000, the 1st is .*:1:"),
    "empty transcript": (append(b"100-7-0003\n"), TEXT + r":4: 100-7-0003 has an empty transcript \(0 words\)"),
    "malformed line": (append(b"SOME WORDS\n"), TEXT + r":4: begins with 'SOME', expected <speaker>-<chapter>-<number>"),
    "not utf-8": (append(b"100-7-0003 CAF\xc9\n"), TEXT + r": is not UTF-8 text \(byte \d+ of \d+\)"),
}

# Utterances of train-clean-100 that are left, of 6; 5 where nothing is said.
KEPT = {"missing transcripts": 3, "duplicate audio": 5, "duplicate line": 5, "empty transcript": 6, "malformed line": 6, "not utf-8": 3}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_or_left_out(tree, tmp_path, fault):
    plant, message = FAULTS[fault]
    plant(tree)
    said = refusal(tree, tmp_path)
    assert re.search(message, said) and "or pass --skip_bad_audio=True to leave it out" in said, said
    _, kept = left_out(tree, tmp_path)
    assert len(kept["train-clean-100"]) == KEPT.get(fault, 5)


def test_without_decoding_damage_in_the_middle_is_not_found(tree, tmp_path):
    plant_damage_in_the_middle(tree)
    assert not prepare(tree, tmp_path, decode=False).skipped
    truncate(fake.first_audio(tree), 0.9)
    assert "100-7-0000.flac: is truncated" in str(pytest.raises(DataError, prepare, tree, tmp_path, decode=False).value)


def test_skipping_everything_is_no_way_out(tree, tmp_path):
    for path in (tree / "dev-clean").rglob("*.flac"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"dev-clean\.csv: holds 0 utterances"):
        prepare(tree, tmp_path, skip_bad_audio=True)


def test_hidden_files_are_no_audio(tree, tmp_path):
    path = fake.first_audio(tree)
    (path.parent / f"._{path.name}").write_bytes(b"\0")
    assert prepare(tree, tmp_path).counts["train-clean-100"]["utterances"] == 6


def test_skipped_are_logged(tree, tmp_path, caplog):
    plant_wrong_rate(tree)
    with caplog.at_level(logging.WARNING):
        prepare(tree, tmp_path, skip_bad_audio=True)
    assert any("left out train-clean-100/100/7/100-7-0000.flac: has a sample rate of 8000 Hz" in r.getMessage() for r in caplog.records)

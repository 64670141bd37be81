"""The Speech Commands preparer: tasks, splits, what it remembers, and one planted fault after another."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial

import fake_gsc as fake
import numpy as np
import preparing
import pytest
import soundfile
from preparing import truncate
from speechbrain.dataio.dataio import load_data_csv

from spikebrain.data import manifest, preparation
from spikebrain.data.corpora import gsc
from spikebrain.data.manifest import CLASS_COLUMNS, DataError, Utterance
from spikebrain.data.preparation import Published

prepare = partial(preparing.prepare, gsc)
refusal = partial(preparing.refusal, gsc)
left_out = partial(preparing.left_out, gsc)
manifests = partial(preparing.manifests, gsc)

DIGITS = "zero one two three four five six seven eight nine".split()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound tree: 35 words of six speakers, one of whom tests and one validates."""
    return fake.make_tree(tmp_path_factory.mktemp("gsc") / "GSC")


@pytest.fixture
def tree(sound, tmp_path):
    """A copy of the sound tree, to be damaged."""
    return shutil.copytree(sound, tmp_path / "GSC")


def test_reads_the_layout(tree):
    utterances = gsc.read(str(tree), "test")
    assert utterances[0] == Utterance("backward_0a7c2a8d_nohash_0", "backward/0a7c2a8d_nohash_0.wav", 0.25, "0a7c2a8d", "", "backward", 0)
    assert [u.label for u in utterances] == list(gsc.WORDS)
    assert {u.speaker for u in gsc.read(str(tree), "train")} == set(fake.SPEAKERS[2:])


def test_writes_manifests_and_counts(tree, tmp_path, caplog):
    done = prepare(tree, tmp_path)
    assert {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()} == {
        "train": (140, 4),
        "valid": (35, 1),
        "test": (35, 1),
    }
    assert done.differences[2] == "test has 35 utterances (published: 11005), 0.00 h (none), 1 speakers (250)"
    assert not done.complete and not done.skipped
    assert manifests(done)["valid"] == gsc.read(str(tree), "valid")
    row = load_data_csv(done.manifests["test"], {"data_root": "/corpus"})["yes_0a7c2a8d_nohash_0"]
    assert row == {"duration": 0.25, "wav": "/corpus/yes/0a7c2a8d_nohash_0.wav", "start": "0", "spk_id": "0a7c2a8d", "label": "yes"}
    with pytest.raises(DataError, match=r"test has 35 utterances \(published: 11005\).*--strict_counts=False"):
        prepare(tree, tmp_path, strict_counts=True)


def test_labels():
    assert len(gsc.labels()) == 35 and list(gsc.labels(35)) == sorted(gsc.labels()) and gsc.labels()[0::34] == ("backward", "zero")
    assert gsc.labels(12) == tuple("_silence_ _unknown_ yes no up down left right on off stop go".split())
    assert gsc.labels(["two", "one"]) == ("one", "two")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (10, "classes: 10 is none of 35, 12 and a list of words"),
        ("yes", "classes: 'yes' is none of 35, 12"),
        ([True, "up"], r"classes: True of \[True, 'up'\] is no word; YAML reads yes, no, on and off as truth values: quote them"),
        (["one", "one"], "holds 1 different words of 2"),
        (["one"], "name 2 or more"),
        (["one", "_silence_"], "'_silence_' of .* is no word"),
    ],
)
def test_classes_that_are_none(classes, message):
    with pytest.raises(DataError, match=message):
        gsc.labels(classes)


def test_published_counts():
    # The paper's total and the three splits in use everywhere; the ten digits of SC09 (Kong et al., DiffWave, ICLR 2021: 31,158);
    # the test archive of the release holds 4,890 clips of the 12 classes.
    assert sum(map(sum, gsc.CLIPS.values())) == 105829
    assert [p.utterances for p in gsc.published().values()] == [84843, 9981, 11005]
    assert [p.utterances for p in gsc.published(12).values()] == [36923, 4445, 4890]
    assert gsc.published(DIGITS)["train"].utterances == 31158
    assert sum(p.speakers for p in gsc.published().values()) == 2618
    assert gsc.published(split_by="speaker")["test"] == gsc.published(["ja", "nein"])["test"] == Published(None)


def test_counts_as_published_are_complete(tree, tmp_path, monkeypatch):
    for word in gsc.WORDS:
        monkeypatch.setitem(gsc.CLIPS, word, (4, 1, 1))
    monkeypatch.setattr(gsc, "SPEAKERS", (4, 1, 1))
    for classes in (35, 12, DIGITS):
        assert prepare(tree, tmp_path, classes=classes, strict_counts=True).complete
    done = prepare(tree, tmp_path, split_by="speaker")
    assert not done.complete and "test has 70 utterances (published: none), 0.00 h (none), 2 speakers (none)" in done.differences


def test_what_is_not_published_is_not_compared():
    counted = {"utterances": 5, "hours": 1.0, "speakers": 2}
    assert preparation.difference("test", counted, Published(5)) is None
    assert "5 utterances (published: 5), 1.00 h (none), 2 speakers (3)" in preparation.difference("test", counted, Published(5, None, 3))
    assert "published: none" in preparation.difference("test", counted, Published(None))


def test_a_list_of_words_reads_only_them(tree, tmp_path):
    fake.clip(tree, "bed").write_bytes(b"")  # another word's fault is of no interest
    done = prepare(tree, tmp_path, classes=["two", "one"])
    assert {split: Counter(u.label for u in us) for split, us in manifests(done).items()} == {
        "train": {"one": 4, "two": 4},
        "valid": {"one": 1, "two": 1},
        "test": {"one": 1, "two": 1},
    }


def test_words_of_another_corpus(tmp_path):
    tree = fake.make_tree(tmp_path / "Wörter", ("ja", "nein"))
    assert prepare(tree, tmp_path, classes=["ja", "nein"]).counts["train"]["utterances"] == 8


def test_twelve_classes(tree, tmp_path):
    done = manifests(prepare(tree, tmp_path, classes=12))
    for split, commands in (("train", 4), ("valid", 1), ("test", 1)):
        labels = Counter(u.label for u in done[split])
        assert set(labels) == set(gsc.labels(12))
        assert all(labels[word] == commands for word in gsc.COMMANDS)
        assert labels["_unknown_"] == labels["_silence_"] == commands  # ceil(10 %) of ten words
        unknown = [u for u in done[split] if u.label == "_unknown_"]
        assert not {u.wav.partition("/")[0] for u in unknown} & set(gsc.COMMANDS)
        assert {u.wav for u in unknown} <= {u.wav for u in gsc.read(str(tree), split)}


def test_silence_is_cut_from_the_background(tree):
    pieces = {split: [u for u in gsc.read(str(tree), split, classes=12) if u.label == "_silence_"] for split in gsc.SPLITS}
    assert [u.id for u in pieces["train"]] == [f"silence_train_{i:04d}" for i in range(4)]
    assert {u.wav for u in pieces["train"]} == {f"_background_noise_/{name}.wav" for name in ("pink_noise", "running_tap")}
    everything = sum(pieces.values(), [])
    assert len({(u.wav, u.start) for u in everything}) == 6 and all(u.duration == 1.0 and u.speaker == "" for u in everything)
    assert all(0 <= u.start <= 2 * gsc.RATE for u in everything)


def test_the_seed_decides_what_is_drawn(tree):
    def drawn(seed):
        return [(u.wav, u.start) for u in gsc.read(str(tree), "train", classes=12, seed=seed) if u.label.startswith("_")]

    assert drawn(1234) == drawn(1234)
    unknown, silence = drawn(1234)[:4], drawn(1234)[4:]
    assert set(unknown) != set(drawn(5)[:4]) and set(silence) != set(drawn(5)[4:])


def test_speakers_of_the_splits_are_disjoint(tree, tmp_path):
    done = manifests(prepare(tree, tmp_path, split_by="speaker"))
    speakers = {split: {u.speaker for u in us} for split, us in done.items()}
    assert {split: len(names) for split, names in speakers.items()} == {"train": 3, "valid": 1, "test": 2}
    assert set.union(*speakers.values()) == set(fake.SPEAKERS) and sum(map(len, done.values())) == 210
    for classes in (12, ["one", "two"]):
        again = manifests(prepare(tree, tmp_path, split_by="speaker", classes=classes))
        assert {split: {u.speaker for u in us} - {""} for split, us in again.items()} == speakers


def test_speaker_split_needs_no_lists(tree, tmp_path):
    for name in gsc.LISTS.values():
        (tree / name).unlink()
    assert list(prepare(tree, tmp_path, split_by="speaker").manifests) == list(gsc.SPLITS)


@pytest.mark.parametrize(("speakers", "numbers"), [(2618, (2094, 262, 262)), (20, (16, 2, 2)), (6, (3, 1, 2)), (4, (1, 1, 2))])
def test_share_of_speakers(speakers, numbers):
    splits = Counter(gsc.speaker_splits([f"{i:08x}" for i in range(speakers)]).values())
    assert tuple(splits[split] for split in gsc.SPLITS) == numbers


def test_speaker_split_stays_what_it_is():
    # Drawn once: a change would mix what published results have tested with what others have trained on.
    expected = {"a": "test", "b": "test", "c": "train", "d": "valid", "e": "train", "f": "train"}
    assert gsc.speaker_splits("abcdef") == expected
    assert gsc.speaker_splits("fedcba") == gsc.speaker_splits("abcdef") != gsc.speaker_splits("abcdef", 1)
    with pytest.raises(DataError, match=r"needs 4 speakers or more \(2 test, 1 valid\), there are 3: use split_by: official"):
        gsc.speaker_splits("abc")


@pytest.mark.parametrize("change", [{"classes": 12}, {"classes": DIGITS}, {"split_by": "speaker"}, {"classes": 12, "seed": 5}])
def test_other_settings_are_another_preparation(tree, tmp_path, change):
    assert prepare(tree, tmp_path).data_hash != prepare(tree, tmp_path, **change).data_hash


def test_the_hash_tells_labels_and_silence_apart(tree, tmp_path, monkeypatch):
    first = prepare(tree, tmp_path, classes=12)
    monkeypatch.setattr(
        gsc.Task, "_piece", lambda self, split, i, path, n: Utterance(f"silence_{split}_{i:04d}", path, 0.0, "", "", "_silence_")
    )
    assert gsc.prepare(str(tree), str(tmp_path / "other"), classes=12).data_hash != first.data_hash


def test_notices_a_moved_clip(tree, tmp_path):
    prepare(tree, tmp_path)
    path = tree / "testing_list.txt"
    path.write_text(path.read_text().replace("yes/0a7c2a8d", "yes/2c6d3924"))
    assert {u.speaker for u in manifests(prepare(tree, tmp_path))["test"] if u.label == "yes"} == {"2c6d3924"}


def test_lists_from_another_system(tree, tmp_path):
    first = prepare(tree, tmp_path).counts
    for name in gsc.LISTS.values():
        (tree / name).write_bytes((tree / name).read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert prepare(tree, tmp_path).counts == first


def test_files_without_nohash_are_left_out(tree, tmp_path, caplog):
    fake.clip(tree).rename(tree / "yes" / "test.wav")
    assert prepare(tree, tmp_path).counts["train"]["utterances"] == 139
    told = [r.getMessage() for r in caplog.records if "without _nohash_" in r.getMessage()]
    assert told == ["GSC: left out 1 files without _nohash_ in their names, the first is yes/test.wav"]


def test_foreign_files_are_no_clips(tree, tmp_path):
    (tree / "yes" / "._2c6d3924_nohash_0.wav").write_bytes(b"\0")
    (tree / "yes" / "notes.txt").write_text("none")
    assert prepare(tree, tmp_path).counts["train"]["utterances"] == 140


def empty_folder(path):
    for clip in path.iterdir():
        clip.unlink()


def lists_without(word):
    def plant(tree):
        path = tree / "testing_list.txt"
        path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(f"{word}/")))

    return plant


def remove_folders(*words):
    def plant(tree):
        for word in words:
            empty_folder(tree / word)
            (tree / word).rmdir()

    return plant


COMMANDS_ONLY = remove_folders(*(set(gsc.WORDS) - set(gsc.COMMANDS)))
NO_TASK = {
    "missing list": (
        lambda tree: (tree / "testing_list.txt").unlink(),
        {},
        r"testing_list\.txt: there is no such file: .*split_by: speaker",
    ),
    "class folder": (
        remove_folders("bed", "cat"),
        {},
        r"2 of the 35 class folders are missing, the first is 'bed': .*there are 33 word folders",
    ),
    "no such word": (
        None,
        {"classes": ["yes", "yess"]},
        r"classes: 'yess' is no word of GSC and no folder of .*; did you mean yes\?",
    ),
    "empty class": (
        lists_without("bed"),
        {},
        r"test: class 'bed' has 0 of 34 clips: no line of testing_list\.txt .* or leave 'bed' out of classes",
    ),
    "empty training": (
        lambda tree: [fake.clip(tree, "bed", s).unlink() for s in fake.SPEAKERS[2:]],
        {},
        r"train: class 'bed' has 0 of 136 clips: its folder is empty, or the lists give all of it to valid and test",
    ),
    "silent speakers": (
        lambda tree: [fake.clip(tree, "bed", s).unlink() for s in fake.SPEAKERS[1:]],
        {"split_by": "speaker"},
        r"class 'bed' has 0 of \d+ clips: none of the speakers that fall to (train|valid|test) said it: set another seed",
    ),
    "few speakers": (
        lambda tree: [fake.clip(tree, word, s).unlink() for word in gsc.WORDS for s in fake.SPEAKERS[3:]],
        {"split_by": "speaker"},
        r"split_by: speaker needs 4 speakers or more \(2 test, 1 valid\), there are 3",
    ),
    "no background": (
        remove_folders("_background_noise_"),
        {"classes": 12},
        r"_background_noise_: 0 of 0 recordings can be cut .*set classes to 35",
    ),
    "nothing unknown": (COMMANDS_ONLY, {"classes": 12}, r"classes: 12 needs other words for _unknown_: .*there are 10 word folders"),
    "split_by": (None, {"split_by": "speakers"}, r"split_by: 'speakers' is none of official, speaker; did you mean speaker\?"),
}


@pytest.mark.parametrize("fault", NO_TASK)
def test_no_task_is_named(tree, tmp_path, fault):
    plant, options, message = NO_TASK[fault]
    if plant:
        plant(tree)
    for skip in (False, True):
        said = refusal(tree, tmp_path, skip_bad_audio=skip, **options)
        assert re.search(message, said), said


def append(line, name="testing_list.txt"):
    def plant(tree):
        with open(tree / name, "a") as file:
            file.write(line)

    return plant


CLIP = r"yes/2c6d3924_nohash_0\.wav: "
FAULTS = {
    "listed, not there": (
        lambda tree: fake.clip(tree, speaker="0a7c2a8d").unlink(),
        r"testing_list\.txt:34: lists yes/0a7c2a8d_nohash_0\.wav, which is not there",
    ),
    "listed word misspelt": (
        append("yess/2c6d3924_nohash_0.wav\n"),
        r"testing_list\.txt:37: lists yess/2c6d3924_nohash_0\.wav, which is not there",
    ),
    "list line": (append("no clip\n"), r"testing_list\.txt:37: lists no clip, which is not there: restore it, or mend or remove the line"),
    "in both lists": (
        append("yes/1b88bf70_nohash_0.wav\nyes/4a4e28f1_nohash_0.wav\n"),
        r"validation_list\.txt:34: lists yes/1b88bf70_nohash_0\.wav, and so does testing_list\.txt:37: .* remove one of the 2 lines",
    ),
    "name": (
        lambda tree: fake.clip(tree).rename(tree / "yes" / "2c6d3924_nohash_a.wav"),
        r"yes/2c6d3924_nohash_a\.wav: is named .* expected <speaker>_nohash_<number>\.wav",
    ),
    "no speaker": (
        lambda tree: fake.clip(tree).rename(tree / "yes" / "_nohash_1.wav"),
        r"yes/_nohash_1\.wav: is named '_nohash_1\.wav', expected",
    ),
    "truncated": (
        lambda tree: truncate(fake.clip(tree), 0.6),
        CLIP + r"is truncated or damaged: its header promises 8000 bytes of audio, 4782 are there",
    ),
    "wrong rate": (
        lambda tree: soundfile.write(fake.clip(tree), np.zeros(2000), 8000),
        CLIP + "has a sample rate of 8000 Hz, expected 16000 Hz: resample it",
    ),
}
# Clips that are left in train, of 140, where it is not 139.
KEPT = {"listed, not there": 140, "listed word misspelt": 140, "list line": 140}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_or_left_out(tree, tmp_path, fault):
    plant, message = FAULTS[fault]
    add_a_second_clip_of_yes(tree)
    plant(tree)
    said = refusal(tree, tmp_path)
    assert re.search(message, said) and "or pass --skip_bad_audio=True to leave it out" in said, said
    _, kept = left_out(tree, tmp_path)
    assert len(kept["train"]) == KEPT.get(fault, 139)
    assert not {u.wav for u in kept["valid"]} & {u.wav for u in kept["test"]}


def add_a_second_clip_of_yes(tree):
    # So that a class of validation and test is not empty when one of its clips is left out.
    for speaker, name in zip(fake.SPEAKERS, ("testing_list.txt", "validation_list.txt")):
        second = fake.clip(tree, speaker=speaker).with_name(f"{speaker}_nohash_1.wav")
        second.write_bytes(fake.clip(tree, speaker=speaker).read_bytes())
        append(f"yes/{second.name}\n", name)(tree)


NOISES = {
    "short": (lambda path: soundfile.write(path, np.zeros(15000), gsc.RATE), "lasts 15000 samples, a piece of silence needs 16000"),
    "wrong rate": (lambda path: soundfile.write(path, np.zeros(24000), 8000), "has a sample rate of 8000 Hz"),
    "truncated": (lambda path: truncate(path, 0.7), "is truncated or damaged: its header promises 96000 bytes of audio"),
}


@pytest.mark.parametrize("fault", NOISES)
def test_a_faulty_background_recording(tree, tmp_path, fault):
    plant, message = NOISES[fault]
    plant(tree / "_background_noise_" / "pink_noise.wav")
    assert f"_background_noise_/pink_noise.wav: {message}" in refusal(tree, tmp_path, classes=12)
    assert not prepare(tree, tmp_path).skipped
    done = manifests(prepare(tree, tmp_path, classes=12, skip_bad_audio=True))
    assert {u.wav for u in done["train"] if u.label == "_silence_"} == {"_background_noise_/running_tap.wav"}
    plant(tree / "_background_noise_" / "running_tap.wav")
    with pytest.raises(DataError, match=f"0 of 2 recordings can be cut into _silence_: .*pink_noise.wav {message}"):
        prepare(tree, tmp_path, classes=12, skip_bad_audio=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"start": -1}, r"x \(start -1\) begins before its recording"), ({"label": ""}, "x has no label: name its class")],
)
def test_manifest_refuses(tmp_path, change, message):
    good = Utterance("x", "yes/x.wav", 1.0, label="yes", start=7)
    manifest.write(tmp_path / "words.csv", [good], CLASS_COLUMNS)
    assert manifest.read(tmp_path / "words.csv", CLASS_COLUMNS) == [good]
    with pytest.raises(DataError, match=message):
        manifest.write(tmp_path / "words.csv", [replace(good, **change)], CLASS_COLUMNS)
    (tmp_path / "words.csv").write_text("ID,duration,wav,start,spk_id,label\nx,1.0,yes/x.wav,0.5,a,yes\n")
    with pytest.raises(DataError, match=r"words\.csv:2: start is '0\.5', expected a sample's number"):
        manifest.read(tmp_path / "words.csv", CLASS_COLUMNS)


@pytest.fixture(scope="module")
def real_digits(real_data, tmp_path_factory):
    """The real digit recordings in the corpus's layout."""
    out = tmp_path_factory.mktemp("digits") / "digits"
    subprocess.run([sys.executable, real_data / "make_digits_gsc.py", out], check=True, capture_output=True)
    return out


@pytest.mark.parametrize(
    ("split_by", "clips", "speakers"), [("official", (2400, 300, 300), (6, 6, 6)), ("speaker", (1500, 500, 1000), (3, 1, 2))]
)
def test_real_digits(real_digits, tmp_path, split_by, clips, speakers):
    done = prepare(real_digits, tmp_path, classes=DIGITS, split_by=split_by)
    assert tuple(c["utterances"] for c in done.counts.values()) == clips and tuple(c["speakers"] for c in done.counts.values()) == speakers
    assert not done.complete and not done.skipped
    assert {u.label for us in manifests(done).values() for u in us} == set(DIGITS)


def test_real_corpus(tmp_path):
    folder = os.environ.get("SPIKEBRAIN_GSC")
    if not folder:
        pytest.skip("SPIKEBRAIN_GSC is not set: the test on the released Speech Commands v0.02 is left out")
    for classes in (35, 12):
        assert prepare(folder, tmp_path, classes=classes, strict_counts=True).complete

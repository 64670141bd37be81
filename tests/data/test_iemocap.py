"""The IEMOCAP preparer: sessions, who speaks, which labels are used, and faults of evaluations."""

import re
import shutil
from collections import Counter
from functools import partial

import fake_iemocap as fake
import preparing
import pytest

from spikebrain.data import folds
from spikebrain.data.corpora import iemocap

prepare = partial(preparing.prepare, iemocap)
refusal = partial(preparing.refusal, iemocap)
left_out = partial(preparing.left_out, iemocap)


def manifest(done):
    return preparing.manifests(iemocap, done)["all"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return fake.make_tree(tmp_path_factory.mktemp("iemocap") / "IEMOCAP_full_release")


@pytest.fixture
def tree(sound, tmp_path):
    """A copy of the sound tree, to be damaged."""
    return shutil.copytree(sound, tmp_path / "IEMOCAP_full_release")


def test_who_speaks_is_the_letter_before_the_number(tree):
    found = {u.id: u for u in iemocap.read(str(tree), "all")}
    assert found["Ses02F_impro01_M001"].speaker == "Ses02M" and found["Ses02F_impro01_F001"].speaker == "Ses02F"
    assert Counter(u.speaker for u in found.values()) == {f"Ses0{session}{letter}": 5 for session in "12345" for letter in "FM"}
    assert all(u.session == u.id[4] == u.speaker[4] for u in found.values())


def test_excited_is_happy_and_other_labels_are_not_used(tree, caplog):
    with caplog.at_level("INFO"):
        found = iemocap.read(str(tree), "all")
    assert Counter(u.label for u in found) == {"angry": 10, "happy": 20, "neutral": 10, "sad": 10}
    assert "IEMOCAP: left out 20 of 70 utterances, which are none of angry, happy, neutral, sad" in caplog.text


def test_votes_of_single_raters_are_not_read(tree):
    votes = list(tree.glob("Session*/dialog/EmoEvaluation/Categorical/*.txt"))
    assert len(votes) == 5 and all("\tsad\t" in path.read_text() for path in votes)
    assert {u.label for u in iemocap.read(str(tree), "all")} != {"sad"}


def test_the_published_table():
    sessions = [sum(row[i] for row in iemocap.NUMBERS.values()) for i in range(5)]
    assert sessions == [1085, 1023, 1151, 1031, 1241]
    assert {label: sum(row) for label, row in iemocap.NUMBERS.items()} == {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}


def test_a_missing_session_is_named_and_its_fold_is_absent(tree, tmp_path):
    shutil.rmtree(tree / "Session3")
    done = prepare(tree, tmp_path)
    assert "all has no utterance of 1 of 5 sessions: 3" in done.differences and not done.complete
    plan = folds.make(manifest(done), done.settings["folds"])
    assert [fold.name for fold in plan] == ["session-1", "session-2", "session-4", "session-5"]
    assert all("the protocol leaves out one of 5 sessions, here there are 4: 1, 2, 4, 5" in fold.notes for fold in plan)


def test_protocols(sound):
    found, protocols = iemocap.read(str(sound), "all"), iemocap.CORPUS.settings["folds"]
    sessions = {u.id: u.session for u in found}
    for fold, session in zip(folds.make(found, protocols), "12345", strict=True):
        assert {sessions[name] for name in fold.test} == {session} and len(fold.test) == 10
        assert {sessions[name] for name in fold.train + fold.valid} == set("12345") - {session}
        assert (len(fold.train), len(fold.valid)) == (32, 8)
    for fold in folds.make(found, protocols, "speaker"):
        assert len({sessions[name] for name in fold.valid}) == 1 and len({sessions[name] for name in fold.train}) == 3


def edit(old, new, session=2):
    """Plants ``new`` for the first ``old`` in an evaluation."""

    def plant(tree):
        path = fake.evaluation(tree, session)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return plant


EVALUATION = r"Session2/dialog/EmoEvaluation/Ses02F_impro01\.txt"
# What is planted, what is said of it, and how many utterances are left of 50.
FAULTS = {
    "label": (
        edit("\tang\t", "\tangg\t"),
        rf"{EVALUATION}:3: has the emotion 'angg', which is none of the 11 of IEMOCAP: ang, .*; did",
        49,
    ),
    "line": (
        edit("[6.2901 - 8.2357]", "[6.2901 8.2357]"),
        rf"{EVALUATION}:3: is '\[6\.2901 8\.2357\].*', expected \[start - end\] <turn>",
        49,
    ),
    "no letter": (
        edit("_F000", "_X000"),
        rf"{EVALUATION}:3: rates 'Ses02F_impro01_X000', expected Ses02F_impro01_<F or M><three digits>",
        49,
    ),
    "other dialogue": (edit("Ses02F_impro01_F000", "Ses02F_impro02_F000"), rf"{EVALUATION}:3: rates 'Ses02F_impro02_F000', expected", 49),
    "twice": (
        edit("_F001", "_F000"),
        rf"{EVALUATION}:7: is the 2nd rating of Ses02F_impro01_F000, the 1st is {EVALUATION}:3: ids must",
        49,
    ),
    "no recording": (
        lambda tree: fake.recording(tree, 2, "F000").unlink(),
        rf"{EVALUATION}:3: rates Ses02F_impro01_F000, but there is no Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000\.wav: ",
        49,
    ),
    "no evaluation": (
        lambda tree: fake.evaluation(tree, 2).unlink(),
        rf"Session2/sentences/wav/Ses02F_impro01: has 14 recordings, but there is no {EVALUATION}: restore it",
        40,
    ),
    "other session": (
        lambda tree: shutil.move(fake.evaluation(tree, 2), fake.evaluation(tree, 3).parent),
        r"Session3/dialog/EmoEvaluation/Ses02F_impro01\.txt:3: rates 'Ses02F_impro01_F000', expected .* of Session3: mend the line or move",
        40,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_or_left_out(tree, tmp_path, fault):
    plant, message, number = FAULTS[fault]
    plant(tree)
    said = refusal(tree, tmp_path)
    assert re.match(message, said) and "or pass --skip_bad_audio=True to leave it out" in said, said
    _, kept = left_out(tree, tmp_path)
    assert len(kept["all"]) == number


def test_a_turn_that_is_not_used_needs_no_recording(tree, tmp_path):
    number = fake.CODES.index("xxx")
    fake.recording(tree, 4, f"F{number:03d}").unlink()
    assert len(manifest(prepare(tree, tmp_path))) == 50


def test_evaluations_of_another_system(tree, tmp_path):
    path = fake.evaluation(tree, 1)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").replace(b"Other;", b"Other \xe9;"))
    (path.parent / f"._{path.name}").write_bytes(b"\0\x05")
    assert len(manifest(prepare(tree, tmp_path))) == 50


def test_scripted_dialogues_have_longer_names(tree, tmp_path):
    for path in sorted(tree.rglob("*Ses05F_impro01*"), key=lambda path: -len(path.parts)):
        if path.is_file() and path.suffix == ".txt":
            path.write_text(path.read_text().replace("Ses05F_impro01", "Ses05M_script01_1b"))
        path.rename(path.with_name(path.name.replace("Ses05F_impro01", "Ses05M_script01_1b")))
    found = {u.id: u for u in manifest(prepare(tree, tmp_path))}
    assert found["Ses05M_script01_1b_F000"].speaker == "Ses05F" and len(found) == 50

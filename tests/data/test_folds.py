"""Folds: disjoint, all of the corpus, the same everywhere, nobody heard twice where that is promised, and what cannot be cut."""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import pytest

from spikebrain.data import folds
from spikebrain.data.folds import Protocol
from spikebrain.data.manifest import DataError, Utterance

LABELS = ("angry", "happy", "neutral", "sad")
PROTOCOLS = {
    "paper": Protocol("session", 5, each=True, valid=0.2),
    "random": Protocol("id", 10),
    "speaker": Protocol("speaker", 4),
    "each": Protocol("speaker", 10, each=True),
    "small": Protocol("speaker", 4, valid=0.2, valid_by="speaker"),
    "sentence": Protocol("sentence", 3, valid=0.5),
}
PLAIN = {name: asdict(protocol) for name, protocol in PROTOCOLS.items()}


def utterance(speaker, label, number, session=None):
    name = f"{speaker}-{label}-{number}"
    session = str(int(speaker[1:]) % 5) if session is None else session
    return Utterance(name, f"{name}.wav", 1.0, speaker, label=label, session=session, sentence=f"s{number % 3}")


def corpus(speakers=10, each=3):
    """Speakers s0, s1, ... who say ``each`` + their number of utterances in each emotion."""
    return [utterance(f"s{s}", label, i) for s in range(speakers) for label in LABELS for i in range(each + s)]


def make(found=None, name="paper", **options):
    return folds.make(corpus() if found is None else found, PLAIN, name, **options)


def field(found, ids, name):
    known = {u.id: u for u in found}
    return {getattr(known[i], name) for i in ids}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("partition", [0, 7])
def test_parts_share_nothing_and_are_all(name, partition):
    found = corpus()
    plan = make(found, name, partition=partition)
    everything = {u.id for u in found}
    assert len(plan) == PROTOCOLS[name].count and len({fold.name for fold in plan}) == len(plan)
    assert Counter(i for fold in plan for i in fold.test) == Counter(everything)
    for fold in plan:
        assert len(fold.train) + len(fold.valid) + len(fold.test) == len(everything) and min(map(len, (fold.train, fold.valid, fold.test)))
        assert set(fold.train) | set(fold.valid) | set(fold.test) == everything


def test_leave_one_session_out():
    found = corpus()
    for fold in make(found):
        session = fold.name.removeprefix("session-")
        assert field(found, fold.test, "session") == {session}
        assert field(found, fold.train + fold.valid, "session") == set("01234") - {session}
        assert len(fold.valid) == round(0.2 * (len(found) - len(fold.test)))


@pytest.mark.parametrize("name", ["speaker", "each", "small"])
def test_nobody_is_heard_in_two_parts(name):
    found = corpus()
    for fold in make(found, name):
        train, valid, test = (field(found, part, "speaker") for part in (fold.train, fold.valid, fold.test))
        assert not train & valid and not train & test and not valid & test
        assert not any("speakers of test" in note for note in fold.notes)


def test_speakers_are_drawn_to_validate_up_to_a_share():
    found = corpus()
    for partition in range(5):
        for fold in make(found, "small", partition=partition):
            rest = len(found) - len(fold.test)
            assert 0.05 * rest < len(fold.valid) <= round(0.2 * rest)
    (alone,) = {len(field(corpus(4, 9), fold.valid, "speaker")) for fold in make(corpus(4, 9), "small")}
    assert alone == 1  # no speaker is within the share: the one that is heard least


def test_random_folds_are_of_one_size_and_the_next_one_validates():
    found = corpus()
    plan = make(found, "random")
    assert {len(fold.test) for fold in plan} == {len(found) // 10}
    assert [fold.valid for fold in plan] == [fold.test for fold in plan[1:] + plan[:1]]
    assert len(make(found, "random", count=5)) == 5
    labels = [Counter(name.split("-")[1] for name in fold.test) for fold in plan]
    assert len(set(map(str, labels))) > 1  # utterances are dealt out at random, not in their order


def test_groups_are_dealt_out_by_size():
    # 160, 160, 80, 80, 80, 40, 40, 40, 40, 40, 40: five parts of nearly 160.
    sizes = (40, 40, 20, 20, 20, 10, 10, 10, 10, 10, 10)
    found = [utterance(f"s{s}", label, i) for s, size in enumerate(sizes) for label in LABELS for i in range(size)]
    for partition in range(20):
        tested = [len(fold.test) for fold in make(found, "speaker", count=5, partition=partition)]
        assert sum(tested) == len(found) == 800 and max(tested) <= 200 and min(tested) >= 120


def test_another_partition_is_another_cut():
    found = corpus()
    for name in ("random", "speaker"):
        cuts = [frozenset(fold.test for fold in make(found, name, partition=partition)) for partition in range(8)]
        assert len(set(cuts)) >= 6
    left_out = [[(fold.name, fold.test) for fold in make(found, partition=partition)] for partition in (0, 1)]
    assert left_out[0] == left_out[1]
    assert [fold.valid for fold in make(found)] != [fold.valid for fold in make(found, partition=1)]


def test_order_is_of_no_interest():
    found = corpus()
    mixed = random.Random(3).sample(found, len(found))
    for name in PROTOCOLS:
        assert make(mixed, name) == make(found, name)


def test_another_process_cuts_alike():
    code = "from test_folds import *; print([fold.digest for name in PROTOCOLS for fold in make(name=name)])"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {sys.path[0]!r}); sys.path.insert(0, {__file__.rpartition('/')[0]!r}); {code}",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([fold.digest for name in PROTOCOLS for fold in make(name=name)])


def test_folds_stay_what_they_are():
    # Drawn once: a change would mix what published results have tested with what others have trained on.
    plan = make([utterance(f"s{s}", label, 0) for s in range(3) for label in LABELS], "random", count=3)
    assert [fold.test for fold in plan] == STAY
    assert len({fold.digest for fold in plan}) == 3 and all(len(fold.digest) == 16 for fold in plan)


STAY = [
    ("s0-sad-0", "s1-angry-0", "s1-happy-0", "s1-neutral-0"),
    ("s0-angry-0", "s1-sad-0", "s2-happy-0", "s2-neutral-0"),
    ("s0-happy-0", "s0-neutral-0", "s2-angry-0", "s2-sad-0"),
]


def test_what_a_fold_does_not_test_is_noted():
    found = [u for u in corpus() if not (u.session == "2" and u.label in ("sad", "angry"))]
    plan = {fold.name: fold for fold in make(found)}
    assert plan["session-2"].notes == ("test has no utterance of 2 of 4 classes: angry, sad", SENTENCES)
    assert plan["session-1"].notes == (SENTENCES,)
    assert any("valid has no utterance of 2 of 4 classes: angry, sad" in fold.notes for fold in make(found, "each"))


SENTENCES = "3 of the 3 sentences of test are in train"


def test_who_is_heard_in_training_is_noted():
    found = corpus()
    for fold in make(found, "random"):
        tested = len(field(found, fold.test, "speaker"))
        assert fold.notes == (f"{tested} of the {tested} speakers of test are in train", SENTENCES)
    assert all(not any("sentences" in note for note in fold.notes) for fold in make(found, "sentence"))


def test_a_missing_session_is_noted():
    found = [u for u in corpus() if u.session != "3"]
    plan = make(found)
    assert [fold.name for fold in plan] == ["session-0", "session-1", "session-2", "session-4"]
    told = "the protocol leaves out one of 5 sessions, here there are 4: 0, 1, 2, 4"
    assert all(fold.notes[0] == told for fold in plan)


WITHOUT = [Utterance(f"u{i}", f"u{i}.wav", 1.0, label=LABELS[i % 4]) for i in range(12)]
ONE_VOICE = [u for u in corpus(4) if u.label != "sad" or u.speaker == "s0"]
BAD = {
    "protocol": (corpus(), {"name": "speakers"}, "fold_protocol: 'speakers' is none of paper, random, .*; did you mean speaker?"),
    "count of each": (corpus(), {"count": 4}, "fold_count: 4: the protocol paper has one fold a session: leave fold_count out"),
    "few folds": (corpus(), {"name": "random", "count": 2}, "fold_count: 2: the protocol random needs 3 folds or more"),
    "few sessions": (
        corpus(1),
        {},
        r"fold_protocol: paper needs 2 or more, there are 1 sessions \(0\): restore the others, or use another",
    ),
    "few speakers": (corpus(2), {"name": "each"}, r"fold_protocol: each needs 3 or more, there are 2 speakers \(s0, s1\): restore"),
    "many folds": (
        corpus(3),
        {"name": "speaker"},
        r"speaker needs 4 or more, there are 3 speakers \(s0, s1, s2\): set a smaller fold_count",
    ),
    "few utterances": (WITHOUT[:8], {"name": "random"}, "fold_protocol: random needs 10 or more, there are 8 utterances: set a smaller"),
    "no session": (WITHOUT, {}, "paper cuts by session, but 12 of 12 utterances have no session, the first is u0: use another protocol"),
    "some speakers": (
        [*corpus(), *WITHOUT[:2]],
        {"name": "speaker"},
        r"speaker cuts by speaker, but 2 of \d+ utterances have no speaker, the first is u0",
    ),
    "nothing": ([], {}, r"fold_protocol: paper needs 2 or more, there are 0 sessions"),
    "class of one voice": (
        ONE_VOICE,
        {"name": "each"},
        r"fold speaker-s0: none of its \d+ training utterances is of 1 of 4 classes: sad: set another partition, or restore recordings",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_cut_is_told(fault):
    found, options, message = BAD[fault]
    with pytest.raises(DataError, match=message):
        make(found, **options)

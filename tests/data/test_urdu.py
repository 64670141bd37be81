"""The URDU corpus itself: what its files hold, how speakers and emotions go together, and which recordings share audio."""

from collections import Counter, defaultdict

import preparing
import pytest

from spikebrain.data import duplicates, folds
from spikebrain.data.corpora import urdu

# Neighbouring pieces of one talk show that overlap, and pieces that are there under the names of two speakers.
OVERLAPPING = """SM25_F8_S058 SM25_F9_S059
SM24_F14_S026 SM24_F15_S027
SM2_F2_A024 SM2_F3_A025
SM24_F2_S014 SM24_F3_S015
SM24_F8_S020 SM24_F9_S021
SM24_F4_S016 SM24_F5_S017
SF6_F10_H034 SF6_F5_H029
SM6_F8_H070 SM6_F9_H071"""
TWO_NAMES = """SF1_F4_H04 SF4_F3_H019
SF1_F4_H04 SF4_F4_H020"""


def pairs(text):
    return {tuple(line.split()) for line in text.splitlines()}


@pytest.fixture(scope="module")
def prepared(real_data, tmp_path_factory):
    return urdu.prepare(str(real_data / "urdu_emotion"), str(tmp_path_factory.mktemp("urdu")), strict_counts=True)


@pytest.fixture(scope="module")
def found(prepared):
    return preparing.manifests(urdu, prepared)["all"]


@pytest.fixture(scope="module")
def shared(real_data, found):
    return duplicates.find(found, str(real_data / "urdu_emotion"))


def test_it_is_as_published(prepared, found):
    assert prepared.complete and not prepared.skipped and prepared.differences == ()
    assert prepared.counts["all"] == {"utterances": 400, "hours": 0.2774, "speakers": 29}
    assert Counter(u.label for u in found) == dict.fromkeys(("angry", "happy", "neutral", "sad"), 100)
    assert {u.speaker for u in found} == set(urdu.SPEAKERS) and Counter(name[1] for name in urdu.SPEAKERS) == {"M": 18, "F": 11}
    lengths = Counter(round(u.duration, 3) for u in found)
    assert lengths == {2.0: 200, 3.004: 199, 0.992: 1} and min(found, key=lambda u: u.duration).id == "SM1_F8_A08"


def test_speakers_and_emotions_are_confounded(found):
    emotions = defaultdict(Counter)
    for u in found:
        emotions[u.speaker][u.label] += 1
    assert {speaker for speaker, labels in emotions.items() if len(labels) > 1} == {"SM3", "SM5", "SM6"}
    assert sum(max(labels.values()) for labels in emotions.values()) == 384  # whoever knows the speaker is right in 96 %
    assert {max(labels) for speaker, labels in emotions.items() if speaker in {f"SF{i}" for i in range(1, 9)}} == {"happy"}


def test_recordings_that_share_audio(shared):
    assert {pair[:2] for pair in shared} == pairs(OVERLAPPING) | pairs(TWO_NAMES)
    assert all(pair.correlation > 0.98 and 0.9 < pair.seconds < 2.1 for pair in shared)


@pytest.mark.parametrize("count", [5, 10])
def test_random_folds_leak(prepared, found, shared, count):
    plan = folds.make(found, prepared.settings["folds"], "random", count)
    assert {len(fold.test) for fold in plan} == {400 // count}
    leaking = duplicates.leaks(plan, shared)
    assert len({pair for crossing in leaking.values() for pair in crossing}) >= 6
    assert all("speakers of test are in train" in fold.notes[-1] for fold in plan)


@pytest.mark.parametrize("partition", range(4))
def test_speaker_folds_are_disjoint_and_of_one_size(prepared, found, shared, partition):
    plan = folds.make(found, prepared.settings["folds"], "speaker", partition=partition)
    assert [len(fold.test) for fold in plan] == [80] * 5
    speakers = {u.id: u.speaker for u in found}
    for fold in plan:
        parts = [{speakers[name] for name in part} for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, parts)) == 29
    # The overlaps within a speaker stay together; the recording of two names does not know that it is one.
    assert {pair[:2] for crossing in duplicates.leaks(plan, shared).values() for pair in crossing} <= pairs(TWO_NAMES)
    assert any("classes" in note for fold in plan for note in fold.notes)

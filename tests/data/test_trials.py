"""Lists of trials: read, written, and refused line by line."""

import re

import fake_voxceleb as fake
import pytest

from spikebrain.data import trials
from spikebrain.data.manifest import DataError
from spikebrain.data.trials import Trial

SAME = "1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav\n"
TWO = "0 id10270/x6uYqmx31kE/00001.wav id10300/ize_eiCFEg0/00003.wav\n"


@pytest.fixture
def refused(tmp_path):
    """The message with which a list of the given text is refused."""

    def say(text):
        (tmp_path / "veri_test.txt").write_text(text)
        with pytest.raises(DataError) as error:
            trials.read(tmp_path / "veri_test.txt")
        assert "\n" not in str(error.value)
        return str(error.value)

    return say


def test_reads_the_published_form(tmp_path):
    (tmp_path / "list.txt").write_bytes((SAME + "\n" + TWO).replace("\n", "\r\n").encode())
    assert trials.read(tmp_path / "list.txt") == [
        Trial(True, "id10270/x6uYqmx31kE/00001.wav", "id10270/8jEAjG6SegY/00008.wav"),
        Trial(False, "id10270/x6uYqmx31kE/00001.wav", "id10300/ize_eiCFEg0/00003.wav"),
    ]


def test_ids_and_speakers():
    assert trials.utterance_id("id10270/x6uYqmx31kE/00001.wav") == "id10270-x6uYqmx31kE-00001"
    assert trials.speaker_of("id10270/x6uYqmx31kE/00001.wav") == "id10270"


def test_writes_what_it_reads(tmp_path):
    made = fake.made_trials()
    trials.write(tmp_path / "list.txt", made)
    assert trials.read(tmp_path / "list.txt") == made
    assert (tmp_path / "list.txt").read_text().splitlines()[0] == "1 id10005/1zcIwhmdeo4/00001.wav id10005/7gWzIy6yIIk/00002.wav"
    with pytest.raises(DataError, match=r"worse.txt:1: says 1 \(same speaker\) of id10005 and id10006"):
        trials.write(tmp_path / "worse.txt", [Trial(True, made[-1].enrol, made[-1].test), *made])
    with pytest.raises(DataError, match=r"6 of 6 trials are of the same speaker"):
        trials.write(tmp_path / "worse.txt", made[:6])
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


LINES = {
    "two words": ("1 id1/v/1.wav\n", r"has 2 words, expected 3, <1\|0> <speaker>/<video>/<utterance>\.wav .*: mend the line"),
    "four words": (SAME.strip() + " x\n", "has 4 words, expected 3"),
    "label": ("2" + SAME[1:], r"begins with '2', expected 1 \(same speaker\) or 0 \(two speakers\)"),
    "word": ("target" + SAME[1:], "begins with 'target', expected 1"),
    "absolute": ("1 /id1/v/1.wav id1/v/2.wav\n", r"names '/id1/v/1\.wav', which leads out of the folder of recordings"),
    "drive": (r"1 id1/v/2.wav C:\id1\v\1.wav" + "\n", r"names .*C:.*, which leads out of the folder"),
    "parent": ("1 id1/v/2.wav ../v/1.wav\n", r"names '\.\./v/1\.wav', which leads out of the folder"),
    "depth": ("1 id1/1.wav id1/v/2.wav\n", r"names 'id1/1\.wav', expected <speaker>/<video>/<utterance>\.wav: mend the line"),
    "kind": ("1 id1/v/1.m4a id1/v/2.wav\n", r"names 'id1/v/1\.m4a', expected"),
    "swapped": ("0" + SAME[1:], r"says 0 \(two speakers\) of id10270 and id10270: mend the label or the paths"),
    "swapped again": ("1" + TWO[1:], r"says 1 \(same speaker\) of id10270 and id10300"),
}


@pytest.mark.parametrize("fault", LINES)
def test_bad_lines(refused, fault):
    line, message = LINES[fault]
    said = refused(SAME + TWO + line)
    assert re.search(rf"veri_test\.txt:3: {message}", said) and "such lines" not in said
    assert re.search(rf"veri_test\.txt:3: {message}.* \(2 such lines\)", refused(SAME + TWO + 2 * line))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds 0 trials: write lines such as <1\|0>"),
        ("\n\n", "holds 0 trials"),
        (SAME, r"1 of 1 trials are of the same speaker, 0 of two: the equal error rate needs both, add trials that begin with 0"),
        (2 * TWO, r"0 of 2 trials are of the same speaker, 2 of two: .* that begin with 1"),
    ],
)
def test_lists_on_which_no_error_rate_is_defined(refused, text, message):
    assert re.search(rf"veri_test\.txt: {message}", refused(text))


def test_no_list(tmp_path):
    with pytest.raises(DataError, match=r"list\.txt: there is no such file"):
        trials.read(tmp_path / "list.txt")


def test_utterances_and_how_often_they_are_named():
    made = fake.made_trials()
    assert sorted(trials.utterances(made)) == fake.paths(fake.TESTED)
    assert set(trials.numbers(made).values()) == {2}
    itself = [Trial(True, "id1/v/1.wav", "id1/v/1.wav")]
    assert trials.utterances(itself) == ["id1/v/1.wav"] and trials.numbers(itself) == {"id1/v/1.wav": 1}


def test_trials_of_absent_utterances():
    made = fake.made_trials()
    ids = {trials.utterance_id(path) for path in trials.utterances(made)}
    assert trials.usable(made, ids, "list") == (made, [])
    with pytest.raises(
        DataError, match=r"list: 2 of 12 trials name 1 absent utterances, the first is id10005/7gWzIy6yIIk/00002\.wav: restore"
    ):
        trials.usable(made, ids - {"id10005-7gWzIy6yIIk-00002"}, "list")
    kept, left_out = trials.usable(made, ids - {"id10005-7gWzIy6yIIk-00002"}, "list", skip_bad_audio=True)
    assert (len(kept), len(left_out)) == (10, 2) and all("id10005/7gWzIy6yIIk/00002.wav" in (t.enrol, t.test) for t in left_out)
    assert not any("id10005/7gWzIy6yIIk/00002.wav" in (t.enrol, t.test) for t in kept)


def test_absent_utterances_may_leave_one_kind():
    made = fake.made_trials()
    ids = {trials.utterance_id(path) for path in fake.paths(fake.TESTED[:1])}
    message = r"list, without 9 trials of 6 absent utterances: 3 of 3 trials are of the same speaker, 0 of two"
    with pytest.raises(DataError, match=message):
        trials.usable(made, ids, "list", skip_bad_audio=True)

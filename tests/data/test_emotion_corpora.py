"""What holds for the preparers of all emotion corpora: names, labels, counts, rates, and one planted fault after another."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import fake_casia
import fake_emodb
import fake_emovo
import fake_iemocap
import fake_urdu
import numpy as np
import preparing
import pytest
import soundfile
from preparing import truncate
from speechbrain.dataio.dataio import load_data_csv

from spikebrain.data import emotion, folds, manifest
from spikebrain.data.corpora import casia, emodb, emovo, iemocap, urdu
from spikebrain.data.manifest import DataError, Utterance

IEMOCAP_TURN = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav"


@dataclass(frozen=True)
class Case:
    """A preparer and its fake tree: one of the recordings as it is read, and what the tree holds of how many speakers or sessions."""

    corpus: ModuleType
    make: Callable
    first: Utterance
    utterances: int
    labels: int
    rate: int
    missing: str | None  # of the groups, what the tree lacks; None where it has all


CASES = {
    "casia": Case(
        casia,
        fake_casia.make_tree,
        Utterance("liuchanhg_angry_201", "liuchanhg/angry/201.wav", 0.2, "liuchanhg", label="angry", sentence="201"),
        24,
        6,
        16000,
        None,
    ),
    "emodb": Case(
        emodb,
        fake_emodb.make_tree,
        Utterance("03a01Wa", "wav/03a01Wa.wav", 0.2, "03", label="angry", sentence="a01"),
        28,
        7,
        16000,
        "6 of 10 speakers: 11, 12, 13, 14, 15, 16",
    ),
    "emovo": Case(
        emovo,
        fake_emovo.make_tree,
        Utterance("gio-f2-b1", "f2/gio-f2-b1.wav", 0.2, "f2", label="happy", sentence="b1"),
        42,
        7,
        48000,
        None,
    ),
    "iemocap": Case(
        iemocap,
        fake_iemocap.make_tree,
        Utterance("Ses01F_impro01_M003", IEMOCAP_TURN, 0.2, "Ses01M", label="neutral", session="1"),
        50,
        4,
        16000,
        None,
    ),
    "urdu": Case(
        urdu,
        fake_urdu.make_tree,
        Utterance("SM3_F1_H010", "Happy/SM3_F1_H010.wav", 0.2, "SM3", label="happy"),
        12,
        4,
        44100,
        "19 of 29 speakers: SF3, SF4, SF5, SF6, SF7, SF8, SF11, SM5, SM6, SM7, SM17, SM18, SM19, SM20, SM21, SM22, SM23, SM26, SM27",
    ),
}
# What is published of each: utterances, classes.
PUBLISHED = {"casia": (1200, 6), "emodb": (535, 7), "emovo": (588, 7), "iemocap": (5531, 4), "urdu": (400, 4)}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """Name -> a sound tree, made once."""
    folder = tmp_path_factory.mktemp("emotion")
    return {name: case.make(folder / name) for name, case in CASES.items()}


@pytest.fixture
def tree(case, sound, tmp_path):
    """A copy of the sound tree, to be damaged."""
    return shutil.copytree(sound[case.corpus.__name__.rpartition(".")[2]], tmp_path / case.corpus.CORPUS.name)


@pytest.fixture
def prepare(case, tree, tmp_path):
    return lambda **options: preparing.prepare(case.corpus, tree, tmp_path, **options)


@pytest.fixture
def refusal(case, tree, tmp_path):
    return lambda **options: preparing.refusal(case.corpus, tree, tmp_path, **options)


@pytest.fixture
def left_out(case, tree, tmp_path):
    return lambda **options: preparing.left_out(case.corpus, tree, tmp_path, **options)


def utterances(case, done):
    return preparing.manifests(case.corpus, done)["all"]


def facts(case):
    """The EmotionCorpus of a preparer."""
    return getattr(case.corpus, f"_{case.corpus.CORPUS.name}")


def test_reads_the_layout(case, tree):
    found = case.corpus.read(str(tree), "all")
    assert case.first in found and len(found) == case.utterances
    assert [u.id for u in found] == sorted(u.id for u in found)
    assert len({u.label for u in found}) == case.labels == case.corpus.CLASSES


def test_one_schema(case, prepare):
    done = prepare()
    assert utterances(case, done)
    with open(done.manifests["all"]) as file:
        assert file.readline() == "ID,duration,wav,start,spk_id,label,session,sentence\n"
    row = load_data_csv(done.manifests["all"], {"data_root": "/corpus"})[case.first.id]
    assert (row["wav"], row["spk_id"], row["label"]) == (f"/corpus/{case.first.wav}", case.first.speaker, case.first.label)
    assert {u.id for u in manifest.read(done.manifests["all"], manifest.CLASS_COLUMNS)} == {u.id for u in utterances(case, done)}


def test_labels_are_the_same_words_in_every_corpus():
    every = Counter(label for case in CASES.values() for label in facts(case).labels)
    assert [label for label, number in sorted(every.items()) if number == 5] == ["angry", "happy", "neutral", "sad"]
    assert sorted(every) == ["angry", "boredom", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    assert facts(CASES["iemocap"]).labels == ("angry", "happy", "neutral", "sad")  # 0 to 3, as emotion2vec numbers them


@pytest.mark.parametrize("name", CASES)
def test_published_counts(name):
    known, (number, classes) = facts(CASES[name]), PUBLISHED[name]
    assert CASES[name].corpus.CORPUS.published["all"].utterances == number == sum(known.numbers.values())
    assert len(known.labels) == classes and {key[-1] for key in known.numbers} == set(known.labels)


def test_flac_is_read_as_wav_is(case, tree, tmp_path):
    case.make(tmp_path / "flac", ".flac")
    shown = [replace(u, wav=u.wav.replace(".wav", ".flac")) for u in case.corpus.read(str(tree), "all")]
    assert case.corpus.read(str(tmp_path / "flac"), "all") == shown


def test_what_is_missing_is_named(case, prepare, tree, caplog):
    done = prepare()
    said = "; ".join(done.differences)
    number, hours = PUBLISHED[case.corpus.__name__.rpartition(".")[2]][0], facts(case).hours
    assert done.differences[0].startswith(f"all has {case.utterances} utterances (published: {number}), 0.00 h ({hours})")
    assert f"has no utterance of {case.missing}" in said if case.missing else "has no utterance" not in said
    assert f"all differs in {len(facts(case).numbers)} of {len(facts(case).numbers)} counts: " in said
    assert said in caplog.text


def test_contradictions_of_the_literature_are_said(sound, tmp_path):
    done = {name: case.corpus.prepare(str(sound[name]), str(tmp_path / name)) for name, case in CASES.items()}
    assert "it has 6 emotions of 200 utterances; PTS-SNN's table says 4" in done["casia"].differences[0]
    assert "its files name 29 speakers; its page and PTS-SNN's table say 38" in done["urdu"].differences[0]
    assert not any("PTS-SNN" in line for name in ("emodb", "emovo", "iemocap") for line in done[name].differences)


def test_a_group_that_is_missing_and_one_that_is_strange(sound, tmp_path):
    tree = shutil.copytree(sound["casia"], tmp_path / "CASIA")
    (tree / "wangzhe").rename(tree / "wangzhi")
    done = casia.prepare(str(tree), str(tmp_path / "save"))
    assert "all has no utterance of 1 of 4 speakers: wangzhe" in done.differences
    assert "all has speakers that CASIA does not have: wangzhi" in done.differences
    with pytest.raises(DataError, match=r"1 of 4 speakers: wangzhe.*--strict_counts=False"):
        casia.prepare(str(tree), str(tmp_path / "save"), strict_counts=True)


def test_counts_as_published_are_complete(case, tree, tmp_path, caplog):
    found = case.corpus.read(str(tree), "all")
    grouped = Counter((getattr(u, facts(case).group), u.label) for u in found)
    known = replace(facts(case), numbers=grouped, groups=tuple({key[0] for key in grouped}), hours=0.0)
    known = replace(known, speakers=len({u.speaker for u in found}))
    differences = known.corpus().differences(str(tree), {"all": found})
    assert differences == ()
    first = next(iter(grouped))
    differences = replace(known, numbers={**grouped, first: grouped[first] + 1}).corpus().differences(str(tree), {"all": found})
    assert f"all differs in 1 of {len(grouped)} counts: {known.group} {' '.join(first)} {grouped[first]} (published: " in differences[-1]


def test_a_choice_of_emotions(case, prepare):
    done = prepare(emotions=["sad", "angry"])
    assert {u.label for u in utterances(case, done)} == {"angry", "sad"} and done.settings["classes"] == ["angry", "sad"]
    published = sum(number for key, number in facts(case).numbers.items() if key[-1] in ("angry", "sad"))
    assert f"(published: {published})" in done.differences[0] and "speakers (none)" in done.differences[0]
    assert prepare().settings["classes"] == sorted(facts(case).labels)


@pytest.mark.parametrize(
    ("emotions", "message"),
    [
        ("sad", r"emotions: 'sad' is no choice of 2 or more: write for example \['angry', "),
        (["sad"], r"emotions: \['sad'\] is no choice of 2 or more"),
        (["sad", "angri"], r"emotions: 'angri' of \['sad', 'angri'\] is not one of angry, .*, each once; did you mean angry\?"),
        (["sad", "sad"], r"emotions: 'sad' of \['sad', 'sad'\] is not one of .*, each once"),
    ],
)
def test_emotions_that_are_none(refusal, emotions, message):
    assert re.search(message, refusal(emotions=emotions))


# Test folds of the three protocols, where there is enough of everything.
PLANS = {
    "casia": ([f"speaker-{name}" for name in casia.SPEAKERS], [f"speaker-{name}" for name in casia.SPEAKERS]),
    "emodb": (list("123456789") + ["10"], [f"speaker-{name}" for name in fake_emodb.SPEAKERS]),
    "emovo": (list("123456789") + ["10"], [f"speaker-{name}" for name in emovo.SPEAKERS]),
    "iemocap": ([f"session-{number}" for number in "12345"], [f"session-{number}" for number in "12345"]),
    "urdu": (list("123456789") + ["10"], list("12345")),
}


@pytest.mark.parametrize("name", PLANS)
def test_settings_say_how_it_may_be_cut(name, sound, tmp_path):
    case = CASES[name]
    done = case.corpus.prepare(str(sound[name]), str(tmp_path))
    assert list(done.settings["folds"]) == ["paper", "random", "speaker"]
    found = [replace(u, id=f"{u.id}-{i}") for u in utterances(case, done) for i in range(10)]
    if name == "urdu":  # each speaker in each emotion, so that no part lacks one
        found = [replace(u, id=f"{u.id}-{label}", label=label) for u in found for label in facts(case).labels]
    plans = [folds.make(found, done.settings["folds"], protocol) for protocol in ("paper", "random", "speaker")]
    assert [[fold.name for fold in plan] for plan in plans] == [PLANS[name][0], list("12345"), PLANS[name][1]]
    for plan in plans:
        assert sorted(name for fold in plan for name in fold.test) == sorted(u.id for u in found)
    speakers = {u.id: u.speaker for u in found}
    for fold in plans[2]:
        heard = [{speakers[name] for name in part} for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, heard)) == len(set.union(*heard))


def recording(case, tree):
    return tree / case.first.wav


FAULTS = {
    "empty": (lambda path, rate: path.write_bytes(b""), r"is empty \(0 bytes\): restore the file"),
    "no samples": (lambda path, rate: soundfile.write(path, np.zeros(0), rate), "holds 0 samples: restore the file"),
    "truncated": (lambda path, rate: truncate(path, 0.6), r"is truncated or damaged: its header promises \d+ bytes of audio"),
    "no audio": (lambda path, rate: path.write_text("none" * 20), r"cannot be read \(.*; 80 bytes\): restore the file"),
    "not finite": (
        lambda path, rate: soundfile.write(path, np.full(800, np.nan), rate, subtype="FLOAT"),
        "holds 800 NaN or infinite samples of 800: restore the file",
    ),
    "wrong rate": (
        lambda path, rate: soundfile.write(path, np.zeros(800), 8000),
        r"has a sample rate of 8000 Hz, expected (\d+ or )?16000 Hz: restore the file, or resample it to 16000 Hz",
    ),
    "twice": (lambda path, rate: soundfile.write(path.with_suffix(".flac"), np.zeros(800), rate), r"is there as \S+ too: remove one of"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_recording_is_named_or_left_out(case, tree, refusal, left_out, fault):
    plant, message = FAULTS[fault]
    plant(recording(case, tree), case.rate)
    said = refusal()
    assert re.match(rf"{case.first.wav.removesuffix('.wav')}\.(wav|flac): {message}.* or pass --skip_bad_audio=True", said), said
    done, kept = left_out() if fault != "twice" else (None, None)
    assert fault == "twice" or len(kept["all"]) == case.utterances - 1 and done.skipped[0].id == case.first.id


def test_the_released_rate_and_16_khz_are_read(case, tree, prepare):
    path = recording(case, tree)
    for rate in facts(case).rates:
        for channels in (1, 2):
            soundfile.write(path, np.zeros((rate // 2, channels)) + 0.1, rate)
            assert [u.duration for u in utterances(case, prepare()) if u.id == case.first.id] == [0.5]


def test_a_minute_is_read(case, tree, prepare):
    soundfile.write(recording(case, tree), 0.1 * np.ones(60 * 16000), 16000)
    assert max(u.duration for u in utterances(case, prepare())) == 60.0


# What becomes of the first recording's name, and what is said of it.
MISNAMED = {
    "casia": ("liuchanhg/angry/two.wav", "expected <speaker>/<emotion>/<sentence>.wav"),
    "emodb": ("wav/3a01Wa.wav", "expected wav/<two digits, speaker>"),
    "emovo": ("f2/gio-f1-b1.wav", "expected <speaker>/<emotion>-<the same speaker>-"),
    "urdu": ("Sad/SM3_F1_H010.wav", "expected <emotion>/S<M or F><number, speaker>_F<number, file>_<the emotion's first letter>"),
}
STRANGE = {
    "casia": ("liuchanhg/hapy/201.wav", "has the emotion 'hapy', which is none of the 6 of CASIA: angry, .*; did you mean happy?: mend"),
    "emodb": ("wav/03a01Xa.wav", "has the emotion 'X', which is none of the 7 of EMODB: W, L, E, A, F, T, N: mend or remove it"),
    "emovo": ("f2/gioa-f2-b1.wav", "has the emotion 'gioa', which is none of the 7 of EMOVO: dis, .*; did you mean gio?"),
    "urdu": ("Fear/SM3_F1_F010.wav", "has the emotion 'F', which is none of the 4 of URDU: A, H, N, S: mend or remove it"),
}


@pytest.mark.parametrize("name", MISNAMED)
@pytest.mark.parametrize("faults", [MISNAMED, STRANGE])
def test_a_name_that_says_nothing_and_a_label_outside_the_set(sound, tmp_path, name, faults):
    case, (becomes, message) = CASES[name], faults[name]
    tree = shutil.copytree(sound[name], tmp_path / "tree")
    (tree / becomes).parent.mkdir(exist_ok=True)
    recording(case, tree).rename(tree / becomes)
    said = preparing.refusal(case.corpus, tree, tmp_path)
    expected = f"{becomes}: is named '{becomes}', {message}" if faults is MISNAMED else f"{becomes}: {message}"
    assert re.match(re.escape(expected).replace(r"\.\*", ".*"), said), said
    _, kept = preparing.left_out(case.corpus, tree, tmp_path)
    assert len(kept["all"]) == case.utterances - 1


def test_files_that_are_no_recordings_are_of_no_interest(case, tree, prepare):
    (tree / "notes").mkdir()
    (tree / "notes" / "readme.txt").write_text("none")
    recording(case, tree).with_name("._hidden.wav").write_bytes(b"\0")
    recording(case, tree).with_suffix(".lab").write_text("none")
    assert len(utterances(case, prepare())) == case.utterances


def test_a_recording_of_two_channels_is_checked_to_its_end(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((4800, 2)), 48000)
    assert emotion.probe(str(path), (48000, 16000), True) == (0.1, None)
    truncate(path, 0.5)
    seconds, problem = emotion.probe(str(path), (48000, 16000), False)
    assert seconds == 0 and "is truncated or damaged" in problem

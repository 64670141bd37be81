"""The twins of emotion corpora: the corpora's layouts, rates and faults, and emotions that can be told from unheard voices."""

from importlib import import_module

import numpy as np
import pytest
import soundfile

from spikebrain.data import duplicates, folds, manifest
from spikebrain.data.corpora import iemocap as iemocap_corpus
from spikebrain.data.emotion import COLUMNS
from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic import casia, emodb, emotion, emovo, iemocap, maker, speech, urdu

pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")

# Recordings of each speaker and emotion that are made here, how many that are, rate, channels and classes.
SMALL = {
    "casia": (2, 48, 16000, 1, 6),
    "emodb": (1, 70, 16000, 1, 7),
    "emovo": (1, 42, 48000, 2, 7),
    "iemocap": (2, 80, 16000, 1, 4),
    "urdu": (3, 48, 44100, 1, 4),
}
MODULES = {"casia": casia, "emodb": emodb, "emovo": emovo, "iemocap": iemocap, "urdu": urdu}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Name -> a small twin."""
    out = tmp_path_factory.mktemp("twins")
    return {name: maker(name).make(out / name, 5, {"all": given[0]}) for name, given in SMALL.items()}


@pytest.mark.parametrize("name", SMALL)
def test_the_preparer_reads_it(name, twins, tmp_path):
    _, number, rate, channels, classes = SMALL[name]
    corpus = import_module(f"spikebrain.data.corpora.{name}")
    done = corpus.prepare(str(twins[name]), str(tmp_path))
    found = manifest.read(done.manifests["all"], COLUMNS)
    assert not done.skipped and not done.complete and len(found) == number
    assert {u.speaker for u in found} == set(MODULES[name].VOICES) and len({u.label for u in found}) == classes
    info = soundfile.info(twins[name] / found[0].wav)
    assert (info.samplerate, info.channels, info.subtype) == (rate, channels, "PCM_16")
    assert 0.8 < min(u.duration for u in found) and max(u.duration for u in found) < 8


@pytest.mark.parametrize("name", SMALL)
def test_the_default_can_be_cut_by_every_protocol(name, tmp_path, monkeypatch):
    # Names and labels are those of the default; what is said in them does not matter here.
    wav = np.random.default_rng(3).standard_normal(4000).astype(np.float32) * 0.1
    monkeypatch.setattr(emotion, "render", lambda take, rate: wav)
    out = maker(name).make(tmp_path / "twin")
    corpus = import_module(f"spikebrain.data.corpora.{name}")
    found, protocols = corpus.read(str(out), "all"), corpus.CORPUS.settings["folds"]
    assert 150 <= len(found) <= 600
    for protocol in ("paper", "random"):
        plan = folds.make(found, protocols, protocol)
        assert not any(note.startswith(("test has no", "the protocol leaves out")) for fold in plan for note in fold.notes)
    assert folds.make(found, protocols, "speaker")


@pytest.mark.parametrize("name", SMALL)
def test_every_voice_exists(name):
    assert set(MODULES[name].VOICES.values()) <= set(speech.variants())
    assert len(set(MODULES[name].VOICES.values())) == len(MODULES[name].VOICES)


def test_voices_of_iemocap_are_those_who_speak(twins):
    found = {u.id: u for u in iemocap_corpus.read(str(twins["iemocap"]), "all")}
    said = iemocap.turns(5, 2)
    for turns in said.values():
        for code, take in turns:
            name = take.path.rpartition("/")[2].removesuffix(".wav")
            assert (name in found) == (code != "fru")
            variant = take.voice.name.partition("+")[2]
            assert name not in found or iemocap.VOICES[found[name].speaker] == variant
    assert {code for turns in said.values() for code, _ in turns} == {"ang", "hap", "exc", "neu", "sad", "fru"}
    assert len(list(twins["iemocap"].glob("Session*/dialog/EmoEvaluation/Categorical/*.txt"))) == 10


def test_urdu_has_the_faults_of_the_corpus(tmp_path):
    out = urdu.make(tmp_path / "twin", 5, {"all": 6})
    found = maker_corpus("urdu").read(str(out), "all")
    expected = [(take.after.path, take.path) for take in urdu.takes(5, 6) if take.after]
    assert len(expected) == 4
    wavs = {u.id: u.wav for u in found}
    assert {frozenset(wavs[name] for name in pair[:2]) for pair in duplicates.find(found, str(out))} == set(map(frozenset, expected))
    emotions = {speaker: {u.label for u in found if u.speaker == speaker} for speaker in urdu.VOICES}
    assert {speaker for speaker, labels in emotions.items() if len(labels) > 1} == {"SM3", "SM5"}


def maker_corpus(name):
    return import_module(f"spikebrain.data.corpora.{name}")


def measure(path):
    """What an emotion changes, of a recording: its length, level and liveliness, and where its spectrum lies."""
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    frames = wav.mean(1)[: len(wav) // (rate // 50) * (rate // 50)].reshape(-1, rate // 50)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), axis=1))) + 1e-9
    bands = np.log(np.add.reduceat(power[:, 1:], [0, 2, 4, 8, 16, 32], axis=1))
    return np.concatenate([[np.log(len(wav) / rate)], bands.mean(0), bands.std(0)])


def test_emotions_are_told_from_voices_that_were_not_heard(tmp_path):
    out = casia.make(tmp_path / "twin", 5, {"all": 6})
    found = maker_corpus("casia").read(str(out), "all")
    x, labels = np.stack([measure(out / u.wav) for u in found]), sorted({u.label for u in found})
    y, speakers = np.array([labels.index(u.label) for u in found]), np.array([u.speaker for u in found])
    x = np.hstack([(x - x.mean(0)) / x.std(0), np.ones((len(x), 1))])
    right = []
    for speaker in casia.VOICES:
        train = speakers != speaker
        weights = np.linalg.solve(x[train].T @ x[train] + np.eye(x.shape[1]), x[train].T @ np.eye(len(labels))[y[train]])
        right += list((x[~train] @ weights).argmax(1) == y[~train])
    assert np.mean(right) > 0.5  # chance is 1/6


def test_moods_change_voices_as_they_say():
    calm = speech.Voice("en-us+m3", 165, 50, 50)
    acted = {label: [emotion.act(calm, label, np.random.default_rng(i)) for i in range(20)] for label in emotion.MOODS}
    mean = {label: np.mean([(v.rate, v.pitch, v.pitch_range) for v in voices], axis=0) for label, voices in acted.items()}
    assert mean["angry"][0] > mean["neutral"][0] > mean["sad"][0] > 80
    assert mean["happy"][1] > mean["neutral"][1] > mean["sad"][1]
    assert mean["surprise"][2] > mean["neutral"][2] > mean["boredom"][2]
    assert all(len(set(voices)) > 15 for voices in acted.values())


@pytest.mark.parametrize(("name", "most"), [("casia", 50), ("emodb", 260), ("emovo", 14)])
def test_no_more_than_the_corpus_has_sentences(name, most, tmp_path):
    with pytest.raises(DataError, match=f"has {most} sentences, ask for {most} or fewer"):
        maker(name).make(tmp_path / "twin", 5, {"all": most + 1})
    assert not list(tmp_path.iterdir())


def test_sentences_differ():
    for texts in (casia.TEXTS, iemocap.TEXTS, urdu.TEXTS):
        assert len(set(texts)) == len(texts) and all(a != b for a, b in zip(texts, texts[1:]))

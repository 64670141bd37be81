"""Where an emotion recipe's features come from: the cache, files that were extracted elsewhere, and audio that gives none."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from spikebrain import lobes
from spikebrain.data import preparation
from spikebrain.data.corpora import iemocap
from spikebrain.data.emotion2vec_files import HOP, SAMPLE_RATE, WINDOW, Emotion2VecFiles
from spikebrain.data.manifest import DataError
from spikebrain.lengths import conv_frames
from spikebrain.lobes import utterance_features
from spikebrain.training import emotion, hooks
from spikebrain.training.run import run

RATE = SAMPLE_RATE
# What a recipe's YAML says of a frozen model, and what takes its place.
MODEL = r"ssl_folder: .*\n((?:.*\n)*?)features: !new:spikebrain\.lobes\.utterance_features\.HuggingFace\n(?: +.*\n)+"
FILES = "features: !new:spikebrain.data.emotion2vec_files.Emotion2VecFiles\n    prefix: {}\n"
WORDS = {label: code for code, label in iemocap.EMOTIONS.items() if code != "exc"}  # as the authors' files have them
CHANNELS = 12
SMALL = {"fold": "[session-1]", "number_of_epochs": 1, "d_model": 16, "batch_size": 8}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures take longer than training here."""
    monkeypatch.setattr(hooks, "draw", lambda *those: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """IEMOCAP's twin, a turn of each emotion and speaker; it is not written to."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import iemocap as synthetic

    return synthetic.make(tmp_path_factory.mktemp("made") / "IEMOCAP", utterances={"all": 1})


@pytest.fixture
def twin(made, tmp_path):
    """A copy of the twin, that may be spoiled."""
    return shutil.copytree(made, tmp_path / "IEMOCAP")


@pytest.fixture
def words(checkout, twin, tmp_path):
    """The recipe and the command line behind it, small."""
    recipe = checkout / "recipes" / "IEMOCAP"

    def make(file=recipe / "hparams" / "pts_snn_mini.yaml", **overrides):
        out = {"output_folder": tmp_path / "run", "cache_folder": tmp_path / "features", "data_folder": twin}
        mels = {"n_mels": 20} if "mini" in file.name else {}
        values = {**SMALL, **mels, **out, **overrides}
        return str(recipe / "train.py"), [str(file), "--device=cpu", "--noprogressbar", *(f"--{k}={v}" for k, v in values.items())]

    return make


@pytest.fixture
def train(words, tmp_path):
    """Runs the recipe in this process: results.json as read back, and what the run has logged."""

    def go(*file, **overrides):
        recipe, argv = words(*file, **overrides)
        run(recipe, iemocap, emotion, argv)
        folder = overrides.get("output_folder", tmp_path / "run")
        return json.loads((folder / "results.json").read_text(encoding="utf-8")), (folder / "log.txt").read_text(encoding="utf-8")

    return go


@pytest.fixture
def message(words, monkeypatch):
    """What the program ends with, after checking that it is one line."""

    def go(*file, **overrides):
        recipe, argv = words(*file, **overrides)
        monkeypatch.setattr(sys, "argv", [recipe, *argv])
        with pytest.raises(SystemExit) as ended:
            run(recipe, iemocap, emotion)
        assert ended.value.code.startswith("train.py: ") and "\n" not in ended.value.code
        return ended.value.code

    return go


def utterances(folder):
    return iemocap.read(folder, "all")


def ids_of_test(folder):
    """Ids of the test utterances of a run."""
    with open(folder / "save" / "predictions.csv", encoding="utf-8", newline="") as lines:
        return {row["id"] for row in csv.DictReader(lines)}


def overwrite(folder, utterance, wav, **how):
    soundfile.write(folder / utterance.wav, wav, RATE, **how)
    return str(folder / utterance.wav)


@pytest.fixture
def spoiled(twin, monkeypatch):
    """An utterance of session 1 with a sample in its middle that is no number, in a corpus too large to be decoded beforehand."""
    monkeypatch.setattr(preparation, "DECODE_ALL_BYTES", 0)
    first = utterances(twin)[0]
    wav = soundfile.read(twin / first.wav, dtype="float32")[0]
    wav[len(wav) // 2] = np.nan
    return first, overwrite(twin, first, wav, subtype="FLOAT")


def test_audio_that_turns_out_bad_when_it_is_read_ends_the_run(spoiled, message):
    assert f"{spoiled[1]}: " in message() and "NaN" in message()


def test_audio_that_turns_out_bad_when_it_is_read_is_in_no_fold(spoiled, train, twin, tmp_path):
    bad, others = spoiled[0], {u.id for u in utterances(twin) if u.session == "1"} - {spoiled[0].id}
    results, log = train(skip_bad_audio=True)
    assert log.count(f"1 of 40 utterances are left out of all folds: {bad.id}") == 1
    assert results["left_out"] == [bad.id] and ids_of_test(tmp_path / "run") == others
    assert sum(results["folds"][0]["sizes"].values()) == 39


def test_a_sound_corpus_leaves_nothing_out(train, tmp_path):
    results, log = train(skip_bad_audio=True)
    assert results["left_out"] == [] and "left out of all folds" not in log and len(ids_of_test(tmp_path / "run")) == 8


def test_folds_that_cannot_be_cut_are_refused_before_anything_is_extracted(message, tmp_path):
    assert "fold_protocol: 'papers' is none of" in message(fold_protocol="papers")
    assert not (tmp_path / "features").exists()


def test_an_utterance_of_0_seconds(words, twin):
    """In a process of its own: what a user sees."""
    path = overwrite(twin, utterances(twin)[0], np.zeros(0), subtype="PCM_16")
    recipe, argv = words()
    ended = subprocess.run([sys.executable, recipe, *argv], capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stdout + ended.stderr
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("train.py: ")]
    assert path.removeprefix(f"{twin}/") in said and "0 samples" in said and "--skip_bad_audio=True" in said


def test_utterances_that_are_too_short(message, train, twin):
    short = utterances(twin)[0]
    path = overwrite(twin, short, np.full(400, 0.1), subtype="PCM_16")
    assert f"{path}: lasts 0.0250 s (400 samples), at least 0.1000 s are needed" in message(min_seconds=0.1)
    assert train(min_seconds=0.1, skip_bad_audio=True)[0]["left_out"] == [short.id]


@pytest.mark.parametrize("limit", [None, 3])
def test_an_utterance_of_60_seconds(train, twin, tmp_path, limit):
    """It is taken whole, or cropped with a line that counts."""
    rng, longest = np.random.default_rng(0), utterances(twin)[0]
    path = overwrite(twin, longest, 0.1 * rng.standard_normal(60 * RATE), subtype="PCM_16")
    long = sum(u.duration > 3 for u in utterances(twin))
    _, log = train(max_seconds=limit or "null")
    said = f"max_seconds: 3 crops {long} of 40 utterances; the longest, {path}, lasts 60.00 s"
    assert (said in log) == (limit is not None) and longest.id in ids_of_test(tmp_path / "run")


def test_entries_of_another_model_are_made_again(train, tmp_path):
    train()
    mended, log = train(n_mels=16, output_folder=tmp_path / "again")
    fresh, _ = train(n_mels=16, output_folder=tmp_path / "fresh", cache_folder=tmp_path / "other")
    assert f"{tmp_path / 'features'}: 40 of 40 entries made again: each is of another model or of other options" in log
    assert mended["confusion"] == fresh["confusion"] and mended["pooled"] == fresh["pooled"]


def test_entries_of_another_recording_are_made_again(train, twin, tmp_path):
    train()
    changed = utterances(twin)[3]
    overwrite(twin, changed, soundfile.read(twin / changed.wav)[0][::-1], subtype="PCM_16")
    _, log = train(output_folder=tmp_path / "again")
    assert f"{tmp_path / 'features'}: 1 of 40 entries made again: each is of another recording" in log


@pytest.fixture
def extracted(made, tmp_path):
    """The path, without their endings, of files in the authors' format: features of which a channel tells the label, and noise."""
    rng, known = np.random.default_rng(0), utterances(made)[::-1]  # in an order of their own
    lengths = [conv_frames(round(u.duration * SAMPLE_RATE), WINDOW, HOP) for u in known]
    rows = rng.standard_normal((sum(lengths), CHANNELS)).astype(np.float32)
    rows[np.arange(len(rows)), np.repeat([list(WORDS).index(u.label) for u in known], lengths)] += 4
    np.save(tmp_path / "train.npy", rows)
    (tmp_path / "train.lengths").write_text("".join(f"{length}\n" for length in lengths))
    (tmp_path / "train.emo").write_text("".join(f"{u.id}\t{WORDS[u.label]}\n" for u in known))
    return tmp_path / "train"


@pytest.fixture
def yaml(checkout, extracted, tmp_path):
    """The recipe's YAML with those files in place of a model and its folder, and no other change."""
    text = (checkout / "recipes" / "IEMOCAP" / "hparams" / "pts_snn.yaml").read_text(encoding="utf-8")
    text, number = re.subn(MODEL, lambda match: match[1] + FILES.format(extracted), text)
    assert number == 1 and text.count("../../shared") == 1
    path = tmp_path / "files.yaml"
    path.write_text(text.replace("../../shared", str(checkout / "recipes" / "shared")), encoding="utf-8")
    return path


def test_files_stand_where_an_extractor_would(train, yaml, tmp_path):
    """Each utterance has its own rows: their labels are learned, and nothing is kept of them."""
    results, log = train(yaml, number_of_epochs=25, lr=0.01, logit_scale=4)
    assert results["metrics"]["test"]["WA"] == 100 and results["left_out"] == []
    assert not (tmp_path / "features").exists() and "made again" not in log


@pytest.mark.full
def test_files_serve_folds_side_by_side(train, yaml):
    alone, _ = train(yaml, fold="[session-1,session-2]")
    beside, _ = train(yaml, fold="[session-1,session-2]", jobs=2, output_folder=yaml.parent / "beside")
    assert beside["confusion"] == alone["confusion"]
    assert [fold["metrics"] for fold in beside["folds"]] == [fold["metrics"] for fold in alone["folds"]]


def test_the_recipe_crops_what_is_in_files(train, yaml, twin, extracted):
    long = sum(u.duration > 2 for u in utterances(twin))
    assert 0 < long < 40
    _, log = train(yaml, max_seconds=2)
    assert f"{extracted}: {long} of 40 utterances are cropped to 99 frames" in log


def test_an_utterance_that_files_lack(message, train, yaml, twin, extracted, tmp_path):
    names, lacking = (extracted.with_suffix(".emo"), utterances(twin)[0].id)
    names.write_text(names.read_text(encoding="utf-8").replace(lacking, "Ses01F_impro09_F000"), encoding="utf-8")
    assert f"{names} has no line for {lacking}; it holds 40 utterances" in message(yaml)
    results, log = train(yaml, skip_bad_audio=True)
    assert results["left_out"] == [lacking] and lacking not in ids_of_test(tmp_path / "run")
    assert f"1 of 40 utterances are left out of all folds: {lacking}" in log


def test_limits_of_files_are_the_tighter_ones(extracted, made):
    files, first = Emotion2VecFiles(extracted, max_seconds=1.5, min_seconds=0.2), utterances(made)[0]
    assert [len(files.limited(*limits).get(first.id)) for limits in ((0.0, None), (0.0, 1.0), (0.0, 9.0))] == [74, 49, 74]
    assert files.limited(0.0, None).min_seconds == 0.2 and files.max_seconds == 1.5
    with pytest.raises(DataError, match=r"lasts 1\.000 s, at least 1\.2 s are needed"):
        files.limited(1.2, None).get(first.id, 0, 1.0)
    with pytest.raises(DataError, match="max_seconds: 1.5 is not more than min_seconds: 2.0"):
        files.limited(2.0, None)


def test_files_that_do_not_exist_end_the_run(message, yaml, extracted):
    extracted.with_suffix(".npy").unlink()
    assert f"{extracted}.npy: there is no such file" in message(yaml)


def test_extractors_are_among_the_lobes():
    for name in ("Fbank", "HuggingFace", "Emotion2Vec"):
        assert getattr(lobes, name) is getattr(utterance_features, name) and name in lobes.__all__

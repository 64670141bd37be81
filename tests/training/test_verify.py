"""Verification of speakers: trials are scored as a plain loop would, tested speakers are not trained on, cohorts, what is refused."""

import functools
import json
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import fake_voxceleb  # noqa: E402

from spikebrain.data import audio, trials  # noqa: E402
from spikebrain.data.corpora import voxceleb  # noqa: E402
from spikebrain.data.manifest import DataError  # noqa: E402
from spikebrain.data.trials import Trial  # noqa: E402
from spikebrain.frontend.normalisation import UtteranceNormalization  # noqa: E402
from spikebrain.lobes import LogMel, SpeakerEmbedding  # noqa: E402
from spikebrain.training import hooks, keys, scoring, verify  # noqa: E402
from spikebrain.training.checkpoints import CheckpointError  # noqa: E402
from spikebrain.training.schedules import StepByEpoch, WarmupDecay  # noqa: E402

SPLITS = ["vox1-dev", "vox1-valid", "vox1-o"]
SMALL = {"num_layers": 2, "d_model": 16, "nhead": 2, "d_ffn": 32, "final_norm": False}
RUN = {"device": "cpu", "noprogressbar": True}
JOINED = functools.partial(SpeakerEmbedding, 20, 8, "iml_spikeformer", SMALL, attention_channels=8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six speakers who are tones; the last two are those of the twelve trials, and no two of their recordings are equally long."""
    tree = fake_voxceleb.make_tree(tmp_path_factory.mktemp("verify") / "VoxCeleb")
    for i, path in enumerate(fake_voxceleb.paths(fake_voxceleb.TESTED)):
        wav, rate = soundfile.read(tree / "wav" / path)
        soundfile.write(tree / "wav" / path, wav[: len(wav) - 173 * i], rate, subtype="PCM_16")
    return tree


@pytest.fixture
def hparams(corpus, tmp_path):
    """What a recipe gives, small."""

    def make(**changes):
        return {
            **verify.OPTIONAL, "seed": 5, "model": "small", "data_folder": str(corpus), "output_folder": str(tmp_path / "run"),
            "save_folder": str(tmp_path / "run" / "save"), "train_splits": SPLITS[:1], "dev_splits": SPLITS[1:2], "test_splits": SPLITS[2:],
            "features": LogMel(n_mels=20, f_max=1000, n_fft=512, pre_emphasis=0.9), "normalize": UtteranceNormalization(),
            "embedding_model": JOINED,
            "loss": "am", "number_of_epochs": 2, "batch_size": 4, "eval_batch_size": 5, "seconds": 0.2,
            "opt_class": functools.partial(torch.optim.AdamW, lr=0.01), "schedule": functools.partial(WarmupDecay, lr=0.01), **changes,
        }  # fmt: skip

    return make


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Pictures take longer than training here; one test draws the curve."""
    draw, wanted = hooks.draw, "found" in request.node.name
    monkeypatch.setattr(hooks, "draw", lambda folder, pictures: draw(folder, pictures) if wanted and "det" in pictures else None)


@pytest.fixture
def prepare(tmp_path):
    return lambda tree, **options: voxceleb.prepare(str(tree), str(tmp_path / "manifests"), SPLITS, valid_share=0.4, **options)


@pytest.fixture
def train(hparams, prepare):
    """Prepares the tree and trains on it: the task's part of results.json."""

    def go(**changes):
        values = hparams(**changes)
        Path(values["output_folder"]).mkdir(parents=True, exist_ok=True)
        return verify.train(values, RUN, prepare(values["data_folder"]))

    return go


def read_scores(folder):
    return [line.split() for line in (folder / "scores_vox1-o.txt").read_text().splitlines()]


def plain_embeddings(brain, tree):
    """Every utterance of the trials by itself, without loaders, batches or lengths."""
    with torch.no_grad():
        brain.modules.eval()
        paths = trials.utterances(trials.read(tree / "veri_test.txt"))
        wavs = {path: audio.load(str(tree / "wav" / path), 16000) for path in paths}
        parts = brain.parts
        return {path: parts["embedding_model"](parts["normalize"](parts["features"](wav[None])[0]))[0, 0] for path, wav in wavs.items()}


def test_a_run_says_what_it_found(train, tmp_path):
    report = train(number_of_epochs=6)
    found, folder = report["metrics"]["vox1-o"], tmp_path / "run"
    assert set(report["metrics"]) == {"vox1-valid", "vox1-o"} and set(report["metrics"]["vox1-valid"]) == {"accuracy"}
    assert set(found) == {"EER", "minDCF", "minDCF_0.05"} and report["trials"] == {"vox1-o": 12} and report["speakers"] == 4
    lines = read_scores(folder)
    assert [line[1:] for line in lines] == [[str(int(t.same)), t.enrol, t.test] for t in fake_voxceleb.made_trials()]
    curve = scoring.Curve.of([float(line[0]) for line in lines], [line[1] == "1" for line in lines])
    assert found == verify.metrics_of(curve)
    assert (folder / "det.png").stat().st_size > 5000
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: (row["valid_error"], row["valid_loss"], row["epoch"]))
    assert report["averaged_epochs"] == [best["epoch"]] and not any("vox1-o" in key for row in rows for key in row)
    size = sum(p.numel() for p in JOINED().parameters())
    assert report["parameters"]["by_module"] == {"embedding_model": size, "classifier": 4 * 8}


def test_the_energy_is_that_of_the_embedding_and_its_front_end(train):
    report = train()
    energy = report["energy"]
    assert 0 < energy["encoder_blocks"]["mJ"] < energy["encoder+frontend"]["mJ"] < energy["full"]["mJ"]
    counts = {line["line"]: line["count"] for scope in ("encoder+frontend", "full") for line in energy[scope]["lines"]}
    # Quarter seconds have 26 frames: 12 of 9 bands after the first convolution, 5 of 4 after the second.
    assert counts["embedding_model.frontend.conv_1.weight"] == 12 * 9 * 16 * 9
    assert counts["embedding_model.frontend.conv_2.weight"] == 5 * 4 * 16 * 16 * 9
    assert counts["embedding_model.encoder.projection.weight"] == 5 * (4 * 16) * 16
    assert counts["embedding_model.head.weight"] == 2 * 32 * 8 and not any("classifier" in name for name in counts)
    assert energy["counting"]["encoder_frames"] == 5
    assert all("frontend" not in line["line"] for line in energy["encoder_blocks"]["lines"])


@pytest.mark.parametrize("changes", [{}, {"subtract_mean": "test"}, {"subtract_mean": "train", "score_norm": "as", "score_norm_top": 3}])
def test_scores_are_those_of_a_plain_loop(hparams, prepare, train, corpus, tmp_path, changes):
    train(**changes)
    brain = verify.reopen(hparams(**changes), RUN, prepare(corpus))
    vectors = {path: vector.double() for path, vector in plain_embeddings(brain, corpus).items()}
    shift = torch.zeros(8).double()
    if changes.get("subtract_mean") == "test":
        shift = torch.stack(list(vectors.values())).mean(0)
    elif changes.get("subtract_mean") == "train":
        shift = brain.cohort[0].double().mean(0)
    unit = {path: (vector - shift) / (vector - shift).norm() for path, vector in vectors.items()}
    cohort = scoring.unit(brain.cohort[0], shift)
    means = torch.stack([cohort[brain.cohort[1] == speaker].mean(0) for speaker in range(4)])
    means = means / means.norm(dim=1, keepdim=True)
    for score, _, enrol, test in read_scores(tmp_path / "run"):
        expected = unit[enrol] @ unit[test]
        if changes.get("score_norm"):
            sides = [(means @ unit[path]).topk(3).values for path in (enrol, test)]
            expected = sum((expected - side.mean()) / side.std() for side in sides) / 2
        assert float(score) == pytest.approx(float(expected), abs=2e-3 if changes.get("score_norm") else 1e-4)


def test_looking_again_gives_the_same_rates_and_a_part_of_the_trials_its_own(hparams, prepare, train, corpus):
    first = train()
    brain = verify.reopen(hparams(), RUN, prepare(corpus))
    dataset, loader = brain.data.tests["vox1-o"], dict(brain.data.eval_loader)
    brain.evaluate(dataset, test_loader_kwargs=loader)
    assert brain.validated(0.0) == first["metrics"]["vox1-o"]
    few = dataset.filtered_sorted(select_n=7)
    brain.evaluate(few, test_loader_kwargs=loader)
    pairs, scores, _ = brain.scored()
    ids = set(few.data_ids)
    expected = [t for t in fake_voxceleb.made_trials() if {trials.utterance_id(t.enrol), trials.utterance_id(t.test)} <= ids]
    assert pairs == expected and 0 < len(pairs) < 12 and len(scores) == len(pairs)
    brain.evaluate(brain.data.tests["vox1-valid"], test_loader_kwargs=loader)
    assert brain.validated(0.0)["accuracy"] == first["metrics"]["vox1-valid"]["accuracy"]


def test_no_recording_of_a_trial_is_read_before_training_has_ended(train, corpus, tmp_path, monkeypatch):
    read, load = [], audio.load
    monkeypatch.setattr("spikebrain.data.pipelines.audio.load", lambda path, rate: read.append((path, stage())) or load(path, rate))

    def stage():
        rows = tmp_path / "run" / "history.jsonl"
        return len(rows.read_text().splitlines()) if rows.exists() else 0

    train(number_of_epochs=2)
    tested = [epochs for path, epochs in read if any(speaker in path for speaker in fake_voxceleb.TESTED)]
    assert len(tested) == 12 and set(tested) == {2}, "each utterance of the trials is read once, after the last epoch"


def test_resuming_continues_as_if_nothing_had_happened(train, tmp_path):
    options = {"gaussian_snr": [10, 25], "seconds": 0.1, "schedule": functools.partial(StepByEpoch, lr=0.01, every=2, warmup_updates=3)}
    whole, folder = train(number_of_epochs=4, **options), tmp_path / "stopped"
    for epochs in (2, 4):
        again = train(number_of_epochs=epochs, output_folder=str(folder), save_folder=str(folder / "save"), **options)
    assert again["metrics"] == whole["metrics"] and read_scores(folder) == read_scores(tmp_path / "run")


def test_a_checkpoint_of_other_speakers_is_refused_with_both_numbers(train, corpus, tmp_path):
    train(number_of_epochs=1)
    tree = Path(shutil.copytree(corpus, tmp_path / "tree"))
    shutil.rmtree(tree / "wav" / fake_voxceleb.SPEAKERS[0])
    with pytest.raises(CheckpointError, match="was trained with speakers 4, this run has speakers 3"):
        train(data_folder=str(tree))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"subtract_mean": "all"}, "subtract_mean: 'all' is none of none, train, test"),
        ({"score_norm": "snorm"}, "score_norm: 'snorm' is none of none, z, s, as"),
        ({"score_norm": "as", "score_norm_top": 1}, "score_norm_top: 1 has no deviation"),
        ({"test_splits": ["vox1-valid"]}, "test_splits: vox1-valid chooses the checkpoint too"),
        ({"loss": "cosine"}, "loss: 'cosine' is none of softmax, am, aam"),
        ({"seconds": -1}, "seconds: -1 is no length"),
        ({"noise_folder": "nowhere"}, "noise_folder: nowhere: there is no such folder"),
        ({"test_splits": ["vox1-dev"], "dev_splits": []}, "12 of 12 trials name 12 absent utterances"),
    ],
)
def test_what_cannot_be_trained_or_scored_is_said_first(train, tmp_path, changes, message):
    with pytest.raises((keys.RecipeError, DataError), match=message):
        train(**changes)
    assert not list(tmp_path.glob("run/save/CKPT*"))


def test_a_split_without_a_list_of_trials_is_said(hparams, tmp_path, corpus):
    splits = ["iden-train", "iden-valid", "iden-test"]
    prepared = voxceleb.prepare(str(corpus), str(tmp_path / "manifests"), splits)
    values = hparams(train_splits=splits[:1], dev_splits=splits[1:2], test_splits=splits[2:])
    with pytest.raises(keys.RecipeError, match="test_splits: iden-test has no list of trials: name a split of verification"):
        verify.train(values, RUN, prepared)


def test_trials_of_utterances_that_were_not_prepared_are_refused_or_left_out(hparams, prepare, corpus, tmp_path):
    tree = Path(shutil.copytree(corpus, tmp_path / "tree"))
    done = prepare(tree)
    manifest = Path(done.manifests["vox1-o"])
    gone = trials.utterance_id(fake_voxceleb.made_trials()[0].enrol)
    manifest.write_text("\n".join(line for line in manifest.read_text().splitlines() if not line.startswith(gone)) + "\n")
    values = hparams(data_folder=str(tree))
    Path(values["output_folder"]).mkdir(parents=True)
    with pytest.raises(DataError, match="trials name 1 absent utterances, the first is"):
        verify.train(values, RUN, done)
    left = verify.train({**values, "skip_bad_audio": True}, RUN, done)["trials"]["vox1-o"]
    assert left == sum(gone not in map(trials.utterance_id, (t.enrol, t.test)) for t in fake_voxceleb.made_trials()) < 12


def test_training_on_those_who_are_tested_is_refused(hparams, corpus, tmp_path):
    """The list of identification knows nothing of trials: only the development splits lose the tested speakers."""
    splits = ["iden-train", "vox1-o"]
    prepared = voxceleb.prepare(str(corpus), str(tmp_path / "manifests"), splits)
    values = hparams(train_splits=splits[:1], dev_splits=[], test_splits=splits[1:])
    message = "train_splits: 2 of the 2 speakers whom vox1-o tests are among the 6 of training, the first is id10005: .*vox1-dev"
    with pytest.raises(keys.RecipeError, match=message):
        verify.train(values, RUN, prepared)


def test_a_mean_of_the_trials_leaves_out_what_no_trial_names(hparams, prepare, train, corpus):
    """As where trials are left out because one of their two recordings is bad: the other one is still there."""
    train(subtract_mean="test")
    brain = verify.reopen(hparams(subtract_mean="test"), RUN, prepare(corpus))
    loader = dict(brain.data.eval_loader)
    every, kept = brain.trials["vox1-o"], [t for i, t in enumerate(brain.trials["vox1-o"]) if i not in (0, 6, 7)]
    unnamed = set(trials.utterances(every)) - set(trials.utterances(kept))
    assert unnamed
    brain.trials["vox1-o"] = kept
    brain.evaluate(brain.data.tests["vox1-o"], test_loader_kwargs=loader)
    _, scores, _ = brain.scored()
    for path in unnamed:
        brain._found[trials.utterance_id(path)] += 100.0
    assert torch.equal(brain.scored()[1], scores)


def test_a_cohort_is_embedded_as_the_trials_are(hparams, prepare, train, corpus):
    """In the precision of an evaluation, and with ``debug`` no more than two batches of it."""
    train()
    brain = verify.reopen(hparams(), {**RUN, "eval_precision": "bf16"}, prepare(corpus))
    brain.evaluate(brain.data.tests["vox1-o"], test_loader_kwargs=dict(brain.data.eval_loader))
    assert {vector.dtype for vector in brain._found.values()} == {brain.cohort[0].dtype} == {torch.bfloat16}
    assert len(brain.cohort[0]) == 16
    brain.debug, brain._cohort = True, None
    assert len(brain.cohort[0]) == 2 * 5


def test_scores_keep_all_digits(tmp_path):
    pairs = [Trial(True, "a/b/1.wav", "a/c/1.wav"), Trial(False, "a/b/1.wav", "d/e/1.wav")]
    scores = torch.tensor([1 / 3, -2.5e-17], dtype=torch.float64)
    verify.write_scores(tmp_path / "scores.txt", pairs, scores)
    lines = [line.split() for line in (tmp_path / "scores.txt").read_text().splitlines()]
    assert [float(line[0]) for line in lines] == scores.tolist() and lines[0][1:] == ["1", "a/b/1.wav", "a/c/1.wav"]

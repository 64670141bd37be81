"""Identification of speakers: learning, the choice of a checkpoint, counts, resuming, and what is refused."""

import ast
import functools
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import fake_voxceleb  # noqa: E402

from spikebrain.data.corpora import voxceleb  # noqa: E402
from spikebrain.frontend.normalisation import UtteranceNormalization  # noqa: E402
from spikebrain.lobes import LogMel  # noqa: E402
from spikebrain.lobes.pooled import PooledEmbedding  # noqa: E402
from spikebrain.training import brain as shared  # noqa: E402
from spikebrain.training import hooks, identify, naming, run, speaker, splits, verify  # noqa: E402
from spikebrain.training.checkpoints import CheckpointError  # noqa: E402
from spikebrain.training.schedules import StepByEpoch, WarmupDecay  # noqa: E402

SPLITS = ["iden-train", "iden-valid", "iden-test"]
SMALL = {"num_layers": 1, "d_model": 16, "nhead": 2, "d_ffn": 32, "final_norm": False}
RUN = {"device": "cpu", "noprogressbar": True}
POOLED = functools.partial(PooledEmbedding, 20, "iml_spikeformer", SMALL)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six speakers who are tones of 100, 110, ... 150 Hz: the first video trains, the second validates, the third tests."""
    return fake_voxceleb.make_tree(tmp_path_factory.mktemp("identify") / "VoxCeleb")


@pytest.fixture
def hparams(corpus, tmp_path):
    """What a recipe gives, small."""

    def make(**changes):
        return {
            **identify.OPTIONAL, "seed": 5, "data_folder": str(corpus), "output_folder": str(tmp_path / "run"),
            "save_folder": str(tmp_path / "run" / "save"), "train_splits": SPLITS[:1], "dev_splits": SPLITS[1:2], "test_splits": SPLITS[2:],
            "features": LogMel(n_mels=20, f_max=1000, n_fft=512, pre_emphasis=0.9), "normalize": UtteranceNormalization(),
            "embedding_model": POOLED,
            "loss": "softmax", "number_of_epochs": 2, "batch_size": 4, "eval_batch_size": 5, "seconds": 0.2,
            "opt_class": functools.partial(torch.optim.AdamW, lr=0.01), "schedule": functools.partial(WarmupDecay, lr=0.01), **changes,
        }  # fmt: skip

    return make


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr(hooks, "draw", lambda *those: None)


@pytest.fixture
def train(hparams, tmp_path):
    """Prepares the tree and trains on it: the task's part of results.json."""

    def go(**changes):
        values = hparams(**changes)
        folder = Path(values["output_folder"])
        folder.mkdir(parents=True, exist_ok=True)
        return identify.train(values, RUN, voxceleb.prepare(values["data_folder"], str(tmp_path / "manifests"), SPLITS))

    return go


def history(folder):
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_tones_are_told_apart_and_the_run_says_what_it_found(train, tmp_path):
    report = train(number_of_epochs=25)
    assert report["metrics"]["iden-test"]["accuracy"] > 60, report["metrics"]  # chance is 17
    assert set(report["metrics"]) == {"iden-valid", "iden-test"} and report["speakers"] == 6
    encoder = sum(p.numel() for p in POOLED().encoder.model.parameters())
    assert report["parameters"]["encoder"] == encoder
    assert report["parameters"]["by_module"] == {"embedding_model": encoder + 20 * 16 + 16, "classifier": 6 * 16 + 6}
    rows = history(tmp_path / "run")
    best = min(rows, key=lambda row: (row["valid_error"], row["valid_loss"], row["epoch"]))
    assert report["averaged_epochs"] == [best["epoch"]]
    assert report["metrics"]["iden-valid"]["accuracy"] == pytest.approx(best["valid_accuracy"])
    energy = report["energy"]
    assert 0 < energy["encoder_blocks"]["mJ"] < energy["encoder+frontend"]["mJ"] < energy["full"]["mJ"]
    (line,) = (line for line in energy["full"]["lines"] if line["line"].startswith("classifier"))
    assert line["count"] == 6 * 16, "the layer that names speakers computes once an utterance"
    assert any(layer["mean"] > 0 for layer in report["firing_rate"].values())


def test_accuracy_counts_utterances_and_not_batches():
    tally = naming.Tally()
    tally.add(torch.eye(3)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1]), torch.tensor(1.0))
    tally.add(torch.eye(3)[[2]], torch.tensor([1]), torch.tensor(6.0))
    assert (tally.utterances, tally.right, tally.accuracy, tally.loss) == (5, 3, 60.0, 2.0)


@pytest.mark.parametrize("loss", ["am", "aam"])
def test_losses_with_a_margin_train_too(train, loss):
    report = train(loss=loss, margin=0.1, scale=20.0)
    assert report["parameters"]["by_module"]["classifier"] == 6 * 16 and report["energy"]["full"]["mJ"] > 0


def test_a_seed_decides_everything_whatever_was_drawn_before(train, tmp_path):
    rows = []
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        torch.rand(len(rows) + 1)
        train(seed=seed, gaussian_snr=[10, 25], output_folder=str(tmp_path / name), save_folder=str(tmp_path / name / "save"))
        rows.append(history(tmp_path / name))
    assert rows[0] == rows[1] != rows[2]


def test_resuming_continues_as_if_nothing_had_happened(train, tmp_path):
    """Ends after two of four epochs, as a stop between epochs would; draws of crops and noise go on where they were."""
    steps = {"schedule": functools.partial(StepByEpoch, lr=0.01, every=2, warmup_updates=3), "gaussian_snr": [10, 25], "seconds": 0.1}
    whole = train(number_of_epochs=4, avg_checkpoints=2, **steps)
    folder = tmp_path / "stopped"
    for epochs in (2, 4):
        halves = {"output_folder": str(folder), "save_folder": str(folder / "save")}
        again = train(number_of_epochs=epochs, avg_checkpoints=2, **steps, **halves)
    assert again["metrics"] == whole["metrics"] and history(folder) == history(tmp_path / "run")
    assert len(whole["averaged_epochs"]) == 2 and again["averaged_epochs"] == whole["averaged_epochs"]


def test_the_mean_of_the_best_weights_is_evaluated(hparams, train, tmp_path):
    train(number_of_epochs=3, avg_checkpoints=2)
    prepared = voxceleb.prepare(hparams()["data_folder"], str(tmp_path / "again"), SPLITS)
    brain = identify.reopen(hparams(number_of_epochs=3, avg_checkpoints=2), RUN, prepared)
    states = [torch.load(c.paramfiles["model"], weights_only=True) for c in brain.best_checkpoints()]
    name = "embedding_model.encoder.projection.weight"
    found = brain.parts["embedding_model"].encoder.projection.weight
    assert torch.allclose(found, (states[0][name] + states[1][name]) / 2) and not torch.equal(states[0][name], states[1][name])


def test_an_utterance_alone_is_named_as_in_a_padded_batch(hparams, tmp_path):
    """From waveform to logits, in float64, with calibrated statistics: law 1."""
    prepared = voxceleb.prepare(hparams()["data_folder"], str(tmp_path / "manifests"), SPLITS)
    (tmp_path / "run").mkdir()
    brain = identify._made(hparams(), RUN, prepared)
    brain.modules.double().train()
    torch.manual_seed(0)

    def logits(wavs, lengths):
        x, lengths = brain.parts["features"](wavs, lengths)
        x = brain.parts["normalize"](x, lengths)
        return brain.named(brain.parts["embedding_model"](x, lengths).squeeze(1))

    with torch.no_grad():
        for _ in range(5):
            logits(0.1 * torch.randn(4, 8000).double(), torch.ones(4))
        brain.modules.eval()
        wavs, samples = 0.1 * torch.randn(3, 8000).double(), [8000, 4321, 6000]  # what lies past the ends is noise, not zeros
        batch = logits(wavs, torch.tensor(samples) / 8000)
        for i, count in enumerate(samples):
            assert torch.allclose(logits(wavs[i : i + 1, :count], torch.ones(1)), batch[i : i + 1], rtol=0, atol=1e-10)
        assert not torch.allclose(logits(wavs, torch.ones(3))[1], batch[1], atol=1e-6), "a brain that hears padding must fail this"


def test_a_checkpoint_of_other_speakers_is_refused_with_both_numbers(train, corpus, tmp_path):
    train(number_of_epochs=1)
    tree = tmp_path / "fewer"
    fake_voxceleb.make_tree(tree)
    lines = [line for line in (tree / "iden_split.txt").read_text().splitlines() if "id10006" not in line]
    (tree / "iden_split.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match="was trained with speakers 6, this run has speakers 5: .*train_splits as in that run"):
        train(data_folder=str(tree))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"embedding_model": functools.partial(POOLED, pooling="attentive")}, "was trained with embedding 16, this run has embedding 32"),
        ({"loss": "am"}, "was trained with loss softmax, this run has loss am"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(train, changes, message):
    train(number_of_epochs=1)
    with pytest.raises(CheckpointError, match=message):
        train(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train_splits": []}, "train_splits: is empty"),
        ({"number_of_epochs": 0}, "number_of_epochs: 0 trains nothing"),
        ({"avg_checkpoints": 0}, "avg_checkpoints: 0 leaves nothing"),
        ({"loss": "AM"}, "loss: 'AM' is none of softmax, am, aam"),
        ({"loss": "am", "margin": -1}, "loss: margin is -1"),
        ({"seconds": 0}, "seconds: 0 is no length to train on"),
        ({"noise_folder": "nowhere"}, "noise_folder: nowhere: there is no such folder"),
        ({"rir_folder": "nowhere"}, "rir_folder: nowhere: there is no such folder"),
        ({"embedding_model": functools.partial(PooledEmbedding, 20, "iml_spikeformerr", SMALL)}, "embedding_model: .*did you mean"),
        ({"schedule": functools.partial(StepByEpoch, lr=0.1, every=0)}, "schedule: every is 0 epochs"),
    ],
)
def test_what_cannot_be_trained_is_said_first(train, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(**changes)
    assert not list(tmp_path.glob("run/save/CKPT*"))


def test_a_rate_warms_up_and_is_halved():
    schedule, optimizer = StepByEpoch(lr=1.0, every=2, warmup_updates=4), torch.optim.SGD([torch.zeros(1)], lr=5.0)
    schedule.plan(24, 8)
    rates = []
    for _ in range(24):
        schedule(optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, *[0.5] * 6, *[0.25] * 6, *[0.125] * 6]


def read_keys(module):
    """Names that a module reads from ``hparams``, as items, by ``get`` or as attributes."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Subscript) and _is_hparams(node.value) and isinstance(node.slice, ast.Constant):
            yield node.slice.value
        elif isinstance(node, ast.Attribute) and _is_hparams(node.value) and node.attr != "get":
            yield node.attr


def _is_hparams(node):
    return (isinstance(node, ast.Name) and node.id == "hparams") or (isinstance(node, ast.Attribute) and node.attr == "hparams")


@pytest.mark.parametrize("task", [identify, verify])
def test_every_key_that_is_read_is_declared_and_the_reverse(task):
    own = {"epoch_counter", "train_logger"}  # made for each training
    found = set().union(*map(read_keys, (task, speaker, shared, splits))) - own
    assert found <= task.KEYS | run.KEYS
    assert task.KEYS - set(speaker.BATCHING) <= found

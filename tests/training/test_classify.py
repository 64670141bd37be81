"""The classifying Brain: votes, counts, the choice of a checkpoint, and test splits that nobody looks at too early."""

import ast
import functools
import inspect
import json
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import fake_gsc  # noqa: E402

from spikebrain.data.corpora import gsc  # noqa: E402
from spikebrain.data.manifest import DataError  # noqa: E402
from spikebrain.frontend.augmentation import SpecAugment  # noqa: E402
from spikebrain.learning.losses import summed_softmax, votes_loss  # noqa: E402
from spikebrain.lobes import SpikingClassifier  # noqa: E402
from spikebrain.lobes.features import FrameRateMel  # noqa: E402
from spikebrain.training import brain as shared  # noqa: E402
from spikebrain.training import classify, hooks, keys, run, splits  # noqa: E402
from spikebrain.training.checkpoints import Checkpointer, CheckpointError  # noqa: E402
from spikebrain.training.classify import Tally  # noqa: E402
from spikebrain.training.schedules import CosineByEpoch  # noqa: E402

WORDS = ["bed", "go", "zero"]  # the tree plays them as tones of 110, 210 and 440 Hz
SMALL = {"num_layers": 1, "d_model": 16, "nhead": 2}
RUN = {"device": "cpu", "noprogressbar": True}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A tree of tones in Speech Commands' layout: four speakers train, one validates, one tests."""
    return fake_gsc.make_tree(tmp_path_factory.mktemp("classify") / "speech_commands")


@pytest.fixture
def hparams(corpus, tmp_path):
    """What a recipe gives, small: two epochs of one update a class."""

    def make(**changes):
        return {
            **classify.OPTIONAL, "seed": 5, "data_folder": str(corpus), "output_folder": str(tmp_path / "run"),
            "save_folder": str(tmp_path / "run" / "save"), "train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"],
            "features": functools.partial(FrameRateMel, n_mels=20), "frames": 100, "number_of_epochs": 2, "batch_size": 4,
            "classifier": functools.partial(SpikingClassifier, encoder="spikescr", encoder_kwargs=SMALL),
            "opt_class": functools.partial(torch.optim.AdamW, lr=0.01), "schedule": functools.partial(CosineByEpoch, lr=0.01), **changes,
        }  # fmt: skip

    return make


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Pictures take longer than training here; one test draws them."""
    if request.node.name != "test_a_run_says_what_it_found":
        monkeypatch.setattr(hooks, "draw", lambda *those: None)


@pytest.fixture
def train(hparams, tmp_path):
    """Prepares the tree and trains on it: the task's part of results.json."""

    def go(run_opts=None, tree=None, **changes):
        values = hparams(**changes)
        prepared = gsc.prepare(tree or values["data_folder"], str(tmp_path / "manifests"), classes=WORDS)
        return classify.train(values, {**RUN, **(run_opts or {})}, prepared)

    return go


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def without(rows, *names):
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def test_accuracy_counts_utterances_and_not_batches():
    tally = Tally(3)
    tally.add(torch.eye(3)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1]), torch.tensor(1.0))
    tally.add(torch.eye(3)[[2]], torch.tensor([1]), torch.tensor(6.0))
    assert tally.confusion.tolist() == [[3, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert tally.utterances == 5 and tally.accuracy == 60.0 and tally.loss == 2.0


def test_a_run_says_what_it_found(train, tmp_path):
    report = train(number_of_epochs=12, batch_size=2)
    assert report["metrics"]["test"]["accuracy"] > 60  # chance is 33
    assert set(report["metrics"]) == {"valid", "test"} and report["labels"] == WORDS
    confusion = torch.tensor(report["confusion"]["test"])
    assert confusion.shape == (3, 3) and confusion.sum(1).tolist() == [1, 1, 1]
    assert 100 * confusion.trace() / 3 == pytest.approx(report["metrics"]["test"]["accuracy"])
    assert report["parameters"]["total"] == report["parameters"]["by_module"]["classifier"] > 0
    assert report["epochs"] == len(report["epoch_seconds"]) == 12 and report["frames"] == 100
    assert report["firing_rate"] and all(0 <= layer["mean"] <= 1 for layer in report["firing_rate"].values())
    assert any(layer["mean"] > 0 for layer in report["firing_rate"].values())
    energy = report["energy"]
    assert 0 < energy["encoder_blocks"]["mJ"] < energy["encoder+frontend"]["mJ"] < energy["full"]["mJ"]
    assert energy["encoder_blocks"]["mJ"] < energy["encoder_blocks"]["twin_mJ"]
    rows = history(tmp_path / "run")
    best = min(rows, key=lambda row: (row["valid_error"], row["valid_loss"], row["epoch"]))
    assert report["best_epoch"] == best["epoch"] and report["metrics"]["valid"]["accuracy"] == pytest.approx(best["valid_accuracy"])
    assert {"curves.png", "energy.png", "firing_rates.png"} <= {file.name for file in (tmp_path / "run").glob("*.png")}


def test_of_equal_errors_the_lower_loss_is_chosen_and_then_the_earlier_epoch(tmp_path):
    metas = [(10.0, 0.5), (5.0, 0.4), (5.0, 0.3), (5.0, 0.3), (7.0, 0.1)]
    checkpointer = Checkpointer(tmp_path, {"model": torch.nn.Linear(1, 1)})
    order = ("valid_error", "valid_loss", "epoch")
    for epoch, (error, loss) in enumerate(metas, 1):
        checkpointer.save_checkpoint(meta={"epoch": epoch, "valid_error": error, "valid_loss": loss})
    assert [c.meta["epoch"] for c in checkpointer.best(5, order)] == [3, 4, 2, 5, 1]
    checkpointer.keep(1, order)
    assert sorted(c.meta["epoch"] for c in checkpointer.list_checkpoints()) == [3, 5]


@pytest.fixture
def deaf(corpus, tmp_path):
    """The tree with every test clip cut to nothing after it was prepared."""
    import shutil

    tree = Path(shutil.copytree(corpus, tmp_path / "tree"))
    gsc.prepare(str(tree), str(tmp_path / "manifests"), classes=WORDS)
    return tree


def spoil(tree):
    for line in (tree / "testing_list.txt").read_text().split():
        (tree / line).write_bytes(b"")


@pytest.mark.parametrize("report_max_test, epochs", [(False, 2), (True, 0)])
def test_no_test_clip_is_read_before_training_has_ended_unless_it_is_asked_for(hparams, deaf, tmp_path, report_max_test, epochs):
    prepared = gsc.prepare(str(deaf), str(tmp_path / "manifests"), classes=WORDS)
    spoil(deaf)
    with pytest.raises(DataError, match=rf"{fake_gsc.SPEAKERS[0]}_nohash_0.wav: cannot be read"):
        classify.train(hparams(data_folder=str(deaf), report_max_test=report_max_test, cache_audio=True), RUN, prepared)
    done = history(tmp_path / "run") if (tmp_path / "run" / "history.jsonl").exists() else []
    assert len(done) == epochs


def test_looking_at_the_test_split_is_reported_apart_and_changes_nothing_else(train, tmp_path):
    plain = train(number_of_epochs=3)
    rows = history(tmp_path / "run")
    folder = tmp_path / "looked"
    looked = train(number_of_epochs=3, report_max_test=True, output_folder=str(folder), save_folder=str(folder / "save"))
    assert "comparison" not in plain and looked["metrics"] == plain["metrics"]
    assert without(history(folder), "seconds", "test_accuracy") == without(rows, "seconds")
    highest = looked["comparison"]["max_test"]["test"]
    assert highest["accuracy"] == max(row["test_accuracy"] for row in history(folder)) >= looked["metrics"]["test"]["accuracy"]
    assert "comparison" in looked["comparison"]["what"]


@pytest.mark.parametrize("eval_batch_size", [1, 128])
def test_listening_to_validations_costs_no_pass_and_changes_nothing(train, tmp_path, monkeypatch, eval_batch_size):
    passes, vote = [], classify.Classifier.vote
    monkeypatch.setattr(classify.Classifier, "vote", lambda *those: passes.append(those) or vote(*those))
    runs = {}
    for name, layers in (("plain", ()), ("heard", ["*"])):
        passes.clear()
        folder = {"output_folder": str(tmp_path / name), "save_folder": str(tmp_path / name / "save")}
        report = train(number_of_epochs=4, eval_batch_size=eval_batch_size, firing_by_epoch=layers, **folder)
        runs[name] = (report, history(tmp_path / name), len(passes))
    (plain, plain_rows, plain_passes), (heard, rows, passes) = runs["plain"], runs["heard"]
    assert passes == plain_passes and without(rows, "seconds", "firing") == without(plain_rows, "seconds")
    assert "firing_by_epoch" not in plain and not any("firing" in row for row in plain_rows)
    # The validation of the best epoch, and the look inside at the end, hear the same network over the same split.
    best = rows[heard["best_epoch"] - 1]["firing"]
    assert best == {name: layer["mean"] for name, layer in heard["firing_rate"].items()} and any(best.values())
    assert heard["firing_by_epoch"] == {name: [row["firing"][name] for row in rows] for name in best}
    assert len({tuple(row["firing"].values()) for row in rows}) == 4


def test_a_resumed_run_has_the_rates_of_every_epoch(train, tmp_path):
    for epochs in (1, 3):
        report = train(number_of_epochs=epochs, firing_by_epoch=["embedding.neuron.neuron"])
    assert [len(rates) for rates in report["firing_by_epoch"].values()] == [3]
    assert [row["epoch"] for row in history(tmp_path / "run") if row["firing"]] == [1, 2, 3]


def brain_of(hparams, **changes):
    prepared = gsc.prepare(hparams()["data_folder"], hparams()["save_folder"], classes=WORDS)
    values = hparams(**changes)
    recordings = classify.make_recordings(values, prepared)
    course = classify.Course(100, 2, values["schedule"], values["output_folder"], values["save_folder"])
    brain = classify.build(values, RUN, recordings, course)
    brain.take(recordings.view(brain.parts["features"]))
    return brain


def calibrated(brain):
    """In evaluation and float64, with the running statistics of noise."""
    brain.modules.double().train()
    with torch.no_grad():
        for _ in range(30):
            brain.parts["classifier"](*brain.parts["features"](0.1 * torch.randn(6, 16000, dtype=torch.float64)))
    brain.modules.eval()
    return brain


def test_an_utterance_alone_votes_as_in_a_padded_batch(hparams):
    brain, samples = calibrated(brain_of(hparams)), [16000, 9123, 12345]
    wavs = 0.1 * torch.randn(3, 16000, dtype=torch.float64)  # what lies past the ends is noise, not zeros

    def votes(wavs, lengths):
        with torch.no_grad():
            return brain.vote(brain.parts["classifier"], *brain.parts["features"](wavs, lengths))

    batch = votes(wavs, torch.tensor(samples) / 16000)
    for i, count in enumerate(samples):
        alone = votes(wavs[i : i + 1, :count], torch.ones(1))
        assert torch.allclose(batch[i], alone[0], rtol=0, atol=1e-10)
        assert batch[i].sum() == pytest.approx(1 + count // 160)
    assert not torch.allclose(votes(wavs, torch.ones(3))[1], batch[1]), "a brain that hears padding must fail this"


def test_padded_frames_vote_where_the_published_code_is_asked_for(hparams):
    wavs, lengths = 0.1 * torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    sums = []
    for paper_padding in (False, True):
        brain = brain_of(hparams, paper_padding=paper_padding)
        with torch.no_grad():
            votes = brain.vote(brain.parts["classifier"].eval(), *brain.parts["features"](wavs, lengths))
        sums.append(votes.sum(-1).tolist())
    assert sums[0] == pytest.approx([101, 51]) and sums[1] == pytest.approx([101, 101])


def test_training_alone_is_augmented(train):
    seen = []

    class Watched(SpecAugment):
        def __call__(self, x, lengths=None):
            seen.append(len(x))
            return super().__call__(x, lengths)

    train(augment=Watched(5, 0.2))
    assert seen == [4, 4, 4] * 2  # 12 training clips, two epochs


def test_a_seed_decides_everything_whatever_was_drawn_before(train, tmp_path):
    rows = []
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        torch.rand(len(rows) + 1)
        train(seed=seed, output_folder=str(tmp_path / name), save_folder=str(tmp_path / name / "save"))
        rows.append(without(history(tmp_path / name), "seconds"))
    assert rows[0] == rows[1] != rows[2]


def test_resuming_continues_as_if_nothing_had_happened(train, tmp_path):
    """Ends after two of four epochs, as a stop between epochs would; the test of the recipe kills a run."""
    whole = train(number_of_epochs=4, schedule=functools.partial(CosineByEpoch, lr=0.01, half_period=4))
    rows, folder = without(history(tmp_path / "run"), "seconds"), tmp_path / "stopped"
    halves = {"output_folder": str(folder), "save_folder": str(folder / "save")}
    for epochs in (2, 4):
        again = train(number_of_epochs=epochs, schedule=functools.partial(CosineByEpoch, lr=0.01, half_period=4), **halves)
    assert again["metrics"] == whole["metrics"] and without(history(folder), "seconds") == rows


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frames": 50}, "was trained with frames 100, this run has frames 50: set frames as in that run"),
        (
            {"classifier": functools.partial(SpikingClassifier, encoder="spikescr", encoder_kwargs={**SMALL, "d_model": 24})},
            "was trained with width 16, this run has width 24",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_both_numbers(train, changes, message):
    train(number_of_epochs=1)
    with pytest.raises(CheckpointError, match=message):
        train(**changes)


def test_without_a_dev_split_the_lowest_training_loss_is_chosen(train, tmp_path):
    report = train(dev_splits=[], number_of_epochs=3)
    losses = [row["train_loss"] for row in history(tmp_path / "run")]
    assert report["best_epoch"] == 1 + losses.index(min(losses)) and set(report["metrics"]) == {"test"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train_splits": []}, "train_splits: is empty"),
        ({"number_of_epochs": 0}, "number_of_epochs: 0 trains nothing"),
        ({"frames": [100, 40]}, r"frames: \[100, 40\] is a curriculum"),
        ({"report_max_test": True, "test_splits": []}, "report_max_test: True, but test_splits is empty"),
        ({"frames": 30}, "features: frames: 30 a second do not divide .* the nearest number that does is 32"),
        ({"classifier": functools.partial(SpikingClassifier, encoder="spikescrr")}, "classifier: .*did you mean spikescr"),
    ],
)
def test_what_cannot_be_trained_is_said_first(train, tmp_path, changes, message):
    with pytest.raises(keys.RecipeError, match=message):
        train(**changes)
    assert not list(tmp_path.glob("run/save/CKPT*"))


def read_keys(module):
    """Names that a module reads from ``hparams``, as items or attributes."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Subscript) and _is_hparams(node.value) and isinstance(node.slice, ast.Constant):
            yield node.slice.value
        elif isinstance(node, ast.Attribute) and _is_hparams(node.value):
            yield node.attr


def _is_hparams(node):
    return (isinstance(node, ast.Name) and node.id == "hparams") or (isinstance(node, ast.Attribute) and node.attr == "hparams")


def test_every_key_that_is_read_is_declared_and_the_reverse():
    own = {"epoch_counter", "train_logger"}  # made for each training
    found = set().union(*map(read_keys, (classify, shared, splits))) - own
    assert found <= classify.KEYS | run.KEYS
    assert classify.KEYS - set(classify.BATCHING) <= found


def test_learning_smoke():
    """Four classes of Poisson spikes whose rate depends on the channel: from chance to 0.6 in 60 updates (a published size, shrunk)."""
    torch.manual_seed(0)
    net = SpikingClassifier(20, 4, encoder="spikescr", encoder_kwargs={"num_layers": 1, "d_model": 32, "nhead": 2, "mlp_ratio": 1})
    rates = 0.1 + 0.25 * torch.rand(4, 20)

    def draw(batch):
        labels = torch.arange(batch) % 4
        return torch.poisson(rates[labels].unsqueeze(1).expand(-1, 20, -1)), labels

    def accuracy():
        with torch.no_grad():
            x, labels = draw(400)
            return (summed_softmax(net.eval()(x)).argmax(-1) == labels).float().mean().item()

    optimizer, before = torch.optim.AdamW(net.parameters(), lr=0.01), accuracy()
    for _ in range(60):
        x, labels = draw(32)
        loss = votes_loss(summed_softmax(net.train()(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.5 and accuracy() >= 0.6 and math.isfinite(loss.item())

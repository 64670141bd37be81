"""The Speech Commands recipe, shrunk, on a synthetic twin: every YAML, interruption in the middle of a stage, two processes."""

import contextlib
import functools
import importlib.util
import json
import multiprocessing
import os
import signal
import socket
import sys

import pytest
import ruamel.yaml
import torch

from spikebrain.data.corpora import gsc
from spikebrain.data.manifest import DataError
from spikebrain.training import classify, distil, hooks, keys
from spikebrain.training.run import run

WORDS = ["no", "one", "yes"]
TASKS = (classify, distil)
MINI, KDCL = "spikescr_mini", "spikescr_mini_kdcl"
SPLITS = {"train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"]}
GATE = "classifier.encoder.model.layers.0.convolution.gate.neuron"  # SN2 of the gated unit, which SpikeSCR's files ask for


@pytest.fixture(scope="module")
def recipe(checkout):
    return checkout / "recipes" / "GSC"


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """A folder in Speech Commands' layout with 24 spoken clips of three words."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import gsc as synthetic

    folder = tmp_path_factory.mktemp("commands") / "speech_commands"
    return synthetic.make(folder, utterances={"train": 4, "valid": 2, "test": 2}, words=WORDS)


@pytest.fixture(scope="module")
def words_for(recipe, shrunk, commands):
    """(name of a YAML, run folder, overrides) -> command-line words."""

    def words(name, folder, **overrides):
        classes = "[" + ",".join(f'"{word}"' for word in WORDS) + "]"  # YAML reads a bare yes as a truth value
        overrides = {"data_folder": commands, "output_folder": folder, "classes": classes, "batch_size": 4, **SPLITS, **overrides}
        if name.endswith("kdcl"):
            overrides = {"kd_epochs": 2, **overrides}
        return shrunk(recipe / "hparams" / f"{name}.yaml", **overrides)

    return words


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Pictures take longer than training here; one test draws them, and one those that show stages beside each other."""
    draw, name = hooks.draw, request.node.name
    wanted = {"curriculum" in name and KDCL in name: "accuracy_by_frames", name.endswith("trains[spikescr_mini]"): "curves"}.get(True)
    monkeypatch.setattr(hooks, "draw", lambda folder, pictures: draw(folder, pictures) if wanted in pictures else None)


@pytest.fixture
def train(recipe, words_for, tmp_path):
    """Runs the shrunk recipe in this process; gives results.json as read back."""

    def go(name, *options, folder=tmp_path / "run", **overrides):
        run(str(recipe / "train.py"), gsc, TASKS, [*words_for(name, folder, **overrides), *options])
        return json.loads((folder / "results.json").read_text())

    return go


def history(folder):
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("name", [MINI, "spikescr", "lif_network_mini"])
def test_every_yaml_for_one_number_of_frames_trains(train, tmp_path, name):
    results = train(name)
    assert (results["task"], results["corpus"], results["model"]) == ("classify", "GSC", name)
    assert set(results["metrics"]) == {"valid", "test"} and results["labels"] == WORDS and results["frames"] == 100
    assert torch.tensor(results["confusion"]["test"]).sum(1).tolist() == [2, 2, 2]
    assert results["firing_rate"] and results["energy"]["full"]["mJ"] < results["energy"]["full"]["twin_mJ"]
    pictures = {"curves.png", "energy.png", "firing_rates.png", "firing_by_epoch.png"}
    assert name != MINI or pictures <= {file.name for file in (tmp_path / "run").glob("*.png")}
    assert "comparison" not in results and results["data"]["complete"] is False
    rows = history(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2]
    followed = {} if name == "lif_network_mini" else {GATE: [row["firing"][GATE] for row in rows]}
    assert results.get("firing_by_epoch", {}) == followed and all(0 <= rate <= 1 for rates in followed.values() for rate in rates)


@pytest.mark.parametrize("name, frames", [(KDCL, [100, 20]), ("spikescr_kdcl", [400, 40])])
def test_every_yaml_with_a_curriculum_trains(train, tmp_path, name, frames):
    results = train(name, frames=frames, arms=["kdcl"])
    assert results["task"] == "distil" and results["frames"] == frames[1]
    assert [stage["frames"] for stage in results["stages"]] == frames
    assert results["stages"][1]["teacher"] == {
        "name": f"direct-{frames[0]}",
        "frames": frames[0],
        "epoch": results["stages"][0]["best_epoch"],
    }
    assert (
        "Stage by stage" in (tmp_path / "run" / "log.txt").read_text()
        and str(tmp_path) not in (tmp_path / "run" / "results.json").read_text()
    )
    # Counted frame by frame, the hardest stage costs less.
    assert results["stages"][1]["mJ"] < results["stages"][0]["mJ"]
    drawn = {"accuracy_by_frames.png", "energy_by_frames.png"} if name == KDCL else set()
    assert {file.name for file in (tmp_path / "run").rglob("*.png")} == drawn


def test_evaluating_again_and_two_batches_of_each_stage(train, tmp_path):
    first = train(MINI)
    assert train(MINI, "--test_only")["confusion"] == first["confusion"]
    debugged = train(KDCL, "--debug", folder=tmp_path / "debug", frames=[100, 20], arms=["kdcl", "oneshot"], cache_audio=False)
    assert len(debugged["stages"]) == 2 and not list((tmp_path / "debug").rglob("CKPT*"))


@pytest.mark.full
def test_the_whole_small_recipe_with_all_of_its_arms(train):
    results = train(KDCL)
    assert len(results["stages"]) == 10 and list(results["arms"]) == list(distil.ARMS)[: len(results["arms"])]


def test_the_curriculum_is_the_direct_recipe_in_all_else(recipe):
    for direct, curriculum in ((MINI, KDCL), ("spikescr", "spikescr_kdcl")):
        one, two = (ruamel.yaml.YAML().load(recipe / "hparams" / f"{name}.yaml") for name in (direct, curriculum))
        assert {key for key in one if str(one[key]) != str(two[key])} == {"task", "model", "frames"}
        assert set(two) - set(one) == distil.KEYS - classify.KEYS | {"warmup_epochs"}


def test_synthetic_is_made_first(train, tmp_path):
    options = "{utterances: {train: 1, valid: 1, test: 1}, words: [zero, one]}"
    made = tmp_path / "made"
    results = train(
        MINI, data_folder="synthetic", synthetic_folder=made, synthetic_options=options, classes="[zero, one]", number_of_epochs=1
    )
    assert (made / "one").is_dir() and results["data"]["splits"]["train"]["utterances"] == 2


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        (MINI, {"n_epochs": 3}, "--n_epochs: .* has no such key; did you mean number_of_epochs"),
        (MINI, {"task": "distill"}, "task: distill is none of this recipe's: classify, distil; did you mean distil"),
        (MINI, {"classes": "[zero, oen]"}, "oen"),
        (MINI, {"classes": 35}, "class folders are missing"),
        (MINI, {"split_by": "speakers"}, "split_by: 'speakers' is none of official, speaker"),
        (MINI, {"frames": "[100, 40]"}, "is a curriculum"),
        (MINI, {"frames": 30}, "frames: 30 a second do not divide"),
        (KDCL, {"frames": "[40, 100]"}, "stage 1 has 100 frames after 40"),
        (KDCL, {"teacher_folder": "nowhere"}, "teacher_folder: nowhere holds 0 checkpoints"),
        (MINI, {"data_folder": None}, "(?s)data_folder.*0a7c2a8d_nohash_0.wav.*synthetic"),
    ],
)
def test_what_is_wrong_is_said_before_training(train, tmp_path, name, overrides, message):
    with pytest.raises((keys.RecipeError, DataError, RuntimeError), match=message):
        train(name, **overrides)
    assert not list(tmp_path.glob("run/**/CKPT*"))


def in_a_process(recipe, words, log, hook=None, environment=None):
    """The recipe, in a process that was forked with everything imported; after each batch ``hook(brain, batch)`` is called."""
    os.environ.update(environment or {})
    torch.set_num_threads(1)
    hooks.draw = lambda *those: None
    if hook is not None:
        classify.Classifier.on_fit_batch_end = lambda brain, batch, outputs, loss, should_step: hook(brain, batch)
    with open(log, "w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        run(str(recipe / "train.py"), gsc, TASKS, words)


@pytest.fixture(scope="module")
def start(recipe, tmp_path_factory):
    """Starts :func:`in_a_process`; a process costs no import, and may be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["spikebrain.training.run", "spikebrain.training.distil", "spikebrain.data.corpora.gsc", "spikebrain.lobes"]
    )
    logs = tmp_path_factory.mktemp("logs")

    def begin(words, **more):
        log = logs / f"{len(list(logs.iterdir()))}.txt"
        process = context.Process(target=in_a_process, args=(recipe, words, log), kwargs=more)
        process.start()
        return process, log

    return begin


def finish(started, status=0):
    process, log = started
    process.join(240)
    assert process.exitcode == status, log.read_text()[-3000:]


def die_in_second_epoch(folder, brain, batch):
    """kill -9 after the first batch of the second epoch of the training that goes on in ``folder``."""
    if brain.hparams.output_folder == str(folder) and brain.hparams.epoch_counter.current == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def state_of(folder):
    return {
        file: torch.load(sorted((folder / "save").glob("CKPT*"))[-1] / file) for file in ("model.ckpt", "optimizer.ckpt", "generator.ckpt")
    }


def assert_same(one, two):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        assert one == two


@pytest.mark.parametrize(
    "name, stages", [(MINI, [""]), (KDCL, ["direct-100", "kdcl-40", "kdcl-20"])], ids=["in one training", "in the last of three stages"]
)
def test_killed_in_the_second_epoch_and_run_again_is_the_same_run(words_for, start, tmp_path, name, stages):
    more = {"number_of_epochs": 3, **({"frames": [100, 40, 20], "arms": ["kdcl"], "kd_epochs": 3} if name == KDCL else {})}
    finish(start(words_for(name, tmp_path / "whole", **more)))
    words, last = words_for(name, tmp_path / "killed", **more), tmp_path / "killed" / stages[-1]
    finish(start(words, hook=functools.partial(die_in_second_epoch, last)), -signal.SIGKILL)
    assert [row["epoch"] for row in history(last)] == [1] and not (tmp_path / "killed" / "results.json").exists()
    finish(start(words))
    whole, killed = (json.loads((tmp_path / run / "results.json").read_text()) for run in ("whole", "killed"))
    assert whole["metrics"] == killed["metrics"] and whole["confusion"] == killed["confusion"]
    for one, two in zip(whole.get("stages", []), killed.get("stages", []), strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}
    for stage in stages:
        assert history(tmp_path / "whole" / stage) == history(tmp_path / "killed" / stage)
        assert_same(state_of(tmp_path / "whole" / stage), state_of(tmp_path / "killed" / stage))


def write_down(folder, brain, batch):
    """Which utterances a process trains on, and what its network is after the batch."""
    seen = brain.__dict__.setdefault("seen", [])
    seen.append([brain.hparams.epoch_counter.current, batch.id])
    learned = {name: value.flatten().tolist() for name, value in brain.parts["classifier"].state_dict().items()}
    (folder / f"rank{brain.rank}.json").write_text(json.dumps({"seen": seen, "learned": learned}))


def test_two_processes_share_the_data_and_agree(words_for, start, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    words = [*words_for(MINI, tmp_path / "run", batch_size=3), "--distributed_backend=gloo"]
    hook = functools.partial(write_down, tmp_path)
    ranks = [start(words, hook=hook, environment={"RANK": rank, "LOCAL_RANK": rank, **common}) for rank in "01"]
    for process in ranks:
        finish(process)
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    for epoch in (1, 2):
        shares = [[name for number, ids in rank["seen"] if number == epoch for name in ids] for rank in (one, two)]
        assert len(shares[0]) == len(shares[1]) == 6 and len({*shares[0], *shares[1]}) == 12
    assert one["learned"] == two["learned"] and any("running_mean" in name for name in one["learned"])
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]


def test_train_py_is_short(recipe):
    spec = importlib.util.spec_from_file_location("gsc_train", recipe / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.gsc, module.classify, module.distil) == (gsc, classify, distil) and spec.name not in sys.modules
    assert len((recipe / "train.py").read_text().splitlines()) <= 20

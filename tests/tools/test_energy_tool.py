"""``tools/energy.py``: runs of all tasks, trained here, reopened, counted, run on events and drawn as one page."""

import base64
import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import ruamel.yaml

from spikebrain.convert import events
from spikebrain.data.corpora import gsc, librispeech, urdu
from spikebrain.training import asr, classify, distil, emotion, hooks
from spikebrain.training.run import run

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["no", "one", "yes"]
# What the tool makes, and the log, which goes on while the process that trained goes on.
MADE = {"log.txt", "energy.json", "energy.html", "energy_by_layer.png", "firing_by_layer.png"}


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("energy")


def small(file, **more):
    """The command-line words that shrink a recipe."""
    shrink = ruamel.yaml.YAML(typ="safe").load(ROOT / "tests" / "recipes" / "shrink.yaml")
    keys = {key: value for key, value in shrink.items() if key in ruamel.yaml.YAML().load(file)} | {"number_of_epochs": 1, **more}
    words = {key: "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else value for key, value in keys.items()}
    return [str(file), "--device=cpu", "--noprogressbar", *(f"--{key}={value}" for key, value in words.items())]


def trained(place, corpus, task, name, utterances, **options):
    """The folder of a tiny run on a synthetic twin; nothing of it is drawn."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    recipe = ROOT / "recipes" / corpus.CORPUS.name
    maker = __import__(f"spikebrain.data.synthetic.{corpus.__name__.rpartition('.')[2]}", fromlist=["make"])
    made = {key: options.pop(key) for key in ("words",) if key in options}
    data = maker.make(place / corpus.CORPUS.name, utterances=utterances, **made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "draw", lambda *those: None)
        words = small(recipe / "hparams" / f"{name}.yaml", data_folder=data, output_folder=place / "run", **options)
        run(str(recipe / "train.py"), corpus, task, words)
    return place / "run"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run of SpikeSCR on words."""
    options = {"train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"], "batch_size": 4}
    classes = "[" + ",".join(f'"{word}"' for word in WORDS) + "]"
    place, utterances = tmp_path_factory.mktemp("gsc"), {"train": 4, "valid": 2, "test": 2}
    return trained(place, gsc, classify, "spikescr_mini", utterances, words=WORDS, classes=classes, **options)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A run of IML-Spikeformer on speech."""
    utterances = {"train-clean-100": 8, "dev-clean": 2, "test-clean": 3}
    return trained(tmp_path_factory.mktemp("asr"), librispeech, asr, "iml_spikeformer_mini", utterances)


@pytest.fixture(scope="module")
def emotions(tmp_path_factory):
    """A run of PTS-SNN over two folds."""
    place = tmp_path_factory.mktemp("urdu")
    options = {"cache_folder": place / "features", "batch_size": 8, "eval_batch_size": 16, "fold": [1, 2]}
    return trained(place, urdu, emotion, "pts_snn_mini", {"all": 2}, **options)


@pytest.fixture(scope="module", params=["digits", "speech", "emotions"])
def looked(request, tool):
    """(folder, what was in it before) of each run, after the tool has looked into it."""
    folder = request.getfixturevalue(request.param)
    before = files(folder)
    assert tool.main([str(folder)]) == 0
    return folder, before


@pytest.fixture
def undrawn(tool, monkeypatch):
    """Pictures take longer than all else here."""
    monkeypatch.setattr(tool.plots, "save", lambda figure, path: None)


def files(folder):
    """File -> what is in it, of everything below a folder but what the tool makes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in MADE}


def drawn(folder):
    """What the page of a run holds for its script."""
    text = (folder / "energy.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="trains">(.*?)</script>', text, re.S)[1])


def test_a_run_is_looked_into_and_stays_as_it_is(tool, looked):
    folder, before = looked
    assert files(folder) == before and {path.name for path in folder.iterdir()} >= MADE
    results, report = (json.loads((folder / name).read_text()) for name in ("results.json", "energy.json"))
    of_this = results["folds"][0] if results["task"] == "emotion" else results
    # The weights are those that were evaluated: all of a split gives what the run itself found.
    assert report["metrics"] and report["metrics"] == pytest.approx(of_this["metrics"][report["split"]])
    assert report["utterances"]["looked_at"] == report["utterances"]["of"] > 0
    assert 0 < report["energy"]["encoder_blocks"]["mJ"] <= report["energy"]["full"]["mJ"]
    assert report["proof"]["equal"] and sum(report["proof"]["spikes"].values()) > 0
    assert report["audit"]["findings"] and f"{report['model']} on {report['corpus']}" in tool.table([report])


def test_the_page_needs_no_network_and_holds_every_spike(looked):
    folder, _ = looked
    text = (folder / "energy.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)=(?!"data:)|url\(|@import|//[a-z]+\.', text)
    assert "prefers-color-scheme: dark" in text and str(folder.parent) not in text
    report, data = json.loads((folder / "energy.json").read_text()), drawn(folder)
    spikes = {}
    for layer in data["layers"]:
        levels = np.frombuffer(zlib.decompress(base64.b64decode(layer["bytes"])), np.uint8)
        assert levels.size == layer["frames"] * layer["shown"] and levels.max(initial=0) <= layer["levels"]
        spikes[layer["name"].removeprefix(report["simulated"] + ".")] = int(levels.sum())
    assert spikes == report["proof"]["spikes"] and data["seconds"] == report["utterance"]["seconds"] > 0
    pixels = zlib.decompress(base64.b64decode(data["features"]["bytes"]))
    assert len(pixels) == data["features"]["frames"] * data["features"]["shown"]


def test_a_run_that_was_moved_is_found(tool, digits, undrawn, tmp_path):
    assert tool.main([str(digits)]) == 0
    moved = shutil.copytree(digits, tmp_path / "elsewhere" / "run")
    hidden = digits.with_name("hidden")
    digits.rename(hidden)
    try:
        assert tool.main([str(moved)]) == 0
        assert not digits.exists()
    finally:
        hidden.rename(digits)
    first, second = (json.loads((folder / "energy.json").read_text()) for folder in (digits, moved))
    for report in (first, second):
        del report["proof"]["seconds"]
    assert first == second


def test_runs_beside_each_other(tool, digits, emotions, tmp_path, capsys):
    assert tool.main([str(digits), str(emotions), "--utterances=2", "--out", str(tmp_path / "both")]) == 0
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"energy_of_runs.txt", "quality_over_energy.png"}
    said = (tmp_path / "both" / "energy_of_runs.txt").read_text()
    assert said.strip() in capsys.readouterr().out and said.count("encoder_blocks") == 2
    for folder in (digits, emotions):
        assert json.loads((folder / "energy.json").read_text())["utterances"]["looked_at"] == 2
        assert "Runs beside each other" in (folder / "energy.html").read_text()


def test_another_fold_is_another_network(tool, emotions, undrawn):
    folds = json.loads((emotions / "results.json").read_text())["folds"]
    assert tool.main([str(emotions), "--fold=2"]) == 0
    report = json.loads((emotions / "energy.json").read_text())
    assert report["fold"] == "fold 2" and report["metrics"] == pytest.approx(folds[1]["metrics"]["test"])
    assert report["results"] == folds[1]["metrics"]["test"]


def test_utterances_are_thinned_out_evenly(tool, digits):
    options = tool._parser().parse_args([str(digits), "--utterances=3", "--split=test"])
    brain = tool.open_run(digits, tool.read(digits), options)
    whole = brain.data.tests["test"].data_ids
    assert tool._chosen(brain, options)[1].data_ids == [whole[0], whole[2], whole[4]]


def test_a_run_on_events_that_differs_is_said(tool, speech, undrawn, monkeypatch, capsys):
    project = events.project

    def often(spikes, weight, bias=None):  # a bias in every micro-step
        out, added = project(spikes, weight)
        return (out if bias is None else out + spikes.levels * bias), added

    monkeypatch.setattr(events, "project", often)
    assert tool.main([str(speech), "--utterances=1"]) == 0
    report = json.loads((speech / "energy.json").read_text())
    assert not report["proof"]["equal"] and any(report["proof"]["differ"].values())
    assert "OTHER spikes" in capsys.readouterr().out and "differs from the trained network" in (speech / "energy.html").read_text()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--split=tset"], "split: tset is none that the run reports: valid, test"),
        (["--utterances=0"], "utterances: 0 are none: give 1 or more"),
        (["--utterance=nobody"], "utterance: nobody is none of the 6 that are looked at"),
        (["--fold=1"], "fold: 1, but a run of the task classify has none"),
        (["--data_folder=nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(tool, digits, capsys, options, said):
    assert tool.main([str(digits), *options]) == 1
    message = capsys.readouterr().err
    assert message.startswith("energy.py: ") and said in message


def test_a_folder_that_is_no_run(tool, digits, tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 1
    assert "results.json: no such file: name the output_folder" in capsys.readouterr().err
    copy = shutil.copytree(digits, tmp_path / "copy")
    shutil.rmtree(copy / "save")
    assert tool.main([str(copy)]) == 1
    assert "holds 0 checkpoints to evaluate: train first" in capsys.readouterr().err
    results = json.loads((copy / "results.json").read_text())
    for key, value in (("task", "sing"), ("corpus", "Elsewhere")):
        (copy / "results.json").write_text(json.dumps(results | {key: value}))
        assert tool.main([str(copy)]) == 1
        assert f"says {key} {value}, which is none of" in capsys.readouterr().err


def test_a_stage_of_a_distillation(tool, tmp_path, capsys):
    splits = {"train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"]}
    options = {**splits, "batch_size": 4, "classes": '["no","one","yes"]', "frames": [40, 20], "kd_epochs": 1, "arms": ["kdcl"]}
    folder = trained(tmp_path, gsc, (classify, distil), "spikescr_mini_kdcl", {"train": 4, "valid": 2, "test": 2}, words=WORDS, **options)
    assert tool.main([str(folder)]) == 0
    report = json.loads((folder / "kdcl-20" / "energy.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    assert report["stage"] == "kdcl-20" and report["metrics"]["accuracy"] == pytest.approx(results["metrics"]["test"]["accuracy"])
    assert tool.main([str(folder), "--stage=direct-40"]) == 0
    longer = json.loads((folder / "direct-40" / "energy.json").read_text())
    frames = [one["energy"]["counting"]["encoder_frames"] for one in (report, longer)]
    assert longer["results"] == {"accuracy": results["stages"][0]["accuracy"]["test"]} and frames[1] > 1.8 * frames[0]
    assert tool.main([str(folder), "--stage=kdcl-10"]) == 1
    assert "stage: kdcl-10 is none that was trained: choose one of direct-40, kdcl-20" in capsys.readouterr().err

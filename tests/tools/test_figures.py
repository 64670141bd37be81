"""``tools/figures.py``: pictures of several runs of one recipe, and of nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("figures")


def run(seed, test, **changes):
    stages = [
        {"name": "direct-100", "frames": 100, "accuracy": {"valid": 95.0, "test": 94.0}, "mJ": 0.02},
        {"name": "kdcl-40", "frames": 40, "accuracy": {"valid": test + 1, "test": test}, "mJ": 0.01},
    ]
    names = {"task": "distil", "corpus": "GSC", "model": "small", "protocol": "official", "seed": seed}
    return {**names, "stages": stages, "arms": {"kdcl": ["direct-100", "kdcl-40"]}, **changes}


@pytest.fixture
def kept(tmp_path):
    """Writes runs as files named by number; gives their paths."""

    def write(*runs):
        paths = [tmp_path / f"{number}.json" for number in range(len(runs))]
        for path, content in zip(paths, runs):
            path.write_text(json.dumps(content))
        return paths

    return write


def test_seeds_become_one_picture(tool, kept, monkeypatch, tmp_path, capsys):
    drawn = {}
    save = tool.plots.save
    monkeypatch.setattr(tool.plots, "save", lambda figure, path: drawn.setdefault(path.name, figure) and save(figure, path))
    paths = kept(run(1, 90.0), run(2, 92.0), run(3, 91.0))
    assert tool.main([*map(str, paths), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / f"{name}_by_frames.png") for name in ("accuracy", "energy")]
    assert all((tmp_path / "out" / name).stat().st_size > 5000 for name in drawn)
    valid, test = drawn["accuracy_by_frames.png"].axes
    assert test.lines[0].get_xydata().tolist() == [[40, 91.0], [100, 94.0]] and valid.lines[0].get_ydata().tolist() == [92.0, 95.0]
    bars = [line.get_segments()[0][:, 1].tolist() for line in test.collections]
    assert bars == [[90.0, 92.0], [94.0, 94.0]]
    assert drawn["accuracy_by_frames.png"].get_suptitle() == "GSC, small, official: mean and standard deviation of 3 runs"


def test_the_folder_of_a_run_is_a_run(tool, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(run(1, 90.0)))
    assert tool.read([tmp_path]) == [(tmp_path / "results.json", run(1, 90.0))]


@pytest.mark.parametrize(
    "second, message",
    [
        (run(2, 90.0, model="large"), "1.json: model is large, that of .*0.json is small: draw them apart"),
        (run(2, 90.0, corpus="SSC"), "1.json: corpus is SSC"),
        (run(2, 90.0, protocol="speaker"), "1.json: protocol is speaker"),
        (run(1, 90.0), "1.json: its seed, 1, is that of another run"),
        ({"task": "classify", "seed": 2}, "1.json: task classify, lacks arms"),
    ],
)
def test_what_does_not_belong_together_is_refused(tool, kept, second, message):
    with pytest.raises(ValueError, match=message):
        tool.makers(tool.read(kept(run(1, 91.0), second)))


def emotion(model, silent=0.3, **changes):
    shares = {"rate": 0.1, "silent": silent, "saturated": 0.1}
    layer = {**shares, "threshold": 1.0, "current": {"band": [0.5, 1.0], "edges": [0.0, 1.0], "counts": [1, 2, 1]}}
    found = {gain: {"WA": 80.0, "hidden": shares, "output": shares, "layers": {"encoder.neuron": layer}} for gain in ("0.1", "1")}
    names = {"task": "emotion", "corpus": "URDU", "model": model, "protocol": "random", "seed": 1}
    return {**names, "calibration": {"untrained": found, "trained": found}, **changes}


def test_neurons_of_two_models_become_one_picture(tool, kept, tmp_path, capsys):
    paths = kept(emotion("pts_snn", 0.25), emotion("vanilla_snn"))
    assert tool.main([*map(str, paths), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / "neuron_health.png")]
    axes = tool.health_of(tool.read(paths))["neuron_health"]().axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes[0].lines}
    assert lines["silent, trained"] == [25.0, 25.0] and axes[3].get_title(loc="left") == "vanilla_snn: hidden neurons"


@pytest.mark.parametrize(
    "second, message",
    [
        (emotion("pts_snn"), "1.json: its model, pts_snn, is that of another run"),
        (emotion("other", protocol="speaker"), "1.json: protocol is speaker"),
        ({"task": "emotion", "corpus": "URDU", "model": "a", "protocol": "random"}, "1.json: task emotion, lacks calibration"),
    ],
)
def test_neurons_that_cannot_be_drawn_together(tool, kept, second, message):
    with pytest.raises(ValueError, match=message):
        tool.makers(tool.read(kept(emotion("pts_snn"), second)))


def bench(**changes):
    whole = [
        {"size": "12 x 256", "firing": firing, "T": levels, "ms": {"median": 100.0 * levels, "low": 1.0, "high": 700.0}, "saved_mib": 50.0}
        for levels in (4, 6)
        for firing in ("IMLS", "iterative")
    ]
    share = {"time": {"median": 2.5}, "saved memory": 3.5, "paper, time": 2.24, "paper, memory": 3.31}
    sections = {"whole model": whole, "iterative firing to IMLS": [{"T": 4, **share}, {"T": 6, **share}]}
    return {"bench": "multilevel", "hardware": {"cpu": "cpu", "threads": 1, "cores": 2}, "sections": sections, **changes}


def test_what_training_costs_becomes_a_picture(tool, kept, tmp_path, capsys):
    paths = kept(bench())
    assert tool.main([*map(str, paths), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / "training_cost.png")]
    figure = tool.makers(tool.read(paths))["training_cost"]()
    assert [bar.get_height() for bar in figure.axes[0].patches] == [400.0, 600.0, 400.0, 600.0]
    assert {text.get_text() for axes in figure.axes for text in axes.texts} == {"2.50 x", "3.50 x", "paper 2.24 x", "paper 3.31 x"}
    assert figure.get_suptitle() == "12 x 256; cpu, 1 of 2 cores"


def test_benches_that_cannot_be_drawn(tool, kept):
    for runs, message in (([bench(sections={})], "0.json: has no section 'whole model'"), ([bench(), bench()], "1.json: .* one at a time")):
        with pytest.raises(ValueError, match=message):
            tool.makers(tool.read(kept(*runs)))


@pytest.mark.parametrize("options", [["--blocks", "1"], ["--utterance=a"], ["--data_folder=x"], ["--utterances=2"]])
def test_options_of_networks_are_refused_elsewhere(tool, kept, tmp_path, capsys, options):
    for one in (run(1, 90.0), emotion("pts_snn"), bench()):
        assert tool.main([*map(str, kept(one)), "--out", str(tmp_path / "out"), *options]) == 1
        assert "0.json: is drawn from its numbers alone" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_missing_run_is_an_error_and_nothing_is_written(tmp_path):
    command = [sys.executable, ROOT / "tools" / "figures.py", tmp_path / "none.json", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "none.json: no such file" in done.stderr and not (tmp_path / "out").exists()

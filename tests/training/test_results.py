"""results.json: plain, portable, whole."""

import json
import subprocess

import pytest
import torch

from spikebrain.data.manifest import DataError
from spikebrain.training import results


def test_parameters_count_shared_ones_once():
    shared = torch.nn.Linear(3, 4)
    frozen = torch.nn.Linear(2, 2, bias=False)
    frozen.weight.requires_grad_(False)
    both = torch.nn.Sequential(shared, torch.nn.Linear(4, 1))
    counted = results.parameters({"a": shared, "b": both, "c": frozen, "none": torch.nn.ReLU()})
    assert counted == {"total": 16 + 5 + 4, "trainable": 21, "by_module": {"a": 16, "b": 5, "c": 4}}


def test_write_is_plain_json_and_atomic(tmp_path):
    path = results.write(str(tmp_path), {"metrics": {"test-clean": {"WER": 3.5}}, "epochs": torch.tensor([1, 2])})
    assert json.loads(open(path).read()) == {"metrics": {"test-clean": {"WER": 3.5}}, "epochs": [1, 2]}
    before = open(path).read()
    with pytest.raises((TypeError, ValueError)):
        results.write(str(tmp_path), {"bad": object()})
    assert open(path).read() == before
    with pytest.raises(DataError, match="cannot write"):
        results.write("/proc/nowhere", {})


def test_command_names_no_machine(tmp_path, monkeypatch):
    data, recipe = tmp_path / "speech" / "LibriSpeech", tmp_path / "checkout" / "recipes" / "LibriSpeech" / "train.py"
    for folder in (data, recipe.parent):
        folder.mkdir(parents=True)
    recipe.touch()
    monkeypatch.setenv("SPIKEBRAIN_DATA", str(tmp_path / "speech"))
    words = [str(recipe), "hparams/x.yaml", f"--data_folder={data}", "--output_folder=/home/someone/results/run", "--seed", "3"]
    command = results.command(words, results.known_folders(str(recipe)))
    paths = "--data_folder=$SPIKEBRAIN_DATA/LibriSpeech --output_folder=run"
    assert command == f"python recipes/LibriSpeech/train.py hparams/x.yaml {paths} --seed 3"


def test_relative_paths_into_the_data_root_are_written_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "speech" / "LibriSpeech").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SPIKEBRAIN_DATA", str(tmp_path / "speech"))
    command = results.command(["--data_folder=../speech/LibriSpeech"], results.known_folders(str(tmp_path / "a" / "b" / "c" / "train.py")))
    assert command == "python --data_folder=$SPIKEBRAIN_DATA/LibriSpeech"


def test_commit_says_dirty_and_is_none_outside_of_a_checkout(tmp_path):
    assert results.commit(str(tmp_path)) is None

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e@x", *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    head = results.commit(str(tmp_path))
    assert len(head) == 40
    (tmp_path / "file").write_text("2")
    assert results.commit(str(tmp_path)) == head + "-dirty"


def test_versions_and_hardware_are_measured():
    assert results.versions()["torch"] == torch.__version__.partition("+")[0] or results.versions()["torch"] == torch.__version__
    machine = results.hardware("cpu")
    assert machine["threads"] == torch.get_num_threads() and machine["cores"] >= 1 and machine["cpu"]

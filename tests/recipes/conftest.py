"""A tiny synthetic twin, and the overrides that shrink a recipe to it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ruamel.yaml
import soundfile

from spikebrain.training import asr, keys
from spikebrain.training.run import run

UTTERANCES = {"train-clean-100": 16, "dev-clean": 4, "test-clean": 4}


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    """A folder in LibriSpeech's layout with 24 synthetic utterances."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import librispeech

    return librispeech.make(tmp_path_factory.mktemp("twin") / "LibriSpeech", utterances=UTTERANCES)


@pytest.fixture(scope="session")
def shrunk(checkout):
    """(YAML file, further overrides) -> the command-line words that shrink it."""
    shrink = ruamel.yaml.YAML(typ="safe").load(checkout / "tests" / "recipes" / "shrink.yaml")

    def words(file, **more):
        keys = ruamel.yaml.YAML().load(file)
        small = {key: value for key, value in shrink.items() if key in keys} | more
        return [str(file), "--device=cpu", "--noprogressbar", *(f"--{key}={_word(value)}" for key, value in small.items())]

    return words


@pytest.fixture(scope="session")
def rows_of(checkout, load_tool):
    """(a table's path below recipes, name of a recipe) -> its Rows by name, in its order."""

    def read(table, recipe):
        tool, place = load_tool("table"), checkout / "recipes"
        rows = tool.choose(tool.read(place / table), place / recipe / "train.py", None, None, {"data_folder": "unused"})
        return {row.name: row for row in rows}

    return read


@pytest.fixture(scope="session")
def words_of(shrunk):
    """A Row -> the command-line words that it sets, but what shrinks it and its rate, which is one of full sizes."""

    def words(row):
        left_out = {"data_folder", "lr", *(word.partition("=")[0].removeprefix("--") for word in shrunk(Path(row.yaml))[1:])}
        return [f"--model={row.model}", *(f"--{name}={value}" for name, value in row.options.items() if name not in left_out)]

    return words


@pytest.fixture(scope="session")
def size_of(load_tool):
    """A Row -> how many parameters its network has, all of them trainable."""

    def count(row):
        options = {name: value for name, value in row.options.items() if name != "data_folder"}
        overrides = keys.parse_overrides("\n".join(f"{name}: {value}" for name, value in options.items()))
        parameters = load_tool("describe").recipe(row.yaml, overrides)["parameters"]
        assert parameters["total"] == parameters["trainable"]
        return parameters["total"]

    return count


@pytest.fixture(scope="session")
def two_steps():
    """(recipe, YAML name, corpus module, folder, overrides) -> results.json of two updates and a decode at full size."""
    small = {
        "grad_accumulation_factor": 1, "max_batch_length": 10, "num_workers": 0,
        "eval_batch_size": 1, "test_beam_size": 4, "max_decode_ratio": 0.3,
    }  # fmt: skip

    def go(recipe, name, corpus, folder, **overrides):
        words = [f"--{key}={_word(value)}" for key, value in {**small, "output_folder": folder, **overrides}.items()]
        options = ["--device=cpu", "--noprogressbar", "--debug", "--debug_epochs=1"]
        run(str(recipe / "train.py"), corpus, asr, [str(recipe / "hparams" / f"{name}.yaml"), *options, *words])
        epochs = (folder / "history.jsonl").read_text().splitlines()
        assert len(epochs) == 1 and json.loads(epochs[0])["updates"] == 2
        return json.loads((folder / "results.json").read_text())

    return go


@pytest.fixture(scope="session")
def differences():
    """(recipe, name of an IML-Spikeformer's YAML) -> the keys in which its twin's, which has the same ones, says otherwise."""

    def compare(recipe, name):
        pair = (name, name.replace("iml_spikeformer", "transformer"))
        spiking, twin = (ruamel.yaml.YAML().load(recipe / "hparams" / f"{one}.yaml") for one in pair)
        assert list(spiking) == list(twin)
        return {key for key in spiking if str(spiking[key]) != str(twin[key])}

    return compare


@pytest.fixture(scope="session")
def python(checkout):
    """Runs Python with words in a process of its own, one thread, in a folder; returns it started."""

    def start(words, folder, **environment):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout), **environment}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, env=env, **streams)

    return start


@pytest.fixture(scope="session")
def stock_checkout():
    """Called, it gives the checkout that ``$SPEECHBRAIN_REPO`` names; skips where it is not set, fails where it is no checkout."""

    def find():
        folder = os.environ.get("SPEECHBRAIN_REPO")
        if not folder:
            pytest.skip("SPEECHBRAIN_REPO is not set: SpeechBrain's own recipes are left out; set it to a checkout of its repository")
        if not (Path(folder) / "recipes" / "LibriSpeech").is_dir():
            pytest.fail(f"SPEECHBRAIN_REPO={folder} is no checkout of SpeechBrain: there is no recipes/LibriSpeech")
        return Path(folder)

    return find


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """Overrides that name folders of noise and of a room's response; where a data.zip lies, the recipes download nothing."""
    rate = 16000
    folder, rng = tmp_path_factory.mktemp("augmentation"), np.random.default_rng(5)
    decay = np.exp(-np.arange(rate // 5) / 400)
    for name, wav in {"noise": 0.1 * rng.standard_normal(2 * rate), "rir": 0.2 * rng.standard_normal(len(decay)) * decay}.items():
        (folder / name).mkdir()
        (folder / name / "data.zip").touch()
        soundfile.write(folder / name / f"{name}.wav", wav, rate, subtype="PCM_16")
    return {f"data_folder_{name}": folder / name for name in ("noise", "rir")}


@pytest.fixture(scope="session")
def run_stock(python, stock_checkout):
    """Runs a stock script as it is, with an edited copy of a stock YAML, in a process of its own; returns what it printed.

    A recipe has a folder in the checkout, scripts in it of which the first is run, and a yaml in its hparams; ``edit`` makes the
    new text of the YAML from the stock one.
    """

    def run(recipe, edit, folder, overrides, *options):
        stock, place = stock_checkout() / recipe.folder, folder / "recipe"
        place.mkdir(parents=True)
        yaml = place / recipe.yaml
        yaml.write_text(edit((stock / "hparams" / recipe.yaml).read_text(encoding="utf-8")), encoding="utf-8")
        for name in recipe.scripts:
            shutil.copyfile(stock / name, place / name)
        words = [place / recipe.scripts[0], yaml, "--device=cpu", "--noprogressbar", *options]
        words += [f"--{key}={value}" for key, value in overrides.items()]
        process = python(words, folder, HF_HUB_OFFLINE="1")
        try:
            text, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == 0, text[-4000:]
        assert all((stock / name).read_bytes() == (place / name).read_bytes() for name in recipe.scripts)
        return text

    return run


def _word(value):
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else value

"""A tiny synthetic twin, and the overrides that shrink a recipe to it."""

import os
import subprocess
import sys

import pytest
import ruamel.yaml

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
def python(checkout):
    """Runs Python with words in a process of its own, one thread, in a folder; returns it started."""

    def start(words, folder, **environment):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout), **environment}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, env=env, **streams)

    return start


def _word(value):
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else value

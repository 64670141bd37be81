"""The modules of ``tools/benches``."""

import importlib
import json

import pytest


@pytest.fixture(scope="session")
def bench(load_tool):
    """``tools/bench.py``."""
    return load_tool("bench")


@pytest.fixture(scope="session")
def benches(bench):
    """name -> module of ``tools/benches``."""
    return lambda name: importlib.import_module(f"benches.{name}")


@pytest.fixture(scope="session")
def measure(benches):
    """``tools/benches/measure.py``."""
    return benches("measure")


@pytest.fixture(scope="session")
def quick_run(bench, tmp_path_factory):
    """The file that a quick run of a bench writes, read; nothing else is left and the exit status is 0."""

    def run(name):
        folder = tmp_path_factory.mktemp(name)
        assert bench.main([name, "--quick", "--threads", "1", "--out", folder / "run.json"]) == 0
        assert [path.name for path in folder.iterdir()] == ["run.json"]
        return json.loads((folder / "run.json").read_text())

    return run

"""The examples in docstrings are run, and print what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import spikebrain

ROOT = Path(spikebrain.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_print_what_they_say(path):
    name = ".".join(("spikebrain", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    found = doctest.testmod(importlib.import_module(name), verbose=False)
    assert found.attempted and not found.failed, f"{found.failed} of {found.attempted} examples of {name} print something else"

"""What every test may use: the checkout, its files, its tools as modules, and the folder of real recordings."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Folders that hold what a run or an installation made, where git cannot say it.
MADE = {".git", ".venv", "__pycache__", "build", "dist", "demo", "results", ".pytest_cache", ".ruff_cache"}


def _listed(root):
    """Files of a checkout: tracked, and new ones that are not ignored; a walk where there is no git."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [root / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in root.rglob("*") if not any(p in MADE or p.endswith(".egg-info") for p in path.relative_to(root).parts)]
    return sorted(path for path in paths if path.is_file())


@pytest.fixture(scope="session")
def checkout():
    """The root of the checkout, a Path."""
    return ROOT


@pytest.fixture(scope="session")
def source_files():
    """Every file that belongs to the repository, as Paths."""
    return _listed(ROOT)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real recordings, from ``$SPIKEBRAIN_DATA``; skips where it is not set."""
    folder = os.environ.get("SPIKEBRAIN_DATA")
    if not folder:
        pytest.skip("SPIKEBRAIN_DATA is not set: the tests on real recordings are left out")
    if not Path(folder).is_dir():
        pytest.fail(f"SPIKEBRAIN_DATA={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def load_tool():
    """``load_tool(name)``: the module of ``tools/<name>.py``."""

    def load(name):
        sys.path.insert(0, str(ROOT / "tools"))
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(ROOT / "tools"))

    return load

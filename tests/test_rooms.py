"""A room imports only from rooms listed above it, and only from outside what it may."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# In reading order. A new room is written here, at the one place where all that it imports lies above it.
ROOMS = """spelling lengths operands kernels neurons frontend attention blocks encoders baselines registry lobes learning convert energy
export data plots training publishing doctor cli""".split()
# What needs torch alone.
BARE = ["spikebrain"] + [f"spikebrain.{room}" for room in ROOMS[: ROOMS.index("registry") + 1]]
HEAVY = set(
    """matplotlib tensorboard h5py triton numba nir onnx onnxruntime transformers funasr
espeakng_loader spikingjelly snntorch""".split()
)
BLOCKED = sorted(HEAVY | set("speechbrain hyperpyyaml sentencepiece safetensors torchaudio soundfile scipy".split()))


def modules(package):
    """(dotted name, path) of every module below the folder ``package``."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(tree, name, is_package):
    """Dotted names that a module imports, relative imports resolved; ``from a import b`` gives ``a.b``."""
    base = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def room_of(dotted):
    """The room of a dotted name inside spikebrain; None outside it and for names of its front door."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "spikebrain" and len(parts) > 1 and parts[1] in ROOMS else None


def upward(package):
    """Every import of ``package`` from a room that is not above the importer's, as text."""
    for name, path in modules(package):
        here = room_of(name)
        if here is None:
            continue
        for dotted in imported(ast.parse(path.read_text(encoding="utf-8")), name, path.name == "__init__.py"):
            there = room_of(dotted)
            if there and there != here and ROOMS.index(there) > ROOMS.index(here):
                yield f"{name} imports {dotted}: {there} lies below {here}"


def at_import(tree):
    """Statements that run when a module is imported: all but the bodies of functions."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def heavy_at_import(package):
    """Every import of an optional package outside a function, as text."""
    for name, path in modules(package):
        for node in at_import(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                yield from (f"{name} imports {dotted} when it is imported" for dotted in names if dotted.split(".")[0] in HEAVY)


def plant(folder, text, room="neurons"):
    """A package with one module ``spikebrain.<room>.planted`` that holds ``text``."""
    home = folder / "spikebrain" / room
    home.mkdir(parents=True)
    (home / "planted.py").write_text(text, encoding="utf-8")
    return folder / "spikebrain"


def run_blocked(code, blocked, folder):
    """Runs ``code`` in a Python whose import of every name in ``blocked`` fails; returns the finished process."""
    hook = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {list(blocked)!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r} (blocked)', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    return subprocess.run([sys.executable, "-c", hook + code], capture_output=True, text=True, cwd=folder)


def test_every_folder_and_module_of_the_package_is_a_known_room(checkout):
    package = checkout / "spikebrain"
    found = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__", "__pycache__"}
    assert found <= set(ROOMS), f"not in ROOMS: {sorted(found - set(ROOMS))}"


def test_rooms_import_only_from_rooms_above(checkout):
    assert list(upward(checkout / "spikebrain")) == []


@pytest.mark.parametrize(
    "text",
    [
        "from spikebrain.lobes import SpikingTransformerASR",
        "from spikebrain import registry",
        "import spikebrain.training.run as run",
        "from ..encoders.iml_spikeformer import IMLSpikeformer",
        "from .. import blocks",
        "def later():\n    from spikebrain.energy import report\n    return report",
    ],
)
def test_a_planted_upward_import_is_found(tmp_path, text):
    assert len(list(upward(plant(tmp_path, text)))) == 1


@pytest.mark.parametrize(
    "text", ["from spikebrain.lengths import absolute", "from . import lif", "import torch", "from spikebrain import __version__"]
)
def test_a_planted_downward_import_is_not(tmp_path, text):
    assert list(upward(plant(tmp_path, text))) == []


def test_optional_packages_are_imported_inside_functions(checkout):
    assert list(heavy_at_import(checkout / "spikebrain")) == []


@pytest.mark.parametrize(
    "text",
    [
        "import matplotlib.pyplot as plt",
        "from h5py import File",
        "try:\n    import triton\nexcept ImportError:\n    triton = None",
        "class A:\n    import numba",
    ],
)
def test_a_planted_heavy_import_is_found(tmp_path, text):
    assert len(list(heavy_at_import(plant(tmp_path, text)))) == 1
    inside = "def later():\n" + "".join(f"    {line}\n" for line in text.splitlines())
    assert list(heavy_at_import(plant(tmp_path / "inside", inside))) == []


def bare_modules(checkout):
    """Every module of the rooms up to the registry."""
    return [name for name, _ in modules(checkout / "spikebrain") if name in BARE or any(name.startswith(f"{room}.") for room in BARE[1:])]


def test_rooms_up_to_the_registry_need_torch_alone(checkout):
    names = bare_modules(checkout)
    assert {"spikebrain", "spikebrain.lengths", "spikebrain.neurons", "spikebrain.registry"} <= set(names)
    done = run_blocked("".join(f"import {name}\n" for name in names) + "print(len(sys.modules))", BLOCKED, checkout)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks(tmp_path):
    done = run_blocked("import speechbrain.nnet", BLOCKED, tmp_path)
    assert done.returncode == 1 and "No module named 'speechbrain'" in done.stderr


def test_no_folder_is_empty_and_none_is_a_drawer(checkout):
    package = checkout / "spikebrain"
    folders = [path for path in package.rglob("*") if path.is_dir() and path.name != "__pycache__"]
    assert [str(path.relative_to(checkout)) for path in folders if not any(path.iterdir())] == []
    without_init = {path.parent for path in package.rglob("*.py")} - {path.parent for path in package.rglob("__init__.py")}
    assert without_init == set(), "a wheel would leave these folders out"
    drawers = [name for name, _ in modules(package) if Path(name.replace(".", "/")).name in ("utils", "misc", "helpers", "common")]
    assert drawers == []

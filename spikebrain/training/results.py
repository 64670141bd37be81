"""``results.json``: one run, as data.

Every number in a table of this repository is read from such a file. Paths are written as
``$SPIKEBRAIN_DATA/...`` or relative to the run's folder; no user, host or absolute path goes in.
"""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import spikebrain
from spikebrain.data.manifest import write_atomic

FILE = "results.json"
PACKAGES = ("torch", "torchaudio", "speechbrain", "sentencepiece", "numpy")


def write(folder, results):
    """Writes ``results`` as ``<folder>/results.json``, atomically, and returns its path."""
    path = os.path.join(folder, FILE)
    write_atomic(path, json.dumps(results, indent=2, allow_nan=False, default=_plain) + "\n")
    return path


def parameters(modules):
    """``total``, ``trainable`` and ``by_module`` (name -> count) of a mapping of modules; shared ones count once."""
    seen, by_module, trainable = set(), {}, 0
    for name, module in modules.items():
        fresh = [p for p in module.parameters() if id(p) not in seen]
        seen.update(map(id, fresh))
        by_module[name] = sum(p.numel() for p in fresh)
        trainable += sum(p.numel() for p in fresh if p.requires_grad)
    return {"total": sum(by_module.values()), "trainable": trainable, "by_module": {k: n for k, n in by_module.items() if n}}


def commit(folder):
    """The commit of the checkout that ``folder`` lies in, with ``-dirty`` when files differ from it; None outside of one."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions():
    """Versions of Python, of this package and of what it stands on."""
    return {"python": platform.python_version(), "spikebrain": spikebrain.__version__} | {name: _version(name) for name in PACKAGES}


def hardware(device):
    """Processor, its cores, the threads that torch uses, and the device."""
    name = torch.cuda.get_device_name(device) if str(device).startswith("cuda") else "cpu"
    return {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": name}


def command(argv, folders):
    """The command line as it can be repeated elsewhere: known folders replaced, any other absolute path cut to its last part.

    Arguments
    ---------
    argv : list of str
    folders : dict
        Absolute folder -> what to write for it, e.g. ``{data root: "$SPIKEBRAIN_DATA"}``.
    """
    return " ".join(["python", *(_portable(word, folders) for word in argv)])


def known_folders(recipe):
    """Folders that commands are written relative to: the data root of the environment and the checkout."""
    root = Path(recipe).resolve().parent.parent.parent
    data = os.environ.get("SPIKEBRAIN_DATA")
    folders = {str(root): "."}
    return {os.path.abspath(data): "$SPIKEBRAIN_DATA", **folders} if data else folders


def _portable(word, folders):
    head, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    looks_like_path = os.sep in value and os.path.exists(value)
    if not (os.path.isabs(value) or looks_like_path):
        return word
    full = os.path.abspath(value)
    for folder, name in folders.items():
        if full == folder or full.startswith(folder + os.sep):
            return head + equals + os.path.normpath(name + full[len(folder) :])
    return head + equals + (os.path.basename(full) if os.path.isabs(value) else value)


def _git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (set, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

"""What works on this machine, what does not, and the command that repairs it.

``spikebrain doctor``, ``python -m spikebrain.doctor`` and, in a checkout where nothing is
installed yet, ``python tools/doctor.py``. A doctor must not need a healthy patient: this
module imports the standard library only, everything else inside the check that needs it,
and takes the tested ranges and the extras from the installed package's own metadata.
"""

import argparse
import functools
import importlib
import json
import operator
import os
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

OLDEST_PYTHON = (3, 10)
# The newest torch that has a torchaudio wheel of its own minor version: the pair that `make install` takes.
TORCH = "2.11.0"
PAIR = ("torch", "torchaudio")
REPAIR_TORCH = f"pip install --force-reinstall torch=={TORCH} torchaudio=={TORCH}"
# A checkpoint of the 99 M parameter model with Adam's two moments takes 1.2 GB, and a run keeps several.
WANTED_GIB = 5.0
COMPARISONS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it works, what was seen, the repair where it does not, and whether spikebrain needs it."""

    name: str
    works: bool
    detail: str
    repair: str = ""
    required: bool = False


@dataclass(frozen=True)
class Requirement:
    """A line of the package's metadata: distribution, tested range (``">=2.7.1,<2.12"``), extra ("" when always needed), Pythons."""

    name: str
    tested: str
    extra: str
    python: str = ""


def parse_requirement(line):
    """A :class:`Requirement` from a metadata line such as ``torch<2.12,>=2.7.1`` or ``h5py; extra == "spikes"``."""
    spec, _, marker = line.partition(";")
    name, tested = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*\(?([^)]*)", spec.strip()).groups()
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
    bounds = sorted((bound.strip() for bound in tested.split(",") if bound.strip()), key=lambda bound: bound[0] == "<")
    python = "".join(re.findall(r"python_version\s*([<>=!]+)\s*['\"]([^'\"]+)", marker)[0]) if "python_version" in marker else ""
    return Requirement(name, ",".join(bounds), extra.group(1) if extra else "", python)


def numbers(version):
    """The release of a version as integers: ``"2.11.0+cu130"`` is ``(2, 11, 0)``."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version).group().split("."))


def fits(version, tested):
    """Whether ``version`` lies in the range ``tested``; an empty range takes every version."""
    return all(_holds(version, bound) for bound in tested.split(",") if bound)


def _holds(version, bound):
    sign, limit = re.match(r"([<>=!]+)\s*(.+)", bound).groups()
    have, want = numbers(version), numbers(limit)
    size = max(len(have), len(want))
    return COMPARISONS[sign](have + (0,) * (size - len(have)), want + (0,) * (size - len(want)))


def one_line(error):
    """An exception in one line of at most 160 characters."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:160]


def cores():
    """Processors that this process may use: its affinity, and the quota of its container where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return allowed


@functools.cache
def _modules():
    """Distribution name (lower case) -> the modules that it brings, for everything installed."""
    brought = {}
    for module, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            brought.setdefault(distribution.lower(), []).append(module)
    return brought


def module_of(distribution):
    """The module to import for an installed distribution: of its own name where there is one (``pytest-xdist`` brings ``xdist``)."""
    own = distribution.lower().replace("-", "_")
    brought = [name for name in _modules().get(distribution.lower(), []) if not name.startswith("_")]
    return next((name for name in brought if name.lower() == own), min(brought, default=own))


class Problem(Exception):
    """What a check saw that is wrong, and the repair where it is another than the check's usual one."""

    def __init__(self, detail, repair=""):
        super().__init__(detail)
        self.repair = repair


def look(name, check, repair, required=False):
    """The :class:`Finding` of ``check``: a function that returns what it saw, or raises because it does not work."""
    try:
        return Finding(name, True, check(), required=required)
    except Problem as problem:
        return Finding(name, False, str(problem), problem.repair or repair, required)
    except Exception as error:  # a broken native library raises whatever it likes
        return Finding(name, False, one_line(error), _repair(error) or repair, required)


def _repair(error):
    """The repair that an import error's own module asks for, "" where it is none."""
    module = (getattr(error, "name", None) or "").partition(".")[0]
    if module in PAIR:
        return REPAIR_TORCH
    return f"pip install {module}" if isinstance(error, ModuleNotFoundError) and module not in ("", "spikebrain") else ""


def see_python():
    """Python's version, against the oldest that is tested."""
    version = f"{'.'.join(map(str, sys.version_info[:3]))} (tested: >={'.'.join(map(str, OLDEST_PYTHON))})"
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise Problem(version)
    return version


def see_spikebrain():
    """Whether spikebrain is installed, not only lying in the current folder."""
    try:
        return metadata.version("spikebrain")
    except metadata.PackageNotFoundError:
        raise Problem("not installed: YAML files and recipes outside the checkout will not find it") from None


def requirements():
    """Every :class:`Requirement` for this Python in the installed package's metadata; empty where it is not installed."""
    try:
        needs = [parse_requirement(line) for line in metadata.requires("spikebrain") or []]
    except metadata.PackageNotFoundError:
        return []
    return [need for need in needs if fits(f"{sys.version_info[0]}.{sys.version_info[1]}", need.python)]


def see_package(name, tested):
    """A distribution's version: installed, within the tested range, and really imported."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise Problem("not installed") from None
    if not fits(version, tested):
        raise Problem(f"{version} is outside the tested range {tested}")
    try:
        importlib.import_module(module_of(name))
    except Exception as error:
        repair = REPAIR_TORCH if name in PAIR else f'pip install --force-reinstall "{name}{tested}"'
        raise Problem(f"{version} is installed, but import {module_of(name)} fails: {one_line(error)}", repair) from error
    return f"{version} (tested: {tested})" if tested else version


def check_package(requirement):
    """The :class:`Finding` of a distribution that the metadata names."""
    name, tested, extra = requirement.name, requirement.tested, requirement.extra
    repair = REPAIR_TORCH if name in PAIR else f'pip install "{name}{tested}"'
    return look(f"{name} [{extra}]" if extra else name, lambda: see_package(name, tested), repair, required=not extra)


def see_pair():
    """torch and torchaudio of one minor version, importing side by side: the usual breakage is the newest of each."""
    import torch
    import torchaudio

    seen = f"torch {torch.__version__} with torchaudio {torchaudio.__version__}"
    if numbers(torch.__version__)[:2] != numbers(torchaudio.__version__)[:2]:
        raise Problem(f"{seen}: minor versions differ")
    return f"{seen} import side by side"


def see_devices():
    """The devices that torch can use."""
    import torch

    found = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    found += ["mps"] if torch.backends.mps.is_available() else []
    return ", ".join(["cpu", *found]) if found else "cpu (no GPU)"


def see_threads():
    """torch's threads against the processors there are: more threads than processors wait for each other."""
    import torch

    threads, there = torch.get_num_threads(), cores()
    seen = f"torch uses {threads} on {there} processors (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})"
    if threads > there:
        raise Problem(seen)
    return seen


def see_compiler():
    """The C kernels, built here and now. Without them the eager kernels give the same numbers, slower."""
    from spikebrain.kernels import multilevel, native

    source = Path(multilevel.__file__).parent / "multilevel.c"
    if native.load(source) is None:
        raise Problem(native.why_not() or f"{source.name} does not build with {native.compiler()}")
    return f"{source.name} built with {native.compiler()}"


def see_triton():
    """Triton's kernels, which GPUs use: one of them run here and now, on a GPU, or interpreted where TRITON_INTERPRET=1."""
    import torch
    import triton

    from spikebrain.kernels import dispatch, native

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = dispatch.no_triton(device)
    if reason and device.type == "cpu":
        return f"{triton.__version__} imports; no GPU here for its kernels (TRITON_INTERPRET=1 checks them without)"
    if reason:
        gpu = "none for this GPU, on which the slower eager kernels run"
        raise Problem(f"{triton.__version__}: {reason}", gpu if native.compiler() else "apt-get install gcc libc6-dev")
    fired = _fire_six(device)
    if fired != 6:
        raise Problem(f"{triton.__version__}: the LIF kernel fires {fired} spikes of 6 on {device}")
    return f"{triton.__version__}: the LIF kernel runs {'on cuda' if device.type == 'cuda' else 'interpreted'}"


def _fire_six(device):
    """How many spikes three neurons fire in Triton over two frames, each of which lifts them over the threshold."""
    import torch

    from spikebrain.kernels import lif

    x, counts = torch.ones(1, 2, 3, device=device), torch.tensor([2], device=device)
    return int(lif.fire(x, None, x[0, 0], x[:, 0], None, counts, lif.FireOptions(), "triton")[1].sum())


def see_speech():
    """espeak-ng, from ``espeakng-loader``, really saying a word: what synthetic corpora are made with."""
    from spikebrain.data.synthetic import speech

    samples, rate = speech.speak("seven")
    if not len(samples):
        raise Problem("espeak-ng was silent")
    return f"espeak-ng says a word: {len(samples) / rate:.2f} s at {rate} Hz"


def see_registry():
    """Every registered network, built on torch's meta device (shapes without memory)."""
    import torch

    from spikebrain import registry

    broken = {}
    for entry in registry.entries():
        try:
            with torch.device("meta"):
                registry.build(entry.name, **({"channels": 8} if entry.kind == "neuron" else {}))
        except Exception as error:
            broken[entry.name] = one_line(error)
    if broken:
        raise Problem(f"do not build: {broken}")
    return f"{len(registry.entries())} entries build: {', '.join(entry.name for entry in registry.entries())}"


def see_disk(folder):
    """Free space where results go."""
    there = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(there).free / 2**30
    if not os.access(there, os.W_OK):
        raise Problem(f"{folder} cannot be written")
    if free < WANTED_GIB:
        raise Problem(f"{free:.1f} GiB free in {folder}, wanted {WANTED_GIB:.0f}")
    return f"{free:.1f} GiB free in {folder}"


def examine(folder):
    """Every :class:`Finding`, in reading order; ``folder`` is where results will go."""
    needs = requirements()
    return [
        look("python", see_python, "make install PYTHON=python3.11", required=True),
        look("spikebrain", see_spikebrain, "make install, or pip install -e . in the checkout", required=True),
        *(check_package(need) for need in needs if not need.extra),
        look("torch + torchaudio", see_pair, REPAIR_TORCH, required=True),
        look("devices", see_devices, REPAIR_TORCH, required=True),
        look("registry", see_registry, REPAIR_TORCH, required=True),
        look("threads", see_threads, f"export OMP_NUM_THREADS={cores()}"),
        look("C kernels", see_compiler, "apt-get install gcc libc6-dev"),
        look("triton", see_triton, "pip install --force-reinstall triton"),
        *(check_package(need) for need in needs if need.extra),
        look("synthetic speech", see_speech, 'pip install "espeakng-loader"'),
        look("disk", lambda: see_disk(folder), f"--output_folder on a disk with {WANTED_GIB:.0f} GiB free that you may write"),
    ]


def describe(findings):
    """The findings as text: one line each, and the repair under each that does not work."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        word = "ok" if finding.works else "FAILS" if finding.required else "missing"
        lines.append(f"{word:>7}  {finding.name:<{width}}  {finding.detail}")
        if finding.repair and not finding.works:
            lines.append(f"{'':>7}  {'':<{width}}  repair: {finding.repair}")
    failed = [finding.name for finding in findings if finding.required and not finding.works]
    absent = [finding.name for finding in findings if not finding.required and not finding.works]
    lines.append(f"Required: {'everything works' if not failed else ', '.join(failed) + ' must be repaired'}.")
    lines.append(f"Optional: {'everything works' if not absent else ', '.join(absent) + ' missing; the rest works without'}.")
    return "\n".join(lines)


def main(arguments=None):
    """Prints the findings; returns 0 when everything required works, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="spikebrain doctor", description="says what works here, what does not, and the repair")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.add_argument("--folder", type=Path, default=Path("results"), help="where results will go (default: %(default)s)")
    options = parser.parse_args(arguments)
    findings = examine(options.folder)
    works = all(finding.works for finding in findings if finding.required)
    print(json.dumps({"works": works, "findings": [asdict(f) for f in findings]}, indent=2) if options.json else describe(findings))
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())

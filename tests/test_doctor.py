"""The doctor's text and verdict: here, with packages that fail, and where nothing is installed at all."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from spikebrain import doctor

# Runs at the start of every Python that finds it: importing a package of $BLOCKED fails, as a broken library does.
HOOK = """
    import os, sys
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in os.environ["BLOCKED"].split(","):
                raise ImportError(f"{name}: undefined symbol", name=name)
    sys.meta_path.insert(0, Block())
"""


def run(folder, *arguments, blocked=""):
    """The doctor in a process of its own, with imports of ``blocked`` (comma-separated) failing."""
    (folder / "sitecustomize.py").write_text(textwrap.dedent(HOOK), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder), "BLOCKED": blocked}
    command = [sys.executable, "-m", "spikebrain.doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def by_name(done):
    """Name -> finding of a run with ``--json``."""
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def lines_about(done, name):
    """The lines of the text from the one of ``name`` up to and with its repair."""
    lines = done.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line[9:].startswith(f"{name} "))
    return lines[first : first + 2]


@pytest.fixture(scope="module")
def blocked(tmp_path_factory):
    """A run with three optional packages that do not import."""
    return run(tmp_path_factory.mktemp("blocked"), blocked="triton,matplotlib,espeakng_loader")


def test_here_everything_required_works(checkout, tmp_path):
    done = subprocess.run([sys.executable, checkout / "tools" / "doctor.py", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = by_name(done)
    assert json.loads(done.stdout)["works"] is True
    required = {name for name, finding in found.items() if finding["required"]}
    assert {"python", "spikebrain", "torch", "torchaudio", "speechbrain", "torch + torchaudio", "devices", "registry"} <= required
    assert all(found[name]["works"] for name in required)
    import torch

    assert torch.__version__.split("+")[0] in found["torch"]["detail"] and ">=2.7.1,<2.12" in found["torch"]["detail"]
    assert "iml_spikeformer" in found["registry"]["detail"]


def test_a_word_is_really_said():
    pytest.importorskip("espeakng_loader")
    assert "says a word" in doctor.see_speech()


def test_a_broken_extra_is_named_with_its_repair_and_the_rest_works(blocked):
    assert blocked.returncode == 0, blocked.stdout + blocked.stderr
    seen, repair = lines_about(blocked, "matplotlib [plots]")
    assert seen.startswith("missing") and "is installed, but import matplotlib fails: ImportError: matplotlib: undefined symbol" in seen
    assert repair.strip() == 'repair: pip install --force-reinstall "matplotlib"'
    seen, repair = lines_about(blocked, "triton")
    assert seen.startswith("missing") and repair.strip() == "repair: pip install --force-reinstall triton"
    assert lines_about(blocked, "synthetic speech")[0].startswith("missing")
    assert "Required: everything works." in blocked.stdout
    optional = blocked.stdout.splitlines()[-1]
    assert optional.startswith("Optional: ") and "triton" in optional and "matplotlib [plots]" in optional


def test_a_torchaudio_that_does_not_import_fails_with_the_pair_that_works(tmp_path):
    done = run(tmp_path, blocked="torchaudio")
    assert done.returncode == 1
    seen, repair = lines_about(done, "torch + torchaudio")
    assert seen.strip().startswith("FAILS") and "undefined symbol" in seen
    assert repair.strip() == f"repair: pip install --force-reinstall torch=={doctor.TORCH} torchaudio=={doctor.TORCH}"
    assert "torch + torchaudio" in done.stdout.splitlines()[-2] and "must be repaired" in done.stdout.splitlines()[-2]


def test_without_any_package_it_still_speaks(checkout, tmp_path):
    # -I and -S: a Python that sees neither its site-packages nor the environment.
    done = subprocess.run([sys.executable, "-I", "-S", checkout / "tools" / "doctor.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    seen, repair = lines_about(done, "torch + torchaudio")
    assert "No module named 'torch'" in seen and repair.strip() == f"repair: {doctor.REPAIR_TORCH}"


def test_the_command_is_a_door_to_it(tmp_path):
    done = subprocess.run([sys.executable, "-m", "spikebrain.cli", "doctor", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "usage: spikebrain doctor" in done.stdout and "--json" in done.stdout


def test_the_command_refuses_what_it_does_not_know(tmp_path):
    done = subprocess.run([sys.executable, "-m", "spikebrain.cli", "docter"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "docter" in done.stderr and "doctor" in done.stderr


@pytest.mark.parametrize(
    "line, expected",
    [
        ("torch<2.12,>=2.7.1", doctor.Requirement("torch", ">=2.7.1,<2.12", "")),
        ("safetensors", doctor.Requirement("safetensors", "", "")),
        ('spikingjelly>=2.0; extra == "peers"', doctor.Requirement("spikingjelly", ">=2.0", "peers")),
        ("pytest-xdist ; extra == 'dev'", doctor.Requirement("pytest-xdist", "", "dev")),
        ('a>=2; python_version >= "3.11" and extra == "peers"', doctor.Requirement("a", ">=2", "peers", ">=3.11")),
        ("torch (>=2.7.1,<2.12)", doctor.Requirement("torch", ">=2.7.1,<2.12", "")),
    ],
)
def test_lines_of_metadata(line, expected):
    assert doctor.parse_requirement(line) == expected


@pytest.mark.parametrize(
    "version, tested, expected",
    [
        ("2.11.0+cu130", ">=2.7.1,<2.12", True),
        ("2.12.0", ">=2.7.1,<2.12", False),
        ("2.7.0", ">=2.7.1,<2.12", False),
        ("2.7.1", ">=2.7.1,<2.12", True),
        ("2.9", ">=2.9.0", True),
        ("2.15.0a0+git1", ">=2.7.1,<2.12", False),
        ("10.0", ">=9.1", True),
        ("1.0", "", True),
    ],
)
def test_ranges(version, tested, expected):
    assert doctor.fits(version, tested) is expected


def test_a_version_outside_the_range_is_said_with_both():
    import safetensors

    version = safetensors.__version__
    finding = doctor.check_package(doctor.Requirement("safetensors", f">{version}", ""))
    assert (finding.works, finding.required) == (False, True)
    assert finding.detail == f"{version} is outside the tested range >{version}"
    assert finding.repair == f'pip install "safetensors>{version}"'


def test_a_distribution_that_is_absent_is_to_be_installed():
    finding = doctor.check_package(doctor.Requirement("spikebrain-absent", ">=1", "nowhere"))
    assert (finding.works, finding.required, finding.detail) == (False, False, "not installed")
    assert finding.repair == 'pip install "spikebrain-absent>=1"'


@pytest.mark.parametrize(
    "error, repair",
    [
        (ModuleNotFoundError("No module named 'numpy.core'", name="numpy.core"), "pip install numpy"),
        (ModuleNotFoundError("No module named 'spikebrain.x'", name="spikebrain.x"), "the usual one"),
        (ImportError("libcudart.so", name="torch"), doctor.REPAIR_TORCH),
        (OSError("undefined symbol"), "the usual one"),
    ],
)
def test_an_import_error_says_its_own_repair(error, repair):
    def check():
        raise error

    assert doctor.look("x", check, "the usual one").repair == repair


def test_a_module_of_another_name_is_found():
    assert doctor.module_of("pytest-xdist") == "xdist"
    assert doctor.module_of("HyperPyYAML") == doctor.module_of("hyperpyyaml") == "hyperpyyaml"


def test_a_broken_registry_entry_is_named(monkeypatch):
    from spikebrain import registry

    def broken(**arguments):
        raise RuntimeError("no such layer")

    extra = registry.Entry("planted", broken, "encoder", False, "none")
    monkeypatch.setattr(registry, "_ENTRIES", (*registry._ENTRIES, extra))
    with pytest.raises(doctor.Problem, match="planted.*no such layer"):
        doctor.see_registry()


def test_disk(tmp_path, monkeypatch):
    assert "GiB free" in doctor.see_disk(tmp_path / "not" / "yet")
    monkeypatch.setattr(doctor, "WANTED_GIB", 1e9)
    with pytest.raises(doctor.Problem, match="wanted 1000000000"):
        doctor.see_disk(tmp_path)


def look(check, setup="", **environment):
    """One check alone, in a process of its own, after the statements ``setup``: its finding."""
    code = f"{setup}\nimport json, dataclasses\nfrom spikebrain import doctor\n"
    code += f"print(json.dumps(dataclasses.asdict(doctor.look('x', doctor.{check}, 'mend it'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or doctor.cores() < 2, reason="needs two processors and a way to give one up")
def test_threads_above_the_processors_are_told():
    one = "import os, torch\ntorch.set_num_threads(2)\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert look("see_threads", OMP_NUM_THREADS="1")["works"]
    finding = look("see_threads", one, OMP_NUM_THREADS="2")
    assert finding["detail"] == "torch uses 2 on 1 processors (OMP_NUM_THREADS=2)" and not finding["works"]


def test_without_a_compiler_the_reason_is_told():
    finding = look("see_compiler", SPIKEBRAIN_NATIVE="0")
    assert not finding["works"] and "SPIKEBRAIN_NATIVE=0" in finding["detail"]


def test_a_compiler_that_cannot_compile_is_told(tmp_path):
    bad = tmp_path / "cc"
    bad.write_text("#!/bin/sh\necho no headers >&2\nexit 1\n")
    bad.chmod(0o755)
    finding = look("see_compiler", CC=str(bad), SPIKEBRAIN_CACHE=str(tmp_path / "cache"))
    assert not finding["works"] and f"does not build with {bad}" in finding["detail"]


def test_triton_s_kernels_are_run_and_without_a_gpu_the_way_to_is_told():
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("triton")
    finding = look("see_triton", TRITON_INTERPRET="0")
    assert finding["works"]
    assert finding["detail"].endswith("the LIF kernel runs on cuda") or not torch.cuda.is_available()
    assert torch.cuda.is_available() or "no GPU here for its kernels (TRITON_INTERPRET=1" in finding["detail"]
    without = "import torch\ntorch.cuda.is_available = lambda: False"
    assert look("see_triton", without, TRITON_INTERPRET="1")["detail"].endswith("the LIF kernel runs interpreted")


def test_a_gpu_without_a_compiler_for_triton_is_told_with_the_repair():
    pytest.importorskip("triton")
    gpu = "import torch\nfrom spikebrain.kernels import native\ntorch.cuda.is_available = lambda: True\nnative.compiler = lambda: None"
    finding = look("see_triton", gpu, TRITON_INTERPRET="0")
    assert not finding["works"] and "no C compiler found, with which Triton" in finding["detail"]
    assert finding["repair"] == "apt-get install gcc libc6-dev"


def test_a_triton_kernel_that_counts_wrong_is_told():
    pytest.importorskip("triton")
    wrong = "from spikebrain import doctor\ndoctor._fire_six = lambda device: 5"
    finding = look("see_triton", wrong, TRITON_INTERPRET="1")
    assert not finding["works"] and "fires 5 spikes of 6" in finding["detail"] and finding["repair"] == "mend it"

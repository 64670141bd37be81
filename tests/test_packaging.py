"""The wheel: what lies in it, what its metadata says, and that it works away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from spikebrain import doctor
from spikebrain.kernels import native

YAML = """
net: !new:spikebrain.lobes.SpikingTransformerASR
    tgt_vocab: 7
    input_size: 5
    d_model: 16
    nhead: 2
    num_encoder_layers: 1
    num_decoder_layers: 1
    d_ffn: 16
    encoder_kwargs:
        levels: 4
"""
USE = """
import sys, torch, spikebrain
from pathlib import Path
from hyperpyyaml import load_hyperpyyaml

net = load_hyperpyyaml(Path("model.yaml"))["net"].eval()
encoded, decoded = net(torch.randn(2, 9, 5), torch.ones(2, 3, dtype=torch.long), torch.tensor([1.0, 0.5]))
assert encoded.shape == (2, 9, 16) and decoded.shape == (2, 3, 16), (encoded.shape, decoded.shape)
print(spikebrain.__file__)
"""


def call(*command, **options):
    """A finished process that must have ended well; what it printed is in the failure where it has not."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(checkout, source_files, tmp_path_factory):
    """A wheel built from a copy of the repository's files, so that nothing left over from another build goes in."""
    if doctor.numbers(metadata.version("setuptools")) < (77,):
        pytest.fail(f"setuptools {metadata.version('setuptools')} builds no wheel of this package, 77 does: make install")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in source_files:
        target = source / path.relative_to(checkout)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def inside(wheel):
    """Names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_file_of_the_package_comes_along_and_nothing_else(inside, source_files, checkout):
    package = {path.relative_to(checkout).as_posix() for path in source_files if checkout / "spikebrain" in path.parents}
    assert {name for name in package if not name.endswith(".py")}, "the package has data files, the test would say nothing without"
    assert {name for name in inside if ".dist-info/" not in name} == package


def test_the_licence_comes_along(inside, wheel, checkout):
    (name,) = [name for name in inside if name.endswith("LICENSE")]
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(name) == (checkout / "LICENSE").read_bytes()


def test_metadata_holds_the_ranges_and_the_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(name).decode()
    needs = [doctor.parse_requirement(line) for line in re.findall(r"^Requires-Dist: (.+)$", text, re.M)]
    always = {need.name: need.tested for need in needs if not need.extra}
    assert always == {
        "torch": ">=2.7.1,<2.12",
        "torchaudio": ">=2.7.1,<2.12",
        "speechbrain": ">=1.1.2,<1.2",
        "hyperpyyaml": "",
        "sentencepiece": "",
        "safetensors": "",
    }
    extras = set(re.findall(r"^Provides-Extra: (.+)$", text, re.M))
    assert extras == {"cpu", "synthetic", "spikes", "plots", "ssl", "export", "peers", "dev"}
    assert "Requires-Python: >=3.10" in text


def test_make_installs_the_pair_that_the_doctor_prescribes(checkout):
    pinned = re.search(r"^TORCH \?= (.+)$", (checkout / "Makefile").read_text(), re.M).group(1)
    assert pinned == doctor.TORCH and doctor.fits(pinned, ">=2.7.1,<2.12")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel installed into an empty folder, and an environment that finds it before any other spikebrain."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    call(*pip, "install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder, {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.full
def test_a_yaml_builds_the_model_away_from_the_checkout(installed, tmp_path):
    folder, environment = installed
    (tmp_path / "model.yaml").write_text(YAML, encoding="utf-8")
    done = call(sys.executable, "-c", USE, cwd=tmp_path, env=environment)
    assert done.stdout.strip() == str(folder / "spikebrain" / "__init__.py")


@pytest.mark.full
def test_the_doctor_works_away_from_the_checkout(installed, tmp_path):
    _, environment = installed
    done = call(sys.executable, "-m", "spikebrain.doctor", cwd=tmp_path, env=environment)
    assert "Required: everything works." in done.stdout
    assert native.compiler() is None or "multilevel.c built with" in done.stdout


@pytest.mark.full
def test_every_module_of_the_wheel_imports_away_from_the_checkout(installed, inside, tmp_path):
    _, environment = installed
    modules = sorted(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in inside if name.endswith(".py"))
    call(sys.executable, "-c", "".join(f"import {name}\n" for name in modules), cwd=tmp_path, env=environment)

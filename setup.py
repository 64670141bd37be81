"""Metadata, dependencies and extras of spikebrain."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "spikebrain" / "__init__.py").read_text(encoding="utf-8"), re.M).group(1)

# torchaudio must be of torch's minor version, which a requirement cannot say: `spikebrain doctor` checks it.
REQUIRED = [
    "torch>=2.7.1,<2.12",
    "torchaudio>=2.7.1,<2.12",
    "speechbrain>=1.1.2,<1.2",
    "hyperpyyaml",
    "sentencepiece",
    "safetensors",
]
EXTRAS = {
    "cpu": [],  # the CPU kernels are C, built on first use: a compiler is all they want
    "synthetic": ["espeakng-loader"],
    "spikes": ["h5py"],
    "plots": ["matplotlib", "tensorboard"],
    "ssl": ["transformers>=4.48"],  # older ones do not know the names in published wav2vec2 weights
    "export": ["nir", "onnx", "onnxruntime"],
    "peers": ['spikingjelly>=2.0; python_version >= "3.11"', "snntorch", "loguru"],
    "dev": ["pandas", "pytest", "pytest-xdist", "ruff", "setuptools>=77"],
}

setup(
    name="spikebrain",
    version=VERSION,
    description="Spiking speech processing for SpeechBrain",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["spikebrain", "spikebrain.*"]),
    include_package_data=True,
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["spikebrain = spikebrain.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)

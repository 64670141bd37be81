"""Bundles of every format that there ever was load, and give what they gave when they were made."""

import shutil
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import freeze  # noqa: E402

from spikebrain.publishing import BundleError, contents, load  # noqa: E402

BUNDLES = [(number, kind) for number in sorted(contents.KEYS) for kind in freeze.KINDS]


def test_every_format_has_frozen_bundles():
    assert {int(folder.name) for folder in freeze.FROZEN.iterdir()} == set(contents.KEYS)


@pytest.mark.parametrize(("number", "kind"), BUNDLES)
def test_a_frozen_bundle_loads_and_gives_what_it_gave(number, kind):
    model = load(freeze.FROZEN / str(number) / kind, check=True)
    assert model.config["format"] == number and model.config["model"] == f"tiny_{kind}"


@pytest.mark.parametrize("kind", freeze.KINDS)
def test_a_network_that_computes_otherwise_would_be_found(kind, tmp_path, reseal):
    folder = shutil.copytree(freeze.FROZEN / str(contents.FORMAT) / kind, tmp_path / kind)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    name = max((name for name in state if name.endswith("weight")), key=lambda name: state[name].numel())
    noise = 0.5 * torch.randn(state[name].shape, generator=torch.Generator().manual_seed(1))
    safetensors.torch.save_file({**state, name: state[name] + noise}, folder / "model.safetensors")
    reseal(folder)
    with pytest.raises(BundleError, match="away from those stored"):
        load(folder, check=True)

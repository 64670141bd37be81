"""The models that come with the repository: small, plain data, as good as their cards say."""

import json
import re
from pathlib import Path

import pytest

from spikebrain.data import spoken_digits
from spikebrain.publishing import bundle, contents, evaluate, load

ROOT = Path(__file__).resolve().parents[2] / "pretrained"
BUNDLES = sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir())
DIGITS, STRINGS = "spikescr_digits", "iml_spikeformer_connected_digits"
MOST = 16 * 2**20
NEAR = 0.5  # points: on another processor float32 may flip a spike


def test_what_ships():
    files = [path for path in ROOT.rglob("*") if path.is_file()]
    assert [DIGITS, STRINGS] == sorted(BUNDLES, reverse=True)
    assert {path.suffix for path in files} == {".md", ".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= MOST
    listed = re.findall(r"\]\((\w+)/README\.md\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == BUNDLES


@pytest.mark.parametrize("name", BUNDLES)
def test_it_loads_and_gives_what_it_gave(name):
    model = load(ROOT / name, check=True)
    assert not model.config["commit"].endswith("-dirty")
    assert {"README.md", "results.json", "energy.json"} <= model.config["files"].keys()


@pytest.mark.parametrize("name", BUNDLES)
def test_its_card_tells_how_it_was_made_and_measured(name):
    config, card = contents.read_config(ROOT / name), (ROOT / name / bundle.CARD).read_text(encoding="utf-8")
    results = json.loads((ROOT / name / bundle.RESULTS).read_text(encoding="utf-8"))
    assert config["command"] in card and "spikebrain evaluate BUNDLE" in card and "3 seeds, mean ± standard deviation" in card
    assert all(f"| {value:.2f} % |" in card for own in results["metrics"].values() for value in own.values())
    assert "| whole network |" in card and "run on events, one utterance gives the same spikes" in card.lower()


def near(folder, corpus, splits):
    """Whether a bundle is as its card says on ``splits`` of a corpus."""
    found = evaluate.evaluate(folder, corpus, splits)
    return bool(found) and all(abs(one.value - one.card) <= NEAR for one in found)


def test_digits_as_on_the_card(real_data, tmp_path):
    corpus = spoken_digits.make(tmp_path / "digits", real_data / "digits", "gsc")
    assert near(ROOT / DIGITS, corpus, ["valid", "test"])


def test_strings_as_on_the_card(real_data):
    assert near(ROOT / STRINGS, real_data / "connected_digits", ["test-clean"])


@pytest.mark.full
def test_all_strings_as_on_the_card(real_data):
    assert near(ROOT / STRINGS, real_data / "connected_digits", None)


def test_a_digit_by_name(real_data):
    model = load(ROOT / DIGITS)
    files = [real_data / "digits" / "recordings" / f"{digit}_george_0.flac" for digit in range(10)]  # of the test part, at 8 kHz
    named = model.classify([str(file) for file in files])
    assert sum(one.label == word for one, word in zip(named, spoken_digits.WORDS, strict=True)) >= 9

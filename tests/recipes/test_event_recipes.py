"""The SHD and SSC recipes, shrunk, on synthetic spikes in the corpora's real layout: every YAML, and the other encoders."""

import json

import pytest
import ruamel.yaml

from spikebrain.data.corpora import shd, ssc
from spikebrain.training import classify, distil, hooks
from spikebrain.training.run import run

TASKS = (classify, distil)
CORPORA = {"SHD": shd, "SSC": ssc}
SPLITS = {"train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"]}
DIRECT, CURRICULUM = ("spikescr", "spikescr_mini", "lif_network_mini"), ("spikescr_kdcl", "spikescr_mini_kdcl")


@pytest.fixture(scope="module")
def spikes(tmp_path_factory):
    """Name of a corpus -> a folder in its layout, with a few recordings of each class."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    pytest.importorskip("h5py", reason="pip install spikebrain[spikes]: SHD and SSC are HDF5 files")
    from spikebrain.data.synthetic import shd as twin_of_shd
    from spikebrain.data.synthetic import ssc as twin_of_ssc

    base = tmp_path_factory.mktemp("spikes")
    made = {"SHD": twin_of_shd.make(base / "SHD", utterances={"train": 40, "test": 20})}
    return {**made, "SSC": twin_of_ssc.make(base / "SSC", utterances={"train": 1, "valid": 1, "test": 1})}


@pytest.fixture
def train(checkout, shrunk, spikes, tmp_path, monkeypatch):
    """Runs a shrunk recipe in this process; gives results.json as read back."""
    monkeypatch.setattr(hooks, "draw", lambda *those: None)

    def go(corpus, name, **overrides):
        recipe, folder = checkout / "recipes" / corpus, tmp_path / name
        small = {"data_folder": spikes[corpus], "output_folder": folder, "batch_size": 16, "number_of_epochs": 1, **SPLITS, **overrides}
        words = shrunk(recipe / "hparams" / f"{name}.yaml", **small)
        run(str(recipe / "train.py"), CORPORA[corpus], TASKS, words)
        return json.loads((folder / "results.json").read_text())

    return go


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_yaml_was_listed(checkout, corpus):
    found = {path.stem for path in (checkout / "recipes" / corpus / "hparams").glob("*.yaml")}
    assert found == {*DIRECT, *CURRICULUM}


@pytest.mark.parametrize("corpus, classes", [("SHD", 20), ("SSC", 35)])
@pytest.mark.parametrize("name", DIRECT)
def test_every_yaml_for_one_number_of_frames_trains(train, corpus, classes, name):
    results = train(corpus, name)
    assert (results["task"], results["corpus"], results["model"], results["frames"]) == ("classify", corpus, name, 100)
    assert len(results["labels"]) == classes and set(results["metrics"]) == {"valid", "test"}
    # SpikeSCR's files follow the gate of the gated unit, SN2.
    gates = [layer.endswith("layers.0.convolution.gate.neuron") for layer in results.get("firing_by_epoch", {})]
    assert gates == ([] if name == "lif_network_mini" else [True])
    # Counts of events are accumulated: nothing in front of the output layer multiplies real numbers.
    lines = {line["line"]: line["operation"] for line in results["energy"]["encoder_blocks"]["lines"]}
    assert lines and set(lines.values()) == {"ac"}, lines


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("name", CURRICULUM)
def test_every_yaml_with_a_curriculum_trains(train, corpus, name):
    results = train(corpus, name, kd_epochs=1, frames=[50, 20], arms=["kdcl", "init"])
    assert [(stage["name"], stage["frames"]) for stage in results["stages"]] == [("direct-50", 50), ("kdcl-20", 20), ("init-20", 20)]


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_curriculum_is_the_direct_recipe_in_all_else(checkout, corpus):
    for direct, curriculum in (("spikescr", "spikescr_kdcl"), ("spikescr_mini", "spikescr_mini_kdcl")):
        one, two = (ruamel.yaml.YAML().load(checkout / "recipes" / corpus / "hparams" / f"{name}.yaml") for name in (direct, curriculum))
        assert {key for key in one if str(one[key]) != str(two[key])} == {"task", "model", "frames"}
        assert set(two) - set(one) == distil.KEYS - classify.KEYS | {"warmup_epochs"}


def test_the_twin_without_spikes_trains_by_the_same_yaml(train):
    results = train("SHD", "spikescr_mini", encoder="spikescr_twin", model="spikescr_twin_mini")
    assert results["model"] == "spikescr_twin_mini" and not results["firing_rate"]
    assert results["energy"]["full"]["mJ"] == pytest.approx(results["energy"]["full"]["twin_mJ"])


def test_the_protocol_of_the_literature_is_labelled(train):
    results = train("SHD", "spikescr_mini", protocol="paper")
    assert results["protocol"] == "paper" and results["data"]["settings"]["validation"] == "the test set"
    assert results["metrics"]["valid"] == results["metrics"]["test"]

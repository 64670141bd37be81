"""Cards: every number comes from the run's own files, the hub can read the metadata, and what is not known is said."""

import copy
import json
import re
import sys
from pathlib import Path

import huggingface_hub
import pytest
import ruamel.yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import tiny_bundles  # noqa: E402

from spikebrain.publishing import card, contents  # noqa: E402

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
KEPT = {
    "asr": "LibriSpeech/results/iml_spikeformer_mini-connected_digits-1.json",
    "classify": "GSC/results/spikescr_mini_kdcl-digits-1.json",
}


def kept(task, seed=1):
    """``results.json`` of a run that the repository keeps."""
    return json.loads((RECIPES / KEPT[task].replace("-1.json", f"-{seed}.json")).read_text(encoding="utf-8"))


def config_of(results, task, **changes):
    """A ``bundle.json`` that goes with results; the network's parts are a tiny one's."""
    kind = {"asr": "attention", "classify": "words", "identify": "speakers", "verify": "verify"}[task]
    _, network, labels, decoding = tiny_bundles.KINDS[kind]
    common = {key: results[key] for key in ("model", "corpus", "versions", "command", "commit")}
    return {
        **common, "task": task, "network": network, "labels": labels, "decoding": decoding, "sample_rate": 16000, "licence": "Apache-2.0",
        "data": "Recordings of digits.", "parameters": results["parameters"]["total"], **changes,
    }  # fmt: skip


def verification():
    """``results.json`` of a run that compares speakers, of the form that training/verify.py writes."""
    results = kept("asr")
    numbers = {"vox1-valid": {"accuracy": 98.9}, "vox1-o": {"EER": 5.69, "minDCF": 0.579, "minDCF_0.05": 0.46}}
    splits = {"vox1-o": {"utterances": 320, "hours": 0.4, "speakers": 8}}
    return {**results, "task": "verify", "metrics": numbers, "trials": {"vox1-o": 2178}, "data": {"splits": splits, "complete": True}}


def cells(text, first):
    """The cells of the table's row that begins with ``first``."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("task", ["asr", "classify", "identify", "verify"])
def test_the_hub_reads_the_metadata(task):
    results = verification() if task == "verify" else kept("asr" if task == "asr" else "classify")
    data = huggingface_hub.ModelCard(card.card(config_of(results, task), results)).data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "spikebrain", results["model"])
    pipelines = {"asr": "automatic-speech-recognition", "verify": None}
    assert data.pipeline_tag == pipelines.get(task, "audio-classification") and "spiking-neural-network" in data.tags
    found = {(one.dataset_split, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {(split, name.lower()): value for split, of in results["metrics"].items() for name, value in of.items()}


def test_every_number_is_the_runs_own():
    results = kept("asr")
    text = card.card(config_of(results, "asr"), results)
    assert cells(text, "test-other") == ["test-other", "word error rate", f"{results['metrics']['test-other']['WER']:.2f} %", "150"]
    full = results["energy"]["full"]
    assert cells(text, "whole network")[1:3] == [f"{full['mJ']:.4g}", f"{full['twin_mJ']:.4g}"]
    name, layer = next(iter(results["firing_rate"].items()))
    assert cells(text, f"`{name}`")[1:] == [f"{layer['mean']:.3f}", str(layer["levels"]), str(layer["channels"])]
    assert f"{results['parameters']['total']:,} parameters" in text and results["command"] in text and results["commit"] in text
    assert "The audit of products was not run" in text and "how much another seed differs is not known" in text
    changed = copy.deepcopy(results)
    changed["metrics"]["test-other"]["WER"] = 77.777
    assert cells(card.card(config_of(results, "asr"), changed), "test-other")[2] == "77.78 %"


def test_the_spread_over_seeds():
    runs = [kept("asr", seed) for seed in (1, 2, 3)]
    values = [run["metrics"]["test-clean"]["WER"] for run in runs]
    mean = sum(values) / 3
    deviation = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    row = cells(card.card(config_of(runs[0], "asr"), runs[0], seeds=runs[1:]), "test-clean")
    assert row[3] == f"{mean:.2f} % ± {deviation:.2f} %" and row[2] == f"{values[0]:.2f} %"


def test_energy_json_stands_for_what_the_run_found_and_brings_the_audit():
    results = kept("asr")
    energy = {**copy.deepcopy({key: results[key] for key in ("energy", "firing_rate")}), "simulated": "encoder"}
    energy["energy"]["full"]["mJ"] = 0.5
    energy["audit"] = {"findings": [{"sort": "product", "layer": "a", "part": "scores", "accumulate_only": False}]}
    text = card.card(config_of(results, "asr"), results, energy)
    assert cells(text, "whole network")[1] == "0.5" and "1 of 1 products multiply real numbers" in text
    assert "was not run" not in text and all(what in text for what in results["energy"]["counting"]["not_counted"])


def test_data_that_are_not_the_published_corpus_are_not_taken_for_it():
    results = kept("asr")
    text = card.card(config_of(results, "asr"), results)
    assert results["data"]["differences"][0] in text and "not to be compared with published ones of LibriSpeech" in text
    assert "not the whole published corpus" in text.split("---")[1] and "language" not in text.split("---")[1]
    whole = {**results, "data": {**results["data"], "complete": True, "differences": []}}
    text = card.card(config_of(whole, "asr"), whole)
    assert "not to be compared" not in text and 'language: "en"' in text and "not the whole" not in text


def test_what_verification_needs_to_be_told():
    results = verification()
    assert "No threshold comes with it" in card.card(config_of(results, "verify"), results)
    decoding = {"threshold": 0.3125, "threshold_of": "vox1-o"}
    text = card.card(config_of(results, "verify", decoding=decoding), results)
    assert "0.3125, gives equal error rates on vox1-o" in text and cells(text, "vox1-o")[3] == "320 (2178 trials)"
    assert "| vox1-o | lowest detection cost, target share 0.01 | 0.579 |" in text


@pytest.mark.parametrize("name", ["attention", "keywords", "distilled", "identify", "verify"])
def test_the_card_of_a_bundle(name, bundle_of):
    folder = bundle_of(name)
    text = (folder / "README.md").read_text(encoding="utf-8")
    config = contents.read_config(folder)
    assert f"{config['parameters']:,} parameters" in text and config["data"] in text and "None" not in text
    assert huggingface_hub.ModelCard(text).data.model_name == config["model"]


def test_the_commands_of_the_card_are_ones_that_there_are():
    from spikebrain import cli

    for python, command in card.USE.values():
        for line in f"spikebrain {command}".splitlines():
            assert line.split()[1] in cli.COMMANDS
        assert re.search(r"model\.(transcribe|classify|verify)\(", python)


def test_foreign_text_ends_neither_the_metadata_nor_a_table():
    results = kept("asr")
    results = {**results, "model": 'a"\n---\n# x: !!python/object', "protocol": "p | q\n---"}
    text = card.card(config_of(results, "asr"), results)
    head = text.split("\n---\n")[0].removeprefix("---\n")
    assert ruamel.yaml.YAML(typ="safe").load(head)["model-index"][0]["name"] == results["model"]


@pytest.mark.parametrize(
    "change, said",
    [({"model": "other"}, "is of the model other, the bundle of iml_spikeformer_mini"), ({"corpus": "GSC"}, "is of the corpus GSC")],
)
def test_results_of_another_run_are_refused(change, said):
    results = kept("asr")
    with pytest.raises(ValueError, match=said):
        card.card(config_of(results, "asr"), {**results, **change})


def test_seeds_of_another_recipe_are_refused():
    results = kept("asr")
    with pytest.raises(ValueError, match="seeds: one is of the protocol other"):
        card.card(config_of(results, "asr"), results, seeds=[{**kept("asr", 2), "protocol": "other"}])
    with pytest.raises(ValueError, match="seeds: one is of the splits and metrics {'test-clean'"):
        card.card(config_of(results, "asr"), results, seeds=[{**kept("asr", 2), "metrics": {"test-clean": {"WER": 1.0}}}])
    with pytest.raises(ValueError, match=r"seeds: \[1, 1\] are not all different"):
        card.card(config_of(results, "asr"), results, seeds=[results])

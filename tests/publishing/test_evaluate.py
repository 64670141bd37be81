"""A bundle, asked about the corpus of its card, says what the card says; other data say other things."""

import json
import re
import shutil

import pytest
import safetensors.torch
import soundfile
import torch

from spikebrain import cli
from spikebrain.data.manifest import DataError
from spikebrain.publishing import BundleError, evaluate
from spikebrain.training import looking, verify

# name of RUNS -> what its results report that a bundle can be asked for
MEASURED = {
    "attention": ("WER",),
    "ctc": ("WER",),
    "keywords": ("accuracy",),
    "identify": ("accuracy",),
    "verify": ("EER", "minDCF", "minDCF_0.05"),
}


@pytest.fixture(scope="session")
def corpus_of(run_of):
    """(name of RUNS) -> the corpus that it was trained on."""
    return lambda name: run_of(name).parent / "corpus"


@pytest.mark.parametrize("name", MEASURED)
def test_what_the_run_reports(name, bundle_of, corpus_of, results_of):
    results, metrics = results_of(name), set(MEASURED[name])
    found = evaluate.evaluate(bundle_of(name), corpus_of(name))
    expected = {(split, key): value for split, own in results["metrics"].items() for key, value in own.items() if key in metrics}
    assert {(one.split, one.metric): one.value for one in found} == pytest.approx(expected, abs=1e-9) and expected
    assert all(one.card == expected[one.split, one.metric] for one in found)
    counts = results["data"]["splits"]
    assert all(0 < one.utterances <= counts[one.split]["utterances"] for one in found)
    if name != "verify":  # whose trials need not name all
        assert all(one.utterances == counts[one.split]["utterances"] for one in found)


def test_trials_are_scored_as_on_the_card(run_of, bundle_of, corpus_of, copy_of, reseal, tmp_path):
    noise = torch.Generator().manual_seed(1)
    corpus = shutil.copytree(corpus_of("verify"), tmp_path / "corpus")
    for path in sorted(corpus.glob("wav/*/*/*.wav")):  # tones alone are told apart by anything
        wav, rate = soundfile.read(path, dtype="float32")
        soundfile.write(path, 0.2 * wav + 0.1 * torch.randn(len(wav), generator=noise).numpy(), rate, subtype="PCM_16")
    values = {}
    for how in ("none", "train", "test"):
        brain = looking.reopened(
            run_of("verify"), json.loads((run_of("verify") / "results.json").read_text()), looking.TASKS,
            data_folder=corpus, subtract_mean=how,
        )  # fmt: skip
        brain.evaluate(brain.data.tests["vox1-o"], test_loader_kwargs=dict(brain.data.eval_loader))
        folder = copy_of("verify")
        reseal(folder, lambda config, how=how: config["decoding"].update(subtract_mean=how))
        if how == "train":
            state = safetensors.torch.load_file(folder / "model.safetensors")
            safetensors.torch.save_file(state | {"centre": brain.cohort[0].double().mean(0).float()}, folder / "model.safetensors")
            reseal(folder)
        found = {one.metric: one.value for one in evaluate.evaluate(folder, corpus)}
        assert found == pytest.approx(verify.metrics_of(brain.scored()[2]))
        values[how] = tuple(found.values())
        shutil.rmtree(folder)
    assert len(set(values.values())) > 1  # so that a wrong mean is seen
    folder = copy_of("verify")
    reseal(folder, lambda config: config["decoding"].update(score_norm="as"))
    with pytest.raises(BundleError, match="scored with score_norm: as, against a cohort"):
        evaluate.evaluate(folder, corpus)


def test_one_split(bundle_of, corpus_of):
    (found,) = evaluate.evaluate(bundle_of("keywords"), corpus_of("keywords"), ["test"])
    assert found.split == "test"
    with pytest.raises(BundleError, match=r"results\.json has no tset.*did you mean test.*: choose among valid, test"):
        evaluate.evaluate(bundle_of("keywords"), corpus_of("keywords"), ["tset"])


def test_other_data_are_found(bundle_of, corpus_of, tmp_path):
    corpus = shutil.copytree(corpus_of("keywords"), tmp_path / "corpus")
    tested = corpus / "testing_list.txt"
    first = tested.read_text().splitlines()[0]
    word, _, name = first.partition("/")
    shutil.copy(corpus / first, corpus / word / f"f{name}")
    tested.write_text(tested.read_text() + f"{word}/f{name}\n")
    (found,) = evaluate.evaluate(bundle_of("keywords"), corpus, ["test"])
    assert found.utterances == 4 and 0 < found.card < 100  # of three clips
    assert found.value != found.card and str(found).endswith(f", {found.card:.4f} on its card (4 utterances)")


def test_the_command(bundle_of, corpus_of, capsys, tmp_path):
    assert cli.main(["evaluate", str(bundle_of("ctc")), str(corpus_of("ctc"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2 and all(re.fullmatch(r"[\w-]+: WER \d+\.\d{4}, as on its card \(\d+ utterances\)", line) for line in lines)
    assert cli.main(["evaluate", str(bundle_of("ctc")), str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("spikebrain evaluate: ")


def test_what_cannot_be_evaluated(bundle_of, copy_of, tmp_path, reseal):
    with pytest.raises(DataError):
        evaluate.evaluate(bundle_of("ctc"), tmp_path / "nowhere")
    with pytest.raises(BundleError, match="hears spikes of a cochlea"):
        evaluate.evaluate(bundle_of("events"), tmp_path)
    folder = copy_of("ctc")
    reseal(folder, lambda config: config["files"].pop("results.json"))
    with pytest.raises(BundleError, match=r"holds no results\.json"):
        evaluate.evaluate(folder, tmp_path)


RESULTS = {
    "{}": "its corpus is 'None', which is none of",
    "[]": "its corpus is 'None', which is none of",
    "no JSON": "is no JSON",
    '{"corpus": ["GSC"], "metrics": {}}': "its corpus is .* which is none of",
    '{"corpus": "Nobody", "metrics": {}}': "its corpus is 'Nobody', which is none of",
    '{"corpus": "GSC", "metrics": []}': "its metrics are no numbers",
    '{"corpus": "GSC", "metrics": {"test": {"accuracy": "all"}}}': "its metrics are no numbers",
    '{"corpus": "GSC", "metrics": {"test": {"WER": 1.0}}}': "reports none of accuracy",
    "[" * 100_000: "nested too deeply|is no JSON",
}


@pytest.mark.parametrize("text", RESULTS, ids=lambda text: text[:40])
def test_what_no_results_are(text, copy_of, tmp_path, reseal):
    folder = copy_of("keywords")
    (folder / "results.json").write_text(text)
    reseal(folder)
    with pytest.raises(BundleError, match=RESULTS[text]):
        evaluate.evaluate(folder, tmp_path)

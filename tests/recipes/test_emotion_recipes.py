"""The emotion recipes, shrunk, on their synthetic twins: folds, what is kept of them, and a run that goes on."""

import importlib
import json
import statistics

import pytest
import torch

from spikebrain.training import emotion, keys
from spikebrain.training.run import run

CORPORA = ["URDU"]
MINI = "pts_snn_mini"


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Name of a corpus -> a small twin in its layout, made once."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    made = {}

    def twin(corpus):
        if corpus not in made:
            maker = importlib.import_module(f"spikebrain.data.synthetic.{corpus.lower()}")
            made[corpus] = maker.make(tmp_path_factory.mktemp("twins") / corpus, utterances={"all": 2})
        return made[corpus]

    return twin


@pytest.fixture
def train(checkout, shrunk, twins, tmp_path):
    """Runs a shrunk recipe in this process; gives results.json as read back."""

    def go(corpus, *options, name=MINI, folder=tmp_path / "run", **overrides):
        recipe = checkout / "recipes" / corpus
        own = {"data_folder": twins(corpus), "output_folder": folder, "cache_folder": tmp_path / "features", "batch_size": 8, **overrides}
        words = shrunk(recipe / "hparams" / f"{name}.yaml", **own)
        run(str(recipe / "train.py"), importlib.import_module(f"spikebrain.data.corpora.{corpus.lower()}"), emotion, [*words, *options])
        return json.loads((folder / "results.json").read_text())

    return go


@pytest.mark.parametrize("corpus", CORPORA)
def test_folds_are_trained_and_added_up(train, tmp_path, corpus):
    results = train(corpus, fold=["1", "2"])
    assert (results["task"], results["corpus"], results["model"]) == ("emotion", corpus, MINI)
    assert [fold["fold"] for fold in results["folds"]] == ["1", "2"]
    for name in ("WA", "UA", "WF1"):
        values = [fold["metrics"]["test"][name] for fold in results["folds"]]
        assert results["metrics"]["test"][name] == pytest.approx(statistics.mean(values))
        assert results["spread"]["test"][name] == pytest.approx(statistics.stdev(values))
    counts = sum(torch.tensor(fold["confusion"]["test"]) for fold in results["folds"])
    assert results["confusion"]["test"] == counts.tolist()
    assert int(counts.sum()) == sum(fold["sizes"]["test"] for fold in results["folds"])
    assert results["pooled"]["test"]["WA"] == pytest.approx(100 * int(counts.trace()) / int(counts.sum()))
    assert (tmp_path / "run" / "confusion.png").is_file() and results["energy"]["full"]["mJ"] > 0
    assert {entry.name for entry in (tmp_path / "run").iterdir() if entry.is_dir()} == {"fold-1", "fold-2", "save"}


def test_a_fold_that_ended_is_not_trained_again(train, monkeypatch):
    first = train("URDU", fold=["1"])
    monkeypatch.setattr(emotion, "train_fold", lambda *_: pytest.fail("was trained again"))
    assert train("URDU", fold=["1"])["folds"] == first["folds"]
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        train("URDU", fold=["1"], seed=5)


def test_folds_side_by_side_are_those_one_after_the_other(train, tmp_path):
    alone = train("URDU", fold=["1", "2"], folder=tmp_path / "alone")
    beside = train("URDU", fold=["1", "2"], jobs=2, folder=tmp_path / "beside")
    assert [fold["metrics"] for fold in beside["folds"]] == [fold["metrics"] for fold in alone["folds"]]
    assert beside["confusion"] == alone["confusion"]


def test_features_are_normalised_by_the_training_utterances_alone(train, monkeypatch):
    seen, build = [], emotion.classify.build

    def watched(own, run_opts, corpus, *rest):
        seen.append((own["features"](frames=1), corpus))
        return build(own, run_opts, corpus, *rest)

    monkeypatch.setattr(emotion.classify, "build", watched)
    results = train("URDU", fold=["1"])
    (stored, corpus), fold = seen[0], results["folds"][0]
    frames = torch.cat([corpus.features[u.id] for u in corpus.utterances])
    assert not torch.allclose(stored.mean, frames.mean(0), atol=1e-3)  # of all utterances
    assert fold["sizes"]["train"] < len(corpus.utterances)


def test_calibration_is_measured_before_and_after(train):
    (fold,) = train("URDU", fold=["1"], gains=[0.5, 1])["folds"]
    assert set(fold["calibration"]) == {"untrained", "trained"} and set(fold["calibration"]["trained"]) == {"0.5", "1"}
    layers = fold["calibration"]["trained"]["1"]["layers"]
    assert all(0 <= layer["silent"] + layer["saturated"] <= 1 for layer in layers.values())
    assert any(name.startswith("readout") for name in layers) and fold["calibration"]["trained"]["1"]["WA"] == pytest.approx(
        fold["metrics"]["test"]["WA"]
    )


@pytest.mark.parametrize(
    "overrides, said",
    [
        ({"fold": ["7"]}, "fold: there is no '7'; there are 1, 2, 3, 4, 5"),
        ({"normalise": "utterance"}, "normalise: 'utterance' is none of global, none"),
        ({"number_of_epochs": 0}, "number_of_epochs: 0 trains nothing"),
        ({"jobs": 0}, "jobs: 0 trains nothing"),
        ({"gains": [0]}, "gains: .0.: give numbers above 0"),
    ],
)
def test_what_cannot_be_trained_is_said(train, overrides, said):
    with pytest.raises(keys.RecipeError, match=said):
        train("URDU", **overrides)

"""The emotion recipes, shrunk, on their synthetic twins: every YAML, folds, features of a frozen model, and a run that goes on."""

import importlib
import inspect
import json
import pydoc
import runpy
import statistics
import sys
from pathlib import Path

import pytest
import ruamel.yaml
import safetensors.torch
import torch

from spikebrain.data import folds
from spikebrain.training import emotion, emotion_regression, hooks, keys, predictions
from spikebrain.training.run import load, run

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

# Corpus -> the first two folds of its small YAML files.
CORPORA = {
    "IEMOCAP": ("session-1", "session-2"),
    "CASIA": ("speaker-liuchanhg", "speaker-wangzhe"),
    "EMODB": ("1", "2"),
    "EMOVO": ("1", "2"),
    "URDU": ("1", "2"),
}
MINI, BASELINES = "pts_snn_mini", ("linear_head_mini", "vanilla_snn_mini")
OF_A_MODEL = ("pts_snn", "linear_head", "vanilla_snn")
# Recordings of a speaker and emotion: as few as leave every class in every fold's training part.
UTTERANCES = {"URDU": 2}


def corpus_of(name):
    """The preparer's module."""
    return importlib.import_module(f"spikebrain.data.corpora.{name.lower()}")


@pytest.fixture(scope="session")
def twins(tmp_path_factory):
    """Name of a corpus -> a small twin in its layout, made once."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    made = {}

    def twin(corpus):
        if corpus not in made:
            maker = importlib.import_module(f"spikebrain.data.synthetic.{corpus.lower()}")
            made[corpus] = maker.make(tmp_path_factory.mktemp("twins") / corpus, utterances={"all": UTTERANCES.get(corpus, 1)})
        return made[corpus]

    return twin


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder with a tiny wav2vec2."""
    pytest.importorskip("transformers", reason="pip install spikebrain[ssl]: models of Hugging Face are tested on a tiny one")
    import tiny_models

    return tiny_models.save(tmp_path_factory.mktemp("models") / "wav2vec2", tiny_models.build("wav2vec2"))


@pytest.fixture
def train(checkout, shrunk, twins, tmp_path, monkeypatch):
    """Runs a shrunk recipe in this process, without pictures (they take longest) unless asked; gives results.json as read back."""

    def go(corpus, *options, name=MINI, folder=tmp_path / "run", pictures=False, **overrides):
        recipe = checkout / "recipes" / corpus
        own = {
            "data_folder": twins(corpus),
            "output_folder": folder,
            "cache_folder": tmp_path / "features",
            **({} if name == "regression" else {"batch_size": 8, "eval_batch_size": 16}),
            **overrides,
        }
        words = shrunk(recipe / "hparams" / f"{name}.yaml", **own)
        with monkeypatch.context() as patch:
            if not pictures:
                patch.setattr(hooks, "draw", lambda *those: None)
            run(str(recipe / "train.py"), corpus_of(corpus), (emotion, emotion_regression), [*words, *options])
        return json.loads((folder / "results.json").read_text())

    return go


@pytest.fixture
def built(checkout, model):
    """What a YAML builds as it is, of a corpus and a file's name, with overrides; without data."""

    def build(corpus, name, **overrides):
        file = str(checkout / "recipes" / corpus / "hparams" / f"{name}.yaml")
        own = {"ssl_folder": model} if name in OF_A_MODEL else {}
        return load(file, {"data_folder": "nowhere", **own, **overrides}, corpus_of(corpus), emotion)

    return build


def in_full(corpora, but):
    """Parameters of a test that takes all ``corpora``, and in the short run only ``but``."""
    return [corpus if corpus == but else pytest.param(corpus, marks=pytest.mark.full) for corpus in corpora]


@pytest.mark.parametrize("corpus", CORPORA)
def test_folds_are_trained_and_added_up(train, tmp_path, corpus):
    results = train(corpus, fold=list(CORPORA[corpus]), pictures=corpus == "URDU")
    assert (results["task"], results["corpus"], results["model"]) == ("emotion", corpus, MINI)
    assert [fold["fold"] for fold in results["folds"]] == list(CORPORA[corpus])
    assert len(results["labels"]) == corpus_of(corpus).CLASSES
    assert results["protocol"] == ("paper" if corpus in ("IEMOCAP", "CASIA") else "random")
    for name in ("WA", "UA", "WF1"):
        values = [fold["metrics"]["test"][name] for fold in results["folds"]]
        assert results["metrics"]["test"][name] == pytest.approx(statistics.mean(values))
        assert results["spread"]["test"][name] == pytest.approx(statistics.stdev(values))
    counts = sum(torch.tensor(fold["confusion"]["test"]) for fold in results["folds"])
    assert results["confusion"]["test"] == counts.tolist()
    assert int(counts.sum()) == sum(fold["sizes"]["test"] for fold in results["folds"])
    assert results["pooled"]["test"]["WA"] == pytest.approx(100 * int(counts.trace()) / int(counts.sum()))
    assert (tmp_path / "run" / "confusion.png").is_file() == (corpus == "URDU") and results["energy"]["full"]["mJ"] > 0
    made = {entry.name for entry in (tmp_path / "run").iterdir() if entry.is_dir()}
    assert made == {"save", *(f"fold-{name}" for name in CORPORA[corpus])}


@pytest.mark.full
@pytest.mark.parametrize("protocol", ["paper", "random", "speaker"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_all_folds_of_every_protocol(train, twins, corpus, protocol):
    results = train(corpus, fold_protocol=protocol, number_of_epochs=1)
    utterances = corpus_of(corpus).read(str(twins(corpus)), folds.SPLIT)
    plan = folds.make(utterances, corpus_of(corpus).CORPUS.settings["folds"], protocol)
    assert [(fold["fold"], fold["digest"]) for fold in results["folds"]] == [(fold.name, fold.digest) for fold in plan]
    assert sum(map(sum, results["confusion"]["test"])) == len(utterances) and results["protocol"] == protocol


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("corpus", in_full(CORPORA, "URDU"))
def test_baselines_train_on_filter_banks(train, corpus, name):
    results = train(corpus, name=name, fold=[CORPORA[corpus][0]])
    assert (results["model"], len(results["folds"]), results["folds"][0]["epochs"]) == (name, 1, 2)
    # The head has no neurons; the vanilla network's are those of its one layer and of its classes, with decays that nothing learns.
    rates = results["firing_rate"]
    assert len(rates) == {"linear_head_mini": 0, "vanilla_snn_mini": 2}[name] and results["energy"]["full"]["mJ"] > 0
    assert results["parameters"]["total"] == results["parameters"]["trainable"]


@pytest.mark.parametrize("corpus", in_full(CORPORA, "IEMOCAP"))
def test_features_of_a_frozen_model_are_kept_for_all_networks(train, model, tmp_path, corpus):
    made = {}
    for name in OF_A_MODEL:
        results = train(corpus, name=name, folder=tmp_path / name, ssl_folder=model, fold=[CORPORA[corpus][0]])
        assert (results["model"], results["protocol"], results["folds"][0]["epochs"]) == (name, "paper", 2)
        assert results["energy"]["full"]["mJ"] > 0
        entries = entries_of(tmp_path / "features")
        assert entries and made in ({}, entries)
        made = entries


def entries_of(folder):
    """Entry of a cache -> its features, a list, and when it was written."""
    return {path.name: (safetensors.torch.load_file(path)["features"].tolist(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_lost_and_a_damaged_entry_of_the_cache_are_noticed_and_made_again(train, model, tmp_path):
    options = {"name": "pts_snn", "ssl_folder": model, "fold": ["session-1"]}
    first = train("IEMOCAP", **options, number_of_epochs=1)
    sound = entries_of(tmp_path / "features")
    sizes = first["folds"][0]["sizes"]
    assert len(sound) == sum(sizes.values()) == 40
    lost, damaged = (tmp_path / "features" / name for name in sorted(sound)[:2])
    lost.unlink()
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-5] + bytes([whole[-5] ^ 0x10]) + whole[-4:])

    second = train("IEMOCAP", **options, number_of_epochs=2)
    said = (tmp_path / "run" / "log.txt").read_text().rpartition("Beginning experiment!")[2]
    assert f"{tmp_path / 'features'}: 1 of 40 entries made again: each is damaged" in said
    assert "features: 2 of 2 utterances in " in said
    mended = entries_of(tmp_path / "features")
    assert {name: features for name, (features, _) in mended.items()} == {name: features for name, (features, _) in sound.items()}
    assert {name for name in sound if mended[name] != sound[name]} == {lost.name, damaged.name}
    assert (first["folds"][0]["epochs"], second["folds"][0]["epochs"]) == (1, 2)
    assert first["folds"][0]["digest"] == second["folds"][0]["digest"]


def test_a_fold_that_ended_is_not_trained_again(train, monkeypatch):
    first = train("URDU", fold=["1"])
    monkeypatch.setattr(emotion, "train_fold", lambda *_: pytest.fail("was trained again"))
    assert train("URDU", fold=["1"])["folds"] == first["folds"]
    for changed in ({"seed": 5}, {"lr": 0.5}, {"encoder_kwargs": {"num_prompts": 2}}, {"normalise": "none"}):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            train("URDU", fold=["1"], **changed)


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


def test_calibration_is_measured_before_and_after(train, tmp_path):
    results = train("URDU", fold=["1"], gains=[1, 0.001])
    (fold,) = results["folds"]
    assert set(fold["calibration"]) == {"untrained", "trained"} and set(fold["calibration"]["trained"]) == {"1", "0.001"}
    layers = fold["calibration"]["trained"]["1"]["layers"]
    assert all(0 <= layer["silent"] + layer["saturated"] <= 1 for layer in layers.values())
    assert any(name.startswith("readout") for name in layers) and fold["calibration"]["trained"]["1"]["WA"] == pytest.approx(
        fold["metrics"]["test"]["WA"]
    )
    # What was predicted is of gain 1, not of the last that was looked at.
    named, labels = predictions.read(tmp_path / "run"), results["labels"]
    counts = torch.zeros(len(labels), len(labels), dtype=torch.int64)
    for p in named:
        counts[labels.index(p.label), labels.index(p.predicted)] += 1
    assert counts.tolist() == results["confusion"]["test"]


@pytest.mark.parametrize("corpus", in_full(CORPORA, "URDU"))
def test_the_regression_is_fitted_over_the_same_folds(train, twins, tmp_path, corpus):
    results = train(corpus, name="regression")
    assert (results["task"], results["model"]) == ("emotion", "regression")
    classes = len(results["labels"])
    assert results["parameters"]["total"] == classes * 2 * 40 + classes
    utterances = corpus_of(corpus).read(str(twins(corpus)), folds.SPLIT)
    plan = folds.make(utterances, corpus_of(corpus).CORPUS.settings["folds"], results["protocol"])
    assert [(fold["fold"], fold["digest"]) for fold in results["folds"]] == [(fold.name, fold.digest) for fold in plan]
    named = predictions.read(tmp_path / "run")
    assert sorted(p.id for p in named) == sorted(u.id for u in utterances)
    right = sum(p.label == p.predicted for p in named)
    assert results["pooled"]["test"]["WA"] == pytest.approx(100 * right / len(named))
    again = train(corpus, name="regression", folder=tmp_path / "again", seed=2)
    assert again["confusion"] == results["confusion"]  # nothing is drawn


def test_a_folder_without_a_model_is_one_message(train, tmp_path):
    with pytest.raises(keys.RecipeError, match=r"pts_snn.yaml: .*none"):
        train("URDU", name="pts_snn", ssl_folder=tmp_path / "none")


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


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_recipe_names_its_own_preparer(checkout, monkeypatch, corpus):
    asked = []
    monkeypatch.setattr("spikebrain.training.run.run", lambda recipe, **what: asked.append((recipe, what)))
    path = str(checkout / "recipes" / corpus / "train.py")
    runpy.run_path(path, run_name="__main__")
    ((recipe, what),) = asked
    tasks = what["task"] if isinstance(what["task"], tuple) else (what["task"],)
    assert recipe == path and what["corpus"] is corpus_of(corpus) and tasks[0] is emotion


def test_without_a_model_its_folder_is_asked_for(train):
    with pytest.raises(keys.RecipeError, match=r"pts_snn.yaml: ssl_folder has no value: pass --ssl_folder="):
        train("URDU", name="pts_snn")


# Lines of a file that are the corpus's own.
OWN = ("# python train.py ", "data_folder: ", "synthetic_folder: ", "fold_protocol: ")


def test_files_of_one_name_differ_in_what_is_the_corpus_s_own_and_in_nothing_else(checkout):
    every = {corpus: {path.name: path.read_text() for path in checkout.glob(f"recipes/{corpus}/hparams/*.yaml")} for corpus in CORPORA}
    for name in {name for texts in every.values() for name in texts}:
        common = {"\n".join(_common(text)) for texts in every.values() for file, text in texts.items() if file == name}
        assert len(common) == 1, f"{name} differs from corpus to corpus in other lines than {OWN}"
    for corpus, texts in every.items():
        assert {f"{name}.yaml" for name in (MINI, *BASELINES, *OF_A_MODEL)} <= set(texts)
        for name, text in texts.items():
            assert f"# python train.py hparams/{name} --data_folder=/path/to/{corpus}" in text
            assert f"synthetic_folder: results/synthetic/{corpus}\n" in text


def _common(text):
    """A file's lines, of the corpus's own only how they begin."""
    return [next((start for start in OWN if line.startswith(start)), line) for line in text.splitlines()]


@pytest.mark.parametrize("name", OF_A_MODEL)
@pytest.mark.parametrize("corpus", CORPORA)
def test_every_file_of_a_model_is_read_and_cuts_as_published(built, corpus, name):
    made = built(corpus, name)
    assert made["fold_protocol"] == made["protocol"] == "paper"
    assert made["classifier"](input_size=made["features"].channels, classes=3)(torch.randn(2, 9, made["features"].channels)).shape == (2, 3)


@pytest.mark.parametrize(
    "name, total, trainable", [("pts_snn", 1_194_009, 1_194_008), ("linear_head", 197_892, 197_892), ("vanilla_snn", 197_892, 197_892)]
)
def test_sizes_on_emotion2vec_are_the_published_ones(built, name, total, trainable):
    weights = list(built("IEMOCAP", name)["classifier"](input_size=768, classes=4).parameters())
    assert sum(w.numel() for w in weights) == total and sum(w.numel() for w in weights if w.requires_grad) == trainable


@pytest.mark.parametrize("name", ["pts_snn", MINI])
@pytest.mark.parametrize(
    "encoder, prompts, attention",
    [("pts_snn", 4, True), ("pts_snn_no_prompts", 0, True), ("pts_snn_no_attention", 4, False), ("pts_snn_only_shift", 0, False)],
)
def test_what_a_file_gives_an_encoder_does_not_undo_an_ablation(built, name, encoder, prompts, attention):
    config = built("URDU", name, encoder=encoder)["classifier"](input_size=20, classes=4).encoder.model.config
    assert (config.num_prompts, config.attention, config.bias_scale) == (prompts, attention, 0.5)


def test_a_sweep_adds_to_what_a_file_gives_an_encoder(built):
    config = built("URDU", MINI, encoder_kwargs={"num_prompts": 2, "bias_scale": 0.9})["classifier"](20, 4).encoder.model.config
    assert (config.num_prompts, config.bias_scale, config.d_model) == (2, 0.9, 128)


def test_another_layer_of_a_model_is_an_override(built):
    assert built("URDU", "pts_snn")["features"].layer is None
    assert built("URDU", "pts_snn", features={"layer": 1})["features"].layer == 1


@pytest.mark.parametrize("name, baseline", [("pts_snn", "vanilla_snn"), (MINI, "vanilla_snn_mini")])
def test_the_vanilla_network_is_trained_as_pts_snn_is(checkout, name, baseline):
    one, two = (ruamel.yaml.YAML().load(checkout / "recipes" / "URDU" / "hparams" / f"{file}.yaml") for file in (name, baseline))
    unlike = {key for key in one if key not in two or str(one[key]) != str(two[key])}
    assert unlike - {"d_model"} == {"model", "input_norm", "encoder", "encoder_kwargs", "readout_kwargs"} and set(two) < set(one)


def test_the_head_and_pts_snn_have_schedules_as_published(built):
    cosine, cycle = (built("IEMOCAP", name)["schedule"]() for name in ("pts_snn", "linear_head"))
    cosine.plan(2000, 200)
    assert [epoch for epoch in range(200) if cosine.multiplier(epoch) == 1] == [0, 10, 30, 70, 150]
    optimizer = built("IEMOCAP", "linear_head")["opt_class"]([torch.nn.Parameter(torch.zeros(1))])
    theirs = torch.optim.lr_scheduler.CyclicLR(torch.optim.RMSprop([torch.zeros(1)], 5e-4, momentum=0.9), 5e-4, 1e-3, step_size_up=10)
    cycle.plan(100, 100)
    for _ in range(100):
        cycle(optimizer)
        (ours,), (wanted,) = optimizer.param_groups, theirs.optimizer.param_groups
        assert (ours["lr"], ours["momentum"]) == pytest.approx((wanted["lr"], wanted["momentum"]))
        theirs.optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", OF_A_MODEL)
def test_features_that_comments_offer_can_be_had(checkout, name):
    lines = (checkout / "recipes" / "IEMOCAP" / "hparams" / f"{name}.yaml").read_text().splitlines()
    offered = [place for place, line in enumerate(lines) if line.startswith("#   features: !new:")]
    assert len(offered) == 2
    for place in offered:
        text = "\n".join(line.removeprefix("#   ") for line in lines[place : place + 2])
        block = ruamel.yaml.YAML().load(text)["features"]
        inspect.signature(pydoc.locate(block.tag.value.removeprefix("!new:"))).bind(**block)

"""``tools/figures.py`` on trained networks: runs that are made here, reopened, listened to and drawn beside each other."""

import json
import shutil

import numpy as np
import pytest
import ruamel.yaml
import torch

from spikebrain import energy, operands
from spikebrain.data.corpora import gsc, librispeech
from spikebrain.training import asr, classify, hooks, looking
from spikebrain.training.run import run

pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: runs are made on synthetic speech")
UTTERANCES = {"train-clean-100": 6, "dev-clean": 3, "test-clean": 2}
WORDS = ["no", "yes"]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("figures")


@pytest.fixture(scope="module")
def trained(checkout):
    """``trained(place, corpus, task, name, data, **options)``: the folder of a shrunken run of one epoch; nothing is drawn.

    ``name`` is that of a YAML of the corpus's recipe, ``data`` a folder with a small corpus.
    """

    def train(place, corpus, task, name, data, **options):
        recipe = checkout / "recipes" / corpus.CORPUS.name
        file = recipe / "hparams" / f"{name}.yaml"
        shrink = ruamel.yaml.YAML(typ="safe").load(checkout / "tests" / "recipes" / "shrink.yaml")
        keys = {key: value for key, value in shrink.items() if key in ruamel.yaml.YAML().load(file)}
        keys |= {"number_of_epochs": 1, "data_folder": data, "output_folder": place / "run", **options}
        words = [f"--{key}={json.dumps(value) if isinstance(value, list | dict) else value}" for key, value in keys.items()]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hooks, "draw", lambda *those: None)
            run(str(recipe / "train.py"), corpus, task, [str(file), "--device=cpu", "--noprogressbar", *words])
        return place / "run"

    return train


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A small corpus of speech."""
    from spikebrain.data.synthetic.librispeech import make

    return make(tmp_path_factory.mktemp("librispeech") / "corpus", utterances=UTTERANCES)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory, trained, speech):
    """``recogniser(name, yaml, encoder_kwargs)``: the folder of a run on speech, made once."""
    made = {}

    def recognise(name, yaml="iml_spikeformer_mini", **encoder_kwargs):
        if name not in made:
            options = {"model": name, "encoder_kwargs": encoder_kwargs} if encoder_kwargs else {}
            made[name] = trained(tmp_path_factory.mktemp(name), librispeech, asr, yaml, speech, num_encoder_layers=3, **options)
        return made[name]

    return recognise


@pytest.fixture(scope="module")
def linear(recogniser):
    """Runs with linear scores: with the decay mask, and without."""
    return recogniser("with_mask", score="linear"), recogniser("without_mask", score="linear", hdm="none")


@pytest.fixture(scope="module")
def words(tmp_path_factory, trained):
    """The folder of a run of SpikeSCR on words."""
    from spikebrain.data.synthetic.gsc import make

    place = tmp_path_factory.mktemp("gsc")
    data = make(place / "corpus", utterances={"train": 4, "valid": 3, "test": 2}, words=WORDS)
    options = {"train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"], "batch_size": 4, "classes": WORDS}
    return trained(place, gsc, classify, "spikescr_mini", data, **options)


@pytest.fixture
def drawn(tool, monkeypatch):
    """Name of a file -> its figure, of what the tool draws; files are not written."""
    figures = {}
    monkeypatch.setattr(tool.plots, "save", lambda figure, path: figures.setdefault(path.name, figure) and path)
    return figures


def listened(folder):
    """(spikes of each neuron by layer, valid frames times levels) of the dev split, added up here."""
    brain = looking.reopened(folder, json.loads((folder / "results.json").read_text()), looking.TASKS)
    counts, slots = {}, {}
    names = {module: energy.count.clean_name(name) for name, module in torch.nn.ModuleDict(brain.parts).named_modules()}

    def add(event):
        if isinstance(event, operands.Firing):
            name = names[event.module]
            counts[name] = counts.get(name, 0) + event.counts.double().numpy()
            slots[name] = slots.get(name, 0) + int(event.frames) * int(event.levels)

    torch.nn.ModuleDict(brain.parts).eval()
    dataset = brain.data.valid
    for place in range(len(dataset)):  # one by one: padding is none
        batch = next(iter(torch.utils.data.DataLoader([dataset[place]], collate_fn=_batch)))
        with torch.no_grad(), operands.listen(add):
            brain.hear(batch)
    return {name: counts[name] / slots[name] for name in counts}, len(dataset)


def _batch(items):
    from speechbrain.dataio.batch import PaddedBatch

    return PaddedBatch(items)


def test_runs_with_and_without_the_mask_beside_each_other(tool, linear, tmp_path, capsys):
    before = {path: path.read_bytes() for folder in linear for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}
    assert tool.main([*map(str, linear), "--out", str(tmp_path / "out")]) == 0
    made = ["firing_rates.png", "firing_rates.json", "attention.png", "attention_raw.png", "attention.json"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in made]
    assert all((tmp_path / "out" / name).stat().st_size > (20000 if name.endswith("png") else 500) for name in made)
    assert {path: path.read_bytes() for path in before} == before
    firing, attention = (json.loads((tmp_path / "out" / name).read_text()) for name in ("firing_rates.json", "attention.json"))
    assert list(firing) == list(attention) == ["with_mask", "without_mask"] and str(tmp_path.parent) not in json.dumps([firing, attention])
    assert attention["with_mask"]["utterance"] == attention["without_mask"]["utterance"]
    for one in attention.values():
        assert list(one["blocks"]) == ["1", "2", "3"] and {len(block["heads"]) for block in one["blocks"].values()} == {2}
        assert 0 < one["blocks"]["1"]["mean"]["distance"] < one["frames"]
    # The mask of the first block leaves what is near: attention is nearer than without it, in networks that have learned next to nothing.
    near, far = (attention[name]["blocks"]["1"]["mean"] for name in ("with_mask", "without_mask"))
    assert near["distance"] < far["distance"] and near["entropy"] < far["entropy"] and near["diagonal"] > far["diagonal"]


def test_rates_are_spikes_of_valid_frames_of_the_dev_split(tool, linear, drawn, tmp_path):
    rates, utterances = listened(linear[0])
    assert tool.main([str(linear[0]), "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "firing_rates.json").read_text())["with_mask"]
    results = json.loads((linear[0] / "results.json").read_text())
    assert found["split"] == "dev-clean" and found["utterances"] == {"looked_at": utterances, "of": utterances}
    assert found["layers"].keys() == rates.keys() == results["firing_rate"].keys()
    for name, expected in rates.items():
        layer = found["layers"][name]
        assert layer["mean"] == pytest.approx(expected.mean(), rel=1e-4) and layer["std"] == pytest.approx(expected.std(), rel=1e-3)
        assert layer["mean"] == pytest.approx(results["firing_rate"][name]["mean"], rel=1e-6)
        assert {"below_0.001", "below_0.01", "above_0.9"} <= layer.keys()
    everything = np.concatenate(list(rates.values()))
    assert found["all"]["channels"] == everything.size and found["all"]["below_0.01"] == pytest.approx((everything < 0.01).mean(), abs=0.01)
    bands = [mesh.get_array().size for mesh in drawn["firing_rates.png"].axes[0].collections]
    assert bands == [values.size for values in rates.values()]


def test_three_ways_of_firing_beside_each_other(tool, linear, recogniser, drawn, tmp_path):
    folders = linear[0], recogniser("mls", neuron="mls"), recogniser("iterative", neuron="lif_multistep", levels=3)
    assert tool.main([*map(str, folders), "--utterances=2", "--blocks", "2", "--out", str(tmp_path)]) == 0
    firing = json.loads((tmp_path / "firing_rates.json").read_text())
    assert list(firing) == ["with_mask", "mls", "iterative"]
    assert {run["utterances"]["looked_at"] for run in firing.values()} == {2}
    assert len({tuple(run["layers"]) for run in firing.values()}) == 1
    assert all(sum(layer["mean"] for layer in run["layers"].values()) > 0 for run in firing.values())
    panels = [axes.get_title(loc="left") for axes in drawn["attention.png"].axes if axes.get_title(loc="left")]
    assert panels == ["block 2, head 1", "block 2, head 2"] * 3


def test_a_network_without_maps_is_drawn_without_them(tool, words, drawn, tmp_path, capsys):
    assert tool.main([str(words / "results.json"), "--out", str(tmp_path)]) == 0
    assert list(drawn) == ["firing_rates.png"] and [path.name for path in tmp_path.iterdir()] == ["firing_rates.json"]
    assert "Firing rates: GSC, valid, 6 of 6 utterances" in drawn["firing_rates.png"].get_suptitle()
    assert tool.main([str(words), "--blocks", "1", "--out", str(tmp_path / "more")]) == 1
    assert "no run here can say what it attends to" in capsys.readouterr().err and not (tmp_path / "more").exists()


def test_runs_of_different_corpora_say_what_each_heard(tool, words, linear, drawn, tmp_path):
    assert tool.main([str(words), str(linear[0]), "--out", str(tmp_path)]) == 0
    titles = [axes.get_title(loc="left") for axes in drawn["firing_rates.png"].axes[:2]]
    beginnings = "spikescr_mini\nGSC, valid, 6 of 6 utterances", "with_mask\nLibriSpeech, dev-clean, 3 of 3 utterances"
    assert [title.startswith(beginning) for title, beginning in zip(titles, beginnings, strict=True)] == [True, True]
    assert list(json.loads((tmp_path / "attention.json").read_text())) == ["with_mask"]


def test_an_utterance_of_another_split_and_one_that_is_nearly_there(tool, linear, drawn, tmp_path, capsys):
    brain = looking.reopened(linear[0], json.loads((linear[0] / "results.json").read_text()), looking.TASKS)
    name = brain.data.tests["test-clean"].data_ids[0]
    assert name not in brain.data.valid.data_ids
    assert tool.main([str(linear[0]), "--utterance", name, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "attention.json").read_text())["with_mask"]
    assert found["utterance"] == name and name in drawn["attention.png"].get_suptitle()
    assert tool.main([str(linear[0]), "--utterance", name + "x", "--out", str(tmp_path)]) == 1
    assert f"utterance: {name}x is none of the 5 that the run reports; did you mean {name}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, said",
    [
        (["--blocks", "1", "4"], "blocks: 4 is not there, the network has 3: they count from 1"),
        (["--blocks", "0"], "blocks: 0 is not there"),
        (["--utterances=0"], "utterances: 0 are none: give 1 or more"),
        (["--data_folder=nowhere"], "nowhere"),
    ],
)
def test_what_is_not_there_is_one_line(tool, linear, tmp_path, capsys, options, said):
    assert tool.main([str(linear[0]), "--out", str(tmp_path / "out"), *options]) == 1
    message = capsys.readouterr().err
    assert message.startswith("figures.py: ") and said in message and not (tmp_path / "out").exists()


def test_runs_that_cannot_be_looked_into(tool, linear, recogniser, tmp_path, capsys):
    def refused(folder, *more):
        assert tool.main([str(folder), *map(str, more), "--out", str(tmp_path / "out")]) == 1 and not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "results.json: no such file" in refused(tmp_path)
    assert "transformer_mini, has no layer that fires" in refused(recogniser("twin", "transformer_mini"))
    kept = tmp_path / "kept.json"
    kept.write_text((linear[0] / "results.json").read_text())
    assert "hyperparams.yaml: no such file: name the output_folder" in refused(kept)
    copy = shutil.copytree(linear[0], tmp_path / "copy")
    shutil.rmtree(copy / "save")
    assert "copy" in refused(copy)
    for change, said in (({"corpus": "Elsewhere"}, "says corpus Elsewhere"), ({"task": "distil"}, "task distil, that of")):
        (copy / "results.json").write_text(json.dumps(json.loads(kept.read_text()) | change))
        assert said in refused(*([linear[0], copy] if "task" in change else [copy]))


def test_runs_have_names_of_their_own():
    def found(model, seed):
        return looking.Found({"model": model, "seed": seed}, "dev", 1, 1, {}, {}, None, None)

    assert looking.labels([found("a", 1), found("b", 1)], ["x", "y"]) == ["a", "b"]
    assert looking.labels([found("a", 1), found("a", 2)], ["x", "y"]) == ["a, seed 1", "a, seed 2"]
    assert looking.labels([found("a", 1), found("a", 1)], ["x", "y"]) == ["a, seed 1, x", "a, seed 1, y"]
    assert looking.labels([found("a", 1), found("a", 1)], ["p/x", "q/x"]) == ["a, seed 1, p/x", "a, seed 1, q/x"]

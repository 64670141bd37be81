"""The VoxCeleb recipe, shrunk, on its synthetic twin: every YAML, rows and sizes of the tables, a stopped run, noise."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from spikebrain.data.corpora import voxceleb
from spikebrain.data.manifest import DataError
from spikebrain.training import hooks, identify, keys, speaker, verify
from spikebrain.training.run import load, reopen, run

TASKS = (identify, verify)
IDENTIFICATION, VERIFICATION = "iml_spikeformer_identification", "iml_spikeformer_verification"
UTTERANCES = {"dev": 24, "test": 12}  # four speakers and two, of six utterances in three videos
TABLES = {
    "table_3": {
        **{f"transformer_{n}": ("iml_spikeformer_twin", size) for n, size in ((3, 594_816), (6, 1_189_632), (9, 1_784_448))},
        **{f"iml_spikeformer_{n}": ("iml_spikeformer", size) for n, size in ((3, 594_816), (6, 1_189_632), (9, 1_784_448))},
    },
    **dict.fromkeys(
        ("table_4", "table_4_vox2"),
        {
            "transformer": ("iml_spikeformer_twin", 11_116_096),
            "spike_driven_transformer_t8": ("spike_driven_transformer", 11_116_096),
            "iml_spikeformer_t6": ("iml_spikeformer", 11_116_096),
            "iml_spikeformer_t8": ("iml_spikeformer", 11_116_096),
        },
    ),
}


@pytest.fixture(scope="module")
def recipe(checkout):
    return checkout / "recipes" / "VoxCeleb"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder in VoxCeleb's layout with 36 spoken sentences of six voices."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import voxceleb as synthetic

    return synthetic.make(tmp_path_factory.mktemp("twin") / "VoxCeleb", utterances=UTTERANCES)


@pytest.fixture(scope="module")
def words_for(recipe, shrunk, corpus):
    """(YAML file or its name, run folder, overrides) -> command-line words."""

    def words(file, folder, **overrides):
        file = recipe / "hparams" / f"{file}.yaml" if not str(file).endswith(".yaml") else Path(file)
        splits = {name: keys.read(file)[name] for name in ("train_splits", "dev_splits", "test_splits")}
        small = {"num_layers": 2, "seconds": 0.5, "batch_size": 4, "data_folder": corpus, "output_folder": folder}
        return shrunk(file, **{**splits, **small, **overrides})

    return words


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Pictures take longer than training here; one test draws them."""
    draw, wanted = hooks.draw, request.node.name.endswith(f"scores[{VERIFICATION}_mini]")
    monkeypatch.setattr(hooks, "draw", lambda folder, pictures: draw(folder, pictures) if wanted else None)


@pytest.fixture
def train(recipe, words_for, tmp_path):
    """Runs the shrunk recipe in this process; gives results.json as read back."""

    def go(file, *options, folder=tmp_path / "run", **overrides):
        run(str(recipe / "train.py"), voxceleb, TASKS, [*words_for(file, folder, **overrides), *options])
        return json.loads((folder / "results.json").read_text())

    return go


def history(folder):
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("name", [IDENTIFICATION, f"{IDENTIFICATION}_mini", VERIFICATION, f"{VERIFICATION}_mini"])
def test_every_yaml_trains_and_scores(train, tmp_path, name):
    results, folder = train(name), tmp_path / "run"
    verifies = "verification" in name
    assert (results["task"], results["corpus"], results["model"]) == ("verify" if verifies else "identify", "VoxCeleb", name)
    assert set(results["metrics"]) == ({"vox1-valid", "vox1-o"} if verifies else {"iden-valid", "iden-test"})
    tested = results["metrics"]["vox1-o" if verifies else "iden-test"]
    assert set(tested) == ({"EER", "minDCF", "minDCF_0.05"} if verifies else {"accuracy"})
    assert results["speakers"] == (4 if verifies else 6) and len(results["averaged_epochs"]) == 2
    assert [row["epoch"] for row in history(folder)] == [1, 2]
    assert results["firing_rate"] and results["energy"]["encoder_blocks"]["mJ"] < results["energy"]["encoder_blocks"]["twin_mJ"]
    assert str(tmp_path) not in (folder / "results.json").read_text() and results["data"]["complete"] is False
    if verifies:
        lines = (folder / "scores_vox1-o.txt").read_text().splitlines()
        assert len(lines) == results["trials"]["vox1-o"] == results["data"]["settings"]["trials"] > 10
        assert results["data"]["settings"]["removed_speakers"]["vox1-dev"]["count"] == 2
    pictures = {"curves.png", "det.png", "energy.png", "firing_rates.png"}
    assert name != f"{VERIFICATION}_mini" or pictures <= {file.name for file in folder.glob("*.png")}


@pytest.fixture
def row_of(load_tool, recipe):
    """(table, row) -> its Row, of which every option is one of the recipe's."""

    def find(table, name):
        tool = load_tool("table")
        rows = tool.choose(tool.read(recipe / "tables" / f"{table}.yaml"), recipe / "train.py", None, None, {"data_folder": "unused"})
        assert [row.name for row in rows] == list(TABLES[table])
        return next(row for row in rows if row.name == name)

    return find


ROWS = [(table, row) for table, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_every_row_has_the_size_that_its_table_says(row_of, table, name):
    row = row_of(table, name)
    encoder, parameters = TABLES[table][name]
    overrides = keys.parse_overrides("\n".join(f"{key}: {value}" for key, value in row.options.items()))
    hparams = load(row.yaml, overrides, voxceleb, verify if table.startswith("table_4") else identify)
    factory = hparams["embedding_model"]
    assert factory.keywords["encoder"] == encoder and row.paper
    if table == "table_3":
        with torch.device("meta"):
            assert sum(p.numel() for p in factory().encoder.model.parameters()) == parameters
    elif table == "table_4":  # the rows of VoxCeleb2 are the same networks
        assert sum(p.numel() for p in factory().parameters()) == parameters
    levels = {"t6": 6, "t8": 8}.get(name.rpartition("_")[2], 6)
    assert hparams["encoder_kwargs"]["levels"] == levels and hparams["model"]


@pytest.mark.parametrize(
    ("table", "name"), [("table_3", "transformer_3"), ("table_4", "transformer"), ("table_4", "spike_driven_transformer_t8")]
)
def test_rows_of_other_encoders_train_and_score(train, row_of, table, name):
    row = row_of(table, name)
    options = [f"--{key}={value}" for key, value in row.options.items() if key not in ("num_layers", "data_folder")]
    results = train(row.yaml, *options, f"--model={row.model}", number_of_epochs=1)
    assert results["model"] == name and set(row.paper) <= results["metrics"]["iden-test" if table == "table_3" else "vox1-o"].keys()
    spiking = not name.startswith("transformer")
    assert bool(results["firing_rate"]) == spiking
    energy = results["energy"]["full"]
    assert energy["mJ"] < energy["twin_mJ"] if spiking else energy["mJ"] == pytest.approx(energy["twin_mJ"])


def test_noise_of_a_folder_and_normalised_scores(train, tmp_path):
    torch.manual_seed(0)
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "hiss.wav", (0.1 * torch.randn(16000)).numpy(), 16000)
    changes = {"noise_folder": tmp_path / "noise", "rir_folder": tmp_path / "noise", "gaussian_snr": [10, 25], "volume_db": [-6, 6]}
    noisy = train(f"{VERIFICATION}_mini", **changes, score_norm="as", score_norm_top=3, subtract_mean="train", corruption=0.9)
    assert 0 <= noisy["metrics"]["vox1-o"]["EER"] <= 100 and noisy["metrics"]["vox1-o"]["minDCF"] <= 1
    (tmp_path / "noise" / "hiss.wav").unlink()
    brain = reopen(tmp_path / "run", voxceleb, verify)  # what trains no more needs no noise
    brain.evaluate(brain.data.tests["vox1-o"], test_loader_kwargs=dict(brain.data.eval_loader))
    assert brain.validated(0.0) == noisy["metrics"]["vox1-o"]
    clean = train(f"{VERIFICATION}_mini", folder=tmp_path / "clean")
    losses = [[row["train_loss"] for row in history(tmp_path / name)] for name in ("run", "clean")]
    assert losses[0] != losses[1] and clean["metrics"].keys() == noisy["metrics"].keys()


def test_evaluating_again_and_two_batches_of_each_stage(train, tmp_path):
    name = f"{VERIFICATION}_mini"
    first = train(name)
    assert train(name, "--test_only")["metrics"] == first["metrics"]
    debugged = train(name, "--debug", folder=tmp_path / "debug")
    assert set(debugged["metrics"]) == set(first["metrics"]) and not list((tmp_path / "debug").rglob("CKPT*"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "split", "metrics"),
    [(IDENTIFICATION, "iden-test", {"accuracy"}), (VERIFICATION, "vox1-o", {"EER", "minDCF", "minDCF_0.05"})],
)
def test_full_size_takes_two_steps_and_a_scoring(recipe, corpus, tmp_path, name, split, metrics):
    # One batch holds all utterances of the trials: with --debug no more than two are looked at.
    overrides = {"data_folder": corpus, "output_folder": tmp_path, "batch_size": 4, "eval_batch_size": UTTERANCES["test"], "num_workers": 0}
    options = ["--device=cpu", "--noprogressbar", "--debug", "--debug_epochs=1"]
    words = [str(recipe / "hparams" / f"{name}.yaml"), *options, *(f"--{key}={value}" for key, value in overrides.items())]
    run(str(recipe / "train.py"), voxceleb, TASKS, words)
    results = json.loads((tmp_path / "results.json").read_text())
    sizes = results["parameters"]
    if name == IDENTIFICATION:  # a layer from 80 bands to 128 channels before the encoder, and one that names six speakers behind it
        assert sizes["encoder"] == 594_816 and sizes["total"] == 594_816 + 81 * 128 + 129 * 6
    else:
        assert sizes["by_module"]["embedding_model"] == 11_116_096 and sizes["total"] == 11_116_096 + 4 * 192
    assert history(tmp_path)[-1]["updates"] == 2
    assert set(results["metrics"][split]) == metrics and results["firing_rate"]
    assert results["metrics"][split].get("minDCF", 0) <= 1 and 0 <= min(results["metrics"][split].values())


def test_synthetic_is_made_first(train, tmp_path):
    made = tmp_path / "made"
    options = {"synthetic_folder": made, "synthetic_options": "{utterances: {dev: 12, test: 12}}"}
    results = train(f"{IDENTIFICATION}_mini", data_folder="synthetic", **options, number_of_epochs=1)
    assert (made / "veri_test.txt").is_file() and results["speakers"] == 4


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (IDENTIFICATION, {"n_epochs": 3}, "--n_epochs: .* has no such key; did you mean number_of_epochs"),
        (IDENTIFICATION, {"task": "verfy"}, "task: verfy is none of this recipe's: identify, verify; did you mean verify"),
        (IDENTIFICATION, {"seconds": 0}, "seconds: 0 is no length to train on"),
        (IDENTIFICATION, {"loss": "amm"}, "loss: 'amm' is none of softmax, am, aam"),
        (IDENTIFICATION, {"pooling": "median"}, "embedding_model: .*median"),
        (VERIFICATION, {"noise_folder": "nowhere"}, "noise_folder: nowhere: there is no such folder"),
        (VERIFICATION, {"test_splits": ["iden-test"]}, r"veri_test\.txt, for iden-test: 46 of 48 trials name 8 absent utterances"),
        (VERIFICATION, {"trial_list": "other.txt"}, "other.txt: there is no such list of trials"),
        (VERIFICATION, {"encoder": "iml_spikeformerr"}, "embedding_model: .*did you mean iml_spikeformer"),
        (VERIFICATION, {"data_folder": None}, "(?s)data_folder.*id10001.*synthetic"),
    ],
)
def test_what_is_wrong_is_said_before_training(train, tmp_path, name, overrides, message):
    with pytest.raises((keys.RecipeError, DataError), match=message):
        train(f"{name}_mini", **overrides)
    assert not list(tmp_path.glob("run/**/CKPT*"))


class Stopped(Exception):
    """What ends a run in the middle of an epoch."""


def stop_in_second_epoch(brain, *those):
    if brain.hparams.epoch_counter.current == 2:
        raise Stopped


@pytest.mark.parametrize("name", [f"{IDENTIFICATION}_mini", f"{VERIFICATION}_mini"])
def test_stopped_in_the_second_epoch_and_run_again_is_the_same_run(train, tmp_path, monkeypatch, name):
    more = {"number_of_epochs": 3, "gaussian_snr": [10, 25]}
    whole, folder = train(name, folder=tmp_path / "whole", **more), tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(speaker.SpeakerBrain, "on_fit_batch_end", stop_in_second_epoch)
        train(name, folder=folder, **more)
    assert [row["epoch"] for row in history(folder)] == [1] and not (folder / "results.json").exists()
    torch.rand(7)
    again = train(name, folder=folder, **more)
    assert whole["metrics"] == again["metrics"] and history(tmp_path / "whole") == history(folder)
    for file in (tmp_path / "whole").glob("scores_*.txt"):
        assert file.read_text() == (folder / file.name).read_text()


def test_train_py_is_short(recipe):
    spec = importlib.util.spec_from_file_location("voxceleb_train", recipe / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.voxceleb, module.identify, module.verify) == (voxceleb, identify, verify) and spec.name not in sys.modules
    assert len((recipe / "train.py").read_text().splitlines()) <= 20

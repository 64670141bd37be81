"""The AISHELL-1 recipe, shrunk, on its synthetic twin: every YAML, every row of the paper's tables, their sizes, characters."""

import json
from pathlib import Path

import pytest
import ruamel.yaml

from spikebrain.data.corpora import aishell
from spikebrain.data.manifest import DataError
from spikebrain.training import asr, keys
from spikebrain.training.run import run

YAMLS = ("iml_spikeformer", "transformer", "vgg_bilstm", "iml_spikeformer_mini", "transformer_mini")
UTTERANCES = {"train": 16, "dev": 4, "test": 4}
SPLITS = {"train_splits": ["train"], "dev_splits": ["dev"], "test_splits": ["test"]}
SILENT = ("vgg_bilstm", "transformer", "transformer_12", "transformer_24", "transformer_36")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder in AISHELL-1's layout with 24 synthetic utterances."""
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import aishell as synthetic

    return synthetic.make(tmp_path_factory.mktemp("twin") / "data_aishell", utterances=UTTERANCES)


@pytest.fixture(scope="module")
def recipe(checkout):
    return checkout / "recipes" / "AISHELL-1"


@pytest.fixture
def train(recipe, shrunk, corpus, tmp_path):
    """Runs a shrunk YAML in this process, under further options; gives results.json as read back."""

    def go(file, *options, **overrides):
        overrides = {"data_folder": corpus, "output_folder": tmp_path / "run", "output_neurons": 120, **SPLITS, **overrides}
        run(str(recipe / "train.py"), aishell, asr, [*shrunk(file, **overrides), *options])
        return json.loads((tmp_path / "run" / "results.json").read_text())

    return go


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_trains_and_decodes(train, recipe, tmp_path, name):
    results = train(recipe / "hparams" / f"{name}.yaml")
    assert (results["task"], results["corpus"], results["model"]) == ("asr", "AISHELL-1", name)
    assert set(results["metrics"]) == {"dev", "test"} and all(list(one) == ["CER"] for one in results["metrics"].values())
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and all("valid_CER" in row for row in rows)
    spiking = name.startswith("iml")
    assert bool(results["firing_rate"]) == spiking
    energy = results["energy"]["full"]
    assert energy["mJ"] < energy["twin_mJ"] if spiking else energy["mJ"] == pytest.approx(energy["twin_mJ"])
    assert not results["data"]["complete"] and results["data"]["splits"]["train"]["utterances"] == 16


def test_characters_are_scored_and_spaces_are_none(train, recipe, tmp_path):
    train(recipe / "hparams" / "iml_spikeformer_mini.yaml", number_of_epochs=1)
    words = sum(len(line.split()[1:]) for line in transcripts(tmp_path / "run" / "save" / "test.csv"))
    report = (tmp_path / "run" / "cer_test.txt").read_text().splitlines()[0]
    assert f"/ {words}," in report and words > 4 * 4


def transcripts(manifest):
    """Every line of a manifest as: id, then its characters one by one."""
    lines = manifest.read_text(encoding="utf-8").splitlines()
    text = lines[0].split(",").index("wrd")
    return [f"{line.split(',')[0]} {' '.join(line.split(',')[text])}" for line in lines[1:]]


TABLES = {
    "AISHELL-1/tables/table_1.yaml": (
        "vgg_bilstm transformer_12 transformer_24 transformer_36 lif gsu spike_driven_transformer "
        "iml_spikeformer_12_4 iml_spikeformer_12 iml_spikeformer_24 iml_spikeformer_36"
    ),
    "shared/tables/table_5.yaml": "full mls multistep no_hdm sdsa3 linear linear_no_hdm",
    "shared/tables/recognisers_mini.yaml": "transformer iml_spikeformer mls mls_counts multistep spike_driven_transformer gsu lif",
}
ROWS = [(table, row) for table, rows in TABLES.items() for row in rows.split()]
OTHER_SIZES = ("transformer_24", "transformer_36", "iml_spikeformer_24", "iml_spikeformer_36", "full")


def case(table, row):
    """Rows that shrink to what another row shrinks to are run in the full tests only."""
    again = row in OTHER_SIZES or table.endswith("mini.yaml") and row not in ("lif", "gsu")
    return pytest.param(table, row, marks=pytest.mark.full if again else (), id=f"{table.split('/')[-1]}-{row}")


@pytest.mark.parametrize(("table", "row"), [case(*one) for one in ROWS])
def test_every_row_trains_and_decodes(train, rows_of, words_of, table, row):
    found = rows_of(table, "AISHELL-1")[row]
    results = train(Path(found.yaml), *words_of(found), number_of_epochs=1)
    assert results["model"] == found.model and results["metrics"]["test"]["CER"] > 0
    assert bool(results["firing_rate"]) == (row not in SILENT)
    assert results["energy"]["full"]["mJ"] > 0 < results["energy"]["full"]["twin_mJ"]


def test_the_tables_are_those_of_the_paper(rows_of):
    for table, rows in TABLES.items():
        assert list(rows_of(table, "AISHELL-1")) == rows.split()


SIZES = {
    "vgg_bilstm": 93_256_914,
    "transformer_12": 30_351_890,
    "transformer_24": 46_132_754,
    "transformer_36": 61_913_618,
    "lif": 17_975_506,
    "gsu": 28_988_626,
    "spike_driven_transformer": 30_351_890,
    "iml_spikeformer_12_4": 30_351_890,
    "iml_spikeformer_12": 30_351_890,
    "iml_spikeformer_24": 46_132_754,
    "iml_spikeformer_36": 61_913_618,
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_table_1(rows_of, size_of, name):
    """LIF and GSU are what the paper's text describes; its table prints 22.96 M and 60.74 M."""
    assert size_of(rows_of("AISHELL-1/tables/table_1.yaml", "AISHELL-1")[name]) == SIZES[name]


@pytest.mark.full
@pytest.mark.parametrize("name", ["iml_spikeformer", "transformer", "vgg_bilstm"])
def test_full_size_takes_two_steps_and_a_decode(two_steps, recipe, corpus, tmp_path, name):
    results = two_steps(recipe, name, aishell, tmp_path, data_folder=corpus)
    assert results["parameters"]["total"] == {"vgg_bilstm": 93_256_914}.get(name, 30_351_890)
    assert set(results["metrics"]) == {"dev", "test"} and results["metrics"]["test"]["CER"] > 0
    assert len(results["firing_rate"]) == (12 * 5 if name == "iml_spikeformer" else 0)


UPDATES = {"iml_spikeformer": 140_000, "transformer": 140_000, "vgg_bilstm": 240_000}


@pytest.mark.parametrize("name", UPDATES)
def test_training_is_as_long_as_that_of_the_recipes_it_follows(recipe, name):
    """Updates on one GPU, of ESPnet's settings; and the rate's warm-up ends long before training does."""
    yaml = ruamel.yaml.YAML().load(recipe / "hparams" / f"{name}.yaml")
    hours = 150  # of the training split
    updates = yaml["number_of_epochs"] * hours * 3600 / yaml["max_batch_length"] / yaml.get("grad_accumulation_factor", 1)
    assert updates == pytest.approx(UPDATES[name], rel=0.02) and updates > 4 * yaml.get("warmup_steps", 0)


@pytest.mark.parametrize(("name", "chosen"), [("iml_spikeformer", set()), ("iml_spikeformer_mini", {"lr"})])
def test_the_twin_differs_in_the_encoder_alone(differences, recipe, name, chosen):
    """And in its learning rate, where one was chosen on the dev split for each of the two."""
    assert differences(recipe, name) <= {"model", "encoder_module", "encoder_kwargs"} | chosen


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"data_folder": None}, r"(?s)data_folder.*BAC009S.*synthetic"),
        ({"error_rate": "PER"}, "error_rate: PER is none of WER, CER"),
        ({"output_neurons": 20}, r"vocab_size: 20 is less than the \d+ pieces"),
        ({"subsampling": 5}, "factor is 5: choose 4"),
        ({"projection": False}, "projection: False, but iml_spikeformer reads d_model channels: set projection: True"),
    ],
)
def test_what_is_wrong_is_said_before_training(train, recipe, tmp_path, words, message):
    with pytest.raises((keys.RecipeError, DataError), match=message):
        train(recipe / "hparams" / "iml_spikeformer_mini.yaml", **words)
    assert not list(tmp_path.glob("run/save/CKPT*"))

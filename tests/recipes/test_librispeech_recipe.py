"""The LibriSpeech recipe, shrunk, on a synthetic twin: every YAML, every run option, interruption, two processes."""

import importlib.util
import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from spikebrain.data.corpora import librispeech
from spikebrain.data.manifest import DataError
from spikebrain.training import asr, keys
from spikebrain.training.checkpoints import CheckpointError
from spikebrain.training.run import run

YAMLS = ("iml_spikeformer", "transformer", "iml_spikeformer_mini", "transformer_mini")
MINI = "iml_spikeformer_mini"


@pytest.fixture(scope="module")
def recipe(checkout):
    return checkout / "recipes" / "LibriSpeech"


@pytest.fixture
def train(recipe, shrunk, twin, tmp_path):
    """Runs the shrunk recipe in this process; gives results.json as read back."""

    def go(name=MINI, *options, folder=tmp_path / "run", **overrides):
        overrides = {"data_folder": twin, "output_folder": folder, **overrides}
        run(str(recipe / "train.py"), librispeech, asr, [*shrunk(recipe / "hparams" / f"{name}.yaml", **overrides), *options])
        return json.loads((folder / "results.json").read_text())

    return go


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def without_times(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_trains_and_decodes(train, tmp_path, name):
    results = train(name, output_neurons=60)
    folder = tmp_path / "run"
    spiking = name.startswith("iml")
    assert set(results["metrics"]) == {"dev-clean", "test-clean"}
    assert all(values["WER"] >= 0 for values in results["metrics"].values())
    assert (results["task"], results["corpus"], results["model"]) == ("asr", "LibriSpeech", name)
    assert results["epochs"] == 2 and [row["epoch"] for row in history(folder)] == [1, 2]
    assert results["parameters"]["total"] == sum(results["parameters"]["by_module"].values())
    assert bool(results["firing_rate"]) == spiking
    assert all(0 < layer["mean"] < 1 for layer in results["firing_rate"].values())
    assert (results["energy"]["encoder_blocks"]["mJ"] < results["energy"]["encoder_blocks"]["twin_mJ"]) == spiking
    expected = {"curves.png", "energy.png"} | ({"firing_rates.png", "attention.png"} if spiking else set())
    assert {file.name for file in folder.glob("*.png")} == expected
    assert results["data"]["complete"] is False and results["data"]["splits"]["train-clean-100"]["utterances"] == 16


def test_run_folder_is_repeatable_and_names_no_machine(train, recipe, tmp_path, monkeypatch, twin):
    monkeypatch.setenv("SPIKEBRAIN_DATA", str(twin.parent))
    results = train()
    folder = tmp_path / "run"
    assert (folder / "train.py").read_text() == (recipe / "train.py").read_text()
    saved = (folder / "hyperparams.yaml").read_text()
    assert "!ref" not in saved and re.search(r"^d_model: 16$", saved, re.M)
    text = (folder / "results.json").read_text()
    assert f"--data_folder=$SPIKEBRAIN_DATA/{twin.name}" in results["command"]
    assert str(tmp_path) not in text and str(recipe) not in text
    assert (folder / "wer_test-clean.txt").read_text().startswith("%WER")


@pytest.mark.parametrize(("name", "chosen"), [("iml_spikeformer", set()), (MINI, {"lr"})])
def test_the_twin_differs_in_the_encoder_alone(differences, recipe, name, chosen):
    """And in its learning rate, where one was chosen on the dev split for each of the two."""
    assert differences(recipe, name) <= {"model", "encoder_module", "encoder_kwargs"} | chosen


def test_a_spiking_front_end_saves_energy_there(train):
    energy = train(frontend_activation="spike")["energy"]
    assert energy["counting"]["frontend_spiking"]
    inner, outer = energy["encoder_blocks"], energy["encoder+frontend"]
    assert 0 < outer["mJ"] - inner["mJ"] < outer["twin_mJ"] - inner["twin_mJ"]


def test_ctc_alone(train):
    results = train(ctc_weight=1.0, num_decoder_layers=0)
    assert "seq_lin" not in results["parameters"]["by_module"]
    assert not any("decoder output" in line["line"] for line in results["energy"]["full"]["lines"])


def test_synthetic_is_made_first(train, tmp_path):
    options = "{utterances: {train-clean-100: 8, dev-clean: 2, test-clean: 2}}"
    results = train(data_folder="synthetic", synthetic_folder=tmp_path / "made", synthetic_options=options)
    assert (tmp_path / "made" / "dev-clean").is_dir()
    assert results["data"]["splits"]["train-clean-100"]["utterances"] == 8
    assert "--data_folder=synthetic" in results["command"]


def test_no_split_is_needed_but_one_to_train_on(train, tmp_path):
    results = train(dev_splits=[], test_splits=[])
    assert results["metrics"] == {}
    assert "valid_WER" not in history(tmp_path / "run")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"n_epochs": 3}, "--n_epochs: .* has no such key; did you mean number_of_epochs"),
        ({"data_folder": None}, "(?s)data_folder.*train-clean-100/103/1240.*synthetic"),
        ({"data_folder": "/nowhere/at/all"}, "(?s)'/nowhere/at/all' is not a folder.*--data_folder="),
        ({"test_splits": ["test-other"]}, "split 'test-other' is not there"),
        ({"num_decoder_layers": 0}, "ctc_weight: 0.5 and num_decoder_layers: 0 do not go together"),
        ({"ctc_weight": 1.5}, "ctc_weight: 1.5 lies outside"),
        ({"hard_vocab_limit": True, "output_neurons": 3000}, "vocab_size: 3000 is more than the"),
        ({"strict_counts": True}, "16 utterances .published: 28539"),
    ],
)
def test_what_is_wrong_is_said_before_training(train, tmp_path, words, message):
    with pytest.raises((keys.RecipeError, DataError), match=message):
        train(**words)
    assert not list(tmp_path.glob("run/save/CKPT*"))


def test_from_the_command_line_it_is_one_message(recipe, shrunk, python, tmp_path):
    words = shrunk(recipe / "hparams" / f"{MINI}.yaml", output_folder=tmp_path / "run", n_epochs=3)
    process = python([recipe / "train.py", *words], tmp_path)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in text
    assert text.splitlines()[-1].startswith("train.py: --n_epochs: ") and "did you mean number_of_epochs?" in text


def test_bad_audio_stops_or_is_left_out_and_listed(train, twin, tmp_path):
    corpus = shutil.copytree(twin, tmp_path / "corpus")
    broken = sorted((corpus / "train-clean-100").rglob("*.flac"))[3]
    broken.write_bytes(broken.read_bytes()[:600])
    with pytest.raises(DataError, match=rf"{broken.name}.*truncated.*--skip_bad_audio=True"):
        train(data_folder=corpus)
    results = train(data_folder=corpus, skip_bad_audio=True, number_of_epochs=1)
    assert results["data"]["skipped"] == 1 and results["data"]["splits"]["train-clean-100"]["utterances"] == 15
    assert broken.name in (tmp_path / "run" / "save" / "skipped.csv").read_text()


def test_an_utterance_shorter_than_its_text_stops_or_is_left_out_and_listed(train, twin, tmp_path):
    corpus = shutil.copytree(twin, tmp_path / "corpus")
    transcript = sorted((corpus / "train-clean-100").rglob("*.trans.txt"))[0]
    first, *rest = transcript.read_text().splitlines()
    name = first.split()[0]
    transcript.write_text("\n".join([f"{first} {'NUMBER ' * 40}".strip(), *rest]) + "\n")
    with pytest.raises(DataError, match=rf"{name}: .* s give \d+ frames .* its tokens need \d+: .*--skip_bad_audio=True"):
        train(data_folder=corpus, token_type="char")
    assert not list(tmp_path.glob("run/save/CKPT*"))
    train(data_folder=corpus, token_type="char", skip_bad_audio=True, number_of_epochs=1)
    assert name in (tmp_path / "run" / "save" / "skipped.csv").read_text()


def test_further_loggers(train, recipe, shrunk, twin, tmp_path):
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    text = (recipe / "hparams" / f"{MINI}.yaml").read_text().replace("../../shared", str(recipe.parent / "shared"))
    logger = "extra_loggers:\n    - !new:speechbrain.utils.train_logger.TensorboardLogger\n        save_dir: !ref <output_folder>/board\n"
    (tmp_path / "logged.yaml").write_text(f"{text}\n{logger}")
    words = shrunk(tmp_path / "logged.yaml", data_folder=twin, output_folder=tmp_path / "run")
    run(str(recipe / "train.py"), librispeech, asr, words)
    assert list((tmp_path / "run" / "board").glob("events*"))


def test_a_data_folder_must_be_given(recipe, shrunk, tmp_path):
    words = shrunk(recipe / "hparams" / f"{MINI}.yaml", output_folder=tmp_path)
    with pytest.raises(DataError, match="(?s)--data_folder=/path/to/LibriSpeech.*train-clean-100"):
        run(str(recipe / "train.py"), librispeech, asr, words)


def test_another_tokenizer_does_not_fit_the_checkpoint(train, tmp_path):
    train(number_of_epochs=1)
    (tmp_path / "run" / "save" / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"was trained with vocabulary \d\d, this run has vocabulary \d\d: set .* or start anew"):
        train(number_of_epochs=2, token_type="char")


def test_a_seed_decides_everything(train, tmp_path):
    runs = [train(folder=tmp_path / name, seed=seed) for name, seed in (("one", 7), ("two", 7), ("other", 8))]
    rows = [without_times(history(tmp_path / name)) for name in ("one", "two", "other")]
    assert runs[0]["metrics"] == runs[1]["metrics"] and rows[0] == rows[1] != rows[2]


def test_resuming_a_finished_run_changes_nothing(train, tmp_path):
    first = train()
    before = history(tmp_path / "run")
    again = train()
    assert again["metrics"] == first["metrics"] and history(tmp_path / "run") == before


OPTIONS = (
    "--debug",
    "--precision=bf16",
    "--grad_accumulation_factor=2",
    "--test_only",
    "--remove_vector_weight_decay",
    "--ckpt_interval_steps=2",
)


@pytest.mark.parametrize("option", OPTIONS)
def test_run_options(train, tmp_path, option):
    if option == "--test_only":
        train()
    results = train(MINI, option)
    assert set(results["metrics"]) == {"dev-clean", "test-clean"}
    if option == "--grad_accumulation_factor=2":
        assert history(tmp_path / "run")[-1]["updates"] < results_of_plain_run(train, tmp_path)[-1]["updates"]


def results_of_plain_run(train, tmp_path):
    train(folder=tmp_path / "plain")
    return history(tmp_path / "plain")


@pytest.mark.full
def test_compile(train):
    assert train(MINI, "--compile", number_of_epochs=1)["metrics"]


@pytest.mark.full
def test_full_size_takes_two_steps_and_a_decode_on_real_speech(two_steps, recipe, real_data, tmp_path):
    overrides = {"train_splits": ["train-clean-100"], "dev_splits": [], "test_splits": ["test-other"], "hard_vocab_limit": False}
    results = two_steps(recipe, "iml_spikeformer", librispeech, tmp_path, data_folder=real_data / "librispeech_excerpt", **overrides)
    assert results["parameters"]["total"] == 99_364_624
    assert results["data"]["splits"]["train-clean-100"]["utterances"] == 74
    assert results["data"]["splits"]["test-other"]["utterances"] == 85
    assert results["metrics"]["test-other"]["WER"] > 0 and len(results["firing_rate"]) == 18 * 5


TABLE_2 = {  # row -> parameters
    "vgg_bilstm": 113_964_240,
    "transformer": 99_364_624,
    "gsu": 49_433_808,
    "spike_driven_transformer_4": 99_364_624,
    "spike_driven_transformer_6": 99_364_624,
    "iml_spikeformer_4": 99_364_624,
    "iml_spikeformer_6": 99_364_624,
}


def test_table_2_is_that_of_the_paper(rows_of):
    rows = rows_of("LibriSpeech/tables/table_2.yaml", "LibriSpeech")
    assert [*rows] == [*TABLE_2] and all(row.paper["WER"] > 0 for row in rows.values())


@pytest.mark.full
@pytest.mark.parametrize("row", TABLE_2)
def test_every_row_of_table_2_trains_and_decodes(train, rows_of, words_of, size_of, row):
    """And has its published size, or that of the paper's text (VGG-BiLSTM and GSU; the table prints 202.4 M and 185.1 M)."""
    found = rows_of("LibriSpeech/tables/table_2.yaml", "LibriSpeech")[row]
    assert size_of(found) == TABLE_2[row]
    results = train(Path(found.yaml).stem, *words_of(found), output_neurons=60, number_of_epochs=1)
    assert results["model"] == found.model and results["metrics"]["test-clean"]["WER"] > 0
    assert bool(results["firing_rate"]) == (row not in ("vgg_bilstm", "transformer"))
    assert results["energy"]["full"]["mJ"] > 0 < results["energy"]["full"]["twin_mJ"]


def words_for(recipe, shrunk, twin, folder, **overrides):
    overrides = {"data_folder": twin, "output_folder": folder, "max_batch_length": 4, "number_of_epochs": 3, **overrides}
    return [recipe / "train.py", *shrunk(recipe / "hparams" / f"{MINI}.yaml", **overrides)]


def finish(process, seconds=240):
    text, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, text[-3000:]
    return text


def kill_in_second_epoch(process, log):
    while process.poll() is None:
        if log.is_file() and "Going into epoch 2" in log.read_text():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    process.communicate()
    return process.returncode


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.full)])
def test_killed_in_the_second_epoch_and_run_again_is_the_same_run(recipe, shrunk, python, twin, tmp_path, workers):
    whole = python(words_for(recipe, shrunk, twin, tmp_path / "whole", num_workers=workers), tmp_path)
    finish(whole)
    words = words_for(recipe, shrunk, twin, tmp_path / "killed", num_workers=workers)
    assert kill_in_second_epoch(python(words, tmp_path), tmp_path / "killed" / "log.txt") == -signal.SIGKILL
    assert [row["epoch"] for row in history(tmp_path / "killed")] == [1]
    finish(python(words, tmp_path))
    runs = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")]
    assert runs[0]["metrics"] == runs[1]["metrics"]
    assert without_times(history(tmp_path / "whole")) == without_times(history(tmp_path / "killed"))
    for file in ("model.ckpt", "optimizer.ckpt", "generator.ckpt"):
        one, two = (torch.load(sorted((tmp_path / name / "save").glob("CKPT*"))[-1] / file) for name in ("whole", "killed"))
        assert_same(one, two)


def assert_same(one, two):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        assert one == two


PROBE = """
import json, os, sys
import torch
from spikebrain.data.corpora import librispeech
from spikebrain.training import asr
from spikebrain.training.run import run

seen = []

class Watched(asr.ASR):
    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        seen.append([self.hparams.epoch_counter.current, batch.id])

    def end_epoch(self, epoch, valid):
        weights = torch.cat([p.detach().flatten() for part in self.parts.values() for p in part.parameters()])
        maxima = torch.cat([b.flatten() for part in self.parts.values() for n, b in part.named_buffers() if n.endswith("running_max")])
        with open(os.path.join(sys.argv[1], f"rank{self.rank}.json"), "w") as file:
            json.dump({"seen": seen, "weights": weights.tolist(), "maxima": maxima.tolist()}, file)
        super().end_epoch(epoch, valid)

asr.ASR = Watched
run(sys.argv[2], librispeech, asr, sys.argv[3:])
"""


def test_two_processes_share_the_data_and_agree(recipe, shrunk, python, twin, tmp_path):
    (tmp_path / "probe.py").write_text(PROBE)
    small = shrunk(recipe / "hparams" / f"{MINI}.yaml", data_folder=twin, output_folder=tmp_path / "run", max_batch_length=8)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    words = [*launch, tmp_path / "probe.py", tmp_path, recipe / "train.py", *small, "--distributed_backend=gloo"]
    finish(python(words, tmp_path))
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    for epoch in (1, 2):
        shares = [[tuple(ids) for number, ids in rank["seen"] if number == epoch] for rank in (one, two)]
        assert len(shares[0]) == len(shares[1])
        batches = shares[0] + shares[1]
        repeated = len(batches) - len(set(batches))  # the first batch fills the last round where their number is odd
        assert repeated <= 1 and sum(map(len, set(batches))) == len({name for batch in batches for name in batch}) == 16
    assert one["weights"] == two["weights"] and one["maxima"] == two["maxima"]
    assert max(one["maxima"]) > 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]


def test_works_from_the_recipe_folder_and_from_the_root(recipe, shrunk, checkout):
    for folder in (recipe, checkout):
        assert keys.find(str(recipe / "train.py"), f"hparams/{MINI}.yaml").endswith(f"{MINI}.yaml"), folder


def test_train_py_is_short(recipe):
    spec = importlib.util.spec_from_file_location("recipe_train", recipe / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.librispeech, module.asr) == (librispeech, asr)
    assert len((recipe / "train.py").read_text().splitlines()) <= 20

"""SpeechBrain's own recipes for LibriSpeech and AISHELL-1, run unmodified but for two lines of YAML or one, on synthetic twins.

They are no part of SpeechBrain's wheel and are not copied here: ``$SPEECHBRAIN_REPO`` names a checkout of its repository,
and the tests that run them are left out where it is not set.
"""

import re
from dataclasses import dataclass, field

import pytest
import torch
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM

from spikebrain.data import manifest, tokens
from spikebrain.data.corpora import aishell, librispeech

UTTERANCES = {"train-clean-100": 16, "dev-clean": 4, "test-clean": 4, "test-other": 4}
EPOCHS, LAYERS = 2, 2
MANIFESTS = {"train": "train", "valid": "dev", "test": "test"}  # what AISHELL's YAML calls a set -> what its preparer does
WIDTHS = {"d_model": 16, "nhead": 2, "d_ffn": 32}
LM = {**WIDTHS, "num_encoder_layers": 1}
SMALL = {
    **WIDTHS,
    "num_encoder_layers": LAYERS,
    "number_of_epochs": EPOCHS,
    "num_workers": 0,
    "train_splits": ["train-clean-100"],
    "max_batch_length_train": 12,
    "noam_annealing": {"n_warmup_steps": 10},  # the stock 25,000 and 7,500 steps would leave the weights where they start
}

STOCK_CLASS = "!new:speechbrain.lobes.models.transformer.TransformerASR.TransformerASR"
OUR_CLASS = "!new:spikebrain.lobes.SpikingTransformerASR"


@dataclass(frozen=True)
class Recipe:
    """A stock recipe: its folder in a checkout, its YAML, the encoder that this names, its test sets, what shrinks it further, scripts."""

    folder: str
    yaml: str
    encoder: str
    test_sets: tuple
    small: dict = field(default_factory=dict)
    scripts: tuple = ("train.py", "librispeech_prepare.py")


TRANSFORMER = Recipe(
    "recipes/LibriSpeech/ASR/transformer",
    "transformer.yaml",
    "transformer",
    ("test-clean", "test-other"),
    {
        "num_decoder_layers": 1,
        "valid_search_interval": 1,
        "valid_beam_size": 2,
        "test_beam_size": 4,
        "max_decode_ratio": 0.3,
        "lm_model": LM,
    },
)
CTC = Recipe(
    "recipes/LibriSpeech/ASR/CTC", "conformer_large.yaml", "conformer", ("dev-clean", "test-clean", "test-other"), {"beam_size": 10}
)

# Its YAML names no encoder, so that ours comes with the class; its searches cannot be made smaller than every tenth epoch.
AISHELL = Recipe(
    "recipes/AISHELL-1/ASR/transformer", "train_ASR_transformer.yaml", None, ("test",), scripts=("train.py", "aishell_prepare.py")
)


def swap(text, encoder):
    """The swap on the text of a stock YAML that names ``encoder``, or None; fails where it is not two lines that change, or one."""
    swapped = text.replace(STOCK_CLASS, OUR_CLASS)
    if encoder:
        swapped = swapped.replace(f"encoder_module: {encoder}\n", "encoder_module: iml_spikeformer\n")
    changed = [new.split("#")[0].strip() for old, new in zip(text.splitlines(), swapped.splitlines(), strict=True) if old != new]
    assert changed == [f"Transformer: {OUR_CLASS}", *(["encoder_module: iml_spikeformer"] if encoder else [])]
    return swapped


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, stock_checkout):
    """A folder in LibriSpeech's layout with two test sets, and the manifest of its training split."""
    stock_checkout()
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import librispeech as synthetic

    folder = synthetic.make(tmp_path_factory.mktemp("stock") / "LibriSpeech", utterances=UTTERANCES)
    librispeech.prepare(folder, folder.parent, ["train-clean-100"])
    return folder, folder.parent / "train-clean-100.csv"


@pytest.fixture(scope="module")
def language_model(corpus, tmp_path_factory):
    """A folder with the tokenizer.ckpt and the lm.ckpt that a stock recipe would download, and the tokenizer's size."""
    folder = tmp_path_factory.mktemp("lm")
    settings = tokens.TokenizerSettings(vocab_size=60, hard_vocab_limit=False)
    # The search may choose any output, so there are as many outputs as pieces and no more.
    pieces = len(tokens.train([corpus[1]], str(folder / "tokenizer.ckpt"), settings))
    torch.manual_seed(0)
    torch.save(TransformerLM(vocab=pieces, num_decoder_layers=0, **LM).state_dict(), folder / "lm.ckpt")
    return folder, pieces


@pytest.fixture
def run(run_stock, tmp_path):
    """Runs a stock recipe with two lines of its YAML swapped; returns what it printed and its run folder."""

    def go(recipe, **values):
        out = tmp_path / "run"
        values = {**SMALL, **recipe.small, **values, "output_folder": out}
        return run_stock(recipe, lambda text: swap(text, recipe.encoder), tmp_path, values), out

    return go


def logged(lines, name):
    """The numbers called ``name`` in lines of train_log.txt."""
    return [float(number) for line in lines for number in re.findall(rf"\b{name}: ([^,\s]+)", line)]


def assert_fitted(out):
    """Every epoch took steps, the loss fell, and every epoch was decoded."""
    epochs = [line for line in (out / "train_log.txt").read_text(encoding="utf-8").splitlines() if line.startswith("epoch:")]
    steps, losses, errors = (logged(epochs, name) for name in ("steps", "train loss", "valid WER"))
    assert len(steps) == len(losses) == len(errors) == EPOCHS
    assert 0 < steps[0] < steps[1] and losses[1] < losses[0]


def assert_evaluated(text, out, recipe):
    """Each test set was searched with the averaged weights, and its errors are on disk."""
    tests = [line for line in (out / "train_log.txt").read_text(encoding="utf-8").splitlines() if line.startswith("Epoch loaded:")]
    assert len(logged(tests, "test WER")) == text.count("Loaded the average") == len(recipe.test_sets)
    for name in recipe.test_sets:
        report = (out / f"wer_{name}.txt").read_text(encoding="utf-8")
        assert report.startswith("%WER") and f"Scored {UTTERANCES[name]} sentences, 0 not present in hyp." in report


def assert_spiking(checkpoint):
    """The neurons of every encoder layer in the checkpoint have seen training data; returns the model's state."""
    state = torch.load(checkpoint / "model.ckpt", weights_only=True)
    maxima = {name: value for name, value in state.items() if name.endswith("running_max")}
    layers = {re.search(r"\.encoder\.model\.layers\.(\d+)\.", name)[1] for name in maxima}
    assert layers == {str(layer) for layer in range(LAYERS)}
    assert all((value > 0).all() for value in maxima.values())
    return state


def test_transformer_recipe(run, corpus, language_model):
    folder, pieces = language_model
    text, out = run(TRANSFORMER, data_folder=corpus[0], pretrained_lm_tokenizer_path=folder, output_neurons=pieces)
    assert "Loading pretrained files for: lm, tokenizer" in text and "During parameter transfer" not in text
    assert_fitted(out)
    assert_evaluated(text, out, TRANSFORMER)
    # Evaluation replaces the epochs' checkpoints by their average, which the recipe marks with an impossible accuracy.
    (averaged,) = (out / "save").glob("CKPT*")
    assert "ACC: 1.1\n" in (averaged / "CKPT.yaml").read_text(encoding="utf-8")
    assert_spiking(averaged)


def test_ctc_recipe(run, corpus):
    characters = {letter for utterance in manifest.read(corpus[1]) for letter in utterance.text}
    text, out = run(CTC, data_folder=corpus[0], output_neurons=len(characters) + tokens.EOS + 1)
    assert_fitted(out)
    assert_evaluated(text, out, CTC)
    first, second = (assert_spiking(checkpoint) for checkpoint in sorted((out / "save").glob("CKPT*")))
    same = [name for name in first if ".encoder." in name and torch.equal(first[name], second[name])]
    assert same == []


@pytest.fixture(scope="module")
def mandarin(tmp_path_factory, stock_checkout):
    """A folder in AISHELL-1's layout, the tokenizer.ckpt that the stock recipe would download, and its size."""
    stock_checkout()
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import aishell as synthetic

    folder = synthetic.make(tmp_path_factory.mktemp("stock") / "data_aishell", utterances={"train": 16, "dev": 4, "test": 4})
    aishell.prepare(folder, folder.parent, ["train", "dev"])
    manifests = [folder.parent / f"{split}.csv" for split in ("train", "dev")]  # the host's own tokenizer knows every character too
    tokenizer = folder.parent / "tokenizer.ckpt"
    pieces = len(tokens.train(manifests, str(tokenizer), tokens.TokenizerSettings(vocab_size=200, model_type="char")))
    return folder, tokenizer, pieces


def test_aishell_recipe(run_stock, local, mandarin, tmp_path):
    folder, tokenizer, pieces = mandarin
    out = tmp_path / "run"
    values = {
        **WIDTHS, "num_encoder_layers": LAYERS, "num_decoder_layers": 1, "number_of_epochs": EPOCHS, "num_workers": 0, "batch_size": 4,
        "valid_search_interval": 1, "valid_beam_size": 2, "test_beam_size": 2, "max_decode_ratio": 0.3,
        "noam_annealing": {"n_warmup_steps": 10},
        "data_folder": folder, "data_folder_noise": local["data_folder_noise"], "tokenizer_file": tokenizer, "output_neurons": pieces,
        "output_folder": out, **{f"{name}_data": out / f"{split}.csv" for name, split in MANIFESTS.items()},
    }  # fmt: skip
    text = run_stock(AISHELL, lambda text: swap(text, AISHELL.encoder), tmp_path, values)
    assert "During parameter transfer" not in text
    lines = (out / "train_log.txt").read_text(encoding="utf-8").splitlines()
    epochs, tests = ([line for line in lines if line.startswith(start)] for start in ("epoch:", "Epoch loaded:"))
    losses = logged(epochs, "train loss")
    assert len(losses) == EPOCHS and losses[1] < losses[0] and len(logged(epochs, "valid CER")) == EPOCHS
    assert len(logged(tests, "test CER")) == 1
    report = (out / "cer.txt").read_text(encoding="utf-8")
    assert "Scored 4 sentences, 0 not present in hyp." in report
    (averaged,) = (out / "save").glob("CKPT*")
    assert_spiking(averaged)


MADE = f"""d_model: 16
Transformer: {STOCK_CLASS} # a comment
    d_model: !ref <d_model>
    encoder_module: conformer
    attention_type: RelPosMHAXL
"""


def test_without_an_encoder_one_line_changes():
    text = MADE.replace("    encoder_module: conformer\n", "")
    assert swap(text, None) == text.replace(STOCK_CLASS, OUR_CLASS)


def test_swap_changes_two_lines_and_no_other():
    assert swap(MADE, "conformer").splitlines() == [
        "d_model: 16",
        f"Transformer: {OUR_CLASS} # a comment",
        "    d_model: !ref <d_model>",
        "    encoder_module: iml_spikeformer",
        "    attention_type: RelPosMHAXL",
    ]


@pytest.mark.parametrize(
    "encoder, text", [("transformer", MADE), ("conformer", MADE + MADE), ("conformer", MADE.replace("TransformerASR", "Other"))]
)
def test_a_yaml_that_needs_another_swap_is_not_taken(encoder, text):
    with pytest.raises(AssertionError):
        swap(text, encoder)


def test_without_a_checkout_the_reason_is_said(stock_checkout, monkeypatch, tmp_path):
    monkeypatch.delenv("SPEECHBRAIN_REPO", raising=False)
    with pytest.raises(pytest.skip.Exception, match="SPEECHBRAIN_REPO is not set"):
        stock_checkout()
    monkeypatch.setenv("SPEECHBRAIN_REPO", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="is no checkout of SpeechBrain"):
        stock_checkout()

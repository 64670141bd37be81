"""SpeechBrain's own recipes for Speech Commands, VoxCeleb and IEMOCAP, run unmodified but for the block ``embedding_model`` of their YAML.

As in test_stock_recipes.py, the recipes come from the checkout that ``$SPEECHBRAIN_REPO`` names; the tests of the contract that
they rely on need none.
"""

import csv
import difflib
import json
import math
import re
import types
from dataclasses import dataclass, field

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.core import Brain
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.lobes.models import ECAPA_TDNN, Xvector
from speechbrain.nnet.containers import LengthsCapableSequential
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper, nll_loss
from speechbrain.utils.logger import format_order_of_magnitude

from spikebrain.data.corpora import iemocap
from spikebrain.encoders.iml_spikeformer import IMLSpikeformer
from spikebrain.encoders.pts_snn import PTSSNN
from spikebrain.encoders.spikescr import SpikeSCR
from spikebrain.lobes import SpikingEmbedding

RATE = 16000
ENCODERS = {"spikescr": SpikeSCR, "iml_spikeformer": IMLSpikeformer, "pts_snn": PTSSNN}
ENTRANCE = {
    "spikescr": "encoder.model.embedding.conv.weight",
    "iml_spikeformer": "encoder.projection.weight",
    "pts_snn": "encoder.model.layers.0.linear.weight",
}
# oneDNN 3.10 never comes back from a bfloat16 convolution of SpikeSCR's kind over up to 16 channels.
WIDTHS = {"num_layers": 1, "d_model": 32, "nhead": 2}
SMALL = {
    "number_of_epochs": 1,
    "num_workers": 0,
    "opt_class": "{weight_decay: 0}",  # so that nothing but a gradient moves a weight
}


@dataclass(frozen=True)
class Recipe:
    """A stock recipe.

    folder, scripts, yaml : where it lies in a checkout
    stock : the class of its embedding
    gone : keys that the class has and ours has not
    kept : keys whose line both have
    size : channels of an embedding
    small : overrides that shrink it
    augments : whether it trains on noisy and reverberant copies too
    error : what it calls the number by which checkpoints are chosen
    """

    folder: str
    scripts: tuple
    yaml: str
    stock: str
    gone: tuple
    kept: tuple
    size: int
    small: dict = field(default_factory=dict)
    augments: bool = True
    error: str = "ErrorRate"


COMMANDS = Recipe(
    "recipes/Google-speech-commands",
    ("train.py", "prepare_GSC.py"),
    "xvect.yaml",
    "speechbrain.lobes.models.Xvector.Xvector",
    ("in_channels", "activation", "tdnn_blocks", "tdnn_channels", "tdnn_kernel_sizes", "tdnn_dilations", "lin_neurons"),
    (),
    512,
    # Splits are drawn by speaker, and silence is a share of a split's words that every background recording must have a part of.
    {**SMALL, "batch_size": 8, "validation_percentage": 20, "testing_percentage": 20, "percentage_silence": 100},
)
SPEAKERS = Recipe(
    "recipes/VoxCeleb/SpeakerRec",
    ("train_speaker_embeddings.py", "voxceleb_prepare.py"),
    "train_ecapa_tdnn.yaml",
    "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
    ("channels", "kernel_sizes", "dilations", "groups", "attention_channels", "lin_neurons"),
    ("input_size",),
    192,
    # The stock rate takes 65,000 steps to grow from 1e-8, where a step of Adam is less than a weight's last digit.
    {**SMALL, "batch_size": 4, "split_ratio": [75, 25], "base_lr": 1e-4, "step_size": 2},
)
VERIFICATION = Recipe(
    SPEAKERS.folder,
    ("speaker_verification_cosine.py", "voxceleb_prepare.py"),
    "verification_ecapa.yaml",
    SPEAKERS.stock,
    tuple(name for name in SPEAKERS.gone if name != "groups"),
    SPEAKERS.kept,
    SPEAKERS.size,
    {"cohort_size": 4},
    augments=False,
)
EMOTIONS = Recipe(
    "recipes/IEMOCAP/emotion_recognition",
    ("train.py", "iemocap_prepare.py"),
    "train.yaml",
    SPEAKERS.stock,
    VERIFICATION.gone,
    SPEAKERS.kept,
    96,
    # Four batches of gradients are two steps of this recipe.
    {"number_of_epochs": 1, "opt_class": SMALL["opt_class"], "dataloader_options": "{num_workers: 0}", "batch_size": 8},
    augments=False,
    error="error",
)


def block(size, encoder, options=WIDTHS):
    """The lines that take the place of a stock block ``embedding_model``; the last one only where there are options."""
    lines = [
        "embedding_model: !new:spikebrain.lobes.SpikingEmbedding",
        "    input_size: !ref <n_mels>",
        f"    embedding_size: {size}",
        f"    encoder: {encoder}",
        "    encoder_kwargs: {" + ", ".join(f"{key}: {value}" for key, value in options.items()) + "}",
    ]
    return lines if options else lines[:-1]


def key(line):
    """The key of a line of YAML."""
    return line.split(":")[0].strip()


def changed(old, new):
    """Lines that ``old`` alone has, and lines that ``new`` alone has."""
    steps = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    pairs = [(old[a:b], new[c:d]) for step, a, b, c, d in steps if step != "equal"]
    return tuple([line for part in side for line in part] for side in zip(*pairs, strict=True))


def swap(text, recipe, encoder, options=WIDTHS):
    """The text of a stock YAML with our embedding; fails where other lines change than those that ``recipe`` tells."""
    ours = block(recipe.size, encoder, options)
    swapped, blocks = re.subn(r"^embedding_model: .*\n(?: +.*\n)*", "\n".join([*ours, ""]), text, flags=re.M)
    assert blocks == 1
    gone, come = changed(text.splitlines(), swapped.splitlines())
    assert gone.pop(0) == f"embedding_model: !new:{recipe.stock}"
    assert tuple(map(key, gone)) == recipe.gone
    assert come == [line for line in ours if key(line) not in recipe.kept]
    return swapped


@pytest.fixture(scope="module")
def voices(stock_checkout):
    """The synthetic voices' module; skips where there is no checkout or no voice."""
    stock_checkout()
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: recipes are tested on synthetic speech")
    from spikebrain.data.synthetic import speech

    return speech


@pytest.fixture(scope="module")
def commands(voices, tmp_path_factory):
    """A folder in Speech Commands' layout with two of its words."""
    pytest.importorskip("pandas", reason="pip install pandas: the stock preparer of Speech Commands writes its tables with it")
    from spikebrain.data.synthetic import gsc

    numbers = {"train": 10, "valid": 3, "test": 3}
    folder = gsc.make(tmp_path_factory.mktemp("stock") / "GSC", utterances=numbers, words=["yes", "no"])
    (folder / "train-synth").mkdir()  # the preparer looks for it, and downloads the corpus where it is missing
    return folder


VOICES = {"id10001": "m1", "id10002": "f2", "id10003": "m7", "id10270": "f4", "id10271": "m3"}
VERIFIED = ("id10270", "id10271")
SESSIONS = ("1zcIwhmdeo4", "7gWzIy6yIIk")
TEXT = "the number of this room is {}, and the door of the garden is open on monday"  # above the 3 seconds of a stock chunk
PAIRS = [f"{int(a == b)} {a}/{SESSIONS[0]}/00001.wav {b}/{SESSIONS[1]}/00002.wav" for a in VERIFIED for b in VERIFIED]


@pytest.fixture(scope="module")
def speakers(voices, tmp_path_factory):
    """A folder in VoxCeleb1's layout with five speakers, and a list of trials that tells two of them apart."""
    folder = tmp_path_factory.mktemp("stock") / "VoxCeleb1"
    for speaker, variant in VOICES.items():
        for session in SESSIONS:
            (folder / "wav" / speaker / session).mkdir(parents=True)
            for number in (1, 2):
                wav = voices.speak_at(TEXT.format(10 * len(variant) + number), RATE, voices.Voice(f"en-us+{variant}", 150))
                soundfile.write(folder / "wav" / speaker / session / f"{number:05d}.wav", wav, RATE, subtype="PCM_16")
    (folder / "veri_test2.txt").write_text("".join(f"{pair}\n" for pair in PAIRS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(run_stock, local):
    """Runs a stock recipe with our embedding; returns what it printed and its run folder."""

    def go(recipe, encoder, folder, values, *options, encoder_kwargs=WIDTHS):
        out = folder / "run"
        values = {**(local if recipe.augments else {}), **recipe.small, **values, "output_folder": out}
        return run_stock(recipe, lambda text: swap(text, recipe, encoder, encoder_kwargs), folder, values, *options), out

    return go


def rows(file):
    """The rows of a stock manifest."""
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def logged(text, name):
    """The numbers called ``name`` in a log."""
    return [float(number) for number in re.findall(rf"\b{name}: ([^,\s]+)", text)]


def recover(out, encoder, error="ErrorRate"):
    """What a run's own YAML builds, with the checkpoint that its own checkpointer chooses, and that checkpoint's folder."""
    with open(out / "hyperparams.yaml", encoding="utf-8") as text:
        built = load_hyperpyyaml(text)
    embedding = built["embedding_model"]
    assert type(embedding) is SpikingEmbedding and type(embedding.encoder.model) is ENCODERS[encoder]
    begun = {name: value.clone() for name, value in embedding.state_dict().items()}  # the seed is in the YAML
    chosen = built["checkpointer"].recover_if_possible(min_key=error)
    assert chosen.path.parent == out / "save"
    still = [name for name, value in embedding.state_dict().items() if torch.equal(value, begun[name])]
    assert not [name for name in still if name == ENTRANCE[encoder] or ".running_" in name], still
    return built, chosen.path


def assert_trained(text, out, table, built, checkpoint):
    """One epoch with finite losses took the steps that the manifest asks for, with all weights of our module and the classifier."""
    log = (out / "train_log.txt").read_text(encoding="utf-8")
    losses = [logged(log, f"{split} loss") for split in ("train", "valid")]
    assert all(len(split) == 1 and math.isfinite(split[0]) for split in losses)
    (steps,) = logged((checkpoint / "brain.ckpt").read_text(encoding="utf-8"), "optimizer_step")
    assert steps == math.ceil(len(table) / built["batch_size"]) // built.get("grad_accumulation_factor", 1) > 1
    weights = [weight for weight in torch.nn.ModuleDict(built["modules"]).parameters() if weight.requires_grad]
    count = format_order_of_magnitude(sum(weight.numel() for weight in weights))
    assert f"Total Number of Trainable Parameters: {count}\n" in text
    # Adam knows the weights that a gradient has reached.
    reached = torch.load(checkpoint / "optimizer.ckpt", weights_only=True)["state"].values()
    assert [kept["exp_avg"].shape for kept in reached] == [weight.shape for weight in weights]


def assert_in_use(built, wav, size):
    """SpeechBrain's inference class takes the trained modules and scores a recording."""
    classifier = EncoderClassifier(modules=built["modules"], hparams={})
    embedded = classifier.encode_batch(torch.from_numpy(soundfile.read(wav, dtype="float32")[0]))
    assert embedded.shape == (1, 1, size) and embedded.isfinite().all() and embedded.std() > 0
    scores = classifier.mods.classifier(embedded)
    assert scores.shape == (1, 1, built["out_n_neurons"]) and scores.isfinite().all()


@pytest.mark.parametrize(("encoder", "precision"), [("spikescr", "fp32"), ("iml_spikeformer", "bf16")])
def test_speech_commands_recipe(run, commands, tmp_path, encoder, precision):
    # The stock script writes its tables into the run's folder and looks for them in save.
    tables = {f"{split}_annotation": tmp_path / "run" / f"{split}.csv" for split in ("train", "valid", "test")}
    options = [f"--precision={precision}", f"--eval_precision={precision}"]
    text, out = run(COMMANDS, encoder, tmp_path, {"data_folder": commands, **tables}, *options)
    assert f"training precision: `--precision={precision}`" in text
    built, checkpoint = recover(out, encoder)
    table = {split: rows(out / f"{split}.csv") for split in ("train", "valid", "test")}
    assert all({row["command"] for row in split} == {"yes", "no", "silence"} for split in table.values())
    assert_trained(text, out, table["train"], built, checkpoint)
    (error,) = logged((out / "train_log.txt").read_text(encoding="utf-8"), "test ErrorRate")
    assert 0 <= error <= 1 and f"Loading a checkpoint from {checkpoint}" in text
    assert_in_use(built, table["test"][0]["wav"], COMMANDS.size)


@pytest.fixture(scope="module")
def trained(run, speakers, tmp_path_factory):
    """What the training of speaker embeddings printed, and its run folder."""
    known = len(VOICES) - len(VERIFIED)
    values = {"data_folder": speakers, "verification_file": speakers / "veri_test2.txt", "out_n_neurons": known}
    return run(SPEAKERS, "spikescr", tmp_path_factory.mktemp("speakers"), values)


def test_speaker_embedding_recipe(trained):
    text, out = trained
    built, checkpoint = recover(out, "spikescr")
    table = {split: rows(out / "save" / f"{split}.csv") for split in ("train", "dev")}
    assert {split: len(table[split]) for split in table} == {"train": 9, "dev": 3}
    assert {row["spk_id"] for row in table["train"]} == VOICES.keys() - set(VERIFIED)
    assert_trained(text, out, table["train"], built, checkpoint)
    assert_in_use(built, table["dev"][0]["wav"], SPEAKERS.size)


def test_speaker_verification_recipe(run, trained, speakers, tmp_path):
    """Trials are scored with the checkpoint of the training, which gives the lengths along with the features."""
    _, checkpoint = recover(trained[1], "spikescr")
    values = {"data_folder": speakers, "verification_file": speakers / "veri_test2.txt", "pretrain_path": checkpoint}
    text, out = run(VERIFICATION, "spikescr", tmp_path, values)
    assert "Loading pretrained files for: embedding_model" in text and "During parameter transfer" not in text
    scored = [line.split() for line in (out / "scores.txt").read_text(encoding="utf-8").splitlines()]
    trials = [f"{label} {enrolled}.wav {tested}.wav" for enrolled, tested, label, _ in scored]
    assert trials == PAIRS and len({score for *_, score in scored}) == len(PAIRS)
    assert len(re.findall(r"(?:EER\(%\)|minDCF)=\d+\.\d+", text)) == 2


@pytest.fixture(scope="module")
def acted(voices, tmp_path_factory):
    """IEMOCAP's synthetic twin, 40 utterances."""
    from spikebrain.data.synthetic import iemocap as synthetic

    return synthetic.make(tmp_path_factory.mktemp("stock") / "IEMOCAP", utterances={"all": 1})


@pytest.fixture
def stock_preparer(stock_checkout):
    """The stock preparer of IEMOCAP as a module, of which nothing is left behind in the checkout."""
    module = types.ModuleType("iemocap_prepare")
    exec((stock_checkout() / EMOTIONS.folder / EMOTIONS.scripts[1]).read_text(encoding="utf-8"), module.__dict__)
    return module


def assert_as_ours(manifests, folder):
    """The stock preparer has found the utterances, labels and durations that ours finds."""
    assert len({name for manifest in manifests for name in manifest}) == sum(map(len, manifests))
    found = {name: (row["emo"], row["length"]) for manifest in manifests for name, row in manifest.items()}
    known = {u.id: (u.label, u.duration) for u in iemocap.read(folder, "all")}
    assert {name: (iemocap.EMOTIONS[label], length) for name, (label, length) in found.items()} == known


@pytest.mark.parametrize(
    ("encoder_kwargs", "split"), [({}, {}), ({"d_model": 32, "num_prompts": 2}, {"different_speakers": True, "test_spk_id": 3})]
)
def test_emotion_recipe(run, acted, stock_preparer, tmp_path, encoder_kwargs, split):
    """The stock preparer takes exactly 5531 utterances; told another number it writes its manifests, and the recipe goes on from there."""
    names = [tmp_path / "run" / f"{name}.json" for name in ("train", "valid", "test")]
    names[0].parent.mkdir()
    with pytest.raises(ValueError, match="5531"):
        stock_preparer.prepare_data(str(acted), *names, **split)
    stock_preparer.NUMBER_UTT = 40
    stock_preparer.prepare_data(str(acted), *names, **split)
    manifests = [json.loads(name.read_text(encoding="utf-8")) for name in names]
    assert_as_ours(manifests, acted)
    text, out = run(EMOTIONS, "pts_snn", tmp_path, {"data_folder": acted, **split}, encoder_kwargs=encoder_kwargs)
    assert "Preparation completed in previous run" in text
    built, checkpoint = recover(out, "pts_snn", EMOTIONS.error)
    assert {name: getattr(built["embedding_model"].encoder.model.config, name) for name in encoder_kwargs} == encoder_kwargs
    assert_trained(text, out, manifests[0], built, checkpoint)
    with open(out / "predictions.csv", encoding="utf-8", newline="") as lines:
        named = list(csv.DictReader(lines))
    assert {row["id"] for row in named} == manifests[2].keys() and len(named) == len(manifests[2])
    (error,) = logged((out / "train_log.txt").read_text(encoding="utf-8"), "test error")
    assert error == pytest.approx(sum(row["prediction"] != row["true_value"] for row in named) / len(named), abs=1e-2)
    assert_in_use(built, next(iter(manifests[2].values()))["wav"], EMOTIONS.size)


MADE = """n_mels: 80
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [1024, 1024]
    kernel_sizes: [5, 3]
    dilations: [1, 2]
    attention_channels: 128
    lin_neurons: 192

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
"""


def test_swap_changes_the_block_and_no_other_line():
    ours = block(192, "spikescr")
    assert swap(MADE, VERIFICATION, "spikescr").splitlines() == ["n_mels: 80", *ours, *MADE.splitlines()[-3:]]


def test_without_options_three_lines_come():
    swapped = swap(MADE.replace("lin_neurons: 192", "lin_neurons: 96"), EMOTIONS, "pts_snn", {})
    gone, come = changed(MADE.splitlines(), swapped.splitlines())
    assert tuple(map(key, gone)) == ("embedding_model", *EMOTIONS.gone)
    assert come == ["embedding_model: !new:spikebrain.lobes.SpikingEmbedding", "    embedding_size: 96", "    encoder: pts_snn"]


@pytest.mark.parametrize(
    "text",
    [
        MADE + MADE,
        MADE.replace("embedding_model", "other_model"),
        MADE.replace("ECAPA_TDNN\n", "Other\n"),
        MADE.replace("channels: [1024, 1024]", "widths: [1024, 1024]"),
        MADE.replace("    input_size: !ref <n_mels>\n", "    input_size: 80\n"),
    ],
)
def test_a_yaml_that_needs_another_swap_is_not_taken(text):
    with pytest.raises(AssertionError):
        swap(text, VERIFICATION, "spikescr")


MELS, SIZE, CLASSES, BATCH, FRAMES = 24, 32, 3, 4, 40
LENGTHS = torch.tensor([1.0, 0.5, 0.8, 0.65])
STOCK = {
    "xvector": lambda: Xvector.Xvector(in_channels=MELS, tdnn_channels=[16] * 5, lin_neurons=SIZE),
    "ecapa": lambda: ECAPA_TDNN.ECAPA_TDNN(MELS, lin_neurons=SIZE, channels=[16] * 5, attention_channels=8),
}
HEADS = {
    "xvector": (lambda: Xvector.Classifier([None, None, SIZE], lin_neurons=16, out_neurons=CLASSES), nll_loss),
    "ecapa": (
        lambda: ECAPA_TDNN.Classifier(SIZE, out_neurons=CLASSES),
        LogSoftmaxWrapper(loss_fn=AdditiveAngularMargin(margin=0.2, scale=30)),
    ),
}


@pytest.fixture(params=ENCODERS)
def embedding(request):
    """A small embedding over each encoder."""
    torch.manual_seed(1)
    return SpikingEmbedding(MELS, SIZE, request.param, WIDTHS)


@pytest.fixture
def features():
    return torch.randn(BATCH, FRAMES, MELS, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", STOCK)
def test_calls_and_shapes_are_those_of_the_stock_modules(embedding, features, name):
    for module in (STOCK[name](), embedding):
        assert [module(*words).shape for words in ((features,), (features, LENGTHS))] == [(BATCH, 1, SIZE)] * 2
        assert module(features).dtype == torch.float32


def test_the_host_finds_the_lengths_and_padding_reaches_no_embedding(embedding, features):
    embedding(features)  # statistics of the neurons
    chain = LengthsCapableSequential(embedding).eval()
    alone = torch.cat([embedding(features[i : i + 1, : round(FRAMES * float(LENGTHS[i]))]) for i in range(BATCH)])
    torch.testing.assert_close(chain(features, lengths=LENGTHS), alone, rtol=0, atol=1e-5)
    assert not torch.allclose(chain(features), alone, rtol=0, atol=1e-2)


class SpeakerBrain(Brain):
    """The forward pass of the stock recipes, without their sound."""

    def compute_forward(self, batch, stage):
        """Class scores (B, 1, K)."""
        feats, lens, _ = batch
        self.embedded = self.modules.embedding_model(feats, lens)
        return self.modules.classifier(self.embedded)

    def compute_objectives(self, predictions, batch, stage):
        """The recipe's own cost."""
        return self.hparams.compute_cost(predictions, batch[2], batch[1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", HEADS)
def test_a_brain_trains_it_behind_a_stock_classifier(embedding, features, head, precision):
    classifier, cost = HEADS[head]
    modules = {"embedding_model": embedding, "classifier": classifier()}
    options = {"device": "cpu", "precision": precision, "eval_precision": precision, "noprogressbar": True}
    brain = SpeakerBrain(modules, torch.optim.Adam, {"compute_cost": cost}, options)
    begun = {name: weight.detach().clone() for name, weight in embedding.named_parameters()}
    loader = torch.utils.data.DataLoader([(features, LENGTHS, torch.tensor([[0], [1], [2], [0]]))], batch_size=None)
    brain.fit([1], loader, loader)
    assert brain.modules.embedding_model is embedding and brain.optimizer_step == 1
    # Those that a gradient has reached.
    assert brain.optimizer.state.keys() == {weight for weight in brain.modules.parameters() if weight.requires_grad}
    moved = [name for name, weight in embedding.named_parameters() if not torch.equal(weight, begun[name])]
    assert {"head.weight", next(name for name in begun if name in ENTRANCE.values())} <= set(moved)
    assert all(weight.isfinite().all() and weight.dtype == torch.float32 for weight in embedding.parameters())
    assert brain.embedded.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert math.isfinite(brain.evaluate(loader))

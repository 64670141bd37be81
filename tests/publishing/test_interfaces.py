"""SpeechBrain's own interfaces load what is published for them, from wherever it lies, and say what spikebrain's loader says."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import hyperpyyaml
import pytest
import ruamel.yaml
import safetensors.torch
import soundfile
import torch
import yaml
from fake_librispeech import tone
from proved import check_here
from speechbrain.inference.ASR import EncoderASR, EncoderDecoderASR
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.nnet.linear import Linear

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import tiny_bundles  # noqa: E402

from spikebrain import lengths as frames  # noqa: E402
from spikebrain.blocks import subsampling  # noqa: E402
from spikebrain.frontend.normalisation import UtteranceNormalization  # noqa: E402
from spikebrain.lobes import LogMel, SpikingTransformerASR  # noqa: E402
from spikebrain.publishing import BundleError, bundle, host, hub, interfaces, load, outputs, proof, use  # noqa: E402

INTERFACES = {
    "attention": EncoderDecoderASR,
    "ctc": EncoderASR,
    "keywords": EncoderClassifier,
    "identify": EncoderClassifier,
    "verify": SpeakerRecognition,
}
HEARD = {  # weights, changes of which are heard
    "attention": "Transformer.encoder.model.norm.bias",
    "keywords": "classifier.head.weight",
    "verify": "embedding_model.head.bias",
}
CPU = {"device": "cpu"}


def listed(folder, name):
    """What bundle.json would say of a file as it is now: whoever means harm says it."""
    data = (folder / name).read_bytes()
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}


@pytest.fixture(scope="module")
def moved(run_of, tmp_path_factory):
    """(name of RUNS) -> a folder for SpeechBrain, published and then moved; one of them is proved in a fresh process, as all are in use."""
    made = {}

    def publish(name):
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                if name != "ctc":
                    patch.setattr(proof, "check_afresh", check_here)
                bundle.make(run_of(name), place / "made", speechbrain=True)
            made[name] = (place / "made").rename(place / "and moved")
        return made[name]

    return publish


@pytest.fixture(scope="module")
def host_of(moved):
    """(name of RUNS) -> its interface, opened as a user of SpeechBrain opens it."""
    made = {}

    def opened(name):
        if name not in made:
            made[name] = INTERFACES[name].from_hparams(str(moved(name)), run_opts=CPU)
        return made[name]

    return opened


@pytest.mark.parametrize("name", INTERFACES)
def test_a_padded_batch_gives_what_spikebrain_gives(name, host_of, model_of):
    host, model = host_of(name), model_of(name)
    wavs, lengths = proof.made_input(model)
    ours = model.outputs(wavs, lengths)
    if model.task == "asr":
        key = "encoded" if name == "attention" else "ctc"
        theirs, counts = host.encode_batch(wavs, lengths), frames.absolute(ours["lengths"], ours[key])
        valid = frames.valid(counts, theirs)
        assert counts[0] > counts[1] > 0 and torch.equal(theirs[valid], ours[key][valid])
        texts, ids = host.transcribe_batch(wavs, lengths)
        clips = [wav[:count] for wav, count in zip(wavs, frames.absolute(lengths, wavs).tolist(), strict=True)]
        assert texts == use.transcribe(model, clips) and any(ids)
    elif model.task == "verify":
        embedding = ours["embedding"] if model.centre is None else ours["embedding"] - model.centre
        assert torch.equal(host.encode_batch(wavs, lengths)[:, 0], embedding)
    else:
        expected = ours["logits"] if name == "identify" else (ours["votes"] / ours["votes"].sum(-1, keepdim=True)).log()
        found, scores, places, labels = host.classify_batch(wavs, lengths)
        assert torch.equal(found, expected) and torch.equal(scores, found.max(-1).values)
        assert labels == [model.labels[place] for place in places.tolist()]


@pytest.fixture
def recording(tmp_path):
    """A stereo file of another rate, which both loaders convert as SpeechBrain does."""
    path = tmp_path / "a b.flac"
    left, right = tone(1.3, 220, 22050), tone(1.3, 330, 22050)
    soundfile.write(path, torch.stack([torch.as_tensor(left), torch.as_tensor(right)], 1).numpy(), 22050)
    return str(path)


@pytest.mark.parametrize("name", INTERFACES)
def test_a_file_gives_what_spikebrain_gives(name, host_of, model_of, recording):
    host, model = host_of(name), model_of(name)
    if model.task == "asr":
        assert host.transcribe_file(recording) == model.transcribe(recording)
    elif model.task == "verify":
        score, same = host.verify_files(recording, recording)
        assert float(score) == pytest.approx(model.verify(recording, recording).score, abs=1e-5) and bool(same)
    else:
        _, score, _, (label,) = host.classify_file(recording)
        ours = model.classify(recording)
        assert label == ours.label and (float(score.exp()) if name == "keywords" else float(score)) == pytest.approx(ours.score, rel=1e-6)


def test_all_of_it_lies_in_the_folder(moved):
    names = {path.name for path in moved("attention").iterdir()}
    assert {"hyperparams.yaml", "network.ckpt", "tokenizer.ckpt", "bundle.json"} <= names
    yaml = (moved("attention") / "hyperparams.yaml").read_text()
    assert "/" not in "".join(line for line in yaml.splitlines() if not line.startswith("#"))
    assert (moved("keywords") / "network.ckpt").read_bytes() == (moved("keywords") / "model.safetensors").read_bytes()
    assert not (moved("keywords") / "tokenizer.ckpt").exists()


def test_spikebrain_needs_none_of_it_and_the_hub_gets_all_of_it(moved, tmp_path):
    folder = shutil.copytree(moved("ctc"), tmp_path / "copy")
    sent = {name for name, _, _ in hub.plan(folder, "owner/name").files}
    assert {"hyperparams.yaml", "network.ckpt", "tokenizer.ckpt"} <= sent
    (folder / "hyperparams.yaml").write_text("a: !apply:os.system [exit]\n")
    with pytest.raises(BundleError, match=r"hyperparams\.yaml: (has|was)"):
        hub.plan(folder, "owner/name")
    for name in ("hyperparams.yaml", "network.ckpt", "tokenizer.ckpt"):
        (folder / name).unlink()
    assert load(folder, check=True).task == "asr"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: state.pop("ctc_lin.w.bias"), r"network\.ckpt: lacks 1 tensors, the first is 'ctc_lin\.w\.bias'"),
        (lambda state: state.update({"other": torch.zeros(1)}), r"network\.ckpt: has 1 tensors, the first is 'other'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(edit, message, moved, tmp_path):
    folder = shutil.copytree(moved("ctc"), tmp_path / "copy")
    state = safetensors.torch.load_file(folder / "network.ckpt")
    edit(state)
    safetensors.torch.save_file(state, folder / "network.ckpt")
    with pytest.raises(BundleError, match=message):
        EncoderASR.from_hparams(str(folder), run_opts=CPU)


def test_a_pickle_is_refused(moved, tmp_path):
    folder = shutil.copytree(moved("ctc"), tmp_path / "copy")
    torch.save({}, folder / "network.ckpt")
    with pytest.raises(BundleError, match="is a pickle"):
        EncoderASR.from_hparams(str(folder), run_opts=CPU)


def test_the_proof_runs_no_yaml_but_that_of_this_version(moved, tmp_path, capsys, reseal):
    folder, ran = shutil.copytree(moved("ctc"), tmp_path / "copy"), tmp_path / "ran"
    with open(folder / "hyperparams.yaml", "a") as file:
        file.write(f"x: !apply:os.mkdir [{ran}]\n")

    assert proof.main([str(folder)]) == 1 and "hyperparams.yaml: has" in capsys.readouterr().err
    reseal(folder, lambda config: config["speechbrain"].update(listed(folder, "hyperparams.yaml")))
    assert proof.main([str(folder)]) == 1 and not ran.exists()
    assert "hyperparams.yaml: is not what this version makes of bundle.json, and is not run" in capsys.readouterr().err
    EncoderASR.from_hparams(str(folder), run_opts=CPU)
    assert ran.exists()  # it would have been run
    (folder / "tokenizer.ckpt").unlink()
    assert proof.main([str(folder)]) == 1 and "without which spikebrain.load does" in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ["lif_network", "spikescr", "iml_spikeformer"])
def test_frames_without_a_spike_are_frames(encoder):
    torch.manual_seed(1)
    shape = {"d_model": 16, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 1, "d_ffn": 16}
    network = host.Network(
        {
            "features": LogMel(sample_rate=8000, n_mels=8, n_fft=256),
            "normalize": UtteranceNormalization(),
            "frontend": subsampling.make(4, 4, 8),
            "Transformer": SpikingTransformerASR(8, 4, encoder_module=encoder, normalize_before=True, **shape),
            "ctc_lin": Linear(input_size=16, n_neurons=8),
            "seq_lin": Linear(input_size=16, n_neurons=8),
        }
    ).eval()
    encode, decode = (
        host.Encoder(network),
        host.Decoder(network, test_beam_size=3, ctc_weight_decode=0.4, temperature=1.0, max_decode_ratio=1.0),
    )
    counts = torch.tensor([8000, 6000, 4400, 2100])
    wavs = frames.zero_past(0.1 * torch.randn(4, 8000), counts)
    with torch.no_grad():
        together = encode(wavs, frames.relative(counts, 8000))
        ids, *_ = decode(together, None)
        alone = [decode(encode(wav[None, :count], torch.ones(1)), None)[0][0] for wav, count in zip(wavs, counts.tolist(), strict=True)]
    if encoder == "lif_network":
        assert (together == 0).all(-1).sum() > 20  # of 28 frames that are padding, and others
    assert ids == alone


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: {"ctc_lin.w.bias": torch.zeros(3)}, r"network\.ckpt: ctc_lin\.w\.bias is torch\.float32 of shape \(3,\)"),
        (lambda state: {"ctc_lin.w.bias": state["ctc_lin.w.bias"] * torch.nan}, r"ctc_lin\.w\.bias holds 30 NaN"),
        (lambda state: {"normalize.glob_mean": torch.zeros(7)}, r"normalize\.glob_mean is torch\.float32 of shape \(7,\)"),
    ],
)
def test_tensors_that_are_not_as_the_network_needs_are_refused(edit, message, moved, tmp_path):
    folder = shutil.copytree(moved("ctc"), tmp_path / "copy")
    state = safetensors.torch.load_file(folder / "network.ckpt")
    safetensors.torch.save_file(state | edit(state), folder / "network.ckpt")
    with pytest.raises(BundleError, match=message):
        EncoderASR.from_hparams(str(folder), run_opts=CPU)


def test_statistics_follow_the_samples(moved):
    network = EncoderASR.from_hparams(str(moved("ctc")), run_opts=CPU).mods.encoder.network
    normalize = network["normalize"]
    assert normalize.glob_mean.device.type == "cpu"
    outputs._normalised({"features": lambda x, lengths: (x, lengths), "normalize": normalize}, torch.zeros(1, 5, 40, device="meta"), None)
    assert normalize.glob_mean.device.type == normalize.glob_std.device.type == "meta"


def test_normalised_embeddings(host_of):
    for name in ("verify", "identify"):
        wavs = torch.randn(2, 4000)
        assert torch.equal(host_of(name).encode_batch(wavs, normalize=True), host_of(name).encode_batch(wavs))


@pytest.mark.parametrize("name", ["attention", "keywords", "verify"])
def test_the_proof_finds_other_weights(name, moved, tmp_path, capsys, reseal):
    folder = shutil.copytree(moved(name), tmp_path / "copy")
    assert proof.main([str(folder)]) == 0
    state = safetensors.torch.load_file(folder / "network.ckpt")
    key = HEARD[name]
    state[key] += 0.5 * torch.arange(state[key].numel()).view_as(state[key])
    safetensors.torch.save_file(state, folder / "network.ckpt")
    reseal(folder, lambda config: config["speechbrain"].update(listed(folder, "network.ckpt")))
    assert proof.main([str(folder)]) == 1
    assert "hyperparams.yaml: " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["attention", "ctc", "words", "speakers", "verify"])
def test_plain_data_stays_plain_in_yaml(kind, tmp_path):
    config = json.loads((tiny_bundles.write(tmp_path, kind) / "bundle.json").read_text())
    config |= {"model": "a\nb: !apply:os.system [exit]", "labels": ["yes", "no", "!apply:os.system", "null", "1e-05", "a: b", "# c"]}
    text = interfaces.hyperparams(config)
    tags = set(re.findall(r"!\w+:([\w.]+)", "".join(line for line in text.splitlines(True) if not line.startswith(("#", "    labels")))))
    assert tags and all(tag.startswith(("spikebrain.", "speechbrain.", "torch.nn.")) for tag in tags)
    if kind == "words":
        tree = ruamel.yaml.YAML().load(text)
        assert list(tree["label_encoder"]["labels"]) == config["labels"] and "b" not in tree


@pytest.mark.parametrize(
    "value",
    [
        1e-05,
        -1e20,
        2.5e-7,
        0.1,
        3.0,
        7,
        True,
        None,
        "no",
        "1e-05",
        "a: b",
        "“ü”\t",
        "a\x85 b",
        "\u2028 c",
        "\x7f",
        "\U0001f600",
        [1e-5, ["x"]],
        {"no": {"y": []}},
    ],
)
def test_values_are_read_alike_by_both_readers(value):
    text = f"key: {interfaces._value(value)}\n"
    assert ruamel.yaml.YAML(typ="safe").load(text) == yaml.safe_load(text) == hyperpyyaml.load_hyperpyyaml(text) == {"key": value}


def test_events_have_no_interface(run_of, tmp_path):
    with pytest.raises(BundleError, match="hears spikes of a cochlea, and SpeechBrain's interfaces audio"):
        bundle.make(run_of("events"), tmp_path / "out", speechbrain=True)
    assert not list(tmp_path.iterdir())


def test_the_card_says_how(moved):
    text = (moved("verify") / "README.md").read_text()
    assert "from speechbrain.inference.speaker import SpeakerRecognition" in text and 'verify_files("enrol.wav", "test.wav")' in text
    config = json.loads((moved("verify") / "bundle.json").read_text())
    assert f"threshold={config['decoding']['threshold']:.6g}" in (moved("verify") / "hyperparams.yaml").read_text()
    assert interfaces.interface(config) == "SpeakerRecognition"

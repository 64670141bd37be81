"""Loading believes nothing: every bad bundle is refused with one message, nothing is executed, and nothing large is allocated for it."""

import json
import os
import pickle
import re
import resource
import struct
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from proved import check_here

from spikebrain import registry
from spikebrain.lobes import FrameEncoder, LogMel, SpeakerEmbedding
from spikebrain.lobes.published import BINS
from spikebrain.publishing import BundleError, bundle, contents, hub, load, parts, proof

MEMORY = 300 * 2**20  # more than this is never allocated for a bad bundle


class Bomb:
    """A pickle that leaves a file where it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def refused(folder, said, check=False):
    """Loads a bundle that must be refused with ``said`` in one line, at once and without memory."""
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(BundleError, match=said) as caught:
        load(folder, check=check)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1200
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < MEMORY and time.monotonic() - began < 20
    return caught


@pytest.fixture
def keywords(copy_of):
    return copy_of("keywords")


def tensors_of(folder):
    """The weights of a bundle."""
    return safetensors.torch.load_file(folder / "model.safetensors")


def header_of(data):
    """(header, bytes of the tensors) of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header, body):
    """A safetensors file with a header as it is given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def put(path, value):
    """An edit of bundle.json: ``value`` at the keys ``path``."""

    def edit(config):
        node = config
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return edit


def arguments(**given):
    """An edit of bundle.json: arguments of the classifier."""
    return lambda config: config["network"]["classifier"]["arguments"].update(given)


@pytest.mark.parametrize("name", ["attention", "ctc", "keywords", "identify", "verify"])
def test_a_bundle_is_loaded_and_checked(name, bundle_of):
    folder, before = bundle_of(name), torch.random.get_rng_state()
    model = load(str(folder), check=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    config = json.loads((folder / "bundle.json").read_text())
    assert model.config == config and sum(p.numel() for p in model.network.parameters()) == config["parameters"]


# What is no bundle.


def test_what_is_no_bundle(tmp_path, keywords, monkeypatch):
    monkeypatch.setattr(hub, "download", lambda name: pytest.fail(f"asked the hub for {name}"))
    for name in (tmp_path / "nothing", "nothing", "a/../b", "a/b/c", ""):
        refused(name, "no such folder, and it is no owner/name on the hub" if name else "no such file")
    refused(keywords / "bundle.json", "is a file, and a bundle is a folder with bundle.json: pickles, checkpoints and archives are not")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "bundle.json: no such file: name a folder that tools/publish.py made")


def test_what_is_no_folder_is_asked_of_the_hub(monkeypatch, bundle_of):
    asked = []
    monkeypatch.setattr(hub, "download", lambda name: asked.append(name) or bundle_of("keywords"))
    assert load("somebody/keywords").task == "classify" and asked == ["somebody/keywords"]


@pytest.mark.parametrize("text", ["x: !apply:os.system ['touch {mark}']", "x: !!python/object/apply:os.system ['touch {mark}']"])
def test_yaml_is_not_read(text, tmp_path, keywords):
    mark = tmp_path / "mark"
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "hyperparams.yaml").write_text(text.format(mark=mark))
    refused(tmp_path / "yaml", "no such file; hyperparams.yaml is there, but YAML can name any code and is not loaded")
    (tmp_path / "yaml" / "bundle.json").write_text(text.format(mark=mark))
    refused(tmp_path / "yaml", "bundle.json: is no JSON that this version reads")
    (keywords / "hyperparams.yaml").write_text(text.format(mark=mark))  # beside a whole bundle it is not looked at
    load(keywords, check=True)
    assert not mark.exists()


def test_pickles_are_not_read(tmp_path, keywords, reseal):
    mark = tmp_path / "mark"
    for protocol in range(6):
        (keywords / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark), protocol))
        reseal(keywords)
        refused(keywords, "is a pickle, which can run code" if protocol > 1 else "says that its header has")
    torch.save({"classifier.head.weight": Bomb(mark)}, keywords / "model.safetensors")
    reseal(keywords)
    refused(keywords, "model.safetensors: is a pickle, which can run code when it is read: only safetensors are loaded")
    for name in ("model.safetensors", "proof.safetensors", "bundle.json"):
        (keywords / name).write_bytes(pickle.dumps(Bomb(mark)))
        refused(keywords, "bundle.json: is no JSON" if name == "bundle.json" else "model.safetensors: has .* bytes, bundle.json says")
    assert not mark.exists()


# Files.


LEAVING = ["../outside", "/etc/passwd", "a/../../outside", "..", "", "a\\..\\b", "a//b", "bundle.json", ".hidden", "x" * 300, "a\0b"]


@pytest.mark.parametrize("name", LEAVING)
def test_names_that_leave_the_folder(name, keywords, reseal):
    (keywords.parent / "outside").write_text("secret")
    reseal(keywords, put(["files", name], {"bytes": 6, "sha256": "0" * 64}))
    refused(keywords, "is no name of a file inside of the folder")


def test_links_that_leave_the_folder(keywords):
    for name in ("README.md", "model.safetensors", "bundle.json"):
        outside = keywords.parent / name
        (keywords / name).rename(outside)
        (keywords / name).symlink_to(outside)
        refused(keywords, f"{name}: is a symbolic link that leaves the folder: put the file itself there")
        (keywords / name).unlink()
        outside.rename(keywords / name)
    (keywords / "model.safetensors").rename(keywords / "inside")
    (keywords / "model.safetensors").symlink_to("inside")
    assert load(keywords).task == "classify"


def test_what_is_no_regular_file(keywords):
    (keywords / "README.md").unlink()
    os.mkfifo(keywords / "README.md")  # reading would wait for ever
    refused(keywords, "README.md: is no regular file")
    (keywords / "README.md").unlink()
    (keywords / "README.md").mkdir()
    refused(keywords, "README.md: is no regular file")
    (keywords / "README.md").rmdir()
    refused(keywords, "README.md: no such file: fetch the bundle again")


def test_a_file_that_is_cut_short_or_longer(keywords):
    for name in ("model.safetensors", "README.md", "results.json", "proof.safetensors"):
        whole = (keywords / name).read_bytes()
        (keywords / name).write_bytes(whole[:-1])
        refused(keywords, f"{name}: has {len(whole) - 1:,} bytes, bundle.json says {len(whole):,}: it is cut short")
        (keywords / name).write_bytes(whole + b"x")
        refused(keywords, f"{name}: has {len(whole) + 1:,} bytes, at most {len(whole):,} are read")
        (keywords / name).write_bytes(whole)
    (keywords / "bundle.json").write_bytes((keywords / "bundle.json").read_bytes()[:-20])
    refused(keywords, "bundle.json: is no JSON that this version reads")


# bundle.json.


@pytest.mark.parametrize(
    "text, said",
    [
        (b"[" * 10**6, "is no JSON .*nested too deeply"),
        (b'{"a": ' * 400 + b"1" + b"}" * 400, "format is None, expected a whole number"),
        (b"\xff\xfe", "is no JSON"),
        (b"", "is no JSON"),
        (b"[]", "is \\[\\], expected an object"),
        (b'{"format": 1, "format": 1}', "a name is given twice"),
        (b'{"format": NaN}', "NaN is no number of JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is no JSON"),
        (b'{"format": 1, "model": 1e999}', "was changed after it was made, its seal"),
        (b'{"format": 1, "model": "\\ud800"}', "was changed after it was made, its seal"),
        (b'{"format": 7}', "is of format 7, this version reads 1: update spikebrain"),
        (b'{"format": true}', "format is True, expected a whole number"),
        (b'{"format": 1}', "was changed after it was made, its seal"),
    ],
)
def test_what_no_bundle_json_is(text, said, keywords):
    (keywords / "bundle.json").write_bytes(text)
    refused(keywords, said)


def test_a_large_bundle_json(keywords):
    with open(keywords / "bundle.json", "ab") as file:
        file.truncate(40 * 10**9)  # a hole: nothing lies on the disk
    refused(keywords, r"bundle.json: has 40,000,000,000 bytes, at most 33,554,432 are read")


@pytest.mark.parametrize(
    "edit, said",
    [
        (put(["task"], "translate"), "task is 'translate', expected one of asr, classify, identify, verify"),
        (put(["task"], ["asr"]), r"task is \['asr'\], expected one of"),
        (put(["surprise"], 1), "has an unknown key 'surprise'"),
        (lambda c: c.pop("licence"), "lacks licence"),
        (put(["model"], "x" * 10**6), "model is 'xxx.*, expected a text of at most 200"),
        (put(["labels"], ["no", "one"]), "labels: 2, but its network has 3 classes"),
        (lambda c: c.pop("labels"), "labels: 0, but its network has 3 classes"),
        (put(["labels"], [1, 2, 3]), "labels is .*, expected a list of texts"),
        (put(["parameters"], 5), "parameters: 5, but its network has 6,128"),
        (put(["sample_rate"], 8000), "sample_rate: 8000, but its front end hears 16000"),
        (put(["sample_rate"], 15999), "sample_rate is 15999, expected one of 8000"),
        (put(["decoding"], {}), r"decoding: has \[\], classify needs \['pad', 'paper_padding', 'seconds'\]"),
        (put(["decoding", "seconds"], 1e300), "decoding/seconds is 1e\\+300, expected a number from"),
        (put(["files"], {}), "files: lacks model.safetensors, which a bundle for classify has"),
        (put(["files"], {f"f{n}": {"bytes": 0, "sha256": ""} for n in range(65)}), "files: names 65, at most 64 are read"),
        (put(["files", "README.md"], 5), "files: README.md: needs bytes and sha256"),
        (put(["files", "README.md", "bytes"], -1), "README.md: bytes is -1, expected a whole number"),
        (put(["files", "README.md", "bytes"], 10**15), "README.md: bytes is 1000000000000000, expected a whole number"),
        (put(["files", "proof.safetensors", "bytes"], 2**34), "proof.safetensors: is said to have 17,179,869,184 bytes, at most"),
        (put(["files", "model.safetensors", "bytes"], 2**34), "model.safetensors: is said to have 17,179,869,184 bytes, at most"),
    ],
)
def test_what_bundle_json_may_not_say(edit, said, keywords, reseal):
    reseal(keywords, edit)
    refused(keywords, said)


@pytest.mark.parametrize(
    "edit, said",
    [
        (put(["network"], []), "network is .*, expected an object"),
        (put(["network", "surprise"], {}), "has 'surprise', a network for classify has features, classifier"),
        (lambda c: c["network"].pop("features"), "lacks 'features'"),
        (put(["network", "classifier"], "SpikingClassifier"), "classifier is no part with its arguments"),
        (put(["network", "classifier", "part"], "os.system"), "part is 'os.system', expected one of SpikingClassifier"),
        (put(["network", "classifier", "part"], "spikebrain.lobes.SpikingClassifier"), "expected one of SpikingClassifier"),
        (put(["network", "classifier", "part"], "LogMel"), "part is 'LogMel', expected one of SpikingClassifier"),
        (put(["network", "features", "part"], "LogMel"), "part is 'LogMel', expected one of FrameRateMel, EventFrames"),
        (arguments(encodre="spikescr"), "SpikingClassifier takes no 'encodre'.*encoder"),
        (arguments(__class__="x"), "SpikingClassifier takes no '__class__'"),
        (arguments(encoder="spikesrc"), "cannot be built .ValueError: nothing is registered under 'spikesrc'.*spikescr"),
        (arguments(encoder="os.system"), "nothing is registered under 'os.system'"),
        (arguments(encoder="lif"), "a layer of neurons: name an encoder"),
        (arguments(classes=-1), "classes is -1, expected a whole number from 1 to 1048576"),
        (arguments(classes=True), "classes is True, expected a whole number"),
        (arguments(classes=3.0), "classes is 3.0, expected a whole number"),
        (arguments(classes="3"), "classes is '3', expected a whole number"),
        (arguments(classes=2**20), "but its network has"),
        (arguments(classes=10**12), "classes is 1000000000000, expected a whole number from 1 to 1048576"),
        (arguments(encoder_kwargs={"num_layers": 257}), "such a num_layers"),
        (arguments(encoder_kwargs={"num_layers": 10**9}), "such a num_layers"),
        (arguments(encoder_kwargs={"d_model": 2**15}), "such a d_model"),
        (arguments(encoder_kwargs={"d_model": {"a": 1}}), "such a d_model"),
        (arguments(encoder_kwargs={"d_model": "x" * 65}), "such a d_model"),
        (arguments(encoder_kwargs={"lambda: 0": 1}), "names of arguments, not 'lambda: 0'"),
        (arguments(encoder_kwargs={"surprise": 1}), "cannot be built .TypeError"),
        (arguments(encoder_kwargs={"dropout": "high"}), "cannot be built|the network needs|but its network has"),
        (
            arguments(encoder="iml_spikeformer", encoder_kwargs={"num_layers": 256, "d_model": 2**14, "nhead": 2}),
            "the network has .* weights, at most 2,147,483,648 are loaded",
        ),
        (arguments(input_size=41), "input_size is 41, what comes before gives 40|but its network has"),
        (put(["network", "features", "arguments", "n_mels"], 41), "input_size is 40, what comes before gives 41"),
        (put(["network", "features", "arguments", "frames"], 7), "cannot be built .ValueError: frames: 7 a second do not divide"),
    ],
)
def test_what_no_network_is(edit, said, keywords, reseal):
    reseal(keywords, edit)
    refused(keywords, said)


CARD = {"subtract_mean": "none", "score_norm": "none"}


def test_a_bundle_of_another_task(copy_of, reseal):
    folder = copy_of("keywords")
    reseal(folder, put(["task"], "verify"))
    refused(folder, r"decoding: has \['pad', 'paper_padding', 'seconds'\], verify needs \['score_norm', 'subtract_mean', 'threshold',")
    reseal(folder, lambda config: config.update(decoding={"threshold": None, "threshold_of": None, **CARD}))
    refused(folder, "network has 'classifier', a network for verify has features, normalize, embedding_model: it is that of another task")
    folder = copy_of("identify")
    reseal(folder, lambda config: config.update(task="verify", decoding={"threshold": 0.1, "threshold_of": "x", **CARD}))
    refused(folder, "network has 'classifier', a network for verify has")


@pytest.mark.parametrize(
    "edit, said",
    [
        (put(["network", "Transformer", "arguments", "input_size"], 7), "input_size is 7, what comes before gives"),
        (put(["network", "ctc_lin", "arguments", "n_neurons"], 41), "ctc_lin/arguments/n_neurons is 41, what comes before gives 40"),
        (put(["network", "Transformer", "arguments", "num_decoder_layers"], 0), "network has a seq_lin, but 0 decoder layers"),
        (lambda c: c["network"].pop("seq_lin"), "network lacks seq_lin, but 1 decoder layers"),
        (put(["network", "Transformer", "arguments", "tgt_vocab"], 2**20 + 1), "tgt_vocab is 1048577, expected a whole number"),
        (lambda c: c["network"]["Transformer"]["arguments"].pop("d_model"), "SpikingTransformerASR needs d_model"),
        (put(["network", "Transformer", "arguments", "activation"], "os.system"), "activation is 'os.system', expected one of relu, gelu"),
        (put(["network", "Transformer", "arguments", "encoder_module"], "subprocess.run"), "nothing is registered under 'subprocess.run'"),
        (put(["files", "tokens.json"], None), "files: tokens.json: needs bytes and sha256"),
        (lambda c: c["files"].pop("tokens.json"), "files: lacks tokens.json, which a bundle for asr has"),
    ],
)
def test_what_no_recogniser_is(edit, said, copy_of, reseal):
    folder = copy_of("attention")
    reseal(folder, edit)
    refused(folder, said)


@pytest.mark.parametrize(
    "text, said",
    [("[]", "needs pieces, a list of texts"), ('{"pieces": [1]}', "needs pieces"), ('{"pieces": ["a"], "code": 1}', "needs pieces"),
     (json.dumps({"pieces": ["a"] * 41}), "has 41 pieces, the network 40 outputs"), ("{", "tokens.json: is no JSON")],
)  # fmt: skip
def test_what_no_pieces_are(text, said, copy_of, reseal):
    folder = copy_of("attention")
    (folder / "tokens.json").write_text(text)
    reseal(folder)
    refused(folder, said)


# model.safetensors.


def change(name, value):
    """An edit of tensors."""
    return lambda state: {**state, name: value}


HEAD = "classifier.head.weight"


@pytest.mark.parametrize(
    "edit, said",
    [
        (lambda state: {k: v for k, v in state.items() if k != HEAD}, f"lacks 1 tensors, the first is '{HEAD}'"),
        (change("surprise", torch.zeros(1)), "has 1 tensors, the first is 'surprise', of which the network has nothing"),
        (change(HEAD, torch.zeros(4, 16)), r"is torch.float32 of shape \(4, 16\), the network needs torch.float32 of \(3, 16\)"),
        (change(HEAD, torch.zeros(16, 3)), r"of shape \(16, 3\), the network needs"),
        (change(HEAD, torch.zeros(3, 16, dtype=torch.float64)), "is torch.float64 of shape"),
        (change(HEAD, torch.zeros(3, 16, dtype=torch.float16)), "is torch.float16 of shape"),
        (change(HEAD, torch.zeros(3, 16, dtype=torch.int32)), "is torch.int32 of shape"),
        (change(HEAD, torch.full((3, 16), float("nan"))), f"{HEAD} holds 48 NaN or infinite values of 48"),
        (change(HEAD, torch.full((3, 16), float("inf"))), f"{HEAD} holds 48 NaN or infinite values of 48"),
    ],
)
def test_what_no_weights_are(edit, said, keywords, reseal):
    safetensors.torch.save_file(edit(tensors_of(keywords)), keywords / "model.safetensors")
    reseal(keywords)
    refused(keywords, said)


def test_what_no_header_is(keywords, reseal):
    file = keywords / "model.safetensors"
    header, body = header_of(file.read_bytes())
    first, entry = next((name, node) for name, node in header.items() if name != "__metadata__")

    def bad(**changes):
        return with_header({**header, first: {**entry, **changes}}, body)

    start, stop = entry["data_offsets"]
    cases = {
        struct.pack("<Q", 40 * 10**9) + b"{}": "says that its header has 40,000,000,000 bytes, at most 16,777,216",
        struct.pack("<Q", 2**64 - 1): "says that its header has 18,446,744,073,709,551,615 bytes",
        b"": "says that its header has 0 bytes",
        b"\x01": "says that its header has 1 bytes",
        with_header(b"[" * 10000, b""): "nested too deeply",
        with_header(b"[]", b""): "its header is \\[\\], expected an object",
        with_header(b'{"a": 1}', b""): "says of 'a' what is no tensor",
        bad(dtype="F99"): "what is no tensor that we load",
        bad(dtype=["F32"]): "what is no tensor that we load",
        bad(shape=[2**62, 2**62]): "what is no tensor that we load",
        bad(shape=[2**34, 2**34]): "its shape \\[17179869184, 17179869184\\] needs",
        bad(shape=[-1]): "what is no tensor that we load",
        bad(shape=[1] * 9): "what is no tensor that we load",
        bad(data_offsets=[stop, start]): "bytes, its shape",
        bad(data_offsets=[start + 4, stop + 4]): "begins at byte",
        bad(data_offsets=[start]): "what is no tensor that we load",
        with_header(header, body + b"xxxx"): "bytes of tensors, .* are there",
        with_header(header, body[:-4]): "bytes of tensors, .* are there",
    }
    for data, said in cases.items():
        file.write_bytes(data)
        reseal(keywords)
        refused(keywords, said)


def test_a_normaliser_without_its_statistics(copy_of, reseal):
    folder = copy_of("ctc")
    state = tensors_of(folder)
    assert state["normalize.glob_mean"].shape == (40,) and int(state["normalize.count"]) > 0
    assert load(folder).network["normalize"].count == int(state["normalize.count"])
    safetensors.torch.save_file({k: v for k, v in state.items() if not k.startswith("normalize.")}, folder / "model.safetensors")
    reseal(folder)
    refused(folder, "lacks 3 tensors, the first is 'normalize.count'")


# proof.safetensors.


def test_outputs_that_are_not_those_stored(keywords, reseal):
    state = tensors_of(keywords)
    state[HEAD][0] += 1e-4
    safetensors.torch.save_file(state, keywords / "model.safetensors")
    reseal(keywords)
    load(keywords)  # a whole and sealed bundle of another network
    refused(keywords, r"proof.safetensors: output.votes: the network's are up to .* away from those stored", check=True)


@pytest.mark.parametrize(
    "edit, said",
    [
        (lambda s: {}, "needs input.wavs and input.lengths"),
        (change("input.wavs", torch.zeros(2, 16000, dtype=torch.float64)), "needs input.wavs and input.lengths in float32"),
        (change("input.wavs", torch.zeros(5, 16000)), r"of shape \(5, 16000\) and \(2,\), expected up to 4 utterances of up to 10 s"),
        (change("input.wavs", torch.zeros(2, 160_001)), r"of shape \(2, 160001\)"),
        (change("input.wavs", torch.zeros(2, 0)), r"of shape \(2, 0\)"),
        (change("input.wavs", torch.zeros(2, 16, 16)), r"of shape \(2, 16, 16\)"),
        (change("input.lengths", torch.tensor([1.0, 7.0])), "the network cannot be run .ValueError: lengths go from"),
        (change("output.more", torch.zeros(1)), r"holds \['output.more', 'output.votes'\], the network gives \['output.votes'\]"),
        (change("output.votes", torch.zeros(2, 3)), r"output.votes is torch.float32 of \(2, 3\), the network gives torch.float64"),
        (change("output.votes", torch.full((2, 3), float("nan"), dtype=torch.float64)), "up to nan away"),
    ],
)
def test_what_no_proof_is(edit, said, keywords, reseal):
    stored = safetensors.torch.load_file(keywords / "proof.safetensors")
    (keywords / "proof.safetensors").write_bytes(safetensors.torch.save(edit(stored)))
    reseal(keywords)
    refused(keywords, said, check=True)


def test_a_bundle_without_a_proof(keywords, reseal):
    (keywords / "proof.safetensors").unlink()
    config = contents.parse((keywords / "bundle.json").read_bytes(), "bundle.json")
    del config["files"]["proof.safetensors"]
    (keywords / "bundle.json").write_bytes(contents.seal(config))
    load(keywords)
    refused(keywords, "proof.safetensors: no such file: load the bundle without check, or make it anew", check=True)


# Formats.


@pytest.fixture
def older(monkeypatch):
    """A made-up format 0: other names of a key, of a nested one, and of the beginning of tensors."""
    names = {"bundle.json/words": "bundle.json/labels", "bundle.json/decoding/length": "bundle.json/decoding/seconds"}
    names["model.safetensors/net."] = "model.safetensors/classifier."
    monkeypatch.setattr(contents, "KEYS", {0: names, 1: {}})


def make_old(folder, reseal):
    """Makes a bundle of that format of one of today's."""
    state = {re.sub("^classifier[.]", "net.", name): value for name, value in tensors_of(folder).items()}
    safetensors.torch.save_file(state, folder / "model.safetensors")

    def edit(config):
        config["format"], config["words"] = 0, config.pop("labels")
        config["decoding"]["length"] = config["decoding"].pop("seconds")

    reseal(folder, edit)


def test_an_older_format_is_loaded(older, keywords, reseal, model_of):
    make_old(keywords, reseal)
    model = load(keywords, check=True)
    assert model.labels == ("no", "one", "yes") and model.decoding == model_of("keywords").decoding and model.config["format"] == 0
    ours, theirs = model.network.state_dict(), model_of("keywords").network.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_name_that_is_there_twice(older, keywords, reseal):
    make_old(keywords, reseal)
    reseal(keywords, put(["labels"], ["a", "b", "c"]))
    refused(keywords, "has labels under its old and its new name")
    state = tensors_of(keywords)
    safetensors.torch.save_file({**state, HEAD: state["net.head.weight"].clone()}, keywords / "model.safetensors")
    reseal(keywords, lambda config: config.pop("labels"))
    refused(keywords, "has names that begin with net. and classifier., old and new")


def test_without_its_table_an_older_format_is_refused(keywords, reseal):
    make_old(keywords, reseal)
    refused(keywords, "is of format 0, this version reads 1: update spikebrain")
    assert contents.KEYS[contents.FORMAT] == {}


# Parts and sizes.


LARGE = {"classes": 2**20, "n_neurons": 2**20, "out_features": 2**20, "out_neurons": 2**20, "input_size": 2**14, "in_features": 2**14}


@pytest.mark.parametrize("name", ["SpeakerCosines", "SpeakerLogits", "Linear"])
def test_the_largest_numbers_allocate_nothing(name):
    known = parts.PARTS[name].arguments
    node = {"part": name, "arguments": {key: value for key, value in LARGE.items() if key in known}}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = parts.build({"part": node}, "network", shapes=True)
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}
    with pytest.raises(BundleError, match="weights, at most 2,147,483,648 are loaded"):
        parts.check_size(network, "network")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def layered():
    """Registered encoders that a SpeakerEmbedding takes, small."""
    found = []
    for entry in registry.entries():
        if entry.kind in ("encoder", "ann") and getattr(FrameEncoder(20, entry.name, _small(entry.name)).model, "layers", None):
            found.append(entry.name)
    return found


def _small(name):
    size = {"num_layers": 2, "d_model": 16}
    if name.startswith(("iml", "spike", "vgg")):
        size |= {"nhead": 2}
    if name.startswith(("iml", "spike_driven", "lif_mlp", "vgg", "gsu")):
        size |= {"d_ffn": 32}
    return size


def test_joined_embeddings_have_the_shapes_that_were_foretold():
    names = layered()
    assert {"iml_spikeformer", "iml_spikeformer_twin", "spike_driven_transformer"} <= set(names)
    for name in names:
        for subsampling in (4, None) if name == "iml_spikeformer" else (None,):
            arguments = {"input_size": 20, "embedding_size": 6, "encoder": name, "encoder_kwargs": _small(name), "subsampling": subsampling}
            foretold = parts.build({"e": {"part": "SpeakerEmbedding", "arguments": arguments}}, "network", shapes=True)["e"].state_dict()
            real = SpeakerEmbedding(**arguments).state_dict()
            assert {k: (v.shape, v.dtype) for k, v in foretold.items()} == {k: (v.shape, v.dtype) for k, v in real.items()}, name


def test_a_front_end_has_no_weights():
    mel = parts.build({"features": {"part": "LogMel", "arguments": {}}}, "network")["features"]
    assert isinstance(mel, LogMel) and list(mel.parameters()) == [] and parts.state_of({"features": mel}) == {}


def size_of(name, shrunk):
    """``network`` of a bundle.json around a registered size."""
    entry = registry.entry(name)
    kwargs = {**entry.as_published, **({"num_layers": 1} if shrunk else {})}
    if entry.classes:
        channels = 768 if name.startswith("pts") else BINS
        arguments = {"input_size": channels, "classes": entry.classes, "encoder": name, "encoder_kwargs": kwargs}
        spikes = {"part": "EventFrames", "arguments": {"frames": 50, "channels": channels}}
        return "classify", {"features": spikes, "classifier": {"part": "SpikingClassifier", "arguments": arguments}}
    with torch.device("meta"):
        config = entry.constructor(**kwargs).config
    mel, norm = {"part": "LogMel", "arguments": {"n_mels": 40}}, {"part": "UtteranceNormalization", "arguments": {}}
    if "voxceleb" in name:
        arguments = {"input_size": 40, "encoder": name, "encoder_kwargs": kwargs}
        return "verify", {"features": mel, "normalize": norm, "embedding_model": {"part": "PooledEmbedding", "arguments": arguments}}
    layers = kwargs.pop("num_layers", config.num_layers)
    channels = 8 if shrunk else config.d_model
    front = {"part": "Subsampling", "arguments": {"subsampling": 4, "channels": channels, "n_mels": 40}}
    transformer = {
        "tgt_vocab": 30, "input_size": channels * 9, "d_model": config.d_model, "nhead": config.nhead, "num_encoder_layers": layers,
        "num_decoder_layers": 1, "d_ffn": config.d_ffn, "encoder_module": name, "encoder_kwargs": kwargs, "normalize_before": True,
    }  # fmt: skip
    head = {"part": "Linear", "arguments": {"input_size": config.d_model, "n_neurons": 30}}
    body = {"part": "SpikingTransformerASR", "arguments": transformer}
    return "asr", {"features": mel, "normalize": norm, "frontend": front, "Transformer": body, "ctc_lin": head, "seq_lin": head}


def check_round_trip(task, described, place, like):
    """Law 7: a network with weights at random as a bundle and back: the same bits, the same outputs. ``like`` is a Model of its task."""
    network = parts.build(described, "network")
    config = {key: value for key, value in like.config.items() if key not in ("format", "files", "seal", "labels")}
    rate = getattr(network["features"], "sample_rate", None)
    config |= {"network": described, "sample_rate": rate, "parameters": sum(p.numel() for p in network.parameters())}
    if task == "classify":
        config["labels"] = [f"class {number}" for number in range(described["classifier"]["arguments"]["classes"])]
    pieces = tuple("abcdefghij") if task == "asr" else None
    model = type(like)(config, network, pieces)
    files = {"model.safetensors": safetensors.torch.save(parts.state_of(network)), "proof.safetensors": proof.make(model)}
    if pieces:
        files["tokens.json"] = json.dumps({"pieces": pieces}).encode()
    bundle.write(place, config, files)
    loaded = load(place)
    ours, theirs = model.network.state_dict(), loaded.network.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    wavs, lengths = proof.made_input(model)
    outputs, again = model.outputs(wavs, lengths), loaded.outputs(wavs, lengths)
    assert all(torch.equal(outputs[key], again[key]) for key in outputs)
    return loaded


LIKE = {"classify": "keywords", "verify": "verify", "asr": "attention"}  # a run of each task
SIZES = [entry.name for entry in registry.entries("size")]


@pytest.fixture
def proved_here(monkeypatch):
    """A fresh process for each size would take four seconds to import SpeechBrain."""
    monkeypatch.setattr(proof, "check_afresh", check_here)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SIZES)
def test_every_published_size_comes_back(name, proved_here, tmp_path, model_of):
    task, described = size_of(name, shrunk=True)
    check_round_trip(task, described, tmp_path / "out", model_of(LIKE[task]))


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SIZES)
def test_every_published_size_comes_back_whole(name, proved_here, tmp_path, model_of):
    task, described = size_of(name, shrunk=False)
    loaded = check_round_trip(task, described, tmp_path / "out", model_of(LIKE[task]))
    part = loaded.network[{"classify": "classifier", "verify": "embedding_model", "asr": "Transformer"}[task]]
    found = sum(p.numel() for p in part.encoder.model.parameters())
    published = registry.entry(name).parameters
    assert found == published or (name == "pts_snn_iemocap" and found < published)  # whose number counts a readout


RECOGNISERS = {
    "transformer": {"encoder_module": "transformer", "num_encoder_layers": 1},
    "conformer": {"encoder_module": "conformer", "num_encoder_layers": 1, "kernel_size": 3, "activation": "swish"},
    "vgg_bilstm": {"encoder_module": "vgg_bilstm", "num_encoder_layers": 1, "projection": False},
    "gsu": {"encoder_module": "gsu", "num_encoder_layers": 2, "projection": False},
    "lif_mlp": {"encoder_module": "lif_mlp", "num_encoder_layers": 1},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RECOGNISERS)
def test_recognisers_of_other_kinds_come_back(name, proved_here, tmp_path, model_of):
    task, described = size_of("iml_spikeformer_aishell_12", shrunk=True)
    vgg = name == "vgg_bilstm"
    described["frontend"]["arguments"] |= {"subsampling": "vgg" if vgg else 4}
    changes = {"d_model": 16, "nhead": 2, "d_ffn": 32, "encoder_kwargs": {}, "input_size": 40 if vgg else 72, **RECOGNISERS[name]}
    described["Transformer"]["arguments"] |= changes
    for head in ("ctc_lin", "seq_lin"):
        described[head]["arguments"]["input_size"] = 16
    check_round_trip(task, described, tmp_path / "out", model_of("attention"))


def test_parts_name_the_defaults_of_their_constructors(bundle_of):
    config = json.loads((Path(bundle_of("attention")) / "bundle.json").read_text())
    assert config["network"]["features"]["arguments"]["win_length"] == 25  # a default that no YAML names

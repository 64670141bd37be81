"""A bundle as SpeechBrain's own interfaces load it: ``hyperparams.yaml`` and ``.ckpt`` files beside ``bundle.json``.

    EncoderDecoderASR       recognisers with a decoder
    EncoderASR              recognisers with CTC alone
    EncoderClassifier       keywords, and speakers by name
    SpeakerRecognition      verification

``network.ckpt`` is ``model.safetensors`` under the name that the interfaces look for, no pickle; ``tokenizer.ckpt`` is a SentencePiece
model. The folder works from wherever it is moved to. YAML can name any code, and these interfaces run what it names, so that
:func:`spikebrain.load` reads none of the three; ``bundle.json`` holds their hashes.
"""

import importlib
import inspect
import json
import re

import torch

from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.publishing import contents, outputs, parts, use
from spikebrain.publishing.contents import CONFIG, HOST_WEIGHTS, TOKENIZER, YAML
from spikebrain.publishing.parts import ACTIVATIONS, PARTS, BundleError

COSINE = 1e-5  # how far SpeechBrain's cosine, of float32, may be from ours
_HOST = "spikebrain.publishing.host"
# Arguments that bundle.json names by a word and a constructor takes as a class: part -> argument -> word -> YAML.
_TAGGED = {
    "SpikingTransformerASR": {"activation": {word: f"!name:{kind.__module__}.{kind.__qualname__}" for word, kind in ACTIVATIONS.items()}}
}
_UNPRINTED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")  # YAML breaks lines at some of them, and refuses others
_MODULES = {"asr": "ASR", "classify": "classifiers", "identify": "classifiers", "verify": "speaker"}


def interface(config):
    """The name of SpeechBrain's interface for a bundle, from its ``bundle.json``; BundleError where it has none."""
    if config["sample_rate"] is None:
        raise BundleError(f"speechbrain: {config['model']} hears spikes of a cochlea, and SpeechBrain's interfaces audio: leave it out")
    if config["task"] == "asr":
        return "EncoderDecoderASR" if "seq_lin" in config["network"] else "EncoderASR"
    return "SpeakerRecognition" if config["task"] == "verify" else "EncoderClassifier"


def imported(config):
    """The line of Python that imports :func:`interface`."""
    return f"from speechbrain.inference.{_MODULES[config['task']]} import {interface(config)}"


def files(config, weights, tokenizer=None):
    """What SpeechBrain reads: name -> bytes.

    Arguments
    ---------
    config : dict
        Of ``bundle.json``.
    weights : bytes
        Of its ``model.safetensors``.
    tokenizer : SentencePieceProcessor, optional
        Of a recogniser.

    Raises
    ------
    BundleError
        For a network that hears no audio.
    """
    made = {YAML: hyperparams(config).encode(), HOST_WEIGHTS: weights}
    return made | ({TOKENIZER: tokenizer.serialized_model_proto()} if config["task"] == "asr" else {})


def hyperparams(config):
    """The text of ``hyperparams.yaml``: every part as ``bundle.json`` names it, and the faces of :mod:`spikebrain.publishing.host`."""
    name, network = interface(config), config["network"]
    about = " ".join(f"{config['model']} on {config['corpus']}".split())  # one line, whatever they are called
    lines = [
        f"# {about}, made of the bundle.json beside it:",
        f"#     {imported(config)}",
        f'#     model = {name}.from_hparams("this folder, wherever it is")',
        "# A YAML file can name any code, and SpeechBrain runs what it names: load folders of people whom you trust.",
        "# spikebrain.load reads bundle.json instead, which names none.",
        "",
    ]
    for part, node in network.items():
        lines += [*_part(part, node), ""]
    lines += [f"network: !new:{_HOST}.Network", "    modules:", *(f"        {part}: !ref <{part}>" for part in network), ""]
    lines += _FACES[name](config)
    lines += [f"sample_rate: {config['sample_rate']}", "audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer"]
    lines += ["    sample_rate: !ref <sample_rate>", ""]
    loadables = ["network", *(["tokenizer"] if config["task"] == "asr" else [])]
    lines += ["pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer", "    loadables:"]
    return "\n".join([*lines, *(f"        {one}: !ref <{one}>" for one in loadables)]) + "\n"


def _part(name, node):
    part, arguments = PARTS[node["part"]], parts.with_defaults(node)
    path = part.paths[0] if part.paths else f"{part.constructor.__module__}.{part.constructor.__qualname__}"
    module, _, attribute = path.rpartition(".")
    kind = "new" if inspect.isclass(getattr(importlib.import_module(module), attribute)) else "apply"
    tagged = {key: words[arguments[key]] for key, words in _TAGGED.get(node["part"], {}).items()}
    written = {key: tagged.get(key) or _value(value) for key, value in arguments.items()}
    return [f"{name}: !{kind}:{path}", *(f"    {key}: {value}" for key, value in written.items())]


def _value(value):
    """A plain value in one line, which both versions of YAML that HyperPyYAML's readers know read alike: JSON, but for 1e-05."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "." not in text:
        return text.replace("e", ".0e")
    return _UNPRINTED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _face(name, **arguments):
    return [f"!new:{_HOST}.{name}", *(f"    {key}: {value}" for key, value in arguments.items())]


def _named(name, lines):
    return [f"{name}: {lines[0]}", *lines[1:], ""]


def _modules(*names):
    return ["modules:", *(f"    {name}: !ref <{name}>" for name in names), ""]


def _recogniser(**arguments):
    encoder = _named("encoder", _face("Encoder", network="!ref <network>", **arguments))
    return [*encoder, f"tokenizer: !new:{_HOST}.Tokenizer", ""]


def _encoder_decoder(config):
    said = ("test_beam_size", "ctc_weight_decode", "temperature", "max_decode_ratio")
    numbers = {key: _value(config["decoding"][key]) for key in said}
    decoder = _named("decoder", _face("Decoder", network="!ref <network>", **numbers))
    return [*_recogniser(), *decoder, *_modules("encoder", "decoder")]


def _encoder_ctc(config):
    decoding = [f"decoding_function: !name:{_HOST}.best_path", f"    blank_id: {tokens.BLANK}", ""]
    return [*_recogniser(ctc="True"), *decoding, *_modules("encoder")]


def _embedding(config):
    """The embedding model and the parts beside it that pass on what they get."""
    if config["task"] == "classify":
        given = {key: _value(config["decoding"][key]) for key in ("seconds", "pad", "paper_padding")}
        made = _named("embedding_of_samples", _face("Votes", network="!ref <network>", **given))
    else:
        made = _named("embedding_of_samples", _face("Embedding", network="!ref <network>"))
    return [*made, *_named("unchanged", _face("Unchanged")), "mean_var_norm_emb: !ref <unchanged>", ""]


def _classifier(config):
    last = "unchanged" if config["task"] == "classify" else "classifier"
    labels = _named("label_encoder", _face("Labels", labels=_value(config["labels"])))
    return [*_embedding(config), *labels, *_wired(classifier=last)]


def _speaker(config):
    threshold, said = config["decoding"]["threshold"], []
    if threshold is not None:
        said = [f"# Scores above {threshold:.6g} are of one speaker: verify_batch(..., threshold={threshold:.6g})", ""]
    return [*said, *_embedding(config), *_wired(mean_var_norm_emb="unchanged")]


def _wired(**last):
    wired = {"compute_features": "unchanged", "mean_var_norm": "unchanged", "embedding_model": "embedding_of_samples", **last}
    return ["modules:", *(f"    {name}: !ref <{part}>" for name, part in wired.items()), ""]


_FACES = {
    "EncoderDecoderASR": _encoder_decoder,
    "EncoderASR": _encoder_ctc,
    "EncoderClassifier": _classifier,
    "SpeakerRecognition": _speaker,
}


def opened(folder, config):
    """The folder through its own interface of SpeechBrain, on the CPU. This runs what ``hyperparams.yaml`` names."""
    module = importlib.import_module(f"speechbrain.inference.{_MODULES[config['task']]}")
    return getattr(module, interface(config)).from_hparams(str(folder), run_opts={"device": "cpu"})


def check(folder, model, wavs, lengths):
    """Asks SpeechBrain's interface and the Model of the same bundle about the same utterances, one by one.

    Arguments
    ---------
    folder : Path
    model : Model
    wavs : Tensor (B, S)
    lengths : Tensor (B,)

    Raises
    ------
    BundleError
        A file is not as ``bundle.json`` says, ``hyperparams.yaml`` is not the one that :func:`hyperparams` writes (which runs nothing but
        parts of this package and of SpeechBrain), their outputs are not the same bits, or their answers not the same.
    """
    contents.check_host(folder, model.config)
    if (folder / YAML).read_bytes() != hyperparams(model.config).encode():
        raise BundleError(f"{folder / YAML}: is not what this version makes of {CONFIG}, and is not run: publish the run again")
    name, host = interface(model.config), opened(folder, model.config)
    counts = frames.absolute(lengths, wavs).tolist()
    clips = [wav[None, :count] for wav, count in zip(wavs, counts, strict=True)]
    for clip in clips:
        theirs, ours = _ASKED[model.task](host, clip), _said(model, clip)
        if not (torch.equal(theirs[0], ours[0]) and theirs[1] == ours[1]):
            away = float((theirs[0] - ours[0]).abs().max()) if theirs[0].shape == ours[0].shape else theirs[0].shape
            raise BundleError(f"{folder / YAML}: {name} says {theirs[1]!r}, and {ours[1]!r} is right; its outputs differ by {away}")
    if model.task == "verify":
        theirs, ours = float(host.verify_batch(clips[0], clips[-1])[0]), use.verify(model, clips[0][0], clips[-1][0]).score
        if not abs(theirs - ours) < COSINE:
            raise BundleError(f"{folder / YAML}: {name} scores two utterances {theirs}, and {ours} is right")


def _heard(host, clip):
    """(outputs, text) of a recogniser."""
    whole = torch.ones(1)
    return host.encode_batch(clip, whole), host.transcribe_batch(clip, whole)[0][0]


def _classified(host, clip):
    """(outputs, label) of a classifier."""
    found, _, _, (label,) = host.classify_batch(clip)
    return found, label


# task -> what asks an interface about a clip (1, S).
_ASKED = {
    "asr": _heard,
    "classify": _classified,
    "identify": _classified,
    "verify": lambda host, clip: (host.encode_batch(clip)[:, 0], None),
}


def _said(model, clip):
    """The same of a Model."""
    if model.task == "asr":
        return model.outputs(clip)["encoded" if "seq_lin" in model.network else "ctc"], use.transcribe(model, clip[0])
    if model.task == "verify":
        found = model.outputs(clip)["embedding"]
        return found if model.centre is None else found - model.centre, None
    label = use.classify(model, clip[0]).label
    if model.task == "identify":
        return model.outputs(clip)["logits"], label
    seconds = model.decoding["seconds"]
    size = None if seconds is None else round(seconds * model.sample_rate)
    votes = model.outputs(outputs.cut(clip, torch.tensor([clip.shape[1]]), size, model.decoding["pad"])[0])["votes"]
    return outputs.shares(votes).log(), label

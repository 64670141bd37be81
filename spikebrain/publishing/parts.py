"""What a published network may be made of: an explicit list of parts, and for each the arguments that ``bundle.json`` may give it.

    "classifier": {"part": "SpikingClassifier", "arguments": {"input_size": 40, "classes": 10, "encoder": "spikescr", "encoder_kwargs": {}}}

A bundle names no import path. It names a part of this list, whose arguments are plain data inside of bounds, so that whatever a file says,
what is built is ours and of a size that can be known before it is allocated.
"""

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier as CosineClassifier
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.linear import Linear
from speechbrain.processing.features import InputNormalization
from torch import nn

from spikebrain.blocks import subsampling
from spikebrain.frontend.normalisation import UtteranceNormalization
from spikebrain.lobes import LogMel, SpeakerEmbedding, SpikingClassifier, SpikingEmbedding, SpikingTransformerASR
from spikebrain.lobes.features import EventFrames, FrameRateMel
from spikebrain.lobes.framewise import FrameEncoder
from spikebrain.lobes.pooled import PooledEmbedding
from spikebrain.lobes.speaker import AttentiveStatisticsPooling, UtteranceNorm, layer_outputs
from spikebrain.spelling import did_you_mean

LAYERS, WIDTH, VOCABULARY, PARAMETERS = 256, 2**14, 2**20, 2**31
JOINED = 2**25  # weights of an encoder that is run to find what its blocks give
UNSAVED = 2**26  # elements of buffers that are made and not loaded
WORD = 64  # letters of an argument's name, or of a word that it may be
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz; resampling from any to any other is cheap
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "swish": Swish}
FRONT_END = "features"
CENTRE = "centre"  # of verify: a tensor beside the weights of the parts
STATISTICS = ("glob_mean", "glob_std", "count")  # of SpeechBrain's InputNormalization, which keeps them beside its state


class BundleError(ValueError):
    """A bundle cannot be made, loaded or used; the message names the file or key, the numbers and the repair."""


def whole(low, high):
    """Checks for an int from ``low`` to ``high``: a function from a value to None, or to what was expected instead."""
    expected = f"a whole number from {low} to {high}"
    return lambda value: None if type(value) is int and low <= value <= high else expected


def real(low, high):
    """As :func:`whole`, for a finite number."""
    expected = f"a number from {low:g} to {high:g}"
    return lambda value: None if type(value) in (int, float) and math.isfinite(value) and low <= value <= high else expected


def one_of(*words):
    """As :func:`whole`, for one of ``words``, which may be numbers."""
    expected = f"one of {', '.join(map(str, words))}"
    return lambda value: None if any(type(value) is type(word) and value == word for word in words) else expected


def optional(check):
    """As ``check``, or None."""
    return lambda value: None if value is None else check(value)


def flag(value):
    """As what :func:`whole` gives, for a bool."""
    return None if type(value) is bool else "true or false"


def text(most):
    """As :func:`whole`, for a str of ``most`` characters or fewer."""
    expected = f"a text of at most {most} characters"
    return lambda value: None if type(value) is str and len(value) <= most else expected


def options(value):
    """As what :func:`whole` gives, for the arguments of a registered encoder: names, and plain values or short lists of them."""
    if type(value) is not dict or len(value) > WORD:
        return f"an object of at most {WORD} arguments"
    for name, given in value.items():
        if not (name.isidentifier() and len(name) <= WORD):
            return f"names of arguments, not {name[:WORD]!r}"
        values = given if type(given) is list and len(given) <= WORD else [given]
        if not all(_plain(name, one) for one in values):
            return f"plain values: numbers up to {WIDTH}, of layers up to {LAYERS}, words, true, false or null, not such a {name}"
    return None


def _plain(name, value):
    most = LAYERS if "layers" in name else WIDTH
    return value is None or flag(value) is None or real(-most, most)(value) is None or text(WORD)(value) is None


@dataclass(frozen=True)
class Part:
    """A part that a network may have.

    constructor : builds it
    arguments : name -> check, see :func:`whole`
    paths : dotted names under which a recipe's YAML builds it
    needed : arguments that must be given, beside those that the constructor insists on
    shapes : builds something of the same state on the meta device; by default the constructor
    saved : whether it has weights
    """

    constructor: Callable
    arguments: dict = field(hash=False)
    paths: tuple
    needed: tuple = ()
    shapes: Callable | None = None
    saved: bool = True


def _transformer(activation="relu", **arguments):
    return SpikingTransformerASR(activation=ACTIVATIONS[activation], **arguments)


class _CosineShapes(nn.Module):
    """The state of SpeechBrain's cosine classifier, which allocates on the CPU whatever device is set."""

    def __init__(self, input_size, out_neurons):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_neurons, input_size))


class _JoinedShapes(nn.Module):
    """The state of a :class:`SpeakerEmbedding`, which finds its own widths by running its encoder, as the meta device cannot.

    The encoder is built twice: for its shapes, and, once it is known to be small enough, for two frames of silence.
    """

    def __init__(self, input_size, embedding_size, encoder, encoder_kwargs, subsampling, attention_channels):
        super().__init__()
        self.frontend, channels = None, input_size
        if subsampling is not None:
            self.frontend = _conv(FrameEncoder(input_size, encoder, encoder_kwargs).output_size, subsampling, input_size)
            channels = self.frontend.out_features
        self.encoder = FrameEncoder(channels, encoder, encoder_kwargs)
        found = sum(value.numel() for value in self.encoder.state_dict().values())
        if found > JOINED:
            raise ValueError(f"an encoder whose blocks are joined has {found:,} weights, at most {JOINED:,} are loaded")
        joined = _joined_width(channels, encoder, encoder_kwargs)
        self.norm = nn.LayerNorm(joined)
        self.pooling = AttentiveStatisticsPooling(joined, attention_channels)
        self.pooled_norm = UtteranceNorm(2 * joined)
        self.head = nn.Linear(2 * joined, embedding_size)


def _joined_width(channels, encoder, encoder_kwargs):
    with torch.device("cpu"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neurons say that they were not trained yet
        model = FrameEncoder(channels, encoder, encoder_kwargs).eval()
        return sum(out.shape[-1] for out in layer_outputs(model, torch.zeros(1, 2, channels)))


_conv = subsampling.Conv2dSubsampling
_SIZE, _MELS = whole(1, WIDTH), whole(1, 512)
_HZ = real(0, 48000)
_ENCODER = {"encoder": text(WORD), "encoder_kwargs": options}
_BANDS = {"n_mels": _MELS, "f_min": _HZ, "f_max": optional(_HZ)}
_POOLING = {"attention_channels": _SIZE}
_LOBES = "spikebrain.lobes"

PARTS = {
    "LogMel": Part(
        LogMel,
        {**_BANDS, "sample_rate": one_of(*RATES), "n_fft": whole(16, WIDTH), "win_length": real(1, 1000), "hop_length": real(1, 1000),
         "pre_emphasis": real(0, 1)},
        (f"{_LOBES}.LogMel", f"{_LOBES}.features.LogMel"),
        saved=False,
    ),
    "FrameRateMel": Part(
        FrameRateMel,
        {**_BANDS, "frames": whole(4, 48000), "sample_rate": one_of(*RATES), "preset": one_of("sane", "paper"), "rate": one_of(*RATES),
         "window_s": real(0.001, 0.25), "published": flag},
        (f"{_LOBES}.features.FrameRateMel",),
        saved=False,
    ),
    "EventFrames": Part(
        EventFrames, {"frames": whole(1, 48000), "channels": _SIZE}, (f"{_LOBES}.features.EventFrames",), saved=False
    ),
    "InputNormalization": Part(
        InputNormalization,
        {"norm_type": one_of("global", "sentence"), "std_norm": flag, "avoid_padding_norm": flag, "epsilon": real(0, 1),
         "update_until_epoch": whole(0, 2**31)},
        ("speechbrain.processing.features.InputNormalization",),
        saved=False,
    ),
    "UtteranceNormalization": Part(
        UtteranceNormalization, {"eps": real(0, 1)}, ("spikebrain.frontend.normalisation.UtteranceNormalization",), saved=False
    ),
    "Subsampling": Part(
        subsampling.make,
        {"subsampling": one_of(4, 6, "vgg"), "channels": _SIZE, "n_mels": _MELS, "activation": one_of("relu", "spike")},
        ("spikebrain.blocks.subsampling.make",),
    ),
    "SpikingTransformerASR": Part(
        _transformer,
        {"tgt_vocab": whole(1, VOCABULARY), "input_size": whole(1, WIDTH * 512), "d_model": _SIZE, "nhead": _SIZE,
         "num_encoder_layers": whole(1, LAYERS), "num_decoder_layers": whole(0, LAYERS), "d_ffn": _SIZE, "dropout": real(0, 1),
         "activation": one_of(*ACTIVATIONS), "normalize_before": flag, "causal": flag, "projection": flag, "encoder_module": text(WORD),
         "encoder_kwargs": options, "kernel_size": whole(1, 1023), "bias": flag, "max_length": whole(1, WIDTH),
         "attention_type": one_of("regularMHA", "RoPEMHA"), "positional_encoding": optional(one_of("fixed_abs_sine"))},
        (f"{_LOBES}.SpikingTransformerASR", f"{_LOBES}.transformer_asr.SpikingTransformerASR"),
        needed=("tgt_vocab", "input_size", "d_model", "num_decoder_layers"),
    ),
    "Linear": Part(
        Linear,
        {"input_size": _SIZE, "n_neurons": whole(1, VOCABULARY), "bias": flag},
        ("speechbrain.nnet.linear.Linear",),
        needed=("input_size", "n_neurons"),
    ),
    "SpikingClassifier": Part(
        SpikingClassifier,
        {**_ENCODER, "input_size": _SIZE, "classes": whole(1, VOCABULARY)},
        (f"{_LOBES}.SpikingClassifier", f"{_LOBES}.framewise.SpikingClassifier"),
    ),
    "SpikingEmbedding": Part(
        SpikingEmbedding,
        {**_ENCODER, "input_size": _SIZE, "embedding_size": _SIZE},
        (f"{_LOBES}.SpikingEmbedding", f"{_LOBES}.framewise.SpikingEmbedding"),
    ),
    "PooledEmbedding": Part(
        PooledEmbedding,
        {**_ENCODER, **_POOLING, "input_size": _SIZE, "pooling": one_of("mean", "attentive")},
        (f"{_LOBES}.pooled.PooledEmbedding",),
    ),
    "SpeakerEmbedding": Part(
        SpeakerEmbedding,
        {**_ENCODER, **_POOLING, "input_size": _SIZE, "embedding_size": _SIZE, "subsampling": optional(one_of(4, 6))},
        (f"{_LOBES}.SpeakerEmbedding", f"{_LOBES}.speaker.SpeakerEmbedding"),
        shapes=_JoinedShapes,
    ),
    "SpeakerLogits": Part(nn.Linear, {"in_features": _SIZE, "out_features": whole(1, VOCABULARY)}, (), ("in_features", "out_features")),
    "SpeakerCosines": Part(
        CosineClassifier,
        {"input_size": _SIZE, "out_neurons": whole(1, VOCABULARY)},
        (),
        needed=("input_size", "out_neurons"),
        shapes=_CosineShapes,
    ),
}  # fmt: skip

_EMBEDDING = {
    "features": ("LogMel",),
    "normalize": ("UtteranceNormalization", "InputNormalization"),
    "embedding_model": ("PooledEmbedding", "SpeakerEmbedding", "SpikingEmbedding"),
}
# task -> what its network is made of, in this order: name -> parts that it may be.
NETWORKS = {
    "asr": {
        "features": ("LogMel",),
        "normalize": ("InputNormalization", "UtteranceNormalization"),
        "frontend": ("Subsampling",),
        "Transformer": ("SpikingTransformerASR",),
        "ctc_lin": ("Linear",),
        "seq_lin": ("Linear",),
    },
    "classify": {"features": ("FrameRateMel", "EventFrames"), "classifier": ("SpikingClassifier",)},
    "identify": {**_EMBEDDING, "classifier": ("SpeakerLogits", "SpeakerCosines")},
    "verify": _EMBEDDING,
}


def check(value, expected, where):
    """Raises BundleError unless ``value``, which is found at ``where``, passes the check ``expected``."""
    complaint = expected(value)
    if complaint:
        shown = repr(value)
        raise BundleError(f"{where} is {shown if len(shown) <= 80 else shown[:77] + '...'}, expected {complaint}: fetch the bundle again")


def check_network(task, network, where):
    """Checks ``network`` of a ``bundle.json``: the parts of ``task``, their arguments and bounds; BundleError names the first fault."""
    if type(network) is not dict:
        raise BundleError(f"{where} is no object of parts: fetch the bundle again")
    known = NETWORKS[task]
    needed = [name for name in known if name != "seq_lin"]
    for names, said in (([n for n in network if n not in known], "has"), ([n for n in needed if n not in network], "lacks")):
        if names:
            raise BundleError(f"{where} {said} {names[0]!r}, a network for {task} has {', '.join(known)}: it is that of another task")
    for name, node in network.items():
        _check_part(node, known[name], f"{where}/{name}")


def _check_part(node, allowed, where):
    if type(node) is not dict or node.keys() != {"part", "arguments"} or type(node["arguments"]) is not dict:
        raise BundleError(f"{where} is no part with its arguments: fetch the bundle again")
    check(node["part"], one_of(*allowed), f"{where}/part")
    known = PARTS[node["part"]].arguments
    for name, value in node["arguments"].items():
        if name not in known:
            near = did_you_mean(name[:WORD], known)
            raise BundleError(f"{where}/arguments: {node['part']} takes no {name[:WORD]!r}{near}: fetch the bundle again")
        check(value, known[name], f"{where}/arguments/{name}")
    missing = [name for name in PARTS[node["part"]].needed if name not in node["arguments"]]
    if missing:
        raise BundleError(f"{where}/arguments: {node['part']} needs {missing[0]}: fetch the bundle again")


def build(network, where, shapes=False):
    """The nn.ModuleDict of a checked ``network``, with weights at random; torch's generator is left as it was.

    Arguments
    ---------
    network : dict
        Of ``bundle.json``.
    where : str
        Where that is found, for messages.
    shapes : bool
        True: nothing is allocated for weights, all of them lie on the meta device; parts without weights are left out.

    Raises
    ------
    BundleError
        For what a constructor refuses, such as a name that is not registered.
    """
    with torch.random.fork_rng(devices=[]):
        built = {name: _built(node, f"{where}/{name}", shapes) for name, node in network.items() if PARTS[node["part"]].saved or not shapes}
    return nn.ModuleDict(built).eval()


def _built(node, where, shapes):
    part = PARTS[node["part"]]
    constructor = (part.shapes or part.constructor) if shapes else part.constructor
    try:
        with torch.device("meta" if shapes else "cpu"):
            return constructor(**with_defaults(node))
    except Exception as error:  # numbers inside of their bounds may still not go together, and a constructor stumble in any way over them
        raise BundleError(f"{where}: {node['part']} cannot be built ({type(error).__name__}: {error}): fetch the bundle again") from error


def check_size(network, where):
    """Raises BundleError for a ``network`` on the meta device that is larger than we load."""
    saved = sum(value.numel() for value in network.state_dict().values())
    unsaved = sum(value.numel() for value in network.buffers()) + sum(value.numel() for value in network.parameters()) - saved
    for found, most, what in ((saved, PARAMETERS, "weights"), (unsaved, UNSAVED, "numbers beside its weights")):
        if found > most:
            raise BundleError(f"{where}: the network has {found:,} {what}, at most {most:,} are loaded: it is no network of this package")


def check_wiring(task, network, shapes, where):
    """Raises BundleError where a part of ``network``, as ``bundle.json`` describes it, hands on what the next one does not take."""
    get = {name: with_defaults(node) for name, node in network.items()}
    features = get["features"].get("n_mels")
    if task == "classify":
        features = _built(network["features"], where, False).channels
        pairs = [(features, get["classifier"]["input_size"], "classifier/arguments/input_size")]
    elif task == "asr":
        pairs = _asr_wiring(features, get, network, where)
    else:
        pairs = [(features, get["embedding_model"]["input_size"], "embedding_model/arguments/input_size")]
        if task == "identify":
            key = PARTS[network["classifier"]["part"]].needed[0]
            pairs.append((embedding_size(shapes), get["classifier"][key], f"classifier/arguments/{key}"))
    for made, taken, name in pairs:
        if made != taken:
            raise BundleError(f"{where}/{name} is {taken}, what comes before gives {made}: fetch the bundle again")


def embedding_size(network):
    """Channels of the embedding of a ``network``, which may lie on the meta device."""
    model = network["embedding_model"]
    if hasattr(model, "head"):
        return model.head.out_features
    return model.encoder.output_size * (1 if model.pooling is None else 2)


def _asr_wiring(features, get, network, where):
    transformer, joint = get["Transformer"], get["Transformer"]["num_decoder_layers"] > 0
    if joint != ("seq_lin" in get):
        has = "has a seq_lin" if "seq_lin" in get else "lacks seq_lin"
        raise BundleError(f"{where} {has}, but {transformer['num_decoder_layers']} decoder layers: fetch the bundle again")
    front = _built(network["frontend"], f"{where}/frontend", True)
    pairs = [(features, front.n_mels, "frontend/arguments/n_mels")]
    pairs.append((front.out_features, transformer["input_size"], "Transformer/arguments/input_size"))
    for head in ("ctc_lin", "seq_lin") if joint else ("ctc_lin",):
        pairs.append((transformer["d_model"], get[head]["input_size"], f"{head}/arguments/input_size"))
        pairs.append((transformer["tgt_vocab"], get[head]["n_neurons"], f"{head}/arguments/n_neurons"))
    return pairs


def with_defaults(node):
    """All arguments of a part, a dict with ``part`` and ``arguments``: those given, and the constructor's own defaults of others."""
    part = PARTS[node["part"]]
    known = inspect.signature(part.constructor).parameters.values()
    return {one.name: one.default for one in known if one.name in part.arguments and one.default is not one.empty} | node["arguments"]


def state_of(network):
    """What is saved of a ``network`` (name -> module): ``<part>.<name in its state_dict>`` -> Tensor, on the CPU.

    SpeechBrain's InputNormalization keeps its statistics beside its state; they are ``<part>.glob_mean``, ``.glob_std`` and ``.count``.
    A front end has no weights, and its tables are made.
    """
    state = {}
    for name, part in network.items():
        state |= {} if name == FRONT_END else {f"{name}.{key}": value for key, value in part.state_dict().items()}
        if has_statistics(part):
            state |= {f"{name}.{key}": torch.as_tensor(getattr(part, key)) for key in STATISTICS}
    return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def has_statistics(part):
    """Whether a part normalises by what it found in training."""
    return isinstance(part, InputNormalization) and part.norm_type == "global"


def expected_state(shapes, network):
    """(shape, dtype) of everything that is saved of a network.

    Arguments
    ---------
    shapes : nn.ModuleDict
        What :func:`build` gives on the meta device.
    network : dict
        Of ``bundle.json``, checked.
    """
    expected = {key: (tuple(value.shape), value.dtype) for key, value in shapes.state_dict().items()}
    for name, node in network.items():
        arguments = node["arguments"]
        if node["part"] == "InputNormalization" and arguments.get("norm_type", "global") == "global":
            channels = (with_defaults(network["features"])["n_mels"],)
            expected |= {f"{name}.glob_mean": (channels, torch.float32), f"{name}.glob_std": (channels, torch.float32)}
            expected[f"{name}.count"] = ((), torch.int64)
    return expected


def fill(network, state):
    """Gives a ``network`` (nn.ModuleDict) the ``state`` that :func:`state_of` gave; every name is there, with its shape and dtype."""
    for name, part in network.items():
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        if has_statistics(part):
            part.glob_mean, part.glob_std = (own.pop(key) for key in STATISTICS[:2])
            part.count = int(own.pop("count"))
        if name != FRONT_END:
            part.load_state_dict(own)

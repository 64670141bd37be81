"""What a network multiplies: every product with the kinds of its operands, and whatever it computes beside them.

    print(audit(encoder.eval(), x, lengths))

A product is accumulate-only where a spike is one of its operands: hardware without multipliers adds, for every spike, what the spike
meets. What the network's modules declare of their products (:mod:`spikebrain.operands`) is not taken on trust:

- trains that are handed on as spikes have to be integer levels times a constant of their channel, and input that is declared to be
  counts of events has to be whole numbers;
- a layer with a weight that tells of no product is refused;
- on a run over full frames, the matrix products that torch computes may not be more than those that were told of.

What no hook sees (norms, softmax, positions) stands in :data:`OPERATIONS`, by type of module. A type that it does not know, a subclass of
one that it does included, is a finding of its own, "unknown": nobody has said what its ``forward`` computes.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.baselines.gsu import GSU, GatedNeuron, GSULayer
from spikebrain.baselines.lif_mlp import LIFMLP
from spikebrain.baselines.lif_network import LIFLayer, LIFNetwork
from spikebrain.baselines.linear_head import FrameLayer, LinearHead
from spikebrain.baselines.spike_driven_transformer import SpikeDrivenTransformer
from spikebrain.baselines.vanilla_snn import VanillaLayer, VanillaSNN
from spikebrain.blocks.gated_convolution import DepthwiseConv, SeparableGatedConvolution
from spikebrain.blocks.homeostatic_bias import HomeostaticBias
from spikebrain.blocks.masked_norm import FrameConstantDropout, MaskedBatchNorm, NormedNeuron
from spikebrain.blocks.rate_readout import RateReadout
from spikebrain.blocks.soft_saturation import GlobalNorm, SoftSaturation
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.blocks.spiking_linear_attention import SpikingLinearAttention
from spikebrain.blocks.spiking_mlp import SpikingMLP
from spikebrain.blocks.subsampling import Conv2dSubsampling
from spikebrain.blocks.temporal_shift import TemporalShift
from spikebrain.convert.ready import ConversionError, check
from spikebrain.convert.reparameterise import FusedRepSSA
from spikebrain.convert.unroll import DRIVEN, Driven, FrameByFrame
from spikebrain.encoders.iml_spikeformer import SDSA3, IMLSpikeformer, IMLSpikeformerBlock, RepSSA
from spikebrain.encoders.pts_snn import PTSSNN, SpikingShiftBlock
from spikebrain.encoders.spikescr import RotarySpikingAttention, SpikeEmbedding, SpikeSCR, SpikeSCRBlock, SpikeSCRMLP
from spikebrain.neurons import LIF, PLIF, IterativeLIF, MultiLevelSpike
from spikebrain.neurons.single_step import SingleStepPLIF

REAL, BINARY = operands.Kind.REAL, operands.Kind.BINARY


class Operation(NamedTuple):
    """Something that a type of module computes beside the products that it tells of.

    part : its name in findings
    adds : whether it takes additions, comparisons and choices alone, or constants that fold into weights or thresholds
    why : in words
    product : whether it is a product of weights after all, which hears real numbers and tells of nothing
    """

    part: str
    adds: bool
    why: str
    product: bool = False


@dataclass(frozen=True)
class Known:
    """What is known of a type of module.

    operations : tuple of Operation, or a callable that gives them for a module
    dense : dict, name of a part with a weight that hears real numbers and tells of nothing -> why
    whole : whether ``operations`` say all there is to say of what lies inside it
    tells_for : names of parts whose product this module tells of as its own
    real : dict, part of a product, or name of a layer inside -> why both of its operands are real numbers, where they are
    """

    operations: tuple | Callable = ()
    dense: dict = field(default_factory=dict)
    whole: bool = False
    tells_for: tuple = ()
    real: dict = field(default_factory=dict)


def _does(*operations):
    return Known(tuple(operations))


def _dense(part, why):
    return Known((Operation(part, False, why, True),), whole=True)


def _adds(part, why):
    return Operation(part, True, why)


def _multiplies(part, why):
    return Operation(part, False, why)


RESIDUAL = _adds("residual", "a sum of real numbers: additions")
SINES = _adds("positions", "sines are added")
STATISTICS = "mean and deviation of every frame, a root, a division, multiplications: they change from frame to frame and fold into nothing"


def _leak(decay):
    if decay in (0, 1):
        return _adds("membrane", "is added up and compared with the threshold")
    shift = -math.log2(decay)
    exact = f": {decay:g}, a shift by {shift:g}" if shift.is_integer() else ""
    return _multiplies("membrane", f"is multiplied by its decay once a frame{exact}")


def _lif(neuron):
    weighted = (_adds("input weight", "1 - decay, a constant: folds into the weights before it"),) if neuron.decay_input else ()
    return (_leak(getattr(neuron, "decay", math.nan)), *weighted)


def _attention(layer):
    """Of RepSSA, unfused or with one matrix a head."""
    softmax, hdm = layer.options.score == "softmax", layer.options.hdm
    if softmax:
        yield _adds("scale", "1 / sqrt(d), a constant: folds into the weights of the queries")
        yield _multiplies("softmax", "an exponential and a division for every score")
    if softmax and hdm == "log_bias":
        yield _adds("decay mask", "adds a constant of the distance to every score")
    elif hdm != "none":
        yield _multiplies("decay mask", "multiplies every score by a constant of its distance")


def _rotary(layer):
    if layer.positions == "rope":
        yield _adds("positions", "a spike of 0 or 1 adds the sine and the cosine of its frame, from a table; the sums fire again")
    if layer.positions in ("sin", "sin_lif"):
        yield SINES
    yield _adds("scale", "1 / sqrt(d), a constant: folds into the threshold behind it")


def _columns(layer):
    """Of PTS-SNN's attention: how keys are normalised, and what comes after it."""
    cost = {"softmax": "an exponential and a division", "l2": "a square and a division", "l1": "a division", "mean": "a division"}
    yield _multiplies("columns", f"keys are normalised over tokens ({layer.columns}): {cost[layer.columns]} for each of their numbers")
    yield _adds("scale", "1 / sqrt(d), a constant: folds into the weights of the queries")
    if layer.residual:
        yield RESIDUAL


def _prompts(network):
    if network.prompts is not None:
        yield _multiplies("prompts", "their mean, once an utterance and channel")
    if network.prompts is not None or network.config.static_bias:
        yield _adds("bias", "one addition a frame and channel")


def _steps(network):
    if network.config.neuron == "lif_multistep":
        yield _adds("mean", "over micro-steps: a constant, folds into the norm behind it or into the next weights")


def _sines(encoder):
    return (SINES,) if getattr(encoder.model, "position", "none") == "abs" else ()


_EVERY_FRAME = {"linear": "hears real numbers, shifted", "skip": "hears the same real numbers"}
_PROJECTED = "queries, keys and values are projections of spikes, real numbers: no neuron fires on them"
_ROTATION = _multiplies("positions", "rotations of real numbers, four multiplications a pair of channels")
_SOFTMAX = _multiplies("softmax", "an exponential and a division for every score")

# Names stand for what may not be imported here: the host, lobes, which need it, and parts that are private to their file.
OPERATIONS = {
    # neurons
    LIF: Known(_lif),
    PLIF: Known(_lif),
    IterativeLIF: Known(lambda neuron: (_leak(neuron.decay),)),
    SingleStepPLIF: _does(_adds("threshold", "a comparison")),
    GatedNeuron: _does(_multiplies("membrane", "is multiplied by a gate, a sigmoid, once a frame: it changes from frame to frame")),
    MultiLevelSpike: _does(_adds("threshold", "comparisons and subtractions; what a spike is worth folds into the next weights")),
    # norms and other functions
    nn.LayerNorm: _does(_multiplies("norm", STATISTICS)),
    GlobalNorm: _does(_multiplies("norm", "a multiplication and an addition a frame and channel, of features")),
    SoftSaturation: _does(_multiplies("tanh", "of every frame and channel of the features")),
    nn.ReLU: _does(_adds("relu", "a comparison")),
    nn.LeakyReLU: _does(_multiplies("leaky relu", "a slope for what is negative")),
    nn.GELU: _does(_multiplies("gelu", "an error function, or a tanh, and a multiplication")),
    nn.SiLU: _does(_multiplies("silu", "a sigmoid and a multiplication")),
    nn.Sigmoid: _does(_multiplies("sigmoid", "an exponential and a division")),
    nn.Tanh: _does(_multiplies("tanh", "exponentials and a division")),
    nn.Softmax: _does(_SOFTMAX),
    nn.LogSoftmax: _does(_SOFTMAX),
    # what computes nothing of its own in evaluation, or tells of it
    **dict.fromkeys((nn.Identity, nn.Dropout, FrameConstantDropout, nn.Sequential, nn.ModuleList, nn.ModuleDict), Known()),
    **dict.fromkeys((SpikeLinear, DepthwiseConv, nn.Linear, nn.Conv1d, nn.Conv2d, NormedNeuron, SpikingMLP, TemporalShift), Known()),
    **dict.fromkeys((SpikeSCR, SpikeSCRMLP, SeparableGatedConvolution, LIFNetwork, LIFMLP, GSU, VanillaSNN), Known()),
    LIFLayer: Known(real={"linear": "hears features; counts of events would be input_kind: level"}),
    VanillaLayer: Known(real={"linear": "hears features"}),
    GSULayer: Known(real={"linear": "hears features"}),
    # blocks
    RepSSA: Known(_attention, real={"scores": "queries and keys are real numbers: reparameterise(network)"}),
    FusedRepSSA: Known(_attention),
    SDSA3: _does(_adds("scale", "1 / sqrt(d), a constant: folds into the threshold behind it")),
    IMLSpikeformerBlock: _does(RESIDUAL),
    IMLSpikeformer: Known(_steps),
    SpikeDrivenTransformer: Known(_steps),
    SpikeEmbedding: Known(tells_for=("conv",), real={"weight": "hears features; counts of events would be input_kind: level"}),
    RotarySpikingAttention: Known(_rotary, real={"qkv": "sines were added to the spikes"}),
    SpikeSCRBlock: _does(_adds("residual", "a sum of integers")),
    SpikingShiftBlock: Known((RESIDUAL,), real=_EVERY_FRAME),
    SpikingLinearAttention: Known(_columns, real=dict.fromkeys(("state", "read"), _PROJECTED)),
    HomeostaticBias: Known(
        (_multiplies("tanh", "once an utterance and channel, and a scale"),),
        real={"down": "hears the mean prompt, once an utterance", "up": "hears what ReLU leaves, once an utterance"},
    ),
    PTSSNN: Known(_prompts),
    RateReadout: _does(_multiplies("rate", "once an utterance and class, spikes by frames: which class fires most is known without it")),
    FrameLayer: Known((_adds("relu", "a comparison"),), real={"linear": "hears features"}),
    LinearHead: Known((_multiplies("mean", "once an utterance and channel"),), real={"head": "hears the mean, once an utterance"}),
    Conv2dSubsampling: Known(dense={"conv_1": "front end: hears features", "conv_2": "front end: hears what ReLU leaves"}),
    # the twin of SpikeSCR
    "spikebrain.baselines.spikescr_twin.SpikeSCRTwin": Known(),
    "spikebrain.baselines.spikescr_twin._Normed": Known(),
    "spikebrain.baselines.spikescr_twin._MLP": Known(),
    "spikebrain.baselines.spikescr_twin._Block": _does(RESIDUAL),
    "spikebrain.baselines.spikescr_twin._Attention": _does(_ROTATION, _SOFTMAX),
    "spikebrain.baselines.spikescr_twin._Convolution": _does(_multiplies("sigmoid", "of the gate, every frame and channel")),
    # VGG-BiLSTM
    nn.LSTM: Known(),
    "spikebrain.blocks.subsampling.VGGSubsampling": _does(_adds("relu", "comparisons, those of the pooling too")),
    "spikebrain.baselines.vgg_bilstm.BiLSTMLayer": _does(_multiplies("gates", "sigmoids, tanhs and products of what they leave, a cell")),
    "spikebrain.baselines.vgg_bilstm.VGGBiLSTM": _does(_multiplies("tanh", "of the output, every frame and channel")),
    # lobes
    "spikebrain.lobes.framewise.FrameEncoder": Known(_sines, dense={"projection": "front end: hears features"}),
    "spikebrain.lobes.framewise.SpikingClassifier": Known(dense={"head": "classifier: its input is not declared"}),
    "spikebrain.lobes.framewise.SpikingEmbedding": Known(
        (_multiplies("pooling", "mean and deviation over an utterance, once a channel"),), dense={"head": "hears pooled numbers"}
    ),
    "spikebrain.lobes.rate.RateClassifier": Known(),
    "spikebrain.lobes.speaker.SpeakerEmbedding": Known(),
    "spikebrain.lobes.speaker.AttentiveStatisticsPooling": _does(
        _multiplies("pooling", "mean and deviation over an utterance, plain and weighted"),
        _multiplies("softmax", "an exponential and a division for every frame and channel"),
        _multiplies("tanh", "of every frame, inside of the attention"),
    ),
    "spikebrain.lobes.transformer_asr.HostEncoder": Known(),
    "spikebrain.lobes.transformer_asr.SpikingTransformerASR": Known(),
    "spikebrain.lobes.features.EventFrames": Known(),
    "spikebrain.lobes.stored.StoredFeatures": Known(),
    "spikebrain.lobes.features.LogMel": _dense("features", "front end: a Fourier transform and a filter bank"),
    "spikebrain.lobes.features.FrameRateMel": _dense("features", "front end: a Fourier transform and a filter bank"),
    "spikebrain.lobes.utterance_features.Fbank": _dense("features", "front end: a Fourier transform and a filter bank"),
    "spikebrain.lobes.utterance_features.HuggingFace": _dense("features", "front end: a frozen network without spikes"),
    "spikebrain.lobes.utterance_features.Emotion2Vec": _dense("features", "front end: a frozen network without spikes"),
    # the host
    "speechbrain.nnet.containers.ModuleList": Known(),
    "speechbrain.nnet.linear.Linear": Known(dense={"w": "a layer of the host: it declares nothing, and hears real numbers"}),
    "speechbrain.nnet.normalization.LayerNorm": Known(),
    "speechbrain.processing.features.InputNormalization": _does(_multiplies("norm", "of features, by mean and deviation")),
    "speechbrain.lobes.models.transformer.TransformerASR.TransformerASR": Known(),
    "speechbrain.lobes.models.transformer.Transformer.PositionalEncoding": _does(SINES),
    "speechbrain.lobes.models.transformer.Transformer.NormalizedEmbedding": Known(
        (_multiplies("embedding", "a row of a table, times a constant"),), whole=True
    ),
    "speechbrain.lobes.models.transformer.Transformer.TransformerDecoder": _dense("decoder", "a decoder without spikes"),
    "speechbrain.lobes.models.transformer.Transformer.TransformerEncoder": _dense("encoder", "an encoder without spikes"),
}

MASKS = {"gate": "a gate of 0 or 1 lets the number pass or not: nothing is multiplied"}  # told of, but no products of matrices


SUMMARY = ("layer", "part", "sort", "left", "right", "accumulate_only", "why")


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found.

    network : name of the network's type
    findings : list of dicts, in the order of the network's modules

    A finding has the keys ``layer``; ``part``; ``sort``, which is "product", "operation" (anything else) or "unknown" (a type of module
    that :data:`OPERATIONS` does not list); ``left`` and ``right``, kinds of a product's operands as words, else None; ``macs`` and
    ``accumulates`` of the run, None where nobody told of them; ``accumulate_only``; and ``why``.
    """

    network: str
    findings: list

    @property
    def products(self):
        """Findings that are products."""
        return [finding for finding in self.findings if finding["sort"] == "product"]

    @property
    def unknown(self):
        """Findings of modules whose type is not known."""
        return [finding for finding in self.findings if finding["sort"] == "unknown"]

    @property
    def accumulate_only(self):
        """Whether every product is a matter of additions; says nothing of other operations."""
        return all(finding["accumulate_only"] for finding in self.products)

    def as_dict(self):
        """The same as plain numbers, words and lists, for JSON."""
        return {"network": self.network, "accumulate_only": self.accumulate_only, "findings": [dict(one) for one in self.findings]}

    def summary(self):
        """Findings of all layers that differ by number alone as one: dicts of :attr:`findings`, ``times`` beside."""
        found = Counter(_without_numbers(finding) for finding in self.findings)
        return [dict(zip(SUMMARY, row, strict=True), times=times) for row, times in found.items()]

    def __str__(self):
        """The summary as a table."""
        verdict = "every product is accumulate-only" if self.accumulate_only else "not every product is accumulate-only"
        rows = [("times", "layer", "part", "operands", "adds", "why")]
        for one in self.summary():
            kinds = f"{one['left']} x {one['right']}" if one["left"] else one["sort"]
            adds = "only" if one["accumulate_only"] else "-"
            rows.append((str(one["times"]), one["layer"], one["part"], kinds, adds, one["why"]))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"{self.network}: {verdict}", *lines])


@torch.no_grad()
def audit(network, x, lengths=None, forward=None):
    """Runs ``network`` and lists what it multiplies.

    Arguments
    ---------
    network : nn.Module
        In evaluation mode; whatever the steps of :mod:`spikebrain.convert` give, too. It stays as it is.
    x, lengths
        What its ``forward`` takes: a batch of real data, since what is declared of it is looked at.
    forward : callable, optional
        ``forward(x, lengths)`` runs the network where it cannot be called itself, such as the modules of a recogniser. Matrix products
        are then not compared with what was told of them.

    Returns
    -------
    Audit

    Raises
    ------
    ConversionError
        As for :func:`spikebrain.convert.ready.check`; for a layer that holds a weight but told of no product; for matrix products that
        nobody told of; for spikes, or counts of events, that are no whole numbers. Messages name the layer.
    """
    check(network)
    names = {module: name for name, module in network.named_modules()}
    told = _told(network, names, forward or network, x, lengths)
    _check_holders(names, told)
    if forward is None:
        _check_executed(network, names, x)
    folded, inside = _folds(network, names), []
    findings = []
    for module, name in names.items():
        if any(name.startswith(prefix) for prefix in inside):
            continue
        known = _known(module)
        if known is not None and known.whole:
            inside.append(f"{name}." if name else "")
        findings += [_product(network, name, *product) for product in told.get(module, {}).items()]
        findings += _others(module, name, known, folded) + _undeclared_parts(name, module, known, told)
    return Audit(type(network).__name__, findings)


def _told(network, names, forward, x, lengths):
    """module -> {(part, left, right): [macs, accumulates]} of a run whose declared trains are looked at."""
    told = {}

    def hear(event):
        """Notes a product."""
        if not isinstance(event, operands.Product):
            return
        if event.module not in names:
            raise ConversionError(f"a {type(event.module).__name__} told of a product, but is no part of the network: audit its root")
        sums = told.setdefault(event.module, {}).setdefault((event.part, event.left, event.right), [0, None])
        sums[0] += int(event.macs)
        if event.accumulates is not None:
            sums[1] = (sums[1] or 0) + int(event.accumulates)

    hooks = [module.register_forward_pre_hook(_looker(name)) for module, name in names.items()]
    try:
        with operands.listen(hear):
            forward(x, lengths)
    finally:
        for hook in hooks:
            hook.remove()
    return told


def _looker(name):
    """A hook that looks at what the module ``name`` is told to be spikes or counts."""

    def look(module, arguments):
        """Checks the trains that a layer is given."""
        for train in arguments:
            if isinstance(train, operands.Spikes) and train.levels is not None:
                _check_train(name, train)
        for kind, of in COUNTS.items():
            if isinstance(module, kind):
                _check_counts(name, *of(module, arguments))

    return look


# Modules that take numbers and are told what kind they are: (numbers, valid frames, kind) of a call.
COUNTS = {
    SpikeEmbedding: lambda module, given: (given[0], given[2], module.input_kind),
    LIFLayer: lambda module, given: (given[0], given[1], given[3]),
}


def _check_train(name, train):
    """Spikes are levels times what a spike is worth; sums of trains that are worth different things say no gain, and are left out."""
    if train.gain is None and train.levels > 1:
        return
    value = frames.zero_past(train.value, train.counts)
    level = value if train.code is None else frames.zero_past(train.level, train.counts).to(value.dtype)
    worth = level if train.gain is None else level * train.gain.to(value.dtype)
    if float(level.amax()) > train.levels or not torch.allclose(value, worth, rtol=1e-2, atol=1e-6):
        raise ConversionError(f"{name} was handed spikes of 0 to {train.levels} whose value is something else: declare Spikes.real")


def _check_counts(name, x, counts, kind):
    wrong = frames.zero_past(x, counts).flatten()
    wrong = wrong[(wrong != wrong.round()) | (wrong < 0)]
    if kind is not REAL and len(wrong):
        raise ConversionError(f"{name} was told of {kind.value} input, but was handed {float(wrong[0]):.4g}: set input_kind: real")


def _check_holders(names, told):
    """Every matrix of weights belongs to a product that was told of, or to one that is known to be of real numbers."""
    excused = set()
    for module, name in names.items():
        known = _known(module)
        if known is None:
            continue
        tells = known.tells_for if module in told else ()
        excused |= {f"{name}.{part}".lstrip(".") for part in (*known.dense, *tells)}
        if known.whole:
            excused |= {names[inner] for inner in module.modules()}
    for module, name in names.items():
        matrix = next((p for p in module.parameters(recurse=False) if p.dim() >= 2), None)
        if matrix is not None and module not in told and name not in excused:
            size = " x ".join(map(str, matrix.shape))
            raise ConversionError(
                f"{name or 'the network'} ({type(module).__name__}) holds a weight of {size} but told of no product: "
                "tell of it with operands.tell, or take the layer out where nothing hears it"
            )


class _Call:
    """A call of a module: what it computed and did not tell of, and the names of the calls that this comes from."""

    def __init__(self, name="", known=None):
        self.name, self.known, self.macs, self.culprits = name, known, 0, []


class _Watch(TorchDispatchMode):
    """Compares, call by call, multiply-accumulates of matrix products that torch computes with those that were told of meanwhile."""

    def __init__(self, names):
        super().__init__()
        self.names, self.calls = names, [_Call()]
        self.hooks = [hook for module in names for hook in self._hooks(module)]

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # or torch loads its compiler, seconds, to leave the method below uncompiled

    def _hooks(self, module):
        return module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave)

    def _enter(self, module, arguments):
        self.calls.append(_Call(self.names[module], _known(module)))

    def _leave(self, module, arguments, out):
        """What a call did not tell of goes to its caller, which may tell of it; what is told too often goes nowhere."""
        call, caller = self.calls.pop(), self.calls[-1]
        dense = caller.known is not None and call.name.rsplit(".", 1)[-1] in caller.known.dense
        whole = call.known is not None and call.known.whole
        if call.macs > 0 and not (dense or whole or isinstance(module, Driven)):
            caller.macs += call.macs
            caller.culprits += call.culprits or [call.name]

    def hear(self, event):
        """Takes off what a :class:`operands.Product` tells of."""
        if isinstance(event, operands.Product) and event.part not in MASKS:
            self.calls[-1].macs -= int(event.macs)

    def __torch_dispatch__(self, function, types, given=(), named=None):
        """Runs ``function``, and adds its multiply-accumulates where it is a product of matrices."""
        out = function(*given, **(named or {}))
        self.calls[-1].macs += _macs(function.overloadpacket, given, named or {}, out)
        return out


def _macs(packet, given, named, out):
    if packet in MORE_PRODUCTS:
        return MORE_PRODUCTS[packet](*given)
    return flop_registry[packet](*given, **named, out_val=out) // 2 if packet in flop_registry else 0


MORE_PRODUCTS = {  # which torch's own table leaves out
    torch.ops.aten.mv: lambda matrix, vector: matrix.numel(),
    torch.ops.aten.addmv: lambda start, matrix, vector: matrix.numel(),
    torch.ops.aten.dot: lambda one, other: one.numel(),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest: sdpa_flop_count(q.shape, k.shape, v.shape) // 2,
}


def _check_executed(network, names, x):
    """On full frames, where a dense implementation computes what was told of and no more, nothing is computed that nobody told of.

    An unrolled layer adds up events, in whatever way, and is left out.
    """
    watch = _Watch(names)
    try:
        with watch, operands.listen(watch.hear):
            network(x, None)
    finally:
        for hook in watch.hooks:
            hook.remove()
    left = watch.calls[0]
    if left.macs > 0:
        name = left.culprits[0]
        what = f"{name or 'the network'} ({type(network.get_submodule(name)).__name__}) computed matrix products that nobody told of"
        raise ConversionError(f"{what}, {left.macs} multiply-accumulates: tell of every product with operands.tell")


def _known(module):
    """What is known of a module's type; of an unrolled one, of the type that it stands for. None for types that are not listed."""
    kind = type(module)
    if isinstance(module, FrameByFrame):
        kind = kind.__bases__[1]
    kind = _TRAINED.get(kind, kind)
    return OPERATIONS.get(kind, OPERATIONS.get(f"{kind.__module__}.{kind.__qualname__}"))


_TRAINED = {driven: kind for kind, driven in DRIVEN.items()}


def _product(network, name, key, sums):
    """The finding of a product that was told of."""
    (part, left, right), (macs, accumulates) = key, sums
    adds = accumulates is not None and (left, right) != (REAL, REAL)
    if adds:
        why = MASKS.get(part, "a spike adds what it meets" + ("" if BINARY in (left, right) else ", as often as its level says"))
    else:
        why = _why_real(network, name, part) if (left, right) == (REAL, REAL) else "says no additions, although an operand spikes"
    return _finding(name, part, "product", adds, why) | {
        "left": left.value, "right": right.value, "macs": macs, "accumulates": accumulates,
    }  # fmt: skip


def _why_real(network, name, part):
    """Why a product has no spike: by the table's word for this type, or for the layer by the type that holds it."""
    holder, _, own = name.rpartition(".")
    for known, word in ((_known(network.get_submodule(name)), part), (_known(network.get_submodule(holder)), own)):
        if known is not None and word in known.real:
            return known.real[word]
    return "both operands are real numbers"


def _others(module, name, known, folded):
    """Findings of what a module computes beside products that are told of."""
    kind = type(module).__name__
    if isinstance(module, MaskedBatchNorm):
        where = f"folds into {folded[module]}: fold_batchnorm(network)" if module in folded else "no layer is named into which it folds"
        return [_finding(name, "norm", "operation", False, f"a multiplication and an addition a frame and channel; {where}")]
    if known is None:
        return [_finding(name, "", "unknown", False, f"nothing is known of what a {kind} computes beside what it tells of: list it")]
    operations = known.operations(module) if callable(known.operations) else known.operations
    return [_operation(name, operation) for operation in operations]


def _operation(name, operation):
    finding = _finding(name, operation.part, "product" if operation.product else "operation", operation.adds, operation.why)
    return finding | {"left": REAL.value, "right": REAL.value} if operation.product else finding


def _undeclared_parts(name, module, known, told):
    """Findings of parts with a weight of which it is known that they hear real numbers."""
    parts = {} if known is None else {part: why for part, why in known.dense.items() if why}
    inner = dict(module.named_children())
    silent = [(part, why) for part, why in parts.items() if hasattr(inner.get(part), "weight") and inner[part] not in told]
    return [_operation(f"{name}.{part}".lstrip("."), Operation("weight", False, why, True)) for part, why in silent]


def _finding(layer, part, sort, accumulate_only, why):
    start = {"layer": layer, "part": part, "sort": sort, "left": None, "right": None, "macs": None, "accumulates": None}
    return start | {"accumulate_only": accumulate_only, "why": why}


def _folds(network, names):
    """Batch norm -> name of the layer into which it folds."""
    into = {}
    for block in network.modules():
        for layer, holders in getattr(block, "FOLDS", ()):
            for holder in (getattr(block, name) for name in holders):
                norm = holder.norm if isinstance(holder, NormedNeuron) else holder
                if norm is not None:
                    into[norm] = names[getattr(block, layer)]
    return into


def _without_numbers(finding):
    """A finding as a tuple, the numbers of layers replaced by stars."""
    changed = {"layer": _NUMBER.sub("*", finding["layer"]), "why": _NUMBER.sub("*", finding["why"])}
    return tuple((finding | changed)[key] for key in SUMMARY)


_NUMBER = re.compile(r"(?:(?<=[a-z_*]\.)|^)\d+(?=\.|$)")  # of a layer in a list, not of a decimal

"""What a network computes beside its products: neurons, norms, softmax, biases, residual sums, positions.

The literature leaves these out, and so does the headline number; here they stand beside it, each with its operations. Numbers are
additions, multiplications and comparisons, which have a price, and exponentials, divisions, roots, tanh and sigmoids, for
which no table that we know has one: they are counted, not priced. Operations a position, all of them ours:

    neurons      LIF: multiply by the decay, add the current, compare; integrate-and-fire of T levels: compare in every micro-step.
                 With soft reset, and a level at a time: one subtraction for every spike. Gated units: a sigmoid, a multiplication,
                 a comparison and four additions, two of them of what the layer's own spikes say
    norm         layer norm of D channels: 4 D + 1 additions, 3 D + 2 multiplications, a root, a division. A batch norm that a block
                 declares (``FOLDS``) folds into the layer before, of which it leaves the bias; any other multiplies and adds
    softmax      for a pair of frames and a head: compare (largest), subtract, exponential, add, multiply; a division a row
    decay mask   one multiplication (or addition, "log_bias") a pair and head; the mask itself is a constant of the model
    bias         an addition an output; residual: an addition a channel; positions: an addition a channel, or of rotated spikes
                 two a spike (sine and cosine are constants)
    activation   ReLU: a comparison; gates and saturations: their tanh or sigmoid

Constant factors, such as 1 / sqrt(d), fold into weights or thresholds. A sum of n numbers is n additions.
"""

from typing import NamedTuple

from torch import nn

from spikebrain.baselines.gsu import GSU, GatedNeuron
from spikebrain.baselines.lif_mlp import LIFMLP
from spikebrain.baselines.linear_head import FrameLayer, LinearHead
from spikebrain.baselines.spike_driven_transformer import SpikeDrivenTransformer
from spikebrain.blocks.homeostatic_bias import HomeostaticBias
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.blocks.rate_readout import RateReadout
from spikebrain.blocks.soft_saturation import GlobalNorm
from spikebrain.blocks.spiking_linear_attention import SpikingLinearAttention
from spikebrain.blocks.subsampling import Conv2dSubsampling
from spikebrain.convert import FusedRepSSA
from spikebrain.encoders.iml_spikeformer import IMLSpikeformer, IMLSpikeformerBlock, RepSSA
from spikebrain.encoders.pts_snn import PTSSNN, SpikingShiftBlock
from spikebrain.encoders.spikescr import RotarySpikingAttention, SpikeSCRBlock
from spikebrain.energy.count import inside
from spikebrain.energy.positions import check_known, folds, has_weight
from spikebrain.neurons import LIF, IterativeLIF, MultiLevelSpike
from spikebrain.neurons.single_step import SingleStepPLIF

COUNTED_APART = (
    "neurons: a multiplication, an addition and a comparison a frame (LIF), a comparison a micro-step (levels), a subtraction a spike",
    "norms: layer norms in full; a batch norm folds into the layer before and leaves its bias",
    "softmax, decay mask: of every pair of frames and head",
    "biases, residual sums, positions: an addition a channel; rotated spikes two a spike",
    "activations: a comparison, or their tanh or sigmoid",
    "exponentials, divisions, roots, tanh and sigmoids are counted and have no price",
)


class Work(NamedTuple):
    """What the layer ``line`` computes of one ``kind``: ``operations``, name -> number over all utterances."""

    line: str
    kind: str
    operations: dict


def further(positions):
    """All :class:`Work` of the network of ``positions``, in the order of its modules.

    Raises
    ------
    ValueError
        For a module that holds parameters and neither told of a product with them nor is of a known type; the message names it.
    """
    biased, folded = folds(positions.counter)
    found = []
    for module, name in positions.counter.modules.items():
        if name in folded:
            continue
        rule = next((RULES[key] for key in _keys(module) if key in RULES), None)
        if rule is None:
            check_known(positions.counter, name, module)
        works = [] if rule is None else list(rule(positions, name, module))
        if has_weight(module):
            works += _bias(positions, name, module, name in biased)
        found += [Work(name, kind, _whole(operations)) for kind, operations in works]
    return [work for work in found if work.operations]


def _keys(module):
    """What rules may be listed under: the classes of a module, and their names for those of hosts and of comparators."""
    for kind in type(module).__mro__:
        yield kind
        yield f"{kind.__module__}.{kind.__qualname__}"


def _whole(operations):
    return {name: int(count) for name, count in operations.items() if count}


def _bias(positions, name, module, folded):
    """Additions of a layer's bias, or of the one that a folded norm leaves it."""
    rows = positions.of_weight(name, module)
    if getattr(module, "bias", None) is not None or folded:
        yield "bias", {"add": rows * module.weight.shape[0]}


def _updates(positions, name):
    """(frames x channels x levels, spikes) of a layer of neurons."""
    fired = positions.counter.spikes.get(name)
    if fired is None:
        return 0, 0
    return fired.frames * fired.counts.numel() * fired.levels, int(fired.counts.sum())


def _lif(positions, name, module):
    updates, spikes = _updates(positions, name)
    yield "neurons", {"multiply": updates, "add": updates + (spikes if module.options.soft else 0), "compare": updates}


def _iterative(positions, name, module):
    updates, spikes = _updates(positions, name)
    yield "neurons", {"multiply": updates, "add": updates + spikes, "compare": updates}


def _multilevel(positions, name, module):
    updates, spikes = _updates(positions, name)
    yield "neurons", {"add": spikes, "compare": updates}


def _single_step(positions, name, module):
    yield "neurons", {"compare": _updates(positions, name)[0]}


def _gated(positions, name, module):
    """Two currents of the layer's own spikes are added to those of its input; c + f (b - c) is one multiplication."""
    updates, _ = _updates(positions, name)
    yield "neurons", {"multiply": updates, "add": 4 * updates, "compare": updates, "sigmoid": updates}


def _layer_norm(positions, name, module):
    n, d = positions.of(name), module.weight.numel() if module.weight is not None else module.normalized_shape[-1]
    scale, shift = (d if parameter is not None else 0 for parameter in (module.weight, module.bias))
    yield "norm", {"add": n * (3 * d + 1 + shift), "multiply": n * (2 * d + 2 + scale), "root": n, "divide": n}


def _global_norm(positions, name, module):
    yield "norm", dict.fromkeys(("multiply", "add"), positions.of(name) * module.weight.numel())


def _batch_norm(positions, name, module):
    yield "norm", dict.fromkeys(("multiply", "add"), positions.of(name) * module.channels)


def _softmax(pairs, rows):
    return {"compare": pairs, "add": 2 * pairs, "exp": pairs, "multiply": pairs, "divide": rows}


def _repssa(positions, name, module):
    """Pairs of frames and heads are those of the mixed values, macs over the width of a head."""
    told = positions.counter.products.get((name, "values"))
    if told is None:
        return
    d, o = module.v.out_features, module.options
    pairs = told.macs * module.nhead // d
    if o.score == "softmax":
        yield "softmax", _softmax(pairs, positions.of(name) * module.nhead)
    if o.hdm != "none":
        yield "decay mask", {"add" if o.hdm == "log_bias" and o.score == "softmax" else "multiply": pairs}


def _iml_block(positions, name, module):
    yield "residual", {"add": 2 * positions.of(name) * module.mlp.linear_2.out_features}


def _iml(positions, name, module):
    if module.config.neuron == "lif_multistep":
        yield "mean of micro-steps", {"add": positions.frames * module.config.levels * module.config.d_model}


def _rotary(positions, name, module):
    d = module.out.in_features
    if module.positions == "rope":
        fired = positions.counter.spikes.get(f"{name}.qkv_neuron.neuron")
        yield "positions", {"add": 0 if fired is None else 2 * int(fired.counts[: 2 * d].sum())}
    elif module.positions != "none":
        yield "positions", {"add": positions.of(name) * d}


def _spikescr_block(positions, name, module):
    branches = 2 if module.convolution is None else 4
    yield "residual", {"add": branches * positions.of(name) * module.attention.out.out_features}


def _shift_block(positions, name, module):
    yield "residual", {"add": positions.of(name) * module.skip.out_features}


def _column_norm(columns, elements, sums, utterances):
    """Of ``elements`` keys in ``sums`` columns."""
    return {
        "softmax": _softmax(elements, sums),
        "l1": {"add": elements + sums, "multiply": elements, "divide": sums},
        "l2": {"add": elements + sums, "multiply": 2 * elements, "root": sums, "divide": sums},
        "mean": {"multiply": elements, "divide": utterances},
    }[columns]


def _linear_attention(positions, name, module):
    tokens, keys = positions.of_weight(f"{name}.qkv", module.qkv), module.widths[1]
    kind = "softmax" if module.columns == "softmax" else "norm"
    yield kind, _column_norm(module.columns, tokens * keys, positions.utterances * keys, positions.utterances)
    if module.residual:
        yield "residual", {"add": tokens * module.widths[2]}


def _homeostatic_bias(positions, name, module):
    hidden, channels = positions.utterances * module.down.out_features, positions.utterances * module.up.out_features
    yield "activation", {"compare": hidden, "tanh": channels, "multiply": channels}


def _pts(positions, name, module):
    config, n = module.config, positions.of(name)
    prompts = positions.utterances * config.num_prompts * config.d_model  # their mean is what the bias is made of
    biased = bool(config.num_prompts) + bool(config.static_bias)
    yield "bias", {"add": biased * n * config.d_model + prompts}
    scaled = config.input_norm == "none"  # else the norm's weights hold the scale inside the tanh
    yield "activation", {"tanh": n * module.input_size, "multiply": scaled * n * module.input_size}


def _rate_readout(positions, name, module):
    classes = positions.utterances * module.linear.out_features
    yield "readout", {"add": _updates(positions, f"{name}.output")[1], "multiply": classes, "divide": positions.utterances}


def _frame_encoder(positions, name, module):
    if getattr(module.model, "position", "none") == "abs":
        yield "positions", {"add": positions.of(name) * module.output_size}


def _embedding(positions, name, module):
    d = module.encoder.output_size
    elements, channels = positions.of(name) * d, positions.utterances * d
    pooling = {"add": 3 * elements + channels, "multiply": elements + 2 * channels, "root": channels, "divide": positions.utterances}
    yield "readout", pooling


def _attentive_pooling(positions, name, module):
    """Statistics twice, of all frames alike and weighted; the softmax is over frames, a row a channel."""
    inner, width = module.score.in_features, module.score.out_features
    hidden, elements, channels = positions.of(name) * inner, positions.of(name) * width, positions.utterances * width
    yield "activation", {"add": hidden, "compare": hidden, "tanh": hidden}
    yield "softmax", _softmax(elements, channels)
    plain = {"add": 3 * elements, "multiply": elements + 2 * channels, "divide": positions.utterances}
    weighted = {"add": 3 * elements, "multiply": 3 * elements}
    both = {key: plain.get(key, 0) + weighted.get(key, 0) for key in plain}
    yield "readout", {**both, "compare": 2 * channels, "root": 2 * channels}


def _pooled_embedding(positions, name, module):
    """A mean over frames, where there is no pooling that counts itself."""
    if module.pooling is None:
        yield from _linear_head(positions, name, module)


def _utterance_norm(positions, name, module):
    yield "norm", dict.fromkeys(("multiply", "add"), positions.utterances * module.channels)


def _subsampling(positions, name, module):
    if module.activation == "relu":
        convs = ((f"{name}.conv_1", module.conv_1), (f"{name}.conv_2", module.conv_2))
        yield "activation", {"compare": sum(positions.of_weight(*conv) * module.channels for conv in convs)}


def _frame_layer(positions, name, module):
    yield "activation", {"compare": positions.of(name) * module.output_size}


def _linear_head(positions, name, module):
    elements, channels = (count * module.encoder.output_size for count in (positions.of(name), positions.utterances))
    yield "readout", {"add": elements, "multiply": channels, "divide": positions.utterances}


def _spiking_mlp(positions, name, module):
    yield "activation", {"tanh": positions.of(name) * module.out.out_features}


def _twin_attention(positions, name, module):
    d, n = module.out.linear.in_features, positions.of(name)
    told = positions.counter.products.get((name, "scores"))
    yield "softmax", _softmax(told.macs * module.nhead // d, n * module.nhead)
    yield "positions", {"multiply": 4 * n * d, "add": 2 * n * d}  # a rotation of every two of the 2 d queries and keys


def _twin_mlp(positions, name, module):
    yield "activation", {"compare": positions.of(name) * module.up.linear.out_features}


def _twin_convolution(positions, name, module):
    elements = positions.of(name) * len(module.weight)
    yield "activation", {"compare": 3 * elements, "sigmoid": elements}


def _twin_block(positions, name, module):
    yield "residual", {"add": len(module.branches) * positions.of(name) * module.branches[0].out.linear.out_features}


def _twin(positions, name, module):
    yield "activation", {"compare": positions.of(name) * module.conv.out_channels}


def _vgg_subsampling(positions, name, module):
    """ReLU, or ReLU and pooling at once: the largest of 0 and of a window, a comparison an element."""
    convs = [(f"{name}.convs.{index}", conv) for index, conv in enumerate(module.convs)]
    yield "activation", {"compare": sum(positions.of_weight(*conv) * conv[1].out_channels for conv in convs)}


def _bilstm_layer(positions, name, module):
    """Input, forget and output gate, candidate and cell; the two biases of torch's gates are one."""
    cells = 2 * positions.of(name) * module.lstm.hidden_size
    yield "bias", {"add": 4 * cells}
    yield "activation", {"sigmoid": 3 * cells, "tanh": 2 * cells, "multiply": 3 * cells, "add": cells}


def _vgg_bilstm(positions, name, module):
    yield "activation", {"tanh": positions.of(name) * module.out.out_features}


def _host_attention(positions, name, module):
    """torch's attention in SpeechBrain's blocks; keys and values of the decoder's cross attention are made once a frame."""
    d, n = module.embed_dim, positions.of(name)
    decoding = positions.decoder is not None and inside(name, positions.decoder)
    crossing = decoding and name.split(".")[-2] == "multihead_attn"
    pairs = positions.crossed if crossing else positions.step_pairs if decoding else positions.pairs
    yield "softmax", _softmax(pairs * module.num_heads, n * module.num_heads)
    if module.in_proj_bias is not None:
        yield "bias", {"add": n * d + 2 * d * positions.frames if crossing else 3 * n * d}


def _host_ffn(positions, name, module):
    kind = next(type(part) for part in module.ffn if not isinstance(part, nn.Linear | nn.Dropout))
    operation = {nn.ReLU: "compare"}.get(kind, kind.__name__.lower())
    yield "activation", {operation: positions.of(name) * module.ffn[0].out_features}


def _host_block(branches):
    def rule(positions, name, module):
        """Additions of the residual sums of a block."""
        yield "residual", {"add": branches * positions.of(name) * module.pos_ffn.ffn[-1].out_features}

    return rule


def _host_positions(positions, name, module):
    alone = name.endswith("positional_encoding_decoder")
    yield "positions", {"add": ((0 if alone else positions.frames) + positions.steps) * module.pe.shape[-1]}


def _nothing(positions, name, module):
    return iter(())


_HOST = "speechbrain.lobes.models.transformer.Transformer"
_TWIN = "spikebrain.baselines.spikescr_twin"
_VGG = "spikebrain.baselines.vgg_bilstm"
RULES = {
    SingleStepPLIF: _single_step,
    LIF: _lif,
    IterativeLIF: _iterative,
    MultiLevelSpike: _multilevel,
    GatedNeuron: _gated,
    nn.LayerNorm: _layer_norm,
    GlobalNorm: _global_norm,
    MaskedBatchNorm: _batch_norm,
    RepSSA: _repssa,
    FusedRepSSA: _repssa,
    IMLSpikeformerBlock: _iml_block,
    IMLSpikeformer: _iml,
    SpikeDrivenTransformer: _iml,
    RotarySpikingAttention: _rotary,
    SpikeSCRBlock: _spikescr_block,
    SpikingShiftBlock: _shift_block,
    SpikingLinearAttention: _linear_attention,
    HomeostaticBias: _homeostatic_bias,
    PTSSNN: _pts,
    RateReadout: _rate_readout,
    Conv2dSubsampling: _subsampling,
    FrameLayer: _frame_layer,
    LinearHead: _linear_head,
    LIFMLP: _spiking_mlp,
    GSU: _spiking_mlp,
    nn.MultiheadAttention: _host_attention,
    nn.Embedding: _nothing,  # looked up, not multiplied
    # By name: rooms and hosts that the count of a network without them does without, and classes that are their module's own.
    "spikebrain.lobes.framewise.FrameEncoder": _frame_encoder,
    "spikebrain.lobes.framewise.SpikingEmbedding": _embedding,
    "spikebrain.lobes.pooled.PooledEmbedding": _pooled_embedding,
    "spikebrain.lobes.speaker.AttentiveStatisticsPooling": _attentive_pooling,
    "spikebrain.lobes.speaker.UtteranceNorm": _utterance_norm,
    f"{_TWIN}._Attention": _twin_attention,
    f"{_TWIN}._MLP": _twin_mlp,
    f"{_TWIN}._Convolution": _twin_convolution,
    f"{_TWIN}._Block": _twin_block,
    f"{_TWIN}.SpikeSCRTwin": _twin,
    "spikebrain.blocks.subsampling.VGGSubsampling": _vgg_subsampling,
    f"{_VGG}.BiLSTMLayer": _bilstm_layer,
    f"{_VGG}.VGGBiLSTM": _vgg_bilstm,
    f"{_HOST}.TransformerEncoderLayer": _host_block(2),
    f"{_HOST}.TransformerDecoderLayer": _host_block(3),
    f"{_HOST}.PositionalEncoding": _host_positions,
    "speechbrain.nnet.attention.PositionalwiseFeedForward": _host_ffn,
}

"""IML-Spikeformer: a Transformer encoder whose products are fed by multi-level spikes.

    X1 = X  + Drop(HD-RepSSA(X))                                                               Eq. 4
    X2 = X1 + Drop(ChannelMLP(X1))                                                             Eq. 6
    HD-RepSSA(X):  S   = SN_in(norm_1(X))
                   V_s = SN_v(S W_V + b_V)
                   A   = (S W_Q)(S W_K)^T a head, real: no neuron on q and k                   Eq. 12
                   Y   = softmax((A * H(m)) / sqrt(d_k)) V_s                                   Eq. 13, 15
                   out = SN_a(Y) W_out + b_out

The residual stream is real; the input of every linear layer is spikes. Source: "IML-Spikeformer: Input-aware
Multi-Level Spiking Transformer for Speech Processing", arXiv 2507.07396v1, IEEE TNNLS 37(3). Where the paper is silent
we say so at the option concerned. Two things stay real at inference: layer norms and the softmax.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention import spike_attention
from spikebrain.attention.decay_mask import log_decay
from spikebrain.attention.spike_attention import AttentionOptions
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.blocks.spiking_mlp import SpikingMLP
from spikebrain.neurons import FiringOptions, IterativeLIF, MultiLevelSpike
from spikebrain.neurons.switches import one_of


@dataclass(frozen=True)
class IMLSpikeformerConfig(FiringOptions):
    """Every switch of the encoder, those of its neurons included. Table V's rows are ``neuron``, ``attention``, ``score``, ``hdm``.

    Arguments
    ---------
    num_layers, d_model, nhead, d_ffn : int
        M, D, H and F; the published AISHELL-1 model is 12 x 256, 4 heads, 2048.
    dropout : float
        On the two residual branches; none on spikes or attention weights.
    neuron : str
        "imls", "mls" (fixed threshold) or "lif_multistep" (T micro-steps, trained through all of them).
    levels : int
        T.
    attention : str
        "repssa", or "sdsa3": neurons on q, k and v, no softmax and no decay mask.
    score : str
        "softmax" (RepSSA_S) or "linear" (RepSSA_L).
    linear_form : str
        Of RepSSA_L: "quadratic" (the map, then the values) or "scan" (two scans, O(L)).
    hdm : str
        Where the decay mask acts: "logit_mul" (Eq. 15 as printed), "log_bias", "post_softmax" or "none".
    hdm_first_index : int
        m of the first block: 1 after the naming of Fig. 4; 0 is RetNet's.
    qk_bias : bool
        Biases on the query and key projections. Eq. 12 has none; the published parameter count has them.
    block_norm : str
        "layernorm" before both neurons SN_in and SN_1, or "none". The paper does not mention norms, its parameter
        count includes them.
    final_norm : bool
        Layer norm after the last block.
    causal : bool
        A frame attends to itself and earlier ones. Statistics stay those of the whole batch in training.
    preset : str
        "paper_literal": spikes worth 1 and no gradient through Lambda, whatever the two options say.
    lif_decay : float
        Of "lif_multistep", a micro-step.
    threshold, rounding, output_scale, grad_through_scale, momentum, eps, statistic, sync, running_in_training
        As in :class:`spikebrain.neurons.FiringOptions`.
    """

    model = "IML-Spikeformer"
    num_layers: int = 12
    d_model: int = 256
    nhead: int = 4
    d_ffn: int = 2048
    dropout: float = 0.1
    neuron: str = one_of("imls", "mls", "lif_multistep")
    levels: int = 6
    attention: str = one_of("repssa", "sdsa3")
    score: str = one_of("softmax", "linear")
    linear_form: str = one_of("quadratic", "scan")
    hdm: str = one_of(*spike_attention.HDM_MODES)
    hdm_first_index: int = 1
    qk_bias: bool = False
    block_norm: str = one_of("layernorm", "none")
    final_norm: bool = True
    causal: bool = False
    preset: str = one_of("default", "paper_literal")
    lif_decay: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.causal and self.attention == "sdsa3":
            raise ValueError("causal is True, but attention sdsa3 mixes the whole utterance in one state: set causal: False, or repssa")
        if self.d_model % self.nhead:
            raise ValueError(f"d_model {self.d_model} is not a multiple of nhead {self.nhead}: choose a width that the heads share evenly")

    @classmethod
    def of(cls, **switches):
        """The configuration of keyword arguments, those of its preset replaced. Raises as :meth:`Switches.of` does."""
        config = super().of(**switches)
        if config.preset == "paper_literal":
            return replace(config, output_scale="none", grad_through_scale=False)
        return config

    def make_neuron(self, channels):
        """A layer of ``channels`` neurons."""
        if self.neuron == "lif_multistep":
            return IterativeLIF(channels, self.levels, self.lif_decay, self.threshold)
        return MultiLevelSpike(channels, self.levels, self.neuron, self)

    def make_norm(self):
        """The norm in front of a block's neurons."""
        return nn.LayerNorm(self.d_model, eps=1e-6) if self.block_norm == "layernorm" else nn.Identity()


class RepSSA(nn.Module):
    """HD-RepSSA of block ``index`` (counted from 1), without its residual.

    The decay mask's m is ``index - 1 + hdm_first_index``.
    """

    def __init__(self, config, index):
        super().__init__()
        d = config.d_model
        self.nhead, self.score, self.linear_form = config.nhead, config.score, config.linear_form
        self.options = AttentionOptions(config.score, config.hdm, log_decay(index - 1 + config.hdm_first_index), config.causal)
        self.sn_in, self.sn_v, self.sn_a = (config.make_neuron(d) for _ in range(3))
        self.qk = SpikeLinear(d, 2 * d, bias=config.qk_bias)
        self.v, self.out = SpikeLinear(d, d), SpikeLinear(d, d)

    def forward(self, x, counts):
        """Real (B, L, D) of normed membranes ``x`` (B, L, D)."""
        y = self.mix(*self.project(x, counts))
        return self.out(self.sn_a.fire(y, counts))

    def mix(self, q, k, values):
        """Real (B, L, D): the spikes ``values`` mixed over frames by the scores of ``q`` and ``k`` (B, H, L, d_k)."""
        if operands.listening():
            self._tell(values)
        if self.score == "linear" and self.linear_form == "scan":
            return spike_attention.repssa_linear_scan(q, k, values, self.options)
        return spike_attention.repssa(q, k, values, self.options)

    def project(self, x, counts):
        """Queries and keys (B, H, L, d_k), real, and the spikes of the values."""
        spikes = self.sn_in.fire(x, counts)
        q, k = (spike_attention.split_heads(part, self.nhead) for part in self.qk(spikes).chunk(2, -1))
        return q, k, self.sn_v.fire(self.v(spikes), counts)

    def weights(self, x, counts):
        """The attention map (B, H, L, L): softmax weights, or A' of the linear form."""
        q, k, values = self.project(x, counts)
        return spike_attention.attention_weights(q, k, values.counts, self.options)

    def _tell(self, values):
        """Scores are real x real; every value spike is added to each frame of its utterance."""
        width, counts = values.value.shape[-1], values.counts
        macs = int((counts**2).sum()) * width
        real = operands.Kind.REAL
        operands.tell(operands.Product(self, "scores", real, real, macs))
        fired = values.level.flatten(1).sum(1, dtype=torch.long)
        operands.tell(operands.Product(self, "values", real, values.kind, macs, int((fired * counts).sum())))


class SDSA3(nn.Module):
    """Spike-driven self-attention 3 without its residual: the ablation of Table V. No softmax, no mask, no norm inside."""

    def __init__(self, config, index):
        super().__init__()
        d = config.d_model
        self.nhead = config.nhead
        self.sn_in, self.sn_q, self.sn_k, self.sn_v, self.sn_a = (config.make_neuron(d) for _ in range(5))
        self.qk = SpikeLinear(d, 2 * d, bias=config.qk_bias)
        self.v, self.out = SpikeLinear(d, d), SpikeLinear(d, d)

    def forward(self, x, counts):
        """Real (B, L, D) of normed membranes ``x`` (B, L, D)."""
        spikes = self.sn_in.fire(x, counts)
        q, k = self.qk(spikes).chunk(2, -1)
        q, k, v = self.sn_q.fire(q, counts), self.sn_k.fire(k, counts), self.sn_v.fire(self.v(spikes), counts)
        return self.out(self.sn_a.fire(self.mix(q, k, v), counts))

    def mix(self, q, k, v):
        """Real (B, L, D) of three trains of spikes."""
        if operands.listening():
            self._tell(q, k, v)
        heads = [spike_attention.split_heads(s.value, self.nhead) for s in (q, k, v)]
        return spike_attention.sdsa3(*heads, scale=heads[0].shape[-1] ** -0.5)

    def weights(self, x, counts):
        """SDSA-3 has no attention map."""
        raise ValueError("attention: sdsa3 never forms an attention map; use attention: repssa to look at one")

    def _tell(self, q, k, v):
        macs = int(q.counts.sum()) * q.value.shape[-1] * (q.value.shape[-1] // self.nhead)
        fired_q, fired_k, fired_v = (spike_attention.split_heads(s.level, self.nhead).sum(-1, dtype=torch.long) for s in (q, k, v))
        operands.tell(operands.Product(self, "state", k.kind, v.kind, macs, int((fired_k * fired_v).sum())))
        width = q.value.shape[-1] // self.nhead
        operands.tell(operands.Product(self, "read", q.kind, operands.Kind.REAL, macs, int(fired_q.sum()) * width))


class IMLSpikeformerBlock(nn.Module):
    """Attention and channel MLP, each on a real residual stream; five layers of neurons (seven with SDSA-3)."""

    def __init__(self, config, index):
        super().__init__()
        self.norm_1, self.norm_2 = config.make_norm(), config.make_norm()
        self.attention = {"repssa": RepSSA, "sdsa3": SDSA3}[config.attention](config, index)
        self.mlp = SpikingMLP(config.d_model, config.d_ffn, config.make_neuron)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, counts):
        """(B, L, D) of (B, L, D) and frame counts (B,)."""
        x = x + self.dropout(self.attention(self.norm_1(x), counts))
        return x + self.dropout(self.mlp(self.norm_2(x), counts))


class IMLSpikeformer(nn.Module):
    """The encoder: M blocks and a final layer norm. Keyword arguments are the fields of :class:`IMLSpikeformerConfig`.

    The input is a real sequence of width ``d_model``: subsampled features, projected, with absolute positions added.

    Example
    -------
    >>> encoder = IMLSpikeformer(num_layers=2, d_model=16, nhead=2, d_ffn=32)
    >>> out, _ = encoder(torch.randn(3, 10, 16), lengths=torch.tensor([1.0, 0.5, 0.7]))
    >>> out.shape
    torch.Size([3, 10, 16])
    """

    position = "abs"  # the decay mask is symmetric and cannot tell left from right

    def __init__(self, **switches):
        super().__init__()
        self.config = config = IMLSpikeformerConfig.of(**switches)
        self.layers = nn.ModuleList(IMLSpikeformerBlock(config, m) for m in range(1, config.num_layers + 1))
        self.norm = nn.LayerNorm(config.d_model, eps=1e-6) if config.final_norm else nn.Identity()

    def forward(self, x, lengths=None, state=None):
        """Encodes a padded batch.

        Arguments
        ---------
        x : Tensor (B, L, D)
        lengths : Tensor (B,), optional
            Relative lengths.
        state : None
            There is none: attention looks at the whole utterance.

        Returns
        -------
        (out, None) : out (B, L, D); frames past an utterance's end are 0.

        Raises
        ------
        ValueError
            When x has another width.
        """
        hidden, counts = self._enter(x, lengths)
        for layer in self.layers:
            hidden = layer(hidden, counts)
        return frames.zero_padding(self.norm(self._leave(hidden)), lengths), None

    def attention_maps(self, x, lengths=None):
        """The map of every block, a list of (B, H, L, L): softmax weights, or A' of the linear form; no gradient.

        With "lif_multistep" the map is the mean over the micro-steps.
        """
        with torch.no_grad():
            hidden, counts = self._enter(x, lengths)
            maps = []
            for layer in self.layers:
                maps.append(self._leave(layer.attention.weights(layer.norm_1(hidden), counts)))
                hidden = layer(hidden, counts)
        return maps

    def _enter(self, x, lengths):
        """Checks the width; "lif_multistep" repeats the input for T micro-steps, folded into the batch."""
        width = self.config.d_model
        if x.shape[-1] != width:
            raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {width}: set d_model: {x.shape[-1]}")
        counts = frames.absolute(lengths, x)
        if self.config.neuron == "lif_multistep":
            return x.repeat(self.config.levels, 1, 1), counts.repeat(self.config.levels)
        return x, counts

    def _leave(self, hidden):
        if self.config.neuron == "lif_multistep":
            return hidden.unflatten(0, (self.config.levels, -1)).mean(0)
        return hidden


def paper_literal(**switches):
    """The encoder that follows the printed equations to the letter where they can be followed."""
    return IMLSpikeformer(**{**switches, "preset": "paper_literal"})


def aishell_12(**changes):
    """The 30.35 M model of Table I: 12 blocks of width 256."""
    return IMLSpikeformer(**{"num_layers": 12, "d_model": 256, "nhead": 4, "d_ffn": 2048, "levels": 6, **changes})


def aishell_24(**changes):
    """The 46.11 M model of Table I: 24 blocks of width 256."""
    return aishell_12(**{"num_layers": 24, **changes})


def aishell_36(**changes):
    """The 61.89 M model of Table I: 36 blocks of width 256."""
    return aishell_12(**{"num_layers": 36, **changes})


def librispeech_18(**changes):
    """The 99.36 M model of Table II: 18 blocks of width 512."""
    return IMLSpikeformer(**{"num_layers": 18, "d_model": 512, "nhead": 8, "d_ffn": 2048, "levels": 6, **changes})


def voxceleb_3(**changes):
    """The 0.6 M model of Table III: 3 blocks of width 128; it ends with its last block, as the count of 594,816 says."""
    sizes = {"num_layers": 3, "d_model": 128, "nhead": 4, "d_ffn": 512, "levels": 6, "final_norm": False}
    return IMLSpikeformer(**{**sizes, **changes})


def voxceleb_6(**changes):
    """The 1.18 M model of Table III: 6 blocks of width 128."""
    return voxceleb_3(**{"num_layers": 6, **changes})


def voxceleb_9(**changes):
    """The 1.76 M model of Table III: 9 blocks of width 128."""
    return voxceleb_3(**{"num_layers": 9, **changes})

"""PTS-SNN: temporal shift, prompts and a bias that bring features of a frozen model into the range of spiking neurons.

    X0  = tanh(0.1 LayerNorm(X))                                                                       Eq. 5
    H_l = PLIF(N(W_l Shift(H_{l-1}) + b_l)) + V_l H_{l-1}                    l = 1, 2: 768 -> 512 -> 256    Eq. 6
    Z   = [P ; H_2] ;  S = 1[Z >= threshold]                                 prompts P                  Eq. 7, 8
    O   = Q (N(K)^T V) / sqrt(d_k) + Z                                       Q, K, V = S W_q, S W_k, S W_v   Eq. 9
    b   = scale tanh(W_up ReLU(W_down mean_j O_prompt[j] + b_down) + b_up)   0 to begin with            Eq. 10-12
    Xc  = O_frames + b                                                       the output                 Eq. 13

Behind it stands :class:`spikebrain.blocks.rate_readout.RateReadout`, for classes as :class:`spikebrain.lobes.RateClassifier`. Source: Su,
Wang, Zhang, "PTS-SNN", arXiv 2602.08240 v1, 2026. There is no published code, and the paper's text has lost its equations and several of
its numbers.

What is ours: the layer norm N of the currents and prompts that begin around the threshold, since by the letter of the paper every layer is
silent at first and queries, keys, values and prompts have a gradient of exactly 0 (:func:`paper_literal`, a test); the residual + Z and
the division by sqrt(d_k); the projection V_l of the residual, without bias, which two different widths force; softmax as the
normalisation of keys; and the sizes d_k, the bottleneck and the number of prompts. With them the network with its readout for 4
classes has 1,194,009 parameters, 1,192,473 without the norms; the paper says 1.19 M. Many other choices add up to that number too: it does
not show that ours are the authors'.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention.linear_attention import COLUMNS
from spikebrain.blocks.homeostatic_bias import HomeostaticBias
from spikebrain.blocks.masked_norm import FrameConstantDropout, MaskedBatchNorm
from spikebrain.blocks.soft_saturation import INPUT_NORMS, SoftSaturation
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.blocks.spiking_linear_attention import SpikingLinearAttention
from spikebrain.blocks.temporal_shift import shift, shifted_channels
from spikebrain.neurons import PLIF
from spikebrain.neurons.neuron_switches import SoftNeuronSwitches
from spikebrain.neurons.single_step import SingleStepPLIF
from spikebrain.neurons.switches import one_of


@dataclass(frozen=True)
class PTSSNNConfig(SoftNeuronSwitches):
    """Every switch of the encoder; the defaults are the widths of the paper, and ours where its values are lost.

    Arguments
    ---------
    num_layers, d_model : int
        Blocks, and channels of the last one and of the output: 2 and 256 in the paper.
    d_ffn : int, optional
        Channels of the blocks before the last; 2 d_model where it is None, as in the paper.
    nhead, causal
        For SpeechBrain's sake: the attention has one head whatever is asked, and ``causal=True`` is refused, since shift and attention
        look ahead.
    num_prompts : int
        L_p; 0 leaves out prompts and bias (w/o prompt tuning). 4 is ours: the paper's optimum is lost, but lies below 6.
    attention : bool
        False leaves it out: prompts are averaged as they are, and the bias is the same for every utterance (w/o attention).
    d_k : int, optional
        Width of queries and keys; d_model / 2 where it is None (ours).
    columns : str
        "softmax", "l1", "l2" or "mean": normalisation of keys over tokens.
    attention_residual : bool
        Adds the tokens to what they attend to (ours).
    bottleneck : int, optional
        Of the bias; d_model / 16 where it is None (ours).
    bias_scale : float
        Largest absolute bias; 0.5 is ours.
    static_bias : float
        A constant added to the output: the other reading of the paper's "bias parameter in LIF neurons" (Fig. 4b).
    input_norm : str
        "layer" (the paper), "global" or "none": see :class:`spikebrain.blocks.soft_saturation.SoftSaturation`.
    saturation : float
        Scale inside the tanh.
    shift : float
        Share of channels that are shifted, half of them back, half ahead.
    block_norm : str
        "layer", "batch" or "none": normalises currents before their neurons (ours).
    prompt_init : str
        "threshold", normal with the threshold as mean and half of it as deviation, so that half of them fire (ours); or "small", with
        a mean of 0 and a deviation of 0.02, as prompts usually begin.
    dropout : float
        Share of a block's neurons that are silenced for a whole utterance while training; the paper names none.
    decay, threshold, reset, detach_reset, decay_input, surrogate, alpha
        As for :class:`spikebrain.neurons.neuron_switches.SoftNeuronSwitches`.
    """

    model, beside = "PTSSNN", ("input_size",)
    num_layers: int = 2
    d_model: int = 256
    d_ffn: int | None = None
    nhead: int = 1
    causal: bool = False
    num_prompts: int = 4
    attention: bool = True
    d_k: int | None = None
    columns: str = one_of(*COLUMNS)
    attention_residual: bool = True
    bottleneck: int | None = None
    bias_scale: float = 0.5
    static_bias: float = 0.0
    input_norm: str = one_of(*INPUT_NORMS)
    saturation: float = 0.1
    shift: float = 0.25
    block_norm: str = one_of("layer", "batch", "none")
    prompt_init: str = one_of("threshold", "small")
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1 or self.num_prompts < 0:
            raise ValueError(f"num_layers is {self.num_layers} and num_prompts {self.num_prompts}: choose 1 or more, and 0 or more")
        if self.causal:
            raise ValueError("causal is True, but PTS-SNN looks at the whole utterance: set causal: False")

    @property
    def widths(self):
        """Channels behind each block."""
        return (*[self.d_ffn or 2 * self.d_model] * (self.num_layers - 1), self.d_model)

    @property
    def key_width(self):
        """Width of queries and keys."""
        return self.d_k or max(1, self.d_model // 2)

    @property
    def bottleneck_width(self):
        """Channels between the two layers of the bias."""
        return self.bottleneck or max(1, self.d_model // 16)

    def make_prompts(self):
        """The prompts, one behind the other, Tensor (num_prompts * d_model,)."""
        mean, deviation = (self.threshold, self.threshold / 2) if self.prompt_init == "threshold" else (0.0, 0.02)
        return nn.init.normal_(torch.empty(self.num_prompts * self.d_model), mean, deviation)


class SpikingShiftBlock(nn.Module):
    """One block, Eq. 6: shift, linear layer, norm, neurons, and a linear residual that is not shifted.

    Arguments
    ---------
    channels, out_channels : int
    config : PTSSNNConfig
    """

    FOLDS = (("linear", ("batch_norm",)),)

    def __init__(self, channels, out_channels, config):
        super().__init__()
        self.shifted = shifted_channels(channels, config.shift)
        self.linear, self.skip = SpikeLinear(channels, out_channels), SpikeLinear(channels, out_channels, bias=False)
        self.layer_norm = nn.LayerNorm(out_channels) if config.block_norm == "layer" else None
        self.batch_norm = MaskedBatchNorm(out_channels) if config.block_norm == "batch" else None
        self.neuron, self.dropout = PLIF(out_channels, **config.neuron_options()), FrameConstantDropout(config.dropout)

    def forward(self, x, counts):
        """Real (B, L, out_channels) of ``x`` (B, L, channels), both 0 past the frame counts (B,)."""
        current = self.linear(operands.Spikes.real(shift(x, self.shifted), counts))
        if self.layer_norm is not None:
            current = self.layer_norm(current)
        spikes, _ = self.neuron.run(current, counts, None, self.dropout.gain(current), self.batch_norm)
        return spikes.value + self.skip(operands.Spikes.real(x, counts))


class PTSSNN(nn.Module):
    """The encoder. Keyword arguments beside ``input_size`` are the fields of :class:`PTSSNNConfig`.

    Arguments
    ---------
    input_size : int, optional
        Channels of the features: 768 of emotion2vec, 1024 of a large WavLM, 80 mel bands; d_model where it is None.

    Attributes
    ----------
    prompts : Parameter (num_prompts * d_model,), or None
        In one dimension, as everything that is no factor of a product: hosts give weights of two dimensions other starting values
        and let them decay, and either would take prompts below the threshold for good.

    Example
    -------
    >>> encoder = PTSSNN(input_size=80, d_model=32)
    >>> encoder(torch.randn(3, 10, 80), lengths=torch.tensor([1.0, 0.5, 0.7]))[0].shape
    torch.Size([3, 10, 32])
    """

    position = "none"  # shift and membranes know the order of frames

    def __init__(self, input_size=None, **switches):
        super().__init__()
        self.config = config = PTSSNNConfig.of(**switches)
        self.input_size, width = input_size or config.d_model, config.d_model
        self.saturation = SoftSaturation(self.input_size, config.saturation, config.input_norm)
        self.layers = nn.ModuleList(SpikingShiftBlock(*pair, config) for pair in pairwise([self.input_size, *config.widths]))
        self.prompts = self.attention = self.bias = None
        if config.num_prompts:
            self.prompts = nn.Parameter(config.make_prompts())
            self.bias = HomeostaticBias(width, config.bottleneck_width, config.bias_scale)
        if config.attention:
            neuron = SingleStepPLIF(width, **config.neuron_options())
            self.attention = SpikingLinearAttention(width, config.key_width, neuron, config.columns, config.attention_residual)

    def forward(self, x, lengths=None, state=None):
        """Encodes a padded batch.

        Arguments
        ---------
        x : Tensor (B, L, N)
            Features.
        lengths : Tensor (B,), optional
            Relative lengths.
        state : None
            There is none: attention looks at the whole utterance.

        Returns
        -------
        (out, None) : out (B, L, d_model), real: the calibrated currents of the neurons behind; 0 past an utterance's end

        Raises
        ------
        ValueError
            When x has another number of channels.
        """
        if x.shape[-1] != self.input_size:
            raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {self.input_size}: set input_size: {x.shape[-1]}")
        counts = frames.absolute(lengths, x)
        hidden = self.saturation.saturate(x, counts)
        for layer in self.layers:
            hidden = layer(hidden, counts)
        prompts = None
        if self.prompts is not None:
            prompts = self.prompts.to(hidden.dtype).view(1, -1, self.config.d_model).expand(len(x), -1, -1)
        if self.attention is not None:
            prompts, hidden = self.attention.mix(prompts, hidden, counts)
        if prompts is not None:
            hidden = hidden + self.bias(prompts.mean(1)).unsqueeze(1)
        return frames.zero_past(hidden + self.config.static_bias, counts), None


def paper_literal(input_size=None, **changes):
    """The encoder by the letter of the paper: no norm of currents, no residual around the attention, small prompts.

    It is dead at birth: no layer fires, and nothing but the upper layer of the bias has a gradient.
    """
    return PTSSNN(input_size, **{"block_norm": "none", "attention_residual": False, "prompt_init": "small", **changes})


def iemocap(input_size=768, **changes):
    """The encoder of the 1.19 M network for IEMOCAP's four classes, over emotion2vec's 768 channels."""
    return PTSSNN(input_size, **changes)

"""Spike-driven Transformer: attention without softmax, and LIF neurons that step T times through every frame.

    X_t = X , t = 1..T                                  the input, in every micro-step
    X1  = X_t + Drop(SDSA3(X_t)) ;  X2 = X1 + Drop(ChannelMLP(X1))                            Eq. 4
    SDSA3(X) : S = SN(norm_1(X)) ;  Q, K, V = SN(S W_Q + b_Q), SN(S W_K + b_K), SN(S W_V + b_V)
               out = SN_a(Q (K^T V) / sqrt(d_k)) W_out + b_out                                Eq. 5
    out = norm(mean over t of the last X2)

with the neurons of Eq. 1-3 (decay, threshold, soft reset). It is what IML-Spikeformer (arXiv 2507.07396, Tables I, II and IV) is compared
with: the same skeleton, so the same number of parameters; SDSA-3 is of M. Yao et al., "Spike-driven Transformer V2", arXiv 2404.03663.
The paper leaves out its batch norms; of its convolutions inside the attention linear layers are left, as the number of parameters
says. Blocks are those of :mod:`spikebrain.encoders.iml_spikeformer`.

From the published code of V2: a time constant of two micro-steps, no derivative through the reset, a threshold of 0.5 behind the attention
and of 1 elsewhere, 1/8 as the scale of heads of 64 channels. Ours: soft reset and an input of weight 1, as in Eq. 1-3, where that code
resets to 0 and halves the input; layer norms, which the published number of parameters includes.
"""

from dataclasses import dataclass

from torch import nn

from spikebrain import lengths as frames
from spikebrain.encoders.iml_spikeformer import IMLSpikeformerBlock
from spikebrain.neurons import IterativeLIF
from spikebrain.neurons.switches import Switches, one_of


@dataclass(frozen=True)
class SpikeDrivenTransformerConfig(Switches):
    """Every switch of a :class:`SpikeDrivenTransformer`.

    Arguments
    ---------
    num_layers, d_model, nhead, d_ffn : int
        Blocks, width, heads and width of the channel MLP; the published AISHELL-1 model is 12 x 256, 4 heads, 2048.
    dropout : float
        On the two residual branches; none on spikes.
    causal : bool
        Only False: every frame reads the sum over all of its utterance.
    levels : int
        T, micro-steps of a frame: 6 in Table I, 4 and 6 in Table II, 8 in Table IV.
    decay : float
        What is left of a membrane after a micro-step, 0..1.
    threshold : float
        Of all neurons but those behind the attention.
    attention_threshold : float
        Of the neurons behind the attention.
    qk_bias : bool
        Biases on queries and keys; the published number of parameters has them.
    block_norm : str
        "layernorm" in front of a block's two branches, or "none".
    final_norm : bool
        Layer norm behind the last block.
    """

    model = "SpikeDrivenTransformer"
    attention, neuron = "sdsa3", "lif_multistep"  # what a block of IML-Spikeformer asks its configuration for: no switches here
    num_layers: int = 12
    d_model: int = 256
    nhead: int = 4
    d_ffn: int = 2048
    dropout: float = 0.1
    causal: bool = False
    levels: int = 6
    decay: float = 0.5
    threshold: float = 1.0
    attention_threshold: float = 0.5
    qk_bias: bool = True
    block_norm: str = one_of("layernorm", "none")
    final_norm: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.causal:
            raise ValueError("causal is True, but SpikeDrivenTransformer looks at the whole utterance: set causal: False")
        if self.d_model % self.nhead:
            raise ValueError(f"d_model {self.d_model} is not a multiple of nhead {self.nhead}: choose a width that the heads share evenly")
        if self.num_layers < 1 or self.levels < 1:
            raise ValueError(f"num_layers is {self.num_layers} and levels {self.levels}: choose 1 or more of each")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is {self.decay}: choose what is left of a membrane after a micro-step, 0 to 1")
        if min(self.threshold, self.attention_threshold) <= 0:
            raise ValueError(f"threshold {self.threshold} and attention_threshold {self.attention_threshold} must be positive")

    def make_neuron(self, channels):
        """A layer of ``channels`` neurons."""
        return IterativeLIF(channels, self.levels, self.decay, self.threshold)

    def make_norm(self):
        """The norm in front of a branch."""
        return nn.LayerNorm(self.d_model, eps=1e-6) if self.block_norm == "layernorm" else nn.Identity()

    def make_block(self, index):
        """Block ``index``, counted from 1."""
        block = IMLSpikeformerBlock(self, index)
        block.attention.sn_a.threshold = self.attention_threshold
        return block


class SpikeDrivenTransformer(nn.Module):
    """The encoder. Keyword arguments are the fields of :class:`SpikeDrivenTransformerConfig`.

    The input is a real sequence of width ``d_model``: subsampled features, projected, with absolute positions added.

    Example
    -------
    >>> import torch
    >>> encoder = SpikeDrivenTransformer(num_layers=2, d_model=16, nhead=2, d_ffn=32)
    >>> out, _ = encoder(torch.randn(3, 10, 16), lengths=torch.tensor([1.0, 0.5, 0.7]))
    >>> out.shape
    torch.Size([3, 10, 16])
    """

    position = "abs"  # nothing else tells one frame from another

    def __init__(self, **switches):
        super().__init__()
        self.config = config = SpikeDrivenTransformerConfig.of(**switches)
        self.layers = nn.ModuleList(config.make_block(index) for index in range(1, config.num_layers + 1))
        self.norm = nn.LayerNorm(config.d_model, eps=1e-6) if config.final_norm else nn.Identity()

    def forward(self, x, lengths=None, state=None):
        """Encodes a padded batch.

        Arguments
        ---------
        x : Tensor (B, L, D)
        lengths : Tensor (B,), optional
            Relative lengths.
        state : None
            There is none: attention looks at the whole utterance, and membranes begin anew at every frame.

        Returns
        -------
        (out, None) : out (B, L, D), real; frames past an utterance's end are 0.

        Raises
        ------
        ValueError
            When x has another width.
        """
        width, steps = self.config.d_model, self.config.levels
        if x.shape[-1] != width:
            raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {width}: set d_model: {x.shape[-1]}")
        hidden, counts = x.repeat(steps, 1, 1), frames.absolute(lengths, x).repeat(steps)  # micro-steps lie in the batch, step by step
        for layer in self.layers:
            hidden = layer(hidden, counts)
        return frames.zero_padding(self.norm(hidden.unflatten(0, (steps, -1)).mean(0)), lengths), None


def aishell_12(**changes):
    """The encoder of Table I's 30.35 M model, 15,781,376 parameters: 12 blocks of width 256, 6 micro-steps."""
    return SpikeDrivenTransformer(**{"num_layers": 12, "d_model": 256, "nhead": 4, "d_ffn": 2048, "levels": 6, **changes})


def librispeech_18(**changes):
    """The encoder of Table II's 99.36 M models, 56,743,936 parameters: 18 blocks of width 512; 6 micro-steps, or ``levels=4``."""
    return SpikeDrivenTransformer(**{"num_layers": 18, "d_model": 512, "nhead": 8, "d_ffn": 2048, "levels": 6, **changes})

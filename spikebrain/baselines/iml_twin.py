"""The twin of IML-Spikeformer without spikes: the pre-norm Transformer encoder that its paper compares with in every table.

    X1 = X  + Drop(softmax(Q K^T / sqrt(d_k)) V W_out + b_out) ,   Q, K, V = linear maps of norm_1(X)
    X2 = X1 + Drop(ReLU(norm_2(X1) W_1 + b_1) W_2 + b_2)

The same layers, widths and norms as :mod:`spikebrain.encoders.iml_spikeformer`, hence the same number of parameters, with
``qk_bias: True`` that of the published Transformers (arXiv 2507.07396, Tables I to IV; ESPnet's encoder). There is no decay mask in it.
Speech recognisers of SpeechBrain have their own under ``encoder_module: transformer``; this one stands where encoders of
:mod:`spikebrain.registry` stand, as in speaker recognition, where the outputs of its blocks are joined.
"""

import torch.nn.functional as F
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention.spike_attention import merge_heads, split_heads
from spikebrain.encoders.iml_spikeformer import IMLSpikeformerConfig


def _heard(layer, x, counts):
    """A linear map of ``x`` (B, L, C), declared for the frame counts (B,)."""
    operands.tell_real(layer, counts, layer.weight.numel())
    return layer(x)


class TwinAttention(nn.Module):
    """Softmax attention without its residual."""

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.nhead, self.causal = config.nhead, config.causal
        self.qk, self.v, self.out = nn.Linear(d, 2 * d, config.qk_bias), nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x, counts):
        """(B, L, D) of normed ``x`` (B, L, D) and frame counts (B,), past which there are no keys."""
        q, k = _heard(self.qk, x, counts).chunk(2, -1)
        heads = [split_heads(part, self.nhead) for part in (q, k, _heard(self.v, x, counts))]
        for part in ("scores", "values"):
            operands.tell_real(self, counts * counts, x.shape[-1], part)
        allowed = frames.valid(counts, x)[:, None, None]
        if self.causal:
            allowed = allowed & allowed.new_ones(x.shape[1], x.shape[1]).tril()
        return _heard(self.out, merge_heads(F.scaled_dot_product_attention(*heads, attn_mask=allowed)), counts)


class TwinBlock(nn.Module):
    """Attention and channel MLP, each on a residual stream."""

    def __init__(self, config):
        super().__init__()
        self.norm_1, self.norm_2 = config.make_norm(), config.make_norm()
        self.attention = TwinAttention(config)
        self.up, self.down = nn.Linear(config.d_model, config.d_ffn), nn.Linear(config.d_ffn, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, counts):
        """(B, L, D) of (B, L, D) and frame counts (B,)."""
        x = x + self.dropout(self.attention(self.norm_1(x), counts))
        return x + self.dropout(_heard(self.down, _heard(self.up, self.norm_2(x), counts).relu(), counts))


class IMLTwin(nn.Module):
    """The encoder. Keyword arguments as of :class:`spikebrain.encoders.iml_spikeformer.IMLSpikeformer`, those of neurons unused.

    Example
    -------
    >>> import torch
    >>> encoder = IMLTwin(num_layers=2, d_model=16, nhead=2, d_ffn=32)
    >>> out, _ = encoder(torch.randn(3, 10, 16), lengths=torch.tensor([1.0, 0.5, 0.7]))
    >>> out.shape
    torch.Size([3, 10, 16])
    """

    position = "abs"

    def __init__(self, **switches):
        super().__init__()
        self.config = config = IMLSpikeformerConfig.of(**switches)
        if (config.attention, config.score) != ("repssa", "softmax"):
            what = f"attention: {config.attention} and score: {config.score}"
            raise ValueError(f"{what} are of spikes: the twin has softmax attention, leave them out")
        self.layers = nn.ModuleList(TwinBlock(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.d_model, eps=1e-6) if config.final_norm else nn.Identity()

    def forward(self, x, lengths=None, state=None):
        """(out, None): out (B, L, D), 0 past an utterance's end, of ``x`` (B, L, D) and relative lengths (B,).

        Raises ValueError when x has another width.
        """
        width = self.config.d_model
        if x.shape[-1] != width:
            raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {width}: set d_model: {x.shape[-1]}")
        counts = frames.absolute(lengths, x)
        hidden = frames.zero_past(x, counts)  # what a NaN in the padding would do to a sum over keys
        for layer in self.layers:
            hidden = layer(hidden, counts)
        return frames.zero_past(self.norm(hidden), counts), None

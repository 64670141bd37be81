"""The twin of SpikeSCR without spikes: the same layers, widths, norms and numbers of parameters.

Where SpikeSCR has neurons the twin has ReLU, its gate is a sigmoid, and its attention is softmax(Q K^T / sqrt(d_k)) V with rotary
positions on Q and K. Branches end in a norm, that of the convolution in its gate, and in nothing else, so that the stream is real.
It is ours: the paper compares with no such network.
"""

import torch
import torch.nn.functional as F
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention import rope
from spikebrain.attention.spike_attention import merge_heads, split_heads
from spikebrain.blocks.frame_convolution import convolve
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.encoders.spikescr import SpikeSCRConfig


class _Normed(nn.Module):
    """Linear layer and masked batch norm."""

    def __init__(self, width, out, bias=True):
        super().__init__()
        self.linear, self.norm = nn.Linear(width, out, bias), MaskedBatchNorm(out)
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, x, counts):
        """(B, L, out) of ``x`` (B, L, width) and frame counts (B,); 0 past them."""
        operands.tell_real(self.linear, counts, self.linear.weight.numel())
        return self.norm.normalise(self.linear(x), counts)


class _Attention(nn.Module):
    """softmax(Q K^T / sqrt(d_k)) V with rotary positions on Q and K, and the layer behind it."""

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.nhead, self.qkv, self.out = config.nhead, _Normed(d, 3 * d), _Normed(d, d)

    def forward(self, x, counts):
        """(B, L, D) of ``x`` (B, L, D) and frame counts (B,), past which there are no keys."""
        q, k, v = self.qkv(x, counts).chunk(3, -1)
        q, k = rope.rotate(q, self.nhead), rope.rotate(k, self.nhead)
        heads = [split_heads(part, self.nhead) for part in (q, k, v)]
        operands.tell_real(self, counts * counts, x.shape[-1], "scores")
        operands.tell_real(self, counts * counts, x.shape[-1], "values")
        y = F.scaled_dot_product_attention(*heads, attn_mask=frames.valid(counts, x)[:, None, None])
        return self.out(merge_heads(y), counts)


class _MLP(nn.Module):
    """Two linear layers without bias, ReLU between them."""

    def __init__(self, config):
        super().__init__()
        self.up, self.down = _Normed(config.d_model, config.hidden, False), _Normed(config.hidden, config.d_model, False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, counts):
        """(B, L, D) of ``x`` (B, L, D) and frame counts (B,)."""
        return self.down(self.dropout(self.up(x, counts).relu()), counts)


class _Convolution(nn.Module):
    """The separable gated convolution; half of what it mixes is the content, half opens the gate, a sigmoid."""

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.pointwise, self.mix, self.gate = _Normed(d, d), _Normed(d, 2 * d), _Normed(d, d)
        self.weight, self.norm = nn.Parameter(torch.empty(d, 1, config.kernel_size)), MaskedBatchNorm(d)
        nn.init.xavier_uniform_(self.weight)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, counts):
        """(B, L, D) of ``x`` (B, L, D) and frame counts (B,), past which the kernel sees zeros."""
        hidden = frames.zero_past(self.pointwise(x, counts).relu(), counts)
        operands.tell_real(self, counts, self.weight.numel())
        hidden = self.norm.normalise(convolve(hidden, self.weight, groups=len(self.weight)), counts).relu()
        content, path = self.mix(self.dropout(hidden), counts).chunk(2, -1)
        operands.tell_real(self, counts, content.shape[-1], "gate")
        return content * torch.sigmoid(self.gate(path.relu(), counts))


class _Block(nn.Module):
    """Attention, MLP, convolution, MLP, each added to a real stream."""

    def __init__(self, config):
        super().__init__()
        self.branches = nn.ModuleList([_Attention(config), _MLP(config), _Convolution(config), _MLP(config)])
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, counts):
        """The stream (B, L, D) with this block's four branches added, from frame counts (B,)."""
        for branch in self.branches:
            x = x + self.dropout(branch(x, counts))
        return x


class SpikeSCRTwin(nn.Module):
    """The encoder; ``input_size`` and keyword arguments as of :class:`spikebrain.encoders.spikescr.SpikeSCR`, those of neurons unused."""

    position = "none"

    def __init__(self, input_size=None, **switches):
        super().__init__()
        self.config = config = SpikeSCRConfig.of(**switches)
        if not (config.gate and config.convolution and config.positions == "rope"):
            raise ValueError("the twin of SpikeSCR is that of the whole network: leave gate, convolution and positions as they are")
        self.input_size = input_size or config.d_model
        self.conv, self.norm = nn.Conv1d(self.input_size, config.d_model, 3, padding=1), MaskedBatchNorm(config.d_model)
        nn.init.xavier_uniform_(self.conv.weight)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.num_layers))

    def forward(self, x, lengths=None, state=None):
        """(out, None): out (B, L, d_model), real, of features (B, L, N) and relative lengths (B,); 0 past an utterance's end.

        Raises ValueError when x has another number of channels.
        """
        if x.shape[-1] != self.input_size:
            raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {self.input_size}: set input_size: {x.shape[-1]}")
        counts = frames.absolute(lengths, x)
        operands.tell_real(self.conv, counts, self.conv.weight.numel())
        hidden = convolve(frames.zero_past(x, counts), self.conv.weight, self.conv.bias)
        hidden = self.norm.normalise(hidden, counts).relu()
        for layer in self.layers:
            hidden = layer(hidden, counts)
        return frames.zero_past(hidden, counts), None

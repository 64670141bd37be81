"""Spiking sparse linear attention: tokens become spikes, and attention over them is linear in their number (PTS-SNN, III-D).

    S = 1[Z >= threshold]                                  single-step PLIF             Eq. 8
    Q, K, V = S W_q, S W_k, S W_v                          no biases
    O = Q (N(K)^T V) / sqrt(d_k)  (+ Z)                    :mod:`spikebrain.attention.linear_attention`, Eq. 9

Z holds an utterance's frames, and prompts where there are some. Where among the tokens prompts stand makes no difference. The sum
with Z, a residual, is ours: the paper does not name one, and without it and without lively spikes the network learns nothing.
"""

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention.linear_attention import COLUMNS, linear_attention
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.neurons.switches import check_word


class SpikingLinearAttention(nn.Module):
    """The attention and its neurons.

    Arguments
    ---------
    channels : int
        C, of tokens and of values: there is no projection behind.
    key_width : int
        d_k.
    neuron : SingleStepPLIF
        Over C channels.
    columns : str
        Normalisation of keys: see :func:`spikebrain.attention.linear_attention.normalise_columns`.
    residual : bool
        Adds Z.
    """

    def __init__(self, channels, key_width, neuron, columns="softmax", residual=True):
        super().__init__()
        check_word("columns", columns, COLUMNS)
        self.neuron, self.columns, self.residual = neuron, columns, residual
        self.widths = [key_width, key_width, channels]
        self.qkv = SpikeLinear(channels, sum(self.widths), bias=False)

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"key_width={self.widths[0]}, columns={self.columns!r}, residual={self.residual}"

    def forward(self, x, lengths=None, prompts=None):
        """Mixes the frames ``x`` (B, L, C) with one another and with ``prompts`` (P, C).

        Returns (out, prompts): (B, L, C), 0 past an utterance's end, and (B, P, C), or None where there were none.
        """
        counts = frames.absolute(lengths, x)
        every = None if prompts is None else prompts.expand(len(x), *prompts.shape)
        prompts, out = self.mix(every, frames.zero_past(x, counts), counts)
        return frames.zero_past(out, counts), prompts

    def mix(self, prompts, x, counts):
        """(prompts, x) as they come out: of (B, P, C) or None, and of (B, L, C) that is 0 past its frame counts (B,)."""
        spikes = self.binarise(prompts, x, counts)
        q, k, v = self.qkv(spikes).split(self.widths, -1)
        if operands.listening():
            self._tell(spikes.counts)
        out = linear_attention(q, k, v, spikes.counts, self.columns)
        if prompts is None:
            return None, out + x if self.residual else out
        before, out = out.split([prompts.shape[1], x.shape[1]], 1)
        return (before + prompts, out + x) if self.residual else (before, out)

    def binarise(self, prompts, x, counts):
        """The declared spikes of all tokens (B, P + L, C): prompts first, so that the valid ones stand together."""
        fired = self.neuron.fire(x, counts)
        if prompts is None:
            return fired
        ahead = self.neuron.fire(prompts, torch.full_like(counts, prompts.shape[1]))
        value, code = torch.cat([ahead.value, fired.value], 1), torch.cat([ahead.code, fired.code], 1)
        return fired._replace(value=value, code=code, counts=ahead.counts + counts)

    def _tell(self, counts):
        """Queries, keys and values are real numbers: projections of spikes."""
        real, (key_width, _, value_width) = operands.Kind.REAL, self.widths
        macs = int(counts.sum()) * key_width * value_width
        for part in ("state", "read"):
            operands.tell(operands.Product(self, part, real, real, macs))

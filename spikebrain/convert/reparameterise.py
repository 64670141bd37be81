"""Queries and keys as one matrix a head: scores become products of spikes with real weights, without a real by real product.

    A_h = (S W_Q,h) (S W_K,h)^T = S W_QK,h S^T ,   W_QK,h = W_Q,h W_K,h^T  (D, D)         IML-Spikeformer Eq. 12

The paper writes one matrix; with several heads each needs its own, since one for all would be the sum of their maps, before the
softmax. With biases S has a column of ones: [W_Q; b_Q] [W_K; b_K]^T, (D + 1, D + 1). It costs memory, H D^2 numbers instead of 2 D^2,
and additions: :mod:`spikebrain.energy` prices both orders.
"""

import copy

import torch
from torch import nn

from spikebrain import operands
from spikebrain.attention import spike_attention
from spikebrain.convert.ready import check
from spikebrain.encoders.iml_spikeformer import RepSSA


class FusedRepSSA(nn.Module):
    """:class:`spikebrain.encoders.iml_spikeformer.RepSSA` with one matrix a head for its scores.

    Attributes
    ----------
    fused : Parameter (H, D, D), or (H, D + 1, D + 1) with biases
    """

    def __init__(self, attention):
        super().__init__()
        self.nhead, self.options = attention.nhead, attention.options
        self.sn_in, self.sn_v, self.sn_a = attention.sn_in, attention.sn_v, attention.sn_a
        self.v, self.out = attention.v, attention.out
        self.fused = nn.Parameter(fuse(attention.qk, self.nhead), requires_grad=attention.qk.weight.requires_grad)
        self.biased, self.head_width = attention.qk.bias is not None, attention.qk.in_features // self.nhead
        self.train(attention.training)

    def forward(self, x, counts):
        """Real (B, L, D) of normed membranes ``x`` (B, L, D)."""
        spikes = self.sn_in.fire(x, counts)
        values = self.sn_v.fire(self.v(spikes), counts)
        y = self.mix(self.scores(spikes), values)
        return self.out(self.sn_a.fire(y, counts))

    def scores(self, spikes):
        """Raw scores (B, H, L, L) of declared spikes (B, L, D)."""
        if operands.listening():
            self._tell_scores(spikes)
        s = spikes.value
        if self.biased:
            s = torch.cat([s, torch.ones_like(s[..., :1])], -1)
        return torch.matmul(torch.matmul(s.unsqueeze(1), self.fused), s.unsqueeze(1).transpose(-2, -1))

    def mix(self, scores, values):
        """Real (B, L, D): the spikes ``values`` mixed over frames by ``scores`` (B, H, L, L)."""
        if operands.listening():
            self._tell_values(values)
        heads = spike_attention.split_heads(values.value, self.nhead)
        weights = spike_attention.weights_of(scores, heads[..., : self.head_width], values.counts, self.options)
        return spike_attention.merge_heads(torch.matmul(weights, heads))

    def _tell_scores(self, spikes):
        """A spike adds one row of each head's matrix; then, heard again, one column of what that gave, for every query of its utterance."""
        counts, (heads, width, _) = spikes.counts, self.fused.shape
        fired = spikes.level.flatten(1).sum(1, dtype=torch.long)
        ones = counts if self.biased else torch.zeros_like(counts)  # the column of ones fires once a frame
        real, kind = operands.Kind.REAL, spikes.kind
        macs = int(counts.sum()) * heads * width**2
        operands.tell(operands.Product(self, "fused", kind, real, macs, int((fired + ones).sum()) * heads * width))
        macs = int((counts**2).sum()) * heads * width
        operands.tell(operands.Product(self, "scores", real, kind, macs, int(((fired + ones) * counts).sum()) * heads))

    def _tell_values(self, values):
        counts = values.counts
        macs, fired = int((counts**2).sum()) * values.value.shape[-1], values.level.flatten(1).sum(1, dtype=torch.long)
        operands.tell(operands.Product(self, "values", operands.Kind.REAL, values.kind, macs, int((fired * counts).sum())))


def fuse(qk, heads):
    """W_QK of every head, Tensor (H, D', D'), of a joined projection of queries and keys; D' is D, or D + 1 with biases."""
    rows = qk.weight if qk.bias is None else torch.cat([qk.weight, qk.bias.unsqueeze(1)], 1)
    q, k = (part.unflatten(0, (heads, -1)) for part in rows.detach().chunk(2))
    return torch.matmul(q.transpose(1, 2), k)


def reparameterise(network):
    """A copy of ``network`` whose RepSSA layers have one matrix a head for their scores; what has none is copied as it is.

    Scores are the same but for rounding. Raises as :func:`spikebrain.convert.ready.check` does.
    """
    check(network)
    network = copy.deepcopy(network)
    if isinstance(network, RepSSA):
        return FusedRepSSA(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RepSSA):
                setattr(parent, name, FusedRepSSA(child))
    return network

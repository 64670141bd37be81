"""Spiking channel MLP (IML-Spikeformer Eq. 6)."""

from torch import nn

from spikebrain.blocks.spike_linear import SpikeLinear


class SpikingMLP(nn.Module):
    """ChannelMLP(X) = SN_2(SN_1(X) W_1 + b_1) W_2 + b_2.

    Arguments
    ---------
    d_model, d_ffn : int
        D and F.
    neuron : callable
        ``neuron(channels)`` makes a layer of neurons with a ``fire(x, counts)``.
    """

    def __init__(self, d_model, d_ffn, neuron):
        super().__init__()
        self.sn_1, self.linear_1 = neuron(d_model), SpikeLinear(d_model, d_ffn)
        self.sn_2, self.linear_2 = neuron(d_ffn), SpikeLinear(d_ffn, d_model)

    def forward(self, x, counts):
        """Real (B, L, D) of membranes ``x`` (B, L, D) with frame counts (B,)."""
        hidden = self.linear_1(self.sn_1.fire(x, counts))
        return self.linear_2(self.sn_2.fire(hidden, counts))

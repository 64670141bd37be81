"""Separable gated convolution with its spiking gated unit (SpikeSCR Eq. 9 and 10)."""

import torch
from torch import nn

from spikebrain import operands
from spikebrain.blocks.frame_convolution import convolve
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.blocks.spike_linear import SpikeLinear


class DepthwiseConv(nn.Module):
    """A convolution over frames, channel by channel, with as much padding as keeps the length; no bias.

    Arguments
    ---------
    channels : int
    kernel_size : int, odd
        Frames.
    """

    def __init__(self, channels, kernel_size):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: choose an odd number of frames, so that the kernel has a middle")
        self.channels, self.kernel_size = channels, kernel_size
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.register_parameter("bias", None)  # a folded norm brings one
        nn.init.xavier_uniform_(self.weight)

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"{self.channels}, kernel_size={self.kernel_size}"

    def forward(self, spikes):
        """Real (B, L, C) of declared spikes; frames past an utterance's end hold no spike and so add nothing."""
        if operands.listening():
            operands.tell(self._product(spikes))
        value, weight = spikes.value, self.weight
        if torch.is_autocast_enabled(value.device.type):
            value = value.to(torch.get_autocast_dtype(value.device.type))
        bias = None if self.bias is None else self.bias.to(value.dtype)
        return convolve(value, weight.to(value.dtype), bias, groups=self.channels)

    def _product(self, spikes):
        """Taps that fall outside the utterance are counted, as a dense convolution computes them."""
        macs = int(spikes.counts.sum()) * self.channels * self.kernel_size
        return operands.Product(self, "weight", spikes.kind, operands.Kind.REAL, macs, int(spikes.level.sum()) * self.kernel_size)


class SeparableGatedConvolution(nn.Module):
    """SGC(X) = SN(P_WG(SN(D_W(SN(P_W(X))))))   (Eq. 10), with the gate X_2 * SN_2(W(SN_1(X_1)))   (Eq. 9).

    Arguments
    ---------
    d_model, kernel_size : int
    neuron : callable
        ``neuron(channels)`` makes a layer of LIF neurons.
    normed : callable
        ``normed(channels, dropout)`` makes one behind a batch normalisation.
    dropout : FrameConstantDropout
        Behind the output neurons.
    gate : bool
        False is the ablation "w/o SGU": the second pointwise layer goes straight to the output neurons.

    Notes
    -----
    The first half of the second pointwise layer is the content, which stays real, the second half feeds the gate: as in the
    published code; the paper's names are the other way round. A gate of 0 or 1 masks the content, it multiplies nothing.
    """

    def __init__(self, d_model, kernel_size, neuron, normed, dropout, gate=True):
        super().__init__()
        self.pointwise, self.pointwise_neuron = SpikeLinear(d_model, d_model), normed(d_model, True)
        self.depthwise, self.depthwise_neuron = DepthwiseConv(d_model, kernel_size), normed(d_model, True)
        self.mix = SpikeLinear(d_model, 2 * d_model if gate else d_model)
        self.dropout = dropout
        self.FOLDS = (("pointwise", ("pointwise_neuron",)), ("depthwise", ("depthwise_neuron",)))
        if gate:
            self.FOLDS += (("mix", ("content_norm", "gate_input")), ("gate_linear", ("gate",)))
            self.content_norm, self.gate_input = MaskedBatchNorm(d_model), normed(d_model, False)
            self.gate_linear, self.gate = SpikeLinear(d_model, d_model), normed(d_model, False)
            self.output_neuron = neuron(d_model)
        else:
            self.FOLDS += (("mix", ("output_neuron",)),)
            self.gate, self.output_neuron = None, normed(d_model, True)

    def forward(self, x, counts):
        """Spikes of declared spikes and frame counts (B,)."""
        hidden = self.pointwise_neuron.fire(self.pointwise(x), counts)
        hidden = self.mix(self.depthwise_neuron.fire(self.depthwise(hidden), counts))
        if self.gate is None:
            return self.output_neuron.fire(hidden, counts)
        content, path = hidden.chunk(2, -1)
        if self.content_norm is not None:  # None once it is folded
            content = self.content_norm.normalise(content, counts)
        gate = self.gate.fire(self.gate_linear(self.gate_input.fire(path, counts)), counts)
        gated = self.pass_through(content, gate)
        return self.output_neuron.fire(gated, counts, self.dropout.gain(gated))

    def pass_through(self, content, gate):
        """What of the real ``content`` (B, L, C) the spikes ``gate`` let pass."""
        if operands.listening():
            macs, passed = int(gate.counts.sum()) * content.shape[-1], int(gate.level.sum())
            operands.tell(operands.Product(self, "gate", operands.Kind.REAL, gate.kind, macs, passed))
        return content * gate.value

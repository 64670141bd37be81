"""Readout of classes as firing rates: a neuron for each class, and how often it fires in an utterance.

    s = PLIF(x) ;  y = PLIF(s W + b) ;  r_k = mean_t y[t, k] ;  logits = scale * r        (PTS-SNN Eq. 4, 14)

A rate lies in 0..1, so that with a scale of 1, the paper's, softmax(r) gives no class of K more than e / (e + K - 1): 0.475 of 4, 0.312
of 7, and the cross-entropy stays above 0.744 and 1.165. A larger scale (ours) lets it fall.
"""

from dataclasses import dataclass

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.neurons import LIF, PLIF
from spikebrain.neurons.neuron_switches import SoftNeuronSwitches
from spikebrain.neurons.switches import one_of


@dataclass(frozen=True)
class RateReadoutConfig(SoftNeuronSwitches):
    """Every switch of a :class:`RateReadout`.

    Arguments
    ---------
    neuron : str
        "plif", with one decay a layer to learn, or "lif".
    input_neuron : bool
        Neurons before the linear layer; False where what is read out are spikes already.
    logit_scale : float
        What a rate of 1 is worth as a logit.
    decay, threshold, reset, detach_reset, decay_input, surrogate, alpha
        As for :class:`spikebrain.neurons.neuron_switches.SoftNeuronSwitches`.
    """

    model, beside = "RateReadout", ("channels", "classes")
    neuron: str = one_of("plif", "lif")
    input_neuron: bool = True
    logit_scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.logit_scale <= 0:
            raise ValueError(f"logit_scale is {self.logit_scale}: choose more than 0, the paper's is 1")

    def make_neuron(self, channels):
        """A layer of ``channels`` neurons."""
        return {"plif": PLIF, "lif": LIF}[self.neuron](channels, **self.neuron_options())


class RateReadout(nn.Module):
    """The readout. Keyword arguments are the fields of :class:`RateReadoutConfig`.

    Arguments
    ---------
    channels : int
        C, of what is read out.
    classes : int
        K.

    Example
    -------
    >>> RateReadout(8, 4)(torch.rand(3, 10, 8), torch.tensor([1.0, 0.5, 0.7])).shape
    torch.Size([3, 4])
    """

    def __init__(self, channels, classes, **switches):
        super().__init__()
        self.config = config = RateReadoutConfig.of(**switches)
        self.neuron = config.make_neuron(channels) if config.input_neuron else None
        self.linear, self.output = SpikeLinear(channels, classes), config.make_neuron(classes)

    def forward(self, x, lengths=None):
        """Logits (B, K), float32 at least, of currents, or of spikes, ``x`` (B, L, C) and relative lengths (B,)."""
        counts = frames.absolute(lengths, x)
        fired = self.output.fire(self.linear(self._spikes(x, counts)), counts).value
        fired = fired.to(torch.promote_types(fired.dtype, torch.float32))
        return self.config.logit_scale * fired.sum(1) / counts.unsqueeze(1)

    def _spikes(self, x, counts):
        if self.neuron is not None:
            return self.neuron.fire(x, counts)
        # Without a gain the product keeps the value itself, which dropout may have scaled.
        spikes = frames.zero_past(x, counts)
        return operands.Spikes(spikes, spikes.to(torch.uint8), None, 1, counts)

"""The spiking network that PTS-SNN begins from: features go into LIF neurons as they are.

    s^l = LIF(W^l s^{l-1} + b^l) ,   s^0 = X

No norm, no saturation, no shift: features too weak for the threshold leave neurons silent, strong ones saturate them. PTS-SNN compares
with such a network (arXiv 2602.08240, Table IV, 41.78 % on IEMOCAP) and does not describe it; one hidden layer of 256 neurons with a
fixed decay of 0.5 is ours. With a linear layer and LIF neurons behind it (:class:`spikebrain.lobes.RateClassifier` with
``readout_kwargs: {neuron: lif}``) it has 197,892 parameters for 4 classes of 768 channels, as many as the linear head of
:mod:`spikebrain.baselines.linear_head`.
"""

from dataclasses import dataclass

from torch import nn

from spikebrain.baselines import stack
from spikebrain.baselines.lif_network import LIFNetworkState
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.neurons import LIF
from spikebrain.neurons.neuron_switches import SoftNeuronSwitches


@dataclass(frozen=True)
class VanillaSNNConfig(SoftNeuronSwitches):
    """Every switch of a :class:`VanillaSNN`.

    Arguments
    ---------
    num_layers, d_model : int
        Layers and neurons in each.
    nhead, d_ffn, dropout, causal
        Taken as every encoder takes them: there are no heads, no second width and no dropout, and the network is causal whatever is asked.
    decay, threshold, reset, detach_reset, decay_input, surrogate, alpha
        As for :class:`spikebrain.neurons.neuron_switches.SoftNeuronSwitches`.
    """

    model, beside = "VanillaSNN", ("input_size",)
    num_layers: int = 1
    d_model: int = 256
    nhead: int | None = None
    d_ffn: int | None = None
    dropout: float = 0.0
    causal: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1:
            raise ValueError(f"num_layers is {self.num_layers}: choose 1 or more")


class VanillaLayer(nn.Module):
    """Linear layer with biases, and LIF neurons."""

    def __init__(self, channels, config):
        super().__init__()
        self.linear, self.neuron = SpikeLinear(channels, config.d_model), LIF(config.d_model, **config.neuron_options())

    def forward(self, train, state):
        """(declared spikes, LIFState) of the operands ``train`` and the state before."""
        return self.neuron.run(self.linear(train), train.counts, state)


class VanillaSNN(nn.Module):
    """The network. Keyword arguments beside ``input_size`` are the fields of :class:`VanillaSNNConfig`.

    Arguments
    ---------
    input_size : int, optional
        Channels of the features; d_model where it is None.
    """

    position = "none"
    fires = True  # its output are spikes

    def __init__(self, input_size=None, **switches):
        super().__init__()
        self.config = config = VanillaSNNConfig.of(**switches)
        self.input_size = input_size or config.d_model
        widths = [self.input_size] + [config.d_model] * (config.num_layers - 1)
        self.layers = nn.ModuleList(VanillaLayer(width, config) for width in widths)

    def forward(self, x, lengths=None, state=None):
        """(spikes, state): spikes (B, L, d_model) of the last layer, 0 past an utterance's end, of features (B, L, N); a LIFNetworkState.

        Raises ValueError when x has another number of channels, or the state another number of layers or another shape.
        """
        train, after = stack.run(self, x, lengths, state)
        return train.value, LIFNetworkState(after)
